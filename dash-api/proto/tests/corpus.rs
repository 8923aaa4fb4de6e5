//! The recorded requests of `specs/gnmi`: bytes that real clients send.

#![expect(clippy::unwrap_used, reason = "a test stops at the line that fails")]

use dash_model::objects::Object;
use dash_model::{Action, ObjectKey};
use dash_proto::gnmi::SetRequest;
use dash_proto::gnmi::typed_value::Value as Typed;
use dash_proto::gnmi::update_result::Operation;
use dash_proto::{RowValue, decode_row, decode_set, row_to_json, schema};
use prost::Message;
use prost_reflect::DynamicMessage;
use serde_json::Value;

const CORPUS: &str = include_str!("../../../specs/gnmi/corpus.json");
const FULL: &[u8] = include_bytes!("../../../specs/gnmi/full_privatelink.set.bin");

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|n| u8::from_str_radix(&text[n..n + 2], 16).unwrap())
        .collect()
}

fn entries() -> Vec<Value> {
    let entries: Vec<Value> = serde_json::from_str(CORPUS).unwrap();
    assert_eq!(entries.len(), 24);
    entries
}

fn text<'a>(entry: &'a Value, name: &str) -> Option<&'a str> {
    entry.get(name)?.as_str()
}

/// The corpus's rows: table, key, value.
fn rows() -> Vec<(String, String, Vec<u8>)> {
    let rows: Vec<_> = entries()
        .iter()
        .filter_map(|e| {
            let value = unhex(text(e, "value_hex")?);
            Some((text(e, "table")?.into(), text(e, "key")?.into(), value))
        })
        .collect();
    assert_eq!(rows.len(), 20);
    rows
}

#[test]
fn every_request_encodes_back_byte_for_byte() {
    let mut seen = 0;
    for entry in entries() {
        let Some(hex) = text(&entry, "set_request_hex") else {
            continue;
        };
        let bytes = unhex(hex);
        let request = SetRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(request.encode_to_vec(), bytes, "{entry}");
        seen += 1;
    }
    assert_eq!(seen, 23);
    let full = SetRequest::decode(FULL).unwrap();
    assert_eq!(full.update.len(), 20);
    assert_eq!(full.encode_to_vec(), FULL);
}

#[test]
fn every_row_encodes_back_byte_for_byte() {
    for entry in entries() {
        let (Some(table), Some(hex)) = (text(&entry, "table"), text(&entry, "value_hex")) else {
            continue;
        };
        let descriptor = schema::message_of(table).unwrap();
        assert_eq!(Some(descriptor.full_name()), text(&entry, "message"));
        let value = unhex(hex);
        let message = DynamicMessage::decode(descriptor, value.as_slice()).unwrap();
        assert_eq!(message.unknown_fields().count(), 0, "{table}");
        assert_eq!(message.encode_to_vec(), value, "{table}");
    }
}

/// The generated types, not only the descriptors.
#[test]
fn generated_messages_encode_the_rows_back_byte_for_byte() {
    use dash_proto::dash;
    fn back<M: Message + Default>(value: &[u8]) -> Vec<u8> {
        M::decode(value).unwrap().encode_to_vec()
    }
    for (table, _, value) in rows() {
        let encoded = match table.as_str() {
            "DASH_APPLIANCE_TABLE" => back::<dash::appliance::Appliance>(&value),
            "DASH_ROUTING_TYPE_TABLE" => back::<dash::route_type::RouteType>(&value),
            "DASH_VNET_TABLE" => back::<dash::vnet::Vnet>(&value),
            "DASH_QOS_TABLE" => back::<dash::qos::Qos>(&value),
            "DASH_METER_POLICY_TABLE" => back::<dash::meter_policy::MeterPolicy>(&value),
            "DASH_METER_RULE_TABLE" => back::<dash::meter_rule::MeterRule>(&value),
            "DASH_TUNNEL_TABLE" => back::<dash::tunnel::Tunnel>(&value),
            "DASH_OUTBOUND_PORT_MAP_TABLE" => {
                back::<dash::outbound_port_map::OutboundPortMap>(&value)
            }
            "DASH_OUTBOUND_PORT_MAP_RANGE_TABLE" => {
                back::<dash::outbound_port_map_range::OutboundPortMapRange>(&value)
            }
            "DASH_PREFIX_TAG_TABLE" => back::<dash::tag::PrefixTag>(&value),
            "DASH_ACL_GROUP_TABLE" => back::<dash::acl_group::AclGroup>(&value),
            "DASH_ACL_RULE_TABLE" => back::<dash::acl_rule::AclRule>(&value),
            "DASH_ACL_IN_TABLE" => back::<dash::acl_in::AclIn>(&value),
            "DASH_ENI_TABLE" => back::<dash::eni::Eni>(&value),
            "DASH_ROUTE_GROUP_TABLE" => back::<dash::route_group::RouteGroup>(&value),
            "DASH_ROUTE_TABLE" => back::<dash::route::Route>(&value),
            "DASH_VNET_MAPPING_TABLE" => back::<dash::vnet_mapping::VnetMapping>(&value),
            "DASH_ROUTE_RULE_TABLE" => back::<dash::route_rule::RouteRule>(&value),
            "DASH_ENI_ROUTE_TABLE" => back::<dash::eni_route::EniRoute>(&value),
            other => panic!("{other} has no case"),
        };
        assert_eq!(encoded, value, "{table}");
    }
}

#[test]
fn every_row_survives_the_readable_json() {
    for (table, key, value) in rows() {
        let json = row_to_json(&table, &value);
        let pb = decode_row(&table, &key, RowValue::Pb(&value)).unwrap();
        let from_json = decode_row(&table, &key, RowValue::Json(&json)).unwrap();
        assert_eq!(from_json.raw.as_ref(), value, "{table} {json}");
        assert_eq!(pb, from_json);
    }
}

#[test]
fn rows_of_this_release_decode() {
    for (table, key, value) in rows() {
        let row = decode_row(&table, &key, RowValue::Pb(&value)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(row.raw.as_ref(), value);
        assert_eq!(row.key.table_name(), table);
        let acts = !matches!(row.object, Object::Opaque);
        assert_eq!(acts, !matches!(row.key, ObjectKey::Opaque(..)));
        let stored = row.warnings.iter().any(|w| w == "stored, not acted on");
        assert_eq!(stored, !acts, "{table}: {:?}", row.warnings);
    }
}

#[test]
fn the_full_request_with_its_private_link_is_one_transaction() {
    let request = SetRequest::decode(FULL).unwrap();
    let sent = request.update.clone();
    let set = decode_set(&request).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(set.txn.ops.len(), 20);
    assert_eq!(set.results.len(), 20);
    for (n, (op, update)) in set.txn.ops.iter().zip(&sent).enumerate() {
        assert_eq!(op.index, n);
        assert_eq!(
            set.results[n],
            (update.path.clone().unwrap(), Operation::Update)
        );
        let Some(Typed::ProtoBytes(bytes)) = &update.val.as_ref().unwrap().value else {
            panic!("{update:?}");
        };
        match &op.action {
            Action::Set { raw, .. } => assert_eq!(raw.as_ref(), bytes.as_ref()),
            Action::Del => panic!("{op:?}"),
        }
    }
    // The same with the origin in the prefix, as py_gnmicli sends it.
    let mut moved = request.clone();
    moved.prefix = Some(dash_proto::gnmi::Path {
        origin: "sonic-db".to_owned(),
        ..Default::default()
    });
    for update in &mut moved.update {
        update.path.as_mut().unwrap().origin.clear();
    }
    assert_eq!(decode_set(&moved).unwrap().txn, set.txn);
}

#[test]
fn each_form_of_a_vnet_request_means_the_same_row() {
    let forms: Vec<SetRequest> = entries()
        .iter()
        .filter(|e| {
            text(e, "table") == Some("DASH_VNET_TABLE")
                && text(e, "op").is_none_or(|op| op.starts_with("UPDATE"))
        })
        .map(|e| SetRequest::decode(unhex(text(e, "set_request_hex").unwrap()).as_slice()).unwrap())
        .collect();
    assert_eq!(forms.len(), 3);
    let first = decode_set(&forms[0]).unwrap().txn;
    assert_eq!(first.ops[0].key.to_string(), "DASH_VNET_TABLE:Vnet1");
    for form in &forms[1..] {
        assert_eq!(decode_set(form).unwrap().txn, first);
    }
}

#[test]
fn a_recorded_delete_is_a_delete() {
    let delete = entries()
        .into_iter()
        .find(|e| text(e, "op") == Some("DELETE"))
        .unwrap();
    let bytes = unhex(text(&delete, "set_request_hex").unwrap());
    let set = decode_set(&SetRequest::decode(bytes.as_slice()).unwrap()).unwrap();
    assert_eq!(set.txn.ops.len(), 1);
    assert_eq!(set.txn.ops[0].action, Action::Del);
    assert_eq!(set.txn.ops[0].key.to_string(), "DASH_VNET_TABLE:Vnet1");
    assert_eq!(set.results[0].1, Operation::Delete);
}
