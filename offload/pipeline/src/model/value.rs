//! Values, and the metadata and rows they are read from, by name.
//!
//! Names lead to struct fields here, not to the offsets of [`crate::fields`] that compiled programs
//! use: a wrong offset there shows as a difference between the engines. A test holds the two lists
//! of names and types against each other.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use dash_wire::tables::{
    EniRow, Globals, InboundRow, MappingMoreRow, MappingRow, Meta, PortRangeRow, QosRow,
    RouteMoreRow, RouteRow, RoutingTypeRow, TunnelRow, UnderlayRow,
};
use nic_target::Table;
use zerocopy::FromBytes;

use crate::fields::Ty;

/// A value of the IR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A number of any width.
    Num(u64),
    /// Bytes in network order: this many of the array, the rest zero.
    Bytes(u8, [u8; 16]),
}

impl Value {
    pub(super) fn zero(ty: Ty) -> Self {
        match ty {
            Ty::Num(_) => Self::Num(0),
            Ty::Bytes(n) => Self::Bytes(n, [0; 16]),
        }
    }

    pub(super) fn bytes(bytes: &[u8]) -> Self {
        let mut all = [0; 16];
        let n = bytes.len().min(16);
        all[..n].copy_from_slice(&bytes[..n]);
        Self::Bytes(n as u8, all)
    }

    pub(super) fn num(self) -> Option<u64> {
        match self {
            Self::Num(n) => Some(n),
            Self::Bytes(..) => None,
        }
    }

    /// The bytes of a byte string of exactly `N`.
    pub(super) fn array<const N: usize>(self) -> Option<[u8; N]> {
        match self {
            Self::Bytes(n, all) if usize::from(n) == N => all.first_chunk().copied(),
            _ => None,
        }
    }

    /// As a variable of type `ty` holds it: numbers cut to its width.
    pub(super) fn cut(self, ty: Ty) -> Option<Self> {
        match (self, ty) {
            (Self::Num(n), Ty::Num(8)) => Some(Self::Num(n)),
            (Self::Num(n), Ty::Num(bytes)) => {
                Some(Self::Num(n & ((1 << (u32::from(bytes) * 8)) - 1)))
            }
            (Self::Bytes(n, _), Ty::Bytes(m)) if n == m => Some(self),
            _ => None,
        }
    }
}

/// As people write it: addresses dotted, ports and VNIs as numbers.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Num(n) => write!(f, "{n}"),
            Self::Bytes(4, [a, b, c, d, ..]) => write!(f, "{}", Ipv4Addr::new(a, b, c, d)),
            Self::Bytes(6, [a, b, c, d, e, g, ..]) => write!(f, "{}", Mac([a, b, c, d, e, g])),
            Self::Bytes(16, ip) => write!(f, "{}", Ip(ip)),
            Self::Bytes(n, all) => {
                let number = all
                    .iter()
                    .take(usize::from(n))
                    .fold(0u128, |n, b| n << 8 | u128::from(*b));
                write!(f, "{number}")
            }
        }
    }
}

/// A MAC in messages.
pub(super) struct Mac(pub(super) [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An address of either family in messages.
pub(super) struct Ip(pub(super) [u8; 16]);

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => {
                write!(f, "{}", Ipv4Addr::new(a, b, c, d))
            }
            ip => write!(f, "{}", Ipv6Addr::from(ip)),
        }
    }
}

/// A struct field as a variable of the IR.
pub(super) trait Cell {
    fn load(&self) -> Value;
    /// `None`, and nothing stored, when the value is of another type.
    fn store(&mut self, value: Value) -> Option<()>;
}

macro_rules! number_cell {
    ($($t:ty)*) => {$(
        impl Cell for $t {
            fn load(&self) -> Value {
                Value::Num(u64::from(*self))
            }
            fn store(&mut self, value: Value) -> Option<()> {
                // Numbers are cut to the destination's width.
                *self = value.num()? as $t;
                Some(())
            }
        }
    )*};
}
number_cell!(u8 u16 u32 u64);

impl<const N: usize> Cell for [u8; N] {
    fn load(&self) -> Value {
        Value::bytes(self)
    }
    fn store(&mut self, value: Value) -> Option<()> {
        *self = value.array()?;
        Some(())
    }
}

macro_rules! named {
    ($read:ident, $write:ident, $var:ident: $t:ty, $($name:literal: $place:expr,)*) => {
        named! { $read, $var: $t, $($name: $place,)* }

        /// The field, to store to.
        pub(super) fn $write<'a>($var: &'a mut $t, name: &str) -> Option<&'a mut dyn Cell> {
            Some(match name { $($name => &mut $place,)* _ => return None })
        }
    };
    ($read:ident, $var:ident: $t:ty, $($name:literal: $place:expr,)*) => {
        /// The field's value.
        pub(super) fn $read($var: &$t, name: &str) -> Option<Value> {
            let cell: &dyn Cell = match name { $($name => &$place,)* _ => return None };
            Some(cell.load())
        }
    };
}

named! { meta_value, meta_cell, m: Meta,
    "key.sip": m.key.sip,
    "key.dip": m.key.dip,
    "key.sport": m.key.sport,
    "key.dport": m.key.dport,
    "key.eni": m.key.eni,
    "key.proto": m.key.proto,
    "key.flags": m.key.flags,
    "rkey.sip": m.rkey.sip,
    "rkey.dip": m.rkey.dip,
    "rkey.sport": m.rkey.sport,
    "rkey.dport": m.rkey.dport,
    "rkey.eni": m.rkey.eni,
    "rkey.proto": m.rkey.proto,
    "rkey.flags": m.rkey.flags,
    "actions.actions": m.actions.actions,
    "actions.u0_sip": m.actions.u0_sip,
    "actions.u0_dip": m.actions.u0_dip,
    "actions.u0_vni": m.actions.u0_vni,
    "actions.dmac": m.actions.dmac,
    "actions.sport": m.actions.sport,
    "actions.u0_encap": m.actions.u0_encap,
    "ractions.actions": m.ractions.actions,
    "ractions.u0_sip": m.ractions.u0_sip,
    "ractions.u0_dip": m.ractions.u0_dip,
    "ractions.u0_vni": m.ractions.u0_vni,
    "ractions.dmac": m.ractions.dmac,
    "ractions.sport": m.ractions.sport,
    "ractions.u0_encap": m.ractions.u0_encap,
    "meter_class": m.meter_class,
    "outer_smac": m.outer_smac,
    "outer_dmac": m.outer_dmac,
    "outer_sip": m.outer_sip,
    "outer_dip": m.outer_dip,
    "outer_tos": m.outer_tos,
    "vni": m.vni,
    "frame_len": m.frame_len,
    "eni": m.eni,
    "inner_smac": m.inner_smac,
    "inner_dmac": m.inner_dmac,
    "inner_len": m.inner_len,
    "direction": m.direction,
    "tcp_flags": m.tcp_flags,
    "redirect": m.redirect,
    "acl_sport": m.acl_sport,
    "acl_dport": m.acl_dport,
    "acl": m.acl,
    "now_ns": m.now_ns,
    "actions.u1": m.actions.u1,
    "ractions.u1": m.ractions.u1,
    "u1_vni": m.u1_vni,
    "u1_dip": m.u1_dip,
    "meter_len": m.meter_len,
    "epoch": m.epoch,
    "renew": m.renew,
    "learn": m.learn,
}

named! { read_globals, r: Globals,
    "vip": r.vip,
    "vm_vni": r.vm_vni,
    "vxlan_port": r.vxlan_port,
    "encap_ttl": r.encap_ttl,
    "flags": r.flags,
    "sport_base": r.sport_base,
    "sport_mask": r.sport_mask,
}

named! { read_eni, r: EniRow,
    "reverse_sip": r.reverse_sip,
    "mtu": r.mtu,
    "dscp_tos": r.dscp_tos,
    "flags": r.flags,
    "vm_underlay_dip": r.vm_underlay_dip,
    "vm_vni": r.vm_vni,
    "vnet_vni": r.vnet_vni,
    "vnet": r.vnet,
    "route_group": r.route_group,
    "acl_out_v4_1": r.acl[0][0],
    "acl_out_v4_2": r.acl[0][1],
    "acl_out_v4_3": r.acl[0][2],
    "acl_out_v4_4": r.acl[0][3],
    "acl_out_v4_5": r.acl[0][4],
    "acl_out_v6_1": r.acl[1][0],
    "acl_out_v6_2": r.acl[1][1],
    "acl_out_v6_3": r.acl[1][2],
    "acl_out_v6_4": r.acl[1][3],
    "acl_out_v6_5": r.acl[1][4],
    "acl_in_v4_1": r.acl[2][0],
    "acl_in_v4_2": r.acl[2][1],
    "acl_in_v4_3": r.acl[2][2],
    "acl_in_v4_4": r.acl[2][3],
    "acl_in_v4_5": r.acl[2][4],
    "acl_in_v6_1": r.acl[3][0],
    "acl_in_v6_2": r.acl[3][1],
    "acl_in_v6_3": r.acl[3][2],
    "acl_in_v6_4": r.acl[3][3],
    "acl_in_v6_5": r.acl[3][4],
    "pl_underlay_sip": r.pl_underlay_sip,
    "pl_keep": r.pl_keep,
    "pl_set": r.pl_set,
    "meter_v4": r.meter[0],
    "meter_v6": r.meter[1],
    "epoch": r.epoch,
}

named! { read_route, r: RouteRow,
    "action": r.action,
    "flags": r.flags,
    "vnet": r.vnet,
    "vni": r.vni,
    "overlay_ip": r.overlay_ip,
    "meter_or": r.meter_or,
    "meter_and": r.meter_and,
}

named! { read_mapping, r: MappingRow,
    "underlay_dip": r.underlay_dip,
    "dmac": r.dmac,
    "flags": r.flags,
}

named! { read_inbound, r: InboundRow,
    "action": r.action,
    "vnet": r.vnet,
    "meter_or": r.meter_or,
    "meter_and": r.meter_and,
}

named! { read_underlay, r: UnderlayRow,
    "port": r.port,
    "flags": r.flags,
    "dmac": r.dmac,
    "smac": r.smac,
    "mtu": r.mtu,
}

named! { read_route_more, r: RouteMoreRow,
    "underlay_sip": r.underlay_sip,
    "underlay_dip": r.underlay_dip,
    "tunnel": r.tunnel,
    "sip_keep": r.sip_keep,
    "sip_set": r.sip_set,
    "dip_keep": r.dip_keep,
    "dip_set": r.dip_set,
}

named! { read_mapping_more, r: MappingMoreRow,
    "tunnel": r.tunnel,
    "port_map": r.port_map,
    "sip_keep": r.sip_keep,
    "sip_set": r.sip_set,
    "dip_keep": r.dip_keep,
    "dip_set": r.dip_set,
    "routing_type": r.routing_type,
}

named! { read_routing_type, r: RoutingTypeRow,
    "encap": r.encap,
    "key": r.key,
}

named! { read_tunnel, r: TunnelRow,
    "dip": r.dip,
    "vni": r.vni,
    "members": r.members,
    "encap": r.encap,
    "meter_or": r.meter_or,
}

named! { read_port_range, r: PortRangeRow,
    "backend_ip": r.backend_ip,
    "action": r.action,
    "match_base": r.match_base,
    "backend_base": r.backend_base,
}

/// A row of any table that can be matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    Globals(Globals),
    Number(u32),
    Eni(EniRow),
    Route(RouteRow),
    Mapping(MappingRow),
    Inbound(InboundRow),
    Underlay(UnderlayRow),
    RouteMore(RouteMoreRow),
    MappingMore(MappingMoreRow),
    RoutingType(RoutingTypeRow),
    Tunnel(TunnelRow),
    PortRange(PortRangeRow),
    Qos(QosRow),
}

impl Row {
    /// From the bytes control writes; `None` when they are not of the row's size, or the table has
    /// no rows that are read by name.
    pub(super) fn from_bytes(table: Table, bytes: &[u8]) -> Option<Self> {
        match table {
            Table::Globals => Globals::read_from_bytes(bytes).ok().map(Self::Globals),
            Table::Eni => EniRow::read_from_bytes(bytes).ok().map(Self::Eni),
            Table::Route4 | Table::Route6 => RouteRow::read_from_bytes(bytes).ok().map(Self::Route),
            Table::Mapping => MappingRow::read_from_bytes(bytes).ok().map(Self::Mapping),
            Table::Inbound => InboundRow::read_from_bytes(bytes).ok().map(Self::Inbound),
            Table::Underlay => UnderlayRow::read_from_bytes(bytes).ok().map(Self::Underlay),
            Table::Route4More | Table::Route6More => RouteMoreRow::read_from_bytes(bytes)
                .ok()
                .map(Self::RouteMore),
            Table::MappingMore => MappingMoreRow::read_from_bytes(bytes)
                .ok()
                .map(Self::MappingMore),
            Table::RoutingType => RoutingTypeRow::read_from_bytes(bytes)
                .ok()
                .map(Self::RoutingType),
            Table::Tunnel => TunnelRow::read_from_bytes(bytes).ok().map(Self::Tunnel),
            Table::PortRange => PortRangeRow::read_from_bytes(bytes)
                .ok()
                .map(Self::PortRange),
            Table::Qos => QosRow::read_from_bytes(bytes).ok().map(Self::Qos),
            Table::EniMac
            | Table::TrustedVni
            | Table::PaValidation
            | Table::PaPrefix
            | Table::Acl
            | Table::PortMtu
            | Table::MeterRule => u32::read_from_bytes(bytes).ok().map(Self::Number),
            Table::FlowIndex
            | Table::FlowSlab
            | Table::FlowFree
            | Table::FlowEvents
            | Table::EniStats
            | Table::PortStats
            | Table::Fragments
            | Table::Meta
            | Table::EniLife
            | Table::Stages
            | Table::MeterStats
            | Table::QosState => None,
        }
    }

    /// A field by name.
    pub(super) fn value(&self, name: &str) -> Option<Value> {
        match self {
            Self::Globals(r) => read_globals(r, name),
            Self::Number(n) => (name == "value").then(|| n.load()),
            Self::Eni(r) => read_eni(r, name),
            Self::Route(r) => read_route(r, name),
            Self::Mapping(r) => read_mapping(r, name),
            Self::Inbound(r) => read_inbound(r, name),
            Self::Underlay(r) => read_underlay(r, name),
            Self::RouteMore(r) => read_route_more(r, name),
            Self::MappingMore(r) => read_mapping_more(r, name),
            Self::RoutingType(r) => read_routing_type(r, name),
            Self::Tunnel(r) => read_tunnel(r, name),
            Self::PortRange(r) => read_port_range(r, name),
            // Read by `police` and `admit` alone.
            Self::Qos(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{FieldDef, META, row_schema};

    /// Bytes that differ at every offset, so that a field read at another place differs.
    fn counting<const N: usize>() -> [u8; N] {
        std::array::from_fn(|i| (i as u8).wrapping_mul(37).wrapping_add(11))
    }

    /// What the layout list says is at the field's place.
    fn by_offset(bytes: &[u8], field: FieldDef) -> Value {
        let raw = &bytes[field.offset..field.offset + field.ty.size()];
        match field.ty {
            Ty::Bytes(_) => Value::bytes(raw),
            Ty::Num(n) => {
                let mut word = [0; 8];
                let n = usize::from(n);
                if cfg!(target_endian = "little") {
                    word[..n].copy_from_slice(raw);
                } else {
                    word[8 - n..].copy_from_slice(raw);
                }
                Value::Num(u64::from_ne_bytes(word))
            }
        }
    }

    #[test]
    fn every_metadata_field_is_where_the_layout_list_says() {
        let bytes = counting::<{ size_of::<Meta>() }>();
        let mut meta = Meta::read_from_bytes(&bytes).unwrap();
        for field in META {
            assert_eq!(
                meta_value(&meta, field.name),
                Some(by_offset(&bytes, *field)),
                "{}",
                field.name
            );
            assert_eq!(
                meta_cell(&mut meta, field.name).map(|c| c.load()),
                Some(by_offset(&bytes, *field))
            );
        }
    }

    #[test]
    fn every_row_field_is_where_the_layout_list_says() {
        let bytes = counting::<256>();
        for table in Table::ALL {
            for field in row_schema(*table) {
                let size = table.def(&nic_target::Capacity::default()).value_size as usize;
                let row = Row::from_bytes(*table, &bytes[..size]).unwrap();
                let found = row.value(field.name);
                assert_eq!(
                    found,
                    Some(by_offset(&bytes, *field)),
                    "{}.{}",
                    table.name(),
                    field.name
                );
            }
        }
    }

    #[test]
    fn storing_cuts_numbers_and_refuses_other_types() {
        let mut meta = Meta::default();
        let cell = meta_cell(&mut meta, "direction").unwrap();
        assert_eq!(cell.store(Value::Num(0x1_02)), Some(()));
        assert_eq!(cell.store(Value::bytes(&[9])), None);
        assert_eq!(meta.direction, 2);
        let cell = meta_cell(&mut meta, "outer_sip").unwrap();
        assert_eq!(cell.store(Value::bytes(&[1, 2, 3])), None);
        assert_eq!(meta.outer_sip, [0; 4]);
    }
}
