//! Executable pages. Never writable and executable at once.

use std::io;
use std::ptr::NonNull;

use dash_wire::abi::{CONTINUE, EntryFn, RunCtx};
use nic_target::{NativeImage, TargetError};

/// Machine code of an image, mapped to run.
#[derive(Debug)]
pub struct CodePages {
    start: NonNull<u8>,
    mapped: usize,
    entry: usize,
    rest: Option<[usize; 2]>,
}

/// What follows the entry of code in parts ([`NativeImage::in_parts`]).
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    hit: EntryFn,
    miss: EntryFn,
}

impl Rest {
    /// Runs a packet from its flow look-up to the end.
    ///
    /// # Safety
    /// The context is as the entry left it, and keeps the promises of `dash_wire::abi`; the pages this
    /// came from are still mapped.
    #[inline(always)]
    pub unsafe fn run(self, ctx: *mut RunCtx) -> u32 {
        // SAFETY: by contract.
        match unsafe { (self.hit)(ctx) } {
            end @ ..CONTINUE => end,
            more => {
                // SAFETY: by contract; the first part is done with the context.
                unsafe {
                    (*ctx).resume = more - CONTINUE;
                    (self.miss)(ctx)
                }
            }
        }
    }
}

// SAFETY: the pages are never written after `map`, so any thread may run or free them.
unsafe impl Send for CodePages {}
// SAFETY: as above.
unsafe impl Sync for CodePages {}

impl CodePages {
    /// Maps the code: writable, filled, then executable and no longer writable.
    ///
    /// # Errors
    /// The image is empty or its entry is outside it, or the system gave no pages.
    pub fn map(image: &NativeImage) -> Result<Self, TargetError> {
        let code = image.code();
        let mut entries = std::iter::once(image.entry()).chain(image.rest().into_iter().flatten());
        if let Some(entry) = entries.find(|entry| *entry >= code.len()) {
            let reason = format!("entry {entry} is outside {} bytes of code", code.len());
            return Err(TargetError::Unsupported {
                engine: "native",
                reason,
            });
        }
        let failed = |what: &str| TargetError::Os {
            what: what.to_owned(),
            source: io::Error::last_os_error(),
        };
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of
        // this process.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                code.len(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(failed("mapping pages for code"));
        }
        let Some(start) = NonNull::new(start.cast::<u8>()) else {
            return Err(failed("mapping pages for code"));
        };
        // From here on, dropping unmaps.
        let pages = Self {
            start,
            mapped: code.len(),
            entry: image.entry(),
            rest: image.rest(),
        };
        // SAFETY: the fresh mapping holds `code.len()` bytes and nobody else knows it.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), start.as_ptr(), code.len()) };
        // SAFETY: a mapping of ours, whole.
        let done = unsafe {
            libc::mprotect(
                start.as_ptr().cast(),
                code.len(),
                libc::PROT_READ | libc::PROT_EXEC,
            )
        };
        if done != 0 {
            return Err(failed("making code executable"));
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        compile_error!("say how this machine's instruction cache learns of new code");
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the range is the mapping.
        unsafe {
            clear_cache(start.as_ptr(), start.as_ptr().add(code.len()));
        }
        Ok(pages)
    }

    /// The program. Callers keep the promises of `dash_wire::abi`, and the pages, while it runs.
    pub fn entry(&self) -> EntryFn {
        // SAFETY: `entry` is inside the mapping; what is there is an `EntryFn` by the promise of
        // `NativeImage::new`.
        unsafe { self.at(self.entry) }
    }

    /// What to run when the entry returned `CONTINUE`, of code in parts.
    pub fn rest(&self) -> Option<Rest> {
        // SAFETY: as in `entry`, by the promise of `NativeImage::in_parts`.
        self.rest.map(|[hit, miss]| unsafe {
            Rest {
                hit: self.at(hit),
                miss: self.at(miss),
            }
        })
    }

    /// # Safety
    /// An `EntryFn` starts at this offset, inside the mapping.
    unsafe fn at(&self, offset: usize) -> EntryFn {
        // SAFETY: by contract.
        unsafe { std::mem::transmute::<*mut u8, EntryFn>(self.start.as_ptr().add(offset)) }
    }
}

impl Drop for CodePages {
    fn drop(&mut self) {
        // SAFETY: a mapping of ours, whole, that nobody can use after `self` is gone. Failure would
        // leave it mapped, which harms nobody.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.mapped) };
    }
}

/// Makes instruction fetch see what was written (Arm ARM B2.4.4).
#[cfg(target_arch = "aarch64")]
unsafe fn clear_cache(start: *mut u8, end: *mut u8) {
    unsafe extern "C" {
        /// From compiler-rt or libgcc, which every aarch64 Linux link has.
        fn __clear_cache(start: *mut std::ffi::c_char, end: *mut std::ffi::c_char);
    }
    // SAFETY: the caller's range is mapped.
    unsafe { __clear_cache(start.cast(), end.cast()) }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::CodePages;
    use nic_target::{NativeImage, TargetError};
    use std::sync::Arc;

    fn image(code: &[u8], entry: usize) -> NativeImage {
        // SAFETY: the tests run only `mov eax, 7; ret`, which keeps every promise.
        unsafe { NativeImage::new(Arc::from(code), entry) }
    }

    #[test]
    fn code_runs_and_its_pages_are_not_writable() {
        // nop; mov eax, 7; ret
        let pages = CodePages::map(&image(&[0x90, 0xb8, 7, 0, 0, 0, 0xc3], 1)).unwrap();
        // SAFETY: the code reads no context.
        assert_eq!(unsafe { pages.entry()(std::ptr::null_mut()) }, 7);
        let at = format!("{:x}-", pages.start.as_ptr().addr());
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.starts_with(&at)).unwrap();
        assert!(line.contains(" r-xp "), "{line}");
    }

    #[test]
    fn entry_outside_the_code_is_refused() {
        let refused = CodePages::map(&image(&[0xc3], 1));
        assert!(matches!(
            refused,
            Err(TargetError::Unsupported {
                engine: "native",
                ..
            })
        ));
        assert!(CodePages::map(&image(&[], 0)).is_err());
    }
}
