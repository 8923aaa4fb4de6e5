//! Arguments of `prog`, `map` and `link`: programs of users that run.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args, Subcommand};
use dash_verify::Judge;
use dashctl::underlay::{Neighbor, RouteArg};

use super::{Connection, Output};

#[derive(Debug, Args)]
pub(crate) struct ProgRun {
    /// ELF object, as clang makes it; several are linked.
    #[arg(value_name = "FILE.o", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Run the first program of this section, or the one of this name [default: the first one].
    #[arg(long, value_name = "S")]
    pub(crate) section: Option<String>,
    /// Capture to read: pcap or pcapng. Its times are the clock.
    #[arg(long = "in", value_name = "IN.pcap")]
    pub(crate) input: PathBuf,
    /// Capture to write: frames passed, sent back or redirected, in order.
    #[arg(long = "out", value_name = "OUT.pcap")]
    pub(crate) output: PathBuf,
    /// Who runs it: native or interp.
    #[arg(long, value_name = "ENGINE", default_value_t = dash_prog::Engine::Native)]
    pub(crate) engine: dash_prog::Engine,
    /// Who decides whether it is safe: our own verifier, PREVAIL behind rules of ours, or both.
    #[arg(long, value_name = "own|prevail|both", default_value = "own")]
    pub(crate) verifier: Judge,
    /// End a run, and say so, that takes more instructions than this; without, they are not counted.
    #[arg(long, value_name = "N")]
    pub(crate) fuel: Option<u64>,
    /// Port the packets come in by.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) ifindex: u32,
    /// Set an element of a map before the first packet, as `map update` takes it: 'NAME key 0 0 0 0
    /// value 7 0 0 0'; may be repeated.
    #[arg(long = "set", value_name = "WORDS")]
    pub(crate) set: Vec<String>,
    /// Write what is in the maps after the last packet.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) maps: Option<PathBuf>,
    /// Write what comes out of ring buffers and arrays of perf events, a JSON object a record.
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) events: Option<PathBuf>,
    /// Folder of pinned maps: those that the object pins by name are found there, and left there.
    #[arg(long, value_name = "DIR")]
    pub(crate) pins: Option<PathBuf>,
    /// Route for bpf_fib_lookup; may be repeated.
    #[arg(long = "route", value_name = "PREFIX=PORT[,NEXTHOP]")]
    pub(crate) routes: Vec<RouteArg>,
    /// Neighbour for bpf_fib_lookup; may be repeated.
    #[arg(long = "neighbor", value_name = "IP=MAC@PORT")]
    pub(crate) neighbors: Vec<Neighbor>,
    #[command(flatten)]
    pub(crate) print: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ProgLoad {
    /// ELF object, as clang makes it; several are linked.
    #[arg(value_name = "FILE.o", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// What it is called from now on [default: the first file's name without its ending].
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Who decides whether it is safe: our own verifier, PREVAIL behind rules of ours, or both.
    #[arg(long, value_name = "own|prevail|both", default_value = "own")]
    pub(crate) verifier: Judge,
    /// Who runs it: native or interp [default: who runs the daemon's own code].
    #[arg(long, value_name = "ENGINE")]
    pub(crate) engine: Option<dash_prog::Engine>,
    /// Map of numbers to show on /metrics; may be repeated.
    #[arg(long, value_name = "MAP")]
    pub(crate) metrics: Vec<String>,
    #[command(flatten)]
    pub(crate) daemon: Runs,
    #[command(flatten)]
    pub(crate) print: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ProgUnload {
    /// Name of the object.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) daemon: Runs,
    #[command(flatten)]
    pub(crate) print: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ProgList {
    #[command(flatten)]
    pub(crate) daemon: Runs,
    #[command(flatten)]
    pub(crate) print: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ProgDetach {
    #[command(flatten)]
    pub(crate) link: LinkNumber,
    #[command(flatten)]
    pub(crate) print: Output,
}

/// Where a program is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AtArg {
    Ingress(u32),
    Egress(u32),
    EniOutbound(String),
    EniInbound(String),
}

impl FromStr for AtArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str = "ingress:PORT, egress:PORT, eni-outbound:KEY or eni-inbound:KEY";
        let (point, of) = text.split_once(':').ok_or(FORMS)?;
        let port = || {
            of.parse()
                .map_err(|_| format!("{of:?} is not a port: {FORMS}"))
        };
        match point {
            "ingress" => port().map(Self::Ingress),
            "egress" => port().map(Self::Egress),
            "eni-outbound" if !of.is_empty() => Ok(Self::EniOutbound(of.to_owned())),
            "eni-inbound" if !of.is_empty() => Ok(Self::EniInbound(of.to_owned())),
            _ => Err(FORMS.to_owned()),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ProgAttach {
    /// OBJECT/PROGRAM, or OBJECT where it has one program.
    pub(crate) program: String,
    /// Where: ingress:PORT, egress:PORT, eni-outbound:KEY or eni-inbound:KEY.
    #[arg(long, value_name = "POINT", required_unless_present = "replace")]
    pub(crate) at: Option<AtArg>,
    /// Programs of a point run by it, lower ones first.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) sequence: u32,
    /// Take the place of this link's program, between two bursts of packets.
    #[arg(long, value_name = "LINK", conflicts_with_all = ["at", "sequence"], value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) replace: Option<u32>,
    #[command(flatten)]
    pub(crate) daemon: Runs,
    #[command(flatten)]
    pub(crate) print: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ProgProfile {
    #[command(flatten)]
    pub(crate) link: LinkNumber,
    /// How long to time its runs.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) milliseconds: u32,
    #[command(flatten)]
    pub(crate) print: Output,
}

/// Where maps are: one of both.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("place").required(true).args(["dir", "daemon"])))]
pub(crate) struct MapPlace {
    /// Folder with a file for each pinned map.
    #[arg(long = "pins", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Daemon, whose maps are named OBJECT/MAP, or by the name they are pinned under.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) daemon: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// A daemon that runs programs.
#[derive(Debug, Args)]
pub(crate) struct Runs {
    /// Daemon.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) daemon: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MapCommand {
    /// List maps.
    Show(MapPlace),
    /// Make a map and pin it.
    Create(MapCreate),
    /// Print all elements.
    Dump(MapName),
    /// Print one element: key [hex] BYTES.
    Lookup(MapWords),
    /// Set an element: key [hex] BYTES value [hex] BYTES [any|exist|noexist]. In a daemon also value map NAME
    /// (maps of maps) and value program NAME (program arrays).
    Update(MapWords),
    /// Remove an element: key [hex] BYTES.
    Delete(MapWords),
    /// Take the next value out of a daemon's queue or stack.
    Pop(DaemonMap),
    /// Pin a map: of a file that `prog run --maps` wrote, or of a daemon's object.
    Pin(MapPin),
    /// Take the name of a daemon's pinned map away: it goes with the last object that has it.
    Unpin(DaemonMap),
    /// Print records of a daemon's ring buffer or array of perf events as they come, a line of hex each.
    Events(MapEvents),
}

#[derive(Debug, Args)]
pub(crate) struct MapName {
    /// Its name.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: MapPlace,
}

#[derive(Debug, Args)]
pub(crate) struct DaemonMap {
    /// OBJECT/MAP, or the name it is pinned under.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) daemon: Runs,
}

#[derive(Debug, Args)]
pub(crate) struct MapEvents {
    #[command(flatten)]
    pub(crate) map: DaemonMap,
    /// End after so many.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct MapWords {
    #[command(flatten)]
    pub(crate) place: MapPlace,
    /// Its name.
    pub(crate) name: String,
    /// Element, as bpftool's words: bytes in decimal or 0x..., after `hex` in hex; or u16:N, u32:N, u64:N in this
    /// machine's order, be16:N, be32:N, ip:ADDRESS, mac:MAC.
    #[arg(value_name = "WORDS", required = true)]
    pub(crate) words: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MapCreate {
    #[command(flatten)]
    pub(crate) place: MapPlace,
    /// Name to pin it under.
    pub(crate) name: String,
    /// Kind, as bpftool names it: hash, array, lpm_trie, ...
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: String,
    /// Bytes of a key.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) key: u32,
    /// Bytes of a value.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) value: u32,
    /// Elements at most.
    #[arg(long, value_name = "N")]
    pub(crate) entries: u32,
    /// Creation flags (`BPF_F_*`), a number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) flags: u32,
}

#[derive(Debug, Args)]
pub(crate) struct MapPin {
    #[command(flatten)]
    pub(crate) place: MapPlace,
    /// File that `prog run --maps` wrote, or the daemon's OBJECT/MAP.
    #[arg(value_name = "FILE|OBJECT/MAP")]
    pub(crate) from: PathBuf,
    /// Name to pin it under; in a file also its name there.
    pub(crate) name: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LinkCommand {
    /// List links.
    Show(Runs),
    /// Run a link's program no more.
    Detach(LinkNumber),
}

#[derive(Debug, Args)]
pub(crate) struct LinkNumber {
    /// Number of the link.
    pub(crate) link: u32,
    #[command(flatten)]
    pub(crate) daemon: Runs,
}
