//! Maps that hold no memory of programs: programs, ports, sockets and other maps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_epoch as epoch;
use dash_bpf::{MapDef, MapKind};
use dash_runtime::tables::update_flags::{EXIST, NOEXIST};

use super::array::Array;
use super::hash::Hash;
use super::{Inner, Who, check_flags};
use crate::errno::Errno;

/// Program array, device map or socket map: a number a slot, or nothing.
#[derive(Debug)]
pub(crate) struct Numbers {
    kind: MapKind,
    /// The number plus one.
    slots: Box<[AtomicU64]>,
    /// What programs see in device and socket maps: the number, and zeros. Empty in program arrays.
    seen: Box<[AtomicU64]>,
    /// Program arrays: numbers are below.
    programs: AtomicU64,
}

/// Most slots: their numbers are in memory from the start.
const MOST_SLOTS: u32 = 1 << 20;

impl Numbers {
    pub(crate) fn new(def: &MapDef) -> Result<Self, Errno> {
        let device = def.kind == MapKind::DevMap;
        let value = def.value_size == 4 || device && def.value_size == 8;
        if def.key_size != 4 || !value || def.max_entries == 0 {
            return Err(Errno::Inval);
        }
        if def.max_entries > MOST_SLOTS {
            return Err(Errno::TooBig);
        }
        let seen = match def.kind {
            MapKind::ProgArray => 0,
            _ => def.max_entries,
        };
        Ok(Self {
            kind: def.kind,
            slots: (0..def.max_entries).map(|_| AtomicU64::new(0)).collect(),
            seen: (0..seen).map(|_| AtomicU64::new(0)).collect(),
            programs: AtomicU64::new(0),
        })
    }

    /// Says how many programs there are to be called.
    pub(crate) fn allow(&self, programs: u32) {
        self.programs.store(u64::from(programs), Ordering::Release);
    }

    pub(crate) fn entries(&self) -> u32 {
        self.slots.len() as u32
    }

    /// What is in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<u32> {
        let number = self.slots.get(slot as usize)?.load(Ordering::Acquire);
        number.checked_sub(1).map(|number| number as u32)
    }

    /// Where a program reads what is in a slot; null when nothing is.
    pub(crate) fn address(&self, slot: u32) -> *mut u8 {
        match (self.get(slot), self.seen.get(slot as usize)) {
            (Some(_), Some(seen)) => seen.as_ptr().cast(),
            _ => std::ptr::null_mut(),
        }
    }

    pub(crate) fn set(&self, slot: u32, number: u32, flags: u64) -> Result<(), Errno> {
        check_flags(flags)?;
        let to = self.slots.get(slot as usize).ok_or(Errno::TooBig)?;
        match self.kind {
            // Linux takes program arrays' updates with BPF_ANY alone.
            MapKind::ProgArray if flags != 0 => return Err(Errno::Inval),
            MapKind::ProgArray if u64::from(number) >= self.programs.load(Ordering::Acquire) => {
                return Err(Errno::Inval);
            }
            MapKind::XskMap => {
                let there = to.load(Ordering::Acquire) != 0;
                match there {
                    true if flags == NOEXIST => return Err(Errno::Exist),
                    false if flags == EXIST => return Err(Errno::NoEnt),
                    _ => {}
                }
            }
            _ if flags == NOEXIST => return Err(Errno::Exist),
            _ => {}
        }
        // Interface 0 empties a slot of a device map.
        let empty = self.kind == MapKind::DevMap && number == 0;
        let value = if empty { 0 } else { u64::from(number) + 1 };
        // Before: who finds the slot in use finds the number there. Who found another keeps reading the place, and sees
        // the new one.
        if let Some(seen) = self.seen.get(slot as usize) {
            let bytes = [number.to_ne_bytes(), [0; 4]].concat();
            let word = bytes
                .first_chunk()
                .map_or(0, |word| u64::from_ne_bytes(*word));
            seen.store(word, Ordering::Release);
        }
        to.store(value, Ordering::Release);
        Ok(())
    }

    pub(crate) fn clear(&self, slot: u32) -> Result<(), Errno> {
        let at = self.slots.get(slot as usize);
        let at = at.ok_or(match self.kind {
            MapKind::ProgArray => Errno::TooBig,
            _ => Errno::Inval,
        })?;
        let before = at.swap(0, Ordering::AcqRel);
        match self.kind {
            MapKind::ProgArray if before == 0 => Err(Errno::NoEnt),
            _ => Ok(()),
        }
    }
}

/// An array or hash whose values are maps.
///
/// A slot holds the address of a map it keeps alive. Programs that look maps up run with
/// `crossbeam-epoch` pinned; what is replaced is let go once nobody is pinned who may have seen it.
#[derive(Debug)]
pub(crate) struct Outer {
    slots: Slots,
    template: MapDef,
    /// Changes hold it.
    changes: Mutex<()>,
}

#[derive(Debug)]
enum Slots {
    Array(Array),
    Hash(Hash),
}

/// The address of a map as the slots keep it.
const POINTER: usize = 8;

impl Outer {
    pub(crate) fn new(def: &MapDef) -> Result<Self, Errno> {
        let inner = def.inner.as_ref().ok_or(Errno::Inval)?;
        if def.value_size != 4 || inner.template.kind.holds_maps() {
            return Err(Errno::Inval);
        }
        Ok(Self {
            slots: match def.kind {
                MapKind::ArrayOfMaps => Slots::Array(Array::with_value(def, POINTER, 1)?),
                _ => Slots::Hash(Hash::with_value(def, POINTER, 1)?),
            },
            template: inner.template.clone(),
            changes: Mutex::default(),
        })
    }

    fn slot(&self, key: &[u8]) -> Option<&AtomicU64> {
        let at = match &self.slots {
            Slots::Array(array) => array.element(0, super::index_of(key)),
            Slots::Hash(hash) => hash.lookup(0, key, true),
        };
        // SAFETY: values are 8 bytes, aligned to 8, of memory that lives as long as `self`; all access
        // to them is atomic.
        (!at.is_null()).then(|| unsafe { &*at.cast::<AtomicU64>() })
    }

    /// What a program on this CPU gets for a key: the map's handle, or null. The caller is pinned for
    /// as long as the program uses it.
    pub(crate) fn lookup(&self, cpu: u32, key: &[u8]) -> *mut u8 {
        let Some(slot) = self.slot(key) else {
            return std::ptr::null_mut();
        };
        let inner = address(slot.load(Ordering::Acquire));
        if inner.is_null() {
            return std::ptr::null_mut();
        }
        // SAFETY: slots hold addresses from `Arc::into_raw`, let go only after who was pinned when
        // they were replaced no longer is; the caller is.
        unsafe { (*inner).handle(cpu) }.cast_mut().cast()
    }

    /// The map at a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Arc<Inner>> {
        let _pinned = epoch::pin();
        let inner = address(self.slot(key)?.load(Ordering::Acquire));
        if inner.is_null() {
            return None;
        }
        // SAFETY: alive, as in `lookup`; the count goes up for the `Arc` that is made.
        unsafe {
            Arc::increment_strong_count(inner);
            Some(Arc::from_raw(inner))
        }
    }

    /// Puts a map at a key.
    pub(crate) fn set(&self, key: &[u8], map: Arc<Inner>, flags: u64) -> Result<(), Errno> {
        let (template, def) = (&self.template, map.def());
        let array = template.kind.is_array();
        let same = (
            template.kind,
            template.key_size,
            template.value_size,
            template.flags,
        ) == (def.kind, def.key_size, def.value_size, def.flags)
            && (!array || template.max_entries == def.max_entries);
        if !same {
            return Err(Errno::Inval);
        }
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Arc::into_raw(map);
        let before = self
            .slot(key)
            .map_or(0, |slot| slot.load(Ordering::Acquire));
        let value = (new.expose_provenance() as u64).to_ne_bytes();
        let done = match &self.slots {
            Slots::Array(array) => {
                // SAFETY: a value is 8 bytes.
                unsafe { array.update(Who::Control, super::index_of(key), value.as_ptr(), flags) }
            }
            // SAFETY: a value is 8 bytes.
            Slots::Hash(hash) => unsafe { hash.update(Who::Control, key, value.as_ptr(), flags) },
        };
        match done {
            Ok(()) => let_go(before),
            // SAFETY: from `into_raw` above, and in no slot.
            Err(_) => drop(unsafe { Arc::from_raw(new) }),
        }
        done
    }

    pub(crate) fn clear(&self, key: &[u8]) -> Result<(), Errno> {
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = self.slot(key);
        match &self.slots {
            Slots::Array(_) => {
                let slot = slot.ok_or(Errno::Inval)?;
                match slot.swap(0, Ordering::AcqRel) {
                    0 => return Err(Errno::NoEnt),
                    before => let_go(before),
                }
            }
            Slots::Hash(hash) => {
                let before = slot.ok_or(Errno::NoEnt)?.swap(0, Ordering::AcqRel);
                let done = hash.delete(key);
                let_go(before);
                done?;
            }
        }
        Ok(())
    }

    /// The hash behind it, if it is one.
    pub(crate) fn hash(&self) -> Option<&Hash> {
        match &self.slots {
            Slots::Array(_) => None,
            Slots::Hash(hash) => Some(hash),
        }
    }
}

fn address(word: u64) -> *const Inner {
    std::ptr::with_exposed_provenance(word as usize)
}

/// Drops a slot's share of a map once no program can still use it.
fn let_go(word: u64) {
    let inner = address(word);
    if inner.is_null() {
        return;
    }
    let guard = epoch::pin();
    // SAFETY: the word came from `Arc::into_raw` and is in no slot any more; who still uses it is pinned.
    // Maps may be dropped by any thread.
    unsafe { guard.defer_unchecked(move || drop(Arc::from_raw(inner))) };
}

impl Drop for Outer {
    fn drop(&mut self) {
        let words: Vec<u64> = match &self.slots {
            Slots::Array(array) => (0..array.entries())
                .filter_map(|index| array.read(index))
                .filter_map(|value| Some(u64::from_ne_bytes(value.try_into().ok()?)))
                .collect(),
            Slots::Hash(hash) => {
                let mut words = Vec::new();
                let mut from = 0;
                while let Some((next, _, value)) = hash.next(from) {
                    words.extend(value.try_into().ok().map(u64::from_ne_bytes));
                    from = next;
                }
                words
            }
        };
        words.into_iter().for_each(let_go);
    }
}
