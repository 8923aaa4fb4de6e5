//! Raw socket ports over a veth pair, in a network namespace that dies with the test.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};

use nic_linux::sys::netdev;
use nic_linux::{AfPacketPort, LinuxDevice};
use nic_sim::checksum::Sum;
use nic_sim::packet::tcp_flags::{ACK, SYN};
use nic_sim::{Packet, describe};
use nic_target::{Device, FramePool, Link, Port, Rx, Tx};

use netns::{in_namespace, ip};
use traffic::{receive, receive_until, send, warm_up};

#[path = "support/netns.rs"]
mod netns;
#[path = "support/traffic.rs"]
mod traffic;

/// `va` and `vb`, up and quiet.
fn veth() -> (AfPacketPort, AfPacketPort) {
    netns::enter();
    ip("link add va type veth peer name vb");
    ip("link set va up");
    ip("link set vb up");
    let (mut a, mut b) = (
        AfPacketPort::open("va").unwrap(),
        AfPacketPort::open("vb").unwrap(),
    );
    warm_up(&mut a, &mut b);
    warm_up(&mut b, &mut a);
    (a, b)
}

#[test]
fn frames_cross_in_order_whole_and_do_not_come_back() {
    in_namespace("inside_frames_cross");
}

#[test]
#[ignore = "run in its own namespace by frames_cross_in_order_whole_and_do_not_come_back"]
fn inside_frames_cross() {
    let (mut a, mut b) = veth();
    assert_eq!(
        (a.name(), a.device().mtu, a.device().up),
        ("va", 1500, true)
    );
    let (from, to) = (a.mac(), b.mac());
    let frame = |i: usize| {
        Packet::eth(to, from)
            .ethertype(0x88b5)
            .payload(vec![i as u8; 46 + i * 11])
            .build()
    };
    let sent = (0..100).map(frame).collect::<Vec<_>>();
    assert_eq!(
        send(&mut a, &sent),
        Tx {
            sent: 100,
            octets: sent.iter().map(|frame| frame.len() as u64).sum(),
            dropped: 0
        }
    );
    assert_eq!(receive(&mut b, 100), sent);
    // One more from the other side: if `a` saw its own frames, they would come first.
    let back = Packet::eth(from, to)
        .ethertype(0x88b5)
        .payload([7; 46])
        .build();
    send(&mut b, [&back]);
    assert_eq!(receive(&mut a, 1), [back]);
    // A frame for another station is seen too: the port is promiscuous.
    let foreign = Packet::eth([2; 6], [4; 6])
        .ethertype(0x88b5)
        .payload([8; 46])
        .build();
    send(&mut a, [&foreign]);
    assert_eq!(receive(&mut b, 1), [foreign]);
}

#[test]
fn jumbo_frames_pass_and_frames_past_the_mtu_are_dropped_alone() {
    in_namespace("inside_mtu");
}

#[test]
#[ignore = "run in its own namespace by jumbo_frames_pass_and_frames_past_the_mtu_are_dropped_alone"]
fn inside_mtu() {
    let (mut a, mut b) = veth();
    let frame = |len: usize| {
        Packet::eth([2; 6], [4; 6])
            .ethertype(0x88b5)
            .payload(vec![1; len])
            .build()
    };
    assert_eq!(
        send(&mut a, [frame(1500), frame(1600), frame(60)]),
        Tx {
            sent: 2,
            octets: (frame(1500).len() + frame(60).len()) as u64,
            dropped: 1
        }
    );
    assert_eq!(a.counters().tx_too_long, 1);
    assert_eq!(receive(&mut b, 2), [frame(1500), frame(60)]);
    // The longest frame a buffer holds, and one byte more than that.
    ip("link set va mtu 9600");
    ip("link set vb mtu 9600");
    let longest = nic_target::frame::MAX_FRAME - 14;
    assert_eq!(
        send(&mut a, [frame(longest)]),
        Tx {
            sent: 1,
            octets: longest as u64 + 14,
            dropped: 0
        }
    );
    assert_eq!(receive(&mut b, 1), [frame(longest)]);
    // A packet of the whole MTU from the kernel is longer than a buffer with its Ethernet header.
    ip("addr add 10.9.0.1/24 dev va");
    ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:99 dev va");
    let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
    socket.send_to(&[0; 9_600 - 28], "10.9.0.2:9").unwrap();
    receive_until(&mut b, |_, b| b.counters().too_long == 1);
}

#[test]
fn vlan_tags_stay_in_the_frame() {
    in_namespace("inside_vlan");
}

#[test]
#[ignore = "run in its own namespace by vlan_tags_stay_in_the_frame"]
fn inside_vlan() {
    let (mut a, mut b) = veth();
    let tagged = Packet::eth([2; 6], [4; 6])
        .vlan(77)
        .ipv4([1, 1, 1, 1], [2, 2, 2, 2])
        .udp(1, 2)
        .payload([9; 30])
        .build();
    send(&mut a, [&tagged]);
    assert_eq!(receive(&mut b, 1), [tagged]);
}

#[test]
fn checksums_left_open_by_the_stack_arrive_complete() {
    in_namespace("inside_checksum");
}

/// Checksum of the transport part of an untagged IPv4 frame without options: 0 when right.
fn transport_sum(frame: &[u8]) -> u16 {
    let addr =
        |at: usize| std::net::Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let body = &frame[34..14 + total];
    Sum::new()
        .pseudo_v4(addr(26), addr(30), frame[23], body.len() as u32)
        .with(body)
        .finish()
}

#[test]
#[ignore = "run in its own namespace by checksums_left_open_by_the_stack_arrive_complete"]
fn inside_checksum() {
    let (_a, mut b) = veth();
    ip("addr add 10.9.0.1/24 dev va");
    ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:99 dev va");
    let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
    for len in [0, 1, 32, 333, 1472] {
        socket.send_to(&vec![0x5a; len], "10.9.0.2:9").unwrap();
        let frame = receive(&mut b, 1).remove(0);
        assert_eq!(
            (frame.len(), &frame[..6]),
            (42 + len, &[2, 0, 0, 0, 0, 0x99][..])
        );
        assert_eq!(transport_sum(&frame), 0, "{}", describe(&frame));
    }
    assert_eq!(b.counters().bad_offload, 0);
}

#[test]
fn large_segments_are_dropped_and_counted_until_offloads_are_off() {
    in_namespace("inside_gso");
}

#[test]
#[ignore = "run in its own namespace by large_segments_are_dropped_and_counted_until_offloads_are_off"]
fn inside_gso() {
    let (a, mut b) = veth();
    ip("addr add 10.9.0.1/24 dev va");
    ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:99 dev va");
    // The far side of a TCP connection, by hand: its SYN-ACK, and never an acknowledgment after.
    let client = std::thread::spawn(|| TcpStream::connect("10.9.0.2:80"));
    let syn = receive(&mut b, 1).remove(0);
    let number = |at: usize| u32::from_be_bytes(syn[at..at + 4].try_into().unwrap());
    let sport = u16::from_be_bytes([syn[34], syn[35]]);
    let syn_ack = Packet::eth(a.mac(), [2, 0, 0, 0, 0, 0x99])
        .ipv4([10, 9, 0, 2], [10, 9, 0, 1])
        .tcp(80, sport)
        .flags(SYN | ACK)
        .numbers(1000, number(38).wrapping_add(1))
        .build();
    assert_eq!(
        send(&mut b, [&syn_ack]),
        Tx {
            sent: 1,
            octets: syn_ack.len() as u64,
            dropped: 0
        }
    );
    let mut stream = client
        .join()
        .unwrap()
        .expect("the kernel takes our SYN-ACK");
    stream.write_all(&[0x77; 20_000]).unwrap();
    receive_until(&mut b, |_, b| b.counters().gso_dropped > 0);
    // Retransmissions then come in frames that a wire could carry.
    netdev::disable_offloads("va").unwrap();
    let data = |frames: &[Vec<u8>]| frames.iter().filter(|f| f.len() > 500).count();
    let dropped = b.counters().gso_dropped;
    let got = receive_until(&mut b, |got, _| data(got) >= 2);
    assert!(
        got.iter()
            .all(|frame| frame.len() <= 1514 && transport_sum(frame) == 0)
    );
    assert!(b.counters().gso_dropped >= dropped);
}

#[test]
fn a_link_that_goes_down_comes_back_and_a_removed_interface_ends() {
    in_namespace("inside_link");
}

#[test]
#[ignore = "run in its own namespace by a_link_that_goes_down_comes_back_and_a_removed_interface_ends"]
fn inside_link() {
    let (mut a, mut b) = veth();
    let frame = Packet::eth([2; 6], [4; 6])
        .ethertype(0x88b5)
        .payload([1; 46])
        .build();
    ip("link set vb down");
    assert_eq!(
        send(&mut b, [&frame]),
        Tx {
            sent: 0,
            octets: 0,
            dropped: 1
        }
    );
    let (mut pool, mut burst) = (FramePool::new(4), Vec::new());
    for _ in 0..20 {
        assert_eq!(b.rx(0, &mut pool, &mut burst, 4).unwrap(), Rx::Received(0));
        b.idle();
    }
    ip("link set vb up");
    // Receives again, and sends again.
    warm_up(&mut a, &mut b);
    warm_up(&mut b, &mut a);
    ip("link del va");
    for port in [&mut a, &mut b] {
        let ended = (0..30_000).any(|_| {
            port.idle();
            port.rx(0, &mut pool, &mut burst, 4).unwrap() == Rx::End
        });
        assert!(ended, "{} is gone", port.name());
        assert_eq!(port.rx(0, &mut pool, &mut burst, 4).unwrap(), Rx::End);
    }
    assert_eq!(pool.available(), 4);
}

#[test]
fn several_workers_share_an_interface_by_flow() {
    in_namespace("inside_fanout");
}

#[test]
#[ignore = "run in its own namespace by several_workers_share_an_interface_by_flow"]
fn inside_fanout() {
    let (mut a, _) = veth();
    let mut workers = AfPacketPort::open_for("vb", 3).unwrap();
    let packet = |flow: u16, number: u8| {
        Packet::eth([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
            .udp(1000 + flow, 2000)
            .payload([number; 20])
            .build()
    };
    // Who gets a flow's first packet gets its others, in order.
    let mut owners = [0; 3];
    for flow in 0..40 {
        let sent = (0..4)
            .map(|number| packet(flow, number))
            .collect::<Vec<_>>();
        assert_eq!(send(&mut a, &sent).sent, 4);
        let (mut pool, mut burst) = (FramePool::new(64), Vec::new());
        let owner = (0..30_000).find_map(|round| {
            let at = round % 3;
            workers[at].idle();
            let got = workers[at].rx(0, &mut pool, &mut burst, 1).unwrap();
            (got == Rx::Received(1)).then_some(at)
        });
        let owner = owner.expect("somebody gets it");
        owners[owner] += 1;
        assert_eq!(burst[0].data(), sent[0]);
        assert_eq!(receive(&mut workers[owner], 3), sent[1..]);
    }
    assert!(owners.iter().filter(|&&n| n > 0).count() > 1, "{owners:?}");
    // Nobody sees what a worker sends.
    send(&mut workers[0], [packet(0, 9)]);
    receive(&mut a, 1);
    let (mut pool, mut burst) = (FramePool::new(64), Vec::new());
    for port in &mut workers {
        port.idle();
        let got = port.rx(0, &mut pool, &mut burst, 1).unwrap();
        assert_eq!(got, Rx::Received(0));
    }
}

#[test]
fn control_sees_link_and_counters() {
    in_namespace("inside_device");
}

#[test]
#[ignore = "run in its own namespace by control_sees_link_and_counters"]
fn inside_device() {
    let (mut a, b) = veth();
    let mut device = LinuxDevice::of_afpacket([&a]).unwrap();
    assert_eq!((device.name(), device.mac()), ("va", a.mac()));
    assert!(matches!(device.link(), Link::Up(_)), "{:?}", device.link());
    let get = |device: &mut LinuxDevice, name: &str| {
        let all = device.xstats().unwrap();
        let found = all.iter().find(|(n, _)| n == name);
        found.unwrap_or_else(|| panic!("{name} in {all:?}")).1
    };
    // What came before it was opened does not count.
    assert_eq!(get(&mut device, "tx_packets"), 0);
    send(&mut a, [[0x5a; 100], [0xa5; 100]]);
    send(&mut a, [[0x5a; 1600]]);
    assert_eq!(get(&mut device, "tx_packets"), 2);
    assert_eq!(get(&mut device, "tx_bytes"), 200);
    assert_eq!(get(&mut device, "dashwire_tx_too_long"), 1);
    // The driver's own (ethtool -S).
    assert_ne!(get(&mut device, "peer_ifindex"), u64::MAX);
    ip("link set vb down");
    assert_eq!(device.link(), Link::Down);
    ip("link set vb up");
    assert!(matches!(device.link(), Link::Up(_)));
    drop(b);
    ip("link del va");
    assert_eq!(device.link(), Link::Gone);
    assert_eq!(get(&mut device, "dashwire_tx_too_long"), 1);
}

#[test]
fn an_interface_that_is_none_is_refused() {
    let error = AfPacketPort::open("no-such-if0").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{error}");
    let error = AfPacketPort::open("a-name-longer-than-ifreq").unwrap_err();
    assert!(
        error.raw_os_error() == Some(libc::ENODEV)
            || error.kind() == std::io::ErrorKind::InvalidInput,
        "{error}"
    );
}
