//! The packets of ours and of peers on vdevs, as captures: the same flows with their encap and without.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nic_sim::CaptureWriter;
use tempfile::TempDir;

use crate::configs::{Config, Flow, Scale};
use crate::traffic::splitmix;

/// Outer Ethernet, IPv4, UDP and VXLAN, bytes.
pub(super) const ENCAP: usize = 14 + 20 + 8 + 8;
/// Inner frames of 64 bytes with FCS, which no capture has.
pub(super) const INNER: usize = 60;
/// What makes a UDP packet that long.
const PAYLOAD: usize = INNER - 14 - 20 - 8;

/// Two captures of a packet of each flow, in the same random order.
pub(super) struct Captures {
    config: Config,
    flows: u32,
    folder: TempDir,
}

impl Captures {
    /// Of so many flows from VMs.
    pub(super) fn new(flows: u32) -> Result<Self> {
        let captures = Self {
            config: Config::new(Scale::BABY_HERO.shrink(4)),
            flows,
            folder: tempfile::tempdir()?,
        };
        let mut order: Vec<u64> = (0..flows.into()).collect();
        // Neighbours in memory are not neighbours in time.
        let mut seed = 1;
        for i in (1..order.len()).rev() {
            order.swap(i, (splitmix(&mut seed) % (i as u64 + 1)) as usize);
        }
        let mut outer = CaptureWriter::create(&captures.outer())?;
        let mut inner = CaptureWriter::create(&captures.inner())?;
        for n in order {
            let packet = packet(&captures.config, n);
            let bare = packet.get(ENCAP..).context("a packet has its encap")?;
            outer.write(0, &packet)?;
            inner.write(0, bare)?;
        }
        outer.finish()?;
        inner.finish()?;
        Ok(captures)
    }

    /// What lets them through.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Flows, and packets of each capture.
    pub(super) fn flows(&self) -> u32 {
        self.flows
    }

    /// With encap, to the VIP.
    pub(super) fn outer(&self) -> PathBuf {
        self.folder.path().join("outer.pcap")
    }

    /// The inner frames alone.
    pub(super) fn inner(&self) -> PathBuf {
        self.folder.path().join("inner.pcap")
    }

    /// A port of DPDK that gives the packets of a capture again and again, and counts what is sent to it.
    pub(super) fn vdev(number: u8, capture: &Path) -> String {
        let capture = capture.display();
        format!("net_pcap{number},rx_pcap={capture},infinite_rx=1")
    }
}

fn packet(config: &Config, n: u64) -> Vec<u8> {
    let flow = Flow {
        proto: 17,
        ..config.outbound(n)
    };
    flow.frame(0, PAYLOAD)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn both_captures_have_the_same_flows_in_the_same_order() {
        let captures = Captures::new(100).expect("a folder");
        let read = |path: PathBuf| -> Vec<Vec<u8>> {
            let all = nic_sim::read_capture(&path).expect("it was written");
            all.map(|p| p.expect("it was written").data).collect()
        };
        let (outer, inner) = (read(captures.outer()), read(captures.inner()));
        assert!(inner.iter().all(|p| p.len() == INNER));
        let bare: Vec<Vec<u8>> = outer.iter().map(|p| p[ENCAP..].to_vec()).collect();
        assert_eq!(bare, inner);
        let different: BTreeSet<&Vec<u8>> = inner.iter().collect();
        assert_eq!(different.len(), 100);
    }
}
