//! What holds for any transactions: the twin agrees, order means nothing, a refusal changes
//! nothing, a revert gives back what was, the references are those of the rows.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::fixtures::*;
use super::twin::Twin;
use crate::error::CommitError;
use crate::key::ObjectKey;
use crate::net::Mac;
use crate::objects::{AclRule, Eni, Family, Object, RouteGroup};
use crate::store::{Store, StoreOptions};
use crate::txn::{Action, Changeset, Op, Txn};

fn pick(names: &'static [&'static str]) -> impl Strategy<Value = &'static str> + Clone {
    select(names)
}

/// Names few enough that transactions meet each other; the last of a list is mostly absent.
const VNETS: &[&str] = &["v1", "v2", "v3"];
const ENIS: &[&str] = &["e1", "e2", "e3"];
const GROUPS: &[&str] = &["g1", "g2", "g3"];
const ACLS: &[&str] = &["a2", "a4", "a6"];
const TAGS: &[&str] = &["t4", "t5", "t6"];
const QOS: &[&str] = &["q1", "q2"];
const POLICIES: &[&str] = &["m4", "m5", "m6"];
const CIDRS4: &[&str] = &["0.0.0.0/0", "10.1.0.0/16"];
const CIDRS: &[&str] = &["0.0.0.0/0", "10.1.0.0/16", "fd00::/64"];

/// The family the name promises, for most.
fn family(name: &str) -> impl Strategy<Value = Family> + use<> {
    let (right, wrong) = if name.ends_with('6') {
        (Family::V6, Family::V4)
    } else {
        (Family::V4, Family::V6)
    };
    prop_oneof![9 => Just(right), 1 => Just(wrong)]
}

/// A name of the family, for most; none at times.
fn acl_of(family: Family) -> impl Strategy<Value = Option<&'static str>> {
    let right: &'static [&'static str] = match family {
        Family::V4 => &["a2", "a4"],
        Family::V6 => &["a6"],
    };
    prop_oneof![
        5 => select(right).prop_map(Some),
        1 => pick(ACLS).prop_map(Some),
        4 => Just(None),
    ]
}

/// A name of the family, for most; none mostly.
fn policy_of(family: Family) -> impl Strategy<Value = Option<&'static str>> {
    let right: &'static [&'static str] = match family {
        Family::V4 => &["m4", "m5"],
        Family::V6 => &["m6"],
    };
    prop_oneof![
        4 => select(right).prop_map(Some),
        1 => pick(POLICIES).prop_map(Some),
        12 => Just(None),
    ]
}

fn row() -> impl Strategy<Value = (String, Object)> {
    let appliance = prop_oneof![9 => Just("100"), 1 => Just("200")].prop_map(|id| {
        (
            format!("DASH_APPLIANCE_TABLE:{id}"),
            Object::Appliance(appliance()),
        )
    });
    let vnets = (pick(VNETS), 0u32..12).prop_map(|(name, n)| {
        let own = 2000 + u32::from(name.as_bytes()[1] - b'0');
        (
            format!("DASH_VNET_TABLE:{name}"),
            vnet(if n == 0 { 77 } else { own }),
        )
    });
    let qos_of = || proptest::option::weighted(0.2, pick(QOS));
    let policies = || (policy_of(Family::V4), policy_of(Family::V6), qos_of());
    let enis =
        (pick(ENIS), any::<bool>(), 0u8..20, policies()).prop_map(|(name, enabled, n, named)| {
            let own = name.as_bytes()[1] - b'0';
            let eni = match n {
                0 => eni(own, "v2"),
                1 => Eni {
                    vnet: None,
                    ..eni(own, "v1")
                },
                2 => eni(1, "v1"),
                3 => Eni {
                    mac: Mac([1; 6]),
                    ..eni(own, "v1")
                },
                _ => eni(own, "v1"),
            };
            (
                format!("DASH_ENI_TABLE:{name}"),
                Object::Eni(Eni {
                    enabled,
                    v4_meter_policy: named.0.map(Into::into),
                    v6_meter_policy: named.1.map(Into::into),
                    qos: named.2.map(Into::into),
                    ..eni
                }),
            )
        });
    let groups = (pick(GROUPS), "[12]").prop_map(|(name, version)| {
        let object = Object::RouteGroup(RouteGroup { version });
        (format!("DASH_ROUTE_GROUP_TABLE:{name}"), object)
    });
    let action = prop_oneof![Just(direct()), pick(VNETS).prop_map(to_vnet)];
    let routes = (pick(GROUPS), pick(CIDRS), action)
        .prop_map(|(group, cidr, route)| (format!("DASH_ROUTE_TABLE:{group}:{cidr}"), route));
    let eni_routes = (pick(ENIS), pick(GROUPS))
        .prop_map(|(eni, group)| (format!("DASH_ENI_ROUTE_TABLE:{eni}"), bind_routes(group)));
    let rule_vnet = proptest::option::of(pick(VNETS));
    let rules = (pick(ENIS), pick(CIDRS4), 0u8..2, rule_vnet, any::<bool>()).prop_map(
        |(eni, cidr, priority, vnet, pa)| {
            let key = format!("DASH_ROUTE_RULE_TABLE:{eni}:7:{cidr}:{priority}");
            (key, decap(vnet, pa))
        },
    );
    let mappings = (pick(VNETS), 1u8..3, 1u8..3).prop_map(|(vnet, ip, pa)| {
        (
            format!("DASH_VNET_MAPPING_TABLE:{vnet}:10.1.0.{ip}"),
            mapping(pa),
        )
    });
    let acls = pick(ACLS).prop_flat_map(|name| {
        family(name).prop_map(move |f| (format!("DASH_ACL_GROUP_TABLE:{name}"), acl_group(f)))
    });
    let tag_list = || proptest::collection::vec(pick(TAGS), 0..3);
    let acl_prefix = prop_oneof![6 => Just(None), 1 => pick(CIDRS).prop_map(Some)];
    let acl_rules = (pick(ACLS), 1u8..3, acl_prefix, tag_list(), tag_list()).prop_map(
        |(group, n, cidr, src, dst)| {
            // Most tags of a rule are of the family its group's name promises.
            let fits = |t: &&str| t.ends_with('6') == group.ends_with('6') || n == 2;
            let object = rule(AclRule {
                src_prefixes: cidr.map(prefix).into_iter().collect(),
                src_tags: src.into_iter().filter(fits).map(Into::into).collect(),
                dst_tags: dst.into_iter().filter(fits).map(Into::into).collect(),
                ..permit()
            });
            (format!("DASH_ACL_RULE_TABLE:{group}:{n}"), object)
        },
    );
    let binds = || (acl_of(Family::V4), acl_of(Family::V6)).prop_map(|(v4, v6)| bind(v4, v6));
    let acl_in = (pick(ENIS), 1u8..3, binds())
        .prop_map(|(eni, n, b)| (format!("DASH_ACL_IN_TABLE:{eni}:{n}"), Object::AclIn(b)));
    let acl_out = (pick(ENIS), 1u8..3, binds())
        .prop_map(|(eni, n, b)| (format!("DASH_ACL_OUT_TABLE:{eni}:{n}"), Object::AclOut(b)));
    let tags = pick(TAGS).prop_flat_map(|name| {
        let list = proptest::collection::vec(pick(CIDRS), 0..2);
        (family(name), list).prop_map(move |(f, list)| {
            let list: Vec<&str> = list
                .into_iter()
                .filter(|c| c.contains("::") == (f == Family::V6))
                .collect();
            (format!("DASH_PREFIX_TAG_TABLE:{name}"), tag(f, &list))
        })
    });
    let meter_policies = pick(POLICIES).prop_flat_map(|name| {
        family(name).prop_map(move |f| (format!("DASH_METER_POLICY_TABLE:{name}"), meter_policy(f)))
    });
    let meter_rules =
        (pick(POLICIES), 1u8..3, pick(CIDRS), 0u64..3).prop_map(|(policy, n, to, class)| {
            (
                format!("DASH_METER_RULE_TABLE:{policy}:{n}"),
                meter_rule(to, class),
            )
        });
    let opaque =
        pick(&["h1", "h2"]).prop_map(|n| (format!("DASH_HA_SET_TABLE:{n}"), Object::Opaque));
    let profiles =
        (pick(QOS), 0u32..3).prop_map(|(n, bw)| (format!("DASH_QOS_TABLE:{n}"), qos(bw)));
    let eni_settings = (pick(ENIS), any::<bool>())
        .prop_map(|(eni, off)| (format!("DASHWIRE_ENI_TABLE:{eni}"), eni_settings(off)));
    let group_settings = (pick(GROUPS), any::<bool>()).prop_map(|(group, disabled)| {
        (
            format!("DASHWIRE_ROUTE_GROUP_TABLE:{group}"),
            group_settings(disabled),
        )
    });
    let switch = prop_oneof![Just(None), (1u16..3).prop_map(Some)]
        .prop_map(|port| ("SWITCH_TABLE:switch".to_owned(), switch(port)));
    let misfit = pick(VNETS).prop_map(|n| (format!("DASH_VNET_TABLE:{n}"), direct()));
    let upper = prop_oneof![
        2 => appliance, 5 => vnets, 8 => enis, 6 => groups, 10 => routes, 6 => eni_routes,
        8 => rules, 8 => mappings,
    ];
    let lower = prop_oneof![
        5 => acls, 10 => acl_rules, 6 => acl_in, 6 => acl_out, 6 => tags, 2 => opaque,
        1 => misfit, 5 => meter_policies, 8 => meter_rules, 4 => profiles, 4 => eni_settings,
        4 => group_settings, 2 => switch,
    ];
    prop_oneof![upper, lower]
}

fn op() -> impl Strategy<Value = Op> {
    (row(), any::<bool>(), 0u8..8).prop_map(|((key, object), gone, other_bytes)| {
        if gone {
            del(&key)
        } else if other_bytes == 0 {
            Op::set(0, super::fixtures::key(&key), object, *b"other bytes")
        } else {
            set(&key, object)
        }
    })
}

/// Mostly small, so that many are accepted; at times a swarm, so that deletes meet their users.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    use proptest::collection::vec;
    prop_oneof![6 => vec(op(), 1..4), 2 => vec(op(), 4..12), 1 => teardown()]
}

/// Deletes most of the full configuration, and something of the twin's on top.
fn teardown() -> impl Strategy<Value = Vec<Op>> {
    let all: Vec<Op> = full_config()
        .into_iter()
        .map(|op| Op::del(0, op.key))
        .collect();
    let len = all.len();
    let most = proptest::sample::subsequence(all, len - 3..=len);
    (most, proptest::collection::vec(op(), 0..3)).prop_map(|(mut dels, more)| {
        dels.extend(more);
        dels
    })
}

fn options() -> impl Strategy<Value = StoreOptions> {
    any::<bool>().prop_map(|update_bound_groups| StoreOptions {
        update_bound_groups,
        strict: false,
    })
}

/// The same rows put into an empty store one by one: what rows and references should be.
fn from_scratch(store: &Store) -> Store {
    let mut fresh = Store::new(store.options);
    for (key, entry) in store.iter() {
        fresh.put(&key, Some(entry.clone()));
    }
    fresh
}

fn same(a: &Store, b: &Store) -> bool {
    a.rows == b.rows && a.refs == b.refs
}

/// Commits to both, checks every law; true when accepted.
fn step(store: &mut Store, twin: &mut Twin, txn: Txn) -> bool {
    let before = store.clone();
    let expected = twin.commit(&txn);
    let result = store.commit(txn.clone());
    match (&result, &expected) {
        (Ok(changes), Some(expected)) => {
            assert_eq!(&changes.changes, expected, "{txn:#?}");
            let mut back = store.clone();
            back.revert(changes);
            assert!(same(&back, &before), "revert is no identity: {txn:#?}");
        }
        (Err(error), None) => {
            assert!(!error.errors.is_empty());
            assert!(
                same(store, &before),
                "a refusal changed something: {txn:#?}"
            );
        }
        (Ok(_), None) => panic!("the twin refuses {txn:#?}"),
        (Err(error), Some(_)) => panic!("the twin accepts, the store says\n{error}\n{txn:#?}"),
    }
    assert!(
        store
            .iter()
            .eq(twin.rows.iter().map(|(k, e)| (k.clone(), e)))
    );
    assert_eq!(store.len(), twin.rows.len());
    assert!(
        same(store, &from_scratch(store)),
        "references drifted: {txn:#?}"
    );
    result.is_ok()
}

/// Both after the full configuration.
fn full(options: StoreOptions) -> (Store, Twin) {
    let (mut store, mut twin) = (Store::new(options), Twin::new(options));
    assert!(step(&mut store, &mut twin, txn(full_config())));
    (store, twin)
}

/// One op a key: the order of these means nothing.
fn one_a_key(ops: Vec<Op>) -> Vec<Op> {
    let mut seen = std::collections::BTreeSet::new();
    let mut ops = txn(ops).ops;
    ops.retain(|op| seen.insert(op.key.clone()));
    ops
}

fn shuffled(ops: Vec<Op>) -> impl Strategy<Value = (Vec<Op>, Vec<Op>)> {
    (Just(ops.clone()), Just(ops).prop_shuffle())
}

fn result_of(mut store: Store, ops: Vec<Op>) -> Result<(Changeset, Store), CommitError> {
    let changes = store.commit(Txn { ops })?;
    Ok((changes, store))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_twin_agrees_on_any_run_of_transactions(
        options in options(),
        start_full in any::<bool>(),
        txns in proptest::collection::vec(ops(), 1..12),
    ) {
        let (mut store, mut twin) = if start_full {
            full(options)
        } else {
            (Store::new(options), Twin::new(options))
        };
        for ops in txns {
            step(&mut store, &mut twin, txn(ops));
        }
    }

    #[test]
    fn a_configuration_may_come_in_any_order(
        (straight, mixed) in shuffled(one_a_key(full_config())),
    ) {
        let empty = || Store::new(StoreOptions::default());
        let (changes, store) = result_of(empty(), straight).expect("a good configuration");
        let (changes_mixed, store_mixed) = result_of(empty(), mixed).expect("the same");
        prop_assert_eq!(changes, changes_mixed);
        prop_assert!(same(&store, &store_mixed));
    }

    #[test]
    fn the_order_of_any_transaction_means_nothing_to_answer_or_errors(
        options in options(),
        (straight, mixed) in ops().prop_map(one_a_key).prop_flat_map(shuffled),
    ) {
        let store = full_store(options);
        match (result_of(store.clone(), straight), result_of(store, mixed)) {
            (Ok((a, store_a)), Ok((b, store_b))) => {
                prop_assert_eq!(a, b);
                prop_assert!(same(&store_a, &store_b));
            }
            (a, b) => prop_assert_eq!(a.map(|(c, _)| c), b.map(|(c, _)| c)),
        }
    }

    #[test]
    fn one_bad_op_in_a_good_configuration_spoils_it_all(
        place in 0..full_config().len(),
        bad in select(vec![
            set("DASH_VNET_MAPPING_TABLE:nope:10.0.0.1", mapping(1)),
            set("DASH_ENI_TABLE:e9", Object::Eni(eni(1, "v1"))),
            set("DASH_APPLIANCE_TABLE:200", Object::Appliance(appliance())),
            set("DASH_ACL_OUT_TABLE:e1:1", Object::AclOut(bind(Some("a2"), None))),
        ]),
    ) {
        let mut store = Store::new(StoreOptions::default());
        let mut ops = full_config();
        ops.insert(place, bad);
        prop_assert!(store.commit(txn(ops)).is_err());
        prop_assert_eq!(store.iter().count(), 0);
        prop_assert!(same(&store, &Store::default()));
    }
}

/// The laws above say little if every transaction is refused, or none.
#[test]
fn the_generator_reaches_acceptance_refusal_and_every_table() {
    let mut runner = TestRunner::deterministic();
    let (mut accepted, mut refused, mut cascades) = (0, 0, 0);
    let mut changed = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let (mut store, mut twin) = full(StoreOptions::default());
        for _ in 0..20 {
            let ops = ops().new_tree(&mut runner).expect("a value").current();
            let txn = txn(ops);
            let before = store.clone();
            if !step(&mut store, &mut twin, txn.clone()) {
                refused += 1;
                continue;
            }
            accepted += 1;
            for (key, _) in before.iter().filter(|(key, _)| store.get(key).is_none()) {
                cascades += usize::from(!txn.ops.iter().any(|op| op.key == key));
            }
            for Op { key, action, .. } in &txn.ops {
                let gone = matches!(action, Action::Del);
                if before.get(key) != store.get(key) {
                    changed.insert((key.table(), gone));
                }
            }
        }
    }
    assert!(accepted > 150, "{accepted} accepted");
    assert!(refused > 150, "{refused} refused");
    assert!(cascades > 5, "{cascades} rows went with their group");
    // All but the routing type, which has no rule: set and deleted.
    assert!(changed.len() >= 30, "{changed:?}");
}

/// The sizes of the DASH scale target for one ENI; what is tested is that nothing is quadratic
/// (which would not end) and that a bulk is right.
#[test]
fn a_bulk_of_180_000_rows_commits_and_reverts() {
    use std::net::{IpAddr, Ipv4Addr};

    let mut store = full_store(StoreOptions::default());
    let before = store.clone();
    let raw: std::sync::Arc<[u8]> = (*b"\x12\x05Vnet1").into();
    let routes = (0..100_000u32).map(|n| {
        let addr = IpAddr::V4(Ipv4Addr::from(0x0b00_0000 | n << 4));
        let prefix = crate::net::IpPrefix::new(addr, 28).expect("a length");
        (ObjectKey::Route("g2".into(), prefix), to_vnet("v1"))
    });
    let mappings = (0..80_000u32).map(|n| {
        let addr = IpAddr::V4(Ipv4Addr::from(0x0b00_0000 | n));
        (ObjectKey::VnetMapping("v1".into(), addr), mapping(1))
    });
    let txn: Txn = routes
        .chain(mappings)
        .enumerate()
        .map(|(index, (key, object))| Op::set(index, key, object, raw.clone()))
        .collect();
    let changes = store.commit(txn.clone()).expect("a good bulk");
    assert_eq!(changes.changes.len(), 180_000);
    assert_eq!(store.route_count(&"g2".into()), 100_001);
    assert_eq!(store.count("DASH_VNET_MAPPING_TABLE"), 80_003);
    assert!(store.commit(txn).expect("the same again").is_empty());

    let group = [del("DASH_ROUTE_GROUP_TABLE:g2")].into_iter().collect();
    let gone = store.commit(group).expect("not bound");
    assert_eq!(gone.changes.len(), 100_002);
    store.revert(&gone);
    store.revert(&changes);
    assert!(same(&store, &before));
}
