//! What a pipeline must keep to before anything runs it: [`check`].
//!
//! - **Names and types.** Numbers go to numbers and are cut to the destination's width; byte strings
//!   go to byte strings of one length. A row is known only inside its hit block, a local only after
//!   its `var` in the same block or inside it.
//! - **Every path ends.** Each path of a stage reaches exactly one `goto`, `drop`, `pass`, `send` or
//!   `forward`; `goto` only goes down the list, so a pipeline always ends.
//! - **Order.** Facts about what surely and what possibly happened before are carried along every
//!   path, through `goto` too: `decap` after `parse vxlan` of the same stage, nothing that counts to
//!   an ENI before that stage's `account`, nothing leaves before `apply`, nothing happens twice that
//!   must not.
//! - **No stale metadata.** A metadata field is read only where it was written on every path, so one
//!   packet can never see another's.
//!
//! Not checked: that `actions` is complete before `flow create` (which of its fields matter depends
//! on values), that shifts stay below 64 bits (they wrap), that `u0_encap` is a known encap.

mod block;
mod error;
mod facts;
mod types;

use dash_wire::drop::DropReason;
use nic_target::{Capacity, Table};

pub use error::{CheckError, Fault};

use crate::ir::{Pipeline, Stage};
use block::Checker;
use facts::Facts;

/// Longest name of a stage: a kernel's program names have 16 bytes with the final zero.
pub const STAGE_NAME_MAX: usize = 15;

/// Checks a pipeline.
pub fn check(pipeline: &Pipeline) -> Result<(), CheckError> {
    let stages = &pipeline.stages;
    if stages.is_empty() {
        return Err(CheckError {
            stage: String::new(),
            fault: Fault::NoStages,
        });
    }
    let most = Table::Stages.def(&Capacity::default()).max_entries as usize;
    for (i, stage) in stages.iter().enumerate() {
        let fail = |fault| {
            Err(CheckError {
                stage: stage.name.clone(),
                fault,
            })
        };
        if i >= most {
            return fail(Fault::TooManyStages { most });
        }
        if !is_identifier(&stage.name) || stage.name.len() > STAGE_NAME_MAX {
            return fail(Fault::BadStageName);
        }
        if stages.iter().take(i).any(|s| s.name == stage.name) {
            return fail(Fault::DuplicateStage);
        }
    }
    // What holds when a stage begins: the meet over all `goto`s to it, complete when it is reached
    // because they all come from above. A stage nobody goes to stays `None`.
    let mut entry: Vec<Option<Facts>> = vec![None; stages.len()];
    entry[0] = Some(Facts::START);
    for (i, stage) in stages.iter().enumerate() {
        let fail = |fault| CheckError {
            stage: stage.name.clone(),
            fault,
        };
        let facts = entry[i].ok_or_else(|| fail(Fault::Unreachable))?;
        let mut checker = Checker::new(stages, i, &mut entry);
        checker
            .stage(&stage.body, facts.enter_stage())
            .map_err(fail)?;
    }
    Ok(())
}

/// Index of a stage by name.
pub(crate) fn stage_index(stages: &[Stage], name: &str) -> Option<usize> {
    stages.iter().position(|s| s.name == name)
}

/// A C identifier.
fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a drop for this reason counts to an ENI.
fn counts_to_eni(reason: DropReason) -> bool {
    !reason.eni_stats().is_empty()
}

#[cfg(test)]
mod tests;
