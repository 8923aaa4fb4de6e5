//! Why a packet was dropped: one list, each reason with the counters it moves.
//!
//! Sources: DASH reference tables of misses, SAI ENI and port drop counters. Every ENI reason also
//! moves `TOTAL_DROP_PACKETS`.

use crate::stats::{EniStat, PortStat};

macro_rules! reasons {
    ($($(#[$doc:meta])* $v:ident = $text:literal, port [$($p:ident)*], eni [$($e:ident)*];)*) => {
        /// Reason of a drop. The number is what a program leaves in `Meta::drop`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $v,)* }

        impl DropReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$v,)*];

            /// Name in traces and IR text.
            pub fn name(self) -> &'static str {
                match self { $(Self::$v => $text,)* }
            }
            /// Port counters it moves.
            pub fn port_stats(self) -> &'static [PortStat] {
                match self { $(Self::$v => &[$(PortStat::$p,)*],)* }
            }
            /// ENI counters it moves (empty before an ENI is known).
            pub fn eni_stats(self) -> &'static [EniStat] {
                match self { $(Self::$v => &[$(EniStat::$e,)*],)* }
            }
            /// By [`name`](Self::name).
            pub fn by_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|r| r.name() == name)
            }
        }
    };
}

reasons! {
    /// The outer headers are not a well-formed tunnel packet.
    OuterMalformed = "outer-malformed", port [IfInErrors], eni [];
    /// The outer destination is not the appliance's VIP.
    VipMiss = "vip-miss", port [VipMissDropPackets], eni [];
    /// Outer IPv4 fragment: never reassembled.
    OuterFragment = "outer-fragment", port [IfInDiscards], eni [];
    /// No ENI has the selected inner MAC.
    EniMiss = "eni-miss", port [EniMissDropPackets], eni [];
    /// The ENI's admin state is down.
    EniDown = "eni-down", port [], eni [OtherDropPackets TotalDropPackets];
    /// The inner frame is truncated or its lengths lie.
    InnerMalformed = "inner-malformed", port [], eni [OtherDropPackets TotalDropPackets];
    /// The inner type is neither IP nor a VLAN tag.
    InnerUnsupported = "inner-unsupported", port [], eni [UnsupportedProtocolDropPackets TotalDropPackets];
    /// An inner fragment whose first one was not seen in the last second or made no flow, or one that
    /// would have to be translated.
    InnerFragment = "inner-fragment", port [], eni [OtherDropPackets TotalDropPackets];
    /// Congestion was marked on the outer header of a packet that cannot carry the mark (RFC 6040).
    EcnNotCapable = "ecn-not-capable", port [], eni [OtherDropPackets TotalDropPackets];
    /// VNI not trusted.
    TrustedVniMiss = "trusted-vni-miss", port [], eni [EniTrustedVniEntryMissDropPackets TotalDropPackets];
    /// An ACL denied it.
    AclDeny = "acl-deny", port [], eni [PolicyDropPackets TotalDropPackets];
    /// IP protocol other than TCP, UDP, ICMP that no permit rule names (A52).
    UnsupportedProtocol = "unsupported-protocol", port [], eni [UnsupportedProtocolDropPackets TotalDropPackets];
    /// The ENI has no outbound route group.
    RouteGroupMiss = "route-group-miss", port [], eni [OutboundRoutingGroupMissDropPackets TotalDropPackets];
    /// No route for the destination.
    RouteMiss = "route-miss", port [], eni [OutboundRoutingEntryMissDropPackets ForwardingDropPackets TotalDropPackets];
    /// The route says drop.
    RouteDrop = "route-drop", port [], eni [ForwardingDropPackets TotalDropPackets];
    /// No CA-to-PA mapping.
    MappingMiss = "mapping-miss", port [], eni [OutboundCaPaEntryMissDropPackets ForwardingDropPackets TotalDropPackets];
    /// No inbound route rule.
    InboundMiss = "inbound-miss", port [], eni [InboundRoutingEntryMissDropPackets ForwardingDropPackets TotalDropPackets];
    /// The inbound route rule says drop.
    InboundDrop = "inbound-drop", port [], eni [ForwardingDropPackets TotalDropPackets];
    /// The outer source is not a PA of the VNET.
    PaValidation = "pa-validation", port [], eni [PaValidationFailDropPackets TotalDropPackets];
    /// No free flow entry (A48).
    FlowTableFull = "flow-table-full", port [], eni [FlowCreateFailed SessionLimitExceededDropPackets TotalDropPackets];
    /// No neighbour address for the underlay next hop yet.
    NeighborMiss = "neighbor-miss", port [], eni [ForwardingDropPackets TotalDropPackets];
    /// A helper refused (no headroom): a packet that cannot be built.
    Internal = "internal", port [], eni [OtherDropPackets TotalDropPackets];
    /// It would have to become IPv6 and cannot: it is IPv6 already, or neither TCP nor UDP.
    NotTranslatable = "not-translatable", port [], eni [UnsupportedProtocolDropPackets TotalDropPackets];
    /// A load balancer's redirect for a MAC that no ENI has.
    FastPathEniMiss = "fast-path-eni-miss", port [EniMissDropPackets PortLbFastPathEniMissDropPackets], eni [];
    /// A load balancer's redirect for an ENI that does not take any.
    FastPathOff = "fast-path-off", port [], eni [LbFastPathIcmpInDropPackets TotalDropPackets];
    /// A load balancer's redirect that cannot be read, or says what cannot be done.
    FastPathMalformed = "fast-path-malformed", port [], eni [LbFastPathIcmpInDropPackets TotalDropPackets];
    /// A load balancer's redirect that quotes no packet of a TCP flow that could go that way.
    FastPathFlowMiss = "fast-path-flow-miss", port [], eni [LbFastPathIcmpInDropPackets TotalDropPackets];
    /// A port in no range of a private link's port map, where that is to drop (A51).
    PortRangeMiss = "port-range-miss", port [], eni [OutboundPortMapPortRangeEntryMissDropPackets TotalDropPackets];
    /// The inner frame has a VLAN tag (802.1Q or 802.1ad).
    InnerVlan = "inner-vlan", port [], eni [UnsupportedProtocolDropPackets TotalDropPackets];
    /// The inner IPv4 header has options.
    InnerOptions = "inner-options", port [], eni [UnsupportedProtocolDropPackets TotalDropPackets];
    /// VXLAN from a UDP source port that the setting `vxlan_security` keeps out.
    VxlanSport = "vxlan-sport", port [IfInDiscards], eni [];
    /// With its encaps it is longer than the setting `mtu` allows.
    TooBig = "too-big", port [], eni [OtherDropPackets TotalDropPackets];
    /// An ICMP error about a packet of no flow.
    IcmpErrorMiss = "icmp-error-miss", port [], eni [OtherDropPackets TotalDropPackets];
    /// TCP of no known connection that does not open one, where only a SYN may (A19).
    TcpNonSynMiss = "tcp-non-syn-miss", port [], eni [TcpNonSynFlowMissDropPackets TotalDropPackets];
    /// A program attached to the ENI said XDP_DROP.
    HookDrop = "hook-drop", port [], eni [OtherDropPackets TotalDropPackets];
    /// A program attached to the ENI failed, or said XDP_ABORTED or what is no verdict.
    HookAborted = "hook-aborted", port [], eni [OtherDropPackets TotalDropPackets];
    /// The ENI's bandwidth in this direction is used up.
    BandwidthLimit = "bandwidth-limit", port [], eni [OtherDropPackets TotalDropPackets];
    /// The ENI makes more new flows a second than it may.
    ConnectionRate = "connection-rate", port [], eni [SessionLimitExceededDropPackets TotalDropPackets];
    /// The ENI has as many flows as it may.
    FlowLimit = "flow-limit", port [], eni [SessionLimitExceededDropPackets TotalDropPackets];
    /// The route group of the ENI is disabled.
    RouteGroupDisabled = "route-group-disabled", port [], eni [OutboundRoutingGroupDisabledDropPackets TotalDropPackets];
    /// The ENI's packets a second in this direction are used up.
    PacketRate = "packet-rate", port [], eni [OtherDropPackets TotalDropPackets];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside the sums (`TOTAL`, `FORWARDING`) and what failed (`FLOW_CREATE_FAILED`) a reason has one
    /// counter; where SAI has none, the sum of forwarding is it.
    #[test]
    fn every_reason_moves_one_counter_and_its_sums() {
        for reason in DropReason::ALL {
            let (eni, port) = (reason.eni_stats(), reason.port_stats());
            let sums = [
                EniStat::TotalDropPackets,
                EniStat::ForwardingDropPackets,
                EniStat::FlowCreateFailed,
            ];
            // A redirect without an ENI is one packet more without an ENI.
            let port_sum = |s: &&PortStat| port.len() > 1 && **s == PortStat::EniMissDropPackets;
            let own = eni.iter().filter(|s| !sums.contains(s)).count()
                + port.iter().filter(|s| !port_sum(s)).count();
            let forwarding = eni.contains(&EniStat::ForwardingDropPackets);
            assert!(own == 1 || (own == 0 && forwarding), "{reason:?}");
            assert_eq!(
                eni.contains(&EniStat::TotalDropPackets),
                port.is_empty(),
                "{reason:?}: before an ENI is known a drop is the port's, after that the ENI's"
            );
        }
    }
}
