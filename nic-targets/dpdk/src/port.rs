//! A queue pair of a device, owned by one worker.
//!
//! What is received stays in its mbuf: the frame is lent ([`Frame::lend`]), and goes back to its pool
//! where it is dropped, or is sent as it is, out of any DPDK port. Frames of other memory are copied
//! into an mbuf.
//!
//! Outer headers and checksums are complete when a frame comes here, and the writes that complete
//! them are to lines the rewrite has in cache anyway, so no offload is asked of the device on the way
//! out. On the way in, frames whose checksum the device found wrong are dropped, and counted.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dpdk_sys as sys;
use nic_target::{Frame, FramePool, Lent, Port, Rx, Tx};

use crate::device::{Shared, add};
use crate::eal::Live;
use crate::pool::MBUFS;

/// Frames of a call of the driver.
const BURST: usize = sys::DASH_BURST as usize;

/// Tries to send on while the queue takes nothing.
const TX_TRIES: u32 = 16;

/// Shortest frame sent: an Ethernet header. Less confuses NICs.
const MIN_FRAME: u32 = 14;

/// How often an idle port looks whether its interface still exists.
const LOOK: Duration = Duration::from_millis(100);

const EMPTY: sys::dash_packet = sys::dash_packet {
    mbuf: std::ptr::null_mut(),
    base: std::ptr::null_mut(),
    size: 0,
    start: 0,
    end: 0,
    flags: 0,
};

/// One queue pair of a DPDK device.
pub struct DpdkPort {
    shared: Arc<Shared>,
    queue: u16,
    looked: Option<Instant>,
    packets: [sys::dash_packet; BURST],
    mbufs: [*mut sys::rte_mbuf; BURST],
}

// SAFETY: the pointers are scratch, without meaning between calls; DPDK's queues may be used by any
// thread, by one at a time, and a port is the only user of its queue.
unsafe impl Send for DpdkPort {}

impl fmt::Debug for DpdkPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpdkPort")
            .field("device", &self.shared.name)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// The registration of a thread as an lcore, which is what gives it a cache of mbufs. Keeps EAL until
/// the thread ends.
struct Lcore {
    _live: Arc<Live>,
}

impl Drop for Lcore {
    fn drop(&mut self) {
        // SAFETY: this thread registered, and EAL still runs (`_live`).
        unsafe { sys::rte_thread_unregister() };
    }
}

thread_local! {
    static LCORE: RefCell<Option<Lcore>> = const { RefCell::new(None) };
}

fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is writable; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    // Not negative, and nanoseconds of 584 years fit.
    (now.tv_sec as u64) * 1_000_000_000 + now.tv_nsec as u64
}

impl DpdkPort {
    pub(crate) fn new(shared: Arc<Shared>, queue: u16) -> Self {
        Self {
            shared,
            queue,
            looked: None,
            packets: [EMPTY; BURST],
            mbufs: [std::ptr::null_mut(); BURST],
        }
    }

    fn counters(&self) -> &crate::device::QueueCounters {
        // One for each queue, and `queue` is one.
        &self.shared.queues[usize::from(self.queue)]
    }

    /// Deals with a packet that is not simply ours: true when it now is.
    #[cold]
    fn unusual(&mut self, at: usize) -> bool {
        let packet = &mut self.packets[at];
        if packet.flags & sys::DASH_BAD_CHECKSUM != 0 {
            // SAFETY: just received, so ours to give back.
            unsafe { sys::dash_free(packet.mbuf) };
            add(&self.counters().rx_checksum, 1);
            return false;
        }
        // SAFETY: just received, so ours to replace; the pool is this port's.
        if unsafe { sys::dash_flatten(packet, self.shared.pool.as_ptr()) } != 0 {
            add(&self.counters().rx_segments, 1);
            return false;
        }
        true
    }

    /// The packet of a frame, in an mbuf of its own; `None` when there is none, and the frame's buffer
    /// is given back.
    fn packet(&self, frame: Frame, pool: &mut FramePool) -> Option<sys::dash_packet> {
        let length = frame.len();
        let counters = self.counters();
        if !(MIN_FRAME as usize..=self.shared.max_frame as usize).contains(&length) {
            add(&counters.tx_length, 1);
            pool.give(frame);
            return None;
        }
        match frame.into_lent(&MBUFS) {
            Ok((mbuf, start, end)) => Some(sys::dash_packet {
                mbuf: mbuf.cast().as_ptr(),
                start,
                end,
                ..EMPTY
            }),
            Err(frame) => {
                let mut packet = EMPTY;
                // SAFETY: `packet` is writable, the pool is there while `shared` is.
                let none = unsafe { sys::dash_alloc(&mut packet, self.shared.pool.as_ptr()) } != 0;
                // Buffers hold the longest frame, but not more.
                let fits = !none && length <= (packet.size - packet.start) as usize;
                if fits {
                    // SAFETY: the mbuf is new and ours, with `size - start` bytes from there, not
                    // fewer than `length`; the frame's memory is another.
                    unsafe {
                        let to = packet.base.add(packet.start as usize);
                        std::ptr::copy_nonoverlapping(frame.data().as_ptr(), to, length);
                    }
                    packet.end = packet.start + length as u32;
                } else {
                    if !none {
                        // SAFETY: allocated above and not used.
                        unsafe { sys::dash_free(packet.mbuf) };
                    }
                    add(&counters.tx_no_buffer, 1);
                }
                pool.give(frame);
                fits.then_some(packet)
            }
        }
    }

    /// Sends the first `n` packets of the scratch; what the queue does not take in time is dropped.
    fn flush(&mut self, n: usize, tx: &mut Tx) {
        let (id, queue) = (self.shared.id.0, self.queue);
        // SAFETY: the first `n` packets (at most `BURST`) hold mbufs of ours with bounds within them.
        unsafe { sys::dash_seal(self.packets.as_ptr(), self.mbufs.as_mut_ptr(), n as u16) };
        let (mut sent, mut tries) = (0, 0);
        while sent < n && tries < TX_TRIES {
            // SAFETY: `n - sent` mbufs from there are ours; those that are sent are not any more. This
            // port is the only user of its queue.
            let now = unsafe {
                sys::dash_tx(
                    id,
                    queue,
                    self.mbufs.as_mut_ptr().add(sent),
                    (n - sent) as u16,
                )
            };
            sent += usize::from(now);
            if now == 0 {
                tries += 1;
                std::hint::spin_loop();
            }
        }
        for mbuf in &self.mbufs[sent..n] {
            // SAFETY: not sent, so still ours.
            unsafe { sys::dash_free(*mbuf) };
        }
        if sent < n {
            add(&self.counters().tx_full, (n - sent) as u64);
        }
        tx.sent += sent;
        let lengths = self.packets[..sent]
            .iter()
            .map(|p| u64::from(p.end - p.start));
        tx.octets += lengths.sum::<u64>();
    }
}

impl Port for DpdkPort {
    fn name(&self) -> &str {
        &self.shared.name
    }
    fn mac(&self) -> [u8; 6] {
        self.shared.mac
    }
    fn mtu(&self) -> Option<u32> {
        Some(self.shared.max_frame - u32::from(crate::open::FRAME_OVERHEAD))
    }
    fn rx(
        &mut self,
        index: u16,
        _pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx> {
        if self.shared.is_gone() {
            return Ok(Rx::End);
        }
        let want = max.min(BURST) as u16;
        // SAFETY: the scratch has room for `want` packets, and this port is the only user of its queue.
        let got = unsafe {
            sys::dash_rx(
                self.shared.id.0,
                self.queue,
                self.packets.as_mut_ptr(),
                want,
            )
        };
        if got == 0 {
            return Ok(Rx::Received(0));
        }
        let (now_ns, first) = (monotonic_ns(), burst.len());
        for at in 0..usize::from(got) {
            if self.packets[at].flags != 0 && !self.unusual(at) {
                continue;
            }
            let packet = self.packets[at];
            let (Some(mbuf), Some(base)) = (NonNull::new(packet.mbuf), NonNull::new(packet.base))
            else {
                continue;
            };
            let lent = Lent {
                lender: &MBUFS,
                handle: mbuf.cast(),
            };
            // SAFETY: an mbuf has `size` bytes of mapped memory at `base`, and its packet within them;
            // it is the only one on them (not `DASH_NOT_OWN`) and ours until we free or send it. Its
            // pool stays while it is out.
            let mut frame =
                unsafe { Frame::lend(base, packet.size, packet.start, packet.end, lent) };
            frame.port = index;
            frame.timestamp_ns = now_ns;
            burst.push(frame);
        }
        Ok(Rx::Received(burst.len() - first))
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        let (mut tx, mut n, count) = (Tx::default(), 0, frames.len());
        for frame in frames.drain(..) {
            if let Some(packet) = self.packet(frame, pool) {
                self.packets[n] = packet;
                n += 1;
                if n == BURST {
                    self.flush(n, &mut tx);
                    n = 0;
                }
            }
        }
        if n > 0 {
            self.flush(n, &mut tx);
        }
        tx.dropped = count - tx.sent;
        Ok(tx)
    }
    /// Registers the thread, so that it has a cache of mbufs. Without (all lcores taken), it works on
    /// the pool itself, which is slower.
    fn start(&mut self) -> io::Result<()> {
        // SAFETY: reads a number of this thread; then adds it to EAL's list, where it is not.
        unsafe {
            if sys::dash_lcore() != sys::DASH_LCORE_NONE {
                return Ok(());
            }
            if sys::rte_thread_register() != 0 {
                tracing::warn!(device = %self.shared.name, "no lcore is left for this worker: it is slower");
                return Ok(());
            }
        }
        let lcore = Lcore {
            _live: Arc::clone(&self.shared.live),
        };
        LCORE.with_borrow_mut(|mine| *mine = Some(lcore));
        Ok(())
    }
    fn idle(&mut self) {
        let now = Instant::now();
        if self.looked.is_none_or(|at| now.duration_since(at) >= LOOK) {
            self.looked = Some(now);
            self.shared.look();
        }
    }
}
