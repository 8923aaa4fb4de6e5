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

    pub(crate) fn range(&self, p: &Packet) -> i64 {
        self.new.range(p)
    }
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
    next: &'a mut Id,
    left: Proven,
    right: Proven,
}

impl<'a> Joining<'a> {
    pub(crate) fn new(next: &'a mut Id, left: Proven, right: Proven) -> Self {
        Self {
            pairs: Vec::new(),
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
    use crate::own::value::{Element, Value};

    fn element(id: Id) -> Value {
        Value::Element(Element {
            map: 0,
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
