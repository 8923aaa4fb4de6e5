//! DPDK's testpmd: what reading and sending a packet costs when nothing is done with it, and when
//! its addresses are swapped.
//!
//! It is started once for each case and told `start` and `stop`; between the two, the time of its
//! forwarding thread is what the packets it counted took. It sleeps while it is stopped.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nic_sim::{CaptureWriter, Packet};
use tempfile::TempDir;

use super::captures::Captures;
use super::counted::{Counted, Sample};
use super::process::{Daemon, installed, processors};
use super::{Peer, cpu};

/// Forwarding without looking, over captures held in memory: the cheapest port with bytes in it.
pub const IO_PCAP: &str = "testpmd io, net_pcap, 110 B, our capture";

/// What a port gives.
#[derive(Clone, Copy)]
enum Frames {
    /// Zeros.
    Nothing,
    /// The capture that ours gets: each of its frames stays in a buffer of its own.
    Ours,
    /// A few frames.
    Few,
}

const CASES: [(&str, &str, Frames); 3] = [
    ("testpmd io, net_null, 64 B", "io", Frames::Nothing),
    (IO_PCAP, "io", Frames::Ours),
    (
        "testpmd 5tswap, net_pcap, 32 frames of 64 B",
        "5tswap",
        Frames::Few,
    ),
];

/// A program a case.
pub(super) struct Testpmd {
    cases: Vec<(&'static str, Daemon)>,
    time: Duration,
    _folder: TempDir,
}

impl Testpmd {
    /// Starts them.
    ///
    /// # Errors
    /// It is not installed, or does not run here.
    pub(super) fn start(quick: bool, captures: &Captures) -> Result<Self> {
        ensure!(installed("dpdk-testpmd"), "dpdk-testpmd is not installed");
        ensure!(installed("stdbuf"), "stdbuf (coreutils) is not installed");
        let cores = processors()?;
        ensure!(cores.len() > 1, "it needs two processors");
        let folder = tempfile::tempdir()?;
        let few = folder.path().join("in.pcap");
        let mut file = CaptureWriter::create(&few)?;
        for n in 0..32 {
            let packet = Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
                .ipv4([10, 0, 0, 1], [10, 0, 1, 1])
                .udp(1_000 + n, 2_000)
                .payload([0; 18]);
            file.write(0, &packet.build())?;
        }
        file.finish()?;
        let mut cases = vec![];
        for (n, (name, mode, frames)) in CASES.into_iter().enumerate() {
            let vdev = |port| match frames {
                Frames::Nothing => format!("--vdev=net_null{port},size=64"),
                Frames::Ours => format!("--vdev={}", Captures::vdev(port, &captures.outer())),
                Frames::Few => format!("--vdev={}", Captures::vdev(port, &few)),
            };
            // Both ports hold it.
            let mbufs = 8_192 + 2 * captures.flows();
            let mbufs = format!("--total-num-mbufs={mbufs}");
            let (first, second) = (vdev(0), vdev(1));
            let lcores = format!("--lcores=0@{},1@{}", cores[0], cores[1]);
            let prefix = format!("--file-prefix=lab{}-{n}", std::process::id());
            let mode = format!("--forward-mode={mode}");
            let args = [
                // Into a pipe it would keep what it says until there is a page of it.
                "stdbuf",
                "-oL",
                "dpdk-testpmd",
                "--no-huge",
                "-m768",
                "--no-pci",
                "--no-telemetry",
                &prefix,
                &lcores,
                &first,
                &second,
                "--",
                "-i",
                "--nb-cores=1",
                &mbufs,
                &mode,
            ];
            let mut daemon = Daemon::start(&args, &[("RUNTIME_DIRECTORY", folder.path())])?;
            daemon.wait_for("testpmd> ", 0)?;
            cases.push((name, daemon));
        }
        Ok(Self {
            cases,
            time: Duration::from_millis(if quick { 100 } else { 400 }),
            _folder: folder,
        })
    }
}

impl Peer for Testpmd {
    fn sample(&mut self) -> Result<Vec<Sample>> {
        let mut samples = vec![];
        for (name, daemon) in &mut self.cases {
            let threads = cpu::threads(daemon.pid())?;
            let worker = threads.iter().find(|(_, n)| n.contains("worker"));
            let (tid, _) = worker.context("testpmd has no worker thread")?;
            let before = cpu::of(daemon.pid(), *tid)?;
            let from = daemon.said().len();
            daemon.say("start")?;
            std::thread::sleep(self.time);
            daemon.say("stop")?;
            let said = daemon.wait_for("Done.", from)?;
            let after = cpu::of(daemon.pid(), *tid)?;
            let counted = counted(&said).with_context(|| format!("no counts in: {said}"))?;
            // It says no bytes, so there is no length to hold against them.
            samples.push(Sample::proven(name, after - before, counted, 0)?);
        }
        Ok(samples)
    }
}

/// Packets of all ports since `start`.
fn counted(said: &str) -> Option<Counted> {
    let (_, totals) = said.split_once("Accumulated forward statistics")?;
    let of = |name| -> Option<u64> {
        let (_, after) = totals.split_once(name)?;
        after.split_whitespace().next()?.parse().ok()
    };
    Some(Counted {
        received: of("RX-packets:")?,
        sent: of("TX-packets:")?,
        octets: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_that_of_all_ports() {
        let said = "  RX-packets: 5  RX-total: 5\n\
                    ++++ Accumulated forward statistics for all ports+++\n  \
                    RX-packets: 1234           RX-dropped: 0             RX-total: 1234\n  \
                    TX-packets: 1233           TX-dropped: 1             TX-total: 1234\n";
        let both = counted(said).map(|c| (c.received, c.sent));
        assert_eq!(both, Some((1234, 1233)));
        assert_eq!(counted("RX-packets: 5 TX-packets: 5"), None);
    }
}
