//! One core's share of the data plane: its tables, its clock, its executor.

use std::sync::Arc;

use dash_bpf::helper::XdpAction;
use dash_bpf::{MapDef, interp::Trap};
use dash_wire::abi::{CONTINUE, MEMO_ENTRIES, MapHandle, MemoEntry, RunCtx};
use dash_wire::hook::{DashMeta, Place, flow};
use dash_wire::tables::Meta;
use nic_target::tables::{Discipline, map_defs};
use nic_target::{Capacity, Frame, Table, TargetError, Verdict};
use zerocopy::IntoBytes as _;

use crate::ager::Ager;
use crate::exec::{Code, Engine, Region, interp, rbpf};
use crate::generation::Generation;
use crate::helpers::{HelperState, PIPELINE_HELPERS};
use crate::reset::{Reset, Resets};
use crate::tables::core_set::CoreTables;
use crate::tables::fragments::Fragments;
use crate::tables::mirror::SharedFlows;
use crate::tables::{Handled, MapOps};
use burst::Places;
pub use burst::{BURST, Fate};
pub(crate) use burst::{bounds, set};
pub use owner::{Owners, Secret};

mod burst;
mod owner;
mod reply;

/// State of the executor between runs.
#[derive(Debug)]
enum Exec {
    Native,
    Interp(Box<interp::State>),
    Rbpf(Box<rbpf::State>),
}

/// The map of tables that are compiled away: every operation refuses.
#[derive(Debug)]
struct NoMap;

// SAFETY: look-ups find nothing.
unsafe impl MapOps for NoMap {}

/// Everything one core owns. It runs packets while [bound](Datapath::bind) to a generation.
#[derive(Debug)]
pub struct Datapath {
    engine: Engine,
    exec: Exec,
    defs: Arc<[MapDef]>,
    tables: CoreTables,
    ager: Ager,
    events_capacity: usize,
    helpers: Box<HelperState>,
    no_map: Box<Handled<NoMap>>,
    cpu: u32,
    now_ns: u64,
    /// By map index, as in `RunCtx`. Entries of policy tables belong to the generation `bound`.
    arrays: Box<[*mut u8]>,
    maps: Box<[*const MapHandle]>,
    /// What compiled code remembers of look-ups in a table of the generation `bound`.
    memo: Box<[MemoEntry]>,
    /// Arrays as ranges, for executors that check.
    regions: Vec<Region>,
    bound: u64,
    places: Places,
    /// `None` when this core has all flows.
    owners: Option<Owners>,
    pub(crate) resets: Resets,
}

// SAFETY: the raw pointers are to memory of boxes this value owns, which moves with it, or to
// tables of a generation, used only through `Bound`, which keeps that generation borrowed; neither
// is tied to a thread. Contexts and rows of `places` are boxes of this value too, and what contexts
// point to is set anew before they are used. `MapHandle` functions of the core's tables run only
// through `&mut self`.
unsafe impl Send for Datapath {}

impl Datapath {
    /// Fresh tables for worker number `cpu`.
    ///
    /// # Errors
    /// The engine cannot run on this machine.
    pub fn new(engine: Engine, capacity: &Capacity, cpu: u32) -> Result<Self, TargetError> {
        Self::over(engine, capacity, cpu, CoreTables::new(capacity)?)
    }

    /// A worker whose flow table another processor reads too.
    ///
    /// # Errors
    /// As [`new`](Self::new), or the shared memory is too small.
    pub fn shared(
        engine: Engine,
        capacity: &Capacity,
        cpu: u32,
        flows: SharedFlows,
    ) -> Result<Self, TargetError> {
        Self::over(engine, capacity, cpu, CoreTables::shared(capacity, flows)?)
    }

    /// Takes the memory of as many flows as there may be now, for the thread that calls, rather than
    /// when flows are made.
    ///
    /// # Errors
    /// There is not so much.
    pub fn prefault(&mut self) -> Result<(), TargetError> {
        self.tables.prefault()?;
        Ok(self.ager.prefault()?)
    }

    fn over(
        engine: Engine,
        capacity: &Capacity,
        cpu: u32,
        tables: CoreTables,
    ) -> Result<Self, TargetError> {
        let defs: Arc<[MapDef]> = map_defs(capacity).into();
        let exec = match engine {
            Engine::Native => Exec::Native,
            Engine::Interp => Exec::Interp(Box::new(interp::State::new(&defs))),
            Engine::Rbpf => Exec::Rbpf(Box::new(rbpf::State::new()?)),
        };
        let no_map = Box::new(Handled::new(NoMap));
        let mut new = Self {
            engine,
            exec,
            arrays: vec![std::ptr::null_mut(); defs.len()].into(),
            maps: vec![no_map.handle(); defs.len()].into(),
            memo: vec![MemoEntry::EMPTY; MEMO_ENTRIES].into(),
            regions: Vec::with_capacity(defs.len()),
            defs,
            ager: Ager::new(capacity.flows)?,
            events_capacity: Table::FlowEvents.def(capacity).max_entries as usize,
            tables,
            helpers: Box::new(HelperState::new(cpu)),
            no_map,
            cpu,
            now_ns: 0,
            bound: 0,
            places: Places::new(),
            owners: None,
            resets: Resets::new(),
        };
        new.link(None);
        Ok(new)
    }

    /// Fills the tables of addresses: the core's own and, when given, a generation's.
    fn link(&mut self, generation: Option<&Generation>) {
        self.regions.clear();
        self.memo.fill(MemoEntry::EMPTY);
        for table in Table::ALL {
            let at = table.index() as usize;
            let policy = generation.and_then(|g| g.tables().map(*table));
            let core = self.tables.map(*table);
            let (handle, array) = match (policy, core) {
                (Some(map), _) => (map.handle(), map.array()),
                (None, Some(map)) => (map.handle, map.array),
                (None, None) => (self.no_map.handle(), None),
            };
            self.maps[at] = handle;
            self.arrays[at] = array.map_or(std::ptr::null_mut(), |a| a.base());
            if let Some(array) = array {
                let start = array.base().expose_provenance();
                let writable = table.discipline() == Discipline::Core;
                self.regions.push(Region {
                    start,
                    len: array.size(),
                    writable,
                    map: at,
                });
            }
        }
    }

    /// The core with this generation's code and rows. Costs a comparison when it is the same as
    /// last time.
    pub fn bind<'a>(&'a mut self, generation: &'a Generation) -> Bound<'a> {
        if self.bound != generation.serial() {
            self.link(Some(generation));
            self.helpers.bind(generation);
            self.renew_places();
            self.bound = generation.serial();
        }
        Bound {
            core: self,
            generation,
        }
    }

    /// Leaves flows that are another worker's to that worker, in bursts of native code, and knows the
    /// first fragments that any of them saw.
    pub fn share(&mut self, owners: Owners, fragments: Arc<Fragments>) {
        self.owners = Some(owners);
        self.tables.fragments.share(fragments);
    }

    /// Who executes.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Clock, ns.
    pub fn now(&self) -> u64 {
        self.now_ns
    }

    /// Moves the clock, never back, and expires flows that are due, looking at no more than
    /// `budget` of them. Returns how many it expired.
    pub fn advance(&mut self, now_ns: u64, budget: usize) -> usize {
        self.now_ns = self.now_ns.max(now_ns);
        self.ager.run(&mut self.tables, self.now_ns, budget)
    }

    /// How far ageing is behind the clock, ns ([`Ager::late_ns`]).
    pub fn ageing_late_ns(&self) -> u64 {
        self.ager.late_ns()
    }

    /// The core's tables.
    pub fn tables(&self) -> &CoreTables {
        &self.tables
    }

    /// The core's tables, to count in or to set up a test.
    pub fn tables_mut(&mut self) -> &mut CoreTables {
        &mut self.tables
    }

    /// The next frame that answers a packet which was dropped.
    pub fn take_reset(&mut self) -> Option<Reset> {
        self.resets.take()
    }

    /// Why the checking interpreter stopped the last run, if it did.
    pub fn trap(&self) -> Option<Trap> {
        match &self.exec {
            Exec::Interp(state) => state.trap(),
            _ => None,
        }
    }

    /// Why rbpf stopped the last run, if it did.
    pub fn rbpf_error(&self) -> Option<&str> {
        match &self.exec {
            Exec::Rbpf(state) => state.error(),
            _ => None,
        }
    }
}

/// A core and the generation it runs.
#[derive(Debug)]
pub struct Bound<'a> {
    core: &'a mut Datapath,
    generation: &'a Generation,
}

impl Bound<'_> {
    /// The core.
    pub fn core(&mut self) -> &mut Datapath {
        self.core
    }

    /// Runs one packet at the core's clock; the frame then holds the result.
    ///
    /// # Errors
    /// No code is installed, or it is not for this core's engine.
    pub fn run(&mut self, frame: &mut Frame) -> Result<Verdict, TargetError> {
        let code = &**self.generation.code().ok_or(TargetError::NoImage)?;
        let core = &mut *self.core;
        let port = frame.port;
        // A burst points this at its places.
        core.arrays[Table::Meta.index() as usize] = core.tables.meta.base();
        let mut ctx = RunCtx {
            data: std::ptr::null_mut(),
            data_end: std::ptr::null_mut(),
            data_meta: std::ptr::null_mut(),
            ingress_ifindex: 0,
            rx_queue_index: 0,
            egress_ifindex: 0,
            redirect_ifindex: 0,
            frame_start: std::ptr::null_mut(),
            frame_end: std::ptr::null_mut(),
            now_ns: 0,
            arrays: core.arrays.as_ptr(),
            maps: core.maps.as_ptr(),
            helpers: PIPELINE_HELPERS.as_ptr(),
            worker: core.helpers.address(),
            cpu: core.cpu,
            resume: 0,
            // Nothing is looked up ahead: programs do it themselves.
            found_key: std::ptr::null(),
            found_value: std::ptr::null_mut(),
            memo: core.memo.as_mut_ptr(),
            fuel: 0,
        };
        let hooks = self.generation.hooks();
        if let Some(verdict) = hooks.enter(&mut ctx, frame, core.now_ns, &mut core.tables) {
            let about = |_: &CoreTables| DashMeta::unknown(Place::Egress);
            let tables = &mut core.tables;
            return Ok(hooks.leave(&mut ctx, frame, core.now_ns, tables, verdict, about));
        }
        set(&mut ctx, frame, core.now_ns);
        let (defs, regions) = (&core.defs, &core.regions);
        let r0 = match (code, &mut core.exec) {
            // SAFETY: the code was verified with these maps (`NativeImage::new`, `check_maps`); the
            // context points to the frame, borrowed here, to the core's tables, borrowed through
            // `core`, and to those of the generation, borrowed by `self`; arrays, maps, helpers and
            // memo have as many entries as `dash_wire::abi` says, and the memo was cleared when
            // this generation, whose rows do not change, was bound (`link`).
            (Code::Native(pages), Exec::Native) => unsafe {
                let first = pages.entry()(&raw mut ctx);
                match pages.rest() {
                    Some(rest) if first == CONTINUE => rest.run(&raw mut ctx),
                    _ => first,
                }
            },
            // SAFETY: as above.
            (Code::Interp(programs), Exec::Interp(state)) => unsafe {
                state.run(programs, &mut ctx, defs, regions)
            },
            (Code::Rbpf(programs), Exec::Rbpf(state)) => {
                let serial = self.generation.serial();
                // SAFETY: as above; `serial` is the generation's.
                unsafe { state.run(programs, serial, &mut ctx, defs, regions) }
            }
            _ => {
                let reason = "it was prepared for another engine".to_owned();
                return Err(TargetError::Unsupported {
                    engine: core.engine.name(),
                    reason,
                });
            }
        };
        // A burst may bring more events than a small queue holds, and one lost is a flow that never
        // ages: taken in before that can be.
        if core.tables.flow_events.len() * 2 >= core.events_capacity {
            core.ager.take_events(&core.tables);
        }
        let verdict = verdict(&ctx, frame, port, r0);
        if verdict == Verdict::Drop {
            let mut meta = Meta::default();
            self.core.tables.meta.read(0, meta.as_mut_bytes());
            self.answer(&meta, frame);
        }
        if !hooks.at_ports() {
            return Ok(verdict);
        }
        let core = &mut *self.core;
        let ended = core.helpers.ended();
        let generation = self.generation;
        let about = |tables: &CoreTables| {
            let mut meta = Meta::default();
            tables.meta.read(0, meta.as_mut_bytes());
            about_leaving(generation, tables, &meta, !ended)
        };
        let tables = &mut core.tables;
        Ok(hooks.leave(&mut ctx, frame, core.now_ns, tables, verdict, about))
    }

    /// Answers a packet of the last burst that was dropped, if its drop asks for it
    /// ([`take_reset`](Datapath::take_reset)).
    #[cold]
    pub fn dropped(&mut self, place: usize, frame: &Frame) {
        // Packets that were not run in bursts were looked at as they were run.
        if self.core.engine == Engine::Native {
            let meta = self.parsed(place);
            self.answer(&meta, frame);
        }
    }

    /// The generation.
    pub(crate) fn generation(&self) -> &Generation {
        self.generation
    }
}

/// What programs are told of a packet that leaves; `whole` when the pipeline ran to its end.
fn about_leaving(
    generation: &Generation,
    tables: &CoreTables,
    meta: &Meta,
    whole: bool,
) -> DashMeta {
    let flow = match whole.then(|| tables.first_of_flow(&meta.key)).flatten() {
        None => flow::UNKNOWN,
        Some(true) => flow::MISS,
        Some(false) => flow::HIT,
    };
    DashMeta {
        flow,
        ..generation.about(meta, Place::Egress)
    }
}

/// What a program said of a packet that came in by `port`; the frame takes its new bounds.
#[inline(always)]
fn verdict(ctx: &RunCtx, frame: &mut Frame, port: u16, r0: u32) -> Verdict {
    let (start, end) = bounds(ctx);
    if !frame.set_bounds(start, end) {
        return Verdict::Aborted;
    }
    match XdpAction::from_r0(r0) {
        XdpAction::Drop => Verdict::Drop,
        XdpAction::Pass => Verdict::Pass,
        XdpAction::Tx => Verdict::Send(port),
        XdpAction::Redirect => {
            u16::try_from(ctx.redirect_ifindex).map_or(Verdict::Aborted, Verdict::Send)
        }
        XdpAction::Aborted => Verdict::Aborted,
    }
}
