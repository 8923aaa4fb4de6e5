//! `dashctl bench soak`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Bench;
use crate::lab::{Lab, capacity};
use crate::machine::resident_memory;
use crate::port::{Job, Stream};
use crate::result::Group;
use crate::traffic::{Order, Traffic};
use crate::world::{self, Way};

/// TCP connections in flight, and the packets of one.
const WINDOW: u32 = 64;
const STEPS: u32 = 6;
/// Packets of established flows for each connection.
const ESTABLISHED: u32 = 42;
/// Longest that flows take to age: half a minute idle, and the ager's rounds.
const AGEING: Duration = Duration::from_secs(60);

pub(super) fn run(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let options = bench.options;
    let seconds = options.seconds(0.3, 30.0);
    let size = options.scale(1 << 16, 1 << 20);
    let known = options.scale(1_000, 64_000);
    let mut lab = Lab::with(options, capacity(size), world::txn(world::DEMO)?)?;
    let established = Arc::new(Traffic::mix(
        [64, 594, 1518]
            .map(|size| Way::Vnet.template(size))
            .into_iter()
            .collect::<Result<_>>()?,
    ));
    let tcp = Arc::new(Traffic::script(world::connection()?, STEPS, WINDOW)?);
    let order = Order::Sequential { from: 0 };
    lab.forward("flows", |_| Job::new(&established, order, u64::from(known)))?;

    // Connections that closed linger for two seconds: no more in that time than there is room for.
    let parts = options.samples() as u32;
    let each = seconds / f64::from(parts);
    let room = (f64::from(size) / 4.0).min(f64::from(size) / 8.0 * each.max(1.0));
    let round = u64::from(STEPS + ESTABLISHED);
    let most = (room as u64 / u64::from(WINDOW)).max(1) * u64::from(WINDOW) * round;
    let (mut from, mut packets, mut lost, mut missing) = (0, 0, 0, 0);
    let mut memory = Vec::new();
    for n in 0..parts {
        (bench.progress)(&format!(
            "soak: part {} of {parts}, {packets} packets",
            n + 1
        ));
        let start = Instant::now();
        let run = lab.run(|worker| {
            let order = Order::Sequential {
                from: from + worker as u32 * (1 << 22),
            };
            let mut job = Job::new(&tcp, order, most);
            job.time = Some(Duration::from_secs_f64(each));
            job.streams[0].share = STEPS;
            job.streams.push(Stream {
                traffic: Arc::clone(&established),
                order: Order::Random {
                    from: 0,
                    flows: known,
                    seed: options.seed + u64::from(n),
                },
                share: ESTABLISHED,
            });
            job
        })?;
        run.check("soak")?;
        from += (run.sent(0) / u64::from(STEPS)) as u32 + WINDOW;
        packets += run.packets();
        lost += run.lost;
        missing += run
            .workers
            .iter()
            .map(|o| o.buffers_missing.max(0))
            .sum::<i64>();
        group.sample("all traffic", "ns/packet", run.ns_per_packet());
        // Where the room for connections ended the part early.
        let rest = Duration::from_secs_f64(each).saturating_sub(start.elapsed());
        std::thread::sleep(rest);
        memory.push(resident_memory());
    }
    group.sample("packets", "packets", packets as f64);
    group.sample("lost in the data plane", "packets", lost as f64);
    group.sample("buffers lost", "buffers", missing as f64);
    // The first part touches what is then used again.
    let growth = match memory.as_slice() {
        [first, .., last] => last.saturating_sub(*first),
        _ => 0,
    };
    let row = group.sample("growth of memory", "bytes", growth as f64);
    row.note("resident memory, after the first part to the end");

    (bench.progress)("soak: waiting until flows have aged");
    let start = Instant::now();
    // Established flows take half a minute: in a quick run only what closed must be gone.
    let left = options.scale(known as usize + WINDOW as usize * parts as usize, 0);
    let mut live = lab.engine().flow_count()?;
    while live > left && start.elapsed() < AGEING {
        std::thread::sleep(Duration::from_millis(200));
        live = lab.engine().flow_count()?;
    }
    ensure!(live <= left, "{live} flows are left, {left} should be");
    let row = group.sample("flows aged", "ms", start.elapsed().as_secs_f64() * 1e3);
    row.note("from the last packet until no flow was left that should not be");
    Ok(())
}
