//! eBPF objects as ELF files, in the form libbpf reads: programs in `xdp`, maps in `.maps` with
//! their BTF, program arrays with their programs.
//!
//! The `acl` map is of a kind of ours that Linux does not have; a loader has to supply that one
//! itself.

use anyhow::{Context, Result, bail};
use dash_bpf::{Insn, MapDef, MapKind, Object};
use object::write::{Object as Elf, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

/// `R_BPF_64_64`: the address of a symbol, in the immediate of an `lddw` or in data.
const R_BPF_64_64: u32 = 1;
/// `BPF_LD | BPF_IMM | BPF_DW`.
const LDDW: u8 = 0x18;
/// `BPF_PSEUDO_MAP_FD`, which in our objects means a map's index.
const MAP_INDEX: u8 = 1;
/// Bytes of an instruction slot.
const SLOT: usize = 8;

/// Writes an object.
///
/// # Errors
/// It refers to maps in a way that ELF relocations cannot say, or names a map or program that is
/// not there.
pub fn write(object: &Object) -> Result<Vec<u8>> {
    let mut elf = Elf::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let text = elf.add_section(Vec::new(), b"xdp".to_vec(), SectionKind::Text);
    let maps = elf.add_section(Vec::new(), b".maps".to_vec(), SectionKind::Data);

    let layout = layout(object)?;
    let mut map_symbols = Vec::with_capacity(object.maps.len());
    for (map, place) in object.maps.iter().zip(&layout) {
        let symbol = symbol(&map.name, place.offset, place.size, SymbolKind::Data, maps);
        map_symbols.push(elf.add_symbol(symbol));
    }
    let programs = add_programs(&mut elf, object, text, &map_symbols)?;
    add_maps(&mut elf, object, maps, &layout, &programs)?;

    let license = elf.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    elf.append_section_data(license, b"Apache-2.0\0", 1);
    let btf = elf.add_section(Vec::new(), b".BTF".to_vec(), SectionKind::Other);
    elf.append_section_data(btf, &btf_of(&object.maps, &layout), 4);
    elf.write().context("ELF")
}

fn symbol(name: &str, value: u64, size: u64, kind: SymbolKind, section: SectionId) -> Symbol {
    Symbol {
        name: name.as_bytes().to_vec(),
        value,
        size,
        kind,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    }
}

/// Where a map's definition is in `.maps`. A member is a pointer, whose type says the number; what
/// is stored are the programs of a program array.
struct Place {
    offset: u64,
    size: u64,
    members: Vec<(&'static str, u32)>,
    programs: Vec<Option<u32>>,
}

fn layout(object: &Object) -> Result<Vec<Place>> {
    let mut places = Vec::with_capacity(object.maps.len());
    let mut offset = 0;
    for (index, map) in object.maps.iter().enumerate() {
        let programs = object
            .tail_calls
            .iter()
            .find(|calls| usize::try_from(calls.map) == Ok(index))
            .map(|calls| calls.programs.clone())
            .unwrap_or_default();
        if !programs.is_empty() && map.kind != MapKind::ProgArray {
            bail!("map {} holds programs but is no program array", map.name);
        }
        let all = [
            ("type", map.kind as u32),
            ("key_size", map.key_size),
            ("value_size", map.value_size),
            ("max_entries", map.max_entries),
            ("map_flags", map.flags),
        ];
        // libbpf takes what is absent as 0.
        let members: Vec<_> = all.into_iter().filter(|(_, value)| *value != 0).collect();
        let size = ((members.len() + programs.len()) * 8) as u64;
        places.push(Place {
            offset,
            size,
            members,
            programs,
        });
        offset += size;
    }
    Ok(places)
}

/// Programs one after another in a section; each map reference becomes a relocation.
fn add_programs(
    elf: &mut Elf<'_>,
    object: &Object,
    text: SectionId,
    maps: &[SymbolId],
) -> Result<Vec<SymbolId>> {
    let mut symbols = Vec::with_capacity(object.programs.len());
    for program in &object.programs {
        let mut code = Vec::with_capacity(program.insns.len() * SLOT);
        let mut references = Vec::new();
        let mut slots = program.insns.iter().enumerate();
        while let Some((slot, insn)) = slots.next() {
            let mut insn = *insn;
            if insn.code == LDDW {
                match insn.src() {
                    0 => {}
                    MAP_INDEX => {
                        let map = usize::try_from(insn.imm)
                            .ok()
                            .and_then(|index| maps.get(index));
                        let map = map.with_context(|| {
                            format!("{}, slot {slot}: no map {}", program.name, insn.imm)
                        })?;
                        references.push((slot * SLOT, *map));
                        insn = Insn {
                            regs: insn.dst(),
                            imm: 0,
                            ..insn
                        };
                    }
                    kind => bail!(
                        "{}, slot {slot}: immediates of kind {kind} have no relocation",
                        program.name
                    ),
                }
                code.extend_from_slice(&insn.to_bytes());
                // The high half is data, whatever it looks like.
                if let Some((_, high)) = slots.next() {
                    code.extend_from_slice(&high.to_bytes());
                }
                continue;
            }
            code.extend_from_slice(&insn.to_bytes());
        }
        let start = elf.append_section_data(text, &code, 8);
        symbols.push(elf.add_symbol(symbol(
            &program.name,
            start,
            code.len() as u64,
            SymbolKind::Text,
            text,
        )));
        for (at, map) in references {
            relocate(elf, text, start + at as u64, map)?;
        }
    }
    Ok(symbols)
}

fn add_maps(
    elf: &mut Elf<'_>,
    object: &Object,
    section: SectionId,
    layout: &[Place],
    programs: &[SymbolId],
) -> Result<()> {
    let size: u64 = layout.iter().map(|place| place.size).sum();
    elf.append_section_data(section, &vec![0; usize::try_from(size)?], 8);
    for (map, place) in object.maps.iter().zip(layout) {
        let first = place.offset + (place.members.len() * 8) as u64;
        for (slot, program) in place.programs.iter().enumerate() {
            let Some(program) = program else { continue };
            let symbol = usize::try_from(*program)
                .ok()
                .and_then(|index| programs.get(index));
            let symbol = symbol
                .with_context(|| format!("map {}, slot {slot}: no program {program}", map.name))?;
            relocate(elf, section, first + (slot * 8) as u64, *symbol)?;
        }
    }
    Ok(())
}

fn relocate(elf: &mut Elf<'_>, section: SectionId, offset: u64, symbol: SymbolId) -> Result<()> {
    let flags = RelocationFlags::Elf {
        r_type: R_BPF_64_64,
    };
    elf.add_relocation(
        section,
        Relocation {
            offset,
            symbol,
            addend: 0,
            flags,
        },
    )
    .context("relocation")
}

/// Kinds of BTF types (`include/uapi/linux/btf.h`).
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
}

/// BTF under construction: types count from 1, names are offsets of strings.
struct Btf {
    types: Vec<u8>,
    count: u32,
    strings: Vec<u8>,
}

impl Btf {
    fn name(&mut self, name: &str) -> u32 {
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    /// A `btf_type` and what follows it.
    fn add(&mut self, name: u32, kind: u32, vlen: usize, size_or_type: u32, rest: &[u32]) -> u32 {
        for word in [name, kind << 24 | vlen as u32, size_or_type]
            .iter()
            .chain(rest)
        {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }
}

/// What the C macros of `bpf_helpers.h` make: `int (*max_entries)[16]` says 16.
fn btf_of(maps: &[MapDef], layout: &[Place]) -> Vec<u8> {
    let mut btf = Btf {
        types: Vec::new(),
        count: 0,
        strings: vec![0],
    };
    let int_name = btf.name("int");
    // Signed, 32 bits.
    let int = btf.add(int_name, kind::INT, 0, 4, &[1 << 24 | 32]);
    let mut variables = Vec::new();
    for (map, place) in maps.iter().zip(layout) {
        let mut members = Vec::new();
        for (at, (name, value)) in place.members.iter().enumerate() {
            let array = btf.add(0, kind::ARRAY, 0, 0, &[int, int, *value]);
            let pointer = btf.add(0, kind::PTR, 0, array, &[]);
            members.extend([btf.name(name), pointer, (at * 64) as u32]);
        }
        let mut count = place.members.len();
        if !place.programs.is_empty() {
            // int (*values[])(void *)
            let void = btf.add(0, kind::PTR, 0, 0, &[]);
            let function = btf.add(0, kind::FUNC_PROTO, 1, int, &[0, void]);
            let pointer = btf.add(0, kind::PTR, 0, function, &[]);
            let array = btf.add(0, kind::ARRAY, 0, 0, &[pointer, int, 0]);
            members.extend([btf.name("values"), array, (count * 64) as u32]);
            count += 1;
        }
        let definition = btf.add(
            0,
            kind::STRUCT,
            count,
            (place.members.len() * 8) as u32,
            &members,
        );
        let name = btf.name(&map.name);
        // 1: a global variable.
        let variable = btf.add(name, kind::VAR, 0, definition, &[1]);
        variables.extend([variable, place.offset as u32, place.size as u32]);
    }
    let name = btf.name(".maps");
    let size: u64 = layout.iter().map(|place| place.size).sum();
    btf.add(name, kind::DATASEC, layout.len(), size as u32, &variables);

    let mut out = Vec::new();
    out.extend_from_slice(&0xeb9f_u16.to_le_bytes());
    out.extend_from_slice(&[1, 0]);
    let (types, strings) = (btf.types.len() as u32, btf.strings.len() as u32);
    for word in [24, 0, types, types, strings] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&btf.types);
    out.extend_from_slice(&btf.strings);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use dash_bpf::program::TailCalls;
    use dash_bpf::{Program, ProgramKind};
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};

    fn map(name: &str, kind: MapKind) -> MapDef {
        MapDef {
            name: name.to_owned(),
            kind,
            key_size: 4,
            value_size: 4,
            max_entries: 8,
            flags: 0,
        }
    }

    fn sample() -> Object {
        let insn = |code, dst: u8, src: u8, imm| Insn {
            code,
            regs: src << 4 | dst,
            off: 0,
            imm,
        };
        let load = |map| vec![insn(LDDW, 1, 1, map), insn(0, 0, 0, 0), insn(0x95, 0, 0, 0)];
        let program = |name: &str, insns| Program {
            name: name.to_owned(),
            kind: ProgramKind::Xdp,
            insns,
        };
        Object {
            maps: vec![
                map("counts", MapKind::Array),
                map("stages", MapKind::ProgArray),
            ],
            programs: vec![program("first", load(1)), program("second", load(0))],
            tail_calls: vec![TailCalls {
                map: 1,
                programs: vec![Some(0), None, Some(1)],
            }],
        }
    }

    /// Section, offset and name of every relocation's target.
    fn relocations(file: &object::File<'_>, section: &str) -> Vec<(u64, String)> {
        let section = file.section_by_name(section).expect("the section");
        section
            .relocations()
            .map(|(at, relocation)| {
                let RelocationTarget::Symbol(index) = relocation.target() else {
                    panic!("{relocation:?}")
                };
                (
                    at,
                    file.symbol_by_index(index)
                        .and_then(|s| s.name())
                        .expect("a name")
                        .to_owned(),
                )
            })
            .collect()
    }

    #[test]
    fn references_become_relocations_to_maps_and_programs_by_name() {
        let bytes = write(&sample()).expect("an ELF file");
        let file = object::File::parse(&*bytes).expect("an ELF file");
        assert_eq!(file.architecture(), Architecture::Bpf);
        assert_eq!(
            relocations(&file, "xdp"),
            [(0, "stages".to_owned()), (24, "counts".to_owned())]
        );
        // 4 members of `counts`, 4 of `stages`, then its slots.
        assert_eq!(
            relocations(&file, ".maps"),
            [(64, "first".to_owned()), (80, "second".to_owned())]
        );
        let code = file
            .section_by_name("xdp")
            .expect("the section")
            .data()
            .expect("bytes")
            .to_vec();
        assert_eq!(
            &code[..8],
            [LDDW, 1, 0, 0, 0, 0, 0, 0],
            "the index is the relocation's to fill in"
        );
    }

    #[test]
    fn btf_says_the_shape_of_each_map() {
        let bytes = write(&sample()).expect("an ELF file");
        let file = object::File::parse(&*bytes).expect("an ELF file");
        let btf = file
            .section_by_name(".BTF")
            .expect("the section")
            .data()
            .expect("bytes")
            .to_vec();
        let word = |at: usize| u32::from_le_bytes(btf[at..at + 4].try_into().expect("4 bytes"));
        assert_eq!((&btf[..4], word(4)), (&[0x9f, 0xeb, 1, 0][..], 24));
        let (types, strings) = (word(12) as usize, word(20) as usize);
        assert_eq!(24 + types + strings, btf.len());
        // int, then array [2] and pointer of `type = BPF_MAP_TYPE_ARRAY`.
        assert_eq!(
            [word(24 + 4) >> 24, word(24 + 12)],
            [kind::INT, 1 << 24 | 32]
        );
        assert_eq!(
            [word(40 + 4) >> 24, word(40 + 20)],
            [kind::ARRAY, MapKind::Array as u32]
        );
        let names = String::from_utf8(btf[24 + types..].to_vec()).expect("text");
        for name in [
            "type",
            "key_size",
            "value_size",
            "max_entries",
            "values",
            "counts",
            "stages",
            ".maps",
        ] {
            assert!(
                names.split('\0').any(|n| n == name),
                "{name} is not among {names:?}"
            );
        }
    }

    #[test]
    fn a_reference_to_no_map_is_an_error_with_its_place() {
        let mut object = sample();
        object.maps.pop();
        object.tail_calls.clear();
        let error = write(&object).expect_err("map 1 is gone").to_string();
        assert_eq!(error, "first, slot 0: no map 1");
    }
}
