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

/// A floating NIC behind which the VM's subnet is a tunnel away.
fn floating(endpoints: &str) -> Engine<dyn PacketEngine> {
    let text = format!(
        r#"[
        {{"DASH_APPLIANCE_TABLE:100": {{"sip": "10.1.0.5", "vm_vni": 2001,
            "outbound_direction_lookup": "dst_mac", "trusted_vnis_list": [{{"value": 100}}]}}}},
        {{"DASH_ROUTING_TYPE_TABLE:privatelink": {{"items": [
            {{"action_name": "a1", "action_type": "4_to_6"}},
            {{"action_name": "a2", "action_type": "staticencap", "encap_type": "nvgre", "vni": 100}}]}}}},
        {{"DASH_VNET_TABLE:Vnet1": {{"vni": 2001}}}},
        {{"DASH_TUNNEL_TABLE:t": {{"endpoints": {endpoints}, "encap_type": "vxlan", "vni": 100}}}},
        {{"DASH_ENI_TABLE:e": {{"mac_address": "F4:93:9F:EF:C4:7E", "underlay_ip": "25.1.1.1",
            "admin_state": "enabled", "vnet": "Vnet1", "eni_mode": "fnic",
            "trusted_vnis_list": [{{"value": 800}}]}}}},
        {{"DASH_ROUTE_GROUP_TABLE:g": {{"version": "1"}}}},
        {{"DASH_ROUTE_TABLE:g:10.2.0.0/16": {{"routing_type": "vnet", "vnet": "Vnet1"}}}},
        {{"DASH_ROUTE_TABLE:g:10.0.0.0/16": {{"routing_type": "direct", "tunnel": "t"}}}},
        {{"DASH_VNET_MAPPING_TABLE:Vnet1:10.2.0.100": {{"routing_type": "privatelink",
            "underlay_ip": "101.1.2.3", "overlay_sip_prefix": "fd40:108:20:abc:abc::/96",
            "overlay_dip_prefix": "2603:10e1:100:2::3401:203/128"}}}},
        {{"DASH_ROUTE_RULE_TABLE:e:800:25.1.1.1/32:0": {{"action_type": "decap"}}}},
        {{"DASH_ROUTE_RULE_TABLE:e:100:101.1.2.3/32:0": {{"action_type": "decap"}}}},
        {{"DASH_ENI_ROUTE_TABLE:e": {{"group_id": "g"}}}}
        ]"#
    );
    let mut engine = start(EngineName::Native, Options::default()).unwrap();
    let config = ConfigFile::parse(Path::new("floating"), &text).unwrap();
    config.commit(&mut engine).unwrap();
    engine
}

/// Sends a request and its answer; gives the outer destination of the answer.
fn answered(engine: &mut Engine<dyn PacketEngine>, ports: (u16, u16), nvgre: bool) -> [u8; 4] {
    const VM: [u8; 6] = [0x44, 0xe3, 0x9f, 0xef, 0xc4, 0x6e];
    let (sip, dip) = (
        [0xfd40, 0x108, 0x20, 0xabc, 0xabc, 0, 0xa00, 0xb],
        [0x2603, 0x10e1, 0x100, 2, 0, 0, 0x3401, 0x203],
    );
    let outer = |from: [u8; 4]| Packet::eth(DPU, [2, 0, 0, 0, 0, 2]).ipv4(from, [10, 1, 0, 5]);
    let request = match nvgre {
        true => outer([25, 1, 1, 1]).nvgre(800),
        false => outer([25, 1, 1, 1]).udp(5137, 4789).vxlan(800),
    };
    let request = request
        .eth(ENI, VM)
        .ipv4([10, 0, 0, 11], [10, 2, 0, 100])
        .udp(ports.0, ports.1)
        .payload(b"x")
        .build();
    let answer = outer([101, 1, 2, 3])
        .nvgre(100)
        .eth(ENI, [2; 6])
        .ipv6(dip, sip)
        .udp(ports.1, ports.0)
        .payload(b"x")
        .build();
    let mut frame = Frame::new();
    let mut run = |packet: &[u8]| -> [u8; 4] {
        assert!(frame.fill(packet));
        let verdict = engine.target_mut().run(&mut frame).unwrap();
        assert!(matches!(verdict, Verdict::Send(_)), "{verdict:?}");
        frame.data()[30..34].try_into().unwrap()
    };
    assert_eq!(run(&request), [101, 1, 2, 3]);
    run(&answer)
}

#[test]
fn answers_through_a_floating_nic_are_within_a_quarter_of_even_over_the_vm_s_tunnel() {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("SKIP: the spread of a floating NIC: no machine code for this processor");
        return;
    }
    for (all, flows) in [
        (&["40.40.40.40"][..], 5usize),
        (&["60.60.60.60", "70.70.70.70"], 1_000),
    ] {
        for nvgre in [false, true] {
            let mut engine = floating(&serde_json::json!(all).to_string());
            let mut count = BTreeMap::new();
            for n in 0..flows {
                // Ports of 49152..65535, far apart.
                let port = |n: usize| 49_152 + (n * 7_919 % 16_384) as u16;
                let to = answered(&mut engine, (port(n), port(n * 31 + 5)), nvgre);
                *count.entry(to).or_insert(0usize) += 1;
            }
            assert_eq!(count.len(), all.len());
            assert_eq!(count.values().sum::<usize>(), flows);
            let even = flows / all.len();
            for (endpoint, n) in &count {
                assert!(
                    n.abs_diff(even) * 4 <= even,
                    "{endpoint:?} has {n} of {even}"
                );
            }
        }
    }
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
