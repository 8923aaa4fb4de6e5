//! Packets that only follow: later fragments, and ICMP errors.

use std::fmt::Write as _;

use super::part;
use crate::plan::Shape;

/// The way of packets that are marked, in front of policy: they missed because of the mark.
pub(super) const TO_RELATED: &str =
    "        if (key.flags & 0xc0) != 0 {\n            goto related;\n        }\n";

/// They take the way of a flow that is there, or none. What they quote or continue was not
/// translated with them, so translated flows have no use for them.
pub(super) fn stage(out: &mut String, shape: &Shape) {
    let words = [(shape.flows.pair(), " pair"), (shape.flows.meter, " meter")]
        .map(|(there, word)| part(there, word))
        .concat();
    let turned = part(shape.floating, super::floating::HIT);
    let refuse = |reason: &str| match shape.flows.translate {
        true => format!(
            "            if (actions.actions & 0x3c0) != 0 {{\n                drop {reason};\n            }}\n"
        ),
        false => String::new(),
    };
    let _ = write!(
        out,
        "\
# Later fragments and ICMP errors go the way of a flow that is there, or none. An error is no packet of
# the flow's.
stage related {{
    account;
    var mark: u8;
    mark = (key.flags & 0xc0);
    key.flags = (key.flags & 0x3f);
    if (mark & 0x80) != 0 {{
        flow lookup peek{words} {{
{turned}{}            goto apply;
        }} else {{
            drop icmp-error-miss;
        }}
    }} else {{
        flow lookup{words} {{
{turned}{}            goto apply;
        }} else {{
            drop inner-fragment;
        }}
    }}
}}

",
        refuse("not-translatable"),
        refuse("inner-fragment"),
    );
}

/// Nothing is made of a packet that cannot be translated.
pub(super) const TRANSLATABLE: &str =
    "    if (actions.actions & 0x3c0) != 0 {\n        translatable;\n    }\n";
