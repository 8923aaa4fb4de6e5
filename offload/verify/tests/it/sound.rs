//! What is accepted does not trap: mutated programs that still verify run in the checking
//! interpreter, over packets and maps of any content.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use dash_bpf::{Insn, Object, decode};
use dash_verify::{Judge, Limits, Options, Policy, Verifier, examine};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::machine::{Machine, run};
use crate::support::object;

/// Programs that touch everything once; mutations start from them. Those behind the line are for our
/// own verifier only.
const SEEDS: &str = include_str!("../seeds.txt");

/// Devices and sockets are looked up to see whether they are there.
const DEVICES: &str = "*(u32 *)(r10 - 4) = 1
r2 = r10
r2 += -4
r1 = map[7] ll
call 1
r6 = 0
if r0 == 0 goto +1
r6 = *(u32 *)(r0 + 0)
*(u32 *)(r10 - 4) = r6
r2 = r10
r2 += -4
r1 = map[13] ll
call 1
if r0 == 0 goto +2
r0 = *(u32 *)(r0 + 0)
r0 += r6
r0 &= 3
exit
";

pub(crate) fn seeds() -> (Vec<&'static str>, Vec<&'static str>) {
    let (both, ours) = SEEDS.split_once("=== ours\n").expect("two parts");
    let ours = ours.split("---\n").chain([DEVICES]);
    (both.split("---\n").collect(), ours.collect())
}

/// One change of one slot; slots are counted modulo the program's length.
#[derive(Clone, Debug)]
enum Change {
    Field { at: usize, byte: usize, to: u8 },
    Nudge { at: usize, by: i16 },
    Copy { from: usize, to: usize },
    Swap { a: usize, b: usize },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<usize>(), 0usize..8, any::<u8>()).prop_map(|(at, byte, to)| Change::Field {
            at,
            byte,
            to
        }),
        (any::<usize>(), -16i16..16).prop_map(|(at, by)| Change::Nudge { at, by }),
        any::<(usize, usize)>().prop_map(|(from, to)| Change::Copy { from, to }),
        any::<(usize, usize)>().prop_map(|(a, b)| Change::Swap { a, b }),
    ]
}

fn random_change(machine: &mut Machine) -> Change {
    let at = machine.next() as usize;
    let other = machine.next();
    match machine.next() % 8 {
        0..3 => Change::Field {
            at,
            byte: machine.next() as usize % 8,
            to: other as u8,
        },
        3..6 => Change::Nudge {
            at,
            by: (other % 32) as i16 - 16,
        },
        6 => Change::Copy {
            from: at,
            to: other as usize,
        },
        _ => Change::Swap {
            a: at,
            b: other as usize,
        },
    }
}

fn apply(insns: &mut [Insn], change: &Change) {
    let len = insns.len();
    match change {
        Change::Field { at, byte, to } => {
            let at = at % len;
            let mut bytes = insns[at].to_bytes();
            bytes[*byte] = *to;
            insns[at] = Insn::from_bytes(bytes);
        }
        Change::Nudge { at, by } => {
            let insn = &mut insns[at % len];
            if insn.off == 0 {
                insn.imm = insn.imm.wrapping_add(i32::from(*by));
            } else {
                insn.off = insn.off.wrapping_add(*by);
            }
        }
        Change::Copy { from, to } => insns[to % len] = insns[from % len],
        Change::Swap { a, b } => insns.swap(a % len, b % len),
    }
}

/// Runs until the budget's end: loops of an accepted program end, but not soon.
fn quick(judge: Judge) -> Options {
    Options {
        policy: Policy {
            judge,
            max_insns: 64,
            ..Policy::default()
        },
        ..Options::default()
    }
}

#[test]
fn the_seeds_are_accepted_and_run() {
    let (both, ours) = seeds();
    let both = both.into_iter().map(|seed| (seed, Judge::Both));
    let ours = ours.into_iter().map(|seed| (seed, Judge::Own));
    for (seed, judge) in both.chain(ours) {
        let object = object("seed", seed);
        Verifier::new(quick(judge))
            .verify(&object)
            .unwrap_or_else(|e| panic!("{e}\n{seed}"));
        let ops = decode(&object.programs[0].insns).expect("verified");
        for random in 0..200 {
            run(&ops, random * 77, (random * 7) as usize).unwrap_or_else(|e| panic!("{e}\n{seed}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_never_traps(
        seed in prop::sample::select(seeds().0),
        changes in vec(change(), 1..4),
        inputs in vec((any::<u64>(), 0usize..128), 8),
    ) {
        let mut object = object("mutant", seed);
        for change in &changes {
            apply(&mut object.programs[0].insns, change);
        }
        let accepts = |judge| Verifier::new(quick(judge)).verify(&object).is_ok();
        if accepts(Judge::Own) || accepts(Judge::Prevail) {
            let ops = decode(&object.programs[0].insns).expect("verified");
            for (random, len) in inputs {
                let text = dash_bpf::disassemble(&object.programs[0].insns).expect("verified");
                let result = run(&ops, random, len);
                prop_assert!(result.is_ok(), "{}\n{}", result.unwrap_err(), text);
            }
        }
    }

    #[test]
    fn arbitrary_slots_are_judged_without_a_panic(slots in vec(any::<[u8; 8]>(), 0..12)) {
        let mut object = object("noise", "exit");
        object.programs[0].insns = slots.into_iter().map(Insn::from_bytes).collect();
        let _ = Verifier::new(quick(Judge::Prevail)).verify(&object);
        let _ = Verifier::new(quick(Judge::Own)).verify(&object);
    }
}

fn fingerprint(insns: &[Insn]) -> u64 {
    let mut hasher = DefaultHasher::new();
    insns.hash(&mut hasher);
    hasher.finish()
}

/// More where time allows: `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(400)
}

/// Mutants of mutants, each run on packets and maps of its own: `DASHWIRE_SOUND_RUNS` says how many
/// programs are to be accepted and run, no two of which are the same.
#[test]
#[ignore = "runs for minutes; see the crate's documentation"]
fn what_ours_accepts_never_traps_in_a_long_run() {
    const POOL: usize = 400;
    const INPUTS: u64 = 4;
    let wanted: u64 = std::env::var("DASHWIRE_SOUND_RUNS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    let first: u64 = std::env::var("DASHWIRE_SOUND_SEED")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let worker = |thread: u64| {
        let mut machine = Machine::new(first.wrapping_mul(0x9e37_79b9) + thread * 7919 + 1, 0);
        let (both, ours) = seeds();
        let texts = both.into_iter().chain(ours);
        let originals: Vec<Object> = texts.map(|text| object("seed", text)).collect();
        let mut pool = originals.clone();
        let (mut tried, mut accepted, mut runs) = (0u64, 0u64, 0u64);
        let mut seen = HashSet::new();
        while accepted < wanted.div_ceil(threads) {
            tried += 1;
            let mut mutant = pool[machine.next() as usize % pool.len()].clone();
            for _ in 0..1 + machine.next() % 3 {
                let change = random_change(&mut machine);
                apply(&mut mutant.programs[0].insns, &change);
            }
            let fingerprint = fingerprint(&mutant.programs[0].insns);
            if seen.contains(&fingerprint) {
                continue;
            }
            // Loops of a million instructions are worth the time now and then.
            let limits = Limits {
                instructions: if tried.is_multiple_of(256) {
                    1_000_000
                } else {
                    4_000
                },
                ..Limits::default()
            };
            if examine(&mutant.programs[0], &mutant.maps, &limits, None).is_err() {
                continue;
            }
            seen.insert(fingerprint);
            accepted += 1;
            let ops = decode(&mutant.programs[0].insns).expect("verified");
            for _ in 0..INPUTS {
                runs += 1;
                let (random, len) = (machine.next(), machine.next() as usize % 160);
                if let Err(trap) = run(&ops, random, len) {
                    let text = dash_bpf::disassemble(&mutant.programs[0].insns);
                    panic!("{trap}, input {random}, {len}\n{}", text.expect("verified"));
                }
            }
            if pool.len() < POOL {
                pool.push(mutant);
            } else {
                // Now and then back to the roots: mutants lose what makes them interesting.
                let at = machine.next() as usize % POOL;
                pool[at] = if machine.next().is_multiple_of(4) {
                    originals[machine.next() as usize % originals.len()].clone()
                } else {
                    mutant
                };
            }
        }
        (tried, accepted, runs)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || worker(thread)))
            .collect();
        for worker in workers {
            let (tried, accepted, runs) = worker.join().expect("no trap");
            eprintln!("{tried} mutants, {accepted} accepted, {runs} runs, none trapped");
        }
    });
}
