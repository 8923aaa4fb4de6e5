//! Metering (DASH reference 2.4): which class a new flow has, and the bytes of every packet of it.
//!
//! The class is what routes, mappings, tunnels and inbound rules set, of that what routes and rules
//! leave; where nothing is left, the ENI's meter policy says. It is kept in the flow, for both
//! directions. Inner frames count as they came from the VM and as they leave for it.

use crate::plan::Shape;

/// The length that counts is not always that of the packet which leaves.
pub(super) fn keeps_len(shape: &Shape) -> bool {
    (shape.flows.meter || shape.bandwidth || shape.packet_rate) && shape.flows.translate
}

/// The length that counts, for what is about to be written.
pub(super) fn len(shape: &Shape) -> &'static str {
    if keeps_len(shape) {
        "meter_len"
    } else {
        "inner_len"
    }
}

/// As received: right for what comes from the VM.
pub(super) const LEN: &str = "    meter_len = inner_len;\n";

/// As it leaves: right for what goes to the VM.
pub(super) const LEN_IN: &str = "    if direction != 1 {
        meter_len = inner_len;
    }
";

/// Counts the packet that is about to be written: nothing drops it any more but a missing neighbour, and
/// `apply` has no use for its inner length afterwards.
pub(super) fn count(shape: &Shape) -> String {
    match shape.flows.meter {
        false => String::new(),
        true => format!("    meter {};\n", len(shape)),
    }
}

pub(super) const ROUTE_VARS: &str = "    var meter_or: u32;
    var meter_and: u32;
    var meter_policy: u32;
";

pub(super) const POLICY_VAR: &str = "    var meter_policy: u32;\n";

/// What a route does to the class.
pub(super) const ROUTE: &str = "                meter_or = r.meter_or;
                meter_and = r.meter_and;
";

/// Bits that a mapping sets: those of its flags above `METER_SHIFT`.
pub(super) const MAPPING: &str = "                meter_or = (meter_or | (m.flags >> 4));\n";

/// Bits that a tunnel sets.
pub(super) const TUNNEL: &str = "            meter_or = (meter_or | w.meter_or);\n";

/// What an inbound rule does to the class.
pub(super) const INBOUND: &str = "meter_class = (r.meter_or & r.meter_and);\n";

/// The ENI's policy for the packet's family.
const POLICY: &str = "        meter_policy = e.meter_v6;
        if (key.flags & 1) == 0 {
            meter_policy = e.meter_v4;
        }
";

/// The policy that may say the class, or no class where nothing meters.
pub(super) fn policy_or_none(shape: &Shape) -> &'static str {
    if shape.meter {
        POLICY
    } else {
        "        meter_class = 0;\n"
    }
}

/// The class of an outbound flow.
pub(super) fn class_of_route() -> String {
    let bits = "    meter_class = (meter_or & meter_and);\n";
    bits.to_owned() + &class_of_policy("key.dip")
}

/// The class by the ENI's policy and an address, where nothing else said one.
pub(super) fn class_of_policy(ip: &str) -> String {
    format!(
        "    if (meter_class == 0 && meter_policy != 0) {{
        if (key.flags & 1) == 0 {{
            match meter_rule[meter_policy, pad16(v4({ip}))] as c {{
                meter_class = c.value;
            }}
        }} else {{
            match meter_rule[meter_policy, {ip}] as c {{
                meter_class = c.value;
            }}
        }}
    }}
"
    )
}
