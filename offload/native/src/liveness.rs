//! Which registers may still be read: a backward data flow over a region.
//!
//! Facts about dead registers are dropped where paths meet, so a stale stack pointer on one path
//! does not force a whole frame into memory.

use dash_bpf::op::Registers;
use dash_bpf::{ProgramKind, Reg};

use crate::helpers;
use crate::region::{Action, Region, Step, register_bit};

/// For each step, the registers that may be read from there on (see [`register_bit`]).
pub(crate) fn live_in(region: &Region, kind: ProgramKind, postorder: &[u32]) -> Vec<u128> {
    let mut live = vec![0u128; region.steps.len()];
    loop {
        let mut changed = false;
        for &i in postorder {
            let step = &region.steps[i as usize];
            let out = step.successors().fold(0, |set, s| set | live[s as usize]);
            let new = before(step, kind, out);
            changed |= std::mem::replace(&mut live[i as usize], new) != new;
        }
        if !changed {
            return live;
        }
    }
}

/// Steps in depth-first postorder from the entry.
pub(crate) fn postorder(region: &Region) -> Vec<u32> {
    let mut order = Vec::with_capacity(region.steps.len());
    let mut seen = vec![false; region.steps.len()];
    // Step, and whether its successors are done.
    let mut stack = vec![(0u32, false)];
    while let Some((i, done)) = stack.pop() {
        if done {
            order.push(i);
            continue;
        }
        if std::mem::replace(&mut seen[i as usize], true) {
            continue;
        }
        stack.push((i, true));
        let step = &region.steps[i as usize];
        stack.extend(
            step.successors()
                .filter(|&s| !seen[s as usize])
                .map(|s| (s, false)),
        );
    }
    order
}

/// Registers of one frame among those of all.
fn of_frame(depth: usize, registers: Registers) -> u128 {
    u128::from(registers.bits()) << (depth * 11)
}

/// Registers live before a step, given those live after it.
fn before(step: &Step, kind: ProgramKind, after: u128) -> u128 {
    let depth = usize::from(step.depth);
    match step.action {
        Action::Return => register_bit(depth, Reg::R0),
        // The callee starts with copies of the caller's r0 to r9, and its r10 is new.
        Action::Enter => {
            let callee = (after >> ((depth + 1) * 11)) & 0x3ff;
            (after & ((1 << ((depth + 1) * 11)) - 1)) | (callee << (depth * 11))
        }
        // Of the callee's registers only r0 outlives it; the caller's r1 to r5 are cleared.
        Action::Leave => {
            let caller = (depth - 1) * 11;
            let r0 = register_bit(depth, Reg::R0);
            (after & !(0x3f << caller)) | if after >> caller & 1 != 0 { r0 } else { 0 }
        }
        // The number of rounds or the map, and the flags.
        Action::CallBack(_) => after | register_bit(depth, Reg::R1) | register_bit(depth, Reg::R4),
        Action::Round(_) => after | register_bit(depth, Reg::R1),
        // The callee's registers are all set here.
        Action::EnterRound(_) => {
            let caller = after & ((1 << ((depth + 1) * 11)) - 1);
            caller | register_bit(depth, Reg::R1) | register_bit(depth, Reg::R3)
        }
        Action::Again => {
            let caller = after & ((1 << (depth * 11)) - 1);
            caller | register_bit(depth, Reg::R0)
        }
        Action::Done => after & !of_frame(depth, Registers::CLOBBERED),
        Action::Op(op) => {
            // Steps that leave a function are no operations; those that enter one are.
            let arity = |helper| helpers::arity(kind, helper);
            of_frame(depth, op.reads(arity)) | (after & !of_frame(depth, op.writes()))
        }
    }
}
