//! One program as a single list of steps, its local functions expanded where they are called.
//!
//! Expansion gives every call its own copy of the callee, so a step belongs to exactly one chain
//! of frames and later passes need no summaries. Recursion is refused and depth is bounded as in
//! Linux (`MAX_CALL_FRAMES`); a program-wide budget bounds the growth.
//!
//! A function that a helper calls is expanded where the helper is called, in a loop:
//!
//! ```text
//! call back --> round --> enter, the function, again --> (round)
//!     |           |                              |
//!     '-----------+-----------> done <-----------'
//! ```

use std::collections::HashMap;
use std::rc::Rc;

use dash_bpf::{Op, ProgramKind, Reg, helper};

use crate::functions::Functions;

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
    /// A helper that calls a function starts: on to the first [`Round`](Self::Round), or to
    /// [`Done`](Self::Done) when it fails.
    CallBack(CallBack),
    /// Whether there is another round; else to [`Done`](Self::Done).
    Round(CallBack),
    /// Enters the function for the round, one frame deeper.
    EnterRound(CallBack),
    /// Leaves the function: for the next [`Round`](Self::Round), or with another r0 than 0 to
    /// [`Done`](Self::Done).
    Again,
    /// The helper returns, with r0.
    Done,
}

/// A helper that calls a function of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallBack {
    /// As many times as r1 says.
    Loop,
    /// For each element of the map in r1.
    Elements,
}

impl CallBack {
    /// What a helper calls, if it does.
    fn of(helper: u32) -> Option<Self> {
        match helper {
            helper::LOOP => Some(Self::Loop),
            helper::FOR_EACH_MAP_ELEM => Some(Self::Elements),
            _ => None,
        }
    }
}

/// One instruction of an expanded program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) action: Action,
    /// Step that follows: the fall-through of conditional jumps, the target of others, the
    /// callee's first step, the step after the call. [`NONE`] after `Return`.
    pub(crate) next: u32,
    /// Step a conditional jump goes to when taken; where a helper is done that calls a function.
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
    /// Whether the program ends with a step or right after it.
    pub(crate) fn ends_at(&self, step: u32) -> bool {
        /// What is between: moves of the verdict.
        const NEAR: usize = 3;
        let mut at = step;
        for _ in 0..NEAR {
            match self.steps.get(at as usize) {
                Some(step) if step.action == Action::Return => return true,
                Some(step) if step.taken == NONE => at = step.next,
                _ => return false,
            }
        }
        false
    }

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
    /// How it is called, unless it is the program itself.
    call: Option<Call>,
    /// Entries of the functions it is called from.
    chain: Vec<usize>,
}

/// A call of a function still to be copied.
#[derive(Clone, Copy)]
enum Call {
    /// By this step.
    Local(usize),
    /// By a helper, in rounds that start with this step; the next one enters, the one behind it follows them.
    Back(usize),
}

/// Expands one decoded program. `budget` is what is left of [`MAX_STEPS`].
pub(crate) fn expand(
    program: usize,
    name: &str,
    kind: ProgramKind,
    ops: &[Op],
    budget: &mut usize,
) -> Result<Region, NativeError> {
    let mut expansion = Expansion {
        ops,
        kind,
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
        functions: HashMap::new(),
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
    kind: ProgramKind,
    /// Functions in registers, in each function met that has helpers call one, by its entry.
    functions: HashMap<usize, Functions>,
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
        self.region.frames = self.region.frames.max(function.depth + 1);
        // Helpers that call functions are several steps.
        let mut at = self.region.steps.len();
        for &pc in body.iter() {
            self.step_of[pc] = at as u32;
            at += match self.calls_back(self.ops[pc]) {
                Some(_) => 4,
                None => 1,
            };
        }
        *budget = budget
            .checked_sub(at - self.region.steps.len())
            .ok_or(NativeError::TooLarge { limit: MAX_STEPS })?;
        let first = self.step_of[function.entry];
        let (leave, return_to, stop) = match function.call {
            None => (Action::Return, NONE, NONE),
            Some(Call::Local(call)) => {
                let next = &mut self.region.steps[call].next;
                (Action::Leave, std::mem::replace(next, first), NONE)
            }
            Some(Call::Back(round)) => {
                self.region.steps[round + 1].next = first;
                (Action::Again, round as u32, round as u32 + 2)
            }
        };
        for &pc in body.iter() {
            let op = self.ops[pc];
            let follow = self.step_of.get(pc + 1).copied().unwrap_or(NONE);
            let depth = function.depth as u8;
            let step = |action, next, taken| Step {
                action,
                next,
                taken,
                depth,
                pc: pc as u32,
            };
            if let Some(call) = self.calls_back(op) {
                let target = self.called_back(function.entry, &body, pc)?;
                let start = self.region.steps.len() as u32;
                self.call(function, pc, target, Call::Back(start as usize + 1))?;
                let done = start + 3;
                self.region.steps.extend([
                    step(Action::CallBack(call), start + 1, done),
                    step(Action::Round(call), start + 2, done),
                    // Until the function is copied it goes nowhere.
                    step(Action::EnterRound(call), NONE, NONE),
                    step(Action::Done, follow, NONE),
                ]);
                continue;
            }
            let (action, next, taken) = match op {
                Op::Exit => (leave, return_to, stop),
                Op::Jump { target } => (Action::Op(op), self.step_of[target], NONE),
                Op::JumpIf { target, .. } => (Action::Op(op), follow, self.step_of[target]),
                Op::LoadImm64 { .. } => (Action::Op(op), self.step_of[pc + 2], NONE),
                Op::CallLocal { target } => {
                    let call = Call::Local(self.region.steps.len());
                    self.call(function, pc, target, call)?;
                    // Until the callee is copied, `next` remembers where it returns to.
                    (Action::Enter, follow, NONE)
                }
                _ => (Action::Op(op), follow, NONE),
            };
            self.region.steps.push(step(action, next, taken));
        }
        for &pc in body.iter() {
            self.step_of[pc] = NONE;
        }
        Ok(())
    }

    /// Raw programs bring helpers of their own, whatever their numbers are.
    fn calls_back(&self, op: Op) -> Option<CallBack> {
        match (op, self.kind) {
            (Op::Call { helper }, ProgramKind::Xdp) => CallBack::of(helper),
            _ => None,
        }
    }

    /// Entry of the function that the helper called at `pc` calls, in the function with this entry.
    fn called_back(
        &mut self,
        entry: usize,
        body: &[usize],
        pc: usize,
    ) -> Result<usize, NativeError> {
        let functions = self
            .functions
            .entry(entry)
            .or_insert_with(|| Functions::new(self.ops, entry, body));
        let target = functions.at(pc, Reg::R2);
        target.ok_or_else(|| self.region.error_at(pc, Reason::CallBack))
    }

    /// Notes that the callee of the call at `pc` is still to be copied.
    fn call(
        &mut self,
        caller: &Pending,
        pc: usize,
        target: usize,
        call: Call,
    ) -> Result<(), NativeError> {
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
            call: Some(call),
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
