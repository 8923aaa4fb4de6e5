//! One row: table, key text and value to a validated object of the model.

use std::sync::Arc;

use dash_model::key::KeyError;
use dash_model::objects::Object;
use dash_model::{Kind as ModelKind, ObjectKey};
use prost::Message;
use prost_reflect::DynamicMessage;
use thiserror::Error;

use crate::{convert, json, schema};

/// A row's value as it came in.
#[derive(Clone, Copy, Debug)]
pub enum RowValue<'a> {
    /// The table's protobuf message, encoded; empty means every field at its default.
    Pb(&'a [u8]),
    /// The row in one of the JSON dialects (see [`crate::json`]).
    Json(&'a serde_json::Value),
}

/// A row that is right as far as it can be judged alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedRow {
    /// The row's name. An inbound rule without a priority in its key text has here the priority
    /// of its message (choice A47).
    pub key: ObjectKey,
    /// What the row says; [`Object::Opaque`] for a row that is only stored.
    pub object: Object,
    /// The protobuf bytes as received, or encoded from JSON. A JSON row of a table without a
    /// message is kept as its JSON text.
    pub raw: Arc<[u8]>,
    /// What was accepted without effect, one sentence each.
    pub warnings: Vec<String>,
}

/// Class of a [`RowError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The bytes are not the table's message, or the JSON not an object of its fields.
    Malformed,
    /// A field or the key has a value it cannot have.
    InvalidArgument,
    /// Legal DASH that this release cannot do.
    Unimplemented,
}

/// Why a row is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{table}:{key}: {}{reason}", .field.as_ref().map(|f| format!("{f}: ")).unwrap_or_default())]
pub struct RowError {
    /// The table.
    pub table: String,
    /// The key text as given.
    pub key: String,
    /// Path of the field inside the message (`src_port[2]`); `None` when the row as a whole or its
    /// key is meant.
    pub field: Option<String>,
    /// The class.
    pub kind: Kind,
    /// What is wrong, for a person.
    pub reason: String,
}

impl RowError {
    pub(crate) fn new(table: &str, key: &str, error: FieldError) -> Self {
        Self {
            table: table.to_owned(),
            key: key.to_owned(),
            field: error.field,
            kind: error.kind,
            reason: error.reason,
        }
    }

    /// The error of a key that names no row of the table.
    pub(crate) fn key(table: &str, key: &str, error: &KeyError) -> Self {
        Self {
            table: table.to_owned(),
            key: key.to_owned(),
            field: None,
            kind: match error.kind() {
                ModelKind::Unimplemented => Kind::Unimplemented,
                _ => Kind::InvalidArgument,
            },
            reason: error.to_string(),
        }
    }
}

/// A [`RowError`] before its row is known.
#[derive(Debug)]
pub(crate) struct FieldError {
    pub(crate) field: Option<String>,
    pub(crate) kind: Kind,
    pub(crate) reason: String,
}

impl FieldError {
    /// The row as a whole is not what the table holds.
    pub(crate) fn malformed(reason: impl Into<String>) -> Self {
        Self {
            field: None,
            kind: Kind::Malformed,
            reason: reason.into(),
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            kind: Kind::InvalidArgument,
            reason: reason.into(),
        }
    }

    pub(crate) fn unimplemented(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            kind: Kind::Unimplemented,
            reason: reason.into(),
        }
    }
}

/// Encodes a JSON row as its table's message without judging the message: for tools that turn one
/// form into the other. The opposite of [`row_to_json`](crate::row_to_json).
///
/// # Errors
/// When the JSON is not an object of the message's fields, or a field's text cannot be read.
pub fn encode_row(table: &str, key: &str, value: &serde_json::Value) -> Result<Vec<u8>, RowError> {
    json::row_to_pb(table, value).map_err(|e| RowError::new(table, key, e))
}

/// Changes fields of a row that is a message: those named in `unset` go, then those that `change`, an
/// encoded message of the same kind, has take the place of what was there. Nothing is judged.
///
/// # Errors
/// When the table's rows are no message, one of the two is not the message, or `unset` names what is no
/// field of it.
pub fn change_row(
    table: &str,
    key: &str,
    raw: &[u8],
    unset: &[String],
    change: &[u8],
) -> Result<Vec<u8>, RowError> {
    let changed = || {
        let message = schema::message_of(table)
            .ok_or_else(|| FieldError::malformed("rows of this table have no fields"))?;
        let not = |e: prost::DecodeError| {
            FieldError::malformed(format!("not a {}: {e}", message.full_name()))
        };
        let mut row = DynamicMessage::decode(message.clone(), raw).map_err(not)?;
        for name in unset {
            let field = message
                .get_field_by_name(name)
                .ok_or_else(|| FieldError::invalid(name, "no such field"))?;
            row.clear_field(&field);
        }
        row.merge(change).map_err(not)?;
        Ok(row.encode_to_vec())
    };
    changed().map_err(|error| RowError::new(table, key, error))
}

/// A row of a table [with fields](crate::schema::has_fields) after a write of some of them: those take the
/// place of what was there, the others stay. What was there and has no fields goes.
pub(crate) fn merge_row(table: &str, key: &str, was: &[u8], change: &[u8]) -> Option<DecodedRow> {
    let merged = if schema::keeps_json(table) {
        let fields = |raw| serde_json::from_slice::<serde_json::Map<_, _>>(raw).ok();
        let mut row = fields(was)?;
        row.extend(fields(change)?);
        decode_row(table, key, RowValue::Json(&row.into()))
    } else {
        let raw = change_row(table, key, was, &[], change).ok()?;
        decode_row(table, key, RowValue::Pb(&raw))
    };
    // Fields are judged one by one, so those of two rows that are right are right.
    merged.ok()
}

/// Decodes and checks one row.
///
/// JSON is first encoded as the table's message and then takes the same way as protobuf, so there
/// is one validator.
///
/// # Errors
/// When the key names no row of the table, the value is not the table's message, a field has a
/// value it cannot have, or the row asks for what this release cannot do.
pub fn decode_row(table: &str, key: &str, value: RowValue<'_>) -> Result<DecodedRow, RowError> {
    let parsed = ObjectKey::parse(table, key).map_err(|e| RowError::key(table, key, &e))?;
    let raw: Arc<[u8]> = match value {
        RowValue::Pb(bytes) => bytes.into(),
        RowValue::Json(value) => encode_row(table, key, value)?.into(),
    };
    let mut notes = convert::Notes::default();
    let (key, object) =
        convert::object(parsed, key, &raw, &mut notes).map_err(|e| RowError::new(table, key, e))?;
    Ok(DecodedRow {
        key,
        object,
        raw,
        warnings: notes.into_warnings(),
    })
}
