//! Flow ageing: finds flows whose time has come, exactly, with bounded memory and work.
//!
//! A flow is gone when `now >= last_seen_ns + timeout_ms`. Packets only move `last_seen_ns`, so
//! nothing is scheduled for them: when a flow's scheduled time comes, its entry is read again and
//! the flow is scheduled anew if it was used meanwhile. A deadline comes *nearer* only when a flow
//! is created or starts closing; programs then push its slot to `flow_events`.
//!
//! One scheduled time a slot, in a timer wheel: memory is fixed and touched as slots are used,
//! and scheduling a slot again moves its one entry. Flows go in the order of their deadlines; those of one
//! nanosecond in no order.

use std::ops::Range;

use dash_wire::stats::EniStat;
use dash_wire::tables::flow_state;
use nic_target::{FlowEdit, FlowQuery};

use crate::tables::core_set::{Ageing, CoreTables};
use crate::tables::memory::MemoryError;
use wheel::{BATCH, Wheel};

mod wheel;

const NS_PER_MS: u64 = 1_000_000;
/// Slots moved inside the wheel for each that may be looked at: a slot goes down this often.
const MOVES: usize = 4;

/// Scheduled times of flow slots.
#[derive(Debug)]
pub struct Ager {
    wheel: Wheel,
    late_ns: u64,
}

impl Ager {
    /// Nothing scheduled; room for `flows` slots.
    ///
    /// # Errors
    /// The system gives no address space.
    pub fn new(flows: u32) -> Result<Self, MemoryError> {
        Ok(Self {
            wheel: Wheel::new(flows)?,
            late_ns: 0,
        })
    }

    /// Takes the memory of all slots' times now.
    pub(crate) fn prefault(&self) -> Result<(), MemoryError> {
        self.wheel.prefault()
    }

    /// Takes in what programs reported, then expires flows whose deadline is at or before `now`,
    /// looking at no more than `budget` scheduled times. Returns how many flows it expired.
    pub fn run(&mut self, tables: &mut CoreTables, now: u64, mut budget: usize) -> usize {
        self.take_events(tables);
        let mut moves = budget.saturating_mul(MOVES);
        let mut expired = 0;
        while budget > 0
            && moves > 0
            && let Some(due) = self.wheel.pop(now, budget.min(moves))
        {
            let slots = due.slots();
            match due.exact {
                true => budget -= slots.len(),
                false => moves -= slots.len(),
            }
            // What was not used for a while is in no cache: asked for at once.
            slots.iter().for_each(|&slot| tables.prefetch_ageing(slot));
            let mut gone = [(0, EniStat::FlowAged, 0, false); BATCH];
            let mut count = 0;
            for &slot in slots {
                let Some((deadline, ageing)) = deadline(tables, slot) else {
                    continue;
                };
                // Used since, or not exact yet.
                if !due.exact || deadline > self.wheel.elapsed() {
                    self.wheel.schedule(slot, deadline);
                    continue;
                }
                tables.prefetch_keys(slot);
                let stat = match ageing.state {
                    flow_state::CLOSING => EniStat::FlowDeleted,
                    _ => EniStat::FlowAged,
                };
                gone[count] = (slot, stat, u32::from(ageing.eni), ageing.redirected);
                count += 1;
            }
            let gone = &gone[..count];
            for &(slot, ..) in gone {
                tables.prefetch_rows(slot);
            }
            for &(slot, stat, eni, redirected) in gone {
                tables.count_eni(eni, stat, 1);
                if redirected {
                    uncount_redirected(tables, eni);
                }
                release(tables, slot);
            }
            expired += count;
        }
        // What nothing holds up has come to `now`.
        self.late_ns = now.saturating_sub(self.wheel.elapsed());
        expired
    }

    /// How long flows that the last run did not get to have been due, ns; 0 when it got to all.
    pub fn late_ns(&self) -> u64 {
        self.late_ns
    }

    /// Schedules the slots in `flow_events`.
    pub fn take_events(&mut self, tables: &CoreTables) {
        while let Some(slot) = tables.flow_events.pop_u32() {
            if let Some((deadline, _)) = deadline(tables, slot) {
                self.wheel.schedule(slot, deadline);
            }
        }
    }
}

/// When the flow in a slot is gone, and what says so; `None` when there is none.
fn deadline(tables: &CoreTables, slot: u32) -> Option<(u64, Ageing)> {
    let ageing = tables.ageing(slot)?;
    (ageing.state != flow_state::FREE).then(|| {
        let timeout = u64::from(ageing.timeout_ms) * NS_PER_MS;
        (ageing.last_seen_ns.saturating_add(timeout), ageing)
    })
}

/// Ends every flow in `slots` whose ENI is no more, uncounted.
pub fn purge(tables: &mut CoreTables, enis: &[u32], slots: Range<u32>) {
    for &eni in enis {
        tables.forget_limits(eni, 0);
    }
    // Slots that were never taken are not touched.
    for slot in slots.start..slots.end.min(tables.high_water()) {
        if let Some(ageing) = tables.ageing(slot)
            && ageing.state != flow_state::FREE
            && enis.contains(&u32::from(ageing.eni))
        {
            if ageing.redirected {
                uncount_redirected(tables, ageing.eni.into());
            }
            release(tables, slot);
            tables.forget_limits(ageing.eni.into(), 1);
        }
    }
}

/// One flow that a redirect changed is no more.
fn uncount_redirected(tables: &mut CoreTables, eni: u32) {
    tables.count_eni(eni, EniStat::LbFastPathActiveFlow, 1u64.wrapping_neg());
}

/// Deletes or changes the flows in `slots` that are asked for, `most` at most; gives how many.
pub fn edit(
    tables: &mut CoreTables,
    query: &FlowQuery,
    edit: FlowEdit,
    slots: Range<u32>,
    most: usize,
) -> usize {
    let mut edited = 0;
    for slot in slots.start..slots.end.min(tables.high_water()) {
        if edited >= most {
            break;
        }
        let Some(flow) = tables.live_flow(slot, query) else {
            continue;
        };
        edited += 1;
        match edit {
            FlowEdit::Delete => {
                tables.count_eni(flow.eni.into(), EniStat::FlowDeleted, 1);
                release(tables, slot);
            }
            FlowEdit::Epoch(epoch) => tables.set_epoch(slot, epoch),
        }
    }
    edited
}

/// Takes a flow out of the index and gives its slot back.
fn release(tables: &mut CoreTables, slot: u32) {
    for side in 0..2 {
        // A key may have been taken over by another flow since: then it stays.
        tables.flow_index.remove_row(slot << 1 | side);
    }
    tables.set_free(slot);
    // There are as many places as slots, and this slot was in use: it fits.
    tables.flow_free.push_u32(slot);
}
