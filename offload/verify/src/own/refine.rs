//! What a comparison tells of its operands.

use dash_bpf::op::Cond;

use super::num::Num;
use super::tnum::Tnum;

/// A comparison or the opposite of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Eq,
    Ne,
    /// They have a bit in common.
    Set,
    /// They have none.
    NotSet,
    Lt,
    Le,
    Gt,
    Ge,
    Slt,
    Sle,
    Sgt,
    Sge,
}

impl Relation {
    /// What holds where a conditional jump is taken, or is not.
    pub(crate) fn of(cond: Cond, taken: bool) -> Self {
        let holds = match cond {
            Cond::Eq => Self::Eq,
            Cond::Ne => Self::Ne,
            Cond::Set => Self::Set,
            Cond::Gt => Self::Gt,
            Cond::Ge => Self::Ge,
            Cond::Lt => Self::Lt,
            Cond::Le => Self::Le,
            Cond::Sgt => Self::Sgt,
            Cond::Sge => Self::Sge,
            Cond::Slt => Self::Slt,
            Cond::Sle => Self::Sle,
        };
        if taken { holds } else { holds.opposite() }
    }

    fn opposite(self) -> Self {
        match self {
            Self::Eq => Self::Ne,
            Self::Ne => Self::Eq,
            Self::Set => Self::NotSet,
            Self::NotSet => Self::Set,
            Self::Lt => Self::Ge,
            Self::Ge => Self::Lt,
            Self::Le => Self::Gt,
            Self::Gt => Self::Le,
            Self::Slt => Self::Sge,
            Self::Sge => Self::Slt,
            Self::Sle => Self::Sgt,
            Self::Sgt => Self::Sle,
        }
    }

    /// The same said of `(b, a)`.
    pub(crate) fn flipped(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::Gt => Self::Lt,
            Self::Le => Self::Ge,
            Self::Ge => Self::Le,
            Self::Slt => Self::Sgt,
            Self::Sgt => Self::Slt,
            Self::Sle => Self::Sge,
            Self::Sge => Self::Sle,
            same => same,
        }
    }

    #[cfg(test)]
    pub(crate) const ALL: [Self; 12] = [
        Self::Eq,
        Self::Ne,
        Self::Set,
        Self::NotSet,
        Self::Lt,
        Self::Le,
        Self::Gt,
        Self::Ge,
        Self::Slt,
        Self::Sle,
        Self::Sgt,
        Self::Sge,
    ];
}

/// The operands where the relation holds; `None` where it cannot.
pub(crate) fn refine<const B: u32>(
    relation: Relation,
    mut a: Num<B>,
    mut b: Num<B>,
) -> Option<(Num<B>, Num<B>)> {
    match relation {
        Relation::Eq => {
            let both = a.intersect(b)?;
            return Some((both, both));
        }
        Relation::Ne => {
            let (was_a, was_b) = (a, b);
            if let Some(b) = was_b.known() {
                a = without(a, b)?;
            }
            if let Some(a) = was_a.known() {
                b = without(b, a)?;
            }
            return Some((a, b));
        }
        Relation::Set => {
            let (was_a, was_b) = (a, b);
            let common = (a.bits.value | a.bits.mask) & (b.bits.value | b.bits.mask);
            if common == 0 {
                return None;
            }
            // Only one bit can be it.
            if common.is_power_of_two() {
                let it = Tnum {
                    value: common,
                    mask: Num::<B>::MASK & !common,
                };
                a = with_bits(was_a, it)?;
                b = with_bits(was_b, it)?;
            }
            return Some((a, b));
        }
        Relation::NotSet => {
            let (ones_a, ones_b) = (a.bits.value, b.bits.value);
            let zeros = |ones: u64| Tnum {
                value: 0,
                mask: Num::<B>::MASK & !ones,
            };
            return Some((with_bits(a, zeros(ones_b))?, with_bits(b, zeros(ones_a))?));
        }
        Relation::Lt => {
            a.umax = a.umax.min(b.umax.checked_sub(1)?);
            b.umin = b.umin.max(a.umin.checked_add(1)?);
        }
        Relation::Le => {
            a.umax = a.umax.min(b.umax);
            b.umin = b.umin.max(a.umin);
        }
        Relation::Slt => {
            a.smax = a.smax.min(b.smax.checked_sub(1)?);
            b.smin = b.smin.max(a.smin.checked_add(1)?);
        }
        Relation::Sle => {
            a.smax = a.smax.min(b.smax);
            b.smin = b.smin.max(a.smin);
        }
        Relation::Gt | Relation::Ge | Relation::Sgt | Relation::Sge => {
            let (b, a) = refine(relation.flipped(), b, a)?;
            return Some((a, b));
        }
    }
    Some((a.reduce()?, b.reduce()?))
}

fn with_bits<const B: u32>(a: Num<B>, bits: Tnum) -> Option<Num<B>> {
    a.intersect(Num {
        bits,
        ..Num::UNKNOWN
    })
}

/// The numbers of `a` but `n`, where that can be said.
fn without<const B: u32>(mut a: Num<B>, n: u64) -> Option<Num<B>> {
    if a.known() == Some(n) {
        return None;
    }
    let signed = Num::<B>::signed(n);
    if a.umin == n {
        a.umin += 1;
    }
    if a.umax == n {
        a.umax -= 1;
    }
    if a.smin == signed {
        a.smin += 1;
    }
    if a.smax == signed {
        a.smax -= 1;
    }
    a.reduce()
}
