//! A delta in the making: rows that go, then rows that come.

use std::sync::Arc;

use nic_target::{AclRuleRow, Table, TableDelta, TableOp};
use zerocopy::{Immutable, IntoBytes};

/// Collects changes in any order. The delta has the deletes first, so a key that one object gives
/// up and another takes ends up with the row of the second.
#[derive(Debug, Default)]
pub(super) struct Ops {
    deletes: Vec<TableOp>,
    puts: Vec<TableOp>,
}

impl Ops {
    pub(super) fn put(
        &mut self,
        table: Table,
        key: &(impl IntoBytes + Immutable),
        row: &(impl IntoBytes + Immutable),
    ) {
        self.puts.push(TableOp::Put {
            table,
            key: key.as_bytes().into(),
            value: row.as_bytes().into(),
        });
    }

    /// Writes a row of an array.
    pub(super) fn put_index(
        &mut self,
        table: Table,
        index: u32,
        row: &(impl IntoBytes + Immutable),
    ) {
        self.put(table, &index, row);
    }

    pub(super) fn put_acl(&mut self, group: u32, rules: Arc<[AclRuleRow]>) {
        self.puts.push(TableOp::Acl {
            group,
            rules: Some(rules),
        });
    }

    pub(super) fn delete(&mut self, table: Table, key: &(impl IntoBytes + Immutable)) {
        self.deletes.push(TableOp::Delete {
            table,
            key: key.as_bytes().into(),
        });
    }

    /// Zeroes a row of an array.
    pub(super) fn delete_index(&mut self, table: Table, index: u32) {
        self.delete(table, &index);
    }

    pub(super) fn remove_acl(&mut self, group: u32) {
        self.deletes.push(TableOp::Acl { group, rules: None });
    }

    pub(super) fn into_delta(self) -> TableDelta {
        let mut ops = self.deletes;
        ops.extend(self.puts);
        TableDelta { ops }
    }
}
