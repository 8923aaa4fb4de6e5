//! Open vSwitch over DPDK: one flow, from a net_null port into a VXLAN tunnel, out of another.
//!
//! Everything it needs is its own: database and sockets in a folder that goes away, a network
//! namespace for its bridges. It polls, so it stands still while others are measured.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::process::{Daemon, command, installed, processors};
use super::{Peer, Sample, cpu};

/// Name of its figure.
pub const PUSH: &str = "OVS-DPDK VXLAN push, net_null, 64 B, one flow";

const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// The switch and its database.
pub(super) struct Ovs {
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
    pub(super) fn start(quick: bool) -> Result<Self> {
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
            switch,
            _database: database,
            control,
            time: Duration::from_millis(if quick { 200 } else { 500 }),
            _folder: folder,
        };
        ovs.set_up(&vsctl)?;
        ovs.switch.still(true)?;
        Ok(ovs)
    }

    fn set_up(&self, vsctl: &dyn Fn(&str) -> Result<String>) -> Result<()> {
        vsctl(
            "add-br br0 -- set bridge br0 datapath_type=netdev \
             -- add-br phy -- set bridge phy datapath_type=netdev",
        )
        .with_context(|| format!("the switch said: {}", self.switch.said()))?;
        // The second port only sends: it would bring as many packets as it is asked for, each dropped at
        // little cost and counted all the same.
        vsctl(
            "add-port br0 n0 -- set interface n0 type=dpdk options:dpdk-devargs=net_null0,size=64 \
             -- add-port phy n1 -- set interface n1 type=dpdk options:dpdk-devargs=net_null1,size=64,no-rx=1 \
             -- add-port br0 vx -- set interface vx type=vxlan options:remote_ip=10.9.0.2 options:key=flow",
        )?;
        let pid = self.switch.pid().to_string();
        for line in ["ip addr add 10.9.0.1/24 dev phy", "ip link set phy up"] {
            let words = line.split(' ');
            command(Command::new("nsenter").args(["-t", &pid, "-n"]).args(words))?;
        }
        self.ask("tnl/neigh/set phy 10.9.0.2 02:00:00:00:00:02")?;
        self.flow("br0", "in_port=n0,actions=set_field:5000->tun_id,output:vx")?;
        self.flow("phy", "in_port=LOCAL,actions=output:n1")?;
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

    fn flow(&self, bridge: &str, flow: &str) -> Result<()> {
        let socket = self.control.with_file_name(format!("{bridge}.mgmt"));
        let bridge = format!("unix:{}", socket.display());
        command(Command::new("ovs-ofctl").args(["del-flows", &bridge]))?;
        command(Command::new("ovs-ofctl").args(["add-flow", &bridge, flow])).map(drop)
    }

    fn ask(&self, what: &str) -> Result<String> {
        let mut ask = Command::new("ovs-appctl");
        command(ask.arg("-t").arg(&self.control).args(what.split(' ')))
    }

    /// Packets that its polling thread has received, and that thread's time, ns.
    fn now(&self) -> Result<(u64, u64)> {
        let threads = cpu::threads(self.switch.pid())?;
        let pmd = threads.iter().find(|(_, n)| n.starts_with("pmd"));
        let (tid, _) = pmd.context("the switch has no polling thread")?;
        let stats = self.ask("dpif-netdev/pmd-stats-show")?;
        let packets = packets_received(&stats).with_context(|| format!("no count in: {stats}"))?;
        Ok((packets, cpu::of(self.switch.pid(), *tid)?))
    }
}

impl Peer for Ovs {
    fn sample(&mut self) -> Result<Vec<Sample>> {
        self.switch.still(false)?;
        // Caches of its own fill first.
        std::thread::sleep(self.time / 4);
        let before = self.now()?;
        std::thread::sleep(self.time);
        let after = self.now()?;
        self.switch.still(true)?;
        let packets = after.0 - before.0;
        ensure!(packets > 10_000, "{packets} packets only");
        Ok(vec![(PUSH, (after.1 - before.1) as f64 / packets as f64)])
    }
}

/// Of the first polling thread.
fn packets_received(stats: &str) -> Option<u64> {
    let (_, pmd) = stats.split_once("pmd thread")?;
    let (_, after) = pmd.split_once("packets received:")?;
    after.split_whitespace().next()?.parse().ok()
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
    use super::packets_received;

    #[test]
    fn the_count_is_that_of_the_polling_thread() {
        let stats = "main thread:\n  packets received: 7\n\
                     pmd thread numa_id 0 core_id 1:\n  packets received: 5578048\n  idle cycles: 0\n";
        assert_eq!(packets_received(stats), Some(5_578_048));
        assert_eq!(
            packets_received("main thread:\n  packets received: 7\n"),
            None
        );
    }
}
