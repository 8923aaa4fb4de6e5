//! Any definition of a map and any operations on it: what they should give, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/map_update.rs"]
mod body;

fuzz_target!(|data: &[u8]| body::run(data));
