//! Names, types and places of everything the IR can read or write: metadata, table keys, rows.

use std::fmt;
use std::mem::offset_of;

use dash_wire::tables as t;
use nic_target::Table;

/// Type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ty {
    /// `u8`, `u16`, `u32`, `u64`: a number of this many bytes in the core's byte order.
    Num(u8),
    /// `bN`: N bytes in network order.
    Bytes(u8),
}

impl Ty {
    /// Size in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Num(n) | Self::Bytes(n) => usize::from(n),
        }
    }
    /// From text.
    pub fn parse(s: &str) -> Option<Self> {
        match s {
            "u8" => Some(Self::Num(1)),
            "u16" => Some(Self::Num(2)),
            "u32" => Some(Self::Num(4)),
            "u64" => Some(Self::Num(8)),
            "b2" => Some(Self::Bytes(2)),
            "b3" => Some(Self::Bytes(3)),
            "b4" => Some(Self::Bytes(4)),
            "b6" => Some(Self::Bytes(6)),
            "b16" => Some(Self::Bytes(16)),
            _ => None,
        }
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Num(n) => write!(f, "u{}", u32::from(*n) * 8),
            Self::Bytes(n) => write!(f, "b{n}"),
        }
    }
}

/// A field of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldDef {
    /// Name in IR text.
    pub name: &'static str,
    /// Type.
    pub ty: Ty,
    /// Byte offset.
    pub offset: usize,
}

const fn num(name: &'static str, bytes: u8, offset: usize) -> FieldDef {
    FieldDef {
        name,
        ty: Ty::Num(bytes),
        offset,
    }
}

const fn bytes(name: &'static str, len: u8, offset: usize) -> FieldDef {
    FieldDef {
        name,
        ty: Ty::Bytes(len),
        offset,
    }
}

const fn within(outer: usize, inner: FieldDef, name: &'static str) -> FieldDef {
    FieldDef {
        name,
        ty: inner.ty,
        offset: outer + inner.offset,
    }
}

const KEY: [FieldDef; 7] = [
    bytes("sip", 16, offset_of!(t::FlowKey, sip)),
    bytes("dip", 16, offset_of!(t::FlowKey, dip)),
    bytes("sport", 2, offset_of!(t::FlowKey, sport)),
    bytes("dport", 2, offset_of!(t::FlowKey, dport)),
    num("eni", 2, offset_of!(t::FlowKey, eni)),
    num("proto", 1, offset_of!(t::FlowKey, proto)),
    num("flags", 1, offset_of!(t::FlowKey, flags)),
];

const ACTIONS: [FieldDef; 8] = [
    num("actions", 2, offset_of!(t::FlowActions, actions)),
    bytes("u0_sip", 4, offset_of!(t::FlowActions, u0_sip)),
    bytes("u0_dip", 4, offset_of!(t::FlowActions, u0_dip)),
    num("u0_vni", 4, offset_of!(t::FlowActions, u0_vni)),
    bytes("dmac", 6, offset_of!(t::FlowActions, dmac)),
    bytes("sport", 2, offset_of!(t::FlowActions, sport)),
    num("u0_encap", 1, offset_of!(t::FlowActions, u0_encap)),
    num("u1", 1, offset_of!(t::FlowActions, u1)),
];

/// Metadata fields, by name.
pub const META: &[FieldDef] = &{
    const K: usize = offset_of!(t::Meta, key);
    const R: usize = offset_of!(t::Meta, rkey);
    const A: usize = offset_of!(t::Meta, actions);
    const B: usize = offset_of!(t::Meta, ractions);
    [
        within(K, KEY[0], "key.sip"),
        within(K, KEY[1], "key.dip"),
        within(K, KEY[2], "key.sport"),
        within(K, KEY[3], "key.dport"),
        within(K, KEY[4], "key.eni"),
        within(K, KEY[5], "key.proto"),
        within(K, KEY[6], "key.flags"),
        within(R, KEY[0], "rkey.sip"),
        within(R, KEY[1], "rkey.dip"),
        within(R, KEY[2], "rkey.sport"),
        within(R, KEY[3], "rkey.dport"),
        within(R, KEY[4], "rkey.eni"),
        within(R, KEY[5], "rkey.proto"),
        within(R, KEY[6], "rkey.flags"),
        within(A, ACTIONS[0], "actions.actions"),
        within(A, ACTIONS[1], "actions.u0_sip"),
        within(A, ACTIONS[2], "actions.u0_dip"),
        within(A, ACTIONS[3], "actions.u0_vni"),
        within(A, ACTIONS[4], "actions.dmac"),
        within(A, ACTIONS[5], "actions.sport"),
        within(A, ACTIONS[6], "actions.u0_encap"),
        within(B, ACTIONS[0], "ractions.actions"),
        within(B, ACTIONS[1], "ractions.u0_sip"),
        within(B, ACTIONS[2], "ractions.u0_dip"),
        within(B, ACTIONS[3], "ractions.u0_vni"),
        within(B, ACTIONS[4], "ractions.dmac"),
        within(B, ACTIONS[5], "ractions.sport"),
        within(B, ACTIONS[6], "ractions.u0_encap"),
        num("meter_class", 4, offset_of!(t::Meta, meter_class)),
        bytes("outer_smac", 6, offset_of!(t::Meta, outer_smac)),
        bytes("outer_dmac", 6, offset_of!(t::Meta, outer_dmac)),
        bytes("outer_sip", 4, offset_of!(t::Meta, outer_sip)),
        bytes("outer_dip", 4, offset_of!(t::Meta, outer_dip)),
        num("outer_tos", 1, offset_of!(t::Meta, outer_tos)),
        num("vni", 4, offset_of!(t::Meta, vni)),
        num("frame_len", 4, offset_of!(t::Meta, frame_len)),
        num("eni", 4, offset_of!(t::Meta, eni)),
        bytes("inner_smac", 6, offset_of!(t::Meta, inner_smac)),
        bytes("inner_dmac", 6, offset_of!(t::Meta, inner_dmac)),
        num("inner_len", 2, offset_of!(t::Meta, inner_len)),
        num("direction", 1, offset_of!(t::Meta, direction)),
        num("redirect", 1, offset_of!(t::Meta, redirect)),
        num("tcp_flags", 1, offset_of!(t::Meta, tcp_flags)),
        bytes("acl_sport", 2, offset_of!(t::Meta, acl_sport)),
        bytes("acl_dport", 2, offset_of!(t::Meta, acl_dport)),
        num("acl", 4, offset_of!(t::Meta, acl)),
        num("now_ns", 8, offset_of!(t::Meta, now_ns)),
        within(A, ACTIONS[7], "actions.u1"),
        within(B, ACTIONS[7], "ractions.u1"),
        num("u1_vni", 4, offset_of!(t::Meta, u1_vni)),
        bytes("u1_dip", 4, offset_of!(t::Meta, u1_dip)),
        num("meter_len", 2, offset_of!(t::Meta, meter_len)),
        num("epoch", 1, offset_of!(t::Meta, epoch)),
        num("renew", 1, offset_of!(t::Meta, renew)),
        num("learn", 1, offset_of!(t::Meta, learn)),
    ]
};

/// Key components of a table, without its prefix length and padding.
pub fn key_schema(table: Table) -> &'static [FieldDef] {
    const INDEX: &[FieldDef] = &[num("index", 4, 0)];
    const ENI_MAC: &[FieldDef] = &[bytes("mac", 6, offset_of!(t::EniMacKey, mac))];
    const TRUSTED: &[FieldDef] = &[
        bytes("eni", 2, offset_of!(t::TrustedVniKey, eni)),
        bytes("vni", 3, offset_of!(t::TrustedVniKey, vni)),
    ];
    const ROUTE4: &[FieldDef] = &[
        num("group", 4, offset_of!(t::Route4Key, group)),
        bytes("dst", 4, offset_of!(t::Route4Key, dst)),
    ];
    const ROUTE6: &[FieldDef] = &[
        num("group", 4, offset_of!(t::Route6Key, group)),
        bytes("dst", 16, offset_of!(t::Route6Key, dst)),
    ];
    const MAPPING: &[FieldDef] = &[
        num("vnet", 2, offset_of!(t::MappingKey, vnet)),
        num("v6", 1, offset_of!(t::MappingKey, v6)),
        bytes("ip", 16, offset_of!(t::MappingKey, ip)),
    ];
    const INBOUND: &[FieldDef] = &[
        num("eni", 4, offset_of!(t::InboundKey, eni)),
        num("vni", 4, offset_of!(t::InboundKey, vni)),
        bytes("sip", 4, offset_of!(t::InboundKey, sip)),
    ];
    const PA: &[FieldDef] = &[
        num("vnet", 2, offset_of!(t::PaKey, vnet)),
        bytes("sip", 4, offset_of!(t::PaKey, sip)),
    ];
    const ACL: &[FieldDef] = &[
        num("group", 4, offset_of!(t::AclKey, group)),
        num("proto", 1, offset_of!(t::AclKey, proto)),
        num("v6", 1, offset_of!(t::AclKey, v6)),
        bytes("sip", 16, offset_of!(t::AclKey, sip)),
        bytes("dip", 16, offset_of!(t::AclKey, dip)),
        bytes("sport", 2, offset_of!(t::AclKey, sport)),
        bytes("dport", 2, offset_of!(t::AclKey, dport)),
    ];
    const UNDERLAY: &[FieldDef] = &[
        num("v6", 4, offset_of!(t::UnderlayKey, v6)),
        bytes("dst", 16, offset_of!(t::UnderlayKey, dst)),
    ];
    const TUNNEL: &[FieldDef] = &[
        num("tunnel", 4, offset_of!(t::TunnelKey, tunnel)),
        num("member", 4, offset_of!(t::TunnelKey, member)),
    ];
    const PORT_RANGE: &[FieldDef] = &[
        num("map", 4, offset_of!(t::PortRangeKey, map)),
        bytes("port", 2, offset_of!(t::PortRangeKey, port)),
    ];
    const PA_PREFIX: &[FieldDef] = &[
        num("vnet", 4, offset_of!(t::PaPrefixKey, vnet)),
        bytes("sip", 4, offset_of!(t::PaPrefixKey, sip)),
    ];
    const PORT: &[FieldDef] = &[num("port", 4, 0)];
    const METER_RULE: &[FieldDef] = &[
        num("policy", 4, offset_of!(t::MeterRuleKey, policy)),
        bytes("ip", 16, offset_of!(t::MeterRuleKey, ip)),
    ];
    match table {
        Table::PaPrefix => PA_PREFIX,
        Table::Globals | Table::Eni | Table::RoutingType => INDEX,
        Table::EniMac => ENI_MAC,
        Table::PortMtu => PORT,
        Table::TrustedVni => TRUSTED,
        Table::Route4 | Table::Route4More => ROUTE4,
        Table::Route6 | Table::Route6More => ROUTE6,
        Table::Mapping | Table::MappingMore => MAPPING,
        Table::Tunnel => TUNNEL,
        Table::PortRange => PORT_RANGE,
        Table::Inbound => INBOUND,
        Table::PaValidation => PA,
        Table::Acl => ACL,
        Table::Underlay => UNDERLAY,
        Table::MeterRule => METER_RULE,
        // Reached only through the flow and count statements.
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
        | Table::Qos
        | Table::QosState => &[],
    }
}

/// Fields of a table's row.
pub fn row_schema(table: Table) -> &'static [FieldDef] {
    const VALUE: &[FieldDef] = &[num("value", 4, 0)];
    const GLOBALS: &[FieldDef] = &[
        bytes("vip", 4, offset_of!(t::Globals, vip)),
        num("vm_vni", 4, offset_of!(t::Globals, vm_vni)),
        bytes("vxlan_port", 2, offset_of!(t::Globals, vxlan_port)),
        num("encap_ttl", 1, offset_of!(t::Globals, encap_ttl)),
        num("flags", 1, offset_of!(t::Globals, flags)),
        num("sport_base", 2, offset_of!(t::Globals, sport_base)),
        num("sport_mask", 2, offset_of!(t::Globals, sport_mask)),
    ];
    const ACL: usize = offset_of!(t::EniRow, acl);
    const ENI: &[FieldDef] = &[
        num("flags", 2, offset_of!(t::EniRow, flags)),
        bytes("vm_underlay_dip", 4, offset_of!(t::EniRow, vm_underlay_dip)),
        num("vm_vni", 4, offset_of!(t::EniRow, vm_vni)),
        num("vnet_vni", 4, offset_of!(t::EniRow, vnet_vni)),
        num("vnet", 2, offset_of!(t::EniRow, vnet)),
        num("route_group", 4, offset_of!(t::EniRow, route_group)),
        num("acl_out_v4_1", 4, ACL),
        num("acl_out_v4_2", 4, ACL + 4),
        num("acl_out_v4_3", 4, ACL + 8),
        num("acl_out_v4_4", 4, ACL + 12),
        num("acl_out_v4_5", 4, ACL + 16),
        num("acl_out_v6_1", 4, ACL + 20),
        num("acl_out_v6_2", 4, ACL + 24),
        num("acl_out_v6_3", 4, ACL + 28),
        num("acl_out_v6_4", 4, ACL + 32),
        num("acl_out_v6_5", 4, ACL + 36),
        num("acl_in_v4_1", 4, ACL + 40),
        num("acl_in_v4_2", 4, ACL + 44),
        num("acl_in_v4_3", 4, ACL + 48),
        num("acl_in_v4_4", 4, ACL + 52),
        num("acl_in_v4_5", 4, ACL + 56),
        num("acl_in_v6_1", 4, ACL + 60),
        num("acl_in_v6_2", 4, ACL + 64),
        num("acl_in_v6_3", 4, ACL + 68),
        num("acl_in_v6_4", 4, ACL + 72),
        num("acl_in_v6_5", 4, ACL + 76),
        bytes("pl_underlay_sip", 4, offset_of!(t::EniRow, pl_underlay_sip)),
        bytes("pl_keep", 16, offset_of!(t::EniRow, pl_keep)),
        bytes("pl_set", 16, offset_of!(t::EniRow, pl_set)),
        num("meter_v4", 4, offset_of!(t::EniRow, meter)),
        num("meter_v6", 4, offset_of!(t::EniRow, meter) + 4),
        num("epoch", 1, offset_of!(t::EniRow, epoch)),
        num("mtu", 2, offset_of!(t::EniRow, mtu)),
        num("dscp_tos", 1, offset_of!(t::EniRow, dscp_tos)),
        bytes("reverse_sip", 4, offset_of!(t::EniRow, reverse_sip)),
    ];
    const ROUTE: &[FieldDef] = &[
        num("action", 1, offset_of!(t::RouteRow, action)),
        num("flags", 1, offset_of!(t::RouteRow, flags)),
        num("vnet", 2, offset_of!(t::RouteRow, vnet)),
        num("vni", 4, offset_of!(t::RouteRow, vni)),
        bytes("overlay_ip", 16, offset_of!(t::RouteRow, overlay_ip)),
        num("meter_or", 2, offset_of!(t::RouteRow, meter_or)),
        num("meter_and", 2, offset_of!(t::RouteRow, meter_and)),
    ];
    const MAPPING: &[FieldDef] = &[
        bytes("underlay_dip", 4, offset_of!(t::MappingRow, underlay_dip)),
        bytes("dmac", 6, offset_of!(t::MappingRow, dmac)),
        num("flags", 2, offset_of!(t::MappingRow, flags)),
    ];
    const INBOUND: &[FieldDef] = &[
        num("action", 1, offset_of!(t::InboundRow, action)),
        num("vnet", 2, offset_of!(t::InboundRow, vnet)),
        num("meter_or", 2, offset_of!(t::InboundRow, meter_or)),
        num("meter_and", 2, offset_of!(t::InboundRow, meter_and)),
    ];
    const UNDERLAY: &[FieldDef] = &[
        num("port", 4, offset_of!(t::UnderlayRow, port)),
        num("flags", 4, offset_of!(t::UnderlayRow, flags)),
        bytes("dmac", 6, offset_of!(t::UnderlayRow, dmac)),
        bytes("smac", 6, offset_of!(t::UnderlayRow, smac)),
        num("mtu", 2, offset_of!(t::UnderlayRow, mtu)),
    ];
    const ROUTE_MORE: &[FieldDef] = &[
        bytes("underlay_sip", 4, offset_of!(t::RouteMoreRow, underlay_sip)),
        bytes("underlay_dip", 4, offset_of!(t::RouteMoreRow, underlay_dip)),
        num("tunnel", 4, offset_of!(t::RouteMoreRow, tunnel)),
        bytes("sip_keep", 16, offset_of!(t::RouteMoreRow, sip_keep)),
        bytes("sip_set", 16, offset_of!(t::RouteMoreRow, sip_set)),
        bytes("dip_keep", 16, offset_of!(t::RouteMoreRow, dip_keep)),
        bytes("dip_set", 16, offset_of!(t::RouteMoreRow, dip_set)),
    ];
    const MAPPING_MORE: &[FieldDef] = &[
        num("tunnel", 4, offset_of!(t::MappingMoreRow, tunnel)),
        num("port_map", 4, offset_of!(t::MappingMoreRow, port_map)),
        bytes("sip_keep", 16, offset_of!(t::MappingMoreRow, sip_keep)),
        bytes("sip_set", 16, offset_of!(t::MappingMoreRow, sip_set)),
        bytes("dip_keep", 16, offset_of!(t::MappingMoreRow, dip_keep)),
        bytes("dip_set", 16, offset_of!(t::MappingMoreRow, dip_set)),
        num(
            "routing_type",
            4,
            offset_of!(t::MappingMoreRow, routing_type),
        ),
    ];
    const ROUTING_TYPE: &[FieldDef] = &[
        num("encap", 1, offset_of!(t::RoutingTypeRow, encap)),
        num("key", 4, offset_of!(t::RoutingTypeRow, key)),
    ];
    const TUNNEL: &[FieldDef] = &[
        bytes("dip", 4, offset_of!(t::TunnelRow, dip)),
        num("vni", 4, offset_of!(t::TunnelRow, vni)),
        num("members", 4, offset_of!(t::TunnelRow, members)),
        num("encap", 1, offset_of!(t::TunnelRow, encap)),
        num("meter_or", 2, offset_of!(t::TunnelRow, meter_or)),
    ];
    const PORT_RANGE: &[FieldDef] = &[
        bytes("backend_ip", 4, offset_of!(t::PortRangeRow, backend_ip)),
        num("action", 2, offset_of!(t::PortRangeRow, action)),
        num("match_base", 2, offset_of!(t::PortRangeRow, match_base)),
        num("backend_base", 2, offset_of!(t::PortRangeRow, backend_base)),
    ];
    match table {
        Table::Globals => GLOBALS,
        Table::Route4More | Table::Route6More => ROUTE_MORE,
        Table::MappingMore => MAPPING_MORE,
        Table::RoutingType => ROUTING_TYPE,
        Table::Tunnel => TUNNEL,
        Table::PortRange => PORT_RANGE,
        Table::EniMac
        | Table::TrustedVni
        | Table::PaValidation
        | Table::PaPrefix
        | Table::Acl
        | Table::PortMtu
        | Table::MeterRule => VALUE,
        Table::Eni => ENI,
        Table::Route4 | Table::Route6 => ROUTE,
        Table::Mapping => MAPPING,
        Table::Inbound => INBOUND,
        Table::Underlay => UNDERLAY,
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
        | Table::Qos
        | Table::QosState => &[],
    }
}

/// A metadata field by name.
pub fn meta_field(name: &str) -> Option<FieldDef> {
    META.iter().copied().find(|f| f.name == name)
}

/// A row field by name.
pub fn row_field(table: Table, name: &str) -> Option<FieldDef> {
    row_schema(table).iter().copied().find(|f| f.name == name)
}
