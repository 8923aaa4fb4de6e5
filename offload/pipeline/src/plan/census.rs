//! Counts of the objects that the shape depends on.

use dash_model::key::{ObjectKey, RoutingType};
use dash_model::objects::{AclBind, DscpMode, EncapType, EniMode, Object, RouteRule, RuleAction};
use dash_wire::tables::ACL_STAGES;

use super::{FlowNeeds, Shape, meter, rows, trusted};

/// How many objects call for each part of the shape.
#[derive(Clone, Debug, Default)]
pub(super) struct Census {
    /// Appliances and ENIs that list trusted VNIs.
    trusting: usize,
    /// Inbound rules that validate PAs.
    validating: usize,
    /// Rows that list sources beside the PAs of mappings.
    permitting: usize,
    /// Binds of outbound stages that name a group.
    out: [usize; ACL_STAGES],
    /// Binds of inbound stages that name a group.
    r#in: [usize; ACL_STAGES],
    /// Routes with more than their row.
    route_more: usize,
    /// Mappings with more than their row.
    mapping_more: usize,
    service_tunnels: usize,
    private_links: usize,
    /// Those of them with the routing type `privatelinknsg`.
    nsg_links: usize,
    /// Mappings that name a port map.
    port_mapped: usize,
    /// Routes and mappings that name a tunnel.
    tunneled: usize,
    /// ENIs that are floating NICs.
    floating: usize,
    /// Appliances and ENIs that trust a redirect's key.
    redirecting: usize,
    /// Tunnels of NVGRE.
    nvgre_tunnels: usize,
    /// The routing type of service tunnels, if it says NVGRE.
    nvgre_services: usize,
    /// The routing types of private links, if they say NVGRE.
    nvgre_links: usize,
    /// Objects that give metering classes.
    metering: usize,
    /// Route groups that are disabled.
    disabled: usize,
    /// ENIs with a DSCP of their own.
    piped: usize,
    /// ENIs with a limit of their own for what leaves.
    limited: usize,
    /// ENIs whose replies go where packets come from.
    learning: usize,
    /// Inbound rules for one protocol.
    particular: usize,
}

impl Census {
    pub(super) fn add(&mut self, key: &ObjectKey, object: &Object) {
        self.count(key, object, &|count| *count += 1);
    }

    pub(super) fn remove(&mut self, key: &ObjectKey, object: &Object) {
        self.count(key, object, &|count| {
            *count = count
                .checked_sub(1)
                .expect("an object goes once for each time it came");
        });
    }

    /// Changes the counts that the object is part of.
    fn count(&mut self, key: &ObjectKey, object: &Object, change: &dyn Fn(&mut usize)) {
        let change_if = |part: bool, count: &mut usize| {
            if part {
                change(count);
            }
        };
        change_if(meter::meters(object), &mut self.metering);
        match (key, object) {
            (_, Object::Appliance(_) | Object::Eni(_)) => {
                change_if(!trusted::listed(object).is_empty(), &mut self.trusting);
                change_if(trusted::takes_redirects(object), &mut self.redirecting);
                if let Object::Eni(eni) = object {
                    change_if(eni.mode == EniMode::Floating, &mut self.floating);
                }
            }
            (_, Object::EniSettings(own)) => {
                change_if(matches!(own.dscp, Some(DscpMode::Pipe(_))), &mut self.piped);
                change_if(own.mtu.is_some(), &mut self.limited);
                change_if(own.learn, &mut self.learning);
            }
            (_, Object::RouteGroupSettings(own)) => change_if(own.disabled, &mut self.disabled),
            (_, Object::PaValidation(row)) => {
                change_if(!row.prefixes.is_empty(), &mut self.permitting);
            }
            (_, Object::RouteRule(rule)) => {
                change_if(validates(rule), &mut self.validating);
                change_if(rule.protocol.is_some(), &mut self.particular);
            }
            (ObjectKey::AclOut(_, stage), Object::AclOut(bind)) => {
                if let Some(count) = stage_of(&mut self.out, *stage, bind) {
                    change(count);
                }
            }
            (ObjectKey::AclIn(_, stage), Object::AclIn(bind)) => {
                if let Some(count) = stage_of(&mut self.r#in, *stage, bind) {
                    change(count);
                }
            }
            (_, Object::Route(route)) => {
                change_if(rows::route_has_more(route), &mut self.route_more);
                change_if(route.encap_of().is_some(), &mut self.service_tunnels);
                change_if(route.tunnel.is_some(), &mut self.tunneled);
            }
            (_, Object::VnetMapping(mapping)) => {
                change_if(rows::mapping_has_more(mapping), &mut self.mapping_more);
                change_if(mapping.private_link.is_some(), &mut self.private_links);
                let nsg = mapping.private_link.as_ref().is_some_and(|link| link.nsg);
                change_if(nsg, &mut self.nsg_links);
                change_if(mapping.port_map().is_some(), &mut self.port_mapped);
                change_if(mapping.tunnel.is_some(), &mut self.tunneled);
            }
            (_, Object::Tunnel(tunnel)) => {
                change_if(tunnel.kind == EncapType::Nvgre, &mut self.nvgre_tunnels);
            }
            (ObjectKey::RoutingType(kind), Object::RoutingType(def)) => {
                let nvgre = def
                    .static_encap
                    .is_some_and(|encap| encap.kind == EncapType::Nvgre);
                match kind {
                    RoutingType::ServiceTunnel => change_if(nvgre, &mut self.nvgre_services),
                    RoutingType::PrivateLink | RoutingType::PrivateLinkNsg => {
                        change_if(nvgre, &mut self.nvgre_links);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// The shape, but for the underlay, the settings, limits and the flows that were made before.
    pub(super) fn shape(&self) -> Shape {
        let (service_tunnel, private_link) = (self.service_tunnels > 0, self.private_links > 0);
        let (tunnel, meter) = (self.tunneled > 0, self.metering > 0);
        let redirect = self.redirecting > 0;
        Shape {
            trusted_vnis: self.trusting > 0,
            acl_out: bits(&self.out),
            acl_in: bits(&self.r#in),
            route_group_disabled: self.disabled > 0,
            dscp_pipe: self.piped > 0,
            mtu: self.limited > 0,
            inbound_pa_validation: self.validating > 0,
            inbound_protocol: self.particular > 0,
            pa_prefixes: self.validating > 0 && self.permitting > 0,
            underlay_routes: false,
            hooks: false,
            route_more: self.route_more > 0,
            mapping_more: self.mapping_more > 0,
            service_tunnel,
            private_link,
            private_link_nsg: self.nsg_links > 0,
            port_map: self.port_mapped > 0,
            drop_unmapped_ports: false,
            tunnel,
            floating: self.floating > 0,
            redirect,
            meter,
            bandwidth: false,
            packet_rate: false,
            admission: false,
            flows: FlowNeeds {
                translate: service_tunnel || private_link,
                nvgre: (tunnel && self.nvgre_tunnels > 0)
                    || (service_tunnel && self.nvgre_services > 0)
                    || (private_link && self.nvgre_links > 0)
                    || redirect,
                u1: tunnel,
                redirects: redirect,
                meter,
                epoch: self.learning > 0,
                learn: self.learning > 0,
            },
            ..Shape::default()
        }
    }
}

/// True for a rule whose packets are taken only from PAs of a VNET.
pub(super) fn validates(rule: &RouteRule) -> bool {
    rule.action == RuleAction::Decap && rule.pa_validation
}

fn stage_of<'a>(
    counts: &'a mut [usize; ACL_STAGES],
    stage: u8,
    bind: &AclBind,
) -> Option<&'a mut usize> {
    let bound = bind.v4.is_some() || bind.v6.is_some();
    let stage = usize::from(stage).checked_sub(1)?;
    counts.get_mut(stage).filter(|_| bound)
}

fn bits(counts: &[usize; ACL_STAGES]) -> u8 {
    let bound = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    bound.fold(0, |bits, (stage, _)| bits | 1 << stage)
}
