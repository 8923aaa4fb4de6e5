//! The live worker path: packets of established flows through a worker, over a port in memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use dash_engine::Engine;
use dash_runtime::{Options, Runtime};
use nic_target::{Capacity, Frame, FramePool, Port, Rx, Tx};

use crate::world::{self, Rows};

/// Makes its packets by copying them into frames, in turn, and forgets what is sent. Its copies are
/// all its work: what a packet costs beyond them and beyond compiled code is the worker's.
#[derive(Debug)]
pub struct Loop {
    packets: Arc<[Vec<u8>]>,
    at: usize,
    left: u64,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The configuration is in.
    open: AtomicBool,
    sent: AtomicU64,
}

impl Loop {
    /// A port that brings `count` packets.
    pub fn new(packets: Arc<[Vec<u8>]>, count: u64) -> Self {
        Self {
            packets,
            at: 0,
            left: count,
            shared: Arc::default(),
        }
    }
}

impl Port for Loop {
    fn name(&self) -> &str {
        "loop"
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
        // Acquire: pairs with the Release of `run`.
        if !self.shared.open.load(Ordering::Acquire) {
            return Ok(Rx::Received(0));
        }
        let n = max.min(usize::try_from(self.left).unwrap_or(max));
        let mut received = 0;
        while received < n {
            let Some(mut frame) = pool.take() else { break };
            frame.fill(&self.packets[self.at]);
            self.at = (self.at + 1) % self.packets.len();
            frame.port = index;
            burst.push(frame);
            received += 1;
        }
        self.left -= received as u64;
        Ok(Rx::Received(received))
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        let mut tx = Tx::default();
        for frame in frames.drain(..) {
            tx.sent += 1;
            tx.octets += frame.len() as u64;
            pool.give(frame);
        }
        self.shared
            .sent
            .fetch_add(tx.sent as u64, Ordering::Relaxed);
        Ok(tx)
    }
    fn idle(&mut self) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Packets of `flows` flows, in turn.
pub fn packets(flows: u32) -> Arc<[Vec<u8>]> {
    let packet = |n| world::outbound(n, world::SMALL);
    (0..flows).map(packet).collect()
}

/// `count` packets through the port alone: what the workload costs without a worker.
///
/// # Errors
/// The port fails.
pub fn port_alone(count: u64, flows: u32) -> Result<()> {
    let mut port = Loop::new(packets(flows), count);
    port.shared.open.store(true, Ordering::Release);
    let (mut pool, mut burst) = (FramePool::new(64), Vec::with_capacity(64));
    while port.rx(0, &mut pool, &mut burst, 32)? != Rx::Received(0) {
        port.tx(&mut pool, &mut burst)?;
    }
    Ok(())
}

/// `count` packets through one worker with native code.
///
/// # Errors
/// There is no native code here, or not every packet is sent.
pub fn run(count: u64, flows: u32) -> Result<()> {
    let capacity = Capacity {
        flows: 1 << 17,
        ..Capacity::default()
    };
    let port = Loop::new(packets(flows), count);
    let shared = Arc::clone(&port.shared);
    let options = Options::new(dash_runtime::Engine::Native, capacity);
    let runtime = Runtime::spawn(vec![vec![port]], &options)?;
    let capacity = runtime.capacity().clone();
    let options = dash_engine::Options {
        native: true,
        ..world::options(capacity, Some(world::cache()?))
    };
    let mut engine = Engine::new(options, Box::new(runtime))?;
    world::configure(&mut engine, &world::rows(Rows::All)?)?;
    shared.open.store(true, Ordering::Release);
    let (mut before, mut silent) = (0, 0);
    loop {
        let sent = shared.sent.load(Ordering::Relaxed);
        if sent == count {
            return Ok(());
        }
        silent = if sent == before { silent + 1 } else { 0 };
        ensure!(silent < 1_000, "{sent} of {count} packets were sent");
        before = sent;
        std::thread::sleep(Duration::from_millis(20));
    }
}
