//! Plots as SVG: lines with bands, and bars. No script, no font file, no outside resource.
//!
//! Colours come from classes of [`STYLE`], which follow light and dark; every curve has a dash pattern
//! and a marker of its own as well, and every plot a title and a text that says what it shows.

use std::fmt::Write as _;

use super::number::{number, tick};
use super::xml::Text;

/// Style of plots, for a page that holds some, or for one that stands alone.
pub(super) const STYLE: &str = "\
svg.plot{--ink:#1b1f24;--soft:#59636e;--grid:#d9dee3;--back:#ffffff;--c0:#0069a8;--c1:#c04a00;--c2:#00795a;\
--c3:#9a3f7c;--c4:#8a6100;--c5:#3d4bb8;--good:#00795a;--bad:#c04a00;background:var(--back);\
font:13px system-ui,sans-serif}\
@media(prefers-color-scheme:dark){svg.plot{--ink:#e8ebee;--soft:#a3adb8;--grid:#363d45;--back:#14181c;\
--c0:#5bb4ee;--c1:#ff9a57;--c2:#35c79a;--c3:#e49bcb;--c4:#e3b64a;--c5:#a3adff;--good:#35c79a;--bad:#ff9a57}}\
svg.plot text{fill:var(--ink)}svg.plot .soft{fill:var(--soft);font-size:12px}\
svg.plot .head{font-weight:600;font-size:15px}svg.plot .grid{stroke:var(--grid);stroke-width:1}\
svg.plot .axis{stroke:var(--soft);stroke-width:1}svg.plot .level{stroke:var(--soft);stroke-width:1.5;\
stroke-dasharray:2 4}svg.plot .line{fill:none;stroke:var(--c);stroke-width:2.2;stroke-linejoin:round}\
svg.plot .band{fill:var(--c);opacity:.16}svg.plot .dot{fill:var(--c);stroke:var(--back)}\
svg.plot .s0{--c:var(--c0)}svg.plot .s1{--c:var(--c1)}svg.plot .s2{--c:var(--c2)}svg.plot .s3{--c:var(--c3)}\
svg.plot .s4{--c:var(--c4)}svg.plot .s5{--c:var(--c5)}svg.plot .good{--c:var(--good)}svg.plot .bad{--c:var(--bad)}\
svg.plot .bar{fill:var(--c)}";

const COLOURS: usize = 6;
const DASHES: [&str; COLOURS] = ["", "7 4", "2 3", "9 3 2 3", "4 4", "12 4"];
const WIDTH: f64 = 760.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 26.0;
const FLOOR: f64 = 300.0;
/// Average width of a character of 13 pixels.
const CHAR: f64 = 6.9;

/// How positions on an axis are spaced.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Spacing {
    /// Evenly; a y axis begins at 0.
    Linear,
    /// By magnitude.
    Log,
    /// Percentiles, by magnitude of what is left to 100.
    Percentile,
    /// Names; positions are 0, 1, 2 and so on.
    Names(Vec<String>),
}

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) spacing: Spacing,
}

impl Axis {
    /// Spaced by magnitude if the values differ by more than `ratio` times.
    pub(super) fn fitting(label: &str, values: impl Iterator<Item = f64>, ratio: f64) -> Self {
        let (low, high) = extremes(values);
        let spacing = if low > 0.0 && high / low > ratio {
            Spacing::Log
        } else {
            Spacing::Linear
        };
        Self {
            label: label.to_owned(),
            spacing,
        }
    }
}

/// A point of a curve, and where its band ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Point {
    fn is_sound(&self) -> bool {
        [self.x, self.y, self.low, self.high]
            .iter()
            .all(|v| v.is_finite())
    }
}

/// A curve.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) points: Vec<Point>,
}

/// A line plot.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) heading: String,
    pub(super) about: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) curves: Vec<Curve>,
}

fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
            (low.min(v), high.max(v))
        })
}

/// Values to positions between two pixels.
pub(super) struct Mapping {
    spacing: Spacing,
    from: f64,
    to: f64,
    pixels: (f64, f64),
}

impl Mapping {
    fn measure(spacing: &Spacing, v: f64) -> f64 {
        match spacing {
            Spacing::Linear | Spacing::Names(_) => v,
            Spacing::Log => v.max(f64::MIN_POSITIVE).log10(),
            // Nothing is left to 100: put it a decade after the last nines worth naming.
            Spacing::Percentile => -((100.0 - v) / 100.0).clamp(1e-6, 1.0).log10(),
        }
    }

    pub(super) fn new(spacing: &Spacing, low: f64, high: f64, pixels: (f64, f64)) -> Self {
        let (mut from, mut to) = (Self::measure(spacing, low), Self::measure(spacing, high));
        if !(from.is_finite() && to.is_finite()) {
            (from, to) = (0.0, 1.0);
        }
        // Values that are one value, at their magnitude.
        let size = from.abs().max(to.abs());
        if to - from < 1e-9 * size.max(1.0) {
            let room = 0.5 * size.max(1.0);
            (from, to) = (from - room, to + room);
        }
        Self {
            spacing: spacing.clone(),
            from,
            to,
            pixels,
        }
    }

    pub(super) fn at(&self, v: f64) -> f64 {
        let part = (Self::measure(&self.spacing, v) - self.from) / (self.to - self.from);
        let (a, b) = self.pixels;
        a + part * (b - a)
    }
}

/// 1, 2 or 5 times a power of ten, not below `v`.
pub(super) fn nice_step(v: f64) -> f64 {
    if !(v.is_finite() && v > 0.0) {
        return 1.0;
    }
    let decade = 10f64.powf(v.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|m| m * decade)
        .into_iter()
        .find(|step| *step >= v * 0.999_999)
        .unwrap_or(decade * 10.0)
}

pub(super) fn linear_ticks(high: f64) -> Vec<f64> {
    let step = nice_step(high / 5.0);
    (0..=6)
        .map(|i| f64::from(i) * step)
        .take_while(|v| *v <= high * 1.000_001)
        .collect()
}

fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = (high / low).log10();
    let steps: &[f64] = if decades > 3.0 {
        &[1.0]
    } else {
        &[1.0, 2.0, 5.0]
    };
    let first = low.log10().floor() as i32;
    let last = high.log10().ceil() as i32;
    let all = (first..=last).flat_map(|e| steps.iter().map(move |m| m * 10f64.powi(e)));
    all.filter(|v| *v >= low * 0.999 && *v <= high * 1.001)
        .collect()
}

pub(super) fn marker(out: &mut String, n: usize, x: f64, y: f64) {
    let _ = match n % COLOURS {
        0 => write!(
            out,
            r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="4"/>"#
        ),
        1 => write!(
            out,
            r#"<rect class="dot" x="{:.1}" y="{:.1}" width="8" height="8"/>"#,
            x - 4.0,
            y - 4.0
        ),
        2 => write!(
            out,
            r#"<path class="dot" d="M{x:.1} {:.1}l5 9h-10z"/>"#,
            y - 5.5
        ),
        3 => write!(
            out,
            r#"<path class="dot" d="M{x:.1} {:.1}l5 5-5 5-5-5z"/>"#,
            y - 5.0
        ),
        4 => write!(
            out,
            r#"<path class="dot" d="M{x:.1} {:.1}l-5-9h10z"/>"#,
            y + 5.5
        ),
        _ => write!(
            out,
            r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="2.5"/>"#
        ),
    };
}

/// Opening of a plot with its title and text alternative; `alone` brings the style along.
fn open(out: &mut String, heading: &str, about: &str, height: f64, alone: bool) {
    let (heading, about) = (Text(heading), Text(about));
    let _ = write!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{heading}"><title>{heading}</title><desc>{about}</desc>"#
    );
    if alone {
        let _ = write!(
            out,
            r#"<style>{STYLE}</style><rect width="{WIDTH}" height="{height:.0}" fill="var(--back)"/>"#
        );
    }
    let _ = write!(out, r#"<text class="head" x="14" y="24">{heading}</text>"#);
}

impl Plot {
    fn points(&self) -> impl Iterator<Item = Point> + '_ {
        let all = self.curves.iter().flat_map(|c| c.points.iter().copied());
        all.filter(Point::is_sound)
    }

    /// True if there is nothing to draw.
    pub(super) fn is_empty(&self) -> bool {
        self.points().next().is_none()
    }

    /// The plot; `alone` for a file of its own.
    pub(super) fn svg(&self, alone: bool) -> String {
        let (legend, legend_end) = self.legend(46.0);
        let top = legend_end + 36.0;
        let bottom = top + FLOOR - 60.0;
        let height = bottom + 52.0;
        let mut out = String::new();
        open(&mut out, &self.heading, &self.about, height, alone);
        out.push_str(&legend);
        let x = self.x_mapping();
        let y = self.y_mapping((bottom, top));
        self.grid(&mut out, &x, &y, (top, bottom));
        for (n, curve) in self.curves.iter().enumerate() {
            self.curve(&mut out, n, curve, &x, &y);
        }
        out.push_str("</svg>\n");
        out
    }

    fn x_mapping(&self) -> Mapping {
        let (low, high) = match &self.x.spacing {
            Spacing::Names(names) => (-0.4, names.len() as f64 - 0.6),
            _ => extremes(self.points().map(|p| p.x)),
        };
        Mapping::new(
            &self.x.spacing,
            low,
            high,
            (LEFT + 14.0, WIDTH - RIGHT - 14.0),
        )
    }

    fn y_mapping(&self, pixels: (f64, f64)) -> Mapping {
        let (low, high) = extremes(self.points().flat_map(|p| [p.low, p.y, p.high]));
        match self.y.spacing {
            Spacing::Log if low > 0.0 => {
                Mapping::new(&Spacing::Log, low / 1.15, high * 1.15, pixels)
            }
            _ => {
                let high = if high > 0.0 { high * 1.06 } else { 1.0 };
                let step = nice_step(high / 5.0);
                let high = (high / step).ceil() * step;
                Mapping::new(&Spacing::Linear, low.min(0.0), high, pixels)
            }
        }
    }

    /// Names of the curves in lines, and where they end.
    fn legend(&self, from: f64) -> (String, f64) {
        let mut out = String::new();
        let (mut x, mut y) = (14.0, from);
        if self.curves.len() < 2 {
            return (out, from - 22.0);
        }
        for (n, curve) in self.curves.iter().enumerate() {
            let width = 34.0 + curve.name.chars().count() as f64 * CHAR + 22.0;
            if x > 14.0 && x + width > WIDTH - 10.0 {
                (x, y) = (14.0, y + 20.0);
            }
            let (colour, dash) = (n % COLOURS, DASHES[n % COLOURS]);
            let _ = write!(
                out,
                r#"<g class="s{colour}"><path class="line" stroke-dasharray="{dash}" d="M{x:.1} {y:.1}h28"/>"#
            );
            marker(&mut out, n, x + 14.0, y);
            let _ = write!(
                out,
                r#"<text x="{:.1}" y="{:.1}">{}</text></g>"#,
                x + 34.0,
                y + 4.5,
                Text(&curve.name)
            );
            x += width;
        }
        (out, y)
    }

    fn x_ticks(&self, x: &Mapping) -> Vec<(f64, String)> {
        let mut values: Vec<f64> = self.points().map(|p| p.x).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let named: Vec<(f64, String)> = match &self.x.spacing {
            Spacing::Names(names) => {
                let names = names.iter().enumerate();
                names.map(|(i, n)| (x.at(i as f64), n.clone())).collect()
            }
            Spacing::Percentile => {
                let of = |v: &f64| (x.at(*v), if *v >= 100.0 { "max".into() } else { trim(*v) });
                values.iter().map(of).collect()
            }
            // What was measured, as long as that is a list one can read.
            _ if values.len() <= 12 => values.iter().map(|v| (x.at(*v), tick(*v))).collect(),
            Spacing::Log => {
                let (low, high) = extremes(values.iter().copied());
                let ticks = log_ticks(low, high);
                ticks.iter().map(|v| (x.at(*v), tick(*v))).collect()
            }
            Spacing::Linear => {
                let ticks = linear_ticks(extremes(values.iter().copied()).1);
                let kept = ticks.iter().filter(|v| **v >= values[0]);
                kept.map(|v| (x.at(*v), tick(*v))).collect()
            }
        };
        // Labels that would touch the one before are left out.
        let mut end = f64::NEG_INFINITY;
        let mut kept = named;
        kept.retain(|(at, text)| {
            let half = text.chars().count() as f64 * CHAR / 2.0;
            let free = at - half > end + 4.0;
            if free {
                end = at + half;
            }
            free
        });
        kept
    }

    fn grid(&self, out: &mut String, x: &Mapping, y: &Mapping, (top, bottom): (f64, f64)) {
        let right = WIDTH - RIGHT;
        let ticks = match y.spacing {
            Spacing::Log => log_ticks(10f64.powf(y.from), 10f64.powf(y.to)),
            _ => linear_ticks(y.to),
        };
        for v in ticks {
            let at = y.at(v);
            let _ = write!(
                out,
                r#"<path class="grid" d="M{LEFT} {at:.1}H{right}"/><text class="soft" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                LEFT - 8.0,
                at + 4.0,
                tick(v)
            );
        }
        for (at, text) in self.x_ticks(x) {
            let _ = write!(
                out,
                r#"<path class="axis" d="M{at:.1} {bottom:.1}v5"/><text class="soft" x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                bottom + 19.0,
                Text(&text)
            );
        }
        let _ = write!(
            out,
            r#"<path class="axis" d="M{LEFT} {bottom:.1}H{right}"/><text class="soft" x="{right}" y="{:.1}" text-anchor="end">{}</text>"#,
            bottom + 40.0,
            Text(&self.x.label)
        );
        let _ = write!(
            out,
            r#"<text class="soft" x="14" y="{:.1}">{}</text>"#,
            top - 14.0,
            Text(&self.y.label)
        );
    }

    fn curve(&self, out: &mut String, n: usize, curve: &Curve, x: &Mapping, y: &Mapping) {
        let mut points = curve.points.clone();
        points.retain(Point::is_sound);
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        if points.is_empty() {
            return;
        }
        let _ = write!(out, r#"<g class="s{}">"#, n % COLOURS);
        if points.len() > 1 {
            let high = points.iter().map(|p| (x.at(p.x), y.at(p.high)));
            let low = points.iter().rev().map(|p| (x.at(p.x), y.at(p.low)));
            let _ = write!(
                out,
                r#"<path class="band" d="{}z"/>"#,
                path(high.chain(low))
            );
            let line = points.iter().map(|p| (x.at(p.x), y.at(p.y)));
            let _ = write!(
                out,
                r#"<path class="line" stroke-dasharray="{}" d="{}"/>"#,
                DASHES[n % COLOURS],
                path(line)
            );
        }
        for p in &points {
            let (at, low, high) = (x.at(p.x), y.at(p.low), y.at(p.high));
            let _ = write!(
                out,
                r#"<path class="line" d="M{at:.1} {low:.1}V{high:.1}"/>"#
            );
            marker(out, n, at, y.at(p.y));
        }
        out.push_str("</g>");
    }
}

fn trim(v: f64) -> String {
    format!("{v}")
}

pub(super) fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut out = String::new();
    for (i, (x, y)) in points.enumerate() {
        let _ = write!(out, "{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' });
    }
    out
}

/// A bar.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) goal: Option<(String, bool)>,
}

/// Bars beside a line at 1, each with its name above it.
pub(super) fn bars(heading: &str, about: &str, bars: &[Bar], alone: bool) -> String {
    const ROW: f64 = 44.0;
    let bars: Vec<&Bar> = bars.iter().filter(|b| b.value.is_finite()).collect();
    let top = 40.0;
    let bottom = top + ROW * bars.len() as f64;
    let mut out = String::new();
    open(&mut out, heading, about, bottom + 34.0, alone);
    let ends = bars.iter().flat_map(|b| [b.value, b.low, b.high]);
    let (_, high) = extremes(ends.chain([1.0]));
    let right = WIDTH - 120.0;
    let x = Mapping::new(&Spacing::Linear, 0.0, high * 1.02, (14.0, right));
    for v in linear_ticks(high) {
        let at = x.at(v);
        let _ = write!(
            out,
            r#"<path class="grid" d="M{at:.1} {top}V{bottom:.1}"/><text class="soft" x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            bottom + 18.0,
            tick(v)
        );
    }
    for (i, bar) in bars.iter().enumerate() {
        let y = top + ROW * i as f64;
        let class = match bar.goal {
            Some((_, true)) => "good",
            Some((_, false)) => "bad",
            None => "s0",
        };
        let mut name = bar.name.clone();
        if let Some((goal, reached)) = &bar.goal {
            let not = if *reached { "" } else { "not " };
            let _ = write!(name, " ({goal}: {not}reached)");
        }
        let end = x.at(bar.value).max(15.0);
        let _ = write!(
            out,
            r#"<g class="{class}"><text x="14" y="{:.1}">{}</text><rect class="bar" x="14" y="{:.1}" width="{:.1}" height="14" rx="2"/>"#,
            y + 16.0,
            Text(&name),
            y + 22.0,
            end - 14.0
        );
        if bar.low.is_finite() && bar.high.is_finite() && bar.high > bar.low {
            let _ = write!(
                out,
                r#"<path class="axis" d="M{:.1} {:.1}H{:.1}"/>"#,
                x.at(bar.low),
                y + 29.0,
                x.at(bar.high)
            );
        }
        let text = x.at(bar.high.max(bar.value)).max(15.0) + 8.0;
        let _ = write!(
            out,
            r#"<text x="{text:.1}" y="{:.1}">{}x</text></g>"#,
            y + 33.5,
            number(bar.value)
        );
    }
    let one = x.at(1.0);
    let _ = write!(
        out,
        r#"<path class="level" d="M{one:.1} {top}V{bottom:.1}"/></svg>"#
    );
    out.push('\n');
    out
}
