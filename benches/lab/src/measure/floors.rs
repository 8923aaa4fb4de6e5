//! `dashctl bench floors`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::Bench;
use crate::lab::{Lab, capacity};
use crate::machine::{available_memory, thread_cpu_ns};
use crate::port::{Job, floor};
use crate::result::Group;
use crate::traffic::{Order, Traffic, splitmix};
use crate::world::Way;

/// A cache line.
type Line = [u64; 8];
const LINE: usize = size_of::<Line>();
/// Reads that do not depend on each other, as a burst of packets makes them.
const BURST: usize = 32;

pub(super) fn run(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let options = bench.options;
    let packets = options.scale(320, 200_000);
    let order = Order::Sequential { from: 0 };
    let forwarded = Arc::new(Traffic::of(Way::Vnet.template(64)?));
    // The empty configuration has no VIP.
    let mut empty = Lab::start(options, capacity(1 << 16))?;
    for n in 0..options.samples() {
        (bench.progress)(&format!("floors: sample {}", n + 1));
        let job = |_| Job::new(&forwarded, order, packets);
        let alone = floor(job(0));
        ensure!(alone.out == packets, "the floor loses packets");
        let row = group.sample("I/O, receive and send", "ns/packet", alone.ns_per_packet());
        row.note(
            "generator and port in a loop of their own: what every figure of packets contains",
        );
        let run = empty.run(job)?;
        ensure!(run.out() == 0, "a card without a VIP sends");
        let row = group.sample(
            "worker loop, drop at the VIP",
            "ns/packet",
            run.ns_per_packet(),
        );
        row.note("receive, first stage, no send");

        for (name, bytes) in options.scale(
            vec![("16 KiB", 16 << 10), ("1 MiB", 1 << 20)],
            vec![
                ("16 KiB", 16 << 10),
                ("1 MiB", 1 << 20),
                ("16 MiB", 16 << 20),
                ("512 MiB", 512 << 20),
            ],
        ) {
            let ns = dependent_load(bytes, options.scale(10_000, 1_000_000), options.seed);
            group.sample(&format!("dependent load, {name}"), "ns", ns);
        }
        for lines in options.scale(vec![1 << 10], vec![64 << 10, 1 << 20, 16 << 20]) {
            let name = format!("a line of {lines} read and written, bursts of {BURST}");
            if (lines * LINE) as u64 > available_memory() / 2 {
                group.skipped.push(format!("{name}: no memory"));
                continue;
            }
            let ns = scattered(lines, options.scale(1_000, 1_000_000), options.seed);
            let row = group.sample(&name, "ns", ns);
            row.note(
                "what a table of so many flows costs at least, pages as the system gives them",
            );
        }
        group.sample(
            "copying memory",
            "GB/s",
            copy(options.scale(1 << 20, 64 << 20)),
        );
        group.sample(
            "reading the clock",
            "ns",
            clock(options.scale(1_000, 1_000_000)),
        );
    }
    Ok(())
}

/// ns a load whose address the load before it gave, over so many bytes.
fn dependent_load(bytes: usize, loads: u64, seed: u64) -> f64 {
    let lines = bytes / LINE;
    let mut order: Vec<u32> = (0..lines as u32).collect();
    let mut random = seed;
    // Sattolo's shuffle: one cycle through all.
    for at in (1..lines).rev() {
        order.swap(at, (splitmix(&mut random) % at as u64) as usize);
    }
    let mut memory: Vec<Line> = vec![[0; 8]; lines];
    for (at, next) in order.into_iter().enumerate() {
        memory[at][0] = u64::from(next);
    }
    let start = thread_cpu_ns();
    let mut at = 0;
    for _ in 0..loads {
        at = memory[at as usize][0];
    }
    black_box(at);
    (thread_cpu_ns() - start) as f64 / loads as f64
}

/// ns to read and write a line at random, of so many; the lines of a burst are independent.
fn scattered(lines: usize, rounds: u64, seed: u64) -> f64 {
    // Written, so that every page is there.
    let mut memory: Vec<Line> = vec![[1; 8]; lines];
    let mut random = seed;
    let mut at = [0usize; BURST];
    let bursts = (rounds / BURST as u64).max(1);
    let start = thread_cpu_ns();
    for _ in 0..bursts {
        for at in &mut at {
            *at = (((splitmix(&mut random) >> 32) * lines as u64) >> 32) as usize;
        }
        for at in at {
            memory[at][0] = memory[at][0].wrapping_add(memory[at][1]);
        }
    }
    black_box(&memory);
    (thread_cpu_ns() - start) as f64 / (bursts * BURST as u64) as f64
}

/// GB a second, from one place to another.
fn copy(bytes: usize) -> f64 {
    let (from, mut to) = (vec![1u8; bytes], vec![0u8; bytes]);
    to.copy_from_slice(black_box(&from));
    let start = thread_cpu_ns();
    to.copy_from_slice(black_box(&from));
    black_box(&to);
    bytes as f64 / (thread_cpu_ns() - start).max(1) as f64
}

/// ns to read the clock the worker reads.
fn clock(times: u64) -> f64 {
    let start = thread_cpu_ns();
    for _ in 0..times {
        black_box(Instant::now());
    }
    (thread_cpu_ns() - start) as f64 / times as f64
}
