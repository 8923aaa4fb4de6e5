//! Runs compiled code inside the test: pages that are first written, then executable.

use std::ffi::c_void;
use std::ptr::NonNull;

use dash_native::NativeCode;
use dash_wire::abi::{EntryFn, HelperFn, RunCtx};

type RawFn = unsafe extern "C" fn(*mut u8, u64, *const HelperFn) -> u64;

/// Code in executable memory.
pub(crate) struct Loaded {
    base: NonNull<c_void>,
    len: usize,
    entry: usize,
}

impl Loaded {
    pub(crate) fn new(code: &NativeCode) -> Self {
        let len = code.code.len().max(1);
        // SAFETY: an anonymous private mapping at an address of the kernel's choice overlaps
        // nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED, "mmap");
        // SAFETY: the mapping is `len` writable bytes, nobody else knows it, and `code` is shorter
        // or equal. It stays mapped until `Drop`.
        let status = unsafe {
            base.cast::<u8>()
                .copy_from_nonoverlapping(code.code.as_ptr(), code.code.len());
            libc::mprotect(base, len, libc::PROT_READ | libc::PROT_EXEC)
        };
        assert_eq!(status, 0, "mprotect");
        Self {
            base: NonNull::new(base).expect("mmap returned memory"),
            len,
            entry: code.entry_offset,
        }
    }

    fn entry(&self) -> *mut u8 {
        // SAFETY: the compiler's entry offset is inside its code, which the mapping holds.
        unsafe { self.base.as_ptr().cast::<u8>().add(self.entry) }
    }

    /// Runs an XDP program.
    ///
    /// # Safety
    /// The code is for this machine and was made from a program that is safe to run with `ctx`,
    /// whose tables hold what the program's object says.
    pub(crate) unsafe fn xdp(&self, ctx: *mut RunCtx) -> u32 {
        // SAFETY: entry of a function of this type, as the compiler promises for XDP objects; the
        // rest is the caller's promise.
        unsafe {
            let entry: EntryFn = std::mem::transmute(self.entry());
            entry(ctx)
        }
    }

    /// Runs a raw program over `memory`.
    ///
    /// # Safety
    /// The code is for this machine, was made by `compile_raw`, accesses nothing but `memory` and
    /// its stack, and calls only what `helpers` holds.
    pub(crate) unsafe fn raw(&self, memory: &mut [u8], helpers: &[HelperFn]) -> u64 {
        let len = memory.len() as u64;
        // SAFETY: entry of a function of this type, as the compiler promises for raw programs; the
        // rest is the caller's promise.
        unsafe {
            let entry: RawFn = std::mem::transmute(self.entry());
            entry(memory.as_mut_ptr(), len, helpers.as_ptr())
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; no call into it outlives `self`.
        unsafe {
            libc::munmap(self.base.as_ptr(), self.len);
        }
    }
}
