//! `dashctl bench engines`.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use dash_engine::{Engine, Options as EngineOptions};
use dash_pipeline::model::Model;
use dash_runtime::Core;
use nic_linux::KernelEngine;
use nic_target::{Capacity, Frame, PacketEngine, Verdict};

use super::Bench;
use crate::machine::thread_cpu_ns;
use crate::result::Group;
use crate::traffic::Template;
use crate::world::{self, Way};

const NATIVE: &str = "native";

/// An engine with the demo configuration without its ACLs, and a frame to run packets in.
struct Runner {
    name: &'static str,
    engine: Engine<dyn PacketEngine>,
    frame: Frame,
    /// Packets of a sample: fewer on slow engines.
    packets: u32,
    /// The next flow nobody has seen.
    fresh: u32,
}

/// Tables that the kernel, which allocates them whole, holds too.
fn capacity() -> Capacity {
    Capacity {
        enis: 32,
        routes: 65_536,
        mappings: 4_096,
        inbound_rules: 16_384,
        trusted_vnis: 4_096,
        acl_groups: 256,
        underlay_routes: 4_096,
        flows: 2_048,
    }
}

impl Runner {
    fn start(name: &'static str, bench: &Bench<'_>) -> Result<Self> {
        let capacity = capacity();
        let core = |engine| -> Result<Box<dyn PacketEngine>> {
            Ok(Box::new(Core::new(engine, &capacity)?))
        };
        let target: Box<dyn PacketEngine> = match name {
            NATIVE => core(dash_runtime::Engine::Native)?,
            "interp" => core(dash_runtime::Engine::Interp)?,
            "rbpf" => core(dash_runtime::Engine::Rbpf)?,
            "model" => Box::new(Model::new(&capacity)),
            "kernel" => match KernelEngine::unavailable() {
                Some(why) => bail!(why),
                None => Box::new(KernelEngine::new(&capacity, dash_runtime::Engine::Native)?),
            },
            other => bail!("there is no engine {other}"),
        };
        let options = EngineOptions {
            capacity,
            cache_dir: bench.options.cache_dir.clone(),
            // The kernel leaves first packets to a core of native code.
            native: name == NATIVE || name == "kernel",
            ..EngineOptions::default()
        };
        let mut engine = Engine::new(options, target)?;
        engine.commit(world::without_acl()?)?;
        let (quick, full) = match name {
            NATIVE => (100, 20_000),
            _ => (20, 400),
        };
        Ok(Self {
            name,
            engine,
            frame: Frame::new(),
            packets: bench.options.scale(quick, full),
            fresh: 0,
        })
    }

    fn forward(&mut self, packet: &[u8], now_ns: u64) -> Result<()> {
        ensure!(self.frame.fill(packet), "the packet is too long");
        self.frame.port = 0;
        self.frame.timestamp_ns = now_ns;
        match self.engine.target_mut().run(&mut self.frame)? {
            Verdict::Send(_) => Ok(()),
            other => bail!("{}: a packet was not sent: {other:?}", self.name),
        }
    }

    /// CPU ns a packet: established ones of one flow, then first ones of fresh flows.
    fn sample(&mut self, way: Way, template: &Template, epoch: Instant) -> Result<(f64, f64)> {
        let now = || epoch.elapsed().as_nanos() as u64;
        let packet = template.packet(0);
        self.forward(&packet, now())?;
        ensure!(
            template.expect().holds(self.frame.data()),
            "{}: {} comes out wrong",
            self.name,
            way.name()
        );
        let start = thread_cpu_ns();
        let at = now();
        for _ in 0..self.packets {
            self.forward(&packet, at)?;
        }
        let established = (thread_cpu_ns() - start) as f64 / f64::from(self.packets);

        // Few enough that the small flow tables here never fill: they age meanwhile.
        let fresh = self.packets.min(50);
        let packets: Vec<_> = (0..fresh)
            .map(|n| template.packet(1 + self.fresh + n))
            .collect();
        self.fresh += fresh;
        let at = now();
        let start = thread_cpu_ns();
        for packet in &packets {
            self.forward(packet, at)?;
        }
        let first = (thread_cpu_ns() - start) as f64 / f64::from(fresh);
        Ok((established, first))
    }
}

pub(super) fn run(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let mut runners = Vec::new();
    for name in [NATIVE, "interp", "rbpf", "model", "kernel"] {
        (bench.progress)(&format!("engines: starting {name}"));
        match Runner::start(name, bench) {
            Ok(runner) => runners.push(runner),
            // Not on this machine, or not for this user: the rest is measured all the same.
            Err(why) => group.skipped.push(format!("{name}: {why:#}")),
        }
    }
    let epoch = Instant::now();
    let ways = [Way::Vnet, Way::Inbound];
    let templates: Vec<_> = ways
        .into_iter()
        .map(|way| Ok((way, way.template(64)?)))
        .collect::<Result<_>>()?;
    for n in 0..bench.options.samples() {
        for (way, template) in &templates {
            for runner in &mut runners {
                (bench.progress)(&format!("engines: sample {}, {}", n + 1, runner.name));
                let (established, first) = runner
                    .sample(*way, template, epoch)
                    .with_context(|| runner.name.to_owned())?;
                for (what, ns) in [("established", established), ("first of a flow", first)] {
                    let name = format!("{}, {what}: {}", way.name(), runner.name);
                    group.sample(&name, "ns/packet", ns);
                }
            }
        }
    }
    for (way, _) in &templates {
        for what in ["established", "first of a flow"] {
            let of = |name: &str| format!("{}, {what}: {name}", way.name());
            let native = group.median(&of(NATIVE), "ns/packet");
            for runner in runners.iter().filter(|r| r.name != NATIVE) {
                let ratio = group.median(&of(runner.name), "ns/packet") / native;
                if ratio.is_finite() {
                    let row = group.sample(&format!("{} / {NATIVE}", of(runner.name)), "x", ratio);
                    if runner.name == "kernel" {
                        row.note("a system call and a copy each way for every packet are in it");
                    }
                }
            }
        }
    }
    Ok(())
}
