//! Linux as a target: raw sockets on network interfaces as ports ([`afpacket`]), and the kernel's
//! own eBPF as an executor ([`kernel`], made of [`loader`], [`rewrite`], [`rows`] and [`ageing`]).
//!
//! All `unsafe` is in [`sys`]: system calls behind safe types.

#![deny(unsafe_code)]

pub mod afpacket;
mod checksum;
pub mod sys;

pub use afpacket::AfPacketPort;
