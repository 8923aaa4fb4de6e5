//! Keys and rows of the tables, exactly as programs read them.
//!
//! Address bytes are in network order. Numbers without a note are in the byte order of the core
//! that runs the program. IPv4 addresses in 16-byte fields sit in the last 4 bytes, the rest zero.
//! Padding is explicit and zero, because keys are compared as bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! layout {
    ($($(#[$doc:meta])* $t:ident [$size:literal] { $($(#[$fdoc:meta])* $f:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub struct $t { $($(#[$fdoc])* pub $f: $ty,)* }
        const _: () = assert!(core::mem::size_of::<$t>() == $size);
    )*};
}

/// Direction of a packet, as `sai_dash_direction_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// From the ENI's VM to the network.
    Outbound = 1,
    /// From the network to the ENI's VM.
    Inbound = 2,
}

/// Bits of [`Globals::flags`].
pub mod globals_flags {
    /// The appliance lists trusted VNIs: unlisted ones are dropped.
    pub const TRUSTED_VNIS: u8 = 1;
}

/// Bits of [`EniRow::flags`].
pub mod eni_flags {
    /// Admin state is up.
    pub const ADMIN_UP: u16 = 1;
    /// This ENI lists trusted VNIs.
    pub const TRUSTED_VNIS: u16 = 2;
    /// `route_group` is bound.
    pub const ROUTE_GROUP: u16 = 4;
    /// A floating NIC: what comes in by a rule leaves by the outbound policy.
    pub const FLOATING: u16 = 8;
    /// Redirects of load balancers change nothing.
    pub const NO_FAST_PATH: u16 = 16;
    /// The bound route group takes no packets.
    pub const ROUTE_GROUP_DISABLED: u16 = 32;
    /// Encaps have the DSCP of `dscp_tos`.
    pub const DSCP_PIPE: u16 = 64;
    /// Replies go where the first side's packets come from.
    pub const LEARN: u16 = 128;
}

/// Values of [`RouteRow::action`], as `sai_outbound_routing_entry_action_t`.
pub mod route_action {
    /// Map the packet's destination in `vnet`.
    pub const VNET: u8 = 0;
    /// Map `overlay_ip` in `vnet`.
    pub const VNET_DIRECT: u8 = 1;
    /// No encap.
    pub const DIRECT: u8 = 2;
    /// IPv4 becomes IPv6 by the route's own addresses, in an encap of its own.
    pub const SERVICE_TUNNEL: u8 = 3;
    /// Drop.
    pub const DROP: u8 = 4;
}

/// Bits of [`RouteRow::flags`].
pub mod route_flags {
    /// `overlay_ip` is IPv6.
    pub const OVERLAY_V6: u8 = 1;
    /// The route has a row in `route4_more` or `route6_more` too.
    pub const MORE: u8 = 2;
}

/// Bits of [`MappingRow::flags`].
pub mod mapping_flags {
    /// VNI of the destination VNET.
    pub const USE_DST_VNI: u16 = 1;
    /// Write `dmac`.
    pub const SET_DMAC: u16 = 2;
    /// IPv4 becomes IPv6 by the mapping's and the ENI's addresses.
    pub const PRIVATE_LINK: u16 = 4;
    /// The mapping has a row in `mapping_more` too.
    pub const MORE: u16 = 8;
    /// The mapping's metering bits are shifted left by this. They take the rest of the field, so that
    /// key and row together stay at 32 bytes, two to a cache line.
    pub const METER_SHIFT: u16 = 4;
}

/// Metering classes: what they are made of and how buckets are found.
pub mod meter {
    /// Highest class. Class 0 is metered nowhere; the others have a bucket in every ENI.
    pub const MAX_CLASS: u32 = 4095;
    /// A bucket's index in `meter_stats` is `eni << ENI_SHIFT | class`.
    pub const ENI_SHIFT: u32 = 12;
    /// Buckets of an ENI in `meter_stats`, that of class 0 included, which nothing moves.
    pub const BUCKETS: u32 = 1 << ENI_SHIFT;
    const _: () = assert!(MAX_CLASS == BUCKETS - 1);
}

/// Encapsulations, as `sai_dash_encapsulation_t`.
pub mod encap {
    /// UDP and VXLAN.
    pub const VXLAN: u8 = 1;
    /// GRE with a key: NVGRE.
    pub const NVGRE: u8 = 2;
}

/// Values of [`PortRangeRow::action`], as `sai_outbound_port_map_port_range_entry_action_t`.
pub mod port_range_action {
    /// The port and the service stay as they are.
    pub const SKIP: u16 = 0;
    /// To a backend, on a port of its own.
    pub const MAP: u16 = 1;
}

/// Where [`InboundKey::vni`] has a protocol: above the 24 bits of a VNI.
pub const INBOUND_PROTOCOL_SHIFT: u32 = 24;

/// Values of [`InboundRow::action`].
pub mod inbound_action {
    /// Accept.
    pub const DECAP: u8 = 0;
    /// Accept when the outer source is a PA of `vnet`.
    pub const DECAP_PA_VALIDATE: u8 = 1;
    /// Drop.
    pub const DROP: u8 = 2;
}

/// ACL verdict numbers, as `sai_dash_acl_rule_action_t`, in the low byte of an ACL row.
pub mod acl_action {
    /// Final allow.
    pub const PERMIT: u32 = 0;
    /// Allow unless a later stage denies.
    pub const PERMIT_AND_CONTINUE: u32 = 1;
    /// Final deny.
    pub const DENY: u32 = 2;
    /// Deny unless a later stage permits.
    pub const DENY_AND_CONTINUE: u32 = 3;
    /// Set beside the number when the rule names protocols (A52).
    pub const NAMES_PROTOCOL: u32 = 0x100;
}

/// Bits of [`FlowKey::flags`].
pub mod flow_flags {
    /// The inner packet is IPv6.
    pub const V6: u8 = 1;
    /// The direction's number is shifted left by this.
    pub const DIRECTION_SHIFT: u8 = 1;
    /// In a packet's key, never in a flow's: a fragment after the first, with the first one's ports.
    pub const LATER_FRAGMENT: u8 = 0x40;
    /// In a packet's key, never in a flow's: an ICMP error, with the key of an answer to what it quotes.
    pub const ICMP_ERROR: u8 = 0x80;
}

/// Bits of [`FlowActions::actions`], as `sai_dash_flow_action_t`.
pub mod flow_action {
    /// Encapsulate with underlay 0.
    pub const ENCAP_U0: u16 = 0x1;
    /// Encapsulate that with underlay 1.
    pub const ENCAP_U1: u16 = 0x2;
    /// The ENI's MAC becomes the inner source. Only packets of floating NICs do so, and they came
    /// to that MAC: it is the inner destination as received.
    pub const SET_SMAC: u16 = 0x4;
    /// Write the inner destination MAC.
    pub const SET_DMAC: u16 = 0x8;
    /// IPv4 becomes IPv6.
    pub const NAT46: u16 = 0x40;
    /// IPv6 becomes IPv4.
    pub const NAT64: u16 = 0x80;
    /// Write the inner source port.
    pub const SNAT_PORT: u16 = 0x100;
    /// Write the inner destination port.
    pub const DNAT_PORT: u16 = 0x200;
    /// Ours, beside SAI's: the packet was received as inbound and is outbound (a floating NIC's).
    pub const OUTBOUND: u16 = 0x400;
    /// What changes the inner addresses or ports. They become those of the other direction's key,
    /// turned round: that key is what the changed packet is answered with.
    pub const TRANSLATES: u16 = NAT46 | NAT64 | SNAT_PORT | DNAT_PORT;
    /// What a redirect may have changed, of the side that it is about.
    pub const REDIRECTABLE: u16 = ENCAP_U0 | ENCAP_U1 | SET_DMAC;
    /// What takes more than its own side of a connection.
    pub const NEEDS_PAIR: u16 = TRANSLATES | ENCAP_U1;
    /// Each with its name in traces and reports.
    pub const NAMES: &[(u16, &str)] = &[
        (ENCAP_U0, "encap-u0"),
        (ENCAP_U1, "encap-u1"),
        (SET_SMAC, "set-smac"),
        (SET_DMAC, "set-dmac"),
        (NAT46, "nat46"),
        (NAT64, "nat64"),
        (SNAT_PORT, "snat-port"),
        (DNAT_PORT, "dnat-port"),
        (OUTBOUND, "outbound"),
    ];
}

/// Bits of [`FlowEntry::marks`].
pub mod flow_mark {
    /// A load balancer's redirect changed where a side goes.
    pub const REDIRECTED: u8 = 1;
}

/// Beside a [`flow_state`] in [`Meta::renew`]: the flow is decided again because its packets come from
/// elsewhere.
pub const MOVED: u8 = 0x80;

/// Values of [`Meta::redirect`]: what a load balancer's redirect is about (DASH reference 4.9), and the
/// NVGRE keys that redirects come with.
pub mod redirect {
    /// It is none.
    pub const NONE: u8 = 0;
    /// A flow to a VIP, quoted as IPv4: it gets the encap that the redirect names.
    pub const VIP: u8 = 1;
    /// A flow to an internal load balancer, quoted as IPv4: its encap goes elsewhere.
    pub const ILB: u8 = 2;
    /// A translated flow, quoted as IPv6: its encap goes elsewhere, without another around it.
    pub const V6: u8 = 3;
    /// It cannot be read.
    pub const MALFORMED: u8 = 4;
    /// Key of the first kind.
    pub const VIP_KEY: u32 = 253;
    /// Key of the others.
    pub const ENCAP_KEY: u32 = 254;
}

/// Values of [`FlowEntry::state`].
pub mod flow_state {
    /// Not in use.
    pub const FREE: u8 = 0;
    /// TCP seen from one side only.
    pub const HALF_OPEN: u8 = 1;
    /// Seen from both sides (TCP), or not TCP.
    pub const ESTABLISHED: u8 = 2;
    /// FIN seen from both sides: lingers for late segments.
    pub const CLOSING: u8 = 3;
}

/// Bits of [`UnderlayRow::flags`].
pub mod underlay_flags {
    /// `dmac` and `smac` are known.
    pub const RESOLVED: u32 = 1;
}

/// `eni` of a [`TrustedVniKey`] that holds for every ENI.
pub const TRUSTED_VNI_GLOBAL: [u8; 2] = [0xff, 0xff];

/// A number that no packet has for a VNI, which has 24 bits.
pub const NO_VNI: u32 = u32::MAX;
/// How long a first fragment is remembered (DASH reference 4.8).
pub const FRAGMENT_NS: u64 = 1_000_000_000;
/// Limits of an ENI.
pub mod qos {
    /// Costs of bytes, packets and flows are times in units of 2^-16 ns.
    pub const COST_BITS: u32 = 16;
}

/// ACL stages in each direction.
pub const ACL_STAGES: usize = 5;

layout! {
    /// The only row of `globals`: the appliance and the settings.
    Globals[24] {
        /// VIP; 0.0.0.0 when there is no appliance, and then every packet misses.
        vip: [u8; 4],
        /// VNI of outbound packets; [`NO_VNI`] when a VNI does not make a packet outbound.
        vm_vni: u32,
        /// VXLAN UDP port, network order.
        vxlan_port: [u8; 2],
        /// TTL of encaps.
        encap_ttl: u8,
        /// [`globals_flags`].
        flags: u8,
        /// Lowest outer UDP source port.
        sport_base: u16,
        /// Bits of the flow's hash that are added to it.
        sport_mask: u16,
        /// Zero.
        pad: [u8; 8],
    }

    /// Key of `eni_mac`; the row is the ENI's index, a `u32`.
    EniMacKey[8] {
        /// ENI MAC.
        mac: [u8; 6],
        /// Zero.
        pad: [u8; 2],
    }

    /// Row of `eni`, by ENI index.
    EniRow[168] {
        /// ENI MAC.
        mac: [u8; 6],
        /// [`eni_flags`].
        flags: u16,
        /// Destination of encaps to the VM.
        vm_underlay_dip: [u8; 4],
        /// VNI of encaps to the VM.
        vm_vni: u32,
        /// VNI of the ENI's VNET.
        vnet_vni: u32,
        /// Id of the ENI's VNET, 0 for none.
        vnet: u16,
        /// Longest IP packet that may leave, its outermost header counted; the longest there is where
        /// nobody set a limit.
        mtu: u16,
        /// Outbound route group.
        route_group: u32,
        /// ACL group ids, 0 for none: outbound v4, outbound v6, inbound v4, inbound v6, each stage 1 to 5.
        acl: [[u32; 5]; 4],
        /// Outer source of private-link encaps; 0.0.0.0 for the VIP.
        pl_underlay_sip: [u8; 4],
        /// Bits that a private-link source keeps.
        pl_keep: [u8; 16],
        /// Bits that it gets.
        pl_set: [u8; 16],
        /// Meter policies by number, 0 for none: for inner IPv4, for inner IPv6.
        meter: [u32; 2],
        /// Most flows resimulated a second by a worker, 0 for any number.
        resim_per_second: u32,
        /// [`flow_action`]s that resimulation leaves as they were.
        resim_keep: u16,
        /// Flows of another epoch were decided by a policy that is not to count any more.
        epoch: u8,
        /// TOS byte with the DSCP of encaps, ECN 0, where the flags say so.
        dscp_tos: u8,
        /// Outer source of replies, where the flags say that their way is learned; 0.0.0.0 for the VIP.
        reverse_sip: [u8; 4],
        /// Zero.
        pad: [u8; 4],
    }

    /// Row of `eni_life`, by ENI index.
    EniLife[16] {
        /// When the second began that `renewed` counts in.
        since_ns: u64,
        /// Flows resimulated in it.
        renewed: u32,
        /// Zero.
        pad: u32,
    }

    /// Key of `trusted_vni`, a longest-prefix table over `eni` and the VNI's bits. The row is `u32` 1.
    TrustedVniKey[12] {
        /// 16 + bits of the VNI that count (at most 40).
        prefix_len: u32,
        /// ENI index, network order, or [`TRUSTED_VNI_GLOBAL`].
        eni: [u8; 2],
        /// Network order.
        vni: [u8; 3],
        /// Zero.
        pad: [u8; 3],
    }

    /// Key of `route4`.
    Route4Key[12] {
        /// 32 + mask length.
        prefix_len: u32,
        /// Route group.
        group: u32,
        /// Destination.
        dst: [u8; 4],
    }

    /// Key of `route6`.
    Route6Key[24] {
        /// 32 + mask length.
        prefix_len: u32,
        /// Route group.
        group: u32,
        /// Destination.
        dst: [u8; 16],
    }

    /// Row of `route4` and `route6`.
    RouteRow[28] {
        /// [`route_action`].
        action: u8,
        /// [`route_flags`].
        flags: u8,
        /// Id of the destination VNET.
        vnet: u16,
        /// Its VNI.
        vni: u32,
        /// `VNET_DIRECT`: look-up address.
        overlay_ip: [u8; 16],
        /// Bits of the metering class that the route sets.
        meter_or: u16,
        /// Bits of the metering class that stay, of whoever set them.
        meter_and: u16,
    }

    /// Key of `mapping`: CA in a VNET.
    MappingKey[20] {
        /// VNET id.
        vnet: u16,
        /// 1 for IPv6.
        v6: u8,
        /// Zero.
        pad: u8,
        /// CA.
        ip: [u8; 16],
    }

    /// Row of `mapping`.
    MappingRow[12] {
        /// PA.
        underlay_dip: [u8; 4],
        /// Inner destination MAC.
        dmac: [u8; 6],
        /// [`mapping_flags`].
        flags: u16,
    }

    /// Row of `route4_more` and `route6_more`: what few routes have. The key is the route's.
    RouteMoreRow[80] {
        /// Outer source of the route's encaps; 0.0.0.0 for another's or the VIP.
        underlay_sip: [u8; 4],
        /// `SERVICE_TUNNEL`: outer destination; 0.0.0.0 for the packet's own.
        underlay_dip: [u8; 4],
        /// Id of the tunnel the packet leaves in, 0 for none.
        tunnel: u32,
        /// Zero.
        pad: u32,
        /// `SERVICE_TUNNEL`: bits that the source keeps.
        sip_keep: [u8; 16],
        /// Bits that it gets.
        sip_set: [u8; 16],
        /// `SERVICE_TUNNEL`: bits that the destination keeps.
        dip_keep: [u8; 16],
        /// Bits that it gets.
        dip_set: [u8; 16],
    }

    /// Row of `mapping_more`: what few mappings have. The key is the mapping's.
    MappingMoreRow[76] {
        /// Id of the tunnel the packet leaves in, 0 for the route's.
        tunnel: u32,
        /// Id of the port map, 0 for none.
        port_map: u32,
        /// `PRIVATE_LINK`: bits that the source keeps, before the ENI's own.
        sip_keep: [u8; 16],
        /// Bits that it gets.
        sip_set: [u8; 16],
        /// `PRIVATE_LINK`: bits that the destination keeps.
        dip_keep: [u8; 16],
        /// Bits that it gets.
        dip_set: [u8; 16],
        /// `PRIVATE_LINK`: number of the routing type whose static encap it has.
        routing_type: u32,
    }

    /// Row of `routing_type`, by the number of `dash.route_type.RoutingType`: its static encap.
    RoutingTypeRow[8] {
        /// [`encap`].
        encap: u8,
        /// Zero.
        pad: [u8; 3],
        /// VNI, or VSID of NVGRE.
        key: u32,
    }

    /// Key of `tunnel`: an endpoint of a tunnel.
    TunnelKey[8] {
        /// Tunnel id.
        tunnel: u32,
        /// From 0.
        member: u32,
    }

    /// Row of `tunnel`. Every member's says all but the endpoint again.
    TunnelRow[16] {
        /// The endpoint.
        dip: [u8; 4],
        /// VNI, or VSID of NVGRE.
        vni: u32,
        /// How many members the tunnel has.
        members: u32,
        /// [`encap`].
        encap: u8,
        /// Zero.
        pad: u8,
        /// Bits of the metering class that the tunnel sets.
        meter_or: u16,
    }

    /// Key of `port_range`: ranges of a port map, as prefixes of the port's bits.
    PortRangeKey[12] {
        /// 32 + bits of the port that count (at most 48).
        prefix_len: u32,
        /// Port map id.
        map: u32,
        /// Inner destination port, network order.
        port: [u8; 2],
        /// Zero.
        pad: [u8; 2],
    }

    /// Row of `port_range`.
    PortRangeRow[12] {
        /// The service's backend.
        backend_ip: [u8; 4],
        /// [`port_range_action`].
        action: u16,
        /// First port of the range.
        match_base: u16,
        /// What it becomes; the others follow.
        backend_base: u16,
        /// Zero.
        pad: u16,
    }

    /// Key of `inbound`: route rules of an ENI and a VNI by outer source. Rules are resolved by
    /// priority when the table is made, so the longest match is the rule that wins.
    InboundKey[16] {
        /// 64 + mask length.
        prefix_len: u32,
        /// ENI index.
        eni: u32,
        /// VNI; from bit [`INBOUND_PROTOCOL_SHIFT`] up the IP protocol of the customer's packet, 0 for all.
        vni: u32,
        /// Outer source.
        sip: [u8; 4],
    }

    /// Row of `inbound`.
    InboundRow[8] {
        /// [`inbound_action`].
        action: u8,
        /// Zero.
        pad: u8,
        /// VNET whose PAs are valid.
        vnet: u16,
        /// Bits of the metering class that the rule sets.
        meter_or: u16,
        /// Bits of the metering class that stay.
        meter_and: u16,
    }

    /// Key of `pa_validation`; the row is `u32` 1.
    PaKey[8] {
        /// VNET id.
        vnet: u16,
        /// Zero.
        pad: u16,
        /// Outer source.
        sip: [u8; 4],
    }

    /// Key of `pa_prefix`: sources that are valid in a VNET beside the PAs of its mappings. The row is
    /// `u32` 1.
    PaPrefixKey[12] {
        /// 32 + mask length.
        prefix_len: u32,
        /// VNET id.
        vnet: u32,
        /// Outer source.
        sip: [u8; 4],
    }

    /// Key of `acl`; the row is a `u32`: [`acl_action`] of the first rule that matches.
    AclKey[44] {
        /// ACL group.
        group: u32,
        /// IP protocol.
        proto: u8,
        /// 1 for IPv6.
        v6: u8,
        /// Zero.
        pad: u16,
        /// Inner source.
        sip: [u8; 16],
        /// Inner destination.
        dip: [u8; 16],
        /// TCP or UDP source port, network order; else 0.
        sport: [u8; 2],
        /// TCP or UDP destination port, network order; else 0.
        dport: [u8; 2],
    }

    /// Key of `meter_rule`: rules of a meter policy by the address of the packet's far end. Rules are
    /// resolved by priority when the table is made, as those of `inbound` are. The row is a `u32`: the
    /// metering class.
    MeterRuleKey[24] {
        /// 32 + mask length.
        prefix_len: u32,
        /// Meter policy. It is for one family, so addresses of both never meet.
        policy: u32,
        /// Inner destination (outbound) or source (inbound); IPv4 in the FIRST 4 bytes.
        ip: [u8; 16],
    }

    /// Row of `meter_stats`: a bucket ([`meter`]).
    MeterBucket[16] {
        /// Bytes of inner frames from the VM, as they came.
        outbound: u64,
        /// Bytes of inner frames to the VM, as they left.
        inbound: u64,
    }

    /// Row of `qos`, by ENI index: a worker's share of the ENI's limits. 0 is no limit.
    QosRow[56] {
        /// Time a byte takes at the ENI's bandwidth, in parts ([`qos::COST_BITS`]).
        byte_cost: u64,
        /// How far the bytes let through may be ahead of their time, ns.
        byte_burst_ns: u64,
        /// Time between two new flows, in parts.
        flow_cost: u64,
        /// How far the flows let through may be ahead of their time, ns.
        flow_burst_ns: u64,
        /// Live flows.
        flows: u32,
        /// Zero.
        pad: u32,
        /// Time between two packets of a direction, in parts.
        packet_cost: u64,
        /// How far the packets let through may be ahead of their time, ns.
        packet_burst_ns: u64,
    }

    /// Row of `qos_state`, by ENI index: when what was let through will have been paid for, by the
    /// clock, ns.
    QosState[48] {
        /// Bytes from the VM.
        outbound_ns: u64,
        /// Bytes to the VM.
        inbound_ns: u64,
        /// New flows.
        flow_ns: u64,
        /// Flows that ended with an ENI that had this index: they are counted nowhere else.
        purged: u64,
        /// Packets from the VM, as far behind `outbound_ns` as those to it behind `inbound_ns`.
        outbound_packets_ns: u64,
        /// Packets to the VM.
        inbound_packets_ns: u64,
    }

    /// Key of `underlay`: where a destination leaves.
    UnderlayKey[24] {
        /// 32 + mask length.
        prefix_len: u32,
        /// 0 for IPv4 (`dst` in the FIRST 4 bytes, so that prefixes line up), 1 for IPv6.
        v6: u32,
        /// Outermost destination.
        dst: [u8; 16],
    }

    /// Row of `underlay`.
    UnderlayRow[24] {
        /// Port (an interface index for the kernel).
        port: u32,
        /// [`underlay_flags`].
        flags: u32,
        /// Next hop.
        dmac: [u8; 6],
        /// Port's own.
        smac: [u8; 6],
        /// Longest IP packet that may leave by the port; the longest there is where nobody knows.
        mtu: u16,
        /// Zero.
        pad: [u8; 2],
    }

    /// Key of `flow_index`: one direction of a connection. The row is a `u32`: `slot << 1 | side`.
    FlowKey[40] {
        /// Inner source.
        sip: [u8; 16],
        /// Inner destination.
        dip: [u8; 16],
        /// TCP/UDP source port or ICMP echo identifier, network order.
        sport: [u8; 2],
        /// TCP/UDP destination port or ICMP echo identifier, network order.
        dport: [u8; 2],
        /// ENI index.
        eni: u16,
        /// IP protocol.
        proto: u8,
        /// [`flow_flags`]: family, and the direction, so that a packet cannot hit the entry of
        /// the other direction by forging addresses.
        flags: u8,
    }

    /// Key of `fragments`: a datagram that comes in pieces.
    FragmentKey[40] {
        /// Inner source.
        sip: [u8; 16],
        /// Inner destination.
        dip: [u8; 16],
        /// Identification as in the packet; IPv4's two bytes are the first.
        id: [u8; 4],
        /// ENI index.
        eni: u16,
        /// IP protocol; of IPv6 always 44, as fragments may name headers of their own.
        proto: u8,
        /// [`flow_flags`] of the packet.
        flags: u8,
    }

    /// Row of `fragments`: what the first one said and the others lack.
    FragmentRow[16] {
        /// Clock at which it is forgotten, ns.
        expires_ns: u64,
        /// Source port or ICMP echo identifier, network order.
        sport: [u8; 2],
        /// Destination port or ICMP echo identifier, network order.
        dport: [u8; 2],
        /// IP protocol of the flow.
        proto: u8,
        /// Zero.
        pad: [u8; 3],
    }

    /// A decision, frozen: all that `apply` needs.
    FlowActions[24] {
        /// [`flow_action`].
        actions: u16,
        /// `sai_dash_encapsulation_t` of underlay 0.
        u0_encap: u8,
        /// With `ENCAP_U1`: `sai_dash_encapsulation_t` of underlay 1. In the decision of the other
        /// direction, which has no use for it: see [`FlowActions::keep_u1`]. Else zero.
        u1: u8,
        /// Underlay 0 source.
        u0_sip: [u8; 4],
        /// Underlay 0 destination.
        u0_dip: [u8; 4],
        /// Underlay 0 VNI.
        u0_vni: u32,
        /// Inner destination MAC.
        dmac: [u8; 6],
        /// Outer UDP source port, network order.
        sport: [u8; 2],
    }

    /// One direction of a connection: a cache line, all that a packet of it is compared with and
    /// changed by.
    FlowHalf[64] {
        /// What packets are found by.
        key: FlowKey,
        /// What is done to them.
        actions: FlowActions,
    }

    /// Row of `flow_slab`: a connection, both directions. Three cache lines, of which a packet
    /// needs two: its side's, and the last, which counts for both.
    FlowEntry[192] {
        /// Keys and actions. Side 0 is the first packet's.
        sides: [FlowHalf; 2],
        /// Clock at creation, ns.
        created_ns: u64,
        /// Clock at the last packet of either side, ns.
        last_seen_ns: u64,
        /// Packets of both sides.
        packets: [u64; 2],
        /// Bytes of both sides, inner frames as received.
        bytes: [u64; 2],
        /// Goes away this long after `last_seen_ns`.
        timeout_ms: u32,
        /// ENI index.
        eni: u16,
        /// [`flow_state`].
        state: u8,
        /// Bit `side`: FIN seen.
        fin: u8,
        /// [`Direction`] of side 0.
        direction: u8,
        /// Epoch of the ENI when the flow was decided ([`EniRow::epoch`]).
        epoch: u8,
        /// [`flow_mark`].
        marks: u8,
        /// Zero.
        pad: u8,
        /// Metering class, 0 for none.
        meter_class: u32,
    }

    /// The only row of `meta`, per worker: what one stage tells the next about the packet. Fields that
    /// lie side by side in a packet, received or sent, do so here, in the same order, so that one access
    /// moves them.
    Meta[216] {
        /// Key of the inner packet.
        key: FlowKey,
        /// The decision so far.
        actions: FlowActions,
        /// Key of the other direction, translated as the decision translates the packet.
        rkey: FlowKey,
        /// The decision for the other direction.
        ractions: FlowActions,
        /// Source MAC of the received frame.
        outer_smac: [u8; 6],
        /// Destination MAC of the received frame.
        outer_dmac: [u8; 6],
        /// What the ACL stages found: [`acl_state`].
        acl: u32,
        /// VNI of the received encap.
        vni: u32,
        /// Bytes of the received frame, from outer Ethernet to its end.
        frame_len: u32,
        /// ENI index.
        eni: u32,
        /// Inner destination MAC.
        inner_dmac: [u8; 6],
        /// Inner source MAC: where replies to an inbound flow go.
        inner_smac: [u8; 6],
        /// Clock of the packet, ns.
        now_ns: u64,
        /// Outer source.
        outer_sip: [u8; 4],
        /// Outer destination.
        outer_dip: [u8; 4],
        /// Inner frame length: 14 + the IP length.
        inner_len: u16,
        /// TOS byte of the received outer header.
        outer_tos: u8,
        /// [`Direction`].
        direction: u8,
        /// TCP flags byte, 0 for others.
        tcp_flags: u8,
        /// [`crate::drop::DropReason`] number + 1 of a drop, 0 while none.
        drop: u8,
        /// [`redirect`].
        redirect: u8,
        /// Epoch of the ENI ([`EniRow::epoch`]).
        epoch: u8,
        /// Inner frame length that is metered, where it may be other than `inner_len`: outbound before
        /// a translation, inbound after it.
        meter_len: u16,
        /// [`flow_state`] of the flow that this packet decides again, 0 for none.
        renew: u8,
        /// [`encap`] of the received encap, where the ENI learns where packets come from; else 0.
        learn: u8,
        /// L4 ports for the ACL, network order: 0 for what is not TCP or UDP.
        acl_sport: [u8; 2],
        /// See `acl_sport`.
        acl_dport: [u8; 2],
        /// Metering class of the connection, 0 for none.
        meter_class: u32,
        /// VNI of underlay 1, where `actions` has `ENCAP_U1`.
        u1_vni: u32,
        /// Destination of underlay 1. Its source is the VIP.
        u1_dip: [u8; 4],
        /// Zero.
        pad3: [u8; 4],
    }
}

impl FlowActions {
    /// Keeps where a connection's underlay 1 goes in the decision for its replies.
    ///
    /// Few connections have one, and their replies never write a MAC: its six bytes hold the
    /// destination and the VNI's low 16 bits, and `u1` its high 8. So a connection takes three
    /// cache lines with two encaps as with one.
    pub fn keep_u1(&mut self, dip: [u8; 4], vni: u32) {
        let [low, high] = (vni as u16).to_ne_bytes();
        let [a, b, c, d] = dip;
        self.dmac = [a, b, c, d, low, high];
        self.u1 = (vni >> 16) as u8;
    }

    /// What [`keep_u1`](Self::keep_u1) kept: destination and VNI.
    pub fn kept_u1(&self) -> ([u8; 4], u32) {
        let [a, b, c, d, low, high] = self.dmac;
        let vni = u32::from(self.u1) << 16 | u32::from(u16::from_ne_bytes([low, high]));
        ([a, b, c, d], vni)
    }
}

/// Most packets a second that a worker answers with resets.
pub const RESETS_PER_SECOND: u32 = 1000;

/// Bits of [`Meta::acl`].
pub mod acl_state {
    /// The last verdict is deny.
    pub const DENY: u32 = 1;
    /// A permit that counts came from a rule that names the protocol.
    pub const NAMED: u32 = 2;
    /// Denied in the middle of a TCP connection: decisions are made for resets alone.
    pub const RESETTING: u32 = 4;
    /// The decisions for both directions are made, and the packet is dropped: resets go to both ends.
    pub const RESETS: u32 = 8;
}
