//! Flows: found, made, decided again.

use dash_wire::drop::DropReason;
use dash_wire::stats::EniStat;
use dash_wire::tables::{EniRow, FlowActions, FlowEntry, FlowHalf, MOVED, flow_action, flow_mark};
use nic_target::{Table, Verdict};

use super::{ABORT, Run, Step};
use crate::ir::Stmt;
use crate::model::coverage::Arm;
use crate::model::flow::{Fresh, Lookup, Seen, Source, state_name};
use crate::model::trace::Event;
use crate::model::value::{Ip, Row, Value};

impl<'p> Run<'_, 'p> {
    /// The row of the packet's ENI.
    pub(super) fn eni_row(&self) -> Option<EniRow> {
        let index = Value::Num(u64::from(self.packet.meta.eni));
        match self.tables.lookup(Table::Eni, &[index])??.row {
            Row::Eni(row) => Some(row),
            _ => None,
        }
    }

    pub(super) fn seen(&self) -> Seen {
        let meta = &self.packet.meta;
        Seen {
            now_ns: meta.now_ns,
            tcp_flags: meta.tcp_flags,
            inner_len: meta.inner_len,
        }
    }

    pub(super) fn flow_lookup(&mut self, stmt: &'p Stmt) -> Step<'p> {
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

    /// The decision of one side becomes the packet's.
    pub(super) fn take_decision(&mut self, pair: bool, entry: &FlowEntry, side: usize) {
        let meta = &mut self.packet.meta;
        meta.actions = entry.sides[side].actions;
        if pair && meta.actions.actions & flow_action::NEEDS_PAIR != 0 {
            let other = entry.sides[1 - side];
            meta.rkey = other.key;
            (meta.u1_dip, meta.u1_vni) = other.actions.kept_u1();
        }
    }

    pub(super) fn flow_create(&mut self, pair: bool, epoch: bool) -> Step<'p> {
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
}
