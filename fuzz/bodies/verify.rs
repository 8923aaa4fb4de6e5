//! Any bytecode gets a verdict, without a panic and from our own verifier in bounded time; and what is accepted
//! does not trap in the checking interpreter, whatever the packet and the maps hold.

use std::time::Duration;

use dash_bpf::{Insn, Object, Program, ProgramKind, decode, disassemble};
use dash_verify::{Judge, Limits, Options, Policy, Verifier, examine};

use crate::machine;

/// Longest programs. PREVAIL's time grows faster than a program's length.
fn most_slots(judge: Judge) -> usize {
    match judge {
        Judge::Own => 256,
        Judge::Prevail | Judge::Both => 48,
    }
}

/// Maps of the machine that PREVAIL knows too: those before the map of maps.
const OLD_MAPS: usize = 9;

fn is_accepted(program: &Program, judge: Judge) -> bool {
    let mut maps = machine::maps();
    if judge == Judge::Own {
        let limits = Limits {
            instructions: 100_000,
            time: Duration::from_secs(2),
            ..Limits::default()
        };
        return examine(program, &maps, &limits, None).is_ok();
    }
    maps.truncate(OLD_MAPS);
    let object = Object {
        maps,
        programs: vec![program.clone()],
        tail_calls: Vec::new(),
    };
    let policy = Policy {
        judge,
        ..Policy::default()
    };
    let options = Options {
        policy,
        ..Options::default()
    };
    Verifier::new(options).verify(&object).is_ok()
}

pub(crate) fn run(data: &[u8], judge: Judge) {
    let insns: Vec<Insn> = data
        .as_chunks()
        .0
        .iter()
        .take(most_slots(judge))
        .map(|slot| Insn::from_bytes(*slot))
        .collect();
    let program = Program {
        name: "fuzzed".to_owned(),
        kind: ProgramKind::Xdp,
        insns,
        ..Program::default()
    };
    if is_accepted(&program, judge) {
        let ops = decode(&program.insns).expect("it was verified");
        for input in 0..4 {
            let seed = data.len() as u64 * 8 + input;
            if let Err(trap) = machine::run(&ops, seed, seed as usize % 160) {
                let text = disassemble(&program.insns).unwrap_or_default();
                panic!("{judge:?} accepts: {trap}\n{text}");
            }
        }
    }
}
