//! Linux as a target: raw sockets on network interfaces as ports ([`afpacket`]), and the kernel's
//! own eBPF as an executor of packets ([`kernel`], over [`loader`] and [`rewrite`]).
//!
//! All `unsafe` is in [`sys`]: system calls behind safe types.

#![deny(unsafe_code)]

pub mod afpacket;
mod ageing;
mod checksum;
pub mod kernel;
pub mod loader;
pub mod rewrite;
mod rows;
pub mod sys;

pub use afpacket::AfPacketPort;
pub use kernel::KernelEngine;
