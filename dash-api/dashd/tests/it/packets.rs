//! Packets through the simulated NIC of a running daemon.

use dash_proto::dashwire::v1::InjectRequest;
use dash_proto::dashwire::v1::simulator_client::SimulatorClient;
use nic_sim::{CaptureWriter, Packet, read_capture};
use serde_json::json as value;
use tonic::Code;

use crate::support::{DEADLINE, Daemon, demo, eventually, json, updates};

const PORT0: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PORT1: [u8; 6] = [2, 0, 0, 0, 0, 2];
const HOST: [u8; 6] = [2, 9, 9, 9, 9, 1];
const PEER_HOST: [u8; 6] = [2, 9, 9, 9, 9, 2];
const ENI: [u8; 6] = [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e];
const PEER: [u8; 6] = [0xf8, 0x22, 0x83, 0x99, 0x22, 0xa2];
const VIP: [u8; 4] = [10, 0, 0, 1];
/// PA of the mapping that the packets of [`from_vm`] meet.
const PA: [u8; 4] = [101, 1, 2, 3];

/// A packet of the VM to 10.1.1.1, which the demo's configuration sends on to [`PA`].
fn from_vm() -> Vec<u8> {
    of_flow(1000)
}

/// The same, of the flow with this source port.
pub(crate) fn of_flow(sport: u16) -> Vec<u8> {
    Packet::eth(PORT0, HOST)
        .ipv4([25, 1, 1, 1], VIP)
        .udp(5137, 4789)
        .vxlan(4321)
        .eth(PEER, ENI)
        .ipv4([10, 1, 1, 10], [10, 1, 1, 1])
        .udp(sport, 2000)
        .payload(b"hello")
        .build()
}

/// A packet from the network to the VM.
pub(crate) fn to_vm() -> Vec<u8> {
    Packet::eth(PORT0, HOST)
        .ipv4(PA, VIP)
        .udp(5137, 4789)
        .vxlan(45654)
        .eth(ENI, PEER)
        .ipv4([10, 1, 1, 1], [10, 1, 1, 10])
        .udp(3000, 3000)
        .payload(b"hello")
        .build()
}

fn outer_destination(frame: &[u8]) -> [u8; 4] {
    frame[30..34].try_into().unwrap()
}

fn is_arp(frame: &[u8]) -> bool {
    frame[12..14] == [8, 6]
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_forwarded_with_flows_and_counters() {
    let daemon = Daemon::start(&[]).await;
    assert!(
        daemon.inject(vec![(0, from_vm())]).await.is_empty(),
        "nothing is configured"
    );
    daemon.configure(&demo()).await;
    // More than all queues on the way hold.
    let frames: Vec<_> = (0..3000).map(|_| (0, from_vm())).collect();
    let out = daemon.inject(frames).await;
    assert_eq!(out.len(), 3000);
    assert!(
        out.iter()
            .all(|(port, frame)| *port == 0 && outer_destination(frame) == PA)
    );
    let flows = daemon.flows().await;
    assert_eq!(flows.len(), 2);
    assert_eq!(
        (&flows[0]["packets"], &flows[0]["direction"]),
        (&value!(3000), &value!("outbound"))
    );
    let counters = daemon.counters().await;
    let eni = &counters["eni"]["F4939FEFC47E"];
    assert_eq!(eni["SAI_ENI_STAT_OUTBOUND_TX_PACKETS"], 3000);
    assert_eq!(counters["port"]["SAI_PORT_STAT_IF_IN_UCAST_PKTS"], 3001);
}

/// Through the worker's own question: buckets are read an ENI a round.
#[tokio::test(flavor = "multi_thread")]
async fn a_metering_bucket_is_a_row_of_the_counters_under_sais_entry_key() {
    let daemon = Daemon::start(&[]).await;
    daemon.configure(&demo()).await;
    let table = "/DPU_APPL_DB/dpu0/DASH_VNET_MAPPING_TABLE";
    let metered = value!({"routing_type": "vnet_encap", "underlay_ip": "101.1.2.3", "metering_class_or": 1038});
    let update = json(&format!("{table}[key=Vnet1:10.1.1.1]"), &metered);
    daemon.set(updates(vec![update])).await.unwrap();
    let frames: Vec<_> = (0..10).map(|_| (0, from_vm())).collect();
    assert_eq!(daemon.inject(frames).await.len(), 10);
    let counters = "/COUNTERS_DB/localhost/COUNTERS";
    let all = daemon.get_json(counters).await.unwrap();
    let names = daemon
        .get_json("/COUNTERS_DB/localhost/COUNTERS_ENI_NAME_MAP")
        .await
        .unwrap();
    let oid = names["F4939FEFC47E"].as_str().unwrap();
    let key =
        format!(r#"{{"eni_id":"{oid}","meter_class":"1038","switch_id":"oid:0x21000000000000"}}"#);
    assert_eq!(
        all[&key],
        value!({
            // Ethernet, IPv4, UDP and five bytes.
            "SAI_METER_BUCKET_ENTRY_STAT_OUTBOUND_BYTES": (10 * 47).to_string(),
            "SAI_METER_BUCKET_ENTRY_STAT_INBOUND_BYTES": "0",
        })
    );
    assert_eq!(all.as_object().unwrap().len(), 2, "{all}");
    let flows = daemon.flows().await;
    assert_eq!(flows[0]["meter_class"], 1038);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_set_leaves_the_old_generation_forwarding() {
    let daemon = Daemon::start(&[]).await;
    daemon.configure(&demo()).await;
    let (before, generation) = (
        daemon.inject(vec![(0, from_vm())]).await,
        daemon.generation().await,
    );
    assert_eq!(before.len(), 1);
    // The first row alone would take the mapping away; the second is malformed.
    let elsewhere = value!({"routing_type": "vnet_encap", "underlay_ip": "9.9.9.9"});
    let broken = value!({"routing_type": "privatelink", "underlay_ip": "9.9.9.9"});
    let table = "/DPU_APPL_DB/dpu0/DASH_VNET_MAPPING_TABLE";
    let status = daemon
        .set(updates(vec![
            json(&format!("{table}[key=Vnet1:10.1.1.1]"), &elsewhere),
            json(&format!("{table}[key=Vnet1:10.1.1.9]"), &broken),
        ]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(daemon.generation().await, generation);
    let after = daemon.inject(vec![(0, from_vm())]).await;
    // The IP identification is the flow's; all other bytes must be as before.
    assert_eq!(outer_destination(&after[0].1), PA);
    assert_eq!(after[0].1.len(), before[0].1.len());
}

/// Each new flow meets one generation whole, whichever is in force when it comes.
#[tokio::test(flavor = "multi_thread")]
async fn no_packet_is_lost_while_generations_change_and_sets_are_refused() {
    let daemon = Daemon::start(&[]).await;
    daemon.configure(&demo()).await;
    let frames: Vec<_> = (0..4000).map(|sport| (0, of_flow(sport))).collect();
    let changes = async {
        let table = "/DPU_APPL_DB/dpu0/DASH_VNET_MAPPING_TABLE";
        for n in 0..20 {
            let pa = if n % 2 == 0 {
                "101.1.2.77"
            } else {
                "101.1.2.3"
            };
            let row = value!({"routing_type": "vnet_encap", "underlay_ip": pa});
            let row = json(&format!("{table}[key=Vnet1:10.1.1.1]"), &row);
            daemon.set(updates(vec![row])).await.unwrap();
            let row = value!({"routing_type": "vnet_encap", "underlay_ip": "9.9.9.9"});
            let mapping = json(&format!("{table}[key=Vnet1:10.1.1.1]"), &row);
            let orphan = json(&format!("{table}[key=None:10.1.1.1]"), &row);
            let status = daemon
                .set(updates(vec![mapping, orphan]))
                .await
                .unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition);
        }
    };
    let before = daemon.generation().await;
    let (out, ()) = tokio::join!(daemon.inject(frames), changes);
    assert_eq!(daemon.generation().await, before + 20);
    assert_eq!(out.len(), 4000);
    for (_, frame) in &out {
        let destination = outer_destination(frame);
        assert!(
            [PA, [101, 1, 2, 77]].contains(&destination),
            "{destination:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_only_changes_verify_and_compile_nothing() {
    let daemon = Daemon::start(&[]).await;
    daemon.configure(&demo()).await;
    let stats = || async {
        daemon
            .server
            .control()
            .call(|plane| plane.engine.compile_stats())
            .await
            .unwrap()
    };
    let before = stats().await;
    let moved = value!({"routing_type": "vnet_encap", "underlay_ip": "101.1.2.77"});
    let row = "/DPU_APPL_DB/dpu0/DASH_VNET_MAPPING_TABLE[key=Vnet1:10.1.1.1]";
    daemon.set(updates(vec![json(row, &moved)])).await.unwrap();
    assert_eq!(stats().await, before);
    let out = daemon.inject(vec![(0, from_vm())]).await;
    assert_eq!(outer_destination(&out[0].1), [101, 1, 2, 77]);
}

#[tokio::test(flavor = "multi_thread")]
async fn arp_for_the_vip_is_answered_with_the_ports_mac() {
    let daemon = Daemon::start(&["--target", "sim:ports=2", "--engine", "interp"]).await;
    let ask = || {
        Packet::eth([0xff; 6], HOST)
            .arp_request(HOST, [25, 1, 1, 1], VIP)
            .build()
    };
    assert!(
        daemon.inject(vec![(1, ask())]).await.is_empty(),
        "no appliance, no VIP"
    );
    daemon.configure(&demo()).await;
    let other = Packet::eth([0xff; 6], HOST)
        .arp_request(HOST, [25, 1, 1, 1], [10, 0, 0, 2])
        .build();
    let out = daemon.inject(vec![(1, ask()), (1, other)]).await;
    let want = Packet::eth(HOST, PORT1)
        .arp_reply(PORT1, VIP, HOST, [25, 1, 1, 1])
        .build();
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].0, 1);
    assert_eq!(&out[0].1[..42], &want[..42]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_next_hop_is_asked_for_and_packets_flow_once_it_answers() {
    let routes = ["--route", "25.1.1.0/24=0", "--route", "101.1.0.0/16=1"];
    let daemon = Daemon::start(&[&["--target", "sim:ports=2"], &routes[..]].concat()).await;
    daemon.configure(&demo()).await;
    let out = daemon.inject(vec![(0, from_vm())]).await;
    let asked = |ip: [u8; 4], port: u32| {
        out.iter()
            .find(|(on, frame)| *on == port && is_arp(frame) && frame[38..42] == ip)
    };
    assert!(
        out.iter().all(|(_, frame)| is_arp(frame)),
        "the next hop is not known"
    );
    let (_, request) = asked(PA, 1).expect("a request for the PA");
    assert_eq!(
        &request[..12],
        [[0xff; 6], PORT1].concat(),
        "broadcast, from the port"
    );
    assert_eq!(&request[28..32], VIP, "the VIP asks");
    assert!(
        asked([25, 1, 1, 1], 0).is_some(),
        "the ENI's host is asked for with the configuration"
    );

    let stats = |daemon: &Daemon| {
        let control = daemon.server.control().clone();
        async move {
            control
                .call(|plane| plane.engine.compile_stats())
                .await
                .unwrap()
        }
    };
    let before = stats(&daemon).await;
    let reply = Packet::eth(PORT1, PEER_HOST)
        .arp_reply(PEER_HOST, PA, PORT1, VIP)
        .build();
    daemon.inject(vec![(1, reply)]).await;
    assert_eq!(stats(&daemon).await, before, "a neighbour is a row");
    let out = daemon.inject(vec![(0, from_vm())]).await;
    let sent: Vec<_> = out.iter().filter(|(_, frame)| !is_arp(frame)).collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, 1);
    assert_eq!(&sent[0].1[..12], [PEER_HOST, PORT1].concat());
    assert_eq!(outer_destination(&sent[0].1), PA);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_neighbour_needs_no_question() {
    let daemon = Daemon::start(&[
        "--target",
        "sim:ports=2",
        "--route",
        "101.0.0.0/8=1,192.0.2.1",
        "--neighbor",
        "192.0.2.1=02:09:09:09:09:02@1",
    ])
    .await;
    daemon.configure(&demo()).await;
    let out = daemon.inject(vec![(0, from_vm())]).await;
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].0, &out[0].1[..6]), (1, &PEER_HOST[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_several_ports_leave_in_the_order_they_came() {
    let daemon = Daemon::start(&["--target", "sim:ports=3"]).await;
    daemon.configure(&demo()).await;
    let frames: Vec<_> = (0..300).map(|n| (n % 3, from_vm())).collect();
    let ports: Vec<_> = daemon
        .inject(frames)
        .await
        .into_iter()
        .map(|(port, _)| port)
        .collect();
    // Without routes a packet leaves where it came in.
    assert_eq!(ports, (0..300).map(|n| n % 3).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_not_there_is_refused() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    let mut client = SimulatorClient::new(daemon.channel.clone());
    let request = InjectRequest {
        port: 1,
        timestamp_ns: 0,
        frame: from_vm(),
    };
    let mut stream = client
        .inject(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().contains("there is no port 1"),
        "{}",
        status.message()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_meets_the_configuration_of_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(file("config.json"), demo().to_string()).unwrap();
    let mut capture = CaptureWriter::create(&dir.path().join("in.pcap")).unwrap();
    for n in 0..100 {
        capture.write(1_000_000 * n, &from_vm()).unwrap();
    }
    capture.finish().unwrap();
    let target = format!("pcap:in={},out={}", file("in.pcap"), file("out.pcap"));
    let daemon = Daemon::start(&["--target", &target, "--config", &file("config.json")]).await;
    eventually("100 packets are sent", || async {
        daemon.counters().await["port"]["SAI_PORT_STAT_IF_OUT_UCAST_PKTS"] == 100
    })
    .await;
    let mut client = SimulatorClient::new(daemon.channel.clone());
    let refused = client.inject(tokio_stream::iter([])).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    tokio::time::timeout(DEADLINE, daemon.server.stop())
        .await
        .unwrap();
    let sent = read_capture(&dir.path().join("out.pcap")).unwrap();
    let sent: Vec<_> = sent.map(Result::unwrap).collect();
    assert_eq!(sent.len(), 100);
    assert!(
        sent.iter()
            .all(|packet| outer_destination(&packet.data) == PA)
    );
}
