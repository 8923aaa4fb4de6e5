//! Sets of prefixes to classes of addresses, shared by whoever has the same sets.
//!
//! A class is the addresses that are in the same sets. What it takes to find the class of an address
//! is nearly all of a group's memory, and depends on the sets alone, not on rules or their order. So
//! it is made once for all groups and both fields with the same sets: stages that name the same tags
//! share it. Sets are the same when a keyed hash of 128 bits over their prefixes is.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nic_target::AclPrefix;

use super::ranges::{Border, Ranges};

/// Hash of a set's prefixes: equal hashes, equal sets.
pub(super) type SetId = u128;

/// Classes of the addresses of some sets.
#[derive(Debug)]
pub(super) struct Classes {
    ranges: Ranges,
    members: Members,
}

/// Sets of each class, ascending, as places in the list the classes were made from.
#[derive(Debug)]
struct Members {
    /// Where the sets of each class end; they begin where those of the class before end.
    ends: Vec<u32>,
    sets: Vec<u32>,
}

impl Members {
    fn of(&self, class: usize) -> &[u32] {
        let begin = class.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.sets[begin as usize..self.ends[class] as usize]
    }

    fn push(&mut self, sets: &[u32]) {
        self.sets.extend_from_slice(sets);
        let end = u32::try_from(self.sets.len()).expect("less than 16 GB of sets");
        self.ends.push(end);
    }

    fn memory(&self) -> usize {
        (self.ends.capacity() + self.sets.capacity()) * size_of::<u32>()
    }
}

impl Classes {
    /// From sets of prefixes.
    fn new(sets: &[&[AclPrefix]]) -> Self {
        let mut prefixes: Vec<(u128, u8, u32)> = Vec::new();
        for (set, list) in sets.iter().enumerate() {
            let set = set as u32;
            prefixes.extend(list.iter().map(|p| {
                let len = p.len.min(128);
                (u128::from_be_bytes(p.addr) & !host(len), len, set)
            }));
        }
        // An address before what it holds, so that prefixes nest like brackets.
        prefixes.sort_unstable();
        let mut interner = Interner::default();
        let mut borders: Vec<Border> = Vec::new();
        // Prefixes that are open: the last address of each, and the class inside it.
        let mut open: Vec<(u128, u32)> = Vec::new();
        let mut now = 0;
        for (first, len, set) in prefixes {
            while let Some((last, _)) = open.pop_if(|(last, _)| *last < first) {
                now = open.last().map_or(0, |(_, class)| *class);
                border(&mut borders, last + 1, now);
            }
            now = interner.with(now, set);
            open.push((first | host(len), now));
            border(&mut borders, first, now);
        }
        while let Some((last, _)) = open.pop() {
            let outside = open.last().map_or(0, |(_, class)| *class);
            // Nothing comes after the last address there is.
            if let Some(start) = last.checked_add(1) {
                border(&mut borders, start, outside);
            }
        }
        let mut members = interner.members;
        members.ends.shrink_to_fit();
        members.sets.shrink_to_fit();
        Self {
            ranges: Ranges::new(0, &borders),
            members,
        }
    }

    /// Class of an address.
    #[inline]
    pub(super) fn class(&self, address: u128) -> u32 {
        self.ranges.class(address)
    }

    /// Asks for the memory that finds the class of an address.
    #[inline]
    pub(super) fn prefetch(&self, address: u128) {
        self.ranges.prefetch(address);
    }

    /// For each class the sets it is in.
    pub(super) fn members(&self) -> impl Iterator<Item = &[u32]> {
        (0..self.members.ends.len()).map(|class| self.members.of(class))
    }

    pub(super) fn memory(&self) -> usize {
        self.ranges.memory() + self.members.memory()
    }
}

/// From `start` on addresses are of `class`.
fn border(borders: &mut Vec<Border>, start: u128, class: u32) {
    // Of several borders at one address the last counts.
    borders.pop_if(|last| last.start == start);
    if borders.last().map_or(0, |last| last.class) != class {
        borders.push(Border { start, class });
    }
}

fn host(len: u8) -> u128 {
    u128::MAX.checked_shr(len.into()).unwrap_or(0)
}

/// Numbers for lists of sets.
struct Interner {
    members: Members,
    known: HashMap<Box<[u32]>, u32>,
    /// Class and one set more, so that lists are compared once for each pair.
    steps: HashMap<(u32, u32), u32>,
}

impl Default for Interner {
    fn default() -> Self {
        // Class 0 is in no set.
        Self {
            members: Members {
                ends: vec![0],
                sets: Vec::new(),
            },
            known: HashMap::from([(Box::default(), 0)]),
            steps: HashMap::new(),
        }
    }
}

impl Interner {
    fn with(&mut self, class: u32, set: u32) -> u32 {
        if let Some(known) = self.steps.get(&(class, set)) {
            return *known;
        }
        let mut list = self.members.of(class as usize).to_vec();
        if let Err(at) = list.binary_search(&set) {
            list.insert(at, set);
        }
        let new = self.members.ends.len() as u32;
        let next = *self.known.entry(list.clone().into()).or_insert(new);
        if next == new {
            self.members.push(&list);
        }
        self.steps.insert((class, set), next);
        next
    }
}

/// Classes that some group uses, by their sets. Control's alone.
#[derive(Debug, Default)]
pub(super) struct Shared {
    hashers: [RandomState; 2],
    known: Mutex<HashMap<Box<[SetId]>, Weak<Classes>>>,
}

impl Shared {
    /// Identity of a set, whatever the order of its list.
    pub(super) fn id(&self, list: &[AclPrefix]) -> SetId {
        let sorted = list.is_sorted_by_key(|p| (p.addr, p.len));
        let mut copy = Vec::new();
        let list = if sorted {
            list
        } else {
            copy.extend_from_slice(list);
            copy.sort_unstable_by_key(|p| (p.addr, p.len));
            &copy
        };
        let [a, b] = [&self.hashers[0], &self.hashers[1]].map(|state| {
            let mut hasher = state.build_hasher();
            for p in list {
                (u128::from_be_bytes(p.addr), p.len).hash(&mut hasher);
            }
            hasher.finish()
        });
        u128::from(a) << 64 | u128::from(b)
    }

    /// The classes of sets, whose ids ascend.
    pub(super) fn classes(&self, ids: &[SetId], sets: &[&[AclPrefix]]) -> Arc<Classes> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(classes) = known.get(ids).and_then(Weak::upgrade) {
            return classes;
        }
        let classes = Arc::new(Classes::new(sets));
        known.retain(|_, classes| classes.strong_count() > 0);
        known.insert(ids.into(), Arc::downgrade(&classes));
        classes
    }
}
