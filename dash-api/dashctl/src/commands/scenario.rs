//! `dashctl scenario`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use dashctl::engines::EngineName;
use dashctl::progress::Progress;
use dashctl::scenario::{self, ScenarioFile};
use nic_linux::KernelEngine;

use crate::cli::Scenario;

pub(crate) fn run(args: &Scenario) -> Result<()> {
    let files = read(&args.paths)?;
    let engines = if args.engine.is_empty() {
        &EngineName::ALL[..]
    } else {
        &args.engine
    };
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut progress = Progress::new("scenarios", (files.len() * engines.len()) as u64);
    for engine in engines {
        if *engine == EngineName::Kernel
            && let Some(why) = KernelEngine::unavailable()
        {
            eprintln!("SKIP: {engine}: {why}");
            skipped += files.len();
            continue;
        }
        for file in &files {
            progress.add(1);
            if let Some(why) = file.scenario.engines_skip.get(engine.as_str()) {
                eprintln!("SKIP: {} on {engine}: {why}", file.name);
                skipped += 1;
                continue;
            }
            let mismatches =
                match scenario::run(file, *engine, args.proof.verifier, args.proof.path()) {
                    Ok(report) => report.mismatches.iter().map(ToString::to_string).collect(),
                    Err(error) => vec![format!("{error:#}")],
                };
            if mismatches.is_empty() {
                passed += 1;
                continue;
            }
            failed += 1;
            for mismatch in mismatches {
                println!("FAIL: {} on {engine}: {mismatch}", file.name);
            }
        }
    }
    drop(progress);
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        bail!("{failed} of {} runs are not as expected", passed + failed);
    }
    Ok(())
}

/// The scenarios of files and folders; there must be some.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<ScenarioFile>> {
    let mut files = Vec::new();
    for path in paths {
        if path.join("scenario.json").is_file() {
            files.push(ScenarioFile::read(path)?);
        } else if let (true, Some(dir)) = (path.is_file(), path.parent()) {
            files.push(ScenarioFile::read(dir)?);
        } else {
            files.extend(ScenarioFile::read_all(path)?);
        }
    }
    if files.is_empty() {
        bail!("no scenarios there");
    }
    Ok(files)
}
