//! Single values: numbers, enum constants, bytes, addresses, GUIDs.

use std::net::IpAddr;

use prost_reflect::EnumDescriptor;
use serde_json::Value;

use super::kind_of;
use crate::row::FieldError;

/// An integer of any width, as a number or as decimal or `0x` text.
pub(super) fn integer(field: &str, value: &Value) -> Result<i128, FieldError> {
    let parsed = match value {
        Value::Number(n) => n.as_u64().map(i128::from).or(n.as_i64().map(i128::from)),
        Value::String(s) => parse_integer(s.trim()),
        other => {
            return Err(FieldError::invalid(
                field,
                format!("expected an integer, found {}", kind_of(other)),
            ));
        }
    };
    parsed.ok_or_else(|| FieldError::invalid(field, format!("{value} is not an integer")))
}

fn parse_integer(text: &str) -> Option<i128> {
    if let Some(hex) = text.strip_prefix("0x") {
        return hex
            .bytes()
            .all(|b| b.is_ascii_hexdigit())
            .then(|| u64::from_str_radix(hex, 16).ok().map(i128::from))?;
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    // i64 and u64 texts have at most 20 digits; `parse` alone would take a plus sign.
    let fits = (1..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok())?
}

pub(super) fn fit<T: TryFrom<i128>>(field: &str, value: &Value) -> Result<T, FieldError> {
    T::try_from(integer(field, value)?)
        .map_err(|_| FieldError::invalid(field, format!("{value} is out of range")))
}

pub(super) fn boolean(field: &str, value: &Value) -> Result<bool, FieldError> {
    let parsed = match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) => match n.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(s) => match s.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    };
    parsed.ok_or_else(|| FieldError::invalid(field, format!("{value} is not true or false")))
}

/// Texts also come as numbers: ids and versions are often digits.
pub(super) fn text(field: &str, value: &Value) -> Result<String, FieldError> {
    match value {
        Value::String(s) => Ok(s.clone()),
        Value::Number(n) => Ok(n.to_string()),
        other => Err(FieldError::invalid(
            field,
            format!("expected a text, found {}", kind_of(other)),
        )),
    }
}

/// `0x` and the digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .filter_map(|d| char::from_digit(u32::from(d), 16));
    "0x".chars().chain(digits).collect()
}

/// Pairs of hex digits; `None` for anything else.
pub(super) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let nibble = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|&[high, low]| Some(nibble(high)? << 4 | nibble(low)?))
        .collect()
}

/// A MAC with `:`, `-`, `.` or nothing between its digits; any other bytes in hex.
pub(super) fn bytes(field: &str, value: &Value) -> Result<Vec<u8>, FieldError> {
    let text = text(field, value)?;
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => unhex(digits),
        None => unhex(&text.replace([':', '-', '.'], "")),
    };
    parsed.ok_or_else(|| FieldError::invalid(field, format!("`{text}` is not bytes in hex")))
}

/// A MAC's six bytes in its usual form, other bytes in hex; the opposite of [`bytes`].
pub(super) fn bytes_text(bytes: &[u8]) -> String {
    match <[u8; 6]>::try_from(bytes) {
        Ok(mac) => dash_model::net::Mac(mac).to_string(),
        Err(_) if bytes.is_empty() => String::new(),
        Err(_) => hex(bytes),
    }
}

/// The 16 bytes of a GUID's text, with or without dashes and braces.
pub(super) fn guid(text: &str) -> Option<Vec<u8>> {
    let text = text
        .strip_prefix('{')
        .and_then(|t| t.strip_suffix('}'))
        .unwrap_or(text);
    unhex(&text.replace('-', "")).filter(|bytes| bytes.len() == 16)
}

pub(super) fn guid_text(bytes: [u8; 16]) -> String {
    let digits = hex(&bytes);
    let digits = digits.trim_start_matches("0x");
    // 8-4-4-4-12; the digits are ASCII, two a byte.
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|r| digits.get(r).unwrap_or_default());
    parts.join("-")
}

pub(super) fn address(field: &str, text: &str) -> Result<IpAddr, FieldError> {
    text.trim()
        .parse()
        .map_err(|_| FieldError::invalid(field, format!("`{text}` is not an IP address")))
}

/// The length of a contiguous mask.
pub(super) fn mask_len(mask: IpAddr) -> Option<u32> {
    let (leading, all) = match mask {
        IpAddr::V4(m) => (m.to_bits().leading_ones(), m.to_bits().count_ones()),
        IpAddr::V6(m) => (m.to_bits().leading_ones(), m.to_bits().count_ones()),
    };
    (leading == all).then_some(leading)
}

/// The mask of a length, in the family of `like`; `None` if it is too long.
pub(super) fn mask_of(like: IpAddr, len: u32) -> Option<IpAddr> {
    match like {
        IpAddr::V4(_) => {
            let host = 32_u32.checked_sub(len)?;
            let bits = u32::MAX.checked_shl(host).unwrap_or(0);
            Some(IpAddr::V4(bits.into()))
        }
        IpAddr::V6(_) => {
            let host = 128_u32.checked_sub(len)?;
            let bits = u128::MAX.checked_shl(host).unwrap_or(0);
            Some(IpAddr::V6(bits.into()))
        }
    }
}

/// The number of an enum constant given by number, full name or short name.
pub(crate) fn constant(
    field: &str,
    kind: &EnumDescriptor,
    value: &Value,
) -> Result<i32, FieldError> {
    let name = match value {
        Value::String(s) if parse_integer(s).is_none() => s,
        number => return fit(field, number),
    };
    let wanted = fold(name);
    let prefix = shared_prefix(kind);
    let found = kind.values().find(|v| {
        let full = v.name();
        fold(full) == wanted || fold(full.get(prefix..).unwrap_or(full)) == wanted
    });
    if let Some(found) = found {
        return Ok(found.number());
    }
    // The HLD's word for a permitting ACL rule.
    if kind.full_name() == "dash.acl_rule.Action" && wanted == "allow" {
        return Ok(crate::dash::acl_rule::Action::Permit.into());
    }
    let known: Vec<String> = kind
        .values()
        .filter(|v| v.number() != 0)
        .map(|v| short_name(v.name(), prefix))
        .collect();
    Err(FieldError::invalid(
        field,
        format!("`{name}` is none of {}", known.join(", ")),
    ))
}

/// The short lower-case name of an enum constant; `None` for a number the enum does not have.
pub(crate) fn constant_name(kind: &EnumDescriptor, number: i32) -> Option<String> {
    let value = kind.get_value(number)?;
    Some(short_name(value.name(), shared_prefix(kind)))
}

fn short_name(full: &str, prefix: usize) -> String {
    full.get(prefix..).unwrap_or(full).to_ascii_lowercase()
}

/// Case and word separators do not matter.
fn fold(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Length of the words all constants of the enum begin with, `ROUTING_TYPE_` say.
fn shared_prefix(kind: &EnumDescriptor) -> usize {
    let mut names = kind.values();
    let Some(first) = names.next() else { return 0 };
    let first = first.name();
    let shared = names.fold(first.len(), |shared, value| {
        let same = first
            .bytes()
            .zip(value.name().bytes())
            .take_while(|(a, b)| a == b);
        shared.min(same.count())
    });
    first
        .get(..shared)
        .and_then(|s| s.rfind('_'))
        .map_or(0, |underscore| underscore + 1)
}
