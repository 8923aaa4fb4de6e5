//! The files of a scenario.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use dash_pipeline::plan::{Settings, UnderlayTable};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::packet::PacketText;
use crate::config::ConfigFile;
use crate::underlay::{self, Neighbor, RouteArg};

/// A scenario as its file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What is shown to hold.
    pub title: String,
    /// Where it is from: a worked example (E1) or golden vector (V1) of the DASH reference.
    pub reference: String,
    /// What is left out of the reference's example, and why.
    #[serde(default)]
    pub not_covered: Option<String>,
    /// The first transaction: the name of a file beside this one, or rows.
    pub config: Config,
    /// Settings that are not the defaults.
    #[serde(default)]
    pub settings: SettingsText,
    /// Lets bound route and ACL groups change in place.
    #[serde(default)]
    pub update_bound_groups: bool,
    /// How many connections the flow table holds; without it, as many as the engine's.
    #[serde(default)]
    pub flow_capacity: Option<u32>,
    /// Routes and neighbours of the card's own ports; without, packets leave where they came in.
    #[serde(default)]
    pub underlay: Option<Underlay>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// Packets and bytes of each ENI at the end, in place of the RX and TX names in `counters`.
    #[serde(default)]
    pub traffic: BTreeMap<String, Traffic>,
    /// Counters at the end that are not 0.
    #[serde(default)]
    pub counters: Counters,
    /// Live connections at the end.
    pub flows: usize,
    /// Lines of flows that must be there at the end: each of these must be part of one line.
    #[serde(default)]
    pub flow_lines: Vec<Map<String, Value>>,
    /// Engines that cannot run this scenario, with the reason.
    #[serde(default)]
    pub engines_skip: BTreeMap<String, String>,
}

/// Rows, or where they are.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Config {
    /// A file beside the scenario's.
    File(String),
    /// Rows in the form of configuration files.
    Rows(Vec<Value>),
}

/// Settings that a scenario changes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "fields are those of `Settings`")]
pub struct SettingsText {
    pub vxlan_port: Option<u16>,
    pub encap_ttl: Option<u8>,
    pub sport_base: Option<u16>,
    pub sport_bits: Option<u8>,
    pub drop_unmapped_ports: Option<bool>,
    #[serde(default)]
    pub sport_security: bool,
    pub mtu: Option<u16>,
    pub port_mtus: Vec<Option<u16>>,
    pub dscp_pipe: Option<u8>,
    /// `NAME=MS,...` as on the command line.
    pub flow_timeouts: Option<String>,
    pub tcp_nonsyn_drop: bool,
    pub resimulate_changes: bool,
    pub tcp_reset: bool,
}

impl SettingsText {
    /// The settings.
    ///
    /// # Errors
    /// One of them is not well written.
    pub fn settings(&self) -> Result<Settings> {
        let default = Settings::default();
        let timeouts = match &self.flow_timeouts {
            Some(text) => text.parse().map_err(|why: String| anyhow!(why))?,
            None => default.timeouts,
        };
        Ok(Settings {
            vxlan_port: self.vxlan_port.unwrap_or(default.vxlan_port),
            encap_ttl: self.encap_ttl.unwrap_or(default.encap_ttl),
            sport_base: self.sport_base.unwrap_or(default.sport_base),
            sport_bits: self.sport_bits.unwrap_or(default.sport_bits),
            drop_unmapped_ports: self
                .drop_unmapped_ports
                .unwrap_or(default.drop_unmapped_ports),
            sport_security: self.sport_security,
            mtu: self.mtu,
            port_mtus: self.port_mtus.clone(),
            dscp_pipe: self.dscp_pipe,
            timeouts,
            tcp_nonsyn_drop: self.tcp_nonsyn_drop,
            resimulate_changes: self.resimulate_changes,
            tcp_reset: self.tcp_reset,
            ..default
        })
    }
}

/// The underlay in the words of `dashctl`'s options.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Underlay {
    /// `PREFIX=PORT[,NEXTHOP]` each.
    #[serde(default)]
    pub routes: Vec<String>,
    /// `IP=MAC@PORT` each.
    #[serde(default)]
    pub neighbors: Vec<String>,
}

impl Underlay {
    /// The table.
    ///
    /// # Errors
    /// A route or a neighbour is not well written.
    pub fn table(&self) -> Result<UnderlayTable> {
        let routes = self.routes.iter().map(|text| parsed(text));
        let routes: Vec<RouteArg> = routes.collect::<Result<_>>()?;
        let neighbors = self.neighbors.iter().map(|text| parsed(text));
        let neighbors: Vec<Neighbor> = neighbors.collect::<Result<_>>()?;
        Ok(underlay::table(&routes, &neighbors))
    }
}

fn parsed<T: FromStr<Err = String>>(text: &str) -> Result<T> {
    text.parse().map_err(|why| anyhow!("`{text}`: {why}"))
}

/// One thing that happens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// For people.
    #[serde(default)]
    pub note: Option<String>,
    /// Time of a packet since the start; without it, when the step before was.
    #[serde(default)]
    pub at_ms: Option<u64>,
    /// A packet that comes in.
    #[serde(default, rename = "in")]
    pub input: Option<PacketText>,
    /// What must leave; `null` when nothing may.
    #[serde(default)]
    pub out: Option<PacketText>,
    /// Why nothing leaves, by the drop reason's name.
    #[serde(default)]
    pub drop: Option<String>,
    /// It goes to control and moves no drop counter (ARP).
    #[serde(default)]
    pub pass: bool,
    /// The port it must leave by.
    #[serde(default)]
    pub port: Option<u16>,
    /// Nothing leaves, and that is no drop: the packet was for the pipeline.
    #[serde(default)]
    pub consumed: bool,
    /// What the card sends of itself then.
    #[serde(default)]
    pub injected: Vec<PacketText>,
    /// A transaction.
    #[serde(default)]
    pub config: Option<Vec<Value>>,
    /// Another underlay, whole.
    #[serde(default)]
    pub underlay: Option<Underlay>,
    /// The settings from here on; those not named have their defaults.
    #[serde(default)]
    pub settings: Option<SettingsText>,
    /// Lets time pass without a packet.
    #[serde(default)]
    pub advance_ms: Option<u64>,
    /// Flows that are to be decided again.
    #[serde(default)]
    pub resimulate: Option<Resimulate>,
    /// Flows that are looked for.
    #[serde(default)]
    pub find_flows: Option<FindFlows>,
    /// Flows that are deleted.
    #[serde(default)]
    pub delete_flows: Option<DeleteFlows>,
    /// Live connections after the step.
    #[serde(default)]
    pub flows: Option<usize>,
}

/// A condition on flows: field, comparison and value as `DASH_FLOW_DUMP_FILTER_TABLE` has them.
pub type FilterText = (String, String, String);

/// Flows of an ENI that its next packets decide again.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resimulate {
    /// Whose.
    pub eni: String,
    /// Which of them; without, all.
    pub filters: Vec<FilterText>,
    /// Most a second, 0 for any number; without, as the ENI's settings say.
    pub per_second: Option<u32>,
    /// Actions that they keep, by the names of flow lines.
    pub keep: Vec<String>,
}

/// What a search for flows must find.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FindFlows {
    /// Whose.
    pub eni: Option<String>,
    /// Which.
    pub filters: Vec<FilterText>,
    /// How many directions.
    pub lines: usize,
}

/// Flows to delete.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeleteFlows {
    /// Whose.
    pub eni: Option<String>,
    /// Which.
    pub filters: Vec<FilterText>,
    /// How many connections there must be.
    pub deleted: u64,
}

/// Traffic of an ENI.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// From the VM.
    #[serde(default)]
    pub outbound: Both,
    /// To the VM.
    #[serde(default)]
    pub inbound: Both,
}

/// Packets and bytes received and sent in one direction.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Both {
    /// Packets, bytes received.
    #[serde(default)]
    pub rx: (u64, u64),
    /// Packets, bytes sent.
    #[serde(default)]
    pub tx: (u64, u64),
}

/// Counters by their SAI names without `SAI_ENI_STAT_` and `SAI_PORT_STAT_`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// By ENI.
    #[serde(default)]
    pub eni: BTreeMap<String, BTreeMap<String, u64>>,
    /// Of the card.
    #[serde(default)]
    pub port: BTreeMap<String, u64>,
    /// Metering buckets, by ENI and class: bytes outbound and inbound.
    #[serde(default)]
    pub meter: BTreeMap<String, BTreeMap<u32, (u64, u64)>>,
}

/// A scenario and where it is.
#[derive(Clone, Debug)]
pub struct ScenarioFile {
    /// Name of its folder.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// What it says.
    pub scenario: Scenario,
}

impl ScenarioFile {
    /// Reads `scenario.json` of a folder.
    ///
    /// # Errors
    /// It cannot be read or is not a scenario.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("scenario.json");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let scenario = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let name = dir
            .file_name()
            .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        Ok(Self {
            name,
            dir: dir.to_owned(),
            scenario,
        })
    }

    /// Every scenario in the subfolders of a folder, by name.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn read_all(root: &Path) -> Result<Vec<Self>> {
        let mut scenarios = Vec::new();
        let entries =
            std::fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))?;
        for entry in entries {
            let dir = entry.with_context(|| root.display().to_string())?.path();
            if dir.join("scenario.json").is_file() {
                scenarios.push(Self::read(&dir)?);
            }
        }
        scenarios.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(scenarios)
    }

    /// The first transaction.
    ///
    /// # Errors
    /// It is wrong by itself.
    pub fn config(&self) -> Result<ConfigFile> {
        match &self.scenario.config {
            Config::File(name) => ConfigFile::read(&self.dir.join(name)),
            Config::Rows(rows) => self.rows(rows),
        }
    }

    /// Inline rows.
    pub(super) fn rows(&self, rows: &[Value]) -> Result<ConfigFile> {
        let text = serde_json::to_string(rows)?;
        ConfigFile::parse(&self.dir.join("scenario.json"), &text)
    }
}
