//! The hash table of policy: immutable once published, cheap to change a copy of.
//!
//! ```text
//!  top: 1 or 256 pieces --hash's first bits--> piece: 2^n chunks --next bits--> chunk: buckets
//! ```
//!
//! A clone copies the top only (at most 256 pointers). Writing a row copies one piece (pointers to
//! some hundred chunks) and one chunk of at most 16 KB the first time a transaction comes there, and
//! nothing after that. So a row costs the same among 8 million as among 800, and what was published
//! is never touched: readers need no lock.
//!
//! The shape follows the rows that are there, never the capacity: a chunk grows by a quarter at a
//! time, and when one would pass 16 KB its piece alone doubles its chunks. Nothing is ever rehashed
//! as a whole. A CA-to-PA mapping (32 bytes) takes 43 to 58 bytes, pointers included.
//!
//! A look-up follows two small arrays that a core's caches hold and reads one cache line of the
//! chunk, where key and value are side by side; one in eight reads its neighbour too.

use std::sync::Arc;

use dash_bpf::MapDef;

use super::hash::HashKey;
use super::{MAX_KEY, MapOps};

mod chunk;

use chunk::{Chunk, Place, Shape, is_zero};

/// Bits of the hash that choose a piece, once there is more than one.
const TOP_BITS: u32 = 8;

/// Chunks whose hashes share their first bits.
#[derive(Clone, Debug)]
struct Piece {
    bits: u32,
    /// `1 << bits` of them.
    chunks: Box<[Chunk]>,
}

/// A hash table that shares what is equal with its clones.
#[derive(Clone, Debug)]
pub struct PolicyHash {
    shape: Shape,
    hasher: &'static HashKey,
    /// One piece, or `1 << TOP_BITS`.
    top: Box<[Arc<Piece>]>,
    top_bits: u32,
    /// Value of the key that is zero, which chunks cannot hold.
    zero: Option<Arc<[u32]>>,
    len: usize,
}

/// The first `bits` bits of a hash after `skip` bits, as a number. Both are below 32.
#[inline]
fn bits_of(hash: u64, skip: u32, bits: u32) -> usize {
    // In two shifts, so that no bits are no shift by 64.
    (hash << skip >> 1 >> (63 - bits)) as usize
}

impl PolicyHash {
    /// An empty table. `def.key_size` is 1 to [`MAX_KEY`].
    pub fn new(def: &MapDef) -> Self {
        let (key, value) = (def.key_size as usize, def.value_size as usize);
        assert!((1..=MAX_KEY).contains(&key), "keys of {key} bytes");
        let shape = Shape::new(key, value);
        let piece = Piece {
            bits: 0,
            chunks: [Chunk::new(shape, 1)].into(),
        };
        Self {
            shape,
            hasher: HashKey::process(),
            top: [Arc::new(piece)].into(),
            top_bits: 0,
            zero: None,
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

    #[inline]
    fn chunk(&self, hash: u64) -> &Chunk {
        let piece = &*self.top[bits_of(hash, 0, self.top_bits)];
        &piece.chunks[bits_of(hash, self.top_bits, piece.bits)]
    }

    /// Address of the value of `key`.
    #[inline]
    fn find(&self, key: &[u8]) -> Option<*mut u8> {
        // Sizes of the tables there are: hash and comparison then take a few instructions.
        match self.shape.key {
            20 => self.find_sized::<20>(key),
            8 => self.find_sized::<8>(key),
            _ => self.find_any(key),
        }
    }

    #[inline]
    fn find_sized<const N: usize>(&self, key: &[u8]) -> Option<*mut u8> {
        let key: &[u8; N] = key.try_into().ok()?;
        if is_zero(key) {
            return self.find_any(key);
        }
        let hash = self.hasher.hash(key);
        let chunk = self.chunk(hash);
        let place = chunk.find(self.shape, hash, |k| k.first_chunk::<N>() == Some(key))?;
        Some(chunk.value(self.shape, place))
    }

    fn find_any(&self, key: &[u8]) -> Option<*mut u8> {
        if is_zero(key) {
            return Some(self.zero.as_ref()?.as_ptr().cast_mut().cast());
        }
        let (chunk, place) = self.place(self.hasher.hash(key), key)?;
        Some(chunk.value(self.shape, place))
    }

    fn place(&self, hash: u64, key: &[u8]) -> Option<(&Chunk, Place)> {
        let chunk = self.chunk(hash);
        Some((chunk, chunk.find(self.shape, hash, |k| k == key)?))
    }

    /// Asks the processor for the line that a look-up of `key` reads first.
    #[inline]
    pub fn prefetch(&self, key: &[u8]) {
        let hash = self.hasher.hash(key);
        let line = self.chunk(hash).first_line(self.shape, hash);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads no memory the program can tell; any address would do.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }

    /// Copy of the value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.find(key)?;
        // SAFETY: a value is `shape.value` bytes in memory that `self` keeps, and rows of a policy
        // table are written only through `&mut self`.
        Some(unsafe { std::slice::from_raw_parts(value, self.shape.value) }.to_vec())
    }

    /// Inserts or replaces a row; true when it is new. Sizes are the definition's.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> bool {
        assert_eq!((key.len(), value.len()), (self.shape.key, self.shape.value));
        if is_zero(key) {
            let new = self.zero.replace(words(value)).is_none();
            self.len += usize::from(new);
            return new;
        }
        let (shape, hasher) = (self.shape, self.hasher);
        let hash = hasher.hash(key);
        let found = self.place(hash, key).map(|(chunk, place)| {
            let same = chunk.value_bytes(shape, place) == value;
            (place, same)
        });
        match found {
            // Nothing changes, nothing is copied.
            Some((_, true)) => false,
            Some((place, false)) => {
                self.chunk_mut(hash).set(shape, place, value);
                false
            }
            None => {
                while !self.chunk_mut(hash).reserve(shape, hasher) {
                    self.split(hash);
                }
                self.chunk_mut(hash).insert(shape, hash, key, value);
                self.len += 1;
                true
            }
        }
    }

    /// A chunk to change, its piece a private copy.
    fn chunk_mut(&mut self, hash: u64) -> &mut Chunk {
        let piece = Arc::make_mut(&mut self.top[bits_of(hash, 0, self.top_bits)]);
        &mut piece.chunks[bits_of(hash, self.top_bits, piece.bits)]
    }

    /// Twice as many chunks in a piece; or, once, its chunks become pieces.
    fn split(&mut self, hash: u64) {
        let (shape, hasher, top_bits) = (self.shape, self.hasher, self.top_bits);
        let piece = &mut self.top[bits_of(hash, 0, top_bits)];
        if top_bits == 0 && piece.bits == TOP_BITS {
            let chunks = piece.chunks.iter().map(|chunk| {
                let chunks = [chunk.clone()].into();
                Arc::new(Piece { bits: 0, chunks })
            });
            self.top = chunks.collect();
            self.top_bits = TOP_BITS;
            return;
        }
        let bit = top_bits + piece.bits;
        let halves = |chunk: &Chunk| chunk.split(shape, bit, hasher);
        *piece = Arc::new(Piece {
            bits: piece.bits + 1,
            chunks: piece.chunks.iter().flat_map(halves).collect(),
        });
    }

    /// Removes a row; false when absent.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        if is_zero(key) {
            let present = self.zero.take().is_some();
            self.len -= usize::from(present);
            return present;
        }
        let (shape, hasher) = (self.shape, self.hasher);
        let hash = hasher.hash(key);
        // Looked up first: a row that is absent copies nothing.
        let Some(place) = self.place(hash, key).map(|(_, place)| place) else {
            return false;
        };
        self.chunk_mut(hash).remove(shape, place, hasher);
        self.len -= 1;
        true
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.top.iter().flat_map(|piece| piece.chunks.iter())
    }

    /// Copies of all rows, in no order.
    pub fn rows(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + '_ {
        let shape = self.shape;
        let zero = vec![0; shape.key];
        let zero = self.get(&zero).map(|value| (zero, value));
        let rows = self.chunks().flat_map(move |chunk| {
            chunk.all(shape).map(move |place| {
                let (key, value) = (chunk.key(shape, place), chunk.value_bytes(shape, place));
                (key.to_vec(), value.to_vec())
            })
        });
        zero.into_iter().chain(rows)
    }

    /// Bytes of memory held, shared ones included.
    pub fn memory(&self) -> usize {
        let chunks = self.chunks().map(|c| c.memory() + size_of::<Chunk>());
        let pieces = self.top.len() * (size_of::<Piece>() + 3 * size_of::<usize>());
        pieces + chunks.sum::<usize>()
    }
}

/// A value in 4-byte aligned memory, with 8 bytes more as every value has behind it.
fn words(value: &[u8]) -> Arc<[u32]> {
    let padded = value.iter().copied().chain(std::iter::repeat(0));
    let mut bytes = padded.take(value.len().next_multiple_of(4) + 8);
    let word = || {
        let mut word = [0; 4];
        for byte in &mut word {
            *byte = bytes.next()?;
        }
        Some(u32::from_ne_bytes(word))
    };
    std::iter::from_fn(word).collect::<Vec<_>>().into()
}

// SAFETY: values are inside chunks that the table keeps.
unsafe impl MapOps for PolicyHash {
    unsafe fn lookup(&self, key: *const u8) -> *mut u8 {
        // SAFETY: `key_size` readable bytes by contract; nothing is written in this call.
        let key = unsafe { std::slice::from_raw_parts(key, self.shape.key) };
        self.find(key).unwrap_or(std::ptr::null_mut())
    }
}
