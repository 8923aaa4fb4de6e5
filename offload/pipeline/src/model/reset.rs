//! TCP resets to both ends of a connection that is denied in its middle (DASH reference 4.4).

use std::collections::VecDeque;

use dash_wire::tables::{
    FlowActions, FlowKey, Meta, RESETS_PER_SECOND, encap, flow_action, flow_flags, underlay_flags,
};
use nic_target::Table;

use super::packet::{ETH_IPV4, ETH_IPV6, Encap, TCP, at, ones_sum, u8_at};
use super::tables::Tables;
use super::value::{Row, Value};

const RST: u8 = 0x04;

/// Frames sent and not yet taken, and how many packets were answered since when.
#[derive(Default)]
pub(super) struct Resets {
    pub(super) sent: VecDeque<(u16, Vec<u8>)>,
    since_ns: u64,
    answered: u32,
}

impl Resets {
    /// One more packet may be answered in this second.
    pub(super) fn may(&mut self, now_ns: u64) -> bool {
        if now_ns - self.since_ns >= 1_000_000_000 {
            self.since_ns = now_ns;
            self.answered = 0;
        }
        if self.answered == RESETS_PER_SECOND {
            return false;
        }
        self.answered += 1;
        true
    }
}

type Sent = Option<(u16, Vec<u8>)>;

/// The reset that goes on where the packet `inner` would have gone, and the one that goes back; each
/// with its port.
pub(super) fn resets(tables: &Tables, meta: &Meta, inner: &[u8], in_port: u16) -> [Sent; 2] {
    let numbers = || {
        let tcp = tcp_at(inner)?;
        Some((at::<4>(inner, tcp + 4)?, at::<4>(inner, tcp + 8)?))
    };
    let Some((sequence, acknowledged)) = numbers() else {
        return [None, None];
    };
    // The reply's key tells what the packet becomes, as its key tells what the reply becomes.
    let on = frame(
        &meta.rkey,
        [meta.inner_dmac, meta.inner_smac],
        sequence,
        &meta.actions,
    );
    let back = frame(
        &meta.key,
        [meta.inner_smac, meta.inner_dmac],
        acknowledged,
        &meta.ractions,
    );
    let u1 = meta.actions.actions & flow_action::ENCAP_U1 != 0;
    let second = u1.then_some((meta.u1_dip, meta.u1_vni));
    [
        wrapped(tables, meta, &meta.actions, second, &meta.rkey, on, in_port),
        wrapped(tables, meta, &meta.ractions, None, &meta.key, back, in_port),
    ]
}

/// Where the TCP header of a frame begins.
fn tcp_at(frame: &[u8]) -> Option<usize> {
    if u8_at(frame, 14)? >> 4 == 4 {
        return Some(14 + 4 * usize::from(u8_at(frame, 14)? & 0xf));
    }
    let mut header = u8_at(frame, 14 + 6)?;
    let mut offset = 14 + 40;
    while header != TCP {
        let len = usize::from(u8_at(frame, offset + 1)?);
        let size = match header {
            44 => 8,
            51 => 4 * len + 8,
            _ => 8 * len + 8,
        };
        header = u8_at(frame, offset)?;
        offset += size;
    }
    Some(offset)
}

/// The inner frame: to the source of `key`, from its destination.
fn frame(key: &FlowKey, macs: [[u8; 6]; 2], sequence: [u8; 4], actions: &FlowActions) -> Vec<u8> {
    let v6 = key.flags & flow_flags::V6 != 0;
    let ip = |addr: &[u8; 16]| {
        if v6 {
            addr.to_vec()
        } else {
            addr[12..].to_vec()
        }
    };
    let addresses = [ip(&key.dip), ip(&key.sip)].concat();

    let mut tcp = [key.dport, key.sport].concat();
    tcp.extend(sequence);
    tcp.extend([0; 4]);
    tcp.extend([5 << 4, RST]);
    tcp.extend([0; 6]);
    let whole = [&addresses[..], &[0, TCP, 0, 20], &tcp].concat();
    let sum = !ones_sum(&whole);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());

    let [mut dmac, smac] = macs;
    if actions.actions & flow_action::SET_DMAC != 0 {
        dmac = actions.dmac;
    }
    let mut out = [dmac, smac].concat();
    if v6 {
        out.extend(ETH_IPV6);
        out.extend([6 << 4, 0, 0, 0, 0, 20, TCP, 64]);
        out.extend(addresses);
    } else {
        let mut head = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, TCP, 0, 0];
        head.extend(addresses);
        let sum = !ones_sum(&head);
        head[10..12].copy_from_slice(&sum.to_be_bytes());
        out.extend(ETH_IPV4);
        out.extend(head);
    }
    out.extend(tcp);
    out
}

/// The frame in its encaps; `None` when its next hop is not known.
fn wrapped(
    tables: &Tables,
    meta: &Meta,
    actions: &FlowActions,
    second: Option<([u8; 4], u32)>,
    key: &FlowKey,
    mut frame: Vec<u8>,
    in_port: u16,
) -> Sent {
    let globals = tables.globals();
    let encapsulated = actions.actions & flow_action::ENCAP_U0 != 0;
    let mut outermost = if encapsulated {
        Value::bytes(&actions.u0_dip)
    } else if key.flags & flow_flags::V6 != 0 {
        Value::bytes(&key.sip)
    } else {
        Value::bytes(&key.sip[12..])
    };
    if encapsulated {
        let first = Encap {
            nvgre: actions.u0_encap == encap::NVGRE,
            dmac: meta.outer_smac,
            smac: meta.outer_dmac,
            tos: 0,
            ttl: globals.encap_ttl,
            sip: actions.u0_sip,
            dip: actions.u0_dip,
            sport: actions.sport,
            dport: globals.vxlan_port,
            vni: actions.u0_vni,
        };
        frame = [first.headers(frame.len() as u16), frame].concat();
        if let Some((dip, vni)) = second {
            let outer = Encap {
                nvgre: actions.u1 == encap::NVGRE,
                sip: globals.vip,
                dip,
                vni,
                ..first
            };
            frame = [outer.headers(frame.len() as u16), frame].concat();
            outermost = Value::bytes(&dip);
        }
    }
    let Value::Bytes(len, addr) = outermost else {
        return None;
    };
    // IPv4 sits in the first bytes here.
    let v6 = Value::Num(u64::from(len == 16));
    let found = tables.lookup(Table::Underlay, &[v6, Value::bytes(&addr)])?;
    let Some(found) = found else {
        return Some((in_port, frame));
    };
    let Row::Underlay(row) = found.row else {
        return None;
    };
    if row.flags & underlay_flags::RESOLVED == 0 {
        return None;
    }
    if encapsulated {
        frame[..6].copy_from_slice(&row.dmac);
        frame[6..12].copy_from_slice(&row.smac);
    }
    Some((u16::try_from(row.port).ok()?, frame))
}
