//! A core whose packets are run by the caller, one by one: replay, scenarios, tests.

use std::sync::Arc;

use dash_bpf::interp::Trap;
use dash_wire::tables::FlowEntry;
use nic_target::{
    Capacity, CounterSnapshot, FlowEdit, FlowQuery, Frame, PacketEngine, Target, TargetError,
    Update, Verdict,
};

use crate::ager;
use crate::datapath::{BURST, Datapath, Fate};
use crate::exec::Engine;
use crate::generation::Generation;
use crate::hooks::Hooks;
use crate::tables::core_set::CoreTables;
use crate::tables::mirror::SharedFlows;

/// A core and the generation it runs, in the caller's hands.
///
/// ```
/// use dash_runtime::{Core, Engine};
/// use nic_target::{Capacity, Frame, PacketEngine, TargetError};
///
/// let capacity = Capacity { flows: 16, ..Capacity::default() };
/// let mut core = Core::new(Engine::Interp, &capacity)?;
/// let refused = core.run(&mut Frame::new());
/// assert!(matches!(refused, Err(TargetError::NoImage)));
/// # Ok::<(), TargetError>(())
/// ```
#[derive(Debug)]
pub struct Core {
    datapath: Datapath,
    generation: Generation,
    flows: u32,
}

impl Core {
    /// A core with empty tables and no code.
    ///
    /// # Errors
    /// The engine cannot run on this machine.
    pub fn new(engine: Engine, capacity: &Capacity) -> Result<Self, TargetError> {
        Ok(Self::over(Datapath::new(engine, capacity, 0)?, capacity))
    }

    /// The same with a flow table that another processor reads too.
    ///
    /// # Errors
    /// As [`new`](Self::new), or the shared memory is too small.
    pub fn shared(
        engine: Engine,
        capacity: &Capacity,
        flows: SharedFlows,
    ) -> Result<Self, TargetError> {
        Ok(Self::over(
            Datapath::shared(engine, capacity, 0, flows)?,
            capacity,
        ))
    }

    /// Takes the memory of as many flows as there may be now, rather than when flows are made.
    ///
    /// # Errors
    /// There is not so much.
    pub fn prefault(&mut self) -> Result<(), TargetError> {
        self.datapath.prefault()
    }

    fn over(datapath: Datapath, capacity: &Capacity) -> Self {
        Self {
            datapath,
            generation: Generation::empty(capacity),
            flows: capacity.flows,
        }
    }

    /// What the core runs now.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// The core's own tables.
    pub fn tables(&self) -> &CoreTables {
        self.datapath.tables()
    }

    /// Clock, ns.
    pub fn now(&self) -> u64 {
        self.datapath.now()
    }

    /// Why the checking interpreter stopped the last run, if it did: the verdict was `Aborted`.
    pub fn trap(&self) -> Option<Trap> {
        self.datapath.trap()
    }

    /// Why rbpf stopped the last run, if it did: the verdict was `Aborted`.
    pub fn rbpf_error(&self) -> Option<&str> {
        self.datapath.rbpf_error()
    }
}

impl Core {
    /// Replaces the programs of users. Those of ENIs run where the image asks for them.
    pub fn set_hooks(&mut self, hooks: Hooks) {
        self.generation = self.generation.with_hooks(Arc::new(hooks));
    }

    /// Runs frames as a worker does, in bursts of [`BURST`](crate::datapath::BURST), all at `now_ns`;
    /// `outcomes` gets what became of each, in order.
    pub fn run_burst(&mut self, now_ns: u64, frames: &mut [Frame], outcomes: &mut Vec<Fate>) {
        self.datapath.advance(now_ns, usize::MAX);
        let mut bound = self.datapath.bind(&self.generation);
        for burst in frames.chunks_mut(BURST) {
            let n = bound.run_burst(burst);
            outcomes.extend((0..n).map(|place| bound.fate(place)));
            for (place, frame) in burst.iter().enumerate().take(n) {
                if bound.fate(place) == Fate::Done(Verdict::Drop) {
                    bound.dropped(place, frame);
                }
            }
        }
    }
}

impl Target for Core {
    fn apply(&mut self, update: &Update) -> Result<(), TargetError> {
        self.generation = self.generation.next(self.datapath.engine(), update)?;
        let gone = update.delta.deleted_enis();
        if !gone.is_empty() {
            ager::purge(self.datapath.tables_mut(), &gone, 0..self.flows);
        }
        Ok(())
    }

    fn counters(&mut self) -> Result<CounterSnapshot, TargetError> {
        let tables = self.datapath.tables();
        let mut counters = tables.counters();
        let enis: Vec<u32> = counters.eni.keys().copied().collect();
        for eni in enis {
            tables.meters(eni, &mut counters);
        }
        Ok(counters)
    }

    fn flows(&mut self) -> Result<Vec<FlowEntry>, TargetError> {
        self.find_flows(&FlowQuery::ALL)
    }

    fn find_flows(&mut self, query: &FlowQuery) -> Result<Vec<FlowEntry>, TargetError> {
        let tables = self.datapath.tables();
        let mut flows = Vec::with_capacity(query.most.min(tables.flow_count()));
        tables.flows(0..self.flows, query, &mut flows);
        Ok(flows)
    }

    fn edit_flows(&mut self, query: &FlowQuery, edit: FlowEdit) -> Result<u64, TargetError> {
        let slots = 0..self.flows;
        let tables = self.datapath.tables_mut();
        Ok(ager::edit(tables, query, edit, slots, query.most) as u64)
    }

    fn flow_count(&mut self) -> Result<usize, TargetError> {
        Ok(self.datapath.tables().flow_count())
    }
}

impl PacketEngine for Core {
    fn name(&self) -> &'static str {
        self.datapath.engine().name()
    }

    fn advance(&mut self, now_ns: u64) {
        self.datapath.advance(now_ns, usize::MAX);
    }

    fn injected(&mut self) -> Option<(u16, Vec<u8>)> {
        let reset = self.datapath.take_reset()?;
        Some((reset.port, reset.data().to_vec()))
    }

    fn run(&mut self, frame: &mut Frame) -> Result<Verdict, TargetError> {
        self.datapath.advance(frame.timestamp_ns, usize::MAX);
        self.datapath.bind(&self.generation).run(frame)
    }
}
