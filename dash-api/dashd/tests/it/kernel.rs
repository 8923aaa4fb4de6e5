//! The binary over `kernel:`, on a veth pair in a network namespace of its own. Needs root; says SKIP
//! otherwise.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use dash_bpf::elf::write;
use dash_bpf::{Object, Program, assemble};
use dash_proto::dashwire::v1::HookPoint;
use dash_proto::dashwire::v1::programs_client::ProgramsClient;
use nic_linux::AfPacketPort;
use nic_sim::Packet;
use nic_target::{Frame, FramePool, Port as _};
use tonic::Code;
use tonic::transport::Channel;

use crate::packets::of_flow;
use crate::programs::client::Client;
use crate::services::http_get;
use crate::support::{DEADLINE, cache};

#[path = "../../../../nic-targets/linux/tests/support/netns.rs"]
mod netns;

const CONFIG: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../specs/scenarios/demo/config.json"
);
const VIP: [u8; 4] = [10, 0, 0, 1];
const PACKETS: u64 = 200;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends `packet`, again and again when it may be lost, until something `wanted` comes back.
fn ask(wire: &mut AfPacketPort, packet: &[u8], mut wanted: impl FnMut(&[u8]) -> bool) {
    let (mut pool, mut burst) = (FramePool::new(8), Vec::new());
    let started = Instant::now();
    loop {
        let mut frame = Frame::new();
        assert!(frame.fill(packet));
        wire.tx(&mut FramePool::new(0), &mut vec![frame]).unwrap();
        for _ in 0..1_000 {
            wire.rx(0, &mut pool, &mut burst, 8).unwrap();
            let found = burst.iter().any(|frame| wanted(frame.data()));
            burst.drain(..).for_each(|frame| pool.give(frame));
            if found {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(started.elapsed() < DEADLINE, "nothing comes back");
    }
}

fn sample(metrics: &str, name: &str) -> u64 {
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.expect(metrics).parse().unwrap()
}

/// An object whose program lets everything pass.
fn passes() -> Vec<u8> {
    let object = Object {
        programs: vec![Program {
            name: "passes".to_owned(),
            insns: assemble("r0 = 2\nexit").unwrap(),
            ..Program::default()
        }],
        ..Object::default()
    };
    write(&object).unwrap()
}

#[test]
fn the_kernel_forwards_for_the_daemon() {
    netns::in_namespace("kernel::inside_the_kernel_forwards_for_the_daemon");
}

#[test]
#[ignore = "run by the_kernel_forwards_for_the_daemon, in a namespace"]
fn inside_the_kernel_forwards_for_the_daemon() {
    netns::enter();
    for args in [
        "link set lo up",
        "link add va type veth peer name vb",
        "link set va up",
        "link set vb up",
    ] {
        netns::ip(args);
    }
    let child = Command::new(env!("CARGO_BIN_EXE_dashd"))
        .args(["--no-tls", "--listen", "127.0.0.1:0"])
        .args(["--metrics", "127.0.0.1:0", "--cache", &cache()])
        .args(["--target", "kernel:va,attach=skb", "--config", CONFIG])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let mut address = |of: &str| -> SocketAddr {
        let mut lines = lines.by_ref().map(Result::unwrap);
        let found = lines.find_map(|line| line.strip_prefix(of).map(|a| a.parse().unwrap()));
        found.expect("dashd ended")
    };
    let (service, metrics) = (address("gnmi "), address("metrics "));
    let mut wire = AfPacketPort::open("vb").unwrap();

    // What the kernel leaves to control is answered, out of the port it came in on.
    let arp = Packet::eth([0xff; 6], [2, 9, 9, 9, 9, 1])
        .arp_request([2, 9, 9, 9, 9, 1], [25, 1, 1, 1], VIP)
        .build();
    ask(&mut wire, &arp, |frame| {
        frame.len() >= 42 && frame[20..22] == [0, 2] && frame[28..32] == VIP
    });
    let up = |text: &str| sample(text, "dashwire_worker_packets_total{worker=\"0\"}");
    let forwarded = |frame: &[u8]| frame.len() > 50 && frame[30..34] == [101, 1, 2, 3];
    ask(&mut wire, &of_flow(1000), forwarded);
    let before = http_get(metrics, "/metrics");
    assert!(up(&before) > 0, "its first packet came up");
    for _ in 0..PACKETS {
        ask(&mut wire, &of_flow(1000), forwarded);
    }
    let text = http_get(metrics, "/metrics");
    assert_eq!(up(&text), up(&before), "the kernel served them alone");
    let sent = |text: &str| sample(text, "sai_eni_stat_tx_packets{eni=\"F4939FEFC47E\"}");
    assert!(sent(&text) >= sent(&before) + PACKETS, "{text}");
    assert_eq!(sample(&text, "dashwire_flows"), 1);
    assert_eq!(sample(&text, "dashwire_kernel_refused_flows_total"), 0);
    assert_eq!(sample(&text, "dashwire_link_up{device=\"va\"}"), 1);

    // A port's program would not see what the kernel sends; an ENI's sees packets of known flows, as
    // the kernel then hands them up.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut client, link) = runtime.block_on(async {
        let channel = Channel::from_shared(format!("http://{service}")).unwrap();
        let mut client = Client(ProgramsClient::new(channel.connect().await.unwrap()));
        client.load("passes", &passes()).await.unwrap();
        let refused = client.attach("passes", HookPoint::Ingress, "", 0).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(client.links().await.is_empty());
        let point = HookPoint::EniOutbound;
        let link = client.attach("passes", point, "F4939FEFC47E", 0).await;
        (client, link.unwrap())
    });
    let before = up(&http_get(metrics, "/metrics"));
    ask(&mut wire, &of_flow(1000), forwarded);
    let passed = runtime.block_on(client.link(link)).passed;
    assert!(passed > 0);
    assert!(up(&http_get(metrics, "/metrics")) >= before + passed);
    runtime.block_on(client.detach(link)).unwrap();
    // One that waited to be looked at may still come up.
    ask(&mut wire, &of_flow(1000), forwarded);
    let before = up(&http_get(metrics, "/metrics"));
    ask(&mut wire, &of_flow(1000), forwarded);
    assert_eq!(
        up(&http_get(metrics, "/metrics")),
        before,
        "the kernel alone"
    );

    let pid = process.0.id().to_string();
    let kill = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(kill.success());
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
}
