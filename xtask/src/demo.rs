//! The main job as a user sees it: dashd with a simulated NIC, a configuration pushed over gNMI, a
//! capture sent through, every packet explained.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nic_sim::packet::tcp_flags;
use nic_sim::{CaptureWriter, Packet, read_capture};

use crate::run::{cargo, check, command, output, root};

/// The configuration pushed; the same rows as JSON, so that a reader can edit and push again.
pub(crate) const CONFIG: &str = "specs/scenarios/demo/config.json";

/// Release binaries of the daemon and its command line.
pub(crate) struct Binaries {
    pub(crate) dashd: PathBuf,
    pub(crate) dashctl: PathBuf,
}

/// Builds them with these features, showing cargo's own progress.
pub(crate) fn build(features: &[&str]) -> Result<Binaries> {
    eprintln!("demo: building dashd and dashctl (release)");
    let mut build = cargo();
    build.args(["build", "--release", "-p", "dashd", "-p", "dashctl"]);
    for feature in features {
        build.args(["--features", feature]);
    }
    check(&mut build)?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let bin = |name: &str| root().join(&target).join("release").join(name);
    Ok(Binaries {
        dashd: bin("dashd"),
        dashctl: bin("dashctl"),
    })
}

/// A running daemon; stopped with SIGTERM, or killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    /// Address of its gNMI server.
    pub(crate) gnmi: String,
}

impl Daemon {
    /// Starts it and waits for the line that names its address.
    pub(crate) fn start(c: &mut Command) -> Result<Self> {
        let mut child = c
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {c:?}"))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut daemon = Self {
            child,
            gnmi: String::new(),
        };
        for line in BufReader::new(stdout).lines() {
            if let Some(addr) = line?.strip_prefix("gnmi ") {
                daemon.gnmi = addr.to_owned();
                return Ok(daemon);
            }
        }
        bail!("dashd ended before it listened: {}", daemon.child.wait()?)
    }

    /// SIGTERM, and a clean end.
    pub(crate) fn stop(mut self) -> Result<()> {
        check(
            Command::new("kill")
                .arg("-TERM")
                .arg(self.child.id().to_string()),
        )?;
        let status = self.child.wait()?;
        ensure!(status.success(), "dashd ended with {status}");
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

pub(crate) fn run(out: &Path) -> Result<()> {
    let out = root().join(out);
    fs::create_dir_all(&out)?;
    let bin = build(&[])?;
    let (input, result) = (out.join("in.pcap"), out.join("out.pcap"));
    let packets = write_capture(&input)?;

    title("dashd with a simulated NIC");
    let daemon = Daemon::start(
        command(&bin.dashd)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--no-tls",
                "--target",
                "sim:",
                "--cache",
            ])
            .arg(out.join("cache")),
    )?;
    println!("gNMI on {}", daemon.gnmi);

    title("DASH configuration over gNMI");
    check(command(&bin.dashctl).args(["push", CONFIG, "--to", &daemon.gnmi]))?;
    check(command(&bin.dashctl).args([
        "get",
        "/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=Vnet1]",
        "--from",
        &daemon.gnmi,
    ]))?;

    title("A capture through the NIC");
    check(
        command(&bin.dashctl)
            .args(["inject", "--to", &daemon.gnmi, "--in"])
            .arg(&input)
            .arg("--out")
            .arg(&result),
    )?;
    let sent = count(&result)?;
    println!("{packets} packets in, {sent} out: {}", result.display());

    title("What happened to each packet");
    check(
        command(&bin.dashctl)
            .args(["trace", "--bytes", "--config", CONFIG, "--in"])
            .arg(&input),
    )?;

    title("Counters that moved");
    for line in
        output(command(&bin.dashctl).args(["counters", "--moved", "--from", &daemon.gnmi]))?.lines()
    {
        println!("{line}");
    }
    title("Flows");
    check(command(&bin.dashctl).args(["flows", "--from", &daemon.gnmi]))?;
    daemon.stop()?;
    ensure!(
        sent == FORWARDED,
        "{sent} packets came out, {FORWARDED} should"
    );
    println!("\nAll as expected. Output: {}", out.display());
    Ok(())
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn count(path: &Path) -> Result<usize> {
    let mut n = 0;
    for packet in read_capture(path)? {
        packet?;
        n += 1;
    }
    Ok(n)
}

const DPU: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NEIGHBOR: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ENI: [u8; 6] = [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e];
const PEER: [u8; 6] = [0xf8, 0x22, 0x83, 0x99, 0x22, 0xa2];
const VM: [u8; 4] = [10, 1, 1, 10];

/// How many of [`write_capture`]'s packets the configuration forwards.
const FORWARDED: usize = 9;

/// One packet of each kind the pipeline treats differently.
fn write_capture(path: &Path) -> Result<usize> {
    let vm = |vip: [u8; 4]| {
        Packet::eth(DPU, NEIGHBOR)
            .ipv4([25, 1, 1, 1], vip)
            .udp(5137, 4789)
            .vxlan(4321)
    };
    let from_vm = || vm([10, 0, 0, 1]).eth(PEER, ENI);
    let from_pa = |pa: [u8; 4]| {
        Packet::eth(DPU, NEIGHBOR)
            .ipv4(pa, [10, 0, 0, 1])
            .udp(5200, 4789)
            .vxlan(45654)
            .eth(ENI, PEER)
    };
    let hello = b"hello DASH";
    let mut truncated = from_vm()
        .ipv4(VM, [10, 1, 1, 1])
        .udp(1000, 2000)
        .payload(hello)
        .build();
    truncated.truncate(80);
    let packets = [
        // Forwarded: a new flow, its second packet, its reply.
        from_vm()
            .ipv4(VM, [10, 1, 1, 1])
            .udp(1000, 2000)
            .payload(hello)
            .build(),
        from_vm()
            .ipv4(VM, [10, 1, 1, 1])
            .udp(1000, 2000)
            .payload(b"again")
            .build(),
        from_pa([101, 1, 2, 3])
            .ipv4([10, 1, 1, 1], VM)
            .udp(2000, 1000)
            .payload(hello)
            .build(),
        // Forwarded: TCP, vnet_direct, a peered VNET, direct, IPv6.
        from_vm()
            .ipv4(VM, [10, 1, 1, 1])
            .tcp(40_000, 443)
            .flags(tcp_flags::SYN)
            .payload(b"")
            .build(),
        from_vm()
            .ipv4(VM, [10, 1, 0, 1])
            .udp(1000, 53)
            .payload(hello)
            .build(),
        from_vm()
            .ipv4(VM, [20, 0, 0, 5])
            .udp(1000, 2000)
            .payload(hello)
            .build(),
        from_vm()
            .ipv4(VM, [30, 0, 0, 1])
            .udp(1000, 2000)
            .payload(hello)
            .build(),
        from_vm()
            .ipv6(
                [0xfd00, 1, 0, 0, 0, 0, 0, 0x10],
                [0xfd00, 1, 0, 0, 0, 0, 0, 1],
            )
            .udp(1000, 2000)
            .payload(hello)
            .build(),
        // Forwarded: unsolicited, from a PA the VNET knows.
        from_pa([101, 1, 2, 3])
            .ipv4([10, 1, 1, 1], VM)
            .udp(9, 9)
            .payload(hello)
            .build(),
        // Dropped: route says so, no route, no mapping, ACL.
        from_vm()
            .ipv4(VM, [10, 2, 5, 1])
            .udp(1000, 2000)
            .payload(hello)
            .build(),
        from_vm()
            .ipv4(VM, [10, 3, 3, 4])
            .udp(1000, 2000)
            .payload(hello)
            .build(),
        from_vm()
            .ipv4(VM, [10, 1, 9, 9])
            .udp(1000, 2000)
            .payload(hello)
            .build(),
        from_vm()
            .ipv4(VM, [10, 1, 1, 1])
            .tcp(40_001, 23)
            .flags(tcp_flags::SYN)
            .payload(b"")
            .build(),
        // Dropped: spoofed PA, no inbound rule, wrong VIP, unknown ENI, truncated.
        from_pa([101, 1, 2, 99])
            .ipv4([10, 1, 1, 1], VM)
            .udp(2000, 1001)
            .payload(hello)
            .build(),
        from_pa([55, 0, 0, 1])
            .ipv4([10, 1, 1, 1], VM)
            .udp(2000, 1002)
            .payload(hello)
            .build(),
        vm([9, 9, 9, 9])
            .eth(PEER, ENI)
            .ipv4(VM, [10, 1, 1, 1])
            .udp(1000, 2000)
            .payload(hello)
            .build(),
        vm([10, 0, 0, 1])
            .eth(PEER, [2, 2, 2, 2, 2, 2])
            .ipv4(VM, [10, 1, 1, 1])
            .udp(1000, 2000)
            .payload(hello)
            .build(),
        truncated,
    ];
    let mut capture = CaptureWriter::create(path)?;
    for (i, packet) in packets.iter().enumerate() {
        capture.write(1_700_000_000_000_000_000 + i as u64 * 1_000_000, packet)?;
    }
    capture.finish()?;
    Ok(packets.len())
}
