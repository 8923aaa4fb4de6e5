//! What comes in: outer headers, direction, ENI, the customer's frame and its flow.

use std::fmt::Write as _;

use super::{
    branch, floating, life, meter, outside, part, policy, policy_entry, redirect, related,
};
use crate::plan::Shape;

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

pub(super) fn rx(shape: &Shape) -> String {
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

pub(super) fn flow(out: &mut String, shape: &Shape) {
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

pub(super) fn trusted(out: &mut String, shape: &Shape) {
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
