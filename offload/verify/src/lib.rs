//! The only maker of [`Verified`]: what has one was proven safe.
//!
//! A program is decoded by `dash-bpf`'s decoder, which every engine shares, and judged by one or
//! both of two judges ([`Judge`]):
//!
//! - our own (`own`), which walks all paths of a program as Linux does, and joins states where they
//!   are too many, so that its cost is bounded;
//! - rules of ours (`rules`), which close known holes of what comes behind them: PREVAIL, an
//!   abstract interpreter, told of our helpers, maps and context (`platform`).
//!
//! Verdicts are cached by content (`cache`). [`examine`] shows how the first one gets to its
//! verdict.
//!
//! Proven of an accepted program, whatever the packet and whatever the maps hold: it reads and
//! writes only its stack, its packet and map values, inside their bounds; it reads nothing
//! uninitialised; it calls helpers with arguments they allow; it leaks no address; it gives back what it
//! was lent; and it ends.
//! What the proof rests on: map values start 8-byte aligned, a look-up's value stays while the
//! program runs, whoever runs it has the helpers it calls, and they do what
//! [`dash_bpf::helper::PROTOTYPES`] says: a pop or peek writes its whole value whatever it returns.

//! `cargo run -p dash-verify --example log -- FILE.o` prints verdicts of the programs of an object
//! and, with `--log`, every step to them.
//!
//! # Evidence
//! Tests check every transfer function against all numbers of four bits, a sample of all pairs of sets of
//! eight (all of them when asked to), and the corners of 64, one property of programs at a time in both directions, the public conformance programs
//! (`DASHWIRE_CONFORMANCE=FILE`), what clang makes of C, and that what is accepted never traps in the
//! checking interpreter. That last one for as long as one likes:
//! `DASHWIRE_SOUND_RUNS=10000000 cargo test --release -p dash-verify --test it -- --ignored --nocapture`

#![forbid(unsafe_code)]

mod cache;
mod error;
mod helpers;
mod judge;
mod model;
mod own;
mod platform;
mod rules;
mod values;
mod verifier;

pub use error::{ObjectRule, Reason, VerifyError};
pub use judge::examine;
pub use own::{Fault, Limits, Objection, Seen, Walked};
pub use rules::Refusal;
pub use verifier::{Counters, Judge, Options, Policy, UnknownJudge, Verified, Verifier};
