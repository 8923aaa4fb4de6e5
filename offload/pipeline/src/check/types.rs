//! Types of expressions and conditions.

use std::fmt;

use super::block::{At, Checker};
use super::error::Fault;
use crate::fields::{Ty, meta_field, row_field};
use crate::ir::{Cond, Expr};

/// Type of a value. Numbers of all widths are one type: they are cut where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Bytes(u8),
}

impl From<Ty> for Kind {
    fn from(ty: Ty) -> Self {
        match ty {
            Ty::Num(_) => Self::Number,
            Ty::Bytes(n) => Self::Bytes(n),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number => f.write_str("a number"),
            Self::Bytes(n) => write!(f, "b{n}"),
        }
    }
}

impl Checker<'_> {
    /// Checks that `expr` is of type `want`, which `place` needs.
    pub(super) fn typed(
        &self,
        expr: &Expr,
        want: Kind,
        place: &str,
        at: At<'_>,
    ) -> Result<(), Fault> {
        let got = self.kind(expr, at)?;
        if got == want {
            Ok(())
        } else {
            Err(mismatch(expr, got, place, want))
        }
    }

    fn kind(&self, expr: &Expr, at: At<'_>) -> Result<Kind, Fault> {
        let below = at.deeper()?;
        Ok(match expr {
            Expr::Num(_) | Expr::Ingress => Kind::Number,
            Expr::Field(name) => {
                if let Some(field) = meta_field(name) {
                    at.reads(|f| f == name.as_str())?;
                    field.ty.into()
                } else if let Some(ty) = self.local(name) {
                    ty.into()
                } else {
                    return Err(Fault::NoSuchField { name: name.clone() });
                }
            }
            Expr::Row(row, field) => {
                let table = self.row(row)?;
                match row_field(table, field) {
                    Some(field) => field.ty.into(),
                    None => {
                        return Err(Fault::NoSuchRowField {
                            table,
                            field: field.clone(),
                        });
                    }
                }
            }
            Expr::Bin(_, a, b) => {
                self.typed(a, Kind::Number, "an operator", below)?;
                self.typed(b, Kind::Number, "an operator", below)?;
                Kind::Number
            }
            Expr::ToBe(bits @ (16 | 24), a) => {
                self.typed(a, Kind::Number, "`be16` or `be24`", below)?;
                Kind::Bytes(*bits / 8)
            }
            Expr::ToBe(bits, _) => {
                return Err(Fault::BadName {
                    name: format!("be{bits}"),
                    why: "there are only be16 and be24",
                });
            }
            Expr::Pad16(a) => {
                self.typed(a, Kind::Bytes(4), "`pad16`", below)?;
                Kind::Bytes(16)
            }
            Expr::V4(a) => {
                self.typed(a, Kind::Bytes(16), "`v4`", below)?;
                Kind::Bytes(4)
            }
            Expr::FromBe(a) => {
                self.typed(a, Kind::Bytes(2), "`num`", below)?;
                Kind::Number
            }
            Expr::Mask(of) => {
                for a in &**of {
                    self.typed(a, Kind::Bytes(16), "`mask`", below)?;
                }
                Kind::Bytes(16)
            }
            Expr::With4(of) => {
                let [a, b] = &**of;
                self.typed(a, Kind::Bytes(16), "`with4`", below)?;
                self.typed(b, Kind::Bytes(4), "`with4`", below)?;
                Kind::Bytes(16)
            }
        })
    }

    pub(super) fn cond(&self, cond: &Cond, at: At<'_>) -> Result<(), Fault> {
        match cond {
            Cond::Eq(a, b) | Cond::Ne(a, b) => {
                let kind = self.kind(a, at)?;
                if matches!((kind, b), (Kind::Bytes(_), Expr::Num(0))) {
                    return Ok(());
                }
                self.typed(b, kind, "the comparison", at)
            }
            Cond::And(a, b) | Cond::Or(a, b) => {
                let below = at.deeper()?;
                self.cond(a, below)?;
                self.cond(b, below)
            }
        }
    }
}

fn mismatch(expr: &Expr, got: Kind, place: &str, want: Kind) -> Fault {
    Fault::Type {
        expr: crate::text::print_expr(expr),
        got: got.to_string(),
        place: place.to_owned(),
        want: want.to_string(),
    }
}
