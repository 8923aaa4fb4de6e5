//! Any bytes as type information of a file or of a target: refused, or read as what is written again the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/bpf_btf.rs"]
#[expect(dead_code, reason = "tests make inputs of files with it")]
mod body;

fuzz_target!(|data: &[u8]| body::run(data));
