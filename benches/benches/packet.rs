//! Whole packets on every engine: the first of a flow, and a later one, both ways.
//!
//! A first packet pays for the expiry of an older flow too, so that the table neither fills nor
//! empties while it is measured.

#![forbid(unsafe_code)]

#[path = "shared/settings.rs"]
mod settings;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use dash_bench::world::{self, Rows, Runner};
use dashctl::engines::EngineName;

const ENGINES: [EngineName; 4] = [
    EngineName::Native,
    EngineName::Interp,
    EngineName::Rbpf,
    EngineName::Model,
];

/// The clock's step between first packets: with it, some hundred flows of UDP live at a time.
const STEP_NS: u64 = 1_000_000_000;

fn packet(c: &mut Criterion) {
    let mut runners: Vec<(EngineName, Runner)> = ENGINES
        .into_iter()
        .map(|name| {
            let cache = world::cache().expect("a cache folder");
            (
                name,
                Runner::start(name, Rows::All, Some(cache)).expect("an engine"),
            )
        })
        .collect();
    type Make = fn(u32, usize) -> Vec<u8>;
    for (way, make) in [
        ("outbound", world::outbound as Make),
        ("inbound", world::inbound),
    ] {
        let mut group = c.benchmark_group(format!("packet/{way}/established"));
        for (name, runner) in &mut runners {
            let packet = make(0, world::SMALL);
            runner.forward(&packet).expect("sent");
            group.bench_function(name.as_str(), |b| {
                b.iter(|| runner.forward(black_box(&packet)).expect("sent"));
            });
        }
        group.finish();
        let mut group = c.benchmark_group(format!("packet/{way}/first"));
        for (name, runner) in &mut runners {
            let mut n = 0;
            let mut next = || {
                n += 1;
                make(n, world::SMALL)
            };
            for _ in 0..1_000 {
                runner.advance(STEP_NS);
                runner.forward(&next()).expect("sent");
            }
            group.bench_function(name.as_str(), |b| {
                b.iter_batched(
                    &mut next,
                    |packet| {
                        runner.advance(STEP_NS);
                        runner.forward(black_box(&packet)).expect("sent");
                    },
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group! { name = benches; config = settings::criterion(); targets = packet }
criterion_main!(benches);
