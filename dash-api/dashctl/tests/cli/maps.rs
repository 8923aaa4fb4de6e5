//! `dashctl prog run`, `dashctl map` and `dashctl feature probe`.

use std::fs;
use std::path::{Path, PathBuf};

use dash_bpf::elf::write;
use dash_bpf::{MapDef, MapKind, Object, Program, assemble};
use nic_sim::{CaptureReader, CaptureWriter};
use serde_json::{Value, json};

use crate::{dashctl, stderr, stdout, text};

fn map(name: &str, kind: MapKind, entries: u32) -> MapDef {
    MapDef {
        name: name.to_owned(),
        kind,
        key_size: 4,
        value_size: if kind == MapKind::Hash { 8 } else { 4 },
        max_entries: entries,
        ..MapDef::default()
    }
}

/// Counts packets by the first byte, and redirects by device map what begins with 1.
fn object(dir: &Path) -> PathBuf {
    let count = "r6 = r1
        r1 = *(u32 *)(r6 + 0)
        r2 = *(u32 *)(r6 + 4)
        r3 = r1
        r3 += 1
        if r3 > r2 goto out
        r7 = *(u8 *)(r1 + 0)
        *(u32 *)(r10 - 4) = r7
        *(u64 *)(r10 - 16) = 1
        r1 = map[0] ll
        r2 = r10
        r2 += -4
        call 1
        if r0 == 0 goto new
        r1 = 1
        lock *(u64 *)(r0 + 0) += r1
        goto known
        new:
        r1 = map[0] ll
        r2 = r10
        r2 += -4
        r3 = r10
        r3 += -16
        r4 = 0
        call 2
        known:
        if r7 != 1 goto out
        r1 = map[1] ll
        r2 = 0
        r3 = 1
        call 51
        exit
        out:
        r0 = 2
        exit";
    let object = Object {
        maps: vec![
            map("counts", MapKind::Hash, 8),
            map("ports", MapKind::DevMap, 2),
        ],
        programs: vec![Program {
            name: "count".to_owned(),
            insns: assemble(count).expect("text"),
            ..Program::default()
        }],
        tail_calls: Vec::new(),
    };
    let path = dir.join("count.o");
    fs::write(&path, write(&object).expect("an ELF form")).expect("written");
    path
}

fn capture(path: &Path, first_bytes: &[u8]) {
    let mut out = CaptureWriter::create(path).expect("created");
    for (time, byte) in (1..).zip(first_bytes) {
        out.write(time, &[*byte; 60]).expect("written");
    }
    out.finish().expect("written");
}

fn packets(path: &Path) -> Vec<Vec<u8>> {
    let packets = CaptureReader::open(path).expect("a capture");
    packets
        .map(|packet| packet.expect("a packet").data)
        .collect()
}

#[test]
fn a_run_that_takes_more_instructions_than_it_may_ends_with_that() {
    let dir = tempfile::tempdir().expect("folder");
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let object = Object {
        programs: vec![Program {
            name: "loop".to_owned(),
            insns: assemble("r1 = 0\nagain:\nr1 += 1\nif r1 < 50 goto again\nr0 = 2\nexit")
                .expect("text"),
            ..Program::default()
        }],
        ..Object::default()
    };
    let path = dir.path().join("loop.o");
    fs::write(&path, write(&object).expect("an ELF form")).expect("written");
    capture(&input, &[1]);
    for engine in ["native", "interp"] {
        let run = |fuel| {
            let args = ["prog", "run", text(&path), "--in", text(&input)];
            let rest = ["--out", text(&output), "--engine", engine, "--fuel", fuel];
            dashctl(&[&args[..], &rest].concat())
        };
        assert!(stdout(&run("99")).contains("1 XDP_PASS"));
        let ended = run("50");
        assert!(!ended.status.success());
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        let expected = "packet 1: out of fuel: more than 50 instructions";
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_program_runs_over_a_capture_on_every_engine_alike() {
    let dir = tempfile::tempdir().expect("folder");
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let maps = dir.path().join("maps.json");
    let object = object(dir.path());
    capture(&input, &[1, 2, 1, 3, 2, 1]);
    let mut dumps = Vec::new();
    for engine in ["native", "interp"] {
        let run = |more: &[&str]| {
            let args = ["prog", "run", text(&object), "--in", text(&input)];
            let rest = ["--out", text(&output), "--engine", engine, "-j"];
            dashctl(&[&args[..], &rest, more].concat())
        };
        let said = stdout(&run(&["--maps", text(&maps)]));
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(said["verdicts"]["XDP_PASS"], 3, "{said}");
        assert_eq!(said["verdicts"]["XDP_DROP"], 3, "{said}");
        assert_eq!(packets(&output), [[2; 60], [3; 60], [2; 60]].map(Vec::from));
        let dump = fs::read_to_string(&maps).expect("maps");
        let dump: Value = serde_json::from_str(&dump).expect("JSON");
        let mut elements = dump[0]["elements"].as_array().expect("elements").clone();
        elements.sort_by_key(Value::to_string);
        assert_eq!(elements.len(), 3);
        assert_eq!(elements[0]["key"], json!(["0x01", "0x00", "0x00", "0x00"]));
        assert_eq!(elements[0]["value"][0], "0x03");
        dumps.push(elements);

        let set = "ports key 0 0 0 0 value hex 7 0 0 0";
        let said = stdout(&run(&["--set", set]));
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(said["redirected"], json!({ "port 7": 3 }), "{said}");
        assert_eq!(packets(&output).len(), 6);
    }
    assert_eq!(dumps[0], dumps[1]);

    let wrong = dashctl(&[
        "prog",
        "run",
        text(&object),
        "--in",
        text(&input),
        "--out",
        text(&output),
        "--set",
        "nothing key 1",
    ]);
    assert!(!wrong.status.success());
    assert!(
        stderr(&wrong).contains("no map nothing"),
        "{}",
        stderr(&wrong)
    );
}

#[test]
fn pinned_maps_are_made_read_and_changed() {
    let dir = tempfile::tempdir().expect("folder");
    let pins = dir.path().join("pins");
    let map = |args: &[&str]| dashctl(&[&["map"], args, &["--pins", text(&pins)]].concat());
    let create = [
        "create", "m", "--type", "hash", "--key", "2", "--value", "4",
    ];
    stdout(&map(&[&create[..], &["--entries", "2"]].concat()));
    assert!(
        !map(&[&create[..], &["--entries", "2"]].concat())
            .status
            .success()
    );

    stdout(&map(&[
        "update", "m", "key", "1", "2", "value", "hex", "a", "b", "c", "d",
    ]));
    assert_eq!(
        stdout(&map(&["lookup", "m", "key", "1", "2"])),
        "key: 01 02  value: 0a 0b 0c 0d\n"
    );
    let dump: Value = serde_json::from_str(&stdout(&map(&["dump", "m", "-j"]))).expect("JSON");
    let element = json!({ "key": ["0x01", "0x02"], "value": ["0x0a", "0x0b", "0x0c", "0x0d"] });
    assert_eq!(dump, json!([element]));

    let again = [
        "update", "m", "key", "1", "2", "value", "0", "0", "0", "0", "noexist",
    ];
    let refused = stderr(&map(&again));
    assert!(refused.contains("EEXIST"), "{refused}");
    stdout(&map(&["delete", "m", "key", "1", "2"]));
    let refused = stderr(&map(&["delete", "m", "key", "1", "2"]));
    assert!(refused.contains("ENOENT"), "{refused}");
    assert_eq!(stdout(&map(&["dump", "m"])), "Found 0 elements\n");
    let shown = stdout(&map(&["show"]));
    assert!(
        shown.starts_with("m: hash  flags 0x0  key 2B  value 4B  max_entries 2"),
        "{shown}"
    );
}

#[test]
fn features_are_there_or_refused_with_a_reason() {
    let said = stdout(&dashctl(&["feature", "probe", "-j"]));
    let table: Value = serde_json::from_str(&said).expect("JSON");
    let helpers = table["helpers"].as_array().expect("helpers");
    for helper in helpers {
        let there = helper["available"] == true;
        assert_ne!(there, helper["note"].is_string(), "{helper}");
    }
    assert!(helpers.is_sorted_by_key(|helper| helper["id"].as_u64()));
    let text = stdout(&dashctl(&["feature", "probe"]));
    let available = |of: &Value| of["available"] == true;
    let count = helpers.iter().filter(|helper| available(helper)).count();
    let (_, listed) = text.split_once("Helpers\n").expect("a list");
    assert_eq!(listed.lines().count(), helpers.len());
    assert_eq!(
        listed.lines().filter(|line| line.ends_with(" yes")).count(),
        count
    );
    assert!(count >= 16, "{text}");
    let maps = table["map_types"].as_array().expect("maps");
    assert!(
        maps.iter().filter(|map| available(map)).count() >= 15,
        "{text}"
    );
}
