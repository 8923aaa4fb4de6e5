//! `dashctl trace`: packets through the reference model, a line a step.

use std::io::Write;

use anyhow::{Context, Result};
use dash_engine::Engine;
use dash_pipeline::model::Model;
use dashctl::engines::EngineName;
use dashctl::progress::Spinner;
use nic_sim::CaptureReader;
use nic_sim::dissect::describe_with;
use nic_target::{Frame, Verdict};

use crate::cli::Trace;

pub(crate) fn run(args: &Trace) -> Result<()> {
    let input = CaptureReader::open(&args.input)?;
    let options = args.setup.options(EngineName::Model);
    let spinner = Spinner::new("compiling and verifying");
    let mut engine = Engine::new(options.clone(), Box::new(Model::new(&options.capacity)))?;
    args.setup.configure(&mut engine)?;
    drop(spinner);

    let describe = |data: &[u8]| describe_with(data, options.settings.vxlan_port);
    let mut out = std::io::stdout().lock();
    let mut frame = Frame::new();
    let mut start = None;
    let mut now = 0;
    for (number, packet) in input.enumerate() {
        let packet = packet?;
        let number = number + 1;
        let first = *start.get_or_insert(packet.timestamp_ns);
        let since = packet.timestamp_ns as i128 - i128::from(first);
        writeln!(
            out,
            "packet {number} at {:.6} s, {} bytes",
            since as f64 / 1e9,
            packet.data.len()
        )?;
        writeln!(out, "  in     {}", describe(&packet.data))?;
        if args.bytes {
            hexdump(&mut out, &packet.data)?;
        }
        if !frame.fill(&packet.data) {
            writeln!(out, "  -      longer than any buffer: left out\n")?;
            continue;
        }
        frame.port = 0;
        now = packet.timestamp_ns.max(now);
        frame.timestamp_ns = now;
        let (verdict, lines) = engine.target_mut().run_traced(&mut frame);
        for line in lines {
            writeln!(out, "  {:<10} {}", line.stage, line.what)?;
        }
        match verdict {
            Verdict::Send(port) => {
                writeln!(out, "  out    port {port}: {}", describe(frame.data()))?;
                if args.bytes {
                    hexdump(&mut out, frame.data())?;
                }
                writeln!(out)?;
            }
            Verdict::Drop => writeln!(out, "  out    nothing: dropped\n")?,
            Verdict::Pass => writeln!(out, "  out    nothing: for the control plane\n")?,
            Verdict::Aborted => writeln!(out, "  out    nothing: the program failed\n")?,
        }
    }
    out.flush().context("standard output")
}

/// Sixteen bytes a line behind their offset.
fn hexdump(out: &mut impl Write, data: &[u8]) -> std::io::Result<()> {
    for (line, bytes) in data.chunks(16).enumerate() {
        write!(out, "         {:04x} ", line * 16)?;
        for byte in bytes {
            write!(out, " {byte:02x}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
