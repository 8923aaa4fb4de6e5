//! Memory that programs, other workers and control use at the same time.
//!
//! Rust's side touches it by atomic words only, whole and aligned ones of 8 bytes wherever address and
//! length allow. Compiled programs access it as C does in the kernel's maps. So of two that meet at one value,
//! each reads every aligned word whole, but may see one word before and the next after a change.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use dash_runtime::tables::memory::Mapping;
use dash_runtime::tables::mirror::SlabMemory as _;

use crate::errno::Errno;

const RELAXED: Ordering = Ordering::Relaxed;

/// Zeroed memory at a fixed address. Pages come when they are touched.
#[derive(Debug)]
pub(crate) struct Shared(Mapping);

impl Shared {
    pub(crate) fn new(bytes: usize) -> Result<Self, Errno> {
        Mapping::new("a map", bytes.max(8))
            .map(Self)
            .map_err(|_| Errno::NoMem)
    }

    /// Address of byte `at`, which is inside or one past the end.
    pub(crate) fn at(&self, at: usize) -> *mut u8 {
        assert!(at <= self.0.len(), "byte {at} of {}", self.0.len());
        // SAFETY: in the mapping or one past its end, by the assertion.
        unsafe { self.0.base().as_ptr().add(at) }
    }

    /// The 32-bit word number `index`.
    pub(crate) fn word(&self, index: usize) -> &AtomicU32 {
        let at = index * 4;
        assert!(at + 4 <= self.0.len(), "word {index}");
        // SAFETY: inside the mapping, aligned (the mapping is to 16 at least), and these words are
        // touched by atomic operations only: callers keep words and value bytes apart.
        unsafe { &*self.at(at).cast::<AtomicU32>() }
    }

    /// Copies `to.len()` bytes at `at` out.
    pub(crate) fn read(&self, at: usize, to: &mut [u8]) {
        assert!(at + to.len() <= self.0.len(), "bytes {at}..");
        // SAFETY: readable by the assertion; `to` is a reference and so elsewhere.
        unsafe { copy(to.as_mut_ptr(), self.at(at), to.len()) };
    }

    /// Copies bytes to `at`.
    pub(crate) fn write(&self, at: usize, from: &[u8]) {
        assert!(at + from.len() <= self.0.len(), "bytes {at}..");
        // SAFETY: as in `read`.
        unsafe { copy(self.at(at), from.as_ptr(), from.len()) };
    }
}

/// Copies bytes of which either side may be shared with others: by aligned words where both sides
/// are aligned to 8, else byte by byte.
///
/// # Safety
/// `len` bytes are readable at `from` and writable at `to`. They may overlap only if equal.
pub(crate) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    let mut at = 0;
    if to.addr().is_multiple_of(8) && from.addr().is_multiple_of(8) {
        while at + 8 <= len {
            // SAFETY: 8 bytes inside both ranges, aligned; atomic on both sides.
            unsafe {
                let word = (*from.add(at).cast::<AtomicU64>()).load(RELAXED);
                (*to.add(at).cast::<AtomicU64>()).store(word, RELAXED);
            }
            at += 8;
        }
    }
    if to.addr().is_multiple_of(4) && from.addr().is_multiple_of(4) {
        while at + 4 <= len {
            // SAFETY: as above, with 4.
            unsafe {
                let word = (*from.add(at).cast::<AtomicU32>()).load(RELAXED);
                (*to.add(at).cast::<AtomicU32>()).store(word, RELAXED);
            }
            at += 4;
        }
    }
    while at < len {
        // SAFETY: one byte inside both ranges.
        unsafe {
            let byte = (*from.add(at).cast::<AtomicU8>()).load(RELAXED);
            (*to.add(at).cast::<AtomicU8>()).store(byte, RELAXED);
        }
        at += 1;
    }
}

/// Zeroes bytes others may use.
///
/// # Safety
/// `len` bytes are writable at `to`.
pub(crate) unsafe fn zero(to: *mut u8, len: usize) {
    let mut at = 0;
    while to.addr().is_multiple_of(8) && at + 8 <= len {
        // SAFETY: inside the range, aligned.
        unsafe { (*to.add(at).cast::<AtomicU64>()).store(0, RELAXED) };
        at += 8;
    }
    while at < len {
        // SAFETY: inside the range.
        unsafe { (*to.add(at).cast::<AtomicU8>()).store(0, RELAXED) };
        at += 1;
    }
}

/// Are these bytes equal to what is at `at`?
///
/// # Safety
/// `with.len()` bytes are readable at `at`.
pub(crate) unsafe fn equal(at: *const u8, with: &[u8]) -> bool {
    let mut offset = 0;
    let (words, _) = with.as_chunks::<8>();
    if at.addr().is_multiple_of(8) {
        for word in words {
            // SAFETY: inside the range, aligned.
            let here = unsafe { (*at.add(offset).cast::<AtomicU64>()).load(RELAXED) };
            if here != u64::from_ne_bytes(*word) {
                return false;
            }
            offset += 8;
        }
    }
    with[offset..].iter().enumerate().all(|(i, byte)| {
        // SAFETY: inside the range.
        *byte == unsafe { (*at.add(offset + i).cast::<AtomicU8>()).load(RELAXED) }
    })
}

/// A ring of bytes mapped twice in a row, so that what wraps is contiguous.
#[derive(Debug)]
pub(crate) struct Twice {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: owns its mapping; contents are touched as the module's documentation says.
unsafe impl Send for Twice {}
// SAFETY: as above.
unsafe impl Sync for Twice {}

impl Twice {
    /// `len` zero bytes, a multiple of the page size.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let whole = len
            .checked_mul(2)
            .filter(|&whole| len > 0 && isize::try_from(whole).is_ok())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let failed = || io::Error::last_os_error();
        // SAFETY: a name and a flag; makes a file of our own.
        let file = unsafe { libc::memfd_create(c"ringbuf".as_ptr(), libc::MFD_CLOEXEC) };
        if file < 0 {
            return Err(failed());
        }
        // SAFETY: a new descriptor that nobody else has.
        let file: std::os::fd::OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(file) };
        std::fs::File::from(file.try_clone()?).set_len(len as u64)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                whole,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(failed());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // From here on, dropping unmaps.
        let ring = Self { base, len };
        for half in 0..2 {
            // SAFETY: replaces half of the mapping just made, which nobody uses yet.
            let got = unsafe {
                libc::mmap(
                    ring.base.as_ptr().add(half * len).cast(),
                    len,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_FIXED,
                    std::os::fd::AsRawFd::as_raw_fd(&file),
                    0,
                )
            };
            if got == libc::MAP_FAILED {
                return Err(failed());
            }
        }
        ring.base.as_ptr().expose_provenance();
        Ok(ring)
    }

    /// Address of byte `at` modulo the length; as many bytes as the length are behind it.
    pub(crate) fn at(&self, at: u64) -> *mut u8 {
        let at = (at % self.len as u64) as usize;
        // SAFETY: in the first of the two copies.
        unsafe { self.base.as_ptr().add(at) }
    }

    /// The 32-bit word at `at`, a multiple of 8: a record's header.
    pub(crate) fn word(&self, at: u64) -> &AtomicU32 {
        debug_assert_eq!(at % 8, 0);
        // SAFETY: inside, aligned; headers are touched by atomic operations only, as programs get
        // addresses of what is between them.
        unsafe { &*self.at(at).cast::<AtomicU32>() }
    }

    /// First byte and length of both copies together.
    pub(crate) fn range(&self) -> (usize, usize) {
        (self.base.as_ptr().addr(), self.len * 2)
    }
}

impl Drop for Twice {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, whole; whoever holds addresses into it keeps the map alive.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len * 2) };
    }
}
