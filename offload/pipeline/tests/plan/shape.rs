//! What changes code and what changes rows only.

use dash_model::key::ObjectKey;
use dash_model::objects::{AclAction, Family, RouteAction, RuleAction};
use dash_pipeline::plan::Shape;

use crate::support::{
    Bench, acl_group, acl_in, acl_out, acl_rule, any, appliance, eni, eni_route, gone, mapping,
    route, route_group, rule, rule_key, tag, vnet,
};

/// Two ENIs with a bound ACL and routes.
fn card() -> Bench {
    let mut bench = Bench::new();
    let plan = bench.commit(&[
        appliance("100", "10.1.0.5", 9, &[]),
        vnet("Vnet1", 2001),
        eni("eni0", 1, "Vnet1", &[]),
        eni("eni1", 2, "Vnet1", &[]),
        acl_group("g", Family::V4),
        acl_rule("g", "1", any(1, AclAction::Permit)),
        route_group("rg"),
        eni_route("eni0", "rg"),
    ]);
    assert_eq!(plan.shape, Shape::default());
    assert!(plan.shape_changed, "the first plan always needs code");
    bench
}

#[test]
fn rows_alone_never_change_the_shape() {
    let mut bench = card();
    bench.commit(&[acl_out("eni0", 1, Some("g"), None)]);
    let edits = [
        mapping("Vnet1", "10.1.0.1", "101.1.2.3"),
        mapping("Vnet1", "10.1.0.1", "101.1.2.4"),
        route("rg", "10.0.0.0/8", RouteAction::Vnet("Vnet1".into())),
        route("rg", "10.0.0.0/8", RouteAction::Drop),
        (
            rule_key("eni0", 45, "10.0.0.0/8", 1),
            rule(RuleAction::Decap, None, false),
        ),
        (
            rule_key("eni0", 45, "10.0.0.0/8", 1),
            rule(RuleAction::Drop, None, false),
        ),
        tag("t", Family::V4, &["10.0.0.0/8"]),
        acl_rule("g", "2", any(2, AclAction::Deny)),
        eni_route("eni1", "rg"),
        vnet("Vnet2", 2002),
        eni("eni2", 3, "Vnet2", &[]),
        acl_out("eni1", 1, Some("g"), None),
        appliance("100", "10.1.0.6", 10, &[]),
        gone(ObjectKey::AclOut("eni0".into(), 1)),
        gone(ObjectKey::EniRoute("eni1".into())),
        gone(ObjectKey::VnetMapping(
            "Vnet1".into(),
            "10.1.0.1".parse().expect("an address"),
        )),
    ];
    for edit in edits {
        let plan = bench.commit(std::slice::from_ref(&edit));
        assert!(!plan.shape_changed, "{edit:?}");
        assert_eq!(plan.shape.acl_out, 1);
    }
}

#[test]
fn the_first_and_the_last_bind_of_a_stage_change_it() {
    let mut bench = card();
    let plan = bench.commit(&[acl_out("eni0", 5, Some("g"), None)]);
    assert!(plan.shape_changed);
    assert_eq!((plan.shape.acl_out, plan.shape.acl_in), (0b1_0000, 0));
    let plan = bench.commit(&[acl_in("eni1", 1, Some("g"), None)]);
    assert!(plan.shape_changed);
    assert_eq!((plan.shape.acl_out, plan.shape.acl_in), (0b1_0000, 1));
    // Binding no group binds nothing.
    let plan = bench.commit(&[acl_in("eni0", 2, None, None)]);
    assert!(!plan.shape_changed);
    let plan = bench.commit(&[acl_in("eni0", 1, Some("g"), None)]);
    assert!(!plan.shape_changed);
    let plan = bench.commit(&[gone(ObjectKey::AclIn("eni1".into(), 1))]);
    assert!(!plan.shape_changed);
    let plan = bench.commit(&[acl_in("eni0", 1, None, None)]);
    assert!(plan.shape_changed);
    assert_eq!((plan.shape.acl_out, plan.shape.acl_in), (0b1_0000, 0));
}

#[test]
fn the_first_owner_of_trusted_vnis_and_the_last_change_it() {
    let mut bench = card();
    let plan = bench.commit(&[eni("eni1", 2, "Vnet1", &[(45, 46)])]);
    assert!(plan.shape_changed && plan.shape.trusted_vnis);
    let plan = bench.commit(&[appliance("100", "10.1.0.5", 9, &[(1, 1)])]);
    assert!(!plan.shape_changed);
    let plan = bench.commit(&[gone(ObjectKey::Eni("eni1".into()))]);
    assert!(!plan.shape_changed && plan.shape.trusted_vnis);
    let plan = bench.commit(&[appliance("100", "10.1.0.5", 9, &[])]);
    assert!(plan.shape_changed && !plan.shape.trusted_vnis);
}

#[test]
fn a_rule_that_validates_pas_changes_it_and_one_that_drops_does_not() {
    let mut bench = card();
    let key = || rule_key("eni0", 45, "10.0.0.0/8", 1);
    let plan = bench.commit(&[(key(), rule(RuleAction::Drop, Some("Vnet1"), true))]);
    assert!(!plan.shape_changed);
    let plan = bench.commit(&[(key(), rule(RuleAction::Decap, Some("Vnet1"), true))]);
    assert!(plan.shape_changed && plan.shape.inbound_pa_validation);
    let plan = bench.commit(&[(key(), rule(RuleAction::Decap, Some("Vnet1"), false))]);
    assert!(plan.shape_changed && !plan.shape.inbound_pa_validation);
}
