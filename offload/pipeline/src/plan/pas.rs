//! Valid PAs of VNETs, each as long as a mapping of the VNET names it (A43).

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use dash_wire::tables::PaKey;
use nic_target::Table;

use super::ops::Ops;

/// VNET id and PA.
type Pa = (u16, Ipv4Addr);

/// How many mappings name each PA, and what changed since the rows were written.
#[derive(Clone, Debug, Default)]
pub(super) struct Pas {
    counts: HashMap<Pa, usize>,
    /// Whether a PA that was touched has a row.
    written: BTreeMap<Pa, bool>,
}

impl Pas {
    /// A mapping names the PA.
    pub(super) fn hold(&mut self, vnet: u16, pa: Ipv4Addr) {
        let count = self.counts.entry((vnet, pa)).or_insert(0);
        self.written.entry((vnet, pa)).or_insert(*count > 0);
        *count += 1;
    }

    /// A mapping that named the PA is gone.
    pub(super) fn release(&mut self, vnet: u16, pa: Ipv4Addr) {
        let count = self.counts.get_mut(&(vnet, pa));
        let count = count.expect("a mapping that goes held its PA when it came");
        self.written.entry((vnet, pa)).or_insert(true);
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&(vnet, pa));
        }
    }

    /// Writes the rows that differ.
    pub(super) fn flush(&mut self, ops: &mut Ops) {
        for (pa, written) in std::mem::take(&mut self.written) {
            let key = PaKey {
                vnet: pa.0,
                pad: 0,
                sip: pa.1.octets(),
            };
            match (written, self.counts.contains_key(&pa)) {
                (false, true) => ops.put(Table::PaValidation, &key, &1u32),
                (true, false) => ops.delete(Table::PaValidation, &key),
                (false, false) | (true, true) => {}
            }
        }
    }
}
