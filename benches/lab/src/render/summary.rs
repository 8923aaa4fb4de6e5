//! The plot for a README: DASH's scale tests from worst to best case, the cost by number of flows, and
//! the ratios that have goals. Panels of what was measured, two beside each other.

use std::fmt::Write as _;

use super::number::{number, tick};
use super::plot::{Mapping, STYLE, Spacing, linear_ticks, marker, nice_step, path};
use super::xml::Text;
use super::{busy, is_ratio, sound};
use crate::result::{Group, Measurement, Run};

/// Scale points of the hero test, least first.
const LADDER: [&str; 3] = ["one-ip", "baby-hero", "hero"];
/// Sub-commands whose ratios are shown, in this order, and how many at most.
const RATIOS: [&str; 5] = ["peers", "flows", "scaling", "update-under-load", "packets"];
const MOST_RATIOS: usize = 5;

const WIDTH: f64 = 880.0;
const PANEL: (f64, f64) = (420.0, 264.0);
const HEAD: f64 = 70.0;
const FOOT: f64 = 30.0;
/// Longest line of the head, characters.
const LINE: usize = 118;
/// Longest name of a ratio, characters.
const NAME: usize = 56;

/// A median and its spread, at a place of its axis.
#[derive(Clone, Copy, Debug)]
struct Spot {
    x: f64,
    y: f64,
    low: f64,
    high: f64,
}

impl Spot {
    fn of(x: f64, m: &Measurement) -> Option<Self> {
        let (low, high) = m.spread();
        let y = m.median();
        let drawn = |v: f64| v.is_finite() && v >= 0.0;
        (x.is_finite() && drawn(low) && drawn(high)).then_some(Self { x, y, low, high })
    }

    /// A time in ns as a rate in millions a second.
    fn rate(self) -> Option<Self> {
        let rate = |ns: f64| 1e3 / ns;
        let out = Self {
            x: self.x,
            y: rate(self.y),
            low: rate(self.high),
            high: rate(self.low),
        };
        (self.low >= 1e-6).then_some(out)
    }
}

/// A named line of spots, at most one at each place.
struct Line {
    name: &'static str,
    spots: Vec<Spot>,
}

/// A goal drawn at a place: the value, and whether it was reached.
struct Goal {
    x: f64,
    y: f64,
    reached: bool,
}

/// A panel with two axes.
struct Panel {
    heading: String,
    /// Unit, and how to read it.
    under: String,
    places: Vec<String>,
    x_label: &'static str,
    lines: Vec<Line>,
    /// The last line is the worst case of the first: the band is between them.
    cases: bool,
    goals: Vec<Goal>,
}

/// The plot for a README. What was not measured has no panel; of a run without any of it the plot says so.
pub fn summary_svg(run: &Run) -> String {
    let run = sound(run);
    frame(&run, &panels(&run))
}

/// The same of a sound run, if there is anything to plot.
pub(super) fn of(run: &Run) -> Option<String> {
    let panels = panels(run);
    (!panels.is_empty()).then(|| frame(run, &panels))
}

/// Panels and their headings.
fn panels(run: &Run) -> Vec<(String, String)> {
    let mut drawn: Vec<(String, String)> = Vec::new();
    for panel in [packets(run), connections(run), flows(run)] {
        drawn.extend(panel.map(|p| (p.heading.clone(), p.draw())));
    }
    drawn.extend(ratios(run).map(|svg| ("Ratios and their goals".to_owned(), svg)));
    drawn
}

/// Panels side by side, with the machine over them.
fn frame(run: &Run, drawn: &[(String, String)]) -> String {
    let rows = drawn.len().div_ceil(2).max(1);
    let height = HEAD + rows as f64 * PANEL.1 + FOOT;
    let names: Vec<&str> = drawn.iter().map(|(name, _)| name.as_str()).collect();
    let title = "dashwire: DASH's scale tests";
    let about = if drawn.is_empty() {
        "Nothing to plot: the run has neither scale tests nor curves nor ratios.".to_owned()
    } else {
        format!(
            "{} on {}. Numbers are in the report.",
            names.join("; "),
            run.machine.cpu
        )
    };
    let mut out = String::new();
    let _ = write!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}" role="img" aria-label="{title}"><title>{title}</title><desc>{}</desc><style>{STYLE}</style><rect width="{WIDTH}" height="{height:.0}" rx="6" fill="var(--back)"/><text class="head" x="16" y="28">{title}</text><text class="soft" x="16" y="48">{}</text>"#,
        Text(&about),
        Text(&machine(run))
    );
    if drawn.is_empty() {
        let _ = write!(
            out,
            r#"<text x="16" y="{}">Nothing to plot</text>"#,
            HEAD + 30.0
        );
    }
    for (n, (_, svg)) in drawn.iter().enumerate() {
        let (x, y) = (
            14.0 + (n % 2) as f64 * (PANEL.0 + 12.0),
            HEAD + (n / 2) as f64 * PANEL.1,
        );
        let _ = write!(out, r#"<g transform="translate({x} {y})">{svg}</g>"#);
    }
    let note = if busy(run) {
        "Other work ran on this machine: times are too long, ratios of one run still hold."
    } else {
        "Points are medians, upright strokes least to most of all samples."
    };
    let _ = write!(
        out,
        r#"<text class="soft" x="16" y="{:.0}">{note}</text></svg>"#,
        height - 12.0
    );
    out.push('\n');
    out
}

/// The machine and the time, in a line.
fn machine(run: &Run) -> String {
    let m = &run.machine;
    let parts = [
        m.cpu.clone(),
        format!("{} processors", m.cores),
        m.system.clone(),
        m.build.clone(),
        m.date.get(..10).unwrap_or(&m.date).to_owned(),
        format!("load {}", number(m.load[0].max(m.load[1]))),
    ];
    let parts: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    cut(&parts.join(", "), LINE)
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// The scale tests that ran and gave one of these figures, and a place for each.
fn ladder<'a>(run: &'a Run, has: impl Fn(&'a Group) -> bool) -> Vec<(f64, &'a Group)> {
    let groups = LADDER
        .iter()
        .filter_map(|name| run.groups.iter().find(|g| g.name == *name && has(g)));
    groups.enumerate().map(|(n, g)| (n as f64, g)).collect()
}

fn row<'a>(group: &'a Group, name: &str, unit: &str) -> Option<&'a Measurement> {
    let mut rows = group.measurements.iter();
    rows.find(|m| m.name.starts_with(name) && m.unit == unit && !m.samples.is_empty())
}

/// Packets a second of a core, from established ones (best) to first ones of flows (worst).
fn packets(run: &Run) -> Option<Panel> {
    let established = |g| row(g, "established", "Mpps");
    let tests = ladder(run, |g| established(g).is_some());
    let best = tests
        .iter()
        .filter_map(|(x, g)| Spot::of(*x, established(g)?));
    let first = tests
        .iter()
        .filter_map(|(x, g)| Spot::of(*x, row(g, "first packets of flows", "ns/packet")?)?.rate());
    Panel {
        heading: "Packets, worst to best case".to_owned(),
        under: "million packets a second and core".to_owned(),
        places: tests.iter().map(|(_, g)| g.name.clone()).collect(),
        x_label: "",
        lines: vec![
            Line {
                name: "established",
                spots: best.collect(),
            },
            Line {
                name: "first of a flow",
                spots: first.collect(),
            },
        ],
        cases: true,
        goals: vec![],
    }
    .kept()
}

/// TCP connections a second of a core.
fn connections(run: &Run) -> Option<Panel> {
    let of = |g| row(g, "", "CPS");
    let tests = ladder(run, |g| of(g).is_some());
    let spots = tests.iter().filter_map(|(x, g)| Spot::of(*x, of(g)?));
    let goals = tests.iter().filter_map(|(x, g)| goal(*x, of(g)?));
    Panel {
        heading: "TCP connections of six packets".to_owned(),
        under: "connections a second and core, with background flows".to_owned(),
        places: tests.iter().map(|(_, g)| g.name.clone()).collect(),
        x_label: "",
        lines: vec![Line {
            name: "connections",
            spots: spots.collect(),
        }],
        cases: false,
        goals: goals.collect(),
    }
    .kept()
}

fn goal(x: f64, m: &Measurement) -> Option<Goal> {
    let (y, (_, reached)) = (m.limit?, m.goal.as_ref()?);
    let reached = *reached;
    (y.is_finite() && y >= 0.0).then_some(Goal { x, y, reached })
}

/// The cost of an established packet by flows in the table, and of the generator.
fn flows(run: &Run) -> Option<Panel> {
    let group = run.groups.iter().find(|g| g.name == "flows")?;
    let unit = "ns/packet";
    let mut placed: Vec<&Measurement> = group.measurements.iter().collect();
    placed
        .retain(|m| m.series.is_some() && m.x.is_some() && m.unit == unit && !m.samples.is_empty());
    placed.sort_by(|a, b| a.x.unwrap_or(0.0).total_cmp(&b.x.unwrap_or(0.0)));
    placed.dedup_by_key(|m| m.x.map(f64::to_bits));
    // Sizes grow by about the same factor: each has a place, as names have.
    let at = |n: usize, m: &Measurement| Spot::of(n as f64, m);
    let cost: Vec<Spot> = placed
        .iter()
        .enumerate()
        .filter_map(|(n, m)| at(n, m))
        .collect();
    let floors = placed.iter().enumerate().filter_map(|(n, m)| {
        let name = m.name.replace(", established", ", floor");
        let floor = group
            .measurements
            .iter()
            .find(|f| f.name == name && **f != **m)?;
        at(n, floor)
    });
    let spread = group
        .measurements
        .iter()
        .find(|m| is_ratio(m) && m.limit.is_some());
    let goal = spread.and_then(|m| {
        let (first, last) = (cost.first()?, cost.last()?);
        Some(Goal {
            x: last.x,
            y: Some(first.y * m.limit?).filter(|y| y.is_finite() && *y >= 0.0)?,
            reached: m.goal.as_ref()?.1,
        })
    });
    let places = placed.iter().map(|m| tick(m.x.unwrap_or(0.0)));
    Panel {
        heading: "Established packets by size of the flow table".to_owned(),
        under: "ns of CPU time a packet, flows at random".to_owned(),
        places: places.collect(),
        x_label: "flows",
        lines: vec![
            Line {
                name: "forwarded",
                spots: cost.clone(),
            },
            Line {
                name: "generator and port alone",
                spots: floors.collect(),
            },
        ],
        cases: false,
        goals: goal.into_iter().collect(),
    }
    .kept()
}

impl Panel {
    /// With a curve in it.
    fn kept(mut self) -> Option<Self> {
        self.lines.retain(|line| !line.spots.is_empty());
        let drawn = self.lines.iter().any(|line| line.spots.len() > 1);
        drawn.then_some(self)
    }

    fn draw(&self) -> String {
        const LEFT: f64 = 52.0;
        let (width, height) = PANEL;
        let (top, bottom, right) = (72.0, height - 44.0, width - 14.0);
        let mut out = head(&self.heading, &self.under);
        let spots = || self.lines.iter().flat_map(|line| &line.spots);
        let most = spots()
            .map(|s| s.high)
            .chain(self.goals.iter().map(|g| g.y));
        let most = most.fold(0.0, f64::max);
        let most = if most > 0.0 { most * 1.08 } else { 1.0 };
        let step = nice_step(most / 4.0);
        let most = (most / step).ceil() * step;
        let y = Mapping::new(&Spacing::Linear, 0.0, most, (bottom, top));
        let names = Spacing::Names(self.places.clone());
        let ends = (-0.4, self.places.len() as f64 - 0.6);
        let x = Mapping::new(&names, ends.0, ends.1, (LEFT, right));
        for v in linear_ticks(most) {
            let _ = write!(
                out,
                r#"<path class="grid" d="M{LEFT} {0:.1}H{right}"/><text class="soft" x="{1}" y="{2:.1}" text-anchor="end">{3}</text>"#,
                y.at(v),
                LEFT - 7.0,
                y.at(v) + 4.0,
                tick(v)
            );
        }
        for (n, place) in self.places.iter().enumerate() {
            let _ = write!(
                out,
                r#"<text class="soft" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                x.at(n as f64),
                bottom + 18.0,
                Text(&cut(place, 12))
            );
        }
        let _ = write!(
            out,
            r#"<path class="axis" d="M{LEFT} {bottom:.1}H{right}"/><text class="soft" x="{right}" y="{:.1}" text-anchor="end">{}</text>"#,
            bottom + 34.0,
            self.x_label
        );
        self.band(&mut out, &x, &y);
        self.legend(&mut out, LEFT);
        // Where numbers are written at each place: from the lowest line up, none on another.
        let mut taken: Vec<(f64, f64)> = Vec::new();
        let mut free = |x: f64, wanted: f64| {
            let others: Vec<f64> = taken
                .iter()
                .filter(|(at, _)| *at == x)
                .map(|t| t.1)
                .collect();
            let mut y = wanted;
            while let Some(other) = others.iter().find(|o| (*o - y).abs() < 13.0) {
                y = other - 13.0;
            }
            taken.push((x, y));
            y
        };
        for (n, line) in self.lines.iter().enumerate().rev() {
            let _ = write!(out, r#"<g class="s{n}">"#);
            let points = line.spots.iter().map(|s| (x.at(s.x), y.at(s.y)));
            let dash = if n == 0 { "" } else { "7 4" };
            let _ = write!(
                out,
                r#"<path class="line" stroke-dasharray="{dash}" d="{}"/>"#,
                path(points)
            );
            for s in &line.spots {
                let (at, low, high) = (x.at(s.x), y.at(s.low), y.at(s.high));
                let _ = write!(
                    out,
                    r#"<path class="line" d="M{at:.1} {low:.1}V{high:.1}"/>"#
                );
                marker(&mut out, n, at, y.at(s.y));
                let _ = write!(
                    out,
                    r#"<text x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                    free(s.x, high - 7.0),
                    short(s.y)
                );
            }
            out.push_str("</g>");
        }
        for goal in &self.goals {
            let class = if goal.reached { "good" } else { "bad" };
            let (at, level) = (x.at(goal.x), y.at(goal.y));
            let (from, to) = ((at - 46.0).max(LEFT), (at + 46.0).min(right));
            let _ = write!(
                out,
                r#"<g class="{class}"><path class="line" stroke-dasharray="5 3" d="M{from:.1} {level:.1}H{to:.1}"/><text x="{from:.1}" y="{:.1}">goal {}</text></g>"#,
                free(goal.x, level - 5.0),
                tick(round(goal.y))
            );
        }
        out
    }

    /// From the worst case to the best, or from the least sample to the most.
    fn band(&self, out: &mut String, x: &Mapping, y: &Mapping) {
        let worst = if self.cases {
            self.lines.last()
        } else {
            self.lines.first()
        };
        let (Some(best), Some(worst)) = (self.lines.first(), worst) else {
            return;
        };
        let high = best.spots.iter().map(|s| (x.at(s.x), y.at(s.high)));
        let low = worst.spots.iter().rev().map(|s| (x.at(s.x), y.at(s.low)));
        let _ = write!(
            out,
            r#"<g class="s0"><path class="band" d="{}z"/></g>"#,
            path(high.chain(low))
        );
    }

    fn legend(&self, out: &mut String, left: f64) {
        if self.lines.len() < 2 {
            return;
        }
        let mut x = left;
        for (n, line) in self.lines.iter().enumerate() {
            let dash = if n == 0 { "" } else { "7 4" };
            let _ = write!(
                out,
                r#"<g class="s{n}"><path class="line" stroke-dasharray="{dash}" d="M{x:.1} 53h26"/>"#
            );
            marker(out, n, x + 13.0, 53.0);
            let _ = write!(
                out,
                r#"<text class="soft" x="{:.1}" y="57">{}</text></g>"#,
                x + 32.0,
                line.name
            );
            x += 52.0 + line.name.len() as f64 * 6.4;
        }
    }
}

fn head(heading: &str, under: &str) -> String {
    format!(
        r#"<text class="head" x="2" y="18">{}</text><text class="soft" x="2" y="36">{}</text>"#,
        Text(heading),
        Text(under)
    )
}

/// Three digits: what a computed goal is good for.
fn round(v: f64) -> f64 {
    if v.abs() < 1e-6 || v.abs() > 1e12 {
        return v;
    }
    let decade = 10f64.powf(v.abs().log10().floor() - 2.0);
    (v / decade).round() * decade
}

/// A number over a point: `7.23`, `139`, `591k`.
fn short(v: f64) -> String {
    if v >= 10_000.0 {
        tick(round(v))
    } else {
        number(v)
    }
}

/// Bars of the ratios that have goals, each with its goal as a stroke across.
fn ratios(run: &Run) -> Option<String> {
    const LEFT: f64 = 2.0;
    const ROW: f64 = 38.0;
    let groups = RATIOS
        .iter()
        .filter_map(|name| run.groups.iter().find(|g| g.name == *name));
    let shown: Vec<(&Measurement, Spot)> = groups
        .flat_map(|g| &g.measurements)
        .filter(|m| is_ratio(m) && m.goal.is_some() && !m.samples.is_empty())
        .filter_map(|m| Some((m, Spot::of(0.0, m)?)))
        .take(MOST_RATIOS)
        .collect();
    if shown.is_empty() {
        return None;
    }
    let most = shown
        .iter()
        .flat_map(|(m, s)| [s.high, m.limit.unwrap_or(0.0)])
        .filter(|v| v.is_finite())
        .fold(1.0, f64::max);
    let right = PANEL.0 - 60.0;
    let x = Mapping::new(&Spacing::Linear, 0.0, most * 1.02, (LEFT, right));
    let mut out = head(
        "Ratios and their goals",
        "times; the upright stroke across a bar is its goal",
    );
    for (n, (m, spot)) in shown.iter().enumerate() {
        let y = 50.0 + ROW * n as f64;
        let (goal, reached) = m.goal.as_ref()?;
        let (class, word) = if *reached {
            ("good", "reached")
        } else {
            ("bad", "not reached")
        };
        let sign = m.limit.map_or_else(String::new, |limit| {
            let sign = if goal.contains(">=") || goal.contains("at least") {
                "at least"
            } else {
                "at most"
            };
            format!("{sign} {}, ", tick(limit))
        });
        let name = cut(&m.name, NAME - sign.len().min(20));
        let end = x.at(spot.y).max(LEFT + 1.0);
        let _ = write!(
            out,
            r#"<g class="{class}"><text class="soft" x="{LEFT}" y="{:.1}">{} ({sign}{word})</text><rect class="bar" x="{LEFT}" y="{:.1}" width="{:.1}" height="13" rx="2"/>"#,
            y + 13.0,
            Text(&name),
            y + 18.0,
            end - LEFT
        );
        if let Some(limit) = m.limit.filter(|v| v.is_finite() && *v >= 0.0) {
            let _ = write!(
                out,
                r#"<path class="axis" style="stroke:var(--ink);stroke-width:2.5" d="M{:.1} {:.1}v19"/>"#,
                x.at(limit),
                y + 15.0
            );
        }
        let text = end.max(m.limit.map_or(0.0, |v| x.at(v.clamp(0.0, most)))) + 7.0;
        let _ = write!(
            out,
            r#"<text x="{text:.1}" y="{:.1}">{}x</text></g>"#,
            y + 29.0,
            number(spot.y)
        );
    }
    Some(out)
}
