use dash_engine::{Engine, EngineError, Judge, Options};
use dash_model::ObjectKey;
use dash_pipeline::plan::{UnderlayRoute, UnderlayTable};
use nic_target::{Table, TableOp};

use crate::fake::{ACL, BASE, Fake, MAPPING, NO_ACL, engine, txn};

fn key(text: &str) -> ObjectKey {
    text.parse().expect("a key")
}

#[test]
fn generation_1_has_code_and_the_row_that_makes_every_packet_miss() {
    let engine = engine();
    let [update] = engine.target().updates.as_slice() else {
        panic!("one update, not {:?}", engine.target().updates.len());
    };
    assert_eq!((engine.generation(), update.generation), (1, 1));
    let image = update.image.as_ref().expect("code");
    assert!(image.native.is_some());
    assert_eq!(image.ir.as_ref(), engine.artifacts().ir.as_ref());
    let tables: Vec<Table> = update
        .delta
        .ops
        .iter()
        .map(|op| match op {
            TableOp::Put { table, .. } => *table,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(tables, [Table::Globals]);
}

#[test]
fn a_transaction_is_one_generation() {
    let mut engine = engine();
    let commit = engine.commit(txn(BASE)).expect("a right configuration");
    assert_eq!((commit.generation, commit.changes), (2, 6));
    assert_eq!(engine.target().updates.len(), 2);
    assert_eq!(engine.target().updates[1].generation, 2);
    let again = engine.commit(txn(BASE)).expect("nothing new");
    assert_eq!((again.generation, again.changes), (2, 0));
    assert_eq!(
        engine.target().updates.len(),
        2,
        "nothing changed, so nothing was applied"
    );
}

#[test]
fn a_wrong_transaction_reaches_neither_planner_nor_target() {
    let mut engine = engine();
    engine.commit(txn(BASE)).expect("a right configuration");
    let wrong = r#"[
      {"DASH_VNET_TABLE:Vnet2": {"vni": 5}, "OP": "SET"},
      {"DASH_ENI_ROUTE_TABLE:eni-1": {"group_id": "nowhere"}, "OP": "SET"}
    ]"#;
    let error = engine
        .commit(txn(wrong))
        .expect_err("a group that is not there");
    let EngineError::Commit(error) = error else {
        panic!("{error}")
    };
    assert_eq!(
        error.to_string(),
        "item 1, DASH_ENI_ROUTE_TABLE:eni-1: DASH_ROUTE_GROUP_TABLE:nowhere does not exist"
    );
    assert_eq!(engine.get(&key("DASH_VNET_TABLE:Vnet2")), None);
    assert_eq!((engine.generation(), engine.target().updates.len()), (2, 2));
}

/// Rows, code and numbers of a commit that was refused at first are those of one that was not.
#[test]
fn after_a_refusal_by_the_target_nothing_has_changed() {
    let mut engine = engine();
    engine.commit(txn(BASE)).expect("a right configuration");
    let rows: Vec<_> = engine
        .store()
        .iter()
        .map(|(key, entry)| (key, entry.clone()))
        .collect();
    let shape = engine.image().shape;

    let change = format!(
        "[{}, {}, {}]",
        &MAPPING[1..MAPPING.len() - 1],
        &ACL.trim()[1..ACL.trim().len() - 1],
        r#"{"DASH_ENI_TABLE:eni-2": {"mac_address": "f4:93:9f:ef:c4:7f", "underlay_ip": "25.1.1.2", "admin_state": "enabled"}, "OP": "SET"}"#
    );
    engine.target_mut().refuse = true;
    for _ in 0..2 {
        let error = engine.commit(txn(&change)).expect_err("the target refuses");
        assert!(matches!(error, EngineError::Target(_)), "{error}");
        assert_eq!(engine.generation(), 2);
        assert_eq!(engine.image().shape, shape);
        let now: Vec<_> = engine
            .store()
            .iter()
            .map(|(key, entry)| (key, entry.clone()))
            .collect();
        assert_eq!(now, rows);
    }
    engine.target_mut().refuse = false;
    let commit = engine
        .commit(txn(&change))
        .expect("the target takes it now");
    assert_eq!((commit.generation, commit.compiled), (3, true));

    let mut never_refused = crate::fake::engine();
    never_refused
        .commit(txn(BASE))
        .expect("a right configuration");
    never_refused.commit(txn(&change)).expect("a right change");
    let (ours, theirs): (&Fake, &Fake) = (engine.target(), never_refused.target());
    assert_eq!(ours.updates[2].delta, theirs.updates[2].delta);
    assert_eq!(
        ours.updates[2].image.as_ref().map(|i| i.shape),
        theirs.updates[2].image.as_ref().map(|i| i.shape)
    );
}

#[test]
fn a_change_of_rows_verifies_and_compiles_nothing() {
    let mut engine = engine();
    engine.commit(txn(BASE)).expect("a right configuration");
    let before = engine.compile_stats();
    let commit = engine.commit(txn(MAPPING)).expect("a mapping");
    assert!(!commit.compiled);
    for n in 1..100 {
        let row = MAPPING.replace("10.1.1.1", &format!("10.1.2.{n}"));
        assert!(!engine.commit(txn(&row)).expect("a mapping").compiled);
    }
    assert_eq!(engine.compile_stats(), before);
    let updates = &engine.target().updates[2..];
    assert_eq!(updates.len(), 100);
    assert!(updates.iter().all(|update| update.image.is_none()));
}

#[test]
fn a_shape_that_comes_again_is_compiled_once() {
    let mut engine = engine();
    engine.commit(txn(BASE)).expect("a right configuration");
    let plain = engine.image().shape;
    assert!(engine.commit(txn(ACL)).expect("an ACL").compiled);
    let with_acl = engine.image().shape;
    assert_ne!(plain, with_acl);
    let before = engine.compile_stats();
    assert!(engine.commit(txn(NO_ACL)).expect("no ACL").compiled);
    assert_eq!(engine.image().shape, plain);
    assert!(engine.commit(txn(ACL)).expect("an ACL").compiled);
    assert_eq!(engine.image().shape, with_acl);
    let after = engine.compile_stats();
    assert_eq!(after.images_from_cache, before.images_from_cache + 2);
    assert_eq!(
        (
            after.stages_verified,
            after.stages_from_cache,
            after.native_compiled
        ),
        (
            before.stages_verified,
            before.stages_from_cache,
            before.native_compiled
        )
    );
}

#[test]
fn stages_that_did_not_change_are_not_verified_again() {
    let mut engine = crate::fake::with_cache(None);
    let stages = |engine: &dash_engine::Engine<Fake>| engine.image().object.programs.len() as u64;
    let before = engine.compile_stats();
    engine.commit(txn(BASE)).expect("a right configuration");
    engine.commit(txn(ACL)).expect("an ACL");
    let after = engine.compile_stats();
    let judged = after.stages_verified - before.stages_verified;
    let known = after.stages_from_cache - before.stages_from_cache;
    assert_eq!(judged + known, stages(&engine));
    assert!(
        known > 0,
        "no stage of the other shape was known: {after:?}"
    );
}

#[test]
fn a_verdict_is_of_the_judge_that_was_asked() {
    let dir = tempfile::tempdir().expect("a folder");
    let judged = |judge| {
        let options = Options {
            capacity: crate::fake::capacity(),
            judge,
            cache_dir: Some(dir.path().to_owned()),
            ..Options::default()
        };
        let engine = Engine::new(options, Box::<Fake>::default());
        let stats = engine.expect("every judge accepts it").compile_stats();
        (stats.stages_verified, stats.stages_from_cache)
    };
    let (stages, from_cache) = judged(Judge::Own);
    assert!(stages > 0 && from_cache == 0);
    assert_eq!(judged(Judge::Own), (0, stages));
    assert_eq!(judged(Judge::Prevail), (stages, 0));
    assert_eq!(judged(Judge::Both), (stages, 0));
}

#[test]
fn an_underlay_that_is_refused_leaves_the_one_before() {
    let mut engine = engine();
    let table = |port| UnderlayTable {
        routes: vec![UnderlayRoute {
            prefix: "0.0.0.0/0".parse().expect("a prefix"),
            port,
            next_hop: None,
        }],
        port_macs: vec![[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]],
        ..UnderlayTable::default()
    };
    assert_eq!(engine.set_underlay(table(0)).expect("an underlay"), 2);
    assert_eq!(engine.set_underlay(table(0)).expect("the same"), 2);
    engine.target_mut().refuse = true;
    engine
        .set_underlay(table(1))
        .expect_err("the target refuses");
    engine
        .set_underlay(UnderlayTable::default())
        .expect_err("the target refuses");
    assert_eq!(engine.underlay(), &table(0));
    engine.target_mut().refuse = false;
    assert_eq!(engine.set_underlay(table(1)).expect("an underlay"), 3);
    let update = engine.target().updates.last().expect("an update");
    assert!(update.image.is_none(), "there are routes before and after");
    assert_eq!(update.delta.ops.len(), 1);
}
