//! Tail calls become jumps.

use dash_bpf::builder::Builder;
use dash_bpf::op::AluOp;
use dash_bpf::program::TailCalls;
use dash_bpf::{MapKind, Object, Program, Reg, Size, helper};
use dash_native::Part;
use dash_wire::abi::CONTINUE;

use crate::world::{World, map, refused, xdp};

/// A program that tail calls `slot` and, should that fail, returns `otherwise`.
fn calls(name: &str, slot: i32, otherwise: i32) -> Program {
    xdp(name, |b| {
        tail_call(b, slot);
        b.mov(Reg::R0, otherwise);
        b.exit();
    })
}

fn tail_call(b: &mut Builder, slot: i32) {
    b.load_map(Reg::R2, 0);
    b.mov(Reg::R3, slot);
    b.call(helper::TAIL_CALL);
}

/// Slot `i` of the program array holds program `i + 1`, except that `absent` is empty.
fn chained(programs: Vec<Program>, absent: Option<usize>) -> Object {
    let slots = (1..programs.len() as u32).map(|p| (Some(p as usize - 1) != absent).then_some(p));
    Object {
        maps: vec![map("jmp", MapKind::ProgArray, 4, 64)],
        tail_calls: vec![TailCalls {
            map: 0,
            programs: slots.collect(),
        }],
        programs,
    }
}

fn returns_ifindex(name: &str) -> Program {
    xdp(name, |b| {
        b.load(Size::W, Reg::R0, Reg::R1, 12);
        b.alu(AluOp::Add, Reg::R0, 1);
        b.exit();
    })
}

fn run(object: &Object) -> u32 {
    let mut world = World::new(60);
    world.ifindex[0] = 20;
    world.run(object).verdict
}

#[test]
fn a_chain_ends_in_its_last_program_with_the_context_in_r1() {
    let programs = vec![
        calls("first", 0, 100),
        calls("second", 1, 101),
        returns_ifindex("third"),
    ];
    assert_eq!(run(&chained(programs, None)), 21);
}

#[test]
fn an_empty_slot_and_one_outside_the_array_fall_through() {
    let programs = || {
        vec![
            calls("first", 0, 100),
            calls("second", 1, 101),
            returns_ifindex("third"),
        ]
    };
    assert_eq!(run(&chained(programs(), Some(1))), 101);
    assert_eq!(run(&chained(programs(), Some(0))), 100);
    assert_eq!(run(&chained(vec![calls("only", 9, 102)], None)), 102);
}

#[test]
fn programs_do_not_see_each_others_stack_variables() {
    let first = xdp("first", |b| {
        b.store(Size::Dw, Reg::R10, -8, 77);
        tail_call(b, 0);
        b.load(Size::Dw, Reg::R0, Reg::R10, -8);
        b.exit();
    });
    let second = xdp("second", |b| {
        b.store(Size::Dw, Reg::R10, -8, 5);
        b.load(Size::Dw, Reg::R0, Reg::R10, -8);
        b.exit();
    });
    let programs = || vec![first.clone(), second.clone()];
    assert_eq!(run(&chained(programs(), None)), 5);
    assert_eq!(run(&chained(programs(), Some(0))), 77);
}

#[test]
fn cycles_are_refused() {
    let programs = vec![calls("a", 0, 0), calls("b", 1, 0), calls("c", 0, 0)];
    assert!(refused(&chained(programs, None)).contains("cycle through program `b`"));
}

#[test]
fn a_program_reached_twice_is_no_cycle() {
    let fork = xdp("fork", |b| {
        let other = b.label();
        b.load(Size::W, Reg::R4, Reg::R1, 12);
        b.jump_if(dash_bpf::op::Cond::Eq, Reg::R4, 20, other);
        tail_call(b, 1);
        b.bind(other);
        tail_call(b, 0);
        b.mov(Reg::R0, 0);
        b.exit();
    });
    let programs = vec![fork, calls("middle", 1, 0), returns_ifindex("last")];
    assert_eq!(run(&chained(programs, None)), 21);
}

#[test]
fn chains_are_limited_like_linux_limits_them() {
    let chain = |tail_calls: i32| {
        let mut programs: Vec<Program> = (0..tail_calls).map(|i| calls("link", i, 0)).collect();
        programs.push(returns_ifindex("last"));
        chained(programs, None)
    };
    assert_eq!(run(&chain(33)), 21);
    assert!(refused(&chain(34)).contains("chain of 34 tail calls"));
}

#[test]
fn targets_not_known_when_compiling_are_refused() {
    let from_packet = xdp("main", |b| {
        b.load(Size::W, Reg::R3, Reg::R1, 12);
        b.load_map(Reg::R2, 0);
        b.call(helper::TAIL_CALL);
        b.mov(Reg::R0, 0);
        b.exit();
    });
    let object = chained(vec![from_packet, returns_ifindex("last")], None);
    assert!(refused(&object).contains("not known when compiling"));
    let mut open = chained(vec![calls("main", 0, 0)], None);
    open.tail_calls.clear();
    assert!(refused(&open).contains("not known when compiling"));
}

/// Goes to program 2 for packets of port 20, else to program 1, which goes there too.
fn hit_or_miss() -> Object {
    let fork = xdp("fork", |b| {
        let other = b.label();
        b.load(Size::W, Reg::R4, Reg::R1, 12);
        b.jump_if(dash_bpf::op::Cond::Ne, Reg::R4, 20, other);
        tail_call(b, 1);
        b.bind(other);
        tail_call(b, 0);
        b.mov(Reg::R0, 0);
        b.exit();
    });
    let programs = vec![fork, calls("miss", 1, 0), returns_ifindex("last")];
    chained(programs, None)
}

fn run_part(part: Part, port: u32, resume: u32) -> u32 {
    let mut world = World::new(60);
    world.ifindex[0] = port;
    world.resume = resume;
    world.options.part = part;
    world.run(&hit_or_miss()).verdict
}

#[test]
fn a_part_before_a_program_ends_where_that_would_start() {
    assert_eq!(run_part(Part::Before(2), 20, 0), CONTINUE);
    assert_eq!(run_part(Part::Before(2), 30, 0), CONTINUE);
    assert_eq!(run_part(Part::Before(1), 30, 0), CONTINUE);
    assert_eq!(run_part(Part::Before(1), 20, 0), 21);
}

#[test]
fn a_path_names_the_program_it_leaves_for_and_the_rest_goes_on_with_it() {
    assert_eq!(run_part(Part::Path(0, 2), 20, 0), 21);
    assert_eq!(run_part(Part::Path(0, 2), 30, 0), CONTINUE + 1);
    assert_eq!(run_part(Part::Resume(0, 2), 30, 1), 31);
    // Programs that the path never leaves for are no entries, though they may be run.
    for other in [0, 2, 3, u32::MAX] {
        assert_eq!(run_part(Part::Resume(0, 2), 30, other), 0, "{other}");
    }
    assert_eq!(run_part(Part::Path(0, 1), 30, 0), CONTINUE + 2);
    assert_eq!(run_part(Part::Resume(0, 1), 30, 2), 31);
}
