//! Traffic that this lab did not think of: from a generator beside this machine through the ports of a
//! target ([`target`]), or the packets of a capture ([`capture`]).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use dash_model::Txn;
use nic_target::Capacity;

use crate::configs::{Config, Scale};
use crate::options::Options;
use crate::world;

mod capture;
mod target;

pub use capture::capture;
pub use nic_targets::TargetSpec;
pub(crate) use target::Running;
pub use target::target;

/// Connections that the tables hold.
fn flows(options: &Options) -> u32 {
    options.scale(1 << 16, 1 << 22)
}

/// Files, each a transaction; without any, that of the baby hero test.
fn configuration(files: &[PathBuf], options: &Options) -> Result<(Vec<Txn>, Capacity)> {
    if files.is_empty() {
        let scale = options.scale(Scale::BABY_HERO.shrink(16), Scale::BABY_HERO);
        let config = Config::new(scale);
        return Ok((config.txns().collect(), config.capacity(flows(options))));
    }
    let read = |path: &PathBuf| -> Result<Txn> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        world::txn(&text).with_context(|| path.display().to_string())
    };
    let txns = files.iter().map(read).collect::<Result<_>>()?;
    Ok((txns, crate::lab::capacity(flows(options))))
}

/// The command that measures it again.
fn command(options: &Options, what: &str, files: &[PathBuf]) -> String {
    let mut what = what.to_owned();
    for file in files {
        what.push_str(&format!(" --config {}", quoted(file)));
    }
    options.command(&what)
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
