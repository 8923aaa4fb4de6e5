//! The checking interpreter over real maps and frames.
//!
//! Programs hold real addresses of packets and values; every access is checked against what the run was
//! given: the packet as it is now, the arrays of its maps, values and records that helpers of this run
//! returned, and elements of maps that it visits. Map pointers are tokens that lead nowhere. Helpers run as for compiled code, once their
//! arguments are checked by their prototypes.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use dash_bpf::helper::{
    Arg, FOR_EACH_MAP_ELEM, LOOP, MAX_ROUNDS, Prototype, Returns, TAIL_CALL, xdp_md,
};
use dash_bpf::interp::{
    CTX_BASE, CallFault, Env, FUNCTION_BASE, HelperResult, Interp, MAX_FRAMES, MemFault, StackView,
    Trap,
};
use dash_bpf::op::AtomicOp;
use dash_bpf::{Op, Size, semantics};
use dash_wire::abi::{Element, MapHandle, RunCtx};

use crate::errno::Errno;
use crate::helpers::{probe, table};
use crate::map::{Store, View, view};
use crate::set::MapSet;

/// A map pointer is this plus the map's number in the run. Not a canonical address.
const MAP_BASE: u64 = 0x4d41_0000_0000_0000;
/// Values and records of one run that may be in use.
const MOST_GRANTS: usize = 65_536;
/// Bytes a string argument may have.
const MOST_TEXT: usize = 4096;

/// Addresses a program may use.
#[derive(Clone, Copy, Debug)]
struct Region {
    start: usize,
    len: usize,
    writable: bool,
    /// A record of a ring buffer, which ends.
    record: bool,
}

impl Region {
    fn holds(&self, at: usize, len: usize) -> bool {
        at.checked_sub(self.start)
            .is_some_and(|from| from <= self.len && len <= self.len - from)
    }
}

/// What the interpreter keeps from run to run.
#[derive(Debug)]
pub(crate) struct Interpreter {
    interp: Interp,
    arrays: Vec<Region>,
    grants: Vec<Region>,
    /// Maps by token: those of the object, then inner ones that this run looked up.
    maps: Vec<*const MapHandle>,
    own_maps: usize,
    /// Maps whose elements this run visits or visited, by token.
    visited: Vec<usize>,
    visits: Box<[Visit; MAX_FRAMES]>,
    scratch: [Vec<u8>; 2],
}

/// How far a visit of a map's elements is.
#[derive(Clone, Copy, Debug)]
struct Visit {
    cursor: u64,
    element: Element,
}

// SAFETY: addresses are used in `run` only, whose caller promises that they are good.
unsafe impl Send for Interpreter {}

impl Interpreter {
    pub(crate) fn new(maps: &MapSet, cpu: u32, fuel: Option<u64>) -> Self {
        let arrays = maps.iter().filter_map(|map| {
            let Store::Array(_) = map.store() else {
                return None;
            };
            let (start, len) = map.range(cpu)?;
            Some(Region {
                start,
                len,
                writable: !map.def().read_only(),
                record: false,
            })
        });
        Self {
            interp: fuel.map_or_else(Interp::default, Interp::metered),
            arrays: arrays.collect(),
            grants: Vec::new(),
            maps: maps.iter().map(|map| map.inner().handle(cpu)).collect(),
            own_maps: maps.len(),
            visited: Vec::new(),
            visits: Box::new(
                [Visit {
                    cursor: 0,
                    element: Element::EMPTY,
                }; MAX_FRAMES],
            ),
            scratch: [Vec::new(), Vec::new()],
        }
    }

    /// Runs a program. A trap is an aborted run (r0 = 0).
    ///
    /// # Safety
    /// `ctx` leads to a frame and maps that are alive, and the frame is nobody else's meanwhile.
    pub(crate) unsafe fn run(
        &mut self,
        programs: &[Vec<Op>],
        entry: usize,
        ctx: &mut RunCtx,
    ) -> (u32, Option<Trap>) {
        self.grants.clear();
        self.maps.truncate(self.own_maps);
        self.visited.clear();
        let mut env = RunEnv {
            ctx,
            own_maps: self.own_maps,
            arrays: &self.arrays,
            grants: &mut self.grants,
            maps: &mut self.maps,
            visited: &mut self.visited,
            visits: &mut self.visits,
            scratch: &mut self.scratch,
        };
        match self.interp.run(programs, entry, &[CTX_BASE], &mut env) {
            Ok(r0) => (r0 as u32, None),
            Err(trap) => (0, Some(trap)),
        }
    }
}

/// One run. Made only by [`Interpreter::run`], whose caller promises that the addresses are good.
struct RunEnv<'a> {
    ctx: &'a mut RunCtx,
    own_maps: usize,
    arrays: &'a [Region],
    grants: &'a mut Vec<Region>,
    maps: &'a mut Vec<*const MapHandle>,
    visited: &'a mut Vec<usize>,
    visits: &'a mut [Visit; MAX_FRAMES],
    scratch: &'a mut [Vec<u8>; 2],
}

fn argument(argument: usize, why: &'static str) -> CallFault {
    CallFault::Argument {
        argument: argument as u8 + 1,
        why,
    }
}

impl RunEnv<'_> {
    fn packet(&self) -> Region {
        let start = self.ctx.data_meta.addr();
        Region {
            start,
            len: self.ctx.data_end.addr() - start,
            writable: true,
            record: false,
        }
    }

    /// The address, if the program may use `len` bytes there.
    fn check(&self, addr: u64, len: usize, write: bool) -> Result<*mut u8, MemFault> {
        let at = usize::try_from(addr).map_err(|_| MemFault::Unmapped)?;
        let packet = self.packet();
        let regions = std::iter::once(&packet)
            .chain(self.arrays)
            .chain(self.grants.iter());
        let mut fault = MemFault::Unmapped;
        for region in regions.filter(|region| region.holds(at, len)) {
            if !write || region.writable {
                return Ok(std::ptr::with_exposed_provenance_mut(at));
            }
            fault = MemFault::ReadOnly;
        }
        match self.visiting(at, len) {
            Some(writable) if writable || !write => Ok(std::ptr::with_exposed_provenance_mut(at)),
            Some(_) => Err(MemFault::ReadOnly),
            None => Err(fault),
        }
    }

    /// Whether bytes are of an element of a map that this run visits, and may be written.
    fn visiting(&self, at: usize, len: usize) -> Option<bool> {
        let index = size_of::<u32>();
        let is_index = |visit: &Visit| {
            let start = (&raw const visit.element.index).addr();
            at.checked_sub(start)
                .is_some_and(|from| from <= index && len <= index - from)
        };
        if self.visits.iter().any(is_index) && !self.visited.is_empty() {
            return Some(false);
        }
        let views = self.visited.iter().filter_map(|map| {
            let handle = self.maps.get(*map)?;
            // SAFETY: as in `map`.
            Some(unsafe { view(*handle) })
        });
        let mut readable = None;
        for view in views {
            if view.shows(at, len, true) {
                return Some(view.writable);
            }
            if view.shows(at, len, false) {
                readable = Some(false);
            }
        }
        readable
    }

    fn map(&self, at: usize, token: u64) -> Result<(*const MapHandle, &View), CallFault> {
        let index = usize::try_from(token.wrapping_sub(MAP_BASE)).ok();
        let found = index.and_then(|index| self.maps.get(index));
        let handle = *found.ok_or(argument(at, "not a map"))?;
        // SAFETY: a map of the object, or one that this run looked up; alive by the contract of `run`.
        Ok((handle, unsafe { view(handle) }))
    }

    /// An address whose bytes are readable: those of a stack copied to scratch memory.
    fn readable(
        &mut self,
        at: usize,
        addr: u64,
        len: usize,
        slot: usize,
        stack: &StackView<'_>,
    ) -> Result<u64, CallFault> {
        let failed = |fault| CallFault::Memory {
            argument: at as u8 + 1,
            fault,
        };
        if !stack.owns(addr) {
            return self
                .check(addr, len, false)
                .map(|p| p.expose_provenance() as u64)
                .map_err(failed);
        }
        let bytes = stack.read(addr, len).map_err(failed)?;
        let scratch = &mut self.scratch[slot];
        // Whole words, so that the copy is aligned like what it is copied from may be.
        scratch.clear();
        scratch.extend_from_slice(bytes);
        Ok(scratch.as_mut_ptr().expose_provenance() as u64)
    }

    fn writable(
        &mut self,
        at: usize,
        addr: u64,
        len: usize,
        stack: &mut StackView<'_>,
    ) -> Result<u64, CallFault> {
        let failed = |fault| CallFault::Memory {
            argument: at as u8 + 1,
            fault,
        };
        let to = match stack.owns(addr) {
            true => stack.write(addr, len).map_err(failed)?.as_mut_ptr(),
            false => self.check(addr, len, true).map_err(failed)?,
        };
        Ok(to.expose_provenance() as u64)
    }

    /// Arguments as compiled code would pass them.
    fn arguments(
        &mut self,
        prototype: &Prototype,
        args: [u64; 5],
        stack: &mut StackView<'_>,
    ) -> Result<[u64; 5], CallFault> {
        let mut native = args;
        let mut sizes = (0, 0);
        let mut reads = 0;
        for (at, arg) in prototype.args.iter().enumerate() {
            let value = args[at];
            let size = args.get(at + 1).map_or(0, |&size| size as u32 as usize);
            native[at] = match arg {
                Arg::SizeNotZero if value as u32 == 0 => {
                    return Err(argument(at, "no bytes"));
                }
                Arg::Number | Arg::Rest | Arg::Size | Arg::SizeNotZero | Arg::RecordSize => value,
                Arg::Context if value == CTX_BASE => {
                    std::ptr::from_mut(self.ctx).expose_provenance() as u64
                }
                Arg::Context => return Err(argument(at, "not the context")),
                Arg::Map(kinds) => {
                    let (handle, view) = self.map(at, value)?;
                    if !kinds.contains(&view.kind) {
                        return Err(argument(at, "not a map of such a kind"));
                    }
                    sizes = (view.key_size, view.value_size);
                    handle.expose_provenance() as u64
                }
                Arg::Key | Arg::Value | Arg::Bytes => {
                    let len = match arg {
                        Arg::Key => sizes.0,
                        Arg::Value => sizes.1,
                        _ => size,
                    };
                    reads += 1;
                    match len {
                        0 => 0,
                        _ => self.readable(at, value, len, (reads - 1) % 2, stack)?,
                    }
                }
                Arg::ValueOut => self.writable(at, value, sizes.1, stack)?,
                Arg::BytesOut => self.writable(at, value, size, stack)?,
                Arg::BytesInOut => {
                    if stack.owns(value) {
                        let failed = |fault| CallFault::Memory {
                            argument: at as u8 + 1,
                            fault,
                        };
                        stack.read(value, size).map_err(failed)?;
                    }
                    self.writable(at, value, size, stack)?
                }
                Arg::Text => {
                    let len = self.text(value).ok_or(argument(at, "not a string"))?;
                    self.readable(at, value, len, 1, stack)?
                }
                Arg::Record => {
                    let place = usize::try_from(value).ok();
                    let found = self
                        .grants
                        .iter()
                        .position(|grant| grant.record && Some(grant.start) == place);
                    let found = found.ok_or(argument(at, "not a reserved record"))?;
                    self.grants.swap_remove(found);
                    value
                }
                Arg::Callback(_) if value >= FUNCTION_BASE => value,
                Arg::Callback(_) => return Err(argument(at, "not a function")),
                Arg::CallbackContext => value,
            };
        }
        Ok(native)
    }

    /// A helper that calls a function of the program; the rounds are [`Env::round`]'s.
    fn calls_back(&mut self, helper: u32, args: [u64; 5]) -> Result<HelperResult, CallFault> {
        let [first, function, _, flags, _] = args;
        if flags != 0 {
            return Ok(HelperResult::Value(Errno::Inval.negative() as u64));
        }
        if helper == LOOP && u64::from(first as u32) > MAX_ROUNDS {
            return Ok(HelperResult::Value(Errno::TooBig.negative() as u64));
        }
        if helper == FOR_EACH_MAP_ELEM {
            let token = first.wrapping_sub(MAP_BASE) as usize;
            if !self.visited.contains(&token) {
                if self.visited.len() == MOST_GRANTS {
                    return Err(argument(0, "too many maps in one run"));
                }
                self.visited.push(token);
            }
        }
        Ok(HelperResult::CallBack(function))
    }

    /// Bytes of a string with its end.
    fn text(&self, addr: u64) -> Option<usize> {
        (0..MOST_TEXT).find_map(|at| {
            let from = self.check(addr + at as u64, 1, false);
            match from {
                // SAFETY: `check` found the byte in memory of the run.
                Ok(from) => (unsafe { (*from.cast::<AtomicU8>()).load(Ordering::Relaxed) } == 0)
                    .then_some(Some(at + 1)),
                Err(_) => Some(None),
            }
        })?
    }

    fn grant(&mut self, region: Region) -> Result<(), CallFault> {
        if self.grants.len() == MOST_GRANTS {
            return Err(argument(0, "too many values in one run"));
        }
        self.grants.push(region);
        Ok(())
    }

    /// What the program gets for an address that a helper returned.
    fn returned(
        &mut self,
        prototype: &Prototype,
        args: [u64; 5],
        r0: u64,
    ) -> Result<u64, CallFault> {
        let start = r0 as usize;
        match prototype.returns {
            Returns::Value if start != 0 => {
                let (_, view) = self.map(0, args[0])?;
                let (kind, len, writable) = (view.kind, view.value_size, view.writable);
                if kind.holds_maps() {
                    // The handle of a map that this run may use from now on.
                    let handle = std::ptr::with_exposed_provenance(start);
                    let known = self.maps.iter().position(|map| *map == handle);
                    let index = match known {
                        Some(index) => index,
                        None if self.maps.len() - self.own_maps >= MOST_GRANTS => {
                            return Err(argument(0, "too many maps in one run"));
                        }
                        None => {
                            self.maps.push(handle);
                            self.maps.len() - 1
                        }
                    };
                    return Ok(MAP_BASE + index as u64);
                }
                self.grant(Region {
                    start,
                    len,
                    writable,
                    record: false,
                })?;
            }
            Returns::Record if start != 0 => {
                self.grant(Region {
                    start,
                    len: args[1] as usize,
                    writable: true,
                    record: true,
                })?;
            }
            _ => {}
        }
        Ok(r0)
    }
}

impl Env for RunEnv<'_> {
    fn load(&mut self, addr: u64, size: Size) -> Result<u64, MemFault> {
        let from = self.check(addr, size.bytes(), false)?;
        let aligned = from.addr() % size.bytes() == 0;
        let mut value = [0; 8];
        // SAFETY: `check` found the bytes in memory of the run; values may be shared with others.
        unsafe {
            Ok(match size {
                Size::Dw if aligned => (*from.cast::<AtomicU64>()).load(Ordering::Relaxed),
                Size::W if aligned => {
                    u64::from((*from.cast::<AtomicU32>()).load(Ordering::Relaxed))
                }
                Size::H if aligned => {
                    u64::from((*from.cast::<AtomicU16>()).load(Ordering::Relaxed))
                }
                _ => {
                    crate::memory::copy(value.as_mut_ptr(), from, size.bytes());
                    u64::from_le_bytes(value)
                }
            })
        }
    }

    fn store(&mut self, addr: u64, size: Size, value: u64) -> Result<(), MemFault> {
        let to = self.check(addr, size.bytes(), true)?;
        let aligned = to.addr() % size.bytes() == 0;
        // SAFETY: as in `load`, writable.
        unsafe {
            match size {
                Size::Dw if aligned => (*to.cast::<AtomicU64>()).store(value, Ordering::Relaxed),
                Size::W if aligned => {
                    (*to.cast::<AtomicU32>()).store(value as u32, Ordering::Relaxed);
                }
                Size::H if aligned => {
                    (*to.cast::<AtomicU16>()).store(value as u16, Ordering::Relaxed);
                }
                _ => crate::memory::copy(to, value.to_le_bytes().as_ptr(), size.bytes()),
            }
        }
        Ok(())
    }

    fn atomic(
        &mut self,
        op: AtomicOp,
        addr: u64,
        size: Size,
        src: u64,
        expected: u64,
    ) -> Result<u64, MemFault> {
        let at = self.check(addr, size.bytes(), true)?;
        let order = (Ordering::SeqCst, Ordering::SeqCst);
        // SAFETY: as in `load`, writable; the interpreter checked that it is aligned.
        unsafe {
            if size == Size::W {
                let word = &*at.cast::<AtomicU32>();
                let new = |old: u32| {
                    Some(semantics::atomic(op, size, u64::from(old), src, expected) as u32)
                };
                return Ok(u64::from(match word.fetch_update(order.0, order.1, new) {
                    Ok(old) | Err(old) => old,
                }));
            }
            let word = &*at.cast::<AtomicU64>();
            let new = |old| Some(semantics::atomic(op, size, old, src, expected));
            Ok(match word.fetch_update(order.0, order.1, new) {
                Ok(old) | Err(old) => old,
            })
        }
    }

    fn load_ctx(&mut self, off: i64, size: Size) -> Result<u64, MemFault> {
        let pointer = |p: *mut u8| p.expose_provenance() as u64;
        let off = i16::try_from(off).map_err(|_| MemFault::Context)?;
        match (off, size) {
            (xdp_md::DATA, Size::W) => Ok(pointer(self.ctx.data)),
            (xdp_md::DATA_END, Size::W) => Ok(pointer(self.ctx.data_end)),
            (xdp_md::DATA_META, Size::W) => Ok(pointer(self.ctx.data_meta)),
            (xdp_md::INGRESS_IFINDEX, Size::W) => Ok(u64::from(self.ctx.ingress_ifindex)),
            (xdp_md::RX_QUEUE_INDEX, Size::W) => Ok(u64::from(self.ctx.rx_queue_index)),
            (xdp_md::EGRESS_IFINDEX, Size::W) => Ok(u64::from(self.ctx.egress_ifindex)),
            _ => Err(MemFault::Context),
        }
    }

    fn map_address(&mut self, map: u32) -> Result<u64, MemFault> {
        match (map as usize) < self.own_maps {
            true => Ok(MAP_BASE + u64::from(map)),
            false => Err(MemFault::NoMap),
        }
    }

    fn map_value_address(&mut self, map: u32, offset: u32) -> Result<u64, MemFault> {
        if map as usize >= self.own_maps {
            return Err(MemFault::NoMap);
        }
        // SAFETY: `arrays` has one entry for each map of the object, by the contract of `run`.
        let base = unsafe { *self.ctx.arrays.add(map as usize) };
        if base.is_null() {
            return Err(MemFault::NoMap);
        }
        Ok(base.wrapping_add(offset as usize).expose_provenance() as u64)
    }

    fn arity(&self, helper: u32) -> usize {
        probe::find(helper).map_or(0, |prototype| prototype.args.len())
    }

    fn round(&mut self, helper: u32, args: [u64; 5], round: u64, depth: usize) -> Option<[u64; 4]> {
        let [first, _, context, ..] = args;
        if helper == LOOP {
            return (round < u64::from(first as u32)).then_some([round, context, 0, 0]);
        }
        let (handle, _) = self.map(0, first).ok()?;
        let handle = handle.expose_provenance() as u64;
        let visit = self.visits.get_mut(depth)?;
        if round == 0 {
            visit.cursor = 0;
        }
        let to = (&raw mut visit.element).expose_provenance() as u64;
        let next = table()[FOR_EACH_MAP_ELEM as usize];
        // SAFETY: a map of the run whose elements can be visited, as `call` checked, a cursor of its own
        // or 0, and an `Element`.
        let cursor = unsafe {
            let ctx = std::ptr::from_mut(self.ctx);
            next(ctx, handle, visit.cursor, to, 0, 0)
        };
        if cursor == 0 {
            return None;
        }
        visit.cursor = cursor;
        let Element { key, value, .. } = visit.element;
        let (key, value) = (key.expose_provenance(), value.expose_provenance());
        Some([first, key as u64, value as u64, context])
    }

    fn call(
        &mut self,
        helper: u32,
        args: [u64; 5],
        stack: &mut StackView<'_>,
    ) -> Result<HelperResult, CallFault> {
        let prototype = probe::find(helper).ok_or(CallFault::UnknownHelper)?;
        let native = self.arguments(prototype, args, stack)?;
        if matches!(helper, LOOP | FOR_EACH_MAP_ELEM) {
            return self.calls_back(helper, args);
        }
        let function = table()[helper as usize];
        let [a, b, c, d, e] = native;
        self.ctx.resume = 0;
        // SAFETY: arguments are what the prototype says, as `arguments` checked; the context is that
        // of a live run.
        let r0 = unsafe { function(std::ptr::from_mut(self.ctx), a, b, c, d, e) };
        if helper == TAIL_CALL {
            return Ok(match self.ctx.resume.checked_sub(1) {
                Some(program) => HelperResult::TailCall(program as usize),
                None => HelperResult::Value(r0),
            });
        }
        self.returned(prototype, args, r0).map(HelperResult::Value)
    }
}
