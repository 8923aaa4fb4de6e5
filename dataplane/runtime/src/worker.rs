//! The worker loop: the only one, whatever the ports are.
//!
//! Once round the loop: take a command, pin the current generation, receive a burst from each port,
//! run every frame, send what goes out of each port, do a budget of ageing. Per packet it takes no
//! lock and allocates nothing: frames circulate between the pool, the ports and the rings.
//!
//! Time. On ports with a clock of their own (captures, simulation) the frames' timestamps are the
//! time: frames of all ports are merged by timestamp, and before each frame all flows that are due
//! by then expire. Otherwise a monotonic clock is read once a burst, and ageing looks at a bounded
//! number of flows a burst.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use dash_wire::stats::PortStat;
use dash_wire::tables::FlowEntry;
use nic_target::{CounterSnapshot, Frame, FramePool, Port, Rx, TargetError, Verdict};

use crate::ager;
use crate::datapath::{Bound, Datapath};
use crate::generation::{Pin, Reader};

/// Most frames of a receive.
pub const BURST: usize = 32;
/// Scheduled flows looked at a burst, in live mode.
const AGE_BUDGET: usize = 256;
/// Flow slots copied a burst for a snapshot.
const SNAPSHOT_BUDGET: u32 = 512;
/// Empty rounds before a port is asked to wait.
const IDLE_ROUNDS: u32 = 64;
const RING: usize = 512;

/// What control asks of a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Counters now.
    Counters(Asker),
    /// Live connections. Control brings the memory; the worker copies a budget a burst.
    Flows {
        asker: Asker,
        next: u32,
        flows: Vec<FlowEntry>,
    },
    /// End the flows of ENIs that the generation just published no longer has.
    Purge {
        asker: Asker,
        next: u32,
        enis: Vec<u32>,
    },
}

/// Who waits for an answer.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) thread: Thread,
}

/// An answer.
#[derive(Debug)]
pub(crate) enum Reply {
    Counters(CounterSnapshot),
    Flows(Vec<FlowEntry>),
    Purged(Vec<u32>),
}

/// Everything that passes between control and a worker, all of it bounded and lock-free.
#[derive(Debug)]
pub(crate) struct Rings {
    pub(crate) commands: ArrayQueue<Command>,
    pub(crate) replies: ArrayQueue<Reply>,
    /// Frames for the control plane.
    pub(crate) punts: ArrayQueue<Frame>,
    /// Frames to send out of `Frame::port`.
    pub(crate) injects: ArrayQueue<Frame>,
    /// Empty frames on their way to whoever needs one.
    pub(crate) spare: ArrayQueue<Frame>,
    pub(crate) stop: AtomicBool,
    pub(crate) finished: AtomicBool,
    pub(crate) events: Events,
}

/// What a worker counts that has no SAI name.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) punts_dropped: AtomicU64,
    pub(crate) aborted: AtomicU64,
    pub(crate) port_errors: AtomicU64,
}

impl Rings {
    pub(crate) fn new() -> Self {
        Self {
            commands: ArrayQueue::new(4),
            replies: ArrayQueue::new(4),
            punts: ArrayQueue::new(RING),
            injects: ArrayQueue::new(RING),
            spare: ArrayQueue::new(2 * RING),
            stop: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            events: Events::default(),
        }
    }
}

fn bump(counter: &AtomicU64) {
    // Relaxed: a number to read, it orders nothing.
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A port and what waits on it.
#[derive(Debug)]
struct Lane<P> {
    port: P,
    /// Nothing will ever be received again.
    ended: bool,
    /// Received and not yet run (virtual time only).
    waiting: VecDeque<Frame>,
    /// To be sent at the end of the burst.
    out: Vec<Frame>,
}

/// A thread's work: ports, and the core that runs their packets.
#[derive(Debug)]
pub struct Worker<P: Port> {
    lanes: Vec<Lane<P>>,
    pool: FramePool,
    pool_size: usize,
    burst: Vec<Frame>,
    core: Datapath,
    flow_slots: u32,
    rings: Arc<Rings>,
    virtual_time: bool,
    started: Instant,
    idle_rounds: u32,
    snapshot: Option<(Asker, u32, Vec<FlowEntry>)>,
    purge: Option<(Asker, u32, Vec<u32>)>,
}

impl<P: Port> Worker<P> {
    pub(crate) fn new(ports: Vec<P>, core: Datapath, flow_slots: u32, rings: Arc<Rings>) -> Self {
        let pool_size = 512 + 2 * BURST * ports.len();
        let virtual_time = ports.iter().any(Port::virtual_time);
        let lane = |port| Lane {
            port,
            ended: false,
            waiting: VecDeque::with_capacity(2 * BURST),
            out: Vec::with_capacity(pool_size),
        };
        Self {
            lanes: ports.into_iter().map(lane).collect(),
            pool: FramePool::new(pool_size),
            pool_size,
            burst: Vec::with_capacity(2 * BURST),
            core,
            flow_slots,
            rings,
            virtual_time,
            started: Instant::now(),
            idle_rounds: 0,
            snapshot: None,
            purge: None,
        }
    }

    /// Runs until control says stop; gives the ports back.
    pub(crate) fn run(mut self, reader: &Reader) -> Vec<P> {
        // Acquire: pairs with the Release of who stops us, so that what it did before is seen.
        while !self.rings.stop.load(Ordering::Acquire) {
            self.command();
            let received = {
                let pin = reader.pin();
                if self.virtual_time {
                    self.virtual_round(&pin)
                } else {
                    self.live_round(&pin)
                }
            };
            let sent = self.inject();
            self.balance_pool();
            self.rest(received + sent);
        }
        self.lanes.into_iter().map(|lane| lane.port).collect()
    }

    /// One burst from each port, at the time of the clock.
    fn live_round(&mut self, pin: &Pin<'_>) -> usize {
        let mut received = 0;
        for at in 0..self.lanes.len() {
            // Half a millennium of nanoseconds fits.
            let now = self.started.elapsed().as_nanos() as u64;
            self.core.advance(now, AGE_BUDGET);
            received += self.receive(at);
            let mut bound = self.core.bind(pin.generation());
            for mut frame in self.burst.drain(..) {
                let verdict = bound.run(&mut frame);
                deal(
                    &mut bound,
                    &mut self.lanes,
                    &mut self.pool,
                    &self.rings,
                    frame,
                    verdict,
                );
            }
            self.send();
        }
        received
    }

    /// The next frames of all ports by their timestamps.
    fn virtual_round(&mut self, pin: &Pin<'_>) -> usize {
        let mut received = 0;
        for at in 0..self.lanes.len() {
            if self.lanes[at].waiting.is_empty() {
                received += self.receive(at);
                self.lanes[at].waiting.extend(self.burst.drain(..));
            }
        }
        let mut bound = self.core.bind(pin.generation());
        for _ in 0..BURST {
            let heads = self.lanes.iter().enumerate();
            let heads =
                heads.filter_map(|(at, lane)| Some((lane.waiting.front()?.timestamp_ns, at)));
            let Some((_, at)) = heads.min() else { break };
            let lane = &mut self.lanes[at];
            let Some(mut frame) = lane.waiting.pop_front() else {
                break;
            };
            // This port may hold the next frame: ask it before any other port's is run. Ports that
            // had nothing when asked do not hold the others up.
            let last = lane.waiting.is_empty() && !lane.ended;
            bound.core().advance(frame.timestamp_ns, usize::MAX);
            let verdict = bound.run(&mut frame);
            deal(
                &mut bound,
                &mut self.lanes,
                &mut self.pool,
                &self.rings,
                frame,
                verdict,
            );
            if last {
                break;
            }
        }
        self.send();
        received
    }

    /// Receives into the burst from one port.
    fn receive(&mut self, at: usize) -> usize {
        let lane = &mut self.lanes[at];
        if lane.ended {
            return 0;
        }
        // There are few ports: a runtime is not made with more than `u16` counts.
        let got = match lane
            .port
            .rx(at as u16, &mut self.pool, &mut self.burst, BURST)
        {
            Ok(Rx::Received(n)) => n,
            Ok(Rx::End) => {
                lane.ended = true;
                0
            }
            Err(_) => {
                // The interface may come back; a port that is gone for good says `End`.
                bump(&self.rings.events.port_errors);
                self.idle_rounds = self.idle_rounds.max(IDLE_ROUNDS);
                0
            }
        };
        if got > 0 {
            let octets = self
                .burst
                .iter()
                .map(|frame| frame.data().len() as u64)
                .sum();
            let tables = self.core.tables_mut();
            tables.count_port(PortStat::IfInOctets, octets);
            tables.count_port(PortStat::IfInUcastPkts, got as u64);
        }
        got
    }

    /// Sends what lies on every lane.
    fn send(&mut self) -> usize {
        let mut count = 0;
        for lane in self.lanes.iter_mut().filter(|lane| !lane.out.is_empty()) {
            let frames = lane.out.len() as u64;
            let tx = lane
                .port
                .tx(&mut self.pool, &mut lane.out)
                .unwrap_or_else(|_| {
                    bump(&self.rings.events.port_errors);
                    nic_target::Tx {
                        dropped: frames as usize,
                        ..Default::default()
                    }
                });
            // Whatever a failing port left.
            lane.out.drain(..).for_each(|frame| self.pool.give(frame));
            let sent = (tx.sent as u64).min(frames);
            let tables = self.core.tables_mut();
            tables.count_port(PortStat::IfOutUcastPkts, sent);
            tables.count_port(PortStat::IfOutOctets, tx.octets);
            tables.count_port(PortStat::IfOutDiscards, tx.dropped as u64);
            count += tx.sent;
        }
        count
    }

    /// Sends what control injected.
    fn inject(&mut self) -> usize {
        for _ in 0..BURST {
            let Some(frame) = self.rings.injects.pop() else {
                break;
            };
            put_out(&mut self.core, &mut self.lanes, &mut self.pool, frame);
        }
        self.send()
    }

    /// Punted frames leave the pool and injected ones enter it: evens that out.
    fn balance_pool(&mut self) {
        while self.pool.available() > self.pool_size {
            let Some(frame) = self.pool.take() else { break };
            // Full: there are more frames than anyone needs, and one is freed.
            let _ = self.rings.spare.push(frame);
        }
        while self.pool.available() < self.pool_size / 2 {
            let Some(frame) = self.rings.spare.pop() else {
                break;
            };
            self.pool.give(frame);
        }
    }

    /// One command, or the next part of a long one.
    fn command(&mut self) {
        if self.snapshot.is_none() && self.purge.is_none() {
            match self.rings.commands.pop() {
                Some(Command::Counters(asker)) => {
                    let reply = Reply::Counters(self.core.tables().counters());
                    answer(&self.rings, &asker, reply);
                }
                Some(Command::Flows { asker, next, flows }) => {
                    self.snapshot = Some((asker, next, flows))
                }
                Some(Command::Purge { asker, next, enis }) => {
                    self.purge = Some((asker, next, enis));
                }
                None => {}
            }
        }
        if let Some((_, next, enis)) = &mut self.purge {
            let to = next.saturating_add(SNAPSHOT_BUDGET).min(self.flow_slots);
            ager::purge(self.core.tables_mut(), enis, *next..to);
            *next = to;
            if to == self.flow_slots
                && let Some((asker, _, enis)) = self.purge.take()
            {
                // The list goes back: memory of control is freed by control.
                answer(&self.rings, &asker, Reply::Purged(enis));
            }
        }
        let Some((_, next, flows)) = &mut self.snapshot else {
            return;
        };
        let to = next.saturating_add(SNAPSHOT_BUDGET).min(self.flow_slots);
        self.core.tables().flows(*next, to, flows);
        *next = to;
        if to == self.flow_slots
            && let Some((asker, _, flows)) = self.snapshot.take()
        {
            answer(&self.rings, &asker, Reply::Flows(flows));
        }
    }

    /// After rounds without work, lets one port wait; says when there will never be work again.
    fn rest(&mut self, work: usize) {
        let finished = self
            .lanes
            .iter()
            .all(|lane| lane.ended && lane.waiting.is_empty());
        // Release: who sees `finished` also sees what was sent.
        self.rings.finished.store(finished, Ordering::Release);
        if work > 0 || self.snapshot.is_some() || self.purge.is_some() {
            self.idle_rounds = 0;
            return;
        }
        self.idle_rounds = self.idle_rounds.saturating_add(1);
        if self.idle_rounds < IDLE_ROUNDS {
            return;
        }
        // In turn, so that no port waits for another's quiet more than once in a while.
        let open = self.lanes.iter().filter(|lane| !lane.ended).count();
        match open {
            // Woken by a command or a stop.
            0 => std::thread::park_timeout(std::time::Duration::from_millis(5)),
            _ => {
                let nth = self.idle_rounds as usize % open;
                if let Some(lane) = self.lanes.iter_mut().filter(|lane| !lane.ended).nth(nth) {
                    lane.port.idle();
                }
            }
        }
    }
}

fn answer(rings: &Rings, asker: &Asker, reply: Reply) {
    // One question is open at a time, so there is room.
    let _ = rings.replies.push(reply);
    asker.thread.unpark();
}

/// Does with a frame what its verdict says.
fn deal<P>(
    bound: &mut Bound<'_>,
    lanes: &mut [Lane<P>],
    pool: &mut FramePool,
    rings: &Rings,
    mut frame: Frame,
    verdict: Result<Verdict, TargetError>,
) {
    match verdict {
        Ok(Verdict::Send(port)) => {
            frame.port = port;
            put_out(bound.core(), lanes, pool, frame);
        }
        Ok(Verdict::Pass) => {
            if let Err(frame) = rings.punts.push(frame) {
                bump(&rings.events.punts_dropped);
                pool.give(frame);
            }
        }
        Ok(Verdict::Drop) => pool.give(frame),
        Ok(Verdict::Aborted) => {
            bump(&rings.events.aborted);
            pool.give(frame);
        }
        // No code is installed yet.
        Err(_) => {
            bound
                .core()
                .tables_mut()
                .count_port(PortStat::IfInDiscards, 1);
            pool.give(frame);
        }
    }
}

/// Lays a frame on the lane of its port.
fn put_out<P>(core: &mut Datapath, lanes: &mut [Lane<P>], pool: &mut FramePool, frame: Frame) {
    match lanes.get_mut(usize::from(frame.port)) {
        Some(lane) => lane.out.push(frame),
        None => {
            core.tables_mut().count_port(PortStat::IfOutDiscards, 1);
            pool.give(frame);
        }
    }
}
