//! Every table against a dumb twin.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use dash_bpf::{MapDef, MapKind};
use dash_runtime::tables::acl::Acl;
use dash_runtime::tables::acl::classifier::Classifier;
use dash_runtime::tables::acl::linear;
use dash_runtime::tables::array::{Array, PolicyArray};
use dash_runtime::tables::lpm::Lpm;
use dash_runtime::tables::policy::{PolicyMap, PolicyTables};
use dash_runtime::tables::policy_hash::PolicyHash;
use dash_runtime::tables::ring::Ring;
use dash_runtime::tables::{MapOps, errno};
use dash_wire::tables::{AclKey, EniRow};
use nic_target::{AclPrefix, AclPrefixes, AclRuleRow, Capacity, Table, TableDelta, TableOp};
use proptest::prelude::*;
use zerocopy::IntoBytes as _;

fn def(kind: MapKind, key_size: u32, value_size: u32, max_entries: u32) -> MapDef {
    MapDef {
        name: "test".to_owned(),
        kind,
        key_size,
        value_size,
        max_entries,
        flags: 0,
        ..MapDef::default()
    }
}

/// A change of a hash table. Keys are few, so that they meet again.
#[derive(Clone, Debug)]
enum Change {
    Update(u16, u32),
    Delete(u16),
    Look(u16),
}

fn change() -> impl Strategy<Value = Change> {
    let key = 0u16..400;
    prop_oneof![
        3 => (key.clone(), any::<u32>()).prop_map(|(k, v)| Change::Update(k, v)),
        2 => key.clone().prop_map(Change::Delete),
        1 => key.prop_map(Change::Look),
    ]
}

/// A key of `N` bytes that differs from the others in the middle.
fn wide<const N: usize>(key: u16) -> [u8; N] {
    let mut bytes = [0x5a; N];
    bytes[N / 2..N / 2 + 2].copy_from_slice(&key.to_le_bytes());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn policy_hash_is_a_map_and_its_clones_stay(changes in prop::collection::vec(change(), 1..1500), capacity in 1u32..5000) {
        let mut map = PolicyHash::new(&def(MapKind::Hash, 20, 12, capacity));
        let mut twin = BTreeMap::new();
        let mut kept = Vec::new();
        let row = |v: u32| [v.to_ne_bytes(), [7; 4], v.to_be_bytes()].concat();
        for (n, change) in changes.into_iter().enumerate() {
            match change {
                Change::Update(k, v) => {
                    let new = map.put(&wide::<20>(k), &row(v));
                    prop_assert_eq!(new, twin.insert(k, v).is_none());
                }
                Change::Delete(k) => prop_assert_eq!(map.remove(&wide::<20>(k)), twin.remove(&k).is_some()),
                Change::Look(k) => prop_assert_eq!(map.get(&wide::<20>(k)), twin.get(&k).map(|&v| row(v))),
            }
            if n % 97 == 0 {
                kept.push((map.clone(), twin.clone()));
            }
        }
        kept.push((map, twin));
        for (map, twin) in kept {
            prop_assert_eq!(map.len(), twin.len());
            for k in 0..400 {
                prop_assert_eq!(map.get(&wide::<20>(k)), twin.get(&k).map(|&v| row(v)));
            }
            let rows: BTreeMap<_, _> = map.rows().collect();
            let want: BTreeMap<_, _> = twin.iter().map(|(&k, &v)| (wide::<20>(k).to_vec(), row(v))).collect();
            prop_assert_eq!(rows, want);
        }
    }
}

#[test]
fn arrays_start_with_what_their_definition_says() {
    let def = MapDef {
        contents: vec![1, 2, 3, 4, 5, 6],
        ..def(MapKind::Array, 4, 6, 2)
    };
    let (array, policy) = (Array::new(&def), PolicyArray::new(&def));
    for array in [&array, policy.array()] {
        let mut value = [0xff; 6];
        assert!(array.read(0, &mut value));
        assert_eq!(value, [1, 2, 3, 4, 5, 6]);
        assert!(array.read(1, &mut value));
        assert_eq!(value, [0; 6]);
    }
}

#[test]
fn eight_million_mappings_would_take_less_than_64_bytes_each() {
    // The same load of a shard as 8M rows in a table for 8M: 256 rows a shard.
    let rows = 128 << 10;
    let mut map = PolicyHash::new(&def(MapKind::Hash, 20, 12, rows));
    for row in 0..rows {
        let mut key = [0; 20];
        key[16..].copy_from_slice(&row.to_be_bytes());
        map.put(&key, &[1; 12]);
    }
    let each = map.memory() as f64 / f64::from(rows);
    assert!(each <= 64.0, "{each} bytes a mapping");
}

/// Prefixes over 8 bytes of which few bits vary, so that prefixes nest and keys nearly match.
fn prefix() -> impl Strategy<Value = (u32, [u8; 8])> {
    let bits = prop_oneof![Just(0u32), 0u32..=64, 24u32..40, Just(64u32)];
    (bits, any::<u8>(), any::<u8>(), any::<u8>())
        .prop_map(|(bits, a, b, c)| (bits, [0, 0, 1, a & 3, b & 7, b >> 6, 0, c & 3]))
}

fn lpm_key((bits, data): (u32, [u8; 8])) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&bits.to_ne_bytes());
    key[4..].copy_from_slice(&data);
    key
}

fn masked((bits, data): (u32, [u8; 8])) -> (u32, u64) {
    let mask = u64::MAX.checked_shl(64 - bits).unwrap_or(0);
    (bits, u64::from_be_bytes(data) & mask)
}

/// Linux's answer: the longest prefix, not longer than the key's, whose bits match.
fn linear_lpm(rows: &BTreeMap<(u32, u64), u32>, key: (u32, [u8; 8])) -> Option<u32> {
    let matching = rows
        .iter()
        .filter(|((bits, data), _)| *bits <= key.0 && masked((*bits, key.1)).1 == *data);
    matching
        .max_by_key(|((bits, _), _)| *bits)
        .map(|(_, value)| *value)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn lpm_finds_the_longest_prefix(
        changes in prop::collection::vec((prefix(), any::<u32>(), prop::bool::weighted(0.25)), 1..300),
        keys in prop::collection::vec(prefix(), 1..100),
    ) {
        let mut lpm = Lpm::new(&def(MapKind::LpmTrie, 12, 4, 1024));
        let mut rows = BTreeMap::new();
        let mut kept = Vec::new();
        for (n, (prefix, value, delete)) in changes.into_iter().enumerate() {
            if delete {
                prop_assert_eq!(lpm.remove(&lpm_key(prefix)), rows.remove(&masked(prefix)).is_some());
            } else {
                prop_assert!(lpm.put(&lpm_key(prefix), &value.to_ne_bytes()));
                rows.insert(masked(prefix), value);
            }
            if n == 50 {
                kept.push((lpm.clone(), rows.clone()));
            }
        }
        kept.push((lpm, rows));
        for (lpm, rows) in &kept {
            prop_assert_eq!(lpm.len(), rows.len());
            // The keys of rows themselves, whole, are the nearest there are.
            let own = rows.keys().map(|(_, data)| (64, data.to_be_bytes()));
            for key in keys.iter().copied().chain(own) {
                let want = linear_lpm(rows, key).map(|v| v.to_ne_bytes().to_vec());
                prop_assert_eq!(lpm.get(&lpm_key(key)), want, "{:?}", key);
            }
        }
    }

    #[test]
    fn rings_are_a_queue_and_a_stack(changes in prop::collection::vec((any::<bool>(), any::<u32>(), prop::bool::weighted(0.2)), 1..200), capacity in 0u32..8) {
        let queue = Ring::queue(&def(MapKind::Queue, 0, 4, capacity));
        let stack = Ring::stack(&def(MapKind::Stack, 0, 4, capacity));
        let (mut fifo, mut lifo) = (VecDeque::new(), VecDeque::new());
        for (push, value, replace) in changes {
            if push {
                let flags = if replace { 2 } else { 0 };
                for (ring, twin) in [(&queue, &mut fifo), (&stack, &mut lifo)] {
                    // SAFETY: 4 bytes, the rings' value size.
                    let got = unsafe { ring.push(value.to_ne_bytes().as_ptr(), flags) };
                    let full = twin.len() == capacity as usize;
                    let want = if full && (!replace || capacity == 0) { errno::E2BIG } else { 0 };
                    prop_assert_eq!(got, want);
                    if got == 0 {
                        if full { twin.pop_front(); }
                        twin.push_back(value);
                    }
                }
            } else {
                let mut out = [9; 4];
                // SAFETY: 4 bytes, the rings' value size.
                let peeked = unsafe { queue.peek(out.as_mut_ptr()) };
                prop_assert_eq!(peeked, if fifo.is_empty() { errno::ENOENT } else { 0 });
                prop_assert_eq!(u32::from_ne_bytes(out), fifo.front().copied().unwrap_or(0));
                prop_assert_eq!(queue.pop_u32(), fifo.pop_front());
                prop_assert_eq!(stack.pop_u32(), lifo.pop_back());
            }
            prop_assert_eq!((queue.len(), stack.len()), (fifo.len(), lifo.len()));
        }
    }
}

fn v4(a: [u8; 4]) -> [u8; 16] {
    let mut addr = [0; 16];
    addr[12..].copy_from_slice(&a);
    addr
}

/// Prefixes of both families in a small world.
fn acl_prefix() -> impl Strategy<Value = AclPrefix> {
    let v4_prefix =
        (0u8..=32, 0u8..4, 0u8..8).prop_map(|(len, c, d)| (v4([10, 0, c, d]), 96 + len));
    let v6_prefix = (0u8..=128, 0u8..4).prop_map(|(len, last)| {
        let mut addr = [0; 16];
        (addr[0], addr[1], addr[7], addr[15]) = (0x20, 1, last, last);
        (addr, len)
    });
    prop_oneof![3 => v4_prefix, 1 => v6_prefix].prop_map(|(addr, len)| {
        let host = u128::MAX.checked_shr(u32::from(len)).unwrap_or(0);
        AclPrefix {
            addr: (u128::from_be_bytes(addr) & !host).to_be_bytes(),
            len,
        }
    })
}

fn list<T: std::fmt::Debug + Clone>(
    item: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<Box<[T]>>> {
    let some = prop::collection::vec(item, 0..4).prop_map(|v| Some(v.into_boxed_slice()));
    prop_oneof![1 => Just(None), 2 => some]
}

fn acl_prefixes() -> impl Strategy<Value = Option<AclPrefixes>> {
    let lists = prop::collection::vec(prop::collection::vec(acl_prefix(), 0..4), 0..3);
    let some = lists.prop_map(|lists| Some(lists.into_iter().map(Arc::from).collect()));
    prop_oneof![1 => Just(None), 2 => some]
}

fn port_range() -> impl Strategy<Value = (u16, u16)> {
    let ends = prop_oneof![0u16..12, 65_530u16..=65_535];
    (ends, 0u16..4).prop_map(|(low, more)| (low, low.saturating_add(more)))
}

fn rule() -> impl Strategy<Value = AclRuleRow> {
    let protocols = list(prop_oneof![
        Just(6u8),
        Just(17),
        Just(1),
        Just(0),
        Just(255)
    ]);
    (
        any::<u32>(),
        protocols,
        acl_prefixes(),
        acl_prefixes(),
        list(port_range()),
        list(port_range()),
    )
        .prop_map(
            |(action, protocols, src, dst, src_ports, dst_ports)| AclRuleRow {
                action,
                protocols,
                src,
                dst,
                src_ports,
                dst_ports,
            },
        )
}

/// A key inside the rule, or beside one of its borders: `nudge` picks the field that is moved by
/// one past what the rule accepts.
fn near(rule: &AclRuleRow, nudge: usize, pick: usize) -> AclKey {
    let addr = |list: &Option<AclPrefixes>, nudged: bool| -> [u8; 16] {
        let Some(p) = list.as_ref().and_then(|l| l.iter().cycle().nth(pick)) else {
            return v4([10, 0, 1, 1]);
        };
        let host = u128::MAX.checked_shr(u32::from(p.len)).unwrap_or(0);
        let first = u128::from_be_bytes(p.addr);
        let at = match (nudged, pick % 2) {
            (false, 0) => first,
            (false, _) => first | host,
            (true, 0) => first.wrapping_sub(1),
            (true, _) => (first | host).wrapping_add(1),
        };
        at.to_be_bytes()
    };
    let port = |list: &Option<Box<[(u16, u16)]>>, nudged: bool| -> [u8; 2] {
        let Some(&(low, high)) = list.as_ref().and_then(|l| l.get(pick % l.len().max(1))) else {
            return [0, 80];
        };
        let at = match (nudged, pick % 2) {
            (false, 0) => low,
            (false, _) => high,
            (true, 0) => low.wrapping_sub(1),
            (true, _) => high.wrapping_add(1),
        };
        at.to_be_bytes()
    };
    let proto = rule
        .protocols
        .as_ref()
        .and_then(|l| l.get(pick % l.len().max(1)))
        .copied()
        .unwrap_or(6);
    AclKey {
        group: 1,
        proto: proto.wrapping_add(u8::from(nudge == 0)),
        sip: addr(&rule.src, nudge == 1),
        dip: addr(&rule.dst, nudge == 2),
        sport: port(&rule.src_ports, nudge == 3),
        dport: port(&rule.dst_ports, nudge == 4),
        ..AclKey::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn classifier_agrees_with_the_linear_scan(rules in prop::collection::vec(rule(), 0..100)) {
        let classifier = Classifier::new(&rules);
        for rule in &rules {
            // 5 is no field: the key is inside the rule.
            for nudge in 0..6 {
                for pick in 0..4 {
                    let key = near(rule, nudge, pick);
                    prop_assert_eq!(classifier.first(&key).copied(), linear::first(&rules, &key), "{:?}", key);
                }
            }
        }
        let nothing = AclKey::default();
        prop_assert_eq!(classifier.first(&nothing).copied(), linear::first(&rules, &nothing));
    }
}

#[test]
fn an_empty_list_matches_nothing_and_none_matches_anything() {
    let any = AclRuleRow {
        action: 2,
        protocols: None,
        src: None,
        dst: None,
        src_ports: None,
        dst_ports: None,
    };
    let never = AclRuleRow {
        action: 1,
        protocols: Some(Box::new([])),
        ..any.clone()
    };
    let key = AclKey {
        proto: 255,
        sip: [0xff; 16],
        dip: [0xff; 16],
        sport: [0xff; 2],
        dport: [0xff; 2],
        ..AclKey::default()
    };
    let classifier = Classifier::new(&[never, any]);
    assert_eq!(classifier.first(&key), Some(&2));
    assert_eq!(classifier.first(&AclKey::default()), Some(&2));
    assert_eq!(Classifier::new(&[]).first(&key), None);
}

/// Rules over tags that many of them share, prefixes nested in each other and in several lists.
fn tagged_rules(rules: u32, prefixes: u32) -> Vec<AclRuleRow> {
    let mut state = 7u64;
    let mut next = move || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as u32
    };
    let mut list = |n: u32| -> Arc<[AclPrefix]> {
        (0..n)
            .map(|_| {
                let [a, b, c, _] = next().to_be_bytes();
                let len = [16u8, 20, 24, 24, 24, 25, 32][next() as usize % 7];
                let mask = u32::MAX << (32 - len);
                let address = u32::from_be_bytes([10 + a % 4, b, c, a]) & mask;
                AclPrefix {
                    addr: v4(address.to_be_bytes()),
                    len: 96 + len,
                }
            })
            .collect()
    };
    let tags: Vec<_> = (0..8).map(|_| list(prefixes * 4)).collect();
    (0..rules)
        .map(|n| {
            let tag = |n: u32| Arc::clone(&tags[n as usize % tags.len()]);
            AclRuleRow {
                action: n,
                protocols: (n % 3 != 0).then(|| [6, 17][..=(n % 2) as usize].into()),
                src: Some(match n % 5 {
                    0 => [list(prefixes), tag(n)].into_iter().collect(),
                    1 => [tag(n), tag(n / 5)].into_iter().collect(),
                    _ => [list(prefixes)].into_iter().collect(),
                }),
                dst: (n % 4 == 0).then(|| [tag(n / 4)].into_iter().collect()),
                src_ports: None,
                dst_ports: (n % 2 == 0).then(|| [(n as u16, n as u16 + 40)].into()),
            }
        })
        .collect()
}

fn agrees(rules: &[AclRuleRow], every: usize) {
    let mut acl = Acl::new();
    acl.set(1, Some(rules));
    // The same sets in another order of rules: classes are shared, answers are not.
    let reversed: Vec<_> = rules.iter().rev().cloned().collect();
    let alone = acl.memory();
    acl.set(2, Some(&reversed));
    assert!(acl.memory() < alone * 2, "{} and {alone}", acl.memory());
    // Bound in a row, also with a group that is not there: a hint, answers are the same.
    acl.bind(&[[1, 3, 2, 70_000, 0]]);
    let mut matched = 0;
    for (n, rule) in rules.iter().enumerate().step_by(every) {
        for nudge in 0..6 {
            let mut key = near(rule, nudge, n);
            key.group = 1;
            let want = linear::first(rules, &key);
            assert_eq!(acl.get(&key).copied(), want, "{key:?}");
            matched += usize::from(want.is_some());
            key.group = 2;
            assert_eq!(
                acl.get(&key).copied(),
                linear::first(&reversed, &key),
                "{key:?}"
            );
        }
    }
    assert!(matched > rules.len() / every, "keys hit rules");
}

#[test]
fn groups_with_tags_agree_with_the_linear_scan() {
    agrees(&tagged_rules(150, 6), 3);
}

/// More rules than one vector holds.
#[test]
fn a_group_of_5000_rules_agrees_with_the_linear_scan() {
    agrees(&tagged_rules(4_500, 1), 601);
}

/// Five stages' worth of rules at the scale of the largest cards.
#[test]
#[ignore = "full scale: minutes without optimisation (benches/README.md)"]
fn five_groups_of_1000_rules_with_100_prefixes_agree_with_the_linear_scan() {
    for stage in 0..5 {
        agrees(&tagged_rules(1_000, 100), 41 + stage);
    }
}

#[test]
fn groups_know_what_enis_bind_in_a_row() {
    let tables = PolicyTables::new(&Capacity::default());
    let row = EniRow {
        acl: [[1, 2, 3, 4, 5], [0; 5], [0, 6, 0, 0, 70_000], [0; 5]],
        ..EniRow::default()
    };
    let (table, key) = (Table::Eni, Box::from(7u32.to_ne_bytes()));
    let value = row.as_bytes().into();
    let put = TableDelta {
        ops: vec![TableOp::Put {
            table,
            key: Box::clone(&key),
            value,
        }],
    };
    let delete = TableDelta {
        ops: vec![TableOp::Delete { table, key }],
    };
    let acl = |tables: &PolicyTables| match tables.map(Table::Acl) {
        Some(PolicyMap::Acl(acl)) => Acl::clone(acl),
        _ => panic!("a table of groups"),
    };
    let bound = tables.after(&put).expect("a row");
    assert!(acl(&bound).binds(&[row.acl[0], row.acl[2]]));
    assert!(!acl(&bound).binds(&[row.acl[0]]));
    // A generation before or after has its own.
    let gone = bound.after(&delete).expect("no row");
    assert!(acl(&tables).binds(&[]) && acl(&gone).binds(&[]));
    // Groups that are bound and do not exist are none.
    assert_eq!(acl(&bound).len(), 0);
}

#[test]
fn groups_come_and_go_by_any_number() {
    let rules = tagged_rules(3, 1);
    let mut acl = Acl::new();
    for group in [1, 70_000, 65_535] {
        acl.set(group, Some(&rules));
    }
    let old = acl.clone();
    acl.set(70_000, None);
    acl.set(2, None);
    acl.set(1, Some(&[]));
    assert_eq!((acl.len(), old.len()), (2, 3));
    let mut key = near(&rules[0], 5, 0);
    for (group, now, before) in [
        (1, false, true),
        (70_000, false, true),
        (65_535, true, true),
        (3, false, false),
    ] {
        key.group = group;
        assert_eq!(acl.get(&key).is_some(), now, "{group}");
        assert_eq!(old.get(&key).is_some(), before, "{group}");
    }
}
