//! Properties over arbitrary messages and arbitrary bytes: the two forms of a row agree, texts
//! round-trip, and nothing from outside panics.

#![expect(clippy::unwrap_used, reason = "a test stops at the line that fails")]

use dash_model::ObjectKey;
use dash_proto::gnmi::{Path, PathElem, SetRequest};
use dash_proto::path::{Db, parse_path, path_text};
use dash_proto::{
    DbPath, RowValue, config_to_txn, decode_row, decode_set, encode_row, load_config, row_to_json,
    schema,
};
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value as Pb};
use serde_json::Value;

/// Decides everything about a generated message, so that proptest can shrink it.
struct Choices<'a>(&'a [u64]);

impl Choices<'_> {
    fn next(&mut self) -> u64 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = [0, 1, 4, 6, 16, 17][self.below(6) as usize];
        let text = self.below(2) == 0;
        (0..len)
            .map(|_| {
                if text {
                    b' ' + self.below(95) as u8
                } else {
                    self.next() as u8
                }
            })
            .collect()
    }

    fn text(&mut self) -> String {
        let samples = ["", "v", "a,b", "10.0.0.0/8", "12", "null", "é]", "0x", "{}"];
        samples[self.below(samples.len() as u64) as usize].to_owned()
    }

    fn message(&mut self, descriptor: MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields() {
            if self.below(3) == 0 {
                continue;
            }
            let value = if field.is_list() {
                let len = self.below(3);
                Pb::List((0..len).map(|_| self.value(&field.kind(), depth)).collect())
            } else {
                self.value(&field.kind(), depth)
            };
            message.set_field(&field, value);
        }
        message
    }

    fn value(&mut self, kind: &Kind, depth: u32) -> Pb {
        let small = self.below(2) == 0;
        let number = if small { self.below(10) } else { self.next() };
        match kind {
            Kind::Bool => Pb::Bool(number & 1 == 1),
            Kind::Uint32 | Kind::Fixed32 => Pb::U32(number as u32),
            Kind::Uint64 => Pb::U64(number),
            Kind::Int32 => Pb::I32(number as i32),
            Kind::Int64 => Pb::I64(number as i64),
            Kind::String => Pb::String(self.text()),
            Kind::Bytes => Pb::Bytes(self.bytes().into()),
            Kind::Enum(_) => Pb::EnumNumber(number as i32),
            Kind::Message(inner) if depth > 0 => {
                Pb::Message(self.message(inner.clone(), depth - 1))
            }
            Kind::Message(inner) => Pb::Message(DynamicMessage::new(inner.clone())),
            other => panic!("{other:?} is in no DASH message"),
        }
    }
}

fn tables() -> Vec<&'static str> {
    schema::tables().map(|(table, _)| table).collect()
}

/// A table and a canonical encoding of its message.
fn encoding() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let choices = prop::collection::vec(any::<u64>(), 0..80);
    (select(tables()), choices).prop_map(|(table, choices)| {
        let descriptor = schema::message_of(table).unwrap();
        let message = Choices(&choices).message(descriptor, 4);
        (table, message.encode_to_vec())
    })
}

/// A key text that the table takes.
fn key(table: &str) -> &'static str {
    match table {
        "DASH_ROUTING_TYPE_TABLE" => "vnet_encap",
        "DASH_ROUTE_TABLE" => "g:10.0.0.0/8",
        "DASH_ROUTE_RULE_TABLE" => "e:1:10.0.0.0/8",
        "DASH_VNET_MAPPING_TABLE" => "v:10.0.0.1",
        "DASH_ACL_RULE_TABLE" => "g:r",
        "DASH_ACL_IN_TABLE" | "DASH_ACL_OUT_TABLE" => "e:1",
        _ => "k",
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(vec![
            "vnet",
            "10.0.0.0/8",
            "::1",
            "1-2",
            "aa:bb",
            "2",
            "",
            "\u{e9}"
        ])
        .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        select(vec![
            "vni",
            "vnet",
            "guid",
            "items",
            "sip",
            "overlay_ip",
            "vnet_direct",
            "src_addr",
            "src_port",
            "routing_type",
            "action_type",
            "trusted_vnis",
            "RoutingTypeData",
            "pb",
            "ip",
            "mask",
            "range",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn protobuf_to_json_and_back_is_the_same_bytes((table, raw) in encoding()) {
        // HA rows are kept as JSON when they come as JSON, so there is no way back to protobuf.
        prop_assume!(!matches!(table, "DASH_HA_SET_TABLE" | "DASH_HA_SCOPE_TABLE"));
        let json = row_to_json(table, &raw);
        let back = encode_row(table, "k", &json);
        prop_assert_eq!(back.as_ref(), Ok(&raw), "{} {}", table, json);
        prop_assert_eq!(row_to_json(table, &back.unwrap()), json);
    }

    #[test]
    fn printed_rows_are_judged_as_their_bytes_are((table, raw) in encoding()) {
        prop_assume!(!matches!(table, "DASH_HA_SET_TABLE" | "DASH_HA_SCOPE_TABLE"));
        let json = row_to_json(table, &raw);
        let by_pb = decode_row(table, key(table), RowValue::Pb(&raw));
        let by_json = decode_row(table, key(table), RowValue::Json(&json));
        prop_assert_eq!(by_pb, by_json);
    }

    #[test]
    fn an_accepted_row_is_stored_as_sent((table, raw) in encoding()) {
        if let Ok(row) = decode_row(table, key(table), RowValue::Pb(&raw)) {
            prop_assert_eq!(row.raw.as_ref(), &raw);
            prop_assert_eq!(row.key.table_name(), table);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        table in select(tables()),
        raw in prop::collection::vec(any::<u8>(), 0..64),
        text in ".{0,20}",
    ) {
        let _ = decode_row(table, key(table), RowValue::Pb(&raw));
        let _ = decode_row(table, &text, RowValue::Pb(&raw));
        let json = row_to_json(table, &raw);
        prop_assert!(json.is_object() || json.is_array());
    }

    #[test]
    fn arbitrary_json_never_panics_and_what_is_taken_is_stable(
        table in select(tables()),
        value in json(),
    ) {
        let _ = decode_row(table, key(table), RowValue::Json(&value));
        if let Ok(raw) = encode_row(table, "k", &value) {
            let printed = row_to_json(table, &raw);
            let again = encode_row(table, "k", &printed);
            prop_assert_eq!(again.as_ref(), Ok(&raw), "{} -> {}", value, printed);
        }
    }

    #[test]
    fn arbitrary_files_never_panic(text in ".{0,80}", value in json()) {
        for text in [text.as_str(), &value.to_string(), &format!("[{{\"DASH_VNET_TABLE:a\": {value}}}]")] {
            if let Ok(rows) = load_config(text) {
                let _ = config_to_txn(&rows);
            }
        }
    }

    #[test]
    fn every_row_of_a_file_has_its_line(blank in prop::collection::vec(0_usize..4, 1..8)) {
        let mut text = "[".to_owned();
        let mut lines = Vec::new();
        for (n, blank) in blank.iter().enumerate() {
            text.push_str(if n > 0 { "," } else { "" });
            text.push_str(&"\n".repeat(*blank));
            lines.push(text.matches('\n').count() + 1);
            text.push_str(&format!("{{\"DASH_VNET_TABLE:{n}\": {{}}}}"));
        }
        text.push(']');
        let rows = load_config(&text).unwrap();
        prop_assert_eq!(rows.iter().map(|r| r.line).collect::<Vec<_>>(), lines);
        let indices: Vec<_> = rows.iter().map(|r| r.index).collect();
        prop_assert_eq!(indices, (0..blank.len()).collect::<Vec<_>>());
    }

    #[test]
    fn arbitrary_requests_never_panic(raw in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(request) = SetRequest::decode(raw.as_slice()) {
            let _ = decode_set(&request).map_err(tonic::Status::from);
        }
    }

    #[test]
    fn a_damaged_request_never_panics(at in 0_usize..2460, byte in any::<u8>(), cut in 0_usize..2460) {
        let mut raw = include_bytes!("../../../specs/gnmi/full_privatelink.set.bin").to_vec();
        raw[at] = byte;
        for raw in [&raw[..], &raw[..cut]] {
            if let Ok(request) = SetRequest::decode(raw) {
                let _ = decode_set(&request).map_err(tonic::Status::from);
            }
        }
    }

    #[test]
    fn path_texts_never_panic_and_what_parses_is_stable(text in "[/:=\\[\\]\\\\a-zA-Z_0-9é-]{0,40}") {
        let _ = text.parse::<DbPath>();
        if let Ok(path) = parse_path(&text) {
            let _ = DbPath::from_gnmi(Some(&path), &path);
            let _ = DbPath::from_gnmi(None, &path);
            let printed = path_text(&path);
            prop_assert_eq!(parse_path(&printed).map(|p| path_text(&p)), Ok(printed));
        }
    }

    #[test]
    fn a_paths_text_gives_the_path_back(
        elem in prop::collection::vec(("[^\\x00]{1,8}", prop::collection::btree_map(".{1,6}", ".{0,8}", 0..3)), 1..5),
    ) {
        // Without an origin a first element like `a:` would read as one; and the elements after
        // a table that look like a prefix are joined on purpose.
        prop_assume!(!elem.iter().any(|(name, _)| name.contains("DASH_")));
        let path = Path {
            origin: "sonic-db".to_owned(),
            elem: elem.into_iter().map(|(name, key)| PathElem { name, key }).collect(),
            ..Path::default()
        };
        prop_assert_eq!(parse_path(&path_text(&path)), Ok(path));
    }

    #[test]
    fn a_row_path_survives_message_and_text(
        db in select(Db::ALL.to_vec()),
        instance in "[a-z]{1,6}[0-9]?",
        table in "DASH_[A-Z_]{1,12}",
        key in ".{1,24}",
        field in prop::option::of("[A-Z_]{1,8}"),
    ) {
        let path = DbPath { field, ..DbPath::row(db, &instance, &table, &key) };
        prop_assert_eq!(DbPath::from_gnmi(None, &path.to_gnmi()), Ok(path.clone()));
        prop_assert_eq!(path.to_string().parse::<DbPath>(), Ok(path));
    }

    #[test]
    fn keys_that_parse_print_as_the_same_row(key in "[a-z0-9:./]{0,24}", table in select(tables())) {
        if let Ok(parsed) = ObjectKey::parse(table, &key) {
            prop_assert_eq!(parsed.to_string().parse::<ObjectKey>(), Ok(parsed));
        }
    }
}
