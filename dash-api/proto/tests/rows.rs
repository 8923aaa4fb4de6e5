//! What a row may hold: every check that needs no other row.

#![expect(clippy::unwrap_used, reason = "a test stops at the line that fails")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dash_model::ObjectKey;
use dash_model::net::{IpPrefix, Mac, PortRange, Vni};
use dash_model::objects::{
    AclAction, DscpMode, EncapType, EniMode, EniSettings, Family, MeterClass, MeterRule, Object,
    PortMapRange, Qos, Route, RouteAction, RuleAction, VnetMapping,
};
use dash_proto::{
    DecodedRow, Kind, RowError, RowValue, change_row, decode_row, encode_row, row_to_json,
};
use serde_json::{Value, json};

fn row(table: &str, key: &str, value: Value) -> Result<DecodedRow, RowError> {
    let by_json = decode_row(table, key, RowValue::Json(&value));
    // The protobuf way must judge the same.
    if let Ok(row) = &by_json {
        let again = decode_row(table, key, RowValue::Pb(&row.raw)).unwrap();
        assert_eq!(again, *row);
    }
    by_json
}

fn ok(table: &str, key: &str, value: Value) -> DecodedRow {
    row(table, key, value.clone()).unwrap_or_else(|e| panic!("{value}: {e}"))
}

#[track_caller]
fn refused(table: &str, key: &str, value: Value, kind: Kind, field: &str) {
    match row(table, key, value.clone()) {
        Ok(row) => panic!("{value} gave {row:?}"),
        Err(e) => {
            assert_eq!(
                (e.kind, e.field.as_deref()),
                (kind, Some(field)),
                "{value}: {e}"
            );
            assert!(!e.reason.is_empty());
        }
    }
}

/// `base` with the members of `change`.
fn with(base: &Value, change: Value) -> Value {
    let mut fields = base.as_object().unwrap().clone();
    fields.extend(change.as_object().unwrap().clone());
    Value::Object(fields)
}

const BAD: Kind = Kind::InvalidArgument;
const LATER: Kind = Kind::Unimplemented;

#[test]
fn appliance_fields() {
    let t = "DASH_APPLIANCE_TABLE";
    let base = json!({"sip": "10.1.0.5", "vm_vni": 2001});
    let Object::Appliance(appliance) = ok(
        t,
        "100",
        with(
            &base,
            json!({"trusted_vnis": "9", "trusted_vnis_list": ["100", "250-511"]}),
        ),
    )
    .object
    else {
        panic!()
    };
    assert_eq!(appliance.sip.to_string(), "10.1.0.5");
    let trusted: Vec<_> = appliance
        .trusted_vnis
        .iter()
        .map(|r| (r.min.get(), r.max.get()))
        .collect();
    assert_eq!(trusted, [(9, 9), (100, 100), (250, 511)]);

    refused(t, "1", json!({"vm_vni": 1}), BAD, "sip");
    refused(t, "1", json!({"sip": {}, "vm_vni": 1}), BAD, "sip");
    refused(t, "1", json!({"sip": "fd00::1", "vm_vni": 1}), LATER, "sip");
    refused(
        t,
        "1",
        json!({"sip": {"ipv6": "0x0102"}, "vm_vni": 1}),
        BAD,
        "sip",
    );
    refused(t, "1", json!({"sip": "10.1.0.5"}), BAD, "vm_vni");
    refused(
        t,
        "1",
        with(&base, json!({"vm_vni": 0x100_0000})),
        BAD,
        "vm_vni",
    );
    refused(
        t,
        "1",
        with(&base, json!({"trusted_vnis_list": [5, "9-8"]})),
        BAD,
        "trusted_vnis_list[1]",
    );
    refused(
        t,
        "1",
        with(&base, json!({"trusted_vnis": 0})),
        BAD,
        "trusted_vnis",
    );
    refused(
        t,
        "1",
        with(&base, json!({"trusted_vnis": {}})),
        BAD,
        "trusted_vnis",
    );
    let lookup = |value: &str| with(&base, json!({"outbound_direction_lookup": value}));
    ok(t, "1", lookup("src_mac"));
    ok(t, "1", lookup(""));
    ok(t, "1", lookup("dst_mac"));
    refused(t, "1", lookup("mac"), BAD, "outbound_direction_lookup");
}

#[test]
fn vni_limits() {
    for vni in [1, 0xff_ffff] {
        ok("DASH_VNET_TABLE", "v", json!({"vni": vni}));
    }
    for vni in [0_u32, 0x100_0000, u32::MAX] {
        refused("DASH_VNET_TABLE", "v", json!({"vni": vni}), BAD, "vni");
    }
}

#[test]
fn eni_fields() {
    let t = "DASH_ENI_TABLE";
    let base = json!({"mac_address": "F4:93:9F:EF:C4:7E", "underlay_ip": "25.1.1.1", "vnet": "v"});
    let Object::Eni(eni) = ok(t, "e", base.clone()).object else {
        panic!()
    };
    assert_eq!(eni.mac, Mac([0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e]));
    assert!(!eni.enabled, "an unset admin state does not forward");
    for (state, enabled) in [
        ("enabled", true),
        ("disabled", false),
        ("STATE_ENABLED", true),
    ] {
        let Object::Eni(eni) = ok(t, "e", with(&base, json!({"admin_state": state}))).object else {
            panic!()
        };
        assert_eq!(eni.enabled, enabled);
    }
    for mac in [
        "F5:93:9F:EF:C4:7E",
        "00:00:00:00:00:00",
        "F4:93:9F:EF:C4",
        "",
    ] {
        refused(
            t,
            "e",
            with(&base, json!({"mac_address": mac})),
            BAD,
            "mac_address",
        );
    }
    refused(
        t,
        "e",
        with(&base, json!({"underlay_ip": null})),
        BAD,
        "underlay_ip",
    );
    refused(
        t,
        "e",
        with(&base, json!({"underlay_ip": "::1"})),
        LATER,
        "underlay_ip",
    );
    refused(
        t,
        "e",
        with(&base, json!({"admin_state": 7})),
        BAD,
        "admin_state",
    );
    refused(
        t,
        "e",
        with(&base, json!({"admin_state": "on"})),
        BAD,
        "admin_state",
    );
    refused(t, "e", with(&base, json!({"eni_mode": 9})), BAD, "eni_mode");
    for (text, mode) in [
        ("vm", EniMode::Vm),
        ("unspecified", EniMode::Vm),
        ("fnic", EniMode::Floating),
    ] {
        let row = ok(t, "e", with(&base, json!({"eni_mode": text})));
        let Object::Eni(eni) = &row.object else {
            panic!("{row:?}")
        };
        assert_eq!(eni.mode, mode, "{text}");
    }
}

#[test]
fn eni_fields_without_effect_are_named() {
    let row = ok(
        "DASH_ENI_TABLE",
        "e",
        json!({
            "mac_address": "F4939FEFC47E", "underlay_ip": "25.1.1.1", "qos": "q",
        }),
    );
    assert_eq!(row.warnings, [] as [&str; 0]);
}

#[test]
fn routing_types() {
    let t = "DASH_ROUTING_TYPE_TABLE";
    let item = |encap: &str| json!([{"action_name": "a", "action_type": "staticencap", "encap_type": encap}]);
    let Object::RoutingType(def) = ok(t, "vnet_encap", item("vxlan")).object else {
        panic!()
    };
    assert!(def.static_encap.is_some());
    refused(t, "vnet_encap", item("nvgre"), LATER, "items[0].encap_type");
    refused(
        t,
        "vnet_encap",
        json!([{"action_type": "staticencap"}]),
        BAD,
        "items[0].encap_type",
    );
    refused(
        t,
        "vnet_encap",
        json!([{"action_type": 77}]),
        BAD,
        "items[0].action_type",
    );
    let keyed = json!([
        {"action_name": "a", "action_type": "4_to_6"},
        {"action_name": "b", "action_type": "staticencap", "encap_type": "nvgre", "vni": 100}
    ]);
    let encap = |kind: &str| match ok(t, kind, keyed.clone()).object {
        Object::RoutingType(def) => def.static_encap.map(|e| (e.kind, e.key.map(Vni::get))),
        other => panic!("{other:?}"),
    };
    for kind in ["privatelink", "servicetunnel"] {
        assert_eq!(encap(kind), Some((EncapType::Nvgre, Some(100))));
    }
    let wide = json!([{"action_type": "staticencap", "encap_type": "vxlan", "vni": 16777216}]);
    refused(t, "privatelink", wide, BAD, "items[0].vni");
    let stored = ok(t, "appliance", keyed.clone());
    assert_eq!(
        stored.warnings,
        ["stored, not acted on: routing type appliance"]
    );
    let none = ok(
        t,
        "vnet",
        json!({"name": "action1", "action_type": "maprouting"}),
    );
    assert!(matches!(none.object, Object::RoutingType(def) if def.static_encap.is_none()));
    let error = row(t, "nonsense", json!([])).unwrap_err();
    assert_eq!((error.kind, error.field), (BAD, None));
}

fn action(value: Value) -> RouteAction {
    match ok("DASH_ROUTE_TABLE", "g:10.0.0.0/8", value).object {
        Object::Route(route) => route.action,
        other => panic!("{other:?}"),
    }
}

#[test]
fn routes_of_this_release() {
    assert_eq!(
        action(json!({"routing_type": "direct"})),
        RouteAction::Direct
    );
    assert_eq!(action(json!({"routing_type": "drop"})), RouteAction::Drop);
    assert_eq!(
        action(json!({"routing_type": "vnet", "vnet": "v"})),
        RouteAction::Vnet("v".into())
    );
    // The deprecated field counts where the newer is unset, and only there.
    assert_eq!(
        action(json!({"action_type": "vnet", "vnet": "v"})),
        RouteAction::Vnet("v".into())
    );
    assert_eq!(
        action(json!({"action_type": "vnet", "routing_type": "drop"})),
        RouteAction::Drop
    );
    let direct = |overlay_ip: Option<&str>| RouteAction::VnetDirect {
        vnet: "v".into(),
        overlay_ip: overlay_ip.map(|ip| ip.parse::<IpAddr>().unwrap()),
    };
    for (value, overlay_ip) in [
        (
            json!({"routing_type": "vnet_direct", "vnet_direct": {"vnet": "v", "overlay_ip": "1.2.3.4"}}),
            Some("1.2.3.4"),
        ),
        (
            json!({"action_type": "vnet_direct", "vnet": "v", "overlay_ip": "fd00::4"}),
            Some("fd00::4"),
        ),
        (json!({"routing_type": "vnet_direct", "vnet": "v"}), None),
        (
            json!({"routing_type": "vnet_direct", "vnet_direct": {"vnet": "v"}}),
            None,
        ),
    ] {
        assert_eq!(action(value), direct(overlay_ip));
    }
}

#[test]
fn routes_refused() {
    let t = "DASH_ROUTE_TABLE";
    let bad = |value, field| refused(t, "g:10.0.0.0/8", value, BAD, field);
    let later = |value, field| refused(t, "g:10.0.0.0/8", value, LATER, field);
    bad(json!({}), "routing_type");
    bad(json!({"vnet": "v"}), "routing_type");
    bad(json!({"routing_type": 99}), "routing_type");
    bad(json!({"action_type": 99}), "action_type");
    bad(
        json!({"routing_type": "vnet_encap", "vnet": "v"}),
        "routing_type",
    );
    bad(json!({"routing_type": "vnet"}), "vnet");
    bad(json!({"routing_type": "vnet", "vnet": ""}), "vnet");
    bad(json!({"routing_type": "vnet_direct"}), "vnet_direct");
    bad(
        json!({"routing_type": "vnet_direct", "overlay_ip": "1.2.3.4"}),
        "vnet_direct.vnet",
    );
    bad(
        json!({"routing_type": "vnet_direct", "vnet_direct": {"vnet": "v", "overlay_ip": {}}}),
        "vnet_direct.overlay_ip",
    );
    later(json!({"routing_type": "appliance"}), "routing_type");
    action(json!({"routing_type": "direct", "tunnel": "", "underlay_sip": "0.0.0.0"}));
}

#[test]
fn keys_are_checked_and_prefixes_masked() {
    let t = "DASH_ROUTE_TABLE";
    let key = ok(t, "g:10.2.3.4/16", json!({"routing_type": "direct"})).key;
    assert_eq!(key.to_string(), "DASH_ROUTE_TABLE:g:10.2.0.0/16");
    for (table, key) in [
        (t, "g:10.2.3.4/33"),
        (t, "g"),
        ("DASH_VNET_TABLE", ""),
        ("DASH_ACL_IN_TABLE", "e:6"),
        ("DASH_VNET_MAPPING_TABLE", "v:1.2.3"),
        ("ROUTE_TABLE", "x"),
    ] {
        let error = decode_row(table, key, RowValue::Pb(b"")).unwrap_err();
        assert_eq!((error.kind, &error.field), (BAD, &None), "{error}");
        assert_eq!((error.table.as_str(), error.key.as_str()), (table, key));
    }
    let error = decode_row("DASH_ROUTE_RULE_TABLE", "e:1:fd00::/8", RowValue::Pb(b"")).unwrap_err();
    assert_eq!(error.kind, LATER);
}

#[test]
fn route_rules() {
    let t = "DASH_ROUTE_RULE_TABLE";
    let key = "e:100:10.0.0.0/8:5";
    let rule = |value| match ok(t, key, value).object {
        Object::RouteRule(rule) => rule,
        other => panic!("{other:?}"),
    };
    let decap = rule(json!({"action_type": "decap", "vnet": "v", "pa_validation": "true"}));
    assert_eq!(
        (decap.action, decap.pa_validation),
        (RuleAction::Decap, true)
    );
    assert_eq!(decap.vnet, Some("v".into()));
    let unset = ok(t, key, json!({"action_type": "decap", "vnet": "v"}));
    assert_eq!(unset.warnings, ["pa_validation unset: treated as false"]);
    assert!(matches!(unset.object, Object::RouteRule(r) if !r.pa_validation));
    assert_eq!(
        rule(json!({"action_type": "drop"})).action,
        RuleAction::Drop
    );
    assert_eq!(rule(json!({})).action, RuleAction::Decap);
    assert_eq!(rule(json!({"protocol": 0})).protocol, None);
    assert_eq!(rule(json!({"protocol": 17})).protocol, Some(17));
    refused(
        t,
        key,
        json!({"action_type": "maprouting"}),
        BAD,
        "action_type",
    );
    refused(
        t,
        key,
        json!({"action_type": "decap", "protocol": 256}),
        BAD,
        "protocol",
    );
    refused(
        t,
        key,
        json!({"action_type": "decap", "pa_validation": true}),
        BAD,
        "vnet",
    );
}

#[test]
fn a_rules_priority_is_the_keys_and_else_the_messages() {
    let t = "DASH_ROUTE_RULE_TABLE";
    let priority = |key: &str, value| match ok(t, key, value) {
        DecodedRow {
            key: ObjectKey::RouteRule(rule),
            warnings,
            ..
        } => (
            rule.priority,
            warnings.iter().any(|w| w.contains("has no effect")),
        ),
        other => panic!("{other:?}"),
    };
    let value = json!({"action_type": "decap", "priority": "7"});
    assert_eq!(priority("e:100:10.0.0.1/32", value.clone()), (7, false));
    assert_eq!(priority("e:100:10.0.0.1", value.clone()), (7, false));
    assert_eq!(priority("e:100:10.0.0.1/32:0", value.clone()), (0, true));
    assert_eq!(priority("e:100:10.0.0.1/32:5", value.clone()), (5, true));
    assert_eq!(priority("e:100:10.0.0.1/32:7", value), (7, false));
}

#[test]
fn mappings() {
    let t = "DASH_VNET_MAPPING_TABLE";
    let key = "v:20.2.2.2";
    let base = json!({"routing_type": "vnet_encap", "underlay_ip": "10.0.2.2"});
    let mapping = |change| match ok(t, key, with(&base, change)).object {
        Object::VnetMapping(mapping) => mapping,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        mapping(json!({"mac_address": "F4-93-9F-EF-C4-7E", "use_dst_vni": true})),
        VnetMapping {
            underlay_ip: [10, 0, 2, 2].into(),
            mac: Some(Mac([0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e])),
            use_dst_vni: true,
            private_link: None,
            tunnel: None,
            meter_or: MeterClass::default(),
        }
    );
    assert_eq!(mapping(json!({"mac_address": ""})).mac, None);
    assert!(!mapping(json!({})).use_dst_vni);
    // sonic-mgmt's own configurations hold group addresses here.
    let odd = ok(
        t,
        key,
        with(&base, json!({"mac_address": "F9:22:83:99:22:A2"})),
    );
    assert_eq!(
        odd.warnings,
        ["mac_address f9:22:83:99:22:a2 is not a unicast address"]
    );
    for kind in ["vnet", "vnet_direct"] {
        mapping(json!({"routing_type": kind}));
    }
    assert!(!mapping(json!({"routing_type": null, "action_type": "vnet_encap"})).use_dst_vni);
    refused(
        t,
        key,
        json!({"underlay_ip": "10.0.2.2"}),
        BAD,
        "routing_type",
    );
    refused(
        t,
        key,
        json!({"routing_type": "vnet_encap"}),
        BAD,
        "underlay_ip",
    );
    refused(
        t,
        key,
        with(&base, json!({"underlay_ip": "fd00::1"})),
        LATER,
        "underlay_ip",
    );
    refused(
        t,
        key,
        with(&base, json!({"mac_address": "0x0102"})),
        BAD,
        "mac_address",
    );
    refused(
        t,
        key,
        with(&base, json!({"routing_type": "direct"})),
        BAD,
        "routing_type",
    );
    refused(
        t,
        key,
        with(&base, json!({"routing_type": "privatelinknsg"})),
        BAD,
        "tunnel",
    );
    for kind in ["servicetunnel", "appliance"] {
        refused(
            t,
            key,
            with(&base, json!({"routing_type": kind})),
            LATER,
            "routing_type",
        );
    }
    assert_eq!(mapping(json!({"tunnel": "t"})).tunnel, Some("t".into()));
    let metered = ok(
        t,
        key,
        with(
            &base,
            json!({"metering_class_or": 7, "override_meter": true}),
        ),
    );
    assert_eq!(metered.warnings, ["stored, not acted on: override_meter"]);
    assert_eq!(
        mapping(json!({"metering_class_or": 7})).meter_or,
        MeterClass::new(7).expect("a class")
    );
}

#[test]
fn metering_classes_end_at_4095_and_masks_are_cut_to_them() {
    let class = |n| MeterClass::new(n).expect("a class");
    let route = |bits| with(&json!({"routing_type": "direct"}), bits);
    let (t, key) = ("DASH_ROUTE_TABLE", "g:10.0.0.0/8");
    let bits_of = |bits| match ok(t, key, route(bits)).object {
        Object::Route(route) => (route.meter.or, route.meter.and),
        other => panic!("{other:?}"),
    };
    assert_eq!(bits_of(json!({})), (class(0), class(4095)));
    assert_eq!(
        bits_of(json!({"metering_class_or": 4095, "metering_class_and": 0xffff_f0f0_u32})),
        (class(4095), class(0x0f0))
    );
    let above = [
        (t, key, route(json!({"metering_class_or": 4096}))),
        (
            "DASH_ROUTE_RULE_TABLE",
            "e:5:0.0.0.0/0:1",
            json!({"action_type": "decap", "metering_class_or": 4096}),
        ),
        (
            "DASH_VNET_MAPPING_TABLE",
            "v:10.0.0.1",
            json!({"routing_type": "vnet_encap", "underlay_ip": "1.2.3.4", "metering_class_or": 4096}),
        ),
        (
            "DASH_TUNNEL_TABLE",
            "t",
            json!({"endpoints": ["1.2.3.4"], "encap_type": "vxlan", "vni": 5, "metering_class_or": 4096}),
        ),
    ];
    for (table, key, row) in above {
        refused(table, key, row, BAD, "metering_class_or");
    }
    // What drops meters nothing.
    let dropped = ok(
        t,
        key,
        json!({"routing_type": "drop", "metering_class_or": 7}),
    );
    assert_eq!(
        dropped.warnings,
        ["stored, not acted on: metering_class_or"]
    );
}

#[test]
fn meter_policies_and_rules() {
    let policy = |row| ok("DASH_METER_POLICY_TABLE", "m", row);
    let family = |row| match policy(row).object {
        Object::MeterPolicy(policy) => policy.family,
        other => panic!("{other:?}"),
    };
    assert_eq!(family(json!({"ip_version": "ipv6"})), Family::V6);
    assert_eq!(family(json!({})), Family::V4);
    assert_eq!(
        policy(json!({})).warnings,
        ["ip_version unset: treated as IPv4"]
    );
    let (t, key) = ("DASH_METER_RULE_TABLE", "m:1");
    let base = json!({"priority": 3, "ip_prefix": "10.2.0.9/16", "metering_class": 520});
    assert_eq!(
        ok(t, key, base.clone()).object,
        Object::MeterRule(MeterRule {
            priority: 3,
            prefix: "10.2.0.0/16".parse().expect("a prefix"),
            class: MeterClass::new(520).expect("a class"),
        })
    );
    for class in [4096_u64, 1 << 32 | 520] {
        let row = with(&base, json!({"metering_class": class}));
        refused(t, key, row, BAD, "metering_class");
    }
    refused(
        t,
        key,
        json!({"priority": 3, "metering_class": 1}),
        BAD,
        "ip_prefix",
    );
}

/// Why a row is refused, as kind and field.
fn why(table: &str, key: &str, value: Value) -> (Kind, Option<String>) {
    let error = decode_row(table, key, RowValue::Json(&value)).unwrap_err();
    (error.kind, error.field)
}

#[test]
fn private_link_mappings() {
    let (t, key) = ("DASH_VNET_MAPPING_TABLE", "v:10.2.0.100");
    let base = json!({"routing_type": "privatelink", "underlay_ip": "101.1.2.3",
        "overlay_sip_prefix": "fd40::a:0:0/::ffff:0:0", "overlay_dip_prefix": "2603::3401:203/128"});
    let row = ok(t, key, with(&base, json!({"port_map": "m", "tunnel": "t"})));
    let Object::VnetMapping(mapping) = row.object else {
        panic!()
    };
    assert_eq!(row.warnings, [""; 0]);
    let link = mapping.private_link.unwrap();
    assert_eq!(
        link.overlay_sip.mask,
        "::ffff:0:0".parse::<Ipv6Addr>().unwrap()
    );
    assert_eq!(
        link.overlay_dip.addr,
        "2603::3401:203".parse::<Ipv6Addr>().unwrap()
    );
    assert_eq!(link.port_map, Some("m".into()));
    assert_eq!(mapping.tunnel, Some("t".into()));
    // What a private link leaves alone is said.
    let row = ok(
        t,
        key,
        with(
            &base,
            json!({"mac_address": "F4:93:9F:EF:C4:7E", "use_dst_vni": true}),
        ),
    );
    assert_eq!(
        row.warnings,
        ["mac_address", "use_dst_vni"].map(|f| format!("stored, not acted on: {f}"))
    );
    for (field, change) in [
        ("overlay_sip_prefix", json!({"overlay_sip_prefix": null})),
        ("overlay_dip_prefix", json!({"overlay_dip_prefix": null})),
        (
            "overlay_dip_prefix.ip",
            json!({"overlay_dip_prefix": "10.0.0.0/8"}),
        ),
    ] {
        let found = why(t, key, with(&base, change));
        assert_eq!(found, (BAD, Some(field.to_owned())));
    }
}

#[test]
fn service_tunnel_routes() {
    let (t, key) = ("DASH_ROUTE_TABLE", "g:50.1.2.0/24");
    let route = |tunnel: Value| {
        let row = ok(
            t,
            key,
            json!({"routing_type": "servicetunnel", "service_tunnel": tunnel, "underlay_sip": "9.9.9.9"}),
        );
        match row.object {
            Object::Route(route) => route,
            other => panic!("{other:?}"),
        }
    };
    let of = |route: &Route| match &route.action {
        RouteAction::ServiceTunnel(tunnel) => (**tunnel).clone(),
        other => panic!("{other:?}"),
    };
    let found = route(
        json!({"overlay_sip_prefix": "fd00::", "overlay_dip_prefix": "2603::4601:203",
        "underlay_sip": "34.1.2.1"}),
    );
    assert_eq!(
        found.underlay_sip,
        Some([34, 1, 2, 1].into()),
        "its own comes first"
    );
    let tunnel = of(&found);
    let mask = |len: u32| Ipv6Addr::from(u128::MAX.checked_shl(128 - len).unwrap_or(0));
    assert_eq!(
        (tunnel.overlay_sip.mask, tunnel.overlay_dip.mask),
        (mask(96), mask(128))
    );
    assert_eq!(tunnel.underlay_dip, None);
    let older = route(
        json!({"overlay_sip": "fd00::1", "overlay_dip": "fd00::2", "underlay_dip": "1.1.1.1"}),
    );
    assert_eq!(of(&older).underlay_dip, Some([1, 1, 1, 1].into()));
    assert_eq!(older.underlay_sip, Some([9, 9, 9, 9].into()));
    for (field, value) in [
        ("service_tunnel", json!({"routing_type": "servicetunnel"})),
        (
            "service_tunnel.overlay_dip_prefix",
            json!({"routing_type": "servicetunnel", "service_tunnel": {"overlay_sip_prefix": "fd00::"}}),
        ),
        (
            "service_tunnel.overlay_sip_prefix",
            json!({"routing_type": "servicetunnel", "service_tunnel":
                {"overlay_sip_prefix": "1.2.3.4", "overlay_dip_prefix": "fd00::"}}),
        ),
        ("routing_type", json!({"routing_type": "privatelink"})),
    ] {
        assert_eq!(why(t, key, value), (BAD, Some(field.to_owned())));
    }
    // Where it can do nothing it is said.
    let direct = ok(
        t,
        key,
        json!({"routing_type": "direct", "underlay_sip": "1.2.3.4", "tunnel": "t"}),
    );
    assert_eq!(direct.warnings, ["stored, not acted on: underlay_sip"]);
    let dropped = ok(t, key, json!({"routing_type": "drop", "tunnel": "t"}));
    assert_eq!(dropped.warnings, ["stored, not acted on: tunnel"]);
}

#[test]
fn tunnels_and_port_maps() {
    let t = "DASH_TUNNEL_TABLE";
    let base = json!({"endpoints": ["90.90.90.90", "10.10.10.10", "90.90.90.90"], "encap_type": "nvgre", "vni": 7});
    let Object::Tunnel(tunnel) = ok(t, "t", base.clone()).object else {
        panic!()
    };
    let ends = [[10, 10, 10, 10], [90, 90, 90, 90]].map(Ipv4Addr::from);
    assert_eq!(tunnel.endpoints, ends);
    for (field, change) in [
        ("endpoints", json!({"endpoints": []})),
        ("encap_type", json!({"encap_type": null})),
        ("vni", json!({"vni": 0})),
        ("vni", json!({"vni": 16777216})),
    ] {
        let found = why(t, "t", with(&base, change));
        assert_eq!(found, (BAD, Some(field.to_owned())));
    }
    let v6 = why(t, "t", with(&base, json!({"endpoints": ["fd00::1"]})));
    assert_eq!(v6, (LATER, Some("endpoints[0]".to_owned())));

    let t = "DASH_OUTBOUND_PORT_MAP_RANGE_TABLE";
    let base = json!({"action": "ACTION_MAP_PRIVATE_LINK_SERVICE", "backend_ip": "60.60.60.1", "backend_port_base": 42001});
    let row = ok(t, "m:8001-9000", base.clone());
    assert_eq!(
        row.key.to_string(),
        "DASH_OUTBOUND_PORT_MAP_RANGE_TABLE:m:8001-9000"
    );
    assert_eq!(
        row.object,
        Object::PortMapRange(PortMapRange::Service {
            backend_ip: [60, 60, 60, 1].into(),
            backend_port_base: 42001,
        })
    );
    let skip = ok(t, "m:1-2", json!({"action": "ACTION_SKIP_MAPPING"}));
    assert_eq!(skip.object, Object::PortMapRange(PortMapRange::Skip));
    for (field, change) in [
        ("action", json!({"action": null})),
        ("backend_ip", json!({"backend_ip": null})),
        ("backend_port_base", json!({"backend_port_base": 65536})),
    ] {
        let found = why(t, "m:1-2", with(&base, change));
        assert_eq!(found, (BAD, Some(field.to_owned())));
    }
    for key in ["m:2-1", "m:0-65536", "m:1", "m", ":1-2", "m:+1-2"] {
        assert_eq!(why(t, key, base.clone()).0, BAD, "{key}");
    }
}

#[test]
fn acl_rules() {
    let t = "DASH_ACL_RULE_TABLE";
    let key = "g:r1";
    let base = json!({"action": "permit"});
    let Object::AclRule(rule) = ok(
        t,
        key,
        json!({
            "priority": "3", "action": "deny", "terminating": "true", "protocol": "6,17",
            "src_addr": "10.0.0.1/8,20.0.0.0/255.0.0.0", "dst_port": "0-65535", "src_tag": "A,B",
        }),
    )
    .object
    else {
        panic!()
    };
    assert_eq!(
        (rule.priority, rule.action, rule.terminating),
        (3, AclAction::Deny, true)
    );
    assert_eq!(rule.protocols, [6, 17]);
    let prefixes: Vec<IpPrefix> = ["10.0.0.0/8", "20.0.0.0/8"]
        .map(|p| p.parse().unwrap())
        .into();
    assert_eq!(rule.src_prefixes, prefixes);
    assert_eq!(rule.dst_ports, [PortRange { min: 0, max: 65535 }]);
    assert_eq!(rule.src_tags, ["A".into(), "B".into()]);
    assert!(rule.dst_prefixes.is_empty() && rule.src_ports.is_empty() && rule.dst_tags.is_empty());

    refused(t, key, json!({}), BAD, "action");
    refused(t, key, json!({"action": 3}), BAD, "action");
    refused(
        t,
        key,
        with(&base, json!({"protocol": [6, 256]})),
        BAD,
        "protocol[1]",
    );
    refused(
        t,
        key,
        with(&base, json!({"src_port": [65536]})),
        BAD,
        "src_port[0]",
    );
    refused(
        t,
        key,
        with(&base, json!({"dst_port": ["1", "9-8"]})),
        BAD,
        "dst_port[1]",
    );
    refused(
        t,
        key,
        with(&base, json!({"dst_port": [{}]})),
        BAD,
        "dst_port[0]",
    );
    refused(
        t,
        key,
        with(&base, json!({"src_addr": "10.0.0.0/255.0.255.0"})),
        BAD,
        "src_addr[0]",
    );
    refused(
        t,
        key,
        with(&base, json!({"src_addr": [{"ip": "10.0.0.0"}]})),
        BAD,
        "src_addr[0].mask",
    );
    refused(
        t,
        key,
        with(
            &base,
            json!({"src_addr": [{"ip": "10.0.0.0", "mask": "ff00::"}]}),
        ),
        BAD,
        "src_addr[0]",
    );
    refused(
        t,
        key,
        with(
            &base,
            json!({"src_addr": "10.0.0.0/8", "dst_addr": "fd00::/8"}),
        ),
        BAD,
        "dst_addr[0]",
    );
    refused(
        t,
        key,
        with(&base, json!({"dst_tag": ["A", ""]})),
        BAD,
        "dst_tag[1]",
    );
}

#[test]
fn acl_groups_bindings_and_tags() {
    for (version, good) in [("ipv4", true), ("IP_VERSION_IPV6", true)] {
        assert_eq!(
            row("DASH_ACL_GROUP_TABLE", "g", json!({"ip_version": version})).is_ok(),
            good
        );
    }
    refused("DASH_ACL_GROUP_TABLE", "g", json!({}), BAD, "ip_version");
    refused(
        "DASH_ACL_GROUP_TABLE",
        "g",
        json!({"ip_version": 3}),
        BAD,
        "ip_version",
    );
    for table in ["DASH_ACL_IN_TABLE", "DASH_ACL_OUT_TABLE"] {
        ok(table, "e:1", json!({"v6_acl_group_id": "g"}));
        refused(table, "e:1", json!({}), BAD, "v4_acl_group_id");
        refused(
            table,
            "e:1",
            json!({"acl_group_id": "g"}),
            BAD,
            "acl_group_id",
        );
    }
    let t = "DASH_PREFIX_TAG_TABLE";
    ok(t, "t", json!({"ip_version": "ipv4"}));
    ok(
        t,
        "t",
        json!({"ip_version": "ipv6", "prefix_list": "fd00::/8,fe00::/9"}),
    );
    refused(
        t,
        "t",
        json!({"prefix_list": "10.0.0.0/8"}),
        BAD,
        "ip_version",
    );
    refused(
        t,
        "t",
        json!({"ip_version": "ipv6", "prefix_list": ["fd00::/8", "10.0.0.0/8"]}),
        BAD,
        "prefix_list[1]",
    );
    refused("DASH_ENI_ROUTE_TABLE", "e", json!({}), BAD, "group_id");
}

#[test]
fn qos_profiles() {
    let row = |json| ok("DASH_QOS_TABLE", "q", json);
    let qos = row(json!({"qos_id": "q", "bw": "1", "cps": 2, "flows": 3}));
    let limits = Qos {
        bandwidth_kbps: 1,
        connections_per_second: 2,
        flows: 3,
    };
    assert_eq!((qos.object, qos.warnings.len()), (Object::Qos(limits), 0));
    // What is not said is no limit.
    assert_eq!(row(json!({})).object, Object::Qos(Qos::default()));
    let error = decode_row("DASH_QOS_TABLE", "q", RowValue::Pb(&[0x0a, 0x05])).unwrap_err();
    assert_eq!(error.kind, Kind::Malformed);
}

#[test]
fn other_tables_are_stored_if_they_are_their_message() {
    let (t, key) = ("DASH_HA_SET_CONFIG_TABLE", "22");
    let stored = ok(t, key, json!({"version": "1"}));
    assert_eq!(stored.object, Object::Opaque);
    assert_eq!(stored.warnings, ["stored, not acted on"]);
    let error = decode_row(t, key, RowValue::Pb(&[0x0a, 0x05])).unwrap_err();
    assert_eq!(error.kind, Kind::Malformed);
    let unknown = decode_row("DASH_NEW_TABLE", "k", RowValue::Pb(&[0xff, 0xff])).unwrap();
    assert_eq!(unknown.raw.as_ref(), [0xff, 0xff]);
    let hash = ok(
        "DASH_HA_SET_TABLE",
        "k",
        json!({"owner": "dpu", "anything": ["1"]}),
    );
    assert_eq!(hash.raw.as_ref(), br#"{"owner":"dpu","anything":["1"]}"#);
}

#[test]
fn bytes_that_are_not_the_message_are_malformed() {
    for table in dash_model::key::Table::ALL {
        let key = match table.name() {
            "DASH_ROUTING_TYPE_TABLE" => "vnet",
            "DASH_ROUTE_TABLE" => "g:10.0.0.0/8",
            "DASH_ROUTE_RULE_TABLE" => "e:1:10.0.0.0/8",
            "DASH_VNET_MAPPING_TABLE" => "v:10.0.0.1",
            "DASH_ACL_RULE_TABLE" | "DASH_METER_RULE_TABLE" => "g:r",
            "DASH_ACL_IN_TABLE" | "DASH_ACL_OUT_TABLE" => "e:1",
            "DASH_OUTBOUND_PORT_MAP_RANGE_TABLE" => "m:1-2",
            "DASH_PA_VALIDATION_TABLE" => "1",
            "SWITCH_TABLE" => "switch",
            _ => "k",
        };
        let error = decode_row(table.name(), key, RowValue::Pb(&[0x0b, 0xff])).unwrap_err();
        assert_eq!(
            (error.kind, error.field),
            (Kind::Malformed, None),
            "{}",
            table.name()
        );
    }
}

#[test]
fn fields_of_a_newer_schema_are_kept_and_named() {
    let mut raw = vec![0x08, 0xd1, 0x0f];
    raw.extend([0xf8, 0x06, 0x01]); // field 111, varint 1
    let row = decode_row("DASH_VNET_TABLE", "v", RowValue::Pb(&raw)).unwrap();
    assert_eq!(row.raw.as_ref(), raw);
    assert_eq!(row.warnings, ["stored, not acted on: unknown field 111"]);
}

#[test]
fn an_error_names_row_field_and_reason() {
    let error = row("DASH_VNET_TABLE", "Vnet1", json!({"vni": 0})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "DASH_VNET_TABLE:Vnet1: vni: 0 is not a VNI (1..=16777215)"
    );
}

#[test]
fn settings_of_an_eni() {
    let t = "DASHWIRE_ENI_TABLE";
    let Object::EniSettings(own) = ok(
        t,
        "eni-1",
        json!({
            "dscp_mode": "pipe", "dscp": "46", "mtu": 9000, "max_resimulated_flow_per_second": 7,
            "disable_fast_path_icmp_flow_redirection": "false",
            "enable_reverse_tunnel_learning": true, "reverse_tunnel_sip": "10.0.0.9",
            "pps": "1000",
        }),
    )
    .object
    else {
        panic!()
    };
    assert_eq!(
        own,
        EniSettings {
            dscp: Some(DscpMode::Pipe(46)),
            disable_fast_path: Some(false),
            max_resimulated: Some(7),
            mtu: Some(9000),
            learn: true,
            reverse_sip: Some(Ipv4Addr::new(10, 0, 0, 9)),
            packets_per_second: Some(1000),
        }
    );
    let dscp = |fields: Value| match ok(t, "eni-1", fields).object {
        Object::EniSettings(own) => own.dscp,
        other => panic!("{other:?}"),
    };
    assert_eq!(dscp(json!({"dscp_mode": "pipe"})), Some(DscpMode::Pipe(0)));
    assert_eq!(dscp(json!({"dscp_mode": 1})), Some(DscpMode::Preserve));
    assert_eq!(dscp(json!({})), None);

    refused(
        t,
        "e",
        json!({"dscp_mode": "pipe", "dscp": 64}),
        BAD,
        "dscp",
    );
    refused(
        t,
        "e",
        json!({"dscp_mode": "preserve", "dscp": 1}),
        BAD,
        "dscp",
    );
    refused(t, "e", json!({"dscp": 1}), BAD, "dscp");
    refused(t, "e", json!({"dscp_mode": 3}), BAD, "dscp_mode");
    let sip = "reverse_tunnel_sip";
    refused(t, "e", json!({sip: "fd00::1"}), LATER, sip);
    refused(t, "e", json!({"mtu": 67}), BAD, "mtu");
    refused(t, "e", json!({"mtu": 65536}), BAD, "mtu");
    let rate = "max_resimulated_flow_per_second";
    refused(t, "e", json!({rate: 1u64 << 32}), BAD, rate);
}

#[test]
fn fields_of_a_row_are_changed_one_by_one() {
    let t = "DASHWIRE_ENI_TABLE";
    let bytes = |fields: Value| encode_row(t, "e", &fields).unwrap();
    let before = bytes(json!({"dscp_mode": "pipe", "dscp": 8, "mtu": 1500}));
    let after = |unset: &[&str], change: Value| {
        let unset: Vec<String> = unset.iter().map(|name| (*name).to_owned()).collect();
        change_row(t, "e", &before, &unset, &bytes(change)).map(|raw| row_to_json(t, &raw))
    };
    assert_eq!(
        after(&[], json!({"mtu": 68})).unwrap(),
        json!({"dscp_mode": "pipe", "dscp": 8, "mtu": 68})
    );
    assert_eq!(
        after(&["dscp_mode", "dscp"], json!({})).unwrap(),
        json!({"mtu": 1500})
    );
    assert_eq!(
        after(&["mtu"], json!({"mtu": 70})).unwrap()["mtu"],
        json!(70),
        "what is set after it is unset is there"
    );
    let error = after(&["nothing"], json!({})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "DASHWIRE_ENI_TABLE:e: nothing: no such field"
    );
    let error = change_row("DASH_RESET_STATUS", "e", b"", &[], b"").unwrap_err();
    assert_eq!(
        error.to_string(),
        "DASH_RESET_STATUS:e: rows of this table have no fields"
    );
    let error = change_row(t, "e", b"\x08", &[], b"").unwrap_err();
    assert_eq!(error.kind, Kind::Malformed);
}
