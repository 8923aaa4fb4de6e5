//! Which steps of a program see memory as it was when the program started.
//!
//! A look-up that the caller made ahead stands for one of the program's own only there: later, the
//! key or the map may be others.

use dash_bpf::Op;

use crate::analysis::{Analysis, Note};
use crate::calls::Callee;
use crate::region::{Action, Region};

/// For each step, whether no step on any way to it wrote memory outside the program's frames or
/// called anything that may have. (Frames are made when a program starts: no key that a caller
/// knows is in one.)
pub(crate) fn steps(region: &Region, analysis: &Analysis) -> Vec<bool> {
    let mut untouched = vec![true; region.steps.len()];
    let mut work: Vec<u32> = Vec::new();
    for (i, step) in region.steps.iter().enumerate() {
        if analysis.reached[i] && touches(step.action, analysis.notes[i]) {
            work.extend(step.successors());
        }
    }
    while let Some(i) = work.pop() {
        if std::mem::replace(&mut untouched[i as usize], false) {
            work.extend(region.steps[i as usize].successors());
        }
    }
    untouched
}

fn touches(action: Action, note: Note) -> bool {
    let Action::Op(op) = action else {
        return false;
    };
    match op {
        Op::Store { .. } | Op::Atomic { .. } => !matches!(note, Note::Stack(_)),
        Op::Call { .. } | Op::CallReg { .. } => !matches!(
            note,
            Note::Call(Callee::ArrayLookup { .. } | Callee::KtimeGetNs | Callee::GetSmpProcessorId)
        ),
        Op::CallBtf { .. } | Op::CallLocal { .. } => true,
        Op::Alu { .. }
        | Op::Neg { .. }
        | Op::Endian { .. }
        | Op::LoadImm64 { .. }
        | Op::LoadImm64Hi
        | Op::Load { .. }
        | Op::LoadPacket { .. }
        | Op::Jump { .. }
        | Op::JumpIf { .. }
        | Op::Exit => false,
    }
}
