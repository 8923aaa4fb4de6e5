//! Get: configuration, result rows, counters.
//!
//! Rows are found on the control thread and printed elsewhere: a table may have millions.

use std::sync::Arc;

use dash_engine::sessions::STATE_TABLE;
use dash_model::ObjectKey;
use dash_proto::gnmi;
use dash_proto::gnmi::get_request::DataType;
use dash_proto::gnmi::typed_value::Value as Typed;
use dash_proto::path::{Agreement, Db, DbPath};
use dash_proto::row_to_json;
use serde_json::{Map, Value};
use tonic::Status;

use super::{counters, whole_text};
use crate::control::Control;
use crate::plane::Plane;

const ROUTING_TYPE: &str = "DASH_ROUTING_TYPE_TABLE";

/// What a path names, not yet printed.
enum Found {
    /// A row of the configuration.
    Row {
        table: String,
        raw: Arc<[u8]>,
        field: Option<String>,
    },
    /// All rows of a table.
    Rows {
        table: String,
        rows: Vec<(String, Arc<[u8]>)>,
    },
    /// State or counters.
    Json(Value),
}

pub(super) async fn get(
    control: &Control,
    request: gnmi::GetRequest,
) -> Result<gnmi::GetResponse, Status> {
    let kind = request.r#type;
    if kind != i32::from(DataType::All) {
        let name = DataType::try_from(kind).map_or("?", |kind| kind.as_str_name());
        return Err(Status::unimplemented(format!(
            "unsupported request type: {name}"
        )));
    }
    let encoding = gnmi::Encoding::try_from(request.encoding).ok().filter(|e| {
        matches!(
            e,
            gnmi::Encoding::Json | gnmi::Encoding::JsonIetf | gnmi::Encoding::Proto
        )
    });
    let Some(encoding) = encoding else {
        let name = gnmi::Encoding::try_from(request.encoding).map_or("?", |e| e.as_str_name());
        return Err(Status::unimplemented(format!(
            "unsupported encoding: {name}"
        )));
    };

    let prefix = request.prefix;
    let mut agreement = Agreement::default();
    let mut wanted = Vec::new();
    for path in &request.path {
        let text = whole_text(prefix.as_ref(), path);
        wanted.push((agreement.add(prefix.as_ref(), path)?, text));
    }
    let find_all = move |plane: &mut Plane| {
        wanted
            .iter()
            .map(|(path, text)| find(plane, path, text))
            .collect::<Result<Vec<_>, _>>()
    };
    let found = control.call(find_all).await??;
    let timestamp = super::now();
    let print = move || {
        let mut notification = Vec::new();
        for ((found, text), path) in found.into_iter().zip(request.path) {
            let value = print(found, encoding, &text)?;
            notification.push(gnmi::Notification {
                timestamp,
                prefix: prefix.clone(),
                update: vec![gnmi::Update {
                    path: Some(path),
                    val: Some(gnmi::TypedValue { value: Some(value) }),
                    ..gnmi::Update::default()
                }],
                ..gnmi::Notification::default()
            });
        }
        Ok(gnmi::GetResponse {
            notification,
            ..gnmi::GetResponse::default()
        })
    };
    tokio::task::spawn_blocking(print)
        .await
        .map_err(|_| Status::internal("an answer could not be printed"))?
}

fn no_table(text: &str) -> Status {
    Status::not_found(format!("Failed to find DB table in path {text}"))
}

fn no_entry(text: &str) -> Status {
    Status::not_found(format!("No valid entry found for path {text}"))
}

fn no_proto(text: &str) -> Status {
    Status::not_found(format!("No proto bytes found for path {text}"))
}

fn find(plane: &mut Plane, path: &DbPath, text: &str) -> Result<(Found, String), Status> {
    let Some(table) = path.table.as_deref() else {
        return Err(Status::unknown(format!(
            "Unsupported path {text}: it names no table"
        )));
    };
    let found = match path.db {
        Db::ApplDb | Db::DpuApplDb => configuration(plane, table, path, text)?,
        Db::ApplStateDb | Db::DpuApplStateDb => Found::Json(result(plane, table, path, text)?),
        Db::CountersDb | Db::DpuCountersDb => {
            let all = counters::table(plane, table).map_err(|e| Status::internal(e.to_string()))?;
            let all = all.ok_or_else(|| no_table(text))?;
            let depth = [path.key.as_deref(), path.field.as_deref()];
            Found::Json(descend(all, depth).ok_or_else(|| no_entry(text))?)
        }
        Db::StateDb | Db::DpuStateDb if table == STATE_TABLE => {
            let rows = plane.sessions();
            if rows.is_empty() {
                return Err(no_table(text));
            }
            let depth = [key_of(path), path.field.as_deref()];
            Found::Json(descend(Value::Object(rows), depth).ok_or_else(|| no_entry(text))?)
        }
        _ => return Err(no_table(text)),
    };
    Ok((found, text.to_owned()))
}

/// The member that the names lead to.
fn descend(mut value: Value, names: [Option<&str>; 2]) -> Option<Value> {
    for name in names.into_iter().flatten() {
        value = value.get_mut(name).map(Value::take)?;
    }
    Some(value)
}

/// A `*` for a key stands for every row.
fn key_of(path: &DbPath) -> Option<&str> {
    path.key.as_deref().filter(|key| *key != "*")
}

fn configuration(plane: &Plane, table: &str, path: &DbPath, text: &str) -> Result<Found, Status> {
    let table_name = table.to_owned();
    let Some(key) = key_of(path) else {
        let rows = plane.engine.rows(table);
        let rows = rows.map(|(key, entry)| (key.key_text().to_string(), Arc::clone(&entry.raw)));
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            return Err(no_table(text));
        }
        return Ok(Found::Rows {
            table: table_name,
            rows,
        });
    };
    let key = ObjectKey::parse(table, key).map_err(|_| no_entry(text))?;
    let raw = plane.engine.get(&key).ok_or_else(|| no_entry(text))?;
    Ok(Found::Row {
        table: table_name,
        raw: Arc::clone(raw),
        field: path.field.clone(),
    })
}

/// What became of rows: `{"result": "0"}`, with a note for those that are only stored.
fn result(plane: &Plane, table: &str, path: &DbPath, text: &str) -> Result<Value, Status> {
    let state = |key: &ObjectKey| plane.engine.result(key).map(|row| row.to_json());
    let Some(name) = key_of(path) else {
        let mut rows = Map::new();
        for (key, _) in plane.engine.rows(table) {
            rows.extend(state(&key).map(|value| (state_key(table, &key), value)));
        }
        return if rows.is_empty() {
            Err(no_table(text))
        } else {
            Ok(Value::Object(rows))
        };
    };
    let name = match table {
        ROUTING_TYPE => name.strip_prefix("ROUTING_TYPE_").unwrap_or(name),
        _ => name,
    };
    let row = ObjectKey::parse(table, name)
        .ok()
        .and_then(|key| state(&key));
    let row = row.ok_or_else(|| no_entry(text))?;
    descend(row, [path.field.as_deref(), None]).ok_or_else(|| no_entry(text))
}

/// The key of a result row: SONiC names those of routing types by the enum.
fn state_key(table: &str, key: &ObjectKey) -> String {
    let text = key.key_text().to_string();
    match table {
        ROUTING_TYPE => format!("ROUTING_TYPE_{}", text.to_uppercase()),
        _ => text,
    }
}

fn print(found: Found, encoding: gnmi::Encoding, text: &str) -> Result<Typed, Status> {
    if encoding == gnmi::Encoding::Proto {
        return match found {
            Found::Row {
                raw, field: None, ..
            } if !is_json(&raw) => Ok(Typed::ProtoBytes(raw.to_vec().into())),
            _ => Err(no_proto(text)),
        };
    }
    let value = match found {
        Found::Row { table, raw, field } => {
            let fields = row_to_json(&table, &raw);
            descend(fields, [field.as_deref(), None]).ok_or_else(|| no_entry(text))?
        }
        Found::Rows { table, rows } => {
            let rows = rows
                .into_iter()
                .map(|(key, raw)| (key, row_to_json(&table, &raw)));
            Value::Object(rows.collect())
        }
        Found::Json(value) => value,
    };
    let bytes = value.to_string().into_bytes().into();
    Ok(match encoding {
        gnmi::Encoding::Json => Typed::JsonVal(bytes),
        _ => Typed::JsonIetfVal(bytes),
    })
}

/// True for rows that were given as JSON and have no message: no message starts like that, as
/// `{` and `[` would be tags of groups.
fn is_json(raw: &[u8]) -> bool {
    matches!(raw.first(), Some(b'{' | b'['))
        && serde_json::from_slice::<serde::de::IgnoredAny>(raw).is_ok()
}
