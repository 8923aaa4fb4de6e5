//! ACL groups as a classifier gets them.

use std::sync::Arc;

use dash_model::key::ObjectKey;
use dash_model::objects::{AclAction, AclRule, Family};
use dash_wire::tables::acl_action;
use nic_target::{AclPrefix, AclPrefixes, AclRuleRow, TableOp};

use crate::support::{Bench, acl_group, acl_rule, any, gone, net, ports, tag};

fn rules(bench: &Bench, group: &str) -> Arc<[AclRuleRow]> {
    let id = bench.planner.acl_group_id(&group.into()).expect("an id");
    bench.tables.acl.get(&id).expect("rules").clone()
}

fn only(bench: &Bench, group: &str) -> AclRuleRow {
    let rules = rules(bench, group);
    assert_eq!(rules.len(), 1);
    rules[0].clone()
}

fn four(a: u8, b: u8, c: u8, d: u8, len: u8) -> AclPrefix {
    let mut addr = [0; 16];
    addr[12..].copy_from_slice(&[a, b, c, d]);
    AclPrefix {
        addr,
        len: 96 + len,
    }
}

fn permit(src_prefixes: &[&str], src_tags: &[&str]) -> AclRule {
    AclRule {
        src_prefixes: src_prefixes.iter().map(|prefix| net(prefix)).collect(),
        src_tags: src_tags.iter().map(|tag| (*tag).into()).collect(),
        ..any(1, AclAction::Permit)
    }
}

#[test]
fn rules_are_in_order_of_priority_then_of_number() {
    let mut bench = Bench::new();
    let with_port = |priority, port| AclRule {
        dst_ports: vec![ports(port, port)],
        ..any(priority, AclAction::Deny)
    };
    bench.commit(&[
        acl_group("g", Family::V4),
        acl_rule("g", "a", with_port(20, 1)),
        acl_rule("g", "c", with_port(10, 2)),
        acl_rule("g", "b", with_port(10, 3)),
        acl_rule("g", "d", with_port(3, 4)),
    ]);
    let rules = rules(&bench, "g");
    let order = rules
        .iter()
        .map(|rule| rule.dst_ports.as_deref().expect("ports")[0].0);
    assert_eq!(order.collect::<Vec<_>>(), [4, 3, 2, 1]);
}

#[test]
fn verdicts_say_whether_they_are_final_and_whether_the_protocol_is_named() {
    let cases = [
        (AclAction::Permit, true, acl_action::PERMIT),
        (AclAction::Permit, false, acl_action::PERMIT_AND_CONTINUE),
        (AclAction::Deny, true, acl_action::DENY),
        (AclAction::Deny, false, acl_action::DENY_AND_CONTINUE),
    ];
    for (action, terminating, number) in cases {
        for protocols in [vec![], vec![6, 18]] {
            let mut bench = Bench::new();
            let rule = AclRule {
                terminating,
                protocols: protocols.clone(),
                ..any(1, action)
            };
            bench.commit(&[acl_group("g", Family::V4), acl_rule("g", "1", rule)]);
            let named = if protocols.is_empty() {
                0
            } else {
                acl_action::NAMES_PROTOCOL
            };
            let row = only(&bench, "g");
            assert_eq!(row.action, number | named);
            assert_eq!(row.protocols.map(Vec::from).unwrap_or_default(), protocols);
        }
    }
}

#[test]
fn empty_lists_are_any_and_the_others_are_as_listed() {
    let mut bench = Bench::new();
    bench.commit(&[
        acl_group("g", Family::V4),
        acl_rule("g", "1", any(1, AclAction::Permit)),
        acl_group("six", Family::V6),
        acl_rule("six", "1", permit(&["fd00::/8"], &[])),
    ]);
    let row = AclRuleRow {
        action: acl_action::PERMIT,
        protocols: None,
        src: None,
        dst: None,
        src_ports: None,
        dst_ports: None,
    };
    assert_eq!(only(&bench, "g"), row);
    let mut addr = [0; 16];
    addr[0] = 0xfd;
    let src = [AclPrefix { addr, len: 8 }];
    assert_eq!(only(&bench, "six").src, Some(src.into()));

    let rule = AclRule {
        src_ports: vec![ports(0, 1023), ports(8080, 8080)],
        dst_prefixes: vec![net("10.1.0.0/16"), net("10.1.0.0/16")],
        ..permit(&["0.0.0.0/0"], &[])
    };
    bench.commit(&[acl_rule("g", "1", rule)]);
    let row = only(&bench, "g");
    assert_eq!(row.src, Some([four(0, 0, 0, 0, 0)].into()));
    assert_eq!(row.dst, Some([four(10, 1, 0, 0, 16)].into()));
    assert_eq!(
        row.src_ports.as_deref(),
        Some(&[(0, 1023), (8080, 8080)][..])
    );
}

#[test]
fn a_tag_is_expanded_and_its_changes_follow() {
    let mut bench = Bench::new();
    bench.commit(&[
        acl_group("g", Family::V4),
        acl_rule("g", "1", permit(&["10.9.0.0/16"], &["t"])),
        tag("t", Family::V4, &["10.1.0.0/16", "10.9.0.0/16"]),
    ]);
    let src = |bench: &Bench| -> Vec<AclPrefix> {
        let src = only(bench, "g").src.expect("not any");
        src.iter().copied().collect()
    };
    let (own, one) = (four(10, 9, 0, 0, 16), four(10, 1, 0, 0, 16));
    assert_eq!(src(&bench), [own, one, own], "the rule's, then the tag's");
    bench.commit(&[tag("t", Family::V4, &["10.2.0.0/16"])]);
    assert_eq!(src(&bench), [own, four(10, 2, 0, 0, 16)]);
    bench.commit(&[tag("t", Family::V4, &[])]);
    assert_eq!(src(&bench), [four(10, 9, 0, 0, 16)]);
}

#[test]
fn a_rule_whose_tags_are_empty_or_unknown_matches_nothing() {
    let mut bench = Bench::new();
    bench.commit(&[
        tag("empty", Family::V4, &[]),
        acl_group("g", Family::V4),
        acl_rule("g", "1", permit(&[], &["empty", "unknown"])),
    ]);
    assert_eq!(only(&bench, "g").src, Some(AclPrefixes::default()));
    assert_eq!(only(&bench, "g").dst, None);
    // The tag comes after the rule.
    bench.commit(&[tag("unknown", Family::V4, &["10.1.2.3/32"])]);
    assert_eq!(only(&bench, "g").src, Some([four(10, 1, 2, 3, 32)].into()));
}

#[test]
fn rules_that_name_a_tag_share_its_list_in_every_group() {
    let mut bench = Bench::new();
    let mut edits = vec![tag("t", Family::V4, &["10.1.0.0/16", "10.9.0.0/16"])];
    for group in ["a", "b"] {
        edits.push(acl_group(group, Family::V4));
        for rule in ["1", "2"] {
            edits.push(acl_rule(group, rule, permit(&[], &["t"])));
        }
    }
    bench.commit(&edits);
    let lists = |bench: &Bench| {
        let rules = ["a", "b"].map(|group| rules(bench, group));
        let lists: Vec<_> = rules
            .iter()
            .flat_map(|rules| rules.iter())
            .map(|rule| rule.src.as_ref().expect("not any").lists()[0].clone())
            .collect();
        assert!(lists.iter().all(|list| Arc::ptr_eq(list, &lists[0])));
        lists
    };
    let before = lists(&bench);
    // A group planned later, and one planned again, get the same list still.
    bench.commit(&[acl_rule("b", "2", any(7, AclAction::Deny))]);
    bench.commit(&[acl_rule("b", "2", permit(&[], &["t"]))]);
    assert!(Arc::ptr_eq(&lists(&bench)[3], &before[0]));
    bench.commit(&[tag("t", Family::V4, &["10.2.0.0/16"])]);
    assert_eq!(*lists(&bench)[0], [four(10, 2, 0, 0, 16)]);
}

#[test]
fn a_tag_rewrites_exactly_the_groups_that_name_it() {
    let mut bench = Bench::new();
    let mut edits = vec![];
    for (group, tags) in [
        ("a", &["t"][..]),
        ("b", &["u"]),
        ("c", &["u", "t"]),
        ("d", &[]),
    ] {
        edits.push(acl_group(group, Family::V4));
        edits.push(acl_rule(group, "1", permit(&[], tags)));
    }
    bench.commit(&edits);
    let written = |bench: &mut Bench, edits: &[_]| {
        let plan = bench.commit(edits);
        let groups = plan.delta.ops.iter().map(|op| match op {
            TableOp::Acl { group, rules } => {
                assert!(rules.is_some());
                bench.planner.acl_group(*group).expect("a name").to_string()
            }
            _ => panic!("{op:?}"),
        });
        let mut groups: Vec<String> = groups.collect();
        groups.sort();
        groups
    };
    assert_eq!(
        written(&mut bench, &[tag("t", Family::V4, &["10.0.0.0/8"])]),
        ["a", "c"]
    );
    assert_eq!(
        written(&mut bench, &[tag("u", Family::V4, &["10.0.0.0/8"])]),
        ["b", "c"]
    );
    // A rule that stops naming a tag is its group's last change by it.
    assert_eq!(
        written(&mut bench, &[acl_rule("a", "1", permit(&[], &[]))]),
        ["a"]
    );
    assert_eq!(
        written(&mut bench, &[tag("t", Family::V4, &["11.0.0.0/8"])]),
        ["c"]
    );
}

#[test]
fn a_group_has_a_row_as_long_as_it_has_a_rule() {
    let mut bench = Bench::new();
    bench.commit(&[acl_group("g", Family::V4)]);
    assert!(bench.tables.acl.is_empty());
    bench.commit(&[acl_rule("g", "1", any(1, AclAction::Permit))]);
    assert_eq!(bench.tables.acl.len(), 1);
    bench.commit(&[gone(ObjectKey::AclRule("g".into(), "1".into()))]);
    assert!(bench.tables.acl.is_empty());
    bench.commit(&[acl_rule("g", "1", any(1, AclAction::Permit))]);
    bench.commit(&[gone(ObjectKey::AclGroup("g".into()))]);
    assert!(bench.tables.acl.is_empty());
    assert_eq!(bench.planner.acl_group_id(&"g".into()), None);
}
