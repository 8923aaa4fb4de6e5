//! The kernel in front of user space: packets of known flows are done in XDP programs, and user space,
//! which has the whole pipeline, gets the others.
//!
//! ```text
//!           kernel                                      user space
//!  packet -> rx -> inner -> flow --hit--> apply -> out
//!                            | miss                      ^ out
//!                            '--> upcall --------------> rx -> inner -> flow -> policy -> create -> apply
//!                 flow_slab  <==== one memory ====>  flow_slab      |
//!                 flow_index <------- FlowMirror -------------------'
//! ```
//!
//! - **Who owns flows.** User space makes, changes and ends them; the kernel only refreshes them (time,
//!   packets, bytes). TCP segments with SYN, FIN or RST therefore go up, and so does the first segment
//!   of the other side of a half-open connection. So do fragments, whose table user space has, and
//!   ICMP errors.
//! - **Entries are shared memory**, written by plain aligned stores. Two processors that refresh an
//!   entry at once may lose one of two packets from its counts; the time is that of one of them, so
//!   deadlines hold. A packet that is refreshing while its entry is given to another connection leaves
//!   its counts there; it never takes that connection's decision (`dash_pipeline::lower::lower_hits`).
//! - **Order.** Packets of a new flow go up until its keys are in the kernel's index, and reach user
//!   space in order; the first of them makes the flow and the others hit it there. A packet that
//!   arrives right after the keys are in may pass those still on their way, as with every software
//!   switch that has a fast path in the kernel.
//! - **Counters.** The stages before the look-up count in the kernel and count again when user space
//!   runs them for a packet that came up; what they count is taken from the kernel alone. All else
//!   is counted where it happens.
//! - **Updates.** Rows are in the kernel first, then other code, then user space. A packet during an
//!   update meets each kernel row before or after it, and user space's generation before or after it;
//!   the decision of a flow is always of one generation. Kernel code changes whole: a program array
//!   for each image, entered through one slot. Flows of a deleted ENI are gone from the kernel's index
//!   when the update returns.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use dash_bpf::map::{F_MMAPABLE, MapDef, MapKind};
use dash_bpf::{Insn, Object, Program, ProgramKind};
use dash_pipeline::lower::{Hits, lower_hits};
use dash_pipeline::text;
use dash_runtime::tables::mirror::{FlowMirror, SharedFlows};
use dash_wire::stats::{EniStat, PortStat};
use dash_wire::tables::{FlowEntry, MeterBucket, UnderlayRow, meter};
use nic_target::{
    Capacity, CounterSnapshot, FlowEdit, FlowQuery, Image, Table, Target, TargetError, Update,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::ENGINE;
use crate::loader::{self, LoadError, Loaded, Purpose};
use crate::rows::{Changes, Rows, Staged};
use crate::sys;
use crate::sys::bpf::Map;
use crate::sys::mapped::Mapped;
use crate::upcall::{self, Way};

/// Tables the kernel's stages name, but for the stages' own.
const TABLES: [Table; 12] = [
    Table::Globals,
    Table::EniMac,
    Table::Eni,
    Table::Underlay,
    Table::FlowIndex,
    Table::FlowSlab,
    Table::EniStats,
    Table::PortStats,
    Table::Meta,
    Table::Qos,
    Table::QosState,
    Table::PortMtu,
];

/// Those of them that control writes.
pub(crate) const POLICY: [Table; 6] = [
    Table::Globals,
    Table::EniMac,
    Table::Eni,
    Table::Underlay,
    Table::Qos,
    Table::PortMtu,
];

/// Index of the map that only code which meters names.
const METERS: u32 = Table::MeterStats as u32;

/// Interface that packets of test runs come by, as port 0.
const LOOPBACK: u32 = 1;

/// Slot of the program for packets to control; stages are before it.
const PUNT_SLOT: usize = 15;

fn unsupported(reason: impl ToString) -> TargetError {
    TargetError::Unsupported {
        engine: ENGINE,
        reason: reason.to_string(),
    }
}

pub(crate) fn os(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> TargetError {
    let what = what.into();
    |source| TargetError::Os { what, source }
}

fn refused(error: LoadError) -> TargetError {
    let what = error.what();
    match error {
        LoadError::Map { source, .. } | LoadError::Fill { source, .. } => {
            TargetError::Os { what, source }
        }
        other => unsupported(other),
    }
}

/// What makes it serve interfaces.
#[derive(Debug)]
struct Live {
    /// Interface index by port.
    interfaces: Vec<u32>,
    /// By port: the program that gives its packets to its sockets.
    ups: Arc<Map>,
    /// Slot 0: the first stage of the installed code.
    first: Arc<Map>,
    /// The program that is attached to interfaces.
    port: Loaded,
}

/// Code in the kernel.
#[derive(Debug)]
struct Installed {
    loaded: Loaded,
    /// ENI counters that user space moves again.
    counted: Vec<EniStat>,
}

/// An update that can be made.
struct Prepared {
    installed: Option<Installed>,
    staged: Staged,
}

/// The kernel's part: maps, rows and programs.
#[derive(Debug)]
pub struct Front {
    capacity: Capacity,
    rows: Rows,
    /// By [`Table::index`].
    maps: Vec<Option<Arc<Map>>>,
    /// Buckets of metering classes. Made with the first code that meters: there are 4,096 of each ENI, and
    /// the kernel gives them memory of every CPU at once.
    meters: OnceLock<Arc<Map>>,
    slab: Arc<Mapped>,
    limits: Arc<Mapped>,
    live: Option<Live>,
    installed: Option<Installed>,
    /// Code before the last: a packet may still be in it when other code is installed.
    retired: Option<Installed>,
    refused: Arc<AtomicU64>,
}

impl Front {
    /// For test runs.
    ///
    /// # Errors
    /// The kernel refuses a map.
    pub fn test_run(capacity: &Capacity) -> Result<Self, TargetError> {
        sys::raise_memlock();
        let mut maps = vec![None; Table::ALL.len()];
        for table in TABLES {
            let mut def = table.def(capacity);
            if [Table::FlowSlab, Table::QosState].contains(&table) {
                def.flags |= F_MMAPABLE;
            }
            let map = loader::create_map(&def).map_err(refused)?;
            maps[table.index() as usize] = Some(Arc::new(map));
        }
        let mapped = |table: Table| {
            let name = table.name();
            let map = maps[table.index() as usize].clone();
            let map = map.ok_or_else(|| unsupported(format!("no map {name}")))?;
            let mapped = Mapped::new(map).map_err(os(format!("mapping map {name}")))?;
            Ok::<_, TargetError>(Arc::new(mapped))
        };
        let (slab, limits) = (mapped(Table::FlowSlab)?, mapped(Table::QosState)?);
        Ok(Self {
            capacity: capacity.clone(),
            rows: Rows::new(capacity.clone()),
            maps,
            meters: OnceLock::new(),
            slab,
            limits,
            live: None,
            installed: None,
            retired: None,
            refused: Arc::default(),
        })
    }

    /// For interfaces: port `n` of the rows is the interface of index `interfaces[n]`.
    ///
    /// # Errors
    /// The kernel refuses a map or a program.
    pub fn live(capacity: &Capacity, interfaces: Vec<u32>) -> Result<Self, TargetError> {
        let mut front = Self::test_run(capacity)?;
        let array = |name: &str, kind, entries| MapDef {
            name: name.to_owned(),
            kind,
            key_size: 4,
            value_size: 4,
            max_entries: entries,
            flags: 0,
            ..MapDef::default()
        };
        let ups = array("ups", MapKind::ProgArray, interfaces.len().max(1) as u32);
        let ups = Arc::new(loader::create_map(&ups).map_err(refused)?);
        let first_def = array("first", MapKind::ProgArray, 1);
        let first = Arc::new(loader::create_map(&first_def).map_err(refused)?);
        let object = Object {
            maps: vec![Table::PortStats.def(capacity), first_def],
            programs: vec![program("dashwire", upcall::port(0, 1))?],
            tail_calls: Vec::new(),
        };
        let stats = front.map(Table::PortStats).cloned();
        let given = |index| match index {
            0 => stats.clone(),
            _ => Some(Arc::clone(&first)),
        };
        let port = Loaded::load(&object, given, Purpose::Live { pass: None }).map_err(refused)?;
        front.live = Some(Live {
            interfaces,
            ups,
            first,
            port,
        });
        Ok(front)
    }

    /// What the flow table of the user-space core is made of.
    pub fn flows(&self) -> SharedFlows {
        SharedFlows {
            slab: Arc::clone(&self.slab) as _,
            limits: Arc::clone(&self.limits) as _,
            mirror: Box::new(KernelIndex {
                index: self.map(Table::FlowIndex).cloned(),
                refused: Arc::clone(&self.refused),
            }),
        }
    }

    /// Flows that the kernel's index had no room for: their packets all go up.
    pub fn refused_flows(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Gives what comes up on a port to the sockets of an XSKMAP, from receive queue to socket.
    ///
    /// # Errors
    /// The kernel refuses the program, or there is no such port.
    pub fn send_up(&self, port: usize, sockets: &Map) -> Result<(), TargetError> {
        let Some(live) = &self.live else {
            return Err(unsupported("it is for test runs"));
        };
        let insns = upcall::up(sockets.fd() as u32).map_err(unsupported)?;
        // A descriptor stands where an object has the map's index.
        let program = sys::bpf::Program::load("up", ProgramKind::Xdp, &insns)
            .map_err(|error| refused(error.into()))?;
        live.ups
            .set_program(port as u32, &program)
            .map_err(os("filling map ups"))
    }

    /// The program to attach to interfaces; `None` in test runs.
    pub fn port_program(&self) -> Option<&sys::bpf::Program> {
        self.live.as_ref()?.port.entry()
    }

    /// The installed code.
    pub(crate) fn loaded(&self) -> Option<&Loaded> {
        self.installed.as_ref().map(|installed| &installed.loaded)
    }

    fn map(&self, table: Table) -> Option<&Arc<Map>> {
        self.maps.get(table.index() as usize)?.as_ref()
    }

    /// Checks an update and loads its code; nothing is visible yet.
    fn prepare(&self, update: &Update) -> Result<Prepared, TargetError> {
        let mut staged = self.rows.stage(&update.delta)?;
        if let (Some(live), Some(rows)) = (&self.live, staged.get_mut(&Table::Underlay)) {
            for value in rows.values_mut().flatten() {
                translate(value, &live.interfaces)?;
            }
        }
        if let Some(rows) = staged.get_mut(&Table::PortMtu) {
            let interfaces = self.live.as_ref().map(|live| &*live.interfaces);
            *rows = by_interface(std::mem::take(rows), interfaces.unwrap_or(&[LOOPBACK]))?;
        }
        let installed = match &update.image {
            Some(image) => Some(self.load(image)?),
            None if self.installed.is_none() => return Err(TargetError::NoImage),
            None => None,
        };
        Ok(Prepared { installed, staged })
    }

    fn load(&self, image: &Image) -> Result<Installed, TargetError> {
        let pipeline = text::parse(&image.ir).map_err(unsupported)?;
        let Hits {
            mut object,
            counted,
        } = lower_hits(&pipeline, &self.capacity).map_err(unsupported)?;
        let ups = object.maps.len() as u32;
        let way = match &self.live {
            None => Way::TestRun,
            Some(live) => Way::Sockets {
                interfaces: &live.interfaces,
                ups,
            },
        };
        let programs = &mut object.programs;
        let up = programs.len() as u32;
        programs.push(program("upcall", upcall::upcall(way))?);
        let [stages] = object.tail_calls.as_mut_slice() else {
            return Err(unsupported("its stages are not in one program array"));
        };
        for slot in &mut stages.programs {
            slot.get_or_insert(up);
        }
        let mut purpose = Purpose::TestRun;
        if let Some(live) = &self.live {
            if stages.programs.len() > PUNT_SLOT {
                let n = stages.programs.len();
                return Err(unsupported(format!(
                    "{n} stages; there is room for {PUNT_SLOT}"
                )));
            }
            stages.programs.resize(PUNT_SLOT, None);
            stages.programs.push(Some(programs.len() as u32));
            purpose = Purpose::Live {
                pass: Some((stages.map, PUNT_SLOT as u32)),
            };
            programs.push(program("punt", upcall::punt(way))?);
            object.maps.push(live.ups.def().clone());
        }
        let given = |index: u32| match &self.live {
            Some(live) if index == ups => Some(Arc::clone(&live.ups)),
            _ if index == METERS => self.meters.get().cloned(),
            _ => self.maps.get(index as usize)?.clone(),
        };
        let loaded = Loaded::load(&object, given, purpose).map_err(refused)?;
        if let Some(map) = loaded.map(METERS) {
            self.meters.get_or_init(|| Arc::clone(map));
        }
        Ok(Installed { loaded, counted })
    }

    /// Makes an update visible. After an error all is as before.
    fn install(&mut self, mut prepared: Prepared) -> Result<Undo, TargetError> {
        self.write(&prepared.staged)?;
        if let Some(installed) = prepared.installed.take() {
            if let Err(error) = self.enter(&installed) {
                self.restore(&prepared.staged);
                return Err(error);
            }
            // The code before the one that goes now has no packet any more.
            self.retired = None;
            let before = self.installed.replace(installed);
            return Ok(Undo {
                staged: prepared.staged,
                code: Some(before),
            });
        }
        Ok(Undo {
            staged: prepared.staged,
            code: None,
        })
    }

    /// New packets begin in this code.
    fn enter(&self, installed: &Installed) -> Result<(), TargetError> {
        match (&self.live, installed.loaded.entry()) {
            (Some(live), Some(first)) => live
                .first
                .set_program(0, first)
                .map_err(os("filling map first")),
            _ => Ok(()),
        }
    }

    /// Keeps what was installed.
    fn keep(&mut self, undo: Undo) {
        self.rows.commit(undo.staged);
        if let Some(before) = undo.code {
            self.retired = before;
        }
    }

    /// Takes back what was installed.
    fn take_back(&mut self, undo: Undo) {
        if let Some(before) = undo.code {
            if let Some(before) = &before {
                // It was there a moment ago; there is a worse error to report.
                let _ = self.enter(before);
            }
            self.retired = std::mem::replace(&mut self.installed, before);
        }
        self.restore(&undo.staged);
    }

    /// Writes checked rows; after an error all rows are as before.
    fn write(&self, staged: &Staged) -> Result<(), TargetError> {
        // Removals first: a full map has room for what replaces them.
        for removals in [true, false] {
            for (&table, changes) in staged {
                let Some(map) = self.map(table) else { continue };
                let now = changes
                    .iter()
                    .filter(|(_, value)| value.is_none() == removals);
                for (key, value) in now {
                    if let Err(source) = put(map, key, value.as_deref()) {
                        self.restore(staged);
                        let entries = map.def().max_entries;
                        let name = table.name();
                        let what = format!("writing a row of table {name} ({entries} entries)");
                        return Err(TargetError::Os { what, source });
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes the rows as they were before a change.
    fn restore(&self, staged: &Staged) {
        for removals in [true, false] {
            for (&table, changes) in staged {
                let Some(map) = self.map(table) else { continue };
                for key in changes.keys() {
                    let was = self.rows.get(table, key);
                    if was.is_none() == removals {
                        // They were there a moment ago; there is a worse error to report.
                        let _ = put(map, key, was);
                    }
                }
            }
        }
    }

    /// Counters of both processors.
    fn counters(&self, mut user: CounterSnapshot) -> Result<CounterSnapshot, TargetError> {
        let counted = match &self.installed {
            Some(installed) => installed.counted.as_slice(),
            None => &[],
        };
        for block in user.eni.values_mut() {
            for stat in counted {
                block[*stat as usize] = 0;
            }
        }
        let mut value = Vec::new();
        let mut sent = [0u64; 2];
        if let Some(map) = self.map(Table::EniStats) {
            for eni in 0..self.capacity.enis {
                map.lookup(&eni.to_ne_bytes(), &mut value)
                    .map_err(os("reading map eni_stats"))?;
                let sums = sum_cpus(&value, EniStat::COUNT);
                let of = |stat: EniStat| sums[stat as usize];
                // In the kernel's stages this reason is an unresolved next hop, and that packet was
                // counted as sent before. (Its bytes stay with those sent.)
                sent[0] += of(EniStat::TxPackets) - of(EniStat::ForwardingDropPackets);
                sent[1] += of(EniStat::TxBytes);
                add(&mut user.eni, eni, &sums);
            }
        }
        if let Some(map) = self.meters.get() {
            let counted: Vec<u32> = user.eni.keys().copied().collect();
            for eni in counted {
                add_meters(map, eni, &mut user)?;
            }
        }
        user.eni
            .retain(|_, block| block.iter().any(|number| *number != 0));
        if let Some(map) = self.map(Table::PortStats) {
            map.lookup(&0u32.to_ne_bytes(), &mut value)
                .map_err(os("reading map port_stats"))?;
            if self.live.is_some() {
                // What came up came in once, and the kernel counted it.
                user.port[PortStat::IfInOctets as usize] = 0;
                user.port[PortStat::IfInUcastPkts as usize] = 0;
                user.port[PortStat::IfOutUcastPkts as usize] += sent[0];
                user.port[PortStat::IfOutOctets as usize] += sent[1];
            }
            let sums = sum_cpus(&value, PortStat::COUNT);
            for (port, number) in user.port.iter_mut().zip(sums) {
                *port += number;
            }
        }
        Ok(user)
    }
}

/// What an installed update replaced.
struct Undo {
    staged: Staged,
    /// The code before, when there is other code; `None` in it: none.
    code: Option<Option<Installed>>,
}

fn program(
    name: &str,
    insns: Result<Vec<Insn>, dash_bpf::builder::BuildError>,
) -> Result<Program, TargetError> {
    Ok(Program {
        name: name.to_owned(),
        kind: ProgramKind::Xdp,
        insns: insns.map_err(unsupported)?,
        ..Program::default()
    })
}

/// Writes the interface index of its port into an underlay row.
fn translate(row: &mut Box<[u8]>, interfaces: &[u32]) -> Result<(), TargetError> {
    let mut value = UnderlayRow::read_from_bytes(row).map_err(|e| unsupported(e.to_string()))?;
    let interface = interfaces.get(value.port as usize).ok_or_else(|| {
        let (port, ports) = (value.port, interfaces.len());
        unsupported(format!(
            "an underlay row names port {port}, and there are {ports}"
        ))
    })?;
    value.port = *interface;
    *row = value.as_bytes().into();
    Ok(())
}

/// Rows of ports by the interfaces that stand for them; a port without one has no packets.
fn by_interface(rows: Changes, interfaces: &[u32]) -> Result<Changes, TargetError> {
    let mut translated = Changes::with_capacity(rows.len());
    for (key, row) in rows {
        let port = u32::read_from_bytes(&key).map_err(|e| unsupported(e.to_string()))?;
        if let Some(interface) = interfaces.get(port as usize) {
            translated.insert(interface.as_bytes().into(), row);
        }
    }
    Ok(translated)
}

/// Writes or removes a row; array rows are zeroed.
fn put(map: &Map, key: &[u8], value: Option<&[u8]>) -> std::io::Result<()> {
    match value {
        Some(value) => map.update(key, value),
        None if map.def().kind == MapKind::Array => map.update(key, &vec![0; map.value_len()]),
        None => map.delete(key).map(drop),
    }
}

/// Adds a block to an ENI's.
fn add(blocks: &mut BTreeMap<u32, Vec<u64>>, eni: u32, sums: &[u64]) {
    let block = blocks.entry(eni).or_insert_with(|| vec![0; EniStat::COUNT]);
    for (number, more) in block.iter_mut().zip(sums) {
        *number += more;
    }
}

/// Adds the buckets of an ENI.
fn add_meters(map: &Map, eni: u32, sum: &mut CounterSnapshot) -> Result<(), TargetError> {
    let mut value = Vec::new();
    for class in 1..=meter::MAX_CLASS {
        let index = eni << meter::ENI_SHIFT | class;
        map.lookup(&index.to_ne_bytes(), &mut value)
            .map_err(os("reading map meter_stats"))?;
        let sums = sum_cpus(&value, 2);
        let [outbound, inbound] = sums[..] else {
            continue;
        };
        if outbound | inbound != 0 {
            sum.add_meter((eni, class), MeterBucket { outbound, inbound });
        }
    }
    Ok(())
}

/// Sums a counter block of `count` numbers over the CPUs that `value` has it for.
fn sum_cpus(value: &[u8], count: usize) -> Vec<u64> {
    let mut sums = vec![0u64; count];
    for cpu in value.chunks_exact((count * 8).max(8)) {
        for (sum, number) in sums.iter_mut().zip(cpu.chunks_exact(8)) {
            let number = number.first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
            *sum = sum.wrapping_add(number);
        }
    }
    sums
}

/// The kernel's flow index, kept like user space's.
#[derive(Debug)]
struct KernelIndex {
    index: Option<Arc<Map>>,
    refused: Arc<AtomicU64>,
}

impl FlowMirror for KernelIndex {
    fn added(&mut self, slot: u32, flow: &FlowEntry) {
        let Some(index) = &self.index else { return };
        for (side, key) in (0u32..).zip(flow.sides.iter().map(|side| &side.key)) {
            let row = (slot << 1 | side).to_ne_bytes();
            if index.update(key.as_bytes(), &row).is_err() {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn removed(&mut self, _slot: u32, flow: &FlowEntry) {
        let Some(index) = &self.index else { return };
        for key in flow.sides.iter().map(|side| &side.key) {
            // The map knows its own key size, so the only error is that it is absent.
            let _ = index.delete(key.as_bytes());
        }
    }
}

/// The kernel and the user-space target behind it, as one target.
#[derive(Debug)]
pub struct Fronted<T> {
    front: Front,
    user: T,
}

impl<T> Fronted<T> {
    /// `user` has the flow table of [`Front::flows`].
    pub fn new(front: Front, user: T) -> Self {
        Self { front, user }
    }

    /// The kernel's part.
    pub fn front(&self) -> &Front {
        &self.front
    }

    /// The target behind.
    pub fn user(&self) -> &T {
        &self.user
    }

    /// The target behind; its tables are written through `self`.
    pub fn user_mut(&mut self) -> &mut T {
        &mut self.user
    }
}

impl<T: Target> Target for Fronted<T> {
    fn apply(&mut self, update: &Update) -> Result<(), TargetError> {
        let prepared = self.front.prepare(update)?;
        let undo = self.front.install(prepared)?;
        match self.user.apply(update) {
            Ok(()) => {
                self.front.keep(undo);
                Ok(())
            }
            Err(error) => {
                self.front.take_back(undo);
                Err(error)
            }
        }
    }

    fn counters(&mut self) -> Result<CounterSnapshot, TargetError> {
        let user = self.user.counters()?;
        self.front.counters(user)
    }

    fn flows(&mut self) -> Result<Vec<FlowEntry>, TargetError> {
        self.user.flows()
    }

    fn find_flows(&mut self, query: &FlowQuery) -> Result<Vec<FlowEntry>, TargetError> {
        self.user.find_flows(query)
    }

    fn edit_flows(&mut self, query: &FlowQuery, edit: FlowEdit) -> Result<u64, TargetError> {
        self.user.edit_flows(query, edit)
    }

    fn flow_count(&mut self) -> Result<usize, TargetError> {
        self.user.flow_count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn rows_of_ports_get_the_numbers_that_programs_see() {
        let key = |n: u32| Box::<[u8]>::from(n.as_bytes());
        let row = |mtu: u32| Some(key(mtu));
        let rows = HashMap::from([(key(0), row(1500)), (key(1), row(9000)), (key(2), None)]);
        let live = by_interface(rows.clone(), &[17, 4, 9]).expect("keys of ports");
        let named = HashMap::from([(key(17), row(1500)), (key(4), row(9000)), (key(9), None)]);
        assert_eq!(live, named);
        let test_run = by_interface(rows, &[LOOPBACK]).expect("keys of ports");
        assert_eq!(test_run, HashMap::from([(key(1), row(1500))]));
        by_interface(HashMap::from([(Box::from([0; 3]), None)]), &[17]).expect_err("no port");
    }
}
