//! Every engine gives the same verdicts, frames and maps.

use dash_bpf::helper::XdpAction;
use dash_bpf::program::TailCalls;
use dash_bpf::{MapKind, Object};
use dash_prog::{Engine, LoadError, LoadOptions, Loaded, Outcome, Target};

use crate::support::{def, load, object, run};

/// Runs on all engines, which must agree on everything; then looks at the maps of each.
fn agree(object: &Object, frame: &[u8], maps: impl Fn(&Loaded)) -> (Outcome, Vec<u8>) {
    let mut results = Vec::new();
    for engine in Engine::ALL {
        let loaded = load(object, engine);
        let result = run(&loaded, frame);
        assert_eq!(result.0.trap, None, "{engine}");
        maps(&loaded);
        results.push(result);
    }
    assert_eq!(results[0], results[1]);
    results.swap_remove(0)
}

const FRAME: [u8; 64] = [0x11; 64];

#[test]
fn the_context_says_where_the_packet_came_from() {
    let text = "r0 = *(u32 *)(r1 + 12)\nr2 = *(u32 *)(r1 + 16)\nr0 += r2\nexit";
    let (outcome, frame) = agree(&object(vec![], &[text]), &FRAME, |_| {});
    assert_eq!((outcome.code, outcome.action), (4, XdpAction::Redirect));
    // It never said where to.
    assert_eq!(outcome.target, None);
    assert_eq!(frame, FRAME);
}

#[test]
fn frames_are_changed_in_place_and_their_borders_move() {
    let text = "r6 = r1
        r2 = -4 ll
        call 44
        if r0 != 0 goto out
        r1 = *(u32 *)(r6 + 0)
        r2 = *(u32 *)(r6 + 4)
        r3 = r1
        r3 += 4
        if r3 > r2 goto out
        *(u32 *)(r1 + 0) = 0x22222222
        r1 = r6
        r2 = -8 ll
        call 65
        r0 = 3
        exit
        out:
        r0 = 0
        exit";
    let (outcome, frame) = agree(&object(vec![], &[text]), &FRAME, |_| {});
    assert_eq!(outcome.action, XdpAction::Tx);
    assert_eq!(frame.len(), 60);
    assert_eq!(frame[..5], [0x22, 0x22, 0x22, 0x22, 0x11]);
}

#[test]
fn a_counter_per_worker_and_one_for_all() {
    let maps = vec![
        def("each", MapKind::PercpuArray, 4, 8, 4),
        def("all", MapKind::Hash, 4, 8, 4),
    ];
    let text = "*(u32 *)(r10 - 4) = 2
        *(u64 *)(r10 - 16) = 5
        r1 = map[0] ll
        r2 = r10
        r2 += -4
        call 1
        if r0 == 0 goto out
        r1 = 1
        lock *(u64 *)(r0 + 0) += r1
        r1 = map[1] ll
        r2 = r10
        r2 += -4
        r3 = r10
        r3 += -16
        r4 = 1
        call 2
        r6 = r0
        r1 = map[1] ll
        r2 = r10
        r2 += -4
        r3 = r10
        r3 += -16
        r4 = 1
        call 2
        if r6 != 0 goto out
        if r0 != -17 goto out
        r0 = 2
        exit
        out:
        r0 = 1
        exit";
    let (outcome, _) = agree(&object(maps, &[text]), &FRAME, |loaded| {
        let each = loaded.maps().get("each").expect("map");
        let value = each
            .lookup(&2u32.to_ne_bytes())
            .expect("key")
            .expect("there");
        assert_eq!(value, [1u64.to_ne_bytes(), 0u64.to_ne_bytes()].concat());
        let all = loaded.maps().get("all").expect("map");
        let value = all
            .lookup(&2u32.to_ne_bytes())
            .expect("key")
            .expect("there");
        assert_eq!(value, 5u64.to_ne_bytes());
    });
    assert_eq!(outcome.action, XdpAction::Pass);
}

#[test]
fn redirects_say_where_to() {
    let plain = "r1 = 9\nr2 = 0\ncall 23\nexit";
    let (outcome, _) = agree(&object(vec![], &[plain]), &FRAME, |_| {});
    assert_eq!(outcome.target, Some(Target::Port(9)));

    for (kind, target) in [
        (MapKind::DevMap, Target::Port(7)),
        (MapKind::XskMap, Target::Socket(7)),
    ] {
        let by_map = |slot: u32| {
            let text = format!("r1 = map[0] ll\nr2 = {slot}\nr3 = 2\ncall 51\nexit");
            object(vec![def("to", kind, 4, 4, 4)], &[&text])
        };
        for engine in Engine::ALL {
            let loaded = load(&by_map(1), engine);
            let (empty, _) = run(&loaded, &FRAME);
            assert_eq!(empty.action, XdpAction::Pass, "what the flags say");
            let to = loaded.maps().get("to").expect("map");
            let set = to.update(&1u32.to_ne_bytes(), &7u32.to_ne_bytes(), 0);
            set.expect("a slot");
            assert_eq!(run(&loaded, &FRAME).0.target, Some(target), "{engine}");
            let beyond = run(&load(&by_map(4), engine), &FRAME).0;
            assert_eq!(beyond.action, XdpAction::Pass, "{engine}");
        }
    }
}

/// Program 0 calls slot 0 and then slot 1; program 1 calls itself by slot 0; program 2 ends.
fn calls() -> Object {
    let first = "r6 = r1
        r2 = map[0] ll
        r3 = 0
        call 12
        r1 = r6
        r2 = map[0] ll
        r3 = 1
        call 12
        r0 = 1
        exit";
    let counting = "r6 = r1
        *(u32 *)(r10 - 4) = 0
        r1 = map[1] ll
        r2 = r10
        r2 += -4
        call 1
        if r0 == 0 goto out
        r1 = *(u64 *)(r0 + 0)
        r1 += 1
        *(u64 *)(r0 + 0) = r1
        out:
        r1 = r6
        r2 = map[0] ll
        r3 = 0
        call 12
        r0 = 3
        exit";
    let last = "r0 = 2\nexit";
    let maps = vec![
        def("programs", MapKind::ProgArray, 4, 4, 3),
        def("count", MapKind::Array, 4, 8, 1),
    ];
    object(maps, &[first, counting, last])
}

#[test]
fn tail_calls_lead_where_the_array_says_now() {
    for engine in Engine::ALL {
        let loaded = load(&calls(), engine);
        let programs = loaded.maps().get("programs").expect("map");
        let set = |slot: u32, program: u32| {
            programs.update(&slot.to_ne_bytes(), &program.to_ne_bytes(), 0)
        };
        assert_eq!(run(&loaded, &FRAME).0.code, 1, "{engine}: all empty");
        set(1, 2).expect("a slot");
        assert_eq!(run(&loaded, &FRAME).0.code, 2, "{engine}: the second");
        set(0, 1).expect("a slot");
        assert_eq!(run(&loaded, &FRAME).0.code, 3, "{engine}: around");
        let count = loaded.maps().get("count").expect("map");
        let count = count.lookup(&[0; 4]).expect("key").expect("there");
        assert_eq!(count, 33u64.to_ne_bytes(), "{engine}: Linux's limit");
        assert!(set(0, 3).is_err(), "there is no such program");
        programs.delete(&0u32.to_ne_bytes()).expect("there");
        assert_eq!(
            run(&loaded, &FRAME).0.code,
            2,
            "{engine}: the first is gone"
        );
    }
}

#[test]
fn objects_say_what_is_in_program_arrays() {
    let mut object = calls();
    object.tail_calls = vec![TailCalls {
        map: 0,
        programs: vec![Some(2), None, None],
    }];
    let (outcome, _) = agree(&object, &FRAME, |_| {});
    assert_eq!(outcome.code, 2);
}

#[test]
fn a_verdict_like_the_end_of_a_part_is_no_tail_call() {
    let (outcome, _) = agree(&object(vec![], &["r0 = 0x101\nexit"]), &FRAME, |_| {});
    assert_eq!((outcome.action, outcome.code), (XdpAction::Aborted, 0x101));
}

#[test]
fn refusals_say_what_and_why() {
    let unsafe_one = object(
        vec![],
        &["r1 = *(u32 *)(r1 + 0)\nr0 = *(u8 *)(r1 + 0)\nexit"],
    );
    let refused = Loaded::from_object(unsafe_one, &LoadOptions::default());
    assert!(matches!(refused, Err(LoadError::Verify(_))), "{refused:?}");

    let huge = object(
        vec![def("huge", MapKind::Hash, 8, 1 << 16, 1 << 20)],
        &["r0 = 2\nexit"],
    );
    let refused = Loaded::from_object(huge, &LoadOptions::default());
    assert!(
        matches!(refused, Err(LoadError::MapMemory { .. })),
        "{refused:?}"
    );

    let nowhere = object(vec![], &["r0 = 2\nexit"]);
    let options = LoadOptions {
        section: Some("xdp/other".to_owned()),
        ..LoadOptions::default()
    };
    let refused = Loaded::from_object(nowhere, &options).expect_err("no such section");
    assert!(refused.to_string().contains("xdp/other"), "{refused}");
}

#[test]
fn what_only_the_pipeline_may_call_is_refused_when_it_is_loaded() {
    let asks = object(vec![], &["r2 = 0\ncall 250\nexit"]);
    for engine in Engine::ALL {
        let options = LoadOptions {
            engine,
            ..LoadOptions::default()
        };
        let refused = Loaded::from_object(asks.clone(), &options);
        let said = refused.expect_err("no program").to_string();
        assert!(said.contains("helper 250 (dash_hook)"), "{engine}: {said}");
    }
}

/// Looks the first bytes of the packet up, copied to the stack by the widest moves there are or where they
/// are; the value is the verdict.
fn lookup_of(key: i16, on_stack: bool) -> String {
    let mut text = format!(
        "r6 = *(u32 *)(r1 + 0)
        r2 = *(u32 *)(r1 + 4)
        r3 = r6
        r3 += {key}
        if r3 > r2 goto out\n"
    );
    let mut at = 0;
    for (bytes, name) in [(8, "u64"), (4, "u32"), (2, "u16"), (1, "u8")] {
        while on_stack && key - at >= bytes {
            text += &format!(
                "r1 = *({name} *)(r6 + {at})\n*({name} *)(r10 - {}) = r1\n",
                72 - at
            );
            at += bytes;
        }
    }
    let pointer = if on_stack {
        "r2 = r10\nr2 += -72"
    } else {
        "r2 = r6"
    };
    text + &format!(
        "r1 = map[0] ll
        {pointer}
        call 1
        if r0 == 0 goto out
        r0 = *(u32 *)(r0 + 0)
        exit
        out:
        r0 = 0
        exit"
    )
}

#[test]
fn look_ups_that_are_inlined_find_what_the_map_finds() {
    for key in [
        1i16, 2, 3, 4, 5, 7, 8, 11, 12, 13, 15, 16, 20, 24, 31, 40, 57, 63, 64, 65,
    ] {
        for on_stack in [true, false] {
            // Few buckets for many elements: chains are walked.
            let flows = def("flows", MapKind::Hash, key as u32, 12, 5);
            let object = object(vec![flows], &[&lookup_of(key, on_stack)]);
            for engine in Engine::ALL {
                let loaded = load(&object, engine);
                let map = loaded.maps().get("flows").expect("map");
                let frame = |first: u8, last: u8| {
                    let mut frame = vec![first; 80];
                    frame[key as usize - 1] = last;
                    frame
                };
                let mut there = Vec::new();
                for (value, first) in (1u32..).zip([0, 3, 7, 200, 255]) {
                    let frame = frame(first, first ^ 1);
                    let bytes = [value.to_ne_bytes(), [9; 4], [9; 4]].concat();
                    map.update(&frame[..key as usize], &bytes, 0).expect("room");
                    there.push((frame, value));
                }
                let gone = there.remove(2);
                map.delete(&gone.0[..key as usize]).expect("there");
                let other = (frame(gone.0[0], gone.0[key as usize - 1] ^ 0x40), 0);
                for (frame, value) in there.iter().chain([&(gone.0, 0), &other]) {
                    let outcome = run(&loaded, frame).0;
                    assert_eq!(outcome.trap, None);
                    let what = format!("{engine}, {key} bytes, on the stack: {on_stack}");
                    assert_eq!(outcome.code, *value, "{what}");
                }
            }
        }
    }
}
