//! A DASH fast path written by hand in C: what a good engineer would write with intrinsics, bursts
//! and prefetches, for established flows only. Ours is compared with it, packet for packet.
//!
//! It does the work of the Rust pipeline for a packet whose flow is known: outer headers checked and
//! parsed, ENI by MAC, inner headers checked and parsed, key built, flow looked up and its key compared,
//! the same counters of ENI and flow, inner destination MAC, outer headers with their checksum. It does
//! less for the others: it has no slow path, no ageing, no IPv6 and no ECN. Those packets come back
//! unsent.

#![deny(unsafe_code)]

mod ffi;

pub use ffi::{BURST, Error, FlowStats, Globals, Pipeline};

/// Counters of an ENI, as the pipeline keeps them. Directions: outbound, inbound.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as SAI's counters of these names")]
pub struct EniStats {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub direction_rx_packets: [u64; 2],
    pub direction_rx_bytes: [u64; 2],
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub direction_tx_packets: [u64; 2],
    pub direction_tx_bytes: [u64; 2],
}
