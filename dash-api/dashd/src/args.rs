//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use dash_engine::Judge;
use dash_pipeline::plan::Settings;
use dash_runtime::runtime::Cores;
use dashctl::life::LifeArgs;
use dashctl::underlay::{Neighbor, RouteArg};
use nic_targets::TargetSpec;

/// The DASH daemon: configuration by gNMI, packets by verified native eBPF.
#[derive(Clone, Debug, Parser)]
#[command(name = "dashd", version)]
pub struct Args {
    /// Address of the gNMI server, port 0 for any; may be repeated.
    #[arg(long, value_name = "ADDR:PORT", required = true)]
    pub listen: Vec<SocketAddr>,
    /// Serve in the clear: loopback addresses only.
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key", "tls_client_ca"])]
    pub no_tls: bool,
    /// The server's certificate chain (PEM).
    #[arg(
        long,
        value_name = "FILE.pem",
        requires = "tls_key",
        required_unless_present = "no_tls"
    )]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate (PEM).
    #[arg(long, value_name = "FILE.pem", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// CA of the clients' certificates (PEM); clients without one are refused.
    #[arg(long, value_name = "FILE.pem", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// What moves packets: `sim:[ports=N]`, `pcap:in=FILE,out=FILE`, `afpacket:IF[,IF...]`,
    /// `xdp:IF[,IF...][,mode=..,attach=..,busy-poll=USEC,frames=N]`, `kernel:` with the same (the
    /// kernel's eBPF in front of one worker) or
    /// `dpdk:EAL ARGUMENTS [-- ports=P,... mtu=N mbufs=N]`.
    #[arg(long, value_name = "SPEC")]
    pub target: TargetSpec,
    /// Configuration file to start with; may be repeated, and each is one transaction.
    #[arg(long = "config", value_name = "FILE.json")]
    pub configs: Vec<PathBuf>,
    /// Address of the Prometheus endpoint `/metrics`, in the clear.
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Who runs the packets.
    #[arg(long, value_enum, default_value_t = EngineName::Native)]
    pub engine: EngineName,
    /// Threads that run packets, each with a queue of every port and a share of the flows; as many
    /// as `--cores` names, or 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// Core of each worker, as `1,3-5`; without, the scheduler places them.
    #[arg(long, value_name = "LIST")]
    pub cores: Option<Cores>,
    /// Who decides whether code is safe to run: our own verifier, PREVAIL behind rules of ours, or both.
    #[arg(long, value_name = "own|prevail|both", default_value_t)]
    pub verifier: Judge,
    /// Instructions that a run of a user's program may take, if they are to be counted: more end it as XDP_ABORTED. A
    /// second line behind the verifier, which proves that programs end; counting costs programs with loops or calls time.
    #[arg(long, value_name = "N")]
    pub program_fuel: Option<u64>,
    /// Folder for its verdicts between runs, this user's alone; without, everything is
    /// verified anew.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Most connections at a time.
    #[arg(long, value_name = "N", default_value_t = nic_target::Capacity::default().flows,
        value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub flows: u32,
    /// Take the memory of that many connections before packets come in, rather than when they are made.
    #[arg(long)]
    pub prefault: bool,
    /// Underlay route; may be repeated. Without any, packets leave where they came in.
    #[arg(long = "route", value_name = "PREFIX=PORT[,NEXTHOP]")]
    pub routes: Vec<RouteArg>,
    /// Underlay neighbour; may be repeated. Others are learned.
    #[arg(long = "neighbor", value_name = "IP=MAC@PORT")]
    pub neighbors: Vec<Neighbor>,
    /// UDP port of VXLAN.
    #[arg(long, value_name = "PORT", default_value_t = Settings::default().vxlan_port,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub vxlan_port: u16,
    /// TTL of encaps.
    #[arg(long, value_name = "N", default_value_t = Settings::default().encap_ttl,
        value_parser = clap::value_parser!(u8).range(1..))]
    pub encap_ttl: u8,
    /// Lowest UDP source port of encaps.
    #[arg(long, value_name = "PORT", default_value_t = Settings::default().sport_base)]
    pub sport_base: u16,
    /// Source ports from there up, as a power of two.
    #[arg(long, value_name = "BITS", default_value_t = Settings::default().sport_bits,
        value_parser = clap::value_parser!(u8).range(..=16))]
    pub sport_bits: u8,
    /// Drop what a private link's port map has no range for, rather than send it the plain way.
    #[arg(long)]
    pub drop_unmapped_ports: bool,
    /// Drop VXLAN from other source ports than these.
    #[arg(long)]
    pub vxlan_security: bool,
    /// Longest IP packet that may leave, its outermost header counted; longer ones are counted drops.
    /// `ports` is the MTU of the port that a packet leaves by, as it is at the start; without, ports judge.
    #[arg(long, value_name = "BYTES|ports")]
    pub mtu: Option<MtuArg>,
    /// DSCP of every encap; without, that of the received outer header.
    #[arg(long, value_name = "DSCP", value_parser = clap::value_parser!(u8).range(..64))]
    pub dscp_pipe: Option<u8>,
    /// Let bound route and ACL groups change in place.
    #[arg(long)]
    pub update_bound_groups: bool,
    /// Refuse rows of tables that nothing acts on, which are stored otherwise.
    #[arg(long)]
    pub strict: bool,
    /// How connections live.
    #[command(flatten)]
    pub life: LifeArgs,
    /// Folder for the files of flow dump sessions.
    #[arg(long, value_name = "DIR", default_value = "/var/dump/flows")]
    pub flow_dumps: PathBuf,
}

/// What limits packets that leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtuArg {
    /// A number.
    Bytes(u16),
    /// The ports.
    Ports,
}

impl std::str::FromStr for MtuArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ports" => Ok(Self::Ports),
            _ => match text.parse() {
                Ok(bytes @ 68..) => Ok(Self::Bytes(bytes)),
                _ => Err("`ports`, or a number from 68 to 65535".to_owned()),
            },
        }
    }
}

/// What packets that leave are held to: all of them, and those of each port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// By whatever port.
    pub card: Option<u16>,
    /// By port, where it is known; empty where ports are not asked.
    pub ports: Vec<Option<u16>>,
}

impl MtuArg {
    /// The limits, with ports of these MTUs.
    ///
    /// # Errors
    /// It is the ports' to say, and none knows.
    pub fn limits(self, ports: &[Option<u16>]) -> Result<Limits, String> {
        match self {
            Self::Bytes(bytes) => Ok(Limits {
                card: Some(bytes),
                ports: Vec::new(),
            }),
            Self::Ports if ports.iter().all(Option::is_none) => {
                Err("no port of this target knows its MTU: say a number".to_owned())
            }
            Self::Ports => Ok(Limits {
                card: None,
                ports: ports.to_vec(),
            }),
        }
    }
}

impl Args {
    /// How many workers to start; more or fewer than `--cores` names is refused where they start.
    pub fn worker_count(&self) -> usize {
        let named = self.cores.as_ref().map(|cores| cores.as_slice().len());
        let asked = self.workers.map(usize::from);
        asked.or(named).unwrap_or(1)
    }
}

/// Who runs packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// Machine code of the verified eBPF.
    Native,
    /// The checking interpreter of the eBPF.
    Interp,
}

impl From<EngineName> for dash_runtime::Engine {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Native => Self::Native,
            EngineName::Interp => Self::Interp,
        }
    }
}

impl EngineName {
    /// As `--engine` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Interp => "interp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, MtuArg};

    #[test]
    fn an_mtu_is_a_number_or_the_ports() {
        let limits = |text: &str, ports: &[_]| text.parse::<MtuArg>()?.limits(ports);
        let card = Limits {
            card: Some(1500),
            ports: vec![],
        };
        assert_eq!(limits("1500", &[None; 2]), Ok(card));
        for known in [[Some(9000), Some(1500)], [None, Some(u16::MAX)]] {
            let ports = Limits {
                card: None,
                ports: known.to_vec(),
            };
            assert_eq!(limits("ports", &known), Ok(ports));
        }
        assert!(limits("ports", &[None; 2]).is_err());
        for wrong in ["67", "65536", "port", ""] {
            assert!(limits(wrong, &[Some(1500); 2]).is_err(), "{wrong}");
        }
    }
}
