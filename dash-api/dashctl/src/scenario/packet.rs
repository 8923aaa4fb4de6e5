//! Packets as scenarios write them: layers by name, outermost first, or bytes.
//!
//! ```json
//! [{"eth": {"src": "02:00:00:00:00:02", "dst": "02:00:00:00:00:01"}},
//!  {"ipv4": {"src": "25.1.1.1", "dst": "10.0.0.1", "ttl": 64}},
//!  {"udp": {"sport": "5120/7", "dport": 4789}},
//!  {"vxlan": {"vni": 4321}},
//!  {"eth": {"src": "f4:93:9f:ef:c4:7e", "dst": "f9:22:83:99:22:a2"}},
//!  {"ipv4": {"src": "10.1.1.10", "dst": "10.1.1.1"}},
//!  {"tcp": {"sport": 1000, "dport": 80, "flags": "SA"}},
//!  {"payload": "DASHTEST"}]
//! ```
//!
//! `"sport": "5120/7"` of the outermost UDP header says that the low 7 bits do not matter: they
//! are the sender's to choose. `{"nvgre": 100}` follows an IPv4 header. `{"hex": "..", "sport_bits": 7}` is the same for a packet in bytes.
//! Lengths and checksums are computed unless given.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, anyhow, bail};
use nic_sim::Packet;
use nic_sim::packet::{Layers, last, tcp_flags};
use serde::Deserialize;

use crate::underlay;

/// A packet as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum PacketText {
    /// Layers, outermost first.
    Layers(Vec<Layer>),
    /// Bytes.
    Hex(Hex),
}

/// A packet in bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hex {
    /// Digits in pairs; white space is skipped. A list is joined.
    pub hex: HexText,
    /// Low bits of the outer UDP source port that do not matter.
    #[serde(default)]
    pub sport_bits: u8,
}

/// Hex digits in one text or line by line.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum HexText {
    /// All.
    One(String),
    /// In lines.
    Lines(Vec<String>),
}

/// One layer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "each is the header of its name")]
pub enum Layer {
    Eth(Eth),
    Vlan(u16),
    Ipv4(Ipv4),
    Ipv6(Ipv6),
    Udp(Udp),
    Tcp(Tcp),
    Vxlan(Vxlan),
    /// NVGRE with this VSID.
    Nvgre(u32),
    IcmpEcho(Echo),
    IcmpReply(Echo),
    /// An IPv6 extension header.
    Extension(Extension),
    /// An IPv6 fragment header.
    Fragment(Fragment),
    /// An ICMP or ICMPv6 error, by the IP header below.
    IcmpError(IcmpError),
    /// Text.
    Payload(String),
    /// Hex digits.
    PayloadHex(String),
    /// So many zero bytes.
    PayloadZeros(u16),
}

/// Ethernet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "header fields")]
pub struct Eth {
    pub src: String,
    pub dst: String,
    pub ethertype: Option<u16>,
}

/// IPv4.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "header fields; `fragment` is offset in 8 bytes and more-fragments, `options` hex digits"
)]
pub struct Ipv4 {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    pub id: Option<u16>,
    pub protocol: Option<u8>,
    pub total_len: Option<u16>,
    pub fragment: Option<(u16, bool)>,
    pub options: Option<String>,
}

/// IPv6.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "header fields")]
pub struct Ipv6 {
    pub src: Ipv6Addr,
    pub dst: Ipv6Addr,
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    pub protocol: Option<u8>,
    pub payload_len: Option<u16>,
}

/// UDP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "header fields")]
pub struct Udp {
    pub sport: Port,
    pub dport: u16,
    pub checksum: Option<u16>,
}

/// A port, or the ports from a base up that differ in the low bits only: `"5120/7"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Port {
    /// This one.
    Exact(u16),
    /// `BASE/BITS`.
    Masked(String),
}

/// TCP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "header fields; flags are letters of FSRPA")]
pub struct Tcp {
    pub sport: u16,
    pub dport: u16,
    pub flags: String,
    #[serde(default)]
    pub seq: u32,
    #[serde(default)]
    pub ack: u32,
    pub window: Option<u16>,
}

/// VXLAN.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "header fields")]
pub struct Vxlan {
    pub vni: u32,
    pub flags: Option<u8>,
}

/// ICMP or ICMPv6 echo, by the IP header below.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "header fields")]
pub struct Echo {
    pub id: u16,
    pub seq: u16,
}

/// IPv6 extension header: its type, and how many times 8 bytes follow the first 8.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "header fields")]
pub struct Extension {
    pub kind: u8,
    #[serde(default)]
    pub more: u8,
}

/// IPv6 fragment header: offset in 8 bytes; `next` where bytes that are no layer follow.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "header fields")]
pub struct Fragment {
    pub offset: u16,
    pub more: bool,
    pub id: u32,
    pub next: Option<u8>,
}

/// ICMP error.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IcmpError {
    /// Type.
    pub kind: u8,
    /// Code.
    #[serde(default)]
    pub code: u8,
    /// The packet that it is about, from its IP header on.
    pub quote: Vec<Layer>,
    /// How much of it is quoted [default: all].
    pub octets: Option<usize>,
}

impl IcmpError {
    fn quoted(&self) -> Result<Vec<u8>> {
        let mut so_far = SoFar::Eth(Packet::eth([0; 6], [0; 6]));
        for layer in &self.quote {
            so_far = so_far.add(layer).context("quote")?;
        }
        let mut bytes = so_far.build()?.split_off(14);
        bytes.truncate(self.octets.unwrap_or(usize::MAX));
        Ok(bytes)
    }
}

/// A packet in bytes and what of it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// The frame.
    pub data: Vec<u8>,
    /// Low bits of the outer UDP source port that do not matter.
    pub sport_bits: u8,
}

impl Bytes {
    /// The frame with what does not matter cleared. The outer header is IPv4 without options.
    pub fn masked(&self, data: &[u8]) -> Vec<u8> {
        let mut data = data.to_vec();
        let keep = u16::MAX
            .checked_shl(self.sport_bits.into())
            .unwrap_or(0)
            .to_be_bytes();
        if self.sport_bits > 0
            && let Some(sport) = data.get_mut(34..36)
        {
            for (byte, keep) in sport.iter_mut().zip(keep) {
                *byte &= keep;
            }
        }
        data
    }
}

impl PacketText {
    /// The packet.
    ///
    /// # Errors
    /// It is not well written: a layer where it cannot be, a bad address or digit.
    pub fn bytes(&self) -> Result<Bytes> {
        match self {
            Self::Hex(hex) => Ok(Bytes {
                data: unhex(&hex.hex.text())?,
                sport_bits: hex.sport_bits,
            }),
            Self::Layers(layers) => {
                let mut so_far = SoFar::Nothing;
                for (at, layer) in layers.iter().enumerate() {
                    so_far = so_far.add(layer).with_context(|| format!("layer {at}"))?;
                }
                Ok(Bytes {
                    data: so_far.build()?,
                    sport_bits: outer_sport_bits(layers)?,
                })
            }
        }
    }
}

impl HexText {
    fn text(&self) -> String {
        match self {
            Self::One(text) => text.clone(),
            Self::Lines(lines) => lines.join(" "),
        }
    }
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .with_context(|| format!("`{}` is no hex digit", char::from(b)))
    };
    digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Ok((digit(*high)? * 16 + digit(*low)?) as u8),
            _ => bail!("an odd number of hex digits"),
        })
        .collect()
}

impl Port {
    fn parts(&self) -> Result<(u16, u8)> {
        let Self::Masked(text) = self else {
            let Self::Exact(port) = self else {
                unreachable!("two variants")
            };
            return Ok((*port, 0));
        };
        let wrong = || anyhow!("`{text}` is not BASE/BITS");
        let (base, bits) = text.split_once('/').ok_or_else(wrong)?;
        let (base, bits) = (
            base.parse().map_err(|_| wrong())?,
            bits.parse().map_err(|_| wrong())?,
        );
        if bits > 16 {
            return Err(wrong());
        }
        Ok((base, bits))
    }
}

/// Bits of the first UDP header; nothing else may be masked.
fn outer_sport_bits(layers: &[Layer]) -> Result<u8> {
    let mut bits = 0;
    let udp = layers.iter().filter_map(|l| {
        if let Layer::Udp(udp) = l {
            Some(udp)
        } else {
            None
        }
    });
    for (n, udp) in udp.enumerate() {
        match udp.sport.parts()? {
            (_, 0) => {}
            (_, masked) if n == 0 && matches!(layers.get(1), Some(Layer::Ipv4(_))) => bits = masked,
            _ => bail!("only the source port of an outer UDP header over IPv4 can be masked"),
        }
    }
    Ok(bits)
}

/// A packet under construction, by its last layer.
enum SoFar {
    Nothing,
    Eth(Layers<last::Eth>),
    Ipv4(Layers<last::Ipv4>),
    Ipv6(Layers<last::Ipv6>),
    Udp(Layers<last::Udp>),
    Tcp(Layers<last::Tcp>),
    Vxlan(Layers<last::Vxlan>),
    End(Layers<last::End>),
}

impl SoFar {
    fn add(self, layer: &Layer) -> Result<Self> {
        Ok(match (self, layer) {
            (Self::Nothing, Layer::Eth(eth)) => {
                Self::Eth(ethertype(Packet::eth(mac(&eth.dst)?, mac(&eth.src)?), eth))
            }
            (Self::Vxlan(below), Layer::Eth(eth)) => {
                Self::Eth(ethertype(below.eth(mac(&eth.dst)?, mac(&eth.src)?), eth))
            }
            (Self::Eth(below), Layer::Vlan(vid)) => Self::Eth(below.vlan(*vid)),
            (Self::Eth(below), Layer::Ipv4(ip)) => Self::Ipv4(ipv4(below, ip)?),
            (Self::Eth(below), Layer::Ipv6(ip)) => Self::Ipv6(ipv6(below, ip)),
            (Self::Ipv4(below), Layer::Udp(h)) => {
                Self::Udp(udp(below.udp(h.sport.parts()?.0, h.dport), h))
            }
            (Self::Ipv6(below), Layer::Udp(h)) => {
                Self::Udp(udp(below.udp(h.sport.parts()?.0, h.dport), h))
            }
            (Self::Ipv4(below), Layer::Tcp(h)) => Self::Tcp(tcp(below.tcp(h.sport, h.dport), h)?),
            (Self::Ipv6(below), Layer::Tcp(h)) => Self::Tcp(tcp(below.tcp(h.sport, h.dport), h)?),
            (Self::Udp(below), Layer::Vxlan(h)) => {
                let vxlan = below.vxlan(h.vni);
                Self::Vxlan(match h.flags {
                    Some(flags) => vxlan.vxlan_flags(flags),
                    None => vxlan,
                })
            }
            (Self::Ipv4(below), Layer::Nvgre(vsid)) => Self::Vxlan(below.nvgre(*vsid)),
            (Self::Ipv4(below), Layer::IcmpEcho(h)) => Self::End(below.icmp_echo(h.id, h.seq)),
            (Self::Ipv4(below), Layer::IcmpReply(h)) => {
                Self::End(below.icmp_echo_reply(h.id, h.seq))
            }
            (Self::Ipv6(below), Layer::IcmpEcho(h)) => Self::End(below.icmpv6_echo(h.id, h.seq)),
            (Self::Ipv6(below), Layer::IcmpReply(h)) => {
                Self::End(below.icmpv6_echo_reply(h.id, h.seq))
            }
            (Self::Ipv4(below), Layer::IcmpError(h)) => {
                Self::End(below.icmp_error(h.kind, h.code, h.quoted()?))
            }
            (Self::Ipv6(below), Layer::IcmpError(h)) => {
                Self::End(below.icmpv6_error(h.kind, h.code, h.quoted()?))
            }
            (Self::Ipv6(below), Layer::Extension(h)) => Self::Ipv6(below.extension(h.kind, h.more)),
            (Self::Ipv6(below), Layer::Fragment(h)) => {
                Self::Ipv6(below.fragment(h.offset, h.more, h.id, h.next))
            }
            (below, Layer::Payload(text)) => below.payload(text.as_bytes())?,
            (below, Layer::PayloadHex(text)) => below.payload(&unhex(text)?)?,
            (below, Layer::PayloadZeros(len)) => below.payload(&vec![0; usize::from(*len)])?,
            (below, layer) => bail!("{layer:?} cannot follow {}", below.name()),
        })
    }

    fn payload(self, bytes: &[u8]) -> Result<Self> {
        Ok(Self::End(match self {
            Self::Nothing => bail!("a packet begins with a header"),
            Self::Eth(below) => below.payload(bytes),
            Self::Ipv4(below) => below.payload(bytes),
            Self::Ipv6(below) => below.payload(bytes),
            Self::Udp(below) => below.payload(bytes),
            Self::Tcp(below) => below.payload(bytes),
            Self::Vxlan(below) => below.payload(bytes),
            Self::End(below) => below.payload(bytes),
        }))
    }

    fn build(self) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Nothing => bail!("no layers"),
            Self::Eth(packet) => packet.build(),
            Self::Ipv4(packet) => packet.build(),
            Self::Ipv6(packet) => packet.build(),
            Self::Udp(packet) => packet.build(),
            Self::Tcp(packet) => packet.build(),
            Self::Vxlan(packet) => packet.build(),
            Self::End(packet) => packet.build(),
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Eth(_) => "eth",
            Self::Ipv4(_) => "ipv4",
            Self::Ipv6(_) => "ipv6",
            Self::Udp(_) => "udp",
            Self::Tcp(_) => "tcp",
            Self::Vxlan(_) => "vxlan or nvgre",
            Self::End(_) => "the end of a packet",
        }
    }
}

fn mac(text: &str) -> Result<[u8; 6]> {
    underlay::mac(text).map_err(|e| anyhow!(e))
}

fn ethertype(packet: Layers<last::Eth>, eth: &Eth) -> Layers<last::Eth> {
    match eth.ethertype {
        Some(ethertype) => packet.ethertype(ethertype),
        None => packet,
    }
}

fn ipv4(below: Layers<last::Eth>, ip: &Ipv4) -> Result<Layers<last::Ipv4>> {
    let mut packet = below.ipv4(ip.src, ip.dst);
    if let Some(options) = &ip.options {
        packet = packet.options(&unhex(options)?);
    }
    packet = ip.ttl.map_or(packet.clone(), |v| packet.ttl(v));
    packet = ip.tos.map_or(packet.clone(), |v| packet.tos(v));
    packet = ip.id.map_or(packet.clone(), |v| packet.id(v));
    packet = ip.protocol.map_or(packet.clone(), |v| packet.protocol(v));
    packet = ip.total_len.map_or(packet.clone(), |v| packet.total_len(v));
    Ok(ip.fragment.map_or(packet.clone(), |(offset, more)| {
        packet.fragment(offset, more)
    }))
}

fn ipv6(below: Layers<last::Eth>, ip: &Ipv6) -> Layers<last::Ipv6> {
    let mut packet = below.ipv6(ip.src, ip.dst);
    packet = ip.ttl.map_or(packet.clone(), |v| packet.ttl(v));
    packet = ip.tos.map_or(packet.clone(), |v| packet.tos(v));
    packet = ip.protocol.map_or(packet.clone(), |v| packet.protocol(v));
    ip.payload_len
        .map_or(packet.clone(), |v| packet.payload_len(v))
}

fn udp(packet: Layers<last::Udp>, udp: &Udp) -> Layers<last::Udp> {
    match udp.checksum {
        Some(checksum) => packet.checksum(checksum),
        None => packet,
    }
}

fn tcp(packet: Layers<last::Tcp>, tcp: &Tcp) -> Result<Layers<last::Tcp>> {
    let mut flags = 0;
    for letter in tcp.flags.chars() {
        flags |= match letter {
            'F' => tcp_flags::FIN,
            'S' => tcp_flags::SYN,
            'R' => tcp_flags::RST,
            'P' => tcp_flags::PSH,
            'A' => tcp_flags::ACK,
            _ => bail!("`{letter}` is no TCP flag of FSRPA"),
        };
    }
    let packet = packet.flags(flags).numbers(tcp.seq, tcp.ack);
    Ok(match tcp.window {
        Some(window) => packet.window(window),
        None => packet,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(json: &str) -> Result<Bytes> {
        serde_json::from_str::<PacketText>(json)
            .expect("the form of a packet")
            .bytes()
    }

    #[test]
    fn layers_make_the_golden_packet() {
        let golden = packet(
            r#"{"hex": ["020000000001 020000000002 0800 4500005600000000401156951901010 10a000001",
                        "141112b5004200000800000000 10e100 00005e000101 f4939fefc47e 0800",
                        "4500002400000000401164bd0a01010a0a010101 03e807d000109ee6 4441534854455354"]}"#,
        );
        let layers = packet(
            r#"[{"eth": {"src": "02:00:00:00:00:02", "dst": "02:00:00:00:00:01"}},
                {"ipv4": {"src": "25.1.1.1", "dst": "10.0.0.1"}}, {"udp": {"sport": 5137, "dport": 4789}},
                {"vxlan": {"vni": 4321}}, {"eth": {"src": "f4:93:9f:ef:c4:7e", "dst": "00:00:5e:00:01:01"}},
                {"ipv4": {"src": "10.1.1.10", "dst": "10.1.1.1"}}, {"udp": {"sport": 1000, "dport": 2000}},
                {"payload": "DASHTEST"}]"#,
        );
        assert_eq!(layers.expect("layers"), golden.expect("hex"));
    }

    #[test]
    fn a_masked_port_ignores_its_low_bits_only() {
        let masked = packet(
            r#"[{"eth": {"src": "02:00:00:00:00:02", "dst": "02:00:00:00:00:01"}},
                {"ipv4": {"src": "25.1.1.1", "dst": "10.0.0.1"}}, {"udp": {"sport": "5120/7", "dport": 4789}},
                {"vxlan": {"vni": 4321}}]"#,
        )
        .expect("a packet");
        let with = |sport: u16| {
            let mut data = masked.data.clone();
            data[34..36].copy_from_slice(&sport.to_be_bytes());
            masked.masked(&data)
        };
        assert_eq!(with(5120), with(5247));
        assert_ne!(with(5120), with(5248));
        assert_ne!(with(5120), with(5119));
    }

    #[test]
    fn layers_in_an_impossible_order_are_refused_with_their_place() {
        let error = packet(
            r#"[{"eth": {"src": "02:00:00:00:00:02", "dst": "02:00:00:00:00:01"}}, {"vxlan": {"vni": 1}}]"#,
        );
        let text = format!("{:#}", error.expect_err("no VXLAN over Ethernet"));
        assert!(
            text.starts_with("layer 1: ") && text.ends_with("cannot follow eth"),
            "{text}"
        );
    }
}
