//! However the store came to be, its rows are the same.

use std::collections::BTreeSet;

use dash_model::key::ObjectKey;
use dash_model::objects::{Object, RouteAction};
use dash_model::{Change, Changeset, Store};
use dash_pipeline::plan::{Planner, Settings, Shape};
use dash_wire::tables::PortRangeKey;
use nic_target::{Capacity, Table};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use zerocopy::FromBytes;

use crate::moves::{Move, moves};
use crate::named::named;
use crate::support::{Bench, Contents, Edit, Refused, appliance};

/// Fewer ENIs than the moves have names for, so that indexes run out and are used again.
fn capacity() -> Capacity {
    Capacity {
        enis: 3,
        ..Capacity::default()
    }
}

fn transactions(n: usize) -> impl Strategy<Value = Vec<Vec<Move>>> {
    prop::collection::vec(prop::collection::vec(moves(), 1..5), 1..n)
}

fn edits(store: &Store, txn: &[Move]) -> Vec<Edit> {
    txn.iter().flat_map(|step| step.edits(store)).collect()
}

fn bench() -> Bench {
    let mut bench = Bench::with_capacity(&capacity());
    bench.commit(&[appliance("100", "10.1.0.1", 9, &[])]);
    bench
}

/// Commits the moves together or, when that is not legal, those that are legal alone.
fn run(bench: &mut Bench, txn: &[Move]) -> usize {
    let together = edits(&bench.store, txn);
    if bench.try_commit(&together).is_ok() {
        return txn.len();
    }
    let alone = txn.iter().filter(|step| {
        let edits = step.edits(&bench.store);
        bench.try_commit(&edits).is_ok()
    });
    alone.count()
}

/// A planner that is given the whole store at once.
fn fresh(store: &Store) -> (Planner, Contents, Shape) {
    let changes = Changeset {
        changes: store
            .iter()
            .map(|(key, entry)| Change {
                key,
                old: None,
                new: Some(entry.clone()),
            })
            .collect(),
        warnings: vec![],
    };
    let mut planner = Planner::new(Settings::default(), &capacity());
    let plan = planner.plan(store, &changes).expect("it fitted before");
    let mut tables = Contents::default();
    tables.apply(&plan.delta);
    (planner, tables, plan.shape)
}

/// Numbers of rows, counted from the store without the planner's ways.
fn assert_counts(store: &Store, tables: &Contents) {
    let routes: usize = store
        .route_groups()
        .map(|(g, _)| store.route_count(g))
        .sum();
    assert_eq!(
        tables.count(Table::Route4) + tables.count(Table::Route6),
        routes
    );
    let mut mappings = 0;
    let mut pas = BTreeSet::new();
    for (name, _) in store.vnets() {
        mappings += store.mapping_count(name);
        pas.extend(store.mappings(name).map(|(_, m)| (name, m.underlay_ip)));
    }
    assert_eq!(tables.count(Table::Mapping), mappings);
    assert_eq!(tables.count(Table::PaValidation), pas.len());
    assert_eq!(tables.count(Table::Eni), store.enis().count());
    assert_eq!(tables.count(Table::EniMac), store.enis().count());
    assert_eq!(tables.count(Table::Globals), 1);
    let mut sources = BTreeSet::new();
    for (eni, _) in store.enis() {
        let rules = store.route_rules(eni);
        sources.extend(rules.map(|(key, _)| (eni, key.vni, key.source)));
    }
    assert_eq!(tables.count(Table::Inbound), sources.len());
    assert_more(store, tables);
    let groups = store.acl_groups();
    let with_rules = groups.filter(|(group, _)| store.acl_rule_count(group) > 0);
    assert_eq!(tables.acl.len(), with_rules.count());
}

/// Rows of what few routes and mappings have, and of what they name.
fn assert_more(store: &Store, tables: &Contents) {
    let routes = store
        .route_groups()
        .flat_map(|(group, _)| store.routes(group));
    let more = routes.filter(|(_, route)| {
        let service = matches!(route.action, RouteAction::ServiceTunnel(_));
        service || route.tunnel.is_some() || route.underlay_sip.is_some()
    });
    assert_eq!(
        tables.count(Table::Route4More) + tables.count(Table::Route6More),
        more.count()
    );
    let mappings = store.vnets().flat_map(|(vnet, _)| store.mappings(vnet));
    let more = mappings.filter(|(_, m)| m.private_link.is_some() || m.tunnel.is_some());
    assert_eq!(tables.count(Table::MappingMore), more.count());
    let (mut members, mut encaps) = (0, 0);
    for (_, entry) in store.iter() {
        match &entry.object {
            Object::Tunnel(tunnel) => members += tunnel.endpoints.len(),
            Object::RoutingType(def) => {
                encaps += usize::from(def.static_encap.is_some_and(|e| e.key.is_some()));
            }
            _ => {}
        }
    }
    assert_eq!(tables.count(Table::Tunnel), members);
    assert_eq!(tables.count(Table::RoutingType), encaps);
    // A range is as few prefixes as cover it, so every port is in at most one row.
    let ranges: usize = store
        .iter_table("DASH_OUTBOUND_PORT_MAP_RANGE_TABLE")
        .map(|(key, _)| match key {
            ObjectKey::PortMapRange(_, range) => usize::from(range.max - range.min) + 1,
            _ => 0,
        })
        .sum();
    let rows = tables.rows.keys().filter(|(t, _)| *t == Table::PortRange);
    let covered = rows.map(|(_, key)| {
        let key = PortRangeKey::read_from_bytes(key).expect("a key of the table's size");
        1usize << (48 - key.prefix_len)
    });
    assert_eq!(covered.sum::<usize>(), ranges);
}

/// The moves make every kind of object, and every part of the shape that objects make.
#[test]
fn generated_moves_reach_every_table_and_every_shape() {
    let mut runner = TestRunner::deterministic();
    let (mut tables, mut shapes) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..60 {
        let tree = transactions(40).new_tree(&mut runner);
        let mut bench = bench();
        for txn in tree.expect("a strategy without filters").current() {
            run(&mut bench, &txn);
            tables.extend(bench.tables.rows.keys().map(|(table, _)| table.name()));
            let plan = bench.planner.plan(&bench.store, &Changeset::default());
            let s = plan.expect("nothing to number").shape;
            let parts = [
                ("trusted_vnis", s.trusted_vnis),
                ("pa_validation", s.inbound_pa_validation),
                ("protocol", s.inbound_protocol),
                ("route_more", s.route_more),
                ("mapping_more", s.mapping_more),
                ("service_tunnel", s.service_tunnel),
                ("private_link", s.private_link),
                ("port_map", s.port_map),
                ("tunnel", s.tunnel),
                ("nvgre", s.flows.nvgre),
                ("u1", s.flows.u1),
            ];
            shapes.extend(
                parts
                    .into_iter()
                    .filter(|(_, has)| *has)
                    .map(|(name, _)| name),
            );
        }
    }
    for table in [
        Table::Route4More,
        Table::Route6More,
        Table::MappingMore,
        Table::RoutingType,
        Table::Tunnel,
        Table::PortRange,
        Table::TrustedVni,
        Table::PaValidation,
    ] {
        assert!(tables.contains(table.name()), "{table:?}: {tables:?}");
    }
    assert_eq!(shapes.len(), 10, "{shapes:?}");
}

#[test]
fn most_generated_moves_are_legal() {
    let mut runner = TestRunner::deterministic();
    let (mut made, mut legal) = (0, 0);
    for _ in 0..30 {
        let tree = transactions(40).new_tree(&mut runner);
        let txns = tree.expect("a strategy without filters").current();
        let mut bench = bench();
        for txn in txns {
            made += txn.len();
            legal += run(&mut bench, &txn);
        }
    }
    assert!(legal * 2 > made, "{legal} of {made}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn rows_and_shape_depend_on_the_store_alone(txns in transactions(40)) {
        let mut bench = bench();
        for txn in txns {
            run(&mut bench, &txn);
            let (planner, tables, shape) = fresh(&bench.store);
            prop_assert_eq!(
                named(&bench.planner, &bench.tables),
                named(&planner, &tables)
            );
            let now = bench.planner.plan(&bench.store, &Changeset::default());
            let now = now.expect("nothing to number");
            prop_assert!(now.delta.ops.is_empty() && !now.shape_changed);
            // Flows outlive objects, so code for what they may need stays.
            let (kept, needed) = (now.shape.flows, shape.flows);
            prop_assert!(kept.translate >= needed.translate);
            prop_assert!(kept.nvgre >= needed.nvgre && kept.u1 >= needed.u1);
            prop_assert_eq!(Shape { flows: needed, ..now.shape }, shape);
            assert_counts(&bench.store, &bench.tables);
        }
    }

    #[test]
    fn taking_a_commit_back_restores_rows_ids_and_shape(
        before in transactions(30),
        refused in prop::collection::vec(moves(), 1..6),
        after in transactions(10),
    ) {
        let mut bench = bench();
        for txn in before {
            run(&mut bench, &txn);
        }
        let unaware = bench.clone();
        let shape = |bench: &Bench| {
            let mut planner = bench.planner.clone();
            let plan = planner.plan(&bench.store, &Changeset::default());
            plan.expect("nothing to number").shape
        };
        let refused = edits(&bench.store, &refused);
        if let Ok((changes, _)) = bench.try_commit(&refused) {
            bench.store.revert(&changes);
            let plan = bench.planner.take_back(&bench.store, &changes);
            let plan = plan.expect("everything had its number");
            bench.tables.apply(&plan.delta);
            prop_assert_eq!(&plan.shape, &shape(&unaware));
        }
        // The very bytes: a target that refused the commit holds them.
        prop_assert_eq!(&bench.tables, &unaware.tables);
        for (index, eni) in unaware.planner.enis() {
            prop_assert_eq!(bench.planner.eni_index(eni), Some(index));
        }
        prop_assert_eq!(bench.planner.enis().count(), unaware.planner.enis().count());

        let mut unaware = unaware;
        for txn in after {
            run(&mut bench, &txn);
            run(&mut unaware, &txn);
        }
        prop_assert_eq!(
            named(&bench.planner, &bench.tables),
            named(&unaware.planner, &unaware.tables)
        );
    }
}

#[test]
fn a_plan_that_does_not_fit_leaves_no_trace() {
    use crate::support::{eni, vnet};
    let mut bench = bench();
    bench.commit(&[vnet("Vnet1", 2001), eni("eni0", 1, "Vnet1", &[])]);
    let before = bench.clone();
    let too_many = [
        eni("eni1", 2, "Vnet1", &[(1, 2)]),
        eni("eni2", 3, "Vnet1", &[]),
        eni("eni3", 4, "Vnet1", &[]),
        vnet("Vnet2", 2002),
    ];
    let Err(Refused::ByPlanner(error)) = bench.try_commit(&too_many) else {
        panic!("four ENIs in three places");
    };
    assert_eq!(
        error.to_string(),
        "DASH_ENI_TABLE:eni3 does not fit: the data plane holds at most 3 rows of DASH_ENI_TABLE"
    );
    assert_eq!(bench.tables, before.tables);
    assert_eq!(bench.planner.enis().count(), 1);
    assert_eq!(bench.planner.vnet_id(&"Vnet2".into()), None);

    let plan = bench.commit(&too_many[..2]);
    assert!(plan.shape.trusted_vnis);
    assert_eq!(bench.planner.eni_index(&"eni1".into()), Some(1));
    assert_eq!(bench.planner.eni_index(&"eni2".into()), Some(2));
    assert_eq!(named(&bench.planner, &bench.tables), {
        let (planner, tables, _) = fresh(&bench.store);
        named(&planner, &tables)
    });
}
