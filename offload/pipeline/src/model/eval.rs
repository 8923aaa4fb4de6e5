//! Runs the statements of a pipeline on one packet.

use std::fmt;
use std::net::Ipv4Addr;

use dash_wire::drop::DropReason;
use dash_wire::stats::EniStat;
use dash_wire::tables::{
    Direction, EniRow, FlowActions, FlowEntry, FlowHalf, FlowKey, FragmentKey, MOVED, Meta,
    UnderlayRow, acl_state, encap, flow_action, flow_flags, flow_mark, redirect as kinds,
    underlay_flags,
};
use nic_target::{Table, Verdict};

use super::counters::Counters;
use super::coverage::{Arm, Recorder};
use super::flow::{Flows, Fresh, Lookup, Seen, Source, state_name};
use super::fragment::First;
use super::packet::{
    self, Encap, Ethernet, ICMP, ICMPV6, IPV6_FRAGMENT, Inner, Outer, Related, TCP, UDP, Underlay,
    Vxlan, combine_ecn, parse_inner, parse_nvgre, parse_underlay, parse_vxlan, udp_source,
};
use super::redirect;
use super::reset::{Resets, resets};
use super::tables::{By, Found, Tables};
use super::trace::{Event, TraceLine, lookup_event};
use super::translate::{Ends, to_ipv4, to_ipv6, translatable};
use super::value::{Ip, Mac, Row, Value, meta_cell, meta_value};
use crate::check::stage_index;
use crate::entropy;
use crate::fields::{Ty, key_schema, row_schema};
use crate::ir::{BinOp, Cond, Expr, FlowSide, Pipeline, Stmt};

/// Why a stage's statements end. `None` from an evaluation is a pipeline that [`crate::check`] would
/// refuse, and ends in [`Verdict::Aborted`].
enum Stop<'p> {
    Goto(&'p str),
    Verdict(Verdict),
}

const ABORT: Stop<'static> = Stop::Verdict(Verdict::Aborted);

type Step<'p> = Result<(), Stop<'p>>;

/// Everything one packet needs.
pub(super) struct Run<'m, 'p> {
    pub(super) tables: &'m Tables,
    pub(super) flows: &'m mut Flows,
    pub(super) counters: &'m mut Counters,
    pub(super) resets: &'m mut Resets,
    pub(super) trace: Option<&'m mut Vec<TraceLine>>,
    pub(super) coverage: Option<&'m mut Recorder>,
    pub(super) now_ns: u64,
    pub(super) in_port: u16,
    /// The packet as it is now.
    pub(super) frame: Vec<u8>,
    pub(super) packet: Packet,
    pub(super) scope: Scope<'p>,
}

/// What has been found out about the packet.
#[derive(Default)]
pub(super) struct Packet {
    meta: Meta,
    outer: Option<Outer>,
    vxlan: Option<Vxlan>,
    /// What a redirect says.
    info: [u8; 22],
    /// ENI that counts go to.
    accounted: Option<u32>,
    /// The connection that is decided again.
    stale: Option<Box<FlowEntry>>,
}

/// Names of the stage at hand, innermost last.
#[derive(Default)]
pub(super) struct Scope<'p> {
    stage: &'p str,
    rows: Vec<(&'p str, Row)>,
    locals: Vec<(&'p str, Ty, Value)>,
}

impl<'p> Run<'_, 'p> {
    /// Runs the packet to its verdict.
    pub(super) fn pipeline(&mut self, pipeline: &'p Pipeline) -> Verdict {
        let mut at = 0;
        // Stages only go down the list, so this ends.
        while let Some(stage) = pipeline.stages.get(at) {
            self.scope = Scope {
                stage: &stage.name,
                ..Scope::default()
            };
            match self.block(&stage.body) {
                Err(Stop::Verdict(verdict)) => return verdict,
                Err(Stop::Goto(to)) => match stage_index(&pipeline.stages, to) {
                    Some(next) if next > at => at = next,
                    _ => return Verdict::Aborted,
                },
                Ok(()) => return Verdict::Aborted,
            }
        }
        Verdict::Aborted
    }

    fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        self.note_event(|_| Event::Other, what);
    }

    fn note_event(
        &mut self,
        event: impl FnOnce(&Self) -> Event,
        what: impl FnOnce(&Self) -> String,
    ) {
        if self.trace.is_none() {
            return;
        }
        let line = TraceLine {
            stage: self.scope.stage.to_owned(),
            what: what(self),
            event: event(self),
        };
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }

    fn block(&mut self, body: &'p [Stmt]) -> Step<'p> {
        let locals = self.scope.locals.len();
        for stmt in body {
            self.stmt(stmt)?;
        }
        self.scope.locals.truncate(locals);
        Ok(())
    }

    fn reach(&mut self, stmt: &Stmt, arm: Arm) {
        if let Some(coverage) = &mut self.coverage {
            coverage.reach(stmt, arm);
        }
    }

    fn stmt(&mut self, stmt: &'p Stmt) -> Step<'p> {
        self.reach(stmt, Arm::Ran);
        match stmt {
            Stmt::ParseUnderlay => self.parse_underlay(),
            Stmt::Origin => self.origin(),
            Stmt::ParseVxlan(port) => self.parse_encap(port, false),
            Stmt::ParseEncap(port) => self.parse_encap(port, true),
            Stmt::SpotRedirect => self.spot_redirect(),
            Stmt::ParseRedirect => self.parse_redirect(),
            Stmt::FlowRedirect => self.flow_redirect(),
            Stmt::Consume => {
                self.note(|_| "consumed".to_owned());
                Err(Stop::Verdict(Verdict::Drop))
            }
            Stmt::CountPort { stat, amount } => {
                let amount = self.eval(amount).and_then(Value::num).ok_or(ABORT)?;
                self.counters.port_by(*stat, amount);
                Ok(())
            }
            Stmt::GuardSport { base, mask } => self.guard_sport(base, mask),
            Stmt::Decap => self.decap(),
            Stmt::ParseInner => self.parse_inner(),
            Stmt::Hook => Ok(()),
            Stmt::Account => {
                let eni = self.packet.meta.eni;
                if !self.counters.has_eni(eni) {
                    return Err(ABORT);
                }
                self.packet.accounted = Some(eni);
                Ok(())
            }
            Stmt::Match { .. } => self.match_stmt(stmt),
            Stmt::If { cond, then, els } => {
                let holds = self.cond(cond).ok_or(ABORT)?;
                self.reach(stmt, if holds { Arm::Then } else { Arm::Else });
                self.block(if holds { then } else { els })
            }
            Stmt::Var { name, ty } => {
                self.scope.locals.push((name, *ty, Value::zero(*ty)));
                Ok(())
            }
            Stmt::Set { field, value } => {
                let value = self.eval(value).ok_or(ABORT)?;
                self.set(field, value).ok_or(ABORT)
            }
            Stmt::Entropy { field, key } => self.entropy(field, *key),
            Stmt::Choose { field, of } => {
                let of = self.eval(of).and_then(Value::num).ok_or(ABORT)?;
                let chosen = entropy::choose(&self.packet.meta.key, of as u32);
                self.set(field, Value::Num(u64::from(chosen))).ok_or(ABORT)
            }
            Stmt::Count { stat, amount } => {
                let amount = self.eval(amount).and_then(Value::num).ok_or(ABORT)?;
                self.count(*stat, amount)
            }
            Stmt::FlowLookup { peek: true, .. } => self.flow_peek(stmt),
            Stmt::Meter { len } => self.meter(len),
            Stmt::FlowLookup { .. } => self.flow_lookup(stmt),
            Stmt::FlowCreate { pair, epoch, .. } => self.flow_create(*pair, *epoch),
            Stmt::Translatable => self.translatable(),
            Stmt::Translate => self.translate(),
            Stmt::Apply { nvgre, u1, smac } => self.apply(*nvgre, *u1, *smac),
            Stmt::Goto(to) => Err(Stop::Goto(to)),
            Stmt::Drop(reason) => self.drop_for(*reason, Verdict::Drop),
            Stmt::Pass => {
                self.note(|_| "pass to control".to_owned());
                Err(Stop::Verdict(Verdict::Pass))
            }
            Stmt::Send => self.send(self.in_port),
            Stmt::Forward(row) => self.forward(row),
        }
    }

    fn parse_underlay(&mut self) -> Step<'p> {
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

    fn parse_encap(&mut self, port: &Expr, nvgre: bool) -> Step<'p> {
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

    fn origin(&mut self) -> Step<'p> {
        let vxlan = self.packet.vxlan.ok_or(ABORT)?;
        self.packet.meta.learn = if vxlan.nvgre {
            encap::NVGRE
        } else {
            encap::VXLAN
        };
        Ok(())
    }

    fn guard_sport(&mut self, base: &Expr, mask: &Expr) -> Step<'p> {
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

    fn decap(&mut self) -> Step<'p> {
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

    fn parse_inner(&mut self) -> Step<'p> {
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

    /// Remembers a first fragment; completes and marks the key of what only follows.
    fn related(&mut self, inner: &Inner) -> Result<(), DropReason> {
        let key = &mut self.packet.meta.key;
        let fragment = |id| FragmentKey {
            sip: key.sip,
            dip: key.dip,
            id,
            eni: key.eni,
            proto: if inner.v6 { IPV6_FRAGMENT } else { inner.proto },
            flags: key.flags,
        };
        match inner.related {
            Related::No => {}
            Related::FirstFragment { id } => {
                let first = First {
                    sport: key.sport,
                    dport: key.dport,
                    proto: key.proto,
                };
                let fragment = fragment(id);
                self.flows.fragments.remember(&fragment, first, self.now_ns);
            }
            Related::LaterFragment { id, last } => {
                let first = self
                    .flows
                    .fragments
                    .recall(&fragment(id), last, self.now_ns);
                let first = first.ok_or(DropReason::InnerFragment)?;
                (key.sport, key.dport, key.proto) = (first.sport, first.dport, first.proto);
                key.flags |= flow_flags::LATER_FRAGMENT;
            }
            Related::IcmpError => key.flags |= flow_flags::ICMP_ERROR,
        }
        Ok(())
    }

    fn spot_redirect(&mut self) -> Step<'p> {
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

    fn parse_redirect(&mut self) -> Step<'p> {
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

    fn flow_redirect(&mut self) -> Step<'p> {
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

    fn match_stmt(&mut self, stmt: &'p Stmt) -> Step<'p> {
        let Stmt::Match {
            table,
            key,
            row,
            hit,
            miss,
        } = stmt
        else {
            return Err(ABORT);
        };
        let table = *table;
        let key: Option<Vec<Value>> = key.iter().map(|part| self.eval(part)).collect();
        let key = key.ok_or(ABORT)?;
        let found = self.tables.lookup(table, &key).ok_or(ABORT)?;
        self.note_event(
            |_| lookup_event(table, &key, found.map(|f| f.by)),
            |_| match_text(table, &key, found),
        );
        self.reach(stmt, found.map_or(Arm::Miss, |_| Arm::Hit));
        let Some(found) = found else {
            return self.block(miss);
        };
        self.scope.rows.push((row, found.row));
        self.block(hit)?;
        self.scope.rows.pop();
        Ok(())
    }

    fn set(&mut self, field: &str, value: Value) -> Option<()> {
        if let Some(cell) = meta_cell(&mut self.packet.meta, field) {
            return cell.store(value);
        }
        let (_, ty, local) = self
            .scope
            .locals
            .iter_mut()
            .find(|(name, ..)| *name == field)?;
        *local = value.cut(*ty)?;
        Some(())
    }

    fn eval(&self, expr: &Expr) -> Option<Value> {
        let num = |e: &Expr| self.eval(e)?.num();
        Some(match expr {
            Expr::Num(n) => Value::Num(*n),
            Expr::Field(name) => match meta_value(&self.packet.meta, name) {
                Some(value) => value,
                None => self.scope.locals.iter().find(|(n, ..)| n == name)?.2,
            },
            Expr::Row(row, field) => self.row(row)?.value(field)?,
            Expr::Bin(op, a, b) => {
                let (a, b) = (num(a)?, num(b)?);
                // As eBPF: shifts count modulo 64.
                Value::Num(match op {
                    BinOp::Add => a.wrapping_add(b),
                    BinOp::Sub => a.wrapping_sub(b),
                    BinOp::And => a & b,
                    BinOp::Or => a | b,
                    BinOp::Shl => a.wrapping_shl((b & 63) as u32),
                    BinOp::Shr => a.wrapping_shr((b & 63) as u32),
                })
            }
            Expr::ToBe(bits @ (16 | 24), a) => {
                let bytes = num(a)?.to_be_bytes();
                Value::bytes(&bytes[8 - usize::from(bits / 8)..])
            }
            Expr::ToBe(..) => return None,
            Expr::Pad16(a) => {
                let [a, b, c, d] = self.eval(a)?.array()?;
                Value::bytes(&[a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            Expr::V4(a) => {
                let ip: [u8; 16] = self.eval(a)?.array()?;
                Value::bytes(&ip[12..])
            }
            Expr::FromBe(a) => {
                let bytes: [u8; 2] = self.eval(a)?.array()?;
                Value::Num(u64::from(u16::from_be_bytes(bytes)))
            }
            Expr::Mask(of) => {
                let [a, keep, set] = &**of;
                let bits = |e: &Expr| Some(u128::from_ne_bytes(self.eval(e)?.array()?));
                let masked = bits(a)? & bits(keep)? | bits(set)?;
                Value::bytes(&masked.to_ne_bytes())
            }
            Expr::With4(of) => {
                let [a, b] = &**of;
                let mut ip: [u8; 16] = self.eval(a)?.array()?;
                ip[12..].copy_from_slice(&self.eval(b)?.array::<4>()?);
                Value::bytes(&ip)
            }
        })
    }

    fn cond(&self, cond: &Cond) -> Option<bool> {
        match cond {
            Cond::Eq(a, b) => self.equal(a, b),
            Cond::Ne(a, b) => Some(!self.equal(a, b)?),
            Cond::And(a, b) => Some(self.cond(a)? && self.cond(b)?),
            Cond::Or(a, b) => Some(self.cond(a)? || self.cond(b)?),
        }
    }

    fn equal(&self, a: &Expr, b: &Expr) -> Option<bool> {
        match (self.eval(a)?, self.eval(b)?) {
            (Value::Num(a), Value::Num(b)) => Some(a == b),
            (Value::Bytes(n, a), Value::Bytes(m, b)) if n == m => Some(a == b),
            (Value::Bytes(_, a), Value::Num(0)) => Some(a == [0; 16]),
            _ => None,
        }
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.scope
            .rows
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, row)| row)
    }

    fn entropy(&mut self, field: &str, side: FlowSide) -> Step<'p> {
        let key = match side {
            FlowSide::Key => &self.packet.meta.key,
            FlowSide::Rkey => &self.packet.meta.rkey,
        };
        let globals = self.tables.globals();
        let port = globals
            .sport_base
            .wrapping_add(entropy::hash(key) & globals.sport_mask);
        self.set(field, Value::bytes(&port.to_be_bytes()))
            .ok_or(ABORT)
    }

    fn count(&mut self, stat: EniStat, amount: u64) -> Step<'p> {
        let eni = self.packet.accounted.ok_or(ABORT)?;
        self.counters.eni(eni, stat, amount);
        Ok(())
    }

    fn drop_for(&mut self, reason: DropReason, verdict: Verdict) -> Step<'p> {
        // It was denied already, and went on for the sake of resets.
        let reason = if self.packet.meta.acl & acl_state::RESETTING != 0 {
            DropReason::AclDeny
        } else {
            reason
        };
        self.packet.meta.drop = reason as u8 + 1;
        if let Some(coverage) = &mut self.coverage {
            coverage.dropped(reason);
        }
        for stat in reason.port_stats() {
            self.counters.port(*stat);
        }
        for stat in reason.eni_stats() {
            self.count(*stat, 1)?;
        }
        // Policy of today has nothing for the connection.
        if !reason.eni_stats().is_empty() && self.packet.stale.take().is_some() {
            self.count(EniStat::FlowDeleted, 1)?;
            self.note(|_| "flow deleted".to_owned());
        }
        self.note_event(
            |_| Event::Drop(reason),
            |_| {
                let port = reason.port_stats().iter().map(|s| s.name());
                let counters: Vec<_> = port
                    .chain(reason.eni_stats().iter().map(|s| s.name()))
                    .collect();
                let passed = if verdict == Verdict::Pass {
                    ", pass to control"
                } else {
                    ""
                };
                format!("drop {}: {} +1{passed}", reason.name(), counters.join(", "))
            },
        );
        if self.packet.meta.acl & acl_state::RESETS != 0 {
            self.reset_both();
        }
        Err(Stop::Verdict(verdict))
    }

    /// Sends a RST to each end.
    fn reset_both(&mut self) {
        if !self.resets.may(self.now_ns) {
            self.note(|_| "no resets: too many in this second".to_owned());
            return;
        }
        let meta = &self.packet.meta;
        let made = resets(self.tables, meta, &self.frame, self.in_port);
        for (port, frame) in made.into_iter().flatten() {
            self.counters.eni(meta.eni, EniStat::TcpRstInjectPackets, 1);
            self.resets.sent.push_back((port, frame));
        }
        self.note(|run| format!("resets: {} frames", run.resets.sent.len()));
    }

    fn seen(&self) -> Seen {
        let meta = &self.packet.meta;
        Seen {
            now_ns: meta.now_ns,
            tcp_flags: meta.tcp_flags,
            inner_len: meta.inner_len,
        }
    }

    fn meter(&mut self, len: &'p Expr) -> Step<'p> {
        let Meta {
            eni,
            meter_class: class,
            direction,
            ..
        } = self.packet.meta;
        if class == 0 {
            return Ok(());
        }
        let len = self.eval(len).and_then(Value::num).ok_or(ABORT)?;
        let inbound = direction == Direction::Inbound as u8;
        self.counters
            .meter((eni, class), inbound, len)
            .ok_or(ABORT)?;
        self.note(|_| format!("meter: class {class}, {} +{len}", direction_name(direction)));
        Ok(())
    }

    /// The row of the packet's ENI.
    fn eni_row(&self) -> Option<EniRow> {
        let index = Value::Num(u64::from(self.packet.meta.eni));
        match self.tables.lookup(Table::Eni, &[index])??.row {
            Row::Eni(row) => Some(row),
            _ => None,
        }
    }

    fn flow_lookup(&mut self, stmt: &'p Stmt) -> Step<'p> {
        let Stmt::FlowLookup {
            pair,
            meter,
            epoch,
            learn,
            hit,
            miss,
            ..
        } = stmt
        else {
            return Err(ABORT);
        };
        let (pair, meter, epoch) = (*pair, *meter, *epoch);
        let meta = &self.packet.meta;
        let from = (*learn && meta.learn != 0).then_some(Source {
            sip: meta.outer_sip,
            vni: meta.vni,
            encap: meta.learn,
        });
        let fresh = self.eni_row().filter(|_| epoch).map(|row| Fresh {
            epoch: self.packet.meta.epoch,
            per_second: row.resim_per_second,
        });
        let key = self.packet.meta.key;
        match self.flows.lookup(&key, self.seen(), fresh, from) {
            Lookup::Moved(entry) => {
                self.packet.meta.renew = entry.state | MOVED;
                self.packet.stale = Some(entry);
                self.note(|_| "flow whose packets come from elsewhere: decided again".to_owned());
                self.reach(stmt, Arm::Moved);
                self.block(miss)
            }
            Lookup::Stale(entry) => {
                self.packet.meta.renew = entry.state;
                self.packet.stale = Some(entry);
                self.note(|run| {
                    let epoch = run.packet.meta.epoch;
                    format!("flow of an old epoch, now {epoch}: decided again")
                });
                self.reach(stmt, Arm::Stale);
                self.block(miss)
            }
            Lookup::Hit { side, entry, ended } => {
                self.take_decision(pair, &entry, side);
                if meter {
                    self.packet.meta.meter_class = entry.meter_class;
                }
                if ended {
                    self.count(EniStat::FlowDeleted, 1)?;
                    if entry.marks & flow_mark::REDIRECTED != 0 {
                        self.count(EniStat::LbFastPathActiveFlow, u64::MAX)?;
                    }
                }
                self.note_event(
                    |_| Event::FlowHit { side, ended },
                    |_| {
                        let state = if ended {
                            "ended by RST"
                        } else {
                            state_name(entry.state)
                        };
                        format!(
                            "flow hit: side {side}, packet {} of it, {state}",
                            entry.packets[side]
                        )
                    },
                );
                self.reach(stmt, Arm::Hit);
                self.block(hit)
            }
            Lookup::Reset { redirected } => {
                self.count(EniStat::FlowDeleted, 1)?;
                if redirected {
                    self.count(EniStat::LbFastPathActiveFlow, u64::MAX)?;
                }
                self.note_event(
                    |_| Event::FlowReset,
                    |_| "flow deleted by a new SYN: decided again".to_owned(),
                );
                self.reach(stmt, Arm::Miss);
                self.reach(stmt, Arm::Reset);
                self.block(miss)
            }
            Lookup::Miss => {
                self.note_event(|_| Event::FlowMiss, |_| "flow miss".to_owned());
                self.reach(stmt, Arm::Miss);
                self.block(miss)
            }
        }
    }

    fn flow_peek(&mut self, stmt: &'p Stmt) -> Step<'p> {
        let Stmt::FlowLookup {
            pair,
            meter,
            hit,
            miss,
            ..
        } = stmt
        else {
            return Err(ABORT);
        };
        let Some((side, entry)) = self.flows.peek(&self.packet.meta.key) else {
            self.reach(stmt, Arm::Miss);
            self.note(|_| "no such flow".to_owned());
            return self.block(miss);
        };
        self.reach(stmt, Arm::Hit);
        self.take_decision(*pair, &entry, side);
        if *meter {
            self.packet.meta.meter_class = entry.meter_class;
        }
        self.note(|_| format!("about a flow: side {side}"));
        self.block(hit)
    }

    /// The decision of one side becomes the packet's.
    fn take_decision(&mut self, pair: bool, entry: &FlowEntry, side: usize) {
        let meta = &mut self.packet.meta;
        meta.actions = entry.sides[side].actions;
        if pair && meta.actions.actions & flow_action::NEEDS_PAIR != 0 {
            let other = entry.sides[1 - side];
            meta.rkey = other.key;
            (meta.u1_dip, meta.u1_vni) = other.actions.kept_u1();
        }
    }

    fn flow_create(&mut self, pair: bool, epoch: bool) -> Step<'p> {
        let seen = self.seen();
        if epoch && let Some(old) = self.packet.stale.take() {
            return self.flow_renew(old, pair);
        }
        let m = &mut self.packet.meta;
        if pair && m.actions.actions & flow_action::ENCAP_U1 != 0 {
            m.ractions.keep_u1(m.u1_dip, m.u1_vni);
        }
        let side = |key, actions| FlowHalf { key, actions };
        let sides = [side(m.key, m.actions), side(m.rkey, m.ractions)];
        let epoch = if epoch { m.epoch } else { 0 };
        let created = self
            .flows
            .create(sides, m.direction, m.meter_class, epoch, seen);
        let Some(entry) = created else {
            return self.drop_for(DropReason::FlowTableFull, Verdict::Drop);
        };
        self.count(EniStat::FlowCreated, 1)?;
        self.note_event(
            |_| Event::FlowCreated,
            |_| {
                let back = entry.sides[1].key;
                format!(
                    "flow created: {}, {} s; replies {} port {} -> {} port {}",
                    state_name(entry.state),
                    entry.timeout_ms / 1000,
                    Ip(back.sip),
                    u16::from_be_bytes(back.sport),
                    Ip(back.dip),
                    u16::from_be_bytes(back.dport)
                )
            },
        );
        Ok(())
    }

    fn translatable(&mut self) -> Step<'p> {
        match translatable(&self.frame, self.packet.meta.key.proto) {
            Err(reason) => self.drop_for(reason, Verdict::Drop),
            Ok(()) => Ok(()),
        }
    }

    /// The connection `old` with the decision of today.
    fn flow_renew(&mut self, old: Box<FlowEntry>, pair: bool) -> Step<'p> {
        let moved = self.packet.meta.renew & MOVED != 0;
        let keep = match old.marks & flow_mark::REDIRECTED {
            _ if !moved => self.eni_row().map_or(0, |row| row.resim_keep),
            0 => 0,
            _ => flow_action::REDIRECTABLE,
        };
        let m = &mut self.packet.meta;
        let [there, back] = &old.sides;
        let kept = |new: u16, old: u16, keep: u16| new & !keep | old & keep;
        m.actions.actions = kept(m.actions.actions, there.actions.actions, keep);
        let turns = keep & flow_action::TRANSLATES;
        m.ractions.actions = kept(m.ractions.actions, back.actions.actions, turns);
        if keep & flow_action::ENCAP_U0 != 0 {
            m.actions = FlowActions {
                actions: m.actions.actions,
                u1: m.actions.u1,
                dmac: m.actions.dmac,
                ..there.actions
            };
        }
        if keep & flow_action::SET_DMAC != 0 {
            m.actions.dmac = there.actions.dmac;
        }
        if turns != 0 {
            m.rkey = back.key;
        }
        if pair && keep & flow_action::ENCAP_U1 != 0 {
            m.actions.u1 = there.actions.u1;
            (m.u1_dip, m.u1_vni) = back.actions.kept_u1();
        }
        if pair && m.actions.actions & flow_action::ENCAP_U1 != 0 {
            m.ractions.keep_u1(m.u1_dip, m.u1_vni);
        }
        let side = |key, actions| FlowHalf { key, actions };
        let sides = [side(m.key, m.actions), side(m.rkey, m.ractions)];
        let (class, epoch) = (m.meter_class, m.epoch);
        if self.flows.renew(&old, sides, class, epoch).is_none() {
            self.packet.stale = Some(old);
            return self.drop_for(DropReason::FlowTableFull, Verdict::Drop);
        }
        self.packet.meta.renew = 0;
        self.count(
            match moved {
                true => EniStat::FlowUpdated,
                false => EniStat::FlowUpdatedByResimulation,
            },
            1,
        )?;
        self.note(|_| "flow decided again: its history goes on".to_owned());
        Ok(())
    }

    fn translate(&mut self) -> Step<'p> {
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

    fn apply(&mut self, nvgre: bool, u1: bool, smac: bool) -> Step<'p> {
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

    fn send(&mut self, port: u16) -> Step<'p> {
        self.note(|_| format!("send: port {port}"));
        Err(Stop::Verdict(Verdict::Send(port)))
    }

    fn forward(&mut self, row: &str) -> Step<'p> {
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

fn encapsulates(actions: &FlowActions) -> bool {
    actions.actions & flow_action::ENCAP_U0 != 0
}

fn direction_name(direction: u8) -> &'static str {
    match direction {
        d if d == Direction::Outbound as u8 => "outbound",
        d if d == Direction::Inbound as u8 => "inbound",
        _ => "no direction",
    }
}

/// Components of a key with their names.
fn key_text(table: Table, key: &[Value]) -> String {
    if let (Table::Underlay, [Value::Num(0), Value::Bytes(_, [a, b, c, d, ..])]) = (table, key) {
        // IPv4 sits in the first bytes here, so that prefixes of both families line up.
        return format!("v6 0, dst {}", Ipv4Addr::new(*a, *b, *c, *d));
    }
    let parts = key_schema(table).iter().zip(key);
    let parts: Vec<_> = parts
        .map(|(field, value)| format!("{} {value}", field.name))
        .collect();
    parts.join(", ")
}

/// A look-up in one line: key, how it was found, and the row's fields that are not zero.
fn match_text(table: Table, key: &[Value], found: Option<Found>) -> String {
    let schema = key_schema(table);
    let head = format!("match {}[{}]", table.name(), key_text(table, key));
    let Some(found) = found else {
        return format!("{head}: no row");
    };
    let how = match found.by {
        By::Exact => "found".to_owned(),
        By::Rule(i) => format!("rule {i}"),
        By::Prefix(bits) => {
            // The last component is the one prefixes are taken of.
            let whole: usize = schema.iter().rev().skip(1).map(|f| f.ty.size() * 8).sum();
            format!("/{}", (bits as usize).saturating_sub(whole))
        }
    };
    let fields = row_schema(table)
        .iter()
        .filter_map(|f| found.row.value(f.name).map(|v| (f, v)));
    let fields: Vec<_> = fields
        .filter(|(f, v)| *v != Value::zero(f.ty))
        .map(|(f, v)| format!("{} {v}", f.name))
        .collect();
    if fields.is_empty() {
        format!("{head}: {how}")
    } else {
        format!("{head}: {how}: {}", fields.join(", "))
    }
}

struct InnerText<'a>(&'a Inner);

impl fmt::Display for InnerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let i = self.0;
        let (sport, dport) = (u16::from_be_bytes(i.sport), u16::from_be_bytes(i.dport));
        write!(
            f,
            "{} -> {} ",
            packet::address(i.v6, i.sip),
            packet::address(i.v6, i.dip)
        )?;
        match (i.proto, i.v6) {
            (TCP, _) => write!(f, "TCP {sport} -> {dport} flags {:#04x}", i.tcp_flags)?,
            (UDP, _) => write!(f, "UDP {sport} -> {dport}")?,
            (ICMP, false) => write!(f, "ICMP id {sport}")?,
            (ICMPV6, true) => write!(f, "ICMPv6 id {sport}")?,
            (proto, _) => write!(f, "protocol {proto}")?,
        }
        write!(f, ", {} bytes", i.len)
    }
}

/// The second encap of a packet.
struct Second {
    encap: u8,
    sip: [u8; 4],
    dip: [u8; 4],
    vni: u32,
}

struct ActionsText<'a>(&'a FlowActions, Option<Second>);

impl fmt::Display for ActionsText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let a = self.0;
        if a.actions & flow_action::SET_SMAC != 0 {
            f.write_str("inner source the ENI, ")?;
        }
        if a.actions & flow_action::SET_DMAC != 0 {
            write!(f, "inner destination {}, ", Mac(a.dmac))?;
        }
        let name = |kind| {
            if kind == encap::NVGRE {
                "NVGRE"
            } else {
                "VXLAN"
            }
        };
        if encapsulates(a) {
            let (sip, dip) = (Value::bytes(&a.u0_sip), Value::bytes(&a.u0_dip));
            write!(
                f,
                "{} {sip} -> {dip} VNI {} source port {}, ",
                name(a.u0_encap),
                a.u0_vni,
                u16::from_be_bytes(a.sport)
            )?;
        }
        if let Some(second) = &self.1 {
            let (sip, dip) = (Value::bytes(&second.sip), Value::bytes(&second.dip));
            write!(
                f,
                "in {} {sip} -> {dip} VNI {}, ",
                name(second.encap),
                second.vni
            )?;
        }
        Ok(())
    }
}
