//! A scenario of each program that we ship: what control puts into its maps, packets in, what becomes of them, what
//! is in the maps and the ring buffer then. What is expected is written down, not taken from a run.

use std::collections::{BTreeMap, BTreeSet};

use dash_bpf::helper::XdpAction;
use nic_sim::Packet;
use nic_sim::packet::tcp_flags::{ACK, FIN, SYN};

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CARD: [u8; 6] = [2, 0, 0, 0, 0, 2];
const BACKENDS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]];
const VIP: [u8; 4] = [10, 0, 0, 80];

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Dropped,
    /// Goes on, as these bytes.
    Passed(Vec<u8>),
    /// Back out of the first port.
    SentBack(Vec<u8>),
    /// Out of the second port.
    Redirected(Vec<u8>),
}

/// A map's elements that are not zero: of maps per CPU, the sum of its 64-bit words over CPUs.
pub(crate) type Elements = BTreeMap<Vec<u8>, Vec<u8>>;

/// Where a scenario is run, as programs see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    /// Numbers of the two ports.
    pub(crate) ports: [u32; 2],
    /// What `dash_meta` says of the ENI.
    pub(crate) eni: u32,
    /// And of the place.
    pub(crate) place: u32,
}

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Map, key, value.
    pub(crate) setup: Vec<(&'static str, Vec<u8>, Vec<u8>)>,
    pub(crate) packets: Vec<(Vec<u8>, Fate)>,
    pub(crate) maps: Vec<(&'static str, Elements)>,
    pub(crate) records: Vec<Vec<u8>>,
}

pub(crate) fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_ne_bytes()).collect()
}

fn elements(list: &[(&[u8], Vec<u8>)]) -> Elements {
    list.iter()
        .map(|(key, value)| (key.to_vec(), value.clone()))
        .collect()
}

fn udp(source: u8, sport: u16, dport: u16, dst: [u8; 4]) -> Vec<u8> {
    Packet::eth(CARD, HOST)
        .ipv4([10, 0, 0, source], dst)
        .udp(sport, dport)
        .payload([source; 40])
        .build()
}

fn tcp(source: u8, sport: u16, flags: u8) -> Vec<u8> {
    Packet::eth(CARD, HOST)
        .ipv4([10, 0, 0, source], VIP)
        .tcp(sport, 80)
        .flags(flags)
        .payload([source; 10])
        .build()
}

fn passes(packet: Vec<u8>) -> (Vec<u8>, Fate) {
    (packet.clone(), Fate::Passed(packet))
}

pub(crate) fn all(stage: Stage) -> Vec<Scenario> {
    vec![
        proto_count(),
        ddos_guard(),
        load_balancer(),
        port_redirect(stage),
        flow_export(stage),
        mirror(stage),
    ]
}

fn proto_count() -> Scenario {
    let arp = Packet::eth([0xff; 6], HOST)
        .arp_request(HOST, [10, 0, 0, 1], [10, 0, 0, 2])
        .build();
    let v6 = Packet::eth(CARD, HOST)
        .ipv6([0xfd; 16], [0xfe; 16])
        .udp(5, 6)
        .payload([1; 30])
        .build();
    let (a, b, c) = (udp(1, 1, 2, VIP), tcp(2, 3, SYN), tcp(2, 3, ACK));
    let bytes = |packets: &[&Vec<u8>]| packets.iter().map(|p| p.len() as u64).sum();
    let maps = elements(&[
        (&6u32.to_ne_bytes(), words(&[2, bytes(&[&b, &c])])),
        (&17u32.to_ne_bytes(), words(&[2, bytes(&[&a, &v6])])),
        (&255u32.to_ne_bytes(), words(&[1, bytes(&[&arp])])),
    ]);
    Scenario {
        name: "proto_count",
        setup: vec![],
        packets: [a, b, c, v6, arp].into_iter().map(passes).collect(),
        maps: vec![("protocols", maps)],
        records: vec![],
    }
}

fn ddos_guard() -> Scenario {
    let mut packets = Vec::new();
    // Two SYNs at once of a source; of all its packets seven.
    for n in 0..4 {
        let syn = tcp(1, n, SYN);
        let fate = match n {
            0..2 => Fate::Passed(syn.clone()),
            _ => Fate::Dropped,
        };
        packets.push((syn, fate));
    }
    for n in 0..5 {
        let packet = udp(1, n, 53, VIP);
        // The SYNs that were dropped for being SYNs had been taken out of the packets' bucket.
        let fate = match n {
            0..3 => Fate::Passed(packet.clone()),
            _ => Fate::Dropped,
        };
        packets.push((packet, fate));
    }
    // Another source has its own; a third finds that the destination had three SYNs.
    packets.push(passes(tcp(2, 1, SYN)));
    packets.push((tcp(3, 1, SYN), Fate::Dropped));
    packets.push(passes(tcp(3, 1, SYN | ACK)));
    packets.push(passes(udp(2, 1, 53, VIP)));
    let counts = [(0u32, 2), (1, 2), (2, 1)];
    let counts = counts.map(|(why, n)| (why.to_ne_bytes(), words(&[n])));
    Scenario {
        name: "ddos_guard",
        // Nothing is filled in again: a test may take seconds.
        setup: vec![("limits", numbers(&[0]), numbers(&[0, 7, 0, 2, 0, 3]))],
        packets,
        maps: vec![(
            "dropped",
            counts.into_iter().map(|(k, v)| (k.to_vec(), v)).collect(),
        )],
        records: vec![],
    }
}

/// The program's hash, written again.
fn backend_of(src: [u8; 4], sport: u16, dport: u16, proto: u8, count: u32) -> u32 {
    let mix = |h: u32, word: u32| {
        let h = (h ^ word).wrapping_mul(0x9e37_79b1);
        h ^ (h >> 15)
    };
    let ports = u32::from(sport.swap_bytes()) << 16 | u32::from(dport.swap_bytes());
    mix(mix(mix(0, u32::from_le_bytes(src)), ports), proto.into()) % count
}

fn load_balancer() -> Scenario {
    let address = |n: u32| [192, 168, 7, 10 + n as u8];
    let mut packets = Vec::new();
    for sport in 1000..1008 {
        for proto in [6, 17] {
            let build = |dst: [u8; 4], to: [u8; 6], from: [u8; 6]| {
                let packet = Packet::eth(to, from).ipv4([10, 0, 0, 9], dst);
                match proto {
                    6 => packet.tcp(sport, 80).flags(SYN).payload([7; 25]).build(),
                    _ => packet.udp(sport, 53).payload([7; 25]).build(),
                }
            };
            let (dport, action): (u16, fn(Vec<u8>) -> Fate) = match proto {
                6 => (80, Fate::SentBack),
                _ => (53, Fate::Passed),
            };
            let n = backend_of([10, 0, 0, 9], sport, dport, proto, 2);
            // Made by the builder with checksums of its own.
            let expected = build(address(n), BACKENDS[n as usize], CARD);
            packets.push((build(VIP, CARD, HOST), action(expected)));
        }
    }
    let both = packets.iter().filter_map(|(_, fate)| match fate {
        Fate::SentBack(packet) => Some(packet[5]),
        _ => None,
    });
    let both: BTreeSet<u8> = both.collect();
    assert_eq!(both.len(), 2, "packets of both backends");
    // Another port, another protocol, another address.
    packets.push(passes(udp(3, 1000, 80, VIP)));
    packets.push(passes(udp(3, 1000, 53, [10, 0, 0, 81])));
    // No checksum stays none.
    let plain = |dst, to, from| {
        Packet::eth(to, from)
            .ipv4([10, 0, 0, 9], dst)
            .udp(1, 53)
            .checksum(0)
            .payload([1; 4])
            .build()
    };
    let n = backend_of([10, 0, 0, 9], 1, 53, 17, 2);
    let (sent, to) = (plain(VIP, CARD, HOST), BACKENDS[n as usize]);
    packets.push((sent, Fate::Passed(plain(address(n), to, CARD))));

    let service = |port: u16, proto: u8| {
        let mut key = VIP.to_vec();
        key.extend(port.to_be_bytes());
        key.extend([proto, 0]);
        key
    };
    let backends = |action: XdpAction| numbers(&[0, 2, action as u32]);
    let backend = |n: u8| {
        let mut row = vec![192, 168, 7, 10 + n];
        row.extend(BACKENDS[usize::from(n)]);
        row.extend([0, 0]);
        ("backends", numbers(&[u32::from(n)]), row)
    };
    Scenario {
        name: "load_balancer",
        setup: vec![
            ("services", service(80, 6), backends(XdpAction::Tx)),
            ("services", service(53, 17), backends(XdpAction::Pass)),
            backend(0),
            backend(1),
        ],
        packets,
        maps: vec![],
        records: vec![],
    }
}

fn port_redirect(stage: Stage) -> Scenario {
    let packets = (0..5).map(|n| {
        let packet = udp(n, 1, 2, VIP);
        (packet.clone(), Fate::Redirected(packet))
    });
    let [from, to] = stage.ports;
    Scenario {
        name: "port_redirect",
        setup: vec![("ports", numbers(&[from]), numbers(&[to]))],
        packets: packets.collect(),
        maps: vec![],
        records: vec![],
    }
}

fn flow_export(stage: Stage) -> Scenario {
    let flow = |source: u8, sport: u16, dport: u16, proto: u8| {
        let mut key = vec![0; 48];
        key[12..16].copy_from_slice(&[10, 0, 0, source]);
        key[28..32].copy_from_slice(&VIP);
        key[32..34].copy_from_slice(&sport.to_be_bytes());
        key[34..36].copy_from_slice(&dport.to_be_bytes());
        key[36] = proto;
        key[40..44].copy_from_slice(&stage.eni.to_ne_bytes());
        key
    };
    let packets = [
        tcp(1, 7, SYN),
        tcp(1, 7, ACK),
        udp(2, 8, 53, VIP),
        udp(2, 8, 53, VIP),
        udp(3, 8, 53, VIP),
        tcp(1, 7, FIN | ACK),
    ];
    let (tcp_len, len) = (packets[0].len() as u64, packets[2].len() as u64);
    let (a, b, c) = (flow(1, 7, 80, 6), flow(2, 8, 53, 17), flow(3, 8, 53, 17));
    // Three begin (1), one ends (3).
    let record = |flow: &Vec<u8>, packets: u64, bytes: u64, event: u32| {
        [flow.clone(), words(&[packets, bytes]), numbers(&[event, 0])].concat()
    };
    let records = vec![
        record(&a, 1, tcp_len, 1),
        record(&b, 1, len, 1),
        record(&c, 1, len, 1),
        record(&a, 3, 3 * tcp_len, 3),
    ];
    Scenario {
        name: "flow_export",
        setup: vec![],
        packets: packets.into_iter().map(passes).collect(),
        maps: vec![(
            "flows",
            elements(&[(&b, words(&[2, 2 * len])), (&c, words(&[1, len]))]),
        )],
        records,
    }
}

fn mirror(stage: Stage) -> Scenario {
    let long = Packet::eth(CARD, HOST)
        .ipv4([10, 0, 0, 4], VIP)
        .udp(1, 2)
        .payload([9; 400])
        .build();
    let mut packets: Vec<_> = (0..4).map(|n| udp(n, 1, 2, VIP)).collect();
    packets.push(long);
    let record = |packet: &Vec<u8>| {
        let kept = packet.len().min(256);
        let head = [
            packet.len() as u32,
            kept as u32,
            stage.ports[0],
            stage.place,
        ];
        let mut record = numbers(&head);
        record.extend(&packet[..kept]);
        record.resize(16 + 256, 0);
        record
    };
    Scenario {
        name: "mirror",
        setup: vec![("one_in", numbers(&[0]), numbers(&[2]))],
        records: packets.iter().step_by(2).map(record).collect(),
        packets: packets.into_iter().map(passes).collect(),
        maps: vec![("seen", elements(&[(&numbers(&[0]), words(&[5]))]))],
    }
}
