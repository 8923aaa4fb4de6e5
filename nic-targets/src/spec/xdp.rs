//! `xdp:IF[,IF...][,PARAMETER=VALUE...]`, and `kernel:` with the same after it: both open AF_XDP
//! sockets.

use std::fmt;

use nic_linux::sys::xsk::CopyMode;
use nic_linux::{AttachMode, XdpOptions};

use super::{SpecError, interfaces, once, parameters};

const TAKES: &str =
    "mode=auto|copy|zerocopy, attach=auto|native|skb, busy-poll=USEC, frames=N and interfaces";

const MODES: [(&str, CopyMode); 3] = [
    ("auto", CopyMode::Auto),
    ("copy", CopyMode::Copy),
    ("zerocopy", CopyMode::ZeroCopy),
];

const ATTACH: [(&str, AttachMode); 3] = [
    ("auto", AttachMode::Auto),
    ("native", AttachMode::Native),
    ("skb", AttachMode::Skb),
];

/// Longest time to poll, µs: more would be a stuck worker.
const MAX_BUSY_POLL: u32 = 10_000;

fn bad(kind: &'static str, parameter: &'static str, got: &str, wanted: String) -> SpecError {
    SpecError::Value {
        kind,
        parameter,
        got: got.to_owned(),
        wanted,
    }
}

/// The value that a word stands for.
fn word<T: Copy>(
    kind: &'static str,
    words: &[(&str, T)],
    parameter: &'static str,
    value: &str,
) -> Result<T, SpecError> {
    let found = words.iter().find(|(word, _)| *word == value);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words = words.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        bad(kind, parameter, value, words.join(" or "))
    })
}

/// Interfaces and options of a target of `kind`.
pub(super) fn parse(
    kind: &'static str,
    rest: &str,
) -> Result<(Vec<String>, XdpOptions), SpecError> {
    let names = rest.split(',').filter(|part| !part.contains('='));
    let interfaces = interfaces(kind, names)?;
    let (mut mode, mut attach, mut busy_poll, mut frames) = (None, None, None, None);
    for (name, value) in parameters(rest).filter(|(name, _)| !interfaces.iter().any(|i| i == name))
    {
        match name {
            "mode" => once(&mut mode, word(kind, &MODES, "mode", value)?, kind, name)?,
            "attach" => {
                once(
                    &mut attach,
                    word(kind, &ATTACH, "attach", value)?,
                    kind,
                    name,
                )?;
            }
            "busy-poll" => {
                let us = value.parse().ok();
                let us = us.filter(|us| (1..=MAX_BUSY_POLL).contains(us));
                let wanted = || format!("a number of µs from 1 to {MAX_BUSY_POLL}");
                let us = us.ok_or_else(|| bad(kind, "busy-poll", value, wanted()))?;
                once(&mut busy_poll, us, kind, name)?;
            }
            "frames" => {
                let (least, most) = (XdpOptions::MIN_FRAMES, XdpOptions::MAX_FRAMES);
                let n = value.parse::<u32>().ok();
                let n = n.filter(|n| n.is_power_of_two() && (least..=most).contains(n));
                let wanted = || format!("a power of two from {least} to {most}");
                let n = n.ok_or_else(|| bad(kind, "frames", value, wanted()))?;
                once(&mut frames, n, kind, name)?;
            }
            _ => {
                return Err(SpecError::UnknownParameter {
                    kind,
                    parameter: name.to_owned(),
                    takes: TAKES,
                });
            }
        }
    }
    let default = XdpOptions::default();
    let options = XdpOptions {
        mode: mode.unwrap_or(default.mode),
        attach: attach.unwrap_or(default.attach),
        busy_poll: busy_poll.or(default.busy_poll),
        frames: frames.unwrap_or(default.frames),
    };
    Ok((interfaces, options))
}

pub(super) fn print(
    f: &mut fmt::Formatter<'_>,
    kind: &str,
    interfaces: &[String],
    options: &XdpOptions,
) -> fmt::Result {
    write!(f, "{kind}:{}", interfaces.join(","))?;
    let default = XdpOptions::default();
    if options.mode != default.mode {
        let word = MODES.iter().find(|(_, mode)| *mode == options.mode);
        write!(f, ",mode={}", word.map_or("auto", |(word, _)| word))?;
    }
    if options.attach != default.attach {
        let word = ATTACH.iter().find(|(_, mode)| *mode == options.attach);
        write!(f, ",attach={}", word.map_or("auto", |(word, _)| word))?;
    }
    if let Some(us) = options.busy_poll {
        write!(f, ",busy-poll={us}")?;
    }
    if options.frames != default.frames {
        write!(f, ",frames={}", options.frames)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::TargetSpec;

    fn xdp(interfaces: &[&str], options: XdpOptions) -> TargetSpec {
        TargetSpec::Xdp {
            interfaces: interfaces.iter().map(|&i| i.to_owned()).collect(),
            options,
        }
    }

    #[test]
    fn interfaces_and_options_parse_in_any_order_and_print_in_one() {
        let all = XdpOptions {
            mode: CopyMode::ZeroCopy,
            attach: AttachMode::Native,
            busy_poll: Some(50),
            frames: 8192,
        };
        for (text, want, printed) in [
            (
                "xdp:eth0",
                xdp(&["eth0"], XdpOptions::default()),
                "xdp:eth0",
            ),
            (
                "xdp:eth0,mode=auto,attach=auto,frames=4096,eth1",
                xdp(&["eth0", "eth1"], XdpOptions::default()),
                "xdp:eth0,eth1",
            ),
            (
                "xdp:busy-poll=50,a,frames=8192,b,attach=native,mode=zerocopy",
                xdp(&["a", "b"], all),
                "xdp:a,b,mode=zerocopy,attach=native,busy-poll=50,frames=8192",
            ),
        ] {
            let spec = text.parse::<TargetSpec>().expect(text);
            assert_eq!(spec, want);
            assert_eq!(spec.to_string(), printed);
            let TargetSpec::Xdp {
                interfaces,
                options,
            } = want
            else {
                panic!("{text}");
            };
            let kernel = TargetSpec::Kernel {
                interfaces,
                options,
            };
            assert_eq!(text.replace("xdp:", "kernel:").parse(), Ok(kernel.clone()));
            assert_eq!(kernel.to_string(), printed.replace("xdp:", "kernel:"));
        }
    }

    #[test]
    fn every_refusal_says_what_is_wrong() {
        for (text, part) in [
            ("xdp:", "xdp: names no interface: write xdp:IF[,IF...]"),
            ("xdp:mode=copy", "names no interface"),
            ("xdp:a,a", "a is given twice"),
            ("xdp:a,,b", "\"\" cannot be an interface"),
            (
                "xdp:a,mode=fast",
                "mode=fast is not auto or copy or zerocopy",
            ),
            ("xdp:a,attach=", "attach= is not auto or native or skb"),
            ("xdp:a,mode=copy,mode=copy", "mode is given twice"),
            (
                "xdp:a,frames=100",
                "frames=100 is not a power of two from 128",
            ),
            ("xdp:a,frames=-1", "frames=-1 is not"),
            (
                "xdp:a,busy-poll=0",
                "busy-poll=0 is not a number of µs from 1",
            ),
            ("xdp:a,queue=1", "no parameter \"queue\": it takes mode="),
            ("kernel:", "kernel: names no interface: write kernel:IF"),
            ("kernel:a,a", "kernel: parameter a is given twice"),
            (
                "kernel:a,attach=hw",
                "kernel: attach=hw is not auto or native",
            ),
            ("kernel:a,workers=2", "kernel: has no parameter \"workers\""),
        ] {
            let error = text.parse::<TargetSpec>().expect_err(text).to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_back(
            kind in prop::sample::select(vec!["xdp", "kernel"]),
            names in prop::sample::subsequence(vec!["a", "eth0", "veth-1"], 1..=3),
            parts in prop::sample::subsequence(
                vec!["mode=copy", "attach=skb", "busy-poll=20", "frames=128", "mode=auto", "attach=native", "x=y"], 0..=7,
            ).prop_shuffle(),
        ) {
            let text = format!("{kind}:{}", [names, parts].concat().join(","));
            if let Ok(spec) = text.parse::<TargetSpec>() {
                prop_assert_eq!(spec.to_string().parse::<TargetSpec>(), Ok(spec));
            }
        }
    }
}
