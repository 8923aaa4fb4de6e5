//! Linux as a target: raw sockets ([`afpacket`]) and AF_XDP sockets ([`xsk`]) on network interfaces as
//! ports, the kernel's own
//! eBPF as an executor of packets ([`kernel`], over [`loader`] and [`rewrite`]), and XDP programs on
//! interfaces ([`attach`]). [`device`] is what control sees of an interface.
//!
//! All `unsafe` is in [`sys`]: system calls behind safe types.

#![deny(unsafe_code)]

pub mod afpacket;
mod ageing;
pub mod attach;
mod checksum;
mod counts;
pub mod device;
pub mod kernel;
pub mod loader;
pub mod rewrite;
mod rows;
pub mod sys;
pub mod xsk;

pub use afpacket::AfPacketPort;
pub use attach::{AttachError, AttachMode, Attached};
pub use device::LinuxDevice;
pub use kernel::KernelEngine;
pub use xsk::{XdpError, XdpOptions, XdpPort};
