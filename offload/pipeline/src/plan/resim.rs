//! Epochs of ENIs: which flows the policy of today has not decided yet.

use std::collections::{BTreeMap, BTreeSet};

use dash_model::Store;
use dash_model::key::{AclGroupId, EniKey, ObjectKey, RouteGroupId, VnetName};
use dash_wire::tables::flow_action;

use super::Edit;

/// How an ENI's flows are decided again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resimulation {
    /// Most flows a second and worker from now on, 0 for any number; without, as the ENI's settings say
    /// (`SAI_ENI_ATTR_MAX_RESIMULATED_FLOW_PER_SECOND`).
    pub per_second: Option<u32>,
    /// [`flow_action`]s that flows keep
    /// (`ROUTING_ACTIONS_DISABLED_IN_FLOW_RESIMULATION`). Those that change addresses and ports go
    /// together: the reply's depend on them all.
    pub keep: u16,
}

/// An ENI whose epochs soon come round: its flows of any epoch but the one before the next must be of
/// one that is far away, or some that no packet has decided again since would seem fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recurring {
    /// ENI index.
    pub eni: u32,
    /// The epoch that comes next.
    pub next: u8,
}

/// Epochs from one such sweep to the next.
const SWEEP: u8 = 254;

/// What is kept of an ENI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resim {
    pub(super) per_second: Option<u32>,
    pub(super) keep: u16,
    pub(super) epoch: u8,
    /// Epochs since flows of old ones were swept into one.
    pub(super) since: u8,
}

impl Resim {
    /// The next epoch; true when a sweep is due before.
    pub(super) fn next(&mut self) -> bool {
        self.epoch = self.epoch.wrapping_add(1);
        self.since += 1;
        let due = self.since >= SWEEP;
        if due {
            self.since = 0;
        }
        due
    }

    pub(super) fn set(&mut self, how: Resimulation) {
        self.per_second = how.per_second;
        self.keep = how.keep;
        if how.keep & flow_action::TRANSLATES != 0 {
            self.keep |= flow_action::TRANSLATES;
        }
    }
}

/// ENIs by name. Few were ever resimulated.
pub(super) type Resims = BTreeMap<EniKey, Resim>;

/// ENIs whose flows might be decided otherwise since a change. More than those at times, never fewer:
/// a mapping concerns every ENI whose routes or rules name its VNET.
pub(super) fn concerned(store: &Store, edits: &[Edit<'_>]) -> BTreeSet<EniKey> {
    let mut enis = BTreeSet::new();
    let mut groups = BTreeSet::<&RouteGroupId>::new();
    let mut vnets = BTreeSet::<&VnetName>::new();
    for edit in edits {
        match edit.key {
            ObjectKey::Eni(eni)
            | ObjectKey::EniRoute(eni)
            | ObjectKey::AclIn(eni, _)
            | ObjectKey::AclOut(eni, _) => {
                enis.insert(eni.clone());
            }
            ObjectKey::RouteRule(rule) => {
                enis.insert(rule.eni.clone());
            }
            ObjectKey::Route(group, _) | ObjectKey::RouteGroupSettings(group) => {
                groups.insert(group);
            }
            ObjectKey::VnetMapping(vnet, _) | ObjectKey::Vnet(vnet) => {
                vnets.insert(vnet);
            }
            // Nothing that decides.
            ObjectKey::RouteGroup(_)
            | ObjectKey::AclGroup(_)
            | ObjectKey::EniSettings(_)
            | ObjectKey::Switch
            | ObjectKey::Opaque(..) => {}
            ObjectKey::AclRule(group, _) => enis.extend(bound(store, group)),
            ObjectKey::PrefixTag(tag) => {
                for group in store.acl_groups_naming(tag) {
                    enis.extend(bound(store, group));
                }
            }
            // The appliance, tunnels, port maps, routing types: whose they are would have to be
            // searched for.
            _ => {
                enis.extend(store.enis().map(|(eni, _)| eni.clone()));
                return enis;
            }
        }
    }
    for vnet in vnets {
        enis.extend(store.enis_in_vnet(vnet).cloned());
        enis.extend(store.enis_with_rules_for(vnet).cloned());
        for group in store.route_groups_into(vnet) {
            enis.extend(store.enis_bound_to(group).cloned());
        }
    }
    for group in groups {
        enis.extend(store.enis_bound_to(group).cloned());
    }
    enis
}

/// ENIs that bind an ACL group.
fn bound(store: &Store, group: &AclGroupId) -> impl Iterator<Item = EniKey> {
    store.binds_of(group).filter_map(|bind| match bind {
        ObjectKey::AclIn(eni, _) | ObjectKey::AclOut(eni, _) => Some(eni.clone()),
        _ => None,
    })
}

/// Forgets ENIs that neither are there nor were just now.
pub(super) fn prune(resims: &mut Resims, store: &Store, edits: &[Edit<'_>]) {
    let just_now = |eni: &EniKey| {
        edits
            .iter()
            .any(|edit| matches!(edit.key, ObjectKey::Eni(key) if key == eni))
    };
    resims.retain(|eni, _| store.eni(eni).is_some() || just_now(eni));
}
