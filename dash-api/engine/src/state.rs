//! What control and users read back: counters, flows, result rows, listings.
//!
//! A connection is two lines of flows, one a direction, the first packet's first. Names are those
//! of `sai_flow_entry_t` and `sai_flow_entry_attr_t` in lower case (SAI
//! `saiexperimentaldashflow.h`), with `direction` and `state` for the DASH enums, and what the
//! header has no attribute for: `eni`, `packets`, `bytes`, `created_ns`, `last_seen_ns`,
//! `timeout_ms`, which but for the counts are the connection's.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dash_bpf::Object as BpfObject;
use dash_model::key::EniKey;
use dash_model::net::Mac;
use dash_model::objects::Object;
use dash_wire::stats::{EniStat, MeterStat, PortStat};
use dash_wire::tables::{
    Direction, FlowActions, FlowEntry, FlowHalf, FlowKey, MeterBucket, encap, flow_action,
    flow_flags, flow_state,
};
use nic_target::FlowQuery;
use serde_json::{Map, Value, json};

/// Counters as JSON; a missing block or value counts 0.
pub(crate) fn counters(
    enis: &[(&EniKey, Option<&Vec<u64>>)],
    port: &[u64],
    meters: &[(&EniKey, u32, MeterBucket)],
) -> Value {
    let value = |values: &[u64], at: usize| Value::from(values.get(at).copied().unwrap_or(0));
    let mut by_eni = Map::new();
    for (key, values) in enis {
        let values = values.map_or(&[][..], Vec::as_slice);
        let stats = EniStat::ALL
            .iter()
            .map(|s| (s.name().to_owned(), value(values, *s as usize)));
        by_eni.insert(key.as_str().to_owned(), Value::Object(stats.collect()));
    }
    let ports = PortStat::ALL
        .iter()
        .map(|s| (s.name().to_owned(), value(port, *s as usize)));
    let mut out = Map::new();
    out.insert("eni".to_owned(), Value::Object(by_eni));
    out.insert("port".to_owned(), Value::Object(ports.collect()));
    let meters = meters.iter().map(|(eni, class, bytes)| {
        json!({
            "eni": eni.as_str(),
            "meter_class": class,
            MeterStat::OutboundBytes.name(): bytes.outbound,
            MeterStat::InboundBytes.name(): bytes.inbound,
        })
    });
    out.insert("meter".to_owned(), Value::Array(meters.collect()));
    Value::Object(out)
}

/// The ENI a flow belongs to.
pub(crate) struct FlowOwner<'a> {
    pub(crate) key: &'a str,
    pub(crate) mac: Mac,
    pub(crate) vnet_id: u16,
}

/// Flows as JSON lines, sorted by ENI key and the first packet's key.
pub(crate) fn flows_jsonl<'a>(
    flows: &[FlowEntry],
    query: &FlowQuery,
    whole: bool,
    owner: impl Fn(u32) -> Option<FlowOwner<'a>>,
) -> String {
    let mut rows: Vec<_> = flows
        .iter()
        .map(|flow| (owner(flow.eni.into()), flow))
        .collect();
    rows.sort_by(|(a, x), (b, y)| {
        let name = |owner: &Option<FlowOwner<'a>>| owner.as_ref().map(|o| o.key);
        (name(a), order(&x.sides[0].key)).cmp(&(name(b), order(&y.sides[0].key)))
    });
    let mut out = String::new();
    for (owner, flow) in rows {
        for side in (0..2).filter(|side| query.matches_side(flow, *side)) {
            // Writing to a String does not fail.
            let mut line = line(owner.as_ref(), flow, side);
            if let (false, Value::Object(fields)) = (whole, &mut line) {
                fields.retain(|name, _| KEY_FIELDS.contains(&name.as_str()));
            }
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

/// Fields of `sai_flow_entry_t`, with the ENI's name and the version.
const KEY_FIELDS: [&str; 9] = [
    "eni", "eni_mac", "vnet_id", "ip_proto", "src_ip", "dst_ip", "src_port", "dst_port", "version",
];

/// A total order of keys that reads well: family, protocol, addresses, ports.
fn order(key: &FlowKey) -> impl Ord + use<> {
    (
        key.flags, key.proto, key.sip, key.dip, key.sport, key.dport, key.eni,
    )
}

fn line(owner: Option<&FlowOwner<'_>>, flow: &FlowEntry, side: usize) -> Value {
    let FlowHalf { key, actions } = &flow.sides[side];
    let FlowHalf {
        key: reverse,
        actions: back,
    } = &flow.sides[1 - side];
    let none = ([0; 4], 0);
    let (u1_dip, u1_vni) = if does(actions, flow_action::ENCAP_U1) {
        back.kept_u1()
    } else {
        none
    };
    // The VIP is the source of both encaps but for a private link's own.
    let u1_sip = if u1_vni == 0 { [0; 4] } else { back.u0_sip };
    // Where nothing is written the field may hold something else.
    let dmac = if does(actions, flow_action::SET_DMAC) {
        actions.dmac
    } else {
        [0; 6]
    };
    let first = flow.direction == Direction::Outbound as u8;
    let outbound = if side == 0 { first } else { !first };
    let eni_mac = owner.map(|o| o.mac.to_string());
    let vnet_id = owner.map(|o| o.vnet_id);
    json!({
        "eni": owner.map(|o| o.key),
        "eni_mac": eni_mac,
        "vnet_id": vnet_id,
        "ip_proto": key.proto,
        "src_ip": ip(key.flags, key.sip).to_string(),
        "dst_ip": ip(key.flags, key.dip).to_string(),
        "src_port": u16::from_be_bytes(key.sport),
        "dst_port": u16::from_be_bytes(key.dport),
        "direction": if outbound { "outbound" } else { "inbound" },
        "state": state(flow.state),
        "version": flow.epoch,
        "dash_flow_action": action_names(actions),
        "meter_class": flow.meter_class,
        "is_unidirectional_flow": false,
        "reverse_flow_eni_mac": eni_mac,
        "reverse_flow_vnet_id": vnet_id,
        "reverse_flow_ip_proto": reverse.proto,
        "reverse_flow_src_ip": ip(reverse.flags, reverse.sip).to_string(),
        "reverse_flow_dst_ip": ip(reverse.flags, reverse.dip).to_string(),
        "reverse_flow_src_port": u16::from_be_bytes(reverse.sport),
        "reverse_flow_dst_port": u16::from_be_bytes(reverse.dport),
        "underlay0_vnet_id": actions.u0_vni,
        "underlay0_sip": Ipv4Addr::from(actions.u0_sip).to_string(),
        "underlay0_dip": Ipv4Addr::from(actions.u0_dip).to_string(),
        "underlay0_dash_encapsulation": encapsulation(actions, flow_action::ENCAP_U0, actions.u0_encap),
        "underlay1_vnet_id": u1_vni,
        "underlay1_sip": Ipv4Addr::from(u1_sip).to_string(),
        "underlay1_dip": Ipv4Addr::from(u1_dip).to_string(),
        "underlay1_dash_encapsulation": encapsulation(actions, flow_action::ENCAP_U1, actions.u1),
        "dst_mac": Mac(dmac).to_string(),
        "packets": flow.packets[side],
        "bytes": flow.bytes[side],
        "created_ns": flow.created_ns,
        "last_seen_ns": flow.last_seen_ns,
        "timeout_ms": flow.timeout_ms,
    })
}

fn does(actions: &FlowActions, what: u16) -> bool {
    actions.actions & what != 0
}

fn encapsulation(actions: &FlowActions, which: u16, kind: u8) -> &'static str {
    match kind {
        _ if !does(actions, which) => "invalid",
        encap::NVGRE => "nvgre",
        _ => "vxlan",
    }
}

fn ip(flags: u8, addr: [u8; 16]) -> IpAddr {
    if flags & flow_flags::V6 != 0 {
        return Ipv6Addr::from(addr).into();
    }
    let [.., a, b, c, d] = addr;
    Ipv4Addr::new(a, b, c, d).into()
}

fn state(state: u8) -> &'static str {
    match state {
        flow_state::HALF_OPEN => "half_open",
        flow_state::ESTABLISHED => "established",
        flow_state::CLOSING => "closing",
        _ => "free",
    }
}

/// Bits of `sai_dash_flow_action_t` and their names in flow lines.
pub const ACTION_NAMES: [(u16, &str); 8] = [
    (flow_action::ENCAP_U0, "encap_u0"),
    (flow_action::ENCAP_U1, "encap_u1"),
    (flow_action::SET_SMAC, "set_smac"),
    (flow_action::SET_DMAC, "set_dmac"),
    (flow_action::NAT46, "nat46"),
    (flow_action::NAT64, "nat64"),
    (flow_action::SNAT_PORT, "snat_port"),
    (flow_action::DNAT_PORT, "dnat_port"),
];

fn action_names(actions: &FlowActions) -> Vec<&'static str> {
    ACTION_NAMES
        .iter()
        .filter(|(bit, _)| actions.actions & bit != 0)
        .map(|(_, name)| *name)
        .collect()
}

/// What `DPU_APPL_STATE_DB` holds for a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultRow {
    /// `0`: programmed, or stored. A row that was refused is not in the configuration.
    pub result: u32,
    /// Version of a route group, as its row gave it.
    pub version: Option<String>,
    /// What to know about it.
    pub note: Option<&'static str>,
}

impl ResultRow {
    /// Note of a row that is stored and does nothing.
    pub const STORED: &'static str = "stored, not acted on";

    pub(crate) fn of(object: &Object) -> Self {
        Self {
            result: 0,
            version: match object {
                Object::RouteGroup(group) => Some(group.version.clone()),
                _ => None,
            },
            note: matches!(object, Object::Opaque).then_some(Self::STORED),
        }
    }

    /// The row's fields, all text as in redis.
    pub fn to_json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("result".to_owned(), self.result.to_string().into());
        if let Some(version) = &self.version {
            fields.insert("version".to_owned(), version.as_str().into());
        }
        if let Some(note) = self.note {
            fields.insert("note".to_owned(), note.into());
        }
        Value::Object(fields)
    }
}

/// eBPF of an object with slot numbers, a heading for each stage.
pub(crate) fn disassembly(object: &BpfObject) -> String {
    let mut out = String::new();
    for (index, program) in object.programs.iter().enumerate() {
        let text = dash_bpf::disasm::annotate(&program.insns, &[])
            .unwrap_or_else(|error| format!("; malformed: {error}\n"));
        // Writing to a String does not fail.
        let _ = write!(
            out,
            "; {index}: {} ({} slots)\n{text}\n",
            program.name,
            program.insns.len()
        );
    }
    out
}
