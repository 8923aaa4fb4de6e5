//! Text that assembles is text again after disassembly.

#![no_main]

use dash_bpf::{assemble, disassemble};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(insns) = assemble(text)
        && let Ok(printed) = disassemble(&insns)
    {
        assert_eq!(assemble(&printed).as_ref(), Ok(&insns), "{printed}");
    }
});
