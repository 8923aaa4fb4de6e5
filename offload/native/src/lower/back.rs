//! Helpers that call functions of the program: loops, with the function inside.

use super::*;
use crate::region::CallBack;
use dash_bpf::helper;
use dash_wire::abi::{Element, element};

/// `-EINVAL` and `-E2BIG`.
const EINVAL: i64 = -22;
const E2BIG: i64 = -7;

/// What a helper keeps from round to round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Back {
    /// What it returns: rounds that were, or an error.
    result: Variable,
    /// Where in the map it is.
    cursor: Variable,
    /// Stack memory of an [`Element`].
    element: StackSlot,
}

impl Lowering<'_> {
    fn back(&mut self, depth: usize) -> Back {
        if let Some(back) = self.backs[depth] {
            return back;
        }
        let data = StackSlotData::new(
            StackSlotKind::ExplicitSlot,
            size_of::<Element>() as u32,
            align_of::<Element>().ilog2() as u8,
        );
        let back = Back {
            result: self.b.declare_var(types::I64),
            cursor: self.b.declare_var(types::I64),
            element: self.b.create_sized_stack_slot(data),
        };
        self.backs[depth] = Some(back);
        back
    }

    /// Starts: flags other than 0, and more rounds than may be, fail.
    pub(super) fn call_back(
        &mut self,
        place: &Place<'_>,
        i: usize,
        call: CallBack,
    ) -> Result<bool, NativeError> {
        let step = &place.unit.region.steps[i];
        let depth = usize::from(step.depth);
        let back = self.back(depth);
        let zero = self.iconst(0);
        self.b.def_var(back.cursor, zero);
        let flags = self.get(depth, Reg::R4);
        let plain = self.b.ins().icmp_imm_u(IntCC::Equal, flags, 0);
        let (result, goes) = match call {
            CallBack::Loop => {
                let rounds = self.register(depth, Width::W32, Reg::R1);
                let most = helper::MAX_ROUNDS as i64;
                let few = self
                    .b
                    .ins()
                    .icmp_imm_u(IntCC::UnsignedLessThanOrEqual, rounds, most);
                let many = self.iconst(E2BIG);
                (
                    self.b.ins().select(few, zero, many),
                    self.b.ins().band(plain, few),
                )
            }
            CallBack::Elements => (zero, plain),
        };
        let invalid = self.iconst(EINVAL);
        let result = self.b.ins().select(plain, result, invalid);
        self.b.def_var(back.result, result);
        let (round, done) = (
            self.target(place, i, step.next)?,
            self.target(place, i, step.taken)?,
        );
        self.b.ins().brif(goes, round, &[], done, &[]);
        Ok(true)
    }

    /// Whether there is another round.
    pub(super) fn round(
        &mut self,
        place: &Place<'_>,
        i: usize,
        call: CallBack,
    ) -> Result<bool, NativeError> {
        let step = &place.unit.region.steps[i];
        let depth = usize::from(step.depth);
        let back = self.back(depth);
        let more = match call {
            CallBack::Loop => {
                let rounds = self.register(depth, Width::W32, Reg::R1);
                let rounds = self.b.ins().uextend(types::I64, rounds);
                let were = self.b.use_var(back.result);
                self.b.ins().icmp(IntCC::UnsignedLessThan, were, rounds)
            }
            CallBack::Elements => {
                let map = self.get(depth, Reg::R1);
                let cursor = self.b.use_var(back.cursor);
                let to = self.b.ins().stack_addr(types::I64, back.element, 0);
                let next = self.call_with(helper::FOR_EACH_MAP_ELEM, &[map, cursor, to]);
                self.b.def_var(back.cursor, next);
                next
            }
        };
        // The function, or nothing where control cannot go.
        let (enter, done) = (
            self.target(place, i, step.next)?,
            self.target(place, i, step.taken)?,
        );
        self.b.ins().brif(more, enter, &[], done, &[]);
        Ok(true)
    }

    /// Enters the function with what it is given.
    pub(super) fn enter_round(&mut self, depth: usize, call: CallBack) {
        let back = self.back(depth);
        let context = self.get(depth, Reg::R3);
        let zero = self.iconst(0);
        let args = match call {
            CallBack::Loop => [self.b.use_var(back.result), context, zero, zero],
            CallBack::Elements => {
                let map = self.get(depth, Reg::R1);
                let at = self.b.ins().stack_addr(types::I64, back.element, 0);
                // The helper wrote them, as it may write anything.
                let flags = self.flags.heap;
                let key = self.b.ins().load(types::I64, flags, at, element::KEY);
                let value = self.b.ins().load(types::I64, flags, at, element::VALUE);
                [map, key, value, context]
            }
        };
        let callee = depth + 1;
        for r in 0..10 {
            self.b.def_var(self.registers[callee][r], zero);
        }
        for (r, arg) in [Reg::R1, Reg::R2, Reg::R3, Reg::R4].into_iter().zip(args) {
            self.set(callee, r, arg);
        }
        let frame_pointer = self.frame_pointer(callee);
        self.set(callee, Reg::R10, frame_pointer);
    }

    /// Leaves the function: another round unless it returned something else than 0.
    pub(super) fn again(&mut self, place: &Place<'_>, i: usize) -> Result<bool, NativeError> {
        let step = &place.unit.region.steps[i];
        let callee = usize::from(step.depth);
        let back = self.back(callee - 1);
        let were = self.b.use_var(back.result);
        let now = self.b.ins().iadd_imm_s(were, 1);
        self.b.def_var(back.result, now);
        let r0 = self.get(callee, Reg::R0);
        let (round, done) = (
            self.target(place, i, step.next)?,
            self.target(place, i, step.taken)?,
        );
        self.b.ins().brif(r0, done, &[], round, &[]);
        Ok(true)
    }

    /// The helper returns.
    pub(super) fn done(&mut self, depth: usize) {
        let back = self.back(depth);
        let result = self.b.use_var(back.result);
        self.clobber(depth, result);
    }
}
