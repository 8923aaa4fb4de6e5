//! Bit vectors of rules, stored without their zero words.
//!
//! A vector over up to 4,096 rules is a summary, one bit for each of its 64 words that is not zero,
//! and then those words. Rules that accept every value of a field are bits of one vector of their
//! own and in no other. So the AND of several vectors reads their summaries and then only words
//! that are not zero in all of them, and memory is in proportion to what rules list.

use std::collections::HashMap;

/// Most rules of a vector.
pub(super) const RULES: usize = 64 * 64;

/// The vectors of a field, by class.
#[derive(Debug)]
pub(super) struct Vectors {
    /// Where the vector of each class is in `words`.
    at: Box<[u32]>,
    /// Vectors: the summary, then the words it names.
    words: Box<[u64]>,
    /// Rules that accept every value: summary and words, as they are.
    any: (u64, Box<[u64]>),
}

/// The vector of a class, with the rules that accept everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vector<'a> {
    any: &'a [u64],
    own: u64,
    words: &'a [u64],
    /// Words that are not zero.
    pub(super) summary: u64,
}

impl Vectors {
    /// From the rules that accept everything, and for each class those of the others that accept it.
    pub(super) fn new<R: Iterator<Item = usize>>(
        any: impl Iterator<Item = usize>,
        classes: impl Iterator<Item = R>,
    ) -> Self {
        let mut all = [0u64; 64];
        let any_summary = paint(&mut all, any);
        let used = 64 - any_summary.leading_zeros() as usize;
        let any = (any_summary, all[..used].into());
        let mut known = HashMap::<Box<[u64]>, u32>::new();
        let (mut at, mut words) = (Vec::new(), Vec::new());
        let mut packed = Vec::new();
        for rules in classes {
            all.fill(0);
            packed.clear();
            packed.push(paint(&mut all, rules));
            packed.extend(all.iter().filter(|word| **word != 0));
            let place = match known.get(&packed[..]) {
                Some(place) => *place,
                None => {
                    let place = u32::try_from(words.len()).expect("less than 32 GB of vectors");
                    known.insert(packed[..].into(), place);
                    words.extend_from_slice(&packed);
                    place
                }
            };
            at.push(place);
        }
        Self {
            at: at.into(),
            words: words.into(),
            any,
        }
    }

    #[inline]
    pub(super) fn of(&self, class: u32) -> Vector<'_> {
        let (own, words) = match self.words.get(self.at[class as usize] as usize..) {
            Some([own, words @ ..]) => (*own, words),
            _ => (0, &[][..]),
        };
        Vector {
            any: &self.any.1,
            own,
            words,
            summary: own | self.any.0,
        }
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.at) + size_of_val(&*self.words) + size_of_val(&*self.any.1)
    }
}

impl Vector<'_> {
    /// A word of the vector.
    #[inline]
    pub(super) fn word(&self, at: u32) -> u64 {
        let any = self.any.get(at as usize).copied().unwrap_or(0);
        if self.own >> at & 1 == 0 {
            return any;
        }
        let before = (self.own & ((1 << at) - 1)).count_ones() as usize;
        any | self.words.get(before).copied().unwrap_or(0)
    }
}

fn paint(all: &mut [u64; 64], rules: impl Iterator<Item = usize>) -> u64 {
    let mut summary = 0;
    for rule in rules {
        all[rule / 64] |= 1 << (rule % 64);
        summary |= 1 << (rule / 64);
    }
    summary
}
