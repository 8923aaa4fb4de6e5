//! What a register or a spilled register holds.

use std::fmt;

use super::relate::{Joining, Matching};
use super::scalar::Scalar;

/// Says that two values are the same number, or that pointers were moved by the same number. 0
/// says nothing. Every other id is given out once in a walk.
pub(crate) type Id = u32;

/// The two parts of a packet a pointer can be based in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// From `data` to `data_end`.
    Data,
    /// From `data_meta` to `data`.
    Meta,
}

/// A pointer into the packet: `base + var + fixed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) part: Part,
    /// Which unknown number `var` is; 0 if it is none, and then `var` is 0.
    pub(crate) id: Id,
    pub(crate) var: Scalar,
    pub(crate) fixed: i64,
    /// Bytes from `base + var` proven to be there. For id 0 the state knows.
    pub(crate) range: i64,
}

/// A pointer into a map's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) map: u32,
    pub(crate) off: Scalar,
    /// Which look-up it came from, while it may be null.
    pub(crate) id: Id,
    pub(crate) maybe_null: bool,
}

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing that may be read: never written, gone, or of different kinds on joined paths.
    Unusable,
    Number {
        set: Scalar,
        id: Id,
    },
    /// The context plus a constant.
    Context(i64),
    Packet(Packet),
    PacketEnd,
    /// r10 of this frame plus an offset.
    Stack {
        frame: usize,
        off: Scalar,
    },
    Element(Element),
    /// A map itself.
    Map(u32),
}

impl Value {
    pub(crate) const UNKNOWN: Self = Self::Number {
        set: Scalar::UNKNOWN,
        id: 0,
    };

    pub(crate) fn number(set: Scalar) -> Self {
        Self::Number { set, id: 0 }
    }

    pub(crate) fn constant(n: u64) -> Self {
        Self::number(Scalar::constant(n))
    }

    pub(crate) fn known(self) -> Option<u64> {
        match self {
            Self::Number { set, .. } => set.known(),
            _ => None,
        }
    }

    /// Anything but a number: what must not be read in part, nor leak.
    pub(crate) fn is_pointer(self) -> bool {
        !matches!(self, Self::Unusable | Self::Number { .. })
    }

    pub(crate) fn is_null(self) -> bool {
        self.known() == Some(0)
    }

    /// Everything `new` may be, `self` may be. What holds for all of `self` then holds for `new`.
    pub(crate) fn includes(self, new: Self, matching: &mut Matching<'_>) -> bool {
        match (self, new) {
            (Self::Unusable, _) => true,
            (Self::Number { set, id }, Self::Number { set: n, id: m }) => {
                set.includes(n) && matching.same(id, m, 0)
            }
            (Self::Context(a), Self::Context(b)) => a == b,
            (Self::Packet(a), Self::Packet(b)) => {
                if a.part != b.part || a.fixed != b.fixed {
                    return false;
                }
                if a.id == 0 {
                    return b.id == 0;
                }
                a.var.includes(b.var)
                    && a.range <= matching.range(&b)
                    && matching.same_base(a.id, b.id)
            }
            (Self::PacketEnd, Self::PacketEnd) => true,
            (Self::Stack { frame: f, off: a }, Self::Stack { frame: g, off: b }) => {
                f == g && a.includes(b)
            }
            (Self::Element(a), Self::Element(b)) => {
                a.map == b.map
                    && a.off.includes(b.off)
                    && (a.maybe_null || !b.maybe_null)
                    && matching.same(a.id, b.id, 0)
            }
            (Self::Element(a), n) => a.maybe_null && n.is_null() && matching.same(a.id, 0, 0),
            (Self::Map(a), Self::Map(b)) => a == b,
            _ => false,
        }
    }

    /// A value that includes both.
    pub(crate) fn join(self, other: Self, joining: &mut Joining<'_>) -> Self {
        match (self, other) {
            (Self::Number { set: a, id: i }, Self::Number { set: b, id: j }) => Self::Number {
                set: a.join(b),
                id: joining.id(i, j, 0),
            },
            (Self::Packet(a), Self::Packet(b)) if a.part == b.part => {
                if a.id == 0 && b.id == 0 && a.fixed == b.fixed {
                    return self;
                }
                let fixed = a.fixed.min(b.fixed);
                let (left, right) = (a.fixed - fixed, b.fixed - fixed);
                let range = (joining.left(&a) - left).min(joining.right(&b) - right);
                Self::Packet(Packet {
                    part: a.part,
                    id: joining.fresh(a.id, b.id, left - right),
                    var: a.var.plus(left).join(b.var.plus(right)),
                    fixed,
                    range,
                })
            }
            (Self::Stack { frame: f, off: a }, Self::Stack { frame: g, off: b }) if f == g => {
                Self::Stack {
                    frame: f,
                    off: a.join(b),
                }
            }
            (Self::Element(a), Self::Element(b)) if a.map == b.map => {
                let maybe_null = a.maybe_null || b.maybe_null;
                Self::Element(Element {
                    map: a.map,
                    off: a.off.join(b.off),
                    id: if maybe_null {
                        joining.fresh(a.id, b.id, 0)
                    } else {
                        0
                    },
                    maybe_null,
                })
            }
            (Self::Element(a), n) | (n, Self::Element(a))
                if n.is_null() && a.off.known() == Some(0) =>
            {
                Self::Element(Element {
                    id: joining.null(a.id, self.is_null()),
                    maybe_null: true,
                    ..a
                })
            }
            (a, b) if a == b => a,
            _ => Self::Unusable,
        }
    }

    /// How much is lost when these are joined; only compared with other such numbers.
    pub(crate) fn distance(self, other: Self) -> u32 {
        match (self, other) {
            (a, b) if a == b => 0,
            (Self::Number { set: a, .. }, Self::Number { set: b, .. }) => {
                match (a.known(), b.known()) {
                    _ if a == b => 1,
                    (Some(_), Some(_)) => 8,
                    _ => 4,
                }
            }
            (Self::Packet(_), Self::Packet(_)) | (Self::Element(_), Self::Element(_)) => 12,
            (Self::Stack { .. }, Self::Stack { .. }) => 20,
            (Self::Unusable, _) | (_, Self::Unusable) => 24,
            _ => 64,
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(n) = self.known() {
            return if n > 0xffff && (n as i64) > -0x1_0000 && (n as i64) < 0 {
                write!(f, "{}", n as i64)
            } else if n > 9 {
                write!(f, "{n:#x}")
            } else {
                write!(f, "{n}")
            };
        }
        if *self == Self::UNKNOWN {
            return write!(f, "any");
        }
        let n = &self.wide;
        let mut parts = Vec::new();
        if n.umin != 0 || n.umax != u64::MAX {
            parts.push(format!("{:#x}..={:#x}", n.umin, n.umax));
        }
        if (n.smin != i64::MIN || n.smax != i64::MAX)
            && (n.smin < 0 || n.umin as i64 != n.smin || n.umax as i64 != n.smax)
        {
            parts.push(format!("signed {}..={}", n.smin, n.smax));
        }
        let range = super::tnum::Tnum::range(n.umin, n.umax);
        if n.bits != range {
            parts.push(format!("bits {:#x}/{:#x}", n.bits.value, n.bits.mask));
        }
        let low = self.low();
        let implied = Scalar::of_wide(*n).low();
        if low != implied {
            parts.push(format!(
                "low {:#x}..={:#x} signed {}..={}",
                low.umin, low.umax, low.smin, low.smax
            ));
        }
        if parts.is_empty() {
            parts.push("any".to_owned());
        }
        write!(f, "{}", parts.join(", "))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable => write!(f, "unusable"),
            Self::Number { set, id: 0 } => write!(f, "number({set})"),
            Self::Number { set, id } => write!(f, "number#{id}({set})"),
            Self::Context(off) => write!(f, "context({off:+})"),
            Self::Packet(p) => {
                let base = match p.part {
                    Part::Data => "data",
                    Part::Meta => "data_meta",
                };
                match p.id {
                    0 => write!(f, "packet({base}{:+})", p.fixed),
                    id => write!(
                        f,
                        "packet({base}{:+} + #{id}({}), {} bytes proven)",
                        p.fixed, p.var, p.range
                    ),
                }
            }
            Self::PacketEnd => write!(f, "data_end"),
            Self::Stack { frame, off } => match off.known() {
                Some(off) => write!(f, "stack{frame}({:+})", off as i64),
                None => write!(f, "stack{frame}(+ {off})"),
            },
            Self::Element(e) => {
                let null = if e.maybe_null { " or null" } else { "" };
                write!(f, "value of map {}{null}(+ {})", e.map, e.off)
            }
            Self::Map(map) => write!(f, "map {map}"),
        }
    }
}
