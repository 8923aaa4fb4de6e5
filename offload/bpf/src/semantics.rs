//! What each operation computes (RFC 9669 sections 4 and 5.3), as pure functions: the interpreter
//! runs them, and native code is tested against them.

use crate::op::{AluOp, AtomicOp, Cond, Endian, Operand, Size, Width};

/// Value of an immediate as an operand: sign-extended to 64 bits; 32-bit operations take its low
/// half.
pub fn immediate(imm: i32) -> u64 {
    i64::from(imm) as u64
}

/// The immediate, or what `reg` says the register holds.
pub fn operand(src: Operand, reg: impl FnOnce(crate::op::Reg) -> u64) -> u64 {
    match src {
        Operand::Reg(r) => reg(r),
        Operand::Imm(v) => immediate(v),
    }
}

/// Result of an arithmetic operation on `a` (the destination) and `b`, zero-extended for
/// [`Width::W32`].
pub fn alu(width: Width, op: AluOp, a: u64, b: u64) -> u64 {
    match width {
        Width::W32 => u64::from(alu32(op, a as u32, b as u32)),
        Width::W64 => alu64(op, a, b),
    }
}

fn alu32(op: AluOp, a: u32, b: u32) -> u32 {
    match op {
        AluOp::Add => a.wrapping_add(b),
        AluOp::Sub => a.wrapping_sub(b),
        AluOp::Mul => a.wrapping_mul(b),
        AluOp::Div => a.checked_div(b).unwrap_or(0),
        AluOp::Mod => a.checked_rem(b).unwrap_or(a),
        AluOp::Sdiv if b == 0 => 0,
        AluOp::Sdiv => (a as i32).wrapping_div(b as i32) as u32,
        AluOp::Smod if b == 0 => a,
        AluOp::Smod => (a as i32).wrapping_rem(b as i32) as u32,
        AluOp::Or => a | b,
        AluOp::And => a & b,
        AluOp::Xor => a ^ b,
        AluOp::Lsh => a.wrapping_shl(b),
        AluOp::Rsh => a.wrapping_shr(b),
        AluOp::Arsh => (a as i32).wrapping_shr(b) as u32,
        AluOp::Mov | AluOp::Movsx32 => b,
        AluOp::Movsx8 => b as i8 as u32,
        AluOp::Movsx16 => b as i16 as u32,
    }
}

fn alu64(op: AluOp, a: u64, b: u64) -> u64 {
    match op {
        AluOp::Add => a.wrapping_add(b),
        AluOp::Sub => a.wrapping_sub(b),
        AluOp::Mul => a.wrapping_mul(b),
        AluOp::Div => a.checked_div(b).unwrap_or(0),
        AluOp::Mod => a.checked_rem(b).unwrap_or(a),
        AluOp::Sdiv if b == 0 => 0,
        AluOp::Sdiv => (a as i64).wrapping_div(b as i64) as u64,
        AluOp::Smod if b == 0 => a,
        AluOp::Smod => (a as i64).wrapping_rem(b as i64) as u64,
        AluOp::Or => a | b,
        AluOp::And => a & b,
        AluOp::Xor => a ^ b,
        AluOp::Lsh => a.wrapping_shl(b as u32),
        AluOp::Rsh => a.wrapping_shr(b as u32),
        AluOp::Arsh => (a as i64).wrapping_shr(b as u32) as u64,
        AluOp::Mov => b,
        AluOp::Movsx8 => b as i8 as u64,
        AluOp::Movsx16 => b as i16 as u64,
        AluOp::Movsx32 => b as i32 as u64,
    }
}

/// Two's complement negation, zero-extended for [`Width::W32`].
pub fn neg(width: Width, a: u64) -> u64 {
    match width {
        Width::W32 => u64::from((a as u32).wrapping_neg()),
        Width::W64 => a.wrapping_neg(),
    }
}

/// Byte order of the low `bits` (16, 32; else 64), the rest zero; the machine is little-endian.
pub fn endian(order: Endian, bits: u8, v: u64) -> u64 {
    match (order, bits) {
        (Endian::Le, 16) => u64::from(v as u16),
        (Endian::Le, 32) => u64::from(v as u32),
        (Endian::Le, _) => v,
        (_, 16) => u64::from((v as u16).swap_bytes()),
        (_, 32) => u64::from((v as u32).swap_bytes()),
        (_, _) => v.swap_bytes(),
    }
}

/// Whether a conditional jump is taken.
pub fn holds(width: Width, cond: Cond, a: u64, b: u64) -> bool {
    let (ua, ub, sa, sb) = match width {
        Width::W64 => (a, b, a as i64, b as i64),
        Width::W32 => (
            u64::from(a as u32),
            u64::from(b as u32),
            i64::from(a as i32),
            i64::from(b as i32),
        ),
    };
    match cond {
        Cond::Eq => ua == ub,
        Cond::Ne => ua != ub,
        Cond::Set => ua & ub != 0,
        Cond::Gt => ua > ub,
        Cond::Ge => ua >= ub,
        Cond::Lt => ua < ub,
        Cond::Le => ua <= ub,
        Cond::Sgt => sa > sb,
        Cond::Sge => sa >= sb,
        Cond::Slt => sa < sb,
        Cond::Sle => sa <= sb,
    }
}

/// What an atomic operation leaves in memory that held `old`; `expected` is r0, for
/// [`AtomicOp::CmpXchg`] alone. All are of `size` (4 or 8 bytes), higher bits ignored.
pub fn atomic(op: AtomicOp, size: Size, old: u64, src: u64, expected: u64) -> u64 {
    let new = match op {
        AtomicOp::Add => old.wrapping_add(src),
        AtomicOp::Or => old | src,
        AtomicOp::And => old & src,
        AtomicOp::Xor => old ^ src,
        AtomicOp::Xchg => src,
        AtomicOp::CmpXchg if low(size, old) == low(size, expected) => src,
        AtomicOp::CmpXchg => old,
    };
    low(size, new)
}

/// The low bytes of a value, zero-extended.
pub fn low(size: Size, v: u64) -> u64 {
    match size {
        Size::B => u64::from(v as u8),
        Size::H => u64::from(v as u16),
        Size::W => u64::from(v as u32),
        Size::Dw => v,
    }
}

/// The low bytes of a value, sign-extended.
pub fn sign_extend(size: Size, v: u64) -> u64 {
    match size {
        Size::B => v as i8 as u64,
        Size::H => v as i16 as u64,
        Size::W => v as i32 as u64,
        Size::Dw => v,
    }
}
