//! Perf events, and look-ups in device and socket maps.

use dash_bpf::{MapKind, Object};
use dash_prog::{Engine, LoadOptions, Loaded};

use crate::support::{def, load, object, run};

const FRAME: [u8; 64] = [0x11; 64];

/// Puts 8 bytes out with the flags of `flags[0]`, and returns what the helper says.
fn writer() -> Object {
    let text = "r6 = r1
        r1 = value(map[1]) + 0 ll
        r3 = *(u64 *)(r1 + 0)
        *(u64 *)(r10 - 8) = 0x22222222
        r1 = r6
        r2 = map[0] ll
        r4 = r10
        r4 += -8
        r5 = 8
        call 25
        exit";
    object(
        vec![
            def("events", MapKind::PerfEventArray, 4, 4, 4),
            def("flags", MapKind::Array, 4, 8, 1),
        ],
        &[text],
    )
}

const CURRENT: u64 = 0xffff_ffff;

#[test]
fn perf_events_take_flags_as_linux_does() {
    let own = [0x22, 0x22, 0x22, 0x22, 0, 0, 0, 0];
    for engine in Engine::ALL {
        let loaded = load(&writer(), engine);
        let map = |name| loaded.maps().get(name).expect("a map");
        let of_packet = |bytes: u64| bytes << 32;
        for (flags, code, record) in [
            (CURRENT, 0, Some(own.to_vec())),
            // Its own slot by number.
            (0, 0, Some(own.to_vec())),
            (
                CURRENT | of_packet(3),
                0,
                Some([&own[..], &[0x11; 3]].concat()),
            ),
            (
                CURRENT | of_packet(64),
                0,
                Some([&own[..], &FRAME].concat()),
            ),
            // EFAULT, EOPNOTSUPP (another worker's), ENOENT (nobody's), E2BIG, EINVAL.
            (CURRENT | of_packet(65), -14, None),
            (1, -95, None),
            (3, -2, None),
            (4, -7, None),
            (CURRENT | 1 << 52, -22, None),
        ] {
            map("flags")
                .update(&[0; 4], &flags.to_ne_bytes(), 0)
                .expect("set");
            let (outcome, frame) = run(&loaded, &FRAME);
            assert_eq!((outcome.trap, &frame[..]), (None, &FRAME[..]), "{engine}");
            assert_eq!(outcome.code as i32, code, "{engine}: flags {flags:#x}");
            assert_eq!(
                map("events").pop().expect("records"),
                record,
                "{engine}: {flags:#x}"
            );
            assert_eq!(map("events").pop().expect("records"), None);
        }
        assert_eq!(map("events").lost(), 0);
    }
}

#[test]
fn records_without_room_are_counted_as_lost_and_the_others_stay_in_order() {
    for engine in Engine::ALL {
        let loaded = load(&writer(), engine);
        let map = |name| loaded.maps().get(name).expect("a map");
        map("flags")
            .update(&[0; 4], &(CURRENT | 64 << 32).to_ne_bytes(), 0)
            .expect("set");
        let mut refused = 0;
        for _ in 0..1_000 {
            let (outcome, _) = run(&loaded, &FRAME);
            match outcome.code as i32 {
                0 => assert_eq!(refused, 0, "{engine}"),
                code => {
                    assert_eq!(code, -28, "{engine}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "{engine}: a ring is not endless");
        assert_eq!(map("events").lost(), refused, "{engine}");
        let mut kept = 0;
        while map("events").pop().expect("records").is_some() {
            kept += 1;
        }
        assert_eq!(kept + refused, 1_000, "{engine}");
        assert!(map("events").is_empty());
    }
}

#[test]
fn each_worker_has_its_own_slot() {
    for engine in Engine::ALL {
        let loaded = load(&writer(), engine);
        let program = loaded.first().expect("a program");
        let mut runner = program.runner(1).expect("cpu 1");
        let flags = loaded.maps().get("flags").expect("a map");
        for (flag, code) in [(1, 0), (CURRENT, 0), (0, -95)] {
            flags
                .update(&[0; 4], &u64::to_ne_bytes(flag), 0)
                .expect("set");
            let mut memory = FRAME;
            let mut packet = dash_prog::Packet::new(&mut memory, 0..64).expect("inside");
            let outcome = runner.run(&mut packet, &dash_prog::Ingress::default());
            assert_eq!(outcome.code as i32, code, "{engine}: {flag}");
        }
        let events = loaded.maps().get("events").expect("a map");
        assert!(events.pop().expect("a record").is_some());
        assert!(events.pop().expect("a record").is_some());
        assert_eq!(events.pop().expect("no record"), None);
        // It has no elements.
        assert!(events.lookup(&[0; 4]).is_err());
        assert!(events.update(&[0; 4], &[0; 4], 0).is_err());
        assert!(events.delete(&[0; 4]).is_err());
        assert!(events.next_key(None).is_err());
        assert_eq!(events.dump(), []);
    }
}

/// What a look-up of slot 2 reads: 77 for nothing.
fn reader(kind: MapKind, value: u32) -> Object {
    let text = "*(u32 *)(r10 - 4) = 2
        r1 = map[0] ll
        r2 = r10
        r2 += -4
        call 1
        if r0 == 0 goto none
        r0 = *(u32 *)(r0 + 0)
        exit
        none:
        r0 = 77
        exit";
    object(vec![def("slots", kind, 4, value, 4)], &[text])
}

#[test]
fn programs_read_what_is_in_device_and_socket_maps() {
    for (kind, size) in [
        (MapKind::XskMap, 4),
        (MapKind::DevMap, 4),
        (MapKind::DevMap, 8),
        (MapKind::DevMapHash, 8),
    ] {
        for engine in Engine::ALL {
            let loaded = load(&reader(kind, size), engine);
            let slots = loaded.maps().get("slots").expect("a map");
            let read = || {
                let (outcome, _) = run(&loaded, &FRAME);
                assert_eq!(outcome.trap, None);
                outcome.code
            };
            assert_eq!(read(), 77, "{kind:?} {engine}: empty");
            let value = |n: u32| [&n.to_ne_bytes()[..], &vec![0; size as usize - 4]].concat();
            for number in [5, 9] {
                slots
                    .update(&2u32.to_ne_bytes(), &value(number), 0)
                    .expect("set");
                assert_eq!(read(), number, "{kind:?} {engine}");
            }
            slots.delete(&2u32.to_ne_bytes()).expect("removed");
            assert_eq!(read(), 77, "{kind:?} {engine}: removed");
        }
    }
}

#[test]
fn programs_do_not_write_what_is_in_device_and_socket_maps() {
    for kind in [MapKind::XskMap, MapKind::DevMap, MapKind::DevMapHash] {
        for access in [
            "r1 = 1\n*(u32 *)(r0 + 0) = r1",
            "r1 = 1\nlock *(u32 *)(r0 + 0) += r1",
            // Beyond the value.
            "r1 = *(u32 *)(r0 + 4)",
        ] {
            let text = format!(
                "*(u32 *)(r10 - 4) = 2
                r1 = map[0] ll
                r2 = r10
                r2 += -4
                call 1
                if r0 == 0 goto none
                {access}
                none:
                r0 = 2
                exit"
            );
            let object = object(vec![def("slots", kind, 4, 4, 4)], &[&text]);
            for judge in ["own", "prevail"] {
                let mut options = LoadOptions::default();
                options.policy.judge = judge.parse().expect("a judge");
                let loaded = Loaded::from_object(object.clone(), &options);
                assert!(loaded.is_err(), "{kind:?}, {judge}: {access}");
            }
        }
    }
}
