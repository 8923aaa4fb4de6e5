//! What of the stack is memory, seen in the intermediate code.

use dash_bpf::builder::Builder;
use dash_bpf::op::AluOp;
use dash_bpf::{MapKind, Object, Reg, Size, helper};
use dash_native::unverified::list_unverified;
use dash_native::{Isa, Options};

use crate::world::{World, map, object, refused};

fn clif(object: &Object) -> String {
    let (_, listing) = list_unverified(object, &Options::default()).expect("compiles");
    listing.clif
}

#[test]
fn an_array_key_built_in_parts_never_touches_memory() {
    let program = object(vec![map("array", MapKind::Array, 8, 1 << 16)], |b| {
        let null = b.label();
        b.load(Size::W, Reg::R3, Reg::R1, 12);
        b.store(Size::Dw, Reg::R10, -8, 0);
        b.store(Size::B, Reg::R10, -4, Reg::R3);
        b.alu(AluOp::Rsh, Reg::R3, 8);
        b.store(Size::B, Reg::R10, -3, Reg::R3);
        b.load_map(Reg::R1, 0);
        b.mov(Reg::R2, Reg::R10);
        b.alu(AluOp::Add, Reg::R2, -4);
        b.call(helper::MAP_LOOKUP_ELEM);
        b.jump_if(dash_bpf::op::Cond::Eq, Reg::R0, 0, null);
        b.load(Size::W, Reg::R0, Reg::R0, 0);
        b.bind(null);
        b.exit();
    });
    let clif = clif(&program);
    assert!(!clif.contains("stack_addr"), "{clif}");
    let mut world = World::new(60);
    world.arrays = vec![(0..1 << 16).collect()];
    world.ifindex[0] = 0x1234;
    assert_eq!(world.run(&program).verdict, 0x1234);
}

#[test]
fn only_the_bytes_a_map_reads_are_memory() {
    let program = object(vec![map("hash", MapKind::Hash, 8, 1)], |b| {
        b.store(Size::Dw, Reg::R10, -8, 1);
        b.store(Size::Dw, Reg::R10, -256, 2);
        b.load_map(Reg::R1, 0);
        b.mov(Reg::R2, Reg::R10);
        b.alu(AluOp::Add, Reg::R2, -8);
        b.call(helper::MAP_DELETE_ELEM);
        b.load(Size::Dw, Reg::R0, Reg::R10, -256);
        b.exit();
    });
    assert!(
        clif(&program).contains("explicit_slot 16,"),
        "{}",
        clif(&program)
    );
    assert_eq!(World::new(60).run(&program).verdict, 2);
}

#[test]
fn a_frame_given_to_an_unknown_helper_is_all_memory() {
    let program = object(vec![], |b| {
        b.store(Size::Dw, Reg::R10, -8, 1);
        b.mov(Reg::R1, Reg::R10);
        b.alu(AluOp::Add, Reg::R1, -8);
        b.call(200);
        b.load(Size::Dw, Reg::R0, Reg::R10, -8);
        b.exit();
    });
    assert!(
        clif(&program).contains("explicit_slot 512,"),
        "{}",
        clif(&program)
    );
}

#[test]
fn a_stale_stack_pointer_on_one_path_does_not_cost_the_frame() {
    let program = object(vec![map("array", MapKind::Array, 8, 4)], |b| {
        let past = b.label();
        b.load(Size::W, Reg::R6, Reg::R1, 12);
        b.store(Size::W, Reg::R10, -4, Reg::R6);
        b.mov(Reg::R2, 0);
        b.jump_if(dash_bpf::op::Cond::Eq, Reg::R6, 0, past);
        b.mov(Reg::R2, Reg::R10);
        b.alu(AluOp::Add, Reg::R2, -4);
        b.bind(past);
        b.load(Size::W, Reg::R0, Reg::R10, -4);
        b.exit();
    });
    assert!(!clif(&program).contains("stack_addr"), "{}", clif(&program));
}

#[test]
fn accesses_outside_the_frame_are_refused_also_by_helpers() {
    let access = |write: fn(&mut Builder)| {
        refused(&object(vec![map("hash", MapKind::Hash, 8, 1)], |b| {
            write(b);
            b.mov(Reg::R0, 0);
            b.exit();
        }))
    };
    let key_at = |b: &mut Builder, off: i32| {
        b.load_map(Reg::R1, 0);
        b.mov(Reg::R2, Reg::R10);
        b.alu(AluOp::Add, Reg::R2, off);
        b.call(helper::MAP_DELETE_ELEM);
    };
    assert!(access(|b| b.store(Size::Dw, Reg::R10, -4, 0)).contains("outside the stack frame"));
    assert!(access(|b| b.store(Size::B, Reg::R10, -513, 0)).contains("outside the stack frame"));
    assert!(access(|b| b.store(Size::B, Reg::R10, 0, 0)).contains("outside the stack frame"));
    let refused_key = refused(&object(vec![map("hash", MapKind::Hash, 8, 1)], |b| {
        b.store(Size::Dw, Reg::R10, -8, 0);
        key_at(b, -7);
        b.exit();
    }));
    assert!(
        refused_key.contains("outside the stack frame"),
        "{refused_key}"
    );
}

#[test]
fn recursion_and_deep_calls_are_refused() {
    let recursive = object(vec![], |b| {
        let function = b.here();
        b.call_local(function);
        b.exit();
    });
    assert!(refused(&recursive).contains("recursive"));
    let deep = |frames: usize| {
        object(vec![], |b| {
            for _ in 1..frames {
                let next = b.label();
                b.call_local(next);
                b.exit();
                b.bind(next);
            }
            b.mov(Reg::R0, 3);
            b.exit();
        })
    };
    assert_eq!(World::new(60).run(&deep(8)).verdict, 3);
    assert!(refused(&deep(9)).contains("deeper than 8 frames"));
}

#[test]
fn doubling_calls_end_in_an_error_and_not_in_gigabytes() {
    // 7 levels of functions, each called 64 times by the one above: 64^7 copies.
    let program = object(vec![], |b| {
        let mut next = b.label();
        for level in 0..8 {
            let below = b.label();
            if level < 7 {
                for _ in 0..64 {
                    b.call_local(below);
                }
            }
            b.mov(Reg::R0, 0);
            b.exit();
            next = below;
            if level < 7 {
                b.bind(below);
            }
        }
        b.bind(next);
        b.mov(Reg::R0, 0);
        b.exit();
    });
    assert!(refused(&program).contains("after expanding"));
}

/// What [`Options::mask_indexes`] costs a look-up, in instructions: looked at, so that the policy's price is
/// known.
#[test]
fn a_masked_index_costs_a_conditional_move_a_look_up() {
    let program = object(vec![map("array", MapKind::Array, 8, 100)], |b| {
        let null = b.label();
        b.load(Size::W, Reg::R3, Reg::R1, 12);
        b.store(Size::W, Reg::R10, -4, Reg::R3);
        b.load_map(Reg::R1, 0);
        b.mov(Reg::R2, Reg::R10);
        b.alu(AluOp::Add, Reg::R2, -4);
        b.call(helper::MAP_LOOKUP_ELEM);
        b.jump_if(dash_bpf::op::Cond::Eq, Reg::R0, 0, null);
        b.load(Size::W, Reg::R0, Reg::R0, 0);
        b.bind(null);
        b.exit();
    });
    let asm = |mask_indexes| {
        let options = Options {
            mask_indexes,
            ..Options::for_isa(Isa::X86_64)
        };
        let (_, listing) = list_unverified(&program, &options).expect("compiles");
        listing.asm
    };
    let (plain, masked) = (asm(false), asm(true));
    assert!(!plain.contains("cmov"), "{plain}");
    assert!(masked.contains("cmov"), "{masked}");
    let more = masked.lines().count().saturating_sub(plain.lines().count());
    eprintln!("{more} instructions more: {masked}");
    assert!((1..=4).contains(&more), "{more}: {plain}\n{masked}");
}

#[test]
fn listings_show_both_forms_for_both_machines() {
    let program = object(vec![], |b| {
        b.load(Size::W, Reg::R0, Reg::R1, 12);
        b.exit();
    });
    for (isa, load) in [(Isa::X86_64, "mov"), (Isa::Aarch64, "ldr")] {
        let (code, listing) = list_unverified(&program, &Options::for_isa(isa)).expect("compiles");
        assert!(
            listing.clif.contains("function u0:0(i64)"),
            "{}",
            listing.clif
        );
        assert!(listing.asm.contains(load), "{}", listing.asm);
        assert!(listing.asm.contains("ret"), "{}", listing.asm);
        assert_eq!(code.entry_offset, 0);
        assert!(!code.code.is_empty());
    }
}

/// r6 = r10 + `off`, computed so that the compiler cannot follow it.
fn point_blindly(b: &mut Builder, off: i32) {
    b.load(Size::W, Reg::R6, Reg::R1, 12);
    b.alu(AluOp::And, Reg::R6, 0);
    b.alu(AluOp::Add, Reg::R6, Reg::R10);
    b.alu(AluOp::Add, Reg::R6, off);
}

#[test]
fn stores_through_pointers_not_followed_are_seen_by_direct_loads() {
    let program = object(vec![], |b| {
        point_blindly(b, -8);
        b.store(Size::Dw, Reg::R10, -8, 1);
        b.store(Size::Dw, Reg::R6, 0, 2);
        b.load(Size::Dw, Reg::R0, Reg::R10, -8);
        b.store(Size::Dw, Reg::R10, -8, 40);
        b.load(Size::Dw, Reg::R7, Reg::R6, 0);
        b.alu(AluOp::Add, Reg::R0, Reg::R7);
        b.exit();
    });
    assert_eq!(World::new(60).run(&program).verdict, 42);
}

#[test]
fn stores_through_pointers_not_followed_change_constant_keys() {
    let program = object(vec![map("array", MapKind::Array, 8, 4)], |b| {
        let null = b.label();
        point_blindly(b, -4);
        b.store(Size::W, Reg::R10, -4, 0);
        b.store(Size::W, Reg::R6, 0, 2);
        b.load_map(Reg::R1, 0);
        b.mov(Reg::R2, Reg::R10);
        b.alu(AluOp::Add, Reg::R2, -4);
        b.call(helper::MAP_LOOKUP_ELEM);
        b.jump_if(dash_bpf::op::Cond::Eq, Reg::R0, 0, null);
        b.load(Size::W, Reg::R0, Reg::R0, 0);
        b.bind(null);
        b.exit();
    });
    let mut world = World::new(60);
    world.arrays = vec![vec![1000, 1001, 1002, 1003]];
    assert_eq!(world.run(&program).verdict, 1002);
}
