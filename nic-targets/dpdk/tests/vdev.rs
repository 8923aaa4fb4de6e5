//! Ports over DPDK's virtual devices: no hardware, no huge pages.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

#[path = "vdev/common.rs"]
mod common;
#[path = "vdev/faults.rs"]
mod faults;
#[path = "vdev/kernel.rs"]
mod kernel;
#[path = "vdev/memif.rs"]
mod memif;
#[path = "vdev/memory.rs"]
mod memory;
