//! Programs of users in the whole pipeline: ENIs' programs see the decapsulated packet on every engine,
//! bursts do what single packets do, and what programs are told is right.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers stop at the first surprise, with its line"
)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use dash_bench::world::{self, Rows};
use dash_bpf::helper::XdpAction;
use dash_engine::Engine;
use dash_runtime::datapath::{Datapath, Fate};
use dash_runtime::generation::Generation;
use dash_runtime::hooks::{Attachment, HookPacket, HookVerdict, Hooks, Link, PacketRunner, Point};
use dash_runtime::{Core, Engine as Executor};
use dash_wire::drop::DropReason;
use dash_wire::hook::{DashMeta, Place, flow};
use dash_wire::stats::EniStat;
use dash_wire::tables::Direction;
use nic_target::{Capacity, Frame, PacketEngine, Target, Verdict};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// What a program was told of a packet, and the packet.
type Seen = (DashMeta, Vec<u8>);

/// A program made of a closure.
struct Closure<F>(F);

impl<F> std::fmt::Debug for Closure<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Closure")
    }
}

impl<F: FnMut(&mut HookPacket<'_>, &DashMeta) -> HookVerdict + Send> PacketRunner for Closure<F> {
    fn run(&mut self, packet: &mut HookPacket<'_>, about: &DashMeta) -> HookVerdict {
        (self.0)(packet, about)
    }
}

fn link(
    f: impl FnMut(&mut HookPacket<'_>, &DashMeta) -> HookVerdict + Send + 'static,
) -> Arc<Link> {
    Arc::new(Link::new(vec![Box::new(Closure(f))]))
}

fn says(action: XdpAction) -> HookVerdict {
    HookVerdict {
        action,
        port: None,
        out_of_fuel: false,
    }
}

fn at(point: Point, link: &Arc<Link>) -> Attachment {
    Attachment {
        point,
        sequence: 0,
        link: Arc::clone(link),
    }
}

fn capacity() -> Capacity {
    Capacity {
        flows: 64,
        ..Capacity::default()
    }
}

/// The demo configuration on a core, with code that asks ENIs' programs; and the ENI's index.
fn engine(executor: Executor) -> (Engine<Core>, u32) {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verdicts");
    let core = Core::new(executor, &capacity()).unwrap();
    let options = dash_engine::Options {
        native: executor == Executor::Native,
        ..world::options(capacity(), Some(cache))
    };
    let mut engine = Engine::new(options, Box::new(core)).unwrap();
    world::configure(&mut engine, &world::rows(Rows::All).unwrap()).unwrap();
    assert!(engine.set_hooks(true).unwrap(), "other code");
    let (key, _) = engine.store().enis().next().unwrap();
    let eni = engine.eni_index(key).unwrap();
    (engine, eni)
}

fn frame(packet: &[u8], now_ns: u64) -> Frame {
    let mut frame = Frame::new();
    assert!(frame.fill(packet));
    frame.timestamp_ns = now_ns;
    frame
}

fn executors() -> Vec<Executor> {
    let mut all = Executor::ALL.to_vec();
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        eprintln!("SKIP: there is no native code for this processor");
        all.retain(|executor| *executor != Executor::Native);
    }
    all
}

#[test]
fn programs_of_an_eni_see_the_customers_frame_and_their_verdicts_count() {
    for executor in executors() {
        let (mut engine, eni) = engine(executor);
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let mut verdicts = [
            XdpAction::Pass,
            XdpAction::Drop,
            XdpAction::Aborted,
            XdpAction::Tx,
            XdpAction::Redirect,
        ]
        .into_iter()
        .cycle();
        let program = link({
            let seen = Arc::clone(&seen);
            move |packet, about| {
                let data = packet.memory[packet.data..packet.end].to_vec();
                seen.lock().unwrap().push((*about, data));
                HookVerdict {
                    action: verdicts.next().unwrap(),
                    port: Some(5),
                    out_of_fuel: false,
                }
            }
        });
        let hooks = Hooks::new(&[at(Point::EniOutbound(eni), &program)]);
        assert!(hooks.at_enis() && !hooks.at_ports());
        engine.target_mut().set_hooks(hooks);
        let packet = world::outbound(1, world::SMALL);
        let mut got = Vec::new();
        for n in 0..5 {
            let mut frame = frame(&packet, n);
            let verdict = engine.target_mut().run(&mut frame).unwrap();
            got.push((verdict, frame.data().to_vec()));
        }
        let inner = &seen.lock().unwrap()[0].1.clone();
        assert!(
            packet.ends_with(inner) && inner.len() + 50 == packet.len(),
            "decapsulated"
        );
        let verdicts: Vec<Verdict> = got.iter().map(|(verdict, _)| *verdict).collect();
        let expected = [
            Verdict::Send(0),
            Verdict::Drop,
            Verdict::Drop,
            Verdict::Send(0),
            Verdict::Send(5),
        ];
        assert_eq!(verdicts, expected, "{executor:?}");
        assert_ne!(&got[0].1, inner, "it went through the pipeline");
        assert_eq!(
            (&got[3].1, &got[4].1),
            (inner, inner),
            "they went as they were"
        );
        let (about, _) = &seen.lock().unwrap()[0];
        assert_eq!((about.eni, about.eni_mac), (eni, world::ENI));
        assert_eq!(about.direction, Direction::Outbound as u8);
        assert_eq!(about.place, Place::EniOutbound as u8);
        assert_ne!(about.vni, 0);
        // Not what comes in, and not without being asked.
        let inbound = world::inbound(1, 100);
        engine.target_mut().run(&mut frame(&inbound, 9)).unwrap();
        assert_eq!(program.stats().verdicts, [1, 1, 1, 1, 1]);
        let counters = engine.target_mut().counters().unwrap();
        let block = &counters.eni[&eni];
        assert_eq!(block[EniStat::RxPackets as usize], 6, "all are received");
        for stat in DropReason::HookDrop.eni_stats() {
            assert_eq!(block[*stat as usize], 2, "{}", stat.name());
        }
        // Detached, and the code that does not ask: all as if nothing had been.
        engine.target_mut().set_hooks(Hooks::default());
        assert!(engine.set_hooks(false).unwrap(), "other code");
        let mut frame = frame(&packet, 10);
        let verdict = engine.target_mut().run(&mut frame).unwrap();
        assert_eq!((verdict, frame.data()), (got[0].0, &got[0].1[..]));
        assert_eq!(program.stats().packets(), 5);
    }
}

#[test]
fn at_egress_programs_are_told_the_eni_and_whether_the_flow_was_there() {
    for executor in executors() {
        let (mut engine, eni) = engine(executor);
        let seen: Arc<Mutex<Vec<DashMeta>>> = Arc::default();
        let watch = {
            let seen = Arc::clone(&seen);
            link(move |_, about| {
                seen.lock().unwrap().push(*about);
                says(XdpAction::Pass)
            })
        };
        let back = link(|packet, _| {
            let marked = packet.memory[packet.end - 1] == 0xee;
            says(if marked {
                XdpAction::Tx
            } else {
                XdpAction::Pass
            })
        });
        engine.target_mut().set_hooks(Hooks::new(&[
            at(Point::Egress(0), &watch),
            at(Point::EniOutbound(eni), &back),
        ]));
        let mut marked = world::outbound(3, world::SMALL);
        *marked.last_mut().unwrap() = 0xee;
        let packets = [
            world::outbound(3, world::SMALL),
            marked.clone(),
            world::outbound(3, world::SMALL),
            world::outbound(4, world::SMALL),
            marked,
        ];
        let expected = [
            flow::MISS,
            flow::UNKNOWN,
            flow::HIT,
            flow::MISS,
            flow::UNKNOWN,
        ];
        for burst in [false, true] {
            seen.lock().unwrap().clear();
            let mut frames: Vec<Frame> = packets.iter().map(|p| frame(p, 1)).collect();
            if burst {
                // Other flows, so that they are new again.
                for frame in &mut frames {
                    let last = frame.data().len() - world::SMALL - 8;
                    frame.data_mut()[last] ^= 0x40;
                }
                let mut fates = Vec::new();
                engine.target_mut().run_burst(2, &mut frames, &mut fates);
                assert!(
                    fates
                        .iter()
                        .all(|f| matches!(f, Fate::Done(Verdict::Send(0)))),
                    "{fates:?}"
                );
            } else {
                for frame in &mut frames {
                    let verdict = engine.target_mut().run(frame).unwrap();
                    assert_eq!(verdict, Verdict::Send(0));
                }
            }
            let seen = seen.lock().unwrap();
            let mut flows: Vec<u8> = seen.iter().map(|about| about.flow).collect();
            let mut expected = expected;
            if burst {
                // What an ENI's program sends leaves before what goes on to the look-up.
                flows.sort_unstable();
                expected.sort_unstable();
            }
            assert_eq!(flows, expected, "{executor:?}, burst {burst}");
            assert!(
                seen.iter()
                    .all(|about| about.eni == eni && about.eni_mac == world::ENI)
            );
        }
    }
}

/// Programs at all four places, whose verdicts depend on the packet.
fn everywhere(eni: u32) -> Hooks {
    let program = |salt: u32| {
        link(move |packet, about| {
            let data = &packet.memory[packet.data..packet.end];
            let sum =
                data.iter().map(|b| u32::from(*b)).sum::<u32>() + salt + u32::from(about.flow);
            let action = match sum % 16 {
                0 => XdpAction::Drop,
                1 => XdpAction::Tx,
                2 => XdpAction::Redirect,
                3 => XdpAction::Aborted,
                _ => XdpAction::Pass,
            };
            if sum.is_multiple_of(5) {
                // Something every engine must see alike: a byte of the payload's end.
                packet.memory[packet.end - 1] ^= 0x55;
            }
            HookVerdict {
                action,
                port: Some((sum % 3) as u16),
                out_of_fuel: false,
            }
        })
    };
    Hooks::new(&[
        at(Point::Ingress(0), &program(1)),
        at(Point::Ingress(1), &program(2)),
        at(Point::EniOutbound(eni), &program(3)),
        at(Point::EniInbound(eni), &program(4)),
        at(Point::Egress(0), &program(5)),
        at(Point::Egress(1), &program(6)),
    ])
}

#[test]
fn a_burst_with_programs_does_what_its_packets_do_one_by_one_on_every_engine() {
    let packet = prop_oneof![
        4 => (0..6u32).prop_map(|n| world::outbound(n, world::SMALL)),
        4 => (0..6u32).prop_map(|n| world::reply(n, world::SMALL)),
        2 => (0..6u32).prop_map(|n| world::inbound(n, 100)),
        4 => prop::sample::select(world::mix()),
        1 => Just(vec![0xff; 60]),
    ];
    let burst = prop::collection::vec((packet, any::<u8>(), 0..2u16), 1..50);
    // A generation an engine: with programs of its own, as these keep no state.
    let generations: Vec<(Executor, Generation)> = executors()
        .into_iter()
        .map(|executor| {
            let (engine, eni) = engine(executor);
            let generation = engine.target().generation();
            (executor, generation.with_hooks(Arc::new(everywhere(eni))))
        })
        .collect();
    let mut runner = TestRunner::new(Config {
        cases: 32,
        failure_persistence: None,
        ..Config::default()
    });
    let sent = std::cell::Cell::new(0);
    runner
        .run(&prop::collection::vec(burst, 1..4), |bursts| {
            let mut results = Vec::new();
            for (executor, generation) in &generations {
                let fresh = || Datapath::new(*executor, &capacity(), 0).unwrap();
                let (mut plain, mut fast) = (fresh(), fresh());
                let mut out = Vec::new();
                for burst in &bursts {
                    let frames = || -> Vec<Frame> {
                        let frame = |(packet, last, port): &(Vec<u8>, u8, u16)| {
                            let mut frame = frame(packet, 0);
                            *frame.data_mut().last_mut().unwrap() = *last;
                            frame.port = *port;
                            frame
                        };
                        burst.iter().map(frame).collect()
                    };
                    let (mut one_by_one, mut together) = (frames(), frames());
                    let mut fates = Vec::new();
                    let mut bound = plain.bind(generation);
                    for frame in &mut one_by_one {
                        fates.push(Fate::Done(bound.run(frame).unwrap()));
                    }
                    let (mut bound, mut done) = (fast.bind(generation), 0);
                    while done < together.len() {
                        let n = bound.run_burst(&mut together[done..]);
                        for place in 0..n {
                            prop_assert_eq!(bound.fate(place), fates[done + place]);
                        }
                        done += n;
                    }
                    for (one, other) in one_by_one.iter().zip(&together) {
                        prop_assert_eq!(one.data(), other.data());
                    }
                    sent.set(
                        sent.get()
                            + fates
                                .iter()
                                .filter(|f| matches!(f, Fate::Done(Verdict::Send(_))))
                                .count(),
                    );
                    let packets: Vec<_> = together.iter().map(|f| f.data().to_vec()).collect();
                    out.push((fates, packets));
                }
                prop_assert_eq!(plain.tables().counters(), fast.tables().counters());
                results.push((out, fast.tables().counters()));
            }
            for pair in results.windows(2) {
                prop_assert_eq!(&pair[0], &pair[1]);
            }
            Ok(())
        })
        .unwrap();
    assert!(sent.get() > 500, "only {} packets were sent", sent.get());
}
