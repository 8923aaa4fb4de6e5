//! Map definitions of files: BTF-defined ones, legacy ones, data sections.

use std::collections::HashMap;

use super::btf::{Field, Linkage, Member, Variable};
use super::data::DataMaps;
use super::link::{Linked, Place};
use super::unit::{Binding, Content, Unit};
use super::{MAPS, ReadError};
use crate::map::{InnerMaps, MapDef, MapKind, Pinning};

/// Five words: `struct bpf_map_def` of old `bpf_helpers.h`.
const LEGACY_WORDS: usize = 5;

/// Seven words: `struct bpf_map_def` of Linux's samples, which adds, for maps of maps, the number of the map
/// that those in it are made after, and a NUMA node; or an older `struct bpf_elf_map`, with its id and
/// where to pin.
const SAMPLES_WORDS: usize = 7;

/// `BPF_F_NUMA_NODE`: the definition names one.
const F_NUMA_NODE: u32 = 1 << 2;

/// Nine words: `struct bpf_elf_map` of iproute2, which adds an id, where to pin, the id of the map that
/// those in it are made after, and a place in another, which is for whoever fills maps.
const IPROUTE_WORDS: usize = 9;

/// Maps of all files, and where they are.
#[derive(Debug)]
pub(super) struct Maps {
    pub(super) defs: Vec<MapDef>,
    at: HashMap<Place, u32>,
    data: DataMaps,
    /// Index of the first map that is a data section.
    first_data: u32,
    /// Contents that relocations in `.maps` fill: in order of places.
    fixed: Vec<Fixed>,
}

/// Slots of one map that are filled by relocations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixed {
    pub(super) map: u32,
    /// Of slot 0.
    place: Place,
    pub(super) slots: usize,
    pub(super) programs: bool,
}

/// A definition as one file has it.
struct Found {
    place: Place,
    variable: Variable,
    def: MapDef,
}

impl Maps {
    pub(super) fn new(linked: &Linked<'_>) -> Result<Self, ReadError> {
        let data = DataMaps::new(linked)?;
        let mut all = Self {
            defs: Vec::new(),
            at: HashMap::new(),
            data,
            first_data: 0,
            fixed: Vec::new(),
        };
        all.defined(linked)?;
        all.legacy(linked)?;
        all.first_data = all.defs.len() as u32;
        all.defs.append(&mut all.data.maps.clone());
        all.inner(linked)?;
        Ok(all)
    }

    /// The map at a place.
    pub(super) fn map(&self, place: Place) -> Option<u32> {
        self.at.get(&place).copied()
    }

    /// The map whose value holds a place, and which byte of it that is.
    pub(super) fn value(&self, place: Place) -> Option<(u32, u32)> {
        let (map, offset) = self.data.value(place)?;
        Some((self.first_data + map, offset))
    }

    /// Maps with contents that relocations fill.
    pub(super) fn fixed(&self) -> &[Fixed] {
        &self.fixed
    }

    /// Which map's which slot a place in `.maps` is.
    pub(super) fn slot(&self, place: Place) -> Option<(Fixed, usize)> {
        let next = self.fixed.partition_point(|f| f.place <= place);
        let fixed = *self.fixed.get(next.checked_sub(1)?)?;
        let same = (fixed.place.unit, fixed.place.section) == (place.unit, place.section);
        let bytes = place.offset.checked_sub(fixed.place.offset)?;
        let slot = usize::try_from(bytes / 8).ok()?;
        (same && bytes % 8 == 0 && slot < fixed.slots).then_some((fixed, slot))
    }

    /// BTF-defined maps.
    fn defined(&mut self, linked: &Linked<'_>) -> Result<(), ReadError> {
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for (file, unit) in linked.units.iter().enumerate() {
            for found in variables(file, unit).map_err(|e| linked.within(file, e))? {
                let winner = match found.variable.linkage {
                    Linkage::Static => Some(found.place),
                    Linkage::Global | Linkage::Extern => linked.global(&found.variable.name),
                };
                match winner {
                    Some(winner) if winner != found.place => others.push((file, winner, found)),
                    // Nobody defines it: an error where it is used.
                    None if found.variable.linkage == Linkage::Extern => {}
                    _ => own.push(found),
                }
            }
        }
        for found in own {
            let map = self.defs.len() as u32;
            self.fix(linked, map, &found)?;
            self.at.insert(found.place, map);
            self.defs.push(found.def);
        }
        self.fixed.sort_by_key(|f| f.place);
        for pair in self.fixed.windows(2) {
            let [one, next] = pair else { continue };
            let end = one.place.offset.saturating_add(one.slots as u64 * 8);
            let same = (one.place.unit, one.place.section) == (next.place.unit, next.place.section);
            if same && end > next.place.offset {
                let name = self.defs[next.map as usize].name.clone();
                let why = "lies in the contents of another";
                return Err(linked.within(next.place.unit, ReadError::Map { name, why }));
            }
        }
        // Files that declare or weakly define a map that another one defines mean the same.
        for (file, winner, found) in others {
            let conflict = |why| ReadError::Conflict {
                name: found.variable.name.clone(),
                first: winner.unit,
                second: file,
                why,
            };
            let map = self.at.get(&winner).copied();
            let map = map.ok_or_else(|| conflict("they are different things"))?;
            if self.defs[map as usize] != found.def {
                return Err(conflict("map definitions are not equal"));
            }
            if found.variable.linkage != Linkage::Extern {
                self.at.insert(found.place, map);
            }
        }
        Ok(())
    }

    fn fix(&mut self, linked: &Linked<'_>, map: u32, found: &Found) -> Result<(), ReadError> {
        let variable = &found.variable;
        let values = variable.members.iter().find_map(|member| {
            let programs = match member.value {
                Field::Programs => true,
                Field::Maps(_) => false,
                _ => return None,
            };
            Some((u64::from(member.offset), programs))
        });
        let Some((from, programs)) = values else {
            return Ok(());
        };
        let end = found.place.offset.checked_add(u64::from(variable.size));
        if end.is_none_or(|end| end > linked.section(found.place).size) {
            let (name, why) = (variable.name.clone(), "lies outside its section");
            return Err(linked.within(found.place.unit, ReadError::Map { name, why }));
        }
        let slots = u64::from(variable.size).saturating_sub(from) / 8;
        self.fixed.push(Fixed {
            map,
            place: Place {
                offset: found.place.offset.saturating_add(from),
                ..found.place
            },
            slots: usize::try_from(slots).unwrap_or(0),
            programs,
        });
        Ok(())
    }

    /// Initial contents of maps of maps.
    fn inner(&mut self, linked: &Linked<'_>) -> Result<(), ReadError> {
        for (unit, file) in linked.units.iter().enumerate() {
            for (section, found) in file.sections.iter().enumerate() {
                if found.content != Content::Maps {
                    continue;
                }
                for relocation in &found.relocations {
                    let offset = relocation.offset;
                    let place = Place {
                        unit,
                        section,
                        offset,
                    };
                    let bad = |why| linked.bad_relocation(unit, section, relocation, why);
                    let slot = self.slot(place);
                    let (fixed, slot) = slot.ok_or_else(|| bad("no map has contents there"))?;
                    if fixed.programs {
                        continue;
                    }
                    let target = self.map(linked.target(unit, section, relocation)?);
                    let target = target.ok_or_else(|| bad("not a map"))?;
                    if self.defs[target as usize].kind.holds_maps() {
                        return Err(bad("a map of maps in a map of maps"));
                    }
                    let map = &mut self.defs[fixed.map as usize];
                    if let Some(inner) = &mut map.inner {
                        inner.slots.resize(fixed.slots, None);
                        inner.slots[slot] = Some(target);
                    }
                }
            }
        }
        Ok(())
    }

    /// Maps of a `maps` section, which its symbols cut into definitions of one size.
    fn legacy(&mut self, linked: &Linked<'_>) -> Result<(), ReadError> {
        for (file, unit) in linked.units.iter().enumerate() {
            for (section, found) in unit.sections.iter().enumerate() {
                if found.content != Content::LegacyMaps {
                    continue;
                }
                let symbols = unit.symbols.iter().enumerate().filter(|(_, symbol)| {
                    // Old compilers give no sizes.
                    let is_map = symbol.size != 0 || symbol.binding != Binding::Local;
                    symbol.section == Some(section) && !symbol.name.is_empty() && is_map
                });
                let mut symbols: Vec<_> = symbols.collect();
                symbols.sort_by_key(|(_, symbol)| symbol.value);
                let count = symbols.len() as u64;
                let size = found.size.checked_div(count).unwrap_or(0);
                let fault = |why| {
                    let section = found.name.to_owned();
                    linked.within(file, ReadError::Section { section, why })
                };
                // Of maps that hold others, and by their ids, of maps.
                let first = self.defs.len();
                let mut outer: Vec<(usize, u32)> = Vec::new();
                let mut by_id: HashMap<u32, usize> = HashMap::new();
                if size == 0 || size * count != found.size || size % 4 != 0 {
                    return Err(fault("is not cut into definitions of one size"));
                }
                for (index, symbol) in symbols {
                    let from = usize::try_from(symbol.value).unwrap_or(usize::MAX);
                    let bytes = from
                        .checked_add(size as usize)
                        .and_then(|to| found.data.get(from..to));
                    let bytes = bytes.filter(|_| symbol.value % size == 0);
                    let bytes = bytes.ok_or_else(|| fault("is not cut by its symbols"))?;
                    if !linked.wins(file, index) {
                        continue;
                    }
                    let (words, _) = bytes.as_chunks::<4>();
                    let def =
                        legacy(symbol.name, words).map_err(|error| linked.within(file, error))?;
                    let place = Place {
                        unit: file,
                        section,
                        offset: symbol.value,
                    };
                    let word =
                        |index: usize| words.get(index).map_or(0, |w| u32::from_le_bytes(*w));
                    let index = self.defs.len();
                    match words.len() {
                        IPROUTE_WORDS => {
                            by_id.entry(word(5)).or_insert(index);
                            if def.kind.holds_maps() && word(7) != 0 {
                                outer.push((index, word(7)));
                            }
                        }
                        SAMPLES_WORDS => {
                            by_id.insert((index - first) as u32, index);
                            if def.kind.holds_maps() {
                                outer.push((index, word(5)));
                            }
                        }
                        _ => {}
                    }
                    self.at.insert(place, index as u32);
                    self.defs.push(def);
                }
                for (index, id) in outer {
                    let template = by_id.get(&id).map(|inner| MapDef {
                        name: String::new(),
                        ..self.defs[*inner].clone()
                    });
                    let name = self.defs[index].name.clone();
                    let why = "no map has the id of those it shall hold";
                    let template = template
                        .ok_or_else(|| linked.within(file, ReadError::Map { name, why }))?;
                    let slots = Vec::new();
                    self.defs[index].inner = Some(Box::new(InnerMaps { template, slots }));
                }
            }
        }
        Ok(())
    }
}

/// What is left out of the definition is zero; what comes after it must be.
fn legacy(name: &str, words: &[[u8; 4]]) -> Result<MapDef, ReadError> {
    let fault = |why| ReadError::Map {
        name: name.to_owned(),
        why,
    };
    let word = |index: usize| words.get(index).map_or(0, |w| u32::from_le_bytes(*w));
    let known = match words.len() {
        known @ (SAMPLES_WORDS | IPROUTE_WORDS) => known,
        _ => LEGACY_WORDS,
    };
    if words.iter().skip(known).any(|w| *w != [0; 4]) {
        return Err(fault(
            "more than the five, seven or nine words of a definition",
        ));
    }
    let pinning = match (known, word(6)) {
        (IPROUTE_WORDS, 1 | 2) => Pinning::ByName,
        (SAMPLES_WORDS, 1 | 2) if word(4) & F_NUMA_NODE == 0 => Pinning::ByName,
        _ => Pinning::None,
    };
    Ok(MapDef {
        name: name.to_owned(),
        kind: MapKind::from_number(word(0)).ok_or(fault("unknown kind"))?,
        key_size: word(1),
        value_size: word(2),
        max_entries: word(3),
        flags: word(4),
        pinning,
        ..MapDef::default()
    })
}

/// What one file says of its BTF-defined maps.
fn variables(file: usize, unit: &Unit<'_>) -> Result<Vec<Found>, ReadError> {
    let fault = |why| ReadError::Section {
        section: MAPS.to_owned(),
        why,
    };
    let section = unit
        .sections
        .iter()
        .position(|s| s.content == Content::Maps);
    let variables = unit.types.variables(MAPS)?;
    let symbols: HashMap<&str, u64> = unit
        .symbols
        .iter()
        .filter(|symbol| symbol.section.is_some() && symbol.section == section)
        .map(|symbol| (symbol.name, symbol.value))
        .collect();
    let mut out = Vec::new();
    for variable in variables {
        let def = definition(&variable.name, &variable.members, true)?;
        // Only a file with maps of its own has the section; an extern lies nowhere.
        let place = match (section, variable.linkage) {
            (_, Linkage::Extern) => Place {
                unit: file,
                section: usize::MAX,
                offset: 0,
            },
            (Some(section), _) => {
                let at = symbols.get(variable.name.as_str()).copied();
                Place {
                    unit: file,
                    section,
                    offset: at.unwrap_or(u64::from(variable.offset)),
                }
            }
            (None, _) => return Err(fault("is missing")),
        };
        out.push(Found {
            place,
            variable,
            def,
        });
    }
    if out.is_empty() && section.is_some_and(|index| unit.sections[index].size != 0) {
        return Err(fault("no type information says what is in it"));
    }
    Ok(out)
}

fn definition(name: &str, members: &[Member], outer: bool) -> Result<MapDef, ReadError> {
    let fault = |why| ReadError::Map {
        name: name.to_owned(),
        why,
    };
    let mut kind = None;
    let (mut key, mut value) = (None, None);
    let mut def = MapDef {
        name: name.to_owned(),
        ..MapDef::default()
    };
    let set = |size: &mut Option<u32>, to| match size.replace(to) {
        Some(before) if before != to => Err(fault("two sizes for one thing")),
        _ => Ok(()),
    };
    for member in members {
        match (member.name.as_str(), &member.value) {
            ("type", Field::Number(n)) => {
                kind = Some(MapKind::from_number(*n).ok_or(fault("unknown kind"))?);
            }
            ("key_size", Field::Number(n)) | ("key", Field::Size(n)) => set(&mut key, *n)?,
            ("value_size", Field::Number(n)) | ("value", Field::Size(n)) => set(&mut value, *n)?,
            ("max_entries", Field::Number(n)) => def.max_entries = *n,
            ("map_flags", Field::Number(n)) => def.flags = *n,
            ("pinning", Field::Number(0)) => {}
            ("pinning", Field::Number(1)) if outer => def.pinning = Pinning::ByName,
            ("pinning", _) => return Err(fault("pinned neither by name nor not at all")),
            ("values", Field::Programs) => {}
            ("values", Field::Maps(members)) => {
                def.inner = Some(Box::new(InnerMaps {
                    template: MapDef {
                        name: String::new(),
                        ..definition(name, members, false)?
                    },
                    slots: Vec::new(),
                }));
            }
            // Which memory it lies in is for whoever makes it; nothing else reads the other.
            ("numa_node", Field::Number(_)) | ("map_extra", Field::Number(0)) => {}
            ("map_extra", _) => return Err(fault("no kind of ours has map_extra")),
            _ => return Err(fault("unknown member")),
        }
    }
    def.kind = kind.ok_or(fault("no type"))?;
    let has = |wanted: fn(&Field) -> bool| members.iter().any(|m| wanted(&m.value));
    if has(|v| matches!(v, Field::Programs)) && def.kind != MapKind::ProgArray {
        return Err(fault("only program arrays hold programs"));
    }
    if def.inner.is_some() {
        if !def.kind.holds_maps() {
            return Err(fault("only arrays and hashes of maps hold maps"));
        }
        // A map is four bytes to whoever puts it there; libbpf lets that be left out.
        if *value.get_or_insert(4) != 4 {
            return Err(fault("values that are maps have 4 bytes"));
        }
    }
    def.key_size = key.unwrap_or(0);
    def.value_size = value.unwrap_or(0);
    Ok(def)
}
