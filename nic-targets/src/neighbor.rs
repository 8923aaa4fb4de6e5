//! ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861) for the addresses a port owns: what to
//! answer, what to learn, what to ask. Pure: frames in, frames out.
//!
//! Frames come from whoever can reach the port. What is malformed, or breaks a validity rule of
//! RFC 4861 section 7.1, gives `None`. Learning is unauthenticated by design of both protocols, so
//! what is learned here should not replace what was configured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nic_sim::checksum::Sum;

/// A MAC.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

const ICMPV6: u8 = 58;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE_LINK_LAYER: u8 = 1;
const OPTION_TARGET_LINK_LAYER: u8 = 2;

const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// Shortest Ethernet frame without FCS; shorter ones are padded, as hardware would.
const MIN_FRAME: usize = 60;

/// A message of either protocol, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has `target`? Tell `sender`. An ARP probe or duplicate address detection has no sender
    /// address: 0.0.0.0 or `::`.
    Request {
        /// Asks; `None` when a solicitation does not say its MAC.
        sender_mac: Option<Mac>,
        /// Its address.
        sender: IpAddr,
        /// Asked for.
        target: IpAddr,
    },
    /// `owner` is at `mac`.
    Reply {
        /// Address.
        owner: IpAddr,
        /// Its MAC.
        mac: Mac,
    },
}

fn bytes<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    data.get(offset..)?.first_chunk().copied()
}

fn number(data: &[u8], offset: usize) -> Option<u16> {
    bytes(data, offset).map(u16::from_be_bytes)
}

/// A MAC that one station can have: not zero, not a group.
fn unicast(mac: Mac) -> Option<Mac> {
    (mac != [0; 6] && mac[0] & 1 == 0).then_some(mac)
}

/// Reads an untagged ARP, Neighbor Solicitation or Neighbor Advertisement frame; anything else is
/// `None`.
pub fn parse(frame: &[u8]) -> Option<Message> {
    let body = frame.get(14..)?;
    match number(frame, 12)? {
        ETHERTYPE_ARP => parse_arp(body),
        ETHERTYPE_IPV6 => parse_nd(body),
        _ => None,
    }
}

fn parse_arp(b: &[u8]) -> Option<Message> {
    // Ethernet, IPv4, and their address lengths.
    if bytes(b, 0)? != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let sender_mac = unicast(bytes(b, 8)?)?;
    let sender = Ipv4Addr::from(bytes::<4>(b, 14)?);
    let target = Ipv4Addr::from(bytes::<4>(b, 24)?);
    match number(b, 6)? {
        ARP_REQUEST => Some(Message::Request {
            sender_mac: Some(sender_mac),
            sender: sender.into(),
            target: target.into(),
        }),
        ARP_REPLY => Some(Message::Reply {
            owner: sender.into(),
            mac: sender_mac,
        }),
        _ => None,
    }
}

fn parse_nd(b: &[u8]) -> Option<Message> {
    let len = usize::from(number(b, 4)?);
    let [next_header, hop_limit] = bytes(b, 6)?;
    // A hop limit of 255 proves that the sender is on this link (RFC 4861 section 3.1).
    if b.first()? >> 4 != 6 || next_header != ICMPV6 || hop_limit != 255 {
        return None;
    }
    let (src, dst) = (
        Ipv6Addr::from(bytes::<16>(b, 8)?),
        Ipv6Addr::from(bytes::<16>(b, 24)?),
    );
    let icmp = b.get(40..40 + len)?;
    let sum = Sum::new()
        .pseudo_v6(src, dst, ICMPV6, len as u32)
        .with(icmp)
        .finish();
    let [kind, code] = bytes(icmp, 0)?;
    let target = Ipv6Addr::from(bytes::<16>(icmp, 8)?);
    if sum != 0 || code != 0 || target.is_multicast() {
        return None;
    }
    let options = icmp.get(24..)?;
    match kind {
        NEIGHBOR_SOLICITATION => {
            let sender_mac = link_layer(options, OPTION_SOURCE_LINK_LAYER)?;
            // Duplicate address detection: to the solicited-node group, without a link-layer option.
            if src.is_unspecified() && (sender_mac.is_some() || dst != solicited_node(target)) {
                return None;
            }
            if src.is_multicast() {
                return None;
            }
            Some(Message::Request {
                sender_mac,
                sender: src.into(),
                target: target.into(),
            })
        }
        NEIGHBOR_ADVERTISEMENT => {
            let solicited = bytes::<1>(icmp, 4)?[0] & FLAG_SOLICITED != 0;
            if solicited && dst.is_multicast() {
                return None;
            }
            let mac = link_layer(options, OPTION_TARGET_LINK_LAYER)??;
            Some(Message::Reply {
                owner: target.into(),
                mac,
            })
        }
        _ => None,
    }
}

/// The link-layer address among ND options: outer `None` when an option is malformed, inner when
/// there is no such option.
fn link_layer(mut options: &[u8], wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while !options.is_empty() {
        let [kind, units] = bytes(options, 0)?;
        let len = usize::from(units) * 8;
        // Length 0 would never end: RFC 4861 section 4.6 says to discard the packet.
        let option = options.get(..len).filter(|o| !o.is_empty())?;
        if kind == wanted && units == 1 {
            found = Some(unicast(bytes(option, 2)?)?);
        }
        options = options.get(len..)?;
    }
    Some(found)
}

/// The frame that answers `frame` when it asks for one of `own`, which are at `mac`: an ARP reply
/// or a solicited Neighbor Advertisement.
pub fn answer(frame: &[u8], own: &[IpAddr], mac: Mac) -> Option<Vec<u8>> {
    let Message::Request {
        sender_mac,
        sender,
        target,
    } = parse(frame)?
    else {
        return None;
    };
    if !own.contains(&target) || own.contains(&sender) {
        return None;
    }
    // Solicitations need not say the MAC when it is known; their frame does.
    let to = match sender_mac {
        Some(mac) => mac,
        None => unicast(bytes(frame, 6)?)?,
    };
    match (sender, target) {
        (IpAddr::V4(sender), IpAddr::V4(target)) => {
            Some(arp(ARP_REPLY, to, mac, target, to, sender))
        }
        (IpAddr::V6(sender), IpAddr::V6(target)) if sender.is_unspecified() => {
            // Somebody tries the address: tell everybody that it is taken (section 7.2.4).
            Some(advertisement(
                group_mac(ALL_NODES),
                mac,
                target,
                ALL_NODES,
                FLAG_OVERRIDE,
            ))
        }
        (IpAddr::V6(sender), IpAddr::V6(target)) => Some(advertisement(
            to,
            mac,
            target,
            sender,
            FLAG_SOLICITED | FLAG_OVERRIDE,
        )),
        _ => None,
    }
}

/// The neighbour that `frame` tells of: the sender of an ARP request or reply or of a Neighbor
/// Solicitation, or the target of a Neighbor Advertisement.
pub fn learned(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let (ip, mac) = match parse(frame)? {
        Message::Request {
            sender_mac, sender, ..
        } => (sender, sender_mac?),
        Message::Reply { owner, mac } => (owner, mac),
    };
    let usable = match ip {
        IpAddr::V4(ip) => {
            !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast() && !ip.is_loopback()
        }
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback(),
    };
    usable.then_some((ip, mac))
}

/// A broadcast ARP request: who has `target`? Tell `ip` at `mac`.
pub fn arp_request(mac: Mac, ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp(ARP_REQUEST, BROADCAST, mac, ip, [0; 6], target)
}

/// A Neighbor Solicitation for `target` from `ip` at `mac`, to the target's solicited-node group.
pub fn neighbor_solicitation(mac: Mac, ip: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let group = solicited_node(target);
    nd(
        NEIGHBOR_SOLICITATION,
        0,
        OPTION_SOURCE_LINK_LAYER,
        (group_mac(group), mac),
        (ip, group),
        target,
    )
}

fn advertisement(to: Mac, mac: Mac, target: Ipv6Addr, dst: Ipv6Addr, flags: u8) -> Vec<u8> {
    nd(
        NEIGHBOR_ADVERTISEMENT,
        flags,
        OPTION_TARGET_LINK_LAYER,
        (to, mac),
        (target, dst),
        target,
    )
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// RFC 4291 section 2.7.1.
fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// RFC 2464 section 7.
fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

fn ethernet(dst: Mac, src: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(86);
    frame.extend_from_slice(&dst);
    frame.extend_from_slice(&src);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

fn arp(operation: u16, to: Mac, sha: Mac, spa: Ipv4Addr, tha: Mac, tpa: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(to, sha, ETHERTYPE_ARP);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&sha);
    frame.extend_from_slice(&spa.octets());
    frame.extend_from_slice(&tha);
    frame.extend_from_slice(&tpa.octets());
    frame.resize(MIN_FRAME, 0);
    frame
}

/// A solicitation or advertisement with one link-layer option, which names the sending MAC.
fn nd(
    kind: u8,
    flags: u8,
    option: u8,
    (to, mac): (Mac, Mac),
    ips: (Ipv6Addr, Ipv6Addr),
    target: Ipv6Addr,
) -> Vec<u8> {
    let (src, dst) = ips;
    let mut icmp = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    icmp.extend_from_slice(&target.octets());
    icmp.extend_from_slice(&[option, 1]);
    icmp.extend_from_slice(&mac);
    let sum = Sum::new()
        .pseudo_v6(src, dst, ICMPV6, icmp.len() as u32)
        .with(&icmp)
        .finish();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(to, mac, ETHERTYPE_IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&(icmp.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[ICMPV6, 255]);
    frame.extend_from_slice(&src.octets());
    frame.extend_from_slice(&dst.octets());
    frame.extend_from_slice(&icmp);
    frame
}
