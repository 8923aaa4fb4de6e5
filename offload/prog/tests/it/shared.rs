//! Maps in use by programs and control at the same time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dash_bpf::map::{InnerMaps, Pinning};
use dash_bpf::{MapDef, MapKind};
use dash_prog::{Engine, Errno, Ingress, LoadOptions, Loaded, Map, MapError, Packet, Pins};

use crate::support::{def, load, object, run};

/// Writes a value of three equal words at key `random % 8` of map 0; reads key `random % 8` after.
const WRITES: &str = "call 7
    r0 &= 7
    *(u32 *)(r10 - 4) = r0
    call 7
    *(u64 *)(r10 - 16) = r0
    *(u64 *)(r10 - 24) = r0
    *(u64 *)(r10 - 32) = r0
    r1 = map[0] ll
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -32
    r4 = 0
    call 2
    call 7
    r0 &= 7
    *(u32 *)(r10 - 4) = r0
    r1 = map[0] ll
    r2 = r10
    r2 += -4
    call 1
    r6 = 2
    if r0 == 0 goto out
    r1 = *(u64 *)(r0 + 0)
    out:
    r0 = r6
    exit";

#[test]
fn control_sees_whole_values_while_workers_write() {
    for kind in [MapKind::Hash, MapKind::LruHash] {
        // Four elements for eight keys: some are always made and some refused, or displaced.
        let loaded = load(
            &object(vec![def("m", kind, 4, 24, 4)], &[WRITES]),
            Engine::Native,
        );
        let map = loaded.maps().get("m").expect("map").clone();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for cpu in 0..2 {
                let mut runner = loaded
                    .first()
                    .and_then(|p| p.runner(cpu))
                    .expect("a runner");
                scope.spawn(move || {
                    let mut memory = [0; 256];
                    for now_ns in 0..20_000 {
                        let mut packet = Packet::new(&mut memory, 64..128).expect("inside");
                        let ingress = Ingress {
                            now_ns,
                            ..Ingress::default()
                        };
                        assert_eq!(runner.run(&mut packet, &ingress).code, 2);
                    }
                });
            }
            let done = &done;
            let control = scope.spawn(move || {
                let mut seen = 0u64;
                while !done.load(Ordering::Relaxed) {
                    for element in map.dump() {
                        let (words, _) = element.value.as_chunks::<8>();
                        assert!(words.iter().all(|word| *word == words[0]), "{element:?}");
                        seen += 1;
                    }
                    let key = (seen as u32 % 8).to_ne_bytes();
                    match map.delete(&key) {
                        Ok(())
                        | Err(MapError {
                            errno: Errno::NoEnt,
                            ..
                        }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    assert!(map.len() <= 4, "{}", map.len());
                }
                seen
            });
            // The workers' threads end first: give control a sign once they have.
            scope.spawn(move || {
                thread::sleep(std::time::Duration::from_millis(300));
                done.store(true, Ordering::Relaxed);
            });
            assert!(control.join().expect("control") > 0);
        });
        // Nothing was lost: the map takes four, and no more.
        let map = loaded.maps().get("m").expect("map");
        for element in map.dump() {
            map.delete(&element.key).expect("there");
        }
        assert_eq!(map.len(), 0);
        for key in 0u32..4 {
            map.update(&key.to_ne_bytes(), &[1; 24], 0).expect("space");
        }
        let fifth = map.update(&9u32.to_ne_bytes(), &[1; 24], 0);
        assert_eq!(fifth.is_ok(), kind == MapKind::LruHash);
        assert_eq!(map.len(), 4);
    }
}

fn outer(kind: MapKind) -> MapDef {
    MapDef {
        inner: Some(Box::new(InnerMaps {
            template: MapDef {
                name: String::new(),
                ..def("", MapKind::Array, 4, 8, 1)
            },
            slots: vec![None, Some(1)],
        })),
        ..def("outer", kind, 4, 4, 4)
    }
}

#[test]
fn maps_of_maps_take_what_is_like_their_template() {
    for kind in [MapKind::ArrayOfMaps, MapKind::HashOfMaps] {
        let inner = def("inner", MapKind::Array, 4, 8, 1);
        let loaded = load(
            &object(vec![outer(kind), inner.clone()], &["r0 = 2\nexit"]),
            Engine::Native,
        );
        let outer = loaded.maps().get("outer").expect("map");
        let first = loaded.maps().get("inner").expect("map");
        let key = |n: u32| n.to_ne_bytes();
        assert_eq!(outer.get_map(&key(1)).expect("a key").as_ref(), Some(first));
        assert_eq!(outer.get_map(&key(0)).expect("a key"), None);
        let said = outer.lookup(&key(1)).expect("a key");
        assert_eq!(said, Some((first.id() as u32).to_ne_bytes().to_vec()));

        let other = Map::new(&inner, 2).expect("a map");
        outer.set_map(&key(0), &other, 0).expect("alike");
        let longer = Map::new(
            &MapDef {
                max_entries: 2,
                ..inner.clone()
            },
            2,
        )
        .expect("a map");
        let refused = outer.set_map(&key(0), &longer, 0).expect_err("longer");
        assert_eq!(refused.errno, Errno::Inval);
        assert_eq!(outer.dump().len(), 2);
        outer.delete(&key(1)).expect("there");
        assert_eq!(outer.delete(&key(1)).expect_err("gone").errno, Errno::NoEnt);
        assert_eq!(outer.get_map(&key(1)).expect("a key"), None);
        // The array it held is whole.
        first.update(&key(0), &[7; 8], 0).expect("an element");
    }
}

#[test]
fn ring_buffers_are_as_long_as_linuxs() {
    let refused = |entries| Map::new(&def("r", MapKind::RingBuf, 0, 0, entries), 1).is_err();
    assert!(refused(0) && refused(1000) && refused(4096 * 3));
    let ring = Map::new(&def("r", MapKind::RingBuf, 0, 0, 4096), 1).expect("a ring");
    assert_eq!(ring.pop().expect("a ring"), None);
    assert_eq!(ring.len(), 0);
}

#[test]
fn pinned_maps_outlive_their_object_and_are_found_again() {
    let mut counter = def("count", MapKind::Array, 4, 8, 1);
    counter.pinning = Pinning::ByName;
    let text = "*(u32 *)(r10 - 4) = 0
        r1 = map[0] ll
        r2 = r10
        r2 += -4
        call 1
        if r0 == 0 goto out
        r1 = 1
        lock *(u64 *)(r0 + 0) += r1
        out:
        r0 = 2
        exit";
    let pins = Pins::default();
    let options = LoadOptions {
        pins: Some(pins.clone()),
        ..LoadOptions::default()
    };
    for _ in 0..3 {
        let program = object(vec![counter.clone()], &[text]);
        let loaded = Loaded::from_object(program, &options).expect("loaded");
        run(&loaded, &[0; 64]);
    }
    let count = pins.get("count").expect("pinned");
    assert_eq!(
        count.lookup(&[0; 4]).expect("a key"),
        Some(3u64.to_ne_bytes().to_vec())
    );

    let constants = Map::new(
        &MapDef {
            flags: dash_bpf::map::F_RDONLY_PROG,
            contents: vec![1; 8],
            ..counter.clone()
        },
        1,
    )
    .expect("a map");
    let refused = constants.set_for_cpu(0, &[0; 4], &[2; 8]);
    assert_eq!(refused.expect_err("constants").errno, Errno::Perm);

    let other = MapDef {
        max_entries: 2,
        ..counter
    };
    let refused = Loaded::from_object(object(vec![other], &[text]), &options);
    assert!(refused.is_err(), "another map under that name");
    assert!(pins.unpin("count") && !pins.unpin("count"));
}
