//! Policy's hash and prefix tables against dumb twins, at the sizes where their insides change.

use std::collections::{BTreeMap, HashMap};

use dash_bpf::{MapDef, MapKind};
use dash_runtime::tables::lpm::Lpm;
use dash_runtime::tables::policy_hash::PolicyHash;
use proptest::prelude::*;

fn def(kind: MapKind, key_size: usize, value_size: u32) -> MapDef {
    MapDef {
        name: "test".to_owned(),
        kind,
        key_size: key_size as u32,
        value_size,
        max_entries: 1 << 20,
        flags: 0,
        ..MapDef::default()
    }
}

/// Numbers that look random and are the same every time.
fn stream(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
    }
}

fn hash_key(n: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[16..].copy_from_slice(&n.to_be_bytes());
    key
}

/// Grows through every kind of split (chunks of a piece, pieces of the table) and back; 0 is the key
/// of zeros, which lies elsewhere.
#[test]
fn a_hash_table_is_right_while_it_grows_and_shrinks_by_100_000_rows() {
    let mut map = PolicyHash::new(&def(MapKind::Hash, 20, 12));
    let mut twin = HashMap::new();
    let value = |n: u32, round: u8| [[round; 8].as_slice(), &n.to_ne_bytes()].concat();
    let mut kept = Vec::new();
    let rows = 120_000;
    for n in 0..rows {
        assert!(map.put(&hash_key(n), &value(n, 1)));
        twin.insert(n, value(n, 1));
        if n % 40_000 == 20_000 {
            kept.push((map.clone(), n + 1));
        }
    }
    for n in 0..rows + 1000 {
        map.prefetch(&hash_key(n));
        assert_eq!(map.get(&hash_key(n)), twin.get(&n).cloned(), "{n}");
    }
    let mut next = stream(1);
    for _ in 0..rows {
        let n = (next() % u64::from(rows)) as u32;
        if next().is_multiple_of(8) {
            let new = map.put(&hash_key(n), &value(n, 2));
            assert_eq!(new, twin.insert(n, value(n, 2)).is_none());
        } else {
            assert_eq!(map.remove(&hash_key(n)), twin.remove(&n).is_some(), "{n}");
        }
    }
    assert_eq!(map.len(), twin.len());
    for n in 0..rows {
        assert_eq!(map.get(&hash_key(n)), twin.get(&n).cloned(), "{n}");
    }
    assert_eq!(map.rows().count(), twin.len());
    for (old, rows) in kept {
        assert_eq!(old.len(), rows as usize);
        for n in 0..rows + 1000 {
            let want = (n < rows).then(|| value(n, 1));
            assert_eq!(old.get(&hash_key(n)), want, "{n} of {rows}");
        }
    }
}

/// A prefix of `N` bytes whose bits come from few values, so that prefixes nest and part everywhere.
fn prefix<const N: usize>() -> impl Strategy<Value = (u32, [u8; N])> {
    let whole = N as u32 * 8;
    let bits = prop_oneof![
        4 => 0..=whole,
        2 => (1..=N as u32).prop_map(|bytes| bytes * 8),
        1 => Just(whole),
    ];
    let byte = prop_oneof![8 => Just(0u8), 2 => Just(1), 1 => Just(0x80), 2 => any::<u8>()];
    (bits, prop::collection::vec(byte, N))
        .prop_map(|(bits, bytes)| (bits, bytes.try_into().unwrap()))
}

fn key<const N: usize>((bits, data): (u32, [u8; N])) -> Vec<u8> {
    [bits.to_ne_bytes().as_slice(), &data].concat()
}

fn masked<const N: usize>((bits, mut data): (u32, [u8; N])) -> (u32, [u8; N]) {
    for bit in bits as usize..N * 8 {
        data[bit / 8] &= !(0x80 >> (bit % 8));
    }
    (bits, data)
}

/// Every length from the longest: what longest-prefix match means.
fn longest<const N: usize>(
    rows: &BTreeMap<(u32, [u8; N]), u32>,
    (bits, data): (u32, [u8; N]),
) -> Option<u32> {
    (0..=bits)
        .rev()
        .find_map(|bits| rows.get(&masked((bits, data))).copied())
}

type Changes<const N: usize> = Vec<((u32, [u8; N]), u32, bool)>;

fn changes<const N: usize>() -> impl Strategy<Value = Changes<N>> {
    let change = (prefix::<N>(), 0u32..50, prop::bool::weighted(0.3));
    prop::collection::vec(change, 1..200)
}

fn check<const N: usize>(
    changes: Changes<N>,
    keys: Vec<(u32, [u8; N])>,
) -> Result<(), TestCaseError> {
    let mut lpm = Lpm::new(&def(MapKind::LpmTrie, 4 + N, 4));
    let mut rows = BTreeMap::new();
    let mut kept = Vec::new();
    for (n, (prefix, value, delete)) in changes.into_iter().enumerate() {
        if n % 31 == 0 {
            kept.push((lpm.clone(), rows.clone()));
        }
        // Deletes meet rows often: every second names one that is there.
        let there = rows.keys().nth(n % (rows.len() + 1)).copied();
        if delete {
            let prefix = there.filter(|_| n % 2 == 0).unwrap_or(prefix);
            let gone = rows.remove(&masked(prefix)).is_some();
            prop_assert_eq!(lpm.remove(&key(prefix)), gone);
        } else {
            prop_assert!(lpm.put(&key(prefix), &value.to_ne_bytes()));
            rows.insert(masked(prefix), value);
        }
    }
    kept.push((lpm.clone(), rows.clone()));
    for (lpm, rows) in &kept {
        prop_assert_eq!(lpm.len(), rows.len());
        let whole = N as u32 * 8;
        // Rows' own first and last addresses, whole, and each as the prefix it is.
        let own = rows.keys().flat_map(|&(bits, first)| {
            let mut last = first;
            for bit in bits as usize..N * 8 {
                last[bit / 8] |= 0x80 >> (bit % 8);
            }
            [(whole, first), (whole, last), (bits, first)]
        });
        let asked = keys
            .iter()
            .flat_map(|&(bits, data)| [(bits, data), (whole, data)]);
        for asked in asked.chain(own) {
            let want = longest(rows, asked).map(|v| v.to_ne_bytes().to_vec());
            prop_assert_eq!(lpm.get(&key(asked)), want, "{:?}", asked);
        }
    }
    // Taken out one by one, nothing is left and the clones still are what they were.
    for &prefix in rows.keys() {
        prop_assert!(lpm.remove(&key(prefix)));
        prop_assert_eq!(lpm.get(&key(prefix)), {
            let left: BTreeMap<_, _> = rows
                .range((
                    std::ops::Bound::Excluded(prefix),
                    std::ops::Bound::Unbounded,
                ))
                .map(|(k, v)| (*k, *v))
                .collect();
            longest(&left, prefix).map(|v| v.to_ne_bytes().to_vec())
        });
    }
    prop_assert!(lpm.is_empty());
    for (lpm, rows) in &kept {
        for (prefix, value) in rows {
            prop_assert_eq!(lpm.get(&key(*prefix)), Some(value.to_ne_bytes().to_vec()));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn prefixes_of_8_bytes_as_route4(changes in changes::<8>(), keys in prop::collection::vec(prefix::<8>(), 1..50)) {
        check(changes, keys)?;
    }

    #[test]
    fn prefixes_of_12_bytes_as_inbound(changes in changes::<12>(), keys in prop::collection::vec(prefix::<12>(), 1..50)) {
        check(changes, keys)?;
    }

    #[test]
    fn prefixes_of_20_bytes_as_route6(changes in changes::<20>(), keys in prop::collection::vec(prefix::<20>(), 1..50)) {
        check(changes, keys)?;
    }

    #[test]
    fn prefixes_of_3_bytes(changes in changes::<3>(), keys in prop::collection::vec(prefix::<3>(), 1..50)) {
        check(changes, keys)?;
    }
}

/// Enough routes for nodes with all 256 entries, and short ones over them that come and go.
#[test]
fn a_route_table_of_20_000_is_right_through_changes() {
    let mut lpm = Lpm::new(&def(MapKind::LpmTrie, 12, 4));
    let mut rows = BTreeMap::new();
    let mut next = stream(2);
    let mut random = |bits: &[u32]| {
        let n = next();
        let data = [[0, 0, 0, 1], (n as u32).to_be_bytes()].concat();
        let bits = 32 + bits[(n >> 32) as usize % bits.len()];
        ((bits, data.try_into().unwrap()), n >> 60)
    };
    let lengths: Vec<u32> = [24; 12]
        .into_iter()
        .chain([0, 1, 7, 8, 9, 15, 16, 17, 22, 25, 32])
        .collect();
    for n in 0..20_000u32 {
        let (prefix, _): ((u32, [u8; 8]), _) = random(&lengths);
        assert!(lpm.put(&key(prefix), &n.to_ne_bytes()));
        rows.insert(masked(prefix), n);
    }
    let before = lpm.clone();
    let old = rows.clone();
    for n in 0..4_000u32 {
        // Mostly short prefixes: each reaches into many nodes.
        let (prefix, action) = random(&[0, 1, 3, 8, 10, 12, 16, 20, 24, 32]);
        if action < 6 {
            assert_eq!(
                lpm.remove(&key(prefix)),
                rows.remove(&masked(prefix)).is_some()
            );
        } else {
            assert!(lpm.put(&key(prefix), &n.to_ne_bytes()));
            rows.insert(masked(prefix), n);
        }
    }
    let doomed: Vec<_> = rows.keys().copied().step_by(2).collect();
    for prefix in doomed {
        assert!(lpm.remove(&key(prefix)));
        rows.remove(&prefix);
    }
    for (lpm, rows) in [(&lpm, &rows), (&before, &old)] {
        assert_eq!(lpm.len(), rows.len());
        assert!(lpm.memory() > rows.len() * 16);
        let own: Vec<_> = rows.keys().map(|(_, data)| (64, *data)).collect();
        for asked in own
            .into_iter()
            .chain((0..5_000).map(|_| (64, random(&[32]).0.1)))
        {
            let want = longest(rows, asked).map(|v| v.to_ne_bytes().to_vec());
            assert_eq!(lpm.get(&key(asked)), want, "{asked:?}");
        }
    }
}
