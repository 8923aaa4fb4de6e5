//! The rows themselves: one ordered map a table, nested by parent where a table has one.
//!
//! Rows of a group lie together, so that a group is read, counted and dropped without touching
//! another, and no row repeats its parent's name.

use std::collections::BTreeMap;
use std::collections::btree_map::Iter;
use std::net::IpAddr;
use std::sync::Arc;

use crate::key::{
    AclGroupId, ApplianceId, EniKey, MeterPolicyId, ObjectKey, PortMapId, QosName, RouteGroupId,
    RouteRuleKey, RoutingType, Table, TagName, TunnelName, VnetName,
};
use crate::net::{IpPrefix, PortRange, Vni};
use crate::txn::Entry;

/// Rows by parent, then by the rest of the key. No parent has an empty map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nested<P, C>(BTreeMap<P, BTreeMap<C, Entry>>);

impl<P, C> Default for Nested<P, C> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<P: Ord + Clone, C: Ord + Clone> Nested<P, C> {
    pub(super) fn get<Q, D>(&self, parent: &Q, child: &D) -> Option<&Entry>
    where
        P: std::borrow::Borrow<Q>,
        C: std::borrow::Borrow<D>,
        Q: Ord + ?Sized,
        D: Ord + ?Sized,
    {
        self.0.get(parent)?.get(child)
    }

    fn put(&mut self, parent: &P, child: &C, entry: Option<Entry>) -> Option<Entry> {
        let Some(rows) = self.0.get_mut(parent) else {
            if let Some(entry) = entry {
                let rows = BTreeMap::from([(child.clone(), entry)]);
                self.0.insert(parent.clone(), rows);
            }
            return None;
        };
        let old = put(rows, child, entry);
        if rows.is_empty() {
            self.0.remove(parent);
        }
        old
    }

    pub(super) fn children(&self, parent: &P) -> Iter<'_, C, Entry> {
        self.0
            .get(parent)
            .map_or_else(Iter::default, BTreeMap::iter)
    }

    pub(super) fn count(&self, parent: &P) -> usize {
        self.0.get(parent).map_or(0, BTreeMap::len)
    }

    fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    fn iter(&self) -> impl Iterator<Item = (&P, &C, &Entry)> {
        self.0
            .iter()
            .flat_map(|(parent, rows)| rows.iter().map(move |(child, e)| (parent, child, e)))
    }
}

/// Inserts or removes; gives what was there.
fn put<K: Ord + Clone>(
    rows: &mut BTreeMap<K, Entry>,
    key: &K,
    entry: Option<Entry>,
) -> Option<Entry> {
    match entry {
        Some(entry) => rows.insert(key.clone(), entry),
        None => rows.remove(key),
    }
}

/// Every row. The variant of an entry's object is that of its table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    /// One at most between commits.
    pub(super) appliances: BTreeMap<ApplianceId, Entry>,
    pub(super) routing_types: BTreeMap<RoutingType, Entry>,
    pub(super) vnets: BTreeMap<VnetName, Entry>,
    pub(super) enis: BTreeMap<EniKey, Entry>,
    pub(super) route_groups: BTreeMap<RouteGroupId, Entry>,
    pub(super) routes: Nested<RouteGroupId, IpPrefix>,
    pub(super) eni_routes: BTreeMap<EniKey, Entry>,
    pub(super) route_rules: Nested<EniKey, RouteRuleKey>,
    pub(super) mappings: Nested<VnetName, IpAddr>,
    pub(super) acl_groups: BTreeMap<AclGroupId, Entry>,
    pub(super) acl_rules: Nested<AclGroupId, Arc<str>>,
    pub(super) acl_in: Nested<EniKey, u8>,
    pub(super) acl_out: Nested<EniKey, u8>,
    pub(super) tags: BTreeMap<TagName, Entry>,
    pub(super) tunnels: BTreeMap<TunnelName, Entry>,
    pub(super) port_maps: BTreeMap<PortMapId, Entry>,
    pub(super) port_ranges: Nested<PortMapId, PortRange>,
    pub(super) meter_policies: BTreeMap<MeterPolicyId, Entry>,
    pub(super) meter_rules: Nested<MeterPolicyId, Arc<str>>,
    pub(super) qos: BTreeMap<QosName, Entry>,
    pub(super) opaque: Nested<Arc<str>, Arc<str>>,
    pub(super) pa_validations: BTreeMap<Vni, Entry>,
    pub(super) eni_settings: BTreeMap<EniKey, Entry>,
    pub(super) route_group_settings: BTreeMap<RouteGroupId, Entry>,
    pub(super) switch: BTreeMap<(), Entry>,
}

/// Rows with their keys made up on the fly.
pub(super) type RowIter<'a> = Box<dyn Iterator<Item = (ObjectKey, &'a Entry)> + 'a>;

impl Rows {
    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Entry> {
        match key {
            ObjectKey::Appliance(id) => self.appliances.get(id),
            ObjectKey::RoutingType(kind) => self.routing_types.get(kind),
            ObjectKey::Vnet(vnet) => self.vnets.get(vnet),
            ObjectKey::Eni(eni) => self.enis.get(eni),
            ObjectKey::RouteGroup(group) => self.route_groups.get(group),
            ObjectKey::Route(group, prefix) => self.routes.get(group, prefix),
            ObjectKey::EniRoute(eni) => self.eni_routes.get(eni),
            ObjectKey::RouteRule(rule) => self.route_rules.get(&rule.eni, rule),
            ObjectKey::VnetMapping(vnet, ip) => self.mappings.get(vnet, ip),
            ObjectKey::AclGroup(group) => self.acl_groups.get(group),
            ObjectKey::AclRule(group, rule) => self.acl_rules.get(group, rule),
            ObjectKey::AclIn(eni, stage) => self.acl_in.get(eni, stage),
            ObjectKey::AclOut(eni, stage) => self.acl_out.get(eni, stage),
            ObjectKey::PrefixTag(tag) => self.tags.get(tag),
            ObjectKey::Tunnel(tunnel) => self.tunnels.get(tunnel),
            ObjectKey::PortMap(map) => self.port_maps.get(map),
            ObjectKey::PortMapRange(map, ports) => self.port_ranges.get(map, ports),
            ObjectKey::PaValidation(vni) => self.pa_validations.get(vni),
            ObjectKey::MeterPolicy(policy) => self.meter_policies.get(policy),
            ObjectKey::MeterRule(policy, rule) => self.meter_rules.get(policy, rule),
            ObjectKey::Qos(qos) => self.qos.get(qos),
            ObjectKey::EniSettings(eni) => self.eni_settings.get(eni),
            ObjectKey::Switch => self.switch.get(&()),
            ObjectKey::RouteGroupSettings(group) => self.route_group_settings.get(group),
            ObjectKey::Opaque(table, row) => self.opaque.get(table, row),
        }
    }

    /// Writes a row, or removes it when there is no entry; gives what was there.
    pub(super) fn put(&mut self, key: &ObjectKey, entry: Option<Entry>) -> Option<Entry> {
        match key {
            ObjectKey::Appliance(id) => put(&mut self.appliances, id, entry),
            ObjectKey::RoutingType(kind) => put(&mut self.routing_types, kind, entry),
            ObjectKey::Vnet(vnet) => put(&mut self.vnets, vnet, entry),
            ObjectKey::Eni(eni) => put(&mut self.enis, eni, entry),
            ObjectKey::RouteGroup(group) => put(&mut self.route_groups, group, entry),
            ObjectKey::Route(group, prefix) => self.routes.put(group, prefix, entry),
            ObjectKey::EniRoute(eni) => put(&mut self.eni_routes, eni, entry),
            ObjectKey::RouteRule(rule) => self.route_rules.put(&rule.eni, rule, entry),
            ObjectKey::VnetMapping(vnet, ip) => self.mappings.put(vnet, ip, entry),
            ObjectKey::AclGroup(group) => put(&mut self.acl_groups, group, entry),
            ObjectKey::AclRule(group, rule) => self.acl_rules.put(group, rule, entry),
            ObjectKey::AclIn(eni, stage) => self.acl_in.put(eni, stage, entry),
            ObjectKey::AclOut(eni, stage) => self.acl_out.put(eni, stage, entry),
            ObjectKey::PrefixTag(tag) => put(&mut self.tags, tag, entry),
            ObjectKey::Tunnel(tunnel) => put(&mut self.tunnels, tunnel, entry),
            ObjectKey::PortMap(map) => put(&mut self.port_maps, map, entry),
            ObjectKey::PortMapRange(map, ports) => self.port_ranges.put(map, ports, entry),
            ObjectKey::PaValidation(vni) => put(&mut self.pa_validations, vni, entry),
            ObjectKey::MeterPolicy(policy) => put(&mut self.meter_policies, policy, entry),
            ObjectKey::MeterRule(policy, rule) => self.meter_rules.put(policy, rule, entry),
            ObjectKey::Qos(qos) => put(&mut self.qos, qos, entry),
            ObjectKey::EniSettings(eni) => put(&mut self.eni_settings, eni, entry),
            ObjectKey::Switch => put(&mut self.switch, &(), entry),
            ObjectKey::RouteGroupSettings(group) => {
                put(&mut self.route_group_settings, group, entry)
            }
            ObjectKey::Opaque(table, row) => self.opaque.put(table, row, entry),
        }
    }

    pub(super) fn count(&self, table: Table) -> usize {
        match table {
            Table::Appliance => self.appliances.len(),
            Table::RoutingType => self.routing_types.len(),
            Table::Vnet => self.vnets.len(),
            Table::Eni => self.enis.len(),
            Table::RouteGroup => self.route_groups.len(),
            Table::Route => self.routes.len(),
            Table::EniRoute => self.eni_routes.len(),
            Table::RouteRule => self.route_rules.len(),
            Table::VnetMapping => self.mappings.len(),
            Table::AclGroup => self.acl_groups.len(),
            Table::AclRule => self.acl_rules.len(),
            Table::AclIn => self.acl_in.len(),
            Table::AclOut => self.acl_out.len(),
            Table::PrefixTag => self.tags.len(),
            Table::Tunnel => self.tunnels.len(),
            Table::PortMap => self.port_maps.len(),
            Table::PortMapRange => self.port_ranges.len(),
            Table::PaValidation => self.pa_validations.len(),
            Table::MeterPolicy => self.meter_policies.len(),
            Table::MeterRule => self.meter_rules.len(),
            Table::Qos => self.qos.len(),
            Table::EniSettings => self.eni_settings.len(),
            Table::Switch => self.switch.len(),
            Table::RouteGroupSettings => self.route_group_settings.len(),
        }
    }

    /// Rows of one table, sorted by key.
    pub(super) fn iter_table(&self, table: Table) -> RowIter<'_> {
        fn flat<'a, K: Clone>(
            rows: &'a BTreeMap<K, Entry>,
            key: impl Fn(K) -> ObjectKey + 'a,
        ) -> RowIter<'a> {
            Box::new(rows.iter().map(move |(k, e)| (key(k.clone()), e)))
        }
        fn nested<'a, P: Ord + Clone, C: Ord + Clone>(
            rows: &'a Nested<P, C>,
            key: impl Fn(P, C) -> ObjectKey + 'a,
        ) -> RowIter<'a> {
            Box::new(
                rows.iter()
                    .map(move |(p, c, e)| (key(p.clone(), c.clone()), e)),
            )
        }
        match table {
            Table::Appliance => flat(&self.appliances, ObjectKey::Appliance),
            Table::RoutingType => flat(&self.routing_types, ObjectKey::RoutingType),
            Table::Vnet => flat(&self.vnets, ObjectKey::Vnet),
            Table::Eni => flat(&self.enis, ObjectKey::Eni),
            Table::RouteGroup => flat(&self.route_groups, ObjectKey::RouteGroup),
            Table::Route => nested(&self.routes, ObjectKey::Route),
            Table::EniRoute => flat(&self.eni_routes, ObjectKey::EniRoute),
            Table::RouteRule => nested(&self.route_rules, |_, rule| ObjectKey::RouteRule(rule)),
            Table::VnetMapping => nested(&self.mappings, ObjectKey::VnetMapping),
            Table::AclGroup => flat(&self.acl_groups, ObjectKey::AclGroup),
            Table::AclRule => nested(&self.acl_rules, ObjectKey::AclRule),
            Table::AclIn => nested(&self.acl_in, ObjectKey::AclIn),
            Table::AclOut => nested(&self.acl_out, ObjectKey::AclOut),
            Table::PrefixTag => flat(&self.tags, ObjectKey::PrefixTag),
            Table::Tunnel => flat(&self.tunnels, ObjectKey::Tunnel),
            Table::PortMap => flat(&self.port_maps, ObjectKey::PortMap),
            Table::PortMapRange => nested(&self.port_ranges, ObjectKey::PortMapRange),
            Table::PaValidation => flat(&self.pa_validations, ObjectKey::PaValidation),
            Table::MeterPolicy => flat(&self.meter_policies, ObjectKey::MeterPolicy),
            Table::MeterRule => nested(&self.meter_rules, ObjectKey::MeterRule),
            Table::Qos => flat(&self.qos, ObjectKey::Qos),
            Table::EniSettings => flat(&self.eni_settings, ObjectKey::EniSettings),
            Table::Switch => flat(&self.switch, |()| ObjectKey::Switch),
            Table::RouteGroupSettings => {
                flat(&self.route_group_settings, ObjectKey::RouteGroupSettings)
            }
        }
    }

    /// Rows of one table that is only stored.
    pub(super) fn iter_opaque(&self, table: &Arc<str>) -> RowIter<'_> {
        let table = table.clone();
        Box::new(
            self.opaque
                .children(&table)
                .map(move |(row, e)| (ObjectKey::Opaque(table.clone(), row.clone()), e)),
        )
    }

    /// Names of the tables with rows that are only stored.
    pub(super) fn opaque_tables(&self) -> impl Iterator<Item = &Arc<str>> {
        self.opaque.0.keys()
    }

    /// Every row, sorted by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ObjectKey, &Entry)> {
        Table::ALL
            .into_iter()
            .flat_map(|table| self.iter_table(table))
            .chain(
                self.opaque_tables()
                    .flat_map(|table| self.iter_opaque(table)),
            )
    }

    pub(super) fn len(&self) -> usize {
        let acting: usize = Table::ALL.into_iter().map(|table| self.count(table)).sum();
        acting + self.opaque.len()
    }
}
