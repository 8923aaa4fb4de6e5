//! One ACL group as bit vectors (Lakshman and Stiliadis, SIGCOMM '98).
//!
//! Each of the five fields of a packet falls in a class of values that the rules cannot tell apart;
//! a class has one bit a rule that accepts it. The AND of the five vectors are the rules that match,
//! and the lowest bit is the first of them. Addresses come to their classes by [`classes`], which
//! groups with the same sets share; ports and protocols by structures of the group's own. A field in which no rule
//! lists anything is left out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dash_wire::tables::AclKey;
use nic_target::{AclPrefix, AclPrefixes, AclRuleRow};

use super::classes::{Classes, SetId, Shared};
use super::ranges::{Border, Ranges};
use super::vectors::{Own, RULES, Vectors};

/// A group, ready to answer.
#[derive(Debug)]
pub struct Classifier {
    /// By rule; a look-up returns the address of one.
    actions: Box<[u32]>,
    src: Option<Arc<Classes>>,
    dst: Option<Arc<Classes>>,
    proto: Option<Box<[u16; 256]>>,
    sport: Option<Ranges>,
    dport: Option<Ranges>,
    /// Each [`RULES`] rules.
    blocks: Box<[Block]>,
}

/// Vectors of some rules in the fields that the group has, each with the field's place among
/// [`FIELDS`].
#[derive(Debug)]
struct Block(Box<[(usize, Vectors)]>);

/// Addresses, protocol and ports.
const FIELDS: usize = 5;

impl Classifier {
    /// Compiles the rules, given in the order of evaluation.
    pub fn new(rules: &[AclRuleRow]) -> Self {
        Self::sharing(rules, &Shared::default())
    }

    /// Compiles the rules, with the classes of groups made before where the sets are the same.
    pub(super) fn sharing(rules: &[AclRuleRow], shared: &Shared) -> Self {
        let src = Addresses::new(rules, |rule| rule.src.as_ref(), shared);
        let dst = Addresses::new(rules, |rule| rule.dst.as_ref(), shared);
        let proto = Values::new(rules, 0xff, |rule| {
            let protocols = rule.protocols.as_ref()?.iter();
            Some(protocols.map(|&p| (p.into(), p.into())).collect())
        });
        let ports = |list: &Option<Box<[(u16, u16)]>>| list.as_deref().map(<[_]>::to_vec);
        let sport = Values::new(rules, u16::MAX, |rule| ports(&rule.src_ports));
        let dport = Values::new(rules, u16::MAX, |rule| ports(&rule.dst_ports));
        let block = |from: usize| {
            let addresses = [&src, &dst].map(|field| Some(field.as_ref()?.vectors(from)));
            let values = [&proto, &sport, &dport].map(|field| Some(field.as_ref()?.vectors(from)));
            let fields = addresses.into_iter().chain(values).enumerate();
            Block(
                fields
                    .filter_map(|(at, field)| Some((at, field?)))
                    .collect(),
            )
        };
        Self {
            actions: rules.iter().map(|rule| rule.action).collect(),
            blocks: (0..rules.len()).step_by(RULES).map(block).collect(),
            src: src.map(|field| field.classes),
            dst: dst.map(|field| field.classes),
            proto: proto.map(|field| Box::new(std::array::from_fn(|p| field.class(p as u16)))),
            sport: sport.as_ref().map(Values::ranges),
            dport: dport.as_ref().map(Values::ranges),
        }
    }

    /// Row of the first rule that matches.
    pub fn first(&self, key: &AclKey) -> Option<&u32> {
        let address = |classes: &Option<Arc<Classes>>, address| {
            let classes = classes.as_ref();
            classes.map_or(0, |classes| classes.class(u128::from_be_bytes(address)))
        };
        let src = address(&self.src, key.sip);
        let dst = address(&self.dst, key.dip);
        let proto = self
            .proto
            .as_ref()
            .map_or(0, |of| of[usize::from(key.proto)]);
        let port = |ranges: &Option<Ranges>, port| {
            let ranges = ranges.as_ref();
            ranges.map_or(0, |ranges| ranges.class(u16::from_be_bytes(port).into()))
        };
        let classes = [
            src,
            dst,
            proto.into(),
            port(&self.sport, key.sport),
            port(&self.dport, key.dport),
        ];
        let firsts = self.blocks.iter().zip((0..).step_by(RULES));
        let mut found = firsts.filter_map(|(block, first)| Some(first + block.first(classes)?));
        self.actions.get(found.next()?)
    }

    /// Asks for the memory that [`first`](Self::first) will read first.
    #[inline]
    pub fn prefetch(&self, key: &AclKey) {
        for (classes, address) in [(&self.src, key.sip), (&self.dst, key.dip)] {
            if let Some(classes) = classes {
                classes.prefetch(u128::from_be_bytes(address));
            }
        }
        for (ranges, port) in [(&self.sport, key.sport), (&self.dport, key.dport)] {
            if let Some(ranges) = ranges {
                ranges.prefetch(u16::from_be_bytes(port).into());
            }
        }
    }

    /// Bytes of memory; classes are not among them, as others may share them.
    pub(super) fn memory(&self) -> usize {
        let fields = self.blocks.iter().flat_map(|block| &block.0);
        let vectors =
            fields.map(|(at, field)| size_of_val(at) + size_of_val(field) + field.memory());
        let ports = [&self.sport, &self.dport].into_iter().flatten();
        let proto = self.proto.as_ref().map_or(0, |of| size_of_val(&**of));
        size_of::<Self>()
            + size_of_val(&*self.actions)
            + size_of_val(&*self.blocks)
            + proto
            + vectors.sum::<usize>()
            + ports.map(Ranges::memory).sum::<usize>()
    }

    /// Classes of addresses it uses.
    pub(super) fn classes(&self) -> impl Iterator<Item = &Arc<Classes>> {
        [&self.src, &self.dst].into_iter().flatten()
    }
}

impl Block {
    /// The first rule of the block that accepts the classes.
    #[inline]
    fn first(&self, classes: [u32; FIELDS]) -> Option<usize> {
        let mut own = [Own::default(); FIELDS];
        let mut summary = u64::MAX;
        for ((at, field), own) in self.0.iter().zip(&mut own) {
            *own = field.own(classes[*at]);
            summary &= field.summary(*own);
        }
        while summary != 0 {
            let at = summary.trailing_zeros();
            let words = self
                .0
                .iter()
                .zip(own)
                .map(|((_, field), own)| field.word(own, at));
            let bits = words.fold(u64::MAX, |and, word| and & word);
            if bits != 0 {
                return Some(at as usize * 64 + bits.trailing_zeros() as usize);
            }
            summary &= summary - 1;
        }
        None
    }
}

/// A field of addresses in the making.
struct Addresses {
    classes: Arc<Classes>,
    /// Rules that list nothing, and those that name each set.
    any: Vec<usize>,
    users: Vec<Vec<usize>>,
}

impl Addresses {
    /// `None` when no rule lists anything.
    fn new(
        rules: &[AclRuleRow],
        field: impl Fn(&AclRuleRow) -> Option<&AclPrefixes>,
        shared: &Shared,
    ) -> Option<Self> {
        let mut any = Vec::new();
        let mut sets = BTreeMap::<SetId, (&[AclPrefix], Vec<usize>)>::new();
        // Lists that are one need no second look at their prefixes.
        let mut seen = HashMap::new();
        for (rule, row) in rules.iter().enumerate() {
            let Some(prefixes) = field(row) else {
                any.push(rule);
                continue;
            };
            for list in prefixes.lists() {
                let id = *seen
                    .entry(Arc::as_ptr(list))
                    .or_insert_with(|| shared.id(list));
                sets.entry(id)
                    .or_insert_with(|| (list, vec![]))
                    .1
                    .push(rule);
            }
        }
        if any.len() == rules.len() {
            return None;
        }
        let ids: Vec<SetId> = sets.keys().copied().collect();
        let (lists, users): (Vec<_>, Vec<_>) = sets.into_values().unzip();
        Some(Self {
            classes: shared.classes(&ids, &lists),
            any,
            users,
        })
    }

    /// Vectors of the rules of a block.
    fn vectors(&self, from: usize) -> Vectors {
        let classes = self.classes.members().map(|sets| {
            let rules = sets.iter().flat_map(|set| &self.users[*set as usize]);
            within(rules, from)
        });
        Vectors::new(within(&self.any, from), classes)
    }
}

/// Rules of a block, by their place in it.
fn within<'a>(
    rules: impl IntoIterator<Item = &'a usize>,
    from: usize,
) -> impl Iterator<Item = usize> {
    let inside = move |rule: &usize| Some(rule.checked_sub(from)?).filter(|at| *at < RULES);
    rules.into_iter().filter_map(inside)
}

/// A field of small numbers in the making.
struct Values {
    any: Vec<usize>,
    /// First number of each interval, ascending, with its class.
    starts: Vec<(u16, u16)>,
    /// Rules of each class.
    classes: Vec<Box<[usize]>>,
}

impl Values {
    /// From inclusive ranges; `None` when no rule lists anything.
    fn new(
        rules: &[AclRuleRow],
        max: u16,
        field: impl Fn(&AclRuleRow) -> Option<Vec<(u16, u16)>>,
    ) -> Option<Self> {
        let mut any = Vec::new();
        // Where a rule begins (+1) and stops (-1) to accept.
        let mut events = Vec::new();
        for (rule, row) in rules.iter().enumerate() {
            let Some(ranges) = field(row) else {
                any.push(rule);
                continue;
            };
            for (low, high) in ranges.into_iter().filter(|(low, high)| low <= high) {
                events.push((low, rule, 1i32));
                if high < max {
                    events.push((high + 1, rule, -1));
                }
            }
        }
        if any.len() == rules.len() {
            return None;
        }
        events.sort_unstable();
        let mut known = HashMap::<Box<[usize]>, u16>::new();
        let (mut starts, mut classes) = (Vec::new(), Vec::new());
        // Ranges of one rule may overlap: it accepts while any of them is open.
        let mut open = BTreeMap::<usize, i32>::new();
        let mut interval = |start: u16, open: &BTreeMap<usize, i32>| {
            let rules: Box<[usize]> = open.keys().copied().collect();
            // At most one class for each of 65,536 numbers.
            let new = known.len() as u16;
            let class = *known.entry(rules).or_insert_with_key(|rules| {
                classes.push(rules.clone());
                new
            });
            starts.push((start, class));
        };
        let mut at = 0;
        for (value, rule, step) in events {
            if value != at {
                interval(at, &open);
                at = value;
            }
            let count = open.entry(rule).or_insert(0);
            *count += step;
            if *count == 0 {
                open.remove(&rule);
            }
        }
        interval(at, &open);
        Some(Self {
            any,
            starts,
            classes,
        })
    }

    /// Class of a value that is asked for once.
    fn class(&self, value: u16) -> u16 {
        // The first interval starts at 0.
        let at = self.starts.partition_point(|(start, _)| *start <= value) - 1;
        self.starts[at].1
    }

    fn ranges(&self) -> Ranges {
        let mut now = self.starts[0].1;
        let borders: Vec<Border> = self.starts[1..]
            .iter()
            .filter(|(_, class)| std::mem::replace(&mut now, *class) != *class)
            .map(|&(start, class)| Border {
                start: start.into(),
                class: class.into(),
            })
            .collect();
        Ranges::new(self.starts[0].1.into(), &borders)
    }

    fn vectors(&self, from: usize) -> Vectors {
        let classes = self.classes.iter().map(|rules| within(rules, from));
        Vectors::new(within(&self.any, from), classes)
    }
}
