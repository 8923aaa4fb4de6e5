//! Flows that are decided again: which packets do it, and what of the old decision stays.
//!
//! A flow that is decided again leaves the table at its look-up, as one that a SYN ends does. Its slot
//! is the next to be taken, by `flow create` of the same packet, and still holds its history; a packet
//! that policy drops before leaves it out of the table.

use std::mem::{offset_of, size_of};

use dash_bpf::Size;
use dash_bpf::builder::{Label, R0, R1, R2, R3, R4};
use dash_bpf::op::{AluOp, Cond as C};
use dash_wire::stats::EniStat;
use dash_wire::tables::{
    EniLife, EniRow, FlowActions, FlowEntry, FlowHalf, FlowKey, MOVED, Meta, flow_action, flow_mark,
};
use nic_target::Table;

use super::flow::{ENTRY, FP, RST, TCP, entry, meta, side_at};
use super::stage::{META, StageLower};

/// A second in nanoseconds.
const SECOND: i32 = 1_000_000_000;

/// Offset of a field of the actions of a half.
macro_rules! action {
    ($field:ident) => {
        (offset_of!(FlowHalf, actions) + offset_of!(FlowActions, $field)) as i16
    };
}

/// Offset of a half's field in the metadata: the packet's own half lies there as in an entry, and
/// the other after it.
const fn meta_half(side: i16, at: i16) -> i16 {
    side * size_of::<FlowHalf>() as i16 + at
}

impl StageLower<'_> {
    /// Jumps when the entry is of another epoch than its ENI.
    pub(super) fn old_epoch(&mut self, stale: Label) {
        self.b.load(Size::B, R1, ENTRY, entry!(epoch));
        self.b.load(Size::B, R2, META, meta!(epoch));
        self.b.jump_if(C::Ne, R1, R2, stale);
    }

    /// A packet of an old flow's first side, already counted to it: to `found` when the old decision
    /// holds on, else to `miss` with the flow out of the table.
    pub(super) fn decide_again(&mut self, found: Label, miss: Label) {
        self.b.comment("flow of an old epoch");
        let (same, go) = (self.b.label(), self.b.label());
        self.unless_it_ends(found);
        self.b.load(Size::B, R1, ENTRY, entry!(marks));
        self.b.alu(AluOp::And, R1, i32::from(flow_mark::REDIRECTED));
        self.b.jump_if(C::Ne, R1, 0, found);

        self.b.load(Size::W, R1, META, meta!(eni));
        self.lookup_element(Table::Eni, R1);
        self.b.jump_if(C::Eq, R0, 0, found);
        let per_second = offset_of!(EniRow, resim_per_second) as i16;
        self.b.load(Size::W, R1, R0, per_second);
        self.b.jump_if(C::Eq, R1, 0, go);
        self.b.store(Size::W, FP, self.value_slot, R1);
        self.b.load(Size::W, R1, META, meta!(eni));
        self.lookup_element(Table::EniLife, R1);
        self.b.jump_if(C::Eq, R0, 0, found);
        let since = offset_of!(EniLife, since_ns) as i16;
        let renewed = offset_of!(EniLife, renewed) as i16;
        self.b.load(Size::Dw, R1, META, meta!(now_ns));
        self.b.load(Size::Dw, R2, R0, since);
        self.b.mov(R3, R1);
        self.b.alu(AluOp::Sub, R3, R2);
        // A packet that another worker parsed may be older.
        self.b.jump_if(C::Slt, R3, SECOND, same);
        self.b.store(Size::Dw, R0, since, R1);
        self.b.store(Size::W, R0, renewed, 0);
        self.b.bind(same);
        self.b.load(Size::W, R1, R0, renewed);
        self.b.load(Size::W, R2, FP, self.value_slot);
        self.b.jump_if(C::Ge, R1, R2, found);
        self.b.alu(AluOp::Add, R1, 1);
        self.b.store(Size::W, R0, renewed, R1);
        self.b.bind(go);
        self.b.load(Size::B, R1, ENTRY, entry!(state));
        self.leave(miss);
    }

    /// Jumps when the ENI learns and the packet, of the first side, did not come from where replies go.
    pub(super) fn came_from_elsewhere(&mut self, moved: Label) {
        let back = side_at(1);
        let stays = self.b.label();
        self.b.load(Size::B, R1, META, meta!(learn));
        self.b.jump_if(C::Eq, R1, 0, stays);
        self.b.load(Size::B, R2, ENTRY, back + action!(u0_encap));
        self.b.jump_if(C::Ne, R1, R2, moved);
        self.b.load(Size::W, R1, META, meta!(outer_sip));
        self.b.load(Size::W, R2, ENTRY, back + action!(u0_dip));
        self.b.jump_if(C::Ne, R1, R2, moved);
        self.b.load(Size::W, R1, META, meta!(vni));
        self.b.load(Size::W, R2, ENTRY, back + action!(u0_vni));
        self.b.jump_if(C::Ne, R1, R2, moved);
        self.b.bind(stays);
    }

    /// As [`decide_again`](Self::decide_again), of a flow whose packets come from elsewhere: without a
    /// limit, and redirected or not.
    pub(super) fn decide_moved(&mut self, found: Label, miss: Label) {
        self.b.comment("flow from elsewhere");
        self.unless_it_ends(found);
        self.b.load(Size::B, R1, ENTRY, entry!(state));
        self.b.alu(AluOp::Or, R1, i32::from(MOVED));
        self.leave(miss);
    }

    /// Jumps for a RST; a FIN may have closed the connection.
    fn unless_it_ends(&mut self, found: Label) {
        let closed = self.b.label();
        let proto = meta!(key) + offset_of!(FlowKey, proto) as i16;
        self.b.load(Size::B, R1, META, proto);
        self.b.jump_if(C::Ne, R1, TCP, closed);
        self.b.load(Size::B, R1, META, meta!(tcp_flags));
        self.b.alu(AluOp::And, R1, RST);
        self.b.jump_if(C::Ne, R1, 0, found);
        self.close(closed);
        self.b.bind(closed);
    }

    /// Takes the flow out of the table, with r1 in `renew`.
    fn leave(&mut self, miss: Label) {
        self.b.store(Size::B, META, meta!(renew), R1);
        self.take_out();
        self.b.jump(miss);
    }

    /// What the ENI says of the old decision, in the slot just taken, becomes the packet's again.
    /// With `learn`, a flow that moved keeps none, or all that a redirect may have changed.
    pub(super) fn keep_old(&mut self, pair: bool, learn: bool) {
        let (none, known) = (self.b.label(), self.b.label());
        self.b.load(Size::B, R1, META, meta!(renew));
        self.b.jump_if(C::Eq, R1, 0, none);
        if learn {
            let asked = self.b.label();
            self.b.alu(AluOp::And, R1, i32::from(MOVED));
            self.b.jump_if(C::Eq, R1, 0, asked);
            self.b.load(Size::B, R1, ENTRY, entry!(marks));
            self.b.alu(AluOp::And, R1, i32::from(flow_mark::REDIRECTED));
            self.b.jump_if(C::Eq, R1, 0, none);
            self.b.mov(R4, i32::from(flow_action::REDIRECTABLE));
            self.b.jump(known);
            self.b.bind(asked);
        }
        self.b.load(Size::W, R1, META, meta!(eni));
        self.lookup_element(Table::Eni, R1);
        self.b.jump_if(C::Eq, R0, 0, none);
        self.b
            .load(Size::H, R4, R0, offset_of!(EniRow, resim_keep) as i16);
        self.b.jump_if(C::Eq, R4, 0, none);
        self.b.bind(known);
        self.kept_bits(0);
        self.when_kept(flow_action::ENCAP_U0, |s| {
            s.keep_field(action!(u0_encap), 1);
            s.keep_field(action!(u0_sip), 12);
            s.keep_field(action!(sport), 2);
        });
        self.when_kept(flow_action::SET_DMAC, |s| s.keep_field(action!(dmac), 6));
        if pair {
            self.when_kept(flow_action::ENCAP_U1, |s| {
                s.keep_field(action!(u1), 1);
                s.take_u1(side_at(1));
            });
        }
        self.when_kept(flow_action::TRANSLATES, |s| {
            let key = side_at(1) + offset_of!(FlowHalf, key) as i16;
            s.copy(META, meta!(rkey), ENTRY, key, size_of::<FlowKey>());
        });
        self.b
            .alu(AluOp::And, R4, i32::from(flow_action::TRANSLATES));
        self.kept_bits(1);
        self.b.bind(none);
    }

    /// Action bits in r4 become those of the old decision of a side.
    fn kept_bits(&mut self, side: i16) {
        let at = meta_half(side, action!(actions));
        self.b.load(Size::H, R1, META, at);
        self.b.load(Size::H, R2, ENTRY, at);
        self.b.alu(AluOp::Xor, R2, R1);
        self.b.alu(AluOp::And, R2, R4);
        self.b.alu(AluOp::Xor, R1, R2);
        self.b.store(Size::H, META, at, R1);
    }

    /// What is done when one of the bits is in r4, which it keeps.
    fn when_kept(&mut self, bits: u16, keep: impl FnOnce(&mut Self)) {
        let not = self.b.label();
        self.b.mov(R1, R4);
        self.b.alu(AluOp::And, R1, i32::from(bits));
        self.b.jump_if(C::Eq, R1, 0, not);
        keep(self);
        self.b.bind(not);
    }

    /// Bytes of the first side's half become the old ones.
    fn keep_field(&mut self, at: i16, len: usize) {
        self.copy(META, at, ENTRY, at, len);
    }

    /// Counts a flow that was decided again, and jumps; falls through for a new one.
    pub(super) fn count_renewed(&mut self, created: Label, learn: bool) {
        let new = self.b.label();
        self.b.load(Size::B, R1, META, meta!(renew));
        self.b.jump_if(C::Eq, R1, 0, new);
        self.b.store(Size::B, META, meta!(renew), 0);
        if learn {
            let asked = self.b.label();
            self.b.alu(AluOp::And, R1, i32::from(MOVED));
            self.b.jump_if(C::Eq, R1, 0, asked);
            self.count_one(EniStat::FlowUpdated);
            self.b.jump(created);
            self.b.bind(asked);
        }
        self.count_one(EniStat::FlowUpdatedByResimulation);
        self.b.jump(created);
        self.b.bind(new);
    }

    /// Counts the flow that a dropped packet was to decide again: it is gone. The address of the
    /// counters is in r0, and stays.
    pub(super) fn count_undecided(&mut self) {
        let none = self.b.label();
        self.b.load(Size::B, R1, META, meta!(renew));
        self.b.jump_if(C::Eq, R1, 0, none);
        self.bump(EniStat::FlowDeleted.offset() as i16);
        self.b.bind(none);
    }
}
