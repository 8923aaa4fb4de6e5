//! Open vSwitch over DPDK: from a port into a VXLAN tunnel, out of the same port.
//!
//! Everything it needs is its own: database and sockets in a folder that goes away, a network
//! namespace for its bridge. It polls, so it stands still while others are measured.
//!
//! That its packets leave encapsulated is counted at the port: bytes out by packets out are the frame
//! and 50 more. net_null counts no bytes, and its frames are zeros, which cost nothing to parse and hit
//! one entry of a cache: that figure is the least that a push can cost, and no goal is of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::captures::{Captures, ENCAP, INNER};
use super::counted::{Counted, Sample};
use super::process::{Daemon, command, installed, processors};
use super::{Peer, cpu};

/// Name of the figure that ours is compared with: the inner frames of ours, as many flows.
pub const PUSH: &str = "OVS-DPDK VXLAN push, net_pcap, 64 B";
/// Name of the figure with nothing to parse.
pub const ZEROS: &str = "OVS-DPDK VXLAN push, net_null, 64 B of zeros, one flow";

const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A switch for each figure.
pub(super) struct Switches(Vec<Ovs>);

impl Switches {
    /// Starts them; when it must be quick, only that of [`PUSH`].
    ///
    /// # Errors
    /// It is not installed, or does not run here.
    pub(super) fn start(quick: bool, captures: &Captures) -> Result<Self> {
        let real = Captures::vdev(0, &captures.inner());
        let mut all = vec![Ovs::start(PUSH, &real, quick)?];
        if !quick {
            all.push(Ovs::start(ZEROS, "net_null0,size=64", quick)?);
        }
        Ok(Self(all))
    }
}

impl Peer for Switches {
    fn sample(&mut self) -> Result<Vec<Sample>> {
        self.0.iter().map(Ovs::sample).collect()
    }
}

/// The switch and its database.
struct Ovs {
    name: &'static str,
    switch: Daemon,
    _database: Daemon,
    control: PathBuf,
    time: Duration,
    // Last: removed when nobody uses it any more.
    _folder: TempDir,
}

impl Ovs {
    /// Starts it and sets the tunnel up.
    ///
    /// # Errors
    /// It is not installed, or does not run here: no root, no second processor.
    fn start(name: &'static str, vdev: &str, quick: bool) -> Result<Self> {
        ensure!(Path::new(SWITCH).is_file(), "{SWITCH} is not installed");
        for program in ["ovsdb-server", "ovsdb-tool", "unshare", "nsenter", "ip"] {
            ensure!(installed(program), "{program} is not installed");
        }
        let cores = processors()?;
        ensure!(cores.len() > 1, "it needs two processors");
        let folder = tempfile::tempdir()?;
        let dir = folder.path();
        let at = |name: &str| dir.join(name).display().to_string();
        let env = [
            "OVS_RUNDIR",
            "OVS_LOGDIR",
            "OVS_DBDIR",
            "OVS_SYSCONFDIR",
            "RUNTIME_DIRECTORY",
        ]
        .map(|name| (name, dir));

        let file = at("conf.db");
        command(Command::new("ovsdb-tool").args(["create", &file, SCHEMA]))?;
        let socket = format!("unix:{}", at("db.sock"));
        let remote = format!("--remote=p{socket}");
        let ctl = format!("--unixctl={}", at("db.ctl"));
        let database = Daemon::start(&["ovsdb-server", &remote, &ctl, &file], &env)?;
        wait_for_file(&dir.join("db.sock"))?;
        let vsctl = |args: &str| {
            let db = format!("--db={socket}");
            let all = ["--timeout=15", &db];
            command(Command::new("ovs-vsctl").args(all).args(args.split(' ')))
        };
        vsctl("--no-wait init")?;
        vsctl(&format!(
            "--no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:pmd-cpu-mask={:#x}",
            1u64.checked_shl(cores[1])
                .context("a processor beyond 63")?
        ))?;
        // Memory without huge pages, so that no setting of the system has to change.
        let extra = "other_config:dpdk-extra=--no-huge --legacy-mem -m 1024 --no-pci";
        let db = format!("--db={socket}");
        command(Command::new("ovs-vsctl").args([
            &db,
            "--no-wait",
            "set",
            "Open_vSwitch",
            ".",
            extra,
        ]))?;

        let control = dir.join("vs.ctl");
        let ctl = format!("--unixctl={}", control.display());
        let switch = Daemon::start(
            &["unshare", "-n", SWITCH, &socket, &ctl, "-vsyslog:off"],
            &env,
        )?;
        wait_for_file(&control).with_context(|| format!("the switch said: {}", switch.said()))?;
        let ovs = Self {
            name,
            switch,
            _database: database,
            control,
            time: Duration::from_millis(if quick { 200 } else { 500 }),
            _folder: folder,
        };
        ovs.set_up(&vsctl, vdev)?;
        ovs.switch.still(true)?;
        Ok(ovs)
    }

    fn set_up(&self, vsctl: &dyn Fn(&str) -> Result<String>, vdev: &str) -> Result<()> {
        vsctl("add-br br0 -- set bridge br0 datapath_type=netdev")
            .with_context(|| format!("the switch said: {}", self.switch.said()))?;
        // The bridge's own port has the tunnel's address, so what is pushed comes back into the bridge
        // from there.
        vsctl(&format!(
            "add-port br0 n0 -- set interface n0 type=dpdk options:dpdk-devargs={vdev} \
             -- add-port br0 vx -- set interface vx type=vxlan options:remote_ip=10.9.0.2 options:key=flow"
        ))?;
        let pid = self.switch.pid().to_string();
        for line in ["ip addr add 10.9.0.1/24 dev br0", "ip link set br0 up"] {
            let words = line.split(' ');
            command(Command::new("nsenter").args(["-t", &pid, "-n"]).args(words))?;
        }
        self.ask("tnl/neigh/set br0 10.9.0.2 02:00:00:00:00:02")?;
        self.flows("del-flows", &[])?;
        for flow in [
            "in_port=n0,actions=set_field:5000->tun_id,output:vx",
            "in_port=LOCAL,actions=output:n0",
        ] {
            self.flows("add-flow", &[flow])?;
        }
        // Routes are taken from the system now and then; until then packets are dropped.
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(100));
            if self.ask("dpctl/dump-flows")?.contains("tnl_push") {
                return Ok(());
            }
        }
        let flows = self.ask("dpctl/dump-flows")?;
        anyhow::bail!("packets are not pushed into the tunnel: {flows}")
    }

    /// Tells the bridge, which lets go of who connects while it is changed itself.
    fn flows(&self, what: &str, args: &[&str]) -> Result<()> {
        let socket = self.control.with_file_name("br0.mgmt");
        let bridge = format!("unix:{}", socket.display());
        let mut tries = 0;
        loop {
            let mut tell = Command::new("ovs-ofctl");
            match command(tell.args([what, &bridge]).args(args)) {
                Err(_) if tries < 50 => tries += 1,
                told => return told.map(drop),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn ask(&self, what: &str) -> Result<String> {
        let mut ask = Command::new("ovs-appctl");
        command(ask.arg("-t").arg(&self.control).args(what.split(' ')))
    }

    /// What its port has counted, and the time of its polling thread, ns.
    fn now(&self) -> Result<(Counted, u64)> {
        let threads = cpu::threads(self.switch.pid())?;
        let pmd = threads.iter().find(|(_, n)| n.starts_with("pmd"));
        let (tid, _) = pmd.context("the switch has no polling thread")?;
        let ports = self.ask("dpctl/show -s")?;
        let counted = counted(&ports, "n0").with_context(|| format!("no counts in: {ports}"))?;
        Ok((counted, cpu::of(self.switch.pid(), *tid)?))
    }

    fn sample(&self) -> Result<Sample> {
        self.switch.still(false)?;
        // Caches of its own fill first.
        std::thread::sleep(self.time / 4);
        let (before, from) = self.now()?;
        std::thread::sleep(self.time);
        let (after, to) = self.now()?;
        self.switch.still(true)?;
        let counted = Counted {
            received: after.received - before.received,
            sent: after.sent - before.sent,
            // A port that counts no bytes says 0.
            octets: Some(after.octets.unwrap_or(0) - before.octets.unwrap_or(0)).filter(|n| *n > 0),
        };
        Sample::proven(self.name, to - from, counted, ENCAP + INNER)
    }
}

/// What a port has counted since it was made.
fn counted(ports: &str, name: &str) -> Option<Counted> {
    let (_, port) = ports.split_once(&format!(": {name} ("))?;
    let of = |name: &str| -> Option<u64> {
        let (_, after) = port.split_once(name)?;
        let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    Some(Counted {
        received: of("RX packets:")?,
        sent: of("TX packets:")?,
        octets: of("TX bytes:"),
    })
}

fn wait_for_file(path: &Path) -> Result<()> {
    for _ in 0..100 {
        if path.exists() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("{} did not appear", path.display())
}

#[cfg(test)]
mod tests {
    use super::{Counted, counted};

    #[test]
    fn counts_are_those_of_the_port_asked_for() {
        let ports = "netdev@ovs-netdev:\n  port 1: br0 (tap)\n    RX packets:6 errors:0\n    TX packets:7\n    \
                     RX bytes:516  TX bytes:9 (903.8 KiB)\n  port 2: n0 (dpdk: mtu=1500)\n    \
                     RX packets:9959424 errors:0 dropped:0\n    TX packets:9838311 errors:0\n    \
                     RX bytes:597565440 (569.9 MiB)  TX bytes:1082214210 (1.0 GiB)\n";
        let want = Counted {
            received: 9_959_424,
            sent: 9_838_311,
            octets: Some(1_082_214_210),
        };
        assert_eq!(counted(ports, "n0"), Some(want));
        assert_eq!(counted(ports, "n1"), None);
    }
}
