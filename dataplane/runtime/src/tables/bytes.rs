//! Zeroed memory that programs may read and write through raw addresses while Rust holds it too.
//!
//! It is allocated by hand rather than held in a `Box`, so that a shared or unique reference to the
//! owner says nothing about the bytes: addresses handed to a program stay valid through it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

use super::memory::{self, MemoryError};
use super::mirror::SlabMemory;

const ALIGN: usize = 16;
/// Bytes behind the last: an 8-byte access that begins inside a block is in its allocation even
/// where an executor checks the first byte only (rbpf).
const SLACK: usize = 8;

/// A block of zeroed bytes, 16-byte aligned, at a fixed address.
#[derive(Debug)]
pub struct Bytes {
    ptr: NonNull<u8>,
    len: usize,
    /// Whose memory it is, if not ours.
    foreign: Option<Arc<dyn SlabMemory>>,
}

// SAFETY: a `Bytes` owns its memory as a `Vec<u8>` does, or shares it as `SlabMemory` allows. Writes through `&self` need an unsafe
// block, whose author proves that no other thread accesses the memory meanwhile.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// `len` zero bytes. The system gives pages only when they are touched.
    pub fn zeroed(len: usize) -> Self {
        let Some(layout) = Self::layout(len) else {
            return Self {
                ptr: NonNull::<u128>::dangling().cast(),
                len: 0,
                foreign: None,
            };
        };
        // SAFETY: `layout` is not of size 0.
        let ptr = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(ptr) else {
            handle_alloc_error(layout)
        };
        Self {
            ptr,
            len,
            foreign: None,
        }
    }

    /// The first `len` bytes of another's memory, without the slack behind them; `None` when it has
    /// fewer.
    pub fn over(memory: Arc<dyn SlabMemory>, len: usize) -> Option<Self> {
        (memory.len() >= len).then(|| Self {
            ptr: memory.base(),
            len,
            foreign: Some(memory),
        })
    }

    /// `None` for nothing.
    fn layout(len: usize) -> Option<Layout> {
        (len > 0).then(|| {
            Layout::from_size_align(len + SLACK, ALIGN)
                .expect("a table is smaller than the address space")
        })
    }

    /// Takes the memory now, which is `what`, for the thread that owns what is in it.
    ///
    /// # Errors
    /// There is not so much.
    pub(super) fn prefault(&self, what: &'static str) -> Result<(), MemoryError> {
        // SAFETY: the block, which lives as long as `self`; its owner's thread writes it, and calls.
        unsafe { memory::prefault(what, self.ptr, self.len) }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of byte `at`, which is at most `len`.
    pub fn at(&self, at: usize) -> *mut u8 {
        assert!(at <= self.len, "byte {at} of {}", self.len);
        // SAFETY: in the allocation or one past its end, by the assertion.
        unsafe { self.ptr.as_ptr().add(at) }
    }

    /// Copies `data` to byte `at`.
    pub fn write(&mut self, at: usize, data: &[u8]) {
        assert!(at + data.len() <= self.len, "bytes {at}.. of {}", self.len);
        // SAFETY: the target is in the allocation by the assertion; `data` is a reference, so it
        // does not overlap memory that only addresses lead to.
        unsafe {
            std::ptr::copy_nonoverlapping(data.as_ptr(), self.ptr.as_ptr().add(at), data.len())
        }
    }

    /// Copies out bytes `at..at + to.len()`.
    pub fn read(&self, at: usize, to: &mut [u8]) {
        assert!(at + to.len() <= self.len, "bytes {at}.. of {}", self.len);
        // SAFETY: as in `write`.
        unsafe {
            std::ptr::copy_nonoverlapping(self.ptr.as_ptr().add(at), to.as_mut_ptr(), to.len())
        }
    }
}

impl Clone for Bytes {
    fn clone(&self) -> Self {
        let new = Self::zeroed(self.len);
        // SAFETY: both are `len` bytes, and distinct allocations.
        unsafe { std::ptr::copy_nonoverlapping(self.ptr.as_ptr(), new.ptr.as_ptr(), self.len) };
        new
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if self.foreign.is_none()
            && let Some(layout) = Self::layout(self.len)
        {
            // SAFETY: not another's, so allocated in `zeroed` with this very layout.
            unsafe { dealloc(self.ptr.as_ptr(), layout) }
        }
    }
}
