//! The kernel's part on interfaces: programs attached, AF_XDP sockets for what goes up.
//!
//! On veth, packets that the kernel sends (back, or to another port) need a peer that takes them in
//! NAPI: `ethtool -K PEER gro on`, or an XDP program there. In SKB mode they do not.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use std::{fmt, io};

use nic_target::{Capacity, Frame, FramePool, Port, Rx, TargetError, Tx};
use thiserror::Error;

use crate::attach::Attached;
use crate::front::Front;
use crate::sys::{self, netdev};
use crate::upcall::{MARK_LEN, Mark};
use crate::xsk::{self, XdpError, XdpOptions, XdpPort};

/// Packets for control that wait at most.
const PUNTS: usize = 512;

/// Why the kernel's part was not set up. Nothing stays attached.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum LiveError {
    #[error(transparent)]
    Xdp(#[from] XdpError),
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// A packet that the kernel's stages left to control, counted and as they left it.
#[derive(Clone, PartialEq, Eq)]
pub struct KernelPunt {
    /// Port it came in on.
    pub port: u16,
    /// Clock at reception, ns.
    pub timestamp_ns: u64,
    /// The packet.
    pub data: Vec<u8>,
}

impl fmt::Debug for KernelPunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KernelPunt({}, {} bytes)", self.port, self.data.len())
    }
}

/// The kernel on interfaces, before a core is behind it.
#[derive(Debug)]
pub struct Live {
    /// For control.
    pub kernel: KernelFront,
    /// What goes up, by port: for one worker.
    pub ports: Vec<KernelPort>,
}

/// What control has of the kernel on interfaces.
#[derive(Debug)]
pub struct KernelFront {
    /// Maps, rows, programs: makes a target of the core with [`Fronted`](crate::Fronted).
    pub front: Front,
    /// What is for control.
    pub punts: Receiver<KernelPunt>,
    /// Zero of the kernel's clock: the worker's must have the same.
    pub zero: Instant,
}

impl Live {
    /// Attaches to interfaces; without code, every packet is dropped.
    ///
    /// # Errors
    /// An interface is not there or taken, or the kernel refuses something.
    pub fn open(
        interfaces: &[String],
        capacity: &Capacity,
        options: &XdpOptions,
    ) -> Result<Self, LiveError> {
        let indices = interfaces
            .iter()
            .map(|name| match netdev::device(name) {
                Ok(device) => Ok(device.index),
                Err(source) => Err(XdpError::Interface {
                    interface: name.clone(),
                    source,
                }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let front = Front::live(capacity, indices)?;
        let (mut port, mut failed) = (0, None);
        let ports = xsk::open_with(interfaces, 1, options, |name, sockets| {
            if let Err(error) = front.send_up(port, sockets) {
                let source = io::Error::other(error.to_string());
                failed = Some(error);
                let interface = name.to_owned();
                return Err(XdpError::Interface { interface, source });
            }
            port += 1;
            let program = front.port_program().ok_or_else(|| XdpError::Interface {
                interface: name.to_owned(),
                source: io::Error::other("no program to attach"),
            })?;
            Ok(Attached::attach(program, name, options.attach)?)
        });
        let ports = match (ports, failed) {
            (Err(_), Some(error)) => return Err(error.into()),
            (ports, _) => ports?,
        };
        let (sender, punts) = sync_channel(PUNTS);
        let ports = ports.into_iter().flatten().map(|port| KernelPort {
            port,
            punts: sender.clone(),
        });
        let ports = ports.collect();
        let since_zero = Duration::from_nanos(sys::monotonic_ns());
        let zero = Instant::now()
            .checked_sub(since_zero)
            .ok_or_else(|| TargetError::Os {
                what: "the monotonic clock has no zero".to_owned(),
                source: io::ErrorKind::Unsupported.into(),
            })?;
        let kernel = KernelFront { front, punts, zero };
        Ok(Self { kernel, ports })
    }
}

/// What comes up from one interface, and the way out of it.
#[derive(Debug)]
pub struct KernelPort {
    port: XdpPort,
    punts: SyncSender<KernelPunt>,
}

impl KernelPort {
    /// The sockets.
    pub fn sockets(&self) -> &XdpPort {
        &self.port
    }

    /// True when a frame is control's, and has gone there. A frame without a mark was copied on its
    /// way; it runs through the whole pipeline, which finds out what it is.
    fn is_punt(&self, frame: &mut Frame) -> bool {
        let (buffer, start, _) = frame.parts_mut();
        let mark = buffer.get(..start).and_then(|front| front.last_chunk());
        if mark.and_then(|bytes: &[u8; MARK_LEN]| Mark::of(*bytes)) != Some(Mark::Punt) {
            return false;
        }
        // Full: control has enough to do, and whoever asks asks again.
        let _ = self.punts.try_send(KernelPunt {
            port: frame.port,
            timestamp_ns: frame.timestamp_ns,
            data: frame.data().to_vec(),
        });
        true
    }
}

impl Port for KernelPort {
    fn name(&self) -> &str {
        self.port.name()
    }
    fn mac(&self) -> [u8; 6] {
        self.port.mac()
    }
    fn mtu(&self) -> Option<u32> {
        self.port.mtu()
    }
    fn start(&mut self) -> io::Result<()> {
        self.port.start()
    }
    fn rx(
        &mut self,
        index: u16,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx> {
        let first = burst.len();
        let rx = self.port.rx(index, pool, burst, max)?;
        let mut at = first;
        while let Some(frame) = burst.get_mut(at) {
            if self.is_punt(frame) {
                pool.give(burst.remove(at));
            } else {
                at += 1;
            }
        }
        Ok(match rx {
            Rx::Received(_) => Rx::Received(burst.len() - first),
            Rx::End => Rx::End,
        })
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        self.port.tx(pool, frames)
    }
    fn idle(&mut self) {
        self.port.idle();
    }
}
