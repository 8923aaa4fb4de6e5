//! The run as one HTML file that needs nothing else.

use std::fmt::Write as _;

use super::number::{NONE, bytes, number, range};
use super::xml::Text;
use super::{busy, charts, plot, sound, summary};
use crate::result::{Group, Machine, Measurement, Run};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--line:#d9dee3;--back:#fff;--raised:#f5f7f9;\
--good:#00694e;--bad:#a83f00;--link:#0069a8}\
@media(prefers-color-scheme:dark){:root{--ink:#e8ebee;--soft:#a3adb8;--line:#363d45;--back:#14181c;\
--raised:#1d2329;--good:#35c79a;--bad:#ff9a57;--link:#5bb4ee}}\
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);\
font:16px/1.5 system-ui,sans-serif}main{max-width:900px;margin:0 auto;padding:24px 16px 64px}\
h1{font-size:1.7rem;line-height:1.2;margin:0 0 4px}h2{font-size:1.3rem;margin:48px 0 4px}\
h2+p{margin-top:0}a{color:var(--link)}p{max-width:70ch}.soft{color:var(--soft)}\
nav ul{display:flex;flex-wrap:wrap;gap:4px 16px;padding:0;list-style:none}\
dl{display:grid;grid-template-columns:minmax(7em,max-content) 1fr;gap:2px 16px}dt{color:var(--soft)}\
dd{margin:0;overflow-wrap:anywhere}.wide{overflow-x:auto;margin:16px 0}\
svg.plot{display:block;width:100%;min-width:560px;max-width:860px;height:auto}\
table{border-collapse:collapse;width:100%;font-size:.92rem}\
th,td{text-align:left;vertical-align:top;padding:5px 12px 5px 0;border-bottom:1px solid var(--line)}\
th{color:var(--soft);font-weight:500}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;\
white-space:nowrap}tbody th{color:var(--ink);font-weight:400;min-width:14em}td:last-child{min-width:10em}\
pre{background:var(--raised);padding:8px 12px;overflow-x:auto;border-radius:6px;margin:8px 0}\
code{font:.88rem ui-monospace,monospace}.good{color:var(--good)}.bad{color:var(--bad);font-weight:600}\
details{margin:16px 0}summary{cursor:pointer;color:var(--link)}.note{color:var(--soft);font-size:.88rem}.warn{border-left:4px solid var(--bad);padding:2px 12px}\
@media print{.wide{overflow:visible}svg.plot{min-width:0}}";

/// Rows of a table that is shown at once although a plot shows them too.
const SHORT: usize = 14;

/// The run as one HTML file.
pub fn html(run: &Run) -> String {
    let run = sound(run);
    let mut out = String::new();
    let _ = write!(
        out,
        r#"<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/><title>dashwire perf lab, {date}</title><style>{STYLE}{plots}</style></head>
<body><main><h1>dashwire perf lab</h1><p class="soft">{build}, {date}</p>
"#,
        date = Text(&run.machine.date),
        build = Text(&run.machine.build),
        plots = plot::STYLE
    );
    contents(&mut out, &run);
    machine(&mut out, &run);
    goals(&mut out, &run);
    if let Some(summary) = summary::of(&run) {
        figure(&mut out, &summary);
    }
    for (n, group) in run.groups.iter().enumerate() {
        section(&mut out, n, group);
    }
    out.push_str("</main></body></html>\n");
    out
}

fn contents(out: &mut String, run: &Run) {
    out.push_str(r#"<nav aria-label="Sections"><ul>"#);
    for (n, group) in run.groups.iter().enumerate() {
        let _ = write!(
            out,
            r##"<li><a href="#g{n}">{}</a></li>"##,
            Text(&group.name)
        );
    }
    out.push_str("</ul></nav>\n");
}

fn machine(out: &mut String, run: &Run) {
    let Machine {
        cpu,
        cores,
        memory,
        system,
        load: [before, after],
        notes,
        ..
    } = &run.machine;
    let load = format!("{} before, {} after", number(*before), number(*after));
    let fixed = [
        ("Processor", cpu.clone()),
        ("Processors used", cores.to_string()),
        ("Memory", bytes(*memory)),
        ("System", system.clone()),
        ("Load average", load),
    ];
    out.push_str("<h2>Machine</h2>");
    if busy(run) {
        out.push_str(
            r#"<p class="warn">Other work ran on this machine: times are too long, ratios of one run still hold.</p>"#,
        );
    }
    out.push_str("<dl>");
    let notes = notes.iter().map(|(n, v)| (n.as_str(), v.clone()));
    for (name, value) in fixed.into_iter().chain(notes) {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", Text(name), Text(&value));
    }
    out.push_str("</dl>\n");
}

fn goals(out: &mut String, run: &Run) {
    let all = run.groups.iter().flat_map(|g| {
        let of = g.measurements.iter().filter(|m| m.goal.is_some());
        // Names are of their group: say which.
        of.map(|m| Measurement {
            name: format!("{}: {}", g.name, m.name),
            ..m.clone()
        })
    });
    let goals: Vec<Measurement> = all.collect();
    if goals.is_empty() {
        return;
    }
    let reached = goals
        .iter()
        .filter(|m| matches!(m.goal, Some((_, true))))
        .count();
    let _ = write!(
        out,
        "<h2>Goals</h2><p>{reached} of {} reached.</p>",
        goals.len()
    );
    table(out, "Goals", &goals);
}

fn section(out: &mut String, n: usize, group: &Group) {
    let _ = write!(
        out,
        r#"<section id="g{n}" aria-labelledby="h{n}"><h2 id="h{n}">{}</h2><p>{}</p><pre><code>{}</code></pre>"#,
        Text(&group.name),
        Text(&group.about),
        Text(&group.command)
    );
    for plot in charts::curves(group) {
        figure(out, &plot.svg(false));
    }
    if let Some(bars) = charts::ratios(group) {
        figure(out, &bars);
    }
    if !group.measurements.is_empty() {
        let many = group.measurements.len() > SHORT && group.measurements.iter().any(is_plotted);
        if many {
            let n = group.measurements.len();
            let _ = write!(out, "<details><summary>All {n} figures</summary>");
        }
        table(out, &group.name, &group.measurements);
        if many {
            out.push_str("</details>");
        }
    }
    if !group.skipped.is_empty() {
        out.push_str("<p>Not measured here:</p><ul>");
        for why in &group.skipped {
            let _ = write!(out, "<li>{}</li>", Text(why));
        }
        out.push_str("</ul>");
    }
    out.push_str("</section>\n");
}

fn is_plotted(m: &Measurement) -> bool {
    m.series.is_some() && m.x.is_some()
}

/// Something wide: a narrow screen scrolls it, not the page.
fn figure(out: &mut String, svg: &str) {
    let _ = write!(out, r#"<figure class="wide">{svg}</figure>"#);
}

fn table(out: &mut String, name: &str, measurements: &[Measurement]) {
    let _ = write!(
        out,
        r#"<div class="wide" role="region" aria-label="{}" tabindex="0"><table><thead><tr><th scope="col">What</th><th scope="col" class="n">Median</th><th scope="col">Unit</th><th scope="col" class="n">Least – most</th><th scope="col" class="n">Samples</th><th scope="col">Goal</th></tr></thead><tbody>"#,
        Text(&format!("Table: {name}"))
    );
    for m in measurements {
        row(out, m);
    }
    out.push_str("</tbody></table></div>");
}

fn row(out: &mut String, m: &Measurement) {
    let (least, most) = m.spread();
    let spread = if m.samples.len() < 2 {
        NONE.to_owned()
    } else {
        range(least, most)
    };
    let _ = write!(out, r#"<tr><th scope="row">{}"#, Text(&m.name));
    if let Some(note) = &m.note {
        let _ = write!(out, r#"<br/><span class="note">{}</span>"#, Text(note));
    }
    let _ = write!(
        out,
        r#"</th><td class="n">{}</td><td>{}</td><td class="n">{spread}</td><td class="n">{}</td><td>"#,
        number(m.median()),
        Text(&m.unit),
        m.samples.len()
    );
    if let Some((goal, reached)) = &m.goal {
        let (class, word) = if *reached {
            ("good", "reached")
        } else {
            ("bad", "not reached")
        };
        let _ = write!(
            out,
            r#"{}: <span class="{class}">{word}</span>"#,
            Text(goal)
        );
    }
    out.push_str("</td></tr>");
}
