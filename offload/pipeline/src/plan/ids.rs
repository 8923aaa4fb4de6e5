//! Names to the numbers that stand for them in rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use dash_model::key::{
    AclGroupId, EniKey, MeterPolicyId, ObjectKey, PortMapId, RouteGroupId, TunnelName, VnetName,
};
use nic_target::Capacity;

use super::{Edit, PlanError};

/// Indexes that fit the 16 bits of a flow key and a trusted-VNI key, where 0xffff is every ENI.
const MAX_ENIS: u32 = 0xffff;
/// Ids that fit 16 bits, without 0.
const MAX_VNETS: u32 = 0xffff;
/// Ids of 32 bits, without 0.
const MAX_GROUPS: u32 = u32::MAX;

/// Numbers of everything that rows refer to by number.
///
/// The look-ups by name panic for a name without a number: the store lets no row name what does
/// not exist, and numbers are given and taken with the objects.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub(super) enis: Ids<EniKey>,
    pub(super) vnets: Ids<VnetName>,
    pub(super) route_groups: Ids<RouteGroupId>,
    pub(super) acl_groups: Ids<AclGroupId>,
    pub(super) tunnels: Ids<TunnelName>,
    pub(super) port_maps: Ids<PortMapId>,
    pub(super) meter_policies: Ids<MeterPolicyId>,
}

/// Names that come and go in a transaction, and for which there is room.
#[derive(Debug, Default)]
pub(super) struct Turnover<'a> {
    enis: Names<'a, EniKey>,
    vnets: Names<'a, VnetName>,
    route_groups: Names<'a, RouteGroupId>,
    acl_groups: Names<'a, AclGroupId>,
    tunnels: Names<'a, TunnelName>,
    port_maps: Names<'a, PortMapId>,
    meter_policies: Names<'a, MeterPolicyId>,
}

impl Directory {
    pub(super) fn new(capacity: &Capacity) -> Self {
        Self {
            enis: Ids::new(0, capacity.enis.min(MAX_ENIS)),
            vnets: Ids::new(1, MAX_VNETS),
            route_groups: Ids::new(1, MAX_GROUPS),
            acl_groups: Ids::new(1, MAX_GROUPS),
            tunnels: Ids::new(1, MAX_GROUPS),
            port_maps: Ids::new(1, MAX_GROUPS),
            meter_policies: Ids::new(1, MAX_GROUPS),
        }
    }

    /// Finds the names that come and go; an error when there are too many of a kind.
    pub(super) fn turnover<'a>(&self, edits: &[Edit<'a>]) -> Result<Turnover<'a>, PlanError> {
        let mut turnover = Turnover::default();
        for edit in edits {
            match edit.key {
                ObjectKey::Eni(key) => turnover.enis.note(edit, key),
                ObjectKey::Vnet(key) => turnover.vnets.note(edit, key),
                ObjectKey::RouteGroup(key) => turnover.route_groups.note(edit, key),
                ObjectKey::AclGroup(key) => turnover.acl_groups.note(edit, key),
                ObjectKey::Tunnel(key) => turnover.tunnels.note(edit, key),
                ObjectKey::PortMap(key) => turnover.port_maps.note(edit, key),
                ObjectKey::MeterPolicy(key) => turnover.meter_policies.note(edit, key),
                _ => {}
            }
        }
        self.enis.check(&turnover.enis, ObjectKey::Eni)?;
        self.vnets.check(&turnover.vnets, ObjectKey::Vnet)?;
        let route_groups = &turnover.route_groups;
        self.route_groups
            .check(route_groups, ObjectKey::RouteGroup)?;
        self.acl_groups
            .check(&turnover.acl_groups, ObjectKey::AclGroup)?;
        self.tunnels.check(&turnover.tunnels, ObjectKey::Tunnel)?;
        self.port_maps
            .check(&turnover.port_maps, ObjectKey::PortMap)?;
        self.meter_policies
            .check(&turnover.meter_policies, ObjectKey::MeterPolicy)?;
        Ok(turnover)
    }

    /// Takes the numbers of names that go and gives numbers to those that come.
    pub(super) fn apply(&mut self, turnover: Turnover<'_>) {
        self.enis.apply(&turnover.enis);
        self.vnets.apply(&turnover.vnets);
        self.route_groups.apply(&turnover.route_groups);
        self.acl_groups.apply(&turnover.acl_groups);
        self.tunnels.apply(&turnover.tunnels);
        self.port_maps.apply(&turnover.port_maps);
        self.meter_policies.apply(&turnover.meter_policies);
    }

    pub(super) fn eni(&self, key: &EniKey) -> u32 {
        let index = self.enis.id(key);
        index.expect("the store keeps an ENI as long as a row names it")
    }

    pub(super) fn vnet(&self, name: &VnetName) -> u16 {
        let id = self.vnets.id(name);
        let id = id.expect("the store keeps a VNET as long as a row names it");
        id.try_into().expect("VNET ids end at 65,535")
    }

    pub(super) fn route_group(&self, group: &RouteGroupId) -> u32 {
        let id = self.route_groups.id(group);
        id.expect("the store keeps a route group as long as a row names it")
    }

    pub(super) fn acl_group(&self, group: &AclGroupId) -> u32 {
        let id = self.acl_groups.id(group);
        id.expect("the store keeps an ACL group as long as a row names it")
    }

    pub(super) fn tunnel(&self, tunnel: &TunnelName) -> u32 {
        let id = self.tunnels.id(tunnel);
        id.expect("the store keeps a tunnel as long as a row names it")
    }

    pub(super) fn port_map(&self, map: &PortMapId) -> u32 {
        let id = self.port_maps.id(map);
        id.expect("the store keeps a port map as long as a row names it")
    }

    pub(super) fn meter_policy(&self, policy: &MeterPolicyId) -> u32 {
        let id = self.meter_policies.id(policy);
        id.expect("the store keeps a meter policy as long as a row names it")
    }
}

/// Names of one kind that come and go.
#[derive(Debug)]
struct Names<'a, K> {
    gone: Vec<&'a K>,
    new: Vec<&'a K>,
}

impl<K> Default for Names<'_, K> {
    fn default() -> Self {
        Self {
            gone: Vec::new(),
            new: Vec::new(),
        }
    }
}

impl<'a, K> Names<'a, K> {
    fn note(&mut self, edit: &Edit<'a>, key: &'a K) {
        match (edit.old, edit.new) {
            (Some(_), None) => self.gone.push(key),
            (None, Some(_)) => self.new.push(key),
            _ => {}
        }
    }
}

/// Numbers of one kind: `first` and up, `limit` of them, the lowest free one first.
#[derive(Clone, Debug)]
pub(super) struct Ids<K> {
    first: u32,
    limit: u32,
    by_key: HashMap<K, u32>,
    by_id: BTreeMap<u32, K>,
    /// Numbers below `fresh` that nothing has.
    free: BTreeSet<u32>,
    /// The lowest number that nothing ever had.
    fresh: u64,
    /// What lost its number in the last transaction that was planned: it gets the same one back
    /// if the next is that transaction taken back.
    lost: HashMap<K, u32>,
}

impl<K: Clone + Eq + Hash> Ids<K> {
    fn new(first: u32, limit: u32) -> Self {
        Self {
            first,
            limit,
            by_key: HashMap::new(),
            by_id: BTreeMap::new(),
            free: BTreeSet::new(),
            fresh: first.into(),
            lost: HashMap::new(),
        }
    }

    pub(super) fn id(&self, key: &K) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub(super) fn key(&self, id: u32) -> Option<&K> {
        self.by_id.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &K)> {
        self.by_id.iter().map(|(id, key)| (*id, key))
    }

    fn check(
        &self,
        names: &Names<'_, K>,
        object: impl FnOnce(K) -> ObjectKey,
    ) -> Result<(), PlanError> {
        let staying = self.by_key.len() - names.gone.len();
        let room = (self.limit as usize).saturating_sub(staying);
        match names.new.get(room) {
            None => Ok(()),
            Some(&key) => Err(PlanError::Full {
                key: object(key.clone()),
                limit: self.limit,
            }),
        }
    }

    fn apply(&mut self, names: &Names<'_, K>) {
        let before = std::mem::take(&mut self.lost);
        for &key in &names.gone {
            if let Some(id) = self.by_key.remove(key) {
                self.by_id.remove(&id);
                self.lost.insert(key.clone(), id);
            }
        }
        // Numbers that just came free rest for this transaction, as long as there are others: no
        // packet then sees a number change its meaning from one generation to the next.
        let mut resting: BTreeSet<u32> = self.lost.values().copied().collect();

        let mut others = Vec::new();
        for &key in &names.new {
            match before.get(key) {
                Some(id) if self.free.remove(id) || resting.remove(id) => self.give(key, *id),
                _ => others.push(key),
            }
        }
        let end = u64::from(self.first) + u64::from(self.limit);
        for key in others {
            let fresh = (self.fresh < end).then_some(self.fresh);
            let id = if let Some(id) = self.free.pop_first() {
                id
            } else if let Some(id) = fresh.and_then(|id| u32::try_from(id).ok()) {
                self.fresh += 1;
                id
            } else {
                let id = resting.pop_first();
                id.expect("check() found room for every new name")
            };
            self.give(key, id);
        }
        self.free.append(&mut resting);
    }

    fn give(&mut self, key: &K, id: u32) {
        self.by_key.insert(key.clone(), id);
        self.by_id.insert(id, key.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(ids: &mut Ids<&'static str>, gone: &[&'static str], new: &[&'static str]) {
        let names = Names {
            gone: gone.iter().collect(),
            new: new.iter().collect(),
        };
        ids.check(&names, |name| ObjectKey::Vnet(name.into()))
            .expect("there is room");
        ids.apply(&names);
    }

    fn of<const N: usize>(ids: &Ids<&'static str>, names: [&'static str; N]) -> [Option<u32>; N] {
        names.map(|name| ids.id(&name))
    }

    #[test]
    fn the_lowest_free_number_is_given_first() {
        let mut ids = Ids::new(1, 100);
        change(&mut ids, &[], &["a", "b", "c", "d"]);
        change(&mut ids, &["c", "a"], &[]);
        change(&mut ids, &[], &["e", "f", "g"]);
        let expected = [Some(2), Some(4), Some(1), Some(3), Some(5)];
        assert_eq!(of(&ids, ["b", "d", "e", "f", "g"]), expected);
        assert_eq!(ids.key(3), Some(&"f"));
    }

    #[test]
    fn a_freed_number_rests_for_the_transaction_while_there_are_others() {
        let mut ids = Ids::new(0, 2);
        change(&mut ids, &[], &["a"]);
        change(&mut ids, &["a"], &["b"]);
        assert_eq!(of(&ids, ["a", "b"]), [None, Some(1)]);
        change(&mut ids, &["b"], &["c", "d"]);
        assert_eq!(of(&ids, ["b", "c", "d"]), [None, Some(0), Some(1)]);
    }

    #[test]
    fn taking_back_restores_numbers_even_of_a_full_table() {
        let mut ids = Ids::new(0, 2);
        change(&mut ids, &[], &["z"]);
        change(&mut ids, &[], &["a"]);
        change(&mut ids, &["a", "z"], &["c", "d"]);
        change(&mut ids, &["c", "d"], &["a", "z"]);
        assert_eq!(of(&ids, ["a", "z"]), [Some(1), Some(0)]);
    }

    #[test]
    fn the_first_name_without_room_is_the_error_and_room_of_leavers_counts() {
        let mut ids = Ids::new(0, 2);
        change(&mut ids, &[], &["a", "b"]);
        let names = Names {
            gone: vec![&"a"],
            new: vec![&"c", &"d", &"e"],
        };
        let error = ids.check(&names, |name| ObjectKey::Vnet(name.into()));
        let key = ObjectKey::Vnet("d".into());
        assert_eq!(error, Err(PlanError::Full { key, limit: 2 }));
    }

    #[test]
    fn numbers_end_at_the_limit_of_32_bits() {
        let mut ids = Ids::new(1, u32::MAX);
        ids.fresh = u64::from(u32::MAX);
        change(&mut ids, &[], &["last"]);
        assert_eq!(ids.id(&"last"), Some(u32::MAX));
        change(&mut ids, &["last"], &["again"]);
        assert_eq!(ids.id(&"again"), Some(u32::MAX));
    }
}
