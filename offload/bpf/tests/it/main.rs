//! Integration tests of the crate, one binary.

mod conformance;
mod memory;
mod roundtrip;
mod vectors;
