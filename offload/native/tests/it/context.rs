//! Context loads, and following the context through registers and stack.

use dash_bpf::builder::Builder;
use dash_bpf::op::{AluOp, Cond};
use dash_bpf::{Reg, Size};

use crate::world::{World, object, refused};

fn world() -> World {
    World {
        ifindex: [7, 11, 13],
        ..World::new(60)
    }
}

#[test]
fn numbers_of_the_context_are_loaded_whole_and_in_part() {
    for (offset, expected) in [(12, 7), (16, 11), (20, 13)] {
        let whole = object(vec![], |b| {
            b.load(Size::W, Reg::R0, Reg::R1, offset);
            b.exit();
        });
        assert_eq!(world().run(&whole).verdict, expected);
        let byte = object(vec![], |b| {
            b.load(Size::B, Reg::R0, Reg::R1, offset + 1);
            b.exit();
        });
        assert_eq!(world().run(&byte).verdict, 0);
    }
}

#[test]
fn packet_pointers_are_whole_pointers() {
    let length_and_bytes = object(vec![], |b| {
        b.load(Size::W, Reg::R2, Reg::R1, 0);
        b.load(Size::W, Reg::R3, Reg::R1, 4);
        b.load(Size::W, Reg::R4, Reg::R1, 8);
        // 60 << 16 | packet[5] << 8 | (data - data_meta)
        b.mov(Reg::R0, Reg::R3);
        b.alu(AluOp::Sub, Reg::R0, Reg::R2);
        b.alu(AluOp::Lsh, Reg::R0, 8);
        b.load(Size::B, Reg::R5, Reg::R2, 5);
        b.alu(AluOp::Or, Reg::R0, Reg::R5);
        b.alu(AluOp::Lsh, Reg::R0, 8);
        b.alu(AluOp::Sub, Reg::R2, Reg::R4);
        b.alu(AluOp::Or, Reg::R0, Reg::R2);
        b.exit();
    });
    assert_eq!(world().run(&length_and_bytes).verdict, 60 << 16 | 5 << 8);
}

#[test]
fn the_context_is_followed_through_copies_spills_calls_and_offsets() {
    let followed = object(vec![], |b| {
        let function = b.label();
        b.store(Size::Dw, Reg::R10, -8, Reg::R1);
        b.mov(Reg::R1, 0);
        b.call(200);
        b.load(Size::Dw, Reg::R6, Reg::R10, -8);
        b.alu(AluOp::Add, Reg::R6, 4);
        b.mov(Reg::R1, Reg::R6);
        b.call_local(function);
        b.exit();
        b.bind(function);
        b.load(Size::W, Reg::R0, Reg::R1, 12);
        b.exit();
    });
    assert_eq!(world().run(&followed).verdict, 11);
}

#[test]
fn a_register_that_is_the_context_on_one_path_only_cannot_be_dereferenced() {
    let mixed = object(vec![], |b| {
        let past = b.label();
        b.load(Size::W, Reg::R2, Reg::R1, 0);
        b.load(Size::W, Reg::R3, Reg::R1, 12);
        b.jump_if(Cond::Eq, Reg::R3, 0, past);
        b.mov(Reg::R2, Reg::R1);
        b.bind(past);
        b.load(Size::W, Reg::R0, Reg::R2, 0);
        b.exit();
    });
    assert!(refused(&mixed).contains("may or may not be the context"));
}

#[test]
fn the_context_spilled_on_one_path_only_cannot_be_dereferenced() {
    let mixed = object(vec![], |b| {
        let (other, join) = (b.label(), b.label());
        b.load(Size::W, Reg::R2, Reg::R1, 0);
        b.load(Size::W, Reg::R3, Reg::R1, 12);
        b.jump_if(Cond::Eq, Reg::R3, 0, other);
        b.store(Size::Dw, Reg::R10, -8, Reg::R1);
        b.jump(join);
        b.bind(other);
        b.store(Size::Dw, Reg::R10, -8, Reg::R2);
        b.bind(join);
        b.load(Size::Dw, Reg::R4, Reg::R10, -8);
        b.load(Size::W, Reg::R0, Reg::R4, 0);
        b.exit();
    });
    assert!(refused(&mixed).contains("may or may not be the context"));
}

#[test]
fn odd_loads_and_all_stores_of_the_context_are_refused() {
    let load = |size, offset| {
        object(vec![], |b| {
            b.load(size, Reg::R0, Reg::R1, offset);
            b.exit();
        })
    };
    for (size, offset) in [
        (Size::H, 0),
        (Size::W, 2),
        (Size::Dw, 0),
        (Size::Dw, 12),
        (Size::H, 15),
        (Size::W, 24),
        (Size::W, -4),
    ] {
        assert!(refused(&load(size, offset)).contains("context access"));
    }
    let store = object(vec![], |b| {
        b.store(Size::W, Reg::R1, 12, 1);
        b.mov(Reg::R0, 0);
        b.exit();
    });
    assert!(refused(&store).contains("context access"));
}

#[test]
fn the_context_on_one_path_and_narrower_numbers_on_the_other_cannot_be_dereferenced() {
    let spill = |b: &mut Builder, context: bool| {
        if context {
            b.store(Size::Dw, Reg::R10, -8, Reg::R1);
        } else {
            b.store(Size::W, Reg::R10, -8, 1);
            b.store(Size::W, Reg::R10, -4, 1);
        }
    };
    for context_first in [true, false] {
        let mixed = object(vec![], |b| {
            let (second, join) = (b.label(), b.label());
            b.load(Size::W, Reg::R3, Reg::R1, 12);
            b.jump_if(Cond::Eq, Reg::R3, 0, second);
            spill(b, context_first);
            b.jump(join);
            b.bind(second);
            spill(b, !context_first);
            b.bind(join);
            b.load(Size::Dw, Reg::R4, Reg::R10, -8);
            b.load(Size::W, Reg::R0, Reg::R4, 0);
            b.exit();
        });
        assert!(refused(&mixed).contains("may or may not be the context"));
    }
}
