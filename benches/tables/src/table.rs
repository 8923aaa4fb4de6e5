//! Look-ups by address, as compiled programs make them.

#![expect(unsafe_code, reason = "the maps' own look-up takes addresses")]

use std::hint::black_box;
use std::marker::PhantomData;

use dash_runtime::tables::MapOps;
use zerocopy::{Immutable, IntoBytes};

use crate::Pace;

/// A map with keys of type `K`.
#[derive(Clone, Debug)]
pub struct Table<M, K> {
    /// The map.
    pub map: M,
    key: PhantomData<fn(&K)>,
}

impl<M: MapOps, K: IntoBytes + Immutable> Table<M, K> {
    /// A map made for keys of `key_size` bytes.
    ///
    /// # Panics
    /// `K` has another size.
    pub fn new(map: M, key_size: u32) -> Self {
        assert_eq!(size_of::<K>(), key_size as usize, "keys of the map's size");
        Self {
            map,
            key: PhantomData,
        }
    }

    /// Looks all keys up; how many are there.
    pub fn find(&self, keys: &[K], pace: Pace) -> usize {
        let zero = black_box(0usize);
        let (mut found, mut last) = (0, 0usize);
        for n in 0..keys.len() {
            // Not known to be 0, so the next key waits for the last answer.
            let at = match pace {
                Pace::BackToBack => n,
                Pace::OneByOne => n ^ (last & zero),
            };
            // SAFETY: a key of the map's size, as `new` made sure.
            let row = unsafe { self.map.lookup(keys[at].as_bytes().as_ptr()) };
            last = row.addr();
            found += usize::from(!row.is_null());
        }
        found
    }
}
