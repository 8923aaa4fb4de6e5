//! Which message the rows of a table hold, and the descriptors the JSON forms are driven by.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MessageDescriptor};

use crate::FILE_DESCRIPTOR_SET;

/// Tables whose rows are one protobuf message.
const MESSAGES: &[(&str, &str)] = &[
    ("DASHWIRE_ENI_TABLE", "dashwire.v1.EniSettings"),
    (
        "DASHWIRE_ROUTE_GROUP_TABLE",
        "dashwire.v1.RouteGroupSettings",
    ),
    ("DASH_ACL_GROUP_TABLE", "dash.acl_group.AclGroup"),
    ("DASH_ACL_IN_TABLE", "dash.acl_in.AclIn"),
    ("DASH_ACL_OUT_TABLE", "dash.acl_out.AclOut"),
    ("DASH_ACL_RULE_TABLE", "dash.acl_rule.AclRule"),
    ("DASH_APPLIANCE_TABLE", "dash.appliance.Appliance"),
    ("DASH_ENI_ROUTE_TABLE", "dash.eni_route.EniRoute"),
    ("DASH_ENI_TABLE", "dash.eni.Eni"),
    (
        "DASH_HA_SCOPE_CONFIG_TABLE",
        "dash.ha_scope_config.HaScopeConfig",
    ),
    (
        "DASH_HA_SCOPE_STATE_TABLE",
        "dash.ha_scope_state.HaScopeState",
    ),
    ("DASH_HA_SCOPE_TABLE", "dash.ha_scope.HaScope"),
    ("DASH_HA_SET_CONFIG_TABLE", "dash.ha_set_config.HaSetConfig"),
    ("DASH_HA_SET_STATE_TABLE", "dash.ha_set_state.HaSetState"),
    ("DASH_HA_SET_TABLE", "dash.ha_set.HaSet"),
    ("DASH_METER_POLICY_TABLE", "dash.meter_policy.MeterPolicy"),
    ("DASH_METER_RULE_TABLE", "dash.meter_rule.MeterRule"),
    ("DASH_METER_TABLE", "dash.meter_rule.Meter"),
    (
        "DASH_OUTBOUND_PORT_MAP_RANGE_TABLE",
        "dash.outbound_port_map_range.OutboundPortMapRange",
    ),
    (
        "DASH_OUTBOUND_PORT_MAP_TABLE",
        "dash.outbound_port_map.OutboundPortMap",
    ),
    (
        "DASH_PA_VALIDATION_TABLE",
        "dash.pa_validation.PaValidation",
    ),
    ("DASH_PREFIX_TAG_TABLE", "dash.tag.PrefixTag"),
    ("DASH_QOS_TABLE", "dash.qos.Qos"),
    ("DASH_ROUTE_GROUP_TABLE", "dash.route_group.RouteGroup"),
    ("DASH_ROUTE_RULE_TABLE", "dash.route_rule.RouteRule"),
    ("DASH_ROUTE_TABLE", "dash.route.Route"),
    (
        "DASH_ROUTING_APPLIANCE_TABLE",
        "dash.routing_appliance.RoutingAppliance",
    ),
    ("DASH_ROUTING_TYPE_TABLE", "dash.route_type.RouteType"),
    ("DASH_TUNNEL_TABLE", "dash.tunnel.Tunnel"),
    ("DASH_VNET_MAPPING_TABLE", "dash.vnet_mapping.VnetMapping"),
    ("DASH_VNET_TABLE", "dash.vnet.Vnet"),
    (SWITCH, "dashwire.v1.Switch"),
];

/// SONiC's own, of plain fields; the message is ours.
const SWITCH: &str = "SWITCH_TABLE";

/// Tables that SONiC keeps as plain hash fields although a message of that name exists.
const PLAIN: &[&str] = &["DASH_HA_SCOPE_TABLE", "DASH_HA_SET_TABLE"];

static BY_TABLE: LazyLock<HashMap<&'static str, MessageDescriptor>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET)
        .expect("the build script wrote a complete descriptor set");
    MESSAGES
        .iter()
        .map(|&(table, message)| {
            let descriptor = pool
                .get_message_by_name(message)
                .expect("every message of the list is in specs/proto");
            (table, descriptor)
        })
        .collect()
});

/// The message a row of `table` is; `None` for a table that has none.
pub fn message_of(table: &str) -> Option<MessageDescriptor> {
    BY_TABLE.get(table).cloned()
}

/// The tables whose rows are a protobuf message, with the message's full name, by table.
pub fn tables() -> impl Iterator<Item = (&'static str, &'static str)> {
    MESSAGES.iter().copied()
}

/// True when JSON rows of the table are kept as they came: a table without a message, or one
/// that SONiC keeps as plain hash fields.
pub(crate) fn keeps_json(table: &str) -> bool {
    PLAIN.contains(&table) || !BY_TABLE.contains_key(table)
}

/// True for a table whose rows SONiC keeps as hash fields, which a write adds to and changes one by one.
/// Rows that are one protobuf message have one field there, so a write is the whole row.
pub fn has_fields(table: &str) -> bool {
    table == SWITCH || keeps_json(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_acting_table_has_a_message() {
        for table in dash_model::key::Table::ALL {
            assert!(message_of(table.name()).is_some(), "{}", table.name());
        }
    }

    #[test]
    fn every_listed_message_is_in_the_descriptor_set() {
        for (table, message) in tables() {
            let found = message_of(table).map(|m| m.full_name().to_owned());
            assert_eq!(found.as_deref(), Some(message));
        }
    }

    #[test]
    fn tables_without_a_message_and_hash_tables_keep_their_json() {
        assert!(keeps_json("DASH_RESET_STATUS"));
        assert!(keeps_json("DASH_HA_SET_TABLE"));
        assert!(!keeps_json("DASH_QOS_TABLE"));
        for table in [
            "SWITCH_TABLE",
            "DASH_HA_SET_TABLE",
            "DASH_FLOW_DUMP_FILTER_TABLE",
        ] {
            assert!(has_fields(table), "{table}");
        }
        for table in ["DASH_QOS_TABLE", "DASHWIRE_ENI_TABLE"] {
            assert!(!has_fields(table), "{table}");
        }
    }
}
