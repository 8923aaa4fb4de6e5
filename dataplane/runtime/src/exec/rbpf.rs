//! The interpreter of the crate rbpf 0.4, one program at a time.
//!
//! It knows less than we do, and what it does not know it gets wrong silently, so images are looked
//! through and refused first ([`Programs::new`]). Then:
//! - Our programs read packet pointers by 32-bit loads of `xdp_md`. So packets are copied to a
//!   buffer below 4 GiB, with an `xdp_md` beside it.
//! - rbpf has no tail calls. Helper 12 notes the next program and returns -1; programs must end with
//!   `r0 = imm; exit` right after it, and then the next one starts.
//! - rbpf does not say where its stack is. Three instructions in front of each program tell us
//!   (r10) and get the context: helpers check memory arguments against it.
//! - rbpf has no read-only memory. Policy rows are copies made for the run.
//!
//! Not checked: time. A program that does not end hangs; the verifier refuses those.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use ::rbpf::EbpfVmNoData;
use dash_bpf::helper as nr;
use dash_bpf::helper::xdp_md;
use dash_bpf::op::{AluOp, Imm64, Operand, Width};
use dash_bpf::{Insn, MapDef, MapKind, Object, Op, Reg, decode, encode};
use dash_wire::abi::{MapHandle, RunCtx};
use nic_target::frame::{HEADROOM, MAX_FRAME};
use nic_target::tables::Discipline;
use nic_target::{Table, TargetError};

use super::{Engine, Region, TailCalls, unsupported};
use crate::helpers::PIPELINE_HELPERS;
use crate::tables::MAX_KEY;
use crate::tables::bytes::Bytes;
use low::LowMemory;

mod low;
mod subset;

/// A map pointer is this plus the map's index. Not a canonical address.
const MAP_BASE: u64 = 0x4d41_0000_0000_0000;
/// Helper of our prologue: takes r10, returns the context. Linux has no helper of this number yet.
const ENTER: u32 = 255;
/// Bytes for copies of policy rows in one run.
const ROWS: usize = 64 * 1024;
const PACKET: usize = HEADROOM + MAX_FRAME;
/// rbpf's stack.
const STACK: usize = 512;
const MAX_TAIL_CALLS: usize = 33;

/// Programs within rbpf's instruction set, map references not yet resolved.
#[derive(Debug)]
pub struct Programs {
    programs: Vec<(String, Vec<Insn>)>,
    tail_calls: TailCalls,
}

impl Programs {
    pub(crate) fn new(object: &Object) -> Result<Self, TargetError> {
        if object.programs.is_empty() {
            return Err(refuse("it has no program"));
        }
        for program in &object.programs {
            subset::check(program)?;
        }
        let programs = object
            .programs
            .iter()
            .map(|p| (p.name.clone(), p.insns.clone()));
        let new = Self {
            programs: programs.collect(),
            tail_calls: TailCalls::new(Engine::Rbpf, object)?,
        };
        for index in 0..new.programs.len() {
            let bytes = new.link(index, |_, _| 0);
            EbpfVmNoData::new(Some(&bytes))
                .map_err(|e| refuse(format!("program {}: {e}", new.programs[index].0)))?;
        }
        Ok(new)
    }

    /// Wire form of a program behind our prologue, map references replaced by addresses.
    fn link(&self, index: usize, address: impl Fn(u32, Option<u32>) -> u64) -> Vec<u8> {
        let prologue = [
            Op::Alu {
                width: Width::W64,
                op: AluOp::Mov,
                dst: Reg::R1,
                src: Operand::Reg(Reg::R10),
            },
            Op::Call { helper: ENTER },
            Op::Alu {
                width: Width::W64,
                op: AluOp::Mov,
                dst: Reg::R1,
                src: Operand::Reg(Reg::R0),
            },
        ];
        let prologue = prologue.iter().enumerate().flat_map(|(slot, op)| {
            let wire = encode(op, slot).expect("moves and calls have encodings");
            wire.as_slice().to_vec()
        });
        let mut insns = self.programs[index].1.clone();
        // `decode` accepted the program, so it does again and slots match.
        for (slot, op) in decode(&insns).into_iter().flatten().enumerate() {
            let value = match op {
                Op::LoadImm64 {
                    imm: Imm64::Map(map),
                    ..
                } => address(map, None),
                Op::LoadImm64 {
                    imm: Imm64::MapValue { map, offset },
                    ..
                } => address(map, Some(offset)),
                _ => continue,
            };
            insns[slot].regs &= 0x0f;
            insns[slot].imm = value as u32 as i32;
            insns[slot + 1].imm = (value >> 32) as u32 as i32;
        }
        prologue.chain(insns).flat_map(Insn::to_bytes).collect()
    }
}

fn refuse(reason: impl ToString) -> TargetError {
    unsupported(Engine::Rbpf, reason)
}

/// A linked program. Field order: the machine goes before the bytes it borrows.
struct Vm {
    vm: EbpfVmNoData<'static>,
    _program: Arc<[u8]>,
}

// SAFETY: what keeps `EbpfVmNoData` from being `Send` is the data of a stack-usage calculator
// (`Box<dyn Any>`); none is ever set, so there is none.
unsafe impl Send for Vm {}

/// What the executor of a core keeps from run to run.
pub(crate) struct State {
    low: LowMemory,
    rows: Bytes,
    vms: Vec<Vm>,
    /// Copies of the policy arrays of the linked generation, by map.
    copies: Vec<Option<Bytes>>,
    linked: u64,
    error: Option<String>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "State({} programs of generation {})",
            self.vms.len(),
            self.linked
        )
    }
}

/// One run, as helpers see it.
struct Run<'a> {
    ctx: RunCtx,
    low: &'a LowMemory,
    rows: &'a Bytes,
    rows_used: usize,
    copies: &'a [Option<Bytes>],
    defs: &'a [MapDef],
    arrays: &'a [Region],
    tail_calls: &'a TailCalls,
    stack_top: usize,
    next: Option<usize>,
    /// A helper refused its arguments: the run does not count.
    bad: bool,
}

thread_local! {
    /// The run of this thread, null between runs. rbpf calls helpers without a context.
    static CURRENT: Cell<*mut Run<'static>> = const { Cell::new(std::ptr::null_mut()) };
}

impl State {
    pub(crate) fn new() -> Result<Self, TargetError> {
        Ok(Self {
            low: LowMemory::new()?,
            rows: Bytes::zeroed(ROWS),
            vms: Vec::new(),
            copies: Vec::new(),
            linked: 0,
            error: None,
        })
    }

    /// Why the last run failed, if it did.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Links the programs of a generation to the addresses of this core.
    fn link(&mut self, programs: &Programs, serial: u64, defs: &[MapDef], arrays: &[Region]) {
        if self.linked == serial {
            return;
        }
        self.copies = (0..defs.len())
            .map(|map| {
                let region = arrays.iter().find(|r| r.map == map && !r.writable)?;
                let copy = Bytes::zeroed(region.len);
                // SAFETY: a policy array of the bound generation, `len` bytes, and a fresh block.
                unsafe { std::ptr::copy_nonoverlapping(region.address(), copy.at(0), region.len) };
                Some(copy)
            })
            .collect();
        let base = |map: usize| match self.copies.get(map) {
            Some(Some(copy)) => Some(copy.at(0)),
            _ => arrays.iter().find(|r| r.map == map).map(Region::address),
        };
        let address = |map: u32, offset: Option<u32>| match offset {
            None => MAP_BASE + u64::from(map),
            // Not an array: an address no access is allowed at.
            Some(offset) => {
                base(map as usize).map_or(0, |b| b.expose_provenance() as u64 + u64::from(offset))
            }
        };
        let low = self.low.xdp_md().expose_provenance() as u64;
        let rows = self.rows.at(0).expose_provenance() as u64;
        self.vms = (0..programs.programs.len())
            .filter_map(|index| {
                let program: Arc<[u8]> = programs.link(index, address).into();
                // SAFETY: the bytes live as long as the machine, which is dropped before the `Arc`
                // beside it and handed to nobody.
                let bytes = unsafe { std::slice::from_raw_parts(program.as_ptr(), program.len()) };
                // `Programs::new` had this very program accepted.
                let mut vm = EbpfVmNoData::new(Some(bytes)).ok()?;
                vm.register_allowed_memory(low..low + LowMemory::SIZE as u64);
                vm.register_allowed_memory(rows..rows + ROWS as u64);
                for region in arrays {
                    let start = base(region.map)
                        .unwrap_or(region.address())
                        .expose_provenance() as u64;
                    vm.register_allowed_memory(start..start + region.len as u64);
                }
                register(&mut vm).ok()?;
                Some(Vm {
                    vm,
                    _program: program,
                })
            })
            .collect();
        self.linked = serial;
    }

    /// Runs program 0. A failure is an aborted run (r0 = 0).
    ///
    /// # Safety
    /// `ctx` points to a frame and tables that are alive and that nothing else uses meanwhile;
    /// `arrays` are ranges of those tables, `defs` their definitions; `serial` names their
    /// generation.
    pub(crate) unsafe fn run(
        &mut self,
        programs: &Programs,
        serial: u64,
        ctx: &mut RunCtx,
        defs: &[MapDef],
        arrays: &[Region],
    ) -> u32 {
        self.link(programs, serial, defs, arrays);
        self.error = None;
        let size = ctx.frame_end.addr() - ctx.frame_start.addr();
        let (start, end) = (
            ctx.data.addr() - ctx.frame_start.addr(),
            ctx.data_end.addr() - ctx.frame_start.addr(),
        );
        if size > PACKET {
            self.error = Some(format!("a frame of {size} bytes"));
            return 0;
        }
        let packet = self.low.packet();
        // With the headroom: a program that moves the head sees the same bytes on every engine.
        // SAFETY: `..end` is inside the frame and, as `size <= PACKET`, inside the buffer.
        unsafe { std::ptr::copy_nonoverlapping(ctx.frame_start, packet, end) };
        let low_ctx = RunCtx {
            data: packet.wrapping_add(start),
            data_end: packet.wrapping_add(end),
            data_meta: packet.wrapping_add(start),
            frame_start: packet,
            frame_end: packet.wrapping_add(size),
            ..*ctx
        };
        let mut run = Run {
            ctx: low_ctx,
            low: &self.low,
            rows: &self.rows,
            rows_used: 0,
            copies: &self.copies,
            defs,
            arrays,
            tail_calls: &programs.tail_calls,
            stack_top: 0,
            next: None,
            bad: false,
        };
        let (result, run) = with_current(&mut run, || chain(&self.vms));
        let r0 = match result {
            Ok(_) if run.bad => {
                self.error = Some("a helper was given memory that is not the program's".to_owned());
                return 0;
            }
            Ok(r0) => r0,
            Err(error) => {
                self.error = Some(error);
                return 0;
            }
        };
        let (from, to) = (
            run.ctx.data.addr() - packet.addr(),
            run.ctx.data_end.addr() - packet.addr(),
        );
        ctx.redirect_ifindex = run.ctx.redirect_ifindex;
        ctx.data = ctx.frame_start.wrapping_add(from);
        ctx.data_end = ctx.frame_start.wrapping_add(to);
        ctx.data_meta = ctx.data;
        // SAFETY: helpers keep `data..data_end` inside `frame_start..frame_end`, which has the same
        // size in both buffers.
        unsafe { std::ptr::copy_nonoverlapping(run.ctx.data, ctx.data, to - from) };
        r0
    }
}

/// Runs programs until one does not tail-call another.
fn chain(vms: &[Vm]) -> Result<u32, String> {
    let mut program = 0;
    for _ in 0..=MAX_TAIL_CALLS {
        let vm = vms.get(program).ok_or("the program could not be linked")?;
        let r0 = vm.vm.execute_program().map_err(|e| e.to_string())?;
        // SAFETY: `with_current` is below us on this thread's stack, and rbpf has returned.
        match unsafe { (*CURRENT.get()).next.take() } {
            Some(next) => program = next,
            None => return Ok(r0 as u32),
        }
    }
    Err("too many tail calls".to_owned())
}

/// Makes `run` the run of this thread while `f` runs, and gives it back.
fn with_current<'r, 'a, R>(run: &'r mut Run<'a>, f: impl FnOnce() -> R) -> (R, &'r mut Run<'a>) {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            CURRENT.set(std::ptr::null_mut());
        }
    }
    let run: *mut Run<'a> = run;
    let reset = Reset;
    CURRENT.set(run.cast());
    let result = f();
    drop(reset);
    // SAFETY: `run` was a unique reference for 'r, and CURRENT no longer leads to it.
    (result, unsafe { &mut *run })
}

/// A helper as rbpf calls it.
fn helper<const NUMBER: u32>(a: u64, b: u64, c: u64, d: u64, e: u64) -> u64 {
    let run = CURRENT.get();
    if run.is_null() {
        return 0;
    }
    // SAFETY: set by `with_current`, which outlives the program that called us; nobody else uses
    // the run while rbpf runs.
    unsafe { &mut *run }.call(NUMBER, [a, b, c, d, e])
}

fn register(vm: &mut EbpfVmNoData<'static>) -> Result<(), std::io::Error> {
    macro_rules! helpers {
        ($($number:expr),*) => {$( vm.register_helper($number, helper::<{ $number }>)?; )*};
    }
    helpers!(
        ENTER,
        nr::MAP_LOOKUP_ELEM,
        nr::MAP_UPDATE_ELEM,
        nr::MAP_DELETE_ELEM,
        nr::MAP_PUSH_ELEM,
        nr::MAP_POP_ELEM,
        nr::MAP_PEEK_ELEM,
        nr::KTIME_GET_NS,
        nr::GET_PRANDOM_U32,
        nr::GET_SMP_PROCESSOR_ID,
        nr::TAIL_CALL,
        nr::REDIRECT,
        nr::CSUM_DIFF,
        nr::XDP_ADJUST_HEAD,
        nr::XDP_ADJUST_META,
        nr::XDP_ADJUST_TAIL,
        nr::DASH_HOOK
    );
    Ok(())
}

impl<'a> Run<'a> {
    /// The helper; a refusal spoils the run.
    fn call(&mut self, number: u32, args: [u64; 5]) -> u64 {
        let result = self.try_call(number, args);
        self.bad |= result.is_none();
        result.unwrap_or(u64::MAX)
    }

    fn try_call(&mut self, number: u32, a: [u64; 5]) -> Option<u64> {
        match number {
            ENTER => {
                self.stack_top = a[0] as usize;
                self.write_xdp_md();
                Some(self.low.xdp_md().expose_provenance() as u64)
            }
            nr::MAP_LOOKUP_ELEM => self.lookup(a),
            nr::MAP_UPDATE_ELEM => {
                let (def, handle) = self.map(a[0])?;
                let (key, value) = (
                    self.memory(a[1], def.key_size)?,
                    self.memory(a[2], def.value_size)?,
                );
                // SAFETY: a live map, checked key and value.
                Some(unsafe { ((*handle).update)(handle, key, value, a[3]) } as u64)
            }
            nr::MAP_DELETE_ELEM => {
                let (def, handle) = self.map(a[0])?;
                let key = self.memory(a[1], def.key_size)?;
                // SAFETY: a live map, a checked key.
                Some(unsafe { ((*handle).delete)(handle, key) } as u64)
            }
            nr::MAP_PUSH_ELEM => {
                let (def, handle) = self.map(a[0])?;
                let value = self.memory(a[1], def.value_size)?;
                // SAFETY: a live map, a checked value.
                Some(unsafe { ((*handle).push)(handle, value, a[2]) } as u64)
            }
            nr::MAP_POP_ELEM | nr::MAP_PEEK_ELEM => {
                let (def, handle) = self.map(a[0])?;
                let value = self.memory(a[1], def.value_size)?;
                // SAFETY: a live map, and memory of the program, all of which it may write.
                let result = unsafe {
                    if number == nr::MAP_POP_ELEM {
                        ((*handle).pop)(handle, value)
                    } else {
                        ((*handle).peek)(handle, value)
                    }
                };
                Some(result as u64)
            }
            nr::TAIL_CALL => {
                let map = a[1]
                    .checked_sub(MAP_BASE)
                    .and_then(|m| u32::try_from(m).ok())?;
                self.next = self.tail_calls.program(map, a[2] as u32);
                Some(u64::MAX)
            }
            nr::CSUM_DIFF => {
                let from = self.optional_memory(a[0], a[1] as u32)?;
                let to = self.optional_memory(a[2], a[3] as u32)?;
                let a = [
                    from.expose_provenance() as u64,
                    a[1],
                    to.expose_provenance() as u64,
                    a[3],
                    a[4],
                ];
                Some(self.native(number, a))
            }
            nr::XDP_ADJUST_HEAD | nr::XDP_ADJUST_META | nr::XDP_ADJUST_TAIL | nr::DASH_HOOK => {
                let result = self.native(number, a);
                self.write_xdp_md();
                Some(result)
            }
            _ => Some(self.native(number, a)),
        }
    }

    /// Runs a helper as compiled code would.
    fn native(&mut self, number: u32, a: [u64; 5]) -> u64 {
        // SAFETY: callers checked memory arguments; the context is this run's.
        unsafe {
            PIPELINE_HELPERS[number as usize](&raw mut self.ctx, a[0], a[1], a[2], a[3], a[4])
        }
    }

    fn write_xdp_md(&self) {
        let low = |p: *mut u8| p.expose_provenance() as u32;
        let fields = [
            (xdp_md::DATA, low(self.ctx.data)),
            (xdp_md::DATA_END, low(self.ctx.data_end)),
            (xdp_md::DATA_META, low(self.ctx.data_meta)),
            (xdp_md::INGRESS_IFINDEX, self.ctx.ingress_ifindex),
            (xdp_md::RX_QUEUE_INDEX, self.ctx.rx_queue_index),
            (xdp_md::EGRESS_IFINDEX, self.ctx.egress_ifindex),
        ];
        for (offset, value) in fields {
            // SAFETY: offsets of `xdp_md` are below 24, inside the mapping.
            unsafe {
                self.low
                    .xdp_md()
                    .add(offset as usize)
                    .cast::<u32>()
                    .write(value)
            };
        }
    }

    fn lookup(&mut self, a: [u64; 5]) -> Option<u64> {
        let (def, handle) = self.map(a[0])?;
        let mut key = [0; MAX_KEY];
        let from = self.memory(a[1], def.key_size)?;
        // SAFETY: checked memory of the key's size, at most `MAX_KEY`.
        unsafe { std::ptr::copy_nonoverlapping(from, key.as_mut_ptr(), def.key_size as usize) };
        // SAFETY: a live map and a key of its size.
        let value = unsafe { ((*handle).lookup)(handle, key.as_ptr()) };
        let map = (a[0] - MAP_BASE) as usize;
        let core = Table::ALL
            .get(map)
            .is_some_and(|table| table.discipline() == Discipline::Core);
        let array = matches!(def.kind, MapKind::Array | MapKind::PercpuArray);
        if value.is_null() || (core && array) {
            return Some(value.expose_provenance() as u64);
        }
        if let (Some(Some(copy)), Some(index)) = (self.copies.get(map), key.first_chunk()) {
            // The element was found, so the index is in range.
            let at = u32::from_ne_bytes(*index) as usize * def.stride() as usize;
            return Some(copy.at(at).expose_provenance() as u64);
        }
        // A row that may not be written, or a value of a core's hash, which our programs only read.
        let size = def.value_size as usize;
        if self.rows_used + size > ROWS {
            return None;
        }
        let to = self.rows.at(self.rows_used);
        // SAFETY: a value of the map, and room for one.
        unsafe { std::ptr::copy_nonoverlapping(value, to, size) };
        self.rows_used += size.next_multiple_of(8);
        Some(to.expose_provenance() as u64)
    }

    fn map(&self, token: u64) -> Option<(&'a MapDef, *const MapHandle)> {
        let index = usize::try_from(token.checked_sub(MAP_BASE)?).ok()?;
        let def = self.defs.get(index)?;
        // SAFETY: `maps` has one entry for each definition, by the contract of `State::run`.
        Some((def, unsafe { *self.ctx.maps.add(index) }))
    }

    /// The address of `len` bytes of the program's memory.
    fn memory(&self, at: u64, len: u32) -> Option<*mut u8> {
        let (at, len) = (at as usize, len as usize);
        let region = |start: usize, len| Region {
            start,
            len,
            writable: true,
            map: usize::MAX,
        };
        let (low, rows) = (self.low.xdp_md().addr(), self.rows.at(0).addr());
        let own = [
            region(self.stack_top - STACK, STACK),
            region(low, LowMemory::SIZE),
            region(rows, ROWS),
        ];
        let copies = self
            .copies
            .iter()
            .flatten()
            .map(|c| region(c.at(0).addr(), c.len()));
        let arrays = self.arrays.iter().copied().filter(|r| r.writable);
        let holds = |region: Region| region.holds(at, len);
        (own.into_iter().any(holds)
            || copies.into_iter().any(holds)
            || arrays.into_iter().any(holds))
        .then(|| std::ptr::with_exposed_provenance_mut(at))
    }

    /// As [`memory`](Self::memory); no bytes are anywhere.
    fn optional_memory(&self, at: u64, len: u32) -> Option<*mut u8> {
        if len == 0 {
            Some(std::ptr::null_mut())
        } else {
            self.memory(at, len)
        }
    }
}
