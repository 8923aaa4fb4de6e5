//! The pipeline's text for a shape: the whole DASH policy of this release in the IR's own words.
//!
//! Stage order and actions follow the DASH pipeline (`dash_pipeline.p4` and the design documents);
//! what differs from the P4 text is listed as choices A1-A53 in `specs/architecture.md`.

use std::fmt::Write as _;

use crate::plan::Shape;

mod acl;
mod entry;
mod floating;
mod inbound;
mod leave;
mod life;
mod limits;
mod meter;
mod outbound;
mod outside;
mod redirect;
mod related;

/// IR text of the pipeline with this shape. It parses and checks for every shape that objects can have.
pub fn pipeline_text(shape: &Shape) -> String {
    let mut out = String::with_capacity(8 << 10);
    life::head(&mut out, shape);
    out.push_str(&life::rx(shape, entry::rx(shape)));
    entry::flow(&mut out, shape);
    if shape.redirect {
        out.push_str(redirect::TEXT);
    }
    life::stage_miss(&mut out, shape);
    if shape.trusted_vnis {
        entry::trusted(&mut out, shape);
    }
    if shape.floating {
        // Before the outbound policy, where it may lead.
        inbound::stage(&mut out, shape);
    }
    if shape.acl_out != 0 {
        acl::stage(&mut out, shape, "out", "route");
    }
    out.push_str(outbound::HEAD);
    out.push_str(life::denied(shape));
    out.push_str(PROTOCOL_CHECK);
    outbound::body(&mut out, shape);
    if shape.floating {
        floating::stage_replies(&mut out, shape);
    } else {
        inbound::stage(&mut out, shape);
    }
    if shape.acl_in != 0 {
        acl::stage(&mut out, shape, "in", "deliver");
    }
    out.push_str(inbound::DELIVER_HEAD);
    out.push_str(life::denied(shape));
    out.push_str(PROTOCOL_CHECK);
    inbound::deliver(&mut out, shape);
    leave::create(&mut out, shape);
    if shape.flows.translate {
        out.push_str(
            &leave::TRANSLATE.replace("METER", part(meter::keeps_len(shape), meter::LEN_IN)),
        );
    }
    leave::apply(&mut out, shape);
    out
}

/// The stage that looks flows up. When it starts, `meta.key` is the packet's flow key.
pub const FLOW_STAGE: &str = "flow";

/// The stage that packets of known flows go to next, and others in the end.
pub const APPLY_STAGE: &str = "apply";

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

/// To the first stage of policy.
fn policy(out: &mut String, indent: &str, shape: &Shape) {
    if shape.trusted_vnis {
        let _ = writeln!(out, "{indent}goto trusted;");
    } else {
        branch(out, indent, policy_entry(shape));
    }
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
