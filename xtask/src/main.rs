//! What people run: `cargo xtask demo`, `cargo xtask test`, and the checks behind them.

#![forbid(unsafe_code)]

mod demo;
mod edges;
mod net;
mod run;
mod setup;
mod skips;
mod test;
mod web;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "dashwire's tasks")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The main job: a DASH configuration over gNMI, a capture through, every packet explained
    Demo {
        /// Real traffic between network namespaces instead (root)
        #[arg(long)]
        net: bool,
        /// How dashd reaches its interfaces with --net
        #[arg(long, value_enum, default_value = "afpacket", requires = "net")]
        port: net::Via,
        /// Megabytes to download with --net
        #[arg(long, default_value_t = 100)]
        megabytes: u64,
        /// Where out.pcap and the rest go
        #[arg(long, default_value = "target/demo")]
        out: PathBuf,
    },
    /// Install what the full test run needs (root, Debian or Ubuntu)
    Setup,
    /// Everything: formatting, lints, crate edges, tests, scenarios, both demos
    Test {
        /// Do not install packages
        #[arg(long)]
        no_setup: bool,
    },
    /// Crate edges against the committed list
    Edges {
        /// Rewrite the list
        #[arg(long)]
        bless: bool,
    },
    /// Run an eBPF conformance file (name, program, memory, result) through the interpreter and native code of every instruction set
    Conformance {
        /// JSON list of programs
        file: PathBuf,
    },
    /// What of the pipeline no scenario reaches on the reference model: fails when there is something
    CoverageModel {
        /// List what cannot be reached, too, with the reason
        #[arg(long)]
        impossible: bool,
    },
    /// Serve or fetch bytes over HTTP; used by `demo --net` inside its namespaces
    #[command(hide = true)]
    Web {
        #[command(subcommand)]
        side: web::Side,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Demo {
            net: false, out, ..
        } => demo::run(&out),
        Task::Demo {
            net: true,
            port,
            megabytes,
            out,
        } => net::run(port, megabytes, &out),
        Task::Setup => setup::run(),
        Task::Test { no_setup } => test::run(!no_setup),
        Task::Edges { bless } => edges::run(bless),
        Task::Conformance { file } => test::conformance(&file),
        Task::CoverageModel { impossible } => test::coverage(impossible),
        Task::Web { side } => web::run(side),
    }
}
