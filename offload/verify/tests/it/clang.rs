//! What clang makes of C programs is accepted, and refused when a check is left out.

use std::path::Path;
use std::process::Command;

use dash_bpf::elf;
use dash_verify::{Fault, Judge, Limits, Reason, Verifier, examine};

use crate::support::by;

/// The object of a program of `tests/c`, or `None` where there is no clang for eBPF.
fn compile(name: &str, options: &[&str]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let object = folder.path().join("out.o");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/c/{name}.c"));
    let output = Command::new("clang")
        .args(["-target", "bpf", "-g", "-c"])
        .args(options)
        .arg("-o")
        .arg(&object)
        .arg(source)
        .output();
    match output {
        Err(e) => {
            eprintln!("SKIP: no clang: {e}");
            None
        }
        Ok(output) if !output.status.success() => {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains("target"), "{name}: {text}");
            eprintln!("SKIP: clang does not compile for eBPF: {text}");
            None
        }
        Ok(_) => Some(std::fs::read(object).expect("the object")),
    }
}

#[test]
fn objects_of_clang_are_accepted_and_their_faulty_twins_refused() {
    type Wrong = fn(&Fault) -> bool;
    let programs: [(&str, Wrong); 4] = [
        ("parse", |f| matches!(f, Fault::PacketEnd { .. })),
        ("count", |f| matches!(f, Fault::MaybeNull(_))),
        ("checksum", |f| {
            matches!(
                f,
                Fault::OutsideFrame { .. } | Fault::UninitialisedStack { .. }
            )
        }),
        ("encap", |f| matches!(f, Fault::Invalid(_))),
    ];
    for (name, wrong) in programs {
        for optimise in ["-O1", "-O2"] {
            for cpu in ["-mcpu=v1", "-mcpu=v3"] {
                let Some(bytes) = compile(name, &[optimise, cpu]) else {
                    return;
                };
                let object = elf::read(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
                let verified = Verifier::new(by(Judge::Own)).verify(&object);
                let text = || dash_bpf::disassemble(&object.programs[0].insns).expect("decoded");
                verified.unwrap_or_else(|e| panic!("{name} {optimise} {cpu}: {e}\n{}", text()));
                let bad = compile(name, &[optimise, cpu, "-DBAD"]).expect("as above");
                let object = elf::read(&bad).unwrap_or_else(|e| panic!("{name}: {e}"));
                match examine(&object.programs[0], &object.maps, &Limits::default(), None) {
                    Err(Reason::Own(e)) => assert!(wrong(&e.fault), "{name} {optimise}: {e}"),
                    other => panic!("{name} {optimise} {cpu} without its check: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_refusal_names_the_line_of_the_source() {
    let Some(bytes) = compile("count", &["-O2", "-DBAD"]) else {
        return;
    };
    let object = elf::read(&bytes).expect("an object");
    for judge in [Judge::Own, Judge::Prevail] {
        let refused = Verifier::new(by(judge)).verify(&object);
        let text = refused.expect_err("no null check").to_string();
        assert!(
            text.contains("count.c:") && text.contains("`c->packets++;`"),
            "{text}"
        );
    }
}
