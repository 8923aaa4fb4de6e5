//! Queues and stacks: a fixed ring of values that one thread owns.

use std::cell::Cell;

use dash_bpf::MapDef;

use super::bytes::Bytes;
use super::memory::MemoryError;
use super::{MapOps, errno};

/// Which end values leave by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    FirstIn,
    LastIn,
}

/// A queue or a stack.
#[derive(Debug)]
pub struct Ring {
    order: Order,
    value: usize,
    capacity: usize,
    bytes: Bytes,
    head: Cell<usize>,
    len: Cell<usize>,
}

impl Ring {
    /// An empty queue: first in, first out.
    pub fn queue(def: &MapDef) -> Self {
        Self::new(def, Order::FirstIn)
    }

    /// An empty stack: last in, first out.
    pub fn stack(def: &MapDef) -> Self {
        Self::new(def, Order::LastIn)
    }

    fn new(def: &MapDef, order: Order) -> Self {
        let (value, capacity) = (def.value_size as usize, def.max_entries as usize);
        Self {
            order,
            value,
            capacity,
            bytes: Bytes::zeroed(value * capacity),
            head: Cell::new(0),
            len: Cell::new(0),
        }
    }

    /// Takes the memory of as many values as there may be now, for the thread that owns them.
    pub(super) fn prefault(&self, what: &'static str) -> Result<(), MemoryError> {
        self.bytes.prefault(what)
    }

    /// Values in it.
    pub fn len(&self) -> usize {
        self.len.get()
    }

    /// Holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a `u32`; false when full.
    pub fn push_u32(&self, value: u32) -> bool {
        assert_eq!(self.value, 4);
        // SAFETY: 4 readable bytes.
        unsafe { self.push(value.to_ne_bytes().as_ptr(), 0) == 0 }
    }

    /// Takes the next `u32`.
    pub fn pop_u32(&self) -> Option<u32> {
        assert_eq!(self.value, 4);
        let mut value = [0; 4];
        // SAFETY: 4 writable bytes.
        (unsafe { self.pop(value.as_mut_ptr()) } == 0).then(|| u32::from_ne_bytes(value))
    }

    /// Address of the value `nth` after the oldest.
    fn slot(&self, nth: usize) -> *mut u8 {
        let at = self.head.get() + nth;
        let at = if at >= self.capacity {
            at - self.capacity
        } else {
            at
        };
        self.bytes.at(at * self.value)
    }

    /// Position of the value that leaves next.
    fn next(&self) -> Option<usize> {
        let len = self.len.get();
        match self.order {
            _ if len == 0 => None,
            Order::FirstIn => Some(0),
            Order::LastIn => Some(len - 1),
        }
    }

    fn drop_oldest(&self) {
        let head = self.head.get() + 1;
        self.len.set(self.len.get() - 1);
        // An empty ring starts over, so that one which never is long never touches much memory.
        let over = head == self.capacity || self.len.get() == 0;
        self.head.set(if over { 0 } else { head });
    }
}

/// `BPF_EXIST` of a push: make room by dropping the oldest value.
const REPLACE: u64 = 2;

// SAFETY: there is no look-up.
unsafe impl MapOps for Ring {
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
        if self.len.get() == self.capacity {
            if flags != REPLACE || self.capacity == 0 {
                return errno::E2BIG;
            }
            self.drop_oldest();
        }
        // SAFETY: source readable by contract; the slot is in the ring, as len < capacity.
        unsafe { std::ptr::copy(value, self.slot(self.len.get()), self.value) };
        self.len.set(self.len.get() + 1);
        0
    }

    unsafe fn pop(&self, value: *mut u8) -> i64 {
        // SAFETY: same contract.
        let result = unsafe { self.peek(value) };
        if result == 0 {
            match self.order {
                Order::FirstIn => self.drop_oldest(),
                Order::LastIn => self.len.set(self.len.get() - 1),
            }
        }
        result
    }

    unsafe fn peek(&self, value: *mut u8) -> i64 {
        match self.next() {
            Some(nth) => {
                // SAFETY: target writable by contract; the slot is in use.
                unsafe { std::ptr::copy(self.slot(nth), value, self.value) };
                0
            }
            None => {
                // SAFETY: writable by contract. Linux also leaves zeros where there is no value.
                unsafe { std::ptr::write_bytes(value, 0, self.value) };
                errno::ENOENT
            }
        }
    }
}
