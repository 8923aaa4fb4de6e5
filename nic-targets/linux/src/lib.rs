//! Linux as a target: raw sockets ([`afpacket`]) and AF_XDP sockets ([`xsk`]) on network interfaces
//! as ports; the kernel's own eBPF in front of a user-space core ([`front`], over [`loader`] and
//! [`rewrite`]), that on interfaces ([`live`]) and as an
//! executor of single packets ([`kernel`]); XDP programs on interfaces
//! ([`attach`]). [`device`] is what control sees of an interface.
//!
//! All `unsafe` is in [`sys`]: system calls behind safe types.

#![deny(unsafe_code)]

pub mod afpacket;
pub mod attach;
mod checksum;
mod counts;
pub mod device;
pub mod front;
pub mod kernel;
pub mod live;
pub mod loader;
pub mod rewrite;
mod rows;
pub mod sys;
mod upcall;
pub mod xsk;

pub use afpacket::AfPacketPort;
pub use attach::{AttachError, AttachMode, Attached};
pub use device::LinuxDevice;
pub use front::{Front, Fronted};
pub use kernel::KernelEngine;
pub use live::{KernelFront, KernelPort, KernelPunt, Live};
pub use xsk::{XdpError, XdpOptions, XdpPort};

/// Name of the kernel as executor and as target.
pub const ENGINE: &str = "kernel";
