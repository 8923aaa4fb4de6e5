//! The fuzz target of maps, for some seconds and without libFuzzer: see `fuzz/README.md`.

use dash_bpf::MapKind;
use dash_prog::Map;

use crate::support::def;

#[path = "../../../../fuzz/bodies/map_update.rs"]
mod body;
#[path = "../../../../fuzz/bodies/driver.rs"]
mod driver;

/// Every kind, with sizes it takes, and a few operations of all sorts.
fn inputs() -> Vec<Vec<u8>> {
    let kinds = MapKind::ALL.iter().zip(0u8..);
    kinds
        .map(|(kind, number)| {
            let (key, value, entries, flags) = match kind {
                MapKind::Queue | MapKind::Stack => (0, 8, 5, 0),
                // A page, in four bytes.
                MapKind::RingBuf => (0, 0, 255, 0),
                MapKind::LpmTrie => (6, 8, 5, 1),
                MapKind::Hash | MapKind::LruHash => (5, 12, 3, 0),
                _ => (4, 4, 5, 0),
            };
            let mut input = vec![2, number, key, value, entries];
            if entries == 255 {
                input.extend_from_slice(&4096u32.to_le_bytes());
            }
            input.push(flags);
            for at in 0..6 {
                // An update, a look-up, the next key; then a value for one CPU, a deletion and a pop.
                input.extend_from_slice(&[0, at, at + 9, 3, at, 6, at]);
                if at > 2 {
                    input.extend_from_slice(&[39, at, 1, 4, at, 5, at]);
                }
            }
            input
        })
        .collect()
}

#[test]
fn maps() {
    driver::drive(&inputs(), 30_000, body::run);
}

/// What the first run found: with one CPU, values that are no multiple of 8 bytes were read without what pads
/// them, so that what was read could not be written.
#[test]
fn what_one_cpu_has_is_padded_too() {
    for kind in [
        MapKind::PercpuArray,
        MapKind::PercpuHash,
        MapKind::LruPercpuHash,
    ] {
        let map = Map::new(&def("m", kind, 4, 4, 2), 1).expect("a map");
        let (key, value) = ([1, 0, 0, 0], [1, 2, 3, 4, 0, 0, 0, 0]);
        map.update(&key, &value, 0).expect("padded");
        let read = map.lookup(&key).expect("a key").expect("is there");
        assert_eq!(read, value, "{kind:?}");
        map.update(&key, &read, 0).expect("as it was read");
        assert!(map.dump().iter().any(|element| element.value == value));
    }
}
