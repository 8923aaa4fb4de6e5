//! Text to programs: reads what [`disasm`](mod@crate::disasm) writes, and labels.
//!
//! One instruction a line; `name:` binds a label, on its own line or before an instruction; `;`,
//! `#` and `//` start comments. `.insn code regs off imm` places a slot as it is, well-formed or
//! not.
//!
//! ```
//! let program = dash_bpf::asm::assemble("
//!     r0 = 0
//!     if r1 == 0 goto out   ; nothing to add
//!     r0 += r1
//! out:
//!     exit
//! ")?;
//! assert_eq!(program.len(), 4);
//! # Ok::<(), dash_bpf::asm::AsmError>(())
//! ```

mod parse;
mod token;

use std::collections::HashMap;

use thiserror::Error;

use crate::encode::EncodeError;
use crate::insn::Insn;
use parse::Parser;

/// Why text is not a program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {kind}")]
pub struct AsmError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong there.
    pub kind: AsmErrorKind,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AsmErrorKind {
    /// A character that starts no token.
    #[error("unexpected character {0:?}")]
    Character(char),
    /// Something else was required here.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What was required.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A number that does not fit its field.
    #[error("{value} does not fit {field}")]
    Range {
        /// The number.
        value: i128,
        /// Where it was to go.
        field: &'static str,
    },
    /// The two operands of an instruction are of different width, or registers that must agree
    /// differ.
    #[error("{0}")]
    Mismatch(&'static str),
    /// No line binds this label.
    #[error("label {0:?} is not bound")]
    Unbound(String),
    /// Two lines bind this label.
    #[error("label {0:?} is bound twice")]
    BoundTwice(String),
    /// The instruction has no encoding.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

type Parse<T> = Result<T, AsmErrorKind>;

/// Where a jump or call goes.
#[derive(Clone, Debug)]
enum Target {
    By(i64),
    Label(String),
}

/// Field that holds a distance.
#[derive(Clone, Copy, Debug)]
enum Field {
    Off,
    Imm,
}

#[derive(Debug)]
struct Line {
    number: usize,
    slot: usize,
    insns: Vec<Insn>,
    target: Option<(Field, Target)>,
}

/// Assembles a program. The result is encoded but not checked as a whole: that is
/// [`decode`](fn@crate::decode)'s.
///
/// # Errors
/// The first line that is not an instruction, or a label that is unbound or bound twice.
pub fn assemble(text: &str) -> Result<Vec<Insn>, AsmError> {
    let mut labels: HashMap<String, usize> = HashMap::new();
    let mut lines: Vec<Line> = Vec::new();
    let mut slot = 0;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let at = |kind| AsmError { line: number, kind };
        let mut p = Parser::new(line).map_err(at)?;
        while let Some(name) = p.label() {
            if labels.insert(name.clone(), slot).is_some() {
                return Err(at(AsmErrorKind::BoundTwice(name)));
            }
        }
        if p.at_end() {
            continue;
        }
        let (insns, target) = p.instruction().map_err(at)?;
        if !p.at_end() {
            return Err(at(p.expected("end of line")));
        }
        let len = insns.len();
        lines.push(Line {
            number,
            slot,
            insns,
            target,
        });
        slot += len;
    }
    let mut program = Vec::with_capacity(slot);
    for mut line in lines {
        let at = |kind| AsmError {
            line: line.number,
            kind,
        };
        if let (Some((field, target)), Some(insn)) = (&line.target, line.insns.first_mut()) {
            let by = match target {
                Target::By(by) => *by,
                Target::Label(name) => {
                    let bound = labels.get(name);
                    let bound = bound.ok_or_else(|| at(AsmErrorKind::Unbound(name.clone())))?;
                    *bound as i64 - (line.slot as i64 + 1)
                }
            };
            patch(insn, *field, by).map_err(at)?;
        }
        program.extend_from_slice(&line.insns);
    }
    Ok(program)
}

fn patch(insn: &mut Insn, field: Field, by: i64) -> Parse<()> {
    let value = i128::from(by);
    match field {
        Field::Off => insn.off = fit(value, "a 16-bit jump")?,
        Field::Imm => insn.imm = fit(value, "a 32-bit jump")?,
    }
    Ok(())
}

fn fit<T: TryFrom<i128>>(value: i128, field: &'static str) -> Parse<T> {
    T::try_from(value).map_err(|_| AsmErrorKind::Range { value, field })
}
