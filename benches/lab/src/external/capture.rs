//! The packets of a capture, again and again, as fast as they are taken.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use nic_target::Frame;

use crate::lab::Lab;
use crate::measure::Bench;
use crate::port::{Job, floor};
use crate::result::Group;
use crate::traffic::{Order, Template, Traffic};

/// Shortest frame: an Ethernet header.
const SHORTEST: usize = 14;

/// Measures the packets of a capture in its order, looped, with a configuration of files (or the baby
/// hero test's). Packets that are dropped are no fault: how many come out is a figure.
///
/// # Errors
/// The capture or a file cannot be read, the configuration is refused, or no packet fits a frame.
pub fn capture(path: &Path, files: &[PathBuf], bench: &Bench<'_>) -> Result<Group> {
    let options = bench.options;
    let mut group = Group {
        name: "pcap".to_owned(),
        about:
            "Packets of a capture through the worker loop, in its order, again and again: CPU time \
                a packet, the generator on the same core included; its own cost is shown as floor."
                .to_owned(),
        command: super::command(options, &format!("--pcap {}", super::quoted(path)), files),
        ..Group::default()
    };
    let (templates, unfit) = templates(path)?;
    ensure!(
        !templates.is_empty(),
        "{}: no packet that fits a frame",
        path.display()
    );
    if unfit > 0 {
        let why = format!("{unfit} packets of {}: they fit no frame", path.display());
        group.skipped.push(why);
    }
    let round = templates.len() as u64;
    let traffic = Arc::new(Traffic::mix(templates));
    (bench.progress)("pcap: configuration");
    let (txns, capacity) = super::configuration(files, options)?;
    let mut lab = Lab::start(options, capacity)?;
    for txn in txns {
        lab.engine().commit(txn)?;
    }
    let order = Order::Sequential { from: 0 };
    // Flows are there after this, and the capture is in memory.
    lab.run(|_| Job::new(&traffic, order, round))?;
    // Whole rounds: every packet has its weight.
    let packets = round * options.scale(1_000, 1_000_000u64).div_ceil(round);
    for n in 0..options.samples() {
        (bench.progress)(&format!("pcap: sample {}", n + 1));
        let job = |_| Job::new(&traffic, order, packets);
        let run = lab.run(job)?;
        let ns = run.ns_per_packet();
        group.sample("packets", "ns/packet", ns);
        group.sample("packets", "Mpps", 1e3 / ns.max(1e-3));
        let gbit = run.octets() as f64 * 8.0 / run.cpu_ns().max(1) as f64;
        group.sample("packets", "Gbit/s", gbit);
        if options.workers > 1 {
            group.sample("all workers", "Mpps", run.rate() / 1e6);
        }
        let part = run.out() as f64 * 100.0 / run.packets().max(1) as f64;
        group.sample("came out", "%", part);
        let alone = floor(job(0));
        group.sample("floor", "ns/packet", alone.ns_per_packet());
    }
    Ok(group)
}

/// Packets as templates, and how many are not among them.
fn templates(path: &Path) -> Result<(Vec<Template>, usize)> {
    let mut frame = Frame::new();
    let (mut templates, mut unfit) = (Vec::new(), 0);
    for packet in nic_sim::read_capture(path)? {
        let data = packet?.data;
        if data.len() < SHORTEST || !frame.fill(&data) {
            unfit += 1;
            continue;
        }
        templates.push(Template::fixed(data).unchecked());
    }
    Ok((templates, unfit))
}
