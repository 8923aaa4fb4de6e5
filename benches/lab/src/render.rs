//! A [`Run`] as people and programs read it.
//!
//! | | |
//! |---|---|
//! | [`terminal`] | a table, at most 100 columns wide |
//! | [`json`], [`read_json`] | all of it, with a schema version |
//! | [`html`] | one file without any outside resource: plots, tables, commands |
//! | [`summary_svg`] | one plot for a README |
//!
//! All of them begin with [`sound`]: a sample that is not a number is left out, so that nothing after
//! it meets one.

mod charts;
mod html;
mod json;
mod number;
mod plot;
mod terminal;
mod xml;

#[cfg(test)]
mod tests;

pub use charts::summary_svg;
pub use html::html;
pub use json::{ReadError, SCHEMA, json, read_json};
pub use terminal::terminal;

use crate::result::{Measurement, Run};

/// The run without samples and positions that are not finite.
pub fn sound(run: &Run) -> Run {
    let mut run = run.clone();
    for m in run.groups.iter_mut().flat_map(|g| &mut g.measurements) {
        m.samples.retain(|s| s.is_finite());
        m.x = m.x.filter(|x| x.is_finite());
    }
    for load in &mut run.machine.load {
        if !load.is_finite() {
            *load = 0.0;
        }
    }
    run
}

/// True for a ratio against something else.
fn is_ratio(m: &Measurement) -> bool {
    m.unit == "x"
}

/// Other work was on the machine: more than one runnable task a processor beside ours.
fn busy(run: &Run) -> bool {
    let [before, after] = run.machine.load;
    before.max(after) > run.machine.cores.max(1) as f64
}
