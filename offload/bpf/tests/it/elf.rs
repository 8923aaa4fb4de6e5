//! Objects to ELF and back; damaged files.

use dash_bpf::elf::{ReadError, WriteError, read, write};
use dash_bpf::program::TailCalls;
use dash_bpf::{MapDef, MapKind, Object, Program, ProgramKind, assemble};
use proptest::collection::vec;
use proptest::prelude::*;

fn map(name: &str, kind: MapKind, key_size: u32, value_size: u32, flags: u32) -> MapDef {
    MapDef {
        name: name.to_owned(),
        kind,
        key_size,
        value_size,
        max_entries: 16,
        flags,
        ..MapDef::default()
    }
}

fn program(name: &str, kind: ProgramKind, text: &str) -> Program {
    Program {
        name: name.to_owned(),
        kind,
        insns: assemble(text).expect("text"),
        ..Program::default()
    }
}

fn object() -> Object {
    Object {
        maps: vec![
            map("routes", MapKind::LpmTrie, 8, 4, 1),
            map("stages", MapKind::ProgArray, 4, 4, 0),
            map("acl", MapKind::Acl, 40, 8, 0),
            map("queue", MapKind::Queue, 0, 16, 0),
        ],
        programs: vec![
            program(
                "entry",
                ProgramKind::Xdp,
                "r2 = map[1] ll\nr3 = 2\ncall 12\nr0 = 0\nexit",
            ),
            program("bare", ProgramKind::Raw, "r0 = r2\nexit"),
            program(
                "route",
                ProgramKind::Xdp,
                "r1 = map[0] ll\nr2 = map[2] ll\nr3 = 0x1122334455667788 ll\nr4 = imm64(4, 1, 2) ll
                 call f\nexit\nf: r1 = map[3] ll\nr0 = 2\nexit",
            ),
        ],
        tail_calls: vec![TailCalls {
            map: 1,
            programs: vec![None, Some(0), Some(2), None],
        }],
    }
}

#[test]
fn an_object_read_back_is_the_object_written() {
    let mut expected = object();
    // Programs come back section by section.
    expected.programs.swap(1, 2);
    expected.tail_calls[0].programs = vec![None, Some(0), Some(1), None];
    let bytes = write(&object()).expect("written");
    assert_eq!(read(&bytes), Ok(expected.clone()));
    assert_eq!(read(&write(&expected).expect("written")), Ok(expected));
}

#[test]
fn every_kind_of_map_comes_back() {
    let mut object = object();
    object.tail_calls.clear();
    object.maps = MapKind::ALL
        .iter()
        .map(|kind| map(&format!("map{}", *kind as u32), *kind, 4, 8, 0))
        .collect();
    object.programs.truncate(1);
    assert_eq!(read(&write(&object).expect("written")), Ok(object));
}

#[test]
fn an_object_without_maps_has_no_type_information() {
    let object = Object {
        programs: vec![program("pass", ProgramKind::Xdp, "r0 = 2\nexit")],
        ..Object::default()
    };
    let bytes = write(&object).expect("written");
    assert!(!bytes.windows(4).any(|w| w == b".BTF"));
    assert_eq!(read(&bytes), Ok(object));
}

#[test]
fn what_has_no_elf_form_is_not_written() {
    let with = |change: fn(&mut Object)| {
        let mut object = object();
        change(&mut object);
        write(&object)
    };
    assert_eq!(
        with(|o| o.maps[0].name = "entry".to_owned()),
        Err(WriteError::Name("entry".to_owned()))
    );
    assert_eq!(
        with(|o| o.maps[0].name.clear()),
        Err(WriteError::Name(String::new()))
    );
    assert_eq!(
        with(|o| o.tail_calls[0].map = 9),
        Err(WriteError::TailCalls(9))
    );
    assert_eq!(
        with(|o| o.tail_calls[0].programs[0] = Some(9)),
        Err(WriteError::TailCalls(1))
    );
    assert_eq!(
        with(|o| o.tail_calls.push(o.tail_calls[0].clone())),
        Err(WriteError::TailCalls(1))
    );
    assert_eq!(
        with(|o| o.maps.truncate(2)),
        Err(WriteError::NoMap {
            name: "route".to_owned(),
            pc: 2,
            map: 2
        })
    );
    assert_eq!(
        with(|o| o.programs[0].insns = assemble("r1 = value(map[0]) + 0 ll\nexit").expect("text")),
        Err(WriteError::MapValue {
            name: "entry".to_owned(),
            pc: 0
        })
    );
    let malformed = with(|o| o.programs[0].insns.truncate(1));
    assert!(
        matches!(malformed, Err(WriteError::Malformed { .. })),
        "{malformed:?}"
    );
}

#[test]
fn files_for_something_else_are_refused() {
    assert!(matches!(read(b""), Err(ReadError::Elf(_))));
    let mut other = write(&object()).expect("written");
    other[18] = 62; // e_machine: x86-64
    assert_eq!(read(&other), Err(ReadError::NotBpf));
    let empty = write(&Object::default()).expect("written");
    let skipped = Vec::new();
    assert_eq!(read(&empty), Err(ReadError::NoProgram { skipped }));
}

#[test]
fn every_truncation_is_refused_or_read_without_a_panic() {
    let whole = write(&object()).expect("written");
    for len in 0..whole.len() {
        let _ = read(&whole[..len]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn damaged_files_never_panic(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        words in vec((any::<prop::sample::Index>(), any::<u32>()), 0..3),
    ) {
        let mut bytes = write(&object()).expect("written");
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        for (at, to) in words {
            let at = at.index(bytes.len() / 4) * 4;
            bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
        }
        if let Ok(read) = read(&bytes) {
            // Whatever was read is consistent enough to be written, or says why not.
            let _ = write(&read);
        }
    }
}
