//! The index of connections: from a direction's key to `slot << 1 | side`, keys not stored.
//!
//! A key has two buckets, each a cache line of twelve rows with a byte of hash to each (`bucket`). It
//! lies in the first unless that is full, then in the second; when both are, a row of either is moved
//! to its own other bucket (cuckoo hashing, Pagh and Rodler 2004, with buckets as in MemC3, 2013). The
//! key itself is read in the connection's entry, which programs write before they add the key, and
//! which a hit needs anyway. A hit costs a line here, seldom two; a key costs 5.3 bytes of bucket,
//! 6.1 when a table made for so many is full.
//!
//! **Growth** is linear hashing (Litwin 1980): whenever there are more than nine keys a bucket, one
//! bucket is split into itself and a new one behind the last. So an insertion does at most one
//! split, of twelve rows; nothing is copied whole, and there never are two tables. Address space for the
//! most is mapped when the table is made, and touched as it grows: the packet path asks for no memory.
//! The number of buckets is a power of two times a number up to 512 which is chosen by the
//! capacity, so that a full table is full evenly.
//!
//! **Nothing is refused below capacity.** Where no move makes room, which with twelve rows a bucket and
//! 7/8 of them used needs hashes that are no hashes, a row goes to a list that is searched whole,
//! and from there back as soon as there is room.
//!
//! **Hash.** [`HashKey`]: NH and a folded multiplication under a secret of the process.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use dash_wire::tables::{FlowEntry, FlowHalf, FlowKey};
use zerocopy::FromBytes;

use super::hash::HashKey;
use super::memory::{Mapping, MemoryError};
use super::mirror::{FlowMirror, SlabMemory};
use super::{MapOps, errno, update_flags};
use crate::prefetch::prefetch;
use bucket::{Bucket, ROWS, bits};

mod bucket;
#[cfg(test)]
mod tests;

/// Keys a bucket at which the table grows.
const KEYS_A_BUCKET: usize = 9;
/// Most buckets that are there from the start: 32 KB.
const MOST_GROUPS: usize = 512;
const KEY: usize = size_of::<FlowKey>();

/// Where connections are.
#[derive(Clone, Copy, Debug)]
pub struct Slab {
    base: NonNull<u8>,
    slots: u32,
}

impl Slab {
    /// `slots` entries at `base`.
    ///
    /// # Safety
    /// They are readable at this address, 8-byte aligned, as long as any index made with the value
    /// lives, and only the index's thread writes their keys.
    pub unsafe fn new(base: NonNull<u8>, slots: u32) -> Self {
        Self { base, slots }
    }

    /// A direction's line, for a row that was checked when it came in (`has`).
    #[inline]
    fn half(self, row: u32) -> *const FlowHalf {
        let slot = (row >> 1) as usize;
        debug_assert!(slot < self.slots as usize);
        let at = slot * size_of::<FlowEntry>()
            + std::mem::offset_of!(FlowEntry, sides)
            + (row & 1) as usize * size_of::<FlowHalf>();
        self.base.as_ptr().wrapping_add(at).cast()
    }

    /// There is an entry for the row.
    fn has(self, row: u32) -> bool {
        row >> 1 < self.slots
    }

    /// The key a row stands for.
    #[inline]
    fn key(self, row: u32) -> FlowKey {
        // SAFETY: the row's slot is one of the slab's (`has`), whose entries are readable and of any
        // bit pattern; the key is the first field of its line.
        unsafe { self.half(row).cast::<FlowKey>().read() }
    }

    /// Whether a row's key is this one.
    #[inline]
    fn is(self, row: u32, key: &[u8; KEY]) -> bool {
        const { assert!(KEY.is_multiple_of(8) && std::mem::offset_of!(FlowHalf, key) == 0) };
        let there = self.half(row).cast::<u64>();
        let words = key.as_chunks::<8>().0;
        words.iter().enumerate().fold(0, |differ, (n, word)| {
            // SAFETY: as in `key`; entries are 8-byte aligned, and so are the keys in them.
            differ | (u64::from_ne_bytes(*word) ^ unsafe { there.add(n).read() })
        }) == 0
    }

    fn entry(self, slot: u32) -> Option<FlowEntry> {
        (slot < self.slots).then(|| {
            // SAFETY: one of the slab's entries, any bit pattern of which is a value.
            unsafe { self.base.cast::<FlowEntry>().add(slot as usize).read() }
        })
    }
}

/// Where a key may be: a bucket and another, and the tag it has there.
#[derive(Clone, Copy, Debug)]
struct Places {
    first: usize,
    second: usize,
    tag: u8,
}

/// Where a key is.
#[derive(Clone, Copy, Debug)]
enum Found {
    Bucket(usize, usize),
    Aside(usize),
}

/// A look-up in three steps, other packets' between them, so that memory is there when it is read
/// ([`FlowIndex::prefetch_bucket`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct Ahead {
    hash: u64,
    first: usize,
    second: usize,
    /// A row in use with the key's tag, bucket and number in it; [`NO_ROW`] for none.
    row: usize,
    /// Of the index, when the row was seen.
    changes: u64,
}

/// Bits of a row's number in its bucket.
const ROW_BITS: u32 = ROWS.next_power_of_two().ilog2();
/// No row.
const NO_ROW: usize = usize::MAX;

/// The index of one worker's connections. One thread uses it.
#[derive(Debug)]
pub struct FlowIndex {
    slab: Slab,
    hasher: &'static HashKey,
    /// What counts of a hash: all of it, but in tests.
    hash_mask: u64,
    capacity: usize,
    len: Cell<usize>,
    /// Times that keys came or went.
    changes: Cell<u64>,
    buckets: Mapping,
    /// Buckets of a table that never grew.
    groups: usize,
    /// Buckets there is memory for.
    most_buckets: usize,
    /// `groups << level` buckets, of which the first `split` are split already.
    level: Cell<u32>,
    split: Cell<usize>,
    /// Rows that no bucket takes.
    aside: Mapping,
    aside_len: Cell<usize>,
    mirror: Option<RefCell<Box<dyn FlowMirror>>>,
}

// SAFETY: `slab` is memory that belongs to the index's tables, used through this value alone, which is
// not `Sync`; everything else is `Send` by itself.
unsafe impl Send for FlowIndex {}

impl FlowIndex {
    /// Empty; room for both keys of every slot.
    ///
    /// # Errors
    /// The system gives no address space.
    pub fn new(slab: Slab) -> Result<Self, MemoryError> {
        Self::build(slab, slab.slots as usize * 2, MOST_GROUPS, u64::MAX)
    }

    fn build(
        slab: Slab,
        capacity: usize,
        most_groups: usize,
        hash_mask: u64,
    ) -> Result<Self, MemoryError> {
        // 7/8 of the rows are used when the table is full.
        let wanted = (capacity * 8).div_ceil(ROWS * 7).max(2);
        let doublings = wanted.div_ceil(most_groups).next_power_of_two().ilog2();
        let groups = wanted.div_ceil(1 << doublings);
        let most_buckets = groups << doublings;
        Ok(Self {
            slab,
            hasher: HashKey::process(),
            hash_mask,
            capacity,
            len: Cell::new(0),
            // Not that of a look-up that has seen no row.
            changes: Cell::new(1),
            buckets: Mapping::new("the flow index", most_buckets * size_of::<Bucket>())?,
            groups,
            most_buckets,
            level: Cell::new(0),
            split: Cell::new(0),
            aside: Mapping::new("the flow index's list", capacity * size_of::<u32>())?,
            aside_len: Cell::new(0),
            mirror: None,
        })
    }

    /// Takes the memory of as many buckets as there may be.
    pub(super) fn prefault(&self) -> Result<(), MemoryError> {
        self.buckets.prefault("the flow index")
    }

    /// Tells a mirror what comes and goes from now on.
    pub(crate) fn watch(&mut self, mirror: Box<dyn FlowMirror>) {
        self.mirror = Some(RefCell::new(mirror));
    }

    /// Keys.
    pub fn len(&self) -> usize {
        self.len.get()
    }

    /// Holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of buckets in use: what the index has touched of its memory.
    pub fn touched(&self) -> usize {
        self.active() * size_of::<Bucket>()
    }

    /// Keys that no bucket takes: none, unless the hash fails.
    pub fn aside(&self) -> usize {
        self.aside_len.get()
    }

    /// Hash of a key, for [`prefetch_bucket`](Self::prefetch_bucket).
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.hash_bytes(zerocopy::transmute_ref!(key))
    }

    /// Starts a look-up that goes on later: asks for the lines in which a key of this hash may be.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) -> Ahead {
        let places = self.places(hash);
        prefetch(self.address(places.first).cast());
        prefetch(self.address(places.second).cast());
        Ahead {
            hash,
            first: places.first,
            second: places.second,
            ..Ahead::default()
        }
    }

    /// Goes on with it: asks for what a packet of the connection will touch of its entry; false when
    /// there is no entry. The bucket should be in the cache by now.
    #[inline]
    pub fn prefetch_entry(&self, ahead: &mut Ahead) -> bool {
        ahead.row = NO_ROW;
        ahead.changes = self.changes.get();
        for at in [ahead.first, ahead.second] {
            if at >= self.most_buckets {
                // Another index's look-up: `find_ahead` looks the key up here.
                continue;
            }
            let bucket = self.bucket(at);
            let with = bucket.with(tag(ahead.hash));
            if with == 0 {
                continue;
            }
            ahead.row = at << ROW_BITS | with.trailing_zeros() as usize;
            for n in bits(with) {
                let row = bucket.row(n);
                prefetch(self.slab.half(row).cast());
                let shared = (row >> 1) as usize * size_of::<FlowEntry>()
                    + std::mem::offset_of!(FlowEntry, created_ns);
                prefetch(self.slab.base.as_ptr().wrapping_add(shared));
            }
            return true;
        }
        false
    }

    /// Ends it: what a look-up of the key that was hashed gives now, the address of its row or null.
    // Asked for each packet; its other caller is rare.
    #[inline(always)]
    pub fn find_ahead(&self, key: &FlowKey, ahead: &Ahead) -> *mut u32 {
        let key = zerocopy::transmute_ref!(key);
        // Nothing came or went since the row was seen, so it is in use, and its slot's key is its own.
        let (bucket, at) = (ahead.row >> ROW_BITS, ahead.row & ((1 << ROW_BITS) - 1));
        // Where there is no row, the bucket is none either, nor need another index's be one here.
        if ahead.changes == self.changes.get() && bucket < self.most_buckets {
            let row = self.bucket_mut(bucket).row_mut(at);
            if self.slab.is(*row, key) {
                return row;
            }
        }
        self.find(ahead.hash, key)
            .map_or(std::ptr::null_mut(), |found| self.row_address(found))
    }

    /// `slot << 1 | side` of a key.
    pub fn get(&self, key: &FlowKey) -> Option<u32> {
        let key = zerocopy::transmute_ref!(key);
        self.find(self.hash_bytes(key), key)
            .map(|found| self.row_at(found))
    }

    /// Takes a key out; false when it is not in.
    pub fn remove(&self, key: &FlowKey) -> bool {
        let key = zerocopy::transmute_ref!(key);
        let Some(found) = self.find(self.hash_bytes(key), key) else {
            return false;
        };
        self.take(found);
        true
    }

    /// Takes a row out.
    fn take(&self, found: Found) {
        let row = self.row_at(found);
        self.changed();
        match found {
            Found::Bucket(bucket, at) => self.bucket_mut(bucket).clear(at),
            Found::Aside(at) => self.drop_aside(at),
        }
        self.len.set(self.len() - 1);
        self.settle_aside();
        if let Some(mirror) = &self.mirror
            && row & 1 == 0
            && let Some(flow) = self.slab.entry(row >> 1)
        {
            mirror.borrow_mut().removed(row >> 1, &flow);
        }
    }

    /// Asks for the lines in which the key of a connection's direction may be.
    pub(crate) fn prefetch_row(&self, row: u32) {
        if self.slab.has(row) {
            self.prefetch_bucket(self.hash(&self.slab.key(row)));
        }
    }

    /// Takes out the key of a connection's direction, `slot << 1 | side`; false when it is not in, or
    /// leads elsewhere.
    pub fn remove_row(&self, row: u32) -> bool {
        if !self.slab.has(row) {
            return false;
        }
        let places = self.places_of(row);
        let found = [places.first, places.second].into_iter().find_map(|at| {
            let bucket = self.bucket(at);
            let mut with = bits(bucket.with(places.tag));
            with.find(|&n| bucket.row(n) == row)
                .map(|n| Found::Bucket(at, n))
        });
        let aside = || (0..self.aside_len.get()).find(|&at| self.aside_row(at) == row);
        let Some(found) = found.or_else(|| aside().map(Found::Aside)) else {
            return false;
        };
        self.take(found);
        true
    }

    #[inline]
    fn hash_bytes(&self, key: &[u8; KEY]) -> u64 {
        self.hasher.hash(key) & self.hash_mask
    }

    /// The two buckets of a hash as the table is now. Bits 0..8 are the tag; 8..32 and 48..64 choose
    /// the first bucket, and a mixture of all the second.
    #[inline]
    fn places(&self, hash: u64) -> Places {
        let other = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Places {
            first: self.place(hash >> 48, hash >> 8),
            second: self.place(other >> 48, other >> 24),
            tag: tag(hash),
        }
    }

    /// Look-ups under way must not trust what they saw.
    fn changed(&self) {
        self.changes.set(self.changes.get() + 1);
    }

    /// Linear hashing: `extension` has a bit for each doubling.
    #[inline]
    fn place(&self, group: u64, extension: u64) -> usize {
        let group = ((group as usize & 0xffff) * self.groups) >> 16;
        let level = self.level.get();
        let low = extension as usize & ((1 << level) - 1);
        let at = group + self.groups * low;
        let split = at < self.split.get();
        // Split: one bit more decides.
        let high = (extension as usize >> level & 1) & usize::from(split);
        at + (self.groups << level) * high
    }

    /// Buckets in use.
    fn active(&self) -> usize {
        (self.groups << self.level.get()) + self.split.get()
    }

    #[inline]
    fn address(&self, bucket: usize) -> *mut Bucket {
        debug_assert!(bucket < self.most_buckets);
        let base = self.buckets.base().as_ptr().cast::<Bucket>();
        base.wrapping_add(bucket)
    }

    #[inline]
    fn bucket(&self, at: usize) -> &Bucket {
        // SAFETY: `at` comes from `places` or `grow`, so it is below `active`, and there is memory for
        // `most_buckets`, aligned and zero when new, of which any bit pattern is a bucket. Only this
        // thread writes it (not `Sync`); programs write rows only as `MapOps::lookup` allows, between
        // calls. A reference is not kept across a call that changes the table.
        unsafe { &*self.address(at) }
    }

    #[expect(clippy::mut_from_ref, reason = "single-threaded, see SAFETY")]
    #[inline]
    fn bucket_mut(&self, at: usize) -> &mut Bucket {
        // SAFETY: as in `bucket`; callers use it for one change, while they hold no other reference
        // into the buckets.
        unsafe { &mut *self.address(at) }
    }

    fn aside_address(&self, at: usize) -> *mut u32 {
        debug_assert!(at < self.capacity);
        self.aside.base().as_ptr().cast::<u32>().wrapping_add(at)
    }

    fn aside_row(&self, at: usize) -> u32 {
        // SAFETY: below `aside_len`, which is at most `capacity`, the rows there is memory for.
        unsafe { self.aside_address(at).read() }
    }

    fn row_address(&self, found: Found) -> *mut u32 {
        match found {
            Found::Bucket(bucket, at) => self.bucket_mut(bucket).row_mut(at),
            Found::Aside(at) => self.aside_address(at),
        }
    }

    fn row_at(&self, found: Found) -> u32 {
        match found {
            Found::Bucket(bucket, at) => self.bucket(bucket).row(at),
            Found::Aside(at) => self.aside_row(at),
        }
    }

    #[inline]
    fn find(&self, hash: u64, key: &[u8; KEY]) -> Option<Found> {
        let places = self.places(hash);
        for at in [places.first, places.second] {
            let bucket = self.bucket(at);
            for n in bits(bucket.with(places.tag)) {
                if self.slab.is(bucket.row(n), key) {
                    return Some(Found::Bucket(at, n));
                }
            }
        }
        if self.aside_len.get() == 0 {
            return None;
        }
        self.find_aside(key)
    }

    #[cold]
    fn find_aside(&self, key: &[u8; KEY]) -> Option<Found> {
        (0..self.aside_len.get())
            .find(|&at| self.slab.is(self.aside_row(at), key))
            .map(Found::Aside)
    }

    /// The places of a row, by the key it stands for.
    fn places_of(&self, row: u32) -> Places {
        self.places(self.hash(&self.slab.key(row)))
    }

    /// Puts a row into one of its buckets; false when no single move makes room.
    fn put(&self, places: Places, row: u32) -> bool {
        for at in [places.first, places.second] {
            if let Some(n) = self.bucket(at).free() {
                self.bucket_mut(at).set(n, places.tag, row);
                return true;
            }
        }
        for at in [places.first, places.second] {
            for n in 0..ROWS {
                let (other_row, tag) = (self.bucket(at).row(n), self.bucket(at).tag(n));
                let others = self.places_of(other_row);
                let to = if others.first == at {
                    others.second
                } else {
                    others.first
                };
                if to != at
                    && let Some(m) = self.bucket(to).free()
                {
                    self.bucket_mut(to).set(m, tag, other_row);
                    self.bucket_mut(at).set(n, places.tag, row);
                    return true;
                }
            }
        }
        false
    }

    /// Adds a row whose key is not in. There is room in the table.
    fn insert(&self, hash: u64, row: u32) {
        self.changed();
        self.grow();
        if !self.put(self.places(hash), row) {
            let at = self.aside_len.get();
            // SAFETY: fewer keys than `capacity` are in, and the list has as many places.
            unsafe { self.aside_address(at).write(row) };
            self.aside_len.set(at + 1);
        }
        self.len.set(self.len() + 1);
    }

    /// Splits a bucket if there are too few for another key.
    fn grow(&self) {
        let active = self.active();
        if self.len() < active * KEYS_A_BUCKET || active >= self.most_buckets {
            return;
        }
        let (from, whole) = (self.split.get(), self.groups << self.level.get());
        if from + 1 == whole {
            self.level.set(self.level.get() + 1);
            self.split.set(0);
        } else {
            self.split.set(from + 1);
        }
        // The keys are in as many lines: asked for at once.
        let rows = *self.bucket(from);
        for n in bits(rows.used()) {
            prefetch(self.slab.half(rows.row(n)).cast());
        }
        for n in bits(rows.used()) {
            let places = self.places_of(rows.row(n));
            let home = places.first;
            // A row that was in its second bucket goes home if it can.
            let to = if home == from || (home != active && self.bucket(home).free().is_none()) {
                if home == from || places.second == from {
                    continue;
                }
                places.second
            } else {
                home
            };
            // The new bucket takes all that the old one held.
            if let Some(m) = self.bucket(to).free() {
                self.bucket_mut(to).set(m, rows.tag(n), rows.row(n));
                self.bucket_mut(from).clear(n);
            }
        }
        self.settle_aside();
    }

    /// Takes a place out of the list.
    fn drop_aside(&self, at: usize) {
        let last = self.aside_len.get() - 1;
        let row = self.aside_row(last);
        // SAFETY: `at` is below the list's length.
        unsafe { self.aside_address(at).write(row) };
        self.aside_len.set(last);
    }

    /// Moves the last of the list to a bucket, if one has room now.
    fn settle_aside(&self) {
        let Some(last) = self.aside_len.get().checked_sub(1) else {
            return;
        };
        let row = self.aside_row(last);
        if self.put(self.places_of(row), row) {
            self.aside_len.set(last);
        }
    }
}

/// What a bucket keeps of a hash. 0 says free: two values share a tag.
#[inline]
fn tag(hash: u64) -> u8 {
    (hash as u8).max(1)
}

/// The key at an address.
///
/// # Safety
/// `KEY` readable bytes.
#[inline]
unsafe fn key_at<'a>(key: *const u8) -> &'a [u8; KEY] {
    // SAFETY: by contract; arrays of bytes need no alignment.
    unsafe { &*key.cast() }
}

// SAFETY: rows are in the buckets or the list, which live as long as the index.
unsafe impl MapOps for FlowIndex {
    #[inline]
    unsafe fn lookup(&self, key: *const u8) -> *mut u8 {
        // SAFETY: readable by contract, and nothing is written in this call.
        let key = unsafe { key_at(key) };
        match self.find(self.hash_bytes(key), key) {
            Some(found) => self.row_address(found).cast(),
            None => std::ptr::null_mut(),
        }
    }

    /// The entry that the row names must hold the key: it is where the index keeps it (`EINVAL`).
    unsafe fn update(&self, key: *const u8, value: *const u8, flags: u64) -> i64 {
        // SAFETY: both by contract. Copies, as they may be inside the table.
        let (key, row) = unsafe { (*key_at(key), value.cast::<u32>().read_unaligned()) };
        let hash = self.hash_bytes(&key);
        let found = match (self.find(hash, &key), flags) {
            (_, 3..) => return errno::EINVAL,
            (Some(_), update_flags::NOEXIST) => return errno::EEXIST,
            (None, update_flags::EXIST) => return errno::ENOENT,
            (None, _) if self.len() >= self.capacity => return errno::E2BIG,
            (found, _) => found,
        };
        if !self.slab.has(row) || !self.slab.is(row, &key) {
            return errno::EINVAL;
        }
        match found {
            // SAFETY: the address of a row of this table.
            Some(found) => unsafe { self.row_address(found).write(row) },
            None => self.insert(hash, row),
        }
        if let Some(mirror) = &self.mirror
            && row & 1 == 1
            && let Some(flow) = self.slab.entry(row >> 1)
        {
            mirror.borrow_mut().added(row >> 1, &flow);
        }
        0
    }

    unsafe fn delete(&self, key: *const u8) -> i64 {
        // SAFETY: by contract. A copy, as it may be inside the table.
        let key = unsafe { *key_at(key) };
        match FlowKey::read_from_bytes(&key) {
            Ok(key) if self.remove(&key) => 0,
            _ => errno::ENOENT,
        }
    }
}
