//! Settings of the code generator, and the last step: IR to bytes.

use std::cell::Cell;

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::isa::{self, OwnedTargetIsa, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::FunctionBuilderContext;

use crate::code::{Isa, Machine, NativeCode};
use crate::error::NativeError;

/// The machine of an instruction set.
pub(crate) fn machine(isa: Isa) -> Result<Machine, NativeError> {
    match isa {
        Isa::X86_64 => Ok(Machine::X86_64),
        Isa::Aarch64 => Ok(Machine::Aarch64),
        Isa::Riscv64 => Ok(Machine::Riscv64),
        Isa::Host if cfg!(target_arch = "x86_64") => Ok(Machine::X86_64),
        Isa::Host if cfg!(target_arch = "aarch64") => Ok(Machine::Aarch64),
        Isa::Host if cfg!(target_arch = "riscv64") => Ok(Machine::Riscv64),
        Isa::Host => Err(NativeError::Target {
            isa: "host",
            why: format!("{} is not supported", std::env::consts::ARCH),
        }),
    }
}

/// A code generator.
pub(crate) fn target(isa: Isa) -> Result<OwnedTargetIsa, NativeError> {
    let machine = machine(isa)?;
    let name = match machine {
        Machine::X86_64 => "x86_64-unknown-linux-gnu",
        Machine::Aarch64 => "aarch64-unknown-linux-gnu",
        Machine::Riscv64 => "riscv64gc-unknown-linux-gnu",
    };
    let failed = |why: String| NativeError::Target { isa: name, why };
    let mut shared = settings::builder();
    let verify = if cfg!(debug_assertions) {
        "true"
    } else {
        "false"
    };
    let choices = [
        ("opt_level", "speed"),
        ("is_pic", "true"),
        ("enable_verifier", verify),
        // A frame larger than a guard page is touched page by page, without calling anything.
        ("enable_probestack", "true"),
        ("probestack_strategy", "inline"),
        // Every pointer is proven to be in bounds; there is no bounds check to mispredict.
        ("enable_heap_access_spectre_mitigation", "false"),
        ("enable_table_access_spectre_mitigation", "false"),
        ("unwind_info", "false"),
    ];
    for (setting, value) in choices {
        shared
            .set(setting, value)
            .map_err(|e| failed(e.to_string()))?;
    }
    let mut builder = isa::lookup_by_name(name).map_err(|e| failed(e.to_string()))?;
    if isa == Isa::Host {
        for extension in host_extensions() {
            builder
                .enable(extension)
                .map_err(|e| failed(e.to_string()))?;
        }
    }
    builder
        .finish(settings::Flags::new(shared))
        .map_err(|e| failed(e.to_string()))
}

/// Extensions of this machine that integer code gains from.
#[cfg(target_arch = "x86_64")]
fn host_extensions() -> impl Iterator<Item = &'static str> {
    [
        ("has_bmi1", is_x86_feature_detected!("bmi1")),
        ("has_bmi2", is_x86_feature_detected!("bmi2")),
        ("has_lzcnt", is_x86_feature_detected!("lzcnt")),
        ("has_popcnt", is_x86_feature_detected!("popcnt")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
}

/// Extensions of this machine that integer code gains from.
#[cfg(target_arch = "aarch64")]
fn host_extensions() -> impl Iterator<Item = &'static str> {
    let lse = std::arch::is_aarch64_feature_detected!("lse");
    lse.then_some("has_lse").into_iter()
}

/// Extensions of this machine that integer code gains from: none known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn host_extensions() -> impl Iterator<Item = &'static str> {
    std::iter::empty()
}

/// Where bytes came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// Offset of the first of them in the code.
    pub(crate) start: usize,
    /// Index of the program.
    pub(crate) program: usize,
    /// Slot in it.
    pub(crate) pc: usize,
}

/// Machine code and what a listing is made of.
#[derive(Debug)]
pub(crate) struct Emitted {
    pub(crate) code: NativeCode,
    /// The code generator's own text, if a listing was asked for.
    pub(crate) text: Option<String>,
    /// Ordered by offset; empty without a listing.
    pub(crate) sources: Vec<Source>,
}

/// Memory that compilations work in. A thread's next one takes that of the last, as growing it anew is much of what
/// a small program takes to compile.
pub(crate) struct Workspace {
    pub(crate) builder: FunctionBuilderContext,
    pub(crate) context: Context,
}

/// Values of a function after which a workspace is not kept.
const MOST_KEPT: usize = 1 << 16;

thread_local! {
    static WORKSPACE: Cell<Option<Box<Workspace>>> = const { Cell::new(None) };
}

impl Workspace {
    pub(crate) fn take() -> Box<Self> {
        WORKSPACE.take().unwrap_or_else(|| {
            Box::new(Self {
                builder: FunctionBuilderContext::new(),
                context: Context::new(),
            })
        })
    }

    /// For the next one. What a compilation left that did not end well is not given back.
    pub(crate) fn give_back(mut self: Box<Self>) {
        if self.context.func.dfg.num_values() <= MOST_KEPT {
            self.context.clear();
            WORKSPACE.set(Some(self));
        }
    }
}

/// Generates machine code of the workspace's function.
pub(crate) fn emit(
    context: &mut Context,
    isa: &dyn TargetIsa,
    machine: Machine,
    listing: bool,
) -> Result<Emitted, NativeError> {
    context.set_disasm(listing);
    context
        .compile(isa, &mut ControlPlane::default())
        .map_err(|e| NativeError::Codegen(format!("{:?}", e.inner)))?;
    let Some(compiled) = context.take_compiled_code() else {
        return Err(NativeError::Codegen("no code".into()));
    };
    let relocations = compiled.buffer.relocs().len();
    if relocations != 0 {
        return Err(NativeError::Relocations(relocations));
    }
    let sources = if listing {
        let locations = compiled.buffer.get_srclocs_sorted().iter();
        locations
            .filter_map(|l| {
                let (program, pc) = crate::lower::source_of(l.loc)?;
                let start = l.start as usize;
                Some(Source { start, program, pc })
            })
            .collect()
    } else {
        Vec::new()
    };
    let code = NativeCode {
        code: compiled.code_buffer().to_vec(),
        entry_offset: 0,
        align: (compiled.buffer.alignment as usize).max(16),
        machine,
    };
    Ok(Emitted {
        code,
        text: compiled.vcode,
        sources,
    })
}
