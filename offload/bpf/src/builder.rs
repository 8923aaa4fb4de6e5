//! Writes programs: one method an instruction, labels instead of offsets.
//!
//! ```
//! use dash_bpf::builder::{Builder, R0, R1};
//! use dash_bpf::op::{AluOp, Cond};
//! let mut b = Builder::new();
//! let done = b.label();
//! b.mov(R0, 0);
//! b.jump_if(Cond::Eq, R1, 0, done);
//! b.alu(AluOp::Add, R0, R1);
//! b.bind(done);
//! b.exit();
//! assert_eq!(b.finish()?.len(), 4);
//! # Ok::<(), dash_bpf::builder::BuildError>(())
//! ```
//!
//! Methods do not fail: the first thing that has no encoding is kept and returned by
//! [`Builder::finish`], which also decodes the result, so a finished program is well-formed.

use thiserror::Error;

use crate::decode::{DecodeError, decode};
use crate::encode::{EncodeError, encode};
use crate::insn::Insn;
use crate::op::{AluOp, AtomicOp, Cond, Endian, Imm64, Op, Operand, Reg, Size, Width};

#[expect(missing_docs, reason = "register names")]
mod registers {
    use crate::op::Reg;
    pub const R0: Reg = Reg::R0;
    pub const R1: Reg = Reg::R1;
    pub const R2: Reg = Reg::R2;
    pub const R3: Reg = Reg::R3;
    pub const R4: Reg = Reg::R4;
    pub const R5: Reg = Reg::R5;
    pub const R6: Reg = Reg::R6;
    pub const R7: Reg = Reg::R7;
    pub const R8: Reg = Reg::R8;
    pub const R9: Reg = Reg::R9;
    pub const R10: Reg = Reg::R10;
}
pub use registers::*;

/// A place in the program that jumps and local calls name before it has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label(usize);

/// Why a build did not yield a program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// A jump or call at `slot` names a label that was never bound.
    #[error("instruction {slot}: label {label} is not bound")]
    Unbound {
        /// Slot of the jump or call.
        slot: usize,
        /// Number of the label in order of creation.
        label: usize,
    },
    /// A label was bound a second time.
    #[error("label {label} is bound at {first} and again at {second}")]
    BoundTwice {
        /// Number of the label in order of creation.
        label: usize,
        /// Slot of its first binding.
        first: usize,
        /// Slot of its second.
        second: usize,
    },
    /// A label of another builder.
    #[error("label {label} is not of this builder")]
    ForeignLabel {
        /// Number of the label.
        label: usize,
    },
    /// An instruction has no encoding: often a conditional jump of more than 32,767 slots.
    #[error("instruction {slot}: {error}")]
    Encode {
        /// Its slot.
        slot: usize,
        /// Why.
        #[source]
        error: EncodeError,
    },
    /// The finished sequence is not a program.
    #[error("the built program is malformed: {0}")]
    Malformed(#[from] DecodeError),
}

/// An instruction as pushed: jump targets are still label numbers.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Done(Op),
    ToLabel(Op, Label),
}

/// Writes one program.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    slots: Vec<Pending>,
    labels: Vec<Option<usize>>,
    comments: Vec<(usize, String)>,
    error: Option<BuildError>,
}

impl Builder {
    /// An empty program.
    pub fn new() -> Self {
        Self::default()
    }

    /// Slots written so far: the number of the next instruction.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// A new label, not bound yet.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Binds `label` to the next instruction.
    pub fn bind(&mut self, label: Label) {
        let second = self.slots.len();
        let error = match self.labels.get_mut(label.0) {
            Some(bound @ None) => {
                *bound = Some(second);
                return;
            }
            Some(Some(first)) => BuildError::BoundTwice {
                label: label.0,
                first: *first,
                second,
            },
            None => BuildError::ForeignLabel { label: label.0 },
        };
        self.error.get_or_insert(error);
    }

    /// A label bound to the next instruction: the head of a loop, say.
    pub fn here(&mut self) -> Label {
        self.labels.push(Some(self.slots.len()));
        Label(self.labels.len() - 1)
    }

    /// Says what the next instruction is for; the disassembler prints it.
    pub fn comment(&mut self, text: impl Into<String>) {
        self.comments.push((self.slots.len(), text.into()));
    }

    /// Comments by slot, in order.
    pub fn comments(&self) -> &[(usize, String)] {
        &self.comments
    }

    /// Any instruction whose targets, if it has some, are already slot numbers.
    pub fn op(&mut self, op: Op) {
        self.slots.push(Pending::Done(op));
        if matches!(op, Op::LoadImm64 { .. }) {
            self.slots.push(Pending::Done(Op::LoadImm64Hi));
        }
    }

    /// `dst = src`.
    pub fn mov(&mut self, dst: Reg, src: impl Into<Operand>) {
        self.alu(AluOp::Mov, dst, src);
    }

    /// `dst = (u32)src`.
    pub fn mov32(&mut self, dst: Reg, src: impl Into<Operand>) {
        self.alu32(AluOp::Mov, dst, src);
    }

    /// `dst = dst op src` on 64 bits; immediates are sign-extended.
    pub fn alu(&mut self, op: AluOp, dst: Reg, src: impl Into<Operand>) {
        self.op(Op::Alu {
            width: Width::W64,
            op,
            dst,
            src: src.into(),
        });
    }

    /// `dst = dst op src` on 32 bits, zero-extended.
    pub fn alu32(&mut self, op: AluOp, dst: Reg, src: impl Into<Operand>) {
        self.op(Op::Alu {
            width: Width::W32,
            op,
            dst,
            src: src.into(),
        });
    }

    /// `dst = -dst` on 64 bits.
    pub fn neg(&mut self, dst: Reg) {
        self.op(Op::Neg {
            width: Width::W64,
            dst,
        });
    }

    /// `dst = -dst` on 32 bits, zero-extended.
    pub fn neg32(&mut self, dst: Reg) {
        self.op(Op::Neg {
            width: Width::W32,
            dst,
        });
    }

    /// Byte-order operation on the low `bits` (16, 32, 64) of `dst`; the rest becomes zero.
    pub fn endian(&mut self, order: Endian, bits: u8, dst: Reg) {
        self.op(Op::Endian { order, bits, dst });
    }

    /// Between host order and big-endian, 16 bits.
    pub fn be16(&mut self, dst: Reg) {
        self.endian(Endian::Be, 16, dst);
    }

    /// Between host order and big-endian, 32 bits.
    pub fn be32(&mut self, dst: Reg) {
        self.endian(Endian::Be, 32, dst);
    }

    /// Between host order and big-endian, 64 bits.
    pub fn be64(&mut self, dst: Reg) {
        self.endian(Endian::Be, 64, dst);
    }

    /// `dst = *(size *)(base + off)`, zero-extended.
    pub fn load(&mut self, size: Size, dst: Reg, base: Reg, off: i16) {
        self.op(Op::Load {
            size,
            signed: false,
            dst,
            base,
            off,
        });
    }

    /// `dst = *(size *)(base + off)`, sign-extended (cpu v4).
    pub fn load_signed(&mut self, size: Size, dst: Reg, base: Reg, off: i16) {
        self.op(Op::Load {
            size,
            signed: true,
            dst,
            base,
            off,
        });
    }

    /// `*(size *)(base + off) = src`.
    pub fn store(&mut self, size: Size, base: Reg, off: i16, src: impl Into<Operand>) {
        self.op(Op::Store {
            size,
            base,
            off,
            src: src.into(),
        });
    }

    /// Atomic read-modify-write; `size` is `W` or `Dw`. With `fetch` the old value goes to `src`
    /// (to r0 for `CmpXchg`).
    pub fn atomic(&mut self, size: Size, op: AtomicOp, fetch: bool, base: Reg, off: i16, src: Reg) {
        self.op(Op::Atomic {
            size,
            op,
            fetch,
            base,
            off,
            src,
        });
    }

    /// `dst = value`, two slots.
    pub fn load_imm64(&mut self, dst: Reg, value: u64) {
        self.op(Op::LoadImm64 {
            dst,
            imm: Imm64::Value(value),
        });
    }

    /// `dst = value` in as few slots as it takes.
    pub fn load_const(&mut self, dst: Reg, value: u64) {
        if let Ok(imm) = i32::try_from(value as i64) {
            self.mov(dst, imm);
        } else if let Ok(low) = u32::try_from(value) {
            self.mov32(dst, low as i32);
        } else {
            self.load_imm64(dst, value);
        }
    }

    /// `dst = ` the map at this index of the object.
    pub fn load_map(&mut self, dst: Reg, map_index: u32) {
        self.op(Op::LoadImm64 {
            dst,
            imm: Imm64::Map(map_index),
        });
    }

    /// `dst = ` the address of byte `offset` of the only value of an array map.
    pub fn load_map_value(&mut self, dst: Reg, map: u32, offset: u32) {
        self.op(Op::LoadImm64 {
            dst,
            imm: Imm64::MapValue { map, offset },
        });
    }

    /// Goes to `label`.
    pub fn jump(&mut self, label: Label) {
        self.slots
            .push(Pending::ToLabel(Op::Jump { target: 0 }, label));
    }

    /// Goes to `label` if the condition holds on 64 bits.
    pub fn jump_if(&mut self, cond: Cond, dst: Reg, src: impl Into<Operand>, label: Label) {
        self.branch(Width::W64, cond, dst, src.into(), label);
    }

    /// Goes to `label` if the condition holds on the low 32 bits.
    pub fn jump_if32(&mut self, cond: Cond, dst: Reg, src: impl Into<Operand>, label: Label) {
        self.branch(Width::W32, cond, dst, src.into(), label);
    }

    fn branch(&mut self, width: Width, cond: Cond, dst: Reg, src: Operand, label: Label) {
        let op = Op::JumpIf {
            width,
            cond,
            dst,
            src,
            target: 0,
        };
        self.slots.push(Pending::ToLabel(op, label));
    }

    /// Calls a helper by number.
    pub fn call(&mut self, helper: u32) {
        self.op(Op::Call { helper });
    }

    /// Calls the function of this program that starts at `label`.
    pub fn call_local(&mut self, label: Label) {
        self.slots
            .push(Pending::ToLabel(Op::CallLocal { target: 0 }, label));
    }

    /// Calls the helper whose number is in `reg`.
    pub fn call_reg(&mut self, reg: Reg) {
        self.op(Op::CallReg { reg });
    }

    /// Returns r0.
    pub fn exit(&mut self) {
        self.op(Op::Exit);
    }

    /// The program. The builder stays usable, for its comments say.
    ///
    /// # Errors
    /// A label is unbound or bound twice, an instruction has no encoding, or the whole is not a
    /// well-formed program.
    pub fn finish(&self) -> Result<Vec<Insn>, BuildError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let mut insns = Vec::with_capacity(self.slots.len());
        for (slot, pending) in self.slots.iter().enumerate() {
            let op = match *pending {
                // Comes with the slot before it.
                Pending::Done(Op::LoadImm64Hi) => continue,
                Pending::Done(op) => op,
                Pending::ToLabel(op, label) => self.resolve(slot, op, label)?,
            };
            let wire = encode(&op, slot).map_err(|error| BuildError::Encode { slot, error })?;
            insns.extend_from_slice(wire.as_slice());
        }
        decode(&insns)?;
        Ok(insns)
    }

    fn resolve(&self, slot: usize, op: Op, label: Label) -> Result<Op, BuildError> {
        let bound = self
            .labels
            .get(label.0)
            .ok_or(BuildError::ForeignLabel { label: label.0 })?;
        let target = bound.ok_or(BuildError::Unbound {
            slot,
            label: label.0,
        })?;
        Ok(match op {
            Op::JumpIf {
                width,
                cond,
                dst,
                src,
                ..
            } => Op::JumpIf {
                width,
                cond,
                dst,
                src,
                target,
            },
            Op::CallLocal { .. } => Op::CallLocal { target },
            _ => Op::Jump { target },
        })
    }
}
