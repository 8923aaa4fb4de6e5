//! The public conformance programs, where a file of them is given.

use dash_bpf::{Insn, Program, ProgramKind};
use dash_native::Options;
use dash_native::unverified::compile_raw;
use dash_wire::abi::{HELPER_SLOTS, HelperFn, RunCtx};

use crate::loader::Loaded;

/// The suite's one helper returns its argument.
unsafe extern "C" fn first_argument(_: *mut RunCtx, a: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    a
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hex digits are ASCII");
        u8::from_str_radix(pair, 16).expect("two hex digits")
    };
    digits.chunks(2).map(byte).collect()
}

fn run(program: &Program, memory: Option<&str>, promote_stack: bool) -> Result<u64, String> {
    let options = Options {
        promote_stack,
        ..Options::default()
    };
    let code = compile_raw(program, &options).map_err(|e| e.to_string())?;
    let helpers = [first_argument as HelperFn; HELPER_SLOTS];
    let mut memory = memory.map(hex).unwrap_or_default();
    // SAFETY: the suite's programs stay inside their memory and stack, and call helper 5 only.
    Ok(unsafe { Loaded::new(&code).raw(&mut memory, &helpers) })
}

/// `DASHWIRE_CONFORMANCE` names a JSON array of `{name, program, memory, result}`, all hex.
#[test]
fn conformance_programs_return_what_the_suite_says() {
    let Ok(path) = std::env::var("DASHWIRE_CONFORMANCE") else {
        eprintln!("SKIP: DASHWIRE_CONFORMANCE names no file of conformance programs");
        return;
    };
    let text = std::fs::read_to_string(&path).expect("file of conformance programs");
    let cases: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let cases = cases.as_array().expect("an array");
    let mut failed = Vec::new();
    for case in cases {
        let field = |name: &str| case[name].as_str();
        let name = field("name").expect("name");
        let insns = hex(field("program").expect("program"))
            .chunks(8)
            .map(|slot| Insn::from_bytes(slot.try_into().expect("8 bytes")))
            .collect();
        let program = Program {
            name: name.to_owned(),
            kind: ProgramKind::Raw,
            insns,
            ..Program::default()
        };
        let expected = field("result").expect("result").trim_start_matches("0x");
        let expected = u64::from_str_radix(expected, 16).expect("hex result");
        for promote_stack in [true, false] {
            let result = run(&program, field("memory"), promote_stack);
            if result != Ok(expected) {
                failed.push(format!("{name}: expected {expected:#x}, got {result:x?}"));
            }
        }
    }
    let all = cases.len();
    eprintln!("{all} conformance programs, {} failures", failed.len());
    assert!(failed.is_empty() && all > 0, "{}", failed.join("\n"));
}
