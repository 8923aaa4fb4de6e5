//! Child processes: run to the end, or in the background and stopped on drop.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The workspace's root: tasks work from any folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A command that runs in the workspace's root.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut c = Command::new(program);
    c.current_dir(root());
    c
}

/// Cargo, the one that runs us.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs to the end; an error names the command and its status.
pub(crate) fn check(c: &mut Command) -> Result<()> {
    let status = status(c)?;
    if !status.success() {
        bail!("{c:?} ended with {status}");
    }
    Ok(())
}

/// Runs to the end.
pub(crate) fn status(c: &mut Command) -> Result<ExitStatus> {
    c.status().with_context(|| format!("starting {c:?}"))
}

/// Runs to the end and returns what it printed.
pub(crate) fn output(c: &mut Command) -> Result<String> {
    let out = c
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting {c:?}"))?;
    if !out.status.success() {
        bail!("{c:?} ended with {}", out.status);
    }
    String::from_utf8(out.stdout)
        .with_context(|| format!("{c:?} printed something that is not text"))
}

/// True when a program of this name can be started.
pub(crate) fn have(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// True for the superuser.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// A child in the background, killed when dropped.
pub(crate) struct Background {
    name: &'static str,
    child: Child,
}

impl Background {
    pub(crate) fn start(name: &'static str, c: &mut Command) -> Result<Self> {
        let child = c.spawn().with_context(|| format!("starting {c:?}"))?;
        Ok(Self { name, child })
    }

    /// Fails when the child has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended early with {status}", self.name);
        }
        Ok(())
    }

    /// Waits until `ready` says so, failing when the child ends or the time is over.
    pub(crate) fn wait_until(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            self.check_alive()?;
            if start.elapsed() > limit {
                bail!("{} was not ready after {limit:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// True when DPDK's headers and libraries are installed.
pub(crate) fn have_dpdk() -> bool {
    command("pkg-config")
        .args(["--exists", "libdpdk >= 22.11"])
        .status()
        .is_ok_and(|status| status.success())
}

/// Cargo's arguments for all crates that can be built here.
pub(crate) fn everything() -> &'static [&'static str] {
    if have_dpdk() {
        &["--workspace", "--features", "dpdk"]
    } else {
        &[
            "--workspace",
            "--exclude",
            "dpdk-sys",
            "--exclude",
            "nic-dpdk",
        ]
    }
}
