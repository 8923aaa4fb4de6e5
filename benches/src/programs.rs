//! The programs we ship (`offload/prog/programs`), built by the clang that is here.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// All of them, by name.
pub const ALL: [&str; 6] = [
    "ddos_guard",
    "flow_export",
    "load_balancer",
    "mirror",
    "port_redirect",
    "proto_count",
];

/// The object of a shipped program; `None`, said on stderr, where there is no clang, or no headers of Linux.
///
/// # Errors
/// Clang refuses the program.
pub fn object(name: &str) -> Result<Option<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../offload/prog");
    let out = tempfile::NamedTempFile::new()?;
    let done = Command::new("clang")
        .args([
            "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror",
        ])
        // Where Debian has <asm/types.h>.
        .args(["-I", "/usr/include/x86_64-linux-gnu"])
        .args(["-I", "/usr/include/aarch64-linux-gnu", "-I"])
        .arg(folder.join("include"))
        .arg("-c")
        .arg(folder.join("programs").join(name).with_extension("c"))
        .arg("-o")
        .arg(out.path())
        .output();
    let output = match done {
        Ok(output) => output,
        Err(why) => {
            eprintln!("SKIP: no clang: {why}");
            return Ok(None);
        }
    };
    if output.status.success() {
        let read = std::fs::read(out.path());
        return Ok(Some(read.context("what clang wrote")?));
    }
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!text.contains(".c:"), "clang refuses {name}:\n{text}");
    if text.contains("linux/bpf.h") || text.contains("target") {
        eprintln!("SKIP: clang does not compile for eBPF: {text}");
        return Ok(None);
    }
    bail!("clang fails:\n{text}")
}
