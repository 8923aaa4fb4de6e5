//! Memory that 32-bit loads of `xdp_md` can point to.

use std::ptr::NonNull;

use nic_target::TargetError;

use super::{PACKET, refuse};

/// Pages below 4 GiB: `xdp_md`, then the packet buffer.
#[derive(Debug)]
pub(super) struct LowMemory {
    start: NonNull<u8>,
}

/// Where the packet buffer begins.
const PACKET_AT: usize = 64;
/// The mapping: what programs may use, and slack, because rbpf checks the first byte of an access.
const LOW_SIZE: usize = LowMemory::SIZE + 64;

// SAFETY: an owned mapping.
unsafe impl Send for LowMemory {}

impl LowMemory {
    /// Bytes programs may use.
    pub(super) const SIZE: usize = PACKET_AT + PACKET;

    pub(super) fn new() -> Result<Self, TargetError> {
        #[cfg(target_arch = "x86_64")]
        const LOW: i32 = libc::MAP_32BIT;
        #[cfg(not(target_arch = "x86_64"))]
        const LOW: i32 = 0;
        // A hint where the flag does not exist; the result is checked.
        let hint = std::ptr::without_provenance_mut(0x1000_0000);
        // SAFETY: an anonymous mapping, not MAP_FIXED: it replaces nothing.
        let start = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | LOW;
            libc::mmap(
                hint,
                LOW_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            let source = std::io::Error::last_os_error();
            return Err(TargetError::Os {
                what: "mapping a packet buffer below 4 GiB".to_owned(),
                source,
            });
        }
        let memory = NonNull::new(start.cast()).map(|start| Self { start });
        memory
            .filter(|m| u32::try_from(m.start.addr().get() + LOW_SIZE).is_ok())
            .ok_or_else(|| refuse("the system has no memory below 4 GiB"))
    }
    /// Where `xdp_md` is.
    pub(super) fn xdp_md(&self) -> *mut u8 {
        self.start.as_ptr()
    }
    /// Where the packet buffer is, `PACKET` bytes.
    pub(super) fn packet(&self) -> *mut u8 {
        // SAFETY: inside the mapping, by `LOW_SIZE`.
        unsafe { self.start.as_ptr().add(PACKET_AT) }
    }
}

impl Drop for LowMemory {
    fn drop(&mut self) {
        // SAFETY: our mapping, whole, not used after `self` is gone.
        unsafe { libc::munmap(self.start.as_ptr().cast(), LOW_SIZE) };
    }
}
