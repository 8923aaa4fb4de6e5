//! Memory for code.

use std::io;
use std::ptr::NonNull;

use anyhow::{Context, Result, bail, ensure};

/// Pages of this process.
#[derive(Debug)]
pub(super) struct Pages {
    start: NonNull<u8>,
    len: usize,
}

impl Pages {
    /// Writable, zero; `flags` beside those of anonymous memory.
    pub(super) fn new(len: usize, flags: libc::c_int) -> Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            bail!("mapping pages: {}", io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).context("mapping pages")?;
        Ok(Self { start, len })
    }
    pub(super) fn address(&self) -> usize {
        self.start.as_ptr().expose_provenance()
    }
    /// Copies bytes in and makes the pages executable.
    pub(super) fn seal(&mut self, bytes: &[u8]) -> Result<()> {
        ensure!(bytes.len() <= self.len, "code is longer than its pages");
        // SAFETY: the mapping is ours, writable until the next call, and that long.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr(), bytes.len()) };
        // SAFETY: a mapping of ours, whole.
        let done = unsafe {
            libc::mprotect(
                self.start.as_ptr().cast(),
                self.len,
                libc::PROT_READ | libc::PROT_EXEC,
            )
        };
        ensure!(
            done == 0,
            "making code executable: {}",
            io::Error::last_os_error()
        );
        Ok(())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: a mapping of ours that nobody can use after `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
