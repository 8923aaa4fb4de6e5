//! Bursts in two phases do what packets do that run whole, one after the other.

use std::path::Path;

use dash_bench::world::{self, Rows};
use dash_engine::Engine;
use dash_pipeline::plan::Settings;
use dash_runtime::datapath::{Datapath, Fate};
use dash_runtime::{Core, Engine as Executor};
use nic_target::{Capacity, FlowQuery, Frame, Verdict};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// A packet of a burst.
#[derive(Clone, Debug)]
struct Case {
    packet: Vec<u8>,
    port: u16,
}

/// Packets of few flows, so that several of a new one come in one burst; both directions; what is
/// dropped at every stage; and packets cut short or damaged.
fn case() -> impl Strategy<Value = Case> {
    let flow = 0..6u32;
    let packet = prop_oneof![
        4 => flow.clone().prop_map(|n| world::outbound(n, world::SMALL)),
        4 => flow.clone().prop_map(|n| world::reply(n, world::SMALL)),
        2 => flow.clone().prop_map(|n| world::inbound(n, 100)),
        2 => flow.prop_map(|n| world::outbound_v6(n, 7)),
        4 => prop::sample::select(world::mix()),
        2 => prop::sample::select(vec![0x02, 0x10, 0x04]).prop_map(world::denied),
        1 => Just(vec![0xff; 60]),
    ];
    let damage = prop_oneof![
        8 => Just(None),
        1 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(Some),
    ];
    (
        packet,
        damage,
        any::<prop::sample::Index>(),
        0..10u8,
        0..2u16,
    )
        .prop_map(|(mut packet, damage, cut, whole, port)| {
            if let Some((at, byte)) = damage {
                let at = at.index(packet.len());
                packet[at] = byte;
            }
            if whole == 0 {
                packet.truncate(cut.index(packet.len()));
            }
            Case { packet, port }
        })
}

fn frame(case: &Case) -> Frame {
    let mut frame = Frame::new();
    assert!(frame.fill(&case.packet));
    frame.port = case.port;
    frame
}

#[test]
fn a_burst_does_what_its_packets_do_one_by_one() {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        eprintln!("SKIP: there is no native code for this processor");
        return;
    }
    // Few flows: the table is full at times, and the queue of events nearly so.
    let capacity = Capacity {
        flows: 12,
        ..Capacity::default()
    };
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verdicts");
    let core = Core::new(Executor::Native, &capacity).unwrap();
    let options = dash_engine::Options {
        native: true,
        settings: Settings {
            tcp_reset: true,
            ..Settings::default()
        },
        ..world::options(capacity.clone(), Some(cache))
    };
    let mut engine = Engine::new(options, Box::new(core)).unwrap();
    world::configure(&mut engine, &world::rows(Rows::All).unwrap()).unwrap();
    let generation = engine.target().generation();

    let burst = prop::collection::vec(case(), 1..70);
    let bursts = prop::collection::vec((burst, 0..40u64), 1..6);
    let mut runner = TestRunner::new(Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    });
    let (sent, reset) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    runner
        .run(&bursts, |bursts| {
            let fresh = || Datapath::new(Executor::Native, &capacity, 0).unwrap();
            let (mut plain, mut fast) = (fresh(), fresh());
            let mut now = 1;
            for (burst, seconds) in bursts {
                now += seconds * 1_000_000_000;
                plain.advance(now, usize::MAX);
                fast.advance(now, usize::MAX);
                let mut one_by_one: Vec<Frame> = burst.iter().map(frame).collect();
                let mut together: Vec<Frame> = burst.iter().map(frame).collect();
                let mut fates = Vec::new();
                let mut bound = plain.bind(generation);
                for frame in &mut one_by_one {
                    fates.push(Fate::Done(bound.run(frame).unwrap()));
                }
                let (mut bound, mut done) = (fast.bind(generation), 0);
                while done < together.len() {
                    let n = bound.run_burst(&mut together[done..]);
                    for place in 0..n {
                        let fate = bound.fate(place);
                        prop_assert_eq!(fate, fates[done + place]);
                        if fate == Fate::Done(Verdict::Drop) {
                            bound.dropped(place, &together[done + place]);
                        }
                    }
                    done += n;
                }
                for (one, other) in one_by_one.iter().zip(&together) {
                    prop_assert_eq!(one.data(), other.data());
                }
                let is_sent = |fate: &&Fate| matches!(fate, Fate::Done(Verdict::Send(_)));
                sent.set(sent.get() + fates.iter().filter(is_sent).count());
                prop_assert_eq!(plain.tables().counters(), fast.tables().counters());
                let resets = |core: &mut Datapath| {
                    let take = || {
                        core.take_reset()
                            .map(|reset| (reset.port, reset.data().to_vec()))
                    };
                    std::iter::from_fn(take).collect::<Vec<_>>()
                };
                let expected = resets(&mut plain);
                reset.set(reset.get() + expected.len());
                prop_assert_eq!(expected, resets(&mut fast));
                let flows = |core: &Datapath| {
                    let mut flows = Vec::with_capacity(capacity.flows as usize);
                    core.tables()
                        .flows(0..capacity.flows, &FlowQuery::ALL, &mut flows);
                    flows
                };
                prop_assert_eq!(flows(&plain), flows(&fast));
            }
            Ok(())
        })
        .unwrap();
    assert!(sent.get() > 500, "only {} packets were sent", sent.get());
    assert!(reset.get() > 0, "no packet was answered with resets");
}
