//! A daemon in this process, and what clients send it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use dash_proto::dashwire::v1::InjectRequest;
use dash_proto::dashwire::v1::observe_client::ObserveClient;
use dash_proto::dashwire::v1::simulator_client::SimulatorClient;
use dash_proto::dashwire::v1::{CountersRequest, FlowsRequest};
use dash_proto::gnmi::g_nmi_client::GNmiClient;
use dash_proto::gnmi::typed_value::Value as Typed;
use dash_proto::gnmi::{Encoding, GetRequest, Path, SetRequest, SetResponse, TypedValue, Update};
use dash_proto::path::parse_path;
use dashd::{Args, Server};
use serde_json::Value;
use tonic::Status;
use tonic::transport::Channel;

/// Long enough for a machine that builds something else.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Verdicts of the verifier, shared by all tests.
pub(crate) fn cache() -> String {
    use std::os::unix::fs::DirBuilderExt;
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("verdicts");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .unwrap();
    dir.to_str().unwrap().to_owned()
}

/// A daemon with a simulated NIC and what `extra` says.
pub(crate) struct Daemon {
    pub(crate) server: Server,
    pub(crate) channel: Channel,
}

pub(crate) fn args(extra: &[&str]) -> Args {
    let cache = cache();
    let mut line = vec!["dashd", "--listen", "127.0.0.1:0", "--cache", &cache];
    if !extra.contains(&"--tls-cert") {
        line.push("--no-tls");
    }
    if !extra.contains(&"--target") {
        line.extend(["--target", "sim:"]);
    }
    line.extend(extra);
    Args::try_parse_from(line).unwrap()
}

impl Daemon {
    pub(crate) async fn start(extra: &[&str]) -> Self {
        let server = Server::start(args(extra)).await.unwrap();
        let address: SocketAddr = server.gnmi()[0];
        let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self { server, channel }
    }

    pub(crate) fn gnmi(&self) -> GNmiClient<Channel> {
        GNmiClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    pub(crate) async fn set(&self, request: SetRequest) -> Result<SetResponse, Status> {
        self.gnmi()
            .set(request)
            .await
            .map(|response| response.into_inner())
    }

    /// Values at a path of text.
    pub(crate) async fn get(&self, path_text: &str, encoding: Encoding) -> Result<Typed, Status> {
        let request = GetRequest {
            path: vec![path(path_text)],
            encoding: encoding.into(),
            ..GetRequest::default()
        };
        let response = self.gnmi().get(request).await?.into_inner();
        assert_eq!(response.notification.len(), 1, "one notification a path");
        let update = &response.notification[0].update;
        assert_eq!(update.len(), 1, "one update a notification");
        assert_eq!(update[0].path, Some(path(path_text)), "the path is echoed");
        Ok(update[0].val.clone().unwrap().value.unwrap())
    }

    pub(crate) async fn get_json(&self, path_text: &str) -> Result<Value, Status> {
        match self.get(path_text, Encoding::JsonIetf).await? {
            Typed::JsonIetfVal(bytes) => Ok(serde_json::from_slice(&bytes).unwrap()),
            other => panic!("{path_text}: {other:?} is not json_ietf_val"),
        }
    }

    /// Rows of a configuration file, as JSON updates of one request.
    pub(crate) async fn configure(&self, rows: &Value) {
        self.set(request_of(rows)).await.unwrap();
    }

    /// Sends frames into ports and gives all that came out, with its port.
    pub(crate) async fn inject(&self, frames: Vec<(u32, Vec<u8>)>) -> Vec<(u32, Vec<u8>)> {
        let requests = frames
            .into_iter()
            .enumerate()
            .map(|(n, (port, frame))| InjectRequest {
                port,
                timestamp_ns: n as u64 * 1_000,
                frame,
            });
        let requests: Vec<_> = requests.collect();
        let mut client = SimulatorClient::new(self.channel.clone());
        let stream = client.inject(tokio_stream::iter(requests)).await.unwrap();
        let (mut stream, mut out) = (stream.into_inner(), Vec::new());
        while let Some(frame) = stream.message().await.unwrap() {
            out.push((frame.port, frame.frame));
        }
        out
    }

    pub(crate) async fn counters(&self) -> Value {
        let mut client = ObserveClient::new(self.channel.clone());
        let response = client.counters(CountersRequest {}).await.unwrap();
        serde_json::from_str(&response.into_inner().json).unwrap()
    }

    pub(crate) async fn flows(&self) -> Vec<Value> {
        let mut client = ObserveClient::new(self.channel.clone());
        let mut stream = client
            .flows(FlowsRequest::default())
            .await
            .unwrap()
            .into_inner();
        let mut text = String::new();
        while let Some(part) = stream.message().await.unwrap() {
            text.push_str(&part.json_lines);
        }
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(crate) async fn generation(&self) -> u64 {
        self.server
            .control()
            .call(|plane| plane.engine.generation())
            .await
            .unwrap()
    }
}

pub(crate) fn path(text: &str) -> Path {
    parse_path(text).unwrap()
}

pub(crate) fn json(path_text: &str, value: &Value) -> Update {
    typed(
        path_text,
        Typed::JsonIetfVal(value.to_string().into_bytes().into()),
    )
}

pub(crate) fn typed(path_text: &str, value: Typed) -> Update {
    Update {
        path: Some(path(path_text)),
        val: Some(TypedValue { value: Some(value) }),
        ..Update::default()
    }
}

pub(crate) fn updates(update: Vec<Update>) -> SetRequest {
    let prefix = Path {
        origin: "sonic-db".to_owned(),
        ..Path::default()
    };
    SetRequest {
        prefix: Some(prefix),
        update,
        ..SetRequest::default()
    }
}

/// `[{"TABLE:key": {..}, "OP": "SET"}, ..]` as one request.
pub(crate) fn request_of(rows: &Value) -> SetRequest {
    let rows = rows.as_array().unwrap().iter().map(|row| {
        let row = row.as_object().unwrap();
        let (name, fields) = row.iter().find(|(name, _)| *name != "OP").unwrap();
        let (table, key) = name.split_once(':').unwrap();
        json(&format!("/DPU_APPL_DB/dpu0/{table}[key={key}]"), fields)
    });
    updates(rows.collect())
}

/// The demo's configuration.
pub(crate) fn demo() -> Value {
    serde_json::from_str(include_str!("../../../../specs/scenarios/demo/config.json")).unwrap()
}

/// Tries again until it holds, to a deadline.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < DEADLINE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
