//! Bytecode that decodes encodes to the same bytes, and its disassembly assembles to them.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/bpf_decode.rs"]
mod body;

fuzz_target!(|data: &[u8]| body::run(data));
