//! Maps: what programs and whoever is outside share.
//!
//! A [`Map`] is a handle; clones are the same map. Everything on it may be called from any thread at any time,
//! while programs run. What each sees of the other:
//!
//! - every aligned 8-byte word is whole;
//! - what `update` writes is seen whole by `lookup` and dumps from outside, for hashes, tries and queues;
//!   array elements and what programs write through the address a look-up gave are whole by word;
//! - an address that a program got stays memory of that map. If the element is deleted meanwhile, what
//!   the program writes is lost, or, once enough others were deleted, another element's: as in Linux.
//!
//! Return values, flags and limits are Linux's ([`Errno`]).

mod array;
pub(crate) mod events;
pub(crate) mod hash;
mod lpm;
mod queue;
pub(crate) mod ring;
mod slots;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dash_bpf::helper::UPDATE;
use dash_bpf::{MapDef, MapKind};
use dash_runtime::tables::{Handled, MapOps, update_flags};
use dash_wire::abi::{HashLayout, MapHandle};
use thiserror::Error;

use crate::errno::{Errno, to_helper};
use array::Array;
use events::Events;
use hash::{Hash, MAX_KEY};
use lpm::Lpm;
use queue::Queue;
use ring::Ring;
use slots::{Numbers, Outer};

/// Most CPUs, so workers, a map has values for.
pub const MAX_CPUS: u32 = 1024;

/// Why a map cannot do what was asked of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{operation} of map {map}: {errno}")]
pub struct MapError {
    /// Name of the map.
    pub map: String,
    /// What was asked.
    pub operation: &'static str,
    /// Why not.
    #[source]
    pub errno: Errno,
}

/// Who changes a map: values per CPU are one to programs, and all to control.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    Program(u32),
    Control,
}

/// The flags an update may have: one of three.
fn check_flags(flags: u64) -> Result<(), Errno> {
    match flags > update_flags::EXIST {
        true => Err(Errno::Inval),
        false => Ok(()),
    }
}

/// An array's index, from its key.
fn index_of(key: &[u8]) -> u32 {
    key.try_into().map_or(u32::MAX, u32::from_ne_bytes)
}

/// One kind's table.
#[derive(Debug)]
pub(crate) enum Store {
    Array(Array),
    Hash(Hash),
    Lpm(Lpm),
    Queue(Queue),
    Ring(Ring),
    Events(Events),
    Numbers(Numbers),
    Maps(Outer),
}

/// A map as one CPU's programs see it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct View {
    /// Of hash maps; compiled code finds it behind the map's operations.
    layout: HashLayout,
    pub(crate) store: Arc<Store>,
    pub(crate) kind: MapKind,
    pub(crate) key_size: usize,
    pub(crate) value_size: usize,
    /// Programs may write its values.
    pub(crate) writable: bool,
    cpu: u32,
    cpus: u32,
}

/// What [`Map`]s share.
#[derive(Debug)]
pub(crate) struct Inner {
    id: u64,
    def: MapDef,
    cpus: u32,
    frozen: AtomicBool,
    store: Arc<Store>,
    views: Box<[Handled<View>]>,
}

impl Inner {
    pub(crate) fn def(&self) -> &MapDef {
        &self.def
    }

    /// What programs on a CPU hold as the map's address.
    pub(crate) fn handle(&self, cpu: u32) -> *const MapHandle {
        let view = self.views.get(cpu as usize).or(self.views.first());
        view.map_or(std::ptr::null(), Handled::handle)
    }
}

/// A map. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Map(Arc<Inner>);

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// An element as control sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its key; empty for queues and stacks.
    pub key: Vec<u8>,
    /// Its value; those of all CPUs, each padded to 8 bytes, in maps of values per CPU.
    pub value: Vec<u8>,
}

impl Map {
    /// An empty map, or one with its definition's contents, whose kinds per CPU have values for CPUs
    /// (workers) 0 to `cpus - 1`.
    ///
    /// # Errors
    /// The definition is not one of a map Linux would make, a kind that is not here (`EOPNOTSUPP`), or there
    /// is no memory.
    pub fn new(def: &MapDef, cpus: u32) -> Result<Self, MapError> {
        let store = store(def, cpus).map_err(|errno| MapError {
            map: def.name.clone(),
            operation: "creation",
            errno,
        })?;
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let store = Arc::new(store);
        let view = |cpu| {
            Handled::new(View {
                layout: match &*store {
                    Store::Hash(hash) => hash.layout(),
                    _ => HashLayout::NONE,
                },
                store: Arc::clone(&store),
                kind: def.kind,
                key_size: def.key_size as usize,
                value_size: def.value_size as usize,
                writable: UPDATE.contains(&def.kind) && !def.read_only(),
                cpu,
                cpus,
            })
        };
        Ok(Self(Arc::new(Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            cpus,
            frozen: AtomicBool::new(def.read_only() && !def.contents.is_empty()),
            views: (0..cpus).map(view).collect(),
            store,
            def: def.clone(),
        })))
    }

    /// Its number: no other map of the process has or had it.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Its definition.
    pub fn def(&self) -> &MapDef {
        &self.0.def
    }

    /// CPUs (workers) that have values of their own.
    pub fn cpus(&self) -> u32 {
        self.0.cpus
    }

    /// Bytes of a value as control sees it: those of all CPUs, each padded to 8, in maps per CPU.
    pub fn value_bytes(&self) -> usize {
        match self.is_per_cpu() {
            true => self.def().stride() as usize * self.cpus() as usize,
            false => self.def().value_size as usize,
        }
    }

    /// Whether each CPU has values of its own.
    pub fn is_per_cpu(&self) -> bool {
        matches!(
            self.def().kind,
            MapKind::PercpuArray | MapKind::PercpuHash | MapKind::LruPercpuHash
        )
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// Element 0 of an array as a CPU's programs see it; null for other kinds.
    pub(crate) fn array_base(&self, cpu: u32) -> *mut u8 {
        match self.store() {
            Store::Array(array) => array.base(cpu),
            _ => std::ptr::null_mut(),
        }
    }

    /// Addresses programs may get of it on this CPU: first byte and length.
    pub(crate) fn range(&self, cpu: u32) -> Option<(usize, usize)> {
        match self.store() {
            Store::Array(array) => Some((array.base(cpu).addr(), array.size())),
            Store::Hash(hash) => Some(hash.range()),
            Store::Lpm(lpm) => Some(lpm.rows().range()),
            Store::Ring(ring) => Some(ring.range()),
            Store::Queue(_) | Store::Events(_) | Store::Numbers(_) | Store::Maps(_) => None,
        }
    }

    fn fail(&self, operation: &'static str) -> impl Fn(Errno) -> MapError + '_ {
        move |errno| MapError {
            map: self.def().name.clone(),
            operation,
            errno,
        }
    }

    fn key<'k>(&self, key: &'k [u8]) -> Result<&'k [u8], Errno> {
        match key.len() == self.def().key_size as usize {
            true => Ok(key),
            false => Err(Errno::Inval),
        }
    }

    /// Copies the value of a key out: all CPUs' in maps per CPU. `None` when there is none. For a map of
    /// maps, the [`id`](Self::id) of the inner one; for a queue or stack, whose key is empty, the next value,
    /// which stays.
    ///
    /// # Errors
    /// The key is not one of this map, or the kind has no look-ups.
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        let found = self.key(key).and_then(|key| match self.store() {
            Store::Array(array) => Ok(array.read(index_of(key))),
            Store::Hash(hash) => Ok(hash.read(key)),
            Store::Lpm(lpm) => Ok(lpm.read(key)),
            Store::Queue(queue) => {
                let mut value = vec![0; self.value_bytes()];
                // SAFETY: a value's bytes.
                match unsafe { queue.next(value.as_mut_ptr(), false) } {
                    Ok(()) => Ok(Some(value)),
                    Err(_) => Ok(None),
                }
            }
            Store::Ring(_) | Store::Events(_) => Err(Errno::NotSupp),
            Store::Numbers(numbers) => Ok(numbers.get(index_of(key)).map(|number| {
                let mut value = number.to_ne_bytes().to_vec();
                value.resize(self.value_bytes(), 0);
                value
            })),
            Store::Maps(maps) => Ok(maps
                .get(key)
                .map(|map| (map.id as u32).to_ne_bytes().to_vec())),
        });
        found.map_err(self.fail("look-up"))
    }

    /// Sets the value of a key: all CPUs' in maps per CPU. `flags` is `BPF_ANY`, `BPF_NOEXIST` or
    /// `BPF_EXIST` ([`update_flags`]). Program arrays take the number of a program of their object, device maps
    /// that of a port. A queue or stack, whose key is empty, gets the value added.
    ///
    /// # Errors
    /// As Linux: see [`Errno`].
    pub fn update(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), MapError> {
        self.change(key, value, flags).map_err(self.fail("update"))
    }

    fn change(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), Errno> {
        let key = self.key(key)?;
        if self.0.frozen.load(Ordering::Acquire) {
            return Err(Errno::Perm);
        }
        let kind_has_values = !matches!(self.store(), Store::Ring(_) | Store::Events(_));
        if kind_has_values && value.len() != self.value_bytes() {
            return Err(Errno::Inval);
        }
        let (who, at) = (Who::Control, value.as_ptr());
        // SAFETY of all: `value` has the size of a value as control sees it.
        match self.store() {
            // SAFETY: see above.
            Store::Array(array) => unsafe { array.update(who, index_of(key), at, flags) },
            // There is no interface 0.
            Store::Hash(_) if self.def().kind == MapKind::DevMapHash && value[..4] == [0; 4] => {
                Err(Errno::Inval)
            }
            // SAFETY: see above.
            Store::Hash(hash) => unsafe { hash.update(who, key, at, flags) },
            // SAFETY: see above.
            Store::Lpm(lpm) => unsafe { lpm.update(who, key, at, flags) },
            // SAFETY: see above.
            Store::Queue(queue) => unsafe { queue.push(at, flags) },
            Store::Ring(_) | Store::Events(_) => Err(Errno::NotSupp),
            Store::Numbers(numbers) => {
                let number = value.first_chunk::<4>().ok_or(Errno::Inval)?;
                numbers.set(index_of(key), u32::from_ne_bytes(*number), flags)
            }
            // A number says nothing of which map is meant: `set_map`.
            Store::Maps(_) => Err(Errno::Inval),
        }
    }

    /// Sets the value that one CPU's programs see, and no other's in maps per CPU: how who runs programs
    /// tells them something of the packet at hand. Of arrays without a lock. Programs being
    /// forbidden to write does not matter here; but constants stay, as proofs rest on them.
    ///
    /// # Errors
    /// As [`update`](Self::update); or the kind is another than array and hash.
    pub fn set_for_cpu(&self, cpu: u32, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        let done = self.key(key).and_then(|key| {
            if value.len() != self.def().value_size as usize || cpu >= self.cpus() {
                return Err(Errno::Inval);
            }
            if self.0.frozen.load(Ordering::Acquire) {
                return Err(Errno::Perm);
            }
            let (who, at) = (Who::Program(cpu), value.as_ptr());
            match self.store() {
                // SAFETY: a value's bytes, as was checked.
                Store::Array(array) => unsafe { array.update(who, index_of(key), at, 0) },
                // SAFETY: as above.
                Store::Hash(hash) => unsafe { hash.update(who, key, at, 0) },
                _ => Err(Errno::NotSupp),
            }
        });
        done.map_err(self.fail("update"))
    }

    /// Puts a map into a map of maps.
    ///
    /// # Errors
    /// This holds no maps, or not such (`EINVAL`), or as [`update`](Self::update).
    pub fn set_map(&self, key: &[u8], map: &Self, flags: u64) -> Result<(), MapError> {
        let done = self.key(key).and_then(|key| match self.store() {
            Store::Maps(maps) => maps.set(key, Arc::clone(&map.0), flags),
            _ => Err(Errno::Inval),
        });
        done.map_err(self.fail("update"))
    }

    /// The map in a map of maps.
    ///
    /// # Errors
    /// This holds no maps, or the key is not one of it.
    pub fn get_map(&self, key: &[u8]) -> Result<Option<Self>, MapError> {
        let found = self.key(key).and_then(|key| match self.store() {
            Store::Maps(maps) => Ok(maps.get(key).map(Self)),
            _ => Err(Errno::Inval),
        });
        found.map_err(self.fail("look-up"))
    }

    /// Removes an element.
    ///
    /// # Errors
    /// There is none (`ENOENT`), or the kind's elements cannot be removed (`EINVAL`).
    pub fn delete(&self, key: &[u8]) -> Result<(), MapError> {
        let done = self.key(key).and_then(|key| {
            if self.0.frozen.load(Ordering::Acquire) {
                return Err(Errno::Perm);
            }
            match self.store() {
                Store::Array(_) | Store::Queue(_) => Err(Errno::Inval),
                Store::Hash(hash) => hash.delete(key),
                Store::Lpm(lpm) => lpm.delete(key),
                Store::Ring(_) | Store::Events(_) => Err(Errno::NotSupp),
                Store::Numbers(numbers) => numbers.clear(index_of(key)),
                Store::Maps(maps) => maps.clear(key),
            }
        });
        done.map_err(self.fail("deletion"))
    }

    /// Takes the next value of a queue or stack, or the next record of a ring buffer or an array of perf events; `None`
    /// when there is none.
    ///
    /// # Errors
    /// It is another kind.
    pub fn pop(&self) -> Result<Option<Vec<u8>>, MapError> {
        match self.store() {
            Store::Queue(queue) => {
                let mut value = vec![0; self.value_bytes()];
                // SAFETY: a value's bytes.
                let done = unsafe { queue.next(value.as_mut_ptr(), true) };
                Ok(done.is_ok().then_some(value))
            }
            Store::Ring(ring) => Ok(ring.next()),
            Store::Events(events) => Ok(events.next()),
            _ => Err(self.fail("pop")(Errno::NotSupp)),
        }
    }

    /// Records of programs that found no room since the map was made, where such are counted: in arrays of perf
    /// events. Of a ring buffer, programs are told.
    pub fn lost(&self) -> u64 {
        match self.store() {
            Store::Events(events) => events.lost(),
            _ => 0,
        }
    }

    /// Makes changes from outside fail with `EPERM` from now on; programs go on.
    pub fn freeze(&self) {
        self.0.frozen.store(true, Ordering::Release);
    }

    /// The key behind another, or the first one; `None` after the last. A key that is not there is
    /// before the first. What changes meanwhile may be met twice or not at all, as in Linux.
    ///
    /// # Errors
    /// The kind has no keys.
    pub fn next_key(&self, key: Option<&[u8]>) -> Result<Option<Vec<u8>>, MapError> {
        let next = key.map(|key| self.key(key)).transpose().and_then(|key| {
            let behind = |entries: u32| {
                let index = match key {
                    None => 0,
                    Some(key) => match index_of(key) {
                        index if index >= entries => 0,
                        index => index + 1,
                    },
                };
                Ok((index < entries).then(|| index.to_ne_bytes().to_vec()))
            };
            match self.store() {
                Store::Array(array) => behind(array.entries()),
                Store::Numbers(numbers) => behind(numbers.entries()),
                Store::Maps(maps) => match maps.hash() {
                    None => behind(self.def().max_entries),
                    Some(hash) => {
                        let from = key.map_or(0, |key| hash.slot_after(key));
                        Ok(hash.next(from).map(|(_, key, _)| key))
                    }
                },
                Store::Hash(hash) => {
                    let from = key.map_or(0, |key| hash.slot_after(key));
                    Ok(hash.next(from).map(|(_, key, _)| key))
                }
                Store::Lpm(lpm) => {
                    let from = key.map_or(0, |key| lpm.slot_after(key));
                    Ok(lpm.rows().next(from).map(|(_, key, _)| key))
                }
                Store::Queue(_) | Store::Ring(_) | Store::Events(_) => Err(Errno::NotSupp),
            }
        });
        next.map_err(self.fail("next key"))
    }

    /// Everything in it, copied element by element while programs go on: each element as [`lookup`](Self::lookup)
    /// sees it, all together no single moment's. Empty slots are left out. What is in a ring buffer stays there, and is
    /// not shown.
    pub fn dump(&self) -> Vec<Element> {
        let hash = |hash: &Hash| {
            let mut all = Vec::new();
            let mut from = 0;
            while let Some((next, key, value)) = hash.next(from) {
                all.push(Element { key, value });
                from = next;
            }
            all
        };
        let indexed = |entries: u32| {
            (0..entries)
                .filter_map(|index| {
                    let key = index.to_ne_bytes().to_vec();
                    let value = self.lookup(&key).ok().flatten()?;
                    Some(Element { key, value })
                })
                .collect()
        };
        match self.store() {
            Store::Array(array) => indexed(array.entries()),
            Store::Numbers(numbers) => indexed(numbers.entries()),
            Store::Hash(all) => hash(all),
            Store::Lpm(lpm) => hash(lpm.rows()),
            Store::Maps(maps) => match maps.hash() {
                None => indexed(self.def().max_entries),
                Some(outer) => hash(outer)
                    .into_iter()
                    .filter_map(|element| {
                        let value = self.lookup(&element.key).ok().flatten()?;
                        Some(Element { value, ..element })
                    })
                    .collect(),
            },
            Store::Queue(queue) => queue
                .all()
                .into_iter()
                .map(|value| Element {
                    key: Vec::new(),
                    value,
                })
                .collect(),
            Store::Ring(_) | Store::Events(_) => Vec::new(),
        }
    }

    /// Elements in it now: of an array all, of program, device and outer arrays those in use, of a ring
    /// buffer or perf events bytes not yet read.
    pub fn len(&self) -> u64 {
        match self.store() {
            Store::Array(array) => u64::from(array.entries()),
            Store::Hash(hash) => hash.len() as u64,
            Store::Lpm(lpm) => lpm.rows().len() as u64,
            Store::Queue(queue) => queue.len() as u64,
            Store::Ring(ring) => ring.query(0),
            Store::Events(events) => events.waiting(),
            Store::Numbers(numbers) => (0..numbers.entries())
                .filter(|&slot| numbers.get(slot).is_some())
                .count() as u64,
            Store::Maps(_) => self.dump().len() as u64,
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says how many programs the numbers in a program array may name.
    pub(crate) fn allow_programs(&self, programs: u32) {
        if let Store::Numbers(numbers) = self.store() {
            numbers.allow(programs);
        }
    }
}

fn store(def: &MapDef, cpus: u32) -> Result<Store, Errno> {
    if cpus == 0 || cpus > MAX_CPUS {
        return Err(Errno::Inval);
    }
    Ok(match def.kind {
        MapKind::Array | MapKind::PercpuArray => Store::Array(Array::new(def, cpus)?),
        MapKind::Hash | MapKind::PercpuHash | MapKind::LruHash | MapKind::LruPercpuHash => {
            Store::Hash(Hash::new(def, cpus)?)
        }
        MapKind::LpmTrie => Store::Lpm(Lpm::new(def)?),
        MapKind::Queue | MapKind::Stack => Store::Queue(Queue::new(def)?),
        MapKind::RingBuf => Store::Ring(Ring::new(def)?),
        MapKind::ProgArray | MapKind::DevMap | MapKind::XskMap => {
            Store::Numbers(Numbers::new(def)?)
        }
        MapKind::ArrayOfMaps | MapKind::HashOfMaps => Store::Maps(Outer::new(def)?),
        MapKind::DevMapHash => {
            if def.key_size != 4 || !matches!(def.value_size, 4 | 8) {
                return Err(Errno::Inval);
            }
            Store::Hash(Hash::new(def, cpus)?)
        }
        MapKind::PerfEventArray => Store::Events(Events::new(def, cpus)?),
        MapKind::CpuMap | MapKind::Acl => {
            return Err(Errno::NotSupp);
        }
    })
}

impl View {
    /// Address of another CPU's value; null when there is no such CPU or element.
    ///
    /// # Safety
    /// `key_size` bytes are readable at `key`.
    pub(crate) unsafe fn lookup_of(&self, key: *const u8, cpu: u32) -> *mut u8 {
        if cpu >= self.cpus {
            return std::ptr::null_mut();
        }
        // SAFETY: by contract.
        unsafe {
            self.with_key(key, |key| match &*self.store {
                Store::Array(array) => array.element(cpu, index_of(key)),
                Store::Hash(hash) => hash.lookup(cpu, key, true),
                _ => std::ptr::null_mut(),
            })
        }
    }

    /// The element at a cursor, 0 for the first: the cursor of the next, the key's address and the value's.
    /// An array's key goes to `index`.
    ///
    /// # Safety
    /// `index` is writable.
    pub(crate) unsafe fn element(
        &self,
        cursor: u64,
        index: *mut u32,
    ) -> Option<(u64, *const u8, *mut u8)> {
        let at = u32::try_from(cursor).ok()?;
        match &*self.store {
            Store::Array(array) if at < array.entries() => {
                // SAFETY: by contract.
                unsafe { index.write(at) };
                Some((cursor + 1, index.cast(), array.element(self.cpu, at)))
            }
            Store::Hash(hash) => {
                let (next, key, value) = hash.element(self.cpu, at)?;
                Some((next.into(), key, value))
            }
            _ => None,
        }
    }

    /// Whether a program that visits the elements may use bytes as a key or, `writable`, as a value.
    pub(crate) fn shows(&self, at: usize, len: usize, writable: bool) -> bool {
        match &*self.store {
            Store::Hash(hash) => hash.holds(at, len, self.cpu, writable),
            Store::Array(array) => {
                let from = at.checked_sub(array.base(self.cpu).addr());
                writable && from.is_some_and(|from| from.saturating_add(len) <= array.size())
            }
            _ => false,
        }
    }

    /// Calls with the key's bytes, copied: they may be shared with others.
    ///
    /// # Safety
    /// `key_size` bytes are readable at `key`.
    unsafe fn with_key<T>(&self, key: *const u8, call: impl FnOnce(&[u8]) -> T) -> T {
        // SAFETY: by contract, and maps refuse to be made with longer keys.
        unsafe {
            match self.key_size {
                0..=64 => {
                    let mut bytes = [0; 64];
                    crate::memory::copy(bytes.as_mut_ptr(), key, self.key_size);
                    call(&bytes[..self.key_size])
                }
                size => {
                    let mut bytes = [0; MAX_KEY];
                    crate::memory::copy(bytes.as_mut_ptr(), key, size.min(MAX_KEY));
                    call(&bytes[..size.min(MAX_KEY)])
                }
            }
        }
    }
}

// SAFETY: what `lookup` returns is memory of the store, which the map keeps for as long as it lives; or, of
// maps of maps, the handle of another map, which lives while the caller is pinned.
unsafe impl MapOps for View {
    unsafe fn lookup(&self, key: *const u8) -> *mut u8 {
        let cpu = self.cpu;
        // SAFETY: by contract.
        unsafe {
            self.with_key(key, |key| match &*self.store {
                Store::Array(array) => array.element(cpu, index_of(key)),
                Store::Hash(hash) => hash.lookup(cpu, key, true),
                Store::Lpm(lpm) => lpm.lookup(key),
                Store::Maps(maps) => maps.lookup(cpu, key),
                Store::Numbers(numbers) => numbers.address(index_of(key)),
                Store::Queue(_) | Store::Ring(_) | Store::Events(_) => std::ptr::null_mut(),
            })
        }
    }

    unsafe fn update(&self, key: *const u8, value: *const u8, flags: u64) -> i64 {
        let who = Who::Program(self.cpu);
        // SAFETY: by contract, for all.
        to_helper(unsafe {
            self.with_key(key, |key| match &*self.store {
                Store::Array(array) => array.update(who, index_of(key), value, flags),
                Store::Hash(hash) => hash.update(who, key, value, flags),
                Store::Lpm(lpm) => lpm.update(who, key, value, flags),
                _ => Err(Errno::Inval),
            })
        })
    }

    unsafe fn delete(&self, key: *const u8) -> i64 {
        // SAFETY: by contract.
        to_helper(unsafe {
            self.with_key(key, |key| match &*self.store {
                Store::Hash(hash) => hash.delete(key),
                Store::Lpm(lpm) => lpm.delete(key),
                _ => Err(Errno::Inval),
            })
        })
    }

    unsafe fn push(&self, value: *const u8, flags: u64) -> i64 {
        to_helper(match &*self.store {
            // SAFETY: by contract.
            Store::Queue(queue) => unsafe { queue.push(value, flags) },
            _ => Err(Errno::Inval),
        })
    }

    unsafe fn pop(&self, value: *mut u8) -> i64 {
        to_helper(match &*self.store {
            // SAFETY: by contract.
            Store::Queue(queue) => unsafe { queue.next(value, true) },
            _ => Err(Errno::Inval),
        })
    }

    unsafe fn peek(&self, value: *mut u8) -> i64 {
        to_helper(match &*self.store {
            // SAFETY: by contract.
            Store::Queue(queue) => unsafe { queue.next(value, false) },
            _ => Err(Errno::Inval),
        })
    }
}

/// The map behind a handle that a program of ours holds.
///
/// # Safety
/// The handle is that of a map of this crate, alive.
pub(crate) unsafe fn view<'a>(handle: *const MapHandle) -> &'a View {
    // SAFETY: `Handled` is `repr(C)` with the handle first, and all handles of this crate's maps are of
    // `Handled<View>`.
    unsafe { &*handle.cast::<Handled<View>>() }
}

/// Names of kinds as bpftool has them.
const KIND_NAMES: [(MapKind, &str); 19] = [
    (MapKind::Hash, "hash"),
    (MapKind::Array, "array"),
    (MapKind::ProgArray, "prog_array"),
    (MapKind::PerfEventArray, "perf_event_array"),
    (MapKind::PercpuHash, "percpu_hash"),
    (MapKind::PercpuArray, "percpu_array"),
    (MapKind::LruHash, "lru_hash"),
    (MapKind::LruPercpuHash, "lru_percpu_hash"),
    (MapKind::LpmTrie, "lpm_trie"),
    (MapKind::ArrayOfMaps, "array_of_maps"),
    (MapKind::HashOfMaps, "hash_of_maps"),
    (MapKind::DevMap, "devmap"),
    (MapKind::CpuMap, "cpumap"),
    (MapKind::XskMap, "xskmap"),
    (MapKind::Queue, "queue"),
    (MapKind::Stack, "stack"),
    (MapKind::DevMapHash, "devmap_hash"),
    (MapKind::RingBuf, "ringbuf"),
    (MapKind::Acl, "acl"),
];

/// Name of a kind, as bpftool has it.
pub fn kind_name(kind: MapKind) -> &'static str {
    let found = KIND_NAMES.iter().find(|(of, _)| *of == kind);
    found.map_or("?", |(_, name)| name)
}

/// The kind of a name.
pub fn kind_by_name(name: &str) -> Option<MapKind> {
    let found = KIND_NAMES.iter().find(|(_, of)| *of == name);
    found.map(|(kind, _)| *kind)
}
