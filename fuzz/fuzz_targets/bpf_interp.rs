//! Any program that decodes runs to an end over any memory: a result or a trap.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/bpf_interp.rs"]
mod body;

fuzz_target!(|data: &[u8]| body::run(data));
