//! What our own pass knows of a register: its kind, and offsets where they are constant.

use dash_bpf::op::{AluOp, Width};
use dash_bpf::semantics;

/// What is known of a number: its value, or its remainder by a power of two up to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    Const(u64),
    /// `value % modulus == rest`; modulus 1 knows nothing.
    Rest {
        modulus: u64,
        rest: u64,
    },
}

impl Number {
    pub(crate) const ANY: Self = Self::Rest {
        modulus: 1,
        rest: 0,
    };

    /// Remainder by 8 or less.
    fn rest(self) -> (u64, u64) {
        match self {
            Self::Const(c) => (8, c % 8),
            Self::Rest { modulus, rest } => (modulus, rest),
        }
    }

    pub(crate) fn constant(self) -> Option<i64> {
        match self {
            Self::Const(c) => Some(c as i64),
            Self::Rest { .. } => None,
        }
    }

    pub(crate) fn is_multiple_of(self, n: u64) -> bool {
        let (modulus, rest) = self.rest();
        modulus.is_multiple_of(n) && rest.is_multiple_of(n)
    }

    pub(crate) fn join(self, other: Self) -> Self {
        if self == other {
            return self;
        }
        let ((m1, r1), (m2, r2)) = (self.rest(), other.rest());
        let mut modulus = m1.min(m2);
        while r1 % modulus != r2 % modulus {
            modulus /= 2;
        }
        Self::Rest {
            modulus,
            rest: r1 % modulus,
        }
    }

    pub(crate) fn add(self, other: Self) -> Self {
        match (self, other) {
            (Self::Const(a), Self::Const(b)) => Self::Const(a.wrapping_add(b)),
            _ => {
                let ((m1, r1), (m2, r2)) = (self.rest(), other.rest());
                let modulus = m1.min(m2);
                Self::Rest {
                    modulus,
                    rest: (r1 + r2) % modulus,
                }
            }
        }
    }

    pub(crate) fn negate(self) -> Self {
        match self {
            Self::Const(c) => Self::Const(c.wrapping_neg()),
            Self::Rest { modulus, rest } => Self::Rest {
                modulus,
                rest: (modulus - rest) % modulus,
            },
        }
    }

    /// Arithmetic. Remainders by 8 survive truncation to 32 bits.
    pub(crate) fn alu(width: Width, op: AluOp, a: Self, b: Self) -> Self {
        if let (Self::Const(a), Self::Const(b)) = (a, b) {
            return Self::Const(semantics::alu(width, op, a, b));
        }
        let multiple_of = |modulus| Self::Rest { modulus, rest: 0 };
        match (op, b) {
            (AluOp::Mov, Self::Const(c)) => Self::Const(semantics::alu(width, op, 0, c)),
            (AluOp::Mov, _) => b,
            (AluOp::Add, _) => a.add(b),
            (AluOp::Sub, _) => a.add(b.negate()),
            (AluOp::Lsh, Self::Const(by)) if by < 32 => {
                let scale = 1 << by.min(3);
                let (modulus, rest) = a.rest();
                let modulus = (modulus * scale).min(8);
                Self::Rest {
                    modulus,
                    rest: (rest << by.min(3)) % modulus,
                }
            }
            (AluOp::Mul | AluOp::And, _) => {
                let zeros = |n: Self| match n {
                    Self::Const(c) => 1 << c.trailing_zeros().min(3),
                    Self::Rest { modulus, rest: 0 } => modulus,
                    Self::Rest { .. } => 1,
                };
                multiple_of(zeros(a).max(zeros(b)))
            }
            _ => Self::ANY,
        }
    }
}

/// What is known of a register or of 8 bytes of stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing was put there on some path.
    Uninit,
    Number(Number),
    /// The context plus a constant.
    Context(i64),
    /// A packet pointer.
    Packet,
    /// A pointer into the stack frame of this depth, relative to the frame's top.
    Stack {
        frame: usize,
        offset: Option<i64>,
    },
    /// A map of the object.
    Map(u32),
    /// A pointer into a map value, or null; values are 8-byte aligned.
    Element {
        offset: Number,
        read_only: bool,
    },
    /// Several kinds, depending on the path.
    Mixed,
}

impl Value {
    pub(crate) const NUMBER: Self = Self::Number(Number::ANY);

    pub(crate) fn join(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Uninit, _) | (_, Self::Uninit) => Self::Uninit,
            (Self::Number(a), Self::Number(b)) => Self::Number(a.join(b)),
            (Self::Stack { frame: a, .. }, Self::Stack { frame: b, .. }) if a == b => Self::Stack {
                frame: a,
                offset: None,
            },
            (
                Self::Element {
                    offset: a,
                    read_only: ra,
                },
                Self::Element {
                    offset: b,
                    read_only: rb,
                },
            ) => Self::Element {
                offset: a.join(b),
                read_only: ra || rb,
            },
            _ => Self::Mixed,
        }
    }

    /// `self + n` for a pointer.
    fn moved(self, n: Number) -> Self {
        match self {
            Self::Context(at) => match n.constant() {
                Some(n) => Self::Context(at.wrapping_add(n)),
                None => Self::Mixed,
            },
            Self::Packet => Self::Packet,
            Self::Stack { frame, offset } => Self::Stack {
                frame,
                offset: offset.zip(n.constant()).map(|(at, n)| at.wrapping_add(n)),
            },
            Self::Element { offset, read_only } => Self::Element {
                offset: offset.add(n),
                read_only,
            },
            _ => Self::Mixed,
        }
    }

    /// Two-operand arithmetic on initialised values.
    pub(crate) fn alu(width: Width, op: AluOp, a: Self, b: Self) -> Self {
        use Value::Number as N;
        match (width, op, a, b) {
            (Width::W64, AluOp::Mov, _, b) => b,
            (_, AluOp::Mov, _, N(b)) => N(Number::alu(width, op, Number::ANY, b)),
            (_, AluOp::Movsx8 | AluOp::Movsx16 | AluOp::Movsx32, _, N(b)) => match b {
                Number::Const(_) => N(Number::alu(width, op, Number::Const(0), b)),
                Number::Rest { .. } => Self::NUMBER,
            },
            (_, _, N(a), N(b)) => N(Number::alu(width, op, a, b)),
            (Width::W64, AluOp::Add, p, N(n)) | (Width::W64, AluOp::Add, N(n), p) => p.moved(n),
            (Width::W64, AluOp::Sub, p, N(n)) => p.moved(n.negate()),
            // Distances; whether both are of one region is PREVAIL's question.
            (Width::W64, AluOp::Sub, _, _) => Self::NUMBER,
            _ => Self::Mixed,
        }
    }
}
