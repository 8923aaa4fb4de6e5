//! Integration tests of the crate, one binary.

mod clang;
mod co_re;
mod elf;
mod fuzz;
mod memory;
mod objdump;
mod objects;
mod registers;
mod roundtrip;
mod vectors;
