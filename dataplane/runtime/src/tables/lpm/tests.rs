//! Counts of references: every block is freed once, with its last table, whatever the order.

use dash_bpf::{MapDef, MapKind};
use proptest::prelude::*;

use super::Lpm;
use super::block::in_use;
use super::leaf::Leaf;

/// Bytes of a key after its length.
const DATA: usize = 12;

fn table() -> Lpm {
    Lpm::new(&MapDef {
        name: "test".to_owned(),
        kind: MapKind::LpmTrie,
        key_size: 4 + DATA as u32,
        value_size: 4,
        max_entries: 1 << 16,
        ..MapDef::default()
    })
}

/// What a table that is one of several is asked to do.
#[derive(Clone, Copy, Debug)]
enum Op {
    Put(u32, [u8; DATA], u32),
    Remove(u32, [u8; DATA]),
    /// A clone comes.
    Clone,
    /// It goes.
    Drop,
}

/// Few values of each byte, so that prefixes meet.
fn prefix() -> impl Strategy<Value = (u32, [u8; DATA])> {
    let byte = prop_oneof![4 => 0u8..3, 1 => any::<u8>()];
    (0..=8 * DATA as u32, prop::array::uniform12(byte))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (prefix(), 0u32..5).prop_map(|((bits, data), value)| Op::Put(bits, data, value)),
        4 => prefix().prop_map(|(bits, data)| Op::Remove(bits, data)),
        1 => Just(Op::Clone),
        1 => Just(Op::Drop),
    ]
}

/// Routes that are in the table and go again, so that removals find something.
fn ops() -> impl Strategy<Value = Vec<(usize, Op)>> {
    prop::collection::vec((any::<usize>(), op()), 0..400).prop_flat_map(|ops| {
        let gone: Vec<(usize, Op)> = ops
            .iter()
            .filter_map(|(table, op)| match op {
                Op::Put(bits, data, _) => Some((*table, Op::Remove(*bits, *data))),
                _ => None,
            })
            .collect();
        Just(gone)
            .prop_shuffle()
            .prop_map(move |gone| [ops.clone(), gone].concat())
    })
}

fn key(bits: u32, data: [u8; DATA]) -> Vec<u8> {
    [&bits.to_ne_bytes()[..], &data].concat()
}

proptest! {
    #[test]
    fn blocks_are_freed_once_with_the_last_table_that_uses_them(ops in ops()) {
        let before = in_use::count();
        let mut tables = vec![table()];
        for (which, op) in ops {
            let at = which % tables.len();
            match op {
                Op::Put(bits, data, value) => {
                    let value = value.to_ne_bytes();
                    tables[at].put(&key(bits, data), &value);
                    let path = tables[at].path(&key(bits, data)).expect("not too long");
                    prop_assert_eq!(tables[at].exact(path).map(Leaf::value), Some(&value[..]));
                }
                Op::Remove(bits, data) => {
                    tables[at].remove(&key(bits, data));
                }
                Op::Clone => {
                    let new = tables[at].clone();
                    tables.push(new);
                }
                Op::Drop if tables.len() > 1 => drop(tables.swap_remove(at)),
                Op::Drop => {}
            }
        }
        // Rows that were written lately are kept with the tables, and go with the last.
        let mut last = tables.pop().expect("one at least");
        drop(tables);
        for bits in 0..=8 * DATA as u32 {
            last.remove(&key(bits, [0; DATA]));
        }
        drop(last);
        prop_assert_eq!(in_use::count(), before);
    }
}
