//! The hash of every table: keyed, so that who sends packets or rows cannot choose collisions.
//!
//! A key of n 8-byte words is first reduced by NH (Black, Halevi, Krawczyk, Krovetz, Rogaway:
//! UMAC, CRYPTO '99): the sum over word pairs of `(a + k[i]) * (b + k[i+1])` modulo 2^128, which two
//! different keys of one length share with probability 2^-64 over the choice of `k`. One folded
//! multiplication then spreads the sum over 64 bits. That is one multiplication for 16 bytes of key
//! and one more, and pairwise collisions are as rare as they can be for keys chosen without seeing
//! the seed. Against an attacker who measures look-up times it is weaker than SipHash: there is no
//! proof for adaptively chosen keys.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use dash_wire::abi::hash_map::{KEY_WORDS, SECRET};

use super::MAX_KEY;

/// Secret of a process's tables.
#[derive(Debug)]
pub struct HashKey {
    words: [u64; MAX_KEY / 8],
    fold: [u64; 2],
}

impl HashKey {
    /// The secret of this process: drawn from the operating system once.
    pub fn process() -> &'static Self {
        static KEY: OnceLock<HashKey> = OnceLock::new();
        KEY.get_or_init(Self::random)
    }

    /// A fresh secret. `RandomState` is seeded by the operating system, and its SipHash of
    /// distinct numbers is a stream of random ones.
    fn random() -> Self {
        let state = RandomState::new();
        Self {
            words: std::array::from_fn(|i| state.hash_one(i)),
            fold: [state.hash_one("fold 0"), state.hash_one("fold 1")],
        }
    }

    /// The secret as compiled code reads it ([`dash_wire::abi::hash_map::SECRET`]).
    pub fn words(&self) -> [u64; SECRET] {
        let mut words = [0; SECRET];
        words[..KEY_WORDS].copy_from_slice(&self.words);
        words[KEY_WORDS..].copy_from_slice(&self.fold);
        words
    }

    /// Hash of a key of at most [`MAX_KEY`] bytes; bytes beyond that do not count.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut sum = 0u128;
        let (pairs, rest) = key.as_chunks::<16>();
        let mut secrets = self.words.as_chunks::<2>().0.iter();
        for (pair, k) in pairs.iter().zip(&mut secrets) {
            sum = sum.wrapping_add(nh(*pair, *k));
        }
        if !rest.is_empty()
            && let Some(k) = secrets.next()
        {
            let mut last = [0; 16];
            last[..rest.len()].copy_from_slice(rest);
            sum = sum.wrapping_add(nh(last, *k));
        }
        let [f0, f1] = self.fold;
        let wide = u128::from(sum as u64 ^ f0).wrapping_mul(u128::from((sum >> 64) as u64 ^ f1));
        // The fold alone is 0 whenever one factor is: the sum keeps such keys apart.
        (wide as u64 ^ (wide >> 64) as u64).wrapping_add(sum as u64)
    }
}

#[inline]
fn nh(pair: [u8; 16], k: [u64; 2]) -> u128 {
    let both = u128::from_le_bytes(pair);
    let (a, b) = (both as u64, (both >> 64) as u64);
    u128::from(a.wrapping_add(k[0])).wrapping_mul(u128::from(b.wrapping_add(k[1])))
}

#[cfg(test)]
mod tests {
    use super::HashKey;
    use std::collections::HashSet;

    #[test]
    fn every_byte_of_a_key_counts() {
        let key = HashKey::process();
        for len in [4, 8, 16, 20, 40, 64] {
            let mut seen = HashSet::new();
            let mut bytes = vec![0; len];
            seen.insert(key.hash(&bytes));
            for at in 0..len {
                for bit in 0..8 {
                    bytes[at] ^= 1 << bit;
                    assert!(
                        seen.insert(key.hash(&bytes)),
                        "bit {bit} of byte {at} of {len}"
                    );
                    bytes[at] ^= 1 << bit;
                }
            }
        }
    }

    #[test]
    fn consecutive_addresses_spread_over_buckets() {
        let key = HashKey::process();
        let mut buckets = [0u32; 256];
        for i in 0..65_536u32 {
            buckets[(key.hash(&i.to_be_bytes()) >> 56) as usize] += 1;
        }
        // Mean 256, standard deviation 16: 10 of them away means a broken hash, not bad luck.
        assert!(
            buckets.iter().all(|&n| (96..=416).contains(&n)),
            "{buckets:?}"
        );
    }

    #[test]
    fn two_secrets_give_two_hashes() {
        assert_ne!(
            HashKey::random().hash(b"12345678"),
            HashKey::random().hash(b"12345678")
        );
    }
}
