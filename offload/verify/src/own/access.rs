//! Loads, stores and atomics: which bytes an instruction reaches, and what it does to the state.

use dash_bpf::helper::xdp_md;
use dash_bpf::op::{AtomicOp, Op, Operand, Reg, Size};

use super::fault::Fault;
use super::frame::{FRAME, Unreadable};
use super::scalar::Scalar;
use super::state::State;
use super::value::{Element, Memory, Packet, Part, Value};
use super::walk::Walk;
use crate::helpers::is_writable;

/// Bytes of memory, known to be there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Offset of a field of the context.
    Context(i64),
    /// Bytes `[from, to)`; the access is to some of them unless `exact`.
    Stack {
        frame: usize,
        from: i64,
        to: i64,
        exact: bool,
        /// Trailing zero bits known of every address.
        aligned: u32,
    },
    Packet,
    /// A record of a ring buffer, or a key that a helper shows.
    Own {
        writable: bool,
    },
    Element {
        writable: bool,
        /// Trailing zero bits known of every address.
        aligned: u32,
    },
}

/// Every value starts at a multiple of 8, as every frame does.
const BASE_ZEROS: u32 = 3;

impl Walk<'_> {
    /// The bytes at `pointer + off`, if they are there whatever path led here. `reg` is for
    /// messages.
    pub(super) fn place(
        &mut self,
        state: &State,
        reg: usize,
        pointer: Value,
        off: i64,
        bytes: i64,
    ) -> Result<Place, Fault> {
        match pointer {
            Value::Unusable | Value::Unwritten => Err(Fault::Uninitialised(reg)),
            Value::Opaque => Err(Fault::Invalid(reg)),
            Value::Number { .. }
            | Value::PacketEnd
            | Value::Map(_)
            | Value::MaybeMap { .. }
            | Value::Function(_) => Err(Fault::NotAPointer {
                reg,
                is: pointer.to_string(),
            }),
            Value::Context(at) => Ok(Place::Context(at.saturating_add(off))),
            Value::Packet(p) => packet(state, reg, &p, off, bytes),
            Value::Stack { frame, off: at } => {
                let at = at.plus(off);
                let (from, to) = (at.wide.smin, at.wide.smax.saturating_add(bytes));
                if from < -FRAME || to > 0 {
                    return Err(Fault::OutsideFrame { from, to });
                }
                self.reached_stack(frame, -from);
                Ok(Place::Stack {
                    frame,
                    from,
                    to,
                    exact: at.known().is_some(),
                    aligned: at.wide.bits.trailing_zeros().min(BASE_ZEROS),
                })
            }
            Value::Element(Element {
                maybe_null: true, ..
            })
            | Value::Memory(Memory {
                maybe_null: true, ..
            }) => Err(Fault::MaybeNull(reg)),
            Value::Memory(m) => {
                let at = m.off.plus(off);
                let (from, to) = (at.wide.smin, at.wide.smax.saturating_add(bytes));
                if from < 0 || to > i64::from(m.size) {
                    let size = m.size;
                    return Err(Fault::MemoryBounds {
                        reg,
                        from,
                        to,
                        size,
                    });
                }
                let writable = m.writable;
                Ok(Place::Own { writable })
            }
            Value::Element(e) => {
                let map = self.map(e.map)?;
                let at = e.off.plus(off);
                let (from, to) = (at.wide.smin, at.wide.smax.saturating_add(bytes));
                if from < 0 || to > i64::from(map.value_size) {
                    let size = map.value_size;
                    return Err(Fault::ElementBounds {
                        reg,
                        from,
                        to,
                        size,
                    });
                }
                Ok(Place::Element {
                    writable: is_writable(map),
                    aligned: at.wide.bits.trailing_zeros().min(BASE_ZEROS),
                })
            }
        }
    }

    /// The memory an instruction reaches through `base`. The context is no memory: code for it is
    /// another than for the rest, so one instruction cannot be both.
    fn accessed(
        &mut self,
        pc: usize,
        state: &State,
        base: Reg,
        off: i16,
        size: Size,
    ) -> Result<Place, Fault> {
        let bytes = size.bytes() as i64;
        let place = self.place(state, base.index(), state.get(base), off.into(), bytes)?;
        let is_context = matches!(place, Place::Context(_));
        if self.reaches_context(pc, is_context) {
            Ok(place)
        } else {
            Err(Fault::MixedPointer(base.index()))
        }
    }

    pub(super) fn load(&mut self, pc: usize, state: &mut State, op: Op) -> Result<(), Fault> {
        let Op::Load {
            size,
            signed,
            dst,
            base,
            off,
        } = op
        else {
            return Ok(());
        };
        let place = self.accessed(pc, state, base, off, size)?;
        if let (
            Place::Stack {
                frame, from, to, ..
            },
            true,
        ) = (place, base != Reg::R10)
        {
            self.read_aside(frame, from, to);
        }
        let value = match place {
            Place::Context(at) => context_field(at, size, signed)?,
            Place::Packet | Place::Element { .. } | Place::Own { .. } => {
                Value::number(Scalar::of_size(size))
            }
            Place::Stack {
                frame,
                from,
                to,
                exact,
                ..
            } => {
                let Some(frame) = state.frame(frame) else {
                    return Err(Fault::OutsideFrame { from, to });
                };
                let unreadable = |why| unreadable(why, from, to);
                if exact {
                    frame.load(from, size).map_err(unreadable)?
                } else {
                    frame.numbers(from, to).map_err(unreadable)?;
                    Value::number(Scalar::of_size(size))
                }
            }
        };
        let value = match value {
            Value::Number { set, id } if signed => {
                let extended = set.sign_extend(size);
                let id = if extended == set { id } else { 0 };
                Value::Number { set: extended, id }
            }
            other => other,
        };
        state.set(dst, value);
        Ok(())
    }

    pub(super) fn store(&mut self, pc: usize, state: &mut State, op: Op) -> Result<(), Fault> {
        let Op::Store {
            size,
            base,
            off,
            src,
        } = op
        else {
            return Ok(());
        };
        // A number stored and loaded again is the same number: it gets an id on its way.
        if let Operand::Reg(r) = src {
            self.identify(state, r);
        }
        let value = self.operand(state, src)?;
        match self.accessed(pc, state, base, off, size)? {
            Place::Context(_) => Err(Fault::ContextWrite),
            Place::Element {
                writable: false, ..
            } => Err(Fault::ReadOnlyMap),
            Place::Own { writable: false } => Err(Fault::ReadOnlyMemory),
            Place::Packet | Place::Element { .. } | Place::Own { .. } if value.is_pointer() => {
                Err(Fault::Leak)
            }
            Place::Packet | Place::Element { .. } | Place::Own { .. } => Ok(()),
            Place::Stack {
                frame,
                from,
                to,
                exact,
                ..
            } => {
                if value.is_pointer() && (!exact || size != Size::Dw || from % 8 != 0) {
                    return Err(Fault::Spill);
                }
                let Some(frame) = state.frame_mut(frame) else {
                    return Err(Fault::OutsideFrame { from, to });
                };
                if exact {
                    frame.store(from, size, value);
                } else {
                    frame.smear(from, to);
                }
                Ok(())
            }
        }
    }

    pub(super) fn atomic(&mut self, pc: usize, state: &mut State, op: Op) -> Result<(), Fault> {
        let Op::Atomic {
            size,
            op,
            fetch,
            base,
            off,
            src,
        } = op
        else {
            return Ok(());
        };
        let mut operands = vec![src];
        if op == AtomicOp::CmpXchg {
            operands.push(Reg::R0);
        }
        for r in operands {
            if self.operand(state, Operand::Reg(r))?.is_pointer() {
                return Err(Fault::Leak);
            }
        }
        let zeros = size.bytes().trailing_zeros();
        match self.accessed(pc, state, base, off, size)? {
            Place::Context(_) => return Err(Fault::ContextWrite),
            Place::Packet | Place::Own { .. } => return Err(Fault::AtomicRegion),
            Place::Element {
                writable: false, ..
            } => return Err(Fault::ReadOnlyMap),
            Place::Element { aligned, .. } | Place::Stack { aligned, .. } if aligned < zeros => {
                return Err(Fault::Misaligned(size.bytes()));
            }
            Place::Element { .. } => {}
            Place::Stack {
                frame, from, to, ..
            } => {
                let Some(frame) = state.frame_mut(frame) else {
                    return Err(Fault::OutsideFrame { from, to });
                };
                frame
                    .numbers(from, to)
                    .map_err(|why| unreadable(why, from, to))?;
                frame.smear(from, to);
            }
        }
        if fetch {
            let to = if op == AtomicOp::CmpXchg {
                Reg::R0
            } else {
                src
            };
            state.set(to, Value::number(Scalar::of_size(size)));
        }
        Ok(())
    }
}

pub(super) fn unreadable(why: Unreadable, from: i64, to: i64) -> Fault {
    match why {
        Unreadable::Uninitialised => Fault::UninitialisedStack { from, to },
        Unreadable::PartOfPointer => Fault::PartOfPointer { from, to },
    }
}

fn context_field(at: i64, size: Size, signed: bool) -> Result<Value, Fault> {
    let whole = (0..i64::from(xdp_md::SIZE)).contains(&at) && at % 4 == 0;
    if size != Size::W || signed || !whole {
        return Err(Fault::ContextField);
    }
    let start = |part| {
        Value::Packet(Packet {
            part,
            id: 0,
            var: Scalar::constant(0),
            fixed: 0,
            range: 0,
        })
    };
    Ok(match i16::try_from(at) {
        Ok(xdp_md::DATA) => start(Part::Data),
        Ok(xdp_md::DATA_META) => start(Part::Meta),
        Ok(xdp_md::DATA_END) => Value::PacketEnd,
        _ => Value::number(Scalar::of_size(Size::W)),
    })
}

fn packet(state: &State, reg: usize, p: &Packet, off: i64, bytes: i64) -> Result<Place, Fault> {
    let from = p.fixed.saturating_add(off);
    let to = from.saturating_add(bytes);
    let start = p.var.wide.smin.saturating_add(from);
    if start < 0 {
        return Err(Fault::PacketStart {
            reg,
            before: start.saturating_neg(),
        });
    }
    let range = state.proven.range(p);
    // Either counted from the same unknown place, or from the start of the packet.
    let last = p.var.wide.smax.saturating_add(to);
    if to <= range || last <= state.proven.of(p.part) {
        return Ok(Place::Packet);
    }
    Err(Fault::PacketEnd {
        reg,
        to,
        proven: range,
    })
}
