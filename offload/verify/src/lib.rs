//! The only maker of [`Verified`]: what has one was proven safe.
//!
//! A program is decoded by `dash-bpf`'s decoder, which every engine shares; checked against rules
//! of ours (`rules`), which close known holes of the second judge; and proven by PREVAIL, an
//! abstract interpreter, told of our helpers, maps and context (`platform`). Verdicts are cached by
//! content (`cache`).
//!
//! Proven of an accepted program, whatever the packet and whatever the maps hold: it reads and
//! writes only its stack, its packet and map values, inside their bounds; it reads nothing
//! uninitialised; it calls helpers with arguments they allow; it leaks no address; and it ends.
//! What the proof rests on: map values start 8-byte aligned, a look-up's value stays while the
//! program runs, and a pop or peek writes its whole value whatever it returns.

#![forbid(unsafe_code)]

mod cache;
mod error;
mod helpers;
mod judge;
mod model;
mod platform;
mod rules;
mod values;
mod verifier;

pub use error::{ObjectRule, Reason, VerifyError};
pub use rules::Refusal;
pub use verifier::{Counters, Options, Policy, Verified, Verifier};
