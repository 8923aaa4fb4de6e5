//! Array maps. Values are 8-byte aligned, `MapDef::stride` apart, so programs index them inline.

use std::sync::Arc;

use dash_bpf::MapDef;

use super::bytes::Bytes;
use super::memory::MemoryError;
use super::mirror::SlabMemory;
use super::{MapOps, errno, update_flags};

/// An array: of a core, or of a generation when shared.
#[derive(Clone, Debug)]
pub struct Array {
    bytes: Bytes,
    value: usize,
    stride: usize,
    entries: u32,
}

impl Array {
    /// All values zero, but for what the definition puts into the first.
    pub fn new(def: &MapDef) -> Self {
        let stride = def.stride() as usize;
        let mut array = Self {
            bytes: Bytes::zeroed(stride * def.max_entries as usize),
            value: def.value_size as usize,
            stride,
            entries: def.max_entries,
        };
        array.write(0, &def.contents);
        array
    }

    /// Over memory of another's; `None` when it is too small.
    pub fn over(def: &MapDef, memory: Arc<dyn SlabMemory>) -> Option<Self> {
        let stride = def.stride() as usize;
        Some(Self {
            bytes: Bytes::over(memory, stride * def.max_entries as usize)?,
            value: def.value_size as usize,
            stride,
            entries: def.max_entries,
        })
    }

    /// Address of element 0.
    pub fn base(&self) -> *mut u8 {
        self.bytes.at(0)
    }

    /// Takes the memory of all elements now, for the thread that owns them.
    pub(super) fn prefault(&self, what: &'static str) -> Result<(), MemoryError> {
        self.bytes.prefault(what)
    }

    /// Bytes of the whole array.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Number of elements.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Address of an element.
    pub fn element(&self, index: u32) -> Option<*mut u8> {
        (index < self.entries).then(|| self.bytes.at(index as usize * self.stride))
    }

    /// Copies an element out: its first `to.len()` bytes. False when there is no such element.
    pub fn read(&self, index: u32, to: &mut [u8]) -> bool {
        let ok = index < self.entries && to.len() <= self.stride;
        if ok {
            self.bytes.read(index as usize * self.stride, to);
        }
        ok
    }

    /// Sets the first bytes of an element; false when there is no such element.
    pub fn write(&mut self, index: u32, value: &[u8]) -> bool {
        let ok = index < self.entries && value.len() <= self.stride;
        if ok {
            self.bytes.write(index as usize * self.stride, value);
        }
        ok
    }
}

/// The element a program means: its index in native byte order.
///
/// # Safety
/// `key` points to 4 readable bytes.
unsafe fn element(array: &Array, key: *const u8) -> Option<*mut u8> {
    // SAFETY: readable by contract.
    array.element(unsafe { key.cast::<u32>().read_unaligned() })
}

// SAFETY: elements are inside `bytes`, which lives as long as the array.
unsafe impl MapOps for Array {
    unsafe fn lookup(&self, key: *const u8) -> *mut u8 {
        // SAFETY: the key of an array has 4 bytes.
        unsafe { element(self, key) }.unwrap_or(std::ptr::null_mut())
    }

    unsafe fn update(&self, key: *const u8, value: *const u8, flags: u64) -> i64 {
        if flags > update_flags::EXIST {
            return errno::EINVAL;
        }
        // SAFETY: the key of an array has 4 bytes.
        let Some(to) = (unsafe { element(self, key) }) else {
            return errno::E2BIG;
        };
        if flags == update_flags::NOEXIST {
            return errno::EEXIST;
        }
        // SAFETY: `value_size` readable bytes by contract, as many in the element. The array of a
        // core is written by its thread alone; `PolicyArray` does not come here.
        unsafe { std::ptr::copy(value, to, self.value) };
        0
    }

    unsafe fn delete(&self, _key: *const u8) -> i64 {
        errno::EINVAL
    }
}

/// An array of a generation: shared until written, read-only to programs.
#[derive(Clone, Debug)]
pub struct PolicyArray(Arc<Array>);

impl PolicyArray {
    /// All values zero.
    pub fn new(def: &MapDef) -> Self {
        Self(Arc::new(Array::new(def)))
    }

    /// Sets an element, in a copy if others hold this one; false when there is no such element.
    pub fn write(&mut self, index: u32, value: &[u8]) -> bool {
        Arc::make_mut(&mut self.0).write(index, value)
    }

    /// The array.
    pub fn array(&self) -> &Array {
        &self.0
    }
}

// SAFETY: as for `Array`, which the `Arc` keeps.
unsafe impl MapOps for PolicyArray {
    unsafe fn lookup(&self, key: *const u8) -> *mut u8 {
        // SAFETY: by contract.
        unsafe { self.0.lookup(key) }
    }
}
