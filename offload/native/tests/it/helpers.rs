//! Helper calls: the calling convention and those that are inlined.

use dash_bpf::op::AluOp;
use dash_bpf::{Reg, Size, helper};

use crate::world::{Called, ROOM, World, object, refused};

#[test]
fn helpers_get_five_arguments_and_keep_r6_to_r9() {
    let program = object(vec![], |b| {
        let saved = [Reg::R6, Reg::R7, Reg::R8, Reg::R9];
        for (i, r) in saved.into_iter().enumerate() {
            b.mov(r, 100 << i);
        }
        let arguments = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5];
        for (i, r) in arguments.into_iter().enumerate() {
            b.load_imm64(r, 0xffff_ffff_0000_0001 + i as u64);
        }
        b.call(200);
        for r in saved {
            b.alu(AluOp::Add, Reg::R0, r);
        }
        b.exit();
    });
    let outcome = World::new(60).run(&program);
    assert_eq!(outcome.verdict, 1001 + 100 + 200 + 400 + 800);
    let arguments = std::array::from_fn(|i| 0xffff_ffff_0000_0001 + i as u64);
    assert_eq!(outcome.calls, [Called::Helper(arguments)]);
}

#[test]
fn known_helpers_get_only_the_arguments_they_have() {
    let program = object(vec![], |b| {
        b.mov(Reg::R6, Reg::R1);
        b.mov(Reg::R2, 8);
        b.mov(Reg::R3, 3);
        b.call(helper::XDP_ADJUST_META);
        b.exit();
    });
    let outcome = World::new(60).run(&program);
    assert_eq!(outcome.calls, [Called::Helper([0xc7c7, 8, 0, 0, 0])]);
}

#[test]
fn a_helper_in_a_register_is_called() {
    let program = object(vec![], |b| {
        b.load(Size::W, Reg::R6, Reg::R1, 12);
        b.mov(Reg::R1, 9);
        b.call_reg(Reg::R6);
        b.exit();
    });
    let mut world = World::new(60);
    world.ifindex[0] = 200;
    let outcome = world.run(&program);
    assert_eq!(outcome.verdict, 1009);
    assert_eq!(outcome.calls, [Called::Helper([9, 0, 0, 0, 0])]);
}

#[test]
fn helpers_beyond_the_table_are_refused() {
    let program = object(vec![], |b| {
        b.call(256);
        b.exit();
    });
    assert!(refused(&program).contains("helper 256 does not exist"));
}

#[test]
fn clock_and_core_come_from_the_context() {
    let program = object(vec![], |b| {
        b.call(helper::KTIME_GET_NS);
        b.mov(Reg::R6, Reg::R0);
        b.call(helper::GET_SMP_PROCESSOR_ID);
        b.alu(AluOp::Rsh, Reg::R6, 32);
        b.alu(AluOp::Add, Reg::R0, Reg::R6);
        b.exit();
    });
    let mut world = World::new(60);
    world.now_ns = 0x5_0000_0000;
    world.cpu = 31;
    let outcome = world.run(&program);
    assert_eq!((outcome.verdict, outcome.calls.len()), (36, 0));
}

#[test]
fn redirect_stores_the_port_and_refuses_flags() {
    for (flags, verdict) in [(0, 4), (1, 0)] {
        let program = object(vec![], |b| {
            b.load(Size::W, Reg::R1, Reg::R1, 12);
            b.mov(Reg::R2, flags);
            b.call(helper::REDIRECT);
            b.exit();
        });
        let mut world = World::new(60);
        world.ifindex[0] = 42;
        let outcome = world.run(&program);
        assert_eq!((outcome.verdict, outcome.redirect_ifindex), (verdict, 42));
    }
}

/// The low half of r2 is what counts: it is a C `int`.
fn adjust(helper: u32, packet: usize, delta: i32) -> crate::world::Outcome {
    let program = object(vec![], |b| {
        b.load_imm64(Reg::R2, 0x7_0000_0000 | u64::from(delta as u32));
        b.call(helper);
        b.alu(AluOp::And, Reg::R0, 0xff);
        b.exit();
    });
    World::new(packet).run(&program)
}

const FAILED: u32 = -22i32 as u32 & 0xff;

#[test]
fn the_head_moves_between_the_frames_start_and_the_last_14_bytes() {
    let room = ROOM as i32;
    for packet in [14, 15, 60] {
        let most = packet as i32 - 14;
        for delta in [
            0,
            1,
            -1,
            most,
            most + 1,
            -room,
            -room - 1,
            i32::MIN,
            i32::MAX,
        ] {
            let outcome = adjust(helper::XDP_ADJUST_HEAD, packet, delta);
            let moves = (-room..=most).contains(&delta);
            let expected = ROOM as isize + if moves { delta as isize } else { 0 };
            let code = if moves { 0 } else { FAILED };
            let got = (outcome.verdict, outcome.data, outcome.data_meta);
            assert_eq!(got, (code, expected, expected), "{packet} {delta}");
            assert_eq!(outcome.data_end, (ROOM + packet) as isize);
        }
    }
    // Shorter than a header at the very start of the frame: nothing fits.
    let mut world = World::new(10);
    world.packet = 0..10;
    let program = object(vec![], |b| {
        b.mov(Reg::R2, 0);
        b.call(helper::XDP_ADJUST_HEAD);
        b.alu(AluOp::And, Reg::R0, 0xff);
        b.exit();
    });
    assert_eq!(world.run(&program).verdict, FAILED);
}

#[test]
fn a_test_of_the_moved_head_and_loads_after_it_see_the_move() {
    use dash_bpf::op::Cond;
    for equal in [true, false] {
        for (delta, expected) in [(3, ROOM + 3), (-2, ROOM - 2), (47, 7), (i32::MIN, 7)] {
            let mut world = World::new(60);
            let program = object(vec![], |b| {
                let other = b.label();
                b.mov(Reg::R6, Reg::R1);
                b.mov(Reg::R2, delta);
                b.call(helper::XDP_ADJUST_HEAD);
                let refused = |b: &mut dash_bpf::builder::Builder| {
                    b.mov(Reg::R0, 7);
                    b.exit();
                };
                // The new first byte, which the frame's pattern tells.
                let moved = |b: &mut dash_bpf::builder::Builder| {
                    b.load(Size::W, Reg::R2, Reg::R6, 0);
                    b.load(Size::B, Reg::R0, Reg::R2, 0);
                    b.exit();
                };
                let cond = if equal { Cond::Eq } else { Cond::Ne };
                b.jump_if(cond, Reg::R0, 0, other);
                if equal {
                    refused(b)
                } else {
                    moved(b)
                }
                b.bind(other);
                if equal { moved(b) } else { refused(b) }
            });
            (0..).zip(&mut world.frame).for_each(|(n, byte)| *byte = n);
            let outcome = world.run(&program);
            assert_eq!(outcome.verdict, expected as u32, "{delta}");
            let data = if expected == 7 { ROOM } else { expected };
            assert_eq!(
                (outcome.data, outcome.data_meta),
                (data as isize, data as isize)
            );
        }
    }
}

#[test]
fn the_tail_shrinks_to_14_bytes_and_grows_by_the_helper() {
    for packet in [14, 15, 60] {
        let most = 14 - packet as i32;
        for delta in [0, -1, most, most - 1, i32::MIN] {
            let outcome = adjust(helper::XDP_ADJUST_TAIL, packet, delta);
            let moves = (most..=0).contains(&delta);
            let expected = (ROOM + packet) as isize + if moves { delta as isize } else { 0 };
            let code = if moves { 0 } else { FAILED };
            assert_eq!(
                (outcome.verdict, outcome.data_end),
                (code, expected),
                "{packet} {delta}"
            );
            assert_eq!(outcome.data, ROOM as isize);
            assert_eq!(outcome.calls, []);
        }
        let outcome = adjust(helper::XDP_ADJUST_TAIL, packet, 5);
        assert_eq!(outcome.verdict, 77);
        assert_eq!(
            outcome.calls,
            [Called::Helper([0xc7c7, 0x7_0000_0005, 0, 0, 0])]
        );
    }
}

#[test]
fn packet_pointers_are_loaded_again_after_the_head_moved() {
    let program = object(vec![], |b| {
        b.mov(Reg::R6, Reg::R1);
        b.load(Size::W, Reg::R7, Reg::R1, 0);
        b.mov(Reg::R2, 4);
        b.call(helper::XDP_ADJUST_HEAD);
        b.load(Size::W, Reg::R8, Reg::R6, 0);
        b.load(Size::B, Reg::R0, Reg::R8, 0);
        b.exit();
    });
    assert_eq!(World::new(60).run(&program).verdict, 4);
}

#[test]
fn moving_the_head_of_a_packet_with_metadata_is_left_to_the_runtime() {
    let program = object(vec![], |b| {
        b.load(Size::W, Reg::R3, Reg::R1, helper::xdp_md::DATA_META);
        b.mov(Reg::R2, -8);
        b.call(helper::XDP_ADJUST_HEAD);
        b.exit();
    });
    let mut world = World::new(60);
    world.meta = 4;
    let outcome = world.run(&program);
    // What the helper of these tests returns.
    assert_eq!(outcome.verdict, 1000 + 0xc7);
    assert_eq!(outcome.data, ROOM as isize);
    assert_eq!(
        outcome.calls,
        [Called::Helper([0xc7c7, -8i64 as u64, 0, 0, 0])]
    );
    // Without any there is nothing to move along.
    let outcome = World::new(60).run(&program);
    assert_eq!((outcome.verdict, outcome.calls), (0, Vec::new()));
    let moved = ROOM as isize - 8;
    assert_eq!((outcome.data, outcome.data_meta), (moved, moved));
}
