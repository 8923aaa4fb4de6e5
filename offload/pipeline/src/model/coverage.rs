//! Which parts of pipelines packets have reached, and which none has.
//!
//! A place is a stage, a statement, or one way a statement goes on (`then`, `else`, `hit`, `miss`,
//! `reset`). It is named by the statements around it, not by its line, so that runs of pipelines of
//! different shapes add up: what one shape's packets reached counts for the same statement in another
//! shape. Lines are kept for people: those of the IR text the place was first met in.
//!
//! ```text
//! Model::record_coverage -> packets -> Model::take_coverage -> Coverage::absorb -> Coverage::missed
//! ```

mod never;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use dash_wire::drop::DropReason;
use dash_wire::tables::flow_action;

use crate::ir::{Pipeline, Stmt};
use crate::text;

/// How a statement went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Arm {
    /// It ran.
    Ran,
    /// The condition held.
    Then,
    /// It did not.
    Else,
    /// Something was found.
    Hit,
    /// Nothing was.
    Miss,
    /// A flow was, and the packet ended it.
    Reset,
    /// A flow was, and the packet decides it again.
    Stale,
    /// The same, because it comes from elsewhere.
    Moved,
}

impl Arm {
    fn name(self) -> &'static str {
        match self {
            Self::Ran => "",
            Self::Then => "then",
            Self::Else => "else",
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Reset => "reset",
            Self::Stale => "stale",
            Self::Moved => "moved",
        }
    }
}

/// What packets reached in pipelines that may be of different shapes.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    places: BTreeMap<Place, Seen>,
    drops: BTreeSet<DropReason>,
    /// Bits of [`flow_action`] that `apply` met.
    actions: u16,
}

/// A place in a pipeline: a stage, and from the outermost in the statements and the ways into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    stage: String,
    path: Vec<String>,
}

#[derive(Clone, Debug)]
struct Seen {
    reached: bool,
    /// Where it is for people: which configuration, and the line of its IR.
    at: Origin,
    /// Why it cannot be reached.
    never: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    pipeline: String,
    line: usize,
}

/// Something that no packet reached, or that one did which should be impossible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Pipeline and line of its IR, empty for what has no place of its own.
    pub at: String,
    /// What.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.as_str() {
            "" => f.write_str(&self.what),
            at => write!(f, "{at}: {}", self.what),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage {}", self.stage)?;
        for part in &self.path {
            write!(f, " / {part}")?;
        }
        Ok(())
    }
}

impl Coverage {
    /// Adds the places of a pipeline as not reached, unless they were in another. `name` says which
    /// pipeline it is to who reads a report.
    ///
    /// # Errors
    /// The text is no pipeline.
    pub fn expect(&mut self, name: &str, ir: &str) -> Result<(), text::TextError> {
        let (pipeline, lines) = text::parse_with_lines(ir)?;
        walk(&pipeline, &lines, &mut |place| {
            self.see(name, place, false);
        });
        Ok(())
    }

    /// Adds what another run reached.
    pub fn absorb(&mut self, other: Self) {
        for (place, seen) in other.places {
            let ours = self.places.entry(place).or_insert_with(|| seen.clone());
            ours.reached |= seen.reached;
        }
        self.drops.extend(other.drops);
        self.actions |= other.actions;
    }

    /// How many places were reached, and of how many.
    pub fn count(&self) -> (usize, usize) {
        let reached = self.places.values().filter(|seen| seen.reached).count();
        (reached, self.places.len())
    }

    /// Places that no packet can reach, with the reason.
    pub fn impossible(&self) -> impl Iterator<Item = (String, &'static str)> {
        let never = self.places.iter().filter_map(|(place, seen)| {
            let why = seen.never.filter(|_| self.entered(place))?;
            Some((place.to_string(), why))
        });
        never.chain(never::REASONS.iter().map(|(reason, why)| {
            let what = format!("drop reason {}", reason.name());
            (what, *why)
        }))
    }

    /// Whether a packet was dropped for it.
    pub fn dropped(&self, reason: DropReason) -> bool {
        self.drops.contains(&reason)
    }

    /// Everything that could have been reached and was not, and what was reached against the list of
    /// the impossible. Of a part that nothing entered only the entrance is named.
    pub fn missed(&self) -> Vec<Finding> {
        let mut found: Vec<(&Origin, Finding)> = Vec::new();
        for (place, seen) in &self.places {
            let what = match (seen.reached, seen.never) {
                (false, None) if self.entered(place) => format!("no packet reached {place}"),
                (true, Some(why)) => {
                    format!("a packet reached {place}, which was thought impossible: {why}")
                }
                _ => continue,
            };
            let at = format!("{} line {}", seen.at.pipeline, seen.at.line);
            found.push((&seen.at, Finding { at, what }));
        }
        found.sort_by_key(|(at, _)| *at);
        let mut found: Vec<Finding> = found.into_iter().map(|(_, finding)| finding).collect();
        let mut whole = |what| {
            found.push(Finding {
                at: String::new(),
                what,
            });
        };
        for reason in DropReason::ALL {
            match (self.dropped(*reason), never_dropped(*reason)) {
                (false, None) => whole(format!("no packet was dropped for {}", reason.name())),
                (true, Some(why)) => whole(format!(
                    "a packet was dropped for {}, which was thought impossible: {why}",
                    reason.name()
                )),
                _ => {}
            }
        }
        for (bit, name) in flow_action::NAMES {
            if self.actions & bit == 0 {
                whole(format!("no packet was applied the action {name}"));
            }
        }
        found
    }

    /// Whether packets came to where the place is.
    fn entered(&self, place: &Place) -> bool {
        let Some((_, around)) = place.path.split_last() else {
            return true;
        };
        let parent = Place {
            stage: place.stage.clone(),
            path: around.to_vec(),
        };
        self.places.get(&parent).is_some_and(|seen| seen.reached)
    }

    fn see(&mut self, pipeline: &str, at: Visit<'_>, reached: bool) {
        let seen = self.places.entry(at.place).or_insert_with(|| Seen {
            reached: false,
            at: Origin {
                pipeline: pipeline.to_owned(),
                line: at.line,
            },
            never: at.of.and_then(|(stmt, arm)| never::why(stmt, arm)),
        });
        seen.reached |= reached;
    }
}

/// Why no packet is dropped for a reason; `None` where packets are.
pub fn never_dropped(reason: DropReason) -> Option<&'static str> {
    let found = never::REASONS.iter().find(|(r, _)| *r == reason);
    found.map(|(_, why)| *why)
}

/// What one model's packets reached; settled before its pipeline goes.
pub(super) struct Recorder {
    name: String,
    coverage: Coverage,
    /// Statements by their address in the pipeline at hand.
    reached: HashSet<(usize, Arm)>,
}

impl Recorder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            coverage: Coverage::default(),
            reached: HashSet::new(),
        }
    }

    pub(super) fn reach(&mut self, stmt: &Stmt, arm: Arm) {
        self.reached.insert((address(stmt), arm));
    }

    pub(super) fn dropped(&mut self, reason: DropReason) {
        self.coverage.drops.insert(reason);
    }

    pub(super) fn applied(&mut self, actions: u16) {
        self.coverage.actions |= actions;
    }

    /// Names what was reached in a pipeline that is about to go, or asked about.
    pub(super) fn settle(&mut self, pipeline: &Pipeline, lines: &[usize]) {
        let reached = std::mem::take(&mut self.reached);
        let entered = |stmt: &Stmt| reached.contains(&(address(stmt), Arm::Ran));
        walk(pipeline, lines, &mut |visit| {
            let here = match visit.of {
                Some((stmt, arm)) => reached.contains(&(address(stmt), arm)),
                None => visit.body.iter().any(entered),
            };
            self.coverage.see(&self.name, visit, here);
        });
    }

    pub(super) fn take(&mut self) -> Coverage {
        std::mem::take(&mut self.coverage)
    }
}

/// A pipeline at hand does not move, so an address names a statement of it.
fn address(stmt: &Stmt) -> usize {
    std::ptr::from_ref(stmt).addr()
}

struct Visit<'p> {
    place: Place,
    line: usize,
    /// `None` for a stage, whose statements are in `body`.
    of: Option<(&'p Stmt, Arm)>,
    body: &'p [Stmt],
}

/// Every place of a pipeline. `lines` has a line for each statement in the order of the text.
fn walk<'p>(pipeline: &'p Pipeline, lines: &[usize], visit: &mut impl FnMut(Visit<'p>)) {
    let mut lines = lines.iter().copied();
    for stage in &pipeline.stages {
        let place = Place {
            stage: stage.name.clone(),
            path: Vec::new(),
        };
        visit(Visit {
            place: place.clone(),
            line: lines.clone().next().unwrap_or(0),
            of: None,
            body: &stage.body,
        });
        block(&stage.body, &place, &mut lines, visit);
    }
}

/// How a statement is called. What a flow statement says more depends on the shape, and is no place of
/// its own.
fn head(stmt: &Stmt) -> String {
    match stmt {
        Stmt::FlowLookup { peek: true, .. } => "flow lookup peek".to_owned(),
        Stmt::FlowLookup { .. } => "flow lookup".to_owned(),
        Stmt::FlowCreate { .. } => "flow create".to_owned(),
        _ => text::print_stmt(stmt),
    }
}

fn block<'p>(
    body: &'p [Stmt],
    around: &Place,
    lines: &mut impl Iterator<Item = usize>,
    visit: &mut impl FnMut(Visit<'p>),
) {
    let mut alike: BTreeMap<String, usize> = BTreeMap::new();
    for stmt in body {
        let line = lines.next().unwrap_or(0);
        let mut place = around.clone();
        let head = head(stmt);
        let n = alike.entry(head.clone()).or_default();
        *n += 1;
        place.path.push(match n {
            1 => head,
            n => format!("{head} (the {n}.)"),
        });
        let mut arms: Vec<(Arm, &[Stmt])> = vec![(Arm::Ran, &[])];
        match stmt {
            Stmt::Match { hit, miss, .. } => arms.extend([(Arm::Hit, &hit[..]), (Arm::Miss, miss)]),
            Stmt::If { then, els, .. } => arms.extend([(Arm::Then, &then[..]), (Arm::Else, els)]),
            Stmt::FlowLookup {
                epoch,
                learn,
                hit,
                miss,
                ..
            } => {
                arms.extend([(Arm::Hit, &hit[..]), (Arm::Miss, miss), (Arm::Reset, &[])]);
                if *epoch {
                    arms.push((Arm::Stale, &[]));
                }
                if *learn {
                    arms.push((Arm::Moved, &[]));
                }
            }
            _ => {}
        }
        for (arm, body) in arms {
            let mut place = place.clone();
            if arm != Arm::Ran {
                place.path.push(arm.name().to_owned());
            }
            visit(Visit {
                place: place.clone(),
                line,
                of: Some((stmt, arm)),
                body,
            });
            block(body, &place, lines, visit);
        }
    }
}

#[cfg(test)]
mod tests;
