//! Maps, atomics and calls used as they may not be.

use dash_bpf::MapKind;
use dash_bpf::map::F_RDONLY_PROG;
use dash_verify::{Judge, Refusal, Verifier, VerifyError};

use super::{OUT, by_rule, by_rule_alone, lookup};
use crate::support::{by, object};

#[test]
fn atomics_are_aligned_and_in_memory_that_can_be_shared() {
    by_rule(
        "misaligned in a value",
        &format!("{}r1 = 1\nlock *(u64 *)(r0 + 4) += r1{OUT}", lookup(0)),
        8,
        Refusal::Misaligned(8),
    );
    by_rule(
        "index of unknown alignment",
        &format!(
            "{}r3 = *(u8 *)(r0 + 0)\nr3 &= 3\nr0 += r3\nr1 = 1\nlock *(u32 *)(r0 + 0) += r1{OUT}",
            lookup(0)
        ),
        11,
        Refusal::Misaligned(4),
    );
    by_rule(
        "misaligned on the stack",
        "*(u64 *)(r10 - 16) = 0\n*(u64 *)(r10 - 8) = 0\nr2 = 1\nlock *(u64 *)(r10 - 12) += r2
         r0 = 2\nexit",
        3,
        Refusal::Misaligned(8),
    );
    by_rule(
        "packet",
        &format!(
            "r2 = *(u32 *)(r1 + 0)\nr3 = *(u32 *)(r1 + 4)\nr4 = r2\nr4 += 8\nif r4 > r3 goto out
             r5 = 1\nlock *(u64 *)(r2 + 0) += r5{OUT}"
        ),
        6,
        Refusal::AtomicRegion,
    );
}

#[test]
fn maps_are_used_as_their_kind_allows() {
    let read_only = Refusal::ReadOnlyMap;
    by_rule(
        "write an LPM value",
        &format!("{}*(u8 *)(r0 + 0) = 0{OUT}", lookup(3)),
        7,
        read_only,
    );
    let key = "*(u64 *)(r10 - 40) = 0\n*(u64 *)(r10 - 32) = 0\n*(u64 *)(r10 - 24) = 0
         *(u64 *)(r10 - 16) = 0\n*(u64 *)(r10 - 8) = 0\nr2 = r10\nr2 += -40\nr1 = map[4] ll\n";
    by_rule(
        "update an ACL",
        &format!("{key}r3 = r2\nr4 = 0\ncall 2{OUT}"),
        11,
        Refusal::MapKind {
            helper: "map_update_elem",
            kind: MapKind::Acl,
        },
    );
    by_rule(
        "look up in a queue",
        &format!("{}{OUT}", lookup(5)),
        5,
        Refusal::MapKind {
            helper: "map_lookup_elem",
            kind: MapKind::Queue,
        },
    );
    by_rule_alone(
        "look up in a map of maps",
        &format!("{}{OUT}", lookup(9)),
        5,
        Refusal::MapKind {
            helper: "map_lookup_elem",
            kind: MapKind::ArrayOfMaps,
        },
    );
    by_rule(
        "tail call through a hash",
        "r2 = map[0] ll\nr3 = 1\ncall 12\nr0 = 0\nexit",
        3,
        Refusal::MapKind {
            helper: "tail_call",
            kind: MapKind::Hash,
        },
    );
    by_rule(
        "no such map",
        "r1 = map[99] ll\nr0 = 2\nexit",
        0,
        Refusal::NoMap(99),
    );
    by_rule(
        "address of many",
        "r1 = value(map[1]) + 0 ll\nr0 = 2\nexit",
        0,
        Refusal::ValueAddress,
    );
    by_rule(
        "address beyond",
        "r1 = value(map[8]) + 32 ll\nr0 = 2\nexit",
        0,
        Refusal::ValueAddress,
    );
}

#[test]
fn read_only_maps_are_read() {
    let write = format!("{}*(u64 *)(r0 + 0) = 1{OUT}", lookup(0));
    let update = "*(u64 *)(r10 - 8) = 0\n*(u64 *)(r10 - 16) = 0\nr1 = map[0] ll\nr2 = r10\nr2 += -8
         r3 = r10\nr3 += -16\nr4 = 0\ncall 2\nr0 = 2\nexit";
    let address = "r1 = value(map[8]) + 0 ll\n*(u8 *)(r1 + 0) = 1\nr0 = 2\nexit";
    for judge in [Judge::Own, Judge::Prevail] {
        for (text, pc) in [(&*write, 7), (update, 9), (address, 2)] {
            let mut object = object("constants", text);
            let mut verdict = |flags| {
                for map in &mut object.maps {
                    map.flags = flags;
                }
                Verifier::new(by(judge)).verify(&object)
            };
            if let Err(e) = verdict(0) {
                panic!("{e}\n{text}");
            }
            match verdict(F_RDONLY_PROG) {
                Err(VerifyError::Program { reason, .. }) => {
                    assert_eq!(reason.pc(), Some(pc), "{reason}\n{text}");
                    assert!(reason.to_string().contains("may not write"), "{reason}");
                }
                other => panic!("{other:?}\n{text}"),
            }
        }
    }
}

#[test]
fn calls_that_are_not_allowed() {
    by_rule(
        "unknown helper",
        "call 4\nexit",
        0,
        Refusal::UnknownHelper(4),
    );
    by_rule("BTF call", "call btf 1\nexit", 0, Refusal::BtfCall);
    by_rule(
        "legacy packet access",
        "r6 = r1\nr0 = *(u8 *)skb[0]\nexit",
        1,
        Refusal::PacketAccess,
    );
    by_rule(
        "callx of anything",
        "r2 = *(u32 *)(r1 + 16)\ncallx r2\nexit",
        1,
        Refusal::VariableCall,
    );
    by_rule(
        "moved context",
        "r1 += 4\nr2 = 0\ncall 44\nexit",
        2,
        Refusal::Argument {
            helper: "xdp_adjust_head",
            argument: 1,
            expected: "the context",
        },
    );
    by_rule(
        "tail call in a callee",
        "call f\nexit\nf:\nr2 = map[6] ll\nr3 = 0\ncall 12\nr0 = 0\nexit",
        5,
        Refusal::TailCallInCallee,
    );
    by_rule(
        "recursion",
        "call f\nexit\nf:\ncall f\nexit",
        2,
        Refusal::Depth,
    );
    by_rule_alone(
        "code address",
        "r1 = imm64(4, 0, 0) ll\nr0 = 2\nexit",
        0,
        Refusal::Immediate,
    );
}
