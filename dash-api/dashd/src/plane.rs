//! What the control thread owns: the target, the engine that drives it, and the neighbours.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dash_engine::{Commit, Engine, EngineError, FlowSelection, Options};
use dash_model::objects::{Eni, Object};
use dash_model::{Action, StoreOptions, Txn};
use dash_pipeline::plan::{Settings, UnderlayTable};
use dash_runtime::runtime::Change;
use dash_wire::stats::EniStat;
use dashctl::config::commit_files;
use nic_sim::port::SimHandle;
use nic_target::{Capacity, Device, Port, Target};
use nic_targets::AnyPort;
use serde_json::{Map, Value};

use crate::args::Args;
use crate::dataplane::{self, DataPlane};
use crate::gate::Gate;
use crate::neighbors::Neighbors;
use crate::programs::services::Underlay;
use crate::programs::{self, Programs, ProgramsError};
use crate::sessions::Sessions;
use crate::shortage::Shortage;

/// Most punted packets served at a time.
const PUNTS: usize = 256;
/// Largest IP packet that Ethernet takes, in bytes.
const ETHERNET_MTU: u16 = 1_500;

/// Flows should be gone within a second of their time (DASH reference 4.5); a worker that is this late is told of.
const LATE: Duration = Duration::from_secs(1);

/// A data plane with its configuration.
pub struct Plane {
    /// Configuration, generations, counters and flows.
    pub engine: Engine<DataPlane>,
    /// Most ENIs.
    pub enis: u32,
    /// Devices of the ports, for their links and counters.
    pub devices: Vec<Box<dyn Device>>,
    /// Programs of users.
    pub programs: Programs,
    /// Routes and neighbours as those see them.
    pub underlay: Arc<Underlay>,
    neighbors: Neighbors,
    ports: usize,
    sessions: Sessions,
    shortage: Shortage,
}

impl Plane {
    /// Opens the target, compiles the empty configuration, applies the files, then lets packets
    /// in. With the far side of a simulated target.
    ///
    /// # Errors
    /// The target does not open, a file is wrong (every error in it), or a route or neighbour
    /// names a port that is not there.
    pub fn open(args: &Args) -> Result<(Self, Option<SimHandle>)> {
        let options = dash_runtime::Options {
            cores: args.cores.clone(),
            prefault: args.prefault,
            ..dash_runtime::Options::new(
                args.engine.into(),
                Capacity {
                    flows: args.flows,
                    ..Capacity::default()
                },
            )
        };
        let workers = args.worker_count();
        // Before a device is touched.
        options.check(workers).context("starting the data plane")?;
        dataplane::check(&args.target, options.engine)?;
        let opened = nic_targets::open(&args.target, workers, &options.capacity)
            .with_context(|| format!("--target {}", args.target))?;
        let gate = Gate::new();
        let guard = |ports: Vec<AnyPort>| ports.into_iter().map(|port| gate.guard(port)).collect();
        let ports: Vec<Vec<_>> = opened.ports.into_iter().map(guard).collect();
        let ports_count = ports.first().map_or(0, Vec::len);
        check_ports(args, ports_count)?;
        // No IP packet is longer than 16 bits say.
        let mtu = |mtu: u32| u16::try_from(mtu).unwrap_or(u16::MAX);
        let first = ports.first().into_iter().flatten();
        let mtus: Vec<Option<u16>> = first.map(|port| port.mtu().map(mtu)).collect();
        let limits = args.mtu.map(|mtu| mtu.limits(&mtus)).transpose();
        let limits = limits.map_err(anyhow::Error::msg).context("--mtu")?;
        let limits = limits.unwrap_or_default();
        // What programs are told of each port, whoever knows.
        let told = |mtu: &Option<u16>| limits.card.or(*mtu).unwrap_or(ETHERNET_MTU);
        let told_mtus = mtus.iter().map(told).collect();
        let handle = DataPlane::start(ports, opened.kernel, options)?;
        let port_macs = handle.macs().to_vec();
        // Code is compiled for the tables of a worker, which has its share of the flows.
        let capacity = handle.capacity().clone();
        let enis = capacity.enis;
        let options = Options {
            settings: args.life.settings(Settings {
                vxlan_port: args.vxlan_port,
                encap_ttl: args.encap_ttl,
                sport_base: args.sport_base,
                sport_bits: args.sport_bits,
                drop_unmapped_ports: args.drop_unmapped_ports,
                sport_security: args.vxlan_security,
                mtu: limits.card,
                port_mtus: limits.ports,
                dscp_pipe: args.dscp_pipe,
                workers: u16::try_from(workers).unwrap_or(u16::MAX),
                ..Settings::default()
            }),
            capacity,
            judge: args.verifier,
            cache_dir: args.cache.clone(),
            native: args.engine == crate::args::EngineName::Native,
            store: StoreOptions {
                update_bound_groups: args.update_bound_groups,
                strict: args.strict,
            },
        };
        let mut engine =
            Engine::new(options, Box::new(handle)).context("the empty configuration")?;
        commit_files(&mut engine, &args.configs)?;

        let underlay = UnderlayTable {
            routes: args.routes.iter().map(|route| route.0.clone()).collect(),
            neighbors: args
                .neighbors
                .iter()
                .map(|n| (n.ip, (n.mac, n.port)))
                .collect(),
            port_macs,
        };
        engine
            .set_underlay(underlay.clone())
            .context("--route and --neighbor")?;
        let for_programs = Underlay::new(underlay.clone(), told_mtus);
        let mut neighbors = Neighbors::new(underlay);
        for (_, eni) in engine.store().enis() {
            neighbors.want(eni.underlay_ip.into());
        }
        for (vnet, _) in engine.store().vnets() {
            for (_, mapping) in engine.store().mappings(vnet) {
                neighbors.want(mapping.underlay_ip.into());
            }
        }
        gate.open();
        let plane = Self {
            engine,
            enis,
            devices: opened.devices,
            programs: Programs::default(),
            underlay: Arc::new(for_programs),
            neighbors,
            ports: ports_count,
            sessions: Sessions::new(args.flow_dumps.clone()),
            shortage: Shortage::new(),
        };
        Ok((plane, opened.sim))
    }

    /// Makes a transaction one generation, and asks for the neighbours it brings.
    ///
    /// # Errors
    /// Nothing changed then.
    pub fn commit(&mut self, txn: Txn) -> Result<Commit, EngineError> {
        // Found now, as the transaction is gone afterwards; asked for only when it holds.
        let pas = if self.neighbors.has_routes() {
            pas_of(&txn)
        } else {
            Vec::new()
        };
        if let Err(error) = self.programs.before(&mut self.engine, &txn) {
            tracing::warn!(%error, "programs of an ENI that goes are still attached");
        }
        let done = self.engine.commit(txn);
        if let Err(error) = self.programs.settle(&mut self.engine) {
            tracing::warn!(%error, "programs are not where their ENIs are");
        }
        let mut commit = done?;
        for dump in commit.dumps.drain(..) {
            let which = FlowSelection {
                eni: None,
                filters: dump.filters.clone(),
                most: dump.max_flows,
            };
            let found = self.engine.find_flows(&which);
            self.sessions
                .start(dump, found.map_err(|error| error.to_string()));
        }
        for pa in pas {
            self.neighbors.want(pa);
        }
        tracing::info!(
            generation = commit.generation,
            changes = commit.changes,
            compiled = commit.compiled,
            "committed in {:?}: validate {:?}, plan {:?}, compile {:?}, apply {:?}",
            commit.timings.validate
                + commit.timings.plan
                + commit.timings.compile
                + commit.timings.apply,
            commit.timings.validate,
            commit.timings.plan,
            commit.timings.compile,
            commit.timings.apply,
        );
        Ok(commit)
    }

    /// Attaches a program of a user; gives its link's number.
    ///
    /// # Errors
    /// See [`Programs::attach`].
    pub fn attach(&mut self, request: programs::Request) -> Result<u32, ProgramsError> {
        self.programs.attach(&mut self.engine, self.ports, request)
    }

    /// Serves packets that wait for control and the clocks of neighbours; gives the number of
    /// frames sent.
    pub fn serve_punts(&mut self) -> usize {
        let vip = self
            .engine
            .store()
            .appliance()
            .map(|(_, appliance)| appliance.sip);
        let now = Instant::now();
        let mut out = Vec::new();
        for _ in 0..PUNTS {
            let Some(punt) = self.engine.target_mut().punted() else {
                break;
            };
            self.neighbors
                .frame(punt.port.into(), &punt.data, vip, now, &mut out);
        }
        self.neighbors.tick(vip, now, &mut out);
        if let Some(table) = self.neighbors.changed() {
            let table = table.clone();
            self.underlay.set(table.clone());
            if let Err(error) = self.engine.set_underlay(table) {
                tracing::warn!(%error, "learned neighbours are not in the data plane");
            }
        }
        let mut sent = 0;
        for (port, frame) in out {
            // Ports are few: the runtime numbers them with 16 bits.
            let Ok(port) = u16::try_from(port) else {
                continue;
            };
            if self.engine.target_mut().inject(port, &frame) {
                sent += 1;
            } else {
                // It is asked again in a second, or whoever asked us asks again.
                tracing::debug!(port, "no room to send to a neighbour");
            }
        }
        sent
    }

    /// What came of flow dump sessions, by name.
    pub fn sessions(&self) -> Map<String, Value> {
        self.sessions.rows()
    }

    /// Logs what flows could not have: places in the table, leave of their ENI, their end in time. Once a
    /// second at most.
    pub fn watch_flows(&mut self) {
        let Some(since) = self.shortage.due(Instant::now()) else {
            return;
        };
        let workers = self.engine.target().worker_stats();
        for (worker, stats) in workers.iter().enumerate() {
            let late = Duration::from_nanos(stats.ageing_late_ns);
            if late >= LATE {
                tracing::warn!(
                    worker,
                    "so many flows end that the worker is {late:.1?} late: packets go first"
                );
            }
        }
        // Counters are asked for only where they may have moved.
        let capacity = self.engine.target().capacity().flows as usize;
        let live = self.engine.target_mut().flow_count().unwrap_or(0);
        let limited = |(_, eni): (_, &Eni)| {
            let profile = eni
                .qos
                .as_ref()
                .and_then(|qos| self.engine.store().qos(qos));
            profile.is_some_and(|qos| qos.connections_per_second > 0 || qos.flows > 0)
        };
        let room = live + capacity / 8 < capacity * workers.len();
        if room && !self.shortage.counted() && !self.engine.store().enis().any(limited) {
            return;
        }
        let Ok(counters) = self.engine.target_mut().counters() else {
            return;
        };
        let sum = |stat: EniStat| -> u64 {
            let blocks = counters.eni.values();
            blocks.filter_map(|block| block.get(stat as usize)).sum()
        };
        let full = sum(EniStat::FlowCreateFailed);
        let refused = sum(EniStat::SessionLimitExceededDropPackets).saturating_sub(full);
        let new = self.shortage.new_drops(full, refused);
        if let Some(dropped) = new.full {
            tracing::warn!(
                live,
                "the flow table was full for {dropped} packets of new connections in {since:.1?}: \
                 established ones go on"
            );
        }
        if let Some(dropped) = new.refused {
            tracing::warn!(
                live,
                "limits of ENIs stopped {dropped} packets of new connections in {since:.1?}: \
                 established ones go on"
            );
        }
    }

    /// Logs workers that have gone silent, and those that are back: each once.
    pub fn watch(&mut self) {
        for change in self.engine.target_mut().watch() {
            match change {
                Change::Silent { worker, silence } => tracing::error!(
                    worker,
                    "a worker has stood still for {silence:.1?}: a port may block"
                ),
                Change::Back { worker } => tracing::info!(worker, "the worker goes on"),
            }
        }
    }

    /// Returns when every frame that the ports gave to the worker was run, and what control sent
    /// in answer has left.
    ///
    /// # Errors
    /// The worker is gone.
    pub fn settle(&mut self) -> Result<(), nic_target::TargetError> {
        // What may have been sent just before.
        let mut injected = crate::neighbors::BURST;
        loop {
            // A question is answered between two rounds of the worker. A round runs a burst of
            // what the ports hold or empties one of them, and sends a burst of control's frames;
            // a port holds at most a burst.
            let rounds = 2 * self.ports + injected / dash_runtime::worker::BURST + 2;
            for _ in 0..rounds {
                self.engine.target_mut().counters()?;
            }
            injected = self.serve_punts();
            if injected == 0 {
                return Ok(());
            }
        }
    }

    /// Neighbours, configured and learned.
    pub fn neighbors(&self) -> usize {
        self.engine.underlay().neighbors.len()
    }
}

fn check_ports(args: &Args, ports: usize) -> Result<()> {
    let routes = args
        .routes
        .iter()
        .map(|r| (format!("--route {}", r.0.prefix), r.0.port));
    let neighbors = args
        .neighbors
        .iter()
        .map(|n| (format!("--neighbor {}", n.ip), n.port));
    for (option, port) in routes.chain(neighbors) {
        ensure!(
            usize::try_from(port).is_ok_and(|port| port < ports),
            "{option}: {} has no port {port}; its ports are 0 to {}",
            args.target,
            ports.saturating_sub(1)
        );
    }
    Ok(())
}

/// PAs that a transaction's ENIs and mappings name, as many as can be asked for.
fn pas_of(txn: &Txn) -> Vec<IpAddr> {
    let pas = txn.ops.iter().filter_map(|op| match &op.action {
        Action::Set {
            object: Object::Eni(eni),
            ..
        } => Some(eni.underlay_ip),
        Action::Set {
            object: Object::VnetMapping(mapping),
            ..
        } => Some(mapping.underlay_ip),
        _ => None,
    });
    let mut pas: Vec<Ipv4Addr> = pas.collect();
    pas.sort_unstable();
    pas.dedup();
    pas.into_iter()
        .take(crate::neighbors::MAX_PENDING)
        .map(IpAddr::V4)
        .collect()
}
