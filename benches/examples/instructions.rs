//! Instruction counts of the native code: callgrind's for an established outbound packet, and a
//! comparison with the kernel's JIT for the same bytecode. Says SKIP for what cannot be had here.

#![forbid(unsafe_code)]

use std::process::Command;

use anyhow::{Context, Result, ensure};
use dash_bench::{compare, established, world};

/// Packets of the two runs: what they do not differ in falls out.
const RUNS: [u64; 2] = [1_000, 11_000];

fn main() -> Result<()> {
    // Under valgrind, this very program is the workload.
    if let Some(packets) = std::env::args().nth(1) {
        return established::run(packets.parse().context("usage: instructions")?);
    }
    callgrind()?;
    kernel()
}

fn callgrind() -> Result<()> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("SKIP: no valgrind: no instruction counts by callgrind");
        return Ok(());
    }
    // Proofs are made once, here: under valgrind they would take minutes.
    established::run(1)?;
    let [few, many] = [collected(RUNS[0])?, collected(RUNS[1])?];
    let packet = many.saturating_sub(few) as f64 / (RUNS[1] - RUNS[0]) as f64;
    println!("callgrind: established outbound packet, native, runtime and compiled code");
    println!("  {} packets: {few} instructions", RUNS[0]);
    println!("  {} packets: {many} instructions", RUNS[1]);
    println!("  instructions a packet: {packet:.1}");
    Ok(())
}

/// Instructions of a whole run.
fn collected(packets: u64) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .arg(packets.to_string())
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

fn kernel() -> Result<()> {
    if let Some(why) = nic_linux::KernelEngine::unavailable() {
        eprintln!("SKIP: no comparison with the kernel's JIT: {why}");
        return Ok(());
    }
    let found = compare::compare(Some(world::cache()?))?;
    println!("compiled code that runs for one packet, instructions; helpers' bodies left out");
    println!(
        "{:32} {:>7} {:>7} {:>6} {:>9}",
        "", "native", "kernel", "ratio", "process"
    );
    for (line, programs) in found.lines.iter().zip(&found.kernel_by_program) {
        println!(
            "{:32} {:>7} {:>7} {:>6.2} {:>9}",
            line.name,
            line.native,
            line.kernel,
            line.native as f64 / line.kernel as f64,
            line.process
        );
        let parts: Vec<String> = programs
            .iter()
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        println!("  kernel: {}", parts.join(", "));
    }
    println!(
        "code size: native {} bytes, kernel {} bytes",
        found.native_bytes, found.kernel_bytes
    );
    Ok(())
}
