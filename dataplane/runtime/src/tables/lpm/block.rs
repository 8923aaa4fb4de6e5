//! Memory of nodes and rows. Tests keep a list of what is in use.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// A new block, not initialised. Layouts here are of headers and more: never of size 0.
pub(super) fn new(layout: Layout) -> NonNull<u8> {
    debug_assert_ne!(layout.size(), 0);
    // SAFETY: the layout is not of size 0.
    let block = unsafe { alloc(layout) };
    let Some(block) = NonNull::new(block) else {
        handle_alloc_error(layout)
    };
    #[cfg(test)]
    in_use::add(block, layout);
    block
}

/// Frees a block.
///
/// # Safety
/// It came from [`new`] with this layout, and nobody uses it any more.
pub(super) unsafe fn free(block: NonNull<u8>, layout: Layout) {
    #[cfg(test)]
    in_use::remove(block, layout);
    // SAFETY: the caller's.
    unsafe { dealloc(block.as_ptr(), layout) }
}

/// What the blocks of a test's thread are.
#[cfg(test)]
pub(super) mod in_use {
    use std::alloc::Layout;
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::ptr::NonNull;

    thread_local! {
        static BLOCKS: RefCell<HashMap<usize, Layout>> = RefCell::default();
    }

    pub(super) fn add(block: NonNull<u8>, layout: Layout) {
        let old = BLOCKS.with_borrow_mut(|blocks| blocks.insert(block.addr().get(), layout));
        assert_eq!(old, None, "a block that is in use was given out");
    }

    pub(super) fn remove(block: NonNull<u8>, layout: Layout) {
        let old = BLOCKS.with_borrow_mut(|blocks| blocks.remove(&block.addr().get()));
        assert_eq!(old, Some(layout), "freed twice, or as something else");
    }

    /// Number of blocks.
    pub(in super::super) fn count() -> usize {
        BLOCKS.with_borrow(HashMap::len)
    }
}
