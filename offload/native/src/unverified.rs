//! Compiling bytecode nobody verified: conformance vectors and differential tests.
//!
//! Running what comes out of here is as safe as the bytecode is.

use dash_bpf::{Object, Program, ProgramKind};

use crate::code::{NativeCode, Options};
use crate::error::NativeError;
use crate::listing::Listing;

/// Like `compile`, for an object whose safety the caller vouches for.
///
/// # Errors
/// The object cannot be compiled.
pub fn compile_unverified(object: &Object, options: &Options) -> Result<NativeCode, NativeError> {
    crate::compile::object(object, options)
}

/// Like `compile_with_listing`, for an object whose safety the caller vouches for.
///
/// # Errors
/// The object cannot be compiled.
pub fn list_unverified(
    object: &Object,
    options: &Options,
) -> Result<(NativeCode, Listing), NativeError> {
    crate::compile::with_listing(object, options)
}

/// Compiles a bare program (r1 = memory, r2 = its length) without maps to
/// `extern "C" fn(mem: *mut u8, len: u64, helpers: *const HelperFn) -> u64`. Helpers get a null
/// context.
///
/// # Errors
/// The program cannot be compiled.
pub fn compile_raw(program: &Program, options: &Options) -> Result<NativeCode, NativeError> {
    let program = Program {
        kind: ProgramKind::Raw,
        ..program.clone()
    };
    let object = Object {
        programs: vec![program],
        ..Object::default()
    };
    crate::compile::object(&object, options)
}
