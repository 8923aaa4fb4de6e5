//! Objects to ELF and back; damaged files.

use dash_bpf::debug::{DebugInfo, Function, Line};
use dash_bpf::elf::{ReadError, WriteError, link, read, write};
use dash_bpf::map::{F_RDONLY_PROG, InnerMaps, Pinning};
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

/// An object with all that files can say: variables, inner maps, functions, lines, sections.
fn rich() -> Object {
    let data = |name: &str, flags, contents: Vec<u8>| MapDef {
        value_size: 12,
        max_entries: 1,
        contents,
        ..map(name, MapKind::Array, 4, 12, flags)
    };
    let inner = |slots| {
        let template = MapDef {
            name: String::new(),
            ..map("", MapKind::Hash, 8, 16, 1)
        };
        Some(Box::new(InnerMaps { template, slots }))
    };
    let line = |slot, line, text: &str| Line {
        slot,
        file: "drop.c".into(),
        line,
        column: 7,
        text: text.into(),
    };
    let function = |slot, name: &str| Function {
        slot,
        name: name.into(),
    };
    Object {
        maps: vec![
            MapDef {
                pinning: Pinning::ByName,
                ..map("counts", MapKind::PercpuArray, 4, 8, 0)
            },
            map("one", MapKind::Hash, 8, 16, 1),
            MapDef {
                inner: inner(vec![None, Some(1), Some(1)]),
                ..map("outer", MapKind::ArrayOfMaps, 4, 4, 0)
            },
            MapDef {
                inner: inner(vec![]),
                ..map("later", MapKind::HashOfMaps, 8, 4, 0)
            },
            data(".data", 0, (0..12).collect()),
            data(".rodata.str1.1", F_RDONLY_PROG, vec![7; 12]),
            data(".bss", 0, vec![]),
        ],
        programs: vec![
            Program {
                debug: DebugInfo::new(
                    vec![function(0, "first"), function(8, "part")],
                    vec![
                        line(0, 3, "int first(void *ctx)"),
                        line(2, 5, "\treturn part(total);"),
                        line(8, 9, "\treturn 1;"),
                    ],
                ),
                ..program(
                    "first",
                    ProgramKind::Xdp,
                    "r1 = value(map[4]) + 8 ll\nr2 = value(map[5]) + 0 ll\ncall part
                     r2 = imm64(4, 1, 0) ll\nexit\npart: r0 = 1\nexit",
                )
            },
            Program {
                section: Some("xdp.frags/devmap".to_owned()),
                ..program(
                    "second",
                    ProgramKind::Xdp,
                    "r1 = value(map[6]) + 11 ll\nr1 = map[2] ll\nr0 = 2\nexit",
                )
            },
        ],
        tail_calls: Vec::new(),
    }
}

#[test]
fn variables_inner_maps_and_lines_come_back() {
    let bytes = write(&rich()).expect("written");
    assert_eq!(read(&bytes), Ok(rich()));
}

#[test]
fn bare_programs_of_text_come_back_and_stand_alone() {
    let mut object = Object {
        programs: vec![Program {
            section: Some(".text".to_owned()),
            ..program("main", ProgramKind::Raw, "r0 = r2\nexit")
        }],
        ..Object::default()
    };
    assert_eq!(read(&write(&object).expect("written")), Ok(object.clone()));
    object
        .programs
        .push(program("other", ProgramKind::Xdp, "r0 = 2\nexit"));
    let (name, section) = ("main".to_owned(), ".text".to_owned());
    assert_eq!(write(&object), Err(WriteError::Section { name, section }));
}

#[test]
fn files_of_ours_link() {
    let (one, two) = (
        write(&rich()).expect("written"),
        write(&object()).expect("written"),
    );
    let both = link(&[&one, &two]).expect("linked");
    assert_eq!(both.programs.len(), 5);
    let names: Vec<_> = both.maps.iter().map(|m| m.name.as_str()).collect();
    let expected = [
        "counts",
        "one",
        "outer",
        "later",
        "routes",
        "stages",
        "acl",
        "queue",
        ".data",
        ".rodata.str1.1",
        ".bss",
    ];
    assert_eq!(names, expected);
    // Which name is met first is the symbol table's matter.
    let again = link(&[&one, &one]);
    let duplicate = |e: &ReadError| {
        matches!(
            e,
            ReadError::Duplicate {
                first: 0,
                second: 1,
                ..
            }
        )
    };
    assert!(again.as_ref().is_err_and(duplicate), "{again:?}");
}

#[test]
fn contents_and_inner_maps_that_no_file_can_say_are_not_written() {
    let with = |change: fn(&mut Object)| {
        let mut object = rich();
        change(&mut object);
        write(&object)
    };
    let contents = |name: &str| Err(WriteError::Contents(name.to_owned()));
    let inner = |name: &str| Err(WriteError::Inner(name.to_owned()));
    assert_eq!(with(|o| o.maps[1].contents = vec![1]), contents("one"));
    assert_eq!(with(|o| o.maps[4].contents = vec![1]), contents(".data"));
    assert_eq!(with(|o| o.maps[5].flags = 0), contents(".rodata.str1.1"));
    assert_eq!(with(|o| o.maps[6].contents = vec![1; 12]), contents(".bss"));
    assert_eq!(with(|o| o.maps[6].max_entries = 2), contents(".bss"));
    let slot = |o: &mut Object, to| {
        if let Some(inner) = &mut o.maps[2].inner {
            inner.slots[0] = Some(to);
        }
    };
    let mut object = rich();
    for to in [2, 3, 4, 99] {
        slot(&mut object, to);
        assert_eq!(write(&object), inner("outer"), "{to}");
    }
    let section = |name: &'static str| {
        let mut object = rich();
        object.programs[1].section = Some(name.to_owned());
        write(&object)
    };
    for name in ["tc", "", "raw", "xdp\0x"] {
        let error = section(name);
        assert!(
            matches!(error, Err(WriteError::Section { .. })),
            "{error:?}"
        );
    }
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
    for object in [object(), rich()] {
        let whole = write(&object).expect("written");
        for len in 0..whole.len() {
            let _ = read(&whole[..len]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn damaged_files_never_panic(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        words in vec((any::<prop::sample::Index>(), any::<u32>()), 0..3),
        other in any::<bool>(),
    ) {
        let object = if other { rich() } else { object() };
        let mut bytes = write(&object).expect("written");
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        for (at, to) in words {
            let at = at.index(bytes.len() / 4) * 4;
            bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
        }
        if let Ok(object) = read(&bytes) {
            // What has a form comes back as it was.
            if let Ok(written) = write(&object) {
                prop_assert_eq!(read(&written), Ok(object));
            }
        }
    }
}
