//! A worker's share of an interface.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use std::vec::Drain;

use nic_target::{Frame, FramePool, Port, Rx, Tx};
use tracing::warn;

use super::setup::{LINK_HEADER, XdpOptions};
use crate::attach::Attached;
use crate::counts::{add, read};
use crate::sys::netdev::Device;
use crate::sys::umem::{CHUNK, Chunk, Local, Umem};
use crate::sys::xsk::{Counters, Received, Rings, Xsk};
use crate::sys::{self};

/// Empty receives between looks at the clock.
const LOOK_EVERY: u32 = 1024;

/// How often a port that receives nothing asks whether its interface still exists, ns.
const PROBE_NS: u64 = 100_000_000;

/// Wake-ups that a send may take to make room for its frames.
const WAKEUPS: u32 = 16;

/// Chunks that the fill ring may lack before it is filled up.
const REFILL: u32 = 32;

/// Chunks of a copied frame: a frame has at most `MAX_FRAME` bytes, or a chunk's.
const MAX_PARTS: usize = nic_target::frame::MAX_FRAME.div_ceil(CHUNK);

#[derive(Debug, Default)]
pub(super) struct Counts {
    too_long: AtomicU64,
    no_buffer: AtomicU64,
    tx_too_long: AtomicU64,
    tx_refused: AtomicU64,
    tx_copied: AtomicU64,
}

/// Frames that did not make it, and why; and those that cost a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpCounters {
    /// Received: longer than a buffer.
    pub too_long: u64,
    /// Received: longer than a chunk, and the pool had no frame for it.
    pub no_buffer: u64,
    /// Sending: longer than the MTU.
    pub tx_too_long: u64,
    /// Sending: ring full, no chunk free, link down or interface gone.
    pub tx_refused: u64,
    /// Sent from a copy: the frame was not in the shared memory.
    pub tx_copied: u64,
}

/// One socket.
#[derive(Debug)]
struct Queue {
    xsk: Xsk,
    /// A packet of several chunks, as far as it has come.
    partial: Option<Frame>,
    /// The rest of a packet is to be thrown away.
    discarding: bool,
}

/// A worker's queues of one interface.
#[derive(Debug)]
pub struct XdpPort {
    name: String,
    device: Device,
    queues: Vec<Queue>,
    /// Which is asked first.
    next: usize,
    umem: Umem,
    counts: Arc<Counts>,
    /// Chunks that each queue's kernel side is to have.
    fill_target: u32,
    busy_poll: bool,
    /// Longest frame to send, bytes.
    longest: usize,
    gone: bool,
    down: bool,
    empty: u32,
    probe_at_ns: u64,
    _attached: Arc<Attached>,
}

impl XdpPort {
    pub(super) fn new(
        name: &str,
        device: Device,
        sockets: Vec<Xsk>,
        umem: Umem,
        attached: Arc<Attached>,
        options: &XdpOptions,
    ) -> Self {
        Self {
            name: name.to_owned(),
            device,
            queues: sockets
                .into_iter()
                .map(|xsk| Queue {
                    xsk,
                    partial: None,
                    discarding: false,
                })
                .collect(),
            next: 0,
            umem,
            counts: Arc::default(),
            fill_target: options.frames / 2,
            busy_poll: options.busy_poll.is_some(),
            longest: device.mtu as usize + LINK_HEADER,
            gone: false,
            down: false,
            empty: 0,
            probe_at_ns: 0,
            _attached: attached,
        }
    }

    /// Name of its interface.
    pub fn interface(&self) -> &str {
        &self.name
    }

    /// What the interface was when it was opened.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Losses so far.
    pub fn counters(&self) -> XdpCounters {
        counters(&self.counts)
    }

    /// True when the device itself reads and writes the shared memory.
    pub fn zero_copy(&self) -> bool {
        self.queues.iter().all(|queue| queue.xsk.zero_copy())
    }

    /// Queues of the interface that this port has.
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// The memory that this port shares with the others it was opened with.
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Chunks in the kernel's hands: to receive into, and to send.
    pub fn in_kernel(&self) -> (u32, u32) {
        let each = self.queues.iter().map(|queue| queue.xsk.in_kernel());
        each.fold((0, 0), |sum, (rx, tx)| (sum.0 + rx, sum.1 + tx))
    }

    /// Counters for control: this port's, and the kernel's of each of its sockets.
    pub(crate) fn observer(&self) -> Observer {
        Observer {
            counts: Arc::clone(&self.counts),
            sockets: self.queues.iter().map(|q| q.xsk.counters()).collect(),
        }
    }

    /// After receives that gave nothing: the interface may be gone.
    fn look(&mut self) -> Rx {
        self.empty = self.empty.wrapping_add(1);
        let mut gone = false;
        for queue in &self.queues {
            if queue.xsk.tx_sleeps() {
                let _ = queue.xsk.wake_tx();
            }
            if self.busy_poll || queue.xsk.rx_sleeps() {
                gone |= is(&queue.xsk.wake_rx(), libc::ENXIO);
            }
        }
        self.lose(gone);
        if self.empty.is_multiple_of(LOOK_EVERY) {
            self.probe();
        }
        if self.gone {
            return Rx::End;
        }
        Rx::Received(0)
    }

    fn lose(&mut self, gone: bool) {
        if gone && !self.gone {
            warn!(interface = %self.name, "the interface is gone: nothing more will be received");
        }
        self.gone |= gone;
    }

    fn probe(&mut self) {
        let now_ns = sys::monotonic_ns();
        if now_ns < self.probe_at_ns {
            return;
        }
        self.probe_at_ns = now_ns + PROBE_NS;
        if let Some(queue) = self.queues.first() {
            let gone = is(&queue.xsk.wake_rx(), libc::ENXIO);
            self.lose(gone);
        }
    }
}

/// True for this error of the kernel.
fn is(result: &io::Result<()>, errno: libc::c_int) -> bool {
    matches!(result, Err(e) if e.raw_os_error() == Some(errno))
}

fn counters(counts: &Counts) -> XdpCounters {
    XdpCounters {
        too_long: read(&counts.too_long),
        no_buffer: read(&counts.no_buffer),
        tx_too_long: read(&counts.tx_too_long),
        tx_refused: read(&counts.tx_refused),
        tx_copied: read(&counts.tx_copied),
    }
}

/// A port's counters as control sees them.
#[derive(Debug)]
pub(crate) struct Observer {
    counts: Arc<Counts>,
    sockets: Vec<Counters>,
}

impl Observer {
    /// By name; the kernel's summed over sockets.
    pub(crate) fn read(&self) -> Vec<(&'static str, u64)> {
        let own = counters(&self.counts);
        let own = [
            ("dashwire_rx_too_long", own.too_long),
            ("dashwire_rx_no_buffer", own.no_buffer),
            ("dashwire_tx_too_long", own.tx_too_long),
            ("dashwire_tx_refused", own.tx_refused),
            ("dashwire_tx_copied", own.tx_copied),
        ];
        let read = self.sockets.iter().filter_map(Counters::read);
        let sum = read.fold([0; 6], |sum, s| {
            let one = [
                s.rx_dropped,
                s.rx_invalid_descs,
                s.tx_invalid_descs,
                s.rx_ring_full,
                s.rx_fill_ring_empty_descs,
                s.tx_ring_empty_descs,
            ];
            std::array::from_fn(|i| sum[i] + one[i])
        });
        let names = [
            "xsk_rx_dropped",
            "xsk_rx_invalid_descs",
            "xsk_tx_invalid_descs",
            "xsk_rx_ring_full",
            "xsk_rx_fill_ring_empty_descs",
            "xsk_tx_ring_empty_descs",
        ];
        own.into_iter().chain(names.into_iter().zip(sum)).collect()
    }
}

impl Queue {
    /// Moves received frames to `burst`, up to `room`, and keeps the kernel supplied.
    fn receive(
        &mut self,
        umem: &Umem,
        counts: &Counts,
        fill_target: u32,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        room: usize,
    ) {
        let (_, sending) = self.xsk.in_kernel();
        let mut rings = self.xsk.rings();
        umem.local(|local| {
            if sending > 0 {
                collect(&mut rings, local);
            }
            let mut left = room;
            while left > 0 {
                let Some(part) = rings.receive() else { break };
                let whole = self.partial.is_none() && !self.discarding && !part.more;
                let frame = if whole {
                    match local.lend(part.chunk, part.start, part.len) {
                        Ok(frame) => Some(frame),
                        // It is inside, and of this memory: `receive` has checked.
                        Err(chunk) => {
                            local.give(chunk);
                            None
                        }
                    }
                } else {
                    let partial = (&mut self.partial, &mut self.discarding);
                    gather(partial, part, counts, pool, local)
                };
                if let Some(frame) = frame {
                    burst.push(frame);
                    left -= 1;
                }
            }
            let missing = fill_target.saturating_sub(rings.filled());
            if missing >= REFILL {
                for _ in 0..missing {
                    let Some(chunk) = local.take() else { break };
                    if let Err(chunk) = rings.fill(chunk) {
                        local.give(chunk);
                        break;
                    }
                }
            }
        });
    }
}

/// Takes back what was sent.
fn collect<'u>(rings: &mut Rings<'u>, local: &mut Local<'u, '_>) {
    while let Some(chunk) = rings.completed() {
        local.give(chunk);
    }
}

/// Adds a part of a packet of several chunks to its frame; the frame, when it is whole.
fn gather<'u>(
    (partial, discarding): (&mut Option<Frame>, &mut bool),
    mut part: Received<'u>,
    counts: &Counts,
    pool: &mut FramePool,
    local: &mut Local<'u, '_>,
) -> Option<Frame> {
    if !*discarding && partial.is_none() {
        *partial = pool.take();
        if let Some(frame) = partial {
            frame.set_len(0);
        } else {
            add(&counts.no_buffer, 1);
            *discarding = true;
        }
    }
    if let Some(frame) = partial {
        let (at, bytes) = (frame.len(), part.chunk.bytes_mut());
        let bytes = bytes.get(part.start..part.start + part.len);
        let bytes = bytes.unwrap_or_default();
        match frame.space_mut().get_mut(at..at + bytes.len()) {
            Some(space) => {
                space.copy_from_slice(bytes);
                frame.set_len(at + bytes.len());
            }
            None => {
                add(&counts.too_long, 1);
                *discarding = true;
                partial.take().into_iter().for_each(|f| pool.give(f));
            }
        }
    }
    local.give(part.chunk);
    if part.more {
        return None;
    }
    *discarding = false;
    partial.take()
}

/// What a send has left to do, and what came of it.
struct Sending<'a> {
    frames: std::iter::Peekable<Drain<'a, Frame>>,
    tx: Tx,
}

impl Sending<'_> {
    /// Moves frames to the ring until they, the ring or the chunks are at their end.
    fn fill<'u>(
        &mut self,
        umem: &Umem,
        rings: &mut Rings<'u>,
        local: &mut Local<'u, '_>,
        pool: &mut FramePool,
        counts: &Counts,
        longest: usize,
    ) {
        collect(rings, local);
        while let Some(frame) = self.frames.peek() {
            let len = frame.len();
            // A port whose MTU lets frames be longer than a chunk takes packets of several.
            if len > longest || len == 0 {
                add(&counts.tx_too_long, 1);
                self.tx.dropped += 1;
                self.frames.next().into_iter().for_each(|f| pool.give(f));
                continue;
            }
            if !rings.tx_room(len.div_ceil(CHUNK)) {
                return;
            }
            if umem.has(frame) {
                let Some(frame) = self.frames.next() else {
                    return;
                };
                if let Ok((chunk, start, len)) = local.reclaim(frame)
                    && let Err(chunk) = rings.send(chunk, start, len, false)
                {
                    local.give(chunk);
                }
            } else {
                // Without a free chunk: the next round has those that were sent in this one.
                if !copy(frame, rings, local) {
                    return;
                }
                add(&counts.tx_copied, 1);
                self.frames.next().into_iter().for_each(|f| pool.give(f));
            }
            self.tx.sent += 1;
            self.tx.octets += len as u64;
        }
    }

    /// Drops what is left.
    fn refuse(mut self, pool: &mut FramePool, counts: &Counts) -> Tx {
        let mut refused = 0;
        for frame in self.frames {
            pool.give(frame);
            refused += 1;
        }
        add(&counts.tx_refused, refused as u64);
        self.tx.dropped += refused;
        self.tx
    }
}

/// Sends a copy of a frame, for which the ring has room; false when there are too few chunks.
fn copy<'u>(frame: &Frame, rings: &mut Rings<'u>, local: &mut Local<'u, '_>) -> bool {
    let parts = frame.len().div_ceil(CHUNK);
    let mut chunks: [Option<Chunk<'u>>; MAX_PARTS] = [const { None }; MAX_PARTS];
    let Some(wanted) = chunks.get_mut(..parts) else {
        return false;
    };
    wanted.iter_mut().for_each(|chunk| *chunk = local.take());
    if wanted.iter().any(Option::is_none) {
        chunks.into_iter().flatten().for_each(|c| local.give(c));
        return false;
    }
    let pieces = frame.data().chunks(CHUNK).enumerate();
    for ((at, piece), mut chunk) in pieces.zip(chunks.into_iter().flatten()) {
        chunk.bytes_mut()[..piece.len()].copy_from_slice(piece);
        if let Err(chunk) = rings.send(chunk, 0, piece.len(), at + 1 < parts) {
            local.give(chunk);
        }
    }
    true
}

impl Port for XdpPort {
    fn name(&self) -> &str {
        &self.name
    }
    fn mac(&self) -> [u8; 6] {
        self.device.mac
    }
    fn mtu(&self) -> Option<u32> {
        Some(self.device.mtu)
    }
    fn start(&mut self) -> io::Result<()> {
        self.umem.keep_stock();
        Ok(())
    }
    fn rx(
        &mut self,
        index: u16,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx> {
        if self.gone {
            return Ok(Rx::End);
        }
        let first = burst.len();
        let count = self.queues.len();
        for at in 0..count {
            let room = max.saturating_sub(burst.len() - first);
            let Some(queue) = self.queues.get_mut((self.next + at) % count) else {
                break;
            };
            queue.receive(
                &self.umem,
                &self.counts,
                self.fill_target,
                pool,
                burst,
                room,
            );
        }
        self.next = (self.next + 1) % count.max(1);
        let received = burst.len() - first;
        if received == 0 {
            return Ok(self.look());
        }
        self.empty = 0;
        let now_ns = sys::monotonic_ns();
        for frame in burst.iter_mut().skip(first) {
            frame.port = index;
            frame.timestamp_ns = now_ns;
        }
        Ok(Rx::Received(received))
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        let mut sending = Sending {
            frames: frames.drain(..).peekable(),
            tx: Tx::default(),
        };
        let Some(queue) = self.queues.first_mut() else {
            return Ok(sending.refuse(pool, &self.counts));
        };
        if self.down {
            self.down = is(&queue.xsk.wake_tx(), libc::ENETDOWN);
        }
        if self.down || self.gone {
            return Ok(sending.refuse(pool, &self.counts));
        }
        let (umem, longest) = (&self.umem, self.longest);
        let mut gone = false;
        for _ in 0..WAKEUPS {
            let mut rings = queue.xsk.rings();
            let counts = &self.counts;
            umem.local(|local| sending.fill(umem, &mut rings, local, pool, counts, longest));
            drop(rings);
            let done = sending.frames.peek().is_none();
            if queue.xsk.tx_sleeps() {
                let woken = queue.xsk.wake_tx();
                self.down = is(&woken, libc::ENETDOWN);
                gone |= is(&woken, libc::ENXIO);
            }
            if self.down || gone || (done && !queue.xsk.tx_sleeps()) {
                break;
            }
        }
        self.lose(gone);
        Ok(sending.refuse(pool, &self.counts))
    }
    fn idle(&mut self) {
        self.probe();
        if !self.gone {
            let sockets = self.queues.iter().map(|queue| &queue.xsk);
            Xsk::wait(sockets, Duration::from_millis(1));
        }
    }
}
