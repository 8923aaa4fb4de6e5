//! Programs as text, in the notation of LLVM's eBPF assembler.
//!
//! What that notation lacks is written so that [`asm`](mod@crate::asm) reads it back: `map[3] ll`
//! for maps of the object, `value(map[3]) + 8 ll` for map values, `imm64(4, 1, 2) ll` for other
//! kinds of 64-bit immediates, `call pc+3` for local calls, `call btf 7`, and an immediate in
//! `skb[r2 + 4]`. `assemble(disassemble(p)) == p` for every well-formed `p`.

use std::fmt;

use crate::decode::{DecodeError, GOTOL, decode};
use crate::helper;
use crate::insn::Insn;
use crate::map::MapDef;
use crate::op::{AluOp, AtomicOp, Cond, Endian, Imm64, Op, Operand, Reg, Size, Width};
use crate::program::Program;

/// One line an instruction; jumps are relative, as the assembler reads them.
///
/// # Errors
/// The program is malformed.
pub fn disassemble(insns: &[Insn]) -> Result<String, DecodeError> {
    listing(insns, &[], false)
}

/// For people: slot numbers before each instruction, and the builder's comments above theirs. The
/// assembler reads everything but the numbers.
///
/// # Errors
/// The program is malformed.
pub fn annotate(insns: &[Insn], comments: &[(usize, String)]) -> Result<String, DecodeError> {
    listing(insns, comments, true)
}

/// A whole program for people: each function's name before it, the source's lines before what was
/// made of them, as `llvm-objdump -S` shows them, and names of maps, functions and helpers
/// behind instructions that refer to them. The assembler reads everything but the numbers.
///
/// # Errors
/// The program is malformed.
pub fn with_source(program: &Program, maps: &[MapDef]) -> Result<String, DecodeError> {
    let ops = decode(&program.insns)?;
    let debug = &program.debug;
    let mut functions = debug.functions().iter().peekable();
    let mut lines = debug.lines().iter().peekable();
    let mut out = String::new();
    let mut last = None;
    for (pc, (op, insn)) in ops.iter().zip(&program.insns).enumerate() {
        while let Some(function) = functions.next_if(|f| f.slot as usize <= pc) {
            let gap = if pc == 0 { "" } else { "\n" };
            out.push_str(&format!("{gap}{}:\n", function.name));
            last = None;
        }
        while let Some(line) = lines.next_if(|l| l.slot as usize <= pc) {
            let place = (&line.file, line.line);
            // Code without a line of its own, and more of the same line, are not worth saying.
            if line.line != 0 && last.replace(place) != Some(place) {
                let text = line.text.trim().replace(['\n', '\r'], " ");
                out.push_str(&format!("; {}:{}: {text}\n", line.file, line.line));
            }
        }
        if *op == Op::LoadImm64Hi {
            continue;
        }
        let long = insn.code == GOTOL;
        out.push_str(&format!("{pc:5}: {}", Text { op, pc, long }));
        if let Some(name) = referred(program, maps, pc, op) {
            out.push_str(&format!(" ; {name}"));
        }
        out.push('\n');
    }
    Ok(out)
}

/// Name of what an instruction refers to.
fn referred<'p>(program: &'p Program, maps: &'p [MapDef], pc: usize, op: &Op) -> Option<&'p str> {
    let map = |map: u32| maps.get(map as usize).map(|m| m.name.as_str());
    let function = |slot: usize| {
        let found = program.debug.function(slot)?;
        (found.slot as usize == slot).then_some(&*found.name)
    };
    match *op {
        Op::LoadImm64 { imm, .. } => match imm {
            Imm64::Map(index) | Imm64::MapValue { map: index, .. } => map(index),
            other => function(other.function(pc)?),
        },
        Op::CallLocal { target } => function(target),
        Op::Call { helper } => helper::name(helper),
        _ => None,
    }
}

fn listing(
    insns: &[Insn],
    comments: &[(usize, String)],
    numbers: bool,
) -> Result<String, DecodeError> {
    let ops = decode(insns)?;
    let mut out = String::new();
    let mut comments = comments.iter().peekable();
    for (pc, (op, insn)) in ops.iter().zip(insns).enumerate() {
        while let Some((_, text)) = comments.next_if(|(slot, _)| *slot <= pc) {
            out.push_str(&format!("; {}\n", text.replace('\n', "\n; ")));
        }
        if *op == Op::LoadImm64Hi {
            continue;
        }
        if numbers {
            out.push_str(&format!("{pc:5}: "));
        }
        let long = insn.code == GOTOL;
        out.push_str(&format!("{}\n", Text { op, pc, long }));
    }
    Ok(out)
}

/// One instruction as text: [`Display`](fmt::Display) writes what [`disassemble`] writes for it.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Instruction.
    pub op: &'a Op,
    /// Its slot: jumps print their distance.
    pub pc: usize,
    /// Print an unconditional jump in its 32-bit form.
    pub long: bool,
}

fn reg(width: Width, r: Reg) -> String {
    match width {
        Width::W32 => format!("w{}", r.index()),
        Width::W64 => format!("r{}", r.index()),
    }
}

fn value(width: Width, src: Operand) -> String {
    match src {
        Operand::Reg(r) => reg(width, r),
        Operand::Imm(v) => v.to_string(),
    }
}

fn bits(size: Size) -> usize {
    size.bytes() * 8
}

/// `r1 + 4`, `r10 - 8`.
fn place(base: Reg, off: i16) -> String {
    let sign = if off < 0 { '-' } else { '+' };
    format!("r{} {sign} {}", base.index(), off.unsigned_abs())
}

fn width_of(size: Size) -> Width {
    if size == Size::Dw {
        Width::W64
    } else {
        Width::W32
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |target: usize| (target as i64).wrapping_sub(self.pc as i64 + 1);
        match *self.op {
            Op::Alu {
                width,
                op,
                dst,
                src,
            } => alu(f, width, op, dst, src),
            Op::Neg { width, dst } => {
                let d = reg(width, dst);
                write!(f, "{d} = -{d}")
            }
            Op::Endian { order, bits, dst } => {
                let name = match order {
                    Endian::Le => "le",
                    Endian::Be => "be",
                    Endian::Swap => "bswap",
                };
                let d = dst.index();
                write!(f, "r{d} = {name}{bits} r{d}")
            }
            Op::LoadImm64 { dst, imm } => {
                write!(f, "r{} = ", dst.index())?;
                match imm {
                    Imm64::Value(v) => write!(f, "{v:#x} ll"),
                    Imm64::Map(map) => write!(f, "map[{map}] ll"),
                    Imm64::MapValue { map, offset } => write!(f, "value(map[{map}]) + {offset} ll"),
                    Imm64::Other { src, imm, next } => write!(f, "imm64({src}, {imm}, {next}) ll"),
                }
            }
            Op::LoadImm64Hi => f.write_str("; second slot"),
            Op::Load {
                size,
                signed,
                dst,
                base,
                off,
            } => {
                let sign = if signed { 's' } else { 'u' };
                let (n, at) = (bits(size), place(base, off));
                write!(f, "r{} = *({sign}{n} *)({at})", dst.index())
            }
            Op::Store {
                size,
                base,
                off,
                src,
            } => {
                let (n, at) = (bits(size), place(base, off));
                write!(f, "*(u{n} *)({at}) = {}", value(Width::W64, src))
            }
            Op::Atomic {
                size,
                op,
                fetch,
                base,
                off,
                src,
            } => atomic(f, size, op, fetch, &place(base, off), src),
            Op::LoadPacket { size, index, imm } => match index {
                None => write!(f, "r0 = *(u{} *)skb[{imm}]", bits(size)),
                Some(r) => {
                    let sign = if imm < 0 { '-' } else { '+' };
                    let (n, r, imm) = (bits(size), r.index(), imm.unsigned_abs());
                    write!(f, "r0 = *(u{n} *)skb[r{r} {sign} {imm}]")
                }
            },
            Op::Jump { target } => {
                let name = if self.long { "gotol" } else { "goto" };
                write!(f, "{name} {:+}", by(target))
            }
            Op::JumpIf {
                width,
                cond,
                dst,
                src,
                target,
            } => {
                let sign = match cond {
                    Cond::Eq => "==",
                    Cond::Ne => "!=",
                    Cond::Set => "&",
                    Cond::Gt => ">",
                    Cond::Ge => ">=",
                    Cond::Lt => "<",
                    Cond::Le => "<=",
                    Cond::Sgt => "s>",
                    Cond::Sge => "s>=",
                    Cond::Slt => "s<",
                    Cond::Sle => "s<=",
                };
                let (dst, src) = (reg(width, dst), value(width, src));
                write!(f, "if {dst} {sign} {src} goto {:+}", by(target))
            }
            Op::Call { helper } => write!(f, "call {helper}"),
            Op::CallBtf { id } => write!(f, "call btf {id}"),
            Op::CallLocal { target } => write!(f, "call pc{:+}", by(target)),
            Op::CallReg { reg } => write!(f, "callx r{}", reg.index()),
            Op::Exit => f.write_str("exit"),
        }
    }
}

fn alu(f: &mut fmt::Formatter<'_>, width: Width, op: AluOp, dst: Reg, src: Operand) -> fmt::Result {
    let (d, s) = (reg(width, dst), value(width, src));
    let sign = match op {
        AluOp::Mov => return write!(f, "{d} = {s}"),
        AluOp::Movsx8 => return write!(f, "{d} = (s8){s}"),
        AluOp::Movsx16 => return write!(f, "{d} = (s16){s}"),
        AluOp::Movsx32 => return write!(f, "{d} = (s32){s}"),
        AluOp::Add => "+",
        AluOp::Sub => "-",
        AluOp::Mul => "*",
        AluOp::Div => "/",
        AluOp::Sdiv => "s/",
        AluOp::Or => "|",
        AluOp::And => "&",
        AluOp::Lsh => "<<",
        AluOp::Rsh => ">>",
        AluOp::Mod => "%",
        AluOp::Smod => "s%",
        AluOp::Xor => "^",
        AluOp::Arsh => "s>>",
    };
    write!(f, "{d} {sign}= {s}")
}

fn atomic(
    f: &mut fmt::Formatter<'_>,
    size: Size,
    op: AtomicOp,
    fetch: bool,
    at: &str,
    src: Reg,
) -> fmt::Result {
    let (n, width) = (bits(size), width_of(size));
    let s = reg(width, src);
    let narrow = if n == 32 { "32" } else { "" };
    let (sign, name) = match op {
        AtomicOp::Add => ("+", "add"),
        AtomicOp::Or => ("|", "or"),
        AtomicOp::And => ("&", "and"),
        AtomicOp::Xor => ("^", "xor"),
        AtomicOp::Xchg => return write!(f, "{s} = xchg{narrow}_{n}({at}, {s})"),
        AtomicOp::CmpXchg => {
            let r0 = reg(width, Reg::R0);
            return write!(f, "{r0} = cmpxchg{narrow}_{n}({at}, {r0}, {s})");
        }
    };
    if fetch {
        write!(f, "{s} = atomic_fetch_{name}((u{n} *)({at}), {s})")
    } else {
        write!(f, "lock *(u{n} *)({at}) {sign}= {s}")
    }
}
