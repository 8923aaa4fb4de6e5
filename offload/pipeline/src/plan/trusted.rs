//! Trusted VNIs: ranges to rows of a longest-prefix table over the 24 bits of a VNI.

use std::collections::BTreeSet;

use dash_model::net::VniRange;
use dash_model::objects::Object;
use dash_wire::tables::{TrustedVniKey, redirect};
use nic_target::Table;

use super::Edit;
use super::ops::Ops;

/// Bits of a VNI.
const VNI_BITS: u32 = 24;

/// A block of VNIs: the first, and how many bits of it count.
type Block = (u32, u32);

/// How a row names an ENI.
pub(super) fn owner(eni: u32) -> [u8; 2] {
    let [_, _, high, low] = eni.to_be_bytes();
    [high, low]
}

/// Removes what the owner listed and no longer lists.
pub(super) fn remove(edit: &Edit<'_>, owner: [u8; 2], ops: &mut Ops) {
    let (old, new) = (blocks(edit.old), blocks(edit.new));
    for block in old.difference(&new) {
        ops.delete(Table::TrustedVni, &key(owner, *block));
    }
}

/// Writes what the owner lists and did not list before.
pub(super) fn add(edit: &Edit<'_>, owner: [u8; 2], ops: &mut Ops) {
    let (old, new) = (blocks(edit.old), blocks(edit.new));
    for block in new.difference(&old) {
        ops.put(Table::TrustedVni, &key(owner, *block), &1u32);
    }
}

/// The ranges an object lists.
pub(super) fn listed(object: &Object) -> &[VniRange] {
    match object {
        Object::Appliance(appliance) => &appliance.trusted_vnis,
        Object::Eni(eni) => &eni.trusted_vnis,
        _ => &[],
    }
}

/// True when the object lists a key that redirects of load balancers come with.
pub(super) fn takes_redirects(object: &Object) -> bool {
    let keys = [redirect::VIP_KEY, redirect::ENCAP_KEY];
    let lists = |key| {
        listed(object)
            .iter()
            .any(|range| (range.min.get()..=range.max.get()).contains(&key))
    };
    keys.into_iter().any(lists)
}

fn key(owner: [u8; 2], (vni, bits): Block) -> TrustedVniKey {
    let [_, a, b, c] = vni.to_be_bytes();
    TrustedVniKey {
        prefix_len: 16 + bits,
        eni: owner,
        vni: [a, b, c],
        pad: [0; 3],
    }
}

fn blocks(object: Option<&Object>) -> BTreeSet<Block> {
    let mut ranges: Vec<(u32, u32)> = object
        .map_or(&[][..], listed)
        .iter()
        .map(|range| (range.min.get(), range.max.get()))
        .collect();
    ranges.sort_unstable();
    // One range where they overlap or touch, so that each VNI is in one block.
    let mut union: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (min, max) in ranges {
        match union.last_mut() {
            Some((_, end)) if min <= end.saturating_add(1) => *end = max.max(*end),
            _ => union.push((min, max)),
        }
    }
    let mut blocks = BTreeSet::new();
    for (min, max) in union {
        split(min, max, &mut blocks);
    }
    blocks
}

/// The fewest aligned blocks that cover exactly `min..=max`.
fn split(min: u32, max: u32, blocks: &mut BTreeSet<Block>) {
    let mut at = min;
    while at <= max {
        let aligned = at.trailing_zeros().min(VNI_BITS);
        let fitting = (max - at + 1).ilog2();
        let size = aligned.min(fitting);
        blocks.insert((at, VNI_BITS - size));
        at += 1 << size;
    }
}

#[cfg(test)]
mod tests {
    use dash_model::net::Vni;
    use dash_model::objects::{Appliance, OutboundLookup};
    use proptest::prelude::*;

    use super::*;

    fn appliance(ranges: &[(u32, u32)]) -> Object {
        let vni = |v| Vni::new(v).expect("24 bits");
        Object::Appliance(Appliance {
            sip: [10, 0, 0, 1].into(),
            vm_vni: vni(1),
            trusted_vnis: ranges
                .iter()
                .map(|&(min, max)| VniRange {
                    min: vni(min),
                    max: vni(max),
                })
                .collect(),
            outbound_lookup: OutboundLookup::SrcMac,
        })
    }

    #[test]
    fn the_whole_space_takes_a_block_for_each_power_of_two() {
        let blocks = blocks(Some(&appliance(&[(1, 0xff_ffff)])));
        let expected: BTreeSet<Block> = (0..24).map(|k| (1 << k, 24 - k)).collect();
        assert_eq!(blocks, expected);
    }

    #[test]
    fn ranges_that_touch_make_one_block() {
        let blocks = blocks(Some(&appliance(&[(0x102, 0x103), (0x100, 0x101)])));
        assert_eq!(blocks, BTreeSet::from([(0x100, 22)]));
    }

    proptest! {
        #[test]
        fn blocks_cover_exactly_the_ranges_and_never_twice(
            ranges in prop::collection::vec((1u32..300, 0u32..70), 0..6),
            high in any::<bool>(),
        ) {
            let base = if high { 0xff_fe00 } else { 0 };
            let ranges: Vec<_> = ranges
                .into_iter()
                .map(|(min, more)| (base + min, base + min + more))
                .collect();
            let blocks = blocks(Some(&appliance(&ranges)));
            for vni in base..base + 512 {
                let listed = ranges.iter().any(|r| (r.0..=r.1).contains(&vni));
                let covering = blocks
                    .iter()
                    .filter(|(at, bits)| vni >> (VNI_BITS - bits) == at >> (VNI_BITS - bits))
                    .count();
                prop_assert_eq!(covering, usize::from(listed), "VNI {}", vni);
            }
        }
    }
}
