//! One object to its row.

use std::net::IpAddr;

use dash_model::Store;
use dash_model::key::{AclGroupId, EniKey, RoutingType};
use dash_model::net::{IpPrefix, MaskedIp};
use dash_model::objects::{
    AclBind, Appliance, Eni, EniMode, OutboundLookup, Route, RouteAction, RouteRule,
    RoutingTypeDef, RuleAction, VnetMapping,
};
use dash_wire::tables::{
    ACL_STAGES, EniRow, Globals, InboundRow, MappingKey, MappingMoreRow, MappingRow, NO_VNI,
    Route4Key, Route6Key, RouteMoreRow, RouteRow, RoutingTypeRow, eni_flags, globals_flags,
    inbound_action, mapping_flags, route_action, route_flags,
};
use nic_target::Table;

use super::Settings;
use super::census::validates;
use super::ids::Directory;
use super::ops::Ops;
use super::resim::Resim;

pub(super) fn globals(appliance: Option<&Appliance>, settings: &Settings) -> Globals {
    let mask = 1u32
        .checked_shl(settings.sport_bits.into())
        .unwrap_or(0)
        .wrapping_sub(1);
    let trusted = appliance.is_some_and(|a| !a.trusted_vnis.is_empty());
    Globals {
        vip: appliance.map_or([0; 4], |a| a.sip.octets()),
        vm_vni: appliance.map_or(0, |a| match a.outbound_lookup {
            OutboundLookup::SrcMac => a.vm_vni.get(),
            OutboundLookup::DstMac => NO_VNI,
        }),
        vxlan_port: settings.vxlan_port.to_be_bytes(),
        encap_ttl: settings.encap_ttl,
        flags: if trusted {
            globals_flags::TRUSTED_VNIS
        } else {
            0
        },
        sport_base: settings.sport_base,
        sport_mask: u16::try_from(mask).unwrap_or(u16::MAX),
        pad: [0; 8],
    }
}

pub(super) fn eni(
    store: &Store,
    ids: &Directory,
    settings: &Settings,
    resim: &Resim,
    key: &EniKey,
    eni: &Eni,
) -> EniRow {
    let group = store
        .eni_route(key)
        .map(|bind| ids.route_group(&bind.group));
    let own = super::settings::in_force(store, settings, resim, key, eni);
    let bound = store.eni_route(key);
    let disabled = bound.is_some_and(|b| store.route_group_settings(&b.group).disabled);
    let mut flags = 0;
    for (bit, set) in [
        (eni_flags::ADMIN_UP, eni.enabled),
        (eni_flags::TRUSTED_VNIS, !eni.trusted_vnis.is_empty()),
        (eni_flags::ROUTE_GROUP, group.is_some()),
        (eni_flags::FLOATING, eni.mode == EniMode::Floating),
        (eni_flags::NO_FAST_PATH, own.disable_fast_path),
        (eni_flags::ROUTE_GROUP_DISABLED, disabled),
        (eni_flags::DSCP_PIPE, own.dscp.is_some()),
        (eni_flags::LEARN, own.learn),
    ] {
        flags |= if set { bit } else { 0 };
    }
    let vnet = eni.vnet.as_ref();
    let [out_v4, out_v6] = acl_groups(ids, |stage| store.acl_out(key, stage));
    let [in_v4, in_v6] = acl_groups(ids, |stage| store.acl_in(key, stage));
    EniRow {
        mac: eni.mac.0,
        flags,
        vm_underlay_dip: eni.underlay_ip.octets(),
        vm_vni: store.appliance().map_or(0, |(_, a)| a.vm_vni.get()),
        vnet_vni: vnet.and_then(|v| store.vnet(v)).map_or(0, |v| v.vni.get()),
        vnet: vnet.map_or(0, |v| ids.vnet(v)),
        mtu: own.mtu.unwrap_or(u16::MAX),
        route_group: group.unwrap_or(0),
        acl: [out_v4, out_v6, in_v4, in_v6],
        pl_underlay_sip: eni.pl_underlay_sip.map_or([0; 4], |ip| ip.octets()),
        pl_keep: eni.pl_sip.map_or([0xff; 16], outside),
        pl_set: eni.pl_sip.map_or([0; 16], |bits| bits.addr.octets()),
        meter: [&eni.v4_meter_policy, &eni.v6_meter_policy]
            .map(|policy| policy.as_ref().map_or(0, |policy| ids.meter_policy(policy))),
        resim_per_second: own.max_resimulated,
        resim_keep: resim.keep,
        epoch: resim.epoch,
        dscp_tos: own.dscp.unwrap_or(0) << 2,
        reverse_sip: own.reverse_sip.map_or([0; 4], |ip| ip.octets()),
        pad: [0; 4],
    }
}

/// Ids of the groups of each stage: IPv4, then IPv6.
fn acl_groups<'a>(
    ids: &Directory,
    bind_of: impl Fn(u8) -> Option<&'a AclBind>,
) -> [[u32; ACL_STAGES]; 2] {
    let mut groups = [[0; ACL_STAGES]; 2];
    for (stage, index) in (1..).zip(0..ACL_STAGES) {
        if let Some(bind) = bind_of(stage) {
            let id = |group: &Option<AclGroupId>| group.as_ref().map_or(0, |g| ids.acl_group(g));
            groups[0][index] = id(&bind.v4);
            groups[1][index] = id(&bind.v6);
        }
    }
    groups
}

pub(super) fn route(store: &Store, ids: &Directory, route: &Route) -> RouteRow {
    let action = &route.action;
    let row = |action| RouteRow {
        action,
        ..RouteRow::default()
    };
    let mut row = match action {
        RouteAction::Direct => row(route_action::DIRECT),
        RouteAction::ServiceTunnel(_) => row(route_action::SERVICE_TUNNEL),
        RouteAction::Drop => row(route_action::DROP),
        // Without an overlay_ip it is the packet's destination, which is VNET (A10).
        RouteAction::Vnet(_)
        | RouteAction::VnetDirect {
            overlay_ip: None, ..
        } => row(route_action::VNET),
        RouteAction::VnetDirect {
            overlay_ip: Some(ip),
            ..
        } => RouteRow {
            flags: if ip.is_ipv6() {
                route_flags::OVERLAY_V6
            } else {
                0
            },
            overlay_ip: ip16(*ip),
            ..row(route_action::VNET_DIRECT)
        },
    };
    if let Some(vnet) = action.vnet() {
        row.vnet = ids.vnet(vnet);
        row.vni = store.vnet(vnet).map_or(0, |v| v.vni.get());
    }
    if route_has_more(route) {
        row.flags |= route_flags::MORE;
    }
    row.meter_or = route.meter.or.get();
    row.meter_and = route.meter.and.get();
    row
}

/// True for a route that takes a row of `route4_more` or `route6_more`.
pub(super) fn route_has_more(route: &Route) -> bool {
    let tunneled = matches!(route.action, RouteAction::ServiceTunnel(_));
    tunneled || route.tunnel.is_some() || route.underlay_sip.is_some()
}

fn route_more(ids: &Directory, route: &Route) -> RouteMoreRow {
    let mut row = RouteMoreRow {
        underlay_sip: route.underlay_sip.map_or([0; 4], |ip| ip.octets()),
        tunnel: route.tunnel.as_ref().map_or(0, |name| ids.tunnel(name)),
        ..RouteMoreRow::default()
    };
    if let RouteAction::ServiceTunnel(tunnel) = &route.action {
        row.underlay_dip = tunnel.underlay_dip.map_or([0; 4], |ip| ip.octets());
        row.sip_keep = outside(tunnel.overlay_sip);
        row.sip_set = inside(tunnel.overlay_sip);
        row.dip_keep = outside(tunnel.overlay_dip);
        row.dip_set = inside(tunnel.overlay_dip);
    }
    row
}

/// Bits that a mask leaves.
fn outside(bits: MaskedIp) -> [u8; 16] {
    (!u128::from(bits.mask)).to_be_bytes()
}

/// Bits of the address that its mask covers.
fn inside(bits: MaskedIp) -> [u8; 16] {
    (u128::from(bits.addr) & u128::from(bits.mask)).to_be_bytes()
}

pub(super) fn put_route(
    ids: &Directory,
    group: u32,
    prefix: &IpPrefix,
    (row, route): (&RouteRow, &Route),
    ops: &mut Ops,
) {
    let more = route_has_more(route).then(|| route_more(ids, route));
    match route_key(group, prefix) {
        RouteKey::V4(key) => {
            ops.put(Table::Route4, &key, row);
            if let Some(more) = more {
                ops.put(Table::Route4More, &key, &more);
            }
        }
        RouteKey::V6(key) => {
            ops.put(Table::Route6, &key, row);
            if let Some(more) = more {
                ops.put(Table::Route6More, &key, &more);
            }
        }
    }
}

pub(super) fn delete_route_more(group: u32, prefix: &IpPrefix, ops: &mut Ops) {
    match route_key(group, prefix) {
        RouteKey::V4(key) => ops.delete(Table::Route4More, &key),
        RouteKey::V6(key) => ops.delete(Table::Route6More, &key),
    }
}

pub(super) fn delete_route(group: u32, prefix: &IpPrefix, ops: &mut Ops) {
    match route_key(group, prefix) {
        RouteKey::V4(key) => ops.delete(Table::Route4, &key),
        RouteKey::V6(key) => ops.delete(Table::Route6, &key),
    }
}

enum RouteKey {
    V4(Route4Key),
    V6(Route6Key),
}

fn route_key(group: u32, prefix: &IpPrefix) -> RouteKey {
    let prefix_len = 32 + u32::from(prefix.prefix_len());
    match prefix.addr() {
        IpAddr::V4(ip) => RouteKey::V4(Route4Key {
            prefix_len,
            group,
            dst: ip.octets(),
        }),
        IpAddr::V6(ip) => RouteKey::V6(Route6Key {
            prefix_len,
            group,
            dst: ip.octets(),
        }),
    }
}

pub(super) fn mapping_key(vnet: u16, ip: IpAddr) -> MappingKey {
    MappingKey {
        vnet,
        v6: u8::from(ip.is_ipv6()),
        pad: 0,
        ip: ip16(ip),
    }
}

pub(super) fn mapping(mapping: &VnetMapping) -> MappingRow {
    let mut flags = 0;
    if mapping.use_dst_vni {
        flags |= mapping_flags::USE_DST_VNI;
    }
    if mapping.mac.is_some() {
        flags |= mapping_flags::SET_DMAC;
    }
    if mapping.private_link.is_some() {
        flags |= mapping_flags::PRIVATE_LINK;
    }
    if mapping_has_more(mapping) {
        flags |= mapping_flags::MORE;
    }
    flags |= mapping.meter_or.get() << mapping_flags::METER_SHIFT;
    MappingRow {
        underlay_dip: mapping.underlay_ip.octets(),
        dmac: mapping.mac.map_or([0; 6], |mac| mac.0),
        flags,
    }
}

/// True for a mapping that takes a row of `mapping_more`.
pub(super) fn mapping_has_more(mapping: &VnetMapping) -> bool {
    mapping.private_link.is_some() || mapping.tunnel.is_some()
}

pub(super) fn mapping_more(ids: &Directory, mapping: &VnetMapping) -> MappingMoreRow {
    let mut row = MappingMoreRow {
        tunnel: mapping.tunnel.as_ref().map_or(0, |name| ids.tunnel(name)),
        ..MappingMoreRow::default()
    };
    if let Some(link) = &mapping.private_link {
        row.port_map = link.port_map.as_ref().map_or(0, |map| ids.port_map(map));
        row.sip_keep = outside(link.overlay_sip);
        row.sip_set = link.overlay_sip.addr.octets();
        row.dip_keep = outside(link.overlay_dip);
        row.dip_set = link.overlay_dip.addr.octets();
        let kind = if link.nsg {
            RoutingType::PrivateLinkNsg
        } else {
            RoutingType::PrivateLink
        };
        row.routing_type = super::edit::routing_type_index(kind);
    }
    row
}

/// The row of a routing type with an encap that packets can get.
pub(super) fn routing_type(def: &RoutingTypeDef) -> Option<RoutingTypeRow> {
    let encap = def.static_encap?;
    Some(RoutingTypeRow {
        encap: encap.kind as u8,
        pad: [0; 3],
        key: encap.key?.get(),
    })
}

/// The VNET is named only where it is asked for, so that rules which decide alike have equal rows.
pub(super) fn inbound(ids: &Directory, rule: &RouteRule) -> InboundRow {
    let vnet = rule.vnet.as_ref().filter(|_| validates(rule));
    InboundRow {
        action: match rule.action {
            RuleAction::Drop => inbound_action::DROP,
            RuleAction::Decap if validates(rule) => inbound_action::DECAP_PA_VALIDATE,
            RuleAction::Decap => inbound_action::DECAP,
        },
        pad: 0,
        vnet: vnet.map_or(0, |vnet| ids.vnet(vnet)),
        meter_or: rule.meter.or.get(),
        meter_and: rule.meter.and.get(),
    }
}

/// An address in 16 bytes: IPv4 in the last 4, the rest zero.
pub(super) fn ip16(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)).to_be_bytes(),
        IpAddr::V6(ip) => ip.octets(),
    }
}
