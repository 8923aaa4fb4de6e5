//! The program as users run it.

mod cli {
    pub(crate) mod local;
    pub(crate) mod maps;
    pub(crate) mod prog;
    pub(crate) mod programs;
    pub(crate) mod remote;
}

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program, with verdicts kept between test runs.
fn dashctl(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dashctl"));
    if matches!(args.first(), Some(&("replay" | "trace" | "compile"))) {
        command.arg(args[0]);
        command.args([
            "--cache-dir",
            concat!(env!("CARGO_TARGET_TMPDIR"), "/verdicts"),
        ]);
        command.args(&args[1..]);
    } else {
        command.args(args);
    }
    command.output().expect("dashctl runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../specs/scenarios")
        .join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
