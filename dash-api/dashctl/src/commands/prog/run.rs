//! `dashctl prog run`: a program over a capture.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use dash_bpf::MapKind;
use dash_bpf::helper::XdpAction;
use dash_bpf::map::Pinning;
use dash_pipeline::plan::UnderlayTable;
use dash_prog::helpers::Services;
use dash_prog::helpers::fib::{Answer, Fib, Query};
use dash_prog::{Ingress, LoadOptions, Loaded, Packet, Target};
use dash_verify::Policy;
use dashctl::mapfile::{PinDir, Words, map_json};
use dashctl::underlay;
use nic_sim::{CaptureReader, CaptureWriter};
use nic_target::Frame;
use serde_json::{Value, json};

use crate::cli::ProgRun;

/// Actions in the order of their numbers.
const ACTIONS: [(XdpAction, &str); 5] = [
    (XdpAction::Aborted, "XDP_ABORTED"),
    (XdpAction::Drop, "XDP_DROP"),
    (XdpAction::Pass, "XDP_PASS"),
    (XdpAction::Tx, "XDP_TX"),
    (XdpAction::Redirect, "XDP_REDIRECT"),
];

/// Largest IP packet that ports are said to take.
const MTU: u16 = 1500;

pub(super) fn run(args: &ProgRun) -> Result<()> {
    super::super::replay::refuse_same_file(&args.input, &args.output)?;
    let input = CaptureReader::open(&args.input)?;
    let pins = args.pins.as_deref().map(PinDir::open).transpose()?;
    let loaded = load(args, pins.as_ref())?;
    let program = match &args.section {
        Some(name) => loaded.program(name),
        None => loaded.first(),
    };
    let program = program.context("the object has no program")?;
    for words in &args.set {
        set(&loaded, words).with_context(|| format!("--set {words:?}"))?;
    }
    let mut runner = program.runner(0).context("no worker")?;
    let mut output = CaptureWriter::create(&args.output)?;
    let mut events = match &args.events {
        Some(path) => {
            let file = File::create(path);
            let file = file.with_context(|| format!("cannot create {}", path.display()))?;
            Some(BufWriter::new(file))
        }
        None => None,
    };

    let mut verdicts = [0u64; 5];
    let mut targets: BTreeMap<String, u64> = BTreeMap::new();
    let (mut packets, mut too_long) = (0u64, 0u64);
    let mut frame = Frame::new();
    for packet in input {
        let packet = packet?;
        if !frame.fill(&packet.data) {
            too_long += 1;
            continue;
        }
        packets += 1;
        let ingress = Ingress {
            ifindex: args.ifindex,
            now_ns: packet.timestamp_ns,
            ..Ingress::default()
        };
        let (memory, start, end) = frame.parts_mut();
        let mut packet_in = Packet::new(memory, start..end).context("a frame is in its buffer")?;
        let outcome = runner.run(&mut packet_in, &ingress);
        if let Some(trap) = outcome.trap {
            bail!("packet {packets}: {trap}: this is a bug of the verifier");
        }
        if outcome.out_of_fuel {
            let fuel = args.fuel.unwrap_or_default();
            bail!("packet {packets}: out of fuel: more than {fuel} instructions");
        }
        verdicts[outcome.action as usize] += 1;
        if outcome.action == XdpAction::Redirect {
            let to = match outcome.target {
                Some(Target::Port(port)) => format!("port {port}"),
                Some(Target::Socket(socket)) => format!("socket {socket}"),
                None => "nowhere".to_owned(),
            };
            *targets.entry(to).or_default() += 1;
        }
        let leaves = match outcome.action {
            XdpAction::Pass | XdpAction::Tx => true,
            XdpAction::Redirect => outcome.target.is_some(),
            XdpAction::Aborted | XdpAction::Drop => false,
        };
        if leaves {
            output.write(packet.timestamp_ns, packet_in.data())?;
        }
        if let Some(events) = &mut events {
            drain(&loaded, packet.timestamp_ns, events).context("cannot write events")?;
        }
    }
    output.finish()?;
    if let Some(mut events) = events {
        events.flush().context("cannot write events")?;
    }
    if let Some(path) = &args.maps {
        let maps: Value = loaded.maps().iter().map(map_json).collect();
        std::fs::write(path, format!("{maps:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(pins) = &pins {
        for map in loaded.maps() {
            if map.def().pinning == Pinning::ByName {
                pins.put(&map.def().name, map)?;
            }
        }
    }
    say(args, program.name(), packets, too_long, &verdicts, &targets)
}

fn say(
    args: &ProgRun,
    program: &str,
    packets: u64,
    too_long: u64,
    verdicts: &[u64; 5],
    targets: &BTreeMap<String, u64>,
) -> Result<()> {
    if args.print.wanted() {
        let counts = ACTIONS.iter().map(|(action, name)| {
            let count = verdicts[*action as usize];
            ((*name).to_owned(), Value::from(count))
        });
        return args.print.json(&json!({
            "program": program,
            "engine": args.engine.name(),
            "packets": packets,
            "too_long": too_long,
            "verdicts": counts.collect::<serde_json::Map<_, _>>(),
            "redirected": targets,
        }));
    }
    let mut line = format!("{}: {program}: {packets} packets in", args.engine);
    for (action, name) in ACTIONS {
        match verdicts[action as usize] {
            0 => {}
            count => line.push_str(&format!(", {count} {name}")),
        }
    }
    for (target, count) in targets {
        line.push_str(&format!(" ({count} to {target})"));
    }
    if too_long > 0 {
        line.push_str(&format!(", {too_long} too long"));
    }
    super::print(&format!("{line}\n"))
}

fn load(args: &ProgRun, pins: Option<&PinDir>) -> Result<Loaded> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let files = args.files.iter().map(read).collect::<Result<Vec<_>>>()?;
    let files: Vec<_> = files.iter().map(Vec::as_slice).collect();
    let fib = Underlay(underlay::table(&args.routes, &args.neighbors));
    let options = LoadOptions {
        engine: args.engine,
        policy: Policy {
            judge: args.verifier,
            ..Policy::default()
        },
        fuel: args.fuel,
        section: args.section.clone(),
        pins: pins.map(PinDir::pins).transpose()?,
        services: Services {
            print: Some(Arc::new(|line: &str| eprintln!("{}", line.trim_end()))),
            fib: Some(Arc::new(fib)),
        },
        ..LoadOptions::default()
    };
    Loaded::from_elf(&files, &options).with_context(|| {
        let names = args.files.iter().map(|path| path.display().to_string());
        format!("cannot load {}", names.collect::<Vec<_>>().join(", "))
    })
}

/// Sets an element as `NAME key ... value ...` says; of a program array the value may be a program's name.
fn set(loaded: &Loaded, words: &str) -> Result<()> {
    let mut words = words.split_whitespace();
    let name = words.next().context("no map is named")?;
    let map = loaded.maps().get(name);
    let map = map.ok_or_else(|| anyhow!("the object has no map {name}"))?;
    let rest: Vec<&str> = words.collect();
    if map.def().kind == MapKind::ProgArray
        && let Some((program, key)) = rest.split_last()
        && let Some(program) = loaded.programs().find(|p| p.name() == *program)
        && let Some(("value", key)) = key.split_last().map(|(last, key)| (*last, key))
    {
        let key = Words::read(key.iter().copied())?.key;
        return Ok(map.update(&key, &program.number().to_ne_bytes(), 0)?);
    }
    Words::read(rest)?.set(map)
}

/// Writes what ring buffers and arrays of perf events hold, a line a record.
fn drain(loaded: &Loaded, now_ns: u64, to: &mut BufWriter<File>) -> Result<()> {
    for map in loaded.maps() {
        if !map.def().kind.holds_records() {
            continue;
        }
        while let Some(record) = map.pop()? {
            let data: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
            let line = json!({ "time_ns": now_ns, "map": map.def().name, "data": data });
            writeln!(to, "{line}")?;
        }
    }
    Ok(())
}

/// Routes and neighbours of the command line.
#[derive(Debug)]
struct Underlay(UnderlayTable);

impl Fib for Underlay {
    fn lookup(&self, query: &Query) -> Answer {
        underlay::lookup(&self.0, query, |_| MTU)
    }
}
