//! Counters under their SAI names: one list a kind, from which the enums, the names and the sizes
//! of the counter blocks are made.
//!
//! Names of metering buckets are `sai_meter_bucket_entry_stat_t` (`saiexperimentaldashmeter.h`). ENI names are `sai_eni_stat_t` in ordinal order (SAI `saiexperimentaldasheni.h`); port names are
//! the standard `sai_port_stat_t` ones the pipeline moves and the DASH extensions of
//! `saiportextensions.h`.

macro_rules! stats {
    ($(#[$doc:meta])* $t:ident, $prefix:literal: $($v:ident = $name:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        #[expect(missing_docs, reason = "names are SAI's; their meaning is in the SAI header")]
        pub enum $t { $($v,)* }

        impl $t {
            /// Every counter, in order.
            pub const ALL: &'static [Self] = &[$(Self::$v,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Full SAI name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$v => concat!($prefix, $name),)* }
            }
            /// Byte offset in a counter block (an array of `u64` in native order).
            pub fn offset(self) -> usize {
                self as usize * 8
            }
        }
    };
}

stats! {
    /// Per-ENI counters.
    EniStat, "SAI_ENI_STAT_":
    RxBytes = "RX_BYTES",
    RxPackets = "RX_PACKETS",
    TxBytes = "TX_BYTES",
    TxPackets = "TX_PACKETS",
    OutboundRxBytes = "OUTBOUND_RX_BYTES",
    OutboundRxPackets = "OUTBOUND_RX_PACKETS",
    OutboundTxBytes = "OUTBOUND_TX_BYTES",
    OutboundTxPackets = "OUTBOUND_TX_PACKETS",
    InboundRxBytes = "INBOUND_RX_BYTES",
    InboundRxPackets = "INBOUND_RX_PACKETS",
    InboundTxBytes = "INBOUND_TX_BYTES",
    InboundTxPackets = "INBOUND_TX_PACKETS",
    LbFastPathIcmpInBytes = "LB_FAST_PATH_ICMP_IN_BYTES",
    LbFastPathIcmpInPackets = "LB_FAST_PATH_ICMP_IN_PACKETS",
    FlowCreated = "FLOW_CREATED",
    FlowCreateFailed = "FLOW_CREATE_FAILED",
    FlowUpdated = "FLOW_UPDATED",
    FlowUpdateFailed = "FLOW_UPDATE_FAILED",
    FlowUpdatedByResimulation = "FLOW_UPDATED_BY_RESIMULATION",
    FlowUpdateByResimulationFailed = "FLOW_UPDATE_BY_RESIMULATION_FAILED",
    FlowDeleted = "FLOW_DELETED",
    FlowDeleteFailed = "FLOW_DELETE_FAILED",
    FlowAged = "FLOW_AGED",
    InlineSyncPacketRxBytes = "INLINE_SYNC_PACKET_RX_BYTES",
    InlineSyncPacketRxPackets = "INLINE_SYNC_PACKET_RX_PACKETS",
    InlineSyncPacketTxBytes = "INLINE_SYNC_PACKET_TX_BYTES",
    InlineSyncPacketTxPackets = "INLINE_SYNC_PACKET_TX_PACKETS",
    TimedSyncPacketRxBytes = "TIMED_SYNC_PACKET_RX_BYTES",
    TimedSyncPacketRxPackets = "TIMED_SYNC_PACKET_RX_PACKETS",
    TimedSyncPacketTxBytes = "TIMED_SYNC_PACKET_TX_BYTES",
    TimedSyncPacketTxPackets = "TIMED_SYNC_PACKET_TX_PACKETS",
    InlineFlowCreateReqSent = "INLINE_FLOW_CREATE_REQ_SENT",
    InlineFlowCreateReqRecv = "INLINE_FLOW_CREATE_REQ_RECV",
    InlineFlowCreateReqFailed = "INLINE_FLOW_CREATE_REQ_FAILED",
    InlineFlowCreateReqIgnored = "INLINE_FLOW_CREATE_REQ_IGNORED",
    InlineFlowCreateAckRecv = "INLINE_FLOW_CREATE_ACK_RECV",
    InlineFlowCreateAckFailed = "INLINE_FLOW_CREATE_ACK_FAILED",
    InlineFlowCreateAckIgnored = "INLINE_FLOW_CREATE_ACK_IGNORED",
    TimedFlowCreateReqSent = "TIMED_FLOW_CREATE_REQ_SENT",
    TimedFlowCreateReqRecv = "TIMED_FLOW_CREATE_REQ_RECV",
    TimedFlowCreateReqFailed = "TIMED_FLOW_CREATE_REQ_FAILED",
    TimedFlowCreateReqIgnored = "TIMED_FLOW_CREATE_REQ_IGNORED",
    TimedFlowCreateAckRecv = "TIMED_FLOW_CREATE_ACK_RECV",
    TimedFlowCreateAckFailed = "TIMED_FLOW_CREATE_ACK_FAILED",
    TimedFlowCreateAckIgnored = "TIMED_FLOW_CREATE_ACK_IGNORED",
    InlineFlowUpdateReqSent = "INLINE_FLOW_UPDATE_REQ_SENT",
    InlineFlowUpdateReqRecv = "INLINE_FLOW_UPDATE_REQ_RECV",
    InlineFlowUpdateReqFailed = "INLINE_FLOW_UPDATE_REQ_FAILED",
    InlineFlowUpdateReqIgnored = "INLINE_FLOW_UPDATE_REQ_IGNORED",
    InlineFlowUpdateAckRecv = "INLINE_FLOW_UPDATE_ACK_RECV",
    InlineFlowUpdateAckFailed = "INLINE_FLOW_UPDATE_ACK_FAILED",
    InlineFlowUpdateAckIgnored = "INLINE_FLOW_UPDATE_ACK_IGNORED",
    TimedFlowUpdateReqSent = "TIMED_FLOW_UPDATE_REQ_SENT",
    TimedFlowUpdateReqRecv = "TIMED_FLOW_UPDATE_REQ_RECV",
    TimedFlowUpdateReqFailed = "TIMED_FLOW_UPDATE_REQ_FAILED",
    TimedFlowUpdateReqIgnored = "TIMED_FLOW_UPDATE_REQ_IGNORED",
    TimedFlowUpdateAckRecv = "TIMED_FLOW_UPDATE_ACK_RECV",
    TimedFlowUpdateAckFailed = "TIMED_FLOW_UPDATE_ACK_FAILED",
    TimedFlowUpdateAckIgnored = "TIMED_FLOW_UPDATE_ACK_IGNORED",
    InlineFlowDeleteReqSent = "INLINE_FLOW_DELETE_REQ_SENT",
    InlineFlowDeleteReqRecv = "INLINE_FLOW_DELETE_REQ_RECV",
    InlineFlowDeleteReqFailed = "INLINE_FLOW_DELETE_REQ_FAILED",
    InlineFlowDeleteReqIgnored = "INLINE_FLOW_DELETE_REQ_IGNORED",
    InlineFlowDeleteAckRecv = "INLINE_FLOW_DELETE_ACK_RECV",
    InlineFlowDeleteAckFailed = "INLINE_FLOW_DELETE_ACK_FAILED",
    InlineFlowDeleteAckIgnored = "INLINE_FLOW_DELETE_ACK_IGNORED",
    TimedFlowDeleteReqSent = "TIMED_FLOW_DELETE_REQ_SENT",
    TimedFlowDeleteReqRecv = "TIMED_FLOW_DELETE_REQ_RECV",
    TimedFlowDeleteReqFailed = "TIMED_FLOW_DELETE_REQ_FAILED",
    TimedFlowDeleteReqIgnored = "TIMED_FLOW_DELETE_REQ_IGNORED",
    TimedFlowDeleteAckRecv = "TIMED_FLOW_DELETE_ACK_RECV",
    TimedFlowDeleteAckFailed = "TIMED_FLOW_DELETE_ACK_FAILED",
    TimedFlowDeleteAckIgnored = "TIMED_FLOW_DELETE_ACK_IGNORED",
    OutboundRoutingEntryMissDropPackets = "OUTBOUND_ROUTING_ENTRY_MISS_DROP_PACKETS",
    OutboundCaPaEntryMissDropPackets = "OUTBOUND_CA_PA_ENTRY_MISS_DROP_PACKETS",
    InboundRoutingEntryMissDropPackets = "INBOUND_ROUTING_ENTRY_MISS_DROP_PACKETS",
    OutboundRoutingGroupMissDropPackets = "OUTBOUND_ROUTING_GROUP_MISS_DROP_PACKETS",
    OutboundRoutingGroupDisabledDropPackets = "OUTBOUND_ROUTING_GROUP_DISABLED_DROP_PACKETS",
    OutboundPortMapMissDropPackets = "OUTBOUND_PORT_MAP_MISS_DROP_PACKETS",
    OutboundPortMapPortRangeEntryMissDropPackets = "OUTBOUND_PORT_MAP_PORT_RANGE_ENTRY_MISS_DROP_PACKETS",
    EniTrustedVniEntryMissDropPackets = "ENI_TRUSTED_VNI_ENTRY_MISS_DROP_PACKETS",
    InboundTcpSynPackets = "INBOUND_TCP_SYN_PACKETS",
    InboundTcpSynackPackets = "INBOUND_TCP_SYNACK_PACKETS",
    InboundTcpFinPackets = "INBOUND_TCP_FIN_PACKETS",
    InboundTcpRstPackets = "INBOUND_TCP_RST_PACKETS",
    OutboundTcpSynPackets = "OUTBOUND_TCP_SYN_PACKETS",
    OutboundTcpSynackPackets = "OUTBOUND_TCP_SYNACK_PACKETS",
    OutboundTcpFinPackets = "OUTBOUND_TCP_FIN_PACKETS",
    OutboundTcpRstPackets = "OUTBOUND_TCP_RST_PACKETS",
    MaxRxCps = "MAX_RX_CPS",
    MaxTxCps = "MAX_TX_CPS",
    TcpRstInjectPackets = "TCP_RST_INJECT_PACKETS",
    LbFastPathIcmpInDropPackets = "LB_FAST_PATH_ICMP_IN_DROP_PACKETS",
    PaValidationFailDropPackets = "PA_VALIDATION_FAIL_DROP_PACKETS",
    ForwardingDropPackets = "FORWARDING_DROP_PACKETS",
    PolicyDropPackets = "POLICY_DROP_PACKETS",
    TcpNonSynFlowMissDropPackets = "TCP_NON_SYN_FLOW_MISS_DROP_PACKETS",
    SessionLimitExceededDropPackets = "SESSION_LIMIT_EXCEEDED_DROP_PACKETS",
    UnsupportedProtocolDropPackets = "UNSUPPORTED_PROTOCOL_DROP_PACKETS",
    CoppDropPackets = "COPP_DROP_PACKETS",
    InconsistentFlowEntryDropPackets = "INCONSISTENT_FLOW_ENTRY_DROP_PACKETS",
    PipelinePacketLoopDropPackets = "PIPELINE_PACKET_LOOP_DROP_PACKETS",
    OtherDropPackets = "OTHER_DROP_PACKETS",
    TotalDropPackets = "TOTAL_DROP_PACKETS",
    InlineSyncReqTx = "INLINE_SYNC_REQ_TX",
    InlineSyncAckTx = "INLINE_SYNC_ACK_TX",
    InlineSyncRedirectPacketsTx = "INLINE_SYNC_REDIRECT_PACKETS_TX",
    InlineSyncReqRx = "INLINE_SYNC_REQ_RX",
    InlineSyncAckRx = "INLINE_SYNC_ACK_RX",
    InlineSyncRedirectPacketsRx = "INLINE_SYNC_REDIRECT_PACKETS_RX",
    LbFastPathActiveFlow = "LB_FAST_PATH_ACTIVE_FLOW",
}

stats! {
    /// Card-wide counters of the port level.
    PortStat, "SAI_PORT_STAT_":
    IfInOctets = "IF_IN_OCTETS",
    IfInUcastPkts = "IF_IN_UCAST_PKTS",
    IfInDiscards = "IF_IN_DISCARDS",
    IfInErrors = "IF_IN_ERRORS",
    IfOutOctets = "IF_OUT_OCTETS",
    IfOutUcastPkts = "IF_OUT_UCAST_PKTS",
    IfOutDiscards = "IF_OUT_DISCARDS",
    LbFastPathIcmpInBytes = "LB_FAST_PATH_ICMP_IN_BYTES",
    LbFastPathIcmpInPackets = "LB_FAST_PATH_ICMP_IN_PACKETS",
    LbFastPathEniMissBytes = "LB_FAST_PATH_ENI_MISS_BYTES",
    LbFastPathEniMissPackets = "LB_FAST_PATH_ENI_MISS_PACKETS",
    VipMissDropPackets = "VIP_MISS_DROP_PACKETS",
    EniMissDropPackets = "ENI_MISS_DROP_PACKETS",
    PortLbFastPathIcmpInBytes = "PORT_LB_FAST_PATH_ICMP_IN_BYTES",
    PortLbFastPathIcmpInPackets = "PORT_LB_FAST_PATH_ICMP_IN_PACKETS",
    PortLbFastPathEniMissDropBytes = "PORT_LB_FAST_PATH_ENI_MISS_DROP_BYTES",
    PortLbFastPathEniMissDropPackets = "PORT_LB_FAST_PATH_ENI_MISS_DROP_PACKETS",
}

stats! {
    /// Byte counters of a metering bucket, in the order of the row's fields.
    MeterStat, "SAI_METER_BUCKET_ENTRY_STAT_":
    OutboundBytes = "OUTBOUND_BYTES",
    InboundBytes = "INBOUND_BYTES",
}
