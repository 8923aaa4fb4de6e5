//! The maps of an object by name, and names by which maps outlive objects.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use dash_bpf::map::Pinning;
use dash_bpf::{MapDef, MapKind, Object};

use crate::load::LoadError;
use crate::map::Map;

/// The maps of an object, in its order.
#[derive(Clone, Debug, Default)]
pub struct MapSet(Arc<[Map]>);

impl MapSet {
    /// Makes the maps of an object, or takes pinned ones, and puts what it says into them.
    pub(crate) fn new(
        object: &Object,
        cpus: u32,
        most_bytes: u64,
        pins: Option<&Pins>,
    ) -> Result<Self, LoadError> {
        let bytes = object.maps.iter().map(|def| memory(def, cpus));
        let bytes = bytes.fold(0u64, u64::saturating_add);
        if bytes > most_bytes {
            return Err(LoadError::MapMemory {
                bytes,
                most: most_bytes,
            });
        }
        let mut maps = Vec::with_capacity(object.maps.len());
        let mut fresh = Vec::with_capacity(object.maps.len());
        for def in &object.maps {
            let pinned = match (def.pinning, pins) {
                (Pinning::ByName, Some(pins)) => pins.get(&def.name),
                _ => None,
            };
            fresh.push(pinned.is_none());
            match pinned {
                Some(map) if same(map.def(), def) && map.cpus() == cpus => maps.push(map),
                Some(_) => return Err(LoadError::Pinned(def.name.clone())),
                None => maps.push(Map::new(def, cpus)?),
            }
        }
        for (index, def) in object.maps.iter().enumerate() {
            if let Some(inner) = def.inner.as_ref().filter(|_| fresh[index]) {
                for (slot, map) in inner.slots.iter().enumerate() {
                    let Some(map) = map.and_then(|map| maps.get(map as usize)) else {
                        continue;
                    };
                    // A hash of maps has its slots' numbers as keys.
                    let mut key = (slot as u32).to_ne_bytes().to_vec();
                    key.resize(def.key_size as usize, 0);
                    maps[index].set_map(&key, map, 0)?;
                }
            }
        }
        for map in &maps {
            map.allow_programs(object.programs.len() as u32);
        }
        for calls in &object.tail_calls {
            let index = calls.map as usize;
            if !fresh.get(index).copied().unwrap_or(false) {
                continue;
            }
            for (slot, program) in calls.programs.iter().enumerate() {
                if let Some(program) = program {
                    let key = (slot as u32).to_ne_bytes();
                    maps[index].update(&key, &program.to_ne_bytes(), 0)?;
                }
            }
        }
        if let Some(pins) = pins {
            for (map, def) in maps.iter().zip(&object.maps) {
                if def.pinning == Pinning::ByName {
                    pins.pin(&def.name, map);
                }
            }
        }
        Ok(Self(maps.into()))
    }

    /// By position in the object.
    pub fn at(&self, index: u32) -> Option<&Map> {
        self.0.get(index as usize)
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<&Map> {
        self.0.iter().find(|map| map.def().name == name)
    }

    /// All, in the object's order.
    pub fn iter(&self) -> std::slice::Iter<'_, Map> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for &'a MapSet {
    type Item = &'a Map;
    type IntoIter = std::slice::Iter<'a, Map>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Whether a map that is there is what a definition asks for.
fn same(there: &MapDef, wanted: &MapDef) -> bool {
    let shape = |def: &MapDef| {
        (
            def.kind,
            def.key_size,
            def.value_size,
            def.max_entries,
            def.flags,
        )
    };
    // What read-only maps hold, proofs rest on.
    let constants = !wanted.read_only() || there.contents == wanted.contents;
    constants
        && shape(there) == shape(wanted)
        && there.inner.as_ref().map(|inner| &inner.template)
            == wanted.inner.as_ref().map(|inner| &inner.template)
}

/// Memory a map may come to take, in bytes: about.
pub fn memory(def: &MapDef, cpus: u32) -> u64 {
    if def.kind == MapKind::PerfEventArray {
        return crate::map::events::memory(cpus);
    }
    let per_cpu = matches!(
        def.kind,
        MapKind::PercpuArray | MapKind::PercpuHash | MapKind::LruPercpuHash
    );
    let copies = if per_cpu { u64::from(cpus) } else { 1 };
    let value = u64::from(def.stride()).max(8) * copies;
    let key = u64::from(def.key_size) + 32;
    u64::from(def.max_entries).saturating_mul(value.saturating_add(key))
}

/// Maps by name, for as long as they are pinned: what `bpffs` is to Linux. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Pins(Arc<Mutex<BTreeMap<String, Map>>>);

impl Pins {
    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Map>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pins a map under a name; what was there is not any more.
    pub fn pin(&self, name: &str, map: &Map) {
        self.locked().insert(name.to_owned(), map.clone());
    }

    /// The map under a name.
    pub fn get(&self, name: &str) -> Option<Map> {
        self.locked().get(name).cloned()
    }

    /// Forgets a name; the map lives on with who else holds it. Says whether there was one.
    pub fn unpin(&self, name: &str) -> bool {
        self.locked().remove(name).is_some()
    }

    /// All, by name.
    pub fn all(&self) -> Vec<(String, Map)> {
        let pins = self.locked();
        pins.iter()
            .map(|(name, map)| (name.clone(), map.clone()))
            .collect()
    }
}
