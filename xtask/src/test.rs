//! Everything that must hold, in the order that fails fastest.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::run::{cargo, check, command, everything, have, have_dpdk, is_root, root};
use crate::{demo, edges, net, setup, skips};

pub(crate) fn run(with_setup: bool) -> Result<()> {
    if with_setup {
        setup::run()?;
    }
    let start = Instant::now();
    let mut skipped = Vec::new();
    step("formatting", || {
        check(cargo().args(["fmt", "--all", "--check"]))
    })?;
    step("crate edges", || edges::run(false))?;
    step("lints", || {
        check(cargo().arg("clippy").args(everything()).args([
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("tests", || {
        if have("cargo-nextest") {
            skipped = skips::nextest(
                cargo()
                    .args(["nextest", "run"])
                    .args(everything())
                    .args(["--locked", "--no-fail-fast"]),
            )?;
            Ok(())
        } else {
            check(cargo().arg("test").args(everything()).args([
                "--locked",
                "--no-fail-fast",
                "--all-targets",
            ]))
        }
    })?;
    step("documentation examples", || {
        check(
            cargo()
                .arg("test")
                .args(everything())
                .args(["--locked", "--doc"]),
        )
    })?;
    if have_dpdk() {
        step("tests of what is different without DPDK", || {
            check(cargo().args(["test", "--locked", "-p", "nic-targets", "--lib"]))
        })?;
    } else {
        skipped.push("SKIP: everything of DPDK needs libdpdk-dev".to_owned());
    }
    step("demo", || demo::run(Path::new("target/demo")))?;
    step("coverage of the model", || coverage(false))?;
    step("scenarios on every executor", || {
        check(command(demo::build(&[])?.dashctl).args(["scenario", "specs/scenarios"]))
    })?;
    step(
        "bench --quick: every measurement runs, at tiny scale",
        || {
            check(command(demo::build(&[])?.dashctl).args([
                "bench",
                "--quick",
                "--out",
                "target/bench-quick",
            ]))
        },
    )?;
    if is_root() && have("ip") && have("ping") {
        step("demo --net", || {
            net::run(net::Via::Afpacket, 100, Path::new("target/demo-net"))
        })?;
        if have("ethtool") {
            step("demo --net --port xdp", || {
                net::run(net::Via::Xdp, 100, Path::new("target/demo-net-xdp"))
            })?;
            step("demo --net --port kernel", || {
                net::run(net::Via::Kernel, 100, Path::new("target/demo-net-kernel"))
            })?;
        } else {
            skipped.push("SKIP: demo --net --port xdp and kernel need ethtool".to_owned());
        }
        if have_dpdk() && have("ethtool") {
            step("demo --net --port dpdk", || {
                net::run(net::Via::Dpdk, 100, Path::new("target/demo-net-dpdk"))
            })?;
        } else {
            skipped.push("SKIP: demo --net --port dpdk needs libdpdk-dev and ethtool".to_owned());
        }
    } else {
        skipped.push("SKIP: demo --net needs root, ip and ping".to_owned());
    }
    for why in &skipped {
        println!("{why}");
    }
    println!(
        "xtask test: every step passed in {:.0} s, {} skipped",
        start.elapsed().as_secs_f64(),
        skipped.len()
    );
    Ok(())
}

fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("\n=== {name}");
    let start = Instant::now();
    run()?;
    eprintln!("=== {name}: {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Every scenario on the reference model: what of the pipeline none reaches.
pub(crate) fn coverage(impossible: bool) -> Result<()> {
    let mut dashctl = command(demo::build(&[])?.dashctl);
    dashctl.args(["coverage", "specs/scenarios"]);
    if impossible {
        dashctl.arg("--impossible");
    }
    check(&mut dashctl)
}

/// Every engine over a conformance file: the test that reads it takes its path from the environment.
pub(crate) fn conformance(file: &Path) -> Result<()> {
    let file = std::env::current_dir()
        .unwrap_or_else(|_| root())
        .join(file);
    check(
        cargo()
            .args([
                "test",
                "--locked",
                "-p",
                "dash-conformance",
                "public_suite",
                "--",
                "--nocapture",
            ])
            .env("DASHWIRE_CONFORMANCE", file),
    )
}
