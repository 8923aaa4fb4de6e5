//! One-line summaries of frames, for traces: total on any bytes.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Nesting a summary follows before it gives up: outer, inner, and one more.
const MAX_DEPTH: usize = 3;

/// Says what a frame is, outer and inner, in one line.
///
/// ```
/// use nic_sim::{Packet, describe};
/// let frame = Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
///     .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
///     .udp(1000, 53)
///     .payload(b"hello")
///     .build();
/// assert_eq!(
///     describe(&frame),
///     "02:00:00:00:00:02 > 02:00:00:00:00:01 IPv4 10.0.0.1 > 10.0.0.2 ttl 64 UDP 1000 > 53 len 5"
/// );
/// ```
///
/// VXLAN is assumed on UDP port 4789; use [`describe_with`] for another.
pub fn describe(frame: &[u8]) -> String {
    describe_with(frame, 4789)
}

/// Like [`describe`], with VXLAN on UDP destination port `vxlan_port`.
pub fn describe_with(frame: &[u8], vxlan_port: u16) -> String {
    let mut line = Line {
        out: String::new(),
        vxlan_port,
        quotes: 0,
    };
    if line.eth(frame, 1).is_none() {
        line.word("[truncated]");
    }
    line.out
}

struct Line {
    out: String,
    vxlan_port: u16,
    /// Packets in packets that ICMP errors quote.
    quotes: usize,
}

/// `N` bytes at an offset, or `None` where the frame is too short.
fn at<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    data.get(offset..)?.first_chunk().copied()
}

fn u16_at(data: &[u8], offset: usize) -> Option<u16> {
    at(data, offset).map(u16::from_be_bytes)
}

fn byte(data: &[u8], offset: usize) -> Option<u8> {
    data.get(offset).copied()
}

impl Line {
    fn word(&mut self, text: &str) {
        if !self.out.is_empty() {
            self.out.push(' ');
        }
        self.out.push_str(text);
    }

    fn words(&mut self, text: std::fmt::Arguments<'_>) {
        if !self.out.is_empty() {
            self.out.push(' ');
        }
        // Writing to a String does not fail.
        let _ = self.out.write_fmt(text);
    }

    /// `None`: the frame ends inside a header whose part that is there has been written.
    fn eth(&mut self, frame: &[u8], depth: usize) -> Option<()> {
        let (dst, src) = (at::<6>(frame, 0)?, at::<6>(frame, 6)?);
        self.words(format_args!("{} > {}", Mac(src), Mac(dst)));
        let mut ethertype = u16_at(frame, 12)?;
        let mut body = frame.get(14..)?;
        while ethertype == 0x8100 || ethertype == 0x88a8 {
            self.words(format_args!("VLAN {}", u16_at(body, 0)? & 0xfff));
            ethertype = u16_at(body, 2)?;
            body = body.get(4..)?;
        }
        match ethertype {
            0x0800 => self.ipv4(body, depth),
            0x86dd => self.ipv6(body, depth),
            0x0806 => self.arp(body),
            other => {
                self.words(format_args!("ethertype {other:#06x} len {}", body.len()));
                Some(())
            }
        }
    }

    fn arp(&mut self, b: &[u8]) -> Option<()> {
        self.word("ARP");
        let operation = u16_at(b, 6)?;
        let (sha, spa) = (Mac(at(b, 8)?), Ipv4Addr::from(at::<4>(b, 14)?));
        let tpa = Ipv4Addr::from(at::<4>(b, 24)?);
        match operation {
            1 => self.words(format_args!("who-has {tpa} tell {spa} ({sha})")),
            2 => self.words(format_args!("{spa} is-at {sha} for {tpa}")),
            other => self.words(format_args!("operation {other}")),
        }
        Some(())
    }

    fn ipv4(&mut self, b: &[u8], depth: usize) -> Option<()> {
        let [version_ihl, tos] = at(b, 0)?;
        if version_ihl >> 4 != 4 {
            self.words(format_args!("IPv4 [version {}]", version_ihl >> 4));
            return Some(());
        }
        let header = usize::from(version_ihl & 0xf) * 4;
        let total = usize::from(u16_at(b, 2)?);
        let frag = u16_at(b, 6)?;
        let (ttl, protocol) = (byte(b, 8)?, byte(b, 9)?);
        let (src, dst) = (
            Ipv4Addr::from(at::<4>(b, 12)?),
            Ipv4Addr::from(at::<4>(b, 16)?),
        );
        self.words(format_args!("IPv4 {src} > {dst} ttl {ttl}"));
        if tos != 0 {
            self.words(format_args!("tos {tos:#04x}"));
        }
        if header < 20 || total < header {
            self.words(format_args!("[lengths {header}/{total}]"));
            return Some(());
        }
        if header > 20 {
            self.words(format_args!("options {}", header - 20));
        }
        if frag & 0x3fff != 0 {
            let more = if frag & 0x2000 != 0 { "+" } else { "" };
            self.words(format_args!(
                "fragment {}{more}",
                u32::from(frag & 0x1fff) * 8
            ));
        }
        if frag & 0x1fff != 0 {
            return Some(());
        }
        self.transport(within(b, header, total)?, protocol, depth)
    }

    fn ipv6(&mut self, b: &[u8], depth: usize) -> Option<()> {
        let word = u32::from_be_bytes(at(b, 0)?);
        if word >> 28 != 6 {
            self.words(format_args!("IPv6 [version {}]", word >> 28));
            return Some(());
        }
        let len = usize::from(u16_at(b, 4)?);
        let (next, hops) = (byte(b, 6)?, byte(b, 7)?);
        let (src, dst) = (
            Ipv6Addr::from(at::<16>(b, 8)?),
            Ipv6Addr::from(at::<16>(b, 24)?),
        );
        self.words(format_args!("IPv6 {src} > {dst} ttl {hops}"));
        let class = (word >> 20) as u8;
        if class != 0 {
            self.words(format_args!("tos {class:#04x}"));
        }
        self.transport(within(b, 40, 40 + len)?, next, depth)
    }

    fn transport(&mut self, b: &[u8], protocol: u8, depth: usize) -> Option<()> {
        match protocol {
            0 | 43 | 60 => {
                self.words(format_args!("extension {protocol}"));
                let len = usize::from(byte(b, 1)?) * 8 + 8;
                self.transport(b.get(len..)?, byte(b, 0)?, depth)
            }
            44 => {
                let word = u16_at(b, 2)?;
                let more = if word & 1 != 0 { "+" } else { "" };
                let id = u32::from_be_bytes(at(b, 4)?);
                self.words(format_args!("fragment {}{more} id {id:#x}", word & 0xfff8));
                if word >> 3 != 0 {
                    return Some(());
                }
                self.transport(b.get(8..)?, byte(b, 0)?, depth)
            }
            6 => self.tcp(b),
            17 => self.udp(b, depth),
            1 | 58 => self.icmp(b, protocol),
            other => {
                self.words(format_args!("protocol {other} len {}", b.len()));
                Some(())
            }
        }
    }

    fn tcp(&mut self, b: &[u8]) -> Option<()> {
        let (sport, dport) = (u16_at(b, 0)?, u16_at(b, 2)?);
        self.words(format_args!("TCP {sport} > {dport}"));
        let (seq, ack) = (u32::from_be_bytes(at(b, 4)?), u32::from_be_bytes(at(b, 8)?));
        let [offset, flags] = at(b, 12)?;
        let names = [
            (0x02, 'S'),
            (0x01, 'F'),
            (0x04, 'R'),
            (0x08, 'P'),
            (0x10, '.'),
            (0x20, 'U'),
            (0x40, 'E'),
            (0x80, 'W'),
        ];
        let set = names
            .iter()
            .filter(|(bit, _)| flags & bit != 0)
            .map(|(_, c)| c)
            .collect::<String>();
        let len = b.len().checked_sub(usize::from(offset >> 4) * 4)?;
        self.words(format_args!("[{set}] seq {seq} ack {ack} len {len}"));
        Some(())
    }

    fn udp(&mut self, b: &[u8], depth: usize) -> Option<()> {
        let (sport, dport) = (u16_at(b, 0)?, u16_at(b, 2)?);
        self.words(format_args!("UDP {sport} > {dport}"));
        let body = b.get(8..)?;
        if dport != self.vxlan_port || depth >= MAX_DEPTH {
            self.words(format_args!("len {}", body.len()));
            return Some(());
        }
        let flags = byte(body, 0)?;
        let vni = u32::from_be_bytes(at(body, 4)?) >> 8;
        self.words(format_args!("VXLAN {vni}"));
        if flags != 0x08 {
            self.words(format_args!("flags {flags:#04x}"));
        }
        self.word("|");
        self.eth(body.get(8..)?, depth + 1)
    }

    fn icmp(&mut self, b: &[u8], protocol: u8) -> Option<()> {
        self.word(if protocol == 1 { "ICMP" } else { "ICMPv6" });
        let [kind, code] = at(b, 0)?;
        let name = match (protocol, kind) {
            (1, 8) | (58, 128) => "echo request",
            (1, 0) | (58, 129) => "echo reply",
            (58, 135) => "neighbor solicitation",
            (58, 136) => "neighbor advertisement",
            // Errors, which quote a packet.
            (1, 3 | 4 | 11 | 12) | (58, 1..=4) if self.quotes < MAX_DEPTH => {
                self.words(format_args!("type {kind} code {code} about ("));
                self.quotes += 1;
                let quoted = b.get(8..)?;
                let whole = match protocol {
                    1 => self.ipv4(quoted, MAX_DEPTH),
                    _ => self.ipv6(quoted, MAX_DEPTH),
                };
                if whole.is_none() {
                    self.word("[cut]");
                }
                self.out.push(')');
                return Some(());
            }
            _ => {
                self.words(format_args!("type {kind} code {code}"));
                return Some(());
            }
        };
        self.word(name);
        if name.starts_with("echo") {
            self.words(format_args!("id {} seq {}", u16_at(b, 4)?, u16_at(b, 6)?));
        } else {
            self.words(format_args!("{}", Ipv6Addr::from(at::<16>(b, 8)?)));
        }
        Some(())
    }
}

/// Content of a packet whose header says it goes from `start` to `end`: Ethernet padding behind it
/// is left out; `None` when the frame ends before.
fn within(b: &[u8], start: usize, end: usize) -> Option<&[u8]> {
    b.get(start..end)
}

struct Mac([u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
