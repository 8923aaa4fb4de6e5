//! Flows as users name them: filters by SONiC's names, lists, deletion, resimulation.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dash_model::key::EniKey;
use dash_model::net::Mac;
use dash_pipeline::plan::Resimulation;
use dash_wire::tables::FlowEntry;
use nic_target::{FlowEdit, FlowField, FlowFilter, FlowOp, FlowQuery, FlowValue, Target};
use thiserror::Error;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::state::{self, FlowOwner};

/// Why text is not a filter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The first word.
    #[error("`{0}` is no field to filter by; there are {fields}", fields = FIELDS.join(", "))]
    Field(String),
    /// The comparison.
    #[error("`{0}` is no comparison; there are {ops}", ops = OPS.map(|(name, _)| name).join(", "))]
    Op(String),
    /// The value.
    #[error("{field} is compared with {wants}, not with `{value}`")]
    Value {
        /// Name of the field.
        field: &'static str,
        /// What is wanted.
        wants: &'static str,
        /// What was given.
        value: String,
    },
}

/// Names of fields in `DASH_FLOW_DUMP_FILTER_TABLE`.
const FIELDS: [&str; 7] = [
    "eni_addr",
    "ip_protocol",
    "src_ip_addr",
    "dst_ip_addr",
    "src_l4_port",
    "dst_l4_port",
    "key_version",
];

/// Names of comparisons there.
const OPS: [(&str, FlowOp); 5] = [
    ("equal_to", FlowOp::Equal),
    ("greater_than", FlowOp::Greater),
    ("greater_than_or_equal_to", FlowOp::GreaterOrEqual),
    ("less_than", FlowOp::Less),
    ("less_than_or_equal_to", FlowOp::LessOrEqual),
];

/// A condition on one direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter(Is);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// Of the ENI, by its MAC as a number.
    Mac(FlowOp, [u8; 6]),
    Flow(FlowFilter),
}

impl Filter {
    /// From the names and text of `DASH_FLOW_DUMP_FILTER_TABLE`.
    ///
    /// # Errors
    /// A word is none of its names, or the value is not of the field's kind.
    pub fn parse(field: &str, op: &str, value: &str) -> Result<Self, FilterError> {
        let field = *FIELDS
            .iter()
            .find(|name| **name == field)
            .ok_or_else(|| FilterError::Field(field.to_owned()))?;
        let (_, op) = *OPS
            .iter()
            .find(|(name, _)| *name == op)
            .ok_or_else(|| FilterError::Op(op.to_owned()))?;
        let wants = |wants| FilterError::Value {
            field,
            wants,
            value: value.to_owned(),
        };
        let number = |most: u64, what| {
            let n = value.parse().ok().filter(|n| *n <= most);
            n.map(FlowValue::Number).ok_or_else(|| wants(what))
        };
        let address = || {
            let ip: IpAddr = value.parse().map_err(|_| wants("an IP address"))?;
            Ok(FlowValue::Ip {
                v6: ip.is_ipv6(),
                addr: match ip {
                    IpAddr::V4(ip) => u128::from(u32::from(ip)).to_be_bytes(),
                    IpAddr::V6(ip) => ip.octets(),
                },
            })
        };
        let port = || number(u16::MAX.into(), "a port");
        let (field, value) = match field {
            "eni_addr" => {
                let mac = mac(value).ok_or_else(|| wants("a MAC address"))?;
                return Ok(Self(Is::Mac(op, mac)));
            }
            "ip_protocol" => (FlowField::Proto, number(255, "an IP protocol, 0 to 255")?),
            "src_ip_addr" => (FlowField::SrcIp, address()?),
            "dst_ip_addr" => (FlowField::DstIp, address()?),
            "src_l4_port" => (FlowField::SrcPort, port()?),
            "dst_l4_port" => (FlowField::DstPort, port()?),
            _ => (FlowField::Version, number(u64::MAX, "a number")?),
        };
        Ok(Self(Is::Flow(FlowFilter { field, op, value })))
    }
}

/// Twelve hex digits, as they are or in pairs with `:` or `-` between.
fn mac(text: &str) -> Option<[u8; 6]> {
    let digits = match text.len() {
        12 => text.to_owned(),
        17 => text.split([':', '-']).collect(),
        _ => return None,
    };
    if digits.len() != 12 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let number = u64::from_str_radix(&digits, 16).ok()?;
    number.to_be_bytes().last_chunk().copied()
}

/// Which flows: all that every filter holds of, as many as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSelection {
    /// Of this ENI alone.
    pub eni: Option<EniKey>,
    /// All must hold of one direction.
    pub filters: Vec<Filter>,
    /// Most connections.
    pub most: usize,
}

impl FlowSelection {
    /// Every flow.
    pub const ALL: Self = Self {
        eni: None,
        filters: Vec::new(),
        most: usize::MAX,
    };
}

/// ENI of a flow, kept apart from the engine.
#[derive(Clone, Debug)]
struct Owner {
    key: EniKey,
    mac: Mac,
    vnet_id: u16,
}

/// Flows that were found, which become text without the engine.
#[derive(Clone, Debug)]
pub struct FoundFlows {
    flows: Vec<FlowEntry>,
    query: FlowQuery,
    owners: BTreeMap<u32, Owner>,
}

impl FoundFlows {
    /// How many connections.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// A JSON object a line, for each direction that the filters hold of. See [`state`].
    pub fn jsonl(&self) -> String {
        self.lines(true)
    }

    /// The same with keys alone.
    pub fn keys_jsonl(&self) -> String {
        self.lines(false)
    }

    fn lines(&self, whole: bool) -> String {
        let owner = |index: u32| {
            self.owners.get(&index).map(|owner| FlowOwner {
                key: owner.key.as_str(),
                mac: owner.mac,
                vnet_id: owner.vnet_id,
            })
        };
        state::flows_jsonl(&self.flows, &self.query, whole, owner)
    }
}

impl<T: Target + ?Sized> Engine<T> {
    /// Live flows that are asked for.
    ///
    /// # Errors
    /// The target cannot be read.
    pub fn find_flows(&mut self, which: &FlowSelection) -> Result<FoundFlows, EngineError> {
        let query = self.flow_query(which);
        let flows = self.target_mut().find_flows(&query)?;
        let owners = self.enis_by_index().map(|(index, key)| {
            let eni = self.store().eni(key);
            let vnet = eni.and_then(|eni| eni.vnet.as_ref());
            let vnet_id = vnet.and_then(|vnet| self.vnet_id(vnet)).unwrap_or(0);
            let owner = Owner {
                key: key.clone(),
                mac: eni.map_or(Mac([0; 6]), |eni| eni.mac),
                vnet_id,
            };
            (index, owner)
        });
        let owners = owners.collect();
        Ok(FoundFlows {
            flows,
            query,
            owners,
        })
    }

    /// Live flows, one JSON object a line, two lines a connection. See [`state`].
    ///
    /// # Errors
    /// The target cannot be read.
    pub fn flows_jsonl(&mut self) -> Result<String, EngineError> {
        Ok(self.find_flows(&FlowSelection::ALL)?.jsonl())
    }

    /// Ends flows, both directions; gives how many connections.
    ///
    /// # Errors
    /// The target does not answer.
    pub fn delete_flows(&mut self, which: &FlowSelection) -> Result<u64, EngineError> {
        let query = self.flow_query(which);
        Ok(self.target_mut().edit_flows(&query, FlowEdit::Delete)?)
    }

    /// Has an ENI's flows decided again, each by the next packet of its first side. With filters, only
    /// those that are asked for. False when there is no such ENI.
    ///
    /// # Errors
    /// Nothing changed: the target does not take it.
    pub fn resimulate(
        &mut self,
        eni: &EniKey,
        filters: &[Filter],
        how: Resimulation,
    ) -> Result<bool, EngineError> {
        if self.store().eni(eni).is_none() {
            return Ok(false);
        }
        self.plan_resimulation(eni, how, filters.is_empty())?;
        if !filters.is_empty() {
            let asked = self.flow_query(&FlowSelection {
                eni: Some(eni.clone()),
                filters: filters.to_vec(),
                ..FlowSelection::ALL
            });
            let old = FlowEdit::Epoch(self.epoch(eni).wrapping_sub(1));
            self.target_mut().edit_flows(&asked, old)?;
        }
        Ok(true)
    }

    fn flow_query(&self, which: &FlowSelection) -> FlowQuery {
        let mut enis: Option<Vec<u32>> = which
            .eni
            .as_ref()
            .map(|eni| self.eni_index(eni).into_iter().collect());
        let mut filters = Vec::new();
        for Filter(is) in &which.filters {
            match is {
                Is::Flow(filter) => filters.push(*filter),
                Is::Mac(op, mac) => {
                    let holds = |key: &EniKey| {
                        let eni = self.store().eni(key);
                        eni.is_some_and(|eni| op.holds(eni.mac.0, *mac))
                    };
                    let with: Vec<u32> = self
                        .enis_by_index()
                        .filter(|(_, key)| holds(key))
                        .map(|(index, _)| index)
                        .collect();
                    enis = Some(match enis {
                        Some(enis) => enis.into_iter().filter(|e| with.contains(e)).collect(),
                        None => with,
                    });
                }
            }
        }
        FlowQuery {
            enis,
            filters,
            most: which.most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_and_comparison_is_read_and_wrong_ones_say_what_there_is() {
        for (field, value) in [
            ("eni_addr", "f4:93:9f:ef:c4:7e"),
            ("ip_protocol", "6"),
            ("src_ip_addr", "10.0.0.1"),
            ("dst_ip_addr", "fd00::1"),
            ("src_l4_port", "65535"),
            ("dst_l4_port", "0"),
            ("key_version", "4"),
        ] {
            for (op, _) in OPS {
                assert!(Filter::parse(field, op, value).is_ok(), "{field} {op}");
            }
            let wrong = Filter::parse(field, "equal_to", "x").expect_err("not a value");
            assert!(wrong.to_string().contains(field), "{wrong}");
        }
        let wrong = |f, o, v| Filter::parse(f, o, v).expect_err("wrong").to_string();
        assert!(wrong("vni", "equal_to", "1").contains("src_l4_port"));
        assert!(wrong("ip_protocol", "is", "1").contains("less_than_or_equal_to"));
        assert_eq!(
            wrong("ip_protocol", "equal_to", "256"),
            "ip_protocol is compared with an IP protocol, 0 to 255, not with `256`"
        );
    }
}
