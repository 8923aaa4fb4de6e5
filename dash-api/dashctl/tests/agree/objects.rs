//! Random objects, and changes of them.

use std::net::Ipv4Addr;

use dash_model::ObjectKey;
use dash_model::key::{PortMapId, QosName, RouteRuleKey, RoutingType, SourcePrefix, TunnelName};
use dash_model::net::{Mac, MaskedIp, PortRange, VniRange};
use dash_model::objects::{
    AclAction, AclBind, AclGroup, AclRule, Appliance, DscpMode, EncapType, Eni, EniMode, EniRoute,
    EniSettings, Family, MeterBits, MeterClass, MeterPolicy, MeterRule, Object, OutboundLookup,
    PaValidation, PortMap, PortMapRange, PrefixTag, PrivateLink, Qos, Route, RouteAction,
    RouteGroup, RouteGroupSettings, RouteRule, RoutingTypeDef, RuleAction, ServiceTunnel,
    StaticEncap, Tunnel, Vnet, VnetMapping,
};

use super::World;
use super::rng::Rng;
use super::universe::{
    BACKEND, CLASSES, ENI_BITS, ENI_MASK, ENIS, FLOATING, LOW, MACS, OVERLAY_DIP, OVERLAY_HOST,
    OVERLAY_SIP, PAS, PEER, PORTS, RANGES, REVERSE_SIP, SOURCES, VIP, VM_VNI, VNIS, acl_group,
    address, eni_key, group, masked, meter_policy, prefix4, prefix6, tag_name, tunnel_name, vnet,
    vni,
};

impl World {
    /// Something in every table, so that changes have parents.
    pub(super) fn base(&mut self) -> Vec<(ObjectKey, Option<Object>)> {
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

    pub(super) fn change(&mut self, ops: &mut Vec<(ObjectKey, Option<Object>)>) {
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

    pub(super) fn eni(&mut self, n: usize) -> Eni {
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

    pub(super) fn rule(&mut self) -> (ObjectKey, Option<Object>) {
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
            protocol: r.pick(&[None, None, None, Some(6), Some(17)]),
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

/// What SAI has of an ENI and SONiC's tables have not.
fn eni_settings(r: &mut Rng) -> Object {
    Object::EniSettings(EniSettings {
        dscp: r.pick(&[None, Some(DscpMode::Preserve), Some(DscpMode::Pipe(46))]),
        disable_fast_path: r.pick(&[None, Some(false), Some(true)]),
        max_resimulated: r.pick(&[None, Some(0), Some(2)]),
        mtu: r.pick(&[None, None, None, None, Some(500), Some(1500)]),
        learn: r.once_in(2),
        reverse_sip: r.once_in(2).then(|| REVERSE_SIP.into()),
        packets_per_second: r.once_in(3).then(|| r.pick(&[1, 100, 1_000])),
    })
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
