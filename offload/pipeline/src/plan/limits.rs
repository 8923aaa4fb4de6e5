//! QoS profiles as rows of the ENIs that name them (A27), with the packets a second of their settings.

use std::collections::{BTreeMap, BTreeSet};

use dash_model::Store;
use dash_model::key::{EniKey, ObjectKey};
use dash_model::objects::Qos;
use dash_wire::tables::{QosRow, qos};
use nic_target::Table;

use super::Edit;
use super::ids::Directory;
use super::ops::Ops;

const SECOND_NS: u64 = 1_000_000_000;
/// What an ENI that was quiet may send at once takes this long at its rate,
const BURST_NS: u64 = SECOND_NS / 10;
/// but is never less than this many bytes, or the longest frames would not fit.
const BURST_BYTES: u64 = 16 << 10;
/// Nor less than this many packets, about as many as those bytes are.
const BURST_PACKETS: u64 = 16;
/// Costs end here, so that those of a frame (at most 2^16 bytes) fit 64 bits;
const MAX_COST: u64 = 1 << 47;
/// and here for what comes one by one. No share of one a second reaches it.
const MAX_UNIT_COST: u64 = 1 << 62;

/// Rows of ENIs with limits, as they were written.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    /// By ENI index.
    rows: BTreeMap<u32, QosRow>,
    /// Rows that limit bandwidth.
    bandwidth: usize,
    /// Rows that limit packets.
    packets: usize,
    /// Rows that limit flows.
    admission: usize,
}

fn limits_bandwidth(row: &QosRow) -> bool {
    row.byte_cost != 0
}

fn limits_packets(row: &QosRow) -> bool {
    row.packet_cost != 0
}

fn limits_flows(row: &QosRow) -> bool {
    row.flow_cost != 0 || row.flows != 0
}

impl Limits {
    /// Some ENI has a bandwidth limit.
    pub(super) fn bandwidth(&self) -> bool {
        self.bandwidth > 0
    }

    /// Some ENI has a limit of packets a second.
    pub(super) fn packet_rate(&self) -> bool {
        self.packets > 0
    }

    /// Some ENI may make only so many flows.
    pub(super) fn admission(&self) -> bool {
        self.admission > 0
    }

    /// The row there was, for the one that is from now on.
    fn replace(&mut self, index: u32, row: Option<QosRow>) -> Option<QosRow> {
        let old = match row {
            Some(row) => self.rows.insert(index, row),
            None => self.rows.remove(&index),
        };
        for (of, limits) in [
            (&mut self.bandwidth, limits_bandwidth as fn(&QosRow) -> bool),
            (&mut self.packets, limits_packets),
            (&mut self.admission, limits_flows),
        ] {
            *of += usize::from(row.as_ref().is_some_and(limits));
            *of -= usize::from(old.as_ref().is_some_and(limits));
        }
        old
    }

    /// An ENI is gone; its index may be another's.
    pub(super) fn remove(&mut self, index: u32, ops: &mut Ops) {
        if self.replace(index, None).is_some() {
            ops.delete_index(Table::Qos, index);
        }
    }

    /// Writes the rows that differ, of ENIs that edits are about.
    pub(super) fn update(
        &mut self,
        store: &Store,
        ids: &Directory,
        workers: u16,
        edits: &[Edit<'_>],
        ops: &mut Ops,
    ) {
        let mut touched: BTreeSet<&EniKey> = BTreeSet::new();
        for edit in edits {
            match edit.key {
                ObjectKey::Eni(eni) | ObjectKey::EniSettings(eni) => {
                    touched.insert(eni);
                }
                ObjectKey::Qos(name) => touched.extend(store.enis_of_qos(name)),
                _ => {}
            }
        }
        for key in touched {
            let Some(eni) = store.eni(key) else { continue };
            let profile = eni.qos.as_ref().and_then(|name| store.qos(name));
            let packets = store.eni_settings(key).packets_per_second.unwrap_or(0);
            let row = row(profile.unwrap_or(&Qos::default()), packets, workers);
            let index = ids.eni(key);
            if row == QosRow::default() {
                self.remove(index, ops);
            } else if self.replace(index, Some(row)) != Some(row) {
                ops.put_index(Table::Qos, index, &row);
            }
        }
    }
}

/// A worker's share of a profile and of packets a second: all of them have the same, as flows are spread
/// evenly.
fn row(profile: &Qos, packets_per_second: u32, workers: u16) -> QosRow {
    let workers = u64::from(workers.max(1));
    // In parts of a nanosecond; a kilobit is 125 bytes.
    let cost = |per_second: u64, most: u64| {
        let parts = u128::from(SECOND_NS * workers) << qos::COST_BITS;
        match per_second {
            0 => 0,
            n => u64::try_from(parts / u128::from(n)).map_or(most, |c| c.clamp(1, most)),
        }
    };
    let byte_cost = cost(u64::from(profile.bandwidth_kbps) * 125, MAX_COST);
    let flow_cost = cost(profile.connections_per_second.into(), MAX_UNIT_COST);
    let packet_cost = cost(packets_per_second.into(), MAX_UNIT_COST);
    let time = |n: u64, cost: u64| ((u128::from(n) * u128::from(cost)) >> qos::COST_BITS) as u64;
    QosRow {
        byte_cost,
        byte_burst_ns: match byte_cost {
            0 => 0,
            cost => time(BURST_BYTES, cost).max(BURST_NS),
        },
        flow_cost,
        // A second's worth at once.
        flow_burst_ns: match flow_cost {
            0 => 0,
            cost => SECOND_NS.saturating_sub(time(1, cost)),
        },
        flows: u64::from(profile.flows).div_ceil(workers) as u32,
        pad: 0,
        packet_cost,
        packet_burst_ns: match packet_cost {
            0 => 0,
            // What begins inside it passes: of so many the last begins one earlier.
            cost => time(BURST_PACKETS - 1, cost).max(BURST_NS),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bandwidth_kbps: u32, connections_per_second: u32, flows: u32) -> Qos {
        Qos {
            bandwidth_kbps,
            connections_per_second,
            flows,
        }
    }

    #[test]
    fn costs_are_times_in_parts_and_0_is_no_limit() {
        assert_eq!(row(&of(0, 0, 0), 0, 1), QosRow::default());
        // 8 Mbit/s: a microsecond a byte; 100 ms are 100,000 bytes.
        let mbit8 = row(&of(8_000, 0, 0), 0, 1);
        assert_eq!(mbit8.byte_cost, 1_000 << qos::COST_BITS);
        assert_eq!(mbit8.byte_burst_ns, BURST_NS);
        // 1 kbit/s: 8 ms a byte; the least burst is longer.
        let kbit = row(&of(1, 0, 0), 0, 1);
        assert_eq!(kbit.byte_burst_ns, BURST_BYTES * 8_000_000);
        assert!(kbit.byte_cost.checked_mul(u16::MAX.into()).is_some());
        let two = row(&of(0, 2, 0), 0, 1);
        assert_eq!(two.flow_cost, 500_000_000 << qos::COST_BITS);
        assert_eq!(two.flow_burst_ns, 500_000_000);
    }

    #[test]
    fn packets_have_a_burst_of_some_at_any_rate() {
        let packets = |n, workers| row(&Qos::default(), n, workers);
        assert_eq!(packets(0, 4), QosRow::default());
        let fast = packets(1_000_000, 1);
        assert_eq!(fast.packet_cost, 1_000 << qos::COST_BITS);
        assert_eq!(fast.packet_burst_ns, BURST_NS);
        // 100 ms are ten of them: fifteen that wait, and the one that comes.
        let slow = packets(100, 1);
        assert_eq!(slow.packet_burst_ns, 150_000_000);
        let shared = packets(100, 4);
        assert_eq!(shared.packet_cost, 4 * slow.packet_cost);
        assert_eq!(shared.packet_burst_ns, 4 * slow.packet_burst_ns);
        assert!(packets(u32::MAX, 1).packet_cost > 0);
        // What the program adds up does not overflow.
        let slowest = packets(1, u16::MAX);
        assert!(slowest.packet_cost < MAX_UNIT_COST);
        assert!(slowest.packet_burst_ns < 1 << 60);
    }

    #[test]
    fn workers_have_equal_shares_and_never_none() {
        let shared = row(&of(8_000, 100, 10), 0, 4);
        assert_eq!(shared.byte_cost, 4_000 << qos::COST_BITS);
        assert_eq!(shared.flow_cost, 40_000_000 << qos::COST_BITS);
        assert_eq!(shared.flows, 3);
        let fastest = row(&of(u32::MAX, u32::MAX, u32::MAX), 0, 1);
        assert!(fastest.byte_cost > 0 && fastest.flow_cost > 0);
        let slowest = row(&of(1, 1, 1), 0, u16::MAX);
        assert!(slowest.byte_cost.checked_mul(u16::MAX.into()).is_some());
    }
}
