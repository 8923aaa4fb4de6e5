//! Ports over DPDK queues.
//!
//! ```text
//!  Eal::init(args) --> open(&eal, &config) --> (DpdkDevice, [DpdkPort; queues]) by device
//!                                                 control        workers
//! ```
//!
//! * [`eal`]: DPDK's environment, once a process.
//! * [`open()`]: pools, configuration of queues and RSS, start.
//! * [`port`]: a queue pair: mbufs are lent as frames, and frames' mbufs are sent, without a copy.
//! * [`device`]: name, link, statistics; stops and closes when its last user is gone.
//! * `pool`: mbufs, which outlive their device for as long as a frame holds one.
//! * `log`: what DPDK says, kept for error messages.
//!
//! Unsafe code is what calls `dpdk-sys`; everything public is safe.

#![expect(unsafe_code, reason = "calls of a C library, each with its proof")]

pub mod device;
pub mod eal;
mod log;
pub mod open;
mod pool;
pub mod port;

pub use device::DpdkDevice;
pub use eal::Eal;
pub use open::{Config, open};
pub use port::DpdkPort;

use std::io;

use thiserror::Error;

/// Bytes in front of a received packet: for encaps of up to as many. Fixed when DPDK was built.
pub const HEADROOM: usize = dpdk_sys::DASH_HEADROOM as usize;

// What the pipeline pushes at most: Ethernet, IPv6, UDP and VXLAN in front of what was received.
const _: () = assert!(HEADROOM >= 14 + 40 + 8 + 8);

/// Why there is no port.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum Error {
    #[error("DPDK's EAL starts once in a process, and this one has started it before")]
    Again,
    #[error("EAL argument {argument:?} contains a zero byte")]
    Argument { argument: String },
    #[error("EAL refuses `{arguments}`: {reason}{hint}")]
    Eal {
        arguments: String,
        reason: String,
        hint: &'static str,
    },
    #[error("EAL made no Ethernet device of {device}: {reason}")]
    NoDevice { device: String, reason: String },
    #[error(
        "EAL found no Ethernet device: name one (--vdev net_tap0, -a 0000:01:00.0), and bind PCI devices to a driver \
         of DPDK first (dpdk-devbind.py --status tells)"
    )]
    NoDevices,
    #[error("ports={port}: there is no such device; there are: {existing}")]
    NoPort { port: String, existing: String },
    #[error("{device} has {has} queue pair(s) of {wanted}")]
    Queues {
        device: String,
        has: usize,
        wanted: usize,
    },
    #[error(
        "{device} carries frames of at most {most} bytes payload: mtu={wanted} is not possible"
    )]
    Mtu {
        device: String,
        most: u32,
        wanted: u16,
    },
    #[error(
        "no memory for {buffers} packet buffers of {bytes} bytes ({megabytes} MB): give EAL more (-m MB, or huge \
         pages), or ask for less (mbufs=N, mtu=N){reason}"
    )]
    Pool {
        buffers: u32,
        bytes: u32,
        megabytes: u64,
        reason: String,
    },
    #[error("{device}: {step}: {source}{reason}")]
    Device {
        device: String,
        step: &'static str,
        source: io::Error,
        reason: String,
    },
}
