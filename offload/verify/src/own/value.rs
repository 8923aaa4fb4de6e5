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

/// A map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapRef {
    /// In the object.
    pub(crate) index: u32,
    /// Not that map, but one found in it.
    pub(crate) inner: bool,
}

/// A pointer into memory of a size of its own: a record of a ring buffer, or a key that a helper shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Of a record: which one. It is among [`State::held`](super::state::State::held), and no other
    /// has its id. 0 for what need not be given back.
    pub(crate) id: Id,
    pub(crate) size: u32,
    pub(crate) off: Scalar,
    pub(crate) maybe_null: bool,
    pub(crate) writable: bool,
}

/// A pointer into a map's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) map: MapRef,
    pub(crate) off: Scalar,
    /// Which look-up it came from, while it may be null.
    pub(crate) id: Id,
    pub(crate) maybe_null: bool,
}

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing is known: maybe never written, maybe an address. It cannot be read.
    Unusable,
    /// Never written, or cleared by a call, on some path, and an address on none. It cannot be read.
    Unwritten,
    /// Written on all paths, and maybe an address: a pointer that a call made invalid, or values of different kinds
    /// on joined paths. It can be copied, and nothing else.
    Opaque,
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
    Memory(Memory),
    /// A map itself.
    Map(MapRef),
    /// What a look-up in a map of maps found, or null.
    MaybeMap {
        outer: u32,
        id: Id,
    },
    /// The function that starts at this slot.
    Function(usize),
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
        !matches!(self, Self::Unusable | Self::Unwritten | Self::Number { .. })
    }

    /// Whether more can be done with it than to copy it.
    fn is_usable(self) -> bool {
        self.is_written() && self != Self::Opaque
    }

    /// Whether it may be read: written on every path.
    fn is_written(self) -> bool {
        !matches!(self, Self::Unusable | Self::Unwritten)
    }

    pub(crate) fn is_null(self) -> bool {
        self.known() == Some(0)
    }

    /// Of what may be null: which call it came from.
    pub(crate) fn maybe_null(self) -> Option<Id> {
        match self {
            Self::Element(e) if e.maybe_null => Some(e.id),
            Self::Memory(m) if m.maybe_null => Some(m.id),
            Self::MaybeMap { id, .. } => Some(id),
            _ => None,
        }
    }

    /// What may be null, once that is known not to be or to be.
    pub(crate) fn resolved(self, found: bool) -> Self {
        match self {
            _ if !found => Self::constant(0),
            Self::Element(e) => Self::Element(Element {
                maybe_null: false,
                id: 0,
                ..e
            }),
            Self::Memory(m) => Self::Memory(Memory {
                maybe_null: false,
                ..m
            }),
            Self::MaybeMap { outer: index, .. } => Self::Map(MapRef { index, inner: true }),
            other => other,
        }
    }

    /// Everything `new` may be, `self` may be. What holds for all of `self` then holds for `new`.
    pub(crate) fn includes(self, new: Self, matching: &mut Matching<'_>) -> bool {
        match (self, new) {
            (Self::Unusable, _) => true,
            (Self::Unwritten, new) => !new.is_pointer() && new != Self::Unusable,
            (Self::Opaque, new) => new.is_written(),
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
            (Self::Memory(a), Self::Memory(b)) => {
                (a.size, a.writable) == (b.size, b.writable)
                    && a.off.includes(b.off)
                    && (a.maybe_null || !b.maybe_null)
                    && matching.held(a.id, b.id)
            }
            (Self::Memory(a), n) => a.maybe_null && n.is_null() && matching.held(a.id, 0),
            (Self::MaybeMap { outer: a, id: i }, Self::MaybeMap { outer: b, id: j }) => {
                a == b && matching.same(i, j, 0)
            }
            (Self::MaybeMap { outer, id }, n) => {
                let found = MapRef {
                    index: outer,
                    inner: true,
                };
                (n.is_null() || n == Self::Map(found)) && matching.same(id, 0, 0)
            }
            (a, b) => a == b,
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
            (Self::Memory(a), Self::Memory(b)) if (a.size, a.writable) == (b.size, b.writable) => {
                match joining.held(a.id, b.id) {
                    Some(id) => Self::Memory(Memory {
                        id,
                        off: a.off.join(b.off),
                        maybe_null: a.maybe_null || b.maybe_null,
                        ..a
                    }),
                    None => Self::Opaque,
                }
            }
            (Self::Memory(a), n) | (n, Self::Memory(a))
                if n.is_null() && a.off.known() == Some(0) =>
            {
                let (left, right) = if self.is_null() { (0, a.id) } else { (a.id, 0) };
                match joining.held(left, right) {
                    Some(id) => Self::Memory(Memory {
                        id,
                        maybe_null: true,
                        ..a
                    }),
                    None => Self::Opaque,
                }
            }
            (Self::MaybeMap { outer: a, id: i }, Self::MaybeMap { outer: b, id: j }) if a == b => {
                let id = joining.fresh(i, j, 0);
                Self::MaybeMap { outer: a, id }
            }
            (Self::MaybeMap { outer, id }, n) | (n, Self::MaybeMap { outer, id })
                if n.is_null() =>
            {
                let id = joining.null(id, self.is_null());
                Self::MaybeMap { outer, id }
            }
            (a, b) if a == b => a,
            (a, b) if a.is_written() && b.is_written() => Self::Opaque,
            (Self::Unwritten, Self::Number { .. }) | (Self::Number { .. }, Self::Unwritten) => {
                Self::Unwritten
            }
            _ => Self::Unusable,
        }
    }

    /// What is left of this when it keeps changing to something that includes it.
    pub(crate) fn widen(self, next: Self) -> Self {
        match (self, next) {
            (Self::Number { set: a, .. }, Self::Number { set: b, .. }) if !a.includes(b) => {
                Self::UNKNOWN
            }
            (Self::Stack { off: a, .. }, Self::Stack { off: b, .. }) if !a.includes(b) => {
                Self::Opaque
            }
            (Self::Element(Element { off: a, .. }), Self::Element(Element { off: b, .. }))
            | (Self::Memory(Memory { off: a, .. }), Self::Memory(Memory { off: b, .. }))
                if !a.includes(b) =>
            {
                Self::Opaque
            }
            (Self::Packet(a), Self::Packet(b))
                if a.fixed != b.fixed || !a.var.includes(b.var) || a.range > b.range =>
            {
                Self::Opaque
            }
            _ => next,
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
            (Self::Packet(_), Self::Packet(_))
            | (Self::Element(_), Self::Element(_))
            | (Self::Memory(_), Self::Memory(_)) => 12,
            (Self::Stack { .. }, Self::Stack { .. }) => 20,
            (a, b) if !a.is_usable() || !b.is_usable() => 24,
            _ => 64,
        }
    }
}

impl fmt::Display for MapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = if self.inner { "a map of " } else { "" };
        write!(f, "{of}map {}", self.index)
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
            Self::Unwritten => write!(f, "unwritten"),
            Self::Opaque => write!(f, "something invalid or of different kinds"),
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
                write!(f, "value of {}{null}(+ {})", e.map, e.off)
            }
            Self::Memory(m) => {
                let null = if m.maybe_null { " or null" } else { "" };
                match m.id {
                    0 => write!(f, "{} bytes{null}(+ {})", m.size, m.off),
                    id => write!(f, "record#{id} of {} bytes{null}(+ {})", m.size, m.off),
                }
            }
            Self::Map(map) => write!(f, "{map}"),
            Self::MaybeMap { outer, .. } => write!(f, "a map of map {outer} or null"),
            Self::Function(pc) => write!(f, "function at {pc}"),
        }
    }
}
