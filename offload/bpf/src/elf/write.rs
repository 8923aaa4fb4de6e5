//! Objects to ELF.

use std::collections::{HashMap, HashSet};

use object::write::{Object as Elf, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope, elf,
};

use super::btf::{Field, Linkage, Member, Variable, Writer};
use super::read::kind_of;
use super::{BTF, BTF_EXT, LICENSE, MAPS, TEXT, WriteError};
use crate::decode::decode;
use crate::map::{F_RDONLY_PROG, MapDef, MapKind, Pinning};
use crate::op::{Imm64, Op};
use crate::program::{Object, Program, ProgramKind, TailCalls};

/// License of generated programs; none of the helpers we call wants the GPL.
const OUR_LICENSE: &[u8] = b"Apache-2.0\0";

/// What stands for a map in the file.
#[derive(Clone, Copy)]
enum MapSymbol {
    /// Variable `n` of `.maps`.
    Defined(SymbolId, usize),
    /// A data section.
    Data(SymbolId),
}

/// Writes an object as an ELF file.
///
/// # Errors
/// The object has no ELF form.
pub fn write(object: &Object) -> Result<Vec<u8>, WriteError> {
    check_names(object)?;
    let mut elf = Elf::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let mut types = Writer::default();

    let license = section(&mut elf, LICENSE, SectionKind::Data);
    elf.append_section_data(license, OUR_LICENSE, 1);

    let variables = variables(object)?;
    let mut maps = Vec::new();
    let mut maps_section = None;
    if !variables.is_empty() {
        maps_section = Some(section(&mut elf, MAPS, SectionKind::Data));
        types.maps(MAPS, &variables);
    }
    let mut written = variables.iter().enumerate();
    for map in &object.maps {
        maps.push(if is_data(map) {
            MapSymbol::Data(data(&mut elf, map)?)
        } else {
            // There is a variable for each map that is no data section, in their order.
            let missing = || WriteError::Elf("no section for maps".to_owned());
            let (index, variable) = written.next().ok_or_else(missing)?;
            let id = maps_section.ok_or_else(missing)?;
            let size = u64::from(variable.size);
            let offset = elf.append_section_data(id, &vec![0; variable.size as usize], 8);
            MapSymbol::Defined(
                symbol(&mut elf, &variable.name, id, offset, size, true),
                index,
            )
        });
    }

    let mut programs = Vec::new();
    let mut sections: HashMap<&str, SectionId> = HashMap::new();
    for program in &object.programs {
        let name = program_section(object, program)?;
        let id = *sections
            .entry(name)
            .or_insert_with(|| section(&mut elf, name, SectionKind::Text));
        let (symbol, offset) = write_program(&mut elf, id, program, &maps)?;
        types.debug(name, offset, &program.debug);
        programs.push(symbol);
    }
    for contents in &object.tail_calls {
        let bad = WriteError::TailCalls(contents.map);
        let from = values(&maps, &variables, contents.map).ok_or(bad.clone())?;
        for (slot, program) in contents.programs.iter().enumerate() {
            let Some(program) = program else { continue };
            let target = programs.get(*program as usize).ok_or(bad.clone())?;
            let section = maps_section.ok_or(bad.clone())?;
            relocate(&mut elf, section, from + slot as u64 * 8, *target)?;
        }
    }
    for (map, index) in object.maps.iter().zip(0..) {
        let Some(inner) = &map.inner else { continue };
        let bad = || WriteError::Inner(map.name.clone());
        let from = values(&maps, &variables, index).ok_or_else(bad)?;
        for (slot, target) in inner.slots.iter().enumerate() {
            let Some(target) = target else { continue };
            let holds_maps = object.maps.get(*target as usize).map(|m| m.inner.is_some());
            let Some((MapSymbol::Defined(symbol, _), Some(false))) =
                maps.get(*target as usize).map(|m| (*m, holds_maps))
            else {
                return Err(bad());
            };
            let section = maps_section.ok_or_else(bad)?;
            relocate(&mut elf, section, from + slot as u64 * 8, symbol)?;
        }
    }
    let (types, ext) = types.finish();
    for (name, bytes) in [(BTF, types), (BTF_EXT, ext)] {
        if let Some(bytes) = bytes {
            let id = section(&mut elf, name, SectionKind::Metadata);
            elf.append_section_data(id, &bytes, 4);
        }
    }
    elf.write().map_err(|e| WriteError::Elf(e.to_string()))
}

/// Where the contents of a map begin in `.maps`.
fn values(maps: &[MapSymbol], variables: &[Variable], map: u32) -> Option<u64> {
    let MapSymbol::Defined(_, index) = maps.get(map as usize)? else {
        return None;
    };
    let variable = variables.get(*index)?;
    let values = variable.members.last().map_or(0, |last| last.offset);
    Some(u64::from(variable.offset + values))
}

/// Named as a data section, as such a section's map is.
fn is_data(map: &MapDef) -> bool {
    [".data", ".rodata", ".bss"].iter().any(|base| {
        let rest = map.name.strip_prefix(base);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// A data section, and the symbol that stands for it.
fn data(elf: &mut Elf<'_>, map: &MapDef) -> Result<SymbolId, WriteError> {
    let bad = || WriteError::Contents(map.name.clone());
    let (kind, flags) = match &map.name {
        name if name.starts_with(".rodata") => (SectionKind::ReadOnlyData, F_RDONLY_PROG),
        name if name.starts_with(".bss") => (SectionKind::UninitializedData, 0),
        _ => (SectionKind::Data, 0),
    };
    let bss = kind == SectionKind::UninitializedData;
    let size = map.value_size as usize;
    let whole = map.contents.len() == size && !bss || map.contents.is_empty();
    let one = map.kind == MapKind::Array && map.key_size == 4 && map.max_entries == 1;
    let plain = map.inner.is_none() && map.pinning == Pinning::None && map.flags == flags;
    if !whole || !one || !plain || size == 0 {
        return Err(bad());
    }
    let id = section(elf, &map.name, kind);
    if bss {
        elf.append_section_bss(id, size as u64, 8);
    } else if map.contents.is_empty() {
        elf.append_section_data(id, &vec![0; size], 8);
    } else {
        elf.append_section_data(id, &map.contents, 8);
    }
    Ok(elf.section_symbol(id))
}

/// The section a program belongs into, if it is one that makes it a program of its kind.
fn program_section<'o>(object: &Object, program: &'o Program) -> Result<&'o str, WriteError> {
    let name = program.section_name();
    let fits = match (name, program.kind) {
        // Where other sections have programs, this one has functions.
        (TEXT, ProgramKind::Raw) => object.programs.iter().all(|p| p.section_name() == TEXT),
        _ => kind_of(name) == Some(program.kind) && !name.contains('\0'),
    };
    if fits {
        return Ok(name);
    }
    Err(WriteError::Section {
        name: program.name.clone(),
        section: name.to_owned(),
    })
}

fn check_names(object: &Object) -> Result<(), WriteError> {
    let mut seen = HashSet::new();
    let names = object
        .maps
        .iter()
        .map(|m| &m.name)
        .chain(object.programs.iter().map(|p| &p.name));
    for name in names {
        if name.is_empty() || name.contains('\0') || !seen.insert(name) {
            return Err(WriteError::Name(name.clone()));
        }
    }
    Ok(())
}

fn section(elf: &mut Elf<'_>, name: &str, kind: SectionKind) -> SectionId {
    elf.add_section(Vec::new(), name.as_bytes().to_vec(), kind)
}

fn symbol(
    elf: &mut Elf<'_>,
    name: &str,
    section: SectionId,
    value: u64,
    size: u64,
    data: bool,
) -> SymbolId {
    elf.add_symbol(Symbol {
        name: name.as_bytes().to_vec(),
        value,
        size,
        kind: if data {
            SymbolKind::Data
        } else {
            SymbolKind::Text
        },
        // Visible to the loader: libbpf takes hidden functions for parts of programs.
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    })
}

fn relocate(
    elf: &mut Elf<'_>,
    section: SectionId,
    offset: u64,
    symbol: SymbolId,
) -> Result<(), WriteError> {
    let flags = RelocationFlags::Elf {
        r_type: elf::R_BPF_64_64,
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
    .map_err(|e| WriteError::Elf(e.to_string()))
}

/// Map definitions as libbpf's macros would have the compiler lay them out.
fn variables(object: &Object) -> Result<Vec<Variable>, WriteError> {
    let mut out = Vec::new();
    let mut offset = 0;
    let mut seen = HashSet::new();
    for contents in &object.tail_calls {
        let map = object.maps.get(contents.map as usize);
        if map.is_none_or(|m| m.kind != MapKind::ProgArray) || !seen.insert(contents.map) {
            return Err(WriteError::TailCalls(contents.map));
        }
    }
    for (map, index) in object.maps.iter().zip(0..) {
        if is_data(map) {
            continue;
        }
        if !map.contents.is_empty() {
            return Err(WriteError::Contents(map.name.clone()));
        }
        let contents = object.tail_calls.iter().find(|t| t.map == index);
        let variable = variable(map, contents, offset)?;
        offset += variable.size;
        out.push(variable);
    }
    Ok(out)
}

fn variable(
    map: &MapDef,
    contents: Option<&TailCalls>,
    offset: u32,
) -> Result<Variable, WriteError> {
    let (mut members, mut size) = members(map);
    let values = match (contents, &map.inner) {
        (Some(contents), _) => Some((Field::Programs, contents.programs.len())),
        (None, Some(inner)) => {
            let template = &inner.template;
            let nested = template.inner.is_some() || template.pinning != Pinning::None;
            if nested || !template.contents.is_empty() || !map.kind.holds_maps() {
                return Err(WriteError::Inner(map.name.clone()));
            }
            Some((Field::Maps(self::members(template).0), inner.slots.len()))
        }
        (None, None) => None,
    };
    if let Some((value, slots)) = values {
        members.push(Member {
            name: "values".to_owned(),
            offset: size,
            value,
        });
        size += slots as u32 * 8;
    }
    Ok(Variable {
        name: map.name.clone(),
        linkage: Linkage::Global,
        offset,
        size,
        members,
    })
}

/// What a definition says in numbers, and its bytes.
fn members(map: &MapDef) -> (Vec<Member>, u32) {
    let numbers = [
        ("type", map.kind as u32, true),
        ("key_size", map.key_size, true),
        ("value_size", map.value_size, true),
        ("max_entries", map.max_entries, true),
        ("map_flags", map.flags, map.flags != 0),
        ("pinning", 1, map.pinning == Pinning::ByName),
    ];
    let mut members = Vec::new();
    for (name, number, _) in numbers.into_iter().filter(|(.., wanted)| *wanted) {
        members.push(Member {
            name: name.to_owned(),
            offset: members.len() as u32 * 8,
            value: Field::Number(number),
        });
    }
    let size = members.len() as u32 * 8;
    (members, size)
}

/// The program's symbol, and its byte offset in the section.
fn write_program(
    elf: &mut Elf<'_>,
    section: SectionId,
    program: &Program,
    maps: &[MapSymbol],
) -> Result<(SymbolId, u64), WriteError> {
    let name = || program.name.clone();
    let ops = decode(&program.insns).map_err(|error| WriteError::Malformed {
        name: name(),
        error,
    })?;
    let mut code = Vec::with_capacity(program.insns.len() * 8);
    let mut references = Vec::new();
    for (pc, (op, insn)) in ops.iter().zip(&program.insns).enumerate() {
        let mut insn = *insn;
        let symbol = |map: u32| {
            let missing = || WriteError::NoMap {
                name: name(),
                pc,
                map,
            };
            maps.get(map as usize).copied().ok_or_else(missing)
        };
        match op {
            Op::LoadImm64 {
                dst,
                imm: Imm64::Map(map),
            } => {
                // A reference to a data section is one to its value.
                let MapSymbol::Defined(target, _) = symbol(*map)? else {
                    return Err(WriteError::MapValue { name: name(), pc });
                };
                references.push((code.len() as u64, target));
                insn.regs = dst.index() as u8;
                insn.imm = 0;
            }
            Op::LoadImm64 {
                dst,
                imm: Imm64::MapValue { map, offset },
            } => {
                let MapSymbol::Data(target) = symbol(*map)? else {
                    return Err(WriteError::MapValue { name: name(), pc });
                };
                references.push((code.len() as u64, target));
                insn.regs = dst.index() as u8;
                insn.imm = *offset as i32;
            }
            // The second half of one, which the relocation fills.
            Op::LoadImm64Hi
                if references
                    .last()
                    .is_some_and(|(at, _)| at + 8 == code.len() as u64) =>
            {
                insn.imm = 0;
            }
            _ => {}
        }
        code.extend_from_slice(&insn.to_bytes());
    }
    let offset = elf.append_section_data(section, &code, 8);
    for (at, target) in references {
        relocate(elf, section, offset + at, target)?;
    }
    let size = code.len() as u64;
    let symbol = symbol(elf, &program.name, section, offset, size, false);
    Ok((symbol, offset))
}
