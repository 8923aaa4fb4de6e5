//! A flood of SYNs fills the flow table: what it does to itself, and what it does not do to others.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers stop at the first surprise, with its line"
)]

use dash_engine::{Engine, Options};
use dash_wire::drop::DropReason;
use dash_wire::stats::EniStat;
use dashctl::engines::{EngineName, start};
use nic_sim::Packet;
use nic_target::{Capacity, Frame, PacketEngine, Verdict};

const ESTABLISHED: u16 = 8;
const FLOWS: u32 = 64;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const MS: u64 = 1_000_000;

fn packet(outbound: bool, port: u16, flags: u8) -> Vec<u8> {
    let nic = Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let (eni, peer) = (
        [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e],
        [0xf9, 0x22, 0x83, 0x99, 0x22, 0xa2],
    );
    let (vm, host) = ([10, 1, 1, 10], [10, 1, 1, 1]);
    if outbound {
        let outer = nic.ipv4([25, 1, 1, 1], [10, 0, 0, 1]).udp(5137, 4789);
        let inner = outer.vxlan(4321).eth(peer, eni).ipv4(vm, host);
        inner.tcp(port, 80).flags(flags).payload(b"").build()
    } else {
        let outer = nic.ipv4([101, 1, 2, 3], [10, 0, 0, 1]).udp(5137, 4789);
        let inner = outer.vxlan(45654).eth(eni, peer).ipv4(host, vm);
        inner.tcp(80, port).flags(flags).payload(b"").build()
    }
}

struct Run {
    engine: Engine<dyn PacketEngine>,
    frame: Frame,
}

impl Run {
    fn run(&mut self, at_ms: u64, outbound: bool, port: u16, flags: u8) -> Verdict {
        assert!(self.frame.fill(&packet(outbound, port, flags)));
        self.frame.port = 0;
        self.frame.timestamp_ns = at_ms * MS;
        self.engine.target_mut().run(&mut self.frame).unwrap()
    }

    fn counted(&mut self, stat: EniStat) -> u64 {
        let counters = self.engine.target_mut().counters().unwrap();
        counters
            .eni
            .values()
            .map(|block| block[stat as usize])
            .sum()
    }
}

#[test]
fn a_syn_flood_fills_the_table_and_harms_no_established_connection() {
    let text = include_str!("../../../specs/scenarios/e31-tcp-life/config.json");
    let rows = dash_proto::config::load_config(text).unwrap();
    let (config, _) = dash_proto::config::config_to_txn(&rows).unwrap();
    let sent = Verdict::Send(0);
    for name in [
        EngineName::Model,
        EngineName::Native,
        EngineName::Interp,
        EngineName::Rbpf,
    ] {
        let options = Options {
            capacity: Capacity {
                flows: FLOWS,
                ..EngineName::Kernel.capacity()
            },
            ..Options::default()
        };
        let mut engine = start(name, options).unwrap();
        engine.commit(config.clone()).unwrap();
        let mut run = Run {
            engine,
            frame: Frame::new(),
        };
        for port in 0..ESTABLISHED {
            assert_eq!(run.run(0, true, port, SYN), sent, "{name}");
            assert_eq!(run.run(1, false, port, SYN | ACK), sent, "{name}");
        }
        let room = FLOWS as u16 - ESTABLISHED;
        for n in 0..1000 {
            let expected = if n < room { sent } else { Verdict::Drop };
            assert_eq!(run.run(2, true, 1000 + n, SYN), expected, "{name}: SYN {n}");
            let port = n % ESTABLISHED;
            assert_eq!(run.run(2, n % 2 == 0, port, ACK), sent, "{name}");
        }
        let refused = u64::from(1000 - room);
        for stat in DropReason::FlowTableFull.eni_stats() {
            assert_eq!(run.counted(*stat), refused, "{name}: {}", stat.name());
        }
        assert_eq!(run.engine.flow_count().unwrap(), FLOWS as usize, "{name}");

        // What never answered is gone after its five seconds, and there is room again.
        run.engine.target_mut().advance(5_002 * MS);
        assert_eq!(
            run.engine.flow_count().unwrap(),
            usize::from(ESTABLISHED),
            "{name}"
        );
        assert_eq!(run.run(5_003, true, 2000, SYN), sent, "{name}");
        assert_eq!(run.run(5_003, false, 0, ACK), sent, "{name}");
    }
}
