//! Offered load from a core of its own: intended send times over a ring to the port.
//!
//! The generator decides when each packet is due and never waits for anyone: what finds the ring full
//! is lost, as at a NIC whose receive queue is full. A packet's latency counts from the time it was
//! due, so a stall of the data plane (or of the generator) is in every latency it delayed, not only in
//! one (no coordinated omission).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Times on their way from one thread to another. One producer, one consumer.
#[derive(Debug)]
pub struct TimeRing {
    slots: Box<[AtomicU64]>,
    /// Written by the producer alone.
    tail: Padded,
    /// Written by the consumer alone.
    head: Padded,
    closed: AtomicBool,
}

/// Alone in its cache lines (two, as processors fetch pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

impl TimeRing {
    /// An empty ring of `size` places, rounded up to a power of two.
    pub fn new(size: usize) -> Self {
        Self {
            slots: (0..size.next_power_of_two())
                .map(|_| AtomicU64::new(0))
                .collect(),
            tail: Padded::default(),
            head: Padded::default(),
            closed: AtomicBool::new(false),
        }
    }

    fn slot(&self, at: u64) -> &AtomicU64 {
        &self.slots[at as usize & (self.slots.len() - 1)]
    }

    /// Nothing will be added any more, and everything was taken.
    pub fn finished(&self) -> bool {
        // Acquire: who sees `closed` sees the last tail.
        self.closed.load(Ordering::Acquire)
            && self.tail.0.load(Ordering::Acquire) == self.head.0.load(Ordering::Relaxed)
    }

    /// Takes at most `max` times in order; returns how many. One consumer at a time.
    pub fn take(&self, max: usize, mut each: impl FnMut(u64)) -> usize {
        let head = self.head.0.load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `Producer::publish`, so the slots are written.
        let waiting = self.tail.0.load(Ordering::Acquire) - head;
        let n = waiting.min(max as u64);
        for at in head..head + n {
            each(self.slot(at).load(Ordering::Relaxed));
        }
        if n > 0 {
            // Release: the slots were read.
            self.head.0.store(head + n, Ordering::Release);
        }
        n as usize
    }
}

/// The producer's end.
struct Producer<'a> {
    ring: &'a TimeRing,
    tail: u64,
    /// The consumer's position as last seen.
    head: u64,
}

impl Producer<'_> {
    /// False when the ring is full.
    fn push(&mut self, time: u64) -> bool {
        let size = self.ring.slots.len() as u64;
        if self.tail - self.head == size {
            // Acquire: the consumer has read what it passed.
            self.head = self.ring.head.0.load(Ordering::Acquire);
            if self.tail - self.head == size {
                return false;
            }
        }
        self.ring.slot(self.tail).store(time, Ordering::Relaxed);
        self.tail += 1;
        true
    }

    fn publish(&self) {
        self.ring.tail.0.store(self.tail, Ordering::Release);
    }
}

/// What a generator did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Offered {
    /// Packets that were due.
    pub packets: u64,
    /// Of these, found the ring full.
    pub lost: u64,
    /// Longest the generator itself was late, ns: other work on its core.
    pub behind_ns: u64,
}

/// Offers `rate` packets a second for `time`, from now. Runs on the calling thread and keeps its core
/// busy; closes the ring at the end. Times are ns since `epoch`.
pub fn offer(ring: &TimeRing, epoch: Instant, rate: f64, time: Duration) -> Offered {
    let mut producer = Producer {
        ring,
        tail: ring.tail.0.load(Ordering::Relaxed),
        head: ring.head.0.load(Ordering::Acquire),
    };
    let mut out = Offered::default();
    let now = || epoch.elapsed().as_nanos() as u64;
    let start = now();
    let interval = 1e9 / rate.max(1e-3);
    let total = (time.as_secs_f64() * rate).ceil().max(1.0) as u64;
    while out.packets < total {
        let at = now();
        let mut due = start + (out.packets as f64 * interval) as u64;
        if due > at {
            std::hint::spin_loop();
            continue;
        }
        out.behind_ns = out.behind_ns.max(at - due);
        // No more at once than the ring holds: the consumer's position is then looked at again.
        let most = (out.packets + ring.slots.len() as u64).min(total);
        while due <= at && out.packets < most {
            if !producer.push(due) {
                out.lost += 1;
            }
            out.packets += 1;
            due = start + (out.packets as f64 * interval) as u64;
        }
        producer.publish();
    }
    // Release: pairs with the Acquire in `finished`.
    ring.closed.store(true, Ordering::Release);
    out
}

/// A generator on a thread of its own, on `core` if there is one for it.
#[derive(Debug)]
pub struct Generator(std::thread::JoinHandle<Offered>);

impl Generator {
    /// Starts it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn(
        ring: Arc<TimeRing>,
        epoch: Instant,
        rate: f64,
        time: Duration,
        core: Option<usize>,
    ) -> std::io::Result<Self> {
        let run = move || {
            if let Some(core) = core {
                // Where it cannot be pinned it runs where it may; `behind_ns` tells.
                let _ = dash_runtime::runtime::affinity::pin(core);
            }
            offer(&ring, epoch, rate, time)
        };
        std::thread::Builder::new()
            .name("dash-generator".to_owned())
            .spawn(run)
            .map(Self)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It panicked.
    pub fn join(self) -> anyhow::Result<Offered> {
        self.0
            .join()
            .map_err(|_| anyhow::anyhow!("the generator's thread panicked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_that_was_not_lost_arrives_once_and_in_order() {
        let ring = Arc::new(TimeRing::new(64));
        let epoch = Instant::now();
        let rate = 200_000.0;
        let generator = Generator::spawn(
            Arc::clone(&ring),
            epoch,
            rate,
            Duration::from_millis(20),
            None,
        )
        .unwrap();
        let mut times = Vec::new();
        while !ring.finished() {
            ring.take(32, |time| times.push(time));
        }
        let offered = generator.join().unwrap();
        assert_eq!(offered.packets, 4_000);
        assert_eq!(times.len() as u64 + offered.lost, offered.packets);
        assert!(times.is_sorted(), "in order");
        assert_eq!(ring.take(32, |_| ()), 0);
    }

    #[test]
    fn a_full_ring_loses_and_says_so() {
        let ring = TimeRing::new(16);
        let offered = offer(&ring, Instant::now(), 1e6, Duration::from_micros(100));
        assert_eq!((offered.packets, offered.lost), (100, 84));
        assert!(!ring.finished());
        let mut first = Vec::new();
        assert_eq!(ring.take(100, |time| first.push(time)), 16);
        assert!(ring.finished() && first.windows(2).all(|w| w[0] < w[1]));
    }
}
