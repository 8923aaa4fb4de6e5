//! Verdicts by content: in memory, and accepted ones on disk.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::error::Reason;

/// What a verdict is about: see [`Verifier`](crate::Verifier).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(pub(crate) [u8; 32]);

impl Key {
    fn hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Where a verdict came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Memory,
    Disk,
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    verdicts: HashMap<Key, Result<(), Reason>>,
    dir: Option<PathBuf>,
}

const HEADER: &str = "dash-verify: accepted\n";

/// The whole content of a verdict's file. It names the key, so a file under another's name is
/// worth nothing, and ends with a digest, so damage shows.
fn content(key: Key) -> String {
    let body = format!("{HEADER}{}\n", key.hex());
    let digest: String = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{body}{digest}\n")
}

impl Cache {
    pub(crate) fn new(dir: Option<PathBuf>) -> Self {
        Self {
            verdicts: HashMap::new(),
            dir,
        }
    }

    fn file(&self, key: Key) -> Option<PathBuf> {
        self.dir
            .as_ref()
            .map(|dir| dir.join(format!("{}.verdict", key.hex())))
    }

    /// A file that is missing, unreadable or not exactly what was written is no verdict.
    pub(crate) fn get(&mut self, key: Key) -> Option<(Source, Result<(), Reason>)> {
        if let Some(verdict) = self.verdicts.get(&key) {
            return Some((Source::Memory, verdict.clone()));
        }
        let found = fs::read(self.file(key)?).ok()?;
        if found != content(key).as_bytes() {
            return None;
        }
        self.verdicts.insert(key, Ok(()));
        Some((Source::Disk, Ok(())))
    }

    /// Keeps a verdict. One that cannot be written to disk is found again by verifying again.
    pub(crate) fn put(&mut self, key: Key, verdict: Result<(), Reason>) {
        if let (Ok(()), Some(file), Some(dir)) = (&verdict, self.file(key), &self.dir) {
            let _ = write(dir, &file, key);
        }
        self.verdicts.insert(key, verdict);
    }
}

/// Beside the file, then renamed over it: readers see the old file or the new one.
fn write(dir: &Path, file: &Path, key: Key) -> std::io::Result<()> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    fs::create_dir_all(dir)?;
    let write = WRITES.fetch_add(1, Ordering::Relaxed);
    let beside = dir.join(format!(".{}.{}.{write}", key.hex(), std::process::id()));
    let mut out = fs::File::create_new(&beside)?;
    let done = out
        .write_all(content(key).as_bytes())
        .and_then(|()| out.sync_all())
        .and_then(|()| fs::rename(&beside, file));
    if done.is_err() {
        let _ = fs::remove_file(&beside);
    }
    done
}
