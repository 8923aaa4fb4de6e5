//! Which plots a run gives.

use super::is_ratio;
use super::plot::{Axis, Bar, Curve, Plot, Point, Spacing, bars};
use crate::result::{Group, Measurement};

/// Largest ratio between values on an evenly spaced axis.
const EVEN: f64 = 25.0;

fn units<'a>(measurements: impl Iterator<Item = &'a Measurement>) -> Vec<&'a str> {
    let mut units = vec![];
    for m in measurements {
        if !units.contains(&m.unit.as_str()) {
            units.push(m.unit.as_str());
        }
    }
    units
}

/// What the x axis of a sub-command's plot is.
fn x_axis(group: &Group, xs: &[f64]) -> Axis {
    let label = match group.name.as_str() {
        "flows" => "flows",
        "packets" => "frame size, bytes",
        "latency" => {
            return Axis {
                label: "percentile".to_owned(),
                spacing: Spacing::Percentile,
            };
        }
        "cps" => "offered connections a second",
        "update-under-load" => "changes a second",
        _ => "",
    };
    Axis::fitting(label, xs.iter().copied(), EVEN)
}

/// Plots of a group's curves: one for each unit.
pub(super) fn curves(group: &Group) -> Vec<Plot> {
    let placed = |m: &&Measurement| m.series.is_some() && m.x.is_some() && !m.samples.is_empty();
    let all: Vec<&Measurement> = group.measurements.iter().filter(placed).collect();
    let plots = units(all.iter().copied()).into_iter().map(|unit| {
        let mut curves: Vec<Curve> = vec![];
        for m in all.iter().filter(|m| m.unit == unit) {
            let (Some(name), Some(x)) = (&m.series, m.x) else {
                continue;
            };
            let (low, high) = m.spread();
            let point = Point {
                x,
                y: m.median(),
                low,
                high,
            };
            match curves.iter_mut().find(|c| c.name == *name) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Curve {
                    name: name.clone(),
                    points: vec![point],
                }),
            }
        }
        let points = || curves.iter().flat_map(|c| &c.points);
        let xs: Vec<f64> = points().map(|p| p.x).collect();
        let names: Vec<&str> = curves.iter().map(|c| c.name.as_str()).collect();
        let x = x_axis(group, &xs);
        Plot {
            heading: format!("{}: {unit}", group.name),
            about: format!(
                "{unit} by {}, median and spread, of {}. The table below has the numbers.",
                if x.label.is_empty() {
                    "position"
                } else {
                    &x.label
                },
                names.join(", ")
            ),
            y: Axis::fitting(unit, points().flat_map(|p| [p.low, p.high]), EVEN),
            x,
            curves,
        }
    });
    // A curve is two points at least.
    plots
        .filter(|p| !p.is_empty() && p.curves.iter().any(|c| c.points.len() > 1))
        .collect()
}

/// Bars of a group's ratios without a place on an x axis.
pub(super) fn ratios(group: &Group) -> Option<String> {
    let of = group.measurements.iter();
    let shown: Vec<Bar> = of
        .filter(|m| is_ratio(m) && m.x.is_none() && !m.samples.is_empty())
        .map(|m| {
            let (low, high) = m.spread();
            Bar {
                name: m.name.clone(),
                value: m.median(),
                low,
                high,
                goal: m.goal.clone(),
            }
        })
        .collect();
    let heading = format!("{}: ratios", group.name);
    let about =
        "How many times, median and spread, beside a line at 1. The table below has the numbers.";
    (!shown.is_empty()).then(|| bars(&heading, about, &shown, false))
}
