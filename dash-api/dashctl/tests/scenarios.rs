//! Every scenario of `specs/scenarios` on every engine.

use std::path::{Path, PathBuf};

use dashctl::engines::EngineName;
use dashctl::scenario::{self, Outcome, ScenarioFile};
use nic_linux::KernelEngine;

/// Verdicts of test runs: kept between them, or every run would verify for seconds.
fn cache_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("verdicts")
}

fn scenarios() -> Vec<ScenarioFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../specs/scenarios");
    let scenarios = ScenarioFile::read_all(&root).expect("well written scenarios");
    assert!(scenarios.len() >= 23, "only {} scenarios", scenarios.len());
    scenarios
}

/// Runs all scenarios on an engine; panics with everything that differs.
fn run_all(engine: EngineName) -> Vec<(String, Outcome)> {
    if engine == EngineName::Kernel
        && let Some(why) = KernelEngine::unavailable()
    {
        eprintln!("SKIP: every scenario on {engine}: {why}");
        return Vec::new();
    }
    let mut failures = Vec::new();
    let mut outcomes = Vec::new();
    for file in scenarios() {
        if let Some(why) = file.scenario.engines_skip.get(engine.as_str()) {
            eprintln!("SKIP: {} on {engine}: {why}", file.name);
            continue;
        }
        match scenario::run(&file, engine, Some(cache_dir())) {
            Ok(report) => {
                failures.extend(
                    report
                        .mismatches
                        .iter()
                        .map(|m| format!("{} on {engine}: {m}", file.name)),
                );
                outcomes.push((file.name, report.outcome));
            }
            Err(error) => failures.push(format!("{} on {engine}: {error:#}", file.name)),
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures\n{}",
        failures.len(),
        failures.join("\n")
    );
    outcomes
}

#[test]
fn scenarios_hold_on_native() {
    run_all(EngineName::Native);
}

#[test]
fn scenarios_hold_on_interp() {
    run_all(EngineName::Interp);
}

#[test]
fn scenarios_hold_on_rbpf() {
    run_all(EngineName::Rbpf);
}

#[test]
fn scenarios_hold_on_kernel() {
    run_all(EngineName::Kernel);
}

/// Beyond what scenarios say: source ports that they leave open, and every field of a flow line.
#[test]
fn engines_agree_byte_for_byte_on_every_scenario() {
    let model = run_all(EngineName::Model);
    for engine in [EngineName::Native, EngineName::Interp] {
        for (name, outcome) in run_all(engine) {
            let Some((_, ours)) = model.iter().find(|(other, _)| *other == name) else {
                continue;
            };
            assert_eq!(outcome, *ours, "{name}: {engine} and model differ");
        }
    }
}
