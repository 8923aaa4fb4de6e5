//! Runs an image over frames: tables, flow ageing, helpers, executable pages, and the worker loop.
//!
//! ```text
//!  Update --Builder--> Generation { code, policy tables } --Publisher--> crossbeam_epoch::Atomic
//!                                                                             | pin, once a round
//!  Port --rx--> Worker --bind--> Datapath { core tables, ager, executor } --run_burst--> Fate
//!  Port <--tx--'   |  '--parsed packets of others' flows--> rings --> the worker that has the flow
//!                  |--> punt ring (ARP, unresolved)   <-- inject ring, questions -- RuntimeHandle
//! ```
//!
//! - [`core`]: one core run by its caller, packet by packet: replay, scenarios, tests.
//! - [`runtime`]: threads that poll ports, and the handle control keeps ([`worker`] is their loop).
//! - [`datapath`]: what one core owns; runs packets whole, or in bursts of two phases.
//! - [`tables`]: the maps programs see. Policy tables are immutable and belong to a generation;
//!   core tables belong to one core and only its thread touches them.
//! - [`reset`]: TCP resets that answer packets which policy denies.
//! - [`generation`]: code and policy tables that become visible together.
//! - [`hooks`]: programs of users at ports and ENIs.
//!
//! Who writes what: programs may write packets, `flow_slab`, `flow_index`, `flow_free`,
//! `flow_events`, `eni_stats`, `port_stats` and `meta`. They get addresses of policy rows and must
//! not write through them: the interpreter refuses, native code is trusted not to (rows are in
//! memory of the tables' own, so such a write would spoil policy, not the process).
//!
//! Not here: reassembly.

pub mod ager;
pub mod code;
pub mod core;
pub mod datapath;
mod exec;
pub mod generation;
pub mod helpers;
pub mod hooks;
mod prefetch;
pub mod reset;
pub mod runtime;
pub mod tables;
pub mod worker;

pub use crate::core::Core;
pub use exec::Engine;
pub use runtime::{Options, Runtime, RuntimeHandle, SpawnError};
