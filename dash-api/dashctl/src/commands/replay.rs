//! `dashctl replay`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use dash_engine::replay;
use dashctl::progress::Progress;
use nic_sim::{CaptureReader, CaptureWriter};

use crate::cli::Replay;

pub(crate) fn run(args: &Replay) -> Result<()> {
    refuse_same_file(&args.input, &args.output)?;
    // Opened before the seconds that compiling may take, so that a wrong name is said at once.
    let input = CaptureReader::open(&args.input)?;
    let mut engine = args.setup.engine(args.engine)?;
    let mut output = CaptureWriter::create(&args.output)?;

    let mut progress = Progress::new("packets", 0);
    let packets = input.map(|packet| {
        progress.add(1);
        packet.map(|p| (p.timestamp_ns, p.data))
    });
    let summary = replay(engine.target_mut(), packets, |timestamp_ns, data| {
        output.write(timestamp_ns, data)
    })?;
    drop(progress);
    output.finish()?;

    if let Some(path) = &args.counters {
        let mut counters = engine.counters()?;
        for (name, value) in summary.port_counters() {
            counters["port"][name] = value.into();
        }
        write(path, |out| {
            serde_json::to_writer_pretty(&mut *out, &counters)?;
            writeln!(out)
        })?;
    }
    if let Some(path) = &args.flows {
        let flows = engine.flows_jsonl()?;
        write(path, |out| out.write_all(flows.as_bytes()))?;
    }

    let over = summary
        .first_ns
        .zip(summary.last_ns)
        .map(|(first, last)| last.saturating_sub(first))
        .unwrap_or(0);
    eprintln!(
        "{}: {} packets in over {:.3} s: {} forwarded, {} dropped, {} for the control plane, {} too long; {} flows live",
        args.engine,
        summary.received,
        over as f64 / 1e9,
        summary.forwarded,
        summary.dropped,
        summary.passed,
        summary.too_long,
        engine.flow_count()?,
    );
    if summary.aborted > 0 {
        bail!(
            "the program failed on {} packets: this is a bug",
            summary.aborted
        );
    }
    Ok(())
}

/// Creating the output would empty the input.
pub(super) fn refuse_same_file(input: &Path, output: &Path) -> Result<()> {
    match (input.canonicalize(), output.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => bail!("{} cannot be both input and output", input.display()),
        _ => Ok(()),
    }
}

fn write(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut out = BufWriter::new(file);
    content(&mut out)
        .and_then(|()| out.flush())
        .with_context(|| format!("cannot write {}", path.display()))
}
