//! Rows of the tables that the kernel's stages read, as control wrote them: so that a change that
//! fails half-way can be taken back.

use std::collections::{BTreeMap, HashMap};

use dash_bpf::map::{MapDef, MapKind};
use nic_target::tables::Discipline;
use nic_target::{Capacity, Table, TableDelta, TableOp, TargetError};

use crate::ENGINE;
use crate::front::POLICY;

type Key = Box<[u8]>;
type Value = Box<[u8]>;

/// Rows by table and key.
#[derive(Debug)]
pub(crate) struct Rows {
    capacity: Capacity,
    tables: BTreeMap<Table, HashMap<Key, Value>>,
}

/// Rows of a table that a delta touches: the value, or that it goes.
pub(crate) type Changes = HashMap<Key, Option<Value>>;

/// What a delta comes to.
pub(crate) type Staged = BTreeMap<Table, Changes>;

impl Rows {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            tables: BTreeMap::new(),
        }
    }

    /// Checks what of a delta is the kernel's, changing nothing. The rest is user space's to check.
    pub(crate) fn stage(&self, delta: &TableDelta) -> Result<Staged, TargetError> {
        let mut staged = Staged::new();
        for op in &delta.ops {
            let (table, key, value) = match op {
                TableOp::Put { table, key, value } => (*table, key, Some(value)),
                TableOp::Delete { table, key } => (*table, key, None),
                TableOp::Acl { .. } => continue,
            };
            let def = table.def(&self.capacity);
            if table.discipline() != Discipline::Policy || def.kind == MapKind::Acl {
                return Err(TargetError::NotPolicy { table });
            }
            if !POLICY.contains(&table) {
                continue;
            }
            let size = |part, got, want: u32| match got == want as usize {
                true => Ok(()),
                false => Err(TargetError::RowSize {
                    table,
                    part,
                    got,
                    want: want as usize,
                }),
            };
            size("key", key.len(), def.key_size)?;
            size(
                "value",
                value.map_or(def.value_size as usize, |v| v.len()),
                def.value_size,
            )?;
            let key = canonical(table, &def, key)?;
            staged.entry(table).or_default().insert(key, value.cloned());
        }
        for (&table, changes) in &staged {
            let def = table.def(&self.capacity);
            if def.kind == MapKind::Array {
                continue;
            }
            let old = |key| self.get(table, key).is_some();
            let added = changes
                .iter()
                .filter(|(key, value)| value.is_some() && !old(key))
                .count();
            let gone = changes
                .iter()
                .filter(|(key, value)| value.is_none() && old(key))
                .count();
            if self.len(table) + added - gone > def.max_entries as usize {
                return Err(TargetError::TableFull {
                    table,
                    capacity: def.max_entries,
                });
            }
        }
        Ok(staged)
    }

    /// Makes a checked change.
    pub(crate) fn commit(&mut self, staged: Staged) {
        for (table, changes) in staged {
            let rows = self.tables.entry(table).or_default();
            for (key, value) in changes {
                match value {
                    Some(value) => rows.insert(key, value),
                    None => rows.remove(&key),
                };
            }
        }
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Option<&[u8]> {
        self.tables.get(&table)?.get(key).map(|v| &**v)
    }

    fn len(&self, table: Table) -> usize {
        self.tables.get(&table).map_or(0, HashMap::len)
    }
}

/// The one form of a key: prefixes without host bits, indices in range.
fn canonical(table: Table, def: &MapDef, key: &[u8]) -> Result<Key, TargetError> {
    let word = key.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
    let mut key: Key = key.into();
    match def.kind {
        MapKind::Array if word >= def.max_entries => {
            Err(TargetError::BadIndex { table, index: word })
        }
        MapKind::LpmTrie => {
            let address = key.get_mut(4..).unwrap_or_default();
            if word as usize > address.len() * 8 {
                let reason = format!(
                    "a prefix of {word} bits in table {table:?}, whose keys have {}",
                    address.len() * 8
                );
                return Err(TargetError::Unsupported {
                    engine: ENGINE,
                    reason,
                });
            }
            for (i, byte) in address.iter_mut().enumerate() {
                let kept = (word as usize).saturating_sub(i * 8).min(8);
                *byte &= !(0xffu16 >> kept) as u8;
            }
            Ok(key)
        }
        _ => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    use dash_wire::tables::{EniRow, FlowEntry};

    use super::*;

    const ENI: usize = size_of::<EniRow>();

    fn small() -> Capacity {
        Capacity {
            enis: 2,
            routes: 2,
            mappings: 2,
            flows: 4,
            ..Capacity::default()
        }
    }

    fn put(table: Table, key: &[u8], value: &[u8]) -> TableOp {
        TableOp::Put {
            table,
            key: key.into(),
            value: value.into(),
        }
    }

    fn delete(table: Table, key: &[u8]) -> TableOp {
        TableOp::Delete {
            table,
            key: key.into(),
        }
    }

    fn underlay(len: u32, dst: [u8; 4]) -> Vec<u8> {
        [len.to_ne_bytes(), [0; 4], dst, [0; 4], [0; 4], [0; 4]].concat()
    }

    #[test]
    fn capacity_counts_what_is_left_after_the_whole_delta() {
        let mut rows = Rows::new(small());
        let mac = |n: u8| [n, 0, 0, 0, 0, 0, 0, 0];
        let delta = |ops| TableDelta { ops };
        let two = rows.stage(&delta(vec![
            put(Table::EniMac, &mac(1), &[0; 4]),
            put(Table::EniMac, &mac(2), &[0; 4]),
        ]));
        rows.commit(two.unwrap());
        let third = vec![put(Table::EniMac, &mac(3), &[0; 4])];
        let full = rows.stage(&delta(third.clone()));
        assert!(
            matches!(
                full,
                Err(TargetError::TableFull {
                    table: Table::EniMac,
                    capacity: 2
                })
            ),
            "{full:?}"
        );
        let again = vec![put(Table::EniMac, &mac(2), &[9; 4])];
        assert!(
            rows.stage(&delta(again)).is_ok(),
            "replacing a row needs no room"
        );
        let room = [third, vec![delete(Table::EniMac, &mac(1))]].concat();
        rows.commit(rows.stage(&delta(room)).unwrap());
        assert_eq!(
            (rows.len(Table::EniMac), rows.get(Table::EniMac, &mac(1))),
            (2, None)
        );
    }

    #[test]
    fn a_prefix_is_one_row_whatever_its_host_bits() {
        let mut rows = Rows::new(small());
        let ops = vec![put(
            Table::Underlay,
            &underlay(32 + 12, [10, 0xff, 1, 1]),
            &[1; 24],
        )];
        rows.commit(rows.stage(&TableDelta { ops }).unwrap());
        assert_eq!(
            rows.get(Table::Underlay, &underlay(44, [10, 0xf0, 0, 0])),
            Some(&[1; 24][..])
        );
        let ops = vec![delete(Table::Underlay, &underlay(44, [10, 0xf1, 2, 3]))];
        rows.commit(rows.stage(&TableDelta { ops }).unwrap());
        assert_eq!(rows.len(Table::Underlay), 0);
    }

    #[test]
    fn bad_rows_are_refused_with_their_place() {
        let rows = Rows::new(small());
        let stage = |op| {
            rows.stage(&TableDelta { ops: vec![op] })
                .unwrap_err()
                .to_string()
        };
        assert!(
            stage(put(Table::Eni, &2u32.to_ne_bytes(), &[0; ENI]))
                .contains("row 2 is outside array table Eni")
        );
        assert!(
            stage(put(Table::Eni, &0u32.to_ne_bytes(), &[0; ENI - 1]))
                .contains(&format!("value of {} bytes, not {ENI}", ENI - 1))
        );
        assert!(stage(delete(Table::EniMac, &[0; 7])).contains("key of 7 bytes, not 8"));
        assert!(
            stage(put(
                Table::FlowSlab,
                &0u32.to_ne_bytes(),
                &[0; size_of::<FlowEntry>()]
            ))
            .contains("FlowSlab cannot be written")
        );
        assert!(
            stage(put(Table::Underlay, &underlay(161, [0; 4]), &[0; 24]))
                .contains("a prefix of 161 bits")
        );
    }
}
