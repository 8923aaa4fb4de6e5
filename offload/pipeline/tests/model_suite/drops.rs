//! Every drop reason: the packet that meets it, and exactly the counters it moves.

use std::collections::{BTreeMap, BTreeSet};

use dash_pipeline::model::Model;
use dash_wire::drop::DropReason;
use dash_wire::tables::{EniRow, acl_action, eni_flags, inbound_action};
use nic_target::{AclRuleRow, Table, TableOp, Verdict};

use crate::setup::*;

/// Packets that one reason drops.
struct Case {
    reason: DropReason,
    what: &'static str,
    rows: Vec<TableOp>,
    packet: Vec<u8>,
}

fn case(reason: DropReason, what: &'static str, packet: Vec<u8>) -> Case {
    Case {
        reason,
        what,
        rows: Vec::new(),
        packet,
    }
}

/// A packet with bytes overwritten at an offset; the outer checksum is made right again when the
/// outer header changed.
fn spoil(packet: Pkt, at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = packet.bytes();
    bytes[at..at + with.len()].copy_from_slice(with);
    if (14..34).contains(&at) {
        fix_checksum(&mut bytes[14..]);
    }
    bytes
}

const OUTER: usize = 14;
const UDP: usize = 34;
const VXLAN: usize = 42;
const INNER_TYPE: usize = 62;
const INNER_IP: usize = 64;
const INNER_L4: usize = 84;

fn malformed_outside() -> Vec<Case> {
    use DropReason::OuterMalformed as R;
    let out = Pkt::outbound;
    let mut bad_sum = out().bytes();
    bad_sum[OUTER + 10] ^= 1;
    let mut cases = vec![
        case(R, "no Ethernet header", vec![0; 13]),
        case(R, "19 bytes of IPv4", out().bytes()[..33].to_vec()),
        case(R, "version 5", spoil(out(), OUTER, &[0x55])),
        case(R, "header length 16", spoil(out(), OUTER, &[0x44])),
        case(
            R,
            "total length below the header",
            spoil(out(), OUTER + 2, &[0, 19]),
        ),
        case(
            R,
            "total length past the frame",
            spoil(out(), OUTER + 2, &[0, 87]),
        ),
        case(R, "bad header checksum", bad_sum),
        case(R, "TCP outside", spoil(out(), OUTER + 9, &[6])),
        case(R, "another UDP port", spoil(out(), UDP + 2, &[0x12, 0xb6])),
        case(
            R,
            "UDP length below an inner Ethernet header",
            spoil(out(), UDP + 4, &[0, 29]),
        ),
        case(
            R,
            "UDP length past the IP packet",
            spoil(out(), UDP + 4, &[0, 0x43]),
        ),
        case(R, "no I flag", spoil(out(), VXLAN, &[0xf7])),
    ];
    // Options that reach past the frame.
    let mut short = out().bytes()[..40].to_vec();
    short[OUTER] = 0x4f;
    cases.push(case(R, "header longer than the frame", short));
    cases
}

fn other_outside() -> Vec<Case> {
    use DropReason::{EniDown, EniMiss, OuterFragment, VipMiss};
    let vlan = ethernet(OWN, NEIGHBOR, 0x8100, &[0; 50]);
    let v6 = ethernet(
        OWN,
        NEIGHBOR,
        0x86dd,
        &ipv6(0, [1; 16], [2; 16], 17, &udp(1, 4789)),
    );
    vec![
        case(
            VipMiss,
            "another destination",
            Pkt {
                outer_dip: [9, 9, 9, 9],
                ..Pkt::outbound()
            }
            .bytes(),
        ),
        case(VipMiss, "a VLAN tag", vlan),
        case(VipMiss, "IPv6 underlay", v6),
        Case {
            rows: vec![put(
                Table::Globals,
                0u32,
                dash_wire::tables::Globals {
                    vip: [0; 4],
                    ..globals()
                },
            )],
            ..case(
                VipMiss,
                "no appliance",
                Pkt {
                    outer_dip: [0; 4],
                    ..Pkt::outbound()
                }
                .bytes(),
            )
        },
        case(
            OuterFragment,
            "first fragment",
            spoil(Pkt::outbound(), OUTER + 6, &[0x20, 0]),
        ),
        case(
            OuterFragment,
            "last fragment",
            spoil(Pkt::outbound(), OUTER + 6, &[0, 1]),
        ),
        case(
            EniMiss,
            "unknown source MAC",
            Pkt {
                smac: PEER_MAC,
                ..Pkt::outbound()
            }
            .bytes(),
        ),
        case(
            EniMiss,
            "unknown destination MAC",
            Pkt {
                dmac: PEER_MAC,
                ..Pkt::inbound()
            }
            .bytes(),
        ),
        case(
            EniDown,
            "admin state",
            Pkt {
                smac: DOWN_ENI_MAC,
                ..Pkt::outbound()
            }
            .bytes(),
        ),
    ]
}

fn inside() -> Vec<Case> {
    use DropReason::{
        EcnNotCapable, IcmpErrorMiss, InnerFragment, InnerMalformed, InnerOptions,
        InnerUnsupported, InnerVlan,
    };
    let out = Pkt::outbound;
    let inner6 = |next, payload: &[u8], len: u16| {
        let mut ip = ipv6(0, [1; 16], [2; 16], next, payload);
        ip[4..6].copy_from_slice(&len.to_be_bytes());
        out().around(&ethernet(out().dmac, out().smac, 0x86dd, &ip))
    };
    let l4 = |proto, len| {
        Pkt {
            proto,
            l4: vec![0; len],
            ..out()
        }
        .bytes()
    };
    let mut version7 = ipv6(0, [1; 16], [2; 16], 17, &udp(1, 2));
    version7[0] = 0x70;
    vec![
        case(
            InnerMalformed,
            "inner version 5",
            spoil(out(), INNER_IP, &[0x55]),
        ),
        case(
            InnerMalformed,
            "inner total length below the header",
            spoil(out(), INNER_IP + 2, &[0, 19]),
        ),
        case(
            InnerMalformed,
            "inner total length past the frame",
            spoil(out(), INNER_IP + 2, &[0, 37]),
        ),
        case(
            InnerMalformed,
            "19 bytes of inner IPv4",
            out().around(&out().inner()[..33]),
        ),
        case(InnerMalformed, "19 bytes of TCP", l4(6, 19)),
        case(InnerMalformed, "7 bytes of UDP", l4(17, 7)),
        case(InnerMalformed, "7 bytes of ICMP", l4(1, 7)),
        case(
            InnerMalformed,
            "39 bytes of IPv6",
            out().around(&ethernet(ENI_MAC, ENI_MAC, 0x86dd, &[0x60; 39])),
        ),
        case(
            InnerMalformed,
            "IPv6 of version 7",
            out().around(&ethernet(out().dmac, ENI_MAC, 0x86dd, &version7)),
        ),
        case(
            InnerMalformed,
            "IPv6 payload past the frame",
            inner6(17, &udp(1, 2), 17),
        ),
        case(
            InnerMalformed,
            "7 bytes of ICMPv6",
            inner6(58, &[128; 7], 7),
        ),
        case(
            InnerMalformed,
            "19 bytes of TCP over IPv6",
            inner6(6, &[0; 20], 19),
        ),
        case(
            InnerOptions,
            "inner options",
            spoil(out(), INNER_IP, &[0x46]),
        ),
        case(
            InnerOptions,
            "options that reach past the packet",
            spoil(out(), INNER_IP, &[0x4f]),
        ),
        case(
            InnerMalformed,
            "an inner header of 16 bytes",
            spoil(out(), INNER_IP, &[0x44]),
        ),
        case(
            InnerVlan,
            "inner VLAN",
            spoil(out(), INNER_TYPE, &[0x81, 0]),
        ),
        case(
            InnerVlan,
            "inner service VLAN",
            spoil(out(), INNER_TYPE, &[0x88, 0xa8]),
        ),
        case(
            InnerUnsupported,
            "inner ARP",
            spoil(out(), INNER_TYPE, &[0x08, 0x06]),
        ),
        case(
            InnerFragment,
            "the last fragment alone",
            spoil(out(), INNER_IP + 6, &[0x1f, 0xff]),
        ),
        case(
            InnerFragment,
            "a later IPv6 fragment alone",
            inner6(44, &[17, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 16),
        ),
        case(
            InnerMalformed,
            "half an IPv6 fragment header",
            inner6(44, &[17, 0, 0, 9], 4),
        ),
        case(
            InnerMalformed,
            "options longer than the packet",
            inner6(60, &[17, 1, 0, 0, 0, 0, 0, 0], 8),
        ),
        case(
            IcmpErrorMiss,
            "an error that quotes nothing",
            Pkt {
                proto: 1,
                l4: vec![3, 3, 0, 0, 0, 0, 0, 0],
                ..out()
            }
            .bytes(),
        ),
        case(
            EcnNotCapable,
            "CE over Not-ECT",
            Pkt {
                outer_tos: 3,
                tos: 0xb8,
                ..out()
            }
            .bytes(),
        ),
    ]
}

fn policy() -> Vec<Case> {
    use DropReason as R;
    let out = Pkt::outbound;
    let to = |dip| Pkt { dip, ..out() }.bytes();
    let eni = |row: EniRow| put(Table::Eni, ENI, row);
    let mut acl_out = [[0; 5]; 4];
    acl_out[0][2] = 9;
    let mut acl_in = [[0; 5]; 4];
    acl_in[2][4] = 9;
    let group = |rules: Vec<AclRuleRow>| TableOp::Acl {
        group: 9,
        rules: Some(rules.into()),
    };
    let with_acl = |acl, rules| vec![eni(EniRow { acl, ..eni_row() }), group(rules)];
    vec![
        Case {
            rows: vec![eni(EniRow {
                flags: eni_row().flags | eni_flags::TRUSTED_VNIS,
                ..eni_row()
            })],
            ..case(
                R::TrustedVniMiss,
                "the ENI lists VNIs, not this one",
                out().bytes(),
            )
        },
        Case {
            rows: with_acl(acl_out, vec![any_rule(acl_action::DENY)]),
            ..case(R::AclDeny, "final deny outbound", out().bytes())
        },
        Case {
            rows: with_acl(acl_in, vec![any_rule(acl_action::DENY_AND_CONTINUE)]),
            ..case(
                R::AclDeny,
                "soft deny of the last stage inbound",
                Pkt::inbound().bytes(),
            )
        },
        Case {
            rows: with_acl(acl_out, vec![]),
            ..case(R::AclDeny, "a bound group without a match", out().bytes())
        },
        case(
            R::UnsupportedProtocol,
            "OSPF",
            Pkt { proto: 89, ..out() }.bytes(),
        ),
        case(
            R::UnsupportedProtocol,
            "ICMPv6 over IPv4",
            Pkt {
                proto: 58,
                ..Pkt::inbound()
            }
            .bytes(),
        ),
        Case {
            rows: vec![eni(EniRow {
                flags: eni_flags::ADMIN_UP,
                ..eni_row()
            })],
            ..case(R::RouteGroupMiss, "no route group", out().bytes())
        },
        case(R::RouteMiss, "no route", to([10, 3, 3, 4])),
        case(R::RouteDrop, "a drop route", to([10, 2, 5, 1])),
        case(R::MappingMiss, "no mapping", to([10, 1, 1, 2])),
        case(
            R::InboundMiss,
            "another VNI",
            Pkt {
                vni: 777,
                ..Pkt::inbound()
            }
            .bytes(),
        ),
        case(
            R::InboundMiss,
            "no rule for the source",
            Pkt {
                outer_sip: [200; 4],
                ..Pkt::inbound()
            }
            .bytes(),
        ),
        Case {
            rows: vec![inbound([200, 0, 0, 0], 8, inbound_action::DROP)],
            ..case(
                R::InboundDrop,
                "a drop rule",
                Pkt {
                    outer_sip: [200; 4],
                    ..Pkt::inbound()
                }
                .bytes(),
            )
        },
        Case {
            rows: vec![inbound([0; 4], 0, inbound_action::DECAP_PA_VALIDATE)],
            ..case(
                R::PaValidation,
                "a source that is no PA",
                Pkt {
                    outer_sip: [200; 4],
                    ..Pkt::inbound()
                }
                .bytes(),
            )
        },
        Case {
            rows: vec![neighbor(0)],
            ..case(R::NeighborMiss, "an unresolved next hop", out().bytes())
        },
    ]
}

/// What a packet counts when `reason` ends it, apart from what it counted on its way there.
fn of_reason(reason: DropReason, eni: u32) -> BTreeMap<String, u64> {
    let port = reason
        .port_stats()
        .iter()
        .map(|s| s.name().trim_start_matches("SAI_PORT_STAT_").to_owned());
    let eni_stats = reason
        .eni_stats()
        .iter()
        .map(|s| s.name().trim_start_matches("SAI_ENI_STAT_"));
    port.chain(eni_stats.map(|s| format!("{eni}/{s}")))
        .map(|name| (name, 1))
        .collect()
}

/// Counters of drops and errors among what moved.
fn drops_only(moved: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let drop = |n: &str| {
        ["DROP", "ERRORS", "DISCARDS", "FAILED"]
            .iter()
            .any(|word| n.contains(word))
    };
    moved.into_iter().filter(|(name, _)| drop(name)).collect()
}

#[test]
fn every_reason_moves_its_counters_once_and_no_other_drop_counter() {
    let mut met = BTreeSet::new();
    for c in malformed_outside()
        .into_iter()
        .chain(other_outside())
        .chain(inside())
        .chain(policy())
    {
        let mut model = appliance_with(c.rows);
        let ((verdict, _), moved) = moved(&mut model, |m| run(m, &c.packet, 0));
        let want = if c.reason == DropReason::NeighborMiss {
            Verdict::Pass
        } else {
            Verdict::Drop
        };
        assert_eq!(verdict, want, "{}: {}", c.reason.name(), c.what);
        let eni = if c.reason == DropReason::EniDown {
            DOWN_ENI
        } else {
            ENI
        };
        assert_eq!(
            drops_only(moved.clone()),
            of_reason(c.reason, eni),
            "{}: {}",
            c.reason.name(),
            c.what
        );
        let known = !c.reason.eni_stats().is_empty();
        assert_eq!(
            moved.contains_key(&format!("{eni}/RX_PACKETS")),
            known,
            "{}: {}",
            c.reason.name(),
            c.what
        );
        let made = flows(&mut model).len();
        assert_eq!(
            made,
            usize::from(c.reason == DropReason::NeighborMiss),
            "{}: {}",
            c.reason.name(),
            c.what
        );
        met.insert(c.reason);
    }
    // The full flow table has its own test below; `internal` needs an encap no pipeline makes, and
    // `not-translatable` a service tunnel: scenario `service-tunnel-vxlan`; redirects of load balancers are
    // scenario `e35-fast-path-vip`; the others need settings (`e23-port-map-drop`,
    // `vxlan-source-port-security`, `mtu`, `e31-strict-openings`, `drops-route-group-disabled`) or
    // programs of users, which no model has. Limits have scenarios, too.
    let rest: Vec<_> = DropReason::ALL
        .iter()
        .filter(|r| !met.contains(r))
        .collect();
    assert_eq!(
        rest,
        [
            &DropReason::FlowTableFull,
            &DropReason::Internal,
            &DropReason::NotTranslatable,
            &DropReason::FastPathEniMiss,
            &DropReason::FastPathOff,
            &DropReason::FastPathMalformed,
            &DropReason::FastPathFlowMiss,
            &DropReason::PortRangeMiss,
            &DropReason::VxlanSport,
            &DropReason::TooBig,
            &DropReason::TcpNonSynMiss,
            &DropReason::HookDrop,
            &DropReason::HookAborted,
            &DropReason::BandwidthLimit,
            &DropReason::ConnectionRate,
            &DropReason::FlowLimit,
            &DropReason::RouteGroupDisabled,
            &DropReason::PacketRate,
        ]
    );
}

#[test]
fn a_full_flow_table_drops_and_says_so() {
    let mut model = model_of(
        &dash_pipeline::template::pipeline_text(&full_shape()),
        rows(),
        0,
    );
    let ((verdict, _), moved) = moved(&mut model, |m| run(m, &Pkt::outbound().bytes(), 0));
    assert_eq!(verdict, Verdict::Drop);
    assert_eq!(drops_only(moved), of_reason(DropReason::FlowTableFull, ENI));
}

#[test]
fn an_encap_the_model_cannot_build_is_an_internal_drop() {
    let ir = dash_pipeline::template::pipeline_text(&full_shape())
        .replace("actions.u0_encap = 1", "actions.u0_encap = 2");
    let mut model = model_of(&ir, rows(), 4);
    let ((verdict, _), moved) = moved(&mut model, |m| run(m, &Pkt::outbound().bytes(), 0));
    assert_eq!(verdict, Verdict::Drop);
    assert_eq!(drops_only(moved), of_reason(DropReason::Internal, ENI));
}

#[test]
fn trusted_vnis_are_global_or_the_eni_s() {
    let listed = EniRow {
        flags: eni_row().flags | eni_flags::TRUSTED_VNIS,
        ..eni_row()
    };
    let verdict = |rows: Vec<TableOp>| {
        let mut model: Model = appliance_with([vec![put(Table::Eni, ENI, listed)], rows].concat());
        run(&mut model, &Pkt::outbound().bytes(), 0).0
    };
    let sent = Verdict::Send(OUT_PORT as u16);
    assert_eq!(verdict(vec![trusted([0xff, 0xff], VM_VNI)]), sent);
    assert_eq!(verdict(vec![trusted([0, ENI as u8], VM_VNI)]), sent);
    assert_eq!(verdict(vec![trusted([0, 9], VM_VNI)]), Verdict::Drop);
    assert_eq!(
        verdict(vec![trusted([0, ENI as u8], VM_VNI + 1)]),
        Verdict::Drop
    );
}

#[test]
fn acl_stages_combine_as_the_examples_say() {
    use acl_action::{DENY, DENY_AND_CONTINUE, PERMIT, PERMIT_AND_CONTINUE};
    // E26: stage 1, stage 2, forwarded.
    let table = [
        (PERMIT_AND_CONTINUE, Some(DENY), false),
        (DENY_AND_CONTINUE, Some(PERMIT), true),
        (DENY, Some(PERMIT), false),
        (PERMIT, Some(DENY_AND_CONTINUE), true),
        (DENY_AND_CONTINUE, Some(DENY_AND_CONTINUE), false),
        (DENY_AND_CONTINUE, None, false),
        (PERMIT_AND_CONTINUE, None, true),
        (DENY_AND_CONTINUE, Some(PERMIT_AND_CONTINUE), true),
    ];
    for (first, second, forwarded) in table {
        let mut acl = [[0; 5]; 4];
        acl[0][0] = 1;
        acl[0][1] = if second.is_some() { 2 } else { 0 };
        let group = |group, action| TableOp::Acl {
            group,
            rules: Some([any_rule(action)].into()),
        };
        let rows = vec![
            put(Table::Eni, ENI, EniRow { acl, ..eni_row() }),
            group(1, first),
            group(2, second.unwrap_or(DENY)),
        ];
        let mut model = appliance_with(rows);
        let verdict = run(&mut model, &Pkt::outbound().bytes(), 0).0;
        assert_eq!(
            verdict == Verdict::Send(OUT_PORT as u16),
            forwarded,
            "{first} then {second:?}"
        );
    }
}

#[test]
fn another_protocol_passes_when_a_permit_rule_names_it() {
    let mut acl = [[0; 5]; 4];
    acl[0][0] = 1;
    let rule = AclRuleRow {
        protocols: Some([89].into()),
        ..any_rule(acl_action::PERMIT | acl_action::NAMES_PROTOCOL)
    };
    let rows = vec![
        put(Table::Eni, ENI, EniRow { acl, ..eni_row() }),
        TableOp::Acl {
            group: 1,
            rules: Some([rule].into()),
        },
    ];
    let mut model = appliance_with(rows);
    let ospf = Pkt {
        proto: 89,
        ..Pkt::outbound()
    };
    assert_eq!(
        run(&mut model, &ospf.bytes(), 0).0,
        Verdict::Send(OUT_PORT as u16)
    );
    assert_eq!(flows(&mut model)[0].sides[0].key.sport, [0, 0]);
}

#[test]
fn ports_of_what_is_not_tcp_or_udp_are_0_for_acls() {
    let mut acl = [[0; 5]; 4];
    acl[0][0] = 1;
    let rule = |low, high| AclRuleRow {
        src_ports: Some([(low, high)].into()),
        ..any_rule(acl_action::PERMIT)
    };
    let verdict = |rule| {
        let rows = vec![
            put(Table::Eni, ENI, EniRow { acl, ..eni_row() }),
            TableOp::Acl {
                group: 1,
                rules: Some([rule].into()),
            },
        ];
        run(
            &mut appliance_with(rows),
            &Pkt::outbound().icmp(8, 7).bytes(),
            0,
        )
        .0
    };
    assert_eq!(verdict(rule(0, 65535)), Verdict::Send(OUT_PORT as u16));
    assert_eq!(
        verdict(rule(7, 7)),
        Verdict::Drop,
        "the echo identifier is no port"
    );
}

#[test]
fn the_inner_l4_starts_where_the_tests_think() {
    assert_eq!(Pkt::outbound().bytes()[INNER_L4..][..4], [3, 0xe8, 7, 0xd0]);
}
