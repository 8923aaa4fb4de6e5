//! IR to eBPF: one program a stage, chained by tail calls through [`Table::Stages`].
//!
//! Registers: r6 the context, r7 the metadata row, r8 and r9 the rows of the two outermost
//! `match` statements; deeper rows and the ENI's counter block are spilled to the stack. r0-r5 are
//! scratch. Every stage proves its own bounds: metadata says nothing a stage relies on for safety.
//!
//! The code keeps to cpu v3 (no `movsx`, `bswap`, signed division, atomics), so every executor and
//! every kernel since 5.10 runs it.

mod apply;
mod epoch;
mod expr;
mod flow;
mod hits;
mod limits;
mod parse;
mod redirect;
mod stage;
mod translate;

pub use hits::{Hits, lower_hits};

use dash_bpf::program::TailCalls;
use dash_bpf::{Object, Program, ProgramKind};
use nic_target::Capacity;
use nic_target::tables::{Table, map_defs};
use thiserror::Error;

use crate::check::CheckError;
use crate::ir::Pipeline;

/// Why a pipeline has no eBPF form.
#[derive(Debug, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum LowerError {
    #[error("the pipeline is not well formed: {0}")]
    Check(#[from] CheckError),
    #[error("stage {stage}: {source}")]
    Build {
        stage: String,
        source: dash_bpf::builder::BuildError,
    },
    #[error("stage {stage} needs {need} bytes of stack; a program has 512")]
    Stack { stage: String, need: usize },
    #[error("{0} stages; the program array holds 16")]
    TooManyStages(usize),
    #[error("stage {stage}: {what}")]
    Unsupported { stage: String, what: String },
    #[error("no stage looks flows up")]
    NoFlowStage,
}

/// What a program may do to the flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flows {
    /// All of it: its processor is the table's only user.
    Owned,
    /// Look up and refresh ([`lower_hits`]).
    Shared,
}

/// Compiles a pipeline. Map index equals table number; program `i` is stage `i`.
pub fn lower(pipeline: &Pipeline, capacity: &Capacity) -> Result<Object, LowerError> {
    crate::check::check(pipeline)?;
    if pipeline.stages.len() > 16 {
        return Err(LowerError::TooManyStages(pipeline.stages.len()));
    }
    let mut programs = Vec::with_capacity(pipeline.stages.len());
    for stage in &pipeline.stages {
        programs.push(Program {
            name: stage.name.clone(),
            kind: ProgramKind::Xdp,
            insns: stage::lower_stage(pipeline, stage, Flows::Owned)?,
            ..Program::default()
        });
    }
    let slots = (0..programs.len() as u32).map(Some).collect();
    Ok(Object {
        maps: map_defs(capacity),
        programs,
        tail_calls: vec![TailCalls {
            map: Table::Stages.index(),
            programs: slots,
        }],
    })
}
