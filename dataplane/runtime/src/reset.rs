//! TCP resets to both ends of a connection that policy denies in its middle (DASH reference 4.4).
//!
//! A program cannot send two packets for one. Where resets are asked for, it makes the decisions for
//! both directions as for a new flow, sets [`acl_state::RESETS`] and drops the packet; from what it
//! left in the metadata and from the packet the frames are built here:
//!
//! ```text
//!  along:  the packet's own ends, `actions`,  sequence number of the packet
//!  back:   the ends swapped,      `ractions`, acknowledgement number of the packet (RFC 5961)
//! ```
//!
//! This is the slow path: no more than [`RESETS_PER_SECOND`] packets a second are answered by a
//! worker.

use dash_wire::drop::DropReason;
use dash_wire::stats::EniStat;
use dash_wire::tables::{
    FlowActions, FlowKey, Globals, Meta, RESETS_PER_SECOND, UnderlayKey, UnderlayRow, acl_state,
    encap, flow_action, flow_flags, underlay_flags,
};
use nic_target::{Frame, Table};

use crate::datapath::Bound;
use crate::tables::policy::PolicyTables;

const SECOND_NS: u64 = 1_000_000_000;
/// The longest: two encaps, Ethernet, IPv6, TCP.
const LONGEST: usize = 50 + 50 + 14 + 40 + 20;
/// Frames that may wait to be taken.
const WAITING: usize = 64;
const TTL: u8 = 64;
const TCP: u8 = 6;

/// A frame to send.
#[derive(Clone, Copy, Debug)]
pub struct Reset {
    /// Out of this port.
    pub port: u16,
    bytes: Bytes,
}

impl Reset {
    /// The frame.
    pub fn data(&self) -> &[u8] {
        self.bytes.get()
    }
}

/// Frames that were built and not yet sent, and how many packets were answered.
#[derive(Debug)]
pub(crate) struct Resets {
    waiting: Vec<Reset>,
    /// When the second began that `answered` counts in.
    since_ns: u64,
    answered: u32,
}

impl Resets {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Vec::with_capacity(WAITING),
            since_ns: 0,
            answered: 0,
        }
    }

    /// The oldest.
    pub(crate) fn take(&mut self) -> Option<Reset> {
        (!self.waiting.is_empty()).then(|| self.waiting.remove(0))
    }

    /// One more packet may be answered.
    fn may(&mut self, now_ns: u64) -> bool {
        if now_ns - self.since_ns >= SECOND_NS {
            (self.since_ns, self.answered) = (now_ns, 0);
        }
        let may = self.answered < RESETS_PER_SECOND;
        self.answered += u32::from(may);
        may
    }
}

impl Bound<'_> {
    /// Answers the packet that a program just dropped, with what it left: nothing for most.
    #[cold]
    pub(crate) fn answer(&mut self, meta: &Meta, frame: &Frame) {
        // What is dropped before the field is cleared has another reason.
        if meta.acl & acl_state::RESETS == 0 || meta.drop != DropReason::AclDeny as u8 + 1 {
            return;
        }
        let policy = self.generation().tables();
        let frames = frames(policy, meta, frame);
        let core = self.core();
        let now = core.now();
        if !core.resets.may(now) {
            return;
        }
        let room = WAITING - core.resets.waiting.len();
        for reset in frames.into_iter().flatten().take(room) {
            core.resets.waiting.push(reset);
            core.tables_mut()
                .count_eni(meta.eni, EniStat::TcpRstInjectPackets, 1);
        }
    }
}

/// Both frames; `None` for one whose way is not known.
fn frames(policy: &PolicyTables, meta: &Meta, frame: &Frame) -> [Option<Reset>; 2] {
    let inner = frame.data();
    let globals: Option<Globals> = policy.row(Table::Globals, &0u32);
    let (Some(globals), Some(tcp)) = (globals, tcp_header(inner)) else {
        return [None, None];
    };
    let number = |at: usize| tcp.get(at..at + 4)?.first_chunk::<4>().copied();
    let (Some(sequence), Some(acknowledged)) = (number(4), number(8)) else {
        return [None, None];
    };
    let (dmac, smac) = (meta.inner_dmac, meta.inner_smac);
    let along = Way {
        ends: turned(&meta.rkey),
        macs: (dmac, smac),
        actions: &meta.actions,
        u1: Some((meta.u1_dip, meta.u1_vni)),
        sequence,
    };
    let back = Way {
        ends: turned(&meta.key),
        macs: (smac, dmac),
        actions: &meta.ractions,
        u1: None,
        sequence: acknowledged,
    };
    [along, back].map(|way| way.frame(policy, &globals, meta, frame.port))
}

/// The TCP header of an inner frame.
fn tcp_header(frame: &[u8]) -> Option<&[u8]> {
    let ip = frame.get(14..)?;
    if ip.first()? >> 4 == 4 {
        return ip.get(usize::from(ip[0] & 15) * 4..);
    }
    let (mut next, mut rest) = (*ip.get(6)?, ip.get(40..)?);
    while next != TCP {
        let words = usize::from(*rest.get(1)?);
        let len = match next {
            // Fragment header.
            44 => 8,
            // Authentication header.
            51 => (words + 2) * 4,
            _ => (words + 1) * 8,
        };
        (next, rest) = (rest[0], rest.get(len..)?);
    }
    Some(rest)
}

/// The other end's view of a flow key.
fn turned(key: &FlowKey) -> FlowKey {
    FlowKey {
        sip: key.dip,
        dip: key.sip,
        sport: key.dport,
        dport: key.sport,
        ..*key
    }
}

/// Where a reset goes.
struct Way<'a> {
    ends: FlowKey,
    /// Destination, source.
    macs: ([u8; 6], [u8; 6]),
    actions: &'a FlowActions,
    /// Destination and VNI of a second encap.
    u1: Option<([u8; 4], u32)>,
    sequence: [u8; 4],
}

impl Way<'_> {
    fn does(&self, action: u16) -> bool {
        self.actions.actions & action != 0
    }

    fn frame(
        &self,
        policy: &PolicyTables,
        globals: &Globals,
        meta: &Meta,
        in_port: u16,
    ) -> Option<Reset> {
        let encapsulates = self.does(flow_action::ENCAP_U0);
        let second = self.u1.filter(|_| self.does(flow_action::ENCAP_U1));
        let v6 = self.ends.flags & flow_flags::V6 != 0;
        let inner_len: u16 = if v6 { 74 } else { 54 };
        // Received MACs swapped, unless an underlay route names a port.
        let (mut macs, mut port) = ((meta.outer_smac, meta.outer_dmac), in_port);
        let out: UnderlayKey = match (second, encapsulates) {
            (Some((dip, _)), _) => underlay(dip),
            (None, true) => underlay(self.actions.u0_dip),
            (None, false) if v6 => UnderlayKey {
                v6: 1,
                dst: self.ends.dip,
                ..underlay([0; 4])
            },
            (None, false) => underlay(*self.ends.dip.last_chunk()?),
        };
        if let Some(row) = policy.row::<_, UnderlayRow>(Table::Underlay, &out) {
            if row.flags & underlay_flags::RESOLVED == 0 {
                return None;
            }
            (macs, port) = ((row.dmac, row.smac), u16::try_from(row.port).ok()?);
        }
        let mut bytes = Bytes::default();
        if encapsulates {
            let first = Outer {
                macs,
                ttl: globals.encap_ttl,
                kind: self.actions.u0_encap,
                sip: self.actions.u0_sip,
                dip: self.actions.u0_dip,
                vni: self.actions.u0_vni,
                sport: self.actions.sport,
                dport: globals.vxlan_port,
            };
            if let Some((dip, vni)) = second {
                let outer = Outer {
                    kind: self.actions.u1,
                    sip: globals.vip,
                    dip,
                    vni,
                    ..first
                };
                outer.write(inner_len + first.len(), &mut bytes);
            }
            // The inner one of two has the MACs that packets received there have.
            let first = Outer {
                macs: if second.is_some() {
                    (meta.outer_smac, meta.outer_dmac)
                } else {
                    macs
                },
                ..first
            };
            first.write(inner_len, &mut bytes);
        }
        self.write_inner(v6, &mut bytes);
        Some(Reset { port, bytes })
    }

    /// Ethernet, IP, TCP with the one flag.
    fn write_inner(&self, v6: bool, out: &mut Bytes) {
        let (dmac, smac) = self.macs;
        let dmac = if self.does(flow_action::SET_DMAC) {
            self.actions.dmac
        } else {
            dmac
        };
        out.push(&dmac);
        out.push(&smac);
        let (sip, dip) = (&self.ends.sip, &self.ends.dip);
        let (sip, dip) = if v6 {
            (&sip[..], &dip[..])
        } else {
            (&sip[12..], &dip[12..])
        };
        if v6 {
            out.push(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, TCP, TTL]);
            out.push(sip);
            out.push(dip);
        } else {
            out.push(&[0x08, 0x00]);
            let mut ip = Bytes::default();
            ip.push(&[0x45, 0, 0, 40, 0, 0, 0, 0, TTL, TCP, 0, 0]);
            ip.push(sip);
            ip.push(dip);
            out.push_summed(ip, 10, 0);
        }
        let mut tcp = Bytes::default();
        tcp.push(&self.ends.sport);
        tcp.push(&self.ends.dport);
        tcp.push(&self.sequence);
        tcp.push(&[0, 0, 0, 0, 0x50, 0x04, 0, 0, 0, 0, 0, 0]);
        // Pseudo header: addresses, protocol, length.
        let pseudo = sum(sip) + sum(dip) + u32::from(TCP) + 20;
        out.push_summed(tcp, 16, pseudo);
    }
}

fn underlay(dip: [u8; 4]) -> UnderlayKey {
    let mut key = UnderlayKey {
        prefix_len: 32 + 128,
        ..UnderlayKey::default()
    };
    key.dst[..4].copy_from_slice(&dip);
    key
}

/// The headers of an encap.
#[derive(Clone, Copy)]
struct Outer {
    macs: ([u8; 6], [u8; 6]),
    ttl: u8,
    kind: u8,
    sip: [u8; 4],
    dip: [u8; 4],
    vni: u32,
    sport: [u8; 2],
    dport: [u8; 2],
}

impl Outer {
    fn nvgre(&self) -> bool {
        self.kind == encap::NVGRE
    }

    fn len(&self) -> u16 {
        if self.nvgre() { 42 } else { 50 }
    }

    fn write(&self, inner_len: u16, out: &mut Bytes) {
        let (dmac, smac) = self.macs;
        out.push(&dmac);
        out.push(&smac);
        out.push(&[0x08, 0x00]);
        let protocol = if self.nvgre() { 47 } else { 17 };
        let [high, low] = (inner_len + self.len() - 14).to_be_bytes();
        let mut ip = Bytes::default();
        ip.push(&[0x45, 0, high, low, 0, 0, 0, 0, self.ttl, protocol, 0, 0]);
        ip.push(&self.sip);
        ip.push(&self.dip);
        out.push_summed(ip, 10, 0);
        let [_, a, b, c] = self.vni.to_be_bytes();
        if self.nvgre() {
            out.push(&[0x20, 0, 0x65, 0x58, a, b, c, 0]);
            return;
        }
        out.push(&self.sport);
        out.push(&self.dport);
        out.push(&(inner_len + 16).to_be_bytes());
        out.push(&[0, 0, 0x08, 0, 0, 0, a, b, c, 0]);
    }
}

/// Bytes without memory of their own.
#[derive(Clone, Copy, Debug)]
struct Bytes {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Default for Bytes {
    fn default() -> Self {
        Self {
            bytes: [0; LONGEST],
            len: 0,
        }
    }
}

impl Bytes {
    fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, more: &[u8]) {
        let to = self.len + more.len();
        self.bytes[self.len..to].copy_from_slice(more);
        self.len = to;
    }

    /// Adds a header after its checksum, which is at `at`, was made over it and `more`.
    fn push_summed(&mut self, mut header: Self, at: usize, more: u32) {
        let mut total = sum(header.get()) + more;
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        let checksum = !(total as u16);
        header.bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        self.push(header.get());
    }
}

/// Of 16-bit words, not folded.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    words.map(word).sum()
}
