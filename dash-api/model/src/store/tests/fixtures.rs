//! Rows by name, and one configuration with every table in it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::key::ObjectKey;
use crate::net::{IpPrefix, Mac, Vni};
use crate::objects::{
    AclAction, AclBind, AclGroup, AclRule, Appliance, EncapType, Eni, EniMode, EniRoute,
    EniSettings, Family, MeterBits, MeterClass, MeterPolicy, MeterRule, Object, OutboundLookup,
    PrefixTag, Qos, RouteAction, RouteGroup, RouteGroupSettings, RouteRule, RoutingTypeDef,
    RuleAction, StaticEncap, Switch, Vnet, VnetMapping,
};
use crate::store::{Store, StoreOptions};
use crate::txn::{Op, Txn};

pub(super) fn key(text: &str) -> ObjectKey {
    text.parse().expect(text)
}

/// The bytes stand for the object: unlike objects have unlike bytes.
pub(super) fn set(text: &str, object: Object) -> Op {
    let raw = format!("{object:?}");
    Op::set(0, key(text), object, raw.into_bytes())
}

pub(super) fn del(text: &str) -> Op {
    Op::del(0, key(text))
}

/// Gives each op its position as index.
pub(super) fn txn(ops: impl IntoIterator<Item = Op>) -> Txn {
    ops.into_iter()
        .enumerate()
        .map(|(index, op)| Op { index, ..op })
        .collect()
}

pub(super) fn vni(n: u32) -> Vni {
    Vni::new(n).expect("24 bits")
}

pub(super) fn prefix(text: &str) -> IpPrefix {
    text.parse().expect(text)
}

pub(super) fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

pub(super) fn appliance() -> Appliance {
    Appliance {
        sip: Ipv4Addr::new(10, 1, 0, 5),
        vm_vni: vni(9),
        trusted_vnis: vec![],
        outbound_lookup: OutboundLookup::SrcMac,
    }
}

pub(super) fn vnet(n: u32) -> Object {
    Object::Vnet(Vnet { vni: vni(n) })
}

pub(super) fn eni(last: u8, vnet: &str) -> Eni {
    Eni {
        mac: mac(last),
        underlay_ip: Ipv4Addr::new(25, 1, 1, last),
        enabled: true,
        vnet: Some(vnet.into()),
        trusted_vnis: vec![],
        pl_sip: None,
        pl_underlay_sip: None,
        mode: EniMode::Vm,
        disable_fast_path: false,
        v4_meter_policy: None,
        v6_meter_policy: None,
        qos: None,
    }
}

pub(super) fn to_vnet(vnet: &str) -> Object {
    Object::Route(RouteAction::Vnet(vnet.into()).into())
}

pub(super) fn direct() -> Object {
    Object::Route(RouteAction::Direct.into())
}

pub(super) fn group() -> Object {
    Object::RouteGroup(RouteGroup {
        version: "1".to_owned(),
    })
}

pub(super) fn bind_routes(group: &str) -> Object {
    Object::EniRoute(EniRoute {
        group: group.into(),
    })
}

pub(super) fn decap(vnet: Option<&str>, pa_validation: bool) -> Object {
    Object::RouteRule(RouteRule {
        action: RuleAction::Decap,
        protocol: None,
        vnet: vnet.map(Into::into),
        pa_validation,
        meter: MeterBits::default(),
    })
}

pub(super) fn mapping(last: u8) -> Object {
    Object::VnetMapping(VnetMapping {
        underlay_ip: Ipv4Addr::new(101, 1, 2, last),
        mac: Some(mac(last)),
        use_dst_vni: false,
        private_link: None,
        tunnel: None,
        meter_or: MeterClass::default(),
    })
}

pub(super) fn acl_group(family: Family) -> Object {
    Object::AclGroup(AclGroup { family })
}

pub(super) fn permit() -> AclRule {
    AclRule {
        priority: 1,
        action: AclAction::Permit,
        terminating: true,
        protocols: vec![],
        src_prefixes: vec![],
        dst_prefixes: vec![],
        src_ports: vec![],
        dst_ports: vec![],
        src_tags: vec![],
        dst_tags: vec![],
    }
}

pub(super) fn rule(rule: AclRule) -> Object {
    Object::AclRule(Arc::new(rule))
}

pub(super) fn bind(v4: Option<&str>, v6: Option<&str>) -> AclBind {
    AclBind {
        v4: v4.map(Into::into),
        v6: v6.map(Into::into),
    }
}

pub(super) fn qos(bandwidth_kbps: u32) -> Object {
    Object::Qos(Qos {
        bandwidth_kbps,
        ..Qos::default()
    })
}

pub(super) fn meter_policy(family: Family) -> Object {
    Object::MeterPolicy(MeterPolicy { family })
}

pub(super) fn class(class: u64) -> MeterClass {
    MeterClass::new(class).expect("a class of an ENI")
}

pub(super) fn meter_rule(to: &str, number: u64) -> Object {
    Object::MeterRule(MeterRule {
        priority: 1,
        prefix: prefix(to),
        class: class(number),
    })
}

pub(super) fn eni_settings(disable_fast_path: bool) -> Object {
    Object::EniSettings(EniSettings {
        disable_fast_path: Some(disable_fast_path),
        ..EniSettings::default()
    })
}

pub(super) fn group_settings(disabled: bool) -> Object {
    Object::RouteGroupSettings(RouteGroupSettings { disabled })
}

pub(super) fn switch(vxlan_port: Option<u16>) -> Object {
    Object::Switch(Switch {
        vxlan_port,
        ..Switch::default()
    })
}

pub(super) fn tag(family: Family, prefixes: &[&str]) -> Object {
    Object::PrefixTag(Arc::new(PrefixTag {
        family,
        prefixes: prefixes.iter().map(|p| prefix(p)).collect(),
    }))
}

/// Every table, every kind of reference; `e2`, `g2`, `a2` are there but not bound.
pub(super) fn full_config() -> Vec<Op> {
    vec![
        set("DASH_APPLIANCE_TABLE:100", Object::Appliance(appliance())),
        set(
            "DASH_ROUTING_TYPE_TABLE:vnet_encap",
            Object::RoutingType(RoutingTypeDef {
                static_encap: Some(StaticEncap {
                    kind: EncapType::Vxlan,
                    key: None,
                }),
            }),
        ),
        set("DASH_VNET_TABLE:v1", vnet(2001)),
        set("DASH_VNET_TABLE:v2", vnet(2002)),
        set("DASH_ENI_TABLE:e1", Object::Eni(eni(1, "v1"))),
        set("DASH_ENI_TABLE:e2", Object::Eni(eni(2, "v1"))),
        set("DASH_ROUTE_GROUP_TABLE:g1", group()),
        set("DASH_ROUTE_GROUP_TABLE:g2", group()),
        set("DASH_ROUTE_TABLE:g1:10.1.0.0/16", to_vnet("v1")),
        set(
            "DASH_ROUTE_TABLE:g1:fd00::/64",
            Object::Route(
                RouteAction::VnetDirect {
                    vnet: "v2".into(),
                    overlay_ip: None,
                }
                .into(),
            ),
        ),
        set("DASH_ROUTE_TABLE:g1:0.0.0.0/0", direct()),
        set("DASH_ROUTE_TABLE:g2:10.1.0.0/16", direct()),
        set("DASH_ENI_ROUTE_TABLE:e1", bind_routes("g1")),
        set(
            "DASH_ROUTE_RULE_TABLE:e1:2001:101.1.2.0/24:1",
            decap(Some("v1"), true),
        ),
        set(
            "DASH_ROUTE_RULE_TABLE:e1:2002:101.1.3.0/24:1",
            decap(None, false),
        ),
        set("DASH_VNET_MAPPING_TABLE:v1:10.1.0.1", mapping(1)),
        set("DASH_VNET_MAPPING_TABLE:v1:10.1.0.2", mapping(2)),
        set("DASH_VNET_MAPPING_TABLE:v2:fd00::1", mapping(3)),
        set(
            "DASH_PREFIX_TAG_TABLE:t4",
            tag(Family::V4, &["10.7.0.0/16"]),
        ),
        set("DASH_ACL_GROUP_TABLE:a4", acl_group(Family::V4)),
        set(
            "DASH_ACL_RULE_TABLE:a4:1",
            rule(AclRule {
                src_prefixes: vec![prefix("10.0.0.0/8")],
                src_tags: vec!["t4".into(), "t4".into()],
                dst_tags: vec!["t4".into()],
                ..permit()
            }),
        ),
        set("DASH_ACL_RULE_TABLE:a4:2", rule(permit())),
        set("DASH_ACL_GROUP_TABLE:a6", acl_group(Family::V6)),
        set("DASH_ACL_RULE_TABLE:a6:1", rule(permit())),
        set("DASH_ACL_GROUP_TABLE:a2", acl_group(Family::V4)),
        set(
            "DASH_ACL_IN_TABLE:e1:1",
            Object::AclIn(bind(Some("a4"), Some("a6"))),
        ),
        set(
            "DASH_ACL_OUT_TABLE:e1:3",
            Object::AclOut(bind(Some("a4"), None)),
        ),
        set("DASH_QOS_TABLE:q1", qos(10_000)),
        set("DASH_HA_SET_TABLE:h1", Object::Opaque),
        set("SWITCH_TABLE:switch", switch(Some(4790))),
        set("DASHWIRE_ENI_TABLE:e1", eni_settings(true)),
        set("DASHWIRE_ROUTE_GROUP_TABLE:g1", group_settings(true)),
        set("DASH_METER_POLICY_TABLE:m1", meter_policy(Family::V4)),
        set("DASH_METER_RULE_TABLE:m1:1", meter_rule("10.2.0.0/16", 520)),
    ]
}

/// A store that holds [`full_config`].
pub(super) fn full_store(options: StoreOptions) -> Store {
    let mut store = Store::new(options);
    let changes = store
        .commit(txn(full_config()))
        .expect("a good configuration");
    assert_eq!(changes.changes.len(), full_config().len());
    assert_eq!(changes.warnings, []);
    store
}
