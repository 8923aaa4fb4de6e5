//! Text that assembles is text again after disassembly.

use dash_bpf::{assemble, disassemble};

pub(crate) fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(insns) = assemble(text)
        && let Ok(printed) = disassemble(&insns)
    {
        assert_eq!(assemble(&printed).as_ref(), Ok(&insns), "{printed}");
    }
}
