//! `dashctl bench update-under-load`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Bench;
use crate::lab::{Lab, Run, capacity};
use crate::machine::cores;
use crate::port::{Job, Stream};
use crate::result::Group;
use crate::traffic::{Order, Traffic};
use crate::world::{self, Way};

/// Changes of a route or a mapping asked for, a second.
const RATE: f64 = 1_000.0;

pub(super) fn run(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let options = bench.options;
    let time = Duration::from_secs_f64(options.seconds(0.1, 2.0));
    let flows = options.scale(1_000, 64_000);
    let size = options.scale(1 << 16, 1 << 20);
    let mut lab = Lab::with(options, capacity(size), world::txn(world::DEMO)?)?;
    lab.engine().commit(world::second_acl()?)?;
    let traffic = Arc::new(Traffic::of(Way::Vnet.template(64)?.unchecked()));
    let fresh = Arc::new(Traffic::of(Way::VnetDirect.template(64)?));
    let order = Order::Sequential { from: 0 };
    lab.forward("flows", |_| Job::new(&traffic, order, u64::from(flows)))?;

    let mut from = 0;
    let (mut done, mut swaps) = (0, 0);
    for n in 0..options.samples() {
        for changing in [false, true] {
            let name = if changing { "with changes" } else { "without" };
            (bench.progress)(&format!("update-under-load: sample {}, {name}", n + 1));
            let stop = Arc::new(AtomicBool::new(false));
            let job = |worker: usize| {
                let order = Order::Random {
                    from: 0,
                    flows,
                    seed: options.seed + (n * options.workers + worker) as u64,
                };
                let mut job = Job::new(&traffic, order, u64::MAX);
                job.stop = Some(Arc::clone(&stop));
                job.streams[0].share = 511;
                // New flows meet the tables that change.
                job.streams.push(Stream {
                    traffic: Arc::clone(&fresh),
                    order: Order::Sequential {
                        from: from + worker as u32 * (1 << 20),
                    },
                    share: 1,
                });
                job
            };
            lab.begin(job)?;
            let start = Instant::now();
            let changed = if changing {
                change(&mut lab, time, &mut done, &mut swaps)
            } else {
                std::thread::sleep(time);
                Ok(0)
            };
            let elapsed = start.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
            let run: Run = lab.finish()?;
            let changed = changed?;
            run.check(name)?;
            from += run.sent(1) as u32;
            group.sample(
                &format!("packets, {name}"),
                "ns/packet",
                run.ns_per_packet(),
            );
            let lost = format!("packets, {name}, lost in the data plane");
            group.sample(&lost, "packets", run.lost as f64);
            if changing {
                let row = group.sample("changes made", "changes/s", f64::from(changed) / elapsed);
                row.note("asked for: 1,000 a second, mappings and routes in turn, and one swap of an ACL group");
            }
        }
    }
    let cost = |name: &str| group.median(&format!("packets, {name}"), "ns/packet");
    let rate = cost("without") / cost("with changes");
    let row = group.sample("rate with changes / without", "x", rate);
    if !options.quick {
        row.aim("no packet lost, rate at least 0.95 (P9)", 0.95, false);
    }
    row.note(format!(
        "by the worker's CPU time; {} cores for it and for control",
        cores()
    ));
    Ok(())
}

/// Makes changes at their times until the time is over; how many.
fn change(lab: &mut Lab, time: Duration, done: &mut u32, swaps: &mut u32) -> Result<u32> {
    let start = Instant::now();
    let before = *done;
    let mut next_swap = Duration::ZERO;
    loop {
        let now = start.elapsed();
        if now >= time {
            return Ok(*done - before);
        }
        let due = Duration::from_secs_f64(f64::from(*done - before) / RATE);
        if due > now {
            std::thread::sleep((due - now).min(time - now));
            continue;
        }
        let byte = (*done % 250) as u8 + 1;
        let txn = if done.is_multiple_of(2) {
            world::mapping([102, 0, 1, byte])?
        } else {
            // As the numbers come round, the same routes go to the other VNET.
            world::route(byte, (*done / 250).is_multiple_of(2))?
        };
        lab.engine().commit(txn)?;
        *done += 1;
        if now >= next_swap {
            next_swap += Duration::from_secs(1);
            lab.engine()
                .commit(world::bind_acl(swaps.is_multiple_of(2))?)?;
            *swaps += 1;
        }
    }
}
