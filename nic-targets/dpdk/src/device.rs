//! A device as control sees it.

use std::ffi::CStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dpdk_sys as sys;
use nic_target::{Device, Link};

use crate::eal::{Live, PortId};
use crate::pool::Pool;

/// One DPDK device, all its queues.
#[derive(Debug)]
pub struct DpdkDevice {
    pub(crate) shared: Arc<Shared>,
}

/// What a device and its ports share. The last of them stops and closes the device; then its pool
/// goes, then EAL.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: PortId,
    pub(crate) name: String,
    pub(crate) mac: [u8; 6],
    /// Interface of the kernel that the device sits on and that may be deleted; 0 when none.
    pub(crate) interface: u32,
    /// Longest frame it sends, bytes.
    pub(crate) max_frame: u32,
    /// Set once, by an event of the device or a look at its interface.
    pub(crate) gone: AtomicBool,
    pub(crate) queues: Vec<QueueCounters>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) live: Arc<Live>,
}

/// What a port drops itself. Written by one worker, so that adding needs no read-modify-write.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct QueueCounters {
    /// Received with a checksum that the device found wrong.
    pub(crate) rx_checksum: AtomicU64,
    /// Received in several segments, or in shared memory, without room for a copy.
    pub(crate) rx_segments: AtomicU64,
    /// To be sent, longer than the MTU allows, or shorter than an Ethernet header.
    pub(crate) tx_length: AtomicU64,
    /// To be sent, and the queue stayed full.
    pub(crate) tx_full: AtomicU64,
    /// To be sent from memory of our own, and no mbuf was free to copy to.
    pub(crate) tx_no_buffer: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

/// Reads one of a queue's counters.
type Counter = fn(&QueueCounters) -> &AtomicU64;

const OWN: [(&str, Counter); 5] = [
    ("port_rx_bad_checksum_dropped", |q| &q.rx_checksum),
    ("port_rx_segmented_dropped", |q| &q.rx_segments),
    ("port_tx_bad_length_dropped", |q| &q.tx_length),
    ("port_tx_queue_full_dropped", |q| &q.tx_full),
    ("port_tx_no_buffer_dropped", |q| &q.tx_no_buffer),
];

impl Shared {
    pub(crate) fn is_gone(&self) -> bool {
        // Relaxed: the flag orders nothing.
        self.gone.load(Ordering::Relaxed)
    }

    /// Looks whether the kernel still has the interface underneath.
    pub(crate) fn look(&self) {
        if self.interface == 0 || self.is_gone() {
            return;
        }
        let mut name = [0; libc::IF_NAMESIZE];
        // SAFETY: `name` has the IF_NAMESIZE bytes that the function may write.
        if unsafe { libc::if_indextoname(self.interface, name.as_mut_ptr()) }.is_null() {
            self.gone.store(true, Ordering::Relaxed);
            tracing::warn!(device = %self.name, "its interface is gone: nothing more will be received");
        }
    }

    /// Asks for removal events; before the device starts.
    pub(crate) fn listen(&self) {
        for event in [sys::RTE_ETH_EVENT_INTR_RMV, sys::RTE_ETH_EVENT_DESTROY] {
            let gone = (&raw const self.gone).cast_mut().cast();
            // SAFETY: `gone` lives until `drop` unregisters the callback: `self` is behind an `Arc`
            // already (it does not move), and the callback only stores to the atomic.
            let result = unsafe {
                sys::rte_eth_dev_callback_register(self.id.0, event, Some(removed), gone)
            };
            if result != 0 {
                tracing::debug!(device = %self.name, event, result, "no removal events");
            }
        }
    }
}

/// Called by DPDK's interrupt thread.
unsafe extern "C" fn removed(
    port: u16,
    _event: sys::rte_eth_event_type,
    gone: *mut std::ffi::c_void,
    _ret: *mut std::ffi::c_void,
) -> std::ffi::c_int {
    // SAFETY: registered with a pointer to the `AtomicBool` of a `Shared` that is there until it has
    // unregistered us.
    let gone = unsafe { &*gone.cast::<AtomicBool>().cast_const() };
    gone.store(true, Ordering::Relaxed);
    tracing::warn!(
        port,
        "a DPDK device was removed: nothing more will be received"
    );
    0
}

impl Drop for Shared {
    fn drop(&mut self) {
        for event in [sys::RTE_ETH_EVENT_INTR_RMV, sys::RTE_ETH_EVENT_DESTROY] {
            let gone = (&raw const self.gone).cast_mut().cast();
            // SAFETY: takes the registration of `listen` back, if any. -EAGAIN: it runs right now.
            while unsafe {
                sys::rte_eth_dev_callback_unregister(self.id.0, event, Some(removed), gone)
            } == -libc::EAGAIN
            {
                std::thread::yield_now();
            }
        }
        if self.is_gone() && self.interface == 0 {
            // Removed under us: EAL has closed it, or will when it cleans up.
            return;
        }
        // SAFETY: no port polls the device any more (each has an `Arc` of this). Both functions take
        // any number and answer an error when there is nothing to do.
        unsafe {
            sys::rte_eth_dev_stop(self.id.0);
            sys::rte_eth_dev_close(self.id.0);
        }
    }
}

impl DpdkDevice {
    /// Packet buffers that are free now, of all devices on the same NUMA node.
    pub fn free_buffers(&self) -> u32 {
        self.shared.pool.available()
    }
}

impl Device for DpdkDevice {
    fn name(&self) -> &str {
        &self.shared.name
    }
    fn mac(&self) -> [u8; 6] {
        self.shared.mac
    }
    fn link(&mut self) -> Link {
        self.shared.look();
        if self.shared.is_gone() {
            return Link::Gone;
        }
        let mut speed = 0;
        // SAFETY: `speed` is writable; the function takes any port's number.
        match unsafe { sys::dash_link(self.shared.id.0, &mut speed) } {
            // 0 and u32::MAX: DPDK's "none" and "unknown".
            1 => Link::Up(Some(speed).filter(|s| *s != 0 && *s != u32::MAX)),
            0 => Link::Down,
            e if e == -libc::ENODEV || e == -libc::EIO => Link::Gone,
            _ => Link::Down,
        }
    }
    fn xstats(&mut self) -> io::Result<Vec<(String, u64)>> {
        let own = OWN.iter().map(|(name, counter)| {
            let queues = self.shared.queues.iter();
            let sum = queues.map(|q| counter(q).load(Ordering::Relaxed)).sum();
            ((*name).to_owned(), sum)
        });
        let mut all = device_xstats(self.shared.id)?;
        all.extend(own);
        Ok(all)
    }
}

fn device_xstats(id: PortId) -> io::Result<Vec<(String, u64)>> {
    let size = |n: i32| usize::try_from(n).map_err(|_| io::Error::from_raw_os_error(-n));
    // SAFETY: without memory the function gives the number of names.
    let count = size(unsafe { sys::rte_eth_xstats_get_names(id.0, std::ptr::null_mut(), 0) })?;
    // There are at most some thousands.
    let room = count as u32;
    let mut names = vec![sys::rte_eth_xstat_name { name: [0; 64] }; count];
    let mut values = vec![sys::rte_eth_xstat { id: 0, value: 0 }; count];
    // SAFETY: both have `room` writable elements.
    let (named, valued) = unsafe {
        (
            sys::rte_eth_xstats_get_names(id.0, names.as_mut_ptr(), room),
            sys::rte_eth_xstats_get(id.0, values.as_mut_ptr(), room),
        )
    };
    // More than there was room for: they changed in between, and nothing was written.
    names.truncate(Some(size(named)?).filter(|n| *n <= count).unwrap_or(0));
    values.truncate(Some(size(valued)?).filter(|n| *n <= count).unwrap_or(0));
    let text = |name: &sys::rte_eth_xstat_name| {
        // SAFETY: names are terminated strings within their 64 bytes.
        let name = unsafe { CStr::from_ptr(name.name.as_ptr()) };
        name.to_string_lossy().into_owned()
    };
    let stats = values.iter().filter_map(|value| {
        let name = names.get(usize::try_from(value.id).ok()?)?;
        Some((text(name), value.value))
    });
    Ok(stats.collect())
}
