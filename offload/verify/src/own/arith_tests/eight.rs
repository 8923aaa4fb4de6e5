//! Numbers of eight bits: every operation and every comparison, on all pairs of ranges, signed and unsigned, and
//! of known bits.
//!
//! Sets of results are told by what a set can be told by: least and greatest, both ways, and bits that
//! all have or none has. Every set but a single number is two smaller ones, so its results are theirs together,
//! and a pair of sets costs one such step beside the operation that is checked.
//!
//! Where a function is the same with its operands exchanged, which `is_symmetric` says and tests of four bits see, one
//! order is enough. A sample of all pairs is a test; all of them take some tens of minutes of two cores:
//! `cargo test --release -p dash-verify -- --ignored --nocapture eight_bits`.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const B: u32 = 8;
const ALL: usize = 1 << B;

/// All there is to know of some numbers.
#[derive(Clone, Copy)]
struct Seen {
    unsigned: (u8, u8),
    signed: (i8, i8),
    ones: u8,
    some: u8,
}

impl Seen {
    const NOTHING: Self = Self {
        unsigned: (u8::MAX, 0),
        signed: (i8::MAX, i8::MIN),
        ones: u8::MAX,
        some: 0,
    };

    fn of(n: u8) -> Self {
        Self {
            unsigned: (n, n),
            signed: (n as i8, n as i8),
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

    fn is_nothing(self) -> bool {
        self.unsigned.0 > self.unsigned.1
    }

    /// Whether `set` has them all: it says no more of its numbers than these three things.
    fn all_in(self, set: Num<B>) -> bool {
        let known = !set.bits.mask as u8;
        let bits = set.bits.value as u8;
        set.umin <= self.unsigned.0.into()
            && u64::from(self.unsigned.1) <= set.umax
            && set.smin <= self.signed.0.into()
            && i64::from(self.signed.1) <= set.smax
            && self.ones & known == bits
            && self.some & known == bits
    }
}

/// What the domain has a description for, and the two sets before it that it is made of; a single number
/// is where its value says.
struct Set {
    num: Num<B>,
    parts: Option<(usize, usize)>,
}

impl Set {
    fn numbers(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|n| self.num.contains((*n).into()))
    }
}

/// Every number, every range of more than one, unsigned and signed, all known bits.
fn sets() -> Vec<Set> {
    let mut all: Vec<Set> = (0..ALL as u64)
        .map(|n| Set {
            num: Num::constant(n),
            parts: None,
        })
        .collect();
    // Where the unsigned ranges are.
    let mut ranges = vec![[0; ALL]; ALL];
    for (from, row) in ranges.iter_mut().enumerate() {
        row[from] = from;
        for to in from + 1..ALL {
            row[to] = all.len();
            all.push(Set {
                num: Num::of_unsigned(from as u64, to as u64),
                parts: Some((row[to - 1], to)),
            });
        }
    }
    // Signed ranges of one sign are unsigned ones; the others are two of them.
    for from in i8::MIN..0 {
        for to in 0..=i8::MAX {
            let negative = ranges[usize::from(from as u8)][ALL - 1];
            all.push(Set {
                num: Num::of_signed(from.into(), to.into()),
                parts: Some((negative, ranges[0][to as usize])),
            });
        }
    }
    let mut bits = vec![[0; ALL]; ALL];
    for tnum in tnums(B) {
        let (mask, value) = (tnum.mask as usize, tnum.value as usize);
        if mask == 0 {
            bits[0][value] = value;
            continue;
        }
        let lowest = mask & mask.wrapping_neg();
        let rest = &bits[mask ^ lowest];
        let parts = (rest[value], rest[value | lowest]);
        bits[mask][value] = all.len();
        all.push(Set {
            num: Num::of_bits(tnum),
            parts: Some(parts),
        });
    }
    all
}

/// For every set what `of_number` says of its numbers together.
fn together<T: Copy>(
    sets: &[Set],
    into: &mut Vec<T>,
    of_number: &[T; ALL],
    and: impl Fn(T, T) -> T,
) {
    into.clear();
    for (index, set) in sets.iter().enumerate() {
        let seen = match set.parts {
            Some((one, other)) => and(into[one], into[other]),
            None => of_number[index],
        };
        into.push(seen);
    }
}

/// How much of all pairs: one left set in so many, and for each one right set in so many.
#[derive(Clone, Copy)]
struct Every {
    left: usize,
    right: usize,
}

impl Every {
    /// Calls `check` with each left set, on all cores, and says how many there were.
    fn left(self, sets: &[Set], check: impl Fn(usize, &Set) + Sync) {
        let next = AtomicUsize::new(0);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(self.left, Ordering::Relaxed);
                        let Some(set) = sets.get(index) else { break };
                        check(index, set);
                    }
                });
            }
        });
    }

    /// The right sets for this left one, from the `first` on.
    fn right<T>(self, left: usize, first: usize, sets: &[T]) -> impl Iterator<Item = (usize, &T)> {
        let from = first + (left / self.left) % self.right;
        sets.iter().enumerate().skip(from).step_by(self.right)
    }
}

fn operation(sets: &[Set], op: AluOp, abstractly: Abstract<B>, every: Every) {
    every.left(sets, |index, left| {
        let mut of_number = [Seen::NOTHING; ALL];
        for x in left.numbers() {
            for (y, seen) in (0..=u8::MAX).zip(&mut of_number) {
                let result = concrete::<B>(op, x.into(), y.into());
                *seen = seen.and(Seen::of(result as u8));
            }
        }
        let mut seen = Vec::with_capacity(sets.len());
        together(sets, &mut seen, &of_number, Seen::and);
        let first = if is_symmetric(op) { index } else { 0 };
        for (at, right) in every.right(index, first, sets) {
            let result = abstractly(left.num, right.num);
            assert!(
                seen[at].all_in(result),
                "{op:?} of {:?} and {:?}: {result:?}",
                left.num,
                right.num
            );
        }
    });
}

fn comparison(sets: &[Set], relation: Relation, every: Every) {
    every.left(sets, |index, left| {
        // Left numbers for which it holds with this right one, and the right one if there are any.
        let mut of_number = [(Seen::NOTHING, Seen::NOTHING); ALL];
        for x in left.numbers() {
            for (y, seen) in (0..=u8::MAX).zip(&mut of_number) {
                if holds(relation, x.into(), y.into(), Num::<B>::signed) {
                    *seen = (seen.0.and(Seen::of(x)), Seen::of(y));
                }
            }
        }
        let mut seen = Vec::with_capacity(sets.len());
        together(sets, &mut seen, &of_number, |a, b| {
            (a.0.and(b.0), a.1.and(b.1))
        });
        let symmetric = relation.flipped() == relation;
        let first = if symmetric { index } else { 0 };
        for (at, right) in every.right(index, first, sets) {
            let (x, y) = seen[at];
            if x.is_nothing() {
                continue;
            }
            let refined = refine(relation, left.num, right.num);
            assert!(
                refined.is_some_and(|(a, b)| x.all_in(a) && y.all_in(b)),
                "{relation:?} of {:?} and {:?}: {refined:?}",
                left.num,
                right.num
            );
        }
    });
}

fn every_function(every: Every) {
    let sets = sets();
    assert_eq!(sets.len(), 55_585);
    let started = std::time::Instant::now();
    for (op, abstractly) in operations::<B>() {
        operation(&sets, op, abstractly, every);
        eprintln!("{op:?} holds, {} s", started.elapsed().as_secs());
    }
    // The others are these with their operands exchanged.
    let relations = Relation::ALL.into_iter();
    for relation in relations.filter(|r| *r == unflipped(*r)) {
        comparison(&sets, relation, every);
        eprintln!("{relation:?} holds, {} s", started.elapsed().as_secs());
    }
}

#[test]
fn sets_of_eight_bits_are_made_of_their_parts() {
    let sets = sets();
    let inside: Vec<Vec<u8>> = sets.iter().map(|set| set.numbers().collect()).collect();
    for (set, numbers) in sets.iter().zip(&inside) {
        let Some((one, other)) = set.parts else {
            assert_eq!(numbers.len(), 1);
            continue;
        };
        let mut together = [&inside[one][..], &inside[other]].concat();
        together.sort_unstable();
        assert_eq!(numbers, &together, "{:?}", set.num);
    }
}

#[test]
fn one_operand_operations_cover_every_number_of_eight_bits() {
    for set in sets() {
        let num = set.num;
        let negated = num.neg();
        let cut: Vec<_> = (1..=B)
            .map(|bits| (bits, num.truncate(bits), num.sign_extend(bits)))
            .collect();
        for x in set.numbers() {
            assert!(negated.contains(x.wrapping_neg().into()), "{num:?}");
            for (bits, low, signed) in &cut {
                let by = B - bits;
                let (x, y) = (x << by >> by, (x << by) as i8 >> by);
                let kept = low.contains(x.into()) && signed.contains((y as u8).into());
                assert!(kept, "{num:?}, {bits} bits: {x}, {y}");
            }
        }
    }
}

#[test]
fn a_sample_of_eight_bits_is_covered() {
    every_function(Every {
        left: 2999,
        right: 61,
    });
}

#[test]
#[ignore = "tens of minutes"]
fn eight_bits_are_covered() {
    every_function(Every { left: 1, right: 1 });
}
