//! Messages to objects of the model, with every check that a row allows on its own.
//!
//! What the pipeline of this release cannot do is refused here; what has no effect on packets is
//! accepted with a warning that names it.
//! Not checked here: anything that needs another row. The store does that.

mod acl;
mod card;
mod meter;
mod net;
mod routing;
mod settings;
mod tunnel;

use dash_model::ObjectKey;
use dash_model::key::Table;
use dash_model::objects::{Object, PortMap};
use prost::Message;
use prost_reflect::DynamicMessage;

pub(crate) use routing::names_priority;

use crate::dash;
use crate::row::FieldError;
use crate::schema;

/// What was accepted without effect.
#[derive(Debug, Default)]
pub(crate) struct Notes(Vec<String>);

impl Notes {
    /// The field is kept and read back, and does nothing.
    fn ignored(&mut self, field: &str) {
        self.0.push(format!("stored, not acted on: {field}"));
    }

    /// [`Notes::ignored`] when `present`.
    fn ignored_if(&mut self, present: bool, field: &str) {
        if present {
            self.ignored(field);
        }
    }

    fn add(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }

    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.0
    }
}

/// Decodes the message of `key`'s table and checks it. Gives the key back because an inbound rule
/// may have its priority in the message.
pub(crate) fn object(
    key: ObjectKey,
    key_text: &str,
    raw: &[u8],
    notes: &mut Notes,
) -> Result<(ObjectKey, Object), FieldError> {
    let object = match &key {
        ObjectKey::Appliance(_) => Object::Appliance(card::appliance(
            decode(Table::Appliance, raw, notes)?,
            notes,
        )?),
        ObjectKey::RoutingType(kind) => Object::RoutingType(card::routing_type(
            *kind,
            decode(Table::RoutingType, raw, notes)?,
            notes,
        )?),
        ObjectKey::Vnet(_) => Object::Vnet(card::vnet(decode(Table::Vnet, raw, notes)?, notes)?),
        ObjectKey::Eni(_) => Object::Eni(card::eni(decode(Table::Eni, raw, notes)?)?),
        ObjectKey::RouteGroup(_) => {
            Object::RouteGroup(routing::route_group(decode(Table::RouteGroup, raw, notes)?))
        }
        ObjectKey::Route(..) => {
            Object::Route(routing::route(decode(Table::Route, raw, notes)?, notes)?)
        }
        ObjectKey::EniRoute(_) => {
            Object::EniRoute(routing::eni_route(decode(Table::EniRoute, raw, notes)?)?)
        }
        ObjectKey::RouteRule(rule) => {
            let message: dash::route_rule::RouteRule = decode(Table::RouteRule, raw, notes)?;
            let rule = routing::rule_key(rule, key_text, &message, notes);
            let object = Object::RouteRule(routing::route_rule(message, notes)?);
            return Ok((ObjectKey::RouteRule(rule), object));
        }
        ObjectKey::VnetMapping(..) => Object::VnetMapping(routing::vnet_mapping(
            decode(Table::VnetMapping, raw, notes)?,
            notes,
        )?),
        ObjectKey::AclGroup(_) => {
            Object::AclGroup(acl::group(&decode(Table::AclGroup, raw, notes)?)?)
        }
        ObjectKey::AclRule(..) => {
            Object::AclRule(acl::rule(decode(Table::AclRule, raw, notes)?)?.into())
        }
        ObjectKey::AclIn(..) => {
            let bind: dash::acl_in::AclIn = decode(Table::AclIn, raw, notes)?;
            Object::AclIn(acl::bind(&bind.v4_acl_group_id, &bind.v6_acl_group_id)?)
        }
        ObjectKey::AclOut(..) => {
            let bind: dash::acl_out::AclOut = decode(Table::AclOut, raw, notes)?;
            Object::AclOut(acl::bind(&bind.v4_acl_group_id, &bind.v6_acl_group_id)?)
        }
        ObjectKey::PrefixTag(_) => {
            Object::PrefixTag(acl::tag(&decode(Table::PrefixTag, raw, notes)?)?.into())
        }
        ObjectKey::Tunnel(_) => {
            Object::Tunnel(tunnel::tunnel(&decode(Table::Tunnel, raw, notes)?)?)
        }
        ObjectKey::PortMap(_) => {
            let _: dash::outbound_port_map::OutboundPortMap = decode(Table::PortMap, raw, notes)?;
            Object::PortMap(PortMap)
        }
        ObjectKey::PortMapRange(..) => Object::PortMapRange(tunnel::port_map_range(
            &decode(Table::PortMapRange, raw, notes)?,
            notes,
        )?),
        ObjectKey::PaValidation(_) => Object::PaValidation(routing::pa_validation(&decode(
            Table::PaValidation,
            raw,
            notes,
        )?)?),
        ObjectKey::MeterPolicy(_) => Object::MeterPolicy(meter::policy(
            &decode(Table::MeterPolicy, raw, notes)?,
            notes,
        )?),
        ObjectKey::MeterRule(..) => {
            Object::MeterRule(meter::rule(&decode(Table::MeterRule, raw, notes)?)?)
        }
        ObjectKey::Qos(_) => Object::Qos(meter::qos(&decode(Table::Qos, raw, notes)?)),
        ObjectKey::Switch => Object::Switch(settings::switch(
            &decode(Table::Switch, raw, notes)?,
            notes,
        )?),
        ObjectKey::EniSettings(_) => {
            Object::EniSettings(settings::eni(&decode(Table::EniSettings, raw, notes)?)?)
        }
        ObjectKey::RouteGroupSettings(_) => Object::RouteGroupSettings(settings::route_group(
            &decode(Table::RouteGroupSettings, raw, notes)?,
        )),
        ObjectKey::Opaque(table, _) => {
            opaque(table, raw)?;
            // Two tables without objects of their own, which the engine reads.
            if ![
                "DASH_FLOW_SYNC_SESSION_TABLE",
                "DASH_FLOW_DUMP_FILTER_TABLE",
            ]
            .contains(&&**table)
            {
                notes.add("stored, not acted on");
            }
            Object::Opaque
        }
    };
    Ok((key, object))
}

fn decode<M: Message + Default>(
    table: Table,
    raw: &[u8],
    notes: &mut Notes,
) -> Result<M, FieldError> {
    let message = M::decode(raw).map_err(|e| not_the_message(table.name(), &e))?;
    // Lengths agree for all canonical encodings of known fields; the slow look is for the rest.
    if message.encoded_len() != raw.len() {
        for number in unknown_fields(table.name(), raw) {
            notes.add(format!("stored, not acted on: unknown field {number}"));
        }
    }
    Ok(message)
}

fn unknown_fields(table: &str, raw: &[u8]) -> Vec<u32> {
    let Some(message) = schema::message_of(table).and_then(|d| DynamicMessage::decode(d, raw).ok())
    else {
        return Vec::new();
    };
    let mut numbers: Vec<u32> = message.unknown_fields().map(|f| f.number()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// A row that is only stored must still be the message of its table, if that is known.
fn opaque(table: &str, raw: &[u8]) -> Result<(), FieldError> {
    // Who sends one has packets go by it, and no document says how: orchagent never read the table.
    if table == "DASH_ROUTING_APPLIANCE_TABLE" {
        return Err(FieldError {
            field: None,
            kind: crate::row::Kind::Unimplemented,
            reason: "nothing acts on it: DASH_TUNNEL_TABLE has taken its place".to_owned(),
        });
    }
    match schema::message_of(table) {
        Some(_) if schema::keeps_json(table) && crate::json::is_json(raw) => Ok(()),
        Some(descriptor) => DynamicMessage::decode(descriptor, raw)
            .map(drop)
            .map_err(|e| not_the_message(table, &e)),
        None => Ok(()),
    }
}

fn not_the_message(table: &str, error: &prost::DecodeError) -> FieldError {
    let message = schema::message_of(table);
    let name = message.as_ref().map_or("message", |m| m.full_name());
    FieldError::malformed(format!("not a {name}: {error}"))
}
