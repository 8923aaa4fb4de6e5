//! A target that remembers what it was given, and refuses when told to.

use std::path::PathBuf;

use dash_engine::{Engine, Options};
use dash_model::Txn;
use dash_proto::config::{config_to_txn, load_config};
use dash_wire::tables::FlowEntry;
use nic_target::{Capacity, CounterSnapshot, FlowEdit, FlowQuery, Target, TargetError, Update};

#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) updates: Vec<Update>,
    pub(crate) refuse: bool,
    pub(crate) counters: CounterSnapshot,
    pub(crate) flows: Vec<FlowEntry>,
}

impl Target for Fake {
    fn apply(&mut self, update: &Update) -> Result<(), TargetError> {
        if self.refuse {
            return Err(TargetError::Gone);
        }
        self.updates.push(update.clone());
        Ok(())
    }
    fn counters(&mut self) -> Result<CounterSnapshot, TargetError> {
        Ok(self.counters.clone())
    }
    fn flows(&mut self) -> Result<Vec<FlowEntry>, TargetError> {
        Ok(self.flows.clone())
    }
    fn edit_flows(&mut self, query: &FlowQuery, edit: FlowEdit) -> Result<u64, TargetError> {
        let matching = self.flows.iter_mut().filter(|flow| query.matches(flow));
        let mut edited = 0;
        for flow in matching {
            edited += 1;
            if let FlowEdit::Epoch(epoch) = edit {
                flow.epoch = epoch;
            }
        }
        if edit == FlowEdit::Delete {
            self.flows.retain(|flow| !query.matches(flow));
        }
        Ok(edited)
    }
}

/// Verdicts of test runs: kept between them, or every test would verify for seconds.
fn cache_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("verdicts")
}

pub(crate) fn capacity() -> Capacity {
    Capacity {
        enis: 4,
        routes: 1024,
        mappings: 1024,
        inbound_rules: 64,
        trusted_vnis: 64,
        acl_groups: 16,
        underlay_routes: 64,
        flows: 64,
    }
}

pub(crate) fn engine() -> Engine<Fake> {
    with_cache(Some(cache_dir()))
}

/// An engine whose verdicts are kept there.
pub(crate) fn with_cache(cache_dir: Option<PathBuf>) -> Engine<Fake> {
    let options = Options {
        capacity: capacity(),
        cache_dir,
        native: true,
        ..Options::default()
    };
    Engine::new(options, Box::default()).expect("the empty configuration compiles")
}

/// Rows in the form of configuration files.
pub(crate) fn txn(rows: &str) -> Txn {
    let rows = load_config(rows).expect("rows");
    config_to_txn(&rows)
        .expect("rows that are right by themselves")
        .0
}

/// An appliance, a VNET and an ENI with a route.
pub(crate) const BASE: &str = r#"[
  {"DASH_APPLIANCE_TABLE:100": {"sip": "10.0.0.1", "vm_vni": 4321}, "OP": "SET"},
  {"DASH_VNET_TABLE:Vnet1": {"vni": 45654}, "OP": "SET"},
  {"DASH_ENI_TABLE:eni-1": {"mac_address": "f4:93:9f:ef:c4:7e", "underlay_ip": "25.1.1.1",
                            "admin_state": "enabled", "vnet": "Vnet1"}, "OP": "SET"},
  {"DASH_ROUTE_GROUP_TABLE:rg1": {"version": "7"}, "OP": "SET"},
  {"DASH_ENI_ROUTE_TABLE:eni-1": {"group_id": "rg1"}, "OP": "SET"},
  {"DASH_ROUTE_TABLE:rg1:10.1.0.0/16": {"routing_type": "vnet", "vnet": "Vnet1"}, "OP": "SET"}
]"#;

pub(crate) const MAPPING: &str = r#"[{"DASH_VNET_MAPPING_TABLE:Vnet1:10.1.1.1":
  {"routing_type": "vnet_encap", "underlay_ip": "101.1.2.3", "mac_address": "f9:22:83:99:22:a2"}, "OP": "SET"}]"#;

/// A group bound to a stage: another shape.
pub(crate) const ACL: &str = r#"[
  {"DASH_ACL_GROUP_TABLE:g": {"ip_version": "ipv4"}, "OP": "SET"},
  {"DASH_ACL_RULE_TABLE:g:1": {"priority": 1, "action": "permit", "terminating": true}, "OP": "SET"},
  {"DASH_ACL_OUT_TABLE:eni-1:1": {"v4_acl_group_id": "g"}, "OP": "SET"}
]"#;

pub(crate) const NO_ACL: &str = r#"[{"DASH_ACL_OUT_TABLE:eni-1:1": {}, "OP": "DEL"}]"#;
