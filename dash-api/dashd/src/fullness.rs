//! When a full flow table is told of.

use std::time::{Duration, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// What was told.
#[derive(Debug)]
pub(crate) struct Fullness {
    last: Instant,
    failures: u64,
    /// The last look found some.
    counted: bool,
}

impl Fullness {
    pub(crate) fn new() -> Self {
        Self {
            last: Instant::now(),
            failures: 0,
            counted: false,
        }
    }

    /// The time since the last look, when another is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.last);
        if since < EVERY {
            return None;
        }
        self.last = now;
        Some(since)
    }

    /// The last look found failures: there may be more that were not told.
    pub(crate) fn counted(&self) -> bool {
        self.counted
    }

    /// How many there are more than at the last look, of so many in all.
    pub(crate) fn new_failures(&mut self, all: u64) -> Option<u64> {
        let new = all.saturating_sub(self.failures);
        self.failures = all;
        self.counted = new > 0;
        self.counted.then_some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_passes_between_looks_and_each_failure_is_told_once() {
        let mut fullness = Fullness::new();
        let start = fullness.last;
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(fullness.due(at(999)), None);
        assert_eq!(fullness.due(at(1000)), Some(EVERY));
        assert_eq!(fullness.due(at(1999)), None);
        assert_eq!(fullness.new_failures(5), Some(5));
        assert!(fullness.counted());
        assert_eq!(fullness.new_failures(5), None);
        assert!(!fullness.counted());
        assert_eq!(fullness.new_failures(7), Some(2));
    }
}
