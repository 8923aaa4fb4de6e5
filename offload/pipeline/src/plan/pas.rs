//! Valid PAs of VNETs, each as long as a mapping of the VNET names it (A43).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use dash_model::Store;
use dash_model::key::{ObjectKey, SourcePrefix};
use dash_model::net::Vni;
use dash_model::objects::Object;
use dash_wire::tables::{PaKey, PaPrefixKey};
use nic_target::Table;

use super::Edit;
use super::ids::Directory;
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

/// Sources that are listed for every VNET of a VNI, as they were written.
#[derive(Clone, Debug, Default)]
pub(super) struct Permits {
    written: BTreeMap<Vni, BTreeSet<(u16, SourcePrefix)>>,
}

impl Permits {
    /// Brings the rows of the VNIs that edits are about up to date. A VNET costs a look-up where
    /// nothing is listed for its VNI.
    pub(super) fn update(
        &mut self,
        store: &Store,
        ids: &Directory,
        edits: &[Edit<'_>],
        ops: &mut Ops,
    ) {
        let mut touched = BTreeSet::new();
        for edit in edits {
            match edit.key {
                ObjectKey::PaValidation(vni) => drop(touched.insert(*vni)),
                ObjectKey::Vnet(_) => {
                    for object in [edit.old, edit.new].into_iter().flatten() {
                        if let Object::Vnet(vnet) = object
                            && (self.written.contains_key(&vnet.vni)
                                || store.pa_validation(vnet.vni).is_some())
                        {
                            touched.insert(vnet.vni);
                        }
                    }
                }
                _ => {}
            }
        }
        for vni in touched {
            let listed = store
                .pa_validation(vni)
                .map_or(&[][..], |row| &row.prefixes);
            let vnets = store.vnets().filter(|(_, vnet)| vnet.vni == vni);
            let vnets = vnets.map(|(name, _)| ids.vnet(name));
            let wanted: BTreeSet<(u16, SourcePrefix)> = vnets
                .flat_map(|vnet| listed.iter().map(move |prefix| (vnet, *prefix)))
                .collect();
            let old = self.written.remove(&vni).unwrap_or_default();
            for gone in old.difference(&wanted) {
                ops.delete(Table::PaPrefix, &permit_key(*gone));
            }
            for new in wanted.difference(&old) {
                ops.put(Table::PaPrefix, &permit_key(*new), &1u32);
            }
            if !wanted.is_empty() {
                self.written.insert(vni, wanted);
            }
        }
    }
}

fn permit_key((vnet, prefix): (u16, SourcePrefix)) -> PaPrefixKey {
    PaPrefixKey {
        prefix_len: 32 + u32::from(prefix.len),
        vnet: vnet.into(),
        sip: prefix.addr.octets(),
    }
}
