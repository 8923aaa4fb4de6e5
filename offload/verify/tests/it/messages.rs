//! What a refusal says: which instruction, what is wrong and what would be needed, and what was known there.

use dash_verify::{Options, Verifier};

use crate::support::object;

/// Refused at this slot, with these words, in this order.
#[track_caller]
fn says(text: &str, pc: usize, words: &[&str]) {
    let refused = Verifier::new(Options::default()).verify(&object("asked", text));
    let said = refused.expect_err(text).to_string();
    let at = format!("program 0 (asked), instruction {pc}: ");
    let mut rest = said.strip_prefix(&at).unwrap_or_else(|| panic!("{said}"));
    for word in words {
        let found = rest
            .find(word)
            .unwrap_or_else(|| panic!("{word:?} is not in {rest:?} of: {said}"));
        rest = &rest[found + word.len()..];
    }
}

#[test]
fn of_the_packet_it_says_how_much_is_proven() {
    let head = "r2 = *(u32 *)(r1 + 0)\nr3 = *(u32 *)(r1 + 4)\n";
    let unchecked = format!("{head}r0 = *(u16 *)(r2 + 12)\nexit");
    says(
        &unchecked,
        2,
        &[
            "r2: access ends 14 bytes",
            "of which 0 are proven",
            "compare with data_end first",
            "known there:",
            "r2=packet",
        ],
    );
    let short = format!(
        "{head}r4 = r2\nr4 += 14\nr0 = 1\nif r4 > r3 goto out\nr0 = *(u32 *)(r2 + 12)\nout:\nexit"
    );
    says(
        &short,
        6,
        &["ends 16 bytes", "of which 14 are proven", "known there:"],
    );
    let behind = format!("{head}r0 = *(u8 *)(r2 - 1)\nexit");
    says(
        &behind,
        2,
        &[
            "r2: access may start 1 bytes before the packet's part",
            "known there:",
        ],
    );
}

#[test]
fn of_maps_it_says_what_to_compare_and_to_bound() {
    let lookup = "*(u32 *)(r10 - 4) = 1\nr1 = map[1] ll\nr2 = r10\nr2 += -4\ncall 1\n";
    let unchecked = format!("{lookup}r0 = *(u64 *)(r0 + 0)\nexit");
    says(
        &unchecked,
        6,
        &[
            "r0 may be null: compare it with 0 first",
            "known there:",
            "r0=",
        ],
    );
    let beyond =
        format!("{lookup}if r0 == 0 goto out\nr0 = *(u64 *)(r0 + 60)\nexit\nout:\nr0 = 0\nexit");
    says(
        &beyond,
        7,
        &["r0: access to bytes [60, 68) of a map value of 64: bound the offset"],
    );
}

#[test]
fn of_the_stack_it_says_which_bytes() {
    let unwritten = "r0 = *(u64 *)(r10 - 8)\nexit";
    says(
        unwritten,
        0,
        &["stack bytes [-8, 0) may be uninitialised: write them first"],
    );
    let outside = "*(u64 *)(r10 - 520) = 1\nr0 = 0\nexit";
    says(
        outside,
        0,
        &["bytes [-520, -512) are outside the stack frame [-512, 0)"],
    );
    let key = "r1 = map[0] ll\nr2 = r10\nr2 += -8\ncall 1\nr0 = 0\nexit";
    says(
        key,
        4,
        &["stack bytes [-8, -4) may be uninitialised: write them first"],
    );
}

#[test]
fn of_helpers_it_says_which_argument() {
    let number = "r1 = map[0] ll\nr2 = 5\ncall 1\nr0 = 0\nexit";
    says(
        number,
        3,
        &["helper map_lookup_elem: argument 2 is number(5), not memory that can be read"],
    );
    let kind = "r1 = map[5] ll\nr2 = r10\nr2 += -8\n*(u64 *)(r10 - 8) = 0\ncall 1\nr0 = 0\nexit";
    says(
        kind,
        5,
        &["helper map_lookup_elem: map of kind Queue is not allowed"],
    );
    says(
        "call 84\nr0 = 0\nexit",
        0,
        &["no helper 84 (sk_lookup_tcp) for programs here"],
    );
}

#[test]
fn of_the_rest_it_says_what_would_be_needed() {
    says(
        "r0 = r6\nexit",
        0,
        &["r6 may hold nothing that can be read", "not written"],
    );
    says(
        "again:\ngoto again",
        0,
        &["this loop is not proven to end: its head is reached again with nothing changed"],
    );
    let leak = "r2 = *(u32 *)(r1 + 0)\nr3 = *(u32 *)(r1 + 4)\nr4 = r2\nr4 += 8\nr0 = 1\n\
                if r4 > r3 goto out\n*(u64 *)(r2 + 0) = r10\nout:\nexit";
    says(
        leak,
        6,
        &["an address would leave the program: pointers are stored on the stack only"],
    );
    let reserve = "r1 = map[10] ll\nr2 = 16\nr3 = 0\ncall 131\nr0 = 0\nexit";
    says(
        reserve,
        6,
        &[
            "record#",
            "of a ring buffer is not given back on this path: submit or discard it first",
        ],
    );
}
