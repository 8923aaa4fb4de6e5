//! A running data plane under test: the engine, the real worker loop, and ports that make the traffic.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use dash_engine::{Engine, Options as EngineOptions};
use dash_model::{StoreOptions, Txn};
use dash_runtime::runtime::Options as RuntimeOptions;
use dash_runtime::{Runtime, RuntimeHandle};
use nic_target::Capacity;

use crate::machine;
use crate::options::Options;
use crate::port::{Controls, Job, LabPort, Outcome};

/// Longest that a job may go without an end before the run is given up.
const PATIENCE: Duration = Duration::from_secs(600);

/// A data plane under test.
pub struct Lab {
    engine: Engine<RuntimeHandle<LabPort>>,
    controls: Controls,
}

/// What came of a job on every worker.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// By worker.
    pub workers: Vec<Outcome>,
    /// Packets that should have come out and did not.
    pub lost: u64,
}

impl Run {
    /// Packets handed to all workers.
    pub fn packets(&self) -> u64 {
        self.workers.iter().map(Outcome::packets).sum()
    }

    /// Packets of a stream, of all workers.
    pub fn sent(&self, stream: usize) -> u64 {
        let sent = |o: &Outcome| o.sent.get(stream).copied().unwrap_or(0);
        self.workers.iter().map(sent).sum()
    }

    /// CPU time of a packet, ns.
    pub fn ns_per_packet(&self) -> f64 {
        let cpu: u64 = self.workers.iter().map(|o| o.cpu_ns).sum();
        cpu as f64 / self.packets().max(1) as f64
    }

    /// CPU time of all workers, ns.
    pub fn cpu_ns(&self) -> u64 {
        self.workers.iter().map(|o| o.cpu_ns).sum()
    }

    /// Bytes handed to the workers.
    pub fn octets(&self) -> u64 {
        self.workers.iter().map(|o| o.octets).sum()
    }

    /// Packets that came out.
    pub fn out(&self) -> u64 {
        self.workers.iter().map(|o| o.out).sum()
    }

    /// Packets a second by the wall clock: what all workers did in the time of the slowest.
    pub fn rate(&self) -> f64 {
        let wall = self.workers.iter().map(|o| o.wall_ns).max().unwrap_or(0);
        self.packets() as f64 / (wall.max(1) as f64 / 1e9)
    }

    /// Says what is not as it must be: lost packets, wrong ones, buffers that did not come back.
    ///
    /// # Errors
    /// Any of these.
    pub fn check(&self, what: &str) -> Result<()> {
        let wrong: u64 = self.workers.iter().map(|o| o.wrong).sum();
        if wrong > 0 {
            bail!("{what}: {wrong} of the packets looked at are not what must come out");
        }
        if self.lost > 0 {
            bail!("{what}: {} of {} packets lost", self.lost, self.packets());
        }
        // Of several workers each is looked at when it has ended, and what they hand each other changes
        // pools: their sum is of no one time.
        if let [one] = &self.workers[..]
            && one.buffers_missing > 0
        {
            bail!("{what}: {} buffers did not come back", one.buffers_missing);
        }
        Ok(())
    }
}

/// What a data plane holds in measurements: the default but for flows.
pub fn capacity(flows: u32) -> Capacity {
    Capacity {
        flows,
        ..Capacity::default()
    }
}

impl Lab {
    /// Starts workers with the empty configuration.
    ///
    /// # Errors
    /// There is no native code for this machine, or no thread.
    pub fn start(options: &Options, capacity: Capacity) -> Result<Self> {
        let (ports, controls) = LabPort::group(options.workers);
        // A port of one queue a worker.
        let ports = ports.into_iter().map(|port| vec![port]).collect();
        let mut runtime = RuntimeOptions::new(dash_runtime::Engine::Native, capacity);
        runtime.cores = machine::worker_cores(options.workers);
        // As who cares how long packets take starts `dashd`: flows do not wait for pages.
        runtime.prefault = true;
        // Another's work on the same core is no fault of the worker.
        runtime.watchdog = Duration::from_secs(30);
        let handle = Runtime::spawn(ports, &runtime).context("starting workers")?;
        let capacity = handle.capacity().clone();
        let engine = EngineOptions {
            capacity,
            cache_dir: options.cache_dir.clone(),
            native: true,
            // Measurements change what is bound, as operators of a fleet do.
            store: StoreOptions {
                update_bound_groups: true,
                ..StoreOptions::default()
            },
            ..EngineOptions::default()
        };
        Ok(Self {
            engine: Engine::new(engine, Box::new(handle)).context("the empty configuration")?,
            controls,
        })
    }

    /// Starts workers with a configuration.
    ///
    /// # Errors
    /// As [`start`](Self::start), or it is refused.
    pub fn with(options: &Options, capacity: Capacity, txn: Txn) -> Result<Self> {
        let mut lab = Self::start(options, capacity)?;
        lab.engine.commit(txn).context("the configuration")?;
        Ok(lab)
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut Engine<RuntimeHandle<LabPort>> {
        &mut self.engine
    }

    /// Workers.
    pub fn workers(&self) -> usize {
        self.controls.ports()
    }

    /// Gives every worker a job, made by its number, and returns at once.
    ///
    /// # Errors
    /// The last ones have not ended.
    pub fn begin(&mut self, job: impl FnMut(usize) -> Job) -> Result<()> {
        self.controls.begin((0..self.workers()).map(job).collect())
    }

    /// Waits for the jobs.
    ///
    /// # Errors
    /// One does not end.
    pub fn finish(&mut self) -> Result<Run> {
        let mut run = Run::default();
        let start = std::time::Instant::now();
        for port in 0..self.workers() {
            run.workers.push(loop {
                if let Some(outcome) = self.controls.outcome(port) {
                    break outcome;
                }
                if start.elapsed() > PATIENCE {
                    bail!("worker {port} does not end its job");
                }
                std::thread::sleep(Duration::from_micros(200));
            });
        }
        run.lost = self.controls.lost();
        Ok(run)
    }

    /// Runs one job a worker.
    ///
    /// # Errors
    /// As [`begin`](Self::begin) and [`finish`](Self::finish).
    pub fn run(&mut self, job: impl FnMut(usize) -> Job) -> Result<Run> {
        self.begin(job)?;
        self.finish()
    }

    /// Runs a job of which every packet must come out, and as it must.
    ///
    /// # Errors
    /// Something was lost or wrong.
    pub fn forward(&mut self, what: &str, job: impl FnMut(usize) -> Job) -> Result<Run> {
        let run = self.run(job)?;
        run.check(what)?;
        Ok(run)
    }

    /// Sum of a counter over all ENIs.
    ///
    /// # Errors
    /// The data plane does not answer.
    pub fn eni_counter(&mut self, stat: dash_wire::stats::EniStat) -> Result<u64> {
        use nic_target::Target as _;
        let counters = self.engine.target_mut().counters()?;
        let blocks = counters.eni.values();
        Ok(blocks.filter_map(|block| block.get(stat as usize)).sum())
    }
}
