//! Others doing the same work in the same run, by turns with ours, and the ratios.
//!
//! * `c`, [`cpipe`]: a DASH fast path written by hand in C, packet for packet.
//! * [`testpmd`]: DPDK's test program, forwarding without looking and swapping addresses.
//! * [`ovs`]: Open vSwitch over DPDK, pushing VXLAN.
//!
//! A peer that is not installed, or does not run here, is a line in [`Group::skipped`] with the reason.

pub mod cpipe;
pub(crate) mod cpu;
pub mod ovs;
mod process;
pub mod testpmd;

use anyhow::{Result, bail};

use crate::measure::Bench;
use crate::result::{Group, Measurement};

/// Peers that `--against` names.
pub const PEERS: [&str; 4] = ["c", "testpmd", "l3fwd", "ovs"];

/// Name of the group.
pub const GROUP: &str = "peers";

/// A figure's name and one sample of it, ns a packet.
type Sample = (&'static str, f64);

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
    let quick = bench.options.quick;
    let mut group = Group {
        name: GROUP.to_owned(),
        about:
            "Others on the same machine in the same run, by turns: CPU time a packet of the thread \
                that forwards. Ratios are ours by theirs: below 1, ours takes less."
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
    // Ours is measured in any case.
    let names = ["c"].iter().chain(peers.iter().filter(|p| **p != "c"));
    for name in names {
        (bench.progress)(&format!("peers: starting {name}"));
        match start(name, quick) {
            Ok(peer) => running.push((name, peer)),
            Err(why) => group.skipped.push(format!("{name}: {why:#}")),
        }
    }
    for round in 0..=bench.options.samples() {
        (bench.progress)(&format!("peers: sample {round}"));
        running.retain_mut(|(name, peer)| match peer.sample() {
            Ok(samples) => {
                // The first warms tables and caches up.
                if round > 0 {
                    samples.into_iter().for_each(|s| keep(&mut group, s));
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
    ratios(&mut group);
    Ok(group)
}

fn start(name: &str, quick: bool) -> Result<Box<dyn Peer>> {
    Ok(match name {
        "c" => Box::new(cpipe::Both::start(quick)?),
        "testpmd" => Box::new(testpmd::Testpmd::start(quick)?),
        "ovs" => Box::new(ovs::Ovs::start(quick)?),
        "l3fwd" => bail!("no package has it built, and this program builds nothing"),
        _ => bail!("no such peer"),
    })
}

fn keep(group: &mut Group, (name, ns): Sample) {
    match group.measurements.iter_mut().find(|m| m.name == name) {
        Some(m) => m.samples.push(ns),
        None => group.measurements.push(Measurement {
            name: name.to_owned(),
            unit: "ns/packet".to_owned(),
            samples: vec![ns],
            ..Measurement::default()
        }),
    }
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
            "ours / OVS-DPDK VXLAN push",
            by(&ours, &push),
            Some(("P3: <= 0.5", 0.5)),
            Some(
                "ours: 64 k flows, VXLAN in and out, frames filled in memory; theirs: one flow, VXLAN \
                 out only, net_null ports",
            ),
        ),
        ratio(
            "ours / testpmd io, net_pcap",
            by(&ours, &io),
            None,
            Some("testpmd does nothing with the packet: how much of ours is more than I/O"),
        ),
    ];
    let some = made.into_iter().filter(|m| !m.samples.is_empty());
    group.measurements.extend(some);
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
    m.goal = goal.map(|(text, most)| (text.to_owned(), m.median() <= most));
    m
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_samples_taken_together() {
        let mut group = Group::default();
        for (ours, c, floor, push) in [(50.0, 40.0, 20.0, 100.0), (80.0, 50.0, 20.0, 200.0)] {
            for sample in [
                (cpipe::OURS, ours),
                (cpipe::THEIRS, c),
                (cpipe::FLOOR, floor),
                (ovs::PUSH, push),
            ] {
                keep(&mut group, sample);
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
            of("ours / OVS-DPDK VXLAN push"),
            (vec![0.5, 0.4], Some(true))
        );
        assert!(
            group
                .measurements
                .iter()
                .all(|m| !m.name.contains("testpmd"))
        );
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
        match start(name, true).and_then(|mut peer| peer.sample()) {
            Ok(samples) => {
                eprintln!("{samples:?}");
                assert!(samples.iter().all(|(_, ns)| *ns > 0.0), "{samples:?}");
            }
            Err(why) => eprintln!("SKIP: {name}: {why:#}"),
        }
    }

    #[test]
    fn testpmd_runs_here_or_says_why_not() {
        runs_or_says_why_not("testpmd");
    }

    #[test]
    fn ovs_runs_here_or_says_why_not() {
        runs_or_says_why_not("ovs");
    }
}
