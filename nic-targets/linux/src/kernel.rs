//! The kernel's own eBPF as an executor: its verifier, its JIT, its maps, one packet at a time by
//! `BPF_PROG_TEST_RUN`.
//!
//! This judges our programs by the kernel; it does not serve traffic. Two helpers are replaced when
//! a program is loaded ([`crate::rewrite`]): time is the packets' own, and redirects are recorded. The
//! ACL classifier is not a kernel map, so an image that looks in it is refused.
//!
//! Maps are made when an image first names them and stay: rows, flows and counters outlive code.
//! New code is whole before the old goes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use dash_bpf::Object;
use dash_bpf::helper::XdpAction;
use dash_bpf::map::{MapDef, MapKind};
use dash_wire::drop::DropReason;
use dash_wire::stats::{EniStat, PortStat};
use dash_wire::tables::FlowEntry;
use nic_target::frame::MAX_FRAME;
use nic_target::tables::Discipline;
use nic_target::{
    Capacity, CounterSnapshot, Frame, Image, PacketEngine, Table, Target, TargetError, Update,
    Verdict,
};

use crate::ageing::{Ager, FlowMaps};
use crate::loader::{self, LoadError, Loaded};
use crate::rows::{Rows, Staged};
use crate::sys;
use crate::sys::bpf::Map;

/// Name of this engine, as `--engine` spells it.
pub const ENGINE: &str = "kernel";

/// Shortest packet a test run takes: an Ethernet header.
const MIN_PACKET: usize = 14;

/// Every kernel's test run takes packets this long: three quarters of the smallest page.
const SAFE_PACKET: usize = 3072;

/// The maps of the tables, by [`Table::index`]; `None` until an image names one.
type Maps = Vec<Option<Arc<Map>>>;

/// The kernel as a target whose packets are run one by one. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
#[derive(Debug)]
pub struct KernelEngine {
    capacity: Capacity,
    rows: Rows,
    maps: Maps,
    loaded: Option<Loaded>,
    ager: Ager,
    now_ns: u64,
    /// Where a test run leaves the packet.
    out: Box<[u8]>,
    /// Packets too short for the kernel, counted as the program would have.
    short: u64,
    /// An error of [`PacketEngine::advance`], which cannot return it.
    failed: Option<TargetError>,
}

fn unsupported(reason: impl ToString) -> TargetError {
    TargetError::Unsupported {
        engine: ENGINE,
        reason: reason.to_string(),
    }
}

fn os(what: impl Into<String>) -> impl FnOnce(io::Error) -> TargetError {
    let what = what.into();
    |source| TargetError::Os { what, source }
}

fn refused(error: LoadError) -> TargetError {
    match error {
        LoadError::AclMap { .. } => unsupported("ACL classifier is not a kernel map"),
        LoadError::Map {
            map,
            kind,
            entries,
            key,
            value,
            bytes,
            source,
        } => {
            let what = format!(
                "creating map {map} ({kind:?}, {entries} entries of {key}+{value} bytes, up to {bytes} bytes)"
            );
            TargetError::Os { what, source }
        }
        LoadError::Fill { map, source } => TargetError::Os {
            what: format!("filling map {map}"),
            source,
        },
        other => unsupported(other),
    }
}

impl KernelEngine {
    /// An engine without code, with tables of this capacity.
    pub fn new(capacity: Capacity) -> Self {
        sys::raise_memlock();
        Self {
            rows: Rows::new(capacity.clone()),
            capacity,
            maps: vec![None; Table::ALL.len()],
            loaded: None,
            ager: Ager::default(),
            now_ns: 0,
            out: vec![0; MAX_FRAME].into_boxed_slice(),
            short: 0,
            failed: None,
        }
    }

    /// Why the kernel cannot be used here (not root, or bpf() is forbidden), or `None`.
    pub fn unavailable() -> Option<String> {
        loader::create_map(&crate::rewrite::executor_map())
            .err()
            .map(|e| e.to_string())
    }

    fn map(&self, table: Table) -> Option<&Arc<Map>> {
        self.maps.get(table.index() as usize)?.as_ref()
    }

    fn flow_maps(&self) -> Option<FlowMaps> {
        Some(FlowMaps {
            index: self.map(Table::FlowIndex)?.clone(),
            slab: self.map(Table::FlowSlab)?.clone(),
            free: self.map(Table::FlowFree)?.clone(),
            events: self.map(Table::FlowEvents)?.clone(),
        })
    }

    /// Maps and code for an image. `self` is unchanged.
    fn prepare(&self, image: &Image) -> Result<(Maps, Loaded), TargetError> {
        let object = &image.object;
        let mut maps = self.maps.clone();
        for index in loader::maps_of(object).map_err(refused)? {
            let table = self.table(object, index)?;
            let Some(slot) = maps.get_mut(index as usize).filter(|map| map.is_none()) else {
                continue;
            };
            if table.discipline() != Discipline::Code {
                *slot = Some(Arc::new(self.create(table)?));
            }
        }
        // Program arrays belong to the code: each image gets its own.
        let loaded =
            Loaded::load(object, |index| maps.get(index as usize)?.clone()).map_err(refused)?;
        Ok((maps, loaded))
    }

    /// The table a map of an object is; its definition must be the table's but for capacity.
    fn table(&self, object: &Object, index: u32) -> Result<Table, TargetError> {
        let (def, table) = (
            object.maps.get(index as usize),
            Table::ALL.get(index as usize).copied(),
        );
        let (Some(def), Some(table)) = (def, table) else {
            return Err(unsupported(format!(
                "map {index} is not a table: there are {}",
                Table::ALL.len()
            )));
        };
        let own = table.def(&self.capacity);
        let shape = |d: &MapDef| (d.name.clone(), d.kind, d.key_size, d.value_size);
        if def.kind == MapKind::Acl {
            return Err(refused(LoadError::AclMap {
                map: def.name.clone(),
            }));
        }
        if shape(def) != shape(&own) {
            return Err(unsupported(format!(
                "map {index} is {:?}, not the table {:?}",
                shape(def),
                shape(&own)
            )));
        }
        Ok(table)
    }

    /// Makes a table's map with the rows it should have.
    fn create(&self, table: Table) -> Result<Map, TargetError> {
        let map = loader::create_map(&table.def(&self.capacity)).map_err(refused)?;
        let filling = || os(format!("filling map {}", table.name()));
        for (key, value) in self.rows.of(table) {
            map.update(key, value).map_err(filling())?;
        }
        if table == Table::FlowFree {
            // A stack: slot 0 is taken first.
            for slot in (0..self.capacity.flows).rev() {
                map.push(&slot.to_ne_bytes()).map_err(filling())?;
            }
        }
        Ok(map)
    }

    /// Writes a checked change to `maps`; after an error all is as before.
    fn write(&self, maps: &Maps, staged: &Staged) -> Result<(), TargetError> {
        let mut written: Vec<(&Map, Table, &[u8])> = Vec::new();
        // Removals first: a full map has room for what replaces them.
        for removals in [true, false] {
            for (&table, changes) in staged {
                let Some(map) = maps.get(table.index() as usize).and_then(|m| m.as_deref()) else {
                    continue;
                };
                for (key, value) in changes
                    .iter()
                    .filter(|(_, value)| value.is_none() == removals)
                {
                    match put(map, key, value.as_deref()) {
                        Ok(()) => written.push((map, table, key)),
                        Err(source) => {
                            for (map, table, key) in written.into_iter().rev() {
                                // The rows were there a moment ago; if even this fails, the error
                                // below is the one to report.
                                let _ = put(map, key, self.rows.get(table, key));
                            }
                            let what = format!(
                                "writing a row of table {} ({} entries)",
                                table.name(),
                                map.def().max_entries
                            );
                            return Err(TargetError::Os { what, source });
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn move_clock(&mut self, now_ns: u64) -> Result<(), TargetError> {
        self.now_ns = self.now_ns.max(now_ns);
        let Some(flows) = self.flow_maps() else {
            return Ok(());
        };
        self.ager
            .advance(&flows, self.now_ns)
            .map_err(os("ageing flows"))
    }
}

/// Writes or removes a row; array rows are zeroed.
fn put(map: &Map, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
    match value {
        Some(value) => map.update(key, value),
        None if map.def().kind == MapKind::Array => map.update(key, &vec![0; map.value_len()]),
        None => map.delete(key).map(drop),
    }
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

impl Target for KernelEngine {
    fn apply(&mut self, update: &Update) -> Result<(), TargetError> {
        let staged = self.rows.stage(&update.delta)?;
        let (maps, loaded) = match &update.image {
            Some(image) => {
                let (maps, loaded) = self.prepare(image)?;
                (maps, Some(loaded))
            }
            None if self.loaded.is_none() => return Err(TargetError::NoImage),
            None => (self.maps.clone(), None),
        };
        self.write(&maps, &staged)?;
        self.rows.commit(staged);
        self.maps = maps;
        let gone = update.delta.deleted_enis();
        if let Some(flows) = self.flow_maps().filter(|_| !gone.is_empty()) {
            flows
                .purge(&gone)
                .map_err(os("ending flows of deleted ENIs"))?;
        }
        if loaded.is_some() {
            self.loaded = loaded;
        }
        Ok(())
    }

    fn counters(&mut self) -> Result<CounterSnapshot, TargetError> {
        let mut snapshot = CounterSnapshot {
            eni: BTreeMap::new(),
            port: vec![0; PortStat::COUNT],
        };
        let mut value = Vec::new();
        if let Some(map) = self.map(Table::PortStats) {
            map.lookup(&0u32.to_ne_bytes(), &mut value)
                .map_err(os("reading map port_stats"))?;
            snapshot.port = sum_cpus(&value, PortStat::COUNT);
        }
        for stat in DropReason::OuterMalformed.port_stats() {
            snapshot.port[*stat as usize] += self.short;
        }
        if let Some(map) = self.map(Table::EniStats) {
            for eni in 0..self.capacity.enis {
                map.lookup(&eni.to_ne_bytes(), &mut value)
                    .map_err(os("reading map eni_stats"))?;
                let sums = sum_cpus(&value, EniStat::COUNT);
                if sums.iter().any(|&n| n != 0) {
                    snapshot.eni.insert(eni, sums);
                }
            }
        }
        for (&eni, counts) in &self.ager.aged {
            let block = snapshot
                .eni
                .entry(eni)
                .or_insert_with(|| vec![0; EniStat::COUNT]);
            for (stat, count) in counts {
                block[*stat as usize] += count;
            }
        }
        Ok(snapshot)
    }

    fn flows(&mut self) -> Result<Vec<FlowEntry>, TargetError> {
        match self.flow_maps() {
            Some(maps) => Ok(maps
                .all()
                .map_err(os("reading flows"))?
                .into_values()
                .collect()),
            None => Ok(Vec::new()),
        }
    }
}

impl PacketEngine for KernelEngine {
    fn name(&self) -> &'static str {
        ENGINE
    }

    fn advance(&mut self, now_ns: u64) {
        if let Err(e) = self.move_clock(now_ns) {
            self.failed.get_or_insert(e);
        }
    }

    fn run(&mut self, frame: &mut Frame) -> Result<Verdict, TargetError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.move_clock(frame.timestamp_ns)?;
        let loaded = self.loaded.as_ref().ok_or(TargetError::NoImage)?;
        let len = frame.data().len();
        if len < MIN_PACKET {
            // A driver never shows XDP less than an Ethernet header, and a test run refuses it.
            self.short += 1;
            return Ok(Verdict::Drop);
        }
        let too_long = |limit: usize| {
            unsupported(format!(
                "a packet of {len} bytes is longer than programs see in a test run ({limit} bytes)"
            ))
        };
        if len > loaded.longest() {
            return Err(too_long(loaded.longest()));
        }
        let run = loaded.run(self.now_ns, frame.data(), &mut self.out);
        let (run, redirected_to) = run.map_err(|source| match source.raw_os_error() {
            Some(libc::EINVAL | libc::E2BIG | libc::ENOSPC) if len > SAFE_PACKET => {
                too_long(SAFE_PACKET)
            }
            _ => TargetError::Os {
                what: format!("running a packet of {len} bytes"),
                source,
            },
        })?;
        if !self
            .out
            .get(..run.len)
            .is_some_and(|packet| frame.fill(packet))
        {
            return Err(unsupported(format!("the packet grew to {} bytes", run.len)));
        }
        if let Some(flows) = self.flow_maps() {
            self.ager
                .take_events(&flows)
                .map_err(os("reading map flow_events"))?;
        }
        Ok(match XdpAction::from_r0(run.retval) {
            XdpAction::Drop => Verdict::Drop,
            XdpAction::Pass => Verdict::Pass,
            XdpAction::Tx => Verdict::Send(frame.port),
            XdpAction::Aborted => Verdict::Aborted,
            XdpAction::Redirect => Verdict::Send(
                u16::try_from(redirected_to)
                    .map_err(|_| unsupported(format!("port {redirected_to} is above 65535")))?,
            ),
        })
    }
}
