//! Network namespaces that die with a test.
//!
//! A test runs its own executable again under `unshare --net`, for an ignored test beside it: that
//! one must never run in a namespace that somebody uses.

use std::process::Command;

const INSIDE: &str = "NIC_LINUX_INSIDE_NAMESPACE";

/// Runs an ignored test of the calling test's file in a fresh namespace.
pub(crate) fn in_namespace(test: &str) {
    let probe = Command::new("unshare")
        .args(["--net", "ip", "link", "add", "va", "type", "veth"])
        .output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            eprintln!(
                "SKIP: no network namespace with veth here: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            return;
        }
        Err(e) => {
            eprintln!("SKIP: unshare cannot be run: {e}");
            return;
        }
    }
    let output = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            test,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "in the namespace:\n{text}"
    );
    for skip in text.lines().filter(|line| line.starts_with("SKIP")) {
        eprintln!("{skip}");
    }
}

/// Fails a test that somebody runs outside; quiets the kernel's own IPv6 traffic.
pub(crate) fn enter() {
    assert!(
        std::env::var_os(INSIDE).is_some(),
        "to be run by another test, in its own namespace"
    );
    std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
}

/// Runs `ip` with these arguments.
pub(crate) fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}");
}
