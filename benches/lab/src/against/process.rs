//! Programs of others: started, watched, and gone whatever happens.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// True when a program of this name is on the path, or is a path.
pub(super) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A running program; killed when dropped, and when this process goes.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    name: String,
    said: Arc<Mutex<String>>,
}

impl Daemon {
    /// Starts a program with these variables set. What it says is kept.
    pub(super) fn start(args: &[&str], env: &[(&str, &Path)]) -> Result<Self> {
        let name = (*args.first().context("a program has a name")?).to_owned();
        let mut child = Command::new("setpriv")
            // Without this it would stay if this process were killed.
            .args(["--pdeathsig", "KILL", "--"])
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name}: not started"))?;
        let said = Arc::new(Mutex::new(String::new()));
        if let Some(out) = child.stdout.take() {
            keep(out, &said);
        }
        if let Some(err) = child.stderr.take() {
            keep(err, &said);
        }
        Ok(Self { child, name, said })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far, on both streams.
    pub(super) fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.clone()
    }

    /// Writes a line to it.
    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("it has an input")?;
        writeln!(stdin, "{line}").with_context(|| format!("{}: it does not listen", self.name))?;
        stdin.flush()?;
        Ok(())
    }

    /// Waits until it says this, and gives what it said from `from` on.
    pub(super) fn wait_for(&mut self, text: &str, from: usize) -> Result<String> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let said = self.said();
            let new = said.get(from..).unwrap_or_default();
            if new.contains(text) {
                return Ok(new.to_owned());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}): {}", self.name, last_lines(&said));
            }
            ensure!(
                Instant::now() < until,
                "{} did not say `{text}`: {}",
                self.name,
                last_lines(&said)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets it stand still, or go on: a program that polls takes a processor from the others' turn.
    pub(super) fn still(&self, still: bool) -> Result<()> {
        let signal = if still { "-STOP" } else { "-CONT" };
        let pid = self.pid().to_string();
        command(Command::new("kill").args([signal, &pid])).map(drop)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keep(mut from: impl Read + Send + 'static, to: &Arc<Mutex<String>>) {
    let to = Arc::clone(to);
    std::thread::spawn(move || {
        let mut buf = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buf) {
            let text = String::from_utf8_lossy(&buf[..n]);
            to.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_str(&text);
        }
    });
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

/// Runs a command to its end and gives what it printed.
pub(super) fn command(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{}: not started", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{:?} failed ({}): {}",
        command,
        output.status,
        last_lines(&said)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Processors this process may use, as the system numbers them.
pub(super) fn processors() -> Result<Vec<u32>> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let list = status
        .lines()
        .find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
    parse_list(list.context("no Cpus_allowed_list")?.trim())
}

fn parse_list(list: &str) -> Result<Vec<u32>> {
    let mut all = vec![];
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.parse::<u32>()?..=last.parse()?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(parse_list("0-2,5").expect("a list"), [0, 1, 2, 5]);
        assert_eq!(parse_list("3").expect("a list"), [3]);
        assert!(parse_list("").is_err());
        assert!(!processors().expect("Linux says").is_empty());
    }

    #[test]
    fn a_program_is_spoken_with_and_gone_afterwards() {
        if !installed("setpriv") {
            eprintln!("SKIP: no setpriv (util-linux)");
            return;
        }
        let mut cat = Daemon::start(&["cat"], &[]).expect("cat is everywhere");
        cat.say("hello").expect("it listens");
        assert_eq!(cat.wait_for("hello\n", 0).expect("an echo"), "hello\n");
        cat.still(true).expect("it is there");
        cat.still(false).expect("it is there");
        let pid = cat.pid();
        drop(cat);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        let mut ends = Daemon::start(&["false"], &[]).expect("it starts");
        let why = ends.wait_for("never", 0).expect_err("it ends");
        assert!(why.to_string().contains("false ended"), "{why}");
    }
}
