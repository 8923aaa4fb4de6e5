//! The plugin as the suite's runner calls it.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn plugin(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dash-bpf-plugin"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the plugin starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("input is read");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// r0 = *(u8 *)(r1 + 1); exit
const SECOND_BYTE: &str = "71 10 01 00 00 00 00 00  95 00 00 00 00 00 00 00  ";

#[test]
fn r0_is_printed_in_hex() {
    for engine in ["interp", "native"] {
        let output = plugin(&["01  fe  ", "--engine", engine], SECOND_BYTE);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{engine}: {stderr}");
        assert_eq!(output.stdout, b"fe\n", "{engine}");
    }
}

#[test]
fn an_object_s_main_is_run() {
    let object = dash_bpf::Object {
        programs: vec![dash_bpf::Program {
            name: "main".to_owned(),
            kind: dash_bpf::ProgramKind::Raw,
            insns: dash_bpf::assemble("r0 = 41\nr0 += 1\nexit").expect("text"),
            ..dash_bpf::Program::default()
        }],
        ..dash_bpf::Object::default()
    };
    let bytes = dash_bpf::elf::write(&object).expect("an object");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
    for args in [&["--elf"][..], &["--elf", "true"]] {
        let output = plugin(args, &hex);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.stdout, b"2a\n", "{stderr}");
    }
}

#[test]
fn what_cannot_run_is_an_error_on_standard_error() {
    for (args, input, error) in [
        (&[][..], "95", "program: 1 bytes"),
        (&["0x"], SECOND_BYTE, "memory: \"0x\" at character 0"),
        (&[], "ff 00 00 00 00 00 00 00", "program: "),
        (&["--elf"], "00", "object: ELF"),
        (
            &["--engine", "interp"],
            SECOND_BYTE,
            "no memory of the program",
        ),
    ] {
        let output = plugin(args, input);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?}");
        assert!(output.stdout.is_empty());
        assert!(stderr.contains(error), "{args:?}: {stderr}");
    }
}
