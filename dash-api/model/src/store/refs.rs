//! Who uses what: the reverse of every reference between rows, kept in step with the rows.
//!
//! Without it, "does anything still need this VNET" would be a walk over every route.

use std::collections::{BTreeMap, BTreeSet};

use crate::key::{
    AclGroupId, EniKey, MeterPolicyId, ObjectKey, PortMapId, QosName, RouteGroupId, RoutingType,
    TagName, TunnelName, VnetName,
};
use crate::net::Mac;
use crate::objects::Object;

/// For each used thing, its users and by how many rows each uses it. No count is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uses<K, U>(BTreeMap<K, BTreeMap<U, usize>>);

impl<K, U> Default for Uses<K, U> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone, U: Ord + Clone> Uses<K, U> {
    fn edit(&mut self, edit: Edit, used: &K, user: &U) {
        match edit {
            Edit::Add => self.add(used, user),
            Edit::Remove => self.remove(used, user),
        }
    }

    fn add(&mut self, used: &K, user: &U) {
        // Looked up before it is cloned: most uses are of a thing already in use.
        let Some(users) = self.0.get_mut(used) else {
            let users = BTreeMap::from([(user.clone(), 1)]);
            self.0.insert(used.clone(), users);
            return;
        };
        match users.get_mut(user) {
            Some(count) => *count += 1,
            None => {
                users.insert(user.clone(), 1);
            }
        }
    }

    fn remove(&mut self, used: &K, user: &U) {
        let Some(users) = self.0.get_mut(used) else {
            return;
        };
        match users.get_mut(user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                users.remove(user);
            }
        }
        if users.is_empty() {
            self.0.remove(used);
        }
    }

    pub(super) fn users(&self, used: &K) -> impl Iterator<Item = &U> + use<'_, K, U> {
        self.0.get(used).into_iter().flat_map(BTreeMap::keys)
    }

    pub(super) fn first(&self, used: &K) -> Option<&U> {
        self.0.get(used)?.keys().next()
    }

    pub(super) fn is_used(&self, used: &K) -> bool {
        self.0.contains_key(used)
    }

    /// Rows that use it, over all users.
    pub(super) fn rows(&self, used: &K) -> usize {
        self.0.get(used).map_or(0, |users| users.values().sum())
    }
}

#[derive(Clone, Copy, Debug)]
enum Edit {
    Add,
    Remove,
}

/// Every reverse reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refs {
    /// One ENI a MAC between commits.
    pub(super) mac_enis: Uses<Mac, EniKey>,
    pub(super) vnet_enis: Uses<VnetName, EniKey>,
    pub(super) vnet_routes: Uses<VnetName, RouteGroupId>,
    pub(super) vnet_rules: Uses<VnetName, EniKey>,
    pub(super) route_group_enis: Uses<RouteGroupId, EniKey>,
    /// The users are rows of `DASH_ACL_IN_TABLE` and `DASH_ACL_OUT_TABLE`.
    pub(super) acl_group_binds: Uses<AclGroupId, ObjectKey>,
    pub(super) tag_groups: Uses<TagName, AclGroupId>,
    /// The users are route groups and VNETs: those of the routes and mappings that use it.
    pub(super) encap_users: Uses<RoutingType, ObjectKey>,
    /// As `encap_users`.
    pub(super) tunnel_users: Uses<TunnelName, ObjectKey>,
    pub(super) port_map_vnets: Uses<PortMapId, VnetName>,
    pub(super) meter_policy_enis: Uses<MeterPolicyId, EniKey>,
    pub(super) qos_enis: Uses<QosName, EniKey>,
}

impl Refs {
    /// Notes what a row that comes uses.
    pub(super) fn add(&mut self, key: &ObjectKey, object: &Object) {
        self.edit(Edit::Add, key, object);
    }

    /// Forgets what a row that goes used.
    pub(super) fn remove(&mut self, key: &ObjectKey, object: &Object) {
        self.edit(Edit::Remove, key, object);
    }

    fn edit(&mut self, edit: Edit, key: &ObjectKey, object: &Object) {
        match (key, object) {
            (ObjectKey::Eni(key), Object::Eni(eni)) => {
                self.mac_enis.edit(edit, &eni.mac, key);
                if let Some(vnet) = &eni.vnet {
                    self.vnet_enis.edit(edit, vnet, key);
                }
                let policies = [&eni.v4_meter_policy, &eni.v6_meter_policy];
                for policy in policies.into_iter().flatten() {
                    self.meter_policy_enis.edit(edit, policy, key);
                }
                if let Some(qos) = &eni.qos {
                    self.qos_enis.edit(edit, qos, key);
                }
            }
            (ObjectKey::Route(group, _), Object::Route(route)) => {
                if let Some(vnet) = route.action.vnet() {
                    self.vnet_routes.edit(edit, vnet, group);
                }
                let user = || ObjectKey::RouteGroup(group.clone());
                if let Some(kind) = route.encap_of() {
                    self.encap_users.edit(edit, &kind, &user());
                }
                if let Some(tunnel) = &route.tunnel {
                    self.tunnel_users.edit(edit, tunnel, &user());
                }
            }
            (ObjectKey::VnetMapping(vnet, _), Object::VnetMapping(mapping)) => {
                let user = || ObjectKey::Vnet(vnet.clone());
                if let Some(kind) = mapping.encap_of() {
                    self.encap_users.edit(edit, &kind, &user());
                }
                if let Some(tunnel) = &mapping.tunnel {
                    self.tunnel_users.edit(edit, tunnel, &user());
                }
                if let Some(map) = mapping.port_map() {
                    self.port_map_vnets.edit(edit, map, vnet);
                }
            }
            (ObjectKey::RouteRule(key), Object::RouteRule(rule)) => {
                if let Some(vnet) = &rule.vnet {
                    self.vnet_rules.edit(edit, vnet, &key.eni);
                }
            }
            (ObjectKey::EniRoute(eni), Object::EniRoute(bind)) => {
                self.route_group_enis.edit(edit, &bind.group, eni);
            }
            (
                ObjectKey::AclIn(..) | ObjectKey::AclOut(..),
                Object::AclIn(bind) | Object::AclOut(bind),
            ) => {
                for group in [&bind.v4, &bind.v6].into_iter().flatten() {
                    self.acl_group_binds.edit(edit, group, key);
                }
            }
            (ObjectKey::AclRule(group, _), Object::AclRule(rule)) => {
                // A rule is one user of a tag however often it names it.
                let tags: BTreeSet<&TagName> = rule.src_tags.iter().chain(&rule.dst_tags).collect();
                for tag in tags {
                    self.tag_groups.edit(edit, tag, group);
                }
            }
            _ => {}
        }
    }
}
