//! The way through the crate: units, IR, machine code.

use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::OwnedTargetIsa;
use dash_bpf::{Object, ProgramKind};
use dash_verify::Verified;

use crate::chain;
use crate::code::{NativeCode, Options};
use crate::error::NativeError;
use crate::listing::{self, Listing};
use crate::lower;
use crate::machine;

/// Compiles a verified object: its entry, program 0, and every program tail calls lead to.
///
/// # Errors
/// The object uses what this compiler does not support, or understands less well than the
/// verifier; see [`NativeError`].
pub fn compile(object: &Verified<Object>, options: &Options) -> Result<NativeCode, NativeError> {
    self::object(object.get(), options)
}

/// Like [`compile`], with the code as text.
///
/// # Errors
/// As [`compile`].
pub fn compile_with_listing(
    object: &Verified<Object>,
    options: &Options,
) -> Result<(NativeCode, Listing), NativeError> {
    with_listing(object.get(), options)
}

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
    let units = chain::units(object, options)?;
    let isa = machine::target(options.isa)?;
    let kind = object.programs.first().map_or(ProgramKind::Xdp, |p| p.kind);
    let function = lower::function(&units, object, kind, options, &*isa)?;
    Ok((function, isa))
}
