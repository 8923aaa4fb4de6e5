//! What configurations and packets are made of: so little that they meet.

use std::net::{IpAddr, Ipv6Addr};

use dash_model::key::{
    AclGroupId, EniKey, MeterPolicyId, RouteGroupId, TagName, TunnelName, VnetName,
};
use dash_model::net::{IpPrefix, MaskedIp, Vni};

use super::rng::Rng;

pub(super) const VIP: [u8; 4] = [10, 0, 0, 1];
pub(super) const VM_VNI: u32 = 4321;
pub(super) const VNIS: [u32; 4] = [1000, 2000, 777, VM_VNI];
pub(super) const PAS: [[u8; 4]; 5] = [
    [101, 1, 2, 3],
    [101, 1, 2, 9],
    [101, 1, 3, 3],
    [25, 1, 1, 1],
    [55, 0, 0, 1],
];
pub(super) const MACS: [[u8; 6]; 4] = [
    [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e],
    [2, 0, 0, 0, 1, 2],
    [2, 0, 0, 0, 1, 3],
    [2, 0, 0, 0, 9, 9],
];
pub(super) const PEER: [u8; 6] = [0xf8, 0x22, 0x83, 0x99, 0x22, 0xa2];
pub(super) const V4: [[u8; 4]; 6] = [
    [10, 1, 1, 1],
    [10, 1, 1, 2],
    [10, 1, 0, 1],
    [20, 0, 0, 5],
    [30, 0, 0, 1],
    [10, 2, 5, 1],
];
pub(super) const V4_PREFIXES: [([u8; 4], u8); 8] = [
    ([0, 0, 0, 0], 0),
    ([10, 0, 0, 0], 8),
    ([10, 1, 0, 0], 16),
    ([10, 1, 1, 0], 24),
    ([10, 1, 1, 1], 32),
    ([20, 0, 0, 0], 7),
    ([30, 0, 0, 0], 16),
    ([10, 2, 5, 0], 25),
];
pub(super) const SOURCES: [([u8; 4], u8); 5] = [
    ([0, 0, 0, 0], 0),
    ([101, 1, 0, 0], 16),
    ([101, 1, 2, 0], 24),
    ([101, 1, 2, 3], 32),
    ([55, 0, 0, 0], 9),
];
/// What addresses become: sources, destinations as they are, one destination for all; and the bits
/// an ENI puts in. Few, so that answers can be guessed.
pub(super) const OVERLAY_SIP: u128 = 0xfd40_0108_0020_0abc_0abc_0000_0000_0000;
pub(super) const OVERLAY_DIP: u128 = 0x2603_10e1_0100_0002_0000_0000_0000_0000;
pub(super) const OVERLAY_HOST: u128 = 0x3401_0203;
pub(super) const ENI_BITS: u128 = 0x0000_0000_0000_d107_0064_ff71_0000_0000;
pub(super) const ENI_MASK: u128 = 0x0000_0000_0000_ffff_ffff_ffff_0000_0000;
pub(super) const LOW: u128 = 0xffff_ffff;
pub(super) const BACKEND: [u8; 4] = [60, 60, 60, 1];
/// Ranges of the port map: first port, last port, what the first becomes; 0 skips the map.
pub(super) const RANGES: [(u16, u16, u16); 3] = [(0, 22, 7000), (23, 80, 0), (81, 65535, 65000)];
pub(super) const PORTS: [u16; 6] = [0, 1, 23, 80, 443, 65535];
pub(super) const ENIS: usize = 3;
/// The ENI that is a floating NIC.
pub(super) const FLOATING: usize = 2;
/// Few, with bits in common and without.
pub(super) const CLASSES: [u64; 5] = [0, 1, 6, 0xff0, 0xfff];
/// Outer source of answers that go where they were learned.
pub(crate) const REVERSE_SIP: [u8; 4] = [10, 0, 0, 7];

pub(super) fn v6(n: usize) -> Ipv6Addr {
    Ipv6Addr::new(
        0xfd00,
        1,
        0,
        if n >= 4 { 1 } else { 0 },
        0,
        0,
        0,
        n as u16 % 4 + 1,
    )
}

pub(super) fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

pub(super) fn vnet(n: usize) -> VnetName {
    VnetName::from(["Vnet1", "Vnet2"][n])
}

pub(super) fn eni_key(n: usize) -> EniKey {
    EniKey::from(["eni0", "eni1", "eni2"][n])
}

pub(super) fn group(n: usize) -> RouteGroupId {
    RouteGroupId::from(["g0", "g1"][n])
}

pub(super) fn acl_group(n: usize) -> AclGroupId {
    AclGroupId::from(["a0", "a1", "a6"][n])
}

pub(super) fn tunnel_name(n: usize) -> TunnelName {
    TunnelName::from(["t0", "t1"][n])
}

pub(super) fn meter_policy(n: usize) -> MeterPolicyId {
    MeterPolicyId::from(["m4", "m6"][n])
}

pub(super) fn masked(addr: u128, mask: u128) -> MaskedIp {
    MaskedIp {
        addr: addr.into(),
        mask: mask.into(),
    }
}

/// A port as the map makes it.
pub(super) fn mapped(port: u16) -> u16 {
    let range = RANGES
        .iter()
        .find(|(min, max, _)| (*min..=*max).contains(&port));
    match range {
        Some((min, _, base)) if *base != 0 => port.wrapping_sub(*min).wrapping_add(*base),
        _ => port,
    }
}

pub(super) fn tag_name(n: usize) -> TagName {
    TagName::from(["t0", "t1", "unknown"][n])
}

pub(super) fn prefix4(r: &mut Rng) -> IpPrefix {
    let (addr, len) = r.pick(&V4_PREFIXES);
    IpPrefix::new(IpAddr::from(addr), len).unwrap()
}

pub(super) fn prefix6(r: &mut Rng) -> IpPrefix {
    let len = r.pick(&[0, 32, 64, 127, 128]);
    IpPrefix::new(v6(r.below(6)).into(), len).unwrap()
}

pub(super) fn address(r: &mut Rng) -> IpAddr {
    if r.once_in(4) {
        v6(r.below(6)).into()
    } else {
        IpAddr::from(r.pick(&V4))
    }
}
