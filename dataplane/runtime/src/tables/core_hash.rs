//! The hash table of a core: programs and the ager of one thread change it in place.
//!
//! Fixed capacity, no allocation after it is made. Addresses of values hold until the next
//! insertion or deletion; after that they still are addresses of this table's memory, but the
//! bytes may be another entry's (Linux: an element may be reused after deletion).

use std::cell::{RefCell, UnsafeCell};
use std::ptr::NonNull;

use dash_bpf::MapDef;
use dash_wire::tables::FlowEntry;

use super::hash::HashKey;
use super::mirror::FlowMirror;
use super::probe::{Probe, Shape};
use super::{MAX_KEY, MapOps, errno, update_flags};

/// A hash table one thread owns.
#[derive(Debug)]
pub struct CoreHash {
    shape: Shape,
    capacity: usize,
    hasher: &'static HashKey,
    probe: UnsafeCell<Probe>,
    /// Who hears what comes and goes, if this is the index of a shared flow table.
    watch: Option<RefCell<Watch>>,
}

/// A mirror and the connections that rows (`slot << 1 | side`) mean.
#[derive(Debug)]
struct Watch {
    mirror: Box<dyn FlowMirror>,
    slab: NonNull<u8>,
    slots: usize,
}

// SAFETY: the address is of memory that the tables keep, used only through this table.
unsafe impl Send for Watch {}

impl Watch {
    /// The connection of a row, and its side.
    fn flow(&self, row: u32) -> Option<(u32, u32, FlowEntry)> {
        let slot = row >> 1;
        ((slot as usize) < self.slots).then(|| {
            // SAFETY: the slab has `slots` entries (`CoreHash::watch`), all bit patterns of which
            // are values.
            let flow = unsafe {
                self.slab
                    .cast::<FlowEntry>()
                    .add(slot as usize)
                    .as_ptr()
                    .read_unaligned()
            };
            (slot, row & 1, flow)
        })
    }
}

impl CoreHash {
    /// An empty table. `def.key_size` is at most [`MAX_KEY`].
    pub fn new(def: &MapDef) -> Self {
        let shape = Shape {
            key: def.key_size as usize,
            value: def.value_size as usize,
        };
        assert!(shape.key <= MAX_KEY, "keys of {} bytes", shape.key);
        let capacity = def.max_entries as usize;
        Self {
            shape,
            capacity,
            hasher: HashKey::process(),
            // 3/4 full at most: probes stay short when every flow there may be is there.
            probe: UnsafeCell::new(Probe::new(shape, capacity + capacity / 3 + 2)),
            watch: None,
        }
    }

    /// Tells a mirror what comes and goes from now on.
    ///
    /// # Safety
    /// `slab` is the address of `slots` entries that live as long as this table.
    pub(crate) unsafe fn watch(
        &mut self,
        mirror: Box<dyn FlowMirror>,
        slab: NonNull<u8>,
        slots: usize,
    ) {
        self.watch = Some(RefCell::new(Watch {
            mirror,
            slab,
            slots,
        }));
    }

    /// A row is in: the second key of a connection makes it whole.
    fn came(&self, row: Option<u32>) {
        if let (Some(watch), Some(row)) = (&self.watch, row) {
            let mut watch = watch.borrow_mut();
            if let Some((slot, 1, flow)) = watch.flow(row) {
                watch.mirror.added(slot, &flow);
            }
        }
    }

    /// A row is out.
    fn went(&self, row: Option<u32>) {
        if let (Some(watch), Some(row)) = (&self.watch, row) {
            let mut watch = watch.borrow_mut();
            if let Some((slot, 0, flow)) = watch.flow(row) {
                watch.mirror.removed(slot, &flow);
            }
        }
    }

    /// The row at a place of the probe, where somebody watches.
    fn row(&self, slot: usize) -> Option<u32> {
        self.watch.as_ref()?;
        // SAFETY: rows of a watched table, a flow index, are 4 bytes.
        Some(unsafe { self.probe().value(slot).cast::<u32>().read_unaligned() })
    }

    fn probe(&self) -> &Probe {
        // SAFETY: the table is not `Sync`, and no `&mut Probe` outlives the call that made it, so
        // none is alive here.
        unsafe { &*self.probe.get() }
    }

    #[expect(clippy::mut_from_ref, reason = "single-threaded, see SAFETY")]
    fn probe_mut(&self) -> &mut Probe {
        // SAFETY: the table is not `Sync`; callers use the reference for one insertion or removal,
        // in which no other reference to the probe is used.
        unsafe { &mut *self.probe.get() }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.probe().len()
    }

    /// Holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Addresses that values may have.
    pub fn memory(&self) -> std::ops::Range<usize> {
        self.probe().memory()
    }

    /// Copy of a value.
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let slot = self.probe().find(self.hasher.hash(key), key)?;
        // SAFETY: a value is `shape.value` bytes, and only this thread writes it.
        Some(
            unsafe { std::slice::from_raw_parts(self.probe().value(slot), self.shape.value) }
                .to_vec(),
        )
    }

    /// The value of a table of `u32`.
    pub fn get_u32(&self, key: &[u8]) -> Option<u32> {
        assert_eq!(self.shape.value, 4);
        let slot = self.probe().find(self.hasher.hash(key), key)?;
        // SAFETY: a value is 4 bytes by the assertion.
        Some(unsafe { self.probe().value(slot).cast::<u32>().read_unaligned() })
    }

    /// Removes a key; false when absent.
    pub fn remove(&self, key: &[u8]) -> bool {
        match self.probe().find(self.hasher.hash(key), key) {
            Some(slot) => {
                let row = self.row(slot);
                self.probe_mut().remove(slot, self.hasher);
                self.went(row);
                true
            }
            None => false,
        }
    }

    /// Copies of all rows, in no order.
    pub fn rows(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + '_ {
        self.probe().rows()
    }

    /// A copy of the key, so that changes of the table cannot change the key meanwhile.
    ///
    /// # Safety
    /// `key` points to `shape.key` readable bytes.
    unsafe fn copy_key<'a>(&self, key: *const u8, to: &'a mut [u8; MAX_KEY]) -> &'a [u8] {
        // SAFETY: readable by contract; at most `MAX_KEY` bytes by construction; `to` is a
        // reference, so the key does not overlap it.
        unsafe { std::ptr::copy_nonoverlapping(key, to.as_mut_ptr(), self.shape.key) };
        &to[..self.shape.key]
    }
}

// SAFETY: values are inside the probe's slots, which live as long as the table.
unsafe impl MapOps for CoreHash {
    unsafe fn lookup(&self, key: *const u8) -> *mut u8 {
        // SAFETY: `key_size` readable bytes by contract, and nothing is written in this call.
        let key = unsafe { std::slice::from_raw_parts(key, self.shape.key) };
        let probe = self.probe();
        match probe.find(self.hasher.hash(key), key) {
            Some(slot) => probe.value(slot),
            None => std::ptr::null_mut(),
        }
    }

    unsafe fn update(&self, key: *const u8, value: *const u8, flags: u64) -> i64 {
        let mut buf = [0; MAX_KEY];
        // SAFETY: by contract.
        let key = unsafe { self.copy_key(key, &mut buf) };
        let hash = self.hasher.hash(key);
        let slot = match (self.probe().find(hash, key), flags) {
            (Some(_), update_flags::NOEXIST) => return errno::EEXIST,
            (None, update_flags::EXIST) => return errno::ENOENT,
            (_, 3..) => return errno::EINVAL,
            (Some(slot), _) => slot,
            (None, _) if self.len() >= self.capacity => return errno::E2BIG,
            (None, _) => self.probe_mut().insert(hash, key),
        };
        // SAFETY: source readable by contract, target inside the table; they may overlap, which
        // `copy` allows.
        unsafe { std::ptr::copy(value, self.probe().value(slot), self.shape.value) };
        self.came(self.row(slot));
        0
    }

    unsafe fn delete(&self, key: *const u8) -> i64 {
        let mut buf = [0; MAX_KEY];
        // SAFETY: by contract.
        let key = unsafe { self.copy_key(key, &mut buf) };
        if self.remove(key) { 0 } else { errno::ENOENT }
    }
}
