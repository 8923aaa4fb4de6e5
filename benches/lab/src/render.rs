//! A [`Run`] as people and programs read it.
//!
//! | | |
//! |---|---|
//! | [`terminal`] | a table, at most 100 columns wide |
//! | [`json`], [`read_json`] | all of it, with a schema version |
//! | [`html`] | one file without any outside resource: plots, tables, commands |
//! | [`summary_svg`] | one plot for a README |
//!
//! All of them begin with [`sound`]: a sample that is not a number, or that no machine gives, is left
//! out, so that nothing after it meets one.

mod charts;
mod html;
mod json;
mod number;
mod plot;
mod summary;
mod terminal;
mod xml;

#[cfg(test)]
mod tests;

pub use html::html;
pub use json::{ReadError, SCHEMA, json, read_json};
pub use summary::summary_svg;
pub use terminal::terminal;

use crate::result::{Measurement, Run};

/// Greatest magnitude of a figure: beyond it axes overflow, and nothing measured is.
const MOST: f64 = 1e100;
/// Least magnitude of a figure that is not 0: steps of axes below it underflow.
const LEAST: f64 = 1e-100;

/// A figure as it may be drawn: finite and of a magnitude with which one can reckon.
fn figure(v: f64) -> Option<f64> {
    let v = if v.abs() < LEAST { 0.0 } else { v };
    // False for NaN too.
    (v.abs() <= MOST).then_some(v)
}

/// The run without samples and positions that are not finite, or too great to reckon with; those too
/// small for it are 0.
pub fn sound(run: &Run) -> Run {
    let mut run = run.clone();
    for m in run.groups.iter_mut().flat_map(|g| &mut g.measurements) {
        m.samples = m.samples.iter().copied().filter_map(figure).collect();
        m.x = m.x.and_then(figure);
        m.limit = m.limit.and_then(figure);
    }
    for load in &mut run.machine.load {
        *load = figure(*load).unwrap_or(0.0);
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
