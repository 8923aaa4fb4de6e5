//! Instructions of a whole run, counted by callgrind. The program that asks is the workload too.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// True where there is valgrind; otherwise says so.
pub fn is_here() -> bool {
    let found = Command::new("valgrind").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIP: no valgrind: no instruction counts by callgrind");
    }
    found
}

/// Runs this program again with these arguments under callgrind: its instructions.
///
/// # Errors
/// There is no valgrind, or the run fails.
pub fn instructions(args: &[&str]) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(args)
        .output()
        .context("starting valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed:\n{text}");
    let line = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, count) = line.with_context(|| format!("no count from valgrind:\n{text}"))?;
    Ok(count.trim().parse()?)
}
