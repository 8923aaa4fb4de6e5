//! Which plots a run gives.

use super::plot::{Axis, Bar, Curve, Plot, Point, Spacing, bars};
use super::{is_ratio, sound};
use crate::result::{Group, Measurement, Run};

/// Scale points of the hero test, least first.
const LADDER: [&str; 3] = ["one-ip", "baby-hero", "hero"];

/// Largest ratio between values on an evenly spaced axis.
const EVEN: f64 = 25.0;

/// The plot for a README: the band of packets a second if the hero tests ran, else the cost by
/// number of flows, else by frame size; an empty plot that says so if nothing of it was measured.
pub fn summary_svg(run: &Run) -> String {
    let run = sound(run);
    let curves = |name: &str| {
        let mut groups = run.groups.iter().filter(|g| g.name == name);
        groups.find_map(|g| curves(g).into_iter().next())
    };
    let plot = bands(&run).into_iter().next();
    let plot = plot
        .or_else(|| curves("flows"))
        .or_else(|| curves("packets"));
    let plot = plot.unwrap_or_else(|| Plot {
        heading: "Nothing to plot".to_owned(),
        about: "The run has neither hero tests nor curves.".to_owned(),
        x: Axis::fitting("", std::iter::empty(), EVEN),
        y: Axis::fitting("", std::iter::empty(), EVEN),
        curves: vec![],
        levels: vec![],
        numbers: false,
    });
    plot.svg(true)
}

/// Bands of the hero tests, one for each unit measured at two scales or more: from the worst case
/// to the best case, as the hero document shows results.
pub(super) fn bands(run: &Run) -> Vec<Plot> {
    let of_ladder = |g: &&Group| LADDER.contains(&g.name.as_str());
    let groups: Vec<&Group> = run.groups.iter().filter(of_ladder).collect();
    let units = units(groups.iter().flat_map(|g| &g.measurements));
    let plots = units.into_iter().filter(|u| *u != "x").map(|unit| {
        let mut names = vec![];
        let mut points = vec![];
        for scale in LADDER {
            let all = groups.iter().filter(|g| g.name == scale);
            let medians: Vec<f64> = all
                .flat_map(|g| &g.measurements)
                .filter(|m| m.unit == unit && !m.samples.is_empty())
                .map(Measurement::median)
                .collect();
            if let Some(point) = band(names.len() as f64, medians) {
                names.push(scale.to_owned());
                points.push(point);
            }
        }
        let places: Vec<String> = points
            .iter()
            .zip(&names)
            .map(|(p, n)| format!("{n} {} to {}", p.low, p.high))
            .collect();
        Plot {
            heading: format!("Best to worst case, {unit}"),
            about: format!("Band by scale of the configuration: {}.", places.join(", ")),
            x: Axis {
                label: "scale of the configuration".to_owned(),
                spacing: Spacing::Names(names),
            },
            y: Axis::fitting(unit, points.iter().flat_map(|p| [p.low, p.high]), EVEN),
            curves: vec![Curve {
                name: "median of the cases".to_owned(),
                points,
            }],
            levels: vec![],
            numbers: true,
        }
    });
    plots.filter(|p| p.curves[0].points.len() > 1).collect()
}

fn band(x: f64, mut values: Vec<f64>) -> Option<Point> {
    values.sort_by(f64::total_cmp);
    Some(Point {
        x,
        y: *values.get(values.len() / 2)?,
        low: *values.first()?,
        high: *values.last()?,
    })
}

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
            levels: vec![],
            numbers: false,
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
