//! System packages of the full test run. The product itself needs none of them.

use anyhow::Result;

use crate::run::{check, command, have, is_root};

/// Program looked for, and the Debian package that has it.
const PACKAGES: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("cc", "gcc"),
    ("valgrind", "valgrind"),
];

/// Installs what is missing; fails only when an install was tried and failed.
pub(crate) fn run() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(p, _)| !have(p))
        .map(|(_, d)| *d)
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
