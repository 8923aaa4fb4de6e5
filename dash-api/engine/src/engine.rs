//! The engine: configuration, generations, and the target they run on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dash_model::key::{EniKey, VnetName};
use dash_model::objects::Object;
use dash_model::{Action, Changeset, Entry, ObjectKey, Store, StoreOptions, Txn, Warning};
use dash_native::{Listing, NativeCode};
use dash_pipeline::model::trace::LookedUp;
use dash_pipeline::plan::{
    EniInForce, Explained, Plan, Planner, Recurring, Resimulation, Settings, UnderlayTable,
};
use dash_verify::Judge;
use dash_wire::tables::MeterBucket;
use nic_target::{
    Capacity, FlowEdit, FlowField, FlowFilter, FlowOp, FlowQuery, FlowValue, Image, Target, Update,
};
use serde_json::Value;

use crate::compile::{CompileStats, Compiler};
use crate::error::{CompileError, EngineError};
use crate::sessions::{self, FlowDump};
use crate::state::{self, ResultRow};

/// How an engine works.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What goes into packets beside the appliance's configuration.
    pub settings: Settings,
    /// What the target holds; the same numbers the target was made with.
    pub capacity: Capacity,
    /// Who decides whether a stage's code is safe to run.
    pub judge: Judge,
    /// Folder for the verifier's verdicts between runs. Whoever can write there can have code
    /// accepted, so it must belong to this user alone.
    pub cache_dir: Option<PathBuf>,
    /// Make machine code; off for targets that run eBPF or IR.
    pub native: bool,
    /// What the store allows.
    pub store: StoreOptions,
}

/// Where the time of a commit went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Validation.
    pub validate: Duration,
    /// Objects to rows.
    pub plan: Duration,
    /// Shape to code; next to nothing when the shape did not change.
    pub compile: Duration,
    /// The target making it visible.
    pub apply: Duration,
}

/// What a commit did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The generation that holds it: the one before when nothing changed.
    pub generation: u64,
    /// Rows that differ from before.
    pub changes: usize,
    /// What was accepted and is probably not what was meant, by index.
    pub warnings: Vec<Warning>,
    /// Rows written whose tables this release stores without acting on, in the order they came.
    pub stored_only: Vec<ObjectKey>,
    /// Files of flows that it ordered.
    pub dumps: Vec<FlowDump>,
    /// Other code was installed.
    pub compiled: bool,
    /// Where the time went.
    pub timings: Timings,
}

/// Code of the current generation, for people.
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// The image.
    pub image: Arc<Image>,
    /// Its pipeline as IR text.
    pub ir: Arc<str>,
    /// Its eBPF, one listing a stage with slot numbers.
    pub disassembly: String,
}

/// What an index counted for the ENIs that had it before.
#[derive(Clone, Debug, Default)]
struct Baseline {
    /// In `EniStat` order.
    stats: Vec<u64>,
    /// By metering class.
    meter: BTreeMap<u32, MeterBucket>,
}

/// Configuration in, generations out. See the [crate].
///
/// One owner at a time: every method that talks to the target takes `&mut self`.
pub struct Engine<T: Target + ?Sized> {
    store: Store,
    planner: Planner,
    compiler: Compiler,
    image: Arc<Image>,
    underlay: UnderlayTable,
    generation: u64,
    /// ENI indices that were in use at some time: their counters may not be zero.
    used: BTreeSet<u32>,
    /// Counters of an index when its ENI came, where an ENI had the index before.
    baselines: BTreeMap<u32, Baseline>,
    target: Box<T>,
}

impl<T: Target + ?Sized> Engine<T> {
    /// Installs generation 1, the empty configuration, in which every packet misses the VIP.
    ///
    /// # Errors
    /// The code cannot be made or the target does not take it.
    pub fn new(options: Options, mut target: Box<T>) -> Result<Self, EngineError> {
        let Options {
            settings,
            capacity,
            judge,
            cache_dir,
            native,
            store,
        } = options;
        let store = Store::new(store);
        let mut planner = Planner::new(settings, &capacity);
        let mut compiler = Compiler::new(capacity, judge, cache_dir, native);
        let Plan { shape, delta, .. } = planner.plan(&store, &Changeset::default())?;
        let image = compiler.image(&shape)?;
        target.apply(&Update {
            generation: 1,
            image: Some(Arc::clone(&image)),
            delta: Arc::new(delta),
        })?;
        Ok(Self {
            store,
            planner,
            compiler,
            image,
            underlay: UnderlayTable::default(),
            generation: 1,
            used: BTreeSet::new(),
            baselines: BTreeMap::new(),
            target,
        })
    }

    /// Validates, plans, compiles where the shape changed, and makes the whole transaction one
    /// generation.
    ///
    /// # Errors
    /// Nothing changed then, anywhere: the generation before keeps forwarding.
    pub fn commit(&mut self, mut txn: Txn) -> Result<Commit, EngineError> {
        let dumps = sessions::take(&mut txn, &self.store)?;
        let stored_only = stored_only(&txn);
        let mut timings = Timings::default();
        let mut clock = Stopwatch::start();

        let mut changes = self.store.commit(txn)?;
        timings.validate = clock.lap();
        let warnings = std::mem::take(&mut changes.warnings);
        let mut compiled = false;
        if !changes.is_empty() {
            let plan = match self.planner.plan(&self.store, &changes) {
                Ok(plan) => plan,
                Err(error) => {
                    self.store.revert(&changes);
                    return Err(error.into());
                }
            };
            timings.plan = clock.lap();
            match self.install(plan, &changes, &mut timings, &mut clock) {
                Ok(other_code) => compiled = other_code,
                Err(error) => {
                    self.store.revert(&changes);
                    self.planner
                        .take_back(&self.store, &changes)
                        .expect("what was just planned had its numbers, and still has them");
                    return Err(error);
                }
            }
        }
        Ok(Commit {
            generation: self.generation,
            changes: changes.changes.len(),
            warnings,
            stored_only,
            dumps,
            compiled,
            timings,
        })
    }

    /// Replaces the settings. Returns the generation that holds them.
    ///
    /// # Errors
    /// The settings are as before.
    pub fn set_settings(&mut self, settings: Settings) -> Result<u64, EngineError> {
        let before = self.planner.settings().clone();
        let plan = self.planner.set_settings(&self.store, settings);
        if plan.delta.ops.is_empty() && !plan.shape_changed {
            return Ok(self.generation);
        }
        let (mut timings, mut clock) = (Timings::default(), Stopwatch::start());
        match self.install(plan, &Changeset::default(), &mut timings, &mut clock) {
            Ok(_) => Ok(self.generation),
            Err(error) => {
                // The target holds what it held, so the plan back is for the planner alone.
                self.planner.set_settings(&self.store, before);
                Err(error)
            }
        }
    }

    /// Replaces the underlay: routes, neighbours and the ports' own MACs. Returns the generation
    /// that holds it.
    ///
    /// # Errors
    /// The underlay is as before.
    pub fn set_underlay(&mut self, underlay: UnderlayTable) -> Result<u64, EngineError> {
        let plan = self.planner.underlay(&underlay);
        if plan.delta.ops.is_empty() && !plan.shape_changed {
            self.underlay = underlay;
            return Ok(self.generation);
        }
        let (mut timings, mut clock) = (Timings::default(), Stopwatch::start());
        match self.install(plan, &Changeset::default(), &mut timings, &mut clock) {
            Ok(_) => {
                self.underlay = underlay;
                Ok(self.generation)
            }
            Err(error) => {
                // The target holds what it held, so the plan back is for the planner alone.
                self.planner.underlay(&self.underlay);
                Err(error)
            }
        }
    }

    /// What of an ENI's settings packets meet; `None` without such an ENI.
    pub fn eni_in_force(&self, eni: &EniKey) -> Option<EniInForce> {
        self.planner.eni_in_force(&self.store, eni)
    }

    /// The epoch of an ENI's flows that need not be decided again.
    pub fn epoch(&self, eni: &EniKey) -> u8 {
        self.planner.epoch(eni)
    }

    /// Says how an ENI's old flows are decided again, and with `all` that those there are now are old.
    pub(crate) fn plan_resimulation(
        &mut self,
        eni: &EniKey,
        how: Resimulation,
        all: bool,
    ) -> Result<(), EngineError> {
        let Some(plan) = self.planner.resimulate(&self.store, eni, how, all) else {
            return Ok(());
        };
        let (mut timings, mut clock) = (Timings::default(), Stopwatch::start());
        let done = self.install(plan, &Changeset::default(), &mut timings, &mut clock);
        if done.is_err() {
            // The target holds what it held.
            self.planner.forget_resimulate(&self.store, eni);
        }
        done.map(|_| ())
    }

    pub(crate) fn enis_by_index(&self) -> impl Iterator<Item = (u32, &EniKey)> {
        self.planner.enis()
    }

    /// Index of an ENI.
    pub fn eni_index(&self, eni: &EniKey) -> Option<u32> {
        self.planner.eni_index(eni)
    }

    pub(crate) fn vnet_id(&self, vnet: &VnetName) -> Option<u16> {
        self.planner.vnet_id(vnet)
    }

    /// Makes the code that asks programs attached to ENIs, or the code without: before the first is
    /// attached, and after the last is gone. True when other code was installed.
    ///
    /// # Errors
    /// Everything is as before.
    pub fn set_hooks(&mut self, there: bool) -> Result<bool, EngineError> {
        let plan = self.planner.hooks(there);
        let (mut timings, mut clock) = (Timings::default(), Stopwatch::start());
        let installed = self.install(plan, &Changeset::default(), &mut timings, &mut clock);
        if installed.is_err() {
            self.planner.hooks(!there);
        }
        installed
    }

    /// Makes a plan the next generation; true when it has other code.
    fn install(
        &mut self,
        plan: Plan,
        changes: &Changeset,
        timings: &mut Timings,
        clock: &mut Stopwatch,
    ) -> Result<bool, EngineError> {
        let image = if plan.shape_changed {
            let image = self.compiler.image(&plan.shape)?;
            (image.shape != self.image.shape).then_some(image)
        } else {
            None
        };
        timings.compile = clock.lap();

        for Recurring { eni, next } in &plan.recurring {
            let now = next.wrapping_sub(1);
            for op in [FlowOp::Less, FlowOp::Greater] {
                let old = FlowQuery {
                    enis: Some(vec![*eni]),
                    filters: vec![FlowFilter {
                        field: FlowField::Version,
                        op,
                        value: FlowValue::Number(now.into()),
                    }],
                    ..FlowQuery::ALL
                };
                let oldest = FlowEdit::Epoch(now.wrapping_sub(1));
                self.target.edit_flows(&old, oldest)?;
            }
        }
        let new_enis = self.new_enis(changes);
        let baselines = self.baselines_for(&new_enis)?;
        let generation = self.generation + 1;
        self.target.apply(&Update {
            generation,
            image: image.clone(),
            delta: Arc::new(plan.delta),
        })?;
        timings.apply = clock.lap();

        self.generation = generation;
        self.used.extend(new_enis);
        self.baselines.extend(baselines);
        let compiled = image.is_some();
        if let Some(image) = image {
            tracing::debug!(generation, shape = %hex(&image.shape), "other code");
            self.image = image;
        }
        Ok(compiled)
    }

    /// Indices of ENIs that a commit made.
    fn new_enis(&self, changes: &Changeset) -> Vec<u32> {
        let new = changes
            .changes
            .iter()
            .filter(|c| c.old.is_none() && c.new.is_some());
        new.filter_map(|change| match &change.key {
            ObjectKey::Eni(key) => self.planner.eni_index(key),
            _ => None,
        })
        .collect()
    }

    /// Counters that indices start from, where another ENI had them before. An ENI's counters
    /// begin at 0 whatever its index counted.
    fn baselines_for(&mut self, new: &[u32]) -> Result<BTreeMap<u32, Baseline>, EngineError> {
        if !new.iter().any(|index| self.used.contains(index)) {
            return Ok(BTreeMap::new());
        }
        let snapshot = self.target.counters()?;
        let mut baselines = BTreeMap::<u32, Baseline>::new();
        for (index, stats) in snapshot.eni {
            if new.contains(&index) {
                baselines.entry(index).or_default().stats = stats;
            }
        }
        for ((index, class), bytes) in snapshot.meter {
            if new.contains(&index) {
                let baseline = baselines.entry(index).or_default();
                baseline.meter.insert(class, bytes);
            }
        }
        Ok(baselines)
    }

    /// Counters of every ENI and of the card under their SAI names:
    /// `{"eni": {KEY: {NAME: n}}, "port": {NAME: n}, "meter": [{"eni": KEY, "meter_class": n, NAME: n}]}`.
    /// Every name is there, and every ENI, by key; of the buckets those that are not 0, by ENI and class.
    ///
    /// # Errors
    /// The target cannot be read.
    pub fn counters(&mut self) -> Result<Value, EngineError> {
        let mut snapshot = self.target.counters()?;
        for (index, baseline) in &self.baselines {
            if let Some(values) = snapshot.eni.get_mut(index) {
                for (value, base) in values.iter_mut().zip(&baseline.stats) {
                    *value = value.saturating_sub(*base);
                }
            }
        }
        let enis: Vec<_> = self
            .store
            .enis()
            .map(|(key, _)| {
                (
                    key,
                    self.planner
                        .eni_index(key)
                        .and_then(|i| snapshot.eni.get(&i)),
                )
            })
            .collect();
        let mut meters = Vec::new();
        for ((index, class), mut bytes) in snapshot.meter {
            let base = self.baselines.get(&index);
            if let Some(base) = base.and_then(|baseline| baseline.meter.get(&class)) {
                bytes.outbound = bytes.outbound.saturating_sub(base.outbound);
                bytes.inbound = bytes.inbound.saturating_sub(base.inbound);
            }
            let eni = self.planner.eni_key(index);
            if let Some(eni) = eni.filter(|_| bytes != MeterBucket::default()) {
                meters.push((eni, class, bytes));
            }
        }
        meters.sort_unstable_by_key(|(eni, class, _)| (*eni, *class));
        Ok(state::counters(&enis, &snapshot.port, &meters))
    }

    /// Number of live connections.
    ///
    /// # Errors
    /// The target cannot be read.
    pub fn flow_count(&mut self) -> Result<usize, EngineError> {
        Ok(self.target.flow_count()?)
    }

    /// Bytes of a row, as they were received.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<[u8]>> {
        self.store.get(key).map(|entry| &entry.raw)
    }

    /// Rows of a table, sorted by key.
    pub fn rows(&self, table: &str) -> impl Iterator<Item = (ObjectKey, &Entry)> + use<'_, T> {
        self.store.iter_table(table)
    }

    /// What became of a row, as `DPU_APPL_STATE_DB` says it; `None` when there is no such row.
    pub fn result(&self, key: &ObjectKey) -> Option<ResultRow> {
        let mut row = ResultRow::of(&self.store.get(key)?.object);
        if matches!(key, ObjectKey::Opaque(table, _) if sessions::acts(table)) {
            row.note = None;
        }
        Some(row)
    }

    /// The configuration.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The ENI of an index, as flows, counters and traces have it.
    pub fn eni_key(&self, index: u32) -> Option<&EniKey> {
        self.planner.eni_key(index)
    }

    /// The object behind a row that a traced packet met.
    pub fn explain(&self, looked: &LookedUp) -> Option<Explained> {
        self.planner.explain(&self.store, looked)
    }

    /// The underlay.
    pub fn underlay(&self) -> &UnderlayTable {
        &self.underlay
    }

    /// The current generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What compiling cost so far.
    pub fn compile_stats(&self) -> CompileStats {
        self.compiler.stats()
    }

    /// Code of the current generation.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Code of the current generation as text.
    pub fn artifacts(&self) -> Artifacts {
        Artifacts {
            image: Arc::clone(&self.image),
            ir: Arc::clone(&self.image.ir),
            disassembly: state::disassembly(&self.image.object),
        }
    }

    /// Machine code of the current generation with its listings, made anew.
    ///
    /// # Errors
    /// The code cannot be compiled for this machine.
    pub fn listing(&mut self) -> Result<(NativeCode, Listing), CompileError> {
        self.compiler.listing(&self.image)
    }

    /// The target.
    pub fn target(&self) -> &T {
        &self.target
    }

    /// The target, to run packets on it; its tables are the engine's to write.
    pub fn target_mut(&mut self) -> &mut T {
        &mut self.target
    }
}

/// Rows of a transaction that are only stored. The last op on a key counts, as in the store.
fn stored_only(txn: &Txn) -> Vec<ObjectKey> {
    let mut seen = BTreeSet::new();
    let mut keys: Vec<ObjectKey> = Vec::new();
    for op in txn.ops.iter().rev() {
        let stored = matches!(&op.key, ObjectKey::Opaque(table, _) if !sessions::acts(table));
        if !stored || !seen.insert(&op.key) {
            continue;
        }
        if matches!(
            op.action,
            Action::Set {
                object: Object::Opaque,
                ..
            }
        ) {
            keys.push(op.key.clone());
        }
    }
    keys.reverse();
    keys
}

fn hex(hash: &[u8]) -> String {
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Times one step after another.
struct Stopwatch(Instant);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now())
    }
    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let lap = now - self.0;
        self.0 = now;
        lap
    }
}
