//! A chunk: some hundred rows of a hash table in whole cache lines, copied as one.
//!
//! Rows lie in buckets of one cache line (more, when one row is larger than that), key and value side
//! by side, from the front of the bucket and without gaps. A row is in its home bucket or, when that
//! was full, in the next that had a place; so a search ends at the first bucket that is not full. A
//! place is free when its key is zero: no tags, no counts, nothing else to read. (The row whose key
//! really is zero is kept by the table.) Removing a row pulls back later rows that were pushed on.

use std::sync::Arc;

use crate::tables::hash::HashKey;

/// Bytes of a cache line.
const LINE: usize = 64;
/// A chunk stops growing at 16 KB, which are copied in about a microsecond.
const MOST_LINES: usize = 256;

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line([u8; LINE]);

/// Sizes of a row, and where rows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) key: usize,
    pub(super) value: usize,
    /// From row to row.
    stride: usize,
    /// Lines of a bucket.
    lines: usize,
    /// Rows of a bucket.
    rows: usize,
}

impl Shape {
    pub(super) fn new(key: usize, value: usize) -> Self {
        // Values are 4-byte aligned: rows hold no wider fields, and entries stay compact.
        let stride = (key.next_multiple_of(4) + value).next_multiple_of(4);
        let lines = stride.div_ceil(LINE);
        Self {
            key,
            value,
            stride,
            lines,
            rows: lines * LINE / stride,
        }
    }

    fn value_at(self) -> usize {
        self.key.next_multiple_of(4)
    }
}

/// Where a row is: bytes from the start of its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

/// Rows whose hashes share their first bits.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// The buckets, then one line that stays empty: an access of 8 bytes that begins in the last
    /// value is still inside the allocation, as it is for every map.
    lines: Arc<[Line]>,
    rows: u32,
}

impl Chunk {
    pub(super) fn new(shape: Shape, buckets: usize) -> Self {
        let lines = buckets.max(1) * shape.lines + 1;
        Self {
            lines: std::iter::repeat_n(Line([0; LINE]), lines).collect(),
            rows: 0,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows as usize
    }

    fn buckets(&self, shape: Shape) -> usize {
        (self.lines.len() - 1) / shape.lines
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        // Strong and weak count take a line of their own, because of the alignment.
        (self.lines.len() + 1) * LINE
    }

    /// Start of the home bucket. Chunks are chosen by the hash's high bits, so the low ones serve.
    #[inline]
    fn home(&self, shape: Shape, hash: u64) -> usize {
        let bucket = ((hash & 0xffff_ffff) * self.buckets(shape) as u64) >> 32;
        bucket as usize * shape.lines * LINE
    }

    /// Address of the first line a search for `hash` reads.
    #[inline]
    pub(super) fn first_line(&self, shape: Shape, hash: u64) -> *const u8 {
        // SAFETY: `home` is the start of one of the chunk's buckets.
        unsafe { self.base().add(self.home(shape, hash)) }
    }

    fn next(&self, shape: Shape, bucket: usize) -> usize {
        let next = bucket + shape.lines * LINE;
        if next == self.buckets(shape) * shape.lines * LINE {
            0
        } else {
            next
        }
    }

    #[inline]
    fn base(&self) -> *const u8 {
        self.lines.as_ptr().cast()
    }

    #[inline]
    pub(super) fn key(&self, shape: Shape, place: Place) -> &[u8] {
        debug_assert!(place.0 + shape.stride <= self.lines.len() * LINE);
        // SAFETY: places are made in this file only, from buckets and rows inside the chunk; the
        // lines are initialised and written only through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.base().add(place.0), shape.key) }
    }

    /// Address of a value: programs read it as long as the chunk is kept.
    #[inline]
    pub(super) fn value(&self, shape: Shape, place: Place) -> *mut u8 {
        // SAFETY: as in `key`; the value follows the key inside the same row.
        unsafe { self.base().add(place.0 + shape.value_at()).cast_mut() }
    }

    #[inline]
    pub(super) fn value_bytes(&self, shape: Shape, place: Place) -> &[u8] {
        // SAFETY: as in `key`.
        unsafe { std::slice::from_raw_parts(self.value(shape, place), shape.value) }
    }

    /// Finds a row by a comparison with its key, which is not zero.
    #[inline]
    pub(super) fn find(
        &self,
        shape: Shape,
        hash: u64,
        is: impl Fn(&[u8]) -> bool,
    ) -> Option<Place> {
        let home = self.home(shape, hash);
        let mut bucket = home;
        loop {
            for row in 0..shape.rows {
                let place = Place(bucket + row * shape.stride);
                if is(self.key(shape, place)) {
                    return Some(place);
                }
            }
            let last = Place(bucket + (shape.rows - 1) * shape.stride);
            if is_zero(self.key(shape, last)) {
                return None;
            }
            bucket = self.next(shape, bucket);
            // A chunk is never full; this only makes the end visible to the reader.
            if bucket == home {
                return None;
            }
        }
    }

    /// One more row makes no search long: a quarter stays free.
    fn has_room(&self, shape: Shape) -> bool {
        let most = self.buckets(shape) * shape.rows * 3 / 4;
        self.rows() < most.max(1)
    }

    /// Makes room for one more row; false when the chunk is as large as chunks get.
    pub(super) fn reserve(&mut self, shape: Shape, hasher: &HashKey) -> bool {
        if self.has_room(shape) {
            return true;
        }
        let buckets = self.buckets(shape);
        let more = buckets + (buckets / 4).max(1);
        if more * shape.lines > MOST_LINES.max(2 * shape.lines) {
            return false;
        }
        *self = self.resized(shape, more, hasher);
        true
    }

    /// Puts a row that is absent where `reserve` made room.
    pub(super) fn insert(&mut self, shape: Shape, hash: u64, key: &[u8], value: &[u8]) {
        debug_assert!(!is_zero(key));
        let mut bucket = self.home(shape, hash);
        let free = loop {
            let free = (0..shape.rows)
                .map(|row| Place(bucket + row * shape.stride))
                .find(|place| is_zero(self.key(shape, *place)));
            match free {
                Some(place) => break place,
                None => bucket = self.next(shape, bucket),
            }
        };
        let row = self.row_mut(shape, free);
        row[..shape.key].copy_from_slice(key);
        row[shape.value_at()..shape.value_at() + shape.value].copy_from_slice(value);
        self.rows += 1;
    }

    /// Writes the value of a row.
    pub(super) fn set(&mut self, shape: Shape, place: Place, value: &[u8]) {
        self.row_mut(shape, place)[shape.value_at()..shape.value_at() + shape.value]
            .copy_from_slice(value);
    }

    /// Bytes of a row in a chunk that nobody shares: copied first when somebody does.
    fn row_mut(&mut self, shape: Shape, place: Place) -> &mut [u8] {
        let lines = Arc::make_mut(&mut self.lines);
        let len = lines.len() * LINE;
        // SAFETY: lines are arrays of bytes without padding, borrowed uniquely for the result's life.
        let bytes = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<u8>(), len) };
        &mut bytes[place.0..place.0 + shape.stride]
    }

    /// Removes a row and closes the gap.
    pub(super) fn remove(&mut self, shape: Shape, place: Place, hasher: &HashKey) {
        let bucket_bytes = shape.lines * LINE;
        let around = self.buckets(shape) * bucket_bytes;
        let distance = |from: usize, to: usize| (to + around - from) % around;
        let mut bucket = place.0 / bucket_bytes * bucket_bytes;
        self.close(shape, bucket, place);
        let mut at = bucket;
        // The bucket has one place free now. It was full when somebody may have been pushed on.
        while self.count(shape, at) + usize::from(at == bucket) == shape.rows {
            at = self.next(shape, at);
            if at == bucket {
                break;
            }
            // A row may come back when its home is not after the gap on the way to where it is.
            let pulled = self.places(shape, at).find(|place| {
                let home = self.home(shape, hasher.hash(self.key(shape, *place)));
                distance(home, at) >= distance(bucket, at)
            });
            if let Some(from) = pulled {
                let free = bucket + self.count(shape, bucket) * shape.stride;
                let row = self.row_mut(shape, from).to_vec();
                self.row_mut(shape, Place(free)).copy_from_slice(&row);
                self.close(shape, at, from);
                bucket = at;
            }
        }
        self.rows -= 1;
        let places = self.buckets(shape) * shape.rows;
        if self.rows() * 3 < places && places > 4 * shape.rows {
            let buckets = (self.rows() * 3 / 2).div_ceil(shape.rows);
            *self = self.resized(shape, buckets, hasher);
        }
    }

    /// Frees a place of a bucket by moving the last row of the bucket there.
    fn close(&mut self, shape: Shape, bucket: usize, place: Place) {
        let last = Place(bucket + (self.count(shape, bucket) - 1) * shape.stride);
        let row = self.row_mut(shape, last);
        let moved = row.to_vec();
        row.fill(0);
        if last != place {
            self.row_mut(shape, place).copy_from_slice(&moved);
        }
    }

    /// Rows of a bucket.
    fn count(&self, shape: Shape, bucket: usize) -> usize {
        self.places(shape, bucket).count()
    }

    fn places(&self, shape: Shape, bucket: usize) -> impl Iterator<Item = Place> + '_ {
        (0..shape.rows)
            .map(move |row| Place(bucket + row * shape.stride))
            .take_while(move |place| !is_zero(self.key(shape, *place)))
    }

    /// Places of all rows.
    pub(super) fn all(&self, shape: Shape) -> impl Iterator<Item = Place> + '_ {
        (0..self.buckets(shape))
            .flat_map(move |bucket| self.places(shape, bucket * shape.lines * LINE))
    }

    /// The same rows in a chunk of another size.
    fn resized(&self, shape: Shape, buckets: usize, hasher: &HashKey) -> Self {
        let mut new = Self::new(shape, buckets);
        self.spread(shape, hasher, |_| 0, std::slice::from_mut(&mut new));
        new
    }

    /// The same rows in two chunks, by a bit of the hash.
    pub(super) fn split(&self, shape: Shape, bit: u32, hasher: &HashKey) -> [Self; 2] {
        // Half the rows each, two thirds full; a half that has more rows grows on the way.
        let buckets = (self.rows() * 3 / 4).div_ceil(shape.rows) + 1;
        let mut halves = [Self::new(shape, buckets), Self::new(shape, buckets)];
        self.spread(
            shape,
            hasher,
            |hash| (hash << bit >> 63) as usize,
            &mut halves,
        );
        halves
    }

    fn spread(&self, shape: Shape, hasher: &HashKey, to: impl Fn(u64) -> usize, new: &mut [Self]) {
        for place in self.all(shape) {
            let key = self.key(shape, place);
            let hash = hasher.hash(key);
            let chunk = &mut new[to(hash)];
            // Never refused: no half has more rows than the whole had.
            chunk.reserve(shape, hasher);
            chunk.insert(shape, hash, key, self.value_bytes(shape, place));
        }
    }
}

/// A key of zeros, or a place without a row.
#[inline]
pub(super) fn is_zero(key: &[u8]) -> bool {
    let (words, rest) = key.as_chunks::<4>();
    let words = words
        .iter()
        .fold(0, |or, word| or | u32::from_ne_bytes(*word));
    words == 0 && rest.iter().all(|byte| *byte == 0)
}
