//! Fragments and ICMP errors: the key they go by, and the look-up that leaves a flow as it is.

use dash_wire::drop::DropReason;
use dash_wire::tables::{FragmentKey, flow_flags};

use super::{ABORT, Run, Step};
use crate::ir::Stmt;
use crate::model::coverage::Arm;
use crate::model::fragment::First;
use crate::model::packet::{IPV6_FRAGMENT, Inner, Related};

impl<'p> Run<'_, 'p> {
    /// Remembers a first fragment; completes and marks the key of what only follows.
    pub(super) fn related(&mut self, inner: &Inner) -> Result<(), DropReason> {
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

    pub(super) fn flow_peek(&mut self, stmt: &'p Stmt) -> Step<'p> {
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
}
