//! The pair of a new connection, and the one place that writes packets.

use std::fmt::Write as _;

use super::{SAME_ENDS, indent, life, limits, meter, outside, part, related};
use crate::plan::Shape;

pub(super) fn create(out: &mut String, shape: &Shape) {
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

/// Addresses, ports and their checksums (`METER` stands for the length that is metered); packets of flows that keep theirs do not come here.
pub(super) const TRANSLATE: &str = "\
# IPv4 to IPv6 and back.
stage translate {
    account;
    translatable;
    translate;
METER    goto apply;
}

";

pub(super) fn apply(out: &mut String, shape: &Shape) {
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
