//! Ids across two states: which of one stand for which of the other.
//!
//! Ids are names; two states may use different ones for the same relation. Comparing and joining
//! states therefore pairs them up as it goes.

use super::value::{Id, Packet, Part};

/// Bytes a state knows to be there from the plain start of each part of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    pub(crate) data: i64,
    pub(crate) meta: i64,
}

impl Proven {
    pub(crate) const NOTHING: Self = Self { data: 0, meta: 0 };

    pub(crate) fn of(&self, part: Part) -> i64 {
        match part {
            Part::Data => self.data,
            Part::Meta => self.meta,
        }
    }

    /// Bytes proven from where this pointer's fixed offset counts.
    pub(crate) fn range(&self, p: &Packet) -> i64 {
        if p.id == 0 { self.of(p.part) } else { p.range }
    }
}

/// Pairs of ids while one state is tested to include another.
#[derive(Debug)]
pub(crate) struct Matching<'a> {
    /// (id of the including state, id or place of the other, distance).
    pairs: Vec<(Id, Other, i64)>,
    places: u32,
    /// Records: each of one state stands for one of the other, or for null (0).
    held: Vec<(Id, Id)>,
    new: &'a Proven,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    Id(Id),
    /// A value that is related to no other.
    Place(u32),
}

impl<'a> Matching<'a> {
    pub(crate) fn new(new: &'a Proven) -> Self {
        Self {
            pairs: Vec::new(),
            places: 0,
            held: Vec::new(),
            new,
        }
    }

    /// Values with equal ids in the including state must have equal ids in the other.
    pub(crate) fn same(&mut self, old: Id, new: Id, delta: i64) -> bool {
        if old == 0 {
            return true;
        }
        let other = if new == 0 {
            self.places += 1;
            Other::Place(self.places)
        } else {
            Other::Id(new)
        };
        match self.pairs.iter().find(|(id, ..)| *id == old) {
            Some((_, known, d)) => *known == other && *d == delta,
            None => {
                self.pairs.push((old, other, delta));
                true
            }
        }
    }

    /// As [`Self::same`] for what packet pointers are based on, where 0 is one known base.
    pub(crate) fn same_base(&mut self, old: Id, new: Id) -> bool {
        match self.pairs.iter().find(|(id, ..)| *id == old) {
            Some((_, known, d)) => *known == Other::Id(new) && *d == 0,
            None => {
                self.pairs.push((old, Other::Id(new), 0));
                true
            }
        }
    }

    /// Records are paired one to one.
    pub(crate) fn held(&mut self, old: Id, new: Id) -> bool {
        if old == 0 {
            return new == 0;
        }
        pair(&mut self.held, old, new)
    }

    /// The record of the including state that stands for this one.
    pub(crate) fn holder(&self, new: Id) -> Option<Id> {
        let pair = self.held.iter().find(|(_, n)| *n == new);
        pair.map(|(old, _)| *old)
    }

    pub(crate) fn range(&self, p: &Packet) -> i64 {
        self.new.range(p)
    }
}

/// Notes that two belong together; false if one of them belongs to another. 0 belongs to any.
fn pair(pairs: &mut Vec<(Id, Id)>, old: Id, new: Id) -> bool {
    for (o, n) in pairs.iter() {
        if *o == old {
            return *n == new;
        }
        if new != 0 && *n == new {
            return false;
        }
    }
    pairs.push((old, new));
    true
}

/// How two values of one pair of ids are not the same all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Apart {
    /// One is this far from the other.
    By(i64),
    /// One of them is null, in the left state or in the right.
    Null { left: bool },
}

/// Pairs of ids while two states are joined.
#[derive(Debug)]
pub(crate) struct Joining<'a> {
    pairs: Vec<((Id, Id, Apart), Id)>,
    /// Records: those of the left state, of the right one, joined. 0 where one is null.
    held: Vec<(Id, Id, Id)>,
    next: &'a mut Id,
    left: Proven,
    right: Proven,
}

impl<'a> Joining<'a> {
    pub(crate) fn new(next: &'a mut Id, left: Proven, right: Proven) -> Self {
        Self {
            pairs: Vec::new(),
            held: Vec::new(),
            next,
            left,
            right,
        }
    }

    /// The id of a value related in both states; 0 if it is in neither or only one.
    pub(crate) fn id(&mut self, a: Id, b: Id, delta: i64) -> Id {
        if a == 0 || b == 0 {
            0
        } else {
            self.fresh(a, b, delta)
        }
    }

    /// An id for this pair, the same each time it is asked for.
    pub(crate) fn fresh(&mut self, a: Id, b: Id, delta: i64) -> Id {
        self.paired((a, b, Apart::By(delta)))
    }

    /// An id for a look-up's result that is this one in one state and null in the other.
    pub(crate) fn null(&mut self, lookup: Id, left: bool) -> Id {
        let (a, b) = if left { (0, lookup) } else { (lookup, 0) };
        self.paired((a, b, Apart::Null { left }))
    }

    fn paired(&mut self, key: (Id, Id, Apart)) -> Id {
        if let Some((_, id)) = self.pairs.iter().find(|(k, _)| *k == key) {
            return *id;
        }
        *self.next += 1;
        self.pairs.push((key, *self.next));
        *self.next
    }

    /// An id for a record that is this one in one state and that one, or null (0), in the other. `None`
    /// if one of them is already another's other: what is given back once would be there twice.
    pub(crate) fn held(&mut self, a: Id, b: Id) -> Option<Id> {
        if a == 0 && b == 0 {
            return Some(0);
        }
        for (left, right, id) in &self.held {
            if (*left, *right) == (a, b) {
                return Some(*id);
            }
            if a != 0 && *left == a || b != 0 && *right == b {
                return None;
            }
        }
        *self.next += 1;
        self.held.push((a, b, *self.next));
        Some(*self.next)
    }

    /// Records of the joined state, and whether there are some that no value names any more.
    pub(crate) fn all_held(&mut self, left: &[Id], right: &[Id]) -> (Vec<Id>, bool) {
        let pairs = self.held.iter();
        let live = pairs.filter(|(a, b, _)| left.contains(a) || right.contains(b));
        let all = live.map(|(.., id)| *id).collect();
        let lost_left = left.iter().any(|a| self.held.iter().all(|(l, ..)| l != a));
        let lost_right = right
            .iter()
            .any(|b| self.held.iter().all(|(_, r, _)| r != b));
        (all, lost_left || lost_right)
    }

    pub(crate) fn left(&self, p: &Packet) -> i64 {
        self.left.range(p)
    }

    pub(crate) fn right(&self, p: &Packet) -> i64 {
        self.right.range(p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::own::scalar::Scalar;
    use crate::own::value::{Element, MapRef, Value};

    fn element(id: Id) -> Value {
        Value::Element(Element {
            map: MapRef {
                index: 0,
                inner: false,
            },
            off: Scalar::constant(0),
            id,
            maybe_null: id != 0,
        })
    }

    fn joined(pairs: [(Value, Value); 2]) -> [Value; 2] {
        let mut next = 100;
        let mut joining = Joining::new(&mut next, Proven::NOTHING, Proven::NOTHING);
        pairs.map(|(a, b)| a.join(b, &mut joining))
    }

    fn id(value: Value) -> Id {
        match value {
            Value::Element(e) if e.maybe_null => e.id,
            other => panic!("{other}"),
        }
    }

    /// What is null of one is said to be null of the other only if that was so on both paths.
    #[test]
    fn joined_lookups_share_an_id_only_if_they_are_null_together() {
        let null = Value::constant(0);
        let together = [
            [(element(1), element(2)), (element(1), element(2))],
            [(element(1), null), (element(1), null)],
            [(element(0), null), (element(0), null)],
            [(null, element(2)), (null, element(2))],
        ];
        for pairs in together {
            let [a, b] = joined(pairs);
            assert_eq!(id(a), id(b), "{pairs:?}");
        }
        let apart = [
            [(element(1), null), (element(1), element(0))],
            [(null, element(1)), (element(0), element(1))],
            [(element(0), null), (null, element(0))],
            [(element(1), element(2)), (element(1), element(3))],
        ];
        for pairs in apart {
            let [a, b] = joined(pairs);
            assert_ne!(id(a), id(b), "{pairs:?}");
        }
    }

    #[test]
    fn numbers_are_the_same_after_a_join_only_if_they_were_before() {
        let number = |id| Value::Number {
            set: Scalar::UNKNOWN,
            id,
        };
        let id = |value| match value {
            Value::Number { id, .. } => id,
            other => panic!("{other}"),
        };
        let [a, b] = joined([(number(1), number(2)), (number(1), number(2))]);
        assert!(id(a) == id(b) && id(a) != 0);
        let [a, b] = joined([(number(1), number(2)), (number(1), number(3))]);
        assert_ne!(id(a), id(b));
        let [a, b] = joined([(number(1), number(0)), (number(1), number(0))]);
        assert!(id(a) == 0 && id(b) == 0);
    }

    #[test]
    fn a_state_with_equal_numbers_does_not_include_one_with_different_ones() {
        let number = |id| Value::Number {
            set: Scalar::UNKNOWN,
            id,
        };
        let includes = |old: [Id; 2], new: [Id; 2]| {
            let mut matching = Matching::new(&Proven::NOTHING);
            let mut pairs = old.into_iter().zip(new);
            pairs.all(|(o, n)| number(o).includes(number(n), &mut matching))
        };
        assert!(includes([1, 1], [7, 7]));
        assert!(includes([1, 2], [7, 7]));
        assert!(includes([0, 0], [7, 8]));
        assert!(includes([1, 2], [0, 0]));
        assert!(!includes([1, 1], [7, 8]));
        assert!(!includes([1, 1], [0, 0]));
        assert!(!includes([1, 1], [7, 0]));
    }
}
