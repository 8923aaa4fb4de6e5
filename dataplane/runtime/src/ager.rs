//! Flow ageing: finds flows whose time has come, exactly, with bounded memory and work.
//!
//! A flow is gone when `now >= last_seen_ns + timeout_ms`. Packets only move `last_seen_ns`, so
//! nothing is scheduled for them: when a flow's scheduled time comes, its entry is read again and
//! the flow is scheduled anew if it was used meanwhile. A deadline comes *nearer* only when a flow
//! is created or starts closing; programs then push its slot to `flow_events`.
//!
//! One scheduled time a slot, in an indexed binary heap: memory is fixed, and scheduling a slot
//! again moves its one entry.

use std::ops::Range;

use dash_wire::stats::EniStat;
use dash_wire::tables::{FlowEntry, flow_state};
use zerocopy::IntoBytes;

use crate::tables::core_set::CoreTables;

const NS_PER_MS: u64 = 1_000_000;
/// Position of a slot that is not scheduled.
const ABSENT: u32 = u32::MAX;

/// Scheduled times of flow slots.
#[derive(Debug)]
pub struct Ager {
    /// Binary heap: (time, slot), the earliest first.
    heap: Vec<(u64, u32)>,
    /// By slot: its position in the heap.
    position: Box<[u32]>,
}

/// When a flow is gone.
fn deadline(flow: &FlowEntry) -> u64 {
    flow.last_seen_ns
        .saturating_add(u64::from(flow.timeout_ms) * NS_PER_MS)
}

impl Ager {
    /// Nothing scheduled; room for `flows` slots.
    pub fn new(flows: u32) -> Self {
        Self {
            heap: Vec::with_capacity(flows as usize),
            position: vec![ABSENT; flows as usize].into(),
        }
    }

    /// Takes in what programs reported, then expires flows whose deadline is at or before `now`,
    /// looking at no more than `budget` scheduled times. Returns how many flows it expired.
    pub fn run(&mut self, tables: &mut CoreTables, now: u64, budget: usize) -> usize {
        self.take_events(tables);
        let mut expired = 0;
        for _ in 0..budget {
            let Some(&(time, slot)) = self.heap.first() else {
                break;
            };
            if time > now {
                break;
            }
            self.remove_first();
            let Some(flow) = tables
                .flow(slot)
                .filter(|flow| flow.state != flow_state::FREE)
            else {
                continue;
            };
            let deadline = deadline(&flow);
            if deadline > now {
                self.schedule(slot, deadline);
            } else {
                expire(tables, slot, flow);
                expired += 1;
            }
        }
        expired
    }

    /// Schedules the slots in `flow_events`.
    pub fn take_events(&mut self, tables: &CoreTables) {
        while let Some(slot) = tables.flow_events.pop_u32() {
            if let Some(flow) = tables
                .flow(slot)
                .filter(|flow| flow.state != flow_state::FREE)
            {
                self.schedule(slot, deadline(&flow));
            }
        }
    }

    /// Makes sure that a slot is looked at at `time` or earlier.
    fn schedule(&mut self, slot: u32, time: u64) {
        let Some(&position) = self.position.get(slot as usize) else {
            return;
        };
        if position == ABSENT {
            self.heap.push((time, slot));
            self.up(self.heap.len() - 1);
        } else if time < self.heap[position as usize].0 {
            self.heap[position as usize].0 = time;
            self.up(position as usize);
        }
    }

    fn remove_first(&mut self) {
        let (_, slot) = self.heap.swap_remove(0);
        self.position[slot as usize] = ABSENT;
        if !self.heap.is_empty() {
            self.down();
        }
    }

    fn up(&mut self, mut at: usize) {
        while at > 0 && self.heap[at] < self.heap[(at - 1) / 2] {
            self.heap.swap(at, (at - 1) / 2);
            self.note(at);
            at = (at - 1) / 2;
        }
        self.note(at);
    }

    fn down(&mut self) {
        let mut at = 0;
        loop {
            let child = 2 * at + 1;
            let least = match (self.heap.get(child), self.heap.get(child + 1)) {
                (Some(left), Some(right)) if right < left => child + 1,
                (Some(_), _) => child,
                (None, _) => break,
            };
            if self.heap[at] <= self.heap[least] {
                break;
            }
            self.heap.swap(at, least);
            self.note(at);
            at = least;
        }
        self.note(at);
    }

    /// Records where the entry at `at` is.
    fn note(&mut self, at: usize) {
        let (_, slot) = self.heap[at];
        // A heap has at most as many entries as there are slots, which `u32` counts.
        self.position[slot as usize] = at as u32;
    }
}

/// Ends every flow in `slots` whose ENI is no more, uncounted.
pub fn purge(tables: &mut CoreTables, enis: &[u32], slots: Range<u32>) {
    for slot in slots {
        if let Some(flow) = tables.flow(slot)
            && flow.state != flow_state::FREE
            && enis.contains(&u32::from(flow.eni))
        {
            release(tables, slot, flow);
        }
    }
}

/// Removes a flow whose time has come.
fn expire(tables: &mut CoreTables, slot: u32, flow: FlowEntry) {
    let stat = if flow.state == flow_state::CLOSING {
        EniStat::FlowDeleted
    } else {
        EniStat::FlowAged
    };
    tables.count_eni(u32::from(flow.eni), stat, 1);
    release(tables, slot, flow);
}

/// Takes a flow out of the index and gives its slot back.
fn release(tables: &mut CoreTables, slot: u32, mut flow: FlowEntry) {
    for key in flow.sides.iter().map(|side| &side.key) {
        // A key may have been taken over by another flow since.
        if tables
            .flow_index
            .get_u32(key.as_bytes())
            .is_some_and(|value| value >> 1 == slot)
        {
            tables.flow_index.remove(key.as_bytes());
        }
    }
    flow.state = flow_state::FREE;
    tables.set_flow(slot, &flow);
    // There are as many places as slots, and this slot was in use: it fits.
    tables.flow_free.push_u32(slot);
}
