//! What passes between control and a worker, all of it bounded and lock-free.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;

use crossbeam_queue::ArrayQueue;
use dash_wire::tables::FlowEntry;
use nic_target::{CounterSnapshot, FlowEdit, FlowQuery, Frame};

/// Frames a ring between control and a worker holds.
pub(crate) const RING: usize = 512;
/// Questions that may be open: more than one only after control gave one up.
const QUESTIONS: usize = 4;

/// What control asks of a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// An answer between two rounds: whatever was received under an older generation was run, or is
    /// on a ring to the worker that has its flow.
    Barrier,
    /// Counters now.
    Counters,
    /// How many live connections there are.
    FlowCount,
    /// Live connections that are asked for, appended to memory that control brings; looked through a
    /// budget a round.
    Flows(Arc<FlowQuery>, Vec<FlowEntry>),
    /// Does something to them, a budget a round.
    Edit(Arc<FlowQuery>, FlowEdit),
    /// End the flows of ENIs that the generation just published no longer has, after running all
    /// that is on rings from other workers.
    Purge(Vec<u32>),
}

/// A question and who waits for its answer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) asker: Thread,
    pub(crate) command: Command,
}

/// An answer to the question of the same number.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) number: u64,
    pub(crate) answer: Answer,
}

/// What is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    Counters(CounterSnapshot),
    FlowCount(usize),
    Flows(Arc<FlowQuery>, Vec<FlowEntry>),
    /// How many.
    Edited(Arc<FlowQuery>, u64),
    /// The list goes back: memory of control is freed by control.
    Purged(Vec<u32>),
}

/// Rings and flags of one worker.
#[derive(Debug)]
pub(crate) struct Rings {
    pub(crate) commands: ArrayQueue<Request>,
    pub(crate) replies: ArrayQueue<Reply>,
    /// Frames for the control plane.
    pub(crate) punts: ArrayQueue<Frame>,
    /// Frames to send out of `Frame::port`.
    pub(crate) injects: ArrayQueue<Frame>,
    /// Empty frames on their way to whoever needs one; shared by all workers of a runtime.
    pub(crate) spare: Arc<ArrayQueue<Frame>>,
    pub(crate) stop: AtomicBool,
    pub(crate) finished: AtomicBool,
    pub(crate) tally: Tally,
}

impl Rings {
    pub(crate) fn new(spare: Arc<ArrayQueue<Frame>>) -> Self {
        Self {
            commands: ArrayQueue::new(QUESTIONS),
            replies: ArrayQueue::new(QUESTIONS),
            punts: ArrayQueue::new(RING),
            injects: ArrayQueue::new(RING),
            spare,
            stop: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            tally: Tally::default(),
        }
    }

    /// Answers a question and wakes who asked.
    pub(crate) fn answer(&self, number: u64, asker: &Thread, answer: Answer) {
        // Full only of answers to questions that control gave up: the oldest makes room.
        drop(self.replies.force_push(Reply { number, answer }));
        asker.unpark();
    }
}

/// A number that one worker writes and anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds. Only ever called by the worker whose number it is: no read-modify-write is needed.
    pub(crate) fn add(&self, n: u64) {
        // Relaxed: a number to read, it orders nothing.
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(n), Ordering::Relaxed);
    }

    /// Becomes `n`.
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a worker counts that has no SAI name. In cache lines of its own (two, as processors fetch
/// them in pairs), so that a worker's writes disturb nobody.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Tally {
    /// Rounds: the heartbeat.
    pub(crate) rounds: Count,
    /// Rounds that found something to do.
    pub(crate) busy: Count,
    /// How far ageing is behind, ns.
    pub(crate) late_ns: Count,
    pub(crate) packets: Count,
    /// Packets given to the workers that have their flows.
    pub(crate) handed: Count,
    /// Packets run for other workers; never ahead of what became of them.
    pub(crate) taken: Count,
    /// Packets another worker had no room for.
    pub(crate) handoff_drops: Count,
    /// Packets that no code was installed for.
    pub(crate) not_run: Count,
    pub(crate) punts_dropped: Count,
    pub(crate) aborted: Count,
    pub(crate) port_errors: Count,
}
