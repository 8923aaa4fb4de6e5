//! From a 128-bit number to the interval it lies in, nearly always by one cache line.
//!
//! The space between the first and the last border of all intervals is cut into blocks of equal
//! width, such that eight borders fall in one at most, on average. A block is a line of memory: the
//! borders inside it, counted from its begin, and the class of the numbers before, between and
//! behind them. All borders of a line are compared at once. They are counted in the largest unit
//! that divides them all (2^64 for IPv6 /64s), so that in either family two bytes nearly always do;
//! with four or eight fewer fit. A block with more than fit is a table of its own.

use crate::prefetch::prefetch;

/// How wide a line's borders are, and how many fit: `(bits, most)`.
const FORMS: [(u32, usize); 3] = [(16, 15), (32, 7), (64, 3)];
/// The line is not one: its first two numbers are a table's index.
const TABLE: u8 = FORMS.len() as u8;

/// A block. `C` holds the number of a class.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line<C> {
    /// Borders in the line's form, ascending, low halves first. Behind the last all bits are set.
    starts: [u16; 15],
    /// Index in [`FORMS`], or [`TABLE`].
    form: u8,
    /// Log2 of what borders are counted in.
    shift: u8,
    /// Of numbers before the first border, then from each border on. Behind the last it is repeated.
    classes: [C; 16],
}

#[derive(Clone, Debug)]
struct Table {
    /// The first border.
    base: u128,
    /// Log2 of a block's width, 1 to 127.
    width: u32,
    /// The first line's index.
    first: u32,
    lines: u32,
    /// Class of numbers before the first border.
    below: u32,
    /// Class from the last border on.
    above: u32,
}

impl Table {
    /// Index of a number's line, and how far from the base it is; or the class outside the lines.
    #[inline(always)]
    fn line(&self, number: u128) -> Result<(usize, u128), u32> {
        let Some(distance) = number.checked_sub(self.base) else {
            return Err(self.below);
        };
        let line = distance >> self.width;
        if line >= u128::from(self.lines) {
            return Err(self.above);
        }
        Ok((self.first as usize + line as usize, distance))
    }
}

/// From `start` up to the next border, numbers are of this class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Border {
    pub(super) start: u128,
    pub(super) class: u32,
}

/// Intervals that cover all numbers, each with a class.
#[derive(Debug)]
pub(super) enum Ranges {
    /// Classes below 65,536: a line is a cache line.
    Narrow(Tables<u16>),
    /// A line is two.
    Wide(Tables<u32>),
}

impl Ranges {
    /// Numbers below the first border are of class `below`. Borders ascend.
    pub(super) fn new(below: u32, borders: &[Border]) -> Self {
        let most = borders.iter().map(|b| b.class).fold(below, u32::max);
        if most <= u16::MAX.into() {
            Self::Narrow(Tables::new(below, borders))
        } else {
            Self::Wide(Tables::new(below, borders))
        }
    }

    /// Class of a number.
    #[inline]
    pub(super) fn class(&self, number: u128) -> u32 {
        match self {
            Self::Narrow(tables) => tables.class(number),
            Self::Wide(tables) => tables.class(number),
        }
    }

    /// Asks for the memory that [`class`](Self::class) will read first.
    #[inline]
    pub(super) fn prefetch(&self, number: u128) {
        match self {
            Self::Narrow(tables) => tables.prefetch(number),
            Self::Wide(tables) => tables.prefetch(number),
        }
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Narrow(tables) => tables.memory(),
            Self::Wide(tables) => tables.memory(),
        }
    }
}

/// What holds the number of a class.
pub(super) trait Class: Copy + Default {
    /// The class is small enough for the type.
    fn of(class: u32) -> Self;
    fn number(self) -> u32;
}

impl Class for u16 {
    fn of(class: u32) -> Self {
        class as Self
    }
    #[inline(always)]
    fn number(self) -> u32 {
        self.into()
    }
}

impl Class for u32 {
    fn of(class: u32) -> Self {
        class
    }
    #[inline(always)]
    fn number(self) -> u32 {
        self
    }
}

impl<C: Class> Line<C> {
    fn table(index: usize) -> Self {
        let mut starts = [0; 15];
        (starts[0], starts[1]) = (index as u16, (index >> 16) as u16);
        Self {
            starts,
            form: TABLE,
            shift: 0,
            classes: [C::default(); 16],
        }
    }

    /// A block `width` wide that starts in class `first`, and its borders, counted from its begin.
    /// `None` when they do not fit.
    fn new(width: u32, first: u32, borders: &[(u128, u32)]) -> Option<Self> {
        let or = borders.iter().fold(0, |or, (at, _)| or | at);
        // Where there is no border any unit will do.
        let shift = if or == 0 {
            width - 1
        } else {
            or.trailing_zeros()
        };
        let bits = width - shift;
        let form = FORMS.iter().position(|(most, _)| bits <= *most)?;
        let (_, most) = FORMS[form];
        if borders.len() > most {
            return None;
        }
        let (mut starts, mut classes) = ([u16::MAX; 15], [C::of(first); 16]);
        let each = 1 << form;
        for (n, (at, class)) in borders.iter().enumerate() {
            let at = at >> shift;
            for part in 0..each {
                starts[n * each + part] = (at >> (16 * part)) as u16;
            }
            classes[n + 1..].fill(C::of(*class));
        }
        Some(Self {
            starts,
            form: form as u8,
            shift: shift as u8,
            classes,
        })
    }

    /// Class of a number at a distance from any multiple of the line's width before it.
    #[inline(always)]
    fn class(&self, width: u32, distance: u128) -> u32 {
        let bits = width - u32::from(self.shift);
        let at = (distance >> self.shift) as u64 & (u64::MAX >> (64 - bits));
        let before = if self.form == 0 {
            not_above(&self.starts, at as u16)
        } else {
            self.before(at)
        };
        // At most 15 borders: the mask says so to the compiler.
        self.classes[before & 15].number()
    }

    /// Borders that are not behind a place, in the forms that are seldom.
    #[inline(never)]
    fn before(&self, at: u64) -> usize {
        let (_, most) = FORMS[usize::from(self.form)];
        let starts = self.starts.chunks_exact(1 << self.form).take(most);
        let start = |parts: &[u16]| {
            let parts = parts.iter().rev();
            parts.fold(0, |start, part| start << 16 | u64::from(*part))
        };
        starts.filter(|parts| start(parts) <= at).count()
    }
}

/// How many of 15 ascending numbers are not above `at`.
#[inline(always)]
fn not_above(numbers: &[u16; 15], at: u16) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
            _mm_setzero_si128, _mm_subs_epu16,
        };
        // SAFETY: SSE2 is part of x86-64; the loads are of the numbers 0 to 7 and 7 to 14.
        let above = unsafe {
            let at = _mm_set1_epi16(at.cast_signed());
            let eight = |from: usize| {
                let eight = _mm_loadu_si128(numbers.as_ptr().add(from).cast());
                // Saturating: 0 where the number is not above.
                _mm_cmpeq_epi16(_mm_subs_epu16(eight, at), _mm_setzero_si128())
            };
            _mm_movemask_epi8(_mm_packs_epi16(eight(0), eight(7)))
        };
        // They ascend, so the first that is above ends the count. The one in the middle is twice there.
        let count = above.trailing_ones() as usize;
        count - usize::from(count > 7)
    }
    #[cfg(not(target_arch = "x86_64"))]
    numbers.iter().filter(|number| **number <= at).count()
}

/// Tables and their lines.
#[derive(Debug)]
pub(super) struct Tables<C> {
    /// The first is where a search begins.
    tables: Vec<Table>,
    lines: Vec<Line<C>>,
}

impl<C: Class> Tables<C> {
    fn new(below: u32, borders: &[Border]) -> Self {
        let mut new = Self {
            tables: Vec::new(),
            lines: Vec::new(),
        };
        new.table(below, borders);
        new.tables.shrink_to_fit();
        new.lines.shrink_to_fit();
        new
    }

    /// Adds a table; returns its index.
    fn table(&mut self, below: u32, borders: &[Border]) -> usize {
        let index = self.tables.len();
        let (base, above) = match borders {
            [] => (0, below),
            [first, ..] => (first.start, borders[borders.len() - 1].class),
        };
        let (width, lines) = blocks(base, borders);
        let first = self.lines.len();
        self.tables.push(Table {
            base,
            width,
            first: u32::try_from(first).expect("lines of a group are fewer than 2^32"),
            lines: lines as u32,
            below,
            above,
        });
        self.lines.resize(first + lines, Line::table(0));
        let (mut rest, mut class) = (borders, below);
        let mut inside = Vec::new();
        for line in 0..lines {
            let begin = base + ((line as u128) << width);
            let end = rest.partition_point(|b| (b.start - base) >> width <= line as u128);
            let (here, after) = rest.split_at(end);
            rest = after;
            let (start, borders) = match here {
                [at, borders @ ..] if at.start == begin => (at.class, borders),
                borders => (class, borders),
            };
            inside.clear();
            inside.extend(borders.iter().map(|b| (b.start - begin, b.class)));
            self.lines[first + line] = match Line::new(width, start, &inside) {
                Some(line) => line,
                None => Line::table(self.table(class, here)),
            };
            class = here.last().map_or(class, |b| b.class);
        }
        index
    }

    #[inline(always)]
    fn class(&self, number: u128) -> u32 {
        let table = &self.tables[0];
        match table.line(number) {
            Ok((line, distance)) => {
                let line = &self.lines[line];
                if line.form == TABLE {
                    return self.deeper(line, number);
                }
                line.class(table.width, distance)
            }
            Err(class) => class,
        }
    }

    /// Where one line is not enough.
    #[cold]
    #[inline(never)]
    fn deeper<'a>(&'a self, mut line: &'a Line<C>, number: u128) -> u32 {
        loop {
            let index = u32::from(line.starts[0]) | u32::from(line.starts[1]) << 16;
            let table = &self.tables[index as usize];
            let (next, distance) = match table.line(number) {
                Ok(found) => found,
                Err(class) => return class,
            };
            line = &self.lines[next];
            if line.form != TABLE {
                return line.class(table.width, distance);
            }
        }
    }

    #[inline(always)]
    fn prefetch(&self, number: u128) {
        if let Ok((line, _)) = self.tables[0].line(number) {
            prefetch(self.lines.as_ptr().wrapping_add(line).cast());
        }
    }

    fn memory(&self) -> usize {
        self.tables.capacity() * size_of::<Table>() + self.lines.capacity() * size_of::<Line<C>>()
    }
}

/// Log2 of the width of blocks, and their number, for borders from `base` on.
fn blocks(base: u128, borders: &[Border]) -> (u32, usize) {
    let [_, .., last] = borders else {
        // One border or none: everything is below or above.
        return (1, 0);
    };
    let span = last.start - base;
    let bits = 128 - span.leading_zeros();
    let or = borders.iter().fold(0, |or, b| or | (b.start - base));
    let unit = or.trailing_zeros();
    let width = |most: usize, least: u32| {
        let enough =
            |width: &u32| ((span >> width) as usize + 1) * most.div_ceil(2) >= borders.len();
        (1..=(bits - least).min(127))
            .rev()
            .find(enough)
            .unwrap_or(1)
    };
    for (wide, most) in FORMS {
        // Two blocks at least, unless all fit one.
        let width = width(most, u32::from(borders.len() > most));
        if width.saturating_sub(unit) <= wide {
            return (width, (span >> width) as usize + 1);
        }
    }
    // Borders far from each other. The first and the last part in any case; so tables end.
    let width = width(2, 1);
    (width, (span >> width) as usize + 1)
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
            // What lines of 2 and of 4 bytes are for: networks and hosts of IPv4.
            any::<u16>().prop_map(|n| 10 << 24 | u128::from(n) << 8),
            any::<u32>().prop_map(u128::from),
            // Of 8 bytes: hosts of a network of IPv6.
            any::<u64>().prop_map(|n| 0xfd00 << 112 | u128::from(n)),
            (0u128..300).prop_map(|n| u128::MAX - n),
            (0u128..300).prop_map(|n| 0xfd00 << 112 | n << 64),
        ]
    }

    /// One kind of border, so that lines are full of it, or all kinds.
    fn starts() -> impl Strategy<Value = std::collections::BTreeSet<u128>> {
        prop_oneof![
            prop::collection::btree_set(start(), 0..400),
            prop::collection::btree_set((0u128..4000).prop_map(|n| 10 << 24 | n << 6), 0..400),
            prop::collection::btree_set(any::<u32>().prop_map(u128::from), 0..200),
            prop::collection::btree_set(any::<u64>().prop_map(u128::from), 0..100),
            prop::collection::btree_set(any::<u128>(), 0..100),
        ]
    }

    proptest! {
        #[test]
        fn every_number_is_in_the_interval_of_the_last_border_before_it(
            starts in starts(),
            others in prop::collection::vec(any::<u128>(), 20),
            // From here on classes need more than two bytes.
            first in prop_oneof![Just(1u32), Just(1 << 16)],
        ) {
            let borders: Vec<Border> = starts
                .iter()
                .zip(first..)
                .map(|(&start, class)| Border { start, class })
                .collect();
            let ranges = Ranges::new(0, &borders);
            prop_assert_eq!(matches!(ranges, Ranges::Wide(_)), first > 1 && !borders.is_empty());
            let near = starts.iter().flat_map(|s| [s.wrapping_sub(1), *s, s.wrapping_add(1)]);
            for number in near.chain(others) {
                let want = borders.iter().rev().find(|b| b.start <= number);
                prop_assert_eq!(ranges.class(number), want.map_or(0, |b| b.class), "{:x}", number);
            }
        }
    }
}
