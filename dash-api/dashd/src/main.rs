//! `dashd`: serves until SIGTERM or SIGINT.
//!
//! Prints `gnmi ADDR:PORT` for each listener and `metrics ADDR:PORT` once they serve; everything
//! else is logged to stderr, as `RUST_LOG` says. Exit codes: 0 stopped, 1 an error that says where
//! and why, 2 wrong usage.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use dashd::{Args, Server};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    dashctl::pages::ask_for_large_pages();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dashd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // First, so that a stop while starting is a stop too.
        let mut term = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut int = signal(SignalKind::interrupt()).context("SIGINT")?;
        let mut server = tokio::select! {
            server = Server::start(args) => server?,
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
        };
        announce(&server)?;
        let outcome = tokio::select! {
            _ = term.recv() => Ok(()),
            _ = int.recv() => Ok(()),
            error = server.failed() => Err(error),
        };
        server.stop().await;
        outcome
    })
}

/// In one write, so that a reader may go once it has the line it waits for.
fn announce(server: &Server) -> Result<()> {
    let gnmi = server
        .gnmi()
        .iter()
        .map(|address| format!("gnmi {address}\n"));
    let metrics = server
        .metrics()
        .map(|address| format!("metrics {address}\n"));
    let lines: String = gnmi.chain(metrics).collect();
    let mut out = std::io::stdout().lock();
    out.write_all(lines.as_bytes())?;
    Ok(out.flush()?)
}
