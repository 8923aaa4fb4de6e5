//! Instruction counts of the native code: callgrind's for an established outbound packet, and a
//! comparison with the kernel's JIT for the same bytecode. Says SKIP for what cannot be had here.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use dash_bench::{callgrind, compare, established, world};

/// Packets of the two runs: what they do not differ in falls out.
const RUNS: [u64; 2] = [1_000, 11_000];

fn main() -> Result<()> {
    // Under valgrind, this very program is the workload.
    if let Some(packets) = std::env::args().nth(1) {
        return established::run(packets.parse().context("usage: instructions")?);
    }
    process()?;
    kernel()
}

fn process() -> Result<()> {
    if !callgrind::is_here() {
        return Ok(());
    }
    // Proofs are made once, here: under valgrind they would take minutes.
    established::run(1)?;
    let collected = |packets: u64| callgrind::instructions(&[&packets.to_string()]);
    let [few, many] = [collected(RUNS[0])?, collected(RUNS[1])?];
    let packet = many.saturating_sub(few) as f64 / (RUNS[1] - RUNS[0]) as f64;
    println!("callgrind: established outbound packet, native, runtime and compiled code");
    println!("  {} packets: {few} instructions", RUNS[0]);
    println!("  {} packets: {many} instructions", RUNS[1]);
    println!("  instructions a packet: {packet:.1}");
    Ok(())
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
