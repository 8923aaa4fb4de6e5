//! ARP and neighbour discovery: what is answered, learned, asked, and refused.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nic_sim::checksum::Sum;
use nic_sim::{Packet, describe};
use nic_targets::neighbor::{Message, answer, arp_request, learned, neighbor_solicitation, parse};
use proptest::prelude::*;

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const VIP4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x12, 0x3456);
const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);

fn own() -> [IpAddr; 2] {
    [VIP4.into(), VIP6.into()]
}

/// Makes the ICMPv6 checksum of a frame right again after a change.
fn fix_icmpv6(frame: &mut [u8]) {
    let addr = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
    let (src, dst) = (addr(22), addr(38));
    let icmp = &mut frame[54..];
    icmp[2..4].fill(0);
    let sum = Sum::new()
        .pseudo_v6(src, dst, 58, icmp.len() as u32)
        .with(icmp)
        .finish();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn an_arp_request_for_an_own_address_is_answered_to_the_asker() {
    let request = Packet::eth([0xff; 6], PEER)
        .arp_request(PEER, PEER4, VIP4)
        .build();
    let mut want = Packet::eth(PEER, OWN)
        .arp_reply(OWN, VIP4, PEER, PEER4)
        .build();
    want.resize(60, 0);
    assert_eq!(answer(&request, &own(), OWN), Some(want));
    assert_eq!(learned(&request), Some((PEER4.into(), PEER)));
}

#[test]
fn what_is_not_asked_of_us_is_not_answered() {
    let ask = |target: [u8; 4]| {
        Packet::eth([0xff; 6], PEER)
            .arp_request(PEER, PEER4, target)
            .build()
    };
    assert_eq!(answer(&ask([10, 0, 0, 2]), &own(), OWN), None);
    assert_eq!(answer(&ask([10, 0, 0, 1]), &[], OWN), None);
    let reply = Packet::eth(OWN, PEER)
        .arp_reply(PEER, PEER4, OWN, VIP4)
        .build();
    assert_eq!(answer(&reply, &own(), OWN), None);
    assert_eq!(learned(&reply), Some((PEER4.into(), PEER)));
    // Gratuitous ARP: somebody claims our address. Answering would be a dialogue between liars.
    let claim = Packet::eth([0xff; 6], PEER)
        .arp_request(PEER, VIP4, VIP4)
        .build();
    assert_eq!(answer(&claim, &own(), OWN), None);
}

#[test]
fn an_arp_probe_is_answered_but_teaches_nothing() {
    let probe = Packet::eth([0xff; 6], PEER)
        .arp_request(PEER, [0, 0, 0, 0], VIP4)
        .build();
    let reply = answer(&probe, &own(), OWN).expect("the address is in use");
    assert_eq!(
        parse(&reply),
        Some(Message::Reply {
            owner: VIP4.into(),
            mac: OWN
        })
    );
    assert_eq!(learned(&probe), None);
}

#[test]
fn group_macs_and_group_addresses_are_never_learned() {
    let reply =
        |mac, ip: [u8; 4]| learned(&Packet::eth(OWN, PEER).arp_reply(mac, ip, OWN, VIP4).build());
    assert_eq!(reply(PEER, [10, 0, 0, 9]), Some((PEER4.into(), PEER)));
    for mac in [[0xff; 6], [0; 6], [1, 0, 0x5e, 0, 0, 1]] {
        assert_eq!(reply(mac, [10, 0, 0, 9]), None, "{mac:02x?}");
    }
    for ip in [[0; 4], [255; 4], [224, 0, 0, 1], [127, 0, 0, 1]] {
        assert_eq!(reply(PEER, ip), None, "{ip:?}");
    }
}

#[test]
fn requests_have_the_bytes_of_the_rfcs() {
    let mut arp = Packet::eth([0xff; 6], OWN)
        .arp_request(OWN, VIP4, PEER4)
        .build();
    arp.resize(60, 0);
    assert_eq!(arp_request(OWN, VIP4, PEER4), arp);
    // RFC 4861 section 4.3 by hand: all but the checksum, which `parse` verifies.
    let mut want = vec![
        0x33, 0x33, 0xff, 0, 0, 9, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255,
    ];
    want.extend(VIP6.octets());
    want.extend("ff02::1:ff00:9".parse::<Ipv6Addr>().unwrap().octets());
    want.extend([135, 0, 0, 0, 0, 0, 0, 0]);
    want.extend(PEER6.octets());
    want.extend([1, 1, 2, 0, 0, 0, 0, 1]);
    fix_icmpv6(&mut want);
    let got = neighbor_solicitation(OWN, VIP6, PEER6);
    assert_eq!(got, want);
    assert!(
        describe(&got).ends_with("ICMPv6 neighbor solicitation fd00::9"),
        "{}",
        describe(&got)
    );
}

#[test]
fn a_solicitation_is_answered_by_a_solicited_advertisement() {
    let ask = neighbor_solicitation(PEER, PEER6, VIP6);
    assert_eq!(learned(&ask), Some((PEER6.into(), PEER)));
    let mut want = vec![
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255,
    ];
    want.extend(VIP6.octets());
    want.extend(PEER6.octets());
    // Solicited and override.
    want.extend([136, 0, 0, 0, 0x60, 0, 0, 0]);
    want.extend(VIP6.octets());
    want.extend([2, 1, 2, 0, 0, 0, 0, 1]);
    fix_icmpv6(&mut want);
    let got = answer(&ask, &own(), OWN).unwrap();
    assert_eq!(got, want);
    assert_eq!(learned(&got), Some((VIP6.into(), OWN)));
    assert_eq!(answer(&ask, &[PEER6.into()], OWN), None);
}

#[test]
fn a_unicast_solicitation_without_its_mac_is_answered_to_the_frame_sender() {
    // Reachability probes (RFC 4861 section 7.2.2) may leave the option out.
    let mut probe = neighbor_solicitation(PEER, PEER6, VIP6);
    probe.truncate(54 + 24);
    probe[18..20].copy_from_slice(&24u16.to_be_bytes());
    probe[38..54].copy_from_slice(&VIP6.octets());
    fix_icmpv6(&mut probe);
    assert_eq!(learned(&probe), None);
    assert_eq!(
        answer(&probe, &own(), OWN).map(|reply| reply[..6].to_vec()),
        Some(PEER.to_vec())
    );
}

#[test]
fn duplicate_address_detection_is_answered_to_all_nodes() {
    let mut dad = neighbor_solicitation(PEER, Ipv6Addr::UNSPECIFIED, VIP6);
    assert_eq!(
        parse(&dad),
        None,
        "an unspecified source must not name its MAC (section 7.1.1)"
    );
    dad.truncate(54 + 24);
    dad[18..20].copy_from_slice(&24u16.to_be_bytes());
    fix_icmpv6(&mut dad);
    assert_eq!(learned(&dad), None);
    let reply = answer(&dad, &own(), OWN).expect("the address is taken");
    assert_eq!(reply[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(
        reply[38..54],
        "ff02::1".parse::<Ipv6Addr>().unwrap().octets()
    );
    assert_eq!(reply[58], 0x20, "override, not solicited");
    assert_eq!(
        parse(&reply),
        Some(Message::Reply {
            owner: VIP6.into(),
            mac: OWN
        })
    );
}

#[test]
fn each_validity_rule_of_neighbour_discovery_refuses_alone() {
    let good = neighbor_solicitation(PEER, PEER6, VIP6);
    assert!(parse(&good).is_some());
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        fix_icmpv6(&mut frame);
        parse(&frame)
    };
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let rules: [(&str, Change<'_>); 8] = [
        ("hop limit 254: not from this link", &|f| f[21] = 254),
        ("not ICMPv6", &|f| f[20] = 17),
        ("version", &|f| f[14] = 0x40),
        ("code", &|f| f[55] = 1),
        ("a group as target", &|f| f[62] = 0xff),
        ("an option of length 0", &|f| f[79] = 0),
        ("an option past the end", &|f| f[79] = 2),
        ("a group as source MAC", &|f| f[80] = 1),
    ];
    for (rule, change) in rules {
        assert_eq!(with(change), None, "{rule}");
    }
    let mut bad_sum = good.clone();
    bad_sum[56] ^= 1;
    assert_eq!(parse(&bad_sum), None);
    let advertisement = answer(&good, &own(), OWN).unwrap();
    let mut to_group = advertisement;
    to_group[38..54].copy_from_slice(&"ff02::1".parse::<Ipv6Addr>().unwrap().octets());
    fix_icmpv6(&mut to_group);
    assert_eq!(parse(&to_group), None, "solicited, but to a group");
}

#[test]
fn padding_is_fine_and_every_truncation_is_refused() {
    for (good, len) in [
        (
            Packet::eth([0xff; 6], PEER)
                .arp_request(PEER, PEER4, VIP4)
                .build(),
            42,
        ),
        (neighbor_solicitation(PEER, PEER6, VIP6), 86),
    ] {
        assert_eq!(good.len(), len);
        let mut padded = good.clone();
        padded.resize(100, 0);
        assert_eq!(parse(&padded), parse(&good));
        for end in 0..len {
            // The last ARP field, the target's address, ends the message.
            assert_eq!(parse(&good[..end]), None, "{len} cut at {end}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), ndp: bool) {
        let mut bytes = bytes;
        if let Some(kind) = bytes.get_mut(12..14) {
            kind.copy_from_slice(if ndp { &[0x86, 0xdd] } else { &[8, 6] });
        }
        let told = learned(&bytes);
        prop_assert!(answer(&bytes, &own(), OWN).is_none_or(|reply| reply.len() >= 60));
        prop_assert!(told.is_none_or(|(_, mac)| mac[0] & 1 == 0));
    }

    #[test]
    fn any_damage_to_a_solicitation_is_survived_and_unless_repaired_refused(at in 0usize..86, value: u8, repair: bool) {
        let good = neighbor_solicitation(PEER, PEER6, VIP6);
        let mut frame = good.clone();
        frame[at] = value;
        if repair && frame[18..20] == good[18..20] {
            fix_icmpv6(&mut frame);
        }
        let parsed = parse(&frame);
        // The checksum covers addresses, length and message: bytes 22 on.
        if at >= 22 && value != good[at] && !repair {
            prop_assert_eq!(parsed, None);
        }
        answer(&frame, &own(), OWN);
    }

    #[test]
    fn what_is_asked_is_answered_and_learned_back(target: [u8; 16], v4: [u8; 4], mac_tail: [u8; 5]) {
        let [a, b, c, d, e] = mac_tail;
        let mac = [2, a, b, c, d, e];
        let target = Ipv6Addr::from(target);
        prop_assume!(!target.is_multicast() && !target.is_unspecified() && !target.is_loopback() && target != PEER6);
        let reply = answer(&neighbor_solicitation(PEER, PEER6, target), &[target.into()], mac).unwrap();
        prop_assert_eq!(learned(&reply), Some((target.into(), mac)));
        let target = Ipv4Addr::from(v4);
        prop_assume!(target != PEER4);
        let reply = answer(&arp_request(PEER, PEER4, target), &[target.into()], mac).unwrap();
        prop_assert_eq!(parse(&reply), Some(Message::Reply { owner: target.into(), mac }));
    }
}
