//! How long a configuration takes to forward with each verifier: cold, with verdicts on disk, and a change
//! of rows.
//!
//! `cargo run --release -p dashctl --example start_times [CONFIG.json]`

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use dash_engine::{Judge, Options};
use dashctl::config::ConfigFile;
use dashctl::engines::{EngineName, start};

fn main() -> Result<()> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../specs/scenarios/demo/config.json");
    let config = std::env::args().nth(1).map_or(demo, PathBuf::from);
    let caches = [tempfile::tempdir()?, tempfile::tempdir()?];
    let starts = [
        ("cold start", Judge::Prevail, &caches[0]),
        ("warm start", Judge::Prevail, &caches[0]),
        ("cold start", Judge::Own, &caches[1]),
        ("warm start", Judge::Own, &caches[1]),
    ];
    for (what, judge, cache) in starts {
        let from = Instant::now();
        let options = Options {
            judge,
            cache_dir: Some(cache.path().to_owned()),
            ..Options::default()
        };
        let mut engine = start(EngineName::Native, options)?;
        let empty = from.elapsed();
        let commit = ConfigFile::read(&config)?.commit(&mut engine)?;
        println!(
            "{what}, verifier {judge}: {:?} (empty configuration {empty:?}); {:?}",
            from.elapsed(),
            engine.compile_stats()
        );
        println!("  {} rows, {:?}", commit.changes, commit.timings);

        let row = r#"[{"DASH_VNET_TABLE:TimedVnet": {"vni": 77}, "OP": "SET"}]"#;
        let commit = ConfigFile::parse(Path::new("row"), row)?.commit(&mut engine)?;
        println!("  one row: {:?}", commit.timings);
    }
    Ok(())
}
