//! CA-to-PA mappings of 1,000 VNETs.

use std::collections::HashMap;

use dash_runtime::tables::policy_hash::PolicyHash;
use dash_wire::tables::{MappingKey, MappingRow};
use nic_target::{Capacity, Table as Which};
use zerocopy::IntoBytes;

use crate::{Pace, Table, Way, mix};

/// Packets that are looked up together.
const BURST: usize = 32;

/// Some mappings.
#[derive(Clone, Debug)]
pub struct Mappings {
    table: Table<PolicyHash, MappingKey>,
    rows: u64,
}

fn key(n: u64) -> MappingKey {
    let mut ip = [0; 16];
    ip[12..].copy_from_slice(&(mix(n) as u32).to_be_bytes());
    MappingKey {
        vnet: (n % 1000) as u16 + 1,
        ip,
        ..MappingKey::default()
    }
}

impl Mappings {
    /// Makes so many, one by one.
    pub fn new(rows: u64) -> Self {
        let def = Which::Mapping.def(&Capacity::default());
        let mut map = PolicyHash::new(&def);
        for n in 0..rows {
            map.put(key(n).as_bytes(), MappingRow::default().as_bytes());
        }
        Self {
            table: Table::new(map, def.key_size),
            rows,
        }
    }

    /// Memory of a mapping, bytes, everything counted.
    pub fn bytes_each(&self) -> f64 {
        self.table.map.memory() as f64 / self.table.map.len() as f64
    }

    /// Keys of so many mappings in no order.
    pub fn hits(&self, many: usize) -> Vec<MappingKey> {
        let keys = (0..many as u64).map(|n| key(mix(n) % self.rows));
        keys.collect()
    }

    /// Keys of so many addresses that are not mapped.
    pub fn misses(&self, many: usize) -> Vec<MappingKey> {
        let keys = (0..many as u64).map(|n| key(self.rows + n));
        keys.collect()
    }

    /// The same mappings in `std`'s hash table.
    pub fn twin(&self) -> HashMap<MappingKey, MappingRow> {
        let rows = (0..self.rows).map(|n| (key(n), MappingRow::default()));
        rows.collect()
    }

    /// Ways to look `keys` up.
    pub fn ways<'a>(
        &'a self,
        keys: &'a [MappingKey],
        twin: &'a HashMap<MappingKey, MappingRow>,
    ) -> Vec<Way<'a>> {
        let table = &self.table;
        vec![
            Way::new("ours, back to back", || table.find(keys, Pace::BackToBack)),
            Way::new("ours, one by one", || table.find(keys, Pace::OneByOne)),
            Way::new("ours, bursts of 32 asked for ahead", || {
                let bursts = keys.chunks(BURST).map(|burst| {
                    burst
                        .iter()
                        .for_each(|key| table.map.prefetch(key.as_bytes()));
                    table.find(burst, Pace::BackToBack)
                });
                bursts.sum()
            }),
            Way::new("std::HashMap, back to back", || {
                keys.iter().filter(|key| twin.contains_key(*key)).count()
            }),
        ]
    }

    /// The table after one mapping has changed, as a transaction makes it.
    pub fn change(&self, n: u64) -> Self {
        let mut next = self.clone();
        let row = MappingRow {
            flags: 1 + n as u16,
            ..MappingRow::default()
        };
        let key = key(mix(n) % self.rows);
        next.table.map.put(key.as_bytes(), row.as_bytes());
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_find_the_same() {
        let mappings = Mappings::new(5_000);
        let twin = mappings.twin();
        for (keys, found) in [(mappings.hits(1_000), 1_000), (mappings.misses(1_000), 0)] {
            for way in mappings.ways(&keys, &twin) {
                assert_eq!(way.run(), found, "{way:?}");
            }
        }
        assert!(mappings.bytes_each() >= 32.0);
        let changed = mappings.change(3);
        let keys = changed.hits(1_000);
        assert_eq!(changed.table.find(&keys, Pace::OneByOne), 1_000);
    }
}
