//! What stands for the kernel around its code: the context of a run, and helpers over tables of ours.

use dash_wire::abi::MapHandle;

/// Head of `struct xdp_buff`, the context of programs as the kernel compiles them.
#[repr(C)]
pub(super) struct XdpBuff {
    pub(super) data: *mut u8,
    pub(super) data_end: *mut u8,
    pub(super) data_meta: *mut u8,
    pub(super) data_hard_start: *mut u8,
    pub(super) rxq: *const RxQueue,
    pub(super) txq: *const u8,
    pub(super) frame_size: u32,
    pub(super) flags: u32,
}

/// Head of `struct xdp_rxq_info`.
#[repr(C)]
pub(super) struct RxQueue {
    pub(super) device: *const u8,
    pub(super) index: u32,
}

/// Zeros where a `struct net_device` would be: interface 0.
pub(super) static DEVICE: [u64; 1024] = [0; 1024];

// What helpers do here. Each is called by kernel code over tables of ours, with their addresses.

/// # Safety
/// As [`MapHandle::lookup`].
unsafe extern "C" fn lookup(map: *const MapHandle, key: *const u8) -> *mut u8 {
    // SAFETY: the caller's contract.
    unsafe { ((*map).lookup)(map, key) }
}
/// # Safety
/// As [`MapHandle::update`].
unsafe extern "C" fn update(
    map: *const MapHandle,
    key: *const u8,
    value: *const u8,
    flags: u64,
) -> i64 {
    // SAFETY: the caller's contract.
    unsafe { ((*map).update)(map, key, value, flags) }
}
/// # Safety
/// As [`MapHandle::delete`].
unsafe extern "C" fn delete(map: *const MapHandle, key: *const u8) -> i64 {
    // SAFETY: the caller's contract.
    unsafe { ((*map).delete)(map, key) }
}
/// # Safety
/// As [`MapHandle::push`].
unsafe extern "C" fn push(map: *const MapHandle, value: *const u8, flags: u64) -> i64 {
    // SAFETY: the caller's contract.
    unsafe { ((*map).push)(map, value, flags) }
}
/// # Safety
/// As [`MapHandle::pop`].
unsafe extern "C" fn pop(map: *const MapHandle, value: *mut u8) -> i64 {
    // SAFETY: the caller's contract.
    unsafe { ((*map).pop)(map, value) }
}
/// `bpf_xdp_adjust_head`.
///
/// # Safety
/// `xdp` is the context of the run.
unsafe extern "C" fn adjust_head(xdp: *mut XdpBuff, delta: i32) -> i64 {
    // SAFETY: the caller's contract; nothing else refers to it while the program runs.
    let xdp = unsafe { &mut *xdp };
    let new = xdp.data.wrapping_offset(delta as isize);
    let last = xdp.data_end.wrapping_sub(14);
    if new < xdp.data_hard_start || new > last {
        return -22;
    }
    xdp.data = new;
    xdp.data_meta = new;
    0
}

/// `bpf_xdp_adjust_tail`, to shrink only.
///
/// # Safety
/// As [`adjust_head`].
unsafe extern "C" fn adjust_tail(xdp: *mut XdpBuff, delta: i32) -> i64 {
    // SAFETY: the caller's contract; nothing else refers to it while the program runs.
    let xdp = unsafe { &mut *xdp };
    let new = xdp.data_end.wrapping_offset(delta as isize);
    if delta > 0 || new < xdp.data.wrapping_add(14) {
        return -22;
    }
    xdp.data_end = new;
    0
}

/// What stands for a symbol of the kernel.
pub(super) enum Stand {
    Call(usize),
    Return,
}

/// What stands for a symbol, by its name; `None` where nothing does.
pub(super) fn stand(name: &str) -> Option<Stand> {
    let call = |f: *const ()| Some(Stand::Call(f.expose_provenance()));
    match name {
        "__htab_map_lookup_elem" | "htab_map_lookup_elem" | "trie_lookup_elem" => {
            call(lookup as *const ())
        }
        "htab_map_update_elem" | "htab_lru_map_update_elem" => call(update as *const ()),
        "htab_map_delete_elem" | "htab_lru_map_delete_elem" => call(delete as *const ()),
        "queue_stack_map_push_elem" => call(push as *const ()),
        "queue_map_pop_elem" | "stack_map_pop_elem" => call(pop as *const ()),
        "bpf_xdp_adjust_head" => call(adjust_head as *const ()),
        "bpf_xdp_adjust_tail" => call(adjust_tail as *const ()),
        "__x86_return_thunk" | "srso_return_thunk" | "its_return_thunk" => Some(Stand::Return),
        _ => None,
    }
}
