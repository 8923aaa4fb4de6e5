//! The kernel's part on a veth pair, with a core behind it, in a network namespace of its own. Needs
//! root; says SKIP otherwise.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use std::time::Duration;

use dash_pipeline::plan::Shape;
use dash_runtime::{Engine, Options, Runtime, RuntimeHandle};
use dash_wire::stats::{EniStat, PortStat};
use nic_linux::{AfPacketPort, AttachMode, Fronted, KernelPort, Live, XdpOptions};
use nic_sim::Packet;
use nic_target::{Frame, FramePool, Port, Rx, Target};

#[path = "support/netns.rs"]
mod netns;
#[path = "support/world.rs"]
mod world;

type Kernel = Fronted<RuntimeHandle<KernelPort>>;

fn start() -> (
    Kernel,
    std::sync::mpsc::Receiver<nic_linux::live::KernelPunt>,
) {
    let options = XdpOptions {
        frames: 128,
        attach: AttachMode::Skb,
        ..XdpOptions::default()
    };
    let live = Live::open(&["va".to_owned()], &world::capacity(), &options).unwrap();
    let options = Options {
        zero: Some(live.zero),
        ..Options::new(Engine::Interp, world::capacity())
    };
    let handle = Runtime::spawn_shared(live.ports, &options, live.front.flows()).unwrap();
    (Fronted::new(live.front, handle), live.punts)
}

fn send(port: &mut AfPacketPort, packet: &[u8]) {
    let mut frame = Frame::new();
    assert!(frame.fill(packet));
    port.tx(&mut FramePool::new(0), &mut vec![frame]).unwrap();
}

/// Asks often: nothing tells how long a loaded machine takes.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..5_000 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("waited in vain: {what}");
}

/// The next packet that leaves the DPU: one of a tunnel.
fn receive(port: &mut AfPacketPort) -> Vec<u8> {
    let (mut pool, mut burst) = (FramePool::new(8), Vec::new());
    eventually("a packet", || {
        if port.rx(0, &mut pool, &mut burst, 1).unwrap() == Rx::Received(0) {
            return None;
        }
        let frame = burst.pop()?;
        let packet = frame.data().to_vec();
        pool.give(frame);
        (packet.len() > 50 && packet[26..30] == world::VIP).then_some(packet)
    })
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

#[test]
fn the_kernel_serves_an_interface() {
    netns::in_namespace("inside_the_kernel_serves_an_interface");
}

#[test]
#[ignore = "run by the_kernel_serves_an_interface, in a namespace"]
fn inside_the_kernel_serves_an_interface() {
    netns::enter();
    netns::ip("link add va type veth peer name vb");
    netns::ip("link set va up");
    netns::ip("link set vb up");
    let (mut kernel, punts) = start();
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
    drop(start());
}
