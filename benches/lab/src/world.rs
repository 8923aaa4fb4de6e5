//! The demo configuration, packets for it, and templates made of them.

use anyhow::{Context as _, Result};
use dash_model::Txn;
use dash_proto::config::{config_to_txn, load_config};
use nic_sim::Packet;
use nic_sim::packet::{Layers, last, tcp_flags};

use crate::traffic::{Expect, Template, Vm};

/// The configuration of `cargo xtask demo`.
pub const DEMO: &str = include_str!("../../../specs/scenarios/demo/config.json");

/// Rows of a configuration file as one transaction.
///
/// # Errors
/// It is not a configuration.
pub fn txn(text: &str) -> Result<Txn> {
    let rows = load_config(text)?;
    Ok(config_to_txn(&rows)?.0)
}

/// The demo configuration without its ACLs, which not every engine has.
///
/// # Errors
/// The file is not what it was.
pub fn without_acl() -> Result<Txn> {
    let mut rows = load_config(DEMO)?;
    rows.retain(|row| !row.table.starts_with("DASH_ACL_"));
    Ok(config_to_txn(&rows)?.0)
}

/// The demo configuration and, beside its own, every other routing type that the pipeline has.
///
/// # Errors
/// The files are not what they were.
pub fn routing_types() -> Result<Txn> {
    let mut rows = load_config(DEMO)?;
    // The other file has the ENI with more fields.
    rows.retain(|row| row.table != "DASH_ENI_TABLE");
    rows.extend(load_config(include_str!("world/routing_types.json"))?);
    Ok(config_to_txn(&rows)?.0)
}

/// A change: the mapping that [`Way::Vnet`] uses leads to this PA.
///
/// # Errors
/// Never.
pub fn mapping(dip: [u8; 4]) -> Result<Txn> {
    let dip = std::net::Ipv4Addr::from(dip);
    txn(&format!(
        r#"[{{"DASH_VNET_MAPPING_TABLE:Vnet2:20.0.0.5": {{"routing_type": "vnet_encap",
        "underlay_ip": "{dip}", "mac_address": "F8:22:83:99:22:A5", "use_dst_vni": "true"}}, "OP": "SET"}}]"#
    ))
}

/// A change: route `n` of those that no packet takes leads to one of the two VNETs.
///
/// # Errors
/// Never.
pub fn route(n: u8, second: bool) -> Result<Txn> {
    txn(&format!(
        r#"[{{"DASH_ROUTE_TABLE:RouteGroup1:50.0.{n}.0/24":
        {{"routing_type": "vnet", "vnet": "Vnet{}"}}, "OP": "SET"}}]"#,
        1 + u8::from(second)
    ))
}

/// A second ACL group that says the same as the demo's.
///
/// # Errors
/// Never.
pub fn second_acl() -> Result<Txn> {
    txn(r#"[
        {"DASH_ACL_GROUP_TABLE:out2": {"ip_version": "ipv4"}, "OP": "SET"},
        {"DASH_ACL_RULE_TABLE:out2:1": {"priority": "10", "action": "deny", "terminating": "true", "protocol": "6", "dst_port": "23"}, "OP": "SET"},
        {"DASH_ACL_RULE_TABLE:out2:2": {"priority": "100", "action": "allow", "terminating": "true"}, "OP": "SET"}
    ]"#)
}

/// A change: the ENI's ACL group is the second one, or the demo's again.
///
/// # Errors
/// Never.
pub fn bind_acl(second: bool) -> Result<Txn> {
    let group = if second { "out2" } else { "out1" };
    txn(&format!(
        r#"[{{"DASH_ACL_OUT_TABLE:F4939FEFC47E:1": {{"v4_acl_group_id": "{group}"}}, "OP": "SET"}}]"#
    ))
}

const DPU: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NEIGHBOR: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ENI: [u8; 6] = [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e];
const PEER: [u8; 6] = [0xf8, 0x22, 0x83, 0x99, 0x22, 0xa2];
const VIP: [u8; 4] = [10, 0, 0, 1];
const VM: [u8; 4] = [10, 200, 0, 0];
const FIRST_PORT: u16 = 1024;

/// What a packet of a measurement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// VNET to VNET by a route of type `vnet` and the destination's mapping.
    Vnet,
    /// By `vnet_direct`: the mapping of the route's own overlay address.
    VnetDirect,
    /// By `direct`: no encap.
    Direct,
    /// Over IPv6 inside, by `vnet`.
    VnetV6,
    /// From the network to the VM, its source a PA of the VNET.
    Inbound,
    /// A service tunnel over VXLAN: IPv4 becomes IPv6.
    ServiceTunnel,
    /// The answer, IPv4 again. Its flow is [`ServiceTunnel`](Self::ServiceTunnel)'s.
    ServiceTunnelReply,
    /// A private link over NVGRE: IPv4 becomes IPv6.
    PrivateLink,
    /// A private link through an appliance: two encaps.
    PrivateLinkNsg,
    /// A private link to a service's port behind a port map.
    PortMap,
    /// By `direct`, in a tunnel.
    DirectTunnel,
    /// By `direct`, in a tunnel of four endpoints.
    DirectTunnelOfMany,
    /// Denied by an ACL rule.
    Deny,
    /// Dropped by its route.
    DropRoute,
}

impl Way {
    /// Those whose packets leave.
    pub const FORWARDED: [Self; 5] = [
        Self::Vnet,
        Self::VnetDirect,
        Self::Direct,
        Self::VnetV6,
        Self::Inbound,
    ];

    /// Those of [`routing_types`], in an order in which each answer comes after its flow was made.
    pub const ROUTING_TYPES: [Self; 8] = [
        Self::Vnet,
        Self::ServiceTunnel,
        Self::ServiceTunnelReply,
        Self::PrivateLink,
        Self::PrivateLinkNsg,
        Self::PortMap,
        Self::DirectTunnel,
        Self::DirectTunnelOfMany,
    ];

    /// Whether its packets may be the first of a flow.
    pub fn opens(self) -> bool {
        self != Self::ServiceTunnelReply
    }

    /// For rows of tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceTunnel => "servicetunnel, 4to6, VXLAN",
            Self::ServiceTunnelReply => "servicetunnel, answer, 6to4",
            Self::PrivateLink => "privatelink, 4to6, NVGRE",
            Self::PrivateLinkNsg => "privatelink and tunnel, 4to6, NVGRE in VXLAN",
            Self::PortMap => "privatelink and port map, 4to6, NVGRE",
            Self::DirectTunnel => "direct, tunnel",
            Self::DirectTunnelOfMany => "direct, tunnel of 4 endpoints",
            Self::Vnet => "outbound vnet",
            Self::VnetDirect => "outbound vnet_direct",
            Self::Direct => "outbound direct",
            Self::VnetV6 => "outbound vnet, IPv6",
            Self::Inbound => "inbound",
            Self::Deny => "outbound, denied by an ACL",
            Self::DropRoute => "outbound, route drops",
        }
    }

    /// What comes out.
    fn expect(self) -> Expect {
        let nvgre = |dip| Expect::Nvgre { vsid: 100, dip };
        let (vni, dip) = match self {
            Self::ServiceTunnel => (100, [25, 1, 2, 1]),
            Self::PrivateLinkNsg | Self::DirectTunnel => (200, [80, 80, 80, 80]),
            Self::PrivateLink => return nvgre([101, 1, 2, 4]),
            Self::PortMap => return nvgre([60, 60, 60, 1]),
            Self::DirectTunnelOfMany => {
                return Expect::VxlanToAny {
                    vni: 300,
                    dips: &[
                        [90, 90, 90, 1],
                        [90, 90, 90, 2],
                        [90, 90, 90, 3],
                        [90, 90, 90, 4],
                    ],
                };
            }
            Self::Vnet => (60_000, [102, 0, 0, 5]),
            Self::VnetDirect | Self::VnetV6 => (45_654, [101, 1, 2, 3]),
            Self::Inbound | Self::ServiceTunnelReply => (4_321, [25, 1, 1, 1]),
            Self::Direct => return Expect::Bare,
            Self::Deny | Self::DropRoute => return Expect::Nothing,
        };
        Expect::Vxlan { vni, dip }
    }

    /// Flow 0's packet with an inner frame of `size` bytes, its FCS counted (captures and ports leave it
    /// out): 64 is the smallest there is.
    fn packet(self, size: usize) -> Vec<u8> {
        let inner = size.saturating_sub(4);
        let four = |l: Layers<last::Ipv4>, sport, dport| {
            let payload = vec![0x5a; inner.saturating_sub(14 + 20 + 8)];
            l.udp(sport, dport).payload(payload).build()
        };
        let to = |dst: [u8; 4]| four(from_vm().ipv4(VM, dst), FIRST_PORT, 2000);
        match self {
            Self::Vnet => to([20, 0, 0, 5]),
            Self::VnetDirect => to([10, 1, 0, 77]),
            Self::Direct => to([30, 0, 0, 1]),
            Self::DropRoute => to([10, 2, 5, 1]),
            Self::ServiceTunnel => to([50, 1, 2, 1]),
            Self::PrivateLink => to([10, 1, 2, 1]),
            Self::PrivateLinkNsg => to([10, 1, 2, 2]),
            Self::PortMap => to([10, 1, 2, 3]),
            Self::DirectTunnel => to([30, 1, 0, 1]),
            Self::DirectTunnelOfMany => to([30, 2, 0, 1]),
            Self::ServiceTunnelReply => {
                let service = [0x2603, 0x10e1, 0x100, 2, 0, 0, 0x3201, 0x201];
                let vm = [0xfd00, 0x108, 0, 0xd204, 0, 0x200, 0x0ac8, 0];
                let payload = vec![0x5a; inner.saturating_sub(14 + 40 + 8)];
                Packet::eth(DPU, NEIGHBOR)
                    .ipv4([25, 1, 2, 1], VIP)
                    .udp(5200, 4789)
                    .vxlan(100)
                    .eth(ENI, PEER)
                    .ipv6(service, vm)
                    .udp(2000, FIRST_PORT)
                    .payload(payload)
                    .build()
            }
            Self::VnetV6 => {
                let payload = vec![0x5a; inner.saturating_sub(14 + 40 + 8)];
                from_vm()
                    .ipv6([0xfd00, 1, 0, 0, 0, 0, 1, 0], [0xfd00, 1, 0, 0, 0, 0, 0, 1])
                    .udp(FIRST_PORT, 2000)
                    .payload(payload)
                    .build()
            }
            Self::Inbound => four(to_vm().ipv4([10, 1, 1, 1], VM), 9, FIRST_PORT),
            Self::Deny => {
                let payload = vec![0x5a; inner.saturating_sub(14 + 20 + 20)];
                from_vm()
                    .ipv4(VM, [20, 0, 0, 5])
                    .tcp(FIRST_PORT, 23)
                    .payload(payload)
                    .build()
            }
        }
    }

    /// The template of its packets, with inner frames of `size` bytes.
    ///
    /// # Errors
    /// Never for the packets above.
    pub fn template(self, size: usize) -> Result<Template> {
        let vm = match self {
            Self::Inbound | Self::ServiceTunnelReply => Vm::Destination,
            _ => Vm::Source,
        };
        Template::new(self.packet(size), vm, self.expect()).context(self.name())
    }
}

fn from_vm() -> Layers<last::Eth> {
    Packet::eth(DPU, NEIGHBOR)
        .ipv4([25, 1, 1, 1], VIP)
        .udp(5137, 4789)
        .vxlan(4321)
        .eth(PEER, ENI)
}

fn to_vm() -> Layers<last::Eth> {
    Packet::eth(DPU, NEIGHBOR)
        .ipv4([101, 1, 2, 3], VIP)
        .udp(5200, 4789)
        .vxlan(45654)
        .eth(ENI, PEER)
}

/// The packets of a TCP connection from the VM to a peer, as DASH's CPS test has them: SYN, SYN-ACK,
/// ACK, FIN, FIN-ACK, ACK.
///
/// # Errors
/// Never for these packets.
pub fn connection() -> Result<Vec<Template>> {
    use tcp_flags::{ACK, FIN, SYN};
    let peer = [10, 1, 1, 1];
    let out = |flags, seq, ack| {
        let tcp = from_vm().ipv4(VM, peer).tcp(FIRST_PORT, 80);
        let packet = tcp.flags(flags).numbers(seq, ack).payload([]).build();
        let expect = Expect::Vxlan {
            vni: 45_654,
            dip: [101, 1, 2, 3],
        };
        Template::new(packet, Vm::Source, expect)
    };
    let back = |flags, seq, ack| {
        let tcp = to_vm().ipv4(peer, VM).tcp(80, FIRST_PORT);
        let packet = tcp.flags(flags).numbers(seq, ack).payload([]).build();
        Template::new(packet, Vm::Destination, Way::Inbound.expect())
    };
    Ok(vec![
        out(SYN, 1, 0)?,
        back(SYN | ACK, 1, 2)?,
        out(ACK, 2, 2)?,
        out(FIN | ACK, 2, 2)?,
        back(FIN | ACK, 2, 3)?,
        out(ACK, 3, 3)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_size_they_are_named_by() {
        let ways = Way::FORWARDED.into_iter().chain(Way::ROUTING_TYPES);
        for way in ways.chain([Way::Deny, Way::DropRoute]) {
            for size in [128, 1500, 9000] {
                let template = way.template(size).unwrap();
                assert_eq!(template.len(), 50 + size - 4, "{way:?}");
            }
        }
        assert_eq!(Way::Vnet.template(64).unwrap().len(), 110);
    }
}
