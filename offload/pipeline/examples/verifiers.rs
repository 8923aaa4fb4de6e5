//! Our own verifier against PREVAIL on every program of every shape of the pipeline, in turns, and on
//! the objects named: time, states, memory. `verifiers [OBJECT.o ...]`

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dash_bpf::{MapDef, MapKind, Object, Program};
use dash_pipeline::plan::Shape;
use dash_pipeline::{lower, template, text};
use dash_verify::{Judge, Limits, Options, Policy, Verifier, examine};
use nic_target::Capacity;

/// Runs of each judge on each program; the fastest counts.
const ROUNDS: usize = 3;

fn shapes() -> impl Iterator<Item = Shape> {
    (0..8u32).flat_map(|bits| {
        let groups = [(0, 0), (0b10110, 0b10000), (0b11111, 0b11111)];
        groups.into_iter().map(move |(acl_out, acl_in)| Shape {
            trusted_vnis: bits & 1 != 0,
            inbound_pa_validation: bits & 2 != 0,
            underlay_routes: bits & 4 != 0,
            acl_out,
            acl_in,
            ..Shape::default()
        })
    })
}

/// One object a program, each program once.
fn programs() -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    let mut seen = HashSet::new();
    let mut add = |object: &Object| {
        for program in &object.programs {
            if seen.insert(program.insns.clone()) {
                objects.push(Object {
                    maps: object.maps.clone(),
                    programs: vec![program.clone()],
                    tail_calls: Vec::new(),
                });
            }
        }
    };
    for shape in shapes() {
        let pipeline = text::parse(&template::pipeline_text(&shape))?;
        add(&lower::lower(&pipeline, &Capacity::default())?);
    }
    for path in std::env::args().skip(1) {
        let bytes = std::fs::read(&path).with_context(|| path.clone())?;
        add(&dash_bpf::elf::read(&bytes).with_context(|| path.clone())?);
    }
    Ok(objects)
}

/// A long program: look-ups, bounds and branches one after the other, `blocks` times 21 slots.
fn long(blocks: usize) -> Result<Object> {
    let mut text = String::from("r6 = *(u32 *)(r1 + 16)\nr7 = *(u32 *)(r1 + 12)\nr8 = 0\n");
    for block in 0..blocks {
        text.push_str(&format!(
            "w2 = w6
             w2 ^= {block}
             *(u32 *)(r10 - 4) = r2
             r2 = r10
             r2 += -4
             r1 = map[0] ll
             call 1
             if r0 == 0 goto next{block}
             r3 = *(u32 *)(r0 + 0)
             if r3 == {block} goto second{block}
             r8 += r3
             w8 ^= w7
             if r3 > 56 goto next{block}
             r0 += r3
             r4 = *(u64 *)(r0 + 0)
             r8 += r4
             goto next{block}
             second{block}:
             *(u64 *)(r10 - 16) = r8
             r6 = *(u64 *)(r0 + 8)
             next{block}:\n"
        ));
    }
    text.push_str("r0 = 2\nexit");
    Ok(Object {
        maps: vec![MapDef {
            name: "values".to_owned(),
            kind: MapKind::Array,
            key_size: 4,
            value_size: 64,
            max_entries: 64,
            ..MapDef::default()
        }],
        programs: vec![Program {
            name: "long".to_owned(),
            insns: dash_bpf::assemble(&text)?,
            ..Program::default()
        }],
        tail_calls: Vec::new(),
    })
}

fn timed(judge: Judge, object: &Object) -> (bool, Duration) {
    let policy = Policy {
        judge,
        ..Policy::default()
    };
    let options = Options {
        policy,
        ..Options::default()
    };
    let mut verifier = Verifier::new(options);
    let start = Instant::now();
    let verdict = verifier.verify(object).is_ok();
    (verdict, start.elapsed())
}

fn main() -> Result<()> {
    let mut rows = Vec::new();
    for object in programs()? {
        let program = &object.programs[0];
        let mut best = [Duration::MAX; 2];
        let mut verdicts = [false; 2];
        for _ in 0..ROUNDS {
            for (index, judge) in [Judge::Own, Judge::Prevail].into_iter().enumerate() {
                let (verdict, took) = timed(judge, &object);
                verdicts[index] = verdict;
                best[index] = best[index].min(took);
            }
        }
        let cost = examine(program, &object.maps, &Limits::default(), None);
        let ratio = best[1].as_secs_f64() / best[0].as_secs_f64();
        rows.push((
            ratio,
            program.insns.len(),
            program.name.clone(),
            best,
            verdicts,
            cost,
        ));
    }
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    println!(
        "slots  program          own ms  prevail ms  ratio  verdicts     walked  states  KiB  paths"
    );
    for (ratio, slots, name, best, verdicts, cost) in &rows {
        let ms = best.map(|d| d.as_secs_f64() * 1e3);
        let verdict = |yes: bool| if yes { "yes" } else { "no" };
        let cost = match cost {
            Ok(w) => format!(
                "{:7} {:7} {:4} {:6}",
                w.instructions,
                w.states,
                w.memory / 1024,
                w.paths
            ),
            Err(e) => e.to_string(),
        };
        println!(
            "{slots:5}  {name:15} {:7.2} {:11.2} {ratio:6.1}  {:3} {:3}  {cost}",
            ms[0],
            ms[1],
            verdict(verdicts[0]),
            verdict(verdicts[1]),
        );
    }
    if let Some((median, ..)) = rows.get(rows.len() / 2) {
        println!("median: ours is {median:.1} times as fast");
    }
    // PREVAIL takes tens of seconds for these.
    for blocks in [50, 200, 400, 800] {
        let object = long(blocks)?;
        let mut best = Duration::MAX;
        for _ in 0..ROUNDS {
            best = best.min(timed(Judge::Own, &object).1);
        }
        let program = &object.programs[0];
        let cost = examine(program, &object.maps, &Limits::default(), None)?;
        println!(
            "{:5}  long: ours {:.2} ms, {} walked, {} KiB, {} paths",
            program.insns.len(),
            best.as_secs_f64() * 1e3,
            cost.instructions,
            cost.memory / 1024,
            cost.paths
        );
    }
    Ok(())
}
