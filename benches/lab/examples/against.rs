//! Peers beside ours, as JSON to keep or a table to read:
//! `cargo run --release -p dash-lab --example against -- c,testpmd,ovs [quick]`.
//!
//! `instructions` instead of peers counts instructions a packet by callgrind, ours and the C
//! pipeline's.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use dash_lab::{Options, against, measure, render, result::Run};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["instructions"] => instructions(),
        // Under valgrind, this very program is the workload.
        ["workload", side, packets] => {
            against::cpipe::workload(packets.parse().context("a number")?, *side == "c")
        }
        [peers] | [peers, "quick"] => {
            let names: Vec<&str> = peers.split(',').collect();
            let groups = vec![against::run(
                &names,
                &measure::Bench {
                    options: &Options {
                        quick: args.len() > 1,
                        ..Options::default()
                    },
                    progress: &|what| eprintln!("{what}"),
                },
            )?];
            let run = Run {
                groups,
                ..Run::default()
            };
            print!("{}", render::terminal(&run));
            Ok(())
        }
        _ => anyhow::bail!("usage: against c,testpmd,l3fwd,ovs [quick] | instructions"),
    }
}

fn instructions() -> Result<()> {
    const RUNS: [u64; 2] = [4_096, 4_096 * 9];
    let each = |side: &str| -> Result<f64> {
        let [few, many] = [counted(side, RUNS[0])?, counted(side, RUNS[1])?];
        Ok(many.saturating_sub(few) as f64 / (RUNS[1] - RUNS[0]) as f64)
    };
    let (ours, c) = (each("ours")?, each("c")?);
    println!(
        "instructions a packet, frames filled in memory: ours {ours:.0}, C {c:.0}, ratio {:.2}",
        ours / c
    );
    Ok(())
}

fn counted(side: &str, packets: u64) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["workload", side, &packets.to_string()])
        .output()
        .context("starting valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed:\n{text}");
    let count = text.lines().find_map(|l| l.split_once("Collected : "));
    let (_, count) = count.with_context(|| format!("no count from valgrind:\n{text}"))?;
    Ok(count.trim().parse()?)
}
