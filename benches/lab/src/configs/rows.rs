//! The objects, made one after the other.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use dash_model::key::{RouteRuleKey, RoutingType, SourcePrefix};
use dash_model::net::IpPrefix;
use dash_model::objects::{
    AclAction, AclBind, AclGroup, AclRule, Appliance, EncapType, Eni, EniMode, EniRoute, Family,
    MeterBits, MeterClass, Object, OutboundLookup, RouteAction, RouteGroup, RouteRule,
    RoutingTypeDef, RuleAction, StaticEncap, Vnet, VnetMapping,
};
use dash_model::{ObjectKey, Op, Txn};

use super::{Config, encode, plan};

/// One row of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub key: ObjectKey,
    /// What it says.
    pub object: Object,
}

impl Row {
    /// The row's message as protobuf, as gNMI carries it.
    pub fn bytes(&self) -> Vec<u8> {
        encode::message(&self.key, &self.object)
    }

    /// The row as SONiC writes it in a configuration file.
    pub fn json(&self) -> serde_json::Value {
        let value = dash_proto::row_to_json(self.key.table_name(), &self.bytes());
        serde_json::json!({ (self.key.to_string()): value, "OP": "SET" })
    }
}

fn row(key: ObjectKey, object: Object) -> Row {
    Row { key, object }
}

fn host(ip: Ipv4Addr) -> IpPrefix {
    IpPrefix::host(ip.into())
}

fn prefix(ip: Ipv4Addr, len: u8) -> IpPrefix {
    IpPrefix::new(ip.into(), len).expect("a length of at most 32")
}

impl Config {
    /// Every row, parents before their children.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        let enis = (0..self.scale.enis).flat_map(|eni| self.eni_rows(eni));
        self.card_rows().into_iter().chain(enis)
    }

    /// The rows as transactions: the card, then one for each ENI with all that belongs to it.
    pub fn txns(&self) -> impl Iterator<Item = Txn> + '_ {
        let card = std::iter::once_with(|| txn(self.card_rows()));
        card.chain((0..self.scale.enis).map(|eni| txn(self.eni_rows(eni))))
    }

    /// The rows as one JSON file, as `dashctl push` and SONiC's tools read it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_json(&self, out: &mut impl io::Write) -> io::Result<()> {
        let mut before = "[\n";
        for row in self.rows() {
            write!(out, "{before}{}", row.json())?;
            before = ",\n";
        }
        writeln!(out, "\n]")
    }

    fn card_rows(&self) -> Vec<Row> {
        vec![
            row(
                ObjectKey::Appliance(plan::appliance()),
                Object::Appliance(Appliance {
                    sip: plan::vip(),
                    vm_vni: plan::vni(plan::VM_VNI),
                    trusted_vnis: vec![],
                    outbound_lookup: OutboundLookup::SrcMac,
                }),
            ),
            row(
                ObjectKey::RoutingType(RoutingType::VnetEncap),
                Object::RoutingType(RoutingTypeDef {
                    static_encap: Some(StaticEncap {
                        kind: EncapType::Vxlan,
                        key: None,
                    }),
                }),
            ),
        ]
    }

    /// The rows of one ENI, its VNET and its groups among them.
    pub fn eni_rows(&self, eni: u32) -> impl Iterator<Item = Row> + '_ {
        let key = plan::eni_key(eni);
        let group = plan::route_group(eni);
        let head = [
            row(
                ObjectKey::Vnet(plan::vnet(eni)),
                Object::Vnet(Vnet {
                    vni: plan::vni(plan::vnet_vni(eni)),
                }),
            ),
            row(
                ObjectKey::Eni(key.clone()),
                Object::Eni(Eni {
                    mac: plan::local_mac(eni),
                    underlay_ip: plan::host(eni),
                    enabled: true,
                    vnet: Some(plan::vnet(eni)),
                    trusted_vnis: vec![],
                    pl_sip: None,
                    pl_underlay_sip: None,
                    mode: EniMode::Vm,
                    disable_fast_path: false,
                    v4_meter_policy: None,
                    v6_meter_policy: None,
                    qos: None,
                }),
            ),
            row(
                ObjectKey::RouteGroup(group.clone()),
                Object::RouteGroup(RouteGroup::default()),
            ),
        ];
        let bind = row(
            ObjectKey::EniRoute(key),
            Object::EniRoute(EniRoute { group }),
        );
        head.into_iter()
            .chain(self.acl_rows(eni))
            .chain(self.mapping_rows(eni))
            .chain(self.route_rows(eni))
            .chain(self.inbound_rows(eni))
            .chain(std::iter::once(bind))
    }

    fn acl_rows(&self, eni: u32) -> impl Iterator<Item = Row> + '_ {
        let sides = [false, true].into_iter();
        let groups = sides.flat_map(|out| (0..self.scale.stages).map(move |stage| (out, stage)));
        groups.flat_map(move |(outbound, stage)| self.group_rows(eni, outbound, stage))
    }

    /// A group, its rules, and where it is bound.
    fn group_rows(&self, eni: u32, outbound: bool, stage: u32) -> impl Iterator<Item = Row> + '_ {
        let id = plan::acl_group(eni, outbound, stage);
        let group = row(
            ObjectKey::AclGroup(id.clone()),
            Object::AclGroup(AclGroup { family: Family::V4 }),
        );
        let bound = AclBind {
            v4: Some(id.clone()),
            v6: None,
        };
        let number = u8::try_from(stage + 1).expect("at most five stages");
        let bind = if outbound {
            row(
                ObjectKey::AclOut(plan::eni_key(eni), number),
                Object::AclOut(bound),
            )
        } else {
            row(
                ObjectKey::AclIn(plan::eni_key(eni), number),
                Object::AclIn(bound),
            )
        };
        let rules = (0..self.scale.rules).map(move |n| {
            row(
                ObjectKey::AclRule(id.clone(), format!("rule{n}").into()),
                Object::AclRule(Arc::new(self.rule(eni, outbound, stage, n))),
            )
        });
        std::iter::once(group)
            .chain(rules)
            .chain(std::iter::once(bind))
    }

    /// The window a stage has fine rules for.
    pub(super) fn window_of(&self, outbound: bool, stage: u32) -> u32 {
        let first = if outbound { self.scale.stages } else { 0 };
        (first + stage) % self.scale.windows
    }

    fn rule(&self, eni: u32, outbound: bool, stage: u32, n: u32) -> AclRule {
        let s = &self.scale;
        let window = self.window_of(outbound, stage);
        let permit = n.is_multiple_of(2);
        // Permits name odd addresses, the deny after each the even ones just below.
        let first = (n - n % 2) * s.prefixes + u32::from(permit);
        let one = |i| host(plan::remote(eni, window, first + 2 * i));
        let mut remote: Vec<IpPrefix> = (0..s.prefixes).map(one).collect();
        if permit && n / 2 + 1 == s.permits() {
            let others = (0..s.windows).filter(|&w| w != window);
            remote.extend(others.map(|w| prefix(plan::remote(eni, w, 0), 15)));
        }
        let local = vec![host(plan::local(eni))];
        let (src_prefixes, dst_prefixes) = if outbound {
            (local, remote)
        } else {
            (remote, local)
        };
        AclRule {
            priority: n,
            action: if permit {
                AclAction::Permit
            } else {
                AclAction::Deny
            },
            terminating: !permit || stage + 1 == s.stages,
            protocols: vec![],
            src_prefixes,
            dst_prefixes,
            src_ports: vec![],
            dst_ports: vec![],
            src_tags: vec![],
            dst_tags: vec![],
        }
    }

    fn mapping_rows(&self, eni: u32) -> impl Iterator<Item = Row> + '_ {
        let windows = 0..self.scale.windows;
        let mapped = self.scale.mapped * self.scale.prefixes;
        let addresses = windows.flat_map(move |w| (0..mapped).map(move |nth| (w, nth)));
        addresses.map(move |(window, nth)| {
            let offset = 2 * nth + 1;
            row(
                ObjectKey::VnetMapping(
                    plan::vnet(eni),
                    IpAddr::V4(plan::remote(eni, window, offset)),
                ),
                Object::VnetMapping(VnetMapping {
                    underlay_ip: self.pa_of(eni, window, nth),
                    mac: Some(plan::remote_mac(eni, window, offset)),
                    use_dst_vni: true,
                    private_link: None,
                    tunnel: None,
                    meter_or: MeterClass::default(),
                }),
            )
        })
    }

    fn route_rows(&self, eni: u32) -> impl Iterator<Item = Row> + '_ {
        let windows = 0..self.scale.windows;
        let blocks = windows.flat_map(|w| self.blocks.blocks().map(move |block| (w, block)));
        blocks.flat_map(move |(window, (first, bits))| {
            let mapped = self.is_mapped((first, bits));
            (0..bits).map(move |bit| {
                let to = plan::remote(eni, window, first + (1 << bit));
                let len = 32 - u8::try_from(bit).expect("below 17");
                let vnet = plan::vnet(eni);
                let action = if mapped {
                    RouteAction::Vnet(vnet)
                } else {
                    RouteAction::VnetDirect {
                        vnet,
                        overlay_ip: Some(self.gateway(eni).into()),
                    }
                };
                row(
                    ObjectKey::Route(plan::route_group(eni), prefix(to, len)),
                    Object::Route(action.into()),
                )
            })
        })
    }

    fn inbound_rows(&self, eni: u32) -> impl Iterator<Item = Row> + '_ {
        (0..self.scale.pas).map(move |n| {
            let key = RouteRuleKey {
                eni: plan::eni_key(eni),
                vni: plan::vni(plan::vnet_vni(eni)),
                source: SourcePrefix::new(plan::pa(eni, n), 32).expect("a length of at most 32"),
                priority: 0,
            };
            row(
                ObjectKey::RouteRule(key),
                Object::RouteRule(RouteRule {
                    action: RuleAction::Decap,
                    protocol: None,
                    vnet: Some(plan::vnet(eni)),
                    pa_validation: true,
                    meter: MeterBits::default(),
                }),
            )
        })
    }
}

fn txn(rows: impl IntoIterator<Item = Row>) -> Txn {
    let ops = rows.into_iter().enumerate().map(|(index, row)| {
        let raw = row.bytes();
        Op::set(index, row.key, row.object, raw)
    });
    ops.collect()
}
