//! Pools of mbufs. A pool is freed when no frame holds an mbuf of it, however long its devices are
//! gone.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use dpdk_sys as sys;
use nic_target::Lender;

use crate::{Error, log};

/// Mbufs a thread keeps to itself.
const CACHE: u32 = 256;

/// Lends mbufs as frames.
pub(crate) static MBUFS: Lender = Lender {
    name: "dpdk",
    release,
};

/// Takes an mbuf back.
///
/// # Safety
/// As `Lender::release` says: the handle is an mbuf that nobody uses any more.
unsafe fn release(handle: NonNull<()>) {
    // SAFETY: handles of `MBUFS` are mbufs, and the caller had the only one to this.
    unsafe { sys::dash_free(handle.cast().as_ptr()) };
}

/// Pools without a device whose mbufs were still out when last looked.
static ORPHANS: Mutex<Vec<Raw>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Raw(NonNull<sys::rte_mempool>);

// SAFETY: DPDK's pools are made for use by several threads.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

/// A pool of mbufs that ports use.
#[derive(Debug)]
pub(crate) struct Pool(Raw);

impl Pool {
    /// `count` mbufs with room for packets of `room` bytes behind the headroom, on a NUMA node (-1:
    /// any).
    pub(crate) fn new(count: u32, room: u16, node: i32) -> Result<Self, Error> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(format!("dashwire{number}")).unwrap_or_default();
        // DPDK wants the cache at least 1.5 times in the pool.
        let cache = CACHE.min(count / 2);
        let mark = log::mark();
        // SAFETY: EAL runs (whoever calls holds it), `name` is a string that is copied.
        let pool =
            unsafe { sys::rte_pktmbuf_pool_create(name.as_ptr(), count, cache, 0, room, node) };
        match NonNull::new(pool) {
            Some(pool) => Ok(Self(Raw(pool))),
            None => Err(Error::Pool {
                buffers: count,
                bytes: room.into(),
                megabytes: (u64::from(count) * u64::from(room)).div_ceil(1 << 20),
                reason: log::appendix(mark),
            }),
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.0.0.as_ptr()
    }

    /// Mbufs not in use.
    pub(crate) fn available(&self) -> u32 {
        // SAFETY: the pool is there while `self` is.
        unsafe { sys::rte_mempool_avail_count(self.as_ptr()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
        orphans.push(Raw(self.0.0));
        free_unused(&mut orphans);
    }
}

/// Frees pools that are not in use any more; true when none is left.
pub(crate) fn reap() -> bool {
    let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
    free_unused(&mut orphans);
    orphans.is_empty()
}

fn free_unused(orphans: &mut Vec<Raw>) {
    orphans.retain(|pool| {
        // SAFETY: pools in the list are not freed yet.
        let used = unsafe { sys::rte_mempool_in_use_count(pool.0.as_ptr()) } > 0;
        if !used {
            // SAFETY: no port has the pool (it is an orphan), and all its mbufs are back, the last
            // step of giving one back being what the count sees: nobody uses it.
            unsafe { sys::rte_mempool_free(pool.0.as_ptr()) };
        }
        used
    });
}
