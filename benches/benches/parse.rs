//! Packets that go no further than parsing: dropped at the VIP, at the ENI, or cut short.

#![forbid(unsafe_code)]

#[path = "shared/settings.rs"]
mod settings;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dash_bench::world::{self, Rows, Runner};
use dashctl::engines::EngineName;
use nic_target::{Frame, Verdict};

fn parse(c: &mut Criterion) {
    let cache = world::cache().expect("a cache folder");
    let mut runner =
        Runner::start(EngineName::Native, Rows::All, Some(cache)).expect("native code");
    let mut truncated = world::outbound(0, world::SMALL);
    truncated.truncate(80);
    let packets = [
        ("vip_miss", world::vip_miss()),
        ("eni_miss", world::eni_miss()),
        ("truncated", truncated),
    ];
    let mut group = c.benchmark_group("parse");
    // What every one of the others pays too: the packet copied into its frame.
    let (mut frame, packet) = (Frame::new(), world::vip_miss());
    group.bench_function("copy_in", |b| {
        b.iter(|| black_box(&mut frame).fill(black_box(&packet)))
    });
    for (name, packet) in packets {
        let verdict = runner.run(&packet).expect("a verdict");
        assert_eq!(verdict, Verdict::Drop, "{name}");
        group.bench_function(name, |b| b.iter(|| runner.run(black_box(&packet))));
    }
    group.finish();
}

criterion_group! { name = benches; config = settings::criterion(); targets = parse }
criterion_main!(benches);
