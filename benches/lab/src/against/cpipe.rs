//! The C pipeline of `benches/cpipe`: the same packets, the same flows, the same frames.
//!
//! The port is as little as can be: each frame is filled from a packet in memory, run, and left. What
//! that costs alone is the floor, measured in the same turns.

use anyhow::{Context, Result, ensure};
use dash_cpipe::{BURST, Globals, Pipeline};
use dash_engine::{Engine, Options};
use dash_runtime::Core;
use dash_runtime::datapath::Fate;
use dash_wire::tables::Direction;
use nic_target::{Frame, PacketEngine, Target, Verdict};

use super::counted::{Counted, Sample};
use super::{Peer, cpu};
use crate::configs::{Config, Flow, Scale};

/// Name of ours.
pub const OURS: &str = "ours, bursts of 32, established, 64 k flows";
/// Name of the C pipeline's.
pub const THEIRS: &str = "C pipeline, bursts of 32, established, 64 k flows";
/// Name of what filling frames costs alone.
pub const FLOOR: &str = "floor: frames filled, nothing run";

/// Inner frames of 64 bytes with FCS.
const PAYLOAD: usize = 60 - 14 - 20 - 8;

/// Both, with the same connections in their tables.
pub(super) struct Both {
    engine: Engine<Core>,
    theirs: Pipeline,
    packets: Vec<Vec<u8>>,
    now_ns: u64,
    passes: u64,
    frames: Vec<Frame>,
    fates: Vec<Fate>,
}

impl Both {
    /// 64 k connections.
    ///
    /// # Errors
    /// There is no machine code here, or the configuration is refused.
    pub(super) fn start(quick: bool) -> Result<Self> {
        let mut both = Self::new(1 << 16)?;
        both.passes = if quick { 4 } else { 40 };
        Ok(both)
    }

    /// As many connections from VMs, known to both, and a packet of each.
    fn new(connections: u32) -> Result<Self> {
        let config = Config::new(Scale::BABY_HERO.shrink(4));
        let capacity = config.capacity(connections);
        let core = Core::new(dash_runtime::Engine::Native, &capacity)?;
        let cache = std::env::temp_dir().join(format!("dashwire-lab-{}", std::process::id()));
        let options = Options {
            capacity,
            cache_dir: Some(cache.clone()),
            native: true,
            ..Options::default()
        };
        let engine = Engine::new(options, Box::new(core));
        let mut both = Self::configured(engine?, &config, connections)?;
        let _ = std::fs::remove_dir_all(cache);
        both.fill(&config, connections)?;
        Ok(both)
    }

    fn configured(mut engine: Engine<Core>, config: &Config, connections: u32) -> Result<Self> {
        for txn in config.txns() {
            engine.commit(txn)?;
        }
        let flow = config.outbound(0);
        let globals = Globals {
            vip: flow.outer_dst.octets(),
            vm_vni: flow.vni,
            vxlan_port: 4_789u16.to_be_bytes(),
            ttl: 64,
            pad: 0,
        };
        let theirs = Pipeline::new(&globals, 2 * connections, config.scale().enis)?;
        Ok(Self {
            engine,
            theirs,
            packets: vec![],
            now_ns: 1,
            passes: 1,
            frames: (0..BURST).map(|_| Frame::new()).collect(),
            fates: Vec::with_capacity(BURST),
        })
    }

    /// First packets through ours; the flows that they make into theirs.
    fn fill(&mut self, config: &Config, connections: u32) -> Result<()> {
        let mut macs = std::collections::BTreeMap::new();
        let mut frame = Frame::new();
        for n in 0..u64::from(connections) {
            let flow: Flow = config.outbound(n);
            let packet = flow.frame(0x10, PAYLOAD);
            ensure!(frame.fill(&packet), "a packet longer than a frame");
            frame.port = 0;
            frame.timestamp_ns = self.now_ns;
            let verdict = self.engine.target_mut().run(&mut frame)?;
            ensure!(verdict == Verdict::Send(0), "flow {n}: {verdict:?}");
            macs.insert(flow.src, flow.smac.0);
            self.packets.push(packet);
        }
        for entry in self.engine.target_mut().flows()? {
            for side in 0..2 {
                self.theirs
                    .add_flow(&entry.sides[side].key, &entry.sides[side].actions)?;
            }
            let from_vm = entry.direction == Direction::Outbound as u8;
            let [_, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d] =
                entry.sides[usize::from(!from_vm)].key.sip;
            if let Some(mac) = macs.remove(&[a, b, c, d].into()) {
                self.theirs.add_eni(mac, entry.eni)?;
            }
        }
        ensure!(macs.is_empty(), "an ENI without a flow");
        // Neighbours in memory are not neighbours in time.
        let n = self.packets.len();
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        for i in (1..n).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            self.packets.swap(i, (seed >> 33) as usize % (i + 1));
        }
        Ok(())
    }

    /// The floor: frames are filled and looked at.
    fn nothing(&mut self, frames: &mut [Frame]) -> Result<()> {
        std::hint::black_box(frames);
        Ok(())
    }

    fn ours(&mut self, frames: &mut [Frame]) -> Result<()> {
        self.fates.clear();
        let core = self.engine.target_mut();
        core.run_burst(self.now_ns, frames, &mut self.fates);
        let lost = self
            .fates
            .iter()
            .find(|fate| **fate != Fate::Done(Verdict::Send(0)));
        ensure!(lost.is_none(), "ours: {lost:?}");
        Ok(())
    }

    fn theirs(&mut self, frames: &mut [Frame]) -> Result<()> {
        let mut lens = [0; BURST];
        let n = frames.len();
        for (len, frame) in lens.iter_mut().zip(frames.iter()) {
            *len = u32::try_from(frame.len()).context("a frame's length has 32 bits")?;
        }
        let mut frames = frames.iter_mut();
        let mut bufs: [&mut [u8]; BURST] =
            std::array::from_fn(|_| frames.next().map_or(&mut [][..], |f| f.data_mut()));
        self.theirs.run(&mut bufs[..n], &mut lens[..n], self.now_ns);
        ensure!(lens[..n].iter().all(|len| *len > 0), "C: a packet not sent");
        Ok(())
    }

    /// CPU time a packet of some passes over all packets.
    fn time(&mut self, run: fn(&mut Self, &mut [Frame]) -> Result<()>) -> Result<f64> {
        let packets = std::mem::take(&mut self.packets);
        let mut frames = std::mem::take(&mut self.frames);
        let passes = self.passes;
        let before = cpu::of_this_thread()?;
        let mut outcome = Ok(());
        for _ in 0..passes {
            for burst in packets.chunks(BURST) {
                for (frame, packet) in frames.iter_mut().zip(burst) {
                    frame.fill(packet);
                }
                outcome = outcome.and(run(self, &mut frames[..burst.len()]));
            }
            self.now_ns += 1_000_000;
        }
        let took = cpu::of_this_thread()?.saturating_sub(before);
        let count = packets.len() as u64 * passes;
        self.packets = packets;
        self.frames = frames;
        outcome?;
        Ok(took as f64 / count as f64)
    }
}

impl Peer for Both {
    fn sample(&mut self) -> Result<Vec<Sample>> {
        let packets = self.packets.len() as u64 * self.passes;
        // Every packet's fate was looked at, or there is an error.
        let counted = Counted {
            received: packets,
            sent: packets,
            octets: None,
        };
        let sample = |name, ns| Sample { name, ns, counted };
        Ok(vec![
            sample(OURS, self.time(Self::ours)?),
            sample(THEIRS, self.time(Self::theirs)?),
            sample(FLOOR, self.time(Self::nothing)?),
        ])
    }
}

/// `packets` packets of 4,096 established flows through ours (or the C pipeline), for callgrind.
///
/// # Errors
/// There is no machine code here, or a packet is not sent.
pub fn workload(packets: u64, c: bool) -> Result<()> {
    let mut both = Both::new(1 << 12)?;
    both.passes = packets >> 12;
    both.time(if c { Both::theirs } else { Both::ours })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dash_wire::stats::EniStat;

    /// The C pipeline writes the bytes that ours writes, and counts what ours counts.
    #[test]
    fn the_c_pipeline_does_what_ours_does() {
        let mut both = match Both::new(2_000) {
            Ok(both) => both,
            Err(why) => {
                eprintln!("SKIP: no machine code here: {why:#}");
                return;
            }
        };
        let replies: Vec<Vec<u8>> = {
            let config = Config::new(Scale::BABY_HERO.shrink(4));
            let reply = |n| config.outbound(n).reply().expect("it is allowed");
            (0..2_000).map(|n| reply(n).frame(0x10, 200)).collect()
        };
        let before = both.engine.target_mut().counters().expect("counters");
        both.now_ns = 5_000_000;
        let packets = both.packets.clone();
        for packet in packets.iter().chain(&replies) {
            let mut frames = [Frame::new(), Frame::new()];
            let [ours, theirs] = &mut frames;
            for (frame, c) in [(ours, false), (theirs, true)] {
                // Octets after the inner packet are trimmed: ours moves the end, C says the length.
                assert!(frame.fill(packet));
                let frame = std::slice::from_mut(frame);
                let run = if c { Both::theirs } else { Both::ours };
                run(&mut both, frame).expect("it is sent");
            }
            assert_eq!(
                frames[0].data(),
                frames[1].data(),
                "{}",
                nic_sim::describe(packet)
            );
        }
        let after = both.engine.target_mut().counters().expect("counters");
        for (eni, after) in after.eni {
            let before = &before.eni[&eni];
            let moved = |stat: EniStat| after[stat as usize] - before[stat as usize];
            let theirs = both.theirs.eni_stats(eni as u16).expect("an ENI");
            let pairs = [
                (EniStat::RxPackets, theirs.rx_packets),
                (EniStat::RxBytes, theirs.rx_bytes),
                (EniStat::OutboundRxPackets, theirs.direction_rx_packets[0]),
                (EniStat::InboundRxPackets, theirs.direction_rx_packets[1]),
                (EniStat::OutboundRxBytes, theirs.direction_rx_bytes[0]),
                (EniStat::InboundRxBytes, theirs.direction_rx_bytes[1]),
                (EniStat::TxPackets, theirs.tx_packets),
                (EniStat::TxBytes, theirs.tx_bytes),
                (EniStat::OutboundTxPackets, theirs.direction_tx_packets[0]),
                (EniStat::InboundTxPackets, theirs.direction_tx_packets[1]),
                (EniStat::OutboundTxBytes, theirs.direction_tx_bytes[0]),
                (EniStat::InboundTxBytes, theirs.direction_tx_bytes[1]),
            ];
            for (stat, theirs) in pairs {
                assert_eq!(moved(stat), theirs, "{}", stat.name());
            }
        }
        for flow in both.engine.target_mut().flows().expect("flows") {
            for side in 0..2 {
                let theirs = both
                    .theirs
                    .flow_stats(&flow.sides[side].key)
                    .expect("a flow");
                // Ours saw the packet that made the flow too.
                let first = u64::from(side == 0);
                assert_eq!(theirs.packets, flow.packets[side] - first);
                assert_eq!(theirs.last_seen_ns, flow.last_seen_ns);
            }
        }
    }
}
