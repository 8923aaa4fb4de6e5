//! The run as a table for a terminal of 100 columns.

use std::fmt::Write as _;

use super::number::{bytes, number, range};
use super::{busy, sound};
use crate::result::{Group, Measurement, Run};

const WIDTH: usize = 100;
const NAME: usize = 42;
const VALUE: usize = 12;
const UNIT: usize = 13;
const SPREAD: usize = 27;

/// The run as text: a table for each group, then the goals.
pub fn terminal(run: &Run) -> String {
    let run = sound(run);
    let mut out = String::new();
    let m = &run.machine;
    let memory = bytes(m.memory);
    let about = format!("{}, {} processors, {memory}, {}", m.cpu, m.cores, m.system);
    paragraph(&mut out, 0, &about);
    let load = m.load.map(number).join(" then ");
    let when = format!("{}, {}, load {load}", m.build, m.date);
    paragraph(&mut out, 0, &when);
    for (name, value) in &m.notes {
        paragraph(&mut out, 0, &format!("{name}: {value}"));
    }
    if busy(&run) {
        paragraph(
            &mut out,
            0,
            "other work ran on this machine: times are too long",
        );
    }
    for group in &run.groups {
        table(&mut out, group);
    }
    goals(&mut out, &run);
    out
}

fn table(out: &mut String, group: &Group) {
    out.push('\n');
    paragraph(out, 0, &format!("{}: {}", group.name, group.about));
    paragraph(out, 0, &format!("$ {}", group.command));
    if !group.measurements.is_empty() {
        let _ = writeln!(
            out,
            "  {:<NAME$} {:>VALUE$} {:<UNIT$} {:<SPREAD$}",
            "", "median", "", "least – most"
        );
    }
    for m in &group.measurements {
        row(out, m);
    }
    for why in &group.skipped {
        paragraph(out, 2, &format!("skipped: {why}"));
    }
}

fn row(out: &mut String, m: &Measurement) {
    let names = wrap(&m.name, NAME);
    let (least, most) = m.spread();
    let spread = if m.samples.len() < 2 {
        String::new()
    } else {
        range(least, most)
    };
    for (i, name) in names.iter().enumerate() {
        let line = if i + 1 == names.len() {
            format!(
                "  {name:<NAME$} {:>VALUE$} {:<UNIT$} {spread}",
                number(m.median()),
                clean(&m.unit)
            )
        } else {
            format!("  {name}")
        };
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if let Some((goal, reached)) = &m.goal {
        paragraph(out, 6, &format!("{}: {goal}", mark(*reached)));
    }
    if let Some(note) = &m.note {
        paragraph(out, 6, note);
    }
}

fn goals(out: &mut String, run: &Run) {
    let goals: Vec<bool> = run
        .groups
        .iter()
        .flat_map(|g| &g.measurements)
        .filter_map(|m| Some(m.goal.as_ref()?.1))
        .collect();
    if !goals.is_empty() {
        let reached = goals.iter().filter(|r| **r).count();
        let _ = writeln!(out, "\n{reached} of {} goals reached", goals.len());
    }
}

fn mark(reached: bool) -> &'static str {
    if reached {
        "goal reached"
    } else {
        "GOAL NOT REACHED"
    }
}

/// Text without what would move the cursor.
fn clean(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(shown).collect()
}

/// Lines of words, none longer than `width` (a longer word is cut).
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in clean(text).split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        while !rest.is_empty() {
            let gap = usize::from(used > 0);
            if used > 0 && used + gap + rest.len() > width {
                lines.push(String::new());
                used = 0;
                continue;
            }
            let line = lines.last_mut().expect("there is always a line");
            let tail = rest.split_off(rest.len().min(width - used - gap));
            if gap > 0 {
                line.push(' ');
            }
            used += gap + rest.len();
            line.extend(rest);
            rest = tail;
        }
    }
    lines
}

fn paragraph(out: &mut String, indent: usize, text: &str) {
    for line in wrap(text, WIDTH - indent) {
        let _ = writeln!(out, "{:indent$}{line}", "");
    }
}

#[cfg(test)]
mod tests {
    use super::wrap;
    use proptest::prelude::*;

    proptest! {
        /// Wrapping loses no character but blanks, and no line is too long.
        #[test]
        fn wrapping_keeps_all_words(text in "\\PC{0,200}", width in 1usize..60) {
            let lines = wrap(&text, width);
            prop_assert!(lines.iter().all(|l| l.chars().count() <= width));
            let solid = |t: &str| t.split_whitespace().collect::<String>();
            prop_assert_eq!(solid(&lines.concat()), solid(&text));
        }
    }
}
