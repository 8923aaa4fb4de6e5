//! ELF to objects. Nothing here trusts the bytes.

use std::collections::{HashMap, HashSet};

use object::read::elf::ElfFile64;
use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags,
    RelocationTarget, SectionIndex, SymbolKind, elf,
};

use super::btf::{Field, Reader, Variable};
use super::{BTF, MAPS, RAW, ReadError, XDP};
use crate::decode::{LDDW, decode};
use crate::insn::Insn;
use crate::map::{MapDef, MapKind};
use crate::program::{Object, Program, ProgramKind, TailCalls};

type File<'a> = ElfFile64<'a, LittleEndian>;
type Section<'a, 'f> = object::read::elf::ElfSection64<'a, 'f, LittleEndian>;

/// Reads an object from an ELF file.
///
/// # Errors
/// The bytes are damaged, or use what this crate has no form for.
pub fn read(bytes: &[u8]) -> Result<Object, ReadError> {
    let file = File::parse(bytes).map_err(|e| ReadError::Elf(e.to_string()))?;
    let header = file.elf_header();
    let machine = header.e_machine.get(LittleEndian);
    if machine != elf::EM_BPF || header.e_type.get(LittleEndian) != elf::ET_REL {
        return Err(ReadError::NotBpf);
    }
    if file.section_by_name("maps").is_some() {
        return Err(ReadError::LegacyMaps);
    }
    let variables = match file.section_by_name(BTF) {
        Some(section) => Reader::new(data(&section)?)?.variables(MAPS)?,
        None => Vec::new(),
    };
    let maps = variables.iter().map(map).collect::<Result<Vec<_>, _>>()?;
    let (programs, by_place) = programs(&file, &maps)?;
    let tail_calls = tail_calls(&file, &variables, &by_place)?;
    unique(
        maps.iter()
            .map(|m| &m.name)
            .chain(programs.iter().map(|p| &p.name)),
    )?;
    Ok(Object {
        maps,
        programs,
        tail_calls,
    })
}

fn data<'a>(section: &Section<'a, '_>) -> Result<&'a [u8], ReadError> {
    section.data().map_err(|e| ReadError::Elf(e.to_string()))
}

fn unique<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), ReadError> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(ReadError::Name(name.clone()));
        }
    }
    Ok(())
}

fn map(variable: &Variable) -> Result<MapDef, ReadError> {
    let fault = |why| ReadError::Map {
        name: variable.name.clone(),
        why,
    };
    let mut kind = None;
    let (mut key_size, mut value_size, mut max_entries, mut flags) = (0, 0, 0, 0);
    for member in &variable.members {
        match (member.name.as_str(), member.value) {
            ("type", Field::Number(n)) => {
                kind = Some(MapKind::from_number(n).ok_or(fault("unknown kind"))?);
            }
            ("key_size", Field::Number(n)) | ("key", Field::Size(n)) => key_size = n,
            ("value_size", Field::Number(n)) | ("value", Field::Size(n)) => value_size = n,
            ("max_entries", Field::Number(n)) => max_entries = n,
            ("map_flags", Field::Number(n)) => flags = n,
            ("values", Field::Values) => {}
            // Where it lives is the loader's business.
            ("pinning" | "numa_node" | "map_extra", Field::Number(_)) => {}
            _ => return Err(fault("unknown member")),
        }
    }
    let kind = kind.ok_or(fault("no type"))?;
    Ok(MapDef {
        name: variable.name.clone(),
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
    })
}

/// Index of a program by section and byte offset.
type ByPlace = HashMap<(SectionIndex, u64), u32>;

fn kind_of(section: &str) -> Option<ProgramKind> {
    let is = |name: &str| {
        let rest = section.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if is(XDP) || section == "xdp.frags" {
        Some(ProgramKind::Xdp)
    } else if is(RAW) {
        Some(ProgramKind::Raw)
    } else {
        None
    }
}

/// A function symbol in a program section.
struct Function<'a> {
    name: &'a str,
    kind: ProgramKind,
    section: SectionIndex,
    offset: u64,
    len: u64,
}

fn functions<'a>(file: &File<'a>) -> Result<Vec<Function<'a>>, ReadError> {
    let damaged = |e: object::Error| ReadError::Elf(e.to_string());
    let mut out = Vec::new();
    for symbol in file.symbols().filter(|s| s.kind() == SymbolKind::Text) {
        let Some(section) = symbol.section_index() else {
            continue;
        };
        let found = file.section_by_index(section).map_err(damaged)?;
        let Some(kind) = kind_of(found.name().map_err(damaged)?) else {
            continue;
        };
        let name = symbol.name().map_err(damaged)?;
        out.push(Function {
            name,
            kind,
            section,
            offset: symbol.address(),
            len: symbol.size(),
        });
    }
    out.sort_by_key(|f| (f.section.0, f.offset));
    Ok(out)
}

fn programs(file: &File<'_>, maps: &[MapDef]) -> Result<(Vec<Program>, ByPlace), ReadError> {
    let mut programs = Vec::new();
    let mut by_place = ByPlace::new();
    for (function, index) in functions(file)?.into_iter().zip(0..) {
        let name = function.name.to_owned();
        let section = file
            .section_by_index(function.section)
            .map_err(|e| ReadError::Elf(e.to_string()))?;
        let range = || {
            let from = usize::try_from(function.offset).ok()?;
            let to = from.checked_add(usize::try_from(function.len).ok()?)?;
            Some(from..to)
        };
        let code = match range() {
            Some(range) => data(&section)?.get(range),
            None => None,
        };
        let (slots, rest) = code.unwrap_or_default().as_chunks::<8>();
        if slots.is_empty() || !rest.is_empty() || function.offset % 8 != 0 {
            return Err(ReadError::ProgramRange(name));
        }
        let mut insns: Vec<Insn> = slots.iter().map(|slot| Insn::from_bytes(*slot)).collect();
        let end = function.offset.saturating_add(function.len);
        for (offset, target, symbol) in relocations(file, &section)? {
            if offset < function.offset || offset >= end {
                continue;
            }
            let at = usize::try_from((offset - function.offset) / 8).ok();
            let slot = at
                .and_then(|at| insns.get_mut(at))
                .filter(|i| i.code == LDDW);
            let map = maps
                .iter()
                .zip(0..)
                .find(|(m, _)| m.name == symbol)
                .map(|(_, i)| i);
            match (slot, map) {
                (Some(slot), Some(map)) if target && offset % 8 == 0 => {
                    slot.regs = slot.dst() | 1 << 4;
                    slot.imm = map;
                }
                _ => {
                    let section = section.name().unwrap_or_default().to_owned();
                    return Err(ReadError::Relocation {
                        section,
                        offset,
                        target: symbol,
                    });
                }
            }
        }
        decode(&insns).map_err(|error| ReadError::Malformed {
            name: name.clone(),
            error,
        })?;
        by_place.insert((function.section, function.offset), index);
        programs.push(Program {
            name,
            kind: function.kind,
            insns,
        });
    }
    if programs.is_empty() {
        return Err(ReadError::NoProgram);
    }
    Ok((programs, by_place))
}

/// (offset, is it a 64-bit one to `.maps`, name of the symbol).
fn relocations(
    file: &File<'_>,
    section: &Section<'_, '_>,
) -> Result<Vec<(u64, bool, String)>, ReadError> {
    let damaged = |e: object::Error| ReadError::Elf(e.to_string());
    let maps = file.section_by_name(MAPS).map(|s| s.index());
    let mut out = Vec::new();
    for (offset, relocation) in section.relocations() {
        let RelocationTarget::Symbol(target) = relocation.target() else {
            continue;
        };
        let symbol = file.symbol_by_index(target).map_err(damaged)?;
        let wide = relocation.flags()
            == RelocationFlags::Elf {
                r_type: elf::R_BPF_64_64,
            };
        let to_maps = maps.is_some() && symbol.section_index() == maps;
        out.push((
            offset,
            wide && to_maps,
            symbol.name().map_err(damaged)?.to_owned(),
        ));
    }
    Ok(out)
}

/// Contents of program arrays: relocations in `.maps` to functions.
fn tail_calls(
    file: &File<'_>,
    variables: &[Variable],
    by_place: &ByPlace,
) -> Result<Vec<TailCalls>, ReadError> {
    let mut out = Vec::new();
    let Some(section) = file.section_by_name(MAPS) else {
        return Ok(out);
    };
    let slots = |variable: &Variable| {
        let values = variable.members.iter().find(|m| m.value == Field::Values)?;
        let from = variable.offset.checked_add(values.offset)?;
        let end = variable.offset.checked_add(variable.size)?;
        Some((from, end))
    };
    let len = data(&section)?.len();
    for (variable, map) in variables.iter().zip(0..) {
        if let Some((from, end)) = slots(variable) {
            if end as usize > len {
                let (name, why) = (variable.name.clone(), "lies outside its section");
                return Err(ReadError::Map { name, why });
            }
            let programs = vec![None; (end.saturating_sub(from) / 8) as usize];
            out.push(TailCalls { map, programs });
        }
    }
    for (offset, relocation) in section.relocations() {
        let unsupported = |target: &str| ReadError::Relocation {
            section: MAPS.to_owned(),
            offset,
            target: target.to_owned(),
        };
        let RelocationTarget::Symbol(target) = relocation.target() else {
            return Err(unsupported(""));
        };
        let symbol = file
            .symbol_by_index(target)
            .map_err(|e| ReadError::Elf(e.to_string()))?;
        let name = symbol.name().unwrap_or_default();
        let program = symbol
            .section_index()
            .and_then(|s| by_place.get(&(s, symbol.address())));
        let program = program.ok_or_else(|| unsupported(name))?;
        let slot = out.iter_mut().find_map(|contents| {
            let variable = variables.get(contents.map as usize)?;
            let (from, end) = slots(variable)?;
            let inside = offset >= u64::from(from) && offset < u64::from(end);
            let at = usize::try_from((offset.checked_sub(u64::from(from))?) / 8).ok()?;
            if inside {
                contents.programs.get_mut(at)
            } else {
                None
            }
        });
        *slot.ok_or_else(|| unsupported(name))? = Some(*program);
    }
    Ok(out)
}
