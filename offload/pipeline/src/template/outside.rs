//! What settings ask of the outside of packets: source ports of VXLAN, DSCP, length.

use crate::plan::Shape;

/// VXLAN is taken only from the source ports that our own encaps have.
pub(super) const GUARD: &str = "        guard sport g.sport_base, g.sport_mask;\n";

/// Statements in front of `apply`.
pub(super) fn before_apply(shape: &Shape) -> String {
    let mut out = String::new();
    if shape.dscp_pipe {
        out.push_str(PIPE);
    }
    if shape.mtu || shape.port_mtu.is_some() {
        out.push_str(
            "    # Nothing is cut in pieces.\n    var size: u32;\n    size = inner_len;\n",
        );
        out.push_str(&encap_len("1", "actions.u0_encap", shape.flows.nvgre));
        if shape.flows.u1 {
            out.push_str(&encap_len("2", "actions.u1", shape.flows.nvgre));
        }
    }
    if shape.mtu {
        out.push_str(FITS);
    }
    if let Some(least) = shape.port_mtu {
        out.push_str(&fits_port(shape, least));
    }
    out
}

/// What is too long for some port must fit the one it leaves by: that of the underlay route which
/// `forward` will take, else the one it came by.
fn fits_port(shape: &Shape, least: u16) -> String {
    let to =
        |v6: u8, dst: &str| format!("match underlay[{v6}, {dst}] as n {{\n room = n.mtu;\n }}\n");
    let mut routed = String::new();
    if shape.underlay_routes {
        routed = format!(
            "if (actions.actions & 1) != 0 {{\n {} }} else {{\n if (key.flags & 1) == 0 {{\n {} }} else {{\n {} }}\n }}\n",
            to(0, "pad16(actions.u0_dip)"),
            to(0, "pad16(v4(key.dip))"),
            to(1, "key.dip"),
        );
        if shape.flows.u1 {
            let outer = to(0, "pad16(u1_dip)");
            routed =
                format!("if (actions.actions & 2) != 0 {{\n {outer} }} else {{\n {routed} }}\n");
        }
    }
    format!(
        "\
    # What is too long for some port must fit the one it leaves by.
    if ((({least} + 14) - size) >> 63) != 0 {{
        var room: u32;
        room = 0;
        {routed}        if room == 0 {{
            match port_mtu[ingress] as o {{
                room = o.value;
            }} else {{
                room = {};
            }}
        }}
        if (((room + 14) - size) >> 63) != 0 {{
            drop too-big;
        }}
    }}
",
        u16::MAX
    )
}

/// The ENI's own DSCP for its encaps, where it has one; the ECN field stays the received one's, which
/// `apply` combines.
const PIPE: &str = "\
    match eni[eni] as p {
        if (p.flags & 64) != 0 {
            outer_tos = ((outer_tos & 3) | p.dscp_tos);
        }
    } else {
        drop eni-down;
    }
";

/// The length that an encap adds: 50 bytes of VXLAN (kind 1), 42 of NVGRE (kind 2).
fn encap_len(action: &str, kind: &str, nvgre: bool) -> String {
    let len = match nvgre {
        true => format!("(58 - ({kind} << 3))"),
        false => "50".to_owned(),
    };
    format!(
        "    if (actions.actions & {action}) == {action} {{\n        size = (size + {len});\n    }}\n"
    )
}

/// The MTU is of IP packets, `size` of frames. The difference is below 0 when its highest bit is set.
const FITS: &str = "\
    match eni[eni] as m {
        if (((m.mtu + 14) - size) >> 63) != 0 {
            drop too-big;
        }
    } else {
        drop eni-down;
    }
";
