//! What is known at one instruction.

use std::collections::BTreeMap;

use dash_bpf::interp::FRAME_SIZE;
use dash_bpf::op::{Operand, Reg};

use super::Refusal;
use crate::values::{Number, Value};

pub(super) const FRAME: i64 = FRAME_SIZE as i64;

/// One stack frame; offsets are from its top, so negative.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    written: [u64; FRAME_SIZE / 64],
    /// Spilled values other than numbers.
    pub(super) spilled: BTreeMap<i64, Value>,
    /// A pointer was stored at an unknown offset.
    pub(super) wild: bool,
}

impl Frame {
    fn bits(from: i64, to: i64) -> impl Iterator<Item = (usize, u64)> {
        (from + FRAME..to + FRAME).map(|at| (at as usize / 64, 1 << (at % 64)))
    }

    pub(super) fn is_written(&self, from: i64, to: i64) -> bool {
        Self::bits(from, to).all(|(word, bit)| self.written[word] & bit != 0)
    }

    pub(super) fn overlaps(&self, from: i64, to: i64) -> bool {
        self.spilled.range(from - 7..to).next().is_some()
    }

    /// Numbers were written to these bytes.
    pub(super) fn write(&mut self, from: i64, to: i64) {
        for (word, bit) in Self::bits(from, to) {
            self.written[word] |= bit;
        }
        self.spilled.retain(|at, _| at + 8 <= from || *at >= to);
    }

    pub(super) fn join(&mut self, other: &Self) {
        for (a, b) in self.written.iter_mut().zip(other.written) {
            *a &= b;
        }
        self.wild |= other.wild;
        for (at, value) in &other.spilled {
            let here = self.spilled.get(at).copied().unwrap_or(Value::NUMBER);
            self.spilled.insert(*at, here.join(*value));
        }
        for (at, value) in &mut self.spilled {
            let there = other.spilled.get(at).copied().unwrap_or(Value::NUMBER);
            *value = value.join(there);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) regs: [Value; 11],
    /// The last is the running function's.
    pub(super) frames: Vec<Frame>,
}

impl State {
    pub(super) fn get(&self, r: Reg) -> Result<Value, Refusal> {
        match self.regs[r.index()] {
            Value::Uninit => Err(Refusal::Uninitialised(r.index())),
            value => Ok(value),
        }
    }

    pub(super) fn set(&mut self, r: Reg, value: Value) {
        self.regs[r.index()] = value;
    }

    pub(super) fn operand(&self, src: Operand) -> Result<Value, Refusal> {
        match src {
            Operand::Reg(r) => self.get(r),
            Operand::Imm(v) => Ok(Value::Number(Number::Const(i64::from(v) as u64))),
        }
    }

    pub(super) fn join(&mut self, other: &Self) {
        for (a, b) in self.regs.iter_mut().zip(other.regs) {
            *a = a.join(b);
        }
        for (a, b) in self.frames.iter_mut().zip(&other.frames) {
            a.join(b);
        }
    }

    pub(super) fn clobber(&mut self) {
        for value in &mut self.regs[..6] {
            *value = Value::Uninit;
        }
    }

    /// Pointers into frames that are gone must not be used any more.
    pub(super) fn forget_frames_from(&mut self, depth: usize) {
        let forget = |value: &mut Value| {
            if matches!(value, Value::Stack { frame, .. } if *frame >= depth) {
                *value = Value::Mixed;
            }
        };
        self.regs.iter_mut().for_each(forget);
        self.frames
            .iter_mut()
            .flat_map(|f| f.spilled.values_mut())
            .for_each(forget);
    }
}
