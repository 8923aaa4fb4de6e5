//! Packets of the demo configuration allocate nothing in native code: counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use dash_bench::world::{self, Rows, Runner};
use dashctl::engines::EngineName;
use nic_target::Verdict;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting on each thread.
struct Counting;

fn count() {
    // A thread that is ending has no counter, and nobody asks it.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is ours.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's contract is ours.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PACKETS: u64 = 10_000;

#[test]
fn ten_thousand_packets_of_the_demo_mix_allocate_nothing() {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        eprintln!("SKIP: there is no native code for this processor");
        return;
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verdicts");
    let mut runner = Runner::start(EngineName::Native, Rows::All, Some(cache)).unwrap();
    // Every kind of packet, flows already there and flows that are new.
    let mut packets = world::mix();
    packets.extend((0..1_000).map(|n| world::outbound(n, world::SMALL)));
    packets.extend((0..1_000).map(|n| world::inbound(n, world::SMALL)));

    let run = |runner: &mut Runner, n: u64| {
        // 40 s a round of the mix: flows expire and are made again.
        runner.advance(20_000_000);
        runner.run(&packets[n as usize % packets.len()]).unwrap()
    };
    for n in 0..100 {
        run(&mut runner, n);
    }
    let before = ALLOCATIONS.get();
    let (mut sent, mut dropped) = (0, 0);
    for n in 0..PACKETS {
        match run(&mut runner, n) {
            Verdict::Send(_) => sent += 1,
            Verdict::Drop => dropped += 1,
            other => panic!("packet {n}: {other:?}"),
        }
    }
    let allocations = ALLOCATIONS.get() - before;
    assert_eq!(allocations, 0, "allocations in {PACKETS} packets");
    assert!(
        sent > PACKETS / 2 && dropped > 0,
        "{sent} sent, {dropped} dropped"
    );

    // The counter counts.
    drop(std::hint::black_box(vec![0u8; 16]));
    assert!(ALLOCATIONS.get() > before);
}
