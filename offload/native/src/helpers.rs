//! What the compiler knows of helpers and moves beyond their numbers.

use dash_bpf::op::AluOp;
use dash_bpf::{ProgramKind, helper};

/// Number of arguments a helper reads, five where that is not known: raw programs have helpers of
/// their own.
pub(crate) fn arity(kind: ProgramKind, number: u32) -> usize {
    match kind {
        ProgramKind::Xdp => helper::arity(number).unwrap_or(5).min(5),
        ProgramKind::Raw => 5,
    }
}

/// Whether an operation overwrites its destination without reading it.
pub(crate) fn is_move(op: AluOp) -> bool {
    matches!(
        op,
        AluOp::Mov | AluOp::Movsx8 | AluOp::Movsx16 | AluOp::Movsx32
    )
}
