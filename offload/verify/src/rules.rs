//! Our own rules, checked before PREVAIL sees a program.
//!
//! They close what PREVAIL leaves open (helper arguments beyond the stack frame, partial and
//! straddling context loads, copies of uninitialised registers, frames of local calls that touch,
//! misaligned atomics, values that are read-only) and what Linux refuses and PREVAIL does not
//! (unreachable code, oversized shifts, tail calls from inside local calls).
//!
//! The pass follows registers and spilled pointers with constant offsets along every path, callees
//! inlined, and joins where paths meet. It refuses what it cannot prove. Offsets that are not
//! constant are left to PREVAIL where PREVAIL's check is complete: packet, map values, and the
//! stack of a program without local calls.

mod state;

use std::collections::{BTreeMap, BTreeSet};

use dash_bpf::helper::{Arg, Prototype, Returns, changes_map, xdp_md};
use dash_bpf::interp::MAX_FRAMES;
use dash_bpf::op::{AluOp, AtomicOp, Imm64, Op, Operand, Reg, Size, Width};
use dash_bpf::{MapDef, MapKind};
use thiserror::Error;

use crate::helpers;
use crate::values::{Number, Value};
use state::{FRAME, Frame, State};

/// Steps of one pass: far above what the programs take whose length is allowed.
const BUDGET: usize = 4_000_000;

/// Rule of ours that a program breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the message says it")]
pub enum Refusal {
    #[error("r{0} may be uninitialised")]
    Uninitialised(usize),
    #[error("r{0} holds no pointer that may be dereferenced")]
    NotAPointer(usize),
    #[error("r{0} points to different kinds of memory depending on the path")]
    MixedPointer(usize),
    #[error("context access is not a whole 4-byte field, loaded unsigned")]
    ContextField,
    #[error("the context is read-only")]
    ContextWrite,
    #[error("bytes [{from}, {to}) are outside the stack frame [-512, 0)")]
    OutsideFrame { from: i64, to: i64 },
    #[error("stack bytes [{from}, {to}) may be uninitialised")]
    UninitialisedStack { from: i64, to: i64 },
    #[error("stack offset is not a constant")]
    VariableStack,
    #[error("part of a spilled pointer is read")]
    PartialFill,
    #[error("a pointer may only be spilled whole and 8-byte aligned")]
    PartialSpill,
    #[error("atomic access is not on the stack or in a map value")]
    AtomicRegion,
    #[error("atomic access is not provably aligned to {0} bytes")]
    Misaligned(usize),
    #[error("programs may not write this map")]
    ReadOnlyMap,
    #[error("the object has no map {0}")]
    NoMap(u32),
    #[error("the address of a value can be taken of arrays of one element only, inside it")]
    ValueAddress,
    #[error("64-bit immediate of an unsupported kind")]
    Immediate,
    #[error("legacy packet access is not available to XDP programs")]
    PacketAccess,
    #[error("call by BTF id is not supported")]
    BtfCall,
    #[error("callx of a register that is not one constant")]
    VariableCall,
    #[error("no helper {0}")]
    UnknownHelper(u64),
    #[error("helper {helper}: argument {argument} is not {expected}")]
    Argument {
        helper: &'static str,
        argument: usize,
        expected: &'static str,
    },
    #[error("helper {helper}: map of kind {kind:?} is not allowed")]
    MapKind { helper: &'static str, kind: MapKind },
    #[error("immediate shift of {0} is not below the width")]
    Shift(i32),
    #[error("local calls nest deeper than {MAX_FRAMES} frames")]
    Depth,
    #[error("tail call from inside a local call")]
    TailCallInCallee,
    #[error("r0 is not a number at exit")]
    Return,
    #[error("instruction is unreachable")]
    Unreachable,
    #[error("too complex")]
    TooComplex,
}

/// A rule and where it is broken.
pub(crate) type Refused = (usize, Refusal);

/// Stack bytes a helper fills, relative to the frame's top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) offset: i64,
    pub(crate) size: u32,
}

/// What the pass found out that PREVAIL has to be told.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// By slot of the call.
    pub(crate) fills: BTreeMap<usize, Fill>,
}

/// Checks a decoded XDP program.
pub(crate) fn check(ops: &[Op], maps: &[MapDef]) -> Result<Facts, Refused> {
    let mut pass = Pass {
        ops,
        maps,
        calls: ops.iter().any(|op| matches!(op, Op::CallLocal { .. })),
        visited: vec![false; ops.len()],
        steps: 0,
        facts: Facts::default(),
    };
    let mut regs = [Value::Uninit; 11];
    regs[1] = Value::Context(0);
    regs[10] = Value::Stack {
        frame: 0,
        offset: Some(0),
    };
    pass.function(
        0,
        State {
            regs,
            frames: vec![Frame::default()],
        },
    )?;
    let unreachable = ops
        .iter()
        .zip(&pass.visited)
        .position(|(op, seen)| !seen && *op != Op::LoadImm64Hi);
    match unreachable {
        Some(pc) => Err((pc, Refusal::Unreachable)),
        None => Ok(pass.facts),
    }
}

/// What memory an access goes to.
enum Place {
    Context(i64),
    Stack {
        frame: usize,
        from: i64,
        to: i64,
    },
    /// On the stack of a program without local calls: PREVAIL checks the bounds.
    SomewhereOnStack {
        frame: usize,
    },
    Packet,
    MapValue {
        offset: Number,
        read_only: bool,
    },
}

struct Pass<'a> {
    ops: &'a [Op],
    maps: &'a [MapDef],
    calls: bool,
    visited: Vec<bool>,
    steps: usize,
    facts: Facts,
}

impl Pass<'_> {
    /// Follows a function from its first slot; the joined state at its exits, `None` if it has no
    /// reachable one.
    fn function(&mut self, entry: usize, start: State) -> Result<Option<State>, Refused> {
        let mut states: BTreeMap<usize, State> = BTreeMap::from([(entry, start)]);
        let mut todo: BTreeSet<usize> = BTreeSet::from([entry]);
        let mut exit: Option<State> = None;
        while let Some(pc) = todo.pop_first() {
            let at = |refusal| (pc, refusal);
            self.steps += 1;
            if self.steps > BUDGET {
                return Err(at(Refusal::TooComplex));
            }
            let (Some(op), Some(before)) = (self.ops.get(pc), states.get(&pc)) else {
                continue;
            };
            let mut state = before.clone();
            self.visited[pc] = true;
            let next = match *op {
                Op::Exit => {
                    match &mut exit {
                        Some(joined) => joined.join(&state),
                        none => *none = Some(state.clone()),
                    }
                    if state.frames.len() == 1
                        && !matches!(state.get(Reg::R0).map_err(at)?, Value::Number(_))
                    {
                        return Err(at(Refusal::Return));
                    }
                    [None, None]
                }
                Op::Jump { target } => [Some(target), None],
                Op::JumpIf {
                    dst, src, target, ..
                } => {
                    state.get(dst).map_err(at)?;
                    state.operand(src).map_err(at)?;
                    [Some(pc + 1), Some(target)]
                }
                Op::LoadImm64 { dst, imm } => {
                    let value = self.imm64(imm).map_err(at)?;
                    state.set(dst, value);
                    [Some(pc + 2), None]
                }
                Op::CallLocal { target } => match self.call_local(pc, target, state)? {
                    Some(after) => {
                        state = after;
                        [Some(pc + 1), None]
                    }
                    None => continue,
                },
                other => {
                    self.step(pc, other, &mut state).map_err(at)?;
                    [Some(pc + 1), None]
                }
            };
            for target in next.into_iter().flatten() {
                match states.get_mut(&target) {
                    None => {
                        states.insert(target, state.clone());
                        todo.insert(target);
                    }
                    Some(there) => {
                        let mut joined = there.clone();
                        joined.join(&state);
                        if joined != *there {
                            *there = joined;
                            todo.insert(target);
                        }
                    }
                }
            }
        }
        Ok(exit)
    }

    fn call_local(
        &mut self,
        pc: usize,
        target: usize,
        mut state: State,
    ) -> Result<Option<State>, Refused> {
        let depth = state.frames.len();
        if depth == MAX_FRAMES {
            return Err((pc, Refusal::Depth));
        }
        let caller = state.regs;
        state.frames.push(Frame::default());
        state.regs[0] = Value::Uninit;
        state.regs[10] = Value::Stack {
            frame: depth,
            offset: Some(0),
        };
        let Some(mut after) = self.function(target, state)? else {
            return Ok(None);
        };
        after.frames.truncate(depth);
        let result = after.regs[0];
        after.clobber();
        after.regs[0] = result;
        after.regs[6..].copy_from_slice(&caller[6..]);
        after.forget_frames_from(depth);
        Ok(Some(after))
    }

    fn imm64(&self, imm: Imm64) -> Result<Value, Refusal> {
        let map = |index: u32| {
            let found = usize::try_from(index).ok().and_then(|i| self.maps.get(i));
            found.ok_or(Refusal::NoMap(index))
        };
        match imm {
            Imm64::Value(v) => Ok(Value::Number(Number::Const(v))),
            Imm64::Map(index) => map(index).map(|_| Value::Map(index)),
            Imm64::MapValue { map: index, offset } => {
                let map = map(index)?;
                let inside = offset < map.value_size;
                if map.kind == MapKind::Array && map.max_entries == 1 && inside {
                    let offset = Number::Const(u64::from(offset));
                    Ok(Value::Element {
                        offset,
                        read_only: map.read_only(),
                    })
                } else {
                    Err(Refusal::ValueAddress)
                }
            }
            Imm64::Other { .. } => Err(Refusal::Immediate),
        }
    }

    /// Everything that goes on to the next slot.
    fn step(&mut self, pc: usize, op: Op, state: &mut State) -> Result<(), Refusal> {
        match op {
            Op::Alu {
                width,
                op,
                dst,
                src,
            } => {
                let b = state.operand(src)?;
                let bits = if width == Width::W32 { 32 } else { 64 };
                if let (AluOp::Lsh | AluOp::Rsh | AluOp::Arsh, Operand::Imm(by)) = (op, src)
                    && !(0..bits).contains(&by)
                {
                    return Err(Refusal::Shift(by));
                }
                let moves = matches!(
                    op,
                    AluOp::Mov | AluOp::Movsx8 | AluOp::Movsx16 | AluOp::Movsx32
                );
                let a = if moves {
                    Value::NUMBER
                } else {
                    state.get(dst)?
                };
                state.set(dst, Value::alu(width, op, a, b));
            }
            Op::Neg { dst, .. } | Op::Endian { dst, .. } => {
                let value = match state.get(dst)? {
                    Value::Number(_) => Value::NUMBER,
                    _ => Value::Mixed,
                };
                state.set(dst, value);
            }
            Op::Load {
                size,
                signed,
                dst,
                base,
                off,
            } => {
                let value = self.load(state, base, off, size, signed)?;
                state.set(dst, value);
            }
            Op::Store {
                size,
                base,
                off,
                src,
            } => {
                let value = state.operand(src)?;
                self.store(state, base, off, size, value)?;
            }
            Op::Atomic {
                size,
                op,
                fetch,
                base,
                off,
                src,
            } => {
                state.get(src)?;
                if op == AtomicOp::CmpXchg {
                    state.get(Reg::R0)?;
                }
                self.atomic(state, base, off, size)?;
                if fetch {
                    let to = if op == AtomicOp::CmpXchg {
                        Reg::R0
                    } else {
                        src
                    };
                    state.set(to, Value::NUMBER);
                }
            }
            Op::Call { helper } => self.call(pc, u64::from(helper), state)?,
            Op::CallReg { reg } => match state.get(reg)? {
                Value::Number(Number::Const(number)) => self.call(pc, number, state)?,
                _ => return Err(Refusal::VariableCall),
            },
            Op::CallBtf { .. } => return Err(Refusal::BtfCall),
            Op::LoadPacket { .. } => return Err(Refusal::PacketAccess),
            // The caller takes these itself; a second slot is never run.
            Op::LoadImm64 { .. }
            | Op::LoadImm64Hi
            | Op::Jump { .. }
            | Op::JumpIf { .. }
            | Op::CallLocal { .. }
            | Op::Exit => {}
        }
        Ok(())
    }

    fn place(&self, state: &State, base: Reg, off: i16, bytes: usize) -> Result<Place, Refusal> {
        let off = i64::from(off);
        match state.get(base)? {
            Value::Context(at) => Ok(Place::Context(at.wrapping_add(off))),
            Value::Packet => Ok(Place::Packet),
            Value::Element { offset, read_only } => {
                let offset = offset.add(Number::Const(off as u64));
                Ok(Place::MapValue { offset, read_only })
            }
            Value::Stack {
                frame,
                offset: Some(at),
            } => {
                let from = at.wrapping_add(off);
                in_frame(from, bytes as i64)?;
                Ok(Place::Stack {
                    frame,
                    from,
                    to: from + bytes as i64,
                })
            }
            Value::Stack { .. } if self.calls => Err(Refusal::VariableStack),
            Value::Stack { frame, .. } => Ok(Place::SomewhereOnStack { frame }),
            Value::Mixed => Err(Refusal::MixedPointer(base.index())),
            Value::Uninit | Value::Number(_) | Value::Map(_) => {
                Err(Refusal::NotAPointer(base.index()))
            }
        }
    }

    fn load(
        &self,
        state: &State,
        base: Reg,
        off: i16,
        size: Size,
        signed: bool,
    ) -> Result<Value, Refusal> {
        match self.place(state, base, off, size.bytes())? {
            Place::Context(at) => {
                let whole = (0..i64::from(xdp_md::SIZE)).contains(&at) && at % 4 == 0;
                if size != Size::W || signed || !whole {
                    return Err(Refusal::ContextField);
                }
                let pointers = [xdp_md::DATA, xdp_md::DATA_END, xdp_md::DATA_META];
                let is_pointer = pointers.iter().any(|p| i64::from(*p) == at);
                Ok(if is_pointer {
                    Value::Packet
                } else {
                    Value::NUMBER
                })
            }
            Place::Packet | Place::MapValue { .. } => Ok(Value::NUMBER),
            Place::Stack { frame, from, to } => {
                let frame = &state.frames[frame];
                if !frame.is_written(from, to) {
                    return Err(Refusal::UninitialisedStack { from, to });
                }
                match frame.spilled.get(&from) {
                    Some(value) if size == Size::Dw && !signed => Ok(*value),
                    _ if frame.overlaps(from, to) => Err(Refusal::PartialFill),
                    _ if frame.wild => Ok(Value::Mixed),
                    _ => Ok(Value::NUMBER),
                }
            }
            Place::SomewhereOnStack { frame } => {
                let frame = &state.frames[frame];
                let pointers = frame.wild || !frame.spilled.is_empty();
                Ok(if pointers {
                    Value::Mixed
                } else {
                    Value::NUMBER
                })
            }
        }
    }

    fn store(
        &self,
        state: &mut State,
        base: Reg,
        off: i16,
        size: Size,
        value: Value,
    ) -> Result<(), Refusal> {
        let is_number = matches!(value, Value::Number(_));
        match self.place(state, base, off, size.bytes())? {
            Place::Context(_) => return Err(Refusal::ContextWrite),
            Place::MapValue {
                read_only: true, ..
            } => return Err(Refusal::ReadOnlyMap),
            // Whether a pointer leaks there is PREVAIL's question.
            Place::Packet | Place::MapValue { .. } => {}
            Place::Stack { frame, from, to } => {
                if !is_number && (size != Size::Dw || from % 8 != 0) {
                    return Err(Refusal::PartialSpill);
                }
                let frame = &mut state.frames[frame];
                frame.write(from, to);
                if !is_number {
                    frame.spilled.insert(from, value);
                }
            }
            Place::SomewhereOnStack { frame } => state.frames[frame].wild |= !is_number,
        }
        Ok(())
    }

    fn atomic(&self, state: &mut State, base: Reg, off: i16, size: Size) -> Result<(), Refusal> {
        let bytes = size.bytes();
        match self.place(state, base, off, bytes)? {
            Place::Context(_) => Err(Refusal::ContextWrite),
            Place::Packet => Err(Refusal::AtomicRegion),
            Place::SomewhereOnStack { .. } => Err(Refusal::VariableStack),
            Place::MapValue {
                read_only: true, ..
            } => Err(Refusal::ReadOnlyMap),
            Place::MapValue { offset, .. } if !offset.is_multiple_of(bytes as u64) => {
                Err(Refusal::Misaligned(bytes))
            }
            Place::MapValue { .. } => Ok(()),
            Place::Stack { from, .. } if from % bytes as i64 != 0 => {
                Err(Refusal::Misaligned(bytes))
            }
            Place::Stack { frame, from, to } => {
                let frame = &mut state.frames[frame];
                if !frame.is_written(from, to) {
                    return Err(Refusal::UninitialisedStack { from, to });
                }
                if frame.overlaps(from, to) {
                    return Err(Refusal::PartialFill);
                }
                frame.write(from, to);
                Ok(())
            }
        }
    }

    fn call(&mut self, pc: usize, number: u64, state: &mut State) -> Result<(), Refusal> {
        let helper = u32::try_from(number).ok().and_then(helpers::find_plain);
        let helper = helper.ok_or(Refusal::UnknownHelper(number))?;
        if helper.returns == Returns::TailCall && state.frames.len() > 1 {
            return Err(Refusal::TailCallInCallee);
        }
        let registers = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5];
        let mut map = None;
        let mut bytes_in = Value::NUMBER;
        for (argument, (arg, reg)) in (1..).zip(helper.args.iter().zip(registers)) {
            let value = state.get(reg)?;
            let not = |expected| Refusal::Argument {
                helper: helper.name,
                argument,
                expected,
            };
            match arg {
                Arg::Number if matches!(value, Value::Number(_)) => {}
                Arg::Number => return Err(not("a number")),
                Arg::Context if value == Value::Context(0) => {}
                Arg::Context => return Err(not("the context")),
                Arg::Map(kinds) => {
                    let Value::Map(index) = value else {
                        return Err(not("one map of the object"));
                    };
                    let found = usize::try_from(index).ok().and_then(|i| self.maps.get(i));
                    let found = found.ok_or(Refusal::NoMap(index))?;
                    if !kinds.contains(&found.kind) || found.kind.holds_maps() {
                        let (helper, kind) = (helper.name, found.kind);
                        return Err(Refusal::MapKind { helper, kind });
                    }
                    if found.read_only() && changes_map(helper.number) {
                        return Err(Refusal::ReadOnlyMap);
                    }
                    map = Some(found);
                }
                Arg::Key => self.readable(state, value, map.map(|m| m.key_size), not)?,
                Arg::Value => self.readable(state, value, map.map(|m| m.value_size), not)?,
                Arg::ValueOut => {
                    let size = map.map_or(0, |m| m.value_size);
                    self.writable(pc, state, value, size, not)?;
                }
                Arg::Bytes => bytes_in = value,
                Arg::Size => {
                    let Value::Number(size) = value else {
                        return Err(not("a number"));
                    };
                    let size = size.constant().and_then(|size| u32::try_from(size).ok());
                    if bytes_in != Value::Number(Number::Const(0)) || size != Some(0) {
                        self.readable(state, bytes_in, size, not)?;
                    }
                }
                _ => return Err(Refusal::UnknownHelper(number)),
            }
        }
        self.returned(helper, map, state);
        Ok(())
    }

    fn returned(&self, helper: &Prototype, map: Option<&MapDef>, state: &mut State) {
        state.clobber();
        let result = match helper.returns {
            Returns::Value => {
                let read_only = !map.is_some_and(helpers::is_writable);
                Value::Element {
                    offset: Number::Const(0),
                    read_only,
                }
            }
            _ => Value::NUMBER,
        };
        state.set(Reg::R0, result);
    }

    /// `size` is `None` where it is not a constant.
    fn readable(
        &self,
        state: &State,
        value: Value,
        size: Option<u32>,
        not: impl Fn(&'static str) -> Refusal,
    ) -> Result<(), Refusal> {
        match (value, size) {
            (Value::Packet | Value::Element { .. }, _) => Ok(()),
            (
                Value::Stack {
                    frame,
                    offset: Some(from),
                },
                Some(size),
            ) => {
                let to = in_frame(from, i64::from(size))?;
                if !state.frames[frame].is_written(from, to) {
                    return Err(Refusal::UninitialisedStack { from, to });
                }
                Ok(())
            }
            // A run-time size from a constant place in the only frame: PREVAIL bounds it by r10.
            (
                Value::Stack {
                    offset: Some(_), ..
                },
                None,
            ) if !self.calls => Ok(()),
            (Value::Stack { .. }, _) => Err(Refusal::VariableStack),
            _ => Err(not("memory that can be read")),
        }
    }

    fn writable(
        &mut self,
        pc: usize,
        state: &mut State,
        value: Value,
        size: u32,
        not: impl Fn(&'static str) -> Refusal,
    ) -> Result<(), Refusal> {
        match value {
            Value::Packet
            | Value::Element {
                read_only: false, ..
            } => Ok(()),
            Value::Element { .. } => Err(Refusal::ReadOnlyMap),
            Value::Stack {
                frame,
                offset: Some(from),
            } if frame + 1 == state.frames.len() => {
                let to = in_frame(from, i64::from(size))?;
                state.frames[frame].write(from, to);
                let fill = Fill { offset: from, size };
                match self.facts.fills.insert(pc, fill) {
                    Some(other) if other != fill => Err(Refusal::VariableStack),
                    _ => Ok(()),
                }
            }
            Value::Stack { .. } => Err(Refusal::VariableStack),
            _ => Err(not("memory that can be written")),
        }
    }
}

/// End of `size` bytes at `from`, if they lie inside a frame.
fn in_frame(from: i64, size: i64) -> Result<i64, Refusal> {
    let to = from.saturating_add(size);
    if from < -FRAME || to > 0 {
        return Err(Refusal::OutsideFrame { from, to });
    }
    Ok(to)
}
