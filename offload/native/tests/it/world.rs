//! What a compiled XDP program runs in: a packet with room around it, arrays, maps and helpers that
//! record how they were called.

use std::ffi::c_void;
use std::ptr::null_mut;

use dash_bpf::builder::Builder;
use dash_bpf::{MapDef, MapKind, Object, Program, ProgramKind};
use dash_native::unverified::compile_unverified;
use dash_native::{NativeError, Options};
use dash_wire::abi::{HELPER_SLOTS, HelperFn, MEMO_ENTRIES, MapHandle, MemoEntry, RunCtx};

use crate::loader::Loaded;

/// Bytes in front of and behind the packet that it may grow into.
pub(crate) const ROOM: usize = 64;

/// The one key that maps do not hold.
pub(crate) const ABSENT: u64 = 0xab5e_0000_0000_0017;

/// A call as the callee saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    /// Helper arguments.
    Helper([u64; 5]),
    /// A map operation by name, the map's index, and the words its pointers point to.
    Map(&'static str, usize, Vec<u64>),
}

/// A map object: the handle comes first, so its address is the handle's.
#[repr(C)]
struct Map {
    handle: MapHandle,
    index: usize,
    calls: *mut Vec<Called>,
    value: u64,
}

pub(crate) struct World {
    pub(crate) frame: Vec<u8>,
    pub(crate) packet: std::ops::Range<usize>,
    /// Bytes of metadata in front of the packet.
    pub(crate) meta: usize,
    /// Elements of array maps, by map, as words; empty for others.
    pub(crate) arrays: Vec<Vec<u64>>,
    pub(crate) now_ns: u64,
    pub(crate) ifindex: [u32; 3],
    pub(crate) cpu: u32,
    /// Key and value of the context's look-up made ahead.
    pub(crate) found: (*const u8, *mut u8),
    pub(crate) memo: Vec<MemoEntry>,
    pub(crate) resume: u32,
    /// How it is compiled, but for the stack's place.
    pub(crate) options: Options,
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: u32,
    pub(crate) calls: Vec<Called>,
    /// `data`, `data_end`, `data_meta`, as offsets into the frame.
    pub(crate) data: isize,
    pub(crate) data_end: isize,
    pub(crate) data_meta: isize,
    pub(crate) redirect_ifindex: u32,
}

impl World {
    /// With a packet of this many bytes that count up from 0.
    pub(crate) fn new(packet: usize) -> Self {
        let mut frame = vec![0xee; ROOM + packet + ROOM];
        for (i, byte) in frame[ROOM..ROOM + packet].iter_mut().enumerate() {
            *byte = i as u8;
        }
        Self {
            frame,
            packet: ROOM..ROOM + packet,
            meta: 0,
            arrays: Vec::new(),
            now_ns: 0,
            ifindex: [0; 3],
            cpu: 0,
            found: (std::ptr::null(), null_mut()),
            memo: vec![MemoEntry::EMPTY; MEMO_ENTRIES],
            resume: 0,
            options: Options::default(),
        }
    }

    /// Runs an object, compiled with and without its stack in registers; both must do the same.
    pub(crate) fn run(&mut self, object: &Object) -> Outcome {
        let before = (self.frame.clone(), self.arrays.clone(), self.memo.clone());
        let [memory, registers] = [false, true].map(|promote_stack| {
            self.frame.copy_from_slice(&before.0);
            self.memo.clone_from(&before.2);
            // In place: a key's address may have been given away.
            for (array, before) in self.arrays.iter_mut().zip(&before.1) {
                array.copy_from_slice(before);
            }
            let options = Options {
                promote_stack,
                ..self.options
            };
            let code = compile_unverified(object, &options).expect("compiles");
            let outcome = self.enter(&Loaded::new(&code));
            (outcome, self.frame.clone(), self.arrays.clone())
        });
        assert_eq!(memory.0.verdict, registers.0.verdict);
        assert_eq!(memory.0.calls, registers.0.calls);
        assert_eq!((&memory.1, &memory.2), (&registers.1, &registers.2));
        registers.0
    }

    fn enter(&mut self, code: &Loaded) -> Outcome {
        let mut calls: Vec<Called> = Vec::new();
        let handle = MapHandle {
            lookup,
            update,
            delete,
            push,
            pop,
            peek,
        };
        let mut maps: Vec<Map> = (0..8)
            .map(|index| Map {
                handle,
                index,
                calls: &raw mut calls,
                value: 100 + index as u64,
            })
            .collect();
        let maps: Vec<*const MapHandle> = maps
            .iter_mut()
            .map(|m| (&raw mut *m).cast::<MapHandle>().cast_const())
            .collect();
        let mut helpers = [record as HelperFn; HELPER_SLOTS];
        helpers[65] = grow;
        let base = self.frame.as_mut_ptr();
        let arrays: Vec<*mut u8> = self
            .arrays
            .iter_mut()
            .map(|a| match a.is_empty() {
                true => null_mut(),
                false => a.as_mut_ptr().cast(),
            })
            .collect();
        let mut ctx = RunCtx {
            data: base.wrapping_add(self.packet.start),
            data_end: base.wrapping_add(self.packet.end),
            data_meta: base.wrapping_add(self.packet.start - self.meta),
            ingress_ifindex: self.ifindex[0],
            rx_queue_index: self.ifindex[1],
            egress_ifindex: self.ifindex[2],
            redirect_ifindex: 0,
            frame_start: base,
            frame_end: base.wrapping_add(self.frame.len()),
            now_ns: self.now_ns,
            arrays: arrays.as_ptr(),
            maps: maps.as_ptr(),
            helpers: helpers.as_ptr(),
            worker: (&raw mut calls).cast::<c_void>(),
            cpu: self.cpu,
            resume: self.resume,
            found_key: self.found.0,
            found_value: self.found.1,
            memo: self.memo.as_mut_ptr(),
            fuel: 0,
        };
        // SAFETY: the tests' programs check packet bounds and look-ups, and `ctx` holds all maps
        // and arrays of their objects.
        let verdict = unsafe { code.xdp(&raw mut ctx) };
        let offset = |p: *mut u8| p as isize - base as isize;
        Outcome {
            verdict,
            calls,
            data: offset(ctx.data),
            data_end: offset(ctx.data_end),
            data_meta: offset(ctx.data_meta),
            redirect_ifindex: ctx.redirect_ifindex,
        }
    }
}

/// Records its arguments; returns 1000 plus the first one's low byte.
unsafe extern "C" fn record(ctx: *mut RunCtx, a: u64, b: u64, c: u64, d: u64, e: u64) -> u64 {
    // SAFETY: the runs above put the address of their own vector there, borrowed by nobody else
    // while the program runs.
    let calls = unsafe { &mut *(*ctx).worker.cast::<Vec<Called>>() };
    // The context has another address each run.
    let a = if a == ctx as u64 { 0xc7c7 } else { a };
    calls.push(Called::Helper([a, b, c, d, e]));
    1000 + (a & 0xff)
}

/// `bpf_xdp_adjust_tail` that grows, recorded.
unsafe extern "C" fn grow(ctx: *mut RunCtx, a: u64, b: u64, _: u64, _: u64, _: u64) -> u64 {
    // SAFETY: as `record`.
    unsafe { record(ctx, a, b, 0, 0, 0) };
    77
}

/// Records a map operation with the words at its pointers.
///
/// # Safety
/// `map` is one of the maps above and each pointer is null or points to 8 readable bytes.
unsafe fn note(
    map: *const MapHandle,
    name: &'static str,
    words: &[*const u8],
    flags: &[u64],
) -> *mut u64 {
    let map = map.cast_mut().cast::<Map>();
    // SAFETY: the caller's promise; the vector outlives the run and is borrowed only here.
    unsafe {
        let mut seen: Vec<u64> = words
            .iter()
            .map(|p| p.cast::<u64>().read_unaligned())
            .collect();
        seen.extend(flags);
        (*(*map).calls).push(Called::Map(name, (*map).index, seen));
        &raw mut (*map).value
    }
}

// SAFETY of all operations: compiled code passes a map of its context and, as the verifier proves
// and these tests' programs do, pointers to keys and values of 8 bytes.
unsafe extern "C" fn lookup(map: *const MapHandle, key: *const u8) -> *mut u8 {
    // SAFETY: see above.
    unsafe {
        let value = note(map, "lookup", &[key], &[]).cast();
        match key.cast::<u64>().read_unaligned() {
            ABSENT => null_mut(),
            _ => value,
        }
    }
}
unsafe extern "C" fn update(map: *const MapHandle, k: *const u8, v: *const u8, f: u64) -> i64 {
    // SAFETY: see above.
    unsafe { note(map, "update", &[k, v], &[f]) };
    -17
}
unsafe extern "C" fn delete(map: *const MapHandle, key: *const u8) -> i64 {
    // SAFETY: see above.
    unsafe { note(map, "delete", &[key], &[]) };
    -2
}
unsafe extern "C" fn push(map: *const MapHandle, value: *const u8, flags: u64) -> i64 {
    // SAFETY: see above.
    unsafe { note(map, "push", &[value], &[flags]) };
    0
}
unsafe extern "C" fn pop(map: *const MapHandle, value: *mut u8) -> i64 {
    // SAFETY: see above.
    unsafe {
        note(map, "pop", &[], &[]);
        value.cast::<u64>().write_unaligned(0x1122_3344_5566_7788);
    }
    0
}
unsafe extern "C" fn peek(map: *const MapHandle, value: *mut u8) -> i64 {
    // SAFETY: see above.
    unsafe {
        note(map, "peek", &[], &[]);
        value.cast::<u64>().write_unaligned(0x99);
    }
    0
}

/// An XDP program.
pub(crate) fn xdp(name: &str, write: impl FnOnce(&mut Builder)) -> Program {
    let mut b = Builder::new();
    write(&mut b);
    Program {
        name: name.into(),
        kind: ProgramKind::Xdp,
        insns: b.finish().expect("labels are bound, jumps are short"),
        ..Program::default()
    }
}

/// An object of one XDP program.
pub(crate) fn object(maps: Vec<MapDef>, write: impl FnOnce(&mut Builder)) -> Object {
    Object {
        maps,
        programs: vec![xdp("main", write)],
        tail_calls: Vec::new(),
    }
}

/// A map with keys of 8 bytes, or 4 for arrays.
pub(crate) fn map(name: &str, kind: MapKind, value_size: u32, max_entries: u32) -> MapDef {
    let key_size = match kind {
        MapKind::Array | MapKind::PercpuArray | MapKind::ProgArray => 4,
        MapKind::Queue | MapKind::Stack => 0,
        _ => 8,
    };
    MapDef {
        name: name.into(),
        kind,
        key_size,
        value_size,
        max_entries,
        flags: 0,
        ..MapDef::default()
    }
}

/// Why an object is refused.
pub(crate) fn refused(object: &Object) -> String {
    refused_with(object, &Options::default())
}

/// The same with other options.
pub(crate) fn refused_with(object: &Object, options: &Options) -> String {
    let error: NativeError = compile_unverified(object, options).expect_err("must be refused");
    error.to_string()
}
