//! What the compiler knows of helpers beyond their numbers.

use dash_bpf::{ProgramKind, helper};

/// Number of arguments a helper reads, five where that is not known: raw programs have helpers of
/// their own.
pub(crate) fn arity(kind: ProgramKind, number: u32) -> usize {
    match kind {
        ProgramKind::Xdp => helper::arity(number).unwrap_or(5).min(5),
        ProgramKind::Raw => 5,
    }
}
