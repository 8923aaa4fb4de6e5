//! Whole Set requests: order, values, deletes, and every way to be refused.

#![expect(clippy::unwrap_used, reason = "a test stops at the line that fails")]

use dash_model::{Action, Store, StoreOptions};
use dash_proto::gnmi::typed_value::Value as Typed;
use dash_proto::gnmi::update_result::Operation;
use dash_proto::gnmi::{Path, SetRequest, TypedValue, Update};
use dash_proto::path::parse_path;
use dash_proto::set::{Cause, WideDelete};
use dash_proto::{RowScope, SetError, decode_set};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn path(rest: &str) -> Path {
    parse_path(&format!("sonic-db:/DPU_APPL_DB/dpu0/{rest}")).unwrap()
}

fn update(rest: &str, value: Option<Typed>) -> Update {
    Update {
        path: Some(path(rest)),
        val: value.map(|value| TypedValue { value: Some(value) }),
        ..Update::default()
    }
}

fn ietf(value: &Value) -> Option<Typed> {
    Some(Typed::JsonIetfVal(value.to_string().into()))
}

fn vnet(name: &str, vni: u32) -> Update {
    update(
        &format!("DASH_VNET_TABLE[key={name}]"),
        ietf(&json!({"vni": vni})),
    )
}

fn updates(update: Vec<Update>) -> SetRequest {
    SetRequest {
        update,
        ..SetRequest::default()
    }
}

/// Key and whether it is written, in order.
fn ops(request: &SetRequest) -> Vec<(String, bool)> {
    let set = decode_set(request).unwrap_or_else(|e| panic!("{e}"));
    set.txn
        .ops
        .iter()
        .map(|op| (op.key.to_string(), matches!(op.action, Action::Set { .. })))
        .collect()
}

fn error(request: &SetRequest) -> SetError {
    decode_set(request).unwrap_err()
}

#[test]
fn deletes_then_replaces_then_updates() {
    let request = SetRequest {
        delete: vec![path("DASH_VNET_TABLE[key=a]")],
        replace: vec![vnet("b", 1)],
        update: vec![vnet("c", 2), update("DASH_VNET_TABLE/d", None)],
        ..SetRequest::default()
    };
    let set = decode_set(&request).unwrap();
    assert_eq!(
        ops(&request),
        [("a", false), ("b", true), ("c", true), ("d", false)]
            .map(|(key, set)| (format!("DASH_VNET_TABLE:{key}"), set))
    );
    let results: Vec<_> = set.results.iter().map(|(_, op)| *op).collect();
    use Operation::{Delete, Replace, Update};
    assert_eq!(results, [Delete, Replace, Update, Update]);
    let indices: Vec<_> = set.txn.ops.iter().map(|op| op.index).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    assert_eq!(set.results[0].0, request.delete[0], "the path is echoed");
}

#[test]
fn json_val_is_taken_like_json_ietf_val() {
    let value = json!({"vni": "7"}).to_string();
    let by = |typed| {
        decode_set(&updates(vec![update("DASH_VNET_TABLE/v", Some(typed))]))
            .unwrap()
            .txn
    };
    assert_eq!(
        by(Typed::JsonVal(value.clone().into())),
        by(Typed::JsonIetfVal(value.into()))
    );
    assert_eq!(
        by(Typed::ProtoBytes(vec![0x08, 7].into())),
        by(Typed::JsonVal(r#"{"vni":7}"#.into())),
    );
}

#[test]
fn empty_proto_bytes_are_a_row_of_defaults() {
    let request = updates(vec![update(
        "DASH_ROUTE_GROUP_TABLE[key=g]",
        Some(Typed::ProtoBytes(Vec::new().into())),
    )]);
    assert_eq!(
        ops(&request),
        [("DASH_ROUTE_GROUP_TABLE:g".to_owned(), true)]
    );
}

#[test]
fn json_at_a_tables_path_is_many_rows() {
    let rows = json!({"a": {"vni": 1}, "b": {"vni": 2}});
    let request = updates(vec![update("DASH_VNET_TABLE", ietf(&rows)), vnet("c", 3)]);
    let set = decode_set(&request).unwrap();
    let indices: Vec<_> = set
        .txn
        .ops
        .iter()
        .map(|op| (op.key.to_string(), op.index))
        .collect();
    assert_eq!(
        indices,
        [("a", 0), ("b", 0), ("c", 1)].map(|(k, n)| (format!("DASH_VNET_TABLE:{k}"), n))
    );
    let bad = json!({"a": {"vni": 0}, "b": {"vni": 2}, "c": 3});
    let error = error(&updates(vec![update("DASH_VNET_TABLE", ietf(&bad))]));
    assert_eq!(error.errors.len(), 2, "{error}");
    assert!(matches!(&error.errors[0].cause, Cause::Row(e) if e.key == "a"));
}

#[test]
fn a_tables_delete_is_left_to_the_store_and_holds_its_place() {
    let request = SetRequest {
        delete: vec![path("DASH_VNET_TABLE"), path("DASH_VNET_TABLE/x")],
        update: vec![vnet("new", 5)],
        ..SetRequest::default()
    };
    let set = decode_set(&request).unwrap();
    assert_eq!(
        set.deletes,
        [WideDelete {
            index: 0,
            position: 0,
            scope: RowScope::Table("DASH_VNET_TABLE".into())
        }]
    );
    let mut store = store_with(&[("DASH_VNET_TABLE/old", json!({"vni": 1}))]);
    let txn = set.resolve(&store);
    assert_eq!(txn.ops[0].key.to_string(), "DASH_VNET_TABLE:old");
    store.commit(txn).unwrap();
    let left: Vec<_> = store
        .iter_table("DASH_VNET_TABLE")
        .map(|(k, _)| k.to_string())
        .collect();
    assert_eq!(left, ["DASH_VNET_TABLE:new"]);
}

#[test]
fn a_tables_delete_takes_what_was_written_before_it() {
    let request = updates(vec![
        vnet("a", 1),
        update("DASH_VNET_TABLE", None),
        vnet("b", 2),
    ]);
    let mut store = store_with(&[]);
    let txn = decode_set(&request).unwrap().resolve(&store);
    store.commit(txn).unwrap();
    let left: Vec<_> = store
        .iter_table("DASH_VNET_TABLE")
        .map(|(k, _)| k.to_string())
        .collect();
    assert_eq!(left, ["DASH_VNET_TABLE:b"]);
}

/// A store with an appliance and these rows.
fn store_with(rows: &[(&str, Value)]) -> Store {
    let appliance = json!({"sip": "10.1.0.5", "vm_vni": 9});
    let mut sent = vec![update("DASH_APPLIANCE_TABLE[key=1]", ietf(&appliance))];
    sent.extend(rows.iter().map(|(path, value)| update(path, ietf(value))));
    let mut store = Store::new(StoreOptions::default());
    let set = decode_set(&updates(sent)).unwrap_or_else(|e| panic!("{e}"));
    store.commit(set.txn).unwrap_or_else(|e| panic!("{e}"));
    store
}

#[test]
fn a_rule_whose_priority_is_in_its_message_is_deleted_by_the_text_it_was_sent_with() {
    let eni = json!({"mac_address": "00:1A:C5:00:00:01", "underlay_ip": "1.1.1.1"});
    let rule = |priority| json!({"action_type": "decap", "priority": priority});
    let store = store_with(&[
        ("DASH_ENI_TABLE[key=e]", eni),
        ("DASH_ROUTE_RULE_TABLE[key=e:1:10.0.0.0/8]", rule(4)),
        ("DASH_ROUTE_RULE_TABLE[key=e:1:10.0.0.0/8:6]", rule(0)),
        ("DASH_ROUTE_RULE_TABLE[key=e:2:10.0.0.0/8]", rule(4)),
    ]);
    let deleted = |key: &str| -> Vec<String> {
        let delete = vec![path(&format!("DASH_ROUTE_RULE_TABLE[key={key}]"))];
        let request = SetRequest {
            delete,
            ..SetRequest::default()
        };
        let txn = decode_set(&request).unwrap().resolve(&store);
        txn.ops.iter().map(|op| op.key.to_string()).collect()
    };
    assert_eq!(
        deleted("e:1:10.0.0.0/8"),
        ["DASH_ROUTE_RULE_TABLE:e:1:10.0.0.0/8:4"]
    );
    assert_eq!(
        deleted("e:1:10.0.0.0/8:6"),
        ["DASH_ROUTE_RULE_TABLE:e:1:10.0.0.0/8:6"]
    );
}

#[test]
fn errors_are_all_found_and_name_index_path_and_reason() {
    let request = SetRequest {
        delete: vec![path("DASH_VNET_TABLE/x"), path("DASH_ACL_IN_TABLE/e:9")],
        replace: vec![vnet("b", 0)],
        update: vec![
            vnet("ok", 1),
            update(
                "DASH_ROUTE_TABLE[key=g:10.0.0.0/8]",
                ietf(&json!({"routing_type": "appliance"})),
            ),
        ],
        ..SetRequest::default()
    };
    let error = error(&request);
    let found: Vec<_> = error.errors.iter().map(|e| (e.index, e.place())).collect();
    assert_eq!(
        found,
        [(1, "delete[1]"), (2, "replace[0]"), (4, "update[1]")].map(|(n, p)| (n, p.to_owned()))
    );
    assert_eq!(
        error.errors[2].to_string(),
        "update[1] sonic-db:/DPU_APPL_DB/dpu0/DASH_ROUTE_TABLE[key=g:10.0.0.0/8]: \
         DASH_ROUTE_TABLE:g:10.0.0.0/8: routing_type: routing type appliance is not supported yet"
    );
    let status = Status::from(&error);
    assert_eq!(
        status.code(),
        Code::InvalidArgument,
        "that of the first error"
    );
    let details = status.get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    assert_eq!(violations.len(), 3);
    assert_eq!(
        violations[1].field,
        "replace[0] sonic-db:/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=b]"
    );
    assert!(violations[1].description.contains("0 is not a VNI"));
}

#[test]
fn no_more_than_a_hundred_errors_are_kept() {
    let request = updates((0..250).map(|n| vnet(&format!("v{n}"), 0)).collect());
    let error = error(&request);
    assert_eq!((error.errors.len(), error.omitted), (SetError::CAP, 150));
    assert!(error.to_string().ends_with("and 150 more"));
    assert!(Status::from(&error).message().ends_with("(and 249 more)"));
}

#[track_caller]
fn refused(request: &SetRequest, code: Code, text: &str) {
    let status = Status::from(error(request));
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(text), "{status}");
}

#[test]
fn each_error_of_sonic_keeps_its_code_and_text() {
    let at = |text: &str, value: Option<Typed>| {
        updates(vec![Update {
            path: Some(parse_path(text).unwrap()),
            val: value.map(|value| TypedValue { value: Some(value) }),
            ..Update::default()
        }])
    };
    let pb = || Some(Typed::ProtoBytes(vec![0x08, 1].into()));
    let json = |text: &'static str| Some(Typed::JsonIetfVal(text.into()));
    let row = "sonic-db:/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=v]";
    for (request, code, text) in [
        (
            at("sonic-db:/ASIC_DB/dpu0/DASH_VNET_TABLE[key=v]", pb()),
            Code::Unknown,
            "Set RPC does not support ASIC_DB",
        ),
        (
            at(
                "sonic-db:/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=v]/vni",
                pb(),
            ),
            Code::Unknown,
            "can't update field",
        ),
        (
            at("sonic-db:/DPU_APPL_DB", pb()),
            Code::NotFound,
            "Invalid elem length",
        ),
        (
            at("sonic-db:/DPU_APPL_DB/dpu0", pb()),
            Code::Unknown,
            "Unsupported path",
        ),
        (
            at("sonic-db:/DPU_APPL_DB/dpu0/DASH_VNET_TABLE", pb()),
            Code::Unknown,
            "Unsupported path",
        ),
        (
            at("sonic-db:/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=*]", pb()),
            Code::Unknown,
            "Unsupported path",
        ),
        (
            at("sonic-db:/X_DB/dpu0/DASH_VNET_TABLE[key=v]", pb()),
            Code::NotFound,
            "Invalid target",
        ),
        (
            at("other:/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=v]", pb()),
            Code::Unimplemented,
            "Unsupported origin",
        ),
        (
            at(row, json("{\"vni\":")),
            Code::Unknown,
            "JSON unmarshalling error",
        ),
        (
            at(row, json("\"text\"")),
            Code::Unknown,
            "Unsupported value",
        ),
        (
            at("sonic-db:/DPU_APPL_DB/dpu0/DASH_VNET_TABLE", json("[]")),
            Code::Unknown,
            "Unsupported value",
        ),
        (
            at(row, Some(Typed::StringVal("x".to_owned()))),
            Code::Unknown,
            "Unsupported TypedValue: string_val",
        ),
        (
            at(row, Some(Typed::ProtoBytes(vec![0x0a].into()))),
            Code::InvalidArgument,
            "not a dash.vnet.Vnet",
        ),
        (
            at("sonic-db:/DPU_APPL_DB/dpu0/ROUTE_TABLE[key=v]", pb()),
            Code::InvalidArgument,
            "not a DASH table",
        ),
    ] {
        refused(&request, code, text);
    }
    let conflict = updates(vec![
        vnet("a", 1),
        Update {
            path: Some(parse_path("sonic-db:/DPU_APPL_DB/dpu1/DASH_VNET_TABLE/b").unwrap()),
            ..vnet("b", 1)
        },
    ]);
    refused(
        &conflict,
        Code::NotFound,
        "Namespace/container conflict in path",
    );
}

#[test]
fn a_value_we_cannot_read_never_becomes_a_delete() {
    let empty = Update {
        val: Some(TypedValue { value: None }),
        ..vnet("a", 1)
    };
    refused(
        &updates(vec![empty]),
        Code::Unknown,
        "Unsupported TypedValue",
    );
    #[expect(deprecated, reason = "what an old client sends")]
    let old = Update {
        value: Some(dash_proto::gnmi::Value::default()),
        val: None,
        ..vnet("a", 1)
    };
    refused(&updates(vec![old]), Code::Unknown, "Unsupported TypedValue");
    let union = SetRequest {
        union_replace: vec![vnet("a", 1)],
        ..SetRequest::default()
    };
    refused(&union, Code::Unimplemented, "union_replace");
}

#[test]
fn warnings_carry_the_place_of_their_update() {
    let request = updates(vec![
        vnet("a", 1),
        update("DASH_RESET_STATUS[key=q]", ietf(&json!({"done": "false"}))),
    ]);
    let set = decode_set(&request).unwrap();
    assert_eq!(set.warnings.len(), 1);
    assert_eq!(
        (set.warnings[0].index, set.warnings[0].text.as_str()),
        (1, "stored, not acted on")
    );
}

#[test]
fn a_path_may_be_wholly_in_the_prefix() {
    let request = SetRequest {
        prefix: Some(path("DASH_VNET_TABLE[key=v]")),
        update: vec![Update {
            path: None,
            ..vnet("x", 4)
        }],
        ..SetRequest::default()
    };
    assert_eq!(ops(&request), [("DASH_VNET_TABLE:v".to_owned(), true)]);
}

/// The fields of the row a request leaves, on a store with these rows.
fn left(rows: &[(&str, Value)], request: &SetRequest, table: &str) -> Option<Value> {
    let txn = decode_set(request).unwrap().resolve(&store_with(rows));
    let op = txn
        .ops
        .into_iter()
        .rfind(|op| op.key.table_name() == table)?;
    match op.action {
        Action::Set { raw, .. } => Some(dash_proto::row_to_json(table, &raw)),
        Action::Del => None,
    }
}

#[test]
fn an_update_of_a_row_of_fields_leaves_the_others_and_a_replace_is_the_whole_row() {
    let at = "SWITCH_TABLE[key=switch]";
    let was = [(at, json!({"vxlan_port": "4790", "vxlan_mask": "3"}))];
    let change = |fields| update(at, ietf(&fields));
    let left = |rows: &[(&str, Value)], request| left(rows, &request, "SWITCH_TABLE").unwrap();
    let sport = || change(json!({"vxlan_sport": "5000"}));
    let all = json!({"vxlan_port": 4790, "vxlan_sport": 5000, "vxlan_mask": 3});
    assert_eq!(left(&was, updates(vec![sport()])), all);
    let replace = SetRequest {
        replace: vec![sport()],
        ..SetRequest::default()
    };
    assert_eq!(left(&was, replace.clone()), json!({"vxlan_sport": 5000}));
    assert_eq!(
        left(&[], updates(vec![sport()])),
        json!({"vxlan_sport": 5000})
    );
    // A field that is there becomes the update's, by each update of the request.
    let twice = vec![
        change(json!({"vxlan_port": 1})),
        sport(),
        change(json!({"vxlan_port": 2})),
    ];
    let two = json!({"vxlan_port": 2, "vxlan_sport": 5000, "vxlan_mask": 3});
    assert_eq!(left(&was, updates(twice)), two);
    // What is deleted before it adds nothing; what is replaced before it does.
    let port = || vec![change(json!({"vxlan_port": 7}))];
    for delete in [at, "SWITCH_TABLE"] {
        let deleted = SetRequest {
            delete: vec![path(delete)],
            update: port(),
            ..SetRequest::default()
        };
        assert_eq!(left(&was, deleted), json!({"vxlan_port": 7}), "{delete}");
    }
    let replaced = SetRequest {
        update: port(),
        ..replace
    };
    assert_eq!(
        left(&was, replaced),
        json!({"vxlan_port": 7, "vxlan_sport": 5000})
    );
    // Of many rows at the table's path, too.
    let bulk = update(
        "SWITCH_TABLE",
        ietf(&json!({"switch": {"vxlan_sport": 5000}})),
    );
    assert_eq!(left(&was, updates(vec![bulk])), all);
}

#[test]
fn rows_kept_as_they_came_have_fields_and_messages_have_not() {
    let at = "DASH_FLOW_DUMP_FILTER_TABLE[key=f]";
    let was = [(
        at,
        json!({"key": "ip_protocol", "op": "equal_to", "value": "6"}),
    )];
    let change = |value| updates(vec![update(at, ietf(&value))]);
    let after = left(
        &was,
        &change(json!({"value": "17"})),
        "DASH_FLOW_DUMP_FILTER_TABLE",
    );
    let merged = json!({"key": "ip_protocol", "op": "equal_to", "value": "17"});
    assert_eq!(after, Some(merged));
    let at = "DASH_QOS_TABLE[key=q]";
    let was = [(at, json!({"bw": 1, "cps": 2}))];
    let request = updates(vec![update(at, ietf(&json!({"bw": 3})))]);
    assert_eq!(
        left(&was, &request, "DASH_QOS_TABLE"),
        Some(json!({"bw": 3}))
    );
}
