//! Runs that are ended for want of fuel, which compiled code and the interpreter count alike.

use dash_bpf::helper::XdpAction;
use dash_bpf::program::TailCalls;
use dash_bpf::{MapKind, Object};
use dash_prog::{Engine, LoadOptions, Loaded, Outcome};
use proptest::prelude::*;

use crate::support::{def, object, run};

const FRAME: [u8; 64] = [7; 64];

/// What came of a run, and the steps that `counted` has seen.
fn fuelled(object: &Object, engine: Engine, fuel: Option<u64>) -> (Outcome, Option<Vec<u8>>) {
    let options = LoadOptions {
        engine,
        fuel,
        ..LoadOptions::default()
    };
    let loaded =
        Loaded::from_object(object.clone(), &options).unwrap_or_else(|e| panic!("{engine}: {e}"));
    let (outcome, frame) = run(&loaded, &FRAME);
    assert_eq!(outcome.trap, None, "{engine}");
    assert_eq!(frame, FRAME);
    let counted = loaded.maps().get("counted");
    (
        outcome,
        counted.and_then(|map| map.lookup(&[0; 4]).expect("a key")),
    )
}

fn both(object: &Object, fuel: Option<u64>) -> (Outcome, Option<Vec<u8>>) {
    let [one, other] = [Engine::Native, Engine::Interp].map(|engine| fuelled(object, engine, fuel));
    assert_eq!(one, other, "{fuel:?}");
    one
}

/// `rounds` rounds that add 1 to what is counted.
fn rounds(rounds: u32) -> Object {
    let text = format!(
        "r1 = value(map[0]) + 0 ll
        r2 = 0
        again:
        r3 = *(u64 *)(r1 + 0)
        r3 += 1
        *(u64 *)(r1 + 0) = r3
        r2 += 1
        if r2 < {rounds} goto again
        r0 = 2
        exit"
    );
    object(vec![def("counted", MapKind::Array, 4, 8, 1)], &[&text])
}

#[test]
fn a_run_ends_at_the_first_jump_back_beyond_its_fuel() {
    // Two instructions, five a round, two at the end: 504.
    let object = rounds(100);
    for (fuel, counted) in [(0, 1), (6, 1), (7, 2), (496, 99), (497, 100), (10_000, 100)] {
        let (outcome, value) = both(&object, Some(fuel));
        let value = u64::from_ne_bytes(value.expect("a value").try_into().expect("8 bytes"));
        assert_eq!(value, counted, "{fuel}");
        // The last round jumps no more.
        let spent = fuel < 497;
        assert_eq!(outcome.out_of_fuel, spent, "{fuel}");
        let action = if spent {
            XdpAction::Aborted
        } else {
            XdpAction::Pass
        };
        assert_eq!(outcome.action, action, "{fuel}");
    }
    assert!(!both(&object, None).0.out_of_fuel);
}

#[test]
fn what_helpers_call_and_what_follows_tail_calls_is_counted() {
    // The function is at slot 14; its address counts from behind slot 2.
    let main = "r6 = r1
        r1 = 10
        r2 = imm64(4, 11, 0) ll
        r3 = 0
        r4 = 0
        call 181
        r1 = r6
        r2 = map[1] ll
        r3 = 0
        call 12
        r0 = 1
        exit
        r1 = value(map[0]) + 0 ll
        r2 = *(u64 *)(r1 + 0)
        r2 += 1
        *(u64 *)(r1 + 0) = r2
        r0 = 0
        exit";
    let next = "call inner
        r0 = 2
        exit
        inner:
        r1 = value(map[0]) + 0 ll
        r2 = 77
        *(u64 *)(r1 + 0) = r2
        r0 = 0
        exit";
    let mut object = object(
        vec![
            def("counted", MapKind::Array, 4, 8, 1),
            def("next", MapKind::ProgArray, 4, 4, 1),
        ],
        &[main, next],
    );
    object.tail_calls = vec![TailCalls {
        map: 1,
        programs: vec![Some(1)],
    }];
    // Six up to the loop, six a round of ten, four to the tail call, one to the local call, and eight.
    let ends: Vec<u64> = (0..90)
        .filter(|&n| both(&object, Some(n)).0.out_of_fuel)
        .collect();
    let last = ends.len() as u64;
    assert_eq!(
        ends,
        (0..last).collect::<Vec<_>>(),
        "more fuel never ends a run sooner"
    );
    assert_eq!(last, 6 + 60 + 4 + 1);
    let (outcome, value) = both(&object, Some(last));
    assert_eq!(
        (outcome.action, value),
        (XdpAction::Pass, Some(77u64.to_ne_bytes().to_vec()))
    );
}

/// A program of nested loops, local calls and branches.
fn program(outer: u32, inner: u32, branch: u32, calls: bool) -> Object {
    let call = if calls {
        "r1 = r7\ncall add"
    } else {
        "r8 += 1"
    };
    let text = format!(
        "r6 = 0
        r8 = 0
        outer:
        r7 = 0
        inner:
        if r7 == {branch} goto +2
        r8 += 3
        r8 ^= r7
        {call}
        r7 += 1
        if r7 < {inner} goto inner
        r6 += 1
        if r6 < {outer} goto outer
        r1 = value(map[0]) + 0 ll
        *(u64 *)(r1 + 0) = r8
        r0 = 2
        exit
        add:
        r2 = value(map[0]) + 0 ll
        *(u64 *)(r2 + 0) = r1
        r0 = 0
        exit"
    );
    let text = match calls {
        true => text,
        false => text[..text.find("add:").expect("a function")].to_owned(),
    };
    object(vec![def("counted", MapKind::Array, 4, 8, 1)], &[&text])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn engines_end_runs_at_the_same_place(
        outer in 1..5u32,
        inner in 1..6u32,
        branch in 0..6u32,
        calls: bool,
        fuel in 0..300u64,
    ) {
        let object = program(outer, inner, branch, calls);
        let plain = both(&object, None);
        prop_assert!(!plain.0.out_of_fuel);
        both(&object, Some(fuel));
        let ample = both(&object, Some(1 << 40));
        prop_assert_eq!(ample, plain);
    }
}
