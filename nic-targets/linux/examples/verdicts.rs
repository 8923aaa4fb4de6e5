//! Our own verifier against the kernel's: mutants of the verifier's test programs, judged by both.
//! `verdicts [MUTANTS [SEED]]`, as root. What we accept and the kernel refuses is listed by the
//! kernel's words, with an explanation where there is one, and an error where there is none; what
//! PREVAIL and the kernel accept and we refuse, by ours. (Loaded as root, the kernel lets programs
//! leak addresses; we never do.)

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dash_bpf::map::{F_RDONLY_PROG, InnerMaps};
use dash_bpf::{Insn, MapDef, MapKind, Object, Program, ProgramKind, assemble, disassemble};
use dash_verify::{Judge, Options, Policy, Reason, Verifier, VerifyError};
use nic_linux::loader::create_map;
use nic_linux::rewrite::{self, World};
use nic_linux::sys::bpf::{self, Map};

const SEEDS: &str = include_str!("../../../offload/verify/tests/seeds.txt");

/// What the kernel says where we may accept all the same, and why that is no hole.
const EXPLAINED: [(&str, &str); 10] = [
    (
        "misaligned stack access",
        "the kernel follows stored registers by 8-byte slots; we follow bytes, and engines read bytes",
    ),
    (
        "offset is outside of the packet",
        "the kernel forgets an earlier check once an unknown number is added; we add its bounds",
    ),
    (
        "R0 !read_ok",
        "r0 after a tail call that failed: our engines define it, the kernel does not",
    ),
    (
        "invalid bpf_context access off=20",
        "egress_ifindex: the kernel has it for programs of device maps only, which this load does not ask",
    ),
    (
        "with unbounded min value is not allowed",
        "the kernel knows nothing of quotients and remainders by a constant; we do",
    ),
    (
        "cannot call GPL-restricted function",
        "tracing helpers are for programs under the GPL there; this is about licenses",
    ),
    (
        "does not point to a readonly map",
        "the kernel wants a map of constants frozen against its loader too, which this load does not do",
    ),
    (
        "invalid func unknown#250",
        "the hook of our pipeline, which the kernel does not have; users' programs that call it are not loaded",
    ),
    (
        "missing btf func_info",
        "functions that helpers call need type information there, which mutants have not: the kernel does not look \
         at the program at all",
    ),
    (
        "div by zero",
        "by the constant 0: our engines give what RFC 9669 says",
    ),
];

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
            let line = text
                .lines()
                .map(str::trim)
                .rev()
                .find(|line| !line.starts_with("processed") && !line.is_empty());
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
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut reasons: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for index in 0..seeds.len() as u64 + mutants {
        // The seeds themselves first.
        let mut insns = seeds[index as usize % seeds.len()].clone();
        if index >= seeds.len() as u64 {
            mutate(&mut random, &mut insns);
        }
        if dash_bpf::decode(&insns).is_err() {
            continue;
        }
        let object = Object {
            maps: maps.clone(),
            programs: vec![Program {
                name: "mutant".to_owned(),
                kind: ProgramKind::Xdp,
                insns: insns.clone(),
                ..Program::default()
            }],
            tail_calls: Vec::new(),
        };
        let ours = verify(&object, Judge::Own);
        let theirs = kernel(&insns, &fds);
        let word = |accepts| if accepts { "accepts" } else { "refuses" };
        *counts
            .entry((word(ours.is_ok()), word(theirs.is_ok())))
            .or_default() += 1;
        let why = match (ours, theirs) {
            (Ok(_), Err(why)) => format!("ours accepts, the kernel: {why}"),
            // What both others can prove, ours should.
            (Err(e), Ok(())) if verify(&object, Judge::Prevail).is_ok() => {
                format!("PREVAIL and the kernel accept, ours: {}", first_words(&e))
            }
            _ => continue,
        };
        // Numbers and registers apart, the same reason.
        let reason: String = why
            .chars()
            .map(|c| if c.is_ascii_digit() { '#' } else { c })
            .collect();
        let text = disassemble(&insns).unwrap_or_default();
        let entry = reasons
            .entry(reason)
            .or_insert_with(|| (0, format!("{why}\n{text}")));
        entry.0 += 1;
    }
    for ((ours, kernel), count) in &counts {
        println!("ours {ours}, the kernel {kernel}: {count}");
    }
    let mut unexplained = 0;
    for (reason, (count, example)) in &reasons {
        let why = EXPLAINED.iter().find(|(words, _)| example.contains(words));
        match why {
            Some((_, why)) => println!("\n{count} times: {reason}\n  {why}"),
            None => {
                unexplained += u64::from(reason.starts_with("ours accepts")) * count;
                println!("\n{count} times: {reason}\nfor example: {example}");
            }
        }
    }
    ensure!(
        unexplained == 0,
        "{unexplained} programs that we accept the kernel refuses for reasons not explained"
    );
    Ok(())
}
