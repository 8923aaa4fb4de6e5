//! ACL groups: the first rule of a group that matches a packet.
//!
//! [`classifier`] answers; [`linear`] says what the answer is. Of the groups that an ENI binds for its
//! stages the first asks for the memory of all ([`chains`]), so that five look-ups in memory that is not
//! in the cache wait about as long as one.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use dash_wire::tables::AclKey;
use nic_target::AclRuleRow;
use zerocopy::FromBytes;

use super::MapOps;
pub use chains::Binding;
use chains::Followers;
use classes::Shared;
use classifier::Classifier;

mod chains;
mod classes;
pub mod classifier;
pub mod linear;
mod ranges;
mod vectors;

/// All groups of a generation, by id.
#[derive(Clone, Debug, Default)]
pub struct Acl {
    groups: Arc<Groups>,
    /// Whose memory is asked for with whose.
    followers: Arc<Followers>,
    /// What groups of this and other generations have in common.
    shared: Arc<Shared>,
}

/// Groups by id: control numbers them from 1 up, so nearly all are found by index.
#[derive(Clone, Debug, Default)]
struct Groups {
    near: Vec<Place>,
    /// Ids beyond [`NEAR`].
    far: BTreeMap<u32, Place>,
    len: usize,
}

/// A group, when there is one, and those that are asked next.
#[derive(Clone, Debug, Default)]
struct Place {
    group: Option<Arc<Classifier>>,
    followers: Option<Arc<[u32]>>,
}

/// Ids below this are places in an array.
const NEAR: u32 = 1 << 16;

impl Groups {
    #[inline]
    fn place(&self, group: u32) -> Option<&Place> {
        if group < NEAR {
            return self.near.get(group as usize);
        }
        self.far.get(&group)
    }

    #[inline]
    fn get(&self, group: u32) -> Option<&Classifier> {
        self.place(group)?.group.as_deref()
    }

    fn place_mut(&mut self, group: u32) -> &mut Place {
        let at = group as usize;
        if group >= NEAR {
            return self.far.entry(group).or_default();
        }
        if self.near.len() <= at {
            self.near.resize(at + 1, Place::default());
        }
        &mut self.near[at]
    }

    fn set(&mut self, group: u32, new: Option<Arc<Classifier>>) {
        if new.is_none() && self.get(group).is_none() {
            return;
        }
        let some = new.is_some();
        let place = self.place_mut(group);
        let old = std::mem::replace(&mut place.group, new);
        if place.group.is_none() && place.followers.is_none() {
            self.far.remove(&group);
        }
        self.len += usize::from(some);
        self.len -= usize::from(old.is_some());
    }

    fn follow(&mut self, followers: &Followers) {
        let places = self.near.iter_mut().chain(self.far.values_mut());
        places.for_each(|place| place.followers = None);
        for (group, then) in followers {
            self.place_mut(*group).followers = Some(then.as_slice().into());
        }
        let used = |place: &Place| place.group.is_some() || place.followers.is_some();
        self.far.retain(|_, place| used(place));
    }

    fn classifiers(&self) -> impl Iterator<Item = &Arc<Classifier>> {
        let places = self.near.iter().chain(self.far.values());
        places.filter_map(|place| place.group.as_ref())
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

    /// Whether [`bind`](Self::bind) has been told of the same rows.
    pub fn binds(&self, bindings: &[Binding]) -> bool {
        *self.followers == chains::followers(bindings)
    }

    /// Tells which groups are looked up one after the other, so that the first look-up asks for the
    /// memory of all. Answers do not depend on it.
    pub fn bind(&mut self, bindings: &[Binding]) {
        let followers = chains::followers(bindings);
        Arc::make_mut(&mut self.groups).follow(&followers);
        self.followers = Arc::new(followers);
    }

    /// Bytes of memory held; what groups share is counted once.
    pub fn memory(&self) -> usize {
        let mut seen = HashSet::new();
        let mut bytes = self.groups.near.len() * size_of::<Place>();
        for group in self.groups.classifiers() {
            bytes += group.memory();
            let new = group.classes().filter(|c| seen.insert(Arc::as_ptr(c)));
            bytes += new.map(|classes| classes.memory()).sum::<usize>();
        }
        bytes
    }

    /// Row of the first rule that matches.
    #[inline]
    pub fn get(&self, key: &AclKey) -> Option<&u32> {
        let place = self.groups.place(key.group)?;
        let group = place.group.as_deref()?;
        if let Some(followers) = place.followers.as_deref() {
            group.prefetch(key);
            let followers = followers.iter().filter_map(|group| self.groups.get(*group));
            followers.for_each(|group| group.prefetch(key));
        }
        group.first(key)
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
