//! Epochs of ENIs: who moves them, how far, and what comes round.

use dash_model::key::EniKey;
use dash_model::objects::{AclAction, Family, RouteAction};
use dash_pipeline::plan::{Planner, Recurring, Resimulation, Settings};
use dash_wire::tables::{EniRow, flow_action};
use nic_target::{Capacity, Table};

use crate::support::*;

/// Two ENIs, each with a route group and a VNET of its own.
fn two(changes: bool) -> Bench {
    let mut bench = Bench::new();
    let settings = Settings {
        resimulate_changes: changes,
        ..Settings::default()
    };
    bench.planner = Planner::new(settings, &Capacity::default());
    bench.commit(&[
        appliance("100", "10.1.0.5", 9, &[]),
        vnet("Vnet1", 2001),
        vnet("Vnet2", 2002),
        eni("eni1", 1, "Vnet1", &[]),
        eni("eni2", 2, "Vnet2", &[]),
        route_group("g1"),
        route_group("g2"),
        eni_route("eni1", "g1"),
        eni_route("eni2", "g2"),
        route("g1", "10.1.0.0/16", RouteAction::Vnet("Vnet1".into())),
        route("g2", "10.2.0.0/16", RouteAction::Vnet("Vnet2".into())),
        acl_group("a", Family::V4),
        acl_rule("a", "1", any(1, AclAction::Permit)),
    ]);
    bench
}

fn row(bench: &Bench, key: &str) -> EniRow {
    let index = bench.planner.eni_index(&key.into()).expect("the ENI");
    bench.tables.get(Table::Eni, &index).expect("its row")
}

fn epochs(bench: &Bench) -> (u8, u8) {
    (row(bench, "eni1").epoch, row(bench, "eni2").epoch)
}

fn resimulate(bench: &mut Bench, key: &str, how: Resimulation, all: bool) -> Vec<Recurring> {
    let key = EniKey::from(key);
    let plan = bench
        .planner
        .resimulate(&bench.store, &key, how, all)
        .expect("the ENI");
    bench.tables.apply(&plan.delta);
    assert!(plan.shape.flows.epoch);
    plan.recurring
}

#[test]
fn a_request_moves_the_epoch_of_its_eni_and_says_how() {
    let mut bench = two(false);
    let plan = bench.commit(&[mapping("Vnet1", "10.1.1.1", "101.1.2.3")]);
    assert!(!plan.shape.flows.epoch, "nobody asked yet");
    let how = Resimulation {
        per_second: Some(7),
        keep: flow_action::NAT46 | flow_action::ENCAP_U0,
    };
    resimulate(&mut bench, "eni1", how, true);
    assert_eq!(epochs(&bench), (1, 0));
    let eni1 = row(&bench, "eni1");
    assert_eq!(eni1.resim_per_second, 7);
    let whole = flow_action::TRANSLATES | flow_action::ENCAP_U0;
    assert_eq!(eni1.resim_keep, whole, "what translates goes together");
    resimulate(&mut bench, "eni1", Resimulation::default(), false);
    assert_eq!(
        (epochs(&bench), row(&bench, "eni1").resim_keep),
        ((1, 0), 0)
    );
    bench.commit(&[route("g1", "10.3.0.0/16", RouteAction::Drop)]);
    assert_eq!(epochs(&bench), (1, 0), "changes move nothing by themselves");
    let nobody = EniKey::from("eni9");
    let how = Resimulation::default();
    assert!(
        bench
            .planner
            .resimulate(&bench.store, &nobody, how, true)
            .is_none()
    );
}

#[test]
fn a_request_that_is_taken_back_leaves_no_trace() {
    let mut bench = two(false);
    resimulate(&mut bench, "eni1", Resimulation::default(), true);
    let before = bench.tables.clone();
    let key = EniKey::from("eni1");
    let how = Resimulation::default();
    assert!(
        bench
            .planner
            .resimulate(&bench.store, &key, how, true)
            .is_some()
    );
    bench.planner.forget_resimulate(&bench.store, &key);
    resimulate(&mut bench, "eni1", how, false);
    assert_eq!(bench.tables, before);
}

#[test]
fn changes_move_the_epochs_of_the_enis_they_concern() {
    let mut bench = two(true);
    assert_eq!(epochs(&bench), (0, 0), "new ENIs have no flows");
    let permit = |number: &str| acl_rule("a", number, any(2, AclAction::Permit));
    for (edits, expected) in [
        (vec![mapping("Vnet1", "10.1.1.1", "101.1.2.3")], (1, 0)),
        (vec![route("g2", "10.3.0.0/16", RouteAction::Drop)], (1, 1)),
        (vec![permit("2")], (1, 1)),
        (vec![acl_out("eni2", 1, Some("a"), None)], (1, 2)),
        (vec![permit("3")], (1, 3)),
        (
            vec![route(
                "g1",
                "10.2.0.0/16",
                RouteAction::Vnet("Vnet2".into()),
            )],
            (2, 3),
        ),
        (vec![mapping("Vnet2", "10.2.1.1", "101.1.2.4")], (3, 4)),
        (vec![appliance("100", "10.1.0.6", 9, &[])], (4, 5)),
        (vec![route_group("g3")], (4, 5)),
        (vec![eni_route("eni1", "g3")], (5, 5)),
    ] {
        bench.commit(&edits);
        assert_eq!(epochs(&bench), expected, "{edits:?}");
    }
}

#[test]
fn a_change_that_is_taken_back_moves_no_epoch() {
    let mut bench = two(true);
    let before = bench.tables.clone();
    let edits = [mapping("Vnet1", "10.1.1.1", "101.1.2.3")];
    let (changes, _) = bench.try_commit(&edits).expect("legal");
    bench.store.revert(&changes);
    let back = bench
        .planner
        .take_back(&bench.store, &changes)
        .expect("it was planned");
    bench.tables.apply(&back.delta);
    assert_eq!(bench.tables, before);
}

#[test]
fn before_epochs_come_round_flows_of_old_ones_are_swept() {
    let mut bench = two(false);
    let mut sweeps = Vec::new();
    for n in 1..=600u32 {
        for Recurring { eni, next } in resimulate(&mut bench, "eni1", Resimulation::default(), true)
        {
            assert_eq!(Some(eni), bench.planner.eni_index(&"eni1".into()));
            assert_eq!(u32::from(next), n % 256);
            sweeps.push(n);
        }
        assert_eq!(u32::from(row(&bench, "eni1").epoch), n % 256);
    }
    // Flows that were swept are of the epoch two before; it is 254 requests away.
    assert_eq!(sweeps, [254, 508]);
}
