use nic_sim::Packet;

use super::*;

const MAC0: Mac = [2, 0, 0, 0, 0, 1];
const MAC1: Mac = [2, 0, 0, 0, 0, 2];
const PEER: Mac = [2, 9, 9, 9, 9, 9];
const OTHER: Mac = [2, 9, 9, 9, 9, 8];
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn route(prefix: &str, port: u32, next_hop: Option<&str>) -> UnderlayRoute {
    UnderlayRoute {
        prefix: prefix.parse().unwrap(),
        port,
        next_hop: next_hop.map(|hop| hop.parse().unwrap()),
    }
}

/// 25/8 is on port 0, 101/8 on port 1, the rest behind a router on port 1.
fn neighbors() -> Neighbors {
    Neighbors::new(UnderlayTable {
        routes: vec![
            route("25.0.0.0/8", 0, None),
            route("101.0.0.0/8", 1, None),
            route("0.0.0.0/0", 1, Some("192.0.2.1")),
            route("2001:db8::/32", 1, None),
        ],
        neighbors: BTreeMap::from([(ip("25.1.1.9"), (PEER, 0))]),
        port_macs: vec![MAC0, MAC1],
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn to(dst: &str) -> Vec<u8> {
    Packet::eth(MAC0, PEER)
        .ipv4(VIP, v4(dst))
        .udp(1, 2)
        .payload(b"x")
        .build()
}

fn arp_reply(mac: Mac, ip: &str) -> Vec<u8> {
    Packet::eth(MAC1, mac)
        .arp_reply(mac, v4(ip), MAC1, VIP)
        .build()
}

/// A frame of a port, and what is sent in answer.
fn give(n: &mut Neighbors, port: u32, frame: &[u8], now: Instant) -> Out {
    let mut out = Out::new();
    n.frame(port, frame, Some(VIP), now, &mut out);
    out
}

fn tick(n: &mut Neighbors, now: Instant) -> Out {
    let mut out = Out::new();
    n.tick(Some(VIP), now, &mut out);
    out
}

fn request(port: u32, mac: Mac, target: &str) -> (u32, Vec<u8>) {
    (port, neighbor::arp_request(mac, VIP, v4(target)))
}

#[test]
fn a_packet_asks_for_its_next_hop_once_a_second() {
    let (mut n, start) = (neighbors(), Instant::now());
    let hop = || vec![request(1, MAC1, "101.1.2.3")];
    assert_eq!(give(&mut n, 0, &to("101.1.2.3"), start), hop());
    let soon = start + Duration::from_millis(999);
    assert_eq!(give(&mut n, 0, &to("101.1.2.3"), soon), []);
    let later = start + Duration::from_secs(1);
    assert_eq!(give(&mut n, 0, &to("101.1.2.3"), later), hop());
    // Behind a router it is the router that is asked for.
    let router = vec![request(1, MAC1, "192.0.2.1")];
    assert_eq!(give(&mut n, 0, &to("8.8.8.8"), later), router);
    // Groups and ourselves have no next hop.
    for dst in ["224.0.0.1", "10.0.0.1"] {
        assert_eq!(give(&mut n, 0, &to(dst), later), [], "{dst}");
    }
}

#[test]
fn an_answer_is_learned_and_shows_in_the_underlay_once() {
    let (mut n, now) = (neighbors(), Instant::now());
    give(&mut n, 0, &to("101.1.2.3"), now);
    assert_eq!(n.changed(), None);
    give(&mut n, 1, &arp_reply(PEER, "101.1.2.3"), now);
    assert_eq!(n.changed().unwrap().neighbors[&ip("101.1.2.3")], (PEER, 1));
    assert_eq!(n.changed(), None);
    // Whoever moved says so, and is believed; the same again is no change.
    give(&mut n, 1, &arp_reply(OTHER, "101.1.2.3"), now);
    assert_eq!(n.changed().unwrap().neighbors[&ip("101.1.2.3")], (OTHER, 1));
    give(&mut n, 1, &arp_reply(OTHER, "101.1.2.3"), now);
    assert_eq!(n.changed(), None);
}

#[test]
fn who_was_not_asked_is_not_learned_nor_who_is_elsewhere_nor_who_is_configured() {
    let (mut n, now) = (neighbors(), Instant::now());
    // Nobody asked.
    give(&mut n, 1, &arp_reply(PEER, "101.1.2.3"), now);
    // On a port that the routes do not lead to.
    give(&mut n, 0, &to("101.1.2.3"), now);
    give(&mut n, 0, &arp_reply(PEER, "101.1.2.3"), now);
    // Behind the router by the routes, so not next to the card.
    n.want(ip("8.8.8.8"));
    give(&mut n, 1, &arp_reply(PEER, "8.8.8.8"), now);
    // Ours, and configured.
    give(&mut n, 0, &arp_reply(OTHER, "10.0.0.1"), now);
    give(&mut n, 0, &arp_reply(OTHER, "25.1.1.9"), now);
    assert_eq!(n.changed(), None);
    // A router is next to the card although no route covers it.
    give(&mut n, 1, &arp_reply(PEER, "192.0.2.1"), now);
    assert!(
        n.changed()
            .unwrap()
            .neighbors
            .contains_key(&ip("192.0.2.1"))
    );
}

#[test]
fn who_asks_for_the_vip_is_answered_and_learned() {
    let (mut n, now) = (neighbors(), Instant::now());
    let ask = |target: &str| {
        Packet::eth([0xff; 6], PEER)
            .arp_request(PEER, v4("25.1.1.1"), v4(target))
            .build()
    };
    assert_eq!(give(&mut n, 0, &ask("25.1.1.2"), now), []);
    assert_eq!(n.changed(), None, "a question to somebody else");
    let out = give(&mut n, 0, &ask("10.0.0.1"), now);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].0, 0);
    assert_eq!(neighbor::learned(&out[0].1), Some((VIP.into(), MAC0)));
    assert_eq!(n.changed().unwrap().neighbors[&ip("25.1.1.1")], (PEER, 0));
}

#[test]
fn who_does_not_answer_is_given_up_until_a_packet_comes() {
    let (mut n, start) = (neighbors(), Instant::now());
    let mut asked = give(&mut n, 0, &to("101.1.2.3"), start).len();
    for second in 0..60 {
        let out = tick(&mut n, start + Duration::from_secs(second));
        asked += out
            .iter()
            .filter(|r| **r == request(1, MAC1, "101.1.2.3"))
            .count();
    }
    assert_eq!(asked, usize::from(TRIES));
    let out = give(&mut n, 0, &to("101.1.2.3"), start + Duration::from_secs(60));
    assert_eq!(out, [request(1, MAC1, "101.1.2.3")]);
}

#[test]
fn a_learned_neighbour_is_asked_every_half_minute_and_goes_when_silent() {
    let (mut n, start) = (neighbors(), Instant::now());
    give(&mut n, 0, &to("101.1.2.3"), start);
    give(&mut n, 1, &arp_reply(PEER, "101.1.2.3"), start);
    n.changed();
    let question = request(1, MAC1, "101.1.2.3");
    for second in 0..30 {
        let out = tick(&mut n, start + Duration::from_secs(second));
        assert!(!out.contains(&question), "{second}");
    }
    let confirm = start + Duration::from_secs(30);
    assert!(tick(&mut n, confirm).contains(&question));
    give(&mut n, 1, &arp_reply(PEER, "101.1.2.3"), confirm);
    assert_eq!(n.changed(), None, "it is still there");
    let mut asked = 0;
    for second in 0..60 {
        let out = tick(&mut n, confirm + Duration::from_secs(second));
        asked += out.iter().filter(|r| **r == question).count();
    }
    assert_eq!(asked, usize::from(TRIES));
    assert!(
        !n.changed()
            .unwrap()
            .neighbors
            .contains_key(&ip("101.1.2.3"))
    );
}

#[test]
fn addresses_wait_for_the_vip_and_are_never_more_than_there_is_room_for() {
    let (mut n, start) = (neighbors(), Instant::now());
    for number in 0..5000_u32 {
        n.want(Ipv4Addr::from(0x6501_0000 + number).into());
    }
    let mut out = Out::new();
    n.tick(None, start, &mut out);
    assert_eq!(out, [], "nobody to answer to");
    let mut asked = BTreeMap::new();
    for step in 1..=10 {
        for (_, frame) in tick(&mut n, start + TICK * step) {
            *asked.entry(frame[38..42].to_vec()).or_insert(0) += 1;
        }
    }
    assert_eq!(asked.len(), MAX_PENDING);
    assert!(
        asked.values().all(|times| *times == 1),
        "within a second, once each"
    );
}

#[test]
fn ipv6_next_hops_are_solicited_from_the_ports_link_local_address() {
    let (mut n, now) = (neighbors(), Instant::now());
    let dst: Ipv6Addr = "2001:db8::5".parse().unwrap();
    let packet = Packet::eth(MAC0, PEER)
        .ipv6(dst, dst)
        .udp(1, 2)
        .payload(b"x")
        .build();
    let out = give(&mut n, 0, &packet, now);
    let ours = "fe80::ff:fe00:2".parse().unwrap();
    assert_eq!(out, [(1, neighbor::neighbor_solicitation(MAC1, ours, dst))]);
    let reply = neighbor::answer(&out[0].1, &[dst.into()], PEER).unwrap();
    give(&mut n, 1, &reply, now);
    assert_eq!(n.changed().unwrap().neighbors[&dst.into()], (PEER, 1));
}

#[test]
fn frames_of_any_bytes_are_taken() {
    let (mut n, now) = (neighbors(), Instant::now());
    let whole = to("101.1.2.3");
    for end in 0..whole.len() {
        give(&mut n, 0, &whole[..end], now);
        give(&mut n, 7, &whole[..end], now);
    }
}
