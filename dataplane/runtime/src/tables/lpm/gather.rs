//! Prefixes to nodes, and nodes back to prefixes where few are left.

use std::collections::BTreeMap;

use super::bucket::{self, Tail};
use super::node::{MOST_SKIP, Node, Parts, Rest, code};

/// A node of prefixes that are all different, one at least: a bucket where they fit.
pub(super) fn gather(tails: Vec<Tail>) -> Node {
    if bucket::fits(&tails) {
        return bucket::new(tails);
    }
    let first = tails.first().map_or(0, |tail| tail.rest.first());
    let differ = tails
        .iter()
        .fold(0, |all, t| all | (t.rest.first() ^ first));
    // The byte in which the shortest ends: what is skipped is whole bytes of all.
    let shortest = tails.iter().map(|tail| (tail.bits - 1) / 8).min();
    let last = shortest.map_or(0, |byte| byte as usize);
    let skip_len = (differ.leading_zeros() as usize / 8)
        .min(last)
        .min(MOST_SKIP);
    let mut parts = Parts::new(first & !(u64::MAX >> (skip_len * 8)), skip_len);
    let mut below: BTreeMap<u8, Vec<Tail>> = BTreeMap::new();
    for tail in tails {
        let (rest, bits) = (tail.rest.after(skip_len), tail.bits - skip_len as u32 * 8);
        let byte = (rest >> 120) as u8;
        if bits <= 8 {
            parts.locals.push((code(byte, bits), tail.leaf));
        } else {
            below.entry(byte).or_default().push(Tail {
                rest: rest.after(1),
                bits: bits - 8,
                leaf: tail.leaf,
            });
        }
    }
    parts.locals.sort_unstable_by_key(|(code, _)| *code);
    parts.children = below
        .into_iter()
        .map(|(byte, t)| (byte, gather(t)))
        .collect();
    parts.build()
}

impl Node {
    /// All prefixes below, if they are at most `most`.
    pub(super) fn few(&self, most: usize) -> Option<Vec<Tail>> {
        if let Some(bucket) = self.bucket() {
            return (bucket.len() <= most).then(|| bucket.tails());
        }
        if self.codes().len() + self.children() > most {
            return None;
        }
        let (skip, skip_len) = self.skip();
        let (skip, skip_len) = (u128::from(skip) << 64, skip_len as u32 * 8);
        let mut tails = Vec::new();
        for (code, leaf) in self.codes().iter().zip(self.leaves()) {
            let bits = code.ilog2();
            let byte = u128::from(*code) << (8 - bits) & 0xff;
            tails.push(Tail {
                rest: skip | byte << (120 - skip_len),
                bits: skip_len + bits,
                leaf: leaf.clone(),
            });
        }
        for byte in 0..=255 {
            let Some(child) = self.child(byte) else {
                continue;
            };
            let above = skip | u128::from(byte) << (120 - skip_len);
            for tail in child.few(most.checked_sub(tails.len())?)? {
                tails.push(Tail {
                    rest: above | tail.rest >> (skip_len + 8),
                    bits: skip_len + 8 + tail.bits,
                    leaf: tail.leaf,
                });
            }
        }
        Some(tails)
    }
}
