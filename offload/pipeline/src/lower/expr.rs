//! Expressions: numbers in registers, byte strings copied from place to place.

use dash_bpf::builder::Label;
use dash_bpf::helper::xdp_md;
use dash_bpf::op::{AluOp, Cond as C, Endian};
use dash_bpf::{Reg, Size};

use super::LowerError;
use super::stage::{CTX, Place, StageLower};
use crate::fields::Ty;
use crate::ir::{BinOp, Expr};

/// Scratch registers of expressions, in order of use.
const SCRATCH: [Reg; 5] = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5];

pub(super) fn number_size(bytes: u8) -> Size {
    match bytes {
        1 => Size::B,
        2 => Size::H,
        4 => Size::W,
        _ => Size::Dw,
    }
}

/// Splits `len` bytes at these places into the widest accesses; the stack demands aligned ones.
fn chunks(places: [(Reg, i16); 2], len: usize) -> impl Iterator<Item = (i16, Size)> {
    let mut done = 0usize;
    std::iter::from_fn(move || {
        let left = len - done;
        let size = [Size::Dw, Size::W, Size::H, Size::B]
            .into_iter()
            .find(|s| {
                let aligned = |(base, off): (Reg, i16)| {
                    base != Reg::R10 || (i32::from(off) + done as i32) % s.bytes() as i32 == 0
                };
                s.bytes() <= left && places.into_iter().all(aligned)
            })?;
        let item = (done as i16, size);
        done += size.bytes();
        Some(item)
    })
}

impl StageLower<'_> {
    /// Evaluates a number into `dst`, a scratch register; uses the ones after it.
    pub(super) fn eval(&mut self, expr: &Expr, dst: Reg) -> Result<(), LowerError> {
        match expr {
            Expr::Num(n) => self.b.load_const(dst, *n),
            Expr::Ingress => {
                self.b.load(Size::W, dst, CTX, xdp_md::INGRESS_IFINDEX);
            }
            Expr::Field(name) => {
                let place = self.field(name)?;
                self.load_number(place, dst)?;
            }
            Expr::Row(row, field) => {
                let place = self.row(row, field, dst)?;
                self.load_number(place, dst)?;
            }
            Expr::Bin(op, a, b) => {
                self.eval(a, dst)?;
                let alu = match op {
                    BinOp::Add => AluOp::Add,
                    BinOp::Sub => AluOp::Sub,
                    BinOp::And => AluOp::And,
                    BinOp::Or => AluOp::Or,
                    BinOp::Shl => AluOp::Lsh,
                    BinOp::Shr => AluOp::Rsh,
                };
                if let Expr::Num(n) = **b
                    && let Ok(imm) = i32::try_from(n)
                {
                    self.b.alu(alu, dst, imm);
                } else {
                    let next = self.next_scratch(dst)?;
                    self.eval(b, next)?;
                    self.b.alu(alu, dst, next);
                }
            }
            Expr::FromBe(bytes) => {
                self.eval_b2(bytes, dst)?;
                self.b.be16(dst);
            }
            Expr::ToBe(..) | Expr::Pad16(_) | Expr::V4(_) | Expr::Mask(_) | Expr::With4(_) => {
                return Err(self.unsupported("a byte string where a number is needed"));
            }
        }
        Ok(())
    }

    fn next_scratch(&self, reg: Reg) -> Result<Reg, LowerError> {
        SCRATCH
            .iter()
            .position(|r| *r == reg)
            .and_then(|i| SCRATCH.get(i + 1))
            .copied()
            .ok_or_else(|| self.unsupported("an expression nested too deeply"))
    }

    fn load_number(&mut self, place: Place, dst: Reg) -> Result<(), LowerError> {
        match place.ty {
            Ty::Num(n) => {
                self.b.load(number_size(n), dst, place.base, place.off);
                Ok(())
            }
            Ty::Bytes(_) => Err(self.unsupported("a byte string where a number is needed")),
        }
    }

    pub(super) fn set(&mut self, field: &str, value: &Expr) -> Result<(), LowerError> {
        let place = self.field(field)?;
        self.assign(place, value)
    }

    /// Stores an expression. Destinations of byte strings may be wider places of a key.
    pub(super) fn assign(&mut self, to: Place, value: &Expr) -> Result<(), LowerError> {
        match to.ty {
            Ty::Num(n) => {
                if let Expr::Num(v) = value
                    && let Ok(imm) = i32::try_from(*v)
                {
                    self.b.store(number_size(n), to.base, to.off, imm);
                } else {
                    self.eval(value, Reg::R1)?;
                    self.b.store(number_size(n), to.base, to.off, Reg::R1);
                }
                Ok(())
            }
            Ty::Bytes(len) => self.assign_bytes(to, usize::from(len), value),
        }
    }

    fn assign_bytes(&mut self, to: Place, len: usize, value: &Expr) -> Result<(), LowerError> {
        match value {
            Expr::Field(name) => {
                let from = self.field(name)?;
                self.copy(to.base, to.off, from.base, from.off, len);
            }
            Expr::Row(row, field) => {
                let from = self.row(row, field, Reg::R2)?;
                self.copy(to.base, to.off, from.base, from.off, len);
            }
            Expr::ToBe(bits, number) => {
                self.eval(number, Reg::R1)?;
                if *bits == 24 {
                    self.b.alu(AluOp::Lsh, Reg::R1, 8);
                }
                self.b
                    .endian(Endian::Be, if *bits == 16 { 16 } else { 32 }, Reg::R1);
                if *bits == 16 {
                    self.b.store(Size::H, to.base, to.off, Reg::R1);
                } else {
                    // Three bytes, lowest address first.
                    for k in 0..3 {
                        self.b.store(Size::B, to.base, to.off + k, Reg::R1);
                        self.b.alu(AluOp::Rsh, Reg::R1, 8);
                    }
                }
            }
            Expr::Pad16(inner) => {
                for (at, size) in chunks([(to.base, to.off + 4); 2], 12) {
                    self.b.store(size, to.base, to.off + 4 + at, 0);
                }
                self.assign_bytes(to, 4, inner)?;
            }
            Expr::V4(inner) => {
                let from = match &**inner {
                    Expr::Field(name) => self.field(name)?,
                    Expr::Row(row, field) => self.row(row, field, Reg::R2)?,
                    _ => return Err(self.unsupported("v4() of something that is not a field")),
                };
                self.copy(to.base, to.off, from.base, from.off + 12, 4);
            }
            Expr::Mask(of) => {
                let [a, keep, set] = &**of;
                let (a, keep, set) = (
                    self.field_or_row(a, Reg::R3)?,
                    self.field_or_row(keep, Reg::R4)?,
                    self.field_or_row(set, Reg::R5)?,
                );
                for at in [0, 8] {
                    self.b.load(Size::Dw, Reg::R1, a.base, a.off + at);
                    self.b.load(Size::Dw, Reg::R2, keep.base, keep.off + at);
                    self.b.alu(AluOp::And, Reg::R1, Reg::R2);
                    self.b.load(Size::Dw, Reg::R2, set.base, set.off + at);
                    self.b.alu(AluOp::Or, Reg::R1, Reg::R2);
                    self.b.store(Size::Dw, to.base, to.off + at, Reg::R1);
                }
            }
            Expr::With4(of) => {
                let [a, b] = &**of;
                let a = self.field_or_row(a, Reg::R2)?;
                self.copy(to.base, to.off, a.base, a.off, 12);
                let b = self.field_or_row(b, Reg::R2)?;
                self.copy(to.base, to.off + 12, b.base, b.off, 4);
            }
            Expr::Num(_) | Expr::Bin(..) | Expr::FromBe(_) | Expr::Ingress => {
                return Err(self.unsupported("a number where a byte string is needed"));
            }
        }
        Ok(())
    }

    /// Where a byte string that is a field's is.
    fn field_or_row(&mut self, e: &Expr, scratch: Reg) -> Result<Place, LowerError> {
        match self.byte_place_in(e, scratch)? {
            Some((place, _)) => Ok(place),
            None => Err(self.unsupported("mask() or with4() of something that is not a field")),
        }
    }

    /// Copies bytes between structures through r1 (`from_base` may be r2).
    pub(super) fn copy(&mut self, to: Reg, to_off: i16, from: Reg, from_off: i16, len: usize) {
        for (at, size) in chunks([(to, to_off), (from, from_off)], len) {
            self.b.load(size, Reg::R1, from, from_off + at);
            self.b.store(size, to, to_off + at, Reg::R1);
        }
    }

    /// Jumps to `otherwise` unless `a == b` (`equal`) or `a != b` (not `equal`).
    pub(super) fn compare(
        &mut self,
        a: &Expr,
        b: &Expr,
        equal: bool,
        otherwise: Label,
    ) -> Result<(), LowerError> {
        let bytes = self.byte_place(a)?;
        let Some((pa, len)) = bytes else {
            self.eval(a, Reg::R1)?;
            let cond = if equal { C::Ne } else { C::Eq };
            if let Expr::Num(n) = b
                && let Ok(imm) = i32::try_from(*n)
            {
                self.b.jump_if(cond, Reg::R1, imm, otherwise);
            } else {
                self.eval(b, Reg::R2)?;
                self.b.jump_if(cond, Reg::R1, Reg::R2, otherwise);
            }
            return Ok(());
        };
        let pb = match b {
            Expr::Num(0) => None,
            _ => match self.byte_place_in(b, Reg::R4)? {
                Some((p, _)) => Some(p),
                None => {
                    return Err(
                        self.unsupported("a comparison of bytes with a number other than 0")
                    );
                }
            },
        };
        let differ = if equal { otherwise } else { self.b.label() };
        let other = pb.unwrap_or(pa);
        for (at, size) in chunks([(pa.base, pa.off), (other.base, other.off)], len) {
            self.b.load(size, Reg::R1, pa.base, pa.off + at);
            match pb {
                None => self.b.jump_if(C::Ne, Reg::R1, 0, differ),
                Some(p) => {
                    self.b.load(size, Reg::R2, p.base, p.off + at);
                    self.b.jump_if(C::Ne, Reg::R1, Reg::R2, differ);
                }
            }
        }
        if !equal {
            self.b.jump(otherwise);
            self.b.bind(differ);
        }
        Ok(())
    }

    fn byte_place(&mut self, e: &Expr) -> Result<Option<(Place, usize)>, LowerError> {
        self.byte_place_in(e, Reg::R3)
    }

    fn byte_place_in(
        &mut self,
        e: &Expr,
        scratch: Reg,
    ) -> Result<Option<(Place, usize)>, LowerError> {
        let place = match e {
            Expr::Field(name) => self.field(name)?,
            Expr::Row(row, field) => self.row(row, field, scratch)?,
            Expr::V4(inner) => {
                return Ok(self.byte_place_in(inner, scratch)?.map(|(p, _)| {
                    (
                        Place {
                            off: p.off + 12,
                            ty: Ty::Bytes(4),
                            ..p
                        },
                        4,
                    )
                }));
            }
            _ => return Ok(None),
        };
        Ok(match place.ty {
            Ty::Bytes(n) => Some((place, usize::from(n))),
            Ty::Num(_) => None,
        })
    }

    /// r-value of a `b2` expression, raw (network order), in `dst`.
    pub(super) fn eval_b2(&mut self, e: &Expr, dst: Reg) -> Result<(), LowerError> {
        match self.byte_place_in(e, dst)? {
            Some((p, 2)) => {
                self.b.load(Size::H, dst, p.base, p.off);
                Ok(())
            }
            _ => Err(self.unsupported("expected a b2 field")),
        }
    }
}
