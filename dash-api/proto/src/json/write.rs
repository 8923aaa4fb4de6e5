//! A message to readable JSON that [`read`](super::read) takes back to the same bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use prost_reflect::{DynamicMessage, Kind as PbKind, ReflectMessage, Value as Pb};
use serde_json::{Map, Value};

use super::scalar;

/// Every field that is set, by number.
pub(super) fn message(message: &DynamicMessage) -> Map<String, Value> {
    message
        .fields()
        .map(|(field, value)| (field.name().to_owned(), json(&field.kind(), value)))
        .collect()
}

fn json(kind: &PbKind, value: &Pb) -> Value {
    match value {
        Pb::Bool(b) => Value::from(*b),
        Pb::I32(n) => Value::from(*n),
        Pb::I64(n) => Value::from(*n),
        Pb::U32(n) => Value::from(*n),
        Pb::U64(n) => Value::from(*n),
        Pb::F32(n) => Value::from(*n),
        Pb::F64(n) => Value::from(*n),
        Pb::String(s) => Value::from(s.as_str()),
        Pb::Bytes(b) => Value::from(scalar::bytes_text(b)),
        Pb::EnumNumber(number) => match kind {
            PbKind::Enum(kind) => {
                scalar::constant_name(kind, *number).map_or(Value::from(*number), Value::from)
            }
            _ => Value::from(*number),
        },
        Pb::Message(m) => nested(m),
        Pb::List(items) => items.iter().map(|item| json(kind, item)).collect(),
        // No DASH message has a map; its entries would print as its debug form, not get lost.
        Pb::Map(entries) => Value::from(format!("{entries:?}")),
    }
}

/// The short form where there is one, the object of fields otherwise.
fn nested(inner: &DynamicMessage) -> Value {
    let short = match inner.descriptor().full_name() {
        "dash.types.IpAddress" => address(inner).map(|ip| ip.to_string()),
        "dash.types.IpPrefix" => prefix(inner),
        "dash.types.Guid" => guid(inner),
        "dash.types.Range" => Some(range(inner)),
        "dash.types.ValueOrRange" => {
            if let Some(value) = get(inner, "value").as_ref().and_then(Pb::as_u32) {
                return Value::from(value);
            }
            get(inner, "range").and_then(|r| r.as_message().map(range))
        }
        _ => None,
    };
    short.map_or_else(|| Value::Object(message(inner)), Value::from)
}

/// A field that is set.
fn get(message: &DynamicMessage, name: &str) -> Option<Pb> {
    message
        .has_field_by_name(name)
        .then(|| message.get_field_by_name(name).map(|v| v.into_owned()))?
}

fn address(message: &DynamicMessage) -> Option<IpAddr> {
    if let Some(word) = get(message, "ipv4").as_ref().and_then(Pb::as_u32) {
        return Some(Ipv4Addr::from(word.to_le_bytes()).into());
    }
    let bytes = get(message, "ipv6")?;
    let octets = <[u8; 16]>::try_from(bytes.as_bytes()?.as_ref()).ok()?;
    Some(Ipv6Addr::from(octets).into())
}

fn prefix(message: &DynamicMessage) -> Option<String> {
    let ip = address(get(message, "ip")?.as_message()?)?;
    let mask = address(get(message, "mask")?.as_message()?)?;
    if ip.is_ipv4() != mask.is_ipv4() {
        return None;
    }
    Some(match scalar::mask_len(mask) {
        Some(len) => format!("{ip}/{len}"),
        None => format!("{ip}/{mask}"),
    })
}

fn guid(message: &DynamicMessage) -> Option<String> {
    let value = get(message, "value")?;
    let bytes = value.as_bytes()?;
    if let Ok(bytes) = <[u8; 16]>::try_from(bytes.as_ref()) {
        return Some(scalar::guid_text(bytes));
    }
    // A text that reads as a GUID would come back as 16 bytes.
    let text = std::str::from_utf8(bytes).ok()?;
    scalar::guid(text).is_none().then(|| text.to_owned())
}

fn range(message: &DynamicMessage) -> String {
    let end = |name| {
        get(message, name)
            .as_ref()
            .and_then(Pb::as_u32)
            .unwrap_or(0)
    };
    format!("{}-{}", end("min"), end("max"))
}
