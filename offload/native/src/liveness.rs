//! Which registers may still be read: a backward data flow over a region.
//!
//! Facts about dead registers are dropped where paths meet, so a stale stack pointer on one path
//! does not force a whole frame into memory.

use dash_bpf::op::AtomicOp;
use dash_bpf::{Op, Operand, ProgramKind, Reg};

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

const R1_TO_R5: [Reg; 5] = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5];

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
        Action::Op(op) => {
            let (reads, writes) = reads_writes(op, kind, depth);
            reads | (after & !writes)
        }
    }
}

fn reads_writes(op: Op, kind: ProgramKind, depth: usize) -> (u128, u128) {
    let bit = |r| register_bit(depth, r);
    let arguments = |n: usize| R1_TO_R5[..n].iter().fold(0, |set, &r| set | bit(r));
    let operand = |o| match o {
        Operand::Reg(r) => bit(r),
        Operand::Imm(_) => 0,
    };
    let clobbered = bit(Reg::R0) | arguments(5);
    match op {
        Op::Alu { op, dst, src, .. } => {
            let moves = helpers::is_move(op);
            let reads = operand(src) | if moves { 0 } else { bit(dst) };
            (reads, bit(dst))
        }
        Op::Neg { dst, .. } | Op::Endian { dst, .. } => (bit(dst), bit(dst)),
        Op::LoadImm64 { dst, .. } => (0, bit(dst)),
        Op::LoadImm64Hi | Op::Jump { .. } => (0, 0),
        Op::Load { dst, base, .. } => (bit(base), bit(dst)),
        Op::Store { base, src, .. } => (bit(base) | operand(src), 0),
        Op::Atomic {
            op,
            fetch,
            base,
            src,
            ..
        } => {
            let reads = bit(base) | bit(src);
            match op {
                AtomicOp::CmpXchg => (reads | bit(Reg::R0), bit(Reg::R0)),
                _ if fetch => (reads, bit(src)),
                _ => (reads, 0),
            }
        }
        Op::LoadPacket { index, .. } => (bit(Reg::R6) | index.map_or(0, bit), clobbered),
        Op::JumpIf { dst, src, .. } => (bit(dst) | operand(src), 0),
        Op::Call { helper } => (arguments(helpers::arity(kind, helper)), clobbered),
        Op::CallReg { reg } => (arguments(5) | bit(reg), clobbered),
        Op::CallBtf { .. } | Op::CallLocal { .. } | Op::Exit => (arguments(5), clobbered),
    }
}
