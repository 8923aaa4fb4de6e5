//! ACL groups: the first rule of a group that matches a packet.
//!
//! [`classifier`] answers; [`linear`] says what the answer is.

use std::collections::HashSet;
use std::sync::Arc;

use dash_wire::tables::AclKey;
use nic_target::AclRuleRow;
use zerocopy::FromBytes;

use super::MapOps;
use classes::Shared;
use classifier::Classifier;

mod classes;
pub mod classifier;
pub mod linear;
mod ranges;
mod vectors;

/// All groups of a generation, by id.
#[derive(Clone, Debug, Default)]
pub struct Acl {
    groups: Arc<Groups>,
    /// What groups of this and other generations have in common.
    shared: Arc<Shared>,
}

/// Groups by id: control numbers them from 1 up, so nearly all are found by index.
#[derive(Clone, Debug, Default)]
struct Groups {
    near: Vec<Option<Arc<Classifier>>>,
    /// Ids beyond [`NEAR`].
    far: std::collections::BTreeMap<u32, Arc<Classifier>>,
    len: usize,
}

/// Ids below this are places in an array.
const NEAR: u32 = 1 << 16;

impl Groups {
    #[inline]
    fn get(&self, group: u32) -> Option<&Classifier> {
        if group < NEAR {
            return self.near.get(group as usize)?.as_deref();
        }
        self.far.get(&group).map(|group| &**group)
    }

    fn set(&mut self, group: u32, new: Option<Arc<Classifier>>) {
        let some = new.is_some();
        let old = if group < NEAR {
            let at = group as usize;
            if some && self.near.len() <= at {
                self.near.resize(at + 1, None);
            }
            self.near
                .get_mut(at)
                .and_then(|place| std::mem::replace(place, new))
        } else {
            match new {
                Some(new) => self.far.insert(group, new),
                None => self.far.remove(&group),
            }
        };
        self.len += usize::from(some);
        self.len -= usize::from(old.is_some());
    }
}

impl Acl {
    /// No group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.groups.len
    }

    /// There is no group.
    pub fn is_empty(&self) -> bool {
        self.groups.len == 0
    }

    /// Replaces or removes a group.
    pub fn set(&mut self, group: u32, rules: Option<&[AclRuleRow]>) {
        let new = rules.map(|rules| Arc::new(Classifier::sharing(rules, &self.shared)));
        Arc::make_mut(&mut self.groups).set(group, new);
    }

    /// Bytes of memory held; what groups share is counted once.
    pub fn memory(&self) -> usize {
        let groups = self
            .groups
            .near
            .iter()
            .flatten()
            .chain(self.groups.far.values());
        let mut seen = HashSet::new();
        let mut bytes = self.groups.near.len() * size_of::<usize>();
        for group in groups {
            bytes += group.memory();
            let new = group.classes().filter(|c| seen.insert(Arc::as_ptr(c)));
            bytes += new.map(|classes| classes.memory()).sum::<usize>();
        }
        bytes
    }

    /// Row of the first rule that matches.
    pub fn get(&self, key: &AclKey) -> Option<&u32> {
        self.groups.get(key.group)?.first(key)
    }
}

// SAFETY: rows are in classifiers that the table keeps.
unsafe impl MapOps for Acl {
    unsafe fn lookup(&self, key: *const u8) -> *mut u8 {
        // SAFETY: the key of an ACL map has the size of `AclKey` (checked where maps are made).
        let key = unsafe { std::slice::from_raw_parts(key, size_of::<AclKey>()) };
        let row = AclKey::read_from_bytes(key)
            .ok()
            .and_then(|key| self.get(&key).map(std::ptr::from_ref));
        // Programs read it: rows of policy are never written through these addresses.
        row.map_or(std::ptr::null_mut(), |row| row.cast_mut().cast())
    }
}
