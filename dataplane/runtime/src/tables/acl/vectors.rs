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
    own: Box<[Own]>,
    /// Words of the vectors that have more than one.
    words: Box<[u64]>,
    /// Rules that accept every value: summary and words, as they are.
    any: (u64, Box<[u64]>),
}

/// Rules of a class that do not accept every value. Nearly all prefixes are of one rule, so that
/// one read tells all.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
pub(super) struct Own {
    summary: u64,
    /// The word, when there is one; where the first is in [`Vectors::words`], when there are more.
    word: u64,
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
        let mut known = HashMap::<Box<[u64]>, u64>::new();
        let (mut own, mut words) = (Vec::new(), Vec::new());
        let mut packed = Vec::new();
        for rules in classes {
            all.fill(0);
            let summary = paint(&mut all, rules);
            packed.clear();
            packed.extend(all.iter().filter(|word| **word != 0));
            let word = match packed[..] {
                [] => 0,
                [word] => word,
                _ => match known.get(&packed[..]) {
                    Some(place) => *place,
                    None => {
                        let place = words.len() as u64;
                        known.insert(packed[..].into(), place);
                        words.extend_from_slice(&packed);
                        place
                    }
                },
            };
            own.push(Own { summary, word });
        }
        Self {
            own: own.into(),
            words: words.into(),
            any,
        }
    }

    /// What a class has of its own.
    #[inline]
    pub(super) fn own(&self, class: u32) -> Own {
        self.own[class as usize]
    }

    /// Words of a class's vector that are not zero.
    #[inline]
    pub(super) fn summary(&self, own: Own) -> u64 {
        own.summary | self.any.0
    }

    /// A word of a class's vector.
    #[inline]
    pub(super) fn word(&self, own: Own, at: u32) -> u64 {
        let any = self.any.1.get(at as usize).copied().unwrap_or(0);
        if own.summary >> at & 1 == 0 {
            return any;
        }
        if own.summary & (own.summary - 1) == 0 {
            return any | own.word;
        }
        let before = (own.summary & ((1 << at) - 1)).count_ones() as usize;
        let word = self.words.get(own.word as usize + before);
        any | word.copied().unwrap_or(0)
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.own) + size_of_val(&*self.words) + size_of_val(&*self.any.1)
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
