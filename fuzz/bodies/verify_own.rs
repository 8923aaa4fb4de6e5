//! Any bytecode gets a verdict of our own verifier, in bounded time and without a panic; and what is
//! accepted does not trap in the checking interpreter, whatever the packet and the maps hold.

use std::time::Duration;

use dash_bpf::{Insn, Program, ProgramKind, decode, disassemble};
use dash_verify::{Limits, examine};

use crate::machine;

const MOST_SLOTS: usize = 256;

pub(crate) fn run(data: &[u8]) {
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
    let limits = Limits {
        instructions: 100_000,
        time: Duration::from_secs(2),
        ..Limits::default()
    };
    if examine(&program, &machine::maps(), &limits, None).is_ok() {
        let ops = decode(&program.insns).expect("it was verified");
        for input in 0..4 {
            let seed = data.len() as u64 * 8 + input;
            if let Err(trap) = machine::run(&ops, seed, seed as usize % 160) {
                let text = disassemble(&program.insns).unwrap_or_default();
                panic!("{trap}\n{text}");
            }
        }
    }
}
