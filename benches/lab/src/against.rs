//! Others doing the same work in the same run, by turns with ours, and the ratios.
//!
//! * `c`, [`cpipe`]: a DASH fast path written by hand in C, packet for packet.
//! * [`testpmd`]: DPDK's test program, forwarding without looking and swapping addresses.
//! * [`ovs`]: Open vSwitch over DPDK, pushing VXLAN.
//! * [`dpdk`]: ours on the same vdev, where it was built with DPDK.
//!
//! A peer that is not installed, or does not run here, is a line in [`Group::skipped`] with the reason. So
//! is one whose packets were not seen to leave as they must: CPU time is over packets that were counted
//! at the port they left by ([`Counted`]).

mod captures;
mod counted;
pub mod cpipe;
pub(crate) mod cpu;
pub mod dpdk;
pub mod ovs;
mod process;
pub mod testpmd;

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::measure::Bench;
use crate::result::{Group, Measurement};

use captures::Captures;
use counted::{Counted, Sample};

/// Peers that `--against` names.
pub const PEERS: [&str; 4] = ["c", "testpmd", "l3fwd", "ovs"];

/// Ours on a vdev: measured beside peers that are on one.
const OURS: &str = "ours on DPDK";

/// Name of the group.
pub const GROUP: &str = "peers";

/// Something that is measured by turns.
trait Peer {
    /// One sample of each of its figures.
    fn sample(&mut self) -> Result<Vec<Sample>>;
}

/// Measures ours and these peers, by turns. Quick takes fewer and shorter samples.
///
/// # Errors
/// A name is of no peer. What does not run here is skipped.
pub fn run(peers: &[&str], bench: &Bench<'_>) -> Result<Group> {
    let mut group = Group {
        name: GROUP.to_owned(),
        about:
            "Others on the same machine in the same run, by turns: CPU time a packet of the thread \
                that forwards, by packets counted at the port they left by. Ratios are ours by theirs: below \
                1, ours takes less."
                .to_owned(),
        command: bench
            .options
            .command(&format!("--against {}", peers.join(","))),
        ..Group::default()
    };
    if let Some(unknown) = peers.iter().find(|p| !PEERS.contains(p)) {
        bail!("{unknown}: no peer; there are {}", PEERS.join(", "));
    }
    let mut running: Vec<(&str, Box<dyn Peer>)> = vec![];
    let captures = Captures::new(bench.options.scale(1 << 12, 1 << 16))?;
    group.about.push_str(&format!(
        " On net_pcap: {} flows, a frame of each in turn.",
        captures.flows()
    ));
    // Ours is measured in any case, and on a vdev when a peer is.
    let ours = peers.iter().any(|p| ["ovs", "testpmd"].contains(p));
    let names = ["c"].iter().chain(ours.then_some(&OURS));
    for name in names.chain(peers.iter().filter(|p| **p != "c")) {
        (bench.progress)(&format!("peers: starting {name}"));
        match start(name, bench, &captures) {
            Ok(peer) => running.push((name, peer)),
            Err(why) => group.skipped.push(format!("{name}: {why:#}")),
        }
    }
    let mut evidence: BTreeMap<&str, Counted> = BTreeMap::new();
    for round in 0..=bench.options.samples() {
        (bench.progress)(&format!("peers: sample {round}"));
        running.retain_mut(|(name, peer)| match peer.sample() {
            Ok(samples) => {
                // The first warms tables and caches up.
                if round > 0 {
                    for sample in samples {
                        *evidence.entry(sample.name).or_default() += sample.counted;
                        keep(&mut group, &sample);
                    }
                }
                true
            }
            Err(why) => {
                group
                    .skipped
                    .push(format!("{name}, sample {round}: {why:#}"));
                false
            }
        });
    }
    for row in &mut group.measurements {
        if let Some(counted) = evidence.get(row.name.as_str()) {
            row.note(counted.to_string());
        }
    }
    ratios(&mut group);
    Ok(group)
}

fn start(name: &str, bench: &Bench<'_>, captures: &Captures) -> Result<Box<dyn Peer>> {
    let quick = bench.options.quick;
    Ok(match name {
        "c" => Box::new(cpipe::Both::start(quick)?),
        "testpmd" => Box::new(testpmd::Testpmd::start(quick, captures)?),
        OURS => Box::new(dpdk::Ours::start(bench.options, captures)?),
        "ovs" => Box::new(ovs::Switches::start(quick, captures)?),
        "l3fwd" => bail!("no package has it built, and this program builds nothing"),
        _ => bail!("no such peer"),
    })
}

fn keep(group: &mut Group, sample: &Sample) {
    group.sample(sample.name, "ns/packet", sample.ns);
}

/// Ours by each of the others, sample by sample: they were taken one after the other.
fn ratios(group: &mut Group) {
    let samples = |name: &str| {
        let found = group.measurements.iter().find(|m| m.name == name);
        found.map_or(vec![], |m| m.samples.clone())
    };
    let (ours, c, floor) = (
        samples(cpipe::OURS),
        samples(cpipe::THEIRS),
        samples(cpipe::FLOOR),
    );
    let by = |ours: &[f64], theirs: &[f64]| -> Vec<f64> {
        ours.iter().zip(theirs).map(|(o, t)| o / t).collect()
    };
    let above = |all: &[f64]| -> Vec<f64> { all.iter().zip(&floor).map(|(a, f)| a - f).collect() };
    let parts = vdev_parts(group);
    let same_vdev = samples(dpdk::OURS);
    let push = samples(ovs::PUSH);
    let io = samples(testpmd::IO_PCAP);
    let made = [
        ratio(
            "ours / C pipeline, both with the floor",
            by(&ours, &c),
            None,
            None,
        ),
        ratio(
            "ours / C pipeline, both without the floor",
            by(&above(&ours), &above(&c)),
            Some(("P3: <= 1.3", 1.3)),
            None,
        ),
        ratio(
            "ours / OVS-DPDK VXLAN push, same vdev",
            by(&same_vdev, &push),
            Some(("P3: <= 0.5", 0.5)),
            Some(&parts),
        ),
        ratio(
            "ours in memory / OVS-DPDK VXLAN push",
            if same_vdev.is_empty() {
                by(&ours, &push)
            } else {
                vec![]
            },
            None,
            Some("not the same port: ours on a vdev needs a build with --features dpdk"),
        ),
        ratio(
            "ours / testpmd io, same vdev and capture",
            by(&same_vdev, &io),
            None,
            Some("testpmd does nothing with the packet: how much of ours is more than I/O"),
        ),
    ];
    let some = made.into_iter().filter(|m| !m.samples.is_empty());
    group.measurements.extend(some);
}

/// How to read ours on a vdev beside another's, and what its time is made of, as far as that was measured.
fn vdev_parts(group: &Group) -> String {
    let mut text = "the same flows from the same kind of port: ours VXLAN in and out, theirs inner frames in and \
                    VXLAN out"
        .to_owned();
    let middle = |name: &str| group.median(name, "ns/packet");
    let (io, core) = (
        middle(testpmd::IO_PCAP),
        middle(cpipe::OURS) - middle(cpipe::FLOOR),
    );
    if io.is_finite() && core.is_finite() {
        text.push_str(&format!(
            "; of ours, {io:.0} ns are what testpmd takes to pass the same capture on unread, and {core:.0} ns what \
             our core takes for the packets in memory"
        ));
    }
    text
}

fn ratio(
    name: &str,
    samples: Vec<f64>,
    goal: Option<(&str, f64)>,
    note: Option<&str>,
) -> Measurement {
    let mut m = Measurement {
        name: name.to_owned(),
        unit: "x".to_owned(),
        samples,
        note: note.map(ToOwned::to_owned),
        ..Measurement::default()
    };
    if let Some((text, most)) = goal {
        m.aim(text, most, true);
    }
    m
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_samples_taken_together() {
        let mut group = Group::default();
        for (ours, c, floor, push) in [(50.0, 40.0, 20.0, 100.0), (80.0, 50.0, 20.0, 200.0)] {
            for (name, ns) in [
                (cpipe::OURS, ours),
                (cpipe::THEIRS, c),
                (cpipe::FLOOR, floor),
                (dpdk::OURS, ours + 10.0),
                (ovs::PUSH, push),
            ] {
                let counted = Counted::default();
                keep(&mut group, &Sample { name, ns, counted });
            }
        }
        ratios(&mut group);
        let of = |name: &str| {
            let m = group.measurements.iter().find(|m| m.name == name);
            let m = m.unwrap_or_else(|| panic!("no {name}"));
            (m.samples.clone(), m.goal.as_ref().map(|g| g.1))
        };
        assert_eq!(
            of("ours / C pipeline, both with the floor"),
            (vec![1.25, 1.6], None)
        );
        let net = of("ours / C pipeline, both without the floor");
        assert_eq!(net, (vec![1.5, 2.0], Some(false)));
        assert_eq!(
            of("ours / OVS-DPDK VXLAN push, same vdev"),
            (vec![0.6, 0.45], Some(false))
        );
        let absent = ["testpmd", "in memory"];
        let shown = |m: &Measurement| absent.iter().any(|part| m.name.contains(part));
        assert!(!group.measurements.iter().any(shown), "{group:?}");
    }

    #[test]
    fn unknown_peers_are_refused() {
        let bench = Bench {
            options: &crate::Options::default(),
            progress: &|_| (),
        };
        let why = run(&["vpp"], &bench).expect_err("no such peer");
        assert!(why.to_string().contains("vpp: no peer"), "{why}");
    }

    /// Figures are not judged.
    fn runs_or_says_why_not(name: &str) {
        let captures = Captures::new(1 << 10).expect("a folder");
        let options = crate::Options {
            quick: true,
            ..crate::Options::default()
        };
        let bench = Bench {
            options: &options,
            progress: &|_| (),
        };
        match start(name, &bench, &captures).and_then(|mut peer| peer.sample()) {
            Ok(samples) => {
                eprintln!("{samples:?}");
                assert!(!samples.is_empty());
                for sample in samples {
                    assert!(sample.ns > 0.0 && sample.counted.sent > 0, "{sample:?}");
                }
            }
            Err(why) => eprintln!("SKIP: {name}: {why:#}"),
        }
    }

    #[test]
    fn testpmd_runs_here_or_says_why_not() {
        runs_or_says_why_not("testpmd");
    }

    #[test]
    fn ours_runs_on_a_vdev_or_says_why_not() {
        runs_or_says_why_not(OURS);
    }

    #[test]
    fn ovs_runs_here_or_says_why_not() {
        runs_or_says_why_not("ovs");
    }
}
