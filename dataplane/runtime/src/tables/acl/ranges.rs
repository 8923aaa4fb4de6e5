//! From a 128-bit number to the interval it lies in, in a few reads.
//!
//! The borders of all intervals are cut into blocks of equal width, about as many as there are
//! borders. A block that no border cuts is its interval's number; one with a few borders is a bucket
//! that is searched from the front; one with many is a table of its own. Numbers inside a table are
//! counted from its first border in the largest unit that divides all distances (256 for IPv4 /24s),
//! so that borders take 4 bytes in either family.

/// A block: [`CLASS`], [`BUCKET`] or [`TABLE`] in the two top bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block(u64);

const KIND: u64 = 3 << 62;
/// The whole block is of the class in the low bits.
const CLASS: u64 = 0;
/// Borders: their number from bit 48 on, the first one's index below.
const BUCKET: u64 = 1 << 62;
/// Index of a table.
const TABLE: u64 = 2 << 62;
/// Most borders of a bucket.
const MOST_BORDERS: usize = 16;

#[derive(Clone, Debug)]
struct Table {
    /// The first border.
    base: u128,
    /// Log2 of what numbers are counted in.
    unit: u32,
    /// Log2 of a block's width, in units.
    width: u32,
    /// The first block's index.
    first: usize,
    blocks: usize,
    /// Class of numbers before the first border.
    below: u32,
    /// Class from the last border on.
    above: u32,
}

/// Intervals that cover all numbers, each with a class.
#[derive(Clone, Debug)]
pub(super) struct Ranges {
    /// The first is where a search begins.
    tables: Vec<Table>,
    blocks: Vec<Block>,
    /// Of all buckets: a number of units in the upper half, the class from there on in the lower.
    borders: Vec<u64>,
}

/// From `start` up to the next border, numbers are of this class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Border {
    pub(super) start: u128,
    pub(super) class: u32,
}

impl Ranges {
    /// Numbers below the first border are of class `below`. Borders ascend.
    pub(super) fn new(below: u32, borders: &[Border]) -> Self {
        let mut new = Self {
            tables: Vec::new(),
            blocks: Vec::new(),
            borders: Vec::new(),
        };
        new.table(below, borders);
        new.blocks.shrink_to_fit();
        new.borders.shrink_to_fit();
        new
    }

    /// Adds a table; returns its index.
    fn table(&mut self, below: u32, borders: &[Border]) -> usize {
        let index = self.tables.len();
        let (Some(first), Some(last)) = (borders.first(), borders.last()) else {
            self.tables.push(Table {
                base: 0,
                unit: 0,
                width: 0,
                first: 0,
                blocks: 0,
                below,
                above: below,
            });
            return index;
        };
        let base = first.start;
        let or = borders.iter().fold(0, |or, b| or | (b.start - base));
        // No distance at all: a single border.
        let unit = if or == 0 { 0 } else { or.trailing_zeros() };
        let span = (last.start - base) >> unit;
        // At least two blocks, so that the first and the last border part; so tables end.
        let blocks_bits = borders.len().ilog2().max(1);
        let width = (128 - span.leading_zeros()).saturating_sub(blocks_bits);
        let blocks = (span >> width) as usize + 1;
        let first = self.blocks.len();
        self.tables.push(Table {
            base,
            unit,
            width,
            first,
            blocks,
            below,
            above: last.class,
        });
        self.blocks.resize(first + blocks, Block(CLASS));

        // Buckets hold 4 bytes of a number.
        let narrow = span <= u128::from(u32::MAX);
        let number = |border: &Border| (border.start - base) >> unit;
        let (mut rest, mut class) = (borders, below);
        for block in 0..blocks {
            let begin = (block as u128) << width;
            let inside = rest.partition_point(|b| number(b) >> width == block as u128);
            let (here, after) = rest.split_at(inside);
            rest = after;
            self.blocks[first + block] = match here {
                [] => Block(CLASS | u64::from(class)),
                [only] if number(only) == begin => Block(CLASS | u64::from(only.class)),
                _ if narrow && here.len() < MOST_BORDERS => {
                    let at = self.borders.len();
                    if number(&here[0]) != begin {
                        self.borders.push((begin as u64) << 32 | u64::from(class));
                    }
                    let packed = |b: &Border| (number(b) as u64) << 32 | u64::from(b.class);
                    self.borders.extend(here.iter().map(packed));
                    let n = self.borders.len() - at;
                    Block(BUCKET | (n as u64) << 48 | at as u64)
                }
                _ => Block(TABLE | self.table(class, here) as u64),
            };
            class = here.last().map_or(class, |b| b.class);
        }
        index
    }

    /// Class of a number.
    #[inline]
    pub(super) fn class(&self, number: u128) -> u32 {
        let mut table = &self.tables[0];
        loop {
            if number < table.base {
                return table.below;
            }
            let at = (number - table.base) >> table.unit;
            let block = at >> table.width;
            if block >= table.blocks as u128 {
                return table.above;
            }
            let Block(block) = self.blocks[table.first + block as usize];
            match block & KIND {
                CLASS => return block as u32,
                BUCKET => {
                    let from = (block & 0xffff_ffff_ffff) as usize;
                    let n = (block >> 48 & 0x3fff) as usize;
                    // Wide tables have no buckets, so the number is one of 4 bytes.
                    let probe = (at as u64) << 32 | 0xffff_ffff;
                    let borders = &self.borders[from..from + n];
                    // The first border is the block's begin: at least that is not above.
                    let mut class = borders[0];
                    for border in &borders[1..] {
                        class = if *border <= probe { *border } else { class };
                    }
                    return class as u32;
                }
                _ => table = &self.tables[(block & !KIND) as usize],
            }
        }
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        self.tables.capacity() * size_of::<Table>()
            + self.blocks.capacity() * size_of::<Block>()
            + self.borders.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::{Border, Ranges};
    use proptest::prelude::*;

    fn start() -> impl Strategy<Value = u128> {
        prop_oneof![
            (0u128..40).prop_map(|n| n << 8),
            (any::<u16>(), 0u32..112).prop_map(|(n, shift)| u128::from(n) << shift),
            (0u32..128).prop_map(|bit| 1u128 << bit),
            any::<u128>(),
            (0u128..300).prop_map(|n| u128::MAX - n),
            (0u128..300).prop_map(|n| 0xfd00 << 112 | n << 64),
        ]
    }

    proptest! {
        #[test]
        fn every_number_is_in_the_interval_of_the_last_border_before_it(
            starts in prop::collection::btree_set(start(), 0..400),
            others in prop::collection::vec(any::<u128>(), 20),
        ) {
            let borders: Vec<Border> = starts
                .iter()
                .zip(1..)
                .map(|(&start, class)| Border { start, class })
                .collect();
            let ranges = Ranges::new(0, &borders);
            let near = starts.iter().flat_map(|s| [s.wrapping_sub(1), *s, s.wrapping_add(1)]);
            for number in near.chain(others) {
                let want = borders.iter().rev().find(|b| b.start <= number);
                prop_assert_eq!(ranges.class(number), want.map_or(0, |b| b.class), "{:x}", number);
            }
        }
    }
}
