//! Map references, inlined array look-ups and map operations.

use dash_bpf::builder::Builder;
use dash_bpf::op::{AluOp, Cond};
use dash_bpf::{MapDef, MapKind, Object, Reg, Size, helper};

use crate::world::{Called, World, map, object};

/// Element `i` of the array holds `1000 + i` in its first word.
fn array_world(words_per_element: usize, elements: usize) -> World {
    let words = (0..elements).flat_map(|i| {
        let mut element = vec![0; words_per_element];
        element[0] = 1000 + i as u64;
        element
    });
    World {
        arrays: vec![words.collect()],
        ifindex: [0; 3],
        ..World::new(60)
    }
}

/// Looks up the key `put_key` leaves at r10-4 and returns the element's first 4 bytes, 5 for null.
fn array_program(
    kind: MapKind,
    value_size: u32,
    elements: u32,
    fused: bool,
    put_key: fn(&mut Builder),
) -> Object {
    object(vec![map("array", kind, value_size, elements)], |b| {
        let null = b.label();
        put_key(b);
        b.load_map(Reg::R1, 0);
        b.mov(Reg::R2, Reg::R10);
        b.alu(AluOp::Add, Reg::R2, -4);
        b.call(helper::MAP_LOOKUP_ELEM);
        if !fused {
            b.mov(Reg::R7, 5);
        }
        b.jump_if(Cond::Eq, Reg::R0, 0, null);
        b.load(Size::W, Reg::R0, Reg::R0, 0);
        b.exit();
        b.bind(null);
        b.mov(Reg::R0, 5);
        b.exit();
    })
}

/// Key from the context: not a constant.
fn key_from_ifindex(b: &mut Builder) {
    b.load(Size::W, Reg::R3, Reg::R1, 12);
    b.store(Size::W, Reg::R10, -4, Reg::R3);
}

#[test]
fn array_lookups_find_each_element_and_nothing_else() {
    for kind in [MapKind::Array, MapKind::PercpuArray] {
        // A stride that is a power of two, and one that is rounded up to 24.
        for (value_size, words) in [(8, 1), (20, 3), (64, 8)] {
            for fused in [true, false] {
                let program = array_program(kind, value_size, 5, fused, key_from_ifindex);
                for key in [0, 1, 4, 5, 6, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
                    let mut world = array_world(words, 5);
                    world.ifindex[0] = key;
                    let expected = if key < 5 { 1000 + key } else { 5 };
                    assert_eq!(world.run(&program).verdict, expected, "key {key}");
                }
            }
        }
    }
}

#[test]
fn constant_keys_are_folded() {
    let zero = array_program(MapKind::Array, 16, 3, true, |b| {
        b.store(Size::W, Reg::R10, -4, 0)
    });
    assert_eq!(array_world(2, 3).run(&zero).verdict, 1000);
    // Read out of the middle of a wider constant.
    let two = array_program(MapKind::Array, 16, 3, true, |b| {
        b.load_imm64(Reg::R3, 0x2_0000_0001);
        b.store(Size::Dw, Reg::R10, -8, Reg::R3);
    });
    assert_eq!(array_world(2, 3).run(&two).verdict, 1002);
    let outside = array_program(MapKind::Array, 16, 3, true, |b| {
        b.store(Size::W, Reg::R10, -4, 3)
    });
    assert_eq!(array_world(2, 3).run(&outside).verdict, 5);
}

#[test]
fn a_key_that_differs_by_path_is_not_taken_for_a_constant() {
    let program = array_program(MapKind::Array, 8, 3, true, |b| {
        let past = b.label();
        b.store(Size::W, Reg::R10, -4, 0);
        b.load(Size::W, Reg::R3, Reg::R1, 12);
        b.jump_if(Cond::Eq, Reg::R3, 0, past);
        b.store(Size::W, Reg::R10, -4, 2);
        b.bind(past);
    });
    for (path, expected) in [(0, 1000), (1, 1002)] {
        let mut world = array_world(1, 3);
        world.ifindex[0] = path;
        assert_eq!(world.run(&program).verdict, expected);
    }
}

#[test]
fn keys_may_be_in_packets() {
    let program = object(vec![map("array", MapKind::Array, 8, 8)], |b| {
        let null = b.label();
        b.load(Size::W, Reg::R2, Reg::R1, 0);
        b.store(Size::W, Reg::R2, 0, 6);
        b.load_map(Reg::R1, 0);
        b.call(helper::MAP_LOOKUP_ELEM);
        b.jump_if(Cond::Ne, Reg::R0, 0, null);
        b.exit();
        b.bind(null);
        b.load(Size::W, Reg::R0, Reg::R0, 0);
        b.exit();
    });
    assert_eq!(array_world(1, 8).run(&program).verdict, 1006);
}

#[test]
fn a_counter_in_an_array_is_incremented_in_place() {
    let program = object(vec![map("count", MapKind::PercpuArray, 8, 4)], |b| {
        let null = b.label();
        b.store(Size::W, Reg::R10, -4, 3);
        b.load_map(Reg::R1, 0);
        b.mov(Reg::R2, Reg::R10);
        b.alu(AluOp::Add, Reg::R2, -4);
        b.call(helper::MAP_LOOKUP_ELEM);
        b.jump_if(Cond::Eq, Reg::R0, 0, null);
        b.mov(Reg::R1, 5);
        b.atomic(
            Size::Dw,
            dash_bpf::op::AtomicOp::Add,
            false,
            Reg::R0,
            0,
            Reg::R1,
        );
        b.bind(null);
        b.mov(Reg::R0, 2);
        b.exit();
    });
    let mut world = array_world(1, 4);
    assert_eq!(world.run(&program).verdict, 2);
    assert_eq!(world.arrays[0], [1000, 1001, 1002, 1008]);
}

#[test]
fn the_address_of_an_array_value_is_base_plus_offset() {
    let program = object(vec![map("data", MapKind::Array, 32, 1)], |b| {
        b.load_map_value(Reg::R6, 0, 16);
        b.load(Size::W, Reg::R0, Reg::R6, 0);
        b.exit();
    });
    let mut world = World::new(60);
    world.arrays = vec![vec![1, 2, 3, 4]];
    assert_eq!(world.run(&program).verdict, 3);
}

fn two_maps(kind: MapKind) -> Vec<MapDef> {
    vec![
        map("array", MapKind::Array, 8, 1),
        map("other", kind, 8, 16),
    ]
}

#[test]
fn operations_on_known_maps_go_to_the_map_itself() {
    let program = object(two_maps(MapKind::Hash), |b| {
        // Key 0x11 at -8 in two parts, value 0x22 at -16.
        b.store(Size::W, Reg::R10, -8, 0x11);
        b.store(Size::W, Reg::R10, -4, 0);
        b.store(Size::Dw, Reg::R10, -16, 0x22);
        let arguments = |b: &mut Builder| {
            b.load_map(Reg::R1, 1);
            b.mov(Reg::R2, Reg::R10);
            b.alu(AluOp::Add, Reg::R2, -8);
            b.mov(Reg::R3, Reg::R10);
            b.alu(AluOp::Add, Reg::R3, -16);
            b.mov(Reg::R4, 2);
        };
        arguments(b);
        b.call(helper::MAP_UPDATE_ELEM);
        b.mov(Reg::R6, Reg::R0);
        arguments(b);
        b.call(helper::MAP_LOOKUP_ELEM);
        b.load(Size::Dw, Reg::R7, Reg::R0, 0);
        arguments(b);
        b.call(helper::MAP_DELETE_ELEM);
        b.alu(AluOp::Add, Reg::R0, Reg::R6);
        b.alu(AluOp::Add, Reg::R0, Reg::R7);
        b.exit();
    });
    let outcome = World::new(60).run(&program);
    assert_eq!(outcome.verdict, 101 - 17 - 2);
    let expected = [
        Called::Map("update", 1, vec![0x11, 0x22, 2]),
        Called::Map("lookup", 1, vec![0x11]),
        Called::Map("delete", 1, vec![0x11]),
    ];
    assert_eq!(outcome.calls, expected);
}

#[test]
fn what_a_queue_writes_to_the_stack_is_read_back() {
    let program = object(two_maps(MapKind::Queue), |b| {
        b.store(Size::Dw, Reg::R10, -8, 0x33);
        let arguments = |b: &mut Builder| {
            b.load_map(Reg::R1, 1);
            b.mov(Reg::R2, Reg::R10);
            b.alu(AluOp::Add, Reg::R2, -8);
            b.mov(Reg::R3, 0);
        };
        arguments(b);
        b.call(helper::MAP_PUSH_ELEM);
        arguments(b);
        b.call(helper::MAP_POP_ELEM);
        b.load(Size::W, Reg::R6, Reg::R10, -8);
        arguments(b);
        b.call(helper::MAP_PEEK_ELEM);
        b.load(Size::Dw, Reg::R0, Reg::R10, -8);
        b.alu(AluOp::Add, Reg::R0, Reg::R6);
        b.exit();
    });
    let outcome = World::new(60).run(&program);
    assert_eq!(outcome.verdict, 0x5566_7788 + 0x99);
    let expected = [
        Called::Map("push", 1, vec![0x33, 0]),
        Called::Map("pop", 1, vec![]),
        Called::Map("peek", 1, vec![]),
    ];
    assert_eq!(outcome.calls, expected);
}

#[test]
fn a_map_chosen_by_path_goes_through_the_helper_table() {
    let maps = vec![map("a", MapKind::Hash, 8, 1), map("b", MapKind::Hash, 8, 1)];
    let program = object(maps, |b| {
        let past = b.label();
        b.load(Size::W, Reg::R3, Reg::R1, 12);
        b.load_map(Reg::R1, 0);
        b.jump_if(Cond::Eq, Reg::R3, 0, past);
        b.load_map(Reg::R1, 1);
        b.bind(past);
        b.store(Size::Dw, Reg::R10, -8, 0);
        b.mov(Reg::R2, Reg::R10);
        b.alu(AluOp::Add, Reg::R2, -8);
        b.call(helper::MAP_DELETE_ELEM);
        b.mov(Reg::R0, 2);
        b.exit();
    });
    let options = dash_native::Options::default();
    let (_, listing) =
        dash_native::unverified::list_unverified(&program, &options).expect("compiles");
    let helper_slot = format!("+{}", 8 * helper::MAP_DELETE_ELEM);
    assert!(listing.clif.contains(&helper_slot), "{}", listing.clif);
}
