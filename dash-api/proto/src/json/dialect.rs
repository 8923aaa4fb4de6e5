//! Field names and nesting that differ between tools and ages of one tool.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::kind_of;
use crate::row::FieldError;

const ROUTE: &str = "DASH_ROUTE_TABLE";

/// Name of `Route`'s oneof, as an explicit wrapper of its member.
const ROUTING_TYPE_DATA: &str = "RoutingTypeData";

/// One group for a stage, of the family that the group has: older dpugen.
pub(crate) const ACL_GROUP: &str = "acl_group_id";

/// Fields that are those of a service tunnel when they stand in the route itself.
const SERVICE_TUNNEL: &[&str] = &[
    "overlay_sip",
    "overlay_dip",
    "underlay_dip",
    "overlay_sip_prefix",
    "overlay_dip_prefix",
];

/// Older names: table, name, name in the message.
const RENAMED: &[(&str, &str, &str)] = &[
    ("DASH_ACL_RULE_TABLE", "protocols", "protocol"),
    ("DASH_PA_VALIDATION_TABLE", "addresses", "prefixes"),
    ("DASH_VNET_TABLE", "address_spaces", "address_space"),
];

/// Brings a row to the names and the nesting of its table's message.
pub(super) fn normalize<'a>(
    table: &str,
    value: &'a Value,
) -> Result<Cow<'a, Map<String, Value>>, FieldError> {
    if table == "DASH_ROUTING_TYPE_TABLE" {
        return routing_type(value);
    }
    let Value::Object(fields) = value else {
        return Err(FieldError::malformed(format!(
            "a row is an object of fields, not {}",
            kind_of(value)
        )));
    };
    let mut fields = Cow::Borrowed(fields);
    for (_, old, new) in RENAMED.iter().filter(|(t, _, _)| *t == table) {
        if fields.contains_key(*old) {
            rename(fields.to_mut(), old, new)?;
        }
    }
    match table {
        ROUTE => route(&mut fields)?,
        "DASH_APPLIANCE_TABLE" | "DASH_ENI_TABLE"
            if fields.get("trusted_vnis").is_some_and(Value::is_array) =>
        {
            rename(fields.to_mut(), "trusted_vnis", "trusted_vnis_list")?;
        }
        "DASH_ACL_IN_TABLE" | "DASH_ACL_OUT_TABLE" if fields.contains_key(ACL_GROUP) => {
            return Err(FieldError::invalid(
                ACL_GROUP,
                "the group's IP version is not known here: give v4_acl_group_id or \
                 v6_acl_group_id, or load the group's row from the same file",
            ));
        }
        _ => {}
    }
    Ok(fields)
}

/// Renames a member in place; the two names together would hide one value.
pub(crate) fn rename(
    fields: &mut Map<String, Value>,
    old: &str,
    new: &str,
) -> Result<(), FieldError> {
    if fields.contains_key(new) {
        return Err(FieldError::invalid(
            old,
            format!("given together with {new}"),
        ));
    }
    let renamed = std::mem::take(fields).into_iter().map(|(name, value)| {
        let name = if name == old { new.to_owned() } else { name };
        (name, value)
    });
    *fields = renamed.collect();
    Ok(())
}

/// A list of items, `{"items": [..]}`, or the fields of one item.
fn routing_type(value: &Value) -> Result<Cow<'_, Map<String, Value>>, FieldError> {
    let items = match value {
        Value::Array(items) => items.clone(),
        Value::Object(fields) => match fields.get("items") {
            None if fields.is_empty() => return Ok(Cow::Borrowed(fields)),
            None => vec![value.clone()],
            Some(Value::Array(_)) if fields.len() > 1 => {
                return Err(FieldError::malformed("`items` stands beside other fields"));
            }
            Some(Value::Array(items)) => items.clone(),
            Some(other) => {
                return Err(FieldError::invalid(
                    "items",
                    format!("expected an array, found {}", kind_of(other)),
                ));
            }
        },
        other => {
            return Err(FieldError::malformed(format!(
                "a routing type is a list of items, not {}",
                kind_of(other)
            )));
        }
    };
    let items = items.into_iter().map(|mut item| {
        if let Value::Object(fields) = &mut item
            && fields.contains_key("name")
        {
            rename(fields, "name", "action_name")?;
        }
        Ok(item)
    });
    let items = items.collect::<Result<Vec<_>, FieldError>>()?;
    Ok(Cow::Owned(Map::from_iter([(
        "items".to_owned(),
        Value::Array(items),
    )])))
}

/// Nests the flat forms: `overlay_ip` beside `vnet`, and the addresses of a service tunnel.
fn route(fields: &mut Cow<'_, Map<String, Value>>) -> Result<(), FieldError> {
    let is = |kind: &str| {
        let named = |name| fields.get(name).is_some_and(|v| is_routing_type(v, kind));
        named("routing_type") || (fields.get("routing_type").is_none() && named("action_type"))
    };
    let direct = fields.contains_key("overlay_ip")
        || (is("ROUTING_TYPE_VNET_DIRECT") && fields.contains_key("vnet"));
    if direct && !fields.contains_key("vnet_direct") {
        nest(fields.to_mut(), &["vnet", "overlay_ip"], "vnet_direct");
    }
    let tunnel = SERVICE_TUNNEL.iter().any(|name| fields.contains_key(*name));
    if tunnel && !fields.contains_key("service_tunnel") {
        nest(fields.to_mut(), SERVICE_TUNNEL, "service_tunnel");
    }
    Ok(())
}

fn is_routing_type(value: &Value, full_name: &str) -> bool {
    let kind = crate::schema::message_of(ROUTE)
        .and_then(|m| m.get_field_by_name("routing_type"))
        .map(|f| f.kind());
    let Some(kind) = kind.as_ref().and_then(|k| k.as_enum()) else {
        return false;
    };
    let wanted = kind.get_value_by_name(full_name).map(|v| v.number());
    super::constant("routing_type", kind, value).ok() == wanted
}

/// Moves members into a new object.
fn nest(fields: &mut Map<String, Value>, members: &[&str], into: &str) {
    let (inner, outer) = std::mem::take(fields)
        .into_iter()
        .partition(|(name, _)| members.contains(&name.as_str()));
    *fields = outer;
    fields.insert(into.to_owned(), Value::Object(inner));
}

/// Makes sure that [`normalize`] leaves a printed row alone: a `vnet` that is not to be nested is
/// wrapped in the name of its oneof.
pub(super) fn protect(table: &str, fields: &mut Map<String, Value>) {
    if table != ROUTE {
        return;
    }
    let mut flat = Cow::Borrowed(&*fields);
    let changes = route(&mut flat).is_ok() && matches!(flat, Cow::Owned(_));
    if changes && let Some(vnet) = fields.get("vnet").cloned() {
        let renamed = std::mem::take(fields).into_iter().map(|(name, value)| {
            if name == "vnet" {
                let member = Map::from_iter([(name, vnet.clone())]);
                (ROUTING_TYPE_DATA.to_owned(), Value::Object(member))
            } else {
                (name, value)
            }
        });
        *fields = renamed.collect();
    }
}
