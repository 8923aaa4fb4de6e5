//! The maps behind `dash_wire::abi::MapHandle`.
//!
//! A map is a [`Handled`]: the operations programs call, then the map. Each kind implements
//! [`MapOps`]; the glue from C calls to it is here and nowhere else.
//!
//! | kind | policy (immutable, copy on write) | core (one writer: the core's thread) |
//! |---|---|---|
//! | array | [`mod@array`] | [`mod@array`] |
//! | hash | [`policy_hash`] | [`flow_index`]; shared by all cores: [`fragments`] |
//! | LPM trie | [`lpm`] | |
//! | ACL | [`acl`] | |
//! | stack, queue | | [`free_slots`], [`ring`] |

use dash_wire::abi::MapHandle;

pub mod acl;
pub mod array;
pub mod bytes;
pub mod core_set;
pub mod flow_index;
pub mod fragments;
pub mod free_slots;
pub mod hash;
pub mod lpm;
pub mod memory;
pub mod mirror;
pub mod policy;
pub mod policy_hash;
pub mod ring;

/// Most bytes a key may have.
pub const MAX_KEY: usize = 64;

/// Negative errno values, as Linux's maps return them.
pub mod errno {
    /// Not allowed: the map is read-only to programs.
    pub const EPERM: i64 = -1;
    /// Absent.
    pub const ENOENT: i64 = -2;
    /// Full, or an index out of range.
    pub const E2BIG: i64 = -7;
    /// Out of memory bounds.
    pub const EACCES: i64 = -13;
    /// Present already.
    pub const EEXIST: i64 = -17;
    /// Not an operation of this kind of map, or a bad argument.
    pub const EINVAL: i64 = -22;
}

/// Flags of an update (`enum` in `include/uapi/linux/bpf.h`).
pub mod update_flags {
    /// Create or replace.
    pub const ANY: u64 = 0;
    /// Only create.
    pub const NOEXIST: u64 = 1;
    /// Only replace.
    pub const EXIST: u64 = 2;
}

/// What a kind of map does. Operations a kind does not have keep the default, which refuses.
///
/// Pointers, not slices: a program may pass an address inside the very map it changes.
///
/// # Safety
/// Non-null results of `lookup` point to the value's bytes (`MapDef::value_size`), readable and
/// writable as plain memory until the map is dropped.
pub unsafe trait MapOps {
    /// Address of the value of `key`, null when absent.
    ///
    /// # Safety
    /// `key` points to `key_size` readable bytes.
    unsafe fn lookup(&self, key: *const u8) -> *mut u8 {
        let _ = key;
        std::ptr::null_mut()
    }

    /// Sets a value; 0 or a negative errno.
    ///
    /// # Safety
    /// `key` and `value` point to `key_size` and `value_size` readable bytes.
    unsafe fn update(&self, key: *const u8, value: *const u8, flags: u64) -> i64 {
        let _ = (key, value, flags);
        errno::EPERM
    }

    /// Removes a value; 0 or a negative errno.
    ///
    /// # Safety
    /// `key` points to `key_size` readable bytes.
    unsafe fn delete(&self, key: *const u8) -> i64 {
        let _ = key;
        errno::EPERM
    }

    /// Adds a value to a queue or stack.
    ///
    /// # Safety
    /// `value` points to `value_size` readable bytes.
    unsafe fn push(&self, value: *const u8, flags: u64) -> i64 {
        let _ = (value, flags);
        errno::EINVAL
    }

    /// Takes the next value of a queue or stack.
    ///
    /// # Safety
    /// `value` points to `value_size` writable bytes.
    unsafe fn pop(&self, value: *mut u8) -> i64 {
        let _ = value;
        errno::EINVAL
    }

    /// Reads the next value of a queue or stack.
    ///
    /// # Safety
    /// `value` points to `value_size` writable bytes.
    unsafe fn peek(&self, value: *mut u8) -> i64 {
        let _ = value;
        errno::EINVAL
    }
}

/// A map as programs hold it: its operations first.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct Handled<T> {
    head: MapHandle,
    map: T,
}

impl<T: MapOps> Handled<T> {
    /// Puts a map behind its operations.
    pub fn new(map: T) -> Self {
        let head = MapHandle {
            lookup: lookup::<T>,
            update: update::<T>,
            delete: delete::<T>,
            push: push::<T>,
            pop: pop::<T>,
            peek: peek::<T>,
        };
        Self { head, map }
    }

    /// What a program holds as the map's address. Valid while `self` stays where it is.
    pub fn handle(&self) -> *const MapHandle {
        std::ptr::from_ref(self).cast()
    }
}

impl<T> std::ops::Deref for Handled<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.map
    }
}

impl<T> std::ops::DerefMut for Handled<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.map
    }
}

/// The map behind a handle.
///
/// # Safety
/// `handle` came from [`Handled::<T>::handle`] of a live map.
unsafe fn of<'a, T>(handle: *const MapHandle) -> &'a T {
    // SAFETY: `Handled` is repr(C) with the handle first, so the address of the handle is that of
    // the `Handled<T>` it was taken from; the caller says that it lives. These functions are only
    // ever stored in the head of a `Handled<T>` of the same `T`.
    unsafe { &(*handle.cast::<Handled<T>>()).map }
}

unsafe extern "C" fn lookup<T: MapOps>(handle: *const MapHandle, key: *const u8) -> *mut u8 {
    // SAFETY: the contract of `MapHandle::lookup` is that of `of` and `MapOps::lookup`.
    unsafe { of::<T>(handle).lookup(key) }
}

unsafe extern "C" fn update<T: MapOps>(
    handle: *const MapHandle,
    key: *const u8,
    value: *const u8,
    flags: u64,
) -> i64 {
    // SAFETY: as in `lookup`.
    unsafe { of::<T>(handle).update(key, value, flags) }
}

unsafe extern "C" fn delete<T: MapOps>(handle: *const MapHandle, key: *const u8) -> i64 {
    // SAFETY: as in `lookup`.
    unsafe { of::<T>(handle).delete(key) }
}

unsafe extern "C" fn push<T: MapOps>(
    handle: *const MapHandle,
    value: *const u8,
    flags: u64,
) -> i64 {
    // SAFETY: as in `lookup`.
    unsafe { of::<T>(handle).push(value, flags) }
}

unsafe extern "C" fn pop<T: MapOps>(handle: *const MapHandle, value: *mut u8) -> i64 {
    // SAFETY: as in `lookup`.
    unsafe { of::<T>(handle).pop(value) }
}

unsafe extern "C" fn peek<T: MapOps>(handle: *const MapHandle, value: *mut u8) -> i64 {
    // SAFETY: as in `lookup`.
    unsafe { of::<T>(handle).peek(value) }
}
