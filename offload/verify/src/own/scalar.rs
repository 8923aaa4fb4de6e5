//! What is known of a register that holds a number: of its 64 bits and of its low 32.

use dash_bpf::op::{AluOp, Endian, Size, Width};

use super::num::Num;
use super::refine::{Relation, refine};
use super::tnum::{Tnum, low_bits};

const LOW: u64 = u32::MAX as u64;

/// A set of 64-bit numbers, never empty. The known bits of the low half are those of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) wide: Num<64>,
    /// Ranges of the low half.
    low_u: (u32, u32),
    low_s: (i32, i32),
}

impl Scalar {
    pub(crate) const UNKNOWN: Self = Self {
        wide: Num::UNKNOWN,
        low_u: (0, u32::MAX),
        low_s: (i32::MIN, i32::MAX),
    };

    pub(crate) const fn constant(n: u64) -> Self {
        Self {
            wide: Num::constant(n),
            low_u: (n as u32, n as u32),
            low_s: (n as i32, n as i32),
        }
    }

    /// A number a load of this many bytes gives.
    pub(crate) fn of_size(size: Size) -> Self {
        Self::of_wide(Num::of_unsigned(0, low_bits(size.bytes() as u32 * 8)))
    }

    /// 0 to `most`.
    pub(crate) fn up_to(most: u64) -> Self {
        Self::of_wide(Num::of_unsigned(0, most))
    }

    pub(crate) fn of_wide(wide: Num<64>) -> Self {
        Self::synced(wide, Num::UNKNOWN)
    }

    /// The low half, the high one being 0.
    fn of_low(low: Num<32>) -> Self {
        let wide = Num {
            bits: low.bits,
            umin: low.umin,
            umax: low.umax,
            smin: 0,
            smax: LOW as i64,
        };
        Self::synced(wide, low)
    }

    pub(crate) fn known(self) -> Option<u64> {
        self.wide.known()
    }

    pub(crate) fn low(self) -> Num<32> {
        Num {
            bits: self.wide.bits.truncate(32),
            umin: self.low_u.0.into(),
            umax: self.low_u.1.into(),
            smin: self.low_s.0.into(),
            smax: self.low_s.1.into(),
        }
    }

    #[cfg(test)]
    pub(crate) fn contains(self, n: u64) -> bool {
        self.wide.contains(n) && self.low().contains(n & LOW)
    }

    pub(crate) fn includes(self, other: Self) -> bool {
        self.wide.includes(other.wide)
            && self.low_u.0 <= other.low_u.0
            && other.low_u.1 <= self.low_u.1
            && self.low_s.0 <= other.low_s.0
            && other.low_s.1 <= self.low_s.1
    }

    pub(crate) fn join(self, other: Self) -> Self {
        Self {
            wide: self.wide.join(other.wide),
            low_u: (
                self.low_u.0.min(other.low_u.0),
                self.low_u.1.max(other.low_u.1),
            ),
            low_s: (
                self.low_s.0.min(other.low_s.0),
                self.low_s.1.max(other.low_s.1),
            ),
        }
    }

    /// For results known to exist.
    fn synced(wide: Num<64>, low: Num<32>) -> Self {
        let found = Self::sync(wide, low);
        debug_assert!(found.is_some(), "empty: {wide:?}, low {low:?}");
        found.unwrap_or(Self::UNKNOWN)
    }

    /// Both halves of the knowledge, each narrowed by the other; `None` if they contradict.
    pub(crate) fn sync(mut wide: Num<64>, mut low: Num<32>) -> Option<Self> {
        wide = wide.reduce()?;
        for _ in 0..2 {
            low.bits = low.bits.intersect(wide.bits.truncate(32))?;
            if wide.umin >> 32 == wide.umax >> 32 {
                low.umin = low.umin.max(wide.umin & LOW);
                low.umax = low.umax.min(wide.umax & LOW);
            }
            if wide.smin >> 32 == wide.smax >> 32 {
                low.umin = low.umin.max(wide.smin as u64 & LOW);
                low.umax = low.umax.min(wide.smax as u64 & LOW);
            }
            let fits = wide.smin >= i32::MIN.into() && wide.smax <= i32::MAX.into();
            if fits {
                low.smin = low.smin.max(wide.smin);
                low.smax = low.smax.min(wide.smax);
            }
            low = low.reduce()?;
            wide.umin = wide.umin.max(wide.umin & !LOW | low.umin);
            wide.umax = wide.umax.min(wide.umax & !LOW | low.umax);
            wide.smin = wide.smin.max((wide.smin as u64 & !LOW | low.umin) as i64);
            wide.smax = wide.smax.min((wide.smax as u64 & !LOW | low.umax) as i64);
            if fits {
                wide.smin = wide.smin.max(low.smin);
                wide.smax = wide.smax.min(low.smax);
            }
            wide.bits = wide.bits.intersect(Tnum {
                value: low.bits.value,
                mask: low.bits.mask | !LOW,
            })?;
            wide = wide.reduce()?;
        }
        Some(Self {
            wide,
            low_u: (low.umin as u32, low.umax as u32),
            low_s: (low.smin as i32, low.smax as i32),
        })
    }

    /// Two-operand arithmetic as the instruction set defines it.
    pub(crate) fn alu(width: Width, op: AluOp, a: Self, b: Self) -> Self {
        if let (Some(a), Some(b)) = (a.known(), b.known()) {
            return Self::constant(dash_bpf::semantics::alu(width, op, a, b));
        }
        match width {
            Width::W32 => Self::of_low(half(op, a.low(), b.low())),
            Width::W64 => {
                if op == AluOp::Mov {
                    return b;
                }
                if op == AluOp::Movsx32 {
                    return Self::signed_low(b);
                }
                let wide = half(op, a.wide, b.wide);
                // The low half of these depends on low halves alone.
                let low = match op {
                    AluOp::Add
                    | AluOp::Sub
                    | AluOp::Mul
                    | AluOp::And
                    | AluOp::Or
                    | AluOp::Xor
                    | AluOp::Movsx8
                    | AluOp::Movsx16 => half(op, a.low(), b.low()),
                    AluOp::Lsh if b.wide.umax < 32 => a.low().lsh(b.low()),
                    _ => Num::UNKNOWN,
                };
                Self::synced(wide, low)
            }
        }
    }

    /// The low half as a signed number of 64 bits.
    fn signed_low(b: Self) -> Self {
        let low = b.low();
        let wide = b.wide.sign_extend(32);
        let ranged = wide.intersect(Num::of_signed(low.smin, low.smax));
        Self::synced(ranged.unwrap_or(wide), low)
    }

    /// Modulo 2^64.
    pub(crate) fn plus(self, n: i64) -> Self {
        Self::alu(Width::W64, AluOp::Add, self, Self::constant(n as u64))
    }

    pub(crate) fn neg(self, width: Width) -> Self {
        match width {
            Width::W32 => Self::of_low(self.low().neg()),
            Width::W64 => Self::synced(self.wide.neg(), self.low().neg()),
        }
    }

    pub(crate) fn endian(self, order: Endian, bits: u8) -> Self {
        if let Some(n) = self.known() {
            return Self::constant(dash_bpf::semantics::endian(order, bits, n));
        }
        let bits = u32::from(bits);
        match order {
            Endian::Le => self.truncate(bits),
            Endian::Be | Endian::Swap => {
                Self::of_wide(Num::of_bits(self.wide.bits.swap_bytes(bits)))
            }
        }
    }

    /// The low bytes as an unsigned number.
    pub(crate) fn truncate(self, bits: u32) -> Self {
        match bits {
            64.. => self,
            32 => Self::of_low(self.low()),
            _ => Self::of_low(self.low().truncate(bits)),
        }
    }

    /// The low bytes as a signed number.
    pub(crate) fn sign_extend(self, size: Size) -> Self {
        match size {
            Size::B => Self::alu(Width::W64, AluOp::Movsx8, Self::constant(0), self),
            Size::H => Self::alu(Width::W64, AluOp::Movsx16, Self::constant(0), self),
            Size::W => Self::signed_low(self),
            Size::Dw => self,
        }
    }

    /// The operands where a comparison holds; `None` where it cannot.
    pub(crate) fn refine(
        width: Width,
        relation: Relation,
        a: Self,
        b: Self,
    ) -> Option<(Self, Self)> {
        match width {
            Width::W64 => {
                let (wide_a, wide_b) = refine(relation, a.wide, b.wide)?;
                let (mut low_a, mut low_b) = (a.low(), b.low());
                if relation == Relation::Eq {
                    (low_a, low_b) = refine(relation, low_a, low_b)?;
                }
                Some((Self::sync(wide_a, low_a)?, Self::sync(wide_b, low_b)?))
            }
            Width::W32 => {
                let (low_a, low_b) = refine(relation, a.low(), b.low())?;
                Some((Self::sync(a.wide, low_a)?, Self::sync(b.wide, low_b)?))
            }
        }
    }
}

fn half<const B: u32>(op: AluOp, a: Num<B>, b: Num<B>) -> Num<B> {
    match op {
        AluOp::Add => a.add(b),
        AluOp::Sub => a.sub(b),
        AluOp::Mul => a.mul(b),
        AluOp::Div => a.div(b),
        AluOp::Sdiv => a.sdiv(b),
        AluOp::Or => a.or(b),
        AluOp::And => a.and(b),
        AluOp::Lsh => a.lsh(b),
        AluOp::Rsh => a.rsh(b),
        AluOp::Mod => a.rem(b),
        AluOp::Smod => a.smod(b),
        AluOp::Xor => a.xor(b),
        AluOp::Mov | AluOp::Movsx32 => b,
        AluOp::Movsx8 => b.sign_extend(8),
        AluOp::Movsx16 => b.sign_extend(16),
        AluOp::Arsh => a.arsh(b),
    }
}
