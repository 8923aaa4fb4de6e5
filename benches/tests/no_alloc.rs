//! Packets of the demo configuration allocate nothing in native code: counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dash_bench::programs;
use dash_bench::world::{self, Rows, Runner};
use dash_bpf::helper::XdpAction;
use dash_prog::{Ingress, LoadOptions, Loaded, Packet};
use dash_runtime::{Options, Runtime};
use dashctl::engines::EngineName;
use nic_target::{Capacity, Frame, FramePool, Port, Rx, Target as _, Tx, Verdict};

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

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("verdicts")
}

#[test]
fn ten_thousand_packets_of_the_demo_mix_allocate_nothing() {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        eprintln!("SKIP: there is no native code for this processor");
        return;
    }
    let cache = cache();
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

/// The programs that we ship, new keys in their maps and full ring buffers among what they meet.
#[test]
fn programs_of_users_allocate_nothing_on_packets() {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        eprintln!("SKIP: there is no native code for this processor");
        return;
    }
    for name in programs::ALL {
        let Some(elf) = programs::object(name).unwrap() else {
            return;
        };
        let loaded = Loaded::from_elf(&[&elf], &LoadOptions::default()).unwrap();
        let mut runner = loaded.first().unwrap().runner(0).unwrap();
        let mut memory = [0; 1024];
        let before = ALLOCATIONS.get();
        let mut passed = 0;
        for n in 0..PACKETS {
            // IPv4 with a source for every other packet, and a UDP or TCP header.
            let packet = &mut memory[256..320];
            packet.fill(0);
            packet[12] = 8;
            packet[14] = 0x45;
            packet[23] = if n % 3 == 0 { 6 } else { 17 };
            packet[26..30].copy_from_slice(&(n as u32 / 2).to_be_bytes());
            let mut packet = Packet::new(&mut memory, 256..320).unwrap();
            let ingress = Ingress {
                now_ns: n * 1_000,
                ..Ingress::default()
            };
            let outcome = runner.run(&mut packet, &ingress);
            passed += u64::from(outcome.action == XdpAction::Pass);
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{name}");
        assert_eq!(
            passed, PACKETS,
            "{name}: control wrote nothing into its maps"
        );
    }
}

/// Packets until the collector of generations is done with what the update left: it looks every
/// 128 bursts.
const WARM_UP: u64 = 20_000;
/// Packets after that.
const WATCHED: u64 = 100_000;

#[derive(Debug, Default)]
struct Told {
    /// The configuration is in.
    open: AtomicBool,
    sent: AtomicU64,
    /// Allocations of the worker's thread + 1, once all packets have run; 0 until then.
    allocations: AtomicU64,
}

/// Brings its packets in full bursts by the clock of the machine, and looks, from the worker's own
/// thread, at what that allocates.
#[derive(Debug)]
struct Watching {
    packets: Vec<Vec<u8>>,
    made: u64,
    before: u64,
    told: Arc<Told>,
}

impl Port for Watching {
    fn name(&self) -> &str {
        "watching"
    }
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }
    fn rx(
        &mut self,
        index: u16,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx> {
        // Acquire: pairs with the Release of the test.
        if !self.told.open.load(Ordering::Acquire) {
            return Ok(Rx::Received(0));
        }
        if self.made >= WARM_UP + WATCHED {
            let made = ALLOCATIONS.get() - self.before;
            // Release: what was sent is seen by who sees this. Later rounds are not looked at.
            let _ = self.told.allocations.compare_exchange(
                0,
                made + 1,
                Ordering::Release,
                Ordering::Relaxed,
            );
            return Ok(Rx::Received(0));
        }
        if self.made < WARM_UP {
            self.before = ALLOCATIONS.get();
        }
        let mut received = 0;
        while received < max {
            let Some(mut frame) = pool.take() else { break };
            assert!(frame.fill(&self.packets[self.made as usize % self.packets.len()]));
            frame.port = index;
            burst.push(frame);
            self.made += 1;
            received += 1;
        }
        Ok(Rx::Received(received))
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        let mut tx = Tx::default();
        for frame in frames.drain(..) {
            tx.sent += 1;
            tx.octets += frame.len() as u64;
            pool.give(frame);
        }
        self.told.sent.fetch_add(tx.sent as u64, Ordering::Relaxed);
        Ok(tx)
    }
}

#[test]
fn bursts_of_a_live_worker_allocate_nothing() {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        eprintln!("SKIP: there is no native code for this processor");
        return;
    }
    // Flows: some that stay, and more new ones in the watched packets than in the warm-up. Bursts
    // whose packets all leave, and mixed ones.
    let mut packets: Vec<Vec<u8>> = (0..30_000)
        .map(|n| world::outbound(n / 3, world::SMALL))
        .collect();
    packets.extend((0..10_000).map(|n| world::inbound(n, world::SMALL)));
    packets.extend(world::mix().into_iter().cycle().take(10_000));
    let told = Arc::new(Told::default());
    let port = Watching {
        packets,
        made: 0,
        before: 0,
        told: Arc::clone(&told),
    };
    let capacity = Capacity {
        flows: 1 << 16,
        ..Capacity::default()
    };
    let options = Options::new(dash_runtime::Engine::Native, capacity);
    let runtime = Runtime::spawn(vec![vec![port]], &options).unwrap();
    let options = dash_engine::Options {
        native: true,
        ..world::options(runtime.capacity().clone(), Some(cache()))
    };
    let mut engine = dash_engine::Engine::new(options, Box::new(runtime)).unwrap();
    world::configure(&mut engine, &world::rows(Rows::All).unwrap()).unwrap();
    told.open.store(true, Ordering::Release);
    let start = Instant::now();
    // Acquire: pairs with the Release of the port.
    let allocations = loop {
        match told.allocations.load(Ordering::Acquire) {
            0 => assert!(
                start.elapsed() < Duration::from_secs(120),
                "the packets never ended"
            ),
            told => break told - 1,
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(allocations, 0, "allocations in {WATCHED} packets");
    let sent = told.sent.load(Ordering::Relaxed);
    assert!(
        sent > WATCHED / 2 && sent < WARM_UP + WATCHED,
        "{sent} were sent"
    );
    let flows = engine.target_mut().flow_count().unwrap();
    assert!(flows > 10_000, "{flows} flows were made");
}
