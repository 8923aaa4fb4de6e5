//! Memory of tables made for millions of rows: address space now, pages when they are touched.
//!
//! A mapping costs nothing until a row is used. The first touch is the worker's, on its own pinned
//! thread, so the kernel takes the page from that thread's memory node; it takes 2 MB at a time
//! where it can (`MADV_HUGEPAGE`), because a look-up in 4 KB pages costs half as much again in
//! page walks. Growing a table is touching more of it: no allocator, no copy, no second table.

use std::fmt;
use std::io;
use std::ptr::NonNull;

use super::mirror::SlabMemory;

/// What large pages are aligned to.
const HUGE: usize = 2 << 20;
/// Bytes behind the last: an 8-byte access that begins inside a table is in its mapping even where
/// an executor checks the first byte only (rbpf).
const SLACK: usize = 8;

/// The system gave no address space for a table.
#[derive(Debug, thiserror::Error)]
#[error(
    "no address space for {what}, {bytes} bytes (RLIMIT_AS, vm.overcommit_memory or vm.max_map_count may be why)"
)]
pub struct MemoryError {
    /// The table.
    pub what: &'static str,
    /// Its size.
    pub bytes: usize,
    /// What the system said.
    pub source: io::Error,
}

impl From<MemoryError> for nic_target::TargetError {
    fn from(error: MemoryError) -> Self {
        Self::Os {
            what: error.to_string(),
            source: error.source,
        }
    }
}

/// Anonymous private memory, zero until written, at a fixed address.
pub struct Mapping {
    /// What was mapped, to unmap it.
    whole: NonNull<u8>,
    whole_len: usize,
    /// First byte of use: a multiple of 2 MB when the mapping is that large.
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a `Mapping` owns its memory as a `Vec<u8>` does; whoever writes through addresses proves
// in an unsafe block that no other thread accesses the memory meanwhile.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({:p}, {} bytes)", self.base, self.len)
    }
}

impl Mapping {
    /// `len` zero bytes for `what`, none of them in memory yet.
    ///
    /// # Errors
    /// The system refuses the address space.
    pub fn new(what: &'static str, len: usize) -> Result<Self, MemoryError> {
        let fail = |source| MemoryError {
            what,
            bytes: len,
            source,
        };
        let align = if len >= HUGE { HUGE } else { 1 };
        let whole_len = len
            .checked_add(SLACK + align - 1)
            .filter(|&len| isize::try_from(len).is_ok())
            .ok_or_else(|| fail(io::ErrorKind::OutOfMemory.into()))?;
        let (prot, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            // Untouched pages are not counted against the commit limit: a table is made for the
            // most it may hold, not for what it will.
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing.
        let whole = unsafe { libc::mmap(std::ptr::null_mut(), whole_len, prot, flags, -1, 0) };
        if whole == libc::MAP_FAILED {
            return Err(fail(io::Error::last_os_error()));
        }
        let whole = NonNull::new(whole.cast::<u8>())
            .ok_or_else(|| fail(io::ErrorKind::OutOfMemory.into()))?;
        let skip = whole.as_ptr().addr().next_multiple_of(align) - whole.as_ptr().addr();
        // SAFETY: `skip < align`, and the mapping has `align - 1` bytes more than are used.
        let base = unsafe { whole.add(skip) };
        if align == HUGE {
            // A wish: without large pages everything works, slower.
            // SAFETY: the range is inside the mapping, and advice changes no contents.
            unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        base.as_ptr().expose_provenance();
        Ok(Self {
            whole,
            whole_len,
            base,
            len,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this address and length; the owner of the table it backs is
        // gone, so nobody uses addresses in it.
        unsafe { libc::munmap(self.whole.as_ptr().cast(), self.whole_len) };
    }
}

// SAFETY: the bytes are zero when mapped, stay until `self` is dropped, are aligned to 16 at least,
// and nobody but who owns the table made of them writes them.
unsafe impl SlabMemory for Mapping {
    fn base(&self) -> NonNull<u8> {
        self.base
    }
    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::Mapping;
    use crate::tables::mirror::SlabMemory as _;

    #[test]
    fn a_large_mapping_is_aligned_zero_and_costs_nothing_until_touched() {
        // More than this machine has.
        let mapping = Mapping::new("a test", 1 << 40).expect("address space");
        assert_eq!(mapping.base().as_ptr().addr() % super::HUGE, 0);
        // SAFETY: the last byte of the mapping, which nobody else knows.
        let last = unsafe { mapping.base().add(mapping.len() - 1).read() };
        assert_eq!(last, 0);
    }

    #[test]
    fn what_cannot_be_had_is_an_error_that_names_it() {
        let error = Mapping::new("the flow slab", usize::MAX / 2).expect_err("no such space");
        let said = error.to_string();
        assert!(said.contains("the flow slab"), "{said}");
    }
}
