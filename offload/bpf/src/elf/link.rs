//! Names of several files resolved: strong over weak, each defined once, as static linkers do and
//! `bpftool gen object` with them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::ReadError;
use super::unit::{Binding, Content, Relocation, Section, Symbol, Unit};

/// A byte of a section of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) unit: usize,
    pub(super) section: usize,
    pub(super) offset: u64,
}

/// Files, and who defines what.
#[derive(Debug)]
pub(super) struct Linked<'a> {
    pub(super) units: Vec<Unit<'a>>,
    /// Names that are visible between files: the file and the index of the symbol.
    globals: HashMap<&'a str, (usize, usize)>,
}

impl<'a> Linked<'a> {
    pub(super) fn new(units: Vec<Unit<'a>>) -> Result<Self, ReadError> {
        let mut globals: HashMap<&str, (usize, usize)> = HashMap::new();
        for (file, unit) in units.iter().enumerate() {
            for (index, symbol) in unit.symbols.iter().enumerate() {
                let Some(content) = defines(unit, symbol) else {
                    continue;
                };
                let mut slot = match globals.entry(symbol.name) {
                    Entry::Vacant(slot) => {
                        slot.insert((file, index));
                        continue;
                    }
                    Entry::Occupied(slot) => slot,
                };
                let (first, of) = *slot.get();
                let other = &units[first].symbols[of];
                let name = || symbol.name.to_owned();
                let second = file;
                if defines(&units[first], other) != Some(content)
                    || other.function != symbol.function
                {
                    return Err(ReadError::Conflict {
                        name: name(),
                        first,
                        second,
                        why: "they are different things",
                    });
                }
                match (other.binding, symbol.binding) {
                    (Binding::Strong, Binding::Strong) => {
                        let name = name();
                        return Err(ReadError::Duplicate {
                            name,
                            first,
                            second,
                        });
                    }
                    (_, Binding::Strong) => {
                        slot.insert((file, index));
                    }
                    _ => {}
                }
            }
        }
        Ok(Self { units, globals })
    }

    pub(super) fn section(&self, place: Place) -> &Section<'a> {
        &self.units[place.unit].sections[place.section]
    }

    /// Whether this symbol is the one that its name means.
    pub(super) fn wins(&self, unit: usize, index: usize) -> bool {
        let symbol = &self.units[unit].symbols[index];
        symbol.binding == Binding::Local || self.globals.get(symbol.name) == Some(&(unit, index))
    }

    /// Where the definition of a name lies that is visible between files.
    pub(super) fn global(&self, name: &str) -> Option<Place> {
        let (unit, index) = *self.globals.get(name)?;
        place(unit, &self.units[unit].symbols[index])
    }

    /// Where what a relocation names lies, whichever file defines it.
    pub(super) fn target(
        &self,
        unit: usize,
        section: usize,
        relocation: &Relocation,
    ) -> Result<Place, ReadError> {
        let symbol = &self.units[unit].symbols[relocation.symbol];
        let found = match symbol.binding {
            Binding::Local => place(unit, symbol),
            Binding::Weak | Binding::Strong => self.global(symbol.name),
        };
        // What only its own file could mean: a symbol of a section that does not take part.
        let found = found.or_else(|| place(unit, symbol));
        found.ok_or_else(|| {
            self.within(
                unit,
                ReadError::Undefined {
                    section: self.units[unit].sections[section].name.to_owned(),
                    offset: relocation.offset,
                    name: symbol.name.to_owned(),
                },
            )
        })
    }

    /// What a relocation is to, for messages.
    pub(super) fn target_name(&self, unit: usize, relocation: &Relocation) -> String {
        let unit = &self.units[unit];
        let symbol = &unit.symbols[relocation.symbol];
        let section = symbol.section.map(|index| unit.sections[index].name);
        match (symbol.name, section) {
            ("", Some(section)) => section.to_owned(),
            (name, _) => name.to_owned(),
        }
    }

    pub(super) fn bad_relocation(
        &self,
        unit: usize,
        section: usize,
        relocation: &Relocation,
        why: &'static str,
    ) -> ReadError {
        self.within(
            unit,
            ReadError::Relocation {
                section: self.units[unit].sections[section].name.to_owned(),
                offset: relocation.offset,
                target: self.target_name(unit, relocation),
                why,
            },
        )
    }

    /// Says which file an error is in, where there are several.
    pub(super) fn within(&self, unit: usize, error: ReadError) -> ReadError {
        if self.units.len() == 1 {
            return error;
        }
        let error = Box::new(error);
        ReadError::File { file: unit, error }
    }
}

/// What a symbol defines for all files, if it does.
fn defines(unit: &Unit<'_>, symbol: &Symbol<'_>) -> Option<Content> {
    if symbol.binding == Binding::Local || symbol.name.is_empty() {
        return None;
    }
    match unit.sections[symbol.section?].content {
        // Each file has its own.
        Content::License | Content::Ignored => None,
        content => Some(content),
    }
}

fn place(unit: usize, symbol: &Symbol<'_>) -> Option<Place> {
    Some(Place {
        unit,
        section: symbol.section?,
        offset: symbol.value,
    })
}
