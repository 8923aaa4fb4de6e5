//! What no packet can reach, and why. A place or a reason that is listed and is reached is reported.

use dash_bpf::MapKind;
use dash_wire::drop::DropReason;
use nic_target::{Capacity, Table};

use super::Arm;
use crate::ir::Stmt;

/// Drop reasons that rows made by the planner and packets that fit a frame cannot lead to.
pub(super) const REASONS: &[(DropReason, &str)] = &[
    (
        DropReason::Internal,
        "a helper refused or a row that another names is missing: the planner writes both in one delta, \
         and a frame has room for two encaps",
    ),
    (
        DropReason::HookDrop,
        "programs of users are no part of a configuration (benches/tests/hooks.rs)",
    ),
    (DropReason::HookAborted, "as hook-drop"),
];

/// Why a statement cannot go on this way.
pub(super) fn why(stmt: &Stmt, arm: Arm) -> Option<&'static str> {
    if let (Stmt::FlowLookup { peek, miss, .. }, Arm::Reset) = (stmt, arm) {
        return match miss.as_slice() {
            _ if *peek => Some("it changes no flow"),
            [Stmt::Drop(DropReason::InnerFragment)] => {
                Some("a fragment after the first has no TCP header")
            }
            _ => None,
        };
    }
    let (Stmt::Match { table, .. }, Arm::Miss) = (stmt, arm) else {
        return None;
    };
    if table.def(&Capacity::default()).kind == MapKind::Array {
        return Some("rows of an array are there from the start, and its index comes from a row");
    }
    match table {
        Table::Route4More | Table::Route6More | Table::MappingMore => {
            Some("the row that says there is more is written in the delta that writes it")
        }
        Table::Tunnel => {
            Some("a tunnel that a route or a mapping names is there with all its members")
        }
        _ => None,
    }
}
