//! Limits of ENIs where several workers have its packets: each lets its share through.

use std::time::Instant;

use dash_bench::world;
use dash_pipeline::plan::Settings;
use dash_wire::stats::EniStat;

use crate::rig::{Rig, native_code};

fn limited(workers: usize, limits: &str) -> Rig {
    let rows = format!(
        r#"[{{"DASH_QOS_TABLE:q": {{"qos_id": "q", {limits}}}, "OP": "SET"}},
            {{"DASH_ENI_TABLE:F4939FEFC47E": {{"mac_address": "F4:93:9F:EF:C4:7E", "underlay_ip": "25.1.1.1",
              "admin_state": "enabled", "vnet": "Vnet1", "qos": "q"}}, "OP": "SET"}}]"#
    );
    Rig::with(workers, Settings::default(), &rows)
}

fn packets(n: u32, payload: usize) -> Vec<Vec<u8>> {
    (0..n).map(|n| world::outbound(n, payload)).collect()
}

#[test]
fn workers_share_the_flows_an_eni_may_have() {
    if !native_code() {
        return;
    }
    for workers in [1, 2, 3] {
        let mut rig = limited(workers, r#""flows": 100"#);
        rig.feed(&packets(600, world::SMALL), |at| at);
        // Of 600 each worker owns more than its share, which is rounded up.
        let shares = 100_usize.div_ceil(workers) * workers;
        assert_eq!(rig.outcome().flows.len(), shares, "{workers} workers");
        let refused = rig.eni(EniStat::SessionLimitExceededDropPackets);
        assert_eq!(refused, 600 - shares as u64, "{workers} workers");
        // The table was not full: nothing failed.
        assert_eq!(rig.eni(EniStat::FlowCreateFailed), 0);
    }
}

#[test]
fn workers_share_the_flows_an_eni_may_open_in_a_second() {
    if !native_code() {
        return;
    }
    for workers in [1, 2, 3] {
        let start = Instant::now();
        let mut rig = limited(workers, r#""cps": 60"#);
        rig.feed(&packets(600, world::SMALL), |at| at);
        let opened = rig.outcome().flows.len() as u64;
        // Each worker starts with a second's worth of its share, and gets more as time goes by.
        let since = 60.0 * start.elapsed().as_secs_f64();
        assert!(
            opened >= 60 && (opened as f64) < 60.0 + since + workers as f64,
            "{workers} workers: {opened} flows"
        );
        let refused = rig.eni(EniStat::SessionLimitExceededDropPackets);
        assert_eq!(refused, 600 - opened, "{workers} workers");
    }
}

#[test]
fn workers_share_the_bandwidth_of_an_eni() {
    if !native_code() {
        return;
    }
    // The inner frame: Ethernet, IPv4, UDP.
    const PAYLOAD: usize = 958;
    const FRAME: f64 = 1_000.0;
    for workers in [1, 2, 3] {
        let start = Instant::now();
        // A megabyte a second, of which a tenth may come at once.
        let mut rig = limited(workers, r#""bw": 8000"#);
        rig.feed(&packets(600, PAYLOAD), |at| at);
        let sent = rig.eni(EniStat::TxPackets) as f64 * FRAME;
        let since = 1_000_000.0 * start.elapsed().as_secs_f64();
        // What begins inside a burst passes whole.
        assert!(
            (100_000.0..100_000.0 + since + FRAME * workers as f64).contains(&sent),
            "{workers} workers: {sent} bytes"
        );
        assert_eq!(
            rig.eni(EniStat::OtherDropPackets),
            600 - (sent / FRAME) as u64
        );
    }
}

#[test]
fn workers_share_the_packets_of_an_eni() {
    if !native_code() {
        return;
    }
    for workers in [1, 2, 3] {
        let start = Instant::now();
        // A tenth of which may come at once.
        let rate = r#"[{"DASHWIRE_ENI_TABLE:F4939FEFC47E": {"pps": 1000}, "OP": "SET"}]"#;
        let mut rig = Rig::with(workers, Settings::default(), rate);
        rig.feed(&packets(600, world::SMALL), |at| at);
        let sent = rig.eni(EniStat::TxPackets);
        let since = 1_000.0 * start.elapsed().as_secs_f64();
        // What begins inside a burst passes whole.
        assert!(
            (100.0..100.0 + since + 2.0 * workers as f64).contains(&(sent as f64)),
            "{workers} workers: {sent} packets"
        );
        assert_eq!(rig.eni(EniStat::OtherDropPackets), 600 - sent);
    }
}
