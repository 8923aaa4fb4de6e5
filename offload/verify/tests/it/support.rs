//! Maps all tests use, and programs from text.

use dash_bpf::{Object, Program, ProgramKind, assemble};
use dash_verify::{Judge, Objection, Options, Policy, Reason, Verified, Verifier, VerifyError};

use crate::machine::maps;

pub(crate) const HASH: u32 = 0; // 4 -> 16
pub(crate) const PROGRAMS: u32 = 6;

pub(crate) fn program(name: &str, text: &str) -> Program {
    let insns = assemble(text).unwrap_or_else(|e| panic!("{name}: {e}"));
    Program {
        name: name.to_owned(),
        kind: ProgramKind::Xdp,
        insns,
        ..Program::default()
    }
}

pub(crate) fn object(name: &str, text: &str) -> Object {
    Object {
        maps: maps(),
        programs: vec![program(name, text)],
        tail_calls: Vec::new(),
    }
}

pub(crate) fn verify(name: &str, text: &str) -> Result<Verified<Object>, VerifyError> {
    Verifier::new(by(Judge::Prevail)).verify(&object(name, text))
}

/// Options that let this judge decide.
pub(crate) fn by(judge: Judge) -> Options {
    let policy = Policy {
        judge,
        ..Policy::default()
    };
    Options {
        policy,
        ..Options::default()
    }
}

/// What our own verifier says of a program of one.
pub(crate) fn own(name: &str, text: &str) -> Result<(), Objection> {
    match Verifier::new(by(Judge::Own)).verify(&object(name, text)) {
        Ok(_) => Ok(()),
        Err(VerifyError::Program {
            reason: Reason::Own(objection),
            ..
        }) => Err(*objection),
        Err(other) => panic!("{name}: {other}\n{text}"),
    }
}

/// Why a program of one is refused.
pub(crate) fn reason(name: &str, text: &str) -> Reason {
    match verify(name, text) {
        Err(VerifyError::Program { reason, .. }) => reason,
        other => panic!("{name}: expected a refused program, got {other:?}"),
    }
}
