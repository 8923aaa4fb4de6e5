//! Helper calls: inlined, through a map object, or through the helper table.

use super::*;
use crate::analysis;
use crate::calls::{Key, MapOperation};
use crate::helpers;
use dash_bpf::Size;
use dash_bpf::helper;
use dash_bpf::op::{AluOp, Registers};
use dash_wire::abi::{
    CONTINUE, HELPER_SLOTS, MEMO_BITS, MEMO_MULTIPLIER, MemoEntry, map_handle, memo_entry,
};

/// Binary logarithm of a memo entry's size.
const ENTRY_SHIFT: i64 = size_of::<MemoEntry>().ilog2() as i64;
const _: () = assert!(size_of::<MemoEntry>().is_power_of_two());

/// `-EINVAL`.
const EINVAL: i64 = -22;

/// What a tail call to an empty slot leaves in r0.
const TAIL_CALL_FAILED: i64 = -1;

/// Bytes of an Ethernet header (`ETH_HLEN`): packets never get shorter.
const ETH_HLEN: i64 = 14;

const ARGUMENTS: [Reg; 5] = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5];

/// Signatures of what is called, by number of arguments; all are 64 bits wide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signatures([SigRef; 4], SigRef);

impl Signatures {
    pub(super) fn import(b: &mut FunctionBuilder<'_>, conv: CallConv) -> Self {
        let mut import = |n: usize| {
            let mut signature = Signature::new(conv);
            signature.params = vec![AbiParam::new(types::I64); n];
            signature.returns = vec![AbiParam::new(types::I64)];
            b.import_signature(signature)
        };
        Self([import(1), import(2), import(3), import(4)], import(6))
    }
}

impl Lowering<'_> {
    /// Lowers a call; whether it ended the block.
    pub(super) fn call(
        &mut self,
        place: &Place<'_>,
        i: usize,
        op: Op,
        call: Option<Callee>,
    ) -> Result<bool, NativeError> {
        let step = &place.unit.region.steps[i];
        let depth = usize::from(step.depth);
        if super::fuel::may_leave(place.unit, i) {
            self.check_fuel();
        }
        let result = match (call, op) {
            (Some(Callee::Helper(number)), _) => self.call_helper(depth, number),
            (Some(Callee::ArrayLookup { map, key }), _) => {
                return self.array_lookup(place, i, map, key);
            }
            (Some(Callee::Lookup { map }), _) => {
                let first = place
                    .unit
                    .untouched
                    .get(i)
                    .is_some_and(|&untouched| untouched);
                match first && Some(map) == self.found {
                    true => self.found_lookup(depth),
                    false => self.lookup(depth),
                }
            }
            (Some(Callee::HashLookup { map, key }), _) => {
                return self.hash_lookup(place, i, map, key);
            }
            (Some(Callee::Remembered { key }), _) => return self.remembered(place, i, key),
            (Some(Callee::Map(operation)), _) => self.map_operation(depth, operation),
            (Some(Callee::TailCall(Some(program))), _) if self.leaves(program) => {
                let more = match self.part {
                    Part::Path(..) => i64::from(CONTINUE) + i64::from(program),
                    _ => i64::from(CONTINUE),
                };
                let more = self.b.ins().iconst(types::I32, more);
                self.b.ins().return_(&[more]);
                return Ok(true);
            }
            (Some(Callee::TailCall(Some(program))), _) => {
                let entry = self.entries.get(program as usize).copied().flatten();
                let entry = entry.ok_or_else(|| {
                    let reason = Reason::TailCallProgram(program);
                    place.unit.region.error(i, reason)
                })?;
                let ctx = self.ctx;
                self.set(0, Reg::R1, ctx);
                self.b.ins().jump(entry, &[]);
                return Ok(true);
            }
            (Some(Callee::TailCall(None)), _) => self.iconst(TAIL_CALL_FAILED),
            (Some(Callee::TailCallAnywhere), _) => {
                self.hand_over_fuel();
                let refused = self.call_helper(depth, helper::TAIL_CALL);
                let (gone, stays) = (self.b.create_block(), self.b.create_block());
                self.b.ins().brif(refused, stays, &[], gone, &[]);
                self.b.switch_to_block(gone);
                let none = self.b.ins().iconst(types::I32, 0);
                self.b.ins().return_(&[none]);
                self.b.switch_to_block(stays);
                self.iconst(TAIL_CALL_FAILED)
            }
            (Some(Callee::KtimeGetNs), _) => {
                let (ctx, flags) = (self.ctx, self.flags.ctx);
                self.b.ins().load(types::I64, flags, ctx, run_ctx::NOW_NS)
            }
            (Some(Callee::GetSmpProcessorId), _) => {
                let (ctx, flags) = (self.ctx, self.flags.ctx);
                self.b.ins().uload32(flags, ctx, run_ctx::CPU)
            }
            (Some(Callee::Redirect), _) => self.redirect(depth),
            (Some(Callee::AdjustHead), _) => return self.adjust_head(place, i),
            (Some(Callee::AdjustTail), _) => self.adjust_tail(depth),
            (None, Op::CallReg { reg }) => {
                // The verifier proved which helper this is; the mask only keeps a wrong proof
                // inside the table.
                let number = self.get(depth, reg);
                let number = self.b.ins().band_imm_u(number, HELPER_SLOTS as i64 - 1);
                let at = self.b.ins().ishl_imm_u(number, 3);
                let entry = self.b.ins().iadd(self.helpers, at);
                self.call_entry(depth, entry, 0, 5)
            }
            (None, _) => {
                let reason = Reason::Unsupported("a call the analysis did not reach");
                return Err(place.unit.region.error(i, reason));
            }
        };
        self.clobber(depth, result);
        Ok(false)
    }

    /// Whether a tail call to a program ends the function.
    fn leaves(&self, program: u32) -> bool {
        match self.part {
            Part::Before(cut) => program == cut,
            Part::Path(..) => self
                .entries
                .get(program as usize)
                .copied()
                .flatten()
                .is_none(),
            Part::Whole | Part::Resume(..) | Part::Alone(_) => false,
        }
    }

    /// Calls through the helper table.
    fn call_helper(&mut self, depth: usize, number: u32) -> Value {
        // Checked against the table's length by the analysis.
        let off = (number as i32).wrapping_mul(8);
        let table = self.helpers;
        self.call_entry(depth, table, off, helpers::arity(self.kind, number))
    }

    /// Calls through the helper table with these arguments.
    pub(super) fn call_with(&mut self, number: u32, args: &[Value]) -> Value {
        let (table, flags) = (self.helpers, self.flags.table);
        // A number of ours, inside the table.
        let off = (number as i32).wrapping_mul(8);
        let function = self.b.ins().load(types::I64, flags, table, off);
        let zero = self.iconst(0);
        let mut all = [zero; 6];
        all[0] = self.ctx;
        all[1..=args.len()].copy_from_slice(args);
        let signature = self.signatures.1;
        self.indirect(signature, function, &all)
    }

    /// Calls the helper whose address is at `entry + off`, with its first `arity` arguments.
    fn call_entry(&mut self, depth: usize, entry: Value, off: i32, arity: usize) -> Value {
        let flags = self.flags.table;
        let function = self.b.ins().load(types::I64, flags, entry, off);
        let mut args = vec![self.ctx];
        for (n, r) in ARGUMENTS.into_iter().enumerate() {
            args.push(if n < arity {
                self.get(depth, r)
            } else {
                self.iconst(0)
            });
        }
        let signature = self.signatures.1;
        self.indirect(signature, function, &args)
    }

    fn indirect(&mut self, signature: SigRef, function: Value, args: &[Value]) -> Value {
        let call = self.b.ins().call_indirect(signature, function, args);
        self.b.inst_results(call)[0]
    }

    /// Looks the key at r2 up in the map object in r1.
    fn lookup(&mut self, depth: usize) -> Value {
        let (map, key) = (self.get(depth, Reg::R1), self.get(depth, Reg::R2));
        self.lookup_in(map, key)
    }

    pub(super) fn lookup_in(&mut self, map: Value, key: Value) -> Value {
        let flags = self.flags.table;
        let at = map_handle::LOOKUP;
        let function = self.b.ins().load(types::I64, flags, map, at);
        self.indirect(self.signatures.0[1], function, &[map, key])
    }

    /// What the caller found, where it looked for the key that the program looks for.
    fn found_lookup(&mut self, depth: usize) -> Value {
        let key = self.get(depth, Reg::R2);
        let known = self.ctx_pointer(run_ctx::FOUND_KEY);
        let same = self.b.ins().icmp(IntCC::Equal, key, known);
        let (hit, miss, done) = (
            self.b.create_block(),
            self.b.create_block(),
            self.b.create_block(),
        );
        let result = self.b.append_block_param(done, types::I64);
        self.b.set_cold_block(miss);
        self.b.ins().brif(same, hit, &[], miss, &[]);
        self.b.switch_to_block(hit);
        let found = self.ctx_pointer(run_ctx::FOUND_VALUE);
        self.b.ins().jump(done, &[BlockArg::Value(found)]);
        self.b.switch_to_block(miss);
        let found = self.lookup(depth);
        self.b.ins().jump(done, &[BlockArg::Value(found)]);
        self.b.switch_to_block(done);
        result
    }

    /// A look-up answered from memory if it can be; else what the map says is remembered. Returns
    /// whether it ended the block.
    fn remembered(
        &mut self,
        place: &Place<'_>,
        i: usize,
        key: Option<analysis::Place>,
    ) -> Result<bool, NativeError> {
        let step = place.unit.region.steps[i];
        let depth = usize::from(step.depth);
        let key = match key {
            Some(at) => self.load_stack(place, at, 8),
            None => {
                let pointer = self.get(depth, Reg::R2);
                let flags = self.flags.heap;
                self.load_memory(flags, pointer, 0, Size::Dw, false)
            }
        };
        let (memo, readonly) = (self.flags.memo, self.flags.table);
        let at = self.b.ins().imul_imm_s(key, MEMO_MULTIPLIER as i64);
        let at = self.b.ins().ushr_imm_u(at, i64::from(64 - MEMO_BITS));
        let at = self.b.ins().ishl_imm_u(at, ENTRY_SHIFT);
        let entries = self
            .b
            .ins()
            .load(types::I64, readonly, self.ctx, run_ctx::MEMO);
        let entry = self.b.ins().iadd(entries, at);
        let known = self.b.ins().load(types::I64, memo, entry, memo_entry::KEY);
        let same = self.b.ins().icmp(IntCC::Equal, key, known);
        let (known, asked, keep, hit, miss) = (
            self.b.create_block(),
            self.b.create_block(),
            self.b.create_block(),
            self.b.create_block(),
            self.b.create_block(),
        );
        let result = self.b.append_block_param(hit, types::I64);
        self.b.set_cold_block(asked);
        self.b.set_cold_block(keep);
        self.b.ins().brif(same, known, &[], asked, &[]);

        // An entry that is not in use has some key and a null.
        self.b.switch_to_block(known);
        let value = self
            .b
            .ins()
            .load(types::I64, memo, entry, memo_entry::VALUE);
        let value_arg = [BlockArg::Value(value)];
        self.b.ins().brif(value, hit, &value_arg, asked, &[]);

        self.b.switch_to_block(asked);
        let slot = self.key_slot(8);
        let pointer = self.b.ins().stack_addr(types::I64, slot, 0);
        let flags = self.flags.key;
        self.b.ins().store(flags, key, pointer, 0);
        let map = self.get(depth, Reg::R1);
        let value = self.lookup_in(map, pointer);
        self.b.ins().brif(value, keep, &[], miss, &[]);

        self.b.switch_to_block(keep);
        self.b.ins().store(memo, key, entry, memo_entry::KEY);
        self.b.ins().store(memo, value, entry, memo_entry::VALUE);
        self.b.ins().jump(hit, &[BlockArg::Value(value)]);

        self.either(place, i, (hit, result), miss)
    }

    /// After a look-up whose two ends are blocks of their own: on to where the program goes with a value and
    /// with null. Returns whether it ended the block.
    pub(super) fn either(
        &mut self,
        place: &Place<'_>,
        i: usize,
        (hit, result): (Block, Value),
        miss: Block,
    ) -> Result<bool, NativeError> {
        let step = place.unit.region.steps[i];
        let depth = usize::from(step.depth);
        let Some(test) = null_test(place, &step, |step| self.checks(step)) else {
            let next = self.b.create_block();
            for (block, result) in [(hit, Some(result)), (miss, None)] {
                self.b.switch_to_block(block);
                let value = result.unwrap_or_else(|| self.iconst(0));
                self.clobber(depth, value);
                self.b.ins().jump(next, &[]);
            }
            self.b.switch_to_block(next);
            return Ok(false);
        };
        let (found, null) = test.to;
        for (block, result, to) in [(hit, Some(result), found), (miss, None, null)] {
            self.b.switch_to_block(block);
            let value = result.unwrap_or_else(|| self.iconst(0));
            self.clobber(depth, value);
            for &at in &test.moves {
                let at = at as usize;
                self.step(place, at, &place.unit.region.steps[at])?;
            }
            let to = self.target(place, i, to)?;
            self.b.ins().jump(to, &[]);
        }
        Ok(true)
    }

    /// Stack memory for one key of at most so many bytes.
    pub(super) fn key_slot(&mut self, bytes: u32) -> StackSlot {
        match self.key {
            Some((slot, size)) if size >= bytes => slot,
            _ => {
                let data = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3);
                let slot = self.b.create_sized_stack_slot(data);
                self.key = Some((slot, bytes));
                slot
            }
        }
    }

    /// Calls an operation at the head of the map object in r1.
    fn map_operation(&mut self, depth: usize, operation: MapOperation) -> Value {
        let (at, arity) = match operation {
            MapOperation::Update => (map_handle::UPDATE, 4),
            MapOperation::Delete => (map_handle::DELETE, 2),
            MapOperation::Push => (map_handle::PUSH, 3),
            MapOperation::Pop => (map_handle::POP, 2),
            MapOperation::Peek => (map_handle::PEEK, 2),
        };
        let map = self.get(depth, Reg::R1);
        let flags = self.flags.table;
        let function = self.b.ins().load(types::I64, flags, map, at);
        let args: Vec<Value> = ARGUMENTS[..arity]
            .iter()
            .map(|&r| self.get(depth, r))
            .collect();
        let signature = self.signatures.0[arity - 1];
        self.indirect(signature, function, &args)
    }

    /// `base + key * stride`, or null when the key is out of range. Where the program tests the
    /// result for null right away, both tests become one branch. Returns whether it ended the
    /// block.
    fn array_lookup(
        &mut self,
        place: &Place<'_>,
        i: usize,
        map: u32,
        key: Key,
    ) -> Result<bool, NativeError> {
        let step = place.unit.region.steps[i];
        let depth = usize::from(step.depth);
        let Some(def) = self.object.maps.get(map as usize) else {
            return Err(place.unit.region.error(i, Reason::UnknownMap(map)));
        };
        let (entries, stride) = (i64::from(def.max_entries), i64::from(def.stride()));
        let index = match key {
            Key::Const(k) if i64::from(k) < entries => {
                let base = self.table_entry(run_ctx::ARRAYS, map);
                let element = self.b.ins().iadd_imm_u(base, i64::from(k) * stride);
                self.clobber(depth, element);
                return Ok(false);
            }
            Key::Const(_) => {
                let null = self.iconst(0);
                self.clobber(depth, null);
                return Ok(false);
            }
            Key::Stack(at) => self.load_stack(place, at, 4),
            Key::Memory => {
                let pointer = self.get(depth, Reg::R2);
                let flags = self.flags.heap;
                self.load_memory(flags, pointer, 0, Size::W, false)
            }
        };
        let in_range = self
            .b
            .ins()
            .icmp_imm_u(IntCC::UnsignedLessThan, index, entries);
        let base = self.table_entry(run_ctx::ARRAYS, map);
        let null = self.iconst(0);
        // Whatever a branch on `in_range` is guessed to do, this moves by what it is.
        let index = match self.mask_indexes {
            true => self.b.ins().select_spectre_guard(in_range, index, null),
            false => index,
        };
        let offset = self.b.ins().imul_imm_u(index, stride);
        let element = self.b.ins().iadd(base, offset);
        if null_test(place, &step, |step| self.checks(step)).is_some() {
            let (on_hit, on_miss) = (self.b.create_block(), self.b.create_block());
            self.b.ins().brif(in_range, on_hit, &[], on_miss, &[]);
            return self.either(place, i, (on_hit, element), on_miss);
        }
        let result = self.b.ins().select(in_range, element, null);
        self.clobber(depth, result);
        Ok(false)
    }

    /// `bpf_redirect`: like Linux, flags other than 0 abort.
    fn redirect(&mut self, depth: usize) -> Value {
        let port = self.get(depth, Reg::R1);
        let wanted = self.get(depth, Reg::R2);
        let (ctx, flags) = (self.ctx, self.flags.ctx);
        self.b
            .ins()
            .istore32(flags, port, ctx, run_ctx::REDIRECT_IFINDEX);
        let plain = self.b.ins().icmp_imm_u(IntCC::Equal, wanted, 0);
        let redirect = self.iconst(XdpAction::Redirect as i64);
        let aborted = self.iconst(XdpAction::Aborted as i64);
        self.b.ins().select(plain, redirect, aborted)
    }

    /// `bpf_xdp_adjust_head`: the head moves by r2 (an `int`) within `frame_start ..= data_end - 14`, and the
    /// (empty) metadata with it. Metadata that is not empty moves along, which the runtime does. Where the
    /// program tests the result right away, what it says is where control goes. Returns whether it ended the block.
    fn adjust_head(&mut self, place: &Place<'_>, i: usize) -> Result<bool, NativeError> {
        let depth = usize::from(place.unit.region.steps[i].depth);
        let (done, failed) = (self.b.create_block(), self.b.create_block());
        let error = self.b.append_block_param(failed, types::I64);
        self.b.set_cold_block(failed);
        let data = self.ctx_pointer(run_ctx::DATA);
        if self.metadata {
            let meta = self.ctx_pointer(run_ctx::DATA_META);
            let none = self.b.ins().icmp(IntCC::Equal, data, meta);
            let (plain, called) = (self.b.create_block(), self.b.create_block());
            self.b.set_cold_block(called);
            self.b.ins().brif(none, plain, &[], called, &[]);
            self.b.switch_to_block(called);
            let result = self.call_helper(depth, helper::XDP_ADJUST_HEAD);
            self.b
                .ins()
                .brif(result, failed, &[BlockArg::Value(result)], done, &[]);
            self.b.switch_to_block(plain);
        }
        let delta = self.int_argument(depth, Reg::R2);
        let new = self.b.ins().iadd(data, delta);
        let start = self.ctx_pointer(run_ctx::FRAME_START);
        let end = self.ctx_pointer(run_ctx::DATA_END);
        let last = self.b.ins().iadd_imm_s(end, -ETH_HLEN);
        let low = self
            .b
            .ins()
            .icmp(IntCC::UnsignedGreaterThanOrEqual, new, start);
        let high = self.b.ins().icmp(IntCC::UnsignedLessThanOrEqual, new, last);
        let refused = self.b.create_block();
        self.b.set_cold_block(refused);
        for test in [low, high] {
            let next = self.b.create_block();
            self.b.ins().brif(test, next, &[], refused, &[]);
            self.b.switch_to_block(next);
        }
        self.set_ctx_pointer(run_ctx::DATA_META, new);
        // Last, so that a load of it that follows needs no memory.
        self.set_ctx_pointer(run_ctx::DATA, new);
        self.b.ins().jump(done, &[]);
        self.b.switch_to_block(refused);
        let invalid = self.iconst(EINVAL);
        self.b.ins().jump(failed, &[BlockArg::Value(invalid)]);
        self.either(place, i, (failed, error), done)
    }

    /// `bpf_xdp_adjust_tail`: shrinks in place down to 14 bytes. Growing zeroes the new bytes,
    /// which the runtime does.
    fn adjust_tail(&mut self, depth: usize) -> Value {
        let delta = self.int_argument(depth, Reg::R2);
        let grows = self.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, delta, 0);
        let (grow, shrink, done) = (
            self.b.create_block(),
            self.b.create_block(),
            self.b.create_block(),
        );
        let result = self.b.append_block_param(done, types::I64);
        self.b.set_cold_block(grow);
        self.b.ins().brif(grows, grow, &[], shrink, &[]);

        self.b.switch_to_block(grow);
        let grown = self.call_helper(depth, helper::XDP_ADJUST_TAIL);
        self.b.ins().jump(done, &[BlockArg::Value(grown)]);

        self.b.switch_to_block(shrink);
        let end = self.ctx_pointer(run_ctx::DATA_END);
        let new = self.b.ins().iadd(end, delta);
        let data = self.ctx_pointer(run_ctx::DATA);
        let shortest = self.b.ins().iadd_imm_s(data, ETH_HLEN);
        let long_enough = self
            .b
            .ins()
            .icmp(IntCC::UnsignedGreaterThanOrEqual, new, shortest);
        let shrunk = self.checked(&[long_enough], |this| {
            this.set_ctx_pointer(run_ctx::DATA_END, new);
            this.iconst(0)
        });
        self.b.ins().jump(done, &[BlockArg::Value(shrunk)]);

        self.b.switch_to_block(done);
        result
    }

    /// What `then` yields when all `tests` hold, else `-EINVAL`.
    fn checked(&mut self, tests: &[Value], then: impl FnOnce(&mut Self) -> Value) -> Value {
        let (fail, done) = (self.b.create_block(), self.b.create_block());
        let result = self.b.append_block_param(done, types::I64);
        self.b.set_cold_block(fail);
        for &test in tests {
            let next = self.b.create_block();
            self.b.ins().brif(test, next, &[], fail, &[]);
            self.b.switch_to_block(next);
        }
        let value = then(self);
        self.b.ins().jump(done, &[BlockArg::Value(value)]);
        self.b.switch_to_block(fail);
        let error = self.iconst(EINVAL);
        self.b.ins().jump(done, &[BlockArg::Value(error)]);
        self.b.switch_to_block(done);
        result
    }

    /// A C `int` argument: the low 32 bits, sign-extended.
    fn int_argument(&mut self, depth: usize, reg: Reg) -> Value {
        let value = self.register(depth, Width::W32, reg);
        self.b.ins().sextend(types::I64, value)
    }

    fn ctx_pointer(&mut self, field: i32) -> Value {
        let (ctx, flags) = (self.ctx, self.flags.ctx);
        self.b.ins().load(types::I64, flags, ctx, field)
    }

    fn set_ctx_pointer(&mut self, field: i32, value: Value) {
        let (ctx, flags) = (self.ctx, self.flags.ctx);
        self.b.ins().store(flags, value, ctx, field);
    }
}

/// The test of a look-up's result for null, right after it or after moves between registers.
struct NullTest {
    /// Steps of the moves.
    moves: Vec<u32>,
    /// Where control goes for a value, and for null.
    to: (u32, u32),
}

/// Finds it. Each way then gets the moves, and no test. Not if the jump is `checked` for fuel.
fn null_test(
    place: &Place<'_>,
    lookup: &Step,
    checked: impl Fn(&Step) -> bool,
) -> Option<NullTest> {
    /// More would be a loop.
    const MOST_MOVES: usize = 8;
    let mut copies = Registers::from(Reg::R0);
    let mut moves = Vec::new();
    let mut at = lookup.next;
    loop {
        let test = place.unit.region.steps.get(at as usize)?;
        if place.unit.analysis.leader[at as usize] || moves.len() == MOST_MOVES {
            return None;
        }
        match test.action {
            Action::Op(Op::Alu {
                width,
                op: AluOp::Mov,
                dst,
                src,
            }) => {
                let copied = match src {
                    Operand::Reg(r) => width == Width::W64 && copies.contains(r),
                    Operand::Imm(_) => false,
                };
                copies = match copied {
                    true => copies | dst.into(),
                    false => copies & !Registers::from(dst),
                };
                moves.push(at);
                at = test.next;
            }
            Action::Op(Op::JumpIf {
                width: Width::W64,
                cond,
                dst,
                src: Operand::Imm(0),
                ..
            }) if copies.contains(dst) && !checked(test) => {
                let to = match cond {
                    Cond::Eq => (test.next, test.taken),
                    Cond::Ne => (test.taken, test.next),
                    _ => return None,
                };
                return Some(NullTest { moves, to });
            }
            _ => return None,
        }
    }
}
