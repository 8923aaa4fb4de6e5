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
    /// Packets from the VM.
    OutboundPackets,
    /// Packets to the VM.
    InboundPackets,
}

/// When the queue of each rate is empty.
#[derive(Debug, Default)]
pub(super) struct Limits(BTreeMap<(u32, Rate), u64>);

impl Limits {
    /// Lets so many units of each rate in at `now_ns`, or says of which there is too much and lets
    /// none in.
    pub(super) fn take(
        &mut self,
        eni: u32,
        wanted: &[(Rate, u64)],
        limits: &QosRow,
        now_ns: u64,
    ) -> Result<(), Rate> {
        if wanted.iter().all(|(rate, _)| of(limits, *rate).0 == 0) {
            return Ok(());
        }
        let mut untils = Vec::with_capacity(wanted.len());
        for &(rate, n) in wanted {
            let until = self.until(eni, rate, n, limits, now_ns).ok_or(rate)?;
            untils.push(((eni, rate), until));
        }
        self.0.extend(untils);
        Ok(())
    }

    /// When the queue of a rate is empty after `n` units more, unless it is too long for them.
    fn until(&self, eni: u32, rate: Rate, n: u64, limits: &QosRow, now_ns: u64) -> Option<u64> {
        let (cost, burst_ns) = of(limits, rate);
        let took = (n * cost) >> qos::COST_BITS;
        // No units come that take longer: 2^16 of them take as many ns as one does parts, and packets
        // come one by one.
        let most = match rate {
            Rate::OutboundPackets | Rate::InboundPackets => took,
            _ => cost,
        };
        let ahead = self.0.get(&(eni, rate)).copied().unwrap_or_default();
        let ahead = ahead.saturating_sub(now_ns);
        match ahead > burst_ns {
            false => Some(now_ns + ahead + took),
            true if ahead <= burst_ns + most => None,
            // It waits for an older limit.
            true => Some(now_ns + took),
        }
    }

    /// Forgets an ENI.
    pub(super) fn forget(&mut self, eni: u32) {
        self.0.retain(|(of, _), _| *of != eni);
    }
}

/// Cost and burst of a rate; a cost of 0 is no limit.
fn of(limits: &QosRow, rate: Rate) -> (u64, u64) {
    match rate {
        Rate::Outbound | Rate::Inbound => (limits.byte_cost, limits.byte_burst_ns),
        Rate::Flows => (limits.flow_cost, limits.flow_burst_ns),
        Rate::OutboundPackets | Rate::InboundPackets => {
            (limits.packet_cost, limits.packet_burst_ns)
        }
    }
}
