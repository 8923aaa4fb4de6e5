//! What `dashctl trace` shows of a packet.

use nic_target::Verdict;

use crate::golden::v1_in;
use crate::setup::*;

fn traced(model: &mut dash_pipeline::model::Model, packet: &[u8]) -> (Verdict, Vec<String>) {
    let (verdict, lines) = model.run_traced(&mut frame_at(packet, 0));
    (
        verdict,
        lines
            .into_iter()
            .map(|l| format!("{}: {}", l.stage, l.what))
            .collect(),
    )
}

#[test]
fn a_trace_of_v1_tells_each_look_up_and_what_leaves() {
    let mut model = appliance();
    let (verdict, lines) = traced(&mut model, &v1_in());
    assert_eq!(verdict, Verdict::Send(OUT_PORT as u16));
    let port = u16::from_be_bytes(flows(&mut model)[0].sides[0].actions.sport);
    let back = u16::from_be_bytes(flows(&mut model)[0].sides[1].actions.sport);
    assert_ne!(port, back);
    let wanted = [
        "rx: parse underlay: 02:00:00:00:00:02 -> 02:00:00:00:00:01, 25.1.1.1 -> 10.0.0.1, TOS 0x00, 100 bytes",
        "rx: match globals[index 0]: found: vip 10.0.0.1, vm_vni 4321, vxlan_port 4789, encap_ttl 64, sport_base 5120, sport_mask 127",
        "rx: parse vxlan: VNI 4321, inner f4:93:9f:ef:c4:7e -> 00:00:5e:00:01:01",
        "rx: match eni_mac[mac f4:93:9f:ef:c4:7e]: found: value 3",
        "rx: decap: 50 bytes off, 50 left",
        "inner: parse inner: outbound, 10.1.1.10 -> 10.1.1.1 UDP 1000 -> 2000, 50 bytes",
        "flow: flow miss",
        "route: match route4[group 1, dst 10.1.1.1]: /16: vnet 1, vni 45654",
        "route: match mapping[vnet 1, v6 0, ip 10.1.1.1]: found: underlay_dip 101.1.2.3, dmac f9:22:83:99:22:a2, flags 2",
        "create: flow created: established, 30 s; replies 10.1.1.1 port 2000 -> 10.1.1.10 port 1000",
        &format!(
            "apply: apply: inner destination f9:22:83:99:22:a2, VXLAN 10.0.0.1 -> 101.1.2.3 VNI 45654 source port {port}, 100 bytes"
        ),
        "apply: match underlay[v6 0, dst 101.1.2.3]: /0: port 7, flags 1, dmac 02:00:00:00:00:02, smac 02:00:00:00:00:01, mtu 65535",
        "apply: forward: 02:00:00:00:00:01 -> 02:00:00:00:00:02",
        "apply: send: port 7",
    ];
    let mut rest = lines.iter();
    for line in wanted {
        assert!(
            rest.any(|l| l == line),
            "{line:?} is not there, or not in its place, in\n{}",
            lines.join("\n")
        );
    }
}

#[test]
fn a_trace_of_a_drop_ends_with_its_reason_and_counters() {
    let mut model = appliance();
    let packet = Pkt {
        dip: [10, 3, 3, 4],
        ..Pkt::outbound()
    }
    .bytes();
    let (verdict, lines) = traced(&mut model, &packet);
    assert_eq!(verdict, Verdict::Drop);
    let [.., miss, last] = lines.as_slice() else {
        panic!("{lines:?}")
    };
    assert_eq!(miss, "route: match route4[group 1, dst 10.3.3.4]: no row");
    assert_eq!(
        last,
        "route: drop route-miss: SAI_ENI_STAT_OUTBOUND_ROUTING_ENTRY_MISS_DROP_PACKETS, \
         SAI_ENI_STAT_FORWARDING_DROP_PACKETS, SAI_ENI_STAT_TOTAL_DROP_PACKETS +1"
    );
}

#[test]
fn tracing_changes_nothing() {
    let (mut plain, mut traced_model) = (appliance(), appliance());
    for packet in [
        v1_in(),
        Pkt::inbound().bytes(),
        Pkt::outbound().tcp(1, 2, 2).bytes(),
        vec![0; 20],
    ] {
        let want = run(&mut plain, &packet, 0);
        let mut frame = frame_at(&packet, 0);
        let (verdict, _) = traced_model.run_traced(&mut frame);
        assert_eq!((verdict, frame.data().to_vec()), want);
    }
    assert_eq!(counters(&mut traced_model), counters(&mut plain));
    assert_eq!(flows(&mut traced_model), flows(&mut plain));
}

#[test]
fn a_model_without_a_pipeline_says_so() {
    let mut model = dash_pipeline::model::Model::new(&nic_target::Capacity::default());
    assert_eq!(
        traced(&mut model, &v1_in()),
        (Verdict::Aborted, vec![": no code is installed".to_owned()])
    );
    let run = nic_target::PacketEngine::run(&mut model, &mut frame_at(&v1_in(), 0));
    assert!(
        matches!(run, Err(nic_target::TargetError::NoImage)),
        "{run:?}"
    );
}

#[test]
fn a_pipeline_that_does_not_check_is_refused_with_the_place() {
    let refused = |ir: &str| {
        let mut model = dash_pipeline::model::Model::new(&nic_target::Capacity::default());
        let image = nic_target::Image {
            shape: [0; 32],
            ir: ir.into(),
            object: Default::default(),
            native: None,
        };
        let update = nic_target::Update {
            generation: 1,
            image: Some(image.into()),
            delta: Default::default(),
        };
        nic_target::Target::apply(&mut model, &update)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused("stage a {\n    send\n}"),
        "model cannot run this image: its IR: line 3, column 1: expected `;`, found `}`"
    );
    assert_eq!(
        refused("stage a { send; }"),
        "model cannot run this image: its IR: stage \"a\": `send` before `apply` on some path"
    );
}
