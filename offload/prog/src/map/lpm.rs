//! Longest-prefix match: a hash map of prefixes, and which lengths there are.
//!
//! A look-up tries the lengths that are in use, longest first. So it takes no lock, costs one hash look-up a
//! length (routing tables have few), and shares what the hash map says of values and their addresses.
//!
//! Keys are a 32-bit length in bits and the address. Bits behind the length do not count and are
//! kept as zeros (Linux gives back what was put in).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use dash_bpf::MapDef;
use dash_bpf::map::F_NO_PREALLOC;

use super::hash::Hash;
use super::{Who, check_flags};
use crate::errno::Errno;
use dash_runtime::tables::update_flags::{EXIST, NOEXIST};

/// Bytes of an address at most (`LPM_DATA_SIZE_MAX`).
const MAX_DATA: usize = 256;
const WORDS: usize = MAX_DATA * 8 / 64 + 1;

/// An LPM trie, by what it does.
#[derive(Debug)]
pub(crate) struct Lpm {
    data: usize,
    rows: Hash,
    /// One bit a length: there is such a prefix.
    lengths: Box<[AtomicU64]>,
    /// Prefixes of each length; changes hold this lock.
    counts: Mutex<Vec<u32>>,
}

impl Lpm {
    pub(crate) fn new(def: &MapDef) -> Result<Self, Errno> {
        let data = (def.key_size as usize).checked_sub(4).ok_or(Errno::Inval)?;
        if data == 0 || data > MAX_DATA || def.flags & F_NO_PREALLOC == 0 {
            return Err(Errno::Inval);
        }
        Ok(Self {
            data,
            rows: Hash::new(def, 1)?,
            lengths: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
            counts: Mutex::new(vec![0; data * 8 + 1]),
        })
    }

    /// A key's length in bits; `None` beyond the address.
    fn length(&self, key: &[u8]) -> Option<usize> {
        let (length, _) = key.split_first_chunk::<4>()?;
        let length = u32::from_ne_bytes(*length) as usize;
        (length <= self.data * 8).then_some(length)
    }

    /// The first `length` bits of a key as a row's key.
    fn masked(key: &[u8], length: usize) -> ([u8; 4 + MAX_DATA], usize) {
        let mut out = [0; 4 + MAX_DATA];
        out[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        let (whole, rest) = (length / 8, length % 8);
        let data = key.get(4..).unwrap_or_default();
        out[4..4 + whole].copy_from_slice(&data[..whole]);
        if rest > 0 {
            out[4 + whole] = data[whole] & !(0xff >> rest);
        }
        (out, 4 + data.len())
    }

    fn longest(&self, at_most: usize) -> Option<usize> {
        let (mut word, bit) = (at_most / 64, at_most % 64);
        let mut bits = self.lengths[word].load(Ordering::Acquire) & (u64::MAX >> (63 - bit));
        loop {
            if bits != 0 {
                return Some(word * 64 + 63 - bits.leading_zeros() as usize);
            }
            word = word.checked_sub(1)?;
            bits = self.lengths[word].load(Ordering::Acquire);
        }
    }

    fn matching(&self, key: &[u8]) -> Option<([u8; 4 + MAX_DATA], usize, *mut u8)> {
        let mut most = self.length(key)?;
        loop {
            let length = self.longest(most)?;
            let (row, size) = Self::masked(key, length);
            let value = self.rows.lookup(0, &row[..size], true);
            if !value.is_null() {
                return Some((row, size, value));
            }
            most = length.checked_sub(1)?;
        }
    }

    /// The value of the longest prefix, not longer than the key's length, that the key begins with.
    pub(crate) fn lookup(&self, key: &[u8]) -> *mut u8 {
        self.matching(key)
            .map_or(std::ptr::null_mut(), |(_, _, value)| value)
    }

    /// The same for control, copied.
    pub(crate) fn read(&self, key: &[u8]) -> Option<Vec<u8>> {
        let (row, size, _) = self.matching(key)?;
        self.rows.read(&row[..size])
    }

    /// # Safety
    /// `value_size` bytes are readable at `value`.
    pub(crate) unsafe fn update(
        &self,
        who: Who,
        key: &[u8],
        value: *const u8,
        flags: u64,
    ) -> Result<(), Errno> {
        check_flags(flags)?;
        let length = self.length(key).ok_or(Errno::Inval)?;
        let (row, size) = Self::masked(key, length);
        let row = &row[..size];
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let there = self.rows.read(row).is_some();
        match there {
            true if flags == NOEXIST => return Err(Errno::Exist),
            false if flags == EXIST => return Err(Errno::NoEnt),
            _ => {}
        }
        // SAFETY: by contract.
        let done = unsafe { self.rows.update(who, row, value, 0) };
        done.map_err(|errno| match errno {
            Errno::TooBig => Errno::NoSpc,
            other => other,
        })?;
        if !there {
            counts[length] += 1;
            self.lengths[length / 64].fetch_or(1 << (length % 64), Ordering::Release);
        }
        Ok(())
    }

    /// Removes exactly this prefix.
    pub(crate) fn delete(&self, key: &[u8]) -> Result<(), Errno> {
        let length = self.length(key).ok_or(Errno::Inval)?;
        let (row, size) = Self::masked(key, length);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        self.rows.delete(&row[..size])?;
        counts[length] -= 1;
        if counts[length] == 0 {
            self.lengths[length / 64].fetch_and(!(1 << (length % 64)), Ordering::Release);
        }
        Ok(())
    }

    /// The prefixes.
    pub(crate) fn rows(&self) -> &Hash {
        &self.rows
    }

    /// The slot behind a prefix's row; 0 when there is none.
    pub(crate) fn slot_after(&self, key: &[u8]) -> u32 {
        let Some(length) = self.length(key) else {
            return 0;
        };
        let (row, size) = Self::masked(key, length);
        self.rows.slot_after(&row[..size])
    }
}
