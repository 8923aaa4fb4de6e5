//! Maps all tests use, and programs from text.

use dash_bpf::{MapDef, MapKind, Object, Program, ProgramKind, assemble};
use dash_verify::{Judge, Objection, Options, Policy, Reason, Verified, Verifier, VerifyError};

pub(crate) const HASH: u32 = 0; // 4 -> 16
pub(crate) const PROGRAMS: u32 = 6;

fn map(name: &str, kind: MapKind, key_size: u32, value_size: u32, max_entries: u32) -> MapDef {
    MapDef {
        name: name.to_owned(),
        kind,
        key_size,
        value_size,
        max_entries,
        flags: 0,
        ..MapDef::default()
    }
}

/// Numbered as the programs name them: `map[0]` and so on.
pub(crate) fn maps() -> Vec<MapDef> {
    vec![
        map("hash", MapKind::Hash, 4, 16, 100),       // 0
        map("array", MapKind::Array, 4, 64, 8),       // 1
        map("meta", MapKind::PercpuArray, 4, 256, 1), // 2
        map("lpm", MapKind::LpmTrie, 8, 16, 100),     // 3
        map("acl", MapKind::Acl, 40, 8, 100),         // 4
        map("queue", MapKind::Queue, 0, 24, 100),     // 5
        map("programs", MapKind::ProgArray, 4, 4, 4), // 6
        map("ports", MapKind::DevMap, 4, 4, 4),       // 7
        map("one", MapKind::Array, 4, 32, 1),         // 8
        map("inner", MapKind::ArrayOfMaps, 4, 4, 4),  // 9
    ]
}

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
    Verifier::new(Options::default()).verify(&object(name, text))
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
