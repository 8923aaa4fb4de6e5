//! Every rule of the configuration: a row that breaks it, and the exact words it is refused with.
//!
//! `specs/refusals.json` has one good configuration and the rows, each tried on it alone.

use std::path::Path;

use dash_model::{Store, StoreOptions};
use dashctl::config::ConfigFile;
use serde_json::Value;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../specs/refusals.json");

fn specs() -> Value {
    let text = std::fs::read_to_string(FILE).expect("the file");
    serde_json::from_str(&text).expect("JSON")
}

/// Decodes rows and commits them; the error in words, without where it is.
fn commit(store: &mut Store, rows: &Value) -> Result<(), String> {
    let file = ConfigFile::parse(Path::new("rows"), &rows.to_string());
    let file = file.map_err(|e| e.to_string().replace("rows: line 1: ", ""))?;
    let committed = store.commit(file.txn().clone());
    committed.map(|_| ()).map_err(|error| {
        let each = error.errors.iter();
        let lines: Vec<String> = each.map(|e| format!("{}: {}", e.key, e.reason)).collect();
        lines.join("\n")
    })
}

fn store(options: StoreOptions) -> Store {
    let mut store = Store::new(options);
    commit(&mut store, &specs()["base"]).expect("a good configuration");
    store
}

#[test]
fn every_rule_refuses_with_its_words_and_changes_nothing() {
    let specs = specs();
    let cases = specs["cases"].as_array().expect("a list");
    assert!(cases.len() >= 130, "only {} rules", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let mut store = store(StoreOptions::default());
        let before: Vec<_> = store.iter().map(|(key, e)| (key, e.clone())).collect();
        let (rule, error) = (case["rule"].as_str(), case["error"].as_str());
        let (rule, error) = (rule.expect("text"), error.expect("text"));
        let found = commit(&mut store, &Value::Array(vec![case["row"].clone()]));
        match found {
            Err(found) if found == error => {}
            found => wrong.push(format!("{rule}\n  expected {error}\n  found    {found:?}")),
        }
        let after: Vec<_> = store.iter().map(|(key, e)| (key, e.clone())).collect();
        assert_eq!(before, after, "{rule}: a refused row changed the store");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rows of tables that nothing acts on are kept for who reads them back, and refused where only what
/// acts is wanted.
#[test]
fn strict_refuses_what_would_only_be_stored() {
    let strict = StoreOptions {
        strict: true,
        ..StoreOptions::default()
    };
    for (table, reason) in [
        (
            "DASH_METER_TABLE:e1:1",
            "nothing acts on DASH_METER_TABLE: it is for reading",
        ),
        (
            "DASH_HA_SET_TABLE:haset1",
            "nothing acts on DASH_HA_SET_TABLE: high availability is not built yet",
        ),
    ] {
        let rows = serde_json::json!([{table: {}, "OP": "SET"}]);
        assert_eq!(commit(&mut store(StoreOptions::default()), &rows), Ok(()));
        let refused = commit(&mut store(strict), &rows);
        assert_eq!(refused, Err(format!("{table}: {reason}")));
        // What is not there may be deleted in any mode.
        let gone = serde_json::json!([{table: {}, "OP": "DEL"}]);
        assert_eq!(commit(&mut store(strict), &gone), Ok(()));
    }
}
