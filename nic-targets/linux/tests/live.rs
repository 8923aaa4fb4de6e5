//! The kernel's part on veth pairs, with a core behind it, in a network namespace of its own. Needs
//! root; says SKIP otherwise.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use dash_bpf::builder::R0;
use dash_bpf::helper::XdpAction;
use dash_bpf::{Builder, ProgramKind};
use dash_pipeline::plan::Shape;
use dash_runtime::{Engine, Options, Runtime, RuntimeHandle};
use dash_wire::stats::{EniStat, PortStat};
use nic_linux::sys::bpf::Program;
use nic_linux::{
    AfPacketPort, AttachMode, Attached, Fronted, KernelPort, KernelPunt, Live, XdpOptions,
};
use nic_sim::Packet;
use nic_sim::packet::tcp_flags;
use nic_target::{Capacity, Frame, FramePool, Port, Rx, Target};

#[path = "support/netns.rs"]
mod netns;
#[path = "support/world.rs"]
mod world;

type Kernel = Fronted<RuntimeHandle<KernelPort>>;

fn start(
    interfaces: &[&str],
    attach: AttachMode,
    capacity: &Capacity,
) -> (Kernel, Receiver<KernelPunt>) {
    let options = XdpOptions {
        frames: 128,
        attach,
        ..XdpOptions::default()
    };
    let interfaces: Vec<String> = interfaces.iter().map(|&name| name.into()).collect();
    let live = Live::open(&interfaces, capacity, &options).unwrap();
    let options = Options {
        zero: Some(live.kernel.zero),
        ..Options::new(Engine::Interp, capacity.clone())
    };
    let front = live.kernel.front;
    let handle = Runtime::spawn_shared(live.ports, &options, front.flows()).unwrap();
    (Fronted::new(front, handle), live.kernel.punts)
}

/// A link whose ends are both up.
fn cable(name: &str, peer: &str) {
    netns::ip(&format!("link add {name} type veth peer name {peer}"));
    netns::ip(&format!("link set {name} up"));
    netns::ip(&format!("link set {peer} up"));
}

/// Makes the far ends of links take what programs in drivers send them.
fn with_programs(peers: &[&str]) -> Vec<Attached> {
    let mut b = Builder::new();
    b.mov(R0, XdpAction::Pass as i32);
    b.exit();
    let pass = Program::load("pass", ProgramKind::Xdp, &b.finish().unwrap()).unwrap();
    let attach = |peer: &&str| Attached::attach(&pass, peer, AttachMode::Native).unwrap();
    peers.iter().map(attach).collect()
}

fn send(port: &mut AfPacketPort, packet: &[u8]) {
    let mut frame = Frame::new();
    assert!(frame.fill(packet));
    port.tx(&mut FramePool::new(0), &mut vec![frame]).unwrap();
}

/// Asks often: nothing tells how long a loaded machine takes.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..20_000 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("waited in vain: {what}");
}

/// The next packet that leaves the DPU: one of a tunnel.
fn receive(port: &mut AfPacketPort) -> Vec<u8> {
    eventually("a packet", || poll(port))
}

/// The same, if one is there.
fn poll(port: &mut AfPacketPort) -> Option<Vec<u8>> {
    let (mut pool, mut burst) = (FramePool::new(8), Vec::new());
    while port.rx(0, &mut pool, &mut burst, 1).unwrap() != Rx::Received(0) {
        let frame = burst.pop()?;
        let packet = frame.data().to_vec();
        pool.give(frame);
        if packet.len() > 50 && packet[26..30] == world::VIP {
            return Some(packet);
        }
    }
    None
}

fn eni(kernel: &mut Kernel, stat: EniStat) -> u64 {
    let counters = kernel.counters().unwrap();
    counters.eni.get(&0).map_or(0, |block| block[stat as usize])
}

/// Packets that user space received.
fn came_up(kernel: &mut Kernel) -> u64 {
    let counters = kernel.user_mut().counters().unwrap();
    counters.port[PortStat::IfInUcastPkts as usize]
}

/// The same, once nothing more is on its way.
fn came_up_at_last(kernel: &mut Kernel) -> u64 {
    let mut last = came_up(kernel);
    let mut same = 0;
    eventually("the end of what comes up", || {
        let now = came_up(kernel);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same == 50).then_some(now)
    })
}

#[test]
fn the_kernel_serves_an_interface() {
    netns::in_namespace("inside_the_kernel_serves_an_interface");
}

#[test]
#[ignore = "run by the_kernel_serves_an_interface, in a namespace"]
fn inside_the_kernel_serves_an_interface() {
    netns::enter();
    cable("va", "vb");
    let (mut kernel, punts) = start(&["va"], AttachMode::Skb, &world::capacity());
    let mut wire = AfPacketPort::open("vb").unwrap();
    let image = world::image(&Shape::default(), &world::capacity());
    kernel
        .apply(&world::update(Some(image), world::rows()))
        .unwrap();
    let udp = |sport: u16| world::from_vm().udp(sport, 53).payload(b"question").build();

    // The link's queues come up from a work queue: ask until something comes back.
    let first = eventually("the link", || {
        send(&mut wire, &udp(1));
        (eni(&mut kernel, EniStat::FlowCreated) > 0).then(|| receive(&mut wire))
    });
    assert_eq!(first[30..34], world::PA, "to the PA of the mapping");
    let (up, seen) = (came_up(&mut kernel), eni(&mut kernel, EniStat::RxPackets));
    for _ in 0..20 {
        send(&mut wire, &udp(1));
    }
    eventually("hits", || {
        (eni(&mut kernel, EniStat::RxPackets) == seen + 20).then_some(())
    });
    assert_eq!(came_up(&mut kernel), up, "the kernel served them alone");
    let flow = kernel.flows().unwrap()[0];
    assert_eq!(flow.packets[0], seen + 20);
    assert_eq!(eni(&mut kernel, EniStat::TxPackets), seen + 20);
    let port = kernel.counters().unwrap().port;
    assert!(port[PortStat::IfInUcastPkts as usize] >= seen + 20);
    assert_eq!(port[PortStat::IfOutUcastPkts as usize], seen + 20);
    let answer = world::to_vm().udp(53, 1).payload(b"answer").build();
    send(&mut wire, &answer);
    eventually("the answer", || {
        (receive(&mut wire)[30..34] == world::VM_HOST).then_some(())
    });
    assert_eq!(came_up(&mut kernel), up, "the flow has both sides");

    // ARP is control's.
    let arp = Packet::eth([0xff; 6], [2; 6])
        .arp_request([2; 6], world::VM_HOST, world::VIP)
        .build();
    send(&mut wire, &arp);
    let punt = eventually("the ARP", || punts.try_recv().ok());
    assert_eq!((punt.port, &punt.data[..arp.len()]), (0, &arp[..]));

    // Other code while the flow lives; then its next hop is not known: control's, and counted.
    let routed = Shape {
        underlay_routes: true,
        ..Shape::default()
    };
    let other = world::image(&routed, &world::capacity());
    let unknown = vec![world::underlay(world::PA, 0, None)];
    kernel.apply(&world::update(Some(other), unknown)).unwrap();
    send(&mut wire, &udp(1));
    let punt = eventually("a packet without a next hop", || punts.try_recv().ok());
    assert_eq!(punt.data[30..34], world::PA);
    assert_eq!(eni(&mut kernel, EniStat::ForwardingDropPackets), 1);
    let mac = [2, 0, 0, 0, 0, 9];
    let known = vec![world::underlay(world::PA, 0, Some(mac))];
    kernel.apply(&world::update(None, known)).unwrap();
    let up = came_up(&mut kernel);
    send(&mut wire, &udp(1));
    eventually("the new next hop", || {
        (receive(&mut wire)[..6] == mac).then_some(())
    });
    assert_eq!(came_up(&mut kernel), up);

    // An ENI takes its flows along, from the kernel too.
    kernel.apply(&world::update(None, world::no_eni())).unwrap();
    assert_eq!(kernel.flows().unwrap(), []);
    send(&mut wire, &udp(1));
    eventually("an ENI miss", || {
        let misses = PortStat::EniMissDropPackets as usize;
        (kernel.counters().unwrap().port[misses] > 0).then_some(())
    });
    kernel.apply(&world::update(None, world::eni())).unwrap();
    let (up, created) = (came_up(&mut kernel), eni(&mut kernel, EniStat::FlowCreated));
    send(&mut wire, &udp(1));
    eventually("a new flow", || {
        (eni(&mut kernel, EniStat::FlowCreated) == created + 1).then_some(())
    });
    assert_eq!(came_up(&mut kernel), up + 1);

    // Nothing stays behind: the interface is free for the next.
    drop(kernel);
    drop(start(&["va"], AttachMode::Skb, &world::capacity()));
}

const NEXT_HOP: [u8; 6] = [2, 0, 0, 0, 0, 9];
const VM_HOP: [u8; 6] = [2, 0, 0, 0, 0, 8];

/// The VM's host is behind port 0, the PA behind port 1.
fn two_sides() -> Vec<nic_target::TableOp> {
    let mut rows = world::rows();
    rows.push(world::underlay(world::PA, 1, Some(NEXT_HOP)));
    rows.push(world::underlay(world::VM_HOST, 0, Some(VM_HOP)));
    rows
}

fn routed() -> Shape {
    Shape {
        underlay_routes: true,
        ..Shape::default()
    }
}

#[test]
fn packets_leave_by_the_other_port() {
    netns::in_namespace("inside_packets_leave_by_the_other_port");
}

#[test]
#[ignore = "run by packets_leave_by_the_other_port, in a namespace"]
fn inside_packets_leave_by_the_other_port() {
    netns::enter();
    cable("va", "vb");
    cable("vc", "vd");
    for attach in [AttachMode::Skb, AttachMode::Native] {
        let peers = match attach {
            AttachMode::Native => with_programs(&["vb", "vd"]),
            _ => Vec::new(),
        };
        between_ports(attach);
        drop(peers);
    }
}

fn between_ports(attach: AttachMode) {
    let (mut kernel, punts) = start(&["va", "vc"], attach, &world::capacity());
    let mut vm = AfPacketPort::open("vb").unwrap();
    let mut peer = AfPacketPort::open("vd").unwrap();
    let image = world::image(&routed(), &world::capacity());
    kernel
        .apply(&world::update(Some(image), two_sides()))
        .unwrap();
    let question = world::from_vm().udp(1, 53).payload(b"question").build();
    let answer = world::to_vm().udp(53, 1).payload(b"answer").build();

    // The miss goes out of user space's port 1.
    let first = eventually("the link", || {
        send(&mut vm, &question);
        (eni(&mut kernel, EniStat::FlowCreated) > 0).then(|| receive(&mut peer))
    });
    assert_eq!(first[..6], NEXT_HOP);
    while poll(&mut peer).is_some() {}
    // Hits go out of the kernel's interface.
    let up = came_up(&mut kernel);
    for _ in 0..20 {
        send(&mut vm, &question);
        assert_eq!(receive(&mut peer)[..6], NEXT_HOP, "{attach:?}");
        send(&mut peer, &answer);
        let back = receive(&mut vm);
        assert_eq!(
            (&back[..6], &back[30..34]),
            (&VM_HOP[..], &world::VM_HOST[..])
        );
    }
    assert_eq!(came_up(&mut kernel), up, "the kernel served them alone");

    // Control knows where its packets come from, and sends out of either port.
    for (port, wire) in [&mut vm, &mut peer].into_iter().enumerate() {
        let arp = Packet::eth([0xff; 6], [2; 6])
            .arp_request([2; 6], world::VM_HOST, world::VIP)
            .build();
        send(wire, &arp);
        let punt = eventually("the ARP", || punts.try_recv().ok());
        assert_eq!(
            (usize::from(punt.port), &punt.data[..arp.len()]),
            (port, &arp[..])
        );
        assert!(kernel.user_mut().inject(punt.port, &answer));
        // It has no tunnel of the VIP's; what arrives is what was sent.
        let (mut pool, mut burst) = (FramePool::new(8), Vec::new());
        eventually("control's packet", || {
            wire.rx(0, &mut pool, &mut burst, 8).unwrap();
            let found = burst.iter().any(|frame| frame.data() == answer);
            burst.drain(..).for_each(|frame| pool.give(frame));
            found.then_some(())
        });
    }
}

#[test]
fn connections_that_end_leave_the_kernel() {
    netns::in_namespace("inside_connections_that_end_leave_the_kernel");
}

#[test]
#[ignore = "run by connections_that_end_leave_the_kernel, in a namespace"]
fn inside_connections_that_end_leave_the_kernel() {
    netns::enter();
    cable("va", "vb");
    let (mut kernel, _punts) = start(&["va"], AttachMode::Skb, &world::capacity());
    let mut wire = AfPacketPort::open("vb").unwrap();
    let image = world::image(&Shape::default(), &world::capacity());
    kernel
        .apply(&world::update(Some(image), world::rows()))
        .unwrap();
    let out = |flags| {
        let tcp = world::from_vm().tcp(9, 443).flags(flags);
        tcp.payload(b"segment").build()
    };
    let back = |flags| {
        let tcp = world::to_vm().tcp(443, 9).flags(flags);
        tcp.payload(b"segment").build()
    };
    eventually("the link", || {
        send(&mut wire, &out(tcp_flags::SYN));
        (eni(&mut kernel, EniStat::FlowCreated) > 0).then(|| receive(&mut wire))
    });
    while poll(&mut wire).is_some() {}
    let mut through = |packet: &[u8]| {
        send(&mut wire, packet);
        receive(&mut wire);
    };
    let other = world::from_vm().tcp(10, 443).flags(tcp_flags::SYN);
    through(&other.payload(b"").build());
    assert_eq!(kernel.flows().unwrap().len(), 2);
    through(&back(tcp_flags::SYN | tcp_flags::ACK));
    through(&out(tcp_flags::ACK));
    let up = came_up_at_last(&mut kernel);
    through(&out(tcp_flags::ACK));
    through(&back(tcp_flags::ACK));
    assert_eq!(
        came_up_at_last(&mut kernel),
        up,
        "the kernel has the connection"
    );
    through(&out(tcp_flags::FIN | tcp_flags::ACK));
    through(&back(tcp_flags::FIN | tcp_flags::ACK));
    assert_eq!(came_up_at_last(&mut kernel), up + 2, "user space ends it");
    eventually("the end of both connections", || {
        kernel.flows().unwrap().is_empty().then_some(())
    });
    // Closed by both sides, and half-open until it was given up.
    assert_eq!(eni(&mut kernel, EniStat::FlowDeleted), 1);
    assert_eq!(eni(&mut kernel, EniStat::FlowAged), 1);
    let created = eni(&mut kernel, EniStat::FlowCreated);
    through(&out(tcp_flags::ACK));
    assert_eq!(
        came_up_at_last(&mut kernel),
        up + 3,
        "the kernel has forgotten it"
    );
    assert_eq!(eni(&mut kernel, EniStat::FlowCreated), created + 1);
}

#[test]
fn code_changes_under_traffic_and_no_packet_is_lost() {
    netns::in_namespace("inside_code_changes_under_traffic_and_no_packet_is_lost");
}

/// Packets are sent a few at a time and waited for, so that no queue on the way is ever full: each
/// must come out once, by the port of one code or the other.
#[test]
#[ignore = "run by code_changes_under_traffic_and_no_packet_is_lost, in a namespace"]
fn inside_code_changes_under_traffic_and_no_packet_is_lost() {
    const CHANGES: usize = 30;
    const BATCH: u32 = 16;
    netns::enter();
    cable("va", "vb");
    cable("vc", "vd");
    let capacity = Capacity {
        flows: 1 << 14,
        ..world::capacity()
    };
    let (mut kernel, _punts) = start(&["va", "vc"], AttachMode::Skb, &capacity);
    let mut vm = AfPacketPort::open("vb").unwrap();
    let mut peer = AfPacketPort::open("vd").unwrap();
    let images = [
        world::image(&routed(), &capacity),
        world::image(&Shape::default(), &capacity),
    ];
    kernel
        .apply(&world::update(Some(images[0].clone()), two_sides()))
        .unwrap();
    let packet = |sport: u16, number: u32| {
        let udp = world::from_vm().udp(sport, 53);
        udp.payload(number.to_be_bytes()).build()
    };
    eventually("the link", || {
        send(&mut vm, &packet(1, 0));
        (eni(&mut kernel, EniStat::FlowCreated) > 0).then(|| receive(&mut peer))
    });
    while poll(&mut peer).is_some() {}

    let changed = AtomicBool::new(false);
    let (mut number, mut sport, mut by_port) = (0u32, 1u16, [0u64; 2]);
    let before = eni(&mut kernel, EniStat::RxPackets);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for image in images.iter().cycle().skip(1).take(CHANGES) {
                let update = world::update(Some(image.clone()), Vec::new());
                kernel.apply(&update).unwrap();
            }
            changed.store(true, Ordering::Release);
        });
        let mut last = false;
        while !last {
            last = changed.load(Ordering::Acquire);
            // One of a batch is of a new connection, while there is room for one.
            sport = (sport + 1).min(1 << 13);
            let mut waited = BTreeSet::new();
            for at in 0..BATCH {
                number += 1;
                let known = 1 + (number % u32::from(sport)) as u16;
                send(
                    &mut vm,
                    &packet(if at == 0 { sport } else { known }, number),
                );
                waited.insert(number);
            }
            eventually("every packet of a batch", || {
                for (port, wire) in [&mut vm, &mut peer].into_iter().enumerate() {
                    while let Some(packet) = poll(wire) {
                        let number = packet.last_chunk().map(|b| u32::from_be_bytes(*b)).unwrap();
                        assert!(waited.remove(&number), "{number} came twice");
                        assert_eq!(packet[30..34], world::PA);
                        // Code without underlay routes sends back where it came from.
                        let dmac = if port == 0 {
                            [2, 0, 0, 0, 0, 2]
                        } else {
                            NEXT_HOP
                        };
                        assert_eq!(packet[..6], dmac, "{number} by port {port}");
                        by_port[port] += 1;
                    }
                }
                waited.is_empty().then_some(())
            });
        }
    });
    assert!(
        by_port.iter().all(|&n| n > 0),
        "both codes ran: {by_port:?}"
    );
    assert_eq!(
        eni(&mut kernel, EniStat::RxPackets) - before,
        u64::from(number)
    );
    assert_eq!(kernel.front().refused_flows(), 0);
}
