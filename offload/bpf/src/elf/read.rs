//! ELF to objects. Nothing here trusts the bytes.

use std::collections::{HashMap, HashSet};

use super::co_re::Core;
use super::code::Coder;
use super::link::{Linked, Place};
use super::maps::Maps;
use super::unit::{Content, Unit};
use super::{RAW, ReadError, TEXT, XDP};
use crate::program::{Object, Program, ProgramKind, TailCalls};

/// An object, and what its files say besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Programs and maps.
    pub object: Object,
    /// What section `license` says; `None` without it.
    pub license: Option<String>,
    /// Programs that were left out, as they are for hooks we have not.
    pub skipped: Vec<Skipped>,
}

/// A program that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its section, which says what it is for.
    pub section: String,
    /// Its name.
    pub name: String,
}

/// Reads an object from an ELF file, less what [`load`] would list as skipped.
///
/// # Errors
/// The bytes are damaged, or use what this crate has no form for.
pub fn read(bytes: &[u8]) -> Result<Object, ReadError> {
    link(&[bytes])
}

/// Links several ELF files to one object: as [`read`] of what `bpftool gen object` makes of them.
///
/// # Errors
/// A file cannot be read, or names are defined twice or not at all.
pub fn link(files: &[&[u8]]) -> Result<Object, ReadError> {
    load(files).map(|loaded| loaded.object)
}

/// How files are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'t> {
    /// Types of whoever will run the programs, as BTF (`/sys/kernel/btf/vmlinux`, section `.BTF` of a
    /// file): CO-RE relocations are resolved by them. Without, types are laid out as when the files
    /// were compiled.
    pub target: Option<&'t [u8]>,
    /// Programs of all sections are of this kind, whatever the sections' names say: loaders that are
    /// told what to attach where name them as they like (`2/1`, `from-netdev`).
    pub kind: Option<ProgramKind>,
}

/// As [`link`], with what the files say besides.
///
/// # Errors
/// As [`link`].
pub fn load(files: &[&[u8]]) -> Result<Loaded, ReadError> {
    load_with(files, &Options::default())
}

/// As [`load`], for a target.
///
/// # Errors
/// As [`link`]; or the target's types cannot be read, or those of the files not found there without
/// doubt.
pub fn load_with(files: &[&[u8]], options: &Options<'_>) -> Result<Loaded, ReadError> {
    let units = files.iter().enumerate().map(|(file, bytes)| {
        Unit::new(bytes).map_err(|error| match files {
            [_] => error,
            _ => {
                let error = Box::new(error);
                ReadError::File { file, error }
            }
        })
    });
    let linked = Linked::new(units.collect::<Result<_, _>>()?)?;
    let license = license(&linked)?;
    let maps = Maps::new(&linked)?;
    let target = options.target.map(Core::new).transpose()?;
    let mut coder = Coder::new(&linked, &maps, target.as_ref())?;

    let (mut entries, mut bare, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for function in coder.functions.iter().filter(|f| f.visible) {
        let section = linked.section(function.place).name;
        let told = options.kind.filter(|_| section != TEXT);
        match told.or_else(|| kind_of(section)) {
            Some(kind) => entries.push((*function, kind)),
            None if section == TEXT => bare.push((*function, ProgramKind::Raw)),
            None => skipped.push(Skipped {
                section: section.to_owned(),
                name: function.name.to_owned(),
            }),
        }
    }
    if entries.is_empty() && skipped.is_empty() {
        entries = bare;
    }
    if entries.is_empty() {
        let mut skipped: Vec<_> = skipped.into_iter().map(|s| s.section).collect();
        skipped.dedup();
        return Err(ReadError::NoProgram { skipped });
    }
    let mut programs = Vec::new();
    let mut by_place = HashMap::new();
    for ((function, kind), index) in entries.into_iter().zip(0u32..) {
        let section = linked.section(function.place).name;
        by_place.entry(function.place).or_insert(index);
        let code = coder.program(function)?;
        programs.push(Program {
            name: function.name.to_owned(),
            kind,
            section: (section != XDP && section != RAW).then(|| section.to_owned()),
            insns: code.insns,
            debug: code.debug,
        });
    }
    let tail_calls = tail_calls(&linked, &maps, &by_place)?;
    let maps = maps.defs;
    let names = maps.iter().map(|m| &m.name);
    let names = names.chain(programs.iter().map(|p| &p.name));
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(ReadError::Name(name.clone()));
        }
    }
    Ok(Loaded {
        object: Object {
            maps,
            programs,
            tail_calls,
        },
        license,
        skipped,
    })
}

/// What a section's programs are for, by libbpf's names and their older forms (`xdp_pass`, `xdp1`).
pub(super) fn kind_of(section: &str) -> Option<ProgramKind> {
    let raw = section.strip_prefix(RAW);
    if section.starts_with(XDP) {
        Some(ProgramKind::Xdp)
    } else if raw.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        Some(ProgramKind::Raw)
    } else {
        None
    }
}

/// The license of all files, which must agree on it.
fn license(linked: &Linked<'_>) -> Result<Option<String>, ReadError> {
    let mut found: Option<(usize, &str)> = None;
    for (file, unit) in linked.units.iter().enumerate() {
        for section in &unit.sections {
            if section.content != Content::License {
                continue;
            }
            let text = section.data.split(|b| *b == 0).next().unwrap_or_default();
            let text = std::str::from_utf8(text).map_err(|_| {
                let (section, why) = (section.name.to_owned(), "is not text");
                linked.within(file, ReadError::Section { section, why })
            })?;
            match found {
                Some((first, before)) if before != text => {
                    return Err(ReadError::Conflict {
                        name: section.name.to_owned(),
                        first,
                        second: file,
                        why: "they name different licenses",
                    });
                }
                _ => found = Some((file, text)),
            }
        }
    }
    Ok(found.map(|(_, text)| text.to_owned()))
}

/// Contents of program arrays: relocations in `.maps` to programs.
fn tail_calls(
    linked: &Linked<'_>,
    maps: &Maps,
    by_place: &HashMap<Place, u32>,
) -> Result<Vec<TailCalls>, ReadError> {
    let mut contents: Vec<TailCalls> = Vec::new();
    let arrays = maps.fixed().iter().filter(|f| f.programs);
    let mut by_map = HashMap::new();
    for fixed in arrays {
        by_map.insert(fixed.map, contents.len());
        contents.push(TailCalls {
            map: fixed.map,
            programs: vec![None; fixed.slots],
        });
    }
    for (unit, file) in linked.units.iter().enumerate() {
        for (section, found) in file.sections.iter().enumerate() {
            if found.content != Content::Maps {
                continue;
            }
            for relocation in &found.relocations {
                let bad = |why| linked.bad_relocation(unit, section, relocation, why);
                let offset = relocation.offset;
                let place = Place {
                    unit,
                    section,
                    offset,
                };
                let Some((fixed, slot)) = maps.slot(place).filter(|(fixed, _)| fixed.programs)
                else {
                    continue;
                };
                let target = linked.target(unit, section, relocation)?;
                let program = by_place.get(&target);
                let program = *program.ok_or_else(|| bad("not a program of this object"))?;
                if let Some(to) = by_map
                    .get(&fixed.map)
                    .and_then(|at| contents.get_mut(*at)?.programs.get_mut(slot))
                {
                    *to = Some(program);
                }
            }
        }
    }
    Ok(contents)
}
