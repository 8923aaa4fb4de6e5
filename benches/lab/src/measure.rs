//! The sub-commands: each measures one thing and gives a [`Group`].

use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::lab::Lab;
use crate::options::Options;
use crate::port::Job;
use crate::result::{Group, Measurement};
use crate::traffic::{Order, Traffic};

pub mod config;
pub mod cps;
pub mod engines;
pub mod floors;
pub mod flows;
pub mod hero;
pub mod latency;
pub mod packets;
pub mod scaling;
pub mod soak;
pub mod tables;
pub mod update_under_load;

/// What a sub-command works with.
pub struct Bench<'a> {
    /// What was asked for.
    pub options: &'a Options,
    /// Told what is measured now, for a person who waits.
    pub progress: &'a dyn Fn(&str),
}

/// A sub-command.
#[derive(Clone, Copy)]
pub struct Kind {
    /// As the command line spells it.
    pub name: &'static str,
    /// One sentence: what is measured and how.
    pub about: &'static str,
    run: fn(&Bench<'_>, &mut Group) -> Result<()>,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every sub-command, in the order of a whole run: limits of the machine first.
pub const ALL: &[Kind] = &[
    Kind {
        name: "floors",
        about: "Limits of this machine: what no data plane on it can be faster than.",
        run: floors::run,
    },
    Kind {
        name: "engines",
        about: "The same packets through every engine, one by one, in the caller's hands: CPU time a packet, \
                and how many times the native code's.",
        run: engines::run,
    },
    Kind {
        name: "packets",
        about: "Packets by size, direction and routing type through the worker loop: CPU time a packet, the \
                generator on the same core included; its own cost is shown as floor.",
        run: packets::run,
    },
    Kind {
        name: "flows",
        about: "Established packets that visit so many flows at random: CPU time a packet, and the memory a \
                connection (both directions) takes.",
        run: flows::run,
    },
    Kind {
        name: "cps",
        about: "Connections, each making a flow by the full policy: TCP of SYN, SYN-ACK, ACK, FIN, FIN-ACK, \
                ACK in both directions, and UDP of one packet. Connections over the worker's CPU time; every \
                packet must come out.",
        run: cps::run,
    },
    Kind {
        name: "tables",
        about: "Policy tables at full scale, without packets: look-ups (of keys spread over all rows, back to \
                back and each waiting for the last), builds, changes of one row, memory; mappings beside std's \
                hash table, routes beside DPDK's.",
        run: tables::run,
    },
    Kind {
        name: "one-ip",
        about: "DASH's test of one VM that talks to one address.",
        run: hero::one_ip,
    },
    Kind {
        name: "baby-hero",
        about: "DASH's baby hero test: its configuration loaded into running workers, established packets and \
                TCP connections over all of it.",
        run: hero::baby_hero,
    },
    Kind {
        name: "hero",
        about: "DASH's hero test for a 200G card: its configuration loaded into running workers, established \
                packets and TCP connections over all of it.",
        run: hero::hero,
    },
    Kind {
        name: "config",
        about: "Configuration: from a cold start to the first packet, mappings into a running data plane, and \
                one change to the first packet it changes.",
        run: config::run,
    },
    Kind {
        name: "update-under-load",
        about: "Packets flat out, without and with changes of mappings, routes and ACL groups, in turns.",
        run: update_under_load::run,
    },
    Kind {
        name: "scaling",
        about: "One worker and several, each with flows of its own and in turns: packets a second of all \
                workers by the clock on the wall; packets that come to the worker that has their flow, \
                and packets that all come to another and are handed over.",
        run: scaling::run,
    },
    Kind {
        name: "latency",
        about: "The highest rate without a drop (RFC 2544), and latencies at shares of it, offered by a \
                generator on a core of its own that never waits.",
        run: latency::run,
    },
    Kind {
        name: "soak",
        about: "Established packets and connections for a time: nothing lost, no buffer, no flow, no memory.",
        run: soak::run,
    },
];

impl Kind {
    /// By name.
    pub fn by_name(name: &str) -> Option<Self> {
        ALL.iter().copied().find(|kind| kind.name == name)
    }

    /// Measures.
    ///
    /// # Errors
    /// It cannot run here at all, or something came out wrong; what merely cannot be measured is in
    /// [`Group::skipped`].
    pub fn run(self, bench: &Bench<'_>) -> Result<Group> {
        (bench.progress)(self.name);
        let mut group = Group {
            name: self.name.to_owned(),
            about: self.about.to_owned(),
            command: bench.options.command(self.name),
            ..Group::default()
        };
        (self.run)(bench, &mut group).context(self.name)?;
        Ok(group)
    }
}

impl Group {
    /// Adds a sample to the figure of this name and unit, which is made when it is new.
    pub(crate) fn sample(&mut self, name: &str, unit: &str, value: f64) -> &mut Measurement {
        let at = self
            .measurements
            .iter()
            .position(|m| m.name == name && m.unit == unit)
            .unwrap_or_else(|| {
                self.measurements.push(Measurement {
                    name: name.to_owned(),
                    unit: unit.to_owned(),
                    ..Measurement::default()
                });
                self.measurements.len() - 1
            });
        let measurement = &mut self.measurements[at];
        measurement.samples.push(value);
        measurement
    }

    /// Median of a figure; NaN when there is none.
    pub(crate) fn median(&self, name: &str, unit: &str) -> f64 {
        let mut found = self
            .measurements
            .iter()
            .filter(|m| m.name == name && m.unit == unit);
        found.next().map_or(f64::NAN, Measurement::median)
    }
}

impl Measurement {
    /// Puts it on a curve of the group's plot.
    pub(crate) fn at(&mut self, series: &str, x: f64) -> &mut Self {
        self.series = Some(series.to_owned());
        self.x = Some(x);
        self
    }

    /// Gives it a goal, its number in the row's unit; `most` when a figure may be at most that.
    pub(crate) fn aim(&mut self, text: impl Into<String>, limit: f64, most: bool) -> &mut Self {
        let median = self.median();
        let reached = if most {
            median <= limit
        } else {
            median >= limit
        };
        self.goal = Some((text.into(), reached));
        self.limit = Some(limit);
        self
    }

    /// How to read it.
    pub(crate) fn note(&mut self, note: impl Into<String>) -> &mut Self {
        self.note = Some(note.into());
        self
    }
}

/// Flows made before all of them are used again: a flow that is idle for 30 s is gone, and to make
/// millions takes longer.
const CHUNK: u32 = 2 << 20;

/// Makes flows `from..from + each * workers`, a run of them a worker, and leaves all of them in use. CPU
/// time of a first packet, ns, of each part.
fn make_flows(lab: &mut Lab, traffic: &Arc<Traffic>, from: u32, each: u32) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    let mut done = 0;
    while done < each {
        let chunk = CHUNK.min(each - done);
        let part = |worker: usize, skip: u32, many: u32| {
            let from = from + each * worker as u32 + skip;
            Job::new(traffic, Order::Sequential { from }, u64::from(many))
        };
        let run = lab.forward("first packets", |worker| part(worker, done, chunk))?;
        times.push(run.ns_per_packet());
        done += chunk;
        if each > CHUNK {
            lab.forward("flows in use", |worker| part(worker, 0, done))?;
        }
    }
    Ok(times)
}
