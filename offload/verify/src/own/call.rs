//! Calls of helpers: arguments against the helper table, and what a call leaves.

use dash_bpf::MapDef;
use dash_bpf::op::{Operand, Reg};

use super::access::{Place, unreadable};
use super::fault::Fault;
use super::scalar::Scalar;
use super::state::State;
use super::value::{Element, Value};
use super::walk::Walk;
use crate::helpers::{self, Arg, Helper, Returns};

const ARGUMENTS: [Reg; 5] = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5];

/// No helper takes more bytes at once.
const LARGEST: u64 = 1 << 29;

impl<'a> Walk<'a> {
    pub(super) fn helper(&mut self, number: u64, state: &mut State) -> Result<(), Fault> {
        let helper = u32::try_from(number).ok().and_then(helpers::find);
        let helper = helper.ok_or(Fault::UnknownHelper(number))?;
        if helper.returns == Returns::TailCall && state.depth() > 0 {
            return Err(Fault::TailCallInCallee);
        }
        let mut map: Option<(u32, &'a MapDef)> = None;
        let mut bytes_in = Value::Unusable;
        for (index, (arg, reg)) in helper.args.iter().zip(ARGUMENTS).enumerate() {
            let value = self.operand(state, Operand::Reg(reg))?;
            let not = |expected| Fault::Argument {
                helper: helper.name,
                argument: index + 1,
                expected,
                is: value.to_string(),
            };
            let size_of = |size: fn(&MapDef) -> u32| map.map_or(0, |(_, map)| i64::from(size(map)));
            match arg {
                Arg::Number => match value {
                    Value::Number { .. } => {}
                    _ => return Err(not("a number")),
                },
                Arg::Context => match value {
                    Value::Context(0) => {}
                    _ => return Err(not("the context")),
                },
                Arg::Map(kinds) => {
                    let Value::Map(number) = value else {
                        return Err(not("one map of the object"));
                    };
                    let found = self.map(number)?;
                    if !kinds.contains(&found.kind) {
                        let (helper, kind) = (helper.name, found.kind);
                        return Err(Fault::MapKind { helper, kind });
                    }
                    if found.read_only() && helpers::changes_map(helper.number) {
                        return Err(Fault::ReadOnlyMap);
                    }
                    map = Some((number, found));
                }
                Arg::Key => self.readable(state, reg, value, size_of(|m| m.key_size), &not)?,
                Arg::Value => self.readable(state, reg, value, size_of(|m| m.value_size), &not)?,
                Arg::ValueOut => {
                    self.writable(state, reg, value, size_of(|m| m.value_size), &not)?;
                }
                Arg::Bytes => bytes_in = value,
                Arg::Size => {
                    let Value::Number { set, .. } = value else {
                        return Err(not("a number"));
                    };
                    if set.wide.umax > LARGEST {
                        return Err(not("a bounded number of bytes"));
                    }
                    let most = set.wide.umax as i64;
                    if most > 0 || !bytes_in.is_null() {
                        let pointer = ARGUMENTS[index.saturating_sub(1)];
                        let not = |expected| Fault::Argument {
                            helper: helper.name,
                            argument: index,
                            expected,
                            is: bytes_in.to_string(),
                        };
                        self.readable(state, pointer, bytes_in, most, &not)?;
                    }
                }
            }
        }
        self.returned(helper, map.map(|(number, _)| number), state);
        Ok(())
    }

    fn returned(&mut self, helper: &Helper, map: Option<u32>, state: &mut State) {
        state.clobber();
        if helper.moves_packet {
            state.forget_packet();
        }
        let result = match (helper.returns, map) {
            (Returns::Value, Some(map)) => Value::Element(Element {
                map,
                off: Scalar::constant(0),
                id: self.fresh_id(),
                maybe_null: true,
            }),
            _ => Value::UNKNOWN,
        };
        state.set(Reg::R0, result);
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
            Place::Packet | Place::Element { .. } => Ok(()),
            Place::Context(_) => Err(not("memory that can be read")),
        }
    }

    /// A helper writes all of `size` bytes.
    fn writable(
        &mut self,
        state: &mut State,
        reg: Reg,
        pointer: Value,
        size: i64,
        not: &dyn Fn(&'static str) -> Fault,
    ) -> Result<(), Fault> {
        match self.memory(state, reg, pointer, size, "memory that can be written", not)? {
            Place::Stack {
                frame,
                from,
                to,
                exact,
                ..
            } => match state.frame_mut(frame) {
                Some(frame) if exact => {
                    frame.fill(from, to);
                    Ok(())
                }
                Some(frame) => {
                    frame.smear(from, to);
                    Ok(())
                }
                None => Err(Fault::OutsideFrame { from, to }),
            },
            Place::Element {
                writable: false, ..
            } => Err(Fault::ReadOnlyMap),
            Place::Packet | Place::Element { .. } => Ok(()),
            Place::Context(_) => Err(not("memory that can be written")),
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
