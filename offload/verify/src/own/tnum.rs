//! Known bits: for each bit of a number whether it is 0, 1 or unknown.
//!
//! All functions are sound modulo 2^64: whoever works with fewer bits truncates results. The
//! algorithms for sums and products are those of "Sound, Precise, and Fast Abstract Interpretation
//! with Tristate Numbers" (Vishwanathan et al., CGO 2022).

/// Bits of `mask` are unknown, the others are those of `value`; `value & mask == 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tnum {
    pub(crate) value: u64,
    pub(crate) mask: u64,
}

impl Tnum {
    pub(crate) const fn constant(value: u64) -> Self {
        Self { value, mask: 0 }
    }

    /// The leading bits all numbers of a range share.
    pub(crate) fn range(min: u64, max: u64) -> Self {
        let differing = 64 - (min ^ max).leading_zeros();
        let mask = low_bits(differing);
        Self {
            value: min & !mask,
            mask,
        }
    }

    #[cfg(test)]
    pub(crate) fn contains(self, n: u64) -> bool {
        n & !self.mask == self.value
    }

    /// Everything `other` stands for, this stands for too.
    pub(crate) fn includes(self, other: Self) -> bool {
        other.mask & !self.mask == 0 && other.value & !self.mask == self.value
    }

    /// What both say; `None` where they contradict each other.
    pub(crate) fn intersect(self, other: Self) -> Option<Self> {
        if (self.value ^ other.value) & !self.mask & !other.mask != 0 {
            return None;
        }
        let mask = self.mask & other.mask;
        let value = (self.value | other.value) & !mask;
        Some(Self { value, mask })
    }

    pub(crate) fn join(self, other: Self) -> Self {
        let mask = self.mask | other.mask | (self.value ^ other.value);
        let value = self.value & !mask;
        Self { value, mask }
    }

    /// The low `bits` bits, the others 0.
    pub(crate) fn truncate(self, bits: u32) -> Self {
        let keep = low_bits(bits);
        Self {
            value: self.value & keep,
            mask: self.mask & keep,
        }
    }

    /// The low `bits` bits, the others copies of the highest of them.
    pub(crate) fn sign_extend(self, bits: u32) -> Self {
        let by = 64 - bits;
        let extend = |n: u64| (((n << by) as i64) >> by) as u64;
        Self {
            value: extend(self.value),
            mask: extend(self.mask),
        }
    }

    pub(crate) fn add(self, other: Self) -> Self {
        let sum_masks = self.mask.wrapping_add(other.mask);
        let sum_values = self.value.wrapping_add(other.value);
        let carries = sum_masks.wrapping_add(sum_values) ^ sum_values;
        let mask = carries | self.mask | other.mask;
        Self {
            value: sum_values & !mask,
            mask,
        }
    }

    pub(crate) fn sub(self, other: Self) -> Self {
        let difference = self.value.wrapping_sub(other.value);
        let alpha = difference.wrapping_add(self.mask);
        let beta = difference.wrapping_sub(other.mask);
        let mask = (alpha ^ beta) | self.mask | other.mask;
        Self {
            value: difference & !mask,
            mask,
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        let alpha = self.value | self.mask;
        let beta = other.value | other.mask;
        let value = self.value & other.value;
        Self {
            value,
            mask: alpha & beta & !value,
        }
    }

    pub(crate) fn or(self, other: Self) -> Self {
        let value = self.value | other.value;
        Self {
            value,
            mask: (self.mask | other.mask) & !value,
        }
    }

    pub(crate) fn xor(self, other: Self) -> Self {
        let mask = self.mask | other.mask;
        Self {
            value: (self.value ^ other.value) & !mask,
            mask,
        }
    }

    pub(crate) fn mul(self, other: Self) -> Self {
        let (mut a, mut b) = (self, other);
        let product = a.value.wrapping_mul(b.value);
        let mut unknown = Self::constant(0);
        while a.value != 0 || a.mask != 0 {
            if a.value & 1 == 1 {
                unknown = unknown.add(Self {
                    value: 0,
                    mask: b.mask,
                });
            } else if a.mask & 1 == 1 {
                unknown = unknown.add(Self {
                    value: 0,
                    mask: b.value | b.mask,
                });
            }
            a = a.shr(1);
            b = b.shl(1);
        }
        Self::constant(product).add(unknown)
    }

    /// By less than 64.
    pub(crate) fn shl(self, by: u32) -> Self {
        Self {
            value: self.value << by,
            mask: self.mask << by,
        }
    }

    /// By less than 64.
    pub(crate) fn shr(self, by: u32) -> Self {
        Self {
            value: self.value >> by,
            mask: self.mask >> by,
        }
    }

    /// By less than 64, copies of the sign coming in.
    pub(crate) fn sar(self, by: u32) -> Self {
        Self {
            value: ((self.value as i64) >> by) as u64,
            mask: ((self.mask as i64) >> by) as u64,
        }
    }

    /// The bytes of the low `bits` bits (16, 32 or 64) in reverse, the others 0.
    pub(crate) fn swap_bytes(self, bits: u32) -> Self {
        let low = self.truncate(bits);
        Self {
            value: low.value.swap_bytes() >> (64 - bits),
            mask: low.mask.swap_bytes() >> (64 - bits),
        }
    }

    /// Low bits that are certainly 0.
    pub(crate) fn trailing_zeros(self) -> u32 {
        (self.value | self.mask).trailing_zeros()
    }
}

/// A mask of this many low bits, all for 64.
pub(crate) const fn low_bits(bits: u32) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    }
}
