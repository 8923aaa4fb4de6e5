//! Lines and functions of the source, and what CO-RE changes, by the place of their instructions in
//! the files.

use std::collections::HashMap;
use std::sync::Arc;

use super::ReadError;
use super::btf::{BtfError, Info};
use super::co_re::{Core, Fault, Fix};
use super::unit::Unit;
use crate::debug::{Function, Line};

/// What one file says of its instructions.
#[derive(Debug, Default)]
pub(super) struct Sources {
    functions: HashMap<String, Vec<(u32, Arc<str>)>>,
    lines: HashMap<String, Vec<(u32, Line)>>,
    fixes: HashMap<String, Vec<(u32, Fix)>>,
}

/// Text by its offset, so that lines share it.
struct Texts<'u, 'a> {
    unit: &'u Unit<'a>,
    known: HashMap<u32, Arc<str>>,
}

impl Texts<'_, '_> {
    fn get(&mut self, at: u32) -> Result<Arc<str>, BtfError> {
        if let Some(known) = self.known.get(&at) {
            return Ok(Arc::clone(known));
        }
        let text: Arc<str> = self.unit.types.string(at)?.into();
        self.known.insert(at, Arc::clone(&text));
        Ok(text)
    }
}

/// What is known of one section, put into order; of several at one place the last counts.
fn by_section<T>(
    infos: &[Info<'_>],
    mut of: impl FnMut(&Info<'_>) -> Result<T, BtfError>,
) -> Result<HashMap<String, Vec<(u32, T)>>, BtfError> {
    let mut out: HashMap<String, Vec<(u32, T)>> = HashMap::new();
    for info in infos {
        let one = (info.offset, of(info)?);
        match out.get_mut(info.section) {
            Some(all) => all.push(one),
            None => {
                out.insert(info.section.to_owned(), vec![one]);
            }
        }
    }
    for all in out.values_mut() {
        all.reverse();
        all.sort_by_key(|(offset, _)| *offset);
        all.dedup_by_key(|(offset, _)| *offset);
    }
    Ok(out)
}

impl Sources {
    /// Without a target, instructions stay as the compiler left them.
    pub(super) fn new(unit: &Unit<'_>, target: Option<&Core<'_>>) -> Result<Self, ReadError> {
        let known = HashMap::new();
        let mut texts = Texts { unit, known };
        let functions = by_section(&unit.ext.functions, |info| {
            let function = unit.types.get(info.word(0)?)?;
            texts.get(function.name)
        })?;
        let lines = by_section(&unit.ext.lines, |info| {
            let place = info.word(2)?;
            Ok(Line {
                slot: 0,
                file: texts.get(info.word(0)?)?,
                text: texts.get(info.word(1)?)?,
                line: place >> 10,
                column: place & 0x3ff,
            })
        })?;
        let mut fixes = HashMap::new();
        if let Some(target) = target {
            let mut failed = None;
            fixes = by_section(&unit.ext.core, |info| {
                let (root, what) = (info.word(0)?, info.word(2)?);
                let access = unit.types.string(info.word(1)?)?;
                match target.resolve(&unit.types, root, access, what) {
                    Ok(fix) => Ok(fix),
                    Err(Fault::Btf(error)) => Err(error),
                    Err(Fault::Why(why)) => {
                        failed.get_or_insert_with(|| ReadError::Place {
                            section: info.section.to_owned(),
                            offset: u64::from(info.offset),
                            why,
                        });
                        Ok(Fix::Missing)
                    }
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(Self {
            functions,
            lines,
            fixes,
        })
    }

    /// Functions that start in this part of a section, whose first byte is at `slot` of a program.
    pub(super) fn functions(&self, part: Part<'_>) -> impl Iterator<Item = Function> {
        part.of(&self.functions).map(|(slot, name)| Function {
            slot,
            name: Arc::clone(name),
        })
    }

    /// As [`functions`](Self::functions), what instructions are to hold.
    pub(super) fn fixes(&self, part: Part<'_>) -> impl Iterator<Item = (u32, Fix)> {
        part.of(&self.fixes).map(|(slot, fix)| (slot, *fix))
    }

    /// As [`functions`](Self::functions), lines.
    pub(super) fn lines(&self, part: Part<'_>) -> impl Iterator<Item = Line> {
        part.of(&self.lines).map(|(slot, line)| Line {
            slot,
            ..line.clone()
        })
    }
}

/// Bytes of a section that became slots of a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'s> {
    pub(super) section: &'s str,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) slot: u32,
}

impl Part<'_> {
    fn of<T>(self, all: &HashMap<String, Vec<(u32, T)>>) -> impl Iterator<Item = (u32, &T)> {
        let all = all.get(self.section).map_or(&[][..], Vec::as_slice);
        let start = all.partition_point(|(offset, _)| u64::from(*offset) < self.from);
        let end = all.partition_point(|(offset, _)| u64::from(*offset) < self.to);
        let found = all.get(start..end).unwrap_or_default();
        found
            .iter()
            // Lines belong to instructions; what says otherwise says nothing.
            .filter(|(offset, _)| offset % 8 == 0)
            .filter_map(move |(offset, one)| {
                let by = u32::try_from((u64::from(*offset).checked_sub(self.from)?) / 8).ok()?;
                Some((self.slot.checked_add(by)?, one))
            })
    }
}
