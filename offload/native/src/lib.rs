//! Verified eBPF to position-independent machine code.
//!
//! A whole object, its entry and every program tail calls reach, becomes one function
//! `extern "C" fn(*mut RunCtx) -> u32` (see [`dash_wire::abi`]) without relocations: the same bytes
//! serve just-in-time and ahead-of-time use.
//!
//! ```text
//! Object --region--> steps --analysis--> notes --stack--> homes --lower--> CLIF --machine--> bytes
//!         (functions      (where the ctx,   (what lives in
//!          expanded)       maps and stack    registers)
//!                          addresses are)
//! ```
//!
//! The code has no bounds checks: that every access is safe is what the verifier proved, so only
//! verified objects get in. What this crate checks itself is that it understood the program: an
//! access that may or may not go to the context, or one outside the stack frame, is an error.
//!
//! Helpers that call functions of the program are loops in the code, with the function inside.
//!
//! Not done: legacy packet loads, calls by BTF id, tail calls whose target is only known at run
//! time, cycles of tail calls, functions for helpers to call that come from memory. All are errors.

#![forbid(unsafe_code)]

mod analysis;
mod calls;
mod chain;
mod code;
mod compile;
mod error;
mod facts;
mod functions;
mod helpers;
mod listing;
mod liveness;
mod lower;
mod machine;
mod region;
mod stack;
mod tidy;
mod untouched;
#[cfg(feature = "conformance")]
pub mod unverified;

pub use code::{Isa, Machine, NativeCode, Options, Part};
pub use compile::{compile, compile_with_listing};
pub use error::{NativeError, Reason, Site};
pub use listing::Listing;
