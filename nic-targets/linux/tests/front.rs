//! The kernel in front of a user-space core, packet by packet: who does what, and that the two are one
//! target. Needs root; says SKIP otherwise.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

#[path = "support/world.rs"]
mod world;

use dash_pipeline::plan::Shape;
use dash_runtime::Engine;
use dash_wire::stats::{EniStat, PortStat};
use dash_wire::tables::flow_state;
use nic_linux::KernelEngine;
use nic_linux::kernel::Shares;
use nic_sim::packet::tcp_flags;
use nic_target::{Frame, PacketEngine, Table, Target, TargetError, Verdict};
use world::{capacity, from_vm, image, rows, to_vm, update};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
const PORT: u16 = 3;

/// `None`, with a word on stderr, where the kernel refuses.
fn engine() -> Option<KernelEngine> {
    if let Some(reason) = KernelEngine::unavailable() {
        eprintln!("SKIP: {reason}");
        return None;
    }
    let mut engine = KernelEngine::new(&capacity(), Engine::Interp).unwrap();
    let image = image(&Shape::default(), &capacity());
    engine.apply(&update(Some(image), rows())).unwrap();
    Some(engine)
}

fn run(engine: &mut KernelEngine, packet: &[u8], at: u64) -> Verdict {
    let mut frame = Frame::new();
    assert!(frame.fill(packet));
    (frame.port, frame.timestamp_ns) = (PORT, at);
    engine.run(&mut frame).unwrap()
}

/// Who ran a packet that left.
fn who(engine: &mut KernelEngine, packet: &[u8], at: u64) -> &'static str {
    let before = engine.shares();
    assert_eq!(run(engine, packet, at), Verdict::Send(PORT));
    let Shares { kernel, user } = engine.shares();
    match (kernel - before.kernel, user - before.user) {
        (1, 0) => "kernel",
        (0, 1) => "user",
        other => panic!("{other:?}"),
    }
}

fn eni(engine: &mut KernelEngine, stat: EniStat) -> u64 {
    let counters = engine.counters().unwrap();
    counters.eni.get(&0).map_or(0, |block| block[stat as usize])
}

fn udp(sport: u16) -> Vec<u8> {
    from_vm().udp(sport, 53).payload(b"question").build()
}

fn answer(dport: u16) -> Vec<u8> {
    to_vm().udp(53, dport).payload(b"answer").build()
}

#[test]
fn a_flow_is_made_in_user_space_and_served_by_the_kernel() {
    let Some(mut engine) = engine() else { return };
    assert_eq!(who(&mut engine, &udp(1000), 1), "user");
    assert_eq!(who(&mut engine, &udp(1000), 2), "kernel");
    assert_eq!(who(&mut engine, &answer(1000), 3), "kernel");
    assert_eq!(who(&mut engine, &udp(1001), 4), "user");
    assert_eq!(who(&mut engine, &udp(1000), 5), "kernel");

    let mut flows = engine.flows().unwrap();
    flows.sort_by_key(|flow| flow.created_ns);
    let packets: Vec<_> = flows.iter().map(|flow| flow.packets).collect();
    assert_eq!(packets, [[3, 1], [1, 0]]);
    assert_eq!(flows[0].last_seen_ns, 5);
    // Each packet is counted once, wherever it was.
    let wanted = [
        (EniStat::RxPackets, 5),
        (EniStat::OutboundRxPackets, 4),
        (EniStat::InboundRxPackets, 1),
        (EniStat::TxPackets, 5),
        (EniStat::OutboundTxPackets, 4),
        (EniStat::InboundTxPackets, 1),
        (EniStat::FlowCreated, 2),
        (EniStat::TotalDropPackets, 0),
    ];
    for (stat, count) in wanted {
        assert_eq!(eni(&mut engine, stat), count, "{stat:?}");
    }
    let bytes = 4 * udp(0).len() + answer(0).len();
    assert_eq!(eni(&mut engine, EniStat::RxBytes), bytes as u64);
}

#[test]
fn whatever_changes_a_connection_goes_up() {
    let Some(mut engine) = engine() else { return };
    let there = |flags| from_vm().tcp(1000, 80).flags(flags).payload(b"x").build();
    let back = |flags| to_vm().tcp(80, 1000).flags(flags).payload(b"y").build();
    use tcp_flags::{ACK, FIN, RST, SYN};
    let steps = [
        (there(SYN), "user"),
        (there(SYN), "user"),
        (there(ACK), "kernel"),
        // The first of the other side, whatever its flags.
        (back(ACK), "user"),
        (back(ACK), "kernel"),
        (there(FIN | ACK), "user"),
        (back(ACK), "kernel"),
        (back(FIN | ACK), "user"),
        (there(ACK), "kernel"),
        (there(RST), "user"),
    ];
    for (step, (packet, by)) in steps.iter().enumerate() {
        let state = engine.flows().unwrap().first().map(|flow| flow.state);
        assert_eq!(who(&mut engine, packet, 1), *by, "step {step}, {state:?}");
    }
    assert_eq!(engine.flows().unwrap(), []);
    assert_eq!(
        eni(&mut engine, EniStat::OutboundTcpSynPackets),
        2,
        "counted by the kernel alone"
    );
    // The kernel does not know it any more.
    assert_eq!(who(&mut engine, &there(ACK), 2), "user");
    let flow = engine.flows().unwrap()[0];
    assert_eq!((flow.state, flow.packets), (flow_state::HALF_OPEN, [1, 0]));
}

#[test]
fn what_the_kernel_refreshes_lives_and_what_it_does_not_expires() {
    let Some(mut engine) = engine() else { return };
    assert_eq!(who(&mut engine, &udp(1), 0), "user");
    assert_eq!(who(&mut engine, &udp(2), 0), "user");
    assert_eq!(who(&mut engine, &udp(2), 20 * SECOND), "kernel");
    engine.advance(30 * SECOND - 1);
    assert_eq!(engine.flows().unwrap().len(), 2);
    engine.advance(30 * SECOND);
    assert_eq!(engine.flows().unwrap().len(), 1);
    assert_eq!(who(&mut engine, &udp(1), 31 * SECOND), "user");
    engine.advance(50 * SECOND - 1);
    assert_eq!(who(&mut engine, &udp(2), 50 * SECOND - 1), "kernel");
    engine.advance(200 * SECOND);
    assert_eq!(engine.flows().unwrap(), []);
    assert_eq!(eni(&mut engine, EniStat::FlowAged), 3);
    assert_eq!(who(&mut engine, &udp(2), 201 * SECOND), "user");
}

#[test]
fn no_flow_outlives_its_eni_in_the_kernel() {
    let Some(mut engine) = engine() else { return };
    assert_eq!(who(&mut engine, &udp(1), 1), "user");
    assert_eq!(who(&mut engine, &udp(1), 2), "kernel");
    engine.apply(&update(None, world::no_eni())).unwrap();
    assert_eq!(engine.flows().unwrap(), []);
    assert_eq!(run(&mut engine, &udp(1), 3), Verdict::Drop);
    let misses = PortStat::EniMissDropPackets as usize;
    assert_eq!(engine.counters().unwrap().port[misses], 1);
    // The index is given to another.
    engine.apply(&update(None, world::eni())).unwrap();
    assert_eq!(who(&mut engine, &udp(1), 4), "user");
}

#[test]
fn flows_live_on_when_the_code_changes() {
    let Some(mut engine) = engine() else { return };
    assert_eq!(who(&mut engine, &udp(1), 1), "user");
    let trusted = Shape {
        trusted_vnis: true,
        acl_in: 1,
        ..Shape::default()
    };
    let other = image(&trusted, &capacity());
    engine.apply(&update(Some(other), vec![])).unwrap();
    assert_eq!(who(&mut engine, &udp(1), 2), "kernel");
    assert_eq!(who(&mut engine, &answer(1), 3), "kernel");
    assert_eq!(who(&mut engine, &udp(2), 4), "user");
    let routed = Shape {
        underlay_routes: true,
        ..Shape::default()
    };
    let other = image(&routed, &capacity());
    let rows = vec![
        world::underlay(world::PA, 5, Some([2, 0, 0, 0, 0, 9])),
        world::underlay(world::VM_HOST, 6, None),
    ];
    engine.apply(&update(Some(other), rows)).unwrap();
    assert_eq!(run(&mut engine, &udp(1), 5), Verdict::Send(5));
    // For control: its next hop is not resolved.
    assert_eq!(run(&mut engine, &answer(1), 6), Verdict::Pass);
    assert_eq!(eni(&mut engine, EniStat::ForwardingDropPackets), 1);
}

#[test]
fn a_refused_update_changes_nothing_in_either() {
    let Some(mut engine) = engine() else { return };
    assert!(matches!(
        KernelEngine::new(&capacity(), Engine::Interp)
            .unwrap()
            .apply(&update(None, vec![])),
        Err(TargetError::NoImage)
    ));
    assert_eq!(who(&mut engine, &udp(1), 1), "user");
    let bad_route = world::put(Table::Route4, &[0; 3], &[]);
    let bad_eni = world::put(Table::Eni, &99u32.to_ne_bytes(), &[0; 112]);
    let too_many = (1..=5u8).map(|n| {
        let key = [2, 0, 0, 0, 0, n, 0, 0];
        world::put(Table::EniMac, &key, &0u32.to_ne_bytes())
    });
    let other = Shape {
        underlay_routes: true,
        ..Shape::default()
    };
    for refused in [vec![bad_route], vec![bad_eni], too_many.collect()] {
        for image in [None, Some(image(&other, &capacity()))] {
            // Rows that both would take, then one that is wrong.
            let ops = [world::no_eni(), refused.clone()].concat();
            engine.apply(&update(image, ops)).unwrap_err();
            assert_eq!(who(&mut engine, &udp(1), 2), "kernel");
            assert_eq!(engine.flows().unwrap().len(), 1);
        }
    }
    let no_ir = nic_target::Image {
        ir: "stage rx { drop vip-miss; }".into(),
        ..(*image(&other, &capacity())).clone()
    };
    let error = engine
        .apply(&update(Some(no_ir.into()), vec![]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "kernel cannot run this image: no stage looks flows up"
    );
    assert_eq!(who(&mut engine, &udp(1), 3), "kernel");
}

#[test]
fn packets_the_kernel_cannot_take_are_drops_or_refusals() {
    let Some(mut engine) = engine() else { return };
    let mut run = |len: usize| {
        let mut frame = Frame::new();
        assert!(frame.fill(&vec![0; len]));
        engine.run(&mut frame)
    };
    assert!(matches!(run(13), Ok(Verdict::Drop)));
    assert!(matches!(run(14), Ok(Verdict::Drop)));
    assert!(matches!(run(1514), Ok(Verdict::Drop)));
    let error = run(9_600).unwrap_err().to_string();
    assert!(
        error.contains("a packet of 9600 bytes is longer than programs see in a test run"),
        "{error}"
    );
    let visible = nic_linux::loader::visible_bytes().unwrap();
    assert!((3072..9600).contains(&visible), "{visible}");
    assert!(matches!(run(3072), Ok(Verdict::Drop)));
    let errors = PortStat::IfInErrors as usize;
    assert_eq!(engine.counters().unwrap().port[errors], 1);
}

/// The flow table's end is the same wherever the packet that meets it began.
#[test]
fn a_full_table_refuses_and_takes_again() {
    let Some(mut engine) = engine() else { return };
    for sport in 0..8 {
        assert_eq!(who(&mut engine, &udp(sport), 1), "user", "{sport}");
    }
    assert_eq!(run(&mut engine, &udp(8), 2), Verdict::Drop);
    assert_eq!(eni(&mut engine, EniStat::FlowCreateFailed), 1);
    assert_eq!(who(&mut engine, &udp(7), 3), "kernel");
    engine.advance(40 * SECOND);
    assert_eq!(who(&mut engine, &udp(8), 41 * SECOND), "user");
    assert_eq!(who(&mut engine, &udp(8), 42 * SECOND), "kernel");
}
