//! The planner: DASH objects to the rows that programs read and the shape their code depends on.
//!
//! ```text
//!  Store, Changeset --Planner::plan--> Plan { shape, delta }
//!  UnderlayTable ----Planner::underlay-^
//!
//!  shape     what code depends on
//!  edit      an object's way out of the rows, and in
//!  ids       names of ENIs, VNETs and groups to the numbers in rows
//!  rows      one object to its row
//!  settings  what holds of an ENI: its own settings, else the card's
//!  trusted   VNI ranges to prefixes
//!  priority  rules by priority to rows by longest prefix
//!  inbound   route rules, so
//!  meter     rules of meter policies, so
//!  limits    QoS profiles, and packets a second, to rows of ENIs
//!  pas       which PAs of a VNET are valid: as long as a mapping names them (A43), and those that
//!            are listed for its VNI (A44)
//!  acl       a group's rules with the lists of their tags (A21, A22)
//!  tunnels   endpoints, and ranges of port maps to prefixes
//!  underlay  routes and neighbours of the card's own ports
//!  census    what the shape is counted from
//!  explain   which object a row that a packet met stands for
//! ```
//!
//! A plan costs what changed and what depends on it, never the size of the store: routes and
//! mappings are planned from the change alone, inbound rows below the prefixes whose rules
//! changed, ACL groups whole (a group is one row for a target), ENI rows by themselves.
//!
//! In a delta the rows that go come before the rows that come, so a number may pass from an
//! object to another in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use dash_model::key::{
    AclGroupId, EniKey, MeterPolicyId, ObjectKey, PortMapId, RouteGroupId, TunnelName, VnetName,
};
use dash_model::objects::{Eni, Object, Switch};
use dash_model::{Changeset, Store};
use dash_wire::tables::{EniRow, Globals};
use nic_target::{Capacity, Table, TableDelta, TableOp};
use thiserror::Error;

mod acl;
mod census;
mod edit;
mod explain;
mod ids;
mod inbound;
mod limits;
mod meter;
mod ops;
mod pas;
mod priority;
mod resim;
mod rows;
mod settings;
mod shape;
mod trusted;
mod tunnels;
mod underlay;

pub use explain::Explained;
pub use resim::{Recurring, Resimulation};
pub use settings::{EniInForce, Settings};
pub use shape::{FlowNeeds, Shape};
pub use underlay::{UnderlayRoute, UnderlayTable};

use census::Census;
use ids::Directory;
use inbound::Inbound;
use ops::Ops;
use pas::{Pas, Permits};
use resim::{Resim, Resims};
use underlay::Underlay;

/// What a target has to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The shape from now on.
    pub shape: Shape,
    /// The shape is not that of the plan before; true for the first plan.
    pub shape_changed: bool,
    /// Rows that change.
    pub delta: TableDelta,
    /// What must happen to flows before the rows change.
    pub recurring: Vec<Recurring>,
}

/// Rows of a table that a plan writes and removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Rows (of `acl`: groups) written.
    pub puts: usize,
    /// Rows (of `acl`: groups) removed.
    pub deletes: usize,
}

impl Plan {
    /// How much of which table changes.
    pub fn touched(&self) -> BTreeMap<Table, Touched> {
        let mut touched = BTreeMap::<Table, Touched>::new();
        for op in &self.delta.ops {
            let (table, puts) = match op {
                TableOp::Put { table, .. } => (*table, true),
                TableOp::Delete { table, .. } => (*table, false),
                TableOp::Acl { rules, .. } => (Table::Acl, rules.is_some()),
            };
            let count = touched.entry(table).or_default();
            if puts {
                count.puts += 1;
            } else {
                count.deletes += 1;
            }
        }
        touched
    }
}

/// Why objects that the store accepts cannot become rows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// More objects of a table than the data plane can number.
    #[error("{key} does not fit: the data plane holds at most {limit} rows of {}", .key.table_name())]
    Full {
        /// The first object without a place.
        key: ObjectKey,
        /// How many objects of its table there may be.
        limit: u32,
    },
}

/// Turns changes of objects into changes of rows. See the [module](self).
#[derive(Clone, Debug)]
pub struct Planner {
    settings: Settings,
    /// As the store had it when `globals` was emitted last.
    switch: Switch,
    ids: Directory,
    /// As emitted last; `None` before the first plan.
    globals: Option<Globals>,
    /// As emitted last, by index.
    enis: BTreeMap<u32, EniRow>,
    inbound: Inbound,
    meter_rules: meter::Rules,
    limits: limits::Limits,
    pas: Pas,
    permits: Permits,
    underlay: Underlay,
    acl_lists: acl::Lists,
    census: Census,
    /// Of the plan before.
    shape: Option<Shape>,
    /// Of all plans that were not taken back.
    flows: FlowNeeds,
    /// `flows` before the last plan of objects.
    flows_before: FlowNeeds,
    resims: Resims,
    /// `resims` before the last plan of objects.
    resims_before: Resims,
    recurring: Vec<Recurring>,
    /// A program is attached to an ENI.
    hooks: bool,
}

/// A row before and after, in the direction it is planned.
#[derive(Clone, Copy, Debug)]
struct Edit<'a> {
    key: &'a ObjectKey,
    old: Option<&'a Object>,
    new: Option<&'a Object>,
}

impl Planner {
    /// A planner for a store and a target without rows.
    pub fn new(settings: Settings, capacity: &Capacity) -> Self {
        Self {
            settings,
            switch: Switch::default(),
            ids: Directory::new(capacity),
            globals: None,
            enis: BTreeMap::new(),
            inbound: Inbound::default(),
            meter_rules: meter::Rules::default(),
            limits: limits::Limits::default(),
            pas: Pas::default(),
            permits: Permits::default(),
            underlay: Underlay::default(),
            acl_lists: acl::Lists::default(),
            census: Census::default(),
            shape: None,
            flows: FlowNeeds::default(),
            flows_before: FlowNeeds::default(),
            resims: Resims::new(),
            resims_before: Resims::new(),
            recurring: Vec::new(),
            hooks: false,
        }
    }

    /// Plans a commit. `store` is in the state after it; every commit is planned, in order.
    ///
    /// The first plan writes `globals` even when there is nothing in the store.
    ///
    /// # Errors
    /// When an object cannot be numbered. Nothing in the planner changed then.
    ///
    /// # Panics
    /// When `changes` did not come from a commit to `store`, or a commit was left out.
    pub fn plan(&mut self, store: &Store, changes: &Changeset) -> Result<Plan, PlanError> {
        let edits = changes.changes.iter().map(|change| Edit {
            key: &change.key,
            old: change.old.as_ref().map(|entry| &entry.object),
            new: change.new.as_ref().map(|entry| &entry.object),
        });
        self.run(store, edits, None)
    }

    /// Plans the way back from a commit: `store` is in the state before it
    /// ([`Store::revert`]).
    ///
    /// The same as [`plan`](Self::plan) of the changeset with old and new swapped. Taken back at
    /// once, every name has the number it had before, so that a target which refused the plan and
    /// one which took the plan and this one both hold what the planner thinks.
    ///
    /// # Errors
    /// None when the commit before was planned: everything had its number.
    ///
    /// # Panics
    /// As [`plan`](Self::plan).
    pub fn take_back(&mut self, store: &Store, changes: &Changeset) -> Result<Plan, PlanError> {
        let edits = changes.changes.iter().map(|change| Edit {
            key: &change.key,
            old: change.new.as_ref().map(|entry| &entry.object),
            new: change.old.as_ref().map(|entry| &entry.object),
        });
        self.flows = self.flows_before;
        let moved = |(key, resim): (&EniKey, &Resim)| {
            (self.resims_before.get(key) != Some(resim)).then(|| key.clone())
        };
        let moved: Vec<EniKey> = self.resims.iter().filter_map(moved).collect();
        self.resims.clone_from(&self.resims_before);
        self.run(store, edits, Some(moved))
    }

    /// Plans that flows of an ENI which are of an old epoch are decided again, each by the next packet
    /// of its first side; with `all`, that those there are now become such. `None` without such an ENI.
    pub fn resimulate(
        &mut self,
        store: &Store,
        key: &EniKey,
        how: Resimulation,
        all: bool,
    ) -> Option<Plan> {
        let eni = store.eni(key)?;
        let index = self.eni_index(key)?;
        self.flows_before = self.flows;
        self.resims_before.clone_from(&self.resims);
        self.resims.entry(key.clone()).or_default().set(how);
        if all {
            self.bump_epoch(key, index);
        }
        let mut ops = Ops::default();
        self.put_eni(store, key, eni, &mut ops);
        self.flows.epoch = true;
        Some(self.finish(ops))
    }

    /// Takes the last [`resimulate`](Self::resimulate) back, which the target did not take.
    pub fn forget_resimulate(&mut self, store: &Store, key: &EniKey) {
        self.flows = self.flows_before;
        self.resims.clone_from(&self.resims_before);
        let mut ops = Ops::default();
        if let Some(eni) = store.eni(key) {
            self.put_eni(store, key, eni, &mut ops);
        }
        self.finish(ops);
    }

    /// The epoch of an ENI.
    pub fn epoch(&self, key: &EniKey) -> u8 {
        self.resims.get(key).map_or(0, |resim| resim.epoch)
    }

    fn bump_epoch(&mut self, key: &EniKey, eni: u32) {
        let resim = self.resims.entry(key.clone()).or_default();
        if resim.next() {
            let next = resim.epoch;
            self.recurring.push(Recurring { eni, next });
        }
    }

    /// Plans the underlay: `routes` is all of it, the plan is what differs from the call before.
    pub fn underlay(&mut self, routes: &UnderlayTable) -> Plan {
        let mut ops = Ops::default();
        self.underlay
            .update(routes, &self.settings.port_mtus, &mut ops);
        self.finish(ops)
    }

    /// Plans other settings; `store` is as it was after the last commit.
    pub fn set_settings(&mut self, store: &Store, settings: Settings) -> Plan {
        self.settings = settings;
        let mut ops = Ops::default();
        self.update_globals(store, &mut ops);
        for (key, eni) in store.enis() {
            self.put_eni(store, key, eni, &mut ops);
        }
        self.finish(ops)
    }

    /// The settings of the last plan.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Plans for programs attached to ENIs, or for none.
    pub fn hooks(&mut self, there: bool) -> Plan {
        self.hooks = there;
        self.finish(Ops::default())
    }

    /// What of an ENI's settings packets meet, whoever said it.
    pub fn eni_in_force(&self, store: &Store, key: &EniKey) -> Option<EniInForce> {
        let eni = store.eni(key)?;
        let resim = self.resims.get(key).copied().unwrap_or_default();
        Some(settings::in_force(store, &self.settings, &resim, key, eni))
    }

    /// Index of an ENI.
    pub fn eni_index(&self, eni: &EniKey) -> Option<u32> {
        self.ids.enis.id(eni)
    }

    /// The ENI of an index.
    pub fn eni_key(&self, index: u32) -> Option<&EniKey> {
        self.ids.enis.key(index)
    }

    /// Every ENI, by index.
    pub fn enis(&self) -> impl Iterator<Item = (u32, &EniKey)> {
        self.ids.enis.iter()
    }

    /// Id of a VNET, 1..=65,535.
    pub fn vnet_id(&self, vnet: &VnetName) -> Option<u16> {
        self.ids.vnets.id(vnet)?.try_into().ok()
    }

    /// The VNET of an id.
    pub fn vnet(&self, id: u16) -> Option<&VnetName> {
        self.ids.vnets.key(id.into())
    }

    /// Id of a route group, from 1.
    pub fn route_group_id(&self, group: &RouteGroupId) -> Option<u32> {
        self.ids.route_groups.id(group)
    }

    /// The route group of an id.
    pub fn route_group(&self, id: u32) -> Option<&RouteGroupId> {
        self.ids.route_groups.key(id)
    }

    /// Id of an ACL group, from 1.
    pub fn acl_group_id(&self, group: &AclGroupId) -> Option<u32> {
        self.ids.acl_groups.id(group)
    }

    /// The ACL group of an id.
    pub fn acl_group(&self, id: u32) -> Option<&AclGroupId> {
        self.ids.acl_groups.key(id)
    }

    /// The tunnel of an id.
    pub fn tunnel(&self, id: u32) -> Option<&TunnelName> {
        self.ids.tunnels.key(id)
    }

    /// The port map of an id.
    pub fn port_map(&self, id: u32) -> Option<&PortMapId> {
        self.ids.port_maps.key(id)
    }

    /// Id of a meter policy, from 1.
    pub fn meter_policy_id(&self, policy: &MeterPolicyId) -> Option<u32> {
        self.ids.meter_policies.id(policy)
    }

    /// The meter policy of an id.
    pub fn meter_policy(&self, id: u32) -> Option<&MeterPolicyId> {
        self.ids.meter_policies.key(id)
    }

    fn run<'a>(
        &mut self,
        store: &Store,
        edits: impl Iterator<Item = Edit<'a>>,
        taken_back: Option<Vec<EniKey>>,
    ) -> Result<Plan, PlanError> {
        let edits: Vec<Edit<'_>> = edits.filter(|edit| edit.old != edit.new).collect();
        let turnover = self.ids.turnover(&edits)?;
        // From here on nothing fails.
        self.flows_before = self.flows;
        self.resims_before.clone_from(&self.resims);
        resim::prune(&mut self.resims, store, &edits);
        let mut ops = Ops::default();
        let forward = taken_back.is_none();
        // ENIs whose epoch moves: on, or back.
        let mut bumped = taken_back.unwrap_or_default();

        // What goes, goes by the ids it came with; what comes may get the ids of what went.
        let acl_groups = acl::touched(store, &edits);
        for edit in &edits {
            if let Some(old) = edit.old {
                self.withdraw(edit, old, &mut ops);
            }
        }
        for group in &acl_groups {
            if store.acl_rule_count(group) == 0 {
                ops.remove_acl(self.ids.acl_group(group));
            }
        }
        self.ids.apply(turnover);
        for edit in &edits {
            if let Some(new) = edit.new {
                self.place(store, edit, new, &mut ops);
            }
        }
        self.acl_lists.forget(&edits);
        for group in acl_groups {
            if let Some(rules) = acl::rules(store, group, &mut self.acl_lists) {
                ops.put_acl(self.ids.acl_group(group), rules);
            }
        }

        self.inbound.flush(&mut ops);
        self.meter_rules.flush(&mut ops);
        self.pas.flush(&mut ops);
        self.permits.update(store, &self.ids, &edits, &mut ops);
        if forward && self.settings.resimulate_changes {
            for key in resim::concerned(store, &edits) {
                // One that is new has no flows.
                if let Some(index) = self.eni_index(&key)
                    && self.enis.contains_key(&index)
                {
                    self.bump_epoch(&key, index);
                    bumped.push(key);
                }
            }
        }
        self.update_enis(store, &edits, &bumped, &mut ops);
        let workers = self.settings.workers;
        self.limits
            .update(store, &self.ids, workers, &edits, &mut ops);
        self.update_globals(store, &mut ops);
        Ok(self.finish(ops))
    }

    /// Rewrites the rows of ENIs that an edit is about, where they differ. A VNET is not among
    /// the causes: neither its VNI nor an ENI's VNET changes in the life of the object.
    fn update_enis(&mut self, store: &Store, edits: &[Edit<'_>], bumped: &[EniKey], ops: &mut Ops) {
        let mut touched: BTreeSet<&EniKey> = bumped.iter().collect();
        for edit in edits {
            match edit.key {
                ObjectKey::Appliance(_) => touched.extend(store.enis().map(|(key, _)| key)),
                ObjectKey::Eni(eni)
                | ObjectKey::EniRoute(eni)
                | ObjectKey::AclIn(eni, _)
                | ObjectKey::AclOut(eni, _)
                | ObjectKey::EniSettings(eni) => {
                    touched.insert(eni);
                }
                ObjectKey::RouteGroupSettings(group) => touched.extend(store.enis_bound_to(group)),
                _ => {}
            }
        }
        for key in touched {
            if let Some(eni) = store.eni(key) {
                self.put_eni(store, key, eni, ops);
            }
        }
    }

    fn put_eni(&mut self, store: &Store, key: &EniKey, eni: &Eni, ops: &mut Ops) {
        let index = self.ids.eni(key);
        let resim = self.resims.get(key).copied().unwrap_or_default();
        let row = rows::eni(store, &self.ids, &self.settings, &resim, key, eni);
        if self.enis.insert(index, row) != Some(row) {
            ops.put_index(Table::Eni, index, &row);
        }
    }

    fn update_globals(&mut self, store: &Store, ops: &mut Ops) {
        self.switch = store.switch();
        let card = settings::with_switch(&self.settings, self.switch);
        let row = rows::globals(store.appliance().map(|(_, a)| a), &card);
        if self.globals.replace(row) != Some(row) {
            ops.put_index(Table::Globals, 0, &row);
        }
        self.underlay.ports(&self.settings.port_mtus, ops);
    }

    fn finish(&mut self, ops: Ops) -> Plan {
        let census = self.census.shape();
        self.flows = self.flows.or(census.flows);
        self.flows.epoch |= self.settings.resimulate_changes;
        let shape = Shape {
            underlay_routes: self.underlay.has_routes(),
            drop_unmapped_ports: census.port_map && self.settings.drop_unmapped_ports,
            bandwidth: self.limits.bandwidth(),
            packet_rate: self.limits.packet_rate(),
            admission: self.limits.admission(),
            flows: self.flows,
            sport_security: self
                .switch
                .sport_security
                .unwrap_or(self.settings.sport_security),
            mtu: census.mtu || settings::card_mtu(&self.settings).is_some(),
            port_mtu: settings::least_port_mtu(&self.settings),
            dscp_pipe: census.dscp_pipe || self.settings.dscp_pipe.is_some(),
            timeouts: self.settings.timeouts,
            tcp_nonsyn_drop: self.settings.tcp_nonsyn_drop,
            tcp_reset: self.settings.tcp_reset && (census.acl_out | census.acl_in) != 0,
            hooks: self.hooks,
            ..census
        };
        let before = self.shape.replace(shape.clone());
        Plan {
            shape_changed: before.as_ref() != Some(&shape),
            shape,
            delta: ops.into_delta(),
            recurring: std::mem::take(&mut self.recurring),
        }
    }
}
