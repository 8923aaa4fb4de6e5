//! From analysed programs to one function of Cranelift's IR.
//!
//! ```text
//! entry:  ctx, helper table          every program is a region of blocks;
//!   |                                a tail call is a jump between regions
//!   v
//! program 0 --tail call--> program 3 --exit--> return
//! ```
//!
//! eBPF registers become Cranelift variables, one set a frame depth, so SSA construction and the
//! register allocator see them as they would a C function's locals.

mod alu;
mod back;
mod calls;
mod fuel;
mod hash;
mod memory;

use cranelift_codegen::ir::{
    AbiParam, AliasRegionData, Block, BlockArg, InstBuilder, MemFlagsData, SigRef, Signature,
    SourceLoc, StackSlot, StackSlotData, StackSlotKind, UserFuncName, Value, condcodes::IntCC,
    types,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, Variable};
use dash_bpf::helper::XdpAction;
use dash_bpf::interp::FUNCTION_BASE;
use dash_bpf::op::{Cond, Imm64};
use dash_bpf::{Object, Op, Operand, ProgramKind, Reg, Width};
use dash_wire::abi::run_ctx;

use crate::analysis::Note;
use crate::calls::Callee;
use crate::chain::Unit;
use crate::code::{Machine, Options, Part};
use crate::error::{NativeError, Reason};
use crate::machine::{self, Workspace};
use crate::region::{Action, NONE, Step};

/// Memory flags by what is accessed. Different alias regions never share a byte, so a store to a
/// packet does not make the code reload the context.
#[derive(Clone, Copy, Debug)]
struct Flags {
    /// Fields of the context that calls may change.
    ctx: MemFlagsData,
    /// Tables that stay the same during a run.
    table: MemFlagsData,
    /// The eBPF stack.
    stack: MemFlagsData,
    /// Entries of remembered look-ups.
    memo: MemFlagsData,
    /// Keys of look-ups that become calls, on the stack.
    key: MemFlagsData,
    /// Packets and map values.
    heap: MemFlagsData,
}

/// Source locations hold a slot in their low 20 bits, as many as Linux lets a program have, and its
/// program above. Only listings read them.
const PROGRAM_SHIFT: u32 = 20;

/// Program and slot an instruction was made from.
pub(crate) fn source_of(loc: SourceLoc) -> Option<(usize, usize)> {
    (!loc.is_default()).then(|| {
        let bits = loc.bits();
        (
            (bits >> PROGRAM_SHIFT) as usize,
            (bits & ((1 << PROGRAM_SHIFT) - 1)) as usize,
        )
    })
}

/// Makes the function that runs `units`, the first of them on entry.
pub(crate) fn function(
    units: &[Unit],
    object: &Object,
    kind: ProgramKind,
    options: &Options,
    isa: &dyn TargetIsa,
    workspace: &mut Workspace,
) -> Result<(), NativeError> {
    let conv = isa.default_call_conv();
    if options.fuel && kind == ProgramKind::Raw {
        let why = "fuel is counted in XDP programs' contexts";
        return Err(NativeError::Codegen(why.to_owned()));
    }
    let mut signature = Signature::new(conv);
    match kind {
        ProgramKind::Xdp => {
            signature.params = vec![AbiParam::new(types::I64)];
            signature.returns = vec![AbiParam::new(types::I32)];
        }
        ProgramKind::Raw => {
            signature.params = vec![AbiParam::new(types::I64); 3];
            signature.returns = vec![AbiParam::new(types::I64)];
        }
    }
    let function = &mut workspace.context.func;
    function.name = UserFuncName::user(0, 0);
    function.signature = signature;
    let builder = FunctionBuilder::new(function, &mut workspace.builder);
    let machine = machine::machine(options.isa)?;
    let mut lowering = Lowering::new(builder, units, object, kind, options, (machine, conv));
    for unit in units {
        lowering.unit(unit)?;
    }
    lowering.finish(isa);
    Ok(())
}

struct Lowering<'a> {
    b: FunctionBuilder<'a>,
    object: &'a Object,
    kind: ProgramKind,
    machine: Machine,
    flags: Flags,
    /// The context; null for raw programs.
    ctx: Value,
    /// The helper table.
    helpers: Value,
    /// Registers by depth.
    registers: Vec<[Variable; 11]>,
    /// Stack memory by depth, with its size in bytes, where there is any.
    slots: Vec<Option<(StackSlot, i32)>>,
    /// Which tail calls end the function instead.
    part: Part,
    /// Map in which the caller looked a key up.
    found: Option<u32>,
    /// Indexes into arrays hold against guesses of the processor.
    mask_indexes: bool,
    /// Stack memory for the key of a look-up that is a call in the end, with its size in bytes, once there
    /// was one.
    key: Option<(StackSlot, u32)>,
    /// Helpers that call functions, by the depth they are called at, once there was one.
    backs: Vec<Option<back::Back>>,
    /// First block of each program, by index in the object.
    entries: Vec<Option<Block>>,
    signatures: calls::Signatures,
    /// `struct xdp_md` metadata is in use somewhere, so moving the head is left to the runtime.
    metadata: bool,
    /// What is left of the run's fuel, if that is counted.
    fuel: Option<fuel::Fuel>,
}

/// A unit while it is lowered.
struct Place<'a> {
    unit: &'a Unit,
    /// By step, for those that start a block.
    blocks: Vec<Option<Block>>,
    /// Stack pieces by depth.
    pieces: Vec<Vec<Variable>>,
}

impl<'a> Lowering<'a> {
    fn new(
        mut b: FunctionBuilder<'a>,
        units: &[Unit],
        object: &'a Object,
        kind: ProgramKind,
        options: &Options,
        (machine, conv): (Machine, CallConv),
    ) -> Self {
        let flags = flags(&mut b, units);
        let frames = units.iter().map(|u| u.region.frames).max().unwrap_or(1);
        let registers: Vec<[Variable; 11]> = (0..frames)
            .map(|_| std::array::from_fn(|_| b.declare_var(types::I64)))
            .collect();
        let slots = (0..frames)
            .map(|depth| {
                let memory = |u: &Unit| u.frames.get(depth).map_or(0, |f| f.memory);
                let bytes = units.iter().map(memory).max().unwrap_or(0);
                // r10 is 16-byte aligned like the slot, so aligned accesses stay aligned.
                let bytes = bytes.next_multiple_of(16) as u32;
                (bytes > 0).then(|| {
                    let data = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 4);
                    (b.create_sized_stack_slot(data), bytes as i32)
                })
            })
            .collect();
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let params = b.block_params(entry).to_vec();
        let (ctx, helpers) = match kind {
            ProgramKind::Xdp => {
                let ctx = params[0];
                let at = run_ctx::HELPERS;
                (ctx, b.ins().load(types::I64, flags.table, ctx, at))
            }
            ProgramKind::Raw => (b.ins().iconst(types::I64, 0), params[2]),
        };
        let mut entries = vec![None; object.programs.len()];
        for unit in units {
            entries[unit.region.program] = Some(b.create_block());
        }
        let signatures = calls::Signatures::import(&mut b, conv);
        let mut this = Self {
            b,
            object,
            kind,
            machine,
            flags,
            ctx,
            helpers,
            registers,
            slots,
            part: options.part,
            found: options.found,
            mask_indexes: options.mask_indexes,
            key: None,
            backs: vec![None; frames],
            entries,
            signatures,
            // What a program alone comes after, and what follows it, may use metadata.
            metadata: matches!(options.part, Part::Alone(_))
                || units.iter().any(|u| u.analysis.metadata),
            fuel: None,
        };
        match kind {
            ProgramKind::Xdp => this.set(0, Reg::R1, ctx),
            ProgramKind::Raw => {
                this.set(0, Reg::R1, params[0]);
                this.set(0, Reg::R2, params[1]);
            }
        }
        let frame_pointer = this.frame_pointer(0);
        this.set(0, Reg::R10, frame_pointer);
        if options.fuel && units.iter().any(fuel::looks_somewhere) {
            this.fill_up();
        }
        this.start(units);
        this
    }

    /// From the function's entry to that of a program.
    fn start(&mut self, units: &[Unit]) {
        let programs = units.iter().filter(|unit| unit.root);
        let mut entries = programs.filter_map(|unit| {
            let program = unit.region.program;
            Some((program as i64, self.entries[program]?))
        });
        if !matches!(self.part, Part::Resume(..)) {
            if let Some((_, first)) = entries.next() {
                self.b.ins().jump(first, &[]);
            }
            return;
        }
        let at = run_ctx::RESUME;
        let wanted = self.b.ins().uload32(self.flags.table, self.ctx, at);
        for (program, entry) in entries {
            let this_one = self.b.ins().icmp_imm_u(IntCC::Equal, wanted, program);
            let next = self.b.create_block();
            self.b.ins().brif(this_one, entry, &[], next, &[]);
            self.b.switch_to_block(next);
        }
        let aborted = self.b.ins().iconst(types::I32, XdpAction::Aborted as i64);
        self.b.ins().return_(&[aborted]);
    }

    fn finish(mut self, isa: &dyn TargetIsa) {
        self.run_dry();
        self.b.seal_all_blocks();
        self.b.finalize(isa.frontend_config());
    }

    fn get(&mut self, depth: usize, reg: Reg) -> Value {
        self.b.use_var(self.registers[depth][reg.index()])
    }

    fn set(&mut self, depth: usize, reg: Reg, value: Value) {
        self.b.def_var(self.registers[depth][reg.index()], value);
    }

    fn iconst(&mut self, value: i64) -> Value {
        self.b.ins().iconst(types::I64, value)
    }

    /// r10 of a frame. Where none of the frame is memory nothing reads it but dead code.
    fn frame_pointer(&mut self, depth: usize) -> Value {
        match self.slots[depth] {
            Some((slot, size)) => {
                let base = self.b.ins().stack_addr(types::I64, slot, 0);
                self.b.ins().iadd_imm_s(base, i64::from(size))
            }
            None => self.iconst(0),
        }
    }

    fn unit(&mut self, unit: &Unit) -> Result<(), NativeError> {
        let steps = &unit.region.steps;
        let starts = |i: usize| unit.analysis.leader[i] && unit.analysis.reached[i];
        let entry = self.entries[unit.region.program];
        let blocks = (0..steps.len())
            .map(|i| starts(i).then(|| self.b.create_block()))
            .collect();
        let pieces = unit
            .frames
            .iter()
            .map(|f| {
                f.pieces
                    .iter()
                    .map(|_| self.b.declare_var(types::I64))
                    .collect()
            })
            .collect();
        let place = Place {
            unit,
            blocks,
            pieces,
        };
        if let (Some(entry), Some(first)) = (entry, place.blocks.first().copied().flatten()) {
            self.b.switch_to_block(entry);
            self.b.ins().jump(first, &[]);
        }
        for first in 0..steps.len() {
            if let Some(block) = place.blocks[first] {
                self.b.switch_to_block(block);
                self.block(&place, first)?;
            }
        }
        Ok(())
    }

    /// Lowers the steps of one block.
    fn block(&mut self, place: &Place<'_>, first: usize) -> Result<(), NativeError> {
        let unit = place.unit;
        let mut i = first;
        let mut counted = false;
        loop {
            let step = unit.region.steps[i];
            let loc = (unit.region.program as u32) << PROGRAM_SHIFT | step.pc;
            self.b.set_srcloc(SourceLoc::new(loc));
            if !counted {
                self.spend(place, i);
            }
            counted = !fuel::ends_stretch(place, i);
            if self.step(place, i, &step)? {
                return Ok(());
            }
            let next = step.next as usize;
            match place.blocks.get(next).copied().flatten() {
                Some(block) => {
                    self.b.ins().jump(block, &[]);
                    return Ok(());
                }
                None if step.next == NONE => {
                    return Err(unit.region.error(i, Reason::FlowOutside));
                }
                None => i = next,
            }
        }
    }

    /// Lowers one step; whether it ended the block.
    fn step(&mut self, place: &Place<'_>, i: usize, step: &Step) -> Result<bool, NativeError> {
        let depth = usize::from(step.depth);
        let op = match step.action {
            Action::Op(op) => op,
            Action::Enter => {
                self.check_fuel();
                for n in 0..10 {
                    let value = self.b.use_var(self.registers[depth][n]);
                    self.b.def_var(self.registers[depth + 1][n], value);
                }
                let frame_pointer = self.frame_pointer(depth + 1);
                self.set(depth + 1, Reg::R10, frame_pointer);
                return Ok(false);
            }
            Action::Leave => {
                let result = self.get(depth, Reg::R0);
                self.clobber(depth - 1, result);
                return Ok(false);
            }
            Action::CallBack(call) => return self.call_back(place, i, call),
            Action::Round(call) => return self.round(place, i, call),
            Action::EnterRound(call) => {
                self.enter_round(depth, call);
                return Ok(false);
            }
            Action::Again => {
                self.check_fuel();
                return self.again(place, i);
            }
            Action::Done => {
                self.done(depth);
                return Ok(false);
            }
            Action::Return => {
                let r0 = self.get(depth, Reg::R0);
                let result = match self.kind {
                    ProgramKind::Xdp => self.b.ins().ireduce(types::I32, r0),
                    ProgramKind::Raw => r0,
                };
                self.b.ins().return_(&[result]);
                return Ok(true);
            }
        };
        let note = place.unit.analysis.notes[i];
        match op {
            Op::Alu {
                width,
                op,
                dst,
                src,
            } => match note {
                Note::Stack(at) if self.has_memory(at) => {
                    let address = self.stack_address(at);
                    self.set(depth, dst, address);
                }
                _ => self.alu(depth, width, op, dst, src),
            },
            Op::Neg { width, dst } => self.neg(depth, width, dst),
            Op::Endian { order, bits, dst } => self.endian(depth, order, bits, dst),
            Op::LoadImm64 { dst, imm } => self.load_imm64(depth, step.pc as usize, dst, imm),
            Op::Jump { target } if target <= step.pc as usize => self.check_fuel(),
            Op::LoadImm64Hi | Op::Jump { .. } => {}
            Op::Load {
                size,
                signed,
                dst,
                base,
                off,
            } => {
                let value = match note {
                    Note::Ctx(field) => self.load_ctx(field, size),
                    Note::Stack(at) => {
                        let value = self.load_stack(place, at, size.bytes());
                        self.extend_loaded(value, size, signed)
                    }
                    _ => {
                        let base = self.get(depth, base);
                        let flags = self.flags.heap;
                        self.load_memory(flags, base, i32::from(off), size, signed)
                    }
                };
                self.set(depth, dst, value);
            }
            Op::Store {
                size,
                base,
                off,
                src,
            } => {
                let value = self.operand64(depth, src);
                match note {
                    Note::Stack(at) => self.store_stack(place, at, size.bytes(), value),
                    _ => {
                        let base = self.get(depth, base);
                        let flags = self.flags.heap;
                        self.store_memory(flags, base, i32::from(off), size, value);
                    }
                }
            }
            Op::Atomic {
                size,
                op,
                fetch,
                base,
                off,
                src,
            } => {
                let (address, flags) = match note {
                    Note::Stack(at) => (self.stack_address(at), self.flags.stack),
                    _ => {
                        let base = self.get(depth, base);
                        let address = self.b.ins().iadd_imm_s(base, i64::from(off));
                        (address, self.flags.heap)
                    }
                };
                self.atomic(depth, size, op, fetch, address, flags, src);
            }
            Op::JumpIf {
                width,
                cond,
                dst,
                src,
                ..
            } => {
                match note {
                    Note::Decided(taken) => {
                        let to = if taken { step.taken } else { step.next };
                        if taken && fuel::goes_back(step) {
                            self.check_fuel();
                        }
                        let block = self.target(place, i, to)?;
                        self.b.ins().jump(block, &[]);
                    }
                    _ => {
                        let test = self.condition(depth, width, cond, dst, src);
                        let next = self.way(place, i, step.next)?;
                        let taken = self.way(place, i, step.taken)?;
                        self.b.ins().brif(test, taken, &[], next, &[]);
                        let constants = place.unit.analysis.constants.get(&(i as u32));
                        let ways = [(next, step.next), (taken, step.taken)];
                        for (n, (block, to)) in ways.into_iter().enumerate() {
                            let constants = constants.map_or(&[][..], |ways| &ways[n][..]);
                            let checked = n == 1 && self.checks(step);
                            if constants.is_empty() && !checked {
                                continue;
                            }
                            self.b.switch_to_block(block);
                            // Most packets take the ways that are not out of the program.
                            if place.unit.region.ends_at(to) {
                                self.b.set_cold_block(block);
                            }
                            for &(reg, value) in constants {
                                let value = self.iconst(value as i64);
                                self.set(depth, reg, value);
                            }
                            if checked {
                                self.check_fuel();
                            }
                            let to = self.target(place, i, to)?;
                            self.b.ins().jump(to, &[]);
                        }
                    }
                }
                return Ok(true);
            }
            Op::Call { .. } | Op::CallReg { .. } => {
                let call = match note {
                    Note::Call(call) => Some(call),
                    _ => None,
                };
                return self.call(place, i, op, call);
            }
            Op::LoadPacket { .. } | Op::CallBtf { .. } | Op::CallLocal { .. } | Op::Exit => {
                let reason = Reason::Unsupported("an instruction the analysis refuses");
                return Err(place.unit.region.error(i, reason));
            }
        }
        Ok(false)
    }

    /// Where a conditional jump goes on one of its ways: to a block of its own where constants are made on it.
    fn way(&mut self, place: &Place<'_>, i: usize, to: u32) -> Result<Block, NativeError> {
        let step = &place.unit.region.steps[i];
        let constants = place.unit.analysis.constants.get(&(i as u32));
        let constants = constants.map(|[next, taken]| if to == step.next { next } else { taken });
        let checked = to == step.taken && self.checks(step);
        match constants {
            Some(constants) if !constants.is_empty() => Ok(self.b.create_block()),
            _ if checked => Ok(self.b.create_block()),
            _ => self.target(place, i, to),
        }
    }

    /// Block of a step that is branched to.
    fn target(&self, place: &Place<'_>, i: usize, to: u32) -> Result<Block, NativeError> {
        let block = place.blocks.get(to as usize).copied().flatten();
        block.ok_or_else(|| place.unit.region.error(i, Reason::FlowOutside))
    }

    fn load_imm64(&mut self, depth: usize, pc: usize, dst: Reg, imm: Imm64) {
        let value = match imm {
            Imm64::Value(v) => self.iconst(v as i64),
            Imm64::Map(map) => self.table_entry(run_ctx::MAPS, map),
            Imm64::MapValue { map, offset } => {
                let base = self.table_entry(run_ctx::ARRAYS, map);
                self.b.ins().iadd_imm_u(base, i64::from(offset))
            }
            // A function's address is the interpreter's; other kinds the analysis refused.
            Imm64::Other { .. } => {
                let slot = imm.function(pc).unwrap_or(0);
                self.iconst((FUNCTION_BASE + slot as u64) as i64)
            }
        };
        self.set(depth, dst, value);
    }

    /// Entry `index` of a table of pointers whose address is in the context at `field`.
    fn table_entry(&mut self, field: i32, index: u32) -> Value {
        let flags = self.flags.table;
        let table = self.b.ins().load(types::I64, flags, self.ctx, field);
        // An object's map count is far below 2^28; an index is checked against it.
        let at = (index as i32).wrapping_mul(8);
        self.b.ins().load(types::I64, flags, table, at)
    }

    /// After a call: its result, and r1 to r5 cleared so that nothing stale is kept alive.
    fn clobber(&mut self, depth: usize, result: Value) {
        self.set(depth, Reg::R0, result);
        let zero = self.iconst(0);
        for r in [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5] {
            self.set(depth, r, zero);
        }
    }

    fn condition(
        &mut self,
        depth: usize,
        width: Width,
        cond: Cond,
        dst: Reg,
        src: Operand,
    ) -> Value {
        let a = self.register(depth, width, dst);
        let b = self.operand(depth, width, src);
        let code = match cond {
            Cond::Set => return self.b.ins().band(a, b),
            Cond::Eq => IntCC::Equal,
            Cond::Ne => IntCC::NotEqual,
            Cond::Gt => IntCC::UnsignedGreaterThan,
            Cond::Ge => IntCC::UnsignedGreaterThanOrEqual,
            Cond::Lt => IntCC::UnsignedLessThan,
            Cond::Le => IntCC::UnsignedLessThanOrEqual,
            Cond::Sgt => IntCC::SignedGreaterThan,
            Cond::Sge => IntCC::SignedGreaterThanOrEqual,
            Cond::Slt => IntCC::SignedLessThan,
            Cond::Sle => IntCC::SignedLessThanOrEqual,
        };
        self.b.ins().icmp(code, a, b)
    }
}

fn flags(b: &mut FunctionBuilder<'_>, units: &[Unit]) -> Flags {
    let mut region = |user_id, description: &'static str| {
        let data = AliasRegionData {
            user_id,
            description: description.into(),
        };
        b.func.dfg.alias_regions.insert(data)
    };
    let ctx = region(0, "context");
    let table = region(1, "tables");
    let heap = region(2, "packets and map values");
    let memo = region(4, "remembered look-ups");
    let key = region(5, "their keys");
    // Where stack addresses were lost track of, any pointer may be one.
    let escaped = units
        .iter()
        .any(|u| (0..u.region.frames).any(|d| u.analysis.escaped.contains(d as u8)));
    let stack = if escaped { heap } else { region(3, "stack") };
    let unaligned = MemFlagsData::new().with_notrap();
    Flags {
        ctx: unaligned.with_aligned().with_alias_region(Some(ctx)),
        table: unaligned
            .with_aligned()
            .with_readonly()
            .with_can_move()
            .with_alias_region(Some(table)),
        stack: unaligned.with_alias_region(Some(stack)),
        memo: unaligned.with_aligned().with_alias_region(Some(memo)),
        key: unaligned.with_aligned().with_alias_region(Some(key)),
        heap: unaligned.with_alias_region(Some(heap)),
    }
}
