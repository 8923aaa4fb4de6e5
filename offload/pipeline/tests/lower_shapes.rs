//! Every shape's pipeline is well formed and has a decodable eBPF form.

use dash_pipeline::ir::Timeouts;
use dash_pipeline::plan::{FlowNeeds, Shape};
use dash_pipeline::{check, lower, template, text};
use nic_target::Capacity;

fn shapes() -> impl Iterator<Item = Shape> {
    policies()
        .chain(transforms())
        .chain(settings())
        .chain(lives())
}

/// What settings ask for, with and without encaps of every kind.
fn settings() -> impl Iterator<Item = Shape> {
    (0..16u32).map(|bits| {
        let has = |bit: u32| bits >> bit & 1 == 1;
        Shape {
            sport_security: has(0),
            mtu: has(1),
            port_mtu: has(2).then_some(1500),
            underlay_routes: has(0),
            dscp_pipe: has(2),
            route_group_disabled: has(3),
            flows: FlowNeeds {
                translate: has(3),
                nvgre: has(3),
                u1: has(3),
                redirects: has(3),
                meter: has(2),
                epoch: has(1),
                learn: has(1) && has(0),
            },
            ..Shape::default()
        }
    })
}

/// What connections are asked for, with little and with much policy around it.
fn lives() -> impl Iterator<Item = Shape> {
    policies().step_by(5).map(|policy| Shape {
        timeouts: Timeouts {
            icmp: 1_000,
            ..Timeouts::default()
        },
        tcp_nonsyn_drop: true,
        tcp_reset: policy.acl_out | policy.acl_in != 0,
        flows: FlowNeeds {
            epoch: true,
            ..FlowNeeds::default()
        },
        ..policy
    })
}

/// Routing types and what they call for, with little and with much policy around them.
fn transforms() -> impl Iterator<Item = Shape> {
    let little = Shape::default();
    let much = Shape {
        trusted_vnis: true,
        inbound_pa_validation: true,
        inbound_protocol: true,
        pa_prefixes: true,
        underlay_routes: true,
        acl_out: 0b11111,
        acl_in: 0b11111,
        bandwidth: true,
        packet_rate: true,
        admission: true,
        ..Shape::default()
    };
    [little, much].into_iter().flat_map(|policy| {
        let leftover = Shape {
            flows: FlowNeeds {
                translate: true,
                nvgre: true,
                u1: true,
                redirects: true,
                meter: true,
                epoch: true,
                learn: true,
            },
            ..policy.clone()
        };
        let objects = (0..256u32).map(move |bits| {
            let has = |bit: u32| bits >> bit & 1 == 1;
            let (service_tunnel, private_link, tunnel) = (has(0), has(1), has(2));
            Shape {
                service_tunnel,
                private_link,
                private_link_nsg: private_link && has(2),
                tunnel,
                port_map: private_link && has(3),
                drop_unmapped_ports: private_link && has(3) && has(4),
                route_more: service_tunnel || tunnel || has(4),
                mapping_more: private_link || tunnel,
                floating: has(6),
                redirect: has(7),
                flows: FlowNeeds {
                    translate: service_tunnel || private_link,
                    nvgre: has(5) || has(7),
                    u1: tunnel,
                    redirects: has(7),
                    meter: bits.is_multiple_of(3),
                    epoch: false,
                    learn: false,
                },
                meter: bits.is_multiple_of(3),
                ..policy.clone()
            }
        });
        objects.chain([leftover])
    })
}

fn policies() -> impl Iterator<Item = Shape> {
    (0..8u32).flat_map(|bits| {
        [0, 1, 0b10110, 0b11111]
            .into_iter()
            .flat_map(move |acl_out| {
                [0, 0b10000, 0b11111].into_iter().map(move |acl_in| Shape {
                    trusted_vnis: bits & 1 != 0,
                    inbound_pa_validation: bits & 2 != 0,
                    underlay_routes: bits & 4 != 0,
                    acl_out,
                    acl_in,
                    ..Shape::default()
                })
            })
    })
}

#[test]
fn every_shape_checks_prints_and_parses_back() {
    for shape in shapes() {
        let source = template::pipeline_text(&shape);
        let pipeline = text::parse(&source).unwrap_or_else(|e| panic!("{e}\n{source}"));
        check::check(&pipeline).unwrap_or_else(|e| panic!("{shape:?}: {e}"));
        assert_eq!(text::parse(&text::print(&pipeline)).unwrap(), pipeline);
    }
}

#[test]
fn every_shape_lowers_to_programs_that_decode_and_fit_a_kernel_name() {
    for shape in shapes() {
        let pipeline = text::parse(&template::pipeline_text(&shape)).unwrap();
        let object = lower::lower(&pipeline, &Capacity::default()).unwrap();
        assert_eq!(object.programs.len(), pipeline.stages.len());
        for program in &object.programs {
            dash_bpf::decode::decode(&program.insns).unwrap();
            assert!(program.name.len() <= 15, "{}", program.name);
        }
    }
}

#[test]
fn a_shape_compiles_to_what_it_uses() {
    let stages = |shape: &Shape| -> Vec<String> {
        let p = text::parse(&template::pipeline_text(shape)).unwrap();
        p.stages.into_iter().map(|s| s.name).collect()
    };
    assert_eq!(
        stages(&Shape::default()),
        [
            "rx", "inner", "flow", "related", "route", "inbound", "deliver", "create", "apply"
        ]
    );
    let full = Shape {
        trusted_vnis: true,
        acl_out: 1,
        acl_in: 1,
        ..Shape::default()
    };
    assert_eq!(
        stages(&full),
        [
            "rx", "inner", "flow", "related", "trusted", "acl_out", "route", "inbound", "acl_in",
            "deliver", "create", "apply"
        ]
    );
}

#[test]
fn the_programs_for_known_flows_are_the_same_whatever_policy_they_skip() {
    use dash_bpf::helper;
    use dash_bpf::op::{Imm64, Op};
    use nic_target::Table;

    for shape in shapes() {
        let pipeline = text::parse(&template::pipeline_text(&shape)).unwrap();
        let hits = lower::lower_hits(&pipeline, &Capacity::default()).unwrap();
        let names: Vec<&str> = hits
            .object
            .programs
            .iter()
            .map(|p| p.name.as_str())
            .collect();
        assert_eq!(names, ["rx", "inner", "flow", "apply"], "{shape:?}");
        for (slot, program) in hits.object.tail_calls[0].programs.iter().enumerate() {
            let stage = &pipeline.stages[slot].name;
            let program = program.map(|p| names[p as usize]);
            assert_eq!(
                program,
                names.contains(&stage.as_str()).then_some(stage.as_str())
            );
        }
        let (mut tables, mut helpers) = (Vec::new(), Vec::new());
        for op in hits
            .object
            .programs
            .iter()
            .flat_map(|p| dash_bpf::decode::decode(&p.insns).unwrap())
        {
            match op {
                Op::LoadImm64 {
                    imm: Imm64::Map(map),
                    ..
                } => tables.push(Table::ALL[map as usize]),
                Op::Call { helper } => helpers.push(helper),
                _ => {}
            }
        }
        tables.sort_by_key(|t| t.index());
        tables.dedup();
        let mut wanted = vec![
            Table::Globals,
            Table::EniMac,
            Table::Eni,
            Table::Underlay,
            Table::FlowIndex,
            Table::FlowSlab,
            Table::EniStats,
            Table::PortStats,
            Table::Meta,
            Table::Stages,
            Table::MeterStats,
            Table::Qos,
            Table::QosState,
            Table::PortMtu,
        ];
        wanted.retain(|t| shape.port_mtu.is_some() || *t != Table::PortMtu);
        wanted.retain(|t| shape.underlay_routes || *t != Table::Underlay);
        wanted.retain(|t| shape.flows.meter || *t != Table::MeterStats);
        let limits = [Table::Qos, Table::QosState];
        wanted.retain(|t| shape.bandwidth || shape.packet_rate || !limits.contains(t));
        assert_eq!(tables, wanted, "{shape:?}");
        // Nothing that adds to a map or takes from it.
        for forbidden in [
            helper::MAP_UPDATE_ELEM,
            helper::MAP_DELETE_ELEM,
            helper::MAP_PUSH_ELEM,
            helper::MAP_POP_ELEM,
        ] {
            assert!(!helpers.contains(&forbidden), "{shape:?}");
        }
    }
}

/// A counter in both lists would be counted twice or not at all by who adds two processors up.
#[test]
fn what_is_counted_before_the_look_up_is_counted_nowhere_else() {
    use dash_wire::drop::DropReason;
    use dash_wire::stats::EniStat;

    let full = Shape {
        trusted_vnis: true,
        inbound_pa_validation: true,
        inbound_protocol: true,
        underlay_routes: true,
        acl_out: 0b11111,
        acl_in: 0b11111,
        ..Shape::default()
    };
    let pipeline = text::parse(&template::pipeline_text(&full)).unwrap();
    let before = lower::lower_hits(&pipeline, &Capacity::default())
        .unwrap()
        .counted;
    assert!(
        before.contains(&EniStat::RxPackets) && before.contains(&EniStat::InboundTcpSynPackets)
    );
    let mut later = vec![
        EniStat::TxPackets,
        EniStat::TxBytes,
        EniStat::OutboundTxPackets,
        EniStat::OutboundTxBytes,
        EniStat::InboundTxPackets,
        EniStat::InboundTxBytes,
        EniStat::FlowCreated,
        EniStat::FlowDeleted,
        EniStat::FlowAged,
    ];
    later.extend(DropReason::ALL.iter().flat_map(|r| r.eni_stats()));
    assert!(later.iter().all(|stat| !before.contains(stat)));
    let text = text::print(&pipeline);
    let (_, after) = text.split_once("stage flow").unwrap();
    assert!(
        !after.contains("count "),
        "a stage behind the look-up counts"
    );
}

#[test]
fn packets_of_enis_with_programs_go_up_where_those_are_asked() {
    use dash_wire::stats::EniStat;

    let shape = Shape {
        hooks: true,
        ..Shape::default()
    };
    let pipeline = text::parse(&template::pipeline_text(&shape)).unwrap();
    let hits = lower::lower_hits(&pipeline, &Capacity::default()).unwrap();
    let names: Vec<_> = hits.object.programs.iter().map(|p| &p.name).collect();
    assert_eq!(names, ["rx"]);
    let slots = &hits.object.tail_calls[0].programs;
    assert_eq!(slots[0], Some(0));
    assert!(slots[1..].iter().all(Option::is_none), "{slots:?}");
    assert!(hits.counted.contains(&EniStat::RxPackets));
    assert!(!hits.counted.contains(&EniStat::InboundTcpSynPackets));
    // Without, nothing of it is there.
    let without = template::pipeline_text(&Shape::default());
    assert!(!without.contains("hook"));
    assert_eq!(
        text::print(&pipeline).replace("    hook;\n", ""),
        text::print(&text::parse(&without).unwrap())
    );
}
