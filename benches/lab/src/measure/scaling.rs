//! `dashctl bench scaling`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use dash_runtime::runtime::WorkerStats;

use super::Bench;
use crate::lab::{Lab, Run, capacity};
use crate::machine::cores;
use crate::options::Options;
use crate::port::Job;
use crate::result::Group;
use crate::traffic::{Order, Template, Traffic};
use crate::world::{self, Way};

/// Goal of two workers beside one (P10).
const GOAL: f64 = 1.9;
/// Flows tried for each that is wanted, at most: owners are random, and this misses them never.
const TRIES: u32 = 64;
/// Packets of a job in which nothing is measured.
const NONE: u64 = 0;

/// Numbers of workers beside one: as many as were asked for, or powers of two up to all cores.
fn beside_one(options: &Options) -> Vec<usize> {
    if options.workers > 1 {
        return vec![options.workers];
    }
    let mut all: Vec<usize> = std::iter::successors(Some(2), |n| Some(n * 2))
        .take_while(|n| *n <= cores())
        .collect();
    if cores() > 1 && !cores().is_power_of_two() {
        all.push(cores());
    }
    all
}

/// Several workers, and the flows that each of them has.
struct Several {
    lab: Lab,
    /// By worker.
    own: Vec<Arc<Traffic>>,
}

impl Several {
    fn start(options: &Options, workers: usize, flows: u32) -> Result<Self> {
        let options = Options {
            workers,
            ..options.clone()
        };
        let mut lab = Lab::with(&options, capacity(1 << 16), world::txn(world::DEMO)?)?;
        let own = owned(&mut lab, flows as usize)?;
        let own = own.into_iter().map(|all| Arc::new(Traffic::spread(all)));
        Ok(Self {
            own: own.collect(),
            lab,
        })
    }

    /// Packets of flows that each worker has itself, or that the next worker has.
    fn run(&mut self, handed: bool, packets: u64, seed: u64) -> Result<Run> {
        let Self { lab, own } = self;
        lab.run(|worker| {
            let owner = (worker + usize::from(handed)) % own.len();
            Job::new(&own[owner], random(&own[owner], seed), packets)
        })
    }
}

fn random(traffic: &Traffic, seed: u64) -> Order {
    Order::Random {
        from: 0,
        flows: traffic.variants(),
        seed,
    }
}

/// What workers did, once everything that was handed over was also taken.
fn settled(lab: &mut Lab) -> Result<Vec<WorkerStats>> {
    let start = Instant::now();
    loop {
        let stats = lab.engine().target_mut().worker_stats();
        let sum = |of: fn(&WorkerStats) -> u64| stats.iter().map(of).sum::<u64>();
        if sum(|s| s.handed) == sum(|s| s.taken) {
            return Ok(stats);
        }
        if start.elapsed() > Duration::from_secs(30) {
            bail!("packets were handed over and never taken");
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// So many flows of each worker, as packets. Who has a flow is a secret of the runtime, drawn anew
/// each time: the first packet of each is sent to the first worker, and who takes it has it.
fn owned(lab: &mut Lab, wanted: usize) -> Result<Vec<Vec<Template>>> {
    let workers = lab.workers();
    let template = Way::Vnet.template(64)?;
    let mut own: Vec<Vec<Template>> = vec![Vec::with_capacity(wanted); workers];
    let mut before = settled(lab)?;
    for m in 0..wanted as u32 * workers as u32 * TRIES {
        if own.iter().all(|flows| flows.len() >= wanted) {
            return Ok(own);
        }
        let one = template.of_flow(m);
        let traffic = Arc::new(Traffic::of(one.clone()));
        let first = Order::Sequential { from: 0 };
        lab.forward("the first packet of a flow", |worker| {
            Job::new(&traffic, first, if worker == 0 { 1 } else { NONE })
        })?;
        let after = settled(lab)?;
        let took = |w: usize| after[w].taken > before[w].taken;
        let owner = (1..workers).find(|w| took(*w)).unwrap_or(0);
        if own[owner].len() < wanted {
            own[owner].push(one);
        }
        before = after;
    }
    bail!("a worker has none of the flows");
}

fn plural(workers: usize) -> String {
    format!("{workers} workers")
}

pub(super) fn run(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let options = bench.options;
    let flows = options.scale(16, 256);
    let packets = options.scale(3_200, 2_000_000);
    let one = Options {
        workers: 1,
        ..options.clone()
    };
    let mut single = Lab::with(&one, capacity(1 << 16), world::txn(world::DEMO)?)?;
    let template = Way::Vnet.template(64)?;
    let same = Arc::new(Traffic::spread(
        (0..flows).map(|m| template.of_flow(m)).collect(),
    ));
    let all = Order::Sequential { from: 0 };
    single.forward("first packets", |_| Job::new(&same, all, u64::from(flows)))?;
    let mut several = Vec::new();
    let beside = beside_one(options);
    if beside.is_empty() {
        group
            .skipped
            .push("several workers: this machine has one core".to_owned());
    }
    for workers in beside {
        if workers > cores() {
            let have = cores();
            group.skipped.push(format!(
                "{workers} workers beside one: {have} core(s), so they would take turns"
            ));
            continue;
        }
        (bench.progress)(&format!("scaling: flows of {workers} workers"));
        several.push(Several::start(options, workers, flows)?);
    }
    for n in 0..options.samples() {
        (bench.progress)(&format!("scaling: sample {}", n + 1));
        let seed = options.seed + n as u64;
        let alone = single.forward("1 worker", |_| {
            Job::new(&same, random(&same, seed), packets)
        })?;
        row(group, "1 worker", 1, "at their owner", &alone);
        for several in &mut several {
            let workers = several.lab.workers();
            let name = plural(workers);
            let own = several.run(false, packets, seed)?;
            own.check(&name)?;
            row(group, &name, workers, "at their owner", &own);
            let ratio = rate(&own) / rate(&alone);
            let times = group.sample(&format!("{name} / 1 worker"), "x", ratio);
            times.note("packets a second of all workers by the clock on the wall");

            let over = several.run(true, packets, seed)?;
            let wrong: u64 = over.workers.iter().map(|o| o.wrong).sum();
            ensure!(wrong == 0, "{name}: {wrong} wrong packets handed over");
            let name = format!("{name}, all handed over");
            row(group, &name, workers, "handed over", &over);
            let lost = group.sample(&format!("{name}, lost"), "packets", over.lost as f64);
            lost.note("found the ring to their owner full: sent as fast as they are taken");
            let ratio = rate(&over) / rate(&own);
            group.sample(&format!("{name} / at their owner"), "x", ratio);
        }
    }
    // The goal is of two, and grows with them.
    for several in &several {
        let workers = several.lab.workers();
        let name = format!("{} / 1 worker", plural(workers));
        let goal = GOAL / 2.0 * workers as f64;
        if let Some(row) = group.measurements.iter_mut().find(|m| m.name == name) {
            row.aim(format!("P10: >= {goal}"), goal, false);
        }
    }
    Ok(())
}

/// Packets that came out, a second, by the clock on the wall: of all workers, until the slowest was
/// through.
fn rate(run: &Run) -> f64 {
    let wall = run.workers.iter().map(|o| o.wall_ns).max().unwrap_or(0);
    run.packets().saturating_sub(run.lost) as f64 / (wall.max(1) as f64 / 1e9)
}

fn row(group: &mut Group, name: &str, workers: usize, series: &str, run: &Run) {
    let row = group.sample(name, "Mpps", rate(run) / 1e6);
    row.at(series, workers as f64);
    group.sample(name, "ns/packet", run.ns_per_packet());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flows found are where they were found: nothing is handed over, or everything.
    #[test]
    fn owners_are_found() {
        let options = Options {
            workers: 2,
            ..Options::default()
        };
        let mut several = match Several::start(&options, 2, 8) {
            Ok(several) => several,
            Err(why) => {
                eprintln!("SKIP: two workers do not run here: {why:#}");
                return;
            }
        };
        for (handed, want) in [(false, 0), (true, 200)] {
            let sum = |lab: &mut Lab| -> u64 {
                let stats = settled(lab).expect("everything is taken");
                stats.iter().map(|s| s.handed).sum()
            };
            let before = sum(&mut several.lab);
            let run = several.run(handed, 100, 1).expect("it runs");
            run.check("two workers").expect("nothing is lost");
            assert_eq!(sum(&mut several.lab) - before, want);
        }
    }
}
