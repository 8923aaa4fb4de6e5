//! Why an object is not accepted.

use dash_bpf::debug::Line;
use dash_bpf::decode::DecodeError;
use dash_bpf::encode::EncodeError;
use thiserror::Error;

use crate::own::Objection;
use crate::rules::Refusal;

/// Why an object is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// The object as a whole is inconsistent.
    #[error("object: {0}")]
    Object(#[from] ObjectRule),
    /// A program is not accepted.
    #[error("program {index} ({name}){}: {reason}", place(.reason.pc(), .line.as_deref()))]
    Program {
        /// Its index in the object.
        index: usize,
        /// Its name.
        name: String,
        /// Why, and at which instruction where one is to blame.
        reason: Reason,
        /// Where that instruction comes from, if the object says.
        line: Option<Box<Line>>,
    },
}

fn place(pc: Option<usize>, line: Option<&Line>) -> String {
    match (pc, line) {
        (None, _) => String::new(),
        (Some(pc), None) => format!(", instruction {pc}"),
        (Some(pc), Some(line)) => {
            format!(", instruction {pc}, {line} `{}`", line.text.trim())
        }
    }
}

/// What an object must be before its programs are looked at.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ObjectRule {
    /// It has no program.
    #[error("no program")]
    NoProgram,
    /// A map's definition makes no map.
    #[error("map {index} ({name}): {why}")]
    Map {
        /// Its index.
        index: usize,
        /// Its name.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The contents given for a program array do not fit it.
    #[error("contents of program array {map}: {why}")]
    TailCalls {
        /// Index of the map.
        map: u32,
        /// What is wrong.
        why: &'static str,
    },
}

/// Why a program is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// Only XDP programs have a context and helpers to verify against.
    #[error("programs of this kind cannot be verified")]
    Kind,
    /// More instructions than the policy allows.
    #[error("{len} instructions are more than {max}")]
    TooLong {
        /// Its length.
        len: usize,
        /// The policy's limit.
        max: usize,
    },
    /// It is not well-formed.
    #[error("malformed: {}", .0.rule)]
    Malformed(#[from] DecodeError),
    /// It breaks a rule of ours.
    #[error("{rule}")]
    Rule {
        /// Slot of the instruction.
        pc: usize,
        /// The rule.
        rule: Refusal,
    },
    /// Our own verifier refuses an instruction.
    #[error("{0}")]
    Own(Box<Objection>),
    /// Its copy for PREVAIL has a jump that does not fit.
    #[error("too large to analyse: {0}")]
    Model(EncodeError),
    /// PREVAIL found no proof.
    #[error("not proven safe: {reason}")]
    Prevail {
        /// Slot of the instruction, where one is to blame.
        pc: Option<usize>,
        /// PREVAIL's words; registers and offsets are its own.
        reason: String,
    },
    /// PREVAIL failed on it, which proves nothing.
    #[error("the analysis failed: {message}")]
    Panicked {
        /// First line of the panic's message.
        message: String,
    },
}

impl Reason {
    /// Slot of the instruction to blame.
    pub fn pc(&self) -> Option<usize> {
        match self {
            Self::Malformed(e) => Some(e.pc),
            Self::Rule { pc, .. } => Some(*pc),
            Self::Own(objection) => Some(objection.pc),
            Self::Prevail { pc, .. } => *pc,
            Self::Kind | Self::TooLong { .. } | Self::Model(_) | Self::Panicked { .. } => None,
        }
    }
}
