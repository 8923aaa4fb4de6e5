//! The hash table of policy: immutable once published, cheap to change a copy of.
//!
//! Two levels of pointers over small shards of open addressing. A clone copies the top level only
//! (at most 256 pointers); writing a row copies one group of pointers and one shard, about 16 KB,
//! the first time a transaction comes there and nothing after that. So a row costs the same among
//! 8 million as among 800, and what was published is never touched: readers need no lock.
//!
//! A shard holds 256 rows on average when the table is full, is at most 7/8 full and grows by half.
//! A CA-to-PA mapping (32 bytes) then takes 38 to 58 bytes, pointers included.

use std::sync::Arc;

use dash_bpf::MapDef;

use super::hash::HashKey;
use super::probe::{Probe, Shape};
use super::{MAX_KEY, MapOps};

const ROWS_A_SHARD: usize = 256;
const MOST_SHARD_BITS: u32 = 16;

type Group = Box<[Option<Arc<Probe>>]>;

/// A hash table that shares what is equal with its clones.
#[derive(Clone, Debug)]
pub struct PolicyHash {
    shape: Shape,
    hasher: &'static HashKey,
    top: Box<[Option<Arc<Group>>]>,
    group_bits: u32,
    shard_bits: u32,
    len: usize,
}

impl PolicyHash {
    /// An empty table. `def.key_size` is at most [`MAX_KEY`].
    pub fn new(def: &MapDef) -> Self {
        Self::with_shape(
            def.key_size as usize,
            def.value_size as usize,
            def.max_entries as usize,
        )
    }

    /// An empty table whose shards suit `entries` rows.
    pub(super) fn with_shape(key: usize, value: usize, entries: usize) -> Self {
        assert!(key <= MAX_KEY, "keys of {key} bytes");
        let shards = entries.div_ceil(ROWS_A_SHARD).max(1).next_power_of_two();
        let shard_bits = shards.trailing_zeros().min(MOST_SHARD_BITS);
        let group_bits = shard_bits / 2;
        Self {
            shape: Shape { key, value },
            hasher: HashKey::process(),
            top: vec![None; 1 << (shard_bits - group_bits)].into_boxed_slice(),
            group_bits,
            shard_bits,
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

    /// Group and shard in it: the hash's top bits, which slots and tags do not use.
    fn place(&self, hash: u64) -> (usize, usize) {
        let shard = (hash >> 48) as usize >> (16 - self.shard_bits);
        (
            shard >> self.group_bits,
            shard & ((1 << self.group_bits) - 1),
        )
    }

    fn shard(&self, hash: u64) -> Option<&Probe> {
        let (group, shard) = self.place(hash);
        self.top[group].as_ref()?[shard].as_deref()
    }

    /// Address of the value of `key`.
    #[inline]
    pub(super) fn find(&self, key: &[u8]) -> Option<*mut u8> {
        let hash = self.hasher.hash(key);
        let shard = self.shard(hash)?;
        shard.find(hash, key).map(|slot| shard.value(slot))
    }

    /// Copy of the value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.find(key)?;
        // SAFETY: a value is `shape.value` bytes inside a shard that `self` keeps, and rows of a
        // policy table are written only through `&mut self`.
        Some(unsafe { std::slice::from_raw_parts(value, self.shape.value) }.to_vec())
    }

    /// The place of a shard, its group a private copy.
    fn shard_mut(&mut self, hash: u64) -> &mut Option<Arc<Probe>> {
        let (group, shard) = self.place(hash);
        let group_size = 1 << self.group_bits;
        let empty = || Arc::new(vec![None; group_size].into_boxed_slice());
        let group = self.top[group].get_or_insert_with(empty);
        &mut Arc::make_mut(group)[shard]
    }

    /// Inserts or replaces a row; true when it is new. Sizes are the definition's.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> bool {
        assert_eq!((key.len(), value.len()), (self.shape.key, self.shape.value));
        let (hasher, shape) = (self.hasher, self.shape);
        let hash = hasher.hash(key);
        let place = self
            .shard_mut(hash)
            .get_or_insert_with(|| Arc::new(Probe::new(shape, 4)));
        let found = place.find(hash, key);
        if found.is_none() && (place.len() + 1) * 8 > place.capacity() * 7 {
            let capacity = place.capacity() + (place.capacity() / 2).max(4);
            *place = Arc::new(place.resized(capacity, hasher));
        }
        // Slots are the same in a copy.
        let shard = Arc::make_mut(place);
        let slot = found.unwrap_or_else(|| shard.insert(hash, key));
        // SAFETY: a value's size is written to a value of this private shard.
        unsafe { std::ptr::copy_nonoverlapping(value.as_ptr(), shard.value(slot), value.len()) };
        self.len += usize::from(found.is_none());
        found.is_none()
    }

    /// Removes a row; false when absent.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let hasher = self.hasher;
        let hash = hasher.hash(key);
        // Looked up first: a row that is absent copies nothing.
        let Some(slot) = self.shard(hash).and_then(|s| s.find(hash, key)) else {
            return false;
        };
        let place = self.shard_mut(hash);
        if let Some(shared) = place {
            let shard = Arc::make_mut(shared);
            shard.remove(slot, hasher);
            if shard.len() == 0 {
                *place = None;
            } else if shard.len() * 4 < shard.capacity() && shard.capacity() > 16 {
                *shared = Arc::new(shard.resized(shard.len() * 3 / 2 + 4, hasher));
            }
        }
        self.len -= 1;
        true
    }

    /// Copies of all rows, in no order.
    pub fn rows(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + '_ {
        let groups = self.top.iter().flatten();
        groups
            .flat_map(|g| g.iter().flatten())
            .flat_map(|shard| shard.rows())
    }

    /// Bytes of memory held, shared ones included.
    pub fn memory(&self) -> usize {
        let groups = self.top.iter().flatten();
        let pointers = self.top.len() * 8 + groups.clone().map(|g| g.len() * 8).sum::<usize>();
        let shards = groups.flat_map(|g| g.iter().flatten());
        pointers
            + shards
                .map(|s| s.memory().len() + s.capacity() + size_of::<Probe>() + 16)
                .sum::<usize>()
    }
}

// SAFETY: values are inside shards that the table keeps.
unsafe impl MapOps for PolicyHash {
    unsafe fn lookup(&self, key: *const u8) -> *mut u8 {
        // SAFETY: `key_size` readable bytes by contract; nothing is written in this call.
        let key = unsafe { std::slice::from_raw_parts(key, self.shape.key) };
        self.find(key).unwrap_or(std::ptr::null_mut())
    }
}
