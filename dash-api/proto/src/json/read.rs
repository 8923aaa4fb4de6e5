//! JSON to a message, driven by the message's descriptor.

use std::collections::BTreeSet;
use std::net::IpAddr;

use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind as PbKind, MessageDescriptor, ReflectMessage, Value as Pb,
};
use serde_json::{Map, Value};

use super::{kind_of, scalar};
use crate::row::{FieldError, Kind};

/// Types that have a form of their own in JSON.
const IP_ADDRESS: &str = "dash.types.IpAddress";
const IP_PREFIX: &str = "dash.types.IpPrefix";
const GUID: &str = "dash.types.Guid";
const RANGE: &str = "dash.types.Range";
const VALUE_OR_RANGE: &str = "dash.types.ValueOrRange";

/// Reads an object of fields. `path` is the object's own place, for errors.
pub(super) fn message(
    descriptor: MessageDescriptor,
    fields: &Map<String, Value>,
    path: &str,
) -> Result<DynamicMessage, FieldError> {
    let mut message = DynamicMessage::new(descriptor);
    let mut seen = BTreeSet::new();
    for (name, value) in fields {
        read_member(&mut message, &mut seen, name, value, path)?;
    }
    Ok(message)
}

fn read_member(
    message: &mut DynamicMessage,
    seen: &mut BTreeSet<u32>,
    name: &str,
    value: &Value,
    path: &str,
) -> Result<(), FieldError> {
    if value.is_null() || (name == "NULL" && path.is_empty()) {
        // Redis has no empty hash, so an empty row carries a field NULL.
        return Ok(());
    }
    let descriptor = message.descriptor();
    let place = join(path, name);
    let bare = name.strip_suffix('@').unwrap_or(name);
    let Some(field) = descriptor
        .get_field_by_name(bare)
        .or_else(|| descriptor.get_field_by_json_name(bare))
    else {
        // The name of a oneof wraps the member that a flat form could mistake (see `dialect`).
        let oneof = descriptor.oneofs().any(|o| o.name() == name);
        if oneof && let Value::Object(members) = value {
            for (name, value) in members {
                read_member(message, seen, name, value, path)?;
            }
            return Ok(());
        }
        return Err(FieldError {
            field: Some(place),
            kind: Kind::Malformed,
            reason: format!("{} has no such field", descriptor.full_name()),
        });
    };
    if !seen.insert(field.number()) {
        return Err(FieldError::invalid(place, "given twice"));
    }
    // A proto3 `optional` is a oneof of one.
    if let Some(oneof) = field.containing_oneof() {
        let other = oneof
            .fields()
            .find(|f| f.number() != field.number() && seen.contains(&f.number()));
        if let Some(other) = other {
            return Err(FieldError::invalid(
                place,
                format!("cannot be given together with {}", other.name()),
            ));
        }
    }
    let value = if field.is_list() {
        list(&field, value, &place)?
    } else {
        single(&field.kind(), value, &place)?
    };
    message
        .try_set_field(&field, value)
        .map_err(|e| FieldError::invalid(place, e.to_string()))
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

/// An array, texts joined by commas, or one element alone.
fn list(field: &FieldDescriptor, value: &Value, place: &str) -> Result<Pb, FieldError> {
    let kind = field.kind();
    let is_text = matches!(kind, PbKind::String);
    let mut items = Vec::new();
    let mut push = |value: &Value| -> Result<(), FieldError> {
        let place = format!("{place}[{}]", items.len());
        items.push(single(&kind, value, &place)?);
        Ok(())
    };
    let split = |text: &str| -> Vec<Value> {
        text.split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(Value::from)
            .collect()
    };
    match value {
        Value::String(text) => split(text).iter().try_for_each(&mut push)?,
        Value::Array(elements) => {
            for element in elements {
                match element {
                    // "8-10,12" inside an array; a tag's name may hold a comma, a port cannot.
                    Value::String(text) if !is_text && text.contains(',') => {
                        split(text).iter().try_for_each(&mut push)?;
                    }
                    element => push(element)?,
                }
            }
        }
        alone => push(alone)?,
    }
    Ok(Pb::List(items))
}

fn single(kind: &PbKind, value: &Value, place: &str) -> Result<Pb, FieldError> {
    Ok(match kind {
        PbKind::Bool => Pb::Bool(scalar::boolean(place, value)?),
        PbKind::Uint32 | PbKind::Fixed32 => Pb::U32(scalar::fit(place, value)?),
        PbKind::Uint64 | PbKind::Fixed64 => Pb::U64(scalar::fit(place, value)?),
        PbKind::Int32 | PbKind::Sint32 | PbKind::Sfixed32 => Pb::I32(scalar::fit(place, value)?),
        PbKind::Int64 | PbKind::Sint64 | PbKind::Sfixed64 => Pb::I64(scalar::fit(place, value)?),
        PbKind::String => Pb::String(scalar::text(place, value)?),
        PbKind::Bytes => Pb::Bytes(scalar::bytes(place, value)?.into()),
        PbKind::Enum(kind) => Pb::EnumNumber(scalar::constant(place, kind, value)?),
        PbKind::Message(descriptor) => Pb::Message(nested(descriptor, value, place)?),
        PbKind::Float | PbKind::Double => {
            return Err(FieldError::invalid(place, "no DASH field is a fraction"));
        }
    })
}

fn nested(
    descriptor: &MessageDescriptor,
    value: &Value,
    place: &str,
) -> Result<DynamicMessage, FieldError> {
    match (descriptor.full_name(), value) {
        (IP_ADDRESS, Value::String(text)) => {
            ip_address(descriptor, scalar::address(place, text)?, place)
        }
        (IP_ADDRESS, Value::Object(fields)) => ip_object(descriptor, fields, place),
        (IP_PREFIX, Value::String(text)) => ip_prefix(descriptor, text, place),
        (GUID, Value::String(text)) => {
            // Informational everywhere, and some configurations put plain names here.
            let bytes = scalar::guid(text).unwrap_or_else(|| text.clone().into_bytes());
            with(descriptor, "value", Pb::Bytes(bytes.into()), place)
        }
        (RANGE, Value::String(text)) => range(descriptor, text, place),
        (VALUE_OR_RANGE, Value::Number(_)) => with(
            descriptor,
            "value",
            Pb::U32(scalar::fit(place, value)?),
            place,
        ),
        (VALUE_OR_RANGE, Value::String(text)) => {
            if text.contains(['-', ',']) {
                let inner = field(descriptor, "range", place)?;
                let PbKind::Message(inner) = inner.kind() else {
                    return Err(FieldError::invalid(place, "range is not a message"));
                };
                let range = range(&inner, text, place)?;
                with(descriptor, "range", Pb::Message(range), place)
            } else {
                with(
                    descriptor,
                    "value",
                    Pb::U32(scalar::fit(place, value)?),
                    place,
                )
            }
        }
        (VALUE_OR_RANGE, Value::Object(fields))
            if fields.contains_key("min") || fields.contains_key("max") =>
        {
            let mut wrapped = Map::new();
            wrapped.insert("range".to_owned(), value.clone());
            message(descriptor.clone(), &wrapped, place)
        }
        (_, Value::Object(fields)) => message(descriptor.clone(), fields, place),
        (name, other) => Err(FieldError::invalid(
            place,
            format!("expected {}, found {}", expected(name), kind_of(other)),
        )),
    }
}

fn expected(message: &str) -> &'static str {
    match message {
        IP_ADDRESS => "an IP address",
        IP_PREFIX => "a prefix",
        GUID => "a GUID",
        RANGE | VALUE_OR_RANGE => "a number or a range",
        _ => "an object of fields",
    }
}

fn field(
    descriptor: &MessageDescriptor,
    name: &str,
    place: &str,
) -> Result<FieldDescriptor, FieldError> {
    descriptor.get_field_by_name(name).ok_or_else(|| {
        FieldError::invalid(place, format!("{} has no {name}", descriptor.full_name()))
    })
}

fn set(message: &mut DynamicMessage, name: &str, value: Pb, place: &str) -> Result<(), FieldError> {
    let field = field(&message.descriptor(), name, place)?;
    message
        .try_set_field(&field, value)
        .map_err(|e| FieldError::invalid(place, e.to_string()))
}

/// A message of one field.
fn with(
    descriptor: &MessageDescriptor,
    name: &str,
    value: Pb,
    place: &str,
) -> Result<DynamicMessage, FieldError> {
    let mut message = DynamicMessage::new(descriptor.clone());
    set(&mut message, name, value, place)?;
    Ok(message)
}

fn ip_address(
    descriptor: &MessageDescriptor,
    ip: IpAddr,
    place: &str,
) -> Result<DynamicMessage, FieldError> {
    match ip {
        // The message's fixed32 is the dotted quad as a little-endian word.
        IpAddr::V4(ip) => {
            let word = u32::from_le_bytes(ip.octets());
            with(descriptor, "ipv4", Pb::U32(word), place)
        }
        IpAddr::V6(ip) => {
            let bytes = ip.octets().to_vec();
            with(descriptor, "ipv6", Pb::Bytes(bytes.into()), place)
        }
    }
}

/// `{"ipv4": "10.0.0.1"}`, or the field's own number or bytes.
fn ip_object(
    descriptor: &MessageDescriptor,
    fields: &Map<String, Value>,
    place: &str,
) -> Result<DynamicMessage, FieldError> {
    if let Some((name @ ("ipv4" | "ipv6"), Value::String(text))) = only(fields)
        && let Ok(ip) = text.parse::<IpAddr>()
    {
        return match (name, ip) {
            ("ipv4", IpAddr::V4(_)) | ("ipv6", IpAddr::V6(_)) => ip_address(descriptor, ip, place),
            _ => Err(FieldError::invalid(
                join(place, name),
                format!("`{text}` is of the other family"),
            )),
        };
    }
    message(descriptor.clone(), fields, place)
}

fn only(fields: &Map<String, Value>) -> Option<(&str, &Value)> {
    let mut members = fields.iter();
    let (name, value) = members.next()?;
    members.next().is_none().then_some((name.as_str(), value))
}

/// `a/len`, `a/mask-address` (with holes, too) or a bare address.
fn ip_prefix(
    descriptor: &MessageDescriptor,
    text: &str,
    place: &str,
) -> Result<DynamicMessage, FieldError> {
    let (ip, mask) = match text.split_once('/') {
        Some((ip, mask)) => (scalar::address(place, ip)?, Some(mask.trim())),
        None => (scalar::address(place, text)?, None),
    };
    let mask = match mask {
        None => scalar::mask_of(ip, if ip.is_ipv4() { 32 } else { 128 }),
        Some(mask) => match mask.parse::<IpAddr>() {
            Ok(mask) => Some(mask).filter(|m| m.is_ipv4() == ip.is_ipv4()),
            Err(_) => Some(mask)
                .filter(|m| m.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|m| m.parse().ok())
                .and_then(|len| scalar::mask_of(ip, len)),
        },
    };
    let mask =
        mask.ok_or_else(|| FieldError::invalid(place, format!("`{text}` is not a prefix")))?;
    let PbKind::Message(address) = field(descriptor, "ip", place)?.kind() else {
        return Err(FieldError::invalid(place, "ip is not a message"));
    };
    let mut prefix = DynamicMessage::new(descriptor.clone());
    let ip = ip_address(&address, ip, place)?;
    let mask = ip_address(&address, mask, place)?;
    set(&mut prefix, "ip", Pb::Message(ip), place)?;
    set(&mut prefix, "mask", Pb::Message(mask), place)?;
    Ok(prefix)
}

/// `min-max`; `min,max` is what sonic-mgmt writes.
fn range(
    descriptor: &MessageDescriptor,
    text: &str,
    place: &str,
) -> Result<DynamicMessage, FieldError> {
    let (min, max) = text
        .split_once(['-', ','])
        .ok_or_else(|| FieldError::invalid(place, format!("`{text}` is not a range min-max")))?;
    let mut range = DynamicMessage::new(descriptor.clone());
    for (name, end) in [("min", min), ("max", max)] {
        let end = scalar::fit(place, &Value::from(end.trim()))?;
        set(&mut range, name, Pb::U32(end), place)?;
    }
    Ok(range)
}
