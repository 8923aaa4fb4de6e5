//! Packets: headers read into structs, and new headers written from nothing.
//!
//! Sources: DASH reference 2.1 (what is accepted) and 3.1 to 3.9 (exact bytes); RFC 791, 8200,
//! 7348 (VXLAN), 6040 (ECN across tunnels), 1624 (incremental checksum).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dash_wire::drop::DropReason;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;
const GRE: u8 = 47;
pub(super) const IPV6_FRAGMENT: u8 = 44;

pub(super) const ETH: usize = 14;
pub(super) const ETH_IPV4: [u8; 2] = [0x08, 0x00];
const ETH_ARP: [u8; 2] = [0x08, 0x06];
pub(super) const ETH_IPV6: [u8; 2] = [0x86, 0xdd];

/// Bits of an ECN field (RFC 3168).
mod ecn {
    pub(super) const MASK: u8 = 0b11;
    pub(super) const NOT_ECT: u8 = 0b00;
    pub(super) const ECT_1: u8 = 0b01;
    pub(super) const ECT_0: u8 = 0b10;
    pub(super) const CE: u8 = 0b11;
}

/// `N` bytes at an offset, when the packet has them.
pub(super) fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

pub(super) fn u8_at(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    at(bytes, offset).map(u16::from_be_bytes)
}

/// One's complement sum of the 16-bit words of a header of even length (RFC 1071).
pub(super) fn ones_sum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    fold(words.sum())
}

pub(super) fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Destination and source MAC of a frame; `None` below 14 bytes.
pub(super) struct Ethernet {
    pub(super) dmac: [u8; 6],
    pub(super) smac: [u8; 6],
    ethertype: [u8; 2],
}

impl Ethernet {
    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        Some(Self {
            dmac: at(frame, 0)?,
            smac: at(frame, 6)?,
            ethertype: at(frame, 12)?,
        })
    }
}

/// Outer IPv4 header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    pub(super) sip: [u8; 4],
    pub(super) dip: [u8; 4],
    pub(super) tos: u8,
    protocol: u8,
    header_len: usize,
    total_len: usize,
}

/// What `parse underlay` sees behind the MACs.
pub(super) enum Underlay {
    /// ARP or neighbour discovery.
    Control(&'static str),
    Ipv4(Outer),
}

/// Reads the headers up to the outer IPv4 header.
pub(super) fn parse_underlay(frame: &[u8]) -> Result<Underlay, DropReason> {
    let eth = Ethernet::read(frame).ok_or(DropReason::OuterMalformed)?;
    match eth.ethertype {
        ETH_ARP => Ok(Underlay::Control("ARP")),
        ETH_IPV6 => {
            let next_header = u8_at(frame, ETH + 6);
            let icmp_type = u8_at(frame, ETH + 40);
            match (next_header, icmp_type) {
                (Some(ICMPV6), Some(133..=137)) => {
                    Ok(Underlay::Control("IPv6 neighbour discovery"))
                }
                _ => Err(DropReason::VipMiss),
            }
        }
        ETH_IPV4 => {
            let outer = outer_ipv4(frame).ok_or(DropReason::OuterMalformed)?;
            match u16_at(frame, ETH + 6) {
                Some(word) if word & 0x3fff == 0 => Ok(Underlay::Ipv4(outer)),
                _ => Err(DropReason::OuterFragment),
            }
        }
        _ => Err(DropReason::VipMiss),
    }
}

/// The outer header when it is well formed.
fn outer_ipv4(frame: &[u8]) -> Option<Outer> {
    let ip = frame.get(ETH..)?;
    let fixed: [u8; 20] = at(ip, 0)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    let header = ip.get(..header_len)?;
    let good = fixed[0] >> 4 == 4
        && header_len >= 20
        && total_len >= header_len
        && total_len <= ip.len()
        && ones_sum(header) == 0xffff;
    good.then_some(Outer {
        sip: at(ip, 12)?,
        dip: at(ip, 16)?,
        tos: fixed[1],
        protocol: fixed[9],
        header_len,
        total_len,
    })
}

/// VXLAN or NVGRE header and the MACs behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vxlan {
    pub(super) vni: u32,
    pub(super) smac: [u8; 6],
    pub(super) dmac: [u8; 6],
    /// Bytes in front of the inner frame.
    pub(super) encap_len: usize,
    pub(super) nvgre: bool,
}

/// Reads UDP, VXLAN and the inner Ethernet header; `None` when it is no VXLAN packet to `port`.
pub(super) fn parse_vxlan(frame: &[u8], outer: &Outer, port: [u8; 2]) -> Option<Vxlan> {
    let udp = ETH + outer.header_len;
    let udp_len = usize::from(u16_at(frame, udp + 4)?);
    let vxlan = udp + 8;
    let inner = vxlan + 8;
    let good = outer.protocol == UDP
        && at(frame, udp + 2)? == port
        && udp_len >= 8 + 8 + ETH
        && outer.header_len + udp_len <= outer.total_len
        && u8_at(frame, vxlan)? & 0x08 != 0;
    let [a, b, c] = at(frame, vxlan + 4)?;
    let eth = Ethernet::read(frame.get(inner..)?)?;
    good.then_some(Vxlan {
        vni: u32::from_be_bytes([0, a, b, c]),
        smac: eth.smac,
        dmac: eth.dmac,
        encap_len: inner,
        nvgre: false,
    })
}

/// Reads GRE with a key (RFC 7637) and the inner Ethernet header; `None` when it is no NVGRE packet.
pub(super) fn parse_nvgre(frame: &[u8], outer: &Outer) -> Option<Vxlan> {
    let gre = ETH + outer.header_len;
    let inner = gre + 8;
    let good = outer.protocol == GRE
        && at(frame, gre)? == [0x20, 0x00, 0x65, 0x58]
        && outer.header_len + 8 + ETH <= outer.total_len;
    let [a, b, c] = at(frame, gre + 4)?;
    let eth = Ethernet::read(frame.get(inner..)?)?;
    good.then_some(Vxlan {
        vni: u32::from_be_bytes([0, a, b, c]),
        smac: eth.smac,
        dmac: eth.dmac,
        encap_len: inner,
        nvgre: true,
    })
}

/// Source port of a packet that is UDP outside.
pub(super) fn udp_source(frame: &[u8], outer: &Outer) -> Option<u16> {
    (outer.protocol == UDP).then(|| u16_at(frame, ETH + outer.header_len))?
}

/// The customer's packet, as far as policy looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner {
    pub(super) v6: bool,
    /// IPv4 in the last 4 bytes.
    pub(super) sip: [u8; 16],
    pub(super) dip: [u8; 16],
    pub(super) proto: u8,
    /// TCP and UDP ports, or the ICMP echo identifier twice.
    pub(super) sport: [u8; 2],
    pub(super) dport: [u8; 2],
    /// 0 for what is not TCP.
    pub(super) tcp_flags: u8,
    /// Ethernet to the end of the IP packet.
    pub(super) len: usize,
    /// Its ECN field.
    ecn: u8,
    pub(super) related: Related,
}

/// What a packet has to do with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Related {
    No,
    /// Fragments with this identification follow.
    FirstFragment {
        id: [u8; 4],
    },
    /// It has no ports, and over IPv6 no protocol.
    LaterFragment {
        id: [u8; 4],
        last: bool,
    },
    /// Addresses, protocol and ports are those of an answer to the packet that it quotes.
    IcmpError,
}

impl Inner {
    /// False when it would lose the mark of congestion that it travelled under (RFC 6040).
    pub(super) fn takes_ecn_of(&self, outer_tos: u8) -> bool {
        outer_tos & ecn::MASK != ecn::CE || self.ecn != ecn::NOT_ECT
    }
}

/// Reads the inner frame.
pub(super) fn parse_inner(frame: &[u8]) -> Result<Inner, DropReason> {
    let eth = Ethernet::read(frame).ok_or(DropReason::InnerMalformed)?;
    let ip = frame.get(ETH..).ok_or(DropReason::InnerMalformed)?;
    match eth.ethertype {
        ETH_IPV4 => inner_ipv4(ip),
        ETH_IPV6 => inner_ipv6(ip),
        [0x81, 0x00] | [0x88, 0xa8] => Err(DropReason::InnerVlan),
        _ => Err(DropReason::InnerUnsupported),
    }
}

/// An address of the customer's, for messages.
pub(super) fn address(v6: bool, ip: [u8; 16]) -> IpAddr {
    let [.., a, b, c, d] = ip;
    if v6 {
        Ipv6Addr::from(ip).into()
    } else {
        Ipv4Addr::new(a, b, c, d).into()
    }
}

fn mapped(ipv4: [u8; 4]) -> [u8; 16] {
    let mut all = [0; 16];
    all[12..].copy_from_slice(&ipv4);
    all
}

fn inner_ipv4(ip: &[u8]) -> Result<Inner, DropReason> {
    let header: [u8; 20] = at(ip, 0).ok_or(DropReason::InnerMalformed)?;
    if header[0] >> 4 != 4 {
        return Err(DropReason::InnerMalformed);
    }
    match header[0] & 0x0f {
        5 => {}
        0..5 => return Err(DropReason::InnerMalformed),
        _ => return Err(DropReason::InnerOptions),
    }
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let packet = ip.get(..total_len).ok_or(DropReason::InnerMalformed)?;
    let payload = packet.get(20..).ok_or(DropReason::InnerMalformed)?;
    let ips = [at(ip, 12), at(ip, 16)].map(|ip| ip.map(mapped));
    let [Some(sip), Some(dip)] = ips else {
        return Err(DropReason::InnerMalformed);
    };
    let inner = Inner {
        v6: false,
        sip,
        dip,
        proto: header[9],
        sport: [0; 2],
        dport: [0; 2],
        tcp_flags: 0,
        len: ETH + total_len,
        ecn: header[1] & ecn::MASK,
        related: Related::No,
    };
    let word = u16::from_be_bytes([header[6], header[7]]);
    let (offset, more) = (word & 0x1fff, word & 0x2000 != 0);
    let id = [header[4], header[5], 0, 0];
    if offset != 0 {
        let last = !more;
        let related = Related::LaterFragment { id, last };
        return Ok(Inner { related, ..inner });
    }
    if inner.proto == ICMP && !more && matches!(payload, [3 | 4 | 11 | 12, _, _, _, _, _, _, _, ..])
    {
        return about(inner, quoted_ipv4(&payload[8..]));
    }
    let l4 = L4::read(payload, inner.proto, inner.proto == ICMP);
    let related = if more {
        Related::FirstFragment { id }
    } else {
        Related::No
    };
    let inner = Inner { related, ..inner };
    Ok(l4.ok_or(DropReason::InnerMalformed)?.of(inner))
}

/// Extension headers that are walked.
const WALKED: usize = 4;

fn inner_ipv6(ip: &[u8]) -> Result<Inner, DropReason> {
    let header: [u8; 40] = at(ip, 0).ok_or(DropReason::InnerMalformed)?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::InnerMalformed);
    }
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let payload = ip
        .get(40..40 + payload_len)
        .ok_or(DropReason::InnerMalformed)?;
    let (Some(sip), Some(dip)) = (at(ip, 8), at(ip, 24)) else {
        return Err(DropReason::InnerMalformed);
    };
    let mut inner = Inner {
        v6: true,
        sip,
        dip,
        proto: header[6],
        sport: [0; 2],
        dport: [0; 2],
        tcp_flags: 0,
        len: ETH + 40 + payload_len,
        ecn: (header[1] >> 4) & ecn::MASK,
        related: Related::No,
    };
    if inner.proto == ICMPV6 && matches!(payload, [1..=4, _, _, _, _, _, _, _, ..]) {
        return about(inner, quoted_ipv6(&payload[8..]));
    }
    let mut rest = payload;
    for _ in 0..WALKED {
        let len = match inner.proto {
            IPV6_FRAGMENT => 8,
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => usize::from(u8_at(rest, 1).unwrap_or(0)) * 8 + 8,
            _ => break,
        };
        let header = rest.get(..len).ok_or(DropReason::InnerMalformed)?;
        if inner.proto == IPV6_FRAGMENT {
            let word = u16_at(header, 2).ok_or(DropReason::InnerMalformed)?;
            let id = at(header, 4).ok_or(DropReason::InnerMalformed)?;
            let more = word & 1 != 0;
            if word >> 3 != 0 {
                inner.related = Related::LaterFragment { id, last: !more };
                return Ok(inner);
            }
            // One that is first and last is a whole packet (RFC 6946).
            inner.related = if more {
                Related::FirstFragment { id }
            } else {
                Related::No
            };
        }
        inner.proto = header[0];
        rest = &rest[len..];
    }
    let l4 = L4::read(rest, inner.proto, inner.proto == ICMPV6);
    Ok(l4.ok_or(DropReason::InnerMalformed)?.of(inner))
}

/// Protocol, destination and ports of a packet that an ICMP error quotes, and who sent it.
struct Quoted {
    source: [u8; 16],
    destination: [u8; 16],
    proto: u8,
    ports: [[u8; 2]; 2],
}

/// The error as an answer to what it quotes: whoever gets the error must have sent that.
fn about(error: Inner, quoted: Option<Quoted>) -> Result<Inner, DropReason> {
    let quoted = quoted.filter(|q| q.source == error.dip);
    let quoted = quoted.ok_or(DropReason::IcmpErrorMiss)?;
    let [sport, dport] = quoted.ports;
    Ok(Inner {
        sip: quoted.destination,
        proto: quoted.proto,
        sport: dport,
        dport: sport,
        related: Related::IcmpError,
        ..error
    })
}

fn quoted_ipv4(ip: &[u8]) -> Option<Quoted> {
    let header: [u8; 20] = at(ip, 0)?;
    let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    (header[0] == 0x45 && offset == 0).then_some(())?;
    Some(Quoted {
        source: mapped(at(ip, 12)?),
        destination: mapped(at(ip, 16)?),
        proto: header[9],
        ports: quoted_ports(at(ip, 20)?, header[9], ICMP, [8, 0]),
    })
}

fn quoted_ipv6(ip: &[u8]) -> Option<Quoted> {
    let header: [u8; 40] = at(ip, 0)?;
    (header[0] >> 4 == 6).then_some(())?;
    Some(Quoted {
        source: at(ip, 8)?,
        destination: at(ip, 24)?,
        proto: header[6],
        ports: quoted_ports(at(ip, 40)?, header[6], ICMPV6, [128, 129]),
    })
}

/// Of the 8 bytes behind a quoted IP header.
fn quoted_ports(l4: [u8; 8], proto: u8, icmp: u8, echo: [u8; 2]) -> [[u8; 2]; 2] {
    let [a, b, c, d, e, f, ..] = l4;
    match proto {
        TCP | UDP => [[a, b], [c, d]],
        _ if proto == icmp && echo.contains(&a) => [[e, f]; 2],
        _ => [[0; 2]; 2],
    }
}

/// What the flow key takes from behind the IP header.
#[derive(Default)]
struct L4 {
    sport: [u8; 2],
    dport: [u8; 2],
    tcp_flags: u8,
}

impl L4 {
    /// `None` when the payload is too short for its protocol. `icmp`: the protocol is the ICMP of
    /// the packet's family.
    fn read(payload: &[u8], proto: u8, icmp: bool) -> Option<Self> {
        let ports = || Some((at(payload, 0)?, at(payload, 2)?));
        Some(match proto {
            TCP => {
                at::<20>(payload, 0)?;
                let (sport, dport) = ports()?;
                Self {
                    sport,
                    dport,
                    tcp_flags: u8_at(payload, 13)?,
                }
            }
            UDP => {
                at::<8>(payload, 0)?;
                let (sport, dport) = ports()?;
                Self {
                    sport,
                    dport,
                    tcp_flags: 0,
                }
            }
            _ if icmp => {
                let header: [u8; 8] = at(payload, 0)?;
                // Echo request and reply of either family; the two number spaces do not overlap.
                let echo = if proto == ICMP { [8, 0] } else { [128, 129] }.contains(&header[0]);
                let id = if echo { [header[4], header[5]] } else { [0; 2] };
                Self {
                    sport: id,
                    dport: id,
                    tcp_flags: 0,
                }
            }
            _ => Self::default(),
        })
    }

    /// The packet with what was found.
    fn of(self, inner: Inner) -> Inner {
        let Self {
            sport,
            dport,
            tcp_flags,
        } = self;
        Inner {
            sport,
            dport,
            tcp_flags,
            ..inner
        }
    }
}

/// Combines the ECN field of the outer header into the inner frame (RFC 6040, normal mode) and
/// returns the inner ECN that results; `None` when the frame is no IP packet.
pub(super) fn combine_ecn(frame: &mut [u8], outer_tos: u8) -> Option<u8> {
    let v4 = Ethernet::read(frame)?.ethertype == ETH_IPV4;
    let ip = frame.get_mut(ETH..)?;
    let word: [u8; 2] = at(ip, 0)?;
    // The field's place in the first 16 bits: TOS is the second byte, Traffic Class straddles.
    let shift = if v4 { 0 } else { 4 };
    let inner = (word[1] >> shift) & ecn::MASK;
    let combined = match (outer_tos & ecn::MASK, inner) {
        (ecn::CE, ecn::ECT_0 | ecn::ECT_1) => ecn::CE,
        (ecn::ECT_1, ecn::ECT_0) => ecn::ECT_1,
        _ => inner,
    };
    if combined != inner {
        let changed = [word[0], word[1] & !(ecn::MASK << shift) | combined << shift];
        *ip.first_chunk_mut()? = changed;
        if v4 {
            let sum = u16_at(ip, 10)?;
            let sum = update_checksum(sum, u16::from_be_bytes(word), u16::from_be_bytes(changed));
            *ip.get_mut(10..)?.first_chunk_mut()? = sum.to_be_bytes();
        }
    }
    Some(combined)
}

/// RFC 1624 equation 3: HC' = ~(~HC + ~m + m').
fn update_checksum(sum: u16, old: u16, new: u16) -> u16 {
    !fold(u32::from(!sum) + u32::from(!old) + u32::from(new))
}

/// An encap over IPv4.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encap {
    pub(super) nvgre: bool,
    pub(super) dmac: [u8; 6],
    pub(super) smac: [u8; 6],
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) sip: [u8; 4],
    pub(super) dip: [u8; 4],
    pub(super) sport: [u8; 2],
    pub(super) dport: [u8; 2],
    pub(super) vni: u32,
}

impl Encap {
    /// The 50 bytes (42 of NVGRE) in front of an inner frame of `inner_len`.
    pub(super) fn headers(&self, inner_len: u16) -> Vec<u8> {
        let (more, protocol) = if self.nvgre { (28, GRE) } else { (36, UDP) };
        let mut ip = vec![0x45, self.tos];
        ip.extend(inner_len.wrapping_add(more).to_be_bytes());
        ip.extend([0, 0, 0, 0]); // identification, flags and offset
        ip.extend([self.ttl, protocol, 0, 0]);
        ip.extend(self.sip);
        ip.extend(self.dip);
        let sum = !ones_sum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());

        let mut out = Vec::with_capacity(50 + usize::from(inner_len));
        out.extend(self.dmac);
        out.extend(self.smac);
        out.extend(ETH_IPV4);
        out.extend(ip);
        let [_, a, b, c] = self.vni.to_be_bytes();
        if self.nvgre {
            out.extend([0x20, 0x00, 0x65, 0x58, a, b, c, 0]);
            return out;
        }
        out.extend(self.sport);
        out.extend(self.dport);
        out.extend(inner_len.wrapping_add(16).to_be_bytes());
        out.extend([0, 0]); // no UDP checksum
        out.extend([0x08, 0, 0, 0]); // VNI is valid
        out.extend([a, b, c, 0]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 34-byte frame with an IPv4 header whose checksum is right.
    fn ipv4(tos: u8, id: u16) -> Vec<u8> {
        let mut ip = vec![0x45, tos, 0, 20];
        ip.extend(id.to_be_bytes());
        ip.extend([0, 0, 64, 99, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = !ones_sum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut frame = vec![0; 12];
        frame.extend(ETH_IPV4);
        frame.extend(ip);
        frame
    }

    #[test]
    fn ecn_is_combined_as_rfc_6040_says_and_the_checksum_stays_right() {
        // Rows: inner ECN; columns: outer Not-ECT, ECT(1), ECT(0), CE. Not-ECT under CE is dropped
        // before.
        let table = [
            [0b00, 0b00, 0b00, 0b00],
            [0b01, 0b01, 0b01, 0b11],
            [0b10, 0b01, 0b10, 0b11],
            [0b11; 4],
        ];
        for (inner, row) in table.iter().enumerate() {
            for (outer, want) in row.iter().enumerate() {
                for id in 0..=u16::MAX {
                    let mut frame = ipv4(0xb8 | inner as u8, id);
                    assert_eq!(
                        combine_ecn(&mut frame, outer as u8),
                        Some(*want),
                        "{inner} under {outer}"
                    );
                    assert_eq!(frame[15], 0xb8 | want, "DSCP untouched");
                    assert_eq!(
                        ones_sum(&frame[14..34]),
                        0xffff,
                        "{inner} under {outer}, id {id}"
                    );
                    if (inner, outer) != (2, 1) {
                        // One combination over every header sum is enough.
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn ecn_of_ipv6_sits_in_the_traffic_class() {
        let mut frame = vec![0; 54];
        frame[12..14].copy_from_slice(&ETH_IPV6);
        frame[14..18].copy_from_slice(&[0x6a, 0xa5, 0x55, 0x55]); // TC 0xaa: ECT(0)
        assert_eq!(combine_ecn(&mut frame, 0b11), Some(0b11));
        assert_eq!(frame[14..18], [0x6a, 0xb5, 0x55, 0x55]);
    }

    #[test]
    fn a_change_that_makes_the_sum_wrap_keeps_rfc_1624_s_example() {
        // RFC 1624 section 4: 0xdd2f with 0x5555 becoming 0x3285 gives 0x0000.
        assert_eq!(update_checksum(0xdd2f, 0x5555, 0x3285), 0x0000);
    }
}
