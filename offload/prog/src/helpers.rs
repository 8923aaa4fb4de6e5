//! Helpers: what programs may call, by Linux's numbers and the prototypes of [`dash_bpf::helper`].
//!
//! Compiled code calls the functions of [`table`]; they trust their arguments, which the verifier proved.
//! The interpreter checks arguments by the same prototypes and then calls the same functions. Functions of
//! programs are called by neither: the engines do that themselves, and ask [`next_element`] for the elements of a map.

pub mod fib;
mod print;
pub mod probe;

use std::ffi::c_void;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use dash_bpf::MapKind;
use dash_bpf::helper as nr;
use dash_bpf::helper::XdpAction;
use dash_bpf::interp::MAX_TAIL_CALLS;
use dash_runtime::helpers::HELPERS;
use dash_wire::abi::{Element, HELPER_SLOTS, HelperFn, MapHandle, RunCtx};

use crate::errno::{Errno, to_helper};
use crate::map::{Store, ring, view};
use fib::Fib;

/// `RunCtx::redirect_ifindex` before a program chose anything.
pub(crate) const NOWHERE: u32 = u32::MAX;
/// The same when it chose a socket.
pub(crate) const SOCKET: u32 = u32::MAX - 1;

/// Takes what programs print.
pub type Print = Arc<dyn Fn(&str) + Send + Sync>;

/// What helpers need of whoever runs programs.
#[derive(Clone, Default)]
pub struct Services {
    /// Where `bpf_trace_printk` goes; nowhere without.
    pub print: Option<Print>,
    /// What `bpf_fib_lookup` asks; without, no route is found.
    pub fib: Option<Arc<dyn Fib>>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (print, fib) = (self.print.is_some(), self.fib.is_some());
        write!(f, "Services {{ print: {print}, fib: {fib} }}")
    }
}

/// What helpers of one runner keep: `RunCtx::worker` points to it.
#[derive(Debug)]
pub(crate) struct HelperState {
    random: u64,
    tail_calls: u32,
    programs: u32,
    socket: u32,
    services: Services,
}

impl HelperState {
    /// Random numbers start from the worker's number, so that runs repeat.
    pub(crate) fn new(cpu: u32, programs: usize, services: &Services) -> Self {
        Self {
            random: 0x9e37_79b9_7f4a_7c15 ^ u64::from(cpu) << 32,
            tail_calls: 0,
            programs: programs as u32,
            socket: 0,
            services: services.clone(),
        }
    }

    /// Ready for a packet; the address for the context.
    pub(crate) fn begin(&mut self) -> *mut c_void {
        self.tail_calls = 0;
        std::ptr::from_mut(self).cast()
    }

    /// The socket last chosen.
    pub(crate) fn socket(&self) -> u32 {
        self.socket
    }

    /// xorshift64* (Marsaglia 2003; Vigna 2016).
    fn next(&mut self) -> u32 {
        let mut x = self.random;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random = x;
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

/// Helpers of ours.
const OWN: [(u32, HelperFn); 19] = [
    (nr::GET_PRANDOM_U32, get_prandom_u32),
    (nr::TAIL_CALL, tail_call),
    (nr::REDIRECT_MAP, redirect_map),
    (nr::PERF_EVENT_OUTPUT, perf_event_output),
    (nr::KTIME_GET_BOOT_NS, ktime_get_ns),
    (nr::KTIME_GET_COARSE_NS, ktime_get_ns),
    (nr::RINGBUF_OUTPUT, ringbuf_output),
    (nr::RINGBUF_RESERVE, ringbuf_reserve),
    (nr::RINGBUF_SUBMIT, ringbuf_submit),
    (nr::RINGBUF_DISCARD, ringbuf_discard),
    (nr::RINGBUF_QUERY, ringbuf_query),
    (nr::FOR_EACH_MAP_ELEM, next_element),
    (nr::MAP_LOOKUP_PERCPU_ELEM, map_lookup_percpu_elem),
    (nr::STRNCMP, strncmp),
    (nr::TRACE_PRINTK, trace_printk),
    (nr::FIB_LOOKUP, fib_lookup),
    (nr::XDP_GET_BUFF_LEN, xdp_get_buff_len),
    (nr::XDP_LOAD_BYTES, xdp_load_bytes),
    (nr::XDP_STORE_BYTES, xdp_store_bytes),
];

/// Those of the runtime that serve here too: map operations, redirect, checksums, packet borders.
const OF_RUNTIME: [u32; 13] = [
    nr::MAP_LOOKUP_ELEM,
    nr::MAP_UPDATE_ELEM,
    nr::MAP_DELETE_ELEM,
    nr::KTIME_GET_NS,
    nr::GET_SMP_PROCESSOR_ID,
    nr::REDIRECT,
    nr::CSUM_DIFF,
    nr::XDP_ADJUST_HEAD,
    nr::XDP_ADJUST_META,
    nr::XDP_ADJUST_TAIL,
    nr::MAP_PUSH_ELEM,
    nr::MAP_POP_ELEM,
    nr::MAP_PEEK_ELEM,
];

/// Whether programs find the helper of this number here.
pub(crate) fn is_there(number: u32) -> bool {
    // A `loop` needs no code: engines do it themselves.
    number == nr::LOOP || OF_RUNTIME.contains(&number) || OWN.iter().any(|(own, _)| *own == number)
}

/// The table for `RunCtx::helpers`.
pub(crate) fn table() -> &'static [HelperFn; HELPER_SLOTS] {
    static TABLE: LazyLock<[HelperFn; HELPER_SLOTS]> = LazyLock::new(|| {
        let mut table = HELPERS;
        for (number, function) in OWN {
            table[number as usize] = function;
        }
        table
    });
    &TABLE
}

fn handle(map: u64) -> *const MapHandle {
    std::ptr::with_exposed_provenance(map as usize)
}

fn bytes(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// # Safety
/// The context of a run of a [`Runner`](crate::Runner).
unsafe fn state<'a>(ctx: *mut RunCtx) -> &'a mut HelperState {
    // SAFETY: `worker` is what `HelperState::begin` gave, and one helper runs at a time.
    unsafe { &mut *(*ctx).worker.cast::<HelperState>() }
}

/// The store of a map a program holds.
///
/// # Safety
/// A map of this crate, alive.
unsafe fn store<'a>(map: u64) -> &'a Store {
    // SAFETY: by contract.
    &unsafe { view(handle(map)) }.store
}

unsafe extern "C" fn get_prandom_u32(
    ctx: *mut RunCtx,
    _: u64,
    _: u64,
    _: u64,
    _: u64,
    _: u64,
) -> u64 {
    // SAFETY: the context of the run.
    u64::from(unsafe { state(ctx) }.next())
}

/// All clocks of Linux's that programs may read are the packet's time.
unsafe extern "C" fn ktime_get_ns(ctx: *mut RunCtx, _: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    // SAFETY: the context of the run.
    unsafe { (*ctx).now_ns }
}

/// 0 and the program's number plus one in `RunCtx::resume`, or -1.
unsafe extern "C" fn tail_call(
    ctx: *mut RunCtx,
    _: u64,
    map: u64,
    slot: u64,
    _: u64,
    _: u64,
) -> u64 {
    // SAFETY: the context of the run, and a program array of this crate, by the verifier's proof.
    unsafe {
        let state = state(ctx);
        let Store::Numbers(programs) = store(map) else {
            return u64::MAX;
        };
        // The index is 32 bits wide in Linux.
        let program = programs.get(slot as u32);
        match program.filter(|&program| program < state.programs) {
            Some(program) if state.tail_calls < MAX_TAIL_CALLS => {
                state.tail_calls += 1;
                (*ctx).resume = program + 1;
                0
            }
            _ => u64::MAX,
        }
    }
}

/// Flags of `bpf_redirect_map`: what is returned for an empty slot. Others, broadcast among them, abort: a
/// frame is one buffer and goes one way.
const ACTION_MASK: u64 = 3;

unsafe extern "C" fn redirect_map(
    ctx: *mut RunCtx,
    map: u64,
    key: u64,
    flags: u64,
    _: u64,
    _: u64,
) -> u64 {
    if flags & !ACTION_MASK != 0 {
        return XdpAction::Aborted as u64;
    }
    // SAFETY: the context of the run, and a device or socket map, by the verifier's proof.
    unsafe {
        let view = view(handle(map));
        let found = match &*view.store {
            Store::Numbers(slots) => slots.get(key as u32),
            // A device map by key: values start with the interface.
            Store::Hash(ports) => {
                let port = ports.lookup(0, &(key as u32).to_ne_bytes(), false);
                let port = (!port.is_null()).then(|| &*port.cast::<AtomicU32>());
                port.map(|port| port.load(Ordering::Relaxed))
            }
            _ => return XdpAction::Aborted as u64,
        };
        let Some(number) = found else {
            return flags & ACTION_MASK;
        };
        if view.kind == MapKind::XskMap {
            state(ctx).socket = number;
            (*ctx).redirect_ifindex = SOCKET;
        } else {
            (*ctx).redirect_ifindex = number;
        }
    }
    XdpAction::Redirect as u64
}

unsafe extern "C" fn perf_event_output(
    ctx: *mut RunCtx,
    _: u64,
    map: u64,
    flags: u64,
    data: u64,
    size: u64,
) -> u64 {
    // SAFETY: the context of the run, an array of perf events and `size` readable bytes, by the verifier's proof.
    unsafe {
        let (packet, end) = ((*ctx).data, (*ctx).data_end);
        let packet = (packet.cast_const(), end.addr() - packet.addr());
        to_helper(match store(map) {
            // The size is 32 bits wide in Linux.
            Store::Events(events) => {
                let record = (bytes(data).cast_const(), u64::from(size as u32));
                events.output((*ctx).cpu, flags, record, packet)
            }
            _ => Err(Errno::Inval),
        }) as u64
    }
}

unsafe extern "C" fn ringbuf_output(
    _: *mut RunCtx,
    map: u64,
    data: u64,
    size: u64,
    flags: u64,
    _: u64,
) -> u64 {
    // SAFETY: a ring buffer and `size` readable bytes, by the verifier's proof.
    unsafe {
        to_helper(match store(map) {
            Store::Ring(ring) => ring.output(bytes(data), size, flags),
            _ => Err(Errno::Inval),
        }) as u64
    }
}

unsafe extern "C" fn ringbuf_reserve(
    _: *mut RunCtx,
    map: u64,
    size: u64,
    flags: u64,
    _: u64,
    _: u64,
) -> u64 {
    // SAFETY: a ring buffer, by the verifier's proof.
    match unsafe { store(map) } {
        Store::Ring(ring) => ring.reserve(size, flags).expose_provenance() as u64,
        _ => 0,
    }
}

unsafe extern "C" fn ringbuf_submit(
    _: *mut RunCtx,
    record: u64,
    _: u64,
    _: u64,
    _: u64,
    _: u64,
) -> u64 {
    // SAFETY: a record that was reserved and not ended, by the verifier's proof.
    unsafe { ring::finish(bytes(record), false) };
    0
}

unsafe extern "C" fn ringbuf_discard(
    _: *mut RunCtx,
    record: u64,
    _: u64,
    _: u64,
    _: u64,
    _: u64,
) -> u64 {
    // SAFETY: as in `ringbuf_submit`.
    unsafe { ring::finish(bytes(record), true) };
    0
}

unsafe extern "C" fn ringbuf_query(
    _: *mut RunCtx,
    map: u64,
    what: u64,
    _: u64,
    _: u64,
    _: u64,
) -> u64 {
    // SAFETY: a ring buffer, by the verifier's proof.
    match unsafe { store(map) } {
        Store::Ring(ring) => ring.query(what),
        _ => 0,
    }
}

/// The element of a map at `cursor`, 0 for the first: its key's and value's addresses go to `to`, and the
/// cursor of the next one is returned; 0 when there is none. What is behind `to`'s two addresses is a place
/// for a key that is nowhere else. (See `dash_wire::abi::element`.)
unsafe extern "C" fn next_element(
    _: *mut RunCtx,
    map: u64,
    cursor: u64,
    to: u64,
    _: u64,
    _: u64,
) -> u64 {
    let to: *mut Element = std::ptr::with_exposed_provenance_mut(to as usize);
    // SAFETY: a map whose elements can be visited, by the verifier's proof, and an `Element` of the
    // engine's, which is nobody else's until this returns.
    unsafe {
        let Some((next, key, value)) = view(handle(map)).element(cursor, &raw mut (*to).index)
        else {
            return 0;
        };
        ((*to).key, (*to).value) = (key, value);
        next
    }
}

unsafe extern "C" fn map_lookup_percpu_elem(
    _: *mut RunCtx,
    map: u64,
    key: u64,
    cpu: u64,
    _: u64,
    _: u64,
) -> u64 {
    // SAFETY: a map of values per CPU and a readable key, by the verifier's proof.
    unsafe { view(handle(map)).lookup_of(bytes(key), cpu as u32) }.expose_provenance() as u64
}

unsafe extern "C" fn strncmp(
    _: *mut RunCtx,
    one: u64,
    size: u64,
    other: u64,
    _: u64,
    _: u64,
) -> u64 {
    for at in 0..size as u32 as usize {
        // SAFETY: `size` readable bytes and a string that ends with NUL, by the verifier's proof; no
        // byte behind a NUL is read.
        let (a, b) = unsafe { (bytes(one).add(at).read(), bytes(other).add(at).read()) };
        if a != b {
            // As the kernel's `strncmp`: the sign, and -1 or 1.
            return (if a < b { -1i64 } else { 1 }) as u64;
        }
        if a == 0 {
            break;
        }
    }
    0
}

/// Bytes of a format at most (`MAX_TRACE_PRINTK...`: a program's stack).
const MAX_FORMAT: usize = 512;

unsafe extern "C" fn trace_printk(
    ctx: *mut RunCtx,
    format: u64,
    size: u64,
    one: u64,
    two: u64,
    three: u64,
) -> u64 {
    let size = (size as u32 as usize).min(MAX_FORMAT);
    let mut text = [0; MAX_FORMAT];
    // SAFETY: `size` readable bytes, by the verifier's proof.
    unsafe { crate::memory::copy(text.as_mut_ptr(), bytes(format), size) };
    let Some(line) = print::line(&text[..size], [one, two, three]) else {
        return Errno::Inval.negative() as u64;
    };
    // SAFETY: the context of the run.
    if let Some(print) = &unsafe { state(ctx) }.services.print {
        print(&line);
    }
    line.len() as u64
}

unsafe extern "C" fn fib_lookup(
    ctx: *mut RunCtx,
    _: u64,
    params: u64,
    size: u64,
    flags: u64,
    _: u64,
) -> u64 {
    if (size as u32 as usize) < fib::PARAMS || size as u32 as usize > 512 {
        return Errno::Inval.negative() as u64;
    }
    let mut raw = [0; fib::PARAMS];
    // SAFETY: `size` readable and writable bytes, by the verifier's proof; the context of the run.
    unsafe {
        crate::memory::copy(raw.as_mut_ptr(), bytes(params), fib::PARAMS);
        let fib = state(ctx).services.fib.as_deref();
        let result = fib::lookup(fib, &mut raw, flags);
        crate::memory::copy(bytes(params), raw.as_ptr(), fib::PARAMS);
        result as u64
    }
}

unsafe extern "C" fn xdp_get_buff_len(
    ctx: *mut RunCtx,
    _: u64,
    _: u64,
    _: u64,
    _: u64,
    _: u64,
) -> u64 {
    // SAFETY: the context of the run.
    unsafe { ((*ctx).data_end.addr() - (*ctx).data.addr()) as u64 }
}

/// The packet's bytes at an offset, if all are there.
///
/// # Safety
/// The context of a run.
unsafe fn packet(ctx: *mut RunCtx, offset: u64, len: u64) -> Option<*mut u8> {
    // SAFETY: by contract.
    let (data, end) = unsafe { ((*ctx).data, (*ctx).data_end) };
    let (offset, len) = (offset as u32 as usize, len as u32 as usize);
    let inside = offset.checked_add(len)? <= end.addr() - data.addr();
    // SAFETY: inside the packet.
    inside.then(|| unsafe { data.add(offset) })
}

unsafe extern "C" fn xdp_load_bytes(
    ctx: *mut RunCtx,
    _: u64,
    offset: u64,
    to: u64,
    len: u64,
    _: u64,
) -> u64 {
    // SAFETY: the context of the run, and `len` writable bytes, by the verifier's proof.
    unsafe {
        match packet(ctx, offset, len) {
            Some(from) => {
                std::ptr::copy(from, bytes(to), len as u32 as usize);
                0
            }
            // Written all the same, as in Linux: nothing uninitialised shows.
            None => {
                std::ptr::write_bytes(bytes(to), 0, len as u32 as usize);
                Errno::Inval.negative() as u64
            }
        }
    }
}

unsafe extern "C" fn xdp_store_bytes(
    ctx: *mut RunCtx,
    _: u64,
    offset: u64,
    from: u64,
    len: u64,
    _: u64,
) -> u64 {
    // SAFETY: as in `xdp_load_bytes`, readable.
    unsafe {
        match packet(ctx, offset, len) {
            Some(to) => {
                std::ptr::copy(bytes(from), to, len as u32 as usize);
                0
            }
            None => Errno::Inval.negative() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_helper_that_is_there_has_a_prototype_and_code() {
        for number in 0..HELPER_SLOTS as u32 {
            assert_eq!(
                probe::find(number).is_some(),
                is_there(number),
                "helper {number}: a prototype"
            );
        }
        // The runtime's table has the same function wherever it has no helper.
        let none = HELPERS[0] as usize;
        for prototype in probe::helpers().filter(|p| p.number != nr::LOOP) {
            let code = table()[prototype.number as usize] as usize;
            assert_ne!(code, none, "{}", prototype.name);
        }
    }

    #[test]
    fn what_linux_has_is_here_or_refused_with_a_reason() {
        for (number, name, why) in probe::refused() {
            assert!(
                why.len() > "not there".len(),
                "helper {number} ({name}): {why}"
            );
            assert!(probe::find(number).is_none());
        }
    }
}
