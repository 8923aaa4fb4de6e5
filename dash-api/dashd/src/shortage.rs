//! When it is told that flows find no place: a second between two looks, each drop told once.

use std::time::{Duration, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// What was told.
#[derive(Debug)]
pub(crate) struct Shortage {
    last: Instant,
    full: u64,
    refused: u64,
    /// The last look found some.
    counted: bool,
}

/// Packets that were dropped since the last look, where any were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewDrops {
    /// For want of a place in the flow table.
    pub(crate) full: Option<u64>,
    /// By limits of their ENI.
    pub(crate) refused: Option<u64>,
}

impl Shortage {
    pub(crate) fn new() -> Self {
        Self {
            last: Instant::now(),
            full: 0,
            refused: 0,
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

    /// The last look found drops: there may be more that were not told.
    pub(crate) fn counted(&self) -> bool {
        self.counted
    }

    /// How many more there are than at the last look, of so many in all.
    pub(crate) fn new_drops(&mut self, full: u64, refused: u64) -> NewDrops {
        let new = |told: &mut u64, all: u64| {
            let new = all.saturating_sub(*told);
            *told = all;
            (new > 0).then_some(new)
        };
        let drops = NewDrops {
            full: new(&mut self.full, full),
            refused: new(&mut self.refused, refused),
        };
        self.counted = drops.full.is_some() || drops.refused.is_some();
        drops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_passes_between_looks_and_each_drop_is_told_once() {
        let mut shortage = Shortage::new();
        let start = shortage.last;
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(shortage.due(at(999)), None);
        assert_eq!(shortage.due(at(1000)), Some(EVERY));
        assert_eq!(shortage.due(at(1999)), None);
        let new = |full, refused| NewDrops { full, refused };
        assert_eq!(shortage.new_drops(5, 0), new(Some(5), None));
        assert!(shortage.counted());
        assert_eq!(shortage.new_drops(5, 0), new(None, None));
        assert!(!shortage.counted());
        assert_eq!(shortage.new_drops(7, 3), new(Some(2), Some(3)));
        assert_eq!(shortage.new_drops(7, 4), new(None, Some(1)));
        assert!(shortage.counted());
    }
}
