//! Counter blocks.

use std::collections::BTreeMap;

use dash_wire::stats::{EniStat, PortStat};
use dash_wire::tables::{MeterBucket, meter};
use nic_target::CounterSnapshot;

/// Counters of every ENI and of the card.
pub(super) struct Counters {
    enis: u32,
    eni: BTreeMap<u32, Vec<u64>>,
    port: Vec<u64>,
    meter: BTreeMap<(u32, u32), MeterBucket>,
}

impl Counters {
    pub(super) fn new(enis: u32) -> Self {
        Self {
            enis,
            eni: BTreeMap::new(),
            port: vec![0; PortStat::COUNT],
            meter: BTreeMap::new(),
        }
    }

    /// Whether an ENI has a block.
    pub(super) fn has_eni(&self, eni: u32) -> bool {
        eni < self.enis
    }

    /// Adds to an ENI's counter; nothing for an ENI without a block.
    pub(super) fn eni(&mut self, eni: u32, stat: EniStat, amount: u64) {
        if !self.has_eni(eni) {
            return;
        }
        let block = self
            .eni
            .entry(eni)
            .or_insert_with(|| vec![0; EniStat::COUNT]);
        if let Some(counter) = block.get_mut(stat as usize) {
            *counter = counter.wrapping_add(amount);
        }
    }

    /// Adds 1 to a counter of the card.
    pub(super) fn port(&mut self, stat: PortStat) {
        self.port_by(stat, 1);
    }

    /// Adds to a counter of the card.
    pub(super) fn port_by(&mut self, stat: PortStat, amount: u64) {
        if let Some(counter) = self.port.get_mut(stat as usize) {
            *counter = counter.wrapping_add(amount);
        }
    }

    /// Adds to the bucket of an ENI and a class; `None` when there is none.
    pub(super) fn meter(&mut self, bucket: (u32, u32), inbound: bool, len: u64) -> Option<()> {
        let (eni, class) = bucket;
        if !self.has_eni(eni) || class > meter::MAX_CLASS {
            return None;
        }
        let bucket = self.meter.entry(bucket).or_default();
        let bytes = if inbound {
            &mut bucket.inbound
        } else {
            &mut bucket.outbound
        };
        *bytes = bytes.wrapping_add(len);
        Some(())
    }

    pub(super) fn snapshot(&self) -> CounterSnapshot {
        let counted = self
            .eni
            .iter()
            .filter(|(_, block)| block.iter().any(|n| *n != 0));
        CounterSnapshot {
            eni: counted.map(|(eni, block)| (*eni, block.clone())).collect(),
            port: self.port.clone(),
            meter: self.meter.clone(),
        }
    }
}
