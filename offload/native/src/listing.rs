//! Text forms of compiled code, for people.

use std::fmt::Write as _;

use dash_bpf::Object;
use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};

use crate::code::Machine;
use crate::machine::Emitted;

/// Text forms of one compilation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Cranelift IR before optimisation.
    pub clif: String,
    /// Assembly with offsets, annotated with the bytecode it came from: NASM syntax for x86-64,
    /// the code generator's own for others.
    pub asm: String,
}

/// Assembly of emitted code.
pub(crate) fn assembly(emitted: &Emitted, object: &Object) -> String {
    match emitted.code.machine {
        Machine::X86_64 => x86_64(emitted, object),
        Machine::Aarch64 | Machine::Riscv64 => emitted.text.clone().unwrap_or_default(),
    }
}

/// One instruction a line, under the bytecode instruction it was made from.
fn x86_64(emitted: &Emitted, object: &Object) -> String {
    let mut decoder = Decoder::with_ip(64, &emitted.code.code, 0, DecoderOptions::NONE);
    let mut formatter = NasmFormatter::new();
    formatter.options_mut().set_branch_leading_zeros(false);
    formatter.options_mut().set_first_operand_char_index(8);
    let mut sources = emitted.sources.iter().peekable();
    let (mut out, mut text) = (String::new(), String::new());
    while decoder.can_decode() {
        let instruction = decoder.decode();
        let offset = instruction.ip() as usize;
        let mut from = None;
        while let Some(source) = sources.next_if(|s| s.start <= offset) {
            from = Some(source);
        }
        if let Some(source) = from {
            let name = object.programs.get(source.program).map_or("?", |p| &p.name);
            // Writing to a String cannot fail.
            let _ = writeln!(out, "; {name}:{}", source.pc);
        }
        text.clear();
        formatter.format(&instruction, &mut text);
        let _ = writeln!(out, "{offset:6x}  {text}");
    }
    out
}
