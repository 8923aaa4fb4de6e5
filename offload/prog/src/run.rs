//! Running a program on a frame.

use std::ops::Range;

use crossbeam_epoch as epoch;
use dash_bpf::helper::XdpAction;
use dash_bpf::interp::{Trap, TrapKind};
use dash_wire::abi::{HelperFn, MapHandle, RunCtx};

use crate::exec::Interpreter;
use crate::helpers::{HelperState, NOWHERE, SOCKET, table};
use crate::load::{Form, Program};

/// A frame in memory of the caller's, with room around it for the program to move its borders.
#[derive(Debug)]
pub struct Packet<'a> {
    memory: &'a mut [u8],
    meta: usize,
    data: usize,
    end: usize,
}

impl<'a> Packet<'a> {
    /// The frame at `bounds` of `memory`; `None` when it is not inside.
    pub fn new(memory: &'a mut [u8], bounds: Range<usize>) -> Option<Self> {
        let inside = bounds.start <= bounds.end && bounds.end <= memory.len();
        inside.then_some(Self {
            meta: bounds.start,
            data: bounds.start,
            end: bounds.end,
            memory,
        })
    }

    /// The frame.
    pub fn data(&self) -> &[u8] {
        &self.memory[self.data..self.end]
    }

    /// Where in the memory it is.
    pub fn bounds(&self) -> Range<usize> {
        self.data..self.end
    }

    /// Metadata in front of it.
    pub fn meta(&self) -> &[u8] {
        &self.memory[self.meta..self.data]
    }
}

/// What `struct xdp_md` says besides the frame, and the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ingress {
    /// Port the frame came in on.
    pub ifindex: u32,
    /// Its queue.
    pub queue: u32,
    /// Port it is about to leave by, for programs that run then; else 0.
    pub egress_ifindex: u32,
    /// Time in nanoseconds: what the clocks say during the run.
    pub now_ns: u64,
}

/// Where a redirected frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Out of this port (`ifindex`).
    Port(u32),
    /// To the socket that a socket map names by this number.
    Socket(u32),
}

/// What a program made of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its verdict. What is not one is `Aborted`.
    pub action: XdpAction,
    /// r0 as it was.
    pub code: u32,
    /// Where to, of a redirected frame; `None` when the program never said, and then the frame is to be dropped.
    pub target: Option<Target>,
    /// Why the interpreter stopped it: the proof of its safety was wrong.
    pub trap: Option<Trap>,
    /// It took more instructions than [`LoadOptions::fuel`](crate::LoadOptions::fuel) allows, and was ended.
    pub out_of_fuel: bool,
}

/// One worker's way to run one program. Nothing is allocated or locked for a packet by it, though maps that
/// the program changes may lock.
#[derive(Debug)]
pub struct Runner {
    program: Program,
    cpu: u32,
    /// By map, for compiled code: element 0 of arrays.
    arrays: Box<[*mut u8]>,
    handles: Box<[*const MapHandle]>,
    helpers: &'static [HelperFn],
    fuel: i64,
    state: Box<HelperState>,
    interpreter: Option<Box<Interpreter>>,
}

// SAFETY: the addresses lead into maps that `program` keeps alive and that may be used by any thread.
unsafe impl Send for Runner {}

impl Runner {
    pub(crate) fn new(program: Program, cpu: u32) -> Self {
        let shared = &program.shared;
        let maps = &shared.maps;
        let interpreter = match &shared.form {
            Form::Native(_) => None,
            Form::Interp(_) => Some(Box::new(Interpreter::new(maps, cpu, shared.fuel))),
        };
        Self {
            cpu,
            arrays: maps.iter().map(|map| map.array_base(cpu)).collect(),
            handles: maps.iter().map(|map| map.inner().handle(cpu)).collect(),
            fuel: shared
                .fuel
                .map_or(0, |fuel| i64::try_from(fuel).unwrap_or(i64::MAX)),
            helpers: table(),
            state: Box::new(HelperState::new(
                cpu,
                shared.object.programs.len(),
                &shared.services,
            )),
            interpreter,
            program,
        }
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Which worker it is.
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Runs the program on a frame, which it may change and move in its memory.
    pub fn run(&mut self, packet: &mut Packet<'_>, ingress: &Ingress) -> Outcome {
        let memory = packet.memory.as_mut_ptr_range();
        let start = memory.start;
        start.expose_provenance();
        // SAFETY: the three are inside the memory or one past its end: `Packet` keeps them so.
        let (meta, data, end) = unsafe {
            (
                start.add(packet.meta),
                start.add(packet.data),
                start.add(packet.end),
            )
        };
        let mut ctx = RunCtx {
            data,
            data_end: end,
            data_meta: meta,
            ingress_ifindex: ingress.ifindex,
            rx_queue_index: ingress.queue,
            egress_ifindex: ingress.egress_ifindex,
            redirect_ifindex: NOWHERE,
            frame_start: start,
            frame_end: memory.end,
            now_ns: ingress.now_ns,
            arrays: std::ptr::null(),
            maps: std::ptr::null(),
            helpers: std::ptr::null(),
            worker: std::ptr::null_mut(),
            cpu: self.cpu,
            resume: 0,
            found_key: std::ptr::null(),
            found_value: std::ptr::null_mut(),
            memo: std::ptr::null_mut(),
            fuel: 0,
        };
        // SAFETY: the frame is the caller's memory, borrowed for the run.
        let outcome = unsafe { self.run_in(&mut ctx) };
        let from = |at: *mut u8| at.addr().wrapping_sub(start.addr());
        (packet.meta, packet.data, packet.end) =
            (from(ctx.data_meta), from(ctx.data), from(ctx.data_end));
        outcome
    }

    /// Runs the program on the packet of a context, which it may change and move there; all else of the context is whose
    /// it is.
    ///
    /// # Safety
    /// The packet's pointers lead into the buffer `frame_start..frame_end`, in order, and nobody else uses that.
    #[inline]
    pub(crate) unsafe fn run_in(&mut self, of: &mut RunCtx) -> Outcome {
        let mut ctx = RunCtx {
            redirect_ifindex: NOWHERE,
            arrays: self.arrays.as_ptr(),
            maps: self.handles.as_ptr(),
            helpers: self.helpers.as_ptr(),
            worker: self.state.begin(),
            cpu: self.cpu,
            resume: 0,
            found_key: std::ptr::null(),
            found_value: std::ptr::null_mut(),
            memo: std::ptr::null_mut(),
            fuel: self.fuel,
            ..*of
        };
        let shared = &self.program.shared;
        let _pinned = shared.pinned.then(epoch::pin);
        let metered = shared.fuel.is_some();
        // SAFETY: the packet, by contract; tables and helpers are of the maps the program was verified with, which
        // `program` keeps alive; inner maps live while pinned.
        let (code, trap) = unsafe { self.run_raw(&mut ctx) };
        (of.data, of.data_end, of.data_meta) = (ctx.data, ctx.data_end, ctx.data_meta);
        let action = XdpAction::from_r0(code);
        let target = match (action, ctx.redirect_ifindex) {
            (XdpAction::Redirect, NOWHERE) => None,
            (XdpAction::Redirect, SOCKET) => Some(Target::Socket(self.state.socket())),
            (XdpAction::Redirect, port) => Some(Target::Port(port)),
            _ => None,
        };
        let spent = trap.is_some_and(|trap| trap.kind == TrapKind::Fuel);
        Outcome {
            action,
            code,
            target,
            trap: trap.filter(|_| !(metered && spent)),
            out_of_fuel: ctx.fuel < 0 || metered && spent,
        }
    }

    /// # Safety
    /// The context is whole, and what it leads to is alive and not used by others but as maps are.
    unsafe fn run_raw(&mut self, ctx: &mut RunCtx) -> (u32, Option<Trap>) {
        let shared = &self.program.shared;
        match (&shared.form, &mut self.interpreter) {
            (Form::Interp(programs), Some(interpreter)) => {
                // SAFETY: by contract.
                unsafe { interpreter.run(programs, self.program.index, ctx) }
            }
            (Form::Native(codes), _) => {
                let mut index = self.program.index;
                loop {
                    let Some(pages) = codes.get(index) else {
                        return (0, None);
                    };
                    ctx.resume = 0;
                    // SAFETY: by contract, and what `NativeImage` says of verified code.
                    let code = unsafe { pages.entry()(std::ptr::from_mut(ctx)) };
                    // The helper leaves the number of the program that takes over, plus one.
                    match ctx.resume.checked_sub(1) {
                        None => return (code, None),
                        Some(next) => index = next as usize,
                    }
                }
            }
            (Form::Interp(_), None) => (0, None),
        }
    }
}
