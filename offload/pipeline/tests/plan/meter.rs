//! Metering: rules by priority to rows by longest prefix, and the bits that other rows carry.

use std::net::IpAddr;

use dash_model::ObjectKey;
use dash_model::objects::{
    Family, MeterBits, MeterClass, MeterPolicy, MeterRule, Object, Route, RouteAction, RuleAction,
};
use dash_wire::tables::{EniRow, InboundRow, MappingRow, MeterRuleKey, RouteRow, mapping_flags};
use nic_target::Table;
use proptest::prelude::*;

use crate::support::*;

fn class(n: u64) -> MeterClass {
    MeterClass::new(n).expect("a class")
}

fn policy(name: &str, family: Family) -> Edit {
    let object = Object::MeterPolicy(MeterPolicy { family });
    (ObjectKey::MeterPolicy(name.into()), Some(object))
}

fn meter_rule(policy: &str, number: &str, priority: u32, prefix: &str, of: u64) -> Edit {
    let rule = MeterRule {
        priority,
        prefix: net(prefix),
        class: class(of),
    };
    let key = ObjectKey::MeterRule(policy.into(), number.into());
    (key, Some(Object::MeterRule(rule)))
}

fn no_rule(policy: &str, number: &str) -> Edit {
    (ObjectKey::MeterRule(policy.into(), number.into()), None)
}

fn named(eni_key: &str, v4: Option<&str>, v6: Option<&str>) -> Edit {
    let (key, object) = eni(eni_key, 1, "v", &[]);
    let Some(Object::Eni(mut object)) = object else {
        panic!("an ENI")
    };
    object.v4_meter_policy = v4.map(Into::into);
    object.v6_meter_policy = v6.map(Into::into);
    (key, Some(Object::Eni(object)))
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.commit(&[
        appliance("100", "10.1.0.5", 9, &[]),
        vnet("v", 2001),
        eni("e", 1, "v", &[]),
    ]);
    bench
}

fn key(bench: &Bench, policy: &str, addr: IpAddr, len: u8) -> MeterRuleKey {
    let mut ip = [0; 16];
    match addr {
        IpAddr::V4(addr) => ip[..4].copy_from_slice(&addr.octets()),
        IpAddr::V6(addr) => ip = addr.octets(),
    }
    MeterRuleKey {
        prefix_len: 32 + u32::from(len),
        policy: bench
            .planner
            .meter_policy_id(&policy.into())
            .expect("an id"),
        ip,
    }
}

fn row(bench: &Bench, policy: &str, prefix: &str) -> Option<u32> {
    let prefix = net(prefix);
    let key = key(bench, policy, prefix.addr(), prefix.prefix_len());
    bench.tables.get(Table::MeterRule, &key)
}

#[test]
fn a_wide_rule_of_lower_number_wins_inside_narrower_ones_and_ties_go_by_number() {
    let mut bench = bench();
    bench.commit(&[
        policy("m", Family::V4),
        meter_rule("m", "all", 5, "0.0.0.0/0", 1),
        meter_rule("m", "a", 1, "10.0.0.0/8", 2),
        meter_rule("m", "b", 3, "10.1.0.0/16", 3),
        meter_rule("m", "c", 1, "10.2.0.0/16", 4),
        meter_rule("m", "z", 1, "10.2.0.0/16", 5),
    ]);
    let rows = |bench: &Bench| {
        ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"].map(|p| row(bench, "m", p))
    };
    assert_eq!(rows(&bench), [Some(1), Some(2), Some(2), Some(4)]);
    bench.commit(&[no_rule("m", "a"), no_rule("m", "c")]);
    assert_eq!(rows(&bench), [Some(1), None, Some(3), Some(5)]);
    // The same rule with another prefix and another priority leaves nothing behind.
    bench.commit(&[meter_rule("m", "b", 9, "10.0.0.0/8", 6)]);
    assert_eq!(rows(&bench), [Some(1), Some(1), None, Some(5)]);
    bench.commit(&["all", "b", "z"].map(|number| no_rule("m", number)));
    assert_eq!(bench.tables.count(Table::MeterRule), 0);
}

#[test]
fn an_eni_has_the_numbers_of_its_policies_and_metering_makes_another_shape() {
    let mut bench = bench();
    let plan = bench.commit(&[
        policy("p4", Family::V4),
        policy("p6", Family::V6),
        meter_rule("p6", "1", 1, "fd00::/8", 7),
    ]);
    assert!(!plan.shape_changed);
    let plan = bench.commit(&[named("e", None, Some("p6"))]);
    assert!(plan.shape.meter && plan.shape.flows.meter);
    let meter = |bench: &Bench| {
        let row: EniRow = bench.tables.get(Table::Eni, &0u32).expect("an ENI");
        row.meter
    };
    let id =
        |bench: &Bench, name: &str| bench.planner.meter_policy_id(&name.into()).expect("an id");
    assert_eq!(meter(&bench), [0, id(&bench, "p6")]);
    assert_eq!(row(&bench, "p6", "fd00::/8"), Some(7));
    bench.commit(&[named("e", Some("p4"), Some("p6"))]);
    assert_eq!(meter(&bench), [id(&bench, "p4"), id(&bench, "p6")]);
    let plan = bench.commit(&[named("e", None, None)]);
    // Flows with a class may be there still.
    assert!(!plan.shape.meter && plan.shape.flows.meter);
    assert_eq!(meter(&bench), [0, 0]);
}

#[test]
fn bits_are_in_the_rows_of_routes_mappings_and_rules() {
    let mut bench = bench();
    let bits = MeterBits {
        or: class(2566),
        and: class(4080),
    };
    let to = Route {
        meter: bits,
        ..RouteAction::Vnet("v".into()).into()
    };
    let plan = bench.commit(&[
        route_group("rg"),
        (
            ObjectKey::Route("rg".into(), net("10.2.0.0/16")),
            Some(Object::Route(to)),
        ),
    ]);
    assert!(plan.shape.meter);
    let of_route = |bench: &Bench| -> Vec<RouteRow> { bench.tables.rows(Table::Route4) };
    let rows = of_route(&bench);
    assert_eq!((rows[0].meter_or, rows[0].meter_and), (2566, 4080));

    let (key, object) = mapping("v", "10.2.0.100", "101.1.2.3");
    let Some(Object::VnetMapping(mut object)) = object else {
        panic!("a mapping")
    };
    object.meter_or = class(1038);
    object.use_dst_vni = true;
    bench.commit(&[(key, Some(Object::VnetMapping(object)))]);
    let rows: Vec<MappingRow> = bench.tables.rows(Table::Mapping);
    assert_eq!(
        rows[0].flags,
        mapping_flags::USE_DST_VNI | 1038 << mapping_flags::METER_SHIFT
    );

    let key = rule_key("e", 45, "10.0.0.0/8", 1);
    let Some(Object::RouteRule(mut object)) = rule(RuleAction::Decap, None, false) else {
        panic!("a rule")
    };
    object.meter = bits;
    bench.commit(&[(key, Some(Object::RouteRule(object)))]);
    let rows: Vec<InboundRow> = bench.tables.rows(Table::Inbound);
    assert_eq!((rows[0].meter_or, rows[0].meter_and), (2566, 4080));
}

/// What a rule matches, without tables: all rules, the best first.
fn expected(rules: &[(u8, Option<MeterRule>)], addr: IpAddr) -> Option<u32> {
    let matching = rules
        .iter()
        .filter_map(|(number, rule)| Some((number, rule.as_ref()?)))
        .filter(|(_, rule)| rule.prefix.contains(addr));
    let rank = |(number, rule): &(&u8, &MeterRule)| {
        (
            rule.priority,
            std::cmp::Reverse(rule.prefix.prefix_len()),
            number.to_string(),
        )
    };
    let (_, best) = matching.min_by_key(rank)?;
    Some(best.class.get().into())
}

proptest! {
    #[test]
    fn any_rules_give_the_class_that_looking_at_all_of_them_gives(
        steps in prop::collection::vec(
            (0u8..12, prop::option::weighted(0.8, (0u32..3, 0u8..4, 0u8..9, 0u64..4095))),
            1..40,
        ),
        v6 in prop::bool::ANY,
    ) {
        let family = if v6 { Family::V6 } else { Family::V4 };
        // Two bits of an octet, so that prefixes lie in each other.
        let addr = |bits: u8| -> IpAddr {
            if v6 { [0xfd, bits << 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into() }
            else { [10, bits << 6, 0, 0].into() }
        };
        let mut bench = bench();
        bench.commit(&[policy("m", family)]);
        let mut rules: Vec<(u8, Option<MeterRule>)> = (0..12).map(|n| (n, None)).collect();
        for chunk in steps.chunks(4) {
            let mut edits = Vec::new();
            for (number, rule) in chunk {
                let rule = rule.map(|(priority, bits, more, of)| MeterRule {
                    priority,
                    prefix: dash_model::net::IpPrefix::new(addr(bits), 6 + more).expect("a length"),
                    class: class(of),
                });
                rules[usize::from(*number)].1 = rule;
                let key = ObjectKey::MeterRule("m".into(), number.to_string().as_str().into());
                edits.push((key, rule.map(Object::MeterRule)));
            }
            bench.commit(&edits);
            for bits in 0..4 {
                let found = (0..=32).rev().find_map(|len| {
                    let prefix = dash_model::net::IpPrefix::new(addr(bits), len)?;
                    bench.tables.get(Table::MeterRule, &key(&bench, "m", prefix.addr(), len))
                });
                prop_assert_eq!(found, expected(&rules, addr(bits)), "{:?}", addr(bits));
            }
        }
    }
}
