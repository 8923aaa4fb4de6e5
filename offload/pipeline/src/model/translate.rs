//! IPv4 to IPv6 and back, with ports and checksums (DASH reference 3.4, 3.8; RFC 1624, 7915).

use dash_wire::drop::DropReason;

use super::packet::{
    ETH, ETH_IPV4, ETH_IPV6, IPV6_FRAGMENT, TCP, UDP, at, fold, ones_sum, u8_at, u16_at,
};

/// What the inner packet's addresses and ports become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// IPv4 in the last 4 bytes.
    pub(super) sip: [u8; 16],
    pub(super) dip: [u8; 16],
    pub(super) sport: [u8; 2],
    pub(super) dport: [u8; 2],
}

/// A cut packet, which the parsers do not leave.
const SHORT: DropReason = DropReason::Internal;

/// What a packet of this transport protocol must be to be translated.
pub(super) fn translatable(frame: &[u8], proto: u8) -> Result<(), DropReason> {
    if at(frame, 12) == Some(ETH_IPV4) {
        let whole = u16_at(frame, ETH + 6).ok_or(SHORT)? & 0x3fff == 0;
        return whole.then_some(()).ok_or(DropReason::InnerFragment);
    }
    match u8_at(frame, ETH + 6).ok_or(SHORT)? {
        next if next == proto => Ok(()),
        IPV6_FRAGMENT => Err(DropReason::InnerFragment),
        _ => Err(DropReason::NotTranslatable),
    }
}

/// The frame with an IPv6 header in place of its IPv4 header, from Ethernet to the IP packet's end.
pub(super) fn to_ipv6(frame: &[u8], ends: &Ends) -> Result<Vec<u8>, DropReason> {
    let ip: [u8; 20] = at(frame, ETH).ok_or(SHORT)?;
    let payload = frame.get(ETH + 20..).ok_or(SHORT)?;
    let old = sum_of(&ip[12..20], payload).ok_or(SHORT)?;
    let mut out = frame.get(..12).ok_or(SHORT)?.to_vec();
    out.extend(ETH_IPV6);
    let tos = ip[1];
    out.extend([0x60 | tos >> 4, tos << 4, 0, 0]);
    out.extend((payload.len() as u16).to_be_bytes());
    out.extend([ip[9], ip[8]]);
    out.extend(ends.sip);
    out.extend(ends.dip);
    out.extend(transport(payload, ip[9], old, ends, true)?);
    Ok(out)
}

/// The frame with an IPv4 header in place of its IPv6 header, from Ethernet to the IP packet's end.
pub(super) fn to_ipv4(frame: &[u8], ends: &Ends) -> Result<Vec<u8>, DropReason> {
    let ip: [u8; 40] = at(frame, ETH).ok_or(SHORT)?;
    let payload = frame.get(ETH + 40..).ok_or(SHORT)?;
    let old = sum_of(&ip[8..40], payload).ok_or(SHORT)?;
    let mut header = vec![0x45, ip[0] << 4 | ip[1] >> 4];
    header.extend((payload.len() as u16).wrapping_add(20).to_be_bytes());
    header.extend([0, 0, 0, 0, ip[7], ip[6], 0, 0]);
    header.extend(&ends.sip[12..]);
    header.extend(&ends.dip[12..]);
    let sum = !ones_sum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut out = frame.get(..12).ok_or(SHORT)?.to_vec();
    out.extend(ETH_IPV4);
    out.extend(header);
    out.extend(transport(payload, ip[6], old, ends, false)?);
    Ok(out)
}

/// Sum of what a transport checksum covers and a translation changes: addresses and ports.
fn sum_of(addresses: &[u8], payload: &[u8]) -> Option<u16> {
    let ports = at::<4>(payload, 0)?;
    Some(ones_sum(&[addresses, &ports[..]].concat()))
}

/// The payload with its ports and checksum changed. `old` is the sum of what was there.
fn transport(
    payload: &[u8],
    proto: u8,
    old: u16,
    ends: &Ends,
    to_ipv6: bool,
) -> Result<Vec<u8>, DropReason> {
    let mut out = payload.to_vec();
    let ports = [ends.sport, ends.dport].concat();
    out.get_mut(..4).ok_or(SHORT)?.copy_from_slice(&ports);
    // The zeros in front of an IPv4 address do not count.
    let new = ones_sum(&[&ends.sip[..], &ends.dip, &ports].concat());
    let updated = |sum: u16| !fold(u32::from(!sum) + u32::from(!old) + u32::from(new));
    let place = match proto {
        TCP => 16,
        UDP => 6,
        _ => return Ok(out),
    };
    let before = u16_at(payload, place).ok_or(SHORT)?;
    let after = match (proto, before) {
        (TCP, _) => updated(before),
        (_, 0) if to_ipv6 => from_0(whole_sum(&out, ends)?),
        (_, 0) => 0,
        _ => from_0(updated(before)),
    };
    let place = out.get_mut(place..place + 2).ok_or(SHORT)?;
    place.copy_from_slice(&after.to_be_bytes());
    Ok(out)
}

/// 0 in a UDP header says that there is no checksum (RFC 768).
fn from_0(sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}

/// Checksum of a UDP datagram over IPv6 (RFC 8200, 8.1) whose own is 0.
fn whole_sum(udp: &[u8], ends: &Ends) -> Result<u16, DropReason> {
    let len = u16_at(udp, 4).ok_or(SHORT)?;
    let datagram = udp.get(..usize::from(len));
    let datagram = datagram.filter(|d| d.len() >= 8);
    let mut bytes = datagram.ok_or(DropReason::InnerMalformed)?.to_vec();
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    bytes.extend(ends.sip);
    bytes.extend(ends.dip);
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, UDP]);
    debug_assert!(u8_at(udp, 6) == Some(0) && u8_at(udp, 7) == Some(0));
    Ok(!ones_sum(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(sip: [u8; 16], dip: [u8; 16]) -> Ends {
        Ends {
            sip,
            dip,
            sport: [0x9c, 0x40],
            dport: [0x01, 0xbb],
        }
    }

    /// A UDP packet over IPv4 with this checksum.
    fn udp(checksum: [u8; 2], payload: &[u8]) -> Vec<u8> {
        let len = (8 + payload.len()) as u16;
        let mut frame = vec![2; 12];
        frame.extend(ETH_IPV4);
        frame.extend([0x45, 0xb8]);
        frame.extend((20 + len).to_be_bytes());
        frame.extend([0, 0, 0, 0, 9, UDP, 0, 0, 10, 0, 0, 11, 10, 2, 0, 100]);
        frame.extend([0x9c, 0x40, 0x01, 0xbb]);
        frame.extend(len.to_be_bytes());
        frame.extend(checksum);
        frame.extend(payload);
        frame
    }

    /// Sum over the pseudo header and the datagram of an IPv6 packet: 0xffff when it is right.
    fn checks(frame: &[u8]) -> u16 {
        let mut bytes = frame[ETH + 40..].to_vec();
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        bytes.extend(&frame[ETH + 8..ETH + 40]);
        bytes.extend(&frame[ETH + 4..ETH + 6]);
        bytes.extend([0, UDP]);
        ones_sum(&bytes)
    }

    #[test]
    fn a_datagram_without_a_checksum_gets_one_that_is_right_at_every_length() {
        for len in 0..200 {
            let payload: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let frame = to_ipv6(&udp([0, 0], &payload), &ends([0xfd; 16], [0x26; 16]));
            let frame = frame.unwrap();
            assert_ne!(frame[ETH + 46..ETH + 48], [0, 0], "{len}");
            assert_eq!(checks(&frame), 0xffff, "{len}");
        }
    }

    #[test]
    fn there_and_back_is_the_same_packet() {
        let (v6, v4) = (ends([0xfd; 16], [0x26; 16]), {
            let mut ips = [[0; 16]; 2];
            ips[0][12..].copy_from_slice(&[10, 0, 0, 11]);
            ips[1][12..].copy_from_slice(&[10, 2, 0, 100]);
            ends(ips[0], ips[1])
        });
        let with_sum = {
            let mut frame = to_ipv6(&udp([0, 0], b"DASHTEST"), &v6).unwrap();
            frame = to_ipv4(&frame, &v4).unwrap();
            frame
        };
        let there = to_ipv6(&with_sum, &v6).unwrap();
        assert_eq!(checks(&there), 0xffff);
        assert_eq!(there[ETH..ETH + 8], [0x6b, 0x80, 0, 0, 0, 16, UDP, 9]);
        assert_eq!(to_ipv4(&there, &v4).unwrap(), with_sum);
    }

    #[test]
    fn a_datagram_longer_than_its_packet_has_no_checksum_to_give() {
        let mut frame = udp([0, 0], b"DASHTEST");
        frame[ETH + 25] += 1;
        let refused = to_ipv6(&frame, &ends([1; 16], [2; 16]));
        assert_eq!(refused, Err(DropReason::InnerMalformed));
    }
}
