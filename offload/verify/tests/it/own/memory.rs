//! Memory: packet, map values, stack, and the numbers that lead into them.

use dash_verify::Fault;

use super::{ANY, OUT, accepted, lookup, packet, refused};

#[test]
fn the_packet_is_read_where_every_comparison_says_it_is() {
    // Condition, operands, and whether r4 = data + 14 lies at or before the end where it is taken
    // (or not), and whether one byte more is there.
    let goes_on_taken = [
        ("r4 <= r3", 14),
        ("r4 < r3", 15),
        ("r3 >= r4", 14),
        ("r3 > r4", 15),
        ("r4 == r3", 14),
    ];
    for (condition, bytes) in goes_on_taken {
        let program = |access: i32| {
            packet(
                &format!("r4 = r2\nr4 += 14\nif {condition} goto there\ngoto out\nthere:"),
                &format!("r0 = *(u8 *)(r2 + {access})"),
            )
        };
        accepted(&program(bytes - 1));
        refuses!(program(bytes), 6, Fault::PacketEnd { .. });
    }
    let goes_on_not_taken = [
        ("r4 > r3", 14),
        ("r4 >= r3", 15),
        ("r3 < r4", 14),
        ("r3 <= r4", 15),
        ("r4 != r3", 14),
    ];
    for (condition, bytes) in goes_on_not_taken {
        let program = |access: i32| {
            packet(
                &format!("r4 = r2\nr4 += 14\nif {condition} goto out"),
                &format!("r0 = *(u8 *)(r2 + {access})"),
            )
        };
        accepted(&program(bytes - 1));
        refuses!(program(bytes), 5, Fault::PacketEnd { .. });
    }
    // The other way round nothing is known.
    for condition in ["r4 > r3", "r4 >= r3", "r3 < r4", "r3 <= r4", "r4 != r3"] {
        let check = format!("r4 = r2\nr4 += 14\nif {condition} goto there\ngoto out\nthere:");
        refuses!(
            packet(&check, "r0 = *(u8 *)(r2 + 0)"),
            6,
            Fault::PacketEnd { .. }
        );
    }
    refuses!(
        packet(
            "w4 = 14\nr4 += r2\nif w4 > w3 goto out",
            "r0 = *(u8 *)(r2 + 0)"
        ),
        4,
        Fault::Comparison { .. }
    );
}

#[test]
fn a_variable_packet_offset_is_bounded_below_and_above() {
    let indexed = |mask: &str, check: &str, access: &str| {
        packet(
            &format!(
                "r4 = r2\nr4 += 64\nif r4 > r3 goto out\nr5 = *(u8 *)(r2 + 0)\n{mask}\nr4 = r2\nr4 += r5\n{check}"
            ),
            access,
        )
    };
    // Linux refuses this one: 64 bytes are there, and 31 + 28 + 4 stay inside them.
    accepted(&indexed("r5 &= 31", "", "r0 = *(u32 *)(r4 + 28)"));
    refuses!(
        indexed("r5 &= 31", "", "r0 = *(u32 *)(r4 + 30)"),
        9,
        Fault::PacketEnd { .. }
    );
    // Checked again behind the variable part.
    let check = "r1 = r4\nr1 += 100\nif r1 > r3 goto out";
    accepted(&indexed("r5 &= 255", check, "r0 = *(u8 *)(r4 + 99)"));
    refuses!(
        indexed("r5 &= 255", check, "r0 = *(u8 *)(r4 + 100)"),
        12,
        Fault::PacketEnd { .. }
    );
    // Before the start.
    accepted(&indexed("r5 &= 31\nr5 += 4", "", "r0 = *(u8 *)(r4 - 4)"));
    refuses!(
        indexed("r5 &= 31", "", "r0 = *(u8 *)(r4 - 4)"),
        9,
        Fault::PacketStart { before: 4, .. }
    );
    refuses!(
        indexed("r5 = -r5", check, "r0 = *(u8 *)(r4 + 0)"),
        12,
        Fault::PacketStart { .. }
    );
    // So large an offset that the sum could wrap proves nothing.
    refuses!(
        indexed("r5 <<= 40", check, "r0 = *(u8 *)(r4 + 0)"),
        12,
        Fault::PacketEnd { .. }
    );
}

#[test]
fn copies_made_before_a_check_know_it_and_others_do_not() {
    let program = |base: &str| {
        packet(&format!("r5 = *(u8 *)(r1 + 16)\n{base}"), "").replace(
            "r5 = *(u8 *)(r1 + 16)",
            "r5 = *(u32 *)(r1 + 16)\nr5 &= 255\nr6 = *(u32 *)(r1 + 12)\nr6 &= 255",
        )
    };
    accepted(&program(
        "r4 = r2\nr4 += r5\nr7 = r4\n*(u64 *)(r10 - 8) = r4\nr4 += 8\nif r4 > r3 goto out
         r0 = *(u64 *)(r7 + 0)\nr8 = *(u64 *)(r10 - 8)\nr0 = *(u64 *)(r8 + 0)",
    ));
    // The same start, another unknown offset.
    refuses!(
        program(
            "r4 = r2\nr4 += r5\nr7 = r2\nr7 += r6\nr4 += 8\nif r4 > r3 goto out\nr0 = *(u64 *)(r7 + 0)"
        ),
        12,
        Fault::PacketEnd { .. }
    );
}

#[test]
fn metadata_ends_where_the_packet_starts() {
    let program = |check: &str, access: &str| {
        format!(
            "r2 = *(u32 *)(r1 + 8)\nr3 = *(u32 *)(r1 + 0)\nr4 = r2\nr4 += 8\n{check}\n{access}{OUT}"
        )
    };
    accepted(&program("if r4 > r3 goto out", "r0 = *(u64 *)(r2 + 0)"));
    refuses!(
        program("if r4 > r3 goto out", "r0 = *(u64 *)(r2 + 1)"),
        5,
        Fault::PacketEnd { .. }
    );
    refuses!(
        program("r3 += 1\nif r4 > r3 goto out", "r0 = *(u64 *)(r2 + 0)"),
        6,
        Fault::PacketEnd { .. }
    );
    refuses!(
        program("if r4 > r3 goto out", "r0 = *(u8 *)(r3 + 0)"),
        5,
        Fault::PacketEnd { .. }
    );
}

#[test]
fn pointers_into_the_packet_die_in_every_place_when_it_moves() {
    let program = |after: &str| {
        format!(
            "r6 = r1\nr7 = *(u32 *)(r6 + 0)\nr8 = *(u32 *)(r6 + 4)\n*(u64 *)(r10 - 8) = r7
             r2 = r7\nr2 += 14\nif r2 > r8 goto out\nr1 = r6\nr2 = -4\ncall 44\n{after}{OUT}"
        )
    };
    accepted(&program("*(u64 *)(r10 - 8) = 0\nr0 = *(u64 *)(r10 - 8)"));
    refuses!(program("r0 = *(u8 *)(r7 + 0)"), 10, Fault::Invalid(7));
    refuses!(
        program("r1 = *(u64 *)(r10 - 8)\nr0 = *(u8 *)(r1 + 0)"),
        11,
        Fault::Invalid(1)
    );
    // What was proven is not true of the new packet.
    refuses!(
        program("r7 = *(u32 *)(r6 + 0)\nr0 = *(u8 *)(r7 + 0)"),
        11,
        Fault::PacketEnd { .. }
    );
    // In the frame of a caller.
    refuses!(
        "r6 = r1\nr7 = *(u32 *)(r6 + 0)\nr8 = *(u32 *)(r6 + 4)\nr2 = r7\nr2 += 14\nif r2 > r8 goto out
         call f\nr0 = *(u8 *)(r7 + 0)\nout:\nr0 = 2\nexit\nf:\nr2 = -4\ncall 44\nr0 = 0\nexit",
        7,
        Fault::Invalid(7)
    );
}

#[test]
fn what_a_call_made_invalid_can_be_copied_and_no_more() {
    // r7, and 8 bytes of the stack, were pointers into the packet; the element of a map is in r0.
    let program = |after: &str| {
        format!(
            "r6 = r1\nr7 = *(u32 *)(r6 + 0)\n*(u64 *)(r10 - 8) = r7\nr2 = -4\ncall 44
             *(u32 *)(r10 - 12) = 0\nr2 = r10\nr2 += -12\nr1 = map[0] ll\ncall 1
             if r0 == 0 goto out\n{after}{OUT}"
        )
    };
    accepted(&program("r8 = r7\nr9 = *(u64 *)(r10 - 8)"));
    accepted(&program("*(u64 *)(r10 - 24) = r7\nr7 = *(u64 *)(r10 - 24)"));
    for (use_of_it, pc) in [
        ("r8 = *(u8 *)(r7 + 0)", 12),
        ("*(u8 *)(r7 + 0) = 1", 12),
        ("r8 = r7\n*(u8 *)(r8 + 0) = 1", 13),
        ("r8 = *(u64 *)(r10 - 8)\nr8 = *(u8 *)(r8 + 0)", 13),
    ] {
        refuses!(program(use_of_it), pc, Fault::Invalid(_));
    }
    refuses!(program("*(u64 *)(r0 + 0) = r7"), 12, Fault::Leak);
    refuses!(
        program("r8 = *(u64 *)(r10 - 8)\n*(u64 *)(r0 + 0) = r8"),
        13,
        Fault::Leak
    );
    refuses!(
        program("r8 = *(u32 *)(r10 - 8)"),
        12,
        Fault::PartOfPointer { .. }
    );
    refuses!(program("*(u32 *)(r10 - 24) = r7"), 12, Fault::Spill);
    for use_of_it in ["w8 = w7", "r7 += 1", "r0 = 5\nr0 += r7", "r7 = -r7"] {
        let at = 12 + use_of_it.matches('\n').count();
        refuses!(program(use_of_it), at, Fault::Arithmetic { .. });
    }
    for test in ["r7 == 0", "r7 == r10", "r7 > r6", "w7 == 0", "r0 != r7"] {
        refuses!(
            program(&format!("if {test} goto out\nr0 = 1")),
            12,
            Fault::Comparison { .. }
        );
    }
    refuses!(
        program("r1 = r7\nr2 = r10\nr2 += -12\ncall 1"),
        15,
        Fault::Argument { argument: 1, .. }
    );
    refuses!(
        program("r1 = r10\nr1 += -12\nr2 = 4\nr3 = r7\ncall 6"),
        16,
        Fault::Argument { argument: 3, .. }
    );
    refuses!(program("r0 = r7\nexit"), 13, Fault::Return { .. });
    // A function's pointer into its own frame, once it has returned.
    let returned = |after: &str| {
        format!(
            "call f\n{after}\nr0 = 2\nexit\nf:\n*(u64 *)(r10 - 8) = 1\nr0 = r10\nr0 += -8\nexit"
        )
    };
    accepted(&returned("r6 = r0"));
    refuses!(returned("r6 = *(u64 *)(r0 + 0)"), 1, Fault::Invalid(0));
}

#[test]
fn a_lookup_is_compared_with_null_before_it_is_used() {
    let program = |test: &str| {
        format!(
            "*(u64 *)(r10 - 8) = 0\nr2 = r10\nr2 += -8\nr1 = map[0] ll\ncall 1\nr6 = r0\n{test}
             r3 = *(u64 *)(r6 + 8){OUT}"
        )
    };
    for test in [
        "if r0 == 0 goto out",
        "if r6 == 0 goto out",
        "r1 = 0\nif r0 == r1 goto out",
    ] {
        accepted(&program(test));
    }
    refuses!(program(""), 7, Fault::MaybeNull(6));
    refuses!(
        program("if r0 != 0 goto out"),
        8,
        Fault::NotAPointer { reg: 6, .. }
    );
    refuses!(program("r6 += 4"), 7, Fault::MaybeNull(6));
    refuses!(
        program("if r0 > 0 goto out"),
        8,
        Fault::NotAPointer { reg: 6, .. }
    );
    // Another look-up's test says nothing of this one.
    refuses!(
        program("r2 = r10\nr2 += -8\nr1 = map[0] ll\ncall 1\nif r0 == 0 goto out"),
        13,
        Fault::MaybeNull(6)
    );
}

#[test]
fn map_values_are_used_inside_their_size() {
    let indexed = |bound: &str, access: &str| {
        format!(
            "{}r3 = *(u32 *)(r0 + 0)\n{bound}\nr4 = r0\nr4 += r3\n{access}{OUT}",
            lookup(1)
        )
    };
    accepted(&indexed("r3 &= 63", "r5 = *(u8 *)(r4 + 0)"));
    refuses!(
        indexed("r3 &= 63", "r5 = *(u16 *)(r4 + 0)"),
        11,
        Fault::ElementBounds {
            from: 0,
            to: 65,
            size: 64,
            ..
        }
    );
    accepted(&indexed("if r3 > 56 goto out", "r5 = *(u64 *)(r4 + 0)"));
    refuses!(
        indexed("if r3 > 57 goto out", "r5 = *(u64 *)(r4 + 0)"),
        11,
        Fault::ElementBounds { .. }
    );
    accepted(&indexed(
        "if w3 s> 56 goto out\nif w3 s< 0 goto out",
        "r5 = *(u64 *)(r4 + 0)",
    ));
    refuses!(
        indexed("if r3 s> 56 goto out\nr3 -= 1", "r5 = *(u64 *)(r4 + 0)"),
        12,
        Fault::ElementBounds { from: -1, .. }
    );
    accepted(&indexed("r3 *= 3\nr3 %= 64", "*(u8 *)(r4 + 0) = 1"));
    accepted(&indexed("w3 <<= 26\nw3 >>= 26", "*(u8 *)(r4 + 0) = 1"));
    refuses!(
        indexed("w3 <<= 25\nw3 >>= 25", "*(u8 *)(r4 + 0) = 1"),
        12,
        Fault::ElementBounds { .. }
    );
}

#[test]
fn what_is_learnt_of_a_number_is_learnt_of_its_copies() {
    let program = |bound: &str| {
        format!(
            "{}r6 = *(u32 *)(r0 + 0)\n{bound}\nr0 += r6\nr5 = *(u8 *)(r0 + 0){OUT}",
            lookup(1)
        )
    };
    accepted(&program("r7 = r6\nif r7 > 63 goto out"));
    accepted(&program(
        "*(u64 *)(r10 - 16) = r6\nif r6 > 63 goto out\nr6 = *(u64 *)(r10 - 16)",
    ));
    accepted(&program(
        "*(u64 *)(r10 - 16) = r6\nr6 = *(u64 *)(r10 - 16)\nr3 = r6\nif r3 > 63 goto out",
    ));
    accepted(&program("w7 = w6\nif w7 > 63 goto out"));
    // Changed after the copy was made.
    refuses!(
        program("r7 = r6\nr7 += 1\nif r7 > 63 goto out"),
        12,
        Fault::ElementBounds { .. }
    );
    refuses!(
        program(
            "*(u64 *)(r10 - 16) = r6\n*(u8 *)(r10 - 16) = 1\nif r6 > 63 goto out\nr6 = *(u64 *)(r10 - 16)"
        ),
        13,
        Fault::ElementBounds { .. }
    );
    refuses!(
        program("r7 = r6\nif r6 > 63 goto out\nr7 <<= 1\nr6 = r7\nr6 += 2"),
        14,
        Fault::ElementBounds { .. }
    );
}

#[test]
fn thirty_two_bit_operations_clear_the_upper_half() {
    // A signed 8-bit number through w: 0..=255 after the mask only.
    let program = |ops: &str| {
        format!(
            "{}r3 = *(u64 *)(r0 + 0)\n{ops}\nr0 += r3\nr5 = *(u8 *)(r0 + 0){OUT}",
            lookup(2)
        )
    };
    accepted(&program("w3 = (s8)w3\nw3 &= 255"));
    refuses!(
        program("r3 = (s8)r3"),
        10,
        Fault::ElementBounds { from: -128, .. }
    );
    refuses!(program("w3 = (s8)w3"), 10, Fault::ElementBounds { .. });
    // A 32-bit comparison bounds the low half only.
    refuses!(
        program("if w3 > 255 goto out"),
        10,
        Fault::ElementBounds { .. }
    );
    accepted(&program("if w3 > 255 goto out\nw3 = w3"));
}

#[test]
fn the_stack_is_used_inside_the_frame_and_read_where_it_was_written() {
    accepted("*(u64 *)(r10 - 512) = 1\nr0 = *(u64 *)(r10 - 512)\nexit");
    refuses!(
        "*(u8 *)(r10 - 513) = 1\nr0 = 0\nexit",
        0,
        Fault::OutsideFrame {
            from: -513,
            to: -512
        }
    );
    refuses!(
        "*(u16 *)(r10 - 1) = 1\nr0 = 0\nexit",
        0,
        Fault::OutsideFrame { from: -1, to: 1 }
    );
    accepted("*(u32 *)(r10 - 8) = 1\n*(u32 *)(r10 - 4) = 2\nr0 = *(u64 *)(r10 - 8)\nexit");
    refuses!(
        "*(u32 *)(r10 - 8) = 1\nr0 = *(u64 *)(r10 - 8)\nexit",
        1,
        Fault::UninitialisedStack { .. }
    );
    let variable = |ops: &str| format!("{ANY}{ops}\nr0 = 2\nexit");
    let fill = "*(u64 *)(r10 - 16) = 0\n*(u64 *)(r10 - 8) = 0\n";
    accepted(&variable(&format!(
        "{fill}r6 &= 15\nr2 = r10\nr2 += -16\nr2 += r6\nr0 = *(u8 *)(r2 + 0)"
    )));
    refuses!(
        variable(
            "*(u64 *)(r10 - 16) = 0\nr6 &= 15\nr2 = r10\nr2 += -16\nr2 += r6\nr0 = *(u8 *)(r2 + 0)"
        ),
        7,
        Fault::UninitialisedStack { from: -16, to: 0 }
    );
    refuses!(
        variable(&format!(
            "{fill}r6 &= 15\nr2 = r10\nr2 += -16\nr2 += r6\nr0 = *(u16 *)(r2 + 0)"
        )),
        8,
        Fault::OutsideFrame { .. }
    );
}

#[test]
fn a_spilled_pointer_is_whole_or_gone() {
    accepted("*(u64 *)(r10 - 8) = r1\nr2 = *(u64 *)(r10 - 8)\nr0 = *(u32 *)(r2 + 16)\nexit");
    refuses!("*(u64 *)(r10 - 12) = r1\nr0 = 0\nexit", 0, Fault::Spill);
    refuses!("*(u32 *)(r10 - 8) = r1\nr0 = 0\nexit", 0, Fault::Spill);
    refuses!(
        "*(u64 *)(r10 - 8) = r1\nr0 = *(u32 *)(r10 - 8)\nexit",
        1,
        Fault::PartOfPointer { .. }
    );
    // Overwritten in part, whatever the width, by a helper, at an unknown place.
    refuses!(
        "*(u64 *)(r10 - 8) = r1\n*(u8 *)(r10 - 1) = 0\nr0 = *(u64 *)(r10 - 8)\nexit",
        2,
        Fault::UninitialisedStack { .. }
    );
    refuses!(
        "*(u64 *)(r10 - 8) = r1\n*(u8 *)(r10 - 1) = 0\nr0 = *(u32 *)(r10 - 8)\nexit",
        2,
        Fault::UninitialisedStack { .. }
    );
    accepted("*(u64 *)(r10 - 8) = r1\n*(u64 *)(r10 - 8) = 0\nr0 = *(u64 *)(r10 - 8)\nexit");
    refuses!(
        "*(u64 *)(r10 - 24) = r1\nr2 = r10\nr2 += -24\nr1 = map[5] ll\ncall 88\nr1 = *(u64 *)(r10 - 24)
         r0 = *(u32 *)(r1 + 16)\nexit",
        7,
        Fault::NotAPointer { .. }
    );
    let wild = format!(
        "{ANY}*(u64 *)(r10 - 8) = r7\n*(u64 *)(r10 - 16) = 0\nr6 &= 8\nr2 = r10\nr2 += -16\nr2 += r6
         *(u64 *)(r2 + 0) = 5\nr0 = *(u64 *)(r10 - 8)\nexit"
    );
    refuses!(wild, 9, Fault::UninitialisedStack { .. });
    refuses!(
        "*(u64 *)(r10 - 8) = r1\nr2 = 1\nlock *(u64 *)(r10 - 8) += r2\nr0 = 2\nexit",
        2,
        Fault::PartOfPointer { .. }
    );
}
