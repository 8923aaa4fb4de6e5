//! Flow dumps that rows of `DASH_FLOW_SYNC_SESSION_TABLE` ask for: gzipped JSON lines in files, and
//! a state row of each.
//!
//! Workers look for the flows between bursts, a part at a time; text and files are made by a thread of
//! the dump's own. States are kept of the last [`KEPT`] sessions.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dash_engine::{FlowDump, FoundFlows};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

/// Sessions of which the state is kept.
pub const KEPT: usize = 64;
/// Lines written between two looks at the clock.
const LINES: usize = 1024;

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Created,
    Completed,
    Failed,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug)]
struct Session {
    number: u64,
    state: State,
    created_ms: u64,
    since_ms: u64,
    file: PathBuf,
}

/// Sessions and their files.
#[derive(Clone, Debug)]
pub struct Sessions {
    dir: PathBuf,
    last: u64,
    known: Arc<Mutex<BTreeMap<Arc<str>, Session>>>,
}

impl Sessions {
    /// None yet; files go to a folder, which is made when the first comes.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            last: 0,
            known: Arc::default(),
        }
    }

    /// Starts a session with the flows that were found for it, or with why there are none.
    pub fn start(&mut self, dump: FlowDump, found: Result<FoundFlows, String>) {
        let now = now_ms();
        // Grows, and differs after a restart.
        self.last = (self.last + 1).max(now << 8);
        let number = self.last;
        let file = self.dir.join(format!("flow_dump_0x{number:016x}.jsonl.gz"));
        let session = Session {
            number,
            state: State::Created,
            created_ms: now,
            since_ms: now,
            file: file.clone(),
        };
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(Arc::clone(&dump.session), session);
            while known.len() > KEPT {
                let oldest = known.iter().min_by_key(|(_, session)| session.number);
                let Some(name) = oldest.map(|(name, _)| Arc::clone(name)) else {
                    break;
                };
                known.remove(&name);
            }
        }
        let known = Arc::clone(&self.known);
        let name = Arc::clone(&dump.session);
        let run = move || {
            let outcome = found.and_then(|flows| {
                write(&file, &dump, &flows).map_err(|error| format!("{}: {error}", file.display()))
            });
            let state = match outcome {
                Ok(lines) => {
                    tracing::info!(session = %dump.session, lines, "flows dumped to {}", file.display());
                    State::Completed
                }
                Err(error) => {
                    tracing::warn!(session = %dump.session, "flow dump: {error}");
                    State::Failed
                }
            };
            finish(&known, &dump.session, number, state);
        };
        let spawned = std::thread::Builder::new()
            .name("dash-flow-dump".to_owned())
            .spawn(run);
        if let Err(error) = spawned {
            tracing::warn!(session = %name, "flow dump: {error}");
            finish(&self.known, &name, number, State::Failed);
        }
    }

    /// State rows by session.
    pub fn rows(&self) -> Map<String, Value> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |session: &Session| {
            json!({
                "type": "flow_dump",
                "state": session.state.name(),
                "creation_time_in_ms": session.created_ms.to_string(),
                "last_state_start_time_in_ms": session.since_ms.to_string(),
                "output_file": session.file.display().to_string(),
            })
        };
        known
            .iter()
            .map(|(name, session)| (name.to_string(), row(session)))
            .collect()
    }
}

/// The session's end, unless another has its name by now.
fn finish(known: &Mutex<BTreeMap<Arc<str>, Session>>, name: &str, number: u64, state: State) {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(session) = known.get_mut(name).filter(|s| s.number == number) {
        (session.state, session.since_ms) = (state, now_ms());
    }
}

/// Writes the file, whole or not at all; gives how many lines.
fn write(path: &Path, dump: &FlowDump, flows: &FoundFlows) -> io::Result<usize> {
    let started = Instant::now();
    let text = if dump.state {
        flows.jsonl()
    } else {
        flows.keys_jsonl()
    };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let part = path.with_extension("part");
    let written = compress(&part, &text, dump.max_flows, || {
        started.elapsed() > dump.timeout
    });
    match written {
        Ok(lines) => fs::rename(&part, path).map(|()| lines),
        Err(error) => {
            // What is left of it is no dump; that it cannot be removed changes nothing.
            let _ = fs::remove_file(&part);
            Err(error)
        }
    }
}

fn compress(path: &Path, text: &str, most: usize, late: impl Fn() -> bool) -> io::Result<usize> {
    let file = BufWriter::new(File::create(path)?);
    let mut out = GzEncoder::new(file, Compression::fast());
    let mut lines = 0;
    for line in text.split_inclusive('\n').take(most) {
        if lines % LINES == 0 && late() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        out.write_all(line.as_bytes())?;
        lines += 1;
    }
    out.finish()?.flush()?;
    Ok(lines)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since: Duration| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn lines_of(path: &Path) -> Vec<String> {
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(path).expect("the file"))
            .read_to_string(&mut text)
            .expect("gzip");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn as_many_lines_as_asked_for_are_in_the_file_and_a_late_one_is_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.gz");
        let lines = compress(&path, "a\nb\nc\n", 2, || false).expect("written");
        assert_eq!(
            (lines, lines_of(&path)),
            (2, vec!["a".to_owned(), "b".to_owned()])
        );
        let late = compress(&path, "a\n", 2, || true).expect_err("late");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }
}
