//! Inbound route rules, chosen by priority, as rows chosen by longest prefix.
//!
//! Every rule that matches a source contains the longest prefix that matches it, so the rule that
//! wins depends on that prefix alone: it is the best of the rules of the prefix and of those
//! around it. A rule therefore decides about the rows of its prefix and of the prefixes inside,
//! and a change of it makes those be looked at again, no others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use dash_model::key::{RouteRuleKey, SourcePrefix};
use dash_wire::tables::{InboundKey, InboundRow};
use nic_target::Table;

use super::ops::Ops;

/// ENI index and VNI.
type Scope = (u32, u32);

/// The rules of every ENI, and the prefixes whose rules changed since the rows were written.
#[derive(Clone, Debug, Default)]
pub(super) struct Inbound {
    scopes: HashMap<Scope, Rules>,
    dirty: BTreeMap<Scope, BTreeSet<SourcePrefix>>,
}

/// Rules of an ENI and a VNI. In this order a prefix is followed by those inside it.
type Rules = BTreeMap<SourcePrefix, Slot>;

/// Rules of one prefix.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// By priority, which is unique here.
    rules: Vec<(u32, InboundRow)>,
    /// The row as it was written.
    row: Option<InboundRow>,
}

/// The rule that wins at some prefix.
#[derive(Clone, Copy, Debug)]
struct Best {
    priority: u32,
    row: InboundRow,
}

impl Inbound {
    pub(super) fn insert(&mut self, eni: u32, key: &RouteRuleKey, row: InboundRow) {
        let slot = self.touch(eni, key);
        match slot.rules.binary_search_by_key(&key.priority, |r| r.0) {
            Ok(at) => slot.rules[at].1 = row,
            Err(at) => slot.rules.insert(at, (key.priority, row)),
        }
    }

    pub(super) fn remove(&mut self, eni: u32, key: &RouteRuleKey) {
        let slot = self.touch(eni, key);
        slot.rules.retain(|rule| rule.0 != key.priority);
    }

    fn touch(&mut self, eni: u32, key: &RouteRuleKey) -> &mut Slot {
        let scope = (eni, key.vni.get());
        self.dirty.entry(scope).or_default().insert(key.source);
        let rules = self.scopes.entry(scope).or_default();
        rules.entry(key.source).or_default()
    }

    /// Writes the rows that differ.
    pub(super) fn flush(&mut self, ops: &mut Ops) {
        for (scope, dirty) in std::mem::take(&mut self.dirty) {
            let Some(rules) = self.scopes.get_mut(&scope) else {
                continue;
            };
            let mut done: Option<SourcePrefix> = None;
            for prefix in dirty {
                // What is inside a prefix comes right after it and was done with it.
                if done.is_none_or(|done| !contains(done, prefix)) {
                    update(scope, rules, prefix, ops);
                    done = Some(prefix);
                }
            }
            if rules.is_empty() {
                self.scopes.remove(&scope);
            }
        }
    }
}

/// Brings the rows of a prefix and of those inside it up to date.
fn update(scope: Scope, rules: &mut Rules, root: SourcePrefix, ops: &mut Ops) {
    let mut around: Vec<(SourcePrefix, Best)> = Vec::new();
    around.extend(best_around(rules, root).map(|best| (root, best)));
    let mut empty = Vec::new();
    for (&prefix, slot) in rules.range_mut(root..=last_inside(root)) {
        while around.pop_if(|(p, _)| !contains(*p, prefix)).is_some() {}
        let inherited = around.last().map(|(_, best)| *best);
        let own = slot
            .rules
            .first()
            .map(|&(priority, row)| Best { priority, row });
        let Some(own) = own else {
            if slot.row.take().is_some() {
                ops.delete(Table::Inbound, &key(scope, prefix));
            }
            empty.push(prefix);
            continue;
        };
        let best = better(own, inherited);
        around.push((prefix, best));
        if slot.row.replace(best.row) != Some(best.row) {
            ops.put(Table::Inbound, &key(scope, prefix), &best.row);
        }
    }
    for prefix in empty {
        rules.remove(&prefix);
    }
}

/// The best rule of the prefixes that contain this one.
fn best_around(rules: &Rules, prefix: SourcePrefix) -> Option<Best> {
    let mut best = None;
    for len in 0..prefix.len {
        let Some(slot) = SourcePrefix::new(prefix.addr, len).and_then(|p| rules.get(&p)) else {
            continue;
        };
        if let Some(&(priority, row)) = slot.rules.first() {
            best = Some(better(Best { priority, row }, best));
        }
    }
    best
}

/// The lower priority number wins, and of equal ones the longer prefix: the inner rule.
fn better(inner: Best, outer: Option<Best>) -> Best {
    match outer {
        Some(outer) if outer.priority < inner.priority => outer,
        _ => inner,
    }
}

fn contains(outer: SourcePrefix, inner: SourcePrefix) -> bool {
    outer.len <= inner.len
        && SourcePrefix::new(inner.addr, outer.len).is_some_and(|p| p.addr == outer.addr)
}

/// The greatest prefix, in order, inside this one.
fn last_inside(prefix: SourcePrefix) -> SourcePrefix {
    let hosts = u32::MAX.checked_shr(prefix.len.into()).unwrap_or(0);
    SourcePrefix {
        addr: Ipv4Addr::from(u32::from(prefix.addr) | hosts),
        len: 32,
    }
}

fn key((eni, vni): Scope, prefix: SourcePrefix) -> InboundKey {
    InboundKey {
        prefix_len: 64 + u32::from(prefix.len),
        eni,
        vni,
        sip: prefix.addr.octets(),
    }
}
