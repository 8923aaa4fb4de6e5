//! Control's end of running workers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dash_wire::tables::FlowEntry;
use nic_target::{
    Capacity, CounterSnapshot, FlowEdit, FlowQuery, Table, Target, TargetError, Update,
};

use super::watchdog::{Change, Watchdog};
use super::{Punt, RuntimeEvents, WorkerStats};
use crate::exec::Engine;
use crate::generation::Publisher;
use crate::hooks::Hooks;
use crate::worker::rings::{Answer, Command, Count, Request, Rings, Tally};

/// How often a wait for a worker looks whether it still lives.
const LOOK: Duration = Duration::from_millis(20);
/// A question is given up after a silence of this many times the watchdog's limit: long after it
/// was reported, as a machine may be too busy to run a worker.
const PATIENCE: u32 = 4;

/// A worker as control holds it. The thread gives its ports back.
#[derive(Debug)]
pub(super) struct Hand<P> {
    pub(super) rings: Arc<Rings>,
    pub(super) thread: JoinHandle<Option<Vec<P>>>,
}

impl<P> Hand<P> {
    fn running(&self) -> Result<(), TargetError> {
        if self.thread.is_finished() {
            return Err(TargetError::Gone);
        }
        Ok(())
    }

    fn beat(&self) -> u64 {
        self.rings.tally.rounds.get()
    }
}

/// Gives up on a worker whose heart stands still.
struct Patience {
    limit: Duration,
    beat: u64,
    since: Instant,
}

impl Patience {
    fn new<P>(hand: &Hand<P>, limit: Duration) -> Self {
        Self {
            limit,
            beat: hand.beat(),
            since: Instant::now(),
        }
    }

    /// The silence, when it is too long.
    fn lost<P>(&mut self, hand: &Hand<P>) -> Option<Duration> {
        let beat = hand.beat();
        if beat != self.beat {
            (self.beat, self.since) = (beat, Instant::now());
        }
        let silence = self.since.elapsed();
        (silence >= self.limit).then_some(silence)
    }
}

/// Control's end of running workers. Dropping it stops them.
#[derive(Debug)]
pub struct RuntimeHandle<P> {
    engine: Engine,
    publisher: Publisher,
    hands: Vec<Hand<P>>,
    /// By port.
    macs: Vec<[u8; 6]>,
    /// Of each worker's tables.
    capacity: Capacity,
    patience: Duration,
    watchdog: Watchdog,
    /// Number of the last question.
    asked: u64,
    /// ENIs of the current generation's past whose flows are not all gone yet.
    gone: Vec<u32>,
    /// Worker whose punts are looked at first.
    turn: usize,
}

impl<P> RuntimeHandle<P> {
    pub(super) fn new(
        engine: Engine,
        publisher: Publisher,
        hands: Vec<Hand<P>>,
        macs: Vec<[u8; 6]>,
        capacity: Capacity,
        watchdog: Duration,
    ) -> Self {
        Self {
            engine,
            publisher,
            macs,
            capacity,
            patience: watchdog * PATIENCE,
            watchdog: Watchdog::new(hands.len(), watchdog, Instant::now()),
            hands,
            asked: 0,
            gone: Vec::new(),
            turn: 0,
        }
    }

    /// Who executes.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.hands.len()
    }

    /// MAC of each port.
    pub fn macs(&self) -> &[[u8; 6]] {
        &self.macs
    }

    /// Replaces the programs of users, between two bursts of each worker. Those of ENIs run where the
    /// image asks for them. When this returns, every worker has been round since: programs that are
    /// gone run no more, and what nobody else holds of them is freed, on this thread.
    ///
    /// # Errors
    /// A worker is gone or does not answer; the programs are replaced all the same.
    pub fn set_hooks(&mut self, hooks: Hooks) -> Result<(), TargetError> {
        let next = self
            .publisher
            .with_current(|now| now.with_hooks(Arc::new(hooks)));
        self.publisher.publish(next);
        let answers = self.ask(|| Command::Barrier);
        self.publisher.collect();
        answers.map(drop)
    }

    /// Capacity of each worker's tables: what images are to be compiled for.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Bytes of memory each policy table of the current generation holds, what other generations share
    /// included. Takes time in proportion to the routes.
    pub fn table_memory(&self) -> BTreeMap<Table, usize> {
        self.publisher.with_current(|g| g.tables().memory())
    }

    /// True when every port has ended and everything it brought was run and sent.
    pub fn finished(&self) -> bool {
        let mut flags = self.hands.iter().map(|hand| &hand.rings.finished);
        // Acquire: pairs with the Release of the worker.
        if !flags.all(|flag| flag.load(Ordering::Acquire)) {
            return false;
        }
        // No worker hands anything over any more; is anything on its way?
        let sum = |count: fn(&Tally) -> &Count| {
            let counts = self.hands.iter().map(|hand| count(&hand.rings.tally).get());
            counts.sum::<u64>()
        };
        sum(|tally| &tally.taken) == sum(|tally| &tally.handed)
    }

    /// The next packet for control, if one waits.
    pub fn punted(&mut self) -> Option<Punt> {
        for _ in 0..self.hands.len() {
            let rings = &self.hands[self.turn].rings;
            self.turn = (self.turn + 1) % self.hands.len();
            let Some(frame) = rings.punts.pop() else {
                continue;
            };
            let punt = Punt {
                port: frame.port,
                timestamp_ns: frame.timestamp_ns,
                data: frame.data().to_vec(),
            };
            if !frame.is_lent() {
                // Full: there are more frames than anyone needs, and one is freed.
                let _ = rings.spare.push(frame);
            }
            return Some(punt);
        }
        None
    }

    /// Sends a packet of control's out of a port; false when it is too long or the ring is full.
    pub fn inject(&mut self, port: u16, data: &[u8]) -> bool {
        // All by the first worker, so that they leave in order.
        let Some(hand) = self.hands.first() else {
            return false;
        };
        let mut frame = hand.rings.spare.pop().unwrap_or_default();
        frame.port = port;
        if !frame.fill(data) {
            return false;
        }
        hand.rings.injects.push(frame).is_ok()
    }

    /// What the workers counted that has no SAI name.
    pub fn events(&self) -> RuntimeEvents {
        let mut events = RuntimeEvents::default();
        for hand in &self.hands {
            let tally = &hand.rings.tally;
            events.punts_dropped += tally.punts_dropped.get();
            events.aborted += tally.aborted.get();
            events.port_errors += tally.port_errors.get();
            events.not_run += tally.not_run.get();
            events.handoff_drops += tally.handoff_drops.get();
        }
        events
    }

    /// What each worker did.
    pub fn worker_stats(&self) -> Vec<WorkerStats> {
        let stats = |hand: &Hand<P>| {
            let tally = &hand.rings.tally;
            let (rounds, busy) = (tally.rounds.get(), tally.busy.get());
            WorkerStats {
                packets: tally.packets.get(),
                handed: tally.handed.get(),
                handoff_drops: tally.handoff_drops.get(),
                taken: tally.taken.get(),
                busy_rounds: busy,
                // The two were read one after the other.
                idle_rounds: rounds.saturating_sub(busy),
                ageing_late_ns: tally.late_ns.get(),
            }
        };
        self.hands.iter().map(stats).collect()
    }

    /// Looks at the heartbeats; call it a few times in the watchdog's limit. Each silence is told
    /// once, and its end too.
    pub fn watch(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let beats = self.hands.iter().map(Hand::beat);
        self.watchdog.look(Instant::now(), beats, &mut changes);
        changes
    }

    /// Workers that were silent for the watchdog's limit when last [watched](Self::watch).
    pub fn stuck(&self) -> Vec<usize> {
        self.watchdog.silent().collect()
    }

    /// Stops the workers after the burst they are in; gives the ports back, by worker.
    ///
    /// # Errors
    /// A worker is gone, because it panicked, or does not end, because a port blocks.
    pub fn stop(mut self) -> Result<Vec<Vec<P>>, TargetError> {
        self.halt()
    }

    /// All are told before any is waited for.
    fn halt(&mut self) -> Result<Vec<Vec<P>>, TargetError> {
        for hand in &self.hands {
            // Release: pairs with the Acquire of the worker.
            hand.rings.stop.store(true, Ordering::Release);
            hand.thread.thread().unpark();
        }
        let mut ports = Vec::with_capacity(self.hands.len());
        let mut failed = None;
        for (worker, hand) in self.hands.drain(..).enumerate() {
            let mut patience = Patience::new(&hand, self.patience);
            while !hand.thread.is_finished() {
                if let Some(silence) = patience.lost(&hand) {
                    failed = Some(TargetError::Stuck { worker, silence });
                    break;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            if !hand.thread.is_finished() {
                // Its thread and ports stay behind: there is no way to end it.
                continue;
            }
            match hand.thread.join() {
                Ok(Some(back)) => ports.push(back),
                Ok(None) | Err(_) => failed = Some(TargetError::Gone),
            }
        }
        failed.map_or(Ok(ports), Err)
    }

    /// Asks every worker; gives the answers by worker.
    fn ask(&mut self, mut command: impl FnMut() -> Command) -> Result<Vec<Answer>, TargetError> {
        self.asked += 1;
        let number = self.asked;
        for (worker, hand) in self.hands.iter().enumerate() {
            hand.running()?;
            let request = Request {
                number,
                asker: std::thread::current(),
                command: command(),
            };
            // Full of questions that were given up.
            let full = |_| TargetError::Stuck {
                worker,
                silence: self.patience,
            };
            hand.rings.commands.push(request).map_err(full)?;
            hand.thread.thread().unpark();
        }
        let answers = (0..self.hands.len()).map(|worker| self.answer(worker, number));
        answers.collect()
    }

    fn answer(&self, worker: usize, number: u64) -> Result<Answer, TargetError> {
        let hand = &self.hands[worker];
        let mut patience = Patience::new(hand, self.patience);
        loop {
            while let Some(reply) = hand.rings.replies.pop() {
                // Others are answers to what was given up.
                if reply.number == number {
                    return Ok(reply.answer);
                }
            }
            hand.running()?;
            if let Some(silence) = patience.lost(hand) {
                return Err(TargetError::Stuck { worker, silence });
            }
            // The worker unparks us; the limit is for a worker that dies before it does.
            std::thread::park_timeout(LOOK);
        }
    }

    /// Ends the flows of ENIs that are no more.
    fn purge(&mut self) -> Result<(), TargetError> {
        if self.gone.is_empty() {
            return Ok(());
        }
        if self.hands.len() > 1 {
            // Packets parsed while the ENIs were there are on rings after this.
            self.ask(|| Command::Barrier)?;
        }
        let enis = self.gone.clone();
        for answer in self.ask(|| Command::Purge(enis.clone()))? {
            let Answer::Purged(list) = answer else {
                return Err(TargetError::Gone);
            };
            drop(list);
        }
        self.gone.clear();
        Ok(())
    }
}

impl<P> Drop for RuntimeHandle<P> {
    fn drop(&mut self) {
        // Nobody is left to tell; `stop` tells.
        let _ = self.halt();
    }
}

impl<P: Send> Target for RuntimeHandle<P> {
    /// The new generation is made here, and each worker sees it from its next round on.
    ///
    /// # Errors
    /// Nothing changed: a row or the image is refused, or a worker does not answer while an ENI
    /// deleted earlier must be forgotten first.
    fn apply(&mut self, update: &Update) -> Result<(), TargetError> {
        for hand in &self.hands {
            hand.running()?;
        }
        // An index may be another ENI's from now on: what an earlier update left is done first.
        self.purge()?;
        let next = self
            .publisher
            .with_current(|now| now.next(self.engine, update))?;
        self.publisher.publish(next);
        self.gone = update.delta.deleted_enis();
        match self.purge() {
            // The update holds; the next one waits for this worker.
            Err(TargetError::Stuck { .. }) => Ok(()),
            done => done,
        }
    }

    fn counters(&mut self) -> Result<CounterSnapshot, TargetError> {
        let mut sum = CounterSnapshot::default();
        for answer in self.ask(|| Command::Counters)? {
            let Answer::Counters(counters) = answer else {
                return Err(TargetError::Gone);
            };
            add(&mut sum, counters);
        }
        Ok(sum)
    }

    fn flow_count(&mut self) -> Result<usize, TargetError> {
        let mut sum = 0;
        for answer in self.ask(|| Command::FlowCount)? {
            let Answer::FlowCount(count) = answer else {
                return Err(TargetError::Gone);
            };
            sum += count;
        }
        Ok(sum)
    }

    /// Each connection is whole; the list is not of one moment, as packets run while it is made.
    fn flows(&mut self) -> Result<Vec<FlowEntry>, TargetError> {
        self.find_flows(&FlowQuery::ALL)
    }

    fn find_flows(&mut self, query: &FlowQuery) -> Result<Vec<FlowEntry>, TargetError> {
        let room = query.most.min(self.capacity.flows as usize);
        let query = Arc::new(query.clone());
        let ask = || Command::Flows(Arc::clone(&query), Vec::with_capacity(room));
        let mut all = Vec::new();
        for answer in self.ask(ask)? {
            let Answer::Flows(query, mut flows) = answer else {
                return Err(TargetError::Gone);
            };
            drop(query);
            if all.is_empty() {
                flows.shrink_to_fit();
                all = flows;
            } else {
                all.append(&mut flows);
            }
        }
        all.truncate(query.most);
        Ok(all)
    }

    /// Each worker's share, `most` of them at most.
    fn edit_flows(&mut self, query: &FlowQuery, edit: FlowEdit) -> Result<u64, TargetError> {
        let query = Arc::new(query.clone());
        let mut sum = 0;
        for answer in self.ask(|| Command::Edit(Arc::clone(&query), edit))? {
            let Answer::Edited(query, edited) = answer else {
                return Err(TargetError::Gone);
            };
            drop(query);
            sum += edited;
        }
        Ok(sum)
    }
}

/// Adds the counters of one worker.
fn add(sum: &mut CounterSnapshot, of: CounterSnapshot) {
    let add = |sum: &mut Vec<u64>, of: Vec<u64>| {
        sum.resize(sum.len().max(of.len()), 0);
        for (sum, n) in sum.iter_mut().zip(of) {
            *sum = sum.wrapping_add(n);
        }
    };
    add(&mut sum.port, of.port);
    for (eni, block) in of.eni {
        add(sum.eni.entry(eni).or_default(), block);
    }
    for (bucket, bytes) in of.meter {
        sum.add_meter(bucket, bytes);
    }
}
