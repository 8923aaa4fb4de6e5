//! The dumb twin: one flat map, every rule a walk over all of it. It knows nothing of reverse
//! references, cascades through indexes or incremental checks, so it cannot share their faults.

use std::collections::{BTreeMap, BTreeSet};

use crate::key::{AclGroupId, MeterPolicyId, ObjectKey, RouteGroupId, TagName};
use crate::objects::{AclBind, AclRule, Family, Object};
use crate::store::StoreOptions;
use crate::txn::{Action, Change, Entry, Txn};

type Rows = BTreeMap<ObjectKey, Entry>;

#[derive(Clone, Debug, Default)]
pub(super) struct Twin {
    options: StoreOptions,
    pub(super) rows: Rows,
}

impl Twin {
    pub(super) fn new(options: StoreOptions) -> Self {
        Self {
            options,
            rows: Rows::new(),
        }
    }

    /// The changes, or `None` when the transaction is refused.
    pub(super) fn commit(&mut self, txn: &Txn) -> Option<Vec<Change>> {
        let last: BTreeMap<&ObjectKey, &Action> =
            txn.ops.iter().map(|op| (&op.key, &op.action)).collect();
        let mut next = self.rows.clone();
        for (key, action) in &last {
            match action {
                Action::Set { object, raw } => {
                    let entry = Entry {
                        object: object.clone(),
                        raw: raw.clone(),
                    };
                    next.insert((*key).clone(), entry);
                }
                Action::Del => {
                    next.remove(*key);
                }
            }
        }
        let gone = |group: &ObjectKey| self.rows.contains_key(group) && !next.contains_key(group);
        let cascaded: Vec<ObjectKey> = next
            .keys()
            .filter(|key| group_of(key).is_some_and(|g| gone(&g)) && !last.contains_key(key))
            .cloned()
            .collect();
        for key in cascaded {
            next.remove(&key);
        }
        if !consistent(&next) || !legal_step(&self.rows, &next, self.options) {
            return None;
        }
        let keys: BTreeSet<&ObjectKey> = self.rows.keys().chain(next.keys()).collect();
        let changes = keys
            .into_iter()
            .map(|key| Change {
                key: key.clone(),
                old: self.rows.get(key).cloned(),
                new: next.get(key).cloned(),
            })
            .filter(|change| change.old != change.new)
            .collect();
        self.rows = next;
        Some(changes)
    }
}

/// What a row goes with: the group that a route or a rule is in, the object that settings are of.
fn group_of(key: &ObjectKey) -> Option<ObjectKey> {
    match key {
        ObjectKey::Route(group, _) => Some(ObjectKey::RouteGroup(group.clone())),
        ObjectKey::AclRule(group, _) => Some(ObjectKey::AclGroup(group.clone())),
        ObjectKey::EniSettings(eni) => Some(ObjectKey::Eni(eni.clone())),
        ObjectKey::RouteGroupSettings(group) => Some(ObjectKey::RouteGroup(group.clone())),
        _ => None,
    }
}

fn binds_routes(rows: &Rows, group: &RouteGroupId) -> bool {
    rows.values()
        .any(|e| matches!(&e.object, Object::EniRoute(bind) if bind.group == *group))
}

fn binds_acl(rows: &Rows, group: &AclGroupId) -> bool {
    rows.values().any(|e| match &e.object {
        Object::AclIn(bind) | Object::AclOut(bind) => {
            bind.v4.as_ref() == Some(group) || bind.v6.as_ref() == Some(group)
        }
        _ => false,
    })
}

fn family(rows: &Rows, group: &AclGroupId) -> Option<Family> {
    match rows.get(&ObjectKey::AclGroup(group.clone()))?.object {
        Object::AclGroup(ref group) => Some(group.family),
        _ => None,
    }
}

fn meters(rows: &Rows, policy: &MeterPolicyId) -> bool {
    rows.values().any(|e| match &e.object {
        Object::Eni(eni) => {
            eni.v4_meter_policy.as_ref() == Some(policy)
                || eni.v6_meter_policy.as_ref() == Some(policy)
        }
        _ => false,
    })
}

fn policy_family(rows: &Rows, policy: &MeterPolicyId) -> Option<Family> {
    match rows.get(&ObjectKey::MeterPolicy(policy.clone()))?.object {
        Object::MeterPolicy(policy) => Some(policy.family),
        _ => None,
    }
}

fn names(rule: &AclRule, tag: &TagName) -> bool {
    rule.src_tags.contains(tag) || rule.dst_tags.contains(tag)
}

/// True when the rows could be a configuration, however they came about.
fn consistent(rows: &Rows) -> bool {
    let has = |key: ObjectKey| rows.contains_key(&key);
    let has_vnet = |vnet: &crate::key::VnetName| has(ObjectKey::Vnet(vnet.clone()));
    let has_eni = |eni: &crate::key::EniKey| has(ObjectKey::Eni(eni.clone()));
    let appliances = rows
        .keys()
        .filter(|k| matches!(k, ObjectKey::Appliance(_)))
        .count();
    let bind_ok = |bind: &AclBind| {
        [(&bind.v4, Family::V4), (&bind.v6, Family::V6)]
            .into_iter()
            .all(|(group, expected)| {
                group.as_ref().is_none_or(|group| {
                    family(rows, group) == Some(expected)
                        && rows
                            .keys()
                            .any(|k| matches!(k, ObjectKey::AclRule(g, _) if g == group))
                })
            })
    };
    let rule_ok = |group: &AclGroupId, rule: &AclRule| {
        let Some(family) = family(rows, group) else {
            return false;
        };
        let prefixes = rule.src_prefixes.iter().chain(&rule.dst_prefixes);
        let tags_ok = rows.iter().all(|(key, entry)| match (key, &entry.object) {
            (ObjectKey::PrefixTag(name), Object::PrefixTag(tag)) => {
                !names(rule, name) || tag.family == family
            }
            _ => true,
        });
        tags_ok && prefixes.into_iter().all(|p| Family::of(p.addr()) == family)
    };
    appliances <= 1
        && rows.iter().all(|(key, entry)| match (key, &entry.object) {
            (ObjectKey::Appliance(_), Object::Appliance(_))
            | (ObjectKey::RoutingType(_), Object::RoutingType(_))
            | (ObjectKey::RouteGroup(_), Object::RouteGroup(_))
            | (ObjectKey::AclGroup(_), Object::AclGroup(_))
            | (ObjectKey::MeterPolicy(_), Object::MeterPolicy(_))
            | (ObjectKey::Qos(_), Object::Qos(_))
            | (ObjectKey::Switch, Object::Switch(_))
            | (ObjectKey::Opaque(..), Object::Opaque) => true,
            (ObjectKey::Vnet(_), Object::Vnet(_)) => appliances == 1,
            (ObjectKey::Eni(this), Object::Eni(eni)) => {
                let twins = rows.iter().filter(|(key, entry)| {
                    matches!(&entry.object, Object::Eni(other) if other.mac == eni.mac)
                        && **key != ObjectKey::Eni(this.clone())
                });
                let policies = [
                    (&eni.v4_meter_policy, Family::V4),
                    (&eni.v6_meter_policy, Family::V6),
                ];
                let metered = policies.into_iter().all(|(policy, expected)| {
                    let of = |policy| policy_family(rows, policy) == Some(expected);
                    policy.as_ref().is_none_or(of)
                });
                appliances == 1
                    && metered
                    && eni.vnet.as_ref().is_none_or(has_vnet)
                    && eni.mac.is_unicast()
                    && twins.count() == 0
            }
            (ObjectKey::Route(group, _), Object::Route(route)) => {
                has(ObjectKey::RouteGroup(group.clone()))
                    && route.action.vnet().is_none_or(has_vnet)
            }
            (ObjectKey::EniRoute(eni), Object::EniRoute(bind)) => {
                has_eni(eni) && has(ObjectKey::RouteGroup(bind.group.clone()))
            }
            (ObjectKey::RouteRule(rule), Object::RouteRule(object)) => {
                has_eni(&rule.eni)
                    && object.vnet.as_ref().is_none_or(has_vnet)
                    && (object.vnet.is_some() || !object.pa_validation)
            }
            (ObjectKey::VnetMapping(vnet, _), Object::VnetMapping(_)) => has_vnet(vnet),
            (ObjectKey::AclRule(group, _), Object::AclRule(rule)) => rule_ok(group, rule),
            (ObjectKey::AclIn(eni, stage), Object::AclIn(bind))
            | (ObjectKey::AclOut(eni, stage), Object::AclOut(bind)) => {
                has_eni(eni) && bind_ok(bind) && (1..=5).contains(stage)
            }
            (ObjectKey::EniSettings(eni), Object::EniSettings(_)) => has_eni(eni),
            (ObjectKey::RouteGroupSettings(group), Object::RouteGroupSettings(_)) => {
                has(ObjectKey::RouteGroup(group.clone()))
            }
            (ObjectKey::MeterRule(policy, _), Object::MeterRule(rule)) => {
                policy_family(rows, policy) == Some(Family::of(rule.prefix.addr()))
            }
            (ObjectKey::PrefixTag(_), Object::PrefixTag(tag)) => {
                let mut prefixes = tag.prefixes.iter();
                prefixes.all(|p| Family::of(p.addr()) == tag.family)
            }
            _ => false,
        })
}

/// True when the second configuration may follow the first.
fn legal_step(old: &Rows, new: &Rows, options: StoreOptions) -> bool {
    let unchanging = old.iter().all(|(key, before)| {
        let Some(after) = new.get(key) else {
            // A tag goes only when no rule names it, limits when no ENI does.
            return match key {
                ObjectKey::Qos(qos) => !new.values().any(
                    |e| matches!(&e.object, Object::Eni(eni) if eni.qos.as_ref() == Some(qos)),
                ),
                ObjectKey::PrefixTag(tag) => !new
                    .values()
                    .any(|e| matches!(&e.object, Object::AclRule(rule) if names(rule, tag))),
                _ => true,
            };
        };
        match (&before.object, &after.object) {
            (Object::Vnet(a), Object::Vnet(b)) => a.vni == b.vni,
            (Object::Eni(a), Object::Eni(b)) => a.mac == b.mac && a.vnet == b.vnet,
            (Object::AclGroup(a), Object::AclGroup(b)) => a.family == b.family,
            (Object::PrefixTag(a), Object::PrefixTag(b)) => a.family == b.family,
            (Object::MeterPolicy(a), Object::MeterPolicy(b)) => a.family == b.family,
            _ => true,
        }
    });
    let keys: BTreeSet<&ObjectKey> = old.keys().chain(new.keys()).collect();
    let frozen = |key: &ObjectKey| match key {
        ObjectKey::Route(group, _) => binds_routes(old, group) && binds_routes(new, group),
        ObjectKey::AclRule(group, _) => binds_acl(old, group) && binds_acl(new, group),
        ObjectKey::MeterRule(policy, _) => meters(old, policy) && meters(new, policy),
        _ => false,
    };
    let thawed = keys.into_iter().all(|key| {
        let object = |rows: &Rows| rows.get(key).map(|e| e.object.clone());
        options.update_bound_groups || object(old) == object(new) || !frozen(key)
    });
    unchanging && thawed
}
