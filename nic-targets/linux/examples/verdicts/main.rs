//! Our own verifier against the kernel's: mutants of the verifier's test programs, judged by both.
//! `verdicts [MUTANTS [SEED]]`, as root. What we accept and the kernel refuses is listed with why that is no
//! hole (`explained`), and is an error where that is not known; what PREVAIL and the kernel accept and we refuse,
//! by our words. (Loaded as root, the kernel lets programs leak addresses; we never do.)

#![forbid(unsafe_code)]

mod explained;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use dash_bpf::map::{F_RDONLY_PROG, InnerMaps};
use dash_bpf::{Insn, MapDef, MapKind, Object, Program, ProgramKind, assemble, disassemble};
use dash_verify::{Judge, Options, Policy, Reason, Verifier, VerifyError};
use nic_linux::loader::create_map;
use nic_linux::rewrite::{self, World};
use nic_linux::sys::bpf::{self, Map};

use crate::explained::explain;

const SEEDS: &str = include_str!("../../../../offload/verify/tests/seeds.txt");

/// The maps the test programs name.
fn maps() -> Vec<MapDef> {
    let map = |name: &str, kind, key_size, value_size, max_entries, flags| MapDef {
        name: name.to_owned(),
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
        ..MapDef::default()
    };
    vec![
        map("hash", MapKind::Hash, 4, 16, 100, 0),
        map("array", MapKind::Array, 4, 64, 8, 0),
        map("meta", MapKind::PercpuArray, 4, 256, 1, 0),
        map(
            "lpm",
            MapKind::LpmTrie,
            8,
            16,
            100,
            dash_bpf::map::F_NO_PREALLOC,
        ),
        map("more", MapKind::Hash, 40, 8, 100, 0),
        map("queue", MapKind::Queue, 0, 24, 100, 0),
        map("programs", MapKind::ProgArray, 4, 4, 4, 0),
        map("ports", MapKind::DevMap, 4, 4, 4, 0),
        map("one", MapKind::Array, 4, 32, 1, 0),
        MapDef {
            inner: Some(Box::new(InnerMaps {
                template: map("", MapKind::Hash, 4, 24, 10, 0),
                slots: Vec::new(),
            })),
            ..map("outer", MapKind::ArrayOfMaps, 4, 4, 4, 0)
        },
        map("ring", MapKind::RingBuf, 0, 0, 4096, 0),
        map("events", MapKind::PerfEventArray, 4, 4, 1, 0),
        MapDef {
            contents: b"eth0\0port\0no end...".to_vec(),
            ..map("rodata", MapKind::Array, 4, 19, 1, F_RDONLY_PROG)
        },
    ]
}

/// Programs asked about at a time.
const THREADS: usize = 4;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn mutate(random: &mut Random, insns: &mut [Insn]) {
    for _ in 0..1 + random.below(2) {
        let at = random.below(insns.len());
        match random.below(4) {
            0 => {
                let mut bytes = insns[at].to_bytes();
                bytes[random.below(8)] = random.next() as u8;
                insns[at] = Insn::from_bytes(bytes);
            }
            1 | 2 => {
                let by = random.below(33) as i16 - 16;
                if insns[at].off == 0 {
                    insns[at].imm = insns[at].imm.wrapping_add(by.into());
                } else {
                    insns[at].off = insns[at].off.wrapping_add(by);
                }
            }
            _ => insns[at] = insns[random.below(insns.len())],
        }
    }
}

/// The kernel's verdict: why it refuses, in its last line that says so.
fn kernel(insns: &[Insn], fds: &[Arc<Map>]) -> Result<(), String> {
    let fd = |map: u32| fds.get(map as usize).map(|m| m.fd());
    let code =
        rewrite::rewrite(insns, fd, World::Live { pass: None }).map_err(|e| e.to_string())?;
    match bpf::Program::load("mutant", ProgramKind::Xdp, &code) {
        Ok(_) => Ok(()),
        Err(e) => {
            let text = e.to_string();
            // What follows the reason: states, and what it did cost.
            let known = ["processed", "cur state:", "old state:"];
            let line = text.lines().map(str::trim).rev().find(|line| {
                !line.is_empty() && !known.iter().any(|known| line.starts_with(known))
            });
            Err(line.unwrap_or("no reason").to_owned())
        }
    }
}

fn verify(object: &Object, judge: Judge) -> Result<(), VerifyError> {
    let policy = Policy {
        judge,
        ..Policy::default()
    };
    let options = Options {
        policy,
        ..Options::default()
    };
    Verifier::new(options).verify(object).map(|_| ())
}

/// What is wrong, without what was known.
fn first_words(e: &VerifyError) -> String {
    match e {
        VerifyError::Program {
            reason: Reason::Own(objection),
            ..
        } => objection.fault.to_string(),
        other => other.to_string(),
    }
}

/// What the three say of one program.
struct Answer {
    ours: bool,
    kernel: bool,
    differs: Option<Differs>,
}

enum Differs {
    /// The kernel refuses: its words and why that is no hole.
    Explained(&'static str, &'static str),
    /// Why, and the program.
    Reason(String, String),
}

fn ask(insns: &[Insn], maps: &[MapDef], fds: &[Arc<Map>]) -> Answer {
    let program = Program {
        name: "mutant".to_owned(),
        kind: ProgramKind::Xdp,
        insns: insns.to_vec(),
        ..Program::default()
    };
    let object = Object {
        maps: maps.to_vec(),
        programs: vec![program.clone()],
        tail_calls: Vec::new(),
    };
    let ours = verify(&object, Judge::Own);
    let theirs = kernel(insns, fds);
    let text = || disassemble(insns).unwrap_or_default();
    let differs = match (&ours, &theirs) {
        (Ok(()), Err(why)) => match explain(why, &program, maps, |told| kernel(told, fds)) {
            Some((words, why)) => Some(Differs::Explained(words, why)),
            None => {
                let why = format!("ours accepts, the kernel: {why}");
                Some(Differs::Reason(why, text()))
            }
        },
        // What both others can prove, ours should.
        (Err(e), Ok(())) if verify(&object, Judge::Prevail).is_ok() => {
            let why = format!("PREVAIL and the kernel accept, ours: {}", first_words(e));
            Some(Differs::Reason(why, text()))
        }
        _ => None,
    };
    Answer {
        ours: ours.is_ok(),
        kernel: theirs.is_ok(),
        differs,
    }
}

/// How often what was said, and for each reason that is not explained the first in order.
#[derive(Default)]
struct Told {
    counts: BTreeMap<(&'static str, &'static str), u64>,
    explained: BTreeMap<(&'static str, &'static str), u64>,
    reasons: BTreeMap<String, (u64, String)>,
}

impl Told {
    fn note(&mut self, answer: Answer) {
        let word = |accepts| if accepts { "accepts" } else { "refuses" };
        let verdicts = (word(answer.ours), word(answer.kernel));
        *self.counts.entry(verdicts).or_default() += 1;
        match answer.differs {
            None => {}
            Some(Differs::Explained(words, why)) => {
                *self.explained.entry((words, why)).or_default() += 1;
            }
            Some(Differs::Reason(why, text)) => {
                // Numbers and registers apart, the same reason.
                let digit = |c: char| if c.is_ascii_digit() { '#' } else { c };
                let reason = why.chars().map(digit).collect();
                let example = format!("{why}\n{text}");
                let entry = self
                    .reasons
                    .entry(reason)
                    .or_insert_with(|| (0, example.clone()));
                entry.0 += 1;
                entry.1 = example.min(std::mem::take(&mut entry.1));
            }
        }
    }
}

fn main() -> Result<()> {
    if let Some(why) = nic_linux::KernelEngine::unavailable() {
        eprintln!("SKIP: no kernel to compare with: {why}");
        return Ok(());
    }
    let number = |n: usize, default: u64| match std::env::args().nth(n) {
        Some(text) => text.parse().context("usage: verdicts [MUTANTS [SEED]]"),
        None => Ok(default),
    };
    let (mutants, seed) = (number(1, 10_000)?, number(2, 1)?);
    let mut random = Random(seed | 1);
    let maps = maps();
    let fds = maps
        .iter()
        .map(|def| create_map(def).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()?;
    let seeds = SEEDS
        .split("=== ours\n")
        .flat_map(|part| part.split("---\n"))
        .map(assemble)
        .collect::<Result<Vec<_>, _>>()?;
    // The seeds themselves first.
    let mut asked = seeds.clone();
    for index in 0..mutants as usize {
        let mut insns = seeds[(seeds.len() + index) % seeds.len()].clone();
        mutate(&mut random, &mut insns);
        asked.push(insns);
    }
    asked.retain(|insns| dash_bpf::decode(insns).is_ok());
    // Mostly the kernel is waited for.
    let next = AtomicUsize::new(0);
    let told = Mutex::new(Told::default());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(insns) = asked.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answer = ask(insns, &maps, &fds);
                    told.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .note(answer);
                }
            });
        }
    });
    let Told {
        counts,
        explained,
        reasons,
    } = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    for ((ours, kernel), count) in &counts {
        println!("ours {ours}, the kernel {kernel}: {count}");
    }
    for ((words, why), count) in &explained {
        println!("\n{count} times: ours accepts, the kernel: {words}\n  {why}");
    }
    let mut unexplained = 0;
    for (reason, (count, example)) in &reasons {
        println!("\n{count} times: {reason}\nfor example: {example}");
        unexplained += u64::from(reason.starts_with("ours accepts")) * count;
    }
    ensure!(
        unexplained == 0,
        "{unexplained} programs that we accept the kernel refuses for reasons not explained"
    );
    Ok(())
}
