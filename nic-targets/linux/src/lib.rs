//! Linux as a target: raw sockets on network interfaces as ports ([`afpacket`]), the kernel's own
//! eBPF as an executor of packets ([`kernel`], over [`loader`] and [`rewrite`]), and XDP programs on
//! interfaces ([`attach`]).
//!
//! All `unsafe` is in [`sys`]: system calls behind safe types.

#![deny(unsafe_code)]

pub mod afpacket;
mod ageing;
pub mod attach;
mod checksum;
pub mod kernel;
pub mod loader;
pub mod rewrite;
mod rows;
pub mod sys;

pub use afpacket::AfPacketPort;
pub use attach::{AttachError, AttachMode, Attached};
pub use kernel::KernelEngine;
