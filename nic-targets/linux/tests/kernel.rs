//! The kernel as executor: loading objects with every kind of map, rows, images, ageing, refusals.
//! Needs root; says SKIP otherwise.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use std::sync::Arc;

use dash_bpf::builder::{Builder, R0, R1, R2, R3, R6, R7, R10};
use dash_bpf::helper::{self, XdpAction, xdp_md};
use dash_bpf::map::{F_NO_PREALLOC, MapDef, MapKind};
use dash_bpf::op::{AluOp, AtomicOp, Cond, Reg, Size};
use dash_bpf::program::TailCalls;
use dash_bpf::{Object, Program, ProgramKind};
use dash_wire::stats::{EniStat, PortStat};
use dash_wire::tables::{FlowEntry, FlowHalf, flow_state};
use nic_linux::KernelEngine;
use nic_linux::loader::{LoadError, Loaded};
use nic_linux::sys::bpf::possible_cpus;
use nic_target::tables::map_defs;
use nic_target::{
    Capacity, Frame, Image, PacketEngine, Table, TableDelta, TableOp, Target, TargetError, Update,
    Verdict,
};

/// True, with a word on stderr, where the kernel refuses.
fn skip() -> bool {
    let reason = KernelEngine::unavailable();
    if let Some(reason) = &reason {
        eprintln!("SKIP: {reason}");
    }
    reason.is_some()
}

fn program(name: &str, write: impl FnOnce(&mut Builder)) -> Program {
    let mut b = Builder::new();
    write(&mut b);
    Program {
        name: name.to_owned(),
        kind: ProgramKind::Xdp,
        insns: b.finish().unwrap(),
    }
}

fn exit(b: &mut Builder, action: XdpAction) {
    b.mov(R0, action as i32);
    b.exit();
}

/// r0 = address of element `key` (a constant `u32`, kept at fp-4) of map `map`.
fn lookup(b: &mut Builder, map: u32, key: i32) {
    b.store(Size::W, R10, -4, key);
    call_with_key(b, map, -4, helper::MAP_LOOKUP_ELEM);
}

/// Calls a helper with the map in r1 and the stack at `at` in r2.
fn call_with_key(b: &mut Builder, map: u32, at: i32, number: u32) {
    b.mov(R2, R10);
    b.alu(AluOp::Add, R2, at);
    b.load_map(R1, map);
    b.call(number);
}

/// `dst = *(u64 *)r0` when r0 is not null, else 0.
fn load_or_zero(b: &mut Builder, dst: Reg) {
    b.mov(dst, 0);
    let absent = b.label();
    b.jump_if(Cond::Eq, R0, 0, absent);
    b.load(Size::Dw, dst, R0, 0);
    b.bind(absent);
}

fn map(name: &str, kind: MapKind, key_size: u32, value_size: u32, max_entries: u32) -> MapDef {
    let flags = if kind == MapKind::LpmTrie {
        F_NO_PREALLOC
    } else {
        0
    };
    MapDef {
        name: name.to_owned(),
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
    }
}

const PACKET: [u8; 64] = [0x5a; 64];

#[test]
fn a_program_reads_and_writes_every_kind_of_map() {
    if skip() {
        return;
    }
    const RESULT: u32 = 0;
    let maps = vec![
        map("result", MapKind::Array, 4, 8, 8),
        map("cpu", MapKind::PercpuArray, 4, 8, 1),
        map("hash", MapKind::Hash, 4, 8, 4),
        map("lpm", MapKind::LpmTrie, 8, 8, 4),
        map("stack", MapKind::Stack, 0, 8, 4),
        map("queue", MapKind::Queue, 0, 8, 4),
        map("no program names it", MapKind::Hash, 4, 8, u32::MAX),
    ];
    let store_result = |b: &mut Builder, at: i32, value: Reg| {
        lookup(b, RESULT, at);
        let absent = b.label();
        b.jump_if(Cond::Eq, R0, 0, absent);
        b.store(Size::Dw, R0, 0, value);
        b.bind(absent);
    };
    let main = program("all_maps", |b| {
        lookup(b, 1, 0);
        let absent = b.label();
        b.jump_if(Cond::Eq, R0, 0, absent);
        b.mov(R1, 5);
        b.atomic(Size::Dw, AtomicOp::Add, false, R0, 0, R1);
        b.bind(absent);
        lookup(b, 2, 77);
        load_or_zero(b, R6);
        store_result(b, 0, R6);
        // 10.1.2.3/32 against the trie.
        b.store(Size::W, R10, -16, 32);
        b.store(Size::W, R10, -12, i32::from_ne_bytes([10, 1, 2, 3]));
        call_with_key(b, 3, -16, helper::MAP_LOOKUP_ELEM);
        load_or_zero(b, R6);
        store_result(b, 1, R6);
        for (from, at) in [(4, 2), (5, 3)] {
            b.store(Size::Dw, R10, -16, 0);
            call_with_key(b, from, -16, helper::MAP_POP_ELEM);
            b.load(Size::Dw, R6, R10, -16);
            store_result(b, at, R6);
        }
        b.store(Size::Dw, R10, -16, 4242);
        b.mov(R2, R10);
        b.alu(AluOp::Add, R2, -16);
        b.load_map(R1, 5);
        b.mov(R3, 0);
        b.call(helper::MAP_PUSH_ELEM);
        b.call(helper::KTIME_GET_NS);
        b.mov(R6, R0);
        store_result(b, 4, R6);
        exit(b, XdpAction::Pass);
    });
    let loaded = Loaded::load(
        &Object {
            maps,
            programs: vec![main],
            tail_calls: vec![],
        },
        |_| None,
    )
    .unwrap();
    let map = |index: u32| loaded.map(index).unwrap();
    assert!(
        loaded.map(6).is_none(),
        "a map that no program names is not made"
    );
    let number = |n: u64| n.to_ne_bytes();
    map(2).update(&77u32.to_ne_bytes(), &number(1111)).unwrap();
    for (len, addr, value) in [
        (8u32, [10, 0, 0, 0], 8u64),
        (24, [10, 1, 2, 0], 24),
        (24, [10, 1, 3, 0], 99),
    ] {
        map(3)
            .update(&[len.to_ne_bytes(), addr].concat(), &number(value))
            .unwrap();
    }
    for n in [1u64, 2, 3] {
        map(4).push(&number(n)).unwrap();
        map(5).push(&number(n)).unwrap();
    }
    let mut out = [0; 256];
    for run in 1..=3u64 {
        let (outcome, _) = loaded.run(123_456_789, &PACKET, &mut out).unwrap();
        assert_eq!(outcome.retval, XdpAction::Pass as u32, "run {run}");
        assert_eq!(&out[..outcome.len], PACKET);
    }
    let mut value = Vec::new();
    let mut result = |at: u32| {
        assert!(map(RESULT).lookup(&at.to_ne_bytes(), &mut value).unwrap());
        u64::from_ne_bytes(value[..].try_into().unwrap())
    };
    // After three runs: the hash, the longest prefix, the stack's last, the queue's last, the clock.
    assert_eq!(
        [0, 1, 2, 3, 4].map(&mut result),
        [1111, 24, 1, 3, 123_456_789]
    );
    let mut cpus = Vec::new();
    assert!(map(1).lookup(&0u32.to_ne_bytes(), &mut cpus).unwrap());
    assert_eq!(cpus.len(), 8 * possible_cpus().unwrap());
    assert_eq!(
        cpus.chunks_exact(8)
            .map(|c| u64::from_ne_bytes(c.try_into().unwrap()))
            .sum::<u64>(),
        15
    );
    let mut popped = Vec::new();
    for _ in 0..3 {
        assert!(map(5).pop(&mut popped).unwrap());
        assert_eq!(popped, number(4242));
    }
    assert!(
        !map(5).pop(&mut popped).unwrap(),
        "three went in, three came out"
    );
    // Removal and walking.
    assert!(
        map(3)
            .delete(&[24u32.to_ne_bytes(), [10, 1, 2, 0]].concat())
            .unwrap()
    );
    assert!(
        !map(3)
            .delete(&[24u32.to_ne_bytes(), [10, 1, 2, 0]].concat())
            .unwrap()
    );
    loaded.run(0, &PACKET, &mut out).unwrap();
    assert_eq!(result(1), 8, "the shorter prefix matches now");
    let (mut first, mut next) = (Vec::new(), Vec::new());
    assert!(map(2).next_key(None, &mut first).unwrap());
    assert_eq!(first, 77u32.to_ne_bytes());
    assert!(!map(2).next_key(Some(&first), &mut next).unwrap());
    // Sizes are checked before the kernel reads past a slice.
    assert!(map(2).update(&[0; 3], &number(0)).is_err());
    assert!(map(2).update(&[0; 4], &[0; 7]).is_err());
    assert!(map(2).lookup(&[0; 5], &mut value).is_err());
    assert!(map(4).update(&[0; 4], &number(0)).is_err());
    assert!(map(4).push(&[0; 9]).is_err());
}

#[test]
fn tail_calls_reach_their_programs_and_heads_move() {
    if skip() {
        return;
    }
    let entry = |slot: i32| {
        program("entry", move |b| {
            b.load_map(R2, 0);
            b.mov(R3, slot);
            b.call(helper::TAIL_CALL);
            exit(b, XdpAction::Drop);
        })
    };
    let push = program("push", |b| {
        b.mov(R6, R1);
        b.mov(R2, -14);
        b.call(helper::XDP_ADJUST_HEAD);
        b.load(Size::W, R1, R6, xdp_md::DATA);
        b.load(Size::W, R2, R6, xdp_md::DATA_END);
        b.mov(R3, R1);
        b.alu(AluOp::Add, R3, 14);
        let short = b.label();
        b.jump_if(Cond::Gt, R3, R2, short);
        for at in 0..14 {
            b.store(Size::B, R1, at, i32::from(at));
        }
        exit(b, XdpAction::Tx);
        b.bind(short);
        exit(b, XdpAction::Aborted);
    });
    let object = |slot| Object {
        maps: vec![map("stages", MapKind::ProgArray, 4, 4, 8)],
        programs: vec![entry(slot), push.clone()],
        tail_calls: vec![TailCalls {
            map: 0,
            programs: vec![None, None, None, Some(1)],
        }],
    };
    let mut out = [0; 256];
    let (run, _) = Loaded::load(&object(3), |_| None)
        .unwrap()
        .run(0, &PACKET, &mut out)
        .unwrap();
    assert_eq!(
        (run.retval, run.len),
        (XdpAction::Tx as u32, PACKET.len() + 14)
    );
    assert_eq!(
        (&out[..14], &out[14..78]),
        (&(0..14).collect::<Vec<u8>>()[..], &PACKET[..])
    );
    let (run, _) = Loaded::load(&object(2), |_| None)
        .unwrap()
        .run(0, &PACKET, &mut out)
        .unwrap();
    assert_eq!(
        run.retval,
        XdpAction::Drop as u32,
        "an empty slot falls through"
    );
    let mut bad = object(3);
    bad.tail_calls[0].programs[0] = Some(9);
    let error = Loaded::load(&bad, |_| None).unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::TailCall {
                program: 9,
                programs: 2
            }
        ),
        "{error}"
    );
}

#[test]
fn refusals_say_where_and_why() {
    if skip() {
        return;
    }
    let load = |maps, program| {
        Loaded::load(
            &Object {
                maps,
                programs: vec![program],
                tail_calls: vec![],
            },
            |_| None,
        )
        .unwrap_err()
        .to_string()
    };
    let unchecked = program("unchecked", |b| {
        b.load(Size::W, R1, R1, xdp_md::DATA);
        b.load(Size::B, R0, R1, 0);
        b.exit();
    });
    let message = load(vec![], unchecked);
    assert!(
        message.contains("refused program unchecked of 3 instructions"),
        "{message}"
    );
    assert!(
        message.contains("invalid access to packet"),
        "the verifier's own words: {message}"
    );

    let uses = || {
        program("uses", |b| {
            b.load_map(R1, 0);
            exit(b, XdpAction::Pass);
        })
    };
    let huge = vec![map("huge", MapKind::Array, 4, 1 << 30, u32::MAX)];
    let message = load(huge, uses());
    assert!(
        message.contains("creating map huge (Array, 4294967295 entries of 4+1073741824 bytes"),
        "{message}"
    );
    let message = load(vec![map("acl", MapKind::Acl, 44, 4, 8)], uses());
    assert_eq!(message, "map acl: ACL classifier is not a kernel map");
    let message = load(vec![], uses());
    assert_eq!(
        message,
        "program uses names map 0, which the object does not have"
    );
    let raw = Program {
        kind: ProgramKind::Raw,
        ..program("raw", |b| exit(b, XdpAction::Pass))
    };
    assert!(load(vec![], raw).contains("Raw programs have no hook here"));
}

// From here on, the engine, over the tables of the pipeline.

fn capacity() -> Capacity {
    Capacity {
        enis: 4,
        routes: 16,
        mappings: 16,
        inbound_rules: 16,
        trusted_vnis: 16,
        acl_groups: 4,
        underlay_routes: 16,
        flows: 8,
    }
}

fn image(programs: Vec<Program>) -> Arc<Image> {
    let object = Object {
        maps: map_defs(&capacity()),
        programs,
        tail_calls: vec![],
    };
    Arc::new(Image {
        shape: [0; 32],
        ir: "".into(),
        object: Arc::new(object),
        native: None,
    })
}

fn update(image: Option<Arc<Image>>, ops: Vec<TableOp>) -> Update {
    Update {
        generation: 1,
        image,
        delta: Arc::new(TableDelta { ops }),
    }
}

fn put(table: Table, key: &[u8], value: &[u8]) -> TableOp {
    TableOp::Put {
        table,
        key: key.into(),
        value: value.into(),
    }
}

fn frame(start: &[u8], timestamp_ns: u64) -> Frame {
    let mut bytes = PACKET;
    bytes[..start.len()].copy_from_slice(start);
    let mut frame = Frame::new();
    assert!(frame.fill(&bytes));
    frame.timestamp_ns = timestamp_ns;
    frame.port = 3;
    frame
}

/// Loads the packet's start into r6 after checking that `len` bytes are there; else aborts.
fn packet(b: &mut Builder, len: i32) {
    b.load(Size::W, R6, R1, xdp_md::DATA);
    b.load(Size::W, R7, R1, xdp_md::DATA_END);
    b.mov(R2, R6);
    b.alu(AluOp::Add, R2, len);
    let enough = b.label();
    b.jump_if(Cond::Le, R2, R7, enough);
    exit(b, XdpAction::Aborted);
    b.bind(enough);
}

/// Sends back packets whose destination MAC is in `eni_mac`, drops others.
fn by_mac() -> Program {
    program("by_mac", |b| {
        packet(b, 14);
        b.store(Size::Dw, R10, -8, 0);
        for at in 0..6 {
            b.load(Size::B, R2, R6, at);
            b.store(Size::B, R10, at - 8, R2);
        }
        call_with_key(b, Table::EniMac.index(), -8, helper::MAP_LOOKUP_ELEM);
        let absent = b.label();
        b.jump_if(Cond::Eq, R0, 0, absent);
        exit(b, XdpAction::Tx);
        b.bind(absent);
        exit(b, XdpAction::Drop);
    })
}

/// Passes on packets whose bytes 0 to 3 have a prefix in route group 7.
fn by_route() -> Program {
    program("by_route", |b| {
        packet(b, 14);
        b.store(Size::W, R10, -12, 64);
        b.store(Size::W, R10, -8, 7);
        b.load(Size::W, R2, R6, 0);
        b.store(Size::W, R10, -4, R2);
        call_with_key(b, Table::Route4.index(), -12, helper::MAP_LOOKUP_ELEM);
        let absent = b.label();
        b.jump_if(Cond::Eq, R0, 0, absent);
        exit(b, XdpAction::Pass);
        b.bind(absent);
        exit(b, XdpAction::Drop);
    })
}

fn mac(n: u8) -> [u8; 8] {
    [2, 0, 0, 0, 0, n, 0, 0]
}

fn verdict(engine: &mut KernelEngine, start: &[u8]) -> Verdict {
    engine.run(&mut frame(start, 0)).unwrap()
}

#[test]
fn rows_come_and_go_and_outlive_code() {
    if skip() {
        return;
    }
    let mut engine = KernelEngine::new(capacity());
    assert!(matches!(
        engine.run(&mut frame(&[], 0)),
        Err(TargetError::NoImage)
    ));
    assert!(matches!(
        engine.apply(&update(None, vec![])),
        Err(TargetError::NoImage)
    ));
    let route =
        |len: u32, dst: [u8; 4]| [(32 + len).to_ne_bytes(), 7u32.to_ne_bytes(), dst].concat();
    let rows = vec![
        put(Table::EniMac, &mac(1), &[0; 4]),
        put(Table::EniMac, &mac(2), &[0; 4]),
        // No program names this table yet.
        put(Table::Route4, &route(8, [10, 0, 0, 0]), &[0; 24]),
    ];
    engine
        .apply(&update(Some(image(vec![by_mac()])), rows))
        .unwrap();
    assert_eq!(verdict(&mut engine, &mac(1)), Verdict::Send(3));
    assert_eq!(verdict(&mut engine, &mac(2)), Verdict::Send(3));
    assert_eq!(verdict(&mut engine, &mac(3)), Verdict::Drop);
    let ops = vec![
        TableOp::Delete {
            table: Table::EniMac,
            key: mac(1).into(),
        },
        put(Table::EniMac, &mac(3), &[0; 4]),
    ];
    engine.apply(&update(None, ops)).unwrap();
    assert_eq!(verdict(&mut engine, &mac(1)), Verdict::Drop);
    assert_eq!(verdict(&mut engine, &mac(3)), Verdict::Send(3));

    engine
        .apply(&update(Some(image(vec![by_route()])), vec![]))
        .unwrap();
    assert_eq!(verdict(&mut engine, &[10, 9, 9, 9]), Verdict::Pass);
    assert_eq!(verdict(&mut engine, &[11, 9, 9, 9]), Verdict::Drop);
    let ops = vec![TableOp::Delete {
        table: Table::Route4,
        key: route(8, [10, 0, 0, 0]).into(),
    }];
    engine.apply(&update(None, ops)).unwrap();
    assert_eq!(verdict(&mut engine, &[10, 9, 9, 9]), Verdict::Drop);

    engine
        .apply(&update(Some(image(vec![by_mac()])), vec![]))
        .unwrap();
    assert_eq!(
        verdict(&mut engine, &mac(3)),
        Verdict::Send(3),
        "rows are still there"
    );
}

#[test]
fn a_refused_update_changes_nothing() {
    if skip() {
        return;
    }
    let mut engine = KernelEngine::new(capacity());
    engine
        .apply(&update(
            Some(image(vec![by_mac()])),
            vec![put(Table::EniMac, &mac(1), &[0; 4])],
        ))
        .unwrap();
    let second = || put(Table::EniMac, &mac(2), &[0; 4]);

    let acl = program("acl", |b| {
        b.load_map(R1, Table::Acl.index());
        exit(b, XdpAction::Pass);
    });
    let error = engine
        .apply(&update(Some(image(vec![acl])), vec![second()]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "kernel cannot run this image: ACL classifier is not a kernel map"
    );
    let wrong = program("wrong", |b| b.exit());
    let error = engine
        .apply(&update(Some(image(vec![wrong])), vec![second()]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("refused program wrong of 1 instructions") && error.contains("R0 !read_ok"),
        "{error}"
    );
    let too_many = (2..=5)
        .map(|n| put(Table::EniMac, &mac(n), &[0; 4]))
        .collect();
    let error = engine
        .apply(&update(Some(image(vec![by_route()])), too_many))
        .unwrap_err();
    assert!(
        matches!(
            error,
            TargetError::TableFull {
                table: Table::EniMac,
                capacity: 4
            }
        ),
        "{error}"
    );
    let mut other = (*image(vec![by_mac()])).clone();
    let mut object = (*other.object).clone();
    object.maps[Table::EniMac as usize].key_size = 12;
    other.object = Arc::new(object);
    let error = engine
        .apply(&update(Some(Arc::new(other)), vec![second()]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(
            "map 1 is (\"eni_mac\", Hash, 12, 4), not the table (\"eni_mac\", Hash, 8, 4)"
        ),
        "{error}"
    );

    assert_eq!(verdict(&mut engine, &mac(1)), Verdict::Send(3));
    assert_eq!(verdict(&mut engine, &mac(2)), Verdict::Drop);
    let fill = (2..=4)
        .map(|n| put(Table::EniMac, &mac(n), &[0; 4]))
        .collect();
    engine.apply(&update(None, fill)).unwrap();
    assert_eq!(
        verdict(&mut engine, &mac(4)),
        Verdict::Send(3),
        "the refused rows took no room"
    );
}

#[test]
fn redirects_are_sends_of_the_port_they_name() {
    if skip() {
        return;
    }
    let to = |port: i32, flags: i32| {
        program("to", move |b| {
            b.mov(R1, port);
            b.mov(R2, flags);
            b.call(helper::REDIRECT);
            b.exit();
        })
    };
    let mut engine = KernelEngine::new(capacity());
    for (port, flags, want) in [
        (5, 0, Verdict::Send(5)),
        (0, 0, Verdict::Send(0)),
        (9, 1, Verdict::Aborted),
    ] {
        engine
            .apply(&update(Some(image(vec![to(port, flags)])), vec![]))
            .unwrap();
        assert_eq!(verdict(&mut engine, &[]), want, "port {port} flags {flags}");
    }
    engine
        .apply(&update(Some(image(vec![to(70_000, 0)])), vec![]))
        .unwrap();
    let error = engine.run(&mut frame(&[], 0)).unwrap_err().to_string();
    assert!(error.contains("port 70000"), "{error}");
}

#[test]
fn packets_the_kernel_cannot_take_are_drops_or_refusals() {
    if skip() {
        return;
    }
    let mut engine = KernelEngine::new(capacity());
    engine
        .apply(&update(
            Some(image(vec![program("pass", |b| exit(b, XdpAction::Pass))])),
            vec![],
        ))
        .unwrap();
    let mut run = |len: usize| {
        let mut frame = Frame::new();
        assert!(frame.fill(&vec![0; len]));
        engine.run(&mut frame)
    };
    assert!(matches!(run(13), Ok(Verdict::Drop)));
    assert!(matches!(run(14), Ok(Verdict::Pass)));
    assert!(matches!(run(1514), Ok(Verdict::Pass)));
    let error = run(9_600).unwrap_err().to_string();
    assert!(
        error.contains("a packet of 9600 bytes is longer than programs see in a test run"),
        "{error}"
    );
    let visible = nic_linux::loader::visible_bytes().unwrap();
    assert!((3072..9600).contains(&visible), "{visible}");
    assert!(matches!(run(3072), Ok(Verdict::Pass)));
    assert_eq!(
        engine.counters().unwrap().port[PortStat::IfInErrors as usize],
        1
    );
}

const CREATE: u8 = 0;
const TOUCH: u8 = 2;
const CLOSE: u8 = 4;
const TIMEOUT_MS: i32 = 100;
const LINGER_MS: i32 = 10;
const ENI: i32 = 1;

/// A toy connection tracker with the protocol of the pipeline towards the executor. Byte 0 of the
/// packet: create a flow of key byte 1, or touch or close the one in slot `byte 1`.
fn tracker() -> Program {
    use std::mem::offset_of;
    let field = |offset: usize| offset as i16;
    let side_len = size_of::<FlowHalf>() as i32;
    program("tracker", |b| {
        let (fail, not_create, report, done) = (b.label(), b.label(), b.label(), b.label());
        packet(b, 14);
        b.load(Size::B, R7, R6, 0);
        b.load(Size::B, R6, R6, 1);
        b.store(Size::W, R10, -4, R6);
        b.jump_if(Cond::Ne, R7, i32::from(CREATE), not_create);
        call_with_key(b, Table::FlowFree.index(), -4, helper::MAP_POP_ELEM);
        b.jump_if(Cond::Ne, R0, 0, fail);
        b.bind(not_create);
        call_with_key(b, Table::FlowSlab.index(), -4, helper::MAP_LOOKUP_ELEM);
        b.jump_if(Cond::Eq, R0, 0, fail);
        // r7 holds the order until here, then the entry; the order stays at fp-8.
        b.store(Size::W, R10, -8, R7);
        b.mov(R7, R0);
        b.call(helper::KTIME_GET_NS);
        b.store(Size::Dw, R7, field(offset_of!(FlowEntry, last_seen_ns)), R0);
        b.load(Size::W, R1, R10, -8);
        b.jump_if(Cond::Eq, R1, i32::from(TOUCH), done);
        let close = b.label();
        b.jump_if(Cond::Eq, R1, i32::from(CLOSE), close);
        b.store(
            Size::B,
            R7,
            field(offset_of!(FlowEntry, state)),
            i32::from(flow_state::ESTABLISHED),
        );
        b.store(
            Size::W,
            R7,
            field(offset_of!(FlowEntry, timeout_ms)),
            TIMEOUT_MS,
        );
        b.store(Size::H, R7, field(offset_of!(FlowEntry, eni)), ENI);
        // Keys are zero but for one byte each: the flow's, and the side.
        b.store(Size::B, R7, 0, R6);
        b.store(Size::B, R7, side_len as i16, R6);
        b.store(Size::B, R7, side_len as i16 + 1, 1);
        for side in 0..2 {
            b.load(Size::W, R1, R10, -4);
            b.alu(AluOp::Lsh, R1, 1);
            b.alu(AluOp::Or, R1, side);
            b.store(Size::W, R10, -12, R1);
            b.load_map(R1, Table::FlowIndex.index());
            b.mov(R2, R7);
            b.alu(AluOp::Add, R2, side * side_len);
            b.mov(R3, R10);
            b.alu(AluOp::Add, R3, -12);
            b.mov(Reg::R4, 0);
            b.call(helper::MAP_UPDATE_ELEM);
        }
        b.store(Size::W, R10, -16, ENI);
        call_with_key(b, Table::EniStats.index(), -16, helper::MAP_LOOKUP_ELEM);
        b.jump_if(Cond::Eq, R0, 0, fail);
        b.load(Size::Dw, R1, R0, EniStat::FlowCreated.offset() as i16);
        b.alu(AluOp::Add, R1, 1);
        b.store(Size::Dw, R0, EniStat::FlowCreated.offset() as i16, R1);
        b.jump(report);
        b.bind(close);
        b.store(
            Size::B,
            R7,
            field(offset_of!(FlowEntry, state)),
            i32::from(flow_state::CLOSING),
        );
        b.store(
            Size::W,
            R7,
            field(offset_of!(FlowEntry, timeout_ms)),
            LINGER_MS,
        );
        b.bind(report);
        b.mov(R3, 0);
        b.mov(R2, R10);
        b.alu(AluOp::Add, R2, -4);
        b.load_map(R1, Table::FlowEvents.index());
        b.call(helper::MAP_PUSH_ELEM);
        b.bind(done);
        exit(b, XdpAction::Pass);
        b.bind(fail);
        exit(b, XdpAction::Drop);
    })
}

const MS: u64 = 1_000_000;

#[test]
fn flows_expire_exactly_at_their_deadline_and_give_their_slot_back() {
    if skip() {
        return;
    }
    let mut engine = KernelEngine::new(capacity());
    engine
        .apply(&update(Some(image(vec![tracker()])), vec![]))
        .unwrap();
    let run = |e: &mut KernelEngine, order: u8, which: u8, at: u64| {
        e.run(&mut frame(&[order, which], at)).unwrap()
    };
    let keys = |e: &mut KernelEngine| {
        let mut keys = e
            .flows()
            .unwrap()
            .iter()
            .map(|f| f.sides[0].key.sip[0])
            .collect::<Vec<_>>();
        keys.sort_unstable();
        keys
    };
    let eni = |e: &mut KernelEngine, stat: EniStat| {
        e.counters().unwrap().eni.get(&1).map(|b| b[stat as usize])
    };
    assert_eq!(
        eni(&mut engine, EniStat::FlowCreated),
        None,
        "an ENI that never counted is absent"
    );

    // Slots are taken from 0 up.
    assert_eq!(run(&mut engine, CREATE, 11, 5), Verdict::Pass);
    assert_eq!(run(&mut engine, CREATE, 12, 50 * MS), Verdict::Pass);
    let flows = engine.flows().unwrap();
    assert_eq!(
        flows.iter().map(|f| f.last_seen_ns).collect::<Vec<_>>(),
        [5, 50 * MS]
    );
    assert_eq!(keys(&mut engine), [11, 12]);

    engine.advance(100 * MS + 4);
    assert_eq!(keys(&mut engine), [11, 12]);
    engine.advance(100 * MS + 5);
    assert_eq!(keys(&mut engine), [12]);
    assert_eq!(eni(&mut engine, EniStat::FlowAged), Some(1));

    // A packet keeps the other one alive: slot 1 until 240 ms.
    assert_eq!(run(&mut engine, TOUCH, 1, 140 * MS), Verdict::Pass);
    engine.advance(200 * MS);
    assert_eq!(keys(&mut engine), [12]);
    // Closing brings its deadline nearer: 220 ms.
    assert_eq!(run(&mut engine, CLOSE, 1, 210 * MS), Verdict::Pass);
    engine.advance(220 * MS - 1);
    assert_eq!(keys(&mut engine), [12]);
    // The clock of a packet expires flows before the packet runs; time does not go back.
    assert_eq!(run(&mut engine, CREATE, 13, 220 * MS), Verdict::Pass);
    engine.advance(0);
    assert_eq!(keys(&mut engine), [13]);
    assert_eq!(
        [
            EniStat::FlowCreated,
            EniStat::FlowAged,
            EniStat::FlowDeleted
        ]
        .map(|s| eni(&mut engine, s)),
        [Some(3), Some(1), Some(1)]
    );

    // All slots are there again: eight fit, a ninth does not.
    for which in 20..27 {
        assert_eq!(
            run(&mut engine, CREATE, which, 230 * MS),
            Verdict::Pass,
            "{which}"
        );
    }
    assert_eq!(run(&mut engine, CREATE, 27, 230 * MS), Verdict::Drop);
    assert_eq!(keys(&mut engine).len(), 8);
    // Code goes, flows stay, and still age.
    engine
        .apply(&update(Some(image(vec![by_mac()])), vec![]))
        .unwrap();
    assert_eq!(keys(&mut engine).len(), 8);
    engine.advance(1000 * MS);
    assert_eq!(keys(&mut engine), []);
    assert_eq!(eni(&mut engine, EniStat::FlowAged), Some(9));
}

#[test]
fn a_key_taken_over_by_a_newer_flow_survives_the_older_ones_end() {
    if skip() {
        return;
    }
    let mut engine = KernelEngine::new(capacity());
    engine
        .apply(&update(Some(image(vec![tracker()])), vec![]))
        .unwrap();
    engine.run(&mut frame(&[CREATE, 7], 0)).unwrap();
    engine.run(&mut frame(&[CREATE, 7], 60 * MS)).unwrap();
    engine.advance(100 * MS);
    let flows = engine.flows().unwrap();
    assert_eq!(
        flows.iter().map(|f| f.last_seen_ns).collect::<Vec<_>>(),
        [60 * MS]
    );
    engine.advance(160 * MS);
    assert_eq!(engine.flows().unwrap().len(), 0);
}
