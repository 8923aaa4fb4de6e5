//! Look-ups in the runtime's tables, each beside a plain twin in the same run.

#![expect(unsafe_code, reason = "the maps' own look-up takes addresses")]

#[path = "shared/settings.rs"]
mod settings;

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dash_runtime::tables::MapOps;
use dash_runtime::tables::acl::{Acl, linear};
use dash_runtime::tables::core_set::CoreTables;
use dash_runtime::tables::lpm::Lpm;
use dash_runtime::tables::policy_hash::PolicyHash;
use dash_wire::tables::{
    AclKey, FlowEntry, FlowKey, MappingKey, MappingRow, Route4Key, Route6Key, RouteRow, flow_state,
};
use nic_target::{AclPrefix, AclRuleRow, Capacity, Table};
use zerocopy::IntoBytes;

const FLOWS: u32 = 1 << 16;
const MAPPINGS: u32 = 80_000;
const ROUTES: u32 = 10_000;
const RULES: u16 = 1_000;
/// Keys looked up in turn: as many as there are rows, up to this.
const KEYS: u32 = 1 << 13;

/// A map's own look-up, as programs call it.
fn find(map: &impl MapOps, key: &[u8]) -> bool {
    // SAFETY: every map below is called with keys of its own type.
    !unsafe { map.lookup(key.as_ptr()) }.is_null()
}

/// Spreads numbers so that neighbours are not neighbours in a table (an odd factor: no two alike).
fn spread(n: u32) -> u32 {
    n.wrapping_mul(0x9e37_79b1)
}

/// Benches a look-up over keys in turn.
fn over<K>(
    c: &mut Criterion,
    group: &str,
    name: &str,
    keys: &[K],
    found: bool,
    look: impl Fn(&K) -> bool,
) {
    assert!(keys.iter().all(|key| look(key) == found), "{group}/{name}");
    let mut n = 0;
    c.benchmark_group(group).bench_function(name, |b| {
        b.iter(|| {
            n = if n + 1 == keys.len() { 0 } else { n + 1 };
            look(black_box(&keys[n]))
        });
    });
}

fn flow_key(n: u32) -> FlowKey {
    let [a, b, c, d] = spread(n).to_be_bytes();
    FlowKey {
        sip: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, a, b, c],
        dip: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 1, 1, 1],
        sport: [d, 7],
        dport: [0, 53],
        proto: 17,
        ..FlowKey::default()
    }
}

/// A worker's flow table with this many connections, a key each as the first side.
fn flow_table(flows: u32) -> CoreTables {
    let capacity = Capacity {
        flows,
        ..Capacity::default()
    };
    let mut tables = CoreTables::new(&capacity).expect("address space");
    for n in 0..flows {
        let slot = tables.flow_free.pop_u32().expect("a free slot");
        let mut entry = FlowEntry {
            state: flow_state::ESTABLISHED,
            ..FlowEntry::default()
        };
        for side in 0..2 {
            entry.sides[side as usize].key = FlowKey {
                flags: side << 1,
                ..flow_key(n)
            };
        }
        tables.set_flow(slot, &entry);
        for side in 0..2 {
            let key = &entry.sides[side as usize].key;
            let row = slot << 1 | side;
            // SAFETY: key and row have the sizes of the index.
            let done = unsafe {
                let (key, row) = (key.as_bytes().as_ptr(), row.to_ne_bytes());
                tables.flow_index.update(key, row.as_ptr(), 1)
            };
            assert_eq!(done, 0);
        }
    }
    tables
}

/// What a hit does: finds the row, reads the side, counts in the line that both sides share.
fn hit(tables: &CoreTables, key: &FlowKey) -> u32 {
    // SAFETY: the key is the index's; a row it finds is a `u32` that names an entry of the slab, which
    // this thread alone uses.
    unsafe {
        let row = tables.flow_index.lookup(key.as_bytes().as_ptr());
        let row = row.cast::<u32>().read();
        let entry = tables.flow_slab.element(row >> 1).expect("a slot");
        let entry = entry.cast::<FlowEntry>();
        (&raw mut (*entry).packets[(row & 1) as usize])
            .write((*entry).packets[(row & 1) as usize] + 1);
        (&raw const (*entry).sides[(row & 1) as usize].actions.u0_vni).read()
    }
}

/// Bytes of memory the machine could give now.
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(u64::MAX / 1024) * 1024
}

fn flows(c: &mut Criterion) {
    for (name, flows) in [
        ("64k", 1 << 16),
        ("1m", 1 << 20),
        ("16m", 16 << 20),
        ("32m", 32 << 20),
    ] {
        if available() < u64::from(flows) * 256 {
            eprintln!("SKIP: flow_{name}: too little memory");
            continue;
        }
        let tables = flow_table(flows);
        eprintln!(
            "flow_{name}: {:.1} bytes of index a connection",
            tables.flow_index.touched() as f64 / f64::from(flows)
        );
        let mut n = 0u32;
        // Not in the order of the slots, and all of them in turn.
        let mut next = move || {
            n = n.wrapping_add(0x9e37_79b1);
            flow_key(n & (flows - 1))
        };
        let mut group = c.benchmark_group("lookup/flow_hit");
        group.bench_function(format!("{name}_hash"), |b| {
            b.iter(|| tables.flow_hash(&next()));
        });
        group.bench_function(format!("{name}_back_to_back"), |b| {
            b.iter(|| hit(&tables, black_box(&next())));
        });
        let mut keys = [FlowKey::default(); 32];
        group.throughput(criterion::Throughput::Elements(32));
        group.bench_function(format!("{name}_burst_of_32"), |b| {
            b.iter(|| {
                keys.fill_with(&mut next);
                let hash = |key| tables.prefetch_bucket(tables.flow_hash(key));
                let mut ahead = keys.each_ref().map(hash);
                ahead.iter_mut().for_each(|a| {
                    tables.prefetch_entry(a);
                });
                let found = keys.iter().zip(&ahead);
                found
                    .filter(|(key, a)| !tables.find_ahead(key, a).is_null())
                    .count()
            });
        });
        group.finish();
    }

    let mut twin: HashMap<FlowKey, u32> = HashMap::new();
    let tables = flow_table(FLOWS);
    for n in 0..FLOWS {
        twin.insert(flow_key(n), n);
    }
    let keys = |from: u32| {
        (0..KEYS)
            .map(|n| flow_key(from + spread(n) % FLOWS))
            .collect::<Vec<_>>()
    };
    for (name, keys, found) in [("hit", keys(0), true), ("miss", keys(FLOWS), false)] {
        let group = format!("lookup/flow_64k_{name}");
        over(c, &group, "ours", &keys, found, |key| {
            find(&**tables.flow_index, key.as_bytes())
        });
        over(c, &group, "std_hash_map", &keys, found, |key| {
            twin.contains_key(key)
        });
    }
}

fn mapping_key(n: u32) -> MappingKey {
    let mut ip = [0; 16];
    ip[12..].copy_from_slice(&spread(n).to_be_bytes());
    MappingKey {
        vnet: 1,
        ip,
        ..MappingKey::default()
    }
}

fn mappings(c: &mut Criterion) {
    let mut table = PolicyHash::new(&Table::Mapping.def(&Capacity::default()));
    let mut twin = HashMap::new();
    for n in 0..MAPPINGS {
        let (key, row) = (mapping_key(n), MappingRow::default());
        table.put(key.as_bytes(), row.as_bytes());
        twin.insert(key, row);
    }
    let keys = |from: u32| {
        (0..KEYS)
            .map(|n| mapping_key(from + spread(n) % MAPPINGS))
            .collect::<Vec<_>>()
    };
    for (name, keys, found) in [("hit", keys(0), true), ("miss", keys(MAPPINGS), false)] {
        let group = format!("lookup/mapping_80k_{name}");
        over(c, &group, "ours", &keys, found, |key| {
            find(&table, key.as_bytes())
        });
        over(c, &group, "std_hash_map", &keys, found, |key| {
            twin.contains_key(key)
        });
    }
}

/// The plain twin of a prefix table: one map, asked for every length.
fn longest<const N: usize>(twin: &HashMap<(u32, [u8; N]), u32>, address: [u8; N]) -> bool {
    (0..=N as u32 * 8)
        .rev()
        .any(|bits| twin.contains_key(&(bits, masked(address, bits))))
}

fn masked<const N: usize>(mut address: [u8; N], bits: u32) -> [u8; N] {
    for (at, byte) in address.iter_mut().enumerate() {
        let keep = bits.saturating_sub(at as u32 * 8).min(8);
        *byte &= !(0xffu32 >> keep) as u8;
    }
    address
}

/// Prefix lengths of a route table: most are /24, some shorter, some hosts.
fn length(n: u32, whole: u32) -> u32 {
    match n % 10 {
        0 => whole / 2,
        1 | 2 => whole * 5 / 8,
        9 => whole,
        _ => whole * 3 / 4,
    }
}

fn routes(c: &mut Criterion) {
    let (mut v4, mut v6) = (
        Lpm::new(&Table::Route4.def(&Capacity::default())),
        Lpm::new(&Table::Route6.def(&Capacity::default())),
    );
    let (mut twin4, mut twin6) = (HashMap::new(), HashMap::new());
    let (mut keys4, mut keys6) = (Vec::new(), Vec::new());
    let row = RouteRow::default();
    for n in 0..ROUTES {
        let address = spread(n).to_be_bytes();
        let bits = length(n, 32);
        let key = |prefix_len| Route4Key {
            prefix_len,
            group: 1,
            dst: address,
        };
        v4.put(key(32 + bits).as_bytes(), row.as_bytes());
        twin4.insert((bits, masked(address, bits)), n);
        keys4.push((key(64), address));

        let mut address = [0; 16];
        address[..8].copy_from_slice(&(u64::from(spread(n)) << 32 | u64::from(n)).to_be_bytes());
        let bits = length(n, 64);
        let key = |prefix_len| Route6Key {
            prefix_len,
            group: 1,
            dst: address,
        };
        v6.put(key(32 + bits).as_bytes(), row.as_bytes());
        twin6.insert((bits, masked(address, bits)), n);
        keys6.push((key(160), address));
    }
    over(c, "lookup/lpm_v4_10k", "ours", &keys4, true, |(key, _)| {
        find(&v4, key.as_bytes())
    });
    over(
        c,
        "lookup/lpm_v4_10k",
        "map_a_length",
        &keys4,
        true,
        |(_, a)| longest(&twin4, *a),
    );
    over(c, "lookup/lpm_v6_10k", "ours", &keys6, true, |(key, _)| {
        find(&v6, key.as_bytes())
    });
    over(
        c,
        "lookup/lpm_v6_10k",
        "map_a_length",
        &keys6,
        true,
        |(_, a)| longest(&twin6, *a),
    );
}

fn acl(c: &mut Criterion) {
    let v4 = |n: u16, len: u8| {
        let mut addr = [0; 16];
        let [a, b] = n.to_be_bytes();
        addr[12..].copy_from_slice(&[10, a, b, 0]);
        AclPrefix { addr, len }
    };
    let rules: Vec<AclRuleRow> = (0..RULES)
        .map(|n| AclRuleRow {
            action: u32::from(n),
            protocols: Some(Box::new([17])),
            src: Some([v4(n, 120)].into()),
            dst: None,
            src_ports: None,
            dst_ports: Some(Box::new([(n, n + 9)])),
        })
        .collect();
    let mut table = Acl::new();
    table.set(1, Some(&rules));
    let key = |n: u16, port: u16| AclKey {
        group: 1,
        proto: 17,
        sip: v4(n, 128).addr,
        dport: port.to_be_bytes(),
        ..AclKey::default()
    };
    let hits: Vec<_> = (0..RULES)
        .map(|n| key(n * 389 % RULES, n * 389 % RULES + 3))
        .collect();
    let misses: Vec<_> = (0..RULES).map(|n| key(n, n.wrapping_add(20_000))).collect();
    assert!(
        hits.iter()
            .chain(&misses)
            .all(|key| table.get(key).copied() == linear::first(&rules, key))
    );
    for (name, keys, found) in [("hit", hits, true), ("miss", misses, false)] {
        let group = format!("lookup/acl_1000_rules_{name}");
        over(c, &group, "ours", &keys, found, |key| {
            table.get(key).is_some()
        });
        over(c, &group, "linear", &keys, found, |key| {
            linear::first(&rules, key).is_some()
        });
    }
}

criterion_group! { name = benches; config = settings::criterion(); targets = flows, mappings, routes, acl }
criterion_main!(benches);
