//! Our own verifier: all paths of a program, with exact knowledge where paths are few and joined
//! knowledge where they are many.
//!
//! | module | what |
//! |---|---|
//! | `tnum`, `num`, `scalar` | sets of numbers: known bits, ranges, both halves |
//! | `refine` | what comparisons tell of them |
//! | `value`, `frame`, `state` | registers, stack frames, the machine |
//! | `relate` | ids of related values across two states |
//! | `graph` | loops, meeting paths, registers read later |
//! | `walk` | the order of the walk, budgets, termination |
//! | `step`, `access`, `call` | arithmetic and branches, memory, helpers |
//! | `fault` | what is refused and what would be needed |
//!
//! # Choices
//! - Addresses never leave a program, privileged or not: pointers are neither stored outside the
//!   stack, returned, passed as numbers, nor compared with numbers other than 0, unless both ways lead to one
//!   instruction. Comparisons with 0 are those whose answer is the same wherever memory lies.
//! - A pointer that a call made invalid, or that is of another kind on another path, can be copied, but not used in any
//!   other way; to Linux it is a number then.
//! - A callee cannot read the caller's r6 to r9. Chains of calls have 512 bytes of stack in all.
//! - r0 after a tail call that failed is a number; Linux lets nobody read it.
//! - Only atomics have to be aligned, to their size, provably. Other accesses may lie anywhere.
//! - Division by zero is what RFC 9669 says, by the constant 0 too. Shifts by constants of the width
//!   or more are refused, as in Linux; by registers they are masked.
//! - Unreachable instructions and instructions of two functions are refused, as in Linux.
//! - Legacy packet access, calls by BTF id and `callx` of anything but one known helper are refused.
//! - A record of a ring buffer is given back on every path, before the program ends or tail-calls. Joined
//!   states hold what either holds.
//! - What a helper calls back may be called any number of times: what holds after it is what holds before
//!   and is kept by each call. It returns 0 or 1.
//! - A map found in a map of maps is known by the template alone.

mod access;
mod call;
mod fault;
mod frame;
mod graph;
mod num;
mod refine;
mod relate;
mod scalar;
mod state;
mod step;
mod tnum;
mod value;
mod walk;

#[cfg(test)]
mod arith_tests;

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dash_bpf::MapDef;
use dash_bpf::interp::MAX_FRAMES;
use dash_bpf::op::Op;

pub use fault::{Fault, Objection};
use graph::Function;
use walk::Walk;

/// What one verification may cost. Beyond it a program is too complex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Instructions walked, counting each each time, as Linux's million.
    pub instructions: u64,
    /// Bytes of states kept at a time.
    pub memory: usize,
    /// Wall time of all walks.
    pub time: Duration,
    /// Bytes of stack in a chain of calls, each function's rounded up to 32.
    pub stack: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            instructions: 1_000_000,
            memory: 32 << 20,
            time: Duration::from_secs(10),
            stack: frame::FRAME,
        }
    }
}

/// What a verification did cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Instructions, counting each each time.
    pub instructions: u64,
    /// States kept where paths meet.
    pub states: u64,
    /// Bytes of states at a time, at most.
    pub memory: usize,
    /// States kept apart at one place in the walk that decided.
    pub paths: usize,
}

/// An instruction on the walk, as [`examine`](crate::examine) tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Slot of the instruction.
    pub pc: usize,
    /// What was known before it: registers, stored values, bytes of packet proven to be there.
    pub known: String,
}

/// Instructions in a log; what comes later is left out.
const LOG: usize = 100_000;

/// Paths kept apart at a place, one walk after the other until one accepts or refuses a single
/// path.
const PATHS: [usize; 4] = [2, 8, 48, 512];

/// Checks a decoded XDP program. `log` gets the instructions of the last walk.
pub(crate) fn check(
    ops: &[Op],
    maps: &[MapDef],
    limits: &Limits,
    mut log: Option<&mut Vec<Seen>>,
) -> Result<Walked, Objection> {
    let functions = functions(ops)?;
    let mut refused = None;
    let started = Instant::now();
    let mut aside = HashMap::new();
    'paths: for paths in PATHS {
        loop {
            if let Some(log) = log.as_deref_mut() {
                log.clear();
            }
            let mut walk = Walk::new(
                ops,
                maps,
                limits,
                &functions,
                paths,
                started,
                log.as_deref_mut(),
            );
            walk.aside = std::mem::take(&mut aside);
            let result = walk.run();
            walk.walked.paths = paths;
            let Err((objection, exact)) = result else {
                let deepest = walk.deepest;
                total_stack(&functions, &deepest, limits.stack)?;
                return Ok(walk.walked);
            };
            aside = std::mem::take(&mut walk.aside);
            let in_time = started.elapsed() <= limits.time;
            // What it lacks may be what was taken for dead.
            if walk.found_aside && in_time {
                continue;
            }
            if exact || !walk.joined {
                return Err(objection);
            }
            // Where a walk ran out of budget, one before says more.
            let too_complex = matches!(objection.fault, Fault::TooComplex { .. });
            if refused.is_none() || !too_complex {
                refused = Some(objection);
            }
            if !in_time {
                break 'paths;
            }
            break;
        }
    }
    Err(refused.unwrap_or(Objection {
        pc: 0,
        fault: Fault::Unreachable,
        known: String::new(),
    }))
}

fn objection(pc: usize, fault: Fault) -> Objection {
    let known = String::new();
    Objection { pc, fault, known }
}

/// All functions that can be called, none of them recursive, no instruction outside them or in two.
fn functions(ops: &[Op]) -> Result<HashMap<usize, Rc<Function>>, Objection> {
    let mut functions: HashMap<usize, Rc<Function>> = HashMap::new();
    // The entry of the function an instruction belongs to.
    let mut owner: Vec<Option<usize>> = vec![None; ops.len()];
    let mut todo = vec![0];
    while let Some(entry) = todo.pop() {
        if functions.contains_key(&entry) {
            continue;
        }
        let function = Function::new(ops, entry).map_err(|(pc, fault)| objection(pc, fault))?;
        for pc in function.reached() {
            match owner.get_mut(pc) {
                Some(owner) if owner.is_none() => *owner = Some(entry),
                _ => return Err(objection(entry, Fault::Shared)),
            }
        }
        todo.extend(function.calls.iter().map(|(_, target)| *target));
        functions.insert(entry, Rc::new(function));
    }
    depth(&functions, 0, 1, &mut HashMap::new())?;
    let unreachable = ops
        .iter()
        .zip(&owner)
        .position(|(op, owner)| owner.is_none() && *op != Op::LoadImm64Hi);
    match unreachable {
        Some(pc) => Err(objection(pc, Fault::Unreachable)),
        None => Ok(functions),
    }
}

/// Frames from this function on. `frames` are live with it.
fn depth(
    functions: &HashMap<usize, Rc<Function>>,
    entry: usize,
    frames: usize,
    known: &mut HashMap<usize, usize>,
) -> Result<usize, Objection> {
    let Some(function) = functions.get(&entry) else {
        return Ok(0);
    };
    let mut deepest = 0;
    for (pc, target) in &function.calls {
        let below = match known.get(target) {
            Some(below) => *below,
            None if frames == MAX_FRAMES => return Err(objection(*pc, Fault::Depth)),
            None => depth(functions, *target, frames + 1, known)?,
        };
        if frames + below > MAX_FRAMES {
            return Err(objection(*pc, Fault::Depth));
        }
        deepest = deepest.max(below);
    }
    known.insert(entry, deepest + 1);
    Ok(deepest + 1)
}

/// Stack of each chain of calls against the limit. Chains are short: `depth` saw to that.
fn total_stack(
    functions: &HashMap<usize, Rc<Function>>,
    deepest: &HashMap<usize, i64>,
    limit: i64,
) -> Result<(), Objection> {
    fn total(
        functions: &HashMap<usize, Rc<Function>>,
        deepest: &HashMap<usize, i64>,
        entry: usize,
        known: &mut HashMap<usize, i64>,
    ) -> i64 {
        if let Some(known) = known.get(&entry) {
            return *known;
        }
        let own = deepest.get(&entry).copied().unwrap_or(0).max(1);
        let calls = functions.get(&entry).map_or(&[][..], |f| &f.calls);
        let below = calls
            .iter()
            .map(|(_, target)| total(functions, deepest, *target, known))
            .max();
        let sum = (own + 31) / 32 * 32 + below.unwrap_or(0);
        known.insert(entry, sum);
        sum
    }
    let bytes = total(functions, deepest, 0, &mut HashMap::new());
    if bytes > limit {
        return Err(objection(0, Fault::StackTotal { bytes, limit }));
    }
    Ok(())
}
