//! ACL groups and tags, and what is frozen while something is bound to them.

use super::*;

#[test]
fn prefixes_and_tags_are_of_the_family_of_their_group() {
    let mut store = full_store(FROZEN);
    let mixed = AclRule {
        src_prefixes: vec![prefix("10.0.0.0/8"), prefix("fd00::/8")],
        dst_prefixes: vec![prefix("::/0")],
        ..permit()
    };
    let named = AclRule {
        dst_tags: vec!["t4".into()],
        ..permit()
    };
    refused(
        &mut store,
        vec![
            set("DASH_ACL_RULE_TABLE:a2:1", rule(mixed)),
            set("DASH_ACL_GROUP_TABLE:b6", acl_group(Family::V6)),
            set("DASH_ACL_RULE_TABLE:b6:1", rule(named)),
            set(
                "DASH_PREFIX_TAG_TABLE:t9",
                tag(Family::V6, &["fd00::/8", "10.0.0.0/8"]),
            ),
        ],
        &[
            (
                0,
                Reason::PrefixFamily {
                    field: "src_addr",
                    prefix: prefix("fd00::/8"),
                    expected: Family::V4,
                },
            ),
            (
                0,
                Reason::PrefixFamily {
                    field: "dst_addr",
                    prefix: prefix("::/0"),
                    expected: Family::V4,
                },
            ),
            (
                2,
                Reason::TagFamily {
                    tag: "t4".into(),
                    group: "b6".into(),
                    expected: Family::V6,
                },
            ),
            (
                3,
                Reason::PrefixFamily {
                    field: "prefix_list",
                    prefix: prefix("10.0.0.0/8"),
                    expected: Family::V6,
                },
            ),
        ],
    );
}

#[test]
fn a_rule_may_name_a_tag_before_it_exists() {
    let mut store = full_store(FROZEN);
    let early = || {
        let named = AclRule {
            src_tags: vec!["later".into(), "later".into()],
            dst_tags: vec!["later".into()],
            ..permit()
        };
        set("DASH_ACL_RULE_TABLE:a2:1", rule(named))
    };
    let changes = accepted(&mut store, vec![early()]);
    assert_eq!(changes.warnings.len(), 1, "one a tag, not one a mention");
    assert_eq!(
        changes.warnings[0].text,
        "DASH_PREFIX_TAG_TABLE:later does not exist: it matches nothing until it does"
    );
    // A tag of the wrong family cannot arrive later.
    refused(
        &mut store,
        vec![set("DASH_PREFIX_TAG_TABLE:later", tag(Family::V6, &[]))],
        &[(
            0,
            Reason::TagFamily {
                tag: "later".into(),
                group: "a2".into(),
                expected: Family::V4,
            },
        )],
    );
    let arrives = set(
        "DASH_PREFIX_TAG_TABLE:later",
        tag(Family::V4, &["10.0.0.0/8"]),
    );
    assert_eq!(accepted(&mut store, vec![arrives]).warnings, []);
    assert_eq!(accepted(&mut store, vec![early()]).warnings, []);
    // And a tag that was never there can be deleted as often as one likes.
    accepted(&mut store, vec![del("DASH_PREFIX_TAG_TABLE:never")]);
}

#[test]
fn a_bound_acl_group_has_rules_and_the_family_of_its_field() {
    let mut store = full_store(FROZEN);
    refused(
        &mut store,
        vec![
            set(
                "DASH_ACL_IN_TABLE:e2:1",
                Object::AclIn(bind(Some("a2"), None)),
            ),
            set(
                "DASH_ACL_OUT_TABLE:e2:1",
                Object::AclOut(bind(Some("a6"), Some("a4"))),
            ),
        ],
        &[
            (0, Reason::EmptyGroup { group: "a2".into() }),
            (
                1,
                Reason::GroupFamily {
                    group: "a6".into(),
                    expected: Family::V4,
                },
            ),
            (
                1,
                Reason::GroupFamily {
                    group: "a4".into(),
                    expected: Family::V6,
                },
            ),
        ],
    );
    // The rule may come in the same transaction.
    accepted(
        &mut store,
        vec![
            set(
                "DASH_ACL_IN_TABLE:e2:1",
                Object::AclIn(bind(Some("a2"), None)),
            ),
            set("DASH_ACL_RULE_TABLE:a2:1", rule(permit())),
        ],
    );
}

#[test]
fn the_last_rule_of_a_bound_group_stays() {
    let mut store = full_store(LIVE);
    refused(
        &mut store,
        vec![del("DASH_ACL_RULE_TABLE:a6:1")],
        &[(0, Reason::EmptyGroup { group: "a6".into() })],
    );
    accepted(
        &mut store,
        vec![
            del("DASH_ACL_RULE_TABLE:a6:1"),
            set("DASH_ACL_RULE_TABLE:a6:2", rule(permit())),
        ],
    );
    accepted(&mut store, vec![del("DASH_ACL_RULE_TABLE:a4:1")]);
}

#[test]
fn a_binding_that_names_no_group_warns() {
    let mut store = full_store(FROZEN);
    let op = set("DASH_ACL_IN_TABLE:e2:1", Object::AclIn(bind(None, None)));
    let changes = accepted(&mut store, vec![op]);
    assert!(changes.warnings[0].text.contains("no group"));
}

#[test]
fn a_group_takes_its_contents_with_it() {
    let mut store = full_store(FROZEN);
    let changes = accepted(
        &mut store,
        vec![
            del("DASH_ROUTE_GROUP_TABLE:g1"),
            del("DASH_ENI_ROUTE_TABLE:e1"),
            del("DASH_ACL_GROUP_TABLE:a6"),
            set(
                "DASH_ACL_IN_TABLE:e1:1",
                Object::AclIn(bind(Some("a4"), None)),
            ),
        ],
    );
    assert_eq!(
        changed_keys(&changes),
        [
            "DASH_ROUTE_GROUP_TABLE:g1",
            "DASH_ROUTE_TABLE:g1:0.0.0.0/0",
            "DASH_ROUTE_TABLE:g1:10.1.0.0/16",
            "DASH_ROUTE_TABLE:g1:fd00::/64",
            "DASH_ENI_ROUTE_TABLE:e1",
            "DASH_ACL_GROUP_TABLE:a6",
            "DASH_ACL_RULE_TABLE:a6:1",
            "DASH_ACL_IN_TABLE:e1:1",
            "DASHWIRE_ROUTE_GROUP_TABLE:g1",
        ]
    );
    assert_eq!(store.route_count(&"g1".into()), 0);
    assert_eq!(store.route_groups_into(&"v1".into()).count(), 0);
}

#[test]
fn the_contents_of_a_bound_group_are_frozen() {
    let frozen_routes = Reason::GroupBound {
        group: key("DASH_ROUTE_GROUP_TABLE:g1"),
        binder: key("DASH_ENI_ROUTE_TABLE:e1"),
    };
    let frozen_rules = Reason::GroupBound {
        group: key("DASH_ACL_GROUP_TABLE:a4"),
        binder: key("DASH_ACL_IN_TABLE:e1:1"),
    };
    let ops = || {
        vec![
            set("DASH_ROUTE_TABLE:g1:10.9.0.0/16", direct()),
            set("DASH_ROUTE_TABLE:g1:10.1.0.0/16", direct()),
            del("DASH_ROUTE_TABLE:g1:fd00::/64"),
            set("DASH_ACL_RULE_TABLE:a4:3", rule(permit())),
            del("DASH_ACL_RULE_TABLE:a4:1"),
        ]
    };
    let mut store = full_store(FROZEN);
    refused(
        &mut store,
        ops(),
        &[
            (0, frozen_routes.clone()),
            (1, frozen_routes.clone()),
            (2, frozen_routes.clone()),
            (3, frozen_rules.clone()),
            (4, frozen_rules),
        ],
    );
    accepted(&mut full_store(LIVE), ops());
    // Frozen means for as long as any ENI holds the group, not the same one.
    refused(
        &mut store,
        vec![
            set("DASH_ENI_ROUTE_TABLE:e2", bind_routes("g1")),
            del("DASH_ENI_ROUTE_TABLE:e1"),
            set("DASH_ROUTE_TABLE:g1:10.9.0.0/16", direct()),
        ],
        &[(
            2,
            Reason::GroupBound {
                group: key("DASH_ROUTE_GROUP_TABLE:g1"),
                binder: key("DASH_ENI_ROUTE_TABLE:e2"),
            },
        )],
    );
}

#[test]
fn contents_may_change_while_a_group_is_being_bound_or_let_go() {
    let mut store = full_store(FROZEN);
    // g2 is bound and filled at once, g1 let go and changed at once.
    accepted(
        &mut store,
        vec![
            set("DASH_ENI_ROUTE_TABLE:e1", bind_routes("g2")),
            set("DASH_ROUTE_TABLE:g2:10.5.0.0/16", to_vnet("v2")),
            del("DASH_ROUTE_TABLE:g1:10.1.0.0/16"),
        ],
    );
    assert_eq!(store.enis_bound_to(&"g1".into()).count(), 0);
    accepted(
        &mut store,
        vec![set("DASH_ENI_ROUTE_TABLE:e1", bind_routes("g1"))],
    );
}

#[test]
fn the_same_rows_again_change_nothing_even_in_bound_groups() {
    let mut store = full_store(FROZEN);
    let changes = accepted(&mut store, full_config());
    assert_eq!(changes, Changeset::default());
}

#[test]
fn other_bytes_of_the_same_meaning_are_stored_even_in_bound_groups() {
    let mut store = full_store(FROZEN);
    let route = key("DASH_ROUTE_TABLE:g1:0.0.0.0/0");
    let op = Op::set(0, route.clone(), direct(), *b"\x08\x02");
    let changes = accepted(&mut store, vec![op]);
    assert_eq!(changes.changes.len(), 1);
    assert!(!changes.changes[0].changes_meaning());
    assert_eq!(&*store.get(&route).expect("a row").raw, b"\x08\x02");
}
