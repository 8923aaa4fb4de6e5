//! Every field of every row's message, from the descriptors: it acts, or is noted, refused, or a label by
//! its definition. A field that a new message brings fails here until somebody says which.

#![expect(clippy::unwrap_used, reason = "a test stops at the line that fails")]

use std::collections::{BTreeMap, BTreeSet};

use dash_model::objects::Object;
use dash_proto::schema::{message_of, tables};
use dash_proto::{DecodedRow, RowError, RowValue, decode_row};
use prost_reflect::{Kind, MessageDescriptor};
use serde_json::{Value, json};

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The object is another with it.
    Acts,
    /// The object is the same, and a warning names the field.
    Noted,
    /// The row is refused, and the error names the field.
    Refused,
    /// A name or a number for people and controllers, which no document has packets depend on.
    Label,
}

use Fate::{Acts, Label, Noted, Refused};

/// A field of a message, what becomes of it, and members that say something else of it than the table's
/// base row.
type Field = (&'static str, Fate, Value);

/// Tables whose rows are kept and named as `stored, not acted on`, with why.
const STORED: &[(&str, &str)] = &[
    ("DASH_HA_SCOPE_CONFIG_TABLE", "the host's, not the card's"),
    ("DASH_HA_SCOPE_STATE_TABLE", "for reading"),
    ("DASH_HA_SCOPE_TABLE", "high availability"),
    ("DASH_HA_SET_CONFIG_TABLE", "the host's, not the card's"),
    ("DASH_HA_SET_STATE_TABLE", "for reading"),
    ("DASH_HA_SET_TABLE", "high availability"),
    ("DASH_METER_TABLE", "for reading"),
];

/// Tables whose rows are refused.
const REFUSED: &[&str] = &["DASH_ROUTING_APPLIANCE_TABLE"];

/// Table, key, and a row that is accepted.
fn base(table: &str) -> (&'static str, Value) {
    match table {
        "DASH_APPLIANCE_TABLE" => ("1", json!({"sip": "10.0.0.1", "vm_vni": 9})),
        "DASH_ROUTING_TYPE_TABLE" => (
            "privatelink",
            json!({"items": [{"action_name": "a", "action_type": "staticencap", "encap_type": "nvgre", "vni": 100}]}),
        ),
        "DASH_VNET_TABLE" => ("v", json!({"vni": 2001})),
        "DASH_ENI_TABLE" => (
            "e",
            json!({"mac_address": "f4:93:9f:ef:c4:7e", "underlay_ip": "25.1.1.1", "vnet": "v"}),
        ),
        "DASH_QOS_TABLE" => ("q", json!({"bw": 1, "cps": 1, "flows": 1})),
        "DASH_ENI_ROUTE_TABLE" => ("e", json!({"group_id": "g"})),
        "DASH_ROUTE_GROUP_TABLE" => ("g", json!({"version": "1"})),
        "DASH_ROUTE_TABLE" => ("g:10.0.0.0/8", json!({"routing_type": "vnet", "vnet": "v"})),
        "DASH_ROUTE_RULE_TABLE" => (
            "e:9:10.0.0.0/8:1",
            json!({"action_type": "decap", "vnet": "v", "pa_validation": false}),
        ),
        "DASH_VNET_MAPPING_TABLE" => (
            "v:10.0.0.1",
            json!({"routing_type": "vnet_encap", "underlay_ip": "101.1.2.3"}),
        ),
        "DASH_TUNNEL_TABLE" => (
            "t",
            json!({"endpoints": ["40.0.0.1"], "encap_type": "vxlan", "vni": 100}),
        ),
        "DASH_OUTBOUND_PORT_MAP_TABLE" => ("m", json!({})),
        "DASH_OUTBOUND_PORT_MAP_RANGE_TABLE" => (
            "m:1-2",
            json!({"action": 2, "backend_ip": "60.0.0.1", "backend_port_base": 7}),
        ),
        "DASH_PA_VALIDATION_TABLE" => ("9", json!({"prefixes": ["10.0.0.0/8"]})),
        "DASH_ACL_GROUP_TABLE" => ("a", json!({"ip_version": "ipv4"})),
        "DASH_ACL_RULE_TABLE" => ("a:1", json!({"priority": 1, "action": "permit"})),
        "DASH_ACL_IN_TABLE" | "DASH_ACL_OUT_TABLE" => ("e:1", json!({"v4_acl_group_id": "a"})),
        "DASH_PREFIX_TAG_TABLE" => ("t", json!({"ip_version": "ipv4"})),
        "DASH_METER_POLICY_TABLE" => ("p", json!({"ip_version": "ipv4"})),
        "DASH_METER_RULE_TABLE" => ("p:1", json!({"ip_prefix": "10.0.0.0/8"})),
        "DASHWIRE_ENI_TABLE" => ("e", json!({"dscp_mode": "pipe", "dscp": 1})),
        "DASHWIRE_ROUTE_GROUP_TABLE" => ("g", json!({})),
        "SWITCH_TABLE" => ("switch", json!({})),
        other => panic!("{other} acts: it needs a base row"),
    }
}

/// Every field of a table that acts.
fn fields(table: &str) -> Vec<Field> {
    let binds = || {
        vec![
            ("v4_acl_group_id", Acts, json!({"v4_acl_group_id": "b"})),
            ("v6_acl_group_id", Acts, json!({"v6_acl_group_id": "b"})),
        ]
    };
    let tunnel = |change: Value| {
        let mut fields = json!({
            "overlay_sip_prefix": "fd00::", "overlay_dip_prefix": "fd01::",
        });
        let members = fields.as_object_mut().unwrap();
        members.extend(change.as_object().unwrap().clone());
        json!({"routing_type": "servicetunnel", "vnet": null, "service_tunnel": fields})
    };
    let item = |change: Value| {
        let mut fields = json!({"action_type": "staticencap", "encap_type": "nvgre", "vni": 100});
        let members = fields.as_object_mut().unwrap();
        members.extend(change.as_object().unwrap().clone());
        json!({"items": [fields]})
    };
    match table {
        "DASH_APPLIANCE_TABLE" => vec![
            ("sip", Acts, json!({"sip": "10.0.0.2"})),
            ("vm_vni", Acts, json!({"vm_vni": 10})),
            ("local_region_id", Noted, json!({"local_region_id": 7})),
            (
                "outbound_direction_lookup",
                Acts,
                json!({"outbound_direction_lookup": "dst_mac"}),
            ),
            ("trusted_vnis", Acts, json!({"trusted_vnis": "8"})),
            (
                "trusted_vnis_list",
                Acts,
                json!({"trusted_vnis_list": ["8"]}),
            ),
        ],
        "DASH_ROUTING_TYPE_TABLE" => vec![
            (
                "items.action_name",
                Label,
                item(json!({"action_name": "b"})),
            ),
            (
                "items.action_type",
                Acts,
                item(json!({"action_type": "decap"})),
            ),
            (
                "items.encap_type",
                Acts,
                item(json!({"encap_type": "vxlan"})),
            ),
            ("items.vni", Acts, item(json!({"vni": 101}))),
        ],
        "DASH_VNET_TABLE" => vec![
            ("vni", Acts, json!({"vni": 2002})),
            (
                "guid",
                Label,
                json!({"guid": "559c6ce8-26ab-4193-b946-ccc6e8f930b2"}),
            ),
            (
                "address_space",
                Noted,
                json!({"address_space": ["10.0.0.0/8"]}),
            ),
            ("peer_list", Noted, json!({"peer_list": ["w"]})),
            ("version", Label, json!({"version": "2"})),
        ],
        "DASH_QOS_TABLE" => vec![
            ("qos_id", Label, json!({"qos_id": "x"})),
            ("bw", Acts, json!({"bw": 2})),
            ("cps", Acts, json!({"cps": 2})),
            ("flows", Acts, json!({"flows": 2})),
        ],
        "DASH_ENI_TABLE" => vec![
            ("eni_id", Label, json!({"eni_id": "x"})),
            (
                "mac_address",
                Acts,
                json!({"mac_address": "f4:93:9f:ef:c4:7f"}),
            ),
            ("qos", Acts, json!({"qos": "q"})),
            ("underlay_ip", Acts, json!({"underlay_ip": "25.1.1.2"})),
            ("admin_state", Acts, json!({"admin_state": "enabled"})),
            ("vnet", Acts, json!({"vnet": "w"})),
            (
                "pl_sip_encoding",
                Acts,
                json!({"pl_sip_encoding": "fd00::/64"}),
            ),
            (
                "pl_underlay_sip",
                Acts,
                json!({"pl_underlay_sip": "10.0.0.9"}),
            ),
            (
                "v4_meter_policy_id",
                Acts,
                json!({"v4_meter_policy_id": "m"}),
            ),
            (
                "v6_meter_policy_id",
                Acts,
                json!({"v6_meter_policy_id": "m"}),
            ),
            (
                "disable_fast_path_icmp_flow_redirection",
                Acts,
                json!({"disable_fast_path_icmp_flow_redirection": true}),
            ),
            ("eni_mode", Acts, json!({"eni_mode": "fnic"})),
            ("trusted_vnis", Acts, json!({"trusted_vnis": "8"})),
            (
                "trusted_vnis_list",
                Acts,
                json!({"trusted_vnis_list": ["8"]}),
            ),
        ],
        "DASH_ENI_ROUTE_TABLE" => vec![("group_id", Acts, json!({"group_id": "h"}))],
        "DASH_ROUTE_GROUP_TABLE" => vec![
            ("guid", Label, json!({"guid": "x"})),
            ("version", Acts, json!({"version": "2"})),
        ],
        "DASH_ROUTE_TABLE" => vec![
            (
                "action_type",
                Acts,
                json!({"action_type": "drop", "routing_type": null, "vnet": null}),
            ),
            ("vnet", Acts, json!({"vnet": "w"})),
            (
                "vnet_direct.vnet",
                Acts,
                json!({"routing_type": "vnet_direct", "vnet": null, "vnet_direct": {"vnet": "w"}}),
            ),
            (
                "vnet_direct.overlay_ip",
                Acts,
                json!({
                    "routing_type": "vnet_direct", "vnet": null,
                    "vnet_direct": {"vnet": "v", "overlay_ip": "10.0.0.9"},
                }),
            ),
            // No document says what such a route does.
            (
                "appliance",
                Refused,
                json!({"routing_type": "appliance", "vnet": null, "appliance": "x"}),
            ),
            (
                "service_tunnel.overlay_sip",
                Acts,
                tunnel(json!({"overlay_sip_prefix": null, "overlay_sip": "fd02::"})),
            ),
            (
                "service_tunnel.overlay_dip",
                Acts,
                tunnel(json!({"overlay_dip_prefix": null, "overlay_dip": "fd02::"})),
            ),
            (
                "service_tunnel.underlay_sip",
                Acts,
                tunnel(json!({"underlay_sip": "30.0.0.1"})),
            ),
            (
                "service_tunnel.underlay_dip",
                Acts,
                tunnel(json!({"underlay_dip": "30.0.0.1"})),
            ),
            (
                "service_tunnel.overlay_sip_prefix",
                Acts,
                tunnel(json!({"overlay_sip_prefix": "fd03::"})),
            ),
            (
                "service_tunnel.overlay_dip_prefix",
                Acts,
                tunnel(json!({"overlay_dip_prefix": "fd03::"})),
            ),
            (
                "metering_policy_en",
                Noted,
                json!({"metering_policy_en": true}),
            ),
            ("metering_class", Noted, json!({"metering_class": 7})),
            ("metering_class_or", Acts, json!({"metering_class_or": 7})),
            ("metering_class_and", Acts, json!({"metering_class_and": 7})),
            (
                "routing_type",
                Acts,
                json!({"routing_type": "drop", "vnet": null}),
            ),
            ("underlay_sip", Acts, json!({"underlay_sip": "10.0.0.8"})),
            ("tunnel", Acts, json!({"tunnel": "t"})),
        ],
        "DASH_ROUTE_RULE_TABLE" => vec![
            ("action_type", Acts, json!({"action_type": "drop"})),
            ("priority", Noted, json!({"priority": 2})),
            ("protocol", Acts, json!({"protocol": 6})),
            ("vnet", Acts, json!({"vnet": "w"})),
            ("pa_validation", Acts, json!({"pa_validation": true})),
            ("metering_class", Noted, json!({"metering_class": 7})),
            ("region", Noted, json!({"region": "r"})),
            ("routing_type", Noted, json!({"routing_type": "vnet"})),
            ("metering_class_or", Acts, json!({"metering_class_or": 7})),
            ("metering_class_and", Acts, json!({"metering_class_and": 7})),
        ],
        "DASH_VNET_MAPPING_TABLE" => {
            let link = |change: Value| {
                let mut fields = json!({
                    "routing_type": "privatelink",
                    "overlay_sip_prefix": "fd40::/96", "overlay_dip_prefix": "2603::1/128",
                });
                let members = fields.as_object_mut().unwrap();
                members.extend(change.as_object().unwrap().clone());
                fields
            };
            vec![
                (
                    "action_type",
                    Acts,
                    link(json!({"routing_type": null, "action_type": "privatelink"})),
                ),
                ("underlay_ip", Acts, json!({"underlay_ip": "101.1.2.4"})),
                (
                    "mac_address",
                    Acts,
                    json!({"mac_address": "f4:93:9f:ef:c4:7f"}),
                ),
                ("metering_class", Noted, json!({"metering_class": 7})),
                ("override_meter", Noted, json!({"override_meter": true})),
                ("use_dst_vni", Acts, json!({"use_dst_vni": true})),
                ("use_pl_sip_eni", Noted, json!({"use_pl_sip_eni": true})),
                ("overlay_sip", Noted, json!({"overlay_sip": "fd00::1"})),
                ("overlay_dip", Noted, json!({"overlay_dip": "fd00::1"})),
                (
                    "routing_appliance_id",
                    Noted,
                    json!({"routing_appliance_id": 22}),
                ),
                ("metering_class_or", Acts, json!({"metering_class_or": 7})),
                (
                    "overlay_sip_prefix",
                    Acts,
                    link(json!({"overlay_sip_prefix": "fd41::/96"})),
                ),
                (
                    "overlay_dip_prefix",
                    Acts,
                    link(json!({"overlay_dip_prefix": "2603::2/128"})),
                ),
                ("tunnel", Acts, json!({"tunnel": "t"})),
                ("routing_type", Acts, link(json!({}))),
                ("port_map", Acts, link(json!({"port_map": "m"}))),
            ]
        }
        "DASH_TUNNEL_TABLE" => vec![
            ("endpoints", Acts, json!({"endpoints": ["40.0.0.2"]})),
            ("encap_type", Acts, json!({"encap_type": "nvgre"})),
            ("vni", Acts, json!({"vni": 101})),
            ("metering_class_or", Acts, json!({"metering_class_or": 7})),
        ],
        "DASH_OUTBOUND_PORT_MAP_TABLE" => vec![("guid", Label, json!({"guid": "x"}))],
        "DASH_OUTBOUND_PORT_MAP_RANGE_TABLE" => vec![
            ("action", Acts, json!({"action": 1})),
            ("backend_ip", Acts, json!({"backend_ip": "60.0.0.2"})),
            ("backend_port_base", Acts, json!({"backend_port_base": 8})),
        ],
        "DASH_PA_VALIDATION_TABLE" => vec![("prefixes", Acts, json!({"prefixes": ["11.0.0.0/8"]}))],
        "DASH_ACL_GROUP_TABLE" => vec![
            ("ip_version", Acts, json!({"ip_version": "ipv6"})),
            (
                "guid",
                Label,
                json!({"guid": "559c6ce8-26ab-4193-b946-ccc6e8f930b2"}),
            ),
            ("version", Label, json!({"version": "2"})),
        ],
        "DASH_ACL_RULE_TABLE" => vec![
            ("priority", Acts, json!({"priority": 2})),
            ("action", Acts, json!({"action": "deny"})),
            ("terminating", Acts, json!({"terminating": true})),
            ("protocol", Acts, json!({"protocol": [6]})),
            ("src_tag", Acts, json!({"src_tag": ["t"]})),
            ("dst_tag", Acts, json!({"dst_tag": ["t"]})),
            ("src_addr", Acts, json!({"src_addr": ["10.0.0.0/8"]})),
            ("dst_addr", Acts, json!({"dst_addr": ["10.0.0.0/8"]})),
            ("src_port", Acts, json!({"src_port": ["80"]})),
            ("dst_port", Acts, json!({"dst_port": ["80"]})),
        ],
        "DASH_ACL_IN_TABLE" | "DASH_ACL_OUT_TABLE" => binds(),
        "DASH_PREFIX_TAG_TABLE" => vec![
            ("ip_version", Acts, json!({"ip_version": "ipv6"})),
            ("prefix_list", Acts, json!({"prefix_list": ["10.0.0.0/8"]})),
        ],
        "DASH_METER_POLICY_TABLE" => vec![("ip_version", Acts, json!({"ip_version": "ipv6"}))],
        "DASH_METER_RULE_TABLE" => vec![
            ("priority", Acts, json!({"priority": 2})),
            ("ip_prefix", Acts, json!({"ip_prefix": "11.0.0.0/8"})),
            ("metering_class", Acts, json!({"metering_class": 7})),
        ],
        "DASHWIRE_ENI_TABLE" => vec![
            (
                "dscp_mode",
                Acts,
                json!({"dscp_mode": "preserve", "dscp": null}),
            ),
            ("dscp", Acts, json!({"dscp": 2})),
            (
                "disable_fast_path_icmp_flow_redirection",
                Acts,
                json!({"disable_fast_path_icmp_flow_redirection": true}),
            ),
            (
                "max_resimulated_flow_per_second",
                Acts,
                json!({"max_resimulated_flow_per_second": 7}),
            ),
            ("mtu", Acts, json!({"mtu": 1500})),
            (
                "enable_reverse_tunnel_learning",
                Acts,
                json!({"enable_reverse_tunnel_learning": true}),
            ),
            (
                "reverse_tunnel_sip",
                Acts,
                json!({"reverse_tunnel_sip": "10.0.0.9"}),
            ),
            ("pps", Acts, json!({"pps": 1000})),
        ],
        "SWITCH_TABLE" => {
            // What is not about VXLAN is a switch's: its bridge, its routes, its shell.
            let other = |name: &'static str| (name, Noted, json!({name: "1"}));
            vec![
                ("vxlan_port", Acts, json!({"vxlan_port": 4790})),
                ("vxlan_sport", Acts, json!({"vxlan_sport": "0xFFA0"})),
                ("vxlan_mask", Acts, json!({"vxlan_mask": "3"})),
                ("vxlan_security", Acts, json!({"vxlan_security": "true"})),
                other("fdb_unicast_miss_packet_action"),
                other("fdb_broadcast_miss_packet_action"),
                other("fdb_multicast_miss_packet_action"),
                other("fdb_aging_time"),
                other("ecmp_hash_seed"),
                other("ecmp_hash_offset"),
                other("lag_hash_seed"),
                other("lag_hash_offset"),
                other("ordered_ecmp"),
                other("debug_shell_enable"),
                other("vxlan_router_mac"),
            ]
        }
        "DASHWIRE_ROUTE_GROUP_TABLE" => vec![("disabled", Acts, json!({"disabled": true}))],
        other => panic!("{other} acts: its fields are to be listed"),
    }
}

/// Names of a message's fields, those of messages in it behind theirs; addresses, prefixes, ranges and
/// GUIDs are values.
fn names(message: &MessageDescriptor) -> Vec<String> {
    let mut names = Vec::new();
    for field in message.fields() {
        match field.kind() {
            Kind::Message(inner) if inner.package_name() != "dash.types" => {
                let within = self::names(&inner).into_iter();
                names.extend(within.map(|name| format!("{}.{name}", field.name())));
            }
            _ => names.push(field.name().to_owned()),
        }
    }
    names
}

/// The base row with members changed; `null` takes one out.
fn with(base: &Value, change: &Value) -> Value {
    let mut row = base.as_object().unwrap().clone();
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(row.remove(name)),
            value => drop(row.insert(name.clone(), value.clone())),
        }
    }
    Value::Object(row)
}

/// Members of members that are `null` go, too.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

fn decode(table: &str, key: &str, row: &Value) -> Result<DecodedRow, RowError> {
    let mut row = row.clone();
    without_nulls(&mut row);
    decode_row(table, key, RowValue::Json(&row))
}

/// True when a warning or an error is about the field.
fn names_it(text: &str, field: &str) -> bool {
    let last = field.rsplit('.').next().unwrap();
    text.contains(last)
}

#[test]
fn every_field_acts_or_is_noted_or_refused() {
    for (table, message) in tables() {
        if REFUSED.contains(&table) || STORED.iter().any(|(stored, _)| *stored == table) {
            continue;
        }
        let descriptor = message_of(table).unwrap();
        let fields = fields(table);
        let listed: BTreeMap<&str, Fate> = fields
            .iter()
            .map(|(name, fate, _)| (*name, *fate))
            .collect();
        let there: BTreeSet<String> = names(&descriptor).into_iter().collect();
        let named: BTreeSet<String> = listed.keys().map(|name| (*name).to_owned()).collect();
        assert_eq!(named, there, "fields of {message}");

        let (key, base) = base(table);
        let plain = decode(table, key, &base).unwrap_or_else(|e| panic!("{table}: {e}"));
        for (field, fate, change) in &fields {
            let changed = with(&base, change);
            let of = format!("{table} {field} in {changed}");
            match (fate, decode(table, key, &changed)) {
                (Acts, Ok(row)) => {
                    assert_ne!(row.object, plain.object, "{of} changes nothing");
                }
                (Noted, Ok(row)) => {
                    assert_eq!(
                        (row.key, row.object),
                        (plain.key.clone(), plain.object.clone()),
                        "{of}"
                    );
                    let noted = row.warnings.iter().any(|text| names_it(text, field));
                    assert!(noted, "{of}: {:?}", row.warnings);
                }
                (Label, Ok(row)) => assert_eq!(row.object, plain.object, "{of}"),
                (Refused, Err(error)) => {
                    assert!(names_it(&error.to_string(), field), "{of}: {error}");
                }
                (fate, Ok(row)) => panic!("{of} should be {fate:?}: {row:?}"),
                (fate, Err(error)) => panic!("{of} should be {fate:?}: {error}"),
            }
        }
    }
}

/// What a service tunnel's fields change is seen beside another service tunnel.
#[test]
fn every_field_of_a_service_tunnel_acts() {
    let fields = fields("DASH_ROUTE_TABLE");
    let tunnels = fields
        .iter()
        .filter(|(name, _, _)| name.starts_with("service_tunnel."));
    let (key, base) = base("DASH_ROUTE_TABLE");
    let mut objects = Vec::new();
    for (field, _, change) in tunnels {
        let row = decode("DASH_ROUTE_TABLE", key, &with(&base, change)).unwrap();
        assert!(!objects.contains(&row.object), "{field}");
        objects.push(row.object);
    }
    assert_eq!(objects.len(), 6);
}

#[test]
fn rows_that_are_only_stored_say_so() {
    let all: BTreeSet<&str> = tables().map(|(table, _)| table).collect();
    for table in REFUSED {
        assert!(all.contains(table), "{table}");
        let error = decode_row(table, "1", RowValue::Pb(b"")).unwrap_err();
        assert_eq!(error.kind, dash_proto::Kind::Unimplemented, "{table}");
    }
    for (table, _) in STORED {
        assert!(all.contains(table), "{table}");
        let row = decode_row(table, "1", RowValue::Pb(b"")).unwrap();
        assert_eq!(row.object, Object::Opaque, "{table}");
        assert_eq!(row.warnings, ["stored, not acted on"], "{table}");
    }
}
