//! Ports over devices that are memory only: net_null and net_ring.

use crate::common::{alone, eal, frame, number, receive, receive_n, send, single, xstat};
use nic_dpdk::{Config, Error, HEADROOM};
use nic_target::frame::MAX_FRAME;
use nic_target::{Device as _, Frame, FramePool, Link, Port as _};

#[test]
fn null_gives_bursts_that_are_sent_without_a_copy() {
    alone("memory::inside_null");
}

#[test]
#[ignore = "run by null_gives_bursts_that_are_sent_without_a_copy"]
fn inside_null() {
    let eal = eal(&["net_null0,size=90"]);
    let mut opened = single(&eal, &Config::default());
    let (device, port) = &mut opened[0];
    assert_eq!((device.name(), port.name()), ("net_null0", "net_null0"));
    assert_eq!(device.mac(), port.mac());
    assert!(matches!(device.link(), Link::Up(_)));
    port.start().unwrap();
    let free = device.free_buffers();
    let mut rounds = 0;
    for _ in 0..1000 {
        let mut burst = receive(port, 32);
        assert_eq!(burst.len(), 32);
        for frame in &mut burst {
            assert_eq!(frame.len(), 90);
            let (buffer, start, end) = frame.parts_mut();
            assert!(start >= HEADROOM && buffer.len() - end >= 1500);
            // An encap of all the headroom, as programs do it.
            assert!(frame.set_bounds(start - HEADROOM, end));
            frame.data_mut().fill(7);
        }
        let tx = send(port, burst);
        assert_eq!((tx.sent, tx.dropped), (32, 0));
        assert_eq!(tx.octets, 32 * (90 + HEADROOM as u64));
        rounds += 1;
    }
    assert_eq!(xstat(device, "rx_good_packets"), rounds * 32);
    assert_eq!(xstat(device, "tx_good_packets"), rounds * 32);
    assert_eq!(device.free_buffers(), free, "every mbuf is back");
    assert_eq!(receive(port, 5).len(), 5);
}

#[test]
fn ring_loops_frames_back_whole_and_in_order() {
    alone("memory::inside_ring");
}

#[test]
#[ignore = "run by ring_loops_frames_back_whole_and_in_order"]
fn inside_ring() {
    let eal = eal(&["net_ring0"]);
    let mut opened = single(&eal, &Config::default());
    let (device, port) = &mut opened[0];
    let free = device.free_buffers();
    // More than a burst of the driver, from memory of our own.
    let lengths = [60, 64, 1514, 9100];
    let made = (0..100).map(|n| frame(n, lengths[n as usize % 4]));
    let tx = send(port, made.collect());
    let octets = (0..100).map(|n| lengths[n % 4] as u64).sum::<u64>();
    assert_eq!((tx.sent, tx.dropped, tx.octets), (100, 0, octets));
    let got = receive_n(port, 100);
    for (n, one) in (0..).zip(&got) {
        assert_eq!(one.data(), frame(n, lengths[n as usize % 4]).data());
    }
    // Those came in mbufs: now they go out in them, with other bounds.
    let shifted = got.into_iter().map(|mut frame| {
        let (_, start, end) = frame.parts_mut();
        assert!(frame.set_bounds(start - 100, end));
        frame.data_mut()[..14].fill(0xee);
        frame
    });
    assert_eq!(send(port, shifted.collect()).sent, 100);
    let mut seen = 0;
    while seen < 100 {
        for frame in receive(port, 32) {
            assert_eq!(frame.len(), lengths[seen % 4] + 100);
            assert_eq!(frame.data()[..14], [0xee; 14]);
            assert_eq!(frame.data()[114..118], (seen as u32).to_be_bytes());
            seen += 1;
        }
    }
    assert_eq!(device.free_buffers(), free, "every mbuf is back");
}

#[test]
fn what_cannot_be_sent_is_dropped_and_counted() {
    alone("memory::inside_drops");
}

#[test]
#[ignore = "run by what_cannot_be_sent_is_dropped_and_counted"]
fn inside_drops() {
    let eal = eal(&["net_ring0"]);
    let config = Config {
        mtu: Some(1500),
        ..Config::default()
    };
    let mut opened = single(&eal, &config);
    let (device, port) = &mut opened[0];
    let mut short = Frame::new();
    assert!(short.fill(&[1; 13]));
    let tx = send(
        port,
        vec![
            frame(0, 1518),
            frame(1, 1519),
            frame(2, MAX_FRAME),
            short,
            Frame::new(),
        ],
    );
    assert_eq!((tx.sent, tx.octets, tx.dropped), (1, 1518, 4));
    assert_eq!(xstat(device, "port_tx_bad_length_dropped"), 4);
    // The ring holds 1,023 or so: the rest finds it full.
    let tx = send(port, (0..1500).map(|n| frame(n, 60)).collect());
    assert!(tx.sent > 900 && tx.dropped > 300, "{tx:?}");
    assert_eq!(tx.octets, 60 * tx.sent as u64);
    assert_eq!(
        xstat(device, "port_tx_queue_full_dropped"),
        tx.dropped as u64
    );
    let got = receive_n(port, tx.sent + 1);
    let numbers: Vec<u32> = got.iter().skip(1).filter_map(number).collect();
    assert_eq!(numbers, (0..tx.sent as u32).collect::<Vec<_>>());
}

#[test]
fn exhausted_buffers_stop_receiving_and_nothing_else() {
    alone("memory::inside_exhaustion");
}

#[test]
#[ignore = "run by exhausted_buffers_stop_receiving_and_nothing_else"]
fn inside_exhaustion() {
    let eal = eal(&["net_null0", "net_ring0"]);
    let config = Config {
        mbufs: Some(300),
        ..Config::default()
    };
    let mut opened = single(&eal, &config);
    let mut held: Vec<Frame> = Vec::new();
    for _ in 0..100 {
        held.extend(receive(&mut opened[0].1, 32));
    }
    // Bursts of the driver are all or nothing.
    assert!((268..=300).contains(&held.len()), "{}", held.len());
    assert!(receive(&mut opened[0].1, 32).is_empty());
    // Out of the other device what is held goes without a new mbuf; what is not finds none.
    held.extend(receive(&mut opened[0].1, 300 - held.len()));
    assert_eq!((held.len(), opened[0].0.free_buffers()), (300, 0));
    let (device, ring) = &mut opened[1];
    let tx = send(ring, vec![frame(1, 60), held.pop().unwrap(), frame(2, 60)]);
    assert_eq!((tx.sent, tx.dropped), (1, 2));
    assert_eq!(xstat(device, "port_tx_no_buffer_dropped"), 2);
    // It recovers when they come back, from another thread too.
    std::thread::spawn(move || drop(held)).join().unwrap();
    assert_eq!(receive(&mut opened[0].1, 32).len(), 32);
}

#[test]
fn frames_outlive_their_port_and_device() {
    alone("memory::inside_outlive");
}

#[test]
#[ignore = "run by frames_outlive_their_port_and_device"]
fn inside_outlive() {
    let eal = eal(&["net_null0,size=200", "net_ring0"]);
    let config = |ports: &[&str]| Config {
        ports: ports.iter().map(ToString::to_string).collect(),
        mbufs: Some(1000),
        mtu: Some(1500),
        ..Config::default()
    };
    let mut opened = single(&eal, &config(&["net_null0"]));
    let mut held = receive(&mut opened[0].1, 32);
    drop(opened);
    // Another pool comes where the first would be, had it been freed.
    let mut ring = single(&eal, &config(&["net_ring0"]));
    send(&mut ring[0].1, (0..500).map(|n| frame(n, 1514)).collect());
    for frame in &mut held {
        assert_eq!(frame.data(), [0; 200]);
        frame.data_mut().fill(9);
    }
    // Foreign mbufs are sent like any other.
    let last = held.split_off(16);
    assert_eq!(send(&mut ring[0].1, held).sent, 16);
    let got = receive_n(&mut ring[0].1, 500);
    assert_eq!(got.len(), 500);
    drop((got, ring, eal));
    // EAL's end waits for the last frame: this memory is still there.
    assert!(last.iter().all(|frame| frame.data() == [9; 200]));
}

#[test]
fn queues_are_ports_and_too_few_are_refused() {
    alone("memory::inside_queues");
}

#[test]
#[ignore = "run by queues_are_ports_and_too_few_are_refused"]
fn inside_queues() {
    let eal = eal(&["net_null0", "net_ring0"]);
    let config = |queues, ports: &[&str]| Config {
        queues,
        ports: ports.iter().map(ToString::to_string).collect(),
        mtu: Some(1500),
        ..Config::default()
    };
    match nic_dpdk::open(&eal, &config(40, &["0", "net_ring0"])) {
        Err(Error::Queues {
            device,
            has,
            wanted,
        }) => {
            assert_eq!((device.as_str(), wanted), ("net_ring0", 40));
            assert!(has < 40);
        }
        other => panic!("{other:?}"),
    }
    let message = nic_dpdk::open(&eal, &config(1, &["2"]))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("0 (net_null0), 1 (net_ring0)"),
        "{message}"
    );

    let mut opened = nic_dpdk::open(&eal, &config(4, &["net_null0"])).unwrap();
    let (mut device, ports) = opened.remove(0);
    assert_eq!(ports.len(), 4);
    // Each on a thread of its own, as workers are; a thread serves more than one port, too.
    let threads = ports.into_iter().enumerate().map(|(n, mut port)| {
        std::thread::spawn(move || {
            port.start().unwrap();
            port.start().unwrap();
            let mut pool = FramePool::new(0);
            for _ in 0..=n {
                let mut burst = receive(&mut port, 32);
                assert_eq!(port.tx(&mut pool, &mut burst).unwrap().sent, 32);
            }
        })
    });
    threads
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|t| t.join().unwrap());
    for n in 0..4 {
        assert_eq!(
            xstat(&mut device, &format!("rx_q{n}_packets")),
            32 * (n + 1)
        );
    }
}
