//! Redirects that a load balancer answers packets with.

use std::net::Ipv6Addr;

use nic_sim::Packet;

use super::packets::Connection;
use super::rng::Rng;
use super::universe::{
    BACKEND, ENI_BITS, ENI_MASK, OVERLAY_DIP, OVERLAY_HOST, OVERLAY_SIP, PAS, PEER, V4, VIP,
    mapped, v6,
};

/// Where flows may be redirected to.
pub(super) const BACKEND_MAC: [u8; 6] = [0, 0x22, 0x48, 0xc2, 0xa4, 0xbf];

/// What a redirect tells of the packet it answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted {
    protocol: u8,
    v6: bool,
    /// IPv4 in the low bits.
    sip: u128,
    dip: u128,
    ports: (u16, u16),
}

impl Quoted {
    /// What a connection's packets may be sent as.
    pub(super) fn guess(r: &mut Rng, c: &Connection) -> Self {
        let protocol = if c.kind <= 2 && !r.once_in(10) { 6 } else { 17 };
        let (sport, dport) = if r.once_in(8) {
            (c.ports.1, c.ports.0)
        } else {
            c.ports
        };
        let vm = [10, 9, 9, c.vm as u8 + 1];
        let low = |ip: [u8; 4]| u128::from(u32::from_be_bytes(ip));
        let (v6, sip, dip, dport) = if c.v6 {
            let vm = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, c.vm as u16 + 1);
            (true, u128::from(vm), u128::from(v6(c.peer)), dport)
        } else if r.once_in(2) {
            (false, low(vm), low(V4[c.peer]), dport)
        } else {
            let bits = if r.once_in(2) {
                (ENI_BITS, ENI_MASK)
            } else {
                (0, 0)
            };
            let (host, port) = match r.below(4) {
                0 => (low(V4[c.peer]), dport),
                1 => (low(BACKEND), mapped(dport)),
                _ => (OVERLAY_HOST, dport),
            };
            let sip = (OVERLAY_SIP & !bits.1) | bits.0 | low(vm);
            (true, sip, OVERLAY_DIP | host, port)
        };
        Self {
            protocol,
            v6,
            sip,
            dip,
            ports: (sport, dport),
        }
    }

    /// The packet inside the first encap; `None` where it is not TCP or not at its usual place.
    pub(super) fn of_sent(bytes: &[u8]) -> Option<Self> {
        let outer = bytes.get(14..)?;
        let tunnel = outer.get(usize::from(outer.first()? & 15) * 4..)?;
        let frame = tunnel.get(if outer.get(9)? == &17 { 16 } else { 8 }..)?;
        let ip = frame.get(14..)?;
        let v6 = ip.first()? >> 4 == 6;
        let wide = |at: usize, len: usize| {
            let bytes = ip.get(at..at + len)?;
            Some(bytes.iter().fold(0, |n, b| n << 8 | u128::from(*b)))
        };
        let (protocol, sip, dip, ports) = if v6 {
            (*ip.get(6)?, wide(8, 16)?, wide(24, 16)?, 40)
        } else {
            (*ip.get(9)?, wide(12, 4)?, wide(16, 4)?, 20)
        };
        let port = |at| Some(wide(at, 2)? as u16);
        let ports = (port(ports)?, port(ports + 2)?);
        (protocol == 6).then_some(Self {
            protocol,
            v6,
            sip,
            dip,
            ports,
        })
    }
}

/// A load balancer's redirect for a connection.
pub(super) fn redirect(r: &mut Rng, c: &Connection, of: &Quoted) -> Vec<u8> {
    let vm = [10, 9, 9, c.vm as u8 + 1];
    let Quoted {
        protocol,
        v6: is_v6,
        sip,
        dip,
        ports: (sport, dport),
    } = *of;
    let mut quoted = Vec::new();
    if is_v6 {
        // Redirected header option, and the header.
        quoted.extend([4, 7, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 20, protocol, 64]);
        quoted.extend(sip.to_be_bytes());
        quoted.extend(dip.to_be_bytes());
    } else {
        quoted.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0]);
        quoted.extend((sip as u32).to_be_bytes());
        quoted.extend((dip as u32).to_be_bytes());
    }
    quoted.extend([sport, dport].map(u16::to_be_bytes).concat());
    quoted.extend([0; 4]);
    let version: u32 = if r.once_in(16) { 2 } else { 1 };
    quoted.extend(version.to_be_bytes());
    let family: u16 = if r.once_in(16) { 10 } else { 2 };
    quoted.extend(family.to_be_bytes());
    quoted.extend(r.pick(&[1u16, 1, 2, 2, 3]).to_be_bytes());
    quoted.extend(r.pick(&[256u32, 77, 77, 0, 1 << 24]).to_be_bytes());
    quoted.extend(r.pick(&PAS));
    quoted.extend(BACKEND_MAC);
    let key = r.pick(&[253, 254, 254, 253, 254, 254, 255]);
    let frame = Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(r.pick(&PAS), VIP)
        .nvgre(key)
        .eth(c.eni, PEER);
    // Sometimes of another type.
    let other = if r.once_in(20) { 8 } else { 0 };
    if is_v6 {
        let head = [[137 + other, 0, 0, 0, 0, 0, 0, 0].to_vec(), vec![0; 32]].concat();
        let ip = frame.ipv6(Ipv6Addr::from(dip), Ipv6Addr::from(sip));
        ip.protocol(58).payload([head, quoted].concat()).build()
    } else {
        let head = vec![5 + other, 1, 0, 0, 5, 5, 5, 5];
        let ip = frame.ipv4(V4[c.peer], vm);
        ip.protocol(1).payload([head, quoted].concat()).build()
    }
}
