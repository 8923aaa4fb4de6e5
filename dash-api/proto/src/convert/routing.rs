//! Outbound routes, their groups and bindings, inbound rules, and mappings.

use std::net::IpAddr;

use dash_model::key::{RouteRuleKey, SourcePrefix};
use dash_model::objects::{
    EniRoute, MeterBits, PaValidation, PrivateLink, Route, RouteAction, RouteGroup, RouteRule,
    RuleAction, ServiceTunnel, VnetMapping,
};

use super::{Notes, meter, net};
use crate::dash;
use crate::dash::route::route::RoutingTypeData as Data;
use crate::dash::route_type::{ActionType, RoutingType};
use crate::row::FieldError;

pub(super) fn route_group(row: dash::route_group::RouteGroup) -> RouteGroup {
    RouteGroup {
        version: row.version,
    }
}

pub(super) fn eni_route(row: dash::eni_route::EniRoute) -> Result<EniRoute, FieldError> {
    match net::text(Some(&row.group_id)) {
        Some(group) => Ok(EniRoute {
            group: group.into(),
        }),
        None => Err(FieldError::invalid("group_id", "route group missing")),
    }
}

/// `routing_type`, or the older `action_type` where that is unset.
fn effective_type(routing: i32, action: i32) -> Result<RoutingType, FieldError> {
    let (field, number) = match routing {
        0 => ("action_type", action),
        _ => ("routing_type", routing),
    };
    match net::constant(field, number, "a routing type")? {
        RoutingType::Unspecified => {
            Err(FieldError::invalid("routing_type", "routing type missing"))
        }
        kind => Ok(kind),
    }
}

fn later(what: &str) -> FieldError {
    FieldError::unimplemented("routing_type", format!("{what} is not supported yet"))
}

#[expect(deprecated, reason = "older senders fill the deprecated fields")]
pub(super) fn route(row: dash::route::Route, notes: &mut Notes) -> Result<Route, FieldError> {
    let kind = effective_type(row.routing_type, row.action_type)?;
    let vnet = |name: &str, field: &str| match name {
        "" => Err(FieldError::invalid(field, "VNET missing")),
        name => Ok(name.into()),
    };
    let action = match kind {
        RoutingType::Direct | RoutingType::Drop => {
            match &row.routing_type_data {
                None => {}
                Some(Data::Vnet(_)) => notes.ignored("vnet"),
                Some(Data::VnetDirect(_)) => notes.ignored("vnet_direct"),
                Some(Data::Appliance(_)) => notes.ignored("appliance"),
                Some(Data::ServiceTunnel(_)) => notes.ignored("service_tunnel"),
            }
            match kind {
                RoutingType::Direct => RouteAction::Direct,
                _ => RouteAction::Drop,
            }
        }
        RoutingType::Vnet => match &row.routing_type_data {
            Some(Data::Vnet(name)) => RouteAction::Vnet(vnet(name, "vnet")?),
            _ => {
                return Err(FieldError::invalid(
                    "vnet",
                    "routing type vnet needs a vnet",
                ));
            }
        },
        RoutingType::VnetDirect => match &row.routing_type_data {
            Some(Data::VnetDirect(direct)) => RouteAction::VnetDirect {
                vnet: vnet(&direct.vnet, "vnet_direct.vnet")?,
                overlay_ip: match &direct.overlay_ip {
                    None => None,
                    given => Some(net::ip("vnet_direct.overlay_ip", given.as_ref())?),
                },
            },
            _ => {
                return Err(FieldError::invalid(
                    "vnet_direct",
                    "routing type vnet_direct needs vnet_direct",
                ));
            }
        },
        RoutingType::VnetEncap => {
            return Err(FieldError::invalid(
                "routing_type",
                "vnet_encap is for mappings, not for routes",
            ));
        }
        RoutingType::Appliance => return Err(later("routing type appliance")),
        RoutingType::Privatelink | RoutingType::Privatelinknsg => {
            return Err(FieldError::invalid(
                "routing_type",
                "privatelink is for mappings, not for routes",
            ));
        }
        RoutingType::Servicetunnel => match &row.routing_type_data {
            Some(Data::ServiceTunnel(tunnel)) => {
                RouteAction::ServiceTunnel(Box::new(service_tunnel(tunnel)?))
            }
            _ => {
                return Err(FieldError::invalid(
                    "service_tunnel",
                    "routing type servicetunnel needs service_tunnel",
                ));
            }
        },
        RoutingType::Unspecified => {
            return Err(FieldError::invalid("routing_type", "routing type missing"));
        }
    };
    let mut underlay_sip = net::optional_underlay("underlay_sip", row.underlay_sip.as_ref())?;
    let mut tunnel = net::text(row.tunnel.as_ref()).map(Into::into);
    match (&action, &row.routing_type_data) {
        (RouteAction::ServiceTunnel(_), Some(Data::ServiceTunnel(own))) => {
            let own =
                net::optional_underlay("service_tunnel.underlay_sip", own.underlay_sip.as_ref())?;
            underlay_sip = own.or(underlay_sip);
        }
        (RouteAction::Direct | RouteAction::Drop, _) => {
            notes.ignored_if(underlay_sip.take().is_some(), "underlay_sip");
        }
        _ => {}
    }
    if action == RouteAction::Drop {
        notes.ignored_if(tunnel.take().is_some(), "tunnel");
    }
    notes.ignored_if(row.metering_policy_en == Some(true), "metering_policy_en");
    notes.ignored_if(row.metering_class.is_some(), "metering_class");
    let mut bits = meter::bits(row.metering_class_or, row.metering_class_and)?;
    if action == RouteAction::Drop {
        bits = MeterBits::default();
        notes.ignored_if(row.metering_class_or.is_some(), "metering_class_or");
        notes.ignored_if(row.metering_class_and.is_some(), "metering_class_and");
    }
    Ok(Route {
        action,
        underlay_sip,
        tunnel,
        meter: bits,
    })
}

#[expect(deprecated, reason = "older senders fill the deprecated fields")]
fn service_tunnel(row: &dash::route::ServiceTunnel) -> Result<ServiceTunnel, FieldError> {
    let sip = row.overlay_sip_prefix.as_ref().or(row.overlay_sip.as_ref());
    let dip = row.overlay_dip_prefix.as_ref().or(row.overlay_dip.as_ref());
    Ok(ServiceTunnel {
        overlay_sip: net::translated("service_tunnel.overlay_sip_prefix", sip)?,
        overlay_dip: net::translated("service_tunnel.overlay_dip_prefix", dip)?,
        underlay_dip: net::optional_underlay(
            "service_tunnel.underlay_dip",
            row.underlay_dip.as_ref(),
        )?,
    })
}

/// True when the text of an inbound rule's key ends in a priority. The underlay is IPv4, so
/// nothing but the priority follows a colon there.
pub(crate) fn names_priority(key_text: &str) -> bool {
    key_text
        .splitn(3, ':')
        .nth(2)
        .is_some_and(|source| source.contains(':'))
}

/// The key with the message's priority where the text has none (A47).
pub(super) fn rule_key(
    key: &RouteRuleKey,
    key_text: &str,
    row: &dash::route_rule::RouteRule,
    notes: &mut Notes,
) -> RouteRuleKey {
    let mut key = key.clone();
    if !names_priority(key_text) {
        key.priority = row.priority;
    } else if row.priority != 0 && row.priority != key.priority {
        notes.add(format!(
            "priority {} of the message has no effect: the key says {}",
            row.priority, key.priority
        ));
    }
    key
}

#[expect(deprecated, reason = "older senders fill the deprecated fields")]
pub(super) fn route_rule(
    row: dash::route_rule::RouteRule,
    notes: &mut Notes,
) -> Result<RouteRule, FieldError> {
    let action = match net::constant("action_type", row.action_type, "an action type")? {
        ActionType::Decap => RuleAction::Decap,
        ActionType::Drop => RuleAction::Drop,
        // Deployed orchagents never read the field: such a rule decapsulates.
        ActionType::Unspecified => {
            notes.add("action_type unset: treated as decap");
            RuleAction::Decap
        }
        other => {
            return Err(FieldError::invalid(
                "action_type",
                format!(
                    "an inbound rule can decap or drop, not {}",
                    other.as_str_name()
                ),
            ));
        }
    };
    // 0 stands for any protocol.
    let protocol = row.protocol.filter(|number| *number != 0).map(|number| {
        u8::try_from(number).map_err(|_| {
            let why = format!("{number} is not an IP protocol (0..=255, 0 for any)");
            FieldError::invalid("protocol", why)
        })
    });
    let protocol = protocol.transpose()?;
    if row.pa_validation.is_none() {
        notes.add("pa_validation unset: treated as false");
    }
    let vnet = net::text(row.vnet.as_ref()).map(Into::into);
    let pa_validation = row.pa_validation.unwrap_or(false);
    if pa_validation && vnet.is_none() {
        return Err(FieldError::invalid(
            "vnet",
            "pa_validation needs the VNET whose addresses are valid",
        ));
    }
    notes.ignored_if(row.metering_class.is_some(), "metering_class");
    let mut bits = meter::bits(row.metering_class_or, row.metering_class_and)?;
    if action == RuleAction::Drop {
        bits = MeterBits::default();
        notes.ignored_if(row.metering_class_or.is_some(), "metering_class_or");
        notes.ignored_if(row.metering_class_and.is_some(), "metering_class_and");
    }
    notes.ignored_if(net::text(row.region.as_ref()).is_some(), "region");
    notes.ignored_if(row.routing_type != 0, "routing_type");
    Ok(RouteRule {
        action,
        protocol,
        vnet,
        pa_validation,
        meter: bits,
    })
}

#[expect(deprecated, reason = "older senders fill the deprecated fields")]
pub(super) fn vnet_mapping(
    row: dash::vnet_mapping::VnetMapping,
    notes: &mut Notes,
) -> Result<VnetMapping, FieldError> {
    let mut private_link = None;
    match effective_type(row.routing_type, row.action_type)? {
        // Orchagent makes a plain tunnel mapping of each of these.
        RoutingType::VnetEncap | RoutingType::Vnet | RoutingType::VnetDirect => {
            let map = net::text(row.port_map.as_ref());
            notes.ignored_if(map.is_some(), "port_map");
            notes.ignored_if(row.overlay_sip_prefix.is_some(), "overlay_sip_prefix");
            notes.ignored_if(row.overlay_dip_prefix.is_some(), "overlay_dip_prefix");
        }
        RoutingType::Privatelink => private_link = Some(Box::new(private_link_of(&row, false)?)),
        // The older name of a private link in a tunnel to a security appliance.
        RoutingType::Privatelinknsg => {
            if net::text(row.tunnel.as_ref()).is_none() {
                return Err(FieldError::invalid(
                    "tunnel",
                    "privatelinknsg needs the tunnel to the security appliance",
                ));
            }
            private_link = Some(Box::new(private_link_of(&row, true)?));
        }
        RoutingType::Servicetunnel => return Err(later("routing type servicetunnel")),
        RoutingType::Appliance => return Err(later("routing type appliance")),
        RoutingType::Direct | RoutingType::Drop | RoutingType::Unspecified => {
            return Err(FieldError::invalid(
                "routing_type",
                "a mapping's routing type is vnet_encap or privatelink",
            ));
        }
    }
    let mac = match row.mac_address.as_deref() {
        None | Some([]) => None,
        Some(bytes) => Some(net::mac("mac_address", bytes)?),
    };
    if let Some(mac) = mac.filter(|m| !m.is_unicast()) {
        // Real configurations hold such addresses, so it cannot be an error.
        notes.add(format!("mac_address {mac} is not a unicast address"));
    }
    notes.ignored_if(row.metering_class.is_some(), "metering_class");
    notes.ignored_if(row.override_meter == Some(true), "override_meter");
    notes.ignored_if(row.use_pl_sip_eni == Some(true), "use_pl_sip_eni");
    notes.ignored_if(row.overlay_sip.is_some(), "overlay_sip");
    notes.ignored_if(row.overlay_dip.is_some(), "overlay_dip");
    notes.ignored_if(row.routing_appliance_id.is_some(), "routing_appliance_id");
    // A private link leaves the inner MACs alone and has a VNI of its own.
    let plain = private_link.is_none();
    let use_dst_vni = row.use_dst_vni.unwrap_or(false);
    notes.ignored_if(!plain && mac.is_some(), "mac_address");
    notes.ignored_if(!plain && use_dst_vni, "use_dst_vni");
    Ok(VnetMapping {
        underlay_ip: net::underlay("underlay_ip", row.underlay_ip.as_ref())?,
        mac: mac.filter(|_| plain),
        use_dst_vni: use_dst_vni && plain,
        private_link,
        tunnel: net::text(row.tunnel.as_ref()).map(Into::into),
        meter_or: meter::class_or(row.metering_class_or)?,
    })
}

fn private_link_of(
    row: &dash::vnet_mapping::VnetMapping,
    nsg: bool,
) -> Result<PrivateLink, FieldError> {
    let needed = |field: &str, prefix: &Option<_>| match prefix {
        Some(prefix) => net::masked(field, prefix),
        None => Err(FieldError::invalid(field, "privatelink needs it")),
    };
    let port_map = net::text(row.port_map.as_ref()).map(Into::into);
    Ok(PrivateLink {
        overlay_sip: needed("overlay_sip_prefix", &row.overlay_sip_prefix)?,
        overlay_dip: needed("overlay_dip_prefix", &row.overlay_dip_prefix)?,
        port_map,
        nsg,
    })
}

pub(super) fn pa_validation(
    row: &dash::pa_validation::PaValidation,
) -> Result<PaValidation, FieldError> {
    let mut prefixes = Vec::with_capacity(row.prefixes.len());
    for (n, value) in row.prefixes.iter().enumerate() {
        let field = format!("prefixes[{n}]");
        let prefix = net::prefix(&field, value)?;
        let IpAddr::V4(addr) = prefix.addr() else {
            return Err(FieldError::unimplemented(
                field,
                format!("IPv6 underlay is not supported yet: {prefix}"),
            ));
        };
        prefixes.push(SourcePrefix {
            addr,
            len: prefix.prefix_len(),
        });
    }
    Ok(PaValidation { prefixes })
}
