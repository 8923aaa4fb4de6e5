//! Control's questions: answered between two rounds, the long ones a part at a time.

use std::thread::Thread;

use dash_wire::tables::FlowEntry;
use nic_target::Port;

use super::Worker;
use super::rings::{Answer, Command};
use crate::ager;

/// Flow slots looked at a round for one question.
const SLOTS: u32 = 512;

/// A question that takes several rounds.
#[derive(Debug)]
pub(super) struct Job {
    number: u64,
    asker: Thread,
    /// First flow slot not looked at.
    next: u32,
    what: What,
}

impl Job {
    /// A purge that has not begun: before it does, all that waits on rings is run.
    pub(super) fn begins_purge(&self) -> bool {
        self.next == 0 && matches!(self.what, What::Purge(_))
    }
}

#[derive(Debug)]
enum What {
    Flows(Vec<FlowEntry>),
    Purge(Vec<u32>),
}

impl<P: Port> Worker<P> {
    /// One question, or the next part of a long one; true when there was one.
    pub(super) fn question(&mut self) -> bool {
        if let Some(job) = self.job.take() {
            self.job = self.part(job);
            return true;
        }
        let Some(request) = self.rings.commands.pop() else {
            return false;
        };
        let (number, asker) = (request.number, request.asker);
        let job = |what| Job {
            number,
            asker: asker.clone(),
            next: 0,
            what,
        };
        match request.command {
            Command::Barrier => self.rings.answer(number, &asker, Answer::Done),
            Command::Counters => {
                let counters = self.core.tables().counters();
                self.rings
                    .answer(number, &asker, Answer::Counters(counters));
            }
            Command::FlowCount => {
                let count = self.core.tables().flow_count();
                self.rings.answer(number, &asker, Answer::FlowCount(count));
            }
            Command::Flows(flows) => self.job = Some(job(What::Flows(flows))),
            Command::Purge(enis) => self.job = Some(job(What::Purge(enis))),
        }
        true
    }

    /// Does a part; gives the job back when there is more.
    fn part(&mut self, mut job: Job) -> Option<Job> {
        // Slots that were never taken need no look, however many there are.
        let end = self.core.tables().high_water();
        let slots = job.next..job.next.saturating_add(SLOTS).min(end);
        job.next = slots.end;
        match &mut job.what {
            What::Flows(flows) => self.core.tables().flows(slots.start, slots.end, flows),
            What::Purge(enis) => ager::purge(self.core.tables_mut(), enis, slots),
        }
        if job.next < end {
            return Some(job);
        }
        let answer = match job.what {
            What::Flows(flows) => Answer::Flows(flows),
            What::Purge(enis) => Answer::Purged(enis),
        };
        self.rings.answer(job.number, &job.asker, answer);
        None
    }
}
