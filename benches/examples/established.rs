//! `established N`: N packets of one established outbound flow through native code, for profilers.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let packets = std::env::args().nth(1).context("usage: established N")?;
    dash_bench::established::run(packets.parse()?)
}
