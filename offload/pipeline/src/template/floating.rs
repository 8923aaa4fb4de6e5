//! Floating NICs: ENIs between two networks (A30).
//!
//! Packets of both sides come to the ENI's MAC, so both are received as inbound and both keys of a
//! connection say so. The first packet needs an inbound rule and then takes the outbound policy;
//! what answers it takes the way the ENI's routes say for the address the first packet came from.

use std::fmt::Write as _;

use super::part;
use crate::plan::Shape;

/// The stage behind routing.
pub(super) const REPLIES_STAGE: &str = "replies";

/// A hit of the side that began: what was received as inbound leaves as outbound.
pub(super) const HIT: &str = "\
        if (actions.actions & 0x400) != 0 {
            direction = 1;
        }
";

/// The end of the inbound stage: what its rules let in goes on to the outbound policy.
pub(super) fn outbound(policy: &str) -> String {
    format!(
        "\
    match eni[eni] as e {{
        if (e.flags & 8) != 0 {{
            # A floating NIC's: what leaves is outbound.
            direction = 1;
            goto {policy};
        }}
    }} else {{
        drop eni-down;
    }}
"
    )
}

/// Which way replies take, and the MACs of both directions.
pub(super) fn stage_replies(out: &mut String, shape: &Shape) {
    // A tunnel that only mappings name is no route's.
    let tunnel = shape.tunnel && shape.route_more;
    // The decision keeps a second encap in place of a MAC (`FlowActions::keep_u1`).
    let (unless_u1, end) = if shape.flows.u1 {
        ("        if (actions.actions & 2) == 0 {\n", "        }\n")
    } else {
        ("", "")
    };
    let mapped_dmac = if shape.flows.u1 {
        "((m.flags & 2) != 0 && (actions.actions & 2) == 0)"
    } else {
        "(m.flags & 2) != 0"
    };
    let row = format!(
        "\
                known = 1;
                action = r.action;
                vnet = r.vnet;
                vni_of_vnet = r.vni;
                if r.action == 1 {{
                    ip = r.overlay_ip;
                    ip_v6 = (r.flags & 1);
                }}
{}",
        part(shape.route_more, "                more = (r.flags & 2);\n"),
    );
    let _ = write!(
        out,
        "\
# A floating NIC's replies: the way its routes say for where the packet came from, else to the VM's host.
stage replies {{
    account;
    var known: u8;
    var action: u8;
    var vnet: u16;
    var vni_of_vnet: u32;
    var ip: b16;
    var ip_v6: u8;
{}{}    match eni[eni] as e {{
        if ((e.flags & 8) == 0 || (key.flags & 4) == 0) {{
            goto create;
        }}
        actions.actions = (actions.actions | 0x404);
        ractions.actions = (ractions.actions | 4);
{unless_u1}        ractions.actions = (ractions.actions | 8);
        ractions.dmac = inner_smac;
{end}{}        ip = key.sip;
        ip_v6 = (key.flags & 1);
        if ip_v6 == 0 {{
            match route4[e.route_group, v4(key.sip)] as r {{
{row}            }}
        }} else {{
            match route6[e.route_group, key.sip] as r {{
{row}            }}
        }}
        if known == 1 {{
            if action == 4 {{
                drop route-drop;
            }}
            if action == 2 {{
                ractions.actions = (ractions.actions & 0xfffe);
{}            }}
            if (action == 0 || action == 1) {{
                match mapping[vnet, ip_v6, ip] as m {{
                    # A private link is no way back.
                    if (m.flags & 4) == 0 {{
                        ractions.u0_dip = m.underlay_dip;
                        if {mapped_dmac} {{
                            ractions.dmac = m.dmac;
                        }}
                        if (m.flags & 1) != 0 {{
                            ractions.u0_vni = vni_of_vnet;
                        }} else {{
                            ractions.u0_vni = e.vnet_vni;
                        }}
                    }}
                }}
            }}
        }}
    }} else {{
        drop eni-down;
    }}
{}    goto create;
}}

",
        part(shape.route_more, "    var more: u8;\n"),
        part(tunnel, "    var via: u32;\n    var member: u32;\n"),
        part(shape.flows.learn, LEARNS),
        part(tunnel, DIRECT_TUNNEL),
        part(tunnel, TUNNEL),
    );
}

/// Replies go where the packet came from.
const LEARNS: &str = "        if learn != 0 {\n            goto create;\n        }\n";

const DIRECT_TUNNEL: &str = "                if more != 0 {
                    if (key.flags & 1) == 0 {
                        match route4_more[e.route_group, v4(key.sip)] as x {
                            via = x.tunnel;
                        } else {
                            drop internal;
                        }
                    } else {
                        match route6_more[e.route_group, key.sip] as x {
                            via = x.tunnel;
                        } else {
                            drop internal;
                        }
                    }
                }
";

/// The tunnel of a direct route is the encap of what takes it.
const TUNNEL: &str = "\
    if via != 0 {
        match tunnel[via, 0] as t {
            if t.members != 1 {
                choose member from key of t.members;
            }
        } else {
            drop internal;
        }
        match tunnel[via, member] as w {
            ractions.actions = (ractions.actions | 1);
            ractions.u0_encap = w.encap;
            ractions.u0_dip = w.dip;
            ractions.u0_vni = w.vni;
        } else {
            drop internal;
        }
    }
";
