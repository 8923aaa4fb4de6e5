//! Queues and stacks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use dash_bpf::{MapDef, MapKind};
use dash_runtime::tables::update_flags::{EXIST, NOEXIST};

use crate::errno::Errno;
use crate::memory::{Shared, copy, zero};

/// A queue or a stack. Every operation takes its lock, as in Linux.
#[derive(Debug)]
pub(crate) struct Queue {
    value: usize,
    stride: usize,
    max: usize,
    stack: bool,
    memory: Shared,
    state: Mutex<State>,
}

/// What is in it: `count` values from slot `first` on, wrapping.
#[derive(Debug, Default)]
struct State {
    first: usize,
    count: usize,
}

impl Queue {
    pub(crate) fn new(def: &MapDef) -> Result<Self, Errno> {
        if def.key_size != 0 || def.value_size == 0 || def.max_entries == 0 {
            return Err(Errno::Inval);
        }
        let stride = (def.value_size as usize).next_multiple_of(8);
        let max = def.max_entries as usize;
        Ok(Self {
            value: def.value_size as usize,
            stride,
            max,
            stack: def.kind == MapKind::Stack,
            memory: Shared::new(stride.checked_mul(max).ok_or(Errno::TooBig)?)?,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, index: usize) -> *mut u8 {
        self.memory.at(index % self.max * self.stride)
    }

    /// Adds a value; with `BPF_EXIST` a full one loses its oldest.
    ///
    /// # Safety
    /// `value_size` bytes are readable at `value`.
    pub(crate) unsafe fn push(&self, value: *const u8, flags: u64) -> Result<(), Errno> {
        if flags & NOEXIST != 0 || flags > EXIST {
            return Err(Errno::Inval);
        }
        let mut state = self.state();
        if state.count == self.max {
            if flags != EXIST {
                return Err(Errno::TooBig);
            }
            state.first = (state.first + 1) % self.max;
            state.count -= 1;
        }
        // SAFETY: a slot's bytes, and by contract.
        unsafe { copy(self.slot(state.first + state.count), value, self.value) };
        state.count += 1;
        Ok(())
    }

    /// Reads the next value, and removes it if asked to. Zeroes `value` when there is none.
    ///
    /// # Safety
    /// `value_size` bytes are writable at `value`.
    pub(crate) unsafe fn next(&self, value: *mut u8, remove: bool) -> Result<(), Errno> {
        let mut state = self.state();
        if state.count == 0 {
            // SAFETY: by contract.
            unsafe { zero(value, self.value) };
            return Err(Errno::NoEnt);
        }
        let slot = match self.stack {
            true => state.first + state.count - 1,
            false => state.first,
        };
        // SAFETY: a slot's bytes, and by contract.
        unsafe { copy(value, self.slot(slot), self.value) };
        if remove {
            state.count -= 1;
            if !self.stack {
                state.first = (state.first + 1) % self.max;
            }
        }
        Ok(())
    }

    /// All values, next one first.
    pub(crate) fn all(&self) -> Vec<Vec<u8>> {
        let state = self.state();
        let mut all: Vec<Vec<u8>> = (0..state.count)
            .map(|at| {
                let mut value = vec![0; self.value];
                let from = (state.first + at) % self.max * self.stride;
                self.memory.read(from, &mut value);
                value
            })
            .collect();
        if self.stack {
            all.reverse();
        }
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.state().count
    }
}
