//! uBPF's machine code, from a library that is named by the environment.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use anyhow::{Context, Result, ensure};
use dash_bench::step;
use dash_wire::abi::RunCtx;

use crate::build::Built;
use crate::library::Library;
use crate::{Run, buffer, context, left};

/// The library, if one is named.
pub(crate) fn library() -> Option<PathBuf> {
    std::env::var_os("UBPF_LIBRARY").map(PathBuf::from)
}

type Create = unsafe extern "C" fn() -> *mut c_void;
type Destroy = unsafe extern "C" fn(*mut c_void);
type Register = unsafe extern "C" fn(*mut c_void, c_uint, *const c_char, *const ()) -> c_int;
type Load = unsafe extern "C" fn(*mut c_void, *const c_void, u32, *mut *mut c_char) -> c_int;
type Compile = unsafe extern "C" fn(*mut c_void, *mut *mut c_char) -> *const ();
type Jitted = unsafe extern "C" fn(*mut RunCtx, usize) -> u64;

/// Runs a program whose helpers are functions of its library for this machine.
pub(crate) fn run(path: &Path, built: &Built, helpers: &Library) -> Result<Run> {
    let object = dash_bpf::elf::link(&[&built.wide])?;
    let program = object.programs.first().context("no program")?;
    let code: Vec<[u8; 8]> = program.insns.iter().map(|insn| insn.to_bytes()).collect();
    let library = Library::open(path)?;
    let before = step::compiled_code()?;
    // SAFETY: functions of `ubpf.h`, of these types; the code is as long as said, and lives through the calls.
    let (vm, destroy, jitted) = unsafe {
        let create: Create = std::mem::transmute(library.function("ubpf_create")?);
        let destroy: Destroy = std::mem::transmute(library.function("ubpf_destroy")?);
        let register: Register = std::mem::transmute(library.function("ubpf_register")?);
        let load: Load = std::mem::transmute(library.function("ubpf_load")?);
        let compile: Compile = std::mem::transmute(library.function("ubpf_compile")?);
        let vm = create();
        ensure!(!vm.is_null(), "ubpf_create");
        for (number, name) in [(1, c"find"), (44, c"move_head")] {
            if let Ok(helper) = helpers.function(name.to_str()?) {
                ensure!(register(vm, number, name.as_ptr(), helper) == 0, "{name:?}");
            }
        }
        let mut why = null_mut();
        let bytes = (code.len() * 8) as u32;
        ensure!(
            load(vm, code.as_ptr().cast(), bytes, &raw mut why) == 0,
            "ubpf_load: {}",
            said(why)
        );
        let jitted = compile(vm, &raw mut why);
        ensure!(!jitted.is_null(), "ubpf_compile: {}", said(why));
        let jitted: Jitted = std::mem::transmute(jitted);
        (vm, destroy, jitted)
    };
    let mut ranges = step::compiled_code()?;
    ranges.retain(|range| !before.contains(range));
    ranges.extend(helpers.code()?);
    let mut buffer = buffer();
    let mut ctx = context(&mut buffer);
    let length = size_of::<RunCtx>();
    // SAFETY: the program reads the context, as `struct context` is how `RunCtx` starts, and the frame.
    let (code, trace) = step::trace(&ranges, || unsafe { jitted(&raw mut ctx, length) })?;
    let frame = left(&ctx, &buffer)?;
    // SAFETY: made above, and its code runs no more.
    unsafe { destroy(vm) };
    Ok(Run {
        code: code as u32,
        frame,
        instructions: trace.inside.len(),
    })
}

/// What went wrong.
fn said(why: *mut c_char) -> String {
    if why.is_null() {
        return "no reason".to_owned();
    }
    // SAFETY: a message of uBPF's, a C string that nobody frees before the process ends.
    let text = unsafe { std::ffi::CStr::from_ptr(why) };
    text.to_string_lossy().into_owned()
}
