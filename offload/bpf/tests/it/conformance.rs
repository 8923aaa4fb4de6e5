//! The public conformance programs, where a file of them is given.

use dash_bpf::{Insn, decode};

use crate::memory::Memory;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hex digits are ASCII");
        u8::from_str_radix(pair, 16).expect("two hex digits")
    };
    digits.chunks(2).map(byte).collect()
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
        let bytes = hex(field("program").expect("program"));
        let insns: Vec<Insn> = bytes
            .chunks(8)
            .map(|slot| Insn::from_bytes(slot.try_into().expect("8 bytes")))
            .collect();
        let expected = field("result").expect("result").trim_start_matches("0x");
        let expected = u64::from_str_radix(expected, 16).expect("hex result");
        let result = match decode(&insns) {
            Err(e) => Err(e.to_string()),
            Ok(ops) => {
                let bytes = field("memory").map(hex).unwrap_or_default();
                Memory { bytes }.run(&ops).map_err(|trap| trap.to_string())
            }
        };
        if result != Ok(expected) {
            failed.push(format!("{name}: expected {expected:#x}, got {result:x?}"));
        }
    }
    let (passed, all) = (cases.len() - failed.len(), cases.len());
    eprintln!("{passed} of {all} conformance programs pass");
    assert!(failed.is_empty() && all > 0, "{}", failed.join("\n"));
}
