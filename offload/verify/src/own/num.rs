//! Numbers of a fixed width: known bits and signed and unsigned ranges at once.
//!
//! The width is a parameter, so the code that runs for 32 and 64 bits is the code that tests
//! check exhaustively for few bits. Numbers are kept zero-extended to 64 bits.

use super::tnum::{Tnum, low_bits};

/// A set of `B`-bit numbers: those that satisfy all three descriptions. Never empty, and each
/// description is as narrow as the others make it (`reduce`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Num<const B: u32> {
    pub(crate) bits: Tnum,
    pub(crate) umin: u64,
    pub(crate) umax: u64,
    pub(crate) smin: i64,
    pub(crate) smax: i64,
}

impl<const B: u32> Num<B> {
    pub(crate) const MASK: u64 = low_bits(B);
    const SMIN: i64 = -1 << (B - 1);
    const SMAX: i64 = (Self::MASK >> 1) as i64;

    pub(crate) const UNKNOWN: Self = Self {
        bits: Tnum {
            value: 0,
            mask: Self::MASK,
        },
        umin: 0,
        umax: Self::MASK,
        smin: Self::SMIN,
        smax: Self::SMAX,
    };

    /// The number as signed.
    pub(crate) const fn signed(n: u64) -> i64 {
        ((n << (64 - B)) as i64) >> (64 - B)
    }

    pub(crate) const fn constant(n: u64) -> Self {
        let n = n & Self::MASK;
        Self {
            bits: Tnum::constant(n),
            umin: n,
            umax: n,
            smin: Self::signed(n),
            smax: Self::signed(n),
        }
    }

    pub(crate) fn known(self) -> Option<u64> {
        (self.umin == self.umax).then_some(self.umin)
    }

    #[cfg(test)]
    pub(crate) fn contains(self, n: u64) -> bool {
        self.bits.contains(n)
            && (self.umin..=self.umax).contains(&n)
            && (self.smin..=self.smax).contains(&Self::signed(n))
    }

    pub(crate) fn includes(self, other: Self) -> bool {
        self.umin <= other.umin
            && other.umax <= self.umax
            && self.smin <= other.smin
            && other.smax <= self.smax
            && self.bits.includes(other.bits)
    }

    pub(crate) fn join(self, other: Self) -> Self {
        Self {
            bits: self.bits.join(other.bits),
            umin: self.umin.min(other.umin),
            umax: self.umax.max(other.umax),
            smin: self.smin.min(other.smin),
            smax: self.smax.max(other.smax),
        }
    }

    /// What both say; `None` if no number satisfies both.
    pub(crate) fn intersect(self, other: Self) -> Option<Self> {
        Self {
            bits: self.bits.intersect(other.bits)?,
            umin: self.umin.max(other.umin),
            umax: self.umax.min(other.umax),
            smin: self.smin.max(other.smin),
            smax: self.smax.min(other.smax),
        }
        .reduce()
    }

    /// Numbers whose bits are these.
    pub(crate) fn of_bits(bits: Tnum) -> Self {
        let bits = bits.truncate(B);
        let found = Self {
            bits,
            ..Self::UNKNOWN
        };
        found.or_unknown()
    }

    pub(crate) fn of_unsigned(umin: u64, umax: u64) -> Self {
        let found = Self {
            umin,
            umax,
            ..Self::UNKNOWN
        };
        found.or_unknown()
    }

    pub(crate) fn of_signed(smin: i64, smax: i64) -> Self {
        let found = Self {
            smin,
            smax,
            ..Self::UNKNOWN
        };
        found.or_unknown()
    }

    /// For sets known not to be empty: a contradiction would be a bug here, and then nothing is
    /// claimed.
    fn or_unknown(self) -> Self {
        let reduced = self.reduce();
        debug_assert!(reduced.is_some(), "empty: {self:?}");
        reduced.unwrap_or(Self::UNKNOWN)
    }

    /// Each description made as narrow as the others allow; `None` if nothing satisfies all.
    pub(crate) fn reduce(mut self) -> Option<Self> {
        // Ranges narrow bits and bits narrow ranges; a second round uses what the first found, if anything.
        for _ in 0..2 {
            self.umin = self.umin.max(self.bits.value);
            self.umax = self.umax.min(self.bits.value | self.bits.mask);
            let sign = 1 << (B - 1);
            let lowest = Self::signed(self.bits.value | (self.bits.mask & sign));
            let highest = Self::signed(self.bits.value | (self.bits.mask & !sign));
            self.smin = self.smin.max(lowest);
            self.smax = self.smax.min(highest);
            self.cross()?;
            let bits = self.bits.intersect(Tnum::range(self.umin, self.umax))?;
            if bits == self.bits {
                break;
            }
            self.bits = bits;
        }
        Some(self)
    }

    /// Signed and unsigned ranges narrow each other: the half without and the half with the sign
    /// bit are each an interval of both.
    fn cross(&mut self) -> Option<()> {
        let positive = {
            let lo = self.umin.max(self.smin.max(0) as u64);
            let hi = self.umax.min(Self::SMAX as u64);
            let hi = if self.smax < 0 {
                None
            } else {
                Some(hi.min(self.smax as u64))
            };
            hi.filter(|hi| lo <= *hi).map(|hi| (lo, hi))
        };
        let negative = {
            let first = Self::SMIN as u64 & Self::MASK;
            let lo = self.umin.max(first).max(if self.smin < 0 {
                self.smin as u64 & Self::MASK
            } else {
                first
            });
            let hi = if self.smin >= 0 {
                None
            } else if self.smax < 0 {
                Some(self.umax.min(self.smax as u64 & Self::MASK))
            } else {
                Some(self.umax)
            };
            hi.filter(|hi| lo <= *hi).map(|hi| (lo, hi))
        };
        let (u, s) = match (positive, negative) {
            (None, None) => return None,
            (Some((lo, hi)), None) => ((lo, hi), (lo as i64, hi as i64)),
            (None, Some((lo, hi))) => ((lo, hi), (Self::signed(lo), Self::signed(hi))),
            (Some((lo, top)), Some((bottom, hi))) => ((lo, hi), (Self::signed(bottom), top as i64)),
        };
        (self.umin, self.umax) = u;
        (self.smin, self.smax) = s;
        Some(())
    }

    /// A result of which all three descriptions are right.
    fn of_all(bits: Tnum, (umin, umax): (u64, u64), (smin, smax): (i64, i64)) -> Self {
        let found = Self {
            bits: bits.truncate(B),
            umin,
            umax,
            smin,
            smax,
        };
        found.or_unknown()
    }

    /// The ranges `[lo, hi]` of exact results give modulo 2^B: as they are if both ends wrap
    /// equally often, else nothing.
    fn wrapped_unsigned(lo: i128, hi: i128) -> (u64, u64) {
        if lo >> B == hi >> B {
            (lo as u64 & Self::MASK, hi as u64 & Self::MASK)
        } else {
            (0, Self::MASK)
        }
    }

    fn wrapped_signed(lo: i128, hi: i128) -> (i64, i64) {
        let half = 1i128 << (B - 1);
        if (lo + half) >> B == (hi + half) >> B {
            (Self::signed(lo as u64), Self::signed(hi as u64))
        } else {
            (Self::SMIN, Self::SMAX)
        }
    }

    pub(crate) fn add(self, o: Self) -> Self {
        let u = |n: u64| i128::from(n);
        let s = |n: i64| i128::from(n);
        Self::of_all(
            self.bits.add(o.bits),
            Self::wrapped_unsigned(u(self.umin) + u(o.umin), u(self.umax) + u(o.umax)),
            Self::wrapped_signed(s(self.smin) + s(o.smin), s(self.smax) + s(o.smax)),
        )
    }

    pub(crate) fn sub(self, o: Self) -> Self {
        let u = |n: u64| i128::from(n);
        let s = |n: i64| i128::from(n);
        Self::of_all(
            self.bits.sub(o.bits),
            Self::wrapped_unsigned(u(self.umin) - u(o.umax), u(self.umax) - u(o.umin)),
            Self::wrapped_signed(s(self.smin) - s(o.smax), s(self.smax) - s(o.smin)),
        )
    }

    pub(crate) fn neg(self) -> Self {
        Self::constant(0).sub(self)
    }

    pub(crate) fn mul(self, o: Self) -> Self {
        let unsigned = {
            let lo = u128::from(self.umin) * u128::from(o.umin);
            let hi = u128::from(self.umax) * u128::from(o.umax);
            if lo >> B == hi >> B {
                (lo as u64 & Self::MASK, hi as u64 & Self::MASK)
            } else {
                (0, Self::MASK)
            }
        };
        let s = |n: i64| i128::from(n);
        let corners = [
            s(self.smin) * s(o.smin),
            s(self.smin) * s(o.smax),
            s(self.smax) * s(o.smin),
            s(self.smax) * s(o.smax),
        ];
        let lo = corners.into_iter().min().unwrap_or(i128::MIN);
        let hi = corners.into_iter().max().unwrap_or(i128::MAX);
        let bits = self.bits.mul(o.bits);
        Self::of_all(bits, unsigned, Self::wrapped_signed(lo, hi))
    }

    pub(crate) fn and(self, o: Self) -> Self {
        let unsigned = (0, self.umax.min(o.umax));
        Self::of_all(self.bits.and(o.bits), unsigned, (Self::SMIN, Self::SMAX))
    }

    pub(crate) fn or(self, o: Self) -> Self {
        let unsigned = (self.umin.max(o.umin), Self::MASK);
        Self::of_all(self.bits.or(o.bits), unsigned, (Self::SMIN, Self::SMAX))
    }

    pub(crate) fn xor(self, o: Self) -> Self {
        Self::of_bits(self.bits.xor(o.bits))
    }

    /// Smallest and largest amount by which a shift by this shifts.
    fn amounts(self) -> (u32, u32) {
        match self.known() {
            Some(by) => {
                let by = (by % u64::from(B)) as u32;
                (by, by)
            }
            None if self.umax < u64::from(B) => (self.umin as u32, self.umax as u32),
            None => (0, B - 1),
        }
    }

    pub(crate) fn lsh(self, o: Self) -> Self {
        let (least, most) = o.amounts();
        let bits = if least == most {
            self.bits.shl(least)
        } else {
            let zeros = self.bits.trailing_zeros().min(63) + least;
            Tnum {
                value: 0,
                mask: u64::MAX.checked_shl(zeros).unwrap_or(0),
            }
        };
        let (lo, hi) = (
            i128::from(self.umin) << least,
            u128::from(self.umax) << most,
        );
        let unsigned = if hi <= u128::from(Self::MASK) {
            (lo as u64, hi as u64)
        } else {
            (0, Self::MASK)
        };
        let (smin, smax) = (i128::from(self.smin), i128::from(self.smax));
        let lo = smin << if smin < 0 { most } else { least };
        let hi = smax << if smax < 0 { least } else { most };
        let signed = if lo >= i128::from(Self::SMIN) && hi <= i128::from(Self::SMAX) {
            (lo as i64, hi as i64)
        } else {
            (Self::SMIN, Self::SMAX)
        };
        Self::of_all(bits, unsigned, signed)
    }

    pub(crate) fn rsh(self, o: Self) -> Self {
        let (least, most) = o.amounts();
        let (lo, hi) = (self.umin >> most, self.umax >> least);
        if least == most {
            let bits = self.bits.shr(least);
            Self::of_all(bits, (lo, hi), (Self::SMIN, Self::SMAX))
        } else {
            Self::of_unsigned(lo, hi)
        }
    }

    pub(crate) fn arsh(self, o: Self) -> Self {
        let (least, most) = o.amounts();
        let lo = self.smin >> if self.smin < 0 { least } else { most };
        let hi = self.smax >> if self.smax < 0 { most } else { least };
        if least == most {
            let bits = self.bits.sign_extend(B).sar(least);
            Self::of_all(bits, (0, Self::MASK), (lo, hi))
        } else {
            Self::of_signed(lo, hi)
        }
    }

    /// A quotient by zero is 0.
    pub(crate) fn div(self, o: Self) -> Self {
        if o.umax == 0 {
            return Self::constant(0);
        }
        let largest = self.umax / o.umin.max(1);
        let smallest = if o.umin == 0 { 0 } else { self.umin / o.umax };
        Self::of_unsigned(smallest, largest)
    }

    /// A remainder by zero is the dividend.
    pub(crate) fn rem(self, o: Self) -> Self {
        if o.umax == 0 || self.umax < o.umin {
            return self;
        }
        if o.umin == 0 {
            return Self::of_unsigned(0, self.umax);
        }
        Self::of_unsigned(0, self.umax.min(o.umax - 1))
    }

    pub(crate) fn sdiv(self, o: Self) -> Self {
        match o.known().map(Self::signed) {
            Some(0) => Self::constant(0),
            // The smallest number by -1 is itself, as with negation.
            Some(-1) => self.neg(),
            Some(by) => {
                let (a, b) = (self.smin / by, self.smax / by);
                Self::of_signed(a.min(b), a.max(b))
            }
            None => {
                let size = self.smin.unsigned_abs().max(self.smax.unsigned_abs());
                let lo = (-i128::from(size)).max(i128::from(Self::SMIN));
                let hi = i128::from(size).min(i128::from(Self::SMAX));
                Self::of_signed(lo as i64, hi as i64)
            }
        }
    }

    pub(crate) fn smod(self, o: Self) -> Self {
        // The sign is the dividend's; by zero it stays as it is.
        let (mut lo, mut hi) = (self.smin.min(0), self.smax.max(0));
        if let Some(by) = o.known().map(Self::signed).filter(|by| *by != 0) {
            let most = (by.unsigned_abs() - 1).min(Self::SMAX as u64) as i64;
            if -most <= self.smin && self.smax <= most {
                return self;
            }
            lo = lo.max(-most);
            hi = hi.min(most);
        }
        Self::of_signed(lo, hi)
    }

    /// The low `bits` bits as an unsigned number.
    pub(crate) fn truncate(self, bits: u32) -> Self {
        let mask = low_bits(bits);
        if self.umax <= mask {
            return self;
        }
        let unsigned = if bits < 64 && self.umin >> bits == self.umax >> bits {
            (self.umin & mask, self.umax & mask)
        } else {
            (0, mask)
        };
        let known = self.bits.truncate(bits);
        Self::of_all(known, unsigned, (Self::SMIN, Self::SMAX))
    }

    /// The low `bits` bits as a signed number.
    pub(crate) fn sign_extend(self, bits: u32) -> Self {
        let (lowest, highest) = (-1i64 << (bits - 1), (low_bits(bits) >> 1) as i64);
        if lowest <= self.smin && self.smax <= highest {
            return self;
        }
        let known = self.bits.sign_extend(bits);
        Self::of_all(known, (0, Self::MASK), (lowest, highest))
    }
}
