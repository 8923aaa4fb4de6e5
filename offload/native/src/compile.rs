//! The way through the crate: units, IR, machine code.

use cranelift_codegen::isa::OwnedTargetIsa;
use dash_bpf::{Object, ProgramKind};
use dash_verify::Verified;

use crate::chain;
use crate::code::{NativeCode, Options};
use crate::error::NativeError;
use crate::listing::{self, Listing};
use crate::lower;
use crate::machine::{self, Workspace};
use crate::tidy;

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
    let mut workspace = Workspace::take();
    let isa = function(object, options, &mut workspace)?;
    let machine = machine::machine(options.isa)?;
    let emitted = machine::emit(&mut workspace.context, &*isa, machine, false)?;
    workspace.give_back();
    Ok(emitted.code)
}

pub(crate) fn with_listing(
    object: &Object,
    options: &Options,
) -> Result<(NativeCode, Listing), NativeError> {
    let mut workspace = Workspace::take();
    let isa = function(object, options, &mut workspace)?;
    let clif = workspace.context.func.display().to_string();
    let machine = machine::machine(options.isa)?;
    let emitted = machine::emit(&mut workspace.context, &*isa, machine, true)?;
    workspace.give_back();
    let asm = listing::assembly(&emitted, object);
    Ok((emitted.code, Listing { clif, asm }))
}

fn function(
    object: &Object,
    options: &Options,
    workspace: &mut Workspace,
) -> Result<OwnedTargetIsa, NativeError> {
    let units = chain::units(object, options)?;
    let isa = machine::target(options.isa)?;
    let kind = object.programs.first().map_or(ProgramKind::Xdp, |p| p.kind);
    lower::function(&units, object, kind, options, &*isa, workspace)?;
    tidy::tidy(&mut workspace.context.func);
    Ok(isa)
}
