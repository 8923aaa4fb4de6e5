//! Every sub-command at tiny scale: what it must show is there, and nothing was lost. No figure is judged.

use dash_lab::measure::{ALL, Bench, Kind};
use dash_lab::{Options, against};

fn run(name: &str) -> dash_lab::result::Group {
    // Verdicts are by content, so tests may share them.
    let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/verdicts");
    std::fs::create_dir_all(cache).expect("a folder for verdicts");
    let options = Options {
        quick: true,
        samples: Some(2),
        cache_dir: Some(cache.into()),
        ..Options::default()
    };
    let kind = Kind::by_name(name).expect("a sub-command");
    let group = kind
        .run(&Bench {
            options: &options,
            progress: &|_| (),
        })
        .expect("it runs here");
    assert_eq!(group.name, name);
    assert!(!group.about.is_empty());
    assert_eq!(
        group.command,
        format!("dashctl bench {name} --samples 2 --quick")
    );
    assert!(!group.measurements.is_empty(), "{:?}", group.skipped);
    for row in &group.measurements {
        assert!(!row.name.is_empty() && !row.unit.is_empty(), "{row:?}");
        assert!(!row.samples.is_empty(), "{row:?}");
        // Nothing lost, nothing kept: zero is the right figure there.
        let zero = ["lost", "growth"]
            .iter()
            .any(|part| row.name.contains(part));
        let fine = |s: &f64| s.is_finite() && (*s > 0.0 || zero && *s >= 0.0);
        assert!(row.samples.iter().all(fine), "{row:?}");
        if row.name.contains("lost in the data plane") {
            assert!(row.samples.iter().all(|n| *n == 0.0), "{row:?}");
        }
    }
    group
}

/// The rows that a sub-command shows whatever the machine.
fn shows(name: &str, rows: &[&str]) {
    let group = run(name);
    for want in rows {
        assert!(
            group.measurements.iter().any(|row| row.name == *want),
            "{name}: no row {want:?} in {:#?}",
            group
                .measurements
                .iter()
                .map(|row| &row.name)
                .collect::<Vec<_>>()
        );
    }
}

#[test]
fn peers_are_shown_or_said_to_be_missing() {
    let options = Options {
        quick: true,
        samples: Some(1),
        ..Options::default()
    };
    let bench = Bench {
        options: &options,
        progress: &|_| (),
    };
    let group = against::run(&against::PEERS, &bench).expect("those that do not run are skipped");
    assert_eq!(group.name, against::GROUP);
    assert_eq!(
        group.command,
        "dashctl bench --against c,testpmd,l3fwd,ovs --samples 1 --quick"
    );
    for (peer, figure) in [
        ("c", "ours / C pipeline, both without the floor"),
        ("testpmd", "testpmd io, net_pcap, 110 B, our capture"),
        ("ovs", "OVS-DPDK VXLAN push, net_pcap, 64 B"),
    ] {
        let shown = group.measurements.iter().any(|row| row.name == figure);
        let skipped = group.skipped.iter().any(|why| why.starts_with(peer));
        assert!(shown != skipped, "{peer}: {:?}", group.skipped);
    }
    // A figure of a port says what was counted there.
    for row in group
        .measurements
        .iter()
        .filter(|row| row.unit == "ns/packet")
    {
        let note = row.note.as_deref().unwrap_or_default();
        assert!(note.contains("counted: "), "{row:?}");
    }
    assert!(group.skipped.iter().any(|why| why.starts_with("l3fwd")));
}

/// Where there is a second core, two workers are beside one; where not, that is said.
#[test]
fn scaling_is_shown_or_said_to_be_missing() {
    let group = run("scaling");
    let shown = |name: &str| group.measurements.iter().any(|row| row.name == name);
    let rows = [
        "2 workers / 1 worker",
        "2 workers, all handed over / at their owner",
    ];
    if dash_lab::machine::cores() > 1 {
        assert!(rows.iter().all(|name| shown(name)), "{group:?}");
    } else {
        assert!(!group.skipped.is_empty());
    }
}

macro_rules! quick {
    ($($test:ident $name:literal: $($row:literal),*;)*) => {
        $(#[test] fn $test() { shows($name, &[$($row),*]); })*

        #[test]
        fn every_sub_command_is_run_here() {
            let here = [$($name),*];
            let all: Vec<_> = ALL.iter().map(|kind| kind.name).collect();
            assert_eq!(all, here);
        }
    };
}

quick! {
    floors "floors": "I/O, receive and send", "worker loop, drop at the VIP", "dependent load, 1 MiB", "reading the clock";
    engines "engines": "outbound vnet, established: native", "outbound vnet, established: interp / native", "inbound, first of a flow: model / native";
    packets "packets": "outbound vnet, 64 B, established", "outbound vnet, 64 B, first of a flow", "inbound, IMIX, established", "outbound direct, 9000 B, floor", "outbound, denied by an ACL, 64 B, every packet", "privatelink and tunnel, 4to6, NVGRE in VXLAN, 64 B, first of a flow", "servicetunnel, answer, 6to4, 512 B, established";
    flows "flows": "16 k flows, established", "cost at 32 k flows / cost at 1 k";
    cps "cps": "TCP, 6 packets", "TCP, 6 packets, lost in the data plane", "UDP, 1 packet";
    tables "tables": "mapping, 20 k, hit: ours, one by one", "routes v6, 1 k, back to back: ours", "ACL v4, 5 x 50 x 10, a new flow each: bound to an ENI", "ACL v6, 5 x 50 x 10, one group made again";
    one_ip "one-ip": "load time", "TCP connections, 6 packets, with background";
    baby_hero "baby-hero": "load time", "TCP connections, 6 packets, with background";
    hero "hero": "load time", "established, 500 flows", "TCP connections, 6 packets, with background, lost in the data plane";
    config "config": "start to first packet, demo", "start to first packet, baby hero by Set requests", "one change to its effect, idle, p99", "one change to its effect, under load, p99";
    update_under_load "update-under-load": "packets, without", "packets, with changes, lost in the data plane", "rate with changes / without";
    scaling "scaling": "1 worker";
    latency "latency": "latency at 50 %, p50", "latency at 99 %, p99.9";
    soak "soak": "lost in the data plane", "growth of memory", "flows aged";
}
