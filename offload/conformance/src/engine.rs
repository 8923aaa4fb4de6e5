//! Running a bare program.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use dash_bpf::interp::{Bare, BareHelpers, CallFault, HelperResult, StackView, Trap};
use dash_bpf::{DecodeError, Program, decode};
use dash_native::unverified::compile_raw;
use dash_native::{Isa, NativeError, Options};
use thiserror::Error;

use crate::elf::{NO_HELPER, executable};

/// Instructions the interpreter takes at most.
pub const FUEL: u64 = 100_000_000;
/// How long native code may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The checking interpreter.
    Interp,
    /// Native code in a process of its own: of this machine, or of another under QEMU's user-mode
    /// emulator.
    Native(Options),
}

/// What a run left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// r0.
    pub r0: u64,
    /// The memory.
    pub memory: Vec<u8>,
}

/// Why a program gave no result.
#[derive(Debug, Error)]
pub enum RunError {
    /// Malformed.
    #[error("program: {0}")]
    Decode(#[from] DecodeError),
    /// The interpreter stopped it.
    #[error("{0}")]
    Trap(#[from] Trap),
    /// It does not compile.
    #[error("{0}")]
    Compile(#[from] NativeError),
    /// A file or a process could not be made.
    #[error("{what}: {source}")]
    Process {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// It called a helper other than 5.
    #[error("call of a helper that is not there")]
    Helper,
    /// It did not end.
    #[error("no end after {} s", PATIENCE.as_secs())]
    Endless,
    /// It ended otherwise than by returning: a signal, most likely.
    #[error("ended without a result: {0}")]
    Died(ExitStatus),
}

/// Runs a program over `memory`.
///
/// # Errors
/// It gave no result.
pub fn run(engine: Engine, program: &Program, memory: &[u8]) -> Result<Outcome, RunError> {
    let ops = decode(&program.insns)?;
    match engine {
        Engine::Interp => {
            let mut bare = Bare {
                bytes: memory.to_vec(),
                helpers: Unwind,
            };
            let r0 = bare.run(&ops, FUEL)?;
            let memory = bare.bytes;
            Ok(Outcome { r0, memory })
        }
        Engine::Native(options) => {
            let code = compile_raw(program, &options)?;
            outside(
                &executable(&code, memory),
                emulator(options.isa),
                memory.len(),
            )
        }
    }
}

/// The emulator for an instruction set; `None` if this machine has it.
pub fn emulator(isa: Isa) -> Option<&'static str> {
    match isa {
        Isa::X86_64 if !cfg!(target_arch = "x86_64") => Some("qemu-x86_64"),
        Isa::Aarch64 if !cfg!(target_arch = "aarch64") => Some("qemu-aarch64"),
        Isa::Riscv64 if !cfg!(target_arch = "riscv64") => Some("qemu-riscv64"),
        Isa::Host | Isa::X86_64 | Isa::Aarch64 | Isa::Riscv64 => None,
    }
}

/// Whether an instruction set's code can be run here.
pub fn available(isa: Isa) -> bool {
    let Some(emulator) = emulator(isa) else {
        return true;
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(emulator).is_file())
}

/// Runs an executable of [`crate::elf`].
fn outside(file: &[u8], emulator: Option<&str>, memory: usize) -> Result<Outcome, RunError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| RunError::Process { what, source }
    };
    let folder = tempfile::tempdir().map_err(failed("making a temporary folder"))?;
    let path = folder.path().join("program");
    std::fs::write(&path, file).map_err(failed("writing the program"))?;
    let executable = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&path, executable).map_err(failed("making the program executable"))?;

    let what = match emulator {
        Some(emulator) => format!("starting the program under {emulator}"),
        None => "starting the program".to_owned(),
    };
    let mut child = spawn(emulator, &path).map_err(failed(&what))?;
    let mut output = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        match &mut output {
            Some(output) => output.read_to_end(&mut bytes).map(|_| bytes),
            None => Ok(bytes),
        }
    });
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed("waiting"))? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().map_err(failed("ending the program"))?;
            child.wait().map_err(failed("waiting"))?;
            return Err(RunError::Endless);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    if status.code() == Some(NO_HELPER) {
        return Err(RunError::Helper);
    }
    let bytes = reader.join().unwrap_or_else(|_| Ok(Vec::new()));
    let bytes = bytes.map_err(failed("reading the result"))?;
    match bytes.split_first_chunk::<8>() {
        Some((r0, left)) if status.success() && left.len() == memory => Ok(Outcome {
            r0: u64::from_le_bytes(*r0),
            memory: left.to_vec(),
        }),
        _ => Err(RunError::Died(status)),
    }
}

fn spawn(emulator: Option<&str>, path: &PathBuf) -> std::io::Result<std::process::Child> {
    let command = |program: &Path| {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    };
    if let Some(emulator) = emulator {
        return command(Path::new(emulator)).arg(path).spawn();
    }
    // A process that another thread is just starting may still hold the file open for writing.
    let mut tries = 0;
    loop {
        match command(path).spawn() {
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy && tries < 100 => tries += 1,
            other => return other,
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Helper 5 of the suite, which returns its argument; to end the program when that is 0 is allowed,
/// not asked for.
#[derive(Clone, Copy, Debug)]
struct Unwind;

impl BareHelpers for Unwind {
    fn arity(&self, helper: u32) -> usize {
        usize::from(helper == 5)
    }

    fn call(
        &mut self,
        helper: u32,
        args: [u64; 5],
        _: &mut StackView<'_>,
    ) -> Result<HelperResult, CallFault> {
        match helper {
            5 => Ok(HelperResult::Value(args[0])),
            _ => Err(CallFault::UnknownHelper),
        }
    }
}
