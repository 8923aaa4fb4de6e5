//! Commit and revert: write the rows, judge the result, take it back if it is wrong.
//!
//! Writing first makes "the state it would lead to" the state itself: the checks are plain reads
//! of the store, the same whatever order the rows came in.

use std::collections::{HashMap, HashSet};

use super::Store;
use crate::error::{CommitError, OpError, Reason};
use crate::key::ObjectKey;
use crate::objects::Object;
use crate::txn::{Action, Change, Changeset, Entry, Txn, Warning};

/// One row of the transaction after it was written.
pub(super) struct Written {
    pub(super) index: usize,
    pub(super) change: Change,
    /// Went with its group, not by an op of its own.
    pub(super) cascaded: bool,
}

/// Route and ACL groups and meter policies (as keys of their own rows) whose contents the transaction names and that
/// were bound before it.
pub(super) type BoundBefore = HashSet<ObjectKey>;

impl Store {
    /// Validates the whole transaction against the state it would lead to, and applies it.
    ///
    /// Setting a row to what it is and deleting a row that is not there succeed and change
    /// nothing. Deleting a route group or an ACL group deletes its routes or rules, and that of an ENI or a
    /// route group its settings of ours; any other row goes only when no remaining row needs it.
    ///
    /// # Errors
    /// Every item that is wrong, by index; nothing was changed then.
    pub fn commit(&mut self, txn: Txn) -> Result<Changeset, CommitError> {
        let mut errors = Vec::new();
        let ops = self.last_ops(txn, &mut errors);
        let bound = self.bound_before(&ops);
        let written = self.write(ops);

        let mut warnings = Vec::new();
        for row in &written {
            self.check(row, &bound, &mut errors, &mut warnings);
        }
        if !errors.is_empty() {
            for row in written.into_iter().rev() {
                self.put(&row.change.key, row.change.old);
            }
            return Err(refusal(errors));
        }

        let mut changes: Vec<Change> = written
            .into_iter()
            .map(|row| row.change)
            .filter(|change| change.old != change.new)
            .collect();
        changes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        warnings.sort_by(|a: &Warning, b| (a.index, &a.key).cmp(&(b.index, &b.key)));
        Ok(Changeset { changes, warnings })
    }

    /// Takes a commit back because the data plane refused it.
    ///
    /// Commits are taken back in the reverse of their order; the store is then as it was before
    /// the earliest of them.
    pub fn revert(&mut self, changes: &Changeset) {
        for change in changes.changes.iter().rev() {
            let new = self.put(&change.key, change.old.clone());
            debug_assert_eq!(new, change.new, "{} changed since the commit", change.key);
        }
    }

    /// Writes a row, or removes it when there is no entry, and keeps the references in step.
    pub(super) fn put(&mut self, key: &ObjectKey, new: Option<Entry>) -> Option<Entry> {
        // Added before the old ones go, so that counts that stay above zero keep their nodes.
        if let Some(entry) = &new {
            self.refs.add(key, &entry.object);
        }
        let old = self.rows.put(key, new);
        if let Some(entry) = &old {
            self.refs.remove(key, &entry.object);
        }
        old
    }

    /// The op that counts for each key, without those whose key or object cannot be written.
    fn last_ops(&self, txn: Txn, errors: &mut Vec<OpError>) -> Vec<(usize, ObjectKey, Action)> {
        let mut last = HashMap::with_capacity(txn.ops.len());
        for (position, op) in txn.ops.iter().enumerate() {
            last.insert(&op.key, position);
        }
        let counts: HashSet<usize> = last.into_values().collect();
        let mut ops = Vec::with_capacity(counts.len());
        for (position, op) in txn.ops.into_iter().enumerate() {
            if !counts.contains(&position) {
                continue;
            }
            match unwritable(&op.key, &op.action) {
                None => ops.push((op.index, op.key, op.action)),
                Some(reason) => errors.push(OpError {
                    index: op.index,
                    key: op.key,
                    reason,
                }),
            }
        }
        ops
    }

    fn bound_before(&self, ops: &[(usize, ObjectKey, Action)]) -> BoundBefore {
        let mut bound = BoundBefore::new();
        for (_, key, _) in ops {
            let group = match key {
                ObjectKey::Route(group, _) if self.refs.route_group_enis.is_used(group) => {
                    ObjectKey::RouteGroup(group.clone())
                }
                ObjectKey::AclRule(group, _) if self.refs.acl_group_binds.is_used(group) => {
                    ObjectKey::AclGroup(group.clone())
                }
                ObjectKey::MeterRule(policy, _) if self.refs.meter_policy_enis.is_used(policy) => {
                    ObjectKey::MeterPolicy(policy.clone())
                }
                _ => continue,
            };
            bound.insert(group);
        }
        bound
    }

    fn write(&mut self, ops: Vec<(usize, ObjectKey, Action)>) -> Vec<Written> {
        let mut deleted_owners = Vec::new();
        let mut written = Vec::with_capacity(ops.len());
        for (index, key, action) in ops {
            let new = match action {
                Action::Set { object, raw } => Some(Entry { object, raw }),
                Action::Del => None,
            };
            let old = if self.get(&key) == new.as_ref() {
                new.clone()
            } else {
                self.put(&key, new.clone())
            };
            let owns = matches!(
                key,
                ObjectKey::RouteGroup(_) | ObjectKey::AclGroup(_) | ObjectKey::Eni(_)
            );
            if owns && old.is_some() && new.is_none() {
                deleted_owners.push((index, key.clone()));
            }
            written.push(Written {
                index,
                change: Change { key, old, new },
                cascaded: false,
            });
        }
        if !deleted_owners.is_empty() {
            self.write_cascades(&deleted_owners, &mut written);
        }
        written
    }

    /// Removes the contents of deleted groups, and the settings of what is gone. A row that the
    /// transaction wrote into one goes too: it is about to be refused for the want of its group.
    fn write_cascades(&mut self, owners: &[(usize, ObjectKey)], written: &mut Vec<Written>) {
        let mut gone = Vec::new();
        for (index, owner) in owners {
            match owner {
                ObjectKey::RouteGroup(id) => {
                    gone.extend(
                        self.routes(id)
                            .map(|(prefix, _)| (*index, ObjectKey::Route(id.clone(), prefix))),
                    );
                    let settings = ObjectKey::RouteGroupSettings(id.clone());
                    gone.extend(self.get(&settings).map(|_| (*index, settings.clone())));
                }
                ObjectKey::Eni(eni) => {
                    let settings = ObjectKey::EniSettings(eni.clone());
                    gone.extend(self.get(&settings).map(|_| (*index, settings.clone())));
                }
                ObjectKey::AclGroup(id) => gone.extend(
                    self.acl_rules(id)
                        .map(|(rule, _)| (*index, ObjectKey::AclRule(id.clone(), rule.clone()))),
                ),
                _ => {}
            }
        }
        for (index, key) in gone {
            let old = self.put(&key, None);
            written.push(Written {
                index,
                change: Change {
                    key,
                    old,
                    new: None,
                },
                cascaded: true,
            });
        }
    }
}

/// Why a row cannot even be written for judging.
fn unwritable(key: &ObjectKey, action: &Action) -> Option<Reason> {
    if let Err(error) = key.check() {
        return Some(Reason::Key(error));
    }
    let Action::Set { object, .. } = action else {
        return None;
    };
    (object.table() != key.table()).then(|| Reason::WrongObject {
        found: match object {
            Object::Opaque => "a table that is only stored",
            _ => object.table().map_or("no table", |t| t.name()),
        },
    })
}

/// Sorts and caps the errors.
fn refusal(mut errors: Vec<OpError>) -> CommitError {
    errors.sort_by(|a, b| (a.index, &a.key).cmp(&(b.index, &b.key)));
    let omitted = errors.len().saturating_sub(CommitError::CAP);
    errors.truncate(CommitError::CAP);
    CommitError { errors, omitted }
}
