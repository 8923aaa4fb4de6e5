//! Reflection, health, metrics, TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use dash_proto::dashwire::v1::observe_client::ObserveClient;
use dash_proto::dashwire::v1::{InfoRequest, UsageRequest};
use dash_proto::gnmi::CapabilityRequest;
use dash_proto::gnmi::g_nmi_client::GNmiClient;
use dashd::Server;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::{Daemon, args, demo};

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services_and_gives_their_files() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    let mut client = ServerReflectionClient::new(daemon.channel.clone());
    let ask = |request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let requests = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("gnmi.gNMI".to_owned())),
    ];
    let stream = client
        .server_reflection_info(tokio_stream::iter(requests))
        .await
        .unwrap();
    let mut stream = stream.into_inner();
    let mut next = async || {
        stream
            .message()
            .await
            .unwrap()
            .unwrap()
            .message_response
            .unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = next().await else {
        panic!("no list")
    };
    let names: Vec<_> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    for name in [
        "gnmi.gNMI",
        "grpc.health.v1.Health",
        "dashwire.v1.Simulator",
        "dashwire.v1.Observe",
        "dashwire.v1.FlowControl",
        "dashwire.v1.Programs",
    ] {
        assert!(
            names.iter().any(|n| n == name),
            "{name} is not in {names:?}"
        );
    }
    let MessageResponse::FileDescriptorResponse(files) = next().await else {
        panic!("no file")
    };
    assert!(!files.file_descriptor_proto.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_serving() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    let mut client = HealthClient::new(daemon.channel.clone());
    for service in ["", "gnmi.gNMI", "dashwire.v1.Observe"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let status = client.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
}

pub(crate) fn http_get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: dashd\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_every_counter_under_its_sai_name() {
    let daemon = Daemon::start(&["--engine", "interp", "--metrics", "127.0.0.1:0"]).await;
    daemon.configure(&demo()).await;
    let address = daemon.server.metrics().unwrap();
    let text = tokio::task::spawn_blocking(move || http_get(address, "/metrics"))
        .await
        .unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    let counters = daemon.counters().await;
    for name in counters["port"].as_object().unwrap().keys() {
        assert!(
            text.contains(&format!("\n{} ", name.to_lowercase())),
            "{name}"
        );
    }
    for name in counters["eni"]["F4939FEFC47E"].as_object().unwrap().keys() {
        let line = format!("\n{}{{eni=\"F4939FEFC47E\"}} 0\n", name.to_lowercase());
        assert!(text.contains(&line), "{name}");
    }
    let generation = daemon.generation().await;
    assert!(
        text.contains(&format!("\ndashwire_generation {generation}\n")),
        "{text}"
    );
    for line in [
        "dashwire_flows 0",
        "dashwire_rows{table=\"DASH_VNET_TABLE\"} 2",
        "dashwire_aborted_total 0",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn info_says_what_runs() {
    let daemon = Daemon::start(&["--target", "sim:ports=2", "--engine", "interp"]).await;
    daemon.configure(&demo()).await;
    let mut client = ObserveClient::new(daemon.channel.clone());
    let info = client.info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (info.target.as_str(), info.engine.as_str()),
        ("sim:ports=2", "interp")
    );
    assert_eq!(info.generation, daemon.generation().await);
    assert_eq!(info.rows, demo().as_array().unwrap().len() as u64);
    assert_eq!(info.port_macs.len(), 2);
}

struct Pem {
    cert: String,
    key: String,
}

fn self_made() -> Pem {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Pem {
        cert: cert.pem(),
        key: signing_key.serialize_pem(),
    }
}

async fn capabilities(address: SocketAddr, tls: ClientTlsConfig) -> Result<(), String> {
    let endpoint = Channel::from_shared(format!("https://{address}")).unwrap();
    let endpoint = endpoint.tls_config(tls.domain_name("localhost")).unwrap();
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let answer = GNmiClient::new(channel)
        .capabilities(CapabilityRequest::default())
        .await;
    answer.map(drop).map_err(|status| status.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_serves_who_trusts_the_certificate_and_asks_clients_for_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = (self_made(), self_made());
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key) = (file("cert.pem", &server.cert), file("key.pem", &server.key));
    let ca = file("ca.pem", &client.cert);
    let common = ["--engine", "interp", "--tls-cert", &cert, "--tls-key", &key];

    let trusting = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&server.cert));
    let open = Server::start(args(&common)).await.unwrap();
    capabilities(open.gnmi()[0], trusting()).await.unwrap();
    let stranger = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&client.cert));
    capabilities(open.gnmi()[0], stranger).await.unwrap_err();
    let clear = Channel::from_shared(format!("http://{}", open.gnmi()[0])).unwrap();
    let clear = match clear.connect().await {
        Ok(channel) => GNmiClient::new(channel)
            .capabilities(CapabilityRequest::default())
            .await
            .is_ok(),
        Err(_) => false,
    };
    assert!(!clear, "a TLS port answers in the clear");

    let mutual = [&common[..], &["--tls-client-ca", &ca]].concat();
    let mutual = Server::start(args(&mutual)).await.unwrap();
    capabilities(mutual.gnmi()[0], trusting())
        .await
        .unwrap_err();
    let known = trusting().identity(Identity::from_pem(&client.cert, &client.key));
    capabilities(mutual.gnmi()[0], known).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_tells_bytes_and_resources_and_gnmi_has_the_same() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    daemon.configure(&demo()).await;
    let mut client = ObserveClient::new(daemon.channel.clone());
    let answer = client.usage(UsageRequest {}).await.unwrap().into_inner();
    let usage: serde_json::Value = serde_json::from_str(&answer.json).unwrap();
    let objects = usage["objects"].as_array().unwrap();
    let mapping = objects.iter().find(|o| o["object"] == "mapping").unwrap();
    assert!(mapping["count"].as_u64() > Some(0), "{mapping}");
    assert!(mapping["bytes"].as_u64() > Some(0), "{mapping}");
    assert!(
        usage["flows"]["entry_bytes"].as_u64() <= Some(256),
        "{usage}"
    );
    let tables = usage["tables"].as_array().unwrap();
    assert!(tables.iter().any(|t| t["table"] == "route4"), "{usage}");

    let crm = usage["crm"].as_object().unwrap();
    assert_eq!(crm["crm_stats_dash_vnet_used"], 2);
    let stats = daemon.get_json("/COUNTERS_DB/localhost/CRM/STATS").await;
    let stats = stats.unwrap();
    assert_eq!(stats.as_object().unwrap().len(), crm.len());
    for (name, n) in crm {
        assert_eq!(stats[name], n.to_string(), "{name}");
    }
}
