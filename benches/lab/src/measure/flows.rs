//! `dashctl bench flows`.

use std::sync::Arc;

use anyhow::Result;
use dash_wire::stats::EniStat;

use super::Bench;
use crate::lab::{Lab, capacity};
use crate::machine::{available_memory, resident_memory};
use crate::port::{Job, floor};
use crate::result::Group;
use crate::traffic::{Order, Traffic};
use crate::world::{self, Way};

/// A connection may take this much at most for a scale to be tried: more than the goal of 128 bytes.
const ROOM: u64 = 260;

/// A power of two as it is called: 64 k, 32 M.
fn scale(flows: u32) -> String {
    if flows >= 1 << 20 {
        format!("{} M", flows >> 20)
    } else {
        format!("{} k", flows >> 10)
    }
}

pub(super) fn run(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let options = bench.options;
    let scales = options.scale(
        vec![1 << 10, 1 << 14, 1 << 15],
        vec![64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 32 << 20],
    );
    let packets = options.scale(2_000, 1_000_000);
    let traffic = Arc::new(Traffic::of(Way::Vnet.template(64)?));
    for flows in scales {
        let name = format!("{} flows", scale(flows));
        let (needs, has) = (u64::from(flows) * ROOM, available_memory());
        if needs > has / 4 * 3 {
            let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
            group.skipped.push(format!(
                "{name}: up to {:.1} GiB, and {:.1} GiB are free",
                gib(needs),
                gib(has)
            ));
            continue;
        }
        (bench.progress)(&format!("flows: {name}: filling"));
        let before = resident_memory();
        // Every size below the default has its capacity, so that the verifier's verdicts hold.
        let mut lab = Lab::with(
            options,
            capacity(flows.max(1 << 16)),
            world::txn(world::DEMO)?,
        )?;
        let idle = resident_memory();
        let each = flows / options.workers as u32;
        let fill = super::make_flows(&mut lab, &traffic, 0, each)?;
        let full = resident_memory();
        for ns in fill {
            group.sample(&format!("{name}, filling"), "ns/packet", ns);
        }
        let bytes = full.saturating_sub(before) as f64 / f64::from(flows);
        // Small tables drown in what an engine takes anyway.
        if flows >= 64 << 10 {
            let row = group.sample(&format!("{name}, memory a connection"), "bytes", bytes);
            let empty = idle.saturating_sub(before) as f64 / f64::from(flows);
            row.note(format!(
                "growth of the process; {empty:.0} of it before the first flow"
            ));
            if flows >= 16 << 20 {
                row.aim("at most 128 bytes a connection (P4)", 128.0, true);
            }
        }
        let made = lab.eni_counter(EniStat::FlowCreated)?;
        for n in 0..options.samples() {
            (bench.progress)(&format!("flows: {name}: sample {}", n + 1));
            let job = |worker: usize| {
                let seed = options.seed + (n * options.workers + worker) as u64;
                let order = Order::Random {
                    from: 0,
                    flows,
                    seed,
                };
                Job::new(&traffic, order, packets)
            };
            let run = lab.forward(&name, job)?;
            let established = format!("{name}, established");
            group
                .sample(&established, "ns/packet", run.ns_per_packet())
                .at("established, at random", f64::from(flows));
            let alone = floor(job(0));
            group.sample(
                &format!("{name}, floor"),
                "ns/packet",
                alone.ns_per_packet(),
            );
        }
        let again = lab.eni_counter(EniStat::FlowCreated)? - made;
        if again > 0 {
            let share = again as f64 / (packets * options.samples() as u64) as f64 * 100.0;
            if let Some(row) = group
                .measurements
                .iter_mut()
                .find(|m| m.name == format!("{name}, established"))
            {
                row.note(format!(
                    "{share:.2} % of the packets made their flow anew: it had aged"
                ));
            }
        }
    }
    spread(group);
    Ok(())
}

/// The cost at the most flows over the cost at 64 k, floor taken off both and not.
fn spread(group: &mut Group) {
    let medians: Vec<(f64, f64)> = group
        .measurements
        .iter()
        .filter(|m| m.series.is_some())
        .filter_map(|m| Some((m.x?, m.median())))
        .collect();
    let (Some(first), Some(last)) = (medians.first().copied(), medians.last().copied()) else {
        return;
    };
    let ratio = last.1 / first.1;
    let scale = |flows: f64| scale(flows as u32);
    let name = format!(
        "cost at {} flows / cost at {}",
        scale(last.0),
        scale(first.0)
    );
    let row = group.sample(&name, "x", ratio);
    let all = last.0 >= f64::from(32 << 20) && first.0 == f64::from(64 << 10);
    if all {
        let goal = "32 M flows cost at most 1.6 times what 64 k cost (P4)";
        row.aim(goal, 1.6, true);
    }
}
