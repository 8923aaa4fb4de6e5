//! Packet engines by the names `--engine` takes.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use dash_engine::{Engine, Options};
use dash_pipeline::model::Model;
use dash_runtime::Core;
use nic_linux::KernelEngine;
use nic_target::{Capacity, PacketEngine};

/// Who runs packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum EngineName {
    /// Machine code of the verified eBPF.
    Native,
    /// The checking interpreter of the eBPF.
    Interp,
    /// The reference model: the pipeline's IR, without any eBPF.
    Model,
    /// The interpreter of the crate rbpf.
    Rbpf,
    /// The Linux kernel, by BPF_PROG_TEST_RUN, with machine code behind it; needs root.
    Kernel,
}

impl EngineName {
    /// Every engine.
    pub const ALL: [Self; 5] = [
        Self::Native,
        Self::Interp,
        Self::Model,
        Self::Rbpf,
        Self::Kernel,
    ];

    /// As `--engine` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Interp => "interp",
            Self::Model => "model",
            Self::Rbpf => "rbpf",
            Self::Kernel => "kernel",
        }
    }

    /// Capacity for one-off runs. The kernel's is small: it allocates tables whole, and charges
    /// them to a limit that may be 8 MiB.
    pub fn capacity(self) -> Capacity {
        match self {
            Self::Kernel => Capacity {
                enis: 32,
                routes: 65_536,
                mappings: 4_096,
                inbound_rules: 16_384,
                trusted_vnis: 4_096,
                acl_groups: 256,
                underlay_routes: 4_096,
                flows: 2_048,
            },
            _ => Capacity::default(),
        }
    }
}

impl std::fmt::Display for EngineName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A packet engine with empty tables and no code.
///
/// # Errors
/// It cannot run here: no machine code for this processor, no rights to the kernel's.
pub fn open_engine(name: EngineName, capacity: &Capacity) -> Result<Box<dyn PacketEngine>> {
    let opened = || -> Result<Box<dyn PacketEngine>> {
        Ok(match name {
            EngineName::Native => Box::new(Core::new(dash_runtime::Engine::Native, capacity)?),
            EngineName::Interp => Box::new(Core::new(dash_runtime::Engine::Interp, capacity)?),
            EngineName::Rbpf => Box::new(Core::new(dash_runtime::Engine::Rbpf, capacity)?),
            EngineName::Model => Box::new(Model::new(capacity)),
            EngineName::Kernel => {
                if let Some(why) = KernelEngine::unavailable() {
                    bail!(why);
                }
                Box::new(KernelEngine::new(capacity, dash_runtime::Engine::Native)?)
            }
        })
    };
    opened().with_context(|| format!("engine {name} does not start here"))
}

/// An engine that runs packets in the caller's hands: the whole way from configuration to bytes.
///
/// # Errors
/// As [`open_engine`], or the first generation cannot be installed.
pub fn start(name: EngineName, options: Options) -> Result<Engine<dyn PacketEngine>> {
    let target = open_engine(name, &options.capacity)?;
    let options = Options {
        // Behind the kernel runs native code.
        native: matches!(name, EngineName::Native | EngineName::Kernel),
        ..options
    };
    Engine::new(options, target)
        .with_context(|| format!("engine {name} does not take the empty configuration"))
}

/// Where verdicts of the verifier are kept between runs: `dashwire` in the user's cache folder,
/// made for this user alone. `None` when there is no such folder.
pub fn default_cache_dir() -> Option<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    let dir = base.join("dashwire");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .ok()?;
    Some(dir)
}
