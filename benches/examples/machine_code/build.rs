//! The sources, built by clang three ways.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// What became of one source.
pub(crate) struct Built {
    /// For XDP.
    pub(crate) object: Vec<u8>,
    /// For contexts with whole pointers.
    pub(crate) wide: Vec<u8>,
    /// For this machine.
    pub(crate) shared_object: PathBuf,
    /// The same with another map, if it has one, and what is different.
    pub(crate) others: Vec<(&'static str, PathBuf)>,
    _dir: TempDir,
}

fn clang(source: &Path, to: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("clang")
        .args(arguments)
        .arg("-Wall")
        .arg(source)
        .arg("-o")
        .arg(to)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "clang: {said}");
    Ok(())
}

impl Built {
    /// Builds a program; `None` where there is no clang.
    pub(crate) fn new(name: &str) -> Result<Option<Self>> {
        if Command::new("clang").arg("--version").output().is_err() {
            return Ok(None);
        }
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
        let source = sources.join(name).with_extension("c");
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        // As XDP programs are built (`-mcpu=v3`).
        let bpf = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-c"];
        clang(&source, &at("bpf.o"), &bpf)?;
        clang(&source, &at("wide.o"), &[&bpf[..], &["-DWIDE"]].concat())?;
        let native = ["-O3", "-DNATIVE", "-fPIC", "-shared", "-fvisibility=hidden"];
        clang(&source, &at("native.so"), &native)?;
        let mut others = Vec::new();
        if name == "flow" {
            for (what, flag) in [("look-ups a call", "-DCALLED"), ("one writer", "-DALONE")] {
                let path = at(flag).with_extension("so");
                clang(&source, &path, &[&native[..], &[flag]].concat())?;
                others.push((what, path));
            }
        }
        Ok(Some(Self {
            object: std::fs::read(at("bpf.o"))?,
            wide: std::fs::read(at("wide.o"))?,
            shared_object: at("native.so"),
            others,
            _dir: dir,
        }))
    }

    /// Slots of bytecode.
    pub(crate) fn slots(&self) -> Result<usize> {
        let object = dash_bpf::elf::link(&[&self.object])?;
        let program = object.programs.first().context("no program")?;
        Ok(program.insns.len())
    }
}
