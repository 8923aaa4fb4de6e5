//! What ENIs sent and made lately, for their limits (DASH reference 2.2 S4, A27).
//!
//! A rate is a queue that is served without a pause: each thing that is let in waits behind the others
//! for as long as it costs. It is let in while the queue is no longer than the burst.

use std::collections::BTreeMap;

use dash_wire::tables::{QosRow, qos};

/// A rate of an ENI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rate {
    /// Bytes from the VM.
    Outbound,
    /// Bytes to the VM.
    Inbound,
    /// New flows.
    Flows,
}

/// When the queue of each rate is empty.
#[derive(Debug, Default)]
pub(super) struct Limits(BTreeMap<(u32, Rate), u64>);

impl Limits {
    /// Lets `n` units in at `now_ns`, or not.
    pub(super) fn take(
        &mut self,
        eni: u32,
        rate: Rate,
        n: u64,
        limits: &QosRow,
        now_ns: u64,
    ) -> bool {
        let (cost, burst_ns) = match rate {
            Rate::Outbound | Rate::Inbound => (limits.byte_cost, limits.byte_burst_ns),
            Rate::Flows => (limits.flow_cost, limits.flow_burst_ns),
        };
        if cost == 0 {
            return true;
        }
        let until = self.0.entry((eni, rate)).or_default();
        let mut from = now_ns.max(*until);
        if from - now_ns > burst_ns {
            // 2^16 units cost this many ns, and none comes with more: it waits for an older limit.
            if from - now_ns <= burst_ns + cost {
                return false;
            }
            from = now_ns;
        }
        *until = from + ((n * cost) >> qos::COST_BITS);
        true
    }

    /// Forgets an ENI.
    pub(super) fn forget(&mut self, eni: u32) {
        self.0.retain(|(of, _), _| *of != eni);
    }
}
