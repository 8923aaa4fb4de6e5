//! Programs that are safe and must be accepted: the shapes the pipeline generates.

use crate::support::{own, verify};

#[track_caller]
fn accept(name: &str, text: &str) {
    if let Err(e) = verify(name, text) {
        panic!("{e}\n{text}");
    }
    if let Err(e) = own(name, text) {
        panic!("{name}: ours refuses {}: {e}\n{text}", e.pc);
    }
}

/// r6 = ctx, r7 = data, r8 = data_end, at least `bytes` bytes checked.
fn packet(bytes: u32, body: &str) -> String {
    format!(
        "r6 = r1
         r7 = *(u32 *)(r6 + 0)
         r8 = *(u32 *)(r6 + 4)
         r2 = r7
         r2 += {bytes}
         if r2 > r8 goto out
         {body}
       out:
         r0 = 2
         exit"
    )
}

/// A map value for the key in `w2`, or out.
fn lookup(map: u32) -> String {
    format!(
        "*(u32 *)(r10 - 4) = r2
         r2 = r10
         r2 += -4
         r1 = map[{map}] ll
         call 1
         if r0 == 0 goto out"
    )
}

#[test]
fn packet_loads_at_constant_offsets_after_one_check() {
    accept(
        "constant offsets",
        &packet(
            54,
            "r3 = *(u16 *)(r7 + 12)\nr3 = be16 r3\nr4 = *(u64 *)(r7 + 46)",
        ),
    );
}

#[test]
fn packet_load_at_a_masked_variable_offset() {
    // IPv4 header length from the packet, then a second check for what lies behind it.
    accept(
        "variable offset",
        &packet(
            34,
            "r3 = *(u8 *)(r7 + 14)
             r3 &= 15
             r3 <<= 2
             r4 = r7
             r4 += 14
             r4 += r3
             r5 = r4
             r5 += 8
             if r5 > r8 goto out
             r3 = *(u16 *)(r4 + 2)",
        ),
    );
}

#[test]
fn lookups_with_keys_on_the_stack_in_map_values_and_in_packets() {
    accept(
        "stack key",
        &packet(14, &format!("r2 = *(u32 *)(r7 + 0)\n{}", lookup(0))),
    );
    accept(
        "key in a map value",
        &packet(
            14,
            &format!(
                "r2 = 0\n{}\nr9 = r0\nr2 = r9\nr2 += 8\nr1 = map[0] ll\ncall 1
                 if r0 == 0 goto out\nr3 = *(u64 *)(r0 + 8)",
                lookup(2)
            ),
        ),
    );
    accept(
        "key in the packet",
        &packet(
            34,
            "r2 = r7\nr2 += 26\nr1 = map[0] ll\ncall 1\nif r0 == 0 goto out\nr3 = *(u8 *)(r0 + 0)",
        ),
    );
}

#[test]
fn lookups_in_every_kind_of_table() {
    accept(
        "array",
        &packet(14, &format!("r2 = *(u8 *)(r7 + 0)\n{}", lookup(1))),
    );
    accept(
        "per-CPU array",
        &packet(14, &format!("r2 = 0\n{}", lookup(2))),
    );
    accept(
        "LPM and ACL with keys in per-CPU metadata",
        &packet(
            14,
            &format!(
                "r2 = 0\n{}\nr9 = r0
                 *(u32 *)(r9 + 0) = 32
                 r1 = map[3] ll\nr2 = r9\ncall 1
                 if r0 == 0 goto out
                 r3 = *(u64 *)(r0 + 0)
                 r1 = map[4] ll\nr2 = r9\nr2 += 40\ncall 1
                 if r0 == 0 goto out
                 r3 = *(u32 *)(r0 + 4)",
                lookup(2)
            ),
        ),
    );
    accept(
        "address of a value",
        &packet(14, "r3 = value(map[8]) + 8 ll\nr4 = *(u64 *)(r3 + 16)"),
    );
}

#[test]
fn metadata_indexed_by_a_masked_number() {
    accept(
        "variable offset in a value",
        &packet(
            14,
            &format!(
                "r2 = 0\n{}\nr9 = r0
                 r3 = *(u32 *)(r9 + 0)
                 r3 &= 15
                 r3 <<= 3
                 r9 += r3
                 r4 = 1
                 lock *(u64 *)(r9 + 8) += r4",
                lookup(2)
            ),
        ),
    );
}

#[test]
fn update_delete_push_pop() {
    let key = "*(u32 *)(r10 - 4) = 7\nr2 = r10\nr2 += -4\nr1 = map[0] ll";
    let value = "*(u64 *)(r10 - 24) = 1\n*(u64 *)(r10 - 16) = 2\nr3 = r10\nr3 += -24";
    accept(
        "update",
        &packet(14, &format!("{key}\n{value}\nr4 = 0\ncall 2")),
    );
    accept("delete", &packet(14, &format!("{key}\ncall 3")));
    accept(
        "push",
        &packet(
            14,
            "*(u64 *)(r10 - 24) = 1\n*(u64 *)(r10 - 16) = 2\n*(u64 *)(r10 - 8) = 2
             r2 = r10\nr2 += -24\nr1 = map[5] ll\nr3 = 0\ncall 87",
        ),
    );
    accept(
        "pop into uninitialised stack, then read it",
        &packet(
            14,
            "r2 = r10\nr2 += -24\nr1 = map[5] ll\ncall 88
             if r0 != 0 goto out\nr3 = *(u64 *)(r10 - 24)\nr4 = *(u8 *)(r10 - 1)",
        ),
    );
}

#[test]
fn moving_the_packet_and_reading_it_again() {
    for delta in ["r2 = -50", "r2 = *(u8 *)(r7 + 0)\nr2 &= 63\nr2 = -r2"] {
        accept(
            "adjust_head",
            &packet(
                14,
                &format!(
                    "{delta}\nr1 = r6\ncall 44\nif r0 != 0 goto out
                     r7 = *(u32 *)(r6 + 0)\nr8 = *(u32 *)(r6 + 4)
                     r2 = r7\nr2 += 64\nif r2 > r8 goto out
                     *(u64 *)(r7 + 56) = 0"
                ),
            ),
        );
    }
    accept(
        "adjust_tail",
        &packet(14, "r1 = r6\nr2 = -4\ncall 65\nif r0 != 0 goto out"),
    );
    accept(
        "adjust_meta",
        &packet(14, "r1 = r6\nr2 = -8\ncall 54\nif r0 != 0 goto out"),
    );
}

#[test]
fn tail_call_redirects_and_numbers() {
    accept("tail call", "r2 = map[6] ll\nr3 = 1\ncall 12\nr0 = 0\nexit");
    accept("redirect", "r1 = 3\nr2 = 0\ncall 23\nexit");
    accept(
        "redirect_map",
        "r1 = map[7] ll\nr2 = 3\nr3 = 2\ncall 51\nexit",
    );
    accept("numbers", "call 5\ncall 7\ncall 8\nr0 = 2\nexit");
    accept("callx", "r3 = 7\ncallx r3\nr0 = 2\nexit");
}

#[test]
fn checksum_over_stack_and_packet() {
    accept(
        "csum_diff",
        &packet(
            34,
            "*(u64 *)(r10 - 8) = 0
             r1 = r10\nr1 += -8\nr2 = 8\nr3 = r7\nr3 += 14\nr4 = 20\nr5 = 0\ncall 28",
        ),
    );
    accept(
        "csum_diff from nothing",
        &packet(34, "r1 = 0\nr2 = 0\nr3 = r7\nr4 = 20\nr5 = 0\ncall 28"),
    );
}

#[test]
fn spilled_pointers_come_back_with_their_kind() {
    accept(
        "spill",
        &packet(
            14,
            &format!(
                "*(u64 *)(r10 - 16) = r6\n*(u64 *)(r10 - 24) = r7\nr2 = 0\n{}
                 *(u64 *)(r10 - 32) = r0
                 r1 = *(u64 *)(r10 - 24)\nr2 = *(u8 *)(r1 + 3)
                 r1 = *(u64 *)(r10 - 16)\nr2 = *(u32 *)(r1 + 16)
                 r1 = *(u64 *)(r10 - 32)\n*(u8 *)(r1 + 255) = r2",
                lookup(2)
            ),
        ),
    );
}

#[test]
fn local_calls_with_pointers_to_the_callers_frame() {
    accept(
        "local call",
        "*(u64 *)(r10 - 8) = 5
         r1 = r10
         r1 += -8
         call add
         r0 = *(u64 *)(r10 - 8)
         exit
       add:
         r2 = *(u64 *)(r1 + 0)
         *(u64 *)(r10 - 16) = r2
         r2 += 1
         *(u64 *)(r1 + 0) = r2
         r0 = 0
         exit",
    );
}

#[test]
fn bounded_loop() {
    accept(
        "loop",
        "r0 = 0\nr1 = 0\nagain:\nr0 += r1\nr1 += 1\nif r1 < 100 goto again\nr0 = 2\nexit",
    );
}
