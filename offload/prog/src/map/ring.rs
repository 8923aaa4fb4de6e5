//! Ring buffers: records from programs to one reader outside, in order.
//!
//! As in Linux: a record is an 8-byte header and its bytes, padded to 8; the header says its length and
//! whether it is not finished yet or thrown away. Programs reserve under a lock, and finish by one store.
//! The reader waits at a record that is not finished. It polls: finishing wakes nobody, so a
//! packet costs no system call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use dash_bpf::MapDef;

use crate::errno::Errno;
use crate::memory::{Twice, copy};

/// Bytes in front of a record.
pub(crate) const HEADER: u64 = 8;
/// Of a header: not finished.
const BUSY: u32 = 1 << 31;
/// Of a header: thrown away.
const DISCARD: u32 = 1 << 30;
/// Pages a ring's size is a multiple of.
const PAGE: u32 = 4096;
/// `BPF_RB_NO_WAKEUP` and `BPF_RB_FORCE_WAKEUP`: whom a record wakes; nobody here.
const WAKEUPS: u64 = 3;

/// A ring buffer.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: Twice,
    size: u64,
    producer: Mutex<()>,
    produced: AtomicU64,
    consumer: Mutex<()>,
    consumed: AtomicU64,
}

impl Ring {
    pub(crate) fn new(def: &MapDef) -> Result<Self, Errno> {
        let size = def.max_entries;
        let fits = size.is_power_of_two() && size.is_multiple_of(PAGE);
        if !fits || def.key_size != 0 || def.value_size != 0 {
            return Err(Errno::Inval);
        }
        Self::with_size(size)
    }

    /// A ring of so many bytes: a power of two and a multiple of the page size.
    pub(crate) fn with_size(size: u32) -> Result<Self, Errno> {
        Ok(Self {
            bytes: Twice::new(size as usize).map_err(|_| Errno::NoMem)?,
            size: u64::from(size),
            producer: Mutex::default(),
            produced: AtomicU64::new(0),
            consumer: Mutex::default(),
            consumed: AtomicU64::new(0),
        })
    }

    /// Space for a record of `size` bytes; null when there is none.
    pub(crate) fn reserve(&self, size: u64, flags: u64) -> *mut u8 {
        if flags != 0 {
            return std::ptr::null_mut();
        }
        self.space(size).unwrap_or(std::ptr::null_mut())
    }

    fn space(&self, size: u64) -> Option<*mut u8> {
        if size > u64::from(!(BUSY | DISCARD)) {
            return None;
        }
        let whole = (size + HEADER).next_multiple_of(8);
        if whole > self.size {
            return None;
        }
        let _lock = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.produced.load(Ordering::Relaxed);
        let used = at + whole - self.consumed.load(Ordering::Acquire);
        // As Linux, one byte less than all.
        if used > self.size - 1 {
            return None;
        }
        let header = self.bytes.word(at);
        header.store(size as u32 | BUSY, Ordering::Relaxed);
        self.produced.store(at + whole, Ordering::Release);
        Some(self.bytes.at(at + HEADER))
    }

    /// Copies a record in.
    ///
    /// # Safety
    /// `size` bytes are readable at `data`.
    pub(crate) unsafe fn output(
        &self,
        data: *const u8,
        size: u64,
        flags: u64,
    ) -> Result<(), Errno> {
        if flags & !WAKEUPS != 0 {
            return Err(Errno::Inval);
        }
        // SAFETY: by contract.
        unsafe { self.put([(data, size as usize)]) }
    }

    /// Copies a record in that has several parts.
    ///
    /// # Safety
    /// Each has so many readable bytes.
    pub(crate) unsafe fn put<const N: usize>(
        &self,
        parts: [(*const u8, usize); N],
    ) -> Result<(), Errno> {
        let size = parts.iter().map(|(_, len)| len).sum::<usize>();
        let start = self.space(size as u64).ok_or(Errno::Again)?;
        let mut to = start;
        for (data, len) in parts {
            // SAFETY: the bytes of all parts were reserved, and are readable by contract.
            unsafe {
                copy(to, data, len);
                to = to.add(len);
            }
        }
        // SAFETY: reserved above.
        unsafe { finish(start, false) };
        Ok(())
    }

    /// `bpf_ringbuf_query`.
    pub(crate) fn query(&self, what: u64) -> u64 {
        let (from, to) = (
            self.consumed.load(Ordering::Acquire),
            self.produced.load(Ordering::Acquire),
        );
        match what {
            0 => to - from,
            1 => self.size,
            2 => from,
            3 => to,
            _ => 0,
        }
    }

    /// The next record that is finished and not thrown away, removed.
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
        let _lock = self.consumer.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let at = self.consumed.load(Ordering::Relaxed);
            if at == self.produced.load(Ordering::Acquire) {
                return None;
            }
            let header = self.bytes.word(at).load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            let size = u64::from(header & !DISCARD);
            let record = (header & DISCARD == 0).then(|| {
                let mut record = vec![0; size as usize];
                // SAFETY: the record's bytes, in the ring mapped twice; producers are done with it.
                unsafe {
                    copy(
                        record.as_mut_ptr(),
                        self.bytes.at(at + HEADER),
                        size as usize,
                    )
                };
                record
            });
            let next = at + (size + HEADER).next_multiple_of(8);
            self.consumed.store(next, Ordering::Release);
            if record.is_some() {
                return record;
            }
        }
    }

    /// Addresses programs may get: first byte and length.
    pub(crate) fn range(&self) -> (usize, usize) {
        self.bytes.range()
    }
}

/// Ends the record at an address that [`Ring::reserve`] gave.
///
/// # Safety
/// It did, and the record was not ended yet.
pub(crate) unsafe fn finish(record: *mut u8, discard: bool) {
    // SAFETY: every record has its header in front, aligned to 8.
    let header = unsafe {
        &*record
            .sub(HEADER as usize)
            .cast::<std::sync::atomic::AtomicU32>()
    };
    let done = header.load(Ordering::Relaxed) & !BUSY;
    header.store(
        if discard { done | DISCARD } else { done },
        Ordering::Release,
    );
}
