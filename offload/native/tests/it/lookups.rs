//! Look-ups that are answered without the map: made ahead by the caller, or remembered.

use std::ptr::null_mut;

use dash_bpf::builder::Builder;
use dash_bpf::op::{AluOp, Cond};
use dash_bpf::{MapKind, Object, Reg, Size, helper};
use dash_native::{Options, Part};
use dash_wire::abi::{MEMO_BITS, MEMO_MULTIPLIER};
use proptest::prelude::*;

use crate::world::{ABSENT, Called, World, map, object, refused_with};

/// Value of the test's map 1, as `World` makes it.
const VALUE: u32 = 101;

fn maps() -> Vec<dash_bpf::MapDef> {
    vec![
        map("array", MapKind::Array, 64, 1),
        map("hash", MapKind::Hash, 8, 16),
        map("second", MapKind::Hash, 8, 16),
    ]
}

/// r7 = element 0 of the array.
fn row(b: &mut Builder) {
    b.store(Size::W, Reg::R10, -4, 0);
    b.load_map(Reg::R1, 0);
    b.mov(Reg::R2, Reg::R10);
    b.alu(AluOp::Add, Reg::R2, -4);
    b.call(helper::MAP_LOOKUP_ELEM);
    let there = b.label();
    b.jump_if(Cond::Ne, Reg::R0, 0, there);
    b.exit();
    b.bind(there);
    b.mov(Reg::R7, Reg::R0);
}

/// r8 = r8 * 1000 + what the look-up of the key at r7 + `off` finds, 7 for null.
fn look(b: &mut Builder, map: u32, off: i32, fused: bool) {
    b.mov(Reg::R2, Reg::R7);
    b.alu(AluOp::Add, Reg::R2, off);
    b.load_map(Reg::R1, map);
    b.call(helper::MAP_LOOKUP_ELEM);
    result(b, fused);
}

fn result(b: &mut Builder, fused: bool) {
    let (null, done) = (b.label(), b.label());
    if !fused {
        b.alu(AluOp::Add, Reg::R8, 0);
    }
    b.jump_if(Cond::Eq, Reg::R0, 0, null);
    b.load(Size::Dw, Reg::R1, Reg::R0, 0);
    b.alu(AluOp::Mul, Reg::R8, 1000);
    b.alu(AluOp::Add, Reg::R8, Reg::R1);
    b.jump(done);
    b.bind(null);
    b.alu(AluOp::Mul, Reg::R8, 1000);
    b.alu(AluOp::Add, Reg::R8, 7);
    b.bind(done);
}

fn program(body: impl FnOnce(&mut Builder)) -> Object {
    object(maps(), |b| {
        b.mov(Reg::R6, Reg::R1);
        b.mov(Reg::R8, 0);
        row(b);
        body(b);
        b.mov(Reg::R0, Reg::R8);
        b.exit();
    })
}

fn world(keys: &[u64]) -> World {
    let mut words = keys.to_vec();
    words.resize(8, 0);
    World {
        arrays: vec![words],
        ..World::new(60)
    }
}

/// A caller that has looked up the key at the array's word `at`.
fn ahead(keys: &[u64], at: usize, value: &mut u64) -> World {
    let mut world = world(keys);
    let key = world.arrays[0].as_mut_ptr().wrapping_add(at).cast_const();
    world.found = (key.cast(), (&raw mut *value).cast());
    world.options = Options {
        part: Part::Path(0, 0),
        found: Some(1),
        ..Options::default()
    };
    world
}

fn asked(keys: &[u64]) -> Vec<Called> {
    keys.iter()
        .map(|&key| Called::Map("lookup", 1, vec![key]))
        .collect()
}

#[test]
fn the_callers_look_up_stands_for_the_programs_first() {
    let mut value = 55;
    let program = program(|b| look(b, 1, 8, true));
    let outcome = ahead(&[1, 2], 1, &mut value).run(&program);
    assert_eq!((outcome.verdict, outcome.calls), (55, Vec::new()));
    // Found to be absent.
    let mut world = ahead(&[1, 2], 1, &mut value);
    world.found.1 = null_mut();
    let outcome = world.run(&program);
    assert_eq!((outcome.verdict, outcome.calls), (7, Vec::new()));
}

#[test]
fn but_not_for_another_key_or_map_or_one_after_a_write() {
    let mut value = 55;
    let cases: [(&str, Object, Vec<Called>); 5] = [
        ("another key", program(|b| look(b, 1, 0, true)), asked(&[1])),
        (
            "another map",
            program(|b| look(b, 2, 8, true)),
            vec![Called::Map("lookup", 2, vec![2])],
        ),
        (
            "a store before",
            program(|b| {
                b.store(Size::W, Reg::R7, 8, 9);
                look(b, 1, 8, true);
            }),
            asked(&[9]),
        ),
        (
            "a store on one way",
            program(|b| {
                let past = b.label();
                b.load(Size::W, Reg::R1, Reg::R6, 12);
                b.jump_if(Cond::Eq, Reg::R1, 77, past);
                b.store(Size::W, Reg::R7, 8, 9);
                b.bind(past);
                look(b, 1, 8, true);
            }),
            asked(&[9]),
        ),
        (
            "a call before",
            program(|b| {
                look(b, 1, 8, false);
                look(b, 1, 8, true);
            }),
            asked(&[2]),
        ),
    ];
    for (what, program, calls) in cases {
        let outcome = ahead(&[1, 2], 1, &mut value).run(&program);
        assert_eq!(outcome.calls, calls, "{what}");
    }
}

#[test]
fn nothing_is_taken_from_a_caller_that_looked_nothing_up() {
    let program = program(|b| look(b, 1, 8, true));
    let mut value = 55;
    let mut none = ahead(&[1, 2], 1, &mut value);
    none.found = (std::ptr::null(), null_mut());
    let mut not_asked_for = ahead(&[1, 2], 1, &mut value);
    not_asked_for.options.found = None;
    let mut whole = ahead(&[1, 2], 1, &mut value);
    whole.options.part = Part::Whole;
    for mut world in [none, not_asked_for, whole] {
        let outcome = world.run(&program);
        assert_eq!((outcome.verdict, outcome.calls), (VALUE, asked(&[2])));
    }
}

fn remembering(keys: &[u64]) -> World {
    let mut world = world(keys);
    world.options.memo = Some(1);
    world
}

fn entry(key: u64) -> usize {
    (key.wrapping_mul(MEMO_MULTIPLIER) >> (64 - MEMO_BITS)) as usize
}

/// The key copied to the stack, in parts, and looked up there.
fn look_on_stack(b: &mut Builder, map: u32, off: i16) {
    b.store(Size::Dw, Reg::R10, -16, 0);
    b.load(Size::W, Reg::R1, Reg::R7, off);
    b.store(Size::W, Reg::R10, -16, Reg::R1);
    b.load(Size::H, Reg::R1, Reg::R7, off + 4);
    b.store(Size::H, Reg::R10, -12, Reg::R1);
    b.load(Size::H, Reg::R1, Reg::R7, off + 6);
    b.store(Size::H, Reg::R10, -10, Reg::R1);
    b.mov(Reg::R2, Reg::R10);
    b.alu(AluOp::Add, Reg::R2, -16);
    b.load_map(Reg::R1, map);
    b.call(helper::MAP_LOOKUP_ELEM);
    result(b, true);
}

#[test]
fn a_map_is_asked_once_for_a_key_that_it_holds() {
    let program = program(|b| {
        look(b, 1, 0, true);
        look(b, 1, 0, false);
        look_on_stack(b, 1, 0);
    });
    for key in [0, 5, 0x0102_0304_0506_0708, u64::MAX] {
        let mut world = remembering(&[key]);
        let outcome = world.run(&program);
        assert_eq!(outcome.verdict, VALUE * 1_001_001);
        assert_eq!(outcome.calls, asked(&[key]));
        assert_eq!(world.memo[entry(key)].key, key);
        let others = (0..).zip(&world.memo).filter(|(at, _)| *at != entry(key));
        assert!(others.into_iter().all(|(_, other)| other.value.is_null()));
    }
}

#[test]
fn absence_is_not_remembered() {
    let program = program(|b| {
        look(b, 1, 0, true);
        look(b, 1, 0, false);
        look_on_stack(b, 1, 0);
    });
    let mut world = remembering(&[ABSENT]);
    let outcome = world.run(&program);
    assert_eq!(
        (outcome.verdict, outcome.calls),
        (7_007_007, asked(&[ABSENT; 3]))
    );
    assert!(world.memo.iter().all(|entry| entry.value.is_null()));
}

#[test]
fn other_maps_are_asked() {
    let program = program(|b| {
        look(b, 2, 0, true);
        look(b, 2, 0, true);
    });
    let calls = vec![Called::Map("lookup", 2, vec![6]); 2];
    assert_eq!(remembering(&[6]).run(&program).calls, calls);
}

#[test]
fn keys_of_another_size_cannot_be_remembered() {
    let mut program = program(|b| look(b, 1, 0, true));
    program.maps[1].key_size = 12;
    let options = Options {
        memo: Some(1),
        ..Options::default()
    };
    let why = refused_with(&program, &options);
    assert!(why.contains("map 1 has no look-ups"), "{why}");
}

proptest! {
    /// Against the plain twin: a list of what each entry holds.
    #[test]
    fn any_keys_are_answered_as_by_the_map(keys in prop::collection::vec(
        prop_oneof![0u64..4, Just(ABSENT), any::<u64>(), (0u64..4).prop_map(|n| n << 57)], 8,
    )) {
        let program = program(|b| {
            for n in 0..8 {
                look_on_stack(b, 1, 8 * n);
                b.alu(AluOp::And, Reg::R8, 0xff);
            }
        });
        let mut held = std::collections::HashMap::new();
        let asks: Vec<u64> = keys.iter().copied().filter(|&key| {
            let ask = held.get(&entry(key)) != Some(&key);
            if key != ABSENT {
                held.insert(entry(key), key);
            }
            ask
        }).collect();
        let outcome = remembering(&keys).run(&program);
        prop_assert_eq!(outcome.calls, asked(&asks));
    }
}
