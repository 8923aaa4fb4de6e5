//! One instruction: arithmetic, comparisons, and where it goes on.

use dash_bpf::op::{AluOp, Cond, Imm64, Op, Operand, Reg, Width};
use dash_bpf::{MapKind, semantics};

use super::call::CallBack;
use super::fault::Fault;
use super::refine::Relation;
use super::scalar::Scalar;
use super::state::State;
use super::value::{Element, MapRef, Memory, Packet, Part, Value};
use super::walk::Walk;

/// What follows an instruction.
pub(super) enum Next {
    /// On to this slot.
    Goto(usize),
    /// To the next slot or to this one, in the state given for each where it can be.
    Either(usize, Box<[Option<State>; 2]>),
    /// Into the function at this slot.
    Call(usize),
    /// To the next slot once a helper has called a function of the program, any number of times.
    CallBack(Box<CallBack>),
    /// Out of the running function.
    Exit,
}

impl Walk<'_> {
    pub(super) fn step(&mut self, pc: usize, op: Op, state: &mut State) -> Result<Next, Fault> {
        match op {
            Op::Alu {
                width,
                op,
                dst,
                src,
            } => self.alu(state, width, op, dst, src)?,
            Op::Neg { width, dst } => {
                let set = self.number(state, dst)?;
                state.set(dst, Value::number(set.neg(width)));
            }
            Op::Endian { order, bits, dst } => {
                let set = self.number(state, dst)?;
                state.set(dst, Value::number(set.endian(order, bits)));
            }
            Op::LoadImm64 { dst, imm } => {
                let value = self.immediate(pc, imm)?;
                state.set(dst, value);
                return Ok(Next::Goto(pc + 2));
            }
            Op::Load { .. } => self.load(pc, state, op)?,
            Op::Store { .. } => self.store(pc, state, op)?,
            Op::Atomic { .. } => self.atomic(pc, state, op)?,
            Op::Jump { target } => return Ok(Next::Goto(target)),
            Op::JumpIf {
                width,
                cond,
                dst,
                src,
                target,
            } => {
                return match self.branch(state, width, cond, dst, src) {
                    Ok(states) => Ok(Next::Either(target, Box::new(states))),
                    // Where both ways are one nobody learns an address.
                    Err(Fault::Comparison { .. }) if target == pc + 1 => Ok(Next::Goto(target)),
                    Err(fault) => Err(fault),
                };
            }
            Op::Call { helper } => return self.helper(pc, u64::from(helper), state),
            Op::CallReg { reg } => match self.operand(state, Operand::Reg(reg))?.known() {
                Some(number) => return self.helper(pc, number, state),
                None => return Err(Fault::VariableCall),
            },
            Op::CallBtf { .. } => return Err(Fault::BtfCall),
            Op::CallLocal { target } => return Ok(Next::Call(target)),
            Op::LoadPacket { .. } => return Err(Fault::PacketAccess),
            Op::Exit => {
                if state.depth() == 0 {
                    match self.operand(state, Operand::Reg(Reg::R0))? {
                        Value::Number { .. } => {}
                        other => {
                            return Err(Fault::Return {
                                is: other.to_string(),
                            });
                        }
                    }
                    state.nothing_held()?;
                }
                return Ok(Next::Exit);
            }
            // Decoded programs are not run into second slots.
            Op::LoadImm64Hi => return Err(Fault::Unreachable),
        }
        Ok(Next::Goto(pc + 1))
    }

    pub(super) fn operand(&self, state: &State, src: Operand) -> Result<Value, Fault> {
        match src {
            Operand::Imm(n) => Ok(Value::constant(semantics::immediate(n))),
            Operand::Reg(r) => match state.get(r) {
                Value::Unusable | Value::Unwritten => Err(Fault::Uninitialised(r.index())),
                value => Ok(value),
            },
        }
    }

    fn number(&self, state: &State, r: Reg) -> Result<Scalar, Fault> {
        match self.operand(state, Operand::Reg(r))? {
            Value::Number { set, .. } => Ok(set),
            other => Err(arithmetic(r, other)),
        }
    }

    /// Gives the number in a register an id, so that what is learnt of a copy is learnt of it.
    pub(super) fn identify(&mut self, state: &mut State, r: Reg) {
        if let Value::Number { set, id: 0 } = state.get(r)
            && set.known().is_none()
        {
            let id = self.fresh_id();
            state.set(r, Value::Number { set, id });
        }
    }

    fn immediate(&self, pc: usize, imm: Imm64) -> Result<Value, Fault> {
        match imm {
            Imm64::Value(n) => Ok(Value::constant(n)),
            Imm64::Map(index) => {
                let map = MapRef {
                    index,
                    inner: false,
                };
                self.map(map).map(|_| Value::Map(map))
            }
            Imm64::MapValue { map: index, offset } => {
                let place = MapRef {
                    index,
                    inner: false,
                };
                let map = self.map(place)?;
                let only = map.kind == MapKind::Array && map.max_entries == 1;
                if !only || offset >= map.value_size {
                    return Err(Fault::ValueAddress);
                }
                Ok(Value::Element(Element {
                    map: place,
                    off: Scalar::constant(offset.into()),
                    id: 0,
                    maybe_null: false,
                }))
            }
            Imm64::Other { .. } => match imm.function(pc) {
                Some(entry) => Ok(Value::Function(entry)),
                None => Err(Fault::Immediate),
            },
        }
    }

    fn alu(
        &mut self,
        state: &mut State,
        width: Width,
        op: AluOp,
        dst: Reg,
        src: Operand,
    ) -> Result<(), Fault> {
        let moves = op.is_move();
        if moves && let Operand::Reg(r) = src {
            self.identify(state, r);
        }
        let b = self.operand(state, src)?;
        if let (AluOp::Lsh | AluOp::Rsh | AluOp::Arsh, Operand::Imm(by)) = (op, src) {
            let bits = if width == Width::W32 { 32 } else { 64 };
            if !(0..bits).contains(&by) {
                return Err(Fault::Shift(by));
            }
        }
        if moves {
            let value = match (width, op, b) {
                (Width::W64, AluOp::Mov, b) => b,
                (_, _, Value::Number { set, id }) => {
                    let moved = Scalar::alu(width, op, Scalar::UNKNOWN, set);
                    // A copy that changes nothing is the same number.
                    let id = if moved == set { id } else { 0 };
                    Value::Number { set: moved, id }
                }
                (_, _, pointer) => return Err(arithmetic_operand(src, dst, pointer)),
            };
            state.set(dst, value);
            return Ok(());
        }
        let a = self.operand(state, Operand::Reg(dst))?;
        let value = match (a, b) {
            (Value::Number { set: a, .. }, Value::Number { set: b, .. }) => {
                Value::number(Scalar::alu(width, op, a, b))
            }
            (pointer, Value::Number { set, .. }) if width == Width::W64 => match op {
                AluOp::Add => self.moved(dst, pointer, set)?,
                AluOp::Sub => self.moved(dst, pointer, set.neg(Width::W64))?,
                _ => return Err(arithmetic(dst, pointer)),
            },
            (Value::Number { set, .. }, pointer) if width == Width::W64 && op == AluOp::Add => {
                self.moved(dst, pointer, set)?
            }
            (a, b) if op == AluOp::Sub => match (distance(a, b), width) {
                (Some(distance), Width::W64) => Value::number(distance),
                // The low half of a difference needs no more than the low halves of what is subtracted.
                (Some(distance), Width::W32) => Value::number(distance.truncate(32)),
                (None, _) => return Err(arithmetic(dst, a)),
            },
            (Value::Number { .. }, pointer) => return Err(arithmetic_operand(src, dst, pointer)),
            (pointer, _) => return Err(arithmetic(dst, pointer)),
        };
        state.set(dst, value);
        Ok(())
    }

    /// `pointer + by`.
    fn moved(&mut self, reg: Reg, pointer: Value, by: Scalar) -> Result<Value, Fault> {
        /// Linux's `BPF_MAX_VAR_OFF`: sums of offsets stay far from wrapping.
        const FAR: u64 = 1 << 29;
        let far = Fault::Far(reg.index());
        let constant = by.known().map(|n| n as i64);
        match pointer {
            Value::Context(at) => match constant {
                Some(n) => match at.checked_add(n).filter(|at| at.unsigned_abs() < FAR) {
                    Some(at) => Ok(Value::Context(at)),
                    None => Err(far),
                },
                None => Err(Fault::ContextField),
            },
            Value::Packet(p) => match constant {
                Some(n) => match p.fixed.checked_add(n).filter(|at| at.unsigned_abs() < FAR) {
                    Some(fixed) => Ok(Value::Packet(Packet { fixed, ..p })),
                    None => Err(far),
                },
                None => Ok(Value::Packet(Packet {
                    id: self.fresh_id(),
                    var: Scalar::alu(Width::W64, AluOp::Add, p.var, by),
                    range: 0,
                    ..p
                })),
            },
            Value::Stack { frame, off } => Ok(Value::Stack {
                frame,
                off: Scalar::alu(Width::W64, AluOp::Add, off, by),
            }),
            Value::Element(_) | Value::Memory(_) if pointer.maybe_null().is_some() => {
                Err(Fault::MaybeNull(reg.index()))
            }
            Value::Memory(m) => Ok(Value::Memory(Memory {
                off: Scalar::alu(Width::W64, AluOp::Add, m.off, by),
                ..m
            })),
            Value::Element(e) => Ok(Value::Element(Element {
                off: Scalar::alu(Width::W64, AluOp::Add, e.off, by),
                ..e
            })),
            other => Err(arithmetic(reg, other)),
        }
    }

    /// The states where a branch is not taken and where it is.
    fn branch(
        &self,
        state: &State,
        width: Width,
        cond: Cond,
        dst: Reg,
        src: Operand,
    ) -> Result<[Option<State>; 2], Fault> {
        let a = self.operand(state, Operand::Reg(dst))?;
        let b = self.operand(state, src)?;
        let (Value::Number { set: x, .. }, Value::Number { set: y, .. }) = (a, b) else {
            if width == Width::W64
                && let Some(states) = compare_pointers(state, cond, a, b)
            {
                return Ok(states);
            }
            let (a, b) = (a.to_string(), b.to_string());
            return Err(Fault::Comparison { a, b });
        };
        let of = |taken| {
            let (x, y) = Scalar::refine(width, Relation::of(cond, taken), x, y)?;
            let mut state = state.clone();
            state.learn(dst, x);
            if let Operand::Reg(src) = src {
                state.learn(src, y);
            }
            Some(state)
        };
        Ok([of(false), of(true)])
    }
}

fn arithmetic(reg: Reg, value: Value) -> Fault {
    Fault::Arithmetic {
        reg: reg.index(),
        is: value.to_string(),
    }
}

fn arithmetic_operand(src: Operand, dst: Reg, value: Value) -> Fault {
    match src {
        Operand::Reg(r) => arithmetic(r, value),
        Operand::Imm(_) => arithmetic(dst, value),
    }
}

/// The difference of two pointers into one region.
fn distance(a: Value, b: Value) -> Option<Scalar> {
    match (a, b) {
        (Value::Packet(a), Value::Packet(b)) if a.part == b.part && a.id == b.id => {
            Some(Scalar::constant(a.fixed.wrapping_sub(b.fixed) as u64))
        }
        (Value::Packet(_) | Value::PacketEnd, Value::Packet(_) | Value::PacketEnd) => {
            Some(Scalar::UNKNOWN)
        }
        (Value::Stack { frame: f, off: a }, Value::Stack { frame: g, off: b }) if f == g => {
            Some(Scalar::alu(Width::W64, AluOp::Sub, a, b))
        }
        (Value::Element(a), Value::Element(b))
            if a.map == b.map && !a.map.inner && !a.maybe_null && !b.maybe_null =>
        {
            Some(Scalar::UNKNOWN)
        }
        _ => None,
    }
}

/// The states where a comparison of pointers is not taken and where it is; `None` where it would
/// tell an address.
fn compare_pointers(state: &State, cond: Cond, a: Value, b: Value) -> Option<[Option<State>; 2]> {
    let taken = Relation::of(cond, true);
    let null_test = match (a, b) {
        (Value::Opaque, _) | (_, Value::Opaque) => return None,
        (p, n) if n.is_null() => Some((p, taken)),
        (n, p) if n.is_null() => Some((p, taken.flipped())),
        _ => None,
    };
    if let Some((pointer, relation)) = null_test {
        // Whether it is taken for a pointer that is not null, and for null.
        let (found, null) = match relation {
            Relation::Eq | Relation::Le => (false, true),
            Relation::Ne | Relation::Gt => (true, false),
            Relation::Ge => (true, true),
            Relation::Lt | Relation::Set => (false, false),
            // Signs of addresses differ between engines.
            _ => return None,
        };
        let of = |taken: bool| {
            let mut state = state.clone();
            match (pointer.maybe_null(), found == taken, null == taken) {
                (_, false, false) => return None,
                (Some(id), is_found, is_null) if is_found != is_null => state.found(id, is_found),
                // Moved by an unknown number, a pointer can be any number.
                (None, false, true) if is_near(pointer) => return None,
                _ => {}
            }
            Some(state)
        };
        return Some([of(false), of(true)]);
    }
    let ordered = matches!(
        cond,
        Cond::Eq | Cond::Ne | Cond::Gt | Cond::Ge | Cond::Lt | Cond::Le
    );
    let comparable = match (a, b) {
        (Value::Packet(_) | Value::PacketEnd, Value::Packet(_) | Value::PacketEnd) => true,
        (Value::Stack { frame: f, .. }, Value::Stack { frame: g, .. }) => f == g,
        (Value::Element(a), Value::Element(b)) => {
            a.map == b.map && !a.map.inner && !a.maybe_null && !b.maybe_null
        }
        _ => false,
    };
    if !ordered || !comparable {
        return None;
    }
    let of = |taken| {
        let mut state = state.clone();
        let relation = Relation::of(cond, taken);
        learn_bounds(&mut state, relation, a, b);
        learn_bounds(&mut state, relation.flipped(), b, a);
        Some(state)
    };
    Some([of(false), of(true)])
}

/// Whether a pointer is so close to the memory it belongs to that it is not null.
fn is_near(pointer: Value) -> bool {
    const NEAR: i64 = 0xffff;
    let bounded = |set: Scalar, fixed: i64| {
        set.wide.smin.saturating_add(fixed) >= -NEAR && set.wide.smax.saturating_add(fixed) <= NEAR
    };
    match pointer {
        Value::Context(off) => bounded(Scalar::constant(0), off),
        Value::Packet(p) => bounded(p.var, p.fixed),
        Value::Stack { off, .. } => bounded(off, 0),
        Value::Element(e) => bounded(e.off, 0),
        Value::Memory(m) => bounded(m.off, 0),
        Value::PacketEnd | Value::Map(_) | Value::MaybeMap { .. } | Value::Function(_) => true,
        Value::Unusable | Value::Unwritten | Value::Opaque | Value::Number { .. } => false,
    }
}

/// What `a relation b` proves of the packet, `b` being the end of the part `a` points into.
fn learn_bounds(state: &mut State, relation: Relation, a: Value, b: Value) {
    let Value::Packet(p) = a else { return };
    let is_end = match (p.part, b) {
        (Part::Data, Value::PacketEnd) => true,
        // Metadata ends where the packet starts.
        (Part::Meta, Value::Packet(q)) => q.part == Part::Data && q.id == 0 && q.fixed == 0,
        _ => false,
    };
    if !is_end {
        return;
    }
    match relation {
        Relation::Le | Relation::Eq => state.prove(&p, p.fixed),
        Relation::Lt => state.prove(&p, p.fixed + 1),
        _ => {}
    }
}
