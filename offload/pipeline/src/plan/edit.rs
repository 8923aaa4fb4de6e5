//! One object's way out of the rows, and in.

use dash_model::Store;
use dash_model::key::{ObjectKey, RoutingType};
use dash_model::objects::Object;
use dash_wire::tables::{EniMacKey, TRUSTED_VNI_GLOBAL};
use nic_target::Table;

use super::ops::Ops;
use super::{Edit, Planner, rows, trusted, tunnels};

impl Planner {
    /// Takes out what stands for an object that is gone or about to be replaced.
    pub(super) fn withdraw(&mut self, edit: &Edit<'_>, old: &Object, ops: &mut Ops) {
        let gone = edit.new.is_none();
        self.census.remove(edit.key, old);
        match (edit.key, old) {
            (ObjectKey::Appliance(_), Object::Appliance(_)) => {
                trusted::remove(edit, TRUSTED_VNI_GLOBAL, ops);
            }
            (ObjectKey::Eni(key), Object::Eni(eni)) => {
                let index = self.ids.eni(key);
                trusted::remove(edit, trusted::owner(index), ops);
                if gone {
                    self.enis.remove(&index);
                    self.limits.remove(index, ops);
                    ops.delete_index(Table::Eni, index);
                    ops.delete(Table::EniMac, &eni_mac(eni.mac.0));
                }
            }
            (ObjectKey::Route(group, prefix), Object::Route(route)) => {
                let group = self.ids.route_group(group);
                if gone {
                    rows::delete_route(group, prefix, ops);
                }
                if rows::route_has_more(route) {
                    rows::delete_route_more(group, prefix, ops);
                }
            }
            (ObjectKey::Tunnel(name), Object::Tunnel(tunnel)) => {
                tunnels::delete(self.ids.tunnel(name), tunnel, ops);
            }
            (ObjectKey::PortMapRange(map, ports), Object::PortMapRange(_)) => {
                tunnels::delete_range(self.ids.port_map(map), *ports, ops);
            }
            (ObjectKey::RoutingType(kind), Object::RoutingType(def))
                if rows::routing_type(def).is_some() =>
            {
                ops.delete_index(Table::RoutingType, routing_type_index(*kind));
            }
            (ObjectKey::VnetMapping(vnet, ip), Object::VnetMapping(mapping)) => {
                let vnet = self.ids.vnet(vnet);
                self.pas.release(vnet, mapping.underlay_ip);
                let key = rows::mapping_key(vnet, *ip);
                if gone {
                    ops.delete(Table::Mapping, &key);
                }
                if rows::mapping_has_more(mapping) {
                    ops.delete(Table::MappingMore, &key);
                }
            }
            (ObjectKey::RouteRule(key), Object::RouteRule(rule)) => {
                let eni = self.ids.eni(&key.eni);
                self.inbound.remove(eni, key, rule.protocol);
            }
            (ObjectKey::MeterRule(policy, number), Object::MeterRule(rule)) => {
                let policy = self.ids.meter_policy(policy);
                self.meter_rules.remove(policy, number, rule);
            }
            _ => {}
        }
    }

    /// Puts in what stands for an object that is new or was withdrawn.
    pub(super) fn place(&mut self, store: &Store, edit: &Edit<'_>, new: &Object, ops: &mut Ops) {
        self.census.add(edit.key, new);
        match (edit.key, new) {
            (ObjectKey::Appliance(_), Object::Appliance(_)) => {
                trusted::add(edit, TRUSTED_VNI_GLOBAL, ops);
            }
            (ObjectKey::Eni(key), Object::Eni(eni)) => {
                let index = self.ids.eni(key);
                trusted::add(edit, trusted::owner(index), ops);
                if edit.old.is_none() {
                    ops.put(Table::EniMac, &eni_mac(eni.mac.0), &index);
                }
            }
            (ObjectKey::Route(group, prefix), Object::Route(route)) => {
                let row = rows::route(store, &self.ids, route);
                let group = self.ids.route_group(group);
                rows::put_route(&self.ids, group, prefix, (&row, route), ops);
            }
            (ObjectKey::Tunnel(name), Object::Tunnel(tunnel)) => {
                tunnels::put(self.ids.tunnel(name), tunnel, ops);
            }
            (ObjectKey::PortMapRange(map, ports), Object::PortMapRange(range)) => {
                tunnels::put_range(self.ids.port_map(map), *ports, range, ops);
            }
            (ObjectKey::RoutingType(kind), Object::RoutingType(def)) => {
                if let Some(row) = rows::routing_type(def) {
                    ops.put_index(Table::RoutingType, routing_type_index(*kind), &row);
                }
            }
            (ObjectKey::VnetMapping(vnet, ip), Object::VnetMapping(mapping)) => {
                let vnet = self.ids.vnet(vnet);
                self.pas.hold(vnet, mapping.underlay_ip);
                let key = rows::mapping_key(vnet, *ip);
                ops.put(Table::Mapping, &key, &rows::mapping(mapping));
                if rows::mapping_has_more(mapping) {
                    let more = rows::mapping_more(&self.ids, mapping);
                    ops.put(Table::MappingMore, &key, &more);
                }
            }
            (ObjectKey::RouteRule(key), Object::RouteRule(rule)) => {
                let row = rows::inbound(&self.ids, rule);
                let eni = self.ids.eni(&key.eni);
                self.inbound.insert(eni, key, rule.protocol, row);
            }
            (ObjectKey::MeterRule(policy, number), Object::MeterRule(rule)) => {
                let policy = self.ids.meter_policy(policy);
                self.meter_rules.insert(policy, number, rule);
            }
            _ => {}
        }
    }
}

/// A routing type's number in `dash.route_type.RoutingType`.
pub(super) fn routing_type_index(kind: RoutingType) -> u32 {
    let at = RoutingType::ALL.iter().position(|other| *other == kind);
    // 0 is the unspecified one.
    at.map_or(0, |at| at as u32 + 1)
}

fn eni_mac(mac: [u8; 6]) -> EniMacKey {
    EniMacKey { mac, pad: [0; 2] }
}
