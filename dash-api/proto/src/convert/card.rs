//! Appliance, routing types, VNETs and ENIs.

use dash_model::key::RoutingType;
use dash_model::objects::{
    Appliance, EncapType, Eni, EniMode, OutboundLookup, RoutingTypeDef, StaticEncap, Vnet,
};

use super::{Notes, net};
use crate::dash;
use crate::dash::eni::{EniMode as PbMode, State};
use crate::dash::route_type::{ActionType, EncapType as PbEncap};
use crate::row::FieldError;

pub(super) fn appliance(
    row: dash::appliance::Appliance,
    notes: &mut Notes,
) -> Result<Appliance, FieldError> {
    // SAI and the P4 model have it, and neither says what packets have of it.
    notes.ignored_if(row.local_region_id != 0, "local_region_id");
    let outbound_lookup = match net::text(row.outbound_direction_lookup.as_ref()) {
        None | Some("src_mac") => OutboundLookup::SrcMac,
        Some("dst_mac") => OutboundLookup::DstMac,
        Some(other) => {
            return Err(FieldError::invalid(
                "outbound_direction_lookup",
                format!("`{other}` is neither src_mac nor dst_mac"),
            ));
        }
    };
    Ok(Appliance {
        sip: net::underlay("sip", row.sip.as_ref())?,
        vm_vni: net::vni("vm_vni", row.vm_vni)?,
        trusted_vnis: net::vni_ranges(row.trusted_vnis.as_ref(), &row.trusted_vnis_list)?,
        outbound_lookup,
    })
}

pub(super) fn vnet(row: dash::vnet::Vnet, notes: &mut Notes) -> Result<Vnet, FieldError> {
    // Peering is said by routes, not by these lists.
    notes.ignored_if(!row.address_space.is_empty(), "address_space");
    notes.ignored_if(!row.peer_list.is_empty(), "peer_list");
    Ok(Vnet {
        vni: net::vni("vni", row.vni)?,
    })
}

pub(super) fn eni(row: dash::eni::Eni) -> Result<Eni, FieldError> {
    let mac = net::mac("mac_address", &row.mac_address)?;
    if !mac.is_unicast() {
        return Err(FieldError::invalid(
            "mac_address",
            format!("{mac} is not a unicast address"),
        ));
    }
    let mode: PbMode = net::constant("eni_mode", row.eni_mode.unwrap_or_default(), "an ENI mode")?;
    let state: State = net::constant("admin_state", row.admin_state, "an admin state")?;

    Ok(Eni {
        mac,
        underlay_ip: net::underlay("underlay_ip", row.underlay_ip.as_ref())?,
        enabled: state == State::Enabled,
        vnet: net::text(Some(&row.vnet)).map(Into::into),
        trusted_vnis: net::vni_ranges(row.trusted_vnis.as_ref(), &row.trusted_vnis_list)?,
        pl_sip: match &row.pl_sip_encoding {
            None => None,
            Some(bits) => Some(net::masked("pl_sip_encoding", bits)?),
        },
        pl_underlay_sip: net::optional_underlay("pl_underlay_sip", row.pl_underlay_sip.as_ref())?,
        mode: match mode {
            PbMode::ModeUnspecified | PbMode::ModeVm => EniMode::Vm,
            PbMode::ModeFnic => EniMode::Floating,
        },
        disable_fast_path: row.disable_fast_path_icmp_flow_redirection == Some(true),
        v4_meter_policy: net::text(row.v4_meter_policy_id.as_ref()).map(Into::into),
        v6_meter_policy: net::text(row.v6_meter_policy_id.as_ref()).map(Into::into),
        qos: net::text(Some(&row.qos)).map(Into::into),
    })
}

pub(super) fn routing_type(
    kind: RoutingType,
    row: dash::route_type::RouteType,
    notes: &mut Notes,
) -> Result<RoutingTypeDef, FieldError> {
    let acts = matches!(
        kind,
        RoutingType::Direct
            | RoutingType::Vnet
            | RoutingType::VnetDirect
            | RoutingType::VnetEncap
            | RoutingType::PrivateLink
            | RoutingType::PrivateLinkNsg
            | RoutingType::ServiceTunnel
            | RoutingType::Drop
    );
    // These have an encap of their own; a VNET's encaps are VXLAN with the VNET's VNI.
    let own = matches!(
        kind,
        RoutingType::PrivateLink | RoutingType::PrivateLinkNsg | RoutingType::ServiceTunnel
    );
    if !acts {
        notes.add(format!("stored, not acted on: routing type {kind}"));
    }
    let mut static_encap = None;
    let mut seen = false;
    for (n, item) in row.items.iter().enumerate() {
        let action: ActionType = net::constant(
            &format!("items[{n}].action_type"),
            item.action_type,
            "an action type",
        )?;
        let field = format!("items[{n}].encap_type");
        let encap: PbEncap = net::constant(
            &field,
            item.encap_type.unwrap_or_default(),
            "an encap type (1 is VXLAN, 2 NVGRE)",
        )?;
        if action != ActionType::Staticencap {
            continue;
        }
        if seen {
            notes.ignored(&format!("items[{n}], a second staticencap"));
            continue;
        }
        seen = true;
        let kind_of = match encap {
            PbEncap::Vxlan => EncapType::Vxlan,
            PbEncap::Nvgre if own || !acts => EncapType::Nvgre,
            PbEncap::Nvgre => {
                return Err(FieldError::unimplemented(
                    field,
                    format!("{kind} over NVGRE is not supported yet"),
                ));
            }
            PbEncap::Unspecified => {
                return Err(FieldError::invalid(
                    field,
                    "staticencap needs an encap type",
                ));
            }
        };
        let field = format!("items[{n}].vni");
        let vni = item.vni.unwrap_or_default();
        notes.ignored_if(acts && !own && vni != 0, &field);
        static_encap = Some(StaticEncap {
            kind: kind_of,
            key: match vni {
                number if own && number != 0 => Some(net::vni(&field, number)?),
                _ => None,
            },
        });
    }
    Ok(RoutingTypeDef { static_encap })
}
