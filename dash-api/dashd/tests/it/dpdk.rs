//! The binary over DPDK devices: EAL starts once a process, so each test has its own.

use std::io::{BufRead as _, BufReader, Lines};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use nic_sim::{CaptureWriter, read_capture};

use crate::packets::of_flow;
use crate::services::http_get;
use crate::support::{DEADLINE, Daemon, cache, demo};

const CONFIG: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../specs/scenarios/demo/config.json"
);

/// Without hardware, huge pages, and files; `unique` names the run.
fn target(unique: &str, devices: &str) -> String {
    format!(
        "dpdk:--no-huge --no-shconf --no-telemetry --no-pci -m 128 --file-prefix={unique} {devices}"
    )
}

struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    prefix: String,
}

impl Process {
    fn start(name: &str, devices: &str, more: &[&str]) -> Self {
        let prefix = format!("dashd-test-{name}-{}", std::process::id());
        let mut child = Command::new(env!("CARGO_BIN_EXE_dashd"))
            .args([
                "--no-tls",
                "--listen",
                "127.0.0.1:0",
                "--metrics",
                "127.0.0.1:0",
            ])
            .args(["--cache", &cache(), "--config", CONFIG])
            .args(["--target", &target(&prefix, devices)])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            prefix,
        }
    }

    fn metrics_address(&mut self) -> SocketAddr {
        self.lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| line.strip_prefix("metrics ").map(|a| a.parse().unwrap()))
            .expect("dashd ended")
    }

    /// SIGTERM; gives the exit code.
    fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(kill.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for root in ["/var/run/dpdk", "/tmp/dpdk"] {
            // EAL makes one of them, or none.
            let _ = std::fs::remove_dir_all(format!("{root}/{}", self.prefix));
        }
    }
}

fn counter(metrics: &str, device: &str, name: &str) -> Option<u64> {
    let start = format!("dashwire_device_counter{{device=\"{device}\",name=\"{name}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&start))?;
    Some(value.parse().unwrap())
}

fn metrics_until(address: SocketAddr, mut enough: impl FnMut(&str) -> bool) -> String {
    let started = Instant::now();
    loop {
        let text = http_get(address, "/metrics");
        if enough(&text) {
            return text;
        }
        assert!(started.elapsed() < DEADLINE, "not reached:\n{text}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// The frame without what is of a port or of a run: MACs, and the IP identification, checksum and
/// UDP source port of the encap.
fn comparable(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for run in [0..12, 18..20, 24..26, 34..36] {
        frame[run].fill(0);
    }
    frame
}

/// The frames of both kinds of target are made by the same code, and nothing of them is lost on the
/// way in or out.
#[tokio::test(flavor = "multi_thread")]
async fn a_capture_through_net_pcap_comes_out_as_through_the_simulated_nic() {
    let frames: Vec<Vec<u8>> = (0..300).map(|n| of_flow(1000 + n % 100)).collect();
    let daemon = Daemon::start(&[]).await;
    daemon.configure(&demo()).await;
    let want = daemon
        .inject(frames.iter().map(|f| (0, f.clone())).collect())
        .await;
    assert_eq!(want.len(), 300);

    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let mut writer = CaptureWriter::create(&input).unwrap();
    for frame in &frames {
        writer.write(0, frame).unwrap();
    }
    writer.finish().unwrap();
    let device = format!(
        "--vdev 'net_pcap0,rx_pcap={},tx_pcap={}'",
        input.display(),
        output.display()
    );
    let got = tokio::task::spawn_blocking(move || {
        let mut process = Process::start("pcap", &device, &[]);
        let address = process.metrics_address();
        let text = metrics_until(address, |text| {
            counter(text, "net_pcap0", "tx_good_packets") >= Some(300)
        });
        assert_eq!(counter(&text, "net_pcap0", "rx_good_packets"), Some(300));
        assert!(
            text.contains("\ndashwire_link_up{device=\"net_pcap0\"} 1\n"),
            "{text}"
        );
        assert_eq!(process.stop(), Some(0));
        let packets = read_capture(&output).unwrap().map(|p| p.unwrap().data);
        packets.collect::<Vec<_>>()
    });
    let got = got.await.unwrap();
    assert_eq!(got.len(), 300);
    for (got, (_, want)) in got.iter().zip(&want) {
        assert_eq!(comparable(got), comparable(want));
    }
}

#[test]
fn several_workers_take_a_queue_of_every_device_and_stop_cleanly_under_load() {
    let mut process = Process::start(
        "null",
        "--vdev net_null0 --vdev net_null1 -- mtu=1500",
        &["--workers", "2"],
    );
    let address = process.metrics_address();
    // Frames of zeros: received for ever, and dropped by the pipeline.
    metrics_until(address, |text| {
        ["net_null0", "net_null1"].iter().all(|device| {
            ["rx_q0_packets", "rx_q1_packets"]
                .iter()
                .all(|queue| counter(text, device, queue) > Some(10_000))
        })
    });
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn what_cannot_be_opened_is_an_error_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pcap");
    CaptureWriter::create(&empty).unwrap().finish().unwrap();
    let capture = format!("--vdev net_pcap0,rx_pcap={}", empty.display());
    for (name, devices, more, part) in [
        ("bogus", "--bogus", &[][..], "unrecognized option '--bogus'"),
        ("none", "", &[], "EAL found no Ethernet device"),
        (
            "iface",
            "--vdev net_af_packet0,iface=no-such-if",
            &[],
            "EAL made no Ethernet device of net_af_packet0",
        ),
        (
            "queues",
            &capture,
            &["--workers", "2"],
            "net_pcap0 has 1 queue(s), and 2 workers need one each: use --workers 1",
        ),
    ] {
        let prefix = format!("dashd-test-{name}-{}", std::process::id());
        let output = Command::new(env!("CARGO_BIN_EXE_dashd"))
            .args(["--no-tls", "--listen", "127.0.0.1:0"])
            .args(["--cache", &cache(), "--target", &target(&prefix, devices)])
            .args(more)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {error}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{name}");
        assert!(error.contains(part), "{name}: {error}");
        let _ = std::fs::remove_dir_all(format!("/var/run/dpdk/{prefix}"));
    }
}
