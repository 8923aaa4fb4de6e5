//! Which worker a flow belongs to.
//!
//! Both directions of a connection that is not translated have one owner, whatever queue their
//! packets came in by: the hash is symmetric in the two ends (address and port), and says nothing of
//! the direction. The reply to a translated packet may have another owner; it then is a new flow
//! there, so what translates must choose the translated port by [`Owners::of`]. Later fragments and
//! ICMP errors have the key of their flow by then, and so its owner.

use std::hash::{BuildHasher, RandomState};

use dash_wire::tables::FlowKey;

/// Drawn for each runtime, so that who sends packets cannot choose one worker for all.
#[derive(Clone, Copy, Debug)]
pub struct Secret([u64; 4]);

impl Secret {
    /// A fresh one, seeded by the operating system.
    pub fn random() -> Self {
        let state = RandomState::new();
        Self(std::array::from_fn(|i| state.hash_one(i)))
    }
}

/// How flows are spread over workers.
#[derive(Clone, Copy, Debug)]
pub struct Owners {
    workers: u32,
    me: u32,
    secret: Secret,
}

/// Both halves of a product count.
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    wide as u64 ^ (wide >> 64) as u64
}

impl Owners {
    /// As worker `me` of `workers` sees it.
    pub fn new(workers: u32, me: u32, secret: Secret) -> Self {
        Self {
            workers: workers.max(1),
            me,
            secret,
        }
    }

    /// The worker that asks.
    pub fn me(&self) -> u32 {
        self.me
    }

    /// Worker that owns the flow of a key.
    #[inline]
    pub fn of(&self, key: &FlowKey) -> u32 {
        let [a, b, c, d] = self.secret.0;
        let end = |ip: &[u8; 16], port: [u8; 2]| {
            let (halves, _) = ip.as_chunks::<8>();
            let [high, low] = [0, 1].map(|n| halves.get(n).copied().map_or(0, u64::from_ne_bytes));
            fold(high ^ u64::from(u16::from_ne_bytes(port)) ^ a, low ^ b)
        };
        let ends = end(&key.sip, key.sport).wrapping_add(end(&key.dip, key.dport));
        let rest = u64::from(key.eni) << 8 | u64::from(key.proto);
        let hash = fold(ends ^ c, rest ^ d);
        // The high half, scaled: below `workers`.
        (((hash >> 32) * u64::from(self.workers)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::{Owners, Secret};
    use dash_wire::tables::FlowKey;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = FlowKey> {
        let ends = (any::<[[u8; 16]; 2]>(), any::<[[u8; 2]; 2]>());
        (ends, any::<u16>(), any::<u8>(), 0..4u8).prop_map(
            |(([sip, dip], [sport, dport]), eni, proto, flags)| FlowKey {
                sip,
                dip,
                sport,
                dport,
                eni,
                proto,
                flags,
            },
        )
    }

    proptest! {
        #[test]
        fn both_directions_have_one_owner(key in key(), workers in 1u32..70, flags: u8) {
            let reply = FlowKey {
                sip: key.dip,
                dip: key.sip,
                sport: key.dport,
                dport: key.sport,
                flags,
                ..key
            };
            let secret = Secret::random();
            let of = |key, me| Owners::new(workers, me, secret).of(key);
            prop_assert!(of(&key, 0) < workers);
            prop_assert_eq!(of(&key, 0), of(&reply, workers - 1));
        }
    }

    #[test]
    fn flows_that_differ_in_a_port_or_an_address_are_spread_evenly() {
        let secret = Secret::random();
        for workers in [2u32, 3, 7] {
            let owners = Owners::new(workers, 0, secret);
            for vary in 0..3 {
                let mut counts = vec![0u32; workers as usize];
                for n in 0..7_000u16 {
                    let mut key = FlowKey {
                        proto: 6,
                        ..FlowKey::default()
                    };
                    key.dip[12..].copy_from_slice(&[10, 0, 0, 1]);
                    match vary {
                        0 => key.sport = n.to_be_bytes(),
                        1 => key.sip[14..].copy_from_slice(&n.to_be_bytes()),
                        _ => key.eni = n,
                    }
                    counts[owners.of(&key) as usize] += 1;
                }
                // 7 standard deviations of a fair spread are below 300.
                let fair = 7_000 / workers;
                let even = counts.iter().all(|n| n.abs_diff(fair) < 300);
                assert!(even, "{workers} workers: {counts:?}");
            }
        }
    }
}
