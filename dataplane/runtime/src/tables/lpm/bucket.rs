//! Few prefixes in one block of memory, looked at one by one.
//!
//! A branch takes 64 bytes and more however few prefixes are below it, and route tables are thin at
//! their ends: most of their /16s hold one or two routes. So up to [`MOST`] prefixes of which at most
//! [`BITS`] bits are left to compare stand side by side, shortest first: a look-up compares all of
//! them, without a branch on what it finds, and the last that holds the address is the longest.

use std::alloc::Layout;

use super::block;
use super::leaf::Leaf;
use super::node::{ALIGN, Common, Node, Rest};

/// Most prefixes of a bucket.
pub(super) const MOST: usize = 8;
/// Most bits of each, after those of the branches above.
pub(super) const BITS: u32 = u32::BITS;

/// What is left of a prefix below the branches above: 1 bit or more.
pub(super) struct Tail {
    /// From the most significant bit; what is behind `bits` says nothing.
    pub(super) rest: u128,
    pub(super) bits: u32,
    pub(super) leaf: Leaf,
}

/// Start of a bucket's block. The leaves of its prefixes follow, then their bits as a `u32`, zeros
/// behind, then the numbers of bits as a byte: three lists in one order, by number and then by bits.
#[repr(C, align(16))]
pub(super) struct Bucket {
    pub(super) common: Common,
}

/// Whether these may be a bucket.
pub(super) fn fits(tails: &[Tail]) -> bool {
    tails.len() <= MOST && tails.iter().all(|tail| tail.bits <= BITS)
}

/// A bucket of prefixes that are all different. They fit.
pub(super) fn new(mut tails: Vec<Tail>) -> Node {
    assert!(fits(&tails) && !tails.is_empty(), "too much for a bucket");
    tails.sort_unstable_by_key(|tail| (tail.bits, bits_of(tail.rest, tail.bits)));
    let len = tails.len();
    let block = block::new(layout(len));
    // SAFETY: the block is laid out for the head and `len` leaves, bits and numbers of bits.
    unsafe {
        block.cast().write(Bucket {
            common: Common::new(std::ptr::null_mut(), [len as u8, 0, 0, 0]),
        });
        let lists = Lists::of(block.as_ptr(), len);
        for (n, tail) in tails.into_iter().enumerate() {
            lists.bits.add(n).write(bits_of(tail.rest, tail.bits));
            lists.lens.add(n).write(tail.bits as u8);
            lists.leaves.add(n).write(tail.leaf);
        }
        Node::of_bucket(block)
    }
}

/// The first `bits` (1 to [`BITS`]) bits, zeros behind.
fn bits_of(rest: u128, bits: u32) -> u32 {
    (rest >> 96) as u32 & u32::MAX << (BITS - bits)
}

fn layout(len: usize) -> Layout {
    let each = size_of::<Leaf>() + size_of::<u32>() + size_of::<u8>();
    Layout::from_size_align(size_of::<Bucket>() + len * each, ALIGN).expect("a bucket is small")
}

/// Where the lists of a bucket's block are.
struct Lists {
    leaves: *mut Leaf,
    bits: *mut u32,
    lens: *mut u8,
}

impl Lists {
    /// # Safety
    /// `block` is a bucket's block of `len` prefixes.
    #[inline(always)]
    unsafe fn of(block: *mut u8, len: usize) -> Self {
        // SAFETY: the lists follow the head in the same block.
        unsafe {
            let leaves: *mut Leaf = block.add(size_of::<Bucket>()).cast();
            let bits: *mut u32 = leaves.add(len).cast();
            let lens = bits.add(len).cast();
            Self { leaves, bits, lens }
        }
    }
}

impl Bucket {
    /// Prefixes, one at least.
    pub(super) fn len(&self) -> usize {
        self.common.small[0].into()
    }

    pub(super) fn layout(&self) -> Layout {
        layout(self.len())
    }

    fn lists(&self) -> Lists {
        let block = std::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: buckets are made by `new` alone.
        unsafe { Lists::of(block, self.len()) }
    }

    pub(super) fn leaves(&self) -> &[Leaf] {
        // SAFETY: `new` wrote as many leaves, and nobody writes them again.
        unsafe { std::slice::from_raw_parts(self.lists().leaves, self.len()) }
    }

    fn bits(&self) -> &[u32] {
        // SAFETY: as for the leaves.
        unsafe { std::slice::from_raw_parts(self.lists().bits, self.len()) }
    }

    fn lens(&self) -> &[u8] {
        // SAFETY: as for the leaves.
        unsafe { std::slice::from_raw_parts(self.lists().lens, self.len()) }
    }

    /// Its prefixes, which keep their rows.
    pub(super) fn tails(&self) -> Vec<Tail> {
        let parts = self.bits().iter().zip(self.lens()).zip(self.leaves());
        parts
            .map(|((bits, len), leaf)| Tail {
                rest: u128::from(*bits) << 96,
                bits: u32::from(*len),
                leaf: leaf.clone(),
            })
            .collect()
    }

    /// The row of exactly this prefix.
    pub(super) fn exact(&self, rest: u128, bits: u32) -> Option<&Leaf> {
        if bits > BITS {
            return None;
        }
        let wanted = (bits_of(rest, bits), bits as u8);
        let mut known = self.bits().iter().zip(self.lens());
        let at = known.position(|(bits, len)| (*bits, *len) == wanted)?;
        self.leaves().get(at)
    }
}

/// Address of the row of the longest prefix that holds `rest`, else the bucket's best, else `best`.
///
/// # Safety
/// `block` is a live bucket's.
#[inline(always)]
pub(super) unsafe fn find(block: *const u8, rest: impl Rest, best: *mut u8) -> *mut u8 {
    let wanted = (rest.first() >> 32) as u32;
    // SAFETY: the caller's; each index is below the number of prefixes.
    unsafe {
        let bucket = &*block.cast::<Bucket>();
        let own = bucket.common.best();
        let mut best = if own.is_null() { best } else { own };
        let len = bucket.len();
        let lists = Lists::of(block.cast_mut(), len);
        for n in 0..len {
            // Numbers of bits are 1 to 32, so that the shift is below 32.
            let other = (wanted ^ *lists.bits.add(n)) >> (BITS - u32::from(*lists.lens.add(n)));
            let row = (*lists.leaves.add(n)).addr();
            best = if other == 0 { row } else { best };
        }
        best
    }
}
