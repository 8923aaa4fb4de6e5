//! What a packet of an established flow costs in a live worker: instructions by callgrind, beside
//! those of the test port alone. `worker N FLOWS` and `worker port N FLOWS` are the workloads.

#![forbid(unsafe_code)]

use anyhow::{Result, bail};
use dash_bench::{callgrind, live};

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
    if !callgrind::is_here() {
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
    let flows = flows.to_string();
    let collected = |packets: u64| {
        let packets = packets.to_string();
        callgrind::instructions(&[how, &[&packets, &flows]].concat())
    };
    let more = collected(many)?.saturating_sub(collected(few)?);
    Ok(more as f64 / (many - few) as f64)
}
