//! The command line.

mod programs;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dash_bpf::ProgramKind;
use dash_pipeline::plan::Settings;
use dash_verify::Judge;
use dashctl::engines::{EngineName, default_cache_dir};
use dashctl::life::LifeArgs;
use dashctl::underlay::{Neighbor, RouteArg};

pub(crate) use programs::*;

/// DASH configurations, captures and daemons from the command line.
#[derive(Debug, Parser)]
#[command(name = "dashctl", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a capture through a configuration: what leaves, counters and flows.
    Replay(Replay),
    /// Show what packets meet on their way, a line a stage.
    Trace(Trace),
    /// Show what a configuration compiles to.
    Compile(Compile),
    /// Send a configuration to a daemon by gNMI Set.
    Push(Push),
    /// Read from a daemon by gNMI Get.
    Get(Get),
    /// Put a capture on the wire of a daemon's simulated NIC, and write what it sends.
    Inject(Inject),
    /// Show a daemon's counters.
    Counters(Counters),
    /// Show a daemon's live flows, a JSON object a line.
    Flows(Flows),
    /// Show what a daemon's objects take.
    Show(Show),
    /// A daemon's flows: some of them, deleted, decided again, in a file.
    Flow {
        #[command(subcommand)]
        command: Flow,
    },
    /// What SAI has of a daemon's ENIs and SONiC's tables have not: shown, set.
    Eni {
        #[command(subcommand)]
        command: EniCommand,
    },
    /// What SAI has of a daemon's route groups and SONiC's tables have not: shown, set.
    RouteGroup {
        #[command(subcommand)]
        command: RouteGroupCommand,
    },
    /// Run scenarios and say what differs from what they expect.
    Scenario(Scenario),
    /// Say what of the pipeline no scenario reaches: exit code 1 when there is something.
    Coverage(Coverage),
    /// Measure: one thing, or everything with a report.
    Bench(Bench),
    /// eBPF programs of your own: check them, look at them.
    Prog {
        #[command(subcommand)]
        command: Prog,
    },
    /// Maps of eBPF programs: those pinned in a folder, or those of a daemon.
    Map {
        #[command(subcommand)]
        command: MapCommand,
        #[command(flatten)]
        output: Output,
    },
    /// Which programs are attached where in a daemon, and what they said of packets.
    Link {
        #[command(subcommand)]
        command: LinkCommand,
        #[command(flatten)]
        output: Output,
    },
    /// What eBPF programs find here.
    Feature {
        #[command(subcommand)]
        command: Feature,
        #[command(flatten)]
        output: Output,
    },
}

/// How results are printed, as bpftool's options have it.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// Print JSON.
    #[arg(short = 'j', long, global = true)]
    pub(crate) json: bool,
    /// Print JSON to be read by people.
    #[arg(short = 'p', long, global = true)]
    pub(crate) pretty: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Feature {
    /// List instruction sets, kinds of maps and helpers: what is there, what is not and why.
    Probe,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Flow {
    /// Show flows, a JSON object a line.
    List(SomeFlows),
    /// Show the two directions of one connection.
    Get(OneFlow),
    /// End flows, both directions; says how many connections.
    Delete(DeleteFlows),
    /// Write flows to a file of gzipped JSON lines.
    Dump(DumpFlows),
    /// Have flows decided again by the policy of today.
    Resimulate(Resimulate),
}

/// Which flows: all of it must hold of one direction.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Of this ENI.
    #[arg(long, value_name = "KEY")]
    pub(crate) eni: Option<String>,
    /// Condition, like `src_ip_addr equal_to 10.0.0.1`; may be repeated. Fields: eni_addr, ip_protocol,
    /// src_ip_addr, dst_ip_addr, src_l4_port, dst_l4_port, key_version; comparisons: equal_to,
    /// greater_than, greater_than_or_equal_to, less_than, less_than_or_equal_to.
    #[arg(long, num_args = 3, value_names = ["FIELD", "OP", "VALUE"])]
    pub(crate) filter: Vec<String>,
}

/// A daemon.
#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// Daemon.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct SomeFlows {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Most connections.
    #[arg(long, value_name = "N")]
    pub(crate) most: Option<u64>,
    #[command(flatten)]
    pub(crate) daemon: Daemon,
}

#[derive(Debug, Args)]
pub(crate) struct OneFlow {
    /// ENI.
    #[arg(long, value_name = "KEY")]
    pub(crate) eni: String,
    /// IP protocol.
    #[arg(long, value_name = "N")]
    pub(crate) proto: u8,
    /// Inner source.
    #[arg(long, value_name = "IP")]
    pub(crate) src: std::net::IpAddr,
    /// Inner destination.
    #[arg(long, value_name = "IP")]
    pub(crate) dst: std::net::IpAddr,
    /// Source port, or identifier of an ICMP echo.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) sport: u16,
    /// Destination port, or identifier of an ICMP echo.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) dport: u16,
    #[command(flatten)]
    pub(crate) daemon: Daemon,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteFlows {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Every flow, where nothing else says which.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) daemon: Daemon,
}

#[derive(Debug, Args)]
pub(crate) struct DumpFlows {
    #[command(flatten)]
    pub(crate) flows: SomeFlows,
    /// File to write.
    #[arg(short = 'o', long, value_name = "FILE.jsonl.gz")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Resimulate {
    /// ENI.
    pub(crate) eni: String,
    /// Only flows of this condition, as `flow list` takes it; may be repeated.
    #[arg(long, num_args = 3, value_names = ["FIELD", "OP", "VALUE"])]
    pub(crate) filter: Vec<String>,
    /// Most flows a second and worker from now on, 0 for any number [default: as the ENI's settings say].
    #[arg(long, value_name = "N")]
    pub(crate) per_second: Option<u32>,
    /// Actions that flows keep: encap_u0, encap_u1, set_dmac, nat46, nat64, snat_port, dnat_port.
    #[arg(long, value_name = "ACTION,...", value_delimiter = ',')]
    pub(crate) keep: Vec<String>,
    #[command(flatten)]
    pub(crate) daemon: Daemon,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EniCommand {
    /// Show settings of ENIs and what is in force, a JSON object a line.
    Show(ShowSettings),
    /// Change settings of an ENI; the others stay.
    Set(SetEni),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteGroupCommand {
    /// Show settings of route groups, a JSON object a line.
    Show(ShowSettings),
    /// Change settings of a route group.
    Set(SetRouteGroup),
}

#[derive(Debug, Args)]
pub(crate) struct ShowSettings {
    /// One of them; all without.
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) daemon: Daemon,
}

#[derive(Debug, Args)]
pub(crate) struct SetEni {
    /// ENI.
    pub(crate) key: String,
    /// Where the DSCP of encaps comes from: the received outer header, or --dscp.
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) dscp_mode: Option<DscpModeName>,
    /// DSCP of encaps in the pipe mode.
    #[arg(long, value_name = "DSCP")]
    pub(crate) dscp: Option<u32>,
    /// Whether redirects of load balancers change no flow.
    #[arg(long, value_name = "BOOL")]
    pub(crate) disable_fast_path: Option<bool>,
    /// Most flows that a worker decides again in a second, 0 for any number.
    #[arg(long, value_name = "N")]
    pub(crate) max_resimulated: Option<u64>,
    /// Longest IP packet that may leave.
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u32>,
    /// Whether replies go where packets come from, and follow when that changes.
    #[arg(long, value_name = "BOOL")]
    pub(crate) reverse_tunnel_learning: Option<bool>,
    /// Outer source of such replies; 0.0.0.0 for the VIP.
    #[arg(long, value_name = "IP")]
    pub(crate) reverse_tunnel_sip: Option<std::net::Ipv4Addr>,
    /// Most packets a second in each direction, 0 for any number.
    #[arg(long, value_name = "N")]
    pub(crate) pps: Option<u32>,
    /// Fields to unset, by the names that `eni show` has.
    #[arg(long, value_name = "FIELD,...", value_delimiter = ',')]
    pub(crate) unset: Vec<String>,
    /// Have all its flows decided again.
    #[arg(long)]
    pub(crate) resimulate: bool,
    #[command(flatten)]
    pub(crate) daemon: Daemon,
}

/// Modes of `SAI_ENI_ATTR_DASH_TUNNEL_DSCP_MODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DscpModeName {
    /// That of the received outer header.
    Preserve,
    /// The ENI's own.
    Pipe,
}

#[derive(Debug, Args)]
pub(crate) struct SetRouteGroup {
    /// Route group.
    pub(crate) key: String,
    /// Whether outbound packets without a flow are dropped.
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub(crate) disabled: bool,
    #[command(flatten)]
    pub(crate) daemon: Daemon,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Prog {
    /// Say whether programs are accepted: exit code 0 yes, 1 no, 2 cannot be loaded.
    Verify(Verify),
    /// List programs and maps.
    Show(Files),
    /// Show programs as assembly, with the source's lines where the object has them.
    Dump(Selected),
    /// Run a program on the packets of a capture.
    Run(ProgRun),
    /// Load an object into a daemon: its programs are verified, its maps made.
    Load(ProgLoad),
    /// Forget a daemon's object that has no links.
    Unload(ProgUnload),
    /// Run a program of a daemon's object on the packets of a port or an ENI.
    Attach(ProgAttach),
    /// Run a link's program no more.
    Detach(ProgDetach),
    /// List a daemon's objects, with their programs and maps.
    List(ProgList),
    /// Time the runs of a link.
    Profile(ProgProfile),
}

/// ELF objects.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// ELF object, as clang makes it; several are linked.
    #[arg(value_name = "FILE.o", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// BTF of whoever will run the programs (`/sys/kernel/btf/vmlinux`): CO-RE relocations are
    /// resolved by it. Without, types are laid out as when the files were compiled.
    #[arg(long, value_name = "FILE")]
    pub(crate) btf: Option<PathBuf>,
    /// What the programs of all sections are for, whatever the sections' names say.
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub(crate) kind: Option<Kind>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Kinds of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Packets as they are received.
    Xdp,
}

impl From<Kind> for ProgramKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Xdp => Self::Xdp,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) selected: Selected,
    /// Who decides: our own verifier, PREVAIL behind rules of ours, or both.
    #[arg(long, value_name = "own|prevail|both", default_value_t)]
    pub(crate) verifier: Judge,
    /// Print how our own verifier walks: each instruction after what is known before it.
    #[arg(long)]
    pub(crate) log: bool,
}

/// Some programs of ELF objects.
#[derive(Debug, Args)]
pub(crate) struct Selected {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Only programs of this section.
    #[arg(long, value_name = "S")]
    pub(crate) section: Option<String>,
    /// Only the program of this name.
    #[arg(long, value_name = "NAME")]
    pub(crate) program: Option<String>,
}

/// What every command that compiles takes.
#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// Configuration file; may be repeated, and each is one transaction.
    #[arg(long = "config", value_name = "FILE.json", required = true)]
    pub(crate) configs: Vec<PathBuf>,
    /// UDP port of VXLAN.
    #[arg(long, value_name = "PORT", default_value_t = Settings::default().vxlan_port, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) vxlan_port: u16,
    /// TTL of encaps.
    #[arg(long, value_name = "N", default_value_t = Settings::default().encap_ttl, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) encap_ttl: u8,
    /// Lowest UDP source port of encaps.
    #[arg(long, value_name = "PORT", default_value_t = Settings::default().sport_base)]
    pub(crate) sport_base: u16,
    /// Source ports from there up, as a power of two.
    #[arg(long, value_name = "BITS", default_value_t = Settings::default().sport_bits, value_parser = clap::value_parser!(u8).range(..=16))]
    pub(crate) sport_bits: u8,
    /// Drop what a private link's port map has no range for, rather than send it the plain way.
    #[arg(long)]
    pub(crate) drop_unmapped_ports: bool,
    /// Drop VXLAN from other source ports than these.
    #[arg(long)]
    pub(crate) vxlan_security: bool,
    /// Longest IP packet that may leave, its outermost header counted; longer ones are counted drops.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(68..))]
    pub(crate) mtu: Option<u16>,
    /// DSCP of every encap [default: that of the received outer header].
    #[arg(long, value_name = "DSCP", value_parser = clap::value_parser!(u8).range(..64))]
    pub(crate) dscp_pipe: Option<u8>,
    /// Underlay route; may be repeated. Without any, packets leave where they came in.
    #[arg(long = "route", value_name = "PREFIX=PORT[,NEXTHOP]")]
    pub(crate) routes: Vec<RouteArg>,
    /// Underlay neighbour; may be repeated.
    #[arg(long = "neighbor", value_name = "IP=MAC@PORT")]
    pub(crate) neighbors: Vec<Neighbor>,
    /// Let bound route and ACL groups change in place.
    #[arg(long)]
    pub(crate) update_bound_groups: bool,
    /// Refuse rows of tables that nothing acts on.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) life: LifeArgs,
    #[command(flatten)]
    pub(crate) proof: Proof,
}

/// How programs are proven safe before they run.
#[derive(Debug, Args)]
pub(crate) struct Proof {
    /// Who decides: our own verifier, PREVAIL behind rules of ours, or both.
    #[arg(long, value_name = "own|prevail|both", default_value_t)]
    pub(crate) verifier: Judge,
    #[command(flatten)]
    cache: CacheDir,
}

impl Proof {
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.cache.path()
    }
}

/// Where the verifier's verdicts are kept.
#[derive(Debug, Args)]
pub(crate) struct CacheDir {
    /// Folder for the verifier's verdicts, yours alone [default: dashwire in your cache folder].
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Verify everything anew.
    #[arg(long, conflicts_with = "cache_dir")]
    no_cache: bool,
}

impl CacheDir {
    pub(crate) fn path(&self) -> Option<PathBuf> {
        if self.no_cache {
            return None;
        }
        self.cache_dir.clone().or_else(default_cache_dir)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Capture to read: pcap or pcapng. Its times are the clock.
    #[arg(long = "in", value_name = "IN.pcap")]
    pub(crate) input: PathBuf,
    /// Capture to write: what is forwarded, in order.
    #[arg(long = "out", value_name = "OUT.pcap")]
    pub(crate) output: PathBuf,
    /// Who runs the packets.
    #[arg(long, value_enum, default_value_t = EngineName::Native)]
    pub(crate) engine: EngineName,
    /// Write counters as of the last packet's time.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) counters: Option<PathBuf>,
    /// Write live flows as of the last packet's time.
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) flows: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Trace {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Capture to read.
    #[arg(long = "in", value_name = "IN.pcap")]
    pub(crate) input: PathBuf,
    /// Show the bytes of every packet, before and after.
    #[arg(long, conflicts_with = "json")]
    pub(crate) bytes: bool,
    /// Print a JSON object a packet.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Forms of compiled code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Emit {
    /// The pipeline, as text that can be read back.
    Ir,
    /// eBPF disassembly.
    Ebpf,
    /// eBPF ELF object.
    Elf,
    /// Cranelift IR.
    Clif,
    /// Machine code of this processor, disassembled.
    Asm,
}

#[derive(Debug, Args)]
pub(crate) struct Compile {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Show the rows of this ENI too: what its packets are matched with.
    #[arg(long, value_name = "KEY")]
    pub(crate) eni: Option<String>,
    /// Form to show.
    #[arg(long, value_enum)]
    pub(crate) emit: Emit,
    /// Write to a file instead of standard output.
    #[arg(short = 'o', long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,
}

/// How to reach a daemon.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// CA certificates to trust (PEM); without, the connection is in the clear.
    #[arg(long, value_name = "FILE.pem")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Client certificate (PEM).
    #[arg(long, value_name = "FILE.pem", requires_all = ["tls_ca", "tls_key"])]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Key of the client certificate (PEM).
    #[arg(long, value_name = "FILE.pem", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Name the server's certificate has, when it is not the address.
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    pub(crate) tls_name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Configuration file (JSON) or gNMI SetRequest (binary).
    pub(crate) file: PathBuf,
    /// Daemon.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) to: String,
    /// DPU instance in the paths.
    #[arg(long, default_value = "dpu0")]
    pub(crate) instance: String,
    /// Most updates in one request. A request is applied whole; more requests are more
    /// generations, parents first. 0 sends everything in one.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) chunk: usize,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Encodings of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    /// JSON_IETF.
    Json,
    /// The rows' own bytes, shown in hex.
    Proto,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Path, like `/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=Vnet1]`.
    pub(crate) path: String,
    /// Daemon.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) from: String,
    /// Encoding to ask for.
    #[arg(long, value_enum, default_value_t = Encoding::Json)]
    pub(crate) encoding: Encoding,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Inject {
    /// Capture to send: pcap or pcapng. Its times are the clock.
    #[arg(long = "in", value_name = "IN.pcap")]
    pub(crate) input: PathBuf,
    /// Capture to write: what the NIC sends, in order.
    #[arg(long = "out", value_name = "OUT.pcap")]
    pub(crate) output: PathBuf,
    /// Port the packets arrive at.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port: u32,
    /// Daemon.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Counters {
    /// Daemon.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) from: String,
    /// Only those that are not 0, a line each.
    #[arg(long)]
    pub(crate) moved: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Flows {
    /// Daemon.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// What there is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shown {
    /// Bytes of each table, of each route, mapping, ACL group, rule and flow.
    Memory,
    /// Resources used and available, under SONiC's names.
    Crm,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// What to show.
    #[arg(value_enum)]
    pub(crate) what: Shown,
    /// Daemon.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) from: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Scenario {
    /// Scenario files, or folders that hold them.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Engine to run on; may be repeated [default: all].
    #[arg(long, value_enum)]
    pub(crate) engine: Vec<EngineName>,
    #[command(flatten)]
    pub(crate) proof: Proof,
}

#[derive(Debug, Args)]
pub(crate) struct Coverage {
    /// Scenario files, or folders that hold them.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// List what cannot be reached, too, with the reason.
    #[arg(long)]
    pub(crate) impossible: bool,
    #[command(flatten)]
    pub(crate) proof: Proof,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure [default: everything].
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(dash_lab::measure::ALL.iter().map(|kind| kind.name)))]
    pub(crate) what: Vec<String>,
    /// Tiny scale: everything is run, in less than a minute; figures mean little.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Samples of each figure [default: 9; 3 when quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) samples: Option<u16>,
    /// Time of what is bounded by time, such as a soak.
    #[arg(long, value_name = "S")]
    pub(crate) seconds: Option<f64>,
    /// Worker threads; `scaling` compares so many with one [default there: up to all cores].
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) workers: u16,
    /// Flows that are in use while connections are made.
    #[arg(long, value_name = "N")]
    pub(crate) background: Option<u32>,
    /// Of everything random.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Measure these as well, by turns with ours: `c` (a pipeline written by hand), `testpmd`, `l3fwd`,
    /// `ovs` (OVS-DPDK pushing VXLAN) [default: all that are installed when everything is measured]
    #[arg(long, value_name = "PEER,...", value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(dash_lab::against::PEERS))]
    pub(crate) against: Vec<String>,
    /// Count what others send through the ports of this target for --seconds [default: 10]:
    /// `dpdk:EAL ARGUMENTS`, `xdp:IF[,IF...]`, `afpacket:IF[,IF...]`, `pcap:in=FILE,out=FILE`. Nobody
    /// answers ARP: the generator needs a fixed neighbour
    #[arg(long, value_name = "SPEC")]
    pub(crate) target: Option<dash_lab::external::TargetSpec>,
    /// Measure the packets of a capture, looped, instead of made ones
    #[arg(long, value_name = "FILE.pcap")]
    pub(crate) pcap: Option<PathBuf>,
    /// Configuration for --target and --pcap; may be repeated [default: that of the baby hero test]
    #[arg(long = "config", value_name = "FILE.json")]
    pub(crate) configs: Vec<PathBuf>,
    /// Write the report here [default: nowhere, unless everything is measured: bench].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cache: CacheDir,
}
