//! Configuration files of each form and age.

#![expect(clippy::unwrap_used, reason = "a test stops at the line that fails")]

use dash_model::key::EniKey;
use dash_model::objects::Object;
use dash_model::{Action, Store, StoreOptions, Txn};
use dash_proto::config::{ConfigOp, FileError};
use dash_proto::{Kind, config_to_txn, load_config};

fn txn(text: &str) -> Txn {
    let rows = load_config(text).unwrap();
    config_to_txn(&rows).unwrap_or_else(|e| panic!("{e}")).0
}

fn keys(txn: &Txn) -> Vec<String> {
    txn.ops.iter().map(|op| op.key.to_string()).collect()
}

/// What dpugen 0.2.3 writes for one ENI: text numbers, routes keyed by the ENI, `acl_group_id`.
const OLD_DPUGEN: &str = r#"[
  {"DASH_APPLIANCE_TABLE:appliance-1": {"sip": "221.0.0.1", "vm_vni": "1"}, "OP": "SET"},
  {"DASH_VNET_TABLE:vnet-1001": {"vni": 1001, "guid": "3ff98a0c-70b5-5f9b-91ae-2cd9c03b3fc9"}, "OP": "SET"},
  {"DASH_ACL_IN_TABLE:eni-1:1": {"acl_group_id": "1000"}, "OP": "SET"},
  {"DASH_ACL_OUT_TABLE:eni-1:1": {"acl_group_id": 1500}, "OP": "SET"},
  {"DASH_QOS_TABLE:qos-1": {"qos_id": "qos-1", "bw": 0, "cps": 0, "flows": 0}, "OP": "SET"},
  {"DASH_ENI_TABLE:eni-1": {"eni_id": "eni-1", "qos": "qos-1", "mac_address": "00:1A:C5:00:00:01",
    "underlay_ip": "221.1.0.0", "admin_state": "enabled", "vnet": "vnet-1001"}, "OP": "SET"},
  {"DASH_ACL_GROUP_TABLE:1000": {"ip_version": "ipv4", "guid": "21f3d0a4-8a5e-5a9e-b6ff-9b30c81cd3a8"}, "OP": "SET"},
  {"DASH_ACL_RULE_TABLE:1000:rule0": {"priority": 0, "action": "allow", "terminating": "true",
    "src_addr": "1.4.0.1/32,1.4.0.3/32", "dst_addr": "1.1.0.1/32"}, "OP": "SET"},
  {"DASH_ACL_GROUP_TABLE:1500": {"ip_version": "ipv6", "guid": "1"}, "OP": "SET"},
  {"DASH_ACL_RULE_TABLE:1500:rule0": {"priority": 0, "action": "deny", "terminating": "true"}, "OP": "SET"},
  {"DASH_ROUTE_TABLE:eni-1:1.4.0.0/31": {"action_type": "vnet", "vnet": "vnet-1001"}, "OP": "SET"},
  {"DASH_ROUTE_TABLE:eni-1:1.5.0.0/16": {"action_type": "vnet_direct", "vnet": "vnet-1001",
    "overlay_ip": "222.0.0.1"}, "OP": "SET"},
  {"DASH_ROUTE_RULE_TABLE:eni-1:1001:221.2.0.0/32": {"action_type": "decap", "priority": "0",
    "pa_validation": "true", "vnet": "vnet-1001"}, "OP": "SET"},
  {"DASH_VNET_MAPPING_TABLE:vnet-1001:1.1.0.1": {"routing_type": "vnet_encap",
    "underlay_ip": "221.0.0.1", "mac_address": "00:1A:C5:00:00:01", "use_dst_vni": "true"}, "OP": "SET"}
]"#;

#[test]
fn the_older_dpugen_loads_and_commits() {
    let rows = load_config(OLD_DPUGEN).unwrap();
    let (txn, warnings) = config_to_txn(&rows).unwrap_or_else(|e| panic!("{e}"));
    let keys = keys(&txn);
    let made = keys
        .iter()
        .position(|k| k == "DASH_ROUTE_GROUP_TABLE:eni-1")
        .unwrap();
    assert_eq!(keys[made - 1], "DASH_ROUTE_TABLE:eni-1:1.4.0.0/31");
    assert_eq!(keys[made + 1], "DASH_ENI_ROUTE_TABLE:eni-1");
    assert_eq!(
        keys.len(),
        rows.len() + 2,
        "one group and one binding for both routes"
    );
    assert!(
        warnings
            .iter()
            .any(|w| w.text == "made for the routes keyed by ENI `eni-1`")
    );

    let mut store = Store::new(StoreOptions::default());
    store.commit(txn).unwrap_or_else(|e| panic!("{e}"));
    let eni: EniKey = "eni-1".into();
    assert_eq!(store.eni_route(&eni).unwrap().group.as_str(), "eni-1");
    assert_eq!(store.route_count(&"eni-1".into()), 2);
    assert_eq!(store.acl_in(&eni, 1).unwrap().v4, Some("1000".into()));
    // The family is the group's, not the field's.
    assert_eq!(store.acl_out(&eni, 1).unwrap().v6, Some("1500".into()));
}

/// What newer dpugen and sonic-mgmt's speed tests write, without private link.
#[test]
fn the_newer_dpugen_loads_and_commits() {
    let text = r#"[
    {"DASH_APPLIANCE_TABLE:appliance-1000": {"sip": "221.0.0.1", "vm_vni": 1000, "local_region_id": 100,
        "trusted_vnis_list": [{"range": {"min": 100, "max": 100}}, {"range": {"min": 250, "max": 511}}]}, "OP": "SET"},
    {"DASH_ROUTING_TYPE_TABLE:privatelink": [{"action_name": "action-1", "action_type": "4_to_6"},
        {"action_name": "action-2", "action_type": "staticencap", "encap_type": "nvgre", "vni": 100}], "OP": "SET"},
    {"DASH_ROUTE_GROUP_TABLE:route-group-1000": {"guid": "f4d2b1c8", "version": "1"}, "OP": "SET"},
    {"DASH_VNET_TABLE:vnet-2000": {"vni": 2000, "guid": "3ff98a0c-70b5-5f9b-91ae-2cd9c03b3fc9"}, "OP": "SET"},
    {"DASH_ENI_TABLE:eni-1000": {"eni_id": "eni-1000", "mac_address": "00:1A:C5:00:00:01",
        "underlay_ip": "221.1.0.0", "admin_state": "enabled", "vnet": "vnet-2000",
        "pl_underlay_sip": "221.0.0.1", "pl_sip_encoding": "::d007:64:ff71:0:0/::ffff:ffff:ffff:0:0",
        "trusted_vnis_list": [{"value": 1000}]}, "OP": "SET"},
    {"DASH_ROUTE_TABLE:route-group-1000:1.4.0.0/31": {"routing_type": "vnet", "vnet": "vnet-2000"}, "OP": "SET"},
    {"DASH_ROUTE_TABLE:route-group-1000:1.5.0.0/16": {"routing_type": "vnet_direct", "vnet": "vnet-2000",
        "overlay_ip": "222.0.0.1"}, "OP": "SET"},
    {"DASH_ROUTE_RULE_TABLE:eni-1000:100:221.2.0.0/32": {"action_type": "decap", "priority": 0}, "OP": "SET"},
    {"DASH_ENI_ROUTE_TABLE:eni-1000": {"group_id": "route-group-1000"}, "OP": "SET"}
    ]"#;
    let txn = txn(text);
    assert_eq!(txn.ops.len(), 9, "nothing is made where a group exists");
    Store::new(StoreOptions::default())
        .commit(txn)
        .unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn a_binding_of_the_files_own_is_kept() {
    let txn = txn(
        r#"[{"DASH_ENI_TABLE:e": {"mac_address": "00:1A:C5:00:00:01", "underlay_ip": "1.1.1.1"}},
            {"DASH_ENI_ROUTE_TABLE:e": {"group_id": "other"}},
            {"DASH_ROUTE_TABLE:e:10.0.0.0/8": {"action_type": "direct"}}]"#,
    );
    assert_eq!(
        keys(&txn),
        [
            "DASH_ENI_TABLE:e",
            "DASH_ENI_ROUTE_TABLE:e",
            "DASH_ROUTE_TABLE:e:10.0.0.0/8",
            "DASH_ROUTE_GROUP_TABLE:e"
        ]
    );
    assert!(matches!(&txn.ops[1].action,
        Action::Set { object: Object::EniRoute(bind), .. } if bind.group.as_str() == "other"));
}

#[test]
fn routes_of_an_unknown_group_make_nothing() {
    let txn = txn(r#"[{"DASH_ROUTE_TABLE:g:10.0.0.0/8": {"routing_type": "direct"}}]"#);
    assert_eq!(keys(&txn), ["DASH_ROUTE_TABLE:g:10.0.0.0/8"]);
}

#[test]
fn the_three_forms_hold_the_same_rows() {
    let list = txn(
        r#"[{"DASH_VNET_TABLE:a": {"vni": "1"}, "OP": "SET"}, {"OP": "SET", "DASH_VNET_TABLE:b": {"vni": 2}}]"#,
    );
    for text in [
        r#"{"DASH_VNET_TABLE:a": {"vni": "1"}, "DASH_VNET_TABLE:b": {"vni": 2}}"#,
        r#"{"DASH_VNET_TABLE": {"a": {"vni": "1"}, "b": {"vni": 2}}}"#,
        r#"[{"DASH_VNET_TABLE": {"a": {"vni": "1"}}}, {"DASH_VNET_TABLE:b": {"vni": 2}, "op": "set"}]"#,
    ] {
        assert_eq!(txn(text), list, "{text}");
    }
    assert!(load_config("[]").unwrap().is_empty());
    assert!(load_config(" {}\n").unwrap().is_empty());
}

#[test]
fn deletes_ignore_the_fields_left_behind() {
    let rows = load_config(r#"[{"DASH_VNET_TABLE:a": {"vni": "nonsense"}, "OP": "DEL"}]"#).unwrap();
    assert_eq!(rows[0].op, ConfigOp::Del);
    let (txn, warnings) = config_to_txn(&rows).unwrap();
    assert_eq!(
        (keys(&txn), &txn.ops[0].action),
        (vec!["DASH_VNET_TABLE:a".to_owned()], &Action::Del)
    );
    assert!(warnings.is_empty());
}

#[test]
fn a_rule_written_and_deleted_by_one_text_is_gone() {
    let txn = txn(
        r#"[{"DASH_ROUTE_RULE_TABLE:e:1:10.0.0.0/8": {"action_type": "decap", "priority": "4"}},
            {"DASH_ROUTE_RULE_TABLE:e:1:10.0.0.0/8": {}, "OP": "DEL"}]"#,
    );
    let keys: Vec<_> = txn.ops.iter().map(|op| &op.key).collect();
    assert_eq!(keys.len(), 3);
    assert_eq!(keys[0], keys[1]);
    assert_eq!(
        keys[0].to_string(),
        "DASH_ROUTE_RULE_TABLE:e:1:10.0.0.0/8:4"
    );
    assert_eq!(txn.ops[1].action, Action::Del);
}

#[test]
fn every_bad_row_is_reported_with_its_line() {
    let rows = load_config(
        "[\n{\"DASH_VNET_TABLE:a\": {\"vni\": 0}},\n{\"DASH_VNET_TABLE:b\": {\"vni\": 1}},\n\n\
         {\"DASH_ROUTE_TABLE:g:10.0.0.0/8\":\n {\"routing_type\": \"appliance\"}},\n\
         {\"DASH_VNET_TABLE:\": {}, \"OP\": \"DEL\"}]",
    )
    .unwrap();
    let errors = config_to_txn(&rows).unwrap_err().0;
    let found: Vec<_> = errors
        .iter()
        .map(|e| (e.index, e.line, e.error.kind))
        .collect();
    assert_eq!(
        found,
        [
            (0, 2, Kind::InvalidArgument),
            (2, 6, Kind::Unimplemented),
            (3, 7, Kind::InvalidArgument)
        ]
    );
}

#[test]
fn an_acl_group_of_another_file_is_an_error_that_says_so() {
    let rows = load_config(r#"[{"DASH_ACL_IN_TABLE:e:1": {"acl_group_id": "g"}}]"#).unwrap();
    let errors = config_to_txn(&rows).unwrap_err().0;
    assert_eq!(errors[0].error.field.as_deref(), Some("acl_group_id"));
}

#[test]
fn broken_files_name_line_and_column() {
    match load_config("[\n  {\"DASH_VNET_TABLE:a\": {\"vni\": 1},},\n]") {
        Err(FileError::Syntax { line, .. }) => assert_eq!(line, 2),
        other => panic!("{other:?}"),
    }
    for (text, line) in [
        ("3", 1),
        ("[\n3]", 2),
        ("[{\"OP\": \"SET\"}]", 1),
        ("[{\"DASH_VNET_TABLE:a\": {},\n\"OP\": \"PUT\"}]", 2),
        (
            "[{\"DASH_VNET_TABLE:a\": {}, \"OP\": \"SET\", \"OP\": \"DEL\"}]",
            1,
        ),
        ("{\n\"DASH_VNET_TABLE\": 3}", 2),
    ] {
        match load_config(text) {
            Err(FileError::Shape { line: found, .. }) => assert_eq!(found, line, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    for text in ["", "[", "{\"a\"", "nonsense", "[1] 2"] {
        assert!(
            matches!(load_config(text), Err(FileError::Syntax { .. })),
            "{text}"
        );
    }
}

#[test]
fn a_row_given_twice_is_two_ops_in_order() {
    let txn = txn(r#"{"DASH_VNET_TABLE:a": {"vni": 1}, "DASH_VNET_TABLE:a": {"vni": 2}}"#);
    let vnis: Vec<u32> = txn
        .ops
        .iter()
        .map(|op| match &op.action {
            Action::Set {
                object: Object::Vnet(vnet),
                ..
            } => vnet.vni.get(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(vnis, [1, 2]);
}
