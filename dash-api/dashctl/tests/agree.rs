//! The executors agree: random legal configurations, changed step by step while flows live, and
//! random packets near what they match; every engine gives the same verdicts, bytes, counters and
//! flows.
//!
//! `DASHWIRE_PAIRS` sets how many (configuration, packet) pairs run, `DASHWIRE_SEED` where they
//! start, `DASHWIRE_ENGINES` which engines. The long run's command is in `specs/README.md`.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers stop at the first surprise, with its line"
)]

#[path = "agree/generate.rs"]
mod generate;

use std::collections::{BTreeMap, BTreeSet};

use dash_engine::{Engine, Filter, Options};
use dash_model::StoreOptions;
use dash_pipeline::plan::Settings;
use dash_wire::tables::{FlowActions, FlowEntry, encap, flow_action, flow_mark, flow_state};
use dashctl::engines::{EngineName, start};
use generate::{Rng, World};
use nic_target::{Capacity, CounterSnapshot, Frame, PacketEngine, Verdict};

const PACKETS_A_STEP: u64 = 40;

struct Run {
    name: EngineName,
    engine: Engine<dyn PacketEngine>,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |v| {
        v.parse()
            .unwrap_or_else(|_| panic!("{name}={v}: not a number"))
    })
}

fn engines() -> Vec<EngineName> {
    let names = std::env::var("DASHWIRE_ENGINES").unwrap_or_else(|_| {
        match nic_linux::KernelEngine::unavailable() {
            None => "model,native,interp,rbpf,kernel".into(),
            Some(why) => {
                eprintln!("SKIP: the kernel as one of the engines: {why}");
                "model,native,interp,rbpf".into()
            }
        }
    });
    names
        .split(',')
        .map(|n| {
            *EngineName::ALL
                .iter()
                .find(|e| e.as_str() == n)
                .unwrap_or_else(|| panic!("no engine {n}"))
        })
        .collect()
}

fn capacity() -> Capacity {
    // Few flows, so that a full table is met too.
    Capacity {
        flows: 64,
        ..EngineName::Kernel.capacity()
    }
}

fn sorted_flows(engine: &mut Engine<dyn PacketEngine>) -> Vec<FlowEntry> {
    let mut flows = engine.target_mut().flows().unwrap();
    flows.sort_by_key(|f| {
        (
            f.sides[0].key.eni,
            f.sides[0].key.sip,
            f.sides[0].key.dip,
            f.sides[0].key.sport,
            f.sides[0].key.dport,
            f.sides[0].key.proto,
            f.sides[0].key.flags,
        )
    });
    flows
}

/// Blocks that never counted are the same as absent ones.
fn counted(engine: &mut Engine<dyn PacketEngine>) -> CounterSnapshot {
    let mut c = engine.target_mut().counters().unwrap();
    c.eni.retain(|_, values| values.iter().any(|v| *v != 0));
    c
}

/// Pairs after which every kind of flow has been met.
const ENOUGH: u64 = 8_000;

/// What a flow is an example of, and how it shows.
type Kind = (&'static str, fn(&FlowEntry) -> bool);

/// All of them must be met.
const KINDS: [Kind; 14] = [
    ("was decided again", |f| f.epoch > 0 && f.packets[0] > 2),
    ("of an old epoch was used by replies", |f| {
        f.epoch > 0 && f.packets[1] > 0
    }),
    ("answers where it was learned", |f| {
        f.sides[1].actions.u0_sip == generate::REVERSE_SIP && f.packets[1] > 0
    }),
    ("answers in NVGRE, as it was learned", |f| {
        let back = &f.sides[1].actions;
        back.u0_encap == encap::NVGRE && back.u0_sip == generate::REVERSE_SIP
    }),
    ("is closing", |f| f.state == flow_state::CLOSING),
    ("has NVGRE", |f| there(f).u0_encap == encap::NVGRE),
    ("has a second encap", |f| does(f, flow_action::ENCAP_U1)),
    ("has a second encap of NVGRE", |f| {
        does(f, flow_action::ENCAP_U1) && there(f).u1 == encap::NVGRE
    }),
    ("becomes IPv6", |f| does(f, flow_action::NAT46)),
    ("changes its port", |f| does(f, flow_action::DNAT_PORT)),
    ("was answered in IPv6", |f| {
        f.sides[1].actions.actions & flow_action::NAT64 != 0 && f.packets[1] > 0
    }),
    ("was redirected", |f| f.marks & flow_mark::REDIRECTED != 0),
    ("was redirected and used since", |f| {
        f.marks & flow_mark::REDIRECTED != 0 && f.packets[0] > 1
    }),
    ("is a floating NIC's, answered", |f| {
        does(f, flow_action::OUTBOUND) && f.packets[1] > 0
    }),
];

/// What is done to the flow's own direction.
fn there(flow: &FlowEntry) -> &FlowActions {
    &flow.sides[0].actions
}

fn does(flow: &FlowEntry, action: u16) -> bool {
    there(flow).actions & action != 0
}

/// The kinds of a flow.
fn kinds(flow: &FlowEntry) -> impl Iterator<Item = &'static str> {
    let shown = KINDS.iter().filter(move |(_, shows)| shows(flow));
    shown.map(|(kind, _)| *kind)
}

#[test]
fn engines_agree_on_random_configurations_and_packets() {
    let (pairs, seed) = (number("DASHWIRE_PAIRS", ENOUGH), number("DASHWIRE_SEED", 1));
    agree(pairs, seed, &Settings::default(), 8);
}

/// Source-port security, an MTU and a DSCP of encaps' own.
#[test]
fn engines_agree_with_settings_that_drop_and_write() {
    let (pairs, seed) = (
        number("DASHWIRE_PAIRS", ENOUGH) / 4,
        number("DASHWIRE_SEED", 1),
    );
    let settings = Settings {
        sport_security: true,
        mtu: Some(500),
        port_mtus: vec![Some(300), Some(400)],
        dscp_pipe: Some(8),
        encap_ttl: 255,
        ..Settings::default()
    };
    // Most VXLAN comes from ports that these settings refuse.
    agree(pairs, seed ^ 0x5e77, &settings, 20);
}

/// `share`: at least one of so many packets must get through.
fn agree(pairs: u64, seed: u64, settings: &Settings, share: u64) {
    let cache = tempfile::tempdir().unwrap();
    let mut runs: Vec<Run> = engines()
        .into_iter()
        .map(|name| {
            let options = Options {
                capacity: capacity(),
                cache_dir: Some(cache.path().to_path_buf()),
                settings: Settings {
                    tcp_reset: true,
                    ..settings.clone()
                },
                store: StoreOptions {
                    update_bound_groups: true,
                    ..StoreOptions::default()
                },
                ..Options::default()
            };
            Run {
                name,
                engine: start(name, options).unwrap(),
            }
        })
        .collect();
    assert!(runs.len() > 1, "one engine agrees with itself");

    let mut world = World::new(Rng::new(seed));
    let mut now = 1_000_000_000u64;
    let mut verdicts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut met: BTreeSet<&str> = BTreeSet::new();
    let (mut done, mut resets) = (0, 0);
    let mut frame = Frame::new();
    while done < pairs {
        world.step(|txn| {
            let outcomes: Vec<_> = runs
                .iter_mut()
                .map(|r| r.engine.commit(txn.clone()).map_err(|e| e.to_string()))
                .collect();
            let first = outcomes[0].as_ref().map(|_| ()).map_err(Clone::clone);
            for (run, o) in runs.iter().zip(&outcomes) {
                assert_eq!(
                    o.as_ref().map(|_| ()).map_err(Clone::clone),
                    first,
                    "{} takes another configuration",
                    run.name
                );
            }
            first.is_ok()
        });
        if let Some(underlay) = world.underlay() {
            for run in &mut runs {
                run.engine.set_underlay(underlay.clone()).unwrap();
            }
        }
        if let Some((eni, how, all)) = world.resimulation() {
            let filters = [Filter::parse("dst_l4_port", "greater_than", "79").unwrap()];
            let filters = if all { &[][..] } else { &filters[..] };
            let took: Vec<_> = runs
                .iter_mut()
                .map(|run| run.engine.resimulate(&eni, filters, how).unwrap())
                .collect();
            assert!(took.windows(2).all(|pair| pair[0] == pair[1]));
        }
        for _ in 0..PACKETS_A_STEP {
            now += world.pause_ns();
            let packet = world.packet();
            let mut first: Option<(EngineName, Verdict, Vec<u8>)> = None;
            for run in &mut runs {
                assert!(frame.fill(&packet));
                frame.port = 0;
                frame.timestamp_ns = now;
                let verdict = run.engine.target_mut().run(&mut frame).unwrap();
                assert_ne!(
                    verdict,
                    Verdict::Aborted,
                    "{} seed {seed}: pair {done}: {}",
                    run.name,
                    nic_sim::describe(&packet)
                );
                let mut bytes = if matches!(verdict, Verdict::Drop) {
                    Vec::new()
                } else {
                    frame.data().to_vec()
                };
                while let Some((port, reset)) = run.engine.target_mut().injected() {
                    bytes.extend(port.to_be_bytes());
                    bytes.extend(reset);
                    resets += 1;
                }
                match &first {
                    None => first = Some((run.name, verdict, bytes)),
                    Some((name, v, b)) => assert!(
                        *v == verdict && *b == bytes,
                        "seed {seed}, pair {done}, packet {}\n{packet:02x?}\n{name}: {v:?} {}\n{b:02x?}\n{}: {verdict:?} {}\n{bytes:02x?}",
                        nic_sim::describe(&packet),
                        nic_sim::describe(b),
                        run.name,
                        nic_sim::describe(&bytes),
                    ),
                }
            }
            let verdict = match first.map(|(_, verdict, bytes)| (verdict, bytes)) {
                Some((Verdict::Send(_), bytes)) => {
                    world.sent(&bytes);
                    "sent"
                }
                Some((Verdict::Drop, _)) => "dropped",
                _ => "passed",
            };
            *verdicts.entry(verdict).or_default() += 1;
            done += 1;
        }
        let (name, counters, flows) = {
            let run = &mut runs[0];
            (
                run.name,
                counted(&mut run.engine),
                sorted_flows(&mut run.engine),
            )
        };
        met.extend(flows.iter().flat_map(kinds));
        for run in &mut runs[1..] {
            let other = counted(&mut run.engine);
            if other != counters {
                panic!(
                    "seed {seed}, before pair {done}: counters differ\n{}",
                    differences(name, &counters, run.name, &other)
                );
            }
            assert_eq!(
                sorted_flows(&mut run.engine),
                flows,
                "seed {seed}, before pair {done}: flows of {} and {name}",
                run.name
            );
        }
    }
    for (kind, _) in KINDS {
        assert!(
            pairs < ENOUGH || met.contains(kind),
            "no flow {kind}, only {met:?}"
        );
    }
    assert!(
        pairs < ENOUGH || resets > 0,
        "no packet was answered with resets"
    );
    let drops = drop_counters(&mut runs[0].engine);
    eprintln!(
        "agree: {done} pairs, {verdicts:?}, {} kinds of counters moved: {drops:?}",
        drops.len()
    );
    assert!(
        verdicts.get("sent").copied().unwrap_or(0) * share > done,
        "too few packets got through to say anything: {verdicts:?}"
    );
    assert!(
        verdicts.get("dropped").copied().unwrap_or(0) * 20 > done,
        "too few drops: {verdicts:?}"
    );
}

fn differences(a: EngineName, x: &CounterSnapshot, b: EngineName, y: &CounterSnapshot) -> String {
    use dash_wire::stats::{EniStat, PortStat};
    let mut out = String::new();
    for stat in PortStat::ALL {
        let i = *stat as usize;
        let (p, q) = (x.port.get(i), y.port.get(i));
        if p != q {
            out += &format!("{}: {a} {p:?}, {b} {q:?}\n", stat.name());
        }
    }
    for bucket in x.meter.keys().chain(y.meter.keys()) {
        let (p, q) = (x.meter.get(bucket), y.meter.get(bucket));
        if p != q {
            out += &format!("bucket {bucket:?}: {a} {p:?}, {b} {q:?}\n");
        }
    }
    for eni in x.eni.keys().chain(y.eni.keys()) {
        for stat in EniStat::ALL {
            let get = |s: &CounterSnapshot| s.eni.get(eni).map_or(0, |v| v[*stat as usize]);
            if get(x) != get(y) {
                out += &format!(
                    "eni {eni} {}: {a} {}, {b} {}\n",
                    stat.name(),
                    get(x),
                    get(y)
                );
            }
        }
    }
    out
}

/// Counters that moved, summed over ENIs: how much of the pipeline the packets reached.
fn drop_counters(engine: &mut Engine<dyn PacketEngine>) -> BTreeMap<&'static str, u64> {
    let snapshot = engine.target_mut().counters().unwrap();
    let mut out = BTreeMap::new();
    for stat in dash_wire::stats::EniStat::ALL {
        let sum: u64 = snapshot.eni.values().map(|v| v[*stat as usize]).sum();
        if sum > 0 {
            out.insert(stat.name(), sum);
        }
    }
    out
}

#[test]
fn the_flows_of_a_deleted_eni_go_with_it_on_every_engine() {
    let text = include_str!("../../../specs/scenarios/demo/config.json");
    let rows = dash_proto::config::load_config(text).unwrap();
    let (config, _) = dash_proto::config::config_to_txn(&rows).unwrap();
    let eni = "F4939FEFC47E";
    let gone: dash_model::Txn = [
        ("DASH_ENI_ROUTE_TABLE", eni.to_owned()),
        ("DASH_ACL_OUT_TABLE", format!("{eni}:1")),
        (
            "DASH_ROUTE_RULE_TABLE",
            format!("{eni}:45654:101.1.2.0/24:1"),
        ),
        ("DASH_ENI_TABLE", eni.to_owned()),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, (table, key))| {
        dash_model::Op::del(i, dash_model::ObjectKey::parse(table, &key).unwrap())
    })
    .collect();
    let packet = nic_sim::Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([25, 1, 1, 1], [10, 0, 0, 1])
        .udp(5137, 4789)
        .vxlan(4321)
        .eth([2, 0, 0, 0, 0, 9], [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e])
        .ipv4([10, 1, 1, 10], [10, 1, 1, 1])
        .udp(1000, 2000)
        .payload(b"x")
        .build();
    for name in engines() {
        let options = Options {
            capacity: capacity(),
            ..Options::default()
        };
        let mut engine = start(name, options).unwrap();
        engine.commit(config.clone()).unwrap();
        let mut frame = Frame::new();
        assert!(frame.fill(&packet));
        frame.timestamp_ns = 1;
        assert_eq!(
            engine.target_mut().run(&mut frame).unwrap(),
            Verdict::Send(0),
            "{name}"
        );
        assert_eq!(engine.flow_count().unwrap(), 1, "{name}");
        engine.commit(gone.clone()).unwrap();
        assert_eq!(engine.flow_count().unwrap(), 0, "{name}");
    }
}

/// Packets of every kind the pipeline parses, whole.
fn samples() -> Vec<Vec<u8>> {
    let tunnel = || {
        nic_sim::Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([25, 1, 1, 1], [10, 0, 0, 1])
            .options(&[1, 1, 1, 1])
            .udp(5137, 4789)
            .vxlan(4321)
            .eth([2, 0, 0, 0, 0, 9], [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e])
    };
    let v4 = || tunnel().ipv4([10, 1, 1, 10], [10, 1, 1, 1]);
    let v6 = || {
        let host = |n| [0xfd00, 1, 0, 0, 0, 0, 0, n];
        tunnel().ipv6(host(0x10), host(1))
    };
    vec![
        v4().udp(1, 2).payload(b"DASHTEST").build(),
        v4().tcp(3, 4).flags(0x02).payload(b"x").build(),
        v4().icmp_echo(5, 1).build(),
        v6().udp(1, 2).payload(b"DASHTEST").build(),
        v6().tcp(3, 4).flags(0x02).payload(b"").build(),
        v6().icmpv6_echo(5, 1).build(),
        nic_sim::Packet::eth([0xff; 6], [2; 6])
            .arp_request([2; 6], [25, 1, 1, 1], [10, 0, 0, 1])
            .build(),
    ]
}

#[test]
fn packets_cut_at_every_byte_meet_the_same_counted_fate_on_every_engine() {
    let text = include_str!("../../../specs/scenarios/demo/config.json");
    let rows = dash_proto::config::load_config(text).unwrap();
    let (config, _) = dash_proto::config::config_to_txn(&rows).unwrap();
    let mut runs: Vec<Run> = engines()
        .into_iter()
        .map(|name| {
            let options = Options {
                capacity: capacity(),
                ..Options::default()
            };
            let mut engine = start(name, options).unwrap();
            engine.commit(config.clone()).unwrap();
            Run { name, engine }
        })
        .collect();
    let mut frame = Frame::new();
    let mut now = 0;
    for sample in samples() {
        for len in 0..=sample.len() {
            now += 1_000_000;
            let mut fates = Vec::new();
            for run in &mut runs {
                assert!(frame.fill(&sample[..len]));
                frame.timestamp_ns = now;
                let verdict = run.engine.target_mut().run(&mut frame).unwrap();
                assert_ne!(
                    verdict,
                    Verdict::Aborted,
                    "{}, {len} bytes of {sample:02x?}",
                    run.name
                );
                fates.push((
                    verdict,
                    (verdict != Verdict::Drop).then(|| frame.data().to_vec()),
                ));
            }
            assert!(
                fates.windows(2).all(|f| f[0] == f[1]),
                "{len} bytes of {sample:02x?}: {fates:02x?}"
            );
        }
    }
    let counters = counted(&mut runs[0].engine);
    let (dropped, sent) = {
        use dash_wire::stats::{EniStat, PortStat};
        let eni = &counters.eni[&0];
        let port = |s: PortStat| counters.port[s as usize];
        (
            eni[EniStat::TotalDropPackets as usize]
                + port(PortStat::IfInErrors)
                + port(PortStat::VipMissDropPackets),
            eni[EniStat::TxPackets as usize],
        )
    };
    for run in &mut runs[1..] {
        assert_eq!(counted(&mut run.engine), counters, "{}", run.name);
    }
    // Every cut is counted once, but the whole ARP and what is long enough to be taken for one.
    let packets: u64 = samples().iter().map(|s| s.len() as u64 + 1).sum();
    let arp = samples().last().map_or(0, |s| s.len() as u64 + 1);
    assert!(sent >= 6, "whole packets get through: {sent}");
    assert!(
        dropped + sent >= packets - arp,
        "{dropped} dropped and {sent} sent of {packets}"
    );
}
