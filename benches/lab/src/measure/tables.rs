//! `dashctl bench tables`.

use std::time::Duration;

use anyhow::{Result, ensure};
use dash_tablebench::acls::{Acls, Size};
use dash_tablebench::mapping::Mappings;
use dash_tablebench::routes::{Family, Routes, V4, V6};
use dash_tablebench::{Pace, Way};

use super::Bench;
use crate::machine::thread_cpu_ns;
use crate::result::Group;

#[cfg_attr(not(feature = "dpdk"), path = "tables/no_rte.rs")]
mod rte;

use rte::Twins;

/// Changes of one row, of which the 99th percentile is taken.
const CHANGES: u64 = 1_000;
/// Packets in turn that stay in the cache.
const FEW: usize = 256;

pub(super) fn run(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let quick = bench.options.quick;
    mappings(bench, group, if quick { 20_000 } else { 80_000 })?;
    if !quick {
        mappings(bench, group, 8_000_000)?;
    }
    let twins = Twins::start(bench, group);
    let scales = if quick {
        vec![(1, 1_000)]
    } else {
        vec![(1, 100_000), (4, 100_000)]
    };
    for (enis, each) in scales {
        routes::<V4>(bench, group, &twins, enis, each, 1.2)?;
        routes::<V6>(bench, group, &twins, enis, each, 1.5)?;
    }
    acls(bench, group, false)?;
    acls(bench, group, true)
}

/// Takes a sample of each way by turns; every one must find `all`. Rows `{what}: {way}`, ns a look-up.
fn time(
    bench: &Bench<'_>,
    group: &mut Group,
    what: &str,
    lookups: usize,
    ways: &[Way<'_>],
) -> Result<()> {
    let found = ways.first().map(Way::run);
    for n in 0..bench.options.samples() {
        (bench.progress)(&format!("tables: sample {}, {what}", n + 1));
        for way in ways {
            let start = thread_cpu_ns();
            let all = way.run();
            let took = (thread_cpu_ns() - start) as f64;
            ensure!(Some(all) == found, "{what}: {way:?} finds {all}");
            let row = format!("{what}: {}", way.name);
            group.sample(&row, "ns", took / lookups as f64);
        }
    }
    Ok(())
}

/// Makes something once; row `{what}`, ms.
fn made<T>(group: &mut Group, what: &str, make: impl FnOnce() -> T) -> T {
    let start = thread_cpu_ns();
    let made = make();
    let took = (thread_cpu_ns() - start) as f64;
    group.sample(what, "ms", took / 1e6);
    made
}

/// 99th percentile of changes, each made to the table that the last one left.
fn changes<T>(
    bench: &Bench<'_>,
    group: &mut Group,
    what: &str,
    mut now: T,
    next: impl Fn(&T, u64) -> T,
) {
    let many = bench.options.scale(100, CHANGES);
    for sample in 0..bench.options.samples() as u64 {
        let mut times: Vec<Duration> = (0..many)
            .map(|n| {
                let start = thread_cpu_ns();
                // What is no longer needed is freed by control, so that is in it.
                now = next(&now, sample * many + n);
                Duration::from_nanos(thread_cpu_ns() - start)
            })
            .collect();
        times.sort_unstable();
        let p99 = times[times.len() * 99 / 100];
        group.sample(what, "us", p99.as_secs_f64() * 1e6);
    }
}

fn scale(rows: u64) -> String {
    match rows {
        rows if rows.is_multiple_of(1_000_000) => format!("{} M", rows / 1_000_000),
        rows => format!("{} k", rows / 1_000),
    }
}

fn mappings(bench: &Bench<'_>, group: &mut Group, rows: u64) -> Result<()> {
    let what = format!("mapping, {}", scale(rows));
    let many = bench.options.scale(2_000, 1 << 18);
    let table = made(group, &format!("{what}, build"), || Mappings::new(rows));
    let row = group.sample(
        &format!("{what}, memory of one"),
        "bytes",
        table.bytes_each(),
    );
    row.aim("<= 64", 64.0, true);
    let twin = table.twin();
    for (name, keys) in [("hit", table.hits(many)), ("miss", table.misses(many))] {
        let ways = table.ways(&keys, &twin);
        time(bench, group, &format!("{what}, {name}"), many, &ways)?;
    }
    drop(twin);
    let change = format!("{what}, one changed, p99");
    changes(bench, group, &change, table, Mappings::change);
    Ok(())
}

/// `goal`: at most so many times the time of DPDK's table.
fn routes<F: Family>(
    bench: &Bench<'_>,
    group: &mut Group,
    twins: &Twins,
    enis: u64,
    each: u64,
    goal: f64,
) -> Result<()>
where
    Routes<F>: Clone,
{
    let what = match enis {
        1 => format!("routes {}, {}", F::NAME, scale(each)),
        enis => format!("routes {}, {enis} x {}", F::NAME, scale(each)),
    };
    let many = bench.options.scale(2_000, 1 << 18);
    let table = made(group, &format!("{what}, build"), || {
        Routes::<F>::new(enis, each)
    });
    group.sample(
        &format!("{what}, memory of one"),
        "bytes",
        table.bytes_each(),
    );
    let addresses = table.addresses(many);
    let beside = twins.beside(group, &table, &addresses);
    for pace in Pace::ALL {
        let name = format!("{what}, {}", pace.name());
        let mut ways = vec![table.way(&addresses, pace)];
        ways.extend(beside.as_ref().map(|beside| beside.way(pace)));
        ensure!(
            ways.iter().all(|way| way.run() == many),
            "{name}: not all found"
        );
        time(bench, group, &name, many, &ways)?;
        if ways.len() > 1 {
            let of = |twin: &str| group.median(&format!("{name}: {twin}"), "ns");
            let ratio = of("ours") / of(F::TWIN);
            let row = group.sample(&format!("{name}: ours / {}", F::TWIN), "x", ratio);
            row.aim(format!("<= {goal}"), goal, true);
        }
    }
    let change = format!("{what}, one more, p99");
    changes(bench, group, &change, table, Routes::change);
    Ok(())
}

fn acls(bench: &Bench<'_>, group: &mut Group, v6: bool) -> Result<()> {
    let size = bench.options.scale(
        Size {
            rules: 50,
            prefixes: 10,
        },
        Size {
            rules: 1_000,
            prefixes: 100,
        },
    );
    let what = format!(
        "ACL {}, 5 x {} x {}",
        if v6 { "v6" } else { "v4" },
        size.rules,
        size.prefixes
    );
    let bound = made(group, &format!("{what}, build"), || Acls::new(size, v6));
    let megabytes = bound.memory() as f64 / 1e6;
    // An ENI has such groups for both families and both directions.
    let row = group.sample(&format!("{what}, memory"), "MB", megabytes);
    row.aim("<= 16, a quarter of an ENI's", 16.0, true);
    let packets = bound.packets(bench.options.scale(500, 1 << 14));
    let unbound = bound.unbound();
    let ways = [
        bound.way("bound to an ENI", &packets, 1),
        unbound.way("each stage on its own", &packets, 1),
    ];
    let name = format!("{what}, a new flow each");
    time(bench, group, &name, packets.len(), &ways)?;
    let cold = format!("{name}: bound to an ENI");
    if let Some(row) = group.measurements.iter_mut().find(|row| row.name == cold) {
        row.aim("<= 300", 300.0, true);
    }
    let few = &packets[..FEW.min(packets.len())];
    let times = packets.len() / few.len();
    let ways = [bound.way("bound to an ENI", few, times)];
    let name = format!("{what}, {} flows in turn", few.len());
    time(bench, group, &name, few.len() * times, &ways)?;
    let other = bound.other_group();
    for _ in 0..bench.options.samples() {
        let next = made(group, &format!("{what}, one group made again"), || {
            bound.change(&other)
        });
        drop(next);
    }
    let name = format!("{what}, one group made again");
    if let Some(row) = group.measurements.iter_mut().find(|row| row.name == name) {
        row.aim("<= 50", 50.0, true);
    }
    Ok(())
}
