//! Plugin of the public conformance suite: a program in hex on standard input, r0 in hex on standard
//! output.

#![forbid(unsafe_code)]

use std::io::Read;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use dash_bpf::{Object, Program};
use dash_conformance::case::program;
use dash_conformance::{CaseError, Engine, RunError, hex, run};
use dash_native::{Isa, Options};
use thiserror::Error;

#[derive(Parser)]
#[command(name = "dash-bpf-plugin", version, about)]
struct Args {
    /// Memory that r1 points to, in hex
    memory: Option<String>,
    /// What runs the program
    #[arg(long, value_enum, default_value = "native")]
    engine: EngineName,
    /// Instruction set of native code; a foreign one runs under QEMU's user-mode emulator
    #[arg(long, value_enum, default_value = "host")]
    isa: IsaName,
    /// Standard input is an ELF object in hex, whose function `main` runs
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false")]
    elf: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum EngineName {
    Interp,
    Native,
}

#[derive(Clone, Copy, ValueEnum)]
enum IsaName {
    Host,
    #[value(name = "x86_64")]
    X86_64,
    Aarch64,
    Riscv64,
}

#[derive(Debug, Error)]
enum PluginError {
    #[error("standard input: {0}")]
    Input(#[from] std::io::Error),
    #[error("{0}")]
    Case(#[from] CaseError),
    #[error("object: {0}")]
    Object(#[from] dash_bpf::elf::ReadError),
    #[error("object: no function main")]
    NoMain,
    #[error("object: main uses maps")]
    Maps,
    #[error("{0}")]
    Run(#[from] RunError),
}

fn main() -> ExitCode {
    match answer(&Args::parse()) {
        Ok(r0) => {
            println!("{r0:x}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(args: &Args) -> Result<u64, PluginError> {
    // Before anything fails: who writes to a plugin that is gone gets a signal.
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let memory = hex("memory", args.memory.as_deref().unwrap_or_default())?;
    let bytes = hex("program", &text)?;
    let program = match args.elf.as_str() {
        "true" => main_of(dash_bpf::elf::read(&bytes)?)?,
        _ => program("main", &bytes)?,
    };
    let engine = match args.engine {
        EngineName::Interp => Engine::Interp,
        EngineName::Native => Engine::Native(Options::for_isa(match args.isa {
            IsaName::Host => Isa::Host,
            IsaName::X86_64 => Isa::X86_64,
            IsaName::Aarch64 => Isa::Aarch64,
            IsaName::Riscv64 => Isa::Riscv64,
        })),
    };
    Ok(run(engine, &program, &memory)?.r0)
}

fn main_of(object: Object) -> Result<Program, PluginError> {
    if !object.maps.is_empty() {
        return Err(PluginError::Maps);
    }
    let mut programs = object.programs.into_iter();
    programs
        .find(|program| program.name == "main")
        .ok_or(PluginError::NoMain)
}
