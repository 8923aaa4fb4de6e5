use std::collections::HashMap;
use std::ptr::NonNull;

use dash_wire::tables::{FlowEntry, FlowKey};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::{Ahead, FlowIndex, Slab};
use crate::tables::memory::Mapping;
use crate::tables::mirror::SlabMemory as _;
use crate::tables::{MapOps, errno};

/// An index and the slab it reads keys in.
struct Table {
    index: FlowIndex,
    slab: Mapping,
}

impl Table {
    fn new(slots: u32, most_groups: usize, hash_mask: u64) -> Self {
        let slab = Mapping::new("a test's slab", slots as usize * size_of::<FlowEntry>()).unwrap();
        // SAFETY: mapped for as many entries, and dropped after the index (order of fields).
        let entries = unsafe { Slab::new(slab.base(), slots) };
        let index = FlowIndex::build(entries, slots as usize * 2, most_groups, hash_mask).unwrap();
        Self { index, slab }
    }

    fn entry(&self, slot: u32) -> NonNull<FlowEntry> {
        // SAFETY: callers name slots of the slab.
        unsafe { self.slab.base().cast::<FlowEntry>().add(slot as usize) }
    }

    /// Writes the key where the index will read it, as programs do.
    fn write(&mut self, row: u32, key: &FlowKey) {
        // SAFETY: an entry of the slab, which nobody else uses meanwhile.
        unsafe { self.entry(row >> 1).as_mut().sides[(row & 1) as usize].key = *key };
    }

    fn update(&self, key: &FlowKey, row: u32, flags: u64) -> i64 {
        // SAFETY: a key and a row.
        unsafe {
            self.index
                .update(key.as_bytes().as_ptr(), row.to_ne_bytes().as_ptr(), flags)
        }
    }

    fn lookup(&self, key: &FlowKey) -> Option<u32> {
        // SAFETY: a key; a row when there is one.
        unsafe {
            let row = self.index.lookup(key.as_bytes().as_ptr());
            (!row.is_null()).then(|| row.cast::<u32>().read())
        }
    }

    fn start(&self, key: &FlowKey) -> Ahead {
        let mut ahead = self.index.prefetch_bucket(self.index.hash(key));
        self.index.prefetch_entry(&mut ahead);
        ahead
    }

    fn end(&self, key: &FlowKey, ahead: &Ahead) -> Option<u32> {
        let row = self.index.find_ahead(key, ahead);
        // SAFETY: a row when there is one.
        (!row.is_null()).then(|| unsafe { row.read() })
    }

    fn delete(&self, key: &FlowKey) -> i64 {
        // SAFETY: a key.
        unsafe { self.index.delete(key.as_bytes().as_ptr()) }
    }
}

fn key(n: u32) -> FlowKey {
    let mut key = FlowKey {
        proto: 17,
        ..FlowKey::default()
    };
    key.sip[12..].copy_from_slice(&n.to_be_bytes());
    key
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u32, u64),
    Delete(u32),
    /// By the row the key has, or one that is free.
    DeleteRow(u32),
    Look(u32),
    /// Starts a look-up that ends only some steps later.
    Start(u32),
}

fn step(keys: u32) -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..keys, 0u64..4).prop_map(|(n, flags)| Step::Insert(n, flags)),
        1 => (0..keys).prop_map(Step::Delete),
        1 => (0..keys).prop_map(Step::DeleteRow),
        1 => (0..keys).prop_map(Step::Look),
        1 => (0..keys).prop_map(Step::Start),
    ]
}

/// Hashes that keep all bits, few, or none: all keys in the same two buckets with one tag.
fn masks() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => Just(u64::MAX),
        1 => Just(0xff),
        1 => Just(0x0003_0000_0000_0303),
        1 => Just(0),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn it_is_a_map_with_linux_errors_while_it_grows(
        slots in 1u32..300,
        most_groups in 1usize..4,
        mask in masks(),
        steps in prop::collection::vec(step(700), 1..1500),
    ) {
        let mut table = Table::new(slots, most_groups, mask);
        let mut free: Vec<u32> = (0..slots * 2).rev().collect();
        let mut twin: HashMap<u32, u32> = HashMap::new();
        let mut started: Vec<(u32, Ahead)> = Vec::new();
        for step in steps {
            match step {
                Step::Insert(n, flags) => {
                    let old = twin.get(&n).copied();
                    // A present key is given the row it has: there is one place for its bytes.
                    let Some(row) = old.or(free.last().copied()) else {
                        prop_assert_eq!(table.update(&key(n), 0, 0), errno::E2BIG);
                        continue;
                    };
                    if old.is_none() {
                        table.write(row, &key(n));
                    }
                    let want = match flags {
                        3 => errno::EINVAL,
                        1 if old.is_some() => errno::EEXIST,
                        2 if old.is_none() => errno::ENOENT,
                        _ => 0,
                    };
                    prop_assert_eq!(table.update(&key(n), row, flags), want);
                    if want == 0 && old.is_none() {
                        free.pop();
                        twin.insert(n, row);
                    }
                }
                Step::Delete(n) => {
                    let gone = twin.remove(&n);
                    prop_assert_eq!(table.delete(&key(n)), if gone.is_some() { 0 } else { errno::ENOENT });
                    free.extend(gone);
                }
                Step::DeleteRow(n) => {
                    let gone = twin.remove(&n);
                    let Some(row) = gone.or(free.last().copied()) else {
                        continue;
                    };
                    prop_assert_eq!(table.index.remove_row(row), gone.is_some());
                    prop_assert!(!table.index.remove_row(row), "it is out");
                    free.extend(gone);
                }
                Step::Look(n) => prop_assert_eq!(table.lookup(&key(n)), twin.get(&n).copied()),
                Step::Start(n) => {
                    let new = table.start(&key(n));
                    prop_assert_eq!(table.end(&key(n), &new), twin.get(&n).copied());
                    started.push((n, new));
                }
            }
            // All of them after each step, whatever came or went since.
            for (n, ahead) in &started {
                prop_assert_eq!(table.end(&key(*n), ahead), twin.get(n).copied());
            }
            if started.len() > 8 {
                started.clear();
            }
            prop_assert_eq!(table.index.len(), twin.len());
        }
        for n in 0..700 {
            prop_assert_eq!(table.lookup(&key(n)), twin.get(&n).copied());
            prop_assert_eq!(table.index.get(&key(n)), twin.get(&n).copied());
        }
        // A table of a few buckets may draw a hash that fills both of a key; a large one does not
        // (`a_full_table_finds_every_flow_and_takes_no_more_memory_than_it_said`).
        if mask == u64::MAX && slots > 20 {
            let (aside, all) = (table.index.aside(), table.index.len());
            prop_assert!(aside * 10 <= all, "{aside} of {all} rows are in no bucket");
        }
    }
}

#[test]
fn a_full_table_finds_every_flow_and_takes_no_more_memory_than_it_said() {
    const SLOTS: u32 = 200_000;
    let mut table = Table::new(SLOTS, 512, u64::MAX);
    let before = table.index.touched();
    for row in 0..SLOTS * 2 {
        table.write(row, &key(row));
        assert_eq!(table.update(&key(row), row, 1), 0, "row {row}");
    }
    for row in 0..SLOTS * 2 {
        assert_eq!(table.lookup(&key(row)), Some(row));
    }
    assert_eq!(table.update(&key(SLOTS * 2), 0, 1), errno::E2BIG);
    assert_eq!(table.lookup(&key(SLOTS * 2)), None);
    assert_eq!(table.index.aside(), 0, "every key is in a bucket");
    assert!(before <= 512 * 64, "{before} bytes at the start");
    let touched = table.index.touched();
    assert!(touched <= SLOTS as usize * 13, "{touched} bytes");
    // Emptied and filled for years: no trace is left.
    for row in 0..SLOTS * 2 {
        assert_eq!(table.delete(&key(row)), 0);
    }
    assert!(table.index.is_empty());
    assert!((0..SLOTS * 2).all(|row| table.lookup(&key(row)).is_none()));
    for row in 0..SLOTS * 2 {
        table.write(row, &key(row + 7));
        assert_eq!(table.update(&key(row + 7), row, 1), 0);
    }
    assert_eq!((table.index.touched(), table.index.aside()), (touched, 0));
}

#[test]
fn a_row_whose_entry_does_not_hold_the_key_is_refused() {
    let mut table = Table::new(4, 512, u64::MAX);
    table.write(2, &key(1));
    assert_eq!(table.update(&key(1), 3, 0), errno::EINVAL);
    assert_eq!(table.update(&key(1), 8, 0), errno::EINVAL);
    assert_eq!(table.update(&key(1), u32::MAX, 0), errno::EINVAL);
    assert_eq!(table.lookup(&key(1)), None);
    assert_eq!(table.update(&key(1), 2, 0), 0);
    assert_eq!(table.lookup(&key(1)), Some(2));
}

#[test]
fn keys_that_share_all_of_their_hash_are_all_held() {
    let mut table = Table::new(500, 2, 0);
    for row in 0..1000 {
        table.write(row, &key(row));
        assert_eq!(table.update(&key(row), row, 1), 0);
    }
    assert!(table.index.aside() > 900, "{}", table.index.aside());
    assert!((0..1000).all(|row| table.lookup(&key(row)) == Some(row)));
    assert!((0..1000).all(|row| table.delete(&key(row)) == 0));
    assert_eq!((table.index.len(), table.index.aside()), (0, 0));
}

#[test]
fn a_look_up_that_another_index_began_ends_where_it_ends() {
    // The large one's buckets are beyond the small one's.
    let (mut large, mut small) = (Table::new(4096, 64, u64::MAX), Table::new(8, 1, u64::MAX));
    for row in 0..4096u32 {
        large.write(row, &key(row));
        assert_eq!(large.update(&key(row), row, 0), 0);
    }
    for row in 0..8u32 {
        small.write(row, &key(row));
        assert_eq!(small.update(&key(row), row, 0), 0);
    }
    // So that counts of changes do not tell them apart.
    small.index.changes.set(large.index.changes.get());
    for n in 0..4096 {
        let ahead = large.start(&key(n));
        assert_eq!(small.end(&key(n), &ahead), small.lookup(&key(n)));
        let mut ahead = large.index.prefetch_bucket(large.index.hash(&key(n)));
        small.index.prefetch_entry(&mut ahead);
        assert_eq!(small.end(&key(n), &ahead), small.lookup(&key(n)));
    }
}
