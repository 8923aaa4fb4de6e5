//! The packet builder against the golden vectors, and summaries of anything.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use nic_sim::packet::tcp_flags;
use nic_sim::{Packet, describe};
use proptest::prelude::*;

const PORT: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NEIGHBOR: [u8; 6] = [2, 0, 0, 0, 0, 2];
const VM: [u8; 6] = [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e];
const PEER: [u8; 6] = [0xf9, 0x22, 0x83, 0x99, 0x22, 0xa2];
const VIP: [u8; 4] = [10, 0, 0, 1];
const HOST: [u8; 4] = [25, 1, 1, 1];
const PA: [u8; 4] = [101, 1, 2, 3];
const VM_CA: [u8; 4] = [10, 1, 1, 10];
const PEER_CA: [u8; 4] = [10, 1, 1, 1];

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|b| u8::from_str_radix(b, 16).unwrap())
        .collect()
}

/// Golden vectors of the VNET cases: name, bytes, how they are built, summary.
fn golden() -> Vec<(&'static str, Vec<u8>, Vec<u8>, &'static str)> {
    let outer = |dst, src, sip: [u8; 4], dip: [u8; 4], sport, vni| {
        Packet::eth(dst, src)
            .ipv4(sip, dip)
            .udp(sport, 4789)
            .vxlan(vni)
    };
    vec![
        (
            "V1-in",
            unhex(
                "02 00 00 00 00 01 02 00 00 00 00 02 08 00 45 00 00 56 00 00 00 00 40 11 56 95 19 01 01 01 0a 00
                 00 01 14 11 12 b5 00 42 00 00 08 00 00 00 00 10 e1 00 00 00 5e 00 01 01 f4 93 9f ef c4 7e 08 00
                 45 00 00 24 00 00 00 00 40 11 64 bd 0a 01 01 0a 0a 01 01 01 03 e8 07 d0 00 10 9e e6 44 41 53 48
                 54 45 53 54",
            ),
            outer(PORT, NEIGHBOR, HOST, VIP, 5137, 4321)
                .eth([0, 0, 0x5e, 0, 1, 1], VM)
                .ipv4(VM_CA, PEER_CA)
                .udp(1000, 2000)
                .payload("DASHTEST")
                .build(),
            "02:00:00:00:00:02 > 02:00:00:00:00:01 IPv4 25.1.1.1 > 10.0.0.1 ttl 64 UDP 5137 > 4789 VXLAN 4321 | \
             f4:93:9f:ef:c4:7e > 00:00:5e:00:01:01 IPv4 10.1.1.10 > 10.1.1.1 ttl 64 UDP 1000 > 2000 len 8",
        ),
        (
            "V1-out",
            unhex(
                "02 00 00 00 00 02 02 00 00 00 00 01 08 00 45 00 00 56 00 00 00 00 40 11 09 93 0a 00 00 01 65 01
                 02 03 14 22 12 b5 00 42 00 00 08 00 00 00 00 b2 56 00 f9 22 83 99 22 a2 f4 93 9f ef c4 7e 08 00
                 45 00 00 24 00 00 00 00 40 11 64 bd 0a 01 01 0a 0a 01 01 01 03 e8 07 d0 00 10 9e e6 44 41 53 48
                 54 45 53 54",
            ),
            outer(NEIGHBOR, PORT, VIP, PA, 0x1422, 45654)
                .eth(PEER, VM)
                .ipv4(VM_CA, PEER_CA)
                .udp(1000, 2000)
                .payload("DASHTEST")
                .build(),
            "02:00:00:00:00:01 > 02:00:00:00:00:02 IPv4 10.0.0.1 > 101.1.2.3 ttl 64 UDP 5154 > 4789 VXLAN 45654 | \
             f4:93:9f:ef:c4:7e > f9:22:83:99:22:a2 IPv4 10.1.1.10 > 10.1.1.1 ttl 64 UDP 1000 > 2000 len 8",
        ),
        (
            "V6-in",
            unhex(
                "02 00 00 00 00 01 02 00 00 00 00 02 08 00 45 00 00 56 00 00 00 00 40 11 09 93 65 01 02 03 0a 00
                 00 01 14 55 12 b5 00 42 00 00 08 00 00 00 00 b2 56 00 f4 93 9f ef c4 7e f9 22 83 99 22 a2 08 00
                 45 00 00 24 00 00 00 00 40 11 64 bd 0a 01 01 01 0a 01 01 0a 07 d0 03 e8 00 10 9e e6 44 41 53 48
                 54 45 53 54",
            ),
            outer(PORT, NEIGHBOR, PA, VIP, 0x1455, 45654)
                .eth(VM, PEER)
                .ipv4(PEER_CA, VM_CA)
                .udp(2000, 1000)
                .payload("DASHTEST")
                .build(),
            "02:00:00:00:00:02 > 02:00:00:00:00:01 IPv4 101.1.2.3 > 10.0.0.1 ttl 64 UDP 5205 > 4789 VXLAN 45654 | \
             f9:22:83:99:22:a2 > f4:93:9f:ef:c4:7e IPv4 10.1.1.1 > 10.1.1.10 ttl 64 UDP 2000 > 1000 len 8",
        ),
        (
            "V6-out",
            unhex(
                "02 00 00 00 00 02 02 00 00 00 00 01 08 00 45 00 00 56 00 00 00 00 40 11 56 95 0a 00 00 01 19 01
                 01 01 14 66 12 b5 00 42 00 00 08 00 00 00 00 10 e1 00 f4 93 9f ef c4 7e f9 22 83 99 22 a2 08 00
                 45 00 00 24 00 00 00 00 40 11 64 bd 0a 01 01 01 0a 01 01 0a 07 d0 03 e8 00 10 9e e6 44 41 53 48
                 54 45 53 54",
            ),
            outer(NEIGHBOR, PORT, VIP, HOST, 0x1466, 4321)
                .eth(VM, PEER)
                .ipv4(PEER_CA, VM_CA)
                .udp(2000, 1000)
                .payload("DASHTEST")
                .build(),
            "02:00:00:00:00:01 > 02:00:00:00:00:02 IPv4 10.0.0.1 > 25.1.1.1 ttl 64 UDP 5222 > 4789 VXLAN 4321 | \
             f9:22:83:99:22:a2 > f4:93:9f:ef:c4:7e IPv4 10.1.1.1 > 10.1.1.10 ttl 64 UDP 2000 > 1000 len 8",
        ),
    ]
}

#[test]
fn golden_vectors_come_out_byte_for_byte() {
    for (name, want, built, _) in golden() {
        assert_eq!(built, want, "{name}");
    }
}

#[test]
fn golden_vectors_are_summarised_outer_and_inner() {
    for (name, want, _, summary) in golden() {
        assert_eq!(describe(&want), summary, "{name}");
    }
}

/// The inner TCP SYN of golden vector V5-in: fixed sequence number and window.
#[test]
fn a_tcp_syn_has_the_golden_bytes() {
    let inner = Packet::eth([0, 0, 0x5e, 0, 1, 1], VM)
        .ipv4([10, 1, 1, 1], [50, 1, 2, 1])
        .tcp(40000, 443)
        .numbers(1, 0)
        .build();
    let want = unhex(
        "00 00 5e 00 01 01 f4 93 9f ef c4 7e 08 00 45 00 00 28 00 00 00 00 40 06 3b cd 0a 01 01 01 32 01 02 01
         9c 40 01 bb 00 00 00 01 00 00 00 00 50 02 20 00 b2 e2 00 00",
    );
    assert_eq!(inner, want);
}

/// The inner IPv6 packet of golden vector V2-out: its UDP checksum covers the IPv6 pseudo header.
#[test]
fn an_ipv6_udp_packet_has_the_golden_bytes() {
    let src = "fd40:108:20:d107:64:ff71:a00:b"
        .parse::<std::net::Ipv6Addr>()
        .unwrap();
    let dst = "2603:10e1:100:2::3401:203"
        .parse::<std::net::Ipv6Addr>()
        .unwrap();
    let inner = Packet::eth([0x43, 0xbe, 0x65, 0x25, 0xfa, 0x67], VM)
        .ipv6(src, dst)
        .udp(0x1a85, 0x11d7)
        .payload("DASHTEST")
        .build();
    let want = unhex(
        "43 be 65 25 fa 67 f4 93 9f ef c4 7e 86 dd 60 00 00 00 00 10 11 40 fd 40 01 08 00 20 d1 07 00 64 ff 71 0a 00
         00 0b 26 03 10 e1 01 00 00 02 00 00 00 00 34 01 02 03 1a 85 11 d7 00 10 4d 13 44 41 53 48 54 45 53 54",
    );
    assert_eq!(inner, want);
}

#[test]
fn summaries_name_what_is_unusual() {
    let ip = || Packet::eth(PORT, NEIGHBOR).ipv4([1, 1, 1, 1], [2, 2, 2, 2]);
    let head = "02:00:00:00:00:02 > 02:00:00:00:00:01 ";
    let v6 = || Packet::eth(PORT, NEIGHBOR).ipv6([0xfd; 16], [0xfe; 16]);
    let v6_head = "IPv6 fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd > fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe ttl 64";
    for (frame, rest) in [
        (
            ip().ttl(3).tos(0x2e).icmp_echo(7, 9).build(),
            "IPv4 1.1.1.1 > 2.2.2.2 ttl 3 tos 0x2e ICMP echo request id 7 seq 9",
        ),
        (
            ip().options(&[7, 3, 4]).udp(1, 2).build(),
            "IPv4 1.1.1.1 > 2.2.2.2 ttl 64 options 4 UDP 1 > 2 len 0",
        ),
        (
            ip().fragment(0, true).udp(1, 2).build(),
            "IPv4 1.1.1.1 > 2.2.2.2 ttl 64 fragment 0+ UDP 1 > 2 len 0",
        ),
        (
            ip().fragment(100, false).payload([0; 8]).build(),
            "IPv4 1.1.1.1 > 2.2.2.2 ttl 64 fragment 800",
        ),
        (
            ip().protocol(89).payload([0; 8]).build(),
            "IPv4 1.1.1.1 > 2.2.2.2 ttl 64 protocol 89 len 8",
        ),
        (
            ip().total_len(19).udp(1, 2).build(),
            "IPv4 1.1.1.1 > 2.2.2.2 ttl 64 [lengths 20/19]",
        ),
        (
            ip().total_len(29).udp(1, 2).build(),
            "IPv4 1.1.1.1 > 2.2.2.2 ttl 64 [truncated]",
        ),
        (
            ip().tcp(5, 6)
                .flags(tcp_flags::FIN | tcp_flags::ACK)
                .numbers(7, 8)
                .payload("abc")
                .build(),
            "IPv4 1.1.1.1 > 2.2.2.2 ttl 64 TCP 5 > 6 [F.] seq 7 ack 8 len 3",
        ),
        (
            ip().udp(1, 4789).vxlan(5).vxlan_flags(0).build(),
            "IPv4 1.1.1.1 > 2.2.2.2 ttl 64 UDP 1 > 4789 VXLAN 5 flags 0x00 | [truncated]",
        ),
        (
            v6().icmpv6_echo_reply(1, 2).build(),
            &format!("{v6_head} ICMPv6 echo reply id 1 seq 2"),
        ),
        (
            Packet::eth(PORT, NEIGHBOR)
                .vlan(12)
                .ipv4([1, 1, 1, 1], [2, 2, 2, 2])
                .build(),
            "VLAN 12 IPv4 1.1.1.1 > 2.2.2.2 ttl 64 protocol 253 len 0",
        ),
        (
            Packet::eth(PORT, NEIGHBOR)
                .ethertype(0x88cc)
                .payload([0; 46])
                .build(),
            "ethertype 0x88cc len 46",
        ),
        (
            Packet::eth([0xff; 6], NEIGHBOR)
                .arp_request(NEIGHBOR, [10, 0, 0, 9], VIP)
                .build(),
            "ARP who-has 10.0.0.1 tell 10.0.0.9 (02:00:00:00:00:02)",
        ),
        (
            Packet::eth(PORT, NEIGHBOR)
                .arp_reply(NEIGHBOR, [10, 0, 0, 9], PORT, VIP)
                .build(),
            "ARP 10.0.0.9 is-at 02:00:00:00:00:02 for 10.0.0.1",
        ),
    ] {
        let line = describe(&frame);
        let got = line.splitn(4, ' ').nth(3).unwrap_or_default();
        assert!(
            line.starts_with(&head[..20]) && got == rest,
            "{line}\nwant {rest}"
        );
    }
}

#[test]
fn every_truncation_of_a_golden_vector_is_summarised_as_truncated() {
    for (name, frame, ..) in golden() {
        for end in 0..frame.len() {
            let line = describe(&frame[..end]);
            assert!(line.ends_with("[truncated]"), "{name} cut at {end}: {line}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_have_a_summary_of_one_line(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(!describe(&bytes).contains('\n'));
    }

    #[test]
    fn any_damage_to_a_golden_vector_has_a_summary(which in 0usize..4, at in 0usize..100, value: u8, end in 0usize..=100) {
        let mut frame = golden().swap_remove(which).1;
        frame[at] = value;
        frame.truncate(end);
        prop_assert!(!describe(&frame).is_empty());
    }
}
