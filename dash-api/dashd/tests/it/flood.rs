//! What a daemon logs of a flood.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dash_proto::dashwire::v1::InjectRequest;
use dash_proto::dashwire::v1::simulator_client::SimulatorClient;
use tonic::transport::Channel;

use crate::packets::of_flow;
use crate::support::{DEADLINE, cache};

/// Injects packets of ever new flows into a daemon until it has logged something `times`; gives how long
/// that took and what was logged.
async fn flooded(args: &[&str], times: usize, what: &str) -> (Duration, Vec<String>) {
    let demo = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../specs/scenarios/demo/config.json"
    );
    let mut child = Command::new(env!("CARGO_BIN_EXE_dashd"))
        .args(["--target", "sim:", "--engine", "interp", "--no-tls"])
        .args(["--listen", "127.0.0.1:0", "--cache", &cache()])
        .args(["--config", demo])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("gnmi ").expect(&line).to_owned();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (logged, log) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            // Who reads is gone at the end.
            let _ = logged.send(line);
        }
    });
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    let mut client = SimulatorClient::new(endpoint.connect().await.unwrap());
    let (start, mut lines) = (Instant::now(), Vec::new());
    let mut port = 1_u16;
    while lines.len() < times {
        assert!(start.elapsed() < DEADLINE, "logged only {lines:?}");
        let requests: Vec<_> = (0..50)
            .map(|_| {
                port = port.wrapping_add(1);
                InjectRequest {
                    port: 0,
                    timestamp_ns: 0,
                    frame: of_flow(port),
                }
            })
            .collect();
        let stream = client.inject(tokio_stream::iter(requests)).await.unwrap();
        let mut stream = stream.into_inner();
        while stream.message().await.unwrap().is_some() {}
        lines.extend(log.try_iter().filter(|line| line.contains(what)));
    }
    let took = start.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    lines.extend(log.try_iter().filter(|line| line.contains(what)));
    (took, lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_table_is_logged_once_a_second_at_most() {
    let (took, lines) = flooded(&["--flows", "16"], 3, "the flow table was full for ").await;
    assert!(
        lines.len() as u64 <= took.as_secs() + 2,
        "{took:?}: {lines:?}"
    );
    assert!(lines[0].contains("established ones go on"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_flows_over_the_limit_of_their_eni_are_logged_once_a_second_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("limits.json");
    let text = r#"[{"DASH_QOS_TABLE:q": {"qos_id": "q", "flows": 16}, "OP": "SET"},
        {"DASH_ENI_TABLE:F4939FEFC47E": {"mac_address": "F4:93:9F:EF:C4:7E", "underlay_ip": "25.1.1.1",
          "admin_state": "enabled", "vnet": "Vnet1", "qos": "q"}, "OP": "SET"}]"#;
    std::fs::write(&rows, text).unwrap();
    let rows = rows.to_str().unwrap();
    let (took, lines) = flooded(&["--config", rows], 3, "limits of ENIs stopped ").await;
    assert!(
        lines.len() as u64 <= took.as_secs() + 2,
        "{took:?}: {lines:?}"
    );
}
