//! One program as a single list of steps, its local functions expanded where they are called.
//!
//! Expansion gives every call its own copy of the callee, so a step belongs to exactly one chain
//! of frames and later passes need no summaries. Recursion is refused and depth is bounded as in
//! Linux (`MAX_CALL_FRAMES`); a program-wide budget bounds the growth.

use std::collections::HashMap;
use std::rc::Rc;

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
    let mut expansion = Expansion {
        ops,
        region: Region {
            program,
            name: name.to_owned(),
            steps: Vec::with_capacity(ops.len()),
            frames: 1,
        },
        pending: vec![Pending {
            entry: 0,
            depth: 0,
            call: None,
            chain: vec![0],
        }],
        step_of: vec![NONE; ops.len()],
        bodies: HashMap::new(),
    };
    while let Some(function) = expansion.pending.pop() {
        expansion.copy(&function, budget)?;
    }
    Ok(expansion.region)
}

struct Expansion<'a> {
    ops: &'a [Op],
    region: Region,
    pending: Vec<Pending>,
    /// Step of each slot of the function being copied.
    step_of: Vec<u32>,
    /// Slots of each function met, by its entry.
    bodies: HashMap<usize, Rc<[usize]>>,
}

impl Expansion<'_> {
    fn body(&mut self, entry: usize) -> Result<Rc<[usize]>, NativeError> {
        if let Some(body) = self.bodies.get(&entry) {
            return Ok(Rc::clone(body));
        }
        let body: Rc<[usize]> = reachable(&self.region, self.ops, entry)?.into();
        self.bodies.insert(entry, Rc::clone(&body));
        Ok(body)
    }

    /// Appends a copy of a function.
    fn copy(&mut self, function: &Pending, budget: &mut usize) -> Result<(), NativeError> {
        let body = self.body(function.entry)?;
        *budget = budget
            .checked_sub(body.len())
            .ok_or(NativeError::TooLarge { limit: MAX_STEPS })?;
        self.region.frames = self.region.frames.max(function.depth + 1);
        let base = self.region.steps.len();
        for (i, &pc) in body.iter().enumerate() {
            self.step_of[pc] = (base + i) as u32;
        }
        let first = self.step_of[function.entry];
        let return_to = match function.call {
            Some(call) => std::mem::replace(&mut self.region.steps[call].next, first),
            None => NONE,
        };
        for &pc in body.iter() {
            let op = self.ops[pc];
            let follow = self.step_of.get(pc + 1).copied().unwrap_or(NONE);
            let (action, next, taken) = match op {
                Op::Exit if function.call.is_some() => (Action::Leave, return_to, NONE),
                Op::Exit => (Action::Return, NONE, NONE),
                Op::Jump { target } => (Action::Op(op), self.step_of[target], NONE),
                Op::JumpIf { target, .. } => (Action::Op(op), follow, self.step_of[target]),
                Op::LoadImm64 { .. } => (Action::Op(op), self.step_of[pc + 2], NONE),
                Op::CallLocal { target } => {
                    self.call(function, pc, target)?;
                    // Until the callee is copied, `next` remembers where it returns to.
                    (Action::Enter, follow, NONE)
                }
                _ => (Action::Op(op), follow, NONE),
            };
            self.region.steps.push(Step {
                action,
                next,
                taken,
                depth: function.depth as u8,
                pc: pc as u32,
            });
        }
        for &pc in body.iter() {
            self.step_of[pc] = NONE;
        }
        Ok(())
    }

    /// Notes that the callee of the call at `pc`, the next step, is still to be copied.
    fn call(&mut self, caller: &Pending, pc: usize, target: usize) -> Result<(), NativeError> {
        if caller.chain.contains(&target) {
            return Err(self.region.error_at(pc, Reason::Recursion));
        }
        if caller.depth + 1 >= MAX_FRAMES {
            return Err(self.region.error_at(pc, Reason::CallDepth(MAX_FRAMES)));
        }
        let mut chain = caller.chain.clone();
        chain.push(target);
        self.pending.push(Pending {
            entry: target,
            depth: caller.depth + 1,
            call: Some(self.region.steps.len()),
            chain,
        });
        Ok(())
    }
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
