//! `dashctl feature probe`: what eBPF programs find here.

use anyhow::Result;
use dash_prog::Engine;
use dash_prog::helpers::probe::{self, map_kinds, refused};
use dash_prog::map::kind_name;
use serde_json::{Value, json};

use super::prog::print;
use crate::cli::{Feature, Output};

pub(crate) fn run(command: &Feature, output: Output) -> Result<()> {
    let Feature::Probe = command;
    match output.wanted() {
        true => output.json(&table()),
        false => print(&text()),
    }
}

/// Helpers: number, name, and why not, if not.
fn helpers() -> Vec<(u32, &'static str, Option<&'static str>)> {
    let there = probe::helpers().map(|helper| (helper.number, helper.name, None));
    let not = refused().map(|(number, name, why)| (number, name, Some(why)));
    let mut all: Vec<_> = there.chain(not).collect();
    all.sort();
    all
}

fn table() -> Value {
    let maps = map_kinds().map(
        |(kind, there, note)| json!({ "type": kind_name(kind), "available": there, "note": note }),
    );
    let helpers = helpers().into_iter().map(|(number, name, why)| {
        let name = format!("bpf_{name}");
        match why {
            None => json!({ "id": number, "name": name, "available": true }),
            Some(why) => json!({ "id": number, "name": name, "available": false, "note": why }),
        }
    });
    json!({
        "program_types": ["xdp"],
        "engines": Engine::ALL.map(Engine::name),
        "instructions": ["base32", "base64", "divmul32", "divmul64", "atomic32", "atomic64"],
        "map_types": maps.collect::<Value>(),
        "helpers": helpers.collect::<Value>(),
    })
}

fn text() -> String {
    let mut out = String::from("Program types: xdp\n\nMap types\n");
    for (kind, there, note) in map_kinds() {
        let there = if there { "yes" } else { "no" };
        let line = format!("  {:<18} {there:<4} {note}", kind_name(kind));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push_str("\nHelpers\n");
    for (number, name, why) in helpers() {
        let there = if why.is_none() { "yes" } else { "no" };
        let name = format!("bpf_{name}");
        let line = format!("  {number:>3} {name:<30} {there:<4} {}", why.unwrap_or(""));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
