//! Counting instructions ([`Options::fuel`]), as [`dash_bpf::interp::Interp::metered`] does.
//!
//! What is left is a variable like a register's. Each stretch of a block takes off what it has, and only where a
//! run could go on for long is it looked at; so a program without any such place pays nothing.

use super::*;
use crate::calls::Callee;
use dash_bpf::helper;

/// What counting needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fuel {
    /// What is left; below 0 when it is spent.
    left: Variable,
    /// Ends the run.
    out: Block,
}

/// A conditional jump backwards.
pub(super) fn goes_back(step: &Step) -> bool {
    matches!(step.action, Action::Op(Op::JumpIf { target, .. }) if target <= step.pc as usize)
}

/// Whether there is any place in a program at which fuel is looked at.
pub(super) fn looks_somewhere(unit: &Unit) -> bool {
    let steps = unit.region.steps.iter().enumerate();
    let mut reached = steps.filter(|(i, _)| unit.analysis.reached[*i]);
    reached.any(|(i, step)| match step.action {
        Action::Enter | Action::Again => true,
        Action::Op(Op::Jump { target }) => target <= step.pc as usize,
        _ => goes_back(step) || may_leave(unit, i),
    })
}

/// A step that may end the program and go on with another.
pub(super) fn may_leave(unit: &Unit, i: usize) -> bool {
    match unit.region.steps[i].action {
        Action::Op(Op::Call { helper }) => helper == helper::TAIL_CALL,
        _ => matches!(
            unit.analysis.notes[i],
            Note::Call(Callee::TailCall(_) | Callee::TailCallAnywhere)
        ),
    }
}

/// A step at which fuel is looked at in the middle of a block: what follows is counted on its own.
pub(super) fn ends_stretch(place: &Place<'_>, i: usize) -> bool {
    place.unit.region.steps[i].action == Action::Enter || may_leave(place.unit, i)
}

impl Lowering<'_> {
    /// As the function starts, in its entry.
    pub(super) fn fill_up(&mut self) {
        let left = self.b.declare_var(types::I64);
        let flags = self.flags.ctx;
        let at = run_ctx::FUEL;
        let given = self.b.ins().load(types::I64, flags, self.ctx, at);
        self.b.def_var(left, given);
        let out = self.b.create_block();
        self.b.set_cold_block(out);
        self.fuel = Some(Fuel { left, out });
    }

    /// The end of a run that took too much, once all else is there.
    pub(super) fn run_dry(&mut self) {
        let Some(Fuel { out, .. }) = self.fuel else {
            return;
        };
        self.b.switch_to_block(out);
        let none = self.iconst(-1);
        let flags = self.flags.ctx;
        self.b.ins().store(flags, none, self.ctx, run_ctx::FUEL);
        let aborted = self.b.ins().iconst(types::I32, XdpAction::Aborted as i64);
        self.b.ins().return_(&[aborted]);
    }

    /// Takes off what runs from a step on to the block's end, or to a call at which it is looked at.
    pub(super) fn spend(&mut self, place: &Place<'_>, from: usize) {
        let Some(Fuel { left, .. }) = self.fuel else {
            return;
        };
        let steps = &place.unit.region.steps;
        let (mut i, mut spent) = (from, 0);
        loop {
            let step = &steps[i];
            // Helpers that call functions are several steps: that of the call counts, and their functions' own.
            let (counts, ends) = match step.action {
                Action::Op(Op::JumpIf { .. })
                | Action::CallBack(_)
                | Action::Again
                | Action::Return => (true, true),
                Action::Op(_) | Action::Enter | Action::Leave => (true, false),
                Action::Round(_) => (false, true),
                Action::EnterRound(_) | Action::Done => (false, false),
            };
            spent += i64::from(counts);
            let next = step.next as usize;
            let starts = place.blocks.get(next).copied().flatten().is_some();
            if ends || step.next == NONE || starts || ends_stretch(place, i) {
                break;
            }
            i = next;
        }
        if spent > 0 {
            let before = self.b.use_var(left);
            let after = self.b.ins().iadd_imm_s(before, -spent);
            self.b.def_var(left, after);
        }
    }

    /// Whether fuel is looked at where a conditional jump is taken.
    pub(super) fn checks(&self, step: &Step) -> bool {
        self.fuel.is_some() && goes_back(step)
    }

    /// Ends the run if it took too much.
    pub(super) fn check_fuel(&mut self) {
        let Some(Fuel { left, out }) = self.fuel else {
            return;
        };
        let left = self.b.use_var(left);
        let spent = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, left, 0);
        let go = self.b.create_block();
        self.b.ins().brif(spent, out, &[], go, &[]);
        self.b.switch_to_block(go);
    }

    /// Leaves what is left to who runs next.
    pub(super) fn hand_over_fuel(&mut self) {
        let Some(Fuel { left, .. }) = self.fuel else {
            return;
        };
        let left = self.b.use_var(left);
        let flags = self.flags.ctx;
        self.b.ins().store(flags, left, self.ctx, run_ctx::FUEL);
    }
}
