//! Rules chosen by priority, as rows chosen by longest prefix.
//!
//! Every rule that matches an address contains the longest prefix that matches it, so the rule that
//! wins depends on that prefix alone: it is the best of the rules of the prefix and of those
//! around it. A rule therefore decides about the rows of its prefix and of the prefixes inside,
//! and a change of it makes those be looked at again, no others.
//!
//! The lower priority number wins, of equal ones the longer prefix, and among the rules of one prefix
//! the one with the lower tie.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dash_model::key::SourcePrefix;
use dash_model::net::IpPrefix;

/// Prefixes in an order in which each is followed by those inside it.
pub(super) trait Prefix: Copy + Ord {
    /// Number of bits that count.
    fn len(self) -> u8;
    /// The prefix of its first `len` bits.
    fn cut(self, len: u8) -> Option<Self>;
    /// The greatest prefix, in order, inside this one.
    fn last_inside(self) -> Self;
    /// The other is inside, or is this one.
    fn contains(self, inner: Self) -> bool {
        self.len() <= inner.len() && inner.cut(self.len()) == Some(self)
    }
}

impl Prefix for SourcePrefix {
    fn len(self) -> u8 {
        self.len
    }
    fn cut(self, len: u8) -> Option<Self> {
        Self::new(self.addr, len)
    }
    fn last_inside(self) -> Self {
        Self {
            addr: last_v4(self.addr, self.len),
            len: 32,
        }
    }
}

impl Prefix for IpPrefix {
    fn len(self) -> u8 {
        self.prefix_len()
    }
    fn cut(self, len: u8) -> Option<Self> {
        Self::new(self.addr(), len)
    }
    fn last_inside(self) -> Self {
        Self::host(match self.addr() {
            IpAddr::V4(addr) => last_v4(addr, self.prefix_len()).into(),
            IpAddr::V6(addr) => {
                let hosts = u128::MAX.checked_shr(self.prefix_len().into()).unwrap_or(0);
                Ipv6Addr::from(u128::from(addr) | hosts).into()
            }
        })
    }
}

fn last_v4(addr: Ipv4Addr, len: u8) -> Ipv4Addr {
    let hosts = u32::MAX.checked_shr(len.into()).unwrap_or(0);
    Ipv4Addr::from(u32::from(addr) | hosts)
}

/// The rules of every scope, and the prefixes whose rules changed since the rows were written.
#[derive(Clone, Debug)]
pub(super) struct Priorities<S, P, T, R> {
    scopes: HashMap<S, Rules<P, T, R>>,
    dirty: BTreeMap<S, BTreeSet<P>>,
}

impl<S, P, T, R> Default for Priorities<S, P, T, R> {
    fn default() -> Self {
        Self {
            scopes: HashMap::new(),
            dirty: BTreeMap::new(),
        }
    }
}

type Rules<P, T, R> = BTreeMap<P, Slot<T, R>>;

/// Rules of one prefix.
#[derive(Clone, Debug)]
struct Slot<T, R> {
    /// By priority and tie, which together are unique here.
    rules: Vec<((u32, T), R)>,
    /// The row as it was written.
    row: Option<R>,
}

impl<T, R> Default for Slot<T, R> {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            row: None,
        }
    }
}

/// The rule that wins at some prefix.
#[derive(Clone, Copy, Debug)]
struct Best<R> {
    priority: u32,
    row: R,
}

impl<S, P, T, R> Priorities<S, P, T, R>
where
    S: Copy + Ord + Hash,
    P: Prefix,
    T: Ord,
    R: Copy + PartialEq,
{
    /// A rule that is new, or another row for one that is there.
    pub(super) fn insert(&mut self, scope: S, prefix: P, rank: (u32, T), row: R) {
        let slot = self.touch(scope, prefix);
        match slot.rules.binary_search_by(|rule| rule.0.cmp(&rank)) {
            Ok(at) => slot.rules[at].1 = row,
            Err(at) => slot.rules.insert(at, (rank, row)),
        }
    }

    /// A rule is gone.
    pub(super) fn remove(&mut self, scope: S, prefix: P, rank: &(u32, T)) {
        let slot = self.touch(scope, prefix);
        slot.rules.retain(|rule| rule.0 != *rank);
    }

    /// Every rule of a scope.
    pub(super) fn rules(&self, scope: S) -> Vec<(P, (u32, T), R)>
    where
        T: Copy,
    {
        let prefixes = self.scopes.get(&scope).into_iter().flatten();
        let rules = prefixes.flat_map(|(&prefix, slot)| {
            let rules = slot.rules.iter();
            rules.map(move |&(rank, row)| (prefix, rank, row))
        });
        rules.collect()
    }

    fn touch(&mut self, scope: S, prefix: P) -> &mut Slot<T, R> {
        self.dirty.entry(scope).or_default().insert(prefix);
        let rules = self.scopes.entry(scope).or_default();
        rules.entry(prefix).or_default()
    }

    /// Tells of every row that differs: what it is now, `None` for one that is gone.
    pub(super) fn flush(&mut self, mut write: impl FnMut(S, P, Option<R>)) {
        for (scope, dirty) in std::mem::take(&mut self.dirty) {
            let Some(rules) = self.scopes.get_mut(&scope) else {
                continue;
            };
            let mut done: Option<P> = None;
            for prefix in dirty {
                // What is inside a prefix comes right after it and was done with it.
                if done.is_none_or(|done| !done.contains(prefix)) {
                    update(rules, prefix, |prefix, row| write(scope, prefix, row));
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
fn update<P: Prefix, T, R: Copy + PartialEq>(
    rules: &mut Rules<P, T, R>,
    root: P,
    mut write: impl FnMut(P, Option<R>),
) {
    let mut around: Vec<(P, Best<R>)> = Vec::new();
    around.extend(best_around(rules, root).map(|best| (root, best)));
    let mut empty = Vec::new();
    for (&prefix, slot) in rules.range_mut(root..=root.last_inside()) {
        while around.pop_if(|(p, _)| !p.contains(prefix)).is_some() {}
        let inherited = around.last().map(|(_, best)| *best);
        let own = slot
            .rules
            .first()
            .map(|&((priority, _), row)| Best { priority, row });
        let Some(own) = own else {
            if slot.row.take().is_some() {
                write(prefix, None);
            }
            empty.push(prefix);
            continue;
        };
        let best = better(own, inherited);
        around.push((prefix, best));
        if slot.row.replace(best.row) != Some(best.row) {
            write(prefix, Some(best.row));
        }
    }
    for prefix in empty {
        rules.remove(&prefix);
    }
}

/// The best rule of the prefixes that contain this one.
fn best_around<P: Prefix, T, R: Copy>(rules: &Rules<P, T, R>, prefix: P) -> Option<Best<R>> {
    let mut best = None;
    for len in 0..prefix.len() {
        let Some(slot) = prefix.cut(len).and_then(|p| rules.get(&p)) else {
            continue;
        };
        if let Some(&((priority, _), row)) = slot.rules.first() {
            best = Some(better(Best { priority, row }, best));
        }
    }
    best
}

/// The lower priority number wins, and of equal ones the longer prefix: the inner rule.
fn better<R>(inner: Best<R>, outer: Option<Best<R>>) -> Best<R> {
    match outer {
        Some(outer) if outer.priority < inner.priority => outer,
        _ => inner,
    }
}
