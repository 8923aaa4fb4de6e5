//! Redirects of load balancers (fast path).

use std::net::Ipv4Addr;

use dash_wire::drop::DropReason;
use dash_wire::stats::EniStat;
use dash_wire::tables::{
    Direction, FlowActions, FlowHalf, FlowKey, flow_action, flow_flags, redirect as kinds,
};
use nic_target::Verdict;

use super::{ABORT, Run, Step, encapsulates};
use crate::entropy;
use crate::model::packet::{self, TCP};
use crate::model::redirect;
use crate::model::value::Mac;

impl<'p> Run<'_, 'p> {
    pub(super) fn spot_redirect(&mut self) -> Step<'p> {
        let vxlan = self.packet.vxlan.ok_or(ABORT)?;
        let inner = self.frame.get(vxlan.encap_len..).ok_or(ABORT)?;
        let kind = match vxlan.nvgre {
            true => redirect::spot(vxlan.vni, inner),
            false => kinds::NONE,
        };
        self.packet.meta.redirect = kind;
        if kind != kinds::NONE {
            self.note(|_| "spot redirect: a load balancer's".to_owned());
        }
        Ok(())
    }

    pub(super) fn parse_redirect(&mut self) -> Step<'p> {
        let meta = &mut self.packet.meta;
        let Some((quoted, info)) = redirect::parse(meta.redirect, &self.frame) else {
            meta.redirect = kinds::MALFORMED;
            self.note(|_| "parse redirect: malformed".to_owned());
            return Ok(());
        };
        let v6 = if quoted.v6 { flow_flags::V6 } else { 0 };
        meta.key = FlowKey {
            sip: quoted.dip,
            dip: quoted.sip,
            sport: quoted.dport,
            dport: quoted.sport,
            eni: meta.eni as u16,
            proto: quoted.proto,
            flags: v6 | (Direction::Inbound as u8) << flow_flags::DIRECTION_SHIFT,
        };
        self.packet.info = info;
        self.note(|_| {
            format!(
                "parse redirect: of {} port {} -> {} port {}, protocol {}",
                packet::address(quoted.v6, quoted.sip),
                u16::from_be_bytes(quoted.sport),
                packet::address(quoted.v6, quoted.dip),
                u16::from_be_bytes(quoted.dport),
                quoted.proto
            )
        });
        Ok(())
    }

    pub(super) fn flow_redirect(&mut self) -> Step<'p> {
        let (kind, key) = (self.packet.meta.redirect, self.packet.meta.key);
        let way = redirect::way(kind, &self.packet.info).filter(|_| kind != kinds::MALFORMED);
        let Some(way) = way else {
            return self.drop_for(DropReason::FastPathMalformed, Verdict::Drop);
        };
        let globals = self.tables.globals();
        let change = |sent: &FlowHalf, back: &FlowActions| {
            let mut new = sent.actions;
            if back.actions & flow_action::ENCAP_U1 != 0 {
                return None;
            }
            if kind == kinds::VIP {
                if !encapsulates(&new) {
                    let spread = entropy::hash(&sent.key) & globals.sport_mask;
                    new.u0_sip = globals.vip;
                    new.sport = globals.sport_base.wrapping_add(spread).to_be_bytes();
                }
                new.actions |= flow_action::ENCAP_U0;
                new.u0_encap = way.encap;
                new.u0_vni = way.id;
            } else if !encapsulates(&new) {
                return None;
            }
            if kind == kinds::V6 && new.actions & flow_action::ENCAP_U1 != 0 {
                new.actions &= !flow_action::ENCAP_U1;
                new.u1 = 0;
            }
            new.actions |= flow_action::SET_DMAC;
            new.u0_dip = way.dip;
            new.dmac = way.dmac;
            Some(new)
        };
        let done = (key.proto == TCP)
            .then(|| self.flows.redirect(&key, change))
            .flatten();
        let Some((new, first)) = done else {
            return self.drop_for(DropReason::FastPathFlowMiss, Verdict::Drop);
        };
        if new {
            self.count(EniStat::FlowUpdated, 1)?;
        }
        if first {
            self.count(EniStat::LbFastPathActiveFlow, 1)?;
        }
        self.note(|_| {
            let what = if new { "goes" } else { "went already" };
            format!(
                "flow redirect: the flow {what} to {}, inner destination {}",
                Ipv4Addr::from(way.dip),
                Mac(way.dmac)
            )
        });
        Ok(())
    }
}
