//! Programs with one fault each, refused for that fault.

use dash_bpf::decode::DecodeRule;
use dash_bpf::{Insn, Object};
use dash_verify::{Judge, Options, Policy, Reason, Refusal, Verifier, VerifyError};

use crate::support::{object, own, program, reason};

mod calls;

#[track_caller]
fn by_rule(name: &str, text: &str, pc: usize, rule: Refusal) {
    by_rule_alone(name, text, pc, rule);
    by_ours(name, text, pc);
}

/// Refused by a rule for what it cannot prove; our own verifier sees it otherwise.
#[track_caller]
fn by_rule_alone(name: &str, text: &str, pc: usize, rule: Refusal) {
    assert_eq!(reason(name, text), Reason::Rule { pc, rule }, "{name}");
}

/// Refused by our own verifier too, at this slot.
#[track_caller]
fn by_ours(name: &str, text: &str, pc: usize) {
    match own(name, text) {
        Ok(()) => panic!("{name}: ours accepts"),
        Err(e) => assert_eq!(e.pc, pc, "{name}: {e}"),
    }
}

/// Refused by PREVAIL, at this slot, in words that contain these.
#[track_caller]
fn by_prevail(name: &str, text: &str, at: usize, words: &str) {
    match reason(name, text) {
        Reason::Prevail { pc, reason } => {
            assert!(
                pc == Some(at) && reason.contains(words),
                "{name}: at {pc:?}: {reason}"
            );
            by_ours(name, text, at);
        }
        other => panic!("{name}: {other}"),
    }
}

/// A value of a map in r0, looked up with a zero key; 6 slots.
fn lookup(map: u32) -> String {
    format!(
        "*(u64 *)(r10 - 8) = 0\nr2 = r10\nr2 += -8\nr1 = map[{map}] ll\ncall 1\n
         if r0 == 0 goto out\n"
    )
}

const OUT: &str = "\nout:\nr0 = 2\nexit";

#[test]
fn uninitialised_registers() {
    by_rule("exit", "exit", 0, Refusal::Uninitialised(0));
    by_rule(
        "copy",
        "r0 = r5\nr0 = 2\nexit",
        0,
        Refusal::Uninitialised(5),
    );
    by_rule(
        "spill",
        "*(u64 *)(r10 - 8) = r3\nr0 = 2\nexit",
        0,
        Refusal::Uninitialised(3),
    );
    by_rule(
        "after a call",
        "r3 = 1\ncall 7\nr0 = r3\nexit",
        2,
        Refusal::Uninitialised(3),
    );
    by_rule(
        "on one path",
        "r0 = *(u32 *)(r1 + 16)\nif r0 == 0 goto skip\nr2 = 1\nskip:\nr0 = r2\nexit",
        3,
        Refusal::Uninitialised(2),
    );
    by_rule(
        "after a local call",
        "r3 = 1\ncall f\nr0 = r3\nexit\nf:\nr0 = 0\nexit",
        2,
        Refusal::Uninitialised(3),
    );
}

#[test]
fn context_fields_are_whole_and_read_only() {
    // Holes of PREVAIL: bytes of a pointer as a number; a field that straddles two.
    by_rule(
        "part of data",
        "r0 = *(u16 *)(r1 + 0)\nexit",
        0,
        Refusal::ContextField,
    );
    by_rule(
        "upper half",
        "r0 = *(u16 *)(r1 + 2)\nexit",
        0,
        Refusal::ContextField,
    );
    by_rule(
        "two fields",
        "r0 = *(u64 *)(r1 + 12)\nexit",
        0,
        Refusal::ContextField,
    );
    by_rule(
        "signed",
        "r0 = *(s32 *)(r1 + 0)\nexit",
        0,
        Refusal::ContextField,
    );
    by_rule(
        "beyond",
        "r0 = *(u32 *)(r1 + 24)\nexit",
        0,
        Refusal::ContextField,
    );
    by_rule(
        "before",
        "r0 = *(u32 *)(r1 - 4)\nexit",
        0,
        Refusal::ContextField,
    );
    by_rule(
        "write",
        "*(u32 *)(r1 + 16) = 0\nr0 = 2\nexit",
        0,
        Refusal::ContextWrite,
    );
    by_rule(
        "write data, then use it",
        "r2 = 0\n*(u32 *)(r1 + 0) = r2\nr2 = *(u32 *)(r1 + 0)\nr0 = *(u8 *)(r2 + 0)\nexit",
        1,
        Refusal::ContextWrite,
    );
    by_rule(
        "atomic",
        "r2 = 1\nlock *(u32 *)(r1 + 16) += r2\nr0 = 2\nexit",
        1,
        Refusal::ContextWrite,
    );
    by_rule_alone(
        "variable offset",
        "r2 = *(u32 *)(r1 + 16)\nr2 &= 4\nr1 += r2\nr0 = *(u32 *)(r1 + 12)\nexit",
        3,
        Refusal::MixedPointer(1),
    );
}

#[test]
fn packet_accesses_need_a_bounds_check_that_covers_them() {
    let load = |check: &str, access: &str| {
        format!("r2 = *(u32 *)(r1 + 0)\nr3 = *(u32 *)(r1 + 4)\n{check}\n{access}{OUT}")
    };
    by_prevail(
        "no check",
        "r2 = *(u32 *)(r1 + 0)\nr0 = *(u8 *)(r2 + 0)\nexit",
        1,
        "packet_size",
    );
    let check = "r4 = r2\nr4 += 14\nif r4 > r3 goto out";
    by_prevail(
        "one byte beyond",
        &load(check, "r0 = *(u8 *)(r2 + 14)"),
        5,
        "packet_size",
    );
    by_prevail(
        "straddles the end",
        &load(check, "r0 = *(u32 *)(r2 + 11)"),
        5,
        "packet_size",
    );
    by_prevail(
        "before the start",
        &load(check, "r0 = *(u8 *)(r2 - 1)"),
        5,
        "meta_offset",
    );
    by_prevail(
        "check the wrong way round",
        &load(
            "r4 = r2\nr4 += 14\nif r4 < r3 goto out",
            "r0 = *(u8 *)(r2 + 0)",
        ),
        5,
        "packet_size",
    );
    by_prevail(
        "unbounded offset",
        &load(
            check,
            "r5 = *(u32 *)(r2 + 0)\nr2 += r5\nr0 = *(u8 *)(r2 + 0)",
        ),
        7,
        "",
    );
}

#[test]
fn packet_pointers_die_when_the_packet_moves() {
    let text = format!(
        "r6 = r1\nr7 = *(u32 *)(r6 + 0)\nr8 = *(u32 *)(r6 + 4)\nr2 = r7\nr2 += 14
         if r2 > r8 goto out\nr2 = -4\ncall 44\nr0 = *(u8 *)(r7 + 0){OUT}"
    );
    by_prevail("use after adjust_head", &text, 8, "Invalid type");
}

#[test]
fn map_values_need_a_null_check_and_end_somewhere() {
    by_prevail(
        "no null check",
        "*(u32 *)(r10 - 4) = 0\nr2 = r10\nr2 += -4\nr1 = map[0] ll\ncall 1
         r0 = *(u8 *)(r0 + 0)\nexit",
        6,
        "null",
    );
    by_prevail(
        "beyond",
        &format!("{}r3 = *(u64 *)(r0 + 9){OUT}", lookup(0)),
        7,
        "region_size",
    );
    by_prevail(
        "before",
        &format!("{}*(u8 *)(r0 - 1) = 0{OUT}", lookup(0)),
        7,
        "at least 0",
    );
    by_prevail(
        "unbounded index",
        &format!(
            "{}r3 = *(u32 *)(r0 + 0)\nr0 += r3\nr3 = *(u8 *)(r0 + 0){OUT}",
            lookup(0)
        ),
        9,
        "",
    );
}

#[test]
fn stack_accesses_stay_in_the_frame_and_read_what_was_written() {
    let outside = |from, to| Refusal::OutsideFrame { from, to };
    by_rule(
        "above",
        "*(u64 *)(r10 + 0) = 0\nr0 = 2\nexit",
        0,
        outside(0, 8),
    );
    by_rule(
        "straddles the top",
        "*(u64 *)(r10 - 4) = 0\nr0 = 2\nexit",
        0,
        outside(-4, 4),
    );
    by_rule(
        "below",
        "*(u8 *)(r10 - 513) = 0\nr0 = 2\nexit",
        0,
        outside(-513, -512),
    );
    by_rule(
        "never written",
        "r0 = *(u64 *)(r10 - 8)\nexit",
        0,
        Refusal::UninitialisedStack { from: -8, to: 0 },
    );
    by_rule(
        "half written",
        "*(u32 *)(r10 - 8) = 0\nr0 = *(u64 *)(r10 - 8)\nexit",
        1,
        Refusal::UninitialisedStack { from: -8, to: 0 },
    );
    by_prevail(
        "variable offset beyond the top",
        "r2 = *(u32 *)(r1 + 16)\nr2 &= 15\nr3 = r10\nr3 += -8\nr3 += r2\n*(u8 *)(r3 + 0) = 0
         r0 = 2\nexit",
        5,
        "total_stack_size",
    );
}

#[test]
fn helper_arguments_on_the_stack_stay_in_the_frame() {
    // Holes of PREVAIL: it clamps the range at the top of the stack.
    by_rule(
        "key above the frame",
        "*(u16 *)(r10 - 2) = 0\nr2 = r10\nr2 += -2\nr1 = map[0] ll\ncall 1\nr0 = 2\nexit",
        5,
        Refusal::OutsideFrame { from: -2, to: 2 },
    );
    by_rule(
        "value above the frame",
        "*(u64 *)(r10 - 8) = 0\nr2 = r10\nr2 += -8\nr3 = r2\nr1 = map[0] ll\nr4 = 0\ncall 2
         r0 = 2\nexit",
        7,
        Refusal::OutsideFrame { from: -8, to: 8 },
    );
    by_rule(
        "popped value above the frame",
        "r2 = r10\nr2 += -16\nr1 = map[5] ll\ncall 88\nr0 = 2\nexit",
        4,
        Refusal::OutsideFrame { from: -16, to: 8 },
    );
    by_rule(
        "key never written",
        "r2 = r10\nr2 += -4\nr1 = map[0] ll\ncall 1\nr0 = 2\nexit",
        4,
        Refusal::UninitialisedStack { from: -4, to: 0 },
    );
    by_rule_alone(
        "key at an unknown place",
        "*(u64 *)(r10 - 8) = 0\nr2 = *(u32 *)(r1 + 16)\nr2 &= 4\nr2 += r10\nr2 += -8
         r1 = map[0] ll\ncall 1\nr0 = 2\nexit",
        7,
        Refusal::VariableStack,
    );
}

#[test]
fn what_was_known_of_the_stack_is_forgotten_when_a_value_is_popped_there() {
    // PREVAIL alone would still believe the 0 and take the index for bounded.
    let text = format!(
        "*(u64 *)(r10 - 32) = 0\n*(u64 *)(r10 - 24) = 0\n*(u64 *)(r10 - 16) = 0
         r2 = r10\nr2 += -32\nr1 = map[5] ll\ncall 88
         r7 = *(u64 *)(r10 - 32)\n{}r0 += r7\nr3 = *(u8 *)(r0 + 0){OUT}",
        lookup(0)
    );
    by_prevail("popped index", &text, 17, "");
}

#[test]
fn addresses_do_not_leak() {
    by_rule("returned", "r0 = r1\nexit", 1, Refusal::Return);
    by_prevail(
        "into a map value",
        &format!("r6 = r1\n{}*(u64 *)(r0 + 0) = r6{OUT}", lookup(0)),
        8,
        "externally-visible",
    );
    by_rule(
        "as a number",
        "r2 = r1\nr1 = map[7] ll\nr3 = 0\ncall 51\nexit",
        4,
        Refusal::Argument {
            helper: "redirect_map",
            argument: 2,
            expected: "a number",
        },
    );
    by_rule(
        "half a pointer",
        "*(u32 *)(r10 - 4) = r1\nr0 = 2\nexit",
        0,
        Refusal::PartialSpill,
    );
    by_rule(
        "half of a spilled pointer",
        "*(u64 *)(r10 - 8) = r1\nr0 = *(u32 *)(r10 - 8)\nexit",
        1,
        Refusal::PartialFill,
    );
    by_prevail(
        "as a key",
        "*(u64 *)(r10 - 8) = r1\nr2 = r10\nr2 += -8\nr1 = map[0] ll\ncall 1\nr0 = 2\nexit",
        5,
        "non-numerical",
    );
}

#[test]
fn pointers_that_are_none() {
    by_rule(
        "number",
        "r2 = 64\nr0 = *(u8 *)(r2 + 0)\nexit",
        1,
        Refusal::NotAPointer(2),
    );
    by_rule(
        "map",
        "r2 = map[0] ll\nr0 = *(u8 *)(r2 + 0)\nexit",
        2,
        Refusal::NotAPointer(2),
    );
    by_rule(
        "stack or packet",
        "r2 = *(u32 *)(r1 + 16)\nr3 = r10\nif r2 == 0 goto skip\nr3 = *(u32 *)(r1 + 0)\nskip:
         r0 = *(u8 *)(r3 - 1)\nexit",
        4,
        Refusal::MixedPointer(3),
    );
    by_prevail(
        "multiplied",
        "r2 = *(u32 *)(r1 + 0)\nr2 *= 2\nr0 = 2\nexit",
        1,
        "",
    );
}

#[test]
fn frames_of_local_calls_do_not_touch() {
    // PREVAIL lays frames side by side; ours have nothing between them that may be reached.
    by_rule(
        "callee above its frame",
        "*(u64 *)(r10 - 512) = 5\ncall f\nexit\nf:\nr0 = *(u64 *)(r10 + 0)\nexit",
        3,
        Refusal::OutsideFrame { from: 0, to: 8 },
    );
    by_rule(
        "pointer to a frame that is gone",
        "call f\nr0 = *(u64 *)(r0 + 0)\nexit\nf:\n*(u64 *)(r10 - 8) = 1\nr0 = r10\nr0 += -8\nexit",
        1,
        Refusal::MixedPointer(0),
    );
    by_rule_alone(
        "unknown offset",
        "r2 = *(u32 *)(r1 + 16)\nr2 &= 7\nr3 = r10\nr3 += -8\nr3 += r2\n*(u8 *)(r3 + 0) = 0
         call f\nexit\nf:\nr0 = 0\nexit",
        5,
        Refusal::VariableStack,
    );
}

#[test]
fn programs_linux_refuses_for_their_shape() {
    by_rule(
        "dead code",
        "r0 = 2\nexit\nr0 = 3\nexit",
        2,
        Refusal::Unreachable,
    );
    by_rule("shift", "r0 = 1\nr0 <<= 64\nexit", 1, Refusal::Shift(64));
    by_rule(
        "32-bit shift",
        "w0 = 1\nw0 s>>= 32\nexit",
        1,
        Refusal::Shift(32),
    );
}

#[test]
fn loops_end() {
    let endless = "r0 = 0\nagain:\nr0 += 1\nr0 &= 1\nif r0 != 5 goto again\nexit";
    by_prevail("endless", endless, 1, "");
    let trusting = Policy {
        judge: Judge::Prevail,
        check_termination: false,
        ..Policy::default()
    };
    let options = Options {
        policy: trusting,
        ..Options::default()
    };
    assert!(
        Verifier::new(options)
            .verify(&object("endless", endless))
            .is_ok()
    );
}

#[test]
fn strict_wants_array_indices_in_range() {
    let text =
        format!("{}{OUT}", lookup(1)).replace("(u64 *)(r10 - 8) = 0", "(u32 *)(r10 - 8) = 8");
    let verify = |strict| {
        let policy = Policy {
            judge: Judge::Prevail,
            strict,
            ..Policy::default()
        };
        Verifier::new(Options {
            policy,
            ..Options::default()
        })
        .verify(&object("index", &text))
    };
    assert!(verify(false).is_ok());
    assert!(verify(true).is_err_and(|e| e.to_string().contains("Array index overflow")));
}

#[test]
fn malformed_programs_are_refused_before_any_analysis() {
    let mut broken = object("broken", "r0 = 2\nexit");
    broken.programs[0].insns.push(Insn {
        code: 0xff,
        ..Insn::default()
    });
    let e = Verifier::new(Options::default())
        .verify(&broken)
        .expect_err("unknown opcode");
    let VerifyError::Program {
        reason: Reason::Malformed(e),
        ..
    } = e
    else {
        panic!("{e}");
    };
    assert_eq!((e.pc, e.rule), (2, DecodeRule::UnknownOpcode(0xff)));
}

#[test]
fn the_first_program_refused_is_named() {
    let mut object: Object = object("fine", "r0 = 2\nexit");
    object.programs.push(program("leaky", "r0 = r10\nexit"));
    for (judge, what) in [
        (Judge::Own, "r0 is stack0(+0) at exit, not a number"),
        (Judge::Prevail, "r0 is not a number at exit"),
    ] {
        let policy = Policy {
            judge,
            ..Policy::default()
        };
        let options = Options {
            policy,
            ..Options::default()
        };
        let refused = Verifier::new(options).verify(&object);
        let said = refused.expect_err("leaks").to_string();
        let expected = format!("program 1 (leaky), instruction 1: {what}");
        assert!(said.starts_with(&expected), "{said}");
    }
}
