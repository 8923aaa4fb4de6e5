//! Each kind of map against a twin that is plain to see.

use std::collections::{BTreeMap, VecDeque};

use dash_bpf::MapKind;
use dash_prog::{Errno, Map};
use proptest::prelude::*;

use crate::support::def;

/// One operation from outside.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Lookup(Vec<u8>),
    Update(Vec<u8>, Vec<u8>, u64),
    Delete(Vec<u8>),
    Pop,
}

/// What a map answers: the value, if it has one to give.
pub(crate) type Answer = Result<Option<Vec<u8>>, Errno>;

/// A twin.
trait Twin {
    fn apply(&mut self, op: &Op) -> Answer;
    /// Everything in it, in the order of keys (or of values, where there are none).
    fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)>;
    /// Whether the order of what is dumped counts.
    fn ordered(&self) -> bool {
        false
    }
}

pub(crate) fn ask(map: &Map, op: &Op) -> Answer {
    let done = match op {
        Op::Lookup(key) => map.lookup(key),
        Op::Update(key, value, flags) => map.update(key, value, *flags).map(|()| None),
        Op::Delete(key) => map.delete(key).map(|()| None),
        Op::Pop => map.pop(),
    };
    done.map_err(|error| error.errno)
}

fn same(map: &Map, mut twin: impl Twin, ops: &[Op]) -> Result<(), TestCaseError> {
    for (at, op) in ops.iter().enumerate() {
        prop_assert_eq!(ask(map, op), twin.apply(op), "operation {}: {:?}", at, op);
    }
    let mut all: Vec<_> = map.dump().into_iter().map(|e| (e.key, e.value)).collect();
    if !twin.ordered() {
        all.sort();
    }
    prop_assert_eq!(&all, &twin.all());
    // The same keys one by one.
    if !all.is_empty() && !all[0].0.is_empty() {
        let mut keys = Vec::new();
        let mut key = None;
        while let Some(next) = map.next_key(key.as_deref()).expect("has keys") {
            keys.push(next.clone());
            key = Some(next);
            prop_assert!(keys.len() <= 1000, "keys go round");
        }
        let there: Vec<_> = keys
            .into_iter()
            .filter(|key| map.lookup(key).expect("a key").is_some())
            .collect();
        prop_assert_eq!(there.len(), all.len());
    }
    Ok(())
}

fn flags_fault(flags: u64) -> Option<Errno> {
    (flags > 2).then_some(Errno::Inval)
}

/// A hash of at most so many.
struct HashTwin {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    most: usize,
}

impl Twin for HashTwin {
    fn apply(&mut self, op: &Op) -> Answer {
        match op {
            Op::Lookup(key) => Ok(self.rows.get(key).cloned()),
            Op::Delete(key) => self.rows.remove(key).map(|_| None).ok_or(Errno::NoEnt),
            Op::Pop => Err(Errno::NotSupp),
            Op::Update(key, value, flags) => {
                if let Some(fault) = flags_fault(*flags) {
                    return Err(fault);
                }
                match (self.rows.contains_key(key), flags) {
                    (true, 1) => return Err(Errno::Exist),
                    (false, 2) => return Err(Errno::NoEnt),
                    (false, _) if self.rows.len() == self.most => return Err(Errno::TooBig),
                    _ => {}
                }
                self.rows.insert(key.clone(), value.clone());
                Ok(None)
            }
        }
    }

    fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.rows.clone().into_iter().collect()
    }
}

/// Key, value, and whether it was used since the hand came by.
type Slot = Option<(Vec<u8>, Vec<u8>, bool)>;

/// Slots in a row with a hand that goes round.
struct LruTwin {
    slots: Vec<Slot>,
    /// Freed slots, longest free first.
    free: VecDeque<usize>,
    hand: usize,
}

impl LruTwin {
    fn new(most: usize) -> Self {
        Self {
            slots: vec![None; most],
            free: (0..most).collect(),
            hand: 0,
        }
    }

    fn find(&self, key: &[u8]) -> Option<usize> {
        let is = |slot: &Slot| slot.as_ref().is_some_and(|s| s.0 == key);
        self.slots.iter().position(is)
    }
}

impl Twin for LruTwin {
    fn apply(&mut self, op: &Op) -> Answer {
        match op {
            // From outside a look-up is no use.
            Op::Lookup(key) => Ok(self
                .find(key)
                .and_then(|at| self.slots[at].as_ref().map(|slot| slot.1.clone()))),
            Op::Delete(key) => {
                let at = self.find(key).ok_or(Errno::NoEnt)?;
                self.slots[at] = None;
                self.free.push_back(at);
                Ok(None)
            }
            Op::Pop => Err(Errno::NotSupp),
            Op::Update(key, value, flags) => {
                if let Some(fault) = flags_fault(*flags) {
                    return Err(fault);
                }
                match (self.find(key), flags) {
                    (Some(_), 1) => return Err(Errno::Exist),
                    (None, 2) => return Err(Errno::NoEnt),
                    (Some(at), _) => {
                        self.slots[at] = Some((key.clone(), value.clone(), true));
                        return Ok(None);
                    }
                    _ => {}
                }
                let at = match self.free.pop_front() {
                    Some(at) => at,
                    None => loop {
                        let at = self.hand;
                        self.hand = (self.hand + 1) % self.slots.len();
                        match &mut self.slots[at] {
                            Some((_, _, used)) if *used => *used = false,
                            _ => break at,
                        }
                    },
                };
                self.slots[at] = Some((key.clone(), value.clone(), false));
                Ok(None)
            }
        }
    }

    fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let slots = self.slots.iter().flatten();
        let mut all: Vec<_> = slots.map(|s| (s.0.clone(), s.1.clone())).collect();
        all.sort();
        all
    }
}

/// A list of prefixes as bits.
struct LpmTwin {
    rows: Vec<(Vec<bool>, Vec<u8>)>,
    most: usize,
}

const BITS: usize = 16;

fn bits(key: &[u8]) -> Option<Vec<bool>> {
    let length = u32::from_ne_bytes(key[..4].try_into().expect("a length")) as usize;
    let all = key[4..]
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
    (length <= BITS).then(|| all.take(length).collect())
}

impl Twin for LpmTwin {
    fn apply(&mut self, op: &Op) -> Answer {
        match op {
            Op::Lookup(key) => {
                let Some(key) = bits(key) else {
                    return Ok(None);
                };
                let matching = self.rows.iter().filter(|row| key.starts_with(&row.0));
                let longest = matching.max_by_key(|row| row.0.len());
                Ok(longest.map(|row| row.1.clone()))
            }
            Op::Delete(key) => {
                let key = bits(key).ok_or(Errno::Inval)?;
                let at = self.rows.iter().position(|row| row.0 == key);
                self.rows.remove(at.ok_or(Errno::NoEnt)?);
                Ok(None)
            }
            Op::Pop => Err(Errno::NotSupp),
            Op::Update(key, value, flags) => {
                if let Some(fault) = flags_fault(*flags) {
                    return Err(fault);
                }
                let key = bits(key).ok_or(Errno::Inval)?;
                let at = self.rows.iter().position(|row| row.0 == key);
                match (at, flags) {
                    (Some(_), 1) => return Err(Errno::Exist),
                    (None, 2) => return Err(Errno::NoEnt),
                    (Some(at), _) => self.rows[at].1 = value.clone(),
                    (None, _) if self.rows.len() == self.most => return Err(Errno::NoSpc),
                    (None, _) => self.rows.push((key, value.clone())),
                }
                Ok(None)
            }
        }
    }

    fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let key = |bits: &[bool]| {
            let mut key = (bits.len() as u32).to_ne_bytes().to_vec();
            key.resize(4 + BITS / 8, 0);
            for (at, bit) in bits.iter().enumerate() {
                key[4 + at / 8] |= u8::from(*bit) << (7 - at % 8);
            }
            key
        };
        let mut all: Vec<_> = self
            .rows
            .iter()
            .map(|row| (key(&row.0), row.1.clone()))
            .collect();
        all.sort();
        all
    }
}

/// A list.
struct ListTwin {
    values: Vec<Vec<u8>>,
    most: usize,
    stack: bool,
}

impl Twin for ListTwin {
    fn apply(&mut self, op: &Op) -> Answer {
        let next = match self.stack {
            true => self.values.len().wrapping_sub(1),
            false => 0,
        };
        match op {
            Op::Lookup(_) => Ok(self.values.get(next).cloned()),
            Op::Pop if self.values.is_empty() => Ok(None),
            Op::Pop => Ok(Some(self.values.remove(next))),
            Op::Delete(_) => Err(Errno::Inval),
            Op::Update(_, value, flags) => {
                match flags {
                    0 if self.values.len() == self.most => return Err(Errno::TooBig),
                    2 if self.values.len() == self.most => drop(self.values.remove(0)),
                    0 | 2 => {}
                    _ => return Err(Errno::Inval),
                }
                self.values.push(value.clone());
                Ok(None)
            }
        }
    }

    fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all: Vec<_> = self
            .values
            .iter()
            .map(|v| (Vec::new(), v.clone()))
            .collect();
        if self.stack {
            all.reverse();
        }
        all
    }

    fn ordered(&self) -> bool {
        true
    }
}

/// A row of values.
struct ArrayTwin(Vec<Vec<u8>>);

impl Twin for ArrayTwin {
    fn apply(&mut self, op: &Op) -> Answer {
        let index = |key: &[u8]| u32::from_ne_bytes(key.try_into().expect("4 bytes")) as usize;
        match op {
            Op::Lookup(key) => Ok(self.0.get(index(key)).cloned()),
            Op::Delete(_) => Err(Errno::Inval),
            Op::Pop => Err(Errno::NotSupp),
            Op::Update(key, value, flags) => {
                if let Some(fault) = flags_fault(*flags) {
                    return Err(fault);
                }
                let to = self.0.get_mut(index(key)).ok_or(Errno::TooBig)?;
                if *flags == 1 {
                    return Err(Errno::Exist);
                }
                *to = value.clone();
                Ok(None)
            }
        }
    }

    fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.0.iter().zip(0u32..);
        rows.map(|(value, index)| (index.to_ne_bytes().to_vec(), value.clone()))
            .collect()
    }
}

/// Operations on few keys, so that they meet.
pub(crate) fn ops(key: BoxedStrategy<Vec<u8>>, value: usize) -> impl Strategy<Value = Vec<Op>> {
    let value = prop::collection::vec(any::<u8>(), value);
    let flags = prop_oneof![4 => Just(0u64), 2 => Just(1), 2 => Just(2), 1 => 3u64..6];
    let op = prop_oneof![
        3 => key.clone().prop_map(Op::Lookup),
        6 => (key.clone(), value, flags).prop_map(|(k, v, f)| Op::Update(k, v, f)),
        2 => key.prop_map(Op::Delete),
        1 => Just(Op::Pop),
    ];
    prop::collection::vec(op, 1..120)
}

pub(crate) fn short_key(bytes: usize) -> BoxedStrategy<Vec<u8>> {
    (0u8..12)
        .prop_map(move |n| {
            let mut key = vec![n; bytes];
            key[0] = n / 3;
            key
        })
        .boxed()
}

pub(crate) fn index() -> BoxedStrategy<Vec<u8>> {
    (0u32..7).prop_map(|n| n.to_ne_bytes().to_vec()).boxed()
}

pub(crate) fn prefix() -> BoxedStrategy<Vec<u8>> {
    (0u32..=BITS as u32 + 1, 0u8..4, any::<u8>())
        .prop_map(|(length, high, low)| {
            let mut key = length.to_ne_bytes().to_vec();
            key.extend([high << 6 | 0x15, low & 0x81]);
            key
        })
        .boxed()
}

proptest! {
    #[test]
    fn hashes((bytes, ops) in prop_oneof![Just(1usize), Just(4), Just(13), Just(64), Just(100)]
        .prop_flat_map(|bytes| (Just(bytes), ops(short_key(bytes), 12))))
    {
        let map = Map::new(&def("h", MapKind::Hash, bytes as u32, 12, 5), 1).expect("map");
        same(&map, HashTwin { rows: BTreeMap::new(), most: 5 }, &ops)?;
    }

    #[test]
    fn hashes_per_cpu(ops in ops(short_key(4), 48)) {
        let map = Map::new(&def("h", MapKind::PercpuHash, 4, 16, 5), 3).expect("map");
        same(&map, HashTwin { rows: BTreeMap::new(), most: 5 }, &ops)?;
    }

    #[test]
    fn least_recently_used(ops in ops(short_key(8), 8)) {
        let map = Map::new(&def("l", MapKind::LruHash, 8, 8, 5), 1).expect("map");
        same(&map, LruTwin::new(5), &ops)?;
    }

    #[test]
    fn longest_prefixes(ops in ops(prefix(), 4)) {
        let map = Map::new(&def("t", MapKind::LpmTrie, 4 + BITS as u32 / 8, 4, 9), 1).expect("map");
        same(&map, LpmTwin { rows: Vec::new(), most: 9 }, &ops)?;
    }

    #[test]
    fn arrays(ops in ops(index(), 10)) {
        let map = Map::new(&def("a", MapKind::Array, 4, 10, 5), 1).expect("map");
        same(&map, ArrayTwin(vec![vec![0; 10]; 5]), &ops)?;
    }

    #[test]
    fn arrays_per_cpu(ops in ops(index(), 16)) {
        let map = Map::new(&def("a", MapKind::PercpuArray, 4, 8, 5), 2).expect("map");
        same(&map, ArrayTwin(vec![vec![0; 16]; 5]), &ops)?;
    }

    #[test]
    fn queues(ops in ops(Just(Vec::new()).boxed(), 5)) {
        let map = Map::new(&def("q", MapKind::Queue, 0, 5, 4), 1).expect("map");
        same(&map, ListTwin { values: Vec::new(), most: 4, stack: false }, &ops)?;
    }

    #[test]
    fn stacks(ops in ops(Just(Vec::new()).boxed(), 8)) {
        let map = Map::new(&def("s", MapKind::Stack, 0, 8, 4), 1).expect("map");
        same(&map, ListTwin { values: Vec::new(), most: 4, stack: true }, &ops)?;
    }
}
