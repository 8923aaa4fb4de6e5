//! What programs of users are told about a packet: `struct dash_meta` of `dash_bpf.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Name of the map whose element 0 is the [`DashMeta`] of the packet at hand.
pub const META_MAP: &str = "dash_meta";

/// [`DashMeta::eni`] of packets that are no ENI's, or not yet.
pub const NO_ENI: u32 = u32::MAX;

/// Where programs of users are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Place {
    /// Received by a port, before anything looks at it.
    Ingress = 1,
    /// From an ENI's VM: decapsulated, before policy.
    EniOutbound = 2,
    /// To an ENI's VM: decapsulated, before policy.
    EniInbound = 3,
    /// About to leave by a port.
    Egress = 4,
}

/// Values of [`DashMeta::flow`].
pub mod flow {
    /// Not looked up, or not yet.
    pub const UNKNOWN: u8 = 0;
    /// The packet is of a connection that was there before it.
    pub const HIT: u8 = 1;
    /// The packet made its connection.
    pub const MISS: u8 = 2;
}

/// What the pipeline knows of a packet. Numbers are in the byte order of the core.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DashMeta {
    /// ENI index, or [`NO_ENI`].
    pub eni: u32,
    /// VNI of the encap it was received in; 0 without an ENI.
    pub vni: u32,
    /// MAC of the ENI.
    pub eni_mac: [u8; 6],
    /// Id of the ENI's VNET, 0 for none.
    pub vnet: u16,
    /// [`Place`].
    pub place: u8,
    /// [`Direction`](crate::tables::Direction), 0 without an ENI.
    pub direction: u8,
    /// [`flow`].
    pub flow: u8,
    /// Zero.
    pub pad: [u8; 5],
}

const _: () = assert!(size_of::<DashMeta>() == 24);

impl DashMeta {
    /// Of a packet that is no ENI's, or not yet.
    pub const fn unknown(place: Place) -> Self {
        Self {
            eni: NO_ENI,
            vni: 0,
            eni_mac: [0; 6],
            vnet: 0,
            place: place as u8,
            direction: 0,
            flow: flow::UNKNOWN,
            pad: [0; 5],
        }
    }
}
