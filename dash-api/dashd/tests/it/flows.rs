//! Flows that clients ask for: filters, deletion, resimulation, dump sessions.

use std::io::Read as _;

use dash_proto::dashwire::v1::flow_control_client::FlowControlClient;
use dash_proto::dashwire::v1::observe_client::ObserveClient;
use dash_proto::dashwire::v1::{FlowFilter, FlowsRequest, ResimulateRequest};
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{Daemon, demo, eventually, request_of};

const ENI: &str = "F4939FEFC47E";

fn filter(field: &str, op: &str, value: &str) -> FlowFilter {
    FlowFilter {
        field: field.to_owned(),
        op: op.to_owned(),
        value: value.to_owned(),
    }
}

fn with(filters: Vec<FlowFilter>) -> FlowsRequest {
    FlowsRequest {
        filters,
        ..FlowsRequest::default()
    }
}

/// A packet of the VM from a port of its own.
fn packet(port: u16) -> (u32, Vec<u8>) {
    let packet = nic_sim::Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([25, 1, 1, 1], [10, 0, 0, 1])
        .udp(5137, 4789)
        .vxlan(4321)
        .eth([2, 0, 0, 0, 0, 9], [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e])
        .ipv4([10, 1, 1, 10], [10, 1, 1, 1])
        .udp(port, 2000)
        .payload(b"x");
    (0, packet.build())
}

async fn daemon(extra: &[&str]) -> Daemon {
    let daemon = Daemon::start(&[&["--engine", "interp"], extra].concat()).await;
    daemon.configure(&demo()).await;
    let out = daemon.inject((1..=3).map(packet).collect()).await;
    assert_eq!(out.len(), 3);
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_are_listed_and_deleted_by_filters_and_wrong_ones_are_named() {
    let daemon = daemon(&[]).await;
    let mut observe = ObserveClient::new(daemon.channel.clone());
    let mut lines = async |request: FlowsRequest| {
        let mut stream = observe.flows(request).await?.into_inner();
        let mut lines = 0;
        while let Some(part) = stream.message().await? {
            lines += part.json_lines.lines().count();
        }
        Ok::<_, tonic::Status>(lines)
    };
    assert_eq!(lines(FlowsRequest::default()).await.unwrap(), 6);
    let two = with(vec![filter("src_l4_port", "equal_to", "2")]);
    assert_eq!(lines(two.clone()).await.unwrap(), 1);
    let nobody = FlowsRequest {
        eni: "nobody".to_owned(),
        ..FlowsRequest::default()
    };
    assert_eq!(lines(nobody).await.unwrap(), 0);
    let wrong = with(vec![filter("src_l4_port", "equal_to", "x")]);
    let status = lines(wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("filters[0]: "), "{status}");

    let mut control = FlowControlClient::new(daemon.channel.clone());
    let deleted = control.delete(two).await.unwrap().into_inner().deleted;
    assert_eq!(deleted, 1);
    assert_eq!(lines(FlowsRequest::default()).await.unwrap(), 4);
    let counters = daemon.counters().await;
    assert_eq!(counters["eni"][ENI]["SAI_ENI_STAT_FLOW_DELETED"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn resimulated_flows_have_the_next_version_after_their_next_packet() {
    let daemon = daemon(&[]).await;
    let mut control = FlowControlClient::new(daemon.channel.clone());
    let request = |eni: &str| ResimulateRequest {
        eni: eni.to_owned(),
        ..ResimulateRequest::default()
    };
    let answer = control.resimulate(request(ENI)).await.unwrap();
    assert_eq!(answer.into_inner().version, 1);
    let status = control.resimulate(request("nobody")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    daemon.inject(vec![packet(2)]).await;
    let mut versions: Vec<(u64, u64)> = Vec::new();
    for flow in daemon.flows().await {
        if flow["direction"] == "outbound" {
            let number = |name: &str| flow[name].as_u64().unwrap();
            versions.push((number("src_port"), number("version")));
        }
    }
    versions.sort_unstable();
    assert_eq!(versions, [(1, 0), (2, 1), (3, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_session_leaves_a_file_of_the_flows_its_filters_name_and_a_state_row() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon(&["--flow-dumps", dir.path().to_str().unwrap()]).await;
    let rows = json!([
        {"DASH_FLOW_DUMP_FILTER_TABLE:low": {"key": "src_l4_port", "op": "less_than", "value": "3"}, "OP": "SET"},
        {"DASH_FLOW_DUMP_FILTER_TABLE:eni": {"key": "eni_addr", "op": "equal_to", "value": "f4:93:9f:ef:c4:7e"}, "OP": "SET"},
        {"DASH_FLOW_SYNC_SESSION_TABLE:s1": {"type": "flow_dump", "flow_state": "false", "filter_1": "low", "filter_2": "eni"}, "OP": "SET"},
    ]);
    daemon.configure(&rows).await;
    let path = "/DPU_STATE_DB/dpu0/DASH_FLOW_SYNC_SESSION_STATE_TABLE[key=s1]";
    let state = async || daemon.get_json(path).await.unwrap();
    eventually("the dump ends", async || {
        state().await["state"] == "completed"
    })
    .await;
    let row = state().await;
    assert_eq!(row["type"], "flow_dump");
    let file = row["output_file"].as_str().unwrap();
    let mut text = String::new();
    let mut file = flate2::read::GzDecoder::new(std::fs::File::open(file).unwrap());
    file.read_to_string(&mut text).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ports: Vec<_> = lines.iter().map(|line| &line["src_port"]).collect();
    assert_eq!(ports, [1, 2]);
    assert!(lines[0].get("packets").is_none(), "keys alone");

    // The order is not a row: nothing to read, nothing to delete.
    let row = "/DPU_APPL_DB/dpu0/DASH_FLOW_SYNC_SESSION_TABLE[key=s1]";
    assert_eq!(
        daemon.get_json(row).await.unwrap_err().code(),
        Code::NotFound
    );
    for (fields, wants) in [
        (json!({"type": "bulk_sync"}), "high availability"),
        (
            json!({"type": "flow_dump", "filter_1": "x"}),
            "no filter `x`",
        ),
    ] {
        let rows = json!([{"DASH_FLOW_SYNC_SESSION_TABLE:s2": fields, "OP": "SET"}]);
        let status = daemon.set(request_of(&rows)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(wants), "{status}");
    }
}
