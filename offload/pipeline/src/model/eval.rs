//! Runs the statements of a pipeline on one packet.

use dash_wire::drop::DropReason;
use dash_wire::stats::EniStat;
use dash_wire::tables::{FlowActions, FlowEntry, Meta, acl_state, flow_action};
use nic_target::Verdict;

use super::counters::Counters;
use super::coverage::{Arm, Recorder};
use super::flow::Flows;
use super::limits::Limits;
use super::packet::{Outer, Vxlan};
use super::reset::{Resets, resets};
use super::tables::Tables;
use super::trace::{Event, TraceLine, lookup_event};
use super::value::{Row, Value, meta_cell, meta_value};
use crate::check::stage_index;
use crate::entropy;
use crate::fields::Ty;
use crate::ir::{BinOp, Cond, Expr, FlowSide, Pipeline, Stmt};
use words::match_text;

mod apply;
mod flow;
mod limits;
mod meter;
mod parse;
mod redirect;
mod related;
mod words;

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
    pub(super) limits: &'m mut Limits,
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
            Stmt::Police { len, packets } => self.police(len, *packets),
            Stmt::Admit => self.admit(),
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
            Expr::Ingress => Value::Num(self.in_port.into()),
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
}

fn encapsulates(actions: &FlowActions) -> bool {
    actions.actions & flow_action::ENCAP_U0 != 0
}
