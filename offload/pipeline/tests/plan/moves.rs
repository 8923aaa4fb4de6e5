//! Random edits over few names, most of them legal in the store they are made for: every kind of
//! object that the planner plans.

use std::net::IpAddr;

use dash_model::Store;
use dash_model::key::{EniKey, ObjectKey, RouteGroupId, RoutingType, VnetName};
use dash_model::objects::{
    AclAction, AclRule, EncapType, Family, Object, Route, RouteAction, RuleAction,
};
use proptest::prelude::*;

use crate::support::{
    Edit, acl_group, acl_in, acl_out, acl_rule, any, appliance, eni, eni_route, gone, mac, mapping,
    masked, net, port_map, port_range, ports, private_link, route, route_group, routing_type, rule,
    rule_key, service_tunnel, tag, tunnel, v4, vnet,
};

const ENIS: [&str; 5] = ["eni0", "eni1", "eni2", "eni3", "eni4"];
const VNETS: [&str; 4] = ["Vnet0", "Vnet1", "Vnet2", "Vnet3"];
const GROUPS: [&str; 3] = ["rg0", "rg1", "rg2"];
/// Even ones are IPv4, odd ones IPv6; so with tags.
const ACLS: [&str; 4] = ["acl0", "acl1", "acl2", "acl3"];
const TAGS: [&str; 4] = ["tag0", "tag1", "tag2", "tag3"];
const ROUTES: [&str; 6] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.0.5/32",
    "::/0",
    "fd00:1::/32",
];
const SOURCES: [&str; 6] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.128.0.0/9",
    "192.168.0.1/32",
];
const CAS: [&str; 4] = ["10.1.0.5", "10.1.0.6", "fd00:1::5", "::a01:5"];
const PAS: [&str; 3] = ["101.1.2.3", "101.1.2.4", "101.1.2.5"];
const V4_LISTS: [&[&str]; 3] = [&[], &["10.0.0.0/8"], &["10.1.0.0/16", "10.2.3.4/32"]];
const V6_LISTS: [&[&str]; 3] = [&[], &["fd00::/8"], &["fd00:1::/32", "fd00:2::1/128"]];
const TUNNELS: [&str; 3] = ["t0", "t1", "t2"];
const ENDPOINTS: [&str; 4] = ["40.0.0.1", "40.0.0.2", "40.0.0.3", "40.0.0.4"];
const MAPS: [&str; 2] = ["map0", "map1"];
const RANGES: [(u16, u16); 4] = [(1, 1023), (8001, 9000), (9001, 9001), (32768, 65535)];
/// The kinds that make IPv6 of IPv4, and one that does not.
const KINDS: [RoutingType; 3] = [
    RoutingType::ServiceTunnel,
    RoutingType::PrivateLink,
    RoutingType::VnetEncap,
];
const TRUSTED: [&[(u32, u32)]; 4] = [
    &[],
    &[(100, 199)],
    &[(150, 250), (45, 45)],
    &[(1, 0xff_ffff)],
];

#[derive(Clone, Debug)]
pub(crate) enum Move {
    Appliance {
        id: bool,
        sip: u8,
        trusted: usize,
    },
    Vnet(usize),
    DropVnet(usize),
    Eni {
        eni: usize,
        vnet: usize,
        trusted: usize,
        enabled: bool,
    },
    DropEni(usize),
    /// The MAC of an ENI that goes passes to one that comes.
    ReplaceEni {
        old: usize,
        new: usize,
    },
    RouteGroup(usize),
    DropRouteGroup(usize),
    Route {
        group: usize,
        prefix: usize,
        action: u8,
        vnet: usize,
    },
    DropRoute {
        group: usize,
        prefix: usize,
    },
    Bind {
        eni: usize,
        group: Option<usize>,
    },
    Mapping {
        vnet: usize,
        ca: usize,
        pa: usize,
    },
    DropMapping {
        vnet: usize,
        ca: usize,
    },
    Rule {
        eni: usize,
        vni: u32,
        source: usize,
        priority: u32,
        action: u8,
        vnet: usize,
    },
    DropRule {
        eni: usize,
        vni: u32,
        source: usize,
        priority: u32,
    },
    AclRule {
        group: usize,
        number: u8,
        priority: u32,
        list: usize,
        tag: Option<usize>,
        kind: u8,
    },
    DropAclRule {
        group: usize,
        number: u8,
    },
    DropAclGroup(usize),
    AclBind {
        inbound: bool,
        eni: usize,
        stage: u8,
        v4: Option<usize>,
        v6: Option<usize>,
    },
    AclUnbind {
        inbound: bool,
        eni: usize,
        stage: u8,
    },
    Tag {
        tag: usize,
        list: usize,
    },
    DropTag(usize),
    /// What an ENI puts into private links.
    EniLink {
        eni: usize,
        bits: Option<u16>,
        source: Option<u8>,
    },
    RoutingType {
        kind: usize,
        nvgre: bool,
        key: Option<u32>,
    },
    DropRoutingType(usize),
    Tunnel {
        tunnel: usize,
        endpoints: usize,
        nvgre: bool,
        key: u32,
    },
    DropTunnel(usize),
    PortMap(usize),
    DropPortMap(usize),
    PortRange {
        map: usize,
        range: usize,
        service: Option<(u8, u16)>,
    },
    DropPortRange {
        map: usize,
        range: usize,
    },
    /// A route with more than its row.
    RouteMore {
        group: usize,
        prefix: usize,
        service: Option<(u16, bool)>,
        source: Option<u8>,
        tunnel: Option<usize>,
    },
    /// A mapping with more than its row.
    MappingMore {
        vnet: usize,
        ca: usize,
        link: Option<(u16, Option<usize>)>,
        tunnel: Option<usize>,
    },
}

pub(crate) fn moves() -> impl Strategy<Value = Move> {
    let eni = 0..ENIS.len();
    let vnet = 0..VNETS.len();
    let group = 0..GROUPS.len();
    let acl = 0..ACLS.len();
    let tag = 0..TAGS.len();
    let source = 0..SOURCES.len();
    let stage = 1u8..=5;
    prop_oneof![
        1 => (any_bool(), 1u8..4, 0..TRUSTED.len())
            .prop_map(|(id, sip, trusted)| Move::Appliance { id, sip, trusted }),
        3 => vnet.clone().prop_map(Move::Vnet),
        1 => vnet.clone().prop_map(Move::DropVnet),
        5 => (eni.clone(), vnet.clone(), 0..TRUSTED.len(), any_bool())
            .prop_map(|(eni, vnet, trusted, enabled)| Move::Eni { eni, vnet, trusted, enabled }),
        1 => eni.clone().prop_map(Move::DropEni),
        2 => (eni.clone(), eni.clone()).prop_map(|(old, new)| Move::ReplaceEni { old, new }),
        2 => group.clone().prop_map(Move::RouteGroup),
        1 => group.clone().prop_map(Move::DropRouteGroup),
        6 => (group.clone(), 0..ROUTES.len(), 0u8..5, vnet.clone())
            .prop_map(|(group, prefix, action, vnet)| Move::Route { group, prefix, action, vnet }),
        2 => (group.clone(), 0..ROUTES.len())
            .prop_map(|(group, prefix)| Move::DropRoute { group, prefix }),
        3 => (eni.clone(), prop::option::weighted(0.8, group))
            .prop_map(|(eni, group)| Move::Bind { eni, group }),
        6 => (vnet.clone(), 0..CAS.len(), 0..PAS.len())
            .prop_map(|(vnet, ca, pa)| Move::Mapping { vnet, ca, pa }),
        3 => (vnet.clone(), 0..CAS.len()).prop_map(|(vnet, ca)| Move::DropMapping { vnet, ca }),
        8 => (eni.clone(), 45u32..47, source.clone(), 0u32..3, 0u8..4, vnet)
            .prop_map(|(eni, vni, source, priority, action, vnet)| {
                Move::Rule { eni, vni, source, priority, action, vnet }
            }),
        4 => (eni.clone(), 45u32..47, source, 0u32..3).prop_map(|(eni, vni, source, priority)| {
            Move::DropRule { eni, vni, source, priority }
        }),
        6 => (acl.clone(), 0u8..3, 0u32..3, 0usize..3, prop::option::of(tag.clone()), 0u8..8)
            .prop_map(|(group, number, priority, list, tag, kind)| {
                Move::AclRule { group, number, priority, list, tag, kind }
            }),
        2 => (acl.clone(), 0u8..3)
            .prop_map(|(group, number)| Move::DropAclRule { group, number }),
        1 => acl.clone().prop_map(Move::DropAclGroup),
        4 => (any_bool(), eni.clone(), stage.clone(), prop::option::of(acl.clone()), prop::option::of(acl))
            .prop_map(|(inbound, eni, stage, v4, v6)| Move::AclBind { inbound, eni, stage, v4, v6 }),
        2 => (any_bool(), eni, stage)
            .prop_map(|(inbound, eni, stage)| Move::AclUnbind { inbound, eni, stage }),
        3 => (tag.clone(), 0usize..3).prop_map(|(tag, list)| Move::Tag { tag, list }),
        1 => tag.prop_map(Move::DropTag),
        20 => transforms(),
    ]
}

/// Tunnels, port maps, routing types, and what routes and mappings do with them.
fn transforms() -> impl Strategy<Value = Move> {
    use prop::option::{of, weighted};
    let eni = 0..ENIS.len();
    let vnet = 0..VNETS.len();
    let group = 0..GROUPS.len();
    let tunnel = 0..TUNNELS.len();
    let map = 0..MAPS.len();
    let kind = 0..KINDS.len();
    prop_oneof![
        2 => (eni, of(0u16..3), of(1u8..4))
            .prop_map(|(eni, bits, source)| Move::EniLink { eni, bits, source }),
        3 => (kind.clone(), any_bool(), weighted(0.8, 100u32..103))
            .prop_map(|(kind, nvgre, key)| Move::RoutingType { kind, nvgre, key }),
        1 => kind.prop_map(Move::DropRoutingType),
        3 => (tunnel.clone(), 1..=ENDPOINTS.len(), any_bool(), 100u32..103)
            .prop_map(|(tunnel, endpoints, nvgre, key)| {
                Move::Tunnel { tunnel, endpoints, nvgre, key }
            }),
        1 => tunnel.clone().prop_map(Move::DropTunnel),
        1 => map.clone().prop_map(Move::PortMap),
        1 => map.clone().prop_map(Move::DropPortMap),
        3 => (map.clone(), 0..RANGES.len(), of((1u8..4, 1000u16..1003)))
            .prop_map(|(map, range, service)| Move::PortRange { map, range, service }),
        1 => (map.clone(), 0..RANGES.len())
            .prop_map(|(map, range)| Move::DropPortRange { map, range }),
        5 => (group, 0..ROUTES.len(), of((0u16..3, any_bool())), of(1u8..4), of(tunnel.clone()))
            .prop_map(|(group, prefix, service, source, tunnel)| {
                Move::RouteMore { group, prefix, service, source, tunnel }
            }),
        5 => (vnet, 0..CAS.len(), of((0u16..3, of(map))), of(tunnel))
            .prop_map(|(vnet, ca, link, tunnel)| Move::MappingMore { vnet, ca, link, tunnel }),
    ]
}

fn any_bool() -> impl Strategy<Value = bool> {
    proptest::bool::ANY
}

impl Move {
    /// The edits that make the move, with what else it takes in this store.
    pub(crate) fn edits(&self, store: &Store) -> Vec<Edit> {
        let mut edits = Vec::new();
        match *self {
            Self::Appliance { id, sip, trusted } => {
                let id = if id { "100" } else { "200" };
                if let Some((old, _)) = store.appliance()
                    && old.as_str() != id
                {
                    edits.push(gone(ObjectKey::Appliance(old.clone())));
                }
                let address = format!("10.1.0.{sip}");
                edits.push(appliance(
                    id,
                    &address,
                    9 + u32::from(sip),
                    TRUSTED[trusted],
                ));
            }
            Self::Vnet(v) => need_vnet(store, v, &mut edits),
            Self::DropVnet(v) => drop_vnet(store, &VNETS[v].into(), &mut edits),
            Self::Eni {
                eni: e,
                vnet: v,
                trusted,
                enabled,
            } => {
                let (key, mut new) = match store.eni(&ENIS[e].into()) {
                    Some(old) => (ObjectKey::Eni(ENIS[e].into()), old.clone()),
                    None => {
                        need_vnet(store, v, &mut edits);
                        new_eni(store, e, v)
                    }
                };
                new.enabled = enabled;
                new.trusted_vnis = match eni("", 0, "", TRUSTED[trusted]).1 {
                    Some(Object::Eni(template)) => template.trusted_vnis,
                    _ => vec![],
                };
                edits.push((key, Some(Object::Eni(new))));
            }
            Self::DropEni(e) => drop_eni(store, &ENIS[e].into(), &mut edits),
            Self::ReplaceEni { old, new } => {
                let Some(object) = store.eni(&ENIS[old].into()) else {
                    return edits;
                };
                drop_eni(store, &ENIS[old].into(), &mut edits);
                if new != old {
                    drop_eni(store, &ENIS[new].into(), &mut edits);
                    let object = Object::Eni(object.clone());
                    edits.push((ObjectKey::Eni(ENIS[new].into()), Some(object)));
                }
            }
            Self::RouteGroup(g) => edits.push(route_group(GROUPS[g])),
            Self::DropRouteGroup(g) => {
                let group = RouteGroupId::from(GROUPS[g]);
                let binders = store.enis_bound_to(&group).cloned();
                edits.extend(binders.map(|eni| gone(ObjectKey::EniRoute(eni))));
                edits.push(gone(ObjectKey::RouteGroup(group)));
            }
            Self::Route {
                group,
                prefix,
                action,
                vnet,
            } => {
                if store.route_group(&GROUPS[group].into()).is_none() {
                    edits.push(route_group(GROUPS[group]));
                }
                let name: VnetName = VNETS[vnet].into();
                let direct = |overlay_ip| RouteAction::VnetDirect {
                    vnet: name.clone(),
                    overlay_ip,
                };
                let action = match action {
                    0 => RouteAction::Direct,
                    1 => RouteAction::Drop,
                    2 => RouteAction::Vnet(name.clone()),
                    3 => direct(None),
                    _ => direct(CAS[prefix % CAS.len()].parse().ok()),
                };
                if action.vnet().is_some() {
                    need_vnet(store, vnet, &mut edits);
                }
                edits.push(route(GROUPS[group], ROUTES[prefix], action));
            }
            Self::DropRoute { group, prefix } => {
                edits.push(gone(ObjectKey::Route(
                    GROUPS[group].into(),
                    net(ROUTES[prefix]),
                )));
            }
            Self::Bind { eni, group } => match group {
                Some(group) => {
                    if store.route_group(&GROUPS[group].into()).is_none() {
                        edits.push(route_group(GROUPS[group]));
                    }
                    edits.push(eni_route(ENIS[eni], GROUPS[group]));
                }
                None => edits.push(gone(ObjectKey::EniRoute(ENIS[eni].into()))),
            },
            Self::Mapping { vnet, ca, pa } => {
                need_vnet(store, vnet, &mut edits);
                let (key, mut object) = mapping(VNETS[vnet], CAS[ca], PAS[pa]);
                if let Some(Object::VnetMapping(mapping)) = &mut object {
                    mapping.mac = (pa > 0).then_some(mac(7));
                    mapping.use_dst_vni = ca % 2 == 0;
                }
                edits.push((key, object));
            }
            Self::DropMapping { vnet, ca } => {
                let ca: IpAddr = CAS[ca].parse().expect("an address");
                edits.push(gone(ObjectKey::VnetMapping(VNETS[vnet].into(), ca)));
            }
            Self::Rule {
                eni,
                vni,
                source,
                priority,
                action,
                vnet,
            } => {
                let key = rule_key(ENIS[eni], vni, SOURCES[source], priority);
                let object = match action {
                    0 => rule(RuleAction::Drop, None, false),
                    1 => rule(RuleAction::Decap, None, false),
                    _ => {
                        need_vnet(store, vnet, &mut edits);
                        let action = if action == 2 {
                            RuleAction::Decap
                        } else {
                            RuleAction::Drop
                        };
                        rule(action, Some(VNETS[vnet]), true)
                    }
                };
                edits.push((key, object));
            }
            Self::DropRule {
                eni,
                vni,
                source,
                priority,
            } => {
                edits.push(gone(rule_key(ENIS[eni], vni, SOURCES[source], priority)));
            }
            Self::AclRule {
                group,
                number,
                priority,
                list,
                tag,
                kind,
            } => {
                if store.acl_group(&ACLS[group].into()).is_none() {
                    edits.push(acl_group(ACLS[group], family(group)));
                }
                let tags = |wanted: bool| {
                    // The tag of the group's family.
                    let tag = tag.filter(|_| wanted).map(|tag| tag / 2 * 2 + group % 2);
                    tag.map(|tag| TAGS[tag].into()).into_iter().collect()
                };
                let action = if kind & 1 == 0 {
                    AclAction::Permit
                } else {
                    AclAction::Deny
                };
                let rule = AclRule {
                    terminating: kind & 2 == 0,
                    protocols: if kind & 4 == 0 { vec![] } else { vec![6, 17] },
                    src_prefixes: lists(group)[list]
                        .iter()
                        .map(|prefix| net(prefix))
                        .collect(),
                    src_tags: tags(kind & 1 == 0),
                    dst_tags: tags(kind & 1 == 1),
                    dst_ports: if kind & 4 == 0 {
                        vec![]
                    } else {
                        vec![ports(80, 90)]
                    },
                    ..any(priority, action)
                };
                edits.push(acl_rule(ACLS[group], &number.to_string(), rule));
            }
            Self::DropAclRule { group, number } => {
                let number = number.to_string();
                edits.push(gone(ObjectKey::AclRule(
                    ACLS[group].into(),
                    (*number).into(),
                )));
            }
            Self::DropAclGroup(group) => {
                let binds = store.binds_of(&ACLS[group].into()).cloned();
                edits.extend(binds.map(gone));
                edits.push(gone(ObjectKey::AclGroup(ACLS[group].into())));
            }
            Self::AclBind {
                inbound,
                eni,
                stage,
                v4,
                v6,
            } => {
                let of = |group: Option<usize>, odd: usize| group.map(|g| ACLS[g / 2 * 2 + odd]);
                let make = if inbound { acl_in } else { acl_out };
                edits.push(make(ENIS[eni], stage, of(v4, 0), of(v6, 1)));
            }
            Self::AclUnbind {
                inbound,
                eni,
                stage,
            } => edits.push(gone(if inbound {
                ObjectKey::AclIn(ENIS[eni].into(), stage)
            } else {
                ObjectKey::AclOut(ENIS[eni].into(), stage)
            })),
            Self::Tag { tag: t, list } => edits.push(tag(TAGS[t], family(t), lists(t)[list])),
            Self::DropTag(t) => edits.push(gone(ObjectKey::PrefixTag(TAGS[t].into()))),
            Self::RoutingType { .. }
            | Self::DropRoutingType(_)
            | Self::Tunnel { .. }
            | Self::DropTunnel(_)
            | Self::PortMap(_)
            | Self::DropPortMap(_)
            | Self::PortRange { .. }
            | Self::DropPortRange { .. } => self.named(store, &mut edits),
            Self::EniLink { .. } | Self::RouteMore { .. } | Self::MappingMore { .. } => {
                self.naming(store, &mut edits);
            }
        }
        edits
    }

    /// What routes and mappings name.
    fn named(&self, store: &Store, edits: &mut Vec<Edit>) {
        match *self {
            Self::RoutingType { kind, nvgre, key } => {
                edits.push(routing_type(KINDS[kind], encap(nvgre), key));
            }
            Self::DropRoutingType(kind) => edits.push(gone(ObjectKey::RoutingType(KINDS[kind]))),
            Self::Tunnel {
                tunnel: t,
                endpoints,
                nvgre,
                key,
            } => {
                // From either end of the list, so that members change as well as their number.
                let from = if nvgre {
                    ENDPOINTS.len() - endpoints
                } else {
                    0
                };
                let endpoints = &ENDPOINTS[from..from + endpoints];
                edits.push(tunnel(TUNNELS[t], endpoints, encap(nvgre), key));
            }
            Self::DropTunnel(t) => edits.push(gone(ObjectKey::Tunnel(TUNNELS[t].into()))),
            Self::PortMap(map) => edits.push(port_map(MAPS[map])),
            Self::DropPortMap(map) => {
                let name = MAPS[map].into();
                let ranges = store.port_ranges(&name);
                edits.extend(
                    ranges.map(|(ports, _)| gone(ObjectKey::PortMapRange(name.clone(), ports))),
                );
                edits.push(gone(ObjectKey::PortMap(name)));
            }
            Self::PortRange {
                map,
                range,
                service,
            } => {
                need_port_map(store, map, edits);
                let (first, last) = RANGES[range];
                let service = service.map(|(ip, base)| ([60, 0, 0, ip].into(), base));
                edits.push(port_range(MAPS[map], ports(first, last), service));
            }
            Self::DropPortRange { map, range } => {
                let (first, last) = RANGES[range];
                let key = ObjectKey::PortMapRange(MAPS[map].into(), ports(first, last));
                edits.push(gone(key));
            }
            _ => unreachable!("another move"),
        }
    }

    /// What names tunnels, port maps and routing types.
    fn naming(&self, store: &Store, edits: &mut Vec<Edit>) {
        match *self {
            Self::EniLink {
                eni: e,
                bits,
                source,
            } => {
                let Some(old) = store.eni(&ENIS[e].into()) else {
                    return;
                };
                let mut new = old.clone();
                new.pl_sip = bits.map(masked);
                new.pl_underlay_sip = source.map(|last| [10, 8, 0, last].into());
                edits.push((ObjectKey::Eni(ENIS[e].into()), Some(Object::Eni(new))));
            }
            Self::RouteMore {
                group,
                prefix,
                service,
                source,
                tunnel,
            } => {
                if store.route_group(&GROUPS[group].into()).is_none() {
                    edits.push(route_group(GROUPS[group]));
                }
                let action = match service {
                    Some((bits, own)) => {
                        need_encap(store, RoutingType::ServiceTunnel, edits);
                        service_tunnel(bits, own.then(|| v4(PAS[0])))
                    }
                    None => RouteAction::Direct,
                };
                if let Some(t) = tunnel {
                    need_tunnel(store, t, edits);
                }
                let (key, _) = route(GROUPS[group], ROUTES[prefix], RouteAction::Direct);
                let object = Object::Route(Route {
                    underlay_sip: source.map(|last| [10, 8, 1, last].into()),
                    tunnel: tunnel.map(|t| TUNNELS[t].into()),
                    ..action.into()
                });
                edits.push((key, Some(object)));
            }
            Self::MappingMore {
                vnet,
                ca,
                link,
                tunnel,
            } => {
                need_vnet(store, vnet, edits);
                let (key, mut object) = mapping(VNETS[vnet], CAS[ca], PAS[ca % PAS.len()]);
                if let Some(Object::VnetMapping(mapping)) = &mut object {
                    if let Some((bits, map)) = link {
                        need_encap(store, RoutingType::PrivateLink, edits);
                        if let Some(map) = map {
                            need_port_map(store, map, edits);
                        }
                        mapping.private_link = Some(private_link(bits, map.map(|m| MAPS[m])));
                    }
                    if let Some(t) = tunnel {
                        need_tunnel(store, t, edits);
                        mapping.tunnel = Some(TUNNELS[t].into());
                    }
                }
                edits.push((key, object));
            }
            _ => unreachable!("another move"),
        }
    }
}

fn encap(nvgre: bool) -> EncapType {
    if nvgre {
        EncapType::Nvgre
    } else {
        EncapType::Vxlan
    }
}

fn need_encap(store: &Store, kind: RoutingType, edits: &mut Vec<Edit>) {
    if store.routing_type(kind).is_none() {
        edits.push(routing_type(kind, EncapType::Nvgre, Some(100)));
    }
}

fn need_tunnel(store: &Store, t: usize, edits: &mut Vec<Edit>) {
    if store.tunnel(&TUNNELS[t].into()).is_none() {
        edits.push(tunnel(TUNNELS[t], &ENDPOINTS[..1], EncapType::Vxlan, 100));
    }
}

fn need_port_map(store: &Store, map: usize, edits: &mut Vec<Edit>) {
    if store.get(&ObjectKey::PortMap(MAPS[map].into())).is_none() {
        edits.push(port_map(MAPS[map]));
    }
}

fn family(number: usize) -> Family {
    if number.is_multiple_of(2) {
        Family::V4
    } else {
        Family::V6
    }
}

fn lists(number: usize) -> [&'static [&'static str]; 3] {
    match family(number) {
        Family::V4 => V4_LISTS,
        Family::V6 => V6_LISTS,
    }
}

fn need_vnet(store: &Store, v: usize, edits: &mut Vec<Edit>) {
    if store.vnet(&VNETS[v].into()).is_none() {
        edits.push(vnet(VNETS[v], 2000 + v as u32));
    }
}

fn new_eni(store: &Store, e: usize, v: usize) -> (ObjectKey, dash_model::objects::Eni) {
    let free = (1..)
        .find(|&last| store.eni_by_mac(mac(last)).is_none())
        .expect("fewer ENIs than MACs");
    match eni(ENIS[e], free, VNETS[v], &[]) {
        (key, Some(Object::Eni(eni))) => (key, eni),
        _ => unreachable!("an ENI was made"),
    }
}

fn drop_eni(store: &Store, key: &EniKey, edits: &mut Vec<Edit>) {
    if store.eni(key).is_none() {
        return;
    }
    let rules = store.route_rules(key);
    edits.extend(rules.map(|(rule, _)| gone(ObjectKey::RouteRule(rule.clone()))));
    for stage in 1..=5 {
        edits.push(gone(ObjectKey::AclIn(key.clone(), stage)));
        edits.push(gone(ObjectKey::AclOut(key.clone(), stage)));
    }
    edits.push(gone(ObjectKey::EniRoute(key.clone())));
    edits.push(gone(ObjectKey::Eni(key.clone())));
}

fn drop_vnet(store: &Store, name: &VnetName, edits: &mut Vec<Edit>) {
    for eni in store.enis_in_vnet(name) {
        drop_eni(store, eni, edits);
    }
    for eni in store.enis_with_rules_for(name) {
        let rules = store.route_rules(eni);
        let naming = rules.filter(|(_, rule)| rule.vnet.as_ref() == Some(name));
        edits.extend(naming.map(|(rule, _)| gone(ObjectKey::RouteRule(rule.clone()))));
    }
    for group in store.route_groups_into(name) {
        let routes = store.routes(group);
        let naming = routes.filter(|(_, route)| route.action.vnet() == Some(name));
        edits.extend(naming.map(|(prefix, _)| gone(ObjectKey::Route(group.clone(), prefix))));
    }
    let mappings = store.mappings(name);
    edits.extend(mappings.map(|(ca, _)| gone(ObjectKey::VnetMapping(name.clone(), ca))));
    edits.push(gone(ObjectKey::Vnet(name.clone())));
}
