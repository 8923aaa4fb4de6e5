//! The options about connections' lives, the same for `dashctl` and `dashd`.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use dash_engine::state::ACTION_NAMES;
use dash_pipeline::ir::Timeouts;
use dash_pipeline::plan::Settings;

/// What becomes of TCP of no known connection that is not a SYN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum NonSyn {
    /// Policy decides, and what it lets through makes a connection.
    #[default]
    Policy,
    /// It is dropped.
    Drop,
}

/// Bits of flow actions by the names that flow lines have.
///
/// # Errors
/// A name is none of them.
pub fn flow_actions<S: AsRef<str>>(names: &[S]) -> Result<u16> {
    names.iter().try_fold(0, |bits, name| {
        let name = name.as_ref();
        let bit = ACTION_NAMES.iter().find(|(_, other)| *other == name);
        let (bit, _) = bit.with_context(|| {
            let all = ACTION_NAMES.map(|(_, name)| name).join(", ");
            format!("`{name}` is no flow action; there are {all}")
        })?;
        Ok(bits | bit)
    })
}

/// How connections live.
#[derive(Clone, Debug, Default, Args)]
pub struct LifeArgs {
    /// Milliseconds after which connections without a packet go, where not the defaults: half_open
    /// (5000), tcp, udp, icmp, other (30000), closing (2000).
    #[arg(long, value_name = "NAME=MS,...")]
    pub flow_timeouts: Option<Timeouts>,
    /// What becomes of TCP of no known connection that is not a SYN.
    #[arg(long, value_enum, default_value_t)]
    pub tcp_nonsyn_miss: NonSyn,
    /// Decide flows again when the configuration they depended on changes; without, only who asks for
    /// it does.
    #[arg(long)]
    pub resimulate_changes: bool,
    /// Answer TCP that an ACL denies in the middle of a connection with a RST to each end.
    #[arg(long)]
    pub tcp_reset: bool,
}

impl LifeArgs {
    /// The settings with these.
    pub fn settings(&self, settings: Settings) -> Settings {
        Settings {
            timeouts: self.flow_timeouts.unwrap_or(settings.timeouts),
            tcp_nonsyn_drop: self.tcp_nonsyn_miss == NonSyn::Drop,
            resimulate_changes: self.resimulate_changes,
            tcp_reset: self.tcp_reset,
            ..settings
        }
    }
}
