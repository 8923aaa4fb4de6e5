//! Tunnels and outbound port maps.

use std::net::Ipv4Addr;

use dash_model::objects::{EncapType, PortMapRange, Tunnel};

use super::{Notes, meter, net};
use crate::dash;
use crate::dash::outbound_port_map_range::PortMapRangeAction;
use crate::dash::route_type::EncapType as PbEncap;
use crate::row::FieldError;

pub(super) fn tunnel(row: &dash::tunnel::Tunnel) -> Result<Tunnel, FieldError> {
    let kind = match net::constant("encap_type", row.encap_type, "an encap type")? {
        PbEncap::Vxlan => EncapType::Vxlan,
        PbEncap::Nvgre => EncapType::Nvgre,
        PbEncap::Unspecified => {
            return Err(FieldError::invalid("encap_type", "encap type missing"));
        }
    };
    let mut endpoints = row
        .endpoints
        .iter()
        .enumerate()
        .map(|(n, ip)| net::underlay(&format!("endpoints[{n}]"), Some(ip)))
        .collect::<Result<Vec<Ipv4Addr>, _>>()?;
    if endpoints.is_empty() {
        return Err(FieldError::invalid(
            "endpoints",
            "a tunnel needs an endpoint",
        ));
    }
    endpoints.sort_unstable();
    endpoints.dedup();
    Ok(Tunnel {
        endpoints,
        kind,
        key: net::vni("vni", row.vni)?,
        meter_or: meter::class_or(row.metering_class_or)?,
    })
}

pub(super) fn port_map_range(
    row: &dash::outbound_port_map_range::OutboundPortMapRange,
    notes: &mut Notes,
) -> Result<PortMapRange, FieldError> {
    match net::constant("action", row.action, "an action of a port range")? {
        PortMapRangeAction::ActionUnspecified => {
            Err(FieldError::invalid("action", "action missing"))
        }
        PortMapRangeAction::ActionSkipMapping => {
            notes.ignored_if(net::is_set(row.backend_ip.as_ref()), "backend_ip");
            notes.ignored_if(row.backend_port_base != 0, "backend_port_base");
            Ok(PortMapRange::Skip)
        }
        PortMapRangeAction::ActionMapPrivateLinkService => Ok(PortMapRange::Service {
            backend_ip: net::underlay("backend_ip", row.backend_ip.as_ref())?,
            backend_port_base: u16::try_from(row.backend_port_base).map_err(|_| {
                FieldError::invalid(
                    "backend_port_base",
                    format!("{} is not a port (0..=65535)", row.backend_port_base),
                )
            })?,
        }),
    }
}
