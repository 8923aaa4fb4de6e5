//! `dashctl`: configurations, captures and daemons from the command line.
//!
//! Exit codes: 0 done, 1 an error that says where and why, 2 wrong usage; of `prog verify`, 0 accepted,
//! 1 rejected, 2 not loaded.

#![forbid(unsafe_code)]

mod cli;
mod commands;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match commands::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // A reader that went away (`| head`) is no error of ours.
            if is_broken_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            eprintln!("dashctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
