//! What the compiler knows of helpers and moves beyond their numbers.

use dash_bpf::helper;
use dash_bpf::op::AluOp;

/// Number of arguments a helper reads, five where that is not known.
pub(crate) fn arity(number: u32) -> usize {
    helper::arity(number).unwrap_or(5).min(5)
}

/// Whether an operation overwrites its destination without reading it.
pub(crate) fn is_move(op: AluOp) -> bool {
    matches!(
        op,
        AluOp::Mov | AluOp::Movsx8 | AluOp::Movsx16 | AluOp::Movsx32
    )
}
