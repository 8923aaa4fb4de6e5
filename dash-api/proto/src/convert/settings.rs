//! Rows of our own tables: what SAI has and SONiC's messages have not.

use dash_model::objects::{DscpMode, EniSettings, RouteGroupSettings, Switch};

use super::{Notes, net};
use crate::dashwire::v1 as wire;
use crate::row::FieldError;

/// The longest header of IPv4, which every link carries (RFC 791).
const MIN_MTU: u32 = 68;

pub(super) fn eni(row: &wire::EniSettings) -> Result<EniSettings, FieldError> {
    let mode: wire::DscpMode = net::constant(
        "dscp_mode",
        row.dscp_mode,
        "a DSCP mode (1 preserve, 2 pipe)",
    )?;
    let dscp = match (mode, row.dscp) {
        (wire::DscpMode::Pipe, dscp) => Some(DscpMode::Pipe(six_bits(dscp.unwrap_or(0))?)),
        (_, Some(_)) => {
            return Err(FieldError::invalid(
                "dscp",
                "it is of the pipe mode: say dscp_mode pipe too",
            ));
        }
        (wire::DscpMode::Preserve, None) => Some(DscpMode::Preserve),
        (wire::DscpMode::Unspecified, None) => None,
    };
    Ok(EniSettings {
        dscp,
        disable_fast_path: row.disable_fast_path_icmp_flow_redirection,
        max_resimulated: row.max_resimulated_flow_per_second.map(rate).transpose()?,
        mtu: row.mtu.map(mtu).transpose()?,
        learn: row.enable_reverse_tunnel_learning == Some(true),
        reverse_sip: net::optional_underlay("reverse_tunnel_sip", row.reverse_tunnel_sip.as_ref())?,
        packets_per_second: row.pps,
    })
}

pub(super) fn route_group(row: &wire::RouteGroupSettings) -> RouteGroupSettings {
    RouteGroupSettings {
        disabled: row.disabled,
    }
}

pub(super) fn switch(row: &wire::Switch, notes: &mut Notes) -> Result<Switch, FieldError> {
    for (field, given) in [
        (
            "fdb_unicast_miss_packet_action",
            &row.fdb_unicast_miss_packet_action,
        ),
        (
            "fdb_broadcast_miss_packet_action",
            &row.fdb_broadcast_miss_packet_action,
        ),
        (
            "fdb_multicast_miss_packet_action",
            &row.fdb_multicast_miss_packet_action,
        ),
        ("fdb_aging_time", &row.fdb_aging_time),
        ("ecmp_hash_seed", &row.ecmp_hash_seed),
        ("ecmp_hash_offset", &row.ecmp_hash_offset),
        ("lag_hash_seed", &row.lag_hash_seed),
        ("lag_hash_offset", &row.lag_hash_offset),
        ("ordered_ecmp", &row.ordered_ecmp),
        ("debug_shell_enable", &row.debug_shell_enable),
        ("vxlan_router_mac", &row.vxlan_router_mac),
    ] {
        // They are about a switch's bridge and its routes.
        notes.ignored_if(given.is_some(), field);
    }
    let port = |field: &str, port: u32| {
        u16::try_from(port)
            .map_err(|_| FieldError::invalid(field, format!("{port} is not a port (0..=65535)")))
    };
    let vxlan_port = match row.vxlan_port {
        Some(0) => {
            return Err(FieldError::invalid(
                "vxlan_port",
                "0 is not a port to send to",
            ));
        }
        given => given.map(|n| port("vxlan_port", n)).transpose()?,
    };
    let bits = |bits: u32| {
        let fits = u8::try_from(bits).ok().filter(|bits| *bits <= 16);
        fits.ok_or_else(|| {
            let reason = format!("{bits} is no number of bits of a port (0..=16)");
            FieldError::invalid("vxlan_mask", reason)
        })
    };
    Ok(Switch {
        vxlan_port,
        sport_base: row
            .vxlan_sport
            .map(|n| port("vxlan_sport", n))
            .transpose()?,
        sport_bits: row.vxlan_mask.map(bits).transpose()?,
        sport_security: row.vxlan_security,
    })
}

fn six_bits(dscp: u32) -> Result<u8, FieldError> {
    let fits = u8::try_from(dscp).ok().filter(|dscp| *dscp < 64);
    fits.ok_or_else(|| FieldError::invalid("dscp", format!("{dscp} is not a DSCP (0..=63)")))
}

fn rate(flows: u64) -> Result<u32, FieldError> {
    u32::try_from(flows).map_err(|_| {
        FieldError::invalid(
            "max_resimulated_flow_per_second",
            format!("{flows} is above {}; 0 is any number", u32::MAX),
        )
    })
}

fn mtu(bytes: u32) -> Result<u16, FieldError> {
    let fits = u16::try_from(bytes).ok().filter(|_| bytes >= MIN_MTU);
    fits.ok_or_else(|| {
        FieldError::invalid(
            "mtu",
            format!("{bytes} is no length of IP packets ({MIN_MTU}..=65535)"),
        )
    })
}
