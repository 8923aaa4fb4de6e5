//! Traffic of a generator beside this machine, through the ports of a target.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dash_engine::{Engine, Options as EngineOptions};
use dash_model::Txn;
use dash_runtime::runtime::Options as RuntimeOptions;
use dash_runtime::{Runtime, RuntimeHandle};
use dash_wire::stats::{EniStat, PortStat};
use nic_target::{Capacity, Device, Frame, FramePool, Port, Rx, Target as _, Tx};
use nic_targets::{AnyPort, TargetSpec};

use crate::against::cpu;
use crate::machine;
use crate::measure::Bench;
use crate::options::Options;
use crate::result::Group;

/// How often it is looked whether the ports have ended.
const LOOK: Duration = Duration::from_millis(1);

/// What a worker's ports tell, and wait for.
#[derive(Debug, Default)]
struct Door {
    /// Packets are let in: the configuration is there.
    open: AtomicBool,
    /// The worker's thread as the kernel numbers it; 0 while not known.
    thread: AtomicU32,
}

/// A port behind a door.
#[derive(Debug)]
struct Behind {
    port: AnyPort,
    door: Arc<Door>,
}

impl Port for Behind {
    fn name(&self) -> &str {
        self.port.name()
    }
    fn mac(&self) -> [u8; 6] {
        self.port.mac()
    }
    fn rx(
        &mut self,
        index: u16,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx> {
        if !self.door.open.load(Ordering::Relaxed) {
            return Ok(Rx::Received(0));
        }
        self.port.rx(index, pool, burst, max)
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        self.port.tx(pool, frames)
    }
    fn start(&mut self) -> io::Result<()> {
        // `PID/task/TID`. Where it cannot be read there is no row of CPU time.
        let thread = std::fs::read_link("/proc/thread-self").ok();
        let thread = thread.and_then(|t| t.file_name()?.to_str()?.parse().ok());
        let thread = thread.unwrap_or(0);
        self.door.thread.store(thread, Ordering::Relaxed);
        self.port.start()
    }
    fn idle(&mut self) {
        if self.door.open.load(Ordering::Relaxed) {
            self.port.idle();
        } else {
            // Others may be measured meanwhile.
            std::thread::sleep(LOOK);
        }
    }
    fn virtual_time(&self) -> bool {
        self.port.virtual_time()
    }
}

/// Everything that counts, at one time.
pub(crate) struct Reading {
    at: Instant,
    received: u64,
    octets: u64,
    sent: u64,
    handed: u64,
    /// Found no room: at ports, or on the way between workers.
    overrun: u64,
    /// Flows made, of all ENIs.
    pub(crate) flows_made: u64,
    /// Of all workers, ns; `None` when the system does not tell.
    pub(crate) cpu_ns: Option<u64>,
    /// What devices of DPDK count themselves, all together.
    pub(crate) at_devices: AtDevices,
    /// Counters of devices that are of losses.
    losses: BTreeMap<String, u64>,
}

/// Packets as devices count them; 0 where they do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AtDevices {
    /// Packets received.
    pub(crate) received: u64,
    /// Packets sent.
    pub(crate) sent: u64,
    /// Their bytes.
    pub(crate) sent_octets: u64,
}

impl AtDevices {
    fn add(&mut self, counter: &str, value: u64) {
        match counter {
            "rx_good_packets" => self.received += value,
            "tx_good_packets" => self.sent += value,
            "tx_good_bytes" => self.sent_octets += value,
            _ => {}
        }
    }
}

/// A data plane on a target's ports, behind a door that is shut at first.
pub(crate) struct Running {
    // Before the devices: their queues are to close first.
    engine: Engine<RuntimeHandle<Behind>>,
    devices: Vec<Box<dyn Device>>,
    doors: Vec<Arc<Door>>,
}

impl Running {
    /// Opens the ports and loads a configuration.
    ///
    /// # Errors
    /// The target does not open, or the configuration is refused.
    pub(crate) fn start(
        spec: &TargetSpec,
        txns: Vec<Txn>,
        capacity: Capacity,
        options: &Options,
    ) -> Result<Self> {
        ensure!(
            !matches!(spec, TargetSpec::Kernel { .. }),
            "{spec}: packets that the kernel runs by itself come to no worker, and are not counted here"
        );
        let mut runtime = RuntimeOptions::new(dash_runtime::Engine::Native, capacity.clone());
        runtime.cores = machine::worker_cores(options.workers);
        runtime.prefault = true;
        runtime.check(options.workers)?;
        let opened = nic_targets::open(spec, options.workers, &capacity)
            .with_context(|| format!("--target {spec}"))?;
        let doors: Vec<Arc<Door>> = opened.ports.iter().map(|_| Arc::default()).collect();
        let behind = |(ports, door): (Vec<AnyPort>, &Arc<Door>)| {
            let port = |port| Behind {
                port,
                door: Arc::clone(door),
            };
            ports.into_iter().map(port).collect()
        };
        let ports: Vec<Vec<Behind>> = opened.ports.into_iter().zip(&doors).map(behind).collect();
        let handle = Runtime::spawn(ports, &runtime).context("starting workers")?;
        let settings = EngineOptions {
            capacity: handle.capacity().clone(),
            cache_dir: options.cache_dir.clone(),
            native: true,
            ..EngineOptions::default()
        };
        let mut engine =
            Engine::new(settings, Box::new(handle)).context("the empty configuration")?;
        for txn in txns {
            engine.commit(txn).context("the configuration")?;
        }
        Ok(Self {
            engine,
            devices: opened.devices,
            doors,
        })
    }

    /// Lets packets in, or not.
    pub(crate) fn open(&self, open: bool) {
        for door in &self.doors {
            door.open.store(open, Ordering::Relaxed);
        }
    }

    /// Everything that counts, now.
    pub(crate) fn read(&mut self) -> Result<Reading> {
        let target = self.engine.target_mut();
        let workers = target.worker_stats();
        let counters = target.counters()?;
        let port = |stat: PortStat| counters.port.get(stat as usize).copied().unwrap_or(0);
        let pid = std::process::id();
        let cpu = self.doors.iter().map(|door| {
            let thread = door.thread.load(Ordering::Relaxed);
            cpu::of(pid, thread).ok().filter(|_| thread != 0)
        });
        let cpu_ns = cpu.sum();
        let eni = counters.eni.values();
        let flows_made = eni.filter_map(|block| block.get(EniStat::FlowCreated as usize));
        let flows_made = flows_made.sum();
        let (mut losses, mut at_devices) = (BTreeMap::new(), AtDevices::default());
        for device in &mut self.devices {
            let name = device.name().to_owned();
            // A device that is gone has no counters any more.
            for (counter, value) in device.xstats().unwrap_or_default() {
                at_devices.add(&counter, value);
                let of_loss = ["miss", "drop", "error", "nombuf", "full"];
                let lower = counter.to_ascii_lowercase();
                if of_loss.iter().any(|part| lower.contains(part)) {
                    losses.insert(format!("{name}: {counter}"), value);
                }
            }
        }
        Ok(Reading {
            at: Instant::now(),
            received: port(PortStat::IfInUcastPkts),
            octets: port(PortStat::IfInOctets),
            sent: port(PortStat::IfOutUcastPkts),
            handed: workers.iter().map(|w| w.handed).sum(),
            overrun: port(PortStat::IfOutDiscards)
                + workers.iter().map(|w| w.handoff_drops).sum::<u64>(),
            flows_made,
            cpu_ns,
            at_devices,
            losses,
        })
    }

    /// Waits; true when the ports have ended.
    fn wait(&mut self, until: Instant) -> bool {
        loop {
            let target = self.engine.target_mut();
            // Nobody answers ARP here; what is for control must not fill its ring.
            while target.punted().is_some() {}
            if target.finished() {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

/// Opens a target and counts what comes through it, for the time asked for in as many parts as there
/// are samples. The configuration is of files, or the baby hero test's.
///
/// # Errors
/// The target does not open, a file is wrong, or the data plane is gone. That nothing comes is no
/// error: it is said in [`Group::skipped`].
pub fn target(spec: &TargetSpec, files: &[PathBuf], bench: &Bench<'_>) -> Result<Group> {
    let options = bench.options;
    let what = format!("--target '{spec}'");
    let mut group = Group {
        name: "target".to_owned(),
        about: format!(
            "Traffic of another machine or program through {spec}: what came in, what went out, what was \
             lost, and CPU time of the workers a packet. A worker that waits polls, and that is in its \
             time too: read it near the highest rate."
        ),
        command: super::command(options, &what, files),
        ..Group::default()
    };
    (bench.progress)("target: configuration");
    // Before a device is touched.
    let (txns, capacity) = super::configuration(files, options)?;
    let mut running = Running::start(spec, txns, capacity, options)?;
    let samples = options.samples();
    let part = Duration::from_secs_f64(options.seconds(0.3, 10.0) / samples as f64);
    let mut before = running.read()?;
    running.open(true);
    for n in 0..samples {
        (bench.progress)(&format!("target: part {} of {samples}", n + 1));
        let ended = running.wait(before.at + part);
        let now = running.read()?;
        rows(&mut group, &before, &now);
        before = now;
        if ended {
            break;
        }
    }
    let zero = |row: &crate::result::Measurement| row.samples.iter().all(|s| *s == 0.0);
    if group.measurements.iter().all(zero) {
        let why = format!("everything: no packet came through {spec}");
        group.skipped.push(why);
        group.measurements.clear();
    }
    Ok(group)
}

fn rows(group: &mut Group, before: &Reading, now: &Reading) {
    let seconds = (now.at - before.at).as_secs_f64().max(1e-9);
    let since = |of: fn(&Reading) -> u64| of(now).saturating_sub(of(before)) as f64;
    let received = since(|r| r.received);
    let sent = since(|r| r.sent);
    group.sample("received", "packets", received);
    group.sample("received", "Mpps", received / seconds / 1e6);
    let gbit = since(|r| r.octets) * 8.0 / seconds / 1e9;
    let row = group.sample("received", "Gbit/s", gbit);
    row.note("without preamble and FCS");
    group.sample("sent", "packets", sent);
    group.sample("sent", "Mpps", sent / seconds / 1e6);
    let rest = (received - sent).max(0.0);
    let row = group.sample("received and not sent", "packets", rest);
    row.note("by the policy, for want of room, or still on its way when the part ended");
    let overrun = since(|r| r.overrun);
    group.sample("no room to send or to hand over", "packets", overrun);
    group.sample("handed to another worker", "packets", since(|r| r.handed));
    if let (Some(a), Some(b)) = (before.cpu_ns, now.cpu_ns)
        && received > 0.0
    {
        let ns = b.saturating_sub(a) as f64 / received;
        group.sample("CPU time of all workers", "ns/packet", ns);
    }
    for (name, value) in &now.losses {
        let lost = value.saturating_sub(before.losses.get(name).copied().unwrap_or(0));
        if lost > 0 {
            group.sample(name, "packets", lost as f64);
        }
    }
}
