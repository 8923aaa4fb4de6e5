//! Pointers, paths, loops, calls, budgets, messages.

use dash_verify::{Fault, Judge, Limits, Options, Policy, Reason, Verifier, VerifyError, examine};

use super::{ANY, OUT, accepted, lookup, packet, refused};
use crate::support::{object, own};

#[test]
fn pointer_arithmetic_is_sums_with_numbers() {
    accepted("r2 = r10\nr2 += -8\nr2 -= 8\n*(u64 *)(r2 + 0) = 0\nr0 = r10\nr0 -= r2\nexit");
    accepted("r2 = -8\nr2 += r10\n*(u64 *)(r2 + 0) = 0\nr0 = 0\nexit");
    for op in ["*=", "&=", "|=", "^=", "<<=", ">>=", "s>>=", "/=", "%="] {
        refuses!(
            format!("r2 = r10\nr2 {op} 2\nr0 = 0\nexit"),
            1,
            Fault::Arithmetic { reg: 2, .. }
        );
    }
    refuses!(
        "r2 = r10\nr2 = -r2\nr0 = 0\nexit",
        1,
        Fault::Arithmetic { .. }
    );
    refuses!(
        "r2 = r10\nr2 = be64 r2\nr0 = 0\nexit",
        1,
        Fault::Arithmetic { .. }
    );
    refuses!(
        "r2 = r10\nw2 += 8\nr0 = 0\nexit",
        1,
        Fault::Arithmetic { .. }
    );
    refuses!("w2 = w10\nr0 = 0\nexit", 0, Fault::Arithmetic { .. });
    refuses!(
        "r2 = r10\nr2 += r1\nr0 = 0\nexit",
        1,
        Fault::Arithmetic { .. }
    );
    refuses!(
        "r2 = r10\nr2 -= r1\nr0 = 0\nexit",
        1,
        Fault::Arithmetic { .. }
    );
    refuses!(
        "r2 = 5\nr2 -= r10\nr0 = 0\nexit",
        1,
        Fault::Arithmetic { .. }
    );
    refuses!("r1 += 1073741824\nr0 = 0\nexit", 0, Fault::Far(1));
}

#[test]
fn addresses_stay_inside_the_program() {
    let value = format!("r6 = r1\n{}*(u64 *)(r0 + 0) = r6{OUT}", lookup(0));
    refuses!(value, 8, Fault::Leak);
    accepted(&value.replace("= r6", "= 6"));
    let into_packet = packet(
        "r4 = r2\nr4 += 8\nif r4 > r3 goto out",
        "*(u64 *)(r2 + 0) = r1",
    );
    refuses!(into_packet, 5, Fault::Leak);
    let atomic = format!(
        "r6 = r1\n{}r6 = atomic_fetch_or((u64 *)(r0 + 0), r6){OUT}",
        lookup(0)
    );
    refuses!(atomic, 8, Fault::Leak);
    refuses!("r0 = r10\nexit", 1, Fault::Return { .. });
    refuses!("r0 = map[0] ll\nexit", 2, Fault::Return { .. });
    for (text, pc) in [
        ("if r1 == r10 goto out", 0),
        ("if r1 > 4096 goto out", 0),
        ("r2 = 4096\nif r1 == r2 goto out", 1),
        ("if r1 & 1 goto out", 0),
    ] {
        refuses!(format!("{text}\nr0 = 1{OUT}"), pc, Fault::Comparison { .. });
    }
    accepted(&format!("if r1 == 0 goto out{OUT}"));
}

#[test]
fn a_comparison_that_changes_nothing_tells_nothing() {
    // Both ways lead to the next instruction.
    for test in ["r1 == 7", "w1 <= w6", "r1 s> r10", "r1 & 5", "r10 < 0"] {
        accepted(&format!(
            "{ANY}r1 = r7\nif {test} goto next\nnext:\nr0 = 2\nexit"
        ));
    }
    refuses!(
        "if r1 == 7 goto next\nr0 = 1\nnext:\nr0 = 2\nexit",
        0,
        Fault::Comparison { .. }
    );
    refuses!(
        "if r2 == 7 goto next\nnext:\nr0 = 2\nexit",
        0,
        Fault::Uninitialised(2)
    );
}

#[test]
fn any_order_of_addresses_and_null_is_known() {
    let found = |test: &str| {
        format!(
            "{}r1 = 0\nr2 = r0\n{test}\nr0 = *(u8 *)(r2 + 0){OUT}",
            lookup(0).replace("if r0 == 0 goto out", "")
        )
    };
    for test in [
        "if r2 <= 0 goto out",
        "if r1 >= r2 goto out",
        "if r2 > 0 goto there\ngoto out\nthere:",
        "if r1 < r2 goto there\ngoto out\nthere:",
    ] {
        accepted(&found(test));
    }
    // These say nothing of it.
    for test in [
        "if r2 < 0 goto out",
        "if r1 > r2 goto out",
        "if r2 >= 0 goto there\nthere:",
        "if r2 & 0 goto out",
    ] {
        refused(&found(test), 9, |fault| {
            matches!(fault, Fault::MaybeNull(2))
        });
    }
    for test in [
        "if r2 s> 0 goto out",
        "if r2 s<= 0 goto out",
        "if w2 > 0 goto out",
    ] {
        refuses!(found(test), 8, Fault::Comparison { .. });
    }
    // What is there is more than null: the other way is dead.
    accepted(&format!(
        "if r1 <= 0 goto dead\ngoto out\ndead:\nr0 = *(u8 *)(r5 + 0){OUT}"
    ));
    accepted(&format!("if r1 >= 0 goto out\nr0 = *(u8 *)(r5 + 0){OUT}"));
    refuses!(
        format!("if r1 > 0 goto dead\ngoto out\ndead:\nr0 = *(u8 *)(r5 + 0){OUT}"),
        2,
        Fault::Uninitialised(5)
    );
}

#[test]
fn pointers_moved_out_of_reach_may_be_null() {
    // The branch cannot be ruled out, so what it does counts.
    let program = |by: &str| {
        format!(
            "r2 = *(u32 *)(r1 + 0)\nr3 = {by}\nr2 += r3\nif r2 != 0 goto out\nr0 = *(u8 *)(r2 + 0){OUT}"
        )
    };
    accepted(&program("*(u32 *)(r1 + 16)\nr3 &= 255"));
    refuses!(
        program("*(u32 *)(r1 + 16)\nr3 <<= 32"),
        5,
        Fault::PacketStart { .. }
    );
}

#[test]
fn paths_are_told_apart_where_it_matters() {
    // A register is a pointer exactly where another is not 0: joined, neither is known.
    let correlated = format!(
        "{ANY}r8 = 0\nr9 = 0\nr3 = *(u32 *)(r7 + 12)\nif r3 == 0 goto second
         r8 = r10\nr8 += -8\n*(u64 *)(r10 - 8) = 1\nr9 = 1\nsecond:\nif r6 == 7 goto third
         r6 = 3\nthird:\nif r9 == 0 goto out\nr0 = *(u64 *)(r8 + 0){OUT}"
    );
    accepted(&correlated);
    refuses!(
        correlated.replace("if r9 == 0", "if r9 == 1"),
        13,
        Fault::NotAPointer { reg: 8, .. }
    );
}

#[test]
fn many_paths_are_joined_and_not_multiplied() {
    // 2^40 paths, each with another sum.
    let mut text = format!("{ANY}r8 = 0\n");
    for bit in 0..40 {
        text.push_str(&format!(
            "r3 = r6\nr3 >>= {}\nr3 &= 1\nif r3 == 0 goto l{bit}\nr8 += {}\nl{bit}:\n",
            bit % 32,
            bit * 3 + 1
        ));
    }
    text.push_str("r0 = r8\nexit");
    accepted(&text);
    // What the sum can be at most is known all the same.
    let bounded = text.replace(
        "r0 = r8\nexit",
        &format!(
            "r9 = r8\nr9 >>= 6\n{}r0 += r9\nr3 = *(u8 *)(r0 + 0){OUT}",
            lookup(1)
        ),
    );
    accepted(&bounded);
}

#[test]
fn loops_that_end_are_accepted_and_others_refused() {
    let counted = |body: &str, condition: &str| {
        format!("{ANY}r8 = 0\nagain:\n{body}\nr8 += 1\nif {condition} goto again\nr0 = 2\nexit")
    };
    accepted(&counted("", "r8 < 1000"));
    accepted(&counted("", "r8 != 500"));
    accepted(&counted("r6 &= 63", "r8 < r6"));
    refuses!(counted("r8 = 0", "r8 < 5"), 3, Fault::Endless);
    refuses!("again:\ngoto again", 0, Fault::Endless);
    refuses!(
        format!("{ANY}again:\nif r6 != 7 goto again\nr0 = 0\nexit"),
        2,
        Fault::Endless
    );
    // A cycle of states longer than one round.
    refuses!(
        "r0 = 0\nagain:\nr0 += 1\nr0 &= 7\nif r0 != 9 goto again\nexit",
        1,
        Fault::Endless
    );
    // Down from an unknown start.
    accepted(&format!(
        "{ANY}r6 &= 511\nagain:\nif r6 == 0 goto out\nr6 -= 1\ngoto again{OUT}"
    ));
    // Nested, with branches inside and ways out.
    accepted(&format!(
        "{ANY}r8 = 0\nouter:\nr9 = 0\ninner:\nr3 = r6\nr3 ^= r9\nr3 &= 3\nif r3 == 0 goto skip\nr7 = r3
         skip:\nif r6 == r8 goto out\nr9 += 1\nif r9 < 20 goto inner\nr8 += 1\nif r8 < 20 goto outer{OUT}"
    ));
    // Two ways into one loop.
    accepted(&format!(
        "{ANY}r8 = 0\nif r6 == 0 goto middle\ntop:\nr8 += 1\nmiddle:\nr8 += 1\nif r8 < 50 goto top{OUT}"
    ));
}

#[test]
fn a_loop_over_the_packet_is_proven() {
    accepted(&packet(
        "r4 = r2\nr4 += 64\nif r4 > r3 goto out\nr5 = 0\nr0 = 0",
        "again:\nr6 = r2\nr6 += r5\nr7 = *(u8 *)(r6 + 0)\nr0 += r7\nr5 += 1\nif r5 < 64 goto again",
    ));
    // Bytes are looked for one by one, each checked.
    accepted(&packet(
        "r5 = 0",
        "again:\nr6 = r2\nr6 += r5\nr7 = r6\nr7 += 1\nif r7 > r3 goto out\nr7 = *(u8 *)(r6 + 0)
         if r7 == 0 goto out\nr5 += 1\nif r5 < 200 goto again",
    ));
    refuses!(
        packet(
            "r4 = r2\nr4 += 64\nif r4 > r3 goto out\nr5 = 0\nr0 = 0",
            "again:\nr6 = r2\nr6 += r5\nr7 = *(u8 *)(r6 + 0)\nr0 += r7\nr5 += 1\nif r5 < 65 goto again",
        ),
        9,
        Fault::PacketEnd { .. }
    );
}

#[test]
fn calls_have_frames_of_their_own() {
    let call = |body: &str| format!("{ANY}r1 = 3\ncall f\nexit\nf:\n{body}\nexit");
    accepted(&call("r0 = r1"));
    refuses!(call("r0 = r6"), 5, Fault::Uninitialised(6));
    refuses!(call("r0 = r2"), 5, Fault::Uninitialised(2));
    accepted(&call("r6 = 5\nr0 = r6"));
    refuses!(call("r0 = r10"), 4, Fault::Return { .. });
    refuses!(
        "*(u64 *)(r10 - 8) = 1\ncall f\nr0 = *(u64 *)(r10 - 16)\nexit\nf:\n*(u64 *)(r10 - 16) = 1\nr0 = 0\nexit",
        2,
        Fault::UninitialisedStack { .. }
    );
    // A callee's address left in the caller's frame.
    refuses!(
        "r1 = r10\nr1 += -8\ncall f\nr1 = *(u64 *)(r10 - 8)\nr0 = *(u64 *)(r1 - 8)\nexit
         f:\n*(u64 *)(r10 - 8) = 1\nr2 = r10\n*(u64 *)(r1 + 0) = r2\nr0 = 0\nexit",
        4,
        Fault::Invalid(1)
    );
    // What a callee found out is known to the caller.
    accepted(
        "r6 = r1\nr2 = *(u32 *)(r6 + 0)\nr3 = *(u32 *)(r6 + 4)\nr7 = r2\nr1 = r2\nr2 = r3\ncall there
         if r0 == 0 goto out\nr0 = *(u8 *)(r7 + 13)\nout:\nr0 = 2\nexit
         there:\nr0 = 0\nr1 += 14\nif r1 > r2 goto no\nr0 = 1\nno:\nexit",
    );
}

#[test]
fn calls_nest_as_deep_as_frames_and_stack_allow() {
    let chain = |functions: usize, bytes: usize| {
        let mut text = String::new();
        for f in 0..functions {
            text.push_str(&format!("f{f}:\n*(u64 *)(r10 - {bytes}) = 1\n"));
            if f + 1 < functions {
                text.push_str(&format!("call f{}\n", f + 1));
            }
            text.push_str("r0 = 0\nexit\n");
        }
        text
    };
    accepted(&chain(8, 64));
    refuses!(chain(9, 8), 29, Fault::Depth);
    refuses!(
        chain(8, 65),
        0,
        Fault::StackTotal {
            bytes: 768,
            limit: 512
        }
    );
    refuses!("call f\nout:\nexit\nf:\nr0 = 1\ngoto out", 2, Fault::Shared);
    refuses!("r0 = 0\ncall f\nf:\nr0 = 1\nexit", 2, Fault::Shared);
    refuses!(
        "r0 = 0\ncall f\nexit\nf:\ncall g\nexit\ng:\ncall f\nexit",
        3,
        Fault::Depth
    );
}

#[test]
fn helper_arguments_are_what_the_table_says() {
    let sum = |from: &str, size: &str| {
        format!(
            "{ANY}*(u64 *)(r10 - 8) = 0\n*(u64 *)(r10 - 16) = 0\nr1 = 0\nr2 = 0\n{from}\n{size}\nr5 = 0\ncall 28\nr0 = 2\nexit"
        )
    };
    let stack = "r3 = r10\nr3 += -16";
    accepted(&sum(stack, "r4 = 16"));
    accepted(&sum(stack, "r4 = r6\nr4 &= 12"));
    refuses!(
        sum(stack, "r4 = 20"),
        10,
        Fault::OutsideFrame { from: -16, to: 4 }
    );
    refuses!(
        sum(stack, "r4 = r6\nr4 &= 28"),
        11,
        Fault::OutsideFrame { .. }
    );
    refuses!(
        sum(stack, "r4 = -4"),
        10,
        Fault::Argument { argument: 4, .. }
    );
    refuses!(
        sum("r3 = 0", "r4 = 4"),
        9,
        Fault::Argument { argument: 3, .. }
    );
    accepted(&sum("r3 = 0", "r4 = 0"));
    refuses!(
        sum("r3 = r7", "r4 = 4"),
        9,
        Fault::Argument { argument: 3, .. }
    );
    refuses!(
        sum("r3 = r10\nr3 += -24", "r4 = 8"),
        10,
        Fault::UninitialisedStack { .. }
    );
    refuses!(
        "*(u64 *)(r10 - 8) = r1\nr1 = 0\nr2 = 0\nr3 = r10\nr3 += -8\nr4 = 8\nr5 = 0\ncall 28\nr0 = 2\nexit",
        7,
        Fault::PartOfPointer { .. }
    );
    // Holes of PREVAIL: keys and values that reach above the frame.
    refuses!(
        "*(u16 *)(r10 - 2) = 0\nr2 = r10\nr2 += -2\nr1 = map[0] ll\ncall 1\nr0 = 2\nexit",
        5,
        Fault::OutsideFrame { from: -2, to: 2 }
    );
    // A key at an unknown place all of whose bytes are there.
    accepted(&format!(
        "{ANY}*(u64 *)(r10 - 8) = 0\nr6 &= 4\nr2 = r10\nr2 += -8\nr2 += r6\nr1 = map[0] ll\ncall 1\nr0 = 2\nexit"
    ));
}

#[test]
fn division_by_zero_is_defined_and_nothing_is_assumed_of_it() {
    let program = |ops: &str| {
        format!(
            "{}r3 = *(u32 *)(r0 + 0)\n{ops}\nr0 += r3\nr5 = *(u8 *)(r0 + 0){OUT}",
            lookup(1)
        )
    };
    // By zero the quotient is 0 and the remainder the dividend.
    accepted(&program("r3 &= 63\nr4 = *(u32 *)(r0 + 4)\nr3 /= r4"));
    accepted(&program("r3 &= 63\nr4 = *(u32 *)(r0 + 4)\nr3 %= r4"));
    refuses!(
        program("r4 = *(u32 *)(r0 + 4)\nr4 &= 31\nr3 %= r4"),
        12,
        Fault::ElementBounds { .. }
    );
    accepted(&program(
        "r4 = *(u32 *)(r0 + 4)\nr4 &= 31\nr4 |= 1\nr3 %= r4",
    ));
}

#[test]
fn budgets_end_in_too_complex() {
    let text = "r6 = *(u32 *)(r1 + 16)\nr0 = 0\nagain:\nr0 += 1\nif r0 == r6 goto out\nif r0 < 5000 goto again\nout:\nexit";
    accepted(text);
    let with = |limits: Limits| {
        let policy = Policy {
            judge: Judge::Own,
            limits,
            ..Policy::default()
        };
        let options = Options {
            policy,
            ..Options::default()
        };
        match Verifier::new(options).verify(&object("long", text)) {
            Err(VerifyError::Program {
                reason: Reason::Own(objection),
                ..
            }) => objection.fault,
            other => panic!("{other:?}"),
        }
    };
    let limits = Limits::default();
    let few = Limits {
        instructions: 1000,
        ..limits
    };
    assert_eq!(
        with(few),
        Fault::TooComplex {
            what: "instructions walked",
            limit: 1000
        }
    );
    let small = Limits {
        memory: 100,
        ..limits
    };
    assert!(matches!(
        with(small),
        Fault::TooComplex {
            what: "bytes of states",
            ..
        }
    ));
    let short = Limits {
        time: std::time::Duration::ZERO,
        ..limits
    };
    assert!(matches!(
        with(short),
        Fault::TooComplex {
            what: "milliseconds",
            ..
        }
    ));
}

#[test]
fn messages_say_what_is_known_and_what_is_needed() {
    let e = own(
        "message",
        &packet(
            "r4 = r2\nr4 += 14\nif r4 > r3 goto out",
            "r0 = *(u32 *)(r2 + 12)",
        ),
    )
    .expect_err("two bytes beyond");
    let text = e.to_string();
    for part in [
        "r2",
        "16 bytes",
        "14 are proven",
        "compare with data_end",
        "packet(data+0)",
    ] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_log_tells_every_step_and_what_was_known() {
    let object = object(
        "log",
        "r0 = *(u32 *)(r1 + 16)\nif r0 > 7 goto out\nr0 += 1\nout:\nexit",
    );
    let mut log = Vec::new();
    let walked = examine(
        &object.programs[0],
        &object.maps,
        &Limits::default(),
        Some(&mut log),
    );
    let walked = walked.expect("safe");
    assert_eq!(walked.instructions, log.len() as u64);
    let steps: Vec<usize> = log.iter().map(|seen| seen.pc).collect();
    assert_eq!(steps, [0, 1, 2, 3, 3]);
    assert!(log[0].known.contains("r1=context(+0)"), "{:?}", log[0]);
    assert!(log[2].known.contains("r0=number(0x0..=0x7"), "{:?}", log[2]);
}

#[test]
fn judges_have_names() {
    for (name, judge) in [
        ("own", Judge::Own),
        ("prevail", Judge::Prevail),
        ("both", Judge::Both),
    ] {
        assert_eq!(name.parse(), Ok(judge));
    }
    assert!("kernel".parse::<Judge>().is_err());
}
