//! The fuzz targets of this crate, for some seconds and without libFuzzer: see `fuzz/README.md`.

use dash_bpf::elf::write;
use dash_bpf::map::{InnerMaps, Pinning};
use dash_bpf::{MapDef, MapKind, Object, Program, assemble};

use crate::clang::compile;
use crate::co_re;

#[path = "../../../../fuzz/bodies/bpf_asm.rs"]
mod bpf_asm;
#[path = "../../../../fuzz/bodies/bpf_btf.rs"]
mod bpf_btf;
#[path = "../../../../fuzz/bodies/bpf_decode.rs"]
mod bpf_decode;
#[path = "../../../../fuzz/bodies/bpf_elf.rs"]
mod bpf_elf;
#[path = "../../../../fuzz/bodies/bpf_interp.rs"]
mod bpf_interp;
#[path = "../../../../fuzz/bodies/bpf_link.rs"]
mod bpf_link;
#[path = "../../../../fuzz/bodies/driver.rs"]
mod driver;

/// Programs that use every kind of instruction.
const SEEDS: &str = include_str!("../../../verify/tests/seeds.txt");

fn texts() -> Vec<Vec<u8>> {
    let texts = SEEDS
        .split("=== ours\n")
        .flat_map(|part| part.split("---\n"));
    texts.map(|text| text.as_bytes().to_vec()).collect()
}

fn code(text: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(text).expect("text");
    let insns = assemble(text).expect("seeds assemble");
    insns.iter().flat_map(|insn| insn.to_bytes()).collect()
}

fn programs() -> Vec<Vec<u8>> {
    texts().iter().map(|text| code(text)).collect()
}

/// Files with maps of all kinds that have a form, and programs that name them.
fn files() -> Vec<Vec<u8>> {
    let map = |name: &str, kind, key_size, value_size| MapDef {
        name: name.to_owned(),
        kind,
        key_size,
        value_size,
        max_entries: 4,
        ..MapDef::default()
    };
    let program = |name: &str, text: &str| Program {
        name: name.to_owned(),
        insns: assemble(text).expect("text"),
        ..Program::default()
    };
    let inner = map("", MapKind::Array, 4, 8);
    let object = Object {
        maps: vec![
            map("hash", MapKind::Hash, 4, 16),
            MapDef {
                pinning: Pinning::ByName,
                ..map("array", MapKind::Array, 4, 64)
            },
            MapDef {
                inner: Some(Box::new(InnerMaps {
                    template: inner.clone(),
                    slots: vec![Some(3), None],
                })),
                ..map("outer", MapKind::ArrayOfMaps, 4, 4)
            },
            MapDef {
                name: "inner".to_owned(),
                ..inner
            },
        ],
        programs: vec![
            program(
                "one",
                "r1 = map[0] ll\nr1 = map[2] ll\ncall f\nexit\nf:\nr0 = 1\nexit",
            ),
            program("two", "r1 = map[1] ll\nr0 = 2\nexit"),
        ],
        tail_calls: Vec::new(),
    };
    let small = Object {
        programs: vec![program("three", "r0 = 2\nexit")],
        ..Object::default()
    };
    let write = |object| write(object).expect("an object with a form");
    vec![write(&object), write(&small)]
}

#[test]
fn decoder() {
    driver::drive(&programs(), 60_000, bpf_decode::run);
}

/// What a run of 400,000 inputs found: encoded again it is the near jump.
#[test]
fn a_far_jump_to_the_next_slot() {
    bpf_decode::run(&code(b"gotol +0\nr0 = 0\nexit"));
}

#[test]
fn assembler() {
    driver::drive(&texts(), 20_000, bpf_asm::run);
}

#[test]
fn elf_files() {
    driver::drive(&files(), 20_000, bpf_elf::run);
}

#[test]
fn types() {
    let mut inputs = vec![bpf_btf::input(&bpf_btf::FILE)];
    // A compiler's have more kinds, and relocations.
    inputs.extend(
        [co_re::PROGRAM, co_re::TARGET]
            .into_iter()
            .filter_map(compile)
            .map(|f| bpf_btf::input(&f)),
    );
    driver::drive(&inputs, 10_000, bpf_btf::run);
}

#[test]
fn linker() {
    // The first file's length comes before the two.
    let files = files();
    let pair = |a: &Vec<u8>, b: &Vec<u8>| {
        let len = (a.len() as u32).to_le_bytes();
        [&len[..], a, b].concat()
    };
    let pairs = vec![pair(&files[0], &files[1]), pair(&files[1], &files[0])];
    driver::drive(&pairs, 4_000, bpf_link::run);
}

#[test]
fn interpreter() {
    let with_memory = |code: Vec<u8>| [vec![16], vec![7; 16], code].concat();
    let inputs: Vec<_> = programs().into_iter().map(with_memory).collect();
    driver::drive(&inputs, 20_000, bpf_interp::run);
}
