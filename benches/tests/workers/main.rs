//! Several workers do what one does, whichever queue a packet comes in by.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod flood;
mod fragments;
mod limits;
mod programs;
mod rig;

use std::sync::Arc;

use dash_bench::world;
use dash_wire::stats::{EniStat, PortStat};
use nic_target::Target as _;
use rig::{Rig, native_code, wait};

/// First packets of connections, answers, more of both, and what is dropped. In each wave a
/// connection has one packet, so that its order is that of the waves.
fn waves() -> Vec<Vec<Vec<u8>>> {
    let out = |n| world::outbound(n, world::SMALL);
    let back = |n| world::reply(n, 100);
    let mut first: Vec<_> = (0..600).map(out).collect();
    first.extend((2_000..2_100).map(|n| world::inbound(n, world::SMALL)));
    vec![
        first,
        (0..600).map(back).collect(),
        world::mix().split_off(4),
        (0..300).map(out).chain((300..600).map(back)).collect(),
    ]
}

#[test]
fn several_workers_do_what_one_does_whichever_queue_packets_come_in_by() {
    if !native_code() {
        return;
    }
    let run = |workers: usize| {
        let mut rig = Rig::start(workers);
        for (n, wave) in waves().iter().enumerate() {
            // The second direction comes in by another queue than the first.
            rig.feed(wave, |at| at + n);
        }
        let stats = rig.engine.target().worker_stats();
        (rig.outcome(), stats, rig.engine.target().events())
    };
    let (one, stats, events) = run(1);
    assert_eq!(stats[0].handed + stats[0].taken, 0);
    assert_eq!(one.flows.len(), 700 + 3, "with those of the mix");
    let met = one.flows.iter().filter(|flow| flow.packets[1] > 0).count();
    assert_eq!(met, 600, "answers found their flows");
    assert_eq!(events.aborted + events.not_run, 0);
    for workers in [2, 3] {
        let (several, stats, events) = run(workers);
        assert!(
            stats.iter().all(|w| w.handed > 100 && w.taken > 100),
            "{stats:?}"
        );
        assert_eq!(events.handoff_drops + events.aborted + events.not_run, 0);
        assert_eq!(several, one, "{workers} workers");
    }
}

#[test]
fn a_full_ring_drops_and_counts_every_packet() {
    if !native_code() {
        return;
    }
    let mut rig = Rig::start(2);
    // The second worker stands still in its receive while all packets come in by the first.
    let packets: Vec<_> = (0..4_000)
        .map(|n| world::outbound(n, world::SMALL))
        .collect();
    let blocked = Arc::clone(&rig.inputs[1]);
    let hold = blocked.lock().unwrap();
    rig.inputs[0].lock().unwrap().input.extend(packets);
    let target = rig.engine.target();
    wait("drops", || target.worker_stats()[0].packets == 4_000);
    wait("the first worker is done with them", || {
        let stats = target.worker_stats();
        let rounds = stats[0].idle_rounds;
        wait("another round", || {
            target.worker_stats()[0].idle_rounds > rounds
        });
        stats[0].handoff_drops > 0
    });
    let before = target.worker_stats()[0];
    drop(hold);
    wait("the rest is taken", || {
        target.worker_stats()[1].taken == target.worker_stats()[0].handed
    });
    let after = target.worker_stats()[0];
    assert_eq!(before.handoff_drops, after.handoff_drops);
    assert_eq!(target.events().handoff_drops, after.handoff_drops);
    let dropped = after.handoff_drops;
    let counters = rig.engine.target_mut().counters().unwrap();
    let port = |stat: PortStat| counters.port[stat as usize];
    assert_eq!(port(PortStat::IfInDiscards), dropped);
    assert_eq!(port(PortStat::IfInUcastPkts), 4_000);
    // Flows are as many as fit, and what was not dropped on the way was run.
    let ran = rig.output.lock().unwrap().output.len() as u64;
    let full: u64 = counters
        .eni
        .values()
        .map(|eni| eni[EniStat::TotalDropPackets as usize])
        .sum();
    assert_eq!(ran + full + dropped, 4_000);
}

#[test]
fn deleting_an_eni_forgets_its_flows_on_every_worker() {
    if !native_code() {
        return;
    }
    let mut rig = Rig::start(3);
    rig.feed(&waves()[0], |at| at);
    assert!(!rig.outcome().flows.is_empty());
    let enis: Vec<_> = rig
        .engine
        .store()
        .enis()
        .map(|(key, _)| key.clone())
        .collect();
    assert!(!enis.is_empty());
    let gone = nic_target::Update {
        generation: rig.engine.generation() + 1,
        image: None,
        delta: Arc::new(nic_target::TableDelta {
            ops: (0..enis.len() as u32)
                .map(|eni| nic_target::TableOp::Delete {
                    table: nic_target::Table::Eni,
                    key: eni.to_ne_bytes().into(),
                })
                .collect(),
        }),
    };
    // Packets are on their way meanwhile, handed over under either generation.
    for (n, packet) in waves()[1].iter().enumerate() {
        let mut wires = rig.inputs[n % 3].lock().unwrap();
        wires.input.push_back(packet.clone());
    }
    rig.engine.target_mut().apply(&gone).unwrap();
    assert_eq!(rig.engine.target_mut().flows().unwrap(), []);
    assert_eq!(rig.engine.target_mut().flows().unwrap(), []);
}
