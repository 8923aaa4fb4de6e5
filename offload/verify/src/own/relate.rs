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

/// Pairs of ids while two states are joined.
#[derive(Debug)]
pub(crate) struct Joining<'a> {
    pairs: Vec<((Id, Id, i64), Id)>,
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
        let key = (a, b, delta);
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
