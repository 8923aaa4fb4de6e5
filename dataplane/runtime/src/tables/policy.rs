//! The policy tables of one generation, and how the next one's are made from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dash_bpf::{MapDef, MapKind};
use dash_wire::abi::MapHandle;
use dash_wire::tables::EniRow;
use nic_target::tables::Discipline;
use nic_target::{Capacity, Table, TableDelta, TableOp, TargetError};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Handled;
use super::acl::{Acl, Binding};
use super::array::{Array, PolicyArray};
use super::lpm::Lpm;
use super::policy_hash::PolicyHash;

/// One policy table.
#[derive(Clone, Debug)]
pub enum PolicyMap {
    /// Rows by index.
    Array(Handled<PolicyArray>),
    /// Rows by key.
    Hash(Handled<PolicyHash>),
    /// Rows by prefix.
    Lpm(Handled<Lpm>),
    /// ACL groups.
    Acl(Handled<Acl>),
}

impl PolicyMap {
    fn new(def: &MapDef) -> Option<Self> {
        match def.kind {
            MapKind::Array => Some(Self::Array(Handled::new(PolicyArray::new(def)))),
            MapKind::Hash => Some(Self::Hash(Handled::new(PolicyHash::new(def)))),
            MapKind::LpmTrie => Some(Self::Lpm(Handled::new(Lpm::new(def)))),
            MapKind::Acl => Some(Self::Acl(Handled::new(Acl::new()))),
            _ => None,
        }
    }

    /// What programs hold as the map's address.
    pub fn handle(&self) -> *const MapHandle {
        match self {
            Self::Array(map) => map.handle(),
            Self::Hash(map) => map.handle(),
            Self::Lpm(map) => map.handle(),
            Self::Acl(map) => map.handle(),
        }
    }

    /// The elements, when it is an array.
    pub fn array(&self) -> Option<&Array> {
        match self {
            Self::Array(map) => Some(map.array()),
            _ => None,
        }
    }

    /// Bytes of memory held, what other generations share included.
    pub fn memory(&self) -> usize {
        match self {
            Self::Array(map) => map.array().size(),
            Self::Hash(map) => map.memory(),
            Self::Lpm(map) => map.memory(),
            Self::Acl(map) => map.memory(),
        }
    }

    /// Rows that count against the capacity; arrays have no such limit.
    fn rows(&self) -> usize {
        match self {
            Self::Array(_) => 0,
            Self::Hash(map) => map.len(),
            Self::Lpm(map) => map.len(),
            Self::Acl(map) => map.len(),
        }
    }
}

/// The policy tables of a generation: cheap to clone, shared until changed.
#[derive(Clone, Debug)]
pub struct PolicyTables {
    defs: Arc<[MapDef]>,
    /// By table number; `None` for tables that are not policy.
    maps: Vec<Option<Arc<PolicyMap>>>,
}

impl PolicyTables {
    /// Empty tables.
    pub fn new(capacity: &Capacity) -> Self {
        let defs: Arc<[MapDef]> = nic_target::tables::map_defs(capacity).into();
        let policy = |table: &Table| table.discipline() == Discipline::Policy;
        let maps = Table::ALL.iter().zip(defs.iter());
        let maps = maps
            .map(|(table, def)| policy(table).then(|| PolicyMap::new(def).map(Arc::new))?)
            .collect();
        Self { defs, maps }
    }

    /// Definitions of all tables, policy or not, by table number.
    pub fn defs(&self) -> &[MapDef] {
        &self.defs
    }

    /// A policy table.
    pub fn map(&self, table: Table) -> Option<&PolicyMap> {
        self.maps.get(table.index() as usize)?.as_deref()
    }

    /// A copy of the row that a key finds, as a program's look-up would; `None` without one, and for
    /// a key or row of another size than the table's.
    pub fn row<K, V>(&self, table: Table, key: &K) -> Option<V>
    where
        K: IntoBytes + Immutable,
        V: FromBytes,
    {
        let def = self.defs.get(table.index() as usize)?;
        let sizes = (def.key_size as usize, def.value_size as usize);
        if sizes != (size_of::<K>(), size_of::<V>()) {
            return None;
        }
        let handle = self.map(table)?.handle();
        // SAFETY: the handle is of a map that `self` keeps; the key has the map's size.
        let row = unsafe { ((*handle).lookup)(handle, key.as_bytes().as_ptr()) };
        if row.is_null() {
            return None;
        }
        // SAFETY: a look-up's result points to the value's bytes (`MapOps`), which nobody writes.
        let bytes = unsafe { std::slice::from_raw_parts(row, sizes.1) };
        V::read_from_bytes(bytes).ok()
    }

    /// Bytes of memory each table holds, what other generations share included. Takes time in
    /// proportion to the routes.
    pub fn memory(&self) -> BTreeMap<Table, usize> {
        let maps = Table::ALL.iter().zip(&self.maps);
        maps.filter_map(|(table, map)| Some((*table, map.as_ref()?.memory())))
            .collect()
    }

    /// These tables after a delta. `self` is unchanged, and so is every row it shares, so an error
    /// half way through leaves nothing behind.
    ///
    /// # Errors
    /// A row of the wrong size, an index out of range, a table that control does not write, or one
    /// that ends up with more rows than its capacity.
    pub fn after(&self, delta: &TableDelta) -> Result<Self, TargetError> {
        let mut next = self.clone();
        let mut touched = BTreeSet::new();
        for op in &delta.ops {
            touched.insert(next.op(op)?);
        }
        if touched.contains(&Table::Eni) {
            next.bind_acls();
        }
        for table in touched {
            let capacity = next.defs[table.index() as usize].max_entries;
            if next
                .map(table)
                .is_some_and(|map| map.rows() > capacity as usize)
            {
                return Err(TargetError::TableFull { table, capacity });
            }
        }
        Ok(next)
    }

    fn op(&mut self, op: &TableOp) -> Result<Table, TargetError> {
        match op {
            TableOp::Put { table, key, value } => {
                let (def, map) = self.map_mut(*table)?;
                check(*table, "key", key, def.key_size)?;
                check(*table, "value", value, def.value_size)?;
                match map {
                    PolicyMap::Array(map) => write(map, *table, key, value)?,
                    PolicyMap::Hash(map) => {
                        map.put(key, value);
                    }
                    PolicyMap::Lpm(map) => {
                        if !map.put(key, value) {
                            return Err(bad_prefix(*table, key, def.key_size));
                        }
                    }
                    PolicyMap::Acl(_) => return Err(TargetError::NotPolicy { table: *table }),
                }
                Ok(*table)
            }
            TableOp::Delete { table, key } => {
                let (def, map) = self.map_mut(*table)?;
                check(*table, "key", key, def.key_size)?;
                match map {
                    PolicyMap::Array(map) => {
                        write(map, *table, key, &vec![0; def.value_size as usize])?
                    }
                    PolicyMap::Hash(map) => {
                        map.remove(key);
                    }
                    PolicyMap::Lpm(map) => {
                        map.remove(key);
                    }
                    PolicyMap::Acl(_) => return Err(TargetError::NotPolicy { table: *table }),
                }
                Ok(*table)
            }
            TableOp::Acl { group, rules } => {
                let (_, map) = self.map_mut(Table::Acl)?;
                if let PolicyMap::Acl(acl) = map {
                    acl.set(*group, rules.as_deref());
                }
                Ok(Table::Acl)
            }
        }
    }

    /// Tells the ACL groups which of them ENIs bind in a row. It reads what the change of an ENI's
    /// row has just copied: all rows.
    fn bind_acls(&mut self) {
        let enis = self.map(Table::Eni).and_then(PolicyMap::array);
        let rows = enis.into_iter().flat_map(|enis| {
            (0..enis.entries()).filter_map(|index| {
                let mut row = EniRow::default();
                enis.read(index, row.as_mut_bytes()).then_some(row)
            })
        });
        let mut bindings: Vec<Binding> = rows.flat_map(|row| row.acl).collect();
        bindings.retain(|groups| *groups != Binding::default());
        bindings.sort_unstable();
        bindings.dedup();
        let known = |map: &PolicyMap| matches!(map, PolicyMap::Acl(acl) if acl.binds(&bindings));
        if self.map(Table::Acl).is_none_or(known) {
            return;
        }
        if let Ok((_, PolicyMap::Acl(acl))) = self.map_mut(Table::Acl) {
            acl.bind(&bindings);
        }
    }

    /// A private copy of a table to change.
    fn map_mut(&mut self, table: Table) -> Result<(&MapDef, &mut PolicyMap), TargetError> {
        let index = table.index() as usize;
        match (self.defs.get(index), self.maps.get_mut(index)) {
            (Some(def), Some(Some(map))) => Ok((def, Arc::make_mut(map))),
            _ => Err(TargetError::NotPolicy { table }),
        }
    }
}

fn check(table: Table, part: &'static str, bytes: &[u8], want: u32) -> Result<(), TargetError> {
    let (got, want) = (bytes.len(), want as usize);
    if got == want {
        Ok(())
    } else {
        Err(TargetError::RowSize {
            table,
            part,
            got,
            want,
        })
    }
}

/// A prefix longer than its address: the key would need more bytes.
fn bad_prefix(table: Table, key: &[u8], key_size: u32) -> TargetError {
    let bits = key.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
    let got = size_of::<u32>() + bits.div_ceil(8) as usize;
    TargetError::RowSize {
        table,
        part: "prefix",
        got,
        want: key_size as usize,
    }
}

fn write(map: &mut PolicyArray, table: Table, key: &[u8], value: &[u8]) -> Result<(), TargetError> {
    // The key of an array is checked to have 4 bytes before this.
    let index = key
        .first_chunk()
        .map_or(u32::MAX, |b| u32::from_ne_bytes(*b));
    if map.write(index, value) {
        Ok(())
    } else {
        Err(TargetError::BadIndex { table, index })
    }
}
