//! A port over a raw socket on a Linux interface: veth, tap, or a NIC that the kernel drives.
//!
//! Frames are whole Ethernet frames as a wire would carry them. Senders on the same machine leave
//! work to hardware that a raw socket does not have: a checksum left open is completed here, a VLAN
//! tag taken out is put back, and a segment larger than a frame (TSO, GRO) is dropped and counted,
//! with a warning that tells what to switch off.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use nic_target::{Frame, FramePool, Port, Rx, Tx};
use tracing::warn;

use crate::checksum;
use crate::counts::{add, read};
use crate::sys::netdev::{self, Device};
use crate::sys::packet::{BURST, PacketSocket, RxMeta, VNET_NEEDS_CSUM};
use crate::sys::{self};

const SECOND_NS: u64 = 1_000_000_000;

/// How often a port whose link is down looks whether its interface still exists.
const PROBE_NS: u64 = SECOND_NS / 10;

/// Frames that did not make it, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AfPacketCounters {
    /// Received: large segments of TSO, GSO or GRO.
    pub gso_dropped: u64,
    /// Received: longer than a buffer.
    pub too_long: u64,
    /// Received: the offload header does not fit the frame.
    pub bad_offload: u64,
    /// Sending: longer than the MTU.
    pub tx_too_long: u64,
    /// Sending: queue full, link down, or refused otherwise.
    pub tx_refused: u64,
}

#[derive(Debug, Default)]
struct Counts {
    gso_dropped: AtomicU64,
    too_long: AtomicU64,
    bad_offload: AtomicU64,
    tx_too_long: AtomicU64,
    tx_refused: AtomicU64,
}

/// A port's counters as control sees them.
pub(crate) struct Observer(Arc<Counts>);

impl Observer {
    /// By name.
    pub(crate) fn read(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("dashwire_rx_gso_dropped", read(&self.0.gso_dropped)),
            ("dashwire_rx_too_long", read(&self.0.too_long)),
            ("dashwire_rx_bad_offload", read(&self.0.bad_offload)),
            ("dashwire_tx_too_long", read(&self.0.tx_too_long)),
            ("dashwire_tx_refused", read(&self.0.tx_refused)),
        ]
    }
}

/// A worker's share of one interface: all of it, or what the kernel deals to one of several sockets.
#[derive(Debug)]
pub struct AfPacketPort {
    name: String,
    device: Device,
    socket: PacketSocket,
    counts: Arc<Counts>,
    gone: bool,
    /// Time of the next look after a link went down.
    probe_at_ns: Option<u64>,
    warned_at_ns: Option<u64>,
}

impl AfPacketPort {
    /// Opens an interface. Needs `CAP_NET_RAW`.
    pub fn open(ifname: &str) -> io::Result<Self> {
        let device = netdev::device(ifname)?;
        let socket = PacketSocket::open(device.index)?;
        Ok(Self::new(ifname, device, socket))
    }

    /// Opens an interface for several workers (at least 1): the kernel deals packets out by a hash of
    /// their addresses and ports, so that those of a flow and direction reach one worker. Not so for
    /// fragments, which have no ports.
    pub fn open_for(ifname: &str, workers: usize) -> io::Result<Vec<Self>> {
        let device = netdev::device(ifname)?;
        let mut ports: Vec<Self> = Vec::new();
        let mut group = None;
        for _ in 0..workers.max(1) {
            let socket = PacketSocket::open(device.index)?;
            if workers > 1 {
                group = Some(socket.join(group)?);
            }
            ports.push(Self::new(ifname, device, socket));
        }
        Ok(ports)
    }

    fn new(ifname: &str, device: Device, socket: PacketSocket) -> Self {
        Self {
            name: ifname.to_owned(),
            device,
            socket,
            counts: Arc::default(),
            gone: false,
            probe_at_ns: (!device.up).then_some(0),
            warned_at_ns: None,
        }
    }

    /// Name of its interface.
    pub fn interface(&self) -> &str {
        &self.name
    }

    /// Counters for control.
    pub(crate) fn observer(&self) -> Observer {
        Observer(Arc::clone(&self.counts))
    }

    /// What the interface is.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Losses so far.
    pub fn counters(&self) -> AfPacketCounters {
        let counts = &self.counts;
        AfPacketCounters {
            gso_dropped: read(&counts.gso_dropped),
            too_long: read(&counts.too_long),
            bad_offload: read(&counts.bad_offload),
            tx_too_long: read(&counts.tx_too_long),
            tx_refused: read(&counts.tx_refused),
        }
    }

    /// Makes a received frame what a wire would have carried; false when it is none.
    fn finish(&mut self, frame: &mut Frame, meta: &RxMeta) -> bool {
        if meta.vnet.gso_type != 0 {
            add(&self.counts.gso_dropped, 1);
            return false;
        }
        let tagged_len = meta.len + if meta.vlan.is_some() { 4 } else { 0 };
        if meta.truncated || !frame.set_len(meta.len) || tagged_len > nic_target::frame::MAX_FRAME {
            add(&self.counts.too_long, 1);
            return false;
        }
        if meta.vnet.flags & VNET_NEEDS_CSUM != 0
            && !checksum::complete(
                frame.data_mut(),
                meta.vnet.csum_start,
                meta.vnet.csum_offset,
            )
        {
            add(&self.counts.bad_offload, 1);
            return false;
        }
        if let Some((tpid, tci)) = meta.vlan {
            if meta.len < 12 || !frame.set_len(tagged_len) {
                add(&self.counts.bad_offload, 1);
                return false;
            }
            let data = frame.data_mut();
            data.copy_within(12..meta.len, 16);
            data[12..14].copy_from_slice(&tpid.to_be_bytes());
            data[14..16].copy_from_slice(&tci.to_be_bytes());
        }
        true
    }

    fn warn_gso(&mut self, now_ns: u64) {
        if self.warned_at_ns.is_some_and(|at| now_ns < at + SECOND_NS) {
            return;
        }
        self.warned_at_ns = Some(now_ns);
        warn!(
            interface = %self.name,
            gso_dropped = read(&self.counts.gso_dropped),
            "dropping segments larger than a frame: switch off tso, gso and gro on this interface and on its sender \
             (ethtool -K IF tso off gso off gro off)"
        );
    }

    /// After an error of the socket: is there anything left to receive from?
    fn look(&mut self, now_ns: u64) -> Rx {
        if self.socket.bound() {
            // Down, or about to be removed: the kernel says so only once, so look again later.
            self.probe_at_ns = Some(now_ns + PROBE_NS);
            return Rx::Received(0);
        }
        if !self.gone {
            warn!(interface = %self.name, "the interface is gone: nothing more will be received");
        }
        self.gone = true;
        Rx::End
    }
}

impl Port for AfPacketPort {
    fn name(&self) -> &str {
        &self.name
    }
    fn mac(&self) -> [u8; 6] {
        self.device.mac
    }
    fn mtu(&self) -> Option<u32> {
        Some(self.device.mtu)
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
        let gso_before = read(&self.counts.gso_dropped);
        burst.extend(std::iter::from_fn(|| pool.take()).take(max.min(BURST)));
        let mut meta = [RxMeta::default(); BURST];
        let spaces = burst.iter_mut().skip(first).map(Frame::space_mut);
        let result = self.socket.receive(spaces, &mut meta);
        let now_ns = sys::monotonic_ns();
        let received = *result.as_ref().unwrap_or(&0);
        let mut kept = first;
        for (i, meta) in meta.iter().enumerate().take(received) {
            // Kept frames move to the front; the others' buffers go back.
            burst.swap(kept, first + i);
            let Some(frame) = burst.get_mut(kept) else {
                break;
            };
            frame.port = index;
            frame.timestamp_ns = now_ns;
            kept += usize::from(self.finish(frame, meta));
        }
        while burst.len() > kept {
            burst.pop().into_iter().for_each(|frame| pool.give(frame));
        }
        let outcome = match result {
            Ok(_) => {
                self.probe_at_ns = None;
                Rx::Received(kept - first)
            }
            Err(e) => match e.raw_os_error() {
                Some(libc::EAGAIN) if self.probe_at_ns.is_some_and(|at| now_ns >= at) => {
                    self.look(now_ns)
                }
                Some(libc::EAGAIN | libc::EINTR) => Rx::Received(0),
                // The kernel has no virtio name for this kind of segment (UDP GSO, say): it dropped it.
                Some(libc::EINVAL) => {
                    add(&self.counts.gso_dropped, 1);
                    Rx::Received(0)
                }
                Some(libc::ENETDOWN | libc::ENODEV | libc::ENXIO) => self.look(now_ns),
                _ => return Err(e),
            },
        };
        if read(&self.counts.gso_dropped) > gso_before {
            self.warn_gso(now_ns);
        }
        Ok(outcome)
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        let mut tx = Tx::default();
        let mut at = 0;
        while let Some(rest) = frames.get(at..).filter(|rest| !rest.is_empty()) {
            match self.socket.send(rest.iter().map(Frame::data)) {
                Ok(sent) => {
                    // A call that sent nothing and gave no error would otherwise be asked forever.
                    tx.sent += sent;
                    let done = rest.iter().take(sent);
                    tx.octets += done.map(|frame| frame.len() as u64).sum::<u64>();
                    tx.dropped += usize::from(sent == 0);
                    at += sent.max(1);
                }
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EMSGSIZE) => {
                        add(&self.counts.tx_too_long, 1);
                        tx.dropped += 1;
                        at += 1;
                    }
                    // One frame's fault or a full queue: the next may go.
                    _ => {
                        add(&self.counts.tx_refused, 1);
                        tx.dropped += 1;
                        at += 1;
                    }
                },
            }
        }
        frames.drain(..).for_each(|frame| pool.give(frame));
        Ok(tx)
    }
    fn idle(&mut self) {
        self.socket.wait(Duration::from_millis(1));
    }
}
