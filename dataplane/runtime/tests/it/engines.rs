//! The interpreter and rbpf over the same tables: the same packets, counters and flows; and what
//! the checks refuse.

use dash_bpf::builder::{Builder, R0, R1, R2, R3, R4, R5, R6, R7, R10};
use dash_bpf::helper::{self, xdp_md};
use dash_bpf::interp::{CallFault, MemFault, TrapKind};
use dash_bpf::op::{AluOp, AtomicOp, Cond};
use dash_bpf::{Object, Size};
use dash_runtime::{Core, Engine};
use dash_wire::stats::EniStat;
use dash_wire::tables::{Globals, Meta};
use nic_target::frame::{HEADROOM, MAX_FRAME};
use nic_target::{Frame, PacketEngine, Table, TableOp, Target, TargetError, Verdict};
use proptest::prelude::*;
use std::sync::Arc;
use zerocopy::IntoBytes;

use crate::support::*;

const META: usize = size_of::<Meta>();
const BOTH: [Engine; 2] = [Engine::Interp, Engine::Rbpf];

fn core(engine: Engine) -> Core {
    let mut core = Core::new(engine, &capacity()).unwrap();
    core.apply(&update(1, Some(small_pipeline()), rows()))
        .unwrap();
    core
}

fn why(core: &Core) -> String {
    format!("{:?} {:?}", core.trap(), core.rbpf_error())
}

#[test]
fn every_table_works_from_bytecode() {
    for engine in BOTH {
        let mut core = core(engine);
        let mut sent = frame([10, 1, 2, 3], 7, 5);
        let before = sent.data().to_vec();
        assert_eq!(
            core.run(&mut sent).unwrap(),
            Verdict::Send(1),
            "{}",
            why(&core)
        );
        let found = [0xbbu32.to_be_bytes(), 0x100u32.to_be_bytes()].concat();
        assert_eq!(sent.data(), [found, before].concat());
        assert_eq!(
            core.run(&mut frame([10, 9, 9, 9], 7, 6)).unwrap(),
            Verdict::Send(1)
        );
        assert_eq!(
            core.run(&mut frame([11, 1, 2, 3], 7, 7)).unwrap(),
            Verdict::Drop,
            "no route"
        );

        let counters = core.counters().unwrap();
        assert_eq!(counters.eni.keys().copied().collect::<Vec<_>>(), [ENI]);
        assert_eq!(counters.eni[&ENI][EniStat::RxPackets as usize], 3);
        assert_eq!(
            counters.eni[&ENI].iter().sum::<u64>(),
            3,
            "nothing else was counted"
        );
        let flows = core.flows().unwrap();
        assert_eq!(flows.len(), 1);
        let flow = flows[0];
        assert_eq!(
            (flow.packets, flow.created_ns, flow.last_seen_ns),
            ([3, 0], 5, 7)
        );
    }
}

#[test]
fn unknown_macs_and_short_frames_drop_without_a_trace() {
    for engine in BOTH {
        let mut core = core(engine);
        let mut stranger = frame([10, 1, 2, 3], 7, 0);
        stranger.data_mut()[5] ^= 1;
        assert_eq!(core.run(&mut stranger).unwrap(), Verdict::Drop);
        for len in 0..42 {
            let mut short = Frame::new();
            short.fill(&frame([10, 1, 2, 3], 7, 0).data()[..len]);
            assert_eq!(
                core.run(&mut short).unwrap(),
                Verdict::Drop,
                "{len} bytes: {}",
                why(&core)
            );
        }
        assert!(core.counters().unwrap().eni.is_empty());
        assert!(core.flows().unwrap().is_empty());
    }
}

#[test]
fn a_flood_of_new_flows_drops_and_those_there_are_go_on() {
    for engine in BOTH {
        let mut core = core(engine);
        let send = |core: &mut Core, flow, now| core.run(&mut frame([10, 0, 0, 1], flow, now));
        for flow in 0..8 {
            assert_eq!(send(&mut core, flow, 100).unwrap(), Verdict::Send(1));
        }
        for n in 0..2_000u16 {
            assert_eq!(send(&mut core, 100 + n, 200).unwrap(), Verdict::Drop);
            assert_eq!(send(&mut core, n % 8, 200).unwrap(), Verdict::Send(1));
        }
        let flows = core.flows().unwrap();
        assert_eq!(flows.len(), 8, "nothing was evicted");
        assert!(flows.iter().all(|flow| flow.packets[0] == 251));
        let idle = 200 + u64::from(TIMEOUT_MS) * 1_000_000;
        assert_eq!(
            send(&mut core, 99, idle).unwrap(),
            Verdict::Send(1),
            "room again"
        );
    }
}

#[test]
fn flows_age_by_the_packets_clock_and_a_full_table_drops() {
    for engine in BOTH {
        let mut core = core(engine);
        for flow in 0..8 {
            assert_eq!(
                core.run(&mut frame([10, 0, 0, 1], flow, 100)).unwrap(),
                Verdict::Send(1)
            );
        }
        assert_eq!(
            core.run(&mut frame([10, 0, 0, 1], 8, 100)).unwrap(),
            Verdict::Drop,
            "no slot is free"
        );
        let timeout = u64::from(TIMEOUT_MS) * 1_000_000;
        core.advance(100 + timeout - 1);
        assert_eq!(core.flows().unwrap().len(), 8);
        // A packet at the deadline of the others: they are gone before it runs.
        assert_eq!(
            core.run(&mut frame([10, 0, 0, 1], 8, 100 + timeout))
                .unwrap(),
            Verdict::Send(1)
        );
        assert_eq!(core.flows().unwrap().len(), 1);
        assert_eq!(
            core.counters().unwrap().eni[&ENI][EniStat::FlowAged as usize],
            8
        );
        core.advance(0);
        assert_eq!(core.now(), 100 + timeout, "the clock does not go back");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn engines_agree_on_packets_counters_and_flows(
        packets in prop::collection::vec(
            (prop::bool::weighted(0.1), 9u8..12, 0u8..3, 0u16..12, 0u64..400_000_000, 30usize..64),
            1..60,
        ),
    ) {
        let [mut interp, mut rbpf] = BOTH.map(core);
        let mut now = 0;
        for (stranger, net, host, flow, wait, len) in packets {
            now += wait;
            let results = [&mut interp, &mut rbpf].map(|core| {
                let mut packet = frame([net, 1, 2, host], flow, now);
                packet.data_mut()[0] ^= u8::from(stranger);
                let (_, start, _) = packet.parts_mut();
                // Mostly whole packets; the shorter ones end inside the headers.
                packet.set_bounds(start, start + if len < 40 { len } else { 64 });
                let verdict = core.run(&mut packet).unwrap();
                (verdict, packet.data().to_vec(), core.counters().unwrap(), core.flows().unwrap())
            });
            let [a, b] = results;
            prop_assert_ne!(a.0, Verdict::Aborted);
            prop_assert_eq!(a, b);
        }
    }
}

#[test]
fn rows_change_without_new_code() {
    for engine in BOTH {
        let mut core = core(engine);
        core.apply(&update(2, None, vec![route(32, [10, 1, 2, 3], 0xcc)]))
            .unwrap();
        let mut sent = frame([10, 1, 2, 3], 7, 5);
        assert_eq!(core.run(&mut sent).unwrap(), Verdict::Send(1));
        assert_eq!(sent.data()[3], 0xcc);
        core.apply(&update(
            3,
            None,
            vec![TableOp::Acl {
                group: 5,
                rules: None,
            }],
        ))
        .unwrap();
        assert_eq!(
            core.run(&mut frame([10, 1, 2, 3], 7, 5)).unwrap(),
            Verdict::Drop
        );
        assert_eq!(core.generation().number(), 3);
    }
}

/// Runs `body` (which leaves r0) on a 60-byte packet.
fn run(engine: Engine, body: impl FnOnce(&mut Builder)) -> (Core, Frame, Verdict) {
    let mut core = Core::new(engine, &capacity()).unwrap();
    core.apply(&update(1, Some(single(body)), vec![])).unwrap();
    let mut packet = Frame::new();
    packet.fill(&[0x22; 60]);
    packet.port = 4;
    let verdict = core.run(&mut packet).unwrap();
    (core, packet, verdict)
}

#[test]
fn return_codes_are_the_verdicts_of_xdp() {
    let cases = [
        (0, Verdict::Aborted),
        (1, Verdict::Drop),
        (2, Verdict::Pass),
        (3, Verdict::Send(4)),
        (4, Verdict::Aborted), // REDIRECT without bpf_redirect
        (77, Verdict::Aborted),
    ];
    for engine in BOTH {
        for (code, want) in cases {
            assert_eq!(run(engine, |b| b.mov(R0, code)).2, want, "{code}");
        }
        let redirect = |port: i32, flags: i32| {
            run(engine, |b| {
                b.mov(R1, port);
                b.mov(R2, flags);
                b.call(helper::REDIRECT);
            })
        };
        assert_eq!(redirect(9, 0).2, Verdict::Send(9));
        assert_eq!(redirect(9, 1).2, Verdict::Aborted);
        assert_eq!(
            redirect(0x1_0000, 0).2,
            Verdict::Aborted,
            "no port has this number"
        );
    }
}

/// r0 = result of one call on the context with r2 = `delta`, plus 100 so that it is not a verdict.
fn adjust(engine: Engine, number: u32, delta: i32) -> (i64, Frame) {
    let (core, packet, verdict) = run(engine, |b| {
        let failed = b.label();
        b.mov(R2, delta);
        b.call(number);
        b.jump_if(Cond::Ne, R0, 0, failed);
        b.mov(R0, 3);
        b.exit();
        b.bind(failed);
        b.mov(R0, 1);
    });
    assert!(
        core.trap().is_none() && core.rbpf_error().is_none(),
        "{}",
        why(&core)
    );
    (if verdict == Verdict::Drop { -1 } else { 0 }, packet)
}

#[test]
fn packets_grow_and_shrink_within_their_buffer() {
    for engine in BOTH {
        let head = |delta| adjust(engine, helper::XDP_ADJUST_HEAD, delta);
        let tail = |delta| adjust(engine, helper::XDP_ADJUST_TAIL, delta);
        assert_eq!(head(-(HEADROOM as i32)).1.data().len(), 60 + HEADROOM);
        assert_eq!(head(-(HEADROOM as i32) - 1).0, -1);
        assert_eq!(head(46).1.data().len(), 14);
        assert_eq!(head(47).0, -1, "less than an Ethernet header would be left");
        let room = (MAX_FRAME - 60) as i32;
        let (ok, grown) = tail(room);
        assert_eq!((ok, grown.data().len()), (0, MAX_FRAME));
        assert!(
            grown.data()[60..].iter().all(|&b| b == 0),
            "grown bytes are zero"
        );
        assert_eq!(tail(room + 1).0, -1);
        assert_eq!(tail(-46).1.data().len(), 14);
        assert_eq!(tail(-47).0, -1);
        for delta in [i32::MIN, i32::MAX] {
            assert_eq!((head(delta).0, tail(delta).0), (-1, -1));
        }
    }
}

#[test]
fn metadata_moves_with_the_head() {
    for engine in BOTH {
        let (core, packet, verdict) = run(engine, |b| {
            let bad = b.label();
            b.mov(R6, R1);
            b.mov(R2, -8);
            b.call(helper::XDP_ADJUST_META);
            b.jump_if(Cond::Ne, R0, 0, bad);
            b.load(Size::W, R1, R6, xdp_md::DATA_META);
            b.store(Size::W, R1, 0, 0x1234);
            b.mov(R1, R6);
            b.mov(R2, -16);
            b.call(helper::XDP_ADJUST_HEAD);
            b.jump_if(Cond::Ne, R0, 0, bad);
            b.load(Size::W, R7, R6, xdp_md::DATA_META);
            b.load(Size::W, R1, R7, 0);
            b.jump_if(Cond::Ne, R1, 0x1234, bad);
            b.load(Size::W, R1, R6, xdp_md::DATA);
            b.alu(AluOp::Sub, R1, R7);
            b.jump_if(Cond::Ne, R1, 8, bad);
            b.mov(R0, 3);
            b.exit();
            b.bind(bad);
            b.mov(R0, 1);
        });
        assert_eq!(
            (verdict, packet.data().len()),
            (Verdict::Send(4), 76),
            "{}",
            why(&core)
        );
    }
}

#[test]
fn checksum_difference_of_stack_and_packet() {
    for engine in BOTH {
        let (core, packet, verdict) = run(engine, |b| {
            b.load(Size::W, R7, R1, xdp_md::DATA);
            b.store(Size::W, R10, -4, 0x0403_0201);
            b.mov(R1, R10);
            b.alu(AluOp::Add, R1, -4);
            b.mov(R2, 4);
            b.mov(R3, R7);
            b.mov(R4, 8);
            b.mov(R5, 5);
            b.call(helper::CSUM_DIFF);
            b.store(Size::W, R7, 0, R0);
            b.mov(R0, 3);
        });
        assert_eq!(verdict, Verdict::Send(4), "{}", why(&core));
        // 4 x 0x2222 - 0x0201 - 0x0403 + 5, in ones' complement.
        assert_eq!(
            packet.data()[..4],
            (4 * 0x2222u32 - 0x0201 - 0x0403 + 5).to_ne_bytes()
        );
    }
}

#[test]
fn unused_helper_numbers_are_refused() {
    let (core, _, verdict) = run(Engine::Interp, |b| b.call(200));
    assert_eq!(verdict, Verdict::Aborted);
    let kind = core.trap().map(|trap| trap.kind);
    assert_eq!(
        kind,
        Some(TrapKind::Call {
            helper: 200,
            fault: CallFault::UnknownHelper
        })
    );
    let (core, _, verdict) = run(Engine::Rbpf, |b| b.call(200));
    assert_eq!(verdict, Verdict::Aborted);
    assert!(core.rbpf_error().is_some());
}

/// The fault of a run that must trap on memory.
fn fault(body: impl FnOnce(&mut Builder)) -> MemFault {
    let (core, _, verdict) = run(Engine::Interp, body);
    assert_eq!(verdict, Verdict::Aborted);
    match core.trap().map(|trap| trap.kind) {
        Some(TrapKind::Memory { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_interpreter_refuses_memory_that_is_not_the_programs() {
    let packet_at = |field, off| {
        move |b: &mut Builder| {
            b.load(Size::W, R7, R1, field);
            b.load(Size::W, R0, R7, off);
        }
    };
    assert_eq!(
        fault(packet_at(xdp_md::DATA_END, -3)),
        MemFault::Unmapped,
        "one byte past the end"
    );
    assert_eq!(
        fault(packet_at(xdp_md::DATA, -1)),
        MemFault::Unmapped,
        "headroom is not the packet"
    );
    assert_eq!(
        run(Engine::Interp, packet_at(xdp_md::DATA_END, -4)).2,
        Verdict::Aborted
    );
    assert!(
        run(Engine::Interp, packet_at(xdp_md::DATA_END, -4))
            .0
            .trap()
            .is_none()
    );

    let lookup = |table: Table, then: fn(&mut Builder)| {
        move |b: &mut Builder| {
            b.store(Size::W, R10, -4, 0);
            b.load_map(R1, table.index());
            b.mov(R2, R10);
            b.alu(AluOp::Add, R2, -4);
            b.call(helper::MAP_LOOKUP_ELEM);
            then(b);
        }
    };
    const LAST: i16 = size_of::<Globals>() as i16 - 4;
    let read_last = |b: &mut Builder| b.load(Size::W, R0, R0, LAST);
    assert!(
        run(Engine::Interp, lookup(Table::Globals, read_last))
            .0
            .trap()
            .is_none()
    );
    assert_eq!(
        fault(lookup(Table::Globals, |b| b.load(
            Size::W,
            R0,
            R0,
            LAST + 1
        ))),
        MemFault::Unmapped
    );
    assert_eq!(
        fault(lookup(Table::Globals, |b| b.store(Size::W, R0, 0, 1))),
        MemFault::ReadOnly
    );
    let write_meta = |b: &mut Builder| {
        b.store(Size::W, R0, META as i16 - 4, 1);
        b.mov(R0, 1);
    };
    assert_eq!(
        run(Engine::Interp, lookup(Table::Meta, write_meta)).2,
        Verdict::Drop
    );
    assert_eq!(
        fault(lookup(Table::Meta, |b| b.store(
            Size::W,
            R0,
            META as i16 - 3,
            1
        ))),
        MemFault::Unmapped
    );

    let (core, ..) = run(Engine::Interp, |b| {
        b.mov(R1, 0x1000);
        b.mov(R2, R10);
        b.call(helper::MAP_LOOKUP_ELEM);
    });
    assert!(matches!(
        core.trap().map(|trap| trap.kind),
        Some(TrapKind::Call {
            fault: CallFault::Argument { argument: 1, .. },
            ..
        })
    ));
    let (core, ..) = run(Engine::Interp, |b| {
        b.load_map(R1, Table::EniMac.index());
        b.mov(R2, R10);
        b.alu(AluOp::Add, R2, -4);
        b.store(Size::W, R10, -4, 0);
        b.call(helper::MAP_LOOKUP_ELEM);
    });
    let want = CallFault::Memory {
        argument: 2,
        fault: MemFault::OutsideFrame,
    };
    assert!(
        matches!(core.trap().map(|t| t.kind), Some(TrapKind::Call { fault, .. }) if fault == want),
        "{}",
        why(&core)
    );
}

#[test]
fn rbpf_helpers_refuse_memory_that_is_not_the_programs() {
    for address in [0x1000, 8] {
        let (core, _, verdict) = run(Engine::Rbpf, |b| {
            b.load_map(R1, Table::EniMac.index());
            b.mov(R2, address);
            b.call(helper::MAP_LOOKUP_ELEM);
            b.mov(R0, 1);
        });
        assert_eq!(verdict, Verdict::Aborted);
        assert!(core.rbpf_error().is_some());
    }
}

#[test]
fn array_values_by_direct_address() {
    for engine in BOTH {
        let body = |b: &mut Builder| {
            b.load_map_value(R1, Table::Globals.index(), 4);
            b.load(Size::W, R0, R1, 0);
        };
        let mut core = Core::new(engine, &capacity()).unwrap();
        let globals = Globals {
            vm_vni: 3,
            ..Globals::default()
        };
        let key = 0u32.to_ne_bytes();
        let row = TableOp::Put {
            table: Table::Globals,
            key: key.into(),
            value: globals.as_bytes().into(),
        };
        core.apply(&update(1, Some(single(body)), vec![row]))
            .unwrap();
        let mut packet = frame([0; 4], 0, 0);
        assert_eq!(
            core.run(&mut packet).unwrap(),
            Verdict::Send(0),
            "{}",
            why(&core)
        );
        core.apply(&update(
            2,
            None,
            vec![TableOp::Delete {
                table: Table::Globals,
                key: key.into(),
            }],
        ))
        .unwrap();
        assert_eq!(
            core.run(&mut packet).unwrap(),
            Verdict::Aborted,
            "the row is zero after its deletion"
        );
    }
}

#[test]
fn rbpf_is_not_given_what_it_gets_wrong() {
    type Body = fn(&mut Builder);
    let bodies: [(&str, Body); 7] = [
        ("atomic", |b| {
            b.atomic(Size::Dw, AtomicOp::Add, false, R10, -8, R1)
        }),
        ("sign-extending load", |b| {
            b.load_signed(Size::B, R0, R10, -1)
        }),
        ("signed division", |b| b.alu(AluOp::Sdiv, R0, 2)),
        ("sign-extending move", |b| b.alu(AluOp::Movsx8, R0, R1)),
        ("negative immediate", |b| {
            let end = b.label();
            b.jump_if(Cond::Eq, R1, -1, end);
            b.bind(end);
        }),
        ("call by register", |b| b.call_reg(R1)),
        ("helper 255", |b| b.call(255)),
    ];
    for (reason, body) in bodies {
        let mut core = Core::new(Engine::Rbpf, &capacity()).unwrap();
        match core.apply(&update(1, Some(single(body)), vec![])) {
            Err(TargetError::Unsupported {
                engine: "rbpf",
                reason: got,
            }) => assert!(got.contains(reason), "{got}"),
            other => panic!("{reason}: {other:?}"),
        }
        assert_eq!(core.generation().number(), 0, "the update took no effect");
    }
}

#[test]
fn an_image_for_other_tables_is_refused() {
    let mut wrong = object(vec![program("p", {
        let mut b = Builder::new();
        b.mov(R0, 1);
        b.exit();
        b.finish().unwrap()
    })]);
    wrong.maps[Table::Eni.index() as usize].max_entries += 1;
    let wrong = image(wrong);
    for engine in [Engine::Interp, Engine::Rbpf, Engine::Native] {
        let mut core = Core::new(engine, &capacity()).unwrap();
        let refused = core.apply(&update(1, Some(Arc::clone(&wrong)), vec![]));
        assert!(
            matches!(refused, Err(TargetError::Unsupported { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn native_wants_machine_code() {
    let mut core = Core::new(Engine::Native, &capacity()).unwrap();
    let refused = core.apply(&update(1, Some(small_pipeline()), vec![]));
    assert!(matches!(
        refused,
        Err(TargetError::Unsupported {
            engine: "native",
            ..
        })
    ));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn machine_code_gets_the_context_of_the_abi() {
    use dash_wire::abi::run_ctx;
    use nic_target::{Image, NativeImage};

    // mov rax, [rdi + DATA]; mov ecx, [rdi + INGRESS_IFINDEX]; mov [rax], cl;
    // mov rax, [rdi + ARRAYS]; mov rax, [rax + 8 * meta]; mov dword [rax], 7; mov eax, XDP_TX; ret
    let meta = 8 * Table::Meta.index() as i32;
    let mut code = Vec::new();
    code.extend([0x48, 0x8b, 0x87]);
    code.extend(run_ctx::DATA.to_le_bytes());
    code.extend([0x8b, 0x8f]);
    code.extend(run_ctx::INGRESS_IFINDEX.to_le_bytes());
    code.extend([0x88, 0x08]);
    code.extend([0x48, 0x8b, 0x87]);
    code.extend(run_ctx::ARRAYS.to_le_bytes());
    code.extend([0x48, 0x8b, 0x80]);
    code.extend(meta.to_le_bytes());
    code.extend([0xc7, 0x00, 7, 0, 0, 0]);
    code.extend([0xb8, 3, 0, 0, 0, 0xc3]);
    // SAFETY: the code above writes one byte of a packet that has 60, and 4 bytes of `meta`.
    let native = unsafe { NativeImage::new(Arc::from(code), 0) };
    let object = Object {
        programs: vec![],
        ..object(vec![])
    };
    let image = Image {
        native: Some(native),
        ..Image::clone(&image(object))
    };
    let mut core = Core::new(Engine::Native, &capacity()).unwrap();
    core.apply(&update(1, Some(Arc::new(image)), vec![]))
        .unwrap();
    let mut packet = Frame::new();
    packet.fill(&[0; 60]);
    packet.port = 0x42;
    assert_eq!(core.run(&mut packet).unwrap(), Verdict::Send(0x42));
    assert_eq!(packet.data()[..2], [0x42, 0]);
    let mut word = [0; 4];
    assert!(core.tables().meta.read(0, &mut word));
    assert_eq!(u32::from_ne_bytes(word), 7);
}
