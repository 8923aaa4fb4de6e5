//! A cache line of the index: twelve rows, and a byte of each one's hash to tell which to look at.

/// Rows of a bucket.
pub(super) const ROWS: usize = 12;
/// Bits of a match that stand for rows.
const ALL: u32 = (1 << ROWS) - 1;

/// Twelve rows. A row whose tag is 0 is free.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// By row; the last four are 0 always, so that one load of 16 bytes brings all.
    tags: [u8; 16],
    rows: [u32; ROWS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    /// Bit n is set where row n has this tag.
    #[inline]
    pub(super) fn with(&self, tag: u8) -> u32 {
        debug_assert_ne!(tag, 0);
        equal(&self.tags, tag) & ALL
    }

    /// The first free row.
    #[inline]
    pub(super) fn free(&self) -> Option<usize> {
        let free = equal(&self.tags, 0) & ALL;
        (free != 0).then(|| free.trailing_zeros() as usize)
    }

    /// Bit n is set where row n is in use.
    pub(super) fn used(&self) -> u32 {
        !equal(&self.tags, 0) & ALL
    }

    pub(super) fn row(&self, at: usize) -> u32 {
        self.rows[at]
    }

    pub(super) fn row_mut(&mut self, at: usize) -> &mut u32 {
        &mut self.rows[at]
    }

    pub(super) fn tag(&self, at: usize) -> u8 {
        self.tags[at]
    }

    pub(super) fn set(&mut self, at: usize, tag: u8, row: u32) {
        self.tags[at] = tag;
        self.rows[at] = row;
    }

    pub(super) fn clear(&mut self, at: usize) {
        self.tags[at] = 0;
    }
}

/// The numbers of the bits that are set.
pub(super) fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (set != 0).then(|| {
            let at = set.trailing_zeros() as usize;
            set &= set - 1;
            at
        })
    })
}

/// Bit n is set where byte n equals `byte`.
#[inline]
fn equal(bytes: &[u8; 16], byte: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8,
        };
        // SAFETY: SSE2 is part of x86-64; the load is of the 16 bytes of the reference.
        unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8))) as u32
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    equal_in_words(bytes, byte)
}

/// [`equal`] without vector instructions.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn equal_in_words(bytes: &[u8; 16], byte: u8) -> u32 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let word = |bytes: [u8; 8]| {
        let differ = u64::from_le_bytes(bytes) ^ (u64::from(byte) * 0x0101_0101_0101_0101);
        // The top bit of each byte that is 0: no carry leaves a byte.
        let zero = !(((differ & LOW) + LOW) | differ | LOW);
        // Bits 7, 15, .. 63 gathered into the top byte.
        ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
    };
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
    word([a, b, c, d, e, f, g, h]) | word([i, j, k, l, m, n, o, p]) << 8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_are_found_alike_in_every_way(bytes in prop::array::uniform16(0u8..4), byte in 0u8..4) {
            let plain = (0..16).filter(|&n| bytes[n] == byte).fold(0, |set, n| set | 1 << n);
            prop_assert_eq!(super::equal(&bytes, byte), plain);
            prop_assert_eq!(super::equal_in_words(&bytes, byte), plain);
        }

        #[test]
        fn any_bytes_too(bytes in any::<[u8; 16]>(), nth in 0usize..16) {
            let byte = bytes[nth];
            prop_assert_eq!(super::equal(&bytes, byte), super::equal_in_words(&bytes, byte));
        }
    }
}
