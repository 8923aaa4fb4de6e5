//! Redirects of load balancers (DASH reference 4.9): seen before the ENI is looked up, read in place of
//! the inner packet, done where a flow would be looked up, and never forwarded.
//!
//! Everything but an unknown ENI is counted and dropped in a stage of its own behind the flow
//! look-up, so that a processor which runs only the stages before leaves redirects whole.

use super::{meter, part};
use crate::plan::Shape;

/// After the encap is parsed.
pub(super) const SPOT: &str = "        spot redirect;\n";

/// No ENI has the MAC.
pub(super) const ENI_MISS: &str = "\
        if redirect != 0 {
            count port LB_FAST_PATH_ICMP_IN_PACKETS 1;
            count port LB_FAST_PATH_ICMP_IN_BYTES frame_len;
            count port PORT_LB_FAST_PATH_ICMP_IN_PACKETS 1;
            count port PORT_LB_FAST_PATH_ICMP_IN_BYTES frame_len;
            count port LB_FAST_PATH_ENI_MISS_PACKETS 1;
            count port LB_FAST_PATH_ENI_MISS_BYTES frame_len;
            count port PORT_LB_FAST_PATH_ENI_MISS_DROP_BYTES frame_len;
            drop fast-path-eni-miss;
        }
";

/// In place of the inner packet.
pub(super) fn parse(shape: &Shape) -> String {
    let len = part(meter::keeps_len(shape), "        meter_len = inner_len;\n");
    format!("    if redirect != 0 {{\n        parse redirect;\n{len}        goto flow;\n    }}\n")
}

/// In front of the flow look-up.
pub(super) const GOTO: &str = "    if redirect != 0 {\n        goto redirect;\n    }\n";

/// The stage. The ENI's state is looked at here, as what comes before only passes redirects on.
pub(super) const TEXT: &str = "\
# A load balancer's redirect: it changes one side of a flow and ends here.
stage redirect {
    account;
    count port LB_FAST_PATH_ICMP_IN_PACKETS 1;
    count port LB_FAST_PATH_ICMP_IN_BYTES frame_len;
    count port PORT_LB_FAST_PATH_ICMP_IN_PACKETS 1;
    count port PORT_LB_FAST_PATH_ICMP_IN_BYTES frame_len;
    count LB_FAST_PATH_ICMP_IN_PACKETS 1;
    count LB_FAST_PATH_ICMP_IN_BYTES frame_len;
    match eni[eni] as e {
        if (e.flags & 1) == 0 {
            drop eni-down;
        }
        if (e.flags & 16) != 0 {
            drop fast-path-off;
        }
    } else {
        drop eni-down;
    }
    match trusted_vni[be16(0xffff), be24(vni)] as t {
    } else {
        match trusted_vni[be16(eni), be24(vni)] as u {
        } else {
            drop trusted-vni-miss;
        }
    }
    flow redirect;
    consume;
}

";
