//! The reference model: what every executor must agree with.
//!
//! A [`Model`] is a target and an engine like the others, but it runs the IR text of an image
//! itself, statement by statement, over tables that it searches from end to end. It was written from
//! the DASH reference and shares no code with the lowering or the runtime (only layouts, names, and
//! [`crate::entropy`], which is a specification), so that the same mistake is not made twice.
//!
//! ```text
//! Image.ir --text::parse--> Pipeline --check--> eval: packet + tables + flows --> verdict, bytes, counters
//! ```
//!
//! | Module | Written from |
//! |---|---|
//! | `packet` | header formats and byte-exact encaps |
//! | `translate` | IPv4 to IPv6 and back |
//! | `redirect` | a load balancer's redirect |
//! | `reset` | TCP resets for denied packets |
//! | `flow` | the connection state machine |
//! | `fragment` | what later fragments lack |
//! | `tables` | longest prefix, first ACL rule |
//! | `eval` | the statements of [`crate::ir`] |
//! | [`trace`] | nothing: it tells what happened |
//! | [`coverage`] | nothing: it records which statements ran |
//!
//! Metadata starts at zero for every packet. Not modelled: several cores (the model is one), queue
//! and MTU drops, which belong to ports.

mod counters;
pub mod coverage;
mod eval;
pub mod flow;
mod fragment;
mod limits;
mod packet;
mod redirect;
mod reset;
mod tables;
pub mod trace;
mod translate;
mod value;

use std::sync::Arc;

use dash_wire::stats::EniStat;
use dash_wire::tables::FlowEntry;
use nic_target::{
    Capacity, CounterSnapshot, FlowEdit, FlowQuery, Frame, PacketEngine, Target, TargetError,
    Update, Verdict,
};

pub use trace::TraceLine;

use crate::ir::Pipeline;
use crate::{check, text};
use counters::Counters;
use coverage::{Coverage, Recorder};
use eval::{Packet, Run, Scope};
use flow::Flows;
use limits::Limits;
use reset::Resets;
use tables::Tables;

/// Name of the engine.
const ENGINE: &str = "model";

/// The reference model.
pub struct Model {
    pipeline: Option<Arc<Pipeline>>,
    /// Of the pipeline's text, one a statement.
    lines: Vec<usize>,
    coverage: Option<Recorder>,
    tables: Tables,
    flows: Flows,
    counters: Counters,
    limits: Limits,
    now_ns: u64,
    resets: Resets,
}

impl Model {
    /// An engine without code or rows.
    pub fn new(capacity: &Capacity) -> Self {
        Self {
            pipeline: None,
            lines: Vec::new(),
            coverage: None,
            tables: Tables::new(capacity),
            flows: Flows::new(capacity.flows),
            counters: Counters::new(capacity.enis),
            limits: Limits::default(),
            now_ns: 0,
            resets: Resets::default(),
        }
    }

    /// Runs one packet as [`PacketEngine::run`] does and tells what happened to it, a line a step.
    /// Without a pipeline the verdict is [`Verdict::Aborted`], with a line that says so.
    pub fn run_traced(&mut self, frame: &mut Frame) -> (Verdict, Vec<TraceLine>) {
        let mut lines = Vec::new();
        match self.packet(frame, Some(&mut lines)) {
            Ok(verdict) => (verdict, lines),
            Err(error) => {
                lines.push(TraceLine {
                    stage: String::new(),
                    what: error.to_string(),
                    event: trace::Event::Other,
                });
                (Verdict::Aborted, lines)
            }
        }
    }

    /// From here on remembers what packets reach. `name` says in reports whose pipelines these are.
    pub fn record_coverage(&mut self, name: &str) {
        self.coverage = Some(Recorder::new(name));
    }

    /// What packets reached since recording began or the last call; empty when nothing is recorded.
    pub fn take_coverage(&mut self) -> Coverage {
        self.settle_coverage();
        let taken = self.coverage.as_mut().map(Recorder::take);
        taken.unwrap_or_default()
    }

    fn settle_coverage(&mut self) {
        if let (Some(recorder), Some(pipeline)) = (&mut self.coverage, &self.pipeline) {
            recorder.settle(pipeline, &self.lines);
        }
    }

    fn packet(
        &mut self,
        frame: &mut Frame,
        trace: Option<&mut Vec<TraceLine>>,
    ) -> Result<Verdict, TargetError> {
        self.advance(frame.timestamp_ns);
        let pipeline = Arc::clone(self.pipeline.as_ref().ok_or(TargetError::NoImage)?);
        let mut run = Run {
            tables: &self.tables,
            flows: &mut self.flows,
            counters: &mut self.counters,
            resets: &mut self.resets,
            limits: &mut self.limits,
            trace,
            coverage: self.coverage.as_mut(),
            now_ns: self.now_ns,
            in_port: frame.port,
            frame: frame.data().to_vec(),
            packet: Packet::default(),
            scope: Scope::default(),
        };
        let verdict = run.pipeline(&pipeline);
        // A frame's buffer holds what was in it and one encap for the one taken off.
        if frame.fill(&run.frame) {
            Ok(verdict)
        } else {
            Ok(Verdict::Aborted)
        }
    }
}

impl Target for Model {
    fn apply(&mut self, update: &Update) -> Result<(), TargetError> {
        let unsupported = |reason: String| TargetError::Unsupported {
            engine: ENGINE,
            reason,
        };
        let pipeline = match &update.image {
            None => None,
            Some(image) => {
                let (pipeline, lines) = text::parse_with_lines(&image.ir)
                    .map_err(|e| unsupported(format!("its IR: {e}")))?;
                check::check(&pipeline).map_err(|e| unsupported(format!("its IR: {e}")))?;
                Some((pipeline, lines))
            }
        };
        self.tables.apply(&update.delta)?;
        for eni in update.delta.deleted_enis() {
            let marked = self.flows.purge(eni);
            self.counters.eni(
                eni,
                EniStat::LbFastPathActiveFlow,
                0u64.wrapping_sub(marked),
            );
            self.limits.forget(eni);
        }
        if let Some((pipeline, lines)) = pipeline {
            self.settle_coverage();
            self.flows.timeouts = pipeline.timeouts;
            self.pipeline = Some(Arc::new(pipeline));
            self.lines = lines;
        }
        Ok(())
    }

    fn counters(&mut self) -> Result<CounterSnapshot, TargetError> {
        Ok(self.counters.snapshot())
    }

    fn flows(&mut self) -> Result<Vec<FlowEntry>, TargetError> {
        Ok(self.flows.entries().copied().collect())
    }

    fn edit_flows(&mut self, query: &FlowQuery, edit: FlowEdit) -> Result<u64, TargetError> {
        let edited = self.flows.edit(query, edit);
        for eni in &edited {
            if edit == FlowEdit::Delete {
                self.counters.eni(u32::from(*eni), EniStat::FlowDeleted, 1);
            }
        }
        Ok(edited.len() as u64)
    }
}

impl PacketEngine for Model {
    fn name(&self) -> &'static str {
        ENGINE
    }

    fn advance(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        for gone in self.flows.expire(self.now_ns) {
            self.counters.eni(u32::from(gone.eni), gone.stat, 1);
            if gone.redirected {
                let stat = EniStat::LbFastPathActiveFlow;
                self.counters.eni(u32::from(gone.eni), stat, u64::MAX);
            }
        }
    }

    fn injected(&mut self) -> Option<(u16, Vec<u8>)> {
        self.resets.sent.pop_front()
    }

    fn run(&mut self, frame: &mut Frame) -> Result<Verdict, TargetError> {
        self.packet(frame, None)
    }
}
