//! Flow statements over three standard maps: an index of both keys, a slab of connections, and a
//! stack of free slots; a fourth, a queue, tells the ager which deadlines came nearer.

use dash_bpf::builder::{Label, R0, R1, R2, R3, R4};
use dash_bpf::helper;
use dash_bpf::op::{AluOp, Cond as C};
use dash_bpf::{Reg, Size};
use dash_wire::drop::DropReason;
use dash_wire::stats::EniStat;
use dash_wire::tables::{
    FlowActions, FlowEntry, FlowHalf, FlowKey, Globals, MOVED, Meta, flow_action, flow_mark,
    flow_state,
};
use nic_target::Table;
use std::mem::{offset_of, size_of};

use super::LowerError;
use super::stage::{META, StageLower};
use crate::entropy::MULTIPLIER;
use crate::ir::{Expr, FlowSide, Timeouts};

pub(super) const FP: Reg = Reg::R10;
/// Slot number across calls.
pub(super) const SLOT: Reg = Reg::R8;
/// The connection's entry across calls.
pub(super) const ENTRY: Reg = Reg::R9;

pub(super) const TCP: i32 = 6;
const FIN: i32 = 0x01;
const SYN: i32 = 0x02;
pub(super) const RST: i32 = 0x04;
const ACK: i32 = 0x10;

const UDP: i32 = 17;
const ICMP: i32 = 1;
const ICMPV6: i32 = 58;

const BPF_NOEXIST: i32 = 1;

macro_rules! meta {
    ($field:ident) => {
        offset_of!(Meta, $field) as i16
    };
}
macro_rules! entry {
    ($field:ident) => {
        offset_of!(FlowEntry, $field) as i16
    };
}

/// Offset of a side in an entry.
pub(super) fn side_at(side: u8) -> i16 {
    (offset_of!(FlowEntry, sides) + usize::from(side) * size_of::<FlowHalf>()) as i16
}

pub(super) use {entry, meta};

/// Why a flow may be decided again.
#[derive(Clone, Copy)]
pub(super) struct Old {
    /// Its ENI's epoch moved.
    pub(super) epoch: bool,
    /// Its packets come from elsewhere.
    pub(super) learn: bool,
}

impl StageLower<'_> {
    /// Falls through on a hit with `actions` loaded; jumps to `miss` else.
    /// With `pair`, also what its actions need of the other side; with `meter`, the metering class; with
    /// `marks`, flows may be marked. A packet that decides a flow again is a miss.
    pub(super) fn flow_lookup(
        &mut self,
        (pair, meter): (bool, bool),
        marks: bool,
        Old { epoch, learn }: Old,
        miss: Label,
    ) {
        self.b.comment("flow lookup");
        self.find(miss);
        let (side1, found, reset, hit) = (
            self.b.label(),
            self.b.label(),
            self.b.label(),
            self.b.label(),
        );
        self.b.mov(R1, SLOT);
        self.b.alu(AluOp::And, R1, 1);
        self.b.alu(AluOp::Rsh, SLOT, 1);
        self.b.jump_if(C::Ne, R1, 0, side1);
        self.hit_side(0, pair, reset);
        let (stale, moved) = (self.b.label(), self.b.label());
        if learn {
            self.came_from_elsewhere(moved);
        }
        if epoch {
            self.old_epoch(stale);
        }
        self.b.jump(found);
        self.b.bind(side1);
        self.hit_side(1, pair, reset);
        self.b.bind(found);
        if meter {
            self.take_class();
        }

        // TCP: FIN from both sides closes, RST ends.
        self.b.load(
            Size::B,
            R1,
            META,
            (offset_of!(Meta, key) + offset_of!(FlowKey, proto)) as i16,
        );
        self.b.jump_if(C::Ne, R1, TCP, hit);
        let no_rst = self.b.label();
        self.b.load(Size::B, R1, META, meta!(tcp_flags));
        self.b.alu(AluOp::And, R1, RST);
        self.b.jump_if(C::Eq, R1, 0, no_rst);
        self.delete_pair(marks);
        self.b.jump(hit);
        self.b.bind(no_rst);
        self.close(hit);
        self.b.jump(hit);

        // A new connection on a live tuple: forget the old one and decide again.
        self.b.bind(reset);
        self.delete_pair(marks);
        self.b.jump(miss);
        if learn {
            self.b.bind(moved);
            self.decide_moved(found, miss);
        }
        if epoch {
            self.b.bind(stale);
            self.decide_again(found, miss);
        }
        self.b.bind(hit);
    }

    /// As [`flow_lookup`](Self::flow_lookup), and the connection stays as it is.
    pub(super) fn flow_peek(&mut self, (pair, meter): (bool, bool), miss: Label) {
        self.b.comment("flow lookup, only to see");
        self.find(miss);
        if meter {
            self.take_class();
        }
        let (side1, hit) = (self.b.label(), self.b.label());
        self.b.alu(AluOp::And, SLOT, 1);
        self.b.jump_if(C::Ne, SLOT, 0, side1);
        for side in 0..2 {
            if side == 1 {
                self.b.bind(side1);
            }
            self.take_actions(side);
            if pair {
                self.take_other(side);
            }
            if side == 0 {
                self.b.jump(hit);
            }
        }
        self.b.bind(hit);
    }

    /// Starts a connection's end when both sides have sent FIN; else, and when it had, jumps.
    pub(super) fn close(&mut self, otherwise: Label) {
        self.b.load(Size::B, R1, ENTRY, entry!(fin));
        self.b.jump_if(C::Ne, R1, 3, otherwise);
        self.b.load(Size::B, R1, ENTRY, entry!(state));
        self.b
            .jump_if(C::Eq, R1, i32::from(flow_state::CLOSING), otherwise);
        self.b.store(
            Size::B,
            ENTRY,
            entry!(state),
            i32::from(flow_state::CLOSING),
        );
        self.store_timeout(self.timeouts.closing);
        self.push(Table::FlowEvents);
    }

    /// SLOT = the index's row of `key` (`slot << 1 | side`), ENTRY = the connection.
    pub(super) fn find(&mut self, miss: Label) {
        // A key may be given where it is: in a row.
        let key = (META, meta!(key));
        self.call_with_key(Table::FlowIndex, key, helper::MAP_LOOKUP_ELEM);
        self.b.jump_if(C::Eq, R0, 0, miss);
        self.b.load(Size::W, SLOT, R0, 0);
        self.b.mov(R1, SLOT);
        self.b.alu(AluOp::Rsh, R1, 1);
        self.lookup_element(Table::FlowSlab, R1);
        self.b.jump_if(C::Eq, R0, 0, miss);
        self.b.mov(ENTRY, R0);
    }

    /// As [`flow_lookup`](Self::flow_lookup) where the table is another processor's: the entry is
    /// refreshed, and whatever would change a connection's state is a miss, before anything is
    /// written. Only `last_seen_ns`, `packets` and `bytes` are. With `pair`, a decision that needs the
    /// other side is a miss too: two sides cannot be read at once while their owner may write.
    pub(super) fn flow_touch(
        &mut self,
        (pair, meter): (bool, bool),
        Old { epoch, learn }: Old,
        miss: Label,
    ) {
        self.b.comment("flow lookup, shared");
        let (not_tcp, side1, hit) = (self.b.label(), self.b.label(), self.b.label());
        self.b.load(
            Size::B,
            R1,
            META,
            (offset_of!(Meta, key) + offset_of!(FlowKey, proto)) as i16,
        );
        self.b.jump_if(C::Ne, R1, TCP, not_tcp);
        self.b.load(Size::B, R1, META, meta!(tcp_flags));
        self.b.alu(AluOp::And, R1, SYN | FIN | RST);
        self.b.jump_if(C::Ne, R1, 0, miss);
        self.b.bind(not_tcp);
        self.find(miss);
        self.b.alu(AluOp::And, SLOT, 1);
        self.b.jump_if(C::Ne, SLOT, 0, side1);
        if learn {
            self.came_from_elsewhere(miss);
        }
        if epoch {
            // Its owner decides it again, or says that it may not be.
            self.old_epoch(miss);
        }
        self.touch_side(0, (pair, meter), miss);
        self.b.jump(hit);
        self.b.bind(side1);
        // The other side's first packet opens a TCP connection (no other is ever half open).
        self.b.load(Size::B, R1, ENTRY, entry!(state));
        self.b
            .jump_if(C::Eq, R1, i32::from(flow_state::HALF_OPEN), miss);
        self.touch_side(1, (pair, meter), miss);
        self.b.bind(hit);
    }

    /// Takes the decision of one side and refreshes the entry.
    ///
    /// The slot may become another connection's at any time. Its owner writes each key before its
    /// decision, so a decision that was read before the key still held is that key's. (This
    /// counts on stores and loads that stay in order, as on x86-64.)
    fn touch_side(&mut self, side: u8, (pair, meter): (bool, bool), miss: Label) {
        self.take_actions(side);
        if meter {
            self.take_class();
        }
        if pair {
            self.needs_pair();
            self.b.jump_if(C::Ne, R1, 0, miss);
        }
        let key = side_at(side) + offset_of!(FlowHalf, key) as i16;
        for word in (0..size_of::<FlowKey>() as i16).step_by(8) {
            self.b.load(Size::Dw, R1, META, meta!(key) + word);
            self.b.load(Size::Dw, R2, ENTRY, key + word);
            self.b.jump_if(C::Ne, R1, R2, miss);
        }
        self.refresh(side.into());
    }

    /// The decision of one side becomes the packet's.
    pub(super) fn take_actions(&mut self, side: u8) {
        let from = side_at(side) + offset_of!(FlowHalf, actions) as i16;
        let len = size_of::<FlowActions>();
        self.copy(META, meta!(actions), ENTRY, from, len);
    }

    /// The connection's metering class becomes the packet's.
    fn take_class(&mut self) {
        self.b.load(Size::W, R1, ENTRY, entry!(meter_class));
        self.b.store(Size::W, META, meta!(meter_class), R1);
    }

    /// r1 = what of the actions needs the other side.
    fn needs_pair(&mut self) {
        let actions = meta!(actions) + offset_of!(FlowActions, actions) as i16;
        self.b.load(Size::H, R1, META, actions);
        self.b
            .alu(AluOp::And, R1, i32::from(flow_action::NEEDS_PAIR));
    }

    /// Takes what a side's actions need of the other ([`FlowActions::kept_u1`]).
    fn take_other(&mut self, side: u8) {
        let enough = self.b.label();
        self.needs_pair();
        self.b.jump_if(C::Eq, R1, 0, enough);
        let other = side_at(1 - side);
        let key = other + offset_of!(FlowHalf, key) as i16;
        self.copy(META, meta!(rkey), ENTRY, key, size_of::<FlowKey>());
        self.take_u1(other);
        self.b.bind(enough);
    }

    /// [`FlowActions::kept_u1`] of the half at `other`.
    pub(super) fn take_u1(&mut self, other: i16) {
        let actions = other + offset_of!(FlowHalf, actions) as i16;
        let dmac = actions + offset_of!(FlowActions, dmac) as i16;
        self.copy(META, meta!(u1_dip), ENTRY, dmac, 4);
        self.b.load(Size::H, R1, ENTRY, dmac + 4);
        let high = actions + offset_of!(FlowActions, u1) as i16;
        self.b.load(Size::B, R2, ENTRY, high);
        self.b.alu(AluOp::Lsh, R2, 16);
        self.b.alu(AluOp::Or, R1, R2);
        self.b.store(Size::W, META, meta!(u1_vni), R1);
    }

    /// [`FlowActions::keep_u1`] where the actions have a second encap.
    pub(super) fn keep_u1(&mut self) {
        let none = self.b.label();
        let actions = meta!(actions) + offset_of!(FlowActions, actions) as i16;
        self.b.load(Size::H, R1, META, actions);
        self.b.alu(AluOp::And, R1, i32::from(flow_action::ENCAP_U1));
        self.b.jump_if(C::Eq, R1, 0, none);
        let dmac = meta!(ractions) + offset_of!(FlowActions, dmac) as i16;
        self.copy(META, dmac, META, meta!(u1_dip), 4);
        self.b.load(Size::W, R1, META, meta!(u1_vni));
        self.b.store(Size::H, META, dmac + 4, R1);
        self.b.alu(AluOp::Rsh, R1, 16);
        let high = meta!(ractions) + offset_of!(FlowActions, u1) as i16;
        self.b.store(Size::B, META, high, R1);
        self.b.bind(none);
    }

    /// Counts a packet of one side.
    fn refresh(&mut self, side: i16) {
        self.b.load(Size::Dw, R1, META, meta!(now_ns));
        self.b.store(Size::Dw, ENTRY, entry!(last_seen_ns), R1);
        self.b.load(Size::Dw, R1, ENTRY, entry!(packets) + side * 8);
        self.b.alu(AluOp::Add, R1, 1);
        self.b
            .store(Size::Dw, ENTRY, entry!(packets) + side * 8, R1);
        self.b.load(Size::H, R2, META, meta!(inner_len));
        self.b.load(Size::Dw, R1, ENTRY, entry!(bytes) + side * 8);
        self.b.alu(AluOp::Add, R1, R2);
        self.b.store(Size::Dw, ENTRY, entry!(bytes) + side * 8, R1);
    }

    /// What a packet of one side does to its entry.
    fn hit_side(&mut self, side: u8, pair: bool, reset: Label) {
        let (not_tcp, counted) = (self.b.label(), self.b.label());
        let half = i16::from(side);
        self.b.load(
            Size::B,
            R1,
            META,
            (offset_of!(Meta, key) + offset_of!(FlowKey, proto)) as i16,
        );
        self.b.jump_if(C::Ne, R1, TCP, not_tcp);
        self.b.load(Size::B, R4, META, meta!(tcp_flags));
        self.b.mov(R1, R4);
        self.b.alu(AluOp::And, R1, SYN | ACK);
        let not_syn = self.b.label();
        self.b.jump_if(C::Ne, R1, SYN, not_syn);
        if side == 0 {
            // A retransmitted SYN of a connection still opening is not a new connection.
            self.b.load(Size::B, R1, ENTRY, entry!(state));
            self.b
                .jump_if(C::Ne, R1, i32::from(flow_state::HALF_OPEN), reset);
        } else {
            self.b.jump(reset);
        }
        self.b.bind(not_syn);
        if side == 1 {
            let open = self.b.label();
            self.b.load(Size::B, R1, ENTRY, entry!(state));
            self.b
                .jump_if(C::Ne, R1, i32::from(flow_state::HALF_OPEN), open);
            self.b.store(
                Size::B,
                ENTRY,
                entry!(state),
                i32::from(flow_state::ESTABLISHED),
            );
            self.store_timeout(self.timeouts.tcp);
            self.b.bind(open);
        }
        self.b.alu(AluOp::And, R4, FIN);
        self.b.jump_if(C::Eq, R4, 0, counted);
        self.b.load(Size::B, R1, ENTRY, entry!(fin));
        self.b.alu(AluOp::Or, R1, 1 << side);
        self.b.store(Size::B, ENTRY, entry!(fin), R1);
        self.b.bind(not_tcp);
        self.b.bind(counted);
        self.take_actions(side);
        if pair {
            self.take_other(side);
        }
        self.refresh(half);
    }

    /// Takes both keys of ENTRY out of the index and frees SLOT.
    fn delete_pair(&mut self, marks: bool) {
        if marks {
            let unmarked = self.b.label();
            self.b.load(Size::B, R1, ENTRY, entry!(marks));
            self.b.alu(AluOp::And, R1, i32::from(flow_mark::REDIRECTED));
            self.b.jump_if(C::Eq, R1, 0, unmarked);
            self.uncount_one(EniStat::LbFastPathActiveFlow);
            self.b.bind(unmarked);
        }
        self.take_out();
        self.count_one(EniStat::FlowDeleted);
    }

    /// As [`delete_pair`](Self::delete_pair), uncounted.
    pub(super) fn take_out(&mut self) {
        for side in 0..2 {
            let key = side_at(side) + offset_of!(FlowHalf, key) as i16;
            self.call_with_key(Table::FlowIndex, (ENTRY, key), helper::MAP_DELETE_ELEM);
        }
        self.free_slot();
    }

    fn free_slot(&mut self) {
        self.b
            .store(Size::B, ENTRY, entry!(state), i32::from(flow_state::FREE));
        self.push(Table::FlowFree);
    }

    /// Pushes SLOT to a queue or stack; a full one loses it, which only the ager's sweep notices.
    pub(super) fn push(&mut self, table: Table) {
        self.b.store(Size::W, FP, self.value_slot, SLOT);
        self.b.mov(R3, 0);
        self.call_with_key(table, (FP, self.value_slot), helper::MAP_PUSH_ELEM);
    }

    pub(super) fn flow_create(&mut self, pair: bool, marks: bool, Old { epoch, learn }: Old) {
        self.b.comment("flow create");
        if pair && !epoch {
            self.keep_u1();
        }
        let full = self.drop_label(DropReason::FlowTableFull);
        let internal = self.drop_label(DropReason::Internal);
        let (undo, undo_first, created) = (self.b.label(), self.b.label(), self.b.label());
        self.b.store(Size::W, FP, self.value_slot, 0);
        let value = (FP, self.value_slot);
        self.call_with_key(Table::FlowFree, value, helper::MAP_POP_ELEM);
        self.b.jump_if(C::Ne, R0, 0, full);
        self.b.load(Size::W, SLOT, FP, self.value_slot);
        self.lookup_element(Table::FlowSlab, SLOT);
        self.b.jump_if(C::Eq, R0, 0, internal);
        self.b.mov(ENTRY, R0);
        if epoch {
            self.keep_old(pair, learn);
            if pair {
                self.keep_u1();
            }
        }

        // The sides lie in the metadata as in the entry, so one copy moves them. It comes before the
        // keys go into the index, which may read them here instead of keeping them.
        const { assert!(offset_of!(Meta, key) == 0 && offset_of!(FlowEntry, sides) == 0) };
        const { assert!(offset_of!(Meta, actions) == offset_of!(FlowHalf, actions)) };
        const { assert!(offset_of!(Meta, rkey) == size_of::<FlowHalf>()) };
        const {
            let back = offset_of!(Meta, ractions) - offset_of!(Meta, rkey);
            assert!(back == offset_of!(FlowHalf, actions));
        };
        self.copy(ENTRY, 0, META, 0, 2 * size_of::<FlowHalf>());
        self.b.load(Size::W, R1, META, meta!(meter_class));
        self.b.store(Size::W, ENTRY, entry!(meter_class), R1);
        let (tcp, keyed, renewed) = (self.b.label(), self.b.label(), self.b.label());
        if epoch {
            self.b.load(Size::B, R1, META, meta!(epoch));
            self.b.store(Size::B, ENTRY, entry!(epoch), R1);
            self.b.load(Size::B, R1, META, meta!(renew));
            self.b.jump_if(C::Ne, R1, 0, renewed);
        }
        self.b.load(Size::Dw, R1, META, meta!(now_ns));
        self.b.store(Size::Dw, ENTRY, entry!(created_ns), R1);
        self.b.store(Size::Dw, ENTRY, entry!(last_seen_ns), R1);
        self.b.store(Size::Dw, ENTRY, entry!(packets), 1);
        self.b.store(Size::Dw, ENTRY, entry!(packets) + 8, 0);
        self.b.load(Size::H, R1, META, meta!(inner_len));
        self.b.store(Size::Dw, ENTRY, entry!(bytes), R1);
        self.b.store(Size::Dw, ENTRY, entry!(bytes) + 8, 0);
        self.b.load(Size::W, R1, META, meta!(eni));
        self.b.store(Size::H, ENTRY, entry!(eni), R1);
        self.b.load(Size::B, R1, META, meta!(direction));
        self.b.store(Size::B, ENTRY, entry!(direction), R1);
        if marks {
            self.b.store(Size::B, ENTRY, entry!(marks), 0);
        }
        self.b.load(
            Size::B,
            R1,
            META,
            (offset_of!(Meta, key) + offset_of!(FlowKey, proto)) as i16,
        );
        self.b.jump_if(C::Eq, R1, TCP, tcp);
        self.b.store(Size::B, ENTRY, entry!(fin), 0);
        self.b.store(
            Size::B,
            ENTRY,
            entry!(state),
            i32::from(flow_state::ESTABLISHED),
        );
        self.idle_timeout();
        self.b.jump(keyed);
        self.b.bind(tcp);
        self.b.load(Size::B, R1, META, meta!(tcp_flags));
        self.b.alu(AluOp::And, R1, FIN);
        self.b.store(Size::B, ENTRY, entry!(fin), R1);
        self.b.store(
            Size::B,
            ENTRY,
            entry!(state),
            i32::from(flow_state::HALF_OPEN),
        );
        self.store_timeout(self.timeouts.half_open);
        if epoch {
            self.b.jump(keyed);
            // Its history goes on.
            self.b.bind(renewed);
            if learn {
                self.b.alu(AluOp::And, R1, !i32::from(MOVED));
            }
            self.b.store(Size::B, ENTRY, entry!(state), R1);
        }
        self.b.bind(keyed);

        self.index(meta!(key), 0);
        self.b.jump_if(C::Ne, R0, 0, undo);
        self.index(meta!(rkey), 1);
        self.b.jump_if(C::Ne, R0, 0, undo_first);
        self.push(Table::FlowEvents);
        if epoch {
            self.count_renewed(created, learn);
        }
        self.count_one(EniStat::FlowCreated);
        self.b.jump(created);

        self.b.bind(undo_first);
        let key = (META, meta!(key));
        self.call_with_key(Table::FlowIndex, key, helper::MAP_DELETE_ELEM);
        self.b.bind(undo);
        self.free_slot();
        self.b.jump(full);
        self.b.bind(created);
    }

    fn store_timeout(&mut self, ms: u32) {
        self.b.store(Size::W, ENTRY, entry!(timeout_ms), ms as i32);
    }

    /// Sets the timeout of what is not TCP, whose protocol is in r1.
    fn idle_timeout(&mut self) {
        let Timeouts {
            udp, icmp, other, ..
        } = self.timeouts;
        if udp == icmp && icmp == other {
            self.store_timeout(other);
            return;
        }
        let done = self.b.label();
        for (proto, ms) in [(UDP, udp), (ICMP, icmp), (ICMPV6, icmp)] {
            let next = self.b.label();
            self.b.jump_if(C::Ne, R1, proto, next);
            self.store_timeout(ms);
            self.b.jump(done);
            self.b.bind(next);
        }
        self.store_timeout(other);
        self.b.bind(done);
    }

    /// r0 = outcome of adding the key at a metadata offset as `side` of SLOT.
    fn index(&mut self, key: i16, side: i32) {
        self.b.mov(R1, SLOT);
        self.b.alu(AluOp::Lsh, R1, 1);
        self.b.alu(AluOp::Or, R1, side);
        self.b.store(Size::W, FP, self.value_slot, R1);
        self.address(R3, FP, self.value_slot);
        self.b.mov(R4, BPF_NOEXIST);
        self.call_with_key(Table::FlowIndex, (META, key), helper::MAP_UPDATE_ELEM);
    }

    /// [`crate::entropy::hash`] in eBPF.
    pub(super) fn entropy(&mut self, field: &str, side: FlowSide) -> Result<(), LowerError> {
        let aborted = self.drop_label(DropReason::Internal);
        self.lookup_array(Table::Globals, 0);
        self.b.jump_if(C::Eq, R0, 0, aborted);
        self.spread(match side {
            FlowSide::Key => meta!(key),
            FlowSide::Rkey => meta!(rkey),
        });
        let place = self.field(field)?;
        self.b.store(Size::H, place.base, place.off, R2);
        Ok(())
    }

    /// r2 = the outer source port of the key at a metadata offset, network order; r0 = `globals`. Uses
    /// r1 and r4.
    pub(super) fn spread(&mut self, base: i16) {
        self.hash(base);
        self.b
            .load(Size::H, R1, R0, offset_of!(Globals, sport_mask) as i16);
        self.b.alu(AluOp::And, R2, R1);
        self.b
            .load(Size::H, R1, R0, offset_of!(Globals, sport_base) as i16);
        self.b.alu(AluOp::Add, R2, R1);
        self.b.be16(R2);
    }

    /// r2 = the mixed words of the key at a metadata offset. Uses r1 and r4.
    fn hash(&mut self, base: i16) {
        self.b.load_imm64(R4, MULTIPLIER);
        self.b.mov(R2, 0);
        for word in 0..5 {
            self.b.load(Size::Dw, R1, META, base + word * 8);
            self.b.alu(AluOp::Xor, R2, R1);
            self.b.alu(AluOp::Mul, R2, R4);
            self.b.mov(R1, R2);
            self.b.alu(AluOp::Rsh, R1, 32);
            self.b.alu(AluOp::Xor, R2, R1);
        }
    }

    /// [`crate::entropy::choose`] in eBPF.
    pub(super) fn choose(&mut self, field: &str, of: &Expr) -> Result<(), LowerError> {
        self.hash(meta!(key));
        self.b.alu(AluOp::Rsh, R2, 32);
        self.eval(of, R3)?;
        self.b.alu(AluOp::Mul, R2, R3);
        self.b.alu(AluOp::Rsh, R2, 32);
        let place = self.field(field)?;
        self.b.store(Size::W, place.base, place.off, R2);
        Ok(())
    }
}
