//! Capabilities, Set and Get as clients of SONiC use them.

use dash_proto::gnmi::typed_value::Value as Typed;
use dash_proto::gnmi::{
    CapabilityRequest, Encoding, GetRequest, Path, SetRequest, SubscribeRequest,
};
use dash_proto::path::path_text;
use prost::Message;
use serde_json::{Value, json as value};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{Daemon, demo, json, path, request_of, typed, updates};

const CORPUS: &str = include_str!("../../../../specs/gnmi/corpus.json");
const FULL: &[u8] = include_bytes!("../../../../specs/gnmi/full_privatelink.set.bin");
const MAPPING: &str = "DASH_VNET_MAPPING_TABLE";

fn unhex(text: &str) -> Vec<u8> {
    let digits = (0..text.len()).step_by(2);
    digits
        .map(|n| u8::from_str_radix(&text[n..n + 2], 16).unwrap())
        .collect()
}

fn full() -> SetRequest {
    SetRequest::decode(FULL).unwrap()
}

fn table(update: &dash_proto::gnmi::Update) -> &str {
    &update.path.as_ref().unwrap().elem[2].name
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_name_the_model_and_three_encodings() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    let answer = daemon
        .gnmi()
        .capabilities(CapabilityRequest::default())
        .await
        .unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.supported_models[0].name, "sonic-db");
    let encodings = [Encoding::Json, Encoding::JsonIetf, Encoding::Proto].map(i32::from);
    assert_eq!(answer.supported_encodings, encodings);
    assert_eq!(answer.g_nmi_version, "0.10.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_rows_are_one_generation_and_read_back_byte_for_byte() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    let before = daemon.generation().await;
    let request = full();
    let answer = daemon.set(request.clone()).await.unwrap();
    assert_eq!(daemon.generation().await, before + 1);
    let paths: Vec<_> = answer.response.iter().map(|r| r.path.clone()).collect();
    assert_eq!(
        paths,
        request
            .update
            .iter()
            .map(|u| u.path.clone())
            .collect::<Vec<_>>()
    );

    for update in &request.update {
        let text = path_text(update.path.as_ref().unwrap());
        let sent = update.val.clone().unwrap().value.unwrap();
        assert_eq!(
            daemon.get(&text, Encoding::Proto).await.unwrap(),
            sent,
            "{text}"
        );
        // The result row of each would say if it did not act.
        let state = text.replace("DPU_APPL_DB", "DPU_APPL_STATE_DB");
        let result = daemon.get_json(&state).await.unwrap();
        assert_eq!(result["result"], "0", "{state}");
        assert_eq!(result.get("note"), None, "{state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_act_refuses_the_whole_request_with_index_path_and_reason() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    let (mut request, before) = (full(), daemon.generation().await);
    let at = request.update.len();
    let row = value!({"routing_type": "appliance", "underlay_ip": "9.9.9.9"});
    let mappings = |update: &&_| table(update) == MAPPING;
    let mut update = request.update.iter().find(mappings).unwrap().clone();
    let elem = &mut update.path.as_mut().unwrap().elem[2];
    elem.key.insert("key".into(), "Vnet1:10.2.0.101".into());
    update.val = json(&format!("/DPU_APPL_DB/dpu0/{MAPPING}"), &row).val;
    request.update.push(update);
    let status = daemon.set(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let place = format!("update[{at}]");
    for part in [place.as_str(), "Vnet1:10.2.0.101", "appliance"] {
        assert!(status.message().contains(part), "{}", status.message());
    }
    let details = status.get_error_details();
    assert!(
        details.bad_request().unwrap().field_violations[0]
            .field
            .starts_with(&place)
    );

    assert_eq!(daemon.generation().await, before);
    let rows = daemon
        .server
        .control()
        .call(|plane| plane.engine.store().len())
        .await
        .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_form_of_a_row_is_the_same_row() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    let corpus: Vec<Value> = serde_json::from_str(CORPUS).unwrap();
    let requests = |wanted: &str| -> Vec<SetRequest> {
        let of = corpus.iter().filter(|e| {
            e["table"] == "DASH_VNET_TABLE"
                && e.get("op")
                    .and_then(Value::as_str)
                    .unwrap_or("UPDATE")
                    .starts_with(wanted)
                && e.get("set_request_hex").is_some()
        });
        of.map(|e| unhex(e["set_request_hex"].as_str().unwrap()))
            .map(|bytes| SetRequest::decode(bytes.as_slice()).unwrap())
            .collect()
    };
    let appliance = value!({"sip": "10.0.0.1", "vm_vni": "4321"});
    let appliance = json(
        "/DPU_APPL_DB/dpu0/DASH_APPLIANCE_TABLE[key=100]",
        &appliance,
    );
    daemon.set(updates(vec![appliance])).await.unwrap();
    let (sets, deletes) = (requests("UPDATE"), requests("DELETE"));
    assert_eq!((sets.len(), deletes.len()), (3, 1));
    for request in sets {
        daemon.set(request).await.unwrap();
        for form in [
            "/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=Vnet1]",
            "sonic-db:/APPL_DB/localhost/DASH_VNET_TABLE/Vnet1",
            "/DPU_APPL_DB/DASH_VNET_TABLE/Vnet1",
        ] {
            assert_eq!(daemon.get_json(form).await.unwrap()["vni"], 2001, "{form}");
        }
        daemon.set(deletes[0].clone()).await.unwrap();
        let gone = daemon
            .get_json("/DPU_APPL_DB/dpu0/DASH_VNET_TABLE/Vnet1")
            .await;
        assert_eq!(gone.unwrap_err().code(), Code::NotFound);
        // Once more is no error.
        daemon.set(deletes[0].clone()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_rows_are_written_and_read_by_row_table_and_field() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    daemon.configure(&demo()).await;
    let row = "/DPU_APPL_DB/dpu0/DASH_VNET_MAPPING_TABLE[key=Vnet1:10.1.1.1]";
    let mapping = daemon.get_json(row).await.unwrap();
    assert_eq!(mapping["underlay_ip"], "101.1.2.3");
    assert_eq!(mapping["routing_type"], "vnet_encap");
    let by_table = daemon
        .get_json("/DPU_APPL_DB/dpu0/DASH_VNET_MAPPING_TABLE")
        .await
        .unwrap();
    assert_eq!(by_table.as_object().unwrap().len(), 3);
    assert_eq!(by_table["Vnet1:10.1.1.1"], mapping);
    let field = "/DPU_APPL_DB/dpu0/DASH_VNET_TABLE/Vnet1/vni";
    assert_eq!(daemon.get_json(field).await.unwrap(), 45654);
    // What was printed is taken back.
    daemon
        .set(updates(vec![json(row, &mapping)]))
        .await
        .unwrap();
    // Many rows at a table's path.
    let bulk = value!({"A": {"vni": 5}, "B": {"vni": 6}});
    daemon
        .set(updates(vec![json(
            "/DPU_APPL_DB/dpu0/DASH_VNET_TABLE",
            &bulk,
        )]))
        .await
        .unwrap();
    let vnets = daemon
        .get_json("/DPU_APPL_DB/dpu0/DASH_VNET_TABLE")
        .await
        .unwrap();
    assert_eq!(vnets.as_object().unwrap().len(), 4);
    // json_val is taken as json_ietf_val, and JSON answers with it.
    let text = Typed::JsonVal(br#"{"vni": 7}"#.to_vec().into());
    daemon
        .set(updates(vec![typed(
            "/DPU_APPL_DB/dpu0/DASH_VNET_TABLE/C",
            text,
        )]))
        .await
        .unwrap();
    let answer = daemon
        .get("/DPU_APPL_DB/dpu0/DASH_VNET_TABLE/C", Encoding::Json)
        .await;
    assert!(matches!(answer.unwrap(), Typed::JsonVal(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_unknown_tables_are_stored_and_named_so() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    let row = "/DPU_APPL_DB/dpu0/DASH_RESET_STATUS[key=now]";
    daemon
        .set(updates(vec![json(row, &value!({"done": "false"}))]))
        .await
        .unwrap();
    assert_eq!(
        daemon.get_json(row).await.unwrap(),
        value!({"done": "false"})
    );
    let refused = daemon.get(row, Encoding::Proto).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let result = daemon
        .get_json("/DPU_APPL_STATE_DB/dpu0/DASH_RESET_STATUS[key=now]")
        .await;
    assert_eq!(result.unwrap()["note"], "stored, not acted on");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_routing_types_have_the_enum_in_their_key() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    daemon.configure(&demo()).await;
    let table = "/DPU_APPL_STATE_DB/dpu0/DASH_ROUTING_TYPE_TABLE";
    let rows = daemon.get_json(table).await.unwrap();
    assert_eq!(rows, value!({"ROUTING_TYPE_VNET_ENCAP": {"result": "0"}}));
    let row = daemon
        .get_json(&format!("{table}/ROUTING_TYPE_VNET_ENCAP"))
        .await
        .unwrap();
    assert_eq!(row, value!({"result": "0"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_of_an_eni_are_found_by_its_name() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    daemon.configure(&demo()).await;
    let map = daemon
        .get_json("/COUNTERS_DB/localhost/COUNTERS_ENI_NAME_MAP")
        .await
        .unwrap();
    let oid = map["F4939FEFC47E"].as_str().unwrap().to_owned();
    assert!(oid.starts_with("oid:0x"), "{oid}");
    let one = daemon
        .get_json("/COUNTERS_DB/localhost/COUNTERS_ENI_NAME_MAP/F4939FEFC47E")
        .await;
    assert_eq!(one.unwrap(), oid.as_str());
    let counters = daemon
        .get_json(&format!("/COUNTERS_DB/localhost/COUNTERS/{oid}"))
        .await;
    let counters = counters.unwrap();
    assert!(
        counters.as_object().unwrap().len() > 100,
        "every name is there from 0"
    );
    assert_eq!(counters["SAI_ENI_STAT_RX_PACKETS"], "0");
    let back = daemon
        .get_json("/DPU_COUNTERS_DB/dpu0/COUNTERS_ENI_OID_MAP")
        .await
        .unwrap();
    assert_eq!(back[&oid], "F4939FEFC47E");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_codes_and_texts_that_clients_look_for() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    daemon.configure(&demo()).await;
    let vnet = value!({"vni": "9"});
    let at = |text: &str| json(text, &vnet);
    let ok = "/DPU_APPL_DB/dpu0/DASH_VNET_TABLE/V";
    let mut conflict = updates(vec![at(ok)]);
    conflict.update[0].path.as_mut().unwrap().origin = "openconfig".to_owned();
    let raw = |text: &str| typed(ok, Typed::JsonIetfVal(text.as_bytes().to_vec().into()));
    let orphan = value!({"routing_type": "vnet_encap", "underlay_ip": "1.1.1.1"});
    let sets: [(SetRequest, Code, &str); 12] = [
        (conflict, Code::Unimplemented, "Origin conflict in path"),
        (
            updates(vec![at("/DPU_APPL_DB")]),
            Code::NotFound,
            "Invalid elem length",
        ),
        (
            updates(vec![at(ok), at("/APPL_DB/dpu0/DASH_VNET_TABLE/W")]),
            Code::NotFound,
            "Target conflict in path",
        ),
        (
            updates(vec![at(ok), at("/DPU_APPL_DB/dpu1/DASH_VNET_TABLE/W")]),
            Code::NotFound,
            "Namespace/container conflict in path",
        ),
        (
            updates(vec![at("/NO_DB/dpu0/T/K")]),
            Code::NotFound,
            "Invalid target",
        ),
        (
            updates(vec![at("/ASIC_DB/dpu0/T/K")]),
            Code::Unknown,
            "Set RPC does not support ASIC_DB",
        ),
        (
            updates(vec![raw("{")]),
            Code::Unknown,
            "JSON unmarshalling error",
        ),
        (updates(vec![raw("3")]), Code::Unknown, "Unsupported value"),
        (
            updates(vec![at("/DPU_APPL_DB/dpu0/DASH_VNET_TABLE/V/vni")]),
            Code::Unknown,
            "Unsupported path",
        ),
        (
            updates(vec![typed(ok, Typed::StringVal("x".to_owned()))]),
            Code::Unknown,
            "Unsupported TypedValue",
        ),
        (
            updates(vec![
                at(ok),
                json(
                    "/DPU_APPL_DB/dpu0/DASH_VNET_MAPPING_TABLE/None:1.2.3.4",
                    &orphan,
                ),
            ]),
            Code::FailedPrecondition,
            "update[1]",
        ),
        (
            SetRequest {
                delete: vec![path("/DPU_APPL_DB/dpu0/DASH_VNET_TABLE/Vnet1")],
                ..SetRequest::default()
            },
            Code::FailedPrecondition,
            "delete[0]",
        ),
    ];
    let before = daemon.generation().await;
    for (request, code, text) in sets {
        let status = daemon.set(request).await.expect_err(text);
        assert!(
            status.message().contains(text),
            "{text}: {}",
            status.message()
        );
        assert_eq!(status.code(), code, "{text}");
    }
    assert_eq!(
        daemon.generation().await,
        before,
        "nothing of any of them was applied"
    );

    let gets = [
        (
            "/DPU_APPL_DB/dpu0/DASH_VNET_TABLE/None",
            Encoding::Proto,
            "No valid entry found for path",
        ),
        (
            "/DPU_APPL_DB/dpu0/DASH_QOS_TABLE",
            Encoding::JsonIetf,
            "Failed to find DB table",
        ),
        (
            "/DPU_APPL_DB/dpu0/DASH_VNET_TABLE",
            Encoding::Proto,
            "No proto bytes found",
        ),
        (
            "/STATE_DB/localhost/X",
            Encoding::Json,
            "Failed to find DB table",
        ),
        ("/NO_DB/dpu0/X", Encoding::Json, "Invalid target"),
    ];
    for (text, encoding, part) in gets {
        let status = daemon.get(text, encoding).await.expect_err(part);
        assert_eq!(status.code(), Code::NotFound, "{text}");
        assert!(
            status.message().contains(part),
            "{text}: {}",
            status.message()
        );
    }
    let mut request = GetRequest {
        path: vec![path(ok)],
        r#type: 1,
        ..GetRequest::default()
    };
    let status = daemon.gnmi().get(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(status.message(), "unsupported request type: CONFIG");
    (request.r#type, request.encoding) = (0, Encoding::Ascii.into());
    let status = daemon.gnmi().get(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(status.message(), "unsupported encoding: ASCII");
    let status = daemon
        .gnmi()
        .subscribe(tokio_stream::iter([SubscribeRequest::default()]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_of_a_prefix_come_before_those_of_the_updates() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    let mut request = request_of(&value!([
        {"DASH_APPLIANCE_TABLE:1": {"sip": "10.0.0.1", "vm_vni": "4321"}}
    ]));
    let path = request.update[0].path.as_mut().unwrap();
    let first: Vec<_> = path.elem.drain(..2).collect();
    request.prefix = Some(Path {
        origin: "sonic-db".to_owned(),
        elem: first,
        ..Path::default()
    });
    daemon.set(request).await.unwrap();
    let row = daemon
        .get_json("/DPU_APPL_DB/dpu0/DASH_APPLIANCE_TABLE/1")
        .await
        .unwrap();
    assert_eq!(row["sip"], "10.0.0.1");
}

/// tonic's own limit is 4 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn messages_above_four_mebibytes_are_taken() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    daemon.configure(&demo()).await;
    let row = daemon
        .get(
            "/DPU_APPL_DB/dpu0/DASH_VNET_MAPPING_TABLE[key=Vnet1:10.1.1.1]",
            Encoding::Proto,
        )
        .await
        .unwrap();
    let update = (0..60_000_u32).map(|n| {
        let ip = std::net::Ipv4Addr::from(0x0b00_0000 + n);
        typed(
            &format!("/DPU_APPL_DB/dpu0/DASH_VNET_MAPPING_TABLE[key=Vnet1:{ip}]"),
            row.clone(),
        )
    });
    let request = updates(update.collect());
    assert!(request.encoded_len() > 4 << 20, "{}", request.encoded_len());
    daemon.set(request).await.unwrap();
    let count = daemon
        .server
        .control()
        .call(|plane| plane.engine.store().count(MAPPING))
        .await;
    assert_eq!(count.unwrap(), 60_003);
}
