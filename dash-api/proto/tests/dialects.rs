//! One meaning, many spellings: every way the tools of the field write a row.

use dash_proto::{Kind, encode_row, row_to_json};
use serde_json::{Value, json};

fn pb(table: &str, value: &Value) -> Vec<u8> {
    encode_row(table, "k", value).unwrap_or_else(|e| panic!("{value}: {e}"))
}

/// All values are the same bytes, and print as `canonical`.
#[track_caller]
fn same(table: &str, canonical: Value, spellings: &[Value]) {
    let bytes = pb(table, &canonical);
    for value in spellings {
        assert_eq!(pb(table, value), bytes, "{value}");
    }
    assert_eq!(row_to_json(table, &bytes), canonical);
}

#[track_caller]
fn refused(table: &str, value: Value, kind: Kind, field: &str) {
    let error = encode_row(table, "k", &value).expect_err(&value.to_string());
    assert_eq!(
        (error.kind, error.field.as_deref()),
        (kind, Some(field)),
        "{error}"
    );
}

#[test]
fn integers_and_booleans_may_be_text() {
    same(
        "DASH_VNET_MAPPING_TABLE",
        json!({"use_dst_vni": true, "metering_class_or": 16, "routing_type": "vnet_encap"}),
        &[
            json!({"use_dst_vni": "true", "metering_class_or": "16", "routing_type": "vnet_encap"}),
            json!({"use_dst_vni": "1", "metering_class_or": "0x10", "routing_type": 4}),
            json!({"use_dst_vni": 1, "metering_class_or": 16, "routing_type": "4"}),
            json!({"useDstVni": "True", "meteringClassOr": 16, "routingType": "ROUTING_TYPE_VNET_ENCAP"}),
        ],
    );
    for bad in [
        json!(-1),
        json!("-1"),
        json!("+1"),
        json!("1 0"),
        json!(1.5),
        json!([1]),
        json!(u64::MAX),
    ] {
        refused(
            "DASH_VNET_TABLE",
            json!({"vni": bad}),
            Kind::InvalidArgument,
            "vni",
        );
    }
    for bad in [json!("yes"), json!(2), json!({})] {
        refused(
            "DASH_ACL_RULE_TABLE",
            json!({"terminating": bad}),
            Kind::InvalidArgument,
            "terminating",
        );
    }
}

#[test]
fn macs() {
    same(
        "DASH_ENI_TABLE",
        json!({"mac_address": "f4:93:9f:ef:c4:7e"}),
        &[
            json!({"mac_address": "F4:93:9F:EF:C4:7E"}),
            json!({"mac_address": "f4-93-9f-ef-c4-7e"}),
            json!({"mac_address": "F4939FEFC47E"}),
            json!({"mac_address": "f493.9fef.c47e"}),
            json!({"mac_address": "0xf4939fefc47e"}),
        ],
    );
    for bad in ["F4:93:9F:EF:C4:7", "F4:93:9F:EF:C4:7G", "é1"] {
        refused(
            "DASH_ENI_TABLE",
            json!({"mac_address": bad}),
            Kind::InvalidArgument,
            "mac_address",
        );
    }
}

#[test]
fn enums_by_short_name_full_name_and_number() {
    for (table, field, canonical, spellings) in [
        (
            "DASH_ENI_TABLE",
            "admin_state",
            "enabled",
            vec![json!("ENABLED"), json!("STATE_ENABLED"), json!(2)],
        ),
        (
            "DASH_ACL_GROUP_TABLE",
            "ip_version",
            "ipv6",
            vec![json!("IPv6"), json!("IP_VERSION_IPV6"), json!("2")],
        ),
        (
            "DASH_ACL_RULE_TABLE",
            "action",
            "permit",
            vec![json!("allow"), json!("ACTION_PERMIT"), json!("Permit")],
        ),
        (
            "DASH_ACL_RULE_TABLE",
            "action",
            "deny",
            vec![json!("ACTION_DENY"), json!(1)],
        ),
        (
            "DASH_ROUTE_RULE_TABLE",
            "action_type",
            "decap",
            vec![json!("ACTION_TYPE_DECAP"), json!(7)],
        ),
        (
            "DASH_ROUTE_TABLE",
            "routing_type",
            "privatelink",
            vec![json!("PrivateLink"), json!("private_link")],
        ),
    ] {
        let spellings: Vec<Value> = spellings.into_iter().map(|v| json!({field: v})).collect();
        same(table, json!({field: canonical}), &spellings);
    }
    let error = encode_row("DASH_ACL_RULE_TABLE", "k", &json!({"action": "maybe"})).unwrap_err();
    assert_eq!(error.reason, "`maybe` is none of deny, permit");
}

#[test]
fn routing_types_as_list_items_or_flat() {
    let item = json!({"action_name": "a", "action_type": "staticencap", "encap_type": "vxlan"});
    same(
        "DASH_ROUTING_TYPE_TABLE",
        json!({"items": [item]}),
        &[
            json!([item]),
            item.clone(),
            json!({"name": "a", "action_type": "staticencap", "encap_type": "vxlan"}),
            json!([{"action_name": "a", "action_type": "ACTION_TYPE_STATICENCAP", "encap_type": 1}]),
        ],
    );
    same(
        "DASH_ROUTING_TYPE_TABLE",
        json!({"items": [
            {"action_name": "action-1", "action_type": "4_to_6"},
            {"action_name": "action-2", "action_type": "staticencap", "encap_type": "nvgre", "vni": 100},
        ]}),
        &[json!([
            {"action_name": "action-1", "action_type": "4to6"},
            {"action_name": "action-2", "action_type": "staticencap", "encap_type": "nvgre", "vni": "100"},
        ])],
    );
    refused(
        "DASH_ROUTING_TYPE_TABLE",
        json!({"items": {}}),
        Kind::InvalidArgument,
        "items",
    );
}

#[test]
fn routes_flat_and_nested() {
    let t = "DASH_ROUTE_TABLE";
    same(
        t,
        json!({"vnet_direct": {"vnet": "v", "overlay_ip": "1.2.3.4"}, "routing_type": "vnet_direct"}),
        &[
            json!({"routing_type": "vnet_direct", "vnet": "v", "overlay_ip": "1.2.3.4"}),
            json!({"routing_type": 3, "overlay_ip": "1.2.3.4", "vnet": "v"}),
        ],
    );
    same(
        t,
        json!({"action_type": "vnet_direct", "vnet_direct": {"vnet": "v", "overlay_ip": "1.2.3.4"}}),
        &[json!({"action_type": "vnet_direct", "vnet": "v", "overlay_ip": "1.2.3.4"})],
    );
    same(
        t,
        json!({
            "service_tunnel": {"overlay_sip": "fd00::1", "overlay_dip": "fd00::2", "underlay_dip": "1.1.1.1"},
            "routing_type": "servicetunnel", "underlay_sip": "2.2.2.2",
        }),
        &[json!({
            "routing_type": "servicetunnel", "overlay_sip": "fd00::1", "overlay_dip": "fd00::2",
            "underlay_sip": "2.2.2.2", "underlay_dip": "1.1.1.1",
        })],
    );
    refused(
        t,
        json!({"routing_type": "vnet", "vnet": "v", "appliance": "a"}),
        Kind::InvalidArgument,
        "appliance",
    );
}

/// `vnet` with routing type vnet_direct is wrong, and must not become right by being printed.
#[test]
fn a_wrong_route_prints_so_that_it_stays_wrong() {
    let t = "DASH_ROUTE_TABLE";
    let bytes = [0x12, 1, b'v', 0x50, 3];
    let json = row_to_json(t, &bytes);
    assert_eq!(
        json,
        json!({"RoutingTypeData": {"vnet": "v"}, "routing_type": "vnet_direct"})
    );
    assert_eq!(pb(t, &json), bytes);
}

#[test]
fn lists_as_arrays_or_commas() {
    let t = "DASH_ACL_RULE_TABLE";
    same(
        t,
        json!({
            "action": "permit", "protocol": [6, 17],
            "src_addr": ["10.0.0.0/8", "20.0.0.1/32"], "src_port": ["8-10", 12], "src_tag": ["A", "B"],
        }),
        &[
            json!({
                "action": "allow", "protocols": "6,17", "src_addr": "10.0.0.0/255.0.0.0, 20.0.0.1",
                "src_port": "8-10,12", "src_tag": "A,B",
            }),
            json!({
                "action": "allow", "protocol@": "6,17", "src_addr@": "10.0.0.0/8,20.0.0.1/32",
                "src_port@": "8-10,12", "src_tag@": "A,B",
            }),
            json!({
                "action": 2, "protocol": ["6", "17"],
                "src_addr": [{"ip": "10.0.0.0", "mask": "255.0.0.0"}, "20.0.0.1"],
                "src_port": [{"range": {"min": "8", "max": 10}}, {"value": "12"}], "src_tag": ["A", "B"],
            }),
            json!({
                "action": 2, "protocol": ["6,17"],
                "src_addr": ["10.0.0.0/8,20.0.0.1"],
                "src_port": [{"min": 8, "max": 10}, "12"], "src_tag": ["A", "B"],
            }),
        ],
    );
    // One element alone, and none.
    same(
        t,
        json!({"protocol": [6], "src_tag": ["A"]}),
        &[json!({"protocol": 6, "src_tag": "A"})],
    );
    same(
        t,
        json!({}),
        &[
            json!({"src_addr": "", "src_tag": []}),
            json!({"src_port": null}),
        ],
    );
    refused(
        t,
        json!({"src_port": "8-10,x"}),
        Kind::InvalidArgument,
        "src_port[1]",
    );
    refused(
        t,
        json!({"protocol": "6", "protocols": "7"}),
        Kind::InvalidArgument,
        "protocols",
    );
    refused(
        t,
        json!({"protocol": "6", "protocol@": "7"}),
        Kind::InvalidArgument,
        "protocol@",
    );
}

#[test]
fn addresses_and_prefixes() {
    let t = "DASH_ENI_TABLE";
    same(
        t,
        json!({"underlay_ip": "25.1.1.1", "pl_sip_encoding": "::d107:64:ff71:0:0/::ffff:ffff:ffff:0:0"}),
        &[
            json!({
                "underlay_ip": {"ipv4": "25.1.1.1"},
                "pl_sip_encoding": {"ip": "::d107:64:ff71:0:0", "mask": "::ffff:ffff:ffff:0:0"},
            }),
            // The field's own number is the quad as a little-endian word.
            json!({
                "underlay_ip": {"ipv4": 16_843_033},
                "pl_sip_encoding": "0:0:0:d107:64:ff71:0:0/0:0:0:ffff:ffff:ffff:0:0",
            }),
        ],
    );
    same(
        "DASH_PREFIX_TAG_TABLE",
        json!({"ip_version": "ipv6", "prefix_list": ["fd00::/8", "::/0", "::1/128"]}),
        &[json!({"ip_version": "ipv6", "prefix_list": "fd00::/ff00::,::/0,::1"})],
    );
    for bad in [
        "10.0.0",
        "10.0.0.0/33",
        "10.0.0.0/ff00::",
        "10.0.0.0/",
        "10.0.0.0/+8",
        "/8",
        "::/129",
    ] {
        refused(
            "DASH_PREFIX_TAG_TABLE",
            json!({"prefix_list": [bad]}),
            Kind::InvalidArgument,
            "prefix_list[0]",
        );
    }
    refused(
        t,
        json!({"underlay_ip": {"ipv4": "::1"}}),
        Kind::InvalidArgument,
        "underlay_ip.ipv4",
    );
    refused(
        t,
        json!({"underlay_ip": 7}),
        Kind::InvalidArgument,
        "underlay_ip",
    );
}

#[test]
fn guids_and_what_stands_for_them() {
    same(
        "DASH_VNET_TABLE",
        json!({"vni": 1, "guid": "559c6ce8-26ab-4193-b946-ccc6e8f930b2"}),
        &[
            json!({"vni": "1", "guid": "559C6CE826AB4193B946CCC6E8F930B2"}),
            json!({"vni": "1", "guid": {"value": "559c6ce826ab4193b946ccc6e8f930b2"}}),
        ],
    );
    // sonic-mgmt has plain names there, which mean nothing and must load.
    same("DASH_ACL_GROUP_TABLE", json!({"guid": "dash-group-1"}), &[]);
    // These GUIDs are texts in the message.
    same(
        "DASH_ROUTE_GROUP_TABLE",
        json!({"guid": "group_id_1-test", "version": "1"}),
        &[json!({"guid": "group_id_1-test", "version": 1})],
    );
}

#[test]
fn trusted_vnis_old_and_new() {
    let t = "DASH_APPLIANCE_TABLE";
    same(
        t,
        json!({"trusted_vnis_list": [100, "250-511"]}),
        &[
            json!({"trusted_vnis_list": [{"value": 100}, {"range": {"min": 250, "max": 511}}]}),
            json!({"trusted_vnis_list": "100,250-511"}),
            json!({"trusted_vnis": ["100", "250-511"]}),
        ],
    );
    // sonic-mgmt's range in the single field.
    same(
        t,
        json!({"trusted_vnis": "100-200"}),
        &[json!({"trusted_vnis": "100,200"})],
    );
    same(
        t,
        json!({"trusted_vnis": 100}),
        &[json!({"trusted_vnis": "100"})],
    );
}

#[test]
fn hld_names_of_other_tables() {
    same(
        "DASH_PA_VALIDATION_TABLE",
        json!({"prefixes": ["10.0.0.1/32", "10.0.0.2/32"]}),
        &[json!({"addresses": "10.0.0.1,10.0.0.2"})],
    );
    same(
        "DASH_VNET_TABLE",
        json!({"vni": 1, "address_space": ["10.0.0.0/8"]}),
        &[json!({"vni": 1, "address_spaces": "10.0.0.0/8"})],
    );
    same(
        "DASH_TUNNEL_TABLE",
        json!({"endpoints": ["60.60.60.60", "70.70.70.70"], "encap_type": "vxlan", "vni": 100}),
        &[json!({"endpoints": "60.60.60.60,70.70.70.70", "encap_type": 1, "vni": "100"})],
    );
}

#[test]
fn misspelt_and_misshapen_rows_are_malformed() {
    refused(
        "DASH_VNET_TABLE",
        json!({"vnii": 1}),
        Kind::Malformed,
        "vnii",
    );
    refused(
        "DASH_ROUTE_TABLE",
        json!({"vnet_direct": {"vnett": "v"}}),
        Kind::Malformed,
        "vnet_direct.vnett",
    );
    for value in [json!(null), json!(1), json!("x"), json!([])] {
        let error = encode_row("DASH_VNET_TABLE", "k", &value).unwrap_err();
        assert_eq!((error.kind, error.field), (Kind::Malformed, None));
    }
    // The empty hash of redis.
    assert_eq!(pb("DASH_VNET_TABLE", &json!({"NULL": "NULL"})), b"");
}

#[test]
fn bytes_without_a_better_form_come_back_too() {
    let raw = [0xff, 0x00, 0x7b];
    let json = row_to_json("DASH_NEW_TABLE", &raw);
    assert_eq!(json, json!({"pb": "0xff007b"}));
    assert_eq!(pb("DASH_NEW_TABLE", &json), raw);
    let text = json!({"anything": ["goes"]});
    let bytes = pb("DASH_NEW_TABLE", &text);
    assert_eq!(row_to_json("DASH_NEW_TABLE", &bytes), text);
}
