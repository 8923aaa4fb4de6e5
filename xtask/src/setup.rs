//! System packages of the full test run. The product itself needs none of them, but for the feature
//! `dpdk`.

use anyhow::Result;

use crate::run::{check, command, have, have_dpdk, is_root};

/// Program looked for, and the Debian package that has it.
const PACKAGES: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("cc", "gcc"),
    ("valgrind", "valgrind"),
    ("qemu-aarch64", "qemu-user"),
    ("pkg-config", "pkg-config"),
    ("dpdk-testpmd", "dpdk-dev"),
];

/// Where there is no program to look for: DPDK's headers and libraries, and what generates bindings.
fn libraries() -> Vec<&'static str> {
    let mut missing = Vec::new();
    if !have_dpdk() {
        missing.push("libdpdk-dev");
    }
    if !have_libclang() {
        missing.push("libclang-dev");
    }
    missing
}

fn have_libclang() -> bool {
    let folders = std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten();
    let mut folders = folders.filter(|f| f.file_name().to_string_lossy().starts_with("llvm-"));
    std::env::var_os("LIBCLANG_PATH").is_some()
        || folders.any(|f| f.path().join("lib/libclang.so").exists())
}

/// Installs what is missing; fails only when an install was tried and failed.
pub(crate) fn run() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(p, _)| !have(p))
        .map(|(_, d)| *d)
        .chain(libraries())
        .collect();
    if missing.is_empty() {
        eprintln!("setup: nothing to install");
        return Ok(());
    }
    if !is_root() || !have("apt-get") {
        eprintln!(
            "setup: missing {}; install them (root, apt) to run every test",
            missing.join(", ")
        );
        return Ok(());
    }
    eprintln!("setup: installing {}", missing.join(", "));
    check(command("apt-get").args(["update", "-qq"]))?;
    check(
        command("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(missing),
    )
}
