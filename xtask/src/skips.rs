//! Tests that cannot run here say `SKIP: why` and pass; a run must not hide them. nextest keeps the
//! output of passing tests to itself, so it is asked for, read, and left out but for those lines.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs nextest, showing its own lines and the output of failing tests; returns what was skipped.
pub(crate) fn nextest(c: &mut Command) -> Result<Vec<String>> {
    c.args(["--success-output", "immediate"])
        .env("NEXTEST_NO_INPUT_HANDLER", "1");
    // Results and output go to stderr; stdout is for lists.
    let mut child = c
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {c:?}"))?;
    let stderr = child.stderr.take().context("no stderr")?;
    let (mut filter, mut skipped) = (Filter::default(), Vec::new());
    for line in BufReader::new(stderr).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        match filter.see(&line) {
            Seen::Show => eprintln!("{line}"),
            Seen::Skip => skipped.push(line.trim().to_owned()),
            Seen::Hide => {}
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{c:?} ended with {status}");
    }
    Ok(skipped)
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Show,
    Hide,
    Skip,
}

/// Knows whether the lines that come are output of a test that passed.
#[derive(Default)]
struct Filter {
    passed: bool,
    in_output: bool,
}

impl Filter {
    fn see(&mut self, line: &str) -> Seen {
        let words = line.trim_start();
        let status = [
            "PASS [",
            "FAIL [",
            "SLOW [",
            "LEAK [",
            "SIGABRT [",
            "SIGSEGV [",
            "TRY ",
        ];
        if status.iter().any(|s| words.starts_with(s)) {
            *self = Self {
                passed: words.starts_with("PASS"),
                in_output: false,
            };
        } else if words.starts_with("Summary [")
            || line.starts_with("────────────")
            || words.starts_with("Cancelling")
        {
            *self = Self::default();
        } else if words.starts_with("stdout ─") || words.starts_with("stderr ─") {
            self.in_output = self.passed;
        }
        match (self.in_output, words.starts_with("SKIP")) {
            (true, true) => Seen::Skip,
            (true, false) => Seen::Hide,
            (false, _) => Seen::Show,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_are_kept_and_other_output_of_passing_tests_is_not_shown() {
        let lines = [
            ("   Compiling a v0.1.0", Seen::Show),
            ("        PASS [   0.1s] (1/3) a first", Seen::Show),
            ("  stderr ───", Seen::Hide),
            ("    SKIP: not root", Seen::Skip),
            ("    noise", Seen::Hide),
            ("        FAIL [   0.1s] (2/3) a second", Seen::Show),
            ("  stderr ───", Seen::Show),
            ("    SKIP is only a word here", Seen::Show),
            ("        PASS [   0.1s] (3/3) a third", Seen::Show),
            ("  stdout ───", Seen::Hide),
            ("    running 1 test", Seen::Hide),
            (
                "     Summary [   1.0s] 3 tests run: 2 passed, 1 failed",
                Seen::Show,
            ),
        ];
        let mut filter = Filter::default();
        for (line, seen) in lines {
            assert_eq!(filter.see(line), seen, "{line}");
        }
    }
}
