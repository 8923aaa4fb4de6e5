//! Random programs over registers, stack and memory: the interpreter and compiled code, with the
//! stack in registers and in memory, must agree on the result and on every byte of memory.

use std::hash::{BuildHasher, RandomState};

use dash_bpf::builder::{Builder, Label};
use dash_bpf::op::{AluOp, AtomicOp, Cond, Endian};
use dash_bpf::{Op, Operand, Program, ProgramKind, Reg, Size, Width};
use dash_conformance::engine::{available, emulator};
use dash_conformance::{Engine, Outcome, run};
use dash_native::unverified::compile_raw;
use dash_native::{Isa, Options};
use dash_wire::abi::HelperFn;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::loader::Loaded;

/// Bytes of memory programs work on.
const MEMORY: usize = 32;
/// Stack bytes programs work on, below r10.
const STACK: i16 = 64;
/// Where the pointer in r6 is spilled.
const SPILL: i16 = -72;

/// Registers that hold numbers; r6 points into a stack frame, r7 counts rounds of a loop, r8 is
/// scratch, r9 points to memory.
const DATA: [Reg; 6] = [Reg::R0, Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5];

#[derive(Clone, Debug)]
enum Action {
    Alu(Width, AluOp, Reg, Operand),
    Neg(Width, Reg),
    Endian(Endian, u8, Reg),
    Const(Reg, u64),
    /// The lower half of the second and its upper half, added: both halves are needed.
    Fold(u8, Reg, Reg),
    StackStore(Size, i16, Operand),
    StackLoad(Size, bool, i16, Reg),
    /// r6 = r10 + offset.
    Point(i16),
    /// r6 moves to a place only known at run time.
    PointSomewhere(Reg),
    PointerStore(Size, i16, Reg),
    PointerLoad(Size, bool, i16, Reg),
    Spill,
    Fill,
    MemoryStore(Size, i16, Operand),
    MemoryLoad(Size, bool, i16, Reg),
    /// On the stack, or in memory.
    Atomic(bool, Size, AtomicOp, bool, i16, Reg),
    If(Width, Cond, Reg, Operand, Vec<Action>),
    Loop(i32, Vec<Action>),
    /// Of the function with this number, if it comes later than the caller.
    Call(usize),
}

fn reg() -> impl Strategy<Value = Reg> {
    prop::sample::select(&DATA[..])
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::W32), Just(Width::W64)]
}

fn size() -> impl Strategy<Value = Size> {
    prop::sample::select(&[Size::B, Size::H, Size::W, Size::Dw][..])
}

/// Numbers where operations change their behaviour.
fn number() -> impl Strategy<Value = i32> {
    prop_oneof![
        any::<i32>(),
        -2..70i32,
        prop::sample::select(&[i32::MIN, i32::MAX, 0, 1, -1, 31, 32, 63, 64, 0xff, 0xffff][..]),
    ]
}

fn wide() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..3u64,
        prop::sample::select(
            &[
                i64::MIN as u64,
                u64::MAX,
                1 << 31,
                1 << 32,
                0xffff_ffff,
                0x8000_0000_ffff_ffff
            ][..]
        ),
    ]
}

fn operand() -> impl Strategy<Value = Operand> {
    prop_oneof![
        reg().prop_map(Operand::Reg),
        number().prop_map(Operand::Imm)
    ]
}

/// An access of `size` bytes inside `[low, low + len)`.
fn within(low: i16, len: i16) -> impl Strategy<Value = (Size, i16)> {
    size().prop_flat_map(move |s| {
        let last = low + len - s.bytes() as i16;
        // Mostly aligned, so that accesses of several sizes meet in the same bytes.
        prop_oneof![
            3 => (low..=last).prop_map(move |o| (s, o & !(s.bytes() as i16 - 1))),
            1 => (low..=last).prop_map(move |o| (s, o)),
        ]
    })
}

fn alu() -> impl Strategy<Value = Action> {
    use AluOp::*;
    let ops = prop::sample::select(
        &[
            Add, Sub, Mul, Div, Sdiv, Or, And, Lsh, Rsh, Mod, Smod, Xor, Mov, Arsh,
        ][..],
    );
    let moves = prop::sample::select(&[Movsx8, Movsx16, Movsx32][..]);
    prop_oneof![
        6 => (width(), ops, reg(), operand()).prop_map(|(w, o, d, s)| Action::Alu(w, o, d, s)),
        1 => (width(), moves, reg(), reg()).prop_map(|(w, o, d, s)| {
            // There is no 32-bit move that extends 32 bits.
            let w = if o == Movsx32 { Width::W64 } else { w };
            Action::Alu(w, o, d, s.into())
        }),
    ]
}

fn atomic() -> impl Strategy<Value = Action> {
    use AtomicOp::*;
    let op = prop::sample::select(&[Add, Or, And, Xor, Xchg, CmpXchg][..]);
    (
        any::<bool>(),
        any::<bool>(),
        op,
        any::<bool>(),
        0..4i16,
        reg(),
    )
        .prop_map(|(stack, wide, op, fetch, at, src)| {
            let size = if wide { Size::Dw } else { Size::W };
            let off = if stack { at * 8 - STACK } else { at * 8 };
            Action::Atomic(
                stack,
                size,
                op,
                fetch || matches!(op, Xchg | CmpXchg),
                off,
                src,
            )
        })
}

fn leaf() -> impl Strategy<Value = Action> {
    let order = prop::sample::select(&[Endian::Le, Endian::Be, Endian::Swap][..]);
    let bits = prop::sample::select(&[16u8, 32, 64][..]);
    let memory = || within(0, MEMORY as i16);
    let stack = || within(-STACK, STACK);
    prop_oneof![
        8 => alu(),
        1 => (width(), reg()).prop_map(|(w, r)| Action::Neg(w, r)),
        1 => (order, bits, reg()).prop_map(|(o, b, r)| Action::Endian(o, b, r)),
        1 => (reg(), wide()).prop_map(|(r, v)| Action::Const(r, v)),
        2 => (prop::sample::select(&[8u8, 16, 32][..]), reg(), reg())
            .prop_map(|(half, d, s)| Action::Fold(half, d, s)),
        5 => (stack(), operand()).prop_map(|((s, o), v)| Action::StackStore(s, o, v)),
        5 => (stack(), any::<bool>(), reg())
            .prop_map(|((s, o), signed, r)| Action::StackLoad(s, signed, o, r)),
        1 => (-STACK..=-16).prop_map(Action::Point),
        2 => (within(0, 16), reg()).prop_map(|((s, o), r)| Action::PointerStore(s, o, r)),
        2 => (within(0, 16), any::<bool>(), reg())
            .prop_map(|((s, o), signed, r)| Action::PointerLoad(s, signed, o, r)),
        1 => Just(Action::Spill),
        1 => Just(Action::Fill),
        2 => (memory(), operand()).prop_map(|((s, o), v)| Action::MemoryStore(s, o, v)),
        2 => (memory(), any::<bool>(), reg())
            .prop_map(|((s, o), signed, r)| Action::MemoryLoad(s, signed, o, r)),
        1 => atomic(),
    ]
}

fn cond() -> impl Strategy<Value = Cond> {
    use Cond::*;
    prop::sample::select(&[Eq, Ne, Set, Gt, Ge, Lt, Le, Sgt, Sge, Slt, Sle][..])
}

fn block(escapes: bool) -> impl Strategy<Value = Vec<Action>> {
    let somewhere = if escapes { 1 } else { 0 };
    let step = move || {
        prop_oneof![
            20 => leaf(),
            1 => (0..3usize).prop_map(Action::Call),
            somewhere => reg().prop_map(Action::PointSomewhere),
        ]
    };
    let branch = move || {
        (width(), cond(), reg(), operand(), vec(step(), 1..6))
            .prop_map(|(w, c, r, o, body)| Action::If(w, c, r, o, body))
    };
    let inner = move || vec(prop_oneof![5 => step(), 1 => branch()], 1..8);
    let around = (1..4i32, inner()).prop_map(|(n, body)| Action::Loop(n, body));
    vec(prop_oneof![12 => step(), 2 => branch(), 1 => around], 1..25)
}

/// The program's own body and two local functions.
fn bodies() -> impl Strategy<Value = [Vec<Action>; 3]> {
    any::<bool>().prop_flat_map(|escapes| [block(escapes), block(escapes), block(escapes)])
}

struct Emitter {
    b: Builder,
    functions: [Label; 3],
    current: usize,
}

impl Emitter {
    fn actions(&mut self, actions: &[Action]) {
        actions.iter().for_each(|a| self.action(a));
    }

    fn action(&mut self, action: &Action) {
        let b = &mut self.b;
        match action {
            Action::Alu(Width::W64, op, dst, src) => b.alu(*op, *dst, *src),
            Action::Alu(Width::W32, op, dst, src) => b.alu32(*op, *dst, *src),
            &Action::Neg(width, dst) => b.op(Op::Neg { width, dst }),
            &Action::Endian(order, bits, dst) => b.endian(order, bits, dst),
            &Action::Const(dst, value) => b.load_imm64(dst, value),
            &Action::Fold(half, dst, src) => {
                b.mov(dst, src);
                b.alu(AluOp::Rsh, dst, i32::from(half));
                match half {
                    32 => {
                        b.alu(AluOp::Lsh, src, 32);
                        b.alu(AluOp::Rsh, src, 32);
                    }
                    16 => b.alu32(AluOp::And, src, 0xffff),
                    _ => b.alu(AluOp::And, src, 0xff),
                }
                b.alu(AluOp::Add, dst, src);
            }
            &Action::StackStore(size, off, src) => b.store(size, Reg::R10, off, src),
            &Action::StackLoad(size, signed, off, dst) => {
                load(b, size, signed, dst, Reg::R10, off);
            }
            &Action::Point(off) => {
                b.mov(Reg::R6, Reg::R10);
                b.alu(AluOp::Add, Reg::R6, i32::from(off));
            }
            &Action::PointSomewhere(by) => {
                b.mov(Reg::R8, by);
                b.alu(AluOp::And, Reg::R8, 0x1f);
                b.mov(Reg::R6, Reg::R10);
                b.alu(AluOp::Add, Reg::R6, -i32::from(STACK));
                b.alu(AluOp::Add, Reg::R6, Reg::R8);
            }
            &Action::PointerStore(size, off, src) => b.store(size, Reg::R6, off, src),
            &Action::PointerLoad(size, signed, off, dst) => {
                load(b, size, signed, dst, Reg::R6, off);
            }
            Action::Spill => b.store(Size::Dw, Reg::R10, SPILL, Reg::R6),
            Action::Fill => b.load(Size::Dw, Reg::R6, Reg::R10, SPILL),
            &Action::MemoryStore(size, off, src) => b.store(size, Reg::R9, off, src),
            &Action::MemoryLoad(size, signed, off, dst) => {
                load(b, size, signed, dst, Reg::R9, off);
            }
            &Action::Atomic(stack, size, op, fetch, off, src) => {
                let base = if stack { Reg::R10 } else { Reg::R9 };
                b.atomic(size, op, fetch, base, off, src);
            }
            Action::If(width, cond, dst, src, body) => {
                let past = b.label();
                match width {
                    Width::W64 => b.jump_if(*cond, *dst, *src, past),
                    Width::W32 => b.jump_if32(*cond, *dst, *src, past),
                }
                self.actions(body);
                self.b.bind(past);
            }
            Action::Loop(rounds, body) => {
                b.mov(Reg::R7, *rounds);
                let head = b.here();
                self.actions(body);
                self.b.alu(AluOp::Sub, Reg::R7, 1);
                self.b.jump_if(Cond::Ne, Reg::R7, 0, head);
            }
            &Action::Call(function) => {
                if function > self.current {
                    b.call_local(self.functions[function]);
                    for (i, r) in DATA.into_iter().enumerate().skip(1) {
                        b.mov(r, Reg::R0);
                        b.alu(AluOp::Add, r, i as i32);
                    }
                }
            }
        }
    }

    /// Gives every stack word a value.
    fn prologue(&mut self) {
        for word in 0..STACK / 8 {
            let off = -STACK + word * 8;
            self.b
                .store(Size::Dw, Reg::R10, off, i32::from(word) * 0x0123_4567);
        }
        self.b.store(Size::Dw, Reg::R10, SPILL, Reg::R6);
    }

    /// Makes r0 depend on everything and ends.
    fn epilogue(&mut self) {
        for r in DATA {
            self.b.alu(AluOp::Mul, Reg::R0, 31);
            self.b.alu(AluOp::Add, Reg::R0, r);
        }
        for word in 0..STACK / 8 {
            self.b.load(Size::Dw, Reg::R1, Reg::R10, -STACK + word * 8);
            self.b.alu(AluOp::Mul, Reg::R0, 31);
            self.b.alu(AluOp::Add, Reg::R0, Reg::R1);
        }
        self.b.exit();
    }
}

fn load(b: &mut Builder, size: Size, signed: bool, dst: Reg, base: Reg, off: i16) {
    // There is nothing to extend in 8 bytes.
    if signed && size != Size::Dw {
        b.load_signed(size, dst, base, off);
    } else {
        b.load(size, dst, base, off);
    }
}

fn program(bodies: &[Vec<Action>; 3], seeds: &[u64; 6]) -> Program {
    let mut b = Builder::new();
    let functions = [b.label(), b.label(), b.label()];
    let mut e = Emitter {
        b,
        functions,
        current: 0,
    };
    for (current, body) in bodies.iter().enumerate() {
        e.current = current;
        e.b.bind(functions[current]);
        if current == 0 {
            e.b.mov(Reg::R9, Reg::R1);
            e.action(&Action::Point(-STACK));
            e.b.mov(Reg::R7, 1);
            for (r, seed) in DATA.into_iter().zip(seeds) {
                e.b.load_imm64(r, *seed);
            }
        } else {
            e.b.mov(Reg::R0, Reg::R1);
        }
        e.prologue();
        e.actions(body);
        e.epilogue();
    }
    Program {
        name: "random".into(),
        kind: ProgramKind::Raw,
        insns: e.b.finish().expect("labels are bound, jumps are short"),
        ..Program::default()
    }
}

fn interpreted(program: &Program, memory: &[u8]) -> Outcome {
    run(Engine::Interp, program, memory).expect("generated programs are safe")
}

/// Instruction sets of other machines whose code can be run here.
fn foreign() -> impl Iterator<Item = Isa> {
    let all = [Isa::X86_64, Isa::Aarch64, Isa::Riscv64];
    let foreign = all.into_iter().filter(|isa| emulator(*isa).is_some());
    foreign.filter(|isa| {
        let available = available(*isa);
        if !available {
            eprintln!("SKIP: {isa:?} needs {}", emulator(*isa).unwrap_or_default());
        }
        available
    })
}

/// Native code of another instruction set, in a process of its own.
fn elsewhere(program: &Program, memory: &[u8], isa: Isa) -> Outcome {
    let engine = Engine::Native(Options::for_isa(isa));
    run(engine, program, memory).expect("generated programs are safe")
}

fn compiled(program: &Program, memory: &[u8], options: &Options) -> Outcome {
    // 8-byte aligned, as atomics want it.
    let mut words: Vec<u64> = memory
        .chunks(8)
        .map(|c| u64::from_le_bytes(c.try_into().expect("whole words")))
        .collect();
    let code = compile_raw(program, options).expect("compiles");
    let loaded = Loaded::new(&code);
    let helpers: [HelperFn; 0] = [];
    // SAFETY: the bytes of `words`, borrowed mutably only here.
    let bytes = unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), MEMORY) };
    // SAFETY: the interpreter, which checks every access, ran this program on the same memory; it
    // calls no helpers.
    let r0 = unsafe { loaded.raw(bytes, &helpers) };
    let memory = bytes.to_vec();
    Outcome { r0, memory }
}

proptest! {
    #![proptest_config(ProptestConfig {
        // `PROPTEST_CASES` asks for more.
        cases: ProptestConfig::default().cases.max(400),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_programs_do_what_the_interpreter_does(
        bodies in bodies(),
        seeds in prop::array::uniform6(wide()),
        memory in vec(any::<u8>(), MEMORY),
    ) {
        let program = program(&bodies, &seeds);
        let expected = interpreted(&program, &memory);
        for isa in [Isa::Host, Isa::X86_64] {
            if isa == Isa::X86_64 && !cfg!(target_arch = "x86_64") {
                continue;
            }
            for promote_stack in [true, false] {
                let options = Options { isa, promote_stack, ..Options::default() };
                prop_assert_eq!(&compiled(&program, &memory, &options), &expected, "{:?}", options);
            }
        }
    }

    #[test]
    fn every_operation_agrees_with_the_interpreter_on_corner_values(
        action in prop_oneof![alu(), leaf()],
        a in wide(),
        b in wide(),
        memory in vec(any::<u8>(), MEMORY),
    ) {
        let none = || Vec::new();
        let program = program(&[vec![action], none(), none()], &[a, b, a, b, a, b]);
        let expected = interpreted(&program, &memory);
        prop_assert_eq!(compiled(&program, &memory, &Options::default()), expected);
    }
}

/// `DASHWIRE_FOREIGN_SEED`, which a run says when it starts, runs its programs again; `PROPTEST_CASES` asks for
/// more.
#[test]
fn foreign_instruction_sets_agree_with_the_interpreter() {
    let seed = std::env::var("DASHWIRE_FOREIGN_SEED").ok();
    let seed: u64 = match seed.and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed,
        None => RandomState::new().hash_one("seed"),
    };
    eprintln!("DASHWIRE_FOREIGN_SEED={seed}");
    let cases = std::env::var("PROPTEST_CASES").ok();
    let config = ProptestConfig {
        // Each is a process under an emulator.
        cases: cases.and_then(|cases| cases.parse().ok()).unwrap_or(64),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let seeds = prop::array::uniform6(wide());
    let inputs = (bodies(), seeds, vec(any::<u8>(), MEMORY));
    let done = runner.run(&inputs, |(bodies, seeds, memory)| {
        let program = program(&bodies, &seeds);
        let expected = interpreted(&program, &memory);
        for isa in foreign() {
            prop_assert_eq!(
                &elsewhere(&program, &memory, isa),
                &expected,
                "{:?}, DASHWIRE_FOREIGN_SEED={}",
                isa,
                seed
            );
        }
        Ok(())
    });
    if let Err(e) = done {
        panic!("DASHWIRE_FOREIGN_SEED={seed}: {e}");
    }
}

/// What r0 has above does not count: Cranelift compares it on some machines.
#[test]
fn narrow_compare_and_exchange_compares_the_low_half() {
    for (r0, there) in [
        (0xdead_beef_0000_0005, 5),
        (5, 5),
        (0xffff_ffff_8000_0000, 0x8000_0000),
        (7, 5u64),
    ] {
        for on_stack in [false, true] {
            let mut b = Builder::new();
            let (base, off) = if on_stack {
                (Reg::R10, -8)
            } else {
                (Reg::R1, 0)
            };
            b.load_imm64(Reg::R3, there | 0x1111_1111 << 32);
            b.store(Size::Dw, base, off, Reg::R3);
            // From memory: of a number that the compiler knows it would know the low half.
            b.load(Size::Dw, Reg::R0, Reg::R1, 8);
            b.mov(Reg::R2, 9);
            b.atomic(Size::W, AtomicOp::CmpXchg, true, base, off, Reg::R2);
            b.load(Size::Dw, Reg::R4, base, off);
            b.alu(AluOp::Mul, Reg::R4, 31);
            b.alu(AluOp::Add, Reg::R0, Reg::R4);
            b.exit();
            let program = Program {
                name: "cmpxchg".into(),
                kind: ProgramKind::Raw,
                insns: b.finish().expect("straight line"),
                ..Program::default()
            };
            let mut memory = [0; MEMORY];
            memory[8..16].copy_from_slice(&u64::to_le_bytes(r0));
            let expected = interpreted(&program, &memory);
            let here = compiled(&program, &memory, &Options::default());
            assert_eq!(here, expected, "{r0:#x}");
            for isa in foreign() {
                let got = elsewhere(&program, &memory, isa);
                assert_eq!(got, expected, "{isa:?}: {r0:#x}");
            }
        }
    }
}

/// All pairs of interesting numbers through all divisions and shifts, operands in registers and as
/// immediates.
#[test]
fn divisions_and_shifts_agree_on_all_corner_pairs() {
    use AluOp::*;
    let corners = [
        0u64,
        1,
        2,
        31,
        32,
        33,
        63,
        64,
        65,
        i32::MAX as u64,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0xffff_ffff_8000_0000,
        i64::MAX as u64,
        i64::MIN as u64,
        u64::MAX,
    ];
    let memory = [0; MEMORY];
    for op in [Div, Sdiv, Mod, Smod, Lsh, Rsh, Arsh] {
        for width in [Width::W32, Width::W64] {
            // One program for all pairs of an operation: r0 accumulates, r2 = x, r3 = y.
            for &x in &corners {
                let mut b = Builder::new();
                b.mov(Reg::R0, 0);
                let fold = |b: &mut Builder| {
                    b.alu(Mul, Reg::R0, 31);
                    b.alu(Xor, Reg::R0, Reg::R2);
                };
                for &y in &corners {
                    for immediate in [false, true] {
                        b.load_imm64(Reg::R2, x);
                        let src = if immediate {
                            Operand::Imm(y as i32)
                        } else {
                            b.load_imm64(Reg::R3, y);
                            // Through memory, so that the compiler cannot fold it.
                            b.store(Size::Dw, Reg::R1, 0, Reg::R3);
                            b.load(Size::Dw, Reg::R3, Reg::R1, 0);
                            b.store(Size::Dw, Reg::R1, 8, Reg::R2);
                            b.load(Size::Dw, Reg::R2, Reg::R1, 8);
                            Operand::Reg(Reg::R3)
                        };
                        let dst = Reg::R2;
                        b.op(Op::Alu {
                            width,
                            op,
                            dst,
                            src,
                        });
                        fold(&mut b);
                    }
                }
                b.exit();
                let program = Program {
                    name: format!("{op:?}"),
                    kind: ProgramKind::Raw,
                    insns: b.finish().expect("straight line"),
                    ..Program::default()
                };
                let expected = interpreted(&program, &memory);
                let got = compiled(&program, &memory, &Options::default());
                assert_eq!(got, expected, "{op:?} {width:?} {x:#x}");
                for isa in foreign() {
                    let got = elsewhere(&program, &memory, isa);
                    assert_eq!(got, expected, "{isa:?}: {op:?} {width:?} {x:#x}");
                }
            }
        }
    }
}
