//! Words for a trace.

use std::fmt;
use std::net::Ipv4Addr;

use dash_wire::tables::{Direction, FlowActions, encap, flow_action};
use nic_target::Table;

use super::encapsulates;
use crate::fields::{key_schema, row_schema};
use crate::model::packet::{self, ICMP, ICMPV6, Inner, TCP, UDP};
use crate::model::tables::{By, Found};
use crate::model::value::{Mac, Value};

pub(super) fn direction_name(direction: u8) -> &'static str {
    match direction {
        d if d == Direction::Outbound as u8 => "outbound",
        d if d == Direction::Inbound as u8 => "inbound",
        _ => "no direction",
    }
}

/// Components of a key with their names.
pub(super) fn key_text(table: Table, key: &[Value]) -> String {
    if let (Table::Underlay, [Value::Num(0), Value::Bytes(_, [a, b, c, d, ..])]) = (table, key) {
        // IPv4 sits in the first bytes here, so that prefixes of both families line up.
        return format!("v6 0, dst {}", Ipv4Addr::new(*a, *b, *c, *d));
    }
    let parts = key_schema(table).iter().zip(key);
    let parts: Vec<_> = parts
        .map(|(field, value)| format!("{} {value}", field.name))
        .collect();
    parts.join(", ")
}

/// A look-up in one line: key, how it was found, and the row's fields that are not zero.
pub(super) fn match_text(table: Table, key: &[Value], found: Option<Found>) -> String {
    let schema = key_schema(table);
    let head = format!("match {}[{}]", table.name(), key_text(table, key));
    let Some(found) = found else {
        return format!("{head}: no row");
    };
    let how = match found.by {
        By::Exact => "found".to_owned(),
        By::Rule(i) => format!("rule {i}"),
        By::Prefix(bits) => {
            // The last component is the one prefixes are taken of.
            let whole: usize = schema.iter().rev().skip(1).map(|f| f.ty.size() * 8).sum();
            format!("/{}", (bits as usize).saturating_sub(whole))
        }
    };
    let fields = row_schema(table)
        .iter()
        .filter_map(|f| found.row.value(f.name).map(|v| (f, v)));
    let fields: Vec<_> = fields
        .filter(|(f, v)| *v != Value::zero(f.ty))
        .map(|(f, v)| format!("{} {v}", f.name))
        .collect();
    if fields.is_empty() {
        format!("{head}: {how}")
    } else {
        format!("{head}: {how}: {}", fields.join(", "))
    }
}

pub(super) struct InnerText<'a>(pub(super) &'a Inner);

impl fmt::Display for InnerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let i = self.0;
        let (sport, dport) = (u16::from_be_bytes(i.sport), u16::from_be_bytes(i.dport));
        write!(
            f,
            "{} -> {} ",
            packet::address(i.v6, i.sip),
            packet::address(i.v6, i.dip)
        )?;
        match (i.proto, i.v6) {
            (TCP, _) => write!(f, "TCP {sport} -> {dport} flags {:#04x}", i.tcp_flags)?,
            (UDP, _) => write!(f, "UDP {sport} -> {dport}")?,
            (ICMP, false) => write!(f, "ICMP id {sport}")?,
            (ICMPV6, true) => write!(f, "ICMPv6 id {sport}")?,
            (proto, _) => write!(f, "protocol {proto}")?,
        }
        write!(f, ", {} bytes", i.len)
    }
}

/// The second encap of a packet.
pub(super) struct Second {
    pub(super) encap: u8,
    pub(super) sip: [u8; 4],
    pub(super) dip: [u8; 4],
    pub(super) vni: u32,
}

pub(super) struct ActionsText<'a>(pub(super) &'a FlowActions, pub(super) Option<Second>);

impl fmt::Display for ActionsText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let a = self.0;
        if a.actions & flow_action::SET_SMAC != 0 {
            f.write_str("inner source the ENI, ")?;
        }
        if a.actions & flow_action::SET_DMAC != 0 {
            write!(f, "inner destination {}, ", Mac(a.dmac))?;
        }
        let name = |kind| {
            if kind == encap::NVGRE {
                "NVGRE"
            } else {
                "VXLAN"
            }
        };
        if encapsulates(a) {
            let (sip, dip) = (Value::bytes(&a.u0_sip), Value::bytes(&a.u0_dip));
            write!(
                f,
                "{} {sip} -> {dip} VNI {} source port {}, ",
                name(a.u0_encap),
                a.u0_vni,
                u16::from_be_bytes(a.sport)
            )?;
        }
        if let Some(second) = &self.1 {
            let (sip, dip) = (Value::bytes(&second.sip), Value::bytes(&second.dip));
            write!(
                f,
                "in {} {sip} -> {dip} VNI {}, ",
                name(second.encap),
                second.vni
            )?;
        }
        Ok(())
    }
}
