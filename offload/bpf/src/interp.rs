//! A checking interpreter: runs a program and traps where a proof of its safety would be wrong.
//!
//! Every access to the stack is checked against its frame and against what was written there;
//! reading a register nothing was put into traps; jumps cannot leave the program because
//! [`decode`](fn@crate::decode) refused those that do; fuel bounds the run. Memory that is not
//! the stack, and helpers, belong to whoever runs the program: see [`Env`]. A program the verifier
//! accepted traps under no input; tests hold it to that.
//!
//! One [`Interp`] is reused for many runs and allocates nothing in them.
//!
//! # Choices where RFC 9669 leaves one
//! - A callee of a local call sees the caller's r6-r9; they are restored on return. r0-r5 of the
//!   caller are gone after any call except for the result in r0.
//! - A tail call beyond the 33rd, like one to an empty slot, fails: r0 is -1, the program goes on.
//!   Tail calls from inside a local call trap.
//! - Legacy packet loads want r6 to hold what the program got in r1; outside the packet they end
//!   the program with 0.

mod bare;
mod stack;

use thiserror::Error;

use crate::helper;
use crate::op::{AtomicOp, Imm64, Op, Operand, Reg, Size};
use crate::semantics;
pub use bare::{BARE_BASE, Bare, BareHelpers};
use stack::Stack;
pub use stack::{FRAME_SIZE, MAX_FRAMES, STACK_BASE, StackView};

/// The context pointer programs get in r1 where the context is not memory; accesses through it go
/// to [`Env::load_ctx`]. Not a canonical address, so never memory of the process.
pub const CTX_BASE: u64 = 0xc7c7_0000_0000_0000;

/// Address of a function of the program, less its slot: a value that only helpers understand.
pub const FUNCTION_BASE: u64 = 0xf0c0_0000_0000_0000;

/// Tail calls in one run (`MAX_TAIL_CALL_CNT` of Linux).
pub const MAX_TAIL_CALLS: u32 = 33;

/// Why an access to memory is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MemFault {
    /// No memory of the program has this address.
    #[error("no memory of the program")]
    Unmapped,
    /// The memory is there but may not be written.
    #[error("read-only memory")]
    ReadOnly,
    /// An address of the stack's range that is not inside one live frame.
    #[error("outside the stack frame")]
    OutsideFrame,
    /// Bytes of the stack nothing was written to.
    #[error("uninitialised stack")]
    Uninitialised,
    /// An atomic access that is not aligned to its size.
    #[error("misaligned atomic access")]
    Misaligned,
    /// No field of the context has this offset and width.
    #[error("no such field of the context")]
    Context,
    /// The object has no such map.
    #[error("no such map")]
    NoMap,
}

/// Why a helper did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallFault {
    /// The environment has no helper of this number.
    #[error("unknown helper")]
    UnknownHelper,
    /// A pointer argument (1..=5) is not what the helper may access.
    #[error("argument {argument}: {fault}")]
    Memory {
        /// 1..=5.
        argument: u8,
        /// Why.
        fault: MemFault,
    },
    /// An argument (1..=5) is not one the helper takes.
    #[error("argument {argument}: {why}")]
    Argument {
        /// 1..=5.
        argument: u8,
        /// Why.
        why: &'static str,
    },
}

/// What a helper did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperResult {
    /// It returned; this goes to r0.
    Value(u64),
    /// The program with this index replaces the caller, with the caller's first argument in r1.
    TailCall(usize),
    /// The run ends with this r0.
    Unwind(u64),
    /// The function at this address is called with what [`Env::round`] says, round by round, until that
    /// says nothing or the function returns something else than 0; r0 is the number of rounds then.
    CallBack(u64),
}

/// Memory and helpers of whoever runs a program. Values are zero-extended and little-endian.
///
/// The interpreter keeps the stack to itself: no method here sees a stack address except `call`,
/// whose [`StackView`] opens it.
pub trait Env {
    /// Reads memory that is neither stack nor context.
    ///
    /// # Errors
    /// The program may not read there.
    fn load(&mut self, addr: u64, size: Size) -> Result<u64, MemFault>;

    /// Writes memory that is neither stack nor context.
    ///
    /// # Errors
    /// The program may not write there.
    fn store(&mut self, addr: u64, size: Size, value: u64) -> Result<(), MemFault>;

    /// Reads the context at a byte offset from [`CTX_BASE`]. May return more than `size` bytes:
    /// 32-bit packet fields of `xdp_md` read as whole pointers.
    ///
    /// # Errors
    /// The context has no such field.
    fn load_ctx(&mut self, off: i64, size: Size) -> Result<u64, MemFault> {
        let _ = (off, size);
        Err(MemFault::Context)
    }

    /// What `dst = map[map] ll` yields: an address or handle helpers understand.
    ///
    /// # Errors
    /// There is no such map.
    fn map_address(&mut self, map: u32) -> Result<u64, MemFault>;

    /// Address of byte `offset` of the only value of an array map.
    ///
    /// # Errors
    /// There is no such map or byte.
    fn map_value_address(&mut self, map: u32, offset: u32) -> Result<u64, MemFault> {
        let _ = (map, offset);
        Err(MemFault::NoMap)
    }

    /// Atomic read-modify-write of memory that is neither stack nor context; returns the old
    /// value. `addr` is aligned to `size`, which is 4 or 8 bytes. The default is atomic only where
    /// one thread runs; environments with shared memory override it.
    ///
    /// # Errors
    /// The program may not write there.
    fn atomic(
        &mut self,
        op: AtomicOp,
        addr: u64,
        size: Size,
        src: u64,
        expected: u64,
    ) -> Result<u64, MemFault> {
        let old = self.load(addr, size)?;
        self.store(addr, size, semantics::atomic(op, size, old, src, expected))?;
        Ok(old)
    }

    /// Legacy packet access: the big-endian value at `off`, `None` outside the packet.
    fn load_packet(&mut self, off: usize, size: Size) -> Option<u64> {
        let _ = (off, size);
        None
    }

    /// How many registers from r1 the helper reads: those must hold something. The rest are passed
    /// as 0.
    fn arity(&self, helper: u32) -> usize {
        helper::arity(helper).unwrap_or(0)
    }

    /// How many of those must hold something: for what is passed as `...`, nothing counts as 0.
    fn required(&self, helper: u32) -> usize {
        helper::required(helper).unwrap_or(0)
    }

    /// r1 to r4 of a function that a helper with these arguments calls back, in this round; `None` when
    /// it is called no more. `depth` tells calls apart that are under way at the same time: it is the frame
    /// that called the helper, below [`MAX_FRAMES`].
    fn round(&mut self, helper: u32, args: [u64; 5], round: u64, depth: usize) -> Option<[u64; 4]> {
        let _ = (helper, args, round, depth);
        None
    }

    /// Runs a helper.
    ///
    /// # Errors
    /// There is no such helper, or its arguments are not allowed.
    fn call(
        &mut self,
        helper: u32,
        args: [u64; 5],
        stack: &mut StackView<'_>,
    ) -> Result<HelperResult, CallFault>;
}

/// Where and why a run was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("program {program}, instruction {pc}: {kind}")]
pub struct Trap {
    /// Index of the program that ran.
    pub program: usize,
    /// Slot of the instruction.
    pub pc: usize,
    /// Why.
    pub kind: TrapKind,
}

/// Why a run was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TrapKind {
    /// The run took as many instructions as it was given.
    #[error("out of fuel")]
    Fuel,
    /// A register was read that nothing was put into.
    #[error("r{} is uninitialised", .0.index())]
    Register(Reg),
    /// An access to memory was refused.
    #[error("access to {bytes} bytes at {addr:#x}: {fault}")]
    Memory {
        /// Address.
        addr: u64,
        /// Width.
        bytes: usize,
        /// Why.
        fault: MemFault,
    },
    /// A map reference was refused.
    #[error("map {map}: {fault}")]
    Map {
        /// Index of the map.
        map: u32,
        /// Why.
        fault: MemFault,
    },
    /// A helper was refused.
    #[error("helper {helper}: {fault}")]
    Call {
        /// Number of the helper.
        helper: u32,
        /// Why.
        fault: CallFault,
    },
    /// More local calls than frames.
    #[error("calls nest deeper than {MAX_FRAMES} frames")]
    Depth,
    /// A tail call from inside a local call.
    #[error("tail call inside a local call")]
    TailCallDepth,
    /// A tail call to, or a run of, a program that is not there.
    #[error("no program {0}")]
    NoProgram(usize),
    /// r6 does not hold the context at a legacy packet access.
    #[error("legacy packet access without the context in r6")]
    PacketContext,
    /// An instruction that is carried but not executed: `lddw` of kinds 3 to 6, calls by BTF id.
    #[error("instruction is not executable here")]
    Unsupported,
    /// The program ran past its last slot: it was not decoded by `decode`.
    #[error("no instruction")]
    NoInstruction,
}

/// Registers a caller gets back.
#[derive(Clone, Copy, Debug)]
struct Saved {
    return_to: usize,
    regs: [u64; 4],
    init: u16,
    /// The helper that called, and not an instruction.
    callback: Option<CallBack>,
}

/// A helper that is calling a function.
#[derive(Clone, Copy, Debug)]
struct CallBack {
    helper: u32,
    args: [u64; 5],
    function: u64,
    round: u64,
}

const CALLEE_SAVED: u16 = 0b11_1100_0000;
const FRAME_POINTER: u16 = 1 << 10;

/// An interpreter: registers and stack, reused from run to run.
#[derive(Debug)]
pub struct Interp {
    regs: [u64; 11],
    /// One bit a register: holds something.
    init: u16,
    stack: Stack,
    saved: [Saved; MAX_FRAMES],
    fuel: u64,
    /// The fuel is looked at at some places only.
    metered: bool,
    executed: u64,
}

/// What the next step is.
enum Next {
    Fall,
    Goto(usize),
    Program(usize),
    Done(u64),
}

impl Default for Interp {
    fn default() -> Self {
        Self::new(1 << 20)
    }
}

impl Interp {
    /// An interpreter whose runs take at most `fuel` instructions each.
    pub fn new(fuel: u64) -> Self {
        Self {
            regs: [0; 11],
            init: 0,
            stack: Stack::new(),
            saved: [Saved {
                return_to: 0,
                regs: [0; 4],
                init: 0,
                callback: None,
            }; MAX_FRAMES],
            fuel,
            metered: false,
            executed: 0,
        }
    }

    /// An interpreter whose runs end out of fuel after `fuel` instructions, where compiled code that counts would look
    /// at it: at jumps backwards that are taken, local calls, tail calls, and when a function returns that a helper
    /// called. What the program did before is then the same for both.
    pub fn metered(fuel: u64) -> Self {
        Self {
            metered: true,
            ..Self::new(fuel)
        }
    }

    /// Instructions the last run took, the trapping one included.
    pub fn executed(&self) -> u64 {
        self.executed
    }

    /// Runs `programs[entry]` and returns its r0. `args` are r1, r2, ...: an XDP program gets
    /// `[CTX_BASE]`, a bare one address and length of its memory. Registers without an argument
    /// are uninitialised. Programs are decoded by [`decode`](fn@crate::decode).
    ///
    /// # Errors
    /// The run was stopped.
    pub fn run<P: AsRef<[Op]>>(
        &mut self,
        programs: &[P],
        entry: usize,
        args: &[u64],
        env: &mut impl Env,
    ) -> Result<u64, Trap> {
        self.executed = 0;
        let context = args.first().copied();
        let mut program = entry;
        let mut tail_calls = 0;
        let trap = |program, pc, kind| Trap { program, pc, kind };
        let mut ops = match programs.get(program) {
            Some(p) => p.as_ref(),
            None => return Err(trap(program, 0, TrapKind::NoProgram(program))),
        };
        self.enter(args.iter().copied().take(5));
        let mut pc = 0;
        loop {
            let at = |kind| trap(program, pc, kind);
            let op = ops.get(pc).ok_or(at(TrapKind::NoInstruction))?;
            if self.executed >= self.fuel && !self.metered {
                return Err(at(TrapKind::Fuel));
            }
            self.executed += 1;
            // What a call does is done after the look, as in compiled code.
            if self.metered && self.executed > self.fuel && self.looks(*op) {
                return Err(at(TrapKind::Fuel));
            }
            let next = self.step(*op, pc, context, env).map_err(at)?;
            let back = matches!((*op, &next),
                (Op::Jump { .. } | Op::JumpIf { .. }, Next::Goto(target)) if *target <= pc);
            if back && self.metered && self.executed > self.fuel {
                return Err(at(TrapKind::Fuel));
            }
            match next {
                Next::Fall => pc += 1,
                Next::Goto(target) => pc = target,
                Next::Done(r0) => return Ok(r0),
                Next::Program(_) if tail_calls == MAX_TAIL_CALLS => {
                    self.clobber();
                    self.set(Reg::R0, u64::MAX);
                    pc += 1;
                }
                Next::Program(next) => {
                    ops = match programs.get(next) {
                        Some(p) => p.as_ref(),
                        None => return Err(at(TrapKind::NoProgram(next))),
                    };
                    tail_calls += 1;
                    program = next;
                    pc = 0;
                    let r1 = self.regs[1];
                    self.enter([r1].into_iter());
                }
            }
        }
    }

    /// Whether a metered run's fuel is looked at before an instruction, jumps aside.
    fn looks(&self, op: Op) -> bool {
        match op {
            Op::CallLocal { .. } => true,
            Op::Call { helper } => helper == helper::TAIL_CALL,
            Op::Exit => match self.stack.depth() {
                0 => false,
                depth => self.saved[depth - 1].callback.is_some(),
            },
            _ => false,
        }
    }

    /// State at the first instruction of a program.
    fn enter(&mut self, args: impl Iterator<Item = u64>) {
        self.stack.reset();
        self.regs = [0; 11];
        self.init = FRAME_POINTER;
        self.regs[10] = self.stack.frame_pointer();
        for (index, arg) in args.enumerate() {
            self.regs[index + 1] = arg;
            self.init |= 1 << (index + 1);
        }
    }

    fn get(&self, r: Reg) -> Result<u64, TrapKind> {
        if self.init >> r.index() & 1 == 1 {
            Ok(self.regs[r.index()])
        } else {
            Err(TrapKind::Register(r))
        }
    }

    fn set(&mut self, r: Reg, value: u64) {
        self.regs[r.index()] = value;
        self.init |= 1 << r.index();
    }

    fn value(&self, src: Operand) -> Result<u64, TrapKind> {
        match src {
            Operand::Reg(r) => self.get(r),
            Operand::Imm(v) => Ok(semantics::immediate(v)),
        }
    }

    /// r0-r5 hold nothing after a call.
    fn clobber(&mut self) {
        self.init &= CALLEE_SAVED | FRAME_POINTER;
    }

    fn step(
        &mut self,
        op: Op,
        pc: usize,
        context: Option<u64>,
        env: &mut impl Env,
    ) -> Result<Next, TrapKind> {
        match op {
            Op::Alu {
                width,
                op,
                dst,
                src,
            } => {
                let b = self.value(src)?;
                // Moves are the operations that do not read their destination.
                use crate::op::AluOp::{Mov, Movsx8, Movsx16, Movsx32};
                let a = match op {
                    Mov | Movsx8 | Movsx16 | Movsx32 => 0,
                    _ => self.get(dst)?,
                };
                self.set(dst, semantics::alu(width, op, a, b));
            }
            Op::Neg { width, dst } => {
                let a = self.get(dst)?;
                self.set(dst, semantics::neg(width, a));
            }
            Op::Endian { order, bits, dst } => {
                let a = self.get(dst)?;
                self.set(dst, semantics::endian(order, bits, a));
            }
            Op::LoadImm64 { dst, imm } => {
                let value = match imm {
                    Imm64::Value(v) => v,
                    Imm64::Map(map) => env
                        .map_address(map)
                        .map_err(|fault| TrapKind::Map { map, fault })?,
                    Imm64::MapValue { map, offset } => env
                        .map_value_address(map, offset)
                        .map_err(|fault| TrapKind::Map { map, fault })?,
                    Imm64::Other { .. } => match imm.function(pc) {
                        Some(slot) => FUNCTION_BASE + slot as u64,
                        None => return Err(TrapKind::Unsupported),
                    },
                };
                self.set(dst, value);
                return Ok(Next::Goto(pc + 2));
            }
            Op::LoadImm64Hi => return Err(TrapKind::NoInstruction),
            Op::Load {
                size,
                signed,
                dst,
                base,
                off,
            } => {
                let addr = self.get(base)?.wrapping_add_signed(i64::from(off));
                let value = self.load(addr, size, env)?;
                let value = if signed {
                    semantics::sign_extend(size, value)
                } else {
                    value
                };
                self.set(dst, value);
            }
            Op::Store {
                size,
                base,
                off,
                src,
            } => {
                let addr = self.get(base)?.wrapping_add_signed(i64::from(off));
                let value = semantics::low(size, self.value(src)?);
                self.store(addr, size, value, env)?;
            }
            Op::Atomic {
                size,
                op,
                fetch,
                base,
                off,
                src,
            } => {
                let addr = self.get(base)?.wrapping_add_signed(i64::from(off));
                let value = self.get(src)?;
                let expected = if op == AtomicOp::CmpXchg {
                    self.get(Reg::R0)?
                } else {
                    0
                };
                let old = self.atomic(op, addr, size, value, expected, env)?;
                if fetch {
                    let to = if op == AtomicOp::CmpXchg {
                        Reg::R0
                    } else {
                        src
                    };
                    self.set(to, semantics::low(size, old));
                }
            }
            Op::LoadPacket { size, index, imm } => {
                if context.is_none() || self.get(Reg::R6).ok() != context {
                    return Err(TrapKind::PacketContext);
                }
                let index = match index {
                    Some(r) => self.get(r)? as u32 as i32,
                    None => 0,
                };
                self.clobber();
                let off = usize::try_from(index.wrapping_add(imm)).ok();
                match off.and_then(|off| env.load_packet(off, size)) {
                    Some(value) => self.set(Reg::R0, value),
                    None => return Ok(Next::Done(0)),
                }
            }
            Op::Jump { target } => return Ok(Next::Goto(target)),
            Op::JumpIf {
                width,
                cond,
                dst,
                src,
                target,
            } => {
                let (a, b) = (self.get(dst)?, self.value(src)?);
                if semantics::holds(width, cond, a, b) {
                    return Ok(Next::Goto(target));
                }
            }
            Op::Call { helper } => return self.helper(pc, helper, env),
            Op::CallReg { reg } => {
                let number = self.get(reg)?;
                return match u32::try_from(number) {
                    Ok(helper) => self.helper(pc, helper, env),
                    Err(_) => Err(TrapKind::Call {
                        helper: u32::MAX,
                        fault: CallFault::UnknownHelper,
                    }),
                };
            }
            Op::CallBtf { .. } => return Err(TrapKind::Unsupported),
            Op::CallLocal { target } => {
                let depth = self.stack.depth();
                if !self.stack.push() {
                    return Err(TrapKind::Depth);
                }
                let [.., r6, r7, r8, r9, _] = self.regs;
                self.saved[depth] = Saved {
                    return_to: pc + 1,
                    regs: [r6, r7, r8, r9],
                    init: self.init,
                    callback: None,
                };
                self.init &= !1;
                self.regs[10] = self.stack.frame_pointer();
                return Ok(Next::Goto(target));
            }
            Op::Exit => return self.exit(env),
        }
        Ok(Next::Fall)
    }

    fn exit(&mut self, env: &mut impl Env) -> Result<Next, TrapKind> {
        let depth = self.stack.depth();
        if depth == 0 {
            return Ok(Next::Done(self.get(Reg::R0)?));
        }
        let callback = self.saved[depth - 1].callback;
        let stop = match callback {
            Some(_) => self.get(Reg::R0)? != 0,
            None => false,
        };
        self.stack.pop();
        let saved = self.saved[depth - 1];
        for (to, from) in self.regs[6..10].iter_mut().zip(saved.regs) {
            *to = from;
        }
        self.init = self.init & 1 | saved.init & CALLEE_SAVED | FRAME_POINTER;
        self.regs[10] = self.stack.frame_pointer();
        match callback {
            None => Ok(Next::Goto(saved.return_to)),
            Some(mut call) => {
                call.round += 1;
                self.call_back(call, stop, saved.return_to, env)
            }
        }
    }

    /// The next round of a function that a helper calls, or on to `return_to` after the last one.
    fn call_back(
        &mut self,
        call: CallBack,
        stop: bool,
        return_to: usize,
        env: &mut impl Env,
    ) -> Result<Next, TrapKind> {
        self.clobber();
        let CallBack {
            helper,
            args,
            function,
            round,
        } = call;
        let depth = self.stack.depth();
        let next = if stop {
            None
        } else {
            env.round(helper, args, round, depth)
        };
        let Some(args) = next else {
            self.set(Reg::R0, round);
            return Ok(Next::Goto(return_to));
        };
        let slot = function.checked_sub(FUNCTION_BASE);
        let slot = slot.and_then(|slot| usize::try_from(slot).ok());
        let why = "not a function";
        let fault = CallFault::Argument { argument: 2, why };
        let slot = slot.ok_or(TrapKind::Call { helper, fault })?;
        if !self.stack.push() {
            return Err(TrapKind::Depth);
        }
        let [.., r6, r7, r8, r9, _] = self.regs;
        self.saved[depth] = Saved {
            return_to,
            regs: [r6, r7, r8, r9],
            init: self.init,
            callback: Some(call),
        };
        for (r, arg) in [Reg::R1, Reg::R2, Reg::R3, Reg::R4].into_iter().zip(args) {
            self.set(r, arg);
        }
        self.regs[10] = self.stack.frame_pointer();
        Ok(Next::Goto(slot))
    }

    fn helper(&mut self, pc: usize, helper: u32, env: &mut impl Env) -> Result<Next, TrapKind> {
        let mut args = [0; 5];
        let registers = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5];
        let rest = env.required(helper);
        for (n, r) in registers.into_iter().enumerate().take(env.arity(helper)) {
            args[n] = match self.get(r) {
                // Nothing has to be passed for `...`.
                Err(_) if n >= rest => 0,
                value => value?,
            };
        }
        let result = env.call(helper, args, &mut self.stack.view());
        match result.map_err(|fault| TrapKind::Call { helper, fault })? {
            HelperResult::Value(value) => {
                self.clobber();
                self.set(Reg::R0, value);
                Ok(Next::Fall)
            }
            HelperResult::TailCall(_) if self.stack.depth() > 0 => Err(TrapKind::TailCallDepth),
            HelperResult::TailCall(program) => Ok(Next::Program(program)),
            HelperResult::Unwind(r0) => Ok(Next::Done(r0)),
            HelperResult::CallBack(function) => {
                let round = 0;
                let call = CallBack {
                    helper,
                    args,
                    function,
                    round,
                };
                self.call_back(call, false, pc + 1, env)
            }
        }
    }

    fn load(&self, addr: u64, size: Size, env: &mut impl Env) -> Result<u64, TrapKind> {
        let value = if Stack::owns(addr) {
            self.stack.load(addr, size.bytes())
        } else if addr >> 48 == CTX_BASE >> 48 {
            env.load_ctx((addr - CTX_BASE) as i64, size)
        } else {
            env.load(addr, size)
        };
        value.map_err(|fault| TrapKind::Memory {
            addr,
            bytes: size.bytes(),
            fault,
        })
    }

    fn store(
        &mut self,
        addr: u64,
        size: Size,
        value: u64,
        env: &mut impl Env,
    ) -> Result<(), TrapKind> {
        let done = if Stack::owns(addr) {
            self.stack.store(addr, size.bytes(), value)
        } else if addr >> 48 == CTX_BASE >> 48 {
            Err(MemFault::ReadOnly)
        } else {
            env.store(addr, size, value)
        };
        done.map_err(|fault| TrapKind::Memory {
            addr,
            bytes: size.bytes(),
            fault,
        })
    }

    fn atomic(
        &mut self,
        op: AtomicOp,
        addr: u64,
        size: Size,
        src: u64,
        expected: u64,
        env: &mut impl Env,
    ) -> Result<u64, TrapKind> {
        let at = |fault| TrapKind::Memory {
            addr,
            bytes: size.bytes(),
            fault,
        };
        if !addr.is_multiple_of(size.bytes() as u64) {
            return Err(at(MemFault::Misaligned));
        }
        if Stack::owns(addr) {
            let old = self.stack.load(addr, size.bytes()).map_err(at)?;
            let new = semantics::atomic(op, size, old, src, expected);
            self.stack.store(addr, size.bytes(), new).map_err(at)?;
            Ok(old)
        } else if addr >> 48 == CTX_BASE >> 48 {
            Err(at(MemFault::ReadOnly))
        } else {
            env.atomic(op, addr, size, src, expected).map_err(at)
        }
    }
}
