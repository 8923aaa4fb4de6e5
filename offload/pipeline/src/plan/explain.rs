//! The objects behind the rows that a packet met: the way back from numbers to names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dash_model::Store;
use dash_model::key::{ObjectKey, RoutingType};
use dash_model::net::{IpPrefix, Mac};
use dash_model::objects::Family;
use dash_wire::tables::TRUSTED_VNI_GLOBAL;
use nic_target::Table;

use super::edit::routing_type_index;
use super::{Planner, acl, inbound};
use crate::model::trace::{FoundBy, LookedUp};

/// What an object's row, or its absence, meant to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The object whose row was found; of a miss, none.
    pub object: Option<ObjectKey>,
    /// In words: the object, or where there was none.
    pub text: String,
}

impl Planner {
    /// Says which object a look-up came to, in the terms of the configuration; `None` where a row is
    /// of no object (the underlay, tables of programs).
    pub fn explain(&self, store: &Store, looked: &LookedUp) -> Option<Explained> {
        let Some(found) = looked.found else {
            return Some(Explained {
                object: None,
                text: self.miss(store, looked)?,
            });
        };
        let object = self.object(store, looked, found)?;
        let mut text = object.to_string();
        if let (Table::Tunnel, Some(member), ObjectKey::Tunnel(name)) =
            (looked.table, looked.num(1), &object)
        {
            let endpoints = store.tunnel(name).map_or(&[][..], |t| &t.endpoints);
            if let Some(endpoint) = endpoints.get(member as usize) {
                text += &format!(
                    " endpoint {endpoint}, {} of {}",
                    member + 1,
                    endpoints.len()
                );
            }
        }
        Some(Explained {
            object: Some(object),
            text,
        })
    }

    fn object(&self, store: &Store, looked: &LookedUp, found: FoundBy) -> Option<ObjectKey> {
        Some(match looked.table {
            Table::Globals => ObjectKey::Appliance(store.appliance()?.0.clone()),
            Table::EniMac => ObjectKey::Eni(store.eni_by_mac(Mac(looked.bytes(0)?))?.0.clone()),
            Table::Eni => ObjectKey::Eni(self.eni_key(looked.num(0)?)?.clone()),
            Table::TrustedVni => match looked.bytes(0)? {
                TRUSTED_VNI_GLOBAL => ObjectKey::Appliance(store.appliance()?.0.clone()),
                eni => {
                    let index = u32::from(u16::from_be_bytes(eni));
                    ObjectKey::Eni(self.eni_key(index)?.clone())
                }
            },
            Table::Route4 | Table::Route4More => {
                let dst = IpAddr::from(Ipv4Addr::from(looked.bytes::<4>(1)?));
                self.route(looked, dst, found)?
            }
            Table::Route6 | Table::Route6More => {
                let dst = IpAddr::from(Ipv6Addr::from(looked.bytes::<16>(1)?));
                self.route(looked, dst, found)?
            }
            Table::Mapping | Table::MappingMore => {
                let vnet = self.vnet(u16::try_from(looked.num(0)?).ok()?)?;
                ObjectKey::VnetMapping(vnet.clone(), mapping_ip(looked)?)
            }
            Table::Inbound => {
                let eni = self.eni_key(looked.num(0)?)?;
                let (network, source) = (looked.num(1)?, Ipv4Addr::from(looked.bytes::<4>(2)?));
                let (vni, protocol) = inbound::parts(network);
                let matching = store.route_rules(eni).filter(|(key, rule)| {
                    let whole = IpPrefix::new(key.source.addr.into(), key.source.len);
                    key.vni.get() == vni
                        && (rule.protocol.is_none() || rule.protocol == protocol)
                        && whole.is_some_and(|p| p.contains(source.into()))
                });
                let matching = matching.map(|(key, _)| key);
                // As `inbound` has it: the lower number, and of equals the inner rule.
                let best =
                    matching.min_by_key(|key| (key.priority, std::cmp::Reverse(key.source.len)))?;
                ObjectKey::RouteRule(best.clone())
            }
            Table::PaValidation => {
                ObjectKey::Vnet(self.vnet(u16::try_from(looked.num(0)?).ok()?)?.clone())
            }
            Table::Acl => {
                let FoundBy::Rule(at) = found else {
                    return None;
                };
                let group = self.acl_group(looked.num(0)?)?;
                let (number, _) = *acl::in_order(store, group).get(at)?;
                ObjectKey::AclRule(group.clone(), number.clone())
            }
            Table::RoutingType => {
                let wanted = looked.num(0)?;
                let kinds = RoutingType::ALL.iter().copied();
                let mut kinds = kinds.filter(|kind| routing_type_index(*kind) == wanted);
                ObjectKey::RoutingType(kinds.next()?)
            }
            Table::MeterRule => {
                let (policy, ip) = (
                    self.meter_policy(looked.num(0)?)?,
                    meter_ip(store, self, looked)?,
                );
                let rules = store.meter_rules(policy);
                let matching = rules.filter(|(_, rule)| rule.prefix.contains(ip));
                // As `priority` has it.
                let (number, _) = matching.min_by_key(|(number, rule)| {
                    let len = std::cmp::Reverse(rule.prefix.prefix_len());
                    (rule.priority, len, *number)
                })?;
                ObjectKey::MeterRule(policy.clone(), number.clone())
            }
            Table::Tunnel => ObjectKey::Tunnel(self.tunnel(looked.num(0)?)?.clone()),
            Table::PortRange => {
                let map = self.port_map(looked.num(0)?)?;
                let port = u16::from_be_bytes(looked.bytes(1)?);
                let mut ranges = store.port_ranges(map).map(|(range, _)| range);
                let range = ranges.find(|range| (range.min..=range.max).contains(&port))?;
                ObjectKey::PortMapRange(map.clone(), range)
            }
            _ => return None,
        })
    }

    fn route(&self, looked: &LookedUp, dst: IpAddr, found: FoundBy) -> Option<ObjectKey> {
        let group = self.route_group(looked.num(0)?)?;
        let FoundBy::Prefix(len) = found else {
            return None;
        };
        Some(ObjectKey::Route(group.clone(), IpPrefix::new(dst, len)?))
    }

    /// Where there was no row.
    fn miss(&self, store: &Store, looked: &LookedUp) -> Option<String> {
        Some(match looked.table {
            Table::EniMac => format!("no ENI has the MAC {}", Mac(looked.bytes(0)?)),
            Table::TrustedVni => match looked.bytes(0)? {
                TRUSTED_VNI_GLOBAL => "not in the appliance's trusted_vnis_list".to_owned(),
                eni => {
                    let eni = self.eni_key(u32::from(u16::from_be_bytes(eni)))?;
                    format!("not in the trusted_vnis_list of DASH_ENI_TABLE:{eni}")
                }
            },
            Table::Route4 | Table::Route6 => {
                let group = self.route_group(looked.num(0)?)?;
                format!("no route of DASH_ROUTE_GROUP_TABLE:{group} covers it")
            }
            Table::Mapping => {
                let vnet = self.vnet(u16::try_from(looked.num(0)?).ok()?)?;
                let ip = mapping_ip(looked)?;
                format!("there is no DASH_VNET_MAPPING_TABLE:{vnet}:{ip}")
            }
            Table::Inbound => {
                let eni = self.eni_key(looked.num(0)?)?;
                let (vni, protocol) = inbound::parts(looked.num(1)?);
                let source = Ipv4Addr::from(looked.bytes::<4>(2)?);
                match protocol {
                    None => format!("no DASH_ROUTE_RULE_TABLE:{eni}:{vni} covers {source}"),
                    Some(protocol) => format!(
                        "no DASH_ROUTE_RULE_TABLE:{eni}:{vni} is for protocol {protocol} and covers {source}"
                    ),
                }
            }
            Table::PaValidation => {
                let vnet = self.vnet(u16::try_from(looked.num(0)?).ok()?)?;
                let source = Ipv4Addr::from(looked.bytes::<4>(1)?);
                format!("no mapping of DASH_VNET_TABLE:{vnet} has the PA {source}")
            }
            Table::Acl => {
                let group = self.acl_group(looked.num(0)?)?;
                let rules = store.acl_rule_count(group);
                format!("none of the {rules} rules of DASH_ACL_GROUP_TABLE:{group} matches")
            }
            Table::MeterRule => {
                let policy = self.meter_policy(looked.num(0)?)?;
                let ip = meter_ip(store, self, looked)?;
                format!("no rule of DASH_METER_POLICY_TABLE:{policy} covers {ip}")
            }
            Table::PortRange => {
                let map = self.port_map(looked.num(0)?)?;
                format!("in no range of DASH_OUTBOUND_PORT_MAP_TABLE:{map}")
            }
            _ => return None,
        })
    }
}

/// The address a meter policy was asked about: IPv4 is in the first bytes.
fn meter_ip(store: &Store, planner: &Planner, looked: &LookedUp) -> Option<IpAddr> {
    let policy = planner.meter_policy(looked.num(0)?)?;
    let ip: [u8; 16] = looked.bytes(1)?;
    let [a, b, c, d, ..] = ip;
    Some(match store.meter_policy(policy)?.family {
        Family::V4 => Ipv4Addr::new(a, b, c, d).into(),
        Family::V6 => Ipv6Addr::from(ip).into(),
    })
}

fn mapping_ip(looked: &LookedUp) -> Option<IpAddr> {
    let ip: [u8; 16] = looked.bytes(2)?;
    let [.., a, b, c, d] = ip;
    Some(match looked.num(1)? {
        0 => Ipv4Addr::new(a, b, c, d).into(),
        _ => Ipv6Addr::from(ip).into(),
    })
}
