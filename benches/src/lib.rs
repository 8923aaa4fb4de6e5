//! What benches and instruction counts share.
//!
//! * [`world`]: the demo configuration on any engine, and packets for it.
//! * [`established`]: the workload whose instructions are counted.
//! * [`live`]: established flows through a live worker.
//! * [`programs`]: the programs we ship, built by clang.
//! * [`callgrind`]: runs a program again and counts its instructions.
//! * [`step`]: counts the instructions of a call, one trap each.
//! * [`kernel`]: code of the Linux kernel's JIT, copied here and run over our tables.
//! * [`compare`]: the same packets through our machine code and the kernel's.

#![deny(unsafe_code)]

pub mod callgrind;
pub mod compare;
pub mod established;
pub mod kernel;
pub mod live;
pub mod programs;
pub mod step;
pub mod world;
