//! Commands against a daemon: one of our own making, that remembers what it is asked.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use dash_proto::gnmi::g_nmi_server::{GNmi, GNmiServer};
use dash_proto::gnmi::{self, typed_value::Value as Typed};
use dash_proto::path::DbPath;
use dash_proto::set::decode_set;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{dashctl, scenario, stderr, stdout, text};

/// Remembers every Set and refuses when told to; answers every Get with one row.
#[derive(Clone, Default)]
struct Daemon {
    sets: Arc<Mutex<Vec<gnmi::SetRequest>>>,
    refuse_from: Option<usize>,
}

type Subscriptions =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<gnmi::SubscribeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl GNmi for Daemon {
    type SubscribeStream = Subscriptions;

    async fn capabilities(
        &self,
        _: Request<gnmi::CapabilityRequest>,
    ) -> Result<Response<gnmi::CapabilityResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
    async fn get(
        &self,
        request: Request<gnmi::GetRequest>,
    ) -> Result<Response<gnmi::GetResponse>, Status> {
        let request = request.into_inner();
        let path = request.path.first().cloned().unwrap_or_default();
        let row = DbPath::from_gnmi(request.prefix.as_ref(), &path)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        if row.key.as_deref() != Some("Vnet1") {
            return Err(Status::not_found("No valid entry found for path"));
        }
        let value = match request.encoding() {
            gnmi::Encoding::Proto => Typed::ProtoBytes(vec![0x08, 0xd6, 0xe4, 0x02].into()),
            _ => Typed::JsonIetfVal(br#"{"vni":45654}"#.to_vec().into()),
        };
        let update = gnmi::Update {
            path: Some(path),
            val: Some(gnmi::TypedValue { value: Some(value) }),
            ..Default::default()
        };
        let notification = gnmi::Notification {
            update: vec![update],
            ..Default::default()
        };
        Ok(Response::new(gnmi::GetResponse {
            notification: vec![notification],
            ..Default::default()
        }))
    }
    async fn set(
        &self,
        request: Request<gnmi::SetRequest>,
    ) -> Result<Response<gnmi::SetResponse>, Status> {
        use tonic_types::{ErrorDetails, StatusExt};
        let mut sets = self
            .sets
            .lock()
            .expect("no test panics while it holds this");
        if self.refuse_from.is_some_and(|at| sets.len() >= at) {
            let details =
                ErrorDetails::with_bad_request_violation("update[1]", "the field is wrong");
            return Err(Status::with_error_details(
                tonic::Code::InvalidArgument,
                "1 item is refused",
                details,
            ));
        }
        sets.push(request.into_inner());
        Ok(Response::new(gnmi::SetResponse::default()))
    }
    async fn subscribe(
        &self,
        _: Request<Streaming<gnmi::SubscribeRequest>>,
    ) -> Result<Response<Subscriptions>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

/// Runs `test` with the address of a daemon.
fn with_daemon(daemon: Daemon, test: impl FnOnce(&str)) -> Vec<gnmi::SetRequest> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let service = GNmiServer::new(daemon.clone()).max_decoding_message_size(64 << 20);
    runtime.spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    test(&address);
    std::mem::take(
        &mut *daemon
            .sets
            .lock()
            .expect("no test panics while it holds this"),
    )
}

#[test]
fn push_sends_rows_so_that_they_decode_to_what_the_file_says() {
    let config = scenario("e29-prefix-tags").join("config.json");
    let sets = with_daemon(Daemon::default(), |address| {
        let output = dashctl(&["push", text(&config), "--to", address]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("updates in 1 requests"),
            "{}",
            stderr(&output)
        );
    });
    let [set] = sets.as_slice() else {
        panic!("{} requests", sets.len())
    };
    assert_eq!(
        set.prefix.as_ref().map(|p| p.origin.as_str()),
        Some("sonic-db")
    );
    let file = dashctl::config::ConfigFile::read(&config).expect("the file");
    let decoded = decode_set(set).expect("rows that decode").txn;
    let rows = |txn: &dash_model::Txn| {
        txn.ops
            .iter()
            .map(|op| (op.key.clone(), op.action.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&decoded), rows(file.txn()));
}

#[test]
fn push_in_chunks_sends_parents_first_and_says_which_rows_are_only_stored() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("rows.json");
    // Children first, and a row that is written and then deleted.
    let rows = r#"[{"DASH_RESET_STATUS:now": {"done": "false"}, "OP": "SET"},
      {"DASH_ROUTE_TABLE:g:10.0.0.0/8": {"routing_type": "drop"}, "OP": "SET"},
      {"DASH_ROUTE_GROUP_TABLE:g": {"version": "1"}, "OP": "SET"},
      {"DASH_VNET_TABLE:V": {"vni": 5}, "OP": "SET"}, {"DASH_VNET_TABLE:V": {}, "OP": "DEL"},
      {"DASH_VNET_MAPPING_TABLE:V:10.0.0.1": {}, "OP": "DEL"}]"#;
    std::fs::write(&file, rows).expect("written");
    let sets = with_daemon(Daemon::default(), |address| {
        let output = dashctl(&[
            "push",
            text(&file),
            "--to",
            address,
            "--chunk",
            "2",
            "--instance",
            "dpu3",
        ]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("DASH_RESET_STATUS:now: stored, not acted on"),
            "{}",
            stderr(&output)
        );
    });
    let keys = |set: &gnmi::SetRequest| -> Vec<String> {
        let written = set.replace.iter().chain(&set.update);
        let updates = written.filter_map(|update| update.path.as_ref());
        let path = |path| DbPath::from_gnmi(set.prefix.as_ref(), path).expect("a path");
        set.delete
            .iter()
            .chain(updates)
            .map(|p| path(p).key.unwrap_or_default())
            .collect()
    };
    let sent: Vec<_> = sets
        .iter()
        .map(|set| (set.delete.len(), keys(set)))
        .collect();
    let text = |keys: [&str; 2]| keys.map(str::to_owned).to_vec();
    // One chunk holds the last update and the first delete.
    assert_eq!(
        sent,
        [
            (0, text(["g", "g:10.0.0.0/8"])),
            (1, text(["V:10.0.0.1", "now"])),
            (1, vec!["V".to_owned()])
        ]
    );
    let first = sets[0].update[0].path.as_ref().expect("a path");
    let first = DbPath::from_gnmi(sets[0].prefix.as_ref(), first).expect("a path");
    assert_eq!(first.instance.as_deref(), Some("dpu3"));
}

#[test]
fn a_refused_push_names_the_place_its_path_and_what_was_applied_before() {
    let config = scenario("e01-vnet-to-vnet").join("config.json");
    with_daemon(
        Daemon {
            refuse_from: Some(1),
            ..Daemon::default()
        },
        |address| {
            let output = dashctl(&["push", text(&config), "--to", address, "--chunk", "3"]);
            assert_eq!(output.status.code(), Some(1));
            let text = stderr(&output);
            assert!(
                text.contains("InvalidArgument: 1 item is refused"),
                "{text}"
            );
            assert!(text.contains("update[1] /DPU_APPL_DB/dpu0/DASH_ROUTE_TABLE[key=rg1:10.1.0.0/16]: the field is wrong"), "{text}");
            assert!(
                text.contains("request 2 of 3; the 3 updates before it are applied"),
                "{text}"
            );
        },
    );
}

#[test]
fn a_binary_request_is_sent_as_it_is() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../specs/gnmi/full_privatelink.set.bin"
    );
    let sets = with_daemon(Daemon::default(), |address| {
        let output = dashctl(&["push", file, "--to", address]);
        assert!(output.status.success(), "{}", stderr(&output));
    });
    let [set] = sets.as_slice() else {
        panic!("{} requests", sets.len())
    };
    assert_eq!(
        prost::Message::encode_to_vec(set),
        std::fs::read(file).expect("the file")
    );
}

#[test]
fn get_prints_json_or_the_rows_bytes_with_their_meaning() {
    with_daemon(Daemon::default(), |address| {
        let path = "/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=Vnet1]";
        let json = stdout(&dashctl(&["get", path, "--from", address]));
        assert_eq!(json, "{\n  \"vni\": 45654\n}\n");
        let proto = stdout(&dashctl(&[
            "get",
            path,
            "--from",
            address,
            "--encoding",
            "proto",
        ]));
        assert!(
            proto.starts_with("08d6e402\n{") && proto.contains("45654"),
            "{proto}"
        );
        let missing = dashctl(&[
            "get",
            "/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=Vnet2]",
            "--from",
            address,
        ]);
        assert_eq!(missing.status.code(), Some(1));
        assert!(
            stderr(&missing).contains("NotFound: No valid entry found"),
            "{}",
            stderr(&missing)
        );
    });
}

#[test]
fn a_daemon_that_is_not_there_is_an_error_with_its_address() {
    let output = dashctl(&["get", "/DPU_APPL_DB/dpu0", "--from", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("dashctl: cannot connect to 127.0.0.1:1"),
        "{}",
        stderr(&output)
    );
}
