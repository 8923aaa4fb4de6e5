//! What of a configuration its code depends on.

use crate::ir::Timeouts;

/// What code depends on: the same shape, the same code.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Shape {
    /// The appliance or an ENI lists trusted VNIs (A5).
    pub trusted_vnis: bool,
    /// Bit `k - 1`: an ENI binds a group to outbound stage `k`.
    pub acl_out: u8,
    /// Bit `k - 1`: an ENI binds a group to inbound stage `k`.
    pub acl_in: u8,
    /// A route group is disabled.
    pub route_group_disabled: bool,
    /// An inbound rule validates PAs.
    pub inbound_pa_validation: bool,
    /// An inbound rule is for one protocol.
    pub inbound_protocol: bool,
    /// There are valid sources beside the PAs of mappings.
    pub pa_prefixes: bool,
    /// The underlay has a route; without any, packets leave by the port they came from.
    pub underlay_routes: bool,
    /// A route has more than its row.
    pub route_more: bool,
    /// A mapping has more than its row.
    pub mapping_more: bool,
    /// A route is a service tunnel.
    pub service_tunnel: bool,
    /// A mapping is a private link.
    pub private_link: bool,
    /// One has the encap of `privatelinknsg`.
    pub private_link_nsg: bool,
    /// A mapping names a port map.
    pub port_map: bool,
    /// And a port in no range of it drops.
    pub drop_unmapped_ports: bool,
    /// A route or a mapping names a tunnel.
    pub tunnel: bool,
    /// An ENI is a floating NIC.
    pub floating: bool,
    /// Somebody trusts a key that redirects of load balancers come with.
    pub redirect: bool,
    /// Something gives new flows a metering class.
    pub meter: bool,
    /// An ENI has a bandwidth limit.
    pub bandwidth: bool,
    /// An ENI may send and get only so many packets a second.
    pub packet_rate: bool,
    /// An ENI may make only so many flows.
    pub admission: bool,
    /// What flows that are there may need.
    pub flows: FlowNeeds,
    /// VXLAN is taken from some source ports only.
    pub sport_security: bool,
    /// Packets that leave have a limit: all, or those of an ENI.
    pub mtu: bool,
    /// Ports have limits that differ: the least.
    pub port_mtu: Option<u16>,
    /// Encaps have a DSCP of their own: all, or those of an ENI.
    pub dscp_pipe: bool,
    /// How long connections stay without a packet.
    pub timeouts: Timeouts,
    /// TCP of no known connection is dropped unless it is a SYN (A19).
    pub tcp_nonsyn_drop: bool,
    /// TCP that an ACL denies in the middle of a connection is answered with resets.
    pub tcp_reset: bool,
    /// A program is attached to an ENI.
    pub hooks: bool,
}

impl Shape {
    /// Everything at once: the pipeline with every part that there is. Reports of what was never
    /// reached take it as the whole, so each new part must be in it; but for what settings and requests
    /// change about the life of flows, which says the same statements otherwise: a scenario of each is
    /// reported as a whole of its own.
    pub fn everything() -> Self {
        Self {
            trusted_vnis: true,
            acl_out: 0b11111,
            acl_in: 0b11111,
            route_group_disabled: true,
            inbound_pa_validation: true,
            inbound_protocol: true,
            pa_prefixes: true,
            underlay_routes: true,
            route_more: true,
            mapping_more: true,
            service_tunnel: true,
            private_link: true,
            private_link_nsg: true,
            port_map: true,
            drop_unmapped_ports: true,
            tunnel: true,
            floating: true,
            redirect: true,
            meter: true,
            bandwidth: true,
            packet_rate: true,
            admission: true,
            flows: FlowNeeds {
                translate: true,
                nvgre: true,
                u1: true,
                redirects: true,
                meter: true,
                // What is learned needs it.
                epoch: true,
                learn: true,
            },
            sport_security: true,
            mtu: true,
            // That of the scenarios.
            port_mtu: Some(1500),
            dscp_pipe: true,
            timeouts: Timeouts::default(),
            tcp_nonsyn_drop: false,
            tcp_reset: false,
            // What programs of users do is not the configuration's.
            hooks: false,
        }
    }
}

/// What packets of flows may need beside one VXLAN encap. Flows outlive the objects they were made
/// by, so code that could do it once goes on to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FlowNeeds {
    /// IPv4 becomes IPv6, and back.
    pub translate: bool,
    /// Encaps are NVGRE, received or sent.
    pub nvgre: bool,
    /// An encap in another.
    pub u1: bool,
    /// A redirect may have changed them.
    pub redirects: bool,
    /// Flows have metering classes.
    pub meter: bool,
    /// They are decided again when an ENI's epoch moves.
    pub epoch: bool,
    /// They are decided again when the first side's packets come from elsewhere; then `epoch` is set too.
    pub learn: bool,
}

impl FlowNeeds {
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            translate: self.translate || other.translate,
            nvgre: self.nvgre || other.nvgre,
            u1: self.u1 || other.u1,
            redirects: self.redirects || other.redirects,
            meter: self.meter || other.meter,
            epoch: self.epoch || other.epoch,
            learn: self.learn || other.learn,
        }
    }

    /// More than a side of a connection says by itself.
    pub fn pair(self) -> bool {
        self.translate || self.u1
    }
}
