//! `dashctl bench cps`.

use std::sync::Arc;

use anyhow::Result;
use dash_wire::stats::EniStat;

use super::Bench;
use crate::lab::{Lab, capacity};
use crate::port::{Job, Stream};
use crate::result::Group;
use crate::traffic::{Order, Traffic};
use crate::world::{self, Way};

/// TCP connections in flight.
const WINDOW: u32 = 256;
/// Packets of a TCP connection.
pub(super) const STEPS: u32 = 6;

/// Connections a second of a core: the script's connections over the CPU time of all packets, those of
/// the background flows too.
pub(super) fn rate(connections: u64, cpu_ns: u64) -> f64 {
    connections as f64 / (cpu_ns.max(1) as f64 / 1e9)
}

/// Jobs that make connections, alone or while background flows send one packet for each connection.
pub(super) fn job(
    script: &Arc<Traffic>,
    from: u32,
    connections: u32,
    background: Option<Stream>,
) -> Job {
    let steps = script.steps();
    let order = Order::Sequential { from };
    let mut job = Job::new(script, order, u64::from(connections) * u64::from(steps));
    if let Some(background) = background {
        job.packets += u64::from(connections) * u64::from(background.share);
        job.streams[0].share = steps;
        job.streams.push(background);
    }
    job
}

pub(super) fn run(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let options = bench.options;
    // A whole number of windows, so that every connection ends.
    let connections = options.scale(2, 160) * WINDOW;
    let background = options.background.unwrap_or(options.scale(1_000, 100_000));
    // Closing flows linger for seconds and UDP flows for half a minute: there is room for all.
    let room = 4 * connections * options.samples() as u32 * options.workers as u32 + background;
    let flows = options.scale(room.max(1 << 16), room.next_power_of_two());
    let mut lab = Lab::with(options, capacity(flows), world::txn(world::DEMO)?)?;

    let tcp = Arc::new(Traffic::script(world::connection()?, STEPS, WINDOW)?);
    let udp = Arc::new(Traffic::of(Way::VnetDirect.template(64)?));
    let established = Arc::new(Traffic::of(Way::Vnet.template(64)?));
    let fill = Order::Sequential { from: 0 };
    lab.forward("background", |_| {
        Job::new(&established, fill, u64::from(background))
    })?;

    let mut from = 0;
    for n in 0..options.samples() {
        let seed = options.seed + n as u64;
        let busy = Stream {
            traffic: Arc::clone(&established),
            order: Order::Random {
                from: 0,
                flows: background.max(1),
                seed,
            },
            share: 1,
        };
        let with = format!("TCP, 6 packets, {background} flows in the background");
        let cases = [
            ("TCP, 6 packets".to_owned(), &tcp, None),
            (with, &tcp, Some(busy)),
            ("UDP, 1 packet".to_owned(), &udp, None),
        ];
        for (name, script, background) in cases {
            (bench.progress)(&format!("cps: sample {}, {name}", n + 1));
            let made = lab.eni_counter(EniStat::FlowCreated)?;
            let first = from;
            let run = lab.forward(&name, |worker| {
                let from = first + worker as u32 * connections;
                job(script, from, connections, background.clone())
            })?;
            from += connections * options.workers as u32;
            let connections = run.sent(0) / u64::from(script.steps());
            let made = lab.eni_counter(EniStat::FlowCreated)? - made;
            let cps = rate(connections, run.cpu_ns());
            group.sample(&name, "CPS", cps);
            group.sample(&name, "ns/packet", run.ns_per_packet());
            if options.workers > 1 {
                let all = connections as f64 * run.rate() / run.packets() as f64;
                group.sample(&format!("{name}, all workers"), "CPS", all);
            }
            let lost = run.lost as f64;
            group.sample(&format!("{name}, lost in the data plane"), "packets", lost);
            let row = group.sample(
                &format!("{name}, flows a connection"),
                "x",
                made as f64 / connections as f64,
            );
            row.note("1: each connection made one flow, which both directions used");
        }
    }
    Ok(())
}
