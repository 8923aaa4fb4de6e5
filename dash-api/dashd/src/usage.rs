//! What objects take: bytes by table, and how many more of each fit under the names of SONiC's
//! critical resource monitoring (`CRM:STATS`).

use std::collections::{BTreeMap, BTreeSet};

use dash_engine::EngineError;
use dash_model::Store;
use dash_model::net::IpPrefix;
use dash_model::objects::Family;
use dash_wire::tables::FlowEntry;
use nic_target::{Capacity, Table};
use serde_json::{Map, Value, json};

use crate::plane::Plane;

/// VNETs that rows can number.
const VNETS: usize = u16::MAX as usize;

/// Objects whose rows are in tables of their own: name, SONiC's table, the tables of rows.
const OBJECTS: &[(&str, &str, &[Table])] = &[
    (
        "route",
        "DASH_ROUTE_TABLE",
        &[
            Table::Route4,
            Table::Route6,
            Table::Route4More,
            Table::Route6More,
        ],
    ),
    (
        "mapping",
        "DASH_VNET_MAPPING_TABLE",
        &[Table::Mapping, Table::MappingMore],
    ),
    ("inbound rule", "DASH_ROUTE_RULE_TABLE", &[Table::Inbound]),
    ("ACL group", "DASH_ACL_GROUP_TABLE", &[Table::Acl]),
    ("ACL rule", "DASH_ACL_RULE_TABLE", &[Table::Acl]),
    ("tunnel", "DASH_TUNNEL_TABLE", &[Table::Tunnel]),
    (
        "port range",
        "DASH_OUTBOUND_PORT_MAP_RANGE_TABLE",
        &[Table::PortRange],
    ),
];

/// Bytes of everything. Bytes of a table are of all its rows with their index, and include what
/// generations share.
pub(crate) fn report(plane: &mut Plane) -> Result<Value, EngineError> {
    let live = plane.engine.flow_count()?;
    let target = plane.engine.target();
    let memory = target.table_memory();
    let store = plane.engine.store();
    let capacity = target.capacity();
    Ok(json!({
        "tables": tables(&memory),
        "objects": objects(&memory, |table| store.count(table)),
        "flows": {
            "entry_bytes": size_of::<FlowEntry>(),
            "live": live,
            "capacity": capacity.flows,
        },
        "crm": crm(store, capacity),
    }))
}

fn tables(memory: &BTreeMap<Table, usize>) -> Vec<Value> {
    let rows = memory.iter();
    rows.map(|(table, bytes)| json!({"table": table.name(), "bytes": bytes}))
        .collect()
}

fn objects(memory: &BTreeMap<Table, usize>, count: impl Fn(&str) -> usize) -> Vec<Value> {
    let rows = OBJECTS.iter().map(|(object, table, parts)| {
        let count = count(table);
        let bytes: usize = parts.iter().filter_map(|part| memory.get(part)).sum();
        let each = (count > 0).then(|| bytes.div_ceil(count));
        json!({"object": object, "count": count, "bytes": bytes, "bytes_each": each})
    });
    rows.collect()
}

/// Used and available of each resource, as SONiC's `crm` shows them. What shares a table (rules of
/// both families) shares what is available; groups and rules of ACLs are summed over all ENIs.
pub(crate) fn crm(store: &Store, capacity: &Capacity) -> Map<String, Value> {
    let mut stats = Map::new();
    let mut add = |name: &str, used: usize, most: usize| {
        let available = most.saturating_sub(used);
        stats.insert(format!("crm_stats_dash_{name}_used"), used.into());
        stats.insert(format!("crm_stats_dash_{name}_available"), available.into());
    };
    add("vnet", store.vnets().count(), VNETS);
    let enis = store.enis().count();
    add("eni", enis, capacity.enis as usize);
    add("eni_ether_address_map", enis, capacity.enis as usize);
    let rules = store.count("DASH_ROUTE_RULE_TABLE");
    add(
        "ipv4_inbound_routing",
        rules,
        capacity.inbound_rules as usize,
    );
    add("ipv6_inbound_routing", 0, 0);

    let v4 = |prefix: &IpPrefix| prefix.addr().is_ipv4();
    let mut routes = [0, 0];
    for (group, _) in store.route_groups() {
        for (prefix, _) in store.routes(group) {
            routes[usize::from(!v4(&prefix))] += 1;
        }
    }
    add("ipv4_outbound_routing", routes[0], capacity.routes as usize);
    add("ipv6_outbound_routing", routes[1], capacity.routes as usize);

    let (mut mappings, mut pas) = ([0, 0], 0);
    for (vnet, _) in store.vnets() {
        let mut own = BTreeSet::new();
        for (ip, mapping) in store.mappings(vnet) {
            mappings[usize::from(ip.is_ipv6())] += 1;
            own.insert(mapping.underlay_ip);
        }
        pas += own.len();
    }
    let most = capacity.mappings as usize;
    let both = mappings[0] + mappings[1];
    // One table for both: what one has taken is gone for the other.
    add(
        "ipv4_outbound_ca_to_pa",
        mappings[0],
        most.saturating_sub(both - mappings[0]),
    );
    add(
        "ipv6_outbound_ca_to_pa",
        mappings[1],
        most.saturating_sub(both - mappings[1]),
    );
    add("ipv4_pa_validation", pas, most);
    add("ipv6_pa_validation", 0, 0);

    let (mut policies, mut rules) = ([0, 0], [0, 0]);
    for (policy, object) in store.meter_policies() {
        let family = usize::from(object.family == Family::V6);
        policies[family] += 1;
        rules[family] += store.meter_rules(policy).count();
    }
    let most = Table::MeterRule.def(capacity).max_entries as usize;
    let both = rules[0] + rules[1];
    for (family, name) in ["ipv4", "ipv6"].into_iter().enumerate() {
        // Numbers of 32 bits, of both families.
        let others = policies[1 - family];
        let room = (u32::MAX as usize).saturating_sub(others);
        add(&format!("{name}_meter_policy"), policies[family], room);
        let room = most.saturating_sub(both - rules[family]);
        add(&format!("{name}_meter_rule"), rules[family], room);
    }

    let (mut groups, mut rules) = ([0, 0], [0, 0]);
    for (group, acl) in store.acl_groups() {
        let family = usize::from(acl.family == Family::V6);
        groups[family] += 1;
        rules[family] += store.acl_rule_count(group);
    }
    let most = capacity.acl_groups as usize;
    let both = groups[0] + groups[1];
    for (family, name) in ["ipv4", "ipv6"].into_iter().enumerate() {
        let others = both - groups[family];
        add(
            &format!("{name}_acl_group"),
            groups[family],
            most.saturating_sub(others),
        );
    }
    // Rules have no number of their own: a group takes as many as memory has.
    for (family, name) in ["ipv4", "ipv6"].into_iter().enumerate() {
        let used = format!("crm_stats_dash_{name}_acl_rule_used");
        stats.insert(used, rules[family].into());
    }
    stats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_an_object_are_those_of_its_tables_over_its_rows() {
        let memory = [(Table::Mapping, 4_800), (Table::MappingMore, 200)].into();
        let objects = objects(&memory, |table| {
            usize::from(table == "DASH_VNET_MAPPING_TABLE") * 100
        });
        let of = |name: &str| objects.iter().find(|o| o["object"] == name).expect(name);
        assert_eq!(of("mapping")["bytes_each"], 50);
        assert_eq!(of("route")["bytes_each"], Value::Null);
    }

    #[test]
    fn nothing_configured_leaves_all_of_the_capacity() {
        let capacity = Capacity::default();
        let stats = crm(&Store::default(), &capacity);
        assert_eq!(stats["crm_stats_dash_eni_used"], 0);
        assert_eq!(stats["crm_stats_dash_eni_available"], capacity.enis);
        assert_eq!(
            stats["crm_stats_dash_ipv4_outbound_ca_to_pa_available"],
            capacity.mappings
        );
        assert_eq!(stats["crm_stats_dash_ipv6_pa_validation_available"], 0);
        assert_eq!(stats["crm_stats_dash_ipv6_meter_rule_used"], 0);
        assert_eq!(stats["crm_stats_dash_ipv4_meter_policy_used"], 0);
    }

    /// The names and what is used are SONiC's; one table holds the rules of both families.
    #[test]
    fn meter_policies_and_rules_are_counted_by_family() {
        let rows = serde_json::json!([
            {"DASH_METER_POLICY_TABLE:m4": {"ip_version": "ipv4"}, "OP": "SET"},
            {"DASH_METER_POLICY_TABLE:m6": {"ip_version": "ipv6"}, "OP": "SET"},
            {"DASH_METER_POLICY_TABLE:n6": {"ip_version": "ipv6"}, "OP": "SET"},
            {"DASH_METER_RULE_TABLE:m4:1": {"ip_prefix": "10.0.0.0/8", "metering_class": 1}, "OP": "SET"},
            {"DASH_METER_RULE_TABLE:m4:2": {"ip_prefix": "11.0.0.0/8", "metering_class": 1}, "OP": "SET"},
            {"DASH_METER_RULE_TABLE:m6:1": {"ip_prefix": "fd00::/8", "metering_class": 1}, "OP": "SET"},
        ]);
        let rows = dash_proto::load_config(&rows.to_string()).expect("rows");
        let (txn, _) = dash_proto::config_to_txn(&rows).expect("good rows");
        let mut store = Store::default();
        store.commit(txn).expect("they need nothing");
        let stats = crm(&store, &Capacity::default());
        let of = |name: &str| {
            stats[&format!("crm_stats_dash_{name}")]
                .as_u64()
                .expect(name)
        };
        assert_eq!(
            (of("ipv4_meter_policy_used"), of("ipv6_meter_policy_used")),
            (1, 2)
        );
        assert_eq!(
            (of("ipv4_meter_rule_used"), of("ipv6_meter_rule_used")),
            (2, 1)
        );
        let left = of("ipv4_meter_rule_available");
        assert_eq!(left, of("ipv6_meter_rule_available"), "they share a table");
        assert_eq!(left + 3, 256 << 10);
    }
}
