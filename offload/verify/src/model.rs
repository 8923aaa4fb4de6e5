//! The copy of a program PREVAIL reads.
//!
//! It differs from what runs in two ways, both of which make it know less, never more. Maps are
//! numbered from 1 (0 is PREVAIL's null). And because PREVAIL takes a popped value for memory the
//! helper only reads, which wants it initialised and keeps what was known of it, each pop or peek
//! into the stack is wrapped: zeros are stored there before it, an unknown number after it, and r0
//! is unknown again at the end.

use std::collections::BTreeMap;

use dash_bpf::encode::EncodeError;
use dash_bpf::helper::GET_PRANDOM_U32;
use dash_bpf::op::{Imm64, Op, Operand, Reg, Size};
use dash_bpf::{Insn, encode};

use crate::platform::map_fd;
use crate::rules::{Facts, Fill};

/// The copy, and for each of its slots the slot it stands for.
pub(crate) struct Model {
    pub(crate) insns: Vec<Insn>,
    pub(crate) origin: Vec<usize>,
}

/// Builds the copy of a program that passed the rules.
pub(crate) fn model(ops: &[Op], facts: &Facts) -> Result<Model, EncodeError> {
    let mut out: Vec<(usize, Op)> = Vec::with_capacity(ops.len());
    let mut start: BTreeMap<usize, usize> = BTreeMap::new();
    for (pc, op) in ops.iter().enumerate() {
        start.insert(pc, out.len());
        match facts.fills.get(&pc) {
            None => out.push((pc, *op)),
            Some(fill) => {
                out.extend(stores(*fill, Operand::Imm(0)).map(|op| (pc, op)));
                out.push((pc, *op));
                let unknown = Op::Call {
                    helper: GET_PRANDOM_U32,
                };
                out.push((pc, unknown));
                out.extend(stores(*fill, Operand::Reg(Reg::R0)).map(|op| (pc, op)));
                out.push((pc, unknown));
            }
        }
    }
    let mut insns = Vec::with_capacity(out.len());
    let mut origin = Vec::with_capacity(out.len());
    for (pc, op) in out {
        // Targets of decoded programs are slots of the program.
        let moved = |target: usize| start.get(&target).copied().unwrap_or(target);
        let op = match op {
            Op::LoadImm64Hi => continue,
            Op::Jump { target } => Op::Jump {
                target: moved(target),
            },
            Op::JumpIf {
                width,
                cond,
                dst,
                src,
                target,
            } => Op::JumpIf {
                width,
                cond,
                dst,
                src,
                target: moved(target),
            },
            Op::CallLocal { target } => Op::CallLocal {
                target: moved(target),
            },
            Op::LoadImm64 {
                dst,
                imm: Imm64::Map(map),
            } => Op::LoadImm64 {
                dst,
                imm: Imm64::Map(map_fd(map)),
            },
            Op::LoadImm64 {
                dst,
                imm: Imm64::MapValue { map, offset },
            } => Op::LoadImm64 {
                dst,
                imm: Imm64::MapValue {
                    map: map_fd(map),
                    offset,
                },
            },
            other => other,
        };
        let encoded = encode(&op, insns.len())?;
        insns.extend_from_slice(encoded.as_slice());
        origin.resize(insns.len(), pc);
    }
    Ok(Model { insns, origin })
}

/// Stores that cover a range of the frame.
fn stores(fill: Fill, src: Operand) -> impl Iterator<Item = Op> {
    let end = fill.offset + i64::from(fill.size);
    let mut at = fill.offset;
    std::iter::from_fn(move || {
        let size = [Size::Dw, Size::W, Size::H, Size::B]
            .into_iter()
            .find(|size| {
                let bytes = size.bytes() as i64;
                at % bytes == 0 && at + bytes <= end
            })?;
        // The rules keep fills inside [-512, 0).
        let off = i16::try_from(at).ok()?;
        at += size.bytes() as i64;
        Some(Op::Store {
            size,
            base: Reg::R10,
            off,
            src,
        })
    })
}
