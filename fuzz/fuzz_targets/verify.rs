//! Any bytecode gets a verdict, not a panic.

#![no_main]

use dash_bpf::{Insn, Object, Program, ProgramKind, decode};
use dash_verify::{Options, Verifier};
use libfuzzer_sys::fuzz_target;
use nic_target::Capacity;
use nic_target::tables::map_defs;

/// PREVAIL's time grows faster than a program's length.
const MOST_SLOTS: usize = 48;

fuzz_target!(init: {
    // libFuzzer's hook ends the process at any panic. PREVAIL's are caught and become refusals; one
    // that gets out of the verifier still ends the run.
    let _ = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
}, |data: &[u8]| {
    let insns: Vec<Insn> = data
        .as_chunks()
        .0
        .iter()
        .take(MOST_SLOTS)
        .map(|slot| Insn::from_bytes(*slot))
        .collect();
    let program = Program {
        name: "fuzzed".to_owned(),
        kind: ProgramKind::Xdp,
        insns,
..Program::default()
};
    let object = Object {
        maps: map_defs(&Capacity::default()),
        programs: vec![program],
        tail_calls: Vec::new(),
    };
    if let Ok(verified) = Verifier::new(Options::default()).verify(&object) {
        assert!(decode(&verified.get().programs[0].insns).is_ok());
    }
});
