//! Ours on a port of DPDK: the vdev on which Open vSwitch and testpmd are measured, the real worker, and
//! VXLAN in and out.
//!
//! EAL starts once in a process, so this is skipped after a `--target dpdk:` in the same run.

use std::time::Duration;

use anyhow::{Result, ensure};
use nic_targets::{DpdkSpec, TargetSpec};

use super::Peer;
use super::captures::{Captures, ENCAP, INNER};
use super::counted::{Counted, Sample};
use crate::external::Running;
use crate::options::Options;

/// Name of its figure.
pub const OURS: &str = "ours, net_pcap, VXLAN to VXLAN, 64 B inner";

/// Packet buffers besides those that hold the capture.
const BUFFERS: u32 = 8_192;

/// A worker on a vdev. It stands still while others are measured.
pub(super) struct Ours {
    running: Running,
    time: Duration,
    /// Flows are made by the first sample.
    warm: bool,
}

impl Ours {
    /// Opens the port and loads the configuration.
    ///
    /// # Errors
    /// This program was built without DPDK, or EAL does not start here.
    pub(super) fn start(options: &Options, captures: &Captures) -> Result<Self> {
        let words = [
            "--no-huge",
            "-m",
            "512",
            "--no-pci",
            "--no-telemetry",
            "--no-shconf",
            &format!("--file-prefix=ours{}", std::process::id()),
            "--vdev",
            &Captures::vdev(0, &captures.outer()),
        ];
        let spec = TargetSpec::Dpdk(DpdkSpec {
            eal: words.map(str::to_owned).into(),
            ports: vec![],
            mtu: Some(1_500),
            mbufs: Some(captures.flows() + BUFFERS),
        });
        let config = captures.config();
        let options = Options {
            workers: 1,
            ..options.clone()
        };
        let capacity = config.capacity(captures.flows());
        let running = Running::start(&spec, config.txns().collect(), capacity, &options)?;
        Ok(Self {
            running,
            time: Duration::from_millis(options.scale(200, 500)),
            warm: false,
        })
    }

    /// Lets packets in for a while: those of the time after it settled are counted.
    fn measure(&mut self) -> Result<Sample> {
        let settle = if self.warm { self.time / 4 } else { self.time };
        std::thread::sleep(settle);
        let before = self.running.read()?;
        std::thread::sleep(self.time);
        let after = self.running.read()?;
        self.warm = true;
        let made = after.flows_made - before.flows_made;
        // The configuration's own counters say that they were established.
        ensure!(made == 0, "{OURS}: {made} flows were made meanwhile");
        let (Some(cpu), Some(was)) = (after.cpu_ns, before.cpu_ns) else {
            anyhow::bail!("{OURS}: the system does not tell a thread's time");
        };
        let (from, to) = (before.at_devices, after.at_devices);
        let counted = Counted {
            received: to.received - from.received,
            sent: to.sent - from.sent,
            octets: Some(to.sent_octets - from.sent_octets),
        };
        Sample::proven(OURS, cpu.saturating_sub(was), counted, ENCAP + INNER)
    }
}

impl Peer for Ours {
    fn sample(&mut self) -> Result<Vec<Sample>> {
        self.running.open(true);
        let sample = self.measure();
        self.running.open(false);
        Ok(vec![sample?])
    }
}
