//! One stack frame: which bytes were written, and what was stored whole.

use dash_bpf::interp::FRAME_SIZE;
use dash_bpf::op::Size;
use dash_bpf::semantics;

use super::relate::{Joining, Matching};
use super::scalar::Scalar;
use super::value::Value;

pub(crate) const FRAME: i64 = FRAME_SIZE as i64;

/// Something stored by one instruction and not touched since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Offset from r10.
    pub(crate) off: i16,
    /// In bytes: 1, 2, 4 or 8.
    pub(crate) size: u8,
    pub(crate) value: Value,
}

impl Cell {
    fn lies_in(&self, words: u64) -> bool {
        super::graph::words(self.off.into(), self.end()) & words != 0
    }

    fn end(&self) -> i64 {
        i64::from(self.off) + i64::from(self.size)
    }
}

/// Why bytes cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Uninitialised,
    PartOfPointer,
}

/// Offsets are from the frame's top, so negative. Callers keep them in [-512, 0).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    written: [u64; FRAME_SIZE / 64],
    /// By offset, disjoint. Written bytes without a cell are numbers of which nothing is known.
    cells: Vec<Cell>,
}

/// Bits of bytes `[from, to)`, word by word.
fn words(from: i64, to: i64) -> impl Iterator<Item = (usize, u64)> {
    let (from, to) = ((from + FRAME) as usize, (to + FRAME) as usize);
    (from / 64..to.div_ceil(64)).map(move |word| {
        let low = from.saturating_sub(word * 64).min(63);
        let high = (to - word * 64).min(64);
        let mask = super::tnum::low_bits(high as u32) & !super::tnum::low_bits(low as u32);
        (word, mask)
    })
}

impl Frame {
    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.cells.iter_mut().map(|cell| &mut cell.value)
    }

    pub(crate) fn is_written(&self, from: i64, to: i64) -> bool {
        words(from, to).all(|(word, mask)| self.written[word] & mask == mask)
    }

    fn set_written(&mut self, from: i64, to: i64, written: bool) {
        for (word, mask) in words(from, to) {
            if written {
                self.written[word] |= mask;
            } else {
                self.written[word] &= !mask;
            }
        }
    }

    fn overlapping(&self, from: i64, to: i64) -> std::ops::Range<usize> {
        let first = self.cells.partition_point(|c| c.end() <= from);
        let count = self.cells[first..]
            .iter()
            .take_while(|c| i64::from(c.off) < to)
            .count();
        first..first + count
    }

    /// Removes what was stored in these bytes. What is left of a pointer cut by them is no number.
    fn forget(&mut self, from: i64, to: i64) {
        let range = self.overlapping(from, to);
        for index in range.clone() {
            let cell = self.cells[index];
            if cell.value.is_pointer() {
                self.set_written(cell.off.into(), cell.end(), false);
            }
        }
        self.cells.drain(range);
    }

    /// A store of one register or immediate.
    pub(crate) fn store(&mut self, off: i64, size: Size, value: Value) {
        let to = off + size.bytes() as i64;
        self.forget(off, to);
        self.set_written(off, to, true);
        let value = match value {
            Value::Number { set, id } => {
                let low = set.truncate(size.bytes() as u32 * 8);
                let id = if low == set { id } else { 0 };
                Value::Number { set: low, id }
            }
            other => other,
        };
        let at = self.cells.partition_point(|c| i64::from(c.off) < off);
        let cell = Cell {
            off: off as i16,
            size: size.bytes() as u8,
            value,
        };
        self.cells.insert(at, cell);
    }

    /// Whether something is stored outside these words.
    pub(crate) fn stores_outside(&self, words: u64) -> bool {
        self.cells.iter().any(|cell| !cell.lies_in(words))
    }

    /// Forgets what numbers outside these words are, and that pointers are there.
    pub(crate) fn keep(&mut self, words: u64) {
        for index in (0..self.cells.len()).rev() {
            let cell = self.cells[index];
            if !cell.lies_in(words) {
                self.forget(cell.off.into(), cell.end());
            }
        }
    }

    /// Unknown numbers written to these bytes.
    pub(crate) fn fill(&mut self, from: i64, to: i64) {
        self.forget(from, to);
        self.set_written(from, to, true);
    }

    /// Unknown numbers written to some of these bytes.
    pub(crate) fn smear(&mut self, from: i64, to: i64) {
        self.forget(from, to);
    }

    /// Whether these bytes are numbers, all written.
    pub(crate) fn numbers(&self, from: i64, to: i64) -> Result<(), Unreadable> {
        if self.cells[self.overlapping(from, to)]
            .iter()
            .any(|c| c.value.is_pointer())
        {
            return Err(Unreadable::PartOfPointer);
        }
        if !self.is_written(from, to) {
            return Err(Unreadable::Uninitialised);
        }
        Ok(())
    }

    /// A zero-extending load.
    pub(crate) fn load(&self, off: i64, size: Size) -> Result<Value, Unreadable> {
        let bytes = size.bytes() as i64;
        let cells = &self.cells[self.overlapping(off, off + bytes)];
        if let [cell] = cells
            && i64::from(cell.off) == off
            && i64::from(cell.size) == bytes
        {
            return Ok(cell.value);
        }
        self.numbers(off, off + bytes)?;
        Ok(match constant(cells, off, bytes) {
            Some(n) => Value::constant(semantics::low(size, n)),
            None => Value::number(Scalar::of_size(size)),
        })
    }

    /// Everything `new` may be, `self` may be.
    pub(crate) fn includes(&self, new: &Self, matching: &mut Matching<'_>) -> bool {
        let readable = self.written.iter().zip(&new.written);
        if readable.clone().any(|(old, new)| old & !new != 0) {
            return false;
        }
        let known = self.cells.iter().all(|cell| {
            new.load(cell.off.into(), size_of(cell.size))
                .is_ok_and(|value| cell.value.includes(value, matching))
        });
        known
            && new.cells.iter().all(|cell| {
                let (from, to) = (i64::from(cell.off), cell.end());
                !cell.value.is_pointer()
                    || words(from, to).all(|(word, mask)| self.written[word] & mask == 0)
                    || self
                        .cells
                        .iter()
                        .any(|c| c.off == cell.off && c.size == cell.size)
            })
    }

    /// A frame that includes both.
    pub(crate) fn join(&self, other: &Self, joining: &mut Joining<'_>) -> Self {
        let mut written = self.written;
        for (a, b) in written.iter_mut().zip(other.written) {
            *a &= b;
        }
        let mut joined = Self {
            written,
            cells: Vec::with_capacity(self.cells.len()),
        };
        let pointers = |f: &Self| {
            let cells = f.cells.iter().filter(|c| c.value.is_pointer());
            cells.map(|c| (c.off, c.end())).collect::<Vec<_>>()
        };
        let mut lost: Vec<(i16, i64)> = pointers(self);
        lost.extend(pointers(other));
        for cell in &self.cells {
            let Ok(there) = other.load(cell.off.into(), size_of(cell.size)) else {
                continue;
            };
            let value = cell.value.join(there, joining);
            if value == Value::Unusable {
                lost.push((cell.off, cell.end()));
            } else {
                if value.is_pointer() {
                    lost.retain(|range| *range != (cell.off, cell.end()));
                }
                joined.cells.push(Cell { value, ..*cell });
            }
        }
        for (from, to) in lost {
            joined.set_written(from.into(), to, false);
        }
        joined
    }

    /// See [`State::widen`](super::state::State::widen).
    pub(crate) fn widen(&self, next: &Self) -> Self {
        let mut widened = next.clone();
        for cell in &next.cells {
            let (from, to) = (i64::from(cell.off), cell.end());
            let value = match self.load(from, size_of(cell.size)) {
                Ok(old) => old.widen(cell.value),
                Err(_) => Value::Unusable,
            };
            if value == Value::Unusable {
                widened.forget(from, to);
            } else if value != cell.value
                && let Some(cell) = widened.cells.iter_mut().find(|c| c.off == cell.off)
            {
                cell.value = value;
            }
        }
        widened
    }

    /// How much is lost when these are joined.
    pub(crate) fn distance(&self, other: &Self) -> u32 {
        let mut distance = 0;
        for cell in &self.cells {
            distance += match other.load(cell.off.into(), size_of(cell.size)) {
                Ok(there) => cell.value.distance(there),
                Err(_) => 2,
            };
        }
        let bits = self.written.iter().zip(&other.written);
        let differing: u32 = bits.map(|(a, b)| (a ^ b).count_ones()).sum();
        distance + differing.div_ceil(8)
    }
}

fn size_of(bytes: u8) -> Size {
    match bytes {
        1 => Size::B,
        2 => Size::H,
        4 => Size::W,
        _ => Size::Dw,
    }
}

/// The bytes at `off` if these cells say what each of them is.
fn constant(cells: &[Cell], off: i64, bytes: i64) -> Option<u64> {
    let mut value = 0;
    for at in 0..bytes {
        let cell = cells
            .iter()
            .find(|c| (i64::from(c.off)..c.end()).contains(&(off + at)))?;
        let byte = cell.value.known()? >> (8 * (off + at - i64::from(cell.off)));
        value |= (byte & 0xff) << (8 * at);
    }
    Some(value)
}
