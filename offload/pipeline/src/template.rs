//! The pipeline's text for a shape: the whole DASH policy of this release in the IR's own words.
//!
//! Stage order and actions follow the DASH pipeline (`dash_pipeline.p4` and the design documents);
//! what differs from the P4 text is listed as choices A1-A53 in `specs/architecture.md`.

use std::fmt::Write as _;

mod life;

use crate::plan::Shape;

mod floating;
mod limits;
mod meter;
mod outside;
mod redirect;
mod related;

/// IR text of the pipeline with this shape. It parses and checks for every shape that objects can have.
pub fn pipeline_text(shape: &Shape) -> String {
    let mut out = String::with_capacity(8 << 10);
    life::head(&mut out, shape);
    out.push_str(&life::rx(shape, rx(shape)));
    stage_flow(&mut out, shape);
    if shape.redirect {
        out.push_str(redirect::TEXT);
    }
    life::stage_miss(&mut out, shape);
    if shape.trusted_vnis {
        stage_trusted(&mut out, shape);
    }
    if shape.floating {
        // Before the outbound policy, where it may lead.
        stage_inbound(&mut out, shape);
    }
    if shape.acl_out != 0 {
        stage_acl(&mut out, shape, "out", "route");
    }
    out.push_str(ROUTE_HEAD);
    out.push_str(life::denied(shape));
    out.push_str(PROTOCOL_CHECK);
    route_body(&mut out, shape);
    if shape.floating {
        floating::stage_replies(&mut out, shape);
    } else {
        stage_inbound(&mut out, shape);
    }
    if shape.acl_in != 0 {
        stage_acl(&mut out, shape, "in", "deliver");
    }
    out.push_str(DELIVER_HEAD);
    out.push_str(life::denied(shape));
    out.push_str(PROTOCOL_CHECK);
    deliver_body(&mut out, shape);
    stage_create(&mut out, shape);
    if shape.flows.translate {
        out.push_str(&TRANSLATE.replace("METER", part(meter::keeps_len(shape), meter::LEN_IN)));
    }
    stage_apply(&mut out, shape);
    out
}

/// The stage that looks flows up. When it starts, `meta.key` is the packet's flow key.
pub const FLOW_STAGE: &str = "flow";

/// The stage that packets of known flows go to next, and others in the end.
pub const APPLY_STAGE: &str = "apply";

const RX: &str = "\
# Outer headers, VIP, direction, ENI, decap.
stage rx {
    parse underlay;
    var mac: b6;
    match globals[0] as g {
        if g.vip == 0 {
            drop vip-miss;
        }
        if outer_dip != g.vip {
            drop vip-miss;
        }
        parse vxlan g.vxlan_port;
        # The VM's VNI says outbound, and then the ENI is the inner source (direction lookup).
        if vni == g.vm_vni {
            direction = 1;
            mac = inner_smac;
        } else {
            direction = 2;
            mac = inner_dmac;
        }
    } else {
        drop vip-miss;
    }
    match eni_mac[mac] as m {
        eni = m.value;
    } else {
        drop eni-miss;
    }
    account;
    count RX_PACKETS 1;
    count RX_BYTES frame_len;
    if direction == 1 {
        count OUTBOUND_RX_PACKETS 1;
        count OUTBOUND_RX_BYTES frame_len;
    } else {
        count INBOUND_RX_PACKETS 1;
        count INBOUND_RX_BYTES frame_len;
    }
    match eni[eni] as e {
        if (e.flags & 1) == 0 {
            drop eni-down;
        }
    } else {
        drop eni-down;
    }
    decap;
    goto inner;
}

";

fn rx(shape: &Shape) -> String {
    let text = RX.replace("parse vxlan", parse_encap(shape));
    let guard = part(shape.sport_security, outside::GUARD);
    let text = text.replace("g.vxlan_port;\n", &format!("g.vxlan_port;\n{guard}"));
    if !shape.redirect {
        return text;
    }
    let line = |text: String, at: &str, new: String| {
        debug_assert_eq!(text.matches(at).count(), 1, "{at}");
        text.replace(at, &new)
    };
    let parse = "        parse encap g.vxlan_port;\n";
    let text = line(text, parse, format!("{parse}{}", redirect::SPOT));
    let miss = "        drop eni-miss;\n";
    let text = line(text, miss, format!("{}{miss}", redirect::ENI_MISS));
    let down = "        if (e.flags & 1) == 0 {\n";
    let passed_on = "        if ((e.flags & 1) == 0 && redirect == 0) {\n";
    line(text, down, passed_on.to_owned())
}

fn parse_encap(shape: &Shape) -> &'static str {
    if shape.flows.nvgre {
        "parse encap"
    } else {
        "parse vxlan"
    }
}

/// The text of a part that the shape may be without.
fn part(there: bool, text: &str) -> &str {
    if there { text } else { "" }
}

/// Where a new flow's policy starts, by direction.
fn policy_entry(shape: &Shape) -> (&'static str, &'static str) {
    (
        if shape.acl_out != 0 {
            "acl_out"
        } else {
            "route"
        },
        "inbound",
    )
}

fn branch(out: &mut String, indent: &str, (outbound, inbound): (&str, &str)) {
    let _ = write!(
        out,
        "{indent}if direction == 1 {{\n{indent}    goto {outbound};\n{indent}}} else {{\n{indent}    goto {inbound};\n{indent}}}\n"
    );
}

fn stage_flow(out: &mut String, shape: &Shape) {
    out.push_str("# The customer's frame.\nstage inner {\n    account;\n");
    out.push_str(part(shape.hooks, "    hook;\n"));
    if shape.redirect {
        out.push_str(&redirect::parse(shape));
    }
    out.push_str("    parse inner;\n    if key.proto == 6 {\n        if direction == 1 {\n");
    tcp_counts(out, "OUTBOUND");
    out.push_str("        } else {\n");
    tcp_counts(out, "INBOUND");
    out.push_str("        }\n    }\n");
    out.push_str(part(meter::keeps_len(shape), meter::LEN));
    out.push_str("    goto flow;\n}\n\n");
    // The cut of code in two parts (`FLOW_STAGE`): what comes before needs no table of flows.
    let words = lookup_words(shape);
    let _ = write!(
        out,
        "# Its flow.\nstage flow {{\n    account;\n{}    flow lookup{words} {{\n{}{}        goto apply;\n    }} else {{\n",
        part(shape.redirect, redirect::GOTO),
        part(shape.floating, floating::HIT),
        part(
            shape.flows.translate,
            "        if (actions.actions & 0x3c0) != 0 {\n            goto translate;\n        }\n"
        )
    );
    out.push_str(related::TO_RELATED);
    if life::has_miss(shape) {
        out.push_str("        goto miss;\n");
    } else {
        policy(out, "        ", shape);
    }
    out.push_str("    }\n}\n\n");
    related::stage(out, shape);
}

/// What a look-up says more, in the order of the fields.
fn lookup_words(shape: &Shape) -> String {
    let flows = shape.flows;
    [
        (flows.pair(), " pair"),
        (flows.redirects, " marks"),
        (flows.meter, " meter"),
        (flows.epoch, " epoch"),
        (flows.learn, " learn"),
    ]
    .map(|(there, word)| part(there, word))
    .concat()
}

/// What `flow create` says more.
fn create_words(shape: &Shape) -> String {
    let flows = shape.flows;
    [
        (flows.pair(), " pair"),
        (flows.redirects, " marks"),
        (flows.epoch, " epoch"),
        (flows.learn, " learn"),
    ]
    .map(|(there, word)| part(there, word))
    .concat()
}

/// To the first stage of policy.
fn policy(out: &mut String, indent: &str, shape: &Shape) {
    if shape.trusted_vnis {
        let _ = writeln!(out, "{indent}goto trusted;");
    } else {
        branch(out, indent, policy_entry(shape));
    }
}

/// SYN counts without ACK; the others whenever their bit is set.
fn tcp_counts(out: &mut String, direction: &str) {
    for (mask, value, name) in [
        (0x12, 0x02, "SYN"),
        (0x12, 0x12, "SYNACK"),
        (0x01, 0x01, "FIN"),
        (0x04, 0x04, "RST"),
    ] {
        let _ = write!(
            out,
            "            if (tcp_flags & {mask:#x}) == {value:#x} {{\n                count {direction}_TCP_{name}_PACKETS 1;\n            }}\n"
        );
    }
}

fn stage_trusted(out: &mut String, shape: &Shape) {
    out.push_str(
        "\
# VNIs are checked only where somebody lists some (A5).
stage trusted {
    account;
    match globals[0] as g {
        match eni[eni] as e {
            if ((g.flags & 1) != 0 || (e.flags & 2) != 0) {
                match trusted_vni[be16(0xffff), be24(vni)] as t {
                } else {
                    match trusted_vni[be16(eni), be24(vni)] as u {
                    } else {
                        drop trusted-vni-miss;
                    }
                }
            }
        } else {
            drop eni-down;
        }
    } else {
        drop vip-miss;
    }
",
    );
    branch(out, "    ", policy_entry(shape));
    out.push_str("}\n\n");
}

/// Five stages in a row; a soft verdict may be overridden by a later stage (A6), a bound group
/// without a matching rule denies (A9).
fn stage_acl(out: &mut String, shape: &Shape, direction: &str, next: &str) {
    let stages = if direction == "out" {
        shape.acl_out
    } else {
        shape.acl_in
    };
    let mut text = String::new();
    let _ = write!(
        text,
        "stage acl_{direction} {{\n    account;\n    var group: u32;\n    var v6: u8;\n    v6 = (key.flags & 1);\n    match eni[eni] as e {{\n"
    );
    for k in (1..=5).filter(|k| stages >> (k - 1) & 1 == 1) {
        let _ = write!(
            text,
            "\
        if v6 == 0 {{
            group = e.acl_{direction}_v4_{k};
        }} else {{
            group = e.acl_{direction}_v6_{k};
        }}
        if group != 0 {{
            match acl[group, key.proto, v6, key.sip, key.dip, acl_sport, acl_dport] as r {{
                if (r.value & 0xff) == 2 {{
                    drop acl-deny;
                }}
                if (r.value & 0xff) == 3 {{
                    acl = ((acl & 2) | 1);
                }} else {{
                    acl = ((acl & 2) | ((r.value & 0x100) >> 7));
                    if (r.value & 0xff) == 0 {{
                        goto {next};
                    }}
                }}
            }} else {{
                drop acl-deny;
            }}
        }}
"
        );
    }
    let _ = write!(
        text,
        "    }} else {{\n        drop eni-down;\n    }}\n    if (acl & 1) != 0 {{\n        drop acl-deny;\n    }}\n    goto {next};\n}}\n\n"
    );
    out.push_str(&life::acl(shape, next, &text));
}

/// Protocols other than TCP, UDP and ICMP pass only when a permit rule names them (A52).
const PROTOCOL_CHECK: &str = "\
    if (key.proto != 6 && (key.proto != 17 && (acl & 2) == 0)) {
        if (key.flags & 1) == 0 {
            if key.proto != 1 {
                drop unsupported-protocol;
            }
        } else {
            if key.proto != 58 {
                drop unsupported-protocol;
            }
        }
    }
";

const ROUTE_HEAD: &str = "\
# Outbound routing, CA-to-PA mapping, and the decision for both directions.
stage route {
    account;
";

fn route_body(out: &mut String, shape: &Shape) {
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

const NO_U1: &str = "        actions.u1 = 0;\n        ractions.u1 = 0;\n        u1_dip = zero4;\n        u1_vni = 0;\n";

/// Replies come from where packets go, unless they are translated.
const SAME_ENDS: &str = "\
rkey.sip = key.dip;
rkey.dip = key.sip;
rkey.sport = key.dport;
rkey.dport = key.sport;
";

fn indent(text: &str, by: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let _ = writeln!(out, "{by}{line}");
    }
    out
}

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

fn stage_inbound(out: &mut String, shape: &Shape) {
    out.push_str(
        "\
# Inbound route rules and PA validation.
stage inbound {
    account;
    match inbound[eni, vni, outer_sip] as r {
        if r.action == 2 {
            drop inbound-drop;
        }
",
    );
    out.push_str(part(shape.meter, meter::INBOUND));
    if shape.inbound_pa_validation {
        let refused = if shape.pa_prefixes {
            "\
                match pa_prefix[r.vnet, outer_sip] as q {
                } else {
                    drop pa-validation;
                }
"
        } else {
            "                drop pa-validation;\n"
        };
        let _ = write!(
            out,
            "\
        if r.action == 1 {{
            match pa_validation[r.vnet, outer_sip] as p {{
            }} else {{
{refused}            }}
        }}
"
        );
    }
    let next = if shape.acl_in != 0 {
        "acl_in"
    } else {
        "deliver"
    };
    let _ = write!(
        out,
        "    }} else {{\n        drop inbound-miss;\n    }}\n{}    goto {next};\n}}\n\n",
        if shape.floating {
            floating::outbound(policy_entry(shape).0)
        } else {
            String::new()
        }
    );
}

const DELIVER_HEAD: &str = "\
# To the VM; replies go back to the PA and VNI the packet came from.
stage deliver {
    account;
";

fn deliver_body(out: &mut String, shape: &Shape) {
    let _ = write!(
        out,
        "\
    var zero6: b6;
{}{}    match eni[eni] as e {{
        actions.actions = 1;
        actions.u0_encap = 1;
        actions.u0_dip = e.vm_underlay_dip;
        actions.u0_vni = e.vm_vni;
        actions.dmac = zero6;
{}{}    }} else {{
        drop eni-down;
    }}
    ractions.actions = 9;
    ractions.u0_dip = outer_sip;
    ractions.u0_vni = vni;
    ractions.dmac = inner_smac;
{}{}{}    rkey.flags = ((key.flags & 1) | 2);
    goto create;
}}

",
        part(shape.flows.pair(), "    var zero4: b4;\n"),
        part(shape.meter, meter::POLICY_VAR),
        meter::policy_or_none(shape),
        if shape.flows.pair() {
            let zeroed = "        actions.u0_sip = zero4;\n";
            format!("{zeroed}{}", part(shape.flows.u1, NO_U1))
        } else {
            String::new()
        },
        part(shape.floating, "    ractions.u0_encap = 1;\n"),
        if shape.flows.translate {
            indent(SAME_ENDS, "    ")
        } else {
            String::new()
        },
        if shape.meter {
            meter::class_of_policy("key.sip")
        } else {
            String::new()
        },
    );
}

fn stage_create(out: &mut String, shape: &Shape) {
    let flows = shape.flows;
    let _ = write!(
        out,
        "\
# The pair: both keys, both decisions, frozen.
stage create {{
    account;
{}    rkey.eni = key.eni;
    rkey.proto = key.proto;
{}    match globals[0] as g {{
        ractions.u0_sip = g.vip;
        if {} {{
            actions.u0_sip = g.vip;
        }}
    }} else {{
        drop vip-miss;
    }}
    if (actions.actions & 1) != 0 {{
        entropy actions.sport from key;
    }}
    entropy ractions.sport from rkey;
{}{}{}    # A reset opens nothing.
    if (tcp_flags & 4) == 0 {{
{}        flow create{};
    }}
{}    goto apply;
}}

",
        if flows.translate {
            String::new()
        } else {
            indent(SAME_ENDS, "    ")
        },
        part(!shape.floating, "    ractions.u0_encap = 1;\n"),
        if flows.pair() {
            "((actions.actions & 1) != 0 && actions.u0_sip == 0)"
        } else {
            "(actions.actions & 1) != 0"
        },
        part(flows.learn, life::LEARNED),
        life::resets(shape),
        part(flows.translate, related::TRANSLATABLE),
        limits::admission(shape),
        create_words(shape),
        part(
            flows.translate,
            "    if (actions.actions & 0x3c0) != 0 {\n        goto translate;\n    }\n"
        ),
    );
}

/// Addresses, ports and their checksums (`METER` stands for the length that is metered); packets of flows that keep theirs do not come here.
const TRANSLATE: &str = "\
# IPv4 to IPv6 and back.
stage translate {
    account;
    translatable;
    translate;
METER    goto apply;
}

";

fn stage_apply(out: &mut String, shape: &Shape) {
    let _ = write!(
        out,
        "# The stage that writes packet bytes{}.\nstage apply {{\n    account;\n{}{}{}    apply{}{}{};\n",
        part(shape.flows.translate, ", but for addresses and ports"),
        outside::before_apply(shape),
        limits::police(shape),
        meter::count(shape),
        part(shape.flows.nvgre, " nvgre"),
        part(shape.flows.u1, " u1"),
        part(shape.floating, " smac"),
    );
    if shape.underlay_routes && shape.flows.u1 {
        out.push_str(
            "\
    if (actions.actions & 2) != 0 {
        match underlay[0, pad16(u1_dip)] as n {
            forward n;
        } else {
            send;
        }
    }
",
        );
    }
    if shape.underlay_routes {
        out.push_str(
            "\
    if (actions.actions & 1) != 0 {
        match underlay[0, pad16(actions.u0_dip)] as n {
            forward n;
        } else {
            send;
        }
    } else {
        if (key.flags & 1) == 0 {
            match underlay[0, pad16(v4(key.dip))] as n {
                forward n;
            } else {
                send;
            }
        } else {
            match underlay[1, key.dip] as n {
                forward n;
            } else {
                send;
            }
        }
    }
}
",
        );
    } else {
        out.push_str("    send;\n}\n");
    }
}
