//! `dashctl trace`: packets through the reference model, a line a step, each with the object it came
//! to; or a JSON object a packet.

use std::io::Write;

use anyhow::{Context, Result};
use dash_engine::Engine;
use dash_pipeline::model::trace::Event;
use dash_pipeline::model::{Model, TraceLine};
use dash_wire::drop::DropReason;
use dashctl::engines::EngineName;
use dashctl::progress::Spinner;
use nic_sim::CaptureReader;
use nic_sim::dissect::describe_with;
use nic_target::{Frame, Verdict};
use serde::Serialize;

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
        let first = *start.get_or_insert(packet.timestamp_ns);
        let since = packet.timestamp_ns as i128 - i128::from(first);
        let mut told = Told {
            packet: number + 1,
            seconds: since as f64 / 1e9,
            bytes: packet.data.len(),
            r#in: describe(&packet.data),
            ..Told::default()
        };
        if frame.fill(&packet.data) {
            frame.port = 0;
            now = packet.timestamp_ns.max(now);
            frame.timestamp_ns = now;
            let (verdict, lines) = engine.target_mut().run_traced(&mut frame);
            told.steps(&engine, lines);
            told.end(verdict, || describe(frame.data()));
        } else {
            told.fate = "left out: longer than any buffer".to_owned();
        }
        if args.json {
            serde_json::to_writer(&mut out, &told)?;
            writeln!(out)?;
        } else {
            let left = told.out.is_some().then(|| frame.data());
            told.write(&mut out, args.bytes.then_some((&packet.data[..], left)))?;
        }
    }
    out.flush().context("standard output")
}

/// A packet's way, as `--json` writes it.
#[derive(Default, Serialize)]
struct Told {
    /// From 1.
    packet: usize,
    /// Since the first of the capture.
    seconds: f64,
    bytes: usize,
    r#in: String,
    steps: Vec<Step>,
    /// `send`, `drop`, `pass` or `abort`; absent for a packet that was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<String>,
    /// `hit`, `created`, `reset` or `miss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drop: Option<Dropped>,
    /// Objects that decided, in order, each once.
    objects: Vec<String>,
    /// All of it in a sentence.
    fate: String,
}

#[derive(Serialize)]
struct Step {
    stage: String,
    what: String,
    /// The object of the row that was found, or where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
}

#[derive(Serialize)]
struct Dropped {
    reason: &'static str,
    stage: String,
    counters: Vec<&'static str>,
}

impl Told {
    fn steps(&mut self, engine: &Engine<Model>, lines: Vec<TraceLine>) {
        for TraceLine { stage, what, event } in lines {
            let mut object = None;
            match event {
                Event::Lookup(looked) => {
                    let explained = engine.explain(&looked);
                    if let Some(explained) = explained {
                        let key = explained.object.as_ref().map(|_| explained.text.clone());
                        self.objects
                            .extend(key.filter(|key| !self.objects.contains(key)));
                        object = Some(explained.text);
                    }
                }
                Event::FlowHit { .. } => self.flow = Some("hit"),
                Event::FlowReset => self.flow = Some("reset"),
                Event::FlowMiss => self.flow = Some("miss"),
                Event::FlowCreated => self.flow = Some("created"),
                Event::Drop(reason) => self.dropped(reason, &stage),
                Event::Other => {}
            }
            self.steps.push(Step {
                stage,
                what,
                object,
            });
        }
    }

    fn dropped(&mut self, reason: DropReason, stage: &str) {
        let port = reason.port_stats().iter().map(|s| s.name());
        self.drop = Some(Dropped {
            reason: reason.name(),
            stage: stage.to_owned(),
            counters: port
                .chain(reason.eni_stats().iter().map(|s| s.name()))
                .collect(),
        });
    }

    fn end(&mut self, verdict: Verdict, out: impl FnOnce() -> String) {
        let (word, mut fate) = match verdict {
            Verdict::Send(port) => {
                self.port = Some(port);
                self.out = Some(out());
                ("send", format!("sent by port {port}"))
            }
            Verdict::Drop => ("drop", "dropped".to_owned()),
            Verdict::Pass => ("pass", "for the control plane".to_owned()),
            Verdict::Aborted => ("abort", "the program failed".to_owned()),
        };
        self.verdict = Some(word);
        if let Some(drop) = &self.drop {
            fate += &format!(" in stage {}: {}", drop.stage, drop.reason);
            // What was looked for last is what decided.
            let last = self
                .steps
                .iter()
                .rev()
                .find_map(|step| step.object.as_ref());
            if let Some(last) = last {
                fate += &format!(" ({last})");
            }
        } else if self.flow == Some("hit") {
            fate += " by its flow";
        } else if let Some(last) = self.objects.last() {
            fate += &format!(" by {last}");
        }
        match self.flow {
            Some("created") => fate += "; a flow was made",
            Some("reset") => fate += "; its flow was ended",
            _ => {}
        }
        self.fate = fate;
    }

    /// A block of lines; `bytes` has the packet before and after.
    fn write(
        &self,
        out: &mut impl Write,
        bytes: Option<(&[u8], Option<&[u8]>)>,
    ) -> std::io::Result<()> {
        writeln!(
            out,
            "packet {} at {:.6} s, {} bytes",
            self.packet, self.seconds, self.bytes
        )?;
        writeln!(out, "  in     {}", self.r#in)?;
        if let Some((before, _)) = bytes {
            hexdump(out, before)?;
        }
        for step in &self.steps {
            writeln!(out, "  {:<10} {}", step.stage, step.what)?;
            if let Some(object) = &step.object {
                writeln!(out, "  {:<10}   = {object}", "")?;
            }
        }
        match (&self.out, self.port) {
            (Some(what), Some(port)) => writeln!(out, "  out    port {port}: {what}")?,
            _ => writeln!(out, "  out    nothing: {}", self.reason())?,
        }
        if let Some((_, Some(after))) = bytes {
            hexdump(out, after)?;
        }
        writeln!(out, "  fate   {}\n", self.fate)
    }

    fn reason(&self) -> &'static str {
        match self.verdict {
            Some("drop") => "dropped",
            Some("pass") => "for the control plane",
            Some(_) => "the program failed",
            None => "left out",
        }
    }
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
