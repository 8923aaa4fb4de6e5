//! The engine: configuration, generations, and the target they run on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dash_model::key::EniKey;
use dash_model::objects::Object;
use dash_model::{Action, Changeset, Entry, ObjectKey, Store, StoreOptions, Txn, Warning};
use dash_native::{Listing, NativeCode};
use dash_pipeline::model::trace::LookedUp;
use dash_pipeline::plan::{Explained, Plan, Planner, Settings, UnderlayTable};
use dash_verify::Judge;
use nic_target::{Capacity, Image, Target, Update};
use serde_json::Value;

use crate::compile::{CompileStats, Compiler};
use crate::error::{CompileError, EngineError};
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
    baselines: BTreeMap<u32, Vec<u64>>,
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
    pub fn commit(&mut self, txn: Txn) -> Result<Commit, EngineError> {
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
            compiled,
            timings,
        })
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

    /// Index of an ENI.
    pub fn eni_index(&self, eni: &EniKey) -> Option<u32> {
        self.planner.eni_index(eni)
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
    fn baselines_for(&mut self, new: &[u32]) -> Result<BTreeMap<u32, Vec<u64>>, EngineError> {
        if !new.iter().any(|index| self.used.contains(index)) {
            return Ok(BTreeMap::new());
        }
        let mut snapshot = self.target.counters()?.eni;
        snapshot.retain(|index, _| new.contains(index));
        Ok(snapshot)
    }

    /// Counters of every ENI and of the card under their SAI names:
    /// `{"eni": {KEY: {NAME: n}}, "port": {NAME: n}, "meter": []}`. Every name is there, and every
    /// ENI, by key.
    ///
    /// # Errors
    /// The target cannot be read.
    pub fn counters(&mut self) -> Result<Value, EngineError> {
        let mut snapshot = self.target.counters()?;
        for (index, baseline) in &self.baselines {
            if let Some(values) = snapshot.eni.get_mut(index) {
                for (value, base) in values.iter_mut().zip(baseline) {
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
        Ok(state::counters(&enis, &snapshot.port))
    }

    /// Live flows, one JSON object a line, two lines a connection. See [`state`].
    ///
    /// # Errors
    /// The target cannot be read.
    pub fn flows_jsonl(&mut self) -> Result<String, EngineError> {
        let flows = self.target.flows()?;
        Ok(state::flows_jsonl(&flows, |index| {
            let key = self.planner.eni_key(index)?;
            let eni = self.store.eni(key)?;
            let vnet = eni
                .vnet
                .as_ref()
                .and_then(|vnet| self.planner.vnet_id(vnet));
            Some(state::FlowOwner {
                key: key.as_str(),
                mac: eni.mac,
                vnet_id: vnet.unwrap_or(0),
            })
        }))
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
        self.store
            .get(key)
            .map(|entry| ResultRow::of(&entry.object))
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
        if !matches!(op.key, ObjectKey::Opaque(..)) || !seen.insert(&op.key) {
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
