//! `dashctl coverage`: every scenario on the reference model, and what of the pipeline none reached.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use dash_pipeline::model::coverage::Coverage;
use dash_pipeline::plan::Shape;
use dash_pipeline::template::pipeline_text;
use dashctl::progress::Progress;
use dashctl::scenario;

use super::scenario::read;
use crate::cli;

pub(crate) fn run(args: &cli::Coverage) -> Result<ExitCode> {
    let files = read(&args.paths)?;
    let mut all = Coverage::default();
    let mut progress = Progress::new("scenarios", files.len() as u64);
    for file in &files {
        let name = &file.name;
        let (report, coverage) = scenario::cover(file, args.proof.verifier, args.proof.path())
            .with_context(|| name.clone())?;
        if let Some(mismatch) = report.mismatches.first() {
            bail!("{name} does not hold on the model: {mismatch}");
        }
        all.absorb(coverage);
        progress.add(1);
    }
    drop(progress);
    // The whole is what scenarios have compiled, and the pipeline of everything at once.
    all.expect("everything", &pipeline_text(&Shape::everything()))?;
    if args.impossible {
        for (what, why) in all.impossible() {
            println!("impossible: {what}: {why}");
        }
    }
    let missed = all.missed();
    for finding in &missed {
        println!("MISSED: {finding}");
    }
    let (reached, of) = all.count();
    println!(
        "{} scenarios reach {reached} of {of} places; {} are impossible, {} missed",
        files.len(),
        all.impossible().count(),
        missed.len()
    );
    Ok(if missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
