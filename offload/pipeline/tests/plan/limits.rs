//! QoS profiles: rows of the ENIs that name them, live, and the shapes they make.

use dash_model::ObjectKey;
use dash_model::objects::{EniSettings, Object, Qos};
use dash_wire::tables::{QosRow, qos};
use nic_target::Table;

use crate::support::*;

fn profile(name: &str, bandwidth_kbps: u32, flows: u32) -> Edit {
    let object = Object::Qos(Qos {
        bandwidth_kbps,
        connections_per_second: 0,
        flows,
    });
    (ObjectKey::Qos(name.into()), Some(object))
}

fn named(key: &str, last: u8, qos: Option<&str>) -> Edit {
    let (key, object) = eni(key, last, "v", &[]);
    let Some(Object::Eni(mut object)) = object else {
        panic!("an ENI")
    };
    object.qos = qos.map(Into::into);
    (key, Some(Object::Eni(object)))
}

fn flows(bench: &Bench, key: &str) -> Option<u32> {
    let index = bench.planner.eni_index(&key.into()).expect("an index");
    let row: QosRow = bench.tables.get(Table::Qos, &index)?;
    Some(row.flows)
}

#[test]
fn an_enis_row_is_its_profile_however_the_two_come_and_change() {
    let mut bench = Bench::new();
    let plan = bench.commit(&[
        appliance("100", "10.1.0.5", 9, &[]),
        vnet("v", 2001),
        named("a", 1, Some("q")),
        named("b", 2, Some("q")),
        named("c", 3, None),
    ]);
    assert!(!plan.shape.admission && !plan.shape.bandwidth);
    assert_eq!(bench.tables.count(Table::Qos), 0);
    // The profile comes after the ENIs that name it.
    let plan = bench.commit(&[profile("q", 0, 10)]);
    assert!(plan.shape.admission && !plan.shape.bandwidth);
    let all = |bench: &Bench| ["a", "b", "c"].map(|key| flows(bench, key));
    assert_eq!(all(&bench), [Some(10), Some(10), None]);
    // It changes, and one ENI takes another.
    let plan = bench.commit(&[
        profile("q", 8_000, 20),
        profile("other", 0, 5),
        named("b", 2, Some("other")),
    ]);
    assert!(plan.shape.admission && plan.shape.bandwidth);
    assert_eq!(all(&bench), [Some(20), Some(5), None]);
    // An ENI without limits, and one that is gone, have no row.
    let plan = bench.commit(&[named("a", 1, None), gone(ObjectKey::Eni("b".into()))]);
    assert!(!plan.shape.admission && !plan.shape.bandwidth);
    assert_eq!(bench.tables.count(Table::Qos), 0);
    // A profile of zeros limits nothing.
    bench.commit(&[profile("zero", 0, 0), named("a", 1, Some("zero"))]);
    assert_eq!(bench.tables.count(Table::Qos), 0);
}

#[test]
fn packets_a_second_are_of_the_enis_settings_whatever_profile_it_has() {
    let rate = |n| {
        let own = EniSettings {
            packets_per_second: Some(n),
            ..EniSettings::default()
        };
        let key = ObjectKey::EniSettings("a".into());
        (key, Some(Object::EniSettings(own)))
    };
    let mut bench = Bench::new();
    bench.commit(&[
        appliance("100", "10.1.0.5", 9, &[]),
        vnet("v", 2001),
        named("a", 1, None),
        named("b", 2, Some("q")),
        profile("q", 0, 10),
    ]);
    let plan = bench.commit(&[rate(1_000)]);
    assert!(plan.shape.packet_rate && plan.shape.admission && !plan.shape.bandwidth);
    let cost = |bench: &Bench| {
        let index = bench.planner.eni_index(&"a".into()).expect("an index");
        let row: QosRow = bench.tables.get(Table::Qos, &index)?;
        Some((row.packet_cost >> qos::COST_BITS, row.flows))
    };
    assert_eq!(cost(&bench), Some((1_000_000, 0)));
    bench.commit(&[named("a", 1, Some("q"))]);
    assert_eq!(cost(&bench), Some((1_000_000, 10)));
    let plan = bench.commit(&[rate(2_000)]);
    assert!(!plan.shape_changed, "a change is a row");
    assert_eq!(cost(&bench), Some((500_000, 10)));
    let plan = bench.commit(&[rate(0)]);
    assert!(!plan.shape.packet_rate && plan.shape.admission);
    assert_eq!(cost(&bench), Some((0, 10)));
    bench.commit(&[rate(1)]);
    let plan = bench.commit(&[gone(ObjectKey::Eni("a".into()))]);
    assert!(!plan.shape.packet_rate);
    assert_eq!(bench.tables.count(Table::Qos), 1);
}
