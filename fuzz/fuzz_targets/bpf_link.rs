//! What links decodes and has a listing, lines of the source included; types of a target change that
//! only where they can. The input is two files, the length of the first in front.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/bpf_link.rs"]
mod body;

fuzz_target!(|data: &[u8]| body::run(data));
