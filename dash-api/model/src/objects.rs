//! DASH objects after validation: a value of these types cannot be malformed on its own.
//! What needs other objects (a VNET that must exist, a MAC that must be unique) is the
//! [`Store`](crate::Store)'s to check.
//!
//! Field meanings follow the messages of sonic-dash-api and the SAI DASH headers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::key::{
    AclGroupId, MeterPolicyId, PortMapId, QosName, RouteGroupId, RoutingType, SourcePrefix, Table,
    TagName, TunnelName, VnetName,
};
use crate::net::{IpPrefix, Mac, MaskedIp, PortRange, Vni, VniRange};

/// The IP family an ACL group, a tag or a meter policy is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A metering class, or bits of one: at most 12 bits, as an ENI has 4,095 buckets. 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MeterClass(u16);

impl MeterClass {
    /// The highest class, and every bit there is.
    pub const MAX: Self = Self(0xfff);

    /// `None` for a class that ENIs have no bucket for.
    pub fn new(class: u64) -> Option<Self> {
        let class = u16::try_from(class).ok()?;
        (class <= Self::MAX.0).then_some(Self(class))
    }

    /// The bits of a mask of the class that there can be.
    pub fn of_mask(mask: u32) -> Self {
        Self((mask & u32::from(Self::MAX.0)) as u16)
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// What a route or an inbound rule does to the metering class of new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MeterBits {
    /// Bits it sets.
    pub or: MeterClass,
    /// Bits it leaves, of all that are set.
    pub and: MeterClass,
}

impl Default for MeterBits {
    /// None set, all left.
    fn default() -> Self {
        Self {
            or: MeterClass::default(),
            and: MeterClass::MAX,
        }
    }
}

/// `DASH_APPLIANCE_TABLE`: the card. Singleton.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appliance {
    /// The VIP every received outer packet must carry, and the source of every encap sent.
    pub sip: Ipv4Addr,
    /// VNI of VM-to-appliance traffic: packets with it are outbound.
    pub vm_vni: Vni,
    /// Trusted VNIs for every ENI; empty and no ENI list means no check (choice A5).
    pub trusted_vnis: Vec<VniRange>,
    /// How packets with `vm_vni` are taken.
    pub outbound_lookup: OutboundLookup,
}

/// `outbound_direction_lookup` of the appliance: what packets with the VMs' VNI are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboundLookup {
    /// Outbound; the ENI is the inner source.
    #[default]
    SrcMac,
    /// Inbound like those with any other VNI; the ENI is the inner destination (A30).
    DstMac,
}

/// `DASH_VNET_TABLE`: a virtual network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vnet {
    /// VXLAN VNI of the network; cannot change in the life of the object.
    pub vni: Vni,
}

/// `DASH_ENI_TABLE`: one virtual NIC and the anchor of its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eni {
    /// MAC of the VM, unicast and unique on the card. Cannot change.
    pub mac: Mac,
    /// PA of the host the VM is on: destination of inbound encaps.
    pub underlay_ip: Ipv4Addr,
    /// Forwards only when true.
    pub enabled: bool,
    /// VNET the ENI is in. Cannot change.
    pub vnet: Option<VnetName>,
    /// Trusted VNIs of this ENI, in addition to the appliance's.
    pub trusted_vnis: Vec<VniRange>,
    /// Bits of its own that the ENI puts into private-link sources.
    pub pl_sip: Option<MaskedIp>,
    /// Outer source of private-link encaps; unset for the VIP (A12).
    pub pl_underlay_sip: Option<Ipv4Addr>,
    /// What the ENI stands for. Cannot change.
    pub mode: EniMode,
    /// Redirects of load balancers change no flow.
    pub disable_fast_path: bool,
    /// Says the metering class of flows that nothing else gave one, of inner IPv4.
    pub v4_meter_policy: Option<MeterPolicyId>,
    /// The same for inner IPv6.
    pub v6_meter_policy: Option<MeterPolicyId>,
    /// Limits; a profile that does not exist limits nothing.
    pub qos: Option<QosName>,
}

/// What an ENI stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EniMode {
    /// A VM's network interface.
    #[default]
    Vm,
    /// A floating NIC, between two networks: packets come to its MAC from both, need an inbound rule,
    /// and leave by the ENI's outbound policy (A30).
    Floating,
}

/// `DASH_ENI_ROUTE_TABLE`: which route group an ENI uses for outbound packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EniRoute {
    /// The bound group.
    pub group: RouteGroupId,
}

/// `DASH_ROUTE_GROUP_TABLE`: a named set of outbound routes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RouteGroup {
    /// Version the controller gave; echoed in the result row.
    pub version: String,
}

/// `DASH_ROUTE_TABLE`: one outbound route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What a packet that matches does.
    pub action: RouteAction,
    /// Outer source of the route's private-link and service-tunnel encaps (A12).
    pub underlay_sip: Option<Ipv4Addr>,
    /// Tunnel that packets leave in, unless their mapping names another (A25).
    pub tunnel: Option<TunnelName>,
    /// What it does to the metering class.
    pub meter: MeterBits,
}

/// Routing types an outbound route may have in this release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Leaves without any encap.
    Direct,
    /// Mapping look-up of the packet's destination in this VNET.
    Vnet(VnetName),
    /// Mapping look-up of `overlay_ip` (or the packet's destination, A10) in this VNET.
    VnetDirect {
        /// The VNET whose mappings are searched.
        vnet: VnetName,
        /// Look-up key instead of the packet's destination.
        overlay_ip: Option<IpAddr>,
    },
    /// IPv4 becomes IPv6, in an encap of the routing type's kind.
    ServiceTunnel(Box<ServiceTunnel>),
    /// Drops (A17).
    Drop,
}

/// What a service-tunnel route does: each IPv4 address becomes an IPv6 one, as
/// `address & !mask | addr & mask`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTunnel {
    /// What sources become.
    pub overlay_sip: MaskedIp,
    /// What destinations become.
    pub overlay_dip: MaskedIp,
    /// Outer destination; unset for the packet's own destination (A11).
    pub underlay_dip: Option<Ipv4Addr>,
}

/// `DASH_ROUTE_RULE_TABLE`: one inbound rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// Accept or drop (A18).
    pub action: RuleAction,
    /// IP protocol of the customer's packets that it is for; `None` for all (A18).
    pub protocol: Option<u8>,
    /// VNET whose PAs are checked; needed when `pa_validation` is set.
    pub vnet: Option<VnetName>,
    /// Outer source must be a PA of `vnet`. Unset in the message means false (A4).
    pub pa_validation: bool,
    /// What it does to the metering class.
    pub meter: MeterBits,
}

/// What an inbound route rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// Take the packet for the ENI.
    Decap,
    /// Drop it.
    Drop,
}

/// `DASH_ROUTING_TYPE_TABLE`: what a routing type does; only its static encap matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingTypeDef {
    /// Encap of the first `staticencap` item, if there is one.
    pub static_encap: Option<StaticEncap>,
}

/// A `staticencap` item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticEncap {
    /// Kind of the encap.
    pub kind: EncapType,
    /// Its VNI or VSID; unset where the VNET's is used.
    pub key: Option<Vni>,
}

/// Encapsulations, with SAI's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EncapType {
    /// `SAI_DASH_ENCAPSULATION_VXLAN`.
    Vxlan = 1,
    /// `SAI_DASH_ENCAPSULATION_NVGRE`.
    Nvgre = 2,
}

/// `DASH_VNET_MAPPING_TABLE`: customer address to provider address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VnetMapping {
    /// PA: where the encap goes.
    pub underlay_ip: Ipv4Addr,
    /// Inner destination MAC to write; `None` leaves the packet's.
    pub mac: Option<Mac>,
    /// Encap with the destination VNET's VNI, not the ENI's.
    pub use_dst_vni: bool,
    /// IPv4 becomes IPv6, in an encap of the routing type's kind.
    pub private_link: Option<Box<PrivateLink>>,
    /// Tunnel that packets leave in; unset for the route's (A25).
    pub tunnel: Option<TunnelName>,
    /// Bits of the metering class it sets.
    pub meter_or: MeterClass,
}

/// What a private-link mapping does: each IPv4 address becomes an IPv6 one, as
/// `address & !mask | addr`; of the source the ENI's own bits then are put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateLink {
    /// What sources become.
    pub overlay_sip: MaskedIp,
    /// What destinations become.
    pub overlay_dip: MaskedIp,
    /// Ports that lead to other services.
    pub port_map: Option<PortMapId>,
    /// The routing type is `privatelinknsg`, which may have another encap.
    pub nsg: bool,
}

/// `DASH_TUNNEL_TABLE`: an encap to one of several endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Where it goes, one or more, each once, in order; a flow keeps to one.
    pub endpoints: Vec<Ipv4Addr>,
    /// Kind of the encap.
    pub kind: EncapType,
    /// VNI or VSID.
    pub key: Vni,
    /// Bits of the metering class it sets (A35).
    pub meter_or: MeterClass,
}

/// `DASH_OUTBOUND_PORT_MAP_TABLE`: a set of port ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PortMap;

/// `DASH_OUTBOUND_PORT_MAP_RANGE_TABLE`: what a range of destination ports leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortMapRange {
    /// The private link as it is.
    Skip,
    /// A backend of its own.
    Service {
        /// The backend: outer destination, and last 32 bits of the inner one.
        backend_ip: Ipv4Addr,
        /// What the range's first port becomes; the others follow.
        backend_port_base: u16,
    },
}

/// `DASH_PA_VALIDATION_TABLE`: sources that PA validation takes beside the PAs of mappings, in every VNET
/// of a VNI (A44).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaValidation {
    /// The sources.
    pub prefixes: Vec<SourcePrefix>,
}

/// `DASH_ACL_GROUP_TABLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclGroup {
    /// Family of every rule of the group.
    pub family: Family,
}

/// `DASH_ACL_RULE_TABLE`: all present fields must match; an empty list matches anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclRule {
    /// Lower number is evaluated first.
    pub priority: u32,
    /// Verdict.
    pub action: AclAction,
    /// Final for the whole ACL, or may a later stage override it.
    pub terminating: bool,
    /// IP protocols; empty: all.
    pub protocols: Vec<u8>,
    /// Source prefixes, in union with `src_tags`.
    pub src_prefixes: Vec<IpPrefix>,
    /// Destination prefixes, in union with `dst_tags`.
    pub dst_prefixes: Vec<IpPrefix>,
    /// Source ports; empty: all.
    pub src_ports: Vec<PortRange>,
    /// Destination ports; empty: all.
    pub dst_ports: Vec<PortRange>,
    /// Source tags; a tag that does not exist matches nothing (A22).
    pub src_tags: Vec<TagName>,
    /// Destination tags.
    pub dst_tags: Vec<TagName>,
}

/// Verdict of an ACL rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclAction {
    /// Let pass.
    Permit,
    /// Drop.
    Deny,
}

/// `DASH_ACL_IN_TABLE` / `DASH_ACL_OUT_TABLE`: groups of one stage of one ENI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclBind {
    /// Group for IPv4 packets.
    pub v4: Option<AclGroupId>,
    /// Group for IPv6 packets.
    pub v6: Option<AclGroupId>,
}

/// `DASH_PREFIX_TAG_TABLE`: a named prefix list, expanded live (A22). Empty matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixTag {
    /// Family of the prefixes; cannot change.
    pub family: Family,
    /// The list.
    pub prefixes: Vec<IpPrefix>,
}

/// `DASH_METER_POLICY_TABLE`: rules that give a metering class by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterPolicy {
    /// Family of the rules and of the packets; cannot change.
    pub family: Family,
}

/// `DASH_METER_RULE_TABLE`: a class for the far end of packets: the inner destination outbound, the
/// inner source inbound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterRule {
    /// Lower number wins; of equal ones the longer prefix, and of one prefix the rule whose number comes
    /// first as text.
    pub priority: u32,
    /// Addresses it is for.
    pub prefix: IpPrefix,
    /// The class; 0 is not metered.
    pub class: MeterClass,
}

/// `DASH_QOS_TABLE`: limits of the ENIs that name it. 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Qos {
    /// Inner frames of each direction, kbit/s (A27).
    pub bandwidth_kbps: u32,
    /// New flows a second.
    pub connections_per_second: u32,
    /// Live flows.
    pub flows: u32,
}

impl RouteAction {
    /// The VNET whose mappings the route searches.
    pub fn vnet(&self) -> Option<&VnetName> {
        match self {
            Self::Vnet(vnet) | Self::VnetDirect { vnet, .. } => Some(vnet),
            Self::Direct | Self::ServiceTunnel(_) | Self::Drop => None,
        }
    }
}

impl From<RouteAction> for Route {
    /// A route that does this and nothing more.
    fn from(action: RouteAction) -> Self {
        Self {
            action,
            underlay_sip: None,
            tunnel: None,
            meter: MeterBits::default(),
        }
    }
}

impl Route {
    /// The routing type whose static encap the route's packets get.
    pub fn encap_of(&self) -> Option<RoutingType> {
        matches!(self.action, RouteAction::ServiceTunnel(_)).then_some(RoutingType::ServiceTunnel)
    }
}

impl VnetMapping {
    /// The routing type whose static encap the mapping's packets get.
    pub fn encap_of(&self) -> Option<RoutingType> {
        let link = self.private_link.as_ref()?;
        Some(match link.nsg {
            true => RoutingType::PrivateLinkNsg,
            false => RoutingType::PrivateLink,
        })
    }

    /// The port map it names.
    pub fn port_map(&self) -> Option<&PortMapId> {
        self.private_link.as_ref()?.port_map.as_ref()
    }
}

/// `DASHWIRE_ENI_TABLE`: attributes of an ENI that SAI has and SONiC's tables have no field for, or
/// that orchagent does not pass on. They go with the ENI. What is unset is as the card has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EniSettings {
    /// DSCP of encaps (`SAI_ENI_ATTR_DASH_TUNNEL_DSCP_MODE`, `SAI_ENI_ATTR_DSCP`).
    pub dscp: Option<DscpMode>,
    /// Redirects of load balancers change no flow; unset, `DASH_ENI_TABLE` says it.
    pub disable_fast_path: Option<bool>,
    /// Most flows that a worker decides again in a second, 0 for any number
    /// (`SAI_ENI_ATTR_MAX_RESIMULATED_FLOW_PER_SECOND`).
    pub max_resimulated: Option<u32>,
    /// Longest IP packet that may leave, its outermost header counted. SAI has none for an ENI.
    pub mtu: Option<u16>,
    /// Replies go where the first side's packets come from, and follow when that changes
    /// (`SAI_ENI_ATTR_ENABLE_REVERSE_TUNNEL_LEARNING`).
    pub learn: bool,
    /// Outer source of replies that do (`SAI_ENI_ATTR_REVERSE_TUNNEL_SIP`); unset for the VIP.
    pub reverse_sip: Option<Ipv4Addr>,
    /// Packets a second in each direction, 0 for any number (`SAI_ENI_ATTR_PPS`).
    pub packets_per_second: Option<u32>,
}

/// Where the DSCP of encaps comes from, as `sai_dash_tunnel_dscp_mode_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DscpMode {
    /// From the received outer header.
    Preserve,
    /// It is this number, 0 to 63.
    Pipe(u8),
}

/// `DASHWIRE_ROUTE_GROUP_TABLE`: attributes of a route group that SONiC's tables have no field for. They
/// go with the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteGroupSettings {
    /// Outbound packets without a flow are dropped (`SAI_OUTBOUND_ROUTING_GROUP_ATTR_DISABLED`).
    pub disabled: bool,
}

/// `SWITCH_TABLE`: what SONiC's switch has of VXLAN. What is unset is as the command line has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switch {
    /// UDP port of VXLAN.
    pub vxlan_port: Option<u16>,
    /// Lowest UDP source port of encaps.
    pub sport_base: Option<u16>,
    /// Bits of the source port that flows are spread over, at most 16.
    pub sport_bits: Option<u8>,
    /// VXLAN from other source ports is dropped.
    pub sport_security: Option<bool>,
}

/// One object of a table that acts, or the bytes of one that is only stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the table of its name")]
pub enum Object {
    Appliance(Appliance),
    RoutingType(RoutingTypeDef),
    Vnet(Vnet),
    Eni(Eni),
    RouteGroup(RouteGroup),
    Route(Route),
    EniRoute(EniRoute),
    RouteRule(RouteRule),
    VnetMapping(VnetMapping),
    AclGroup(AclGroup),
    AclRule(Arc<AclRule>),
    AclIn(AclBind),
    AclOut(AclBind),
    PrefixTag(Arc<PrefixTag>),
    Tunnel(Tunnel),
    PortMap(PortMap),
    PortMapRange(PortMapRange),
    PaValidation(PaValidation),
    MeterPolicy(MeterPolicy),
    MeterRule(MeterRule),
    Qos(Qos),
    EniSettings(EniSettings),
    RouteGroupSettings(RouteGroupSettings),
    Switch(Switch),
    /// A DASH table this release stores, reads back and does not act on.
    Opaque,
}

impl Object {
    /// The table the object belongs in; `None` for [`Object::Opaque`].
    pub fn table(&self) -> Option<Table> {
        Some(match self {
            Self::Appliance(_) => Table::Appliance,
            Self::RoutingType(_) => Table::RoutingType,
            Self::Vnet(_) => Table::Vnet,
            Self::Eni(_) => Table::Eni,
            Self::RouteGroup(_) => Table::RouteGroup,
            Self::Route(_) => Table::Route,
            Self::EniRoute(_) => Table::EniRoute,
            Self::RouteRule(_) => Table::RouteRule,
            Self::VnetMapping(_) => Table::VnetMapping,
            Self::AclGroup(_) => Table::AclGroup,
            Self::AclRule(_) => Table::AclRule,
            Self::AclIn(_) => Table::AclIn,
            Self::AclOut(_) => Table::AclOut,
            Self::PrefixTag(_) => Table::PrefixTag,
            Self::Tunnel(_) => Table::Tunnel,
            Self::PortMap(_) => Table::PortMap,
            Self::PortMapRange(_) => Table::PortMapRange,
            Self::PaValidation(_) => Table::PaValidation,
            Self::MeterPolicy(_) => Table::MeterPolicy,
            Self::MeterRule(_) => Table::MeterRule,
            Self::Qos(_) => Table::Qos,
            Self::EniSettings(_) => Table::EniSettings,
            Self::RouteGroupSettings(_) => Table::RouteGroupSettings,
            Self::Switch(_) => Table::Switch,
            Self::Opaque => return None,
        })
    }
}
