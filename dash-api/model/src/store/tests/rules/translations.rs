//! Translations, tunnels and port maps.

use super::*;

fn some_bits() -> MaskedIp {
    MaskedIp {
        addr: "fd00::".parse().expect("an address"),
        mask: "ffff::".parse().expect("an address"),
    }
}

fn service_tunnel() -> Object {
    let tunnel = ServiceTunnel {
        overlay_sip: some_bits(),
        overlay_dip: some_bits(),
        underlay_dip: None,
    };
    Object::Route(RouteAction::ServiceTunnel(Box::new(tunnel)).into())
}

fn private_link(port_map: Option<&str>) -> Object {
    let Object::VnetMapping(plain) = mapping(1) else {
        panic!("a mapping")
    };
    Object::VnetMapping(VnetMapping {
        private_link: Some(Box::new(PrivateLink {
            overlay_sip: some_bits(),
            overlay_dip: some_bits(),
            port_map: port_map.map(Into::into),
            nsg: false,
        })),
        ..plain
    })
}

fn routing_type(key: Option<u32>) -> Object {
    Object::RoutingType(RoutingTypeDef {
        static_encap: Some(StaticEncap {
            kind: EncapType::Nvgre,
            key: key.map(vni),
        }),
    })
}

const SERVICES: &str = "DASH_ROUTING_TYPE_TABLE:servicetunnel";
const LINKS: &str = "DASH_ROUTING_TYPE_TABLE:privatelink";

#[test]
fn a_translation_needs_its_routing_type_s_encap_and_an_ipv4_key() {
    let mut store = full_store(LIVE);
    let service = "DASH_ROUTE_TABLE:g1:50.1.2.0/24";
    let link = "DASH_VNET_MAPPING_TABLE:v1:10.1.9.9";
    refused(
        &mut store,
        vec![
            set(service, service_tunnel()),
            set(link, private_link(None)),
        ],
        &[(0, missing(SERVICES)), (1, missing(LINKS))],
    );
    let no_key = |kind| Reason::NoStaticEncap { kind };
    refused(
        &mut store,
        vec![
            set(service, service_tunnel()),
            set(SERVICES, routing_type(None)),
        ],
        &[
            (0, no_key(RoutingType::ServiceTunnel)),
            (1, no_key(RoutingType::ServiceTunnel)),
        ],
    );
    accepted(
        &mut store,
        vec![
            set(service, service_tunnel()),
            set(SERVICES, routing_type(Some(100))),
            set(link, private_link(None)),
            set(LINKS, routing_type(Some(100))),
        ],
    );
    refused(
        &mut store,
        vec![
            set("DASH_ROUTE_TABLE:g1:fd01::/64", service_tunnel()),
            set("DASH_VNET_MAPPING_TABLE:v1:fd01::1", private_link(None)),
        ],
        &[
            (
                0,
                Reason::TranslatesIpv4 {
                    kind: RoutingType::ServiceTunnel,
                },
            ),
            (
                1,
                Reason::TranslatesIpv4 {
                    kind: RoutingType::PrivateLink,
                },
            ),
        ],
    );
    // Neither can what they use go, or lose its encap.
    refused(
        &mut store,
        vec![del(SERVICES), set(LINKS, routing_type(None))],
        &[
            (0, in_use(service, 1)),
            (1, no_key(RoutingType::PrivateLink)),
        ],
    );
    accepted(
        &mut store,
        vec![del(service), del(SERVICES), del(link), del(LINKS)],
    );
}

#[test]
fn a_tunnel_stays_while_a_route_or_a_mapping_names_it() {
    let mut store = full_store(LIVE);
    let tunnel = |endpoints: &[Ipv4Addr]| {
        Object::Tunnel(Tunnel {
            endpoints: endpoints.to_vec(),
            kind: EncapType::Vxlan,
            key: vni(100),
            meter_or: MeterClass::default(),
        })
    };
    let (route, link) = (
        "DASH_ROUTE_TABLE:g1:50.1.2.0/24",
        "DASH_VNET_MAPPING_TABLE:v1:10.1.9.9",
    );
    let users = || {
        let Object::VnetMapping(plain) = mapping(1) else {
            panic!("a mapping")
        };
        vec![
            set(
                route,
                Object::Route(Route {
                    tunnel: Some("t".into()),
                    ..RouteAction::Direct.into()
                }),
            ),
            set(
                link,
                Object::VnetMapping(VnetMapping {
                    tunnel: Some("t".into()),
                    ..plain
                }),
            ),
        ]
    };
    let absent = missing("DASH_TUNNEL_TABLE:t");
    refused(&mut store, users(), &[(0, absent.clone()), (1, absent)]);
    let ends = [Ipv4Addr::new(80, 80, 80, 80)];
    let mut ops = vec![set("DASH_TUNNEL_TABLE:t", tunnel(&ends))];
    ops.extend(users());
    accepted(&mut store, ops);
    refused(
        &mut store,
        vec![set("DASH_TUNNEL_TABLE:t", tunnel(&[]))],
        &[(0, Reason::NoEndpoint)],
    );
    refused(
        &mut store,
        vec![del("DASH_TUNNEL_TABLE:t")],
        &[(0, in_use(link, 2))],
    );
    accepted(&mut store, vec![del(link)]);
    refused(
        &mut store,
        vec![del("DASH_TUNNEL_TABLE:t")],
        &[(0, in_use(route, 1))],
    );
    accepted(&mut store, vec![del(route), del("DASH_TUNNEL_TABLE:t")]);
}

#[test]
fn port_maps_and_their_ranges() {
    let mut store = full_store(LIVE);
    let range = |ports: &str| {
        let key = format!("DASH_OUTBOUND_PORT_MAP_RANGE_TABLE:m:{ports}");
        set(&key, Object::PortMapRange(PortMapRange::Skip))
    };
    let (map, link) = (
        "DASH_OUTBOUND_PORT_MAP_TABLE:m",
        "DASH_VNET_MAPPING_TABLE:v1:10.1.9.9",
    );
    let linked = vec![
        set(LINKS, routing_type(Some(100))),
        set(link, private_link(Some("m"))),
    ];
    refused(
        &mut store,
        [linked.clone(), vec![range("1-2")]].concat(),
        &[(1, missing(map)), (2, missing(map))],
    );
    let whole = vec![set(map, Object::PortMap(PortMap)), range("8001-9000")];
    accepted(&mut store, [linked, whole].concat());
    for ports in ["9000-9001", "8000-8001", "1-65535", "8500-8500"] {
        let meets = Reason::PortsMeet {
            other: key("DASH_OUTBOUND_PORT_MAP_RANGE_TABLE:m:8001-9000"),
        };
        refused(&mut store, vec![range(ports)], &[(0, meets)]);
    }
    accepted(&mut store, vec![range("8000-8000"), range("9001-9001")]);
    refused(&mut store, vec![del(map)], &[(0, in_use(link, 4))]);
    accepted(&mut store, vec![del(link)]);
    let first = "DASH_OUTBOUND_PORT_MAP_RANGE_TABLE:m:8000-8000";
    refused(&mut store, vec![del(map)], &[(0, in_use(first, 3))]);
}
