//! Numbers of eight bits. Sets of results are told by what a set can be told by: least and greatest, both
//! ways, and bits that all have or none has; so a pair of sets costs what a few numbers do.
//!
//! A sample of all pairs is a test; all of them take hours of a core:
//! `cargo test --release -p dash-verify -- --ignored eight_bits`.

use super::*;

const B: u32 = 8;
const ALL: u64 = 1 << B;

/// All there is to know of some numbers.
#[derive(Clone, Copy)]
struct Seen {
    unsigned: (u64, u64),
    signed: (i64, i64),
    ones: u64,
    some: u64,
}

impl Seen {
    const NOTHING: Self = Self {
        unsigned: (u64::MAX, 0),
        signed: (i64::MAX, i64::MIN),
        ones: u64::MAX,
        some: 0,
    };

    fn of(n: u64) -> Self {
        let signed = Num::<B>::signed(n);
        Self {
            unsigned: (n, n),
            signed: (signed, signed),
            ones: n,
            some: n,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            unsigned: (
                self.unsigned.0.min(other.unsigned.0),
                self.unsigned.1.max(other.unsigned.1),
            ),
            signed: (
                self.signed.0.min(other.signed.0),
                self.signed.1.max(other.signed.1),
            ),
            ones: self.ones & other.ones,
            some: self.some | other.some,
        }
    }

    fn all_in(self, set: Num<B>) -> bool {
        let known = !set.bits.mask;
        set.umin <= self.unsigned.0
            && self.unsigned.1 <= set.umax
            && set.smin <= self.signed.0
            && self.signed.1 <= set.smax
            && self.ones & known == set.bits.value
            && self.some & known == set.bits.value
    }
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Unsigned,
    Signed,
}

impl Order {
    fn number(self, place: u64) -> u64 {
        match self {
            Self::Unsigned => place,
            Self::Signed => place.wrapping_sub(ALL / 2) & Num::<B>::MASK,
        }
    }

    fn set(self, from: u64, to: u64) -> Num<B> {
        let signed = |place: u64| place as i64 - (ALL / 2) as i64;
        match self {
            Self::Unsigned => Num::of_unsigned(from, to),
            Self::Signed => Num::of_signed(signed(from), signed(to)),
        }
    }
}

/// Every operation on pairs of ranges; `step` leaves starts out.
fn ranges(op: AluOp, abstractly: Abstract<B>, order: (Order, Order), step: [usize; 3]) {
    for a in (0..ALL).step_by(step[0]) {
        // By right operand: results for all left ones so far.
        let mut column = [Seen::NOTHING; ALL as usize];
        for b in a..ALL {
            let left = order.0.number(b);
            for (place, seen) in (0..ALL).zip(&mut column) {
                *seen = seen.and(Seen::of(concrete::<B>(op, left, order.1.number(place))));
            }
            if !(b as usize - a as usize).is_multiple_of(step[1]) {
                continue;
            }
            let one = order.0.set(a, b);
            for c in (0..ALL).step_by(step[2]) {
                let mut seen = Seen::NOTHING;
                for d in c..ALL {
                    seen = seen.and(column[d as usize]);
                    let other = order.1.set(c, d);
                    let result = abstractly(one, other);
                    assert!(
                        seen.all_in(result),
                        "{op:?} of {one:?} and {other:?}: {result:?}"
                    );
                }
            }
        }
    }
}

/// Every operation on pairs of known bits.
fn bits(op: AluOp, abstractly: Abstract<B>, step: usize) {
    let all: Vec<Tnum> = tnums(B).collect();
    let inside = |t: Tnum| (0..ALL).filter(move |n| t.contains(*n));
    for (i, a) in all.iter().enumerate().step_by(step) {
        for b in all.iter().skip(i % step).step_by(step) {
            let (one, other) = (Num::<B>::of_bits(*a), Num::of_bits(*b));
            let result = abstractly(one, other);
            for x in inside(*a) {
                for y in inside(*b) {
                    let z = concrete::<B>(op, x, y);
                    assert!(
                        result.contains(z),
                        "{op:?} of {one:?} and {other:?} can be {z}"
                    );
                }
            }
        }
    }
}

/// Comparisons of ranges and known bits with every constant, either way round.
fn comparisons(step: usize) {
    let mut sets: Vec<Num<B>> = Vec::new();
    for from in 0..ALL {
        for to in from..ALL {
            sets.push(Num::of_unsigned(from, to));
            sets.push(Order::Signed.set(from, to));
        }
    }
    sets.extend(tnums(B).map(Num::of_bits));
    for set in sets.into_iter().step_by(step) {
        for n in (0..ALL).step_by(step.min(7)) {
            let constant = Num::constant(n);
            for relation in Relation::ALL {
                let left = refine(relation, set, constant);
                let right = refine(relation, constant, set);
                for x in (0..ALL).filter(|x| set.contains(*x)) {
                    let signed = Num::<B>::signed;
                    let kept = |refined: Option<(Num<B>, Num<B>)>, a, b| {
                        let kept = refined.is_some_and(|(x, y)| x.contains(a) && y.contains(b));
                        kept || !holds(relation, a, b, signed)
                    };
                    assert!(
                        kept(left, x, n),
                        "{relation:?} of {set:?} and {n} loses {x}"
                    );
                    assert!(
                        kept(right, n, x),
                        "{relation:?} of {n} and {set:?} loses {x}"
                    );
                }
            }
        }
    }
}

fn every_operation(range_step: [usize; 3], bit_step: usize, comparison_step: usize) {
    use Order::{Signed, Unsigned};
    for (op, abstractly) in operations::<B>() {
        for order in [
            (Unsigned, Unsigned),
            (Signed, Signed),
            (Unsigned, Signed),
            (Signed, Unsigned),
        ] {
            ranges(op, abstractly, order, range_step);
        }
        bits(op, abstractly, bit_step);
        eprintln!("{op:?}: done");
    }
    comparisons(comparison_step);
}

#[test]
fn a_sample_of_eight_bits_is_covered() {
    every_operation([51, 37, 29], 61, 211);
}

#[test]
#[ignore = "hours"]
fn eight_bits_are_covered() {
    every_operation([1, 1, 1], 1, 1);
}
