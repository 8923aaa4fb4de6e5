//! CPU time of threads, as the scheduler counts it.

use std::fs;

use anyhow::{Context, Result};

/// CPU time of the calling thread, ns. Its own slice is counted up to now.
pub(super) fn of_this_thread() -> Result<u64> {
    // The scheduler adds up when a thread is looked at by it, not when the file is read.
    std::thread::yield_now();
    schedstat("/proc/thread-self/schedstat")
}

/// CPU time of a thread of another process, ns: at most a tick late.
pub(crate) fn of(pid: u32, tid: u32) -> Result<u64> {
    schedstat(&format!("/proc/{pid}/task/{tid}/schedstat"))
}

fn schedstat(path: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("{path}: not read"))?;
    let first = text.split_whitespace().next();
    let first = first.with_context(|| format!("{path}: empty"))?;
    first
        .parse()
        .with_context(|| format!("{path}: {first} is no time"))
}

/// Threads of a process and their names.
pub(super) fn threads(pid: u32) -> Result<Vec<(u32, String)>> {
    let folder = format!("/proc/{pid}/task");
    let mut threads = vec![];
    for entry in fs::read_dir(&folder).with_context(|| format!("{folder}: not read"))? {
        let Some(tid) = entry?.file_name().to_str().and_then(|t| t.parse().ok()) else {
            continue;
        };
        // A thread may end meanwhile.
        if let Ok(name) = fs::read_to_string(format!("{folder}/{tid}/comm")) {
            threads.push((tid, name.trim().to_owned()));
        }
    }
    Ok(threads)
}

#[cfg(test)]
mod tests {
    #[test]
    fn work_takes_time_and_this_thread_is_among_the_threads() {
        let before = super::of_this_thread().expect("Linux has it");
        let mut x = 1u64;
        for i in 0..20_000_000u64 {
            x = std::hint::black_box(x.wrapping_mul(i | 1));
        }
        let after = super::of_this_thread().expect("Linux has it");
        assert!(after > before, "{x}");
        let pid = std::process::id();
        let threads = super::threads(pid).expect("our own");
        assert!(threads.iter().any(|(tid, _)| *tid == pid));
        assert!(super::of(pid, pid).is_ok());
    }
}
