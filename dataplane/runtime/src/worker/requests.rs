//! Control's questions: answered between two rounds, the long ones a part at a time.

use std::sync::Arc;
use std::thread::Thread;

use dash_wire::tables::FlowEntry;
use nic_target::{CounterSnapshot, FlowEdit, FlowQuery, Port};

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
    /// First flow slot, or ENI, not looked at.
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
    Counters(CounterSnapshot),
    Flows(Arc<FlowQuery>, Vec<FlowEntry>),
    Edit {
        query: Arc<FlowQuery>,
        edit: FlowEdit,
        edited: usize,
    },
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
                self.job = Some(job(What::Counters(counters)));
            }
            Command::FlowCount => {
                let count = self.core.tables().flow_count();
                self.rings.answer(number, &asker, Answer::FlowCount(count));
            }
            Command::Flows(query, flows) => self.job = Some(job(What::Flows(query, flows))),
            Command::Edit(query, edit) => {
                let edited = 0;
                self.job = Some(job(What::Edit {
                    query,
                    edit,
                    edited,
                }));
            }
            Command::Purge(enis) => self.job = Some(job(What::Purge(enis))),
        }
        true
    }

    /// Does a part; gives the job back when there is more.
    fn part(&mut self, mut job: Job) -> Option<Job> {
        if let What::Counters(mut counters) = job.what {
            // Only an ENI that received anything has metered anything.
            let next = counters.eni.range(job.next..).next();
            if let Some((&eni, _)) = next {
                self.core.tables().meters(eni, &mut counters);
                job.next = eni + 1;
                job.what = What::Counters(counters);
                return Some(job);
            }
            self.rings
                .answer(job.number, &job.asker, Answer::Counters(counters));
            return None;
        }
        // Slots that were never taken need no look, however many there are.
        let end = self.core.tables().high_water();
        let slots = job.next..job.next.saturating_add(SLOTS).min(end);
        job.next = slots.end;
        match &mut job.what {
            What::Flows(query, flows) => {
                self.core.tables().flows(slots, query, flows);
                // Enough is enough.
                if flows.len() >= query.most.min(flows.capacity()) {
                    job.next = end;
                }
            }
            What::Edit {
                query,
                edit,
                edited,
            } => {
                let most = query.most - *edited;
                *edited += ager::edit(self.core.tables_mut(), query, *edit, slots, most);
            }
            What::Purge(enis) => ager::purge(self.core.tables_mut(), enis, slots),
            What::Counters(_) => {}
        }
        if job.next < end {
            return Some(job);
        }
        let answer = match job.what {
            What::Flows(query, flows) => Answer::Flows(query, flows),
            What::Edit { query, edited, .. } => Answer::Edited(query, edited as u64),
            What::Purge(enis) => Answer::Purged(enis),
            What::Counters(counters) => Answer::Counters(counters),
        };
        self.rings.answer(job.number, &job.asker, answer);
        None
    }
}
