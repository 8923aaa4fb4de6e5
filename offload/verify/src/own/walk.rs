//! The walk over all paths of a program.
//!
//! Paths are followed in an order in which everything that leads to a place comes before it: loops
//! are unrolled, round by round, along the nesting [`graph`](super::graph) found, and calls are
//! entered where they are made. A place in the unrolled program thus gets all states that reach it
//! before it is gone on from. There states that others include are dropped, and if more than
//! `paths` are left, the most alike are joined. So the cost is at most `paths` times the length of
//! the unrolled program; and a walk that ends has shown that the program does, since every run of
//! the program is a way through what was walked.
//!
//! Joining loses what holds on each path alone. What is refused after a join is therefore tried
//! again with more paths kept apart.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Instant;

use dash_bpf::MapDef;
use dash_bpf::interp::MAX_FRAMES;
use dash_bpf::op::{Op, Reg, Registers};

use super::call::CallBack;
use super::fault::{Fault, Objection};
use super::graph::{self, Function};
use super::state::State;
use super::step::Next;
use super::value::{Id, MapRef, Value};
use super::{LOG, Limits, Seen, Walked};

/// A place in the unrolled program, ordered as it is walked: the calls that lead to it, then its
/// place in the function and the round of each loop around it.
type Key = Vec<u32>;

/// A call that is being walked.
#[derive(Debug)]
struct Site {
    /// The caller's own.
    parent: Option<Rc<Site>>,
    function: Rc<Function>,
    pc: usize,
    rounds: Vec<u32>,
    key: Key,
    /// It is a helper's: what returns is collected.
    callback: bool,
}

/// Where in the unrolled program.
#[derive(Clone, Debug)]
struct Place {
    site: Option<Rc<Site>>,
    function: Rc<Function>,
    pc: usize,
    /// Of the loops around it.
    rounds: Vec<u32>,
}

#[derive(Debug)]
struct Pending {
    place: Place,
    states: Vec<State>,
}

/// States at a loop's head in an earlier round.
#[derive(Debug)]
struct Round {
    /// The loop: its head's key without the round.
    of: Key,
    states: Vec<State>,
}

const ARGUMENTS: [Reg; 4] = [Reg::R1, Reg::R2, Reg::R3, Reg::R4];

/// One walk.
pub(super) struct Walk<'a> {
    ops: &'a [Op],
    maps: &'a [MapDef],
    limits: &'a Limits,
    /// States kept apart at one place.
    paths: usize,
    functions: &'a HashMap<usize, Rc<Function>>,
    pending: BTreeMap<Key, Pending>,
    rounds: Vec<Round>,
    /// By slot: whether its memory access reaches the context.
    context: Vec<Option<bool>>,
    /// By entry of a function: bytes of stack it uses.
    pub(super) deepest: HashMap<usize, i64>,
    /// What functions that helpers call returned with, joined.
    returned: Option<State>,
    /// By entry of a function: words of its frame that are read through other registers than its r10.
    pub(super) aside: HashMap<usize, u64>,
    /// More of them were found in this walk than were known when it started.
    pub(super) found_aside: bool,
    /// Entries of the functions whose frames are live.
    chain: Vec<usize>,
    last_id: Id,
    pub(super) joined: bool,
    bytes: usize,
    pub(super) walked: Walked,
    started: Instant,
    log: Option<&'a mut Vec<Seen>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        ops: &'a [Op],
        maps: &'a [MapDef],
        limits: &'a Limits,
        functions: &'a HashMap<usize, Rc<Function>>,
        paths: usize,
        started: Instant,
        log: Option<&'a mut Vec<Seen>>,
    ) -> Self {
        Self {
            ops,
            maps,
            limits,
            paths,
            functions,
            pending: BTreeMap::new(),
            rounds: Vec::new(),
            context: vec![None; ops.len()],
            deepest: HashMap::new(),
            returned: None,
            aside: HashMap::new(),
            found_aside: false,
            chain: Vec::new(),
            last_id: 0,
            joined: false,
            bytes: 0,
            walked: Walked::default(),
            started,
            log,
        }
    }

    pub(super) fn fresh_id(&mut self) -> Id {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn map(&self, map: MapRef) -> Result<&'a MapDef, Fault> {
        let index = usize::try_from(map.index).ok();
        let found = index.and_then(|i| self.maps.get(i));
        let found = match (found, map.inner) {
            (Some(outer), true) => outer.inner.as_deref().map(|inner| &inner.template),
            (found, _) => found,
        };
        found.ok_or(Fault::NoMap(map.index))
    }

    /// Notes how deep a frame is used.
    pub(super) fn reached_stack(&mut self, frame: usize, bytes: i64) {
        if let Some(entry) = self.chain.get(frame) {
            let deepest = self.deepest.entry(*entry).or_default();
            *deepest = bytes.max(*deepest);
        }
    }

    /// Notes that bytes of a frame are read through another register than r10 of its function.
    pub(super) fn read_aside(&mut self, frame: usize, from: i64, to: i64) {
        if let Some(entry) = self.chain.get(frame) {
            let known = self.aside.entry(*entry).or_default();
            let all = *known | graph::words(from, to);
            self.found_aside |= all != *known;
            *known = all;
        }
    }

    /// Words of a function's frame that may be read from a point on.
    fn words(&self, function: &Function, pc: usize) -> u64 {
        let aside = self.aside.get(&function.entry).copied().unwrap_or(0);
        function
            .point(pc)
            .map_or(u64::MAX, |point| point.words | aside)
    }

    /// Notes that an access reaches the context or not; false if it was otherwise before.
    pub(super) fn reaches_context(&mut self, pc: usize, is_context: bool) -> bool {
        match self.context.get_mut(pc) {
            Some(known) => *known.get_or_insert(is_context) == is_context,
            None => false,
        }
    }

    fn function(&self, entry: usize) -> Result<Rc<Function>, Fault> {
        self.functions.get(&entry).cloned().ok_or(Fault::Depth)
    }

    /// Walks the program from its first instruction.
    pub(super) fn run(&mut self) -> Result<(), (Objection, bool)> {
        let objection = |pc, fault, exact| {
            let known = String::new();
            (Objection { pc, fault, known }, exact)
        };
        let function = self.function(0).map_err(|f| objection(0, f, true))?;
        let place = Place {
            site: None,
            function,
            pc: 0,
            rounds: Vec::new(),
        };
        self.arrive(place.at_start(), State::entry())
            .map_err(|fault| objection(0, fault, false))?;
        self.drain()
    }

    /// Walks on from all places that states have reached.
    fn drain(&mut self) -> Result<(), (Objection, bool)> {
        let objection = |pc, fault, exact| {
            let known = String::new();
            (Objection { pc, fault, known }, exact)
        };
        while let Some((key, pending)) = self.pending.pop_first() {
            let Pending { place, states } = pending;
            let size = states.iter().map(State::size).sum();
            let exact = states.iter().all(|s| s.exact);
            self.round(&key, &place, &states)
                .map_err(|fault| objection(place.pc, fault, exact))?;
            self.chain = entries(&place);
            for state in states {
                self.follow(place.clone(), state)?;
            }
            self.bytes = self.bytes.saturating_sub(size);
        }
        Ok(())
    }

    /// At the head of a loop: a round that starts as an earlier one did shows that it goes on so.
    fn round(&mut self, key: &Key, place: &Place, states: &[State]) -> Result<(), Fault> {
        while self.rounds.last().is_some_and(|r| !key.starts_with(&r.of)) {
            self.rounds.pop();
        }
        let is_head = place
            .function
            .point(place.pc)
            .is_some_and(|p| p.loops.last() == Some(&place.pc));
        let (Some(round), true) = (place.rounds.last(), is_head) else {
            return Ok(());
        };
        let of = &key[..key.len() - 2];
        if let Some(earlier) = self.rounds.iter_mut().find(|r| r.of == of) {
            if same(&earlier.states, states) {
                return Err(Fault::Endless);
            }
            if round.is_power_of_two() {
                earlier.states = states.to_vec();
            }
        } else {
            self.rounds.push(Round {
                of: of.to_vec(),
                states: states.to_vec(),
            });
        }
        Ok(())
    }

    /// Follows one state from a place to the places where paths meet next.
    fn follow(&mut self, place: Place, state: State) -> Result<(), (Objection, bool)> {
        let mut todo = vec![(place, state)];
        while let Some((place, mut state)) = todo.pop() {
            let pc = place.pc;
            let next = self.instruction(pc, &mut state);
            let exact = state.exact;
            let next = match next {
                Ok(next) => next,
                Err(fault) => {
                    let known = state.describe();
                    return Err((Objection { pc, fault, known }, exact));
                }
            };
            let arrived = match next {
                Next::Goto(to) => self.onward(place, to, state, &mut todo),
                Next::Either(target, states) => {
                    let [not_taken, taken] = *states;
                    let mut arrived = Ok(());
                    if let Some(state) = not_taken {
                        arrived = self.onward(place.clone(), pc + 1, state, &mut todo);
                    }
                    if let Some(state) = taken {
                        arrived =
                            arrived.and_then(|()| self.onward(place, target, state, &mut todo));
                    }
                    arrived
                }
                Next::Call(target) => self.enter(&place, target, state),
                Next::CallBack(call) => {
                    let state = self.call_back(&place, &call, state)?;
                    self.onward(place, pc + 1, state, &mut todo)
                }
                Next::Exit => self.leave(place, state),
            };
            if let Err(fault) = arrived {
                let known = String::new();
                return Err((Objection { pc, fault, known }, exact));
            }
        }
        Ok(())
    }

    fn instruction(&mut self, pc: usize, state: &mut State) -> Result<Next, Fault> {
        self.budget()?;
        if let Some(log) = self.log.as_deref_mut().filter(|log| log.len() < LOG) {
            let known = state.describe();
            log.push(Seen { pc, known });
        }
        match self.ops.get(pc) {
            Some(op) => self.step(pc, *op, state),
            None => Err(Fault::Unreachable),
        }
    }

    /// On to the instruction `to` of the same function: at once, or when all paths are there.
    fn onward(
        &mut self,
        mut place: Place,
        to: usize,
        state: State,
        todo: &mut Vec<(Place, State)>,
    ) -> Result<(), Fault> {
        if place.go(to) {
            self.arrive(place, state)
        } else {
            todo.push((place, state));
            Ok(())
        }
    }

    fn budget(&mut self) -> Result<(), Fault> {
        let too_complex = |what, limit| Err(Fault::TooComplex { what, limit });
        self.walked.instructions += 1;
        if self.walked.instructions > self.limits.instructions {
            return too_complex("instructions walked", self.limits.instructions);
        }
        if self.bytes > self.limits.memory {
            return too_complex("bytes of states", self.limits.memory as u64);
        }
        let looks = self.walked.instructions.is_multiple_of(1024);
        if looks && self.started.elapsed() > self.limits.time {
            return too_complex("milliseconds", self.limits.time.as_millis() as u64);
        }
        Ok(())
    }

    fn enter(&mut self, place: &Place, target: usize, state: State) -> Result<(), Fault> {
        self.enter_with(place, target, state, None)
    }

    /// Enters a function: one that is called, or with these arguments, one that a helper calls.
    fn enter_with(
        &mut self,
        place: &Place,
        target: usize,
        mut state: State,
        args: Option<&[Value; 4]>,
    ) -> Result<(), Fault> {
        if state.depth() + 1 == MAX_FRAMES {
            return Err(Fault::Depth);
        }
        let function = self.function(target)?;
        let live_after = place
            .function
            .point(place.pc + 1)
            .map_or(Registers::NONE, |p| p.live);
        let frame = state.depth();
        state.keep_words(frame, self.words(&place.function, place.pc + 1));
        state.enter();
        state.keep_saved(live_after);
        for (r, value) in ARGUMENTS.into_iter().zip(args.into_iter().flatten()) {
            state.set(r, *value);
        }
        let site = Site {
            parent: place.site.clone(),
            function: Rc::clone(&place.function),
            pc: place.pc,
            rounds: place.rounds.clone(),
            key: place.key(),
            callback: args.is_some(),
        };
        let place = Place {
            site: Some(Rc::new(site)),
            function,
            pc: target,
            rounds: Vec::new(),
        };
        self.arrive(place.at_start(), state)
    }

    fn leave(&mut self, place: Place, mut state: State) -> Result<(), Fault> {
        let Some(site) = place.site else {
            return Ok(());
        };
        if site.callback {
            match state.get(Reg::R0) {
                Value::Number { set, .. } if set.wide.umax <= 1 => {}
                other => {
                    return Err(Fault::CallbackReturn {
                        is: other.to_string(),
                    });
                }
            }
            state.leave();
            state.clobber();
            self.returned = Some(match self.returned.take() {
                Some(others) => others.join(&state, &mut self.last_id),
                None => state,
            });
            return Ok(());
        }
        state.leave();
        let mut caller = Place {
            site: site.parent.clone(),
            function: Rc::clone(&site.function),
            pc: site.pc,
            rounds: site.rounds.clone(),
        };
        caller.go(site.pc + 1);
        self.arrive(caller, state)
    }

    /// What holds after a helper has called a function any number of times: what holds before and is
    /// kept by each call.
    fn call_back(
        &mut self,
        place: &Place,
        call: &CallBack,
        before: State,
    ) -> Result<State, (Objection, bool)> {
        /// Joined so often, values that still change are given up.
        const WIDENED: usize = 2;
        /// Widening ends long before.
        const ROUNDS: usize = 64;
        let exact = before.exact;
        let fails = |fault| {
            let (pc, known) = (place.pc, String::new());
            (Objection { pc, fault, known }, exact)
        };
        let mut head = before;
        // What is not read later need not be kept by each round.
        let after = place.pc + 1;
        if let Some(point) = place.function.point(after) {
            head.keep(point.live);
        }
        head.keep_words(head.depth(), self.words(&place.function, after));
        for round in 0..ROUNDS {
            // The walk of the function is one of its own: places outside it wait.
            let pending = std::mem::take(&mut self.pending);
            let rounds = std::mem::take(&mut self.rounds);
            let outer = self.returned.take();
            let chain = self.chain.clone();
            self.enter_with(place, call.entry, head.clone(), Some(&call.args))
                .map_err(fails)?;
            self.drain()?;
            self.pending = pending;
            self.rounds = rounds;
            self.chain = chain;
            let returned = std::mem::replace(&mut self.returned, outer);
            let Some(returned) = returned.filter(|r| !head.includes(r)) else {
                head.set(Reg::R0, Value::UNKNOWN);
                return Ok(head);
            };
            let joined = head.join(&returned, &mut self.last_id);
            self.joined = true;
            head = if round < WIDENED {
                joined
            } else {
                head.widen(joined)
            };
        }
        Err(fails(Fault::TooComplex {
            what: "rounds of a function that a helper calls",
            limit: ROUNDS as u64,
        }))
    }

    /// A state reaches a place where paths meet.
    fn arrive(&mut self, place: Place, mut state: State) -> Result<(), Fault> {
        if let Some(point) = place.function.point(place.pc) {
            state.keep(point.live);
            let frame = state.depth();
            state.keep_words(frame, self.words(&place.function, place.pc));
        }
        let key = place.key();
        let pending = self.pending.entry(key).or_insert_with(|| Pending {
            place,
            states: Vec::new(),
        });
        let states = &mut pending.states;
        let mut size = state.size();
        loop {
            if states.iter().any(|known| known.includes(&state)) {
                return Ok(());
            }
            states.retain(|known| {
                let keep = !state.includes(known);
                if !keep {
                    self.bytes = self.bytes.saturating_sub(known.size());
                }
                keep
            });
            if states.len() < self.paths {
                break;
            }
            let nearest = (0..states.len()).min_by_key(|i| states[*i].distance(&state));
            let Some(nearest) = nearest else { break };
            let other = states.swap_remove(nearest);
            self.bytes = self.bytes.saturating_sub(other.size());
            state = other.join(&state, &mut self.last_id);
            size = state.size();
            self.joined = true;
        }
        self.bytes += size;
        states.push(state);
        self.walked.states += 1;
        self.walked.memory = self.walked.memory.max(self.bytes);
        Ok(())
    }
}

/// Entries of the functions whose frames are live at a place, the main program first.
fn entries(place: &Place) -> Vec<usize> {
    let mut entries = vec![place.function.entry];
    let mut site = &place.site;
    while let Some(at) = site {
        entries.push(at.function.entry);
        site = &at.parent;
    }
    entries.reverse();
    entries
}

/// Whether two rounds start with the same states.
fn same(a: &[State], b: &[State]) -> bool {
    let equal = |x: &State, y: &State| x.includes(y) && y.includes(x);
    a.len() == b.len()
        && a.iter().all(|x| b.iter().any(|y| equal(x, y)))
        && b.iter().all(|y| a.iter().any(|x| equal(x, y)))
}

impl Place {
    fn key(&self) -> Key {
        let mut key = self.site.as_ref().map_or_else(Vec::new, |s| s.key.clone());
        if let Some(point) = self.function.point(self.pc) {
            for (index, order) in point.order.iter().enumerate() {
                key.push(*order);
                key.extend(self.rounds.get(index));
            }
        }
        key
    }

    /// The first instruction of a function that may itself be the head of a loop.
    fn at_start(mut self) -> Self {
        let loops = self.function.point(self.pc).map_or(0, |p| p.loops.len());
        self.rounds = vec![0; loops];
        self
    }

    /// Goes on to the instruction `to` of the same function; true if paths meet there.
    fn go(&mut self, to: usize) -> bool {
        let (Some(here), Some(there)) = (self.function.point(self.pc), self.function.point(to))
        else {
            self.pc = to;
            return true;
        };
        let shared = here
            .loops
            .iter()
            .zip(&there.loops)
            .take_while(|(a, b)| a == b)
            .count();
        self.pc = to;
        self.rounds.truncate(shared);
        let back = there.loops.last() == Some(&to) && shared == there.loops.len();
        if back && let Some(round) = self.rounds.last_mut() {
            *round += 1;
        }
        self.rounds.resize(there.loops.len(), 0);
        there.merge
    }
}
