//! Configuration files into an engine; a file is a transaction.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use dash_engine::{Commit, Engine, EngineError};
use dash_model::{CommitError, Txn, Warning};
use dash_proto::config::{config_to_txn, load_config};
use nic_target::Target;

/// A file, decoded.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    txn: Txn,
    warnings: Vec<Warning>,
    /// Line of each row, by index.
    lines: HashMap<usize, usize>,
}

impl ConfigFile {
    /// Reads and decodes a file.
    ///
    /// # Errors
    /// It cannot be read, is not JSON, or has rows that cannot be what they say: every one of
    /// them, with its line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(path, &text)
    }

    /// Decodes a file's text; `path` is for messages.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let rows = load_config(text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        let (txn, warnings) = config_to_txn(&rows).map_err(|errors| prefixed(path, &errors))?;
        let lines = rows.iter().map(|row| (row.index, row.line)).collect();
        Ok(Self {
            path: path.to_owned(),
            txn,
            warnings,
            lines,
        })
    }

    /// The transaction.
    pub fn txn(&self) -> &Txn {
        &self.txn
    }

    /// Makes the file a generation.
    ///
    /// # Errors
    /// The configuration is as before; every wrong row is named with its line.
    pub fn commit<T: Target + ?Sized>(self, engine: &mut Engine<T>) -> Result<Commit> {
        let Self {
            path,
            txn,
            warnings,
            lines,
        } = self;
        match engine.commit(txn) {
            Ok(mut commit) => {
                commit.warnings.splice(0..0, warnings);
                Ok(commit)
            }
            Err(EngineError::Commit(error)) => Err(anyhow!(commit_error(&path, &lines, &error))),
            Err(error) => Err(anyhow!(error).context(path.display().to_string())),
        }
    }
}

/// Reads files and makes each a generation; what is accepted with a remark is said on stderr.
///
/// # Errors
/// The first file that is refused; those before it are in the engine.
pub fn commit_files<T: Target + ?Sized>(engine: &mut Engine<T>, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let file = ConfigFile::read(path)?;
        let lines = file.lines.clone();
        let commit = file.commit(engine)?;
        for warning in &commit.warnings {
            let line = lines
                .get(&warning.index)
                .map(|l| format!("line {l}: "))
                .unwrap_or_default();
            eprintln!(
                "{}: {line}{}: {}",
                path.display(),
                warning.key,
                warning.text
            );
        }
        for key in &commit.stored_only {
            eprintln!("{}: {key}: stored, not acted on", path.display());
        }
    }
    Ok(())
}

/// Errors that print one a line, each with the file before it.
fn prefixed(path: &Path, errors: &impl std::fmt::Display) -> anyhow::Error {
    let lines: Vec<String> = errors
        .to_string()
        .lines()
        .map(|line| format!("{}: {line}", path.display()))
        .collect();
    anyhow!(lines.join("\n"))
}

fn commit_error(path: &Path, lines: &HashMap<usize, usize>, error: &CommitError) -> String {
    let mut out = String::new();
    for item in &error.errors {
        if !out.is_empty() {
            out.push('\n');
        }
        let line = lines
            .get(&item.index)
            .map(|l| format!("line {l}: "))
            .unwrap_or_default();
        // Writing to a String does not fail.
        let _ = write!(
            out,
            "{}: {line}{}: {}",
            path.display(),
            item.key,
            item.reason
        );
    }
    if error.omitted > 0 {
        let _ = write!(out, "\n{}: and {} more", path.display(), error.omitted);
    }
    out
}
