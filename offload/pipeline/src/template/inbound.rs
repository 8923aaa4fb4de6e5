//! What comes to a VM: from whom it may, and where replies go.

use std::fmt::Write as _;

use dash_wire::tables::INBOUND_PROTOCOL_SHIFT;

use super::{NO_U1, SAME_ENDS, floating, indent, meter, part, policy_entry};
use crate::plan::Shape;

pub(super) fn stage(out: &mut String, shape: &Shape) {
    out.push_str(
        "\
# Inbound route rules and PA validation.
stage inbound {
    account;
",
    );
    let network = if shape.inbound_protocol {
        // Where there are rules for the protocol, they are with those for all.
        let _ = write!(
            out,
            "\
    var network: u32;
    network = (vni | (key.proto << {INBOUND_PROTOCOL_SHIFT}));
    match inbound[eni, network, outer_sip] as p {{
    }} else {{
        network = vni;
    }}
"
        );
        "network"
    } else {
        "vni"
    };
    let _ = write!(
        out,
        "    match inbound[eni, {network}, outer_sip] as r {{\n{}    }} else {{\n        drop inbound-miss;\n",
        indent(&rule(shape), "        ")
    );
    let next = if shape.acl_in != 0 {
        "acl_in"
    } else {
        "deliver"
    };
    let _ = write!(
        out,
        "    }}\n{}    goto {next};\n}}\n\n",
        if shape.floating {
            floating::outbound(policy_entry(shape).0)
        } else {
            String::new()
        }
    );
}

/// What a rule that was found does.
fn rule(shape: &Shape) -> String {
    let mut out = String::from("if r.action == 2 {\n    drop inbound-drop;\n}\n");
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
            "        drop pa-validation;\n"
        };
        let _ = write!(
            out,
            "\
if r.action == 1 {{
    match pa_validation[r.vnet, outer_sip] as p {{
    }} else {{
{refused}    }}
}}
"
        );
    }
    out
}

pub(super) const DELIVER_HEAD: &str = "\
# To the VM; replies go back to the PA and VNI the packet came from.
stage deliver {
    account;
";

pub(super) fn deliver(out: &mut String, shape: &Shape) {
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
