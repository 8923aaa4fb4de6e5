//! From interfaces to ports: memory, sockets, program.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dash_bpf::builder::{R1, R2, R3};
use dash_bpf::helper::{self, XdpAction, xdp_md};
use dash_bpf::map::{MapDef, MapKind};
use dash_bpf::{Builder, ProgramKind, Size};
use thiserror::Error;
use tracing::info;

use super::port::XdpPort;
use crate::attach::{AttachError, AttachMode, Attached};
use crate::loader::{self, LoadError};
use crate::sys::bpf::{self, Map, Program};
use crate::sys::umem::{CAPACITY, CHUNK, Umem};
use crate::sys::xsk::{CopyMode, Setup, Xsk};
use crate::sys::{self, ethtool, netdev};

/// Bytes of an Ethernet header and a VLAN tag, which the MTU does not count.
pub(super) const LINK_HEADER: usize = 18;

/// How often a queue that is in use is asked for again, and after how long.
const BUSY_ATTEMPTS: u32 = 50;
const BUSY_WAIT: Duration = Duration::from_millis(20);

/// How ports are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpOptions {
    /// How packets get into the shared memory and out of it.
    pub mode: CopyMode,
    /// Where the redirecting program runs.
    pub attach: AttachMode,
    /// Poll the device from the worker instead of by interrupt, for at most this many µs a call. Works
    /// fully where the device's `napi_defer_hard_irqs` and `gro_flush_timeout` are set too.
    pub busy_poll: Option<u32>,
    /// Chunks of memory (4 KiB each) for each queue: a power of two of at least [`MIN_FRAMES`](Self::MIN_FRAMES).
    pub frames: u32,
}

impl XdpOptions {
    /// Least value of `frames`.
    pub const MIN_FRAMES: u32 = 128;
    /// Most chunks of a queue: 1 GiB.
    pub const MAX_FRAMES: u32 = 1 << 18;
}

impl Default for XdpOptions {
    fn default() -> Self {
        Self {
            mode: CopyMode::Auto,
            attach: AttachMode::Auto,
            busy_poll: None,
            frames: 4096,
        }
    }
}

/// Why ports were not opened. Nothing stays open, no program stays attached.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum XdpError {
    #[error("interface {interface}: {source}")]
    Interface {
        interface: String,
        source: io::Error,
    },
    #[error(
        "interface {interface} has {has} receive queue(s), and {wanted} workers need one each: \
             use --workers {has}, or give it more (ethtool -L {interface} combined {wanted})"
    )]
    Queues {
        interface: String,
        has: usize,
        wanted: usize,
    },
    #[error(
        "frames={frames} is not a power of two from {} to {}",
        XdpOptions::MIN_FRAMES,
        XdpOptions::MAX_FRAMES
    )]
    Frames { frames: u32 },
    #[error("AF_XDP needs root, or CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF")]
    Permission,
    #[error("this kernel has no AF_XDP (CONFIG_XDP_SOCKETS): use afpacket:")]
    NoAfXdp,
    #[error(
        "{bytes} bytes of packet memory cannot be locked: raise the limit (ulimit -l), give CAP_IPC_LOCK, \
             or ask for fewer frames: {source}"
    )]
    Memory { bytes: u64, source: io::Error },
    #[error("interface {interface}: queue {queue} is in use by another AF_XDP socket")]
    QueueInUse { interface: String, queue: u32 },
    #[error(
        "interface {interface}: its driver has no zero-copy AF_XDP ({source}): use mode=auto or mode=copy"
    )]
    NoZeroCopy {
        interface: String,
        source: io::Error,
    },
    #[error(
        "interface {interface}: its MTU of {mtu} makes packets longer than the {CAPACITY} bytes that a chunk holds, \
             and this kernel or driver has no packets of several chunks ({source}): set an MTU of at most {longest}"
    )]
    Mtu {
        interface: String,
        mtu: u32,
        longest: usize,
        source: io::Error,
    },
    #[error("interface {interface}: an AF_XDP socket on queue {queue}: {source}")]
    Socket {
        interface: String,
        queue: u32,
        source: io::Error,
    },
    #[error("interface {interface}: the map of its sockets: {source}")]
    Map {
        interface: String,
        source: Box<LoadError>,
    },
    #[error("interface {interface}: queue {queue} into the map of its sockets: {source}")]
    Register {
        interface: String,
        queue: u32,
        source: io::Error,
    },
    #[error("the redirecting program: {0}")]
    Build(#[from] dash_bpf::builder::BuildError),
    #[error(transparent)]
    Program(#[from] bpf::LoadError),
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// An interface whose sockets are being opened.
struct Interface {
    name: String,
    device: netdev::Device,
    queues: u32,
}

/// Opens all queues of `interfaces` for `workers` workers (at least 1), with a program that sends every
/// packet to them. Gives ports by worker, then by interface.
pub fn open(
    interfaces: &[String],
    workers: usize,
    options: &XdpOptions,
) -> Result<Vec<Vec<XdpPort>>, XdpError> {
    open_with(interfaces, workers, options, |interface, sockets| {
        Ok(Attached::attach(
            &redirect(sockets)?,
            interface,
            options.attach,
        )?)
    })
}

/// Like [`open`], with a program of the caller's: `attach` gets each interface and its XSKMAP, from
/// receive queue to socket, and what it attached stays on as long as a port of that interface lives.
pub fn open_with(
    interfaces: &[String],
    workers: usize,
    options: &XdpOptions,
    mut attach: impl FnMut(&str, &Map) -> Result<Attached, XdpError>,
) -> Result<Vec<Vec<XdpPort>>, XdpError> {
    let workers = workers.max(1);
    if !options.frames.is_power_of_two()
        || !(XdpOptions::MIN_FRAMES..=XdpOptions::MAX_FRAMES).contains(&options.frames)
    {
        let frames = options.frames;
        return Err(XdpError::Frames { frames });
    }
    let interfaces = interfaces
        .iter()
        .map(|name| look_up(name, workers))
        .collect::<Result<Vec<_>, _>>()?;
    sys::raise_memlock();
    let chunks = interfaces
        .iter()
        .map(|i| i.queues)
        .fold(0u32, u32::saturating_add)
        .saturating_mul(options.frames);
    let umem = Umem::new(chunks).map_err(|source| XdpError::Memory {
        bytes: u64::from(chunks) * CHUNK as u64,
        source,
    })?;
    let sockets = match sockets(&interfaces, &umem, options, options.mode) {
        // The first device can do without copies and another cannot: memory is shared, so all copy.
        Err(Refused { first: false, .. }) if options.mode == CopyMode::Auto => {
            sockets(&interfaces, &umem, options, CopyMode::Copy)
        }
        other => other,
    }
    .map_err(|refused| refused.error)?;

    let mut ports = (0..workers).map(|_| Vec::new()).collect::<Vec<_>>();
    for (interface, sockets) in interfaces.into_iter().zip(sockets) {
        let map = socket_map(&interface, &sockets)?;
        let attached = Arc::new(attach(&interface.name, &map)?);
        info!(
            interface = %interface.name,
            queues = interface.queues,
            native = attached.is_native(),
            zero_copy = sockets.first().is_some_and(Xsk::zero_copy),
            "AF_XDP"
        );
        let mut shares = (0..workers).map(|_| Vec::new()).collect::<Vec<_>>();
        for (queue, socket) in sockets.into_iter().enumerate() {
            shares[queue % workers].push(socket);
        }
        for (ports, share) in ports.iter_mut().zip(shares) {
            let port = XdpPort::new(
                &interface.name,
                interface.device,
                share,
                umem.clone(),
                Arc::clone(&attached),
                options,
            );
            ports.push(port);
        }
    }
    Ok(ports)
}

fn look_up(name: &str, workers: usize) -> Result<Interface, XdpError> {
    let fail = |source| XdpError::Interface {
        interface: name.to_owned(),
        source,
    };
    let device = netdev::device(name).map_err(fail)?;
    let queues = ethtool::rx_queues(name).map_err(fail)?;
    if (queues as usize) < workers {
        return Err(XdpError::Queues {
            interface: name.to_owned(),
            has: queues as usize,
            wanted: workers,
        });
    }
    Ok(Interface {
        name: name.to_owned(),
        device,
        queues,
    })
}

/// A socket that was not opened.
struct Refused {
    error: XdpError,
    /// It was the first, on which the others' mode depends.
    first: bool,
}

/// One socket for each queue, by interface.
fn sockets(
    interfaces: &[Interface],
    umem: &Umem,
    options: &XdpOptions,
    mode: CopyMode,
) -> Result<Vec<Vec<Xsk>>, Refused> {
    let long = |i: &&Interface| i.device.mtu as usize + LINK_HEADER > CAPACITY;
    let long = interfaces.iter().find(long);
    let mut all: Vec<Vec<Xsk>> = Vec::new();
    for interface in interfaces {
        let mut sockets = Vec::new();
        for queue in 0..interface.queues {
            let sharing = all.iter().flatten().chain(&sockets).next();
            let setup = Setup {
                ifindex: interface.device.index,
                queue,
                ring: options.frames / 2,
                mode,
                multi_buffer: long.is_some(),
                busy_poll: options.busy_poll,
            };
            let socket = open_socket(umem, sharing, &setup).map_err(|source| Refused {
                error: explain(interface, &setup, long, umem, source),
                first: sharing.is_none(),
            })?;
            sockets.push(socket);
        }
        all.push(sockets);
    }
    Ok(all)
}

/// Opens a socket, also where another is just being closed: the kernel lets a queue go from a work
/// queue, some time after the descriptor.
fn open_socket(umem: &Umem, sharing: Option<&Xsk>, setup: &Setup) -> io::Result<Xsk> {
    let mut attempts = 0;
    loop {
        match Xsk::open(umem, sharing, setup) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && attempts < BUSY_ATTEMPTS => {
                attempts += 1;
                std::thread::sleep(BUSY_WAIT);
            }
            other => return other,
        }
    }
}

fn explain(
    at: &Interface,
    setup: &Setup,
    long: Option<&Interface>,
    umem: &Umem,
    source: io::Error,
) -> XdpError {
    let (interface, queue) = (at.name.clone(), setup.queue);
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => XdpError::Permission,
        Some(libc::EAFNOSUPPORT) => XdpError::NoAfXdp,
        Some(libc::ENOBUFS | libc::ENOMEM) => XdpError::Memory {
            bytes: umem.chunks() as u64 * CHUNK as u64,
            source,
        },
        Some(libc::EBUSY) => XdpError::QueueInUse { interface, queue },
        Some(libc::EOPNOTSUPP | libc::EINVAL) => match (long, setup.mode) {
            (Some(long), _) => XdpError::Mtu {
                interface: long.name.clone(),
                mtu: long.device.mtu,
                longest: CAPACITY - LINK_HEADER,
                source,
            },
            (None, CopyMode::ZeroCopy) => XdpError::NoZeroCopy { interface, source },
            _ => XdpError::Socket {
                interface,
                queue,
                source,
            },
        },
        _ => XdpError::Socket {
            interface,
            queue,
            source,
        },
    }
}

/// The XSKMAP of an interface: receive queue to socket.
fn socket_map(interface: &Interface, sockets: &[Xsk]) -> Result<Map, XdpError> {
    let def = MapDef {
        name: "sockets".to_owned(),
        kind: MapKind::XskMap,
        key_size: 4,
        value_size: 4,
        max_entries: interface.queues,
        flags: 0,
        ..MapDef::default()
    };
    let map = loader::create_map(&def).map_err(|source| XdpError::Map {
        interface: interface.name.clone(),
        source: Box::new(source),
    })?;
    for (queue, socket) in (0u32..).zip(sockets) {
        map.update(&queue.to_ne_bytes(), &socket.fd().to_ne_bytes())
            .map_err(|source| XdpError::Register {
                interface: interface.name.clone(),
                queue,
                source,
            })?;
    }
    Ok(map)
}

/// A program that sends every packet to its queue's socket in an XSKMAP, and to the kernel where there
/// is none.
pub fn redirect(sockets: &Map) -> Result<Program, XdpError> {
    let mut b = Builder::new();
    b.load(Size::W, R2, R1, xdp_md::RX_QUEUE_INDEX);
    // The loader takes a descriptor where an object has the map's index.
    b.load_map(R1, sockets.fd() as u32);
    b.mov(R3, XdpAction::Pass as i32);
    b.call(helper::REDIRECT_MAP);
    b.exit();
    let insns = b.finish()?;
    let load = |load: fn(&str, ProgramKind, &[dash_bpf::Insn]) -> _| {
        load("dashwire_to_xsk", ProgramKind::Xdp, &insns)
    };
    // Before 5.18 no program took fragments; no interface then has packets that need it.
    Ok(load(Program::load_frags).or_else(|_| load(Program::load))?)
}
