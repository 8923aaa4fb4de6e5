//! The port that makes the traffic: receiving is generating, sending is checking and counting.
//!
//! Jobs come from the measuring thread, one at a time; while there is none the port sleeps. A job's CPU
//! time is that of the worker's thread from its first receive to the receive after its last packet was
//! sent, so everything the worker does for the packets is in it, the generator too. What the generator
//! and this port cost alone is measured by the same port in a loop of its own ([`floor`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use hdrhistogram::Histogram;
use nic_target::{Frame, FramePool, Port, Rx, Tx};

use crate::machine::{run_delay_ns, thread_cpu_ns};
use crate::pace::TimeRing;
use crate::traffic::{Cursor, Expect, Order, Traffic};

/// One of so many sent packets is looked at.
const CHECK_EACH: u64 = 64;
/// How long packets may be on their way after the last was received.
const SETTLE: Duration = Duration::from_millis(50);
/// Receives between looks at the clock and the stop flag.
const LOOK_EACH: u32 = 64;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Traffic of a job and its share of the packets.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Packets.
    pub traffic: Arc<Traffic>,
    /// Flows.
    pub order: Order,
    /// Packets of this stream in each round over all streams.
    pub share: u32,
}

/// An underlay address that a control change leads to, and when a packet first went there.
#[derive(Debug, Default)]
pub struct Watch {
    /// Outer destination looked for, as a number + 1; 0 while none.
    wanted: AtomicU64,
    /// When it was seen, ns since the epoch of the job; 0 while it was not.
    seen_ns: AtomicU64,
}

impl Watch {
    /// Looks for packets to this address from now on.
    pub fn want(&self, dip: [u8; 4]) {
        self.seen_ns.store(0, Ordering::Relaxed);
        // Release: the answer of the question before is gone before this is asked.
        self.wanted
            .store(u64::from(u32::from_be_bytes(dip)) + 1, Ordering::Release);
    }

    /// When the first packet to the address left, ns since the job's epoch.
    pub fn seen(&self) -> Option<u64> {
        Some(self.seen_ns.load(Ordering::Acquire)).filter(|ns| *ns != 0)
    }

    fn look(&self, packet: &[u8], epoch: Instant) {
        let wanted = self.wanted.load(Ordering::Acquire);
        if wanted == 0 {
            return;
        }
        let Some(&[a, b, c, d]) = packet.get(30..34) else {
            return;
        };
        if u64::from(u32::from_be_bytes([a, b, c, d])) + 1 == wanted {
            self.wanted.store(0, Ordering::Relaxed);
            let now = epoch.elapsed().as_nanos() as u64;
            self.seen_ns.store(now.max(1), Ordering::Release);
        }
    }
}

/// What a port is to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// What to send; packets take turns by share.
    pub streams: Vec<Stream>,
    /// Most packets.
    pub packets: u64,
    /// Ends earlier after this time.
    pub time: Option<Duration>,
    /// Ends earlier when this is set.
    pub stop: Option<Arc<AtomicBool>>,
    /// Packets come when they are due there, and their latency is recorded; otherwise as fast as they
    /// are taken.
    pub pace: Option<Arc<TimeRing>>,
    /// Packets come one by one with at least this between them.
    pub gap: Option<Duration>,
    /// Looks at every packet that leaves.
    pub watch: Option<Arc<Watch>>,
    /// What times count from.
    pub epoch: Instant,
}

impl Job {
    /// Sends `packets` packets as fast as they are taken.
    pub fn new(traffic: &Arc<Traffic>, order: Order, packets: u64) -> Self {
        Self {
            streams: vec![Stream {
                traffic: Arc::clone(traffic),
                order,
                share: 1,
            }],
            packets,
            time: None,
            stop: None,
            pace: None,
            gap: None,
            watch: None,
            epoch: Instant::now(),
        }
    }
}

/// What came of a job.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Packets handed to the worker, by stream.
    pub sent: Vec<u64>,
    /// Their bytes, without FCS.
    pub octets: u64,
    /// Packets that came out of this port.
    pub out: u64,
    /// Their bytes.
    pub out_octets: u64,
    /// Of those looked at, packets that were not what they must be.
    pub wrong: u64,
    /// CPU time of the worker's thread, ns.
    pub cpu_ns: u64,
    /// Time that passed, ns.
    pub wall_ns: u64,
    /// Time for which the worker's thread was not let run, ns; see [`run_delay_ns`].
    pub held_up_ns: u64,
    /// Buffers missing from the worker's pool afterwards.
    pub buffers_missing: i64,
    /// Latencies from the time each packet was due, ns.
    pub latency: Option<Histogram<u64>>,
}

impl Outcome {
    /// Packets handed to the worker.
    pub fn packets(&self) -> u64 {
        self.sent.iter().sum()
    }

    /// CPU time of a packet, ns.
    pub fn ns_per_packet(&self) -> f64 {
        self.cpu_ns as f64 / self.packets().max(1) as f64
    }

    /// Packets a second, by the clock on the wall.
    pub fn rate(&self) -> f64 {
        self.packets() as f64 / (self.wall_ns.max(1) as f64 / 1e9)
    }
}

/// What the measuring thread holds of the ports of a runtime.
#[derive(Debug)]
pub struct Controls {
    ports: Vec<Arc<Control>>,
    totals: Arc<Totals>,
}

#[derive(Debug)]
struct Control {
    jobs: ArrayQueue<Job>,
    outcomes: ArrayQueue<Outcome>,
}

impl Controls {
    /// Ports there are.
    pub fn ports(&self) -> usize {
        self.ports.len()
    }

    /// Gives every port its job; all have finished what they were given before.
    ///
    /// # Errors
    /// One has not, or there are not as many jobs as ports.
    pub fn begin(&self, jobs: Vec<Job>) -> anyhow::Result<()> {
        anyhow::ensure!(jobs.len() == self.ports.len(), "a job for each port");
        // Ports are still; they see this before their jobs (the queue's release and acquire).
        for total in &self.totals.0 {
            total.sent.store(0, Ordering::Relaxed);
            total.out.store(0, Ordering::Relaxed);
        }
        for (port, job) in self.ports.iter().zip(jobs) {
            let begun = port.jobs.push(job).is_ok();
            anyhow::ensure!(begun, "a port was given a job before its last ended");
        }
        Ok(())
    }

    /// What came of a port's job, once it ended.
    pub fn outcome(&self, port: usize) -> Option<Outcome> {
        self.ports.get(port)?.outcomes.pop()
    }

    /// Packets of the last jobs that never came out of any port.
    pub fn lost(&self) -> u64 {
        let (sent, out) = (self.totals.sum(|t| &t.sent), self.totals.sum(|t| &t.out));
        sent.saturating_sub(out)
    }
}

/// What the ports of one runtime sent and got back: a packet may leave by another worker's port.
#[derive(Debug)]
struct Totals(Box<[Total]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Total {
    sent: AtomicU64,
    out: AtomicU64,
}

impl Totals {
    fn sum(&self, of: impl Fn(&Total) -> &AtomicU64) -> u64 {
        self.0.iter().map(|t| of(t).load(Ordering::Relaxed)).sum()
    }
}

/// Packets that may come out.
#[derive(Debug, Default)]
struct Checks {
    vxlan: Vec<(u32, [u8; 4])>,
    nvgre: Vec<Expect>,
    bare: bool,
    any: bool,
}

impl Checks {
    fn of(streams: &[Stream]) -> Self {
        let mut checks = Self::default();
        let templates = streams.iter().flat_map(|s| s.traffic.templates());
        for expect in templates.map(|t| t.expect()) {
            match expect {
                Expect::Vxlan { vni, dip } => checks.vxlan.push((vni, dip)),
                Expect::VxlanToAny { vni, dips } => {
                    checks.vxlan.extend(dips.iter().map(|dip| (vni, *dip)));
                }
                Expect::Nvgre { .. } => checks.nvgre.push(expect),
                Expect::Bare => checks.bare = true,
                Expect::Any => checks.any = true,
                Expect::Nothing => {}
            }
        }
        checks.vxlan.sort_unstable();
        checks.vxlan.dedup();
        checks
    }

    fn hold(&self, packet: &[u8]) -> bool {
        let vxlan = || -> Option<bool> {
            let dip: [u8; 4] = packet.get(30..34)?.try_into().ok()?;
            let vni = u32::from_be_bytes(packet.get(45..49)?.try_into().ok()?) & 0xff_ffff;
            let found = self.vxlan.binary_search(&(vni, dip)).is_ok();
            Some(found && Expect::Vxlan { vni, dip }.holds(packet))
        };
        self.any
            || vxlan().unwrap_or(false)
            || self.nvgre.iter().any(|expect| expect.holds(packet))
            || self.bare && Expect::Bare.holds(packet)
    }
}

/// A job that runs.
#[derive(Debug)]
struct Running {
    job: Job,
    cursors: Vec<Cursor>,
    /// Stream of each packet of a round.
    round: Vec<u16>,
    at: usize,
    left: u64,
    looks: u32,
    until: Option<Instant>,
    /// When the next packet may come, since the job's epoch: with a gap.
    next: Duration,
    checks: Checks,
    forwards: bool,
    outcome: Outcome,
    pool_before: usize,
    cpu_start: u64,
    delay_start: u64,
    wall_start: Instant,
    /// All was handed out, and when the count of what came out last moved.
    settling: Option<(Instant, u64)>,
}

/// The port. See the [module](self).
#[derive(Debug)]
pub struct LabPort {
    name: String,
    control: Arc<Control>,
    totals: Arc<Totals>,
    index: usize,
    running: Option<Box<Running>>,
    due: Vec<u64>,
}

impl LabPort {
    /// Ports of as many workers, and what the measuring thread holds of them.
    pub fn group(workers: usize) -> (Vec<Self>, Controls) {
        let totals = Arc::new(Totals((0..workers).map(|_| Total::default()).collect()));
        let ports = (0..workers).map(|index| Self {
            name: format!("lab{index}"),
            control: Arc::new(Control {
                jobs: ArrayQueue::new(1),
                outcomes: ArrayQueue::new(1),
            }),
            totals: Arc::clone(&totals),
            index,
            running: None,
            due: Vec::with_capacity(64),
        });
        let ports: Vec<Self> = ports.collect();
        let controls = Controls {
            ports: ports.iter().map(|port| Arc::clone(&port.control)).collect(),
            totals,
        };
        (ports, controls)
    }

    fn begin(&mut self, pool: &FramePool) {
        let Some(job) = self.control.jobs.pop() else {
            return;
        };
        let mut round = Vec::new();
        let most = job.streams.iter().map(|s| s.share).max().unwrap_or(0);
        // Spread: one of each stream that still has some, until all have had their share.
        for turn in 0..most {
            let having = job
                .streams
                .iter()
                .enumerate()
                .filter(|(_, s)| s.share > turn);
            round.extend(having.map(|(n, _)| n as u16));
        }
        let latency = job
            .pace
            .is_some()
            .then(|| Histogram::new_with_bounds(1, 60_000_000_000, 3).ok())
            .flatten();
        // Before the clocks start: building is not part of the job.
        self.running = Some(Box::new(Running {
            cursors: job.streams.iter().map(|s| Cursor::new(s.order)).collect(),
            left: if round.is_empty() { 0 } else { job.packets },
            round,
            at: 0,
            looks: 0,
            checks: Checks::of(&job.streams),
            forwards: job.streams.iter().any(|s| s.traffic.forwards()),
            outcome: Outcome {
                sent: vec![0; job.streams.len()],
                latency,
                ..Outcome::default()
            },
            pool_before: pool.available(),
            delay_start: run_delay_ns(),
            cpu_start: thread_cpu_ns(),
            wall_start: Instant::now(),
            until: job.time.map(|time| Instant::now() + time),
            next: Duration::ZERO,
            settling: None,
            job,
        }));
    }

    /// Ends the job when all its packets are out, or will never be.
    fn settle(&mut self, pool: &FramePool) {
        let (sent, out) = (self.totals.sum(|t| &t.sent), self.totals.sum(|t| &t.out));
        let Some(running) = &mut self.running else {
            return;
        };
        let now = Instant::now();
        let (since, before) = running.settling.get_or_insert_with(|| {
            running.outcome.cpu_ns = thread_cpu_ns() - running.cpu_start;
            running.outcome.wall_ns = (now - running.wall_start).as_nanos() as u64;
            running.outcome.held_up_ns = run_delay_ns().saturating_sub(running.delay_start);
            (now, out)
        });
        if *before != out {
            (*since, *before) = (now, out);
        }
        let over = now.duration_since(*since) > SETTLE;
        if (running.forwards && sent > out) && !over {
            return;
        }
        if let Some(mut running) = self.running.take() {
            running.outcome.buffers_missing = running.pool_before as i64 - pool.available() as i64;
            // One job at a time, and its outcome is taken before the next: there is room.
            let _ = self.control.outcomes.push(running.outcome);
        }
    }
}

impl Running {
    /// True when the job ends before its packets do.
    fn called_off(&mut self) -> bool {
        if let Some(ring) = &self.job.pace {
            return ring.finished();
        }
        self.looks += 1;
        if self.looks < LOOK_EACH {
            return false;
        }
        self.looks = 0;
        self.until.is_some_and(|until| Instant::now() >= until)
            || self
                .job
                .stop
                .as_ref()
                .is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// One packet more; false when there is no buffer.
    #[inline]
    fn hand_out(
        &mut self,
        index: u16,
        due: u64,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
    ) -> bool {
        let Some(mut frame) = pool.take() else {
            return false;
        };
        let stream = usize::from(self.round[self.at]);
        self.at += 1;
        if self.at == self.round.len() {
            self.at = 0;
        }
        let (template, flow) = self.cursors[stream].next(&self.job.streams[stream].traffic);
        // Templates fit: they were built to (`Traffic`'s makers check nothing longer than a frame).
        if !template.write(flow, &mut frame) {
            pool.give(frame);
            return false;
        }
        frame.port = index;
        frame.timestamp_ns = due;
        self.outcome.sent[stream] += 1;
        self.outcome.octets += template.len() as u64;
        burst.push(frame);
        true
    }
}

impl Port for LabPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn mac(&self) -> [u8; 6] {
        MAC
    }

    fn rx(
        &mut self,
        index: u16,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx> {
        if self.running.is_none() {
            self.begin(pool);
        }
        let Some(running) = self.running.as_deref_mut() else {
            return Ok(Rx::Received(0));
        };
        if running.left == 0 || running.called_off() {
            running.left = 0;
            self.settle(pool);
            return Ok(Rx::Received(0));
        }
        let mut n = (max as u64).min(running.left) as usize;
        if let Some(gap) = running.job.gap {
            let now = running.job.epoch.elapsed();
            if now < running.next {
                return Ok(Rx::Received(0));
            }
            running.next = now + gap;
            n = n.min(1);
        }
        let mut handed = 0;
        match running.job.pace.clone() {
            None => {
                while handed < n && running.hand_out(index, 0, pool, burst) {
                    handed += 1;
                }
            }
            Some(ring) => {
                // What is taken off the ring must be handed out.
                n = n.min(pool.available());
                self.due.clear();
                ring.take(n, |due| self.due.push(due));
                for due in &self.due {
                    handed += usize::from(running.hand_out(index, *due, pool, burst));
                }
            }
        }
        running.left -= handed as u64;
        if let Some(own) = self.totals.0.get(self.index) {
            let sent = own.sent.load(Ordering::Relaxed) + handed as u64;
            own.sent.store(sent, Ordering::Relaxed);
        }
        Ok(Rx::Received(handed))
    }

    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        let mut tx = Tx::default();
        let sent = frames.len();
        if let Some(running) = self.running.as_deref_mut() {
            let Running {
                job,
                checks,
                outcome,
                ..
            } = running;
            if let Some(latency) = &mut outcome.latency {
                let now = job.epoch.elapsed().as_nanos() as u64;
                for frame in frames.iter() {
                    // In range: `saturating_record` cuts at the histogram's end.
                    latency.saturating_record(now.saturating_sub(frame.timestamp_ns).max(1));
                }
            }
            for frame in frames.iter() {
                outcome.out += 1;
                if outcome.out % CHECK_EACH == 1 && !checks.hold(frame.data()) {
                    outcome.wrong += 1;
                }
                if let Some(watch) = &job.watch {
                    watch.look(frame.data(), job.epoch);
                }
            }
        }
        for frame in frames.drain(..) {
            tx.octets += frame.len() as u64;
            pool.give(frame);
        }
        tx.sent = sent;
        if let Some(running) = self.running.as_deref_mut() {
            running.outcome.out_octets += tx.octets;
        }
        if let Some(own) = self.totals.0.get(self.index) {
            let out = own.out.load(Ordering::Relaxed) + sent as u64;
            own.out.store(out, Ordering::Relaxed);
        }
        Ok(tx)
    }

    fn idle(&mut self) {
        match &self.running {
            // Not asleep while a job runs: its packets may be due.
            Some(_) => std::hint::spin_loop(),
            None => std::thread::sleep(Duration::from_micros(100)),
        }
    }
}

/// The same job through the same port with nothing in between: what generator and port cost alone.
pub fn floor(job: Job) -> Outcome {
    let (mut ports, controls) = LabPort::group(1);
    let mut pool = FramePool::new(576);
    let mut burst = Vec::with_capacity(64);
    let (Some(port), Ok(())) = (ports.first_mut(), controls.begin(vec![job])) else {
        // One port and one job for it: does not happen.
        return Outcome::default();
    };
    loop {
        // This port's receive and send do not fail.
        let _ = port.rx(0, &mut pool, &mut burst, 32);
        if !burst.is_empty() {
            let _ = port.tx(&mut pool, &mut burst);
        }
        if let Some(outcome) = controls.outcome(0) {
            return outcome;
        }
    }
}

#[cfg(test)]
mod tests;
