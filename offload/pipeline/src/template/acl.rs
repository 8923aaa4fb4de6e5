//! ACLs, five stages in a row.

use std::fmt::Write as _;

use super::life;
use crate::plan::Shape;

/// Five stages in a row; a soft verdict may be overridden by a later stage (A6), a bound group
/// without a matching rule denies (A9).
pub(super) fn stage(out: &mut String, shape: &Shape, direction: &str, next: &str) {
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
