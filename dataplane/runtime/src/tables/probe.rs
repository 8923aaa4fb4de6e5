//! Open addressing: the block of slots under both hash tables.
//!
//! Linear probing over one tag byte a slot (0 = free, else 7 bits of the hash), then the key.
//! Deletion moves later entries back instead of leaving tombstones, so a table that is filled and
//! emptied for years stays as fast as new. Capacity need not be a power of two: the home slot is
//! the hash's low half scaled, which lets tables be 80 % full at any size.

use super::bytes::Bytes;
use super::hash::HashKey;

/// Sizes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) key: usize,
    pub(super) value: usize,
}

impl Shape {
    /// Values are 4-byte aligned: rows hold no wider fields, and entries stay compact.
    pub(super) fn value_at(self) -> usize {
        self.key.next_multiple_of(4)
    }
    fn stride(self) -> usize {
        (self.value_at() + self.value).next_multiple_of(4)
    }
}

/// A fixed number of slots. The caller keeps at least one free.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    shape: Shape,
    tags: Box<[u8]>,
    slots: Bytes,
    len: usize,
}

fn tag(hash: u64) -> u8 {
    (hash >> 32) as u8 | 0x80
}

impl Probe {
    pub(super) fn new(shape: Shape, capacity: usize) -> Self {
        Self {
            shape,
            tags: vec![0; capacity].into_boxed_slice(),
            slots: Bytes::zeroed(capacity * shape.stride()),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Memory of the slots, for who must know which addresses values have.
    pub(super) fn memory(&self) -> std::ops::Range<usize> {
        let start = self.slots.at(0).addr();
        start..start + self.slots.len()
    }

    fn home(&self, hash: u64) -> usize {
        (((hash & 0xffff_ffff) * self.tags.len() as u64) >> 32) as usize
    }

    fn next(&self, slot: usize) -> usize {
        if slot + 1 == self.tags.len() {
            0
        } else {
            slot + 1
        }
    }

    fn key(&self, slot: usize) -> &[u8] {
        let at = self.slots.at(slot * self.shape.stride());
        // SAFETY: `slot` is below the capacity in every caller (probing wraps there), so the key is
        // inside the block; keys are written only by `insert` and `remove`, which take `&mut self`.
        unsafe { std::slice::from_raw_parts(at, self.shape.key) }
    }

    pub(super) fn value(&self, slot: usize) -> *mut u8 {
        self.slots
            .at(slot * self.shape.stride() + self.shape.value_at())
    }

    /// Slot of `key`.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        if self.tags.is_empty() {
            return None;
        }
        let want = tag(hash);
        let mut slot = self.home(hash);
        loop {
            match self.tags[slot] {
                0 => return None,
                t if t == want && self.key(slot) == key => return Some(slot),
                _ => slot = self.next(slot),
            }
        }
    }

    /// Takes a slot for a key that is absent; its value is zero.
    pub(super) fn insert(&mut self, hash: u64, key: &[u8]) -> usize {
        assert!(
            self.len + 1 < self.tags.len(),
            "one slot stays free, so that probing ends"
        );
        let mut slot = self.home(hash);
        while self.tags[slot] != 0 {
            slot = self.next(slot);
        }
        self.tags[slot] = tag(hash);
        self.len += 1;
        let stride = self.shape.stride();
        // SAFETY: one whole slot, inside the block as `slot` is below the capacity.
        unsafe { std::ptr::write_bytes(self.slots.at(slot * stride), 0, stride) };
        self.slots.write(slot * stride, key);
        slot
    }

    /// Frees a slot and closes the gap.
    pub(super) fn remove(&mut self, slot: usize, hasher: &HashKey) {
        let stride = self.shape.stride();
        let capacity = self.tags.len();
        let distance = |from: usize, to: usize| {
            if to >= from {
                to - from
            } else {
                to + capacity - from
            }
        };
        let mut hole = slot;
        let mut at = self.next(slot);
        while self.tags[at] != 0 {
            let home = self.home(hasher.hash(self.key(at)));
            // The entry may move when its home is not after the hole on the way to it.
            if distance(home, at) >= distance(hole, at) {
                let (from, to) = (self.slots.at(at * stride), self.slots.at(hole * stride));
                // SAFETY: two different slots inside the block.
                unsafe { std::ptr::copy_nonoverlapping(from, to, stride) };
                self.tags[hole] = self.tags[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.tags[hole] = 0;
        self.len -= 1;
    }

    /// Slots in use.
    pub(super) fn entries(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.tags.len()).filter(|&slot| self.tags[slot] != 0)
    }

    /// Key and a copy of the value of each entry.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + '_ {
        self.entries().map(|slot| {
            let mut value = vec![0; self.shape.value];
            self.slots.read(
                slot * self.shape.stride() + self.shape.value_at(),
                &mut value,
            );
            (self.key(slot).to_vec(), value)
        })
    }
}
