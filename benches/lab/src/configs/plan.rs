//! The address plan: arithmetic of dpugen's defaults.

use std::net::Ipv4Addr;

use dash_model::key::{AclGroupId, ApplianceId, EniKey, RouteGroupId, VnetName};
use dash_model::net::{Mac, Vni};

use super::{Config, WINDOW};

/// VNI of packets from VMs.
pub(super) const VM_VNI: u32 = 1_000;
const FIRST_ENI: u32 = 1_000;
const VNI_OF_ENI: u32 = 1_000;
const ENI_STEP: u32 = 0x0040_0000;
const LOCAL: u32 = 0x0101_0001;
const REMOTE: u32 = 0x0104_0000;
const VIP: u32 = 0xdd00_0001;
const HOSTS: u32 = 0xdd01_0000;
const PAS: u32 = 0xdd02_0000;
/// PAs of an ENI are this far apart, so that those of 256 ENIs interleave.
const PA_STEP: u32 = 256;
const LOCAL_MAC: u64 = 0x001a_c500_0001;
const REMOTE_MAC: u64 = 0x001b_6e00_0000;
const MAC_OF_ENI: u64 = 0x0018_0000;

/// The card's own address.
pub(super) fn vip() -> Ipv4Addr {
    VIP.into()
}

/// The VM of an ENI.
pub(super) fn local(eni: u32) -> Ipv4Addr {
    (LOCAL + eni * ENI_STEP).into()
}

/// The `offset`th address of a window.
pub(super) fn remote(eni: u32, window: u32, offset: u32) -> Ipv4Addr {
    (REMOTE + eni * ENI_STEP + window * WINDOW + offset).into()
}

/// The host of an ENI's VM.
pub(super) fn host(eni: u32) -> Ipv4Addr {
    (HOSTS + eni).into()
}

/// The `n`th host of the VNET that an ENI talks to.
pub(super) fn pa(eni: u32, n: u32) -> Ipv4Addr {
    (PAS + n * PA_STEP + eni).into()
}

fn mac(number: u64) -> Mac {
    let [_, _, mac @ ..] = number.to_be_bytes();
    Mac(mac)
}

/// MAC of an ENI.
pub(super) fn local_mac(eni: u32) -> Mac {
    mac(LOCAL_MAC + u64::from(eni) * MAC_OF_ENI)
}

/// MAC of a remote VM.
pub(super) fn remote_mac(eni: u32, window: u32, offset: u32) -> Mac {
    let within = u64::from(window * WINDOW + offset);
    mac(REMOTE_MAC + u64::from(eni) * MAC_OF_ENI + within)
}

pub(super) fn vni(number: u32) -> Vni {
    Vni::new(number).expect("the plan's VNIs are small and not 0")
}

/// VNI of an ENI's VNET.
pub(super) fn vnet_vni(eni: u32) -> u32 {
    FIRST_ENI + VNI_OF_ENI + eni
}

pub(super) fn appliance() -> ApplianceId {
    format!("appliance-{FIRST_ENI}").as_str().into()
}

pub(super) fn eni_key(eni: u32) -> EniKey {
    format!("eni-{}", FIRST_ENI + eni).as_str().into()
}

pub(super) fn vnet(eni: u32) -> VnetName {
    format!("vnet-{}", vnet_vni(eni)).as_str().into()
}

pub(super) fn route_group(eni: u32) -> RouteGroupId {
    format!("route-group-{}", FIRST_ENI + eni).as_str().into()
}

/// Group of a stage, counted from 0; outbound ones are numbered from 500.
pub(super) fn acl_group(eni: u32, outbound: bool, stage: u32) -> AclGroupId {
    let first = if outbound { 500 } else { 0 };
    format!("{}", (FIRST_ENI + eni) * 1_000 + first + stage)
        .as_str()
        .into()
}

/// How a window is cut into routes: blocks of 2^b addresses, each of b routes that cannot be merged
/// (a /32 at 1, a /31 at 2, a /30 at 4 and so on). Address 0 of a block, which is even and so denied,
/// has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    /// Bits and number of blocks, in the order of addresses.
    runs: Vec<(u32, u32)>,
}

impl Blocks {
    const BITS: std::ops::Range<u32> = 1..17;

    /// Blocks over `addresses` with `target` routes: of one size, else of two sizes next to each
    /// other, else of the size that comes nearest from below.
    pub(super) fn of(addresses: u32, target: u32) -> Self {
        let of = |runs: Vec<(u32, u32)>| Self { runs };
        for bits in Self::BITS {
            let blocks = addresses.div_ceil(1 << bits);
            if blocks * bits == target && (addresses.is_multiple_of(1 << bits) || blocks == 1) {
                return of(vec![(bits, blocks)]);
            }
        }
        let (total, routes) = (i64::from(addresses), i64::from(target));
        for gap in Self::BITS {
            for small in 1..17 - gap {
                let large = small + gap;
                let (a, b) = (1i64 << small, 1i64 << large);
                let (ka, kb) = (i64::from(small), i64::from(large));
                // x blocks of a and y of b: x a + y b = total, x ka + y kb = routes.
                let det = a * kb - b * ka;
                let (x, y) = (total * kb - routes * b, routes * a - total * ka);
                if det == 0 || x % det != 0 || y % det != 0 {
                    continue;
                }
                if let (Ok(x), Ok(y)) = (u32::try_from(x / det), u32::try_from(y / det)) {
                    // Large blocks first: a block must begin at a multiple of its size.
                    return of(vec![(large, y), (small, x)]);
                }
            }
        }
        // More bits, fewer routes.
        let nearest = Self::BITS
            .map(|bits| (bits, addresses.div_ceil(1 << bits)))
            .find(|&(bits, blocks)| bits * blocks <= target);
        let bits = 32 - addresses.saturating_sub(1).leading_zeros();
        of(vec![nearest.unwrap_or((bits.max(1), 1))])
    }

    /// Routes of a window.
    pub(super) fn routes(&self) -> u64 {
        let runs = self.runs.iter();
        runs.map(|&(bits, n)| u64::from(bits) * u64::from(n)).sum()
    }

    /// First address and bits of every block.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut first = 0;
        let sizes = self
            .runs
            .iter()
            .flat_map(|&(bits, n)| (0..n).map(move |_| bits));
        sizes.map(move |bits| {
            let block = (first, bits);
            first += 1 << bits;
            block
        })
    }

    /// The block of an address, as of [`blocks`](Self::blocks).
    pub(super) fn block_of(&self, offset: u32) -> Option<(u32, u32)> {
        let mut first = 0;
        for &(bits, n) in &self.runs {
            let end = first + (n << bits);
            if offset < end {
                let within = (offset - first) >> bits;
                return Some((first + (within << bits), bits));
            }
            first = end;
        }
        None
    }
}

impl Config {
    /// The gateway of the addresses without a mapping: the first that has one.
    pub(super) fn gateway(&self, eni: u32) -> Ipv4Addr {
        remote(eni, 0, 1)
    }

    /// Addresses of a window that have mappings if they are odd.
    pub(super) fn mapped_addresses(&self) -> u32 {
        self.scale.mapped * 2 * self.scale.prefixes
    }

    /// True if all addresses of a block have mappings; those of others go by the gateway's.
    pub(super) fn is_mapped(&self, (first, bits): (u32, u32)) -> bool {
        first + (1 << bits) <= self.mapped_addresses()
    }

    /// PA of the `nth` allowed address of a window: PAs take turns. An address without a mapping has
    /// the PA of one with.
    pub(super) fn pa_of(&self, eni: u32, window: u32, nth: u32) -> Ipv4Addr {
        let mapped = self.scale.mapped * self.scale.prefixes;
        pa(eni, (window * mapped + nth % mapped) % self.scale.pas)
    }
}

#[cfg(test)]
mod tests {
    use super::Blocks;
    use proptest::prelude::*;

    #[test]
    fn baby_hero_has_a_host_route_for_each_allowed_address() {
        let blocks = Blocks::of(1_000, 500);
        assert_eq!(blocks.runs, [(1, 500)]);
        assert_eq!(blocks.routes(), 500);
    }

    #[test]
    fn hero_has_exactly_its_routes() {
        assert_eq!(Blocks::of(100_000, 10_000).routes(), 10_000);
    }

    proptest! {
        /// Blocks lie without gaps, begin at multiples of their size, reach the end, and
        /// `block_of` finds them.
        #[test]
        fn blocks_tile_the_window(addresses in 1u32..5_000, target in 1u32..3_000) {
            let blocks = Blocks::of(addresses, target);
            let mut end = 0;
            for (first, bits) in blocks.blocks() {
                prop_assert_eq!(first, end);
                prop_assert_eq!(first % (1 << bits), 0);
                end = first + (1 << bits);
                prop_assert_eq!(blocks.block_of(first), Some((first, bits)));
                prop_assert_eq!(blocks.block_of(end - 1), Some((first, bits)));
            }
            prop_assert!(end >= addresses);
            prop_assert_eq!(blocks.block_of(end), None);
        }
    }
}
