//! Memory of tables made for millions of rows: address space now, pages when they are touched.
//!
//! A mapping costs nothing until a row is used. The first touch is the worker's, on its own pinned
//! thread, so the kernel takes the page from that thread's memory node; it takes 2 MB at a time
//! where it can (`MADV_HUGEPAGE`), because a look-up in 4 KB pages costs half as much again in
//! page walks. Growing a table is touching more of it: no allocator, no copy, no second table. What
//! is touched first waits while the system clears a page, a fraction of a millisecond and several in
//! some virtual machines; who would rather wait once takes all of it at the start ([`prefault`]).

use std::fmt;
use std::io;
use std::ptr::NonNull;

use super::mirror::SlabMemory;

/// The smallest page there is; where pages are larger, some are touched more than once.
const PAGE: usize = 4096;
/// What large pages are aligned to.
const HUGE: usize = 2 << 20;
/// Bytes behind the last: an 8-byte access that begins inside a table is in its mapping even where
/// an executor checks the first byte only (rbpf).
const SLACK: usize = 8;

/// The system did not give what a table needs.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum MemoryError {
    #[error(
        "no address space for {what}, {bytes} bytes (RLIMIT_AS, vm.overcommit_memory or vm.max_map_count may be why)"
    )]
    AddressSpace {
        what: &'static str,
        bytes: usize,
        source: io::Error,
    },
    #[error("no memory for {what}, {bytes} bytes")]
    Memory {
        what: &'static str,
        bytes: usize,
        source: io::Error,
    },
}

impl From<MemoryError> for nic_target::TargetError {
    fn from(error: MemoryError) -> Self {
        let what = error.to_string();
        let (MemoryError::AddressSpace { source, .. } | MemoryError::Memory { source, .. }) = error;
        Self::Os { what, source }
    }
}

/// Takes memory for `bytes` bytes from `start`, which are `what`, from the system now: who touches them
/// later does not wait. What is in them stays.
///
/// # Errors
/// There is not so much.
///
/// # Safety
/// They are readable and writable, and no other thread writes them meanwhile.
pub(super) unsafe fn prefault(
    what: &'static str,
    start: NonNull<u8>,
    bytes: usize,
) -> Result<(), MemoryError> {
    let start = start.as_ptr();
    if bytes == 0 {
        return Ok(());
    }
    // Advice is for whole pages: those that have any of the bytes.
    let before = start.addr() % PAGE;
    let pages = start.wrapping_sub(before);
    let len = (before + bytes).next_multiple_of(PAGE);
    // SAFETY: this advice changes no contents, and each page has one of the bytes, so it is mapped.
    let done = unsafe { libc::madvise(pages.cast(), len, libc::MADV_POPULATE_WRITE) };
    if done == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    // Linux before 5.14 does not know it.
    if source.raw_os_error() != Some(libc::EINVAL) {
        return Err(MemoryError::Memory {
            what,
            bytes,
            source,
        });
    }
    for at in (0..bytes).step_by(PAGE).chain([bytes - 1]) {
        let byte = start.wrapping_add(at);
        // SAFETY: one of the bytes, which nobody else writes.
        unsafe { byte.write_volatile(byte.read_volatile()) };
    }
    Ok(())
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
        let fail = |source| MemoryError::AddressSpace {
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

    /// Takes all of the memory now, for the thread that owns what is in it.
    ///
    /// # Errors
    /// There is not so much.
    pub(crate) fn prefault(&self, what: &'static str) -> Result<(), MemoryError> {
        // SAFETY: the mapping, whole; what is in it is written by the thread of its owner, who calls.
        unsafe { prefault(what, self.base, self.len) }
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
    use nic_target::Capacity;

    use super::{Mapping, PAGE};
    use crate::tables::core_set::CoreTables;
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
    fn memory_is_taken_at_once_and_keeps_its_contents() {
        // More than one large page, and no whole number of small ones.
        let len = (5 << 20) + 100;
        let mapping = Mapping::new("a test", len).expect("address space");
        let (first, last) = (mapping.base(), mapping.len() - 1);
        // SAFETY: the first and the last byte of the mapping, which nobody else knows.
        unsafe {
            first.write(7);
            first.add(last).write(9);
        }
        let (base, pages) = (first.as_ptr(), len.div_ceil(PAGE));
        assert!(resident(base, len) < pages);
        mapping.prefault("a test").expect("five megabytes");
        // SAFETY: as above.
        unsafe {
            assert_eq!(first.read(), 7);
            assert_eq!(first.add(last).read(), 9);
            assert_eq!(first.add(last / 2).read(), 0);
        }
        assert_eq!(resident(base, len), pages);
    }

    #[test]
    fn a_core_takes_the_memory_of_all_its_flows() {
        let capacity = Capacity {
            flows: 50_000,
            ..Capacity::default()
        };
        let mut tables = CoreTables::new(&capacity).expect("address space");
        let (base, len) = (tables.flow_slab.base(), tables.flow_slab.size());
        assert_eq!(resident(base, len), 0);
        tables.prefault().expect("some megabytes");
        assert_eq!(resident(base, len), len.div_ceil(PAGE));
        assert_eq!(tables.flow_free.len(), 50_000);
    }

    /// Small pages from the start of a large mapping that are in memory.
    fn resident(base: *mut u8, len: usize) -> usize {
        let mut there = vec![0u8; len.div_ceil(PAGE)];
        // SAFETY: a mapping's pages, page-aligned as it is large, and a byte for each.
        let done = unsafe { libc::mincore(base.cast(), len, there.as_mut_ptr()) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        there.iter().filter(|&&page| page & 1 != 0).count()
    }

    #[test]
    fn what_cannot_be_had_is_an_error_that_names_it() {
        let error = Mapping::new("the flow slab", usize::MAX / 2).expect_err("no such space");
        let said = error.to_string();
        assert!(said.contains("the flow slab"), "{said}");
    }
}
