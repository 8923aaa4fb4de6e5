//! Any bytecode gets a verdict of PREVAIL behind our rules, not a panic; and what is accepted does not trap in the
//! checking interpreter.

#![no_main]

use dash_verify::Judge;
use libfuzzer_sys::fuzz_target;

#[path = "../bodies/verify.rs"]
mod body;

#[path = "../../offload/verify/tests/it/machine.rs"]
mod machine;

fuzz_target!(init: {
    // libFuzzer's hook ends the process at any panic. PREVAIL's are caught and become refusals; one
    // that gets out of the verifier still ends the run.
    let _ = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
}, |data: &[u8]| body::run(data, Judge::Prevail));
