//! Configurations and packets from a small universe, so that they meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dash_model::key::{
    AclGroupId, EniKey, MeterPolicyId, PortMapId, QosName, RouteGroupId, RouteRuleKey, RoutingType,
    SourcePrefix, TagName, TunnelName, VnetName,
};
use dash_model::net::{IpPrefix, Mac, MaskedIp, PortRange, Vni, VniRange};
use dash_model::objects::{
    AclAction, AclBind, AclGroup, AclRule, Appliance, DscpMode, EncapType, Eni, EniMode, EniRoute,
    EniSettings, Family, MeterBits, MeterClass, MeterPolicy, MeterRule, Object, OutboundLookup,
    PaValidation, PortMap, PortMapRange, PrefixTag, PrivateLink, Qos, Route, RouteAction,
    RouteGroup, RouteGroupSettings, RouteRule, RoutingTypeDef, RuleAction, ServiceTunnel,
    StaticEncap, Tunnel, Vnet, VnetMapping,
};
use dash_model::{ObjectKey, Op, Txn};
use dash_pipeline::plan::{Resimulation, UnderlayRoute, UnderlayTable};
use nic_sim::Packet;
use nic_sim::packet::{Layers, last};

/// SplitMix64: small, seeded, the same everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
    /// True once in `n`.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }
}

const VIP: [u8; 4] = [10, 0, 0, 1];
const VM_VNI: u32 = 4321;
const VNIS: [u32; 4] = [1000, 2000, 777, VM_VNI];
const PAS: [[u8; 4]; 5] = [
    [101, 1, 2, 3],
    [101, 1, 2, 9],
    [101, 1, 3, 3],
    [25, 1, 1, 1],
    [55, 0, 0, 1],
];
const MACS: [[u8; 6]; 4] = [
    [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e],
    [2, 0, 0, 0, 1, 2],
    [2, 0, 0, 0, 1, 3],
    [2, 0, 0, 0, 9, 9],
];
const PEER: [u8; 6] = [0xf8, 0x22, 0x83, 0x99, 0x22, 0xa2];
const V4: [[u8; 4]; 6] = [
    [10, 1, 1, 1],
    [10, 1, 1, 2],
    [10, 1, 0, 1],
    [20, 0, 0, 5],
    [30, 0, 0, 1],
    [10, 2, 5, 1],
];
const V4_PREFIXES: [([u8; 4], u8); 8] = [
    ([0, 0, 0, 0], 0),
    ([10, 0, 0, 0], 8),
    ([10, 1, 0, 0], 16),
    ([10, 1, 1, 0], 24),
    ([10, 1, 1, 1], 32),
    ([20, 0, 0, 0], 7),
    ([30, 0, 0, 0], 16),
    ([10, 2, 5, 0], 25),
];
const SOURCES: [([u8; 4], u8); 5] = [
    ([0, 0, 0, 0], 0),
    ([101, 1, 0, 0], 16),
    ([101, 1, 2, 0], 24),
    ([101, 1, 2, 3], 32),
    ([55, 0, 0, 0], 9),
];
/// What addresses become: sources, destinations as they are, one destination for all; and the bits
/// an ENI puts in. Few, so that answers can be guessed.
const OVERLAY_SIP: u128 = 0xfd40_0108_0020_0abc_0abc_0000_0000_0000;
const OVERLAY_DIP: u128 = 0x2603_10e1_0100_0002_0000_0000_0000_0000;
const OVERLAY_HOST: u128 = 0x3401_0203;
const ENI_BITS: u128 = 0x0000_0000_0000_d107_0064_ff71_0000_0000;
const ENI_MASK: u128 = 0x0000_0000_0000_ffff_ffff_ffff_0000_0000;
const LOW: u128 = 0xffff_ffff;
const BACKEND: [u8; 4] = [60, 60, 60, 1];
/// Ranges of the port map: first port, last port, what the first becomes; 0 skips the map.
const RANGES: [(u16, u16, u16); 3] = [(0, 22, 7000), (23, 80, 0), (81, 65535, 65000)];
const PORTS: [u16; 6] = [0, 1, 23, 80, 443, 65535];
const ENIS: usize = 3;
/// The ENI that is a floating NIC.
const FLOATING: usize = 2;
/// Few, with bits in common and without.
const CLASSES: [u64; 5] = [0, 1, 6, 0xff0, 0xfff];

fn v6(n: usize) -> Ipv6Addr {
    Ipv6Addr::new(
        0xfd00,
        1,
        0,
        if n >= 4 { 1 } else { 0 },
        0,
        0,
        0,
        n as u16 % 4 + 1,
    )
}

pub(crate) struct World {
    rng: Rng,
    first: bool,
    recent: Vec<Connection>,
    /// Whose packet the last was, and whether it was the VM's.
    last: Option<(Connection, bool)>,
    /// What TCP of the VM's was just sent as.
    sent: Option<(Connection, Quoted)>,
    /// Whose packet is next: its last got through, or a redirect of it came.
    again: Option<Connection>,
    /// An ENI that went, to come back.
    deleted: Option<usize>,
}

impl World {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            rng,
            first: true,
            recent: Vec::new(),
            last: None,
            sent: None,
            again: None,
            deleted: None,
        }
    }

    /// Offers transactions until one is taken (any taken one changes the world enough).
    pub(crate) fn step(&mut self, mut offer: impl FnMut(Txn) -> bool) {
        if std::mem::take(&mut self.first) {
            let base = self.base();
            assert!(
                offer(txn(base.clone())),
                "the first configuration is legal: {base:?}"
            );
        }
        for _ in 0..20 {
            let mut ops = Vec::new();
            if let Some(n) = self.deleted.take_if(|_| self.rng.once_in(3)) {
                ops.push((ObjectKey::Eni(eni_key(n)), Some(Object::Eni(self.eni(n)))));
                ops.push((
                    ObjectKey::EniRoute(eni_key(n)),
                    Some(Object::EniRoute(EniRoute {
                        group: group(n % 2),
                    })),
                ));
                ops.extend((0..12).map(|_| self.rule()));
            }
            for _ in 0..=self.rng.below(8) {
                self.change(&mut ops);
            }
            if offer(txn(ops)) {
                return;
            }
        }
    }

    /// Now and then flows of an ENI are to be decided again: whose, how, and whether all of them.
    pub(crate) fn resimulation(&mut self) -> Option<(EniKey, Resimulation, bool)> {
        if !self.rng.once_in(3) {
            return None;
        }
        let keep = [0, 0, 0x1, 0x8, 0x2, 0x3c0, 0x3cb];
        let how = Resimulation {
            per_second: self.rng.pick(&[None, Some(0), Some(1), Some(3)]),
            keep: self.rng.pick(&keep),
        };
        let all = !self.rng.once_in(3);
        Some((eni_key(self.rng.below(ENIS)), how, all))
    }

    /// Something in every table, so that changes have parents.
    fn base(&mut self) -> Vec<(ObjectKey, Option<Object>)> {
        let mut ops = vec![(ObjectKey::Appliance("100".into()), Some(self.appliance()))];
        for (v, number) in VNIS.into_iter().take(2).enumerate() {
            ops.push((
                ObjectKey::Vnet(vnet(v)),
                Some(Object::Vnet(Vnet { vni: vni(number) })),
            ));
        }
        for kind in [
            RoutingType::ServiceTunnel,
            RoutingType::PrivateLink,
            RoutingType::PrivateLinkNsg,
        ] {
            // Whole, so that what comes after may name it.
            let static_encap = Some(StaticEncap {
                kind: self.encap(),
                key: Some(vni(100)),
            });
            let def = Object::RoutingType(RoutingTypeDef { static_encap });
            ops.push((ObjectKey::RoutingType(kind), Some(def)));
        }
        for t in 0..2 {
            ops.push(self.tunnel(t));
        }
        ops.push((
            ObjectKey::PortMap(PortMapId::from("m")),
            Some(Object::PortMap(PortMap)),
        ));
        for range in RANGES {
            ops.push(port_range(range));
        }
        for p in 0..2 {
            let family = if p == 1 { Family::V6 } else { Family::V4 };
            ops.push((
                ObjectKey::MeterPolicy(meter_policy(p)),
                Some(Object::MeterPolicy(MeterPolicy { family })),
            ));
            for _ in 0..4 {
                ops.push(self.meter_rule(p));
            }
        }
        for n in 0..ENIS {
            let mut eni = self.eni(n);
            eni.enabled = true;
            ops.push((ObjectKey::Eni(eni_key(n)), Some(Object::Eni(eni))));
            ops.push((
                ObjectKey::EniRoute(eni_key(n)),
                Some(Object::EniRoute(EniRoute {
                    group: group(n % 2),
                })),
            ));
        }
        for g in 0..2 {
            ops.push((
                ObjectKey::RouteGroup(group(g)),
                Some(Object::RouteGroup(RouteGroup::default())),
            ));
            for _ in 0..10 {
                ops.push(self.route(g));
            }
        }
        for _ in 0..24 {
            ops.push(self.mapping());
        }
        for _ in 0..12 {
            ops.push(self.rule());
        }
        for g in 0..3 {
            let family = if g == 2 { Family::V6 } else { Family::V4 };
            ops.push((
                ObjectKey::AclGroup(acl_group(g)),
                Some(Object::AclGroup(AclGroup { family })),
            ));
            for _ in 0..3 {
                ops.push(self.acl_rule(g));
            }
        }
        ops
    }

    fn change(&mut self, ops: &mut Vec<(ObjectKey, Option<Object>)>) {
        let n = self.rng.below(ENIS);
        let (mut op, may_delete) = match self.rng.below(32) {
            23 => {
                let kinds = [
                    RoutingType::ServiceTunnel,
                    RoutingType::PrivateLink,
                    RoutingType::PrivateLinkNsg,
                ];
                let kind = self.rng.pick(&kinds);
                (self.routing_type(kind), false)
            }
            24 => {
                let t = self.rng.below(2);
                (self.tunnel(t), true)
            }
            26 => {
                let permits = PaValidation {
                    prefixes: self.rng.some(2, |r| {
                        let (addr, len) = r.pick(&SOURCES);
                        SourcePrefix::new(addr.into(), len).unwrap()
                    }),
                };
                let key = ObjectKey::PaValidation(vni(self.rng.pick(&VNIS)));
                ((key, Some(Object::PaValidation(permits))), true)
            }
            31 => {
                let key = ObjectKey::Qos(self.qos_name());
                ((key, Some(Object::Qos(self.qos()))), true)
            }
            27 | 28 => {
                let p = self.rng.below(2);
                (self.meter_rule(p), true)
            }
            29 => {
                let own = eni_settings(&mut self.rng);
                ((ObjectKey::EniSettings(eni_key(n)), Some(own)), true)
            }
            30 => {
                let g = self.rng.below(2);
                let disabled = self.rng.once_in(12);
                let own = RouteGroupSettings { disabled };
                let key = ObjectKey::RouteGroupSettings(group(g));
                ((key, Some(Object::RouteGroupSettings(own))), true)
            }
            25 => (port_range(self.rng.pick(&RANGES)), true),
            0 => (
                (ObjectKey::Appliance("100".into()), Some(self.appliance())),
                false,
            ),
            1 | 2 => (
                (ObjectKey::Eni(eni_key(n)), Some(Object::Eni(self.eni(n)))),
                true,
            ),
            3 => {
                let g = self.rng.below(2);
                (
                    (
                        ObjectKey::EniRoute(eni_key(n)),
                        Some(Object::EniRoute(EniRoute { group: group(g) })),
                    ),
                    true,
                )
            }
            4..=7 => {
                let g = self.rng.below(2);
                (self.route(g), true)
            }
            8..=11 => (self.mapping(), true),
            12..=14 => (self.rule(), true),
            15..=17 => {
                let g = self.rng.below(3);
                (self.acl_rule(g), true)
            }
            18 => {
                let t = self.rng.below(2);
                let prefixes = self.rng.some(3, prefix4);
                let tag = PrefixTag {
                    family: Family::V4,
                    prefixes,
                };
                (
                    (
                        ObjectKey::PrefixTag(tag_name(t)),
                        Some(Object::PrefixTag(tag.into())),
                    ),
                    true,
                )
            }
            // An ENI goes with all that hangs on it: its flows must go too.
            22 if self.rng.once_in(6) => {
                self.deleted = Some(n);
                ops.extend(dependants(n).into_iter().map(|key| (key, None)));
                ((ObjectKey::Eni(eni_key(n)), None), false)
            }
            19 => (
                (
                    ObjectKey::AclIn(eni_key(n), 1),
                    Some(Object::AclIn(self.bind())),
                ),
                true,
            ),
            _ => {
                let stage = self.rng.pick(&[1, 5]);
                (
                    (
                        ObjectKey::AclOut(eni_key(n), stage),
                        Some(Object::AclOut(self.bind())),
                    ),
                    true,
                )
            }
        };
        if may_delete && self.rng.once_in(8) {
            op.1 = None;
        }
        ops.push(op);
    }

    fn trusted(&mut self) -> Vec<VniRange> {
        if self.rng.once_in(3) {
            // The keys of redirects among them.
            return vec![VniRange {
                min: vni(1),
                max: vni(0xff_ffff),
            }];
        }
        if !self.rng.once_in(8) {
            return Vec::new();
        }
        self.rng.some(2, |r| {
            let (a, b) = (
                r.pick(&VNIS),
                if r.once_in(2) { VM_VNI } else { r.pick(&VNIS) },
            );
            VniRange {
                min: vni(a.min(b)),
                max: vni(a.max(b)),
            }
        })
    }

    fn appliance(&mut self) -> Object {
        let trusted_vnis = self.trusted();
        Object::Appliance(Appliance {
            sip: VIP.into(),
            vm_vni: vni(VM_VNI),
            trusted_vnis,
            outbound_lookup: if self.rng.once_in(6) {
                OutboundLookup::DstMac
            } else {
                OutboundLookup::SrcMac
            },
        })
    }

    fn eni(&mut self, n: usize) -> Eni {
        Eni {
            mac: Mac(MACS[n]),
            underlay_ip: Ipv4Addr::new(25, 1, 1, n as u8 + 1),
            enabled: !self.rng.once_in(16),
            vnet: Some(vnet(n % 2)),
            trusted_vnis: self.trusted(),
            pl_sip: self.rng.once_in(2).then(|| masked(ENI_BITS, ENI_MASK)),
            pl_underlay_sip: self.rng.once_in(2).then(|| [10, 0, 0, 9].into()),
            // It cannot change.
            mode: if n == FLOATING {
                EniMode::Floating
            } else {
                EniMode::Vm
            },
            disable_fast_path: self.rng.once_in(8),
            v4_meter_policy: self.rng.once_in(2).then(|| meter_policy(0)),
            v6_meter_policy: self.rng.once_in(2).then(|| meter_policy(1)),
            qos: self.rng.once_in(4).then(|| self.qos_name()),
        }
    }

    fn route(&mut self, g: usize) -> (ObjectKey, Option<Object>) {
        let r = &mut self.rng;
        let to = if r.once_in(4) { prefix6(r) } else { prefix4(r) };
        let v = r.below(2);
        let v4 = to.addr().is_ipv4();
        let action = match r.below(8) {
            6 | 7 if v4 => RouteAction::ServiceTunnel(Box::new(ServiceTunnel {
                overlay_sip: masked(OVERLAY_SIP, !LOW),
                overlay_dip: overlay_dip(r),
                underlay_dip: r.once_in(2).then(|| r.pick(&PAS).into()),
            })),
            0 => RouteAction::Direct,
            1 => RouteAction::Drop,
            2 => RouteAction::VnetDirect {
                vnet: vnet(v),
                overlay_ip: if r.once_in(3) { None } else { Some(address(r)) },
            },
            _ => RouteAction::Vnet(vnet(v)),
        };
        (
            ObjectKey::Route(group(g), to),
            Some(Object::Route(Route {
                action,
                underlay_sip: r.once_in(4).then(|| [10, 0, 0, 8].into()),
                tunnel: tunnel_of(r),
                meter: meter_bits(r),
            })),
        )
    }

    fn mapping(&mut self) -> (ObjectKey, Option<Object>) {
        let r = &mut self.rng;
        let ip = address(r);
        let key = ObjectKey::VnetMapping(vnet(r.below(2)), ip);
        let link = (ip.is_ipv4() && r.once_in(3)).then(|| {
            Box::new(PrivateLink {
                overlay_sip: masked(OVERLAY_SIP, !LOW),
                overlay_dip: overlay_dip(r),
                port_map: r.once_in(2).then(|| "m".into()),
                nsg: r.once_in(4),
            })
        });
        let mapping = VnetMapping {
            underlay_ip: r.pick(&PAS).into(),
            mac: if r.once_in(3) { None } else { Some(Mac(PEER)) },
            use_dst_vni: r.once_in(2),
            private_link: link,
            tunnel: tunnel_of(r),
            meter_or: if r.once_in(3) {
                class(r)
            } else {
                MeterClass::default()
            },
        };
        (key, Some(Object::VnetMapping(mapping)))
    }

    fn routing_type(&mut self, kind: RoutingType) -> (ObjectKey, Option<Object>) {
        let encap = StaticEncap {
            kind: self.encap(),
            key: (!self.rng.once_in(20)).then(|| vni(100)),
        };
        let static_encap = (!self.rng.once_in(20)).then_some(encap);
        (
            ObjectKey::RoutingType(kind),
            Some(Object::RoutingType(RoutingTypeDef { static_encap })),
        )
    }

    fn encap(&mut self) -> EncapType {
        self.rng.pick(&[EncapType::Vxlan, EncapType::Nvgre])
    }

    fn tunnel(&mut self, t: usize) -> (ObjectKey, Option<Object>) {
        let members = if t == 0 { 1 } else { self.rng.below(4) + 1 };
        let tunnel = Tunnel {
            endpoints: PAS[..members].iter().map(|pa| (*pa).into()).collect(),
            kind: self.encap(),
            key: vni(0x12_3456),
            meter_or: class(&mut self.rng),
        };
        (
            ObjectKey::Tunnel(tunnel_name(t)),
            Some(Object::Tunnel(tunnel)),
        )
    }

    fn rule(&mut self) -> (ObjectKey, Option<Object>) {
        let r = &mut self.rng;
        let (addr, len) = r.pick(&SOURCES);
        let key = RouteRuleKey {
            eni: eni_key(r.below(ENIS)),
            vni: vni(r.pick(&VNIS)),
            source: SourcePrefix::new(addr.into(), len).unwrap(),
            priority: r.below(3) as u32,
        };
        let rule = RouteRule {
            action: if r.once_in(6) {
                RuleAction::Drop
            } else {
                RuleAction::Decap
            },
            vnet: Some(vnet(r.below(2))),
            pa_validation: r.once_in(2),
            meter: meter_bits(r),
        };
        (ObjectKey::RouteRule(key), Some(Object::RouteRule(rule)))
    }

    /// One that is often there, and one that is not.
    fn qos_name(&mut self) -> QosName {
        QosName::from(self.rng.pick(&["q0", "q1"]))
    }

    /// Limits that the packets come near: they are some 100 bytes each, and most pauses are some ms.
    fn qos(&mut self) -> Qos {
        let r = &mut self.rng;
        Qos {
            bandwidth_kbps: r.pick(&[0, 0, 1, 80, u32::MAX]),
            connections_per_second: r.pick(&[0, 0, 1, 20, u32::MAX]),
            flows: r.pick(&[0, 0, 1, 3, 20]),
        }
    }

    fn meter_rule(&mut self, p: usize) -> (ObjectKey, Option<Object>) {
        let r = &mut self.rng;
        let rule = MeterRule {
            priority: r.below(3) as u32,
            prefix: if p == 1 { prefix6(r) } else { prefix4(r) },
            class: class(r),
        };
        let number = r.below(6).to_string();
        (
            ObjectKey::MeterRule(meter_policy(p), number.as_str().into()),
            Some(Object::MeterRule(rule)),
        )
    }

    fn bind(&mut self) -> AclBind {
        let r = &mut self.rng;
        AclBind {
            v4: if r.once_in(4) {
                None
            } else {
                Some(acl_group(r.below(2)))
            },
            v6: if r.once_in(2) {
                None
            } else {
                Some(acl_group(2))
            },
        }
    }

    fn acl_rule(&mut self, g: usize) -> (ObjectKey, Option<Object>) {
        let r = &mut self.rng;
        let prefix = |r: &mut Rng| if g == 2 { prefix6(r) } else { prefix4(r) };
        let ports = |r: &mut Rng| {
            let (a, b) = (r.pick(&PORTS), r.pick(&PORTS));
            PortRange {
                min: a.min(b),
                max: a.max(b),
            }
        };
        let rule = AclRule {
            priority: r.below(6) as u32,
            action: if r.once_in(3) {
                AclAction::Deny
            } else {
                AclAction::Permit
            },
            terminating: r.once_in(2),
            protocols: if !r.once_in(4) {
                Vec::new()
            } else {
                r.some(3, |r| r.pick(&[6, 17, 1, 58, 18]))
            },
            src_prefixes: if !r.once_in(4) {
                Vec::new()
            } else {
                r.some(3, prefix)
            },
            dst_prefixes: if !r.once_in(4) {
                Vec::new()
            } else {
                r.some(3, prefix)
            },
            src_ports: if !r.once_in(4) {
                Vec::new()
            } else {
                r.some(2, ports)
            },
            dst_ports: if !r.once_in(4) {
                Vec::new()
            } else {
                r.some(2, ports)
            },
            src_tags: if g == 2 || !r.once_in(6) {
                Vec::new()
            } else {
                r.some(2, |r| tag_name(r.below(3)))
            },
            dst_tags: if g == 2 || !r.once_in(6) {
                Vec::new()
            } else {
                r.some(2, |r| tag_name(r.below(3)))
            },
        };
        let number = r.below(4).to_string();
        (
            ObjectKey::AclRule(acl_group(g), number.as_str().into()),
            Some(Object::AclRule(rule.into())),
        )
    }

    /// Another underlay, now and then.
    pub(crate) fn underlay(&mut self) -> Option<UnderlayTable> {
        let r = &mut self.rng;
        if !r.once_in(10) {
            return None;
        }
        let mut table = UnderlayTable {
            port_macs: vec![[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 3]],
            ..UnderlayTable::default()
        };
        if r.once_in(2) {
            return Some(table);
        }
        for (prefix, len) in [
            ([101, 1, 2, 0], 24),
            ([25, 1, 1, 0], 24),
            ([101, 0, 0, 0], 8),
            ([30, 0, 0, 0], 16),
        ] {
            if r.once_in(2) {
                let next_hop = r.once_in(2).then(|| IpAddr::from(r.pick(&PAS)));
                let prefix = IpPrefix::new(IpAddr::from(prefix), len).unwrap();
                table.routes.push(UnderlayRoute {
                    prefix,
                    port: r.below(2) as u32,
                    next_hop,
                });
            }
        }
        for pa in PAS {
            if !r.once_in(4) {
                let port = r.below(2) as u32;
                table
                    .neighbors
                    .insert(IpAddr::from(pa), ([2, 0, 0, 0, 5, pa[3]], port));
            }
        }
        Some(table)
    }

    /// Mostly short, sometimes past a timeout.
    pub(crate) fn pause_ns(&mut self) -> u64 {
        match self.rng.below(60) {
            0 => 31_000_000_000,
            1 => 5_000_000_000,
            2 => 2_000_000_000,
            n => n as u64 * 100_000,
        }
    }

    /// A packet near something configured, often of a connection met before, in either direction;
    /// one in five is damaged.
    /// Tells what the last packet was sent as.
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        let Some((c, outbound)) = self.last else {
            return;
        };
        if outbound {
            self.sent = Quoted::of_sent(bytes).map(|quoted| (c, quoted));
        }
        if self.rng.once_in(2) {
            self.again = Some(c);
        }
    }

    pub(crate) fn packet(&mut self) -> Vec<u8> {
        let r = &mut self.rng;
        let c = if let Some(c) = self.again.take() {
            c
        } else if self.recent.is_empty() || r.once_in(3) {
            let c = Connection {
                eni: if r.once_in(30) {
                    MACS[3]
                } else {
                    r.pick(&MACS[..ENIS])
                },
                vm: r.below(2),
                peer: r.below(6),
                v6: r.once_in(4),
                kind: r.below(8),
                protocol: r.pick(&[1, 58, 18, 19, 89, 44, 59]),
                ports: (r.pick(&PORTS), r.pick(&PORTS)),
                network_vni: if r.once_in(20) {
                    777
                } else {
                    r.pick(&VNIS[..2])
                },
                pa: r.pick(&PAS),
            };
            if self.recent.len() == RECENT {
                self.recent.remove(0);
            }
            self.recent.push(c);
            c
        } else {
            r.pick(&self.recent)
        };
        self.last = None;
        let answered = self.sent.take().filter(|_| r.once_in(2));
        if answered.is_some() || r.once_in(24) {
            self.again = answered.map(|(c, _)| c);
            let (c, of) = answered.unwrap_or_else(|| (c, Quoted::guess(r, &c)));
            let bytes = redirect(r, &c, &of);
            return damaged(r, bytes);
        }
        let outbound = !r.once_in(3);
        self.last = Some((c, outbound));
        // Packets come to a floating NIC from both sides; now and then one comes as to another.
        let floating = c.eni == MACS[FLOATING] && !r.once_in(10);
        let vni = if outbound && !floating {
            VM_VNI
        } else {
            c.network_vni
        };
        let vip = if r.once_in(60) { [9, 9, 9, 9] } else { VIP };
        let port = if r.once_in(60) { 4790 } else { 4789 };
        let tos = |r: &mut Rng| {
            if r.once_in(8) {
                r.next() as u8
            } else {
                r.pick(&[0, 0xb8, 0x02, 0x28])
            }
        };
        let outer_tos = tos(r);
        // A VM that moves, now and then; a floating NIC's sources are those that rules know.
        let host = if r.once_in(6) { r.pick(&PAS) } else { PAS[3] };
        let pa = if outbound { host } else { c.pa };
        let mut outer = Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4(pa, vip)
            .tos(outer_tos);
        if r.once_in(12) {
            outer = outer.options(&vec![1; 4 * (r.below(10) + 1)]);
        }
        let tunnel = if r.once_in(6) {
            outer.nvgre(vni)
        } else {
            // Half of them from the ports that source-port security lets through.
            let sport = if r.once_in(4) {
                r.next() as u16
            } else {
                5120 + r.below(128) as u16
            };
            outer.udp(sport, port).vxlan(vni)
        };
        let frame = if outbound && !floating {
            tunnel.eth(PEER, c.eni)
        } else {
            tunnel.eth(c.eni, PEER)
        };
        let inner_tos = tos(r);
        // Now and then around the MTU of the run with settings.
        let payload = if r.once_in(12) {
            vec![0x5a; 360 + r.below(120)]
        } else {
            vec![0x5a; r.below(40)]
        };
        let (sport, dport) = if outbound {
            c.ports
        } else {
            (c.ports.1, c.ports.0)
        };
        let flags = r.pick(&[
            0x02, 0x02, 0x12, 0x10, 0x18, 0x11, 0x11, 0x11, 0x11, 0x01, 0x04, 0x14, 0x00,
        ]);
        let bytes = if r.once_in(10) {
            // Not of the network's but of the transport's ways.
            special(r, &c, outbound, frame.clone(), inner_tos, (sport, dport))
        } else if !outbound && !c.v6 && r.once_in(2) {
            // What a translated packet is answered with, as far as it can be guessed.
            let low = |ip: [u8; 4]| u128::from(u32::from_be_bytes(ip));
            let eni_bits = if r.once_in(2) {
                (ENI_BITS, ENI_MASK)
            } else {
                (0, 0)
            };
            let dst = (OVERLAY_SIP & !eni_bits.1) | eni_bits.0 | low([10, 9, 9, c.vm as u8 + 1]);
            let (src, sport) = match r.below(4) {
                0 => (low(V4[c.peer]), sport),
                1 => (low(BACKEND), mapped(sport)),
                _ => (OVERLAY_HOST, sport),
            };
            let src = Ipv6Addr::from(OVERLAY_DIP | src);
            let ip = frame.ipv6(src, Ipv6Addr::from(dst)).tos(inner_tos);
            match c.kind {
                0..=2 => ip.tcp(sport, dport).flags(flags).payload(&payload).build(),
                _ => ip.udp(sport, dport).payload(&payload).build(),
            }
        } else if c.v6 {
            let (a, b) = (
                Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, c.vm as u16 + 1),
                v6(c.peer),
            );
            let (src, dst) = if outbound { (a, b) } else { (b, a) };
            let ip = frame.ipv6(src, dst).tos(inner_tos);
            match c.kind {
                0..=2 => ip.tcp(sport, dport).flags(flags).payload(&payload).build(),
                3..=5 => ip.udp(sport, dport).payload(&payload).build(),
                6 if outbound => ip.icmpv6_echo(7, 1).build(),
                6 => ip.icmpv6_echo_reply(7, 1).build(),
                _ => ip.protocol(c.protocol).payload(&payload).build(),
            }
        } else {
            let (a, b) = ([10, 9, 9, c.vm as u8 + 1], V4[c.peer]);
            let (src, dst) = if outbound { (a, b) } else { (b, a) };
            let mut ip = frame.ipv4(src, dst).tos(inner_tos);
            if r.once_in(40) {
                ip = ip.fragment(r.below(3) as u16, r.once_in(2));
            }
            if r.once_in(60) {
                ip = ip.options(&[1, 1, 1, 1]);
            }
            match c.kind {
                0..=2 => ip.tcp(sport, dport).flags(flags).payload(&payload).build(),
                5 => ip.udp(sport, dport).checksum(0).payload(&payload).build(),
                3..=4 => ip.udp(sport, dport).payload(&payload).build(),
                6 if outbound => ip.icmp_echo(7, 1).build(),
                6 => ip.icmp_echo_reply(7, 1).build(),
                _ => ip.protocol(c.protocol).payload(&payload).build(),
            }
        };
        damaged(r, bytes)
    }
}

/// One packet in five is not as it was sent.
fn damaged(r: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    match r.below(25) {
        0 => bytes.truncate(r.below(bytes.len() + 1)),
        1 | 2 => {
            let at = r.below(bytes.len());
            bytes[at] ^= 1 << r.below(8);
        }
        3 => bytes.extend(vec![0; r.below(20)]),
        4 => {
            bytes = Packet::eth([0xff; 6], PEER)
                .arp_request(PEER, PAS[0], VIP)
                .build()
        }
        _ => {}
    }
    bytes
}

/// Where flows may be redirected to.
const BACKEND_MAC: [u8; 6] = [0, 0x22, 0x48, 0xc2, 0xa4, 0xbf];

/// What a redirect tells of the packet it answers.
#[derive(Clone, Copy, Debug)]
struct Quoted {
    protocol: u8,
    v6: bool,
    /// IPv4 in the low bits.
    sip: u128,
    dip: u128,
    ports: (u16, u16),
}

impl Quoted {
    /// What a connection's packets may be sent as.
    fn guess(r: &mut Rng, c: &Connection) -> Self {
        let protocol = if c.kind <= 2 && !r.once_in(10) { 6 } else { 17 };
        let (sport, dport) = if r.once_in(8) {
            (c.ports.1, c.ports.0)
        } else {
            c.ports
        };
        let vm = [10, 9, 9, c.vm as u8 + 1];
        let low = |ip: [u8; 4]| u128::from(u32::from_be_bytes(ip));
        let (v6, sip, dip, dport) = if c.v6 {
            let vm = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, c.vm as u16 + 1);
            (true, u128::from(vm), u128::from(v6(c.peer)), dport)
        } else if r.once_in(2) {
            (false, low(vm), low(V4[c.peer]), dport)
        } else {
            let bits = if r.once_in(2) {
                (ENI_BITS, ENI_MASK)
            } else {
                (0, 0)
            };
            let (host, port) = match r.below(4) {
                0 => (low(V4[c.peer]), dport),
                1 => (low(BACKEND), mapped(dport)),
                _ => (OVERLAY_HOST, dport),
            };
            let sip = (OVERLAY_SIP & !bits.1) | bits.0 | low(vm);
            (true, sip, OVERLAY_DIP | host, port)
        };
        Self {
            protocol,
            v6,
            sip,
            dip,
            ports: (sport, dport),
        }
    }

    /// The packet inside the first encap; `None` where it is not TCP or not at its usual place.
    fn of_sent(bytes: &[u8]) -> Option<Self> {
        let outer = bytes.get(14..)?;
        let tunnel = outer.get(usize::from(outer.first()? & 15) * 4..)?;
        let frame = tunnel.get(if outer.get(9)? == &17 { 16 } else { 8 }..)?;
        let ip = frame.get(14..)?;
        let v6 = ip.first()? >> 4 == 6;
        let wide = |at: usize, len: usize| {
            let bytes = ip.get(at..at + len)?;
            Some(bytes.iter().fold(0, |n, b| n << 8 | u128::from(*b)))
        };
        let (protocol, sip, dip, ports) = if v6 {
            (*ip.get(6)?, wide(8, 16)?, wide(24, 16)?, 40)
        } else {
            (*ip.get(9)?, wide(12, 4)?, wide(16, 4)?, 20)
        };
        let port = |at| Some(wide(at, 2)? as u16);
        let ports = (port(ports)?, port(ports + 2)?);
        (protocol == 6).then_some(Self {
            protocol,
            v6,
            sip,
            dip,
            ports,
        })
    }
}

/// A load balancer's redirect for a connection.
fn redirect(r: &mut Rng, c: &Connection, of: &Quoted) -> Vec<u8> {
    let vm = [10, 9, 9, c.vm as u8 + 1];
    let Quoted {
        protocol,
        v6: is_v6,
        sip,
        dip,
        ports: (sport, dport),
    } = *of;
    let mut quoted = Vec::new();
    if is_v6 {
        // Redirected header option, and the header.
        quoted.extend([4, 7, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 20, protocol, 64]);
        quoted.extend(sip.to_be_bytes());
        quoted.extend(dip.to_be_bytes());
    } else {
        quoted.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0]);
        quoted.extend((sip as u32).to_be_bytes());
        quoted.extend((dip as u32).to_be_bytes());
    }
    quoted.extend([sport, dport].map(u16::to_be_bytes).concat());
    quoted.extend([0; 4]);
    let version: u32 = if r.once_in(16) { 2 } else { 1 };
    quoted.extend(version.to_be_bytes());
    let family: u16 = if r.once_in(16) { 10 } else { 2 };
    quoted.extend(family.to_be_bytes());
    quoted.extend(r.pick(&[1u16, 1, 2, 2, 3]).to_be_bytes());
    quoted.extend(r.pick(&[256u32, 77, 77, 0, 1 << 24]).to_be_bytes());
    quoted.extend(r.pick(&PAS));
    quoted.extend(BACKEND_MAC);
    let key = r.pick(&[253, 254, 254, 253, 254, 254, 255]);
    let frame = Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(r.pick(&PAS), VIP)
        .nvgre(key)
        .eth(c.eni, PEER);
    // Sometimes of another type.
    let other = if r.once_in(20) { 8 } else { 0 };
    if is_v6 {
        let head = [[137 + other, 0, 0, 0, 0, 0, 0, 0].to_vec(), vec![0; 32]].concat();
        let ip = frame.ipv6(Ipv6Addr::from(dip), Ipv6Addr::from(sip));
        ip.protocol(58).payload([head, quoted].concat()).build()
    } else {
        let head = vec![5 + other, 1, 0, 0, 5, 5, 5, 5];
        let ip = frame.ipv4(V4[c.peer], vm);
        ip.protocol(1).payload([head, quoted].concat()).build()
    }
}

/// Fragments, extension headers, ICMP errors and tags around a connection; now and then one field off.
fn special(
    r: &mut Rng,
    c: &Connection,
    outbound: bool,
    frame: Layers<last::Eth>,
    tos: u8,
    (sport, dport): (u16, u16),
) -> Vec<u8> {
    // Few, so that pieces meet; whole numbers of 8 bytes but for the last.
    let id = r.below(3) as u16;
    let offset = r.pick(&[0, 0, 2, 3]);
    let more = !r.once_in(3);
    let piece = vec![0x5a; 8 * (r.below(3) + 3)];
    let (vm4, peer4) = ([10, 9, 9, c.vm as u8 + 1], V4[c.peer]);
    let (vm6, peer6) = (
        Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, c.vm as u16 + 1),
        v6(c.peer),
    );
    let turn = |a, b| if outbound { (a, b) } else { (b, a) };
    let (src4, dst4) = turn(vm4, peer4);
    let (src6, dst6) = if outbound { (vm6, peer6) } else { (peer6, vm6) };
    // What the error is about went the other way.
    let quote = |r: &mut Rng, v6: bool| {
        let from = if r.once_in(6) { 9 } else { 0 };
        let head = Packet::eth([0; 6], [0; 6]);
        let (sport, dport) = if r.once_in(8) {
            (sport, dport)
        } else {
            (dport, sport)
        };
        let bytes = if v6 {
            let mut there = dst6.octets();
            there[15] ^= from;
            let ip = head.ipv6(there, src6);
            match c.kind {
                0..=2 => ip.tcp(sport, dport).build(),
                3..=5 => ip.udp(sport, dport).payload([1; 9]).build(),
                _ => ip.icmpv6_echo(7, 1).build(),
            }
        } else {
            let mut there = dst4;
            there[3] ^= from;
            let mut ip = head.ipv4(there, src4);
            if r.once_in(8) {
                ip = ip.fragment(r.below(2) as u16, true);
            }
            match c.kind {
                0..=2 => ip.tcp(sport, dport).build(),
                3..=5 => ip.udp(sport, dport).payload([1; 9]).build(),
                _ => ip.icmp_echo(7, 1).build(),
            }
        };
        let mut quoted = bytes[14..].to_vec();
        if r.once_in(6) {
            quoted.truncate(r.below(60));
        }
        quoted
    };
    match (r.below(8), c.v6) {
        (0, _) => frame.vlan(7).ipv4(src4, dst4).udp(sport, dport).build(),
        (1 | 2, false) => {
            let kind = r.pick(&[3, 4, 5, 11, 12]);
            let quoted = quote(r, false);
            let router = if r.once_in(2) { src4 } else { [10, 7, 7, 7] };
            frame
                .ipv4(router, dst4)
                .tos(tos)
                .icmp_error(kind, 4, quoted)
                .build()
        }
        (1 | 2, true) => {
            let kind = r.pick(&[0, 1, 2, 3, 4, 5, 137]);
            let quoted = quote(r, true);
            frame
                .ipv6(src6, dst6)
                .tos(tos)
                .icmpv6_error(kind, 0, quoted)
                .build()
        }
        (_, false) => {
            let ip = frame
                .ipv4(src4, dst4)
                .tos(tos)
                .id(id)
                .fragment(offset, more);
            match (offset, c.kind) {
                (0, 0..=2) => ip.tcp(sport, dport).flags(0x10).payload(piece).build(),
                (0, 3..=5) => ip.udp(sport, dport).payload(piece).build(),
                (0, _) => ip.icmp_echo(7, 1).payload(piece).build(),
                (_, 0..=2) => ip.protocol(6).payload(piece).build(),
                (_, 3..=5) => ip.protocol(17).payload(piece).build(),
                _ => ip.protocol(1).payload(piece).build(),
            }
        }
        (kind, true) => {
            let mut ip = frame.ipv6(src6, dst6).tos(tos);
            for _ in 0..r.below(3) {
                ip = ip.extension(r.pick(&[0, 43, 60]), r.below(3) as u8);
            }
            if kind < 6 {
                let next = (offset != 0).then_some(r.pick(&[6, 17, 60]));
                ip = ip.fragment(offset, more, id.into(), next);
            }
            if kind < 6 && offset != 0 {
                return ip.payload(piece).build();
            }
            if r.once_in(4) {
                ip = ip.extension(60, 0);
            }
            match c.kind {
                0..=2 => ip.tcp(sport, dport).flags(0x10).payload(piece).build(),
                3..=5 => ip.udp(sport, dport).payload(piece).build(),
                _ => ip.icmpv6_echo(7, 1).payload(piece).build(),
            }
        }
    }
}

/// Connections remembered, so that packets come back to them.
const RECENT: usize = 24;

#[derive(Clone, Copy)]
struct Connection {
    eni: [u8; 6],
    vm: usize,
    peer: usize,
    v6: bool,
    kind: usize,
    protocol: u8,
    ports: (u16, u16),
    network_vni: u32,
    pa: [u8; 4],
}

/// Every row that may name an ENI.
fn dependants(n: usize) -> Vec<ObjectKey> {
    let mut keys = vec![
        ObjectKey::EniRoute(eni_key(n)),
        ObjectKey::AclIn(eni_key(n), 1),
    ];
    keys.extend([1, 5].map(|stage| ObjectKey::AclOut(eni_key(n), stage)));
    for vni_number in VNIS {
        for (addr, len) in SOURCES {
            for priority in 0..3 {
                let source = SourcePrefix::new(addr.into(), len).unwrap();
                keys.push(ObjectKey::RouteRule(RouteRuleKey {
                    eni: eni_key(n),
                    vni: vni(vni_number),
                    source,
                    priority,
                }));
            }
        }
    }
    keys
}

/// Outer source of answers that go where they were learned.
pub(crate) const REVERSE_SIP: [u8; 4] = [10, 0, 0, 7];

/// What SAI has of an ENI and SONiC's tables have not.
fn eni_settings(r: &mut Rng) -> Object {
    Object::EniSettings(EniSettings {
        dscp: r.pick(&[None, Some(DscpMode::Preserve), Some(DscpMode::Pipe(46))]),
        disable_fast_path: r.pick(&[None, Some(false), Some(true)]),
        max_resimulated: r.pick(&[None, Some(0), Some(2)]),
        mtu: r.pick(&[None, None, None, None, Some(500), Some(1500)]),
        learn: r.once_in(2),
        reverse_sip: r.once_in(2).then(|| REVERSE_SIP.into()),
    })
}

fn txn(ops: Vec<(ObjectKey, Option<Object>)>) -> Txn {
    ops.into_iter()
        .enumerate()
        .map(|(i, (key, object))| match object {
            Some(object) => {
                let raw = format!("{object:?}").into_bytes();
                Op::set(i, key, object, raw)
            }
            None => Op::del(i, key),
        })
        .collect()
}

fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}
fn vnet(n: usize) -> VnetName {
    VnetName::from(["Vnet1", "Vnet2"][n])
}
fn eni_key(n: usize) -> EniKey {
    EniKey::from(["eni0", "eni1", "eni2"][n])
}
fn group(n: usize) -> RouteGroupId {
    RouteGroupId::from(["g0", "g1"][n])
}
fn acl_group(n: usize) -> AclGroupId {
    AclGroupId::from(["a0", "a1", "a6"][n])
}
fn tunnel_name(n: usize) -> TunnelName {
    TunnelName::from(["t0", "t1"][n])
}
fn meter_policy(n: usize) -> MeterPolicyId {
    MeterPolicyId::from(["m4", "m6"][n])
}
fn class(r: &mut Rng) -> MeterClass {
    MeterClass::new(r.pick(&CLASSES)).unwrap()
}
fn meter_bits(r: &mut Rng) -> MeterBits {
    if r.once_in(2) {
        return MeterBits::default();
    }
    let and = if r.once_in(3) {
        class(r)
    } else {
        MeterClass::MAX
    };
    MeterBits { or: class(r), and }
}
fn tunnel_of(r: &mut Rng) -> Option<TunnelName> {
    r.once_in(6).then(|| tunnel_name(r.below(2)))
}
fn masked(addr: u128, mask: u128) -> MaskedIp {
    MaskedIp {
        addr: addr.into(),
        mask: mask.into(),
    }
}
fn overlay_dip(r: &mut Rng) -> MaskedIp {
    if r.once_in(2) {
        masked(OVERLAY_DIP, !LOW)
    } else {
        masked(OVERLAY_DIP | OVERLAY_HOST, u128::MAX)
    }
}
fn port_range((min, max, base): (u16, u16, u16)) -> (ObjectKey, Option<Object>) {
    let range = match base {
        0 => PortMapRange::Skip,
        _ => PortMapRange::Service {
            backend_ip: BACKEND.into(),
            backend_port_base: base,
        },
    };
    let key = ObjectKey::PortMapRange(PortMapId::from("m"), PortRange { min, max });
    (key, Some(Object::PortMapRange(range)))
}
/// A port as the map makes it.
fn mapped(port: u16) -> u16 {
    let range = RANGES
        .iter()
        .find(|(min, max, _)| (*min..=*max).contains(&port));
    match range {
        Some((min, _, base)) if *base != 0 => port.wrapping_sub(*min).wrapping_add(*base),
        _ => port,
    }
}
fn tag_name(n: usize) -> TagName {
    TagName::from(["t0", "t1", "unknown"][n])
}
fn prefix4(r: &mut Rng) -> IpPrefix {
    let (addr, len) = r.pick(&V4_PREFIXES);
    IpPrefix::new(IpAddr::from(addr), len).unwrap()
}
fn prefix6(r: &mut Rng) -> IpPrefix {
    let len = r.pick(&[0, 32, 64, 127, 128]);
    IpPrefix::new(v6(r.below(6)).into(), len).unwrap()
}
fn address(r: &mut Rng) -> IpAddr {
    if r.once_in(4) {
        v6(r.below(6)).into()
    } else {
        IpAddr::from(r.pick(&V4))
    }
}
