//! DPDK's tables, in builds with DPDK.

use dash_tablebench::routes::{Addresses, Beside, Family, Routes};
use nic_dpdk::Eal;

use super::Bench;
use crate::result::Group;

/// What DPDK's tables need.
pub(super) struct Twins(Option<Eal>);

impl Twins {
    /// Starts EAL, which a process can do once.
    pub(super) fn start(bench: &Bench<'_>, group: &mut Group) -> Self {
        let words = [
            "--no-huge",
            "--no-pci",
            "--no-telemetry",
            "--no-shconf",
            &format!("--file-prefix=tables{}", std::process::id()),
            "-m",
            bench.options.scale("640", "3072"),
        ];
        match Eal::init(&words.map(str::to_owned)) {
            Ok(eal) => Self(Some(eal)),
            Err(why) => {
                group.skipped.push(format!("rte_lpm, rte_lpm6: {why}"));
                Self(None)
            }
        }
    }

    /// The same routes and addresses.
    pub(super) fn beside<F: Family>(
        &self,
        group: &mut Group,
        table: &Routes<F>,
        addresses: &Addresses<F>,
    ) -> Option<Beside<F>> {
        self.0.as_ref()?;
        let beside = table.beside(addresses);
        let skipped = |why| group.skipped.push(format!("{}: {why}", F::TWIN));
        beside.map_err(skipped).ok()
    }
}
