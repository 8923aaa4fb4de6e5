//! Flows decided again, a million of them: how long a worker's bursts take while every packet meets
//! policy, beside the same bursts before and after. `resimulate [FLOWS]`.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dash_bench::world;
use dash_engine::{Engine, Filter, FlowSelection, Options};
use dash_pipeline::plan::Resimulation;
use dash_runtime::datapath::{BURST, Fate};
use dash_runtime::{Core, Engine as Executor};
use nic_target::{Capacity, Frame, Verdict};

const FLOWS: u32 = 1 << 20;

struct Bursts {
    engine: Engine<Core>,
    frames: Vec<Frame>,
    fates: Vec<Fate>,
    flows: u32,
    now_ns: u64,
}

impl Bursts {
    /// A packet of every flow, in bursts, by a name; gives how long the bursts took.
    fn round(&mut self, name: &str) -> Result<()> {
        let mut times = Vec::with_capacity(self.flows as usize / BURST);
        for first in (0..self.flows).step_by(BURST) {
            for (frame, n) in self.frames.iter_mut().zip(first..) {
                let fits = frame.fill(&world::outbound(n, world::SMALL));
                ensure!(fits, "a packet is longer than a frame");
            }
            self.fates.clear();
            self.now_ns += 1;
            let start = Instant::now();
            let core = self.engine.target_mut();
            core.run_burst(self.now_ns, &mut self.frames, &mut self.fates);
            times.push(start.elapsed());
            let sent = |fate: &Fate| matches!(fate, Fate::Done(Verdict::Send(_)));
            ensure!(self.fates.iter().all(sent), "a packet was not sent");
        }
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        let sum: Duration = times.iter().sum();
        println!(
            "  {name:<28} {:>7.0} ns a packet; a burst of {BURST}: median {:.1?}, 99.9 % {:.1?}, worst {:.1?}",
            sum.as_nanos() as f64 / f64::from(self.flows),
            at(0.5),
            at(0.999),
            at(1.0)
        );
        Ok(())
    }
}

fn main() -> Result<()> {
    let flows = match std::env::args().nth(1) {
        Some(n) => n.parse().context("FLOWS is a number")?,
        None => FLOWS,
    };
    let flows = u32::next_multiple_of(flows, BURST as u32);
    let capacity = Capacity {
        flows,
        ..Capacity::default()
    };
    let options = Options {
        native: true,
        ..world::options(capacity.clone(), Some(world::cache()?))
    };
    let mut core = Core::new(Executor::Native, &capacity)?;
    // Else the first flow of each page waits for the system.
    core.prefault()?;
    let mut engine = Engine::new(options, Box::new(core))?;
    world::configure(&mut engine, &world::rows(world::Rows::All)?)?;
    let eni = engine
        .store()
        .enis()
        .next()
        .map(|(eni, _)| eni.clone())
        .context("the configuration has no ENI")?;
    // The code that can do it is there from the first time on: not part of what is measured.
    engine.resimulate(&eni, &[], Resimulation::default())?;
    let mut bursts = Bursts {
        engine,
        frames: (0..BURST).map(|_| Frame::new()).collect(),
        fates: Vec::with_capacity(BURST),
        flows,
        now_ns: 1,
    };
    println!("{flows} flows of one ENI, one worker");
    bursts.round("made")?;
    bursts.round("known")?;

    let asked = Instant::now();
    bursts
        .engine
        .resimulate(&eni, &[], Resimulation::default())?;
    println!("  asked for all: {:.1?} of control", asked.elapsed());
    bursts.round("decided again")?;
    bursts.round("known")?;

    let filter = Filter::parse("ip_protocol", "equal_to", "17")?;
    let asked = Instant::now();
    bursts
        .engine
        .resimulate(&eni, &[filter], Resimulation::default())?;
    let sweep = asked.elapsed();
    println!(
        "  asked for by a filter: {sweep:.1?} of the worker, {:.1?} for each 512 flows between two rounds",
        sweep * 512 / flows
    );
    bursts.round("decided again")?;

    let asked = Instant::now();
    let deleted = bursts.engine.delete_flows(&FlowSelection::ALL)?;
    let sweep = asked.elapsed();
    println!(
        "  {deleted} deleted: {sweep:.1?} of the worker, {:.1?} for each 512 flows between two rounds",
        sweep * 512 / flows
    );
    Ok(())
}
