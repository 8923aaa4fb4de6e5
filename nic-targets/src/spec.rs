//! The strings that name targets: `KIND:PARAMETERS`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use nic_linux::XdpOptions;
use thiserror::Error;

mod dpdk;
mod xdp;

pub use dpdk::DpdkSpec;

/// Kinds that can be opened, as error messages list them.
const BUILT: &str = "sim:, pcap:in=FILE,out=FILE, afpacket:IF[,IF...], xdp:IF[,IF...], kernel:IF[,IF...] and \
    dpdk:EAL ARGUMENTS";

/// Kinds that are planned: named, so that asking for one is answered with the truth.
const PLANNED: [&str; 2] = ["agent", "image"];

/// Most ports of a simulated NIC.
const MAX_SIM_PORTS: u16 = 64;

/// Longest interface name, bytes (`IFNAMSIZ` - 1).
const MAX_IFNAME: usize = 15;

/// A target, as named on a command line. Parses from and prints as the same text.
///
/// ```
/// use nic_targets::TargetSpec;
/// let spec: TargetSpec = "pcap:in=a.pcap,out=b.pcap".parse()?;
/// assert_eq!(spec.to_string(), "pcap:in=a.pcap,out=b.pcap");
/// # Ok::<(), nic_targets::SpecError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetSpec {
    /// `sim:` or `sim:ports=N`: ports in memory.
    Sim {
        /// How many.
        ports: u16,
    },
    /// `pcap:in=FILE,out=FILE`: one port over capture files; one of the two may be left out.
    Pcap {
        /// Frames come from here.
        input: Option<PathBuf>,
        /// Frames go here.
        output: Option<PathBuf>,
    },
    /// `afpacket:IF0,IF1`: a port over each Linux interface, in this order.
    AfPacket {
        /// At least one; no two alike.
        interfaces: Vec<String>,
    },
    /// `dpdk:EAL ARGUMENTS [-- ports=P,... mtu=N mbufs=N]`: DPDK devices.
    Dpdk(DpdkSpec),
    /// `xdp:IF0,IF1` with `mode=auto|copy|zerocopy`, `attach=auto|native|skb`, `busy-poll=USEC` and
    /// `frames=N`: a port over the AF_XDP sockets of each Linux interface, in this order.
    Xdp {
        /// At least one; no two alike.
        interfaces: Vec<String>,
        /// How they are opened.
        options: XdpOptions,
    },
    /// `kernel:IF0,IF1` with the parameters of `xdp:`: the kernel's eBPF on each interface, which
    /// does the packets of known flows, and its AF_XDP sockets for the others.
    Kernel {
        /// At least one; no two alike.
        interfaces: Vec<String>,
        /// How the sockets are opened, and the programs attached.
        options: XdpOptions,
    },
}

/// Why a string names no target.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum SpecError {
    #[error("{spec:?} has no kind: targets are {BUILT}")]
    NoKind { spec: String },
    #[error("there is no target kind {kind:?}: targets are {BUILT}")]
    UnknownKind { kind: String },
    #[error("target kind {kind:?} is not built yet: targets are {BUILT}")]
    NotBuilt { kind: &'static str },
    #[error("{kind}: has no parameter {parameter:?}: it takes {takes}")]
    UnknownParameter {
        kind: &'static str,
        parameter: String,
        takes: &'static str,
    },
    #[error("{kind}: parameter {parameter} is given twice")]
    Twice {
        kind: &'static str,
        parameter: String,
    },
    #[error("{kind}: parameter {parameter} is empty")]
    Empty {
        kind: &'static str,
        parameter: &'static str,
    },
    #[error("sim: ports={got} is not a number from 1 to {MAX_SIM_PORTS}")]
    SimPorts { got: String },
    #[error("pcap: names neither in=FILE nor out=FILE")]
    NoFile,
    #[error(
        "pcap: in and out are the same file, {path}: reading and emptying it at once would lose it"
    )]
    SameFile { path: PathBuf },
    #[error("{kind}: names no interface: write {kind}:IF[,IF...]")]
    NoInterface { kind: &'static str },
    #[error(
        "{kind}: {name:?} cannot be an interface: names have 1 to {MAX_IFNAME} bytes, without '/', ':' or blanks"
    )]
    InterfaceName { kind: &'static str, name: String },
    #[error("{kind}: {parameter}={got} is not {wanted}")]
    Value {
        kind: &'static str,
        parameter: &'static str,
        got: String,
        wanted: String,
    },
    #[error("dpdk: {quote} is not closed: arguments are split as a shell does")]
    DpdkQuote { quote: char },
    #[error("dpdk: {name}={value} is not a number from {least} to {most}")]
    DpdkNumber {
        name: String,
        value: String,
        least: u32,
        most: u32,
    },
}

impl FromStr for TargetSpec {
    type Err = SpecError;

    fn from_str(spec: &str) -> Result<Self, SpecError> {
        let (kind, rest) = spec.split_once(':').ok_or_else(|| SpecError::NoKind {
            spec: spec.to_owned(),
        })?;
        match kind {
            "sim" => sim(rest),
            "pcap" => pcap(rest),
            "afpacket" => {
                let interfaces = interfaces("afpacket", rest.split(','))?;
                Ok(Self::AfPacket { interfaces })
            }
            "xdp" => {
                let (interfaces, options) = xdp::parse("xdp", rest)?;
                Ok(Self::Xdp {
                    interfaces,
                    options,
                })
            }
            "kernel" => {
                let (interfaces, options) = xdp::parse("kernel", rest)?;
                Ok(Self::Kernel {
                    interfaces,
                    options,
                })
            }
            "dpdk" => rest.parse().map(Self::Dpdk),
            _ => Err(match PLANNED.into_iter().find(|p| *p == kind) {
                Some(kind) => SpecError::NotBuilt { kind },
                None => SpecError::UnknownKind {
                    kind: kind.to_owned(),
                },
            }),
        }
    }
}

/// Stores a parameter that may be given once.
fn once<T>(
    slot: &mut Option<T>,
    value: T,
    kind: &'static str,
    name: &str,
) -> Result<(), SpecError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(SpecError::Twice {
            kind,
            parameter: name.to_owned(),
        }),
    }
}

fn parameters(rest: &str) -> impl Iterator<Item = (&str, &str)> {
    rest.split(',')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
}

fn sim(rest: &str) -> Result<TargetSpec, SpecError> {
    let mut ports = None;
    for (name, value) in parameters(rest) {
        let "ports" = name else {
            return Err(SpecError::UnknownParameter {
                kind: "sim",
                parameter: name.to_owned(),
                takes: "ports=N",
            });
        };
        let number = value
            .parse()
            .ok()
            .filter(|n| (1..=MAX_SIM_PORTS).contains(n));
        once(
            &mut ports,
            number.ok_or_else(|| SpecError::SimPorts {
                got: value.to_owned(),
            })?,
            "sim",
            name,
        )?;
    }
    Ok(TargetSpec::Sim {
        ports: ports.unwrap_or(1),
    })
}

fn pcap(rest: &str) -> Result<TargetSpec, SpecError> {
    let (mut input, mut output) = (None, None);
    for (name, value) in parameters(rest) {
        let (slot, parameter) = match name {
            "in" => (&mut input, "in"),
            "out" => (&mut output, "out"),
            _ => {
                let takes = "in=FILE and out=FILE";
                return Err(SpecError::UnknownParameter {
                    kind: "pcap",
                    parameter: name.to_owned(),
                    takes,
                });
            }
        };
        if value.is_empty() {
            return Err(SpecError::Empty {
                kind: "pcap",
                parameter,
            });
        }
        once(slot, PathBuf::from(value), "pcap", name)?;
    }
    match (&input, &output) {
        (None, None) => Err(SpecError::NoFile),
        (Some(path), Some(out)) if path == out => Err(SpecError::SameFile { path: path.clone() }),
        _ => Ok(TargetSpec::Pcap { input, output }),
    }
}

/// Interface names, each legal and given once; at least one.
fn interfaces<'a>(
    kind: &'static str,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>, SpecError> {
    let mut interfaces: Vec<String> = Vec::new();
    let mut names = names.peekable();
    // Of nothing at all, `split` makes one empty name.
    let first = names.next();
    if names.peek().is_none() && first.is_none_or(str::is_empty) {
        return Err(SpecError::NoInterface { kind });
    }
    for name in first.into_iter().chain(names) {
        let legal = (1..=MAX_IFNAME).contains(&name.len())
            && !name.contains(|c: char| matches!(c, '/' | ':' | '\0') || c.is_whitespace())
            && name != "."
            && name != "..";
        if !legal {
            return Err(SpecError::InterfaceName {
                kind,
                name: name.to_owned(),
            });
        }
        if interfaces.iter().any(|i| i == name) {
            return Err(SpecError::Twice {
                kind,
                parameter: name.to_owned(),
            });
        }
        interfaces.push(name.to_owned());
    }
    Ok(interfaces)
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sim { ports: 1 } => f.write_str("sim:"),
            Self::Sim { ports } => write!(f, "sim:ports={ports}"),
            Self::Pcap { input, output } => {
                f.write_str("pcap:")?;
                let files = [("in", input), ("out", output)];
                let named = files
                    .into_iter()
                    .filter_map(|(name, path)| Some((name, path.as_ref()?)));
                for (i, (name, path)) in named.enumerate() {
                    write!(
                        f,
                        "{}{name}={}",
                        if i > 0 { "," } else { "" },
                        path.display()
                    )?;
                }
                Ok(())
            }
            Self::AfPacket { interfaces } => write!(f, "afpacket:{}", interfaces.join(",")),
            Self::Dpdk(spec) => spec.fmt(f),
            Self::Xdp {
                interfaces,
                options,
            } => xdp::print(f, "xdp", interfaces, options),
            Self::Kernel {
                interfaces,
                options,
            } => xdp::print(f, "kernel", interfaces, options),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(spec: &str) -> Result<TargetSpec, SpecError> {
        spec.parse()
    }

    #[test]
    fn every_kind_parses_and_prints_back() {
        for (text, want) in [
            ("sim:", TargetSpec::Sim { ports: 1 }),
            ("sim:ports=4", TargetSpec::Sim { ports: 4 }),
            (
                "pcap:in=a,out=b",
                TargetSpec::Pcap {
                    input: Some("a".into()),
                    output: Some("b".into()),
                },
            ),
            (
                "pcap:in=/tmp/x=y.pcap",
                TargetSpec::Pcap {
                    input: Some("/tmp/x=y.pcap".into()),
                    output: None,
                },
            ),
            (
                "pcap:out=b",
                TargetSpec::Pcap {
                    input: None,
                    output: Some("b".into()),
                },
            ),
            (
                "afpacket:eth0,veth-1",
                TargetSpec::AfPacket {
                    interfaces: vec!["eth0".into(), "veth-1".into()],
                },
            ),
            (
                "dpdk:-a 01:00.0 -- mtu=1500",
                TargetSpec::Dpdk(DpdkSpec {
                    eal: vec!["-a".into(), "01:00.0".into()],
                    mtu: Some(1500),
                    ..DpdkSpec::default()
                }),
            ),
        ] {
            assert_eq!(parse(text), Ok(want.clone()));
            assert_eq!(want.to_string(), text);
        }
    }

    #[test]
    fn every_refusal_says_what_is_wrong() {
        for (text, part) in [
            ("", "has no kind: targets are sim:"),
            ("eth0", "\"eth0\" has no kind"),
            (
                "udp:x",
                "no target kind \"udp\": targets are sim:, pcap:in=FILE,out=FILE, afpacket:",
            ),
            ("dpdk:--vdev 'x", "dpdk: ' is not closed"),
            ("agent:host:1", "\"agent\" is not built yet"),
            (
                "sim:queues=2",
                "sim: has no parameter \"queues\": it takes ports=N",
            ),
            ("sim:ports=0", "ports=0 is not a number from 1 to 64"),
            ("sim:ports=65", "ports=65 is not"),
            ("sim:ports", "ports= is not"),
            ("sim:ports=1,ports=2", "ports is given twice"),
            ("pcap:", "neither in=FILE nor out=FILE"),
            ("pcap:in=", "in is empty"),
            ("pcap:in=a,in=b", "in is given twice"),
            ("pcap:file=a", "no parameter \"file\""),
            ("pcap:in=a,out=a", "same file, a"),
            ("afpacket:", "names no interface"),
            ("afpacket:eth0,,eth1", "\"\" cannot be an interface"),
            ("afpacket:eth0,eth0", "eth0 is given twice"),
            ("afpacket:a-name-that-is-long", "1 to 15 bytes"),
            ("afpacket:../x", "cannot be an interface"),
        ] {
            let message = parse(text).expect_err(text).to_string();
            assert!(message.contains(part), "{text:?}: {message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_and_what_parses_prints_back(
            text in prop_oneof![any::<String>(), "(sim|pcap|afpacket|xdp|kernel|dpdk):[a-z0-9=,./: '\"-]{0,30}"],
        ) {
            if let Ok(spec) = parse(&text) {
                prop_assert_eq!(parse(&spec.to_string()), Ok(spec));
            }
        }
    }
}
