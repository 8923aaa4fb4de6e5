//! The packet as it leaves.

use dash_wire::drop::DropReason;
use dash_wire::stats::EniStat;
use dash_wire::tables::{Direction, FlowKey, UnderlayRow, encap, flow_action, underlay_flags};
use nic_target::Verdict;

use super::words::{ActionsText, Second};
use super::{ABORT, Run, Step, Stop, encapsulates};
use crate::model::packet::{Encap, combine_ecn};
use crate::model::translate::{Ends, to_ipv4, to_ipv6, translatable};
use crate::model::value::{Ip, Mac, Row};

impl<'p> Run<'_, 'p> {
    pub(super) fn translatable(&mut self) -> Step<'p> {
        match translatable(&self.frame, self.packet.meta.key.proto) {
            Err(reason) => self.drop_for(reason, Verdict::Drop),
            Ok(()) => Ok(()),
        }
    }

    pub(super) fn translate(&mut self) -> Step<'p> {
        let meta = &mut self.packet.meta;
        let to = match meta.actions.actions {
            a if a & flow_action::NAT46 != 0 => to_ipv6,
            a if a & flow_action::NAT64 != 0 => to_ipv4,
            _ => return Ok(()),
        };
        let FlowKey {
            sip,
            dip,
            sport,
            dport,
            ..
        } = meta.rkey;
        let ends = Ends {
            sip: dip,
            dip: sip,
            sport: dport,
            dport: sport,
        };
        let frame = self.frame.get(..usize::from(meta.inner_len)).ok_or(ABORT)?;
        match to(frame, &ends) {
            Err(reason) => self.drop_for(reason, Verdict::Drop),
            Ok(frame) => {
                meta.inner_len = frame.len() as u16;
                self.frame = frame;
                self.note(|_| {
                    format!(
                        "translate: {} port {} -> {} port {}",
                        Ip(ends.sip),
                        u16::from_be_bytes(ends.sport),
                        Ip(ends.dip),
                        u16::from_be_bytes(ends.dport)
                    )
                });
                Ok(())
            }
        }
    }

    pub(super) fn apply(&mut self, nvgre: bool, u1: bool, smac: bool) -> Step<'p> {
        let actions = self.packet.meta.actions;
        if let Some(coverage) = &mut self.coverage {
            coverage.applied(actions.actions);
        }
        let (inner_len, outer_tos) = (self.packet.meta.inner_len, self.packet.meta.outer_tos);
        self.frame.truncate(usize::from(inner_len));
        let ecn = combine_ecn(&mut self.frame, outer_tos).ok_or(ABORT)?;
        if actions.actions & flow_action::SET_DMAC != 0 {
            *self.frame.first_chunk_mut().ok_or(ABORT)? = actions.dmac;
        }
        if smac && actions.actions & flow_action::SET_SMAC != 0 {
            let macs: &mut [u8; 12] = self.frame.first_chunk_mut().ok_or(ABORT)?;
            macs[6..].copy_from_slice(&self.packet.meta.inner_dmac);
        }
        if encapsulates(&actions) {
            if actions.u0_encap != encap::VXLAN && !(nvgre && actions.u0_encap == encap::NVGRE) {
                return self.drop_for(DropReason::Internal, Verdict::Drop);
            }
            let globals = self.tables.globals();
            let first = Encap {
                nvgre: nvgre && actions.u0_encap == encap::NVGRE,
                dmac: self.packet.meta.outer_smac,
                smac: self.packet.meta.outer_dmac,
                tos: outer_tos & 0xfc | ecn,
                ttl: globals.encap_ttl,
                sip: actions.u0_sip,
                dip: actions.u0_dip,
                sport: actions.sport,
                dport: globals.vxlan_port,
                vni: actions.u0_vni,
            };
            self.encap(&first);
            if u1 && actions.actions & flow_action::ENCAP_U1 != 0 {
                self.encap(&Encap {
                    nvgre: nvgre && actions.u1 == encap::NVGRE,
                    sip: globals.vip,
                    dip: self.packet.meta.u1_dip,
                    vni: self.packet.meta.u1_vni,
                    ..first
                });
            }
        }
        let bytes = self.frame.len() as u64;
        self.count(EniStat::TxPackets, 1)?;
        self.count(EniStat::TxBytes, bytes)?;
        let (packets, octets) = if self.packet.meta.direction == Direction::Outbound as u8 {
            (EniStat::OutboundTxPackets, EniStat::OutboundTxBytes)
        } else {
            (EniStat::InboundTxPackets, EniStat::InboundTxBytes)
        };
        self.count(packets, 1)?;
        self.count(octets, bytes)?;
        self.note(|run| {
            let meta = &run.packet.meta;
            let second = (u1 && actions.actions & flow_action::ENCAP_U1 != 0).then(|| Second {
                encap: actions.u1,
                sip: run.tables.globals().vip,
                dip: meta.u1_dip,
                vni: meta.u1_vni,
            });
            format!("apply: {}{bytes} bytes", ActionsText(&actions, second))
        });
        Ok(())
    }

    fn encap(&mut self, encap: &Encap) {
        let mut frame = encap.headers(self.frame.len() as u16);
        frame.append(&mut self.frame);
        self.frame = frame;
    }

    pub(super) fn send(&mut self, port: u16) -> Step<'p> {
        self.note(|_| format!("send: port {port}"));
        Err(Stop::Verdict(Verdict::Send(port)))
    }

    pub(super) fn forward(&mut self, row: &str) -> Step<'p> {
        let Some(Row::Underlay(UnderlayRow {
            port,
            flags,
            dmac,
            smac,
            ..
        })) = self.row(row).copied()
        else {
            return Err(ABORT);
        };
        if flags & underlay_flags::RESOLVED == 0 {
            return self.drop_for(DropReason::NeighborMiss, Verdict::Pass);
        }
        if encapsulates(&self.packet.meta.actions) {
            let macs: &mut [u8; 12] = self.frame.first_chunk_mut().ok_or(ABORT)?;
            macs[..6].copy_from_slice(&dmac);
            macs[6..].copy_from_slice(&smac);
            self.note(|_| format!("forward: {} -> {}", Mac(smac), Mac(dmac)));
        }
        self.send(u16::try_from(port).map_err(|_| ABORT)?)
    }
}
