//! `dashctl bench latency`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Bench;
use crate::lab::{Lab, Run, capacity};
use crate::machine::{cores, generator_core, stolen_ns};
use crate::pace::{Generator, Offered, TimeRing};
use crate::port::Job;
use crate::result::Group;
use crate::traffic::{Order, Traffic};
use crate::world::{self, Way};

/// Places of the receive queue, as large NICs have them.
const QUEUE: usize = 4_096;
/// A rate is tried so often at most, when the machine held up the trials that lost packets.
const TRIES: u32 = 5;
/// The search ends when it knows the rate to this part.
const PRECISION: f64 = 0.01;

/// A trial: packets offered at a rate for a time.
struct Trial {
    run: Run,
    offered: Offered,
    /// The machine kept the worker or the generator from running for more than half of what the queue
    /// holds: that lost packets says nothing of the data plane.
    held_up: bool,
}

impl Trial {
    fn lost_by_the_machine(&self) -> bool {
        self.offered.lost > 0 && self.held_up
    }
}

/// True if so many ns without a worker or a generator fill more than half of the queue.
fn holds_up(rate: f64, ns: u64) -> bool {
    ns as f64 / 1e9 * rate > QUEUE as f64 / 2.0
}

struct Setup<'a> {
    bench: &'a Bench<'a>,
    lab: Lab,
    traffic: Arc<Traffic>,
    flows: u32,
    trials: u64,
    /// Trials that were repeated.
    repeated: u64,
    /// Rates of which no trial was free of the machine's doing.
    given_up: u64,
}

impl Setup<'_> {
    fn order(&self, seed: u64) -> Order {
        Order::Random {
            from: 0,
            flows: self.flows,
            seed,
        }
    }

    /// Offers a rate for a time, and again while it is the machine that loses packets.
    fn trial(&mut self, rate: f64, time: Duration) -> Result<Trial> {
        let mut trial = self.once(rate, time)?;
        for _ in 1..TRIES {
            if !trial.lost_by_the_machine() {
                return Ok(trial);
            }
            self.repeated += 1;
            trial = self.once(rate, time)?;
        }
        self.given_up += u64::from(trial.lost_by_the_machine());
        Ok(trial)
    }

    /// How often trials were repeated, and why.
    fn repeats(&self) -> String {
        let Self {
            trials,
            repeated,
            given_up,
            ..
        } = self;
        let mut text = format!("{repeated} of {trials} trials so far were repeated");
        if *repeated > 0 {
            text.push_str(
                ": they lost packets while the machine kept worker or generator from running for more than \
                 half of what the queue holds (run delay, steal, lateness)",
            );
        }
        if *given_up > 0 {
            text.push_str(&format!(
                "; at {given_up} rates so did each of {TRIES}, and the last one counts"
            ));
        }
        text
    }

    /// Offers a rate for a time.
    fn once(&mut self, rate: f64, time: Duration) -> Result<Trial> {
        self.trials += 1;
        let ring = Arc::new(TimeRing::new(QUEUE));
        let order = self.order(self.bench.options.seed + self.trials);
        let mut job = Job::new(&self.traffic, order, u64::MAX);
        job.pace = Some(Arc::clone(&ring));
        job.epoch = Instant::now();
        let epoch = job.epoch;
        let stolen = stolen_ns();
        self.lab.begin(|_| job.clone())?;
        let core = generator_core(1);
        let generator = Generator::spawn(ring, epoch, rate, time, core)?;
        let offered = generator.join()?;
        let run = self.lab.finish()?;
        run.check("latency")?;
        let delays = run.workers.iter().map(|worker| worker.held_up_ns);
        let taken = delays.sum::<u64>() + (stolen_ns() - stolen);
        let held_up = holds_up(rate, taken) || holds_up(rate, offered.behind_ns);
        Ok(Trial {
            run,
            offered,
            held_up,
        })
    }
}

pub(super) fn run(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let options = bench.options;
    if options.workers > 1 {
        group
            .skipped
            .push("more than one worker: the search is for one".to_owned());
    }
    let one = crate::Options {
        workers: 1,
        ..options.clone()
    };
    let flows = options.scale(256, 64_000);
    let size = options.scale(1 << 16, 1 << 20);
    let mut setup = Setup {
        bench,
        lab: Lab::with(&one, capacity(size), world::txn(world::DEMO)?)?,
        traffic: Arc::new(Traffic::of(Way::Vnet.template(64)?)),
        flows,
        trials: 0,
        repeated: 0,
        given_up: 0,
    };
    let order = Order::Sequential { from: 0 };
    let traffic = Arc::clone(&setup.traffic);
    setup
        .lab
        .forward("flows", |_| Job::new(&traffic, order, u64::from(flows)))?;

    // Nothing can be above what the worker does when packets never lack.
    let packets = options.scale(5_000, 3_000_000);
    let order = setup.order(options.seed);
    let flat = setup
        .lab
        .forward("flat out", |_| Job::new(&traffic, order, packets))?;
    group.sample(
        "flat out, one flow table of so many flows",
        "Mpps",
        flat.rate() / 1e6,
    );

    let time = Duration::from_secs_f64(options.seconds(0.02, 1.0));
    let (mut good, mut bad) = (0.0, flat.rate() * 1.1);
    let rounds = options.scale(5, 12);
    for n in 0..rounds {
        if (bad - good) / bad < PRECISION {
            break;
        }
        let rate = f64::midpoint(good, bad);
        (bench.progress)(&format!(
            "latency: trial {} of at most {rounds}: {:.3} Mpps",
            n + 1,
            rate / 1e6
        ));
        if setup.trial(rate, time)?.offered.lost == 0 {
            good = rate;
        } else {
            bad = rate;
        }
    }
    let shares = if good > 0.0 {
        let row = group.sample("no-drop rate", "Mpps", good / 1e6);
        let bound = if setup.given_up > 0 {
            "a lower bound, as the machine spoiled trials above it: "
        } else {
            ""
        };
        row.note(format!(
            "{bound}RFC 2544 search, trials of {} ms, a receive queue of {QUEUE}; {} cores; {}",
            time.as_millis(),
            cores(),
            setup.repeats()
        ));
        good
    } else {
        group.skipped.push(format!(
            "no-drop rate: packets were lost at each of {rounds} rates, down to {:.3} Mpps; {}; latencies are \
             at shares of the rate flat out",
            bad / 1e6,
            setup.repeats()
        ));
        flat.rate()
    };
    for percent in [50u32, 90, 99] {
        (bench.progress)(&format!("latency: at {percent} %"));
        let rate = shares * f64::from(percent) / 100.0;
        let Trial { run, offered, .. } = setup.trial(rate, time)?;
        let repeats = setup.repeats();
        let mut all = run.workers.into_iter().filter_map(|o| o.latency);
        let latency = all.next().context("a paced job has latencies")?;
        for (what, ns) in [
            ("p50", latency.value_at_quantile(0.5)),
            ("p99", latency.value_at_quantile(0.99)),
            ("p99.9", latency.value_at_quantile(0.999)),
            ("max", latency.max()),
        ] {
            let name = format!("latency at {percent} %, {what}");
            let row = group.sample(&name, "us", ns as f64 / 1e3);
            row.at(what, f64::from(percent));
            row.note(format!(
                "from when each packet was due; {} of {} packets lost at the queue; the generator itself was late by {:.0} us at most; {repeats}",
                offered.lost,
                offered.packets,
                offered.behind_ns as f64 / 1e3
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lost_packets_while_the_machine_stood_still_is_repeated() {
        // 2,048 packets at 2 million a second are a millisecond.
        assert!(!holds_up(2e6, 1_000_000) && holds_up(2e6, 1_100_000));
        assert!(
            !holds_up(1e3, 1_000_000_000),
            "a slow rate outlasts a second"
        );
        let trial = |lost, held_up| Trial {
            run: Run::default(),
            offered: Offered {
                lost,
                ..Offered::default()
            },
            held_up,
        };
        assert!(trial(1, true).lost_by_the_machine());
        assert!(
            !trial(1, false).lost_by_the_machine(),
            "the data plane's own"
        );
        assert!(!trial(0, true).lost_by_the_machine(), "nothing to explain");
    }
}
