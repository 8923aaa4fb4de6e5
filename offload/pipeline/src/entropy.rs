//! The hash behind the outer UDP source port of a flow, and behind its choice among several ways.
//!
//! `port = base + (hash(key) & mask)`: the same for every packet of a direction of a flow, and
//! decided once, when the flow is made. A multiply-xor over the five 64-bit words of the flow key,
//! cheap in eBPF; it spreads load, it does not resist attack (flow tables use a keyed hash).

use dash_wire::tables::FlowKey;
use zerocopy::IntoBytes;

/// Odd constant with well-mixed bits (the golden ratio in 64 bits).
pub const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// 16-bit hash of a flow key.
pub fn hash(key: &FlowKey) -> u16 {
    (mix(key) & 0xffff) as u16
}

/// One of the numbers below `of`: the hash's upper half, scaled. Its lower half is [`hash`].
pub fn choose(key: &FlowKey, of: u32) -> u32 {
    ((mix(key) >> 32).wrapping_mul(u64::from(of)) >> 32) as u32
}

/// Words are read in little-endian order.
fn mix(key: &FlowKey) -> u64 {
    let mut h = 0u64;
    for word in key.as_bytes().chunks_exact(8) {
        let mut w = [0; 8];
        w.copy_from_slice(word);
        h = (h ^ u64::from_le_bytes(w)).wrapping_mul(MULTIPLIER);
        h ^= h >> 32;
    }
    h
}
