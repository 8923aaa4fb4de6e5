//! `dashctl bench config`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use dash_model::{Action, ObjectKey, Txn};
use dash_proto::gnmi;
use dash_proto::path::{Db, DbPath, ORIGIN};
use dash_proto::set::decode_set;
use hdrhistogram::Histogram;
use nic_target::Table;
use prost::Message as _;

use super::Bench;
use crate::configs::{Config, Row, Scale};
use crate::lab::{Lab, capacity};
use crate::machine::resident_memory;
use crate::port::{Job, Stream, Watch};
use crate::result::Group;
use crate::traffic::{Order, Traffic};
use crate::world::{self, Way};

/// Updates of a Set request, as SONiC's controllers send them.
const UPDATES: usize = 1_024;
/// Memory of a process in which no table was filled before, bytes.
const FRESH: u64 = 100_000_000;
/// Longest that a change may take to have effect.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn run(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    // First, while the process is as small as it will be.
    mappings(bench, group)?;
    starts(bench, group)?;
    changes(bench, group)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Rows as encoded Set requests.
fn requests(rows: impl Iterator<Item = Row>) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        let update = rows.by_ref().take(UPDATES).map(|row| {
            let key = row.key.key_text().to_string();
            let path = DbPath::row(Db::DpuApplDb, "dpu0", row.key.table_name(), &key).to_gnmi();
            gnmi::Update {
                path: Some(gnmi::Path {
                    origin: String::new(),
                    ..path
                }),
                val: Some(gnmi::TypedValue {
                    value: Some(gnmi::typed_value::Value::ProtoBytes(row.bytes().into())),
                }),
                ..gnmi::Update::default()
            }
        });
        let request = gnmi::SetRequest {
            prefix: Some(gnmi::Path {
                origin: ORIGIN.to_owned(),
                ..gnmi::Path::default()
            }),
            update: update.collect(),
            ..gnmi::SetRequest::default()
        };
        requests.push(request.encode_to_vec());
    }
    requests
}

/// The first packet of a configuration, which must come out.
fn first_packet(lab: &mut Lab, traffic: &Arc<Traffic>) -> Result<()> {
    let order = Order::Sequential { from: 0 };
    lab.forward("first packet", |_| Job::new(traffic, order, 1))?;
    Ok(())
}

/// Cold starts: from nothing to the first packet forwarded.
fn starts(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let options = bench.options;
    let demo = Arc::new(Traffic::of(Way::Vnet.template(64)?));
    for n in 0..options.samples().min(3) {
        (bench.progress)(&format!("config: start {}", n + 1));
        let start = Instant::now();
        let mut lab = Lab::with(options, capacity(1 << 16), world::txn(world::DEMO)?)?;
        first_packet(&mut lab, &demo)?;
        let row = group.sample("start to first packet, demo", "ms", ms(start.elapsed()));
        row.note("verdicts of the verifier from its cache, where that has them");
    }

    let scale = options.scale(Scale::BABY_HERO.shrink(16), Scale::BABY_HERO);
    let config = Config::new(scale);
    let capacity = if options.quick {
        capacity(1 << 16)
    } else {
        config.capacity(1 << 16)
    };
    let traffic = super::hero::first(&config)?;
    (bench.progress)("config: making Set requests");
    let requests = requests(config.rows());
    let size: usize = requests.iter().map(Vec::len).sum();
    for n in 0..options.samples().min(options.scale(1, 3)) {
        (bench.progress)(&format!("config: baby hero by gNMI, start {}", n + 1));
        let start = Instant::now();
        let mut lab = Lab::start(options, capacity.clone())?;
        for request in &requests {
            let request = gnmi::SetRequest::decode(request.as_slice())?;
            let decoded = decode_set(&request).context("a Set request")?;
            let txn = decoded.resolve(lab.engine().store());
            lab.engine().commit(txn)?;
        }
        first_packet(&mut lab, &traffic)?;
        let time = start.elapsed();
        let row = group.sample(
            "start to first packet, baby hero by Set requests",
            "ms",
            ms(time),
        );
        row.note(format!(
            "{} requests of at most {UPDATES} updates, {} MB, decoded and committed one after the other; \
             without the transport",
            requests.len(),
            size / 1_000_000
        ));
        row.goal = (!options.quick).then(|| {
            (
                "at most 5 s for baby hero (P8)".to_owned(),
                time <= Duration::from_secs(5),
            )
        });

        (bench.progress)(&format!("config: baby hero directly, start {}", n + 1));
        let txns: Vec<Txn> = config.txns().collect();
        let start = Instant::now();
        let mut lab = Lab::start(options, capacity.clone())?;
        for txn in txns {
            lab.engine().commit(txn)?;
        }
        first_packet(&mut lab, &traffic)?;
        let row = group.sample(
            "start to first packet, baby hero",
            "ms",
            ms(start.elapsed()),
        );
        row.note("objects committed in process, one transaction an ENI");
    }
    Ok(())
}

/// Eight million mappings into a running data plane.
fn mappings(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let options = bench.options;
    let scale = options.scale(Scale::HERO.shrink(50), Scale::HERO);
    let config = Config::new(scale);
    let wanted = config.counts().mappings;
    let name = format!("{wanted} mappings");
    // A row of an object, its bytes, and its place in two tables.
    if wanted * 1_000 > crate::machine::available_memory() {
        group.skipped.push(format!("{name}: no memory"));
        return Ok(());
    }
    (bench.progress)(&format!("config: {name}"));
    let capacity = if options.quick {
        capacity(1 << 16)
    } else {
        config.capacity(1 << 16)
    };
    let mut lab = Lab::start(options, capacity)?;
    let before = resident_memory();
    let (mut time, mut count) = (Duration::ZERO, 0u64);
    for txn in config.txns() {
        let keeps = |key: &ObjectKey| {
            matches!(
                key,
                ObjectKey::Appliance(..)
                    | ObjectKey::RoutingType(..)
                    | ObjectKey::Vnet(..)
                    | ObjectKey::VnetMapping(..)
            )
        };
        let ops = txn.ops.into_iter().filter(|op| keeps(&op.key));
        let txn: Txn = ops.collect();
        let mappings = txn.ops.iter().filter(|op| {
            matches!(op.key, ObjectKey::VnetMapping(..)) && matches!(op.action, Action::Set { .. })
        });
        count += mappings.count() as u64;
        let start = Instant::now();
        lab.engine().commit(txn)?;
        time += start.elapsed();
    }
    let row = group.sample(&format!("{name}, load time"), "ms", ms(time));
    row.goal = (count == 8_000_000).then(|| {
        (
            "8 M mappings in at most 30 s (P8)".to_owned(),
            time <= Duration::from_secs(30),
        )
    });
    let grown = resident_memory().saturating_sub(before);
    let each = |bytes: u64| bytes as f64 / count.max(1) as f64;
    let mut tables = lab.engine().target_mut().table_memory();
    let own = tables.remove(&Table::Mapping).unwrap_or(0) as u64;
    let rest: usize = tables.values().sum();
    let row = group.sample(
        &format!("{name}, memory of one in the data plane"),
        "bytes",
        each(own),
    );
    row.note(format!(
        "what the table holds, its index included, over its rows; all other tables together {rest} bytes"
    ));
    if count == 8_000_000 {
        row.aim("at most 64 bytes a mapping (P7)", 64.0, true);
    }
    // The allocator gives out again what earlier groups gave back, and then nothing grows.
    if before > FRESH {
        group.skipped.push(format!(
            "memory of a mapping in store and data plane together: the process had {} MB from earlier groups, so it \
             does not show what it takes: dashctl bench config measures it",
            before / 1_000_000
        ));
    } else {
        let name = format!("{name}, memory of one in store and data plane");
        let row = group.sample(&name, "bytes", each(grown));
        row.note("growth of the process");
    }
    Ok(())
}

/// One change to its effect on a packet, idle and under load.
fn changes(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let options = bench.options;
    let changes: u32 = options.scale(20, 1_000);
    let flows = options.scale(1 << 16, 1 << 20);
    let mut lab = Lab::with(options, capacity(flows), world::txn(world::DEMO)?)?;
    let load = Arc::new(Traffic::of(Way::Inbound.template(64)?));
    let probe = Arc::new(Traffic::of(Way::Vnet.template(64)?.unchecked()));
    let known = options.scale(256, 4_096);
    let order = Order::Sequential { from: 0 };
    lab.forward("load", |_| Job::new(&load, order, u64::from(known)))?;
    let mut from = 0;
    for loaded in [false, true] {
        let name = if loaded { "under load" } else { "idle" };
        let watch = Arc::new(Watch::default());
        let stop = Arc::new(AtomicBool::new(false));
        // Every probe is a flow of its own, as established flows keep what was decided for them.
        let mut job = Job::new(&probe, Order::Sequential { from }, u64::from(flows) / 4);
        job.watch = Some(Arc::clone(&watch));
        job.stop = Some(Arc::clone(&stop));
        if loaded {
            let order = Order::Random {
                from: 0,
                flows: known,
                seed: options.seed,
            };
            job.packets = u64::MAX;
            job.streams.push(Stream {
                traffic: Arc::clone(&load),
                order,
                share: 255,
            });
        } else {
            job.gap = Some(Duration::from_micros(options.scale(500, 50)));
        }
        let epoch = job.epoch;
        lab.begin(|_| job.clone())?;
        let measured = each_change(bench, &mut lab, name, changes, &watch, epoch);
        stop.store(true, Ordering::Relaxed);
        let run = lab.finish()?;
        let times = measured?;
        run.check(name)?;
        from += run.sent(0) as u32;
        for (what, value) in [
            ("p50", times.value_at_quantile(0.5)),
            ("p99", times.value_at_quantile(0.99)),
            ("max", times.max()),
        ] {
            let name = format!("one change to its effect, {name}, {what}");
            let row = group.sample(&name, "ms", value as f64 / 1e6);
            if loaded && what == "p99" && !options.quick {
                let reached = value <= 10_000_000;
                row.goal = Some(("p99 at most 10 ms under load (P8)".to_owned(), reached));
            }
        }
    }
    Ok(())
}

fn each_change(
    bench: &Bench<'_>,
    lab: &mut Lab,
    name: &str,
    changes: u32,
    watch: &Watch,
    epoch: Instant,
) -> Result<Histogram<u64>> {
    let mut times = Histogram::new(3)?;
    for n in 0..changes {
        if n % 100 == 0 {
            (bench.progress)(&format!("config: change {n} of {changes}, {name}"));
        }
        // Never the address of the change before.
        let dip = [102, 0, 1, (n % 250) as u8 + 1];
        let txn = world::mapping(dip)?;
        watch.want(dip);
        let start = epoch.elapsed().as_nanos() as u64;
        let since = Instant::now();
        lab.engine().commit(txn)?;
        let seen = loop {
            if let Some(seen) = watch.seen() {
                break seen;
            }
            if since.elapsed() > PATIENCE {
                bail!("change {n}, {name}: no packet went to {dip:?} in {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_micros(50));
        };
        times.record(seen.saturating_sub(start).max(1))?;
    }
    Ok(times)
}
