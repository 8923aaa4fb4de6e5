//! Meter policies, metering bits and limits.

use super::*;

#[test]
fn meter_policies_are_of_one_family_and_frozen_while_an_eni_names_them() {
    let named = |v4: Option<&str>, v6: Option<&str>| {
        Object::Eni(Eni {
            v4_meter_policy: v4.map(Into::into),
            v6_meter_policy: v6.map(Into::into),
            ..eni(1, "v1")
        })
    };
    let (policy, rule) = ("DASH_METER_POLICY_TABLE:m1", "DASH_METER_RULE_TABLE:m1:1");
    let not = |policy: &str, expected| Reason::PolicyFamily {
        policy: policy.into(),
        expected,
    };
    for options in [FROZEN, LIVE] {
        let mut store = full_store(options);
        refused(
            &mut store,
            vec![
                set("DASH_METER_RULE_TABLE:m9:1", meter_rule("10.0.0.0/8", 1)),
                set(rule, meter_rule("fd00::/8", 1)),
                set(policy, meter_policy(Family::V6)),
                set("DASH_ENI_TABLE:e1", named(Some("m8"), Some("m1"))),
            ],
            &[
                (0, missing("DASH_METER_POLICY_TABLE:m9")),
                // It is in the family that the policy would have.
                (
                    2,
                    Reason::Immutable {
                        field: "ip_version",
                    },
                ),
                (3, missing("DASH_METER_POLICY_TABLE:m8")),
            ],
        );
        refused(
            &mut store,
            vec![
                set("DASH_ENI_TABLE:e1", named(None, Some("m1"))),
                set("DASH_METER_RULE_TABLE:m1:2", meter_rule("fd00::/8", 1)),
            ],
            &[
                (0, not("m1", Family::V6)),
                (
                    1,
                    Reason::PrefixFamily {
                        field: "ip_prefix",
                        prefix: prefix("fd00::/8"),
                        expected: Family::V4,
                    },
                ),
            ],
        );
        // It goes after its rules.
        refused(&mut store, vec![del(policy)], &[(0, in_use(rule, 1))]);
        accepted(
            &mut store,
            vec![set("DASH_ENI_TABLE:e1", named(Some("m1"), None))],
        );
        refused(
            &mut store,
            vec![del(policy)],
            &[(0, in_use("DASH_ENI_TABLE:e1", 2))],
        );
        let bound = || Reason::GroupBound {
            group: key(policy),
            binder: key("DASH_ENI_TABLE:e1"),
        };
        let change = || {
            vec![
                set(rule, meter_rule("10.2.0.0/16", 521)),
                set("DASH_METER_RULE_TABLE:m1:2", meter_rule("10.3.0.0/16", 1)),
            ]
        };
        if options == FROZEN {
            refused(&mut store, change(), &[(0, bound()), (1, bound())]);
            refused(&mut store, vec![del(rule)], &[(0, bound())]);
            // As it is: nothing changes.
            assert!(
                accepted(&mut store, vec![set(rule, meter_rule("10.2.0.0/16", 520))]).is_empty()
            );
        } else {
            accepted(&mut store, change());
            accepted(&mut store, vec![del("DASH_METER_RULE_TABLE:m1:2")]);
        }
        accepted(
            &mut store,
            vec![
                set("DASH_ENI_TABLE:e1", named(None, None)),
                del(policy),
                del(rule),
            ],
        );
    }
}

#[test]
fn an_eni_may_name_limits_that_do_not_exist_and_those_that_do_stay() {
    let mut store = full_store(FROZEN);
    let named = |name: &str| {
        Object::Eni(Eni {
            qos: Some(name.into()),
            ..eni(1, "v1")
        })
    };
    let changes = accepted(&mut store, vec![set("DASH_ENI_TABLE:e1", named("q2"))]);
    let warnings: Vec<&str> = changes.warnings.iter().map(|w| w.text.as_str()).collect();
    assert_eq!(
        warnings,
        ["DASH_QOS_TABLE:q2 does not exist: the ENI has no limits until it does"]
    );
    accepted(&mut store, vec![set("DASH_QOS_TABLE:q2", qos(1))]);
    let enis: Vec<_> = store.enis_of_qos(&"q2".into()).collect();
    assert_eq!(enis, [&"e1".into()]);
    refused(
        &mut store,
        vec![del("DASH_QOS_TABLE:q2")],
        &[(0, in_use("DASH_ENI_TABLE:e1", 1))],
    );
    accepted(
        &mut store,
        vec![
            set("DASH_QOS_TABLE:q2", qos(2)),
            set("DASH_ENI_TABLE:e1", Object::Eni(eni(1, "v1"))),
        ],
    );
    accepted(&mut store, vec![del("DASH_QOS_TABLE:q2")]);
}

#[test]
fn metering_bits_may_change_where_their_rows_may() {
    let mut store = full_store(LIVE);
    let bits = MeterBits {
        or: class(2566),
        and: class(4080),
    };
    let Object::VnetMapping(plain) = mapping(1) else {
        panic!("a mapping")
    };
    let ops = vec![
        set(
            "DASH_ROUTE_TABLE:g1:0.0.0.0/0",
            Object::Route(Route {
                meter: bits,
                ..RouteAction::Direct.into()
            }),
        ),
        set(
            "DASH_VNET_MAPPING_TABLE:v1:10.1.0.1",
            Object::VnetMapping(VnetMapping {
                meter_or: class(1038),
                ..plain
            }),
        ),
    ];
    assert_eq!(accepted(&mut store, ops).changes.len(), 2);
    assert_eq!(MeterClass::new(4096), None);
    assert_eq!(MeterClass::of_mask(0xffff_fff0), class(0xff0));
}
