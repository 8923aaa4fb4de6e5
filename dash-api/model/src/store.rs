//! The rows of every table, consistent after each commit.
//!
//! One owner writes ([`Store::commit`], [`Store::revert`]); readers borrow. Between commits:
//!
//! * every reference leads to a row, except an ACL rule's tags (A22), an ENI's empty VNET and its QoS
//!   profile;
//! * there is one appliance at most, and one whenever there is a VNET or an ENI;
//! * no two ENIs have one MAC;
//! * a routing type whose encap something needs has one, with a key; a tunnel has an endpoint;
//! * no two ranges of a port map meet;
//! * an ENI's meter policies are of the families of the fields that name them, and their rules too;
//! * a bound ACL group has a rule and is of the family of the field that names it, and its rules'
//!   prefixes and tags are of that family.
//!
//! Choices `A1`..`A53` are listed in the project's DASH reference, section 7.4.

use std::net::IpAddr;
use std::sync::Arc;

use crate::key::{
    AclGroupId, ApplianceId, EniKey, MeterPolicyId, ObjectKey, PortMapId, QosName, RouteGroupId,
    RouteRuleKey, RoutingType, Table, TagName, TunnelName, VnetName,
};
use crate::net::{IpPrefix, Mac, PortRange, Vni};
use crate::objects::{
    AclBind, AclGroup, AclRule, Appliance, Eni, EniRoute, EniSettings, MeterPolicy, MeterRule,
    Object, PaValidation, PortMapRange, PrefixTag, Qos, Route, RouteGroup, RouteGroupSettings,
    RouteRule, RoutingTypeDef, Switch, Tunnel, Vnet, VnetMapping,
};
use crate::txn::Entry;

mod check;
mod commit;
mod refs;
mod rows;
#[cfg(test)]
mod tests;

use refs::Refs;
use rows::Rows;

/// What the store allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// Lets routes of a bound route group and rules of a bound ACL group or meter policy change in
    /// place. Off as in SONiC, where the atomic way is a new group and a rebind (A24).
    pub update_bound_groups: bool,
    /// Refuses rows of tables that nothing acts on, which are stored otherwise.
    pub strict: bool,
}

/// Every row, and who uses what.
#[derive(Clone, Debug, Default)]
pub struct Store {
    options: StoreOptions,
    rows: Rows,
    refs: Refs,
}

/// Takes the struct of a table out of an entry. The rows hold no other variant in that table, so
/// `None` means that there is no entry.
macro_rules! object {
    ($entry:expr, $variant:ident) => {
        match $entry.map(|e| &e.object) {
            Some(Object::$variant(object)) => Some(object),
            _ => None,
        }
    };
}

impl Store {
    /// A store without rows.
    pub fn new(options: StoreOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// What the store was made to allow.
    pub fn options(&self) -> StoreOptions {
        self.options
    }

    /// A row of any table.
    pub fn get(&self, key: &ObjectKey) -> Option<&Entry> {
        self.rows.get(key)
    }

    /// Every row, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectKey, &Entry)> {
        self.rows.iter()
    }

    /// Rows of the named table, sorted by key; none for a table without rows.
    pub fn iter_table(&self, table: &str) -> impl Iterator<Item = (ObjectKey, &Entry)> + use<'_> {
        match Table::from_name(table) {
            Some(table) => self.rows.iter_table(table),
            None => self.rows.iter_opaque(&Arc::from(table)),
        }
    }

    /// Every table that has rows, with their number.
    pub fn tables(&self) -> impl Iterator<Item = (&str, usize)> {
        let acting = Table::ALL
            .into_iter()
            .map(|table| (table.name(), self.rows.count(table)));
        let opaque = self
            .rows
            .opaque_tables()
            .map(|table| (&**table, self.rows.opaque.count(table)));
        acting.chain(opaque).filter(|(_, count)| *count > 0)
    }

    /// Number of rows in the named table.
    pub fn count(&self, table: &str) -> usize {
        match Table::from_name(table) {
            Some(table) => self.rows.count(table),
            None => self.rows.opaque.count(&Arc::from(table)),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without any row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The appliance.
    pub fn appliance(&self) -> Option<(&ApplianceId, &Appliance)> {
        let (id, entry) = self.rows.appliances.first_key_value()?;
        Some((id, object!(Some(entry), Appliance)?))
    }

    /// A routing type that was defined; the built-in defaults are the planner's.
    pub fn routing_type(&self, kind: RoutingType) -> Option<&RoutingTypeDef> {
        object!(self.rows.routing_types.get(&kind), RoutingType)
    }

    /// A VNET.
    pub fn vnet(&self, vnet: &VnetName) -> Option<&Vnet> {
        object!(self.rows.vnets.get(vnet), Vnet)
    }

    /// Every VNET, by name.
    pub fn vnets(&self) -> impl Iterator<Item = (&VnetName, &Vnet)> {
        let rows = self.rows.vnets.iter();
        rows.filter_map(|(key, entry)| Some((key, object!(Some(entry), Vnet)?)))
    }

    /// An ENI.
    pub fn eni(&self, eni: &EniKey) -> Option<&Eni> {
        object!(self.rows.enis.get(eni), Eni)
    }

    /// The ENI of a MAC.
    pub fn eni_by_mac(&self, mac: Mac) -> Option<(&EniKey, &Eni)> {
        let key = self.refs.mac_enis.first(&mac)?;
        Some((key, self.eni(key)?))
    }

    /// Every ENI, by key.
    pub fn enis(&self) -> impl Iterator<Item = (&EniKey, &Eni)> {
        let rows = self.rows.enis.iter();
        rows.filter_map(|(key, entry)| Some((key, object!(Some(entry), Eni)?)))
    }

    /// The route group an ENI uses.
    pub fn eni_route(&self, eni: &EniKey) -> Option<&EniRoute> {
        object!(self.rows.eni_routes.get(eni), EniRoute)
    }

    /// A route group.
    pub fn route_group(&self, group: &RouteGroupId) -> Option<&RouteGroup> {
        object!(self.rows.route_groups.get(group), RouteGroup)
    }

    /// Every route group, by id.
    pub fn route_groups(&self) -> impl Iterator<Item = (&RouteGroupId, &RouteGroup)> {
        let rows = self.rows.route_groups.iter();
        rows.filter_map(|(key, entry)| Some((key, object!(Some(entry), RouteGroup)?)))
    }

    /// One route of a group, by its exact prefix.
    pub fn route(&self, group: &RouteGroupId, prefix: &IpPrefix) -> Option<&Route> {
        object!(self.rows.routes.get(group, prefix), Route)
    }

    /// Routes of a group: IPv4 first, by address, then length.
    pub fn routes(
        &self,
        group: &RouteGroupId,
    ) -> impl Iterator<Item = (IpPrefix, &Route)> + use<'_> {
        let rows = self.rows.routes.children(group);
        rows.filter_map(|(prefix, entry)| Some((*prefix, object!(Some(entry), Route)?)))
    }

    /// Number of routes of a group.
    pub fn route_count(&self, group: &RouteGroupId) -> usize {
        self.rows.routes.count(group)
    }

    /// One mapping of a VNET.
    pub fn mapping(&self, vnet: &VnetName, ip: IpAddr) -> Option<&VnetMapping> {
        object!(self.rows.mappings.get(vnet, &ip), VnetMapping)
    }

    /// Mappings of a VNET: IPv4 first, by address.
    pub fn mappings(
        &self,
        vnet: &VnetName,
    ) -> impl Iterator<Item = (IpAddr, &VnetMapping)> + use<'_> {
        let rows = self.rows.mappings.children(vnet);
        rows.filter_map(|(ip, entry)| Some((*ip, object!(Some(entry), VnetMapping)?)))
    }

    /// Number of mappings of a VNET.
    pub fn mapping_count(&self, vnet: &VnetName) -> usize {
        self.rows.mappings.count(vnet)
    }

    /// Inbound route rules of an ENI, by VNI, source, priority.
    pub fn route_rules(
        &self,
        eni: &EniKey,
    ) -> impl Iterator<Item = (&RouteRuleKey, &RouteRule)> + use<'_> {
        let rows = self.rows.route_rules.children(eni);
        rows.filter_map(|(key, entry)| Some((key, object!(Some(entry), RouteRule)?)))
    }

    /// An ACL group.
    pub fn acl_group(&self, group: &AclGroupId) -> Option<&AclGroup> {
        object!(self.rows.acl_groups.get(group), AclGroup)
    }

    /// Every ACL group, by id.
    pub fn acl_groups(&self) -> impl Iterator<Item = (&AclGroupId, &AclGroup)> {
        let rows = self.rows.acl_groups.iter();
        rows.filter_map(|(key, entry)| Some((key, object!(Some(entry), AclGroup)?)))
    }

    /// Rules of an ACL group by the text of their number, which is not their priority.
    pub fn acl_rules(
        &self,
        group: &AclGroupId,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<AclRule>)> + use<'_> {
        let rows = self.rows.acl_rules.children(group);
        rows.filter_map(|(key, entry)| Some((key, object!(Some(entry), AclRule)?)))
    }

    /// Number of rules of an ACL group.
    pub fn acl_rule_count(&self, group: &AclGroupId) -> usize {
        self.rows.acl_rules.count(group)
    }

    /// Groups bound for packets to the VM at a stage (1..=5).
    pub fn acl_in(&self, eni: &EniKey, stage: u8) -> Option<&AclBind> {
        object!(self.rows.acl_in.get(eni, &stage), AclIn)
    }

    /// Groups bound for packets from the VM at a stage (1..=5).
    pub fn acl_out(&self, eni: &EniKey, stage: u8) -> Option<&AclBind> {
        object!(self.rows.acl_out.get(eni, &stage), AclOut)
    }

    /// A prefix tag.
    pub fn tag(&self, tag: &TagName) -> Option<&Arc<PrefixTag>> {
        object!(self.rows.tags.get(tag), PrefixTag)
    }

    /// Every prefix tag, by name.
    pub fn tags(&self) -> impl Iterator<Item = (&TagName, &Arc<PrefixTag>)> {
        let rows = self.rows.tags.iter();
        rows.filter_map(|(key, entry)| Some((key, object!(Some(entry), PrefixTag)?)))
    }

    /// A tunnel.
    pub fn tunnel(&self, tunnel: &TunnelName) -> Option<&Tunnel> {
        object!(self.rows.tunnels.get(tunnel), Tunnel)
    }

    /// Ranges of a port map, by their first port.
    pub fn port_ranges(
        &self,
        map: &PortMapId,
    ) -> impl Iterator<Item = (PortRange, &PortMapRange)> + use<'_> {
        let rows = self.rows.port_ranges.children(map);
        rows.filter_map(|(ports, entry)| Some((*ports, object!(Some(entry), PortMapRange)?)))
    }

    /// What PA validation takes beside the PAs of mappings in the VNETs of a VNI.
    pub fn pa_validation(&self, vni: Vni) -> Option<&PaValidation> {
        object!(self.rows.pa_validations.get(&vni), PaValidation)
    }

    /// A meter policy.
    pub fn meter_policy(&self, policy: &MeterPolicyId) -> Option<&MeterPolicy> {
        object!(self.rows.meter_policies.get(policy), MeterPolicy)
    }

    /// Every meter policy, by id.
    pub fn meter_policies(&self) -> impl Iterator<Item = (&MeterPolicyId, &MeterPolicy)> {
        let rows = self.rows.meter_policies.iter();
        rows.filter_map(|(key, entry)| Some((key, object!(Some(entry), MeterPolicy)?)))
    }

    /// Rules of a meter policy by the text of their number, which is not their priority.
    pub fn meter_rules(
        &self,
        policy: &MeterPolicyId,
    ) -> impl Iterator<Item = (&Arc<str>, &MeterRule)> + use<'_> {
        let rows = self.rows.meter_rules.children(policy);
        rows.filter_map(|(key, entry)| Some((key, object!(Some(entry), MeterRule)?)))
    }

    /// A QoS profile.
    pub fn qos(&self, qos: &QosName) -> Option<&Qos> {
        object!(self.rows.qos.get(qos), Qos)
    }

    /// ENIs that name a QoS profile, whether or not it exists.
    pub fn enis_of_qos(&self, qos: &QosName) -> impl Iterator<Item = &EniKey> + use<'_> {
        self.refs.qos_enis.users(qos)
    }

    /// What an ENI has beside SONiC's fields; all unset where nobody said anything.
    pub fn eni_settings(&self, eni: &EniKey) -> EniSettings {
        let row = object!(self.rows.eni_settings.get(eni), EniSettings);
        row.copied().unwrap_or_default()
    }

    /// What a route group has beside SONiC's fields.
    pub fn route_group_settings(&self, group: &RouteGroupId) -> RouteGroupSettings {
        let row = object!(
            self.rows.route_group_settings.get(group),
            RouteGroupSettings
        );
        row.copied().unwrap_or_default()
    }

    /// What SONiC's switch says of VXLAN; all unset where nobody said anything.
    pub fn switch(&self) -> Switch {
        let row = object!(self.rows.switch.get(&()), Switch);
        row.copied().unwrap_or_default()
    }

    /// ENIs in a VNET.
    pub fn enis_in_vnet(&self, vnet: &VnetName) -> impl Iterator<Item = &EniKey> + use<'_> {
        self.refs.vnet_enis.users(vnet)
    }

    /// ENIs with an inbound route rule that names a VNET.
    pub fn enis_with_rules_for(&self, vnet: &VnetName) -> impl Iterator<Item = &EniKey> + use<'_> {
        self.refs.vnet_rules.users(vnet)
    }

    /// Route groups with a route into a VNET.
    pub fn route_groups_into(
        &self,
        vnet: &VnetName,
    ) -> impl Iterator<Item = &RouteGroupId> + use<'_> {
        self.refs.vnet_routes.users(vnet)
    }

    /// ENIs that use a route group.
    pub fn enis_bound_to(&self, group: &RouteGroupId) -> impl Iterator<Item = &EniKey> + use<'_> {
        self.refs.route_group_enis.users(group)
    }

    /// Rows of `DASH_ACL_IN_TABLE` and `DASH_ACL_OUT_TABLE` that bind an ACL group.
    pub fn binds_of(&self, group: &AclGroupId) -> impl Iterator<Item = &ObjectKey> + use<'_> {
        self.refs.acl_group_binds.users(group)
    }

    /// ACL groups with a rule that names a tag, whether or not the tag exists.
    pub fn acl_groups_naming(&self, tag: &TagName) -> impl Iterator<Item = &AclGroupId> + use<'_> {
        self.refs.tag_groups.users(tag)
    }
}
