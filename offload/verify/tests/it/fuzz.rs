//! The fuzz target of our own verifier, for some seconds and without libFuzzer: see `fuzz/README.md`.

#[path = "../../../../fuzz/bodies/driver.rs"]
mod driver;
#[path = "../../../../fuzz/bodies/verify_own.rs"]
mod verify_own;

use crate::sound::seeds;

#[test]
fn what_is_accepted_never_traps() {
    let (both, ours) = seeds();
    let code = |text: &str| -> Vec<u8> {
        let insns = dash_bpf::assemble(text).expect("seeds assemble");
        insns.iter().flat_map(|insn| insn.to_bytes()).collect()
    };
    let inputs: Vec<_> = both.into_iter().chain(ours).map(code).collect();
    driver::drive(&inputs, 6_000, verify_own::run);
}
