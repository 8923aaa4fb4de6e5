//! One eBPF instruction as a value (RFC 9669). Everything that reads a program, the verifier's
//! front, the interpreter, the native compiler and the disassembler, reads this enum.

mod registers;

pub use registers::Registers;

/// Register r0..r10. r10 is the frame pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(u8);

#[expect(missing_docs, reason = "register names")]
impl Reg {
    pub const R0: Self = Self(0);
    pub const R1: Self = Self(1);
    pub const R2: Self = Self(2);
    pub const R3: Self = Self(3);
    pub const R4: Self = Self(4);
    pub const R5: Self = Self(5);
    pub const R6: Self = Self(6);
    pub const R7: Self = Self(7);
    pub const R8: Self = Self(8);
    pub const R9: Self = Self(9);
    pub const R10: Self = Self(10);
}

impl Reg {
    /// `None` above 10.
    pub fn new(n: u8) -> Option<Self> {
        (n <= 10).then_some(Self(n))
    }
    /// 0..=10.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Width of an ALU or jump operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// On the low half; ALU results are zero-extended.
    W32,
    /// On the whole register.
    W64,
}

/// Width of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// 1 byte.
    B,
    /// 2 bytes.
    H,
    /// 4 bytes.
    W,
    /// 8 bytes.
    Dw,
}

impl Size {
    /// 1, 2, 4 or 8.
    pub fn bytes(self) -> usize {
        match self {
            Self::B => 1,
            Self::H => 2,
            Self::W => 4,
            Self::Dw => 8,
        }
    }
}

/// Second operand: a register or a 32-bit immediate, sign-extended to the operation's width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A register.
    Reg(Reg),
    /// An immediate.
    Imm(i32),
}

impl From<Reg> for Operand {
    fn from(r: Reg) -> Self {
        Self::Reg(r)
    }
}

impl From<i32> for Operand {
    fn from(v: i32) -> Self {
        Self::Imm(v)
    }
}

/// ALU operations with two operands. Division by zero gives 0, modulo zero leaves `dst`;
/// shift amounts are masked to the width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "RFC 9669 names")]
pub enum AluOp {
    Add,
    Sub,
    Mul,
    Div,
    Sdiv,
    Or,
    And,
    Lsh,
    Rsh,
    Mod,
    Smod,
    Xor,
    Mov,
    /// Sign-extending moves from the low 8, 16 or 32 bits of a register.
    Movsx8,
    Movsx16,
    Movsx32,
    Arsh,
}

/// Byte-order operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endian {
    /// To little-endian (on little-endian hosts: truncate).
    Le,
    /// To big-endian.
    Be,
    /// Unconditional swap (`bswap`, cpu v4).
    Swap,
}

/// Conditions of conditional jumps; `S` ones compare signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "RFC 9669 names")]
pub enum Cond {
    Eq,
    Ne,
    /// `dst & src != 0`.
    Set,
    Gt,
    Ge,
    Lt,
    Le,
    Sgt,
    Sge,
    Slt,
    Sle,
}

/// Atomic read-modify-write operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "RFC 9669 names")]
pub enum AtomicOp {
    Add,
    Or,
    And,
    Xor,
    /// Always fetches.
    Xchg,
    /// Compares with r0, always fetches into r0.
    CmpXchg,
}

/// What a 64-bit immediate load yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Imm64 {
    /// The number.
    Value(u64),
    /// A map of the object, by index into [`Object::maps`](crate::Object) (`src` = 1; the file
    /// descriptor when loaded into a kernel).
    Map(u32),
    /// Address of a byte of the only value of an array map (`src` = 2).
    MapValue {
        /// Map index.
        map: u32,
        /// Byte offset into its value.
        offset: u32,
    },
    /// `src` 3..=6: platform variables, code and BTF ids; carried, not executed.
    Other {
        /// 3..=6.
        src: u8,
        /// First immediate.
        imm: i32,
        /// Second immediate.
        next: i32,
    },
}

impl Imm64 {
    /// Slot of the function whose address this is (`src` = 4), for an instruction at slot `pc`;
    /// `None` for everything else, and below slot 0.
    pub fn function(self, pc: usize) -> Option<usize> {
        match self {
            Self::Other { src: 4, imm, .. } => (pc + 1).checked_add_signed(imm as isize),
            _ => None,
        }
    }

    /// The address of the function at slot `target`, for an instruction at slot `pc`; `None` when it
    /// is out of reach.
    pub fn of_function(pc: usize, target: usize) -> Option<Self> {
        let by = target as i64 - pc as i64 - 1;
        let imm = i32::try_from(by).ok()?;
        let (src, next) = (4, 0);
        Some(Self::Other { src, imm, next })
    }
}

/// One instruction. Jump targets are absolute slot numbers (an `LoadImm64` takes two slots).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "operand names are the RFC's")]
pub enum Op {
    Alu {
        width: Width,
        op: AluOp,
        dst: Reg,
        src: Operand,
    },
    Neg {
        width: Width,
        dst: Reg,
    },
    /// `bits` is 16, 32 or 64.
    Endian {
        order: Endian,
        bits: u8,
        dst: Reg,
    },
    LoadImm64 {
        dst: Reg,
        imm: Imm64,
    },
    /// Second slot of the `LoadImm64` before it.
    LoadImm64Hi,
    /// `dst = *(size *)(base + off)`, sign-extended when `signed`.
    Load {
        size: Size,
        signed: bool,
        dst: Reg,
        base: Reg,
        off: i16,
    },
    /// `*(size *)(base + off) = src`.
    Store {
        size: Size,
        base: Reg,
        off: i16,
        src: Operand,
    },
    /// `size` is `W` or `Dw`.
    Atomic {
        size: Size,
        op: AtomicOp,
        fetch: bool,
        base: Reg,
        off: i16,
        src: Reg,
    },
    /// Legacy packet access (`BPF_ABS`, and `BPF_IND` with `index`): r0 = big-endian load.
    LoadPacket {
        size: Size,
        index: Option<Reg>,
        imm: i32,
    },
    Jump {
        target: usize,
    },
    JumpIf {
        width: Width,
        cond: Cond,
        dst: Reg,
        src: Operand,
        target: usize,
    },
    /// Helper by number (`src` = 0).
    Call {
        helper: u32,
    },
    /// Helper by BTF id (`src` = 2).
    CallBtf {
        id: i32,
    },
    /// Function of this program (`src` = 1).
    CallLocal {
        target: usize,
    },
    /// Helper whose number is in a register (`callx`).
    CallReg {
        reg: Reg,
    },
    Exit,
}
