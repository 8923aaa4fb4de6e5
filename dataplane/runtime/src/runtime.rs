//! Worker threads over ports, and the [handle](RuntimeHandle) control keeps.
//!
//! Workers share nothing but the generation they read: each has a queue of every port, tables of
//! its own and a share of the flows. A worker makes its tables on its own thread, after that was
//! pinned, so that their memory is of its own NUMA node (the system gives a page where it is first
//! touched): when flows are made, or all at once ([`Options::prefault`]).

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use nic_target::{Capacity, Port, Table, TargetError};
use thiserror::Error;

pub use affinity::{Cores, CoresError};
pub use handle::RuntimeHandle;
pub use watchdog::Change;

use crate::datapath::{Datapath, Owners, Secret};
use crate::exec::Engine;
use crate::generation::{Generation, Publisher, Subscription};
use crate::tables::fragments::Fragments;
use crate::tables::mirror::SharedFlows;
use crate::worker::Worker;
use crate::worker::handoff::Crossing;
use crate::worker::lanes::pool_size;
use crate::worker::rings::{RING, Rings};
use handle::Hand;

pub mod affinity;
mod handle;
mod watchdog;

/// How a runtime is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who executes.
    pub engine: Engine,
    /// Capacity of all workers together: flows are split between them.
    pub capacity: Capacity,
    /// Core of each worker; `None` leaves them to the scheduler.
    pub cores: Option<Cores>,
    /// Silence after which a worker is reported.
    pub watchdog: Duration,
    /// Workers take the memory of all their flows before they start, and not when flows are made.
    pub prefault: bool,
    /// Zero of the workers' clock, where ports have none of their own; `None`: when they start.
    pub zero: Option<Instant>,
}

impl Options {
    /// Workers that the scheduler places, watched by the second.
    pub fn new(engine: Engine, capacity: Capacity) -> Self {
        Self {
            engine,
            capacity,
            cores: None,
            watchdog: Duration::from_secs(1),
            prefault: false,
            zero: None,
        }
    }

    /// Whether so many workers can be started like this, as far as that can be said without ports.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn check(&self, workers: usize) -> Result<(), SpawnError> {
        if workers > 1 && self.engine != Engine::Native {
            let engine = self.engine.name();
            return Err(SpawnError::EngineWorkers { engine, workers });
        }
        let Some(cores) = &self.cores else {
            return Ok(());
        };
        let named = cores.as_slice();
        if named.len() != workers {
            let cores = named.len();
            return Err(SpawnError::Cores { cores, workers });
        }
        let allowed = affinity::allowed().map_err(SpawnError::Affinity)?;
        let mut named = named.iter();
        match named.find(|core| !allowed.as_slice().contains(core)) {
            Some(&core) => Err(SpawnError::NotAllowed { core, allowed }),
            None => Ok(()),
        }
    }
}

/// Why workers did not start. None runs then, and the ports are closed.
#[derive(Debug, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum SpawnError {
    #[error("no workers: ports come by worker, and there are none")]
    NoWorkers,
    #[error("worker {worker} has {got} port(s), and worker 0 has {want}")]
    Ragged {
        worker: usize,
        got: usize,
        want: usize,
    },
    #[error("{engine} runs on one worker only, not on {workers}: its packets are not handed over")]
    EngineWorkers {
        engine: &'static str,
        workers: usize,
    },
    #[error(
        "port {port} has a clock of its own, and only one worker can keep its order, not {workers}"
    )]
    VirtualTime { port: String, workers: usize },
    #[error("{cores} core(s) are named for {workers} worker(s)")]
    Cores { cores: usize, workers: usize },
    #[error("core {core} is not this process's to run on; its cores are {allowed}")]
    NotAllowed { core: usize, allowed: Cores },
    #[error("the cores of this process are not known: {0}")]
    Affinity(io::Error),
    #[error("worker {worker}: {what}: {source}")]
    Os {
        worker: usize,
        what: String,
        source: io::Error,
    },
    #[error("worker {worker}: {source}")]
    Target { worker: usize, source: TargetError },
    #[error("worker {worker} panicked before it ran")]
    Panicked { worker: usize },
}

/// Starts worker threads over ports of one kind.
#[derive(Debug)]
pub struct Runtime<P>(std::marker::PhantomData<P>);

impl<P: Port + 'static> Runtime<P> {
    /// Starts a worker for each of `ports`: worker `w` owns `ports[w]`, a queue of every port, and
    /// port n of the verdicts is `ports[w][n]`. Until an image is installed every frame is dropped
    /// (`IF_IN_DISCARDS`).
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn spawn(ports: Vec<Vec<P>>, options: &Options) -> Result<RuntimeHandle<P>, SpawnError> {
        Self::spawn_all(ports, options, None)
    }

    /// The same for one worker whose flow table another processor reads too.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn spawn_shared(
        ports: Vec<P>,
        options: &Options,
        flows: SharedFlows,
    ) -> Result<RuntimeHandle<P>, SpawnError> {
        Self::spawn_all(vec![ports], options, Some(flows))
    }

    /// `flows` is of the first worker.
    fn spawn_all(
        ports: Vec<Vec<P>>,
        options: &Options,
        mut flows: Option<SharedFlows>,
    ) -> Result<RuntimeHandle<P>, SpawnError> {
        let workers = ports.len();
        let first = check_ports(&ports)?;
        options.check(workers)?;
        let capacity = share(&options.capacity, workers);
        let publisher = Publisher::new(Generation::empty(&capacity));
        let macs = first.iter().map(Port::mac).collect();
        // Every frame may be on its way to who needs one.
        let frames = workers * (pool_size(first.len(), workers) + RING);
        let spare = Arc::new(ArrayQueue::new(frames));
        let started = options.zero.unwrap_or_else(Instant::now);
        let (ready, readies) = channel();
        let secret = Secret::random();
        let entries = Table::Fragments.def(&capacity).max_entries;
        let fragments = Arc::new(Fragments::new(entries));
        let crossings = Crossing::between(workers);
        let mut hands = Vec::with_capacity(workers);
        for (worker, (ports, crossing)) in ports.into_iter().zip(crossings).enumerate() {
            let rings = Arc::new(Rings::new(Arc::clone(&spare)));
            let birth = Birth {
                worker,
                core: options.cores.as_ref().map(|cores| cores.as_slice()[worker]),
                engine: options.engine,
                capacity: capacity.clone(),
                prefault: options.prefault,
                // A thread each: there are fewer than `u32` counts.
                owners: (workers > 1).then(|| Owners::new(workers as u32, worker as u32, secret)),
                fragments: Arc::clone(&fragments),
                crossing,
                rings: Arc::clone(&rings),
                flows: flows.take(),
                subscription: publisher.subscribe(),
                started,
                ready: ready.clone(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("dash-worker-{worker}"))
                .spawn(move || birth.live(ports))
                .map_err(|source| SpawnError::Os {
                    worker,
                    what: "starting its thread".to_owned(),
                    source,
                })?;
            hands.push(Hand { rings, thread });
        }
        drop(ready);
        // Dropped on an error: then it stops those that run.
        let handle = RuntimeHandle::new(
            options.engine,
            publisher,
            hands,
            macs,
            capacity,
            options.watchdog,
        );
        let mut up = vec![false; workers];
        for (worker, born) in readies {
            born?;
            up[worker] = true;
        }
        match up.iter().position(|up| !up) {
            Some(worker) => Err(SpawnError::Panicked { worker }),
            None => Ok(handle),
        }
    }
}

/// Every worker has a queue of every port, and the ports let several workers be.
fn check_ports<P: Port>(ports: &[Vec<P>]) -> Result<&[P], SpawnError> {
    let workers = ports.len();
    let first = ports.first().ok_or(SpawnError::NoWorkers)?;
    let want = first.len();
    if let Some(worker) = ports.iter().position(|ports| ports.len() != want) {
        let got = ports[worker].len();
        return Err(SpawnError::Ragged { worker, got, want });
    }
    match first.iter().find(|port| port.virtual_time()) {
        Some(port) if workers > 1 => Err(SpawnError::VirtualTime {
            port: port.name().to_owned(),
            workers,
        }),
        _ => Ok(first),
    }
}

/// Capacity of one of `workers` workers.
fn share(capacity: &Capacity, workers: usize) -> Capacity {
    // A thread each: there are fewer than `u32` counts.
    let flows = capacity.flows.div_ceil(workers as u32);
    Capacity {
        flows,
        ..capacity.clone()
    }
}

/// What a worker is made from, on its own thread.
struct Birth {
    worker: usize,
    core: Option<usize>,
    engine: Engine,
    capacity: Capacity,
    prefault: bool,
    owners: Option<Owners>,
    fragments: Arc<Fragments>,
    crossing: Crossing,
    rings: Arc<Rings>,
    flows: Option<SharedFlows>,
    subscription: Subscription,
    started: Instant,
    ready: Sender<(usize, Result<(), SpawnError>)>,
}

impl Birth {
    /// Makes the worker, says how that went, and runs it. `None` when it was not made.
    fn live<P: Port>(mut self, mut ports: Vec<P>) -> Option<Vec<P>> {
        let made = self.make(&mut ports);
        let Self {
            worker,
            crossing,
            rings,
            subscription,
            started,
            ready,
            ..
        } = self;
        let (told, core) = match made {
            Ok(core) => (ready.send((worker, Ok(()))), core),
            Err(error) => {
                // Who started us waits for all.
                let _ = ready.send((worker, Err(error)));
                return None;
            }
        };
        // Who started us has given up.
        told.ok()?;
        // All senders must be gone before it goes on.
        drop(ready);
        let reader = subscription.reader();
        Some(Worker::new(ports, core, rings, crossing, started).run(&reader))
    }

    fn make<P: Port>(&mut self, ports: &mut [P]) -> Result<Datapath, SpawnError> {
        let worker = self.worker;
        if let Some(core) = self.core {
            affinity::pin(core).map_err(|source| SpawnError::Os {
                worker,
                what: format!("pinning it to core {core}"),
                source,
            })?;
        }
        // Workers are few.
        let datapath = match self.flows.take() {
            Some(flows) => Datapath::shared(self.engine, &self.capacity, worker as u32, flows),
            None => Datapath::new(self.engine, &self.capacity, worker as u32),
        };
        let mut datapath = datapath.map_err(|source| SpawnError::Target { worker, source })?;
        if self.prefault {
            let taken = datapath.prefault();
            taken.map_err(|source| SpawnError::Target { worker, source })?;
        }
        if let Some(owners) = self.owners {
            datapath.share(owners, Arc::clone(&self.fragments));
        }
        for port in ports {
            port.start().map_err(|source| SpawnError::Os {
                worker,
                what: format!("starting port {}", port.name()),
                source,
            })?;
        }
        Ok(datapath)
    }
}

/// A packet the data plane leaves to control: ARP, or a next hop not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Punt {
    /// Port it came in on.
    pub port: u16,
    /// Clock at reception, ns.
    pub timestamp_ns: u64,
    /// The packet as the program left it.
    pub data: Vec<u8>,
}

/// What a runtime counts that has no SAI name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuntimeEvents {
    /// Packets for control that found its ring full.
    pub punts_dropped: u64,
    /// Packets a program failed on: bugs.
    pub aborted: u64,
    /// Failed receives and sends.
    pub port_errors: u64,
    /// Packets dropped because no code was installed (`IF_IN_DISCARDS`).
    pub not_run: u64,
    /// Packets dropped because the worker that has their flow had no room for them
    /// (`IF_IN_DISCARDS`).
    pub handoff_drops: u64,
}

/// What one worker did since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Packets received.
    pub packets: u64,
    /// Of these, handed to the workers that have their flows.
    pub handed: u64,
    /// Of these, dropped because such a worker had no room.
    pub handoff_drops: u64,
    /// Packets run for other workers.
    pub taken: u64,
    /// Rounds that received or sent something.
    pub busy_rounds: u64,
    /// Rounds that found nothing to do.
    pub idle_rounds: u64,
    /// How long flows that are due have waited to be taken away, ns; 0 when none waits.
    pub ageing_late_ns: u64,
}
