//! Which registers hold which function of the program: what a helper that calls one is given.
//!
//! Compilers load the address right before the call or a little earlier, so registers of one function are all
//! that is followed. The verifier follows more; what it alone knows of is refused.

use dash_bpf::op::{AluOp, Registers};
use dash_bpf::{Op, Operand, Reg, Width};

/// Entry of the function in each register, where it is the same on all ways.
type Known = [Option<usize>; 11];

/// What is known before each instruction of one function.
#[derive(Debug)]
pub(crate) struct Functions(Vec<Option<Known>>);

impl Functions {
    /// For the function with this entry; `body` are its slots.
    pub(crate) fn new(ops: &[Op], entry: usize, body: &[usize]) -> Self {
        let mut known: Vec<Option<Known>> = vec![None; ops.len()];
        known[entry] = Some([None; 11]);
        let mut work = vec![entry];
        while let Some(pc) = work.pop() {
            let Some(mut after) = known[pc] else {
                continue;
            };
            transfer(&ops[pc], pc, &mut after);
            let (next, taken) = match ops[pc] {
                Op::Exit => (None, None),
                Op::Jump { target } => (Some(target), None),
                Op::JumpIf { target, .. } => (Some(pc + 1), Some(target)),
                Op::LoadImm64 { .. } => (Some(pc + 2), None),
                _ => (Some(pc + 1), None),
            };
            for to in next.into_iter().chain(taken) {
                let changed = match known.get_mut(to) {
                    Some(Some(known)) => join(known, &after),
                    Some(nothing) => {
                        *nothing = Some(after);
                        true
                    }
                    None => false,
                };
                if changed {
                    work.push(to);
                }
            }
        }
        debug_assert!(body.iter().all(|&pc| known[pc].is_some()));
        Self(known)
    }

    /// Entry of the function that a register holds before the instruction at `pc`.
    pub(crate) fn at(&self, pc: usize, reg: Reg) -> Option<usize> {
        self.0.get(pc).copied().flatten()?[reg.index()]
    }
}

/// Keeps what both know; says whether something was lost.
fn join(known: &mut Known, other: &Known) -> bool {
    let mut changed = false;
    for (mine, theirs) in known.iter_mut().zip(other) {
        if mine.is_some() && mine != theirs {
            *mine = None;
            changed = true;
        }
    }
    changed
}

fn transfer(op: &Op, pc: usize, known: &mut Known) {
    let moved = match *op {
        Op::Alu {
            width: Width::W64,
            op: AluOp::Mov,
            dst,
            src: Operand::Reg(src),
        } => Some((dst, known[src.index()])),
        Op::LoadImm64 { dst, imm } => Some((dst, imm.function(pc))),
        _ => None,
    };
    let gone: Registers = op.writes();
    for (index, function) in known.iter_mut().enumerate() {
        if gone.bits() >> index & 1 != 0 {
            *function = None;
        }
    }
    if let Some((dst, function)) = moved {
        known[dst.index()] = function;
    }
}
