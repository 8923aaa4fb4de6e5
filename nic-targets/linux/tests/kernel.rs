//! Loading objects into the kernel: every kind of map, tail calls, refusals. Needs root; says SKIP
//! otherwise.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use dash_bpf::builder::{Builder, R0, R1, R2, R3, R6, R10};
use dash_bpf::helper::{self, XdpAction, xdp_md};
use dash_bpf::map::{F_NO_PREALLOC, MapDef, MapKind};
use dash_bpf::op::{AluOp, AtomicOp, Cond, Reg, Size};
use dash_bpf::program::TailCalls;
use dash_bpf::{Object, Program, ProgramKind};
use nic_linux::KernelEngine;
use nic_linux::loader::{LoadError, Loaded, Purpose};
use nic_linux::sys::bpf::possible_cpus;

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
        ..Program::default()
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
        ..MapDef::default()
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
        Purpose::TestRun,
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
    let (run, _) = Loaded::load(&object(3), |_| None, Purpose::TestRun)
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
    let (run, _) = Loaded::load(&object(2), |_| None, Purpose::TestRun)
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
    let error = Loaded::load(&bad, |_| None, Purpose::TestRun).unwrap_err();
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
fn global_variables_start_with_their_contents() {
    if skip() {
        return;
    }
    let data = MapDef {
        contents: [7u32.to_ne_bytes(), 30u32.to_ne_bytes()].concat(),
        ..map(".data", MapKind::Array, 4, 8, 1)
    };
    let adds = program("adds", |b| {
        b.load_map_value(R1, 0, 0);
        b.load(Size::W, R0, R1, 0);
        b.load(Size::W, R2, R1, 4);
        b.alu(AluOp::Add, R0, R2);
        b.store(Size::W, R1, 0, R0);
        b.exit();
    });
    let object = Object {
        maps: vec![data],
        programs: vec![adds],
        tail_calls: vec![],
    };
    let loaded = Loaded::load(&object, |_| None, Purpose::TestRun).unwrap();
    for expected in [37, 67] {
        let (run, _) = loaded.run(0, &PACKET, &mut [0; 256]).unwrap();
        assert_eq!(run.retval, expected);
    }
}

/// What clang makes of C; `None`, said on stderr, where it does not.
fn clang(source: &str) -> Option<Vec<u8>> {
    let child = Command::new("clang")
        .args([
            "-target", "bpf", "-O2", "-mcpu=v3", "-c", "-x", "c", "-", "-o", "-",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(why) => {
            eprintln!("SKIP: no clang: {why}");
            return None;
        }
    };
    let written = child.stdin.take().unwrap().write_all(source.as_bytes());
    written.unwrap();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        eprintln!("SKIP: clang does not compile for eBPF");
        return None;
    }
    Some(output.stdout)
}

#[test]
fn objects_of_clang_run_with_their_variables_and_functions() {
    if skip() {
        return;
    }
    let Some(bytes) = clang(
        "struct xdp_md { unsigned data, data_end; };
         static int sum = 1; const volatile int limit = 40; static int calls;
         static __attribute__((noinline)) int add(int a) { sum += a; calls++; return sum; }
         __attribute__((noinline)) int twice(int a) { return add(a) + add(a); }
         __attribute__((section(\"xdp\"))) int prog(struct xdp_md *ctx)
         {
             long len = (long)ctx->data_end - (long)ctx->data;
             return twice(limit) + (len > 14) + calls;
         }",
    ) else {
        return;
    };
    let object = dash_bpf::elf::read(&bytes).unwrap();
    let loaded = Loaded::load(&object, |_| None, Purpose::TestRun).unwrap();
    // 41 + 81, then 121 + 161; one more for the packet, two for each pair of calls.
    for expected in [41 + 81 + 1 + 2, 121 + 161 + 1 + 4] {
        let (run, _) = loaded.run(0, &PACKET, &mut [0; 256]).unwrap();
        assert_eq!(run.retval, expected);
    }
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
            Purpose::TestRun,
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
