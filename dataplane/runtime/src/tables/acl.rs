//! ACL groups: the first rule of a group that matches a packet.
//!
//! [`classifier`] answers; [`linear`] says what the answer is.

use std::collections::HashMap;
use std::sync::Arc;

use dash_wire::tables::AclKey;
use nic_target::AclRuleRow;
use zerocopy::FromBytes;

use super::MapOps;
use classifier::Classifier;

pub mod classifier;
pub mod linear;

/// All groups of a generation, by id.
#[derive(Clone, Debug, Default)]
pub struct Acl {
    /// Keyed by control's own ids, not by packets: the standard hash is only for sizes up to a few
    /// thousand groups and one look-up a stage of a new flow.
    groups: Arc<HashMap<u32, Arc<Classifier>>>,
}

impl Acl {
    /// No group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// There is no group.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Replaces or removes a group.
    pub fn set(&mut self, group: u32, rules: Option<&[AclRuleRow]>) {
        let groups = Arc::make_mut(&mut self.groups);
        match rules {
            Some(rules) => {
                groups.insert(group, Arc::new(Classifier::new(rules)));
            }
            None => {
                groups.remove(&group);
            }
        }
    }

    /// Row of the first rule that matches.
    pub fn get(&self, key: &AclKey) -> Option<&u32> {
        self.groups.get(&key.group)?.first(key)
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
