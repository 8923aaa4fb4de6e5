//! Bare programs on every engine that this machine can run.

use dash_bpf::{Program, ProgramKind, assemble};
use dash_conformance::engine::{available, emulator};
use dash_conformance::{Case, Engine, RunError, cases, run};
use dash_native::{Isa, Options};

/// The interpreter and native code of all instruction sets; ours also with the stack in memory.
fn engines() -> Vec<Engine> {
    let mut engines = vec![Engine::Interp];
    for isa in [Isa::Host, Isa::X86_64, Isa::Aarch64, Isa::Riscv64] {
        if !available(isa) {
            let emulator = emulator(isa).unwrap_or_default();
            eprintln!("SKIP: {isa:?} needs {emulator}");
            continue;
        }
        engines.push(Engine::Native(Options::for_isa(isa)));
    }
    engines.push(Engine::Native(Options {
        promote_stack: false,
        ..Options::default()
    }));
    engines
}

#[track_caller]
fn program(text: &str) -> Program {
    Program {
        name: "main".to_owned(),
        kind: ProgramKind::Raw,
        insns: assemble(text).unwrap_or_else(|e| panic!("{e}\n{text}")),
        ..Program::default()
    }
}

/// What differs from the expected results.
fn failures(engine: Engine, cases: &[Case]) -> Vec<String> {
    let wrong = |case: &Case| {
        let got = run(engine, &case.program, &case.memory).map(|outcome| outcome.r0);
        let what = match got {
            Ok(r0) if r0 == case.result => return None,
            Ok(r0) => format!("{r0:#x}"),
            Err(error) => error.to_string(),
        };
        let (name, result) = (&case.name, case.result);
        Some(format!(
            "{engine:?}: {name}: expected {result:#x}, got {what}"
        ))
    };
    cases.iter().filter_map(wrong).collect()
}

/// `DASHWIRE_CONFORMANCE` names a JSON array of `{name, program, memory, result}`, all hex.
#[test]
fn public_suite_returns_what_it_says() {
    let Ok(path) = std::env::var("DASHWIRE_CONFORMANCE") else {
        eprintln!("SKIP: DASHWIRE_CONFORMANCE names no file of conformance programs");
        return;
    };
    let text = std::fs::read_to_string(&path).expect("file of conformance programs");
    let cases = cases(&text).expect("conformance programs");
    assert!(!cases.is_empty(), "{path} has no program");
    let mut all = Vec::new();
    for engine in engines() {
        let failures = failures(engine, &cases);
        let passed = cases.len() - failures.len();
        eprintln!("{passed} of {} pass: {engine:?}", cases.len());
        all.extend(failures);
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn memory_and_result_are_what_the_program_left() {
    let text = "r0 = *(u32 *)(r1 + 4)\n*(u16 *)(r1 + 0) = r0\nr0 += r2\nexit";
    let memory = [9, 9, 9, 9, 0x78, 0x56, 0x34, 0x12, 1];
    for engine in engines() {
        let outcome = run(engine, &program(text), &memory).expect("runs");
        assert_eq!(outcome.r0, 0x1234_5678 + 9, "{engine:?}");
        assert_eq!(
            outcome.memory,
            [0x78, 0x56, 9, 9, 0x78, 0x56, 0x34, 0x12, 1]
        );
    }
}

/// Helper 5 by number and by register, with values that live across the call.
#[test]
fn helper_5_returns_its_argument_and_others_end_the_run() {
    let text = "r6 = 7\nr1 = 5\ncall 5\nr6 += r0\nr2 = 5\nr1 = 100\ncallx r2\nr0 += r6\nexit";
    for engine in engines() {
        let outcome = run(engine, &program(text), &[]).expect("runs");
        assert_eq!(outcome.r0, 112, "{engine:?}");
        let refused = run(engine, &program("r1 = 0\ncall 6\nexit"), &[]);
        assert!(
            matches!(refused, Err(RunError::Helper | RunError::Trap(_))),
            "{engine:?}: {refused:?}"
        );
    }
}

/// What the program does wrong is known to the interpreter and kills only the process of the others.
#[test]
fn a_wild_access_ends_the_run_with_an_error() {
    let wild = program("r1 = 4096\nr0 = *(u64 *)(r1 + 0)\nexit");
    for engine in engines() {
        let refused = run(engine, &wild, &[]);
        assert!(
            matches!(refused, Err(RunError::Died(_) | RunError::Trap(_))),
            "{engine:?}: {refused:?}"
        );
    }
}

/// Memory of more bytes than a pipe holds comes back whole.
#[test]
fn much_memory_comes_back() {
    let memory: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    let outcome = run(
        Engine::Native(Options::default()),
        &program("r0 = r2\nexit"),
        &memory,
    )
    .expect("runs");
    assert_eq!((outcome.r0, outcome.memory), (200_000, memory));
}
