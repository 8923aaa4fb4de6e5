//! Helpers: records that must be given back, functions that are called back, maps in maps, and sizes.

use dash_verify::Fault;

use super::{OUT, accepted, refused};

/// 16 bytes of a ring buffer, or null, in r0; 5 slots. The context is in r9.
const RESERVE: &str = "r9 = r1\nr1 = map[10] ll\nr2 = 16\nr3 = 0\ncall 131\n";
const SUBMIT: &str = "r2 = 0\ncall 132\n";

fn record(body: &str) -> String {
    format!("{RESERVE}if r0 == 0 goto out\n{body}{OUT}")
}

#[test]
fn a_record_is_written_inside_and_given_back_once() {
    accepted(&record(&format!("*(u64 *)(r0 + 8) = 1\nr1 = r0\n{SUBMIT}")));
    accepted(&record("r6 = r0\nr1 = r6\nr2 = 0\ncall 133\n"));
    refuses!(
        record("*(u64 *)(r0 + 9) = 1"),
        7,
        Fault::MemoryBounds {
            from: 9,
            to: 17,
            ..
        }
    );
    refuses!(
        record("*(u64 *)(r0 - 1) = 1"),
        7,
        Fault::MemoryBounds { from: -1, .. }
    );
    refuses!(record("*(u64 *)(r0 + 0) = r10"), 7, Fault::Leak);
    refuses!(record("lock *(u64 *)(r0 + 0) += r9"), 7, Fault::Leak);
    // Not given back on one path.
    refuses!(record(""), 8, Fault::NotGivenBack { .. });
    refuses!(
        record(&format!(
            "r6 = *(u32 *)(r9 + 16)\nif r6 == 0 goto out\nr1 = r0\n{SUBMIT}"
        )),
        13,
        Fault::NotGivenBack { .. }
    );
    // Twice, and through a copy, and what is read afterwards.
    let twice = format!("r6 = r0\nr7 = r0\nr1 = r6\n{SUBMIT}r1 = r7\n{SUBMIT}");
    refuses!(record(&twice), 14, Fault::Argument { argument: 1, .. });
    let after = format!("r6 = r0\nr1 = r0\n{SUBMIT}r0 = *(u8 *)(r6 + 0)\n");
    refuses!(record(&after), 11, Fault::Invalid(6));
    // On the stack, too.
    let stored =
        format!("*(u64 *)(r10 - 8) = r0\nr1 = r0\n{SUBMIT}r1 = *(u64 *)(r10 - 8)\n{SUBMIT}");
    refuses!(record(&stored), 13, Fault::Argument { argument: 1, .. });
}

#[test]
fn only_the_start_of_a_record_that_is_there_is_given_back() {
    refuses!(
        record(&format!("r1 = r0\nr1 += 8\n{SUBMIT}")),
        10,
        Fault::Argument { argument: 1, .. }
    );
    refuses!(
        format!("{RESERVE}r1 = r0\n{SUBMIT}{OUT}"),
        8,
        Fault::MaybeNull(1)
    );
    refuses!(
        record(&format!("r1 = r10\nr1 += -8\n{SUBMIT}")),
        10,
        Fault::Argument { .. }
    );
    // Nothing is left in r0, as the helper returns nothing.
    refuses!(
        record(&format!("r1 = r0\n{SUBMIT}r6 = r0\n")),
        10,
        Fault::Uninitialised(0)
    );
    // The size is a constant.
    refuses!(
        "r2 = *(u32 *)(r1 + 16)\nr1 = map[10] ll\nr3 = 0\ncall 131\nr0 = 2\nexit",
        4,
        Fault::Argument { argument: 2, .. }
    );
    refuses!(
        "r1 = map[0] ll\nr2 = 16\nr3 = 0\ncall 131\nr0 = 2\nexit",
        4,
        Fault::MapKind { .. }
    );
}

#[test]
fn a_record_is_not_taken_along_by_a_tail_call_and_comes_back_from_functions() {
    refuses!(
        record("r6 = r0\nr1 = r9\nr2 = map[6] ll\nr3 = 1\ncall 12\nr1 = r6\nr2 = 0\ncall 132"),
        12,
        Fault::NotGivenBack { .. }
    );
    // A function takes it and gives it back for its caller.
    accepted(&format!(
        "{RESERVE}if r0 == 0 goto out\nr1 = r0\ncall f{OUT}\nf:\n*(u64 *)(r1 + 0) = 7\nr2 = 0\ncall 132\n
         r0 = 0\nexit"
    ));
    // Or makes it.
    accepted(&format!(
        "call f\nif r0 == 0 goto out\nr1 = r0\n{SUBMIT}{OUT}\nf:\nr1 = map[10] ll\nr2 = 8\nr3 = 0\n
         call 131\nexit"
    ));
    refuses!(
        "call f\nr0 = 2\nexit\nf:\nr1 = map[10] ll\nr2 = 8\nr3 = 0\ncall 131\nr0 = 0\nexit",
        2,
        Fault::NotGivenBack { .. }
    );
}

/// Two records joined where more paths meet than are kept apart stay two.
#[test]
fn joined_records_are_not_given_back_twice() {
    let reserve = "r1 = map[10] ll\nr2 = 8\nr3 = 0\ncall 131\n";
    // r6 and r7 are one record or two, depending on the path.
    let program = |paths: &str| {
        format!(
            "r9 = *(u32 *)(r1 + 16)\n{reserve}if r0 == 0 goto out\nr6 = r0\nr7 = r0\n
             if r9 == 0 goto meet\n{reserve}if r0 == 0 goto give\nr7 = r0\ngoto meet\ngive:\n
             r1 = r6\nr2 = 0\ncall 133\ngoto out\nmeet:\n{paths}r1 = r6\nr2 = 0\ncall 132\n
             r1 = r7\nr2 = 0\ncall 132{OUT}"
        )
    };
    refused(&program(""), 27, |fault| {
        matches!(fault, Fault::Argument { argument: 1, .. })
    });
}

#[test]
fn what_is_found_in_a_map_of_maps_is_a_map() {
    let key = "*(u64 *)(r10 - 8) = 0\nr2 = r10\nr2 += -8\n";
    let inner = |test: &str, body: &str| {
        format!("{key}r1 = map[9] ll\ncall 1\n{test}r6 = r0\n{key}r1 = r6\ncall 1\n{body}{OUT}")
    };
    let found = "if r0 == 0 goto out\n";
    accepted(&inner(found, &format!("{found}*(u64 *)(r0 + 16) = 1")));
    // By the template's sizes.
    refuses!(
        inner(found, &format!("{found}*(u64 *)(r0 + 17) = 1")),
        14,
        Fault::ElementBounds {
            to: 25,
            size: 24,
            ..
        }
    );
    refuses!(
        inner(found, "*(u64 *)(r0 + 16) = 1"),
        13,
        Fault::MaybeNull(0)
    );
    refuses!(inner("", ""), 11, Fault::MaybeNull(1));
    // It is no memory, and nothing is put into the outer one.
    refuses!(
        format!("{key}r1 = map[9] ll\ncall 1\n{found}r6 = *(u64 *)(r0 + 0){OUT}"),
        7,
        Fault::NotAPointer { .. }
    );
    refuses!(
        format!("{key}r3 = r2\nr4 = 0\nr1 = map[9] ll\ncall 2{OUT}"),
        7,
        Fault::MapKind { .. }
    );
}

/// `lddw` of the address of the function at `target`, for slot `pc`.
fn address(reg: &str, pc: usize, target: usize) -> String {
    let by = target as i64 - pc as i64 - 1;
    format!("{reg} = imm64(4, {by}, 0) ll\n")
}

/// Calls the function at slot 9 with a pointer to eight zero bytes.
fn looped(rounds: &str, function: &str) -> String {
    format!(
        "*(u64 *)(r10 - 8) = 0\n{rounds}\n{}r3 = r10\nr3 += -8\nr4 = 0\ncall 181\nr0 = *(u64 *)(r10 - 8)\n
         exit\n{function}",
        address("r2", 2, 10)
    )
}

#[test]
fn a_function_is_called_any_number_of_times() {
    let count = "r3 = *(u64 *)(r2 + 0)\nr3 += 1\n*(u64 *)(r2 + 0) = r3\nr0 = 0\nexit";
    accepted(&looped("r1 = 100", count));
    accepted(&looped("r1 = *(u32 *)(r1 + 16)", count));
    // What it counted is not known to be small.
    let index = looped("r1 = 3", count).replace(
        "r0 = *(u64 *)(r10 - 8)\n",
        "r1 = *(u64 *)(r10 - 8)\nr2 = r10\nr2 += r1\nr0 = *(u8 *)(r2 - 16)\n",
    );
    let index = index.replace(&address("r2", 2, 10), &address("r2", 2, 13));
    refuses!(index, 11, Fault::OutsideFrame { .. });
    // The round is below the number of rounds.
    let packet = |rounds: i32| {
        looped(
            &format!("r1 = {rounds}"),
            "r3 = r10\nr3 += -64\nr3 += r1\n*(u8 *)(r3 + 0) = 0\nr0 = 0\nexit",
        )
    };
    accepted(&packet(64));
    refuses!(packet(65), 13, Fault::OutsideFrame { .. });
}

#[test]
fn a_function_that_is_called_back_returns_0_or_1_and_ends() {
    accepted(&looped("r1 = 9", "r0 = 1\nexit"));
    refuses!(
        looped("r1 = 9", "r0 = 2\nexit"),
        11,
        Fault::CallbackReturn { .. }
    );
    refuses!(
        looped("r1 = 9", "r0 = r10\nexit"),
        11,
        Fault::CallbackReturn { .. }
    );
    refuses!(looped("r1 = 9", "exit"), 10, Fault::CallbackReturn { .. });
    refuses!(
        looped("r1 = 9", "r0 = r3\nr0 = 0\nexit"),
        10,
        Fault::Uninitialised(3)
    );
    refuses!(
        looped("r1 = 9", "again:\nif r1 != 77 goto again\nr0 = 0\nexit"),
        10,
        Fault::Endless
    );
    // It calls itself, by its address.
    let own = format!(
        "{}r3 = 0\nr4 = 0\ncall 181\nr0 = 0\nexit",
        address("r2", 10, 10)
    );
    refused(&looped("r1 = 9", &own), 10, |fault| {
        matches!(fault, Fault::Depth)
    });
    refuses!("r1 = imm64(3, 0, 0) ll\nr0 = 2\nexit", 0, Fault::Immediate);
    refuses!(
        "r1 = 9\nr2 = 5\nr3 = 0\nr4 = 0\ncall 181\nr0 = 0\nexit",
        4,
        Fault::Argument { argument: 2, .. }
    );
}

#[test]
fn what_a_function_destroys_is_gone_after_it() {
    // A pointer on the caller's stack, overwritten by the function in some round.
    let program = |function: &str| {
        format!(
            "*(u64 *)(r10 - 8) = r1\nr1 = 5\n{}r3 = r10\nr3 += -8\nr4 = 0\ncall 181\n
             r1 = *(u64 *)(r10 - 8)\nr0 = *(u32 *)(r1 + 16)\nexit\n{function}",
            address("r2", 2, 11)
        )
    };
    accepted(&program("r0 = 0\nexit"));
    refused(&program("*(u64 *)(r2 + 0) = 0\nr0 = 0\nexit"), 9, |fault| {
        matches!(fault, Fault::Invalid(1))
    });
    // A record that is made in each round and given back in none.
    let leak = "r1 = map[10] ll\nr2 = 8\nr3 = 0\ncall 131\nr0 = 0\nexit";
    refused(&looped("r1 = 9", leak), 9, |fault| {
        matches!(fault, Fault::Lost)
    });
    // One that the first round would give back, and the second one again.
    let give = format!(
        "{RESERVE}if r0 == 0 goto out\n*(u64 *)(r10 - 8) = r0\nr1 = 2\n{}r3 = r10\nr3 += -8\nr4 = 0\n
         call 181{OUT}\nr1 = *(u64 *)(r2 + 0)\nr2 = 0\ncall 132\nr0 = 0\nexit",
        address("r2", 9, 17)
    );
    refused(&give, 19, |fault| {
        matches!(fault, Fault::Argument { argument: 1, .. })
    });
}

#[test]
fn a_function_sees_each_element_of_a_map() {
    let each = |map: usize, function: &str| {
        format!(
            "r1 = map[{map}] ll\n{}r3 = 0\nr4 = 0\ncall 164\nr0 = 0\nexit\n{function}",
            address("r2", 2, 9)
        )
    };
    accepted(&each(
        0,
        "r0 = *(u32 *)(r2 + 0)\n*(u64 *)(r3 + 8) = r0\nr0 = 0\nexit",
    ));
    refuses!(
        each(0, "r0 = *(u64 *)(r2 + 0)\nr0 = 0\nexit"),
        9,
        Fault::MemoryBounds { size: 4, .. }
    );
    refuses!(
        each(0, "*(u32 *)(r2 + 0) = 1\nr0 = 0\nexit"),
        9,
        Fault::ReadOnlyMemory
    );
    refuses!(
        each(0, "*(u64 *)(r3 + 9) = 1\nr0 = 0\nexit"),
        9,
        Fault::ElementBounds { size: 16, .. }
    );
    refuses!(each(6, "r0 = 0\nexit"), 6, Fault::MapKind { .. });
}

#[test]
fn sizes_are_bounded_and_not_0_where_something_must_be_there() {
    let printk = |size: &str| {
        format!(
            "r6 = *(u32 *)(r1 + 16)\n*(u64 *)(r10 - 8) = 0\nr1 = r10\nr1 += -8\n{size}\ncall 6\nr0 = 2\nexit"
        )
    };
    accepted(&printk("r2 = 8"));
    accepted(&printk("r2 = r6\nr2 &= 7\nr2 += 1"));
    refuses!(printk("r2 = 0"), 5, Fault::Argument { argument: 2, .. });
    refuses!(
        printk("r2 = r6\nr2 &= 7"),
        6,
        Fault::Argument { argument: 2, .. }
    );
    refuses!(printk("r2 = 9"), 5, Fault::OutsideFrame { .. });
    // What `...` passes is a number, if anything.
    accepted(&printk("r2 = 8\nr3 = r6"));
    refuses!(
        printk("r2 = 8\nr3 = r10"),
        6,
        Fault::Argument { argument: 3, .. }
    );
    // Pointers of different kinds: the paths that come with them are joined, and what is left is neither.
    let joined = |one: &str, other: &str| {
        format!(
            "r6 = *(u32 *)(r1 + 12)\nr7 = r1\n{one}\nif r6 == 1 goto print\nr3 = 5\nr7 = r10
             if r6 == 2 goto print\nr7 = r1\n{other}
             print:\n*(u64 *)(r10 - 8) = 0\nr1 = r10\nr1 += -8\nr2 = 8\ncall 6\nif r7 == 0 goto out{OUT}"
        )
    };
    accepted(&joined("r3 = 7", "r3 = r6"));
    refuses!(
        joined("r3 = r10", "r3 = map[0] ll"),
        14,
        Fault::Argument { argument: 3, .. }
    );
    // Nothing on one of them.
    refuses!(
        joined("r2 = 0", "r3 = map[0] ll"),
        14,
        Fault::Uninitialised(3) | Fault::Argument { argument: 3, .. }
    );
    // Nothing at all, on some path or on all, is passed as 0.
    accepted(&joined("r2 = 0", "r3 = 1"));

    // Bytes that a helper writes are written in full, up to the smallest size.
    let load = |size: &str, read: &str| {
        format!(
            "r6 = r1\nr2 = 0\nr3 = r10\nr3 += -16\n{size}\ncall 189\nr0 = *(u64 *)(r10 {read})\nexit"
        )
    };
    accepted(&load("r4 = 16", "- 8"));
    refuses!(load("r4 = 8", "- 8"), 6, Fault::UninitialisedStack { .. });
    accepted(&load("r4 = *(u32 *)(r6 + 16)\nr4 &= 7\nr4 += 8", "- 16"));
    refuses!(
        load("r4 = *(u32 *)(r6 + 16)\nr4 &= 7\nr4 += 8", "- 8"),
        8,
        Fault::UninitialisedStack { .. }
    );
    refuses!(load("r4 = 17", "- 8"), 5, Fault::OutsideFrame { .. });
    // What is read and written must be there before.
    let fib = |store: &str| {
        format!("{store}r2 = r10\nr2 += -8\nr3 = 8\nr4 = 0\ncall 69\nr0 = *(u64 *)(r10 - 8)\nexit")
    };
    accepted(&fib("*(u64 *)(r10 - 8) = 0\n"));
    refuses!(fib(""), 4, Fault::UninitialisedStack { .. });
}

#[test]
fn text_ends_in_a_map_that_nobody_writes() {
    let compare = |text: &str| {
        format!("*(u64 *)(r10 - 8) = 0\nr1 = r10\nr1 += -8\nr2 = 8\n{text}\ncall 182\nr0 = 2\nexit")
    };
    accepted(&compare("r3 = value(map[12]) + 5 ll"));
    refuses!(
        compare("r3 = value(map[12]) + 10 ll"),
        6,
        Fault::Argument { argument: 3, .. }
    );
    refuses!(
        compare("r3 = value(map[8]) + 0 ll"),
        6,
        Fault::Argument { argument: 3, .. }
    );
    refuses!(compare("r3 = r1"), 5, Fault::Argument { argument: 3, .. });
}

#[test]
fn the_low_half_of_a_distance_is_a_number() {
    let program = |op: &str| {
        format!(
            "r2 = *(u32 *)(r1 + 0)\nr3 = *(u32 *)(r1 + 4)\nr4 = r2\nr4 += 14\nif r4 > r3 goto out\n{op}{OUT}"
        )
    };
    accepted(&program("w4 -= w2\nr2 += r4\nr0 = *(u8 *)(r2 - 1)"));
    refuses!(
        program("w4 -= w2\nr2 += r4\nr0 = *(u8 *)(r2 + 0)"),
        7,
        Fault::PacketEnd { .. }
    );
    refuses!(program("w4 += w2"), 5, Fault::Arithmetic { .. });
    refuses!(program("w4 -= w1"), 5, Fault::Arithmetic { .. });
}
