//! What a packet of an established flow costs in a live worker: instructions by callgrind, beside
//! those of the test port alone. `worker N FLOWS` and `worker port N FLOWS` are the workloads.

#![forbid(unsafe_code)]

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use dash_bench::live;

/// Packets of the two runs: what they do not differ in falls out.
const RUNS: [u64; 2] = [32_000, 352_000];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [] => counts(),
        [n, flows] => live::run(n.parse()?, flows.parse()?),
        ["port", n, flows] => live::port_alone(n.parse()?, flows.parse()?),
        _ => bail!("usage: worker [[port] N FLOWS]"),
    }
}

fn counts() -> Result<()> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("SKIP: no valgrind: no instruction counts by callgrind");
        return Ok(());
    }
    // Proofs are made once, here: under valgrind they would take minutes.
    live::run(1, 1)?;
    println!("instructions a packet, established outbound flow, 64-byte inner frame");
    for flows in [1, 1_000] {
        let port = a_packet(&["port"], flows)?;
        let all = a_packet(&[], flows)?;
        println!(
            "  {flows:>5} flow(s): {all:.1}, of these the test port {port:.1}, worker and compiled code {:.1}",
            all - port
        );
    }
    Ok(())
}

fn a_packet(how: &[&str], flows: u32) -> Result<f64> {
    let [few, many] = RUNS;
    let more = collected(how, many, flows)?.saturating_sub(collected(how, few, flows)?);
    Ok(more as f64 / (many - few) as f64)
}

/// Instructions of a whole run.
fn collected(how: &[&str], packets: u64, flows: u32) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(how)
        .args([packets.to_string(), flows.to_string()])
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
