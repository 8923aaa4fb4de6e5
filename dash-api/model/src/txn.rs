//! What goes into the store and what comes out: transactions and changesets.

use std::sync::Arc;

use crate::key::ObjectKey;
use crate::objects::Object;

/// What to do with one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes the whole row: creates it or replaces what is there.
    Set {
        /// The row's meaning.
        object: Object,
        /// The row's bytes as received; a reader gets the same bytes back.
        raw: Arc<[u8]>,
    },
    /// Removes the row; succeeds when there is none.
    Del,
}

/// One change asked for, with its place in the request for error messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The row.
    pub key: ObjectKey,
    /// What to do with it.
    pub action: Action,
    /// Position in the request or file.
    pub index: usize,
}

impl Op {
    /// Writes a row.
    pub fn set(index: usize, key: ObjectKey, object: Object, raw: impl Into<Arc<[u8]>>) -> Self {
        let raw = raw.into();
        Self {
            key,
            action: Action::Set { object, raw },
            index,
        }
    }

    /// Removes a row.
    pub fn del(index: usize, key: ObjectKey) -> Self {
        Self {
            key,
            action: Action::Del,
            index,
        }
    }
}

/// Changes that happen together or not at all.
///
/// The order of `ops` means nothing (parents may come after their children), except that of
/// several ops on one key the last wins and the others are as if never sent. So `Del` followed by
/// `Set` of a key is an update, not a new object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The changes.
    pub ops: Vec<Op>,
}

impl FromIterator<Op> for Txn {
    fn from_iter<I: IntoIterator<Item = Op>>(ops: I) -> Self {
        Self {
            ops: ops.into_iter().collect(),
        }
    }
}

/// One row as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The row's meaning.
    pub object: Object,
    /// The row's bytes as received.
    pub raw: Arc<[u8]>,
}

/// One row before and after a commit; the two differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The row.
    pub key: ObjectKey,
    /// Before; `None` when the row is new.
    pub old: Option<Entry>,
    /// After; `None` when the row is gone.
    pub new: Option<Entry>,
}

impl Change {
    /// False when only the bytes differ, so that nothing needs to be programmed.
    pub fn changes_meaning(&self) -> bool {
        self.old.as_ref().map(|e| &e.object) != self.new.as_ref().map(|e| &e.object)
    }
}

/// Something accepted that is probably not what was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Position in the request or file.
    pub index: usize,
    /// The row.
    pub key: ObjectKey,
    /// What to know, for a person.
    pub text: String,
}

/// What a commit changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changeset {
    /// Every row that differs, sorted by key; rows that went with their group are listed too.
    pub changes: Vec<Change>,
    /// By index.
    pub warnings: Vec<Warning>,
}

impl Changeset {
    /// True when the store is as it was.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
