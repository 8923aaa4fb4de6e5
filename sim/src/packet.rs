//! Packets by name, for tests and demos.
//!
//! ```
//! use nic_sim::Packet;
//! let bytes = Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
//!     .ipv4([25, 1, 1, 1], [10, 0, 0, 1])
//!     .udp(5137, 4789)
//!     .vxlan(4321)
//!     .eth([0xf9, 0x22, 0x83, 0x99, 0x22, 0xa2], [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e])
//!     .ipv4([10, 1, 1, 10], [10, 1, 1, 1]).ttl(63)
//!     .udp(1000, 2000)
//!     .payload(b"DASHTEST")
//!     .build();
//! assert_eq!(bytes.len(), 100);
//! ```
//!
//! Lengths and checksums are right unless asked otherwise: IPv4 header, TCP, UDP, ICMP and ICMPv6
//! are computed; the UDP checksum in front of VXLAN is 0 (RFC 7348 section 5). The type of a
//! packet says what may follow its last layer.

use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::checksum::Sum;

/// TCP flag bits, as in byte 13 of the header (RFC 9293).
#[expect(missing_docs, reason = "RFC 9293 names")]
pub mod tcp_flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
}

/// States of [`Layers`]: the last one.
#[expect(missing_docs, reason = "each names the layer")]
pub mod last {
    #[derive(Clone, Copy, Debug)]
    pub struct Eth;
    #[derive(Clone, Copy, Debug)]
    pub struct Ipv4;
    #[derive(Clone, Copy, Debug)]
    pub struct Ipv6;
    #[derive(Clone, Copy, Debug)]
    pub struct Udp;
    #[derive(Clone, Copy, Debug)]
    pub struct Tcp;
    #[derive(Clone, Copy, Debug)]
    pub struct Vxlan;
    /// ARP, echo, or bytes: nothing can follow.
    #[derive(Clone, Copy, Debug)]
    pub struct End;
}

#[derive(Clone, Debug)]
enum Layer {
    Eth {
        dst: [u8; 6],
        src: [u8; 6],
        ethertype: Option<u16>,
    },
    Vlan {
        tci: u16,
    },
    Ipv4(Ipv4),
    Ipv6(Ipv6),
    Udp {
        sport: u16,
        dport: u16,
        checksum: Option<u16>,
    },
    Tcp {
        sport: u16,
        dport: u16,
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        checksum: Option<u16>,
    },
    Vxlan {
        flags: u8,
        vni: u32,
    },
    Nvgre {
        vsid: u32,
    },
    /// ICMP (v4 or v6 by what is below): type, identifier, sequence.
    Echo {
        kind: u8,
        id: u16,
        seq: u16,
    },
    Arp {
        operation: u16,
        sha: [u8; 6],
        spa: Ipv4Addr,
        tha: [u8; 6],
        tpa: Ipv4Addr,
    },
    /// An IPv6 extension header of 8 bytes and `more` times 8, without options but padding.
    Extension {
        kind: u8,
        more: u8,
    },
    /// IPv6 fragment header.
    Fragment {
        offset: u16,
        more: bool,
        id: u32,
        next: Option<u8>,
    },
    /// ICMP or ICMPv6 error: type and code, in front of what it quotes.
    Error {
        kind: u8,
        code: u8,
    },
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug)]
struct Ipv4 {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    ttl: u8,
    tos: u8,
    id: u16,
    /// Flags and fragment offset.
    frag: u16,
    options: Vec<u8>,
    protocol: Option<u8>,
    total_len: Option<u16>,
}

#[derive(Clone, Debug)]
struct Ipv6 {
    src: Ipv6Addr,
    dst: Ipv6Addr,
    hop_limit: u8,
    traffic_class: u8,
    flow_label: u32,
    next_header: Option<u8>,
    payload_len: Option<u16>,
}

/// Where packets begin: [`Packet::eth`].
#[derive(Clone, Copy, Debug)]
pub struct Packet;

impl Packet {
    /// Starts a packet with an Ethernet header.
    pub fn eth(dst: [u8; 6], src: [u8; 6]) -> Layers<last::Eth> {
        Layers {
            layers: Vec::new(),
            last: PhantomData::<last::Eth>,
        }
        .push(Layer::Eth {
            dst,
            src,
            ethertype: None,
        })
    }
}

/// A packet being written, outermost layer first; `Last` says what its last layer is.
#[derive(Clone, Debug)]
pub struct Layers<Last> {
    layers: Vec<Layer>,
    last: PhantomData<Last>,
}

impl Layers<last::Eth> {
    /// An 802.1Q tag.
    pub fn vlan(self, vid: u16) -> Self {
        self.push(Layer::Vlan { tci: vid & 0xfff })
    }
    /// Another type than the one of the layer that follows.
    pub fn ethertype(self, ethertype: u16) -> Self {
        self.edit(|l| {
            if let Layer::Eth { ethertype: e, .. } = l {
                *e = Some(ethertype);
            }
        })
    }
    /// An IPv4 header: TTL 64, the rest zero.
    pub fn ipv4(self, src: impl Into<Ipv4Addr>, dst: impl Into<Ipv4Addr>) -> Layers<last::Ipv4> {
        self.push(Layer::Ipv4(Ipv4 {
            src: src.into(),
            dst: dst.into(),
            ttl: 64,
            tos: 0,
            id: 0,
            frag: 0,
            options: Vec::new(),
            protocol: None,
            total_len: None,
        }))
    }
    /// An IPv6 header: hop limit 64, the rest zero.
    pub fn ipv6(self, src: impl Into<Ipv6Addr>, dst: impl Into<Ipv6Addr>) -> Layers<last::Ipv6> {
        self.push(Layer::Ipv6(Ipv6 {
            src: src.into(),
            dst: dst.into(),
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            next_header: None,
            payload_len: None,
        }))
    }
    /// An ARP request (RFC 826).
    pub fn arp_request(
        self,
        sha: [u8; 6],
        spa: impl Into<Ipv4Addr>,
        tpa: impl Into<Ipv4Addr>,
    ) -> Layers<last::End> {
        self.push(Layer::Arp {
            operation: 1,
            sha,
            spa: spa.into(),
            tha: [0; 6],
            tpa: tpa.into(),
        })
    }
    /// An ARP reply (RFC 826).
    pub fn arp_reply(
        self,
        sha: [u8; 6],
        spa: impl Into<Ipv4Addr>,
        tha: [u8; 6],
        tpa: impl Into<Ipv4Addr>,
    ) -> Layers<last::End> {
        self.push(Layer::Arp {
            operation: 2,
            sha,
            spa: spa.into(),
            tha,
            tpa: tpa.into(),
        })
    }
}

impl Layers<last::Ipv4> {
    /// Time to live.
    pub fn ttl(self, ttl: u8) -> Self {
        self.ip(|h| h.ttl = ttl)
    }
    /// DSCP and ECN byte.
    pub fn tos(self, tos: u8) -> Self {
        self.ip(|h| h.tos = tos)
    }
    /// Identification.
    pub fn id(self, id: u16) -> Self {
        self.ip(|h| h.id = id)
    }
    /// Options, padded with zeros to a multiple of 4; at most 40 bytes are kept.
    pub fn options(self, options: &[u8]) -> Self {
        let mut padded = options.iter().copied().take(40).collect::<Vec<_>>();
        padded.resize(padded.len().next_multiple_of(4), 0);
        self.ip(|h| h.options = padded)
    }
    /// Sets "don't fragment".
    pub fn dont_fragment(self) -> Self {
        self.ip(|h| h.frag |= 0x4000)
    }
    /// Makes it a fragment: offset in units of 8 bytes, and whether more follow.
    pub fn fragment(self, offset: u16, more: bool) -> Self {
        self.ip(|h| h.frag = (h.frag & 0x4000) | (offset & 0x1fff) | if more { 0x2000 } else { 0 })
    }
    /// Another protocol number than the one of the layer that follows.
    pub fn protocol(self, protocol: u8) -> Self {
        self.ip(|h| h.protocol = Some(protocol))
    }
    /// A total length that lies.
    pub fn total_len(self, len: u16) -> Self {
        self.ip(|h| h.total_len = Some(len))
    }
    /// An ICMP error of a type and a code that quotes a packet from its IP header on.
    pub fn icmp_error(self, kind: u8, code: u8, quoted: impl AsRef<[u8]>) -> Layers<last::End> {
        self.push::<last::End>(Layer::Error { kind, code })
            .payload(quoted)
    }
    /// An ICMP echo request (RFC 792).
    pub fn icmp_echo(self, id: u16, seq: u16) -> Layers<last::End> {
        self.push(Layer::Echo { kind: 8, id, seq })
    }
    /// An ICMP echo reply.
    pub fn icmp_echo_reply(self, id: u16, seq: u16) -> Layers<last::End> {
        self.push(Layer::Echo { kind: 0, id, seq })
    }
    fn ip(self, change: impl FnOnce(&mut Ipv4)) -> Self {
        self.edit(|l| {
            if let Layer::Ipv4(h) = l {
                change(h);
            }
        })
    }
}

impl Layers<last::Ipv6> {
    /// Hop limit.
    pub fn ttl(self, hop_limit: u8) -> Self {
        self.ip(|h| h.hop_limit = hop_limit)
    }
    /// Traffic class.
    pub fn tos(self, traffic_class: u8) -> Self {
        self.ip(|h| h.traffic_class = traffic_class)
    }
    /// Flow label, 20 bits.
    pub fn flow_label(self, label: u32) -> Self {
        self.ip(|h| h.flow_label = label & 0xf_ffff)
    }
    /// Another next header than the one of the layer that follows.
    pub fn protocol(self, next_header: u8) -> Self {
        self.ip(|h| h.next_header = Some(next_header))
    }
    /// A payload length that lies.
    pub fn payload_len(self, len: u16) -> Self {
        self.ip(|h| h.payload_len = Some(len))
    }
    /// An extension header (RFC 8200, 4): its type, and how many times 8 bytes it has after the first
    /// 8. All of it is padding.
    pub fn extension(self, kind: u8, more: u8) -> Self {
        self.push(Layer::Extension { kind, more })
    }
    /// A fragment header: offset in units of 8 bytes, whether more follow, and the datagram's number. In
    /// front of bytes that are no layer, `next` says what they are of.
    pub fn fragment(self, offset: u16, more: bool, id: u32, next: Option<u8>) -> Self {
        self.push(Layer::Fragment {
            offset,
            more,
            id,
            next,
        })
    }
    /// An ICMPv6 error of a type and a code that quotes a packet from its IP header on.
    pub fn icmpv6_error(self, kind: u8, code: u8, quoted: impl AsRef<[u8]>) -> Layers<last::End> {
        self.push::<last::End>(Layer::Error { kind, code })
            .payload(quoted)
    }
    /// An ICMPv6 echo request (RFC 4443).
    pub fn icmpv6_echo(self, id: u16, seq: u16) -> Layers<last::End> {
        self.push(Layer::Echo { kind: 128, id, seq })
    }
    /// An ICMPv6 echo reply.
    pub fn icmpv6_echo_reply(self, id: u16, seq: u16) -> Layers<last::End> {
        self.push(Layer::Echo { kind: 129, id, seq })
    }
    fn ip(self, change: impl FnOnce(&mut Ipv6)) -> Self {
        self.edit(|l| {
            if let Layer::Ipv6(h) = l {
                change(h);
            }
        })
    }
}

impl Layers<last::Ipv4> {
    /// GRE with a key over Ethernet: NVGRE (RFC 7637), flow id 0.
    pub fn nvgre(self, vsid: u32) -> Layers<last::Vxlan> {
        self.push(Layer::Nvgre {
            vsid: vsid & 0xff_ffff,
        })
    }
}

macro_rules! transports {
    ($($ip:ty),*) => {$(
        impl Layers<$ip> {
            /// A UDP header.
            pub fn udp(self, sport: u16, dport: u16) -> Layers<last::Udp> {
                self.push(Layer::Udp { sport, dport, checksum: None })
            }
            /// A TCP header: SYN, numbers 0, window 8192, no options.
            pub fn tcp(self, sport: u16, dport: u16) -> Layers<last::Tcp> {
                self.push(Layer::Tcp {
                    sport,
                    dport,
                    flags: tcp_flags::SYN,
                    seq: 0,
                    ack: 0,
                    window: 8192,
                    checksum: None,
                })
            }
        }
    )*};
}
transports!(last::Ipv4, last::Ipv6);

impl Layers<last::Udp> {
    /// Another checksum than the right one; 0 says there is none.
    pub fn checksum(self, value: u16) -> Self {
        self.edit(|l| {
            if let Layer::Udp { checksum, .. } = l {
                *checksum = Some(value);
            }
        })
    }
    /// A VXLAN header with the I flag (RFC 7348).
    pub fn vxlan(self, vni: u32) -> Layers<last::Vxlan> {
        self.push(Layer::Vxlan {
            flags: 0x08,
            vni: vni & 0xff_ffff,
        })
    }
}

impl Layers<last::Tcp> {
    /// [`tcp_flags`].
    pub fn flags(self, value: u8) -> Self {
        self.edit(|l| {
            if let Layer::Tcp { flags, .. } = l {
                *flags = value;
            }
        })
    }
    /// Sequence and acknowledgment numbers.
    pub fn numbers(self, new_seq: u32, new_ack: u32) -> Self {
        self.edit(|l| {
            if let Layer::Tcp { seq, ack, .. } = l {
                (*seq, *ack) = (new_seq, new_ack);
            }
        })
    }
    /// Another window.
    pub fn window(self, value: u16) -> Self {
        self.edit(|l| {
            if let Layer::Tcp { window, .. } = l {
                *window = value;
            }
        })
    }
    /// Another checksum than the right one.
    pub fn checksum(self, value: u16) -> Self {
        self.edit(|l| {
            if let Layer::Tcp { checksum, .. } = l {
                *checksum = Some(value);
            }
        })
    }
}

impl Layers<last::Vxlan> {
    /// Other flags than the I flag alone.
    pub fn vxlan_flags(self, value: u8) -> Self {
        self.edit(|l| {
            if let Layer::Vxlan { flags, .. } = l {
                *flags = value;
            }
        })
    }
    /// The inner Ethernet header.
    pub fn eth(self, dst: [u8; 6], src: [u8; 6]) -> Layers<last::Eth> {
        self.push(Layer::Eth {
            dst,
            src,
            ethertype: None,
        })
    }
}

impl<Last> Layers<Last> {
    /// Bytes after the last layer.
    pub fn payload(self, bytes: impl AsRef<[u8]>) -> Layers<last::End> {
        self.push(Layer::Bytes(bytes.as_ref().to_vec()))
    }

    /// The finished frame, without padding or FCS.
    pub fn build(&self) -> Vec<u8> {
        // Innermost first: a layer's lengths and checksum need what is inside it.
        let mut body = Vec::new();
        for (i, layer) in self.layers.iter().enumerate().rev() {
            // Extension headers are in nobody's pseudo header.
            let extends =
                |l: &&Layer| matches!(l, Layer::Extension { .. } | Layer::Fragment { .. });
            let below = self.layers[..i].iter().rev().find(|l| !extends(l));
            let mut bytes = header(layer, below, self.layers.get(i + 1), &body);
            bytes.append(&mut body);
            body = bytes;
        }
        body
    }

    fn push<Next>(mut self, layer: Layer) -> Layers<Next> {
        self.layers.push(layer);
        Layers {
            layers: self.layers,
            last: PhantomData,
        }
    }

    fn edit(mut self, change: impl FnOnce(&mut Layer)) -> Self {
        if let Some(layer) = self.layers.last_mut() {
            change(layer);
        }
        self
    }
}

/// RFC 3692 experimental number, for an IP packet without a named layer.
const EXPERIMENTAL: u8 = 253;

/// Number an IP header gives its content.
fn protocol_of(next: Option<&Layer>, echo: u8) -> u8 {
    match next {
        Some(Layer::Tcp { .. }) => 6,
        Some(Layer::Udp { .. }) => 17,
        Some(Layer::Nvgre { .. }) => 47,
        Some(Layer::Echo { .. } | Layer::Error { .. }) => echo,
        Some(Layer::Extension { kind, .. }) => *kind,
        Some(Layer::Fragment { .. }) => 44,
        _ => EXPERIMENTAL,
    }
}

fn ethertype_of(next: Option<&Layer>) -> u16 {
    match next {
        Some(Layer::Ipv4(_)) => 0x0800,
        Some(Layer::Ipv6(_)) => 0x86dd,
        Some(Layer::Arp { .. }) => 0x0806,
        Some(Layer::Vlan { .. }) => 0x8100,
        // RFC 5342 local experimental type.
        _ => 0x88b5,
    }
}

/// A transport checksum over its pseudo header and bytes.
fn transport_checksum(below: Option<&Layer>, protocol: u8, header: &[u8], body: &[u8]) -> u16 {
    let len = (header.len() + body.len()) as u32;
    let sum = match below {
        Some(Layer::Ipv4(ip)) => Sum::new().pseudo_v4(ip.src, ip.dst, protocol, len),
        Some(Layer::Ipv6(ip)) => Sum::new().pseudo_v6(ip.src, ip.dst, protocol, len),
        _ => Sum::new(),
    };
    sum.with(header).with(body).finish()
}

fn header(layer: &Layer, below: Option<&Layer>, next: Option<&Layer>, body: &[u8]) -> Vec<u8> {
    let mut h = Vec::with_capacity(60);
    match layer {
        Layer::Eth {
            dst,
            src,
            ethertype,
        } => {
            h.extend_from_slice(dst);
            h.extend_from_slice(src);
            h.extend_from_slice(&ethertype.unwrap_or(ethertype_of(next)).to_be_bytes());
        }
        Layer::Vlan { tci } => {
            h.extend_from_slice(&tci.to_be_bytes());
            h.extend_from_slice(&ethertype_of(next).to_be_bytes());
        }
        Layer::Ipv4(ip) => {
            let words = 5 + ip.options.len() / 4;
            let total = ip.total_len.unwrap_or((words * 4 + body.len()) as u16);
            h.extend_from_slice(&[0x40 | words as u8, ip.tos]);
            for n in [total, ip.id, ip.frag] {
                h.extend_from_slice(&n.to_be_bytes());
            }
            h.extend_from_slice(&[ip.ttl, ip.protocol.unwrap_or(protocol_of(next, 1)), 0, 0]);
            h.extend_from_slice(&ip.src.octets());
            h.extend_from_slice(&ip.dst.octets());
            h.extend_from_slice(&ip.options);
            let sum = Sum::new().with(&h).finish();
            h[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        Layer::Ipv6(ip) => {
            let word = 6 << 28 | u32::from(ip.traffic_class) << 20 | ip.flow_label;
            h.extend_from_slice(&word.to_be_bytes());
            h.extend_from_slice(&ip.payload_len.unwrap_or(body.len() as u16).to_be_bytes());
            h.extend_from_slice(&[
                ip.next_header.unwrap_or(protocol_of(next, 58)),
                ip.hop_limit,
            ]);
            h.extend_from_slice(&ip.src.octets());
            h.extend_from_slice(&ip.dst.octets());
        }
        Layer::Udp {
            sport,
            dport,
            checksum,
        } => {
            for n in [*sport, *dport, (8 + body.len()) as u16, 0] {
                h.extend_from_slice(&n.to_be_bytes());
            }
            let sum = checksum.unwrap_or_else(|| match next {
                Some(Layer::Vxlan { .. }) => 0,
                // 0 is "none" on the wire: a sum of 0 is sent as all ones (RFC 768).
                _ => match transport_checksum(below, 17, &h, body) {
                    0 => 0xffff,
                    sum => sum,
                },
            });
            h[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        Layer::Tcp {
            sport,
            dport,
            flags,
            seq,
            ack,
            window,
            checksum,
        } => {
            h.extend_from_slice(&sport.to_be_bytes());
            h.extend_from_slice(&dport.to_be_bytes());
            h.extend_from_slice(&seq.to_be_bytes());
            h.extend_from_slice(&ack.to_be_bytes());
            h.extend_from_slice(&[0x50, *flags]);
            h.extend_from_slice(&window.to_be_bytes());
            h.extend_from_slice(&[0; 4]);
            let sum = checksum.unwrap_or_else(|| transport_checksum(below, 6, &h, body));
            h[16..18].copy_from_slice(&sum.to_be_bytes());
        }
        Layer::Vxlan { flags, vni } => {
            h.extend_from_slice(&[*flags, 0, 0, 0]);
            h.extend_from_slice(&(vni << 8).to_be_bytes());
        }
        Layer::Nvgre { vsid } => {
            h.extend_from_slice(&[0x20, 0x00, 0x65, 0x58]);
            h.extend_from_slice(&(vsid << 8).to_be_bytes());
        }
        Layer::Echo { kind, id, seq } => {
            h.extend_from_slice(&[*kind, 0, 0, 0]);
            h.extend_from_slice(&id.to_be_bytes());
            h.extend_from_slice(&seq.to_be_bytes());
            let sum = match below {
                Some(Layer::Ipv6(_)) => transport_checksum(below, 58, &h, body),
                // ICMP for IPv4 has no pseudo header.
                _ => Sum::new().with(&h).with(body).finish(),
            };
            h[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        Layer::Extension { more, .. } => {
            h.extend_from_slice(&[protocol_of(next, 58), *more]);
            // PadN options (RFC 8200, 4.2), the first with room for one of up to 6 bytes.
            h.extend_from_slice(&[1, 4, 0, 0, 0, 0]);
            for _ in 0..*more {
                h.extend_from_slice(&[1, 6, 0, 0, 0, 0, 0, 0]);
            }
        }
        Layer::Fragment {
            offset,
            more,
            id,
            next: said,
        } => {
            h.extend_from_slice(&[said.unwrap_or(protocol_of(next, 58)), 0]);
            h.extend_from_slice(&(offset << 3 | u16::from(*more)).to_be_bytes());
            h.extend_from_slice(&id.to_be_bytes());
        }
        Layer::Error { kind, code } => {
            h.extend_from_slice(&[*kind, *code, 0, 0, 0, 0, 0, 0]);
            let sum = match below {
                Some(Layer::Ipv6(_)) => transport_checksum(below, 58, &h, body),
                _ => Sum::new().with(&h).with(body).finish(),
            };
            h[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        Layer::Arp {
            operation,
            sha,
            spa,
            tha,
            tpa,
        } => {
            h.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
            h.extend_from_slice(&operation.to_be_bytes());
            h.extend_from_slice(sha);
            h.extend_from_slice(&spa.octets());
            h.extend_from_slice(tha);
            h.extend_from_slice(&tpa.octets());
        }
        Layer::Bytes(bytes) => h.extend_from_slice(bytes),
    }
    h
}
