//! Each rule by its exact error, with the store as it was afterwards.

use std::net::Ipv4Addr;

use super::fixtures::*;
use crate::error::{CommitError, Kind, OpError, Reason};
use crate::key::{KeyError, ObjectKey, RoutingType};
use crate::net::{Mac, MaskedIp, PortRange, VniRange};
use crate::objects::{
    AclRule, Appliance, EncapType, Eni, EniMode, Family, MeterBits, MeterClass, Object, PortMap,
    PortMapRange, PrivateLink, Route, RouteAction, RouteGroup, RoutingTypeDef, ServiceTunnel,
    StaticEncap, Tunnel, VnetMapping,
};
use crate::store::{Store, StoreOptions};
use crate::txn::{Changeset, Op};

mod groups;
mod metering;
mod translations;

const FROZEN: StoreOptions = StoreOptions {
    update_bound_groups: false,
    strict: false,
};
const LIVE: StoreOptions = StoreOptions {
    update_bound_groups: true,
    strict: false,
};

/// The transaction is refused with exactly these reasons, by index, and changes nothing.
#[track_caller]
fn refused(store: &mut Store, ops: Vec<Op>, expected: &[(usize, Reason)]) {
    let before = store.clone();
    let txn = txn(ops);
    let expected: Vec<OpError> = expected
        .iter()
        .map(|(index, reason)| OpError {
            index: *index,
            key: txn.ops[*index].key.clone(),
            reason: reason.clone(),
        })
        .collect();
    let error = store.commit(txn).expect_err("a refusal");
    assert_eq!(error.errors, expected, "\n{error}");
    assert!(store.iter().eq(before.iter()));
    assert_eq!(store.rows, before.rows);
    assert_eq!(store.refs, before.refs);
}

#[track_caller]
fn accepted(store: &mut Store, ops: Vec<Op>) -> Changeset {
    match store.commit(txn(ops)) {
        Ok(changes) => changes,
        Err(error) => panic!("refused: {error}"),
    }
}

fn missing(parent: &str) -> Reason {
    Reason::MissingParent {
        parent: key(parent),
    }
}

fn in_use(dependant: &str, count: usize) -> Reason {
    Reason::InUse {
        dependant: key(dependant),
        count,
    }
}

fn changed_keys(changes: &Changeset) -> Vec<String> {
    changes.changes.iter().map(|c| c.key.to_string()).collect()
}

#[test]
fn a_vnet_and_an_eni_need_an_appliance() {
    let mut store = Store::new(FROZEN);
    refused(
        &mut store,
        vec![
            set("DASH_VNET_TABLE:v1", vnet(1)),
            set("DASH_ENI_TABLE:e1", Object::Eni(eni(1, "v1"))),
        ],
        &[(0, Reason::NoAppliance), (1, Reason::NoAppliance)],
    );
}

#[test]
fn every_reference_must_lead_to_a_row() {
    let mut store = full_store(FROZEN);
    refused(
        &mut store,
        vec![
            set("DASH_ENI_TABLE:e9", Object::Eni(eni(9, "nope"))),
            set("DASH_ENI_ROUTE_TABLE:nope", bind_routes("lost")),
            set("DASH_ROUTE_TABLE:lost:10.0.0.0/8", to_vnet("nope")),
            set(
                "DASH_ROUTE_RULE_TABLE:nope:1:10.0.0.0/8:0",
                decap(Some("lost"), true),
            ),
            set("DASH_VNET_MAPPING_TABLE:nope:10.0.0.1", mapping(1)),
            set("DASH_ACL_RULE_TABLE:lost:1", rule(permit())),
            set(
                "DASH_ACL_IN_TABLE:nope:1",
                Object::AclIn(bind(Some("lost"), Some("lost6"))),
            ),
            set(
                "DASH_ACL_OUT_TABLE:nope:1",
                Object::AclOut(bind(None, Some("lost6"))),
            ),
        ],
        &[
            (0, missing("DASH_VNET_TABLE:nope")),
            (1, missing("DASH_ENI_TABLE:nope")),
            (1, missing("DASH_ROUTE_GROUP_TABLE:lost")),
            (2, missing("DASH_ROUTE_GROUP_TABLE:lost")),
            (2, missing("DASH_VNET_TABLE:nope")),
            (3, missing("DASH_ENI_TABLE:nope")),
            (3, missing("DASH_VNET_TABLE:lost")),
            (4, missing("DASH_VNET_TABLE:nope")),
            (5, missing("DASH_ACL_GROUP_TABLE:lost")),
            (6, missing("DASH_ENI_TABLE:nope")),
            (6, missing("DASH_ACL_GROUP_TABLE:lost")),
            (6, missing("DASH_ACL_GROUP_TABLE:lost6")),
            (7, missing("DASH_ENI_TABLE:nope")),
            (7, missing("DASH_ACL_GROUP_TABLE:lost6")),
        ],
    );
}

#[test]
fn a_row_as_it_was_is_refused_when_its_parent_goes_with_it() {
    let mut store = full_store(FROZEN);
    refused(
        &mut store,
        vec![
            del("DASH_ROUTE_GROUP_TABLE:g2"),
            set("DASH_ROUTE_TABLE:g2:10.1.0.0/16", direct()),
        ],
        &[(1, missing("DASH_ROUTE_GROUP_TABLE:g2"))],
    );
}

#[test]
fn there_is_one_appliance_and_it_may_change() {
    let mut store = full_store(FROZEN);
    let second = || set("DASH_APPLIANCE_TABLE:200", Object::Appliance(appliance()));
    refused(
        &mut store,
        vec![second()],
        &[(
            0,
            Reason::SecondAppliance {
                existing: "100".into(),
            },
        )],
    );
    let moved = Appliance {
        sip: Ipv4Addr::new(10, 9, 9, 9),
        ..appliance()
    };
    let op = set("DASH_APPLIANCE_TABLE:100", Object::Appliance(moved.clone()));
    assert_eq!(accepted(&mut store, vec![op]).changes.len(), 1);
    assert_eq!(store.appliance(), Some((&"100".into(), &moved)));
    // One in place of the other is one.
    accepted(&mut store, vec![second(), del("DASH_APPLIANCE_TABLE:100")]);
    assert_eq!(store.appliance().map(|(id, _)| id.as_str()), Some("200"));
}

#[test]
fn what_cannot_change_is_refused_by_field() {
    let mut store = full_store(FROZEN);
    let moved = Eni {
        mac: mac(77),
        vnet: Some("v2".into()),
        mode: EniMode::Floating,
        ..eni(1, "v1")
    };
    let no_vnet = Eni {
        vnet: None,
        ..eni(2, "v1")
    };
    refused(
        &mut store,
        vec![
            set("DASH_VNET_TABLE:v1", vnet(3)),
            set("DASH_ENI_TABLE:e1", Object::Eni(moved)),
            set("DASH_ENI_TABLE:e2", Object::Eni(no_vnet)),
            set("DASH_ACL_GROUP_TABLE:a4", acl_group(Family::V6)),
            set("DASH_PREFIX_TAG_TABLE:t4", tag(Family::V6, &[])),
        ],
        &[
            (0, Reason::Immutable { field: "vni" }),
            (
                1,
                Reason::Immutable {
                    field: "mac_address",
                },
            ),
            (1, Reason::Immutable { field: "vnet" }),
            (1, Reason::Immutable { field: "eni_mode" }),
            (2, Reason::Immutable { field: "vnet" }),
            (
                3,
                Reason::Immutable {
                    field: "ip_version",
                },
            ),
            (
                4,
                Reason::Immutable {
                    field: "ip_version",
                },
            ),
        ],
    );
}

#[test]
fn a_delete_and_a_set_of_one_key_are_an_update() {
    let mut store = full_store(FROZEN);
    refused(
        &mut store,
        vec![
            del("DASH_VNET_TABLE:v1"),
            set("DASH_VNET_TABLE:v1", vnet(3)),
        ],
        &[(1, Reason::Immutable { field: "vni" })],
    );
    let changes = accepted(
        &mut store,
        vec![
            del("DASH_ROUTE_GROUP_TABLE:g1"),
            set("DASH_ROUTE_GROUP_TABLE:g1", group()),
        ],
    );
    assert!(changes.is_empty());
    assert_eq!(store.route_count(&"g1".into()), 3);
    // And the other way round the row goes.
    let changes = accepted(
        &mut store,
        vec![
            set("DASH_HA_SET_TABLE:h1", Object::Opaque),
            del("DASH_HA_SET_TABLE:h1"),
        ],
    );
    assert_eq!(changed_keys(&changes), ["DASH_HA_SET_TABLE:h1"]);
}

#[test]
fn what_may_change_does() {
    let mut store = full_store(FROZEN);
    let disabled = Eni {
        enabled: false,
        underlay_ip: Ipv4Addr::new(25, 9, 9, 9),
        ..eni(1, "v1")
    };
    let version = Object::RouteGroup(RouteGroup {
        version: "2".to_owned(),
    });
    let bare = Object::RoutingType(RoutingTypeDef { static_encap: None });
    let changes = accepted(
        &mut store,
        vec![
            set("DASH_ENI_TABLE:e1", Object::Eni(disabled.clone())),
            set("DASH_ROUTE_GROUP_TABLE:g1", version),
            set("DASH_ROUTING_TYPE_TABLE:vnet_encap", bare),
            set("DASH_VNET_MAPPING_TABLE:v1:10.1.0.1", mapping(99)),
            set(
                "DASH_PREFIX_TAG_TABLE:t4",
                tag(Family::V4, &["10.8.0.0/16"]),
            ),
            set(
                "DASH_ROUTE_RULE_TABLE:e1:2001:101.1.2.0/24:1",
                decap(None, false),
            ),
        ],
    );
    assert_eq!(changes.changes.len(), 6);
    assert_eq!(store.eni(&"e1".into()), Some(&disabled));
    assert_eq!(store.enis_with_rules_for(&"v1".into()).count(), 0);
}

#[test]
fn a_mac_is_unicast_and_of_one_eni() {
    let mut store = full_store(FROZEN);
    let group_mac = Mac([1, 0, 0x5e, 0, 0, 1]);
    let with_mac = |mac: Mac| {
        Object::Eni(Eni {
            mac,
            ..eni(7, "v1")
        })
    };
    refused(
        &mut store,
        vec![
            set("DASH_ENI_TABLE:e7", with_mac(group_mac)),
            set("DASH_ENI_TABLE:e8", with_mac(Mac([0; 6]))),
            set("DASH_ENI_TABLE:e9", with_mac(mac(1))),
        ],
        &[
            (0, Reason::MacNotUnicast { mac: group_mac }),
            (1, Reason::MacNotUnicast { mac: Mac([0; 6]) }),
            (
                2,
                Reason::DuplicateMac {
                    mac: mac(1),
                    other: "e1".into(),
                },
            ),
        ],
    );
    refused(
        &mut store,
        vec![
            set("DASH_ENI_TABLE:e7", with_mac(mac(50))),
            set("DASH_ENI_TABLE:e8", with_mac(mac(50))),
        ],
        &[
            (
                0,
                Reason::DuplicateMac {
                    mac: mac(50),
                    other: "e8".into(),
                },
            ),
            (
                1,
                Reason::DuplicateMac {
                    mac: mac(50),
                    other: "e7".into(),
                },
            ),
        ],
    );
    // The MAC of an ENI that goes is free.
    accepted(
        &mut store,
        vec![
            set("DASH_ENI_TABLE:e3", with_mac(mac(2))),
            del("DASH_ENI_TABLE:e2"),
        ],
    );
    assert_eq!(
        store.eni_by_mac(mac(2)).map(|(k, _)| k.as_str()),
        Some("e3")
    );
}

#[test]
fn ranges_do_not_end_before_they_begin() {
    let mut store = full_store(FROZEN);
    let vnis = vec![VniRange {
        min: vni(5),
        max: vni(4),
    }];
    let ports = vec![PortRange { min: 2, max: 1 }];
    refused(
        &mut store,
        vec![
            set(
                "DASH_APPLIANCE_TABLE:100",
                Object::Appliance(Appliance {
                    trusted_vnis: vnis.clone(),
                    ..appliance()
                }),
            ),
            set(
                "DASH_ENI_TABLE:e1",
                Object::Eni(Eni {
                    trusted_vnis: vnis,
                    ..eni(1, "v1")
                }),
            ),
            set(
                "DASH_ACL_RULE_TABLE:a2:1",
                rule(AclRule {
                    src_ports: ports.clone(),
                    dst_ports: ports,
                    ..permit()
                }),
            ),
        ],
        &[
            (
                0,
                Reason::EmptyRange {
                    field: "trusted_vnis_list",
                },
            ),
            (
                1,
                Reason::EmptyRange {
                    field: "trusted_vnis_list",
                },
            ),
            (2, Reason::EmptyRange { field: "src_port" }),
            (2, Reason::EmptyRange { field: "dst_port" }),
        ],
    );
}

#[test]
fn an_eni_without_a_vnet_is_accepted_with_a_warning() {
    let mut store = full_store(FROZEN);
    let alone = Eni {
        vnet: None,
        ..eni(5, "")
    };
    let changes = accepted(
        &mut store,
        vec![set("DASH_ENI_TABLE:e5", Object::Eni(alone))],
    );
    assert_eq!(changes.warnings.len(), 1);
    assert_eq!(changes.warnings[0].key, key("DASH_ENI_TABLE:e5"));
    assert!(changes.warnings[0].text.contains("in no VNET"));
}

#[test]
fn pa_validation_needs_a_vnet() {
    let mut store = full_store(FROZEN);
    refused(
        &mut store,
        vec![set(
            "DASH_ROUTE_RULE_TABLE:e1:7:10.0.0.0/8:0",
            decap(None, true),
        )],
        &[(0, Reason::PaValidationWithoutVnet)],
    );
}

#[test]
fn what_others_need_stays_and_the_answer_says_who() {
    let mut store = full_store(FROZEN);
    refused(
        &mut store,
        vec![
            del("DASH_APPLIANCE_TABLE:100"),
            del("DASH_VNET_TABLE:v1"),
            del("DASH_VNET_TABLE:v2"),
            del("DASH_ENI_TABLE:e1"),
            del("DASH_ROUTE_GROUP_TABLE:g1"),
            del("DASH_ACL_GROUP_TABLE:a4"),
            del("DASH_PREFIX_TAG_TABLE:t4"),
        ],
        &[
            // Only e2 would be left, as e1, v1 and v2 are deleted too.
            (0, in_use("DASH_ENI_TABLE:e2", 1)),
            // e2, two mappings, one rule; the route went with its group.
            (1, in_use("DASH_ENI_TABLE:e2", 4)),
            (2, in_use("DASH_VNET_MAPPING_TABLE:v2:fd00::1", 1)),
            // Its route, two rules, one stage in and one out.
            (3, in_use("DASH_ENI_ROUTE_TABLE:e1", 5)),
            (4, in_use("DASH_ENI_ROUTE_TABLE:e1", 1)),
            (5, in_use("DASH_ACL_IN_TABLE:e1:1", 2)),
        ],
    );
    refused(
        &mut store,
        vec![del("DASH_PREFIX_TAG_TABLE:t4")],
        &[(0, in_use("DASH_ACL_RULE_TABLE:a4:1", 1))],
    );
    // Each kind of dependant of a VNET is found when it is the only one.
    let mut routes_only = full_store(FROZEN);
    refused(
        &mut routes_only,
        vec![
            del("DASH_VNET_TABLE:v2"),
            del("DASH_VNET_MAPPING_TABLE:v2:fd00::1"),
        ],
        &[(0, in_use("DASH_ROUTE_TABLE:g1:fd00::/64", 1))],
    );
    accepted(
        &mut routes_only,
        vec![
            del("DASH_ENI_ROUTE_TABLE:e1"),
            del("DASH_ROUTE_GROUP_TABLE:g1"),
            del("DASH_VNET_MAPPING_TABLE:v2:fd00::1"),
            set(
                "DASH_ROUTE_RULE_TABLE:e1:9:1.0.0.0/8:0",
                decap(Some("v2"), true),
            ),
        ],
    );
    refused(
        &mut routes_only,
        vec![del("DASH_VNET_TABLE:v2")],
        &[(0, in_use("DASH_ROUTE_RULE_TABLE:e1:9:1.0.0.0/8:0", 1))],
    );
}

#[test]
fn everything_may_go_at_once() {
    let mut store = full_store(FROZEN);
    let ops = full_config().into_iter().map(|op| Op::del(0, op.key));
    let changes = accepted(&mut store, ops.collect());
    assert_eq!(changes.changes.len(), full_config().len());
    assert!(store.is_empty());
    assert_eq!(store.refs, Default::default());
    assert_eq!(store.rows, Default::default());
}

#[test]
fn settings_of_ours_go_with_what_they_are_of() {
    let mut store = full_store(FROZEN);
    let of_e2 = || set("DASHWIRE_ENI_TABLE:e2", eni_settings(true));
    accepted(&mut store, vec![of_e2()]);
    let gone = accepted(&mut store, vec![del("DASH_ENI_TABLE:e2")]);
    assert_eq!(
        changed_keys(&gone),
        ["DASH_ENI_TABLE:e2", "DASHWIRE_ENI_TABLE:e2"]
    );
    let group = set("DASHWIRE_ROUTE_GROUP_TABLE:g9", group_settings(true));
    refused(
        &mut store,
        vec![of_e2(), group],
        &[
            (0, missing("DASH_ENI_TABLE:e2")),
            (1, missing("DASH_ROUTE_GROUP_TABLE:g9")),
        ],
    );
    // An update of the ENI, however it is written, keeps them.
    store.revert(&gone);
    let again = set("DASH_ENI_TABLE:e2", Object::Eni(eni(2, "v1")));
    accepted(&mut store, vec![del("DASH_ENI_TABLE:e2"), again]);
    assert!(store.get(&key("DASHWIRE_ENI_TABLE:e2")).is_some());
}

#[test]
fn deleting_what_is_not_there_succeeds() {
    let mut store = Store::new(FROZEN);
    let ops = full_config().into_iter().map(|op| Op::del(0, op.key));
    assert_eq!(accepted(&mut store, ops.collect()), Changeset::default());
}

#[test]
fn vnets_may_share_a_vni_and_mappings_may_be_of_any_family() {
    let mut store = full_store(FROZEN);
    accepted(
        &mut store,
        vec![
            set("DASH_VNET_TABLE:v3", vnet(2001)),
            set("DASH_VNET_MAPPING_TABLE:v3:10.0.0.1", mapping(1)),
            set("DASH_VNET_MAPPING_TABLE:v3:fd00::1", mapping(1)),
        ],
    );
    assert_eq!(store.mapping_count(&"v3".into()), 2);
}

#[test]
fn an_object_of_another_table_is_refused() {
    let mut store = full_store(FROZEN);
    refused(
        &mut store,
        vec![
            set("DASH_VNET_TABLE:v9", group()),
            set("DASH_VNET_TABLE:v8", Object::Opaque),
            set("DASH_HA_SET_TABLE:q9", vnet(1)),
            Op::set(
                0,
                ObjectKey::AclIn("e1".into(), 9),
                Object::AclIn(bind(None, None)),
                *b"",
            ),
        ],
        &[
            (
                0,
                Reason::WrongObject {
                    found: "DASH_ROUTE_GROUP_TABLE",
                },
            ),
            (
                1,
                Reason::WrongObject {
                    found: "a table that is only stored",
                },
            ),
            (
                2,
                Reason::WrongObject {
                    found: "DASH_VNET_TABLE",
                },
            ),
            (3, Reason::Key(KeyError::Stage { text: "9".into() })),
        ],
    );
}

#[test]
fn errors_are_listed_up_to_a_cap_and_the_rest_counted() {
    let mut store = full_store(FROZEN);
    let ops = (0..250).map(|n| {
        set(
            &format!("DASH_VNET_MAPPING_TABLE:no:10.0.0.{n}"),
            mapping(1),
        )
    });
    let error = store.commit(txn(ops)).expect_err("no VNET");
    assert_eq!(error.errors.len(), CommitError::CAP);
    assert_eq!(error.omitted, 150);
    let indexes: Vec<usize> = error.errors.iter().map(|e| e.index).collect();
    assert_eq!(indexes, (0..100).collect::<Vec<_>>());
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    let text = error.to_string();
    assert_eq!(text.lines().count(), 101);
    assert!(text.ends_with("\nand 150 more"), "{text}");
}

#[test]
fn reasons_say_what_is_wrong_in_a_line_and_have_a_class() {
    use Kind::{AlreadyExists, FailedPrecondition, InvalidArgument};
    let cases = [
        (
            Reason::NoAppliance,
            FailedPrecondition,
            "there is no row in DASH_APPLIANCE_TABLE",
        ),
        (
            missing("DASH_VNET_TABLE:v"),
            FailedPrecondition,
            "DASH_VNET_TABLE:v does not exist",
        ),
        (
            in_use("DASH_ENI_TABLE:e", 1),
            FailedPrecondition,
            "needed by DASH_ENI_TABLE:e",
        ),
        (
            in_use("DASH_ENI_TABLE:e", 3),
            FailedPrecondition,
            "needed by DASH_ENI_TABLE:e and 2 more",
        ),
        (
            Reason::SecondAppliance {
                existing: "1".into(),
            },
            AlreadyExists,
            "appliance `1` exists and there can be one only",
        ),
        (
            Reason::DuplicateMac {
                mac: mac(1),
                other: "e".into(),
            },
            AlreadyExists,
            "mac_address 02:00:00:00:00:01 is that of DASH_ENI_TABLE:e",
        ),
        (
            Reason::GroupFamily {
                group: "g".into(),
                expected: Family::V6,
            },
            InvalidArgument,
            "DASH_ACL_GROUP_TABLE:g is not IPv6",
        ),
        (
            Reason::EmptyGroup { group: "g".into() },
            FailedPrecondition,
            "DASH_ACL_GROUP_TABLE:g would be bound without any rule",
        ),
        (
            Reason::PaValidationWithoutVnet,
            InvalidArgument,
            "pa_validation needs a vnet",
        ),
    ];
    for (reason, kind, text) in cases {
        assert_eq!(reason.kind(), kind, "{reason}");
        assert_eq!(reason.to_string(), text);
    }
}
