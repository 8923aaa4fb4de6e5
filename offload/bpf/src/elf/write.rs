//! Objects to ELF.

use std::collections::HashSet;

use object::write::{Object as Elf, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope, elf,
};

use super::btf::{Field, Member, Variable, Writer};
use super::{BTF, LICENSE, MAPS, RAW, WriteError, XDP};
use crate::decode::decode;
use crate::map::MapDef;
use crate::op::{Imm64, Op};
use crate::program::{Object, Program, ProgramKind, TailCalls};

/// License of generated programs; none of the helpers we call wants the GPL.
const OUR_LICENSE: &[u8] = b"Apache-2.0\0";

/// Writes an object as an ELF file.
///
/// # Errors
/// The object has no ELF form.
pub fn write(object: &Object) -> Result<Vec<u8>, WriteError> {
    check_names(object)?;
    let mut elf = Elf::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);

    let license = section(&mut elf, LICENSE, SectionKind::Data);
    elf.append_section_data(license, OUR_LICENSE, 1);

    let variables = variables(object)?;
    let mut maps = Vec::new();
    let mut maps_section = None;
    if !variables.is_empty() {
        let id = section(&mut elf, MAPS, SectionKind::Data);
        maps_section = Some(id);
        for variable in &variables {
            let offset = elf.append_section_data(id, &vec![0; variable.size as usize], 8);
            maps.push(symbol(
                &mut elf,
                &variable.name,
                id,
                offset,
                u64::from(variable.size),
                true,
            ));
        }
        let btf = section(&mut elf, BTF, SectionKind::Metadata);
        elf.append_section_data(btf, &Writer::new().finish(MAPS, &variables), 4);
    }

    let mut programs = Vec::new();
    let (mut xdp, mut raw) = (None, None);
    for program in &object.programs {
        let (name, id) = match program.kind {
            ProgramKind::Xdp => (XDP, &mut xdp),
            ProgramKind::Raw => (RAW, &mut raw),
        };
        let id = *id.get_or_insert_with(|| section(&mut elf, name, SectionKind::Text));
        programs.push(write_program(&mut elf, id, program, &maps)?);
    }
    for contents in &object.tail_calls {
        let bad = WriteError::TailCalls(contents.map);
        let variable = variables.get(contents.map as usize).ok_or(bad.clone())?;
        let values = variable.members.last().map_or(0, |last| last.offset);
        for (slot, program) in contents.programs.iter().enumerate() {
            let Some(program) = program else { continue };
            let target = programs.get(*program as usize).ok_or(bad.clone())?;
            let offset = u64::from(variable.offset + values) + slot as u64 * 8;
            let section = maps_section.ok_or(bad.clone())?;
            relocate(&mut elf, section, offset, *target)?;
        }
    }
    elf.write().map_err(|e| WriteError::Elf(e.to_string()))
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
        if !seen.insert(contents.map) {
            return Err(WriteError::TailCalls(contents.map));
        }
    }
    for (map, index) in object.maps.iter().zip(0..) {
        let contents = object.tail_calls.iter().find(|t| t.map == index);
        let variable = variable(map, contents, offset);
        offset += variable.size;
        out.push(variable);
    }
    Ok(out)
}

fn variable(map: &MapDef, contents: Option<&TailCalls>, offset: u32) -> Variable {
    let numbers = [
        ("type", map.kind as u32, true),
        ("key_size", map.key_size, true),
        ("value_size", map.value_size, true),
        ("max_entries", map.max_entries, true),
        ("map_flags", map.flags, map.flags != 0),
    ];
    let mut members = Vec::new();
    let mut size = 0;
    for (name, number, _) in numbers.into_iter().filter(|(.., wanted)| *wanted) {
        members.push(Member {
            name: name.to_owned(),
            offset: size,
            value: Field::Number(number),
        });
        size += 8;
    }
    if let Some(contents) = contents {
        members.push(Member {
            name: "values".to_owned(),
            offset: size,
            value: Field::Values,
        });
        size += contents.programs.len() as u32 * 8;
    }
    Variable {
        name: map.name.clone(),
        offset,
        size,
        members,
    }
}

fn write_program(
    elf: &mut Elf<'_>,
    section: SectionId,
    program: &Program,
    maps: &[SymbolId],
) -> Result<SymbolId, WriteError> {
    let name = || program.name.clone();
    let ops = decode(&program.insns).map_err(|error| WriteError::Malformed {
        name: name(),
        error,
    })?;
    let mut code = Vec::with_capacity(program.insns.len() * 8);
    let mut references = Vec::new();
    for (pc, (op, insn)) in ops.iter().zip(&program.insns).enumerate() {
        let mut insn = *insn;
        match op {
            Op::LoadImm64 {
                dst,
                imm: Imm64::Map(map),
            } => {
                let target = maps.get(*map as usize);
                let target = target.ok_or_else(|| WriteError::NoMap {
                    name: name(),
                    pc,
                    map: *map,
                })?;
                references.push((code.len() as u64, *target));
                insn.regs = dst.index() as u8;
                insn.imm = 0;
            }
            Op::LoadImm64 {
                imm: Imm64::MapValue { .. },
                ..
            } => {
                return Err(WriteError::MapValue { name: name(), pc });
            }
            _ => {}
        }
        code.extend_from_slice(&insn.to_bytes());
    }
    let offset = elf.append_section_data(section, &code, 8);
    for (at, target) in references {
        relocate(elf, section, offset + at, target)?;
    }
    Ok(symbol(
        elf,
        &program.name,
        section,
        offset,
        code.len() as u64,
        false,
    ))
}
