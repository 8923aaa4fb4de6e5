//! Limits of ENIs: bytes that leave, flows that are opened.

use dash_wire::drop::DropReason;
use dash_wire::tables::{Direction, FlowEntry, Meta};
use nic_target::Verdict;

use super::{ABORT, Run, Step};
use crate::ir::Expr;
use crate::model::limits::Rate;
use crate::model::value::Value;

impl<'p> Run<'_, 'p> {
    pub(super) fn police(&mut self, len: &'p Expr, packets: bool) -> Step<'p> {
        let Meta { eni, direction, .. } = self.packet.meta;
        let len = self.eval(len).and_then(Value::num).ok_or(ABORT)?;
        let limits = self.tables.limits(eni).ok_or(ABORT)?;
        let wanted = match direction == Direction::Inbound as u8 {
            true => [(Rate::Inbound, len), (Rate::InboundPackets, 1)],
            false => [(Rate::Outbound, len), (Rate::OutboundPackets, 1)],
        };
        let wanted = &wanted[..1 + usize::from(packets)];
        match self.limits.take(eni, wanted, &limits, self.now_ns) {
            Ok(()) => Ok(()),
            Err(Rate::OutboundPackets | Rate::InboundPackets) => {
                self.drop_for(DropReason::PacketRate, Verdict::Drop)
            }
            Err(_) => self.drop_for(DropReason::BandwidthLimit, Verdict::Drop),
        }
    }

    pub(super) fn admit(&mut self) -> Step<'p> {
        let eni = self.packet.meta.eni;
        let limits = self.tables.limits(eni).ok_or(ABORT)?;
        let of_eni = |flow: &&FlowEntry| u32::from(flow.eni) == eni;
        let live = self.flows.entries().filter(of_eni).count();
        if limits.flows != 0 && live >= limits.flows as usize {
            return self.drop_for(DropReason::FlowLimit, Verdict::Drop);
        }
        match self
            .limits
            .take(eni, &[(Rate::Flows, 1)], &limits, self.now_ns)
        {
            Ok(()) => Ok(()),
            Err(_) => self.drop_for(DropReason::ConnectionRate, Verdict::Drop),
        }
    }
}
