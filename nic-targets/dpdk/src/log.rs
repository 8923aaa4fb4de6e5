//! What DPDK says. Its functions answer with a number; why is only in its log.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines kept.
const KEPT: usize = 64;

/// Lines of a start that went well; none is a reason.
const CHATTER: [&str; 7] = [
    "Detected ",
    "Selected IOVA",
    "Multi-process socket",
    "VFIO support",
    "Physical addresses are unavailable",
    "TELEMETRY",
    "Probe PCI",
];

struct Log {
    /// Lines ever seen.
    seen: u64,
    last: VecDeque<String>,
    partial: Vec<u8>,
    quiet: bool,
}

static LOG: Mutex<Log> = Mutex::new(Log {
    seen: 0,
    last: VecDeque::new(),
    partial: Vec::new(),
    quiet: true,
});

fn log() -> MutexGuard<'static, Log> {
    // A line lost by a panic elsewhere does no harm.
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes DPDK's log over; its lines become events of `tracing`.
pub(crate) fn capture() -> bool {
    // SAFETY: the callback has the signature the shim declares, and keeps to its bounds.
    unsafe { dpdk_sys::dash_log_to(Some(write)) == 0 }
}

/// Start-up is over: from now on lines are shown by default.
pub(crate) fn loud() {
    log().quiet = false;
}

/// A point in the log, for [`since`].
pub(crate) fn mark() -> u64 {
    log().seen
}

/// What was said since `mark`, without chatter: `fallback` when nothing was.
pub(crate) fn since(mark: u64, fallback: &str) -> String {
    let log = log();
    let new = usize::try_from(log.seen - mark).unwrap_or(usize::MAX);
    let skip = log.last.len().saturating_sub(new);
    let mut lines: Vec<&str> = Vec::new();
    for line in log.last.iter().skip(skip).map(|line| plain(line)) {
        let chatter = CHATTER.iter().any(|c| line.starts_with(c));
        if !chatter && !line.is_empty() && !lines.contains(&line) {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        fallback.to_owned()
    } else {
        lines.join("; ")
    }
}

/// As [`since`], to be put behind a message; empty when nothing was said.
pub(crate) fn appendix(mark: u64) -> String {
    let said = since(mark, "");
    if said.is_empty() {
        said
    } else {
        format!(" ({said})")
    }
}

fn plain(line: &str) -> &str {
    let line = line.trim();
    let line = line.strip_prefix("EAL: ").unwrap_or(line);
    let line = line.strip_prefix("FATAL: ").unwrap_or(line);
    // getopt puts the program's name in front.
    line.strip_prefix("dashwire: ").unwrap_or(line)
}

/// Called by DPDK, on any thread.
unsafe extern "C" fn write(text: *const c_char, len: usize) {
    // SAFETY: the shim passes `len` readable bytes.
    let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    let mut done = Vec::new();
    let quiet = {
        let mut log = log();
        for &byte in text {
            match byte {
                b'\n' => {
                    let line = String::from_utf8_lossy(&log.partial).into_owned();
                    log.partial.clear();
                    log.seen += 1;
                    if log.last.len() == KEPT {
                        log.last.pop_front();
                    }
                    log.last.push_back(line.clone());
                    done.push(line);
                }
                byte => log.partial.push(byte),
            }
        }
        log.quiet
    };
    for line in done.iter().filter(|line| !line.trim().is_empty()) {
        if quiet {
            tracing::debug!(target: "dpdk", "{line}");
        } else {
            tracing::info!(target: "dpdk", "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_what_was_said_since_without_chatter_prefixes_and_repetition() {
        let say = |text: &str| {
            // SAFETY: the pointer and length are of one string.
            unsafe { write(text.as_ptr().cast(), text.len()) }
        };
        say("EAL: before\n");
        let mark = mark();
        assert_eq!(since(mark, "nothing said"), "nothing said");
        assert_eq!(appendix(mark), "");
        say("EAL: Detected CPU lcores: 2\nEAL: FATAL: Cannot get huge");
        say("page information.\nEAL: Cannot get hugepage information.\n");
        say("dashwire: unrecognized option '--x'\n");
        assert_eq!(
            since(mark, ""),
            "Cannot get hugepage information.; unrecognized option '--x'"
        );
        for i in 0..2 * KEPT {
            say(&format!("line {i}\n"));
        }
        assert!(since(mark, "").starts_with(&format!("line {KEPT}; ")));
    }
}
