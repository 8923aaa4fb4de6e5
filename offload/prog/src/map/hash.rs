//! Hash maps: plain, per CPU, and least recently used.
//!
//! Elements live in one slab for as long as the map, so an address a program got stays memory of this
//! map whatever happens to the element; as in Linux's preallocated maps, that of a deleted element
//! may become another's. Freed elements are taken again in the order they were freed, so that takes long.
//!
//! Look-ups take no lock and write nothing (but for a mark in LRU maps, the first time). Chains end in a
//! mark of their bucket and elements have a version: a reader that was led astray by an element that
//! was freed or taken meanwhile sees it and starts over. Changes lock one of some locks by bucket. Values
//! are changed in place, under that lock; control reads under it too, so it sees whole values of
//! `update`. What programs write through addresses nothing can hold back: that is whole by aligned word.
//!
//! Least recently used is approximated by a clock: a look-up marks an element, and what makes room is the
//! first element the hand meets without a mark, which it takes away as it goes.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dash_bpf::{MapDef, MapKind};
use dash_runtime::tables::hash::HashKey;
use dash_runtime::tables::update_flags::{EXIST, NOEXIST};
use dash_wire::abi::HashLayout;
use dash_wire::abi::hash_map::{self as layout, END};

use super::{Who, check_flags};
use crate::errno::Errno;
use crate::memory::{Shared, copy, equal, zero};

/// Bytes of a key at most: as much as a program's stack (`MAX_BPF_STACK`).
pub(crate) const MAX_KEY: usize = 512;
/// Bytes in front of an element's key.
const HEADER: usize = layout::KEY;
/// Locks of a map that many may change at once.
const LOCKS: usize = 64;
/// Look-ups that were led astray so often wait for the lock.
const TRIES: u32 = 32;

// Words of an element's header. Compiled code reads the first three.
const NEXT: usize = layout::NEXT / 4;
/// Odd while it is in the map.
const VERSION: usize = layout::VERSION / 4;
const HASH: usize = layout::HASH / 4;
const FREE: usize = 3;
const USED: usize = 4;

/// A hash map.
#[derive(Debug)]
pub(crate) struct Hash {
    key: usize,
    value: usize,
    /// Bytes of one CPU's value, padded.
    stride: usize,
    /// Values an element has.
    copies: usize,
    /// Bytes of an element's values as control sees them: padded in maps per CPU, however many there are.
    shown: usize,
    element: usize,
    max: u32,
    lru: bool,
    mask: u32,
    buckets: Shared,
    elements: Shared,
    locks: Box<[Mutex<()>]>,
    free: Mutex<Free>,
    /// Elements from here on were never used. Changed with `free` locked.
    fresh: AtomicU32,
    count: AtomicUsize,
}

/// Elements that are not in the map.
#[derive(Debug)]
struct Free {
    /// First and last of those that were, plus one; 0 for none.
    first: u32,
    last: u32,
    /// Where the clock's hand is.
    hand: u32,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hash {
    pub(crate) fn new(def: &MapDef, cpus: u32) -> Result<Self, Errno> {
        Self::with_value(def, def.value_size as usize, cpus)
    }

    /// With values of another size than the definition's.
    pub(crate) fn with_value(def: &MapDef, value: usize, cpus: u32) -> Result<Self, Errno> {
        let key = def.key_size as usize;
        if key == 0 || key > MAX_KEY || value == 0 || def.max_entries == 0 {
            return Err(Errno::Inval);
        }
        if def.max_entries >= END / 2 {
            return Err(Errno::TooBig);
        }
        let per_cpu = matches!(def.kind, MapKind::PercpuHash | MapKind::LruPercpuHash);
        let lru = matches!(def.kind, MapKind::LruHash | MapKind::LruPercpuHash);
        let copies = if per_cpu { cpus as usize } else { 1 };
        let stride = value.next_multiple_of(8);
        let element = stride
            .checked_mul(copies)
            .and_then(|values| values.checked_add(HEADER + key.next_multiple_of(8)))
            .ok_or(Errno::TooBig)?;
        let buckets = layout::buckets(def.max_entries);
        let slab = element
            .checked_mul(def.max_entries as usize)
            .ok_or(Errno::TooBig)?;
        // With one lock, making room for one key may take any other's element.
        let locks = if lru { 1 } else { LOCKS.min(buckets as usize) };
        Ok(Self {
            key,
            value,
            stride,
            copies,
            shown: if per_cpu { copies * stride } else { value },
            element,
            max: def.max_entries,
            lru,
            mask: buckets - 1,
            buckets: Shared::new(buckets as usize * 4)?,
            elements: Shared::new(slab)?,
            locks: (0..locks).map(|_| Mutex::new(())).collect(),
            fresh: AtomicU32::new(0),
            free: Mutex::new(Free {
                first: 0,
                last: 0,
                hand: 0,
            }),
            count: AtomicUsize::new(0),
        })
    }

    /// What compiled code searches by.
    pub(crate) fn layout(&self) -> HashLayout {
        HashLayout {
            buckets: self.buckets.at(0).expose_provenance(),
            elements: self.elements.at(0).expose_provenance(),
            secret: HashKey::process().words(),
        }
    }

    /// Elements in the map.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn header(&self, index: u32, word: usize) -> &AtomicU32 {
        self.elements
            .word(index as usize * (self.element / 4) + word)
    }

    fn key_at(&self, index: u32) -> *mut u8 {
        self.elements.at(index as usize * self.element + HEADER)
    }

    fn value_at(&self, index: u32, copy: usize) -> *mut u8 {
        let values = HEADER + self.key.next_multiple_of(8);
        let at = index as usize * self.element + values + copy * self.stride;
        self.elements.at(at)
    }

    fn hash(&self, key: &[u8]) -> u32 {
        let keyed = HashKey::process();
        if key.len() <= 64 {
            return keyed.hash(key) as u32;
        }
        // Longer keys in pieces, each behind what the ones before gave.
        let mut sum = key.len() as u64;
        let mut piece = [0; 64];
        for bytes in key.chunks(56) {
            piece[..8].copy_from_slice(&sum.to_le_bytes());
            piece[8..].fill(0);
            piece[8..8 + bytes.len()].copy_from_slice(bytes);
            sum = keyed.hash(&piece);
        }
        sum as u32
    }

    fn lock(&self, hash: u32) -> MutexGuard<'_, ()> {
        let bucket = (hash & self.mask) as usize;
        locked(&self.locks[bucket % self.locks.len()])
    }

    /// The element with this key. Without the bucket's lock it may be gone as soon as this returns.
    fn find(&self, key: &[u8], hash: u32) -> Option<u32> {
        for _ in 0..TRIES {
            if let Ok(found) = self.walk(key, hash) {
                return found;
            }
        }
        let _lock = self.lock(hash);
        self.walk(key, hash).ok().flatten()
    }

    /// One try; `Err` when an element that was not ours led away.
    fn walk(&self, key: &[u8], hash: u32) -> Result<Option<u32>, ()> {
        let bucket = hash & self.mask;
        let mut link = self.buckets.word(bucket as usize).load(Ordering::Acquire);
        loop {
            // A bucket's first link is 0 before its first element.
            if link == 0 {
                return Ok(None);
            }
            if link & END != 0 {
                return match link & !END == bucket {
                    true => Ok(None),
                    false => Err(()),
                };
            }
            let index = link - 1;
            let version = self.header(index, VERSION).load(Ordering::Acquire);
            if self.header(index, HASH).load(Ordering::Relaxed) == hash {
                // SAFETY: an element's key bytes, inside the slab.
                let same = unsafe { equal(self.key_at(index), key) };
                fence(Ordering::Acquire);
                if self.header(index, VERSION).load(Ordering::Relaxed) != version {
                    return Err(());
                }
                if same && version & 1 == 1 {
                    return Ok(Some(index));
                }
            }
            link = self.header(index, NEXT).load(Ordering::Acquire);
        }
    }

    /// Address of this CPU's value; null when there is none. `mark` says that it counts as use.
    pub(crate) fn lookup(&self, cpu: u32, key: &[u8], mark: bool) -> *mut u8 {
        let Some(index) = self.find(key, self.hash(key)) else {
            return std::ptr::null_mut();
        };
        if self.lru && mark {
            let used = self.header(index, USED);
            if used.load(Ordering::Relaxed) == 0 {
                used.store(1, Ordering::Relaxed);
            }
        }
        let copy = if self.copies > 1 { cpu as usize } else { 0 };
        match copy < self.copies {
            true => self.value_at(index, copy),
            false => std::ptr::null_mut(),
        }
    }

    /// Sets a value: that of one CPU, or those of all one after the other.
    ///
    /// # Safety
    /// `value` points to as many readable bytes: `value_size`, or for control and a map of values per
    /// CPU as many padded to 8 as there are CPUs.
    pub(crate) unsafe fn update(
        &self,
        who: Who,
        key: &[u8],
        value: *const u8,
        flags: u64,
    ) -> Result<(), Errno> {
        check_flags(flags)?;
        let hash = self.hash(key);
        let _lock = self.lock(hash);
        // Under the lock nothing of this chain is freed or taken.
        if let Some(index) = self.walk(key, hash).ok().flatten() {
            if flags == NOEXIST {
                return Err(Errno::Exist);
            }
            // SAFETY: by contract.
            unsafe { self.set(index, who, value) };
            if self.lru {
                self.header(index, USED).store(1, Ordering::Relaxed);
            }
            return Ok(());
        }
        if flags == EXIST {
            return Err(Errno::NoEnt);
        }
        let index = self.take().ok_or(Errno::TooBig)?;
        // Its version is even, and readers of what it was check that after they have read.
        fence(Ordering::Release);
        // SAFETY: the element is ours alone; the key's and values' bytes are inside the slab.
        unsafe {
            copy(self.key_at(index), key.as_ptr(), self.key);
            zero(self.value_at(index, 0), self.copies * self.stride);
            self.set(index, who, value);
        }
        self.header(index, HASH).store(hash, Ordering::Relaxed);
        self.header(index, USED).store(0, Ordering::Relaxed);
        let first = self.buckets.word((hash & self.mask) as usize);
        let next = match first.load(Ordering::Relaxed) {
            0 => END | (hash & self.mask),
            link => link,
        };
        self.header(index, NEXT).store(next, Ordering::Relaxed);
        let version = self.header(index, VERSION);
        version.store(
            version.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Release,
        );
        first.store(index + 1, Ordering::Release);
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// # Safety
    /// As [`update`](Self::update); the element is locked or not in the map.
    unsafe fn set(&self, index: u32, who: Who, value: *const u8) {
        let to = |copy| self.value_at(index, copy);
        match who {
            // SAFETY: one value by contract.
            Who::Program(cpu) if self.copies > 1 => unsafe {
                copy(to((cpu as usize).min(self.copies - 1)), value, self.value);
            },
            Who::Control if self.copies > 1 => {
                for cpu in 0..self.copies {
                    // SAFETY: as many padded values by contract.
                    unsafe { copy(to(cpu), value.add(cpu * self.stride), self.value) };
                }
            }
            // SAFETY: one value by contract.
            _ => unsafe { copy(to(0), value, self.value) },
        }
    }

    /// An element that is not in the map; in an LRU map that is full, one that was.
    fn take(&self) -> Option<u32> {
        let mut free = locked(&self.free);
        // Used ones last: the longer they lie, the fewer still hold their addresses.
        let fresh = self.fresh.load(Ordering::Relaxed);
        if fresh < self.max {
            self.fresh.store(fresh + 1, Ordering::Release);
            return Some(fresh);
        }
        if let Some(index) = free.first.checked_sub(1) {
            free.first = self.header(index, FREE).load(Ordering::Relaxed);
            if free.first == 0 {
                free.last = 0;
            }
            return Some(index);
        }
        if !self.lru {
            return None;
        }
        // Everything is in the map. After one round of the hand nothing is marked but what look-ups mark
        // meanwhile; then whatever it points at goes.
        for round in 0..=u64::from(self.max) * 2 {
            let index = free.hand;
            free.hand = (free.hand + 1) % self.max;
            let used = self.header(index, USED);
            if used.load(Ordering::Relaxed) == 0 || round == u64::from(self.max) * 2 {
                self.unlink(index);
                return Some(index);
            }
            used.store(0, Ordering::Relaxed);
        }
        None
    }

    /// Takes an element out of its chain. Its bucket is locked.
    fn unlink(&self, index: u32) {
        let hash = self.header(index, HASH).load(Ordering::Relaxed);
        let mut link = self.buckets.word((hash & self.mask) as usize);
        loop {
            match link.load(Ordering::Relaxed) {
                at if at == index + 1 => break,
                at if at == 0 || at & END != 0 => return,
                at => link = self.header(at - 1, NEXT),
            }
        }
        let next = self.header(index, NEXT).load(Ordering::Relaxed);
        link.store(next, Ordering::Release);
        let version = self.header(index, VERSION);
        version.store(
            version.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Release,
        );
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn delete(&self, key: &[u8]) -> Result<(), Errno> {
        let hash = self.hash(key);
        let _lock = self.lock(hash);
        let index = self.walk(key, hash).ok().flatten().ok_or(Errno::NoEnt)?;
        self.unlink(index);
        let mut free = locked(&self.free);
        self.header(index, FREE).store(0, Ordering::Relaxed);
        match free.last.checked_sub(1) {
            Some(last) => self.header(last, FREE).store(index + 1, Ordering::Relaxed),
            None => free.first = index + 1,
        }
        free.last = index + 1;
        Ok(())
    }

    /// Copies an element's values out, of all CPUs, for control.
    pub(crate) fn read(&self, key: &[u8]) -> Option<Vec<u8>> {
        let hash = self.hash(key);
        let _lock = self.lock(hash);
        let index = self.walk(key, hash).ok().flatten()?;
        Some(self.values(index))
    }

    fn values(&self, index: u32) -> Vec<u8> {
        let mut values = vec![0; self.shown];
        for (cpu, to) in values.chunks_mut(self.stride).enumerate() {
            // SAFETY: the element's value, inside the slab, and as many bytes of `to`.
            unsafe { copy(to.as_mut_ptr(), self.value_at(index, cpu), self.value) };
        }
        values
    }

    fn key_of(&self, index: u32) -> Vec<u8> {
        let mut key = vec![0; self.key];
        // SAFETY: the element's key, inside the slab.
        unsafe { copy(key.as_mut_ptr(), self.key_at(index), self.key) };
        key
    }

    /// The next element at or after slot `from` of the slab: the slot behind it, key and values. What is added
    /// or deleted meanwhile may be missed.
    pub(crate) fn next(&self, from: u32) -> Option<(u32, Vec<u8>, Vec<u8>)> {
        for index in from..self.fresh.load(Ordering::Acquire) {
            let alive = || self.header(index, VERSION).load(Ordering::Acquire) & 1 == 1;
            if !alive() {
                continue;
            }
            let hash = self.header(index, HASH).load(Ordering::Relaxed);
            let _lock = self.lock(hash);
            // Locked, it changes no more, if the lock is still that of its key.
            if alive() && self.header(index, HASH).load(Ordering::Relaxed) == hash {
                return Some((index + 1, self.key_of(index), self.values(index)));
            }
        }
        None
    }

    /// The next element at or after slot `from` of the slab, as programs get it: the slot behind it, and where
    /// its key and this CPU's value are. It may be gone at any time, as any element a program has.
    pub(crate) fn element(&self, cpu: u32, from: u32) -> Option<(u32, *mut u8, *mut u8)> {
        let end = self.fresh.load(Ordering::Acquire);
        let alive = |index: &u32| self.header(*index, VERSION).load(Ordering::Acquire) & 1 == 1;
        let index = (from..end).find(alive)?;
        let copy = if self.copies > 1 { cpu as usize } else { 0 };
        Some((index + 1, self.key_at(index), self.value_at(index, copy)))
    }

    /// Whether bytes are inside some element's key, or some element's value of a CPU (`writable`).
    pub(crate) fn holds(&self, at: usize, len: usize, cpu: u32, writable: bool) -> bool {
        let (start, bytes) = self.range();
        let Some(at) = at.checked_sub(start).filter(|at| *at < bytes) else {
            return false;
        };
        let copy = if self.copies > 1 { cpu as usize } else { 0 };
        let values = HEADER + self.key.next_multiple_of(8);
        let (from, size) = match writable {
            true => (values + copy * self.stride, self.value),
            false => (HEADER, self.key),
        };
        let inside = (at % self.element).checked_sub(from);
        inside.is_some_and(|inside| inside <= size && len <= size - inside)
    }

    /// The slot behind a key's element; 0 when there is none.
    pub(crate) fn slot_after(&self, key: &[u8]) -> u32 {
        self.find(key, self.hash(key)).map_or(0, |index| index + 1)
    }

    /// Addresses programs may get: first byte and length.
    pub(crate) fn range(&self) -> (usize, usize) {
        (self.elements.at(0).addr(), self.element * self.max as usize)
    }
}
