//! Packets of established flows, VXLAN to VXLAN: flow look-up, decap, rewrite, encap, counters.

#![forbid(unsafe_code)]

#[path = "shared/settings.rs"]
mod settings;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use dash_bench::world::{self, Rows, Runner};
use dashctl::engines::EngineName;
use nic_target::Frame;

fn apply(c: &mut Criterion) {
    let cache = world::cache().expect("a cache folder");
    let mut runner =
        Runner::start(EngineName::Native, Rows::All, Some(cache)).expect("native code");
    let mut frame = Frame::new();
    let mut group = c.benchmark_group("apply");
    for payload in [world::SMALL, 512, 1400] {
        let packets = [
            ("outbound", world::outbound(0, payload)),
            ("outbound_v6", world::outbound_v6(0, payload)),
            ("inbound", world::inbound(0, payload)),
        ];
        group.bench_function(BenchmarkId::new("copy_in", payload), |b| {
            b.iter(|| black_box(&mut frame).fill(black_box(&packets[0].1)));
        });
        for (name, packet) in &packets {
            // The first packet makes the flow.
            runner.forward(packet).expect("sent");
            group.bench_function(BenchmarkId::new(*name, payload), |b| {
                b.iter(|| runner.forward(black_box(packet)).expect("sent"));
            });
        }
    }
    group.finish();
}

/// The flow is another every time, in no order that a prefetcher knows.
fn many_flows(c: &mut Criterion) {
    const FLOWS: u32 = 60_000;
    let cache = world::cache().expect("a cache folder");
    let mut runner =
        Runner::start(EngineName::Native, Rows::All, Some(cache)).expect("native code");
    let mut group = c.benchmark_group("apply_flows");
    for flows in [1, 1_000, FLOWS] {
        let packets: Vec<_> = (0..flows)
            .map(|n| world::outbound(n, world::SMALL))
            .collect();
        for packet in &packets {
            runner.forward(packet).expect("sent");
        }
        let mut n = 0usize;
        group.bench_function(BenchmarkId::from_parameter(flows), |b| {
            b.iter(|| {
                // A step that shares no factor with the number of flows comes to all of them.
                n = (n + 7_919) % packets.len();
                runner.forward(black_box(&packets[n])).expect("sent");
            });
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = settings::criterion(); targets = apply, many_flows }
criterion_main!(benches);
