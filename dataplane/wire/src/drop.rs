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
    /// Inner IPv4 options, inner VLAN, or an inner type that is not IP.
    InnerUnsupported = "inner-unsupported", port [], eni [UnsupportedProtocolDropPackets TotalDropPackets];
    /// Inner fragments: no reassembly.
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
    /// A program attached to the ENI said XDP_DROP.
    HookDrop = "hook-drop", port [], eni [OtherDropPackets TotalDropPackets];
    /// A program attached to the ENI failed, or said XDP_ABORTED or what is no verdict.
    HookAborted = "hook-aborted", port [], eni [OtherDropPackets TotalDropPackets];
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
            let own = eni.iter().filter(|s| !sums.contains(s)).count() + port.len();
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
