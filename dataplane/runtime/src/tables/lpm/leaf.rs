//! A row that prefixes share: counts, then the value.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use super::block;
use super::node::ALIGN;

/// A counted reference to a row's value.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct Leaf(NonNull<u8>);

/// Bytes before a leaf's value.
const LEAF_HEAD: usize = ALIGN;

impl Leaf {
    /// A copy of a value, with 8 bytes behind it as every map's value has.
    pub(super) fn new(value: &[u8]) -> Self {
        let layout = Self::layout(value.len());
        let block = block::new(layout);
        // SAFETY: the block has room for two counts and the value, and is aligned for them.
        unsafe {
            block.cast::<AtomicUsize>().write(AtomicUsize::new(1));
            block.cast::<usize>().add(1).write(value.len());
            let at = block.add(LEAF_HEAD);
            at.copy_from_nonoverlapping(NonNull::from(value).cast(), value.len());
            at.add(value.len()).write_bytes(0, 8);
            Self(at)
        }
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(LEAF_HEAD + len + 8, ALIGN).expect("a row is small")
    }

    fn count(&self) -> &AtomicUsize {
        // SAFETY: a leaf points behind the counts `new` wrote.
        unsafe { self.0.sub(LEAF_HEAD).cast().as_ref() }
    }

    pub(super) fn value(&self) -> &[u8] {
        // SAFETY: `new` wrote the length and as many bytes; nobody writes them again.
        unsafe {
            let len = self.0.sub(LEAF_HEAD).cast::<usize>().add(1).read();
            std::slice::from_raw_parts(self.0.as_ptr(), len)
        }
    }

    /// Bytes of memory that all references share.
    pub(super) fn memory(&self) -> usize {
        Self::layout(self.value().len()).size()
    }

    pub(super) fn addr(&self) -> *mut u8 {
        self.0.as_ptr()
    }
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        // Relaxed: who clones holds a reference, so the count cannot reach zero meanwhile.
        self.count().fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        // Release, and Acquire for the last: all uses of the value are before its end.
        if self.count().fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            let layout = Self::layout(self.value().len());
            // SAFETY: the last reference is gone; `new` allocated the block with this layout.
            unsafe { block::free(self.0.sub(LEAF_HEAD), layout) }
        }
    }
}

// SAFETY: a value is not written after it is made, and counts are atomic: an `Arc` of plain bytes.
unsafe impl Send for Leaf {}
// SAFETY: as above.
unsafe impl Sync for Leaf {}
