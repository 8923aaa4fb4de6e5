//! [`Op`]s to wire slots: the inverse of [`decode`](fn@crate::decode).

use thiserror::Error;

use crate::decode::{CALLX, GOTOL, LDDW, SOURCE_REG, class, mode};
use crate::insn::Insn;
use crate::op::{AluOp, AtomicOp, Cond, Endian, Imm64, Op, Operand, Reg, Size, Width};

/// Set in the immediate of atomic operations that fetch.
const ATOMIC_FETCH: i32 = 0x01;

/// Why an [`Op`] has no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A conditional jump reaches further than 16 bits.
    #[error("jump from {from} to {to} does not fit 16 bits")]
    JumpTooFar {
        /// Slot of the jump.
        from: usize,
        /// Its target.
        to: usize,
    },
    /// A jump or call reaches further than 32 bits.
    #[error("distance from {from} to {to} does not fit 32 bits")]
    OutOfReach {
        /// Slot of the jump or call.
        from: usize,
        /// Its target.
        to: usize,
    },
    /// The value has no wire form: say a sign-extending move of an immediate.
    #[error("no such instruction: {0}")]
    NoSuchInstruction(&'static str),
}

/// Wire form of one [`Op`]: one or two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// Every instruction but one.
    One([Insn; 1]),
    /// `lddw`.
    Two([Insn; 2]),
}

impl Encoded {
    /// The slots.
    pub fn as_slice(&self) -> &[Insn] {
        match self {
            Self::One(a) => a,
            Self::Two(a) => a,
        }
    }
}

fn regs(dst: Reg, src: Reg) -> u8 {
    (src.index() as u8) << 4 | dst.index() as u8
}

fn size_bits(size: Size) -> u8 {
    match size {
        Size::W => 0x00,
        Size::H => 0x08,
        Size::B => 0x10,
        Size::Dw => 0x18,
    }
}

/// (high nibble, offset) of an arithmetic operation.
fn alu_bits(op: AluOp) -> (u8, i16) {
    match op {
        AluOp::Add => (0x00, 0),
        AluOp::Sub => (0x10, 0),
        AluOp::Mul => (0x20, 0),
        AluOp::Div => (0x30, 0),
        AluOp::Sdiv => (0x30, 1),
        AluOp::Or => (0x40, 0),
        AluOp::And => (0x50, 0),
        AluOp::Lsh => (0x60, 0),
        AluOp::Rsh => (0x70, 0),
        AluOp::Mod => (0x90, 0),
        AluOp::Smod => (0x90, 1),
        AluOp::Xor => (0xa0, 0),
        AluOp::Mov => (0xb0, 0),
        AluOp::Movsx8 => (0xb0, 8),
        AluOp::Movsx16 => (0xb0, 16),
        AluOp::Movsx32 => (0xb0, 32),
        AluOp::Arsh => (0xc0, 0),
    }
}

fn cond_bits(cond: Cond) -> u8 {
    match cond {
        Cond::Eq => 0x10,
        Cond::Gt => 0x20,
        Cond::Ge => 0x30,
        Cond::Set => 0x40,
        Cond::Ne => 0x50,
        Cond::Sgt => 0x60,
        Cond::Sge => 0x70,
        Cond::Lt => 0xa0,
        Cond::Le => 0xb0,
        Cond::Slt => 0xc0,
        Cond::Sle => 0xd0,
    }
}

/// (source bit, source register, immediate) of a second operand.
fn operand_bits(src: Operand) -> (u8, Reg, i32) {
    match src {
        Operand::Reg(r) => (SOURCE_REG, r, 0),
        Operand::Imm(v) => (0, Reg::R0, v),
    }
}

/// Slots between the instruction after `pc` and `target`.
fn distance(pc: usize, target: usize) -> Option<i64> {
    let next = i64::try_from(pc).ok()?.checked_add(1)?;
    i64::try_from(target).ok()?.checked_sub(next)
}

/// Wire form of `op` placed at slot `pc`; `decode` of it gives `op` back. Unconditional jumps
/// beyond 16 bits take the 32-bit form.
///
/// # Errors
/// `op` has no encoding there. [`Op::LoadImm64Hi`] has none of its own: it comes with the slot
/// before it.
pub fn encode(op: &Op, pc: usize) -> Result<Encoded, EncodeError> {
    let (z, far) = (Reg::R0, |to| EncodeError::OutOfReach { from: pc, to });
    let one = |code, dst, src, off, imm| {
        Ok(Encoded::One([Insn {
            code,
            regs: regs(dst, src),
            off,
            imm,
        }]))
    };
    match *op {
        Op::Alu {
            width,
            op,
            dst,
            src,
        } => {
            let class = match width {
                Width::W32 => class::ALU,
                Width::W64 => class::ALU64,
            };
            match (op, src, width) {
                (AluOp::Movsx8 | AluOp::Movsx16 | AluOp::Movsx32, Operand::Imm(_), _) => {
                    return Err(EncodeError::NoSuchInstruction(
                        "sign-extending move of an immediate",
                    ));
                }
                (AluOp::Movsx32, _, Width::W32) => {
                    return Err(EncodeError::NoSuchInstruction(
                        "32-bit move sign-extending 32 bits",
                    ));
                }
                _ => {}
            }
            let (bits, off) = alu_bits(op);
            let (source, src, imm) = operand_bits(src);
            one(bits | source | class, dst, src, off, imm)
        }
        Op::Neg {
            width: Width::W32,
            dst,
        } => one(0x80 | class::ALU, dst, z, 0, 0),
        Op::Neg {
            width: Width::W64,
            dst,
        } => one(0x80 | class::ALU64, dst, z, 0, 0),
        Op::Endian { order, bits, dst } => {
            if !matches!(bits, 16 | 32 | 64) {
                return Err(EncodeError::NoSuchInstruction(
                    "byte-order operation of this width",
                ));
            }
            let code = match order {
                Endian::Le => 0xd0 | class::ALU,
                Endian::Be => 0xd0 | SOURCE_REG | class::ALU,
                Endian::Swap => 0xd0 | class::ALU64,
            };
            one(code, dst, z, 0, i32::from(bits))
        }
        Op::LoadImm64 { dst, imm } => {
            let (kind, low, high) = match imm {
                Imm64::Value(v) => (0, v as u32 as i32, (v >> 32) as u32 as i32),
                Imm64::Map(map) => (1, map as i32, 0),
                Imm64::MapValue { map, offset } => (2, map as i32, offset as i32),
                Imm64::Other {
                    src: src @ 3..=6,
                    imm,
                    next,
                } => (src, imm, next),
                Imm64::Other { .. } => {
                    return Err(EncodeError::NoSuchInstruction(
                        "64-bit immediate of this kind",
                    ));
                }
            };
            let first = Insn {
                code: LDDW,
                regs: kind << 4 | dst.index() as u8,
                off: 0,
                imm: low,
            };
            Ok(Encoded::Two([
                first,
                Insn {
                    imm: high,
                    ..Insn::default()
                },
            ]))
        }
        Op::LoadImm64Hi => Err(EncodeError::NoSuchInstruction("second slot on its own")),
        Op::Load {
            size,
            signed,
            dst,
            base,
            off,
        } => {
            let mode = match (signed, size) {
                (false, _) => mode::MEM,
                (true, Size::Dw) => {
                    return Err(EncodeError::NoSuchInstruction(
                        "sign-extending load of 8 bytes",
                    ));
                }
                (true, _) => mode::MEMSX,
            };
            one(mode | size_bits(size) | class::LDX, dst, base, off, 0)
        }
        Op::Store {
            size,
            base,
            off,
            src: Operand::Imm(v),
        } => one(mode::MEM | size_bits(size) | class::ST, base, z, off, v),
        Op::Store {
            size,
            base,
            off,
            src: Operand::Reg(r),
        } => one(mode::MEM | size_bits(size) | class::STX, base, r, off, 0),
        Op::Atomic {
            size,
            op,
            fetch,
            base,
            off,
            src,
        } => {
            if !matches!(size, Size::W | Size::Dw) {
                return Err(EncodeError::NoSuchInstruction(
                    "atomic access of this width",
                ));
            }
            let bits = match op {
                AtomicOp::Add => 0x00,
                AtomicOp::Or => 0x40,
                AtomicOp::And => 0x50,
                AtomicOp::Xor => 0xa0,
                AtomicOp::Xchg => 0xe0,
                AtomicOp::CmpXchg => 0xf0,
            };
            if !fetch && matches!(op, AtomicOp::Xchg | AtomicOp::CmpXchg) {
                return Err(EncodeError::NoSuchInstruction(
                    "exchange that fetches nothing",
                ));
            }
            let imm = bits | if fetch { ATOMIC_FETCH } else { 0 };
            one(
                mode::ATOMIC | size_bits(size) | class::STX,
                base,
                src,
                off,
                imm,
            )
        }
        Op::LoadPacket { size, index, imm } => {
            if size == Size::Dw {
                return Err(EncodeError::NoSuchInstruction("packet access of 8 bytes"));
            }
            let (mode, index) = match index {
                None => (mode::ABS, z),
                Some(r) => (mode::IND, r),
            };
            one(mode | size_bits(size) | class::LD, z, index, 0, imm)
        }
        Op::Jump { target } => {
            let by = distance(pc, target).ok_or(far(target))?;
            match (i16::try_from(by), i32::try_from(by)) {
                (Ok(off), _) => one(class::JMP, z, z, off, 0),
                (_, Ok(imm)) => one(GOTOL, z, z, 0, imm),
                _ => Err(far(target)),
            }
        }
        Op::JumpIf {
            width,
            cond,
            dst,
            src,
            target,
        } => {
            let off = distance(pc, target)
                .and_then(|by| i16::try_from(by).ok())
                .ok_or(EncodeError::JumpTooFar {
                    from: pc,
                    to: target,
                })?;
            let class = match width {
                Width::W32 => class::JMP32,
                Width::W64 => class::JMP,
            };
            let (source, src, imm) = operand_bits(src);
            one(cond_bits(cond) | source | class, dst, src, off, imm)
        }
        Op::Call { helper } => one(0x85, z, z, 0, helper as i32),
        Op::CallLocal { target } => {
            let imm = distance(pc, target)
                .and_then(|by| i32::try_from(by).ok())
                .ok_or(far(target))?;
            one(0x85, z, Reg::R1, 0, imm)
        }
        Op::CallBtf { id } => one(0x85, z, Reg::R2, 0, id),
        Op::CallReg { reg } => one(CALLX, reg, z, 0, 0),
        Op::Exit => one(0x95, z, z, 0, 0),
    }
}
