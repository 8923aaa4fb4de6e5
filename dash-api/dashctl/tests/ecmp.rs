//! Flows are spread evenly over a tunnel's endpoints, and each keeps to one.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first surprise, with its line"
)]

use std::collections::BTreeMap;
use std::path::Path;

use dash_engine::{Engine, Options};
use dashctl::config::ConfigFile;
use dashctl::engines::{EngineName, start};
use nic_sim::Packet;
use nic_target::{Frame, PacketEngine, Verdict};

const DPU: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ENI: [u8; 6] = [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e];
const FLOWS: u16 = 10_000;

fn engine(endpoints: &str) -> Engine<dyn PacketEngine> {
    let text = format!(
        r#"[
        {{"DASH_APPLIANCE_TABLE:100": {{"sip": "10.0.0.1", "vm_vni": 4321}}}},
        {{"DASH_VNET_TABLE:Vnet1": {{"vni": 45654}}}},
        {{"DASH_TUNNEL_TABLE:t": {{"endpoints": {endpoints}, "encap_type": "vxlan", "vni": 100}}}},
        {{"DASH_ENI_TABLE:e": {{"mac_address": "F4:93:9F:EF:C4:7E", "underlay_ip": "25.1.1.1",
            "admin_state": "enabled", "vnet": "Vnet1"}}}},
        {{"DASH_ROUTE_GROUP_TABLE:g": {{"version": "1"}}}},
        {{"DASH_ROUTE_TABLE:g:10.0.0.0/8": {{"routing_type": "direct", "tunnel": "t"}}}},
        {{"DASH_ENI_ROUTE_TABLE:e": {{"group_id": "g"}}}}
        ]"#
    );
    let mut engine = start(EngineName::Native, Options::default()).unwrap();
    let config = ConfigFile::parse(Path::new("ecmp"), &text).unwrap();
    config.commit(&mut engine).unwrap();
    engine
}

/// Outer destination of the nth flow's packet.
fn endpoint(engine: &mut Engine<dyn PacketEngine>, frame: &mut Frame, n: u16) -> [u8; 4] {
    let packet = Packet::eth(DPU, [2, 0, 0, 0, 0, 2])
        .ipv4([25, 1, 1, 1], [10, 0, 0, 1])
        .udp(5137, 4789)
        .vxlan(4321)
        .eth([2; 6], ENI)
        .ipv4([10, 9, 9, 1], [10, 1, (n >> 8) as u8, n as u8])
        .udp(1024 + n, 443)
        .payload(b"x")
        .build();
    assert!(frame.fill(&packet));
    let verdict = engine.target_mut().run(frame).unwrap();
    assert!(matches!(verdict, Verdict::Send(_)), "{verdict:?}");
    frame.data()[30..34].try_into().unwrap()
}

#[test]
fn ten_thousand_flows_are_within_a_quarter_of_even_and_stay_where_they_are() {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("SKIP: the spread over endpoints: no machine code for this processor");
        return;
    }
    let all = ["90.90.90.90", "10.10.10.10", "11.11.11.11", "12.12.12.12"];
    for members in 2..=all.len() {
        let mut engine = engine(&serde_json::json!(all[..members]).to_string());
        let mut frame = Frame::new();
        let first: Vec<_> = (0..FLOWS)
            .map(|n| endpoint(&mut engine, &mut frame, n))
            .collect();
        let mut count = BTreeMap::new();
        for endpoint in &first {
            *count.entry(*endpoint).or_insert(0usize) += 1;
        }
        assert_eq!(count.len(), members);
        let even = usize::from(FLOWS) / members;
        for (endpoint, flows) in &count {
            let off = flows.abs_diff(even);
            assert!(off * 4 <= even, "{endpoint:?} has {flows} of {even}");
        }
        let again: Vec<_> = (0..FLOWS)
            .map(|n| endpoint(&mut engine, &mut frame, n))
            .collect();
        assert_eq!(first, again, "a flow moved");
    }
}
