//! A store, a planner and the tables of a target that took every plan.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use dash_model::key::{ObjectKey, RouteRuleKey, RoutingType, SourcePrefix};
use dash_model::net::{IpPrefix, Mac, MaskedIp, PortRange, Vni, VniRange};
use dash_model::objects::{
    AclAction, AclBind, AclGroup, AclRule, Appliance, EncapType, Eni, EniMode, EniRoute, Family,
    MeterBits, MeterClass, Object, OutboundLookup, PortMap, PortMapRange, PrefixTag, PrivateLink,
    RouteAction, RouteGroup, RouteRule, RoutingTypeDef, RuleAction, ServiceTunnel, StaticEncap,
    Tunnel, Vnet, VnetMapping,
};
use dash_model::{Changeset, CommitError, Op, Store, StoreOptions, Txn};
use dash_pipeline::plan::{Plan, PlanError, Planner, Settings};
use nic_target::tables::Discipline;
use nic_target::{AclRuleRow, Capacity, Table, TableDelta, TableOp};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A row to write, or to remove.
pub(crate) type Edit = (ObjectKey, Option<Object>);

/// What the tables of a target hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    pub(crate) acl: BTreeMap<u32, Arc<[AclRuleRow]>>,
}

impl Contents {
    /// Applies a delta, and holds it to what every target may expect.
    pub(crate) fn apply(&mut self, delta: &TableDelta) {
        let capacity = Capacity::default();
        let mut seen = HashSet::new();
        let mut putting = false;
        for op in &delta.ops {
            let (table, key, put) = match op {
                TableOp::Put { table, key, .. } => (*table, key.to_vec(), true),
                TableOp::Delete { table, key } => (*table, key.to_vec(), false),
                TableOp::Acl { group, rules } => {
                    assert_ne!(*group, 0);
                    (Table::Acl, group.to_ne_bytes().to_vec(), rules.is_some())
                }
            };
            assert!(put || !putting, "a delete after a put");
            putting |= put;
            assert!(
                seen.insert((table, key.clone(), put)),
                "{table:?} {key:?} twice"
            );
            assert_eq!(table.discipline(), Discipline::Policy);
            match op {
                TableOp::Put { value, .. } => {
                    let def = table.def(&capacity);
                    assert_eq!(key.len(), def.key_size as usize);
                    assert_eq!(value.len(), def.value_size as usize);
                    self.rows.insert((table, key), value.to_vec());
                }
                TableOp::Delete { .. } => {
                    let old = self.rows.remove(&(table, key.clone()));
                    assert!(old.is_some(), "{table:?} {key:?} was not there");
                }
                TableOp::Acl { group, rules } => match rules {
                    Some(rules) => {
                        self.acl.insert(*group, rules.clone());
                    }
                    None => assert!(self.acl.remove(group).is_some()),
                },
            }
        }
    }

    /// A row, read as what it is.
    pub(crate) fn get<R: FromBytes>(
        &self,
        table: Table,
        key: &(impl IntoBytes + Immutable),
    ) -> Option<R> {
        let row = self.rows.get(&(table, key.as_bytes().to_vec()))?;
        Some(R::read_from_bytes(row).expect("a row of the table's size"))
    }

    /// Every row of a table, by key.
    pub(crate) fn rows<R: FromBytes>(&self, table: Table) -> Vec<R> {
        let rows = self.rows.iter().filter(|((t, _), _)| *t == table);
        rows.map(|(_, row)| R::read_from_bytes(row).expect("a row of the table's size"))
            .collect()
    }

    pub(crate) fn count(&self, table: Table) -> usize {
        self.rows.keys().filter(|(t, _)| *t == table).count()
    }
}

#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) planner: Planner,
    pub(crate) tables: Contents,
}

/// Why a transaction did not go through; then it left no trace.
#[derive(Debug)]
#[expect(dead_code, reason = "for the text of a failed test")]
pub(crate) enum Refused {
    ByStore(CommitError),
    ByPlanner(PlanError),
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with_capacity(&Capacity::default())
    }

    pub(crate) fn with_capacity(capacity: &Capacity) -> Self {
        Self {
            store: Store::new(StoreOptions {
                update_bound_groups: true,
                ..StoreOptions::default()
            }),
            planner: Planner::new(Settings::default(), capacity),
            tables: Contents::default(),
        }
    }

    pub(crate) fn try_commit(&mut self, edits: &[Edit]) -> Result<(Changeset, Plan), Refused> {
        let changes = self.store.commit(txn(edits)).map_err(Refused::ByStore)?;
        match self.planner.plan(&self.store, &changes) {
            Ok(plan) => {
                self.tables.apply(&plan.delta);
                Ok((changes, plan))
            }
            Err(error) => {
                self.store.revert(&changes);
                Err(Refused::ByPlanner(error))
            }
        }
    }

    pub(crate) fn commit(&mut self, edits: &[Edit]) -> Plan {
        self.try_commit(edits).expect("a legal transaction").1
    }
}

fn txn(edits: &[Edit]) -> Txn {
    let ops = edits.iter().enumerate();
    ops.map(|(index, (key, object))| match object {
        Some(object) => Op::set(index, key.clone(), object.clone(), *b"raw"),
        None => Op::del(index, key.clone()),
    })
    .collect()
}

pub(crate) fn vni(v: u32) -> Vni {
    Vni::new(v).expect("24 bits")
}

pub(crate) fn net(text: &str) -> IpPrefix {
    text.parse().expect("a prefix")
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("an IPv4 address")
}

pub(crate) fn mac(last: u8) -> Mac {
    Mac([0xf4, 0x93, 0x9f, 0xef, 0xc4, last])
}

fn ranges(list: &[(u32, u32)]) -> Vec<VniRange> {
    let range = |&(min, max): &(u32, u32)| VniRange {
        min: vni(min),
        max: vni(max),
    };
    list.iter().map(range).collect()
}

pub(crate) fn gone(key: ObjectKey) -> Edit {
    (key, None)
}

pub(crate) fn appliance(id: &str, sip: &str, vm_vni: u32, trusted: &[(u32, u32)]) -> Edit {
    let object = Object::Appliance(Appliance {
        sip: v4(sip),
        vm_vni: vni(vm_vni),
        trusted_vnis: ranges(trusted),
        outbound_lookup: OutboundLookup::SrcMac,
    });
    (ObjectKey::Appliance(id.into()), Some(object))
}

pub(crate) fn vnet(name: &str, number: u32) -> Edit {
    let object = Object::Vnet(Vnet { vni: vni(number) });
    (ObjectKey::Vnet(name.into()), Some(object))
}

pub(crate) fn eni(key: &str, last: u8, vnet: &str, trusted: &[(u32, u32)]) -> Edit {
    let object = Object::Eni(Eni {
        mac: mac(last),
        underlay_ip: [10, 9, 0, last].into(),
        enabled: true,
        vnet: Some(vnet.into()),
        trusted_vnis: ranges(trusted),
        pl_sip: None,
        pl_underlay_sip: None,
        mode: EniMode::Vm,
        disable_fast_path: false,
        v4_meter_policy: None,
        v6_meter_policy: None,
        qos: None,
    });
    (ObjectKey::Eni(key.into()), Some(object))
}

pub(crate) fn route_group(group: &str) -> Edit {
    let object = Object::RouteGroup(RouteGroup::default());
    (ObjectKey::RouteGroup(group.into()), Some(object))
}

pub(crate) fn route(group: &str, prefix: &str, action: RouteAction) -> Edit {
    let key = ObjectKey::Route(group.into(), net(prefix));
    (key, Some(Object::Route(action.into())))
}

pub(crate) fn eni_route(eni: &str, group: &str) -> Edit {
    let object = Object::EniRoute(EniRoute {
        group: group.into(),
    });
    (ObjectKey::EniRoute(eni.into()), Some(object))
}

pub(crate) fn mapping(vnet: &str, ca: &str, pa: &str) -> Edit {
    let object = Object::VnetMapping(VnetMapping {
        underlay_ip: v4(pa),
        mac: None,
        use_dst_vni: false,
        private_link: None,
        tunnel: None,
        meter_or: MeterClass::default(),
    });
    (ObjectKey::VnetMapping(vnet.into(), ip(ca)), Some(object))
}

pub(crate) fn rule_key(eni: &str, number: u32, source: &str, priority: u32) -> ObjectKey {
    let source = net(source);
    let IpAddr::V4(addr) = source.addr() else {
        panic!("the underlay is IPv4");
    };
    ObjectKey::RouteRule(RouteRuleKey {
        eni: eni.into(),
        vni: vni(number),
        source: SourcePrefix::new(addr, source.prefix_len()).expect("a length for IPv4"),
        priority,
    })
}

pub(crate) fn rule(action: RuleAction, vnet: Option<&str>, pa_validation: bool) -> Option<Object> {
    Some(Object::RouteRule(RouteRule {
        action,
        protocol: None,
        vnet: vnet.map(Into::into),
        pa_validation,
        meter: MeterBits::default(),
    }))
}

pub(crate) fn acl_group(group: &str, family: Family) -> Edit {
    let object = Object::AclGroup(AclGroup { family });
    (ObjectKey::AclGroup(group.into()), Some(object))
}

pub(crate) fn acl_rule(group: &str, number: &str, rule: AclRule) -> Edit {
    let key = ObjectKey::AclRule(group.into(), number.into());
    (key, Some(Object::AclRule(Arc::new(rule))))
}

/// A final verdict on everything.
pub(crate) fn any(priority: u32, action: AclAction) -> AclRule {
    AclRule {
        priority,
        action,
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

pub(crate) fn ports(min: u16, max: u16) -> PortRange {
    PortRange { min, max }
}

pub(crate) fn bind(v4: Option<&str>, v6: Option<&str>) -> AclBind {
    AclBind {
        v4: v4.map(Into::into),
        v6: v6.map(Into::into),
    }
}

pub(crate) fn acl_out(eni: &str, stage: u8, v4: Option<&str>, v6: Option<&str>) -> Edit {
    let key = ObjectKey::AclOut(eni.into(), stage);
    (key, Some(Object::AclOut(bind(v4, v6))))
}

pub(crate) fn acl_in(eni: &str, stage: u8, v4: Option<&str>, v6: Option<&str>) -> Edit {
    let key = ObjectKey::AclIn(eni.into(), stage);
    (key, Some(Object::AclIn(bind(v4, v6))))
}

pub(crate) fn tag(name: &str, family: Family, prefixes: &[&str]) -> Edit {
    let object = Object::PrefixTag(Arc::new(PrefixTag {
        family,
        prefixes: prefixes.iter().map(|prefix| net(prefix)).collect(),
    }));
    (ObjectKey::PrefixTag(name.into()), Some(object))
}

/// 16 bits of an IPv6 address, and their mask.
pub(crate) fn masked(bits: u16) -> MaskedIp {
    MaskedIp {
        addr: [0xfd00, 0, bits, 0, 0, 0, 0, 0].into(),
        mask: [0xffff, 0, 0xffff, 0, 0, 0, 0, 0].into(),
    }
}

pub(crate) fn routing_type(kind: RoutingType, encap: EncapType, key: Option<u32>) -> Edit {
    let object = Object::RoutingType(RoutingTypeDef {
        static_encap: Some(StaticEncap {
            kind: encap,
            key: key.map(vni),
        }),
    });
    (ObjectKey::RoutingType(kind), Some(object))
}

pub(crate) fn tunnel(name: &str, endpoints: &[&str], kind: EncapType, key: u32) -> Edit {
    let object = Object::Tunnel(Tunnel {
        endpoints: endpoints.iter().map(|ip| v4(ip)).collect(),
        kind,
        key: vni(key),
        meter_or: MeterClass::default(),
    });
    (ObjectKey::Tunnel(name.into()), Some(object))
}

pub(crate) fn port_map(name: &str) -> Edit {
    let object = Object::PortMap(PortMap);
    (ObjectKey::PortMap(name.into()), Some(object))
}

/// A range that leads to a backend and its first port, or nowhere of its own.
pub(crate) fn port_range(map: &str, range: PortRange, service: Option<(Ipv4Addr, u16)>) -> Edit {
    let object = match service {
        Some((backend_ip, backend_port_base)) => PortMapRange::Service {
            backend_ip,
            backend_port_base,
        },
        None => PortMapRange::Skip,
    };
    let key = ObjectKey::PortMapRange(map.into(), range);
    (key, Some(Object::PortMapRange(object)))
}

pub(crate) fn service_tunnel(bits: u16, underlay_dip: Option<Ipv4Addr>) -> RouteAction {
    RouteAction::ServiceTunnel(Box::new(ServiceTunnel {
        overlay_sip: masked(bits),
        overlay_dip: masked(bits + 1),
        underlay_dip,
    }))
}

pub(crate) fn private_link(bits: u16, port_map: Option<&str>) -> Box<PrivateLink> {
    Box::new(PrivateLink {
        overlay_sip: masked(bits),
        overlay_dip: masked(bits + 1),
        port_map: port_map.map(Into::into),
        nsg: false,
    })
}
