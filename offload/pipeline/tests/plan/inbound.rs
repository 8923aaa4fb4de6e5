//! Inbound rules by priority against rows by longest prefix.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dash_model::Store;
use dash_model::key::{ObjectKey, RouteRuleKey, SourcePrefix};
use dash_model::objects::{Object, RouteRule, RuleAction};
use dash_wire::tables::{INBOUND_PROTOCOL_SHIFT, InboundKey, InboundRow, inbound_action};
use nic_target::Table;
use proptest::prelude::*;
use zerocopy::FromBytes;

use crate::support::{Bench, Edit, appliance, eni, gone, rule, rule_key, vnet};

fn card() -> Bench {
    let mut bench = Bench::new();
    bench.commit(&[
        appliance("100", "10.1.0.5", 9, &[]),
        vnet("Vnet1", 2001),
        vnet("Vnet2", 2002),
        eni("eni0", 1, "Vnet1", &[]),
        eni("eni1", 2, "Vnet1", &[]),
    ]);
    bench
}

fn decap() -> Option<dash_model::objects::Object> {
    rule(RuleAction::Decap, None, false)
}

fn row(bench: &Bench, eni: u32, vni: u32, sip: [u8; 4], len: u32) -> Option<InboundRow> {
    let prefix_len = 64 + len;
    let key = InboundKey {
        prefix_len,
        eni,
        vni,
        sip,
    };
    bench.tables.get(Table::Inbound, &key)
}

/// The rule that wins by the words of the reference: lowest priority number, then the longer
/// prefix, then the lower address.
fn scan(
    store: &Store,
    eni: &str,
    (vni, protocol): (u32, u8),
    source: Ipv4Addr,
) -> Option<RouteRule> {
    let inside = |p: SourcePrefix| {
        let mask = u32::MAX.checked_shl(32 - u32::from(p.len)).unwrap_or(0);
        u32::from(source) & mask == u32::from(p.addr)
    };
    let eni = eni.into();
    let matching = store.route_rules(&eni).filter(|(key, rule)| {
        let meant = rule.protocol.is_none_or(|wanted| wanted == protocol);
        key.vni.get() == vni && meant && inside(key.source)
    });
    let order = |key: &RouteRuleKey| (key.priority, 32 - key.source.len, key.source.addr);
    matching
        .min_by_key(|(key, _)| order(key))
        .map(|(_, rule)| rule.clone())
}

/// What a program finds: the row of the longest prefix.
fn longest(bench: &Bench, eni: u32, vni: u32, source: Ipv4Addr) -> Option<InboundRow> {
    (0..=32).rev().find_map(|len| {
        let prefix = SourcePrefix::new(source, len).expect("an IPv4 length");
        row(bench, eni, vni, prefix.addr.octets(), len.into())
    })
}

fn expected(bench: &Bench, rule: &RouteRule) -> InboundRow {
    let action = match (rule.action, rule.pa_validation) {
        (RuleAction::Drop, _) => inbound_action::DROP,
        (RuleAction::Decap, true) => inbound_action::DECAP_PA_VALIDATE,
        (RuleAction::Decap, false) => inbound_action::DECAP,
    };
    let vnet = match action {
        inbound_action::DECAP_PA_VALIDATE => rule.vnet.as_ref(),
        _ => None,
    };
    let vnet = vnet.map_or(0, |v| bench.planner.vnet_id(v).expect("an id"));
    InboundRow {
        action,
        pad: 0,
        vnet,
        meter_or: 0,
        meter_and: 0xfff,
    }
}

#[test]
fn a_wide_rule_of_lower_number_wins_inside_narrower_ones() {
    let mut bench = card();
    bench.commit(&[
        (rule_key("eni0", 45, "10.0.0.0/8", 2), decap()),
        (
            rule_key("eni0", 45, "10.1.0.0/16", 1),
            rule(RuleAction::Drop, None, false),
        ),
        (rule_key("eni0", 45, "10.1.1.0/24", 3), decap()),
        (
            rule_key("eni0", 45, "10.1.1.1/32", 1),
            rule(RuleAction::Decap, Some("Vnet2"), true),
        ),
    ]);
    let action = |sip, len| row(&bench, 0, 45, sip, len).map(|row| row.action);
    assert_eq!(action([10, 0, 0, 0], 8), Some(inbound_action::DECAP));
    assert_eq!(action([10, 1, 0, 0], 16), Some(inbound_action::DROP));
    assert_eq!(action([10, 1, 1, 0], 24), Some(inbound_action::DROP));
    // Equal priority: the longer prefix.
    let row = row(&bench, 0, 45, [10, 1, 1, 1], 32).expect("a row");
    assert_eq!(row.action, inbound_action::DECAP_PA_VALIDATE);
    assert_eq!(
        bench.planner.vnet(row.vnet).map(|v| v.as_str()),
        Some("Vnet2")
    );
}

#[test]
fn a_change_rewrites_rows_that_differ_and_no_others() {
    let mut bench = card();
    let mut edits: Vec<Edit> = (0..=255)
        .map(|n| (rule_key("eni0", 45, &format!("10.0.{n}.0/24"), 5), decap()))
        .collect();
    edits.push((rule_key("eni0", 46, "10.0.0.0/24", 5), decap()));
    edits.push((rule_key("eni1", 45, "10.0.0.0/24", 5), decap()));
    bench.commit(&edits);

    // Around all of them but weaker: a row of its own.
    let plan = bench.commit(&[(rule_key("eni0", 45, "10.0.0.0/16", 6), decap())]);
    assert_eq!(plan.delta.ops.len(), 1);
    // Stronger than four of them.
    let drop = rule(RuleAction::Drop, None, false);
    let plan = bench.commit(&[(rule_key("eni0", 45, "10.0.8.0/22", 1), drop)]);
    assert_eq!(plan.delta.ops.len(), 5);
    let plan = bench.commit(&[gone(rule_key("eni0", 45, "10.0.8.0/22", 1))]);
    assert_eq!(plan.delta.ops.len(), 5);
    // A second rule of a prefix that loses there changes nothing.
    let drop = rule(RuleAction::Drop, None, false);
    let plan = bench.commit(&[(rule_key("eni0", 45, "10.0.0.0/24", 9), drop)]);
    assert!(plan.delta.ops.is_empty());
    // Without its first rule the prefix goes by the rule around it, which decides the same.
    let plan = bench.commit(&[gone(rule_key("eni0", 45, "10.0.0.0/24", 5))]);
    assert!(plan.delta.ops.is_empty(), "6 is before 9");
    let plan = bench.commit(&[gone(rule_key("eni0", 45, "10.0.0.0/16", 6))]);
    assert_eq!(plan.delta.ops.len(), 2);
    let action = row(&bench, 0, 45, [10, 0, 0, 0], 24).map(|row| row.action);
    assert_eq!(action, Some(inbound_action::DROP));
}

/// Prefixes that nest often and addresses in and around them.
fn sources() -> impl Strategy<Value = (u32, u8)> {
    let addr = prop_oneof![
        any::<u32>(),
        (0u32..16).prop_map(|low| 0x0a00_0000 | low),
        Just(0),
        Just(u32::MAX),
    ];
    (addr, prop_oneof![0u8..=32, 26u8..=32])
}

#[derive(Clone, Debug)]
struct Step {
    keep: bool,
    eni: bool,
    vni: u32,
    source: (u32, u8),
    priority: u32,
    kind: u8,
    protocol: Option<u8>,
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = (
        prop::bool::weighted(0.75),
        any::<bool>(),
        45u32..47,
        sources(),
        0u32..4,
        0u8..4,
        prop::sample::select(vec![None, None, Some(6), Some(17)]),
    )
        .prop_map(|(keep, eni, vni, source, priority, kind, protocol)| Step {
            keep,
            eni,
            vni,
            source,
            priority,
            kind,
            protocol,
        });
    prop::collection::vec(prop::collection::vec(step, 1..8), 1..12)
}

impl Step {
    fn edit(&self, existing: &BTreeMap<usize, ObjectKey>) -> Edit {
        if !self.keep && !existing.is_empty() {
            let nth = self.source.0 as usize % existing.len();
            return gone(
                existing
                    .values()
                    .nth(nth)
                    .expect("below the length")
                    .clone(),
            );
        }
        let eni = if self.eni { "eni0" } else { "eni1" };
        let source = format!("{}/{}", Ipv4Addr::from(self.source.0), self.source.1);
        let mut object = match self.kind {
            0 => rule(RuleAction::Drop, None, false),
            1 => decap(),
            2 => rule(RuleAction::Decap, Some("Vnet1"), true),
            _ => rule(RuleAction::Decap, Some("Vnet2"), true),
        };
        if let Some(Object::RouteRule(rule)) = &mut object {
            rule.protocol = self.protocol;
        }
        (rule_key(eni, self.vni, &source, self.priority), object)
    }
}

proptest! {
    #[test]
    fn the_longest_prefix_finds_the_rule_that_a_scan_by_priority_finds(
        txns in steps(),
        probes in prop::collection::vec(sources(), 8),
    ) {
        let mut bench = card();
        for txn in txns {
            let mut existing = BTreeMap::new();
            for eni in ["eni0", "eni1"] {
                for (key, _) in bench.store.route_rules(&eni.into()) {
                    existing.insert(existing.len(), ObjectKey::RouteRule(key.clone()));
                }
            }
            let edits: Vec<Edit> = txn.iter().map(|step| step.edit(&existing)).collect();
            bench.commit(&edits);

            // The probes, and the first and last address of every row.
            let mut addresses: Vec<u32> = probes.iter().map(|(addr, _)| *addr).collect();
            for (_, key) in bench.tables.rows.keys().filter(|(t, _)| *t == Table::Inbound) {
                let key = InboundKey::read_from_bytes(key).expect("a key of the table");
                let first = u32::from_be_bytes(key.sip);
                let hosts = u32::MAX.checked_shr(key.prefix_len - 64).unwrap_or(0);
                addresses.extend([first, first | hosts, first.wrapping_sub(1)]);
            }
            for (index, eni) in [(0, "eni0"), (1, "eni1")] {
                for (vni, addr) in [45, 46].iter().flat_map(|v| addresses.iter().map(move |a| (*v, *a))) {
                    let source = Ipv4Addr::from(addr);
                    for protocol in [6, 17, 1] {
                        // As the pipeline looks it up.
                        let particular = vni | u32::from(protocol) << INBOUND_PROTOCOL_SHIFT;
                        let found = longest(&bench, index, particular, source)
                            .or_else(|| longest(&bench, index, vni, source));
                        let wanted = scan(&bench.store, eni, (vni, protocol), source);
                        let wanted = wanted.map(|rule| expected(&bench, &rule));
                        prop_assert_eq!(found, wanted, "{} {} {} {}", eni, vni, protocol, source);
                    }
                }
            }
        }
    }
}
