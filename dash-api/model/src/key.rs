//! Names of objects: a table and the key text of SONiC's redis form, parsed.
//!
//! [`ObjectKey`] is the only name of a row inside dashwire. `Display` prints it as SONiC does
//! (`DASH_ROUTE_TABLE:RouteGroup1:10.2.0.0/16`), [`ObjectKey::parse`] reads it back, and
//! `parse(display(key)) == key` for every key that [`ObjectKey::check`] accepts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::net::{IpPrefix, PortRange, Vni};

mod parse;

pub use parse::KeyError;

macro_rules! name {
    ($($(#[$doc:meta])* $t:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $t(Arc<str>);

        impl $t {
            /// The text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl From<&str> for $t {
            fn from(s: &str) -> Self { Self(s.into()) }
        }
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    )*};
}

name! {
    /// Key of an appliance.
    ApplianceId,
    /// Name of a VNET.
    VnetName,
    /// Key of an ENI, an opaque text (A2).
    EniKey,
    /// Id of an outbound route group.
    RouteGroupId,
    /// Id of an ACL group.
    AclGroupId,
    /// Name of a prefix tag.
    TagName,
    /// Name of a tunnel.
    TunnelName,
    /// Id of an outbound port map.
    PortMapId,
    /// Id of a meter policy.
    MeterPolicyId,
    /// Name of a QoS profile.
    QosName,
}

/// Key of the only row of `SWITCH_TABLE`.
const SWITCH: &str = "switch";

/// Routing types by SONiC's names; the key of `DASH_ROUTING_TYPE_TABLE` (case-insensitive).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are SONiC's")]
pub enum RoutingType {
    Direct,
    Vnet,
    VnetDirect,
    VnetEncap,
    Appliance,
    PrivateLink,
    PrivateLinkNsg,
    ServiceTunnel,
    Drop,
}

impl RoutingType {
    /// Every routing type, in the order of `dash.route_type.RoutingType`.
    pub const ALL: [Self; 9] = [
        Self::Direct,
        Self::Vnet,
        Self::VnetDirect,
        Self::VnetEncap,
        Self::Appliance,
        Self::PrivateLink,
        Self::PrivateLinkNsg,
        Self::ServiceTunnel,
        Self::Drop,
    ];

    /// The name as SONiC writes it in a key.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Vnet => "vnet",
            Self::VnetDirect => "vnet_direct",
            Self::VnetEncap => "vnet_encap",
            Self::Appliance => "appliance",
            Self::PrivateLink => "privatelink",
            Self::PrivateLinkNsg => "privatelinknsg",
            Self::ServiceTunnel => "servicetunnel",
            Self::Drop => "drop",
        }
    }
}

impl fmt::Display for RoutingType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The tables that act; a row of any other `DASH_*` table is only stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are SONiC's")]
pub enum Table {
    Appliance,
    RoutingType,
    Vnet,
    Eni,
    RouteGroup,
    Route,
    EniRoute,
    RouteRule,
    VnetMapping,
    AclGroup,
    AclRule,
    AclIn,
    AclOut,
    PrefixTag,
    Tunnel,
    PortMap,
    PortMapRange,
    PaValidation,
    MeterPolicy,
    MeterRule,
    Qos,
    /// Ours: what SAI has of an ENI and SONiC's tables have not.
    EniSettings,
    /// Ours: what SAI has of an outbound routing group and SONiC's tables have not.
    RouteGroupSettings,
    /// SONiC's own, of which what is about VXLAN acts.
    Switch,
}

impl Table {
    /// Every table, in the order [`ObjectKey`] sorts.
    pub const ALL: [Self; 24] = [
        Self::Appliance,
        Self::RoutingType,
        Self::Vnet,
        Self::Eni,
        Self::RouteGroup,
        Self::Route,
        Self::EniRoute,
        Self::RouteRule,
        Self::VnetMapping,
        Self::AclGroup,
        Self::AclRule,
        Self::AclIn,
        Self::AclOut,
        Self::PrefixTag,
        Self::Tunnel,
        Self::PortMap,
        Self::PortMapRange,
        Self::PaValidation,
        Self::MeterPolicy,
        Self::MeterRule,
        Self::Qos,
        Self::EniSettings,
        Self::RouteGroupSettings,
        Self::Switch,
    ];

    /// The name in APPL_DB.
    pub fn name(self) -> &'static str {
        match self {
            Self::Appliance => "DASH_APPLIANCE_TABLE",
            Self::RoutingType => "DASH_ROUTING_TYPE_TABLE",
            Self::Vnet => "DASH_VNET_TABLE",
            Self::Eni => "DASH_ENI_TABLE",
            Self::RouteGroup => "DASH_ROUTE_GROUP_TABLE",
            Self::Route => "DASH_ROUTE_TABLE",
            Self::EniRoute => "DASH_ENI_ROUTE_TABLE",
            Self::RouteRule => "DASH_ROUTE_RULE_TABLE",
            Self::VnetMapping => "DASH_VNET_MAPPING_TABLE",
            Self::AclGroup => "DASH_ACL_GROUP_TABLE",
            Self::AclRule => "DASH_ACL_RULE_TABLE",
            Self::AclIn => "DASH_ACL_IN_TABLE",
            Self::AclOut => "DASH_ACL_OUT_TABLE",
            Self::PrefixTag => "DASH_PREFIX_TAG_TABLE",
            Self::Tunnel => "DASH_TUNNEL_TABLE",
            Self::PortMap => "DASH_OUTBOUND_PORT_MAP_TABLE",
            Self::PortMapRange => "DASH_OUTBOUND_PORT_MAP_RANGE_TABLE",
            Self::PaValidation => "DASH_PA_VALIDATION_TABLE",
            Self::MeterPolicy => "DASH_METER_POLICY_TABLE",
            Self::MeterRule => "DASH_METER_RULE_TABLE",
            Self::Qos => "DASH_QOS_TABLE",
            Self::EniSettings => "DASHWIRE_ENI_TABLE",
            Self::RouteGroupSettings => "DASHWIRE_ROUTE_GROUP_TABLE",
            Self::Switch => "SWITCH_TABLE",
        }
    }

    /// The table of that name; `None` for one that does not act.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }
}

/// Names one row. `Display` prints `TABLE:key` as SONiC does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the table of its name")]
pub enum ObjectKey {
    Appliance(ApplianceId),
    RoutingType(RoutingType),
    Vnet(VnetName),
    Eni(EniKey),
    RouteGroup(RouteGroupId),
    Route(RouteGroupId, IpPrefix),
    EniRoute(EniKey),
    RouteRule(RouteRuleKey),
    VnetMapping(VnetName, IpAddr),
    AclGroup(AclGroupId),
    /// Group and rule number text (`rule_num` is opaque: the priority is in the rule).
    AclRule(AclGroupId, Arc<str>),
    /// ENI and stage 1..=5.
    AclIn(EniKey, u8),
    AclOut(EniKey, u8),
    PrefixTag(TagName),
    Tunnel(TunnelName),
    PortMap(PortMapId),
    /// Map and its first and last port.
    PortMapRange(PortMapId, PortRange),
    /// The VNI whose VNETs it is about.
    PaValidation(Vni),
    MeterPolicy(MeterPolicyId),
    /// Policy and rule number text (`rule_num` is opaque: the priority is in the rule).
    MeterRule(MeterPolicyId, Arc<str>),
    Qos(QosName),
    EniSettings(EniKey),
    RouteGroupSettings(RouteGroupId),
    /// The only row, whose key text is `switch`.
    Switch,
    /// Table name and key text of a row that is only stored.
    Opaque(Arc<str>, Arc<str>),
}

/// Key of an inbound route rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteRuleKey {
    /// The ENI whose inbound packets it matches.
    pub eni: EniKey,
    /// VNI of the received encap.
    pub vni: Vni,
    /// Outer source address matched.
    pub source: SourcePrefix,
    /// Lower number wins.
    pub priority: u32,
}

/// An IPv4 underlay prefix (the underlay is IPv4 in this release, A42).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourcePrefix {
    /// First address, host bits zero.
    pub addr: Ipv4Addr,
    /// Mask length, 0..=32.
    pub len: u8,
}

impl SourcePrefix {
    /// Host bits are masked off; `None` when `len` is above 32.
    pub fn new(addr: Ipv4Addr, len: u8) -> Option<Self> {
        let prefix = IpPrefix::new(IpAddr::V4(addr), len)?;
        let IpAddr::V4(addr) = prefix.addr() else {
            return None;
        };
        Some(Self { addr, len })
    }
}

impl fmt::Display for SourcePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl ObjectKey {
    /// The acting table of the row; `None` for a row that is only stored.
    pub fn table(&self) -> Option<Table> {
        Some(match self {
            Self::Appliance(_) => Table::Appliance,
            Self::RoutingType(_) => Table::RoutingType,
            Self::Vnet(_) => Table::Vnet,
            Self::Eni(_) => Table::Eni,
            Self::RouteGroup(_) => Table::RouteGroup,
            Self::Route(..) => Table::Route,
            Self::EniRoute(_) => Table::EniRoute,
            Self::RouteRule(_) => Table::RouteRule,
            Self::VnetMapping(..) => Table::VnetMapping,
            Self::AclGroup(_) => Table::AclGroup,
            Self::AclRule(..) => Table::AclRule,
            Self::AclIn(..) => Table::AclIn,
            Self::AclOut(..) => Table::AclOut,
            Self::PrefixTag(_) => Table::PrefixTag,
            Self::Tunnel(_) => Table::Tunnel,
            Self::PortMap(_) => Table::PortMap,
            Self::PortMapRange(..) => Table::PortMapRange,
            Self::PaValidation(_) => Table::PaValidation,
            Self::MeterPolicy(_) => Table::MeterPolicy,
            Self::MeterRule(..) => Table::MeterRule,
            Self::Qos(_) => Table::Qos,
            Self::EniSettings(_) => Table::EniSettings,
            Self::RouteGroupSettings(_) => Table::RouteGroupSettings,
            Self::Switch => Table::Switch,
            Self::Opaque(..) => return None,
        })
    }

    /// The table's name in APPL_DB.
    pub fn table_name(&self) -> &str {
        if let Self::Opaque(table, _) = self {
            return table;
        }
        self.table().map_or("", Table::name)
    }

    /// The key without its table, as gNMI's `[key=...]` carries it.
    pub fn key_text(&self) -> impl fmt::Display + '_ {
        KeyText(self)
    }
}

/// Prints the part of a key after the table's colon.
struct KeyText<'a>(&'a ObjectKey);

impl fmt::Display for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ObjectKey::Appliance(id) => write!(f, "{id}"),
            ObjectKey::RoutingType(kind) => write!(f, "{kind}"),
            ObjectKey::Vnet(vnet) => write!(f, "{vnet}"),
            ObjectKey::Eni(eni) | ObjectKey::EniRoute(eni) | ObjectKey::EniSettings(eni) => {
                write!(f, "{eni}")
            }
            ObjectKey::RouteGroup(group) | ObjectKey::RouteGroupSettings(group) => {
                write!(f, "{group}")
            }
            ObjectKey::Route(group, prefix) => write!(f, "{group}:{prefix}"),
            ObjectKey::RouteRule(RouteRuleKey {
                eni,
                vni,
                source,
                priority,
            }) => write!(f, "{eni}:{vni}:{source}:{priority}"),
            ObjectKey::VnetMapping(vnet, ip) => write!(f, "{vnet}:{ip}"),
            ObjectKey::Switch => f.write_str(SWITCH),
            ObjectKey::AclGroup(group) => write!(f, "{group}"),
            ObjectKey::AclRule(group, rule) => write!(f, "{group}:{rule}"),
            ObjectKey::AclIn(eni, stage) | ObjectKey::AclOut(eni, stage) => {
                write!(f, "{eni}:{stage}")
            }
            ObjectKey::PrefixTag(tag) => write!(f, "{tag}"),
            ObjectKey::Tunnel(tunnel) => write!(f, "{tunnel}"),
            ObjectKey::PortMap(map) => write!(f, "{map}"),
            ObjectKey::PortMapRange(map, PortRange { min, max }) => write!(f, "{map}:{min}-{max}"),
            ObjectKey::PaValidation(vni) => write!(f, "{vni}"),
            ObjectKey::MeterPolicy(policy) => write!(f, "{policy}"),
            ObjectKey::MeterRule(policy, rule) => write!(f, "{policy}:{rule}"),
            ObjectKey::Qos(qos) => write!(f, "{qos}"),
            ObjectKey::Opaque(_, key) => f.write_str(key),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.table_name(), KeyText(self))
    }
}
