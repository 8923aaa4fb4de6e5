//! ELF files that read write to files that read the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/bpf_elf.rs"]
mod body;

fuzz_target!(|data: &[u8]| body::run(data));
