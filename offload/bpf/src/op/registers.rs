//! Which registers an instruction reads, and which hold nothing of before after it.
//!
//! The verifier and the native compiler both ask which registers may still be read later; they
//! ask here, so that they cannot differ.

use std::ops::{BitAnd, BitOr, Not};

use super::{AluOp, AtomicOp, Op, Operand, Reg};

/// A set of registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Registers(u16);

impl Registers {
    /// No register.
    pub const NONE: Self = Self(0);
    /// r0 to r5: what no call keeps.
    pub const CLOBBERED: Self = Self(0b11_1111);

    /// r1 to r`n`, at most r5.
    pub fn arguments(n: usize) -> Self {
        Self((2 << n.min(5)) - 2)
    }

    /// Whether it is one of them.
    pub fn contains(self, r: Reg) -> bool {
        self.0 >> r.index() & 1 != 0
    }

    /// Bit `n` says whether r`n` is one of them.
    pub fn bits(self) -> u16 {
        self.0
    }
}

impl From<Reg> for Registers {
    fn from(r: Reg) -> Self {
        Self(1 << r.index())
    }
}

impl From<Operand> for Registers {
    fn from(operand: Operand) -> Self {
        match operand {
            Operand::Reg(r) => r.into(),
            Operand::Imm(_) => Self::NONE,
        }
    }
}

impl BitOr for Registers {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Registers {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Registers {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0 & 0x7ff)
    }
}

impl AluOp {
    /// Whether it overwrites its destination without reading it.
    pub fn is_move(self) -> bool {
        matches!(
            self,
            Self::Mov | Self::Movsx8 | Self::Movsx16 | Self::Movsx32
        )
    }
}

impl Op {
    /// Registers it reads. `arity` says how many arguments the helper of a number has.
    pub fn reads(&self, arity: impl FnOnce(u32) -> usize) -> Registers {
        match *self {
            Self::Alu { op, src, .. } if op.is_move() => src.into(),
            Self::Alu { dst, src, .. } | Self::JumpIf { dst, src, .. } => {
                Registers::from(dst) | src.into()
            }
            Self::Neg { dst, .. } | Self::Endian { dst, .. } => dst.into(),
            Self::LoadImm64 { .. } | Self::LoadImm64Hi | Self::Jump { .. } => Registers::NONE,
            Self::Load { base, .. } => base.into(),
            Self::Store { base, src, .. } => Registers::from(base) | src.into(),
            Self::Atomic { op, base, src, .. } => {
                let compared = match op {
                    AtomicOp::CmpXchg => Reg::R0.into(),
                    _ => Registers::NONE,
                };
                Registers::from(base) | src.into() | compared
            }
            Self::LoadPacket { index, .. } => {
                Registers::from(Reg::R6) | index.map_or(Registers::NONE, Into::into)
            }
            Self::Call { helper } => Registers::arguments(arity(helper)),
            Self::CallReg { reg } => Registers::from(reg) | Registers::arguments(5),
            Self::CallBtf { .. } | Self::CallLocal { .. } => Registers::arguments(5),
            Self::Exit => Reg::R0.into(),
        }
    }

    /// Registers whose contents of before are gone after it: written, or lost in a call.
    pub fn writes(&self) -> Registers {
        match *self {
            Self::Alu { dst, .. }
            | Self::Neg { dst, .. }
            | Self::Endian { dst, .. }
            | Self::LoadImm64 { dst, .. }
            | Self::Load { dst, .. } => dst.into(),
            Self::Atomic {
                op: AtomicOp::CmpXchg,
                ..
            } => Reg::R0.into(),
            Self::Atomic {
                fetch: true, src, ..
            } => src.into(),
            Self::LoadImm64Hi
            | Self::Jump { .. }
            | Self::JumpIf { .. }
            | Self::Store { .. }
            | Self::Atomic { .. }
            | Self::Exit => Registers::NONE,
            Self::LoadPacket { .. }
            | Self::Call { .. }
            | Self::CallReg { .. }
            | Self::CallBtf { .. }
            | Self::CallLocal { .. } => Registers::CLOBBERED,
        }
    }
}
