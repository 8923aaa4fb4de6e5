//! What can go wrong on a wire, decided by a seeded generator: same seed, same packets, same faults.

/// Chances in parts per million a packet, each drawn on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Seed of the generator.
    pub seed: u64,
    /// The packet vanishes.
    pub loss: u32,
    /// It comes twice.
    pub duplicate: u32,
    /// It comes after the one that follows it.
    pub reorder: u32,
    /// One bit of it flips.
    pub corrupt: u32,
    /// It ends early, at a length from 0 to one less than its own.
    pub truncate: u32,
}

/// SplitMix64: small, seedable, and good enough to choose victims.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Below `n`; 0 when `n` is 0.
    fn below(&mut self, n: usize) -> usize {
        // Multiply-shift: the bias of 2^-64 times n matters to nobody here.
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
    fn chance(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < ppm as usize
    }
}

/// What happens to one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) lost: bool,
    pub(crate) duplicated: bool,
    pub(crate) held: bool,
    /// Bit number over the whole packet.
    pub(crate) flip: Option<usize>,
    pub(crate) cut: Option<usize>,
}

/// Draws fates in the order of arrival.
#[derive(Clone, Debug)]
pub(crate) struct Injector {
    faults: Faults,
    rng: Rng,
}

impl Injector {
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            faults,
            rng: Rng::new(faults.seed),
        }
    }
    /// Fate of a packet of `len` bytes. Every draw is made every time, so that changing one chance
    /// does not shift the others.
    pub(crate) fn fate(&mut self, len: usize) -> Fate {
        let f = self.faults;
        let [lost, duplicated, held, corrupt, truncate] =
            [f.loss, f.duplicate, f.reorder, f.corrupt, f.truncate].map(|ppm| self.rng.chance(ppm));
        let (bit, end) = (self.rng.below(len * 8), self.rng.below(len));
        Fate {
            lost,
            duplicated,
            held,
            flip: (corrupt && len > 0).then_some(bit),
            cut: (truncate && len > 0).then_some(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_fates_other_seed_others() {
        let faults = |seed| Faults {
            seed,
            loss: 300_000,
            corrupt: 500_000,
            ..Faults::default()
        };
        let run = |seed| {
            let mut i = Injector::new(faults(seed));
            (0..200).map(|n| i.fate(60 + n)).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn chances_are_met_within_a_tenth() {
        let mut i = Injector::new(Faults {
            loss: 250_000,
            ..Faults::default()
        });
        let lost = (0..100_000).filter(|_| i.fate(64).lost).count();
        assert!((22_500..27_500).contains(&lost), "{lost} of 100,000 at 25%");
    }

    #[test]
    fn certain_and_impossible_are_exact() {
        let mut i = Injector::new(Faults {
            duplicate: 1_000_000,
            ..Faults::default()
        });
        for len in 0..1000 {
            let fate = i.fate(len);
            assert_eq!(
                fate,
                Fate {
                    duplicated: true,
                    ..Fate::default()
                }
            );
        }
    }

    #[test]
    fn flips_and_cuts_stay_inside_the_packet() {
        let mut i = Injector::new(Faults {
            corrupt: 1_000_000,
            truncate: 1_000_000,
            ..Faults::default()
        });
        assert_eq!(i.fate(0), Fate::default());
        for len in 1..2000 {
            let fate = i.fate(len);
            assert!(fate.flip.is_some_and(|bit| bit < len * 8));
            assert!(fate.cut.is_some_and(|end| end < len));
        }
    }
}
