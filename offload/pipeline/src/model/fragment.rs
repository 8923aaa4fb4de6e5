//! First fragments, for those that follow (DASH reference 4.8).

use std::collections::BTreeMap;

use dash_wire::tables::{FRAGMENT_NS, FragmentKey};
use zerocopy::IntoBytes;

/// What later fragments lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct First {
    pub(super) sport: [u8; 2],
    pub(super) dport: [u8; 2],
    pub(super) proto: u8,
}

/// First fragments of the last second.
#[derive(Default)]
pub(super) struct Fragments(BTreeMap<[u8; size_of::<FragmentKey>()], (u64, First)>);

fn bytes(key: &FragmentKey) -> [u8; size_of::<FragmentKey>()] {
    let mut bytes = [0; size_of::<FragmentKey>()];
    bytes.copy_from_slice(key.as_bytes());
    bytes
}

impl Fragments {
    pub(super) fn remember(&mut self, key: &FragmentKey, first: First, now_ns: u64) {
        self.0.retain(|_, (expires, _)| *expires > now_ns);
        self.0.insert(bytes(key), (now_ns + FRAGMENT_NS, first));
    }

    /// What the first said; the last ends it.
    pub(super) fn recall(&mut self, key: &FragmentKey, last: bool, now_ns: u64) -> Option<First> {
        let key = bytes(key);
        let (_, first) = self
            .0
            .get(&key)
            .copied()
            .filter(|(expires, _)| *expires > now_ns)?;
        if last {
            self.0.remove(&key);
        }
        Some(first)
    }
}
