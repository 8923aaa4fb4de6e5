//! Objects to the messages that carry them: what a controller does before it sends.

use std::net::{IpAddr, Ipv4Addr};

use dash_model::ObjectKey;
use dash_model::net::IpPrefix;
use dash_model::objects::{AclAction, Object, RouteAction, RuleAction};
use dash_proto::dash;
use dash_proto::dash::types::{self, IpVersion, ip_address::Ip};
use prost::Message;

/// The message of an object of [`Config::rows`](super::Config::rows).
pub(super) fn message(key: &ObjectKey, object: &Object) -> Vec<u8> {
    use dash::route_type::{ActionType, RoutingType};
    match object {
        Object::Appliance(o) => dash::appliance::Appliance {
            sip: v4(o.sip),
            vm_vni: o.vm_vni.get(),
            local_region_id: 100,
            ..Default::default()
        }
        .encode_to_vec(),
        Object::RoutingType(o) => dash::route_type::RouteType {
            items: o
                .static_encap
                .map(|encap| dash::route_type::RouteTypeItem {
                    action_name: "encap".to_owned(),
                    action_type: ActionType::Staticencap.into(),
                    encap_type: Some(encap.kind as i32),
                    vni: encap.key.map(|key| key.get()),
                })
                .into_iter()
                .collect(),
        }
        .encode_to_vec(),
        Object::Vnet(o) => dash::vnet::Vnet {
            vni: o.vni.get(),
            ..Default::default()
        }
        .encode_to_vec(),
        Object::Eni(o) => dash::eni::Eni {
            eni_id: key.key_text().to_string(),
            mac_address: o.mac.0.to_vec(),
            underlay_ip: v4(o.underlay_ip),
            admin_state: if o.enabled {
                dash::eni::State::Enabled.into()
            } else {
                dash::eni::State::Disabled.into()
            },
            vnet: o.vnet.as_ref().map_or(String::new(), ToString::to_string),
            ..Default::default()
        }
        .encode_to_vec(),
        Object::RouteGroup(o) => dash::route_group::RouteGroup {
            version: o.version.clone(),
            ..Default::default()
        }
        .encode_to_vec(),
        Object::Route(o) => {
            use dash::route::route::RoutingTypeData;
            let (kind, data) = match &o.action {
                RouteAction::Direct => (RoutingType::Direct, None),
                RouteAction::Drop => (RoutingType::Drop, None),
                RouteAction::Vnet(vnet) => (
                    RoutingType::Vnet,
                    Some(RoutingTypeData::Vnet(vnet.to_string())),
                ),
                RouteAction::VnetDirect { vnet, overlay_ip } => (
                    RoutingType::VnetDirect,
                    Some(RoutingTypeData::VnetDirect(dash::route::VnetDirect {
                        vnet: vnet.to_string(),
                        overlay_ip: overlay_ip.and_then(ip),
                    })),
                ),
                RouteAction::ServiceTunnel(_) => {
                    unreachable!("the configurations have no such routes")
                }
            };
            dash::route::Route {
                routing_type: kind.into(),
                routing_type_data: data,
                ..Default::default()
            }
            .encode_to_vec()
        }
        Object::EniRoute(o) => dash::eni_route::EniRoute {
            group_id: o.group.to_string(),
        }
        .encode_to_vec(),
        Object::RouteRule(o) => dash::route_rule::RouteRule {
            action_type: match o.action {
                RuleAction::Decap => ActionType::Decap.into(),
                RuleAction::Drop => ActionType::Drop.into(),
            },
            protocol: o.protocol.map(u32::from),
            vnet: o.vnet.as_ref().map(ToString::to_string),
            pa_validation: Some(o.pa_validation),
            ..Default::default()
        }
        .encode_to_vec(),
        Object::VnetMapping(o) => dash::vnet_mapping::VnetMapping {
            routing_type: RoutingType::VnetEncap.into(),
            underlay_ip: v4(o.underlay_ip),
            mac_address: o.mac.map(|m| m.0.to_vec()),
            use_dst_vni: Some(o.use_dst_vni),
            ..Default::default()
        }
        .encode_to_vec(),
        Object::AclGroup(_) => dash::acl_group::AclGroup {
            ip_version: IpVersion::Ipv4.into(),
            ..Default::default()
        }
        .encode_to_vec(),
        Object::AclRule(o) => dash::acl_rule::AclRule {
            priority: o.priority,
            action: match o.action {
                AclAction::Permit => dash::acl_rule::Action::Permit.into(),
                AclAction::Deny => dash::acl_rule::Action::Deny.into(),
            },
            terminating: o.terminating,
            src_addr: o.src_prefixes.iter().map(prefix).collect(),
            dst_addr: o.dst_prefixes.iter().map(prefix).collect(),
            ..Default::default()
        }
        .encode_to_vec(),
        Object::AclIn(o) => dash::acl_in::AclIn {
            v4_acl_group_id: o.v4.as_ref().map_or(String::new(), ToString::to_string),
            ..Default::default()
        }
        .encode_to_vec(),
        Object::AclOut(o) => dash::acl_out::AclOut {
            v4_acl_group_id: o.v4.as_ref().map_or(String::new(), ToString::to_string),
            ..Default::default()
        }
        .encode_to_vec(),
        Object::PrefixTag(_)
        | Object::Tunnel(_)
        | Object::PortMap(_)
        | Object::PortMapRange(_)
        | Object::PaValidation(_)
        | Object::MeterPolicy(_)
        | Object::MeterRule(_)
        | Object::Qos(_)
        | Object::EniSettings(_)
        | Object::RouteGroupSettings(_)
        | Object::Switch(_)
        | Object::Opaque => {
            unreachable!("the configurations have no such rows")
        }
    }
}

fn v4(ip: Ipv4Addr) -> Option<types::IpAddress> {
    Some(types::IpAddress {
        // The message's fixed32 is the dotted quad as a little-endian word.
        ip: Some(Ip::Ipv4(u32::from_le_bytes(ip.octets()))),
    })
}

fn ip(ip: IpAddr) -> Option<types::IpAddress> {
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => Some(types::IpAddress {
            ip: Some(Ip::Ipv6(ip.octets().to_vec())),
        }),
    }
}

fn prefix(p: &IpPrefix) -> types::IpPrefix {
    let bits = u32::from(p.prefix_len());
    let mask = match p.addr() {
        IpAddr::V4(_) => IpAddr::V4(u32::MAX.checked_shl(32 - bits).unwrap_or(0).into()),
        IpAddr::V6(_) => IpAddr::V6(u128::MAX.checked_shl(128 - bits).unwrap_or(0).into()),
    };
    types::IpPrefix {
        ip: ip(p.addr()),
        mask: ip(mask),
    }
}
