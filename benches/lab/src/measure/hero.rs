//! `dashctl bench hero`, `baby-hero`, `one-ip`: DASH's own scale tests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dash_wire::stats::EniStat;
use dash_wire::tables::Direction;
use nic_sim::packet::tcp_flags::{ACK, FIN, SYN};
use nic_target::Capacity;

use super::{Bench, cps};
use crate::configs::{Config, Expect as Must, Flow, Scale};
use crate::lab::{Lab, capacity};
use crate::machine::{available_memory, resident_memory};
use crate::port::{Job, Stream, floor};
use crate::result::Group;
use crate::traffic::{Expect, Order, Template, Traffic, Vm, splitmix};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Payload that makes the inner frame 64 bytes with its FCS.
const SMALL: usize = 18;
/// Flows of a template that differ in the port alone: more would move the VM's address.
const PORTS: u32 = 1 << 14;
/// Passes over all flows at most, until none of them had aged since the last.
const REFRESHES: u32 = 4;
/// Flows of background traffic are the upper half of a template's ports, connections the lower.
const HALF: u32 = PORTS / 2;

pub(super) fn one_ip(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    test(bench, group, Scale::ONE_IP, 10_000, f64::INFINITY)
}

pub(super) fn baby_hero(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let scale = bench
        .options
        .scale(Scale::BABY_HERO.shrink(16), Scale::BABY_HERO);
    test(bench, group, scale, 1 << 20, 1e6)
}

pub(super) fn hero(bench: &Bench<'_>, group: &mut Group) -> Result<()> {
    let scale = bench.options.scale(Scale::HERO.shrink(50), Scale::HERO);
    test(bench, group, scale, 16 << 20, 0.7e6)
}

/// A template of a connection's direction, its VM port that of flow 0.
fn template(flow: &Flow, flags: u8, payload: usize) -> Result<Template> {
    let vm = match flow.direction {
        Direction::Outbound => Vm::Source,
        Direction::Inbound => Vm::Destination,
    };
    let expect = match flow.expect {
        Must::Sent { to, vni, .. } => Expect::Vxlan {
            vni,
            dip: to.octets(),
        },
        Must::Dropped(_) => Expect::Nothing,
    };
    Template::new(flow.frame(flags, payload), vm, expect)
}

/// So many allowed connections from VMs, to different addresses as far as there are any, spread over
/// everything the configuration has.
fn connections(config: &Config, many: u32, proto: u8, seed: u64) -> Vec<Flow> {
    // Numbers below this differ in address; above it, in ports and protocol.
    let addresses = (config.connections() / 120_000).max(1);
    let mut numbers = BTreeSet::new();
    let mut random = seed;
    if addresses <= u64::from(many) {
        numbers.extend(0..addresses);
    } else {
        while numbers.len() < many as usize {
            numbers.insert(splitmix(&mut random) % addresses);
        }
    }
    let numbers: Vec<u64> = numbers.into_iter().collect();
    let flows = (0..many as usize).map(|n| {
        let flow = config.outbound(numbers[n % numbers.len()]);
        Flow {
            proto,
            // The same address again is another service.
            dport: flow.dport + (n / numbers.len()) as u16,
            ..flow
        }
    });
    flows.collect()
}

/// Packets of one allowed connection.
pub(super) fn first(config: &Config) -> Result<Arc<Traffic>> {
    let flow = Flow {
        proto: UDP,
        ..config.outbound(0)
    };
    Ok(Arc::new(Traffic::of(template(&flow, 0, SMALL)?)))
}

/// The six packets of TCP connections.
fn scripts(flows: &[Flow]) -> Result<Traffic> {
    let mut templates = Vec::with_capacity(flows.len() * cps::STEPS as usize);
    for flow in flows {
        let reply = flow.reply().context("an allowed connection has a reply")?;
        for (flow, flags) in [
            (flow, SYN),
            (&reply, SYN | ACK),
            (flow, ACK),
            (flow, FIN | ACK),
            (&reply, FIN | ACK),
            (flow, ACK),
        ] {
            templates.push(template(flow, flags, 0)?);
        }
    }
    Traffic::script(templates, cps::STEPS, 256)
}

/// Background flows for which there is memory, and what the tables must hold.
fn fit(bench: &Bench<'_>, config: &Config, wanted: u32, connections: u32) -> (u32, Capacity) {
    let options = bench.options;
    if options.quick {
        return (options.background.unwrap_or(500), capacity(1 << 16));
    }
    // A connection of both directions takes 128 bytes at least, and 400 at most.
    let most = (available_memory() / 2 / 400).min(u64::from(u32::MAX)) as u32;
    let background = options.background.unwrap_or(wanted).min(most);
    (background, config.capacity(background + connections))
}

/// Visits every background flow once, so that none is close to its age; how many had aged and were made
/// again.
fn refresh(lab: &mut Lab, udp: &Arc<Traffic>, base: u32, each: u32) -> Result<u64> {
    let made = lab.eni_counter(EniStat::FlowCreated)?;
    lab.forward("flows in use", |worker| {
        let from = base + each * worker as u32;
        Job::new(udp, Order::Sequential { from }, u64::from(each))
    })?;
    Ok(lab.eni_counter(EniStat::FlowCreated)? - made)
}

fn test(
    bench: &Bench<'_>,
    group: &mut Group,
    scale: Scale,
    background: u32,
    goal: f64,
) -> Result<()> {
    let options = bench.options;
    let config = Config::new(scale);
    let samples = options.samples() as u32;
    let each = options.scale(512, if goal.is_finite() { 25_600 } else { 5_120 });
    // One of the first sample's is done before, to warm up.
    let (background, capacity) = fit(
        bench,
        &config,
        background,
        each * (samples + 1) * options.workers as u32,
    );
    let templates = options.scale(64, 2_048);
    let background = background.min(templates * HALF);

    (bench.progress)(&format!("{}: loading", group.name));
    let before = resident_memory();
    let mut lab = Lab::start(options, capacity)?;
    // Without flows, whose memory is taken by now.
    let started = resident_memory();
    let (mut rows, mut commit, whole) = (0, Duration::ZERO, Instant::now());
    for txn in config.txns() {
        rows += txn.ops.len();
        let start = Instant::now();
        lab.engine().commit(txn).context("the configuration")?;
        commit += start.elapsed();
    }
    let whole = whole.elapsed();
    let counts = config.counts();
    let row = group.sample("rows", "rows", rows as f64);
    row.note(format!(
        "{} ENIs, {} mappings, {} routes, {} inbound rules, {} ACL rules with {} prefixes",
        counts.enis,
        counts.mappings,
        counts.routes,
        counts.inbound_rules,
        counts.acl_rules,
        counts.acl_prefixes
    ));
    let row = group.sample("load time", "ms", commit.as_secs_f64() * 1e3);
    row.note(format!(
        "commits into the running data plane, one transaction an ENI; with making the objects {:.0} ms",
        whole.as_secs_f64() * 1e3
    ));
    let memory = resident_memory().saturating_sub(started);
    group.sample("memory of the configuration", "bytes", memory as f64);

    let udp = connections(&config, templates, UDP, options.seed);
    let udp = udp.iter().map(|flow| template(flow, 0, SMALL));
    let udp = Arc::new(Traffic::spread(udp.collect::<Result<_>>()?));
    let tcp = Arc::new(scripts(&connections(
        &config,
        templates,
        TCP,
        options.seed,
    ))?);
    let base = templates * HALF;
    (bench.progress)(&format!("{}: {background} flows", group.name));
    for ns in super::make_flows(&mut lab, &udp, base, background / options.workers as u32)? {
        group.sample("first packets of flows", "ns/packet", ns);
    }
    let memory = resident_memory().saturating_sub(before);
    group.sample("memory with flows", "bytes", memory as f64);
    let per_worker = background / options.workers as u32;
    for _ in 0..REFRESHES {
        if refresh(&mut lab, &udp, base, per_worker)? == 0 {
            break;
        }
    }

    let packets = options.scale(2_000, 300_000);
    let aged = lab.eni_counter(EniStat::FlowAged)?;
    let (mut from, mut renewed, mut visited) = (0, 0, 0);
    for n in 0..samples {
        (bench.progress)(&format!("{}: sample {}", group.name, n + 1));
        let order = |worker: usize| Order::Random {
            from: base,
            flows: background,
            seed: options.seed + u64::from(n) * 64 + worker as u64,
        };
        let made = lab.eni_counter(EniStat::FlowCreated)?;
        let run = lab.forward("established", |w| Job::new(&udp, order(w), packets))?;
        renewed += lab.eni_counter(EniStat::FlowCreated)? - made;
        visited += run.packets();
        let name = format!("established, {background} flows");
        group.sample(&name, "ns/packet", run.ns_per_packet());
        group.sample(&name, "Mpps", 1e3 / run.ns_per_packet());
        let alone = floor(Job::new(&udp, order(0), packets));
        group.sample(
            "generator and port alone",
            "ns/packet",
            alone.ns_per_packet(),
        );

        let busy = |worker| Stream {
            traffic: Arc::clone(&udp),
            order: order(worker),
            share: 1,
        };
        let first = from;
        let run = lab.forward("connections", |worker| {
            let from = first + worker as u32 * each;
            cps::job(&tcp, from, each, Some(busy(worker)))
        })?;
        from += each * options.workers as u32;
        ensure!(from < base, "connections run into the background's ports");
        let made = run.sent(0) / u64::from(cps::STEPS);
        let name = "TCP connections, 6 packets, with background";
        group.sample(name, "CPS", cps::rate(made, run.cpu_ns()));
        group.sample(
            &format!("{name}, lost in the data plane"),
            "packets",
            run.lost as f64,
        );
    }
    let aged = lab.eni_counter(EniStat::FlowAged)? - aged;
    if renewed > 0 {
        let share = renewed as f64 / visited.max(1) as f64 * 100.0;
        for row in &mut group.measurements {
            if row.name.starts_with("established") {
                row.note(format!(
                    "{share:.2} % of the packets made their flow anew, as it had aged: that cost is in it"
                ));
            }
        }
    }
    let name = "TCP connections, 6 packets, with background";
    let first = group.median("first packets of flows", "ns/packet");
    let established = group.median(&format!("established, {background} flows"), "ns/packet");
    if let Some(row) = group.measurements.iter_mut().find(|m| m.name == name) {
        let mut note = format!(
            "a core; one packet of the {background} background flows for each connection is in it; {aged} flows aged meanwhile"
        );
        if goal.is_finite() && row.median() < goal {
            // Five of the six packets and the background's are of flows that are there.
            let whole = 1e9 / row.median();
            note.push_str(&format!(
                "; what holds it back: {whole:.0} ns a connection, when one first packet is {first:.0} ns and six \
                 established ones are {:.0} ns",
                6.0 * established
            ));
        }
        row.note(note);
        if goal.is_finite() && !options.quick {
            row.aim(format!("at least {goal:.0} CPS a core (P5)"), goal, false);
        }
    }
    Ok(())
}
