//! In place of DPDK's tables, in builds without DPDK.

use dash_tablebench::routes::{Addresses, Family, Routes};
use dash_tablebench::{Pace, Way};

use super::Bench;
use crate::result::Group;

/// None.
pub(super) struct Twins;

/// Never made.
pub(super) enum Beside {}

impl Beside {
    pub(super) fn way(&self, _: Pace) -> Way<'_> {
        match *self {}
    }
}

impl Twins {
    /// Says why there are none.
    pub(super) fn start(_: &Bench<'_>, group: &mut Group) -> Self {
        let why = "rte_lpm, rte_lpm6: this program was built without the feature dpdk";
        group.skipped.push(why.to_owned());
        Self
    }

    /// Nothing.
    pub(super) fn beside<F: Family>(
        &self,
        _: &mut Group,
        _: &Routes<F>,
        _: &Addresses<F>,
    ) -> Option<Beside> {
        None
    }
}
