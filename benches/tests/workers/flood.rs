//! Floods of SYNs: counted, bounded, and no harm to those who were there.

use dash_bench::world;
use dash_pipeline::ir::Timeouts;
use dash_pipeline::plan::Settings;
use dash_wire::stats::EniStat;
use nic_target::Target as _;

use crate::rig::{Rig, native_code, wait};

/// Connections that have answers.
const ESTABLISHED: u32 = 300;
const FLOOD: u32 = 20_000;

/// What a flood left.
struct Flooded {
    rig: Rig,
    flows: usize,
}

/// Established connections, and then SYNs of as many senders by all queues at once, with packets of
/// the connections among them: none of these may be lost.
fn flood(workers: usize, settings: Settings, more: &str) -> Flooded {
    let mut rig = Rig::with(workers, settings, more);
    let out: Vec<_> = (0..ESTABLISHED)
        .map(|n| world::outbound(n, world::SMALL))
        .collect();
    let back: Vec<_> = (0..ESTABLISHED)
        .map(|n| world::reply(n, world::SMALL))
        .collect();
    rig.feed(&out, |at| at);
    rig.feed(&back, |at| at + 1);
    let before = rig.output.lock().unwrap().output.len();
    assert_eq!(before, 2 * ESTABLISHED as usize);
    let mut sent = 0;
    for (round, syns) in (0..FLOOD).collect::<Vec<_>>().chunks(1_000).enumerate() {
        let mut packets: Vec<_> = syns.iter().map(|&n| world::syn(n)).collect();
        packets.extend(out.iter().chain(&back).cloned());
        sent += out.len() + back.len();
        rig.feed(&packets, |at| at + round);
    }
    let flows = rig.engine.target_mut().flows().unwrap();
    let known = |flow: &&dash_wire::tables::FlowEntry| flow.packets[1] > 0;
    let packets: u64 = flows
        .iter()
        .filter(known)
        .map(|flow| flow.packets.iter().sum::<u64>())
        .sum();
    assert_eq!(flows.iter().filter(known).count(), ESTABLISHED as usize);
    assert_eq!(
        packets as usize,
        before + sent,
        "each packet of theirs was forwarded"
    );
    let left = rig.output.lock().unwrap().output.len();
    let syns = left - before - sent;
    assert_eq!(
        syns,
        flows.len() - ESTABLISHED as usize,
        "a SYN leaves with a flow or not at all"
    );
    Flooded {
        flows: flows.len(),
        rig,
    }
}

#[test]
fn a_flood_fills_the_table_and_established_flows_go_on() {
    if !native_code() {
        return;
    }
    for workers in [1, 2] {
        let Flooded { mut rig, flows } = flood(workers, Settings::default(), "[]");
        assert_eq!(flows, 4_096, "no place of any worker's is left");
        let refused = u64::from(FLOOD) + u64::from(ESTABLISHED) - flows as u64;
        assert_eq!(rig.eni(EniStat::FlowCreateFailed), refused);
        assert_eq!(rig.eni(EniStat::TotalDropPackets), refused);
    }
}

#[test]
fn an_eni_with_a_limit_does_not_fill_the_table_with_a_flood() {
    if !native_code() {
        return;
    }
    let rows = r#"[{"DASH_QOS_TABLE:q": {"qos_id": "q", "flows": 1000}, "OP": "SET"},
        {"DASH_ENI_TABLE:F4939FEFC47E": {"mac_address": "F4:93:9F:EF:C4:7E", "underlay_ip": "25.1.1.1",
          "admin_state": "enabled", "vnet": "Vnet1", "qos": "q"}, "OP": "SET"}]"#;
    for workers in [1, 2] {
        let Flooded { mut rig, flows } = flood(workers, Settings::default(), rows);
        assert_eq!(flows, 1_000);
        assert_eq!(rig.eni(EniStat::FlowCreateFailed), 0);
        let refused = u64::from(FLOOD) + u64::from(ESTABLISHED) - 1_000;
        assert_eq!(rig.eni(EniStat::SessionLimitExceededDropPackets), refused);
    }
}

#[test]
fn the_flows_of_a_flood_end_in_time_whatever_else_there_is_to_do() {
    if !native_code() {
        return;
    }
    // They are due while the flood goes on, and after it all at once.
    let settings = || Settings {
        timeouts: Timeouts {
            half_open: 20,
            ..Timeouts::default()
        },
        ..Settings::default()
    };
    for workers in [1, 2] {
        let mut rig = Rig::with(workers, settings(), "[]");
        let known: Vec<_> = (0..ESTABLISHED)
            .map(|n| world::outbound(n, world::SMALL))
            .collect();
        rig.feed(&known, |at| at);
        for (round, syns) in (0..FLOOD).collect::<Vec<_>>().chunks(1_000).enumerate() {
            let syns: Vec<_> = syns.iter().map(|&n| world::syn(n)).collect();
            rig.feed(&syns, |at| at + round);
        }
        let made = rig.eni(EniStat::FlowCreated);
        wait("all but the known ones are gone", || {
            rig.engine.target_mut().flow_count().unwrap() == ESTABLISHED as usize
        });
        assert_eq!(rig.eni(EniStat::FlowAged), made - u64::from(ESTABLISHED));
        let sent = rig.output.lock().unwrap().output.len();
        rig.feed(&known, |at| at);
        assert_eq!(rig.output.lock().unwrap().output.len(), sent + known.len());
        wait("nothing is due any more", || {
            let stats = rig.engine.target().worker_stats();
            stats.iter().all(|worker| worker.ageing_late_ns == 0)
        });
    }
}
