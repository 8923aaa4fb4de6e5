//! Service tunnels, private links, tunnels and port maps: rows, and what the shape keeps of them.

use dash_model::key::{ObjectKey, RoutingType};
use dash_model::net::{MaskedIp, PortRange};
use dash_model::objects::{
    EncapType, MeterClass, Object, PortMap, PortMapRange, PrivateLink, Route, RouteAction,
    RoutingTypeDef, ServiceTunnel, StaticEncap, Tunnel, VnetMapping,
};
use dash_pipeline::plan::FlowNeeds;
use dash_wire::tables::{
    MappingKey, MappingMoreRow, MappingRow, PortRangeKey, PortRangeRow, Route4Key, RouteMoreRow,
    RouteRow, RoutingTypeRow, TunnelKey, TunnelRow, encap, mapping_flags, route_action,
    route_flags,
};
use nic_target::Table;

use crate::support::{Bench, Edit, appliance, gone, mapping, net, route_group, v4, vnet, vni};

const SIP: u128 = 0xfd00_0108_0000_d204_0000_0200_0000_0000;
const LOW: u128 = 0xffff_ffff;

fn masked(addr: u128, mask: u128) -> MaskedIp {
    MaskedIp {
        addr: addr.into(),
        mask: mask.into(),
    }
}

fn routing_type(kind: RoutingType, encap: EncapType) -> Edit {
    let def = RoutingTypeDef {
        static_encap: Some(StaticEncap {
            kind: encap,
            key: Some(vni(100)),
        }),
    };
    (ObjectKey::RoutingType(kind), Some(Object::RoutingType(def)))
}

fn service(tunnel: Option<&str>) -> Edit {
    let action = RouteAction::ServiceTunnel(Box::new(ServiceTunnel {
        // Bits outside of the mask do not count.
        overlay_sip: masked(SIP | 7, !LOW),
        overlay_dip: masked(SIP | 9, u128::MAX),
        underlay_dip: None,
    }));
    let route = Route {
        underlay_sip: Some(v4("40.1.2.1")),
        tunnel: tunnel.map(Into::into),
        ..action.into()
    };
    let key = ObjectKey::Route("rg".into(), net("50.1.2.0/24"));
    (key, Some(Object::Route(route)))
}

fn tunnel(endpoints: &[&str]) -> Edit {
    let tunnel = Tunnel {
        endpoints: endpoints.iter().map(|ip| v4(ip)).collect(),
        kind: EncapType::Nvgre,
        key: vni(7),
        meter_or: MeterClass::default(),
    };
    (ObjectKey::Tunnel("t".into()), Some(Object::Tunnel(tunnel)))
}

fn link(port_map: Option<&str>) -> Edit {
    let (key, object) = mapping("v", "10.2.0.100", "101.1.2.3");
    let Some(Object::VnetMapping(plain)) = object else {
        panic!("a mapping")
    };
    let link = PrivateLink {
        // Here they do.
        overlay_sip: masked(SIP | 7, !LOW),
        overlay_dip: masked(SIP | 9, u128::MAX),
        port_map: port_map.map(Into::into),
        nsg: false,
    };
    let mapping = VnetMapping {
        private_link: Some(Box::new(link)),
        ..plain
    };
    (key, Some(Object::VnetMapping(mapping)))
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.commit(&[
        appliance("100", "10.1.0.5", 9, &[]),
        vnet("v", 2001),
        route_group("rg"),
    ]);
    bench
}

const ROUTE: [u8; 4] = [50, 1, 2, 0];

fn route_key(bench: &Bench) -> Route4Key {
    Route4Key {
        prefix_len: 32 + 24,
        group: bench.planner.route_group_id(&"rg".into()).expect("an id"),
        dst: ROUTE,
    }
}

fn mapping_key(bench: &Bench) -> MappingKey {
    let mut ip = [0; 16];
    ip[12..].copy_from_slice(&[10, 2, 0, 100]);
    MappingKey {
        vnet: bench.planner.vnet_id(&"v".into()).expect("an id"),
        v6: 0,
        pad: 0,
        ip,
    }
}

#[test]
fn a_service_tunnel_is_a_route_a_row_beside_it_and_its_routing_type() {
    let mut bench = bench();
    let plan = bench.commit(&[
        routing_type(RoutingType::ServiceTunnel, EncapType::Vxlan),
        service(None),
    ]);
    let needs = FlowNeeds {
        translate: true,
        ..FlowNeeds::default()
    };
    assert_eq!(plan.shape.flows, needs);
    assert!(plan.shape.service_tunnel && plan.shape.route_more && !plan.shape.tunnel);
    let key = route_key(&bench);
    let row: RouteRow = bench.tables.get(Table::Route4, &key).expect("a route");
    assert_eq!(row.action, route_action::SERVICE_TUNNEL);
    assert_eq!(row.flags, route_flags::MORE);
    let more: RouteMoreRow = bench.tables.get(Table::Route4More, &key).expect("a row");
    assert_eq!(
        more,
        RouteMoreRow {
            underlay_sip: [40, 1, 2, 1],
            sip_keep: LOW.to_be_bytes(),
            sip_set: SIP.to_be_bytes(),
            dip_keep: [0; 16],
            dip_set: (SIP | 9).to_be_bytes(),
            ..RouteMoreRow::default()
        }
    );
    let row: RoutingTypeRow = bench
        .tables
        .get(Table::RoutingType, &8u32)
        .expect("an encap");
    assert_eq!((row.encap, row.key), (encap::VXLAN, 100));

    bench.commit(&[gone(ObjectKey::Route("rg".into(), net("50.1.2.0/24")))]);
    assert_eq!(bench.tables.count(Table::Route4More), 0);
}

#[test]
fn a_private_link_has_a_row_beside_its_mapping_and_its_ports_are_prefixes() {
    let mut bench = bench();
    let range = |min, max| ObjectKey::PortMapRange("m".into(), PortRange { min, max });
    let service = PortMapRange::Service {
        backend_ip: v4("60.60.60.1"),
        backend_port_base: 42001,
    };
    let plan = bench.commit(&[
        routing_type(RoutingType::PrivateLink, EncapType::Nvgre),
        (
            ObjectKey::PortMap("m".into()),
            Some(Object::PortMap(PortMap)),
        ),
        (range(8000, 8003), Some(Object::PortMapRange(service))),
        (range(9, 9), Some(Object::PortMapRange(PortMapRange::Skip))),
        link(Some("m")),
    ]);
    assert!(plan.shape.private_link && plan.shape.mapping_more && plan.shape.port_map);
    assert!(plan.shape.flows.nvgre && plan.shape.flows.translate && !plan.shape.flows.u1);
    let key = mapping_key(&bench);
    let row: MappingRow = bench.tables.get(Table::Mapping, &key).expect("a mapping");
    assert_eq!(row.flags, mapping_flags::PRIVATE_LINK | mapping_flags::MORE);
    let more: MappingMoreRow = bench.tables.get(Table::MappingMore, &key).expect("a row");
    assert_eq!((more.tunnel, more.port_map), (0, 1));
    assert_eq!(more.sip_set, (SIP | 7).to_be_bytes());
    assert_eq!((more.sip_keep, more.dip_keep), (LOW.to_be_bytes(), [0; 16]));
    let ports = PortRangeKey {
        prefix_len: 32 + 14,
        map: 1,
        port: 8000u16.to_be_bytes(),
        pad: [0; 2],
    };
    let found: PortRangeRow = bench.tables.get(Table::PortRange, &ports).expect("a range");
    assert_eq!((found.match_base, found.backend_base), (8000, 42001));
    assert_eq!(bench.tables.count(Table::PortRange), 2);
    bench.commit(&[link(None), gone(range(8000, 8003)), gone(range(9, 9))]);
    assert_eq!(bench.tables.count(Table::PortRange), 0);
    bench.commit(&[mapping("v", "10.2.0.100", "101.1.2.3")]);
    assert_eq!(bench.tables.count(Table::MappingMore), 0);
}

#[test]
fn a_tunnel_has_a_row_an_endpoint() {
    let mut bench = bench();
    let plan = bench.commit(&[
        routing_type(RoutingType::ServiceTunnel, EncapType::Vxlan),
        service(Some("t")),
        tunnel(&["10.10.10.10", "90.90.90.90"]),
    ]);
    assert!(plan.shape.tunnel && plan.shape.flows.nvgre && plan.shape.flows.u1);
    let row = |bench: &Bench, member| -> Option<TunnelRow> {
        bench
            .tables
            .get(Table::Tunnel, &TunnelKey { tunnel: 1, member })
    };
    let second = row(&bench, 1).expect("two endpoints");
    assert_eq!((second.dip, second.members), ([90, 90, 90, 90], 2));
    assert_eq!((second.vni, second.encap), (7, encap::NVGRE));
    bench.commit(&[tunnel(&["11.11.11.11"])]);
    assert_eq!(row(&bench, 0).expect("one endpoint").members, 1);
    assert_eq!(row(&bench, 1), None);
}

#[test]
fn flows_keep_their_code_when_the_objects_are_gone_unless_the_plan_is_taken_back() {
    let mut bench = bench();
    let edits = [
        routing_type(RoutingType::ServiceTunnel, EncapType::Nvgre),
        service(None),
    ];
    let (changes, plan) = bench.try_commit(&edits).expect("a legal transaction");
    assert!(plan.shape_changed && plan.shape.flows.pair());
    bench.store.revert(&changes);
    let back = bench
        .planner
        .take_back(&bench.store, &changes)
        .expect("the way back");
    bench.tables.apply(&back.delta);
    assert_eq!(back.shape.flows, FlowNeeds::default());
    assert!(back.shape_changed);

    bench.commit(&edits);
    let plan = bench.commit(&[
        gone(ObjectKey::Route("rg".into(), net("50.1.2.0/24"))),
        gone(ObjectKey::RoutingType(RoutingType::ServiceTunnel)),
    ]);
    assert!(!plan.shape.service_tunnel && !plan.shape.route_more);
    assert!(plan.shape.flows.translate && plan.shape.flows.nvgre && !plan.shape.flows.u1);
}
