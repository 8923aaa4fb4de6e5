//! The tables one core owns: flows, counters, scratch.

use std::ptr::NonNull;

use dash_wire::abi::MapHandle;
use dash_wire::stats::{EniStat, PortStat};
use dash_wire::tables::{FlowEntry, FlowKey, flow_state};
use nic_target::tables::Discipline;
use nic_target::{Capacity, CounterSnapshot, Table, TargetError};
use zerocopy::{FromBytes, IntoBytes};

use super::Handled;
use super::array::Array;
use super::core_hash::CoreHash;
use super::hash::HashKey;
use super::mirror::SharedFlows;
use super::ring::Ring;

/// Core tables. Boxed: programs hold their addresses.
#[derive(Debug)]
pub struct CoreTables {
    /// Flow key to `slot << 1 | side`.
    pub flow_index: Box<Handled<CoreHash>>,
    /// Connections.
    pub flow_slab: Box<Handled<Array>>,
    /// Slots not in use.
    pub flow_free: Box<Handled<Ring>>,
    /// Slots whose deadline came nearer.
    pub flow_events: Box<Handled<Ring>>,
    /// Counter blocks of ENIs.
    pub eni_stats: Box<Handled<Array>>,
    /// Counter block of the card.
    pub port_stats: Box<Handled<Array>>,
    /// What one stage tells the next.
    pub meta: Box<Handled<Array>>,
}

/// A core table as programs see it.
#[derive(Clone, Copy, Debug)]
pub struct CoreMap<'a> {
    /// What programs hold as the map's address.
    pub handle: *const MapHandle,
    /// The elements, when it is an array.
    pub array: Option<&'a Array>,
}

impl CoreTables {
    /// No flows, counters zero, all slots free: slot 0 is taken first.
    pub fn new(capacity: &Capacity) -> Self {
        Self::with(capacity, Array::new(&Table::FlowSlab.def(capacity)))
    }

    /// The same over a flow slab that another processor shares.
    ///
    /// # Errors
    /// The slab's memory is too small.
    pub fn shared(capacity: &Capacity, flows: SharedFlows) -> Result<Self, TargetError> {
        let def = Table::FlowSlab.def(capacity);
        let (has, wants) = (
            flows.slab.len(),
            def.stride() as usize * def.max_entries as usize,
        );
        let slab = Array::over(&def, flows.slab).ok_or_else(|| TargetError::Os {
            what: format!("a flow slab of {wants} bytes in shared memory of {has}"),
            source: std::io::ErrorKind::InvalidInput.into(),
        })?;
        let mut new = Self::with(capacity, slab);
        let base = NonNull::new(new.flow_slab.base());
        if let Some(base) = base {
            const { assert!(size_of::<FlowEntry>().is_multiple_of(8)) };
            // SAFETY: the slab has this many entries, `stride` apart, which is their size; the index
            // and the slab are dropped together, and nothing takes the slab out of the tables.
            unsafe {
                new.flow_index
                    .watch(flows.mirror, base, def.max_entries as usize);
            }
        }
        Ok(new)
    }

    fn with(capacity: &Capacity, flow_slab: Array) -> Self {
        let def = |table: Table| table.def(capacity);
        let array = |table| Box::new(Handled::new(Array::new(&def(table))));
        let flow_free = Box::new(Handled::new(Ring::stack(&def(Table::FlowFree))));
        for slot in (0..capacity.flows).rev() {
            flow_free.push_u32(slot);
        }
        Self {
            flow_index: Box::new(Handled::new(CoreHash::new(&def(Table::FlowIndex)))),
            flow_slab: Box::new(Handled::new(flow_slab)),
            flow_free,
            flow_events: Box::new(Handled::new(Ring::queue(&def(Table::FlowEvents)))),
            eni_stats: array(Table::EniStats),
            port_stats: array(Table::PortStats),
            meta: array(Table::Meta),
        }
    }

    /// A table by its number, `None` when it is not one of these.
    pub fn map(&self, table: Table) -> Option<CoreMap<'_>> {
        let array = |map: &'_ Handled<Array>| map.handle();
        let (handle, array) = match table {
            Table::FlowIndex => (self.flow_index.handle(), None),
            Table::FlowFree => (self.flow_free.handle(), None),
            Table::FlowEvents => (self.flow_events.handle(), None),
            Table::FlowSlab => (array(&self.flow_slab), Some(&**self.flow_slab)),
            Table::EniStats => (array(&self.eni_stats), Some(&**self.eni_stats)),
            Table::PortStats => (array(&self.port_stats), Some(&**self.port_stats)),
            Table::Meta => (array(&self.meta), Some(&**self.meta)),
            _ => return None,
        };
        debug_assert_eq!(table.discipline(), Discipline::Core);
        Some(CoreMap { handle, array })
    }

    /// Hash of a flow key in the index.
    #[inline]
    pub fn flow_hash(&self, key: &FlowKey) -> u64 {
        HashKey::process().hash(key.as_bytes())
    }

    /// Asks for what a look-up of this hash reads first.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        let _ = hash;
    }

    /// Asks for the connection that a look-up of this hash leads to.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        let _ = hash;
    }

    /// A connection, whatever its state.
    pub fn flow(&self, slot: u32) -> Option<FlowEntry> {
        let mut bytes = [0; size_of::<FlowEntry>()];
        self.flow_slab.read(slot, &mut bytes).then_some(())?;
        FlowEntry::read_from_bytes(&bytes).ok()
    }

    /// Overwrites a connection.
    pub fn set_flow(&mut self, slot: u32, entry: &FlowEntry) {
        self.flow_slab.write(slot, entry.as_bytes());
    }

    /// Adds to a counter of an ENI; unknown ENIs are not counted.
    pub fn count_eni(&mut self, eni: u32, stat: EniStat, n: u64) {
        add(&self.eni_stats, eni, stat.offset(), n);
    }

    /// Adds to a counter of the card.
    pub fn count_port(&mut self, stat: PortStat, n: u64) {
        add(&self.port_stats, 0, stat.offset(), n);
    }

    /// Counters now.
    pub fn counters(&self) -> CounterSnapshot {
        let mut snapshot = CounterSnapshot {
            port: vec![0; PortStat::COUNT],
            ..Default::default()
        };
        self.port_stats.read(0, snapshot.port.as_mut_bytes());
        let mut block = vec![0u64; EniStat::COUNT];
        for eni in 0..self.eni_stats.entries() {
            self.eni_stats.read(eni, block.as_mut_bytes());
            if block.iter().any(|&n| n != 0) {
                snapshot.eni.insert(eni, block.clone());
            }
        }
        snapshot
    }

    /// Appends the live connections of slots `from..to`.
    pub fn flows(&self, from: u32, to: u32, out: &mut Vec<FlowEntry>) {
        let live = (from..to).filter_map(|slot| self.flow(slot));
        out.extend(live.filter(|flow| flow.state != flow_state::FREE));
    }
}

/// Adds to a counter by its byte offset in an element.
fn add(stats: &Array, index: u32, offset: usize, n: u64) {
    if let Some(block) = stats.element(index) {
        // SAFETY: offsets of counters are inside a block, as its size comes from the same list
        // (`EniStat::COUNT * 8`); blocks are 8-byte aligned; only this thread touches them.
        unsafe {
            let counter = block.add(offset).cast::<u64>();
            counter.write(counter.read().wrapping_add(n));
        }
    }
}
