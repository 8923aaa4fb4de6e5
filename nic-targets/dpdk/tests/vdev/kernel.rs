//! Devices over Linux interfaces and files: net_af_packet, net_tap, net_pcap. Interfaces are in a
//! network namespace that dies with the test.

use std::process::Command;

use nic_dpdk::{Config, DpdkDevice, DpdkPort};
use nic_sim::{CaptureWriter, read_capture};
use nic_target::{Device as _, FramePool, Link, Port as _, Rx};

use crate::common::{
    alone, alone_under, eal, frame, number, receive, receive_n, send, single, xstat,
};

/// Runs an ignored test in a network namespace of its own.
fn in_namespace(test: &str) {
    let probe = Command::new("unshare")
        .args(["--net", "ip", "link", "add", "va", "type", "veth"])
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIP: no network namespace with veth here (needs root)");
        return;
    }
    alone_under(&["unshare", "--net"], test);
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}");
}

/// Keeps the kernel's own frames off the interfaces.
fn quiet() {
    for which in ["all", "default"] {
        let file = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        std::fs::write(file, "1").unwrap();
    }
}

/// Waits, generously, until the link is as wanted.
fn wait_for(device: &mut DpdkDevice, wanted: impl Fn(Link) -> bool) {
    for _ in 0..3000 {
        if wanted(device.link()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let link = device.link();
    panic!("{} is {link:?}", device.name());
}

/// Sends until something arrives, then takes all of it: new links lose what is sent early.
fn warm_up(from: &mut DpdkPort, to: &mut DpdkPort) {
    for _ in 0..3000 {
        send(from, vec![frame(u32::MAX, 60)]);
        std::thread::sleep(std::time::Duration::from_millis(10));
        if !receive(to, 32).is_empty() {
            while !receive(to, 32).is_empty() {}
            return;
        }
    }
    panic!("nothing arrives");
}

#[test]
fn af_packet_carries_frames_over_a_veth_and_sees_it_vanish() {
    in_namespace("kernel::inside_af_packet");
}

#[test]
#[ignore = "run by af_packet_carries_frames_over_a_veth_and_sees_it_vanish"]
fn inside_af_packet() {
    quiet();
    ip("link add va type veth peer name vb");
    ip("link set va up");
    ip("link set vb up");
    let eal = eal(&["net_af_packet0,iface=va", "net_af_packet1,iface=vb"]);
    let mut opened = single(&eal, &Config::default());
    let (mut device_b, mut b) = opened.remove(1);
    let (mut device_a, mut a) = opened.remove(0);
    assert_ne!(device_a.mac(), [0; 6]);
    assert!(matches!(device_a.link(), Link::Up(_)));
    warm_up(&mut a, &mut b);
    let tx = send(
        &mut a,
        (0..100).map(|n| frame(n, 60 + 10 * n as usize)).collect(),
    );
    assert_eq!((tx.sent, tx.dropped), (100, 0));
    let got = receive_n(&mut b, 100);
    for (n, one) in (0..).zip(&got) {
        assert_eq!(one.data(), frame(n, 60 + 10 * n as usize).data());
    }
    // And back, in the mbufs they came in.
    assert_eq!(send(&mut b, got).sent, 100);
    let numbers: Vec<u32> = receive_n(&mut a, 100).iter().filter_map(number).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    assert!(xstat(&mut device_a, "rx_good_packets") >= 100);

    ip("link del va");
    wait_for(&mut device_a, |link| link == Link::Gone);
    let (mut pool, mut burst) = (FramePool::new(0), Vec::new());
    assert_eq!(a.rx(0, &mut pool, &mut burst, 32).unwrap(), Rx::End);
    // The other end went with it. Its worker finds out by itself, when it is idle.
    let mut ended = false;
    for _ in 0..3000 {
        ended = b.rx(0, &mut pool, &mut burst, 32).unwrap() == Rx::End;
        if ended {
            break;
        }
        b.idle();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(ended);
    assert_eq!(device_b.link(), Link::Gone);
    // Sending out of what is gone is a drop or a loss, no more.
    let tx = send(&mut b, vec![frame(1, 60)]);
    assert_eq!(tx.sent + tx.dropped, 1);
}

#[test]
fn a_tap_carries_frames_and_its_link_flaps() {
    in_namespace("kernel::inside_tap");
}

#[test]
#[ignore = "run by a_tap_carries_frames_and_its_link_flaps"]
fn inside_tap() {
    quiet();
    if !std::path::Path::new("/dev/net/tun").exists() {
        eprintln!("SKIP: no /dev/net/tun here");
        return;
    }
    let eal = eal(&["net_tap0,iface=tapd"]);
    let mut opened = single(&eal, &Config::default());
    let (mut device, mut port) = opened.remove(0);
    wait_for(&mut device, |link| matches!(link, Link::Up(_)));
    let raw = nic_linux::AfPacketPort::open("tapd").unwrap();
    let mut raw = raw;
    // Both ways, until it arrives: a new link loses what is sent early.
    let (mut pool, mut burst) = (FramePool::new(64), Vec::new());
    let mut arrived = false;
    for n in 0..3000 {
        send(&mut port, vec![frame(n, 80)]);
        raw.idle();
        raw.rx(0, &mut pool, &mut burst, 32).unwrap();
        arrived = burst
            .iter()
            .any(|f| number(f).is_some_and(|m| m <= n) && f.len() == 80);
        burst.drain(..).for_each(|f| pool.give(f));
        if arrived {
            break;
        }
    }
    assert!(arrived);
    while !receive(&mut port, 32).is_empty() {}
    raw.tx(&mut pool, &mut vec![frame(77, 100)]).unwrap();
    let got = receive_n(&mut port, 1);
    assert_eq!(got[0].data(), frame(77, 100).data());

    for _ in 0..3 {
        ip("link set tapd down");
        wait_for(&mut device, |link| link == Link::Down);
        let tx = send(&mut port, vec![frame(1, 60)]);
        assert_eq!(tx.sent + tx.dropped, 1);
        assert!(receive(&mut port, 32).is_empty());
        ip("link set tapd up");
        wait_for(&mut device, |link| matches!(link, Link::Up(_)));
    }
    let mut back = false;
    for _ in 0..3000 {
        raw.tx(&mut pool, &mut vec![frame(78, 100)]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
        back = receive(&mut port, 32).iter().any(|f| number(f) == Some(78));
        if back {
            break;
        }
    }
    assert!(back, "frames are received after the link came back");
}

#[test]
fn a_capture_is_read_and_written() {
    alone("kernel::inside_pcap");
}

#[test]
#[ignore = "run by a_capture_is_read_and_written"]
fn inside_pcap() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let mut writer = CaptureWriter::create(&input).unwrap();
    let data = |n: u32| frame(n, 60 + 7 * n as usize).data().to_vec();
    for n in 0..200 {
        writer.write(u64::from(n) * 1000, &data(n)).unwrap();
    }
    writer.finish().unwrap();
    let vdev = format!(
        "net_pcap0,rx_pcap={},tx_pcap={}",
        input.display(),
        output.display()
    );
    let eal = eal(&[&vdev]);
    let mut opened = single(&eal, &Config::default());
    let port = &mut opened[0].1;
    let mut seen = 0;
    while seen < 200 {
        let burst = receive(port, 32);
        seen += burst.len();
        assert_eq!(send(port, burst).dropped, 0);
    }
    assert!(receive(port, 32).is_empty());
    // Closed when its last user is gone, which writes the file out.
    drop(opened);
    let written: Vec<_> = read_capture(&output).unwrap().map(Result::unwrap).collect();
    assert_eq!(written.len(), 200);
    for (n, one) in (0..).zip(&written) {
        assert_eq!(one.data, data(n));
    }
}
