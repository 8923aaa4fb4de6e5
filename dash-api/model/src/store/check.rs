//! What makes a written row wrong. Every check reads the state the transaction leads to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Store;
use super::commit::{BoundBefore, Written};
use super::refs::Uses;
use crate::error::{OpError, Reason};
use crate::key::{
    AclGroupId, EniKey, MeterPolicyId, ObjectKey, PortMapId, RoutingType, TagName, TunnelName,
    VnetName,
};
use crate::net::{IpPrefix, PortRange, VniRange};
use crate::objects::{
    AclBind, AclGroup, AclRule, Eni, Family, MeterPolicy, MeterRule, Object, PrefixTag, Route,
    RouteRule, Vnet, VnetMapping,
};
use crate::txn::Warning;

impl Store {
    /// Judges one row of the transaction.
    pub(super) fn check(
        &self,
        row: &Written,
        bound: &BoundBefore,
        errors: &mut Vec<OpError>,
        warnings: &mut Vec<Warning>,
    ) {
        // Rows that went with their group: the group's own deletion is judged.
        if row.cascaded {
            return;
        }
        let change = &row.change;
        let mut judge = Judge {
            store: self,
            index: row.index,
            key: &change.key,
            errors,
            warnings,
        };
        if change.changes_meaning() && judge.frozen(bound) {
            return;
        }
        let old = change.old.as_ref().map(|e| &e.object);
        match (old, &change.new) {
            (_, Some(new)) => judge.present(old, &new.object),
            (Some(_), None) => judge.absent(),
            (None, None) => {}
        }
    }
}

/// The row being judged and where its faults go.
struct Judge<'a> {
    store: &'a Store,
    index: usize,
    key: &'a ObjectKey,
    errors: &'a mut Vec<OpError>,
    warnings: &'a mut Vec<Warning>,
}

impl Judge<'_> {
    fn refuse(&mut self, reason: Reason) {
        self.errors.push(OpError {
            index: self.index,
            key: self.key.clone(),
            reason,
        });
    }

    fn refuse_if(&mut self, wrong: bool, reason: impl FnOnce() -> Reason) {
        if wrong {
            self.refuse(reason());
        }
    }

    fn warn(&mut self, text: String) {
        self.warnings.push(Warning {
            index: self.index,
            key: self.key.clone(),
            text,
        });
    }

    /// Refuses the row unless another exists.
    fn needs(&mut self, parent: ObjectKey) {
        if self.store.get(&parent).is_none() {
            self.refuse(Reason::MissingParent { parent });
        }
    }

    fn needs_vnet(&mut self, vnet: &VnetName) {
        self.needs(ObjectKey::Vnet(vnet.clone()));
    }

    fn needs_eni(&mut self, eni: &EniKey) {
        self.needs(ObjectKey::Eni(eni.clone()));
    }

    /// Refuses a change inside a group that is bound before and after the transaction (A24).
    fn frozen(&mut self, bound: &BoundBefore) -> bool {
        if self.store.options.update_bound_groups || bound.is_empty() {
            return false;
        }
        let refs = &self.store.refs;
        let (group, binder) = match self.key {
            ObjectKey::Route(group, _) => (
                ObjectKey::RouteGroup(group.clone()),
                refs.route_group_enis
                    .first(group)
                    .cloned()
                    .map(ObjectKey::EniRoute),
            ),
            ObjectKey::AclRule(group, _) => (
                ObjectKey::AclGroup(group.clone()),
                refs.acl_group_binds.first(group).cloned(),
            ),
            ObjectKey::MeterRule(policy, _) => (
                ObjectKey::MeterPolicy(policy.clone()),
                refs.meter_policy_enis
                    .first(policy)
                    .cloned()
                    .map(ObjectKey::Eni),
            ),
            _ => return false,
        };
        match binder {
            Some(binder) if bound.contains(&group) => {
                self.refuse(Reason::GroupBound { group, binder });
                true
            }
            _ => false,
        }
    }

    /// Judges a row that is there afterwards, new, changed or as it was: its parents may have
    /// gone in the same transaction.
    fn present(&mut self, old: Option<&Object>, new: &Object) {
        match (self.key, new) {
            (ObjectKey::Appliance(id), Object::Appliance(appliance)) => {
                let other = self.store.rows.appliances.keys().find(|&other| other != id);
                if let (Some(existing), None) = (other, old) {
                    let existing = existing.clone();
                    self.refuse(Reason::SecondAppliance { existing });
                }
                self.vni_ranges(&appliance.trusted_vnis);
            }
            (ObjectKey::Vnet(_), Object::Vnet(vnet)) => self.vnet(old, vnet),
            (ObjectKey::Eni(key), Object::Eni(eni)) => self.eni(key, old, eni),
            (ObjectKey::Route(group, prefix), Object::Route(route)) => {
                self.needs(ObjectKey::RouteGroup(group.clone()));
                if let Some(vnet) = route.action.vnet() {
                    self.needs_vnet(vnet);
                }
                self.encap(route.encap_of(), prefix.addr());
                self.needs_tunnel(route.tunnel.as_ref());
            }
            (ObjectKey::EniRoute(eni), Object::EniRoute(bind)) => {
                self.needs_eni(eni);
                self.needs(ObjectKey::RouteGroup(bind.group.clone()));
            }
            (ObjectKey::RouteRule(key), Object::RouteRule(rule)) => self.route_rule(&key.eni, rule),
            (ObjectKey::VnetMapping(vnet, ip), Object::VnetMapping(mapping)) => {
                self.needs_vnet(vnet);
                self.encap(mapping.encap_of(), *ip);
                self.needs_tunnel(mapping.tunnel.as_ref());
                if let Some(map) = mapping.port_map() {
                    self.needs(ObjectKey::PortMap(map.clone()));
                }
            }
            (ObjectKey::RoutingType(kind), Object::RoutingType(_))
                if self.store.refs.encap_users.is_used(kind) =>
            {
                self.has_encap(*kind);
            }
            (ObjectKey::Tunnel(_), Object::Tunnel(tunnel)) => {
                self.refuse_if(tunnel.endpoints.is_empty(), || Reason::NoEndpoint);
            }
            (ObjectKey::PortMapRange(map, ports), Object::PortMapRange(_)) => {
                self.needs(ObjectKey::PortMap(map.clone()));
                self.meets_none(map, *ports);
            }
            (ObjectKey::AclGroup(_), Object::AclGroup(group)) => {
                if let Some(Object::AclGroup(old)) = old {
                    self.same("ip_version", &old.family, &group.family);
                }
            }
            (ObjectKey::AclRule(group, _), Object::AclRule(rule)) => self.acl_rule(group, rule),
            (ObjectKey::AclIn(eni, _), Object::AclIn(bind))
            | (ObjectKey::AclOut(eni, _), Object::AclOut(bind)) => self.acl_bind(eni, bind),
            (ObjectKey::PrefixTag(tag), Object::PrefixTag(prefixes)) => {
                self.tag(tag, old, prefixes);
            }
            (ObjectKey::MeterPolicy(_), Object::MeterPolicy(policy)) => {
                if let Some(Object::MeterPolicy(old)) = old {
                    self.same("ip_version", &old.family, &policy.family);
                }
            }
            (ObjectKey::MeterRule(policy, _), Object::MeterRule(rule)) => {
                self.meter_rule(policy, rule);
            }
            (ObjectKey::EniSettings(eni), Object::EniSettings(_)) => self.needs_eni(eni),
            (ObjectKey::RouteGroupSettings(group), Object::RouteGroupSettings(_)) => {
                self.needs(ObjectKey::RouteGroup(group.clone()));
            }
            // Read by who writes flow dumps.
            (ObjectKey::Opaque(table, _), _) if &**table == "DASH_FLOW_DUMP_FILTER_TABLE" => {}
            (ObjectKey::Opaque(table, _), _) => {
                self.refuse_if(self.store.options.strict, || Reason::NothingActs {
                    table: table.to_string(),
                    why: why_stored(table),
                });
            }
            // Nothing to check: no references, and any contents are legal.
            (
                ObjectKey::RoutingType(_)
                | ObjectKey::RouteGroup(_)
                | ObjectKey::PortMap(_)
                | ObjectKey::PaValidation(_)
                | ObjectKey::Switch
                | ObjectKey::Qos(_),
                _,
            ) => {}
            // Refused before it was written: the object is not of the key's table.
            _ => {}
        }
    }

    fn needs_tunnel(&mut self, tunnel: Option<&TunnelName>) {
        if let Some(tunnel) = tunnel {
            self.needs(ObjectKey::Tunnel(tunnel.clone()));
        }
    }

    /// A row whose packets get the encap of a routing type, and whose key is this address.
    fn encap(&mut self, kind: Option<RoutingType>, ip: IpAddr) {
        if let Some(kind) = kind {
            self.refuse_if(ip.is_ipv6(), || Reason::TranslatesIpv4 { kind });
            self.has_encap(kind);
        }
    }

    fn has_encap(&mut self, kind: RoutingType) {
        let Some(def) = self.store.routing_type(kind) else {
            return self.needs(ObjectKey::RoutingType(kind));
        };
        let keyed = def.static_encap.is_some_and(|encap| encap.key.is_some());
        self.refuse_if(!keyed, || Reason::NoStaticEncap { kind });
    }

    fn meets_none(&mut self, map: &PortMapId, ports: PortRange) {
        let other = self
            .store
            .port_ranges(map)
            .map(|(other, _)| other)
            .find(|&other| other != ports && other.min <= ports.max && ports.min <= other.max);
        if let Some(other) = other {
            let other = ObjectKey::PortMapRange(map.clone(), other);
            self.refuse(Reason::PortsMeet { other });
        }
    }

    fn same<T: PartialEq>(&mut self, field: &'static str, old: &T, new: &T) {
        self.refuse_if(old != new, || Reason::Immutable { field });
    }

    fn vni_ranges(&mut self, ranges: &[VniRange]) {
        let wrong = ranges.iter().any(|r| r.min > r.max);
        self.refuse_if(wrong, || Reason::EmptyRange {
            field: "trusted_vnis_list",
        });
    }

    fn port_ranges(&mut self, field: &'static str, ranges: &[PortRange]) {
        let wrong = ranges.iter().any(|r| r.min > r.max);
        self.refuse_if(wrong, || Reason::EmptyRange { field });
    }

    fn prefixes(&mut self, field: &'static str, prefixes: &[IpPrefix], expected: Family) {
        let mut wrong = prefixes.iter().filter(|p| Family::of(p.addr()) != expected);
        if let Some(&prefix) = wrong.next() {
            self.refuse(Reason::PrefixFamily {
                field,
                prefix,
                expected,
            });
        }
    }

    fn vnet(&mut self, old: Option<&Object>, vnet: &Vnet) {
        let none = self.store.rows.appliances.is_empty();
        self.refuse_if(none, || Reason::NoAppliance);
        if let Some(Object::Vnet(old)) = old {
            self.same("vni", &old.vni, &vnet.vni);
        }
    }

    fn eni(&mut self, key: &EniKey, old: Option<&Object>, eni: &Eni) {
        let none = self.store.rows.appliances.is_empty();
        self.refuse_if(none, || Reason::NoAppliance);
        match &eni.vnet {
            Some(vnet) => self.needs_vnet(vnet),
            None => self.warn("the ENI is in no VNET: it cannot route into one".to_owned()),
        }
        for (policy, expected) in [
            (&eni.v4_meter_policy, Family::V4),
            (&eni.v6_meter_policy, Family::V6),
        ] {
            let Some(policy) = policy else { continue };
            match self.store.meter_policy(policy) {
                None => self.needs(ObjectKey::MeterPolicy(policy.clone())),
                Some(&MeterPolicy { family }) => {
                    self.refuse_if(family != expected, || Reason::PolicyFamily {
                        policy: policy.clone(),
                        expected,
                    });
                }
            }
        }
        if let Some(qos) = eni.qos.as_ref().filter(|qos| self.store.qos(qos).is_none()) {
            self.warn(format!(
                "{} does not exist: the ENI has no limits until it does",
                ObjectKey::Qos(qos.clone())
            ));
        }
        let mac = eni.mac;
        self.refuse_if(!mac.is_unicast(), || Reason::MacNotUnicast { mac });
        self.vni_ranges(&eni.trusted_vnis);
        if let Some(Object::Eni(old)) = old {
            self.same("mac_address", &old.mac, &eni.mac);
            self.same("vnet", &old.vnet, &eni.vnet);
            self.same("eni_mode", &old.mode, &eni.mode);
            return;
        }
        let mut others = self.store.refs.mac_enis.users(&mac);
        if let Some(other) = others.find(|&other| other != key) {
            let other = other.clone();
            self.refuse(Reason::DuplicateMac { mac, other });
        }
    }

    fn route_rule(&mut self, eni: &EniKey, rule: &RouteRule) {
        self.needs_eni(eni);
        match &rule.vnet {
            Some(vnet) => self.needs_vnet(vnet),
            None => {
                self.refuse_if(rule.pa_validation, || Reason::PaValidationWithoutVnet);
            }
        }
    }

    fn meter_rule(&mut self, policy: &MeterPolicyId, rule: &MeterRule) {
        match self.store.meter_policy(policy) {
            None => self.needs(ObjectKey::MeterPolicy(policy.clone())),
            Some(&MeterPolicy { family }) => self.prefixes("ip_prefix", &[rule.prefix], family),
        }
    }

    fn acl_rule(&mut self, group: &AclGroupId, rule: &AclRule) {
        self.port_ranges("src_port", &rule.src_ports);
        self.port_ranges("dst_port", &rule.dst_ports);
        let Some(&AclGroup { family }) = self.store.acl_group(group) else {
            self.needs(ObjectKey::AclGroup(group.clone()));
            return;
        };
        self.prefixes("src_addr", &rule.src_prefixes, family);
        self.prefixes("dst_addr", &rule.dst_prefixes, family);
        let tags: BTreeSet<&TagName> = rule.src_tags.iter().chain(&rule.dst_tags).collect();
        for name in tags {
            match self.store.tag(name) {
                None => self.warn(format!(
                    "{} does not exist: it matches nothing until it does",
                    ObjectKey::PrefixTag(name.clone())
                )),
                Some(tag) => self.refuse_if(tag.family != family, || Reason::TagFamily {
                    tag: name.clone(),
                    group: group.clone(),
                    expected: family,
                }),
            }
        }
    }

    fn tag(&mut self, name: &TagName, old: Option<&Object>, tag: &PrefixTag) {
        self.prefixes("prefix_list", &tag.prefixes, tag.family);
        if let Some(Object::PrefixTag(old)) = old {
            self.same("ip_version", &old.family, &tag.family);
            return;
        }
        // Rules may have named it before it was there.
        let clash = self.store.acl_groups_naming(name).find_map(|id| {
            let expected = self.store.acl_group(id)?.family;
            (expected != tag.family).then(|| Reason::TagFamily {
                tag: name.clone(),
                group: id.clone(),
                expected,
            })
        });
        if let Some(reason) = clash {
            self.refuse(reason);
        }
    }

    fn acl_bind(&mut self, eni: &EniKey, bind: &AclBind) {
        self.needs_eni(eni);
        if bind.v4.is_none() && bind.v6.is_none() {
            self.warn("no group is named: the stage stays unbound".to_owned());
        }
        for (id, expected) in [(&bind.v4, Family::V4), (&bind.v6, Family::V6)] {
            let Some(id) = id else { continue };
            let Some(group) = self.store.acl_group(id) else {
                self.needs(ObjectKey::AclGroup(id.clone()));
                continue;
            };
            self.refuse_if(group.family != expected, || Reason::GroupFamily {
                group: id.clone(),
                expected,
            });
            self.refuse_if(self.store.acl_rule_count(id) == 0, || Reason::EmptyGroup {
                group: id.clone(),
            });
        }
    }

    /// Judges a row that is gone: nothing that is left may need it.
    fn absent(&mut self) {
        let store = self.store;
        let (dependant, count) = match self.key {
            ObjectKey::Appliance(_) => {
                if !store.rows.appliances.is_empty() {
                    return;
                }
                let enis = store.rows.enis.keys().cloned().map(ObjectKey::Eni);
                let vnets = store.rows.vnets.keys().cloned().map(ObjectKey::Vnet);
                let count = store.rows.enis.len() + store.rows.vnets.len();
                (enis.chain(vnets).next(), count)
            }
            ObjectKey::Vnet(vnet) => store.vnet_users(vnet),
            ObjectKey::Eni(eni) => store.eni_users(eni),
            ObjectKey::RouteGroup(group) => (
                store
                    .enis_bound_to(group)
                    .next()
                    .cloned()
                    .map(ObjectKey::EniRoute),
                store.refs.route_group_enis.rows(group),
            ),
            ObjectKey::AclGroup(group) => (
                store.binds_of(group).next().cloned(),
                store.binds_of(group).count(),
            ),
            ObjectKey::PrefixTag(tag) => store.tag_users(tag),
            ObjectKey::AclRule(group, _) => {
                let bound = store.refs.acl_group_binds.is_used(group);
                let emptied = store.acl_group(group).is_some() && store.acl_rule_count(group) == 0;
                self.refuse_if(bound && emptied, || Reason::EmptyGroup {
                    group: group.clone(),
                });
                return;
            }
            ObjectKey::RoutingType(kind) => {
                store.policy_users(&store.refs.encap_users, kind, &|route, mapping| {
                    route.and_then(Route::encap_of) == Some(*kind)
                        || mapping.and_then(VnetMapping::encap_of) == Some(*kind)
                })
            }
            ObjectKey::Tunnel(name) => {
                store.policy_users(&store.refs.tunnel_users, name, &|route, mapping| {
                    route.is_some_and(|route| route.tunnel.as_ref() == Some(name))
                        || mapping.is_some_and(|m| m.tunnel.as_ref() == Some(name))
                })
            }
            ObjectKey::PortMap(map) => store.port_map_users(map),
            ObjectKey::MeterPolicy(policy) => store.meter_policy_users(policy),
            ObjectKey::Qos(qos) => {
                let enis = &store.refs.qos_enis;
                let eni = enis.first(qos).cloned().map(ObjectKey::Eni);
                (eni, enis.rows(qos))
            }
            ObjectKey::PortMapRange(..)
            | ObjectKey::PaValidation(_)
            | ObjectKey::MeterRule(..)
            | ObjectKey::Route(..)
            | ObjectKey::EniRoute(_)
            | ObjectKey::RouteRule(_)
            | ObjectKey::VnetMapping(..)
            | ObjectKey::AclIn(..)
            | ObjectKey::AclOut(..)
            | ObjectKey::EniSettings(_)
            | ObjectKey::RouteGroupSettings(_)
            | ObjectKey::Switch
            | ObjectKey::Opaque(..) => return,
        };
        if let Some(dependant) = dependant {
            self.refuse(Reason::InUse { dependant, count });
        }
    }
}

/// Why rows of a table are only stored.
fn why_stored(table: &str) -> &'static str {
    match table {
        "DASH_METER_TABLE" => "it is for reading",
        _ if table.starts_with("DASH_HA_") || table.starts_with("DASH_FLOW_SYNC_") => {
            "high availability is not built yet"
        }
        _ => "this release does not know it",
    }
}

/// One of the rows that need a row, and how many there are.
type Users = (Option<ObjectKey>, usize);

impl Store {
    fn vnet_users(&self, vnet: &VnetName) -> Users {
        let refs = &self.refs;
        let count = refs.vnet_enis.rows(vnet)
            + refs.vnet_routes.rows(vnet)
            + refs.vnet_rules.rows(vnet)
            + self.mapping_count(vnet);
        let eni = || refs.vnet_enis.first(vnet).cloned().map(ObjectKey::Eni);
        let mapping = || {
            let (ip, _) = self.mappings(vnet).next()?;
            Some(ObjectKey::VnetMapping(vnet.clone(), ip))
        };
        let route = || {
            let group = refs.vnet_routes.first(vnet)?;
            let mut routes = self.routes(group);
            let (prefix, _) = routes.find(|(_, route)| route.action.vnet() == Some(vnet))?;
            Some(ObjectKey::Route(group.clone(), prefix))
        };
        let rule = || {
            let eni = refs.vnet_rules.first(vnet)?;
            let mut rules = self.route_rules(eni);
            let (key, _) = rules.find(|(_, rule)| rule.vnet.as_ref() == Some(vnet))?;
            Some(ObjectKey::RouteRule(key.clone()))
        };
        let one = eni().or_else(mapping).or_else(route).or_else(rule);
        (one, count)
    }

    /// Users of what routes and mappings name, of which `names` tells.
    fn policy_users<K: Ord + Clone>(
        &self,
        uses: &Uses<K, ObjectKey>,
        used: &K,
        names: &dyn Fn(Option<&Route>, Option<&VnetMapping>) -> bool,
    ) -> Users {
        let one = uses.first(used).and_then(|parent| match parent {
            ObjectKey::RouteGroup(group) => {
                let mut routes = self.routes(group);
                let (prefix, _) = routes.find(|(_, route)| names(Some(route), None))?;
                Some(ObjectKey::Route(group.clone(), prefix))
            }
            ObjectKey::Vnet(vnet) => {
                let mut mappings = self.mappings(vnet);
                let (ip, _) = mappings.find(|(_, mapping)| names(None, Some(mapping)))?;
                Some(ObjectKey::VnetMapping(vnet.clone(), ip))
            }
            _ => None,
        });
        (one, uses.rows(used))
    }

    fn port_map_users(&self, map: &PortMapId) -> Users {
        let mapping = || {
            let vnet = self.refs.port_map_vnets.first(map)?;
            let mut mappings = self.mappings(vnet);
            let (ip, _) = mappings.find(|(_, mapping)| mapping.port_map() == Some(map))?;
            Some(ObjectKey::VnetMapping(vnet.clone(), ip))
        };
        let range = || {
            let (ports, _) = self.port_ranges(map).next()?;
            Some(ObjectKey::PortMapRange(map.clone(), ports))
        };
        let count = self.refs.port_map_vnets.rows(map) + self.rows.port_ranges.count(map);
        (mapping().or_else(range), count)
    }

    fn meter_policy_users(&self, policy: &MeterPolicyId) -> Users {
        let enis = &self.refs.meter_policy_enis;
        let eni = enis.first(policy).cloned().map(ObjectKey::Eni);
        let rule = || {
            let (rule, _) = self.meter_rules(policy).next()?;
            Some(ObjectKey::MeterRule(policy.clone(), rule.clone()))
        };
        let count = enis.rows(policy) + self.rows.meter_rules.count(policy);
        (eni.or_else(rule), count)
    }

    fn eni_users(&self, eni: &EniKey) -> Users {
        let rows = &self.rows;
        let route = self
            .eni_route(eni)
            .map(|_| ObjectKey::EniRoute(eni.clone()));
        let rules = rows
            .route_rules
            .children(eni)
            .map(|(key, _)| ObjectKey::RouteRule(key.clone()));
        let acl_in = rows
            .acl_in
            .children(eni)
            .map(|(stage, _)| ObjectKey::AclIn(eni.clone(), *stage));
        let acl_out = rows
            .acl_out
            .children(eni)
            .map(|(stage, _)| ObjectKey::AclOut(eni.clone(), *stage));
        let count = usize::from(route.is_some())
            + rows.route_rules.count(eni)
            + rows.acl_in.count(eni)
            + rows.acl_out.count(eni);
        let one = route
            .into_iter()
            .chain(rules)
            .chain(acl_in)
            .chain(acl_out)
            .next();
        (one, count)
    }

    fn tag_users(&self, tag: &TagName) -> Users {
        let one = self.acl_groups_naming(tag).next().and_then(|group| {
            let mut rules = self.acl_rules(group);
            let (rule, _) = rules
                .find(|(_, rule)| rule.src_tags.contains(tag) || rule.dst_tags.contains(tag))?;
            Some(ObjectKey::AclRule(group.clone(), rule.clone()))
        });
        (one, self.refs.tag_groups.rows(tag))
    }
}
