//! A hierarchical timer wheel over flow slots (Varghese and Lauck 1987): exact to the nanosecond, 8
//! bytes a slot.
//!
//! A time is a number of digits, the lowest of 8 bits: a level of the wheel for each digit, a list of slots for
//! each value of it. A slot lies at the level of the highest digit in which its time differs from
//! `elapsed`. When a list's time comes its slots move to lower levels, a few at a time, and what reaches
//! level 0 is due at exactly the list's nanosecond. The fourth digit has 12 bits, 16.8 ms to 69 s, so
//! that a flow's 30 s wait in one list until the last few milliseconds, and the entries
//! then read again are still in the cache when they expire.
//!
//! Lists are doubly linked through the slots, so that a slot is moved in constant time and is in one
//! list only. A bit a list says whether it is empty: idle time is skipped, not walked through.

use crate::tables::memory::{Mapping, MemoryError};
use crate::tables::mirror::SlabMemory as _;

/// First bit of each level's digit, and the end.
const SHIFT: [u32; LEVELS + 1] = [0, 8, 16, 24, 36, 44, 52, 60, 64];
const LEVELS: usize = 8;
/// First list of each level, and the end. Multiples of 64, so that levels share no word of bits.
const FIRST: [usize; LEVELS + 1] = {
    let mut first = [0; LEVELS + 1];
    let mut level = 0;
    while level < LEVELS {
        let lists = 1usize << (SHIFT[level + 1] - SHIFT[level]);
        first[level + 1] = first[level] + lists.next_multiple_of(64);
        level += 1;
    }
    first
};
const LISTS: usize = FIRST[LEVELS];
/// In `Node::before`: what follows is the number of a list, whose first slot this is.
const HEAD: u32 = 1 << 31;

/// A slot's place in its list. Slots are counted from 1, so that zeroed memory says "in none".
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Node {
    /// The slot behind, 0 for none.
    after: u32,
    /// The slot before, or [`HEAD`] and the list. 0: in no list.
    before: u32,
}

/// Most slots that come at once.
pub(crate) const BATCH: usize = 16;

/// Slots of one list whose time came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    slots: [u32; BATCH],
    len: usize,
    /// The slots' time is `Wheel::elapsed`; else it is at or after that and they are to be scheduled
    /// again.
    pub(crate) exact: bool,
}

impl Due {
    pub(crate) fn slots(&self) -> &[u32] {
        &self.slots[..self.len]
    }
}

/// When slots are to be looked at, each at one time at most.
#[derive(Debug)]
pub(crate) struct Wheel {
    nodes: Mapping,
    slots: u32,
    /// First slot of each list, from 1; 0 for none.
    heads: Box<[u32]>,
    /// A bit a list that holds something.
    busy: Box<[u64]>,
    /// No slot is due before this.
    elapsed: u64,
    /// No list's time comes before this.
    next: u64,
}

impl Wheel {
    /// Nothing scheduled; for slots `0..slots`.
    pub(crate) fn new(slots: u32) -> Result<Self, MemoryError> {
        Ok(Self {
            nodes: Mapping::new("flow timers", slots as usize * size_of::<Node>())?,
            slots,
            heads: vec![0; LISTS].into(),
            busy: vec![0; LISTS / 64].into(),
            elapsed: 0,
            next: u64::MAX,
        })
    }

    /// Takes the memory of all slots' places.
    pub(crate) fn prefault(&self) -> Result<(), MemoryError> {
        self.nodes.prefault("flow timers")
    }

    /// Time of the slots that are due exactly now.
    pub(crate) fn elapsed(&self) -> u64 {
        self.elapsed
    }

    /// Looks at a slot at `time`, and no more at any time it was to be looked at before.
    pub(crate) fn schedule(&mut self, slot: u32, time: u64) {
        // Slot numbers from 1 leave room for `HEAD`: a row of the index is `slot << 1 | side`.
        if slot >= self.slots || slot >= HEAD - 1 {
            return;
        }
        self.unlink(slot);
        let time = time.max(self.elapsed);
        let level = level_of(time ^ self.elapsed);
        let list = FIRST[level] + digit(time, level);
        let first = std::mem::replace(&mut self.heads[list], slot + 1);
        *self.node(slot) = Node {
            after: first,
            before: HEAD | list as u32,
        };
        if first != 0 {
            self.node(first - 1).before = slot + 1;
        }
        self.busy[list / 64] |= 1 << (list % 64);
        self.next = self.next.min(time >> SHIFT[level] << SHIFT[level]);
    }

    /// Takes the next slots whose list's time is at or before `now`: some of one list, `most` or
    /// [`BATCH`] at most, and one at least.
    pub(crate) fn pop(&mut self, now: u64, most: usize) -> Option<Due> {
        if self.next > now {
            // Nothing is between, so no slot's highest differing digit changes.
            self.elapsed = self.elapsed.max(now);
            return None;
        }
        let Some((level, list, start)) = self.first() else {
            self.next = u64::MAX;
            return self.pop(now.min(u64::MAX - 1), most);
        };
        if start > now {
            self.next = start;
            self.elapsed = self.elapsed.max(now);
            return None;
        }
        self.next = start;
        self.elapsed = self.elapsed.max(start);
        let mut due = Due {
            slots: [0; BATCH],
            len: 0,
            exact: level == 0,
        };
        // Those at the head go together, and the first that stays becomes the head.
        let mut head = self.heads[list];
        while due.len < most.clamp(1, BATCH)
            && let Some(slot) = head.checked_sub(1)
        {
            due.slots[due.len] = slot;
            due.len += 1;
            let node = self.node(slot);
            head = node.after;
            (node.after, node.before) = (0, 0);
        }
        self.heads[list] = head;
        match head.checked_sub(1) {
            Some(slot) => self.node(slot).before = HEAD | list as u32,
            None => self.busy[list / 64] &= !(1 << (list % 64)),
        }
        Some(due)
    }

    /// The list whose time comes first, with its level and time.
    fn first(&self) -> Option<(usize, usize, u64)> {
        // A list whose time came and that was not emptied yet comes before everything below it.
        let begun = (1..LEVELS).rev().find(|&level| {
            let list = FIRST[level] + digit(self.elapsed, level);
            self.busy[list / 64] >> (list % 64) & 1 != 0
        });
        if let Some(level) = begun {
            let list = FIRST[level] + digit(self.elapsed, level);
            return Some((level, list, self.elapsed >> SHIFT[level] << SHIFT[level]));
        }
        // What is at a level comes before everything above it.
        (0..LEVELS).find_map(|level| {
            let from = FIRST[level] + digit(self.elapsed, level);
            let list = self.busy_from(from, FIRST[level + 1])?;
            let above = match SHIFT[level + 1] {
                64 => 0,
                shift => self.elapsed >> shift << shift,
            };
            Some((
                level,
                list,
                above | ((list - FIRST[level]) as u64) << SHIFT[level],
            ))
        })
    }

    /// The first list that holds something, of `from..to`.
    fn busy_from(&self, from: usize, to: usize) -> Option<usize> {
        let first = self.busy[from / 64] & (u64::MAX << (from % 64));
        let rest = self.busy[from / 64 + 1..to / 64].iter().copied();
        std::iter::once(first)
            .chain(rest)
            .position(|word| word != 0)
            .map(|nth| {
                let word = if nth == 0 {
                    first
                } else {
                    self.busy[from / 64 + nth]
                };
                (from / 64 + nth) * 64 + word.trailing_zeros() as usize
            })
    }

    /// Takes a slot out of its list, if it is in one.
    fn unlink(&mut self, slot: u32) {
        let Node { after, before } = *self.node(slot);
        if before == 0 {
            return;
        }
        if before & HEAD == 0 {
            self.node(before - 1).after = after;
        } else {
            let list = (before & !HEAD) as usize;
            self.heads[list] = after;
            if after == 0 {
                self.busy[list / 64] &= !(1 << (list % 64));
            }
        }
        if after != 0 {
            self.node(after - 1).before = before;
        }
        *self.node(slot) = Node {
            after: 0,
            before: 0,
        };
    }

    fn node(&mut self, slot: u32) -> &mut Node {
        assert!(slot < self.slots, "slot {slot} of {}", self.slots);
        // SAFETY: the mapping has a node for each slot, page-aligned and zero when new, of any bit
        // pattern, and nobody else knows of it; the reference borrows `self`.
        unsafe { &mut *self.nodes.base().as_ptr().cast::<Node>().add(slot as usize) }
    }
}

/// Level of the highest digit that is not 0.
fn level_of(difference: u64) -> usize {
    let bit = 63 - (difference | 1).leading_zeros();
    SHIFT[1..LEVELS]
        .iter()
        .take_while(|&&shift| shift <= bit)
        .count()
}

/// Digit of a time at a level.
fn digit(time: u64, level: usize) -> usize {
    let bits = SHIFT[level + 1] - SHIFT[level];
    (time >> SHIFT[level]) as usize & ((1 << bits) - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Wheel;
    use proptest::prelude::*;

    /// Everything that is due by `now`, with its time.
    fn take(
        wheel: &mut Wheel,
        times: &BTreeMap<u32, u64>,
        now: u64,
        most: usize,
    ) -> Vec<(u64, u32)> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(due) = wheel.pop(now, most - taken.len())
        {
            for &slot in due.slots() {
                if due.exact {
                    taken.push((wheel.elapsed(), slot));
                } else {
                    wheel.schedule(slot, times[&slot]);
                }
            }
        }
        taken
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A slot, and how long from now.
        Schedule(u32, u64),
        /// How long, and how many may be taken.
        Wait(u64, usize),
    }

    fn wait() -> impl Strategy<Value = u64> {
        prop_oneof![
            0u64..3,
            0u64..1000,
            0u64..100_000_000,
            0u64..100_000_000_000,
            any::<u64>().prop_map(|n| n >> 8)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        /// The twin is a map that is searched whole.
        #[test]
        fn slots_come_at_their_time_and_in_its_order(steps in prop::collection::vec(
            prop_oneof![
                3 => (0u32..20, wait()).prop_map(|(slot, time)| Step::Schedule(slot, time)),
                2 => (wait(), prop_oneof![Just(usize::MAX), 0usize..4]).prop_map(|(time, most)| Step::Wait(time, most)),
            ], 0..200)) {
            let mut wheel = Wheel::new(20).unwrap();
            let (mut twin, mut now) = (BTreeMap::new(), 0u64);
            for step in steps {
                match step {
                    Step::Schedule(slot, time) => {
                        let time = now.saturating_add(time);
                        wheel.schedule(slot, time);
                        twin.insert(slot, time);
                    }
                    Step::Wait(time, most) => {
                        now = now.saturating_add(time);
                        let taken = take(&mut wheel, &twin, now, most);
                        let mut due: Vec<_> = twin.iter().filter(|&(_, &t)| t <= now).map(|(&s, &t)| (t, s)).collect();
                        due.sort_unstable();
                        prop_assert_eq!(taken.len(), due.len().min(most));
                        let times = |list: &[(u64, u32)]| list.iter().map(|&(t, _)| t).collect::<Vec<_>>();
                        prop_assert_eq!(times(&taken), times(&due[..taken.len()]));
                        for (time, slot) in taken {
                            prop_assert_eq!(twin.remove(&slot), Some(time));
                        }
                    }
                }
            }
            let rest = take(&mut wheel, &twin, u64::MAX, usize::MAX).len();
            prop_assert_eq!(rest, twin.len());
        }
    }

    #[test]
    fn a_century_of_idleness_is_one_step() {
        let mut wheel = Wheel::new(2).unwrap();
        let century = 100 * 365 * 24 * 3_600 * 1_000_000_000;
        wheel.schedule(1, century);
        let times = BTreeMap::from([(1, century)]);
        assert_eq!(take(&mut wheel, &times, century - 1, usize::MAX), []);
        assert_eq!(
            take(&mut wheel, &times, century, usize::MAX),
            [(century, 1)]
        );
    }

    #[test]
    fn a_slot_beyond_the_last_is_not_scheduled() {
        let mut wheel = Wheel::new(2).unwrap();
        wheel.schedule(2, 0);
        assert!(wheel.pop(u64::MAX, 1).is_none());
    }
}
