//! The way through the crate: units, IR, machine code.

use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::OwnedTargetIsa;
use dash_bpf::{Object, ProgramKind};

use crate::chain;
use crate::code::{NativeCode, Options};
use crate::error::NativeError;
use crate::listing::{self, Listing};
use crate::lower;
use crate::machine;

pub(crate) fn object(object: &Object, options: &Options) -> Result<NativeCode, NativeError> {
    let (function, isa) = function(object, options)?;
    let machine = machine::machine(options.isa)?;
    let emitted = machine::emit(function, &*isa, machine, false)?;
    Ok(emitted.code)
}

pub(crate) fn with_listing(
    object: &Object,
    options: &Options,
) -> Result<(NativeCode, Listing), NativeError> {
    let (function, isa) = function(object, options)?;
    let clif = function.display().to_string();
    let machine = machine::machine(options.isa)?;
    let emitted = machine::emit(function, &*isa, machine, true)?;
    let asm = listing::assembly(&emitted, object);
    Ok((emitted.code, Listing { clif, asm }))
}

fn function(object: &Object, options: &Options) -> Result<(Function, OwnedTargetIsa), NativeError> {
    let units = chain::units(object, options.promote_stack)?;
    let isa = machine::target(options.isa)?;
    let kind = object.programs.first().map_or(ProgramKind::Xdp, |p| p.kind);
    let function = lower::function(&units, object, kind, &*isa)?;
    Ok((function, isa))
}
