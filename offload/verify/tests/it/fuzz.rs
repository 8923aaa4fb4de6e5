//! The fuzz targets of the verifiers, for some seconds and without libFuzzer: see `fuzz/README.md`.

#[path = "../../../../fuzz/bodies/verify.rs"]
mod body;
#[path = "../../../../fuzz/bodies/driver.rs"]
mod driver;

use dash_verify::Judge;

use crate::sound::seeds;

fn code(text: &str) -> Vec<u8> {
    let insns = dash_bpf::assemble(text).expect("seeds assemble");
    insns.iter().flat_map(|insn| insn.to_bytes()).collect()
}

#[test]
fn what_ours_accepts_never_traps() {
    let (both, ours) = seeds();
    let inputs: Vec<_> = both.into_iter().chain(ours).map(code).collect();
    driver::drive(&inputs, 6_000, |data| body::run(data, Judge::Own));
}

#[test]
fn what_prevail_accepts_never_traps() {
    let inputs: Vec<_> = seeds().0.into_iter().map(code).collect();
    driver::drive(&inputs, 300, |data| body::run(data, Judge::Prevail));
}
