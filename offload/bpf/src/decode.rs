//! The one decoder: wire slots to [`Op`]s ([`encode`](fn@crate::encode) goes back).
//!
//! Verifier front, interpreter, native compiler and disassembler all read what [`decode`] returns,
//! so what was verified is what runs. It checks everything that can be said of a program without
//! following it: opcodes, registers, reserved fields, jump and call targets, and that execution
//! cannot run off the end (RFC 9669; opcode numbers are those of its appendix A).

use thiserror::Error;

use crate::insn::Insn;
use crate::op::{AluOp, AtomicOp, Cond, Endian, Imm64, Op, Operand, Reg, Size, Width};

/// Instruction classes: the low three bits of the opcode (RFC 9669 section 3.1).
pub(crate) mod class {
    pub(crate) const LD: u8 = 0;
    pub(crate) const LDX: u8 = 1;
    pub(crate) const ST: u8 = 2;
    pub(crate) const STX: u8 = 3;
    pub(crate) const ALU: u8 = 4;
    pub(crate) const JMP: u8 = 5;
    pub(crate) const JMP32: u8 = 6;
    pub(crate) const ALU64: u8 = 7;
}

/// Set in arithmetic and jump opcodes whose second operand is a register.
pub(crate) const SOURCE_REG: u8 = 0x08;

/// Modes of load and store opcodes: the high three bits (RFC 9669 section 5).
pub(crate) mod mode {
    pub(crate) const ABS: u8 = 0x20;
    pub(crate) const IND: u8 = 0x40;
    pub(crate) const MEM: u8 = 0x60;
    pub(crate) const MEMSX: u8 = 0x80;
    pub(crate) const ATOMIC: u8 = 0xc0;
}

/// `lddw`, the only instruction of two slots.
pub(crate) const LDDW: u8 = 0x18;
/// `ja` with a 32-bit displacement in `imm` (cpu v4).
pub(crate) const GOTOL: u8 = 0x06;
pub(crate) const CALLX: u8 = 0x8d;

/// Why a sequence of slots is not a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("instruction {pc}: {rule}")]
pub struct DecodeError {
    /// Slot number.
    pub pc: usize,
    /// Rule broken there.
    pub rule: DecodeRule,
}

/// One rule of the encoding (RFC 9669).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeRule {
    /// There is no instruction.
    #[error("a program has at least one instruction")]
    Empty,
    /// The opcode is not assigned.
    #[error("unknown opcode {0:#04x}")]
    UnknownOpcode(u8),
    /// The destination field is above 10.
    #[error("destination register r{0} does not exist")]
    DstRegister(u8),
    /// The source field is above 10.
    #[error("source register r{0} does not exist")]
    SrcRegister(u8),
    /// The frame pointer would be written.
    #[error("r10 is read-only")]
    WritesFramePointer,
    /// The instruction has no destination, yet the field is set.
    #[error("destination field is reserved and must be zero")]
    ReservedDst,
    /// The instruction has no source register, yet the field is set.
    #[error("source field is reserved and must be zero")]
    ReservedSrc,
    /// The instruction has no offset, yet the field is set.
    #[error("offset field is reserved and must be zero, found {0}")]
    ReservedOffset(i16),
    /// The instruction has no immediate, yet the field is set.
    #[error("immediate field is reserved and must be zero, found {0}")]
    ReservedImm(i32),
    /// The offset selects no variant of a division or move.
    #[error("offset {0} selects no variant of this operation")]
    OffsetVariant(i16),
    /// Byte-order operations are on 16, 32 or 64 bits.
    #[error("byte-order operation on {0} bits")]
    EndianWidth(i32),
    /// The immediate selects no atomic operation.
    #[error("unknown atomic operation {0:#x}")]
    AtomicOperation(i32),
    /// `lddw`'s source field selects no kind of immediate.
    #[error("64-bit immediate of unknown kind {0}")]
    Imm64Kind(u8),
    /// The call's source field selects no kind of call.
    #[error("call of unknown kind {0}")]
    CallKind(u8),
    /// `lddw` is the last slot.
    #[error("second half of the 64-bit immediate load is missing")]
    Imm64Truncated,
    /// The slot after `lddw` has other fields than an immediate.
    #[error("second half of a 64-bit immediate load may only hold an immediate")]
    Imm64HiFields,
    /// A slot with opcode 0 that no `lddw` precedes.
    #[error("second half of a 64-bit immediate load without a first")]
    Imm64HiAlone,
    /// A jump leaves the program.
    #[error("jump target {0} is outside the program")]
    JumpOutside(i64),
    /// A jump lands inside an `lddw`.
    #[error("jump target {0} is the second half of a 64-bit immediate load")]
    JumpIntoImm64(usize),
    /// A local call leaves the program.
    #[error("call target {0} is outside the program")]
    CallOutside(i64),
    /// A local call lands inside an `lddw`.
    #[error("call target {0} is the second half of a 64-bit immediate load")]
    CallIntoImm64(usize),
    /// The last instruction is neither `exit` nor an unconditional jump.
    #[error("execution falls off the end of the program")]
    FallsOffEnd,
}

/// Decodes a whole program: one [`Op`] a slot, [`Op::LoadImm64Hi`] in second slots.
///
/// # Errors
/// The first broken rule, lowest slot first.
pub fn decode(insns: &[Insn]) -> Result<Vec<Op>, DecodeError> {
    let mut ops = Vec::with_capacity(insns.len());
    let mut rest = insns;
    while let [first, tail @ ..] = rest {
        let pc = ops.len();
        let at = |rule| DecodeError { pc, rule };
        if first.code == LDDW {
            let Some((second, tail)) = tail.split_first() else {
                return Err(at(DecodeRule::Imm64Truncated));
            };
            ops.push(load_imm64(*first, *second).map_err(at)?);
            ops.push(Op::LoadImm64Hi);
            rest = tail;
        } else {
            ops.push(single(*first, pc).map_err(at)?);
            rest = tail;
        }
    }
    check_flow(&ops)?;
    Ok(ops)
}

/// Targets are inside, on instruction starts; the end cannot be run past.
fn check_flow(ops: &[Op]) -> Result<(), DecodeError> {
    for (pc, op) in ops.iter().enumerate() {
        // Targets below slot 0 wrap to huge numbers in `relative`; both ends are one check here.
        let at = |rule| Err(DecodeError { pc, rule });
        match *op {
            Op::Jump { target } | Op::JumpIf { target, .. } => match ops.get(target) {
                None => return at(DecodeRule::JumpOutside(target as i64)),
                Some(Op::LoadImm64Hi) => return at(DecodeRule::JumpIntoImm64(target)),
                Some(_) => {}
            },
            Op::CallLocal { target } => match ops.get(target) {
                None => return at(DecodeRule::CallOutside(target as i64)),
                Some(Op::LoadImm64Hi) => return at(DecodeRule::CallIntoImm64(target)),
                Some(_) => {}
            },
            _ => {}
        }
    }
    match ops.last() {
        Some(Op::Exit | Op::Jump { .. }) => Ok(()),
        Some(_) => Err(DecodeError {
            pc: ops.len() - 1,
            rule: DecodeRule::FallsOffEnd,
        }),
        None => Err(DecodeError {
            pc: 0,
            rule: DecodeRule::Empty,
        }),
    }
}

type Rule<T> = Result<T, DecodeRule>;

fn dst(i: Insn) -> Rule<Reg> {
    Reg::new(i.dst()).ok_or(DecodeRule::DstRegister(i.dst()))
}

fn src(i: Insn) -> Rule<Reg> {
    Reg::new(i.src()).ok_or(DecodeRule::SrcRegister(i.src()))
}

/// A register an instruction writes.
fn written(reg: Reg) -> Rule<Reg> {
    if reg == Reg::R10 {
        Err(DecodeRule::WritesFramePointer)
    } else {
        Ok(reg)
    }
}

fn no_dst(i: Insn) -> Rule<()> {
    if i.dst() == 0 {
        Ok(())
    } else {
        Err(DecodeRule::ReservedDst)
    }
}

fn no_src(i: Insn) -> Rule<()> {
    if i.src() == 0 {
        Ok(())
    } else {
        Err(DecodeRule::ReservedSrc)
    }
}

fn no_off(i: Insn) -> Rule<()> {
    if i.off == 0 {
        Ok(())
    } else {
        Err(DecodeRule::ReservedOffset(i.off))
    }
}

fn no_imm(i: Insn) -> Rule<()> {
    if i.imm == 0 {
        Ok(())
    } else {
        Err(DecodeRule::ReservedImm(i.imm))
    }
}

/// Second operand by the opcode's source bit; the field of the other kind is reserved.
fn operand(i: Insn) -> Rule<Operand> {
    if i.code & SOURCE_REG != 0 {
        no_imm(i)?;
        Ok(Operand::Reg(src(i)?))
    } else {
        no_src(i)?;
        Ok(Operand::Imm(i.imm))
    }
}

fn size(code: u8) -> Size {
    match code & 0x18 {
        0x00 => Size::W,
        0x08 => Size::H,
        0x10 => Size::B,
        _ => Size::Dw,
    }
}

/// Absolute target. One below slot 0 becomes a number no program is long enough for.
fn relative(pc: usize, distance: i64) -> usize {
    let target = pc as i64 + 1 + distance;
    target as usize
}

fn load_imm64(first: Insn, second: Insn) -> Rule<Op> {
    let dst = written(dst(first)?)?;
    no_off(first)?;
    if second.code != 0 || second.regs != 0 || second.off != 0 {
        return Err(DecodeRule::Imm64HiFields);
    }
    let (low, high) = (first.imm as u32, second.imm as u32);
    let imm = match first.src() {
        0 => Imm64::Value(u64::from(high) << 32 | u64::from(low)),
        1 => {
            no_imm(second)?;
            Imm64::Map(low)
        }
        2 => Imm64::MapValue {
            map: low,
            offset: high,
        },
        src @ 3..=6 => Imm64::Other {
            src,
            imm: first.imm,
            next: second.imm,
        },
        kind => return Err(DecodeRule::Imm64Kind(kind)),
    };
    Ok(Op::LoadImm64 { dst, imm })
}

fn single(i: Insn, pc: usize) -> Rule<Op> {
    match i.code & 7 {
        class::ALU => alu(i, Width::W32),
        class::ALU64 => alu(i, Width::W64),
        class::JMP => jump(i, pc, Width::W64),
        class::JMP32 => jump(i, pc, Width::W32),
        class::LD => packet(i),
        class::LDX => load(i),
        class::ST => {
            if i.code & 0xe0 != mode::MEM {
                return Err(DecodeRule::UnknownOpcode(i.code));
            }
            no_src(i)?;
            Ok(Op::Store {
                size: size(i.code),
                base: dst(i)?,
                off: i.off,
                src: Operand::Imm(i.imm),
            })
        }
        _ => store_reg(i),
    }
}

fn alu(i: Insn, width: Width) -> Rule<Op> {
    let op = match i.code & 0xf0 {
        0x00 => AluOp::Add,
        0x10 => AluOp::Sub,
        0x20 => AluOp::Mul,
        0x30 | 0x90 => {
            let signed = match i.off {
                0 => false,
                1 => true,
                off => return Err(DecodeRule::OffsetVariant(off)),
            };
            let op = match (i.code & 0xf0, signed) {
                (0x30, false) => AluOp::Div,
                (0x30, true) => AluOp::Sdiv,
                (_, false) => AluOp::Mod,
                (_, true) => AluOp::Smod,
            };
            return Ok(Op::Alu {
                width,
                op,
                dst: written(dst(i)?)?,
                src: operand(i)?,
            });
        }
        0x40 => AluOp::Or,
        0x50 => AluOp::And,
        0x60 => AluOp::Lsh,
        0x70 => AluOp::Rsh,
        0x80 => {
            if i.code & SOURCE_REG != 0 {
                return Err(DecodeRule::UnknownOpcode(i.code));
            }
            no_src(i)?;
            no_off(i)?;
            no_imm(i)?;
            return Ok(Op::Neg {
                width,
                dst: written(dst(i)?)?,
            });
        }
        0xa0 => AluOp::Xor,
        0xb0 => {
            let op = match (i.off, i.code & SOURCE_REG != 0, width) {
                (0, _, _) => AluOp::Mov,
                (8, true, _) => AluOp::Movsx8,
                (16, true, _) => AluOp::Movsx16,
                (32, true, Width::W64) => AluOp::Movsx32,
                (off, _, _) => return Err(DecodeRule::OffsetVariant(off)),
            };
            return Ok(Op::Alu {
                width,
                op,
                dst: written(dst(i)?)?,
                src: operand(i)?,
            });
        }
        0xc0 => AluOp::Arsh,
        0xd0 => return endian(i, width),
        _ => return Err(DecodeRule::UnknownOpcode(i.code)),
    };
    no_off(i)?;
    Ok(Op::Alu {
        width,
        op,
        dst: written(dst(i)?)?,
        src: operand(i)?,
    })
}

fn endian(i: Insn, width: Width) -> Rule<Op> {
    let order = match (width, i.code & SOURCE_REG != 0) {
        (Width::W32, false) => Endian::Le,
        (Width::W32, true) => Endian::Be,
        (Width::W64, false) => Endian::Swap,
        (Width::W64, true) => return Err(DecodeRule::UnknownOpcode(i.code)),
    };
    no_src(i)?;
    no_off(i)?;
    let bits = match i.imm {
        16 => 16,
        32 => 32,
        64 => 64,
        bits => return Err(DecodeRule::EndianWidth(bits)),
    };
    Ok(Op::Endian {
        order,
        bits,
        dst: written(dst(i)?)?,
    })
}

fn jump(i: Insn, pc: usize, width: Width) -> Rule<Op> {
    let cond = match i.code & 0xf0 {
        0x00 => return goto(i, pc, width),
        0x10 => Cond::Eq,
        0x20 => Cond::Gt,
        0x30 => Cond::Ge,
        0x40 => Cond::Set,
        0x50 => Cond::Ne,
        0x60 => Cond::Sgt,
        0x70 => Cond::Sge,
        0x80 if width == Width::W64 => return call(i, pc),
        0x90 if i.code == 0x95 => {
            no_dst(i)?;
            no_src(i)?;
            no_off(i)?;
            no_imm(i)?;
            return Ok(Op::Exit);
        }
        0xa0 => Cond::Lt,
        0xb0 => Cond::Le,
        0xc0 => Cond::Slt,
        0xd0 => Cond::Sle,
        _ => return Err(DecodeRule::UnknownOpcode(i.code)),
    };
    let target = relative(pc, i64::from(i.off));
    Ok(Op::JumpIf {
        width,
        cond,
        dst: dst(i)?,
        src: operand(i)?,
        target,
    })
}

fn goto(i: Insn, pc: usize, width: Width) -> Rule<Op> {
    if i.code & SOURCE_REG != 0 {
        return Err(DecodeRule::UnknownOpcode(i.code));
    }
    no_dst(i)?;
    no_src(i)?;
    let distance = match width {
        Width::W64 => {
            no_imm(i)?;
            i64::from(i.off)
        }
        Width::W32 => {
            no_off(i)?;
            i64::from(i.imm)
        }
    };
    Ok(Op::Jump {
        target: relative(pc, distance),
    })
}

fn call(i: Insn, pc: usize) -> Rule<Op> {
    no_off(i)?;
    if i.code == CALLX {
        no_src(i)?;
        no_imm(i)?;
        return Ok(Op::CallReg { reg: dst(i)? });
    }
    no_dst(i)?;
    match i.src() {
        0 => Ok(Op::Call {
            helper: i.imm as u32,
        }),
        1 => Ok(Op::CallLocal {
            target: relative(pc, i64::from(i.imm)),
        }),
        2 => Ok(Op::CallBtf { id: i.imm }),
        kind => Err(DecodeRule::CallKind(kind)),
    }
}

/// Legacy packet access (RFC 9669 section 5.6): 1, 2 and 4 bytes only.
fn packet(i: Insn) -> Rule<Op> {
    if i.code == 0 {
        return Err(DecodeRule::Imm64HiAlone);
    }
    let size = size(i.code);
    let indexed = match i.code & 0xe0 {
        mode::ABS => false,
        mode::IND => true,
        _ => return Err(DecodeRule::UnknownOpcode(i.code)),
    };
    if size == Size::Dw {
        return Err(DecodeRule::UnknownOpcode(i.code));
    }
    no_dst(i)?;
    no_off(i)?;
    let index = if indexed {
        Some(src(i)?)
    } else {
        no_src(i)?;
        None
    };
    Ok(Op::LoadPacket {
        size,
        index,
        imm: i.imm,
    })
}

fn load(i: Insn) -> Rule<Op> {
    let size = size(i.code);
    let signed = match i.code & 0xe0 {
        mode::MEM => false,
        mode::MEMSX if size != Size::Dw => true,
        _ => return Err(DecodeRule::UnknownOpcode(i.code)),
    };
    no_imm(i)?;
    Ok(Op::Load {
        size,
        signed,
        dst: written(dst(i)?)?,
        base: src(i)?,
        off: i.off,
    })
}

fn store_reg(i: Insn) -> Rule<Op> {
    let size = size(i.code);
    match i.code & 0xe0 {
        mode::MEM => {
            no_imm(i)?;
            Ok(Op::Store {
                size,
                base: dst(i)?,
                off: i.off,
                src: Operand::Reg(src(i)?),
            })
        }
        mode::ATOMIC if matches!(size, Size::W | Size::Dw) => {
            let (op, fetch) = match i.imm {
                0x00 => (AtomicOp::Add, false),
                0x01 => (AtomicOp::Add, true),
                0x40 => (AtomicOp::Or, false),
                0x41 => (AtomicOp::Or, true),
                0x50 => (AtomicOp::And, false),
                0x51 => (AtomicOp::And, true),
                0xa0 => (AtomicOp::Xor, false),
                0xa1 => (AtomicOp::Xor, true),
                0xe1 => (AtomicOp::Xchg, true),
                0xf1 => (AtomicOp::CmpXchg, true),
                other => return Err(DecodeRule::AtomicOperation(other)),
            };
            let mut src = src(i)?;
            if fetch && op != AtomicOp::CmpXchg {
                src = written(src)?;
            }
            Ok(Op::Atomic {
                size,
                op,
                fetch,
                base: dst(i)?,
                off: i.off,
                src,
            })
        }
        _ => Err(DecodeRule::UnknownOpcode(i.code)),
    }
}
