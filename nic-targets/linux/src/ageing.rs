//! Flow ageing of the kernel executor: the rule of the runtime, over kernel maps.
//!
//! A flow is gone when `now >= last_seen_ns + timeout_ms`. Programs report slots whose deadline came
//! nearer (created or closing) in `flow_events`; a deadline that moved away is found when the
//! scheduled time comes and the entry is read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use dash_wire::stats::EniStat;
use dash_wire::tables::{FlowEntry, flow_state};
use zerocopy::{FromBytes, IntoBytes};

use crate::sys::bpf::Map;

const NS_PER_MS: u64 = 1_000_000;

/// The maps of the flow table.
#[derive(Clone, Debug)]
pub(crate) struct FlowMaps {
    pub(crate) index: Arc<Map>,
    pub(crate) slab: Arc<Map>,
    pub(crate) free: Arc<Map>,
    pub(crate) events: Arc<Map>,
}

/// Scheduled times of flow slots, at most one each.
#[derive(Debug, Default)]
pub(crate) struct Ager {
    due: BTreeSet<(u64, u32)>,
    time: HashMap<u32, u64>,
    /// `FLOW_AGED` and `FLOW_DELETED` by ENI index: the program has no part in these.
    pub(crate) aged: BTreeMap<u32, [(EniStat, u64); 2]>,
}

fn deadline(flow: &FlowEntry) -> u64 {
    flow.last_seen_ns
        .saturating_add(u64::from(flow.timeout_ms) * NS_PER_MS)
}

impl FlowMaps {
    /// The entry of a slot; `None` when it is not in use.
    pub(crate) fn flow(&self, slot: u32) -> io::Result<Option<FlowEntry>> {
        let mut bytes = Vec::new();
        if !self.slab.lookup(&slot.to_ne_bytes(), &mut bytes)? {
            return Ok(None);
        }
        let flow = FlowEntry::read_from_bytes(&bytes).ok();
        Ok(flow.filter(|flow| flow.state != flow_state::FREE))
    }

    /// All flows in use, by slot.
    pub(crate) fn all(&self) -> io::Result<BTreeMap<u32, FlowEntry>> {
        let (mut key, mut value, mut flows) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut previous: Option<Vec<u8>> = None;
        while self.index.next_key(previous.as_deref(), &mut key)? {
            if self.index.lookup(&key, &mut value)?
                && let Some(slot) = slot_of(&value)
                && let Some(flow) = self.flow(slot)?
            {
                flows.insert(slot, flow);
            }
            previous = Some(key.clone());
        }
        Ok(flows)
    }

    /// Ends every flow of ENIs that are no more, uncounted.
    pub(crate) fn purge(&self, enis: &[u32]) -> io::Result<()> {
        for (slot, flow) in self.all()? {
            if enis.contains(&u32::from(flow.eni)) {
                self.expire(slot, flow)?;
            }
        }
        Ok(())
    }

    fn expire(&self, slot: u32, mut flow: FlowEntry) -> io::Result<()> {
        let mut value = Vec::new();
        for key in flow.sides.iter().map(|side| &side.key) {
            // Another flow may have taken the key over.
            if self.index.lookup(key.as_bytes(), &mut value)? && slot_of(&value) == Some(slot) {
                self.index.delete(key.as_bytes())?;
            }
        }
        flow.state = flow_state::FREE;
        self.slab.update(&slot.to_ne_bytes(), flow.as_bytes())?;
        self.free.push(&slot.to_ne_bytes())
    }
}

/// Slot of a `flow_index` row (`slot << 1 | side`).
fn slot_of(row: &[u8]) -> Option<u32> {
    row.first_chunk().map(|b| u32::from_ne_bytes(*b) >> 1)
}

impl Ager {
    /// Schedules the slots that programs reported.
    pub(crate) fn take_events(&mut self, maps: &FlowMaps) -> io::Result<()> {
        let mut value = Vec::new();
        while maps.events.pop(&mut value)? {
            let Some(slot) = value.first_chunk().map(|b| u32::from_ne_bytes(*b)) else {
                continue;
            };
            if let Some(flow) = maps.flow(slot)? {
                self.schedule(slot, deadline(&flow));
            }
        }
        Ok(())
    }

    /// Expires what is due.
    pub(crate) fn advance(&mut self, maps: &FlowMaps, now_ns: u64) -> io::Result<()> {
        while let Some(slot) = self.take_due(now_ns) {
            let Some(flow) = maps.flow(slot)? else {
                continue;
            };
            if deadline(&flow) > now_ns {
                self.schedule(slot, deadline(&flow));
                continue;
            }
            maps.expire(slot, flow)?;
            let stats = [(EniStat::FlowAged, 0), (EniStat::FlowDeleted, 0)];
            let [aged, deleted] = self.aged.entry(flow.eni.into()).or_insert(stats);
            if flow.state == flow_state::CLOSING {
                deleted.1 += 1
            } else {
                aged.1 += 1
            }
        }
        Ok(())
    }

    /// Makes sure that a slot is looked at at `time` or earlier.
    fn schedule(&mut self, slot: u32, time: u64) {
        let old = self.time.get(&slot).copied();
        if old.is_some_and(|old| old <= time) {
            return;
        }
        old.map(|old| self.due.remove(&(old, slot)));
        self.due.insert((time, slot));
        self.time.insert(slot, time);
    }

    fn take_due(&mut self, now_ns: u64) -> Option<u32> {
        let &(time, slot) = self.due.first()?;
        if time > now_ns {
            return None;
        }
        self.due.pop_first();
        self.time.remove(&slot);
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_time_and_only_a_nearer_one_replaces_it() {
        let mut ager = Ager::default();
        ager.schedule(3, 100);
        ager.schedule(4, 60);
        ager.schedule(3, 120);
        assert_eq!(ager.take_due(99), Some(4));
        ager.schedule(3, 50);
        assert_eq!(
            (ager.take_due(49), ager.take_due(50), ager.take_due(1000)),
            (None, Some(3), None)
        );
    }
}
