//! Every transfer function against every concrete number: exhaustively for few bits, and for 64
//! bits around the places where signs, halves and words wrap.

use dash_bpf::op::{AluOp, Size, Width};
use dash_bpf::semantics;

use super::num::Num;
use super::refine::{Relation, refine};
use super::scalar::Scalar;
use super::tnum::Tnum;

mod eight;

/// Small widths shift by powers of two only.
const B: u32 = 4;
const ALL: u64 = 1 << B;

/// All pairs of known and unknown bits.
fn tnums(bits: u32) -> impl Iterator<Item = Tnum> {
    (0..1u64 << bits).flat_map(move |mask| {
        (0..1u64 << bits)
            .filter(move |value| value & mask == 0)
            .map(move |value| Tnum { value, mask })
    })
}

/// Every set of 4-bit numbers the domain can tell apart that is an unsigned range, a signed range
/// or known bits, and the products of a few of them.
fn nums() -> Vec<Num<B>> {
    let mut all = Vec::new();
    for lo in 0..ALL {
        for hi in lo..ALL {
            all.push(Num::of_unsigned(lo, hi));
        }
    }
    for lo in -8..8 {
        for hi in lo..8 {
            all.push(Num::of_signed(lo, hi));
        }
    }
    all.extend(tnums(B).map(Num::of_bits));
    let some: Vec<Num<B>> = all.iter().copied().step_by(7).collect();
    for a in &some {
        for b in &some {
            all.extend(a.intersect(*b));
        }
    }
    all.sort_by_key(|n| (n.umin, n.umax, n.smin, n.smax, n.bits.value, n.bits.mask));
    all.dedup();
    all
}

fn numbers(n: Num<B>) -> Vec<u64> {
    (0..ALL).filter(|x| n.contains(*x)).collect()
}

/// What the operation does to numbers of `B` bits.
fn concrete<const B: u32>(op: AluOp, a: u64, b: u64) -> u64 {
    let (sa, sb) = (Num::<B>::signed(a), Num::<B>::signed(b));
    let by = (b % u64::from(B)) as u32;
    let result = match op {
        AluOp::Add => a.wrapping_add(b),
        AluOp::Sub => a.wrapping_sub(b),
        AluOp::Mul => a.wrapping_mul(b),
        AluOp::Div => a.checked_div(b).unwrap_or(0),
        AluOp::Mod => a.checked_rem(b).unwrap_or(a),
        AluOp::Sdiv => sa.checked_div(sb).unwrap_or(0) as u64,
        AluOp::Smod => sa.checked_rem(sb).unwrap_or(sa) as u64,
        AluOp::Or => a | b,
        AluOp::And => a & b,
        AluOp::Xor => a ^ b,
        AluOp::Lsh => a << by,
        AluOp::Rsh => a >> by,
        AluOp::Arsh => (sa >> by) as u64,
        AluOp::Mov | AluOp::Movsx8 | AluOp::Movsx16 | AluOp::Movsx32 => b,
    };
    result & Num::<B>::MASK
}

type Abstract<const B: u32> = fn(Num<B>, Num<B>) -> Num<B>;

const fn operations<const B: u32>() -> [(AluOp, Abstract<B>); 13] {
    [
        (AluOp::Add, Num::add),
        (AluOp::Sub, Num::sub),
        (AluOp::Mul, Num::mul),
        (AluOp::Div, Num::div),
        (AluOp::Mod, Num::rem),
        (AluOp::Sdiv, Num::sdiv),
        (AluOp::Smod, Num::smod),
        (AluOp::Or, Num::or),
        (AluOp::And, Num::and),
        (AluOp::Xor, Num::xor),
        (AluOp::Lsh, Num::lsh),
        (AluOp::Rsh, Num::rsh),
        (AluOp::Arsh, Num::arsh),
    ]
}

/// Whether its function is the same with operands exchanged.
fn is_symmetric(op: AluOp) -> bool {
    matches!(op, AluOp::Add | AluOp::Or | AluOp::And | AluOp::Xor)
}

/// The relation that the function asks in the place of this one, operands exchanged.
fn unflipped(relation: Relation) -> Relation {
    match relation {
        Relation::Gt | Relation::Ge | Relation::Sgt | Relation::Sge => relation.flipped(),
        other => other,
    }
}

/// What runs of more bits leave out.
#[test]
fn exchanged_operands_give_the_same() {
    let all = nums();
    for a in &all {
        for b in &all {
            for (op, abstractly) in operations::<B>() {
                if is_symmetric(op) {
                    assert_eq!(abstractly(*a, *b), abstractly(*b, *a), "{op:?} {a:?} {b:?}");
                }
            }
            for relation in Relation::ALL {
                let one = refine(relation, *a, *b);
                let other = refine(relation.flipped(), *b, *a).map(|(b, a)| (a, b));
                assert_eq!(one, other, "{relation:?} {a:?} {b:?}");
            }
        }
    }
}

#[test]
fn every_operation_covers_every_pair_of_numbers() {
    let all: Vec<(Num<B>, Vec<u64>)> = nums().into_iter().map(|n| (n, numbers(n))).collect();
    assert!(all.len() > 300, "{} sets", all.len());
    for (op, abstractly) in operations::<B>() {
        for (a, in_a) in &all {
            for (b, in_b) in &all {
                let result = abstractly(*a, *b);
                let mut seen = 0u32;
                for x in in_a {
                    for y in in_b {
                        seen |= 1 << concrete::<B>(op, *x, *y);
                    }
                }
                for z in 0..ALL {
                    assert!(
                        seen >> z & 1 == 0 || result.contains(z),
                        "{op:?} of {a:?} and {b:?} can be {z}, not in {result:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn one_operand_operations_cover_every_number() {
    for n in nums() {
        for x in numbers(n) {
            assert!(n.neg().contains(x.wrapping_neg() & Num::<B>::MASK), "{n:?}");
            for bits in 1..=B {
                let low = x & ((1 << bits) - 1);
                assert!(n.truncate(bits).contains(low), "{n:?}, {bits} bits");
                let signed = ((low << (64 - bits)) as i64 >> (64 - bits)) as u64;
                let signed = signed & Num::<B>::MASK;
                assert!(n.sign_extend(bits).contains(signed), "{n:?}, {bits} bits");
            }
        }
    }
}

#[test]
fn sets_are_never_empty_and_reducing_loses_no_number() {
    for n in nums() {
        let inside = numbers(n);
        assert!(!inside.is_empty(), "{n:?}");
        let again = n.reduce().expect("not empty");
        assert_eq!(numbers(again), inside, "{n:?}");
    }
}

#[test]
fn joins_and_intersections_are_what_they_say() {
    let all = nums();
    for a in &all {
        for b in all.iter().step_by(3) {
            let joined = a.join(*b);
            assert!(joined.includes(*a) && joined.includes(*b));
            let met = a.intersect(*b);
            for x in 0..ALL {
                let in_both = a.contains(x) && b.contains(x);
                assert!(
                    !in_both || met.is_some_and(|m| m.contains(x)),
                    "{a:?} {b:?}"
                );
                assert!(!(a.contains(x) || b.contains(x)) || joined.contains(x));
                if a.includes(*b) {
                    assert!(!b.contains(x) || a.contains(x), "{a:?} includes {b:?}");
                }
            }
        }
    }
}

fn holds(relation: Relation, a: u64, b: u64, signed: impl Fn(u64) -> i64) -> bool {
    let (sa, sb) = (signed(a), signed(b));
    match relation {
        Relation::Eq => a == b,
        Relation::Ne => a != b,
        Relation::Set => a & b != 0,
        Relation::NotSet => a & b == 0,
        Relation::Lt => a < b,
        Relation::Le => a <= b,
        Relation::Gt => a > b,
        Relation::Ge => a >= b,
        Relation::Slt => sa < sb,
        Relation::Sle => sa <= sb,
        Relation::Sgt => sa > sb,
        Relation::Sge => sa >= sb,
    }
}

#[test]
fn comparisons_keep_every_pair_for_which_they_hold() {
    let all: Vec<(Num<B>, Vec<u64>)> = nums().into_iter().map(|n| (n, numbers(n))).collect();
    for relation in Relation::ALL {
        for (a, in_a) in &all {
            for (b, in_b) in &all {
                let refined = refine(relation, *a, *b);
                for x in in_a {
                    for y in in_b {
                        if holds(relation, *x, *y, Num::<B>::signed) {
                            let (a2, b2) = refined.unwrap_or_else(|| {
                                panic!("{relation:?} of {a:?} and {b:?} holds for {x}, {y}")
                            });
                            assert!(
                                a2.contains(*x) && b2.contains(*y),
                                "{relation:?} of {a:?} and {b:?} loses {x}, {y}: {a2:?}, {b2:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn refinement_is_exact_against_constants_of_unsigned_ranges() {
    // Not needed for soundness: the precision programs rely on.
    for lo in 0..ALL {
        for hi in lo..ALL {
            for c in 0..ALL {
                let (a, b) = (Num::<B>::of_unsigned(lo, hi), Num::constant(c));
                let refined = refine(Relation::Lt, a, b).map(|(a, _)| (a.umin, a.umax));
                let exact = (lo < c).then(|| (lo, hi.min(c.wrapping_sub(1))));
                assert_eq!(refined, exact, "[{lo}, {hi}] < {c}");
            }
        }
    }
}

/// Numbers around every place where something wraps.
fn corners() -> Vec<u64> {
    let mut all = Vec::new();
    for base in [
        0u64,
        1 << 7,
        1 << 8,
        1 << 15,
        1 << 16,
        1 << 31,
        1 << 32,
        (1 << 32) + (1 << 31),
        1 << 63,
        0xffff_ffff_8000_0000,
        0xdead_beef_0000_0000,
    ] {
        for off in -2i64..=2 {
            all.push(base.wrapping_add(off as u64));
        }
    }
    all.extend([5, 31, 33, 63, 64, 65, 0x1234_5678_9abc_def0]);
    all.sort_unstable();
    all.dedup();
    all
}

/// Sets spanned by two corners each, and what comparisons and masks make of them.
fn scalars() -> Vec<Scalar> {
    let corners = corners();
    let mut all = Vec::new();
    for (i, a) in corners.iter().enumerate().step_by(3) {
        all.push(Scalar::constant(*a));
        for b in corners[i..].iter().step_by(7) {
            all.push(Scalar::constant(*a).join(Scalar::constant(*b)));
            all.push(Scalar::of_wide(Num::of_unsigned(*a, *b)));
            let (lo, hi) = ((*a as i64).min(*b as i64), (*a as i64).max(*b as i64));
            all.push(Scalar::of_wide(Num::of_signed(lo, hi)));
            let masked = Scalar::alu(
                Width::W64,
                AluOp::And,
                Scalar::UNKNOWN,
                Scalar::constant(*b),
            );
            all.push(masked);
            for width in [Width::W32, Width::W64] {
                let below =
                    Scalar::refine(width, Relation::Le, Scalar::UNKNOWN, Scalar::constant(*b));
                all.extend(below.map(|(a, _)| a));
                let below = Scalar::refine(width, Relation::Slt, masked, Scalar::constant(*a));
                all.extend(below.map(|(a, _)| a));
            }
        }
    }
    all.push(Scalar::UNKNOWN);
    all.sort_by_key(|s| format!("{s:?}"));
    all.dedup();
    all
}

const OPS: [AluOp; 17] = [
    AluOp::Add,
    AluOp::Sub,
    AluOp::Mul,
    AluOp::Div,
    AluOp::Sdiv,
    AluOp::Or,
    AluOp::And,
    AluOp::Lsh,
    AluOp::Rsh,
    AluOp::Mod,
    AluOp::Smod,
    AluOp::Xor,
    AluOp::Mov,
    AluOp::Movsx8,
    AluOp::Movsx16,
    AluOp::Movsx32,
    AluOp::Arsh,
];

#[test]
fn words_and_halves_cover_what_the_interpreter_computes() {
    let corners = corners();
    let all: Vec<(Scalar, Vec<u64>)> = scalars()
        .into_iter()
        .map(|s| {
            let inside = corners.iter().copied().filter(|n| s.contains(*n)).collect();
            (s, inside)
        })
        .collect();
    assert!(all.len() > 400, "{} sets", all.len());
    for (i, (a, in_a)) in all.iter().enumerate() {
        // Every 29th partner, beginning elsewhere each time.
        for (b, in_b) in all.iter().skip(i % 29).step_by(29) {
            for width in [Width::W32, Width::W64] {
                for op in OPS {
                    let result = Scalar::alu(width, op, *a, *b);
                    for x in in_a.iter().step_by(3) {
                        for y in in_b.iter().step_by(2) {
                            let z = semantics::alu(width, op, *x, *y);
                            assert!(
                                result.contains(z),
                                "{width:?} {op:?}: {x:#x}, {y:#x} -> {z:#x}, not in {result:?}\n{a:?}\n{b:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn words_and_halves_keep_every_pair_for_which_a_comparison_holds() {
    let corners = corners();
    let all: Vec<(Scalar, Vec<u64>)> = scalars()
        .into_iter()
        .map(|s| {
            let inside = corners.iter().copied().filter(|n| s.contains(*n)).collect();
            (s, inside)
        })
        .collect();
    for (i, (a, in_a)) in all.iter().enumerate() {
        for (b, in_b) in all.iter().skip(i % 41).step_by(41) {
            for relation in Relation::ALL {
                for width in [Width::W32, Width::W64] {
                    let refined = Scalar::refine(width, relation, *a, *b);
                    for x in in_a {
                        for y in in_b.iter().step_by(2) {
                            let cut = |n: u64| match width {
                                Width::W32 => n & 0xffff_ffff,
                                Width::W64 => n,
                            };
                            let sign = |n: u64| match width {
                                Width::W32 => i64::from(n as i32),
                                Width::W64 => n as i64,
                            };
                            if holds(relation, cut(*x), cut(*y), sign) {
                                let kept =
                                    refined.is_some_and(|(a, b)| a.contains(*x) && b.contains(*y));
                                assert!(
                                    kept,
                                    "{width:?} {relation:?} loses {x:#x}, {y:#x}: {refined:?}\n{a:?}\n{b:?}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn one_operand_operations_cover_what_the_interpreter_computes() {
    use dash_bpf::op::Endian;
    let corners = corners();
    for s in scalars() {
        for x in corners.iter().filter(|x| s.contains(**x)) {
            for width in [Width::W32, Width::W64] {
                assert!(s.neg(width).contains(semantics::neg(width, *x)), "{s:?}");
            }
            for order in [Endian::Le, Endian::Be, Endian::Swap] {
                for bits in [16, 32, 64] {
                    let z = semantics::endian(order, bits, *x);
                    assert!(s.endian(order, bits).contains(z), "{order:?}{bits} {s:?}");
                }
            }
            for size in [Size::B, Size::H, Size::W, Size::Dw] {
                let bits = size.bytes() as u32 * 8;
                assert!(s.truncate(bits).contains(semantics::low(size, *x)), "{s:?}");
                let signed = semantics::sign_extend(size, *x);
                assert!(s.sign_extend(size).contains(signed), "{s:?}");
            }
        }
    }
}

#[test]
fn known_bits_cover_every_operation() {
    // The known bits alone: ranges above could hide a fault of theirs.
    let all: Vec<Tnum> = tnums(4).collect();
    let inside = |t: Tnum| (0..16u64).filter(move |n| t.contains(*n));
    type Op = (fn(Tnum, Tnum) -> Tnum, fn(u64, u64) -> u64);
    let ops: [Op; 6] = [
        (Tnum::add, u64::wrapping_add),
        (Tnum::sub, u64::wrapping_sub),
        (Tnum::mul, u64::wrapping_mul),
        (Tnum::and, |a, b| a & b),
        (Tnum::or, |a, b| a | b),
        (Tnum::xor, |a, b| a ^ b),
    ];
    for a in &all {
        for b in &all {
            for (abstractly, concretely) in ops {
                let result = abstractly(*a, *b);
                assert_eq!(result.value & result.mask, 0, "{result:?}");
                for x in inside(*a) {
                    for y in inside(*b) {
                        assert!(result.contains(concretely(x, y)), "{a:?} {b:?}: {x} {y}");
                    }
                }
            }
        }
    }
    for lo in 0..16 {
        for hi in lo..16 {
            assert!((lo..=hi).all(|n| Tnum::range(lo, hi).contains(n)));
        }
    }
}
