//! `dashctl bench`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use dash_lab::against::PEERS;
use dash_lab::measure::{ALL, Bench as Measure, Kind};
use dash_lab::result::{Group, Run};
use dash_lab::{Options, against, external, machine, render};
use dashctl::progress::Status;

use crate::cli::Bench;

pub(crate) fn run(args: &Bench) -> Result<()> {
    let options = Options {
        quick: args.quick,
        samples: args.samples.map(usize::from),
        seconds: args.seconds,
        workers: usize::from(args.workers),
        background: args.background,
        cache_dir: args.cache.path(),
        seed: args.seed,
    };
    let everything = args.what.is_empty()
        && args.against.is_empty()
        && args.target.is_none()
        && args.pcap.is_none();
    let external = args.target.is_some() || args.pcap.is_some();
    if !args.configs.is_empty() && !external {
        bail!("--config is of --target or --pcap: what else is measured brings its own");
    }
    let kinds: Vec<Kind> = ALL
        .iter()
        .copied()
        .filter(|kind| everything || args.what.iter().any(|what| what == kind.name))
        .collect();
    let out = args
        .out
        .clone()
        .or_else(|| everything.then(|| PathBuf::from("bench")));
    let mut report = Run {
        machine: machine::describe(),
        groups: Vec::new(),
    };
    let ports = everything || args.target.is_some() || !args.against.is_empty();
    for kind in kinds {
        if cfg!(feature = "dpdk") && kind.name == TABLES && ports {
            report.groups.push(apart(kind, &options)?);
            continue;
        }
        let status = Status::new();
        report.groups.push(kind.run(&Measure {
            options: &options,
            progress: &|what| status.say(what),
        })?);
    }
    let status = Status::new();
    let bench = Measure {
        options: &options,
        progress: &|what| status.say(what),
    };
    if let Some(spec) = &args.target {
        let group = external::target(spec, &args.configs, &bench)?;
        report.groups.push(group);
    }
    if let Some(path) = &args.pcap {
        let group = external::capture(path, &args.configs, &bench)?;
        report.groups.push(group);
    }
    let peers: Vec<&str> = if everything {
        PEERS.to_vec()
    } else {
        args.against.iter().map(String::as_str).collect()
    };
    if !peers.is_empty() {
        report.groups.push(against::run(&peers, &bench)?);
    }
    drop(status);
    report.machine.load[1] = machine::load();
    print!("{}", render::terminal(&report));
    if let Some(out) = out {
        write(&out, &report)?;
    }
    Ok(())
}

/// Compares with DPDK's tables, for which EAL must run.
const TABLES: &str = "tables";

/// Measures in a process of its own: EAL starts once in a process, and ports of DPDK come in this one.
fn apart(kind: Kind, options: &Options) -> Result<Group> {
    let out = tempfile::tempdir().context("a folder for the report")?;
    let command = options.command(kind.name);
    let waiting = Status::new();
    waiting.say(&format!("{}, in a process of its own", kind.name));
    let child = Command::new(std::env::current_exe().context("this program's file")?)
        .args(command.split(' ').skip(1))
        .arg("--out")
        .arg(out.path())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command}"))?;
    let said = String::from_utf8_lossy(&child.stderr);
    ensure!(
        child.status.success(),
        "{command}: {}: {said}",
        child.status
    );
    let path = out.path().join("report.json");
    let text = std::fs::read_to_string(&path).with_context(|| command.clone())?;
    let mut groups = render::read_json(&text)?.groups.into_iter();
    groups
        .next()
        .with_context(|| format!("{command}: nothing was measured"))
}

fn write(out: &Path, report: &Run) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    for (name, text) in [
        ("report.json", render::json(report)),
        ("report.html", render::html(report)),
        ("report.svg", render::summary_svg(report)),
    ] {
        let path = out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    eprintln!("report in {}", out.display());
    Ok(())
}
