//! The forward analysis of a region: where registers and stack slots are known to hold the
//! context, a map, a constant or a stack address.
//!
//! Its result is one [`Note`] a step, all that lowering needs to know, and the list of stack
//! accesses, from which [`stack`](crate::stack) decides what lives in registers.

use std::collections::{BTreeSet, HashMap};

use dash_bpf::op::{AluOp, AtomicOp, Cond, Imm64};
use dash_bpf::{Object, Op, Operand, ProgramKind, Reg, Size, Width, helper};

use crate::calls::{self, Callee};
use crate::code::{Options, Part};
use crate::error::{NativeError, Reason};
use crate::facts::{Escaped, Fact, State};
use crate::liveness;
use crate::region::{Action, CallBack, NONE, Region, register_bit};

/// What lowering needs to know of a step beyond its instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Note {
    /// Nothing.
    #[default]
    None,
    /// A load of a context field at this offset of `struct xdp_md`.
    Ctx(i64),
    /// A memory access to this place of a frame, or arithmetic that yields its address.
    Stack(Place),
    /// A helper call.
    Call(Callee),
    /// A conditional jump that always (`true`) or never is taken.
    Decided(bool),
}

/// A byte of a frame, as offset from its r10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) depth: u8,
    pub(crate) off: i16,
}

/// How stack bytes are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UseKind {
    /// A load or store.
    Value,
    /// Their address matters: helpers, atomics.
    Address,
}

/// One use of stack bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StackUse {
    pub(crate) place: Place,
    pub(crate) size: usize,
    pub(crate) kind: UseKind,
}

/// Registers and what they hold, of the frame of a jump: where it is not taken, and where it is.
pub(crate) type Ways = [Vec<(Reg, u64)>; 2];

/// What is known of a region.
#[derive(Debug)]
pub(crate) struct Analysis {
    /// By step.
    pub(crate) notes: Vec<Note>,
    /// By step: whether it can run.
    pub(crate) reached: Vec<bool>,
    /// By step: whether a block starts there.
    pub(crate) leader: Vec<bool>,
    pub(crate) uses: Vec<StackUse>,
    pub(crate) escaped: Escaped,
    /// By step of a conditional jump: registers that are constants on its ways, if paths meet there. Made on
    /// the way, and not before the jump, they cost nothing where it is not taken.
    pub(crate) constants: HashMap<u32, Ways>,
    /// Programs this one may end in a tail call to.
    pub(crate) tail_calls: Vec<u32>,
    /// The program reads or moves the metadata in front of the packet.
    pub(crate) metadata: bool,
}

/// Analyses a region.
pub(crate) fn analyse(
    region: &Region,
    object: &Object,
    kind: ProgramKind,
    options: &Options,
) -> Result<Analysis, NativeError> {
    let postorder = liveness::postorder(region);
    let live = liveness::live_in(region, kind, &postorder);
    let (leader, meet) = leaders(region, &postorder);
    let mut rank = vec![0u32; region.steps.len()];
    for (i, &step) in postorder.iter().rev().enumerate() {
        rank[step as usize] = i as u32;
    }
    let entry = match kind {
        ProgramKind::Xdp => State::entry(Fact::Ctx(0), Fact::Const(0)),
        ProgramKind::Raw => State::entry(Fact::Other, Fact::Other),
    };
    let mut flow = Flow {
        region,
        object,
        kind,
        options,
        escaped: Escaped::default(),
        live: &live,
        meet: &meet,
        joined: Vec::new(),
        record: None,
    };
    // An escape discovered late weakens what stores are allowed to keep, so start over; each round
    // adds a frame, and there are at most `MAX_FRAMES`.
    let states = loop {
        let before = flow.escaped;
        let states = flow.fixpoint(&entry, &live, &leader, &rank)?;
        if flow.escaped == before {
            break states;
        }
    };
    let steps = region.steps.len();
    flow.record = Some(Analysis {
        notes: vec![Note::None; steps],
        reached: vec![false; steps],
        leader: Vec::new(),
        uses: Vec::new(),
        escaped: flow.escaped,
        constants: HashMap::new(),
        tail_calls: Vec::new(),
        metadata: false,
    });
    flow.joined = states;
    for first in 0..steps {
        if let Some(mut state) = flow.joined[first].clone() {
            flow.walk(first, &mut state, &leader, |_, _, _| {})?;
        }
    }
    let mut analysis = flow.record.take().expect("set above, taken only here");
    analysis.leader = leader;
    Ok(analysis)
}

/// Steps where a block starts: the entry, successors of branches, and where paths meet; and those last ones
/// alone.
fn leaders(region: &Region, postorder: &[u32]) -> (Vec<bool>, Vec<bool>) {
    let mut leader = vec![false; region.steps.len()];
    let (mut seen, mut meet) = (leader.clone(), leader.clone());
    leader[0] = true;
    for &i in postorder {
        let step = &region.steps[i as usize];
        for s in step.successors() {
            let s = s as usize;
            let again = std::mem::replace(&mut seen[s], true);
            meet[s] |= again;
            leader[s] |= again || step.taken != NONE;
        }
    }
    (leader, meet)
}

/// Where control goes after a step.
enum Flows {
    /// To the step's successors.
    All,
    /// Only along the fall-through, or only along the taken edge.
    Only(u32),
    /// Nowhere.
    Nowhere,
}

struct Flow<'a> {
    region: &'a Region,
    object: &'a Object,
    kind: ProgramKind,
    options: &'a Options,
    escaped: Escaped,
    /// By step: registers that may be read from there on.
    live: &'a [u128],
    /// By step: whether several others lead there.
    meet: &'a [bool],
    /// States at block starts, in the last pass.
    joined: Vec<Option<State>>,
    /// Set in the last pass.
    record: Option<Analysis>,
}

impl Flow<'_> {
    /// States at block starts, once nothing changes any more.
    fn fixpoint(
        &mut self,
        entry: &State,
        live: &[u128],
        leader: &[bool],
        rank: &[u32],
    ) -> Result<Vec<Option<State>>, NativeError> {
        let mut states: Vec<Option<State>> = vec![None; leader.len()];
        states[0] = Some(entry.clone());
        let mut work = BTreeSet::from([(rank[0], 0usize)]);
        while let Some((_, first)) = work.pop_first() {
            let Some(mut state) = states[first].clone() else {
                continue;
            };
            self.walk(first, &mut state, leader, |escaped, to, state| {
                let changed = match &mut states[to] {
                    Some(known) => known.join(state, live[to], escaped),
                    empty => {
                        let mut state = state.clone();
                        state.prune(live[to]);
                        *empty = Some(state);
                        true
                    }
                };
                if changed {
                    work.insert((rank[to], to));
                }
            })?;
        }
        Ok(states)
    }

    /// Runs a block, calling `arrive` for each block it may go on to.
    fn walk(
        &mut self,
        first: usize,
        state: &mut State,
        leader: &[bool],
        mut arrive: impl FnMut(&mut Escaped, usize, &State),
    ) -> Result<(), NativeError> {
        let mut i = first;
        loop {
            if let Some(record) = &mut self.record {
                record.reached[i] = true;
            }
            let flows = self.step(i, state)?;
            let step = &self.region.steps[i];
            let (next, taken) = match flows {
                Flows::All => (step.next, step.taken),
                Flows::Only(to) => (NONE, to),
                Flows::Nowhere => (NONE, NONE),
            };
            if taken != NONE {
                arrive(&mut self.escaped, taken as usize, state);
            }
            match next as usize {
                _ if next == NONE => return Ok(()),
                next if leader[next] => {
                    arrive(&mut self.escaped, next, state);
                    return Ok(());
                }
                next => i = next,
            }
        }
    }

    fn note(&mut self, i: usize, note: Note) {
        if let Some(record) = &mut self.record {
            record.notes[i] = note;
        }
    }

    fn step(&mut self, i: usize, state: &mut State) -> Result<Flows, NativeError> {
        let op = match self.region.steps[i].action {
            Action::Op(op) => op,
            Action::Enter => {
                state.enter();
                return Ok(Flows::All);
            }
            Action::Leave => {
                state.leave(&mut self.escaped);
                return Ok(Flows::All);
            }
            Action::Return => {
                self.escaped.lose(state.get(Reg::R0));
                return Ok(Flows::All);
            }
            Action::CallBack(_) | Action::Round(_) => return Ok(Flows::All),
            Action::EnterRound(call) => {
                let context = state.get(Reg::R3);
                state.enter_with(match call {
                    CallBack::Loop => [Fact::Other, context, Fact::Const(0), Fact::Const(0)],
                    // A key, which is no element, and a value.
                    CallBack::Elements => [state.get(Reg::R1), Fact::Other, Fact::Element, context],
                });
                return Ok(Flows::All);
            }
            Action::Again => {
                state.leave_round(&mut self.escaped);
                return Ok(Flows::All);
            }
            Action::Done => {
                state.clobber(Fact::Other);
                return Ok(Flows::All);
            }
        };
        match op {
            Op::Alu {
                width,
                op,
                dst,
                src,
            } => {
                let fact = self.alu(width, op, state.get(dst), operand(state, src));
                state.set(dst, fact);
                if let Fact::Frame { depth, off } = fact
                    && let Ok(off) = i16::try_from(off)
                {
                    self.note(i, Note::Stack(Place { depth, off }));
                }
            }
            Op::Neg { dst, .. } | Op::Endian { dst, .. } => {
                let fact = self.escaped.lose(state.get(dst));
                state.set(dst, fact);
            }
            Op::LoadImm64 { dst, imm } => {
                let fact = self.load_imm64(i, imm)?;
                state.set(dst, fact);
            }
            Op::LoadImm64Hi | Op::Jump { .. } => {}
            Op::Load {
                size,
                signed,
                dst,
                base,
                off,
            } => {
                let fact = self.load(i, state, size, signed, base, off)?;
                state.set(dst, fact);
            }
            Op::Store {
                size,
                base,
                off,
                src,
            } => {
                let value = operand(state, src);
                self.store(i, state, size, base, off, value)?;
            }
            Op::Atomic {
                size,
                op,
                fetch,
                base,
                off,
                src,
            } => {
                // What a pointer becomes by arithmetic in memory is not followed.
                let value = self.escaped.lose(state.get(src));
                self.store(i, state, size, base, off, Fact::Other)?;
                if value == Fact::Mixed {
                    return Err(self.region.error(i, Reason::CtxProvenance));
                }
                if let Fact::Frame { depth, off: base } = state.get(base) {
                    let off = base + i64::from(off);
                    self.stack_use(i, depth, off, size.bytes(), UseKind::Address)?;
                }
                match op {
                    AtomicOp::CmpXchg => state.set(Reg::R0, Fact::Other),
                    _ if fetch => state.set(src, Fact::Other),
                    _ => {}
                }
            }
            Op::LoadPacket { .. } => {
                return Err(self.unsupported(i, "legacy packet access"));
            }
            Op::JumpIf {
                width,
                cond,
                dst,
                src,
                ..
            } => return Ok(self.branch(i, state, width, cond, dst, src)),
            Op::Call { helper } => return self.call(i, state, helper),
            Op::CallReg { reg } => {
                return match state.get(reg) {
                    Fact::Const(n) => {
                        let n = u32::try_from(n).unwrap_or(u32::MAX);
                        self.call(i, state, n)
                    }
                    _ => {
                        self.lose_arguments(state, 5);
                        state.clobber(Fact::Other);
                        Ok(Flows::All)
                    }
                };
            }
            Op::CallBtf { .. } => return Err(self.unsupported(i, "call by BTF id")),
            Op::CallLocal { .. } | Op::Exit => {
                return Err(self.unsupported(i, "unexpanded call"));
            }
        }
        Ok(Flows::All)
    }

    fn unsupported(&self, i: usize, what: &'static str) -> NativeError {
        self.region.error(i, Reason::Unsupported(what))
    }

    fn alu(&mut self, width: Width, op: AluOp, dst: Fact, src: Fact) -> Fact {
        let moved = |f: Fact, by: u64, minus: bool| {
            let by = i64::from_ne_bytes(by.to_ne_bytes());
            let by = if minus { by.checked_neg()? } else { by };
            match f {
                Fact::Ctx(o) => in_reach(o.checked_add(by)?).map(Fact::Ctx),
                Fact::Frame { depth, off } => {
                    in_reach(off.checked_add(by)?).map(|off| Fact::Frame { depth, off })
                }
                _ => None,
            }
        };
        let known = match (width, op, dst, src) {
            (Width::W64, AluOp::Mov, _, f) => Some(f),
            (_, _, Fact::Const(a), Fact::Const(b)) => {
                Some(Fact::Const(dash_bpf::semantics::alu(width, op, a, b)))
            }
            (Width::W32, AluOp::Mov, _, Fact::Const(b)) => Some(Fact::Const(b & 0xffff_ffff)),
            (Width::W64, AluOp::Add, f, Fact::Const(c))
            | (Width::W64, AluOp::Add, Fact::Const(c), f) => moved(f, c, false),
            (Width::W64, AluOp::Sub, f, Fact::Const(c)) => moved(f, c, true),
            _ => None,
        };
        known.unwrap_or_else(|| {
            let src = self.escaped.lose(src);
            if op.is_move() {
                return src;
            }
            let dst = self.escaped.lose(dst);
            self.escaped.join(src, dst)
        })
    }

    fn load_imm64(&mut self, i: usize, imm: Imm64) -> Result<Fact, NativeError> {
        let known = |map: u32| match self.object.maps.get(map as usize) {
            Some(def) => Ok(def),
            None => Err(self.region.error(i, Reason::UnknownMap(map))),
        };
        match imm {
            Imm64::Value(v) => Ok(Fact::Const(v)),
            Imm64::Map(map) => known(map).map(|_| Fact::Map(map)),
            Imm64::MapValue { map, .. } => match known(map)?.kind.is_array() {
                true => Ok(Fact::Element),
                false => Err(self.unsupported(i, "address of a value of a map that is no array")),
            },
            // Functions are followed by `functions`.
            Imm64::Other { .. } if imm.function(self.region.steps[i].pc as usize).is_some() => {
                Ok(Fact::Other)
            }
            Imm64::Other { .. } => Err(self.unsupported(i, "this kind of 64-bit immediate")),
        }
    }

    fn load(
        &mut self,
        i: usize,
        state: &State,
        size: Size,
        signed: bool,
        base: Reg,
        off: i16,
    ) -> Result<Fact, NativeError> {
        let bytes = size.bytes();
        match state.get(base) {
            Fact::Ctx(at) => {
                let at = at + i64::from(off);
                if signed || !calls::ctx_field(at, bytes) {
                    let reason = Reason::CtxAccess {
                        offset: at,
                        size: bytes,
                    };
                    return Err(self.region.error(i, reason));
                }
                if let Some(record) = &mut self.record {
                    record.metadata |= at == i64::from(helper::xdp_md::DATA_META);
                }
                self.note(i, Note::Ctx(at));
                Ok(Fact::Other)
            }
            Fact::Frame { depth, off: at } => {
                let at = at + i64::from(off);
                let place = self.stack_use(i, depth, at, bytes, UseKind::Value)?;
                self.note(i, Note::Stack(place));
                let fact = state.load(depth, place.off, bytes, &mut self.escaped);
                Ok(match fact {
                    Fact::Const(c) if signed => {
                        Fact::Const(dash_bpf::semantics::sign_extend(size, c))
                    }
                    Fact::Const(_) => fact,
                    _ if bytes == 8 => fact,
                    _ => self.escaped.lose(fact),
                })
            }
            Fact::Mixed => Err(self.region.error(i, Reason::CtxProvenance)),
            Fact::Map(m) => Err(self.region.error(i, Reason::MapDereference(m))),
            Fact::Dead | Fact::Const(_) | Fact::Element | Fact::Other => Ok(Fact::Other),
        }
    }

    fn store(
        &mut self,
        i: usize,
        state: &mut State,
        size: Size,
        base: Reg,
        off: i16,
        value: Fact,
    ) -> Result<(), NativeError> {
        let bytes = size.bytes();
        match state.get(base) {
            Fact::Frame { depth, off: at } => {
                let at = at + i64::from(off);
                let place = self.stack_use(i, depth, at, bytes, UseKind::Value)?;
                self.note(i, Note::Stack(place));
                state.store(depth, place.off, bytes, value, &mut self.escaped);
                Ok(())
            }
            Fact::Ctx(at) => Err(self.region.error(
                i,
                Reason::CtxAccess {
                    offset: at + i64::from(off),
                    size: bytes,
                },
            )),
            Fact::Mixed => Err(self.region.error(i, Reason::CtxProvenance)),
            Fact::Map(m) => Err(self.region.error(i, Reason::MapDereference(m))),
            Fact::Dead | Fact::Const(_) | Fact::Element | Fact::Other => {
                if self.escaped.lose(value) == Fact::Mixed {
                    return Err(self.region.error(i, Reason::CtxProvenance));
                }
                state.forget_escaped(&mut self.escaped);
                Ok(())
            }
        }
    }

    fn branch(
        &mut self,
        i: usize,
        state: &State,
        width: Width,
        cond: Cond,
        dst: Reg,
        src: Operand,
    ) -> Flows {
        let (a, b) = (state.get(dst), operand(state, src));
        let step = &self.region.steps[i];
        let decided = match (a, b) {
            (Fact::Const(a), Fact::Const(b)) => Some(dash_bpf::semantics::holds(width, cond, a, b)),
            (Fact::Element, Fact::Const(0)) if width == Width::W64 => match cond {
                Cond::Eq => Some(false),
                Cond::Ne => Some(true),
                _ => None,
            },
            _ => None,
        };
        // A comparison needs the address itself.
        self.escaped.lose(a);
        self.escaped.lose(b);
        match decided {
            Some(taken) => {
                let to = if taken { step.taken } else { step.next };
                self.note(i, Note::Decided(taken));
                Flows::Only(to)
            }
            None => {
                self.constants(i, state);
                Flows::All
            }
        }
    }

    /// Notes what registers hold where the ways of a jump meet others.
    fn constants(&mut self, i: usize, state: &State) {
        let step = self.region.steps[i];
        let depth = usize::from(step.depth);
        let known = |to: u32| -> Vec<(Reg, u64)> {
            if !self.meet[to as usize] {
                return Vec::new();
            }
            let live = |reg: &Reg| self.live[to as usize] & register_bit(depth, *reg) != 0;
            let registers = (0..10).filter_map(Reg::new).filter(live);
            let there = self.joined.get(to as usize).and_then(Option::as_ref);
            registers
                .filter_map(|reg| match state.get(reg) {
                    // What is the same on all ways is one value already.
                    fact if there.is_none_or(|there| there.get(reg) == fact) => None,
                    Fact::Const(value) => Some((reg, value)),
                    _ => None,
                })
                .collect()
        };
        let ways = [step.next, step.taken].map(known);
        if let Some(record) = &mut self.record
            && ways.iter().any(|way| !way.is_empty())
        {
            record.constants.insert(i as u32, ways);
        }
    }

    fn call(&mut self, i: usize, state: &mut State, number: u32) -> Result<Flows, NativeError> {
        let depth = self.region.steps[i].depth;
        // Tail calls of a program alone are left to the helper.
        let alone = matches!(self.options.part, Part::Alone(_));
        let plan = match self.kind {
            ProgramKind::Xdp if alone && number == helper::TAIL_CALL => {
                calls::tail_call_anywhere(state, depth)
            }
            ProgramKind::Xdp => {
                let escaped = &mut self.escaped;
                calls::plan(self.object, self.options, state, number, depth, escaped)
            }
            ProgramKind::Raw => calls::plan_raw(number),
        };
        let plan = plan.map_err(|reason| self.region.error(i, reason))?;
        self.note(i, Note::Call(plan.callee));
        for memory in &plan.memory {
            if let Fact::Frame { depth, off } = state.get(memory.base) {
                let kind = if memory.value {
                    UseKind::Value
                } else {
                    UseKind::Address
                };
                let off = off + i64::from(memory.off);
                let place = self.stack_use(i, depth, off, memory.size, kind)?;
                if memory.written {
                    state.forget(depth, place.off, memory.size);
                }
            }
        }
        if let Some(record) = &mut self.record {
            match plan.callee {
                Callee::TailCall(Some(program)) => record.tail_calls.push(program),
                Callee::Helper(helper::XDP_ADJUST_META) => record.metadata = true,
                _ => {}
            }
        }
        if let Callee::TailCall(Some(_)) = plan.callee {
            return Ok(Flows::Nowhere);
        }
        if !plan.followed {
            self.lose_arguments(state, crate::helpers::arity(self.kind, number));
        }
        state.clobber(plan.result);
        Ok(Flows::All)
    }

    /// Hands r1 to r`n` to code that may keep, read and write what they point to.
    fn lose_arguments(&mut self, state: &mut State, n: usize) {
        for r in [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5]
            .into_iter()
            .take(n)
        {
            self.escaped.lose(state.get(r));
        }
        state.forget_escaped(&mut self.escaped);
    }

    /// Notes a use of stack bytes, which must be inside the frame.
    fn stack_use(
        &mut self,
        i: usize,
        depth: u8,
        off: i64,
        size: usize,
        kind: UseKind,
    ) -> Result<Place, NativeError> {
        let inside = off >= -(crate::stack::FRAME_SIZE as i64) && off + size as i64 <= 0;
        if !inside {
            let reason = Reason::StackBounds { offset: off, size };
            return Err(self.region.error(i, reason));
        }
        let place = Place {
            depth,
            off: off as i16,
        };
        if let Some(record) = &mut self.record {
            record.uses.push(StackUse { place, size, kind });
        }
        Ok(place)
    }
}

fn operand(state: &State, src: Operand) -> Fact {
    match src {
        Operand::Reg(r) => state.get(r),
        Operand::Imm(v) => Fact::Const(dash_bpf::semantics::immediate(v)),
    }
}

/// Pointers further than this from where they started are not followed (Linux's
/// `BPF_MAX_VAR_OFF`), so offsets never overflow.
fn in_reach(off: i64) -> Option<i64> {
    (off.unsigned_abs() < 1 << 29).then_some(off)
}
