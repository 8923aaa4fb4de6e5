//! What a change of shape costs: IR to eBPF, a verdict known already, eBPF to machine code.

#![forbid(unsafe_code)]

#[path = "shared/settings.rs"]
mod settings;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dash_bench::world::{self, Rows, Runner};
use dash_pipeline::{lower, text};
use dash_verify::Verifier;
use dashctl::engines::EngineName;

fn compile(c: &mut Criterion) {
    let cache = world::cache().expect("a cache folder");
    let name = EngineName::Native;
    let mut runner = Runner::start(name, Rows::All, Some(cache.clone())).expect("native code");
    let image = runner.engine().image().clone();
    let mut verifier = Verifier::new(dash_verify::Options {
        cache_dir: Some(cache),
        ..dash_verify::Options::default()
    });
    let verified = verifier.verify(&image.object).expect("it is accepted");
    let slots: usize = image.object.programs.iter().map(|p| p.insns.len()).sum();
    eprintln!(
        "the demo's shape: {} programs, {slots} slots",
        image.object.programs.len()
    );

    let mut group = c.benchmark_group("compile");
    group.bench_function("parse_ir", |b| b.iter(|| text::parse(black_box(&image.ir))));
    let pipeline = text::parse(&image.ir).expect("it was printed");
    group.bench_function("lower", |b| {
        b.iter(|| lower::lower(black_box(&pipeline), &name.capacity()));
    });
    group.bench_function("verify_from_memory", |b| {
        b.iter(|| {
            verifier
                .verify(black_box(&image.object))
                .expect("it is accepted")
        });
    });
    group.bench_function("native", |b| {
        let options = dash_native::Options::default();
        b.iter(|| dash_native::compile(black_box(&verified), &options).expect("it compiles"));
    });
    group.finish();
}

criterion_group! { name = benches; config = settings::criterion(); targets = compile }
criterion_main!(benches);
