//! All programs of an object that its entry can reach by tail calls, each analysed.
//!
//! Tail calls become jumps, so the number of them in a row is known when compiling: cycles and
//! chains longer than Linux allows at run time are refused here and nothing is counted later.

use std::collections::BTreeSet;

use dash_bpf::{Object, Op, ProgramKind, decode};

use crate::analysis::{self, Analysis};
use crate::code::{Options, Part};
use crate::error::{NativeError, Reason, Site};
use crate::region::{self, MAX_STEPS, Region};
use crate::stack::{self, Frame};
use crate::untouched;

/// Tail calls one run may make (`MAX_TAIL_CALL_CNT`).
pub(crate) const MAX_TAIL_CALLS: usize = 33;

/// One program, ready to be lowered.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) region: Region,
    pub(crate) analysis: Analysis,
    /// Homes of stack bytes, by depth.
    pub(crate) frames: Vec<Frame>,
    /// The function may start here.
    pub(crate) root: bool,
    /// By step: everything that runs before it in the function reads only. Empty where nobody asks.
    pub(crate) untouched: Vec<bool>,
}

/// Decodes, expands and analyses the programs of the part, the one it starts with first.
pub(crate) fn units(object: &Object, options: &Options) -> Result<Vec<Unit>, NativeError> {
    if let Part::Resume(first, then) = options.part {
        let path = Options {
            part: Part::Path(first, then),
            ..*options
        };
        let path = from(object, &path, &[first])?;
        let left = path.iter().flat_map(|unit| &unit.analysis.tail_calls);
        let inside = |&p: &u32| path.iter().any(|unit| unit.region.program == p as usize);
        let roots: BTreeSet<u32> = left.copied().filter(|p| !inside(p)).collect();
        return from(object, options, &roots.into_iter().collect::<Vec<_>>());
    }
    let first = match options.part {
        Part::Path(first, _) | Part::Alone(first) => first,
        Part::Whole | Part::Before(_) | Part::Resume(..) => 0,
    };
    from(object, options, &[first])
}

/// The programs that a function with these entries has.
fn from(object: &Object, options: &Options, roots: &[u32]) -> Result<Vec<Unit>, NativeError> {
    let mut units: Vec<Unit> = Vec::new();
    let mut budget = MAX_STEPS;
    let mut asked = vec![false; object.programs.len()];
    let follows = |&p: &u32| match options.part {
        Part::Before(cut) => p != cut,
        Part::Path(_, then) => p == then,
        Part::Whole | Part::Resume(..) | Part::Alone(_) => true,
    };
    let mut work: Vec<usize> = roots.iter().rev().map(|&root| root as usize).collect();
    while let Some(index) = work.pop() {
        let Some(program) = object.programs.get(index) else {
            return Err(NativeError::NoPrograms);
        };
        if std::mem::replace(&mut asked[index], true) {
            continue;
        }
        let ops: Vec<Op> = decode(&program.insns).map_err(|source| NativeError::Decode {
            program: program.name.clone(),
            source,
        })?;
        let region = region::expand(index, &program.name, program.kind, &ops, &mut budget)?;
        let analysis = analysis::analyse(&region, object, program.kind, options)?;
        // Each kind of program is a function of another signature.
        let kind_of = |p: u32| object.programs.get(p as usize).map(|p| p.kind);
        let foreign = |&p: &u32| kind_of(p) != Some(ProgramKind::Xdp);
        if let Some(&p) = analysis.tail_calls.iter().find(|p| foreign(p)) {
            return Err(NativeError::At {
                site: Site {
                    program: program.name.clone(),
                    pc: 0,
                },
                reason: Reason::TailCallProgram(p),
            });
        }
        let followed = analysis.tail_calls.iter().filter(|p| follows(p));
        work.extend(followed.map(|&p| p as usize));
        let frames = stack::layout(&analysis, region.frames, options.promote_stack);
        let begins = matches!(options.part, Part::Path(..)) && units.is_empty();
        let untouched = match options.found {
            Some(_) if begins => untouched::steps(&region, &analysis),
            _ => Vec::new(),
        };
        units.push(Unit {
            region,
            analysis,
            frames,
            root: roots.contains(&(index as u32)),
            untouched,
        });
    }
    check_chains(&units)?;
    Ok(units)
}

/// Refuses cycles and chains that are too long.
fn check_chains(units: &[Unit]) -> Result<(), NativeError> {
    let unit_of = |program: u32| {
        units
            .iter()
            .position(|u| u.region.program == program as usize)
    };
    let targets: Vec<Vec<usize>> = units
        .iter()
        .map(|u| {
            u.analysis
                .tail_calls
                .iter()
                .filter_map(|&p| unit_of(p))
                .collect()
        })
        .collect();
    // Longest chain from each unit, once all its targets are done; on the path until then.
    let mut longest: Vec<Option<usize>> = vec![None; units.len()];
    let mut on_path = vec![false; units.len()];
    let mut stack: Vec<usize> = (0..units.len()).filter(|&unit| units[unit].root).collect();
    while let Some(&unit) = stack.last() {
        if longest[unit].is_some() {
            stack.pop();
            continue;
        }
        let open = targets[unit].iter().find(|&&t| longest[t].is_none());
        on_path[unit] = true;
        match open {
            Some(&next) if on_path[next] => {
                return Err(NativeError::TailCallCycle {
                    program: units[next].region.name.clone(),
                });
            }
            Some(&next) => stack.push(next),
            None => {
                let below = targets[unit].iter().filter_map(|&t| longest[t]);
                longest[unit] = Some(below.max().map_or(0, |n| n + 1));
                on_path[unit] = false;
                stack.pop();
            }
        }
    }
    let length = longest.into_iter().flatten().max().unwrap_or(0);
    if length > MAX_TAIL_CALLS {
        return Err(NativeError::TailCallDepth {
            length,
            limit: MAX_TAIL_CALLS,
        });
    }
    Ok(())
}
