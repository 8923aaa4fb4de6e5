//! What scenarios are evidence of: drop reasons and counters, each from its one list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use dash_engine::Judge;
use dash_pipeline::model::coverage::never_dropped;
use dash_wire::drop::DropReason;
use dash_wire::stats::{EniStat, MeterStat, PortStat};
use dashctl::engines::EngineName;
use dashctl::scenario::{self, ScenarioFile};

fn specs(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../specs")
        .join(path)
}

fn cache_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("verdicts")
}

fn scenarios() -> Vec<ScenarioFile> {
    ScenarioFile::read_all(&specs("scenarios")).expect("well written scenarios")
}

/// That exactly its counters move in the step is the runner's to say (`scenarios.rs`).
#[test]
fn every_drop_reason_is_in_a_scenario() {
    let mut named: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let scenarios = scenarios();
    for file in &scenarios {
        for step in &file.scenario.steps {
            if let Some(reason) = &step.drop {
                named.entry(reason).or_default().push(file.name.clone());
            }
        }
    }
    for reason in DropReason::ALL {
        let found = named.get(reason.name());
        match never_dropped(*reason) {
            None => assert!(found.is_some(), "no scenario drops for {}", reason.name()),
            Some(why) => assert!(
                found.is_none(),
                "{} is listed as impossible ({why}), and {found:?} have it",
                reason.name()
            ),
        }
    }
}

/// A scenario that drops must say so in its counters, too, not in the step alone.
#[test]
fn counters_of_drops_are_in_the_scenarios_that_drop() {
    for file in scenarios() {
        let scenario = &file.scenario;
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for step in &scenario.steps {
            let reason = step.drop.as_deref().and_then(DropReason::by_name);
            for stat in reason.iter().flat_map(|r| r.eni_stats()) {
                let name = stat.name().trim_start_matches("SAI_ENI_STAT_");
                if name.contains("DROP") {
                    *expected.entry(name).or_default() += 1;
                }
            }
        }
        let mut said: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, n) in scenario.counters.eni.values().flatten() {
            if name.contains("DROP") {
                *said.entry(name).or_default() += n;
            }
        }
        said.retain(|_, n| *n > 0);
        assert_eq!(said, expected, "{}", file.name);
    }
}

/// The table of counters in `specs/counters.md` says what moves: compared with all scenarios on the
/// reference model. `DASHWIRE_BLESS=1` writes it.
#[test]
fn the_table_of_counters_is_what_scenarios_move() {
    let mut moved: BTreeSet<String> = BTreeSet::new();
    for file in scenarios() {
        let report = scenario::run(
            &file,
            EngineName::Model,
            Judge::default(),
            Some(cache_dir()),
        )
        .unwrap_or_else(|e| panic!("{}: {e:#}", file.name));
        let counters = &report.outcome.counters;
        for bucket in counters["meter"].as_array().into_iter().flatten() {
            let names = MeterStat::ALL.iter().map(|s| s.name());
            let not_zero = names.filter(|name| bucket[name].as_u64() != Some(0));
            moved.extend(not_zero.map(ToOwned::to_owned));
        }
        let enis = counters["eni"]
            .as_object()
            .into_iter()
            .flat_map(|o| o.values());
        for (block, all) in enis
            .map(|block| {
                (
                    block,
                    EniStat::ALL
                        .iter()
                        .map(|s| s.name())
                        .collect::<BTreeSet<_>>(),
                )
            })
            .chain([(
                &counters["port"],
                PortStat::ALL.iter().map(|s| s.name()).collect(),
            )])
        {
            let block = block.as_object().expect("a block of counters");
            let names: BTreeSet<&str> = block.keys().map(String::as_str).collect();
            assert_eq!(
                names, all,
                "{}: every name of the list is reported",
                file.name
            );
            moved.extend(
                block
                    .iter()
                    .filter(|(_, n)| n.as_u64() != Some(0))
                    .map(|(name, _)| name.clone()),
            );
        }
    }
    let table = table(&moved);
    let path = specs("counters.md");
    if std::env::var_os("DASHWIRE_BLESS").is_some() {
        std::fs::write(&path, &table).expect("specs can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == table,
        "specs/counters.md is not what scenarios move; DASHWIRE_BLESS=1 cargo nextest run -p dashctl \
         the_table_of_counters rewrites it. It should be:\n{table}"
    );
}

fn table(moved: &BTreeSet<String>) -> String {
    let mut out = String::from(
        "# Counters

Made by a test of `dashctl` (`tests/evidence.rs`) from the lists in `dash_wire::stats` and from all
scenarios on the reference model. Every name is reported, by gNMI, `dashctl counters` and Prometheus;
those that nothing moves are 0. Of metering buckets those are reported that are not 0.

",
    );
    let mut section = |title: &str, names: Vec<&'static str>| {
        let moving = names.iter().filter(|n| moved.contains(**n)).count();
        // Writing to a String does not fail.
        let _ = write!(
            out,
            "## {title}: {moving} of {} move\n\n| Name | Moves | By drops for, or why not |\n|---|---|---|\n",
            names.len()
        );
        for name in names {
            let moves = moved.contains(name);
            let _ = writeln!(
                out,
                "| {name} | {} | {} |",
                if moves { "yes" } else { "0" },
                note(name, moves)
            );
        }
        out.push('\n');
    };
    section("ENI", EniStat::ALL.iter().map(|s| s.name()).collect());
    section("Port", PortStat::ALL.iter().map(|s| s.name()).collect());
    section(
        "Metering bucket",
        MeterStat::ALL.iter().map(|s| s.name()).collect(),
    );
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// The reasons whose drops a counter counts, or why it stays 0.
fn note(name: &str, moves: bool) -> String {
    if moves {
        let total = name == EniStat::TotalDropPackets.name();
        let reasons = DropReason::ALL.iter().filter(|r| {
            let eni = r.eni_stats().iter().map(|s| s.name());
            let port = r.port_stats().iter().map(|s| s.name());
            never_dropped(**r).is_none() && eni.chain(port).any(|n| n == name)
        });
        let reasons: Vec<_> = reasons.map(|r| r.name()).collect();
        return match total {
            true => "all of an ENI".to_owned(),
            false => reasons.join(", "),
        };
    }
    let ha = ["INLINE_", "TIMED_"];
    let short = name
        .trim_start_matches("SAI_ENI_STAT_")
        .trim_start_matches("SAI_PORT_STAT_");
    if ha.iter().any(|prefix| short.starts_with(prefix)) {
        "high availability".to_owned()
    } else {
        "nothing in the pipeline moves it".to_owned()
    }
}

#[test]
fn a_table_says_which_counters_move() {
    let moved = ["SAI_ENI_STAT_POLICY_DROP_PACKETS".to_owned()].into();
    let text = table(&moved);
    let has = |line: &str| text.lines().any(|l| l == line);
    assert!(
        has("| SAI_ENI_STAT_POLICY_DROP_PACKETS | yes | acl-deny |"),
        "{text}"
    );
    assert!(
        has("| SAI_ENI_STAT_INLINE_SYNC_REQ_TX | 0 | high availability |"),
        "{text}"
    );
    assert_eq!(
        text.lines().filter(|l| l.starts_with("| SAI_")).count(),
        EniStat::COUNT + PortStat::COUNT + MeterStat::COUNT
    );
}
