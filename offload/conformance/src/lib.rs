//! Bare eBPF programs (r1 = memory, r2 = its length) on every engine and instruction set, and the
//! plugin of the public conformance suite, `dash-bpf-plugin`.
//!
//! ```text
//! hex, JSON ──case──> Case ──engine──> interpreter, in this process
//!                               └────> native ──elf──> a process of its own (under QEMU, if foreign)
//! ```
//!
//! Native code of these programs was never verified, so it does not run in this process: it becomes
//! an executable of a few hundred bytes, in which it can harm nobody. That makes foreign
//! instruction sets the same as our own, but for the emulator.

#![forbid(unsafe_code)]

pub mod case;
pub mod elf;
pub mod engine;

pub use case::{Case, CaseError, cases, hex};
pub use engine::{Engine, Outcome, RunError, run};
