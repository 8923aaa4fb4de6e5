//! What connections may ask for beside their look-up: timeouts of their own, strict openings.

use super::{Shape, policy};
use crate::ir::Pipeline;

/// The head of the text, where something is not the default.
pub(super) fn head(out: &mut String, shape: &Shape) {
    let head = Pipeline {
        timeouts: shape.timeouts,
        resets: shape.tcp_reset,
        ..Pipeline::default()
    };
    out.push_str(&crate::text::print(&head));
}

/// The first stage with what later ones need to know of the ENI.
pub(super) fn rx(shape: &Shape, text: String) -> String {
    if !shape.flows.epoch {
        return text;
    }
    let known = "    match eni[eni] as e {\n";
    let learn = match (shape.flows.learn, shape.flows.nvgre) {
        (false, _) => "",
        (true, false) => {
            "        learn = 0;\n        if (e.flags & 128) != 0 {\n            learn = 1;\n        }\n"
        }
        (true, true) => {
            "        learn = 0;\n        if (e.flags & 128) != 0 {\n            origin;\n        }\n"
        }
    };
    text.replacen(
        known,
        &format!("{known}        epoch = e.epoch;\n        renew = 0;\n{learn}"),
        1,
    )
}

/// Where an ENI learns, replies go where the first packet came from, in the encap that it came in.
pub(super) const LEARNED: &str = "\
    if learn != 0 {
        ractions.actions = (ractions.actions | 1);
        ractions.u0_encap = learn;
        ractions.u0_dip = outer_sip;
        ractions.u0_vni = vni;
        match eni[eni] as l {
            if l.reverse_sip != 0 {
                ractions.u0_sip = l.reverse_sip;
            }
        } else {
            drop eni-down;
        }
    }
";

/// The text of a stage of ACLs: what is denied goes on, as it may have to be answered with resets,
/// which need decisions.
pub(super) fn acl(shape: &Shape, next: &str, text: &str) -> String {
    if !shape.tcp_reset {
        return text.to_owned();
    }
    text.replace("drop acl-deny;", &format!("acl = (acl | 4);\ngoto {next};"))
}

/// Before the decision: of what was denied, only TCP in the middle of a connection goes on.
pub(super) fn denied(shape: &Shape) -> &'static str {
    if shape.tcp_reset {
        "    if (acl & 4) != 0 {
        if key.proto != 6 {
            drop acl-deny;
        }
        # SYN and RST have nothing to reset.
        if (tcp_flags & 6) != 0 {
            drop acl-deny;
        }
    }
"
    } else {
        ""
    }
}

/// Before a flow is created: both decisions are made, which is all that resets need.
pub(super) fn resets(shape: &Shape) -> &'static str {
    if shape.tcp_reset {
        "    if (acl & 4) != 0 {\n        acl = (acl | 8);\n        drop acl-deny;\n    }\n"
    } else {
        ""
    }
}

/// There is a stage between the look-up and policy.
pub(super) fn has_miss(shape: &Shape) -> bool {
    shape.tcp_nonsyn_drop
}

/// What packets of unknown flows meet before policy. A stage of its own, as a processor in front looks
/// flows up without being able to tell a miss.
pub(super) fn stage_miss(out: &mut String, shape: &Shape) {
    if !has_miss(shape) {
        return;
    }
    out.push_str("# No flow has it.\nstage miss {\n    account;\n");
    if shape.tcp_nonsyn_drop {
        out.push_str(
            "    if key.proto == 6 {\n        if (tcp_flags & 0x12) != 2 {\n            drop tcp-non-syn-miss;\n        }\n    }\n",
        );
    }
    policy(out, "    ", shape);
    out.push_str("}\n\n");
}
