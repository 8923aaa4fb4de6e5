//! Calls of helpers: arguments against the helper table, and what a call leaves.

use dash_bpf::MapDef;
use dash_bpf::helper::{self, Arg, Callback, Prototype, Returns};
use dash_bpf::op::{Operand, Reg};

use super::access::{Place, unreadable};
use super::fault::Fault;
use super::scalar::Scalar;
use super::state::State;
use super::step::Next;
use super::value::{Element, MapRef, Memory, Value};
use super::walk::Walk;

const ARGUMENTS: [Reg; 5] = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5];

/// No helper takes more bytes at once.
const LARGEST: u64 = 1 << 29;

/// Records of ring buffers out at a time.
const MOST_HELD: usize = 16;

/// A call of a helper that calls a function of the program.
#[derive(Debug)]
pub(super) struct CallBack {
    pub(super) entry: usize,
    /// r1 to r4 of the function.
    pub(super) args: [Value; 4],
}

/// What was found out about a call's arguments.
struct Call<'a> {
    helper: &'static Prototype,
    map: Option<(MapRef, &'a MapDef)>,
    /// Bytes whose size comes next.
    bytes: Option<(usize, Arg, Value)>,
    size: u32,
    entry: usize,
    context: Value,
}

impl Call<'_> {
    fn not(&self, index: usize, expected: &'static str, value: Value) -> Fault {
        Fault::Argument {
            helper: self.helper.name,
            argument: index + 1,
            expected,
            is: value.to_string(),
        }
    }

    fn size_of(&self, size: fn(&MapDef) -> u32) -> (i64, i64) {
        let size = self.map.map_or(0, |(_, map)| i64::from(size(map)));
        (size, size)
    }
}

impl<'a> Walk<'a> {
    pub(super) fn helper(
        &mut self,
        pc: usize,
        number: u64,
        state: &mut State,
    ) -> Result<Next, Fault> {
        let found = u32::try_from(number).ok().and_then(helper::find);
        let helper = found.ok_or_else(|| {
            let name = u32::try_from(number).ok().and_then(helper::name);
            Fault::UnknownHelper { number, name }
        })?;
        if helper.returns == Returns::TailCall {
            if state.depth() > 0 {
                return Err(Fault::TailCallInCallee);
            }
            state.nothing_held()?;
        }
        let mut call = Call {
            helper,
            map: None,
            bytes: None,
            size: 0,
            entry: 0,
            context: Value::Unusable,
        };
        for (index, arg) in helper.args.iter().enumerate() {
            self.argument(index, *arg, &mut call, state)?;
        }
        self.returned(pc, &call, state)
    }

    fn argument(
        &mut self,
        index: usize,
        arg: Arg,
        call: &mut Call<'a>,
        state: &mut State,
    ) -> Result<(), Fault> {
        let reg = ARGUMENTS[index];
        // What is not written is passed as 0.
        if arg == Arg::Rest && state.get(reg) == Value::Unwritten {
            return Ok(());
        }
        let value = self.operand(state, Operand::Reg(reg))?;
        let not = |expected| call.not(index, expected, value);
        match arg {
            Arg::Number | Arg::Rest => match value {
                Value::Number { .. } => Ok(()),
                _ => Err(not("a number")),
            },
            Arg::Context => match value {
                Value::Context(0) => Ok(()),
                _ => Err(not("the context")),
            },
            Arg::Map(kinds) => {
                let map = match value {
                    Value::Map(map) => map,
                    Value::MaybeMap { .. } => return Err(Fault::MaybeNull(reg.index())),
                    _ => return Err(not("one map of the object")),
                };
                let found = self.map(map)?;
                let (helper, kind) = (call.helper.name, found.kind);
                if !kinds.contains(&kind) || kind.holds_maps() && found.inner.is_none() {
                    return Err(Fault::MapKind { helper, kind });
                }
                if found.read_only() && helper::changes_map(call.helper.number) {
                    return Err(Fault::ReadOnlyMap);
                }
                call.map = Some((map, found));
                Ok(())
            }
            Arg::Key => {
                let (size, _) = call.size_of(|m| m.key_size);
                self.readable(state, reg, value, size, &not)
            }
            Arg::Value => {
                let (size, _) = call.size_of(|m| m.value_size);
                self.readable(state, reg, value, size, &not)
            }
            Arg::ValueOut => {
                let size = call.size_of(|m| m.value_size);
                self.writable(state, reg, value, size, &not)
            }
            Arg::Bytes | Arg::BytesOut | Arg::BytesInOut => {
                call.bytes = Some((index, arg, value));
                Ok(())
            }
            Arg::Size | Arg::SizeNotZero => {
                let Value::Number { set, .. } = value else {
                    return Err(not("a number"));
                };
                if set.wide.umax > LARGEST {
                    return Err(not("a bounded number of bytes"));
                }
                if arg == Arg::SizeNotZero && set.wide.umin == 0 {
                    return Err(not("a number of bytes that is not 0"));
                }
                let (least, most) = (set.wide.umin as i64, set.wide.umax as i64);
                let Some((index, arg, bytes)) = call.bytes.take() else {
                    return Ok(());
                };
                if most == 0 && bytes.is_null() {
                    return Ok(());
                }
                let reg = ARGUMENTS[index];
                let not = |expected| call.not(index, expected, bytes);
                if arg != Arg::BytesOut {
                    self.readable(state, reg, bytes, most, &not)?;
                }
                if arg != Arg::Bytes {
                    self.writable(state, reg, bytes, (least, most), &not)?;
                }
                Ok(())
            }
            Arg::Text => {
                let text = match value {
                    Value::Element(e) if !e.maybe_null => {
                        let map = self.map(e.map)?;
                        let from = e.off.known().and_then(|at| usize::try_from(at).ok());
                        let bytes = from.and_then(|from| map.contents.get(from..));
                        bytes.filter(|_| map.read_only())
                    }
                    _ => None,
                };
                match text {
                    Some(text) if text.contains(&0) => Ok(()),
                    _ => Err(not(
                        "text that ends with a zero byte, in a map nobody writes",
                    )),
                }
            }
            Arg::RecordSize => match value.known().and_then(|n| u32::try_from(n).ok()) {
                Some(size) if size > 0 && u64::from(size) <= LARGEST => {
                    call.size = size;
                    Ok(())
                }
                _ => Err(not("a constant number of bytes")),
            },
            Arg::Record => match value {
                Value::Memory(m) if m.maybe_null => Err(Fault::MaybeNull(reg.index())),
                Value::Memory(m) if m.id != 0 && m.off.known() == Some(0) => {
                    state.give_back(m.id);
                    Ok(())
                }
                _ => Err(not(
                    "the start of a record that was reserved and is not given back",
                )),
            },
            Arg::Callback(_) => match value {
                Value::Function(entry) => {
                    call.entry = entry;
                    Ok(())
                }
                _ => Err(not("one function of the program")),
            },
            Arg::CallbackContext => match value {
                Value::Number { .. } | Value::Stack { .. } => {
                    call.context = value;
                    Ok(())
                }
                _ => Err(not("a pointer to the stack, or a number")),
            },
        }
    }

    fn returned(&mut self, pc: usize, call: &Call<'a>, state: &mut State) -> Result<Next, Fault> {
        let (helper, map) = (call.helper, call.map);
        let rounds = state.get(Reg::R1);
        state.clobber();
        if helper.moves_packet {
            state.forget_packet();
        }
        let result = match (helper.returns, map) {
            (Returns::Nothing, _) => Value::Unusable,
            (Returns::Value, Some((map, def))) if def.kind.holds_maps() => {
                if map.inner {
                    let (helper, kind) = (helper.name, def.kind);
                    return Err(Fault::MapKind { helper, kind });
                }
                Value::MaybeMap {
                    outer: map.index,
                    id: self.fresh_id(),
                }
            }
            (Returns::Value, Some((map, _))) => Value::Element(Element {
                map,
                off: Scalar::constant(0),
                id: self.fresh_id(),
                maybe_null: true,
            }),
            (Returns::Record, _) => {
                if state.held() == MOST_HELD {
                    return Err(Fault::TooComplex {
                        what: "records of ring buffers at a time",
                        limit: MOST_HELD as u64,
                    });
                }
                let id = self.fresh_id();
                state.hold(id);
                Value::Memory(Memory {
                    id,
                    size: call.size,
                    off: Scalar::constant(0),
                    maybe_null: true,
                    writable: true,
                })
            }
            _ => Value::UNKNOWN,
        };
        let callback = helper.args.iter().find_map(|arg| match arg {
            Arg::Callback(kind) => Some(*kind),
            _ => None,
        });
        let Some(kind) = callback else {
            state.set(Reg::R0, result);
            return Ok(Next::Goto(pc + 1));
        };
        let args = match (kind, map) {
            (Callback::Element, Some((map, def))) => [
                Value::Map(map),
                Value::Memory(Memory {
                    id: 0,
                    size: def.key_size,
                    off: Scalar::constant(0),
                    maybe_null: false,
                    writable: false,
                }),
                Value::Element(Element {
                    map,
                    off: Scalar::constant(0),
                    id: 0,
                    maybe_null: false,
                }),
                call.context,
            ],
            _ => {
                let most = match rounds {
                    Value::Number { set, .. } => set.wide.umax.min(helper::MAX_ROUNDS),
                    _ => helper::MAX_ROUNDS,
                };
                let round = Scalar::up_to(most.saturating_sub(1));
                let unused = Value::Unwritten;
                [Value::number(round), call.context, unused, unused]
            }
        };
        let entry = call.entry;
        Ok(Next::CallBack(Box::new(CallBack { entry, args })))
    }

    /// A helper reads `size` bytes: numbers, all written, all there.
    fn readable(
        &mut self,
        state: &State,
        reg: Reg,
        pointer: Value,
        size: i64,
        not: &dyn Fn(&'static str) -> Fault,
    ) -> Result<(), Fault> {
        match self.memory(state, reg, pointer, size, "memory that can be read", not)? {
            Place::Stack {
                frame, from, to, ..
            } => match state.frame(frame) {
                Some(frame) => frame
                    .numbers(from, to)
                    .map_err(|why| unreadable(why, from, to)),
                None => Err(Fault::OutsideFrame { from, to }),
            },
            Place::Packet | Place::Element { .. } | Place::Own { .. } => Ok(()),
            Place::Context(_) => Err(not("memory that can be read")),
        }
    }

    /// A helper writes so many bytes, at least and at most.
    fn writable(
        &mut self,
        state: &mut State,
        reg: Reg,
        pointer: Value,
        (least, most): (i64, i64),
        not: &dyn Fn(&'static str) -> Fault,
    ) -> Result<(), Fault> {
        match self.memory(state, reg, pointer, most, "memory that can be written", not)? {
            Place::Stack {
                frame,
                from,
                to,
                exact,
                ..
            } => match state.frame_mut(frame) {
                Some(frame) => {
                    if !exact || least < most {
                        frame.smear(from, to);
                    }
                    if exact {
                        frame.fill(from, from + least);
                    }
                    Ok(())
                }
                None => Err(Fault::OutsideFrame { from, to }),
            },
            Place::Element {
                writable: false, ..
            } => Err(Fault::ReadOnlyMap),
            Place::Packet | Place::Element { .. } | Place::Own { writable: true } => Ok(()),
            Place::Own { writable: false } | Place::Context(_) => {
                Err(not("memory that can be written"))
            }
        }
    }

    fn memory(
        &mut self,
        state: &State,
        reg: Reg,
        pointer: Value,
        size: i64,
        expected: &'static str,
        not: &dyn Fn(&'static str) -> Fault,
    ) -> Result<Place, Fault> {
        match self.place(state, reg.index(), pointer, 0, size) {
            Err(Fault::NotAPointer { .. }) => Err(not(expected)),
            other => other,
        }
    }
}
