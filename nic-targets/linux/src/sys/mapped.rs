//! The elements of an array map as memory of this process.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use dash_bpf::map::MapKind;
use dash_runtime::tables::mirror::SlabMemory;

use super::bpf::Map;

/// All elements of an array map that was made with [`F_MMAPABLE`](dash_bpf::map::F_MMAPABLE), shared
/// with the kernel: what a program writes is seen here and the reverse, as between two threads.
#[derive(Debug)]
pub struct Mapped {
    base: NonNull<u8>,
    len: usize,
    /// Its elements live as long as the mapping; the map is kept for messages.
    map: Arc<Map>,
}

// SAFETY: a `Mapped` owns its mapping and gives out nothing but its address; who reads and writes
// there proves what is needed for that.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the elements of an array.
    ///
    /// # Errors
    /// The map is no array, or was not made for it.
    pub fn new(map: Arc<Map>) -> io::Result<Self> {
        let def = map.def();
        if def.kind != MapKind::Array {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("map {}: {:?} is not an array", def.name, def.kind),
            ));
        }
        let len = def.stride() as usize * def.max_entries as usize;
        // SAFETY: a new mapping at an address of the kernel's choice: no memory of ours is touched.
        // The kernel refuses lengths beyond the array, rounded up to pages.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self { base, len, map })
    }

    /// The map.
    pub fn map(&self) -> &Arc<Map> {
        &self.map
    }
}

// SAFETY: `len` bytes at `base`, page-aligned, mapped while the value lives. The kernel's programs write
// whole aligned fields of entries, each of at most 8 bytes.
unsafe impl SlabMemory for Mapped {
    fn base(&self) -> NonNull<u8> {
        self.base
    }
    fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, of this length (the kernel rounds both alike), unmapped
        // once; whoever used its address kept this value.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
