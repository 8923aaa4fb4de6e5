//! Random packets near what is configured.

use std::net::Ipv6Addr;

use nic_sim::Packet;
use nic_sim::packet::{Layers, last};

use super::World;
use super::redirects::{Quoted, redirect};
use super::rng::Rng;
use super::universe::{
    BACKEND, ENI_BITS, ENI_MASK, ENIS, FLOATING, MACS, OVERLAY_DIP, OVERLAY_HOST, OVERLAY_SIP, PAS,
    PEER, PORTS, V4, VIP, VM_VNI, VNIS, mapped, v6,
};

/// Connections remembered, so that packets come back to them.
pub(super) const RECENT: usize = 24;

#[derive(Clone, Copy)]
pub(super) struct Connection {
    pub(super) eni: [u8; 6],
    pub(super) vm: usize,
    pub(super) peer: usize,
    pub(super) v6: bool,
    pub(super) kind: usize,
    pub(super) protocol: u8,
    pub(super) ports: (u16, u16),
    pub(super) network_vni: u32,
    pub(super) pa: [u8; 4],
}

impl World {
    /// A packet near something configured, often of a connection met before, in either direction;
    /// one in five is damaged.
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        let r = &mut self.rng;
        let c = if let Some(c) = self.again.take() {
            c
        } else if self.recent.is_empty() || r.once_in(3) {
            let c = Connection {
                eni: if r.once_in(30) {
                    MACS[3]
                } else {
                    r.pick(&MACS[..ENIS])
                },
                vm: r.below(2),
                peer: r.below(6),
                v6: r.once_in(4),
                kind: r.below(8),
                protocol: r.pick(&[1, 58, 18, 19, 89, 44, 59]),
                ports: (r.pick(&PORTS), r.pick(&PORTS)),
                network_vni: if r.once_in(20) {
                    777
                } else {
                    r.pick(&VNIS[..2])
                },
                pa: r.pick(&PAS),
            };
            if self.recent.len() == RECENT {
                self.recent.remove(0);
            }
            self.recent.push(c);
            c
        } else {
            r.pick(&self.recent)
        };
        self.last = None;
        let answered = self.sent.take().filter(|_| r.once_in(2));
        if answered.is_some() || r.once_in(24) {
            self.again = answered.map(|(c, _)| c);
            let (c, of) = answered.unwrap_or_else(|| (c, Quoted::guess(r, &c)));
            let bytes = redirect(r, &c, &of);
            return damaged(r, bytes);
        }
        let outbound = !r.once_in(3);
        self.last = Some((c, outbound));
        // Packets come to a floating NIC from both sides; now and then one comes as to another.
        let floating = c.eni == MACS[FLOATING] && !r.once_in(10);
        let vni = if outbound && !floating {
            VM_VNI
        } else {
            c.network_vni
        };
        let vip = if r.once_in(60) { [9, 9, 9, 9] } else { VIP };
        let port = if r.once_in(60) { 4790 } else { 4789 };
        let tos = |r: &mut Rng| {
            if r.once_in(8) {
                r.next() as u8
            } else {
                r.pick(&[0, 0xb8, 0x02, 0x28])
            }
        };
        let outer_tos = tos(r);
        // A VM that moves, now and then; a floating NIC's sources are those that rules know.
        let host = if r.once_in(6) { r.pick(&PAS) } else { PAS[3] };
        let pa = if outbound { host } else { c.pa };
        let mut outer = Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4(pa, vip)
            .tos(outer_tos);
        if r.once_in(12) {
            outer = outer.options(&vec![1; 4 * (r.below(10) + 1)]);
        }
        let tunnel = if r.once_in(6) {
            outer.nvgre(vni)
        } else {
            // Half of them from the ports that source-port security lets through.
            let sport = if r.once_in(4) {
                r.next() as u16
            } else {
                5120 + r.below(128) as u16
            };
            outer.udp(sport, port).vxlan(vni)
        };
        let frame = if outbound && !floating {
            tunnel.eth(PEER, c.eni)
        } else {
            tunnel.eth(c.eni, PEER)
        };
        let inner_tos = tos(r);
        // Now and then around the MTU of the run with settings.
        let payload = if r.once_in(12) {
            vec![0x5a; 360 + r.below(120)]
        } else {
            vec![0x5a; r.below(40)]
        };
        let (sport, dport) = if outbound {
            c.ports
        } else {
            (c.ports.1, c.ports.0)
        };
        let flags = r.pick(&[
            0x02, 0x02, 0x12, 0x10, 0x18, 0x11, 0x11, 0x11, 0x11, 0x01, 0x04, 0x14, 0x00,
        ]);
        let bytes = if r.once_in(10) {
            // Not of the network's but of the transport's ways.
            special(r, &c, outbound, frame.clone(), inner_tos, (sport, dport))
        } else if !outbound && !c.v6 && r.once_in(2) {
            // What a translated packet is answered with, as far as it can be guessed.
            let low = |ip: [u8; 4]| u128::from(u32::from_be_bytes(ip));
            let eni_bits = if r.once_in(2) {
                (ENI_BITS, ENI_MASK)
            } else {
                (0, 0)
            };
            let dst = (OVERLAY_SIP & !eni_bits.1) | eni_bits.0 | low([10, 9, 9, c.vm as u8 + 1]);
            let (src, sport) = match r.below(4) {
                0 => (low(V4[c.peer]), sport),
                1 => (low(BACKEND), mapped(sport)),
                _ => (OVERLAY_HOST, sport),
            };
            let src = Ipv6Addr::from(OVERLAY_DIP | src);
            let ip = frame.ipv6(src, Ipv6Addr::from(dst)).tos(inner_tos);
            match c.kind {
                0..=2 => ip.tcp(sport, dport).flags(flags).payload(&payload).build(),
                _ => ip.udp(sport, dport).payload(&payload).build(),
            }
        } else if c.v6 {
            let (a, b) = (
                Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, c.vm as u16 + 1),
                v6(c.peer),
            );
            let (src, dst) = if outbound { (a, b) } else { (b, a) };
            let ip = frame.ipv6(src, dst).tos(inner_tos);
            match c.kind {
                0..=2 => ip.tcp(sport, dport).flags(flags).payload(&payload).build(),
                3..=5 => ip.udp(sport, dport).payload(&payload).build(),
                6 if outbound => ip.icmpv6_echo(7, 1).build(),
                6 => ip.icmpv6_echo_reply(7, 1).build(),
                _ => ip.protocol(c.protocol).payload(&payload).build(),
            }
        } else {
            let (a, b) = ([10, 9, 9, c.vm as u8 + 1], V4[c.peer]);
            let (src, dst) = if outbound { (a, b) } else { (b, a) };
            let mut ip = frame.ipv4(src, dst).tos(inner_tos);
            if r.once_in(40) {
                ip = ip.fragment(r.below(3) as u16, r.once_in(2));
            }
            if r.once_in(60) {
                ip = ip.options(&[1, 1, 1, 1]);
            }
            match c.kind {
                0..=2 => ip.tcp(sport, dport).flags(flags).payload(&payload).build(),
                5 => ip.udp(sport, dport).checksum(0).payload(&payload).build(),
                3..=4 => ip.udp(sport, dport).payload(&payload).build(),
                6 if outbound => ip.icmp_echo(7, 1).build(),
                6 => ip.icmp_echo_reply(7, 1).build(),
                _ => ip.protocol(c.protocol).payload(&payload).build(),
            }
        };
        damaged(r, bytes)
    }
}

/// One packet in five is not as it was sent.
fn damaged(r: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    match r.below(25) {
        0 => bytes.truncate(r.below(bytes.len() + 1)),
        1 | 2 => {
            let at = r.below(bytes.len());
            bytes[at] ^= 1 << r.below(8);
        }
        3 => bytes.extend(vec![0; r.below(20)]),
        4 => {
            bytes = Packet::eth([0xff; 6], PEER)
                .arp_request(PEER, PAS[0], VIP)
                .build()
        }
        _ => {}
    }
    bytes
}

/// Fragments, extension headers, ICMP errors and tags around a connection; now and then one field off.
fn special(
    r: &mut Rng,
    c: &Connection,
    outbound: bool,
    frame: Layers<last::Eth>,
    tos: u8,
    (sport, dport): (u16, u16),
) -> Vec<u8> {
    // Few, so that pieces meet; whole numbers of 8 bytes but for the last.
    let id = r.below(3) as u16;
    let offset = r.pick(&[0, 0, 2, 3]);
    let more = !r.once_in(3);
    let piece = vec![0x5a; 8 * (r.below(3) + 3)];
    let (vm4, peer4) = ([10, 9, 9, c.vm as u8 + 1], V4[c.peer]);
    let (vm6, peer6) = (
        Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, c.vm as u16 + 1),
        v6(c.peer),
    );
    let turn = |a, b| if outbound { (a, b) } else { (b, a) };
    let (src4, dst4) = turn(vm4, peer4);
    let (src6, dst6) = if outbound { (vm6, peer6) } else { (peer6, vm6) };
    // What the error is about went the other way.
    let quote = |r: &mut Rng, v6: bool| {
        let from = if r.once_in(6) { 9 } else { 0 };
        let head = Packet::eth([0; 6], [0; 6]);
        let (sport, dport) = if r.once_in(8) {
            (sport, dport)
        } else {
            (dport, sport)
        };
        let bytes = if v6 {
            let mut there = dst6.octets();
            there[15] ^= from;
            let ip = head.ipv6(there, src6);
            match c.kind {
                0..=2 => ip.tcp(sport, dport).build(),
                3..=5 => ip.udp(sport, dport).payload([1; 9]).build(),
                _ => ip.icmpv6_echo(7, 1).build(),
            }
        } else {
            let mut there = dst4;
            there[3] ^= from;
            let mut ip = head.ipv4(there, src4);
            if r.once_in(8) {
                ip = ip.fragment(r.below(2) as u16, true);
            }
            match c.kind {
                0..=2 => ip.tcp(sport, dport).build(),
                3..=5 => ip.udp(sport, dport).payload([1; 9]).build(),
                _ => ip.icmp_echo(7, 1).build(),
            }
        };
        let mut quoted = bytes[14..].to_vec();
        if r.once_in(6) {
            quoted.truncate(r.below(60));
        }
        quoted
    };
    match (r.below(8), c.v6) {
        (0, _) => frame.vlan(7).ipv4(src4, dst4).udp(sport, dport).build(),
        (1 | 2, false) => {
            let kind = r.pick(&[3, 4, 5, 11, 12]);
            let quoted = quote(r, false);
            let router = if r.once_in(2) { src4 } else { [10, 7, 7, 7] };
            frame
                .ipv4(router, dst4)
                .tos(tos)
                .icmp_error(kind, 4, quoted)
                .build()
        }
        (1 | 2, true) => {
            let kind = r.pick(&[0, 1, 2, 3, 4, 5, 137]);
            let quoted = quote(r, true);
            frame
                .ipv6(src6, dst6)
                .tos(tos)
                .icmpv6_error(kind, 0, quoted)
                .build()
        }
        (_, false) => {
            let ip = frame
                .ipv4(src4, dst4)
                .tos(tos)
                .id(id)
                .fragment(offset, more);
            match (offset, c.kind) {
                (0, 0..=2) => ip.tcp(sport, dport).flags(0x10).payload(piece).build(),
                (0, 3..=5) => ip.udp(sport, dport).payload(piece).build(),
                (0, _) => ip.icmp_echo(7, 1).payload(piece).build(),
                (_, 0..=2) => ip.protocol(6).payload(piece).build(),
                (_, 3..=5) => ip.protocol(17).payload(piece).build(),
                _ => ip.protocol(1).payload(piece).build(),
            }
        }
        (kind, true) => {
            let mut ip = frame.ipv6(src6, dst6).tos(tos);
            for _ in 0..r.below(3) {
                ip = ip.extension(r.pick(&[0, 43, 60]), r.below(3) as u8);
            }
            if kind < 6 {
                let next = (offset != 0).then_some(r.pick(&[6, 17, 60]));
                ip = ip.fragment(offset, more, id.into(), next);
            }
            if kind < 6 && offset != 0 {
                return ip.payload(piece).build();
            }
            if r.once_in(4) {
                ip = ip.extension(60, 0);
            }
            match c.kind {
                0..=2 => ip.tcp(sport, dport).flags(0x10).payload(piece).build(),
                3..=5 => ip.udp(sport, dport).payload(piece).build(),
                _ => ip.icmpv6_echo(7, 1).payload(piece).build(),
            }
        }
    }
}
