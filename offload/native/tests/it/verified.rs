//! The way users go: verify, compile, run.

use dash_bpf::builder::Builder;
use dash_bpf::op::{AluOp, Cond};
use dash_bpf::program::TailCalls;
use dash_bpf::{MapKind, Object, Reg, Size, helper};
use dash_native::{Isa, Machine, NativeError, Options, compile, compile_with_listing};
use dash_verify::{Verified, Verifier};

use crate::world::{World, map, object, xdp};

fn verified(object: &Object) -> Verified<Object> {
    let mut verifier = Verifier::new(dash_verify::Options::default());
    verifier.verify(object).expect("is safe")
}

/// Parses Ethernet, counts IPv4 packets in an array, tail calls the next stage with the rest.
fn parser(b: &mut Builder) {
    let (drop, other) = (b.label(), b.label());
    b.mov(Reg::R6, Reg::R1);
    b.load(Size::W, Reg::R7, Reg::R1, 0);
    b.load(Size::W, Reg::R8, Reg::R1, 4);
    b.mov(Reg::R2, Reg::R7);
    b.alu(AluOp::Add, Reg::R2, 14);
    b.jump_if(Cond::Gt, Reg::R2, Reg::R8, drop);
    b.load(Size::H, Reg::R3, Reg::R7, 12);
    b.jump_if(Cond::Ne, Reg::R3, 8, other);
    b.store(Size::W, Reg::R10, -4, 1);
    b.load_map(Reg::R1, 0);
    b.mov(Reg::R2, Reg::R10);
    b.alu(AluOp::Add, Reg::R2, -4);
    b.call(helper::MAP_LOOKUP_ELEM);
    b.jump_if(Cond::Eq, Reg::R0, 0, drop);
    b.load(Size::Dw, Reg::R1, Reg::R0, 0);
    b.alu(AluOp::Add, Reg::R1, 1);
    b.store(Size::Dw, Reg::R0, 0, Reg::R1);
    b.mov(Reg::R0, 2);
    b.exit();
    b.bind(other);
    b.mov(Reg::R1, Reg::R6);
    b.load_map(Reg::R2, 1);
    b.mov(Reg::R3, 0);
    b.call(helper::TAIL_CALL);
    b.bind(drop);
    b.mov(Reg::R0, 1);
    b.exit();
}

fn two_stages() -> Object {
    let next = xdp("next", |b| {
        b.mov(Reg::R0, 3);
        b.exit();
    });
    Object {
        maps: vec![
            map("count", MapKind::PercpuArray, 8, 4),
            map("jmp", MapKind::ProgArray, 4, 4),
        ],
        programs: vec![xdp("main", parser), next],
        tail_calls: vec![TailCalls {
            map: 1,
            programs: vec![Some(1)],
        }],
    }
}

#[test]
fn a_verified_object_compiles_for_every_machine_and_runs() {
    let object = verified(&two_stages());
    for (isa, machine) in [
        (Isa::X86_64, Machine::X86_64),
        (Isa::Aarch64, Machine::Aarch64),
    ] {
        let code = compile(&object, &Options::for_isa(isa)).expect("compiles");
        assert_eq!((code.machine, code.entry_offset), (machine, 0));
        let (again, listing) =
            compile_with_listing(&object, &Options::for_isa(isa)).expect("compiles");
        assert_eq!(
            again, code,
            "a listing changes nothing, and code is reproducible"
        );
        assert!(listing.clif.contains("brif"), "{}", listing.clif);
    }
    for (bytes, verdict, count) in [([8, 0], 2, 1), ([0x86, 0xdd], 3, 0)] {
        let mut world = World::new(60);
        world.arrays = vec![vec![0; 4], vec![]];
        let at = world.packet.start + 12;
        world.frame[at..at + 2].copy_from_slice(&bytes);
        assert_eq!(world.run(&object).verdict, verdict);
        assert_eq!(world.arrays[0], [0, count, 0, 0]);
    }
    let mut short = World::new(13);
    short.arrays = vec![vec![0; 4], vec![]];
    assert_eq!(short.run(&object).verdict, 1);
}

#[test]
fn errors_say_where() {
    // Safe, so the verifier takes it; but which program runs is only known at run time.
    let main = object(vec![map("jmp", MapKind::ProgArray, 4, 4)], |b| {
        b.load(Size::W, Reg::R3, Reg::R1, 12);
        b.load_map(Reg::R2, 0);
        b.call(helper::TAIL_CALL);
        b.mov(Reg::R0, 0);
        b.exit();
    });
    let error = compile(&verified(&main), &Options::default()).expect_err("must be refused");
    let NativeError::At { site, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((site.program.as_str(), site.pc), ("main", 3));
}
