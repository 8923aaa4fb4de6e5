//! Headers: what is read off the packet.

use std::net::Ipv4Addr;

use dash_wire::drop::DropReason;
use dash_wire::tables::{encap, flow_flags};
use nic_target::Verdict;

use super::words::{InnerText, direction_name};
use super::{ABORT, Run, Step, Stop};
use crate::ir::Expr;
use crate::model::packet::{
    Ethernet, TCP, UDP, Underlay, parse_inner, parse_nvgre, parse_underlay, parse_vxlan, udp_source,
};
use crate::model::value::{Mac, Value};

impl<'p> Run<'_, 'p> {
    pub(super) fn parse_underlay(&mut self) -> Step<'p> {
        let meta = &mut self.packet.meta;
        meta.frame_len = self.frame.len() as u32;
        meta.now_ns = self.now_ns;
        meta.drop = 0;
        meta.acl = 0;
        if let Some(eth) = Ethernet::read(&self.frame) {
            meta.outer_smac = eth.smac;
            meta.outer_dmac = eth.dmac;
        }
        match parse_underlay(&self.frame) {
            Ok(Underlay::Control(what)) => {
                self.note(|_| format!("parse underlay: {what}: pass to control"));
                Err(Stop::Verdict(Verdict::Pass))
            }
            Ok(Underlay::Ipv4(outer)) => {
                let meta = &mut self.packet.meta;
                meta.outer_sip = outer.sip;
                meta.outer_dip = outer.dip;
                meta.outer_tos = outer.tos;
                self.packet.outer = Some(outer);
                self.note(|run| {
                    let m = &run.packet.meta;
                    let (sip, dip) = (Ipv4Addr::from(m.outer_sip), Ipv4Addr::from(m.outer_dip));
                    format!(
                        "parse underlay: {} -> {}, {sip} -> {dip}, TOS {:#04x}, {} bytes",
                        Mac(m.outer_smac),
                        Mac(m.outer_dmac),
                        m.outer_tos,
                        m.frame_len
                    )
                });
                Ok(())
            }
            Err(reason) => self.drop_for(reason, Verdict::Drop),
        }
    }

    pub(super) fn parse_encap(&mut self, port: &Expr, nvgre: bool) -> Step<'p> {
        let port = self.eval(port).and_then(Value::array).ok_or(ABORT)?;
        let outer = self.packet.outer.ok_or(ABORT)?;
        let found = parse_vxlan(&self.frame, &outer, port);
        let found = found.or_else(|| parse_nvgre(&self.frame, &outer).filter(|_| nvgre));
        let Some(vxlan) = found else {
            return self.drop_for(DropReason::OuterMalformed, Verdict::Drop);
        };
        let meta = &mut self.packet.meta;
        meta.vni = vxlan.vni;
        meta.inner_smac = vxlan.smac;
        meta.inner_dmac = vxlan.dmac;
        self.packet.vxlan = Some(vxlan);
        self.note(|_| {
            format!(
                "parse {}: VNI {}, inner {} -> {}",
                if nvgre { "encap" } else { "vxlan" },
                vxlan.vni,
                Mac(vxlan.smac),
                Mac(vxlan.dmac)
            )
        });
        Ok(())
    }

    pub(super) fn origin(&mut self) -> Step<'p> {
        let vxlan = self.packet.vxlan.ok_or(ABORT)?;
        self.packet.meta.learn = if vxlan.nvgre {
            encap::NVGRE
        } else {
            encap::VXLAN
        };
        Ok(())
    }

    pub(super) fn guard_sport(&mut self, base: &Expr, mask: &Expr) -> Step<'p> {
        let number = |e| self.eval(e).and_then(Value::num).ok_or(ABORT);
        let (base, mask) = (number(base)?, number(mask)?);
        let outer = self.packet.outer.ok_or(ABORT)?;
        let Some(sport) = udp_source(&self.frame, &outer) else {
            return Ok(());
        };
        if u64::from(sport).wrapping_sub(base) & 0xffff > mask {
            self.note(|_| format!("guard: source port {sport} is not of {base} and {mask} more"));
            return self.drop_for(DropReason::VxlanSport, Verdict::Drop);
        }
        Ok(())
    }

    pub(super) fn decap(&mut self) -> Step<'p> {
        let vxlan = self.packet.vxlan.ok_or(ABORT)?;
        self.frame = self.frame.get(vxlan.encap_len..).ok_or(ABORT)?.to_vec();
        self.note(|run| {
            format!(
                "decap: {} bytes off, {} left",
                vxlan.encap_len,
                run.frame.len()
            )
        });
        Ok(())
    }

    pub(super) fn parse_inner(&mut self) -> Step<'p> {
        let inner = match parse_inner(&self.frame) {
            Ok(inner) => inner,
            Err(reason) => return self.drop_for(reason, Verdict::Drop),
        };
        if !inner.takes_ecn_of(self.packet.meta.outer_tos) {
            return self.drop_for(DropReason::EcnNotCapable, Verdict::Drop);
        }
        let meta = &mut self.packet.meta;
        meta.key.sip = inner.sip;
        meta.key.dip = inner.dip;
        meta.key.sport = inner.sport;
        meta.key.dport = inner.dport;
        meta.key.eni = meta.eni as u16;
        meta.key.proto = inner.proto;
        let v6 = if inner.v6 { flow_flags::V6 } else { 0 };
        meta.key.flags = v6 | meta.direction << flow_flags::DIRECTION_SHIFT;
        meta.inner_len = inner.len as u16;
        meta.tcp_flags = inner.tcp_flags;
        let ports = [TCP, UDP].contains(&inner.proto);
        meta.acl_sport = if ports { inner.sport } else { [0; 2] };
        meta.acl_dport = if ports { inner.dport } else { [0; 2] };
        if let Err(reason) = self.related(&inner) {
            return self.drop_for(reason, Verdict::Drop);
        }
        self.note(|run| {
            format!(
                "parse inner: {}, {}",
                direction_name(run.packet.meta.direction),
                InnerText(&inner)
            )
        });
        Ok(())
    }
}
