//! Policy tables at full scale: rows, keys to look up, changes, and the twins to compare with. No clock
//! is read here: the perf lab times what it gets.
//!
//! - [`mapping`]: CA-to-PA mappings, beside `std`'s hash table
//! - [`routes`]: routes of ENIs, beside `rte_lpm` and `rte_lpm6` with the feature `dpdk`
//! - [`acls`]: five stages of ACL groups, bound and not

#![deny(unsafe_code)]

pub mod acls;
pub mod mapping;
pub mod routes;
#[cfg(feature = "dpdk")]
mod rte;
mod table;

pub use table::Table;

/// A way to look all keys of a workload up.
pub struct Way<'a> {
    /// Whose table, and how.
    pub name: &'static str,
    find: Box<dyn Fn() -> usize + 'a>,
}

impl<'a> Way<'a> {
    fn new(name: &'static str, find: impl Fn() -> usize + 'a) -> Self {
        Self {
            name,
            find: Box::new(find),
        }
    }

    /// Looks them up, once each; how many were found.
    pub fn run(&self) -> usize {
        (self.find)()
    }
}

impl std::fmt::Debug for Way<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// How look-ups follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Each may begin before the last has ended.
    BackToBack,
    /// Each waits for the answer of the last.
    OneByOne,
}

impl Pace {
    /// Both.
    pub const ALL: [Self; 2] = [Self::BackToBack, Self::OneByOne];

    /// For rows of tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::BackToBack => "back to back",
            Self::OneByOne => "one by one",
        }
    }
}

/// Numbers that look random and are the same every time (splitmix64's finaliser).
fn mix(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
