//! Integration tests of the crate, one binary.

mod conformance;
mod elf;
mod memory;
mod roundtrip;
mod vectors;
