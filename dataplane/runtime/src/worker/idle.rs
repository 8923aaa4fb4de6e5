//! What a worker does while nothing comes: latency first, then the processor for others.
//!
//! | rounds without work | what happens | costs the next packet |
//! |---|---|---|
//! | 1 to 64 | the next round at once | nothing |
//! | to 128 | pauses of the processor, 1 to 64 of them | some 100 ns |
//! | from then on | a port waits in its own way, and if it would not, a nap of 1 us, doubled up to 50 us | 50 us and the system's timer slack |
//!
//! Whatever comes starts the ladder anew. A ring of 1,024 packets outlasts the longest nap at 10
//! million packets a second.

use std::time::Duration;

/// Rounds that follow at once.
const SPIN: u32 = 64;
/// Rounds with pauses.
const PAUSE: u32 = 64;
/// The first round that waits.
const WAIT: u32 = SPIN + PAUSE;
/// The longest nap.
pub(crate) const LONGEST: Duration = Duration::from_micros(50);
const SHORTEST: Duration = Duration::from_micros(1);

/// What to do before the next round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing.
    Spin,
    /// So many pauses of the processor.
    Pause(u32),
    /// Let a port wait; a port that returns at once is made up for by a nap of this length.
    Wait(Duration),
}

/// Counts rounds without work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Idle {
    rounds: u32,
}

impl Idle {
    /// There was work.
    pub(crate) fn busy(&mut self) {
        self.rounds = 0;
    }

    /// A port fails: no spinning on it.
    pub(crate) fn failing(&mut self) {
        self.rounds = self.rounds.max(WAIT);
    }

    /// There was no work: what to do.
    pub(crate) fn rest(&mut self) -> Rest {
        let round = self.rounds;
        self.rounds = round.saturating_add(1);
        match round {
            0..SPIN => Rest::Spin,
            SPIN..WAIT => Rest::Pause(round - SPIN + 1),
            _ => {
                let doubled = SHORTEST * (1 << (round - WAIT).min(6));
                Rest::Wait(doubled.min(LONGEST))
            }
        }
    }

    /// Rounds without work so far.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds
    }
}

#[cfg(test)]
mod tests {
    use super::{Idle, LONGEST, Rest};
    use std::time::Duration;

    fn ladder(idle: &mut Idle, rounds: usize) -> Vec<Rest> {
        (0..rounds).map(|_| idle.rest()).collect()
    }

    #[test]
    fn waits_grow_and_stay_bounded() {
        let mut idle = Idle::default();
        let steps = ladder(&mut idle, 300);
        assert!(steps[..64].iter().all(|step| *step == Rest::Spin));
        let pauses: Vec<Rest> = (1..=64).map(Rest::Pause).collect();
        assert_eq!(steps[64..128], pauses);
        let waits = steps[128..].iter().map(|step| match step {
            Rest::Wait(nap) => *nap,
            other => panic!("{other:?} after waiting began"),
        });
        let waits: Vec<Duration> = waits.collect();
        assert_eq!(waits[..4], [1, 2, 4, 8].map(Duration::from_micros));
        assert!(waits.is_sorted());
        assert_eq!(waits.last(), Some(&LONGEST));
    }

    #[test]
    fn work_starts_anew_and_a_failing_port_is_not_spun_on() {
        let mut idle = Idle::default();
        ladder(&mut idle, 1_000);
        idle.busy();
        assert_eq!(idle.rest(), Rest::Spin);
        idle.failing();
        assert_eq!(idle.rest(), Rest::Wait(Duration::from_micros(1)));
        idle.failing();
        assert_eq!(
            idle.rest(),
            Rest::Wait(Duration::from_micros(2)),
            "failing again does not shorten the wait"
        );
        let mut old = Idle { rounds: u32::MAX };
        assert_eq!(old.rest(), Rest::Wait(LONGEST));
        assert_eq!(old.rest(), Rest::Wait(LONGEST));
    }
}
