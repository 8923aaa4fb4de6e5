//! eBPF as data: instructions (RFC 9669), builder, assembler, disassembler, objects and a
//! checking interpreter. Knows nothing of DASH.

#![forbid(unsafe_code)]

pub mod asm;
pub mod builder;
pub mod debug;
pub mod decode;
pub mod disasm;
pub mod elf;
pub mod encode;
pub mod helper;
pub mod insn;
pub mod interp;
pub mod map;
pub mod op;
pub mod program;
pub mod semantics;

pub use asm::assemble;
pub use builder::Builder;
pub use debug::DebugInfo;
pub use decode::{DecodeError, decode};
pub use disasm::disassemble;
pub use encode::encode;
pub use insn::Insn;
pub use interp::{Env, Interp, Trap};
pub use map::{MapDef, MapKind};
pub use op::{Op, Operand, Reg, Size, Width};
pub use program::{Object, Program, ProgramKind};
