//! Any bytes as type information of a file: what reads writes to a file that reads the same, links, and has a listing;
//! as types of a target, they change a file where they can. The input is `.BTF` and `.BTF.ext`, the length of
//! the first in front; without a second, the file keeps its own.

use std::sync::LazyLock;

use dash_bpf::debug::{Function, Line};
use dash_bpf::disasm::with_source;
use dash_bpf::elf::{Options, load, load_with, read, write};
use dash_bpf::map::InnerMaps;
use dash_bpf::{DebugInfo, MapDef, MapKind, Object, Program, assemble};

/// The file that gets other types: maps, and a program of two functions that loads and stores, with lines.
pub(crate) static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let map = |name: &str, kind, key_size, value_size| MapDef {
        name: name.to_owned(),
        kind,
        key_size,
        value_size,
        max_entries: 4,
        ..MapDef::default()
    };
    let inner = InnerMaps {
        template: map("", MapKind::Array, 4, 8),
        slots: vec![Some(1), None],
    };
    let text = "r1 = map[0] ll\nr1 = map[2] ll\nr2 = *(u32 *)(r10 - 8)\n*(u8 *)(r10 - 1) = r2\n\
                r3 = 5 ll\nr4 = 7\ncall part\nexit\npart:\nr0 = *(u16 *)(r10 - 4)\nexit";
    let function = |slot, name: &str| Function {
        slot,
        name: name.into(),
    };
    let line = |slot, line| Line {
        slot,
        file: "file.c".into(),
        line,
        column: 3,
        text: "\treturn part();".into(),
    };
    let object = Object {
        maps: vec![
            map("hash", MapKind::Hash, 8, 16),
            map("array", MapKind::Array, 4, 8),
            MapDef {
                inner: Some(Box::new(inner)),
                ..map("outer", MapKind::ArrayOfMaps, 4, 4)
            },
        ],
        programs: vec![Program {
            name: "one".to_owned(),
            insns: assemble(text).expect("text"),
            debug: DebugInfo::new(
                vec![function(0, "one"), function(11, "part")],
                vec![line(0, 3), line(6, 4), line(11, 9)],
            ),
            ..Program::default()
        }],
        tail_calls: Vec::new(),
    };
    write(&object).expect("an object with a form")
});

/// Where an ELF64 header says where section headers are, how long one is, how many there are, and which one
/// is that of their names.
const SECTIONS: usize = 0x28;
const SECTION_SIZE: usize = 0x3a;
const COUNT: usize = 0x3c;
const NAMES: usize = 0x3e;

/// In a section header.
const OFFSET: usize = 0x18;
const SIZE: usize = 0x20;

fn number<const N: usize>(file: &[u8], at: usize) -> usize {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(&file[at..at + N]);
    u64::from_le_bytes(bytes) as usize
}

/// Bytes of a section of a file, and where its header is.
fn section(file: &[u8], name: &str) -> Option<(usize, Vec<u8>)> {
    let headers = number::<8>(file, SECTIONS);
    let size = number::<2>(file, SECTION_SIZE);
    let header = |index: usize| headers + index * size;
    let names = number::<8>(file, header(number::<2>(file, NAMES)) + OFFSET);
    let is = |header: &usize| {
        let at = names + number::<4>(file, *header);
        file[at..].starts_with(name.as_bytes()) && file[at + name.len()] == 0
    };
    let found = (0..number::<2>(file, COUNT)).map(header).find(is)?;
    let from = number::<8>(file, found + OFFSET);
    let to = from + number::<8>(file, found + SIZE);
    Some((found, file[from..to].to_vec()))
}

/// Gives a section of a file other bytes.
fn replace(file: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    if let Some((header, _)) = section(file, name) {
        file.resize(file.len().next_multiple_of(8), 0);
        let from = file.len() as u64;
        file.extend_from_slice(bytes);
        file[header + OFFSET..][..8].copy_from_slice(&from.to_le_bytes());
        file[header + SIZE..][..8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    }
}

/// The types of a file as an input.
pub(crate) fn input(file: &[u8]) -> Vec<u8> {
    let part = |name| section(file, name).map_or_else(Vec::new, |(_, bytes)| bytes);
    let (types, ext) = (part(".BTF"), part(".BTF.ext"));
    [&(types.len() as u32).to_le_bytes()[..], &types, &ext].concat()
}

pub(crate) fn run(data: &[u8]) {
    let Some((len, rest)) = data.split_first_chunk::<4>() else {
        return;
    };
    let at = (u32::from_le_bytes(*len) as usize).min(rest.len());
    let (types, ext) = rest.split_at(at);
    let mut changed = FILE.clone();
    replace(&mut changed, ".BTF", types);
    if !ext.is_empty() {
        replace(&mut changed, ".BTF.ext", ext);
    }
    if let Ok(object) = read(&changed)
        && let Ok(written) = write(&object)
    {
        assert_eq!(read(&written).expect("our own file"), object);
    }
    if let Ok(loaded) = load(&[&changed]) {
        for program in &loaded.object.programs {
            let listing = with_source(program, &loaded.object.maps);
            assert!(!listing.expect("it decodes").is_empty());
        }
    }
    let options = Options {
        target: Some(types),
        ..Options::default()
    };
    for file in [&*FILE, &changed] {
        let _ = load_with(&[file], &options);
    }
}
