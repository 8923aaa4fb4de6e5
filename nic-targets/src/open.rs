//! From a [`TargetSpec`] to ports.

use std::io;

use nic_linux::live::LiveError;
use nic_linux::sys::netdev;
use nic_linux::{AfPacketPort, KernelFront, KernelPort, LinuxDevice, Live, XdpError, XdpPort, xsk};
use nic_sim::port::{SimConfig, SimHandle, SimPort, build};
use nic_sim::{CaptureError, PcapPort};
use nic_target::{Capacity, Device, Frame, FramePool, Port, Rx, TargetError, Tx};
use thiserror::Error;

use crate::spec::TargetSpec;

/// A port of any kind: one worker loop, one match a burst.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the port it holds")]
pub enum AnyPort {
    Sim(SimPort),
    Pcap(PcapPort),
    AfPacket(AfPacketPort),
    #[cfg(feature = "dpdk")]
    Dpdk(Box<nic_dpdk::DpdkPort>),
    Xdp(XdpPort),
    Kernel(KernelPort),
}

macro_rules! each {
    ($self:expr, $port:ident => $call:expr) => {
        match $self {
            AnyPort::Sim($port) => $call,
            AnyPort::Pcap($port) => $call,
            AnyPort::AfPacket($port) => $call,
            #[cfg(feature = "dpdk")]
            AnyPort::Dpdk($port) => $call,
            AnyPort::Xdp($port) => $call,
            AnyPort::Kernel($port) => $call,
        }
    };
}

impl Port for AnyPort {
    fn name(&self) -> &str {
        each!(self, p => p.name())
    }
    fn mac(&self) -> [u8; 6] {
        each!(self, p => p.mac())
    }
    fn mtu(&self) -> Option<u32> {
        each!(self, p => p.mtu())
    }
    fn rx(
        &mut self,
        index: u16,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx> {
        each!(self, p => p.rx(index, pool, burst, max))
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        each!(self, p => p.tx(pool, frames))
    }
    fn start(&mut self) -> io::Result<()> {
        each!(self, p => p.start())
    }
    fn idle(&mut self) {
        each!(self, p => p.idle());
    }
    fn virtual_time(&self) -> bool {
        each!(self, p => p.virtual_time())
    }
}

impl AnyPort {
    /// Writes out what is buffered, so that a full disk is heard of; only captures buffer.
    pub fn finish(&mut self) -> Result<(), CaptureError> {
        match self {
            Self::Pcap(port) => port.finish(),
            Self::Sim(_) | Self::AfPacket(_) | Self::Xdp(_) | Self::Kernel(_) => Ok(()),
            #[cfg(feature = "dpdk")]
            Self::Dpdk(_) => Ok(()),
        }
    }
}

/// A target that is open.
pub struct Opened {
    /// By worker, then by port: worker `w` has queue `w` of every port.
    pub ports: Vec<Vec<AnyPort>>,
    /// What control sees of them, by port; empty for ports without a device (captures, simulation).
    pub devices: Vec<Box<dyn Device>>,
    /// The far side of a `sim:` target.
    pub sim: Option<SimHandle>,
    /// The kernel's part of a `kernel:` target: the core that gets the ports shares its flows.
    pub kernel: Option<KernelFront>,
}

/// Why a target did not open. Nothing stays open.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum OpenError {
    #[error("{device} has {has} queue(s), and {wanted} workers need one each: use --workers {has}")]
    Queues {
        device: String,
        has: usize,
        wanted: usize,
    },
    #[error(
        "kernel: has one worker for what the kernel does not do itself, not {wanted}: use --workers 1"
    )]
    KernelWorkers { wanted: usize },
    #[error("the kernel's part: {0}")]
    Kernel(TargetError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error("interface {interface} does not exist; there are: {existing}")]
    NoInterface { interface: String, existing: String },
    #[error("interface {interface}: a raw socket needs root or CAP_NET_RAW")]
    Permission { interface: String },
    #[error("interface {interface}: {source}")]
    Interface {
        interface: String,
        source: io::Error,
    },
    #[error(transparent)]
    Xdp(#[from] XdpError),
    #[cfg(feature = "dpdk")]
    #[error(transparent)]
    Dpdk(nic_dpdk::Error),
    #[cfg(not(feature = "dpdk"))]
    #[error(
        "this program was built without DPDK: build it with --features dpdk (needs libdpdk-dev)"
    )]
    WithoutDpdk,
}

#[cfg(feature = "dpdk")]
impl From<nic_dpdk::Error> for OpenError {
    fn from(error: nic_dpdk::Error) -> Self {
        match error {
            nic_dpdk::Error::Queues {
                device,
                has,
                wanted,
            } => Self::Queues {
                device,
                has,
                wanted,
            },
            error => Self::Dpdk(error),
        }
    }
}

/// Opens what a spec names, with a queue of every port for each of `workers` workers (at least 1).
/// The kernel's tables get `capacity`; others have none.
pub fn open(spec: &TargetSpec, workers: usize, capacity: &Capacity) -> Result<Opened, OpenError> {
    if workers > 1 && matches!(spec, TargetSpec::Sim { .. } | TargetSpec::Pcap { .. }) {
        return Err(OpenError::Queues {
            device: spec.to_string(),
            has: 1,
            wanted: workers,
        });
    }
    let single = |ports| Opened {
        ports: vec![ports],
        devices: Vec::new(),
        sim: None,
        kernel: None,
    };
    match spec {
        TargetSpec::Sim { ports } => {
            let (ports, handle) = build(&SimConfig {
                ports: *ports,
                ..SimConfig::default()
            });
            Ok(Opened {
                sim: Some(handle),
                ..single(ports.into_iter().map(AnyPort::Sim).collect())
            })
        }
        TargetSpec::Pcap { input, output } => {
            let port = PcapPort::open(input.as_deref(), output.as_deref())?;
            Ok(single(vec![AnyPort::Pcap(port)]))
        }
        TargetSpec::AfPacket { interfaces } => {
            let by_port = interfaces.iter().map(|name| afpacket(name, workers));
            let by_port = by_port.collect::<Result<Vec<_>, _>>()?;
            let devices = by_port.iter().filter_map(LinuxDevice::of_afpacket);
            Ok(Opened {
                devices: devices.map(|device| Box::new(device) as _).collect(),
                ports: by_worker(by_port, workers, AnyPort::AfPacket),
                sim: None,
                kernel: None,
            })
        }
        TargetSpec::Xdp {
            interfaces,
            options,
        } => {
            let ports = xsk::open(interfaces, workers, options).map_err(explain)?;
            let device = |at| LinuxDevice::of_xdp(ports.iter().filter_map(|w| w.get(at)));
            let devices = (0..interfaces.len()).filter_map(device);
            Ok(Opened {
                devices: devices.map(|device| Box::new(device) as _).collect(),
                ports: ports
                    .into_iter()
                    .map(|ports| ports.into_iter().map(AnyPort::Xdp).collect())
                    .collect(),
                sim: None,
                kernel: None,
            })
        }
        TargetSpec::Kernel {
            interfaces,
            options,
        } => {
            if workers > 1 {
                return Err(OpenError::KernelWorkers { wanted: workers });
            }
            let Live { kernel, ports } =
                Live::open(interfaces, capacity, options).map_err(|error| match error {
                    LiveError::Xdp(error) => explain(error),
                    LiveError::Target(error) => OpenError::Kernel(error),
                })?;
            let devices = ports
                .iter()
                .filter_map(|port| LinuxDevice::of_xdp([port.sockets()]));
            Ok(Opened {
                devices: devices.map(|device| Box::new(device) as _).collect(),
                kernel: Some(kernel),
                ..single(ports.into_iter().map(AnyPort::Kernel).collect())
            })
        }
        TargetSpec::Dpdk(spec) => dpdk(spec, workers),
    }
}

#[cfg(not(feature = "dpdk"))]
fn dpdk(_: &crate::DpdkSpec, _: usize) -> Result<Opened, OpenError> {
    Err(OpenError::WithoutDpdk)
}

#[cfg(feature = "dpdk")]
fn dpdk(spec: &crate::DpdkSpec, workers: usize) -> Result<Opened, OpenError> {
    let workers = workers.max(1);
    let config = nic_dpdk::Config {
        // More than fit are more than any device has.
        queues: u16::try_from(workers).unwrap_or(u16::MAX),
        ports: spec.ports.clone(),
        mtu: spec.mtu,
        mbufs: spec.mbufs,
    };
    let eal = nic_dpdk::Eal::init(&spec.eal)?;
    let mut opened = Opened {
        ports: (0..workers).map(|_| Vec::new()).collect(),
        devices: Vec::new(),
        sim: None,
        kernel: None,
    };
    for (device, queues) in nic_dpdk::open(&eal, &config)? {
        opened.devices.push(Box::new(device));
        for (worker, queue) in opened.ports.iter_mut().zip(queues) {
            worker.push(AnyPort::Dpdk(Box::new(queue)));
        }
    }
    Ok(opened)
}

/// Ports by port, then by worker, the other way round.
fn by_worker<P>(
    by_port: Vec<Vec<P>>,
    workers: usize,
    any: impl Fn(P) -> AnyPort,
) -> Vec<Vec<AnyPort>> {
    let mut by_worker = (0..workers.max(1)).map(|_| Vec::new()).collect::<Vec<_>>();
    for ports in by_port {
        for (worker, port) in by_worker.iter_mut().zip(ports) {
            worker.push(any(port));
        }
    }
    by_worker
}

fn afpacket(name: &str, workers: usize) -> Result<Vec<AfPacketPort>, OpenError> {
    let interface = name.to_owned();
    AfPacketPort::open_for(name, workers).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => OpenError::Permission { interface },
        _ => missing(interface, source),
    })
}

fn explain(error: XdpError) -> OpenError {
    match error {
        XdpError::Interface { interface, source } => missing(interface, source),
        other => other.into(),
    }
}

/// An interface that was not found, or why else it did not open.
fn missing(interface: String, source: io::Error) -> OpenError {
    match netdev::names() {
        Ok(names) if !names.contains(&interface) => OpenError::NoInterface {
            interface,
            existing: names.join(", "),
        },
        _ => OpenError::Interface { interface, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sim_carries_a_frame_in_and_out_through_any_port() {
        let Opened { mut ports, sim, .. } =
            open(&"sim:ports=2".parse().unwrap(), 1, &Capacity::default()).unwrap();
        let mut ports = ports.remove(0);
        let mut sim = sim.expect("sim: has a far side");
        assert_eq!(
            ports
                .iter()
                .map(|p| p.name().to_owned())
                .collect::<Vec<_>>(),
            ["sim0", "sim1"]
        );
        let (mut pool, mut burst) = (FramePool::new(4), Vec::new());
        sim.inject_at(0, 5, b"a frame of sixteen").unwrap();
        assert_eq!(
            ports[0].rx(0, &mut pool, &mut burst, 4).unwrap(),
            Rx::Received(1)
        );
        assert_eq!(
            ports[1].tx(&mut pool, &mut burst).unwrap(),
            Tx {
                sent: 1,
                octets: 18,
                dropped: 0
            }
        );
        let sent = sim.collect().unwrap();
        assert_eq!(
            (sent.port, sent.timestamp_ns, sent.data.as_slice()),
            (1, 5, b"a frame of sixteen".as_slice())
        );
        assert!(ports[0].virtual_time());
    }

    #[test]
    fn a_missing_capture_is_named_and_no_output_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("no.pcap"), dir.path().join("out.pcap"));
        let spec = TargetSpec::Pcap {
            input: Some(input.clone()),
            output: Some(output.clone()),
        };
        let message = open(&spec, 1, &Capacity::default())
            .err()
            .unwrap()
            .to_string();
        assert!(
            message.starts_with(&input.display().to_string()),
            "{message}"
        );
        assert!(!output.exists());
    }

    #[cfg(not(feature = "dpdk"))]
    #[test]
    fn without_dpdk_its_targets_are_refused_with_what_to_do() {
        let spec: TargetSpec = "dpdk:--no-pci --vdev net_null0".parse().unwrap();
        let message = open(&spec, 2, &Capacity::default())
            .err()
            .unwrap()
            .to_string();
        assert!(message.contains("--features dpdk"), "{message}");
    }

    #[test]
    fn the_kernel_refuses_workers_before_it_looks_for_interfaces() {
        let spec = "kernel:no-such-if".parse().unwrap();
        let message = open(&spec, 2, &Capacity::default())
            .err()
            .unwrap()
            .to_string();
        assert!(message.contains("has one worker"), "{message}");
        assert!(message.contains("not 2"), "{message}");
    }

    #[test]
    fn a_missing_interface_is_answered_with_those_that_exist() {
        for spec in ["afpacket:no-such-if", "xdp:no-such-if", "kernel:no-such-if"] {
            let spec = spec.parse().unwrap();
            let opened = open(&spec, 1, &Capacity::default());
            let message = opened.err().unwrap().to_string();
            assert!(
                message.contains("no-such-if does not exist; there are:"),
                "{message}"
            );
            // Every network namespace has a loopback device.
            assert!(message.contains("lo"), "{message}");
        }
    }
}
