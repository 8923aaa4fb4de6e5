//! Every scenario of `specs/scenarios` on every engine.

use std::path::{Path, PathBuf};

use dash_engine::Judge;
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
        match scenario::run(&file, engine, Judge::default(), Some(cache_dir())) {
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

/// The runner finds what is wrong: each change of a scenario that passes is told, and where.
#[test]
fn a_scenario_that_expects_something_else_fails_where_it_does() {
    let file = scenarios()
        .into_iter()
        .find(|file| file.name == "e05-route-miss")
        .expect("the scenario");
    let text = std::fs::read_to_string(file.dir.join("scenario.json")).expect("its text");
    let mismatches = |from: &str, to: &str| -> Vec<String> {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from} is not in the scenario");
        let scenario = serde_json::from_str(&changed).expect("a scenario");
        let file = ScenarioFile {
            scenario,
            ..file.clone()
        };
        let report = scenario::run(
            &file,
            EngineName::Model,
            Judge::default(),
            Some(cache_dir()),
        )
        .expect("it runs");
        report
            .mismatches
            .iter()
            .map(|m| m.to_string().lines().next().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(mismatches("No route", "Still no route"), [""; 0]);
    let other_reason = mismatches("\"drop\": \"route-miss\"", "\"drop\": \"mapping-miss\"");
    assert!(
        matches!(other_reason.as_slice(), [m] if m.starts_with("step 1: mapping-miss moves ")),
        "{other_reason:?}"
    );
    let drop = r#""out": null,
      "drop": "route-miss","#;
    let leaves = mismatches(drop, r#""out": {"hex": "00"},"#);
    assert!(
        matches!(leaves.as_slice(), [nothing, reason] if nothing.starts_with("step 1: nothing left (Drop)")
        && reason.starts_with("step 1: no drop moves ")),
        "{leaves:?}"
    );
    assert_eq!(
        mismatches("\"TOTAL_DROP_PACKETS\": 1", "\"TOTAL_DROP_PACKETS\": 2"),
        ["end: eni eni-1 SAI_ENI_STAT_TOTAL_DROP_PACKETS: 2 expected, 1 found"]
    );
    assert_eq!(
        mismatches("\"FORWARDING_DROP_PACKETS\": 1, ", ""),
        ["end: eni eni-1 SAI_ENI_STAT_FORWARDING_DROP_PACKETS: 0 expected, 1 found"]
    );
    assert_eq!(
        mismatches("\"flows\": 0\n    }", "\"flows\": 1\n    }"),
        ["step 1: 1 flows expected, 0 live"]
    );
    assert_eq!(
        mismatches("  \"flows\": 0\n}", "  \"flows\": 3\n}"),
        ["end: 3 flows expected, 0 live:"]
    );
}

/// A packet that differs in one byte is shown with that byte.
#[test]
fn a_packet_that_differs_is_shown_with_its_first_difference() {
    let file = scenarios()
        .into_iter()
        .find(|file| file.name == "v1-golden-outbound")
        .expect("the scenario");
    let text = std::fs::read_to_string(file.dir.join("scenario.json")).expect("its text");
    // The last octet of the outer destination of what leaves.
    let (before, after) = text.rsplit_once("02 03 14 22").expect("it is there");
    let scenario =
        serde_json::from_str(&format!("{before}02 04 14 22{after}")).expect("a scenario");
    let file = ScenarioFile { scenario, ..file };
    let report = scenario::run(
        &file,
        EngineName::Interp,
        Judge::default(),
        Some(cache_dir()),
    )
    .expect("it runs");
    let [mismatch] = report.mismatches.as_slice() else {
        panic!("{:?}", report.mismatches)
    };
    assert!(
        mismatch
            .what
            .contains("first difference at byte 33 (0x0021)"),
        "{mismatch}"
    );
    assert!(
        mismatch.what.contains("IPv4 10.0.0.1 > 101.1.2.3"),
        "{mismatch}"
    );
}
