//! `police` and `admit`: what an ENI may send, and how many flows it may make.
//!
//! A rate is kept by one time: when what was let through will have been paid for. What comes while
//! that is further ahead than the burst allows is dropped; what passes moves it on by its cost. Without a
//! limit the cost is 0, and anything passes.
//! Where two processors share it they may lose one of two packets' costs, as with a flow's counts.
//! A time further ahead than any packet could have left it was left under an older, slower limit: it is
//! forgotten.

use dash_bpf::builder::{Label, R0, R1, R2, R3, R4, R5};
use dash_bpf::op::{AluOp, Cond as C};
use dash_bpf::{Reg, Size};
use dash_wire::drop::DropReason;
use dash_wire::stats::EniStat;
use dash_wire::tables::{Direction, Meta, QosRow, QosState, qos};
use nic_target::Table;
use std::mem::offset_of;

use super::LowerError;
use super::stage::{META, StageLower};
use crate::ir::Expr;

/// The ENI's limits across calls.
const LIMITS: Reg = Reg::R8;
/// What bytes will have been paid at, while packets are asked for.
const BYTES_UNTIL: Reg = Reg::R9;

/// Where a rate is in the limits and in the state.
#[derive(Clone, Copy)]
struct Rate {
    cost: usize,
    burst: usize,
    state: usize,
}

const OUTBOUND: Rate = Rate {
    cost: offset_of!(QosRow, byte_cost),
    burst: offset_of!(QosRow, byte_burst_ns),
    state: offset_of!(QosState, outbound_ns),
};
const INBOUND: Rate = Rate {
    state: offset_of!(QosState, inbound_ns),
    ..OUTBOUND
};
/// As far behind the bytes of the same direction as the other direction's are.
const PACKETS: Rate = Rate {
    cost: offset_of!(QosRow, packet_cost),
    burst: offset_of!(QosRow, packet_burst_ns),
    state: offset_of!(QosState, outbound_packets_ns),
};
const TO_INBOUND: usize = INBOUND.state - OUTBOUND.state;
const _: () = assert!(PACKETS.state + TO_INBOUND == offset_of!(QosState, inbound_packets_ns));
const FLOWS: Rate = Rate {
    cost: offset_of!(QosRow, flow_cost),
    burst: offset_of!(QosRow, flow_burst_ns),
    state: offset_of!(QosState, flow_ns),
};

impl StageLower<'_> {
    /// r0 = the ENI's element of a table.
    fn of_eni(&mut self, table: Table) {
        let aborted = self.aborted();
        self.b.load(Size::W, R1, META, offset_of!(Meta, eni) as i16);
        self.lookup_element(table, R1);
        self.b.jump_if(C::Eq, R0, 0, aborted);
    }

    /// Takes r2 units from a rate of the state at r0, or goes to `over`.
    fn take(&mut self, rate: Rate, over: Label) {
        self.until(rate, over, true);
        self.b.store(Size::Dw, R0, rate.state as i16, R1);
    }

    /// r1 = when r2 units of a rate of the state at r0 will have been paid for, or goes to `over`. Units
    /// come up to 2^16 at once, which cost as many ns as one does parts; or one by one.
    fn until(&mut self, rate: Rate, over: Label, many: bool) {
        let (busy, fits) = (self.b.label(), self.b.label());
        self.b.load(Size::Dw, R1, LIMITS, rate.cost as i16);
        self.b.alu(AluOp::Mul, R2, R1);
        self.b.alu(AluOp::Rsh, R2, qos::COST_BITS as i32);
        self.b
            .load(Size::Dw, R3, META, offset_of!(Meta, now_ns) as i16);
        self.b.load(Size::Dw, R1, R0, rate.state as i16);
        self.b.jump_if(C::Ge, R1, R3, busy);
        self.b.mov(R1, R3);
        self.b.bind(busy);
        self.b.mov(R4, R1);
        self.b.alu(AluOp::Sub, R4, R3);
        self.b.load(Size::Dw, R5, LIMITS, rate.burst as i16);
        self.b.jump_if(C::Le, R4, R5, fits);
        if many {
            self.b.load(Size::Dw, R1, LIMITS, rate.cost as i16);
            self.b.alu(AluOp::Add, R5, R1);
        } else {
            self.b.alu(AluOp::Add, R5, R2);
        }
        self.b.jump_if(C::Le, R4, R5, over);
        self.b.mov(R1, R3);
        self.b.bind(fits);
        self.b.alu(AluOp::Add, R1, R2);
    }

    pub(super) fn police(&mut self, len: &Expr, packets: bool) -> Result<(), LowerError> {
        self.b.comment("police");
        match packets {
            true => self.police_both(len),
            false => self.police_bytes(len),
        }
    }

    fn police_bytes(&mut self, len: &Expr) -> Result<(), LowerError> {
        let (inbound, done) = (self.b.label(), self.b.label());
        let over = self.drop_label(DropReason::BandwidthLimit);
        self.of_eni(Table::Qos);
        self.b.mov(LIMITS, R0);
        self.b.load(Size::Dw, R1, LIMITS, OUTBOUND.cost as i16);
        self.b.jump_if(C::Eq, R1, 0, done);
        self.of_eni(Table::QosState);
        self.eval(len, R2)?;
        self.b
            .load(Size::B, R1, META, offset_of!(Meta, direction) as i16);
        let is_inbound = i32::from(Direction::Inbound as u8);
        self.b.jump_if(C::Eq, R1, is_inbound, inbound);
        self.take(OUTBOUND, over);
        self.b.jump(done);
        self.b.bind(inbound);
        self.take(INBOUND, over);
        self.b.bind(done);
        Ok(())
    }

    /// What is dropped for one of the two takes nothing of the other.
    fn police_both(&mut self, len: &Expr) -> Result<(), LowerError> {
        let (outbound, done) = (self.b.label(), self.b.label());
        let over = self.drop_label(DropReason::BandwidthLimit);
        let over_packets = self.drop_label(DropReason::PacketRate);
        self.of_eni(Table::Qos);
        self.b.mov(LIMITS, R0);
        self.b.load(Size::Dw, R1, LIMITS, OUTBOUND.cost as i16);
        self.b.load(Size::Dw, R2, LIMITS, PACKETS.cost as i16);
        self.b.alu(AluOp::Or, R1, R2);
        self.b.jump_if(C::Eq, R1, 0, done);
        self.of_eni(Table::QosState);
        self.eval(len, R2)?;
        self.b
            .load(Size::B, R1, META, offset_of!(Meta, direction) as i16);
        let is_inbound = i32::from(Direction::Inbound as u8);
        self.b.jump_if(C::Ne, R1, is_inbound, outbound);
        self.b.alu(AluOp::Add, R0, TO_INBOUND as i32);
        self.b.bind(outbound);
        self.until(OUTBOUND, over, true);
        self.b.mov(BYTES_UNTIL, R1);
        self.b.mov(R2, 1);
        self.until(PACKETS, over_packets, false);
        self.b.store(Size::Dw, R0, PACKETS.state as i16, R1);
        self.b
            .store(Size::Dw, R0, OUTBOUND.state as i16, BYTES_UNTIL);
        self.b.bind(done);
        Ok(())
    }

    pub(super) fn admit(&mut self) {
        self.b.comment("admit");
        let (rate, done) = (self.b.label(), self.b.label());
        let full = self.drop_label(DropReason::FlowLimit);
        let fast = self.drop_label(DropReason::ConnectionRate);
        self.of_eni(Table::Qos);
        self.b.mov(LIMITS, R0);
        self.b
            .load(Size::W, R1, LIMITS, offset_of!(QosRow, flows) as i16);
        self.b.jump_if(C::Eq, R1, 0, rate);
        // The flows there are: those that were made and did not end.
        self.of_eni(Table::QosState);
        self.b
            .load(Size::Dw, Reg::R9, R0, offset_of!(QosState, purged) as i16);
        self.counters();
        self.b
            .load(Size::Dw, R2, R0, EniStat::FlowCreated.offset() as i16);
        self.b.alu(AluOp::Sub, R2, Reg::R9);
        for ended in [EniStat::FlowDeleted, EniStat::FlowAged] {
            self.b.load(Size::Dw, R1, R0, ended.offset() as i16);
            self.b.alu(AluOp::Sub, R2, R1);
        }
        self.b
            .load(Size::W, R1, LIMITS, offset_of!(QosRow, flows) as i16);
        self.b.jump_if(C::Ge, R2, R1, full);
        self.b.bind(rate);
        self.b.load(Size::Dw, R1, LIMITS, FLOWS.cost as i16);
        self.b.jump_if(C::Eq, R1, 0, done);
        self.of_eni(Table::QosState);
        self.b.mov(R2, 1);
        self.take(FLOWS, fast);
        self.b.bind(done);
    }
}
