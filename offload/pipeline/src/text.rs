//! Text form of the pipeline: [`print()`] and [`parse`], inverse to each other.
//!
//! What `dashctl compile --emit ir` shows, what an image carries for the reference model, and what
//! golden tests and bug reports are written in.
//!
//! ```text
//! pipeline := [ "timeouts" { NAME NUMBER } ";" ] [ "resets" ";" ] { "stage" NAME block }
//! block    := "{" { statement } "}"
//! statement:
//!     parse underlay;   parse vxlan EXPR;   parse encap EXPR;   decap;   parse inner;   account;
//!     hook;             origin;
//!     translate;        apply [nvgre] [u1];
//!     match TABLE[EXPR, ...] as ROW block [ else block ]
//!     if COND block [ else block ]
//!     flow lookup [pair] [epoch [learn]] block [ else block ]    flow create [pair] [epoch [learn]];
//!     var NAME: TYPE;   FIELD = EXPR;       entropy FIELD from key|rkey;   count STAT EXPR;
//!     choose FIELD from key of EXPR;
//!     goto STAGE;   drop REASON;   pass;   send;   forward ROW;
//! EXPR     := NUMBER | FIELD | ROW.FIELD | (EXPR op EXPR) | be16(EXPR) | be24(EXPR)
//!           | ingress | pad16(EXPR) | v4(EXPR) | num(EXPR) | with4(EXPR, EXPR) | mask(EXPR, EXPR, EXPR)
//! op       := + | - | & | "|" | << | >>
//! COND     := EXPR == EXPR | EXPR != EXPR | (COND && COND) | (COND || COND)
//! ```
//!
//! `a.b` is a metadata field when one has that name and a row's field otherwise, so rows are never
//! called `key`, `rkey`, `actions` or `ractions`. Numbers are decimal or `0x`; `#` starts a comment.
//! An empty `else` is not printed. The grammar says nothing about types and names: that is
//! [`crate::check`]'s.

mod lexer;
mod parser;
mod printer;

use thiserror::Error;

use crate::ir::{Expr, Pipeline, Stmt};

/// Most levels of nested blocks and parentheses that [`parse`] follows; deeper text is an error, so
/// that no text can exhaust the stack.
pub const MAX_DEPTH: usize = 100;

/// Words that begin statements or expressions: neither locals nor rows may be called so.
pub const KEYWORDS: &[&str] = &[
    "stage",
    "parse",
    "decap",
    "account",
    "match",
    "as",
    "if",
    "else",
    "var",
    "entropy",
    "from",
    "count",
    "flow",
    "apply",
    "goto",
    "drop",
    "pass",
    "send",
    "forward",
    "be16",
    "be24",
    "pad16",
    "v4",
    "num",
    "mask",
    "with4",
    "choose",
    "of",
    "translate",
    "spot",
    "consume",
    "origin",
    "guard",
    "translatable",
    "meter",
    "hook",
    "police",
    "admit",
    "ingress",
];

/// Where a text is not a pipeline, and why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {what}")]
pub struct TextError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong there.
    pub what: String,
}

/// Writes a pipeline, four spaces an indent.
pub fn print(pipeline: &Pipeline) -> String {
    printer::pipeline(pipeline)
}

/// Reads a pipeline.
pub fn parse(text: &str) -> Result<Pipeline, TextError> {
    Ok(parse_with_lines(text)?.0)
}

/// Reads a pipeline, and the line of each statement: statements in the order of the text, outer
/// before inner; lines from 1.
pub fn parse_with_lines(text: &str) -> Result<(Pipeline, Vec<usize>), TextError> {
    parser::pipeline(&lexer::tokens(text)?)
}

/// An expression, for messages.
pub(crate) fn print_expr(expr: &Expr) -> String {
    printer::expr(expr)
}

/// A statement without the blocks in it, for messages.
pub(crate) fn print_stmt(stmt: &Stmt) -> String {
    printer::head(stmt)
}
