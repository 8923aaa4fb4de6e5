//! Any bytecode gets a verdict of our own verifier, in bounded time and without a panic; and what is
//! accepted does not trap in the checking interpreter, whatever the packet and the maps hold.

#![no_main]

use dash_verify::Judge;
use libfuzzer_sys::fuzz_target;

#[path = "../bodies/verify.rs"]
mod body;

#[path = "../../offload/verify/tests/it/machine.rs"]
mod machine;

fuzz_target!(|data: &[u8]| body::run(data, Judge::Own));
