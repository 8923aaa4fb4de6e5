//! The rings that an AF_XDP socket shares with the kernel: one side writes entries and moves the
//! producer on, the other reads them and moves the consumer on. Positions are `u32`s that wrap.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Where the kernel put the parts of a ring, bytes from its start.
pub(super) type Offsets = libc::xdp_ring_offset;

/// Entries of fixed size that hold no pointers, so that every bit pattern is a value.
///
/// # Safety
/// As said.
pub(super) unsafe trait Entry: Copy {}
// SAFETY: an integer.
unsafe impl Entry for u64 {}
// SAFETY: three integers without padding.
unsafe impl Entry for libc::xdp_desc {}

/// A mapped ring. `T` is its entry: an address (fill, completion) or a descriptor (rx, tx).
#[derive(Debug)]
struct Ring<T> {
    map: NonNull<u8>,
    map_len: usize,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    /// Our position: ahead of what the other side has been told.
    ours: u32,
    /// The other side's position, as last looked at.
    theirs: u32,
}

// SAFETY: the mapping belongs to the ring alone on this side; the kernel's side uses the atomics.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    /// Maps the ring of `size` entries (a power of two) at `page_offset` of a socket.
    fn map(fd: &OwnedFd, page_offset: u64, offsets: &Offsets, size: u32) -> io::Result<Self> {
        let bad = || io::Error::other("the kernel's ring offsets cannot be");
        let desc = usize::try_from(offsets.desc).map_err(|_| bad())?;
        let map_len = desc
            .checked_add(size as usize * size_of::<T>())
            .ok_or_else(bad)?;
        let inside = |offset: u64| {
            let offset = usize::try_from(offset).ok()?;
            (offset.checked_add(size_of::<AtomicU32>())? <= map_len && offset % 4 == 0)
                .then_some(offset)
        };
        let producer = inside(offsets.producer).ok_or_else(bad)?;
        let consumer = inside(offsets.consumer).ok_or_else(bad)?;
        let flags = inside(offsets.flags).ok_or_else(bad)?;
        if desc % align_of::<T>() != 0 || !size.is_power_of_two() {
            return Err(bad());
        }
        // SAFETY: a new shared mapping at an address of the kernel's choice touches nothing of ours.
        let map = unsafe {
            libc::mmap(
                ptr::null_mut(),
                map_len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                page_offset as libc::off_t,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>()).ok_or_else(bad)?;
        // SAFETY: all four offsets are inside the mapping with what lies there, and aligned: checked
        // above; mappings start at a page.
        unsafe {
            Ok(Self {
                map,
                map_len,
                producer: map.add(producer).cast(),
                consumer: map.add(consumer).cast(),
                flags: map.add(flags).cast(),
                entries: map.add(desc).cast(),
                size,
                ours: 0,
                theirs: 0,
            })
        }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: in the mapping, which lives as long as `self`; the kernel uses it atomically.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as `producer`.
        unsafe { self.consumer.as_ref() }
    }

    /// The place of the entry at a position.
    fn place(&self, position: u32) -> *mut T {
        let at = (position & (self.size - 1)) as usize;
        // SAFETY: below `size`, and the mapping has `size` entries.
        unsafe { self.entries.add(at).as_ptr() }
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, of this length; nobody borrows from it.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_len) };
    }
}

/// A ring that we write (fill, tx).
#[derive(Debug)]
pub(super) struct Producer<T>(Ring<T>);

impl<T: Entry> Producer<T> {
    pub(super) fn map(fd: &OwnedFd, at: u64, offsets: &Offsets, size: u32) -> io::Result<Self> {
        Ring::map(fd, at, offsets, size).map(Self)
    }

    /// True when this many entries can be pushed now.
    pub(super) fn has_room(&mut self, wanted: u32) -> bool {
        let ring = &mut self.0;
        // The other side's position is read only when what it was does not do: it is shared.
        if ring.size - ring.ours.wrapping_sub(ring.theirs).min(ring.size) < wanted {
            // Acquire: the kernel has read what it freed.
            ring.theirs = ring.consumer().load(Ordering::Acquire);
        }
        ring.size - ring.ours.wrapping_sub(ring.theirs).min(ring.size) >= wanted
    }

    /// Writes an entry; false when the ring is full. The kernel sees it after `publish`.
    pub(super) fn push(&mut self, entry: T) -> bool {
        if !self.has_room(1) {
            return false;
        }
        // SAFETY: a place of the ring that the kernel does not read until it is published, and has
        // read before if it was.
        unsafe { self.0.place(self.0.ours).write(entry) };
        self.0.ours = self.0.ours.wrapping_add(1);
        true
    }

    /// Shows the kernel what was pushed.
    pub(super) fn publish(&mut self) {
        // Release: entries before the position.
        self.0.producer().store(self.0.ours, Ordering::Release);
    }

    /// True when the kernel looks at the ring only after a system call.
    pub(super) fn needs_wakeup(&self) -> bool {
        // Between our position and its flag, so that one of the two sides sees the other's.
        fence(Ordering::SeqCst);
        // SAFETY: in the mapping, which lives as long as `self`; the kernel uses it atomically.
        unsafe { self.0.flags.as_ref() }.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Entries that the kernel has not taken yet.
    pub(super) fn waiting(&self) -> u32 {
        self.0
            .ours
            .wrapping_sub(self.0.consumer().load(Ordering::Acquire))
    }
}

/// A ring that we read (rx, completion).
#[derive(Debug)]
pub(super) struct Consumer<T>(Ring<T>);

impl<T: Entry> Consumer<T> {
    pub(super) fn map(fd: &OwnedFd, at: u64, offsets: &Offsets, size: u32) -> io::Result<Self> {
        Ring::map(fd, at, offsets, size).map(Self)
    }

    /// The next entry. The kernel may reuse its place after `release`.
    pub(super) fn pop(&mut self) -> Option<T> {
        let ring = &mut self.0;
        if ring.ours == ring.theirs {
            // Acquire: entries before the position.
            ring.theirs = ring.producer().load(Ordering::Acquire);
            if ring.ours == ring.theirs {
                return None;
            }
        }
        // SAFETY: an entry that the kernel published and does not write again until we release it.
        let entry = unsafe { ring.place(ring.ours).read() };
        ring.ours = ring.ours.wrapping_add(1);
        Some(entry)
    }

    /// Gives the kernel the places of what was popped.
    pub(super) fn release(&mut self) {
        // Release: our reads before the position.
        self.0.consumer().store(self.0.ours, Ordering::Release);
    }

    /// Entries that wait.
    pub(super) fn waiting(&self) -> u32 {
        self.0
            .producer()
            .load(Ordering::Acquire)
            .wrapping_sub(self.0.ours)
    }
}
