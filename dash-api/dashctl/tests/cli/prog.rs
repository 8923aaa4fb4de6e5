//! `dashctl prog`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use dash_bpf::elf::write;
use dash_bpf::{MapDef, MapKind, Object, Program, ProgramKind, assemble};
use serde_json::Value;
use tempfile::TempDir;

use crate::{dashctl, stderr, stdout, text};

fn program(name: &str, section: Option<&str>, text: &str) -> Program {
    Program {
        name: name.to_owned(),
        kind: ProgramKind::Xdp,
        section: section.map(str::to_owned),
        insns: assemble(text).expect("text"),
        ..Program::default()
    }
}

/// A file with one program that is safe, and one that reads a packet nobody has checked.
fn object() -> (TempDir, PathBuf) {
    let object = Object {
        maps: vec![MapDef {
            name: "counts".to_owned(),
            kind: MapKind::Array,
            key_size: 4,
            value_size: 8,
            max_entries: 2,
            ..MapDef::default()
        }],
        programs: vec![
            program("safe", None, "r1 = map[0] ll\nr0 = 2\nexit"),
            program(
                "unsafe",
                Some("xdp/devmap"),
                "r1 = *(u32 *)(r1 + 0)\nr0 = *(u8 *)(r1 + 0)\nexit",
            ),
        ],
        tail_calls: Vec::new(),
    };
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("test.o");
    fs::write(&path, write(&object).expect("an ELF form")).expect("written");
    (dir, path)
}

#[test]
fn verify_says_by_its_exit_code_what_it_found() {
    let (dir, path) = object();
    let safe = dashctl(&["prog", "verify", text(&path), "--section", "xdp"]);
    assert_eq!(stdout(&safe), "safe (xdp): accepted, 4 instructions\n");

    let both = dashctl(&["prog", "verify", text(&path)]);
    assert_eq!(both.status.code(), Some(1));
    let said = String::from_utf8_lossy(&both.stdout).into_owned();
    assert!(said.contains("safe (xdp): accepted"), "{said}");
    assert!(said.contains("unsafe (xdp/devmap): rejected: "), "{said}");
    assert!(said.contains("    1: r0 = *(u8 *)(r1 + 0)\n"), "{said}");

    for judge in ["own", "prevail", "both"] {
        let all = dashctl(&["prog", "verify", text(&path), "--verifier", judge]);
        assert_eq!(all.status.code(), Some(1), "{judge}");
        let only = ["--program", "safe", "--verifier", judge];
        let safe = dashctl(&[&["prog", "verify", text(&path)][..], &only].concat());
        assert_eq!(safe.status.code(), Some(0), "{judge}");
    }
    let log = stdout(&dashctl(&[
        "prog",
        "verify",
        text(&path),
        "--program",
        "safe",
        "--log",
    ]));
    assert!(log.contains("    2: r0 = 2\n"), "{log}");
    assert!(log.contains("; r1="), "{log}");

    let json = dashctl(&[
        "prog",
        "verify",
        text(&path),
        "--program",
        "unsafe",
        "--json",
    ]);
    assert_eq!(json.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json[0]["accepted"], false);
    assert_eq!(json[0]["instruction"], 1);
    assert_eq!(json.as_array().map(Vec::len), Some(1));

    let broken = dir.path().join("broken.o");
    fs::write(&broken, b"not an object").expect("written");
    for args in [
        vec!["prog", "verify", text(&broken)],
        vec!["prog", "verify", "/nowhere.o"],
        vec!["prog", "verify", text(&path), "--section", "tc"],
        vec!["prog", "verify"],
        vec!["prog", "verify", text(&path), "--btf", text(&broken)],
    ] {
        let output = dashctl(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!stderr(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn show_lists_programs_and_maps() {
    let (_dir, path) = object();
    let said = stdout(&dashctl(&["prog", "show", text(&path)]));
    assert!(
        said.contains("program unsafe (xdp/devmap): 3 instructions\n"),
        "{said}"
    );
    assert!(
        said.contains("map 0 counts: Array, key 4 B, value 8 B, 2 entries, flags 0x0\n"),
        "{said}"
    );
    let json = stdout(&dashctl(&["prog", "show", text(&path), "--json"]));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["maps"][0]["max_entries"], 2);
    assert_eq!(json["programs"][1]["section"], "xdp/devmap");
}

#[test]
fn dump_shows_maps_and_lines_of_the_source() {
    let (dir, path) = object();
    let said = stdout(&dashctl(&[
        "prog",
        "dump",
        text(&path),
        "--program",
        "safe",
    ]));
    assert_eq!(
        said,
        "; program safe (xdp)\n    0: r1 = map[0] ll ; counts\n    2: r0 = 2\n    3: exit\n\n"
    );

    let source = dir.path().join("drop.c");
    fs::write(
        &source,
        "struct xdp_md { unsigned data, end; };\n\
         __attribute__((section(\"xdp\"))) int drop(struct xdp_md *ctx)\n\
         {\n\
         \tchar *packet = (char *)(long)ctx->data;\n\
         \treturn *packet;\n\
         }\n",
    )
    .expect("written");
    let object = dir.path().join("drop.o");
    let clang = Command::new("clang")
        .args([
            "-target",
            "bpf",
            "-O2",
            "-g",
            "-c",
            text(&source),
            "-o",
            text(&object),
        ])
        .status();
    if !clang.is_ok_and(|status| status.success()) {
        eprintln!("SKIP: no clang for bpf");
        return;
    }
    let said = stdout(&dashctl(&["prog", "dump", text(&object)]));
    assert!(said.contains("drop.c:5: return *packet;\n"), "{said}");
    let refused = dashctl(&["prog", "verify", text(&object)]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(said.contains("drop.c:5:"), "{said}");
    let json = dashctl(&["prog", "verify", text(&object), "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json[0]["source"]["line"], 5);
}
