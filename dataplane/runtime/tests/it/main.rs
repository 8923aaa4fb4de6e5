//! Tests of the runtime through its public API.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod ager;
mod engines;
mod hooks;
mod lookup;
mod support;
mod tables;
mod worker;
