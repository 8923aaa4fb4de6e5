//! Packets allocate nothing: counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dash_runtime::{Core, Engine, Options, Runtime};
use nic_target::{Frame, FramePool, PacketEngine, Port, Rx, Target, Tx, Verdict};

#[path = "it/support.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod support;

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

#[test]
fn packets_flows_and_their_ageing_allocate_nothing() {
    let mut core = Core::new(Engine::Interp, &support::capacity()).unwrap();
    core.apply(&support::update(
        1,
        Some(support::small_pipeline()),
        support::rows(),
    ))
    .unwrap();
    let mut frame = support::frame([10, 1, 2, 3], 0, 0);
    let packet = frame.data().to_vec();
    let run = |core: &mut Core, frame: &mut nic_target::Frame, n: u64| {
        assert!(frame.fill(&packet));
        // A new flow every packet, and time for older ones to go: create, hit, full, expire.
        frame.data_mut()[34..36].copy_from_slice(&((n / 3) as u16).to_be_bytes());
        frame.timestamp_ns = n * 40_000_000;
        core.run(frame).unwrap()
    };
    for n in 0..10 {
        run(&mut core, &mut frame, n);
    }
    let before = ALLOCATIONS.get();
    let mut sent = 0;
    for n in 10..5_010 {
        sent += u64::from(run(&mut core, &mut frame, n) == Verdict::Send(1));
    }
    let made = ALLOCATIONS.get() - before;
    assert_eq!(made, 0, "allocations in 5,000 packets");
    assert!(sent > 2_500, "{sent} were sent");
    assert!(core.flows().unwrap().len() > 4);
}

/// Long enough for the epoch collector to be done with what the update left (a few frees an update,
/// not a packet): it looks every 128 pins.
const WARM_UP: u64 = 4_000;
/// Frames of a receive: few, so that there are many bursts.
const FRAMES: usize = 4;
const PACKETS: u64 = 20_000;

/// Makes its packets itself and looks, from the worker's own thread, at what it allocates.
struct Generator {
    packet: Vec<u8>,
    made: u64,
    before: u64,
    /// Allocations after the warm-up, once all packets have run; `u64::MAX` until then.
    allocations: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    /// The image is installed.
    open: Arc<AtomicBool>,
}

impl Port for Generator {
    fn name(&self) -> &str {
        "generator"
    }
    fn mac(&self) -> [u8; 6] {
        [0; 6]
    }
    fn rx(
        &mut self,
        index: u16,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx> {
        // Acquire: pairs with the Release of the test.
        if !self.open.load(Ordering::Acquire) {
            return Ok(Rx::Received(0));
        }
        if self.made == PACKETS {
            let made = ALLOCATIONS.get() - self.before;
            let _ = self.allocations.compare_exchange(
                u64::MAX,
                made,
                Ordering::Release,
                Ordering::Relaxed,
            );
            return Ok(Rx::Received(0));
        }
        let mut received = 0;
        while received < max.min(FRAMES) && self.made < PACKETS {
            let Some(mut frame) = pool.take() else { break };
            assert!(frame.fill(&self.packet));
            frame.data_mut()[34..36].copy_from_slice(&((self.made / 3) as u16).to_be_bytes());
            frame.port = index;
            frame.timestamp_ns = self.made * 40_000_000;
            burst.push(frame);
            received += 1;
            self.made += 1;
            if self.made == WARM_UP {
                self.before = ALLOCATIONS.get();
            }
        }
        Ok(Rx::Received(received))
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        let sent = frames.len();
        let octets = frames.iter().map(|frame| frame.len() as u64).sum();
        frames.drain(..).for_each(|frame| pool.give(frame));
        self.sent.fetch_add(sent as u64, Ordering::Relaxed);
        Ok(Tx {
            sent,
            octets,
            dropped: 0,
        })
    }
    fn virtual_time(&self) -> bool {
        true
    }
}

#[test]
fn the_worker_loop_allocates_nothing() {
    let (allocations, sent) = (
        Arc::new(AtomicU64::new(u64::MAX)),
        Arc::new(AtomicU64::new(0)),
    );
    let open = Arc::new(AtomicBool::new(false));
    let port = |made| Generator {
        packet: support::frame([10, 1, 2, 3], 0, 0).data().to_vec(),
        made,
        before: 0,
        allocations: if made == 0 {
            Arc::clone(&allocations)
        } else {
            Arc::default()
        },
        sent: Arc::clone(&sent),
        open: Arc::clone(&open),
    };
    // The second port brings nothing; it is where packets leave.
    let mut runtime = Runtime::spawn(
        vec![vec![port(0), port(PACKETS)]],
        &Options::new(Engine::Interp, support::capacity()),
    )
    .unwrap();
    runtime
        .apply(&support::update(
            1,
            Some(support::small_pipeline()),
            support::rows(),
        ))
        .unwrap();
    open.store(true, Ordering::Release);
    let start = std::time::Instant::now();
    // Acquire: pairs with the Release of the port.
    while allocations.load(Ordering::Acquire) == u64::MAX {
        assert!(
            start.elapsed() < std::time::Duration::from_secs(60),
            "the packets never ended"
        );
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(
        allocations.load(Ordering::Acquire),
        0,
        "allocations in {} packets",
        PACKETS - WARM_UP
    );
    assert!(sent.load(Ordering::Relaxed) > PACKETS / 2);
}
