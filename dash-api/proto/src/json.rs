//! Rows as JSON: the dialects people write, and the one we print.
//!
//! ```text
//! dialect::normalize   names and nesting of older tools -> names and nesting of the message
//! read::message        text, numbers, nested objects    -> the message
//! write::message       the message                      -> readable JSON, which read takes back
//! ```
//!
//! Read: integers also as decimal or `0x` text; booleans also as `"true"`, `"1"`; addresses as
//! text; prefixes `a/len`, `a/mask-address` or a bare address; MACs with `:`, `-` or bare; GUIDs
//! as text; enum constants by number, full name (`ROUTING_TYPE_VNET`) or short name in any case
//! (`vnet`, `4_to_6`, `4to6`); lists as arrays or joined by commas; ranges `8-10`,
//! `{"min": 8, "max": 10}`, `{"range": {..}}`, `{"value": 8}`; field names also in proto3's
//! camelCase and with the `@` that redis hashes mark lists with. Members that are `null` count as
//! absent. A member that is no field of the message is an error: a misspelt field must not
//! vanish.
//!
//! Rows of tables without a message are kept as JSON text.

mod dialect;
mod read;
mod scalar;
mod write;

use prost::Message;
use prost_reflect::DynamicMessage;
use serde_json::{Map, Value};

use crate::row::FieldError;
use crate::schema;

pub(crate) use dialect::{ACL_GROUP, rename};
pub(crate) use scalar::constant;

/// Name of the member that holds a row's bytes where they have no better form.
const RAW: &str = "pb";

/// Encodes a JSON row as its table's message, or as its own text if the table has none.
pub(crate) fn row_to_pb(table: &str, value: &Value) -> Result<Vec<u8>, FieldError> {
    if let Some(raw) = raw_member(value) {
        return raw;
    }
    let descriptor = match schema::message_of(table) {
        Some(descriptor) if !schema::keeps_json(table) => descriptor,
        _ => {
            return match value {
                Value::Object(_) | Value::Array(_) => Ok(value.to_string().into_bytes()),
                other => Err(FieldError::malformed(format!(
                    "a row is an object of fields, not {}",
                    kind_of(other)
                ))),
            };
        }
    };
    let fields = dialect::normalize(table, value)?;
    Ok(read::message(descriptor, &fields, "")?.encode_to_vec())
}

/// Prints a row in the readable dialect: dotted addresses, `a/len` prefixes, short enum names.
///
/// Every canonical encoding comes back byte for byte from [`decode_row`](crate::decode_row).
/// Fields the table's message does not have are not shown. Bytes that are not the message give
/// `{"pb": "0x.."}`.
pub fn row_to_json(table: &str, raw: &[u8]) -> Value {
    if schema::keeps_json(table)
        && let Some(value) = as_json(raw)
    {
        return value;
    }
    match schema::message_of(table).map(|d| DynamicMessage::decode(d, raw)) {
        Some(Ok(message)) => {
            let mut fields = write::message(&message);
            dialect::protect(table, &mut fields);
            Value::Object(fields)
        }
        _ => {
            let mut fields = Map::new();
            fields.insert(RAW.to_owned(), Value::String(scalar::hex(raw)));
            Value::Object(fields)
        }
    }
}

/// True when a row's bytes are JSON text. No message starts like that: `{` and `[` would be tags
/// of groups, which proto3 does not have.
pub(crate) fn is_json(raw: &[u8]) -> bool {
    as_json(raw).is_some()
}

fn as_json(raw: &[u8]) -> Option<Value> {
    match raw.first() {
        Some(b'{' | b'[') => serde_json::from_slice(raw).ok(),
        _ => None,
    }
}

/// The bytes of `{"pb": "0x.."}`.
fn raw_member(value: &Value) -> Option<Result<Vec<u8>, FieldError>> {
    let fields = value.as_object().filter(|fields| fields.len() == 1)?;
    let text = fields.get(RAW)?.as_str()?;
    let bytes = text.strip_prefix("0x").and_then(scalar::unhex);
    Some(
        bytes.ok_or_else(|| FieldError::invalid(RAW, format!("`{text}` is not 0x and hex digits"))),
    )
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
