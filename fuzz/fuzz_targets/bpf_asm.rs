//! Text that assembles is text again after disassembly.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/bpf_asm.rs"]
mod body;

fuzz_target!(|data: &[u8]| body::run(data));
