//! One program as a single list of steps, its local functions expanded where they are called.
//!
//! Expansion gives every call its own copy of the callee, so a step belongs to exactly one chain
//! of frames and later passes need no summaries. Recursion is refused and depth is bounded as in
//! Linux (`MAX_CALL_FRAMES`); a program-wide budget bounds the growth.

use dash_bpf::{Op, Reg};

use crate::error::{NativeError, Reason, Site};

/// Frames a chain of local calls may have, the program's own included.
pub(crate) const MAX_FRAMES: usize = 8;

/// Steps all regions of an object may have together.
pub(crate) const MAX_STEPS: usize = 1 << 17;

/// No step.
pub(crate) const NONE: u32 = u32::MAX;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// An instruction other than local calls and exits.
    Op(Op),
    /// Enters the callee, one frame deeper.
    Enter,
    /// Leaves a callee, with r0.
    Leave,
    /// Ends the program, with r0.
    Return,
}

/// One instruction of an expanded program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) action: Action,
    /// Step that follows: the fall-through of conditional jumps, the target of others, the
    /// callee's first step, the step after the call. [`NONE`] after `Return`.
    pub(crate) next: u32,
    /// Step a conditional jump goes to when taken.
    pub(crate) taken: u32,
    /// Frame it runs in, 0 for the program's own.
    pub(crate) depth: u8,
    /// Slot in the program.
    pub(crate) pc: u32,
}

impl Step {
    /// Steps that may follow.
    pub(crate) fn successors(&self) -> impl Iterator<Item = u32> + use<> {
        [self.next, self.taken].into_iter().filter(|&s| s != NONE)
    }
}

/// An expanded program. Step 0 is its entry.
#[derive(Debug)]
pub(crate) struct Region {
    /// Index of the program in its object.
    pub(crate) program: usize,
    /// Name of the program, for errors.
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
    /// Number of frames in use.
    pub(crate) frames: usize,
}

impl Region {
    /// An error at a step.
    pub(crate) fn error(&self, step: usize, reason: Reason) -> NativeError {
        let pc = self.steps.get(step).map_or(0, |s| s.pc as usize);
        self.error_at(pc, reason)
    }

    fn error_at(&self, pc: usize, reason: Reason) -> NativeError {
        NativeError::At {
            site: Site {
                program: self.name.clone(),
                pc,
            },
            reason,
        }
    }
}

/// A function still to be copied into the region.
struct Pending {
    entry: usize,
    depth: usize,
    /// Step of the call, none for the program itself.
    call: Option<usize>,
    /// Entries of the functions it is called from.
    chain: Vec<usize>,
}

/// Expands one decoded program. `budget` is what is left of [`MAX_STEPS`].
pub(crate) fn expand(
    program: usize,
    name: &str,
    ops: &[Op],
    budget: &mut usize,
) -> Result<Region, NativeError> {
    let mut region = Region {
        program,
        name: name.to_owned(),
        steps: Vec::with_capacity(ops.len()),
        frames: 1,
    };
    let mut pending = vec![Pending {
        entry: 0,
        depth: 0,
        call: None,
        chain: vec![0],
    }];
    // Step of each slot in the function being copied.
    let mut step_of = vec![NONE; ops.len()];
    while let Some(function) = pending.pop() {
        copy(
            &mut region,
            ops,
            function,
            &mut step_of,
            &mut pending,
            budget,
        )?;
    }
    Ok(region)
}

fn copy(
    region: &mut Region,
    ops: &[Op],
    function: Pending,
    step_of: &mut [u32],
    pending: &mut Vec<Pending>,
    budget: &mut usize,
) -> Result<(), NativeError> {
    let body = reachable(region, ops, function.entry)?;
    *budget = budget
        .checked_sub(body.len())
        .ok_or(NativeError::TooLarge { limit: MAX_STEPS })?;
    region.frames = region.frames.max(function.depth + 1);
    let base = region.steps.len();
    for (i, &pc) in body.iter().enumerate() {
        step_of[pc] = (base + i) as u32;
    }
    let return_to = match function.call {
        Some(call) => std::mem::replace(&mut region.steps[call].next, step_of[function.entry]),
        None => NONE,
    };
    for &pc in &body {
        let op = ops[pc];
        let follow = || step_of.get(pc + 1).copied().unwrap_or(NONE);
        let (action, next, taken) = match op {
            Op::Exit if function.call.is_some() => (Action::Leave, return_to, NONE),
            Op::Exit => (Action::Return, NONE, NONE),
            Op::Jump { target } => (Action::Op(op), step_of[target], NONE),
            Op::JumpIf { target, .. } => (Action::Op(op), follow(), step_of[target]),
            Op::LoadImm64 { .. } => (Action::Op(op), step_of[pc + 2], NONE),
            Op::CallLocal { target } => {
                if function.chain.contains(&target) {
                    return Err(region.error_at(pc, Reason::Recursion));
                }
                if function.depth + 1 >= MAX_FRAMES {
                    return Err(region.error_at(pc, Reason::CallDepth(MAX_FRAMES)));
                }
                let mut chain = function.chain.clone();
                chain.push(target);
                pending.push(Pending {
                    entry: target,
                    depth: function.depth + 1,
                    call: Some(region.steps.len()),
                    chain,
                });
                // Until the callee is copied, `next` remembers where it returns to.
                (Action::Enter, follow(), NONE)
            }
            _ => (Action::Op(op), follow(), NONE),
        };
        region.steps.push(Step {
            action,
            next,
            taken,
            depth: function.depth as u8,
            pc: pc as u32,
        });
    }
    for &pc in &body {
        step_of[pc] = NONE;
    }
    Ok(())
}

/// Slots of one function, ascending except that its entry comes first.
fn reachable(region: &Region, ops: &[Op], entry: usize) -> Result<Vec<usize>, NativeError> {
    let mut seen = vec![false; ops.len()];
    let mut work = vec![entry];
    while let Some(pc) = work.pop() {
        match seen.get_mut(pc) {
            None => return Err(region.error_at(pc, Reason::FlowOutside)),
            Some(seen) if *seen => continue,
            Some(seen) => *seen = true,
        }
        match ops[pc] {
            Op::Exit => {}
            Op::Jump { target } => work.push(target),
            Op::JumpIf { target, .. } => work.extend([target, pc + 1]),
            Op::LoadImm64 { .. } => work.push(pc + 2),
            _ => work.push(pc + 1),
        }
    }
    let rest = (0..ops.len()).filter(|&pc| seen[pc] && pc != entry);
    Ok(std::iter::once(entry).chain(rest).collect())
}

/// Registers of all frames as one set: bit `depth * 11 + register`.
pub(crate) fn register_bit(depth: usize, reg: Reg) -> u128 {
    1 << (depth * 11 + reg.index())
}
