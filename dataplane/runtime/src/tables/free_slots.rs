//! The stack of slots not in use, as if all had been pushed when it was made, the first last.
//!
//! Slots never taken are a number, not memory: taking the next one counts up. Only slots that were
//! given back lie in memory, which therefore grows with use.

use std::cell::Cell;

use super::memory::{Mapping, MemoryError};
use super::mirror::SlabMemory as _;
use super::{MapOps, errno};

/// `BPF_EXIST` of a push: make room by dropping the oldest value.
const REPLACE: u64 = 2;

/// Free slots, last in, first out. One thread uses it.
#[derive(Debug)]
pub struct FreeSlots {
    slots: u32,
    /// Slots given back: a ring, as the oldest may have to go.
    given: Mapping,
    head: Cell<usize>,
    len: Cell<usize>,
    /// Slots never taken: from here to `end`.
    fresh: Cell<u32>,
    end: Cell<u32>,
}

impl FreeSlots {
    /// Slots `0..slots`, all free.
    ///
    /// # Errors
    /// The system gives no address space.
    pub fn new(slots: u32) -> Result<Self, MemoryError> {
        Ok(Self {
            slots,
            given: Mapping::new("free flow slots", slots as usize * size_of::<u32>())?,
            head: Cell::new(0),
            len: Cell::new(0),
            fresh: Cell::new(0),
            end: Cell::new(slots),
        })
    }

    /// Takes the memory of all slots that may be given back.
    pub(super) fn prefault(&self) -> Result<(), MemoryError> {
        self.given.prefault("free flow slots")
    }

    /// Free slots.
    pub fn len(&self) -> usize {
        self.len.get() + (self.end.get() - self.fresh.get()) as usize
    }

    /// No slot is free.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots from here on were never taken.
    pub fn high_water(&self) -> u32 {
        self.fresh.get()
    }

    /// Gives a slot back; false when there are as many as slots already.
    pub fn push_u32(&self, slot: u32) -> bool {
        let full = self.len() >= self.slots as usize;
        if !full {
            // SAFETY: a place of the ring, see `place`.
            unsafe { self.place(self.len.get()).write(slot) };
            self.len.set(self.len.get() + 1);
        }
        !full
    }

    /// Takes a slot.
    pub fn pop_u32(&self) -> Option<u32> {
        let slot = self.peek_u32()?;
        match self.len.get().checked_sub(1) {
            Some(less) => self.len.set(less),
            None => self.fresh.set(self.fresh.get() + 1),
        }
        Some(slot)
    }

    /// The slot that is taken after `nth` others, if none is given back meanwhile.
    #[inline]
    pub fn upcoming(&self, nth: usize) -> Option<u32> {
        match self.len.get().checked_sub(nth + 1) {
            // SAFETY: a place of the ring that was written.
            Some(at) => Some(unsafe { self.place(at).read() }),
            None => {
                let fresh = self.fresh.get() as usize + (nth - self.len.get());
                // Below `end`, which is `u32`.
                (fresh < self.end.get() as usize).then_some(fresh as u32)
            }
        }
    }

    fn peek_u32(&self) -> Option<u32> {
        match self.len.get().checked_sub(1) {
            // SAFETY: a place of the ring that was written.
            Some(last) => Some(unsafe { self.place(last).read() }),
            None => (self.fresh.get() < self.end.get()).then(|| self.fresh.get()),
        }
    }

    /// Address of the slot that was given back `nth`: inside the ring of `slots` places, which is not
    /// empty when this is called (`len` is below `slots` before a push, above 0 before a pop).
    fn place(&self, nth: usize) -> *mut u32 {
        let (at, slots) = (self.head.get() + nth, self.slots as usize);
        let at = if at >= slots { at - slots } else { at };
        self.given.base().as_ptr().cast::<u32>().wrapping_add(at)
    }

    /// The slot that would be taken last goes.
    fn drop_oldest(&self) {
        if self.fresh.get() < self.end.get() {
            self.end.set(self.end.get() - 1);
        } else if let Some(less) = self.len.get().checked_sub(1) {
            let head = self.head.get() + 1;
            self.head
                .set(if head == self.slots as usize { 0 } else { head });
            self.len.set(less);
        }
    }
}

// SAFETY: there is no look-up.
unsafe impl MapOps for FreeSlots {
    unsafe fn update(&self, _key: *const u8, _value: *const u8, _flags: u64) -> i64 {
        errno::EINVAL
    }

    unsafe fn delete(&self, _key: *const u8) -> i64 {
        errno::EINVAL
    }

    unsafe fn push(&self, value: *const u8, flags: u64) -> i64 {
        if flags != 0 && flags != REPLACE {
            return errno::EINVAL;
        }
        if flags == REPLACE && self.len() >= self.slots as usize {
            self.drop_oldest();
        }
        // SAFETY: 4 readable bytes by contract.
        match self.push_u32(unsafe { value.cast::<u32>().read_unaligned() }) {
            true => 0,
            false => errno::E2BIG,
        }
    }

    unsafe fn pop(&self, value: *mut u8) -> i64 {
        // SAFETY: same contract.
        unsafe { give(value, self.pop_u32()) }
    }

    unsafe fn peek(&self, value: *mut u8) -> i64 {
        // SAFETY: same contract.
        unsafe { give(value, self.peek_u32()) }
    }
}

/// Hands out a value, zeros where there is none, as Linux does.
///
/// # Safety
/// 4 writable bytes.
unsafe fn give(to: *mut u8, slot: Option<u32>) -> i64 {
    // SAFETY: by contract.
    unsafe { to.cast::<u32>().write_unaligned(slot.unwrap_or(0)) };
    if slot.is_some() { 0 } else { errno::ENOENT }
}

#[cfg(test)]
mod tests {
    use super::FreeSlots;
    use crate::tables::MapOps as _;
    use proptest::prelude::*;

    proptest! {
        /// The twin is a stack with all slots on it.
        #[test]
        fn it_is_a_stack_that_was_filled(slots in 0u32..9, steps in prop::collection::vec((0u8..5, 0u32..9), 0..80)) {
            let free = FreeSlots::new(slots).unwrap();
            let mut twin: Vec<u32> = (0..slots).rev().collect();
            for (step, slot) in steps {
                if step < 3 {
                    prop_assert_eq!(free.peek_u32(), twin.last().copied());
                    prop_assert_eq!(free.pop_u32(), twin.pop());
                } else {
                    let full = twin.len() == slots as usize;
                    if step == 3 {
                        prop_assert_eq!(free.push_u32(slot), !full);
                    } else {
                        // SAFETY: 4 readable bytes.
                        let done = unsafe { free.push(slot.to_ne_bytes().as_ptr(), super::REPLACE) };
                        prop_assert_eq!(done == 0, slots > 0);
                        if full && !twin.is_empty() {
                            twin.remove(0);
                        }
                    }
                    if slots > 0 && (step == 4 || !full) {
                        twin.push(slot);
                    }
                }
                prop_assert_eq!(free.len(), twin.len());
                for nth in 0..12 {
                    let want = twin.len().checked_sub(nth + 1).map(|at| twin[at]);
                    prop_assert_eq!(free.upcoming(nth), want);
                }
            }
        }
    }
}
