//! Flow dump sessions, as rows ask for them: `DASH_FLOW_SYNC_SESSION_TABLE` and
//! `DASH_FLOW_DUMP_FILTER_TABLE`, plain text fields both.
//!
//! A session is an order, not a state: it is taken out of the transaction and handed to whoever
//! writes files ([`Commit::dumps`](crate::Commit::dumps)), so no row of it stays, and there is nothing
//! to delete. Filters are rows like others, read when a session names them.

use std::sync::Arc;
use std::time::Duration;

use dash_model::{Action, ObjectKey, Op, Store, Txn};
use serde_json::Value;
use thiserror::Error;

use crate::flows::{Filter, FilterError};

/// Sessions.
pub const SESSION_TABLE: &str = "DASH_FLOW_SYNC_SESSION_TABLE";
/// Filters that they name.
pub const FILTER_TABLE: &str = "DASH_FLOW_DUMP_FILTER_TABLE";
/// What came of sessions, read by clients.
pub const STATE_TABLE: &str = "DASH_FLOW_SYNC_SESSION_STATE_TABLE";

/// Most filters of a session.
const FILTERS: usize = 5;
const MAX_FLOWS: usize = 1000;
const TIMEOUT: Duration = Duration::from_secs(300);

/// An order for a file of flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowDump {
    /// The session's name.
    pub session: Arc<str>,
    /// All must hold of one direction.
    pub filters: Vec<Filter>,
    /// Most lines.
    pub max_flows: usize,
    /// With what was decided and counted; else keys alone.
    pub state: bool,
    /// After so long it has failed.
    pub timeout: Duration,
}

/// Why a session or filter is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{table}:{key}: {why}")]
pub struct SessionError {
    /// Table of the row.
    pub table: &'static str,
    /// Its key.
    pub key: Arc<str>,
    /// What is wrong.
    pub why: Refusal,
}

/// What is wrong with a session or filter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum Refusal {
    #[error("it is not an object of text fields")]
    NotFields,
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    #[error("{0}")]
    Filter(#[from] FilterError),
    #[error("field `{field}` is `{value}`, not {wants}")]
    Value {
        field: &'static str,
        value: String,
        wants: &'static str,
    },
    #[error("there is no filter `{0}`")]
    NoFilter(String),
    #[error("bulk_sync is of high availability, which this release does not have")]
    BulkSync,
    #[error("a session ends by itself and cannot be deleted")]
    Delete,
}

/// True for a row that acts although the store knows nothing of its table.
pub(crate) fn acts(table: &str) -> bool {
    [SESSION_TABLE, FILTER_TABLE].contains(&table)
}

/// Takes the sessions out of a transaction.
///
/// # Errors
/// The first row of either table that is wrong.
pub(crate) fn take(txn: &mut Txn, store: &Store) -> Result<Vec<FlowDump>, SessionError> {
    if !txn
        .ops
        .iter()
        .any(|op| row(op, SESSION_TABLE).is_some() || row(op, FILTER_TABLE).is_some())
    {
        return Ok(Vec::new());
    }
    for op in &txn.ops {
        if let (Some(key), Action::Set { raw, .. }) = (row(op, FILTER_TABLE), &op.action) {
            filter(raw).map_err(|why| refused(FILTER_TABLE, key, why))?;
        }
    }
    let mut dumps = Vec::new();
    for op in &txn.ops {
        let Some(key) = row(op, SESSION_TABLE) else {
            continue;
        };
        let find = |name: &str| found(txn, store, name);
        let dump = match &op.action {
            Action::Set { raw, .. } => session(key, raw, find),
            Action::Del => Err(Refusal::Delete),
        };
        dumps.push(dump.map_err(|why| refused(SESSION_TABLE, key, why))?);
    }
    txn.ops.retain(|op| row(op, SESSION_TABLE).is_none());
    Ok(dumps)
}

fn refused(table: &'static str, key: &Arc<str>, why: Refusal) -> SessionError {
    SessionError {
        table,
        key: Arc::clone(key),
        why,
    }
}

/// The key of an op on a table.
fn row<'a>(op: &'a Op, table: &str) -> Option<&'a Arc<str>> {
    match &op.key {
        ObjectKey::Opaque(of, key) if &**of == table => Some(key),
        _ => None,
    }
}

/// A filter's row: the transaction's, else the store's.
fn found(txn: &Txn, store: &Store, name: &str) -> Option<Arc<[u8]>> {
    let last = txn
        .ops
        .iter()
        .rev()
        .find(|op| row(op, FILTER_TABLE).is_some_and(|key| &**key == name));
    match last.map(|op| &op.action) {
        Some(Action::Set { raw, .. }) => Some(Arc::clone(raw)),
        Some(Action::Del) => None,
        None => {
            let key = ObjectKey::Opaque(FILTER_TABLE.into(), name.into());
            store.get(&key).map(|entry| Arc::clone(&entry.raw))
        }
    }
}

struct Fields(Value);

impl Fields {
    fn read(raw: &[u8]) -> Result<Self, Refusal> {
        let value: Value = serde_json::from_slice(raw).map_err(|_| Refusal::NotFields)?;
        if value.is_object() {
            Ok(Self(value))
        } else {
            Err(Refusal::NotFields)
        }
    }

    /// Text of a field, whatever scalar it was given as.
    fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
            Some(_) => Err(Refusal::NotFields),
        }
    }

    fn must(&self, name: &'static str) -> Result<String, Refusal> {
        self.text(name)?.ok_or(Refusal::Missing(name))
    }

    fn number(&self, name: &'static str, default: u64) -> Result<u64, Refusal> {
        let Some(text) = self.text(name)? else {
            return Ok(default);
        };
        let number = text.parse().ok().filter(|n| *n > 0);
        number.ok_or(Refusal::Value {
            field: name,
            value: text,
            wants: "a number above 0",
        })
    }
}

fn filter(raw: &[u8]) -> Result<Filter, Refusal> {
    let fields = Fields::read(raw)?;
    let (key, op, value) = (
        fields.must("key")?,
        fields.must("op")?,
        fields.must("value")?,
    );
    Ok(Filter::parse(&key, &op, &value)?)
}

fn session(
    key: &Arc<str>,
    raw: &[u8],
    find: impl Fn(&str) -> Option<Arc<[u8]>>,
) -> Result<FlowDump, Refusal> {
    let fields = Fields::read(raw)?;
    match fields.must("type")?.as_str() {
        "flow_dump" => {}
        "bulk_sync" => return Err(Refusal::BulkSync),
        other => {
            return Err(Refusal::Value {
                field: "type",
                value: other.to_owned(),
                wants: "flow_dump or bulk_sync",
            });
        }
    }
    let state = match fields.text("flow_state")?.as_deref() {
        None | Some("false" | "0") => false,
        Some("true" | "1") => true,
        Some(other) => {
            return Err(Refusal::Value {
                field: "flow_state",
                value: other.to_owned(),
                wants: "true or false",
            });
        }
    };
    let mut filters = Vec::new();
    for nth in 1..=FILTERS {
        let name = fields.text(&format!("filter_{nth}"))?;
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            let raw = find(&name).ok_or(Refusal::NoFilter(name))?;
            filters.push(filter(&raw)?);
        }
    }
    let most = fields.number("max_flows", MAX_FLOWS as u64)?;
    Ok(FlowDump {
        session: Arc::clone(key),
        filters,
        max_flows: usize::try_from(most).unwrap_or(usize::MAX),
        state,
        timeout: Duration::from_secs(fields.number("timeout", TIMEOUT.as_secs())?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dash_model::StoreOptions;
    use dash_model::objects::Object;

    fn txn(rows: &[(&str, &str, Option<&str>)]) -> Txn {
        let op = |(nth, (table, key, raw)): (usize, &(&str, &str, Option<&str>))| {
            let key = ObjectKey::Opaque((*table).into(), (*key).into());
            match raw {
                Some(raw) => Op::set(nth, key, Object::Opaque, raw.as_bytes()),
                None => Op::del(nth, key),
            }
        };
        rows.iter().enumerate().map(op).collect()
    }

    fn taken(rows: &[(&str, &str, Option<&str>)]) -> Result<Vec<FlowDump>, String> {
        let store = Store::new(StoreOptions::default());
        take(&mut txn(rows), &store).map_err(|error| error.to_string())
    }

    const VERSION: &str = r#"{"key": "key_version", "op": "equal_to", "value": "4"}"#;

    #[test]
    fn a_session_names_filters_of_its_transaction_and_leaves_it() {
        let rows = [
            (
                SESSION_TABLE,
                "s",
                Some(r#"{"type": "flow_dump", "flow_state": "true", "filter_1": "f"}"#),
            ),
            (FILTER_TABLE, "f", Some(VERSION)),
        ];
        let dumps = taken(&rows).expect("a right session");
        assert_eq!(dumps.len(), 1);
        assert_eq!(
            (dumps[0].filters.len(), dumps[0].max_flows, dumps[0].state),
            (1, 1000, true)
        );
        assert_eq!(dumps[0].timeout, Duration::from_secs(300));
        let mut txn = txn(&rows);
        let store = Store::new(StoreOptions::default());
        take(&mut txn, &store).expect("a right session");
        assert_eq!(txn.ops.len(), 1, "the filter stays");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_row() {
        for (rows, wants) in [
            (vec![(SESSION_TABLE, "s", None)], "cannot be deleted"),
            (vec![(SESSION_TABLE, "s", Some("[]"))], "text fields"),
            (vec![(SESSION_TABLE, "s", Some("{}"))], "`type` is missing"),
            (
                vec![(SESSION_TABLE, "s", Some(r#"{"type": "bulk_sync"}"#))],
                "high availability",
            ),
            (
                vec![(SESSION_TABLE, "s", Some(r#"{"type": "x"}"#))],
                "flow_dump or bulk_sync",
            ),
            (
                vec![(
                    SESSION_TABLE,
                    "s",
                    Some(r#"{"type": "flow_dump", "filter_5": "f"}"#),
                )],
                "no filter `f`",
            ),
            (
                vec![(
                    SESSION_TABLE,
                    "s",
                    Some(r#"{"type": "flow_dump", "max_flows": "0"}"#),
                )],
                "a number above 0",
            ),
            (
                vec![(
                    SESSION_TABLE,
                    "s",
                    Some(r#"{"type": "flow_dump", "flow_state": "x"}"#),
                )],
                "true or false",
            ),
            (
                vec![(FILTER_TABLE, "f", Some(r#"{"key": "vni"}"#))],
                "`op` is missing",
            ),
            (
                vec![(
                    FILTER_TABLE,
                    "f",
                    Some(r#"{"key": "vni", "op": "equal_to", "value": "1"}"#),
                )],
                "no field to filter by",
            ),
        ] {
            let error = taken(&rows).expect_err(wants);
            let row = format!("{}:{}", rows[0].0, rows[0].1);
            assert!(error.starts_with(&row) && error.contains(wants), "{error}");
        }
    }
}
