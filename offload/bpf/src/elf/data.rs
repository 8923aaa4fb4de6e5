//! Sections of global variables as maps: arrays of one value that is the whole section.

use std::collections::HashMap;

use super::ReadError;
use super::link::{Linked, Place};
use super::unit::Content;
use crate::map::{F_RDONLY_PROG, MapDef, MapKind};

/// Most bytes of one data section: what may be allocated for a file that is much smaller.
const MAX_DATA: u64 = 1 << 30;
/// Strictest alignment of a data section; compilers ask for at most that of a vector.
const MAX_ALIGN: u64 = 4096;

/// Maps for data sections, and where each section lies in its map.
#[derive(Debug, Default)]
pub(super) struct DataMaps {
    pub(super) maps: Vec<MapDef>,
    /// (file, section) to the index in `maps` and the section's offset in the value.
    at: HashMap<(usize, usize), (usize, u64)>,
}

impl DataMaps {
    /// Sections of one name, one after the other, are one map.
    pub(super) fn new(linked: &Linked<'_>) -> Result<Self, ReadError> {
        let mut all = Self::default();
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        let mut sizes: Vec<u64> = Vec::new();
        for (file, unit) in linked.units.iter().enumerate() {
            for (index, section) in unit.sections.iter().enumerate() {
                let flags = match section.content {
                    Content::Data | Content::Bss => 0,
                    Content::Rodata => F_RDONLY_PROG,
                    _ => continue,
                };
                if section.size == 0 {
                    continue;
                }
                if let Some(relocation) = section.relocations.first() {
                    let why = "data cannot hold addresses";
                    return Err(linked.bad_relocation(file, index, relocation, why));
                }
                let fault = |why| {
                    let section = section.name.to_owned();
                    Err(linked.within(file, ReadError::Section { section, why }))
                };
                if section.align > MAX_ALIGN || !section.align.is_power_of_two() {
                    return fault("alignment is not a power of two up to 4096");
                }
                let map = *by_name.entry(section.name).or_insert_with(|| {
                    sizes.push(0);
                    all.maps.push(MapDef {
                        name: section.name.to_owned(),
                        kind: MapKind::Array,
                        key_size: 4,
                        max_entries: 1,
                        flags,
                        ..MapDef::default()
                    });
                    all.maps.len() - 1
                });
                let start = sizes[map].next_multiple_of(section.align);
                let end = start.checked_add(section.size).filter(|e| *e <= MAX_DATA);
                let Some(end) = end else {
                    return fault("too much data");
                };
                sizes[map] = end;
                let def = &mut all.maps[map];
                def.value_size = end as u32;
                if section.content != Content::Bss {
                    def.contents.resize(start as usize, 0);
                    def.contents.extend_from_slice(section.data);
                }
                all.at.insert((file, index), (map, start));
            }
        }
        Ok(all)
    }

    /// The map and the byte of its value that this is, if it is one.
    pub(super) fn value(&self, place: Place) -> Option<(u32, u32)> {
        let (map, start) = *self.at.get(&(place.unit, place.section))?;
        let offset = u32::try_from(start.checked_add(place.offset)?).ok()?;
        let def = self.maps.get(map)?;
        (offset < def.value_size).then_some((map as u32, offset))
    }
}
