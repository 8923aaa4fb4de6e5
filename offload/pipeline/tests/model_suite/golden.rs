//! Byte-exact packets (DASH reference section 9 and examples E1 to E9, E34).

use dash_pipeline::entropy;
use dash_wire::tables::{FlowActions, FlowKey, flow_state};
use nic_target::Verdict;

use crate::setup::*;

const V1_IN: &str = "
    02 00 00 00 00 01 02 00 00 00 00 02 08 00 45 00 00 56 00 00 00 00 40 11 56 95 19 01 01 01 0a 00
    00 01 14 11 12 b5 00 42 00 00 08 00 00 00 00 10 e1 00 00 00 5e 00 01 01 f4 93 9f ef c4 7e 08 00
    45 00 00 24 00 00 00 00 40 11 64 bd 0a 01 01 0a 0a 01 01 01 03 e8 07 d0 00 10 9e e6 44 41 53 48
    54 45 53 54";
/// Source port 0x1422 stands for base 5120 and 7 bits of entropy.
const V1_OUT: &str = "
    02 00 00 00 00 02 02 00 00 00 00 01 08 00 45 00 00 56 00 00 00 00 40 11 09 93 0a 00 00 01 65 01
    02 03 14 22 12 b5 00 42 00 00 08 00 00 00 00 b2 56 00 f9 22 83 99 22 a2 f4 93 9f ef c4 7e 08 00
    45 00 00 24 00 00 00 00 40 11 64 bd 0a 01 01 0a 0a 01 01 01 03 e8 07 d0 00 10 9e e6 44 41 53 48
    54 45 53 54";
const V6_IN: &str = "
    02 00 00 00 00 01 02 00 00 00 00 02 08 00 45 00 00 56 00 00 00 00 40 11 09 93 65 01 02 03 0a 00
    00 01 14 55 12 b5 00 42 00 00 08 00 00 00 00 b2 56 00 f4 93 9f ef c4 7e f9 22 83 99 22 a2 08 00
    45 00 00 24 00 00 00 00 40 11 64 bd 0a 01 01 01 0a 01 01 0a 07 d0 03 e8 00 10 9e e6 44 41 53 48
    54 45 53 54";
const V6_OUT: &str = "
    02 00 00 00 00 02 02 00 00 00 00 01 08 00 45 00 00 56 00 00 00 00 40 11 56 95 0a 00 00 01 19 01
    01 01 14 66 12 b5 00 42 00 00 08 00 00 00 00 10 e1 00 f4 93 9f ef c4 7e f9 22 83 99 22 a2 08 00
    45 00 00 24 00 00 00 00 40 11 64 bd 0a 01 01 01 0a 01 01 0a 07 d0 03 e8 00 10 9e e6 44 41 53 48
    54 45 53 54";

pub(crate) fn v1_in() -> Vec<u8> {
    hex(V1_IN)
}

fn mapped(ip: [u8; 4]) -> [u8; 16] {
    let mut all = [0; 16];
    all[12..].copy_from_slice(&ip);
    all
}

/// Key of V1's flow, or of its replies.
fn key(outbound: bool) -> FlowKey {
    let vm = (mapped(VM), 1000u16.to_be_bytes());
    let peer = (mapped(PEER), 2000u16.to_be_bytes());
    let ((sip, sport), (dip, dport)) = if outbound { (vm, peer) } else { (peer, vm) };
    let flags = if outbound { 1 << 1 } else { 2 << 1 };
    FlowKey {
        sip,
        dip,
        sport,
        dport,
        eni: ENI as u16,
        proto: 17,
        flags,
    }
}

/// A golden output with the source port of a flow.
fn with_port(golden: &str, key: &FlowKey) -> Vec<u8> {
    let mut bytes = hex(golden);
    let port = 5120 + (entropy::hash(key) & 127);
    bytes[34..36].copy_from_slice(&port.to_be_bytes());
    bytes
}

#[test]
fn v1_outbound_vnet_request_leaves_as_the_golden_bytes() {
    let mut model = appliance();
    let ((verdict, out), moved) = moved(&mut model, |m| run(m, &hex(V1_IN), 0));
    assert_eq!(verdict, Verdict::Send(OUT_PORT as u16));
    assert_eq!(out, with_port(V1_OUT, &key(true)));
    let counted = expected(&[
        ("+RX_PACKETS", 1),
        ("+RX_BYTES", 100),
        ("+OUTBOUND_RX_PACKETS", 1),
        ("+OUTBOUND_RX_BYTES", 100),
        ("+FLOW_CREATED", 1),
        ("+TX_PACKETS", 1),
        ("+TX_BYTES", 100),
        ("+OUTBOUND_TX_PACKETS", 1),
        ("+OUTBOUND_TX_BYTES", 100),
    ]);
    assert_eq!(moved, counted);
}

#[test]
fn v1_leaves_a_flow_pair_with_the_decisions_of_both_directions() {
    let mut model = appliance();
    run(&mut model, &hex(V1_IN), 250);
    let flows = flows(&mut model);
    let [flow] = flows.as_slice() else {
        panic!("one connection, not {}", flows.len())
    };
    let port = |key: &FlowKey| (5120 + (entropy::hash(key) & 127)).to_be_bytes();
    let there = FlowActions {
        actions: 0x9,
        u0_sip: VIP,
        u0_dip: PEER_PA,
        u0_vni: VNET_VNI,
        dmac: PEER_MAC,
        sport: port(&key(true)),
        u0_encap: 1,
        u1: 0,
    };
    let back = FlowActions {
        actions: 0x1,
        u0_dip: VM_HOST,
        u0_vni: VM_VNI,
        dmac: [0; 6],
        sport: port(&key(false)),
        ..there
    };
    assert_eq!(flow.sides.map(|side| side.key), [key(true), key(false)]);
    assert_eq!(flow.sides.map(|side| side.actions), [there, back]);
    assert_eq!(
        (flow.created_ns, flow.last_seen_ns),
        (250_000_000, 250_000_000)
    );
    assert_eq!((flow.packets, flow.bytes), ([1, 0], [50, 0]));
    assert_eq!(
        (flow.state, flow.timeout_ms, flow.fin),
        (flow_state::ESTABLISHED, 30_000, 0)
    );
    assert_eq!((u32::from(flow.eni), flow.direction), (ENI, 1));
    assert_eq!(flow.meter_class, 0);
}

#[test]
fn v6_inbound_packet_is_delivered_to_the_vm_as_the_golden_bytes() {
    let mut model = appliance();
    let ((verdict, out), moved) = moved(&mut model, |m| run(m, &hex(V6_IN), 0));
    assert_eq!(verdict, Verdict::Send(OUT_PORT as u16));
    assert_eq!(out, with_port(V6_OUT, &key(false)));
    assert_eq!(moved.get("3/INBOUND_RX_PACKETS"), Some(&1));
    assert_eq!(moved.get("3/INBOUND_TX_BYTES"), Some(&100));
    assert_eq!(moved.get("3/FLOW_CREATED"), Some(&1));
    assert_eq!(moved.get("3/TOTAL_DROP_PACKETS"), None);
}

#[test]
fn the_reply_to_v1_is_v6_by_the_reverse_flow_without_any_inbound_policy() {
    // No rule, no PA: only the flow lets it in.
    let mut model = appliance();
    run(&mut model, &hex(V1_IN), 0);
    let delete = |table, key: Vec<u8>| nic_target::TableOp::Delete {
        table,
        key: key.into(),
    };
    let nic_target::TableOp::Put { key: rule, .. } = inbound(PEER_PA, 32, 0) else {
        unreachable!()
    };
    change(
        &mut model,
        vec![delete(nic_target::Table::Inbound, rule.into())],
    );
    let ((verdict, out), moved) = moved(&mut model, |m| run(m, &hex(V6_IN), 1));
    assert_eq!(verdict, Verdict::Send(OUT_PORT as u16));
    assert_eq!(out, with_port(V6_OUT, &key(false)));
    assert_eq!(moved.get("3/FLOW_CREATED"), None);
    let flow = flows(&mut model)[0];
    assert_eq!((flow.packets, flow.bytes), ([1, 1], [50, 50]));
}

#[test]
fn the_reply_to_an_inbound_flow_goes_back_where_the_request_came_from() {
    let mut model = appliance();
    run(&mut model, &hex(V6_IN), 0);
    // No mapping is used: a host that is not in the VNET's map answers all the same.
    let nic_target::TableOp::Put { key, .. } = rows().remove(8) else {
        unreachable!()
    };
    change(
        &mut model,
        vec![nic_target::TableOp::Delete {
            table: nic_target::Table::Mapping,
            key,
        }],
    );
    let (verdict, out) = run(&mut model, &hex(V1_IN), 1);
    assert_eq!(verdict, Verdict::Send(OUT_PORT as u16));
    assert_eq!(out, with_port(V1_OUT, &self::key(true)));
}

#[test]
fn bytes_after_the_ip_packet_do_not_leave() {
    let mut model = appliance();
    let padded = [hex(V1_IN), vec![0xaa; 9]].concat();
    let (verdict, out) = run(&mut model, &padded, 0);
    assert_eq!(
        (verdict, out),
        (
            Verdict::Send(OUT_PORT as u16),
            with_port(V1_OUT, &key(true))
        )
    );

    // Padding inside the datagram: the inner frame is longer than its IP packet.
    let padded = Pkt::outbound().around(&[Pkt::outbound().inner(), vec![0xaa; 9]].concat());
    let (_, out) = run(&mut model, &padded, 0);
    assert_eq!(out.len(), 100);
    assert_eq!(
        out[50..],
        [&PEER_MAC[..], &Pkt::outbound().inner()[6..]].concat()
    );
}

#[test]
fn a_direct_route_sends_the_bare_inner_frame_with_its_own_macs() {
    let mut model = appliance();
    let packet = Pkt {
        dip: [30, 0, 0, 1],
        ..Pkt::outbound()
    };
    let (verdict, out) = run(&mut model, &packet.bytes(), 0);
    assert_eq!(
        (verdict, out),
        (Verdict::Send(OUT_PORT as u16), packet.inner())
    );
}

#[test]
fn without_an_underlay_route_packets_leave_by_their_port_with_macs_swapped() {
    let shape = dash_pipeline::plan::Shape {
        underlay_routes: false,
        ..full_shape()
    };
    let mut model = model_of(&dash_pipeline::template::pipeline_text(&shape), rows(), 16);
    let (verdict, out) = run(&mut model, &hex(V1_IN), 0);
    assert_eq!(verdict, Verdict::Send(1));
    assert_eq!(
        out,
        with_port(V1_OUT, &key(true)),
        "the golden MACs are the received ones swapped"
    );
}

#[test]
fn outer_dscp_is_preserved_and_ecn_combined_inward_then_copied_outward() {
    let mut model = appliance();
    // Outer DSCP 46 and CE; inner DSCP 10 and ECT(0).
    let packet = Pkt {
        outer_tos: 0xb8 | 3,
        tos: 10 << 2 | 2,
        ..Pkt::outbound()
    };
    let (_, out) = run(&mut model, &packet.bytes(), 0);
    assert_eq!(out[15], 0xb8 | 3);
    let marked = Pkt {
        tos: 10 << 2 | 3,
        dmac: PEER_MAC,
        ..packet
    };
    assert_eq!(
        out[50..],
        marked.inner(),
        "CE inside, its header checksum right again"
    );

    let unmarked = Pkt {
        outer_tos: 0xb8 | 2,
        tos: 10 << 2,
        ..Pkt::outbound()
    };
    let (_, out) = run(&mut model, &unmarked.bytes(), 0);
    assert_eq!(out[15], 0xb8, "the outer ECN is the inner one, Not-ECT");
    assert_eq!(
        out[50..],
        Pkt {
            dmac: PEER_MAC,
            ..unmarked
        }
        .inner()
    );
}

#[test]
fn ipv6_inside_is_routed_mapped_and_encapsulated() {
    let vm: [u8; 16] = hex("20010db8 00000000 00000000 0000000a")
        .try_into()
        .unwrap();
    let peer: [u8; 16] = hex("20010db8 00000000 00000000 00000001")
        .try_into()
        .unwrap();
    let mapping = put(
        nic_target::Table::Mapping,
        dash_wire::tables::MappingKey {
            vnet: 1,
            v6: 1,
            pad: 0,
            ip: peer,
        },
        dash_wire::tables::MappingRow {
            underlay_dip: PEER_PA,
            dmac: PEER_MAC,
            flags: 0,
        },
    );
    let mut model = appliance_with(vec![route6(peer, 64, 0), mapping]);
    let outer = Pkt {
        outer_tos: 3,
        ..Pkt::outbound()
    };
    // Traffic class with ECT(1), which becomes CE.
    let frame = |class| {
        ethernet(
            outer.dmac,
            outer.smac,
            0x86dd,
            &ipv6(class, vm, peer, 17, &udp(5, 6)),
        )
    };
    let (verdict, out) = run(&mut model, &outer.around(&frame(0x29)), 0);
    assert_eq!(verdict, Verdict::Send(OUT_PORT as u16));
    assert_eq!(out[30..34], PEER_PA);
    assert_eq!(out[15], 3);
    assert_eq!(out[50..], frame(0x2b), "without SET_DMAC the MACs stay");
    let flow = flows(&mut model)[0];
    assert_eq!(
        (
            flow.sides[0].key.sip,
            flow.sides[0].key.flags,
            flow.sides[1].key.flags
        ),
        (vm, 1 | 1 << 1, 1 | 2 << 1)
    );
}

#[test]
fn arp_and_neighbor_discovery_pass_untouched_and_uncounted() {
    let mut model = appliance();
    let arp = ethernet([0xff; 6], NEIGHBOR, 0x0806, &[0; 28]);
    let nd = |ty: u8| {
        ethernet(
            OWN,
            NEIGHBOR,
            0x86dd,
            &ipv6(0, [1; 16], [2; 16], 58, &[ty, 0, 0, 0]),
        )
    };
    for packet in [arp, nd(133), nd(137)] {
        let ((verdict, out), moved) = moved(&mut model, |m| run(m, &packet, 0));
        assert_eq!(
            (verdict, out, moved),
            (Verdict::Pass, packet, expected(&[]))
        );
    }
    for packet in [
        nd(132),
        nd(138),
        ethernet(OWN, NEIGHBOR, 0x86dd, &ipv6(0, [1; 16], [2; 16], 58, &[])),
    ] {
        let ((verdict, _), moved) = moved(&mut model, |m| run(m, &packet, 0));
        assert_eq!(
            (verdict, moved),
            (Verdict::Drop, expected(&[("VIP_MISS_DROP_PACKETS", 1)]))
        );
    }
}
