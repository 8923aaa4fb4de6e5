//! A real server on loopback, real clients, and a simulated NIC behind it.

#![expect(clippy::unwrap_used, reason = "a test stops at the line that fails")]

#[cfg(feature = "dpdk")]
mod dpdk;
mod flood;
mod flows;
mod gnmi;
mod kernel;
mod packets;
mod process;
mod programs;
mod services;
mod settings;
mod support;
