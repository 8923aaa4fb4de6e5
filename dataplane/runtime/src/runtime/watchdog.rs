//! Tells workers that have gone silent by their heartbeats.
//!
//! A program cannot hang a worker, as it was proved to end; a port that blocks can, and so can a
//! system that gives the thread no time.

use std::time::{Duration, Instant};

/// A worker that has gone silent, or speaks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Not a round for this long.
    Silent {
        /// Worker.
        worker: usize,
        /// Since when.
        silence: Duration,
    },
    /// It goes round again.
    Back {
        /// Worker.
        worker: usize,
    },
}

#[derive(Debug)]
struct Watched {
    beat: u64,
    since: Instant,
    silent: bool,
}

/// Heartbeats as they were last seen.
#[derive(Debug)]
pub(crate) struct Watchdog {
    limit: Duration,
    workers: Vec<Watched>,
}

impl Watchdog {
    pub(crate) fn new(workers: usize, limit: Duration, now: Instant) -> Self {
        let fresh = || Watched {
            beat: 0,
            since: now,
            silent: false,
        };
        Self {
            limit,
            workers: std::iter::repeat_with(fresh).take(workers).collect(),
        }
    }

    /// Takes the heartbeats of `now` in and adds what changed: each silence is told once.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        beats: impl IntoIterator<Item = u64>,
        changes: &mut Vec<Change>,
    ) {
        for (worker, (watched, beat)) in self.workers.iter_mut().zip(beats).enumerate() {
            if watched.beat != beat {
                if watched.silent {
                    changes.push(Change::Back { worker });
                }
                *watched = Watched {
                    beat,
                    since: now,
                    silent: false,
                };
                continue;
            }
            let silence = now.saturating_duration_since(watched.since);
            if !watched.silent && silence >= self.limit {
                watched.silent = true;
                changes.push(Change::Silent { worker, silence });
            }
        }
    }

    /// Workers that are silent.
    pub(crate) fn silent(&self) -> impl Iterator<Item = usize> {
        let workers = self.workers.iter().enumerate();
        workers.filter(|(_, w)| w.silent).map(|(n, _)| n)
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Watchdog};
    use std::time::{Duration, Instant};

    #[test]
    fn a_silence_is_told_once_and_its_end_too() {
        let zero = Instant::now();
        let ms = Duration::from_millis;
        let mut dog = Watchdog::new(2, ms(1_000), zero);
        let mut look = |at, beats| {
            let mut changes = Vec::new();
            dog.look(zero + ms(at), beats, &mut changes);
            (changes, dog.silent().collect::<Vec<_>>())
        };
        assert_eq!(look(900, [1, 1]), (vec![], vec![]));
        assert_eq!(look(1_899, [1, 2]), (vec![], vec![]), "not yet a second");
        let silence = ms(1_001);
        let told = vec![Change::Silent { worker: 0, silence }];
        assert_eq!(look(1_901, [1, 3]), (told, vec![0]));
        assert_eq!(look(9_000, [1, 4]), (vec![], vec![0]), "told once");
        let back = vec![Change::Back { worker: 0 }];
        assert_eq!(look(9_500, [2, 5]), (back, vec![]));
        let silence = ms(1_000);
        let told = [0, 1].map(|worker| Change::Silent { worker, silence });
        assert_eq!(look(10_500, [2, 5]), (told.to_vec(), vec![0, 1]));
    }
}
