//! Ports in memory: a test or an engine injects frames and collects what was sent through a
//! [`SimHandle`], from the same thread or another.
//!
//! Time is the frames' own: each carries the virtual time of its injection, and nothing here reads
//! a wall clock. With ports and handle driven from one thread, a run is a function of what was
//! injected and of the fault seed.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Duration;

use nic_target::frame::MAX_FRAME;
use nic_target::{Frame, FramePool, Port, Rx, Tx};
use thiserror::Error;

use crate::faults::{Faults, Injector};

/// What to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// Ports.
    pub ports: u16,
    /// Frames each ingress queue holds.
    pub ingress_queue: usize,
    /// Frames the egress queue, one for all ports, holds.
    pub egress_queue: usize,
    /// Longest frame that is sent, with its Ethernet header.
    pub max_frame: usize,
    /// Faults on ingress; port `n` uses seed `seed + n`.
    pub faults: Faults,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            ports: 1,
            ingress_queue: 1024,
            egress_queue: 4096,
            max_frame: MAX_FRAME,
            faults: Faults::default(),
        }
    }
}

/// A frame that a port sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Port it left by.
    pub port: u16,
    /// Virtual time it carried, ns.
    pub timestamp_ns: u64,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// Why a frame was not injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum InjectError {
    #[error("there is no port {port}; the ports are 0 to {last}")]
    NoPort { port: u16, last: u16 },
    #[error("a frame of {len} bytes is longer than {MAX_FRAME}")]
    TooLong { len: usize },
    #[error("ingress queue of port {port} is full: the frame was dropped and counted")]
    QueueFull { port: u16 },
    #[error("port {port} is closed")]
    Closed { port: u16 },
}

macro_rules! counters {
    ($($(#[$doc:meta])* $f:ident,)*) => {
        /// What happened at one port so far, frames.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct SimCounters { $($(#[$doc])* pub $f: u64,)* }

        #[derive(Debug, Default)]
        struct Cells { $($f: AtomicU64,)* }

        impl Cells {
            fn read(&self) -> SimCounters {
                SimCounters { $($f: self.$f.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Handed to a worker.
    received,
    /// Dropped: ingress queue full.
    ingress_full,
    /// Dropped on arrival: link down.
    ingress_link_down,
    /// Lost by fault.
    lost,
    /// Copies made by fault.
    duplicated,
    /// Held back by fault.
    reordered,
    /// With a bit flipped by fault.
    corrupted,
    /// Cut short by fault.
    truncated,
    /// Given to the egress queue.
    sent,
    /// Dropped: egress queue full, or nobody collects any more.
    egress_full,
    /// Dropped: longer than the port sends.
    too_long,
    /// Dropped: link down.
    egress_link_down,
}

fn bump(cell: &AtomicU64) {
    cell.fetch_add(1, Ordering::Relaxed);
}

#[derive(Debug)]
struct Shared {
    cells: Cells,
    link: AtomicBool,
}

#[derive(Debug)]
struct Arrival {
    timestamp_ns: u64,
    data: Vec<u8>,
}

/// One port of a simulated NIC.
#[derive(Debug)]
pub struct SimPort {
    name: String,
    mac: [u8; 6],
    number: u16,
    max_frame: usize,
    shared: Arc<Shared>,
    ingress: Receiver<Arrival>,
    egress: SyncSender<Sent>,
    injector: Injector,
    faulty: bool,
    /// Arrivals after faults, not yet received.
    ready: VecDeque<Arrival>,
    /// Held back until one more arrives.
    held: Option<Arrival>,
    /// Buffers of received frames, for the frames to send.
    spare: Vec<Vec<u8>>,
    spare_limit: usize,
}

/// The far side of all ports of a simulated NIC: injects and collects.
#[derive(Debug)]
pub struct SimHandle {
    ports: Vec<PortEnd>,
    egress: Receiver<Sent>,
    clock_ns: u64,
}

#[derive(Debug)]
struct PortEnd {
    ingress: Option<SyncSender<Arrival>>,
    shared: Arc<Shared>,
    mac: [u8; 6],
}

/// Builds the ports and their far side.
///
/// Port `n` is called `sim<n>` and has MAC `02:00:00:00:<n + 1 as two bytes>`, locally administered.
pub fn build(config: &SimConfig) -> (Vec<SimPort>, SimHandle) {
    let (egress_in, egress) = sync_channel(config.egress_queue);
    let (ports, ends) = (0..config.ports)
        .map(|number| {
            let (ingress_in, ingress) = sync_channel(config.ingress_queue);
            let shared = Arc::new(Shared {
                cells: Cells::default(),
                link: AtomicBool::new(true),
            });
            let [hi, lo] = number.wrapping_add(1).to_be_bytes();
            let mac = [2, 0, 0, 0, hi, lo];
            let faults = Faults {
                seed: config.faults.seed.wrapping_add(number.into()),
                ..config.faults
            };
            let port = SimPort {
                name: format!("sim{number}"),
                mac,
                number,
                max_frame: config.max_frame.min(MAX_FRAME),
                shared: shared.clone(),
                ingress,
                egress: egress_in.clone(),
                injector: Injector::new(faults),
                faulty: config.faults
                    != Faults {
                        seed: config.faults.seed,
                        ..Faults::default()
                    },
                ready: VecDeque::with_capacity(4),
                held: None,
                spare: Vec::with_capacity(config.ingress_queue),
                spare_limit: config.ingress_queue,
            };
            (
                port,
                PortEnd {
                    ingress: Some(ingress_in),
                    shared,
                    mac,
                },
            )
        })
        .unzip();
    (
        ports,
        SimHandle {
            ports: ends,
            egress,
            clock_ns: 0,
        },
    )
}

impl SimPort {
    /// Moves what has arrived to `ready`, through the faults. False when no more will come.
    fn admit(&mut self) -> bool {
        let open = loop {
            // A held frame takes part in `ready` only once another has overtaken it.
            if !self.ready.is_empty() {
                return true;
            }
            match self.ingress.try_recv() {
                Ok(arrival) => self.pass_faults(arrival),
                Err(TryRecvError::Empty) => break true,
                Err(TryRecvError::Disconnected) => break false,
            }
        };
        // Nothing follows for now: a frame must not be stuck behind one that never comes.
        match self.held.take() {
            Some(arrival) => {
                self.ready.push_back(arrival);
                true
            }
            None => open,
        }
    }

    fn pass_faults(&mut self, mut arrival: Arrival) {
        let cells = &self.shared.cells;
        if !self.shared.link.load(Ordering::Relaxed) {
            bump(&cells.ingress_link_down);
            return self.keep(arrival.data);
        }
        if !self.faulty {
            return self.ready.push_back(arrival);
        }
        let fate = self.injector.fate(arrival.data.len());
        if fate.lost {
            bump(&cells.lost);
            return self.keep(arrival.data);
        }
        if let Some(byte) = fate.flip.and_then(|bit| arrival.data.get_mut(bit / 8)) {
            *byte ^= 1 << (fate.flip.unwrap_or(0) % 8);
            bump(&cells.corrupted);
        }
        if let Some(end) = fate.cut {
            arrival.data.truncate(end);
            bump(&cells.truncated);
        }
        let copy = fate.duplicated.then(|| {
            bump(&cells.duplicated);
            Arrival {
                timestamp_ns: arrival.timestamp_ns,
                data: arrival.data.clone(),
            }
        });
        if fate.held && self.held.is_none() {
            bump(&cells.reordered);
            self.held = Some(arrival);
            self.ready.extend(copy);
            return;
        }
        self.ready.push_back(arrival);
        self.ready.extend(copy);
        if let Some(mut held) = self.held.take() {
            // Time does not run backwards on a wire: the late one arrives with its overtaker.
            held.timestamp_ns = self
                .ready
                .back()
                .map_or(held.timestamp_ns, |r| r.timestamp_ns);
            self.ready.push_back(held);
        }
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < self.spare_limit {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

impl Port for SimPort {
    fn name(&self) -> &str {
        &self.name
    }
    fn mac(&self) -> [u8; 6] {
        self.mac
    }
    fn rx(
        &mut self,
        index: u16,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx> {
        let mut received = 0;
        while received < max {
            let open = self.admit();
            if self.ready.is_empty() {
                return Ok(if received == 0 && !open {
                    Rx::End
                } else {
                    Rx::Received(received)
                });
            }
            let Some(mut frame) = pool.take() else { break };
            let Some(arrival) = self.ready.pop_front() else {
                break;
            };
            frame.port = index;
            frame.timestamp_ns = arrival.timestamp_ns;
            // Always fits: `inject` refuses longer ones and faults only shorten.
            frame.fill(&arrival.data);
            self.keep(arrival.data);
            burst.push(frame);
            bump(&self.shared.cells.received);
            received += 1;
        }
        Ok(Rx::Received(received))
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        let mut tx = Tx::default();
        let up = self.shared.link.load(Ordering::Relaxed);
        for frame in frames.drain(..) {
            let cells = &self.shared.cells;
            let octets = frame.len() as u64;
            let refused = if !up {
                Some(&cells.egress_link_down)
            } else if frame.data().len() > self.max_frame {
                Some(&cells.too_long)
            } else {
                let mut data = self.spare.pop().unwrap_or_default();
                data.extend_from_slice(frame.data());
                let sent = Sent {
                    port: self.number,
                    timestamp_ns: frame.timestamp_ns,
                    data,
                };
                match self.egress.try_send(sent) {
                    Ok(()) => None,
                    Err(TrySendError::Full(sent) | TrySendError::Disconnected(sent)) => {
                        let mut data = sent.data;
                        data.clear();
                        self.spare.push(data);
                        Some(&cells.egress_full)
                    }
                }
            };
            bump(refused.unwrap_or(&cells.sent));
            if refused.is_none() {
                tx.sent += 1;
                tx.octets += octets;
            }
            tx.dropped += usize::from(refused.is_some());
            pool.give(frame);
        }
        Ok(tx)
    }
    fn idle(&mut self) {
        // Lets the thread that injects run when both share a core; decides nothing.
        std::thread::yield_now();
    }
    fn virtual_time(&self) -> bool {
        true
    }
}

impl SimHandle {
    /// Number of ports.
    pub fn ports(&self) -> u16 {
        self.ports.len() as u16
    }
    /// MAC of a port.
    pub fn mac(&self, port: u16) -> Option<[u8; 6]> {
        Some(self.ports.get(usize::from(port))?.mac)
    }
    /// Virtual time of the next injection, ns.
    pub fn now_ns(&self) -> u64 {
        self.clock_ns
    }
    /// Lets virtual time pass.
    pub fn advance(&mut self, ns: u64) {
        self.clock_ns = self.clock_ns.saturating_add(ns);
    }
    /// Puts a frame on the wire of `port` now.
    pub fn inject(&mut self, port: u16, frame: &[u8]) -> Result<(), InjectError> {
        self.inject_at(port, self.clock_ns, frame)
    }
    /// Puts a frame on the wire of `port` at `timestamp_ns`, and moves the clock there if it is
    /// behind. A time before the clock counts as now.
    pub fn inject_at(
        &mut self,
        port: u16,
        timestamp_ns: u64,
        frame: &[u8],
    ) -> Result<(), InjectError> {
        let last = self.ports().saturating_sub(1);
        let end = self
            .ports
            .get(usize::from(port))
            .ok_or(InjectError::NoPort { port, last })?;
        if frame.len() > MAX_FRAME {
            return Err(InjectError::TooLong { len: frame.len() });
        }
        let ingress = end.ingress.as_ref().ok_or(InjectError::Closed { port })?;
        self.clock_ns = self.clock_ns.max(timestamp_ns);
        match ingress.try_send(Arrival {
            timestamp_ns: self.clock_ns,
            data: frame.to_vec(),
        }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                bump(&end.shared.cells.ingress_full);
                Err(InjectError::QueueFull { port })
            }
            Err(TrySendError::Disconnected(_)) => Err(InjectError::Closed { port }),
        }
    }
    /// The next sent frame, if one waits.
    pub fn collect(&mut self) -> Option<Sent> {
        self.egress.try_recv().ok()
    }
    /// The next sent frame, waiting up to `timeout` of real time for a worker on another thread;
    /// `None` then, or when all ports are gone.
    pub fn collect_within(&mut self, timeout: Duration) -> Option<Sent> {
        self.egress.recv_timeout(timeout).ok()
    }
    /// Takes a link down or up; frames that meet a link that is down are dropped and counted.
    /// False when there is no such port.
    pub fn set_link(&self, port: u16, up: bool) -> bool {
        let end = self.ports.get(usize::from(port));
        if let Some(end) = end {
            end.shared.link.store(up, Ordering::Relaxed);
        }
        end.is_some()
    }
    /// What happened at a port so far.
    pub fn counters(&self, port: u16) -> Option<SimCounters> {
        Some(self.ports.get(usize::from(port))?.shared.cells.read())
    }
    /// Ends ingress of every port: each reports [`Rx::End`] once drained. Collecting goes on.
    pub fn close(&mut self) {
        for end in &mut self.ports {
            end.ingress = None;
        }
    }
}
