//! `dpdk:EAL ARGUMENTS [-- ports=P,... mtu=N mbufs=N]`: like the command line of any DPDK program, with
//! quotes and backslashes as in a shell.

use std::fmt;
use std::str::FromStr;

use super::{SpecError, once};

const KIND: &str = "dpdk";

/// A target over DPDK devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DpdkSpec {
    /// Arguments of EAL: `--vdev`, `-a`, `--no-huge`, ...
    pub eal: Vec<String>,
    /// Devices by port number or name, in this order; empty: all that EAL probes.
    pub ports: Vec<String>,
    /// MTU of every device; default: as much as it can, up to jumbo frames of 9,216 bytes.
    pub mtu: Option<u16>,
    /// Packet buffers on each NUMA node; default: what queues need.
    pub mbufs: Option<u32>,
}

impl FromStr for DpdkSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut eal = words(text)?;
        let own = match eal.iter().position(|word| word == "--") {
            Some(at) => eal.split_off(at),
            None => Vec::new(),
        };
        let (mut ports, mut mtu, mut mbufs) = (None, None, None);
        for word in own.iter().skip(1) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "ports" => {
                    let list: Vec<String> = value.split(',').map(str::to_owned).collect();
                    if list.iter().any(String::is_empty) {
                        return Err(SpecError::Empty {
                            kind: KIND,
                            parameter: "ports",
                        });
                    }
                    if let Some(twice) = (1..list.len()).find(|n| list[..*n].contains(&list[*n])) {
                        return Err(SpecError::Twice {
                            kind: KIND,
                            parameter: list[twice].clone(),
                        });
                    }
                    once(&mut ports, list, KIND, name)?;
                }
                "mtu" => once(&mut mtu, number(name, value, 68..=65_535)?, KIND, name)?,
                "mbufs" => once(&mut mbufs, number(name, value, 64..=1 << 28)?, KIND, name)?,
                _ => {
                    return Err(SpecError::UnknownParameter {
                        kind: KIND,
                        parameter: word.clone(),
                        takes: "ports=P,..., mtu=N and mbufs=N behind --",
                    });
                }
            }
        }
        Ok(Self {
            eal,
            ports: ports.unwrap_or_default(),
            // In range: not more than 16 bits.
            mtu: mtu.map(|mtu| mtu as u16),
            mbufs,
        })
    }
}

fn number(name: &str, value: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, SpecError> {
    let number = value.parse().ok().filter(|n| range.contains(n));
    number.ok_or_else(|| SpecError::DpdkNumber {
        name: name.to_owned(),
        value: value.to_owned(),
        least: *range.start(),
        most: *range.end(),
    })
}

/// Words as a shell without expansions sees them.
fn words(text: &str) -> Result<Vec<String>, SpecError> {
    let open = |quote| SpecError::DpdkQuote { quote };
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\\' => word
                .get_or_insert_default()
                .push(rest.next().ok_or_else(|| open('\\'))?),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or_else(|| open('\''))? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or_else(|| open('"'))? {
                        '"' => break,
                        '\\' => match rest.next().ok_or_else(|| open('"'))? {
                            c @ ('"' | '\\') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(word: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '\'' | '"' | '\\');
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

impl fmt::Display for DpdkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = self.eal.iter().map(|word| quoted(word)).collect();
        let ports = (!self.ports.is_empty()).then(|| format!("ports={}", self.ports.join(",")));
        let own = ports
            .into_iter()
            .chain(self.mtu.map(|mtu| format!("mtu={mtu}")))
            .chain(self.mbufs.map(|mbufs| format!("mbufs={mbufs}")));
        let own: Vec<String> = own.map(|word| quoted(&word)).collect();
        if !own.is_empty() {
            words.push("--".to_owned());
            words.extend(own);
        }
        write!(f, "dpdk:{}", words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<DpdkSpec, SpecError> {
        text.parse()
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn arguments_are_split_as_a_shell_does() {
        let spec = parse(r#"  --vdev "net_pcap0,rx_pcap=a b.pcap" -m 64 '--x=\"' y\ z "q\"\n" "#);
        assert_eq!(
            spec.unwrap().eal,
            strings(&[
                "--vdev",
                "net_pcap0,rx_pcap=a b.pcap",
                "-m",
                "64",
                r#"--x=\""#,
                "y z",
                r#"q"\n"#
            ])
        );
        assert_eq!(parse("").unwrap(), DpdkSpec::default());
        assert_eq!(parse("a '' b").unwrap().eal, strings(&["a", "", "b"]));
    }

    #[test]
    fn own_parameters_stand_behind_two_dashes() {
        let spec = parse("--no-pci -- ports=1,net_tap0 mtu=1500 mbufs=8192").unwrap();
        let want = DpdkSpec {
            eal: strings(&["--no-pci"]),
            ports: strings(&["1", "net_tap0"]),
            mtu: Some(1500),
            mbufs: Some(8192),
        };
        assert_eq!(spec, want);
        assert_eq!(
            spec.to_string(),
            "dpdk:--no-pci -- ports=1,net_tap0 mtu=1500 mbufs=8192"
        );
    }

    #[test]
    fn every_refusal_says_what_is_wrong() {
        for (text, part) in [
            ("--vdev 'net_null0", "' is not closed"),
            ("--vdev \"net_null0", "\" is not closed"),
            ("x\\", "\\ is not closed"),
            ("-- ports=", "parameter ports is empty"),
            ("-- ports=0,,1", "parameter ports is empty"),
            ("-- ports=0,1,0", "parameter 0 is given twice"),
            ("-- mtu=1 mtu=2", "mtu=1 is not a number from 68 to 65535"),
            ("-- mtu=1500 mtu=1500", "parameter mtu is given twice"),
            ("-- mbufs=x", "mbufs=x is not a number from 64 to"),
            ("-- queues=2", "it takes ports=P,..., mtu=N and mbufs=N"),
        ] {
            let message = parse(text).expect_err(text).to_string();
            assert!(message.contains(part), "{text:?}: {message}");
        }
    }

    proptest! {
        #[test]
        fn any_arguments_print_and_parse_back(
            eal in prop::collection::vec(r#"[ a-z'"\\=,-]{0,8}"#.prop_filter("", |w| w != "--"), 0..5),
            ports in prop::collection::btree_set("[0-9a-z:. '\"]{1,5}", 0..3),
            mtu in prop::option::of(68..=u16::MAX),
            mbufs in prop::option::of(64u32..100_000),
        ) {
            let spec = DpdkSpec { eal, ports: ports.into_iter().collect(), mtu, mbufs };
            let text = spec.to_string();
            prop_assert_eq!(parse(text.strip_prefix("dpdk:").unwrap()), Ok(spec), "{}", text);
        }
    }
}
