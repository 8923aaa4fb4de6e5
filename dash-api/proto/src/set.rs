//! Whole Set requests: every path and value decoded, every error found, before anything is done.
//!
//! Deletes come first, then replaces, then updates, as gNMI says. A replace and an update both
//! write the whole row; without a value they delete it, as SONiC's server does. JSON at a table's
//! path is an object of rows. In tables that SONiC keeps field by field an update is of the fields that
//! it names.

mod error;
mod status;

use std::collections::{BTreeSet, HashMap};

use dash_model::{Action, ObjectKey, Op, Store, Txn, Warning};
use serde_json::Value;

use crate::gnmi;
use crate::gnmi::typed_value::Value as Typed;
use crate::gnmi::update_result::Operation;
use crate::path::{Agreement, Parts, PathError, full_text};
use crate::row::{RowError, RowValue, decode_row, merge_row};
use crate::schema::has_fields;
use crate::scope::RowScope;

pub use error::{Cause, SetError, UpdateError};
pub use status::{code_of, status};

/// A Set request that is right as far as its rows can be judged alone.
#[derive(Clone, Debug, Default)]
pub struct DecodedSet {
    /// The rows to write and delete; an op's index is the place in `results`.
    pub txn: Txn,
    /// Each path with what was asked for it, in the order done: the body of a SetResponse.
    pub results: Vec<(gnmi::Path, Operation)>,
    /// What was accepted without effect.
    pub warnings: Vec<Warning>,
    /// Deletes of many rows, which only the store can list; see [`DecodedSet::resolve`].
    pub deletes: Vec<WideDelete>,
    /// Ops of the transaction, by place, that write some fields of a row: the others are the store's to
    /// add; see [`DecodedSet::resolve`].
    pub merges: BTreeSet<usize>,
}

/// A delete of the rows that a scope matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WideDelete {
    /// Place in [`DecodedSet::results`].
    pub index: usize,
    /// How many ops of the transaction come before it.
    pub position: usize,
    /// Which rows.
    pub scope: RowScope,
}

/// A request's field, `update[3]`.
pub fn place(op: Operation, op_index: usize) -> String {
    let list = match op {
        Operation::Delete => "delete",
        Operation::Replace => "replace",
        Operation::UnionReplace => "union_replace",
        Operation::Update | Operation::Invalid => "update",
    };
    format!("{list}[{op_index}]")
}

impl DecodedSet {
    /// The transaction with its wide deletes spelt out as the rows `store` has, and rows that it writes
    /// some fields of with the others.
    ///
    /// A wide delete takes effect at its place: what the request writes after it stays.
    pub fn resolve(self, store: &Store) -> Txn {
        if self.deletes.is_empty() && self.merges.is_empty() {
            return self.txn;
        }
        let merges = self.merges;
        // The last op on each row of the tables with fields, where there is something to merge.
        let mut last: HashMap<ObjectKey, usize> = HashMap::new();
        let mut out: Vec<Op> = Vec::with_capacity(self.txn.ops.len());
        let mut deletes = self.deletes.into_iter().peekable();
        let mut ops = self.txn.ops.into_iter().enumerate().peekable();
        loop {
            let position = ops.peek().map_or(usize::MAX, |(n, _)| *n);
            if let Some(delete) = deletes.next_if(|d| d.position <= position) {
                let mut keys = delete.scope.keys(store);
                keys.extend(delete.scope.written(&out));
                for key in keys {
                    if !merges.is_empty() {
                        last.insert(key.clone(), out.len());
                    }
                    out.push(Op::del(delete.index, key));
                }
            } else if let Some((at, mut op)) = ops.next() {
                if merges.contains(&at) {
                    let before = last.get(&op.key).map(|at| &out[*at].action);
                    merge(&mut op, before, store);
                }
                if !merges.is_empty() {
                    last.insert(op.key.clone(), out.len());
                }
                out.push(op);
            } else {
                return Txn { ops: out };
            }
        }
    }
}

/// Adds to a write what its row had: by the op on it before, else in the store.
fn merge(op: &mut Op, before: Option<&Action>, store: &Store) {
    let was = match before {
        None => store.get(&op.key).map(|entry| &entry.raw),
        Some(Action::Set { raw, .. }) => Some(raw),
        Some(Action::Del) => None,
    };
    if let (Some(was), Action::Set { object, raw }) = (was, &mut op.action) {
        let (table, key) = (op.key.table_name(), op.key.key_text().to_string());
        if let Some(row) = merge_row(table, &key, was, raw) {
            (*object, *raw) = (row.object, row.raw);
        }
    }
}

/// Decodes a whole request.
///
/// # Errors
/// All errors found, each with the place and path of its update; the request is refused whole.
pub fn decode_set(request: &gnmi::SetRequest) -> Result<DecodedSet, SetError> {
    let mut decoder = Decoder {
        prefix: request.prefix.as_ref(),
        agreement: Agreement::default(),
        out: DecodedSet::default(),
        errors: SetError::default(),
    };
    for (n, path) in request.delete.iter().enumerate() {
        decoder.step(Operation::Delete, n, Some(path), Decoder::delete);
    }
    let replace = request.replace.iter().map(|u| (Operation::Replace, u));
    let update = request.update.iter().map(|u| (Operation::Update, u));
    for (n, (op, item)) in replace.enumerate().chain(update.enumerate()) {
        decoder.step(op, n, item.path.as_ref(), |decoder, index, path| {
            decoder.write(op, index, path, item)
        });
    }
    for (n, item) in request.union_replace.iter().enumerate() {
        decoder.step(Operation::UnionReplace, n, item.path.as_ref(), |_, _, _| {
            Err(vec![Cause::UnionReplace])
        });
    }
    decoder.errors.finish(decoder.out)
}

/// Stands for the path of an update that has it wholly in the prefix.
#[expect(deprecated, reason = "all fields are named, as `Default` is not const")]
static ROOT: gnmi::Path = gnmi::Path {
    element: Vec::new(),
    origin: String::new(),
    elem: Vec::new(),
    target: String::new(),
};

struct Decoder<'a> {
    prefix: Option<&'a gnmi::Path>,
    agreement: Agreement,
    out: DecodedSet,
    errors: SetError,
}

type Causes = Vec<Cause>;

impl<'a> Decoder<'a> {
    fn step(
        &mut self,
        op: Operation,
        op_index: usize,
        path: Option<&'a gnmi::Path>,
        run: impl FnOnce(&mut Self, usize, &'a gnmi::Path) -> Result<(), Causes>,
    ) {
        let index = self.out.results.len();
        let path = path.unwrap_or(&ROOT);
        let outcome = run(self, index, path);
        self.out.results.push((path.clone(), op));
        for cause in outcome.err().unwrap_or_default() {
            self.errors.push(|| UpdateError {
                index,
                op,
                op_index,
                path: full_text(self.prefix, path),
                cause,
            });
        }
    }

    fn parts(&mut self, path: &'a gnmi::Path) -> Result<(Parts<'a>, &'a str), Causes> {
        let parts = self
            .agreement
            .add_parts(self.prefix, path)
            .map_err(|e| vec![e.into()])?;
        let refused = |error: PathError| vec![Cause::from(error)];
        if !parts.db.takes_set() {
            return Err(refused(PathError::SetDb { db: parts.db }));
        }
        let text = || full_text(self.prefix, path);
        if parts.field.is_some() {
            return Err(refused(PathError::SetField { path: text() }));
        }
        let wild = |part: Option<&str>| matches!(part, Some("*" | "..."));
        match parts.table {
            Some(table) if !wild(Some(table)) && !wild(parts.key) => Ok((parts, table)),
            _ => Err(refused(PathError::Unsupported { path: text() })),
        }
    }

    fn delete(&mut self, index: usize, path: &'a gnmi::Path) -> Result<(), Causes> {
        let (parts, table) = self.parts(path)?;
        let scope = match parts.key {
            None => Some(RowScope::Table(table.into())),
            Some(text) => {
                let key = ObjectKey::parse(table, text)
                    .map_err(|e| vec![RowError::key(table, text, &e).into()])?;
                let scope = RowScope::of_key(&key, text);
                if scope.is_none() {
                    self.out.txn.ops.push(Op::del(index, key));
                }
                scope
            }
        };
        self.out.deletes.extend(scope.map(|scope| WideDelete {
            index,
            position: self.out.txn.ops.len(),
            scope,
        }));
        Ok(())
    }

    fn write(
        &mut self,
        op: Operation,
        index: usize,
        path: &'a gnmi::Path,
        item: &'a gnmi::Update,
    ) -> Result<(), Causes> {
        #[expect(
            deprecated,
            reason = "an old client's value must not turn into a delete"
        )]
        let old_value = item.value.is_some();
        let Some(typed) = &item.val else {
            if old_value {
                return Err(vec![Cause::ValueType { found: "value" }]);
            }
            return self.delete(index, path);
        };
        let (parts, table) = self.parts(path)?;
        let unsupported = || {
            let path = full_text(self.prefix, path);
            vec![PathError::Unsupported { path }.into()]
        };
        let found = match &typed.value {
            Some(Typed::ProtoBytes(bytes)) => {
                let key = parts.key.ok_or_else(unsupported)?;
                return self.row(op, index, table, key, RowValue::Pb(bytes));
            }
            Some(Typed::JsonIetfVal(text) | Typed::JsonVal(text)) => {
                let value: Value = serde_json::from_slice(text).map_err(|e| {
                    vec![Cause::Json {
                        reason: e.to_string(),
                    }]
                })?;
                return match (parts.key, &value) {
                    (Some(key), Value::Object(_) | Value::Array(_)) => {
                        self.row(op, index, table, key, RowValue::Json(&value))
                    }
                    (None, Value::Object(rows)) => self.bulk(op, index, table, rows),
                    _ => Err(vec![Cause::JsonType]),
                };
            }
            Some(Typed::StringVal(_)) => "string_val",
            Some(Typed::IntVal(_)) => "int_val",
            Some(Typed::UintVal(_)) => "uint_val",
            Some(Typed::BoolVal(_)) => "bool_val",
            Some(Typed::BytesVal(_)) => "bytes_val",
            Some(Typed::DoubleVal(_)) => "double_val",
            Some(Typed::LeaflistVal(_)) => "leaflist_val",
            Some(Typed::AnyVal(_)) => "any_val",
            Some(Typed::AsciiVal(_)) => "ascii_val",
            #[expect(deprecated, reason = "named in the error")]
            Some(Typed::FloatVal(_)) => "float_val",
            #[expect(deprecated, reason = "named in the error")]
            Some(Typed::DecimalVal(_)) => "decimal_val",
            None => "empty",
        };
        Err(vec![Cause::ValueType { found }])
    }

    /// `{key: {fields}}` at a table's path.
    fn bulk(
        &mut self,
        op: Operation,
        index: usize,
        table: &str,
        rows: &serde_json::Map<String, Value>,
    ) -> Result<(), Causes> {
        let mut causes = Vec::new();
        for (key, fields) in rows {
            match fields {
                Value::Object(_) | Value::Array(_) => {
                    let outcome = self.row(op, index, table, key, RowValue::Json(fields));
                    causes.extend(outcome.err().into_iter().flatten());
                }
                _ => causes.push(Cause::JsonType),
            }
        }
        if causes.is_empty() {
            Ok(())
        } else {
            Err(causes)
        }
    }

    fn row(
        &mut self,
        op: Operation,
        index: usize,
        table: &str,
        key: &str,
        value: RowValue<'_>,
    ) -> Result<(), Causes> {
        let row = decode_row(table, key, value).map_err(|e| vec![e.into()])?;
        self.out
            .warnings
            .extend(row.warnings.into_iter().map(|text| Warning {
                index,
                key: row.key.clone(),
                text,
            }));
        if op == Operation::Update && has_fields(table) {
            self.out.merges.insert(self.out.txn.ops.len());
        }
        self.out
            .txn
            .ops
            .push(Op::set(index, row.key, row.object, row.raw));
        Ok(())
    }
}
