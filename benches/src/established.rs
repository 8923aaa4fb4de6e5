//! The workload whose instructions are counted: packets of one established outbound flow.

use anyhow::Result;
use dashctl::engines::EngineName;

use crate::world::{self, Rows, Runner};

/// Runs the first packet of a flow and then `packets` more of it through native code.
///
/// # Errors
/// There is no native code here, or a packet is not sent.
pub fn run(packets: u64) -> Result<()> {
    let mut runner = Runner::start(EngineName::Native, Rows::All, Some(world::cache()?))?;
    let packet = world::outbound(0, world::SMALL);
    runner.forward(&packet)?;
    for _ in 0..packets {
        runner.forward(&packet)?;
    }
    Ok(())
}
