//! `dashctl bench packets`.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use dash_model::Txn;

use super::Bench;
use crate::lab::{Lab, capacity};
use crate::port::{Job, floor};
use crate::result::Group;
use crate::traffic::{Order, Traffic};
use crate::world::{self, Way};

/// Inner frame sizes, FCS counted.
const SIZES: [usize; 8] = [64, 128, 256, 512, 1024, 1500, 4096, 9000];
/// Those that routing types beside the demo's are measured with.
const FEW_SIZES: [usize; 3] = [64, 512, 1500];
/// Flows that established packets are of.
const FLOWS: u32 = 256;

/// Simple IMIX: 7 frames of 64 bytes, 4 of 594 and 1 of 1518 in every 12.
fn imix(way: Way) -> Result<Traffic> {
    let sizes = [64, 594, 64, 64, 594, 64, 1518, 64, 594, 64, 594, 64];
    let templates = sizes.into_iter().map(|size| way.template(size));
    Ok(Traffic::mix(templates.collect::<Result<_>>()?))
}

/// Traffic that a row measures.
struct Case {
    way: Way,
    name: String,
    size: Option<usize>,
    traffic: Arc<Traffic>,
}

fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for way in Way::FORWARDED {
        for size in SIZES {
            cases.push(Case {
                way,
                name: format!("{}, {size} B", way.name()),
                size: Some(size),
                traffic: Arc::new(Traffic::of(way.template(size)?)),
            });
        }
        cases.push(Case {
            way,
            name: format!("{}, IMIX", way.name()),
            size: None,
            traffic: Arc::new(imix(way)?),
        });
    }
    for way in [Way::Deny, Way::DropRoute] {
        cases.push(Case {
            way,
            name: format!("{}, 64 B", way.name()),
            size: Some(64),
            traffic: Arc::new(Traffic::of(way.template(64)?)),
        });
    }
    Ok(cases)
}

/// Cases of the other routing types. Code for them makes every packet's longer, so one that needs none
/// of it is among them.
fn routing_types() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for way in Way::ROUTING_TYPES {
        for size in FEW_SIZES {
            let name = match way {
                Way::Vnet => "outbound vnet beside all routing types",
                way => way.name(),
            };
            cases.push(Case {
                way,
                name: format!("{name}, {size} B"),
                size: Some(size),
                traffic: Arc::new(Traffic::of(way.template(size)?)),
            });
        }
    }
    Ok(cases)
}

pub(super) fn run(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    measure(bench, group, world::txn(world::DEMO)?, &cases()?, true)?;
    let all = world::routing_types()?;
    measure(bench, group, all, &routing_types()?, false)
}

/// Measures the cases by turns. `curves`: those with a size are in the plot.
fn measure(
    bench: &Bench<'_>,
    group: &mut Group,
    config: Txn,
    cases: &[Case],
    curves: bool,
) -> Result<()> {
    let options = bench.options;
    let flows = options.scale(1 << 16, 1 << 20);
    let mut lab = Lab::with(options, capacity(flows), config)?;
    let packets = options.scale(320, 64_000);
    let fresh = options.scale(64, 4_000);
    let order = |seed| Order::Random {
        from: 0,
        flows: FLOWS,
        seed,
    };
    // The flows of each case are there before anything is measured.
    for case in cases.iter().filter(|case| case.traffic.forwards()) {
        let all = Order::Sequential { from: 0 };
        lab.forward(&case.name, |_| {
            Job::new(&case.traffic, all, u64::from(FLOWS))
        })?;
    }
    let mut next_flow = FLOWS;
    for n in 0..options.samples() {
        for case in cases {
            (bench.progress)(&format!("packets: sample {}, {}", n + 1, case.name));
            let job = |worker: usize| {
                let seed = options.seed + (n * options.workers + worker) as u64;
                Job::new(&case.traffic, order(seed), packets)
            };
            let run = lab.run(job)?;
            if case.traffic.forwards() {
                run.check(&case.name)?;
            } else {
                ensure!(run.out() == 0, "{}: {} came out", case.name, run.out());
            }
            let alone = floor(job(0));
            let gbit = run.octets() as f64 * 8.0 / run.cpu_ns().max(1) as f64;
            let established = if case.traffic.forwards() {
                "established"
            } else {
                "every packet"
            };
            let name = |what: &str| format!("{}, {what}", case.name);
            let x = case.size.map(|size| size as f64);
            let ns = group.sample(&name(established), "ns/packet", run.ns_per_packet());
            if let Some(x) = x.filter(|_| curves) {
                ns.at(case.way.name(), x);
            }
            group.sample(&name(established), "Mpps", 1e3 / run.ns_per_packet());
            let row = group.sample(&name(established), "Gbit/s", gbit);
            row.note("of received frames with their encap, without preamble");
            let row = group.sample(&name("floor"), "ns/packet", alone.ns_per_packet());
            row.note("generator and port alone: in the figures above too");
            if options.workers > 1 {
                group.sample(&name("all workers"), "Mpps", run.rate() / 1e6);
            }

            // First packets cost the same at every size but for the generator's copy.
            if case.size != Some(64) || !case.traffic.forwards() || !case.way.opens() {
                continue;
            }
            let from = next_flow;
            next_flow += fresh * options.workers as u32;
            let run = lab
                .forward(&case.name, |worker| {
                    let from = from + fresh * worker as u32;
                    Job::new(&case.traffic, Order::Sequential { from }, u64::from(fresh))
                })
                .context("first packets")?;
            let first = name("first of a flow");
            group.sample(&first, "ns/packet", run.ns_per_packet());
            group.sample(&first, "Mpps", 1e3 / run.ns_per_packet());
        }
    }
    Ok(())
}
