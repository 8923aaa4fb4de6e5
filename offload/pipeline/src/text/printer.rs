//! Pipelines to text.

use std::fmt::Write;

use super::parser::{PORT_PREFIX, STAT_PREFIX};
use crate::ir::{BinOp, Cond, Expr, FlowSide, Pipeline, Stmt, Timeouts};

pub(super) fn pipeline(pipeline: &Pipeline) -> String {
    let mut out = Out {
        text: String::new(),
        indent: 0,
    };
    if pipeline.timeouts != Timeouts::default() {
        out.text.push_str("timeouts");
        for (name, ms) in Timeouts::NAMES.iter().zip(pipeline.timeouts.values()) {
            // Writing to a String cannot fail.
            let _ = write!(out.text, " {name} {ms}");
        }
        out.text.push_str(";\n\n");
    }
    if pipeline.resets {
        out.text.push_str("resets;\n\n");
    }
    for (i, stage) in pipeline.stages.iter().enumerate() {
        if i > 0 {
            out.text.push('\n');
        }
        out.block(&format!("stage {}", stage.name), &stage.body);
        out.text.push('\n');
    }
    out.text
}

/// A statement without its `;` or its blocks.
pub(super) fn head(stmt: &Stmt) -> String {
    match stmt {
        Stmt::ParseUnderlay => "parse underlay".to_owned(),
        Stmt::ParseVxlan(port) => format!("parse vxlan {}", expr(port)),
        Stmt::ParseEncap(port) => format!("parse encap {}", expr(port)),
        Stmt::SpotRedirect => "spot redirect".to_owned(),
        Stmt::ParseRedirect => "parse redirect".to_owned(),
        Stmt::GuardSport { base, mask } => format!("guard sport {}, {}", expr(base), expr(mask)),
        Stmt::Origin => "origin".to_owned(),
        Stmt::Decap => "decap".to_owned(),
        Stmt::ParseInner => "parse inner".to_owned(),
        Stmt::Hook => "hook".to_owned(),
        Stmt::Account => "account".to_owned(),
        Stmt::Match {
            table, key, row, ..
        } => {
            let key: Vec<_> = key.iter().map(expr).collect();
            format!("match {}[{}] as {row}", table.name(), key.join(", "))
        }
        Stmt::If { cond: c, .. } => format!("if {}", cond(c)),
        Stmt::Var { name, ty } => format!("var {name}: {ty}"),
        Stmt::Set { field, value } => format!("{field} = {}", expr(value)),
        Stmt::Entropy {
            field,
            key: FlowSide::Key,
        } => format!("entropy {field} from key"),
        Stmt::Entropy {
            field,
            key: FlowSide::Rkey,
        } => format!("entropy {field} from rkey"),
        Stmt::Choose { field, of } => format!("choose {field} from key of {}", expr(of)),
        Stmt::Count { stat, amount } => {
            let name = stat.name();
            format!(
                "count {} {}",
                name.strip_prefix(STAT_PREFIX).unwrap_or(name),
                expr(amount)
            )
        }
        Stmt::CountPort { stat, amount } => {
            let name = stat.name();
            format!(
                "count port {} {}",
                name.strip_prefix(PORT_PREFIX).unwrap_or(name),
                expr(amount)
            )
        }
        Stmt::Police { len, packets } => {
            with_words(&format!("police {}", expr(len)), [(*packets, "packets")])
        }
        Stmt::Admit => "admit".to_owned(),
        Stmt::Meter { len } => format!("meter {}", expr(len)),
        Stmt::FlowLookup {
            peek,
            pair,
            marks,
            meter,
            epoch,
            learn,
            ..
        } => with_words(
            "flow lookup",
            [
                (*peek, "peek"),
                (*pair, "pair"),
                (*marks, "marks"),
                (*meter, "meter"),
                (*epoch, "epoch"),
                (*learn, "learn"),
            ],
        ),
        Stmt::FlowCreate {
            pair,
            marks,
            epoch,
            learn,
        } => with_words(
            "flow create",
            [
                (*pair, "pair"),
                (*marks, "marks"),
                (*epoch, "epoch"),
                (*learn, "learn"),
            ],
        ),
        Stmt::FlowRedirect => "flow redirect".to_owned(),
        Stmt::Consume => "consume".to_owned(),
        Stmt::Translatable => "translatable".to_owned(),
        Stmt::Translate => "translate".to_owned(),
        Stmt::Apply { nvgre, u1, smac } => {
            with_words("apply", [(*nvgre, "nvgre"), (*u1, "u1"), (*smac, "smac")])
        }
        Stmt::Goto(stage) => format!("goto {stage}"),
        Stmt::Drop(reason) => format!("drop {}", reason.name()),
        Stmt::Pass => "pass".to_owned(),
        Stmt::Send => "send".to_owned(),
        Stmt::Forward(row) => format!("forward {row}"),
    }
}

/// A statement's word and the words after it that are said.
fn with_words<const N: usize>(word: &str, words: [(bool, &str); N]) -> String {
    let said = words.into_iter().filter(|(said, _)| *said);
    said.fold(word.to_owned(), |text, (_, word)| text + " " + word)
}

struct Out {
    text: String,
    indent: usize,
}

impl Out {
    fn margin(&mut self) {
        for _ in 0..self.indent {
            self.text.push_str("    ");
        }
    }

    /// `HEAD { body }`, the cursor left after the brace.
    fn block(&mut self, head: &str, body: &[Stmt]) {
        self.margin();
        self.text.push_str(head);
        self.text.push_str(" {\n");
        self.body(body);
    }

    fn body(&mut self, body: &[Stmt]) {
        self.indent += 1;
        for stmt in body {
            self.stmt(stmt);
        }
        self.indent -= 1;
        self.margin();
        self.text.push('}');
    }

    fn branches(&mut self, head: &str, then: &[Stmt], els: &[Stmt]) {
        self.block(head, then);
        if !els.is_empty() {
            self.text.push_str(" else {\n");
            self.body(els);
        }
        self.text.push('\n');
    }

    fn stmt(&mut self, stmt: &Stmt) {
        let head = head(stmt);
        match stmt {
            Stmt::Match { hit, miss, .. } | Stmt::FlowLookup { hit, miss, .. } => {
                self.branches(&head, hit, miss)
            }
            Stmt::If { then, els, .. } => self.branches(&head, then, els),
            _ => {
                self.margin();
                self.text.push_str(&head);
                self.text.push_str(";\n");
            }
        }
    }
}

/// An expression as text.
pub(super) fn expr(e: &Expr) -> String {
    let mut out = String::new();
    write_expr(&mut out, e);
    out
}

/// A condition as text.
pub(super) fn cond(c: &Cond) -> String {
    let mut out = String::new();
    write_cond(&mut out, c);
    out
}

fn write_expr(out: &mut String, e: &Expr) {
    let call = |out: &mut String, name: &str, of: &Expr| {
        out.push_str(name);
        out.push('(');
        write_expr(out, of);
        out.push(')');
    };
    match e {
        // Writing to a String cannot fail.
        Expr::Num(n) => drop(write!(out, "{n}")),
        Expr::Field(name) => out.push_str(name),
        Expr::Row(row, field) => drop(write!(out, "{row}.{field}")),
        Expr::Bin(op, a, b) => {
            out.push('(');
            write_expr(out, a);
            out.push(' ');
            out.push_str(bin_op(*op));
            out.push(' ');
            write_expr(out, b);
            out.push(')');
        }
        Expr::ToBe(bits, a) => call(out, &format!("be{bits}"), a),
        Expr::Pad16(a) => call(out, "pad16", a),
        Expr::V4(a) => call(out, "v4", a),
        Expr::FromBe(a) => call(out, "num", a),
        Expr::Mask(of) => call_all(out, "mask", &of[..]),
        Expr::With4(of) => call_all(out, "with4", &of[..]),
        Expr::Ingress => out.push_str("ingress"),
    }
}

fn call_all(out: &mut String, name: &str, of: &[Expr]) {
    out.push_str(name);
    for (i, e) in of.iter().enumerate() {
        out.push_str(if i == 0 { "(" } else { ", " });
        write_expr(out, e);
    }
    out.push(')');
}

fn write_cond(out: &mut String, c: &Cond) {
    let (a, op, b) = match c {
        Cond::Eq(a, b) | Cond::Ne(a, b) => {
            write_expr(out, a);
            out.push_str(if matches!(c, Cond::Eq(..)) {
                " == "
            } else {
                " != "
            });
            write_expr(out, b);
            return;
        }
        Cond::And(a, b) => (a, " && ", b),
        Cond::Or(a, b) => (a, " || ", b),
    };
    out.push('(');
    write_cond(out, a);
    out.push_str(op);
    write_cond(out, b);
    out.push(')');
}

fn bin_op(op: BinOp) -> &'static str {
    match op {
        BinOp::Add => "+",
        BinOp::Sub => "-",
        BinOp::And => "&",
        BinOp::Or => "|",
        BinOp::Shl => "<<",
        BinOp::Shr => ">>",
    }
}
