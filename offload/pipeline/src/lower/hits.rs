//! The part of a pipeline that packets of known flows need: everything up to the look-up, the look-up,
//! and where a hit goes. For a processor in front of the one that has the whole pipeline, like the
//! kernel in front of user space.

use dash_bpf::program::TailCalls;
use dash_bpf::{Object, Program, ProgramKind};
use dash_wire::stats::EniStat;
use nic_target::Capacity;
use nic_target::tables::{Table, map_defs};

use super::stage::lower_stage;
use super::{Flows, LowerError};
use crate::ir::{Pipeline, Stmt};
use crate::template::FLOW_STAGE;

/// A pipeline's eBPF for known flows.
#[derive(Clone, Debug)]
pub struct Hits {
    /// Programs of some stages. Their slots in the program array are those of the whole pipeline, and
    /// slots of stages that are not here are `None`: packets that get there are for the processor
    /// behind, as they were received but for the headers that `decap` took off.
    pub object: Object,
    /// ENI counters that every packet moved before its flow was looked up, and that nothing moves
    /// later. The processor behind moves them again.
    pub counted: Vec<EniStat>,
}

/// Compiles the stages that packets of known flows go through.
///
/// These programs refresh flows and never make, change or end one: packets that do so miss. They are
/// TCP segments with SYN, FIN or RST, and the first of a half-open connection's other side. Fragments and
/// ICMP errors miss too.
pub fn lower_hits(pipeline: &Pipeline, capacity: &Capacity) -> Result<Hits, LowerError> {
    crate::check::check(pipeline)?;
    let place = |name: &str| pipeline.stages.iter().position(|stage| stage.name == name);
    let flow = place(FLOW_STAGE).ok_or(LowerError::NoFlowStage)?;
    let hit = pipeline.stages[flow]
        .body
        .iter()
        .find_map(|stmt| match stmt {
            // The last: what comes before it takes hits that this processor leaves to the other.
            Stmt::FlowLookup { hit, .. } => match hit.last() {
                Some(Stmt::Goto(name)) => place(name),
                _ => None,
            },
            _ => None,
        })
        .ok_or(LowerError::NoFlowStage)?;
    // Programs of users run behind: every packet goes there that gets to them.
    let hooked = pipeline.stages[..flow]
        .iter()
        .position(|stage| stage.body.contains(&Stmt::Hook));
    let reached = hooked.unwrap_or(flow);
    let mut programs = Vec::with_capacity(flow + 2);
    let mut slots = vec![None; pipeline.stages.len()];
    for (slot, stage) in pipeline.stages.iter().enumerate() {
        let here = match hooked {
            Some(hooked) => slot < hooked,
            None => slot <= flow || slot == hit,
        };
        if !here {
            continue;
        }
        slots[slot] = Some(programs.len() as u32);
        programs.push(Program {
            name: stage.name.clone(),
            kind: ProgramKind::Xdp,
            insns: lower_stage(pipeline, stage, Flows::Shared)?,
            ..Program::default()
        });
    }
    let mut counted = Vec::new();
    for stage in &pipeline.stages[..reached] {
        counts(&stage.body, &mut counted);
    }
    counted.sort_unstable();
    counted.dedup();
    Ok(Hits {
        object: Object {
            maps: map_defs(capacity),
            programs,
            tail_calls: vec![TailCalls {
                map: Table::Stages.index(),
                programs: slots,
            }],
        },
        counted,
    })
}

/// Counters that statements name.
fn counts(body: &[Stmt], out: &mut Vec<EniStat>) {
    for stmt in body {
        match stmt {
            Stmt::Count { stat, .. } => out.push(*stat),
            Stmt::Match { hit, miss, .. } | Stmt::FlowLookup { hit, miss, .. } => {
                counts(hit, out);
                counts(miss, out);
            }
            Stmt::If { then, els, .. } => {
                counts(then, out);
                counts(els, out);
            }
            _ => {}
        }
    }
}
