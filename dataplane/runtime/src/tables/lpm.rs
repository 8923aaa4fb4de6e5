//! Longest-prefix match with the semantics of Linux's `LPM_TRIE`.
//!
//! A key is a `u32` prefix length in native order and then the bits, most significant first. One
//! hash table for each length that is present, tried from the longest: a look-up costs one probe a
//! length, a change costs what a change of [`PolicyHash`] costs, whatever the number of routes.
//! Real route tables have few lengths; a table with all 129 of them is slow, not wrong.

use std::sync::Arc;

use dash_bpf::MapDef;

use super::policy_hash::PolicyHash;
use super::{MAX_KEY, MapOps};

const LEN: usize = size_of::<u32>();

/// Rows whose prefixes have one length.
#[derive(Clone, Debug)]
struct Level {
    bits: u32,
    table: Arc<PolicyHash>,
}

/// A longest-prefix table that shares what is equal with its clones.
#[derive(Clone, Debug)]
pub struct Lpm {
    /// Bytes of a key after the length.
    data: usize,
    value: usize,
    entries: usize,
    /// Longest first; none is empty.
    levels: Vec<Level>,
    len: usize,
}

impl Lpm {
    /// An empty table. `def.key_size` is 5 to [`MAX_KEY`].
    pub fn new(def: &MapDef) -> Self {
        let key = def.key_size as usize;
        assert!(key > LEN && key <= MAX_KEY, "keys of {key} bytes");
        Self {
            data: key - LEN,
            value: def.value_size as usize,
            entries: def.max_entries as usize,
            levels: Vec::new(),
            len: 0,
        }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Length and bits of a key, `None` when the length is more than the bits there are.
    fn split<'a>(&self, key: &'a [u8]) -> Option<(u32, &'a [u8])> {
        let (bits, data) = key.split_first_chunk::<LEN>()?;
        let bits = u32::from_ne_bytes(*bits);
        (bits as usize <= self.data * 8 && data.len() == self.data).then_some((bits, data))
    }

    fn find(&self, key: &[u8]) -> Option<*mut u8> {
        let (most, data) = self.split(key)?;
        let mut masked = [0; MAX_KEY];
        let masked = &mut masked[..self.data];
        masked.copy_from_slice(data);
        // From longer to shorter, so the same copy is masked further and further.
        self.levels
            .iter()
            .filter(|level| level.bits <= most)
            .find_map(|level| {
                mask(masked, level.bits);
                level.table.find(masked)
            })
    }

    /// Copy of the value of the longest prefix that holds `key`'s bits.
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.find(key)?;
        // SAFETY: a value of `self.value` bytes inside a shard that `self` keeps; rows are written
        // only through `&mut self`.
        Some(unsafe { std::slice::from_raw_parts(value, self.value) }.to_vec())
    }

    /// Where the level of a length is, or would be.
    fn level(&self, bits: u32) -> Result<usize, usize> {
        self.levels.binary_search_by(|level| bits.cmp(&level.bits))
    }

    /// Inserts or replaces a prefix; false (unchanged) when its length is more than its bits.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> bool {
        let Some((bits, data)) = self.split(key) else {
            return false;
        };
        let mut masked = data.to_vec();
        mask(&mut masked, bits);
        let at = self.level(bits).unwrap_or_else(|at| {
            let table = Arc::new(PolicyHash::with_shape(self.data, self.value, self.entries));
            self.levels.insert(at, Level { bits, table });
            at
        });
        let new = Arc::make_mut(&mut self.levels[at].table).put(&masked, value);
        self.len += usize::from(new);
        true
    }

    /// Removes exactly this prefix; false when absent.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some((bits, data)) = self.split(key) else {
            return false;
        };
        let Ok(at) = self.level(bits) else {
            return false;
        };
        let mut masked = data.to_vec();
        mask(&mut masked, bits);
        let table = &mut self.levels[at].table;
        if table.find(&masked).is_none() {
            return false;
        }
        Arc::make_mut(table).remove(&masked);
        if table.is_empty() {
            self.levels.remove(at);
        }
        self.len -= 1;
        true
    }
}

/// Clears all bits from bit `bits` on.
fn mask(data: &mut [u8], bits: u32) {
    let (whole, part) = (bits as usize / 8, bits % 8);
    if let Some(byte) = data.get_mut(whole) {
        *byte &= !(0xff >> part);
        data[whole + 1..].fill(0);
    }
}

// SAFETY: values are inside shards that the table keeps.
unsafe impl MapOps for Lpm {
    unsafe fn lookup(&self, key: *const u8) -> *mut u8 {
        // SAFETY: `key_size` readable bytes by contract; nothing is written in this call.
        let key = unsafe { std::slice::from_raw_parts(key, LEN + self.data) };
        self.find(key).unwrap_or(std::ptr::null_mut())
    }
}
