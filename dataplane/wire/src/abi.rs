//! The calling convention between compiled programs and whoever runs them.
//!
//! Compiled code is `extern "C" fn(*mut RunCtx) -> u32` returning an `XDP_*` code. It holds no
//! absolute addresses: maps, helpers and per-worker memory are reached through [`RunCtx`], so one
//! image serves every core and every generation of table contents.

use core::ffi::c_void;

/// Entry of a compiled program.
pub type EntryFn = unsafe extern "C" fn(*mut RunCtx) -> u32;

/// What a part of a chain that was cut returns when another part is to go on with the same context:
/// this and, where that part has more than one entry, the number of the program to go on with
/// ([`RunCtx::resume`]). Not an `XDP_*` code, nor is anything above.
pub const CONTINUE: u32 = 0x100;

/// A helper as compiled code calls it: context, then r1..r5; the result goes to r0.
pub type HelperFn = unsafe extern "C" fn(*mut RunCtx, u64, u64, u64, u64, u64) -> u64;

/// An element of a map, shown to a function of the program.
///
/// Compiled code loops itself where a program has a helper call one of its functions. For the elements of a
/// map it calls the helper of number 164 (`for_each_map_elem`) before each round with the map, a cursor (0
/// first) and the address of an `Element`, which the helper fills; it returns the cursor of the next, or 0
/// when there was no element at this one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Element {
    /// Address of its key.
    pub key: *const u8,
    /// Address of its value.
    pub value: *mut u8,
    /// Where an array's index is, whose keys are nowhere else: `key` then leads here.
    pub index: u32,
}

impl Element {
    /// None yet.
    pub const EMPTY: Self = Self {
        key: core::ptr::null(),
        value: core::ptr::null_mut(),
        index: 0,
    };
}

/// Byte offsets of [`Element`] fields, for code generators.
pub mod element {
    use super::Element;
    use core::mem::offset_of;

    /// Of `key`.
    pub const KEY: i32 = offset_of!(Element, key) as i32;
    /// Of `value`.
    pub const VALUE: i32 = offset_of!(Element, value) as i32;
}

/// Length of the table [`RunCtx::helpers`] points to: helper numbers are below it.
pub const HELPER_SLOTS: usize = 256;

/// What one run of a program sees: the packet, the tables of its worker, and the helpers.
///
/// `struct xdp_md` loads are translated to the first six fields, as the kernel does.
#[repr(C)]
#[derive(Debug)]
pub struct RunCtx {
    /// First byte of the packet.
    pub data: *mut u8,
    /// One past its last byte.
    pub data_end: *mut u8,
    /// First byte of the metadata in front of the packet; equals `data` when there is none.
    pub data_meta: *mut u8,
    /// Port the packet came in on.
    pub ingress_ifindex: u32,
    /// Its queue.
    pub rx_queue_index: u32,
    /// Unused by XDP on receive.
    pub egress_ifindex: u32,
    /// Port chosen by `bpf_redirect`; meaningful when the program returned `XDP_REDIRECT`.
    pub redirect_ifindex: u32,
    /// The packet's head may move down to here (`bpf_xdp_adjust_head`).
    pub frame_start: *mut u8,
    /// The packet's tail may move up to here (`bpf_xdp_adjust_tail`).
    pub frame_end: *mut u8,
    /// `bpf_ktime_get_ns`: nanoseconds, the worker's clock, constant during a run.
    pub now_ns: u64,
    /// By map index: address of element 0 of an array map (the worker's own copy of a per-CPU
    /// one); null for other kinds.
    pub arrays: *const *mut u8,
    /// By map index: what a program holds as the map's address.
    pub maps: *const *const MapHandle,
    /// By helper number, [`HELPER_SLOTS`] entries, none null.
    pub helpers: *const HelperFn,
    /// The runtime's own, for helpers.
    pub worker: *mut c_void,
    /// `bpf_get_smp_processor_id`: index of the worker.
    pub cpu: u32,
    /// Program that code with several entries starts with.
    pub resume: u32,
    /// Address of the key that the caller looked up ahead of the program; null for none. See
    /// [`found_value`](Self::found_value).
    pub found_key: *const u8,
    /// What the look-up of that key gave, in the one map that code and caller agreed on when the
    /// code was compiled: the value's address, or null. The caller promises that a look-up made
    /// as the program starts gives the same.
    pub found_value: *mut u8,
    /// Results of earlier look-ups, [`MEMO_ENTRIES`] of them, in the other map that was agreed on.
    /// The caller promises that they still hold: it clears them before the map's rows change.
    /// Compiled code adds to them.
    pub memo: *mut MemoEntry,
    /// Instructions that the run may still take, for code that counts them
    /// (`dash_native::Options::fuel`); below 0 after a run that was ended for want of it.
    pub fuel: i64,
}

/// Entries of [`RunCtx::memo`].
pub const MEMO_ENTRIES: usize = 1 << MEMO_BITS;

/// Binary logarithm of [`MEMO_ENTRIES`].
pub const MEMO_BITS: u32 = 8;

/// What a key, as a little-endian number, is multiplied by; the product's top [`MEMO_BITS`] are the
/// key's entry. Only keys that were found are remembered, so who sends packets cannot choose
/// which keys displace each other.
pub const MEMO_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A look-up that found something.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MemoEntry {
    /// The key's 8 bytes, little-endian.
    pub key: u64,
    /// Address of its value; null when the entry is not in use.
    pub value: *mut u8,
}

impl MemoEntry {
    /// Not in use.
    pub const EMPTY: Self = Self {
        key: 0,
        value: core::ptr::null_mut(),
    };
}

/// Head of every map object: its operations, so compiled code calls the right one directly.
///
/// `key` and `value` point to `key_size` and `value_size` readable bytes. Results are 0 or a
/// negative errno.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MapHandle {
    /// Address of the value, null when absent.
    pub lookup: unsafe extern "C" fn(*const MapHandle, *const u8) -> *mut u8,
    /// Key, value, `BPF_ANY` / `BPF_NOEXIST` / `BPF_EXIST`.
    pub update: unsafe extern "C" fn(*const MapHandle, *const u8, *const u8, u64) -> i64,
    /// Key.
    pub delete: unsafe extern "C" fn(*const MapHandle, *const u8) -> i64,
    /// Queue or stack: value, flags.
    pub push: unsafe extern "C" fn(*const MapHandle, *const u8, u64) -> i64,
    /// Queue or stack: writes the value.
    pub pop: unsafe extern "C" fn(*const MapHandle, *mut u8) -> i64,
    /// Queue or stack: reads without removing.
    pub peek: unsafe extern "C" fn(*const MapHandle, *mut u8) -> i64,
}

/// What follows the [`MapHandle`] of a hash map that compiled code may search by itself
/// (`dash_native::Options::hash_maps`). The addresses and the secret stay as they are while the map lives.
///
/// The map is buckets, as many as the next power of two of its entries, and elements in one slab, both
/// of them in memory as [`hash_map`] says. A bucket is a link: 0 for none, an element's number plus one, or
/// [`END`](hash_map::END) and the bucket's number, by which chains end: a reader that arrives at another's was led
/// astray and starts over. An element's version is odd while it is in the map; a reader takes a key for the
/// element's if the version was the same before and after it read the key.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HashLayout {
    /// Address of 32-bit links.
    pub buckets: usize,
    /// Address of the slab.
    pub elements: usize,
    /// Secret of the hash: see [`hash_map::SECRET`].
    pub secret: [u64; hash_map::SECRET],
}

impl HashLayout {
    /// Of other maps.
    pub const NONE: Self = Self {
        buckets: 0,
        elements: 0,
        secret: [0; hash_map::SECRET],
    };
}

/// Byte offsets and numbers of [`HashLayout`], for code generators and who makes such maps.
pub mod hash_map {
    use super::{HashLayout, MapHandle};
    use core::mem::offset_of;

    /// Words of a key that are hashed: longer keys are not searched for by compiled code.
    pub const KEY_WORDS: usize = 8;
    /// Words of the secret `k`, followed by `f`, two more.
    ///
    /// Of a key's bytes as little-endian words, zeros behind them up to an even number, the sum over pairs of
    /// `(w[i] + k[i]) * (w[i + 1] + k[i + 1])` (words modulo 2^64, products and sum modulo 2^128) has halves `l`
    /// and `h`; `(l ^ f[0]) * (h ^ f[1])` has halves `x` and `y`. The hash is the lower 32 bits of
    /// `(x ^ y) + l`; its lowest bits say the bucket.
    pub const SECRET: usize = KEY_WORDS + 2;
    /// Of a link: the chain ends.
    pub const END: u32 = 1 << 31;

    /// Of the buckets' address, from the [`MapHandle`].
    pub const BUCKETS: i32 = (size_of::<MapHandle>() + offset_of!(HashLayout, buckets)) as i32;
    /// Of the elements' address.
    pub const ELEMENTS: i32 = (size_of::<MapHandle>() + offset_of!(HashLayout, elements)) as i32;
    /// Of the secret's first word.
    pub const SECRETS: i32 = (size_of::<MapHandle>() + offset_of!(HashLayout, secret)) as i32;

    /// In an element: the next link.
    pub const NEXT: usize = 0;
    /// Its 32-bit version.
    pub const VERSION: usize = 4;
    /// The lower 32 bits of its key's hash.
    pub const HASH: usize = 8;
    /// Its key, with zeros up to a multiple of 8.
    pub const KEY: usize = 24;

    /// In an element: its value.
    pub const fn value(key_size: usize) -> usize {
        KEY + key_size.next_multiple_of(8)
    }

    /// Bytes of an element with one value.
    pub const fn element(key_size: usize, value_size: usize) -> usize {
        value(key_size) + value_size.next_multiple_of(8)
    }

    /// Buckets of a map with so many entries.
    pub const fn buckets(max_entries: u32) -> u32 {
        max_entries.next_power_of_two()
    }
}

/// Byte offsets of [`RunCtx`] fields, for code generators.
pub mod run_ctx {
    use super::RunCtx;
    use core::mem::offset_of;

    macro_rules! offsets {
        ($($(#[$d:meta])* $name:ident = $field:ident;)*) => {$(
            $(#[$d])* pub const $name: i32 = offset_of!(RunCtx, $field) as i32;
        )*};
    }
    offsets! {
        /// Of `data`.
        DATA = data;
        /// Of `data_end`.
        DATA_END = data_end;
        /// Of `data_meta`.
        DATA_META = data_meta;
        /// Of `ingress_ifindex`.
        INGRESS_IFINDEX = ingress_ifindex;
        /// Of `rx_queue_index`.
        RX_QUEUE_INDEX = rx_queue_index;
        /// Of `egress_ifindex`.
        EGRESS_IFINDEX = egress_ifindex;
        /// Of `redirect_ifindex`.
        REDIRECT_IFINDEX = redirect_ifindex;
        /// Of `frame_start`.
        FRAME_START = frame_start;
        /// Of `frame_end`.
        FRAME_END = frame_end;
        /// Of `now_ns`.
        NOW_NS = now_ns;
        /// Of `arrays`.
        ARRAYS = arrays;
        /// Of `maps`.
        MAPS = maps;
        /// Of `helpers`.
        HELPERS = helpers;
        /// Of `cpu`.
        CPU = cpu;
        /// Of `resume`.
        RESUME = resume;
        /// Of `found_key`.
        FOUND_KEY = found_key;
        /// Of `found_value`.
        FOUND_VALUE = found_value;
        /// Of `memo`.
        MEMO = memo;
        /// Of `fuel`.
        FUEL = fuel;
    }
}

/// Byte offsets of [`MemoEntry`] fields, for code generators.
pub mod memo_entry {
    use super::MemoEntry;
    use core::mem::offset_of;

    /// Of `key`.
    pub const KEY: i32 = offset_of!(MemoEntry, key) as i32;
    /// Of `value`.
    pub const VALUE: i32 = offset_of!(MemoEntry, value) as i32;
}

/// Byte offsets of [`MapHandle`] fields, for code generators.
pub mod map_handle {
    use super::MapHandle;
    use core::mem::offset_of;

    /// Of `lookup`.
    pub const LOOKUP: i32 = offset_of!(MapHandle, lookup) as i32;
    /// Of `update`.
    pub const UPDATE: i32 = offset_of!(MapHandle, update) as i32;
    /// Of `delete`.
    pub const DELETE: i32 = offset_of!(MapHandle, delete) as i32;
    /// Of `push`.
    pub const PUSH: i32 = offset_of!(MapHandle, push) as i32;
    /// Of `pop`.
    pub const POP: i32 = offset_of!(MapHandle, pop) as i32;
    /// Of `peek`.
    pub const PEEK: i32 = offset_of!(MapHandle, peek) as i32;
}
