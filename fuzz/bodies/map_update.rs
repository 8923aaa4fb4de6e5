//! Any definition makes a map or is refused, and any operations from outside on it give what they should or an
//! error: keys and values of other sizes never get in, what was written is read again, nothing is more than fits.
//! The input is the definition, then operations.

use dash_bpf::map::InnerMaps;
use dash_bpf::{MapDef, MapKind};
use dash_prog::set::memory;
use dash_prog::{Errno, Map};

/// Larger maps are not made: what a system has is not ours to fill.
const MOST: u64 = 4 << 20;

/// Takes the input apart.
struct Input<'d>(&'d [u8]);

impl<'d> Input<'d> {
    fn bytes(&mut self, count: usize) -> Option<&'d [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn word(&mut self) -> Option<u32> {
        let bytes = self.bytes(4)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    }

    /// A small number mostly, or any.
    fn size(&mut self) -> Option<u32> {
        match self.byte()? {
            255 => self.word(),
            small => Some(small.into()),
        }
    }

    fn definition(&mut self) -> Option<MapDef> {
        let kind = MapKind::ALL[usize::from(self.byte()?) % MapKind::ALL.len()];
        Some(MapDef {
            name: "fuzzed".to_owned(),
            kind,
            key_size: self.size()?,
            value_size: self.size()?,
            max_entries: self.size()?,
            flags: self.size()?,
            ..MapDef::default()
        })
    }

    /// Bytes of about this size: as many, or others.
    fn about(&mut self, size: usize) -> Option<Vec<u8>> {
        match self.byte()? {
            // One of a few, so that operations meet.
            n @ 0..128 => {
                let mut bytes = vec![0; size];
                bytes.iter_mut().take(1).for_each(|first| *first = n % 8);
                // A prefix's length, where there is one.
                bytes.iter_mut().skip(4).for_each(|rest| *rest = n / 8);
                Some(bytes)
            }
            128..240 => self.bytes(size).map(<[u8]>::to_vec),
            n => self.bytes(usize::from(n - 240)).map(<[u8]>::to_vec),
        }
    }
}

fn operation(map: &Map, inner: Option<&Map>, input: &mut Input<'_>) -> Option<()> {
    let def = map.def();
    let (what, key) = (input.byte()?, input.about(def.key_size as usize)?);
    let is_key = key.len() == def.key_size as usize;
    let flags = u64::from(what / 32);
    match what % 8 {
        0..3 => {
            let value = input.about(map.value_bytes())?;
            let done = map.update(&key, &value, flags);
            if !is_key || value.len() != map.value_bytes() {
                let no_values = def.kind == MapKind::RingBuf;
                assert!(done.is_err() || no_values, "{def:?} takes other sizes");
            } else if done.is_ok() && is_plain(def.kind) {
                let found = map.lookup(&key).expect("a key");
                assert_eq!(found, Some(value), "{def:?} at {key:?}");
            }
        }
        3 => {
            let found = map.lookup(&key);
            assert!(is_key || found.is_err());
            if let Ok(Some(value)) = found {
                assert!(value.len() == map.value_bytes() || def.kind.holds_maps());
            }
        }
        4 => {
            let done = map.delete(&key);
            assert!(is_key || done.is_err());
            if done.is_ok() && def.kind != MapKind::LpmTrie {
                assert_eq!(map.lookup(&key), Ok(None), "{def:?} at {key:?}");
                // Linux's arrays of devices and sockets say so of empty slots too.
                let again = map.delete(&key).map_err(|e| e.errno);
                let slots = matches!(def.kind, MapKind::DevMap | MapKind::XskMap);
                let expected = if slots { Ok(()) } else { Err(Errno::NoEnt) };
                assert_eq!(again, expected, "{def:?} at {key:?}");
            }
        }
        5 => {
            let before = map.len();
            if map.pop().is_ok_and(|value| value.is_some()) && def.kind != MapKind::RingBuf {
                assert_eq!(map.len(), before - 1);
            }
        }
        6 => {
            let next = map.next_key(Some(&key));
            assert!(is_key || next.is_err());
        }
        _ if flags == 7 => map.freeze(),
        _ => {
            let value = input.about(def.value_size as usize)?;
            let _ = map.set_for_cpu(flags as u32, &key, &value);
            if let Some(inner) = inner {
                let _ = map.set_map(&key, inner, flags);
            }
            let _ = map.get_map(&key);
        }
    }
    Some(())
}

/// Whether what is written is what is read, byte by byte.
fn is_plain(kind: MapKind) -> bool {
    use MapKind::{Array, Hash, LpmTrie, LruHash};
    matches!(kind, Hash | Array | LruHash | LpmTrie)
}

/// What is in it is no more than fits, and keys lead through it.
fn check(map: &Map) {
    let def = map.def();
    let all = map.dump();
    if def.kind == MapKind::RingBuf {
        return assert!(all.is_empty());
    }
    assert_eq!(all.len() as u64, map.len(), "{def:?}");
    assert!(map.len() <= u64::from(def.max_entries), "{def:?}");
    let (mut key, mut keys) = (None, 0);
    while let Ok(Some(next)) = map.next_key(key.as_deref()) {
        assert_eq!(next.len(), def.key_size as usize);
        keys += 1;
        assert!(keys <= def.max_entries, "{def:?}: keys go round");
        key = Some(next);
    }
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let (Some(cpus), Some(mut def)) = (input.byte(), input.definition()) else {
        return;
    };
    let cpus = u32::from(cpus % 4);
    let mut inner = None;
    if def.kind.holds_maps() {
        let template = MapDef {
            kind: MapKind::Hash,
            key_size: 4,
            value_size: 8,
            max_entries: 4,
            ..MapDef::default()
        };
        inner = Map::new(&template, 1).ok();
        def.inner = Some(Box::new(InnerMaps {
            template,
            slots: Vec::new(),
        }));
    }
    if memory(&def, cpus.max(1)) > MOST {
        return;
    }
    let Ok(map) = Map::new(&def, cpus) else {
        return;
    };
    // Bounded by the input: each takes a byte at least.
    while operation(&map, inner.as_ref(), &mut input).is_some() {}
    check(&map);
}
