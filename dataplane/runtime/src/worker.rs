//! The worker loop: the only one, whatever the ports are.
//!
//! Once round the loop: answer a question of control's, pin the current generation, run what other
//! workers handed over, receive a burst from each port, run it, send what goes out of each port, do
//! a budget of ageing. Per packet it takes no lock, allocates nothing and writes nothing that others
//! read: frames circulate between the pool, the ports and the rings.
//!
//! Time. On ports with a clock of their own (captures, simulation) the frames' timestamps are the
//! time: frames of all ports are merged by timestamp, and before each frame all flows that are due
//! by then expire. Otherwise a monotonic clock is read once a round, packets run in bursts
//! ([`run_burst`](crate::datapath::Bound::run_burst)), and ageing looks at a bounded number of flows
//! a round.
//!
//! Flows belong to workers ([`Owners`](crate::datapath::Owners)): a packet of another's is parsed
//! here and goes on there ([`handoff`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dash_wire::stats::PortStat;
use nic_target::{Frame, Port, Verdict};

pub use crate::datapath::BURST;
use crate::datapath::{Bound, Datapath, Fate};
use crate::generation::{Pin, Reader};
use handoff::{Crossing, Handed};
use idle::{Idle, Rest};
use lanes::{Lanes, Received};
use requests::Job;
use rings::Rings;

pub(crate) mod handoff;
mod idle;
pub(crate) mod lanes;
mod requests;
pub(crate) mod rings;

/// Scheduled flows looked at a round, in live mode.
const AGE_BUDGET: usize = 256;

/// A thread's work: its queues of the ports, and the core that runs their packets.
#[derive(Debug)]
pub struct Worker<P: Port> {
    lanes: Lanes<P>,
    burst: Vec<Frame>,
    core: Datapath,
    rings: Arc<Rings>,
    crossing: Crossing,
    virtual_time: bool,
    /// The clock's zero, the same for all workers.
    started: Instant,
    idle: Idle,
    job: Option<Job>,
}

impl<P: Port> Worker<P> {
    pub(crate) fn new(
        ports: Vec<P>,
        core: Datapath,
        rings: Arc<Rings>,
        crossing: Crossing,
        started: Instant,
    ) -> Self {
        Self {
            virtual_time: ports.iter().any(Port::virtual_time),
            lanes: Lanes::new(ports, crossing.rings() + 1),
            burst: Vec::with_capacity(2 * BURST),
            core,
            rings,
            crossing,
            started,
            idle: Idle::default(),
            job: None,
        }
    }

    /// Runs until control says stop; gives the ports back.
    pub(crate) fn run(mut self, reader: &Reader) -> Vec<P> {
        // Acquire: pairs with the Release of who stops us, so that what it did before is seen.
        while !self.rings.stop.load(Ordering::Acquire) {
            let asked = self.question();
            let received = {
                let pin = reader.pin();
                if self.virtual_time {
                    self.virtual_round(&pin)
                } else {
                    self.live_round(&pin)
                }
            };
            let sent = self.inject();
            self.lanes.balance(&self.rings.spare);
            self.rest(asked, received + sent);
        }
        self.lanes.into_ports()
    }

    /// One burst from each port, at the time of the clock.
    fn live_round(&mut self, pin: &Pin<'_>) -> usize {
        // Half a millennium of nanoseconds fits.
        let now = self.started.elapsed().as_nanos() as u64;
        self.core.advance(now, AGE_BUDGET);
        self.rings.tally.late_ns.set(self.core.ageing_late_ns());
        let mut work = self.take_over(pin);
        for at in 0..self.lanes.len() {
            let received = self.receive(at);
            if received == 0 {
                continue;
            }
            work += received;
            let mut bound = self.core.bind(pin.generation());
            while !self.burst.is_empty() {
                let n = bound.run_burst(&mut self.burst);
                // What bursts mostly are.
                if n == self.burst.len()
                    && let Some(port) = bound.all_leave_by(n)
                {
                    let tables = bound.core().tables_mut();
                    self.lanes.put_all_out(tables, port, &mut self.burst);
                    break;
                }
                for (place, frame) in self.burst.drain(..n).enumerate() {
                    match bound.fate(place) {
                        Fate::Foreign(owner) => {
                            let meta = bound.parsed(place);
                            let packet = Handed { frame, meta };
                            match self.crossing.hand(owner, packet) {
                                Ok(()) => self.rings.tally.handed.add(1),
                                Err(frame) => {
                                    self.rings.tally.handoff_drops.add(1);
                                    discard(&mut self.lanes, &mut bound, frame);
                                }
                            }
                        }
                        fate => {
                            deal(&mut self.lanes, &mut bound, &self.rings, place, frame, fate);
                        }
                    }
                }
            }
            self.lanes.send(self.core.tables_mut(), &self.rings.tally);
        }
        work
    }

    /// Runs what other workers handed over; gives how many packets.
    fn take_over(&mut self, pin: &Pin<'_>) -> usize {
        let all = self.job.as_ref().is_some_and(Job::begins_purge);
        let mut taken = 0;
        for ring in 0..self.crossing.rings() {
            let mut due = self.crossing.due(ring, all);
            while due > 0 {
                let mut bound = self.core.bind(pin.generation());
                for place in 0..due.min(BURST) {
                    let Some(Handed { frame, meta }) = self.crossing.take(ring) else {
                        break;
                    };
                    bound.put_parsed(place, &meta);
                    self.burst.push(frame);
                }
                let n = bound.resume_burst(&mut self.burst);
                for (place, frame) in self.burst.drain(..n).enumerate() {
                    let fate = bound.fate(place);
                    deal(&mut self.lanes, &mut bound, &self.rings, place, frame, fate);
                }
                due -= n.max(1).min(due);
                taken += n;
                self.lanes.send(self.core.tables_mut(), &self.rings.tally);
            }
        }
        if taken > 0 {
            self.rings.tally.taken.add(taken as u64);
        }
        taken
    }

    /// The next frames of all ports by their timestamps.
    fn virtual_round(&mut self, pin: &Pin<'_>) -> usize {
        let mut received = 0;
        for at in 0..self.lanes.len() {
            if self.lanes.nothing_waits(at) {
                received += self.receive(at);
                self.lanes.wait(at, &mut self.burst);
            }
        }
        let mut bound = self.core.bind(pin.generation());
        for _ in 0..BURST {
            let Some((mut frame, last)) = self.lanes.earliest() else {
                break;
            };
            bound.core().advance(frame.timestamp_ns, usize::MAX);
            let fate = bound.run(&mut frame).map_or(Fate::NotRun, Fate::Done);
            if fate == Fate::Done(Verdict::Drop) {
                // What `run` has looked at.
                self.lanes.give(frame);
                send_resets(&mut self.lanes, &mut bound);
            } else {
                deal(&mut self.lanes, &mut bound, &self.rings, 0, frame, fate);
            }
            if last {
                break;
            }
        }
        self.lanes.send(self.core.tables_mut(), &self.rings.tally);
        received
    }

    /// Receives into the burst from one port.
    fn receive(&mut self, at: usize) -> usize {
        let tables = self.core.tables_mut();
        let tally = &self.rings.tally;
        match self.lanes.receive(at, &mut self.burst, tables, tally) {
            Received::Frames(n) => n,
            Received::Failed => {
                self.idle.failing();
                0
            }
        }
    }

    /// Sends what control injected.
    fn inject(&mut self) -> usize {
        if self.rings.injects.is_empty() {
            return 0;
        }
        for _ in 0..BURST {
            let Some(frame) = self.rings.injects.pop() else {
                break;
            };
            self.lanes.put_out(self.core.tables_mut(), frame);
        }
        self.lanes.send(self.core.tables_mut(), &self.rings.tally)
    }

    /// The end of a round: the heartbeat, and after rounds without work a wait.
    fn rest(&mut self, asked: bool, work: usize) {
        // Release: who sees `finished` also sees what was sent.
        let finished = self.lanes.ended();
        self.rings.finished.store(finished, Ordering::Release);
        let tally = &self.rings.tally;
        tally.rounds.add(1);
        if work > 0 {
            tally.busy.add(1);
        }
        if work > 0 || asked {
            self.idle.busy();
            return;
        }
        match self.idle.rest() {
            Rest::Spin => {}
            Rest::Pause(n) => (0..n).for_each(|_| std::hint::spin_loop()),
            Rest::Wait(nap) => {
                let before = Instant::now();
                if !self.lanes.idle(self.idle.rounds()) {
                    // Woken by a question or a stop.
                    std::thread::park_timeout(Duration::from_millis(5));
                } else if !self.virtual_time && before.elapsed() < nap {
                    std::thread::park_timeout(nap);
                }
            }
        }
    }
}

/// Does with the frame of a place what its verdict says.
#[inline]
fn deal<P: Port>(
    lanes: &mut Lanes<P>,
    bound: &mut Bound<'_>,
    rings: &Rings,
    place: usize,
    mut frame: Frame,
    fate: Fate,
) {
    match fate {
        Fate::Done(Verdict::Send(port)) => {
            frame.port = port;
            lanes.put_out(bound.core().tables_mut(), frame);
        }
        Fate::Done(Verdict::Drop) => {
            bound.dropped(place, &frame);
            lanes.give(frame);
            send_resets(lanes, bound);
        }
        Fate::Done(Verdict::Pass) => {
            if let Err(frame) = rings.punts.push(frame) {
                rings.tally.punts_dropped.add(1);
                lanes.give(frame);
            }
        }
        Fate::Done(Verdict::Aborted) => {
            rings.tally.aborted.add(1);
            lanes.give(frame);
        }
        // What was handed over is not handed on, so `Foreign` does not come here.
        Fate::NotRun | Fate::Foreign(_) => {
            rings.tally.not_run.add(1);
            discard(lanes, bound, frame);
        }
    }
}

/// Lays out the frames that answer dropped packets.
fn send_resets<P: Port>(lanes: &mut Lanes<P>, bound: &mut Bound<'_>) {
    while let Some(reset) = bound.core().take_reset() {
        lanes.put_out_new(bound.core().tables_mut(), reset.port, reset.data());
    }
}

/// Drops a frame that the card could not take on.
fn discard<P: Port>(lanes: &mut Lanes<P>, bound: &mut Bound<'_>, frame: Frame) {
    let tables = bound.core().tables_mut();
    tables.count_port(PortStat::IfInDiscards, 1);
    lanes.give(frame);
}
