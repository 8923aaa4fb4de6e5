//! AF_XDP ports over veth pairs, in a network namespace that dies with the test.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use std::sync::mpsc;
use std::thread;

use nic_linux::sys::xsk::CopyMode;
use nic_linux::xsk::open;
use nic_linux::{AfPacketPort, AttachError, AttachMode, XdpError, XdpOptions, XdpPort};
use nic_sim::Packet;
use nic_target::{Frame, FramePool, Port, Rx, Tx};

use netns::{in_namespace, ip};
use traffic::{receive, send, warm_up};

#[path = "support/netns.rs"]
mod netns;
#[path = "support/traffic.rs"]
mod traffic;

const ETHERTYPE: u16 = 0x88b5;

/// A frame of this many bytes of payload, told apart by `tag`.
fn frame(tag: u32, len: usize) -> Vec<u8> {
    let mut payload = tag.to_be_bytes().to_vec();
    payload.resize(len.max(46), tag as u8);
    Packet::eth([2; 6], [4; 6])
        .ethertype(ETHERTYPE)
        .payload(payload)
        .build()
}

fn small() -> XdpOptions {
    XdpOptions {
        frames: 128,
        ..XdpOptions::default()
    }
}

/// Ports of one worker.
fn ports(names: &[&str], options: &XdpOptions) -> Vec<XdpPort> {
    let names = names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
    let mut by_worker = open(&names, 1, options).unwrap();
    assert_eq!(by_worker.len(), 1);
    by_worker.remove(0)
}

/// A veth pair, up.
fn veth(a: &str, b: &str) {
    ip(&format!("link add {a} type veth peer name {b}"));
    up(a, b);
}

fn up(a: &str, b: &str) {
    for name in [a, b] {
        ip(&format!("link set {name} up"));
    }
}

/// Ports on both ends of a new pair `va`, `vb`, that carry.
fn pair(options: &XdpOptions) -> (XdpPort, XdpPort) {
    netns::enter();
    veth("va", "vb");
    let mut both = ports(&["va", "vb"], options);
    let (mut b, mut a) = (both.pop().unwrap(), both.pop().unwrap());
    a.start().unwrap();
    warm_up(&mut a, &mut b);
    warm_up(&mut b, &mut a);
    (a, b)
}

/// Fails unless every chunk is free or the kernel's to receive into, soon.
fn all_home(ports: &mut [&mut XdpPort]) {
    let mut census = (0, 0, 0, 0);
    for _ in 0..1000 {
        let umem = ports[0].umem().clone();
        let (mut filling, mut sending) = (0, 0);
        for port in ports.iter_mut() {
            let (mut pool, mut burst) = (FramePool::new(64), Vec::new());
            port.idle();
            port.rx(0, &mut pool, &mut burst, 64).unwrap();
            drop(burst);
            let (rx, tx) = port.in_kernel();
            filling += rx as usize;
            sending += tx;
        }
        census = (umem.free(), filling, sending, umem.chunks());
        if umem.free() + filling == umem.chunks() && sending == 0 {
            return;
        }
    }
    panic!("free, filled, sending, chunks: {census:?}");
}

#[test]
fn frames_cross_in_order_and_whole_natively() {
    in_namespace("inside_native");
}

#[test]
fn frames_cross_in_order_and_whole_in_skb_mode() {
    in_namespace("inside_skb");
}

#[test]
fn frames_cross_in_order_and_whole_with_busy_polling() {
    in_namespace("inside_busy");
}

#[test]
#[ignore = "run in its own namespace by frames_cross_in_order_and_whole_natively"]
fn inside_native() {
    cross(&XdpOptions {
        mode: CopyMode::Copy,
        attach: AttachMode::Native,
        ..small()
    });
}

#[test]
#[ignore = "run in its own namespace by frames_cross_in_order_and_whole_in_skb_mode"]
fn inside_skb() {
    cross(&XdpOptions {
        attach: AttachMode::Skb,
        ..small()
    });
}

#[test]
#[ignore = "run in its own namespace by frames_cross_in_order_and_whole_with_busy_polling"]
fn inside_busy() {
    cross(&XdpOptions {
        busy_poll: Some(20),
        ..small()
    });
}

fn cross(options: &XdpOptions) {
    let (mut a, mut b) = pair(options);
    assert_eq!((a.name(), a.device().mtu, a.queues()), ("va", 1500, 1));
    assert_eq!(a.zero_copy(), b.zero_copy());
    // Fewer than a ring at a time, so that none may be lost.
    for round in 0..20 {
        let sent = (0..50)
            .map(|i| frame(round * 50 + i, 46 + i as usize * 29))
            .collect::<Vec<_>>();
        let octets = sent.iter().map(|f| f.len() as u64).sum();
        let all = Tx {
            sent: 50,
            octets,
            dropped: 0,
        };
        let (from, to) = if round % 2 == 0 {
            (&mut a, &mut b)
        } else {
            (&mut b, &mut a)
        };
        assert_eq!(send(from, &sent), all);
        assert_eq!(receive(to, 50), sent);
    }
    let tagged = Packet::eth([2; 6], [4; 6])
        .vlan(77)
        .ipv4([1, 1, 1, 1], [2, 2, 2, 2])
        .udp(1, 2)
        .payload([9; 1472])
        .build();
    send(&mut a, [&tagged]);
    assert_eq!(receive(&mut b, 1), [tagged]);
    all_home(&mut [&mut a, &mut b]);
    let (sent, dropped) = (a.counters(), b.counters());
    assert_eq!((sent.tx_refused, dropped.tx_refused), (0, 0));
    assert!(sent.tx_copied >= 500);
}

#[test]
fn more_than_rings_hold_is_sent_and_an_overrun_receiver_recovers() {
    in_namespace("inside_overrun");
}

#[test]
#[ignore = "run in its own namespace by more_than_rings_hold_is_sent_and_an_overrun_receiver_recovers"]
fn inside_overrun() {
    let (mut a, mut b) = pair(&small());
    // Rings have 64 entries and there are 256 chunks.
    let burst = (0..500).map(|i| frame(i, 60)).collect::<Vec<_>>();
    let tx = send(&mut a, &burst);
    assert_eq!((tx.sent, tx.dropped), (500, 0));
    // What came is in order, each once; the rest the kernel had no chunk for.
    let mut last = None;
    let first = receive(&mut b, 1);
    let mut got = first;
    let (mut pool, mut burst) = (FramePool::new(4), Vec::new());
    for _ in 0..200 {
        b.idle();
        b.rx(0, &mut pool, &mut burst, 32).unwrap();
        got.extend(burst.drain(..).map(|frame| frame.data().to_vec()));
    }
    for data in got {
        let tag = u32::from_be_bytes(data[14..18].try_into().unwrap());
        assert_eq!(data, frame(tag, 60));
        assert!(last < Some(tag));
        last = Some(tag);
    }
    // And the next ones pass.
    let after = (1000..1030).map(|i| frame(i, 100)).collect::<Vec<_>>();
    send(&mut a, &after);
    assert_eq!(receive(&mut b, 30), after);
    all_home(&mut [&mut a, &mut b]);
}

#[test]
fn a_hundred_thousand_hops_lose_no_chunk_and_copy_nothing() {
    in_namespace("inside_leak");
}

#[test]
#[ignore = "run in its own namespace by a_hundred_thousand_hops_lose_no_chunk_and_copy_nothing"]
fn inside_leak() {
    let (mut a, mut b) = pair(&small());
    let copied = (a.counters().tx_copied, b.counters().tx_copied);
    let circling = (0..16).map(|i| frame(i, 200)).collect::<Vec<_>>();
    assert_eq!(send(&mut a, &circling).sent, 16);
    let (mut pool, mut burst, mut hops, mut empty) = (FramePool::new(0), Vec::new(), 0, 0);
    while hops < 100_000 {
        for port in [&mut b, &mut a] {
            let Rx::Received(n) = port.rx(0, &mut pool, &mut burst, 32).unwrap() else {
                panic!("the port ended")
            };
            assert!(burst.iter().all(Frame::is_lent));
            // Each is sent back from where it lies.
            let tx = port.tx(&mut pool, &mut burst).unwrap();
            assert_eq!((tx.sent, tx.dropped), (n, 0));
            hops += n;
            empty = if n == 0 { empty + 1 } else { 0 };
            if n == 0 {
                port.idle();
            }
            assert!(empty < 30_000, "frames were lost after {hops} hops");
        }
    }
    let (copied_a, copied_b) = copied;
    assert_eq!(
        (a.counters().tx_copied, b.counters().tx_copied),
        (copied_a + 16, copied_b)
    );
    // The sixteen are still whole.
    let mut got = Vec::new();
    for _ in 0..30_000 {
        for port in [&mut a, &mut b] {
            port.rx(0, &mut pool, &mut burst, 32).unwrap();
            port.idle();
        }
        got.extend(burst.drain(..).map(|f| f.data().to_vec()));
        if got.len() >= 16 {
            break;
        }
    }
    got.sort();
    assert_eq!(got, circling);
    all_home(&mut [&mut a, &mut b]);
}

#[test]
fn frames_are_forwarded_between_interfaces_from_where_they_lie() {
    in_namespace("inside_forward");
}

#[test]
#[ignore = "run in its own namespace by frames_are_forwarded_between_interfaces_from_where_they_lie"]
fn inside_forward() {
    netns::enter();
    veth("va", "vb");
    veth("vc", "vd");
    let mut through = ports(&["vb", "vc"], &small());
    let (mut out, mut into) = (through.pop().unwrap(), through.pop().unwrap());
    into.start().unwrap();
    let (mut near, mut far) = (
        AfPacketPort::open("va").unwrap(),
        AfPacketPort::open("vd").unwrap(),
    );
    warm_up(&mut near, &mut into);
    warm_up(&mut out, &mut far);
    let copied = out.counters().tx_copied;
    let (mut pool, mut burst) = (FramePool::new(0), Vec::new());
    for round in 0..50 {
        let sent = (0..20)
            .map(|i| frame(round * 20 + i, 60 + i as usize * 50))
            .collect::<Vec<_>>();
        assert_eq!(send(&mut near, &sent).sent, 20);
        let mut moved = 0;
        for _ in 0..30_000 {
            into.idle();
            into.rx(0, &mut pool, &mut burst, 32).unwrap();
            for frame in &mut burst {
                // As an encap does: the packet grows to the front, into the headroom.
                let (_, start, end) = frame.parts_mut();
                assert_eq!(start, 256);
                assert!(frame.set_bounds(start - 50, end));
                frame.data_mut()[..50].fill(0xe0);
            }
            moved += out.tx(&mut pool, &mut burst).unwrap().sent;
            if moved == 20 {
                break;
            }
        }
        let got = receive(&mut far, 20);
        for (got, sent) in got.iter().zip(&sent) {
            assert_eq!((&got[..50], &got[50..]), (&[0xe0; 50][..], &sent[..]));
        }
    }
    assert_eq!(out.counters().tx_copied, copied);
    all_home(&mut [&mut into, &mut out]);
}

#[test]
fn frames_go_back_from_another_thread_and_outlive_their_port() {
    in_namespace("inside_elsewhere");
}

#[test]
#[ignore = "run in its own namespace by frames_go_back_from_another_thread_and_outlive_their_port"]
fn inside_elsewhere() {
    let (mut a, mut b) = pair(&small());
    // Not far behind: frames that the other thread has are missing here.
    let (give, take) = mpsc::sync_channel::<Vec<Frame>>(1);
    let other = thread::spawn(move || take.into_iter().flatten().map(|f| f.len()).sum::<usize>());
    let (mut pool, mut burst, mut octets) = (FramePool::new(0), Vec::new(), 0);
    for round in 0..100 {
        octets += send(&mut a, (0..20).map(|i| frame(round * 20 + i, 60))).octets as usize;
        let mut got = 0;
        for _ in 0..30_000 {
            let Rx::Received(n) = b.rx(0, &mut pool, &mut burst, 32).unwrap() else {
                panic!("the port ended")
            };
            got += n;
            give.send(std::mem::take(&mut burst)).unwrap();
            if got == 20 {
                break;
            }
            b.idle();
        }
        assert_eq!(got, 20);
    }
    drop(give);
    assert_eq!(other.join().unwrap(), octets);
    all_home(&mut [&mut a, &mut b]);
    // Ports end before a frame does.
    send(&mut a, [frame(7, 60)]);
    for _ in 0..30_000 {
        b.idle();
        b.rx(0, &mut pool, &mut burst, 1).unwrap();
        if !burst.is_empty() {
            break;
        }
    }
    drop((a, b));
    assert_eq!(burst[0].data(), frame(7, 60));
}

#[test]
fn every_queue_reaches_a_worker() {
    in_namespace("inside_queues");
}

#[test]
#[ignore = "run in its own namespace by every_queue_reaches_a_worker"]
fn inside_queues() {
    netns::enter();
    ip(
        "link add va numrxqueues 3 numtxqueues 3 type veth peer name vb numrxqueues 3 numtxqueues 3",
    );
    up("va", "vb");
    let names = |list: &[&str]| list.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
    let error = open(&names(&["va"]), 4, &small()).unwrap_err();
    assert!(
        matches!(&error, XdpError::Queues { interface, has: 3, wanted: 4 } if interface == "va"),
        "{error}"
    );
    // Sockets on a queue each at one end send to the same queue at the other.
    let mut senders = open(&names(&["va"]), 3, &small()).unwrap();
    for workers in [1, 2, 3] {
        let mut receivers = open(&names(&["vb"]), workers, &small()).unwrap();
        let queues = receivers.iter().map(|w| w[0].queues()).collect::<Vec<_>>();
        assert_eq!(queues.iter().sum::<usize>(), 3);
        for (queue, sender) in senders.iter_mut().enumerate() {
            let (at, tag) = (queue % workers, queue as u32);
            warm_up(&mut sender[0], &mut receivers[at][0]);
            send(&mut sender[0], [frame(tag, 60)]);
            assert_eq!(receive(&mut receivers[at][0], 1), [frame(tag, 60)]);
        }
    }
}

#[test]
fn jumbo_frames_pass_in_several_chunks() {
    in_namespace("inside_jumbo");
}

#[test]
#[ignore = "run in its own namespace by jumbo_frames_pass_in_several_chunks"]
fn inside_jumbo() {
    netns::enter();
    veth("va", "vb");
    for name in ["va", "vb"] {
        ip(&format!("link set {name} mtu 9000"));
    }
    for attach in [AttachMode::Native, AttachMode::Skb] {
        let options = XdpOptions { attach, ..small() };
        let mut both = match open(&["va".to_owned(), "vb".to_owned()], 1, &options) {
            Err(error @ XdpError::Mtu { .. }) => {
                eprintln!("SKIP: {error}");
                return;
            }
            other => other.unwrap().remove(0),
        };
        let (mut b, mut a) = (both.pop().unwrap(), both.pop().unwrap());
        warm_up(&mut a, &mut b);
        for len in [1500, 3800, 3826, 3827, 4082, 4083, 8178, 9000] {
            send(&mut a, [frame(len as u32, len), frame(1, 60)]);
            let got = receive(&mut b, 2);
            assert!(
                got == [frame(len as u32, len), frame(1, 60)],
                "{attach:?} {len}"
            );
        }
        // Three parts at a time, often enough that the ring is left with room for fewer.
        for round in 0..100 {
            assert_eq!(send(&mut a, [frame(round, 9000)]).sent, 1, "{round}");
            assert!(receive(&mut b, 1) == [frame(round, 9000)], "{round}");
        }
        // A frame past the MTU is dropped alone.
        let tx = send(&mut a, [frame(1, 9001 + 4), frame(2, 60)]);
        assert_eq!((tx.sent, tx.dropped), (1, 1));
        assert_eq!(a.counters().tx_too_long, 1);
        assert_eq!(receive(&mut b, 1), [frame(2, 60)]);
        // Without a frame to gather it in, a long packet is dropped alone.
        send(&mut a, [frame(3, 9000), frame(4, 60)]);
        let (mut pool, mut burst) = (FramePool::new(0), Vec::new());
        for _ in 0..30_000 {
            b.idle();
            b.rx(0, &mut pool, &mut burst, 8).unwrap();
            if !burst.is_empty() {
                break;
            }
        }
        let got = burst.drain(..).map(|f| f.data().to_vec());
        assert_eq!(got.collect::<Vec<_>>(), [frame(4, 60)]);
        assert_eq!(b.counters().no_buffer, 1);
        all_home(&mut [&mut a, &mut b]);
    }
}

#[test]
fn a_link_that_goes_down_comes_back_and_a_removed_interface_ends() {
    in_namespace("inside_link");
}

#[test]
#[ignore = "run in its own namespace by a_link_that_goes_down_comes_back_and_a_removed_interface_ends"]
fn inside_link() {
    let (mut a, mut b) = pair(&small());
    ip("link set vb down");
    let (mut pool, mut burst) = (FramePool::new(4), Vec::new());
    // The kernel says so at the first wake-up; what was handed over with it stays with the socket.
    send(&mut b, [frame(1, 60)]);
    let tx = send(&mut b, [frame(2, 60)]);
    assert_eq!((tx.sent, tx.dropped), (0, 1));
    for _ in 0..300 {
        assert_eq!(b.rx(0, &mut pool, &mut burst, 4).unwrap(), Rx::Received(0));
        b.idle();
    }
    ip("link set vb up");
    warm_up(&mut a, &mut b);
    warm_up(&mut b, &mut a);
    all_home(&mut [&mut a, &mut b]);
    ip("link del va");
    for port in [&mut a, &mut b] {
        let ended = (0..30_000).any(|_| {
            port.idle();
            port.rx(0, &mut pool, &mut burst, 4).unwrap() == Rx::End
        });
        assert!(ended, "{} is gone", port.name());
        assert_eq!(port.rx(0, &mut pool, &mut burst, 4).unwrap(), Rx::End);
        let tx = send(port, [frame(3, 60)]);
        assert_eq!((tx.sent, tx.dropped), (0, 1));
    }
    assert_eq!(pool.available(), 4);
}

#[test]
fn a_polling_port_that_never_idles_sees_its_interface_go() {
    in_namespace("inside_spin");
}

#[test]
#[ignore = "run in its own namespace by a_polling_port_that_never_idles_sees_its_interface_go"]
fn inside_spin() {
    let (mut a, b) = pair(&small());
    drop(b);
    ip("link del va");
    let (mut pool, mut burst) = (FramePool::new(4), Vec::new());
    let ended =
        (0..1_000_000_000u64).any(|_| a.rx(0, &mut pool, &mut burst, 4).unwrap() == Rx::End);
    assert!(ended);
}

#[test]
fn what_cannot_be_opened_says_why() {
    in_namespace("inside_refusals");
}

#[test]
#[ignore = "run in its own namespace by what_cannot_be_opened_says_why"]
fn inside_refusals() {
    netns::enter();
    veth("va", "vb");
    let open = |name: &str, options: &XdpOptions| open(&[name.to_owned()], 1, options);
    let refused = |name: &str, options: &XdpOptions| open(name, options).unwrap_err();

    let error = refused("no-such-if", &small());
    assert!(matches!(&error, XdpError::Interface { .. }), "{error}");
    for frames in [0, 64, 100, 1 << 19] {
        let error = refused("va", &XdpOptions { frames, ..small() });
        assert!(matches!(&error, XdpError::Frames { .. }), "{error}");
    }
    let zero_copy = XdpOptions {
        mode: CopyMode::ZeroCopy,
        ..small()
    };
    match open("va", &zero_copy) {
        // A kernel whose veth has it is welcome.
        Ok(ports) => assert!(ports[0][0].zero_copy()),
        Err(error) => assert!(matches!(&error, XdpError::NoZeroCopy { .. }), "{error}"),
    }
    let first = open("va", &small()).unwrap();
    let error = refused("va", &small());
    assert!(
        matches!(&error, XdpError::QueueInUse { interface, queue: 0 } if interface == "va")
            || matches!(&error, XdpError::Attach(AttachError::Occupied { program, .. }) if program == "dashwire_to_xsk"),
        "{error}"
    );
    drop(first);
    // Nothing is left behind.
    drop(open("va", &small()).unwrap());
}
