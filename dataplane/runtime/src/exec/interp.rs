//! The checking interpreter over real tables and packets.
//!
//! Programs hold real addresses of packets and values, and every access is checked against what the
//! run was given: the packet as it is now, the core's arrays, the policy arrays (read-only), and the
//! values that look-ups of this run returned. Map pointers are tokens that lead nowhere.

use dash_bpf::helper as nr;
use dash_bpf::helper::xdp_md;
use dash_bpf::interp::{CTX_BASE, CallFault, Env, HelperResult, Interp, MemFault, StackView, Trap};
use dash_bpf::{MapDef, Object, Op, Size, decode};
use dash_wire::abi::{MapHandle, RunCtx};
use nic_target::tables::Discipline;
use nic_target::{Table, TargetError};

use super::{Engine, Region, TailCalls, unsupported};
use crate::helpers::PIPELINE_HELPERS;
use crate::tables::MAX_KEY;

/// A map pointer is this plus the map's index. Not a canonical address.
const MAP_BASE: u64 = 0x4d41_0000_0000_0000;
/// Look-ups of one run whose values it may use.
const MOST_VALUES: usize = 1024;

/// Programs, decoded.
#[derive(Debug)]
pub struct Programs {
    ops: Vec<Vec<Op>>,
    tail_calls: TailCalls,
}

impl Programs {
    pub(crate) fn new(object: &Object) -> Result<Self, TargetError> {
        if object.programs.is_empty() {
            return Err(unsupported(Engine::Interp, "it has no program"));
        }
        let ops = object.programs.iter().map(|program| {
            decode(&program.insns)
                .map_err(|e| unsupported(Engine::Interp, format!("program {}: {e}", program.name)))
        });
        Ok(Self {
            ops: ops.collect::<Result<_, _>>()?,
            tail_calls: TailCalls::new(Engine::Interp, object)?,
        })
    }
}

/// What the interpreter of a core keeps from run to run.
#[derive(Debug)]
pub(crate) struct State {
    interp: Interp,
    values: Vec<Region>,
    scratch: Box<[u8]>,
    trap: Option<Trap>,
}

impl State {
    pub(crate) fn new(defs: &[MapDef]) -> Self {
        let most = defs
            .iter()
            .map(|def| def.value_size as usize)
            .max()
            .unwrap_or(0);
        Self {
            interp: Interp::default(),
            values: Vec::with_capacity(MOST_VALUES),
            scratch: vec![0; most].into(),
            trap: None,
        }
    }

    /// Why the last run was stopped, if it was.
    pub(crate) fn trap(&self) -> Option<Trap> {
        self.trap
    }

    /// Runs program 0. A trap is an aborted run (r0 = 0).
    ///
    /// # Safety
    /// `ctx` points to a frame and tables that are alive and that nothing else uses meanwhile;
    /// `arrays` are ranges of those tables, `defs` their definitions.
    pub(crate) unsafe fn run(
        &mut self,
        programs: &Programs,
        ctx: &mut RunCtx,
        defs: &[MapDef],
        arrays: &[Region],
    ) -> u32 {
        self.values.clear();
        let mut env = RunEnv {
            ctx,
            defs,
            arrays,
            values: &mut self.values,
            scratch: &mut self.scratch,
            tail_calls: &programs.tail_calls,
        };
        match self.interp.run(&programs.ops, 0, &[CTX_BASE], &mut env) {
            Ok(r0) => {
                self.trap = None;
                r0 as u32
            }
            Err(trap) => {
                self.trap = Some(trap);
                0
            }
        }
    }
}

/// One run. Made only by [`State::run`], whose caller promises that the addresses are good.
struct RunEnv<'a> {
    ctx: &'a mut RunCtx,
    defs: &'a [MapDef],
    arrays: &'a [Region],
    values: &'a mut Vec<Region>,
    scratch: &'a mut [u8],
    tail_calls: &'a TailCalls,
}

impl<'a> RunEnv<'a> {
    fn packet(&self) -> Region {
        let start = self.ctx.data_meta.addr();
        Region {
            start,
            len: self.ctx.data_end.addr() - start,
            writable: true,
            map: usize::MAX,
        }
    }

    /// The address, if the program may use `len` bytes there.
    fn check(&self, addr: u64, len: usize, write: bool) -> Result<*mut u8, MemFault> {
        let at = usize::try_from(addr).map_err(|_| MemFault::Unmapped)?;
        let packet = self.packet();
        let regions = std::iter::once(&packet)
            .chain(self.arrays)
            .chain(self.values.iter());
        let mut fault = MemFault::Unmapped;
        for region in regions.filter(|region| region.holds(at, len)) {
            if !write || region.writable {
                return Ok(std::ptr::with_exposed_provenance_mut(at));
            }
            fault = MemFault::ReadOnly;
        }
        Err(fault)
    }

    /// A map argument: its definition and its handle.
    fn map(
        &self,
        argument: u8,
        token: u64,
    ) -> Result<(usize, &'a MapDef, *const MapHandle), CallFault> {
        let not_a_map = CallFault::Argument {
            argument,
            why: "not a map",
        };
        let index = usize::try_from(token.wrapping_sub(MAP_BASE)).map_err(|_| not_a_map)?;
        let def = self.defs.get(index).ok_or(not_a_map)?;
        // SAFETY: `maps` has one entry for each definition, by the contract of `State::run`.
        let handle = unsafe { *self.ctx.maps.add(index) };
        Ok((index, def, handle))
    }

    /// Copies bytes of a memory argument out of the stack, the packet or a value.
    fn read(
        &self,
        argument: u8,
        addr: u64,
        to: &mut [u8],
        stack: &StackView<'_>,
    ) -> Result<(), CallFault> {
        let failed = |fault| CallFault::Memory { argument, fault };
        if stack.owns(addr) {
            to.copy_from_slice(stack.read(addr, to.len()).map_err(failed)?);
        } else {
            let from = self.check(addr, to.len(), false).map_err(failed)?;
            // SAFETY: `check` found the bytes in memory of the run; `to` is a reference, which does
            // not overlap memory known by addresses only.
            unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        }
        Ok(())
    }

    fn key(
        &self,
        def: &MapDef,
        addr: u64,
        to: &mut [u8; MAX_KEY],
        stack: &StackView<'_>,
    ) -> Result<(), CallFault> {
        // Keys of all tables fit: maps refuse to be made with longer ones.
        self.read(2, addr, &mut to[..def.key_size as usize], stack)
    }

    /// Copies a value argument to the scratch buffer.
    fn value(
        &mut self,
        argument: u8,
        size: usize,
        addr: u64,
        stack: &StackView<'_>,
    ) -> Result<*const u8, CallFault> {
        let scratch = std::mem::take(&mut self.scratch);
        let result = self.read(argument, addr, &mut scratch[..size], stack);
        self.scratch = scratch;
        result.map(|()| self.scratch.as_ptr())
    }

    /// Remembers a value the program may now use.
    fn grant(&mut self, map: usize, def: &MapDef, value: *mut u8) -> Result<u64, CallFault> {
        if !value.is_null() && !def.kind.is_array() {
            if self.values.len() == self.values.capacity() {
                return Err(CallFault::Argument {
                    argument: 1,
                    why: "too many look-ups in one run",
                });
            }
            let writable = Table::ALL
                .get(map)
                .is_some_and(|table| table.discipline() == Discipline::Core);
            self.values.push(Region {
                start: value.addr(),
                len: def.value_size as usize,
                writable,
                map,
            });
        }
        Ok(value.expose_provenance() as u64)
    }

    fn map_helper(
        &mut self,
        helper: u32,
        a: [u64; 5],
        stack: &mut StackView<'_>,
    ) -> Result<u64, CallFault> {
        let (index, def, handle) = self.map(1, a[0])?;
        let size = def.value_size as usize;
        let mut key = [0; MAX_KEY];
        match helper {
            nr::MAP_LOOKUP_ELEM => {
                self.key(def, a[1], &mut key, stack)?;
                // SAFETY: a live map (contract of `State::run`) and a key of its size.
                let value = unsafe { ((*handle).lookup)(handle, key.as_ptr()) };
                self.grant(index, def, value)
            }
            nr::MAP_UPDATE_ELEM => {
                self.key(def, a[1], &mut key, stack)?;
                let value = self.value(3, size, a[2], stack)?;
                // SAFETY: as above, and a value of the map's size.
                Ok(unsafe { ((*handle).update)(handle, key.as_ptr(), value, a[3]) } as u64)
            }
            nr::MAP_DELETE_ELEM => {
                self.key(def, a[1], &mut key, stack)?;
                // SAFETY: as above.
                Ok(unsafe { ((*handle).delete)(handle, key.as_ptr()) } as u64)
            }
            nr::MAP_PUSH_ELEM => {
                let value = self.value(2, size, a[1], stack)?;
                // SAFETY: a live map and a value of its size.
                Ok(unsafe { ((*handle).push)(handle, value, a[2]) } as u64)
            }
            _ => {
                let to = if stack.owns(a[1]) {
                    let failed = |fault| CallFault::Memory { argument: 2, fault };
                    stack.write(a[1], size).map_err(failed)?.as_mut_ptr()
                } else {
                    self.check(a[1], size, true)
                        .map_err(|fault| CallFault::Memory { argument: 2, fault })?
                };
                // SAFETY: a live map and `size` writable bytes, just checked.
                let result = unsafe {
                    if helper == nr::MAP_POP_ELEM {
                        ((*handle).pop)(handle, to)
                    } else {
                        ((*handle).peek)(handle, to)
                    }
                };
                Ok(result as u64)
            }
        }
    }

    /// Runs a helper as compiled code would call it.
    fn native_helper(&mut self, helper: u32, a: [u64; 5]) -> u64 {
        let function = PIPELINE_HELPERS[helper as usize];
        // SAFETY: callers pass the numbers of helpers that use only the context and numbers, or
        // whose memory they checked; the context is that of a live run.
        unsafe { function(&raw mut *self.ctx, a[0], a[1], a[2], a[3], a[4]) }
    }

    /// Makes memory arguments of `csum_diff` plain addresses and runs it.
    fn csum_diff(&mut self, mut a: [u64; 5], stack: &StackView<'_>) -> Result<u64, CallFault> {
        for (argument, at) in [(1u8, 0), (3, 2)] {
            let size = a[at + 1] as u32 as usize;
            let failed = |fault| CallFault::Memory { argument, fault };
            if size == 0 {
                continue;
            }
            a[at] = if stack.owns(a[at]) {
                stack
                    .read(a[at], size)
                    .map_err(failed)?
                    .as_ptr()
                    .expose_provenance() as u64
            } else {
                self.check(a[at], size, false).map_err(failed)?.addr() as u64
            };
        }
        Ok(self.native_helper(nr::CSUM_DIFF, a))
    }
}

impl Env for RunEnv<'_> {
    fn load(&mut self, addr: u64, size: Size) -> Result<u64, MemFault> {
        let from = self.check(addr, size.bytes(), false)?;
        let mut value = [0; 8];
        // SAFETY: `check` found the bytes in memory of the run.
        unsafe { std::ptr::copy_nonoverlapping(from, value.as_mut_ptr(), size.bytes()) };
        Ok(u64::from_le_bytes(value))
    }

    fn store(&mut self, addr: u64, size: Size, value: u64) -> Result<(), MemFault> {
        let to = self.check(addr, size.bytes(), true)?;
        // SAFETY: `check` found the bytes in writable memory of the run.
        unsafe { std::ptr::copy_nonoverlapping(value.to_le_bytes().as_ptr(), to, size.bytes()) };
        Ok(())
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
        if (map as usize) < self.defs.len() {
            Ok(MAP_BASE + u64::from(map))
        } else {
            Err(MemFault::NoMap)
        }
    }

    fn map_value_address(&mut self, map: u32, offset: u32) -> Result<u64, MemFault> {
        let def = self
            .defs
            .get(map as usize)
            .filter(|def| def.kind.is_array() && offset < def.value_size);
        if def.is_none() {
            return Err(MemFault::NoMap);
        }
        // SAFETY: `arrays` has one entry for each definition, by the contract of `State::run`.
        let base = unsafe { *self.ctx.arrays.add(map as usize) };
        Ok(base.wrapping_add(offset as usize).expose_provenance() as u64)
    }

    fn load_packet(&mut self, off: usize, size: Size) -> Option<u64> {
        let len = self.ctx.data_end.addr() - self.ctx.data.addr();
        if off.checked_add(size.bytes())? > len {
            return None;
        }
        let mut value = [0; 8];
        // SAFETY: `size` bytes at `off` are inside the packet.
        unsafe {
            let from = self.ctx.data.add(off);
            std::ptr::copy_nonoverlapping(
                from,
                value[8 - size.bytes()..].as_mut_ptr(),
                size.bytes(),
            );
        }
        Some(u64::from_be_bytes(value))
    }

    fn call(
        &mut self,
        helper: u32,
        args: [u64; 5],
        stack: &mut StackView<'_>,
    ) -> Result<HelperResult, CallFault> {
        let wants_ctx = |argument: usize| match args[argument - 1] {
            CTX_BASE => Ok(()),
            _ => Err(CallFault::Argument {
                argument: argument as u8,
                why: "not the context",
            }),
        };
        let value = match helper {
            nr::MAP_LOOKUP_ELEM
            | nr::MAP_UPDATE_ELEM
            | nr::MAP_DELETE_ELEM
            | nr::MAP_PUSH_ELEM
            | nr::MAP_POP_ELEM
            | nr::MAP_PEEK_ELEM => self.map_helper(helper, args, stack)?,
            nr::XDP_ADJUST_HEAD | nr::XDP_ADJUST_META | nr::XDP_ADJUST_TAIL | nr::DASH_HOOK => {
                wants_ctx(1)?;
                self.native_helper(helper, args)
            }
            nr::KTIME_GET_NS | nr::GET_PRANDOM_U32 | nr::GET_SMP_PROCESSOR_ID | nr::REDIRECT => {
                self.native_helper(helper, args)
            }
            nr::CSUM_DIFF => self.csum_diff(args, stack)?,
            nr::TAIL_CALL => {
                wants_ctx(1)?;
                let (map, _, _) = self.map(2, args[1])?;
                match self.tail_calls.program(map as u32, args[2] as u32) {
                    Some(program) => return Ok(HelperResult::TailCall(program)),
                    None => u64::MAX,
                }
            }
            _ => return Err(CallFault::UnknownHelper),
        };
        Ok(HelperResult::Value(value))
    }
}
