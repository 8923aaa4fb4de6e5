//! The tables one core owns: flows, counters, scratch.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use dash_wire::abi::MapHandle;
use dash_wire::stats::{EniStat, PortStat};
use dash_wire::tables::{
    FlowEntry, FlowHalf, FlowKey, MeterBucket, QosState, flow_mark, flow_state, meter,
};
use nic_target::tables::Discipline;
use nic_target::{Capacity, CounterSnapshot, FlowQuery, Table, TargetError};
use zerocopy::{FromBytes, IntoBytes};

use super::Handled;
use super::array::Array;
use super::flow_index::{Ahead, FlowIndex, Slab};
use super::fragments::FragmentView;
use super::free_slots::FreeSlots;
use super::memory::{Mapping, MemoryError};
use super::mirror::{SharedFlows, SlabMemory};
use super::ring::Ring;
use crate::prefetch::{prefetch, prefetch_write};

/// Core tables. Boxed: programs hold their addresses.
#[derive(Debug)]
pub struct CoreTables {
    /// Flow key to `slot << 1 | side`.
    pub flow_index: Box<Handled<FlowIndex>>,
    /// Connections.
    pub flow_slab: Box<Handled<Array>>,
    /// Slots not in use.
    pub flow_free: Box<Handled<FreeSlots>>,
    /// Slots whose deadline came nearer.
    pub flow_events: Box<Handled<Ring>>,
    /// Counter blocks of ENIs.
    pub eni_stats: Box<Handled<Array>>,
    /// Counter block of the card.
    pub port_stats: Box<Handled<Array>>,
    /// What one stage tells the next.
    pub meta: Box<Handled<Array>>,
    /// First fragments.
    pub fragments: Box<Handled<FragmentView>>,
    /// Byte counters of ENIs and metering classes.
    pub meter_stats: Box<Handled<Array>>,
    /// What is kept of each ENI.
    pub eni_life: Box<Handled<Array>>,
    /// What ENIs used of their limits.
    pub qos_state: Box<Handled<Array>>,
}

/// What decides when a connection is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ageing {
    pub(crate) last_seen_ns: u64,
    pub(crate) timeout_ms: u32,
    pub(crate) eni: u16,
    pub(crate) state: u8,
    /// A redirect changed it.
    pub(crate) redirected: bool,
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
    /// No flows, counters zero, all slots free: slot 0 is taken first. Memory of flows is taken
    /// when they are made, by the thread that makes them.
    ///
    /// # Errors
    /// The system gives no address space for the flows there may be.
    pub fn new(capacity: &Capacity) -> Result<Self, MemoryError> {
        let def = Table::FlowSlab.def(capacity);
        let bytes = def.stride() as usize * def.max_entries as usize;
        let memory = Mapping::new("the flow slab", bytes)?;
        let slab = Array::over(&def, Arc::new(memory));
        let slab = slab.expect("mapped with the size of the slab");
        let limits = Array::new(&Table::QosState.def(capacity));
        Self::with(capacity, slab, limits)
    }

    /// The same over a flow slab that another processor shares.
    ///
    /// # Errors
    /// The slab's memory is too small, or the system gives no address space for the rest.
    pub fn shared(capacity: &Capacity, flows: SharedFlows) -> Result<Self, TargetError> {
        let over = |table: Table, what: &str, memory: Arc<dyn SlabMemory>| {
            let def = table.def(capacity);
            let (has, wants) = (
                memory.len(),
                def.stride() as usize * def.max_entries as usize,
            );
            Array::over(&def, memory).ok_or_else(|| TargetError::Os {
                what: format!("{what} of {wants} bytes in shared memory of {has}"),
                source: std::io::ErrorKind::InvalidInput.into(),
            })
        };
        let slab = over(Table::FlowSlab, "a flow slab", flows.slab)?;
        let limits = over(Table::QosState, "limits", flows.limits)?;
        let mut new = Self::with(capacity, slab, limits)?;
        new.flow_index.watch(flows.mirror);
        Ok(new)
    }

    fn with(capacity: &Capacity, flow_slab: Array, limits: Array) -> Result<Self, MemoryError> {
        let def = |table: Table| table.def(capacity);
        let array = |table| Box::new(Handled::new(Array::new(&def(table))));
        const { assert!(size_of::<FlowEntry>().is_multiple_of(8)) };
        let base = NonNull::new(flow_slab.base()).expect("an array has an address");
        // SAFETY: the slab has this many entries, `stride` apart, which is their size. It is dropped
        // with the index, nothing takes it out of the tables, and all of them are one thread's; another
        // processor that shares it writes no keys (`SharedFlows`).
        let slab = unsafe { Slab::new(base, flow_slab.entries()) };
        Ok(Self {
            flow_index: Box::new(Handled::new(FlowIndex::new(slab)?)),
            flow_slab: Box::new(Handled::new(flow_slab)),
            flow_free: Box::new(Handled::new(FreeSlots::new(capacity.flows)?)),
            flow_events: Box::new(Handled::new(Ring::queue(&def(Table::FlowEvents)))),
            eni_stats: array(Table::EniStats),
            port_stats: array(Table::PortStats),
            meta: array(Table::Meta),
            fragments: Box::new(Handled::new(FragmentView::new(
                def(Table::Fragments).max_entries,
            ))),
            meter_stats: array(Table::MeterStats),
            eni_life: array(Table::EniLife),
            qos_state: Box::new(Handled::new(limits)),
        })
    }

    /// Takes the memory of as many flows as there may be now, for the thread that calls.
    ///
    /// # Errors
    /// There is not so much.
    pub fn prefault(&mut self) -> Result<(), MemoryError> {
        self.flow_slab.prefault("the flow slab")?;
        self.flow_index.prefault()?;
        self.flow_free.prefault()?;
        self.flow_events.prefault("flow events")
    }

    /// A table by its number, `None` when it is not one of these.
    pub fn map(&self, table: Table) -> Option<CoreMap<'_>> {
        let array = |map: &'_ Handled<Array>| map.handle();
        let (handle, array) = match table {
            Table::FlowIndex => (self.flow_index.handle(), None),
            Table::FlowFree => (self.flow_free.handle(), None),
            Table::FlowEvents => (self.flow_events.handle(), None),
            Table::Fragments => (self.fragments.handle(), None),
            Table::FlowSlab => (array(&self.flow_slab), Some(&**self.flow_slab)),
            Table::EniStats => (array(&self.eni_stats), Some(&**self.eni_stats)),
            Table::PortStats => (array(&self.port_stats), Some(&**self.port_stats)),
            Table::Meta => (array(&self.meta), Some(&**self.meta)),
            Table::MeterStats => (array(&self.meter_stats), Some(&**self.meter_stats)),
            Table::EniLife => (array(&self.eni_life), Some(&**self.eni_life)),
            Table::QosState => (array(&self.qos_state), Some(&**self.qos_state)),
            _ => return None,
        };
        debug_assert_eq!(table.discipline(), Discipline::Core);
        Some(CoreMap { handle, array })
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

    /// What the ager must know of a connection.
    pub(crate) fn ageing(&self, slot: u32) -> Option<Ageing> {
        let entry = self.flow_slab.element(slot)?.cast::<FlowEntry>();
        // SAFETY: an element of the slab, 8-byte aligned and of any bit pattern, which only this
        // thread and whole-word stores of a sharing processor write.
        unsafe {
            Some(Ageing {
                last_seen_ns: (&raw const (*entry).last_seen_ns).read_volatile(),
                timeout_ms: (&raw const (*entry).timeout_ms).read(),
                eni: (&raw const (*entry).eni).read(),
                state: (&raw const (*entry).state).read(),
                redirected: (&raw const (*entry).marks).read() & flow_mark::REDIRECTED != 0,
            })
        }
    }

    /// Says that a slot holds no connection any more.
    pub(crate) fn set_free(&mut self, slot: u32) {
        if let Some(entry) = self.flow_slab.element(slot) {
            // SAFETY: an element of the slab, see `ageing`; nobody else writes the state.
            unsafe { (&raw mut (*entry.cast::<FlowEntry>()).state).write(flow_state::FREE) };
        }
    }

    /// Says in which epoch a connection was decided.
    pub(crate) fn set_epoch(&mut self, slot: u32, epoch: u8) {
        if let Some(entry) = self.flow_slab.element(slot) {
            // SAFETY: an element of the slab, see `ageing`; nobody else writes the epoch.
            unsafe { (&raw mut (*entry.cast::<FlowEntry>()).epoch).write(epoch) };
        }
    }

    /// Asks for the line that [`ageing`](Self::ageing) reads.
    pub(crate) fn prefetch_ageing(&self, slot: u32) {
        if let Some(entry) = self.flow_slab.element(slot) {
            prefetch(entry.wrapping_add(std::mem::offset_of!(FlowEntry, created_ns)));
        }
    }

    /// Asks for the lines in which a connection's keys are.
    pub(crate) fn prefetch_keys(&self, slot: u32) {
        if let Some(entry) = self.flow_slab.element(slot) {
            prefetch(entry);
            prefetch(entry.wrapping_add(size_of::<FlowHalf>()));
        }
    }

    /// Asks for the lines of the index in which a connection's keys may be.
    pub(crate) fn prefetch_rows(&self, slot: u32) {
        for side in 0..2 {
            self.flow_index.prefetch_row(slot << 1 | side);
        }
    }

    /// Asks for the memory of the connection that is made `nth` from now, to be written.
    #[inline]
    pub(crate) fn prefetch_new(&self, nth: usize) {
        if let Some(slot) = self.flow_free.upcoming(nth)
            && let Some(entry) = self.flow_slab.element(slot)
        {
            for line in (0..size_of::<FlowEntry>()).step_by(64) {
                prefetch_write(entry.wrapping_add(line));
            }
        }
    }

    /// Hash of a flow's key, for the three below.
    #[inline]
    pub fn flow_hash(&self, key: &FlowKey) -> u64 {
        self.flow_index.hash(key)
    }

    /// Asks for the lines of the index in which a flow may be: the first pass over a burst.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) -> Ahead {
        self.flow_index.prefetch_bucket(hash)
    }

    /// Asks for the lines of the connection that a packet of the flow will touch: the second pass,
    /// which reads the index. False when there is no such connection.
    #[inline]
    pub fn prefetch_entry(&self, ahead: &mut Ahead) -> bool {
        self.flow_index.prefetch_entry(ahead)
    }

    /// The address of a flow's row in the index, null when there is none: what a program's look-up
    /// would give.
    // Asked for each packet; its other caller is rare.
    #[inline(always)]
    pub fn find_ahead(&self, key: &FlowKey, ahead: &Ahead) -> *mut u32 {
        self.flow_index.find_ahead(key, ahead)
    }

    /// Whether the packet just run made the connection of this key; `None` when there is none.
    pub fn first_of_flow(&self, key: &FlowKey) -> Option<bool> {
        let mut ahead = self.prefetch_bucket(self.flow_hash(key));
        self.prefetch_entry(&mut ahead);
        let row = self.find_ahead(key, &ahead);
        // SAFETY: null, or the address of a row of the index, which only this thread uses.
        let row = unsafe { row.as_ref() }?;
        let entry = self.flow(row >> 1)?;
        Some(entry.packets.iter().sum::<u64>() == 1)
    }

    /// Slots from here on never held a connection, and their memory was never touched.
    pub fn high_water(&self) -> u32 {
        self.flow_free.high_water()
    }

    /// Adds to a counter of an ENI; unknown ENIs are not counted.
    pub fn count_eni(&mut self, eni: u32, stat: EniStat, n: u64) {
        add(&self.eni_stats, eni, stat.offset(), n);
    }

    /// Adds to a counter of the card.
    pub fn count_port(&mut self, stat: PortStat, n: u64) {
        add(&self.port_stats, 0, stat.offset(), n);
    }

    /// The ENI of an index is gone: the next one owes nothing, and `flows` of the old one's ended without
    /// being counted.
    pub(crate) fn forget_limits(&mut self, eni: u32, flows: u64) {
        let mut state = QosState::default();
        if self.qos_state.read(eni, state.as_mut_bytes()) {
            let purged = state.purged.wrapping_add(flows);
            let state = QosState {
                purged,
                ..QosState::default()
            };
            self.qos_state.write(eni, state.as_bytes());
        }
    }

    /// Counters now, but for those of metering: see [`meters`](Self::meters).
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

    /// Adds the buckets of an ENI that ever counted. It looks at all of them, 64 kB: ENIs are read one
    /// between bursts.
    pub fn meters(&self, eni: u32, snapshot: &mut CounterSnapshot) {
        let mut bucket = MeterBucket::default();
        for class in 1..=meter::MAX_CLASS {
            let index = eni << meter::ENI_SHIFT | class;
            if self.meter_stats.read(index, bucket.as_mut_bytes())
                && bucket != MeterBucket::default()
            {
                snapshot.meter.insert((eni, class), bucket);
            }
        }
    }

    /// Live connections: the slots that are not free.
    pub fn flow_count(&self) -> usize {
        self.flow_slab.entries() as usize - self.flow_free.len()
    }

    /// Appends the live connections of slots `from..to` that are asked for, until `out` holds as many
    /// as it has memory for or the query wants.
    pub fn flows(&self, slots: Range<u32>, query: &FlowQuery, out: &mut Vec<FlowEntry>) {
        for slot in slots.start..slots.end.min(self.high_water()) {
            if let Some(flow) = self.live_flow(slot, query)
                && out.len() < query.most.min(out.capacity())
            {
                out.push(flow);
            }
        }
    }

    /// The live connection in a slot, when it is asked for.
    pub(crate) fn live_flow(&self, slot: u32, query: &FlowQuery) -> Option<FlowEntry> {
        let ageing = self.ageing(slot)?;
        if ageing.state == flow_state::FREE || !query.has_eni(ageing.eni) {
            return None;
        }
        self.flow(slot).filter(|flow| query.matches(flow))
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
