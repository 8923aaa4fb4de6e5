//! Limits of ENIs (DASH reference A27): new flows before they are made, bytes and packets before they leave.

use super::meter;
use crate::plan::Shape;

/// Before a flow is made. One that is only decided again was let in when it was made.
pub(super) fn admission(shape: &Shape) -> &'static str {
    match (shape.admission, shape.flows.epoch) {
        (false, _) => "",
        (true, false) => "        admit;\n",
        (true, true) => "        if renew == 0 {\n            admit;\n        }\n",
    }
}

/// Before a packet is written: of what comes behind, only a missing neighbour drops it.
pub(super) fn police(shape: &Shape) -> String {
    let len = meter::len(shape);
    match (shape.packet_rate, shape.bandwidth) {
        (true, _) => format!("    police {len} packets;\n"),
        (false, true) => format!("    police {len};\n"),
        (false, false) => String::new(),
    }
}
