//! First fragments, remembered for those that follow: a small table that all workers share.
//!
//! Fragments after the first have no ports, so a NIC spreads them over queues otherwise than the first,
//! and the worker that receives one is rarely the flow's owner. What a first fragment said is
//! therefore kept where every worker finds it, before owners are asked for; packets that are whole
//! never come here.
//!
//! Sets of [`WAYS`] entries with a lock each, held for a copy of 56 bytes. A full set forgets what it
//! got first. When entries end is the programs' business: their time is in the value.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dash_wire::tables::{FragmentKey, FragmentRow};

use super::bytes::Bytes;
use super::hash::HashKey;
use super::{MapOps, errno};

const KEY: usize = size_of::<FragmentKey>();
const VALUE: usize = size_of::<FragmentRow>();
const WAYS: usize = 8;

/// A first fragment.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: [u8; KEY],
    value: [u8; VALUE],
    /// Puts into the set before this one; 0 for a free entry.
    age: u64,
}

const FREE: Entry = Entry {
    key: [0; KEY],
    value: [0; VALUE],
    age: 0,
};

#[derive(Debug)]
struct Set {
    puts: u64,
    entries: [Entry; WAYS],
}

impl Set {
    fn find(&mut self, key: &[u8; KEY]) -> Option<&mut Entry> {
        let live = |entry: &&mut Entry| entry.age != 0 && entry.key == *key;
        self.entries.iter_mut().find(live)
    }
}

/// The first fragments of all workers.
#[derive(Debug)]
pub struct Fragments {
    hasher: &'static HashKey,
    sets: Box<[Mutex<Set>]>,
}

impl Fragments {
    /// Room for about `entries`.
    pub fn new(entries: u32) -> Self {
        let sets = (entries as usize).div_ceil(WAYS).max(1);
        let set = || {
            Mutex::new(Set {
                puts: 0,
                entries: [FREE; WAYS],
            })
        };
        Self {
            hasher: HashKey::process(),
            sets: std::iter::repeat_with(set).take(sets).collect(),
        }
    }

    fn set(&self, key: &[u8; KEY]) -> MutexGuard<'_, Set> {
        // The high half, scaled: below the number of sets.
        let hash = self.hasher.hash(key) >> 32;
        let at = ((hash * self.sets.len() as u64) >> 32) as usize;
        // Whoever panicked left whole entries: they are written field by field, the age last.
        self.sets[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &[u8; KEY]) -> Option<[u8; VALUE]> {
        self.set(key).find(key).map(|entry| entry.value)
    }

    fn put(&self, key: &[u8; KEY], value: [u8; VALUE]) {
        let mut set = self.set(key);
        set.puts += 1;
        let age = set.puts;
        let new = Entry {
            key: *key,
            value,
            age,
        };
        match set.find(key) {
            Some(entry) => *entry = new,
            None => {
                if let Some(oldest) = set.entries.iter_mut().min_by_key(|entry| entry.age) {
                    *oldest = new;
                }
            }
        }
    }

    /// False when it was not there.
    fn remove(&self, key: &[u8; KEY]) -> bool {
        self.set(key).find(key).map(|entry| *entry = FREE).is_some()
    }
}

/// The fragments as one worker's programs see them.
#[derive(Debug)]
pub struct FragmentView {
    shared: Arc<Fragments>,
    /// Value of the last look-up: a copy, as other workers write the table.
    found: Bytes,
}

impl FragmentView {
    /// A table of the worker's own.
    pub fn new(entries: u32) -> Self {
        Self {
            shared: Arc::new(Fragments::new(entries)),
            found: Bytes::zeroed(VALUE),
        }
    }

    /// Uses a table with others from now on.
    pub fn share(&mut self, shared: Arc<Fragments>) {
        self.shared = shared;
    }
}

/// The key at an address.
///
/// # Safety
/// [`KEY`] readable bytes.
unsafe fn key_at(key: *const u8) -> [u8; KEY] {
    // SAFETY: by contract; bytes have no alignment.
    unsafe { key.cast::<[u8; KEY]>().read() }
}

// SAFETY: a look-up's result is memory of `found`, which lives as long as the map and is at least a
// value long.
unsafe impl MapOps for FragmentView {
    unsafe fn lookup(&self, key: *const u8) -> *mut u8 {
        // SAFETY: `key_size` readable bytes by contract.
        let key = unsafe { key_at(key) };
        match self.shared.get(&key) {
            None => std::ptr::null_mut(),
            Some(value) => {
                let to = self.found.at(0);
                // SAFETY: `found` is a value long, no reference to its bytes exists (`Bytes`), and
                // only the thread whose programs use this view touches it.
                unsafe { to.cast::<[u8; VALUE]>().write(value) };
                to
            }
        }
    }

    unsafe fn update(&self, key: *const u8, value: *const u8, _flags: u64) -> i64 {
        // SAFETY: `key_size` and `value_size` readable bytes by contract.
        let (key, value) = unsafe { (key_at(key), value.cast::<[u8; VALUE]>().read()) };
        self.shared.put(&key, value);
        0
    }

    unsafe fn delete(&self, key: *const u8) -> i64 {
        // SAFETY: `key_size` readable bytes by contract.
        let key = unsafe { key_at(key) };
        if self.shared.remove(&key) {
            0
        } else {
            errno::ENOENT
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FragmentView, Fragments, KEY, VALUE, WAYS};
    use crate::tables::MapOps;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn key(n: u8) -> [u8; KEY] {
        let mut key = [7; KEY];
        key[n as usize % KEY] = n.wrapping_add(1);
        key
    }

    proptest! {
        /// The twin is a map that forgets nothing.
        #[test]
        fn what_is_found_is_what_was_put_last(steps in prop::collection::vec((0u8..20, 0u8..4, any::<u8>()), 1..200)) {
            let table = Fragments::new(64);
            let mut twin = BTreeMap::new();
            for (n, what, value) in steps {
                match what {
                    0 => {
                        // What was forgotten may be there no more than in the twin.
                        if table.remove(&key(n)) {
                            prop_assert!(twin.contains_key(&n));
                        }
                        twin.remove(&n);
                    }
                    1 => {
                        let found = table.get(&key(n));
                        prop_assert!(found.is_none() || found == twin.get(&n).copied(), "{:?}", found);
                    }
                    _ => {
                        table.put(&key(n), [value; VALUE]);
                        twin.insert(n, [value; VALUE]);
                        prop_assert_eq!(table.get(&key(n)), Some([value; VALUE]));
                    }
                }
            }
        }

        #[test]
        fn a_set_forgets_what_it_got_first(puts in prop::collection::vec(0u8..30, 1..60)) {
            let table = Fragments::new(1);
            let mut twin: Vec<u8> = Vec::new();
            for n in puts {
                table.put(&key(n), [n; VALUE]);
                twin.retain(|other| *other != n);
                twin.push(n);
                if twin.len() > WAYS {
                    twin.remove(0);
                }
                for other in 0..30 {
                    let want = twin.contains(&other).then_some([other; VALUE]);
                    prop_assert_eq!(table.get(&key(other)), want);
                }
            }
        }
    }

    #[test]
    fn what_one_worker_puts_another_finds_and_keeps_while_it_is_overwritten() {
        let shared = Arc::new(Fragments::new(64));
        let [mut a, mut b] = [FragmentView::new(8), FragmentView::new(8)];
        a.share(Arc::clone(&shared));
        b.share(shared);
        let key = key(3);
        // SAFETY: keys and values are as long as the table's.
        unsafe {
            assert!(b.lookup(key.as_ptr()).is_null());
            assert_eq!(a.update(key.as_ptr(), [1; VALUE].as_ptr(), 0), 0);
            let found = b.lookup(key.as_ptr());
            assert_eq!(found.cast::<[u8; VALUE]>().read(), [1; VALUE]);
            assert_eq!(a.update(key.as_ptr(), [2; VALUE].as_ptr(), 0), 0);
            assert_eq!(found.cast::<[u8; VALUE]>().read(), [1; VALUE], "a copy");
            assert_eq!(a.delete(key.as_ptr()), 0);
            assert_ne!(b.delete(key.as_ptr()), 0);
            assert!(a.lookup(key.as_ptr()).is_null());
        }
    }
}
