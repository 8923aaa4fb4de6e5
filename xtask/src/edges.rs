//! Which crate of the workspace may depend on which: an edge is added on purpose, in the list.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::run::{cargo, output, root};

const LIST: &str = "specs/crate-edges.txt";

/// Compares the workspace's normal and build dependencies with the list; `bless` rewrites it.
pub(crate) fn run(bless: bool) -> Result<()> {
    let text = output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let have = edges(&serde_json::from_str(&text).context("cargo metadata")?);
    let path = root().join(LIST);
    if bless {
        let mut out = String::from(
            "# crate -> crate, one edge a line; `cargo xtask edges --bless` rewrites this file.\n",
        );
        for (from, to) in &have {
            out.push_str(&format!("{from} -> {to}\n"));
        }
        fs::write(&path, out)?;
        return Ok(());
    }
    let want = parse(&fs::read_to_string(&path).with_context(|| path.display().to_string())?);
    let show = |set: Vec<&(String, String)>| {
        set.iter()
            .map(|(a, b)| format!("{a} -> {b}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (new, gone): (Vec<_>, Vec<_>) = (
        have.difference(&want).collect(),
        want.difference(&have).collect(),
    );
    if !new.is_empty() || !gone.is_empty() {
        bail!(
            "crate edges differ from {LIST}: new [{}], gone [{}]",
            show(new),
            show(gone)
        );
    }
    eprintln!("edges: {} as listed", have.len());
    Ok(())
}

fn edges(metadata: &Value) -> BTreeSet<(String, String)> {
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let names: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut out = BTreeSet::new();
    for p in &packages {
        for d in p["dependencies"].as_array().into_iter().flatten() {
            if let (Some(from), Some(to), kind) =
                (p["name"].as_str(), d["name"].as_str(), d["kind"].as_str())
                && kind != Some("dev")
                && names.contains(to)
            {
                out.insert((from.to_owned(), to.to_owned()));
            }
        }
    }
    out
}

fn parse(text: &str) -> BTreeSet<(String, String)> {
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split_once(" -> "))
        .map(|(a, b)| (a.trim().to_owned(), b.trim().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_dependencies_and_foreign_crates_are_not_edges() {
        let metadata = serde_json::json!({"packages": [
            {"name": "a", "dependencies": [
                {"name": "b", "kind": null}, {"name": "c", "kind": "dev"}, {"name": "serde", "kind": null}]},
            {"name": "b", "dependencies": [{"name": "c", "kind": "build"}]},
            {"name": "c", "dependencies": []},
        ]});
        let want = [("a", "b"), ("b", "c")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(edges(&metadata), want.into());
        assert_eq!(parse("# x\na -> b\nb -> c\n"), edges(&metadata));
    }
}
