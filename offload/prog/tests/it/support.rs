//! Objects for tests.

use dash_bpf::{MapDef, MapKind, Object, Program, assemble};
use dash_prog::{Engine, Ingress, LoadOptions, Loaded, Outcome, Packet};

pub(crate) fn def(name: &str, kind: MapKind, key: u32, value: u32, entries: u32) -> MapDef {
    MapDef {
        name: name.to_owned(),
        kind,
        key_size: key,
        value_size: value,
        max_entries: entries,
        flags: if kind == MapKind::LpmTrie { 1 } else { 0 },
        ..MapDef::default()
    }
}

pub(crate) fn object(maps: Vec<MapDef>, programs: &[&str]) -> Object {
    let programs = programs.iter().enumerate().map(|(number, text)| Program {
        name: format!("p{number}"),
        insns: assemble(text).unwrap_or_else(|e| panic!("{e}: {text}")),
        ..Program::default()
    });
    Object {
        maps,
        programs: programs.collect(),
        tail_calls: Vec::new(),
    }
}

pub(crate) fn load(object: &Object, engine: Engine) -> Loaded {
    let options = LoadOptions {
        engine,
        cpus: 2,
        ..LoadOptions::default()
    };
    Loaded::from_object(object.clone(), &options).unwrap_or_else(|e| panic!("{engine}: {e}"))
}

/// Runs the first program once on a frame with room around it: what came of it and the frame after.
pub(crate) fn run(loaded: &Loaded, frame: &[u8]) -> (Outcome, Vec<u8>) {
    let mut runner = loaded.first().expect("a program").runner(0).expect("cpu 0");
    let mut memory = vec![0; 256 + frame.len() + 256];
    memory[256..256 + frame.len()].copy_from_slice(frame);
    let mut packet = Packet::new(&mut memory, 256..256 + frame.len()).expect("inside");
    let ingress = Ingress {
        ifindex: 3,
        queue: 1,
        egress_ifindex: 0,
        now_ns: 77,
    };
    let outcome = runner.run(&mut packet, &ingress);
    (outcome, packet.data().to_vec())
}
