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
}

/// Values of [`RouteRow::action`], as `sai_outbound_routing_entry_action_t`.
pub mod route_action {
    /// Map the packet's destination in `vnet`.
    pub const VNET: u8 = 0;
    /// Map `overlay_ip` in `vnet`.
    pub const VNET_DIRECT: u8 = 1;
    /// No encap.
    pub const DIRECT: u8 = 2;
    /// Drop.
    pub const DROP: u8 = 4;
}

/// Bits of [`MappingRow::flags`].
pub mod mapping_flags {
    /// VNI of the destination VNET.
    pub const USE_DST_VNI: u16 = 1;
    /// Write `dmac`.
    pub const SET_DMAC: u16 = 2;
}

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
}

/// Bits of [`FlowActions::actions`], as `sai_dash_flow_action_t`.
pub mod flow_action {
    /// Encapsulate with underlay 0.
    pub const ENCAP_U0: u16 = 0x1;
    /// Write the inner destination MAC.
    pub const SET_DMAC: u16 = 0x8;
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

/// ACL stages in each direction.
pub const ACL_STAGES: usize = 5;

layout! {
    /// The only row of `globals`: the appliance and the settings.
    Globals[16] {
        /// VIP; 0.0.0.0 when there is no appliance, and then every packet misses.
        vip: [u8; 4],
        /// VNI of outbound packets.
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
    }

    /// Key of `eni_mac`; the row is the ENI's index, a `u32`.
    EniMacKey[8] {
        /// ENI MAC.
        mac: [u8; 6],
        /// Zero.
        pad: [u8; 2],
    }

    /// Row of `eni`, by ENI index.
    EniRow[112] {
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
        /// Zero.
        pad: u16,
        /// Outbound route group.
        route_group: u32,
        /// ACL group ids, 0 for none: outbound v4, outbound v6, inbound v4, inbound v6, each stage 1 to 5.
        acl: [[u32; 5]; 4],
        /// Zero.
        pad2: u32,
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
    RouteRow[24] {
        /// [`route_action`].
        action: u8,
        /// `VNET_DIRECT`: `overlay_ip` is IPv6.
        overlay_v6: u8,
        /// Id of the destination VNET.
        vnet: u16,
        /// Its VNI.
        vni: u32,
        /// `VNET_DIRECT`: look-up address.
        overlay_ip: [u8; 16],
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

    /// Key of `inbound`: route rules of an ENI and a VNI by outer source. Rules are resolved by
    /// priority when the table is made, so the longest match is the rule that wins.
    InboundKey[16] {
        /// 64 + mask length.
        prefix_len: u32,
        /// ENI index.
        eni: u32,
        /// VNI.
        vni: u32,
        /// Outer source.
        sip: [u8; 4],
    }

    /// Row of `inbound`.
    InboundRow[4] {
        /// [`inbound_action`].
        action: u8,
        /// Zero.
        pad: u8,
        /// VNET whose PAs are valid.
        vnet: u16,
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
        /// Zero.
        pad: u32,
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

    /// A decision, frozen: all that `apply` needs.
    FlowActions[24] {
        /// [`flow_action`].
        actions: u16,
        /// `sai_dash_encapsulation_t` of underlay 0.
        u0_encap: u8,
        /// Zero.
        pad: u8,
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
        /// Zero.
        pad: [u8; 3],
        /// Metering class, 0 for none.
        meter_class: u32,
    }

    /// The only row of `meta`, per worker: what one stage tells the next about the packet. Fields that
    /// lie side by side in a packet, received or sent, do so here, in the same order, so that one access
    /// moves them.
    Meta[200] {
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
        /// Zero.
        pad: [u8; 2],
        /// L4 ports for the ACL, network order: 0 for what is not TCP or UDP.
        acl_sport: [u8; 2],
        /// See `acl_sport`.
        acl_dport: [u8; 2],
        /// Metering class of the connection, 0 for none.
        meter_class: u32,
    }
}

/// Bits of [`Meta::acl`].
pub mod acl_state {
    /// The last verdict is deny.
    pub const DENY: u32 = 1;
    /// A permit that counts came from a rule that names the protocol.
    pub const NAMED: u32 = 2;
}
