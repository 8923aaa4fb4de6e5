//! Real traffic: three network namespaces, Linux VXLAN devices at both ends, dashd between them.
//!
//! ```text
//!   vm namespace              dpu namespace               peer namespace
//!   vx0 10.1.1.10             dashd, VIP 10.0.0.1         vx0 10.1.1.1, 10.1.1.2
//!   VXLAN 4321 over           dvm --- [Via] --- dpeer     VXLAN 45654 over
//!   eth0 25.1.1.1  ---------- dvm               dpeer --- eth0 101.1.2.3
//! ```
//!
//! DASH answers no ARP for overlay addresses, so both ends hold static overlay neighbours. The
//! ports do not reassemble or segment, so both ends send one segment a packet.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::demo::{Daemon, build};
use crate::run::{Background, check, command, have, have_dpdk, is_root, output, root, status};

/// How dashd reaches its two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Via {
    /// Raw sockets
    Afpacket,
    /// AF_XDP sockets
    Xdp,
    /// DPDK's net_af_packet devices
    Dpdk,
    /// The kernel's eBPF, with a worker behind it
    Kernel,
}

/// The DPU's interfaces, by port.
const PORTS: [&str; 2] = ["dvm", "dpeer"];

impl Via {
    /// dashd's `--target` over both interfaces.
    fn target(self) -> String {
        let [vm, peer] = PORTS;
        match self {
            Self::Afpacket => format!("afpacket:{vm},{peer}"),
            Self::Xdp => format!("xdp:{vm},{peer}"),
            Self::Dpdk => format!(
                "dpdk:--no-huge --no-shconf --no-telemetry --no-pci -m 128 --file-prefix={} \
                 --vdev net_af_packet0,iface={vm} --vdev net_af_packet1,iface={peer}",
                eal_prefix()
            ),
            // Native or nothing: the demo is of what a driver can do.
            Self::Kernel => format!("kernel:{vm},{peer},attach=native"),
        }
    }

    /// True when ports do not hear of checksums that senders leave to hardware.
    fn needs_whole_checksums(self) -> bool {
        match self {
            Self::Afpacket => false,
            Self::Xdp | Self::Dpdk | Self::Kernel => true,
        }
    }

    /// MTU of the cables, bytes.
    fn mtu(self) -> u32 {
        match self {
            Self::Afpacket | Self::Xdp => 9000,
            // DPDK's net_af_packet carries frames of at most 1,518 bytes.
            Self::Dpdk => 1500,
            // Programs in the driver have packets of one page at most.
            Self::Kernel => 3000,
        }
    }
}

/// Names EAL's files of this run, though it is asked for none: it makes a folder.
fn eal_prefix() -> String {
    format!("dashwire-demo-{}", std::process::id())
}

/// Names that two runs at once do not share.
struct Net {
    mtu: u32,
    vm: String,
    dpu: String,
    peer: String,
}

impl Net {
    fn new(mtu: u32) -> Self {
        let id = std::process::id();
        let name = |role: &str| format!("dashwire-{role}-{id}");
        Self {
            mtu,
            vm: name("vm"),
            dpu: name("dpu"),
            peer: name("peer"),
        }
    }

    fn all(&self) -> [&str; 3] {
        [&self.vm, &self.dpu, &self.peer]
    }

    fn up(&self) -> Result<()> {
        for ns in self.all() {
            check(command("ip").args(["netns", "add", ns]))?;
            self.ip(ns, "link set lo up")?;
        }
        self.cable(&self.vm, PORTS[0])?;
        self.cable(&self.peer, PORTS[1])?;
        self.end(&self.vm, "25.1.1.1", ENI_MAC, "4321", "10.1.1.10")?;
        self.end(&self.peer, "101.1.2.3", PEER_MAC, "45654", "10.1.1.1")?;
        self.ip(&self.peer, &format!("addr add {DENIED}/24 dev vx0"))?;
        for peer in ["10.1.1.1", DENIED] {
            self.ip(
                &self.vm,
                &format!("neigh add {peer} lladdr {PEER_MAC} dev vx0"),
            )?;
        }
        self.ip(
            &self.peer,
            &format!("neigh add 10.1.1.10 lladdr {ENI_MAC} dev vx0"),
        )
    }

    /// A veth pair from `ns` (eth0) to the DPU (`port`).
    fn cable(&self, ns: &str, port: &str) -> Result<()> {
        self.ip(
            &self.dpu,
            &format!(
                "link add {port} mtu {} type veth peer name eth0 netns {ns}",
                self.mtu
            ),
        )?;
        self.ip(&self.dpu, &format!("link set {port} up"))?;
        // The DPU's kernel must not answer for anything: the daemon owns the port.
        self.ip(&self.dpu, &format!("link set {port} arp off"))
    }

    fn end(&self, ns: &str, underlay: &str, mac: &str, vni: &str, overlay: &str) -> Result<()> {
        let mtu = self.mtu;
        self.ip(ns, &format!("link set eth0 mtu {mtu} gso_max_segs 1 up"))?;
        self.ip(ns, &format!("addr add {underlay}/24 dev eth0"))?;
        self.ip(ns, &format!("route add {VIP}/32 dev eth0"))?;
        self.ip(
            ns,
            &format!(
                "link add vx0 address {mac} type vxlan id {vni} remote {VIP} dstport 4789 dev eth0"
            ),
        )?;
        let mtu = mtu - 100;
        self.ip(ns, &format!("link set vx0 mtu {mtu} gso_max_segs 1 up"))?;
        self.ip(ns, &format!("addr add {overlay}/24 dev vx0"))
    }

    fn ip(&self, ns: &str, args: &str) -> Result<()> {
        check(command("ip").args(["-n", ns]).args(args.split(' ')))
    }

    fn exec(&self, ns: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut c = command("ip");
        c.args(["netns", "exec", ns]).arg(program);
        c
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for ns in self.all() {
            // Half-built nets are torn down too, so a missing one is fine.
            let _ = command("ip").args(["netns", "del", ns]).status();
        }
        let _ = fs::remove_dir_all(format!("/var/run/dpdk/{}", eal_prefix()));
    }
}

const VIP: &str = "10.0.0.1";
const ENI_MAC: &str = "f4:93:9f:ef:c4:7e";
const PEER_MAC: &str = "f8:22:83:99:22:a2";
const DENIED: &str = "10.1.1.2";

/// Rows of the demo: one VNET, two mappings, and an ACL that forbids the second.
const CONFIG: &str = "specs/scenarios/demo/net.json";

pub(crate) fn run(via: Via, megabytes: u64, out: &Path) -> Result<()> {
    if !is_root() {
        bail!("demo --net makes network namespaces: run it as root");
    }
    for program in ["ip", "ping"] {
        ensure!(
            have(program),
            "demo --net needs `{program}`: cargo xtask setup installs it"
        );
    }
    ensure!(
        !via.needs_whole_checksums() || have("ethtool"),
        "demo --net with this port needs `ethtool`: cargo xtask setup installs it"
    );
    ensure!(
        via != Via::Dpdk || have_dpdk(),
        "demo --net --port dpdk needs libdpdk-dev: cargo xtask setup installs it"
    );
    let bin = build(if via == Via::Dpdk { &["dpdk"] } else { &[] })?;
    let out = root().join(out);
    fs::create_dir_all(&out)?;
    let me = std::env::current_exe()?;
    let net = Net::new(via.mtu());
    println!("== Three namespaces: {}", net.all().join(", "));
    net.up()?;
    if via.needs_whole_checksums() {
        for ns in [&net.vm, &net.peer] {
            check(net.exec(ns, "ethtool").args(["-K", "eth0", "tx", "off"]))?;
            if via == Via::Kernel {
                // Only then does this end take what the kernel's programs send to it.
                check(net.exec(ns, "ethtool").args(["-K", "eth0", "gro", "on"]))?;
            }
        }
    }

    let daemon = Daemon::start(
        net.exec(&net.dpu, &bin.dashd)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--no-tls",
                "--target",
                &via.target(),
            ])
            .args([
                "--route",
                "25.1.1.0/24=0",
                "--route",
                "101.1.2.0/24=1",
                "--config",
                CONFIG,
                "--cache",
            ])
            .arg(out.join("cache")),
    )?;

    println!("\n== ping 10.1.1.1 through dashd");
    // The first packets may go while neighbours are still being resolved.
    let mut reached = false;
    for _ in 0..10 {
        reached = status(
            net.exec(&net.vm, "ping")
                .args(["-q", "-c", "1", "-W", "1", "10.1.1.1"])
                .stdout(Stdio::null()),
        )?
        .success();
        if reached {
            break;
        }
    }
    ensure!(reached, "10.1.1.1 does not answer");
    check(
        net.exec(&net.vm, "ping")
            .args(["-c", "5", "-i", "0.2", "-W", "2", "10.1.1.1"]),
    )?;

    println!("\n== {megabytes} MB over HTTP");
    let mut server = Background::start(
        "web server",
        net.exec(&net.peer, &me)
            .args(["web", "serve", "10.1.1.1:8080"]),
    )?;
    server.wait_until(Duration::from_secs(10), || listening(&net))?;
    let bytes = (megabytes << 20).to_string();
    check(
        net.exec(&net.vm, &me)
            .args(["web", "fetch", "10.1.1.1:8080", &bytes]),
    )?;

    println!("\n== {DENIED} is denied by ACL");
    let ping = status(
        net.exec(&net.vm, "ping")
            .args(["-q", "-c", "3", "-i", "0.2", "-W", "1", DENIED]),
    )?;
    ensure!(!ping.success(), "{DENIED} answers: the ACL does not hold");
    let fetch = status(net.exec(&net.vm, &me).stderr(Stdio::null()).args([
        "web",
        "fetch",
        &format!("{DENIED}:8080"),
        "1",
        "--timeout",
        "2",
    ]))?;
    ensure!(
        !fetch.success(),
        "a download from {DENIED} worked: the ACL does not hold"
    );

    println!("\n== Counters that moved");
    let counters = output(net.exec(&net.dpu, &bin.dashctl).args([
        "counters",
        "--moved",
        "--from",
        &daemon.gnmi,
    ]))?;
    print!("{counters}");
    ensure!(
        counters.contains("SAI_ENI_STAT_POLICY_DROP_PACKETS"),
        "no packet was counted as denied"
    );
    daemon.stop()?;
    drop(server);
    println!("\nping, a {megabytes} MB download and a denied destination: all as configured");
    Ok(())
}

/// True when the server's port is bound in the peer's namespace.
fn listening(net: &Net) -> bool {
    // 10.1.1.1:8080 as /proc/net/tcp prints it, in state LISTEN.
    output(net.exec(&net.peer, "cat").arg("/proc/net/tcp"))
        .is_ok_and(|t| t.contains("0101010A:1F90 00000000:0000 0A"))
}
