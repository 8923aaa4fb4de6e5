//! Look-ups, builds, changes and memory of the policy tables at full scale; with the feature `dpdk`,
//! routes beside DPDK's. Times are medians of interleaved rounds.

#![expect(unsafe_code, reason = "the maps' own look-up takes addresses")]

// Brings what its build script compiled.
#[cfg(feature = "dpdk")]
use dash_bench as _;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dash_runtime::tables::MapOps;
use dash_runtime::tables::acl::Acl;
use dash_runtime::tables::lpm::Lpm;
use dash_runtime::tables::policy_hash::PolicyHash;
use dash_wire::tables::{AclKey, MappingKey, MappingRow, Route4Key, Route6Key, RouteRow};
use nic_target::{AclPrefix, AclRuleRow, Capacity, Table};
use zerocopy::IntoBytes;

#[cfg(feature = "dpdk")]
mod rte;

/// Look-ups a round.
const KEYS: usize = 1 << 18;
const ROUNDS: usize = 9;

/// Numbers that look random and are the same every time.
fn mix(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Finds all keys; with `chain` each waits for the one before.
fn find<K: IntoBytes + zerocopy::Immutable>(map: &impl MapOps, keys: &[K], chain: bool) -> u64 {
    let zero = black_box(0usize);
    let (mut found, mut last) = (0, 0usize);
    for n in 0..keys.len() {
        let key = &keys[if chain { n ^ (last & zero) } else { n }];
        // SAFETY: every map below is asked for keys of its own type.
        let row = unsafe { map.lookup(key.as_bytes().as_ptr()) };
        last = row.addr();
        found += u64::from(!row.is_null());
    }
    found
}

/// A way to look all keys up, and its name.
type Way<'a> = (&'a str, Box<dyn FnMut() -> u64 + 'a>);

/// Prints the median time of a look-up for each way, rounds in turn, and ratios to the first.
fn compare(what: &str, lookups: usize, mut ways: Vec<Way<'_>>) {
    let mut times = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (way, times) in ways.iter_mut().zip(&mut times) {
            let start = Instant::now();
            black_box((way.1)());
            times.push(start.elapsed());
        }
    }
    let each = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e9 / lookups as f64
    };
    let each: Vec<f64> = times.iter_mut().map(each).collect();
    for ((name, _), ns) in ways.iter().zip(&each) {
        println!("{what:44} {name:22} {ns:8.1} ns  x{:.2}", each[0] / ns);
    }
}

fn took<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let made = f();
    println!(
        "{what:44} {:22} {:8.2} ms",
        "",
        start.elapsed().as_secs_f64() * 1e3
    );
    made
}

/// 99th percentile and median of changes, each of a clone as a transaction makes it.
fn changes(what: &str, n: u64, mut change: impl FnMut(u64)) {
    let mut times: Vec<Duration> = (0..n)
        .map(|n| {
            let start = Instant::now();
            change(n);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e6;
    println!(
        "{what:44} {:22} {:8.1} us median, {:.1} us p99",
        "",
        at(50),
        at(99)
    );
}

fn mapping_key(n: u64) -> MappingKey {
    let mut ip = [0; 16];
    ip[12..].copy_from_slice(&(mix(n) as u32).to_be_bytes());
    MappingKey {
        vnet: (n % 1000) as u16 + 1,
        ip,
        ..MappingKey::default()
    }
}

fn mappings(rows: u64, twin: bool) {
    let what = format!("mapping {rows}");
    let mut table = PolicyHash::new(&Table::Mapping.def(&Capacity::default()));
    let row = MappingRow::default();
    took(&format!("{what} build"), || {
        for n in 0..rows {
            table.put(mapping_key(n).as_bytes(), row.as_bytes());
        }
    });
    let bytes = table.memory() as f64 / table.len() as f64;
    println!("{what:44} {:22} {bytes:8.1} bytes a row", "");
    let keys: Vec<_> = (0..KEYS as u64)
        .map(|n| mapping_key(mix(n) % rows))
        .collect();
    let misses: Vec<_> = (0..KEYS as u64).map(|n| mapping_key(rows + n)).collect();
    let table = &table;
    let std: HashMap<MappingKey, MappingRow> = if twin {
        (0..rows).map(|n| (mapping_key(n), row)).collect()
    } else {
        HashMap::new()
    };
    for (name, keys) in [("hit", &keys), ("miss", &misses)] {
        let mut ways: Vec<Way<'_>> = vec![("ours", Box::new(|| find(table, keys, false)))];
        if twin {
            let std = &std;
            let find = move || keys.iter().filter(|key| std.contains_key(*key)).count() as u64;
            ways.push(("std::HashMap", Box::new(find)));
        }
        let prefetched = || {
            let mut found = 0;
            for burst in keys.chunks(32) {
                burst.iter().for_each(|key| table.prefetch(key.as_bytes()));
                found += find(table, burst, false);
            }
            found
        };
        ways.push(("ours, 32 prefetched", Box::new(prefetched)));
        ways.push(("ours, one by one", Box::new(|| find(table, keys, true))));
        compare(&format!("{what} {name}"), KEYS, ways);
    }
    let mut now = table.clone();
    changes(&format!("{what} one row"), 2000, |n| {
        let mut next = now.clone();
        let row = MappingRow {
            flags: 1 + n as u16,
            ..row
        };
        next.put(mapping_key(mix(n) % rows).as_bytes(), row.as_bytes());
        now = next;
    });
}

/// Routes of an ENI: address and length. Most are /24, some shorter, some hosts.
fn route4(eni: u64, n: u64) -> (u32, u8) {
    let len = match n % 10 {
        0 => 16,
        1 | 2 => 20,
        9 => 32,
        _ => 24,
    };
    (mix(eni << 32 | n) as u32 & u32::MAX << (32 - len), len)
}

/// 256 providers' /32s, in them mostly /48s.
fn route6(eni: u64, n: u64) -> (u128, u8) {
    let len = match n % 10 {
        0 => 40,
        1 => 56,
        9 => 64,
        _ => 48,
    };
    let bits = mix(eni << 32 | n);
    let top = 0x2001_0000 << 32 | u64::from(bits as u8) << 32 | bits >> 32;
    (u128::from(top) << 64 & u128::MAX << (128 - len), len)
}

fn routes(enis: u64, each: u64) {
    let what = format!("routes {enis} x {each}");
    let mut v4 = Lpm::new(&Table::Route4.def(&Capacity::default()));
    let mut v6 = Lpm::new(&Table::Route6.def(&Capacity::default()));
    let row = RouteRow::default();
    let all = || (0..enis).flat_map(|eni| (0..each).map(move |n| (eni, n)));
    let key4 = |eni: u64, ip: u32, len: u32| Route4Key {
        prefix_len: 32 + len,
        group: eni as u32 + 1,
        dst: ip.to_be_bytes(),
    };
    let key6 = |eni: u64, ip: u128, len: u32| Route6Key {
        prefix_len: 32 + len,
        group: eni as u32 + 1,
        dst: ip.to_be_bytes(),
    };
    took(&format!("{what} v4 build"), || {
        for (eni, n) in all() {
            let (ip, len) = route4(eni, n);
            v4.put(key4(eni, ip, len.into()).as_bytes(), row.as_bytes());
        }
    });
    took(&format!("{what} v6 build"), || {
        for (eni, n) in all() {
            let (ip, len) = route6(eni, n);
            v6.put(key6(eni, ip, len.into()).as_bytes(), row.as_bytes());
        }
    });
    for (family, table) in [("v4", &v4), ("v6", &v6)] {
        let bytes = table.memory() as f64 / table.len() as f64;
        println!("{what:44} {family:22} {bytes:8.1} bytes a route");
    }
    // Addresses inside routes, of all ENIs in no order.
    let asked: Vec<(u64, u64, u64)> = (0..KEYS as u64)
        .map(|n| (mix(n) % enis, mix(n) / enis % each, mix(!n)))
        .collect();
    let ip4 = |&(eni, n, host): &(u64, u64, u64)| {
        let (ip, len) = route4(eni, n);
        ip | (host as u32).checked_shr(len.into()).unwrap_or(0)
    };
    let ip6 = |&(eni, n, host): &(u64, u64, u64)| {
        let (ip, len) = route6(eni, n);
        ip | u128::from(host) << 64 >> len
    };
    let keys4: Vec<_> = asked.iter().map(|a| key4(a.0, ip4(a), 32)).collect();
    let keys6: Vec<_> = asked.iter().map(|a| key6(a.0, ip6(a), 128)).collect();
    assert_eq!(find(&v4, &keys4, false), KEYS as u64);
    assert_eq!(find(&v6, &keys6, false), KEYS as u64);
    #[cfg(feature = "dpdk")]
    let (lpm4, lpm6) = {
        let of4 = |eni| (0..each).map(move |n| route4(eni, n));
        let of6 = |eni| (0..each).map(move |n| route6(eni, n));
        let which: Vec<u32> = asked.iter().map(|a| a.0 as u32).collect();
        (
            rte::Lpm4::new((0..enis).map(of4), which.clone(), asked.iter().map(ip4)),
            rte::Lpm6::new((0..enis).map(of6), which, asked.iter().map(ip6)),
        )
    };
    for chain in [false, true] {
        let how = if chain { "one by one" } else { "back to back" };
        let mut ways4: Vec<Way<'_>> = vec![("ours", Box::new(|| find(&v4, &keys4, chain)))];
        let mut ways6: Vec<Way<'_>> = vec![("ours", Box::new(|| find(&v6, &keys6, chain)))];
        #[cfg(feature = "dpdk")]
        {
            assert_eq!(
                (lpm4.find(chain), lpm6.find(chain)),
                (KEYS as u64, KEYS as u64)
            );
            ways4.push(("rte_lpm", Box::new(|| lpm4.find(chain))));
            ways6.push(("rte_lpm6", Box::new(|| lpm6.find(chain))));
        }
        compare(
            &format!("{what} v4 {how}"),
            KEYS,
            std::mem::take(&mut ways4),
        );
        compare(
            &format!("{what} v6 {how}"),
            KEYS,
            std::mem::take(&mut ways6),
        );
    }
    let mut now = v4.clone();
    changes(&format!("{what} v4 one route"), 2000, |n| {
        let mut next = now.clone();
        let (ip, len) = route4(n % enis, each + n);
        next.put(key4(n % enis, ip, len.into()).as_bytes(), row.as_bytes());
        now = next;
    });
    let mut now = v6.clone();
    changes(&format!("{what} v6 one route"), 2000, |n| {
        let mut next = now.clone();
        let (ip, len) = route6(n % enis, each + n);
        next.put(key6(n % enis, ip, len.into()).as_bytes(), row.as_bytes());
        now = next;
    });
}

/// A stage of 1,000 rules with 100 prefixes each, all different.
fn stage(stage: u64, v6: bool) -> Vec<AclRuleRow> {
    let prefix = |rule: u64, n: u64| {
        let bits = mix(stage << 40 | rule << 20 | n);
        let (addr, len) = if v6 {
            (
                (0x2001_0db8 << 96) | u128::from(bits as u32 & 0xffff_ff00) << 64,
                120 - 64,
            )
        } else {
            (u128::from(0x0a00_0000 | bits as u32 & 0x00ff_ffc0), 122)
        };
        AclPrefix {
            addr: addr.to_be_bytes(),
            len,
        }
    };
    (0..1000u64)
        .map(|rule| AclRuleRow {
            action: rule as u32,
            protocols: (rule % 2 == 0).then(|| [6, 17].into()),
            src: Some((0..50).map(|n| prefix(rule, n)).collect::<Vec<_>>().into()),
            dst: (rule % 10 != 0).then(|| {
                (50..100)
                    .map(|n| prefix(rule, n))
                    .collect::<Vec<_>>()
                    .into()
            }),
            src_ports: None,
            dst_ports: (rule % 2 == 0).then(|| {
                let low = (rule * 60) as u16;
                [(low, low + 100)].into()
            }),
        })
        .collect()
}

/// Looks keys up in five stages.
fn five(acl: &Acl, keys: &[AclKey]) -> u64 {
    let mut found = 0;
    for key in keys {
        for group in 1..=5 {
            let key = AclKey { group, ..*key };
            found += u64::from(acl.get(&key).is_some());
        }
    }
    found
}

/// All keys some times over, in each table.
fn all_stages<'a>(
    tables: [(&'a str, &'a Acl); 2],
    keys: &'a [AclKey],
    times: usize,
) -> Vec<Way<'a>> {
    let way = |(name, acl)| -> Way<'a> {
        (
            name,
            Box::new(move || (0..times).map(|_| five(acl, keys)).sum()),
        )
    };
    tables.map(way).into()
}

fn acls() {
    for v6 in [false, true] {
        let family = if v6 { "v6" } else { "v4" };
        let what = format!("ACL 5 x 1,000 x 100 {family}");
        let stages: Vec<_> = (0..5).map(|n| stage(n, v6)).collect();
        let mut acl = Acl::new();
        took(&format!("{what} build"), || {
            for (rules, group) in stages.iter().zip(1..) {
                acl.set(group, Some(rules));
            }
        });
        println!("{what:44} {:22} {:8.2} MB", "", acl.memory() as f64 / 1e6);
        // As an ENI binds them; and as groups that nothing is known about.
        let alone = acl.clone();
        acl.bind(&[[1, 2, 3, 4, 5]]);
        let keys: Vec<AclKey> = (0..KEYS as u64 / 16)
            .map(|n| {
                let bits = mix(n);
                let rule = &stages[bits as usize % 5][(bits >> 8) as usize % 1000];
                let pick = |list: &Option<nic_target::AclPrefixes>, n: u64| {
                    let list = list.as_ref().map(|l| l.lists()[0].clone());
                    let list: Arc<[AclPrefix]> = list.unwrap_or_else(|| [].into());
                    list.get(n as usize % 50).map_or([0; 16], |p| p.addr)
                };
                AclKey {
                    proto: 17,
                    v6: v6.into(),
                    sip: pick(&rule.src, bits >> 20),
                    dip: pick(&rule.dst, bits >> 30),
                    dport: rule.dst_ports.as_ref().map_or(80, |p| p[0].0).to_be_bytes(),
                    ..AclKey::default()
                }
            })
            .collect();
        assert!(five(&acl, &keys) >= keys.len() as u64);
        assert_eq!(five(&acl, &keys), five(&alone, &keys));
        let tables = [("bound", &acl), ("each on its own", &alone)];
        compare(
            &format!("{what} five stages"),
            keys.len(),
            all_stages(tables, &keys, 1),
        );
        compare(
            &format!("{what} five stages, 256 keys"),
            keys.len(),
            all_stages(tables, &keys[..256], keys.len() / 256),
        );
        let changed = stage(77, v6);
        changes(&format!("{what} one group"), 11, |_| {
            let mut next = acl.clone();
            next.set(1, Some(&changed));
            black_box(next);
        });
    }
}

fn main() {
    let only = std::env::args().nth(1);
    let want = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if want("mapping") {
        mappings(80_000, true);
        mappings(8_000_000, true);
    }
    if want("acl") {
        acls();
    }
    if want("route") {
        #[cfg(feature = "dpdk")]
        rte::init();
        routes(1, 10_000);
        routes(1, 100_000);
        routes(4, 100_000);
        if cfg!(not(feature = "dpdk")) {
            routes(64, 100_000);
        }
    }
}
