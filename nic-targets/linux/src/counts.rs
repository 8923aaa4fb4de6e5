//! Counters that one thread keeps and others read.

use std::sync::atomic::{AtomicU64, Ordering};

/// Adds to a counter that only the calling thread writes: no read-modify-write.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(read(counter) + n, Ordering::Relaxed);
}

/// A counter's value.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
