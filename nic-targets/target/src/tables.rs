//! The tables of the pipeline: which exist, their shapes and capacities. A table's number is the
//! map index in every program, whatever the pipeline's shape, so contents outlive code.

use dash_bpf::map::{F_NO_PREALLOC, MapDef, MapKind};
use dash_wire::stats::{EniStat, PortStat};
use dash_wire::tables as t;

/// Who writes a table, and how a reader sees a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    /// Written by control; a generation shows all of a transaction or nothing.
    Policy,
    /// Written by the core that owns it, never by control.
    Core,
    /// Program array: fixed by the image.
    Code,
}

macro_rules! tables {
    ($($(#[$doc:meta])* $v:ident = $name:literal, $kind:ident, $disc:ident, key $key:expr, value $value:expr, entries $cap:expr;)*) => {
        /// A table of the pipeline.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Table { $($(#[$doc])* $v,)* }

        impl Table {
            /// All, in map-index order.
            pub const ALL: &'static [Self] = &[$(Self::$v,)*];

            /// Name, also in IR text and in a kernel.
            pub fn name(self) -> &'static str {
                match self { $(Self::$v => $name,)* }
            }
            /// Who writes it.
            pub fn discipline(self) -> Discipline {
                match self { $(Self::$v => Discipline::$disc,)* }
            }
            /// Its map definition.
            pub fn def(self, capacity: &Capacity) -> MapDef {
                let (kind, key, value, entries): (_, usize, usize, u32) = match self {
                    $(Self::$v => (MapKind::$kind, $key, $value, ($cap)(capacity)),)*
                };
                MapDef {
                    name: self.name().to_owned(),
                    kind,
                    key_size: key as u32,
                    value_size: value as u32,
                    max_entries: entries,
                    flags: if kind == MapKind::LpmTrie { F_NO_PREALLOC } else { 0 },
..MapDef::default()
}
            }
        }
    };
}

/// Most rows of each kind that a target holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the capacity of what it names")]
pub struct Capacity {
    pub enis: u32,
    pub routes: u32,
    pub mappings: u32,
    pub inbound_rules: u32,
    pub trusted_vnis: u32,
    pub acl_groups: u32,
    pub underlay_routes: u32,
    /// Connections, both directions counted once.
    pub flows: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            enis: 64,
            routes: 4 << 20,
            mappings: 8 << 20,
            inbound_rules: 1 << 20,
            trusted_vnis: 64 << 10,
            acl_groups: 4096,
            underlay_routes: 64 << 10,
            flows: 1 << 16,
        }
    }
}

tables! {
    /// Settings and the appliance.
    Globals = "globals", Array, Policy, key 4, value size_of::<t::Globals>(), entries |_: &Capacity| 1;
    /// ENI MAC to ENI index.
    EniMac = "eni_mac", Hash, Policy, key size_of::<t::EniMacKey>(), value 4, entries |c: &Capacity| c.enis;
    /// ENIs by index.
    Eni = "eni", Array, Policy, key 4, value size_of::<t::EniRow>(), entries |c: &Capacity| c.enis;
    /// Trusted VNIs.
    TrustedVni = "trusted_vni", LpmTrie, Policy, key size_of::<t::TrustedVniKey>(), value 4, entries |c: &Capacity| c.trusted_vnis;
    /// Outbound routes to IPv4 destinations.
    Route4 = "route4", LpmTrie, Policy, key size_of::<t::Route4Key>(), value size_of::<t::RouteRow>(), entries |c: &Capacity| c.routes;
    /// Outbound routes to IPv6 destinations.
    Route6 = "route6", LpmTrie, Policy, key size_of::<t::Route6Key>(), value size_of::<t::RouteRow>(), entries |c: &Capacity| c.routes;
    /// CA to PA.
    Mapping = "mapping", Hash, Policy, key size_of::<t::MappingKey>(), value size_of::<t::MappingRow>(), entries |c: &Capacity| c.mappings;
    /// Inbound route rules.
    Inbound = "inbound", LpmTrie, Policy, key size_of::<t::InboundKey>(), value size_of::<t::InboundRow>(), entries |c: &Capacity| c.inbound_rules;
    /// Valid PAs of VNETs.
    PaValidation = "pa_validation", Hash, Policy, key size_of::<t::PaKey>(), value 4, entries |c: &Capacity| c.mappings;
    /// ACL groups.
    Acl = "acl", Acl, Policy, key size_of::<t::AclKey>(), value 4, entries |c: &Capacity| c.acl_groups;
    /// Underlay routes and neighbours.
    Underlay = "underlay", LpmTrie, Policy, key size_of::<t::UnderlayKey>(), value size_of::<t::UnderlayRow>(), entries |c: &Capacity| c.underlay_routes;
    /// Flow key to slot and side.
    FlowIndex = "flow_index", Hash, Core, key size_of::<t::FlowKey>(), value 4, entries |c: &Capacity| c.flows * 2;
    /// Connections by slot.
    FlowSlab = "flow_slab", Array, Core, key 4, value size_of::<t::FlowEntry>(), entries |c: &Capacity| c.flows;
    /// Slots not in use.
    FlowFree = "flow_free", Stack, Core, key 0, value 4, entries |c: &Capacity| c.flows;
    /// Slots whose deadline came nearer: created or closing.
    FlowEvents = "flow_events", Queue, Core, key 0, value 4, entries |c: &Capacity| c.flows;
    /// Counter block of each ENI.
    EniStats = "eni_stats", PercpuArray, Core, key 4, value EniStat::COUNT * 8, entries |c: &Capacity| c.enis;
    /// Counter block of the card.
    PortStats = "port_stats", PercpuArray, Core, key 4, value PortStat::COUNT * 8, entries |_: &Capacity| 1;
    /// What one stage tells the next.
    Meta = "meta", PercpuArray, Core, key 4, value size_of::<t::Meta>(), entries |_: &Capacity| 1;
    /// The stages.
    Stages = "stages", ProgArray, Code, key 4, value 4, entries |_: &Capacity| 16;
    /// What few outbound routes to IPv4 destinations have.
    Route4More = "route4_more", LpmTrie, Policy, key size_of::<t::Route4Key>(), value size_of::<t::RouteMoreRow>(), entries |c: &Capacity| c.routes;
    /// What few outbound routes to IPv6 destinations have.
    Route6More = "route6_more", LpmTrie, Policy, key size_of::<t::Route6Key>(), value size_of::<t::RouteMoreRow>(), entries |c: &Capacity| c.routes;
    /// What few mappings have.
    MappingMore = "mapping_more", Hash, Policy, key size_of::<t::MappingKey>(), value size_of::<t::MappingMoreRow>(), entries |c: &Capacity| c.mappings;
    /// Static encaps of routing types.
    RoutingType = "routing_type", Array, Policy, key 4, value size_of::<t::RoutingTypeRow>(), entries |_: &Capacity| 10;
    /// Endpoints of tunnels.
    Tunnel = "tunnel", Hash, Policy, key size_of::<t::TunnelKey>(), value size_of::<t::TunnelRow>(), entries |_: &Capacity| 16 << 10;
    /// Ranges of port maps.
    PortRange = "port_range", LpmTrie, Policy, key size_of::<t::PortRangeKey>(), value size_of::<t::PortRangeRow>(), entries |_: &Capacity| 1 << 20;
    /// Sources that are valid beside the PAs of mappings.
    PaPrefix = "pa_prefix", LpmTrie, Policy, key size_of::<t::PaPrefixKey>(), value 4, entries |_: &Capacity| 64 << 10;
    /// First fragments of datagrams.
    Fragments = "fragments", LruHash, Core, key size_of::<t::FragmentKey>(), value size_of::<t::FragmentRow>(), entries |_: &Capacity| 4 << 10;
    /// Rules of meter policies.
    MeterRule = "meter_rule", LpmTrie, Policy, key size_of::<t::MeterRuleKey>(), value 4, entries |_: &Capacity| 256 << 10;
    /// Byte counters of each ENI and metering class.
    MeterStats = "meter_stats", PercpuArray, Core, key 4, value size_of::<t::MeterBucket>(), entries |c: &Capacity| c.enis.saturating_mul(t::meter::BUCKETS);
    /// What a core keeps of each ENI.
    EniLife = "eni_life", Array, Core, key 4, value size_of::<t::EniLife>(), entries |c: &Capacity| c.enis;
    /// Limits of ENIs by index.
    Qos = "qos", Array, Policy, key 4, value size_of::<t::QosRow>(), entries |c: &Capacity| c.enis;
    /// What ENIs used of their limits.
    QosState = "qos_state", Array, Core, key 4, value size_of::<t::QosState>(), entries |c: &Capacity| c.enis;
    /// Longest IP packets that ports take, by the number that a program has for the port.
    PortMtu = "port_mtu", Hash, Policy, key 4, value 4, entries |_: &Capacity| 1024;
}

impl Table {
    /// Map index.
    pub fn index(self) -> u32 {
        self as u32
    }
    /// By [`name`](Self::name).
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.name() == name)
    }
}

/// Map definitions of every table, in map-index order.
pub fn map_defs(capacity: &Capacity) -> Vec<MapDef> {
    Table::ALL.iter().map(|t| t.def(capacity)).collect()
}
