//! Our own vectors: what each family of instructions computes, and what is refused.

use dash_bpf::decode::{DecodeError, DecodeRule};
use dash_bpf::interp::{MAX_TAIL_CALLS, MemFault, STACK_BASE, TrapKind};
use dash_bpf::{Insn, Interp, Reg, assemble, decode};

use crate::memory::{self, BASE};

/// Runs a bare program over `memory`.
#[track_caller]
fn run(text: &str, memory: &[u8]) -> Result<u64, TrapKind> {
    let insns = assemble(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let ops = decode(&insns).unwrap_or_else(|e| panic!("{e}\n{text}"));
    memory::run(&ops, memory).map_err(|trap| trap.kind)
}

/// Every body ends with `exit`; expected r0.
#[track_caller]
fn all(vectors: &[(&str, u64)], memory: &[u8]) {
    for (text, expected) in vectors {
        let result = run(&format!("{text}\nexit"), memory);
        assert_eq!(result, Ok(*expected), "{text}\n{result:x?}");
    }
}

const MIN64: u64 = 1 << 63;

#[test]
fn arithmetic_on_64_bits_sign_extends_immediates_and_wraps() {
    all(
        &[
            ("r0 = -1", u64::MAX),
            ("r0 = -1\nr0 += 2", 1),
            ("r0 = 1\nr0 -= 3", u64::MAX - 1),
            ("r0 = 7\nr0 *= -1", (-7i64) as u64),
            ("r0 = 0xf0\nr0 |= -256", (-16i64) as u64),
            ("r0 = -1\nr0 &= 255", 255),
            ("r0 = 5\nr0 ^= -1", !5),
            ("r0 = 1\nr1 = 63\nr0 <<= r1", MIN64),
            ("r0 = -8\nr0 >>= 1", (-8i64) as u64 >> 1),
            ("r0 = -8\nr0 s>>= 1", (-4i64) as u64),
            ("r0 = 9\nr0 = -r0", (-9i64) as u64),
            ("r1 = 0x123456789abcdef0 ll\nr0 = r1", 0x1234_5678_9abc_def0),
        ],
        &[],
    );
}

#[test]
fn arithmetic_on_32_bits_zero_extends_its_result() {
    let high = "r0 = 0xffffffff00000005 ll\n";
    for (text, expected) in [
        ("w0 += -6", 0xffff_ffff),
        ("w0 -= 6", 0xffff_ffff),
        ("w0 *= -1", 0xffff_fffb),
        ("w0 |= 2", 7),
        ("w0 &= -2", 4),
        ("w0 ^= 1", 4),
        ("w0 <<= 31", 0x8000_0000),
        ("w0 = -w0", 0xffff_fffb),
        ("w0 = w0", 5),
        ("w0 = -1", 0xffff_ffff),
        ("w0 /= 2", 2),
        ("w0 %= 3", 2),
    ] {
        all(&[(&format!("{high}{text}"), expected)], &[]);
    }
    all(
        &[
            ("r0 = 0x180000000 ll\nw0 >>= 31", 1),
            ("r0 = 0x180000000 ll\nw0 s>>= 31", 0xffff_ffff),
        ],
        &[],
    );
}

#[test]
fn shifts_by_registers_take_the_amount_modulo_the_width() {
    all(
        &[
            ("r0 = 1\nr1 = 65\nr0 <<= r1", 2),
            ("w0 = 1\nr1 = 33\nw0 <<= w1", 2),
            ("r0 = 4\nr1 = -63\nr0 >>= r1", 2),
            ("r0 = -4\nr1 = 64\nr0 s>>= r1", (-4i64) as u64),
            ("w0 = 3\nr1 = 0x100000000 ll\nw0 <<= w1", 3),
            ("r0 = 1\nr0 <<= 66", 4),
        ],
        &[],
    );
}

#[test]
fn division_has_a_result_for_every_operand() {
    all(
        &[
            ("r0 = -7\nr0 /= 2", (-7i64) as u64 / 2),
            ("r0 = 7\nr1 = 0\nr0 /= r1", 0),
            ("r0 = 7\nr1 = 0\nr0 %= r1", 7),
            ("r0 = 0x100000007 ll\nr1 = 0\nw0 %= w1", 7),
            ("r0 = 7\nr1 = 0x100000000 ll\nw0 /= w1", 0),
            ("r0 = -7\nr0 s/= 2", (-3i64) as u64),
            ("r0 = -7\nr0 s%= 2", (-1i64) as u64),
            ("r0 = 7\nr0 s%= -2", 1),
            ("w0 = -7\nw0 s/= 2", 0xffff_fffd),
            ("w0 = -7\nw0 s%= 2", 0xffff_ffff),
            ("r0 = 7\nr1 = 0\nr0 s/= r1", 0),
            ("r0 = -7\nr1 = 0\nr0 s%= r1", (-7i64) as u64),
            ("r0 = 0x8000000000000000 ll\nr0 s/= -1", MIN64),
            ("r0 = 0x8000000000000000 ll\nr0 s%= -1", 0),
            ("r0 = 0x80000000 ll\nw0 s/= -1", 0x8000_0000),
            ("r0 = 0x80000000 ll\nw0 s%= -1", 0),
            ("r0 = 10\nr0 /= -1", 0),
        ],
        &[],
    );
}

#[test]
fn moves_sign_extend_from_8_16_and_32_bits() {
    let from = "r1 = 0x12345678f0e0d080 ll\n";
    for (text, expected) in [
        ("r0 = (s8)r1", 0xffff_ffff_ffff_ff80),
        ("r0 = (s16)r1", 0xffff_ffff_ffff_d080),
        ("r0 = (s32)r1", 0xffff_ffff_f0e0_d080),
        ("w0 = (s8)w1", 0xffff_ff80),
        ("w0 = (s16)w1", 0xffff_d080),
        ("w0 = w1", 0xf0e0_d080),
    ] {
        all(&[(&format!("{from}{text}"), expected)], &[]);
    }
}

#[test]
fn byte_order_operations_truncate() {
    let from = "r0 = 0x1122334455667788 ll\n";
    for (text, expected) in [
        ("r0 = le16 r0", 0x7788),
        ("r0 = le32 r0", 0x5566_7788),
        ("r0 = le64 r0", 0x1122_3344_5566_7788),
        ("r0 = be16 r0", 0x8877),
        ("r0 = be32 r0", 0x8877_6655),
        ("r0 = be64 r0", 0x8877_6655_4433_2211),
        ("r0 = bswap16 r0", 0x8877),
        ("r0 = bswap32 r0", 0x8877_6655),
        ("r0 = bswap64 r0", 0x8877_6655_4433_2211),
    ] {
        all(&[(&format!("{from}{text}"), expected)], &[]);
    }
}

#[test]
fn conditions_compare_as_they_say_on_both_widths() {
    // r1 = -1, r2 = 1: signed and unsigned disagree. The upper half of r3 must not count on 32.
    let start = "r1 = -1\nr2 = 1\nr3 = 0x100000001 ll\nr0 = 1\n";
    for (cond, taken) in [
        ("r1 == -1", true),
        ("r1 == r2", false),
        ("r1 != r2", true),
        ("r1 > r2", true),
        ("r1 > -1", false),
        ("r1 >= -1", true),
        ("r2 < r1", true),
        ("r2 <= 1", true),
        ("r1 s< r2", true),
        ("r1 s<= -1", true),
        ("r1 s> r2", false),
        ("r2 s>= 1", true),
        ("r2 s> -1", true),
        ("r1 & 4", true),
        ("r2 & 4", false),
        ("r3 == r2", false),
        ("w3 == w2", true),
        ("w3 != 1", false),
        ("w3 > 0", true),
        ("w3 >= 2", false),
        ("w3 < 2", true),
        ("w3 <= 0", false),
        ("w1 s< 0", true),
        ("w1 s<= w2", true),
        ("w1 > w2", true),
        ("w2 s> w1", true),
        ("w2 s>= w1", true),
        ("w3 & 1", true),
    ] {
        let text = format!("{start}if {cond} goto +1\nr0 = 0");
        all(&[(&text, u64::from(taken))], &[]);
    }
}

#[test]
fn jumps_of_both_lengths_go_both_ways() {
    all(
        &[
            ("goto over\nback: r0 = 7\nexit\nover: goto back", 7),
            ("gotol over\nback: r0 = 8\nexit\nover: gotol back", 8),
        ],
        &[],
    );
}

#[test]
fn memory_is_little_endian_at_every_width() {
    let memory = [0x80, 0x91, 0xa2, 0xb3, 0xc4, 0xd5, 0xe6, 0xf7];
    all(
        &[
            ("r0 = *(u8 *)(r1 + 0)", 0x80),
            ("r0 = *(u16 *)(r1 + 1)", 0xa291),
            ("r0 = *(u32 *)(r1 + 2)", 0xd5c4_b3a2),
            ("r0 = *(u64 *)(r1 + 0)", 0xf7e6_d5c4_b3a2_9180),
            ("r0 = *(s8 *)(r1 + 0)", 0xffff_ffff_ffff_ff80),
            ("r0 = *(s16 *)(r1 + 0)", 0xffff_ffff_ffff_9180),
            ("r0 = *(s32 *)(r1 + 0)", 0xffff_ffff_b3a2_9180),
            ("r1 += 8\nr0 = *(u8 *)(r1 - 1)", 0xf7),
            ("*(u8 *)(r1 + 1) = 0x55\nr0 = *(u16 *)(r1 + 0)", 0x5580),
            ("*(u16 *)(r1 + 0) = -2\nr0 = *(u32 *)(r1 + 0)", 0xb3a2_fffe),
            ("*(u64 *)(r1 + 0) = -2\nr0 = *(u64 *)(r1 + 0)", u64::MAX - 1),
            (
                "r2 = 0x1122334455667788 ll\n*(u32 *)(r1 + 4) = r2\nr0 = *(u64 *)(r1 + 0)",
                0x5566_7788_b3a2_9180,
            ),
            ("r0 = r2", 8),
        ],
        &memory,
    );
}

#[test]
fn atomics_change_memory_and_fetch_what_was_there() {
    let start = "r6 = r10\nr6 += -8\nr2 = 0x700000005 ll\n*(u64 *)(r10 - 8) = r2\nr3 = 3\n";
    let read = "\nr0 = *(u64 *)(r10 - 8)";
    for (text, expected) in [
        ("lock *(u64 *)(r6 + 0) += r3", 0x7_0000_0008),
        ("lock *(u64 *)(r6 + 0) |= r3", 0x7_0000_0007),
        ("lock *(u64 *)(r6 + 0) &= r3", 1),
        ("lock *(u64 *)(r6 + 0) ^= r3", 0x7_0000_0006),
        ("r3 = -6\nlock *(u32 *)(r6 + 0) += w3", 0x7_ffff_ffff),
        ("r3 = -1\nlock *(u32 *)(r6 + 4) &= w3", 0x7_0000_0005),
        ("r3 = xchg_64(r6 + 0, r3)", 3),
        ("w3 = xchg32_32(r6 + 0, w3)", 0x7_0000_0003),
        ("r0 = r2\nr0 = cmpxchg_64(r6 + 0, r0, r3)", 3),
        ("r0 = 5\nr0 = cmpxchg_64(r6 + 0, r0, r3)", 0x7_0000_0005),
        ("r0 = 5\nw0 = cmpxchg32_32(r6 + 0, w0, w3)", 0x7_0000_0003),
    ] {
        all(&[(&format!("{start}{text}{read}"), expected)], &[]);
    }
    for (text, expected) in [
        (
            "r3 = atomic_fetch_add((u64 *)(r6 + 0), r3)\nr0 = r3",
            0x7_0000_0005,
        ),
        ("w3 = atomic_fetch_or((u32 *)(r6 + 0), w3)\nr0 = r3", 5),
        (
            "r3 = atomic_fetch_and((u64 *)(r6 + 0), r3)\nr0 = r3",
            0x7_0000_0005,
        ),
        ("w3 = atomic_fetch_xor((u32 *)(r6 + 4), w3)\nr0 = r3", 7),
        ("w3 = xchg32_32(r6 + 4, w3)\nr0 = r3", 7),
        ("r0 = 0x100000005 ll\nw0 = cmpxchg32_32(r6 + 0, w0, w3)", 5),
        ("r0 = 9\nr0 = cmpxchg_64(r6 + 0, r0, r3)", 0x7_0000_0005),
    ] {
        all(&[(&format!("{start}{text}"), expected)], &[]);
    }
}

#[test]
fn legacy_packet_loads_are_big_endian_and_end_the_program_outside() {
    let packet = [0x11, 0x22, 0x33, 0x44, 0x55];
    all(
        &[
            ("r6 = r1\nr0 = *(u8 *)skb[4]", 0x55),
            ("r6 = r1\nr0 = *(u16 *)skb[1]", 0x2233),
            ("r6 = r1\nr0 = *(u32 *)skb[1]", 0x2233_4455),
            ("r6 = r1\nr7 = 1\nr0 = *(u8 *)skb[r7 + 2]", 0x44),
            ("r6 = r1\nr7 = 3\nr0 = *(u16 *)skb[r7 - 3]", 0x1122),
            (
                "r6 = r1\nr7 = 0x100000001 ll\nr0 = *(u32 *)skb[r7]",
                0x2233_4455,
            ),
            ("r6 = r1\nr0 = *(u32 *)skb[2]\nr0 = 9", 0),
            ("r6 = r1\nr0 = *(u8 *)skb[-1]\nr0 = 9", 0),
        ],
        &packet,
    );
    assert_eq!(
        run("r0 = *(u8 *)skb[0]\nexit", &packet),
        Err(TrapKind::PacketContext)
    );
    let killed = run("r6 = r1\nr0 = *(u8 *)skb[0]\nr0 = r2\nexit", &packet);
    assert_eq!(killed, Err(TrapKind::Register(Reg::R2)));
}

#[test]
fn calls_save_what_is_the_callers() {
    all(
        &[
            (
                "r6 = 1\nr1 = 40\ncall f\nr0 += r6\nexit\nf: r6 = 5\nr0 = r1\nr0 += 1",
                42,
            ),
            // A pointer into the caller's frame works; frames do not overlap.
            (
                "*(u64 *)(r10 - 8) = 4\nr1 = r10\nr1 += -8\ncall f\nr0 = *(u64 *)(r10 - 8)\nexit
                 f: *(u64 *)(r10 - 8) = 9\nr2 = *(u64 *)(r1 + 0)\nr2 += 1\n*(u64 *)(r1 + 0) = r2",
                5,
            ),
            ("r1 = 7\nr2 = 5\ncallx r2", 7),
            ("r1 = 0\nr2 = 5\ncallx r2\nr0 = 9", 0),
            ("r1 = 7\ncall 5", 7),
            (
                "*(u32 *)(r10 - 8) = 0x01020304\nr1 = r10\nr1 += -8\nr2 = 4\nr3 = r10\nr3 += -4
                 call 6\nr0 = *(u32 *)(r10 - 4)",
                0x0403_0201,
            ),
        ],
        &[],
    );
}

#[track_caller]
fn traps(text: &str, kind: TrapKind) {
    assert_eq!(run(text, &[1, 2, 3, 4]), Err(kind), "{text}");
}

#[test]
fn what_was_never_put_somewhere_is_not_read() {
    traps("exit", TrapKind::Register(Reg::R0));
    traps("r0 += 1\nexit", TrapKind::Register(Reg::R0));
    traps("r0 = r9\nexit", TrapKind::Register(Reg::R9));
    traps(
        "if r7 == 0 goto +0\nr0 = 0\nexit",
        TrapKind::Register(Reg::R7),
    );
    traps(
        "r1 = 7\nr2 = 1\ncall 5\nr0 = r2\nexit",
        TrapKind::Register(Reg::R2),
    );
    traps(
        "call f\nr0 = r1\nexit\nf: r0 = 0\nexit",
        TrapKind::Register(Reg::R1),
    );
    traps("call f\nexit\nf: exit", TrapKind::Register(Reg::R0));
    traps("r1 = r9\ncall 5\nexit", TrapKind::Register(Reg::R9));
    let stack = |bytes, fault, offset: u64| TrapKind::Memory {
        addr: STACK_BASE + 512 - offset,
        bytes,
        fault,
    };
    traps(
        "r0 = *(u64 *)(r10 - 8)\nexit",
        stack(8, MemFault::Uninitialised, 8),
    );
    traps(
        "*(u32 *)(r10 - 8) = 0\nr0 = *(u64 *)(r10 - 8)\nexit",
        stack(8, MemFault::Uninitialised, 8),
    );
    // A frame is fresh at each call, whatever the last one left there.
    let second = "call f\ncall g\nexit\nf: *(u64 *)(r10 - 8) = 1\nr0 = 0\nexit
                  g: r0 = *(u64 *)(r10 - 8)\nexit";
    assert!(matches!(
        run(second, &[]),
        Err(TrapKind::Memory {
            fault: MemFault::Uninitialised,
            ..
        })
    ));
}

#[test]
fn accesses_outside_frame_and_memory_trap() {
    let at = |addr, bytes, fault| TrapKind::Memory { addr, bytes, fault };
    traps(
        "r0 = *(u8 *)(r1 + 4)\nexit",
        at(BASE + 4, 1, MemFault::Unmapped),
    );
    traps(
        "r0 = *(u32 *)(r1 + 1)\nexit",
        at(BASE + 1, 4, MemFault::Unmapped),
    );
    traps(
        "r0 = *(u8 *)(r1 - 1)\nexit",
        at(BASE - 1, 1, MemFault::Unmapped),
    );
    traps(
        "r0 = 0\n*(u8 *)(r0 + 0) = 1\nexit",
        at(0, 1, MemFault::Unmapped),
    );
    let top = STACK_BASE + 512;
    traps(
        "*(u8 *)(r10 + 0) = 1\nexit",
        at(top, 1, MemFault::OutsideFrame),
    );
    traps(
        "*(u64 *)(r10 - 4) = 1\nexit",
        at(top - 4, 8, MemFault::OutsideFrame),
    );
    traps(
        "*(u8 *)(r10 - 513) = 1\nexit",
        at(STACK_BASE - 1, 1, MemFault::Unmapped),
    );
    traps(
        "r2 = 1\n*(u64 *)(r10 - 8) = 0\nlock *(u32 *)(r10 - 6) += r2\nexit",
        at(top - 6, 4, MemFault::Misaligned),
    );
    // The frame of a function that returned is gone.
    let gone =
        "call f\nr0 = *(u8 *)(r0 + 0)\nexit\nf: *(u8 *)(r10 - 1) = 1\nr0 = r10\nr0 += -1\nexit";
    assert!(matches!(
        run(gone, &[]),
        Err(TrapKind::Memory {
            fault: MemFault::OutsideFrame,
            ..
        })
    ));
}

#[test]
fn runs_are_bounded() {
    traps("again: goto again", TrapKind::Fuel);
    traps("f: call f\nexit", TrapKind::Depth);
    traps("r0 = imm64(3, 0, 0) ll\nexit", TrapKind::Unsupported);
    traps("call btf 3\nexit", TrapKind::Unsupported);
}

#[test]
fn executed_counts_every_instruction_once() {
    let ops = decode(&assemble("r0 = 1 ll\ngoto +0\nexit").expect("text")).expect("program");
    let mut interp = Interp::new(3);
    let mut memory = memory::memory(&[]);
    assert_eq!(interp.run(&[&ops], 0, &[], &mut memory), Ok(1));
    assert_eq!(interp.executed(), 3);
    let trap = Interp::new(2)
        .run(&[&ops], 0, &[], &mut memory)
        .expect_err("one too few");
    assert_eq!((trap.pc, trap.kind), (3, TrapKind::Fuel));
}

/// Tail calls: helper 12 goes to the program in r3.
mod chains {
    use super::*;
    use dash_bpf::interp::{CallFault, Env, HelperResult, StackView, Trap};
    use dash_bpf::op::Size;

    struct Chain;

    impl Env for Chain {
        fn load(&mut self, _: u64, _: Size) -> Result<u64, MemFault> {
            Err(MemFault::Unmapped)
        }
        fn store(&mut self, _: u64, _: Size, _: u64) -> Result<(), MemFault> {
            Err(MemFault::Unmapped)
        }
        fn map_address(&mut self, _: u32) -> Result<u64, MemFault> {
            Ok(1)
        }
        fn call(
            &mut self,
            _: u32,
            args: [u64; 5],
            _: &mut StackView<'_>,
        ) -> Result<HelperResult, CallFault> {
            Ok(HelperResult::TailCall(args[2] as usize))
        }
    }

    fn run(programs: &[&str]) -> Result<u64, Trap> {
        let programs: Vec<_> = programs
            .iter()
            .map(|text| decode(&assemble(text).expect("text")).expect("program"))
            .collect();
        Interp::default().run(&programs, 0, &[5], &mut Chain)
    }

    #[test]
    fn the_next_program_gets_the_context_and_nothing_else() {
        let jump = "r2 = map[0] ll\nr3 = 1\n*(u64 *)(r10 - 8) = 1\ncall 12\nr0 = 9\nexit";
        assert_eq!(run(&[jump, "r0 = r1\nexit"]), Ok(5));
        let trap = run(&[jump, "r0 = r2\nexit"]).expect_err("r2 is gone");
        assert_eq!(
            (trap.program, trap.pc, trap.kind),
            (1, 0, TrapKind::Register(Reg::R2))
        );
        let trap = run(&[jump, "r0 = *(u64 *)(r10 - 8)\nexit"]).expect_err("so is the stack");
        assert!(matches!(
            trap.kind,
            TrapKind::Memory {
                fault: MemFault::Uninitialised,
                ..
            }
        ));
        let trap = run(&[jump]).expect_err("no program 1");
        assert_eq!(trap.kind, TrapKind::NoProgram(1));
    }

    #[test]
    fn the_thirty_fourth_fails_and_the_program_goes_on() {
        let around = "r2 = map[0] ll\nr3 = 0\ncall 12\nexit";
        let mut interp = Interp::default();
        let ops = decode(&assemble(around).expect("text")).expect("program");
        assert_eq!(interp.run(&[&ops], 0, &[5], &mut Chain), Ok(u64::MAX));
        // Three instructions a round, and the exit.
        assert_eq!(interp.executed(), u64::from(MAX_TAIL_CALLS + 1) * 3 + 1);
    }

    #[test]
    fn not_from_inside_a_local_call() {
        let inside = "call f\nexit\nf: r2 = map[0] ll\nr3 = 0\ncall 12\nexit";
        assert_eq!(
            run(&[inside]).expect_err("refused").kind,
            TrapKind::TailCallDepth
        );
    }
}

#[track_caller]
fn refused(text: &str, pc: usize, rule: DecodeRule) {
    let insns = assemble(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(decode(&insns), Err(DecodeError { pc, rule }), "{text}");
}

#[test]
fn reserved_fields_are_zero() {
    use DecodeRule::*;
    for (slot, rule) in [
        (".insn 0x95 0x01 0 0", ReservedDst),
        (".insn 0x95 0x10 0 0", ReservedSrc),
        (".insn 0x95 0 1 0", ReservedOffset(1)),
        (".insn 0x95 0 0 1", ReservedImm(1)),
        (".insn 0x07 0x10 0 1", ReservedSrc),
        (".insn 0x0f 0x10 0 1", ReservedImm(1)),
        (".insn 0x07 0 1 1", ReservedOffset(1)),
        (".insn 0x87 0x10 0 0", ReservedSrc),
        (".insn 0x87 0 1 0", ReservedOffset(1)),
        (".insn 0x87 0 0 1", ReservedImm(1)),
        (".insn 0x8f 0 0 0", UnknownOpcode(0x8f)),
        (".insn 0x37 0 2 1", OffsetVariant(2)),
        (".insn 0x9c 0 -1 0", OffsetVariant(-1)),
        (".insn 0xb7 0 8 1", OffsetVariant(8)),
        (".insn 0xbf 0x10 7 0", OffsetVariant(7)),
        (".insn 0xbc 0x10 32 0", OffsetVariant(32)),
        (".insn 0xd4 0x10 0 16", ReservedSrc),
        (".insn 0xdc 0 1 16", ReservedOffset(1)),
        (".insn 0xdc 0 0 8", EndianWidth(8)),
        (".insn 0xdf 0 0 16", UnknownOpcode(0xdf)),
        (".insn 0x05 0x01 0 0", ReservedDst),
        (".insn 0x05 0x10 0 0", ReservedSrc),
        (".insn 0x05 0 0 1", ReservedImm(1)),
        (".insn 0x06 0 1 0", ReservedOffset(1)),
        (".insn 0x0d 0 0 0", UnknownOpcode(0x0d)),
        (".insn 0x15 0x10 0 0", ReservedSrc),
        (".insn 0x1d 0x10 0 1", ReservedImm(1)),
        (".insn 0x85 0x01 0 5", ReservedDst),
        (".insn 0x85 0 1 5", ReservedOffset(1)),
        (".insn 0x85 0x30 0 5", CallKind(3)),
        (".insn 0x8d 0x10 0 0", ReservedSrc),
        (".insn 0x8d 0x01 0 1", ReservedImm(1)),
        (".insn 0x86 0 0 0", UnknownOpcode(0x86)),
        (".insn 0x96 0 0 0", UnknownOpcode(0x96)),
        (".insn 0x20 0x01 0 0", ReservedDst),
        (".insn 0x20 0x10 0 0", ReservedSrc),
        (".insn 0x40 0 1 0", ReservedOffset(1)),
        (".insn 0x38 0 0 0", UnknownOpcode(0x38)),
        (".insn 0x61 0x10 0 1", ReservedImm(1)),
        (".insn 0x99 0x10 0 0", UnknownOpcode(0x99)),
        (".insn 0x62 0x10 0 0", ReservedSrc),
        (".insn 0x63 0x10 0 1", ReservedImm(1)),
        (".insn 0xc3 0x10 0 2", AtomicOperation(2)),
        (".insn 0xdb 0x10 0 0xe0", AtomicOperation(0xe0)),
        (".insn 0xd3 0x10 0 0", UnknownOpcode(0xd3)),
        (".insn 0x18 0 1 0\n.insn 0 0 0 0", ReservedOffset(1)),
        (".insn 0x18 0x70 0 0\n.insn 0 0 0 0", Imm64Kind(7)),
        (".insn 0x18 0x10 0 0\n.insn 0 0 0 1", ReservedImm(1)),
        (".insn 0x18 0 0 0\n.insn 0 1 0 0", Imm64HiFields),
        (".insn 0x18 0 0 0\n.insn 0 0 1 0", Imm64HiFields),
        (".insn 0x18 0 0 0\n.insn 0x07 0 0 0", Imm64HiFields),
        (".insn 0 0 0 0", Imm64HiAlone),
        (".insn 0x07 0x0b 0 1", DstRegister(11)),
        (".insn 0x0f 0xf0 0 0", SrcRegister(15)),
        (".insn 0xff 0 0 0", UnknownOpcode(0xff)),
    ] {
        refused(&format!("{slot}\nexit"), 0, rule);
    }
}

#[test]
fn the_frame_pointer_is_never_written() {
    for text in [
        "r10 = 1",
        "r10 += 1",
        "r10 = -r10",
        "r10 = be16 r10",
        "r10 = (s8)r1",
        "r10 = 1 ll",
        "r10 = map[0] ll",
        "r10 = *(u64 *)(r1 + 0)",
        "r10 = *(s8 *)(r1 + 0)",
        "r10 = atomic_fetch_add((u64 *)(r1 + 0), r10)",
        "r10 = xchg_64(r1 + 0, r10)",
    ] {
        refused(&format!("{text}\nexit"), 0, DecodeRule::WritesFramePointer);
    }
    for text in [
        "lock *(u64 *)(r1 + 0) += r10",
        "r0 = cmpxchg_64(r1 + 0, r0, r10)",
    ] {
        let insns = assemble(&format!("{text}\nexit")).expect("text");
        assert!(decode(&insns).is_ok(), "{text} only reads r10");
    }
}

#[test]
fn control_stays_inside() {
    use DecodeRule::*;
    refused("goto +1\nexit", 0, JumpOutside(2));
    refused("goto -2\nexit", 0, JumpOutside(-1));
    refused("gotol 2147483647\nexit", 0, JumpOutside(2_147_483_648));
    refused("if r1 == 0 goto +9\nexit", 0, JumpOutside(10));
    refused("goto +1\nr1 = 1 ll\nexit", 0, JumpIntoImm64(2));
    refused("call pc+9\nexit", 0, CallOutside(10));
    refused("call pc+1\nr1 = 1 ll\nexit", 0, CallIntoImm64(2));
    refused("r0 = 0", 0, FallsOffEnd);
    refused("r0 = 0\nif r0 == 0 goto -1", 1, FallsOffEnd);
    refused("r0 = 1 ll", 1, FallsOffEnd);
    refused("call 5", 0, FallsOffEnd);
    assert_eq!(decode(&[]), Err(DecodeError { pc: 0, rule: Empty }));
    let half = [Insn {
        code: 0x18,
        ..Insn::default()
    }];
    assert_eq!(
        decode(&half),
        Err(DecodeError {
            pc: 0,
            rule: Imm64Truncated
        })
    );
}
