//! Where what a VM sends goes: routes, mappings, tunnels and what they make of addresses.

use std::fmt::Write as _;

use super::{NO_U1, SAME_ENDS, floating, indent, meter, part};
use crate::plan::Shape;

pub(super) const HEAD: &str = "\
# Outbound routing, CA-to-PA mapping, and the decision for both directions.
stage route {
    account;
";

pub(super) fn body(out: &mut String, shape: &Shape) {
    // What is not the shape's is not there: the base is what every configuration has.
    let route_row = format!(
        "\
                action = r.action;
                vnet = r.vnet;
                vni_of_vnet = r.vni;
                if r.action == 1 {{
                    ip = r.overlay_ip;
                    ip_v6 = {};
                }}
{}{}",
        if shape.route_more {
            "(r.flags & 1)"
        } else {
            "r.flags"
        },
        part(shape.route_more, "                more = (r.flags & 2);\n"),
        part(shape.meter, meter::ROUTE),
    );
    let _ = write!(
        out,
        "\
    var vnet: u16;
    var vni_of_vnet: u32;
    var ip: b16;
    var ip_v6: u8;
    var action: u8;
    var zero2: b2;
    var zero4: b4;
    var zero6: b6;
{}{}{}{}    match eni[eni] as e {{
        if (e.flags & 4) == 0 {{
            drop route-group-miss;
        }}
{}        ip = key.dip;
        ip_v6 = (key.flags & 1);
        if ip_v6 == 0 {{
            match route4[e.route_group, v4(key.dip)] as r {{
{route_row}            }} else {{
                drop route-miss;
            }}
        }} else {{
            match route6[e.route_group, key.dip] as r {{
{route_row}            }} else {{
                drop route-miss;
            }}
        }}
        if action == 4 {{
            drop route-drop;
        }}
        actions.actions = 0;
        actions.u0_sip = zero4;
        actions.u0_dip = zero4;
        actions.u0_vni = 0;
        actions.dmac = zero6;
        actions.sport = zero2;
{}        actions.u0_encap = 0;
        # Replies go to the VM's host.
        ractions.actions = 1;
        ractions.u0_dip = e.vm_underlay_dip;
        ractions.u0_vni = e.vm_vni;
        ractions.dmac = zero6;
{}{}",
        part(shape.route_more, "    var more: u8;\n    var source: b4;\n"),
        part(shape.tunnel, TUNNEL_VARS),
        part(shape.port_map, "    var port_map: u32;\n"),
        part(shape.meter, meter::ROUTE_VARS),
        part(shape.route_group_disabled, GROUP_DISABLED),
        meter::policy_or_none(shape),
        part(shape.flows.u1, NO_U1),
        part(shape.floating, "        ractions.u0_encap = 1;\n"),
    );
    if shape.flows.translate {
        out.push_str(&indent(SAME_ENDS, "        "));
    }
    if shape.route_more {
        route_more(out, shape);
    }
    out.push_str(if shape.service_tunnel {
        "        if (action != 2 && action != 3) {\n"
    } else {
        "        if action != 2 {\n"
    });
    out.push_str(
        "\
            match mapping[vnet, ip_v6, ip] as m {
                actions.actions = 1;
                actions.u0_encap = 1;
                actions.u0_dip = m.underlay_dip;
                if (m.flags & 2) != 0 {
                    actions.actions = 9;
                    actions.dmac = m.dmac;
                }
                if (m.flags & 1) != 0 {
                    actions.u0_vni = vni_of_vnet;
                } else {
                    actions.u0_vni = e.vnet_vni;
                }
",
    );
    out.push_str(part(shape.meter, meter::MAPPING));
    if shape.mapping_more {
        mapping_more(out, shape);
    }
    out.push_str(
        "\
            } else {
                drop mapping-miss;
            }
        }
    } else {
        drop eni-down;
    }
",
    );
    if shape.port_map {
        let miss = "        } else {\n            drop port-range-miss;\n        }\n    }\n";
        match PORT_MAP.strip_suffix("        }\n    }\n") {
            Some(head) if shape.drop_unmapped_ports => {
                out.push_str(head);
                out.push_str(miss);
            }
            _ => out.push_str(PORT_MAP),
        }
    }
    if shape.tunnel {
        out.push_str(&TUNNEL.replace("METER", part(shape.meter, meter::TUNNEL)));
    }
    if shape.meter {
        out.push_str(&meter::class_of_route());
    }
    let next = if shape.floating {
        floating::REPLIES_STAGE
    } else {
        "create"
    };
    let _ = write!(
        out,
        "    rkey.flags = ((key.flags & 1) | 4);\n{}    goto {next};\n}}\n\n",
        part(
            shape.flows.translate,
            "    if (actions.actions & 0x40) != 0 {\n        rkey.flags = 5;\n    }\n"
        ),
    );
}

const GROUP_DISABLED: &str =
    "        if (e.flags & 32) != 0 {\n            drop route-group-disabled;\n        }\n";

const TUNNEL_VARS: &str = "    var via: u32;\n    var member: u32;\n";

/// What few routes have: a tunnel, a source of their own, addresses to make IPv6 of.
fn route_more(out: &mut String, shape: &Shape) {
    let common = format!(
        "{}                    source = x.underlay_sip;\n",
        part(shape.tunnel, "                    via = x.tunnel;\n"),
    );
    let _ = write!(
        out,
        "\
        if more != 0 {{
            if (key.flags & 1) == 0 {{
                match route4_more[e.route_group, v4(key.dip)] as x {{
{common}{}                }} else {{
                    drop internal;
                }}
            }} else {{
                match route6_more[e.route_group, key.dip] as x {{
{common}                }} else {{
                    drop internal;
                }}
            }}
        }}
",
        part(shape.service_tunnel, SERVICE_TUNNEL),
    );
}

/// A service tunnel: 4to6 by the route, in the encap of the routing type.
const SERVICE_TUNNEL: &str = "                    if action == 3 {
                        if (key.proto != 6 && key.proto != 17) {
                            drop not-translatable;
                        }
                        rkey.dip = mask(key.sip, x.sip_keep, x.sip_set);
                        rkey.sip = mask(key.dip, x.dip_keep, x.dip_set);
                        actions.actions = 0x41;
                        ractions.actions = 0x81;
                        actions.u0_sip = x.underlay_sip;
                        actions.u0_dip = x.underlay_dip;
                        if x.underlay_dip == 0 {
                            actions.u0_dip = v4(key.dip);
                        }
                        match routing_type[8] as k {
                            actions.u0_encap = k.encap;
                            actions.u0_vni = k.key;
                        } else {
                            drop internal;
                        }
                    }
";

fn mapping_more(out: &mut String, shape: &Shape) {
    let _ = write!(
        out,
        "\
                if (m.flags & 8) != 0 {{
                    match mapping_more[vnet, ip_v6, ip] as y {{
{}{}                    }} else {{
                        drop internal;
                    }}
                }}
",
        part(
            shape.tunnel,
            "                        if y.tunnel != 0 {\n                            via = y.tunnel;\n                        }\n"
        ),
        if shape.private_link {
            private_link(shape)
        } else {
            String::new()
        },
    );
}

/// A private link: 4to6 by the mapping and the ENI, in the encap of the routing type.
fn private_link(shape: &Shape) -> String {
    format!(
        "                        if (m.flags & 4) != 0 {{
                            if ((key.flags & 1) != 0 || (key.proto != 6 && key.proto != 17)) {{
                                drop not-translatable;
                            }}
                            rkey.dip = mask(key.sip, y.sip_keep, y.sip_set);
                            rkey.dip = mask(rkey.dip, e.pl_keep, e.pl_set);
                            rkey.sip = mask(key.dip, y.dip_keep, y.dip_set);
                            actions.actions = 0x41;
                            ractions.actions = 0x81;
                            actions.u0_sip = e.pl_underlay_sip;
{}{}                            match routing_type[{}] as k {{
                                actions.u0_encap = k.encap;
                                actions.u0_vni = k.key;
                            }} else {{
                                drop internal;
                            }}
                        }}
",
        part(
            shape.route_more,
            "                            if source != 0 {
                                actions.u0_sip = source;
                            }
"
        ),
        part(
            shape.port_map,
            "                            port_map = y.port_map;\n"
        ),
        if shape.private_link_nsg {
            "y.routing_type"
        } else {
            "6"
        },
    )
}

/// The service behind a port. A port in no range goes where the mapping says (A51).
const PORT_MAP: &str = "\
    if port_map != 0 {
        match port_range[port_map, key.dport] as q {
            if q.action == 1 {
                actions.actions = 0x241;
                ractions.actions = 0x181;
                actions.u0_dip = q.backend_ip;
                rkey.sip = with4(rkey.sip, q.backend_ip);
                rkey.sport = be16(((num(key.dport) - q.match_base) + q.backend_base));
            }
        }
    }
";

/// The tunnel is the encap of what has none, and the outer encap of what has one. `METER` stands for
/// what it does to the metering class.
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
METER            if (actions.actions & 1) == 0 {
                actions.actions = (actions.actions | 1);
                actions.u0_encap = w.encap;
                actions.u0_dip = w.dip;
                actions.u0_vni = w.vni;
            } else {
                actions.actions = (actions.actions | 2);
                actions.u1 = w.encap;
                u1_dip = w.dip;
                u1_vni = w.vni;
            }
        } else {
            drop internal;
        }
    }
";
