//! Simulated ports: order, bounds, faults, links, time.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use nic_sim::port::{InjectError, SimConfig, SimHandle, build};
use nic_sim::{Faults, SimPort};
use nic_target::frame::MAX_FRAME;
use nic_target::{Frame, FramePool, Port, Rx, Tx};

fn one(config: SimConfig) -> (SimPort, SimHandle) {
    let (mut ports, handle) = build(&config);
    (ports.remove(0), handle)
}

/// Receives everything that waits, in bursts of 4.
fn drain(port: &mut SimPort) -> Vec<(u64, Vec<u8>)> {
    let (mut pool, mut burst, mut all) = (FramePool::new(4), Vec::new(), Vec::new());
    while let Rx::Received(1..) = port.rx(9, &mut pool, &mut burst, 4).unwrap() {
        for frame in burst.drain(..) {
            assert_eq!(frame.port, 9);
            all.push((frame.timestamp_ns, frame.data().to_vec()));
            pool.give(frame);
        }
    }
    assert_eq!(pool.available(), 4);
    all
}

fn frames(n: u8) -> impl Iterator<Item = Vec<u8>> {
    (0..n).map(|i| vec![i; 60])
}

#[test]
fn frames_arrive_in_order_at_the_virtual_time_of_their_injection() {
    let (mut port, mut sim) = one(SimConfig::default());
    sim.inject(0, &[1; 20]).unwrap();
    sim.advance(7);
    sim.inject(0, &[2; 30]).unwrap();
    sim.inject_at(0, 100, &[3; 40]).unwrap();
    sim.inject_at(0, 50, &[4; 50]).unwrap();
    let want = [
        (0, vec![1; 20]),
        (7, vec![2; 30]),
        (100, vec![3; 40]),
        (100, vec![4; 50]),
    ];
    assert_eq!(drain(&mut port), want);
    assert_eq!(sim.now_ns(), 100);
    assert!(port.virtual_time());
}

#[test]
fn a_full_ingress_queue_refuses_and_counts() {
    let (mut port, mut sim) = one(SimConfig {
        ingress_queue: 3,
        ..SimConfig::default()
    });
    let results = frames(5).map(|f| sim.inject(0, &f)).collect::<Vec<_>>();
    let full = Err(InjectError::QueueFull { port: 0 });
    assert_eq!(results, [Ok(()), Ok(()), Ok(()), full, full]);
    assert_eq!(drain(&mut port).len(), 3);
    let counters = sim.counters(0).unwrap();
    assert_eq!((counters.received, counters.ingress_full), (3, 2));
}

#[test]
fn a_full_egress_queue_drops_counts_and_keeps_no_buffer() {
    let (mut port, mut sim) = one(SimConfig {
        egress_queue: 2,
        ..SimConfig::default()
    });
    let mut pool = FramePool::new(0);
    let mut burst = frames(3)
        .map(|data| {
            let mut frame = Frame::new();
            frame.fill(&data);
            frame
        })
        .collect();
    assert_eq!(
        port.tx(&mut pool, &mut burst).unwrap(),
        Tx {
            sent: 2,
            octets: 120,
            dropped: 1
        }
    );
    assert_eq!((pool.available(), burst.len()), (3, 0));
    let sent = std::iter::from_fn(|| sim.collect())
        .map(|s| s.data[0])
        .collect::<Vec<_>>();
    assert_eq!(sent, [0, 1]);
    assert_eq!(sim.counters(0).unwrap().egress_full, 1);
}

#[test]
fn a_link_that_is_down_drops_both_ways() {
    let (mut port, mut sim) = one(SimConfig::default());
    assert!(sim.set_link(0, false));
    assert!(!sim.set_link(1, false), "there is no port 1");
    sim.inject(0, &[0; 60]).unwrap();
    assert_eq!(drain(&mut port), []);
    let mut frame = Frame::new();
    frame.fill(&[0; 60]);
    let mut pool = FramePool::new(0);
    assert_eq!(
        port.tx(&mut pool, &mut vec![frame]).unwrap(),
        Tx {
            sent: 0,
            octets: 0,
            dropped: 1
        }
    );
    sim.set_link(0, true);
    sim.inject(0, &[5; 60]).unwrap();
    assert_eq!(drain(&mut port), [(0, vec![5; 60])]);
    let c = sim.counters(0).unwrap();
    assert_eq!(
        (c.ingress_link_down, c.egress_link_down, c.received),
        (1, 1, 1)
    );
}

#[test]
fn a_frame_longer_than_the_port_sends_is_dropped() {
    let (mut port, mut sim) = one(SimConfig {
        max_frame: 100,
        ..SimConfig::default()
    });
    let (mut pool, mut burst) = (FramePool::new(2), Vec::new());
    for len in [100, 101] {
        sim.inject(0, &vec![0; len]).unwrap();
    }
    port.rx(0, &mut pool, &mut burst, 8).unwrap();
    assert_eq!(
        port.tx(&mut pool, &mut burst).unwrap(),
        Tx {
            sent: 1,
            octets: 100,
            dropped: 1
        }
    );
    assert_eq!(sim.counters(0).unwrap().too_long, 1);
    assert_eq!(
        sim.inject(0, &[0; MAX_FRAME + 1]),
        Err(InjectError::TooLong { len: MAX_FRAME + 1 })
    );
    assert_eq!(
        sim.inject(3, &[0]),
        Err(InjectError::NoPort { port: 3, last: 0 })
    );
}

#[test]
fn a_closed_port_ends_after_what_is_queued() {
    let (mut port, mut sim) = one(SimConfig::default());
    let (mut pool, mut burst) = (FramePool::new(2), Vec::new());
    assert_eq!(
        port.rx(0, &mut pool, &mut burst, 8).unwrap(),
        Rx::Received(0)
    );
    sim.inject(0, &[1; 60]).unwrap();
    sim.close();
    assert_eq!(
        sim.inject(0, &[1; 60]),
        Err(InjectError::Closed { port: 0 })
    );
    assert_eq!(
        port.rx(0, &mut pool, &mut burst, 8).unwrap(),
        Rx::Received(1)
    );
    assert_eq!(port.rx(0, &mut pool, &mut burst, 8).unwrap(), Rx::End);
}

#[test]
fn no_frame_is_lost_while_the_pool_is_empty() {
    let (mut port, mut sim) = one(SimConfig::default());
    frames(3).for_each(|f| sim.inject(0, &f).unwrap());
    let (mut empty, mut burst) = (FramePool::new(0), Vec::new());
    assert_eq!(
        port.rx(0, &mut empty, &mut burst, 8).unwrap(),
        Rx::Received(0)
    );
    assert_eq!(drain(&mut port).len(), 3);
}

fn with_faults(faults: Faults, n: u8) -> (Vec<Vec<u8>>, nic_sim::port::SimCounters) {
    let (mut port, mut sim) = one(SimConfig {
        faults,
        ..SimConfig::default()
    });
    frames(n).for_each(|f| sim.inject(0, &f).unwrap());
    let got = drain(&mut port).into_iter().map(|(_, data)| data).collect();
    (got, sim.counters(0).unwrap())
}

const ALWAYS: u32 = 1_000_000;

#[test]
fn each_fault_does_what_it_says_and_counts() {
    let (got, c) = with_faults(
        Faults {
            loss: ALWAYS,
            ..Faults::default()
        },
        9,
    );
    assert_eq!((got.len(), c.lost, c.received), (0, 9, 0));

    let (got, c) = with_faults(
        Faults {
            duplicate: ALWAYS,
            ..Faults::default()
        },
        3,
    );
    assert_eq!(
        got.iter().map(|d| d[0]).collect::<Vec<_>>(),
        [0, 0, 1, 1, 2, 2]
    );
    assert_eq!((c.duplicated, c.received), (3, 6));

    let (got, c) = with_faults(
        Faults {
            corrupt: ALWAYS,
            ..Faults::default()
        },
        50,
    );
    for (sent, got) in frames(50).zip(&got) {
        let flipped: u32 = sent
            .iter()
            .zip(got)
            .map(|(a, b)| (a ^ b).count_ones())
            .sum();
        assert_eq!((flipped, got.len()), (1, 60));
    }
    assert_eq!(c.corrupted, 50);

    let (got, c) = with_faults(
        Faults {
            truncate: ALWAYS,
            ..Faults::default()
        },
        50,
    );
    assert!(got.iter().all(|d| d.len() < 60) && got.len() == 50);
    assert_eq!(c.truncated, 50);
}

#[test]
fn reordering_loses_nothing_and_moves_frames_behind_their_followers() {
    // Every frame would be held, but one at a time: each pair is swapped.
    let (got, c) = with_faults(
        Faults {
            reorder: ALWAYS,
            ..Faults::default()
        },
        7,
    );
    assert_eq!(
        got.iter().map(|d| d[0]).collect::<Vec<_>>(),
        [1, 0, 3, 2, 5, 4, 6]
    );
    assert_eq!(c.reordered, 4);

    let (mut got, _) = with_faults(
        Faults {
            seed: 3,
            reorder: ALWAYS / 4,
            ..Faults::default()
        },
        200,
    );
    assert_ne!(got, frames(200).collect::<Vec<_>>());
    got.sort();
    assert_eq!(got, frames(200).collect::<Vec<_>>());
}

#[test]
fn a_run_is_a_function_of_the_seed() {
    let all = |seed| Faults {
        seed,
        loss: 100_000,
        duplicate: 100_000,
        reorder: 100_000,
        corrupt: 100_000,
        truncate: 100_000,
    };
    assert_eq!(with_faults(all(1), 255), with_faults(all(1), 255));
    assert_ne!(with_faults(all(1), 255).0, with_faults(all(2), 255).0);
}

#[test]
fn a_worker_on_another_thread_forwards_between_ports() {
    let (mut ports, mut sim) = build(&SimConfig {
        ports: 2,
        ..SimConfig::default()
    });
    let worker = std::thread::spawn(move || {
        let (mut pool, mut burst) = (FramePool::new(8), Vec::new());
        let (a, b) = ports.split_at_mut(1);
        loop {
            match a[0].rx(0, &mut pool, &mut burst, 8).unwrap() {
                Rx::End => return,
                Rx::Received(0) => a[0].idle(),
                Rx::Received(_) => {
                    b[0].tx(&mut pool, &mut burst).unwrap();
                }
            }
        }
    });
    for (i, frame) in (0u64..).zip(frames(100)) {
        sim.inject_at(0, i, &frame).unwrap();
        let sent = sim
            .collect_within(std::time::Duration::from_secs(30))
            .expect("the worker forwards it");
        assert_eq!((sent.port, sent.timestamp_ns, sent.data), (1, i, frame));
    }
    sim.close();
    worker.join().unwrap();
}
